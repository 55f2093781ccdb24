//! The one place where errors become Kafka's error codes.

use barnabas_core::balance::placement::PlacementError;
use barnabas_core::config::alter::AlterError;
use barnabas_core::control::ControlError;
use barnabas_core::controller::{
    AllocateProducerIdsError, AlterPartitionError, ControlledShutdownError, IsrRefusal,
};
use barnabas_core::controller::{ControllerError, ElectLeaderError, ReassignmentError};
use barnabas_core::group::GroupError;
use barnabas_core::partition::PartitionError;
use barnabas_core::partition::producers::ProducerError;
use barnabas_core::quota::entity::{AlterQuotaError, QuotaFilterError};
use barnabas_core::records::legacy::DownConversionError;
use barnabas_core::records::validate::ProduceRejection;
use barnabas_core::scram::ScramError;
use barnabas_core::transaction::TransactionError;
pub use kafka_protocol::ResponseError;

/// Errors of Kafka 3.9 that the protocol crate does not name.
pub const INELIGIBLE_REPLICA: ResponseError = ResponseError::Unknown(107);
pub const MISMATCHED_ENDPOINT_TYPE: ResponseError = ResponseError::Unknown(114);
pub const UNSUPPORTED_ENDPOINT_TYPE: ResponseError = ResponseError::Unknown(115);
pub const TRANSACTION_ABORTABLE: ResponseError = ResponseError::Unknown(120);
use super::RequestError;
use super::acls::AclError;
use super::alter_configs::AlterConfigsError;
use super::configs::DescribeConfigsError;
use super::coordinators::FindCoordinatorError;
use super::delegation_tokens::TokenError;
use super::log_dirs::MoveError;
use super::offsets::{DeleteRecordsError, ListOffsetsError};
use super::produce::ProduceError;
use super::quotas::{AlterQuotasError, DescribeQuotasError};
use super::sasl::SaslError;
use super::scram::{AlterScramError, DescribeScramError};
use crate::coordinator::markers::MarkerError;
use crate::log::{AppendError, LogError};
use crate::producer_ids::ProducerIdError;
use crate::replica::fetch_session_cache::FetchSessionError;
use crate::topics::TopicError;
use crate::zookeeper::{ConfigWriteError, TopicStoreError};

/// The code of success.
pub const NONE: i16 = 0;

/// The name of a code as Kafka's `Errors` has it: `NOT_LEADER_OR_FOLLOWER`.
pub fn name_of(code: i16) -> String {
    let Some(error) = ResponseError::try_from_code(code) else {
        return "NONE".to_owned();
    };
    match error {
        INELIGIBLE_REPLICA => "INELIGIBLE_REPLICA".to_owned(),
        MISMATCHED_ENDPOINT_TYPE => "MISMATCHED_ENDPOINT_TYPE".to_owned(),
        UNSUPPORTED_ENDPOINT_TYPE => "UNSUPPORTED_ENDPOINT_TYPE".to_owned(),
        TRANSACTION_ABORTABLE => "TRANSACTION_ABORTABLE".to_owned(),
        ResponseError::Unknown(other) => other.to_string(),
        named => {
            let mut name = String::new();
            for letter in named.to_string().chars() {
                if letter.is_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            name
        }
    }
}

/// An error that has a place on the wire. Implemented here, by an exhaustive match per enum.
pub trait ToErrorCode {
    /// The error as Kafka 3.9 would name it.
    fn to_response_error(&self) -> ResponseError;

    /// Its number.
    fn error_code(&self) -> i16 {
        self.to_response_error().code()
    }
}

impl ToErrorCode for ResponseError {
    fn to_response_error(&self) -> ResponseError {
        *self
    }
}

impl ToErrorCode for RequestError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Invalid => ResponseError::InvalidRequest,
            Self::UnsupportedVersion => ResponseError::UnsupportedVersion,
            Self::TimedOut => ResponseError::RequestTimedOut,
            Self::Unexpected => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for FindCoordinatorError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NotAvailable => ResponseError::CoordinatorNotAvailable,
            Self::UnknownType => ResponseError::InvalidRequest,
        }
    }
}

impl ToErrorCode for PartitionError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            Self::UnknownTopicId => ResponseError::UnknownTopicId,
            Self::NotLeaderOrFollower => ResponseError::NotLeaderOrFollower,
            Self::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
            Self::UnknownLeaderEpoch => ResponseError::UnknownLeaderEpoch,
            Self::InconsistentTopicId => ResponseError::InconsistentTopicId,
            Self::StorageError => ResponseError::KafkaStorageError,
            Self::OffsetOutOfRange => ResponseError::OffsetOutOfRange,
            Self::NotEnoughReplicas => ResponseError::NotEnoughReplicas,
            Self::NotEnoughReplicasAfterAppend => ResponseError::NotEnoughReplicasAfterAppend,
            Self::RequestTimedOut => ResponseError::RequestTimedOut,
        }
    }
}

