//! Replication, leadership and the controller.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("num.replica.alter.log.dirs.threads", Kind::Int, None)
        .not_yet()
        .doc("Threads that move replicas between log directories; unset means one per directory."),
    Setting::new("request.timeout.ms", Kind::Int, Some("30000"))
        .doc("How long this broker waits for an answer to a request of its own."),
    Setting::new(
        "socket.connection.setup.timeout.ms",
        Kind::Long,
        Some("10000"),
    )
    .not_yet()
    .doc("How long this broker waits for a connection of its own to be established."),
    Setting::new(
        "socket.connection.setup.timeout.max.ms",
        Kind::Long,
        Some("30000"),
    )
    .not_yet()
    .doc("Upper bound of the connection timeout, which grows with each failure."),
    Setting::new("controlled.shutdown.max.retries", Kind::Int, Some("3"))
        .doc("How often a stopping broker asks the controller to move its leaders."),
    Setting::new(
        "controlled.shutdown.retry.backoff.ms",
        Kind::Long,
        Some("5000"),
    )
    .doc("Pause between such attempts."),
    Setting::new("controlled.shutdown.enable", Kind::Boolean, Some("true"))
        .doc("Whether a stopping broker hands its leaders to others first."),
    Setting::new("controller.socket.timeout.ms", Kind::Int, Some("30000"))
        .doc("How long the controller waits for a broker's answer."),
    Setting::new("default.replication.factor", Kind::Int, Some("1"))
        .doc("Replicas of topics that are created automatically or without a number."),
    Setting::new("replica.lag.time.max.ms", Kind::Long, Some("30000"))
        .doc("A follower that has not caught up for this long leaves the ISR."),
    Setting::new("replica.socket.timeout.ms", Kind::Int, Some("30000")).doc(
        "How long a follower waits for an answer of its leader; at least \
             replica.fetch.wait.max.ms.",
    ),
    Setting::new(
        "replica.socket.receive.buffer.bytes",
        Kind::Int,
        Some("65536"),
    )
    .not_yet()
    .doc("Receive buffer of a follower's sockets, in bytes."),
    Setting::new("replica.fetch.max.bytes", Kind::Int, Some("1048576"))
        .check(Check::AtLeast(0))
        .doc(
            "Bytes that a follower asks for per partition; a larger first batch is returned all \
             the same.",
        ),
    Setting::new("replica.fetch.wait.max.ms", Kind::Int, Some("500")).doc(
        "How long a follower's fetch waits for records; keep it below \
             replica.lag.time.max.ms.",
    ),
    Setting::new("replica.fetch.backoff.ms", Kind::Int, Some("1000"))
        .check(Check::AtLeast(0))
        .doc("Pause of a follower after a failed fetch."),
    Setting::new("replica.fetch.min.bytes", Kind::Int, Some("1"))
        .doc("Fewest bytes for which a leader answers a follower before the wait is over."),
    Setting::new(
        "replica.fetch.response.max.bytes",
        Kind::Int,
        Some("10485760"),
    )
    .check(Check::AtLeast(0))
    .doc("Bytes that a follower asks for in all."),
    Setting::new("num.replica.fetchers", Kind::Int, Some("1"))
        .cluster_wide()
        .doc("Threads that fetch from each leader."),
    Setting::new(
        "replica.high.watermark.checkpoint.interval.ms",
        Kind::Long,
        Some("5000"),
    )
    .doc("How often high watermarks are written to disk."),
    Setting::new(
        "fetch.purgatory.purge.interval.requests",
        Kind::Int,
        Some("1000"),
    )
    .no_effect()
    .doc("Java's purge interval of waiting fetches. Has no effect here."),
    Setting::new(
        "producer.purgatory.purge.interval.requests",
        Kind::Int,
        Some("1000"),
    )
    .no_effect()
    .doc("Java's purge interval of waiting produce requests. Has no effect here."),
    Setting::new(
        "delete.records.purgatory.purge.interval.requests",
        Kind::Int,
        Some("1"),
    )
    .no_effect()
    .doc("Java's purge interval of waiting delete requests. Has no effect here."),
    Setting::new("auto.leader.rebalance.enable", Kind::Boolean, Some("true")).doc(
        "Whether the controller gives partitions back to their preferred leaders from time \
             to time.",
    ),
    Setting::new(
        "leader.imbalance.per.broker.percentage",
        Kind::Int,
        Some("10"),
    )
    .doc(
        "Share of a broker's partitions that others may lead before leadership is given \
             back.",
    ),
    Setting::new(
        "leader.imbalance.check.interval.seconds",
        Kind::Long,
        Some("300"),
    )
    .check(Check::AtLeast(1))
    .doc("How often the controller looks at that share."),
    Setting::new(
        "unclean.leader.election.interval.ms",
        Kind::Long,
        Some("300000"),
    )
    .check(Check::AtLeast(1))
    .not_yet()
    .internal()
    .doc("KRaft: how often unclean elections are tried."),
    Setting::new(
        "unclean.leader.election.enable",
        Kind::Boolean,
        Some("false"),
    )
    .cluster_wide()
    .doc(
        "Whether a replica that is not in sync may lead if there is no other; records may \
             be lost.",
    ),
    Setting::new(
        "inter.broker.protocol.version",
        Kind::String,
        Some("3.9-IV0"),
    )
    .check(Check::MetadataVersion)
    .doc(
        "Version of Kafka that all brokers understand; raise it when every broker was \
             upgraded.",
    ),
    Setting::new("inter.broker.listener.name", Kind::String, None)
        .doc("Listener that brokers use between themselves."),
    Setting::new("replica.selector.class", Kind::String, None).doc(
        "Class that picks the replica a consumer reads from; RackAwareReplicaSelector picks \
             one in the consumer's rack.",
    ),
    Setting::new("replication.quota.window.num", Kind::Int, Some("11"))
        .check(Check::AtLeast(1))
        .doc("Samples kept for replication quotas."),
    Setting::new(
        "replication.quota.window.size.seconds",
        Kind::Int,
        Some("1"),
    )
    .check(Check::AtLeast(1))
    .doc("Length of a sample of replication quotas."),
];
