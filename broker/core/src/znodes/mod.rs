//! What the cluster keeps in ZooKeeper: one type per znode with its path and its JSON, as Kafka 3.9 has them.
//!
//! This is the only place that knows a ZooKeeper path or a JSON key. Paths are relative to the chroot.
//! Everything is read as Kafka reads it: keys in any order, unknown keys ignored, older versions accepted;
//! and written in the version of `inter.broker.protocol.version` 3.9.

mod admin;
mod cluster;
mod config;
mod json;
mod security;
#[cfg(test)]
mod tests;
mod topic;

pub use admin::{
    DeletionMarker, IsrChange, LogDirEvent, LogDirEventKind, PreferredElection, Reassignment,
};
pub use cluster::{
    BrokerRegistration, BrokerSequence, ClusterId, ControllerEpochZnode, ControllerSeat, Feature,
    FeatureStatus, InvalidEndpoint, Migration, OldConsumerOffset, ProducerIdBlock,
    SupportedFeature,
};
pub use config::{
    ConfigChange, ConfigEntity, DEFAULT_ENTITY, EntityConfig, InvalidConfigEntity, desanitize,
    sanitize,
};
pub use json::MalformedZnode;
pub use security::{
    Acl, AclChange, AclSet, ExtendedAclChange, LiteralAclChange, PatternType, ResourceType,
    ScramCredential, ScramMechanism, TokenChange, TokenInformation,
};
pub use topic::{PartitionAssignment, PartitionState, TopicAssignment};

/// What every broker creates at its start if it is missing, in this order (each with its parents).
pub const BASE_PATHS: [&str; 14] = [
    "/consumers",
    "/brokers/ids",
    "/brokers/topics",
    "/config/changes",
    "/admin/delete_topics",
    "/brokers/seqid",
    "/isr_change_notification",
    "/latest_producer_id_block",
    "/log_dir_event_notification",
    "/config/topics",
    "/config/clients",
    "/config/users",
    "/config/brokers",
    "/config/ips",
];

/// Whether a node may be read only by who created it, even where `zookeeper.set.acl` leaves the rest
/// readable: credentials of users, encrypted passwords of brokers, delegation tokens.
pub fn is_sensitive(path: &str) -> bool {
    [
        "/config/users",
        "/config/brokers",
        "/delegation_token/tokens",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}

/// Whether a node stays open to everybody even under `zookeeper.set.acl`: old consumers write there.
pub fn is_open_to_all(path: &str) -> bool {
    path == "/consumers"
}

/// The number at the end of a sequential node's name (`config_change_0000000012` is 12).
pub fn sequence_number(name: &str, prefix: &str) -> Option<i64> {
    name.strip_prefix(prefix)?.parse().ok()
}
