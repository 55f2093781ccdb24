//! Adding batches to a log: as leader, as follower, and rolling to a new segment.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::{LeaderEpoch, Offset};
use barnabas_core::partition::producers::{Checked, Origin, ProducerBatch};
use barnabas_core::records::validate::PreparedBatch;
use barnabas_core::records::{BatchMeta, RecordError, batches, verify_crc};
use barnabas_core::time::Now;
use bytes::Bytes;

use super::error::{AppendError, LogError, StorageError};
use super::partition_log::{LogEnd, PartitionLog, Writer, jitter_ms};
use super::place::reaches;
use super::producer_state::{ProducerState, producer_batch};
use super::scan::ScanError;
use super::segment::{RollRules, Segment, SegmentAppend};
use super::time_index::TimestampOffset;
use super::types::{AppendInfo, FollowerAppend};

/// The bytes of a batch that a leader sets: base offset, length and leader epoch. The CRC does not
/// cover them, so the rest is written as the client sent it.
const PATCHED: usize = 16;

/// What a set of batches means to the log.
struct Summary {
    first_offset: Offset,
    last_offset: Offset,
    size: usize,
    max_timestamp: TimestampOffset,
}

impl PartitionLog {
    /// Appends what a client sent. A batch that is already in the log is answered with its offsets.
    pub fn append_as_leader(
        &self,
        batch: &PreparedBatch,
        leader_epoch: LeaderEpoch,
        now: Now,
    ) -> Result<AppendInfo, AppendError> {
        self.append_batch(batch, leader_epoch, Origin::Client, now)
    }

    /// Appends what a coordinator of this broker wrote: its own records, or a transaction's marker.
    pub fn append_from_coordinator(
        &self,
        batch: &PreparedBatch,
        leader_epoch: LeaderEpoch,
        now: Now,
    ) -> Result<AppendInfo, AppendError> {
        self.append_batch(batch, leader_epoch, Origin::Coordinator, now)
    }

    fn append_batch(
        &self,
        batch: &PreparedBatch,
        leader_epoch: LeaderEpoch,
        origin: Origin,
        now: Now,
    ) -> Result<AppendInfo, AppendError> {
        let config = self.config();
        let mut writer = self.writer();
        self.check_writable(&writer)?;
        let end = self.end();
        let header = &batch.header;
        let size = batch.bytes.len();
        check_size(size, &config)?;
        let mut meta = BatchMeta::from(header);
        meta.base_offset = end.offset;
        meta.last_offset = end.offset + Offset::from(header.last_offset_delta);
        let producer = producer_batch(&meta, &batch.bytes);
        if let Some(producer) = &producer
            && let Checked::Duplicate(stored) =
                writer.producers.producers.check(producer, origin)?
        {
            return Ok(AppendInfo {
                first_offset: stored.base_offset(),
                last_offset: stored.last_offset,
                // Kafka tells the time of the batch here, whoever gave it.
                log_append_time_ms: stored.timestamp,
                log_start_offset: self.log_start_offset(),
                leader_epoch,
                is_duplicate: true,
            });
        }
        self.watch(self.change_epochs(|epochs| epochs.assign(leader_epoch, end.offset)))?;
        let mut patched = [0; PATCHED];
        patched[..8].copy_from_slice(&end.offset.to_be_bytes());
        patched[8..12].copy_from_slice(&header.batch_length.to_be_bytes());
        patched[12..].copy_from_slice(&leader_epoch.to_be_bytes());
        let rest = batch.bytes.get(PATCHED..).unwrap_or_default();
        let summary = Summary {
            first_offset: meta.base_offset,
            last_offset: meta.last_offset,
            size,
            max_timestamp: TimestampOffset {
                timestamp: batch.max_timestamp,
                offset: meta.last_offset,
            },
        };
        let mut buffers = [IoSlice::new(&patched), IoSlice::new(rest)];
        self.write(&mut writer, &mut buffers, &summary, &config, now)?;
        self.apply(&mut writer, producer.as_slice(), summary.last_offset + 1)?;
        drop(writer);
        self.flush_if_many(&config)?;
        Ok(AppendInfo {
            first_offset: summary.first_offset,
            last_offset: summary.last_offset,
            log_append_time_ms: batch.log_append_time_ms,
            log_start_offset: self.log_start_offset(),
            leader_epoch,
            is_duplicate: false,
        })
    }

