//! What the cleaner shows, under Kafka's names.

use super::clean::find_cleanable;
use super::manager::{LastCleaning, lock};
use crate::log::log_dirs::LogManager;
use crate::metrics::Exposition;

impl LogManager {
    /// Writes how the cleaner does (`kafka.log:type=LogCleaner` and `LogCleanerManager`).
    pub fn write_cleaner(&self, out: &mut Exposition) {
        let (wanted, workers) = self.cleaner.workers();
        let last: Vec<LastCleaning> = workers.iter().map(|worker| *lock(&worker.last)).collect();
        let most = |value: &dyn Fn(&LastCleaning) -> i64| last.iter().map(value).max().unwrap_or(0);
        let sum = |value: &dyn Fn(&LastCleaning) -> u64| last.iter().map(value).sum::<u64>();
        let read = sum(&|last| last.stats.bytes_read).max(1);
        let written = sum(&|last| last.stats.bytes_written);
        let now_ms = self.now().wall_clock_ms;
        let look = *lock(&self.cleaner.last_look);
        for (name, value) in [
            (
                "kafka_log_logcleaner_max_buffer_utilization_percent",
                most(&|last| (100.0 * last.stats.map_utilization) as i64),
            ),
            (
                "kafka_log_logcleaner_cleaner_recopy_percent",
                (100.0 * written as f64 / read as f64) as i64,
            ),
            (
                "kafka_log_logcleaner_max_clean_time_secs",
                most(&|last| last.took.as_secs() as i64),
            ),
            (
                "kafka_log_logcleaner_max_compaction_delay_secs",
                most(&|last| last.overdue_ms / 1000),
            ),
            (
                "kafka_log_logcleaner_deadthreadcount",
                wanted.saturating_sub(workers.len()) as i64,
            ),
            (
                "kafka_log_logcleanermanager_max_dirty_percent",
                (100.0 * look.ratio) as i64,
            ),
            (
                "kafka_log_logcleanermanager_time_since_last_run_ms",
                now_ms.saturating_sub(look.at_ms),
            ),
        ] {
            out.gauge(name, &[], value);
        }
        for dir in &self.dirs {
            let path = dir.volume.path().to_string_lossy();
            let labels = [("logDirectory", path.as_ref())];
            let logs = self.current_logs_in(dir);
            let uncleanable: Vec<_> = logs.iter().filter(|log| log.is_uncleanable()).collect();
            let bytes = uncleanable
                .iter()
                .filter_map(|log| find_cleanable(log, &log.config(), now_ms).ok())
                .map(|found| found.cleanable_bytes)
                .sum::<u64>();
            out.gauge(
                "kafka_log_logcleanermanager_uncleanable_partitions_count",
                &labels,
                uncleanable.len(),
            );
            out.gauge(
                "kafka_log_logcleanermanager_uncleanable_bytes",
                &labels,
                bytes,
            );
        }
    }
}
