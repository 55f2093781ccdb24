//! The consumer groups that this broker coordinates.
//!
//! A group belongs to the partition of `__consumer_offsets` that its id hashes to, and to the broker that leads it.
//! Loading a partition holds up nobody but its own groups.

mod loading;
pub mod metrics;
mod shard;
mod timers;

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::group::records::OffsetCommit;
use barnabas_core::group::{
    Description, Group, GroupError, Join, JoinFailure, Joined, Leaver, MemberRef, State, Sync,
    Synced,
};
use barnabas_core::ids::{GroupId, LeaderEpoch, Offset, TopicPartition};
use tokio::task::JoinHandle;

use super::shards::{Coordinated as _, Shards};
use crate::config::LiveConfig;
use crate::replica::Partition;
use crate::{clock, host};

use metrics::{GroupCounts, GroupMetrics};
use shard::Shard;
pub use shard::committing::TransactionalProducer;

/// All groups of this broker.
pub struct GroupCoordinator {
    config: Arc<LiveConfig>,
    metrics: Arc<GroupMetrics>,
    shards: Shards<Shard>,
}

/// What a marker in a partition of `__consumer_offsets` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionEnd {
    pub producer_id: i64,
    pub is_committed: bool,
    /// Where the marker is.
    pub marker_offset: Offset,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    pub group: GroupId,
    pub protocol_type: Arc<str>,
    pub state: State,
}

impl GroupCoordinator {
    pub fn new(config: Arc<LiveConfig>) -> Arc<Self> {
        Arc::new(Self {
            shards: Shards::new(config.broker().offsets_topic_num_partitions),
            config,
            metrics: Arc::default(),
        })
    }

    /// Begins to serve; the topic has, or will have, so many partitions. The returned task forgets what is expired.
    pub fn start(self: &Arc<Self>, partitions: i32) -> JoinHandle<()> {
        self.shards.start(partitions);
        host::spawn(Arc::clone(self).expire_regularly())
    }

    /// Answers everybody who waits, and nobody from now on.
    pub fn stop(&self) {
        self.shards.stop();
    }

    /// The partition of `__consumer_offsets` that a group belongs to.
    pub fn partition_for(&self, group: &str) -> i32 {
        self.shards.partition_for(group)
    }

    // --- leading and not leading ---

    /// This broker leads a partition of `__consumer_offsets` from now on.
    pub fn elected(&self, partition: &Arc<Partition>, leader_epoch: LeaderEpoch) {
        let number = partition.topic_partition.partition;
        self.shards.elected(number, leader_epoch, || {
            Shard::start(partition, leader_epoch, &self.config, &self.metrics)
        });
    }

    /// This broker does not lead it any more; without an epoch it is deleted.
    pub fn resigned(&self, partition: i32, leader_epoch: Option<LeaderEpoch>) {
        if self.shards.resigned(partition, leader_epoch) {
            tracing::info!(partition, ?leader_epoch, "unloaded groups");
        }
    }

    /// Partitions are gone from the cluster: nobody needs their offsets.
    pub fn partitions_deleted(self: &Arc<Self>, partitions: &[TopicPartition]) {
        let (coordinator, partitions) = (Arc::clone(self), partitions.to_vec());
        if self.shards().is_empty() {
            return;
        }
        host::spawn(async move {
            for shard in coordinator.shards() {
                for cell in shard.cells() {
                    let forgotten = shard.forget(&cell, |group| {
                        Ok(match group.offsets.known_of(&partitions) {
                            known if known.is_empty() => Vec::new(),
                            known => group.offset_deletion(&known),
                        })
                    });
                    if let Err(error) = forgotten {
                        tracing::warn!(%error, "offsets of deleted topics stay for now");
                    }
                    let offsets = &mut cell.lock().group.offsets;
                    offsets.forget_transactional(&partitions);
                }
                tokio::task::yield_now().await;
            }
        });
    }

    fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards.all()
    }

    fn shard(&self, group: &str) -> Result<Arc<Shard>, GroupError> {
        if !self.shards.is_active() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let number = self.partition_for(group);
        let shard = self.shards.get(number).ok_or(GroupError::NotCoordinator)?;
        if shard.is_loading() {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        Ok(shard)
    }

    /// The same for requests that need the id of a group with members.
    fn shard_of_named(&self, group: &str) -> Result<Arc<Shard>, GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.shard(group)
    }

    // --- membership ---

    /// Joins, and returns when the rebalance comes to its end. The ticket of the request does not matter.
    pub async fn join(&self, group: &str, request: Join) -> Result<Joined, JoinFailure> {
        let member_id = Arc::clone(&request.member_id);
        let failure = |error| JoinFailure {
            member_id: Arc::clone(&member_id),
            error,
        };
        let shard = self.shard_of_named(group).map_err(failure)?;
        let rules = shard.rules();
        let allowed = rules.session_timeout_min_ms..=rules.session_timeout_max_ms;
        if !allowed.contains(&request.session_timeout_ms) {
            return Err(failure(GroupError::InvalidSessionTimeout));
        }
        let answer = shard.join(group, request)?;
        answer
            .await
            .unwrap_or_else(|_| Err(failure(GroupError::CoordinatorNotAvailable)))
    }

    /// Asks for a member's part of the work, and returns when the leader has divided it.
    pub async fn sync(&self, group: &str, request: Sync) -> Result<Synced, GroupError> {
        let shard = match self.shard_of_named(group) {
            Ok(shard) => shard,
            // The rebalance is lost with the former coordinator: the member has to join again.
            Err(GroupError::CoordinatorLoadInProgress) => {
                return Err(GroupError::RebalanceInProgress);
            }
            Err(error) => return Err(error),
        };
        let answer = shard.sync(group, request)?;
        answer
            .await
            .unwrap_or(Err(GroupError::CoordinatorNotAvailable))
    }

    /// A member is alive.
    pub fn heartbeat(&self, group: &str, member: MemberRef<'_>) -> Result<(), GroupError> {
        let shard = match self.shard_of_named(group) {
            Ok(shard) => shard,
            // Nothing is known yet, so nothing speaks against it.
            Err(GroupError::CoordinatorLoadInProgress) => return Ok(()),
            Err(error) => return Err(error),
        };
        let cell = shard.cell(group)?.ok_or(GroupError::UnknownMemberId)?;
        shard.act(&cell, |group, now| {
            (group.heartbeat(member, now), Vec::new())
        })
    }

    /// Members leave. One result for each.
    pub fn leave(
        &self,
        group: &str,
        leavers: &[Leaver],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let shard = self.shard_of_named(group)?;
        let Some(cell) = shard.cell(group)? else {
            return Ok(vec![Err(GroupError::UnknownMemberId); leavers.len()]);
        };
        let rules = shard.rules();
        shard.act(&cell, |group, now| {
            match group.leave(leavers, &rules, now) {
                Ok((results, effects)) => (Ok(results), effects),
                Err(error) => (Err(error), Vec::new()),
            }
        })
    }

    // --- offsets ---

    /// Commits offsets. One result for each.
    pub async fn commit(
        &self,
        group: &str,
        member: MemberRef<'_>,
        commits: Vec<(TopicPartition, OffsetCommit)>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.shard(group)?.commit(group, member, commits).await
    }

    /// The partition of `__consumer_offsets` that transactional commits to a group go to.
    pub fn offsets_partition(&self, group: &str) -> Result<Arc<Partition>, GroupError> {
        Ok(self.shard_of_named(group)?.partition())
    }

    /// Commits offsets within a transaction. One result for each.
    pub async fn commit_transactional(
        &self,
        group: &str,
        member: MemberRef<'_>,
        producer: TransactionalProducer,
        commits: Vec<(TopicPartition, OffsetCommit)>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let shard = self.shard_of_named(group)?;
        shard
            .commit_transactional(group, member, producer, commits)
            .await
    }

    /// The end of a transaction is in the log of a partition of `__consumer_offsets`.
    pub fn transaction_ended(&self, partition: i32, end: TransactionEnd) {
        if let Some(shard) = self.shards.get(partition) {
            shard.transaction_ended(end);
        }
    }

    /// Shows a group to `look`, if there is one.
    pub fn look<T>(
        &self,
        group: &str,
        look: impl FnOnce(Option<&Group>) -> T,
    ) -> Result<T, GroupError> {
        Ok(match self.shard(group)?.cell(group)? {
            Some(cell) => {
                let seat = cell.lock();
                let is_alive = seat.group.state() != State::Dead;
                look(is_alive.then_some(&seat.group))
            }
            None => look(None),
        })
    }

    /// Forgets offsets. One result for each.
    pub fn delete_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let shard = self.shard_of_named(group)?;
        let cell = shard.cell(group)?.ok_or(GroupError::GroupIdNotFound)?;
        let (mut results, mut forgotten) = (Vec::new(), Vec::new());
        shard.forget(&cell, |group| {
            results = group.check_offset_deletion(partitions)?;
            let deletable = partitions.iter().zip(&results);
            let deletable: Vec<TopicPartition> = deletable
                .filter(|(_, result)| result.is_ok())
                .map(|(partition, _)| partition.clone())
                .collect();
            forgotten.clone_from(&deletable);
            Ok(if deletable.is_empty() {
                Vec::new()
            } else {
                group.offset_deletion(&deletable)
            })
        })?;
        cell.lock().group.offsets.forget_transactional(&forgotten);
        GroupMetrics::add(&self.metrics.offset_deletions, forgotten.len());
        Ok(results)
    }

    /// Deletes a group that has no members.
    pub fn delete(&self, group: &str) -> Result<(), GroupError> {
        let shard = self.shard(group)?;
        let cell = shard.cell(group)?.ok_or(GroupError::GroupIdNotFound)?;
        let offsets = cell.lock().group.offsets.len();
        shard.forget(&cell, Group::deletion)?;
        GroupMetrics::add(&self.metrics.offset_deletions, offsets);
        Ok(())
    }

    // --- looking ---

    /// Who belongs to a group; one that is not there is dead.
    pub fn describe(&self, group: &str) -> Result<Description, GroupError> {
        self.look(group, |group| {
            group.map_or_else(
                || Description {
                    state: State::Dead,
                    protocol_type: Arc::from(""),
                    protocol: Arc::from(""),
                    members: Vec::new(),
                },
                Group::describe,
            )
        })
    }

    /// All groups, and whether some are not known yet.
    pub fn list(&self) -> Result<(Vec<GroupListing>, bool), GroupError> {
        if !self.shards.is_active() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let mut groups = Vec::new();
        let mut is_loading = false;
        for shard in self.shards() {
            is_loading |= shard.is_loading();
            for cell in shard.cells() {
                let seat = cell.lock();
                groups.push(GroupListing {
                    group: Arc::clone(seat.group.id()),
                    protocol_type: seat.group.protocol_type().cloned().unwrap_or_default(),
                    state: seat.group.state(),
                });
            }
        }
        Ok((groups, is_loading))
    }

    /// What was counted so far.
    pub fn metrics(&self) -> &GroupMetrics {
        &self.metrics
    }

    /// How many groups and offsets there are now.
    pub fn counts(&self) -> GroupCounts {
        let mut counts = GroupCounts::default();
        for shard in self.shards() {
            for cell in shard.cells() {
                let seat = cell.lock();
                counts.add(seat.group.state(), seat.group.offsets.len());
            }
        }
        counts
    }

    // --- expiry ---

    async fn expire_regularly(self: Arc<Self>) {
        loop {
            let interval = self.config.broker().offsets_retention_check_interval_ms;
            tokio::time::sleep(Duration::from_millis(interval.max(1) as u64)).await;
            for shard in self.shards() {
                self.expire(&shard);
                tokio::task::yield_now().await;
            }
        }
    }

    fn expire(&self, shard: &Arc<Shard>) {
        let retention_ms = i64::from(self.config.broker().offsets_retention_minutes) * 60_000;
        let now_ms = clock::now().wall_clock_ms;
        for cell in shard.cells() {
            let before = cell.lock().group.offsets.len();
            match shard.forget(&cell, |group| Ok(group.expiry(retention_ms, now_ms))) {
                Ok(()) => {
                    let expired = before.saturating_sub(cell.lock().group.offsets.len());
                    GroupMetrics::add(&self.metrics.offset_expirations, expired);
                }
                Err(error) => tracing::warn!(%error, "expired offsets stay for now"),
            }
        }
    }
}
