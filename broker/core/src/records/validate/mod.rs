//! What a leader accepts from producers, and the form in which it stores it.
//!
//! Kafka spreads these rules over `ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords`
//! and `LogValidator`; here they are one walk over the bytes. An acceptable batch that need not be
//! changed is never copied, and nothing is allocated per record.

mod convert;
mod framing;
mod keep;
mod recompress;
mod record_checks;
#[cfg(test)]
mod tests;
mod walk;

use bytes::Bytes;

use super::batch::{BatchHeader, read_batch_meta, verify_crc};
use super::codec::{Codec, DECOMPRESSED_BYTES_MAX};
use super::{Compression, RecordError, TimestampType};
use crate::config::{TargetCompression, TimestampKind, TopicConfig};
use crate::ids::TopicPartition;

pub use framing::{check_batches, first_look};

/// What the version of a Produce request allows in a partition's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFormat {
    /// v0 to v2: any number of messages or batches of any magic, none included.
    AnyMagic,
    /// v3 to v6: exactly one batch, of magic 2, not in zstd.
    OneBatchWithoutZstd,
    /// v7 and later: exactly one batch of magic 2.
    OneBatch,
}

impl RequestFormat {
    /// The format of a version of Produce.
    pub fn of_version(version: i16) -> Self {
        match version {
            ..3 => Self::AnyMagic,
            3..7 => Self::OneBatchWithoutZstd,
            7.. => Self::OneBatch,
        }
    }
}

/// `compression.type`: how batches are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredCompression {
    /// As the producer compressed them.
    Producer,
    /// In this codec, recompressed if they come in another.
    Fixed(Codec),
}

impl StoredCompression {
    fn target(self, source: Compression) -> Codec {
        match self {
            Self::Producer => Codec::with_default_level(source),
            Self::Fixed(codec) => codec,
        }
    }
}

/// The rules of one append, from the request and the topic's configuration.
#[derive(Clone, Debug)]
pub struct ProduceRules {
    /// Named in messages to the client.
    pub partition: TopicPartition,
    pub format: RequestFormat,
    /// Without it, transactional batches are refused.
    pub transactional_id_present: bool,
    /// `max.message.bytes`: the largest batch, before and after recompression.
    pub max_message_bytes: i32,
    pub compression: StoredCompression,
    /// Whether `cleanup.policy` contains compact: then every record needs a key.
    pub is_compacted: bool,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
}

impl ProduceRules {
    /// The most bytes that a batch may decompress to: far beyond what codecs make of text.
    fn decompressed_bytes_max(&self) -> usize {
        let by_message_size = (self.max_message_bytes.max(0) as usize).saturating_mul(16);
        by_message_size.clamp(256 << 20, DECOMPRESSED_BYTES_MAX)
    }

    pub fn for_topic(
        config: &TopicConfig,
        partition: TopicPartition,
        format: RequestFormat,
        transactional_id_present: bool,
    ) -> Self {
        Self {
            partition,
            format,
            transactional_id_present,
            max_message_bytes: config.max_message_bytes,
            compression: match config.compression_type {
                TargetCompression::Producer => StoredCompression::Producer,
                TargetCompression::Uncompressed => {
                    StoredCompression::Fixed(Codec::with_default_level(Compression::None))
                }
                TargetCompression::Gzip => StoredCompression::Fixed(Codec {
                    compression: Compression::Gzip,
                    level: config.compression_gzip_level,
                }),
                TargetCompression::Snappy => {
                    StoredCompression::Fixed(Codec::with_default_level(Compression::Snappy))
                }
                TargetCompression::Lz4 => StoredCompression::Fixed(Codec {
                    compression: Compression::Lz4,
                    level: config.compression_lz4_level,
                }),
                TargetCompression::Zstd => StoredCompression::Fixed(Codec {
                    compression: Compression::Zstd,
                    level: config.compression_zstd_level,
                }),
            },
            is_compacted: config.cleanup_policy.compact,
            timestamp_type: match config.message_timestamp_type {
                TimestampKind::CreateTime => TimestampType::CreateTime,
                TimestampKind::LogAppendTime => TimestampType::LogAppendTime,
            },
            timestamp_before_max_ms: config.message_timestamp_before_max_ms,
            timestamp_after_max_ms: config.message_timestamp_after_max_ms,
        }
    }
}

/// A batch that may be appended once its base offset and leader epoch are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedBatch {
    /// Exactly one batch of magic 2 with base offset 0 and the leader epoch that was sent.
    pub bytes: Bytes,
    pub header: BatchHeader,
    /// The largest timestamp of its records, -1 if they have none.
    pub max_timestamp: i64,
    /// The time given to its records, -1 if they keep their own.
    pub log_append_time_ms: i64,
}

