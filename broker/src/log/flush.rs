//! Bringing a log to disk, and how far it is there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use barnabas_core::ids::Offset;

use super::checkpoint::LEADER_EPOCHS;
use super::error::{LogError, StorageError};
use super::partition_log::{PartitionLog, lock};
use super::segment::Segment;

impl PartitionLog {
    /// Returns once everything that the log holds now is on disk.
    pub fn flush(&self) -> Result<(), LogError> {
        let end = self.log_end_offset();
        self.flush_below(end)
    }

    /// Returns once everything below `offset` is on disk. Holds no lock while it waits.
    pub(super) fn flush_below(&self, offset: Offset) -> Result<(), LogError> {
        self.check()?;
        self.settle()?;
        let truncations = self.truncations.load(Ordering::Acquire);
        let recovery_point = self.recovery_point();
        if offset <= recovery_point && !self.epochs_unsynced.load(Ordering::Acquire) {
            return Ok(());
        }
        let segments: Vec<Arc<Segment>> = {
            let segments = self.segments();
            let first = segments
                .partition_point(|segment| segment.base_offset() <= recovery_point)
                .saturating_sub(1);
            let last = segments.partition_point(|segment| segment.base_offset() < offset);
            if offset <= recovery_point {
                Vec::new()
            } else {
                segments[first.min(last)..last].to_vec()
            }
        };
        let started = Instant::now();
        for segment in &segments {
            match segment.flush() {
                Err(_) if segment.is_deleted() => {}
                flushed => self.watch(flushed)?,
            }
        }
        let has_new_epochs = self.epochs_unsynced.swap(false, Ordering::AcqRel);
        if has_new_epochs {
            self.watch(self.place().sync_file(LEADER_EPOCHS))?;
        }
        let is_new = |segment: &Arc<Segment>| segment.base_offset() >= recovery_point;
        if has_new_epochs || segments.iter().any(is_new) {
            let directory = self.directory();
            self.watch(self.place().sync_directory(&directory))?;
            // A log that was never flushed may have a directory that is not on disk yet.
            if recovery_point == 0 {
                self.watch(self.place().sync_directory(&self.log_dir()))?;
            }
        }
        self.place().volume.flush_times.observe(started.elapsed());
        // A truncation meanwhile has lowered the recovery point after this, or is seen here.
        let end = lock(&self.end);
        if self.truncations.load(Ordering::Acquire) == truncations {
            self.recovery_point
                .fetch_max(offset.min(end.offset), Ordering::AcqRel);
        }
        Ok(())
    }

    /// Flushes if `flush.ms` has passed since the last time.
    pub fn flush_if_due(&self, now_ms: i64) -> Result<(), LogError> {
        let waited = now_ms.saturating_sub(self.last_flush_ms.load(Ordering::Relaxed));
        if waited < self.config().flush_ms {
            return Ok(());
        }
        self.last_flush_ms.store(now_ms, Ordering::Relaxed);
        self.flush()
    }

    /// Has what the last process left behind on disk before anything is built on it. Else what a
    /// recovery had cut off could come back, after a loss of power, behind what was written since.
    pub(super) fn settle(&self) -> Result<(), StorageError> {
        if self.is_settled.load(Ordering::Acquire) {
            return Ok(());
        }
        self.watch(self.active().sync_file())?;
        if self.epochs_unsynced.swap(false, Ordering::AcqRel) {
            self.watch(self.place().sync_file(LEADER_EPOCHS))?;
        }
        self.watch(self.place().sync_directory(&self.directory()))?;
        self.settled();
        Ok(())
    }

    /// Notes that all files of the log were brought to disk since it was loaded.
    pub(super) fn settled(&self) {
        self.is_settled.store(true, Ordering::Release);
    }

    pub(super) fn set_checkpointed_recovery_point(&self, offset: Offset) {
        self.checkpointed_recovery_point
            .store(offset, Ordering::Release);
    }

    /// To be called before the log is cut, see [`PartitionLog::flush_below`].
    pub(super) fn note_truncation(&self) {
        self.truncations.fetch_add(1, Ordering::AcqRel);
    }

    /// Lowers the recovery point, in the checkpoint too, to where the log was cut.
    pub(super) fn lower_recovery_point(&self, offset: Offset) {
        self.recovery_point.fetch_min(offset, Ordering::AcqRel);
        if self.cleaned_offset.fetch_min(offset, Ordering::AcqRel) > offset {
            self.volume().cleaned_offset_lowered();
        }
        if self.checkpointed_recovery_point.load(Ordering::Acquire) > offset {
            self.volume().recovery_point_moved();
        }
    }
}
