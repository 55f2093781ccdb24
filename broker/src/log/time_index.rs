//! From timestamps to offsets in a segment (`.timeindex`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use barnabas_core::ids::Offset;

use super::error::StorageError;
use super::index_file::IndexFile;
use super::place::{Place, TIME_INDEX};

const SIZE: usize = 12;

/// An entry: the largest timestamp so far, and the last offset of the batch that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimestampOffset {
    pub(crate) timestamp: i64,
    pub(crate) offset: Offset,
}

/// The time index of one segment. Only the log's writer changes it.
#[derive(Debug)]
pub(crate) struct TimeIndex {
    base_offset: Offset,
    file: IndexFile<SIZE>,
    state: Mutex<Option<State>>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    count: u32,
    last: TimestampOffset,
}

impl TimeIndex {
    pub(crate) fn new(place: Arc<Place>, base_offset: Offset) -> Self {
        Self {
            base_offset,
            file: IndexFile::new(place, base_offset, TIME_INDEX),
            state: Mutex::new(None),
        }
    }

    /// How many entries there are.
    pub(crate) fn count(&self) -> Result<u32, StorageError> {
        Ok(self.state()?.count)
    }

    /// The last entry; timestamp -1 at the segment's start if there is none.
    pub(crate) fn last(&self) -> Result<TimestampOffset, StorageError> {
        Ok(self.state()?.last)
    }

    pub(crate) fn file_exists(&self) -> Result<bool, StorageError> {
        Ok(self.file.length()?.is_some())
    }

    pub(crate) fn create(&self) -> Result<(), StorageError> {
        self.file.create()
    }

    /// The largest entry whose timestamp is at most `target`; the start if there is none.
    pub(crate) fn lookup(&self, target: i64) -> Result<TimestampOffset, StorageError> {
        let state = self.state()?;
        if state.count > 0 && target >= state.last.timestamp {
            return Ok(state.last);
        }
        let (mut low, mut high) = (0, state.count);
        let mut found = self.start();
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            if entry.timestamp <= target {
                found = entry;
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(found)
    }

    /// Adds an entry if its timestamp is above that of the last.
    pub(crate) fn append(&self, entry: TimestampOffset) -> Result<(), StorageError> {
        let state = self.state()?;
        if entry.timestamp <= state.last.timestamp || entry.offset < state.last.offset {
            return Ok(());
        }
        let relative = (entry.offset - self.base_offset) as i32;
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&entry.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&relative.to_be_bytes());
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
    pub(crate) fn replace(&self, entries: &[TimestampOffset]) -> Result<(), StorageError> {
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
        let last = self.last_of(count)?;
        *self.slot() = Some(State { count, last });
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.file.sync()
    }

    pub(crate) fn close(&self) {
        self.file.close();
    }

    fn start(&self) -> TimestampOffset {
        TimestampOffset {
            timestamp: -1,
            offset: self.base_offset,
        }
    }

    fn last_of(&self, count: u32) -> Result<TimestampOffset, StorageError> {
        match count.checked_sub(1) {
            Some(slot) => self.entry(slot),
            None => Ok(self.start()),
        }
    }

    /// An entry; the segment's start if it was cut off by a truncation meanwhile.
    fn entry(&self, slot: u32) -> Result<TimestampOffset, StorageError> {
        let entry = self.file.read(slot)?;
        Ok(entry.map_or(self.start(), |entry| self.decode(&entry)))
    }

    fn decode(&self, entry: &[u8; SIZE]) -> TimestampOffset {
        let (words, _) = entry.as_chunks::<4>();
        let timestamp = (i64::from(i32::from_be_bytes(words[0])) << 32)
            | i64::from(u32::from_be_bytes(words[1]));
        TimestampOffset {
            timestamp,
            offset: self.base_offset + Offset::from(i32::from_be_bytes(words[2])),
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

    /// Reads the end of the file. A broker that was killed leaves zeros behind the entries; a real
    /// entry can be zero only in the first place.
    fn load(&self) -> Result<State, StorageError> {
        let is_zero = |slot| Ok::<_, StorageError>(self.file.read(slot)? == Some([0; SIZE]));
        let mut count = self.file.count()?;
        if self.file.has_partial_entry()? {
            self.file.truncate(count)?;
        }
        if count > 1 && is_zero(count - 1)? {
            let (mut low, mut high) = (0, count);
            while low < high {
                let middle = low + (high - low) / 2;
                if is_zero(middle)? {
                    high = middle;
                } else {
                    low = middle + 1;
                }
            }
            count = low;
            self.file.truncate(count)?;
        }
        let last = self.last_of(count)?;
        Ok(State { count, last })
    }
}