    /// Appends whole batches exactly as a leader has them; a cut batch at the end is left out.
    /// Offsets may have gaps but must ascend and must not lie below the log's end.
    pub fn append_as_follower(
        &self,
        records: &Bytes,
        now: Now,
    ) -> Result<FollowerAppend, AppendError> {
        let config = self.config();
        let mut writer = self.writer();
        self.check_writable(&writer)?;
        let end = self.end();
        let mut metas = Vec::new();
        let mut producers = Vec::new();
        let summary = summarize(records, |meta, bytes| {
            producers.extend(producer_batch(&meta, bytes));
            metas.push(meta);
        })?;
        let Some(summary) = summary else {
            return Ok(FollowerAppend {
                first_offset: end.offset,
                last_offset: end.offset - 1,
                size_in_bytes: 0,
            });
        };
        if summary.first_offset < end.offset {
            return Err(AppendError::UnexpectedOffset {
                first_offset: summary.first_offset,
                last_offset: summary.last_offset,
                log_end_offset: end.offset,
            });
        }
        check_size(summary.size, &config)?;
        for meta in &metas {
            self.watch(self.change_epochs(|epochs| {
                if meta.magic >= 2 {
                    epochs.assign(meta.leader_epoch, meta.base_offset)
                } else {
                    epochs.clear()
                }
            }))?;
        }
        let mut buffers = [IoSlice::new(&records[..summary.size])];
        self.write(&mut writer, &mut buffers, &summary, &config, now)?;
        self.apply(&mut writer, &producers, summary.last_offset + 1)?;
        drop(writer);
        self.flush_if_many(&config)?;
        Ok(FollowerAppend {
            first_offset: summary.first_offset,
            last_offset: summary.last_offset,
            size_in_bytes: summary.size,
        })
    }

    fn check_writable(&self, writer: &Writer) -> Result<(), StorageError> {
        self.check()?;
        if writer.is_closed {
            return Err(StorageError::new(
                "append to",
                &*self.directory(),
                std::io::Error::other("the log is closed"),
            ));
        }
        Ok(())
    }

