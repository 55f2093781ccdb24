//! Who is throttled, and for how long: for metrics.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_core::quota::{QuotaRate, Window};

/// How many connections are not read from, or are about to be refused (Kafka: the delay queues of
/// `ClientQuotaManager`).
#[derive(Default)]
pub(super) struct Throttled {
    /// When each throttle ends.
    ends: Mutex<BinaryHeap<Reverse<Duration>>>,
}

impl Throttled {
    fn ends(&self, now: Duration) -> MutexGuard<'_, BinaryHeap<Reverse<Duration>>> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        while ends.peek().is_some_and(|Reverse(end)| *end <= now) {
            ends.pop();
        }
        ends
    }

    /// Notes a throttle that begins now.
    pub(super) fn note(&self, throttle: Duration, now: Duration) {
        if !throttle.is_zero() {
            self.ends(now).push(Reverse(now.saturating_add(throttle)));
        }
    }

    /// How many throttles have not ended.
    pub(super) fn count(&self, now: Duration) -> usize {
        self.ends(now).len()
    }
}

/// Throttle times within the window, without those of zero.
pub(super) struct ThrottleTime {
    sum_ms: QuotaRate,
    count: QuotaRate,
}

impl ThrottleTime {
    pub(super) fn new(window: Window) -> Self {
        Self {
            sum_ms: QuotaRate::new(window),
            count: QuotaRate::new(window),
        }
    }

    pub(super) fn note(&mut self, throttle_ms: u32, now: Duration) {
        if throttle_ms > 0 {
            self.sum_ms.record(f64::from(throttle_ms), now);
            self.count.record(1.0, now);
        }
    }

    /// Milliseconds; 0 without any.
    pub(super) fn average(&mut self, now: Duration) -> f64 {
        let count = self.count.measure(now);
        if count > 0.0 {
            self.sum_ms.measure(now) / count
        } else {
            0.0
        }
    }
}
