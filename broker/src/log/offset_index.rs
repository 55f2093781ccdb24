//! From offsets to positions in a segment file (`.index`).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use barnabas_core::ids::Offset;

use super::error::StorageError;
use super::index_file::IndexFile;
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

/// The offset index of one segment. Only the log's writer changes it.
#[derive(Debug)]
pub(crate) struct OffsetIndex {
    base_offset: Offset,
    file: IndexFile<SIZE>,
    state: Mutex<Option<State>>,
    last_answer: AtomicU32,
}

#[derive(Clone, Copy, Debug)]
struct State {
    count: u32,
    last: OffsetPosition,
}

impl OffsetIndex {
    pub(crate) fn new(place: Arc<Place>, base_offset: Offset) -> Self {
        Self {
            base_offset,
            file: IndexFile::new(place, base_offset, OFFSET_INDEX),
            state: Mutex::new(None),
            last_answer: AtomicU32::new(0),
        }
    }

    /// How many entries there are.
    pub(crate) fn count(&self) -> Result<u32, StorageError> {
        Ok(self.state()?.count)
    }

    /// The last entry; the segment's start if there is none.
    pub(crate) fn last(&self) -> Result<OffsetPosition, StorageError> {
        Ok(self.state()?.last)
    }

    pub(crate) fn file_exists(&self) -> Result<bool, StorageError> {
        Ok(self.file.length()?.is_some())
    }

    pub(crate) fn create(&self) -> Result<(), StorageError> {
        self.file.create()
    }

    /// The largest entry whose offset is at most `target`; the segment's start if there is none.
    pub(crate) fn lookup(&self, target: Offset) -> Result<OffsetPosition, StorageError> {
        let state = self.state()?;
        if state.count == 0 || target >= state.last.offset {
            return Ok(state.last);
        }
        let hint = self.last_answer.load(Ordering::Relaxed);
        if hint < state.count
            && let Some(found) = self.lookup_after(hint, target)?
        {
            return Ok(found);
        }
        let (mut low, mut high) = (0, state.count);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            if entry.offset <= target {
                found = Some((middle, entry));
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some((slot, entry)) = found else {
            return Ok(self.start());
        };
        self.last_answer.store(slot, Ordering::Relaxed);
        Ok(entry)
    }

    /// The offset of the first entry whose position is at least `position`.
    pub(crate) fn first_at_position(&self, position: u64) -> Result<Option<Offset>, StorageError> {
        let state = self.state()?;
        let (mut low, mut high) = (0, state.count);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            if u64::from(entry.position) >= position {
                found = Some(entry.offset);
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(found)
    }

    /// Looks in the entries right after the last answer; `None` if the target is not there.
    fn lookup_after(
        &self,
        slot: u32,
        target: Offset,
    ) -> Result<Option<OffsetPosition>, StorageError> {
        let entries = self.file.read_many(slot, READ_AHEAD)?;
        let below = entries
            .iter()
            .take_while(|entry| self.decode(**entry).offset <= target)
            .count();
        // Without an entry above the target inside of the window the answer may lie further on.
        if below == 0 || below == entries.len() {
            return Ok(None);
        }
        self.last_answer
            .store(slot + below as u32 - 1, Ordering::Relaxed);
        Ok(Some(self.decode(entries[below - 1])))
    }

    /// Adds an entry; one that is not above the last is left out.
    pub(crate) fn append(&self, entry: OffsetPosition) -> Result<(), StorageError> {
        let state = self.state()?;
        if state.count > 0 && entry.offset <= state.last.offset {
            return Ok(());
        }
        let relative = (entry.offset - self.base_offset) as i32;
        let mut bytes = [0; SIZE];
        bytes[..4].copy_from_slice(&relative.to_be_bytes());
        bytes[4..].copy_from_slice(&entry.position.to_be_bytes());
        self.file.write(state.count, &bytes)?;
        *self.slot() = Some(State {
            count: state.count + 1,
            last: entry,
        });
        Ok(())
    }

    /// Keeps entries below `offset`.
    pub(crate) fn truncate_to(&self, offset: Offset) -> Result<(), StorageError> {
        let state = self.state()?;
        let (mut low, mut high) = (0, state.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.offset < offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.keep(low)
    }

    /// Removes all entries.
    pub(crate) fn reset(&self) -> Result<(), StorageError> {
        self.keep(0)
    }

    /// Makes these the entries; those which stand there already are not written again.
    pub(crate) fn replace(&self, entries: &[OffsetPosition]) -> Result<(), StorageError> {
        let count = self.state()?.count;
        let mut equal = 0;
        for (slot, entry) in (0..count).zip(entries) {
            if self.entry(slot)? != *entry {
                break;
            }
            equal = slot + 1;
        }
        if equal < count {
            self.keep(equal)?;
        }
        for entry in &entries[equal as usize..] {
            self.append(*entry)?;
        }
        Ok(())
    }

    fn keep(&self, count: u32) -> Result<(), StorageError> {
        self.file.truncate(count)?;
        let state = State {
            count,
            last: match count.checked_sub(1) {
                Some(slot) => self.entry(slot)?,
                None => self.start(),
            },
        };
        *self.slot() = Some(state);
        self.last_answer.store(0, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.file.sync()
    }

    pub(crate) fn close(&self) {
        self.file.close();
    }

    fn start(&self) -> OffsetPosition {
        OffsetPosition {
            offset: self.base_offset,
            position: 0,
        }
    }

    /// An entry; the segment's start if it was cut off by a truncation meanwhile.
    fn entry(&self, slot: u32) -> Result<OffsetPosition, StorageError> {
        let entry = self.file.read(slot)?;
        Ok(entry.map_or(self.start(), |entry| self.decode(entry)))
    }

    fn decode(&self, entry: [u8; SIZE]) -> OffsetPosition {
        let (fields, _) = entry.as_chunks::<4>();
        OffsetPosition {
            offset: self.base_offset + Offset::from(i32::from_be_bytes(fields[0])),
            position: u32::from_be_bytes(fields[1]),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> Result<State, StorageError> {
        let mut slot = self.slot();
        if let Some(state) = *slot {
            return Ok(state);
        }
        let state = self.load()?;
        *slot = Some(state);
        Ok(state)
    }

    /// Reads the end of the file. A broker that was killed leaves zeros behind the entries; no
    /// entry is zero, because none is written for the first bytes of a segment.
    fn load(&self) -> Result<State, StorageError> {
        let mut count = self.file.count()?;
        if self.file.has_partial_entry()? {
            self.file.truncate(count)?;
        }
        if count > 0 && self.entry(count - 1)?.position == 0 {
            let (mut low, mut high) = (0, count);
            while low < high {
                let middle = low + (high - low) / 2;
                if self.entry(middle)?.position > 0 {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            count = low;
            self.file.truncate(count)?;
        }
        let last = match count.checked_sub(1) {
            Some(slot) => self.entry(slot)?,
            None => self.start(),
        };
        Ok(State { count, last })
    }
}
