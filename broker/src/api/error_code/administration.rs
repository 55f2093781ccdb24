//! Codes of what administrators are refused.

use barnabas_core::balance::placement::PlacementError;
use barnabas_core::config::alter::AlterError;
use barnabas_core::controller::{ControllerError, ElectLeaderError, ReassignmentError};
use barnabas_core::quota::entity::{AlterQuotaError, QuotaFilterError};
use barnabas_core::scram::ScramError;

use super::{ResponseError, ToErrorCode};
use crate::api::acls::AclError;
use crate::api::alter_configs::AlterConfigsError;
use crate::api::configs::DescribeConfigsError;
use crate::api::delegation_tokens::TokenError;
use crate::api::log_dirs::MoveError;
use crate::api::quotas::{AlterQuotasError, DescribeQuotasError};
use crate::api::sasl::SaslError;
use crate::api::scram::{AlterScramError, DescribeScramError};
use crate::api::topics::TopicRequestError;
use crate::topics::TopicError;
use crate::zookeeper::{ConfigWriteError, TopicStoreError};

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
            | Self::OtherLoggers(_)
            | Self::UnknownOperation(_)
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

impl ToErrorCode for ControllerError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NotController => ResponseError::NotController,
            Self::Failed => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for TopicRequestError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::NotController => ResponseError::NotController,
            Self::CreatedTwice | Self::ExtendedTwice | Self::NameAndId => {
                ResponseError::InvalidRequest
            }
            Self::Reserved | Self::Unnamed => ResponseError::TopicAuthorizationFailed,
            Self::DeletionDisabled { is_known: true } => ResponseError::TopicDeletionDisabled,
            Self::DeletionDisabled { is_known: false } => ResponseError::InvalidRequest,
            Self::UnknownId => ResponseError::UnknownTopicId,
            Self::Unknown => ResponseError::UnknownTopicOrPartition,
            Self::Topic(error) => error.to_response_error(),
            Self::NoPath | Self::Unanswered => ResponseError::UnknownServerError,
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