impl ToErrorCode for AclError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NoAuthorizer | Self::NothingToDescribe => ResponseError::SecurityDisabled,
        }
    }
}

impl ToErrorCode for SaslError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::AlreadyAuthenticated => ResponseError::IllegalSaslState,
        }
    }
}

impl ToErrorCode for TokenError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NotAllowed => ResponseError::DelegationTokenRequestNotAllowed,
            Self::OwnerWithoutType => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for DescribeScramError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Repeated(_) => ResponseError::DuplicateResource,
            Self::EmptyName | Self::UnknownUser(_) => ResponseError::ResourceNotFound,
            Self::Read(_) => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for AlterScramError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Refused(error) => match error {
                ScramError::UnknownMechanism => ResponseError::UnsupportedSaslMechanism,
                ScramError::EmptyName
                | ScramError::TooFewIterations
                | ScramError::TooManyIterations => ResponseError::UnacceptableCredential,
                ScramError::Repeated => ResponseError::DuplicateResource,
                ScramError::NothingToDelete => ResponseError::ResourceNotFound,
            },
            Self::NotController => ResponseError::NotController,
            Self::Write(ConfigWriteError::ControllerMoved) => ResponseError::StaleControllerEpoch,
            Self::Read(_) | Self::Write(_) => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for DescribeQuotasError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Filter(QuotaFilterError::UnknownType(_)) => ResponseError::UnsupportedVersion,
            Self::Filter(
                QuotaFilterError::Duplicate(_)
                | QuotaFilterError::EmptyType
                | QuotaFilterError::AddressAndClient,
            ) => ResponseError::InvalidRequest,
            // Kafka does not expect other match types either.
            Self::MatchType(_) | Self::NoName | Self::Read(_) => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for AlterQuotasError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Write(ConfigWriteError::ControllerMoved) => ResponseError::StaleControllerEpoch,
            Self::Alteration(AlterQuotaError::Unexpected(_)) | Self::Read(_) | Self::Write(_) => {
                ResponseError::UnknownServerError
            }
            Self::Alteration(
                AlterQuotaError::NoEntity
                | AlterQuotaError::UnknownType(_)
                | AlterQuotaError::EmptyName(_)
                | AlterQuotaError::AddressAndClient
                | AlterQuotaError::NoAddress(_)
                | AlterQuotaError::UnknownKey(_)
                | AlterQuotaError::NotWhole { .. },
            ) => ResponseError::InvalidRequest,
        }
    }
}

impl ToErrorCode for ProduceError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Partition(error) => error.to_response_error(),
            Self::InvalidRequiredAcks => ResponseError::InvalidRequiredAcks,
            Self::InternalTopic => ResponseError::InvalidTopicException,
            Self::Rejected(rejection) => rejection.to_response_error(),
            Self::NotAdmitted(error) => error.for_produce().0,
            Self::Append(error) => error.to_response_error(),
        }
    }
}

impl ToErrorCode for ProduceRejection {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::InvalidRecord { .. } => ResponseError::InvalidRecord,
            Self::Corrupt(_) | Self::CorruptWholeRequest(_) => ResponseError::CorruptMessage,
            Self::MessageTooLarge { .. } => ResponseError::MessageTooLarge,
            Self::UnsupportedCompression => ResponseError::UnsupportedCompressionType,
            Self::InvalidTimestamp { .. } => ResponseError::InvalidTimestamp,
            Self::TransactionalIdMissing => ResponseError::TransactionalIdAuthorizationFailed,
            Self::Unexpected(_) | Self::UnexpectedWholeRequest(_) => {
                ResponseError::UnknownServerError
            }
        }
    }
}

impl ToErrorCode for AppendError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Producer(error) => error.to_response_error(),
            Self::RecordListTooLarge { .. } => ResponseError::RecordListTooLarge,
            Self::UnexpectedOffset { .. } | Self::OffsetsNotAscending => {
                ResponseError::UnknownServerError
            }
            Self::Corrupt { .. } => ResponseError::CorruptMessage,
            Self::Storage(_) => ResponseError::KafkaStorageError,
        }
    }
}

impl ToErrorCode for ProducerError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
            Self::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
            Self::InvalidTxnState { .. } => ResponseError::InvalidTxnState,
            Self::TransactionCoordinatorFenced { .. } => {
                ResponseError::TransactionCoordinatorFenced
            }
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

