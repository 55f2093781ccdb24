//! Listeners, connections and requests.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("num.io.threads", Kind::Int, Some("8"), "")
        .check(Check::AtLeast(1))
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "max.incremental.fetch.session.cache.slots",
        Kind::Int,
        Some("1000"),
        "",
    )
    .check(Check::AtLeast(0))
    .not_yet(),
    Setting::new("fetch.max.bytes", Kind::Int, Some("57671680"), "")
        .check(Check::AtLeast(1024))
        .not_yet(),
    Setting::new(
        "max.request.partition.size.limit",
        Kind::Int,
        Some("2000"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new("listeners", Kind::String, Some("PLAINTEXT://:9092"), "")
        .per_broker()
        .not_yet(),
    Setting::new("advertised.listeners", Kind::String, None, "")
        .per_broker()
        .not_yet(),
    Setting::new(
        "listener.security.protocol.map",
        Kind::String,
        Some("SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT"),
        "",
    )
    .per_broker()
    .not_yet(),
    Setting::new("control.plane.listener.name", Kind::String, None, "").not_yet(),
    Setting::new("socket.send.buffer.bytes", Kind::Int, Some("102400"), "").not_yet(),
    Setting::new("socket.receive.buffer.bytes", Kind::Int, Some("102400"), "").not_yet(),
    Setting::new("socket.request.max.bytes", Kind::Int, Some("104857600"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new("socket.listen.backlog.size", Kind::Int, Some("50"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new("max.connections.per.ip", Kind::Int, Some("2147483647"), "")
        .check(Check::AtLeast(0))
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "max.connections.per.ip.overrides",
        Kind::String,
        Some(""),
        "",
    )
    .cluster_wide()
    .not_yet(),
    Setting::new("max.connections", Kind::Int, Some("2147483647"), "")
        .check(Check::AtLeast(0))
        .cluster_wide()
        .not_yet(),
    Setting::new(
        "max.connection.creation.rate",
        Kind::Int,
        Some("2147483647"),
        "",
    )
    .check(Check::AtLeast(0))
    .cluster_wide()
    .not_yet(),
    Setting::new("connections.max.idle.ms", Kind::Long, Some("600000"), "").not_yet(),
    Setting::new(
        "connection.failed.authentication.delay.ms",
        Kind::Int,
        Some("100"),
        "",
    )
    .check(Check::AtLeast(0))
    .not_yet(),
    Setting::new("queued.max.requests", Kind::Int, Some("500"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new("queued.max.request.bytes", Kind::Long, Some("-1"), "").not_yet(),
    Setting::new("num.network.threads", Kind::Int, Some("3"), "")
        .check(Check::AtLeast(1))
        .cluster_wide()
        .not_yet(),
];
