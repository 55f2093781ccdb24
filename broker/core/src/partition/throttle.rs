//! Replication throttles (KIP-73): how fast throttled replicas are copied, and which ones are throttled.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::BrokerId;
use crate::time::Now;

/// How many bytes a second went over the wire lately. Kafka: `SimpleRate` over `SampledStat`.
#[derive(Clone, Debug)]
pub struct Rate {
    sample_length: Duration,
    samples_max: usize,
    /// Beginning and bytes of each sample, oldest first.
    samples: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// `replication.quota.window.num` samples of `replication.quota.window.size.seconds`.
    pub fn new(samples_max: usize, sample_length: Duration) -> Self {
        Self {
            sample_length,
            samples_max: samples_max.max(1),
            samples: VecDeque::new(),
        }
    }

    fn drop_old(&mut self, now: Now) {
        let window = self.sample_length * self.samples_max as u32;
        while self
            .samples
            .front()
            .is_some_and(|(begin, _)| now.monotonic.saturating_sub(*begin) >= window)
        {
            self.samples.pop_front();
        }
    }

    /// Notes that `bytes` went over the wire.
    pub fn record(&mut self, bytes: u64, now: Now) {
        let is_current = self
            .samples
            .back()
            .is_some_and(|(begin, _)| now.monotonic.saturating_sub(*begin) < self.sample_length);
        if is_current {
            if let Some((_, sum)) = self.samples.back_mut() {
                *sum += bytes;
            }
        } else {
            self.drop_old(now);
            self.samples.push_back((now.monotonic, bytes));
        }
    }

    /// Bytes a second since the oldest sample, which counts as one sample long at least.
    pub fn measure(&mut self, now: Now) -> f64 {
        self.drop_old(now);
        let Some((oldest, _)) = self.samples.front() else {
            return 0.0;
        };
        let elapsed = now.monotonic.saturating_sub(*oldest);
        let bytes: u64 = self.samples.iter().map(|(_, bytes)| bytes).sum();
        bytes as f64 / elapsed.max(self.sample_length).as_secs_f64()
    }
}

/// Whether `replicas`, the setting `leader.` or `follower.replication.throttled.replicas` of a topic
/// (`*`, or `partition:broker` elements), names the partition for this broker.
pub fn is_throttled(replicas: &[String], partition: i32, broker: BrokerId) -> bool {
    replicas.iter().any(|one| {
        one.trim() == "*"
            || one.split_once(':').is_some_and(|(number, id)| {
                number.trim().parse() == Ok(partition) && id.trim().parse() == Ok(broker.0)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now {
            monotonic: Duration::from_millis(ms),
            wall_clock_ms: 0,
        }
    }

    #[test]
    fn the_rate_is_over_eleven_samples_of_a_second() {
        let mut rate = Rate::new(11, Duration::from_secs(1));
        assert_eq!(rate.measure(at(0)) as u64, 0);
        rate.record(1000, at(0));
        rate.record(1000, at(100));
        // The first second counts whole.
        assert_eq!(rate.measure(at(500)) as u64, 2000);
        assert_eq!(rate.measure(at(4000)) as u64, 500);
        rate.record(5000, at(10_000));
        assert_eq!(rate.measure(at(10_000)) as u64, 700);
        // After eleven seconds the first sample is forgotten.
        assert_eq!(rate.measure(at(11_000)) as u64, 5000);
    }

    #[test]
    fn replicas_are_named_by_partition_and_broker() {
        let named = ["0:20".to_owned(), "1:21".to_owned()];
        assert!(is_throttled(&named, 0, BrokerId(20)));
        assert!(!is_throttled(&named, 1, BrokerId(20)));
        assert!(is_throttled(&["*".to_owned()], 7, BrokerId(20)));
        assert!(!is_throttled(&[], 0, BrokerId(20)));
    }
}
