//! One consumer group on the broker that coordinates it (the classic protocol of Kafka 3.9).
//!
//! A [`Group`] is told of requests, of the time and of records that are in the log. What it wants done comes back
//! as [`Effect`]s. Members, deadlines and waiting requests are soft: they are gone when another broker takes over.
//! What lasts (a generation with its assignments, committed offsets) changes only when a record is replayed, the
//! same way while a log is loaded and after an append.
//!
//! | module | what it owns |
//! |---|---|
//! | [`classic`] | joining, dividing the work, staying alive (`GroupCoordinator`, `GroupMetadata`) |
//! | [`members`] | who belongs to a group and which protocols all of them have |
//! | [`offsets`] | committed offsets, those of open transactions, expiry |
//! | [`records`] | keys and values in `__consumer_offsets` |

pub mod classic;
mod members;
pub mod offsets;
pub mod records;
mod subscription;
#[cfg(test)]
mod tests;

pub use classic::{
    Description, Effect, Group, GroupRules, Join, JoinFailure, Joined, JoinedMember, Leaver,
    MemberDescription, MemberRef, Purpose, State, Sync, Synced, Ticket,
};
pub use offsets::{CommittedOffset, Offsets};

/// Why a group does not do what it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("the group id is not valid")]
    InvalidGroupId,
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    #[error("the coordinator is loading the group")]
    CoordinatorLoadInProgress,
    #[error("another broker coordinates the group")]
    NotCoordinator,
    #[error("the group has no such member")]
    UnknownMemberId,
    #[error("another member has taken over the instance id")]
    FencedInstanceId,
    #[error("the generation is not the current one")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the member has no protocol in common with the group")]
    InconsistentGroupProtocol,
    #[error("the member must join again with the id that it was given")]
    MemberIdRequired,
    #[error("the group has as many members as it may have")]
    GroupMaxSizeReached,
    #[error("the session timeout is outside the limits")]
    InvalidSessionTimeout,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("there is no such group")]
    GroupIdNotFound,
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    #[error("an open transaction may change the offset")]
    UnstableOffsetCommit,
    #[error("the metadata of the offset is too long")]
    OffsetMetadataTooLarge,
    #[error("the offsets do not fit into a batch")]
    InvalidCommitOffsetSize,
    #[error("the replicas did not confirm in time")]
    RequestTimedOut,
    #[error("a newer instance of the producer has written already")]
    InvalidProducerEpoch,
    #[error("the group does not belong to an open transaction of the producer")]
    InvalidTxnState,
    #[error("the record cannot be written")]
    UnknownServerError,
}
