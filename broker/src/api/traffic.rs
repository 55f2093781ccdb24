//! What produce and fetch requests count, by topic (`kafka.server:type=BrokerTopicMetrics`).

use barnabas_core::records::validate::{PreparedBatch, ProduceRejection};

use super::produce::ProduceError;
use crate::metrics::{Fetcher, TopicMetrics};

/// Where the magic and the attributes of a batch are, in every format that is sent today.
const MAGIC: usize = 16;
const ATTRIBUTES: std::ops::Range<usize> = 21..23;
const CODEC_BITS: u8 = 7;

/// How a batch was when it came: what decides whether it had to be built anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    magic: Option<u8>,
    codec: Option<u8>,
}

impl Form {
    pub(super) fn of(records: &[u8]) -> Self {
        let attributes = records.get(ATTRIBUTES).and_then(<[u8]>::last);
        Self {
            magic: records.get(MAGIC).copied(),
            codec: attributes.map(|attributes| attributes & CODEC_BITS),
        }
    }
}

/// Counts a batch that was appended, and that came as `form`.
pub(super) fn appended(metrics: &TopicMetrics, form: Form, batch: &PreparedBatch) {
    let messages = u64::try_from(batch.header.records_count).unwrap_or(0);
    metrics.bytes_in.add(batch.bytes.len() as u64);
    metrics.messages_in.add(messages);
    if form != Form::of(&batch.bytes) {
        metrics.produce_message_conversions.add(messages);
    }
}

/// Counts why a batch was not appended. Kafka: `LogValidator.MetricsRecorder`, `UnifiedLog`.
pub(super) fn rejected(metrics: &TopicMetrics, error: &ProduceError) {
    let ProduceError::Rejected(rejection) = error else {
        return;
    };
    match rejection {
        ProduceRejection::MessageTooLarge { size, .. } => {
            metrics.bytes_rejected.add(*size as u64);
        }
        ProduceRejection::Corrupt(_) => metrics.invalid_message_crc_records.increment(),
        ProduceRejection::InvalidRecord { record_errors, .. } if record_errors.is_empty() => {
            metrics.invalid_offset_or_sequence_records.increment();
        }
        ProduceRejection::InvalidRecord { record_errors, .. } => {
            for (_, reason) in record_errors {
                if reason.starts_with("Compacted topic") {
                    metrics.no_key_compacted_topic_records.increment();
                } else if reason.starts_with("Record's magic") {
                    metrics.invalid_magic_number_records.increment();
                }
            }
        }
        ProduceRejection::CorruptWholeRequest(_)
        | ProduceRejection::InvalidTimestamp { .. }
        | ProduceRejection::UnsupportedCompression
        | ProduceRejection::TransactionalIdMissing
        | ProduceRejection::Unexpected(_)
        | ProduceRejection::UnexpectedWholeRequest(_) => {}
    }
}

/// Counts records that go out.
pub(super) fn fetched(metrics: &TopicMetrics, by: Fetcher, bytes: usize) {
    match by {
        Fetcher::Consumer => metrics.bytes_out.add(bytes as u64),
        Fetcher::Follower => metrics.replication_bytes_out.add(bytes as u64),
    }
}
