//! Loading a log from its directory, and repairing what a crash left (Kafka's `LogLoader`).
//!
//! Behind a clean shutdown marker contents are believed, with two exceptions where Kafka 3.9 would
//! lose or mangle records later: a last segment that does not end with a whole batch is recovered
//! all the same, and so is a segment whose time index is missing.

use std::sync::Arc;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::{Offset, TopicPartition};
use barnabas_core::partition::leader_epochs::LeaderEpochs;
use barnabas_core::records::verify_crc;

use super::checkpoint::{self, LEADER_EPOCHS};
use super::error::{Described as _, StorageError};
use super::offset_index::OffsetPosition;
use super::partition_log::{Loaded, PartitionLog};
use super::partition_metadata;
use super::place::{LOG, OFFSET_INDEX, Place, TIME_INDEX, TXN_INDEX, parse_file_name};
use super::producer_state::{ProducerState, producer_batch, snapshot_offset};
use super::scan::ScanError;
use super::segment::{FoundIndexes, Segment};
use super::time_index::TimestampOffset;
use crate::files::Durability;

const CLEANED: &str = ".cleaned";
const SWAP: &str = ".swap";

/// How the process that wrote a log has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// There was a clean shutdown marker.
    Clean,
    Unclean,
}

/// What is to be loaded, and what the checkpoints of its log directory say.
pub(crate) struct LoadRequest {
    pub(crate) topic_partition: TopicPartition,
    pub(crate) place: Arc<Place>,
    pub(crate) config: Arc<TopicConfig>,
    pub(crate) stop: Stop,
    pub(crate) recovery_point: Offset,
    pub(crate) log_start_offset: Offset,
    pub(crate) producer_expiration_ms: i64,
    pub(crate) now_ms: i64,
}

/// Loads a log; a directory without segments gets an empty one.
pub(crate) fn load(request: LoadRequest) -> Result<Arc<PartitionLog>, StorageError> {
    let topic_id = partition_metadata::read(&request.place)?;
    let mut loader = Loader::new(request)?;
    loader.finish_interrupted_swaps()?;
    loader.open_segments()?;
    let log_end_offset = loader.recover()?;
    let loaded = loader.complete(log_end_offset, topic_id)?;
    let LoadRequest {
        topic_partition,
        place,
        config,
        now_ms,
        ..
    } = loader.request;
    Ok(PartitionLog::new(
        topic_partition,
        place,
        config,
        loaded,
        now_ms,
    ))
}

/// What recovery left of a segment.
struct Recovered {
    /// Bytes that were cut off.
    cut: u64,
    /// The offset after the last batch.
    next_offset: Offset,
}

struct Loader {
    request: LoadRequest,
    segments: Vec<Arc<Segment>>,
    epochs: LeaderEpochs,
    stored_epochs: LeaderEpochs,
    /// The epoch checkpoint was lost or damaged: epochs are found again in the batches.
    lost_epochs: bool,
    producers: ProducerState,
    /// Nothing had to be repaired: the log is on disk up to its end.
    is_intact: bool,
}

impl Loader {
    fn new(request: LoadRequest) -> Result<Self, StorageError> {
        let path = request.place.path(LEADER_EPOCHS);
        let files = request.place.files();
        let stored = match checkpoint::read_epochs(&**files, &path) {
            Ok(entries) => Some(LeaderEpochs::from_entries(entries)),
            // Only a power loss leaves the name without the content.
            Err(error) if request.stop == Stop::Unclean => {
                tracing::warn!(%error, "finding the leader epochs again in the batches");
                None
            }
            Err(error) => return Err(error),
        };
        let producers = ProducerState::new(
            Arc::clone(&request.place),
            Vec::new(),
            request.producer_expiration_ms,
        );
        let stored_epochs = stored.clone().unwrap_or_default();
        Ok(Self {
            is_intact: request.stop == Stop::Clean,
            request,
            segments: Vec::new(),
            epochs: stored_epochs.clone(),
            stored_epochs,
            lost_epochs: stored.is_none(),
            producers,
        })
    }

    fn names(&self) -> Result<Vec<String>, StorageError> {
        let directory = self.request.place.directory();
        let entries = self
            .request
            .place
            .files()
            .list(&directory)
            .describe("list", &directory)?;
        let files = entries.into_iter().filter(|entry| !entry.is_directory);
        Ok(files.map(|entry| entry.name).collect())
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.request.place.path(name);
        tracing::info!(path = %path.display(), "removing a leftover file");
        self.request
            .place
            .files()
            .remove_file(&path)
            .describe("remove", &path)
    }

