//! Logs on disk, topics and the identity of the broker.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        "broker.id.generation.enable",
        Kind::Boolean,
        Some("true"),
        "",
    )
    .not_yet(),
    Setting::new("reserved.broker.max.id", Kind::Int, Some("1000"), "")
        .check(Check::AtLeast(0))
        .not_yet(),
    Setting::new("broker.id", Kind::Int, Some("-1"), "").not_yet(),
    Setting::new("message.max.bytes", Kind::Int, Some("1048588"), "")
        .check(Check::AtLeast(0))
        .cluster_wide()
        .not_yet(),
    Setting::new("background.threads", Kind::Int, Some("10"), "")
        .check(Check::AtLeast(1))
        .cluster_wide()
        .not_yet(),
    Setting::new("broker.rack", Kind::String, None, "").not_yet(),
    Setting::new("delete.topic.enable", Kind::Boolean, Some("true"), "").not_yet(),
    Setting::new("compression.type", Kind::String, Some("producer"), "")
        .check(Check::OneOf(&[
            "uncompressed",
            "zstd",
            "lz4",
            "snappy",
            "gzip",
            "producer",
        ]))
        .cluster_wide()
        .not_yet(),
    Setting::new("compression.gzip.level", Kind::Int, Some("-1"), "")
        .check(Check::BetweenOrMinusOne(1, 9))
        .cluster_wide()
        .not_yet(),
    Setting::new("compression.lz4.level", Kind::Int, Some("9"), "")
        .check(Check::Between(1, 17))
        .cluster_wide()
        .not_yet(),
    Setting::new("compression.zstd.level", Kind::Int, Some("3"), "")
        .check(Check::Between(-131_072, 22))
        .cluster_wide()
        .not_yet(),
    Setting::new("log.cleaner.threads", Kind::Int, Some("1"), "")
        .check(Check::AtLeast(0))
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "log.cleaner.io.max.bytes.per.second",
        Kind::Double,
        Some("1.7976931348623157E308"),
        "",
    )
    .cluster_wide()
    .not_yet(),
    Setting::new(
        "log.cleaner.dedupe.buffer.size",
        Kind::Long,
        Some("134217728"),
        "",
    )
    .cluster_wide()
    .not_yet(),
    Setting::new("log.cleaner.io.buffer.size", Kind::Int, Some("524288"), "")
        .check(Check::AtLeast(0))
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "log.cleaner.io.buffer.load.factor",
        Kind::Double,
        Some("0.9"),
        "",
    )
    .cluster_wide()
    .not_yet(),
    Setting::new("log.cleaner.backoff.ms", Kind::Long, Some("15000"), "")
        .check(Check::AtLeast(0))
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "log.cleaner.min.cleanable.ratio",
        Kind::Double,
        Some("0.5"),
        "",
    )
    .check(Check::Fraction(0.0, 1.0))
    .cluster_wide()
    .not_yet(),
    Setting::new("log.cleaner.enable", Kind::Boolean, Some("true"), "").not_yet(),
    Setting::new(
        "log.cleaner.delete.retention.ms",
        Kind::Long,
        Some("86400000"),
        "",
    )
    .check(Check::AtLeast(0))
    .cluster_wide()
    .not_yet(),
    Setting::new(
        "log.cleaner.min.compaction.lag.ms",
        Kind::Long,
        Some("0"),
        "",
    )
    .check(Check::AtLeast(0))
    .cluster_wide()
    .not_yet(),
    Setting::new(
        "log.cleaner.max.compaction.lag.ms",
        Kind::Long,
        Some("9223372036854775807"),
        "",
    )
    .check(Check::AtLeast(1))
    .cluster_wide()
    .not_yet(),
    Setting::new("num.partitions", Kind::Int, Some("1"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new("log.dir", Kind::String, Some("/tmp/kafka-logs"), "").not_yet(),
    Setting::new("log.dirs", Kind::String, None, "").not_yet(),
    Setting::new("log.segment.bytes", Kind::Int, Some("1073741824"), "")
        .check(Check::AtLeast(14))
        .cluster_wide()
        .not_yet(),
    Setting::new("log.roll.ms", Kind::Long, None, "")
        .cluster_wide()
        .not_yet(),
    Setting::new("log.roll.hours", Kind::Int, Some("168"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new("log.roll.jitter.ms", Kind::Long, None, "")
        .cluster_wide()
        .not_yet(),
    Setting::new("log.roll.jitter.hours", Kind::Int, Some("0"), "")
        .check(Check::AtLeast(0))
        .not_yet(),
    Setting::new("log.retention.ms", Kind::Long, None, "")
        .cluster_wide()
        .not_yet(),
    Setting::new("log.retention.minutes", Kind::Int, None, "").not_yet(),
    Setting::new("log.retention.hours", Kind::Int, Some("168"), "").not_yet(),
    Setting::new("log.retention.bytes", Kind::Long, Some("-1"), "")
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "log.retention.check.interval.ms",
        Kind::Long,
        Some("300000"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new("log.cleanup.policy", Kind::List, Some("delete"), "")
        .check(Check::EachOf(&["compact", "delete"]))
        .cluster_wide()
        .not_yet(),
    Setting::new("log.index.size.max.bytes", Kind::Int, Some("10485760"), "")
        .check(Check::AtLeast(4))
        .cluster_wide()
        .not_yet(),
    Setting::new("log.index.interval.bytes", Kind::Int, Some("4096"), "")
        .check(Check::AtLeast(0))
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "log.flush.interval.messages",
        Kind::Long,
        Some("9223372036854775807"),
        "",
    )
    .check(Check::AtLeast(1))
    .cluster_wide()
    .not_yet(),
    Setting::new("log.segment.delete.delay.ms", Kind::Long, Some("60000"), "")
        .check(Check::AtLeast(0))
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "log.flush.scheduler.interval.ms",
        Kind::Long,
        Some("9223372036854775807"),
        "",
    )
    .not_yet(),
    Setting::new("log.flush.interval.ms", Kind::Long, None, "")
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "log.flush.offset.checkpoint.interval.ms",
        Kind::Int,
        Some("60000"),
        "",
    )
    .check(Check::AtLeast(0))
    .not_yet(),
    Setting::new(
        "log.flush.start.offset.checkpoint.interval.ms",
        Kind::Int,
        Some("60000"),
        "",
    )
    .check(Check::AtLeast(0))
    .not_yet(),
    Setting::new("log.preallocate", Kind::Boolean, Some("false"), "")
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "num.recovery.threads.per.data.dir",
        Kind::Int,
        Some("1"),
        "",
    )
    .check(Check::AtLeast(1))
    .cluster_wide()
    .not_yet(),
    Setting::new("auto.create.topics.enable", Kind::Boolean, Some("true"), "").not_yet(),
    Setting::new("min.insync.replicas", Kind::Int, Some("1"), "")
        .check(Check::AtLeast(1))
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "log.message.format.version",
        Kind::String,
        Some("3.0-IV1"),
        "",
    )
    .check(Check::MetadataVersion)
    .no_effect(),
    Setting::new(
        "log.message.timestamp.type",
        Kind::String,
        Some("CreateTime"),
        "",
    )
    .check(Check::OneOf(&["CreateTime", "LogAppendTime"]))
    .cluster_wide()
    .not_yet(),
    Setting::new(
        "log.message.timestamp.difference.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
        "",
    )
    .check(Check::AtLeast(0))
    .cluster_wide()
    .not_yet(),
    Setting::new(
        "log.message.timestamp.before.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
        "",
    )
    .check(Check::AtLeast(0))
    .cluster_wide()
    .not_yet(),
    Setting::new(
        "log.message.timestamp.after.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
        "",
    )
    .check(Check::AtLeast(0))
    .cluster_wide()
    .not_yet(),
    Setting::new("create.topic.policy.class.name", Kind::Class, None, "").not_yet(),
    Setting::new("alter.config.policy.class.name", Kind::Class, None, "").not_yet(),
    Setting::new(
        "log.message.downconversion.enable",
        Kind::Boolean,
        Some("true"),
        "",
    )
    .cluster_wide()
    .not_yet(),
    Setting::new("log.dir.failure.timeout.ms", Kind::Long, Some("30000"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new("log.initial.task.delay.ms", Kind::Long, Some("30000"), "")
        .check(Check::AtLeast(0))
        .not_yet()
        .internal(),
];
