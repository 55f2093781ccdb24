//! From timestamps to offsets in a segment (`.timeindex`).

use barnabas_core::ids::Offset;

use super::error::StorageError;
use super::index::{Index, IndexEntry};
use super::place::TIME_INDEX;

const SIZE: usize = 12;

/// An entry: the largest timestamp so far, and the last offset of the batch that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimestampOffset {
    pub(crate) timestamp: i64,
    pub(crate) offset: Offset,
}

impl IndexEntry<SIZE> for TimestampOffset {
    const SUFFIX: &'static str = TIME_INDEX;

    fn start(base_offset: Offset) -> Self {
        Self {
            timestamp: -1,
            offset: base_offset,
        }
    }

    fn offset(&self) -> Offset {
        self.offset
    }

    fn follows(&self, last: &Self, _is_first: bool) -> bool {
        self.timestamp > last.timestamp && self.offset >= last.offset
    }

    fn encode(&self, base_offset: Offset) -> [u8; SIZE] {
        let relative = (self.offset - base_offset) as i32;
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&relative.to_be_bytes());
        bytes
    }

    fn decode(base_offset: Offset, bytes: &[u8; SIZE]) -> Self {
        let (words, _) = bytes.as_chunks::<4>();
        let timestamp = (i64::from(i32::from_be_bytes(words[0])) << 32)
            | i64::from(u32::from_be_bytes(words[1]));
        Self {
            timestamp,
            offset: base_offset + Offset::from(i32::from_be_bytes(words[2])),
        }
    }

    /// A real entry can be zero only in the first place.
    fn is_padding(slot: u32, bytes: &[u8; SIZE]) -> bool {
        slot > 0 && *bytes == [0; SIZE]
    }
}

/// The time index of one segment.
pub(crate) type TimeIndex = Index<TimestampOffset, SIZE>;

impl TimeIndex {
    /// The largest entry whose timestamp is at most `target`; the start if there is none.
    pub(crate) fn lookup(&self, target: i64) -> Result<TimestampOffset, StorageError> {
        let (count, last) = self.end()?;
        if count > 0 && target >= last.timestamp {
            return Ok(last);
        }
        let found = self.last_while(|entry| entry.timestamp <= target)?;
        Ok(found.map_or_else(|| self.start(), |(_, entry)| entry))
    }
}
