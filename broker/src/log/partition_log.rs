//! The log of one replica (Kafka's `UnifiedLog` and `LocalLog`).
//!
//! Appends, truncation, deletion and snapshots go one after the other under the writer's mutex.
//! What readers need (segments, end, epochs) has short locks of its own, never held during a disk
//! access. Locks are taken in the order writer, segments, epochs, end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::{LeaderEpoch, Offset, TopicId, TopicPartition};
use barnabas_core::partition::leader_epochs::{EpochStart, LeaderEpochs};
use rand::Rng as _;

use super::checkpoint::{self, LEADER_EPOCHS};
use super::error::{LogError, StorageError};
use super::partition_metadata;
use super::place::{Place, Volume};
use super::producer_state::ProducerState;
use super::scan::ScanError;
use super::segment::Segment;
use super::types::ProducerDescription;
use crate::files::Durability;

/// The log of one replica; shared by `Arc`, synchronised inside.
#[derive(Debug)]
pub struct PartitionLog {
    topic_partition: TopicPartition,
    place: RwLock<Arc<Place>>,
    this: Weak<PartitionLog>,
    topic_id: Mutex<Option<TopicId>>,
    config: RwLock<Arc<TopicConfig>>,
    pub(super) segments: RwLock<Vec<Arc<Segment>>>,
    epochs: RwLock<LeaderEpochs>,
    /// The epoch checkpoint may not be on disk yet.
    pub(super) epochs_unsynced: AtomicBool,
    pub(super) end: Mutex<LogEnd>,
    log_start_offset: AtomicI64,
    high_watermark: AtomicI64,
    /// The high watermark that was last written to disk; -1 if none was.
    checkpointed_high_watermark: AtomicI64,
    /// `i64::MAX` if no transaction is open or undecided.
    first_unstable_offset: AtomicI64,
    awaits_high_watermark: AtomicBool,
    /// Up to where the log was cleaned; -1 if it was not.
    pub(super) cleaned_offset: AtomicI64,
    /// The cleaner is to keep away.
    pub(super) cleaning_paused: AtomicBool,
    /// The cleaner found something that it cannot clean.
    pub(super) uncleanable: AtomicBool,
    pub(super) recovery_point: AtomicI64,
    /// The recovery point as it stands in the checkpoint.
    pub(super) checkpointed_recovery_point: AtomicI64,
    /// How often the log was cut.
    pub(super) truncations: AtomicU64,
    /// See [`Loaded::is_settled`].
    pub(super) is_settled: AtomicBool,
    pub(super) last_flush_ms: AtomicI64,
    writer: Mutex<Writer>,
}

/// Where the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogEnd {
    pub(super) offset: Offset,
    pub(super) segment_base: Offset,
    /// Bytes of the active segment.
    pub(super) position: u64,
}

/// What only the thread that changes the log needs.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) producers: ProducerState,
    /// `segment.ms` of the active segment is shorter by this.
    pub(super) roll_jitter_ms: i64,
    pub(super) is_closed: bool,
}

/// What loading a log found out.
pub(super) struct Loaded {
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: ProducerState,
    pub(super) log_start_offset: Offset,
    pub(super) log_end_offset: Offset,
    pub(super) recovery_point: Offset,
    /// Where the files end and which there are is on disk. After a crash nobody knows: the last
    /// process may have died between a cut and its wait for the disk.
    pub(super) is_settled: bool,
    /// The epoch checkpoint was written anew and may not be on disk.
    pub(super) epochs_unsynced: bool,
    pub(super) topic_id: Option<TopicId>,
}

impl PartitionLog {
    pub(super) fn new(
        topic_partition: TopicPartition,
        place: Arc<Place>,
        config: Arc<TopicConfig>,
        loaded: Loaded,
        now_ms: i64,
    ) -> Arc<Self> {
        let end = loaded.segments.last().map_or(
            LogEnd {
                offset: loaded.log_end_offset,
                segment_base: loaded.log_end_offset,
                position: 0,
            },
            |active| LogEnd {
                offset: loaded.log_end_offset,
                segment_base: active.base_offset(),
                position: active.size(),
            },
        );
        let first_unstable = loaded.producers.producers.first_unstable_offset();
        let awaits_high_watermark = loaded.producers.producers.awaits_high_watermark();
        let roll_jitter_ms = jitter_ms(&config);
        Arc::new_cyclic(|this| Self {
            topic_partition,
            place: RwLock::new(place),
            this: this.clone(),
            topic_id: Mutex::new(loaded.topic_id),
            config: RwLock::new(config),
            segments: RwLock::new(loaded.segments),
            epochs: RwLock::new(loaded.epochs),
            epochs_unsynced: AtomicBool::new(loaded.epochs_unsynced),
            end: Mutex::new(end),
            log_start_offset: AtomicI64::new(loaded.log_start_offset),
            high_watermark: AtomicI64::new(loaded.log_start_offset),
            checkpointed_high_watermark: AtomicI64::new(-1),
            first_unstable_offset: AtomicI64::new(first_unstable.unwrap_or(i64::MAX)),
            awaits_high_watermark: AtomicBool::new(awaits_high_watermark),
            cleaned_offset: AtomicI64::new(-1),
            cleaning_paused: AtomicBool::new(false),
            uncleanable: AtomicBool::new(false),
            recovery_point: AtomicI64::new(loaded.recovery_point),
            checkpointed_recovery_point: AtomicI64::new(loaded.recovery_point),
            truncations: AtomicU64::new(0),
            is_settled: AtomicBool::new(loaded.is_settled),
            last_flush_ms: AtomicI64::new(now_ms),
            writer: Mutex::new(Writer {
                producers: loaded.producers,
                roll_jitter_ms,
                is_closed: false,
            }),
        })
    }

    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    pub fn topic_id(&self) -> Option<TopicId> {
        *lock(&self.topic_id)
    }

