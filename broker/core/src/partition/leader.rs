//! What the leader of a partition knows of its replicas, and the rules that follow from it: the high
//! watermark, who is in sync, whether a write may be accepted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::isr::IsrState;
use crate::ids::{BrokerId, Offset};
use crate::time::Now;

/// What the rules need to know from outside the partition.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// `min.insync.replicas` of the topic.
    pub min_insync_replicas: i32,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_max: Duration,
    /// Whether a broker is among the live ones of the latest cluster metadata.
    pub is_alive: &'a dyn Fn(BrokerId) -> bool,
}

/// What the leader knows of one follower. Times are on the monotonic clock; `None` is "never".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteReplica {
    /// The follower's log end offset; unknown until its first fetch in this leadership.
    pub log_end_offset: Option<Offset>,
    pub log_start_offset: Option<Offset>,
    pub last_fetch: Option<Duration>,
    /// The leader's log end offset when the follower fetched last.
    pub leader_end_offset_at_last_fetch: Offset,
    pub last_caught_up: Option<Duration>,
}

impl RemoteReplica {
    /// Kafka: `Replica.isCaughtUp`.
    fn is_caught_up(&self, leader_end_offset: Offset, lag_max: Duration, now: Now) -> bool {
        self.log_end_offset == Some(leader_end_offset)
            || self
                .last_caught_up
                .is_some_and(|at| now.monotonic.saturating_sub(at) <= lag_max)
    }
}

/// One fetch of a follower, as far as the leader's bookkeeping is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    pub follower: BrokerId,
    /// The follower has everything below this.
    pub fetch_offset: Offset,
    /// The follower's log start offset.
    pub log_start_offset: Offset,
    /// The leader's log end offset when the fetch was read.
    pub leader_end_offset: Offset,
}

/// The state of a partition on the broker that leads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLeader {
    /// Log end offset at which this leader epoch began.
    pub epoch_start_offset: Offset,
    pub isr: IsrState,
    /// Every assigned replica but this one.
    pub followers: BTreeMap<BrokerId, RemoteReplica>,
}

impl PartitionLeader {
    /// `min.insync.replicas`, but never more than there are replicas.
    pub fn effective_min_isr(&self, surroundings: Surroundings<'_>) -> usize {
        let configured = usize::try_from(surroundings.min_insync_replicas).unwrap_or(0);
        configured.min(self.followers.len() + 1)
    }

    /// Whether a write with acks=-1 may be accepted.
    pub fn has_enough_in_sync(&self, surroundings: Surroundings<'_>) -> bool {
        self.isr.committed().len() >= self.effective_min_isr(surroundings)
    }

    /// Whether a replicated write with acks=-1 still has the durability that it asked for.
    pub fn has_enough_after_append(&self, surroundings: Surroundings<'_>) -> bool {
        self.isr.maximal_len() >= self.effective_min_isr(surroundings)
    }

    /// The offset below which every replica that counts has all records; `None` while the ISR is
    /// smaller than the minimum, when the high watermark stands still for every kind of write.
    ///
    /// Counts the maximal ISR, and replicas that are about to join: caught up within
    /// `replica.lag.time.max.ms` and alive.
    pub fn replicated_below(
        &self,
        log_end_offset: Offset,
        surroundings: Surroundings<'_>,
        now: Now,
    ) -> Option<Offset> {
        if !self.has_enough_in_sync(surroundings) {
            return None;
        }
        let mut lowest = log_end_offset;
        for (&broker, follower) in &self.followers {
            let counts = self.isr.maximal_contains(broker)
                || (follower.is_caught_up(log_end_offset, surroundings.replica_lag_max, now)
                    && (surroundings.is_alive)(broker));
            if counts {
                // An unknown end offset holds the high watermark where it is.
                lowest = lowest.min(follower.log_end_offset.unwrap_or(-1));
            }
        }
        Some(lowest)
    }

