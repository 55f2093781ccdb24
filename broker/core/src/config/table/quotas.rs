//! Quotas and metrics.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("metrics.num.samples", Kind::Int, Some("2"), "")
        .check(Check::AtLeast(1))
        .no_effect(),
    Setting::new("metrics.sample.window.ms", Kind::Long, Some("30000"), "")
        .check(Check::AtLeast(1))
        .no_effect(),
    Setting::new("metric.reporters", Kind::List, Some(""), "")
        .cluster_wide()
        .no_effect(),
    Setting::new("metrics.recording.level", Kind::String, Some("INFO"), "").no_effect(),
    Setting::new("auto.include.jmx.reporter", Kind::Boolean, Some("true"), "").no_effect(),
    Setting::new("kafka.metrics.reporters", Kind::List, Some(""), "").no_effect(),
    Setting::new(
        "kafka.metrics.polling.interval.secs",
        Kind::Int,
        Some("10"),
        "",
    )
    .check(Check::AtLeast(1))
    .no_effect(),
    Setting::new("telemetry.max.bytes", Kind::Int, Some("1048576"), "")
        .check(Check::AtLeast(1))
        .no_effect(),
    Setting::new("quota.window.num", Kind::Int, Some("11"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new(
        "alter.log.dirs.replication.quota.window.num",
        Kind::Int,
        Some("11"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new("controller.quota.window.num", Kind::Int, Some("11"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new("quota.window.size.seconds", Kind::Int, Some("1"), "")
        .check(Check::AtLeast(1))
        .not_yet(),
    Setting::new(
        "alter.log.dirs.replication.quota.window.size.seconds",
        Kind::Int,
        Some("1"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new(
        "controller.quota.window.size.seconds",
        Kind::Int,
        Some("1"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new("client.quota.callback.class", Kind::Class, None, "").not_yet(),
];
