//! What the log has of a group: who may write to it, replaying it, and tombstones.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Effect, Effects, Group, GroupRules, JoinFailure, MemberRef, State};
use crate::group::GroupError;
use crate::group::records::{Generation, GroupRecord};
use crate::ids::{Offset, TopicPartition};
use crate::time::Now;

impl Group {
    /// Whether offsets may be committed by whoever asks.
    pub fn check_commit(&mut self, member: MemberRef<'_>, now: Now) -> Result<(), GroupError> {
        self.check_committer(member, false)?;
        match self.state {
            State::Empty | State::Dead => Ok(()),
            State::Stable | State::PreparingRebalance => {
                self.heard_of(member.member_id, now);
                Ok(())
            }
            // The member knows the new generation, but not its part in it.
            State::CompletingRebalance => Err(GroupError::RebalanceInProgress),
        }
    }

    /// Whether offsets may be committed within a transaction (KIP-447). Producers that do not know of groups say
    /// neither who they are nor which generation they belong to.
    pub fn check_transactional_commit(&self, member: MemberRef<'_>) -> Result<(), GroupError> {
        self.check_committer(member, true)
    }

    pub(super) fn check_committer(
        &self,
        member: MemberRef<'_>,
        is_transactional: bool,
    ) -> Result<(), GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if member.generation_id < 0 && self.state == State::Empty {
            return Ok(());
        }
        let names_itself = member.generation_id >= 0
            || !member.member_id.is_empty()
            || member.group_instance_id.is_some();
        if names_itself {
            self.check_generation(member)
        } else if is_transactional {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    // --- replaying ---

    /// A record about the group is in the log.
    pub fn replay(&mut self, record: &GroupRecord, record_offset: Offset) {
        match record {
            GroupRecord::Offset {
                partition, commit, ..
            } => self
                .offsets
                .replay(partition, commit.clone(), record_offset),
            GroupRecord::Group {
                generation: Some(generation),
                ..
            } => {
                // Two that became durable together may come in either order: the later one in the log is right.
                if self
                    .generation_offset
                    .is_none_or(|last| last < record_offset)
                {
                    self.generation_offset = Some(record_offset);
                    self.replay_generation(generation);
                }
            }
            GroupRecord::Group {
                generation: None, ..
            } => self.state = State::Dead,
            GroupRecord::Unknown { .. } => {}
        }
    }

    /// The generation that the log has is the one in force, unless a rebalance is on its way to the next one.
    pub(super) fn replay_generation(&mut self, generation: &Generation) {
        match self.state {
            State::PreparingRebalance | State::Dead => return,
            State::CompletingRebalance if generation.generation_id != self.generation_id => return,
            // KIP-345: a static member that came back waits for its record. The members here are those of the last
            // record on its way; an earlier one does not know it yet.
            State::Stable if self.members.joining() > 0 => {
                self.subscribed = self.compute_subscribed();
                return;
            }
            State::CompletingRebalance | State::Empty | State::Stable => {}
        }
        self.members.adopt(
            generation.protocol.as_ref(),
            generation.leader.as_ref(),
            &generation.members,
        );
        let protocol_type = &generation.protocol_type;
        self.protocol_type = (!protocol_type.is_empty()).then(|| Arc::clone(protocol_type));
        self.generation_id = generation.generation_id;
        self.protocol.clone_from(&generation.protocol);
        self.state_timestamp =
            (generation.state_timestamp != -1).then_some(generation.state_timestamp);
        self.state = if generation.members.is_empty() {
            State::Empty
        } else {
            State::Stable
        };
        self.subscribed = self.compute_subscribed();
    }

    /// The log has been replayed; from now on the group is served, and its members have to show themselves.
    pub fn loaded(&mut self, rules: &GroupRules, now: Now) -> Effects {
        let mut effects = Effects::new();
        if self.members.len() > rules.size_max {
            self.prepare_rebalance_if_possible(rules, now, &mut effects);
        }
        for id in self.members.ids() {
            self.heard_of(&id, now);
        }
        effects
    }

    /// Another broker coordinates the group from now on.
    pub fn unload(&mut self) -> Effects {
        let mut effects = Effects::new();
        self.state = State::Dead;
        for id in self.members.ids() {
            if let Some(ticket) = self.members.take_join(&id) {
                let failure = JoinFailure {
                    member_id: Arc::clone(&id),
                    error: GroupError::NotCoordinator,
                };
                effects.push(Effect::AnswerJoin(ticket, Err(failure)));
            }
            let sync = self
                .members
                .get_mut(&id)
                .and_then(|member| member.sync.take());
            if let Some(ticket) = sync {
                effects.push(Effect::AnswerSync(ticket, Err(GroupError::NotCoordinator)));
            }
        }
        self.soonest = None;
        effects
    }

    // --- forgetting ---

    /// The tombstones that delete the group with all its offsets.
    pub fn deletion(&self) -> Result<Vec<GroupRecord>, GroupError> {
        match self.state {
            State::Dead => Err(GroupError::GroupIdNotFound),
            State::Empty => {
                let mut records = self.tombstones(&self.offsets.all());
                records.push(self.group_tombstone());
                Ok(records)
            }
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                Err(GroupError::NonEmptyGroup)
            }
        }
    }

