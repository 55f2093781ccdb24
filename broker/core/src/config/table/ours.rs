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
