//! What is left of one batch (Kafka's `RecordFilter` in `Cleaner.cleanInto` and
//! `MemoryRecords.filterTo`).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::offset_map::{KeyId, OffsetMap};
use super::transactions::CleanedTransactions;
use crate::ids::Offset;
use crate::records::batch::NO_TIMESTAMP;
use crate::records::legacy::{self, MessageFormat};
use crate::records::{
    BatchBuilder, BatchHeader, BatchMeta, Compression, Record, RecordError, TimestampType, records,
    verify_crc, visit_records,
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

/// Memory that is used for one batch after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The records of the batch.
    seen: Vec<Seen>,
    /// Those of a compressed batch from their headers' end on, so that it is not decompressed again.
    tails: Vec<u8>,
}

/// What is to be known of a record.
#[derive(Clone, Copy, Debug)]
struct Seen {
    key: Option<KeyId>,
    offset: Offset,
    timestamp: i64,
    has_value: bool,
    stays: bool,
    /// How much of [`Scratch::tails`] is the record's, which follow each other there.
    tail_size: usize,
}

/// What the walk over the records of a batch found.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    kept: usize,
    dropped: usize,
    has_tombstone: bool,
}

impl Count {
    fn add(&mut self, stays: bool, has_value: bool) {
        if stays {
            self.kept += 1;
            self.has_tombstone |= !has_value;
        } else {
            self.dropped += 1;
        }
    }
}

impl Filter<'_> {
    /// Decides what is left of a batch.
    pub fn apply(
        &self,
        meta: &BatchMeta,
        batch: &[u8],
        transactions: &mut CleanedTransactions,
        scratch: &mut Scratch,
    ) -> Result<Filtered, FilterError> {
        let filtered = if meta.magic >= 2 {
            self.filter(meta, batch, transactions, scratch)
        } else {
            self.filter_messages(meta, batch, transactions)
        };
        filtered.map_err(|source| FilterError {
            base_offset: meta.base_offset,
            source,
        })
    }

    fn filter(
        &self,
        meta: &BatchMeta,
        batch: &[u8],
        transactions: &mut CleanedTransactions,
        scratch: &mut Scratch,
    ) -> Result<Filtered, RecordError> {
        let header = BatchHeader::parse(batch)?;
        let horizon = header.delete_horizon_ms();
        let is_over = horizon.is_some_and(|horizon| horizon <= self.now_ms);
        let (drops_all, ends_empty) = if meta.is_control {
            let may_drop = transactions.marker_read(meta, &Bytes::copy_from_slice(batch))?;
            // A marker stays for as long as a tombstone would.
            (may_drop && is_over, may_drop)
        } else {
            (transactions.data_read(meta), false)
        };
        let keeps_empty = meta.has_producer_id() && self.is_last_of_producer(meta);
        if drops_all && !keeps_empty {
            return Ok(Filtered::Dropped);
        }
        let is_plain = header.compression()? == Compression::None;
        let count = if drops_all {
            Count::default()
        } else {
            self.count(meta, batch, is_over, is_plain, scratch)?
        };
        if count.kept == 0 {
            return Ok(match keeps_empty {
                // What is empty and stays is as it was.
                true if header.records_count == 0 => Filtered::Unchanged,
                true => Filtered::Changed(emptied(header)),
                false => Filtered::Dropped,
            });
        }
        let begins_horizon = horizon.is_none() && (count.has_tombstone || ends_empty);
        if count.dropped == 0 && !begins_horizon {
            return Ok(Filtered::Unchanged);
        }
        // A new CRC must not hide damage.
        verify_crc(batch)?;
        let horizon = if begins_horizon {
            Some(self.now_ms.saturating_add(self.delete_retention_ms))
        } else {
            horizon
        };
        let mut builder = builder_like(&header, horizon)?;
        let mut seen = scratch.seen.iter();
        if is_plain {
            visit_records(batch, |record| match seen.next() {
                Some(Seen { stays: true, .. }) => push(
                    &mut builder,
                    &header,
                    record.offset(),
                    record.timestamp(),
                    record.tail(),
                ),
                _ => Ok(()),
            })?;
        } else {
            let mut tails = &scratch.tails[..];
            for seen in seen {
                let (tail, rest) = tails.split_at(seen.tail_size);
                if seen.stays {
                    push(&mut builder, &header, seen.offset, seen.timestamp, tail)?;
                }
                tails = rest;
            }
        }
        Ok(Filtered::Changed(
            builder.build_up_to(header.last_offset_delta),
        ))
    }

    /// Decides on each record.
    fn count(
        &self,
        meta: &BatchMeta,
        batch: &[u8],
        is_over: bool,
        is_plain: bool,
        Scratch { seen, tails }: &mut Scratch,
    ) -> Result<Count, RecordError> {
        seen.clear();
        tails.clear();
        visit_records(batch, |record| {
            if !is_plain {
                tails.extend_from_slice(record.tail());
            }
            seen.push(Seen {
                key: record.key().map(|key| self.map.id_of(key)),
                offset: record.offset(),
                timestamp: record.timestamp(),
                has_value: record.has_value(),
                stays: true,
                tail_size: record.tail().len(),
            });
            Ok(())
        })?;
        let mut count = Count::default();
        for record in seen {
            let may_stay = record.has_value || !is_over;
            record.stays = meta.is_control || self.keeps(record.offset, record.key, may_stay);
            count.add(record.stays, record.has_value);
        }
        Ok(count)
    }

    /// Magic 0 and 1: neither producers nor horizons.
    fn filter_messages(
        &self,
        meta: &BatchMeta,
        batch: &[u8],
        transactions: &mut CleanedTransactions,
    ) -> Result<Filtered, RecordError> {
        transactions.data_read(meta);
        let batch = Bytes::copy_from_slice(batch);
        let mut kept = Vec::new();
        let mut count = Count::default();
        for record in records(&batch)? {
            let record = record?;
            let has_value = record.value.is_some();
            let key = record.key.as_deref().map(|key| self.map.id_of(key));
            let is_kept = self.keeps(
                record.offset,
                key,
                has_value || self.keeps_legacy_tombstones,
            );
            count.add(is_kept, has_value);
            if is_kept {
                kept.push(record);
            }
        }
        if count.kept == 0 {
            return Ok(Filtered::Dropped);
        }
        if count.dropped == 0 {
            return Ok(Filtered::Unchanged);
        }
        verify_crc(&batch)?;
        Ok(Filtered::Changed(rebuilt_messages(meta, kept)?))
    }

    /// Above what was looked at everything stays; below, what has a key that comes no more.
    fn keeps(&self, offset: Offset, key: Option<KeyId>, may_stay: bool) -> bool {
        if offset > self.map.latest_offset() {
            return true;
        }
        let Some(key) = key else {
            return false;
        };
        self.map.get(key).is_none_or(|latest| offset >= latest) && may_stay
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

/// A batch of the same producer, kind and place, without records.
fn builder_like(header: &BatchHeader, horizon: Option<i64>) -> Result<BatchBuilder, RecordError> {
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
    Ok(builder)
}

fn push(
    builder: &mut BatchBuilder,
    header: &BatchHeader,
    offset: Offset,
    timestamp: i64,
    tail: &[u8],
) -> Result<(), RecordError> {
    let delta = i32::try_from(offset.wrapping_sub(header.base_offset))
        .map_err(|_| RecordError::Malformed("an offset too far from its batch's"))?;
    builder.push_tail(delta, timestamp, tail);
    Ok(())
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
