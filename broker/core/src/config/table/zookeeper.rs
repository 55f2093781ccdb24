//! The way to ZooKeeper.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("zookeeper.connect", Kind::String, None, "").not_yet(),
    Setting::new("zookeeper.session.timeout.ms", Kind::Int, Some("18000"), "").not_yet(),
    Setting::new("zookeeper.connection.timeout.ms", Kind::Int, None, "").not_yet(),
    Setting::new("zookeeper.set.acl", Kind::Boolean, Some("false"), "").not_yet(),
    Setting::new(
        "zookeeper.max.in.flight.requests",
        Kind::Int,
        Some("10"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new(
        "zookeeper.ssl.client.enable",
        Kind::Boolean,
        Some("false"),
        "",
    )
    .not_yet(),
    Setting::new("zookeeper.clientCnxnSocket", Kind::String, None, "").no_effect(),
    Setting::new("zookeeper.ssl.keystore.location", Kind::String, None, "").not_yet(),
    Setting::new("zookeeper.ssl.keystore.password", Kind::Password, None, "").not_yet(),
    Setting::new("zookeeper.ssl.keystore.type", Kind::String, None, "").not_yet(),
    Setting::new("zookeeper.ssl.truststore.location", Kind::String, None, "").not_yet(),
    Setting::new(
        "zookeeper.ssl.truststore.password",
        Kind::Password,
        None,
        "",
    )
    .not_yet(),
    Setting::new("zookeeper.ssl.truststore.type", Kind::String, None, "").not_yet(),
    Setting::new("zookeeper.ssl.protocol", Kind::String, Some("TLSv1.2"), "").not_yet(),
    Setting::new("zookeeper.ssl.enabled.protocols", Kind::List, None, "").not_yet(),
    Setting::new("zookeeper.ssl.cipher.suites", Kind::List, None, "").not_yet(),
    Setting::new(
        "zookeeper.ssl.endpoint.identification.algorithm",
        Kind::String,
        Some("HTTPS"),
        "",
    )
    .not_yet(),
    Setting::new("zookeeper.ssl.crl.enable", Kind::Boolean, Some("false"), "").not_yet(),
    Setting::new(
        "zookeeper.ssl.ocsp.enable",
        Kind::Boolean,
        Some("false"),
        "",
    )
    .not_yet(),
    Setting::new(
        "zookeeper.metadata.migration.enable",
        Kind::Boolean,
        Some("false"),
        "",
    )
    .not_yet(),
    Setting::new(
        "zookeeper.metadata.migration.min.batch.size",
        Kind::Int,
        Some("200"),
        "",
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .internal(),
];
