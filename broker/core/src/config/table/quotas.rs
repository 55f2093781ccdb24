//! Quotas and metrics.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("metrics.num.samples", Kind::Int, Some("2"))
        .check(Check::AtLeast(1))
        .no_effect()
        .doc("Samples kept for Java's metrics. Has no effect here."),
    Setting::new("metrics.sample.window.ms", Kind::Long, Some("30000"))
        .check(Check::AtLeast(1))
        .no_effect()
        .doc("Length of a sample of Java's metrics. Has no effect here."),
    Setting::new("metric.reporters", Kind::List, Some(""))
        .cluster_wide()
        .no_effect()
        .doc(
            "Classes that report Java's metrics. Has no effect here: see \
             barnabas.admin.listener.",
        ),
    Setting::new("metrics.recording.level", Kind::String, Some("INFO"))
        .no_effect()
        .doc("How much Java's metrics record. Has no effect here."),
    Setting::new("auto.include.jmx.reporter", Kind::Boolean, Some("true"))
        .no_effect()
        .doc("Whether Java's metrics go to JMX. Has no effect here."),
    Setting::new("kafka.metrics.reporters", Kind::List, Some(""))
        .no_effect()
        .doc("Classes that report Java's older metrics. Has no effect here."),
    Setting::new("kafka.metrics.polling.interval.secs", Kind::Int, Some("10"))
        .check(Check::AtLeast(1))
        .no_effect()
        .doc("How often those classes are called. Has no effect here."),
    Setting::new("telemetry.max.bytes", Kind::Int, Some("1048576"))
        .check(Check::AtLeast(1))
        .no_effect()
        .doc("KRaft: largest telemetry that a client may push."),
    Setting::new("quota.window.num", Kind::Int, Some("11"))
        .check(Check::AtLeast(1))
        .doc("Samples kept for client quotas."),
    Setting::new(
        "alter.log.dirs.replication.quota.window.num",
        Kind::Int,
        Some("11"),
    )
    .check(Check::AtLeast(1))
    .doc("Samples kept for the quota of moves between log directories."),
    Setting::new("controller.quota.window.num", Kind::Int, Some("11"))
        .check(Check::AtLeast(1))
        .doc("Samples kept for controller mutation quotas."),
    Setting::new("quota.window.size.seconds", Kind::Int, Some("1"))
        .check(Check::AtLeast(1))
        .doc("Length of a sample of client quotas."),
    Setting::new(
        "alter.log.dirs.replication.quota.window.size.seconds",
        Kind::Int,
        Some("1"),
    )
    .check(Check::AtLeast(1))
    .doc("Length of a sample of the quota of moves between log directories."),
    Setting::new("controller.quota.window.size.seconds", Kind::Int, Some("1"))
        .check(Check::AtLeast(1))
        .doc("Length of a sample of controller mutation quotas."),
    Setting::new("client.quota.callback.class", Kind::Class, None)
        .not_yet()
        .doc("Class that decides client quotas."),
];
