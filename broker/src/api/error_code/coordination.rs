//! Codes of what coordinators of groups and transactions refuse.

use barnabas_core::group::GroupError;
use barnabas_core::transaction::TransactionError;

use super::{ResponseError, TRANSACTION_ABORTABLE, ToErrorCode, name_of};
use crate::api::coordinators::FindCoordinatorError;
use crate::api::group_offsets::OffsetError;
use crate::api::transactions::{AddPartitionError, InitProducerError};
use crate::api::txn_offsets::TxnOffsetError;
use crate::api::verification::AdmissionError;
use crate::coordinator::markers::MarkerError;
use crate::coordinator::verification::VerificationError;
use crate::producer_ids::ProducerIdError;

/// What old clients are told of a partition that their transaction does not have.
const NOT_ADDED: &str = "Partition was not added to the transaction";

/// The code for a producer: those that do not know `PRODUCER_FENCED` yet are told that their epoch is not valid.
pub fn code_for_producer(error: &impl ToErrorCode, knows_fenced: bool) -> i16 {
    match error.to_response_error() {
        ResponseError::ProducerFenced if !knows_fenced => ResponseError::InvalidProducerEpoch,
        error => error,
    }
    .code()
}

/// The code for clients that give up over a coordinator that is still loading, and try another one again.
pub fn code_without_loading(error: &impl ToErrorCode) -> i16 {
    match error.to_response_error() {
        ResponseError::CoordinatorLoadInProgress => ResponseError::CoordinatorNotAvailable,
        error => error,
    }
    .code()
}

impl ToErrorCode for FindCoordinatorError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NotAvailable => ResponseError::CoordinatorNotAvailable,
            Self::UnknownType => ResponseError::InvalidRequest,
        }
    }
}

impl ToErrorCode for GroupError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::InvalidGroupId => ResponseError::InvalidGroupId,
            Self::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
            Self::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
            Self::NotCoordinator => ResponseError::NotCoordinator,
            Self::UnknownMemberId => ResponseError::UnknownMemberId,
            Self::FencedInstanceId => ResponseError::FencedInstanceId,
            Self::IllegalGeneration => ResponseError::IllegalGeneration,
            Self::RebalanceInProgress => ResponseError::RebalanceInProgress,
            Self::InconsistentGroupProtocol => ResponseError::InconsistentGroupProtocol,
            Self::MemberIdRequired => ResponseError::MemberIdRequired,
            Self::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
            Self::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
            Self::NonEmptyGroup => ResponseError::NonEmptyGroup,
            Self::GroupIdNotFound => ResponseError::GroupIdNotFound,
            Self::GroupSubscribedToTopic => ResponseError::GroupSubscribedToTopic,
            Self::UnstableOffsetCommit => ResponseError::UnstableOffsetCommit,
            Self::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
            Self::InvalidCommitOffsetSize => ResponseError::InvalidCommitOffsetSize,
            Self::RequestTimedOut => ResponseError::RequestTimedOut,
            Self::InvalidProducerEpoch => ResponseError::InvalidProducerEpoch,
            Self::InvalidTxnState => ResponseError::InvalidTxnState,
            Self::UnknownServerError => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for TransactionError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::InvalidRequest => ResponseError::InvalidRequest,
            Self::InvalidTimeout => ResponseError::InvalidTransactionTimeout,
            Self::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
            Self::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
            Self::NotCoordinator => ResponseError::NotCoordinator,
            Self::InvalidProducerIdMapping => ResponseError::InvalidProducerIdMapping,
            Self::ProducerFenced => ResponseError::ProducerFenced,
            Self::ConcurrentTransactions => ResponseError::ConcurrentTransactions,
            Self::InvalidState => ResponseError::InvalidTxnState,
            Self::NotInTransaction => TRANSACTION_ABORTABLE,
            Self::NotFound => ResponseError::TransactionalIdNotFound,
            Self::UnknownServerError => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for ProducerIdError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            // What Kafka answers while it waits for a block; producers try again.
            Self::NotAvailable(_) => ResponseError::CoordinatorLoadInProgress,
        }
    }
}

impl ToErrorCode for MarkerError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Partition(error) => error.to_response_error(),
            Self::InvalidProducerEpoch => ResponseError::InvalidProducerEpoch,
            Self::CoordinatorFenced => ResponseError::TransactionCoordinatorFenced,
            Self::UnsupportedForMessageFormat => ResponseError::UnsupportedForMessageFormat,
            Self::Unexpected => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for InitProducerError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::HalfAnIdentity => ResponseError::InvalidRequest,
            Self::ProducerId(error) => error.to_response_error(),
            Self::Transaction(error) => error.to_response_error(),
        }
    }
}

