//! One partition on one broker: which role it has and what follows from what its log, its replicas
//! and the controller say. Driven by `replica::Partition` in the shell, which owns the log.
//!
//! Invariants: the high watermark of a leader never goes back; epochs never go back; the ISR is a
//! part of the assignment as the controller sent it.

pub mod fetcher;
pub mod follower;
pub mod isr;
pub mod leader;
pub mod leader_epochs;
pub mod producers;
pub mod throttle;
pub mod verification;

use std::time::Duration;

use crate::control::{ControlError, LeaderAndIsrPartition};
use crate::ids::{BrokerId, LeaderEpoch, Offset, PartitionEpoch, TopicId};
use crate::time::Now;
use isr::IsrState;
use leader::{FollowerFetch, PartitionLeader, RemoteReplica, Surroundings};

/// Why a partition does not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum PartitionError {
    #[error("there is no such partition in the cluster")]
    UnknownTopicOrPartition,
    #[error("no topic has this id")]
    UnknownTopicId,
    #[error("this broker does not lead the partition")]
    NotLeaderOrFollower,
    #[error("the caller's leader epoch is older than the current one")]
    FencedLeaderEpoch,
    #[error("the caller's leader epoch is newer than the current one")]
    UnknownLeaderEpoch,
    #[error("the topic id differs from that of the log")]
    InconsistentTopicId,
    #[error("the replica is in a log directory that failed")]
    StorageError,
    #[error("the offset is not within the log")]
    OffsetOutOfRange,
    #[error("fewer replicas are in sync than min.insync.replicas asks for")]
    NotEnoughReplicas,
    #[error("too few replicas were in sync once the records were replicated")]
    NotEnoughReplicasAfterAppend,
    #[error("the records were not replicated in time")]
    RequestTimedOut,
}

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    pub log_start_offset: Offset,
    /// The offset of the next record.
    pub log_end_offset: Offset,
}

/// What this broker is to the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The controller has not said yet.
    Unassigned,
    Leader(PartitionLeader),
    Follower {
        /// Broker id, or -1.
        leader: i32,
    },
}

/// What to do with one partition of a `LeaderAndIsr` request (controller.md: `ReplicaManager`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The leader epoch is newer: take the role.
    Apply,
    /// Nothing new but the id of the topic, which the log lacks.
    AssignTopicId,
}

/// What changed when a partition took the role of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BecameLeader {
    /// If the leader epoch is new: the offset at which it starts, to be written to the log's leader
    /// epoch cache before anything is appended.
    pub epoch_starts_at: Option<Offset>,
    /// The high watermark moved.
    pub high_watermark_moved: bool,
}

/// What followed from the fetch of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FollowerFetched {
    /// The high watermark moved.
    pub high_watermark_moved: bool,
    /// The follower is now proposed for the ISR: the controller is to be asked.
    pub isr_change_proposed: bool,
}

/// How the controller answered a proposed change of the ISR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsrChangeOutcome {
    /// It was written.
    Written {
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
        isr: Vec<BrokerId>,
    },
    /// Refused in a way that leaves the committed ISR as it is; a later fetch or check tries anew.
    Refused,
    /// The controller knows a newer state, which it will send: wait for it.
    Outdated,
}

/// A partition that this broker hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    local: BrokerId,
    replicas: Vec<BrokerId>,
    adding_replicas: Vec<BrokerId>,
    removing_replicas: Vec<BrokerId>,
    leader_epoch: LeaderEpoch,
    partition_epoch: PartitionEpoch,
    high_watermark: Offset,
    role: Role,
}