    /// Notes the topic's id in `partition.metadata`, unless it stands there already.
    pub fn assign_topic_id(&self, topic_id: TopicId) -> Result<(), LogError> {
        self.check()?;
        let mut known = lock(&self.topic_id);
        match *known {
            Some(known) if known == topic_id => Ok(()),
            Some(known) => Err(LogError::InconsistentTopicId {
                topic_partition: self.topic_partition.clone(),
                known,
                asked: topic_id,
            }),
            None => {
                self.watch(partition_metadata::write(&self.place(), topic_id))?;
                *known = Some(topic_id);
                Ok(())
            }
        }
    }

    pub fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_config(&self, config: Arc<TopicConfig>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    pub(super) fn place(&self) -> Arc<Place> {
        Arc::clone(&self.place.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The log's own directory.
    pub fn directory(&self) -> Arc<Path> {
        self.place().directory()
    }

    /// The log directory that holds it, as it stands in `log.dirs`.
    pub fn log_dir(&self) -> PathBuf {
        self.volume().path().to_owned()
    }

    /// Why the log cannot be used, if its log directory is offline.
    pub fn failure(&self) -> Option<StorageError> {
        self.volume().failure().cloned()
    }

    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset.load(Ordering::Acquire)
    }

    pub fn log_end_offset(&self) -> Offset {
        self.end().offset
    }

    /// Everything below is on disk.
    pub fn recovery_point(&self) -> Offset {
        self.recovery_point.load(Ordering::Acquire)
    }

    /// Bytes of all segments.
    pub fn size_in_bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.size()).sum()
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.segments().len()
    }

    /// The high watermark as it was last told.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Tells the log the high watermark: nothing at or above it is deleted by retention, and ended
    /// transactions below it become stable.
    pub fn set_high_watermark(&self, high_watermark: Offset) {
        self.high_watermark.store(high_watermark, Ordering::Release);
        if self.awaits_high_watermark.load(Ordering::Acquire) {
            let mut writer = self.writer();
            let producers = &mut writer.producers.producers;
            producers.high_watermark_advanced(high_watermark);
            self.publish_unstable(&writer);
        }
    }

    /// The high watermark in the checkpoint of the log directory.
    pub fn checkpointed_high_watermark(&self) -> Option<Offset> {
        let offset = self.checkpointed_high_watermark.load(Ordering::Acquire);
        (offset >= 0).then_some(offset)
    }

    pub(super) fn set_checkpointed_high_watermark(&self, offset: Offset) {
        self.checkpointed_high_watermark
            .store(offset, Ordering::Release);
    }

    pub(super) fn lower_high_watermark(&self, offset: Offset) {
        self.high_watermark.fetch_min(offset, Ordering::AcqRel);
    }

