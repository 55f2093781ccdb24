//! Recovering segments: batches are checked, indexes, epochs and producers found again in them.

use std::sync::Arc;

use barnabas_core::ids::Offset;
use barnabas_core::partition::leader_epochs::LeaderEpochs;
use barnabas_core::records::{BatchMeta, verify_crc};

use super::producers::{bring_producers, tolerate_damage};
use super::{Loader, Stop};
use crate::log::error::StorageError;
use crate::log::place::reaches;
use crate::log::producer_state::{ProducerState, producer_batch};
use crate::log::rewrite::{self, IndexBuilder, Rewrite};
use crate::log::scan::ScanError;
use crate::log::segment::{FoundIndexes, Segment, remove_if_exists};

/// Why a recovery does not come to its end.
pub(super) enum Interruption {
    Storage(StorageError),
    /// A batch of this segment lies 2^31 offsets or more behind the base offset (KAFKA-6264).
    OffsetOverflow(Arc<Segment>),
}

impl From<StorageError> for Interruption {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// What recovery left of a segment.
pub(super) struct Recovered {
    /// Bytes that were cut off.
    cut: u64,
    /// The offset after the last batch.
    next_offset: Offset,
}

impl Loader {
    /// Recovers segments from the one at `first` on; what follows a damaged batch is dropped. Returns
    /// the log end offset, if there are such segments.
    pub(super) fn recover_from(&mut self, first: usize) -> Result<Option<Offset>, Interruption> {
        let mut index = first;
        let mut end = None;
        while let Some(segment) = self.segments.get(index).cloned() {
            let mut later = self.segments.split_off(index + 1);
            self.segments.truncate(index);
            let recovered = self.recover_segment(&segment, &mut later)?;
            self.segments.push(segment);
            self.segments.extend(later);
            index += 1;
            end = Some(recovered.next_offset);
            let next_base = self.segments.get(index).map(|next| next.base_offset());
            // A power loss can take the unflushed end of a segment and leave the next one. Kafka
            // goes on with the gap; a replica would then differ from its leader without knowing. The
            // cleaner leaves gaps too, which stay when the log is not compacted any more.
            let lost_end = !self.request.config.cleanup_policy.compact
                && next_base.is_some_and(|base| {
                    recovered.next_offset < base && self.request.cleaned_offset < base
                });
            // Or it brings back a segment that had been dropped.
            let overlaps = next_base.is_some_and(|base| recovered.next_offset > base);
            if lost_end || overlaps {
                let mut later = self.segments.split_off(index);
                self.drop_segments(&mut later)?;
            }
        }
        Ok(end)
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

    pub(super) fn drop_segment(&self, segment: &Segment) -> Result<(), StorageError> {
        for path in segment.rename_deleted()? {
            remove_if_exists(&**self.request.place.files(), &path)?;
        }
        Ok(())
    }

    /// Checks all batches of a segment, cuts it at the first bad one and writes its indexes anew.
    /// `self.segments` are those before it. Those that are `later` are dropped before a cut: once it
    /// is done nothing tells that they do not belong there.
    pub(super) fn recover_segment(
        &mut self,
        segment: &Arc<Segment>,
        later: &mut Vec<Arc<Segment>>,
    ) -> Result<Recovered, Interruption> {
        self.is_intact = false;
        let rebuilt = bring_producers(
            &mut self.producers,
            &self.segments,
            self.request.log_start_offset,
            segment.base_offset(),
            self.request.now_ms,
            Stop::Unclean,
        );
        tolerate_damage(rebuilt)?;
        let interval = self.request.config.index_interval_bytes.max(0) as u64;
        let read = read_segment(segment, &mut self.producers, &mut self.epochs, interval)?;
        let recovered = Recovered {
            cut: segment.size() - read.end,
            next_offset: read.next_offset,
        };
        if recovered.cut > 0 {
            self.drop_segments(later)?;
            segment.cut(&*segment.handle()?, read.end)?;
            tracing::warn!(
                path = %segment.path().display(), bytes = recovered.cut, "cut off a damaged end"
            );
        }
        segment.finish_recovery(&read.indexes)?;
        self.producers.take_snapshot()?;
        self.producers.forget_as_a_restart_does(self.request.now_ms);
        // A later recovery will not look at what is below the recovery point, so it must be right;
        // an earlier one may have written the indexes and died before it came here.
        if recovered.next_offset <= self.request.recovery_point && segment.size() > 0 {
            segment.sync_indexes()?;
        }
        segment.close();
        Ok(recovered)
    }

    /// Makes several segments of one whose offsets go too far, as Kafka's
    /// `LocalLog.splitOverflowedSegment` does. Segments have to be opened anew afterwards.
    pub(super) fn split(&self, segment: &Segment) -> Result<(), StorageError> {
        let interval = self.request.config.index_interval_bytes.max(0) as u64;
        let place = &self.request.place;
        let modified_ms = segment.modified_ms()?;
        let file = segment.handle()?;
        let mut scan = segment.scan(&*file, 0, segment.size());
        let mut txns = segment.txns.entries()?.into_iter().peekable();
        let mut current: Option<Rewrite> = None;
        let mut rewritten = Vec::new();
        loop {
            let (meta, bytes) = match scan.next_whole() {
                Ok(Some((_, meta, bytes))) => (meta, bytes),
                // A damaged end is cut off in any case, by the recovery of the last new segment.
                Ok(None) | Err(ScanError::Broken { .. }) => break,
                Err(ScanError::Storage(error)) => return Err(error),
            };
            let rewrite = match current.take() {
                Some(rewrite) if rewrite.reaches(meta.last_offset) => rewrite,
                full => {
                    // The first one keeps the base offset if it can, so that it is replaced.
                    let base_offset =
                        if full.is_none() && reaches(segment.base_offset(), meta.last_offset) {
                            segment.base_offset()
                        } else {
                            meta.base_offset
                        };
                    if let Some(full) = full {
                        rewritten.push(full.finish(modified_ms)?);
                    }
                    Rewrite::create(Arc::clone(place), base_offset, interval)?
                }
            };
            let rewrite = current.insert(rewrite);
            rewrite.append(&meta, bytes)?;
            while let Some(txn) = txns.next_if(|txn| txn.last_offset <= meta.last_offset) {
                rewrite.add_aborted(txn);
            }
        }
        if let Some(last) = current {
            rewritten.push(last.finish(modified_ms)?);
        }
        tracing::warn!(
            path = %segment.path().display(), segments = rewritten.len(),
            "splitting a segment with offsets too far from its first"
        );
        let mut old = Vec::new();
        rewrite::replace(place, &rewritten, || {
            old = segment.rename_deleted()?;
            Ok(())
        })?;
        segment.close();
        for path in old {
            remove_if_exists(&**place.files(), &path)?;
        }
        Ok(())
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
    segment: &Arc<Segment>,
    producers: &mut ProducerState,
    epochs: &mut LeaderEpochs,
    interval: u64,
) -> Result<Read, Interruption> {
    let mut indexes = IndexBuilder::new(segment.base_offset());
    let mut next_offset = segment.base_offset();
    let size = segment.size();
    if size == 0 {
        producers.set_end_offset(next_offset);
        return Ok(Read {
            indexes: indexes.finish(),
            end: 0,
            next_offset,
        });
    }
    let file = segment.handle()?;
    let mut scan = segment.scan(&*file, 0, size);
    let end = loop {
        let position = scan.position();
        let (meta, bytes) = match scan.next_whole() {
            Ok(Some((_, meta, bytes))) => (meta, bytes),
            Ok(None) => break position,
            Err(ScanError::Broken { source, .. }) => {
                tracing::warn!(path = %segment.path().display(), position, reason = %source, "damaged batch");
                break position;
            }
            Err(ScanError::Storage(error)) => return Err(error.into()),
        };
        if let Err(reason) = verify_crc(bytes) {
            tracing::warn!(path = %segment.path().display(), position, %reason, "damaged batch");
            break position;
        }
        if meta.last_offset < segment.base_offset()
            || meta.last_offset - meta.base_offset > Offset::from(i32::MAX)
        {
            tracing::warn!(path = %segment.path().display(), position, offset = meta.last_offset, "offset out of the segment's range");
            break position;
        }
        if !reaches(segment.base_offset(), meta.last_offset) {
            return Err(Interruption::OffsetOverflow(Arc::clone(segment)));
        }
        indexes.add(&meta, position, interval);
        note_epoch(epochs, &meta);
        next_offset = meta.next_offset();
        let completed = producers.replay(producer_batch(&meta, bytes).as_ref(), meta.next_offset());
        if let Some(txn) = completed
            && txn.is_aborted
        {
            indexes.add_aborted(txn.into());
        }
    };
    Ok(Read {
        indexes: indexes.finish(),
        end,
        next_offset,
    })
}

pub(super) fn note_epoch(epochs: &mut LeaderEpochs, meta: &BatchMeta) {
    let latest = epochs.latest().map_or(-1, |latest| latest.epoch);
    if meta.magic >= 2 && meta.leader_epoch > latest {
        epochs.assign(meta.leader_epoch, meta.base_offset);
    }
}
