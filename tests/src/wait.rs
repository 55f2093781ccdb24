//! Waiting for a condition of another process.

use std::time::{Duration, Instant};

/// The longest pause between two looks; the first are shorter, as some things take only milliseconds.
const POLL: Duration = Duration::from_millis(20);
const FIRST_POLL: Duration = Duration::from_millis(1);

/// Polls `condition` until it yields a value or `patience` is over.
pub fn until<T>(patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_POLL;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(POLL);
    }
}
