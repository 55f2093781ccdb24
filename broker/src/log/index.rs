//! A file of entries that ascend, beside a segment: what the offset index and the time index share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use barnabas_core::ids::Offset;

use super::error::StorageError;
use super::index_file::IndexFile;
use super::place::Place;

/// An entry of `SIZE` bytes. Offsets are stored relative to the base offset of the segment.
pub(crate) trait IndexEntry<const SIZE: usize>: Copy + PartialEq + Send {
    /// The suffix of the file.
    const SUFFIX: &'static str;

    /// What stands for the segment's start, where there is no entry.
    fn start(base_offset: Offset) -> Self;

    fn offset(&self) -> Offset;

    /// Whether the entry may stand behind `last`, which is the start before the first entry.
    fn follows(&self, last: &Self, is_first: bool) -> bool;

    fn encode(&self, base_offset: Offset) -> [u8; SIZE];

    fn decode(base_offset: Offset, bytes: &[u8; SIZE]) -> Self;

    /// Whether these bytes in this place are no entry, but what Kafka pads its files with.
    fn is_padding(slot: u32, bytes: &[u8; SIZE]) -> bool;
}

/// The index of one segment. Only the log's writer changes it.
#[derive(Debug)]
pub(crate) struct Index<E, const SIZE: usize> {
    base_offset: Offset,
    file: IndexFile<SIZE>,
    state: Mutex<Option<State<E>>>,
}

#[derive(Clone, Copy, Debug)]
struct State<E> {
    count: u32,
    last: E,
}

impl<E: IndexEntry<SIZE>, const SIZE: usize> Index<E, SIZE> {
    pub(crate) fn new(place: Arc<Place>, base_offset: Offset) -> Self {
        Self {
            base_offset,
            file: IndexFile::new(place, base_offset, E::SUFFIX),
            state: Mutex::new(None),
        }
    }

    /// How many entries there are.
    pub(crate) fn count(&self) -> Result<u32, StorageError> {
        Ok(self.state()?.count)
    }

    /// The last entry; the segment's start if there is none.
    pub(crate) fn last(&self) -> Result<E, StorageError> {
        Ok(self.state()?.last)
    }

    /// How many entries there are, and the last; the segment's start if there is none.
    pub(super) fn end(&self) -> Result<(u32, E), StorageError> {
        let State { count, last } = self.state()?;
        Ok((count, last))
    }

    /// What stands for the segment's start.
    pub(super) fn start(&self) -> E {
        E::start(self.base_offset)
    }

    pub(crate) fn create(&self) -> Result<(), StorageError> {
        self.file.create()
    }

    /// The last entry of which `is_below` says so, with its place; those before it must be, too.
    pub(super) fn last_while(
        &self,
        is_below: impl Fn(&E) -> bool,
    ) -> Result<Option<(u32, E)>, StorageError> {
        let (mut low, mut high) = (0, self.count()?);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            if is_below(&entry) {
                found = Some((middle, entry));
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(found)
    }

    /// Up to `count` entries from `slot` on.
    pub(super) fn entries(&self, slot: u32, count: usize) -> Result<Vec<E>, StorageError> {
        let entries = self.file.read_many(slot, count)?;
        let decode = |bytes| E::decode(self.base_offset, bytes);
        Ok(entries.iter().map(decode).collect())
    }

    /// An entry; the segment's start if it was cut off by a truncation meanwhile.
    pub(super) fn entry(&self, slot: u32) -> Result<E, StorageError> {
        let bytes = self.file.read(slot)?;
        Ok(bytes.map_or_else(
            || E::start(self.base_offset),
            |bytes| E::decode(self.base_offset, &bytes),
        ))
    }

    /// Adds an entry, unless it must not stand behind the last.
    pub(crate) fn append(&self, entry: E) -> Result<(), StorageError> {
        let State { count, last } = self.state()?;
        if !entry.follows(&last, count == 0) {
            return Ok(());
        }
        self.file.write(count, &entry.encode(self.base_offset))?;
        *self.slot() = Some(State {
            count: count + 1,
            last: entry,
        });
        Ok(())
    }

    /// Keeps entries below `offset`.
    pub(crate) fn truncate_to(&self, offset: Offset) -> Result<(), StorageError> {
        let last = self.last_while(|entry| entry.offset() < offset)?;
        self.keep(last.map_or(0, |(slot, _)| slot + 1))
    }

    /// Removes all entries.
    pub(crate) fn reset(&self) -> Result<(), StorageError> {
        self.keep(0)
    }

    /// Makes these the entries; those which stand there already are not written again.
    pub(crate) fn replace(&self, entries: &[E]) -> Result<(), StorageError> {
        let count = self.count()?;
        let mut equal = 0;
        for (slot, entry) in (0..count).zip(entries) {
            if self.entry(slot)? != *entry {
                break;
            }
            equal = slot + 1;
        }
        self.keep(equal)?;
        for entry in &entries[equal as usize..] {
            self.append(*entry)?;
        }
        Ok(())
    }

    fn keep(&self, count: u32) -> Result<(), StorageError> {
        if count < self.count()? {
            self.file.truncate(count)?;
            let last = self.last_of(count)?;
            *self.slot() = Some(State { count, last });
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.file.sync()
    }

    pub(crate) fn close(&self) {
        self.file.close();
    }

    fn last_of(&self, count: u32) -> Result<E, StorageError> {
        match count.checked_sub(1) {
            Some(slot) => self.entry(slot),
            None => Ok(E::start(self.base_offset)),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<State<E>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> Result<State<E>, StorageError> {
        let mut slot = self.slot();
        if let Some(state) = *slot {
            return Ok(state);
        }
        let state = self.load()?;
        *slot = Some(state);
        Ok(state)
    }

    /// Reads the end of the file. Kafka leaves padding behind the entries if it is killed, and
    /// whoever loses power a part of an entry; both are cut off.
    fn load(&self) -> Result<State<E>, StorageError> {
        let length = self.file.length()?.unwrap_or(0);
        let whole = u32::try_from(length / SIZE as u64).unwrap_or(u32::MAX);
        let is_padding = |slot| -> Result<bool, StorageError> {
            let bytes = self.file.read(slot)?;
            Ok(bytes.is_none_or(|bytes| E::is_padding(slot, &bytes)))
        };
        let mut count = whole;
        if count > 0 && is_padding(count - 1)? {
            let (mut low, mut high) = (0, count);
            while low < high {
                let middle = low + (high - low) / 2;
                if is_padding(middle)? {
                    high = middle;
                } else {
                    low = middle + 1;
                }
            }
            count = low;
        }
        if length != u64::from(count) * SIZE as u64 {
            self.file.truncate(count)?;
        }
        let last = self.last_of(count)?;
        Ok(State { count, last })
    }
}
