//! Making a log shorter: truncation, deletion of records, retention.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::Offset;
use barnabas_core::partition::leader_epochs::LeaderEpochs;

use super::error::{LogError, StorageError};
use super::partition_log::{LogEnd, PartitionLog, Writer};
use super::recovery;
use super::segment::{Segment, remove_if_exists};

/// Why segments are deleted, for the log.
#[derive(Clone, Copy, Debug)]
enum Reason {
    BelowLogStart,
    RetentionBytes,
    RetentionMs,
}

impl PartitionLog {
    /// Drops all records at or above `offset`. Returns whether there were any.
    pub fn truncate_to(&self, offset: Offset, now_ms: i64) -> Result<bool, LogError> {
        self.check()?;
        let mut writer = self.writer();
        let end = self.end();
        if offset >= end.offset {
            self.watch(self.change_epochs(|epochs| epochs.truncate_from_end(offset)))?;
            return Ok(false);
        }
        let first_base = self.segments().first().map(|first| first.base_offset());
        if first_base.is_some_and(|base| base > offset) {
            self.restart_at(&mut writer, offset, now_ms)?;
            return Ok(true);
        }
        tracing::info!(log = %self.topic_partition(), offset, "truncating");
        self.note_truncation();
        let removed = {
            let mut segments = self.segments_mut();
            let kept = segments
                .partition_point(|segment| segment.base_offset() <= offset)
                .max(1);
            // Readers that come now find the end below what is about to vanish.
            let removed = segments.split_off(kept);
            let active = &segments[kept - 1];
            self.set_end(LogEnd {
                offset,
                segment_base: active.base_offset(),
                position: active.size(),
            });
            removed
        };
        // The last first, and all of them on disk before the cut: whenever this is interrupted, what
        // is left is the log up to some offset.
        if !removed.is_empty() {
            let removed = removed.into_iter().rev();
            self.watch(self.discard(&mut writer, removed))?;
            self.watch(self.place().sync_directory(&self.directory()))?;
        }
        let active = self.active();
        self.watch_scan(active.truncate_to(offset, now_ms))?;
        self.set_end(LogEnd {
            offset,
            segment_base: active.base_offset(),
            position: active.size(),
        });
        self.lower_recovery_point(offset);
        self.watch(self.change_epochs(|epochs| epochs.truncate_from_end(offset)))?;
        self.set_log_start_offset(self.log_start_offset().min(offset));
        let segments = self.segments().clone();
        let start = self.log_start_offset();
        self.watch_scan(recovery::rebuild_producers(
            &mut writer.producers,
            &segments,
            start,
            offset,
            now_ms,
            recovery::Stop::Unclean,
        ))?;
        self.publish_unstable(&writer);
        if self.high_watermark() > offset {
            self.lower_high_watermark(offset);
        }
        Ok(true)
    }

    /// Drops all records; the next one will have `offset`.
    pub fn truncate_fully_and_start_at(&self, offset: Offset, now_ms: i64) -> Result<(), LogError> {
        self.check()?;
        let mut writer = self.writer();
        self.restart_at(&mut writer, offset, now_ms)
    }

    fn restart_at(&self, writer: &mut Writer, offset: Offset, now_ms: i64) -> Result<(), LogError> {
        tracing::info!(log = %self.topic_partition(), offset, "dropping all records");
        self.note_truncation();
        let removed = self.segments().clone();
        self.watch(self.discard(writer, removed))?;
        let fresh = self.watch(Segment::create(
            self.place(),
            offset,
            &self.config(),
            now_ms,
        ))?;
        *self.segments_mut() = vec![Arc::new(fresh)];
        self.watch(self.place().sync_directory(&self.directory()))?;
        self.set_end(LogEnd {
            offset,
            segment_base: offset,
            position: 0,
        });
        self.watch(self.change_epochs(LeaderEpochs::clear))?;
        self.watch(writer.producers.start_at(offset))?;
        self.set_log_start_offset(offset);
        self.lower_recovery_point(offset);
        self.publish_unstable(writer);
        self.lower_high_watermark(offset);
        Ok(())
    }

    /// Raises the log start offset: records below are no longer served, and their segments are
    /// deleted by the next retention check. Not above the high watermark.
    pub fn increment_log_start_offset(&self, offset: Offset) -> Result<bool, LogError> {
        self.check()?;
        let high_watermark = self.high_watermark();
        if offset > high_watermark {
            return Err(LogError::OffsetOutOfRange {
                topic_partition: self.topic_partition().clone(),
                offset,
                log_start_offset: self.log_start_offset(),
                log_end_offset: high_watermark,
            });
        }
        let mut writer = self.writer();
        Ok(self.watch(self.advance_start(&mut writer, offset))?)
    }

