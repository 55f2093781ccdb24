//! What is left of one batch (Kafka's `RecordFilter` in `Cleaner.cleanInto` and
//! `MemoryRecords.filterTo`).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::offset_map::OffsetMap;
use super::transactions::CleanedTransactions;
use crate::ids::Offset;
use crate::records::batch::NO_TIMESTAMP;
use crate::records::legacy::{self, MessageFormat};
use crate::records::{
    BatchBuilder, BatchHeader, BatchMeta, Compression, Record, RecordError, TimestampType, records,
    verify_crc,
};

/// A batch cannot be read: the log cannot be cleaned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch at offset {base_offset} cannot be read: {source}")]
pub struct FilterError {
    pub base_offset: Offset,
    #[source]
    pub source: RecordError,
}

/// What a log remembers of a producer: its last batch has to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// Where its last data is, if that is known.
    pub last_data_offset: Option<Offset>,
    pub producer_epoch: i16,
}

/// The rules of one cleaning.
#[derive(Debug)]
pub struct Filter<'a> {
    pub map: &'a OffsetMap,
    pub last_records: &'a BTreeMap<i64, LastRecord>,
    pub now_ms: i64,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// Tombstones of magic 0 and 1 stay, as their segment is young.
    pub keeps_legacy_tombstones: bool,
}

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filtered {
    Dropped,
    Unchanged,
    Changed(Bytes),
}

impl Filter<'_> {
    /// Decides what is left of a batch.
    pub fn apply(
        &self,
        meta: &BatchMeta,
        batch: &Bytes,
        transactions: &mut CleanedTransactions,
    ) -> Result<Filtered, FilterError> {
        self.filter(meta, batch, transactions)
            .map_err(|source| FilterError {
                base_offset: meta.base_offset,
                source,
            })
    }

    fn filter(
        &self,
        meta: &BatchMeta,
        batch: &Bytes,
        transactions: &mut CleanedTransactions,
    ) -> Result<Filtered, RecordError> {
        let header = if meta.magic >= 2 {
            Some(BatchHeader::parse(batch)?)
        } else {
            None
        };
        let horizon = header.and_then(|header| header.delete_horizon_ms());
        let is_over = horizon.is_some_and(|horizon| horizon <= self.now_ms);
        let (drops_all, ends_empty) = if meta.is_control {
            let may_drop = transactions.marker_read(meta, batch)?;
            // A marker stays for as long as a tombstone would.
            (may_drop && is_over, may_drop)
        } else {
            (transactions.data_read(meta), false)
        };
        let keeps_empty = meta.has_producer_id() && self.is_last_of_producer(meta);
        if drops_all && !keeps_empty {
            return Ok(Filtered::Dropped);
        }
        let mut kept = Vec::new();
        let mut is_whole = true;
        let mut has_tombstone = false;
        if drops_all {
            is_whole = false;
        } else {
            for record in records(batch)? {
                let record = record?;
                if meta.is_control || self.keeps(meta, &record, is_over) {
                    has_tombstone |= record.value.is_none();
                    kept.push(record);
                } else {
                    is_whole = false;
                }
            }
        }
        if kept.is_empty() {
            return Ok(match header {
                // What is empty and stays is as it was.
                Some(header) if keeps_empty && header.records_count == 0 => Filtered::Unchanged,
                Some(header) if keeps_empty => Filtered::Changed(emptied(header)),
                _ => Filtered::Dropped,
            });
        }
        let begins_horizon = header.is_some() && horizon.is_none() && (has_tombstone || ends_empty);
        if is_whole && !begins_horizon {
            return Ok(Filtered::Unchanged);
        }
        // A new CRC must not hide damage.
        verify_crc(batch)?;
        let horizon = if begins_horizon {
            Some(self.now_ms.saturating_add(self.delete_retention_ms))
        } else {
            horizon
        };
        Ok(Filtered::Changed(match header {
            Some(header) => rebuilt(&header, &kept, horizon)?,
            None => rebuilt_messages(meta, kept)?,
        }))
    }

    fn keeps(&self, meta: &BatchMeta, record: &Record, is_over: bool) -> bool {
        if record.offset > self.map.latest_offset() {
            return true;
        }
        let Some(key) = &record.key else {
            return false;
        };
        let is_latest = self
            .map
            .get(key)
            .is_none_or(|latest| record.offset >= latest);
        is_latest
            && (record.value.is_some()
                || if meta.magic < 2 {
                    self.keeps_legacy_tombstones
                } else {
                    !is_over
                })
    }

    /// Whether the batch holds the last sequence of a producer, or the marker with its last epoch.
    fn is_last_of_producer(&self, meta: &BatchMeta) -> bool {
        let Some(last) = self.last_records.get(&meta.producer_id) else {
            return false;
        };
        match last.last_data_offset {
            Some(offset) => meta.last_offset == offset,
            None => meta.is_control && meta.producer_epoch == last.producer_epoch,
        }
    }
}

/// The header of a batch alone, for its producer's sake.
fn emptied(header: BatchHeader) -> Bytes {
    let attributes = header
        .attributes
        .known_bits()
        .with_compression(Compression::None)
        .with_delete_horizon(false);
    BatchBuilder::empty(BatchHeader {
        attributes,
        base_timestamp: NO_TIMESTAMP,
        records_count: 0,
        ..header
    })
}

fn rebuilt(
    header: &BatchHeader,
    kept: &[Record],
    horizon: Option<i64>,
) -> Result<Bytes, RecordError> {
    let mut builder = BatchBuilder::new(header.compression()?)
        .base_offset(header.base_offset)
        .leader_epoch(header.partition_leader_epoch)
        .producer(
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
        );
    if header.is_transactional() {
        builder = builder.transactional();
    }
    if header.is_control() {
        builder = builder.control();
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        builder = builder.log_append_time(header.max_timestamp);
    }
    if let Some(horizon) = horizon {
        builder = builder.delete_horizon(horizon);
    }
    for record in kept {
        let headers: Vec<_> = record.headers.iter().collect();
        let headers: Vec<(&[u8], Option<&[u8]>)> = headers
            .iter()
            .map(|(name, value)| (&**name, value.as_deref()))
            .collect();
        let delta = i32::try_from(record.offset - header.base_offset)
            .map_err(|_| RecordError::Malformed("an offset too far from its batch's"))?;
        builder.push_at(
            delta,
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &headers,
        );
    }
    Ok(builder.build_up_to(header.last_offset_delta))
}

fn rebuilt_messages(meta: &BatchMeta, kept: Vec<Record>) -> Result<Bytes, RecordError> {
    let mut out = Vec::new();
    let format = MessageFormat {
        magic: meta.magic,
        compression: meta.compression()?,
        log_append_time: (meta.magic == 1 && meta.timestamp_type() == TimestampType::LogAppendTime)
            .then_some(meta.max_timestamp),
    };
    legacy::write_messages(&mut out, format, kept.into_iter().map(Ok::<_, RecordError>))?;
    Ok(out.into())
}
