//! Settings of topics (`/config/topics/<topic>`).

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("segment.bytes", Kind::Int, Some("1073741824"), "").check(Check::AtLeast(14)),
    Setting::new("segment.ms", Kind::Long, Some("604800000"), "").check(Check::AtLeast(1)),
    Setting::new("segment.jitter.ms", Kind::Long, Some("0"), "").check(Check::AtLeast(0)),
    Setting::new("segment.index.bytes", Kind::Int, Some("10485760"), "").check(Check::AtLeast(4)),
    Setting::new(
        "flush.messages",
        Kind::Long,
        Some("9223372036854775807"),
        "",
    )
    .check(Check::AtLeast(1)),
    Setting::new("flush.ms", Kind::Long, Some("9223372036854775807"), "").check(Check::AtLeast(0)),
    Setting::new("retention.bytes", Kind::Long, Some("-1"), ""),
    Setting::new("retention.ms", Kind::Long, Some("604800000"), "").check(Check::AtLeast(-1)),
    Setting::new("max.message.bytes", Kind::Int, Some("1048588"), "").check(Check::AtLeast(0)),
    Setting::new("index.interval.bytes", Kind::Int, Some("4096"), "").check(Check::AtLeast(0)),
    Setting::new("delete.retention.ms", Kind::Long, Some("86400000"), "").check(Check::AtLeast(0)),
    Setting::new("min.compaction.lag.ms", Kind::Long, Some("0"), "").check(Check::AtLeast(0)),
    Setting::new(
        "max.compaction.lag.ms",
        Kind::Long,
        Some("9223372036854775807"),
        "",
    )
    .check(Check::AtLeast(1)),
    Setting::new("file.delete.delay.ms", Kind::Long, Some("60000"), "").check(Check::AtLeast(0)),
    Setting::new("min.cleanable.dirty.ratio", Kind::Double, Some("0.5"), "")
        .check(Check::Fraction(0.0, 1.0)),
    Setting::new("cleanup.policy", Kind::List, Some("delete"), "")
        .check(Check::EachOf(&["compact", "delete"])),
    Setting::new(
        "unclean.leader.election.enable",
        Kind::Boolean,
        Some("false"),
        "",
    ),
    Setting::new("min.insync.replicas", Kind::Int, Some("1"), "").check(Check::AtLeast(1)),
    Setting::new("compression.type", Kind::String, Some("producer"), "").check(Check::OneOf(&[
        "uncompressed",
        "zstd",
        "lz4",
        "snappy",
        "gzip",
        "producer",
    ])),
    Setting::new("compression.gzip.level", Kind::Int, Some("-1"), "")
        .check(Check::BetweenOrMinusOne(1, 9)),
    Setting::new("compression.lz4.level", Kind::Int, Some("9"), "").check(Check::Between(1, 17)),
    Setting::new("compression.zstd.level", Kind::Int, Some("3"), "")
        .check(Check::Between(-131_072, 22)),
    Setting::new("preallocate", Kind::Boolean, Some("false"), ""),
    Setting::new("message.format.version", Kind::String, Some("3.0-IV1"), "")
        .check(Check::MetadataVersion)
        .no_effect(),
    Setting::new(
        "message.timestamp.type",
        Kind::String,
        Some("CreateTime"),
        "",
    )
    .check(Check::OneOf(&["CreateTime", "LogAppendTime"])),
    Setting::new(
        "message.timestamp.difference.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
        "",
    )
    .check(Check::AtLeast(0)),
    Setting::new(
        "message.timestamp.before.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
        "",
    )
    .check(Check::AtLeast(0)),
    Setting::new(
        "message.timestamp.after.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
        "",
    )
    .check(Check::AtLeast(0)),
    Setting::new(
        "leader.replication.throttled.replicas",
        Kind::List,
        Some(""),
        "",
    )
    .check(Check::ThrottledReplicas),
    Setting::new(
        "follower.replication.throttled.replicas",
        Kind::List,
        Some(""),
        "",
    )
    .check(Check::ThrottledReplicas),
    Setting::new(
        "message.downconversion.enable",
        Kind::Boolean,
        Some("true"),
        "",
    ),
    Setting::new("remote.storage.enable", Kind::Boolean, Some("false"), "").no_effect(),
    Setting::new("local.retention.ms", Kind::Long, Some("-2"), "")
        .check(Check::AtLeast(-2))
        .no_effect(),
    Setting::new("local.retention.bytes", Kind::Long, Some("-2"), "")
        .check(Check::AtLeast(-2))
        .no_effect(),
    Setting::new("remote.log.copy.disable", Kind::Boolean, Some("false"), "").no_effect(),
    Setting::new(
        "remote.log.delete.on.disable",
        Kind::Boolean,
        Some("false"),
        "",
    )
    .no_effect(),
];
