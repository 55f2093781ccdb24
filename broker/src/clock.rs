//! The only place of the shell that reads the clocks whose time the core is told.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use barnabas_core::time::Now;

use crate::host;

/// Zero of the monotonic clock: the moment of its first use.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The present moment on both clocks.
pub fn now() -> Now {
    host::simulated_now().unwrap_or_else(|| Now {
        monotonic: START.elapsed(),
        wall_clock_ms: system_clock_ms(),
    })
}

/// Milliseconds since the Unix epoch; negative if the system's clock stands before it.
pub fn wall_clock_ms() -> i64 {
    host::simulated_now().map_or_else(system_clock_ms, |now| now.wall_clock_ms)
}

fn system_clock_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    }
}
