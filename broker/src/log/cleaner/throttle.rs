//! How fast cleaners may read and write, all of them together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long bytes are counted before anybody waits.
const WINDOW: Duration = Duration::from_millis(300);

/// A bound for bytes per second (`log.cleaner.io.max.bytes.per.second`; Kafka's `Throttler`).
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    window: Mutex<Option<Window>>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Duration,
    bytes: u64,
}

impl Throttle {
    /// Notes bytes that were read or written, and says how long to wait now.
    pub(crate) fn note(&self, bytes: u64, bytes_per_second: f64, now: Duration) -> Duration {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let current = window.get_or_insert(Window {
            began: now,
            bytes: 0,
        });
        current.bytes += bytes;
        let elapsed = now.saturating_sub(current.began);
        if elapsed < WINDOW {
            return Duration::ZERO;
        }
        let bytes = current.bytes;
        *window = Some(Window {
            began: now,
            bytes: 0,
        });
        let allowed = bytes_per_second.max(1.0);
        let needed = Duration::try_from_secs_f64(bytes as f64 / allowed).unwrap_or(Duration::MAX);
        needed.saturating_sub(elapsed)
    }
}
