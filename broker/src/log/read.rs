//! Finding things in a log: byte ranges for Fetch, offsets by timestamp, aborted transactions.

use std::sync::Arc;

use barnabas_core::ids::Offset;
use barnabas_core::records::{BatchMeta, RecordError, find_by_timestamp, max_timestamp_record};
use bytes::Bytes;

use super::error::{LogError, StorageError};
use super::partition_log::{LogEnd, PartitionLog};
use super::scan::ScanError;
use super::segment::Segment;
use super::types::{AbortedTransaction, LogSlice, OffsetLookup};
use crate::files::FileHandle;

impl PartitionLog {
    /// A byte range of one segment file: the batch that holds `offset` and what follows below
    /// `upper_bound` (an offset, exclusive), at most `max_bytes` and cut anywhere. With
    /// `minimum_one_batch` at least the first batch is whole. Empty if there is nothing in between.
    pub fn read(
        &self,
        offset: Offset,
        max_bytes: usize,
        upper_bound: Offset,
        minimum_one_batch: bool,
    ) -> Result<LogSlice, LogError> {
        Self::with_segments(|| self.read_once(offset, max_bytes, upper_bound, minimum_one_batch))
    }

    fn read_once(
        &self,
        offset: Offset,
        max_bytes: usize,
        upper_bound: Offset,
        minimum_one_batch: bool,
    ) -> Result<LogSlice, LogError> {
        self.check()?;
        let end = self.end();
        let log_start_offset = self.log_start_offset();
        if offset < log_start_offset || offset > end.offset {
            return Err(LogError::OffsetOutOfRange {
                topic_partition: self.topic_partition().clone(),
                offset,
                log_start_offset,
                log_end_offset: end.offset,
            });
        }
        if offset == end.offset || offset >= upper_bound {
            return Ok(LogSlice::empty());
        }
        // Compaction may leave nothing at or above the offset in its segment: go on in the next.
        let mut next = Some(offset);
        while let Some((segment, following)) = next.and_then(|base| self.segment_at(base)) {
            let limit = limit_of(&segment, &end);
            let file = self.watch_read(&segment, segment.handle())?;
            let located = self.watch_read_scan(&segment, segment.locate(&*file, offset, limit))?;
            let Some(located) = located else {
                next = following;
                continue;
            };
            let is_bounded_here =
                upper_bound < end.offset && following.is_none_or(|base| upper_bound < base);
            let limit = if is_bounded_here {
                let bound =
                    self.watch_read_scan(&segment, segment.locate(&*file, upper_bound, limit))?;
                bound.map_or(limit, |bound| bound.position)
            } else {
                limit
            };
            if located.position >= limit {
                return Ok(LogSlice::empty());
            }
            let batch = located.meta.size_in_bytes;
            let wanted = if minimum_one_batch {
                max_bytes.max(batch)
            } else {
                max_bytes
            };
            return Ok(LogSlice {
                file,
                path: segment.path().into(),
                position: located.position,
                length: wanted.min((limit - located.position) as usize),
                segment_base_offset: segment.base_offset(),
                first_batch_incomplete: wanted < batch,
            });
        }
        Ok(LogSlice::empty())
    }

    /// Reads again if that fails because the cleaner has replaced a segment meanwhile. An offset that
    /// is out of range is found to be so without reading.
    fn with_segments<T>(read: impl Fn() -> Result<T, LogError>) -> Result<T, LogError> {
        for _ in 0..3 {
            match read() {
                Err(LogError::OffsetOutOfRange { .. }) => {}
                other => return other,
            }
        }
        read()
    }

    /// How many bytes lie between two offsets of the same segment; `None` if they lie in different
    /// ones. For long polls that wait for a number of bytes.
    pub fn bytes_between(&self, from: Offset, to: Offset) -> Result<Option<u64>, LogError> {
        Self::with_segments(|| self.bytes_between_once(from, to))
    }

    fn bytes_between_once(&self, from: Offset, to: Offset) -> Result<Option<u64>, LogError> {
        self.check()?;
        let end = self.end();
        let Some((segment, following)) = self.segment_at(from) else {
            return Ok(Some(0));
        };
        if following.is_some_and(|base| to > base) {
            return Ok(None);
        }
        let limit = limit_of(&segment, &end);
        let file = self.watch_read(&segment, segment.handle())?;
        let position = |offset| -> Result<u64, LogError> {
            if offset >= end.offset {
                return Ok(limit);
            }
            let located = self.watch_read_scan(&segment, segment.locate(&*file, offset, limit))?;
            Ok(located.map_or(limit, |located| located.position))
        };
        Ok(Some(position(to)?.saturating_sub(position(from)?)))
    }

