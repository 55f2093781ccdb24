//! One segment: a file of batches and its indexes (Kafka's `LogSegment`).
//!
//! Only the log's writer changes a segment, one append at a time. Readers see what lies below the
//! published size and never wait for the writer's disk access.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::Offset;
use barnabas_core::records::BatchMeta;

use super::error::{Described as _, StorageError};
use super::offset_index::{OffsetIndex, OffsetPosition};
use super::place::{DELETED, LOG, OFFSET_INDEX, Place, TIME_INDEX, TXN_INDEX, reaches};
use super::scan::{Scan, ScanError};
use super::time_index::{TimeIndex, TimestampOffset};
use super::txn_index::{AbortedTxn, TxnIndex};
use crate::files::cache::CachedFile;
use crate::files::{self, FileHandle, OpenMode};

/// How many of the last appends are remembered with their positions: a consumer at the end of the
/// log finds its place without reading the index or the file.
const RECENT: usize = 16;

/// A segment. Its files are opened when needed.
#[derive(Debug)]
pub(crate) struct Segment {
    place: Arc<Place>,
    base_offset: Offset,
    file: Arc<CachedFile>,
    size: AtomicU64,
    pub(crate) offsets: OffsetIndex,
    pub(crate) times: TimeIndex,
    pub(crate) txns: TxnIndex,
    progress: Mutex<Progress>,
    recent: Mutex<Vec<OffsetPosition>>,
    is_deleted: AtomicBool,
    /// The file is longer than its batches until the segment takes no more appends.
    is_preallocated: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    bytes_since_index_entry: u64,
    /// Largest timestamp and the last offset of its batch, once known.
    max_timestamp: Option<TimestampOffset>,
    /// Largest timestamp of the first batch, once known.
    first_timestamp: Option<i64>,
    created_ms: i64,
}

/// What one append adds: one or more whole batches.
pub(crate) struct SegmentAppend<'a, 'b> {
    pub(crate) buffers: &'a mut [IoSlice<'b>],
    pub(crate) size: usize,
    pub(crate) first_offset: Offset,
    pub(crate) last_offset: Offset,
    /// Largest timestamp, and the last offset of the batch that has it.
    pub(crate) max_timestamp: TimestampOffset,
    pub(crate) index_interval_bytes: u64,
}

/// The indexes of a segment as its batches ask for them.
#[derive(Debug, Default)]
pub(crate) struct FoundIndexes {
    pub(crate) offsets: Vec<OffsetPosition>,
    pub(crate) times: Vec<TimestampOffset>,
    pub(crate) txns: Vec<AbortedTxn>,
}

impl FoundIndexes {
    /// Adds a time if it is later than all before.
    pub(crate) fn add_time(&mut self, max: TimestampOffset) {
        let last = self.times.last().map_or(-1, |last| last.timestamp);
        if max.timestamp > last {
            self.times.push(max);
        }
    }
}

/// When a new segment is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RollRules {
    pub(crate) segment_bytes: u64,
    /// `segment.ms` without its jitter.
    pub(crate) segment_ms: i64,
    pub(crate) index_bytes: u64,
}

/// A batch that was looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) position: u64,
    pub(crate) meta: BatchMeta,
}

impl Segment {
    /// A segment of which `size` bytes are valid.
    pub(crate) fn new(place: Arc<Place>, base_offset: Offset, size: u64, now_ms: i64) -> Self {
        Self {
            offsets: OffsetIndex::new(Arc::clone(&place), base_offset),
            times: TimeIndex::new(Arc::clone(&place), base_offset),
            txns: TxnIndex::new(Arc::clone(&place), base_offset),
            place,
            base_offset,
            file: Arc::default(),
            size: AtomicU64::new(size),
            progress: Mutex::new(Progress {
                bytes_since_index_entry: 0,
                max_timestamp: None,
                first_timestamp: None,
                created_ms: now_ms,
            }),
            recent: Mutex::default(),
            is_deleted: AtomicBool::new(false),
            is_preallocated: AtomicBool::new(false),
        }
    }

