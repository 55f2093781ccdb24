//! Finding records by time.

use bytes::Bytes;

use super::{RecordError, read_batch_meta, records};
use crate::ids::Offset;

/// The first record of a batch at or behind `starting_offset` whose timestamp is at least
/// `target_timestamp`, as offset and timestamp.
pub fn find_by_timestamp(
    batch: &Bytes,
    target_timestamp: i64,
    starting_offset: Offset,
) -> Result<Option<(Offset, i64)>, RecordError> {
    if read_batch_meta(batch)?.max_timestamp < target_timestamp {
        return Ok(None);
    }
    for record in records(batch)? {
        let record = record?;
        if record.timestamp >= target_timestamp && record.offset >= starting_offset {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}

/// The first of the records that have the batch's maximum timestamp, as offset and timestamp (with log
/// append times that is the first record). None if no record has a timestamp, or compaction has
/// removed those that had it.
pub fn max_timestamp_record(batch: &Bytes) -> Result<Option<(Offset, i64)>, RecordError> {
    let meta = read_batch_meta(batch)?;
    if meta.max_timestamp < 0 {
        return Ok(None);
    }
    for record in records(batch)? {
        let record = record?;
        if record.timestamp == meta.max_timestamp {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}
