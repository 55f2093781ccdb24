//! The one place where errors become Kafka's error codes; a file for each kind of who is refused.

mod administration;
mod control;
mod coordination;

use barnabas_core::partition::PartitionError;
use barnabas_core::partition::producers::ProducerError;
use barnabas_core::records::legacy::DownConversionError;
use barnabas_core::records::validate::ProduceRejection;
pub use kafka_protocol::ResponseError;

pub use administration::message_of;
pub use coordination::{code_for_producer, code_without_loading};

use super::RequestError;
use super::fetch::FetchError;
use super::metadata::MetadataError;
use super::offsets::{DeleteRecordsError, DescribeProducersError, ListOffsetsError};
use super::produce::ProduceError;
use crate::log::{AppendError, LogError};
use crate::replica::fetch_session_cache::FetchSessionError;

/// Errors of Kafka 3.9 that the protocol crate does not name.
pub const INELIGIBLE_REPLICA: ResponseError = ResponseError::Unknown(107);
pub const MISMATCHED_ENDPOINT_TYPE: ResponseError = ResponseError::Unknown(114);
pub const UNSUPPORTED_ENDPOINT_TYPE: ResponseError = ResponseError::Unknown(115);
pub const TRANSACTION_ABORTABLE: ResponseError = ResponseError::Unknown(120);

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

/// The code of an outcome: [`NONE`], or that of the error.
pub fn code_of<T, E: ToErrorCode>(outcome: &Result<T, E>) -> i16 {
    outcome.as_ref().err().map_or(NONE, ToErrorCode::error_code)
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

impl ToErrorCode for ProduceError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Partition(error) => error.to_response_error(),
            Self::InvalidRequiredAcks => ResponseError::InvalidRequiredAcks,
            Self::InternalTopic => ResponseError::InvalidTopicException,
            Self::SeveralProducers => ResponseError::InvalidProducerIdMapping,
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

impl ToErrorCode for FetchSessionError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::IdNotFound => ResponseError::FetchSessionIdNotFound,
            Self::InvalidEpoch => ResponseError::InvalidFetchSessionEpoch,
            Self::TopicIdMismatch => ResponseError::FetchSessionTopicIdError,
        }
    }
}

impl ToErrorCode for FetchError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Partition(error) => error.to_response_error(),
            Self::UnknownCodec => ResponseError::UnsupportedCompressionType,
            Self::NoDownConversion => ResponseError::UnsupportedVersion,
            Self::DownConversion(error) => error.to_response_error(),
            Self::Unexpected => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for MetadataError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::Invalid => ResponseError::InvalidRequest,
            Self::InvalidTopic => ResponseError::InvalidTopicException,
            Self::UnknownTopic => ResponseError::UnknownTopicOrPartition,
            Self::UnknownTopicId => ResponseError::UnknownTopicId,
            Self::LeaderNotAvailable => ResponseError::LeaderNotAvailable,
            Self::ListenerNotFound => ResponseError::ListenerNotFound,
            Self::ReplicaNotAvailable => ResponseError::ReplicaNotAvailable,
            Self::NotCreated(error) => error.to_response_error(),
        }
    }
}

impl ToErrorCode for DescribeProducersError {
    fn to_response_error(&self) -> ResponseError {
        match self {
            Self::InvalidTopic(_) => ResponseError::InvalidTopicException,
            Self::Partition(error) => error.to_response_error(),
        }
    }
}

/// Whether a code says that somebody else leads the partition, so that it helps to tell who does.
pub fn is_led_elsewhere(code: i16) -> bool {
    code == ResponseError::NotLeaderOrFollower.code()
        || code == ResponseError::FencedLeaderEpoch.code()
}

/// Whether a code says that the partition is not led here; Produce tells who leads it only then.
pub fn is_not_leader(code: i16) -> bool {
    code == ResponseError::NotLeaderOrFollower.code()
}

/// Whether Kafka has no other name for the error than that it did not expect it.
pub fn is_unexpected(error: &impl ToErrorCode) -> bool {
    error.to_response_error() == ResponseError::UnknownServerError
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
