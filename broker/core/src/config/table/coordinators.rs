//! Group and transaction coordinators.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("group.min.session.timeout.ms", Kind::Int, Some("6000"))
        .doc("Shortest session timeout that a group member may ask for."),
    Setting::new("group.max.session.timeout.ms", Kind::Int, Some("1800000"))
        .doc("Longest session timeout that a group member may ask for."),
    Setting::new("group.initial.rebalance.delay.ms", Kind::Int, Some("3000"))
        .doc("How long a new group waits for more members before its first rebalance."),
    Setting::new("group.max.size", Kind::Int, Some("2147483647"))
        .check(Check::AtLeast(1))
        .doc("Most members of a group."),
    Setting::new("offset.metadata.max.bytes", Kind::Int, Some("4096"))
        .doc("Most bytes of metadata that may accompany a committed offset."),
    Setting::new("offsets.load.buffer.size", Kind::Int, Some("5242880"))
        .check(Check::AtLeast(1))
        .doc("Bytes read at a time when committed offsets are loaded."),
    Setting::new("offsets.topic.replication.factor", Kind::Short, Some("3"))
        .check(Check::AtLeast(1))
        .doc(
            "Replicas of the topic of committed offsets; it is not created before there are so \
             many brokers.",
        ),
    Setting::new("offsets.topic.num.partitions", Kind::Int, Some("50"))
        .check(Check::AtLeast(1))
        .doc("Partitions of the topic of committed offsets; never change it later."),
    Setting::new("offsets.topic.segment.bytes", Kind::Int, Some("104857600"))
        .check(Check::AtLeast(1))
        .doc("Segment size of the topic of committed offsets."),
    Setting::new("offsets.topic.compression.codec", Kind::Int, Some("0"))
        .doc("Codec of the topic of committed offsets: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."),
    Setting::new("offsets.retention.minutes", Kind::Int, Some("10080"))
        .check(Check::AtLeast(1))
        .doc("How long offsets of a group without members are kept."),
    Setting::new(
        "offsets.retention.check.interval.ms",
        Kind::Long,
        Some("600000"),
    )
    .check(Check::AtLeast(1))
    .doc("How often expired offsets are looked for."),
    Setting::new("offsets.commit.timeout.ms", Kind::Int, Some("5000"))
        .check(Check::AtLeast(1))
        .doc("How long an offset commit waits for all replicas."),
    Setting::new("offsets.commit.required.acks", Kind::Short, Some("-1"))
        .doc("Acknowledgements that an offset commit needs; leave it at -1."),
    Setting::new("transaction.state.log.min.isr", Kind::Int, Some("2"))
        .check(Check::AtLeast(1))
        .doc("min.insync.replicas of the transaction topic."),
    Setting::new(
        "transaction.state.log.load.buffer.size",
        Kind::Int,
        Some("5242880"),
    )
    .check(Check::AtLeast(1))
    .doc("Bytes read at a time when transactions are loaded."),
    Setting::new(
        "transaction.state.log.replication.factor",
        Kind::Short,
        Some("3"),
    )
    .check(Check::AtLeast(1))
    .doc(
        "Replicas of the transaction topic; it is not created before there are so many \
             brokers.",
    ),
    Setting::new(
        "transaction.state.log.num.partitions",
        Kind::Int,
        Some("50"),
    )
    .check(Check::AtLeast(1))
    .doc("Partitions of the transaction topic; never change it later."),
    Setting::new(
        "transaction.state.log.segment.bytes",
        Kind::Int,
        Some("104857600"),
    )
    .check(Check::AtLeast(1))
    .doc("Segment size of the transaction topic."),
    Setting::new(
        "transaction.partition.verification.enable",
        Kind::Boolean,
        Some("true"),
    )
    .cluster_wide()
    .doc(
        "Whether the leader asks the coordinator if a partition belongs to a transaction \
             before it accepts records.",
    ),
    Setting::new("producer.id.expiration.ms", Kind::Int, Some("86400000"))
        .check(Check::AtLeast(1))
        .cluster_wide()
        .doc("How long the state of an idle producer is kept."),
    Setting::new(
        "producer.id.expiration.check.interval.ms",
        Kind::Int,
        Some("600000"),
    )
    .check(Check::AtLeast(1))
    .internal()
    .doc("How often idle producers are looked for."),
    Setting::new(
        "transactional.id.expiration.ms",
        Kind::Int,
        Some("604800000"),
    )
    .check(Check::AtLeast(1))
    .doc("How long an idle transactional id is kept."),
    Setting::new("transaction.max.timeout.ms", Kind::Int, Some("900000"))
        .check(Check::AtLeast(1))
        .doc("Longest transaction timeout that a producer may ask for."),
    Setting::new(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        Kind::Int,
        Some("10000"),
    )
    .check(Check::AtLeast(1))
    .doc("How often transactions that timed out are looked for."),
    Setting::new(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        Kind::Int,
        Some("3600000"),
    )
    .check(Check::AtLeast(1))
    .doc("How often expired transactional ids are looked for."),
];