    fn advance_start(&self, writer: &mut Writer, offset: Offset) -> Result<bool, StorageError> {
        if offset <= self.log_start_offset() {
            return Ok(false);
        }
        self.set_log_start_offset(offset);
        self.change_epochs(|epochs| epochs.truncate_from_start(offset))?;
        writer.producers.start_advanced(offset);
        self.publish_unstable(writer);
        Ok(true)
    }

    /// Deletes segments that retention no longer asks for. Returns how many.
    pub fn delete_old_segments(&self, now_ms: i64) -> Result<usize, LogError> {
        self.check()?;
        let config = self.config();
        let log_start_offset = self.log_start_offset();
        let mut deleted = self.delete_while(Reason::BelowLogStart, now_ms, |_, next_base| {
            Ok(next_base.is_some_and(|base| base <= log_start_offset))
        })?;
        if !config.cleanup_policy.delete {
            return Ok(deleted);
        }
        let limit = config.retention_bytes;
        let size = self.size_in_bytes();
        if limit >= 0 && size >= limit as u64 {
            let mut excess = size - limit as u64;
            deleted += self.delete_while(Reason::RetentionBytes, now_ms, |segment, _| {
                let Some(rest) = excess.checked_sub(segment.size()) else {
                    return Ok(false);
                };
                excess = rest;
                Ok(true)
            })?;
        }
        if config.retention_ms >= 0 {
            deleted += self.delete_while(Reason::RetentionMs, now_ms, |segment, _| {
                let age = now_ms.saturating_sub(segment.largest_timestamp()?);
                Ok(age > config.retention_ms)
            })?;
        }
        Ok(deleted)
    }

    /// Deletes the oldest segments for as long as `should_delete` says so (given the base offset
    /// of the next one too), never above the high watermark.
    fn delete_while(
        &self,
        reason: Reason,
        now_ms: i64,
        mut should_delete: impl FnMut(&Segment, Option<Offset>) -> Result<bool, StorageError>,
    ) -> Result<usize, LogError> {
        let mut writer = self.writer();
        let segments = self.segments().clone();
        let end = self.log_end_offset();
        let high_watermark = self.high_watermark();
        let mut count = 0;
        for (index, segment) in segments.iter().enumerate() {
            let next_base = segments.get(index + 1).map(|next| next.base_offset());
            let is_below = next_base.unwrap_or(end) <= high_watermark;
            let is_empty_active = next_base.is_none() && segment.size() == 0;
            if !is_below || is_empty_active || !self.watch(should_delete(segment, next_base))? {
                break;
            }
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        if count == segments.len() {
            self.watch(self.roll(&mut writer, end, now_ms))?;
        }
        let new_start = self.segments()[count].base_offset();
        tracing::info!(
            log = %self.topic_partition(), count, new_start, ?reason, "deleting segments"
        );
        self.watch(self.advance_start(&mut writer, new_start))?;
        let removed: Vec<_> = self.segments_mut().drain(..count).collect();
        self.watch(self.discard(&mut writer, removed))?;
        Ok(count)
    }

    /// Renames the files of segments that are no longer in the list, and their snapshots, and
    /// removes them after `file.delete.delay.ms`; whoever reads them has them open.
    fn discard(
        &self,
        writer: &mut Writer,
        segments: impl IntoIterator<Item = Arc<Segment>>,
    ) -> Result<(), StorageError> {
        let mut paths = Vec::new();
        for segment in segments {
            paths.extend(segment.rename_deleted()?);
            segment.close();
            paths.extend(writer.producers.rename_deleted(segment.base_offset())?);
        }
        self.remove_later(paths);
        Ok(())
    }

    /// Removes files after `file.delete.delay.ms`; whoever reads them has them open.
    pub(super) fn remove_later(&self, paths: Vec<PathBuf>) {
        if paths.is_empty() {
            return;
        }
        let delay = Duration::from_millis(self.config().file_delete_delay_ms.max(0) as u64);
        self.later(delay, move |log| {
            for path in paths {
                // The log's directory may have another name by now.
                let path = path
                    .file_name()
                    .map_or(path.clone(), |name| log.directory().join(name));
                if let Err(error) = remove_if_exists(&**log.place().files(), &path) {
                    log.volume().fail(error);
                    return;
                }
            }
        });
    }
}