    /// Removes what an interrupted deletion or cleaning left, and finishes replacements that had
    /// begun: a `.swap` segment takes the place of all segments whose offsets it covers.
    fn finish_interrupted_swaps(&mut self) -> Result<(), StorageError> {
        let mut swaps = Vec::new();
        let mut first_cleaned = Offset::MAX;
        for name in self.names()? {
            if name.ends_with(super::place::DELETED) {
                self.remove(&name)?;
            } else if let Some((offset, _)) = name.strip_suffix(CLEANED).and_then(parse_file_name) {
                first_cleaned = first_cleaned.min(offset);
                self.remove(&name)?;
            } else if name.ends_with(SWAP) {
                swaps.push(name);
            }
        }
        if swaps.is_empty() {
            return Ok(());
        }
        // A split or cleaning that had not written all of its output is undone (KAFKA-6264).
        let (mut first_replaced, mut end_replaced) = (Offset::MAX, Offset::MIN);
        let mut valid = Vec::new();
        for name in swaps {
            let parsed = name.strip_suffix(SWAP).and_then(parse_file_name);
            match parsed {
                Some((offset, _)) if offset >= first_cleaned => self.remove(&name)?,
                Some((offset, suffix)) => {
                    if suffix == LOG {
                        first_replaced = first_replaced.min(offset);
                        end_replaced = end_replaced.max(self.end_of_swap(&name, offset)?);
                    }
                    valid.push(name);
                }
                None => {}
            }
        }
        for name in self.names()? {
            if let Some((offset, _)) = parse_file_name(&name).filter(|_| !name.ends_with(SWAP))
                && (first_replaced..end_replaced).contains(&offset)
            {
                self.remove(&name)?;
            }
        }
        for name in valid {
            let from = self.request.place.path(&name);
            let to = self.request.place.path(name.trim_end_matches(SWAP));
            tracing::info!(path = %to.display(), "finishing the replacement of a segment");
            self.request
                .place
                .files()
                .rename(&from, &to)
                .describe("rename", &from)?;
        }
        Ok(())
    }

    fn end_of_swap(&self, name: &str, base_offset: Offset) -> Result<Offset, StorageError> {
        let path = self.request.place.path(name);
        let file = self
            .request
            .place
            .files()
            .open(&path, crate::files::OpenMode::Read)
            .describe("open", &path)?;
        let length = file.length().describe("examine", &path)?;
        let mut scan = super::scan::Scan::new(&*file, path, 0, length);
        let mut end = base_offset;
        loop {
            match scan.next_header() {
                Ok(Some((_, meta))) => end = meta.next_offset(),
                Ok(None) | Err(ScanError::Broken { .. }) => return Ok(end),
                Err(ScanError::Storage(error)) => return Err(error),
            }
        }
    }

    /// Opens the segments in order, recovering those that lack an index.
    fn open_segments(&mut self) -> Result<(), StorageError> {
        let names = self.names()?;
        let mut snapshots: Vec<Offset> = names.iter().filter_map(|n| snapshot_offset(n)).collect();
        snapshots.sort_unstable();
        self.producers.set_snapshots(snapshots);
        let mut bases: Vec<Offset> = Vec::new();
        for name in &names {
            if let Some((offset, LOG)) = parse_file_name(name) {
                bases.push(offset);
            }
        }
        bases.sort_unstable();
        for name in &names {
            if let Some((offset, OFFSET_INDEX | TIME_INDEX | TXN_INDEX)) = parse_file_name(name)
                && bases.binary_search(&offset).is_err()
            {
                self.remove(name)?;
            }
        }
        for base_offset in bases {
            self.open_segment(base_offset)?;
        }
        Ok(())
    }

