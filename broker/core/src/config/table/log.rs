//! Logs on disk, topics and the identity of the broker.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("broker.id.generation.enable", Kind::Boolean, Some("true"))
        .doc("Whether a broker without broker.id gets one from ZooKeeper."),
    Setting::new("reserved.broker.max.id", Kind::Int, Some("1000"))
        .check(Check::AtLeast(0))
        .doc("Highest id that may be given by hand; generated ids are above it."),
    Setting::new("broker.id", Kind::Int, Some("-1"))
        .doc("The number of this broker, unique in the cluster; -1 asks for a generated one."),
    Setting::new("message.max.bytes", Kind::Int, Some("1048588"))
        .check(Check::AtLeast(0))
        .cluster_wide()
        .doc(
            "Largest batch of records that is accepted, in bytes after compression. Topics \
             override it with max.message.bytes.",
        ),
    Setting::new("background.threads", Kind::Int, Some("10"))
        .check(Check::AtLeast(1))
        .cluster_wide()
        .no_effect()
        .doc("Java threads for background work. Has no effect here."),
    Setting::new("broker.rack", Kind::String, None)
        .doc("Rack (zone, room) of this broker; replicas of a partition are spread over racks."),
    Setting::new("delete.topic.enable", Kind::Boolean, Some("true"))
        .doc("Whether topics may be deleted."),
    Setting::new("compression.type", Kind::String, Some("producer"))
        .check(Check::OneOf(&[
            "uncompressed",
            "zstd",
            "lz4",
            "snappy",
            "gzip",
            "producer",
        ]))
        .cluster_wide()
        .doc("Codec in which batches are stored: producer keeps what the producer chose."),
    Setting::new("compression.gzip.level", Kind::Int, Some("-1"))
        .check(Check::BetweenOrMinusOne(1, 9))
        .cluster_wide()
        .doc("Level for gzip if the broker compresses; -1 is the codec's default."),
    Setting::new("compression.lz4.level", Kind::Int, Some("9"))
        .check(Check::Between(1, 17))
        .cluster_wide()
        .no_effect()
        .doc("Level for lz4 if the broker compresses."),
    Setting::new("compression.zstd.level", Kind::Int, Some("3"))
        .check(Check::Between(-131_072, 22))
        .cluster_wide()
        .doc("Level for zstd if the broker compresses."),
    Setting::new("log.cleaner.threads", Kind::Int, Some("1"))
        .check(Check::AtLeast(0))
        .cluster_wide()
        .doc("Threads that compact logs."),
    Setting::new(
        "log.cleaner.io.max.bytes.per.second",
        Kind::Double,
        Some("1.7976931348623157E308"),
    )
    .cluster_wide()
    .doc("Bytes per second that compaction may read and write together."),
    Setting::new(
        "log.cleaner.dedupe.buffer.size",
        Kind::Long,
        Some("134217728"),
    )
    .cluster_wide()
    .doc("Memory for finding duplicate keys, over all compaction threads."),
    Setting::new("log.cleaner.io.buffer.size", Kind::Int, Some("524288"))
        .check(Check::AtLeast(0))
        .cluster_wide()
        .doc("Memory for reading and writing in compaction, over all threads."),
    Setting::new(
        "log.cleaner.io.buffer.load.factor",
        Kind::Double,
        Some("0.9"),
    )
    .cluster_wide()
    .doc("How full the duplicate buffer may get."),
    Setting::new("log.cleaner.backoff.ms", Kind::Long, Some("15000"))
        .check(Check::AtLeast(0))
        .cluster_wide()
        .doc("Pause of compaction when there is nothing to do."),
    Setting::new("log.cleaner.min.cleanable.ratio", Kind::Double, Some("0.5"))
        .check(Check::Fraction(0.0, 1.0))
        .cluster_wide()
        .doc("Share of a log that must be dirty before it is compacted."),
    Setting::new("log.cleaner.enable", Kind::Boolean, Some("true"))
        .doc("Whether logs are compacted at all."),
    Setting::new(
        "log.cleaner.delete.retention.ms",
        Kind::Long,
        Some("86400000"),
    )
    .check(Check::AtLeast(0))
    .cluster_wide()
    .doc("How long tombstones and transaction markers stay after compaction."),
    Setting::new("log.cleaner.min.compaction.lag.ms", Kind::Long, Some("0"))
        .check(Check::AtLeast(0))
        .cluster_wide()
        .doc("Records younger than this are not compacted."),
    Setting::new(
        "log.cleaner.max.compaction.lag.ms",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(1))
    .cluster_wide()
    .doc("Records older than this are compacted whatever the dirty share."),
    Setting::new("num.partitions", Kind::Int, Some("1"))
        .check(Check::AtLeast(1))
        .doc("Partitions of topics that are created automatically or without a number."),
    Setting::new("log.dir", Kind::String, Some("/tmp/kafka-logs"))
        .doc("The log directory if log.dirs is not set."),
    Setting::new("log.dirs", Kind::String, None).doc("Directories for logs, separated by commas."),
    Setting::new("log.segment.bytes", Kind::Int, Some("1073741824"))
        .check(Check::AtLeast(14))
        .cluster_wide()
        .doc("Largest segment file, in bytes."),
    Setting::new("log.roll.ms", Kind::Long, None)
        .cluster_wide()
        .doc("Age at which a segment is closed; unset takes log.roll.hours."),
    Setting::new("log.roll.hours", Kind::Int, Some("168"))
        .check(Check::AtLeast(1))
        .doc("Age at which a segment is closed, in hours, if log.roll.ms is not set."),
    Setting::new("log.roll.jitter.ms", Kind::Long, None)
        .cluster_wide()
        .doc(
            "Random time by which a segment is closed earlier; unset takes \
             log.roll.jitter.hours.",
        ),
    Setting::new("log.roll.jitter.hours", Kind::Int, Some("0"))
        .check(Check::AtLeast(0))
        .doc(
            "Random time by which a segment is closed earlier, in hours, if log.roll.jitter.ms \
             is not set.",
        ),
    Setting::new("log.retention.ms", Kind::Long, None)
        .cluster_wide()
        .doc(
            "Age at which segments are deleted, -1 for never; unset takes \
             log.retention.minutes.",
        ),
    Setting::new("log.retention.minutes", Kind::Int, None).doc(
        "Age at which segments are deleted, in minutes, if log.retention.ms is not set; \
             unset takes log.retention.hours.",
    ),
    Setting::new("log.retention.hours", Kind::Int, Some("168")).doc(
        "Age at which segments are deleted, in hours, if neither milliseconds nor minutes \
             are set.",
    ),
    Setting::new("log.retention.bytes", Kind::Long, Some("-1"))
        .cluster_wide()
        .doc(
            "Size of a partition beyond which its oldest segments are deleted; -1 sets no \
             limit.",
        ),
    Setting::new(
        "log.retention.check.interval.ms",
        Kind::Long,
        Some("300000"),
    )
    .check(Check::AtLeast(1))
    .doc("How often logs are checked for segments to delete."),
    Setting::new("log.cleanup.policy", Kind::List, Some("delete"))
        .check(Check::EachOf(&["compact", "delete"]))
        .cluster_wide()
        .doc("What happens to old segments: delete, compact, or both."),
    Setting::new("log.index.size.max.bytes", Kind::Int, Some("10485760"))
        .check(Check::AtLeast(4))
        .cluster_wide()
        .doc("Largest index file, in bytes."),
    Setting::new("log.index.interval.bytes", Kind::Int, Some("4096"))
        .check(Check::AtLeast(0))
        .cluster_wide()
        .doc("Bytes of records between two index entries."),
    Setting::new(
        "log.flush.interval.messages",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(1))
    .cluster_wide()
    .doc("Records after which a partition is flushed to disk."),
    Setting::new("log.segment.delete.delay.ms", Kind::Long, Some("60000"))
        .check(Check::AtLeast(0))
        .cluster_wide()
        .doc("How long a deleted segment file stays on disk."),
    Setting::new(
        "log.flush.scheduler.interval.ms",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .doc("How often logs are checked for records to flush."),
    Setting::new("log.flush.interval.ms", Kind::Long, None)
        .cluster_wide()
        .doc("How long records may stay unflushed; unset takes log.flush.scheduler.interval.ms."),
    Setting::new(
        "log.flush.offset.checkpoint.interval.ms",
        Kind::Int,
        Some("60000"),
    )
    .check(Check::AtLeast(0))
    .doc("How often recovery points are written to disk."),
    Setting::new(
        "log.flush.start.offset.checkpoint.interval.ms",
        Kind::Int,
        Some("60000"),
    )
    .check(Check::AtLeast(0))
    .doc("How often log start offsets are written to disk."),
    Setting::new("log.preallocate", Kind::Boolean, Some("false"))
        .cluster_wide()
        .doc("Whether segment files get their full size when they are created."),
    Setting::new("num.recovery.threads.per.data.dir", Kind::Int, Some("1"))
        .check(Check::AtLeast(1))
        .cluster_wide()
        .doc(
            "Threads per log directory that load and recover logs at start and flush them at \
             stop.",
        ),
    Setting::new("auto.create.topics.enable", Kind::Boolean, Some("true"))
        .doc("Whether a topic is created when a client first asks for it."),
    Setting::new("min.insync.replicas", Kind::Int, Some("1"))
        .check(Check::AtLeast(1))
        .cluster_wide()
        .doc("Fewest replicas in sync for which records with acks=all are accepted."),
    Setting::new("log.message.format.version", Kind::String, Some("3.0-IV1"))
        .check(Check::MetadataVersion)
        .no_effect()
        .doc(
            "Message format of old Kafka versions. Ignored since inter.broker.protocol.version \
             3.0.",
        ),
    Setting::new(
        "log.message.timestamp.type",
        Kind::String,
        Some("CreateTime"),
    )
    .check(Check::OneOf(&["CreateTime", "LogAppendTime"]))
    .cluster_wide()
    .doc(
        "Whether records carry the producer's time (CreateTime) or the broker's \
             (LogAppendTime).",
    ),
    Setting::new(
        "log.message.timestamp.difference.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(0))
    .cluster_wide()
    .doc(
        "How far a record's time may be from the broker's. Deprecated: use the bounds \
             before and after.",
    ),
    Setting::new(
        "log.message.timestamp.before.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(0))
    .cluster_wide()
    .doc("How much older than the broker's time a record's time may be."),
    Setting::new(
        "log.message.timestamp.after.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(0))
    .cluster_wide()
    .doc("How much newer than the broker's time a record's time may be."),
    Setting::new("create.topic.policy.class.name", Kind::Class, None)
        .not_yet()
        .doc("Class that may refuse new topics."),
    Setting::new("alter.config.policy.class.name", Kind::Class, None)
        .not_yet()
        .doc("Class that may refuse changes of settings."),
    Setting::new(
        "log.message.downconversion.enable",
        Kind::Boolean,
        Some("true"),
    )
    .cluster_wide()
    .doc("Whether records are converted for consumers that only know old message formats."),
    Setting::new("log.dir.failure.timeout.ms", Kind::Long, Some("30000"))
        .check(Check::AtLeast(1))
        .not_yet()
        .doc("KRaft: how long a broker tries to report a failed log directory."),
    Setting::new("log.initial.task.delay.ms", Kind::Long, Some("30000"))
        .check(Check::AtLeast(0))
        .internal()
        .doc("Delay after the start before logs are first checked for flushing and deletion."),
];
