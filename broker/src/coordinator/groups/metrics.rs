//! What is counted of groups (Kafka's `GroupMetadataManager` and `group-coordinator-metrics`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use barnabas_core::group::State;

/// Figures of one broker's coordinator, counted as things happen.
#[derive(Debug, Default)]
pub struct GroupMetrics {
    /// Offsets committed, in transactions and outside.
    pub offset_commits: AtomicU64,
    /// Offsets that outlived their time.
    pub offset_expirations: AtomicU64,
    /// Offsets that somebody deleted.
    pub offset_deletions: AtomicU64,
    /// Rebalances whose assignments are in the log.
    pub completed_rebalances: AtomicU64,
    load_ms_max: AtomicU64,
}

impl GroupMetrics {
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn loaded(&self, took: Duration) {
        let took_ms = took.as_millis() as u64;
        self.load_ms_max.fetch_max(took_ms, Ordering::Relaxed);
    }

    /// The longest load of a partition, in milliseconds.
    pub fn load_ms_max(&self) -> u64 {
        self.load_ms_max.load(Ordering::Relaxed)
    }
}

/// How many groups and offsets a broker has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    pub groups: usize,
    pub offsets: usize,
    pub empty: usize,
    pub preparing_rebalance: usize,
    pub completing_rebalance: usize,
    pub stable: usize,
    pub dead: usize,
}

impl GroupCounts {
    pub(super) fn add(&mut self, state: State, offsets: usize) {
        self.groups += 1;
        self.offsets += offsets;
        let of_state = match state {
            State::Empty => &mut self.empty,
            State::PreparingRebalance => &mut self.preparing_rebalance,
            State::CompletingRebalance => &mut self.completing_rebalance,
            State::Stable => &mut self.stable,
            State::Dead => &mut self.dead,
        };
        *of_state += 1;
    }
}