    fn write(
        &self,
        writer: &mut Writer,
        buffers: &mut [IoSlice<'_>],
        summary: &Summary,
        config: &TopicConfig,
        now: Now,
    ) -> Result<(), AppendError> {
        let active = self.segment_for(writer, summary, config, now)?;
        self.watch(active.append(&mut SegmentAppend {
            buffers,
            size: summary.size,
            first_offset: summary.first_offset,
            last_offset: summary.last_offset,
            max_timestamp: summary.max_timestamp,
            index_interval_bytes: config.index_interval_bytes.max(0) as u64,
        }))?;
        Ok(())
    }

    /// Updates what follows from batches that are written, and lets readers see them.
    fn apply(
        &self,
        writer: &mut Writer,
        batches: &[ProducerBatch],
        next_offset: Offset,
    ) -> Result<(), StorageError> {
        let active = self.active();
        for batch in batches {
            let completed = writer.producers.producers.apply(batch);
            if let Some(txn) = completed
                && txn.is_aborted
            {
                self.watch(active.txns.append(txn.into()))?;
            }
        }
        writer.producers.set_end_offset(next_offset);
        // First the bound of transactional readers, then the records: never the other way round.
        self.publish_unstable(writer);
        self.set_end(LogEnd {
            offset: next_offset,
            segment_base: active.base_offset(),
            position: active.size(),
        });
        Ok(())
    }

    /// The active segment, or a new one if the old one is full or old enough.
    fn segment_for(
        &self,
        writer: &mut Writer,
        summary: &Summary,
        config: &TopicConfig,
        now: Now,
    ) -> Result<Arc<Segment>, AppendError> {
        self.settle()?;
        let active = self.active();
        let rules = RollRules {
            segment_bytes: config.segment_bytes as u64,
            segment_ms: max_segment_ms(config) - writer.roll_jitter_ms,
            index_bytes: config.segment_index_bytes as u64,
        };
        let is_full = active.is_full_for(
            summary.size as u64,
            summary.last_offset,
            summary.max_timestamp.timestamp,
            &rules,
            now.wall_clock_ms,
        );
        let is_full = is_full.map_err(|error| match error {
            ScanError::Storage(error) => AppendError::Storage(self.volume().fail(error)),
            ScanError::Broken { .. } => AppendError::Corrupt {
                reason: error.to_string(),
            },
        })?;
        if is_full {
            // Kafka begins the segment with the first batch. A follower of a compacted log would have
            // gaps between its segments by that, which recovery could not tell from a loss.
            let end_offset = self.log_end_offset();
            let base_offset = if reaches(end_offset, summary.last_offset) {
                end_offset
            } else {
                summary.first_offset
            };
            Ok(self.watch(self.roll(writer, base_offset, now.wall_clock_ms))?)
        } else {
            Ok(active)
        }
    }

    /// Begins a new segment at `base_offset` or the log's end, whichever is greater, and has what
    /// is below it flushed in the background.
    pub(super) fn roll(
        &self,
        writer: &mut Writer,
        base_offset: Offset,
        now_ms: i64,
    ) -> Result<Arc<Segment>, StorageError> {
        self.settle()?;
        let active = self.active();
        let end = self.end();
        let base_offset = base_offset.max(end.offset);
        if active.size() == 0 && active.base_offset() == base_offset {
            return Ok(active);
        }
        // A segment that was flushed whole is not recovered after a crash: its index must be right.
        if active.seal()? && self.recovery_point() >= end.offset {
            active.times.sync()?;
        }
        writer.producers.set_end_offset(base_offset);
        let snapshot = writer.producers.take_snapshot()?;
        let config = self.config();
        writer.roll_jitter_ms = jitter_ms(&config);
        let segment = Segment::create(self.place(), base_offset, &config, now_ms)?;
        let segment = Arc::new(segment);
        self.segments_mut().push(Arc::clone(&segment));
        self.set_end(LogEnd {
            offset: end.offset,
            segment_base: base_offset,
            position: 0,
        });
        tracing::debug!(log = %self.topic_partition(), base_offset, "rolled a new segment");
        self.later(Duration::ZERO, move |log| {
            let flushed = snapshot
                .map_or(Ok(()), |path| {
                    log.watch(ProducerState::sync(&log.place(), &path))
                })
                .map_err(LogError::from)
                .and_then(|()| log.flush_below(base_offset));
            if let Err(error) = flushed {
                tracing::error!(log = %log.topic_partition(), %error, "cannot flush a segment");
            }
        });
        Ok(segment)
    }

    /// Flushes if `flush.messages` were appended since the last time.
    fn flush_if_many(&self, config: &TopicConfig) -> Result<(), StorageError> {
        let unflushed = self.log_end_offset() - self.recovery_point();
        if unflushed < config.flush_messages {
            return Ok(());
        }
        match self.flush() {
            Ok(()) => Ok(()),
            Err(LogError::Storage(error)) => Err(error),
            Err(other) => {
                tracing::error!(log = %self.topic_partition(), error = %other, "cannot flush");
                Ok(())
            }
        }
    }
}

/// `segment.ms`; with compaction `max.compaction.lag.ms` if that is shorter.
fn max_segment_ms(config: &TopicConfig) -> i64 {
    if config.cleanup_policy.compact {
        config.segment_ms.min(config.max_compaction_lag_ms)
    } else {
        config.segment_ms
    }
}

fn check_size(size: usize, config: &TopicConfig) -> Result<(), AppendError> {
    let segment_bytes = config.segment_bytes as usize;
    if size > segment_bytes {
        return Err(AppendError::RecordListTooLarge {
            size,
            segment_bytes,
        });
    }
    Ok(())
}

/// Checks the batches of a leader and hands each to `visit`; `None` if there is no whole one.
fn summarize(
    records: &[u8],
    mut visit: impl FnMut(BatchMeta, &[u8]),
) -> Result<Option<Summary>, AppendError> {
    let corrupt = |error: &RecordError| AppendError::Corrupt {
        reason: error.to_string(),
    };
    let mut summary: Option<Summary> = None;
    for batch in batches(records) {
        let (position, meta) = match batch {
            Ok(batch) => batch,
            Err(RecordError::Incomplete { .. }) => break,
            Err(error) => return Err(corrupt(&error)),
        };
        let bytes = &records[position..position + meta.size_in_bytes];
        verify_crc(bytes).map_err(|error| corrupt(&error))?;
        let summary = summary.get_or_insert(Summary {
            first_offset: meta.base_offset,
            last_offset: meta.base_offset - 1,
            size: 0,
            max_timestamp: TimestampOffset {
                timestamp: -1,
                offset: meta.base_offset,
            },
        });
        if meta.base_offset <= summary.last_offset || meta.last_offset < meta.base_offset {
            return Err(AppendError::OffsetsNotAscending);
        }
        summary.last_offset = meta.last_offset;
        summary.size = position + meta.size_in_bytes;
        if meta.max_timestamp > summary.max_timestamp.timestamp {
            summary.max_timestamp = TimestampOffset {
                timestamp: meta.max_timestamp,
                offset: meta.last_offset,
            };
        }
        visit(meta, bytes);
    }
    Ok(summary)
}
