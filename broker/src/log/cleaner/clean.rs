//! Cleaning one log (Kafka's `Cleaner`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use barnabas_core::compaction::{
    AbortedTransaction, Cleanable, CleanedTransactions, Filter, Filtered, KeyId, LastRecord,
    LogState, OffsetMap, Scratch, SegmentSize, cleanable, group_ends,
};
use barnabas_core::config::TopicConfig;
use barnabas_core::ids::Offset;
use barnabas_core::records::{RecordError, batches, records, visit_records};
use bytes::Bytes;
use rand::Rng as _;

use crate::log::error::StorageError;
use crate::log::partition_log::PartitionLog;
use crate::log::place::Place;
use crate::log::rewrite::{Rewrite, Rewritten};
use crate::log::scan::ScanError;
use crate::log::segment::Segment;
use crate::log::txn_index::AbortedTxn;

/// Why a log was not cleaned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CleanError {
    /// The log was cut, moved, closed or deleted meanwhile, or cleaning is to end.
    #[error("the cleaning was given up")]
    Aborted,
    /// The log cannot be cleaned, now or later.
    #[error("{0}")]
    Corrupt(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<ScanError> for CleanError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Storage(error) => Self::Storage(error),
            error @ ScanError::Broken { .. } => Self::Corrupt(error.to_string()),
        }
    }
}

