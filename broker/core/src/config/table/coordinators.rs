//! Group and transaction coordinators.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("group.min.session.timeout.ms", Kind::Int, Some("6000"), "").not_yet(),
    Setting::new(
        "group.max.session.timeout.ms",
        Kind::Int,
        Some("1800000"),
        "",
    )
    .not_yet(),
    Setting::new(
        "group.initial.rebalance.delay.ms",
        Kind::Int,
        Some("3000"),
        "",
    )
    .not_yet(),
    Setting::new("group.max.size", Kind::Int, Some("2147483647"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new("offset.metadata.max.bytes", Kind::Int, Some("4096"), "").not_yet(),
    Setting::new("offsets.load.buffer.size", Kind::Int, Some("5242880"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new(
        "offsets.topic.replication.factor",
        Kind::Short,
        Some("3"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new("offsets.topic.num.partitions", Kind::Int, Some("50"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new(
        "offsets.topic.segment.bytes",
        Kind::Int,
        Some("104857600"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new("offsets.topic.compression.codec", Kind::Int, Some("0"), "").not_yet(),
    Setting::new("offsets.retention.minutes", Kind::Int, Some("10080"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new(
        "offsets.retention.check.interval.ms",
        Kind::Long,
        Some("600000"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new("offsets.commit.timeout.ms", Kind::Int, Some("5000"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new("offsets.commit.required.acks", Kind::Short, Some("-1"), "").not_yet(),
    Setting::new("transaction.state.log.min.isr", Kind::Int, Some("2"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new(
        "transaction.state.log.load.buffer.size",
        Kind::Int,
        Some("5242880"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new(
        "transaction.state.log.replication.factor",
        Kind::Short,
        Some("3"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new(
        "transaction.state.log.num.partitions",
        Kind::Int,
        Some("50"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new(
        "transaction.state.log.segment.bytes",
        Kind::Int,
        Some("104857600"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new(
        "transaction.partition.verification.enable",
        Kind::Boolean,
        Some("true"),
        "",
    )
    .cluster_wide()
    .not_yet(),
    Setting::new("producer.id.expiration.ms", Kind::Int, Some("86400000"), "")
        .check(Check::AtLeast(1))
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "producer.id.expiration.check.interval.ms",
        Kind::Int,
        Some("600000"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet()
    .internal(),
    Setting::new(
        "transactional.id.expiration.ms",
        Kind::Int,
        Some("604800000"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new("transaction.max.timeout.ms", Kind::Int, Some("900000"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        Kind::Int,
        Some("10000"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        Kind::Int,
        Some("3600000"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
];