    /// The segment that holds `offset`, and the base offset of the one after it.
    pub(super) fn segment_at(&self, offset: Offset) -> Option<(Arc<Segment>, Option<Offset>)> {
        let segments = self.segments();
        let above = segments.partition_point(|segment| segment.base_offset() <= offset);
        let segment = segments.get(above.saturating_sub(1))?;
        let following = segments.get(above.max(1)).map(|next| next.base_offset());
        Some((Arc::clone(segment), following))
    }

    /// The first record at or after the log start whose timestamp is at least `timestamp` (>= 0).
    ///
    /// Kafka looks into the first segment only that has such a timestamp, and finds nothing if all
    /// of these records are below the log start.
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<OffsetLookup>, LogError> {
        Self::with_segments(|| self.offset_for_timestamp_once(timestamp))
    }

    fn offset_for_timestamp_once(&self, timestamp: i64) -> Result<Option<OffsetLookup>, LogError> {
        self.check()?;
        let log_start_offset = self.log_start_offset();
        let end = self.end();
        let segments = self.segments().clone();
        for segment in segments {
            let largest = segment.largest_timestamp();
            if self.watch_read(&segment, largest)? < timestamp {
                continue;
            }
            let limit = limit_of(&segment, &end);
            let file = self.watch_read(&segment, segment.handle())?;
            let after = self.watch_read(&segment, segment.times.lookup(timestamp))?;
            let start = segment.offsets.lookup(after.offset.max(log_start_offset));
            let start = u64::from(self.watch_read(&segment, start)?.position);
            let found = self.first_record(&segment, &*file, start, limit, |meta, bytes| {
                if meta.max_timestamp < timestamp {
                    return Ok(None);
                }
                find_by_timestamp(&Bytes::copy_from_slice(bytes), timestamp, log_start_offset)
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first record that has the largest timestamp of all.
    pub fn max_timestamp_offset(&self) -> Result<Option<OffsetLookup>, LogError> {
        Self::with_segments(|| self.max_timestamp_offset_once())
    }

    fn max_timestamp_offset_once(&self) -> Result<Option<OffsetLookup>, LogError> {
        self.check()?;
        let end = self.end();
        let segments = self.segments().clone();
        let mut latest = None;
        for segment in segments {
            let max = self.watch_read(&segment, segment.max_timestamp())?;
            if latest
                .as_ref()
                .is_none_or(|(_, known): &(_, super::time_index::TimestampOffset)| {
                    max.timestamp > known.timestamp
                })
            {
                latest = Some((segment, max));
            }
        }
        let Some((segment, max)) = latest else {
            return Ok(None);
        };
        let limit = limit_of(&segment, &end);
        let file = self.watch_read(&segment, segment.handle())?;
        let start = self
            .watch_read(&segment, segment.offsets.lookup(max.offset))?
            .position;
        self.first_record(&segment, &*file, u64::from(start), limit, |meta, bytes| {
            if meta.max_timestamp != max.timestamp {
                return Ok(None);
            }
            max_timestamp_record(&Bytes::copy_from_slice(bytes))
        })
    }

    /// The first record that `find` sees in a batch of `[start, limit)`.
    fn first_record(
        &self,
        segment: &Segment,
        file: &dyn FileHandle,
        start: u64,
        limit: u64,
        find: impl Fn(&BatchMeta, &[u8]) -> Result<Option<(Offset, i64)>, RecordError>,
    ) -> Result<Option<OffsetLookup>, LogError> {
        let mut scan = segment.scan(file, start.min(limit), limit);
        loop {
            let next = match scan.next_whole() {
                Ok(next) => next,
                Err(error) => {
                    return self.watch_scan(Err::<Option<OffsetLookup>, ScanError>(error));
                }
            };
            let Some((position, meta, bytes)) = next else {
                return Ok(None);
            };
            let found = find(&meta, bytes).map_err(|error| LogError::CorruptBatch {
                topic_partition: self.topic_partition().clone(),
                reason: format!(
                    "{error} (at position {position} of {})",
                    segment.path().display()
                ),
            })?;
            if let Some((offset, timestamp)) = found {
                return Ok(Some(OffsetLookup {
                    offset,
                    timestamp,
                    leader_epoch: Some(meta.leader_epoch).filter(|epoch| *epoch >= 0),
                }));
            }
        }
    }

    /// Offsets that segments began with before `timestamp`, newest first, at most `max`
    /// (`ListOffsets` v0; -1 is the latest, -2 the earliest).
    pub fn legacy_offsets_before(
        &self,
        timestamp: i64,
        max: usize,
        now_ms: i64,
    ) -> Result<Vec<Offset>, LogError> {
        self.check()?;
        let segments = self.segments().clone();
        let log_start_offset = self.log_start_offset();
        let mut starts = Vec::with_capacity(segments.len() + 1);
        for segment in &segments {
            let begin = segment.base_offset().max(log_start_offset);
            starts.push((begin, self.watch_read(segment, segment.modified_ms())?));
        }
        if segments.last().is_some_and(|active| active.size() > 0) {
            starts.push((self.log_end_offset(), now_ms));
        }
        let eligible = match timestamp {
            -1 => starts.len(),
            -2 => starts.len().min(1),
            _ => starts
                .iter()
                .rposition(|(_, modified)| *modified <= timestamp)
                .map_or(0, |index| index + 1),
        };
        let mut offsets: Vec<Offset> = starts[..eligible]
            .iter()
            .rev()
            .take(max)
            .map(|(offset, _)| *offset)
            .collect();
        offsets.sort_unstable_by(|a, b| b.cmp(a));
        Ok(offsets)
    }

    /// The aborted transactions that a transactional reader of `slice`, which was read at `from`,
    /// has to know: those with records up to the index entry that follows the slice.
    pub fn aborted_transactions_of(
        &self,
        from: Offset,
        slice: &LogSlice,
    ) -> Result<Vec<AbortedTransaction>, LogError> {
        if slice.is_empty() {
            return Ok(Vec::new());
        }
        let upper_bound = match self.segment_at(slice.segment_base_offset) {
            Some((segment, following)) => {
                let end = slice.position + slice.length as u64;
                let indexed = self.watch_read(&segment, segment.offsets.first_at_position(end))?;
                indexed.or(following)
            }
            None => None,
        };
        self.aborted_transactions(from, upper_bound.unwrap_or_else(|| self.log_end_offset()))
    }

    /// The aborted transactions that have records in `[from, upper_bound)`.
    pub fn aborted_transactions(
        &self,
        from: Offset,
        upper_bound: Offset,
    ) -> Result<Vec<AbortedTransaction>, LogError> {
        Self::with_segments(|| self.aborted_transactions_once(from, upper_bound))
    }

    fn aborted_transactions_once(
        &self,
        from: Offset,
        upper_bound: Offset,
    ) -> Result<Vec<AbortedTransaction>, LogError> {
        self.check()?;
        let segments = {
            let segments = self.segments();
            let above = segments.partition_point(|segment| segment.base_offset() <= from);
            segments[above.saturating_sub(1)..].to_vec()
        };
        let mut aborted = Vec::new();
        for segment in segments {
            for txn in self.watch_read(&segment, segment.txns.entries())? {
                if txn.last_offset >= from && txn.first_offset < upper_bound {
                    aborted.push(AbortedTransaction {
                        producer_id: txn.producer_id,
                        first_offset: txn.first_offset,
                    });
                }
                if txn.last_stable_offset >= upper_bound {
                    return Ok(aborted);
                }
            }
        }
        Ok(aborted)
    }

    /// Takes the log directory offline if `result` is an error, unless the segment was deleted
    /// since it was looked up: then the offset is out of range.
    fn watch_read<T>(
        &self,
        segment: &Segment,
        result: Result<T, StorageError>,
    ) -> Result<T, LogError> {
        match result {
            Err(_) if segment.is_deleted() => Err(LogError::OffsetOutOfRange {
                topic_partition: self.topic_partition().clone(),
                offset: segment.base_offset(),
                log_start_offset: self.log_start_offset(),
                log_end_offset: self.log_end_offset(),
            }),
            result => Ok(self.watch(result)?),
        }
    }

    fn watch_read_scan<T>(
        &self,
        segment: &Segment,
        result: Result<T, ScanError>,
    ) -> Result<T, LogError> {
        match result {
            Err(ScanError::Storage(error)) => self.watch_read(segment, Err(error)),
            result => self.watch_scan(result),
        }
    }
}

/// Where the batches end that a reader may see.
fn limit_of(segment: &Segment, end: &LogEnd) -> u64 {
    if segment.base_offset() == end.segment_base {
        end.position
    } else {
        segment.size()
    }
}
