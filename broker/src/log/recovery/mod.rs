//! Loading a log from its directory, and repairing what a crash left (Kafka's `LogLoader`).
//!
//! Behind a clean shutdown marker contents are believed, with two exceptions where Kafka 3.9 would
//! lose or mangle records later: a last segment that does not end with a whole batch is recovered
//! all the same, and so is a segment whose time index is missing.

mod leftovers;
mod producers;
mod rebuild;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::{Offset, TopicPartition};
use barnabas_core::partition::leader_epochs::LeaderEpochs;

pub(super) use self::producers::rebuild_producers;
use self::producers::tolerate_damage;
use self::rebuild::{Interruption, note_epoch};

use super::checkpoint::{self, LEADER_EPOCHS};
use super::error::{Described as _, StorageError};
use super::partition_log::{Loaded, PartitionLog};
use super::partition_metadata;
use super::place::{LOG, OFFSET_INDEX, Place, TIME_INDEX, TXN_INDEX, file_name, parse_file_name};
use super::producer_state::{ProducerState, snapshot_offset};
use super::scan::ScanError;
use super::segment::Segment;
use crate::files::Durability;

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
    /// Up to where the log was cleaned; 0 if it was not.
    pub(crate) cleaned_offset: Offset,
    pub(crate) producer_expiration_ms: i64,
    pub(crate) now_ms: i64,
}

/// Loads a log; a directory without segments gets an empty one.
pub(crate) fn load(request: LoadRequest) -> Result<Arc<PartitionLog>, StorageError> {
    let names = leftovers::clear(&request.place)?;
    let has = |name: &str| names.iter().any(|other| other == name);
    let topic_id = if has(partition_metadata::NAME) {
        partition_metadata::read(&request.place, request.stop)?
    } else {
        None
    };
    let mut loader = Loader::new(request, has(LEADER_EPOCHS))?;
    let log_end_offset = loader.load_segments(names)?;
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

struct Loader {
    request: LoadRequest,
    segments: Vec<Arc<Segment>>,
    epochs: LeaderEpochs,
    /// What the epoch checkpoint says; `None` if it is damaged.
    stored_epochs: Option<LeaderEpochs>,
    /// The epoch checkpoint was lost or damaged: epochs are found again in the batches.
    lost_epochs: bool,
    producers: ProducerState,
    /// Nothing had to be repaired: the log is on disk up to its end.
    is_intact: bool,
}

impl Loader {
    fn new(request: LoadRequest, has_epochs: bool) -> Result<Self, StorageError> {
        let path = request.place.path(LEADER_EPOCHS);
        let read = || {
            if has_epochs {
                checkpoint::read_epochs(&**request.place.files(), &path)
            } else {
                Ok(Vec::new())
            }
        };
        let stored_epochs = match read() {
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
        let epochs = stored_epochs.clone().unwrap_or_default();
        Ok(Self {
            // What a power loss leaves of a checkpoint may be nothing at all.
            lost_epochs: request.stop == Stop::Unclean && epochs.entries().is_empty(),
            is_intact: request.stop == Stop::Clean,
            request,
            segments: Vec::new(),
            epochs,
            stored_epochs,
            producers,
        })
    }

    /// Opens and recovers the segments. Returns the log end offset.
    fn load_segments(&mut self, mut names: Vec<String>) -> Result<Offset, StorageError> {
        loop {
            let loaded = self.open_segments(&names).and_then(|()| self.recover());
            match loaded {
                Ok(log_end_offset) => return Ok(log_end_offset),
                Err(Interruption::Storage(error)) => return Err(error),
                Err(Interruption::OffsetOverflow(segment)) => {
                    self.split(&segment)?;
                    for segment in std::mem::take(&mut self.segments) {
                        segment.close();
                    }
                    self.producers = self.producers.fresh();
                    names = leftovers::names(&self.request.place)?;
                }
            }
        }
    }

    /// Opens the segments in order, recovering those that lack an index.
    fn open_segments(&mut self, names: &[String]) -> Result<(), Interruption> {
        let mut snapshots: Vec<Offset> = names.iter().filter_map(|n| snapshot_offset(n)).collect();
        snapshots.sort_unstable();
        self.producers.set_snapshots(snapshots);
        let mut bases: Vec<Offset> = Vec::new();
        for name in names {
            if let Some((offset, LOG)) = parse_file_name(name) {
                bases.push(offset);
            }
        }
        bases.sort_unstable();
        for name in names {
            if let Some((offset, OFFSET_INDEX | TIME_INDEX | TXN_INDEX)) = parse_file_name(name)
                && bases.binary_search(&offset).is_err()
            {
                leftovers::remove(&self.request.place, name)?;
            }
        }
        for base_offset in bases {
            self.open_segment(base_offset, names)?;
        }
        Ok(())
    }

    fn open_segment(&mut self, base_offset: Offset, names: &[String]) -> Result<(), Interruption> {
        let place = &self.request.place;
        let path = place.segment_path(base_offset, LOG);
        let status = place.files().status(&path).describe("examine", &path)?;
        let segment = Arc::new(Segment::new(
            Arc::clone(place),
            base_offset,
            status.length,
            self.request.now_ms,
        ));
        let has = |suffix| names.contains(&file_name(base_offset, suffix));
        let has_indexes = has(OFFSET_INDEX) && has(TIME_INDEX);
        if !has_indexes || (has(TXN_INDEX) && !segment.txns.is_sane()?) {
            tracing::warn!(path = %path.display(), "an index is missing or damaged: recovering");
            segment.create_missing()?;
            self.recover_segment(&segment, &mut Vec::new())?;
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Repairs what the way in which the log was left asks for. Returns the log end offset.
    fn recover(&mut self) -> Result<Offset, Interruption> {
        let mut end = None;
        if self.request.stop == Stop::Unclean {
            let recovery_point = self.request.recovery_point;
            let first = self
                .segments
                .partition_point(|segment| segment.base_offset() <= recovery_point)
                .saturating_sub(1);
            end = self.recover_from(first)?;
        }
        if end.is_none()
            && let Some(last) = self.segments.last().cloned()
        {
            let (offset, position) = last.end()?;
            end = Some(offset);
            if position < last.size() {
                tracing::warn!(
                    path = %last.path().display(), position,
                    "the file does not end with a whole batch: recovering"
                );
                end = self.recover_from(self.segments.len() - 1)?;
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
                &self.request.config,
                self.request.now_ms,
            )?;
            self.segments.push(Arc::new(segment));
            return Ok(base_offset);
        }
        Ok(end.unwrap_or(self.request.log_start_offset))
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
        let are_epochs_written = self.stored_epochs.as_ref() != Some(&self.epochs);
        // After an unclean stop the first write settles them, and until then the next start finds them again.
        let durability = match self.request.stop {
            Stop::Clean => Durability::Synced,
            Stop::Unclean => Durability::Written,
        };
        if are_epochs_written {
            checkpoint::write_epochs(
                &**self.request.place.files(),
                &self.request.place.path(LEADER_EPOCHS),
                self.epochs.entries(),
                durability,
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
            epochs_unsynced: are_epochs_written && durability == Durability::Written,
            topic_id,
        })
    }

    /// Reads the epochs from the headers of all batches.
    fn find_epochs(&mut self) -> Result<(), StorageError> {
        // Those that recovery has noted above the recovery point would keep out the earlier ones.
        self.epochs.clear();
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
