//! The controller: decides who leads each partition and tells the brokers.

pub mod alter_partition;
mod cluster;
mod effect;
pub mod election;
mod event;
mod notice;

pub use alter_partition::{
    AlterPartition, AlterPartitionError, AlteredPartition, IsrProposal, IsrRefusal,
    ProposedPartition,
};
pub use cluster::{PartitionState, ReplicaState};
pub use effect::{
    AllocateProducerIdsError, Answer, ControlledShutdownError, Effect, Read, Timer, Write,
};
pub use event::{
    Event, Found, NodeChange, NodeData, Request, Settings, Ticket, WriteError, WriteFailure,
    WriteResult, ZooKeeperFailure,
};
pub use notice::Notice;
