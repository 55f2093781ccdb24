//! Codes of what brokers refuse each other.

use barnabas_core::control::ControlError;
use barnabas_core::controller::{
    AllocateProducerIdsError, AlterPartitionError, ControlledShutdownError, IsrRefusal,
};

use super::{INELIGIBLE_REPLICA, ResponseError, ToErrorCode};

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
