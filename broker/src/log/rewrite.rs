//! Writing a part of a log anew beside it, and putting that in the place of the old segments.
//!
//! As Kafka does it: new files are written as `.cleaned` and made durable, all of them are renamed
//! to `.swap` from the last on, the old ones to `.deleted`, and at last the new ones get their names.
//! Whenever this is interrupted, loading (`recovery::leftovers`) undoes it for as long as there is a
//! `.cleaned` file and completes it once there is none.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use barnabas_core::ids::Offset;
use barnabas_core::records::BatchMeta;

use super::error::{Described as _, StorageError};
use super::index::IndexEntry as _;
use super::offset_index::OffsetPosition;
use super::place::{CLEANED, LOG, OFFSET_INDEX, Place, SWAP, TIME_INDEX, TXN_INDEX, reaches};
use super::segment::{FoundIndexes, remove_if_exists};
use super::time_index::TimestampOffset;
use super::txn_index::AbortedTxn;
use crate::files::{self, FileHandle, OpenMode};

/// How much is written at once, unless told otherwise.
const CHUNK: usize = 1024 * 1024;

/// A segment that is being written anew.
#[derive(Debug)]
pub(crate) struct Rewrite {
    place: Arc<Place>,
    base_offset: Offset,
    file: Arc<dyn FileHandle>,
    /// Bytes that are in the file.
    written: u64,
    buffer: Vec<u8>,
    chunk: usize,
    indexes: IndexBuilder,
    index_interval_bytes: u64,
}

/// Gathers the index entries of batches in a row.
#[derive(Debug)]
pub(crate) struct IndexBuilder {
    found: FoundIndexes,
    max_timestamp: TimestampOffset,
    last_indexed: u64,
}

impl IndexBuilder {
    pub(crate) fn new(base_offset: Offset) -> Self {
        Self {
            found: FoundIndexes::default(),
            max_timestamp: TimestampOffset::start(base_offset),
            last_indexed: 0,
        }
    }

    /// Takes note of the next batch.
    pub(crate) fn add(&mut self, meta: &BatchMeta, position: u64, index_interval_bytes: u64) {
        if meta.max_timestamp > self.max_timestamp.timestamp {
            self.max_timestamp = TimestampOffset {
                timestamp: meta.max_timestamp,
                offset: meta.last_offset,
            };
        }
        // An entry that is not above the last would make lookups go astray.
        let last_entry = self.found.offsets.last().map_or(-1, |last| last.offset);
        if position - self.last_indexed > index_interval_bytes && meta.last_offset > last_entry {
            self.found.offsets.push(OffsetPosition {
                offset: meta.last_offset,
                position: position as u32,
            });
            self.found.add_time(self.max_timestamp);
            self.last_indexed = position;
        }
    }

    pub(crate) fn add_aborted(&mut self, txn: AbortedTxn) {
        self.found.txns.push(txn);
    }

    /// All entries, the largest timestamp at the end of the time index.
    pub(crate) fn finish(mut self) -> FoundIndexes {
        self.found.add_time(self.max_timestamp);
        self.found
    }
}

impl Rewrite {
    /// Begins a segment; what an earlier attempt left is overwritten.
    pub(crate) fn create(
        place: Arc<Place>,
        base_offset: Offset,
        index_interval_bytes: u64,
    ) -> Result<Self, StorageError> {
        let path = cleaned_path(&place, base_offset, LOG);
        let file = place.files().open(&path, OpenMode::Create);
        let file = file.describe("create", &path)?;
        file.truncate(0).describe("truncate", &path)?;
        Ok(Self {
            place,
            base_offset,
            file,
            written: 0,
            buffer: Vec::new(),
            chunk: CHUNK,
            indexes: IndexBuilder::new(base_offset),
            index_interval_bytes,
        })
    }

    /// Writes about as much at once.
    pub(crate) fn writing(mut self, bytes: usize) -> Self {
        self.chunk = bytes;
        self
    }

