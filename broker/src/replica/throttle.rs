//! The quotas of this broker for replication: one for what it sends as a leader, one for what it fetches as a
//! follower (Kafka: `ReplicationQuotaManager`).

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use barnabas_core::config::BrokerConfig;
use barnabas_core::partition::throttle::Rate;
use barnabas_core::time::Now;

/// A limit of bytes a second, and what has gone through.
#[derive(Debug)]
pub struct ReplicationQuota {
    key: &'static str,
    /// `i64::MAX` is no limit.
    limit: AtomicI64,
    rate: Mutex<Rate>,
}

impl ReplicationQuota {
    /// The quota whose limit is the dynamic setting `key`.
    pub fn new(key: &'static str, config: &BrokerConfig) -> Self {
        let samples = usize::try_from(config.replication_quota_window_num).unwrap_or(11);
        let seconds = u64::try_from(config.replication_quota_window_size_seconds).unwrap_or(1);
        let quota = Self {
            key,
            limit: AtomicI64::new(i64::MAX),
            rate: Mutex::new(Rate::new(samples, Duration::from_secs(seconds))),
        };
        quota.configure(config);
        quota
    }

    /// Takes over the limit that is set now.
    pub fn configure(&self, config: &BrokerConfig) {
        let limit = config.given().get(self.key);
        let limit = limit.and_then(|text| text.trim().parse().ok());
        self.limit
            .store(limit.unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Notes bytes of a throttled replica.
    pub fn record(&self, bytes: usize, now: Now) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.record(bytes as u64, now);
    }

    /// Whether throttled replicas have to wait.
    pub fn is_exceeded(&self, now: Now) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        limit != i64::MAX && self.rate(now) > limit as f64
    }

    /// Bytes a second lately.
    pub fn rate(&self, now: Now) -> f64 {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.measure(now)
    }
}