impl ToErrorCode for AddPartitionError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Internal => ResponseError::TopicAuthorizationFailed,
            Self::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            Self::NotAttempted => ResponseError::OperationNotAttempted,
            Self::Transaction(error) => error.to_response_error(),
        }
    }
}

impl ToErrorCode for OffsetError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            Self::MetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
            Self::NoPath | Self::ZooKeeper => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for TxnOffsetError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            Self::Group(error) => error.to_response_error(),
            Self::NotAdmitted(error) => error.for_offsets(),
            Self::Unexpected => ResponseError::UnknownServerError,
        }
    }
}

impl AdmissionError {
    /// The error as the coordinator gave it, in the terms of the client's version.
    fn underlying(self) -> ResponseError {
        match self {
            Self::Partition(error) => error.to_response_error(),
            Self::Refused {
                error,
                knows_abortable,
            } => match error {
                VerificationError::Network => ResponseError::NetworkException,
                VerificationError::UnknownTopicOrPartition => {
                    ResponseError::UnknownTopicOrPartition
                }
                // Producers know this one as the sign that they are fenced.
                VerificationError::Transaction(TransactionError::ProducerFenced) => {
                    ResponseError::InvalidProducerEpoch
                }
                VerificationError::Transaction(TransactionError::NotInTransaction) => {
                    if knows_abortable {
                        TRANSACTION_ABORTABLE
                    } else {
                        ResponseError::InvalidTxnState
                    }
                }
                VerificationError::Transaction(error) => error.to_response_error(),
            },
        }
    }

    /// The error of a produce request, and the text beside it: what can be tried again becomes
    /// `NOT_ENOUGH_REPLICAS`, which old clients try again without looking for other leaders.
    pub(in crate::api) fn for_produce(self) -> (ResponseError, Option<String>) {
        let Self::Refused { .. } = self else {
            return (self.underlying(), None);
        };
        match self.underlying() {
            error @ ResponseError::InvalidTxnState => (error, Some(NOT_ADDED.to_owned())),
            error @ (ResponseError::ConcurrentTransactions
            | ResponseError::NetworkException
            | ResponseError::CoordinatorLoadInProgress
            | ResponseError::CoordinatorNotAvailable
            | ResponseError::NotCoordinator) => {
                let message = format!(
                    "Unable to verify the partition has been added to the transaction. Underlying error: {}",
                    name_of(error.code())
                );
                (ResponseError::NotEnoughReplicas, Some(message))
            }
            error => (error, None),
        }
    }

    /// The error of a transactional offset commit (`GroupMetadataManager.maybeConvertOffsetCommitError`).
    pub(in crate::api) fn for_offsets(self) -> ResponseError {
        match self.underlying() {
            ResponseError::NetworkException => ResponseError::CoordinatorLoadInProgress,
            ResponseError::UnknownTopicOrPartition
            | ResponseError::NotEnoughReplicas
            | ResponseError::NotEnoughReplicasAfterAppend => ResponseError::CoordinatorNotAvailable,
            ResponseError::NotLeaderOrFollower | ResponseError::KafkaStorageError => {
                ResponseError::NotCoordinator
            }
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(error: impl Into<VerificationError>, knows_abortable: bool) -> (i16, i16) {
        let error = AdmissionError::Refused {
            error: error.into(),
            knows_abortable,
        };
        (error.for_produce().0.code(), error.for_offsets().code())
    }

    /// As `ReplicaManager.handleProduceAppend` and `GroupMetadataManager` of 3.9 have it.
    #[test]
    fn clients_are_told_what_their_version_can_act_on() {
        use TransactionError as E;
        assert_eq!(codes(E::NotInTransaction, true), (120, 120));
        assert_eq!(codes(E::NotInTransaction, false), (48, 48));
        assert_eq!(codes(E::ProducerFenced, true), (47, 47));
        assert_eq!(codes(E::InvalidProducerIdMapping, false), (49, 49));
        assert_eq!(codes(E::ConcurrentTransactions, true), (19, 51));
        assert_eq!(codes(E::CoordinatorLoadInProgress, true), (19, 14));
        assert_eq!(codes(E::CoordinatorNotAvailable, true), (19, 15));
        assert_eq!(codes(E::NotCoordinator, true), (19, 16));
        assert_eq!(codes(VerificationError::Network, true), (19, 14));
        assert_eq!(
            codes(VerificationError::UnknownTopicOrPartition, true),
            (3, 15)
        );
    }
}
