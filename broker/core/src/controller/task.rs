//! What the controller is in the middle of: steps still to take, and the step that an answer is awaited for.
//!
//! Handling an event is a stack of [`Task`]s. A task changes what the controller knows, puts further tasks on the
//! stack, or asks ZooKeeper; then the [`Then`] says how to go on with the answer, and nothing else runs before it
//! came. So a procedure with many reads and writes is a sequence, as in Kafka, though nothing ever waits.

use std::collections::{BTreeMap, BTreeSet};

use super::ElectionType;
use super::alter_partition::{AlterPartition, AlteredPartition};
use super::cluster::{PartitionState, RegisteredBroker, Replica, ReplicaState};
use super::election::Election;
use super::event::{Found, WriteFailure, WriteResult, ZooKeeperFailure};
use super::reassignment::{Done, IfIncomplete, WantedReplicas};
use super::request_batch::RequestBatch;
use crate::control::Leadership;
use crate::ids::{BrokerId, ControllerEpoch, TopicName, TopicPartition};
use crate::znodes::{PartitionAssignment, ProducerIdBlock, TopicAssignment};

/// Where partitions are to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartitionTarget {
    New,
    /// With a leader by this rule, if they had one before.
    Online(Election),
    Offline,
    NonExistent,
}

impl PartitionTarget {
    pub(super) fn state(self) -> PartitionState {
        match self {
            Self::New => PartitionState::New,
            Self::Online(_) => PartitionState::Online,
            Self::Offline => PartitionState::Offline,
            Self::NonExistent => PartitionState::NonExistent,
        }
    }
}

/// Whether who finds the seat of the controller empty takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfVacant {
    Elect,
    Leave,
}

/// A step to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// See who is controller, with a watch; resign if it is no longer this broker.
    LookAtSeat(IfVacant),
    /// Take the seat, if `/controller_epoch` can be raised.
    Elect,
    /// Leave the seat to others.
    LeaveSeat {
        epoch_version: i32,
    },
    SetUpFeature,
    DiscardNotifications,
    ReadCluster,
    ReadLeaderships,
    ReadDeletions,
    StartReplicas,
    StartPartitions,
    FailoverDone,
    /// Send what the state change gave rise to.
    SendBatch,
    /// To all registered brokers, or to these.
    SendMetadata {
        to: Option<Vec<BrokerId>>,
        partitions: Vec<TopicPartition>,
    },
    /// Everything that has a leader, to brokers that know nothing.
    SendAllMetadata {
        to: Vec<BrokerId>,
    },
    MovePartitions {
        partitions: Vec<TopicPartition>,
        target: PartitionTarget,
    },
    InitializePartitions(Vec<TopicPartition>),
    ElectLeaders {
        partitions: Vec<TopicPartition>,
        election: Election,
    },
    /// Try to find leaders for all partitions that have none.
    BringPartitionsOnline,
    MoveReplicas {
        replicas: Vec<Replica>,
        target: ReplicaState,
    },
    /// The part of [`Task::MoveReplicas`] that is about one broker.
    MoveReplicasOf {
        broker: BrokerId,
        partitions: Vec<TopicPartition>,
        target: ReplicaState,
    },
    RemoveFromIsr {
        broker: BrokerId,
        partitions: Vec<TopicPartition>,
    },
    /// Send what was gathered earlier.
    SendPrepared(Box<RequestBatch>),
    ReadBrokers,
    ReadBroker(BrokerId),
    BrokersStarted(Vec<BrokerId>),
    /// Brokers that were taken for dead are there again.
    RegisterAgain(Vec<RegisteredBroker>),
    BrokersFailed(Vec<BrokerId>),
    ReplicasBecameOffline(Vec<Replica>),
    /// If nothing else told the brokers that some of them are gone, tell them.
    AnnounceUnlessElected,
    ReadTopics,
    AddTopics(BTreeMap<TopicName, TopicAssignment>),
    ReadTopic(TopicName),
    ReadDeletionMarkers,
    ResumeDeletions,
    ResumeDeletionsOf(BTreeSet<TopicName>),
    DeleteTopics(Vec<TopicName>),
    DeletePartitions(Vec<TopicName>),
    HaltDeletions {
        topics: Vec<TopicName>,
        reason: &'static str,
    },
    FailReplicaDeletions(Vec<Replica>),
    CompleteReplicaDeletions(Vec<Replica>),
    CompleteTopicDeletion(TopicName),
    /// Replicas that could not be deleted are tried again.
    RetryDeletions(Vec<TopicName>),
    DeleteTopicNodes(TopicName),
    ReadLogDirEvents,
    ReadIsrChanges,
    DeleteNodes(Vec<String>),
    ReadPreferredElection,
    /// Elect leaders for those partitions that an administrator named and that need it.
    ElectOnDemand {
        partitions: BTreeSet<TopicPartition>,
        kind: ElectionType,
    },
    AnswerElections {
        partitions: Vec<TopicPartition>,
        kind: ElectionType,
    },
    AlterReassignments(WantedReplicas),
    AnswerReassignments,
    ReadReassignments,
    DropFailedReassignments,
    ResumeReassignments,
    ResumeReassignmentsTo(BTreeSet<BrokerId>),
    Reassign {
        topic: TopicName,
        assignments: BTreeMap<i32, PartitionAssignment>,
    },
    NoteReassignment(TopicPartition),
    /// Write these and what else there is in the znode, then go on with the sequel.
    WriteAssignments {
        topic: TopicName,
        assignments: BTreeMap<i32, PartitionAssignment>,
        sequel: Vec<Task>,
    },
    TakeAssignment {
        partition: TopicPartition,
        assignment: PartitionAssignment,
    },
    /// Stop and delete replicas without topic deletion.
    RemoveReplicas {
        partition: TopicPartition,
        replicas: Vec<BrokerId>,
    },
    ContinueReassignments {
        partitions: Vec<TopicPartition>,
        if_incomplete: IfIncomplete,
    },
    RaiseLeaderEpoch {
        partition: TopicPartition,
        sequel: Vec<Task>,
    },
    CompleteReassignment(TopicPartition),
    MoveLeaderIntoTarget {
        partition: TopicPartition,
        sequel: Vec<Task>,
    },
    /// All is done but the topic's znode.
    NoteCompletion(TopicPartition),
    /// Write the assignments of those partitions of a topic of which that was noted.
    WriteCompleted(TopicName),
    ForgetReassignments(Vec<TopicPartition>),
    DropReassignments(Done),
    AlterPartitions(AlterPartition),
    AllocateProducerIds(BrokerId),
    AnswerControlledShutdown(BrokerId),
}

