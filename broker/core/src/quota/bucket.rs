//! Tokens for what the controller is asked to change (KIP-599). Kafka: `TokenBucket`.

use std::time::Duration;

use super::rate::Window;

/// Tokens that come back at the rate of a limit, up to what the window holds. May be in debt.
#[derive(Clone, Debug, Default)]
pub struct TokenBucket {
    tokens: f64,
    /// Absent before the first use, when it is full.
    refilled: Option<Duration>,
}

impl TokenBucket {
    /// How many tokens there are now; negative ones are owed.
    pub fn tokens(&mut self, limit: f64, window: Window, now: Duration) -> f64 {
        let burst = window.burst(limit);
        self.tokens = match self.refilled {
            None => burst,
            Some(then) => {
                let gained = limit * now.saturating_sub(then).as_secs_f64();
                burst.min(self.tokens + gained)
            }
        };
        self.refilled = Some(now);
        self.tokens
    }

    /// Takes `amount` tokens, whether they are there or not.
    pub fn take(&mut self, amount: f64, limit: f64, window: Window, now: Duration) {
        self.tokens(limit, window, now);
        self.tokens = window.burst(limit).min(self.tokens - amount);
    }

    /// Milliseconds until nothing is owed; 0 if nothing is.
    pub fn throttle_ms(&mut self, limit: f64, window: Window, now: Duration) -> u32 {
        let tokens = self.tokens(limit, window, now);
        if tokens >= 0.0 {
            return 0;
        }
        (-tokens / limit * 1e3).round().min(f64::from(i32::MAX)) as u32
    }

    /// Whether it was not used for `time`.
    pub fn is_idle(&self, time: Duration, now: Duration) -> bool {
        self.refilled
            .is_none_or(|then| now.saturating_sub(then) >= time)
    }
}
