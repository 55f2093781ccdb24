//! What the controller wants done.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::alter_partition::{AlterPartitionError, AlteredPartition};
use super::event::Ticket;
use super::leader_election::ElectLeaderError;
use super::notice::Notice;
use super::reassignment::ReassignmentError;
use crate::control::{ControlRequest, LiveBroker};
use crate::ids::{BrokerEpoch, BrokerId, TopicPartition};
use crate::znodes::PartitionAssignment;

/// Something to do. Effects are carried out in order. At most one read or write is under way at any time: the next
/// comes only after its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Pipelined reads; answered by [`ReadCompleted`](super::Event::ReadCompleted).
    Read(Vec<Read>),
    /// Writes that may happen only while `/controller_epoch` has this data version. Each is a write of its own:
    /// one may fail and others not; in this order, pipelined.
    /// Answered by [`WriteCompleted`](super::Event::WriteCompleted).
    WriteFenced {
        epoch_version: i32,
        writes: Vec<Write>,
    },
    /// Writes without a fence. Answered by [`WriteCompleted`](super::Event::WriteCompleted).
    Write(Vec<Write>),
    /// Writes of which all or none happen. Answered by [`WriteCompleted`](super::Event::WriteCompleted).
    WriteTogether(Vec<Write>),
    /// Begin to send to a broker (in this registration of it), at its listener for the controller.
    OpenChannel {
        broker: LiveBroker,
        broker_epoch: BrokerEpoch,
    },
    /// A broker changed its endpoints under the same registration.
    MoveChannel { broker: LiveBroker },
    /// Stop sending to a broker, and forget what was not sent yet.
    CloseChannel { broker: BrokerId },
    /// Put into the broker's queue, which keeps its order.
    Send {
        to: BrokerId,
        request: ControlRequest,
    },
    /// Fire once.
    StartTimer { timer: Timer, after: Duration },
    /// None fires any more.
    StopTimers,
    /// The answer to a request.
    Answer { ticket: Ticket, answer: Answer },
    /// Worth a line in the log.
    Report(Notice),
}

/// One read. The watch, if asked for, fires once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    Data {
        path: String,
        watch: bool,
    },
    /// A watch here waits for the node's creation too.
    Exists {
        path: String,
        watch: bool,
    },
    Children {
        path: String,
        watch: bool,
    },
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A persistent node; `None` is null data.
    Create {
        path: String,
        data: Option<Vec<u8>>,
    },
    /// A node that goes with the session.
    CreateEphemeral {
        path: String,
        data: Vec<u8>,
    },
    Set {
        path: String,
        data: Vec<u8>,
        /// `None` for any.
        version: Option<i32>,
    },
    Delete {
        path: String,
    },
}

/// What the controller does by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Look whether leaders should move back to their preferred replicas.
    AutoRebalance,
}

/// The answer to a [`Request`](super::Request).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    AlterPartition(Result<Vec<AlteredPartition>, AlterPartitionError>),
    /// The partitions that the broker still leads.
    ControlledShutdown(Result<Vec<TopicPartition>, ControlledShutdownError>),
    AllocateProducerIds(Result<RangeInclusive<i64>, AllocateProducerIdsError>),
    /// The leader of each partition that got one, or why not.
    ElectLeaders(
        Result<BTreeMap<TopicPartition, Result<BrokerId, ElectLeaderError>>, ControllerError>,
    ),
    /// Whether each reassignment began (or ended at once).
    AlterReassignments(
        Result<BTreeMap<TopicPartition, Result<(), ReassignmentError>>, ControllerError>,
    ),
    /// What is under way.
    ListReassignments(Result<BTreeMap<TopicPartition, PartitionAssignment>, ControllerError>),
}

/// Why an administrator's request as a whole was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    #[error("this broker is not the controller")]
    NotController,
    #[error("the controller had to give up what it was doing")]
    Failed,
}

/// Why a controlled shutdown was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlledShutdownError {
    /// Not `NOT_CONTROLLER`: Kafka answers `STALE_CONTROLLER_EPOCH` here.
    #[error("this broker is not the controller")]
    NotController,
    #[error("the broker epoch is of an earlier registration")]
    StaleBrokerEpoch,
    #[error("the broker is not registered")]
    BrokerNotAvailable,
    #[error("the leaderships could not be moved")]
    Failed,
}

/// Why a broker got no producer ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateProducerIdsError {
    #[error("this broker is not the controller")]
    NotController,
    #[error("the broker is not registered")]
    BrokerNotRegistered,
    #[error("the broker epoch is not that of the registration")]
    StaleBrokerEpoch,
    #[error("the block of producer ids could not be written")]
    Failed,
    #[error("all producer ids are used up")]
    Exhausted,
}
