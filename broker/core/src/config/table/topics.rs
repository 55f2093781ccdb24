//! Settings of topics (`/config/topics/<topic>`).

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("segment.bytes", Kind::Int, Some("1073741824"))
        .check(Check::AtLeast(14))
        .doc("Largest segment file, in bytes."),
    Setting::new("segment.ms", Kind::Long, Some("604800000"))
        .check(Check::AtLeast(1))
        .doc("Age at which a segment is closed even if it is not full."),
    Setting::new("segment.jitter.ms", Kind::Long, Some("0"))
        .check(Check::AtLeast(0))
        .doc(
            "Random time by which a segment is closed earlier, so that not all are closed at \
             once.",
        ),
    Setting::new("segment.index.bytes", Kind::Int, Some("10485760"))
        .check(Check::AtLeast(4))
        .doc("Largest index file of a segment, in bytes."),
    Setting::new("flush.messages", Kind::Long, Some("9223372036854775807"))
        .check(Check::AtLeast(1))
        .doc(
            "Records after which the partition is flushed to disk; replication is the better \
             protection.",
        ),
    Setting::new("flush.ms", Kind::Long, Some("9223372036854775807"))
        .check(Check::AtLeast(0))
        .doc("How long records may stay unflushed."),
    Setting::new("retention.bytes", Kind::Long, Some("-1")).doc(
        "Size of a partition beyond which its oldest segments are deleted; -1 sets no \
             limit.",
    ),
    Setting::new("retention.ms", Kind::Long, Some("604800000"))
        .check(Check::AtLeast(-1))
        .doc("Age at which segments are deleted; -1 keeps them for ever."),
    Setting::new("max.message.bytes", Kind::Int, Some("1048588"))
        .check(Check::AtLeast(0))
        .doc("Largest batch of records that is accepted, in bytes after compression."),
    Setting::new("index.interval.bytes", Kind::Int, Some("4096"))
        .check(Check::AtLeast(0))
        .doc("Bytes of records between two index entries."),
    Setting::new("delete.retention.ms", Kind::Long, Some("86400000"))
        .check(Check::AtLeast(0))
        .doc(
            "How long tombstones stay in a compacted topic, and so how long a reader from the \
             start may take.",
        ),
    Setting::new("min.compaction.lag.ms", Kind::Long, Some("0"))
        .check(Check::AtLeast(0))
        .doc("Records younger than this are not compacted."),
    Setting::new(
        "max.compaction.lag.ms",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(1))
    .doc("Records older than this are compacted whatever the dirty share."),
    Setting::new("file.delete.delay.ms", Kind::Long, Some("60000"))
        .check(Check::AtLeast(0))
        .doc("How long a deleted segment file stays on disk."),
    Setting::new("min.cleanable.dirty.ratio", Kind::Double, Some("0.5"))
        .check(Check::Fraction(0.0, 1.0))
        .doc("Share of the log that must be dirty before it is compacted."),
    Setting::new("cleanup.policy", Kind::List, Some("delete"))
        .check(Check::EachOf(&["compact", "delete"]))
        .doc(
            "What happens to old segments: delete them by age or size, compact them by key, or \
             both.",
        ),
    Setting::new(
        "unclean.leader.election.enable",
        Kind::Boolean,
        Some("false"),
    )
    .doc(
        "Whether a replica that is not in sync may lead if there is no other; records may \
             be lost.",
    ),
    Setting::new("min.insync.replicas", Kind::Int, Some("1"))
        .check(Check::AtLeast(1))
        .doc("Fewest replicas in sync for which records with acks=all are accepted."),
    Setting::new("compression.type", Kind::String, Some("producer"))
        .check(Check::OneOf(&[
            "uncompressed",
            "zstd",
            "lz4",
            "snappy",
            "gzip",
            "producer",
        ]))
        .doc("Codec in which batches are stored: producer keeps what the producer chose."),
    Setting::new("compression.gzip.level", Kind::Int, Some("-1"))
        .check(Check::BetweenOrMinusOne(1, 9))
        .doc("Level for gzip if the broker compresses; -1 is the codec's default."),
    Setting::new("compression.lz4.level", Kind::Int, Some("9"))
        .check(Check::Between(1, 17))
        .no_effect()
        .doc("Level for lz4 if the broker compresses."),
    Setting::new("compression.zstd.level", Kind::Int, Some("3"))
        .check(Check::Between(-131_072, 22))
        .doc("Level for zstd if the broker compresses."),
    Setting::new("preallocate", Kind::Boolean, Some("false"))
        .doc("Whether segment files get their full size when they are created."),
    Setting::new("message.format.version", Kind::String, Some("3.0-IV1"))
        .check(Check::MetadataVersion)
        .no_effect()
        .doc(
            "Message format of old Kafka versions. Ignored since inter.broker.protocol.version \
             3.0.",
        ),
    Setting::new("message.timestamp.type", Kind::String, Some("CreateTime"))
        .check(Check::OneOf(&["CreateTime", "LogAppendTime"]))
        .doc(
            "Whether records carry the producer's time (CreateTime) or the broker's \
             (LogAppendTime).",
        ),
    Setting::new(
        "message.timestamp.difference.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(0))
    .doc(
        "How far a record's time may be from the broker's. Deprecated: use the bounds \
             before and after.",
    ),
    Setting::new(
        "message.timestamp.before.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(0))
    .doc("How much older than the broker's time a record's time may be."),
    Setting::new(
        "message.timestamp.after.max.ms",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(0))
    .doc("How much newer than the broker's time a record's time may be."),
    Setting::new(
        "leader.replication.throttled.replicas",
        Kind::List,
        Some(""),
    )
    .check(Check::ThrottledReplicas)
    .doc(
        "Replicas whose traffic is throttled on the leader's side, as partition:broker, or \
             * for all.",
    ),
    Setting::new(
        "follower.replication.throttled.replicas",
        Kind::List,
        Some(""),
    )
    .check(Check::ThrottledReplicas)
    .doc(
        "Replicas whose traffic is throttled on the follower's side, as partition:broker, \
             or * for all.",
    ),
    Setting::new("message.downconversion.enable", Kind::Boolean, Some("true"))
        .doc("Whether records are converted for consumers that only know old message formats."),
    Setting::new("remote.storage.enable", Kind::Boolean, Some("false"))
        .no_effect()
        .doc(
            "Whether old segments may be moved to remote storage. Tiered storage is not \
             supported.",
        ),
    Setting::new("local.retention.ms", Kind::Long, Some("-2"))
        .check(Check::AtLeast(-2))
        .no_effect()
        .doc(
            "How long segments stay on local disk once they are in remote storage; -2 means \
             retention.ms.",
        ),
    Setting::new("local.retention.bytes", Kind::Long, Some("-2"))
        .check(Check::AtLeast(-2))
        .no_effect()
        .doc(
            "How much of a partition stays on local disk once it is in remote storage; -2 means \
             retention.bytes.",
        ),
    Setting::new("remote.log.copy.disable", Kind::Boolean, Some("false"))
        .no_effect()
        .doc("Whether copying to remote storage is switched off while older segments stay there."),
    Setting::new("remote.log.delete.on.disable", Kind::Boolean, Some("false"))
        .no_effect()
        .doc("Whether remote segments are deleted when remote storage is switched off."),
];
