//! Tiered storage, which this broker does not have.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        "remote.log.storage.system.enable",
        Kind::Boolean,
        Some("false"),
    )
    .no_effect()
    .doc(
        "Whether old segments may be moved to remote storage. Tiered storage is not \
             supported.",
    ),
    Setting::new(
        "remote.log.storage.manager.impl.prefix",
        Kind::String,
        Some("rsm.config."),
    )
    .check(Check::NonEmpty)
    .no_effect()
    .doc("Prefix of settings handed to the remote storage manager."),
    Setting::new(
        "remote.log.metadata.manager.impl.prefix",
        Kind::String,
        Some("rlmm.config."),
    )
    .check(Check::NonEmpty)
    .no_effect()
    .doc("Prefix of settings handed to the remote log metadata manager."),
    Setting::new("remote.log.storage.manager.class.name", Kind::String, None)
        .check(Check::NonEmpty)
        .no_effect()
        .doc("Class of the remote storage manager."),
    Setting::new("remote.log.storage.manager.class.path", Kind::String, None)
        .no_effect()
        .doc("Class path of the remote storage manager."),
    Setting::new(
        "remote.log.metadata.manager.class.name",
        Kind::String,
        Some(
            "org.apache.kafka.server.log.remote.metadata.storage.\
             TopicBasedRemoteLogMetadataManager",
        ),
    )
    .check(Check::NonEmpty)
    .no_effect()
    .doc("Class of the remote log metadata manager."),
    Setting::new("remote.log.metadata.manager.class.path", Kind::String, None)
        .no_effect()
        .doc("Class path of the remote log metadata manager."),
    Setting::new(
        "remote.log.metadata.manager.listener.name",
        Kind::String,
        None,
    )
    .check(Check::NonEmpty)
    .no_effect()
    .doc("Listener through which the remote log metadata manager reaches brokers."),
    Setting::new(
        "remote.log.metadata.custom.metadata.max.bytes",
        Kind::Int,
        Some("128"),
    )
    .check(Check::AtLeast(0))
    .no_effect()
    .doc(
        "Largest custom metadata that a remote storage manager may attach to a segment, in \
             bytes.",
    ),
    Setting::new(
        "remote.log.index.file.cache.total.size.bytes",
        Kind::Long,
        Some("1073741824"),
    )
    .check(Check::AtLeast(1))
    .cluster_wide()
    .no_effect()
    .doc("Disk space for cached index files of remote segments, in bytes."),
    Setting::new("remote.log.manager.thread.pool.size", Kind::Int, Some("10"))
        .check(Check::AtLeast(1))
        .no_effect()
        .doc("Threads that look after remote segments."),
    Setting::new(
        "remote.log.manager.copier.thread.pool.size",
        Kind::Int,
        Some("-1"),
    )
    .check(Check::MinusOneOrPositive)
    .no_effect()
    .doc(
        "Threads that copy segments to remote storage; -1 takes \
             remote.log.manager.thread.pool.size.",
    ),
    Setting::new(
        "remote.log.manager.expiration.thread.pool.size",
        Kind::Int,
        Some("-1"),
    )
    .check(Check::MinusOneOrPositive)
    .no_effect()
    .doc(
        "Threads that delete expired remote segments; -1 takes \
             remote.log.manager.thread.pool.size.",
    ),
    Setting::new(
        "remote.log.manager.task.interval.ms",
        Kind::Long,
        Some("30000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Pause between rounds of copying and deleting remote segments."),
    Setting::new(
        "remote.log.manager.task.retry.backoff.ms",
        Kind::Long,
        Some("500"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .internal()
    .doc("First pause before a failed remote storage request is sent again."),
    Setting::new(
        "remote.log.manager.task.retry.backoff.max.ms",
        Kind::Long,
        Some("30000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .internal()
    .doc("Longest pause before a failed remote storage request is sent again."),
    Setting::new(
        "remote.log.manager.task.retry.jitter",
        Kind::Double,
        Some("0.2"),
    )
    .check(Check::Fraction(0.0, 0.5))
    .no_effect()
    .internal()
    .doc("Share by which the pauses between retries vary at random."),
    Setting::new("remote.log.reader.threads", Kind::Int, Some("10"))
        .check(Check::AtLeast(1))
        .no_effect()
        .doc("Threads that read from remote storage."),
    Setting::new(
        "remote.log.reader.max.pending.tasks",
        Kind::Int,
        Some("100"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Remote reads that may wait; more are refused."),
    Setting::new("log.local.retention.ms", Kind::Long, Some("-2"))
        .check(Check::AtLeast(-2))
        .cluster_wide()
        .no_effect()
        .doc(
            "How long segments stay on local disk once they are in remote storage; -2 means as \
             long as log.retention.ms.",
        ),
    Setting::new("log.local.retention.bytes", Kind::Long, Some("-2"))
        .check(Check::AtLeast(-2))
        .cluster_wide()
        .no_effect()
        .doc(
            "How much of a partition stays on local disk once it is in remote storage; -2 means \
             log.retention.bytes.",
        ),
    Setting::new(
        "remote.log.manager.copy.max.bytes.per.second",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(1))
    .cluster_wide()
    .no_effect()
    .doc("Bytes per second that a broker may copy to remote storage."),
    Setting::new(
        "remote.log.manager.copy.quota.window.num",
        Kind::Int,
        Some("11"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Samples kept for the remote copy quota."),
    Setting::new(
        "remote.log.manager.copy.quota.window.size.seconds",
        Kind::Int,
        Some("1"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Length of a sample of the remote copy quota."),
    Setting::new(
        "remote.log.manager.fetch.max.bytes.per.second",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(1))
    .cluster_wide()
    .no_effect()
    .doc("Bytes per second that a broker may fetch from remote storage."),
    Setting::new(
        "remote.log.manager.fetch.quota.window.num",
        Kind::Int,
        Some("11"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Samples kept for the remote fetch quota."),
    Setting::new(
        "remote.log.manager.fetch.quota.window.size.seconds",
        Kind::Int,
        Some("1"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Length of a sample of the remote fetch quota."),
    Setting::new("remote.fetch.max.wait.ms", Kind::Int, Some("500"))
        .check(Check::AtLeast(1))
        .cluster_wide()
        .no_effect()
        .doc("How long a fetch request may wait for remote storage."),
];
