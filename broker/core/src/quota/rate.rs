//! A rate over a window of samples. Kafka: `Rate` over `SampledStat`, and `QuotaUtils`.

use std::collections::VecDeque;
use std::time::Duration;

/// The longest throttle that can be told to a client.
const LONGEST_MS: f64 = i32::MAX as f64;

/// How many samples are kept, and how long each is: `quota.window.num` and `quota.window.size.seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub samples: u32,
    pub sample_length: Duration,
}

impl Window {
    /// From settings, which are at least 1.
    pub fn new(samples: i32, seconds: i32) -> Self {
        Self {
            samples: u32::try_from(samples).unwrap_or(1).max(1),
            sample_length: Duration::from_secs(u64::try_from(seconds).unwrap_or(1).max(1)),
        }
    }

    /// What may pass within a limit, per second, in all samples that are over.
    pub fn allowance(&self, limit: f64) -> f64 {
        limit * f64::from(self.samples - 1) * self.sample_length.as_secs_f64()
    }

    /// What may pass within a limit at once, after nothing passed for long.
    pub fn burst(&self, limit: f64) -> f64 {
        limit * f64::from(self.samples) * self.sample_length.as_secs_f64()
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    begin: Duration,
    last: Duration,
    sum: f64,
}

/// How much a second passed lately.
#[derive(Clone, Debug)]
pub struct QuotaRate {
    window: Window,
    /// Oldest first; the last one is being filled.
    samples: VecDeque<Sample>,
}

impl QuotaRate {
    /// A rate of nothing yet.
    pub fn new(window: Window) -> Self {
        Self {
            window,
            samples: VecDeque::new(),
        }
    }

    /// Notes that `amount` passed; a negative one takes back what was noted.
    pub fn record(&mut self, amount: f64, now: Duration) {
        match self.samples.back_mut() {
            Some(sample) if now.saturating_sub(sample.begin) < self.window.sample_length => {
                sample.sum += amount;
                sample.last = now;
            }
            Some(_) | None => {
                self.samples.push_back(Sample {
                    begin: now,
                    last: now,
                    sum: amount,
                });
                // The one being filled comes on top of those that count.
                while self.samples.len() > self.window.samples as usize + 1 {
                    self.samples.pop_front();
                }
            }
        }
    }

    fn forget_old(&mut self, now: Duration) {
        let expiry = self.window.sample_length * self.window.samples;
        let is_old = |sample: &Sample| now.saturating_sub(sample.last) >= expiry;
        while self.samples.front().is_some_and(is_old) {
            self.samples.pop_front();
        }
    }

    /// The time that the sums stand for: since the oldest sample, but never less than all samples but one.
    /// Must be called after old samples are forgotten.
    fn length(&self, now: Duration) -> Duration {
        let oldest = self.samples.front().map_or(now, |sample| sample.begin);
        let elapsed = now.saturating_sub(oldest);
        let sample_length = self.window.sample_length;
        let whole = elapsed.as_nanos() / sample_length.as_nanos();
        let missing = u128::from(self.window.samples - 1).saturating_sub(whole);
        elapsed + sample_length * u32::try_from(missing).unwrap_or(0)
    }

    /// How much a second passed.
    pub fn measure(&mut self, now: Duration) -> f64 {
        self.forget_old(now);
        let sum: f64 = self.samples.iter().map(|sample| sample.sum).sum();
        // With a single sample no time may have passed.
        let length = self.length(now).max(Duration::from_millis(1));
        sum / length.as_secs_f64()
    }

    /// How many milliseconds nothing may pass for the rate to fall to `limit` a second; 0 within the limit.
    /// A limit of zero is waited for as long as can be told.
    pub fn throttle_ms(&mut self, limit: f64, now: Duration) -> u32 {
        let rate = self.measure(now);
        if rate <= limit {
            return 0;
        }
        let length_ms = self.length(now).as_secs_f64() * 1e3;
        ((rate - limit) / limit * length_ms).round().min(LONGEST_MS) as u32
    }

    /// Whether nothing was noted for `time`.
    pub fn is_idle(&self, time: Duration, now: Duration) -> bool {
        let last = self.samples.back().map_or(Duration::ZERO, |one| one.last);
        now.saturating_sub(last) >= time
    }
}
