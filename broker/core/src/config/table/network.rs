//! Listeners, connections and requests.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("num.io.threads", Kind::Int, Some("8"))
        .check(Check::AtLeast(1))
        .cluster_wide()
        .no_effect()
        .doc(
            "Java threads that execute requests. Has no effect here: requests run on one thread \
             per core.",
        ),
    Setting::new(
        "max.incremental.fetch.session.cache.slots",
        Kind::Int,
        Some("1000"),
    )
    .check(Check::AtLeast(0))
    .doc("Incremental fetch sessions that are kept."),
    Setting::new("fetch.max.bytes", Kind::Int, Some("57671680"))
        .check(Check::AtLeast(1024))
        .doc("Most bytes in the answer to one fetch request."),
    Setting::new("max.request.partition.size.limit", Kind::Int, Some("2000"))
        .check(Check::AtLeast(1))
        .not_yet()
        .doc("Most partitions in one request that lists partitions."),
    Setting::new("listeners", Kind::String, Some("PLAINTEXT://:9092"))
        .per_broker()
        .doc(
            "Addresses to listen on: NAME://host:port, separated by commas. An empty host is \
             every interface, port 0 any free one, IPv6 goes in brackets.",
        ),
    Setting::new("advertised.listeners", Kind::String, None)
        .per_broker()
        .doc("Addresses that clients and other brokers are told; unset tells those of listeners."),
    Setting::new(
        "listener.security.protocol.map",
        Kind::String,
        Some(
            "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,\
             SASL_PLAINTEXT:SASL_PLAINTEXT",
        ),
    )
    .per_broker()
    .doc("Protocol of each listener name, such as CLIENT:PLAINTEXT,REPLICATION:SSL."),
    Setting::new("control.plane.listener.name", Kind::String, None)
        .not_yet()
        .doc("A listener reserved for what the controller tells brokers."),
    Setting::new("socket.send.buffer.bytes", Kind::Int, Some("102400")).doc(
        "Send buffer of client sockets, in bytes; -1, and the default, leave it to the system.",
    ),
    Setting::new("socket.receive.buffer.bytes", Kind::Int, Some("102400")).doc(
        "Receive buffer of client sockets, in bytes; -1, and the default, leave it to the system.",
    ),
    Setting::new("socket.request.max.bytes", Kind::Int, Some("104857600"))
        .check(Check::AtLeast(1))
        .doc("Largest request, in bytes; the sender of a larger one is disconnected."),
    Setting::new("socket.listen.backlog.size", Kind::Int, Some("50"))
        .check(Check::AtLeast(1))
        .doc("Connections that may wait to be accepted; by default as many as the system allows, up to 4096."),
    Setting::new("max.connections.per.ip", Kind::Int, Some("2147483647"))
        .check(Check::AtLeast(0))
        .cluster_wide()
        .doc("Connections allowed from one address."),
    Setting::new("max.connections.per.ip.overrides", Kind::String, Some(""))
        .cluster_wide()
        .doc("Other limits for some hosts, as host:limit, separated by commas."),
    Setting::new("max.connections", Kind::Int, Some("2147483647"))
        .check(Check::AtLeast(0))
        .cluster_wide()
        .doc(
            "Connections that a broker accepts over all listeners; \
             listener.name.<name>.max.connections limits one.",
        ),
    Setting::new(
        "max.connection.creation.rate",
        Kind::Int,
        Some("2147483647"),
    )
    .check(Check::AtLeast(0))
    .cluster_wide()
    .doc(
        "Connections per second that a broker accepts; \
             listener.name.<name>.max.connection.creation.rate limits one listener.",
    ),
    Setting::new("connections.max.idle.ms", Kind::Long, Some("600000"))
        .doc("A connection without requests for this long is closed."),
    Setting::new(
        "connection.failed.authentication.delay.ms",
        Kind::Int,
        Some("100"),
    )
    .check(Check::AtLeast(0))
    .not_yet()
    .doc("How long the answer to a failed login is held back."),
    Setting::new("queued.max.requests", Kind::Int, Some("500"))
        .check(Check::AtLeast(1))
        .no_effect()
        .doc(
            "Requests that may wait for a Java thread. Has no effect here: a connection waits \
             for its own request, and queued.max.request.bytes bounds their memory.",
        ),
    Setting::new("queued.max.request.bytes", Kind::Long, Some("-1")).doc(
        "Bytes of requests that may wait before sockets are read no further; -1 sets no \
             limit.",
    ),
    Setting::new("num.network.threads", Kind::Int, Some("3"))
        .check(Check::AtLeast(1))
        .cluster_wide()
        .no_effect()
        .doc(
            "Java threads that serve the sockets of a listener. Has no effect here: sockets are \
             served by one thread per core.",
        ),
];
