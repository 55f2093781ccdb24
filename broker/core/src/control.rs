//! What a controller tells a broker: the content of `LeaderAndIsr`, `UpdateMetadata` and `StopReplica`
//! without their wire versions. The controller makes them, a broker's replicas and metadata obey them.

use std::sync::Arc;

use crate::ids::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, TopicId, TopicPartition,
};

/// Leader of a partition that has none.
pub const NO_LEADER: i32 = -1;
/// "Leader" in `UpdateMetadata` of a partition whose topic is being deleted.
pub const LEADER_DURING_DELETE: i32 = -2;
/// Leader epoch in `StopReplica` of a partition whose topic is being deleted.
pub const EPOCH_DURING_DELETE: LeaderEpoch = -2;

/// Who sends a control request and to which incarnation of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlHeader {
    pub controller_id: BrokerId,
    pub controller_epoch: ControllerEpoch,
    /// The receiver's broker epoch as the controller knows it; -1 skips the check.
    pub broker_epoch: BrokerEpoch,
}

/// Who leads a partition and who is in sync, as the state znode says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Epoch of the controller that wrote the state znode last.
    pub controller_epoch: ControllerEpoch,
    /// Broker id, [`NO_LEADER`] or [`LEADER_DURING_DELETE`].
    pub leader: i32,
    pub leader_epoch: LeaderEpoch,
    /// In the order of the znode.
    pub isr: Vec<BrokerId>,
    pub partition_epoch: PartitionEpoch,
    /// True while the leader was elected uncleanly and no ISR change was written since.
    pub is_recovering: bool,
}

/// One partition in a [`LeaderAndIsr`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAndIsrPartition {
    pub topic_partition: TopicPartition,
    pub topic_id: Option<TopicId>,
    pub leadership: Leadership,
    /// The assignment, preferred leader first.
    pub replicas: Vec<BrokerId>,
    pub adding_replicas: Vec<BrokerId>,
    pub removing_replicas: Vec<BrokerId>,
    /// The replica has not existed before: its log may be created in any live directory.
    pub is_new: bool,
}

/// Address of a broker on the listener that brokers use between themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    pub id: BrokerId,
    pub host: String,
    pub port: u16,
}

/// "Lead or follow these partitions" (key 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAndIsr {
    pub header: ControlHeader,
    pub partitions: Vec<LeaderAndIsrPartition>,
    pub live_leaders: Vec<BrokerAddress>,
}

/// One partition in an [`UpdateMetadata`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    pub topic_partition: TopicPartition,
    pub topic_id: Option<TopicId>,
    pub leadership: Leadership,
    pub replicas: Vec<BrokerId>,
    /// Assigned replicas that are not online.
    pub offline_replicas: Vec<BrokerId>,
}

/// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

/// Where a broker can be reached by clients of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Listener name, upper case, as in `listeners`.
    pub listener: String,
    pub security_protocol: SecurityProtocol,
    /// IPv6 addresses without brackets; may be empty.
    pub host: String,
    pub port: u16,
}

/// A live broker as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveBroker {
    pub id: BrokerId,
    pub endpoints: Vec<Endpoint>,
    pub rack: Option<String>,
}

/// "This is the cluster" (key 6): all live brokers, but only the partitions that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateMetadata {
    pub header: ControlHeader,
    /// Shared by the requests to all brokers, which differ only in their header.
    pub partitions: Arc<[PartitionMetadata]>,
    /// Shared likewise.
    pub live_brokers: Arc<[LiveBroker]>,
}

/// One partition in a [`StopReplica`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopReplicaPartition {
    pub topic_partition: TopicPartition,
    /// Cached epoch, -1 if unknown, [`EPOCH_DURING_DELETE`] if the topic is being deleted.
    pub leader_epoch: LeaderEpoch,
    pub delete: bool,
}

/// "Stop these replicas, and delete some of them" (key 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopReplica {
    pub header: ControlHeader,
    pub partitions: Vec<StopReplicaPartition>,
}

/// What a broker makes of a control request, or of one partition in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum ControlError {
    #[error("the controller epoch is older than one already seen")]
    StaleControllerEpoch,
    #[error("the broker epoch is of an earlier registration")]
    StaleBrokerEpoch,
    #[error("the leader epoch is older than the current one")]
    FencedLeaderEpoch,
    #[error("the topic id differs from that of the log")]
    InconsistentTopicId,
    #[error("the replica is in a log directory that failed")]
    StorageError,
    #[error("the partition is not hosted by this broker")]
    UnknownTopicOrPartition,
    /// Anything else that a broker may answer.
    #[error("the broker failed in a way of its own")]
    Unexpected,
}

/// Outcome of [`LeaderAndIsr`] and [`StopReplica`]: one result a partition, or none at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlOutcome {
    pub result: Result<(), ControlError>,
    pub partitions: Vec<(TopicPartition, Result<(), ControlError>)>,
}

/// Everything that the controller sends to a broker, in the order in which it must arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlRequest {
    LeaderAndIsr(LeaderAndIsr),
    UpdateMetadata(UpdateMetadata),
    StopReplica(StopReplica),
}
