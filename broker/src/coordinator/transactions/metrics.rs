//! What is counted of transactions (Kafka's `transaction-coordinator-metrics` and `TransactionMarkerChannelManager`).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Figures of one broker's coordinator.
#[derive(Debug, Default)]
pub struct TransactionMetrics {
    /// Markers that wait for a partition to have a leader, by transaction.
    pub unknown_destinations: AtomicUsize,
    /// Completed transactions whose last record could not be written yet.
    pub append_retries: AtomicUsize,
    loads: AtomicU64,
    load_ms_sum: AtomicU64,
    load_ms_max: AtomicU64,
}

impl TransactionMetrics {
    pub(super) fn loaded(&self, took: Duration) {
        let took_ms = took.as_millis() as u64;
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.load_ms_sum.fetch_add(took_ms, Ordering::Relaxed);
        self.load_ms_max.fetch_max(took_ms, Ordering::Relaxed);
    }

    /// The longest load of a partition, in milliseconds.
    pub fn load_ms_max(&self) -> u64 {
        self.load_ms_max.load(Ordering::Relaxed)
    }

    /// How long loads of a partition took on average, in milliseconds.
    pub fn load_ms_avg(&self) -> f64 {
        let loads = self.loads.load(Ordering::Relaxed);
        if loads == 0 {
            return 0.0;
        }
        self.load_ms_sum.load(Ordering::Relaxed) as f64 / loads as f64
    }
}