    /// Bytes so far.
    pub(crate) fn size(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Whether the offset can be told relative to the base offset.
    pub(crate) fn reaches(&self, offset: Offset) -> bool {
        reaches(self.base_offset, offset)
    }

    /// Adds a batch.
    pub(crate) fn append(&mut self, meta: &BatchMeta, batch: &[u8]) -> Result<(), StorageError> {
        let position = self.size();
        self.indexes.add(meta, position, self.index_interval_bytes);
        self.buffer.extend_from_slice(batch);
        if self.buffer.len() >= self.chunk {
            self.write_buffer()?;
        }
        Ok(())
    }

    /// Adds an aborted transaction whose marker was added.
    pub(crate) fn add_aborted(&mut self, txn: AbortedTxn) {
        self.indexes.add_aborted(txn);
    }

    fn write_buffer(&mut self) -> Result<(), StorageError> {
        files::write_full_at(&*self.file, &mut [IoSlice::new(&self.buffer)], self.written)
            .describe(
                "write to",
                &cleaned_path(&self.place, self.base_offset, LOG),
            )?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Removes what there is of a segment that will not be used, as far as that goes: loading the log
    /// removes the rest.
    pub(crate) fn discard(place: &Place, base_offset: Offset) {
        for suffix in [LOG, OFFSET_INDEX, TIME_INDEX, TXN_INDEX] {
            let _ = remove_if_exists(&**place.files(), &cleaned_path(place, base_offset, suffix));
        }
    }

    /// Ends the segment: everything is on disk, with this time of last change.
    pub(crate) fn finish(mut self, modified_ms: i64) -> Result<Rewritten, StorageError> {
        self.write_buffer()?;
        let base_offset = self.base_offset;
        let path = cleaned_path(&self.place, base_offset, LOG);
        self.file.sync().describe("flush", &path)?;
        drop(self.file);
        let found = self.indexes.finish();
        let offsets = found.offsets.iter();
        let times = found.times.iter();
        let txns = found.txns.iter();
        let contents = [
            (
                OFFSET_INDEX,
                offsets.flat_map(|e| e.encode(base_offset)).collect(),
            ),
            (
                TIME_INDEX,
                times.flat_map(|e| e.encode(base_offset)).collect(),
            ),
            (TXN_INDEX, txns.flat_map(AbortedTxn::encode).collect()),
        ];
        for (suffix, content) in contents {
            let content: Vec<u8> = content;
            if suffix != TXN_INDEX || !content.is_empty() {
                write_new(&self.place, base_offset, suffix, &content)?;
            }
        }
        self.place
            .files()
            .set_modified(&path, modified_ms)
            .describe("set the time of", &path)?;
        Ok(Rewritten {
            base_offset,
            size: self.written,
            has_txns: !found.txns.is_empty(),
        })
    }
}

fn write_new(
    place: &Place,
    base_offset: Offset,
    suffix: &str,
    content: &[u8],
) -> Result<(), StorageError> {
    let path = cleaned_path(place, base_offset, suffix);
    let write = || {
        let file = place.files().open(&path, OpenMode::Create)?;
        file.truncate(0)?;
        files::write_full_at(&*file, &mut [IoSlice::new(content)], 0)?;
        file.sync()
    };
    write().describe("write", &path)
}

/// A segment that was written anew and waits to take its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewritten {
    pub(crate) base_offset: Offset,
    /// Bytes of its batches.
    pub(crate) size: u64,
    has_txns: bool,
}

impl Rewritten {
    fn suffixes(&self) -> impl Iterator<Item = &'static str> + use<> {
        let has_txns = self.has_txns;
        [LOG, OFFSET_INDEX, TIME_INDEX, TXN_INDEX]
            .into_iter()
            .filter(move |suffix| has_txns || *suffix != TXN_INDEX)
    }
}

/// Puts segments in the place of others: `remove_old` gives the old files other names.
pub(crate) fn replace(
    place: &Place,
    rewritten: &[Rewritten],
    remove_old: impl FnOnce() -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let directory = place.directory();
    let rename = |segment: &Rewritten, from: &str, to: &str| -> Result<(), StorageError> {
        for suffix in segment.suffixes() {
            let name = |ending: &str| {
                place.segment_path(segment.base_offset, &format!("{suffix}{ending}"))
            };
            let path = name(from);
            place
                .files()
                .rename(&path, &name(to))
                .describe("rename", &path)?;
        }
        Ok(())
    };
    place.sync_directory(&directory)?;
    for segment in rewritten.iter().rev() {
        rename(segment, CLEANED, SWAP)?;
    }
    place.sync_directory(&directory)?;
    remove_old()?;
    for segment in rewritten {
        rename(segment, SWAP, "")?;
    }
    place.sync_directory(&directory)
}

fn cleaned_path(place: &Place, base_offset: Offset, suffix: &str) -> PathBuf {
    place.segment_path(base_offset, &format!("{suffix}{CLEANED}"))
}
