//! The quota for what the controller is asked to change (KIP-599).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use barnabas_core::quota::{QuotaLimits, QuotaRate, TokenBucket, Window};

use super::throttled::{ThrottleTime, Throttled};
use super::{Client, Key};
use crate::clock;
use crate::metrics::Exposition;

/// The client has to wait before it may change more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The throttling quota has been exceeded.")]
pub struct MutationQuotaExceeded;

/// What happens to changes over the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// They are refused: the client knows the error.
    Strict,
    /// They are made, and the client is throttled afterwards.
    Permissive,
}

struct Used {
    bucket: TokenBucket,
    rate: QuotaRate,
    throttle_time: ThrottleTime,
    limit: f64,
}

/// Partitions that clients create and delete.
pub struct MutationQuota {
    window: Window,
    is_enabled: AtomicBool,
    limits: ArcSwap<QuotaLimits>,
    used: Mutex<HashMap<Key, Used>>,
    throttled: Throttled,
}

impl MutationQuota {
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            is_enabled: AtomicBool::new(false),
            limits: ArcSwap::default(),
            used: Mutex::default(),
            throttled: Throttled::default(),
        }
    }

    pub(super) fn set_limits(&self, limits: &QuotaLimits) {
        self.limits.store(limits.clone().into());
        self.is_enabled.store(!limits.is_empty(), Ordering::Relaxed);
    }

    /// The quota of one request.
    pub fn of(self: &Arc<Self>, client: Client<'_>, strictness: Strictness) -> Mutations {
        let is_enabled = self.is_enabled.load(Ordering::Relaxed);
        let limit = is_enabled
            .then(|| self.limits.load().resolve(client.user, client.client_id))
            .flatten();
        Mutations {
            limited: limit.map(|limit| Limited {
                quota: self.clone(),
                key: Key::new(client, limit.scope),
                limit: limit.per_second,
                strictness,
            }),
            throttled: None,
        }
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Key, Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget_idle(&self, memory: Duration, now: Duration) {
        self.used()
            .retain(|_, used| !used.bucket.is_idle(memory, now));
    }

    pub(super) fn write_metrics(&self, out: &mut Exposition, now: Duration) {
        let mut figures: Vec<(Key, f64, f64, f64)> = self
            .used()
            .iter_mut()
            .map(|(key, used)| {
                // Looked at, not used: a copy, or whoever is away would never be forgotten.
                let tokens = used.bucket.clone().tokens(used.limit, self.window, now);
                let average = used.throttle_time.average(now);
                (key.clone(), used.rate.measure(now), tokens, average)
            })
            .collect();
        figures.sort_by(|one, other| one.0.cmp(&other.0));
        let prefix = "kafka_server_controllermutation";
        for (key, rate, ..) in &figures {
            let labels = [("user", &*key.user), ("client_id", &*key.client_id)];
            out.gauge(&format!("{prefix}_mutation_rate"), &labels, rate);
        }
        for (key, _, tokens, _) in &figures {
            let labels = [("user", &*key.user), ("client_id", &*key.client_id)];
            out.gauge(&format!("{prefix}_tokens"), &labels, tokens);
        }
        for (key, .., average) in &figures {
            let labels = [("user", &*key.user), ("client_id", &*key.client_id)];
            out.gauge(&format!("{prefix}_throttle_time"), &labels, average);
        }
        let throttled = self.throttled.count(now);
        out.gauge(&format!("{prefix}_queue_size"), &[], throttled);
    }
}

struct Limited {
    quota: Arc<MutationQuota>,
    key: Key,
    limit: f64,
    strictness: Strictness,
}

/// What one request may change.
pub struct Mutations {
    limited: Option<Limited>,
    /// For how many milliseconds the client is throttled, and when that was found.
    throttled: Option<(u32, Duration)>,
}

impl Mutations {
    /// No limit: the broker changes something for itself.
    pub fn unlimited() -> Self {
        Self {
            limited: None,
            throttled: None,
        }
    }

    /// Notes a change of so many partitions before it is made.
    pub fn record(&mut self, partitions: usize) -> Result<(), MutationQuotaExceeded> {
        let Some(limited) = &self.limited else {
            return Ok(());
        };
        let now = clock::now().monotonic;
        let (limit, window) = (limited.limit, limited.quota.window);
        let mut all = limited.quota.used();
        let used = all.entry(limited.key.clone()).or_insert_with(|| Used {
            bucket: TokenBucket::default(),
            rate: QuotaRate::new(window),
            throttle_time: ThrottleTime::new(window),
            limit,
        });
        used.limit = limit;
        if limited.strictness == Strictness::Strict {
            let throttle_ms = used.bucket.throttle_ms(limit, window, now);
            if throttle_ms > 0 {
                self.throttled = Some((throttle_ms, now));
                return Err(MutationQuotaExceeded);
            }
        }
        used.bucket.take(partitions as f64, limit, window, now);
        used.rate.record(partitions as f64, now);
        if limited.strictness == Strictness::Permissive {
            let throttle_ms = used.bucket.throttle_ms(limit, window, now);
            if throttle_ms > 0 {
                self.throttled = Some((throttle_ms, now));
            }
        }
        Ok(())
    }

    /// For how many milliseconds from now on the client is throttled.
    pub fn throttle_ms(&self) -> u32 {
        self.throttled.map_or(0, |(throttle_ms, then)| {
            let passed = clock::now().monotonic.saturating_sub(then).as_millis();
            throttle_ms.saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX))
        })
    }

    /// The same once the client is told, which counts as a throttle.
    pub fn throttle(&self) -> u32 {
        let throttle_ms = self.throttle_ms();
        if let Some(limited) = &self.limited {
            let now = clock::now().monotonic;
            let throttle = Duration::from_millis(throttle_ms.into());
            limited.quota.throttled.note(throttle, now);
            if let Some(used) = limited.quota.used().get_mut(&limited.key) {
                used.throttle_time.note(throttle_ms, now);
            }
        }
        throttle_ms
    }
}