impl PreparedBatch {
    /// Takes a batch that this broker built itself (a marker, a coordinator's records): it is believed.
    pub fn from_own(bytes: Bytes) -> Result<Self, RecordError> {
        let header = BatchHeader::parse(&bytes)?;
        if header.size_in_bytes() != bytes.len() {
            return Err(RecordError::Incomplete {
                needed: header.size_in_bytes(),
            });
        }
        Ok(Self {
            max_timestamp: header.max_timestamp,
            log_append_time_ms: match header.timestamp_type() {
                TimestampType::CreateTime => -1,
                TimestampType::LogAppendTime => header.max_timestamp,
            },
            header,
            bytes,
        })
    }
}

/// Why records are refused, by what Kafka answers to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceRejection {
    /// The client is told `message` only if there are record errors: (index in the batch, reason).
    #[error("{message}")]
    InvalidRecord {
        message: String,
        record_errors: Vec<(i32, String)>,
    },
    #[error("{message}")]
    InvalidTimestamp {
        message: String,
        record_errors: Vec<(i32, String)>,
    },
    #[error("{0}")]
    Corrupt(String),
    /// Kafka notices before it looks at partitions: every partition of the request gets the error, and
    /// the message.
    #[error("{0}")]
    CorruptWholeRequest(String),
    #[error("a batch of {size} bytes exceeds the maximum of {limit}")]
    MessageTooLarge { size: usize, limit: usize },
    #[error("Produce requests with version lower than 7 cannot contain zstd")]
    UnsupportedCompression,
    /// Every partition of the request gets the error.
    #[error("a transactional batch in a request without a transactional id")]
    TransactionalIdMissing,
    /// Kafka runs into an exception it has no code for.
    #[error("{0}")]
    Unexpected(String),
    /// The same before it looks at partitions.
    #[error("{0}")]
    UnexpectedWholeRequest(String),
}

impl ProduceRejection {
    /// Whether every partition of the request fails with this.
    pub fn fails_whole_request(&self) -> bool {
        match self {
            Self::CorruptWholeRequest(_)
            | Self::TransactionalIdMissing
            | Self::UnexpectedWholeRequest(_) => true,
            Self::InvalidRecord { .. }
            | Self::InvalidTimestamp { .. }
            | Self::Corrupt(_)
            | Self::MessageTooLarge { .. }
            | Self::UnsupportedCompression
            | Self::Unexpected(_) => false,
        }
    }

    /// Which records are to blame, as (index in the batch, reason).
    pub fn record_errors(&self) -> &[(i32, String)] {
        match self {
            Self::InvalidRecord { record_errors, .. }
            | Self::InvalidTimestamp { record_errors, .. } => record_errors,
            Self::Corrupt(_)
            | Self::CorruptWholeRequest(_)
            | Self::MessageTooLarge { .. }
            | Self::UnsupportedCompression
            | Self::TransactionalIdMissing
            | Self::Unexpected(_)
            | Self::UnexpectedWholeRequest(_) => &[],
        }
    }

    /// The message that Kafka sends along; None where it sends none.
    pub fn client_message(&self) -> Option<&str> {
        match self {
            Self::InvalidRecord { message, .. } | Self::InvalidTimestamp { message, .. }
                if !self.record_errors().is_empty() =>
            {
                Some(message)
            }
            Self::CorruptWholeRequest(message) => Some(message),
            Self::InvalidRecord { .. }
            | Self::InvalidTimestamp { .. }
            | Self::Corrupt(_)
            | Self::MessageTooLarge { .. }
            | Self::UnsupportedCompression
            | Self::TransactionalIdMissing
            | Self::Unexpected(_)
            | Self::UnexpectedWholeRequest(_) => None,
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::InvalidRecord {
            message: message.into(),
            record_errors: Vec::new(),
        }
    }
}

/// What Kafka makes of each flaw when it meets it within the records.
impl From<RecordError> for ProduceRejection {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Incomplete { .. }
            | RecordError::Malformed(_)
            | RecordError::UnknownMagic(_) => Self::invalid(error.to_string()),
            RecordError::SizeTooSmall(_) | RecordError::CrcMismatch { .. } => {
                Self::Corrupt(error.to_string())
            }
            RecordError::UnknownCompression(_) | RecordError::Decompression { .. } => {
                Self::Unexpected(error.to_string())
            }
            RecordError::TooLarge { limit } => Self::MessageTooLarge { size: limit, limit },
        }
    }
}

