//! The content of a `.snapshot` file (version 1).

use std::collections::VecDeque;

use super::{ProducerEntry, StoredBatch};

const VERSION: i16 = 1;
/// Version and CRC, which the CRC does not cover.
const PREFIX: usize = 2 + 4;
const ENTRY: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;

/// Why bytes are not a producer snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a producer snapshot: {0}")]
pub struct InvalidSnapshot(&'static str);

/// The bytes of a snapshot: of each producer the last batch only.
pub fn encode_snapshot<'a>(
    producers: impl ExactSizeIterator<Item = (i64, &'a ProducerEntry)>,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX + 4 + producers.len() * ENTRY);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(producers.len() as i32).to_be_bytes());
    for (producer_id, entry) in producers {
        let last = entry.batches.back();
        bytes.extend_from_slice(&producer_id.to_be_bytes());
        bytes.extend_from_slice(&entry.producer_epoch.to_be_bytes());
        bytes.extend_from_slice(&entry.last_sequence().to_be_bytes());
        bytes.extend_from_slice(&entry.last_offset().to_be_bytes());
        bytes.extend_from_slice(&last.map_or(0, |batch| batch.offset_delta).to_be_bytes());
        bytes.extend_from_slice(&entry.last_timestamp.to_be_bytes());
        bytes.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
        let open = entry.current_txn_first_offset.unwrap_or(-1);
        bytes.extend_from_slice(&open.to_be_bytes());
    }
    let crc = crc32c::crc32c(&bytes[PREFIX..]);
    bytes[2..PREFIX].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The producers in a snapshot, in its order.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Vec<(i64, ProducerEntry)>, InvalidSnapshot> {
    let mut reader = Reader { rest: bytes };
    if reader.i16()? != VERSION {
        return Err(InvalidSnapshot("another version"));
    }
    let crc = reader.i32()? as u32;
    if crc != crc32c::crc32c(reader.rest) {
        return Err(InvalidSnapshot("wrong CRC"));
    }
    let count = usize::try_from(reader.i32()?).map_err(|_| InvalidSnapshot("negative count"))?;
    if reader.rest.len() / ENTRY < count {
        return Err(InvalidSnapshot("too short for its count"));
    }
    (0..count).map(|_| entry(&mut reader)).collect()
}

fn entry(reader: &mut Reader<'_>) -> Result<(i64, ProducerEntry), InvalidSnapshot> {
    let producer_id = reader.i64()?;
    let producer_epoch = reader.i16()?;
    let last_sequence = reader.i32()?;
    let last_offset = reader.i64()?;
    let offset_delta = reader.i32()?;
    let timestamp = reader.i64()?;
    let coordinator_epoch = reader.i32()?;
    let current_txn_first_offset = reader.i64()?;
    let mut batches = VecDeque::new();
    if last_offset >= 0 {
        batches.push_back(StoredBatch {
            last_sequence,
            last_offset,
            offset_delta,
            timestamp,
        });
    }
    let entry = ProducerEntry {
        producer_epoch,
        coordinator_epoch,
        last_timestamp: timestamp,
        current_txn_first_offset: Some(current_txn_first_offset).filter(|offset| *offset >= 0),
        batches,
    };
    Ok((producer_id, entry))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], InvalidSnapshot> {
        let (head, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(InvalidSnapshot("it ends too early"))?;
        self.rest = rest;
        Ok(*head)
    }

    fn i16(&mut self) -> Result<i16, InvalidSnapshot> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, InvalidSnapshot> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, InvalidSnapshot> {
        self.take().map(i64::from_be_bytes)
    }
}
