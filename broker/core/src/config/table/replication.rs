//! Replication, leadership and the controller.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("num.replica.alter.log.dirs.threads", Kind::Int, None, "").not_yet(),
    Setting::new("request.timeout.ms", Kind::Int, Some("30000"), "").not_yet(),
    Setting::new(
        "socket.connection.setup.timeout.ms",
        Kind::Long,
        Some("10000"),
        "",
    )
    .not_yet(),
    Setting::new(
        "socket.connection.setup.timeout.max.ms",
        Kind::Long,
        Some("30000"),
        "",
    )
    .not_yet(),
    Setting::new("controlled.shutdown.max.retries", Kind::Int, Some("3"), "").not_yet(),
    Setting::new(
        "controlled.shutdown.retry.backoff.ms",
        Kind::Long,
        Some("5000"),
        "",
    )
    .not_yet(),
    Setting::new(
        "controlled.shutdown.enable",
        Kind::Boolean,
        Some("true"),
        "",
    )
    .not_yet(),
    Setting::new("controller.socket.timeout.ms", Kind::Int, Some("30000"), "").not_yet(),
    Setting::new("default.replication.factor", Kind::Int, Some("1"), "").not_yet(),
    Setting::new("replica.lag.time.max.ms", Kind::Long, Some("30000"), "").not_yet(),
    Setting::new("replica.socket.timeout.ms", Kind::Int, Some("30000"), "").not_yet(),
    Setting::new(
        "replica.socket.receive.buffer.bytes",
        Kind::Int,
        Some("65536"),
        "",
    )
    .not_yet(),
    Setting::new("replica.fetch.max.bytes", Kind::Int, Some("1048576"), "")
        .check(Check::AtLeast(0))
        .not_yet(),
    Setting::new("replica.fetch.wait.max.ms", Kind::Int, Some("500"), "").not_yet(),
    Setting::new("replica.fetch.backoff.ms", Kind::Int, Some("1000"), "")
        .check(Check::AtLeast(0))
        .not_yet(),
    Setting::new("replica.fetch.min.bytes", Kind::Int, Some("1"), "").not_yet(),
    Setting::new(
        "replica.fetch.response.max.bytes",
        Kind::Int,
        Some("10485760"),
        "",
    )
    .check(Check::AtLeast(0))
    .not_yet(),
    Setting::new("num.replica.fetchers", Kind::Int, Some("1"), "")
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "replica.high.watermark.checkpoint.interval.ms",
        Kind::Long,
        Some("5000"),
        "",
    )
    .not_yet(),
    Setting::new(
        "fetch.purgatory.purge.interval.requests",
        Kind::Int,
        Some("1000"),
        "",
    )
    .no_effect(),
    Setting::new(
        "producer.purgatory.purge.interval.requests",
        Kind::Int,
        Some("1000"),
        "",
    )
    .no_effect(),
    Setting::new(
        "delete.records.purgatory.purge.interval.requests",
        Kind::Int,
        Some("1"),
        "",
    )
    .no_effect(),
    Setting::new(
        "auto.leader.rebalance.enable",
        Kind::Boolean,
        Some("true"),
        "",
    )
    .not_yet(),
    Setting::new(
        "leader.imbalance.per.broker.percentage",
        Kind::Int,
        Some("10"),
        "",
    )
    .not_yet(),
    Setting::new(
        "leader.imbalance.check.interval.seconds",
        Kind::Long,
        Some("300"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new(
        "unclean.leader.election.interval.ms",
        Kind::Long,
        Some("300000"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet()
    .internal(),
    Setting::new(
        "unclean.leader.election.enable",
        Kind::Boolean,
        Some("false"),
        "",
    )
    .cluster_wide()
    .not_yet(),
    Setting::new(
        "inter.broker.protocol.version",
        Kind::String,
        Some("3.9-IV0"),
        "",
    )
    .check(Check::MetadataVersion)
    .not_yet(),
    Setting::new("inter.broker.listener.name", Kind::String, None, "").not_yet(),
    Setting::new("replica.selector.class", Kind::String, None, "").not_yet(),
    Setting::new("replication.quota.window.num", Kind::Int, Some("11"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new(
        "replication.quota.window.size.seconds",
        Kind::Int,
        Some("1"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
];
