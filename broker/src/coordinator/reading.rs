//! Walking over the log of an internal topic, a buffer at a time.

use std::sync::Arc;

use barnabas_core::ids::Offset;
use barnabas_core::records::{
    BatchMeta, ControlRecord, Record, RecordError, batches, records, verify_crc,
};
use bytes::Bytes;

use crate::log::{LogError, PartitionLog};

/// What a coordinator's log consists of.
pub enum Entry<'a> {
    Record {
        batch: &'a BatchMeta,
        record: Record,
    },
    /// The transaction of a producer ended.
    Marker {
        producer_id: i64,
        is_committed: bool,
        offset: Offset,
    },
}

/// Shows `visit` everything from the log's start to its end as it is when the end is reached. What cannot be read is
/// left out with an error in the broker's log that says where; `goes_on` is asked between buffers.
pub fn walk(
    log: &Arc<PartitionLog>,
    buffer_bytes: usize,
    goes_on: impl Fn() -> bool,
    mut visit: impl FnMut(Entry<'_>),
) -> Result<(), LogError> {
    let mut offset = log.log_start_offset();
    while goes_on() {
        let end = log.log_end_offset();
        if offset >= end {
            break;
        }
        let slice = log.read(offset, buffer_bytes, end, true)?;
        if slice.is_empty() {
            break;
        }
        let bytes = slice.read_all()?;
        let before = offset;
        for batch in batches(&bytes) {
            let (position, meta) = match batch {
                Ok(batch) => batch,
                Err(RecordError::Incomplete { .. }) => break,
                Err(error) => {
                    report(log, offset, &error);
                    return Ok(());
                }
            };
            let batch = bytes.slice(position..position + meta.size_in_bytes);
            if let Err(error) = read_batch(log, &meta, &batch, offset, &mut visit) {
                report(log, meta.base_offset, &error);
            }
            offset = meta.next_offset().max(offset);
        }
        if offset == before {
            break;
        }
    }
    Ok(())
}

fn report(log: &PartitionLog, offset: Offset, error: &RecordError) {
    tracing::error!(
        partition = %log.topic_partition(),
        offset,
        %error,
        "left out what cannot be read in an internal topic"
    );
}

fn read_batch(
    log: &PartitionLog,
    meta: &BatchMeta,
    batch: &Bytes,
    from: Offset,
    visit: &mut impl FnMut(Entry<'_>),
) -> Result<(), RecordError> {
    verify_crc(batch)?;
    if meta.is_control {
        let is_committed = match ControlRecord::of_batch(batch)? {
            Some(ControlRecord::Commit { .. }) => true,
            Some(ControlRecord::Abort { .. }) => false,
            Some(ControlRecord::Unknown(kind)) => {
                tracing::warn!(partition = %log.topic_partition(), kind, "unknown control record");
                return Ok(());
            }
            // Compaction has taken the record: the transaction was of no consequence any more.
            None => return Ok(()),
        };
        visit(Entry::Marker {
            producer_id: meta.producer_id,
            is_committed,
            offset: meta.last_offset,
        });
        return Ok(());
    }
    for record in records(batch)? {
        let record = record?;
        if record.offset >= from {
            visit(Entry::Record {
                batch: meta,
                record,
            });
        }
    }
    Ok(())
}