impl PartitionState {
    /// A partition of which the controller has said nothing yet.
    pub fn new(local: BrokerId) -> Self {
        Self {
            local,
            replicas: Vec::new(),
            adding_replicas: Vec::new(),
            removing_replicas: Vec::new(),
            leader_epoch: -1,
            partition_epoch: 0,
            high_watermark: 0,
            role: Role::Unassigned,
        }
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    pub fn partition_epoch(&self) -> PartitionEpoch {
        self.partition_epoch
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The assignment, preferred leader first.
    pub fn replicas(&self) -> &[BrokerId] {
        &self.replicas
    }

    /// Replicas that a reassignment adds.
    pub fn adding_replicas(&self) -> &[BrokerId] {
        &self.adding_replicas
    }

    /// Whether a reassignment is under way.
    pub fn is_reassigning(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }

    /// The broker id of the leader, or -1.
    pub fn leader(&self) -> i32 {
        match &self.role {
            Role::Unassigned => -1,
            Role::Leader(_) => self.local.0,
            Role::Follower { leader } => *leader,
        }
    }

    pub fn as_leader(&self) -> Result<&PartitionLeader, PartitionError> {
        match &self.role {
            Role::Leader(leader) => Ok(leader),
            Role::Unassigned | Role::Follower { .. } => Err(PartitionError::NotLeaderOrFollower),
        }
    }

    /// Decides about one partition of a `LeaderAndIsr` request.
    pub fn examine(
        &self,
        request: &LeaderAndIsrPartition,
        log_topic_id: Option<TopicId>,
    ) -> Result<Verdict, ControlError> {
        if let (Some(requested), Some(known)) = (request.topic_id, log_topic_id)
            && requested != known
        {
            return Err(ControlError::InconsistentTopicId);
        }
        if request.leadership.leader_epoch > self.leader_epoch {
            return if request.replicas.contains(&self.local) {
                Ok(Verdict::Apply)
            } else {
                Err(ControlError::UnknownTopicOrPartition)
            };
        }
        if request.leadership.leader_epoch == self.leader_epoch
            && request.topic_id.is_some()
            && log_topic_id.is_none()
        {
            return Ok(Verdict::AssignTopicId);
        }
        Err(ControlError::StaleControllerEpoch)
    }

    /// Sets the high watermark of a log that was just opened, from its checkpoint.
    pub fn restore_high_watermark(&mut self, checkpoint: Option<Offset>, log: LogBounds) {
        self.high_watermark = checkpoint.unwrap_or(0).clamp(
            log.log_start_offset,
            log.log_end_offset.max(log.log_start_offset),
        );
    }

    /// Takes the role of the leader. `None` if the request is older than what is known, and nothing
    /// was changed.
    pub fn become_leader(
        &mut self,
        request: &LeaderAndIsrPartition,
        log: LogBounds,
        surroundings: Surroundings<'_>,
        now: Now,
    ) -> Option<BecameLeader> {
        let leadership = &request.leadership;
        if leadership.partition_epoch < self.partition_epoch {
            return None;
        }
        let is_new_epoch = leadership.leader_epoch > self.leader_epoch;
        let (mut followers, epoch_start_offset, was_leader) =
            match std::mem::replace(&mut self.role, Role::Unassigned) {
                Role::Leader(leader) => (leader.followers, leader.epoch_start_offset, true),
                Role::Unassigned | Role::Follower { .. } => {
                    (std::collections::BTreeMap::new(), log.log_end_offset, false)
                }
            };
        let others = request.replicas.iter().filter(|&&id| id != self.local);
        followers.retain(|broker, _| request.replicas.contains(broker));
        for &broker in others {
            followers.entry(broker).or_default();
        }
        if is_new_epoch {
            for (broker, follower) in &mut followers {
                let in_isr = leadership.isr.contains(broker);
                *follower = RemoteReplica {
                    log_end_offset: follower.log_end_offset.filter(|_| was_leader),
                    log_start_offset: follower.log_start_offset.filter(|_| was_leader),
                    last_caught_up: in_isr.then_some(now.monotonic),
                    last_fetch: None,
                    leader_end_offset_at_last_fetch: 0,
                };
            }
        }
        self.take_assignment(request);
        self.role = Role::Leader(PartitionLeader {
            epoch_start_offset: if is_new_epoch {
                log.log_end_offset
            } else {
                epoch_start_offset
            },
            isr: IsrState::Committed {
                isr: leadership.isr.clone(),
            },
            followers,
        });
        Some(BecameLeader {
            epoch_starts_at: is_new_epoch.then_some(log.log_end_offset),
            high_watermark_moved: self.advance(log.log_end_offset, surroundings, now),
        })
    }

    /// Takes the role of a follower. Returns false if the request is older than what is known, and
    /// nothing was changed.
    pub fn become_follower(&mut self, request: &LeaderAndIsrPartition) -> bool {
        if request.leadership.partition_epoch < self.partition_epoch {
            return false;
        }
        self.take_assignment(request);
        self.role = Role::Follower {
            leader: request.leadership.leader,
        };
        true
    }

    fn take_assignment(&mut self, request: &LeaderAndIsrPartition) {
        self.replicas.clone_from(&request.replicas);
        self.adding_replicas.clone_from(&request.adding_replicas);
        self.removing_replicas
            .clone_from(&request.removing_replicas);
        self.leader_epoch = request.leadership.leader_epoch;
        self.partition_epoch = request.leadership.partition_epoch;
    }

    /// Compares the leader epoch that a client or follower believes in (-1: none) with ours.
    pub fn check_leader_epoch(&self, current: LeaderEpoch) -> Result<(), PartitionError> {
        check_leader_epoch(current, self.leader_epoch)
    }

    /// Notes that the leader's log now ends at `log_end_offset`. Returns whether the high
    /// watermark moved: with a single replica it follows at once.
    pub fn appended(
        &mut self,
        log_end_offset: Offset,
        surroundings: Surroundings<'_>,
        now: Now,
    ) -> bool {
        self.advance(log_end_offset, surroundings, now)
    }

    /// Notes the fetch of a follower: moves the high watermark and proposes the follower for the
    /// ISR if it has earned that.
    ///
    /// # Errors
    /// [`PartitionError::NotLeaderOrFollower`]; [`PartitionError::UnknownLeaderEpoch`] if the
    /// fetcher is not a replica as far as this leader knows.
    pub fn follower_fetched(
        &mut self,
        fetch: FollowerFetch,
        surroundings: Surroundings<'_>,
        now: Now,
    ) -> Result<FollowerFetched, PartitionError> {
        let high_watermark = self.high_watermark;
        let Role::Leader(leader) = &mut self.role else {
            return Err(PartitionError::NotLeaderOrFollower);
        };
        let moved = leader
            .note_fetch(fetch, now)
            .ok_or(PartitionError::UnknownLeaderEpoch)?;
        let isr_change_proposed = leader.may_join_isr(fetch.follower, high_watermark, surroundings);
        if isr_change_proposed {
            leader.isr = IsrState::PendingExpand {
                isr: leader.isr.committed().to_vec(),
                joining: fetch.follower,
            };
        }
        Ok(FollowerFetched {
            // Also when only somebody else has changed: a replica that died, or is alive no longer.
            high_watermark_moved: (moved || high_watermark < fetch.leader_end_offset)
                && self.advance(fetch.leader_end_offset, surroundings, now),
            isr_change_proposed,
        })
    }

    /// Proposes to drop the members of the ISR that fell behind. Returns whether there are any.
    pub fn shrink_isr(&mut self, log_end_offset: Offset, lag_max: Duration, now: Now) -> bool {
        let local = self.local;
        let Role::Leader(leader) = &mut self.role else {
            return false;
        };
        let leaving = leader.out_of_sync(local, log_end_offset, lag_max, now);
        if leaving.is_empty() {
            return false;
        }
        leader.isr = IsrState::PendingShrink {
            isr: leader.isr.committed().to_vec(),
            leaving,
        };
        true
    }

    /// Takes the controller's answer to a proposed change of the ISR. Returns whether the high
    /// watermark moved.
    pub fn isr_change_answered(
        &mut self,
        outcome: IsrChangeOutcome,
        log_end_offset: Offset,
        surroundings: Surroundings<'_>,
        now: Now,
    ) -> bool {
        let Role::Leader(leader) = &mut self.role else {
            return false;
        };
        match outcome {
            IsrChangeOutcome::Written {
                leader_epoch,
                partition_epoch,
                isr,
            } => {
                if leader_epoch != self.leader_epoch || partition_epoch < self.partition_epoch {
                    return false;
                }
                leader.isr = IsrState::Committed { isr };
                self.partition_epoch = partition_epoch;
                self.advance(log_end_offset, surroundings, now)
            }
            IsrChangeOutcome::Refused => {
                leader.isr.give_up();
                // Whoever was to join is not waited for any more.
                self.advance(log_end_offset, surroundings, now)
            }
            IsrChangeOutcome::Outdated => false,
        }
    }

    /// A follower takes the high watermark that its leader reported; it may go down.
    pub fn follow_high_watermark(&mut self, leader_high_watermark: Offset, log: LogBounds) -> bool {
        let new = leader_high_watermark.clamp(
            log.log_start_offset,
            log.log_end_offset.max(log.log_start_offset),
        );
        let moved = new != self.high_watermark;
        self.high_watermark = new;
        moved
    }

    /// The log was cut or moved on: the high watermark lies within it again.
    pub fn confine_high_watermark(&mut self, log: LogBounds) {
        self.high_watermark = self.high_watermark.clamp(
            log.log_start_offset,
            log.log_end_offset.max(log.log_start_offset),
        );
    }

    fn advance(
        &mut self,
        log_end_offset: Offset,
        surroundings: Surroundings<'_>,
        now: Now,
    ) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        match leader.replicated_below(log_end_offset, surroundings, now) {
            Some(offset) if offset > self.high_watermark => {
                self.high_watermark = offset;
                true
            }
            Some(_) | None => false,
        }
    }
}

/// Compares the leader epoch that a caller believes in (-1: none) with the one that is known.
pub fn check_leader_epoch(current: LeaderEpoch, known: LeaderEpoch) -> Result<(), PartitionError> {
    if current == -1 || current == known {
        Ok(())
    } else if current < known {
        Err(PartitionError::FencedLeaderEpoch)
    } else {
        Err(PartitionError::UnknownLeaderEpoch)
    }
}

/// The offset that readers of committed data may read up to: the start of the earliest transaction
/// that is open or not yet replicated, else the high watermark.
pub fn last_stable_offset(high_watermark: Offset, first_unstable: Option<Offset>) -> Offset {
    first_unstable.map_or(high_watermark, |offset| offset.min(high_watermark))
}

#[cfg(test)]
mod tests;
