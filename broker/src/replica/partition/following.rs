//! What a partition does as a follower. All of it is for one leader epoch: once the controller has named
//! another leader, nothing of the old one reaches the log any more.

use barnabas_core::ids::{LeaderEpoch, Offset, TopicId};
use barnabas_core::partition::follower::FollowerLog;
use barnabas_core::partition::{LogBounds, PartitionState, Role};
use barnabas_core::records::batches;
use barnabas_core::time::Now;
use bytes::Bytes;

use super::{Partition, bounds};
use crate::log::{AppendError, LogError, PartitionLog};
use std::sync::Arc;

/// Why a follower did not do what its leader's answer asks for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FollowError {
    /// The controller has given the partition another role or leader meanwhile.
    #[error("the partition does not follow this leader any more")]
    NotFollowing,
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl FollowError {
    /// Whether fetching again may help: the bytes were damaged on their way.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Append(AppendError::Corrupt { .. }) => true,
            Self::NotFollowing
            | Self::Append(
                AppendError::Producer(_)
                | AppendError::RecordListTooLarge { .. }
                | AppendError::UnexpectedOffset { .. }
                | AppendError::OffsetsNotAscending
                | AppendError::Storage(_),
            )
            | Self::Log(_) => false,
        }
    }
}

/// The own log of a follower as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerPlace {
    pub bounds: LogBounds,
    pub latest_epoch: Option<LeaderEpoch>,
}

/// What a leader sent for one partition.
#[derive(Clone, Debug)]
pub struct LeaderData<'a> {
    pub leader_epoch: LeaderEpoch,
    pub fetch_offset: Offset,
    pub records: &'a Bytes,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
}

/// How a follower begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// Broker id, or -1.
    pub leader: i32,
    pub leader_epoch: LeaderEpoch,
    pub topic_id: Option<TopicId>,
    pub log: FollowerLog,
}

fn place(log: &PartitionLog) -> FollowerPlace {
    FollowerPlace {
        bounds: bounds(log),
        latest_epoch: log.latest_epoch(),
    }
}

impl Partition {
    /// Whom the partition follows and from where; `None` if it does not follow.
    pub fn following(&self) -> Option<Following> {
        let state = self.lock();
        let Role::Follower { leader } = *state.role() else {
            return None;
        };
        let log = self.log().ok()?;
        let FollowerPlace {
            bounds,
            latest_epoch,
        } = place(&log);
        Some(Following {
            leader,
            leader_epoch: state.leader_epoch(),
            topic_id: log.topic_id(),
            log: FollowerLog {
                bounds,
                high_watermark: state.high_watermark(),
                latest_epoch,
            },
        })
    }

