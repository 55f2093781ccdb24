//! Putting a cleaned segment in the place of those that it was made from.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use barnabas_core::ids::Offset;

use super::CleanError;
use crate::log::error::LogError;
use crate::log::partition_log::PartitionLog;
use crate::log::place::Place;
use crate::log::rewrite::{self, Rewritten};
use crate::log::segment::Segment;

impl PartitionLog {
    /// Replaces segments that stand one behind the other, none of them the active one. If the log was
    /// cut (`truncations` is the count from before), moved, closed or deleted since, nothing happens
    /// but that the new files go.
    pub(super) fn replace_segments(
        &self,
        place: &Arc<Place>,
        old: &[Arc<Segment>],
        rewritten: Rewritten,
        truncations: u64,
        now_ms: i64,
    ) -> Result<(), CleanError> {
        self.check()?;
        let mut writer = self.writer();
        let first = old.first().ok_or(CleanError::Aborted)?;
        let index = {
            let segments = self.segments();
            let index = segments.iter().position(|one| Arc::ptr_eq(one, first));
            index.filter(|index| {
                let end = index + old.len();
                end < segments.len()
                    && segments[*index..end]
                        .iter()
                        .zip(old)
                        .all(|(one, other)| Arc::ptr_eq(one, other))
            })
        };
        let is_same = !writer.is_closed
            && !self.cleaning_is_paused()
            && Arc::ptr_eq(&self.place(), place)
            && self.truncations.load(Ordering::Acquire) == truncations;
        let Some(index) = index.filter(|_| is_same) else {
            rewrite::Rewrite::discard(place, rewritten.base_offset);
            return Err(CleanError::Aborted);
        };
        let fresh = Arc::new(Segment::new(
            Arc::clone(place),
            rewritten.base_offset,
            rewritten.size,
            now_ms,
        ));
        let mut paths = Vec::new();
        let mut segments = None;
        let replaced = rewrite::replace(place, &[rewritten], || {
            // Whoever looks for a segment from now on waits until the new one has its name.
            segments = Some(self.segments_mut());
            // The first one first: what a crash leaves are the last ones, so that no value comes
            // back without the tombstone behind it.
            for segment in old {
                paths.extend(segment.rename_deleted()?);
            }
            Ok(())
        });
        if let (Ok(()), Some(segments)) = (&replaced, &mut segments) {
            segments.splice(index..index + old.len(), [fresh]);
        }
        drop(segments);
        self.watch(replaced)?;
        for segment in old {
            segment.close();
        }
        // The snapshot at the base offset stays with the new segment.
        for segment in &old[1..] {
            let path = writer.producers.rename_deleted(segment.base_offset());
            paths.extend(self.watch(path)?);
        }
        self.remove_later(paths);
        Ok(())
    }

    /// Has everything below `offset` on disk, and that said in the checkpoint of the log directory.
    pub(super) fn bring_recovery_point_to(&self, offset: Offset) -> Result<(), CleanError> {
        if self.checkpointed_recovery_point.load(Ordering::Acquire) >= offset {
            return Ok(());
        }
        self.flush_below(offset).map_err(|error| match error {
            LogError::Storage(error) => CleanError::Storage(error),
            _ => CleanError::Aborted,
        })?;
        self.volume().recovery_point_moved();
        Ok(self.check()?)
    }

    /// No cleaning may replace segments from now on, until [`Self::resume_cleaning`]: the log is being
    /// copied (Kafka's `abortAndPauseCleaning`).
    pub(in crate::log) fn pause_cleaning(&self) {
        // Whoever replaces segments now has done so when this returns.
        let _writer = self.writer();
        self.cleaning_paused.store(true, Ordering::Release);
    }

    pub(in crate::log) fn resume_cleaning(&self) {
        self.cleaning_paused.store(false, Ordering::Release);
    }

    pub(super) fn cleaning_is_paused(&self) -> bool {
        self.cleaning_paused.load(Ordering::Acquire)
    }

    /// Notes that the log cannot be cleaned; that ends with it, or when it moves to another directory.
    pub(super) fn set_uncleanable(&self) {
        self.uncleanable.store(true, Ordering::Release);
    }

    pub(super) fn is_uncleanable(&self) -> bool {
        self.uncleanable.load(Ordering::Acquire)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.writer().is_closed
    }

    /// Up to where the log was cleaned.
    pub(crate) fn cleaned_offset(&self) -> Option<Offset> {
        let offset = self.cleaned_offset.load(Ordering::Acquire);
        (offset >= 0).then_some(offset)
    }

    /// Notes up to where the log was cleaned, unless it was cut since.
    pub(super) fn set_cleaned_offset(
        &self,
        offset: Offset,
        truncations: u64,
    ) -> Result<(), CleanError> {
        let _writer = self.writer();
        // What was copied before this cleaning is not clean.
        if self.truncations.load(Ordering::Acquire) != truncations || self.cleaning_is_paused() {
            return Err(CleanError::Aborted);
        }
        self.cleaned_offset.store(offset, Ordering::Release);
        Ok(())
    }

    /// Notes what the checkpoint says of a log that was just loaded.
    pub(in crate::log) fn restore_cleaned_offset(&self, offset: Offset) {
        self.cleaned_offset.store(offset, Ordering::Release);
    }
}