    /// First offset of the earliest transaction that is open, or that ended at or above the high
    /// watermark. The last stable offset is the smaller of this and the high watermark.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let offset = self.first_unstable_offset.load(Ordering::Acquire);
        (offset != i64::MAX).then(|| offset.max(self.log_start_offset()))
    }

    pub(super) fn publish_unstable(&self, writer: &Writer) {
        let producers = &writer.producers.producers;
        let first = producers.first_unstable_offset().unwrap_or(i64::MAX);
        self.first_unstable_offset.store(first, Ordering::Release);
        self.awaits_high_watermark
            .store(producers.awaits_high_watermark(), Ordering::Release);
    }

    /// The latest leader epoch that the log knows.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs().latest().map(|entry| entry.epoch)
    }

    /// The earliest leader epoch with its start offset.
    pub fn earliest_epoch(&self) -> Option<EpochStart> {
        self.epochs().earliest()
    }

    /// All leader epochs, ascending.
    pub fn leader_epochs(&self) -> Vec<EpochStart> {
        self.epochs().entries().to_vec()
    }

    /// The greatest known epoch that is at most `epoch`, and where it ends; `None` if unknown.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let epochs = self.epochs();
        epochs.end_offset_for(epoch, self.log_end_offset())
    }

    /// The epoch in which the record at `offset` was written.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.epochs().epoch_for_offset(offset)
    }

    /// Notes, in the checkpoint too, that `epoch` begins at `start_offset` (at the log end for a new
    /// leader).
    pub fn assign_epoch_start(
        &self,
        epoch: LeaderEpoch,
        start_offset: Offset,
    ) -> Result<(), LogError> {
        self.check()?;
        let _writer = self.writer();
        self.watch(self.change_epochs(|epochs| epochs.assign(epoch, start_offset)))?;
        Ok(())
    }

    /// Changes the epochs and, if `change` says that it did, their checkpoint. Needs the writer.
    ///
    /// The disk is not waited for, as a broker that leads ten thousand partitions would wait for
    /// minutes at each start. A flush of the log makes the checkpoint durable with it, and what is
    /// above the recovery point is found again in the batches.
    pub(super) fn change_epochs(
        &self,
        change: impl FnOnce(&mut LeaderEpochs) -> bool,
    ) -> Result<(), StorageError> {
        let mut changed = self.epochs().clone();
        if !change(&mut changed) {
            return Ok(());
        }
        let path = self.place().path(LEADER_EPOCHS);
        checkpoint::write_epochs(
            &**self.place().files(),
            &path,
            changed.entries(),
            Durability::Written,
        )?;
        self.epochs_unsynced.store(true, Ordering::Release);
        *self.epochs.write().unwrap_or_else(PoisonError::into_inner) = changed;
        Ok(())
    }

    /// The producers that the log knows, by id.
    pub fn active_producers(&self) -> Vec<ProducerDescription> {
        let writer = self.writer();
        let describe =
            |(producer_id, entry): (i64, &barnabas_core::partition::producers::ProducerEntry)| {
                ProducerDescription {
                    producer_id,
                    producer_epoch: entry.producer_epoch,
                    last_sequence: entry.last_sequence(),
                    last_timestamp: entry.last_timestamp,
                    coordinator_epoch: entry.coordinator_epoch,
                    current_txn_start_offset: entry.current_txn_first_offset.unwrap_or(-1),
                }
            };
        writer.producers.producers.iter().map(describe).collect()
    }

    /// Whether a transaction of the producer is open in the log.
    pub fn has_open_transaction(&self, producer_id: i64) -> bool {
        let writer = self.writer();
        let known = writer.producers.producers.get(producer_id);
        known.is_some_and(|entry| entry.current_txn_first_offset.is_some())
    }

    /// Whether a batch of the producer that begins with this sequence is among its last ones.
    pub fn has_batch(&self, producer_id: i64, epoch: i16, base_sequence: i32) -> bool {
        let writer = self.writer();
        let producers = &writer.producers.producers;
        producers.has_batch(producer_id, epoch, base_sequence)
    }

    /// Whether the earliest open transaction was silent for more than `limit_ms`: somebody should have ended it
    /// (KIP-664).
    pub fn has_late_transaction(&self, now_ms: i64, limit_ms: i64) -> bool {
        if self.first_unstable_offset().is_none() {
            return false;
        }
        let since = self.writer().producers.producers.earliest_transaction_ms();
        since.is_some_and(|since| since > 0 && now_ms.saturating_sub(since) > limit_ms)
    }

    /// Forgets producers that were silent for `producer.id.expiration.ms`.
    pub fn expire_producers(&self, now_ms: i64) {
        self.writer().producers.expire(now_ms);
    }

    /// Flushes the log and leaves its files as Kafka does on a clean stop: a snapshot at the end,
    /// the largest timestamp in the time index. Nothing can be appended afterwards.
    pub fn close(&self) -> Result<(), LogError> {
        self.check()?;
        let mut writer = self.writer();
        if writer.is_closed {
            return Ok(());
        }
        let end = self.log_end_offset();
        writer.producers.set_end_offset(end);
        let snapshot = self.watch(writer.producers.take_snapshot())?;
        writer.is_closed = true;
        let active = self.active();
        let has_new_entry = self.watch(active.seal())?;
        if let Some(path) = snapshot {
            self.watch(ProducerState::sync(&self.place(), &path))?;
        }
        self.flush_below(end)?;
        if has_new_entry {
            self.watch(active.times.sync())?;
        }
        self.close_files();
        Ok(())
    }

    /// Closes the files of all segments; they are opened again when needed.
    pub(super) fn close_files(&self) {
        for segment in self.segments().iter() {
            segment.close();
        }
    }

    /// Closes the log for good and gives its directory another name.
    pub(super) fn retire(&self, name: &str) -> Result<Arc<Place>, LogError> {
        let mut writer = self.writer();
        writer.is_closed = true;
        let place = self.place();
        let path = place.volume.path().join(name);
        self.watch(place.rename(&path))?;
        self.close_files();
        Ok(place)
    }

    /// Whether the log is in this log directory.
    pub(super) fn is_in(&self, volume: &Arc<Volume>) -> bool {
        Arc::ptr_eq(&self.place().volume, volume)
    }

    /// Base offset of the first segment.
    pub(super) fn first_base_offset(&self) -> Offset {
        let segments = self.segments();
        segments.first().map_or(0, |first| first.base_offset())
    }

    /// Takes over everything of `future`, a complete copy of this log in another log directory,
    /// whose directory is renamed to the usual name; the old one gets `old_name` and is returned.
    /// Does nothing and returns `None` if the copy is not complete.
    pub(super) fn replace_by(
        &self,
        future: &PartitionLog,
        old_name: &str,
    ) -> Result<Option<Arc<Place>>, LogError> {
        self.check()?;
        future.check()?;
        let mut writer = self.writer();
        let mut future_writer = future.writer();
        if future.log_end_offset() != self.log_end_offset() {
            return Ok(None);
        }
        let old_place = self.place();
        let new_place = future.place();
        let old_path = old_place.volume.path().join(old_name);
        let new_path = new_place
            .volume
            .path()
            .join(self.topic_partition.to_string());
        self.watch(old_place.rename(&old_path))?;
        future.watch(new_place.rename(&new_path))?;
        future_writer.is_closed = true;
        let fresh = future_writer.producers.fresh();
        writer.producers = std::mem::replace(&mut future_writer.producers, fresh);
        let segments = future.segments().clone();
        let end = future.end();
        {
            // Readers see either all of the old log or all of the new one.
            let mut own_segments = self.segments_mut();
            let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
            let mut epochs = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
            for segment in own_segments.iter() {
                segment.close();
            }
            *own_segments = segments;
            *place = new_place;
            *epochs = future.epochs().clone();
            self.set_end(end);
        }
        self.recovery_point
            .store(future.recovery_point(), Ordering::Release);
        self.epochs_unsynced.store(true, Ordering::Release);
        self.is_settled
            .store(future.is_settled.load(Ordering::Acquire), Ordering::Release);
        self.publish_unstable(&writer);
        self.uncleanable.store(false, Ordering::Release);
        Ok(Some(old_place))
    }

    /// Runs `job` later on the thread of the log directory, if the log still exists then.
    pub(super) fn later(
        &self,
        delay: Duration,
        job: impl FnOnce(&Arc<PartitionLog>) + Send + 'static,
    ) {
        let this = self.this.clone();
        self.place().volume.background.run_after(delay, move || {
            if let Some(log) = this.upgrade() {
                job(&log);
            }
        });
    }

    pub(super) fn active(&self) -> Arc<Segment> {
        let segments = self.segments();
        Arc::clone(segments.last().expect("a log has at least one segment"))
    }

    pub(super) fn segments(&self) -> RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn segments_mut(&self) -> RwLockWriteGuard<'_, Vec<Arc<Segment>>> {
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn epochs(&self) -> RwLockReadGuard<'_, LeaderEpochs> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) -> LogEnd {
        *lock(&self.end)
    }

    pub(super) fn set_end(&self, end: LogEnd) {
        *lock(&self.end) = end;
    }

    pub(super) fn set_log_start_offset(&self, offset: Offset) {
        self.log_start_offset.store(offset, Ordering::Release);
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }

    pub(super) fn volume(&self) -> Arc<Volume> {
        Arc::clone(&self.place().volume)
    }

    pub(super) fn check(&self) -> Result<(), StorageError> {
        self.place().volume.check()
    }

    /// Takes the log directory offline if `result` is an error.
    pub(super) fn watch<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        result.map_err(|error| self.volume().fail(error))
    }

    /// Turns the failure of a walk into the log's; one of storage takes the directory offline.
    pub(super) fn watch_scan<T>(&self, result: Result<T, ScanError>) -> Result<T, LogError> {
        match result {
            Ok(value) => Ok(value),
            Err(ScanError::Storage(error)) => Err(self.volume().fail(error).into()),
            Err(error @ ScanError::Broken { .. }) => Err(LogError::CorruptBatch {
                topic_partition: self.topic_partition.clone(),
                reason: error.to_string(),
            }),
        }
    }
}

/// A random part of `segment.jitter.ms`, so that not all logs roll at once.
pub(super) fn jitter_ms(config: &TopicConfig) -> i64 {
    let most = config.segment_jitter_ms.min(config.segment_ms);
    if most <= 0 {
        0
    } else {
        crate::host::random().random_range(0..most)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