    /// Which of `partitions` may lose their offsets: all, or those of topics that nobody subscribes to.
    pub fn check_offset_deletion(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        match self.state {
            State::Dead => Err(GroupError::GroupIdNotFound),
            State::Empty => Ok(vec![Ok(()); partitions.len()]),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable
                if self.is_consumer_group() =>
            {
                let results = partitions.iter().map(|partition| {
                    if self.is_subscribed_to(&partition.topic) {
                        Err(GroupError::GroupSubscribedToTopic)
                    } else {
                        Ok(())
                    }
                });
                Ok(results.collect())
            }
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                Err(GroupError::NonEmptyGroup)
            }
        }
    }

    /// The tombstones that forget these offsets, and the group too if nothing else is left of it.
    pub fn offset_deletion(&self, partitions: &[TopicPartition]) -> Vec<GroupRecord> {
        let mut records = self.tombstones(&self.offsets.known_of(partitions));
        if self.would_be_empty_without(partitions) {
            records.push(self.group_tombstone());
        }
        records
    }

    pub(super) fn would_be_empty_without(&self, partitions: &[TopicPartition]) -> bool {
        self.state == State::Empty && self.offsets.are_only(partitions)
    }

    /// The tombstones of offsets that nobody needs any more.
    pub fn expiry(&self, retention_ms: i64, now_ms: i64) -> Vec<GroupRecord> {
        let none = BTreeSet::new();
        let expired = match (&self.protocol_type, self.state) {
            (_, State::Dead) => return Vec::new(),
            (Some(_), State::Empty) => {
                self.offsets
                    .expired(now_ms, retention_ms, self.state_timestamp, &none)
            }
            (Some(_), State::Stable) if self.is_consumer_group() => match &self.subscribed {
                Some(subscribed) => self.offsets.expired(now_ms, retention_ms, None, subscribed),
                None => Vec::new(),
            },
            (Some(_), _) => Vec::new(),
            (None, _) => self.offsets.expired(now_ms, retention_ms, None, &none),
        };
        let mut records = self.tombstones(&expired);
        // What a transaction may still commit keeps the group alive.
        if self.offsets.are_settled() && self.would_be_empty_without(&expired) {
            records.push(self.group_tombstone());
        }
        records
    }

    pub(super) fn tombstones(&self, partitions: &[TopicPartition]) -> Vec<GroupRecord> {
        let partitions = partitions.iter();
        partitions
            .map(|partition| GroupRecord::Offset {
                group: Arc::clone(&self.id),
                partition: partition.clone(),
                commit: None,
            })
            .collect()
    }

    pub(super) fn group_tombstone(&self) -> GroupRecord {
        GroupRecord::Group {
            group: Arc::clone(&self.id),
            generation: None,
        }
    }

    /// Whether the log has a record of the group itself, that a tombstone must undo.
    pub fn is_recorded(&self) -> bool {
        self.generation_id > 0
    }
}