    /// The greatest epoch of the own log that is at most `epoch`, and where it ends.
    pub fn local_epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.log().ok()?.end_offset_for_epoch(epoch)
    }

    fn followed_log(
        &self,
        state: &PartitionState,
        leader_epoch: LeaderEpoch,
    ) -> Result<Arc<PartitionLog>, FollowError> {
        let is_following = matches!(state.role(), Role::Follower { .. });
        if !is_following || state.leader_epoch() != leader_epoch {
            return Err(FollowError::NotFollowing);
        }
        self.log().map_err(|_| FollowError::NotFollowing)
    }

    /// Appends what the leader sent, and takes over its high watermark and log start offset. What was fetched for
    /// another place than the end of the log is passed over: a fetcher that the partition was taken from may have
    /// brought its last answer after the next one had asked.
    pub fn append_from_leader(
        &self,
        data: &LeaderData<'_>,
        now: Now,
    ) -> Result<FollowerPlace, FollowError> {
        let mut state = self.lock();
        let log = self.followed_log(&state, data.leader_epoch)?;
        let log_end_offset = log.log_end_offset();
        if data.fetch_offset != log_end_offset {
            tracing::info!(
                partition = %self.topic_partition, fetch_offset = data.fetch_offset, log_end_offset,
                "records for another place than the end of the log: fetching again"
            );
            return Ok(place(&log));
        }
        if !data.records.is_empty() {
            self.append_records(&log, data.records, now)?;
            self.metrics
                .replication_bytes_in
                .add(data.records.len() as u64);
        }
        let before = state.high_watermark();
        if state.follow_high_watermark(data.high_watermark, bounds(&log)) {
            self.publish_high_watermark(state.high_watermark(), &log);
        }
        if data.log_start_offset > log.log_start_offset() {
            log.increment_log_start_offset(data.log_start_offset)?;
            state.confine_high_watermark(bounds(&log));
            self.publish_high_watermark(state.high_watermark(), &log);
        }
        let high_watermark = state.high_watermark();
        let place = place(&log);
        drop(state);
        if high_watermark != before {
            // Consumers may read here (KIP-392).
            self.waiters.committed(high_watermark, usize::MAX);
        }
        Ok(place)
    }

    fn append_records(
        &self,
        log: &PartitionLog,
        records: &Bytes,
        now: Now,
    ) -> Result<(), FollowError> {
        let most = usize::try_from(self.config.load().segment_bytes).unwrap_or(usize::MAX);
        if records.len() <= most {
            return append_or_restart(log, records, now);
        }
        // The leader's segments are larger than ours may be: one batch after the other.
        for batch in batches(records) {
            let Ok((position, meta)) = batch else {
                break;
            };
            let batch = records.slice(position..position + meta.size_in_bytes);
            append_or_restart(log, &batch, now)?;
        }
        Ok(())
    }

    /// Drops what the leader does not have.
    pub fn truncate_as_follower(
        &self,
        leader_epoch: LeaderEpoch,
        offset: Offset,
        now: Now,
    ) -> Result<FollowerPlace, FollowError> {
        self.cut(leader_epoch, |log, high_watermark| {
            if offset < high_watermark {
                tracing::warn!(
                    partition = %self.topic_partition,
                    offset, high_watermark, "cutting below the high watermark"
                );
            }
            log.truncate_to(offset, now.wall_clock_ms).map(drop)
        })
    }

    /// Drops everything; the log goes on at `offset`, where the leader's log begins.
    pub fn restart_as_follower(
        &self,
        leader_epoch: LeaderEpoch,
        offset: Offset,
        now: Now,
    ) -> Result<FollowerPlace, FollowError> {
        self.cut(leader_epoch, |log, _| {
            log.truncate_fully_and_start_at(offset, now.wall_clock_ms)
        })
    }

    fn cut(
        &self,
        leader_epoch: LeaderEpoch,
        cut: impl FnOnce(&PartitionLog, Offset) -> Result<(), LogError>,
    ) -> Result<FollowerPlace, FollowError> {
        let mut state = self.lock();
        let log = self.followed_log(&state, leader_epoch)?;
        cut(&log, state.high_watermark())?;
        state.confine_high_watermark(bounds(&log));
        self.publish_high_watermark(state.high_watermark(), &log);
        drop(state);
        self.waiters.wake_all();
        Ok(place(&log))
    }
}

/// Appends records; if the log is empty and its start lies within the first batch (`DeleteRecords` on the
/// leader), it begins anew at that batch (Kafka: `Partition.doAppendRecordsToFollowerOrFutureReplica`).
fn append_or_restart(log: &PartitionLog, records: &Bytes, now: Now) -> Result<(), FollowError> {
    match log.append_as_follower(records, now) {
        Err(AppendError::UnexpectedOffset {
            first_offset,
            last_offset,
            log_end_offset,
        }) if log_end_offset == log.log_start_offset()
            && first_offset < log_end_offset
            && last_offset >= log_end_offset =>
        {
            log.truncate_fully_and_start_at(first_offset, now.wall_clock_ms)?;
            log.append_as_follower(records, now)?;
        }
        appended => {
            appended?;
        }
    }
    Ok(())
}