    /// Creates an empty segment with its files, with `preallocate` at its full size.
    pub(crate) fn create(
        place: Arc<Place>,
        base_offset: Offset,
        config: &TopicConfig,
        now_ms: i64,
    ) -> Result<Self, StorageError> {
        let segment = Self::new(place, base_offset, 0, now_ms);
        let file = segment.open(OpenMode::Create)?;
        if file.length().describe("examine", &segment.path())? > 0 {
            file.truncate(0).describe("truncate", &segment.path())?;
        }
        if config.preallocate {
            file.truncate(config.segment_bytes.max(0) as u64)
                .describe("preallocate", &segment.path())?;
            segment.is_preallocated.store(true, Ordering::Release);
        }
        segment.offsets.create()?;
        segment.offsets.reset()?;
        segment.times.create()?;
        segment.times.reset()?;
        segment.txns.reset()?;
        segment.close();
        Ok(segment)
    }

    pub(crate) fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Bytes of whole, published batches.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.place.segment_path(self.base_offset, LOG)
    }

    /// The open file. Of a deleted segment there is none, see [`Segment::is_deleted`].
    pub(crate) fn handle(&self) -> Result<Arc<dyn FileHandle>, StorageError> {
        self.open(OpenMode::Write)
    }

    fn open(&self, mode: OpenMode) -> Result<Arc<dyn FileHandle>, StorageError> {
        self.place
            .volume
            .cache
            .handle(&self.file, mode, || self.path())
            .map_err(|source| StorageError::new("open", self.path(), source))
    }

    /// When the file last changed, in milliseconds since the epoch.
    pub(crate) fn modified_ms(&self) -> Result<i64, StorageError> {
        let path = self.path();
        let status = self
            .place
            .files()
            .status(&path)
            .describe("examine", &path)?;
        Ok(status.modified_ms)
    }

    /// Writes batches behind the last one. If that fails nothing was added.
    pub(crate) fn append(&self, append: &mut SegmentAppend<'_, '_>) -> Result<(), StorageError> {
        let position = self.size();
        let file = self.handle()?;
        let written = files::write_full_at(&*file, append.buffers, position)
            .describe("write to", &self.path())
            .and_then(|()| self.index(position, append));
        if let Err(error) = written {
            // The error takes the directory offline anyway; what else goes wrong adds nothing.
            let _ = file.truncate(position);
            return Err(error);
        }
        self.remember(OffsetPosition {
            offset: append.first_offset,
            position: position as u32,
        });
        self.size
            .store(position + append.size as u64, Ordering::Release);
        Ok(())
    }

    fn index(&self, position: u64, append: &SegmentAppend<'_, '_>) -> Result<(), StorageError> {
        let mut progress = *self.progress();
        if position == 0 {
            progress.first_timestamp = Some(append.max_timestamp.timestamp);
        }
        let known = self.max_timestamp_of(&progress)?;
        let max_timestamp = if append.max_timestamp.timestamp > known.timestamp {
            append.max_timestamp
        } else {
            known
        };
        progress.max_timestamp = Some(max_timestamp);
        if progress.bytes_since_index_entry > append.index_interval_bytes {
            self.offsets.append(OffsetPosition {
                offset: append.last_offset,
                position: position as u32,
            })?;
            self.times.append(max_timestamp)?;
            progress.bytes_since_index_entry = 0;
        }
        progress.bytes_since_index_entry += append.size as u64;
        *self.progress() = progress;
        Ok(())
    }

    fn remember(&self, append: OffsetPosition) {
        let mut recent = self.recent();
        if recent.len() == RECENT {
            recent.remove(0);
        }
        recent.push(append);
    }

    /// The largest timestamp, with the last offset of its batch; timestamp -1 if there is none.
    pub(crate) fn max_timestamp(&self) -> Result<TimestampOffset, StorageError> {
        let progress = *self.progress();
        let max_timestamp = self.max_timestamp_of(&progress)?;
        let mut progress = self.progress();
        // An append may have noted a larger one meanwhile.
        Ok(*progress.max_timestamp.get_or_insert(max_timestamp))
    }

    fn max_timestamp_of(&self, progress: &Progress) -> Result<TimestampOffset, StorageError> {
        match progress.max_timestamp {
            Some(known) => Ok(known),
            None => self.times.last(),
        }
    }

    /// The largest timestamp, or without any the time of the last change.
    pub(crate) fn largest_timestamp(&self) -> Result<i64, StorageError> {
        let max = self.max_timestamp()?.timestamp;
        if max >= 0 {
            Ok(max)
        } else {
            self.modified_ms()
        }
    }

    /// Whether a batch of `size` bytes up to `last_offset` has to go to a new segment.
    pub(crate) fn is_full_for(
        &self,
        size: u64,
        last_offset: Offset,
        max_timestamp: i64,
        rules: &RollRules,
        now_ms: i64,
    ) -> Result<bool, ScanError> {
        let own_size = self.size();
        if own_size + size > rules.segment_bytes || !reaches(self.base_offset, last_offset) {
            return Ok(true);
        }
        if own_size > 0 && self.waited_ms(max_timestamp, now_ms)? > rules.segment_ms {
            return Ok(true);
        }
        let offset_entries = u64::from(self.offsets.count()?);
        let time_entries = u64::from(self.times.count()?);
        Ok(offset_entries >= rules.index_bytes / 8 || time_entries + 1 >= rules.index_bytes / 12)
    }

    fn waited_ms(&self, max_timestamp: i64, now_ms: i64) -> Result<i64, ScanError> {
        let progress = *self.progress();
        let first_timestamp = self.first_timestamp()?;
        Ok(if first_timestamp >= 0 {
            max_timestamp.saturating_sub(first_timestamp)
        } else {
            now_ms.saturating_sub(progress.created_ms)
        })
    }

    /// The largest timestamp of the first batch; -1 if there is none.
    pub(crate) fn first_timestamp(&self) -> Result<i64, ScanError> {
        let known = self.progress().first_timestamp;
        if let Some(known) = known {
            return Ok(known);
        }
        let file = self.handle()?;
        let mut scan = self.scan(&*file, 0, self.size());
        let first = scan.next_header()?;
        let timestamp = first.map_or(-1, |(_, meta)| meta.max_timestamp);
        self.progress().first_timestamp = Some(timestamp);
        Ok(timestamp)
    }

    pub(crate) fn scan<'a>(&self, file: &'a dyn FileHandle, position: u64, limit: u64) -> Scan<'a> {
        Scan::new(file, self.path(), position, limit)
    }

    /// The first batch whose last offset is at least `offset`, below position `limit`.
    pub(crate) fn locate(
        &self,
        file: &dyn FileHandle,
        offset: Offset,
        limit: u64,
    ) -> Result<Option<Located>, ScanError> {
        let start = match self.recent_position(offset) {
            Some(position) => position,
            None => self.offsets.lookup(offset)?.position,
        };
        match self.locate_from(file, offset, u64::from(start), limit) {
            // A damaged index may point anywhere: walk from the start before giving up.
            Ok(LocatedFrom::TooLate) | Err(ScanError::Broken { .. }) if start > 0 => {
                match self.locate_from(file, offset, 0, limit)? {
                    LocatedFrom::Found(located) => Ok(Some(located)),
                    LocatedFrom::End | LocatedFrom::TooLate => Ok(None),
                }
            }
            Ok(LocatedFrom::Found(located)) => Ok(Some(located)),
            Ok(LocatedFrom::End | LocatedFrom::TooLate) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn locate_from(
        &self,
        file: &dyn FileHandle,
        offset: Offset,
        start: u64,
        limit: u64,
    ) -> Result<LocatedFrom, ScanError> {
        if start > 0 && start >= limit {
            return Ok(LocatedFrom::TooLate);
        }
        let mut scan = self.scan(file, start, limit);
        let mut is_first = true;
        while let Some((position, meta)) = scan.next_header()? {
            if meta.last_offset >= offset {
                // Right at an index entry the batch must not begin above what was asked for.
                if is_first && start > 0 && meta.base_offset > offset {
                    return Ok(LocatedFrom::TooLate);
                }
                return Ok(LocatedFrom::Found(Located { position, meta }));
            }
            is_first = false;
        }
        Ok(LocatedFrom::End)
    }

    /// Where the append that contains `offset` begins, if it is one of the last.
    fn recent_position(&self, offset: Offset) -> Option<u32> {
        let recent = self.recent();
        let above = recent.partition_point(|append| append.offset <= offset);
        above.checked_sub(1).map(|index| recent[index].position)
    }

    /// The offset after the last batch, found from the last index entry on, and where that batch
    /// ends. What follows there in the file is no whole batch.
    pub(crate) fn end(&self) -> Result<(Offset, u64), StorageError> {
        let size = self.size();
        let file = self.handle()?;
        let start = u64::from(self.offsets.last()?.position);
        let from_index = self.end_from(&*file, start, size)?;
        match from_index {
            Some(end) => Ok(end),
            // The entry points at nothing that is whole.
            None if start > 0 => Ok(self
                .end_from(&*file, 0, size)?
                .unwrap_or((self.base_offset, 0))),
            None => Ok((self.base_offset, 0)),
        }
    }

    fn end_from(
        &self,
        file: &dyn FileHandle,
        start: u64,
        size: u64,
    ) -> Result<Option<(Offset, u64)>, StorageError> {
        let mut scan = self.scan(file, start.min(size), size);
        let mut end = None;
        loop {
            match scan.next_header() {
                Ok(Some((_, meta))) => end = Some((meta.next_offset(), scan.position())),
                Ok(None) | Err(ScanError::Broken { .. }) => return Ok(end),
                Err(ScanError::Storage(error)) => return Err(error),
            }
        }
    }

    /// Makes batches below `offset` the whole content. Returns how many bytes were cut off.
    pub(crate) fn truncate_to(&self, offset: Offset, now_ms: i64) -> Result<u64, ScanError> {
        let size = self.size();
        let file = self.handle()?;
        let located = self.locate(&*file, offset, size)?;
        self.offsets.truncate_to(offset)?;
        self.times.truncate_to(offset)?;
        self.txns.truncate_to(offset)?;
        let end = located.map_or(size, |located| located.position);
        self.cut(&*file, end)?;
        let mut progress = self.progress();
        progress.bytes_since_index_entry = 0;
        progress.max_timestamp = None;
        if end == 0 {
            progress.created_ms = now_ms;
            progress.first_timestamp = None;
        }
        drop(progress);
        if end > 0 {
            self.find_max_timestamp(&*file)?;
        }
        // The log may be cut at its recovery point and go on in a new segment: then no recovery
        // would look at the indexes of this one.
        self.sync_indexes()?;
        Ok(size - end)
    }

    /// Looks for the largest timestamp behind the last entry of the time index, which alone does
    /// not tell after a truncation.
    fn find_max_timestamp(&self, file: &dyn FileHandle) -> Result<(), ScanError> {
        let mut max = self.times.last()?;
        let start = self.offsets.lookup(max.offset)?.position;
        let mut scan = self.scan(file, u64::from(start), self.size());
        while let Some((_, meta)) = scan.next_header()? {
            if meta.max_timestamp > max.timestamp {
                max = TimestampOffset {
                    timestamp: meta.max_timestamp,
                    offset: meta.last_offset,
                };
            }
        }
        self.progress().max_timestamp = Some(max);
        Ok(())
    }

    /// Cuts the file at `end`, which is where a batch ends. Waits for the disk: after a loss of power
    /// what was cut off must not stand behind what was appended since.
    pub(crate) fn cut(&self, file: &dyn FileHandle, end: u64) -> Result<(), StorageError> {
        self.recent().clear();
        self.size.store(end, Ordering::Release);
        if file.length().describe("examine", &self.path())? != end {
            file.truncate(end).describe("truncate", &self.path())?;
            file.sync().describe("flush", &self.path())?;
        }
        Ok(())
    }

    /// Gives the segment the indexes that recovery found, the largest timestamp at the end of the
    /// time index.
    pub(crate) fn finish_recovery(&self, found: &FoundIndexes) -> Result<(), StorageError> {
        self.progress().max_timestamp = found.times.last().copied();
        self.offsets.replace(&found.offsets)?;
        self.times.replace(&found.times)?;
        self.txns.replace(&found.txns)
    }

    /// Returns once the indexes are on disk.
    pub(crate) fn sync_indexes(&self) -> Result<(), StorageError> {
        self.offsets.sync()?;
        self.times.sync()?;
        self.txns.sync()
    }

    /// Ends the time index with the largest timestamp: the segment takes no more appends. Returns
    /// whether that added an entry.
    pub(crate) fn seal(&self) -> Result<bool, StorageError> {
        if self.is_preallocated.swap(false, Ordering::AcqRel) {
            // Waits for the disk: if all of it was flushed before, nobody would look for what is too much
            // after a loss of power.
            let file = self.handle()?;
            file.truncate(self.size())
                .describe("truncate", &self.path())?;
            file.sync().describe("flush", &self.path())?;
        }
        let max_timestamp = self.max_timestamp()?;
        let before = self.times.count()?;
        self.times.append(max_timestamp)?;
        *self.recent() = Vec::new();
        Ok(self.times.count()? > before)
    }

    /// Creates the index files that do not exist: Kafka rebuilds indexes that are missing.
    pub(crate) fn create_missing(&self) -> Result<(), StorageError> {
        self.offsets.create()?;
        self.times.create()
    }

    /// Returns once the segment's files are on disk.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        self.sync_file()?;
        self.sync_indexes()
    }

    /// Returns once the batches and where they end are on disk.
    pub(crate) fn sync_file(&self) -> Result<(), StorageError> {
        self.handle()?.sync().describe("flush", &self.path())
    }

    /// Closes the files; they are opened again when needed.
    pub(crate) fn close(&self) {
        self.file.close();
        self.offsets.close();
        self.times.close();
        self.txns.close();
    }

    /// Whether the segment was deleted: whoever still knows it must not wonder about missing files.
    pub(crate) fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    /// The segment's files that exist.
    pub(crate) fn existing_files(&self) -> Result<Vec<PathBuf>, StorageError> {
        let mut existing = Vec::with_capacity(4);
        for suffix in [LOG, OFFSET_INDEX, TIME_INDEX, TXN_INDEX] {
            let path = self.place.segment_path(self.base_offset, suffix);
            if self
                .place
                .files()
                .exists(&path)
                .describe("examine", &path)?
            {
                existing.push(path);
            }
        }
        Ok(existing)
    }

    /// Gives the files names under which they are not looked for any more, and returns these.
    pub(crate) fn rename_deleted(&self) -> Result<Vec<PathBuf>, StorageError> {
        self.is_deleted.store(true, Ordering::Release);
        let mut renamed = Vec::with_capacity(4);
        for path in self.existing_files()? {
            let to = with_suffix(&path, DELETED);
            self.place
                .files()
                .rename(&path, &to)
                .describe("rename", &path)?;
            renamed.push(to);
        }
        Ok(renamed)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Vec<OffsetPosition>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum LocatedFrom {
    Found(Located),
    /// All batches lie below the offset.
    End,
    /// The walk began behind the offset.
    TooLate,
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes a file; one that is gone already is no error.
pub(crate) fn remove_if_exists(
    files: &dyn crate::files::Files,
    path: &Path,
) -> Result<(), StorageError> {
    match files.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.describe("remove", path),
    }
}
