//! What becomes of writes that fail.

use barnabas_core::group::GroupError;
use barnabas_core::partition::producers::ProducerError;

use crate::coordinator::appending::WriteError;
use crate::log::AppendError;
use crate::replica::PartitionError;

/// What was to be written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ForWhat {
    Group,
    Offsets,
}

/// What members are told of a write that failed (`GroupMetadataManager`).
pub(super) fn group_error(error: &WriteError, what: ForWhat) -> GroupError {
    match error {
        WriteError::Partition(
            PartitionError::UnknownTopicOrPartition
            | PartitionError::NotEnoughReplicas
            | PartitionError::NotEnoughReplicasAfterAppend,
        ) => GroupError::CoordinatorNotAvailable,
        WriteError::Partition(
            PartitionError::NotLeaderOrFollower | PartitionError::StorageError,
        )
        | WriteError::Append(AppendError::Storage(_)) => GroupError::NotCoordinator,
        WriteError::Append(AppendError::Producer(ProducerError::InvalidProducerEpoch {
            ..
        })) => GroupError::InvalidProducerEpoch,
        WriteError::Append(AppendError::Producer(ProducerError::InvalidTxnState { .. })) => {
            GroupError::InvalidTxnState
        }
        WriteError::Partition(PartitionError::RequestTimedOut) => match what {
            ForWhat::Group => GroupError::RebalanceInProgress,
            ForWhat::Offsets => GroupError::RequestTimedOut,
        },
        WriteError::TooLarge { .. }
        | WriteError::Append(AppendError::RecordListTooLarge { .. }) => match what {
            ForWhat::Group => GroupError::UnknownServerError,
            ForWhat::Offsets => GroupError::InvalidCommitOffsetSize,
        },
        WriteError::Partition(
            PartitionError::UnknownTopicId
            | PartitionError::FencedLeaderEpoch
            | PartitionError::UnknownLeaderEpoch
            | PartitionError::InconsistentTopicId
            | PartitionError::OffsetOutOfRange,
        )
        | WriteError::Append(
            AppendError::Producer(
                ProducerError::OutOfOrderSequence { .. }
                | ProducerError::TransactionCoordinatorFenced { .. },
            )
            | AppendError::UnexpectedOffset { .. }
            | AppendError::OffsetsNotAscending
            | AppendError::Corrupt { .. },
        )
        | WriteError::Field(_) => GroupError::UnknownServerError,
    }
}