    /// Notes what a follower fetched. Returns whether its log end offset changed; `None` if the
    /// broker is not a replica.
    pub fn note_fetch(&mut self, fetch: FollowerFetch, now: Now) -> Option<bool> {
        let follower = self.followers.get_mut(&fetch.follower)?;
        // Caught up now, or caught up with what was there at the previous fetch (`Replica`).
        let caught_up_at = if fetch.fetch_offset >= fetch.leader_end_offset {
            Some(now.monotonic)
        } else if fetch.fetch_offset >= follower.leader_end_offset_at_last_fetch {
            follower.last_fetch
        } else {
            None
        };
        follower.last_caught_up = follower.last_caught_up.max(caught_up_at);
        let moved = follower.log_end_offset != Some(fetch.fetch_offset);
        follower.log_end_offset = Some(fetch.fetch_offset);
        follower.log_start_offset = Some(fetch.log_start_offset);
        follower.leader_end_offset_at_last_fetch = fetch.leader_end_offset;
        follower.last_fetch = Some(now.monotonic);
        Some(moved)
    }

    /// The follower that a consumer at `offset` had better read from (KIP-392); `None` is the leader.
    ///
    /// Kafka's `RackAwareReplicaSelector`: one in the consumer's rack, the leader first, then the most caught
    /// up, of those in sync that have the offset.
    pub fn preferred_replica(
        &self,
        offset: Offset,
        is_leader_in_rack: bool,
        is_in_rack: &dyn Fn(BrokerId) -> bool,
    ) -> Option<BrokerId> {
        if is_leader_in_rack {
            return None;
        }
        let has_offset = |follower: &RemoteReplica| {
            follower.log_end_offset.is_some_and(|end| end >= offset)
                && follower
                    .log_start_offset
                    .is_some_and(|start| start <= offset)
        };
        self.followers
            .iter()
            .filter(|(broker, follower)| {
                self.isr.committed().contains(broker)
                    && has_offset(follower)
                    && is_in_rack(**broker)
            })
            .max_by_key(|(_, follower)| (follower.log_end_offset, follower.last_caught_up))
            .map(|(broker, _)| *broker)
    }

    /// Whether `broker` may be proposed for the ISR: it has all that is committed, and has seen the
    /// beginning of this leader epoch.
    pub fn may_join_isr(
        &self,
        broker: BrokerId,
        high_watermark: Offset,
        surroundings: Surroundings<'_>,
    ) -> bool {
        let Some(follower) = self.followers.get(&broker) else {
            return false;
        };
        !self.isr.is_in_flight()
            && !self.isr.maximal_contains(broker)
            && (surroundings.is_alive)(broker)
            && follower
                .log_end_offset
                .is_some_and(|end| end >= high_watermark && end >= self.epoch_start_offset)
    }

    /// The members of the ISR that fell behind for longer than `replica.lag.time.max.ms`.
    pub fn out_of_sync(
        &self,
        local: BrokerId,
        log_end_offset: Offset,
        lag_max: Duration,
        now: Now,
    ) -> Vec<BrokerId> {
        if self.isr.is_in_flight() {
            return Vec::new();
        }
        let fell_behind = |broker: &BrokerId| {
            self.followers
                .get(broker)
                .is_none_or(|follower| !follower.is_caught_up(log_end_offset, lag_max, now))
        };
        self.isr
            .committed()
            .iter()
            .copied()
            .filter(|broker| *broker != local && fell_behind(broker))
            .collect()
    }

    /// The lowest log start offset of all live replicas: records below it are gone everywhere.
    pub fn low_watermark(
        &self,
        log_start_offset: Offset,
        is_alive: &dyn Fn(BrokerId) -> bool,
    ) -> Offset {
        self.followers
            .iter()
            .filter(|(broker, _)| is_alive(**broker))
            .map(|(_, follower)| follower.log_start_offset.unwrap_or(-1))
            .fold(log_start_offset, Offset::min)
    }
}
