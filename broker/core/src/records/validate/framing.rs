//! Finding the batch in what a client sent: the size fields, and what follows the batch.

use super::{ProduceRejection, RequestFormat};
use crate::records::batch::{
    LOG_OVERHEAD, SIZE_FIELD_MIN, SIZE_UP_TO_MAGIC, field, i16_at, i32_at,
};
use crate::records::{Attributes, Compression};

/// What is wrong where a batch should begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FramingError {
    SizeTooSmall(i32),
    UnknownMagic(i8),
    /// The size of the batch exceeds 2^31-1: Kafka's addition overflows.
    SizeOverflows,
}

impl FramingError {
    fn message(self) -> String {
        match self {
            Self::SizeTooSmall(size) => format!(
                "Record size {size} is less than the minimum record overhead ({SIZE_FIELD_MIN})"
            ),
            Self::UnknownMagic(magic) => format!("Invalid magic found in record: {magic}"),
            Self::SizeOverflows => "a batch of more than 2^31-1 bytes".to_owned(),
        }
    }
}

impl From<FramingError> for ProduceRejection {
    fn from(error: FramingError) -> Self {
        match error {
            FramingError::SizeTooSmall(_) | FramingError::UnknownMagic(_) => {
                Self::Corrupt(error.message())
            }
            FramingError::SizeOverflows => Self::Unexpected(error.message()),
        }
    }
}

/// Size and magic of the whole batch at the front of `bytes`; None if there is none, be it that the
/// bytes end before the size field says (`ByteBufferLogInputStream.nextBatch`).
pub(super) fn next_batch(bytes: &[u8]) -> Result<Option<(usize, i8)>, FramingError> {
    if bytes.len() < LOG_OVERHEAD {
        return Ok(None);
    }
    let size = i32_at(bytes, field::BATCH_LENGTH);
    if size < SIZE_FIELD_MIN {
        return Err(FramingError::SizeTooSmall(size));
    }
    if bytes.len() < SIZE_UP_TO_MAGIC {
        return Ok(None);
    }
    let magic = bytes[field::MAGIC] as i8;
    if !(0..=2).contains(&magic) {
        return Err(FramingError::UnknownMagic(magic));
    }
    if size > i32::MAX - LOG_OVERHEAD as i32 {
        return Err(FramingError::SizeOverflows);
    }
    let size = size as usize + LOG_OVERHEAD;
    Ok((size <= bytes.len()).then_some((size, magic)))
}

/// Whether the first batch is transactional. Kafka asks this of every partition of a request before it
/// looks at any, so what is wrong here fails the whole request.
///
/// Errors: only those with [`ProduceRejection::fails_whole_request`].
pub fn first_look(records: &[u8]) -> Result<bool, ProduceRejection> {
    match next_batch(records) {
        Ok(Some((_, magic))) => {
            Ok(magic >= 2 && Attributes(i16_at(records, field::ATTRIBUTES)).is_transactional())
        }
        Ok(None) => Ok(false),
        Err(error @ (FramingError::SizeTooSmall(_) | FramingError::UnknownMagic(_))) => {
            Err(ProduceRejection::CorruptWholeRequest(error.message()))
        }
        Err(error @ FramingError::SizeOverflows) => {
            Err(ProduceRejection::UnexpectedWholeRequest(error.message()))
        }
    }
}

/// What Kafka refuses by the version of the request before it asks the partition: gives the size of
/// the first whole batch, None if there is none (which only v0 to v2 allow).
///
/// Bytes behind the batch that are no whole batch are ignored, unless a size field or magic among them
/// is impossible.
pub fn check_batches(
    records: &[u8],
    format: RequestFormat,
) -> Result<Option<usize>, ProduceRejection> {
    let first = next_batch(records)?;
    if format == RequestFormat::AnyMagic {
        return Ok(first.map(|(size, _)| size));
    }
    let Some((size, magic)) = first else {
        return Err(ProduceRejection::invalid(
            "there must be at least one record batch per partition",
        ));
    };
    if magic != 2 {
        return Err(ProduceRejection::invalid(
            "only record batches with magic version 2 are allowed",
        ));
    }
    if format == RequestFormat::OneBatchWithoutZstd {
        match Attributes(i16_at(records, field::ATTRIBUTES)).compression() {
            Ok(Compression::Zstd) => return Err(ProduceRejection::UnsupportedCompression),
            Ok(_) => {}
            Err(error) => {
                return Err(ProduceRejection::UnexpectedWholeRequest(error.to_string()));
            }
        }
    }
    match next_batch(&records[size..]) {
        Ok(None) => Ok(Some(size)),
        Ok(Some(_)) => Err(ProduceRejection::invalid(
            "there must be exactly one record batch per partition",
        )),
        Err(error @ FramingError::SizeOverflows) => {
            Err(ProduceRejection::UnexpectedWholeRequest(error.message()))
        }
        Err(error) => Err(error.into()),
    }
}
