//! What the controller is told.

use std::collections::BTreeSet;
use std::time::Duration;

use super::alter_partition::AlterPartition;
use super::effect::Timer;
use super::leader_election::ElectionType;
use super::reassignment::WantedReplicas;
use crate::control::{ControlError, ControlOutcome};
use crate::ids::{BrokerEpoch, BrokerId, ControllerEpoch, TopicName, TopicPartition};

/// Something that happened. Events are handled one after the other; those that come while one is under way wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The broker is registered for the first time in this process.
    Started,
    /// A watch fired, and is gone.
    NodeChanged {
        path: String,
        change: NodeChange,
    },
    /// Everything that waited is void, and this broker is no longer controller.
    SessionExpired,
    /// A new session began, and the broker is registered in it (or could not be).
    SessionEstablished,
    /// The answer to the last [`Read`](super::Effect::Read); one result a read.
    ReadCompleted(Result<Vec<Found>, ZooKeeperFailure>),
    /// The answer to the last write of any kind; one result a write.
    WriteCompleted(Result<Vec<WriteResult>, WriteFailure>),
    /// A broker answered a `LeaderAndIsr` that was sent in `controller_epoch`.
    LeaderAndIsrAnswered {
        broker: BrokerId,
        controller_epoch: ControllerEpoch,
        outcome: ControlOutcome,
    },
    /// A broker answered a `StopReplica` of `controller_epoch` that told it to delete these replicas.
    ReplicasDeleted {
        broker: BrokerId,
        controller_epoch: ControllerEpoch,
        results: Vec<(TopicPartition, Result<(), ControlError>)>,
    },
    TimerFired(Timer),
    /// Somebody asks for something; answered by [`Answer`](super::Effect::Answer).
    Requested {
        ticket: Ticket,
        request: Request,
    },
    /// `unclean.leader.election.enable` became true for a topic, or (without one) for all that do not say otherwise.
    UncleanElectionEnabled {
        topic: Option<TopicName>,
    },
    /// The broker's settings changed.
    SettingsChanged(Settings),
    /// The broker stops: everything that waited is void, and this broker is no longer controller.
    Stopped,
}

/// What happened to a watched node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeChange {
    Created,
    DataChanged,
    Deleted,
    ChildrenChanged,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Of [`Read::Data`](super::Read::Data); `None` if there is no such node. Null data is empty.
    Data(Option<NodeData>),
    /// Of [`Read::Exists`](super::Read::Exists).
    Exists(bool),
    /// Of [`Read::Children`](super::Read::Children); none if there is no such node.
    Children(Vec<String>),
}

/// The data of a node and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeData {
    pub data: Vec<u8>,
    /// Data version.
    pub version: i32,
    /// Transaction that created it; a registration's broker epoch.
    pub czxid: i64,
}

/// What became of one write: the data version after it (0 for creates and deletes), or why not.
pub type WriteResult = Result<i32, WriteError>;

/// Why a single write did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("the znode does not exist")]
    NoNode,
    #[error("the znode exists already")]
    NodeExists,
    #[error("the znode has another version than expected")]
    BadVersion,
    #[error("{0}")]
    Other(String),
}

/// Why a batch of writes failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteFailure {
    /// `/controller_epoch` has changed: somebody else is controller.
    #[error("another broker has become controller")]
    ControllerMoved,
    #[error(transparent)]
    ZooKeeper(ZooKeeperFailure),
}

/// ZooKeeper could not be asked, in the words of its client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ZooKeeperFailure(pub String);

/// Ties an answer to its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What brokers and administrators ask of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A leader wants another ISR (key 56).
    AlterPartition(AlterPartition),
    /// A broker wants to give its leaderships away before it stops (key 7).
    ControlledShutdown {
        broker: BrokerId,
        /// -1 skips the check.
        broker_epoch: BrokerEpoch,
    },
    /// A broker needs producer ids (key 67).
    AllocateProducerIds {
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
    },
    /// An administrator wants other leaders (key 43).
    ElectLeaders {
        kind: ElectionType,
        partitions: BTreeSet<TopicPartition>,
    },
    /// An administrator wants other replicas (key 45).
    AlterReassignments(WantedReplicas),
    /// What is being reassigned (key 46), of all partitions or of these.
    ListReassignments(Option<BTreeSet<TopicPartition>>),
}

/// What the controller needs to know of the broker's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `broker.id`
    pub broker_id: BrokerId,
    /// `inter.broker.listener.name`, or the listener that stands for it; upper case.
    pub inter_broker_listener: String,
    /// `control.plane.listener.name`, or else the inter-broker listener: where the controller reaches brokers.
    pub control_listener: String,
    /// `delete.topic.enable`
    pub delete_topic_enable: bool,
    /// `unclean.leader.election.enable` of the broker, for topics that do not say.
    pub unclean_leader_election_enable: bool,
    /// `auto.leader.rebalance.enable`
    pub auto_leader_rebalance_enable: bool,
    /// `leader.imbalance.check.interval.seconds`
    pub leader_imbalance_check_interval: Duration,
    /// `leader.imbalance.per.broker.percentage`
    pub leader_imbalance_per_broker_percentage: i32,
}