impl From<RecordError> for CleanError {
    fn from(error: RecordError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

/// How many bytes are read or written before a cleaner looks whether to wait or to give up.
const PACE_BYTES: u64 = 64 * 1024;

/// What a cleaner may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    /// `log.cleaner.dedupe.buffer.size` of one thread.
    pub(crate) map_bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`
    pub(crate) load_factor: f64,
    /// How much of `log.cleaner.io.buffer.size` one thread has to read with, and to write with.
    pub(crate) io_bytes: usize,
}

/// What a cleaning did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stats {
    /// While the offset map was built.
    pub(crate) map_bytes_read: u64,
    /// While segments were written anew.
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) map_utilization: f64,
    /// The log is clean up to here.
    pub(crate) end_offset: Offset,
}

/// What of a log can be cleaned.
pub(crate) fn find_cleanable(
    log: &PartitionLog,
    config: &TopicConfig,
    now_ms: i64,
) -> Result<Cleanable, CleanError> {
    let segments = log.segments().clone();
    let mut sizes = Vec::with_capacity(segments.len());
    for segment in &segments {
        // Each costs an access to the disk: they are only looked up if the configuration asks for them.
        let largest_timestamp = if config.min_compaction_lag_ms > 0 {
            unless_gone(segment, segment.largest_timestamp().map_err(Into::into))?
        } else {
            -1
        };
        let first_timestamp = if config.max_compaction_lag_ms < i64::MAX {
            unless_gone(segment, segment.first_timestamp().map_err(Into::into))?
        } else {
            -1
        };
        sizes.push(SegmentSize {
            base_offset: segment.base_offset(),
            size: segment.size(),
            largest_timestamp,
            first_timestamp,
        });
    }
    let unstable = log.first_unstable_offset().unwrap_or(Offset::MAX);
    let state = LogState {
        checkpoint: log.cleaned_offset(),
        log_start_offset: log.log_start_offset(),
        log_end_offset: log.log_end_offset(),
        last_stable_offset: log.high_watermark().min(unstable),
        segments: &sizes,
    };
    Ok(cleanable(&state, config, now_ms))
}

/// An error of a segment that is deleted by now is none.
fn unless_gone<T>(segment: &Segment, result: Result<T, CleanError>) -> Result<T, CleanError> {
    result.map_err(|error| {
        if segment.is_deleted() {
            CleanError::Aborted
        } else {
            error
        }
    })
}

/// One cleaning of one log.
pub(crate) struct Cleaning<'a> {
    log: &'a Arc<PartitionLog>,
    place: Arc<Place>,
    config: Arc<TopicConfig>,
    cleanable: Cleanable,
    settings: Settings,
    now_ms: i64,
    truncations: u64,
    /// Is told how many bytes were read or written; returns whether to give up.
    pace: &'a dyn Fn(u64) -> bool,
    /// Read or written since that was last told.
    unpaced: u64,
    scratch: Scratch,
    stats: Stats,
}

impl<'a> Cleaning<'a> {
    pub(crate) fn new(
        log: &'a Arc<PartitionLog>,
        config: Arc<TopicConfig>,
        cleanable: Cleanable,
        settings: Settings,
        now_ms: i64,
        pace: &'a dyn Fn(u64) -> bool,
    ) -> Self {
        Self {
            log,
            place: log.place(),
            config,
            cleanable,
            settings,
            now_ms,
            truncations: log.truncations.load(Ordering::Acquire),
            pace,
            unpaced: 0,
            scratch: Scratch::default(),
            stats: Stats::default(),
        }
    }

    /// Cleans the log up to where the offset map reached.
    pub(crate) fn run(mut self) -> Result<Stats, CleanError> {
        let result = self.clean();
        match result {
            Ok(()) => Ok(self.stats),
            // Whoever deletes or moves a log takes away the files under its cleaner's feet.
            Err(CleanError::Storage(_)) if self.is_gone() => Err(CleanError::Aborted),
            Err(error) => Err(error),
        }
    }

    fn is_gone(&self) -> bool {
        let log = self.log;
        log.truncations.load(Ordering::Acquire) != self.truncations
            || !Arc::ptr_eq(&log.place(), &self.place)
            || log.cleaning_is_paused()
            || log.is_closed()
    }

    /// Takes note of bytes that were read or written.
    fn moved(&mut self, bytes: u64) -> Result<(), CleanError> {
        self.unpaced += bytes;
        if self.unpaced < PACE_BYTES {
            return Ok(());
        }
        self.take_breath()
    }

    /// Waits as long as the throttle wants; gives up if there is a reason to.
    fn take_breath(&mut self) -> Result<(), CleanError> {
        let bytes = std::mem::take(&mut self.unpaced);
        if (self.pace)(bytes) || self.is_gone() {
            return Err(CleanError::Aborted);
        }
        Ok(())
    }

    fn clean(&mut self) -> Result<(), CleanError> {
        let segments = self.log.segments().clone();
        let aborted = aborted_transactions(&segments)?;
        let map = self.build_map(&segments, &aborted)?;
        self.stats.map_utilization = map.utilization();
        let end_offset = self
            .cleanable
            .first_dirty_offset
            .max(map.latest_offset() + 1);
        let first_dirty = self.cleanable.first_dirty_offset;
        let clean = segments
            .iter()
            .take_while(|one| one.base_offset() < first_dirty);
        let legacy_horizon_ms = match clean.last() {
            Some(last) => unless_gone(last, last.modified_ms().map_err(Into::into))?
                .saturating_sub(self.config.delete_retention_ms),
            None => 0,
        };
        let producers = self.last_records();
        let to_clean: Vec<_> = segments
            .iter()
            .take_while(|one| one.base_offset() < end_offset)
            .filter(|one| one.base_offset() < self.cleanable.first_uncleanable_offset)
            .cloned()
            .collect();
        let mut sizes = Vec::with_capacity(to_clean.len());
        for segment in &to_clean {
            let count = || -> Result<_, StorageError> {
                Ok((
                    u64::from(segment.offsets.count()?) * 8,
                    u64::from(segment.times.count()?) * 12,
                ))
            };
            let (offsets, times) = unless_gone(segment, count().map_err(Into::into))?;
            sizes.push((segment.base_offset(), segment.size(), offsets, times));
        }
        let ends = group_ends(
            &sizes,
            self.cleanable.first_uncleanable_offset,
            self.config.segment_bytes.max(0) as u64,
            self.config.segment_index_bytes.max(0) as u64,
        );
        let mut transactions = CleanedTransactions::default();
        transactions.add_aborted(aborted);
        self.take_breath()?;
        // What is below the recovery point is not recovered after a crash: so nobody looks at the
        // gaps that the swaps leave, whatever becomes of this cleaning's checkpoint, and of the
        // topic's policy, until the next start.
        let next = segments.get(to_clean.len()).map(|next| next.base_offset());
        self.log
            .bring_recovery_point_to(next.unwrap_or(end_offset))?;
        let mut start = 0;
        for end in ends {
            let group = &to_clean[start..end];
            let rewritten = self.rewrite(
                group,
                &map,
                &producers,
                legacy_horizon_ms,
                &mut transactions,
            );
            let rewritten = match rewritten {
                Ok(rewritten) => rewritten,
                Err(error) => {
                    Rewrite::discard(&self.place, group[0].base_offset());
                    return Err(error);
                }
            };
            self.log.replace_segments(
                &self.place,
                group,
                rewritten,
                self.truncations,
                self.now_ms,
            )?;
            start = end;
        }
        self.log.set_cleaned_offset(end_offset, self.truncations)?;
        self.stats.end_offset = end_offset;
        Ok(())
    }

    /// Notes where each key is last in the dirty part, as far as there is memory.
    fn build_map(
        &mut self,
        segments: &[Arc<Segment>],
        aborted: &[AbortedTransaction],
    ) -> Result<OffsetMap, CleanError> {
        let Cleanable {
            first_dirty_offset,
            first_uncleanable_offset,
            ..
        } = self.cleanable;
        let offsets = first_uncleanable_offset
            .saturating_sub(first_dirty_offset)
            .max(0);
        let mut map = OffsetMap::new(
            self.settings.map_bytes,
            self.settings.load_factor,
            offsets as u64,
            crate::host::random().random(),
        );
        let mut transactions = CleanedTransactions::default();
        transactions.add_aborted(aborted.iter().copied());
        let above = segments.partition_point(|one| one.base_offset() <= first_dirty_offset);
        for segment in &segments[above.saturating_sub(1)..] {
            if segment.base_offset() >= first_uncleanable_offset {
                break;
            }
            let is_full = unless_gone(
                segment,
                self.note_segment(segment, &mut map, &mut transactions),
            )?;
            if is_full {
                break;
            }
        }
        Ok(map)
    }

    /// Returns whether the map is full.
    fn note_segment(
        &mut self,
        segment: &Segment,
        map: &mut OffsetMap,
        transactions: &mut CleanedTransactions,
    ) -> Result<bool, CleanError> {
        let first_dirty_offset = self.cleanable.first_dirty_offset;
        let size = segment.size();
        let file = segment.handle()?;
        let start = match segment.locate(&*file, first_dirty_offset, size)? {
            Some(located) => located.position,
            None => return Ok(false),
        };
        let mut scan = segment
            .scan(&*file, start, size)
            .reading(self.settings.io_bytes);
        let mut keys: Vec<(KeyId, Offset)> = Vec::new();
        while let Some((_, meta, bytes)) = scan.next_whole()? {
            self.stats.map_bytes_read += bytes.len() as u64;
            self.moved(bytes.len() as u64)?;
            if meta.is_control {
                transactions.marker_read(&meta, &Bytes::copy_from_slice(bytes))?;
            } else if !transactions.data_read(&meta) {
                keys.clear();
                let mut note = |offset, key: Option<&[u8]>| {
                    if let Some(key) = key
                        && offset >= first_dirty_offset
                    {
                        keys.push((map.id_of(key), offset));
                    }
                };
                if meta.magic >= 2 {
                    visit_records(bytes, |record| {
                        note(record.offset(), record.key());
                        Ok(())
                    })?;
                } else {
                    for record in records(&Bytes::copy_from_slice(bytes))? {
                        let record = record?;
                        note(record.offset, record.key.as_deref());
                    }
                }
                if !keys.iter().all(|&(key, offset)| map.put(key, offset)) {
                    return Ok(true);
                }
            }
            if meta.last_offset >= first_dirty_offset {
                map.set_latest_offset(meta.last_offset);
            }
        }
        Ok(false)
    }

    fn last_records(&self) -> BTreeMap<i64, LastRecord> {
        let writer = self.log.writer();
        let known = writer.producers.producers.iter();
        known
            .map(|(producer_id, entry)| {
                let last = LastRecord {
                    last_data_offset: entry.batches.back().map(|batch| batch.last_offset),
                    producer_epoch: entry.producer_epoch,
                };
                (producer_id, last)
            })
            .collect()
    }

    /// Writes what stays of segments to one.
    fn rewrite(
        &mut self,
        group: &[Arc<Segment>],
        map: &OffsetMap,
        last_records: &BTreeMap<i64, LastRecord>,
        legacy_horizon_ms: i64,
        transactions: &mut CleanedTransactions,
    ) -> Result<Rewritten, CleanError> {
        let interval = self.config.index_interval_bytes.max(0) as u64;
        let place = Arc::clone(&self.place);
        let rewrite = Rewrite::create(place, group[0].base_offset(), interval)?;
        let mut rewrite = rewrite.writing(self.settings.io_bytes);
        let mut modified_ms = 0;
        for segment in group {
            modified_ms = unless_gone(segment, segment.modified_ms().map_err(Into::into))?;
            let filter = Filter {
                map,
                last_records,
                now_ms: self.now_ms,
                delete_retention_ms: self.config.delete_retention_ms,
                keeps_legacy_tombstones: modified_ms > legacy_horizon_ms,
            };
            let copied = self.copy(segment, &filter, transactions, &mut rewrite);
            unless_gone(segment, copied)?;
        }
        Ok(rewrite.finish(modified_ms)?)
    }

    fn copy(
        &mut self,
        segment: &Segment,
        filter: &Filter<'_>,
        transactions: &mut CleanedTransactions,
        rewrite: &mut Rewrite,
    ) -> Result<(), CleanError> {
        let file = segment.handle()?;
        let mut scan = segment
            .scan(&*file, 0, segment.size())
            .reading(self.settings.io_bytes);
        while let Some((_, meta, source)) = scan.next_whole()? {
            let before = rewrite.size();
            match filter
                .apply(&meta, source, transactions, &mut self.scratch)
                .map_err(|error| CleanError::Corrupt(error.to_string()))?
            {
                Filtered::Dropped => {}
                Filtered::Unchanged => rewrite.append(&meta, source)?,
                Filtered::Changed(changed) => {
                    for batch in batches(&changed) {
                        let (position, meta) = batch?;
                        let bytes = &changed[position..position + meta.size_in_bytes];
                        rewrite.append(&meta, bytes)?;
                    }
                }
            }
            for txn in transactions.take_retained() {
                rewrite.add_aborted(AbortedTxn {
                    producer_id: txn.producer_id,
                    first_offset: txn.first_offset,
                    last_offset: txn.last_offset,
                    last_stable_offset: txn.last_stable_offset,
                });
            }
            let written = rewrite.size() - before;
            self.stats.bytes_read += source.len() as u64;
            self.stats.bytes_written += written;
            let moved = source.len() as u64 + written;
            self.moved(moved)?;
        }
        Ok(())
    }
}

/// What the transaction indexes of all segments say: a marker may be far behind its data.
fn aborted_transactions(segments: &[Arc<Segment>]) -> Result<Vec<AbortedTransaction>, CleanError> {
    let mut all = Vec::new();
    for segment in segments {
        let entries = unless_gone(segment, segment.txns.entries().map_err(Into::into))?;
        all.extend(entries.into_iter().map(|txn| AbortedTransaction {
            producer_id: txn.producer_id,
            first_offset: txn.first_offset,
            last_offset: txn.last_offset,
            last_stable_offset: txn.last_stable_offset,
        }));
    }
    Ok(all)
}
