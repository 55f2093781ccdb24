//! Control records: the markers that end transactions (KIP-98).

use bytes::Bytes;

use super::batch::{BatchHeader, i16_at, i32_at};
use super::record::{Record, records};
use super::{BatchBuilder, Compression, RecordError};

/// What a control record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecord {
    Abort {
        coordinator_epoch: i32,
    },
    Commit {
        coordinator_epoch: i32,
    },
    /// A type that this broker does not know, or one of `KRaft`'s (leader change, snapshot header...).
    Unknown(i16),
}

impl ControlRecord {
    /// Reads key and value of a record in a control batch.
    pub fn parse(record: &Record) -> Result<Self, RecordError> {
        const CUT: RecordError = RecordError::Malformed("control record key or value is too short");
        let key = record.key.as_deref().unwrap_or_default();
        if key.len() < 4 {
            return Err(CUT);
        }
        let kind = i16_at(key, 2);
        if !(0..=1).contains(&kind) {
            return Ok(Self::Unknown(kind));
        }
        let value = record.value.as_deref().unwrap_or_default();
        if value.len() < 6 {
            return Err(CUT);
        }
        let coordinator_epoch = i32_at(value, 2);
        Ok(if kind == 0 {
            Self::Abort { coordinator_epoch }
        } else {
            Self::Commit { coordinator_epoch }
        })
    }

    /// Reads the one record of a control batch; None for a batch that compaction has emptied.
    pub fn of_batch(batch: &Bytes) -> Result<Option<Self>, RecordError> {
        let header = BatchHeader::parse(batch)?;
        if !header.is_control() {
            return Err(RecordError::Malformed("not a control batch"));
        }
        records(batch)?
            .next()
            .transpose()?
            .map(|record| Self::parse(&record))
            .transpose()
    }
}

/// What a transaction comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub commit: bool,
    pub coordinator_epoch: i32,
    pub timestamp_ms: i64,
    /// Whether the topic keeps the time of the append.
    pub is_log_append_time: bool,
    /// -1 if the log sets it.
    pub leader_epoch: i32,
}

/// The control batch that ends a transaction on one partition; base offset 0.
pub fn end_transaction_marker(marker: &EndTransactionMarker) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None)
        .leader_epoch(marker.leader_epoch)
        .producer(
            marker.producer_id,
            marker.producer_epoch,
            super::batch::NO_SEQUENCE,
        )
        .transactional()
        .control();
    if marker.is_log_append_time {
        builder = builder.log_append_time(marker.timestamp_ms);
    }
    let key = [0, 0, 0, u8::from(marker.commit)];
    let mut value = [0; 6];
    value[2..].copy_from_slice(&marker.coordinator_epoch.to_be_bytes());
    builder.push(marker.timestamp_ms, Some(&key), Some(&value), &[]);
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_reads_as_it_was_written() {
        for commit in [false, true] {
            let batch = end_transaction_marker(&EndTransactionMarker {
                producer_id: 5,
                producer_epoch: 1,
                commit,
                coordinator_epoch: 9,
                timestamp_ms: 77,
                is_log_append_time: false,
                leader_epoch: 3,
            });
            let header = BatchHeader::parse(&batch).unwrap();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.last_sequence(), header.max_timestamp), (-1, 77));
            let coordinator_epoch = 9;
            assert_eq!(
                ControlRecord::of_batch(&batch).unwrap(),
                Some(if commit {
                    ControlRecord::Commit { coordinator_epoch }
                } else {
                    ControlRecord::Abort { coordinator_epoch }
                })
            );
        }
    }
}
