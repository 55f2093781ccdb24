//! What is done with all logs from time to time: retention, flushes, checkpoints, producer expiration.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::TopicPartition;

use super::log_dir::LogDir;
use super::log_dirs::LogManager;
use super::partition_log::PartitionLog;

/// Periodic work on one directory.
type DirTask = fn(&LogManager, &Arc<LogDir>);

impl LogManager {
    /// Begins the periodic work: retention, flushes, checkpoints, producer expiration.
    pub fn start(self: &Arc<Self>) {
        let options = &self.options;
        let delay = options.initial_task_delay;
        let tasks: [(Duration, DirTask); 4] = [
            (options.retention_check_interval, Self::delete_old_segments),
            (options.flush_scheduler_interval, Self::flush_due),
            (
                options.recovery_point_checkpoint_interval,
                Self::checkpoint_recovery_points,
            ),
            (
                options.log_start_checkpoint_interval,
                Self::checkpoint_log_start_offsets,
            ),
        ];
        // The first look at producers comes as late as the others: timestamps of clients may be of long ago.
        let expiration = options.producer_expiration_check_interval;
        for dir in &self.dirs {
            self.every(dir, expiration, expiration, Self::expire_producers);
            for (interval, task) in tasks {
                self.every(dir, delay, interval, task);
            }
        }
        let moving: Vec<TopicPartition> = self.read_logs().future.keys().cloned().collect();
        for topic_partition in moving {
            if let Some(current) = self.log(&topic_partition) {
                current.pause_cleaning();
            }
            self.continue_move(&topic_partition);
        }
    }

    fn every(
        self: &Arc<Self>,
        dir: &Arc<LogDir>,
        delay: Duration,
        interval: Duration,
        task: DirTask,
    ) {
        let manager = Arc::downgrade(self);
        let background = Arc::clone(&dir.volume.background);
        let dir = Arc::clone(dir);
        background.run_after(delay, move || {
            if let Some(manager) = manager.upgrade()
                && dir.is_online()
            {
                task(&manager, &dir);
                manager.every(&dir, interval, interval, task);
            }
        });
    }

    fn delete_old_segments(&self, dir: &Arc<LogDir>) {
        let now_ms = self.now().wall_clock_ms;
        for log in self.logs_in(dir) {
            // Else every segment that goes would put an end to the cleaning of its log.
            if !(log.config().cleanup_policy.compact && self.cleans()) {
                delete_old_segments_of(&log, now_ms);
            }
        }
    }

    fn flush_due(&self, dir: &Arc<LogDir>) {
        let now_ms = self.now().wall_clock_ms;
        for log in self.logs_in(dir) {
            if let Err(error) = log.flush_if_due(now_ms) {
                tracing::error!(log = %log.topic_partition(), %error, "flush failed");
            }
        }
    }

    pub(super) fn checkpoint_recovery_points(&self, dir: &Arc<LogDir>) {
        // The error has taken the directory offline and was logged there.
        let _ = dir.write_recovery_points(&self.current_logs_in(dir));
    }

    fn checkpoint_log_start_offsets(&self, dir: &Arc<LogDir>) {
        let _ = dir.write_log_start_offsets(&self.current_logs_in(dir));
    }

    fn expire_producers(&self, dir: &Arc<LogDir>) {
        let now_ms = self.now().wall_clock_ms;
        for log in self.logs_in(dir) {
            log.expire_producers(now_ms);
        }
    }
}

/// Deletes what retention no longer asks for of one log.
pub(super) fn delete_old_segments_of(log: &PartitionLog, now_ms: i64) {
    if let Err(error) = log.delete_old_segments(now_ms) {
        tracing::error!(log = %log.topic_partition(), %error, "retention failed");
    }
}
