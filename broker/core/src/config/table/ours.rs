//! Settings that Kafka does not have.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        "barnabas.admin.listener",
        Kind::String,
        Some("127.0.0.1:9404"),
    )
    .doc(
        "Address of the HTTP port for metrics and health, host:port; an empty text switches it off. If \
         the default is taken by another process the broker starts without it.",
    ),
    Setting::new(
        "barnabas.fast.failover.enable",
        Kind::Boolean,
        Some("true"),
    )
    .doc(
        "Whether a broker whose process died is removed from the cluster at once instead of after its ZooKeeper \
         session. A broker with false does not remove others and is not removed by them. Peers that are Apache Kafka \
         keep to the session in any case.",
    ),
    Setting::new(
        "barnabas.fast.failover.probe.interval.ms",
        Kind::Int,
        Some("60"),
    )
    .check(Check::AtLeast(1))
    .doc("Time between two attempts to connect to a broker that seems to be dead."),
    Setting::new(
        "barnabas.fast.failover.probe.timeout.ms",
        Kind::Int,
        Some("300"),
    )
    .check(Check::AtLeast(1))
    .doc(
        "How long such an attempt may take. One that is neither refused nor accepted by then says that the machine \
         is silent, which is left to the ZooKeeper session.",
    ),
    Setting::new("barnabas.fast.failover.probes", Kind::Int, Some("3"))
        .check(Check::AtLeast(1))
        .doc("Attempts to connect that must all be refused before a broker counts as dead."),
    Setting::new(
        "barnabas.max.partitions.per.request",
        Kind::Int,
        Some("10000"),
    )
    .check(Check::AtLeast(1))
    .doc(
        "Partitions that one CreateTopics or CreatePartitions request may create; more are refused with \
         POLICY_VIOLATION before anything is made. The default is the limit of Kafka in KRaft mode.",
    ),
];
