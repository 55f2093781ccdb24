//! The way to ZooKeeper.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("zookeeper.connect", Kind::String, None).doc(
        "ZooKeeper servers as host:port, separated by commas; a path at the end (/chroot) \
             keeps several clusters apart in one ensemble.",
    ),
    Setting::new("zookeeper.session.timeout.ms", Kind::Int, Some("18000"))
        .doc("How long ZooKeeper waits for a sign of life before it declares this broker dead."),
    Setting::new("zookeeper.connection.timeout.ms", Kind::Int, None).doc(
        "How long the start waits for a first connection to ZooKeeper; unset takes the \
             session timeout.",
    ),
    Setting::new("zookeeper.set.acl", Kind::Boolean, Some("false"))
        .doc("Whether znodes are created so that only authenticated brokers may change them."),
    Setting::new("zookeeper.max.in.flight.requests", Kind::Int, Some("10"))
        .check(Check::AtLeast(1))
        .doc("Requests that may be on their way to ZooKeeper at a time."),
    Setting::new("zookeeper.ssl.client.enable", Kind::Boolean, Some("false"))
        .doc("Whether the connection to ZooKeeper uses TLS."),
    Setting::new("zookeeper.clientCnxnSocket", Kind::String, None)
        .no_effect()
        .doc(
            "Socket class of the Java ZooKeeper client. Has no meaning here: \
             zookeeper.ssl.client.enable is enough.",
        ),
    Setting::new("zookeeper.ssl.keystore.location", Kind::String, None)
        .doc("Key store with the certificate that this broker shows to ZooKeeper."),
    Setting::new("zookeeper.ssl.keystore.password", Kind::Password, None)
        .doc("Password of the key store for ZooKeeper."),
    Setting::new("zookeeper.ssl.keystore.type", Kind::String, None)
        .doc("Format of the key store for ZooKeeper; unset derives it from the file name."),
    Setting::new("zookeeper.ssl.truststore.location", Kind::String, None)
        .doc("Trust store with the certificates that ZooKeeper may show."),
    Setting::new("zookeeper.ssl.truststore.password", Kind::Password, None)
        .doc("Password of the trust store for ZooKeeper."),
    Setting::new("zookeeper.ssl.truststore.type", Kind::String, None)
        .doc("Format of the trust store for ZooKeeper; unset derives it from the file name."),
    Setting::new("zookeeper.ssl.protocol", Kind::String, Some("TLSv1.2"))
        .doc("TLS version offered to ZooKeeper first."),
    Setting::new("zookeeper.ssl.enabled.protocols", Kind::List, None)
        .doc("TLS versions that may be agreed with ZooKeeper."),
    Setting::new("zookeeper.ssl.cipher.suites", Kind::List, None)
        .doc("Cipher suites that may be agreed with ZooKeeper."),
    Setting::new(
        "zookeeper.ssl.endpoint.identification.algorithm",
        Kind::String,
        Some("HTTPS"),
    )
    .doc(
        "HTTPS checks that ZooKeeper's certificate names its host; empty switches the check \
             off.",
    ),
    Setting::new("zookeeper.ssl.crl.enable", Kind::Boolean, Some("false"))
        .doc("Whether revocation lists are consulted for ZooKeeper's certificates."),
    Setting::new("zookeeper.ssl.ocsp.enable", Kind::Boolean, Some("false"))
        .doc("Whether the online status of ZooKeeper's certificates is asked for."),
    Setting::new(
        "zookeeper.metadata.migration.enable",
        Kind::Boolean,
        Some("false"),
    )
    .doc("Whether the cluster is being moved from ZooKeeper to KRaft. Not supported here."),
    Setting::new(
        "zookeeper.metadata.migration.min.batch.size",
        Kind::Int,
        Some("200"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .internal()
    .doc("Smallest batch of records in a migration to KRaft."),
];
