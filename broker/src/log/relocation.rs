//! Moving a log to another log directory (`AlterReplicaLogDirs`, KIP-113).
//!
//! A copy follows the log as a follower follows its leader, in small steps on the thread of the
//! directory it is in. When it has everything, the two change places under the writer's lock; whoever
//! holds the log does not notice.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use barnabas_core::config::BrokerConfig;
use barnabas_core::ids::TopicPartition;
use barnabas_core::partition::throttle::Rate;
use barnabas_core::time::Now;

use super::dir_name::DirName;
use super::error::{AppendError, LogError};
use super::log_dir::remove_later;
use super::log_dirs::LogManager;
use super::options::{LogDirsOptions, move_bytes_per_second};
use super::partition_log::PartitionLog;

/// How much is copied at once.
const STEP: usize = 1024 * 1024;
/// How long a step waits after an error that is not the target's.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a step waits while more was copied lately than may be.
const THROTTLED: Duration = Duration::from_millis(100);

/// How much may be copied a second, by all moves together, and how much was.
#[derive(Debug)]
pub(super) struct MoveQuota {
    /// `i64::MAX` is no limit.
    limit: AtomicI64,
    rate: Mutex<Rate>,
}

impl MoveQuota {
    pub(super) fn new(options: &LogDirsOptions) -> Self {
        let rate = Rate::new(options.move_quota_samples, options.move_quota_sample_length);
        Self {
            limit: AtomicI64::new(options.move_bytes_per_second.unwrap_or(i64::MAX)),
            rate: Mutex::new(rate),
        }
    }

    fn record(&self, bytes: usize, now: Now) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.record(bytes as u64, now);
    }

    fn is_exceeded(&self, now: Now) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        limit != i64::MAX && rate.measure(now) > limit as f64
    }
}

impl LogManager {
    /// Limits moves to what the configuration says now.
    pub fn limit_moves(&self, config: &BrokerConfig) {
        let limit = move_bytes_per_second(config).unwrap_or(i64::MAX);
        self.move_quota.limit.store(limit, Ordering::Relaxed);
    }

    /// Makes the next step of a move, and the ones after it.
    pub(super) fn continue_move(self: &Arc<Self>, topic_partition: &TopicPartition) {
        self.step_after(Duration::ZERO, topic_partition);
    }

    fn step_after(self: &Arc<Self>, delay: Duration, topic_partition: &TopicPartition) {
        let Some(future) = self.future_log(topic_partition) else {
            return;
        };
        let manager = Arc::downgrade(self);
        let topic_partition = topic_partition.clone();
        future.volume().background.run_after(delay, move || {
            if let Some(manager) = manager.upgrade() {
                manager.step(&topic_partition);
            }
        });
    }

    fn step(self: &Arc<Self>, topic_partition: &TopicPartition) {
        let (Some(current), Some(future)) =
            (self.log(topic_partition), self.future_log(topic_partition))
        else {
            return;
        };
        if self.move_quota.is_exceeded(self.now()) {
            self.step_after(THROTTLED, topic_partition);
            return;
        }
        match self.copy_or_replace(&current, &future) {
            Ok(true) => {}
            Ok(false) => self.step_after(Duration::ZERO, topic_partition),
            Err(error) if future.failure().is_some() => {
                tracing::error!(log = %topic_partition, %error, "the move has failed");
                self.write_logs().future.swap_remove(topic_partition);
                current.resume_cleaning();
            }
            Err(error) => {
                tracing::warn!(log = %topic_partition, %error, "the move pauses");
                self.step_after(PAUSE, topic_partition);
            }
        }
    }

    /// Copies some bytes; returns whether the move is complete.
    fn copy_or_replace(
        &self,
        current: &Arc<PartitionLog>,
        future: &Arc<PartitionLog>,
    ) -> Result<bool, LogError> {
        let now = self.now();
        follow_truncation(current, future, now.wall_clock_ms)?;
        let slice = current.read(future.log_end_offset(), STEP, i64::MAX, true)?;
        if !slice.is_empty() {
            let records = slice.read_all()?;
            self.move_quota.record(records.len(), now);
            future
                .append_as_follower(&records, now)
                .map_err(|error| match error {
                    AppendError::Storage(error) => LogError::Storage(error),
                    other => LogError::CorruptBatch {
                        topic_partition: current.topic_partition().clone(),
                        reason: other.to_string(),
                    },
                })?;
            return Ok(false);
        }
        let old_name = DirName::deleted(current.topic_partition());
        let _creation = self.creation.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = self
            .future_log(current.topic_partition())
            .is_some_and(|found| Arc::ptr_eq(&found, future));
        if !is_current {
            return Ok(true);
        }
        let old_dir = self.dir_of(current);
        if let Some(dir) = self.dir_of(future)
            && current.cleaned_offset().is_some()
            && !dir.names_cleaned(current.topic_partition())
        {
            // Before the log is there: a start must not find its gaps without a reason for them.
            let mut logs = self.current_logs_in(&dir);
            logs.push(Arc::clone(current));
            dir.write_cleaned_offsets(&logs)?;
        }
        let Some(old) = current.replace_by(future, &old_name)? else {
            return Ok(false);
        };
        self.write_logs()
            .future
            .swap_remove(current.topic_partition());
        current.resume_cleaning();
        tracing::info!(
            log = %current.topic_partition(), log_dir = %current.log_dir().display(), "moved"
        );
        remove_later(old, self.segment_delete_delay());
        for dir in [self.dir_of(current), old_dir].into_iter().flatten() {
            // The error has taken the directory offline and was logged there.
            let _ = dir.write_checkpoints(&self.current_logs_in(&dir));
        }
        Ok(true)
    }
}

/// Makes the copy a prefix of the log again, if the log was truncated or its start has moved.
fn follow_truncation(
    current: &PartitionLog,
    future: &PartitionLog,
    now_ms: i64,
) -> Result<(), LogError> {
    let start = current.log_start_offset();
    if future.log_end_offset() < start {
        return future.truncate_fully_and_start_at(start, now_ms);
    }
    if let Some(epoch) = future.latest_epoch()
        && let Some((_, end)) = current.end_offset_for_epoch(epoch)
        && end < future.log_end_offset()
    {
        future.truncate_to(end, now_ms)?;
    }
    if future.log_end_offset() > current.log_end_offset() {
        future.truncate_to(current.log_end_offset(), now_ms)?;
    }
    Ok(())
}