    fn open_segment(&mut self, base_offset: Offset) -> Result<(), StorageError> {
        let place = &self.request.place;
        let path = place.segment_path(base_offset, LOG);
        let status = place.files().status(&path).describe("examine", &path)?;
        let segment = Arc::new(Segment::new(
            Arc::clone(place),
            base_offset,
            status.length,
            self.request.now_ms,
        ));
        let has_indexes = segment.offsets.file_exists()? && segment.times.file_exists()?;
        if !has_indexes || !segment.txns.is_sane()? {
            tracing::warn!(path = %path.display(), "an index is missing or damaged: recovering");
            self.recover_segment(&segment, &mut Vec::new())?;
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Repairs what the way in which the log was left asks for. Returns the log end offset.
    fn recover(&mut self) -> Result<Offset, StorageError> {
        if self.request.stop == Stop::Unclean {
            let recovery_point = self.request.recovery_point;
            let first = self
                .segments
                .partition_point(|segment| segment.base_offset() <= recovery_point)
                .saturating_sub(1);
            self.recover_from(first)?;
        }
        let mut end = None;
        if let Some(last) = self.segments.last().cloned() {
            let (offset, position) = last.end()?;
            end = Some(offset);
            if position < last.size() {
                tracing::warn!(
                    path = %last.path().display(), position,
                    "the file does not end with a whole batch: recovering"
                );
                self.recover_from(self.segments.len() - 1)?;
                end = Some(last.end()?.0);
            }
        }
        if let Some(offset) = end
            && offset < self.request.log_start_offset
        {
            tracing::warn!(
                log = %self.request.topic_partition, log_end_offset = offset,
                log_start_offset = self.request.log_start_offset,
                "the log ends below its start: dropping it"
            );
            for segment in std::mem::take(&mut self.segments) {
                self.drop_segment(&segment)?;
            }
            self.epochs.clear();
            self.producers.start_at(self.request.log_start_offset)?;
            self.is_intact = false;
        }
        if self.segments.is_empty() {
            let base_offset = self.request.log_start_offset;
            let segment = Segment::create(
                Arc::clone(&self.request.place),
                base_offset,
                self.request.now_ms,
            )?;
            self.segments.push(Arc::new(segment));
            return Ok(base_offset);
        }
        Ok(end.unwrap_or(self.request.log_start_offset))
    }

    /// Recovers segments from the one at `first` on. What follows a damaged batch is dropped.
    fn recover_from(&mut self, first: usize) -> Result<(), StorageError> {
        let mut index = first;
        while let Some(segment) = self.segments.get(index).cloned() {
            let mut later = self.segments.split_off(index + 1);
            self.segments.truncate(index);
            let recovered = self.recover_segment(&segment, &mut later)?;
            self.segments.push(segment);
            self.segments.extend(later);
            index += 1;
            let next_base = self.segments.get(index).map(|next| next.base_offset());
            // A power loss can take the unflushed end of a segment and leave the next one. Kafka
            // goes on with the gap; a replica would then differ from its leader without knowing.
            let lost_end = !self.request.config.cleanup_policy.compact
                && next_base.is_some_and(|base| recovered.next_offset < base);
            // Or it brings back a segment that had been dropped.
            let overlaps = next_base.is_some_and(|base| recovered.next_offset > base);
            if lost_end || overlaps {
                let mut later = self.segments.split_off(index);
                self.drop_segments(&mut later)?;
            }
        }
        Ok(())
    }

    /// Drops the last segments of the log, from its end on, and waits for the disk: whenever this is
    /// interrupted, a log without gaps is left.
    fn drop_segments(&self, segments: &mut Vec<Arc<Segment>>) -> Result<(), StorageError> {
        if segments.is_empty() {
            return Ok(());
        }
        for segment in segments.drain(..).rev() {
            tracing::warn!(
                path = %segment.path().display(),
                "dropping a segment behind a damaged end of another"
            );
            self.drop_segment(&segment)?;
        }
        let directory = self.request.place.directory();
        self.request.place.sync_directory(&directory)
    }

    fn drop_segment(&self, segment: &Segment) -> Result<(), StorageError> {
        for path in segment.rename_deleted()? {
            super::segment::remove_if_exists(&**self.request.place.files(), &path)?;
        }
        Ok(())
    }

    /// Checks all batches of a segment, cuts it at the first bad one and writes its indexes anew.
    /// `self.segments` are those before it. Those that are `later` are dropped before a cut: once it
    /// is done nothing tells that they do not belong there.
    fn recover_segment(
        &mut self,
        segment: &Arc<Segment>,
        later: &mut Vec<Arc<Segment>>,
    ) -> Result<Recovered, StorageError> {
        self.is_intact = false;
        let mut producers = self.producers.fresh();
        let rebuilt = rebuild_producers(
            &mut producers,
            &self.segments,
            self.request.log_start_offset,
            segment.base_offset(),
            self.request.now_ms,
            Stop::Unclean,
        );
        tolerate_damage(rebuilt)?;
        let interval = self.request.config.index_interval_bytes.max(0) as u64;
        let read = read_segment(segment, &mut producers, &mut self.epochs, interval)?;
        let recovered = Recovered {
            cut: segment.size() - read.end,
            next_offset: read.next_offset,
        };
        if recovered.cut > 0 {
            self.drop_segments(later)?;
        }
        segment.cut(&*segment.handle()?, read.end)?;
        segment.finish_recovery(&read.indexes)?;
        producers.take_snapshot()?;
        self.producers.set_snapshots(producers.into_snapshots());
        if recovered.cut > 0 {
            tracing::warn!(
                path = %segment.path().display(), bytes = recovered.cut, "cut off a damaged end"
            );
        }
        // A later recovery will not look at what is below the recovery point, so it must be right;
        // an earlier one may have written the indexes and died before it came here.
        if recovered.next_offset <= self.request.recovery_point {
            segment.sync_indexes()?;
        }
        segment.close();
        Ok(recovered)
    }

    /// Brings epochs and producers to the log's end.
    fn complete(
        &mut self,
        log_end_offset: Offset,
        topic_id: Option<barnabas_core::ids::TopicId>,
    ) -> Result<Loaded, StorageError> {
        if self.lost_epochs {
            self.find_epochs()?;
        }
        let first_base = self.segments.first().map_or(0, |first| first.base_offset());
        let log_start_offset = self.request.log_start_offset.max(first_base);
        self.epochs.truncate_from_end(log_end_offset);
        self.epochs
            .truncate_from_start(self.request.log_start_offset);
        if self.epochs != self.stored_epochs || self.lost_epochs {
            checkpoint::write_epochs(
                &**self.request.place.files(),
                &self.request.place.path(LEADER_EPOCHS),
                self.epochs.entries(),
                Durability::Synced,
            )?;
        }
        let bases: Vec<Offset> = self.segments.iter().map(|s| s.base_offset()).collect();
        self.producers.remove_stray(&bases)?;
        let stop = self.request.stop;
        let rebuilt = rebuild_producers(
            &mut self.producers,
            &self.segments,
            log_start_offset,
            log_end_offset,
            self.request.now_ms,
            stop,
        );
        tolerate_damage(rebuilt)?;
        let recovery_point = if self.is_intact {
            log_end_offset
        } else {
            self.request.recovery_point.min(log_end_offset)
        };
        for segment in &self.segments {
            segment.close();
        }
        let fresh = self.producers.fresh();
        Ok(Loaded {
            segments: std::mem::take(&mut self.segments),
            epochs: std::mem::take(&mut self.epochs),
            producers: std::mem::replace(&mut self.producers, fresh),
            log_start_offset,
            log_end_offset,
            recovery_point,
            is_settled: stop == Stop::Clean,
            topic_id,
        })
    }

    /// Reads the epochs from the headers of all batches.
    fn find_epochs(&mut self) -> Result<(), StorageError> {
        for segment in &self.segments {
            let file = segment.handle()?;
            let mut scan = segment.scan(&*file, 0, segment.size());
            loop {
                match scan.next_header() {
                    Ok(Some((_, meta))) => note_epoch(&mut self.epochs, &meta),
                    Ok(None) | Err(ScanError::Broken { .. }) => break,
                    Err(ScanError::Storage(error)) => return Err(error),
                }
            }
            segment.close();
        }
        Ok(())
    }
}

fn note_epoch(epochs: &mut LeaderEpochs, meta: &barnabas_core::records::BatchMeta) {
    let latest = epochs.latest().map_or(-1, |latest| latest.epoch);
    if meta.magic >= 2 && meta.leader_epoch > latest {
        epochs.assign(meta.leader_epoch, meta.base_offset);
    }
}

/// Damage below what is recovered stays where it is, as in Kafka; only the disk's own errors count.
fn tolerate_damage(result: Result<(), ScanError>) -> Result<(), StorageError> {
    match result {
        Ok(()) => Ok(()),
        Err(ScanError::Storage(error)) => Err(error),
        Err(error @ ScanError::Broken { .. }) => {
            tracing::warn!(%error, "a damaged batch below the recovery point is left alone");
            Ok(())
        }
    }
}

/// What a segment holds up to its first damaged batch.
struct Read {
    indexes: FoundIndexes,
    /// Where the last whole batch ends.
    end: u64,
    /// The offset after it.
    next_offset: Offset,
}

/// Reads all batches of a segment up to the first that is damaged.
fn read_segment(
    segment: &Segment,
    producers: &mut ProducerState,
    epochs: &mut LeaderEpochs,
    interval: u64,
) -> Result<Read, StorageError> {
    segment.create_missing()?;
    let mut found = FoundIndexes::default();
    let size = segment.size();
    let file = segment.handle()?;
    let mut scan = segment.scan(&*file, 0, size);
    let mut max_timestamp = TimestampOffset {
        timestamp: -1,
        offset: segment.base_offset(),
    };
    let mut last_indexed = 0;
    let mut next_offset = segment.base_offset();
    let end = loop {
        let position = scan.position();
        let (meta, bytes) = match scan.next_whole() {
            Ok(Some((_, meta, bytes))) => (meta, bytes),
            Ok(None) => break position,
            Err(ScanError::Broken { source, .. }) => {
                tracing::warn!(path = %segment.path().display(), position, reason = %source, "damaged batch");
                break position;
            }
            Err(ScanError::Storage(error)) => return Err(error),
        };
        if let Err(reason) = verify_crc(bytes) {
            tracing::warn!(path = %segment.path().display(), position, %reason, "damaged batch");
            break position;
        }
        let relative = meta.last_offset - segment.base_offset();
        if !(0..=Offset::from(i32::MAX)).contains(&relative) {
            tracing::warn!(path = %segment.path().display(), position, offset = meta.last_offset, "offset out of the segment's range");
            break position;
        }
        if meta.max_timestamp > max_timestamp.timestamp {
            max_timestamp = TimestampOffset {
                timestamp: meta.max_timestamp,
                offset: meta.last_offset,
            };
        }
        // An entry that is not above the last would make lookups go astray.
        let last_entry = found.offsets.last().map_or(-1, |last| last.offset);
        if position - last_indexed > interval && meta.last_offset > last_entry {
            found.offsets.push(OffsetPosition {
                offset: meta.last_offset,
                position: position as u32,
            });
            found.add_time(max_timestamp);
            last_indexed = position;
        }
        note_epoch(epochs, &meta);
        next_offset = meta.next_offset();
        let completed = producers.replay(producer_batch(&meta, bytes).as_ref(), meta.next_offset());
        if let Some(txn) = completed
            && txn.is_aborted
        {
            found.txns.push(txn.into());
        }
    };
    found.add_time(max_timestamp);
    Ok(Read {
        indexes: found,
        end,
        next_offset,
    })
}

/// Brings producers to the state at `last_offset`: from the newest snapshot and the batches after it.
pub(super) fn rebuild_producers(
    producers: &mut ProducerState,
    segments: &[Arc<Segment>],
    log_start_offset: Offset,
    last_offset: Offset,
    now_ms: i64,
    stop: Stop,
) -> Result<(), ScanError> {
    let bases: Vec<Offset> = segments.iter().map(|s| s.base_offset()).collect();
    let snapshot_at = &bases[bases.len().saturating_sub(2)..];
    if stop == Stop::Clean && !producers.has_snapshots() {
        // Kafka takes such a log for one of an old version, without idempotent producers.
        for offset in snapshot_at.iter().chain([&last_offset]) {
            producers.set_end_offset(*offset);
            producers.take_snapshot()?;
        }
        return Ok(());
    }
    let was_empty = producers.producers.is_empty() && producers.end_offset() >= last_offset;
    producers.reload(log_start_offset, last_offset, now_ms)?;
    if last_offset > producers.end_offset() && !was_empty {
        let first = bases
            .partition_point(|base| *base <= producers.end_offset())
            .saturating_sub(1);
        for segment in segments.get(first..).unwrap_or_default() {
            if segment.base_offset() >= last_offset {
                break;
            }
            let from = segment
                .base_offset()
                .max(producers.end_offset())
                .max(log_start_offset);
            producers.set_end_offset(from);
            if snapshot_at.contains(&segment.base_offset()) {
                producers.take_snapshot()?;
            }
            replay_segment(producers, segment, from, last_offset)?;
        }
    }
    producers.set_end_offset(last_offset);
    producers.take_snapshot()?;
    Ok(())
}

fn replay_segment(
    producers: &mut ProducerState,
    segment: &Segment,
    from: Offset,
    last_offset: Offset,
) -> Result<(), ScanError> {
    let file = segment.handle()?;
    let size = segment.size();
    let Some(start) = segment.locate(&*file, from, size)? else {
        return Ok(());
    };
    let mut scan = segment.scan(&*file, start.position, size);
    while let Some((_, meta, bytes)) = scan.next_whole()? {
        if meta.base_offset >= last_offset {
            break;
        }
        producers.replay(producer_batch(&meta, bytes).as_ref(), meta.next_offset());
    }
    Ok(())
}
