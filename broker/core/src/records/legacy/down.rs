//! Down-conversion for Fetch of old versions (Kafka's `LazyDownConversionRecords`).

use bytes::Bytes;

use super::{DECOMPRESSED_BYTES_MAX, MessageFormat, write_messages};
use crate::ids::Offset;
use crate::records::batch::{HEADER_SIZE, LOG_OVERHEAD};
use crate::records::{Compression, RecordError, TimestampType, batches, records_within};

/// Why nothing could be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownConversionError {
    #[error("Down-conversion of zstandard-compressed batches is not supported")]
    Zstd,
    #[error(transparent)]
    Records(#[from] RecordError),
}

/// A filler message never pretends to be longer in one piece (Kafka converts in chunks of this size).
const CHUNK_SIZE: usize = 128 * 1024;

/// Converts what was read from a log for a fetch at `fetch_offset` to messages of `to_magic` (0 or 1).
///
/// Batches of `to_magic` or below are kept; control batches and headers are dropped, and so are
/// records below `fetch_offset` in uncompressed batches that have to be converted. The result has
/// exactly as many bytes as `bytes` (but always room for the first converted batch): longer output is
/// cut there, shorter output is filled up with a partial message that consumers ignore. If everything
/// was dropped, only that filler message is given, in 12 bytes; nothing is made of less than a batch.
///
/// Errors: zstd in the first batch that is not dropped; later it only ends the conversion, so that the
/// consumer gets to it with its next fetch.
pub fn down_convert(
    bytes: &Bytes,
    to_magic: i8,
    fetch_offset: Offset,
) -> Result<Bytes, DownConversionError> {
    let mut out = Vec::new();
    let mut size = bytes.len();
    let mut any = false;
    for batch in batches(bytes) {
        let (position, meta) = match batch {
            Ok(batch) => batch,
            Err(RecordError::Incomplete { .. }) => break,
            Err(error) => return or_what_there_is(error.into(), out, size),
        };
        any = true;
        if meta.is_control {
            continue;
        }
        let batch = bytes.slice(position..position + meta.size_in_bytes);
        let is_first = out.is_empty();
        let converted = match meta.compression() {
            Ok(Compression::Zstd) => Err(DownConversionError::Zstd),
            Ok(_) if meta.magic <= to_magic => {
                out.extend_from_slice(&batch);
                Ok(())
            }
            Ok(compression) => {
                let format = MessageFormat {
                    magic: to_magic,
                    compression,
                    log_append_time: (meta.timestamp_type() == TimestampType::LogAppendTime)
                        .then_some(meta.max_timestamp),
                };
                convert(&mut out, format, &batch, fetch_offset)
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = converted {
            return or_what_there_is(error, out, size);
        }
        if is_first {
            size = size.max(out.len());
        }
        if out.len() >= size {
            break;
        }
    }
    if out.is_empty() {
        return Ok(if any {
            fill(out, LOG_OVERHEAD)
        } else {
            Bytes::new()
        });
    }
    Ok(fill(out, size))
}

fn convert(
    out: &mut Vec<u8>,
    format: MessageFormat,
    batch: &Bytes,
    fetch_offset: Offset,
) -> Result<(), DownConversionError> {
    let records = records_within(batch, DECOMPRESSED_BYTES_MAX)?.filter(|record| {
        format.compression != Compression::None
            || record
                .as_ref()
                .map_or(true, |record| record.offset >= fetch_offset)
    });
    Ok(write_messages(out, format, records)?)
}

/// What was converted before an error is served; the error comes when the consumer asks from there.
fn or_what_there_is(
    error: DownConversionError,
    out: Vec<u8>,
    size: usize,
) -> Result<Bytes, DownConversionError> {
    if out.is_empty() {
        Err(error)
    } else {
        Ok(fill(out, size))
    }
}

/// Makes `out` exactly `size` bytes long.
fn fill(mut out: Vec<u8>, size: usize) -> Bytes {
    out.truncate(size);
    while out.len() < size {
        let remaining = size - out.len();
        let end = out.len() + remaining.min(CHUNK_SIZE);
        out.extend_from_slice(&(-1_i64).to_be_bytes());
        out.extend_from_slice(&((remaining + 1).max(HEADER_SIZE) as i32).to_be_bytes());
        out.resize(end, 0);
    }
    out.into()
}