/// Validates what a client sent for one partition and makes it ready to append.
///
/// `None` if there is no whole batch where the request's version allows that: Kafka then answers
/// success with base offset -1. Of several flaws the one is reported that Kafka finds first.
pub fn prepare(
    records: Bytes,
    rules: &ProduceRules,
    now_ms: i64,
) -> Result<Option<PreparedBatch>, ProduceRejection> {
    if first_look(&records)? && !rules.transactional_id_present {
        return Err(ProduceRejection::TransactionalIdMissing);
    }
    let Some(first) = check_batches(&records, rules.format)? else {
        return Ok(None);
    };
    if rules.format == RequestFormat::AnyMagic {
        return prepare_any_magic(&records, rules, now_ms).map(Some);
    }
    let mut batch = records;
    batch.truncate(first);
    check_batch(&batch, rules)?;
    prepare_one(batch, rules, now_ms).map(Some)
}

fn prepare_any_magic(
    records: &Bytes,
    rules: &ProduceRules,
    now_ms: i64,
) -> Result<PreparedBatch, ProduceRejection> {
    let mut found = Vec::new();
    let mut source = Compression::None;
    let mut rest = records.clone();
    while let Some((size, _)) = framing::next_batch(&rest)? {
        let batch = rest.split_to(size);
        let compression = check_batch(&batch, rules)?;
        if compression != Compression::None {
            source = compression;
        }
        found.push(batch);
    }
    let Some(first) = found.first() else {
        return Err(ProduceRejection::invalid("no batch at all"));
    };
    let magic = read_batch_meta(first)?.magic;
    if (magic >= 2 || source != Compression::None) && found.len() > 1 {
        return Err(ProduceRejection::invalid(
            "Compressed outer record has more than one batch",
        ));
    }
    if magic >= 2 {
        return prepare_one(first.clone(), rules, now_ms);
    }
    convert::to_magic_2(&found, source, rules, now_ms)
}

/// What Kafka checks of each batch before it looks into it (`analyzeAndValidateRecords`).
fn check_batch(batch: &[u8], rules: &ProduceRules) -> Result<Compression, ProduceRejection> {
    let meta =
        read_batch_meta(batch).map_err(|error| ProduceRejection::Corrupt(error.to_string()))?;
    if meta.magic >= 2 && meta.base_offset != 0 {
        return Err(ProduceRejection::invalid(format!(
            "The baseOffset of the record batch in the append to {} should be 0, but it is {}",
            rules.partition, meta.base_offset
        )));
    }
    check_size(batch.len(), rules)?;
    verify_crc(batch)?;
    Ok(meta.compression()?)
}

fn check_size(size: usize, rules: &ProduceRules) -> Result<(), ProduceRejection> {
    let limit = rules.max_message_bytes.max(0) as usize;
    if size > limit {
        return Err(ProduceRejection::MessageTooLarge { size, limit });
    }
    Ok(())
}

fn prepare_one(
    batch: Bytes,
    rules: &ProduceRules,
    now_ms: i64,
) -> Result<PreparedBatch, ProduceRejection> {
    let header = BatchHeader::parse(&batch)?;
    check_header(&header)?;
    let source = header.compression()?;
    let target = rules.compression.target(source);
    if source == target.compression {
        keep::keep(batch, &header, rules, now_ms)
    } else {
        recompress::recompress(&batch, &header, target, rules, now_ms)
    }
}

/// `LogValidator.validateBatch` for a client's batch.
fn check_header(header: &BatchHeader) -> Result<(), ProduceRejection> {
    let count_from_offsets = i64::from(header.last_offset_delta) + 1;
    if count_from_offsets <= 0 {
        return Err(ProduceRejection::invalid(format!(
            "Batch has an invalid offset range: [{}, {}]",
            header.base_offset,
            header.last_offset()
        )));
    }
    if header.records_count <= 0 {
        return Err(ProduceRejection::invalid(format!(
            "Invalid reported count for record batch: {}",
            header.records_count
        )));
    }
    if count_from_offsets != i64::from(header.records_count) {
        return Err(ProduceRejection::invalid(format!(
            "Inconsistent batch offset range [{}, {}] and count of records {}",
            header.base_offset,
            header.last_offset(),
            header.records_count
        )));
    }
    if header.is_control() {
        return Err(ProduceRejection::invalid(
            "Clients are not allowed to write control records",
        ));
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(ProduceRejection::invalid(format!(
            "Invalid sequence number {} in record batch with producerId {}",
            header.base_sequence, header.producer_id
        )));
    }
    Ok(())
}
