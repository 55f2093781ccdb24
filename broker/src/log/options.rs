//! What the log directories are told by the configuration.

use std::path::PathBuf;
use std::time::Duration;

use barnabas_core::config::BrokerConfig;
use barnabas_core::time::Now;

use crate::clock;

/// Directories, intervals and bounds of a [`super::LogManager`].
#[derive(Clone, Debug)]
pub struct LogDirsOptions {
    /// `log.dirs`, in order.
    pub log_dirs: Vec<PathBuf>,
    /// `num.recovery.threads.per.data.dir`
    pub recovery_threads_per_data_dir: usize,
    /// `log.initial.task.delay.ms`
    pub initial_task_delay: Duration,
    /// `log.retention.check.interval.ms`
    pub retention_check_interval: Duration,
    /// `log.flush.scheduler.interval.ms`
    pub flush_scheduler_interval: Duration,
    /// `log.flush.offset.checkpoint.interval.ms`
    pub recovery_point_checkpoint_interval: Duration,
    /// `log.flush.start.offset.checkpoint.interval.ms`
    pub log_start_checkpoint_interval: Duration,
    /// `log.segment.delete.delay.ms`: how long the directory of a deleted log is kept.
    pub segment_delete_delay: Duration,
    /// `producer.id.expiration.ms`
    pub producer_expiration_ms: i64,
    /// `producer.id.expiration.check.interval.ms`
    pub producer_expiration_check_interval: Duration,
    /// `alter.log.dirs.replication.quota.window.num`
    pub move_quota_samples: usize,
    /// `alter.log.dirs.replication.quota.window.size.seconds`
    pub move_quota_sample_length: Duration,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`
    pub move_bytes_per_second: Option<i64>,
    /// About how many segment files are kept open.
    pub open_files: usize,
    /// Tells the time.
    pub clock: fn() -> Now,
}

impl LogDirsOptions {
    /// The options that a broker's configuration asks for.
    pub fn from_config(config: &BrokerConfig) -> Self {
        let ms = |value: i64| Duration::from_millis(value.max(1) as u64);
        Self {
            log_dirs: config.log_dirs.iter().map(PathBuf::from).collect(),
            recovery_threads_per_data_dir: config.num_recovery_threads_per_data_dir.max(1) as usize,
            initial_task_delay: ms(config.log_initial_task_delay_ms),
            retention_check_interval: ms(config.log_retention_check_interval_ms),
            flush_scheduler_interval: ms(config.log_flush_scheduler_interval_ms),
            recovery_point_checkpoint_interval: ms(config
                .log_flush_offset_checkpoint_interval_ms
                .into()),
            log_start_checkpoint_interval: ms(config
                .log_flush_start_offset_checkpoint_interval_ms
                .into()),
            segment_delete_delay: ms(config.log_segment_delete_delay_ms),
            producer_expiration_ms: config.producer_id_expiration_ms.into(),
            producer_expiration_check_interval: ms(config
                .producer_id_expiration_check_interval_ms
                .into()),
            move_quota_samples: config.alter_log_dirs_replication_quota_window_num.max(1) as usize,
            move_quota_sample_length: Duration::from_secs(
                config
                    .alter_log_dirs_replication_quota_window_size_seconds
                    .max(1) as u64,
            ),
            move_bytes_per_second: move_bytes_per_second(config),
            open_files: open_files_limit(),
            clock: clock::now,
        }
    }
}

/// How fast logs may move between directories, if there is a limit.
pub(super) fn move_bytes_per_second(config: &BrokerConfig) -> Option<i64> {
    let text = config
        .given()
        .get("replica.alter.log.dirs.io.max.bytes.per.second")?;
    text.trim().parse().ok()
}

/// Half of the descriptors that the process may have; the rest is for connections.
fn open_files_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.current.unwrap_or(1 << 20) / 2;
    usize::try_from(most).map_or(4096, |most| most.clamp(64, 4096))
}
