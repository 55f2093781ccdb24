//! Time as an argument. The shell reads clocks; the core is told.

use std::time::Duration;

/// The moment at which a decision is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Time since an arbitrary fixed point of this process; never goes back. For timeouts.
    pub monotonic: Duration,
    /// Milliseconds since the Unix epoch; may jump. For timestamps that others see.
    pub wall_clock_ms: i64,
}

impl Now {
    /// The monotonic moment `after` from now.
    pub fn deadline(&self, after: Duration) -> Deadline {
        Deadline(self.monotonic.saturating_add(after))
    }
}

/// A point on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Duration);

impl Deadline {
    /// Whether the deadline has come.
    pub fn has_passed(&self, now: Now) -> bool {
        now.monotonic >= self.0
    }
}