impl ToErrorCode for LogError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
            Self::InconsistentTopicId { .. } => ResponseError::InconsistentTopicId,
            Self::UnknownPartition { .. } => ResponseError::ReplicaNotAvailable,
            Self::LogDirNotFound { .. } => ResponseError::LogDirNotFound,
            Self::CorruptBatch { .. } => ResponseError::CorruptMessage,
            Self::NoTimestamps { .. } => ResponseError::UnsupportedForMessageFormat,
            Self::LogDirOffline { .. } | Self::Storage(_) => ResponseError::KafkaStorageError,
        }
    }
}

impl ToErrorCode for DownConversionError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Zstd => ResponseError::UnsupportedCompressionType,
            Self::Records(_) => ResponseError::CorruptMessage,
        }
    }
}

impl ToErrorCode for ListOffsetsError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Partition(error) => error.to_response_error(),
            Self::Log(error) => error.to_response_error(),
            Self::UnsupportedTimestamp => ResponseError::UnsupportedVersion,
            Self::DuplicatePartition => ResponseError::InvalidRequest,
            Self::NegativeCount => ResponseError::UnknownServerError,
            Self::OffsetNotAvailable => ResponseError::OffsetNotAvailable,
            Self::LeaderNotAvailable => ResponseError::LeaderNotAvailable,
        }
    }
}

impl ToErrorCode for DeleteRecordsError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Partition(error) => error.to_response_error(),
            Self::InternalTopic => ResponseError::InvalidTopicException,
            Self::Policy => ResponseError::PolicyViolation,
        }
    }
}

impl ToErrorCode for MoveError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Partition(error) => error.to_response_error(),
            Self::ReplicaNotAvailable => ResponseError::ReplicaNotAvailable,
            Self::NameTooLong => ResponseError::InvalidTopicException,
            Self::Log(error) => error.to_response_error(),
        }
    }
}

impl ToErrorCode for FetchSessionError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::IdNotFound => ResponseError::FetchSessionIdNotFound,
            Self::InvalidEpoch => ResponseError::InvalidFetchSessionEpoch,
            Self::TopicIdMismatch => ResponseError::FetchSessionTopicIdError,
        }
    }
}

/// The code of an outcome: [`NONE`], or that of the error.
pub fn code_of<T, E: ToErrorCode>(outcome: &Result<T, E>) -> i16 {
    outcome.as_ref().err().map_or(NONE, ToErrorCode::error_code)
}

impl ToErrorCode for PlacementError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NoPartitions => ResponseError::InvalidPartitions,
            Self::NoReplicas | Self::TooFewBrokers { .. } => {
                ResponseError::InvalidReplicationFactor
            }
            // An AdminOperationException in Kafka, which no code stands for.
            Self::SomeWithoutRack => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for TopicError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Exists(_) | Self::MarkedForDeletion(_) => ResponseError::TopicAlreadyExists,
            Self::QueuedForDeletion | Self::InvalidName(_) | Self::Collides { .. } => {
                ResponseError::InvalidTopicException
            }
            Self::Unknown(_) => ResponseError::UnknownTopicOrPartition,
            Self::NullConfigs(_) | Self::Config(_) => ResponseError::InvalidConfig,
            Self::CountAndAssignment => ResponseError::InvalidRequest,
            Self::Placement(error) => error.to_response_error(),
            Self::UnequalReplicas
            | Self::DuplicateReplicas(_)
            | Self::NotConsecutive
            | Self::UnknownBrokers(_)
            | Self::WrongAssignmentCount { .. }
            | Self::EmptyAssignment(_)
            | Self::DuplicateBrokers { .. }
            | Self::InconsistentReplicationFactor { .. } => ResponseError::InvalidReplicaAssignment,
            Self::TooManyPartitions { .. } | Self::AssignmentTooLarge { .. } => {
                ResponseError::PolicyViolation
            }
            Self::QuotaExceeded(_) => ResponseError::ThrottlingQuotaExceeded,
            Self::TimedOut => ResponseError::RequestTimedOut,
            Self::ReassignmentInProgress(_) => ResponseError::ReassignmentInProgress,
            Self::FewerPartitions { .. } | Self::SamePartitions(_) => {
                ResponseError::InvalidPartitions
            }
            Self::Store(TopicStoreError::Config(ConfigWriteError::ControllerMoved)) => {
                ResponseError::StaleControllerEpoch
            }
            Self::NoFirstPartition | Self::Store(_) | Self::Brokers(_) | Self::Coordination(_) => {
                ResponseError::UnknownServerError
            }
        }
    }
}