/// How to go on with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    SeatSeen(IfVacant),
    EpochRead,
    EpochCreated,
    SeatTaken {
        epoch: ControllerEpoch,
    },
    /// The write may have been ours, answered over a connection that broke.
    SeatChecked {
        epoch: ControllerEpoch,
    },
    FeatureRead,
    NotificationsListed,
    ClusterListed,
    ClusterRead {
        brokers: Vec<BrokerId>,
        topics: Vec<TopicName>,
    },
    TopicIdsWritten {
        topics: BTreeMap<TopicName, TopicAssignment>,
        sequel: TopicSequel,
    },
    LeadershipsRead(Vec<TopicPartition>),
    DeletionsRead,
    PartitionsInitialized(Vec<(TopicPartition, Leadership)>),
    ElectionStatesRead {
        partitions: Vec<TopicPartition>,
        election: Election,
    },
    UncleanConfigsRead {
        states: Vec<(TopicPartition, Leadership)>,
        topics: Vec<TopicName>,
        election: Election,
    },
    ElectionsWritten {
        elections: Vec<(TopicPartition, Leadership, Vec<BrokerId>)>,
        election: Election,
    },
    IsrStatesRead {
        broker: BrokerId,
        partitions: Vec<TopicPartition>,
    },
    IsrsWritten {
        broker: BrokerId,
        removals: Vec<(TopicPartition, Leadership)>,
    },
    BrokersListed,
    BrokersRead(Vec<BrokerId>),
    BrokerRead(BrokerId),
    TopicsListed,
    TopicsRead(Vec<TopicName>),
    TopicRead(TopicName),
    /// The topic is being deleted, yet got partitions.
    PartitionsListed {
        topic: TopicName,
        assignment: TopicAssignment,
    },
    DeletionMarkersRead,
    /// Nodes below a topic, level by level.
    TopicNodesListed {
        topic: TopicName,
        listed: Vec<String>,
        known: BTreeSet<String>,
    },
    TopicNodesDeleted(TopicName),
    LogDirEventsListed,
    LogDirEventsRead(Vec<String>),
    IsrChangesListed,
    IsrChangesRead(Vec<String>),
    PreferredElectionRead,
    ReassignmentsRead,
    ReassignmentsToDropRead(Done),
    ReassignmentStatesRead {
        partitions: Vec<TopicPartition>,
        if_incomplete: IfIncomplete,
    },
    AssignmentsWritten {
        partitions: Vec<TopicPartition>,
        sequel: Vec<Task>,
    },
    LeaderEpochRead {
        partition: TopicPartition,
        sequel: Vec<Task>,
    },
    LeaderEpochRaised {
        partition: TopicPartition,
        leadership: Leadership,
        sequel: Vec<Task>,
    },
    IsrProposalsWritten {
        answers: Vec<AlteredPartition>,
        writes: Vec<(usize, TopicPartition, Leadership)>,
    },
    ProducerIdsRead(BrokerId),
    ProducerIdsWritten {
        broker: BrokerId,
        block: ProducerIdBlock,
    },
    /// Nothing depends on the single results.
    Ignore,
}

/// What to do with topics once they all have an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopicSequel {
    /// They are what the cluster had before this controller.
    Known,
    /// They have just been created.
    Created,
}

/// An answer of ZooKeeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Completion {
    Read(Result<Vec<Found>, ZooKeeperFailure>),
    Write(Result<Vec<WriteResult>, WriteFailure>),
}
