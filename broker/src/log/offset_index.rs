//! From offsets to positions in a segment file (`.index`).

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use barnabas_core::ids::Offset;

use super::error::StorageError;
use super::index::{Index, IndexEntry};
use super::place::{OFFSET_INDEX, Place};

const SIZE: usize = 8;
/// How many entries after the last answer are looked at before a binary search: a consumer that
/// reads on finds its place there. 32 entries cover at least 128 KiB of log at Kafka's interval.
const READ_AHEAD: usize = 32;

/// An entry: the last offset of an append, and where in the file that append begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetPosition {
    pub(crate) offset: Offset,
    pub(crate) position: u32,
}

impl IndexEntry<SIZE> for OffsetPosition {
    const SUFFIX: &'static str = OFFSET_INDEX;

    fn start(base_offset: Offset) -> Self {
        Self {
            offset: base_offset,
            position: 0,
        }
    }

    fn offset(&self) -> Offset {
        self.offset
    }

    fn follows(&self, last: &Self, is_first: bool) -> bool {
        is_first || self.offset > last.offset
    }

    fn encode(&self, base_offset: Offset) -> [u8; SIZE] {
        let relative = (self.offset - base_offset) as i32;
        let mut bytes = [0; SIZE];
        bytes[..4].copy_from_slice(&relative.to_be_bytes());
        bytes[4..].copy_from_slice(&self.position.to_be_bytes());
        bytes
    }

    fn decode(base_offset: Offset, bytes: &[u8; SIZE]) -> Self {
        let (fields, _) = bytes.as_chunks::<4>();
        Self {
            offset: base_offset + Offset::from(i32::from_be_bytes(fields[0])),
            position: u32::from_be_bytes(fields[1]),
        }
    }

    /// No entry is written for the first bytes of a segment.
    fn is_padding(_slot: u32, bytes: &[u8; SIZE]) -> bool {
        bytes[4..] == [0; 4]
    }
}

/// The offset index of one segment.
#[derive(Debug)]
pub(crate) struct OffsetIndex {
    index: Index<OffsetPosition, SIZE>,
    last_answer: AtomicU32,
}

impl Deref for OffsetIndex {
    type Target = Index<OffsetPosition, SIZE>;

    fn deref(&self) -> &Self::Target {
        &self.index
    }
}

impl OffsetIndex {
    pub(crate) fn new(place: Arc<Place>, base_offset: Offset) -> Self {
        Self {
            index: Index::new(place, base_offset),
            last_answer: AtomicU32::new(0),
        }
    }

    /// The largest entry whose offset is at most `target`; the segment's start if there is none.
    pub(crate) fn lookup(&self, target: Offset) -> Result<OffsetPosition, StorageError> {
        let (count, last) = self.end()?;
        if count == 0 || target >= last.offset {
            return Ok(last);
        }
        let hint = self.last_answer.load(Ordering::Relaxed);
        if hint < count
            && let Some(found) = self.lookup_after(hint, target)?
        {
            return Ok(found);
        }
        let Some((slot, entry)) = self.last_while(|entry| entry.offset <= target)? else {
            return Ok(self.start());
        };
        self.last_answer.store(slot, Ordering::Relaxed);
        Ok(entry)
    }

    /// The offset of the first entry whose position is at least `position`.
    pub(crate) fn first_at_position(&self, position: u64) -> Result<Option<Offset>, StorageError> {
        let below = self.last_while(|entry| u64::from(entry.position) < position)?;
        let first = below.map_or(0, |(slot, _)| slot + 1);
        if first == self.count()? {
            return Ok(None);
        }
        Ok(Some(self.entry(first)?.offset))
    }

    /// Looks in the entries right after the last answer; `None` if the target is not there.
    fn lookup_after(
        &self,
        slot: u32,
        target: Offset,
    ) -> Result<Option<OffsetPosition>, StorageError> {
        let entries = self.entries(slot, READ_AHEAD)?;
        let below = entries
            .iter()
            .take_while(|entry| entry.offset <= target)
            .count();
        // Without an entry above the target inside of the window the answer may lie further on.
        if below == 0 || below == entries.len() {
            return Ok(None);
        }
        self.last_answer
            .store(slot + below as u32 - 1, Ordering::Relaxed);
        Ok(Some(entries[below - 1]))
    }
}