impl ToErrorCode for AlterConfigsError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::RepeatedResource
            | Self::DuplicateKeys
            | Self::NullValues(_)
            | Self::ClientMetrics
            | Self::UnknownResourceType(_)
            | Self::DefaultTopic
            | Self::NotABrokerId(_)
            | Self::OtherBroker { .. }
            | Self::RootLogger(_)
            | Self::NotForLoggers(_)
            | Self::UnknownLoggerOperation(_)
            | Self::Alter(AlterError::InvalidRequest(_)) => ResponseError::InvalidRequest,
            Self::UnknownTopic(_) => ResponseError::UnknownTopicOrPartition,
            Self::UnknownLogger(_)
            | Self::UnknownLevel { .. }
            | Self::Password(_)
            | Self::Alter(AlterError::InvalidConfig(_)) => ResponseError::InvalidConfig,
            Self::Alter(AlterError::Unexpected) | Self::Unexpected => {
                ResponseError::UnknownServerError
            }
        }
    }
}

impl ToErrorCode for DescribeConfigsError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::ClientMetrics
            | Self::UnknownResourceType
            | Self::NotABrokerId(_)
            | Self::OtherBroker { .. }
            | Self::NoBrokerId
            | Self::OtherLoggers { .. } => ResponseError::InvalidRequest,
            Self::InvalidTopic(_) => ResponseError::InvalidTopicException,
            Self::UnknownTopic => ResponseError::UnknownTopicOrPartition,
            Self::Unexpected => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for ControlError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::StaleControllerEpoch => ResponseError::StaleControllerEpoch,
            Self::StaleBrokerEpoch => ResponseError::StaleBrokerEpoch,
            Self::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
            Self::InconsistentTopicId => ResponseError::InconsistentTopicId,
            Self::StorageError => ResponseError::KafkaStorageError,
            Self::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            Self::Unexpected => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for ControlledShutdownError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            // Kafka answers its ControllerMovedException here.
            Self::NotController => ResponseError::StaleControllerEpoch,
            Self::StaleBrokerEpoch => ResponseError::StaleBrokerEpoch,
            Self::BrokerNotAvailable => ResponseError::BrokerNotAvailable,
            Self::Failed => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for AlterPartitionError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NotController => ResponseError::NotController,
            Self::StaleBrokerEpoch => ResponseError::StaleBrokerEpoch,
            Self::Failed => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for IsrRefusal {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::UnknownTopicId => ResponseError::UnknownTopicId,
            Self::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            Self::NotController => ResponseError::NotController,
            Self::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
            Self::InvalidUpdateVersion => ResponseError::InvalidUpdateVersion,
            Self::InvalidRequest => ResponseError::InvalidRequest,
            Self::IneligibleReplica => INELIGIBLE_REPLICA,
            Self::OperationNotAttempted => ResponseError::OperationNotAttempted,
            Self::Failed => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for AllocateProducerIdsError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NotController => ResponseError::NotController,
            Self::StaleBrokerEpoch => ResponseError::StaleBrokerEpoch,
            Self::BrokerNotRegistered => ResponseError::BrokerIdNotRegistered,
            Self::Failed | Self::Exhausted => ResponseError::UnknownServerError,
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

impl ToErrorCode for ElectLeaderError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NotNeeded => ResponseError::ElectionNotNeeded,
            Self::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            Self::BeingDeleted => ResponseError::InvalidTopicException,
            Self::PreferredLeaderNotAvailable(_) => ResponseError::PreferredLeaderNotAvailable,
            Self::EligibleLeadersNotAvailable(_) => ResponseError::EligibleLeadersNotAvailable,
        }
    }
}

impl ToErrorCode for ControllerError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NotController => ResponseError::NotController,
            Self::Failed => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for ReassignmentError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NoReplicas
            | Self::DuplicateReplicas(_)
            | Self::NegativeBrokerId(_)
            | Self::BrokersNotAlive { .. } => ResponseError::InvalidReplicaAssignment,
            Self::NotInProgress => ResponseError::NoReassignmentInProgress,
            Self::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            Self::Failed => ResponseError::UnknownServerError,
        }
    }
}

/// What Kafka says where an administrator's request as a whole fails at the controller.
pub fn message_of(error: ControllerError) -> &'static str {
    match error {
        ControllerError::NotController => "This is not the correct controller for this cluster.",
        ControllerError::Failed => {
            "The server experienced an unexpected error when processing the request."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_that_kafka_gives_them() {
        let names: Vec<String> = [-1, 0, 3, 6, 107, 120, 999].map(name_of).to_vec();
        assert_eq!(
            names,
            [
                "UNKNOWN_SERVER_ERROR",
                "NONE",
                "UNKNOWN_TOPIC_OR_PARTITION",
                "NOT_LEADER_OR_FOLLOWER",
                "INELIGIBLE_REPLICA",
                "TRANSACTION_ABORTABLE",
                "999"
            ]
        );
    }
}
