//! Settings that only `KRaft` mode reads, and those of its group coordinator.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("unstable.api.versions.enable", Kind::Boolean, Some("false"))
        .no_effect()
        .internal()
        .doc("Whether API versions under development are offered."),
    Setting::new(
        "unstable.feature.versions.enable",
        Kind::Boolean,
        Some("false"),
    )
    .no_effect()
    .internal()
    .doc("Whether feature versions under development are offered."),
    Setting::new(
        "metadata.log.max.record.bytes.between.snapshots",
        Kind::Long,
        Some("20971520"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("KRaft: bytes of metadata records between two snapshots."),
    Setting::new(
        "metadata.log.max.snapshot.interval.ms",
        Kind::Long,
        Some("3600000"),
    )
    .check(Check::AtLeast(0))
    .no_effect()
    .doc("KRaft: longest time between two snapshots of the metadata."),
    Setting::new("process.roles", Kind::List, Some(""))
        .check(Check::EachOf(&["broker", "controller"]))
        .no_effect()
        .doc("KRaft: roles of the process. Must be empty: this broker uses ZooKeeper."),
    Setting::new("node.id", Kind::Int, Some("-1"))
        .doc("KRaft's name for broker.id; must be equal to it if both are given."),
    Setting::new(
        "initial.broker.registration.timeout.ms",
        Kind::Int,
        Some("60000"),
    )
    .no_effect()
    .doc("KRaft: how long a broker waits for its first registration."),
    Setting::new("broker.heartbeat.interval.ms", Kind::Int, Some("2000"))
        .no_effect()
        .doc("KRaft: pause between heartbeats to the controller."),
    Setting::new("broker.session.timeout.ms", Kind::Int, Some("9000"))
        .no_effect()
        .doc("KRaft: how long the controller waits for a heartbeat."),
    Setting::new("controller.listener.names", Kind::String, None)
        .no_effect()
        .doc("KRaft: listeners of the controller. Must be empty: this broker uses ZooKeeper."),
    Setting::new(
        "sasl.mechanism.controller.protocol",
        Kind::String,
        Some("GSSAPI"),
    )
    .no_effect()
    .doc("KRaft: SASL mechanism towards controllers."),
    Setting::new("metadata.log.dir", Kind::String, None)
        .no_effect()
        .doc("KRaft: directory of the metadata log."),
    Setting::new("metadata.log.segment.bytes", Kind::Int, Some("1073741824"))
        .check(Check::AtLeast(12))
        .no_effect()
        .doc("KRaft: largest segment of the metadata log."),
    Setting::new("metadata.log.segment.min.bytes", Kind::Int, Some("8388608"))
        .check(Check::AtLeast(12))
        .no_effect()
        .internal()
        .doc("KRaft: smallest segment size of the metadata log that may be configured."),
    Setting::new("metadata.log.segment.ms", Kind::Long, Some("604800000"))
        .no_effect()
        .doc("KRaft: age at which a segment of the metadata log is closed."),
    Setting::new(
        "metadata.max.retention.bytes",
        Kind::Long,
        Some("104857600"),
    )
    .no_effect()
    .doc("KRaft: size of metadata log and snapshots beyond which old ones are deleted."),
    Setting::new("metadata.max.retention.ms", Kind::Long, Some("604800000"))
        .no_effect()
        .doc("KRaft: age beyond which metadata segments and snapshots are deleted."),
    Setting::new("metadata.max.idle.interval.ms", Kind::Int, Some("500"))
        .check(Check::AtLeast(0))
        .no_effect()
        .doc("KRaft: pause after which an idle controller writes a no-op record."),
    Setting::new(
        "server.max.startup.time.ms",
        Kind::Long,
        Some("9223372036854775807"),
    )
    .check(Check::AtLeast(0))
    .no_effect()
    .internal()
    .doc("KRaft: how long the start may take."),
    Setting::new(
        "eligible.leader.replicas.enable",
        Kind::Boolean,
        Some("false"),
    )
    .no_effect()
    .doc("KRaft: whether eligible leader replicas are tracked."),
    Setting::new(
        "group.coordinator.rebalance.protocols",
        Kind::List,
        Some("classic"),
    )
    .check(Check::EachOf(&["consumer", "classic", "share", "unknown"]))
    .not_yet()
    .doc("Group protocols that are offered; in ZooKeeper mode there is only classic."),
    Setting::new("group.coordinator.threads", Kind::Int, Some("1"))
        .check(Check::AtLeast(1))
        .no_effect()
        .doc("Threads of KRaft's group coordinator."),
    Setting::new("group.coordinator.append.linger.ms", Kind::Int, Some("10"))
        .check(Check::AtLeast(0))
        .no_effect()
        .doc("How long KRaft's group coordinator collects writes."),
    Setting::new("group.coordinator.new.enable", Kind::Boolean, Some("false"))
        .no_effect()
        .internal()
        .doc("Whether KRaft's group coordinator is used."),
    Setting::new(
        "group.consumer.session.timeout.ms",
        Kind::Int,
        Some("45000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Session timeout of the new consumer protocol, which needs KRaft."),
    Setting::new(
        "group.consumer.min.session.timeout.ms",
        Kind::Int,
        Some("45000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Shortest session timeout of the new consumer protocol, which needs KRaft."),
    Setting::new(
        "group.consumer.max.session.timeout.ms",
        Kind::Int,
        Some("60000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Longest session timeout of the new consumer protocol, which needs KRaft."),
    Setting::new(
        "group.consumer.heartbeat.interval.ms",
        Kind::Int,
        Some("5000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Heartbeat interval of the new consumer protocol, which needs KRaft."),
    Setting::new(
        "group.consumer.min.heartbeat.interval.ms",
        Kind::Int,
        Some("5000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Shortest heartbeat interval of the new consumer protocol, which needs KRaft."),
    Setting::new(
        "group.consumer.max.heartbeat.interval.ms",
        Kind::Int,
        Some("15000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Longest heartbeat interval of the new consumer protocol, which needs KRaft."),
    Setting::new("group.consumer.max.size", Kind::Int, Some("2147483647"))
        .check(Check::AtLeast(1))
        .no_effect()
        .doc("Most members of a group of the new consumer protocol, which needs KRaft."),
    Setting::new(
        "group.consumer.assignors",
        Kind::List,
        Some(
            "org.apache.kafka.coordinator.group.assignor.UniformAssignor,\
             org.apache.kafka.coordinator.group.assignor.RangeAssignor",
        ),
    )
    .no_effect()
    .doc("Assignors of the new consumer protocol, which needs KRaft."),
    Setting::new(
        "group.consumer.migration.policy",
        Kind::String,
        Some("disabled"),
    )
    .check(Check::OneOfIgnoringCase(&[
        "DISABLED",
        "DOWNGRADE",
        "UPGRADE",
        "BIDIRECTIONAL",
    ]))
    .no_effect()
    .internal()
    .doc(
        "How groups move between the classic and the new consumer protocol, which needs \
             KRaft.",
    ),
    Setting::new("group.share.session.timeout.ms", Kind::Int, Some("45000"))
        .check(Check::AtLeast(1))
        .no_effect()
        .doc("Session timeout of share groups, which need KRaft."),
    Setting::new(
        "group.share.min.session.timeout.ms",
        Kind::Int,
        Some("45000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Shortest session timeout of share groups, which need KRaft."),
    Setting::new(
        "group.share.max.session.timeout.ms",
        Kind::Int,
        Some("60000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Longest session timeout of share groups, which need KRaft."),
    Setting::new("group.share.heartbeat.interval.ms", Kind::Int, Some("5000"))
        .check(Check::AtLeast(1))
        .no_effect()
        .doc("Heartbeat interval of share groups, which need KRaft."),
    Setting::new(
        "group.share.min.heartbeat.interval.ms",
        Kind::Int,
        Some("5000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Shortest heartbeat interval of share groups, which need KRaft."),
    Setting::new(
        "group.share.max.heartbeat.interval.ms",
        Kind::Int,
        Some("15000"),
    )
    .check(Check::AtLeast(1))
    .no_effect()
    .doc("Longest heartbeat interval of share groups, which need KRaft."),
    Setting::new("group.share.max.size", Kind::Short, Some("200"))
        .check(Check::Between(10, 1000))
        .no_effect()
        .doc("Most members of a share group, which needs KRaft."),
    Setting::new("group.share.enable", Kind::Boolean, Some("false"))
        .no_effect()
        .internal()
        .doc("Whether share groups, which need KRaft, are offered."),
    Setting::new("group.share.delivery.count.limit", Kind::Int, Some("5"))
        .check(Check::Between(2, 10))
        .no_effect()
        .doc("How often a share group, which needs KRaft, delivers a record."),
    Setting::new(
        "group.share.record.lock.duration.ms",
        Kind::Int,
        Some("30000"),
    )
    .check(Check::Between(1000, 60_000))
    .no_effect()
    .doc("How long a share group, which needs KRaft, locks a record."),
    Setting::new(
        "group.share.min.record.lock.duration.ms",
        Kind::Int,
        Some("15000"),
    )
    .check(Check::Between(1000, 30_000))
    .no_effect()
    .doc("Shortest record lock of share groups, which need KRaft."),
    Setting::new(
        "group.share.max.record.lock.duration.ms",
        Kind::Int,
        Some("60000"),
    )
    .check(Check::Between(30_000, 3_600_000))
    .no_effect()
    .doc("Longest record lock of share groups, which need KRaft."),
    Setting::new("group.share.max.groups", Kind::Short, Some("10"))
        .check(Check::Between(1, 100))
        .no_effect()
        .doc("Most share groups, which need KRaft."),
    Setting::new(
        "group.share.partition.max.record.locks",
        Kind::Int,
        Some("200"),
    )
    .check(Check::Between(100, 10_000))
    .no_effect()
    .doc("Most locked records of a share partition, which needs KRaft."),
    Setting::new("controller.quorum.voters", Kind::List, Some(""))
        .no_effect()
        .doc("KRaft: voters of the metadata quorum."),
    Setting::new("controller.quorum.bootstrap.servers", Kind::List, Some(""))
        .no_effect()
        .doc("KRaft: where to ask for the metadata quorum."),
    Setting::new(
        "controller.quorum.election.timeout.ms",
        Kind::Int,
        Some("1000"),
    )
    .no_effect()
    .doc("KRaft: how long an election may take."),
    Setting::new(
        "controller.quorum.fetch.timeout.ms",
        Kind::Int,
        Some("2000"),
    )
    .no_effect()
    .doc("KRaft: how long a voter waits for its leader."),
    Setting::new(
        "controller.quorum.election.backoff.max.ms",
        Kind::Int,
        Some("1000"),
    )
    .no_effect()
    .doc("KRaft: longest pause before a new election."),
    Setting::new("controller.quorum.append.linger.ms", Kind::Int, Some("25"))
        .no_effect()
        .doc("KRaft: how long the leader collects writes."),
    Setting::new(
        "controller.quorum.request.timeout.ms",
        Kind::Int,
        Some("2000"),
    )
    .no_effect()
    .doc("KRaft: how long a request in the quorum may take."),
    Setting::new("controller.quorum.retry.backoff.ms", Kind::Int, Some("20"))
        .no_effect()
        .doc("KRaft: pause before a request in the quorum is sent again."),
];
