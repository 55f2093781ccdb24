//! Members say that they are there, leave, or are missed.

use std::sync::Arc;
use std::time::Duration;

use super::{Effect, Effects, Group, GroupRules, JoinFailure, JoinTimer, Leaver, MemberRef, State};
use crate::group::GroupError;
use crate::time::{Deadline, Now};

impl Group {
    /// A member says that it is there.
    pub fn heartbeat(&mut self, member: MemberRef<'_>, now: Now) -> Result<(), GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_generation(member)?;
        match self.state {
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => {
                self.heard_of(member.member_id, now);
                Err(GroupError::RebalanceInProgress)
            }
            State::CompletingRebalance | State::Stable => {
                self.heard_of(member.member_id, now);
                Ok(())
            }
        }
    }

    /// Members leave. One result for each.
    pub fn leave(
        &mut self,
        leavers: &[Leaver],
        rules: &GroupRules,
        now: Now,
    ) -> Result<(Vec<Result<(), GroupError>>, Effects), GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let mut effects = Effects::new();
        let mut results = Vec::with_capacity(leavers.len());
        for leaver in leavers {
            results.push(self.leave_one(leaver, rules, now, &mut effects));
        }
        Ok((results, effects))
    }

    pub(super) fn leave_one(
        &mut self,
        leaver: &Leaver,
        rules: &GroupRules,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), GroupError> {
        let instance = leaver.group_instance_id.as_deref();
        if leaver.member_id.is_empty() {
            let known = instance.and_then(|instance| self.members.id_of_instance(instance));
            let id = known.cloned().ok_or(GroupError::UnknownMemberId)?;
            self.remove_member(&id, rules, now, effects);
            return Ok(());
        }
        if self.pending.remove(&leaver.member_id).is_some() {
            self.complete_join_if_all_joined(now, effects);
            return Ok(());
        }
        self.check_member(&leaver.member_id, instance)?;
        self.remove_member(&leaver.member_id, rules, now, effects);
        Ok(())
    }

    pub(super) fn remove_member(
        &mut self,
        id: &str,
        rules: &GroupRules,
        now: Now,
        effects: &mut Effects,
    ) {
        self.forget_member(id, effects);
        match self.state {
            State::Dead | State::Empty => {}
            State::Stable | State::CompletingRebalance => {
                self.prepare_rebalance_if_possible(rules, now, effects);
            }
            State::PreparingRebalance => self.complete_join_if_all_joined(now, effects),
        }
    }

    /// Removes a member; what it waits for is answered so that it starts over.
    pub(super) fn forget_member(&mut self, id: &str, effects: &mut Effects) {
        if let Some(ticket) = self.members.take_join(id) {
            let failure = JoinFailure {
                member_id: Arc::from(""),
                error: GroupError::UnknownMemberId,
            };
            effects.push(Effect::AnswerJoin(ticket, Err(failure)));
        }
        if let Some(member) = self.members.remove(id)
            && let Some(ticket) = member.sync
        {
            effects.push(Effect::AnswerSync(ticket, Err(GroupError::UnknownMemberId)));
        }
        self.pending.remove(id);
        self.unsynced.remove(id);
    }

    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance: Option<&str>,
    ) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.members.id_of_instance(instance) {
                Some(current) if **current != *member_id => {
                    return Err(GroupError::FencedInstanceId);
                }
                Some(_) => {}
                None => return Err(GroupError::UnknownMemberId),
            }
        }
        match self.members.get(member_id) {
            Some(_) => Ok(()),
            None => Err(GroupError::UnknownMemberId),
        }
    }

    pub(super) fn check_generation(&self, member: MemberRef<'_>) -> Result<(), GroupError> {
        self.check_member(member.member_id, member.group_instance_id)?;
        if member.generation_id == self.generation_id {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration)
        }
    }

    /// The member is alive: its session starts over.
    pub(super) fn heard_of(&mut self, id: &str, now: Now) {
        if let Some(member) = self.members.get(id) {
            let timeout = Duration::from_millis(member.session_timeout_ms.max(0) as u64);
            self.set_deadline(id, timeout, now);
        }
    }

    pub(super) fn set_deadline(&mut self, id: &str, timeout: Duration, now: Now) {
        let deadline = self.note(now.deadline(timeout));
        if let Some(member) = self.members.get_mut(id) {
            member.deadline = Some(deadline);
        }
    }

    /// The time of [`Group::next_deadline`] has come.
    pub fn tick(&mut self, rules: &GroupRules, now: Now) -> Effects {
        let mut effects = Effects::new();
        if self.state == State::Dead {
            self.soonest = None;
            return effects;
        }
        let pending = self.pending.iter();
        let unused: Vec<Arc<str>> = pending
            .filter(|(_, deadline)| deadline.has_passed(now))
            .map(|(id, _)| Arc::clone(id))
            .collect();
        for id in unused {
            self.pending.remove(&id);
            self.complete_join_if_all_joined(now, &mut effects);
        }
        self.expire_members(rules, now, &mut effects);
        match self.join_timer {
            Some(JoinTimer::Initial { at, remaining }) if at.has_passed(now) => {
                self.initial_delay_passed(remaining, rules, now, &mut effects);
            }
            Some(JoinTimer::Rejoin { at }) if at.has_passed(now) => {
                self.complete_join(now, &mut effects);
            }
            Some(JoinTimer::Initial { .. } | JoinTimer::Rejoin { .. }) | None => {}
        }
        if self
            .sync_timer
            .is_some_and(|deadline| deadline.has_passed(now))
        {
            self.sync_timer = None;
            self.expire_unsynced(rules, now, &mut effects);
        }
        self.soonest = self.earliest_deadline();
        effects
    }

    pub(super) fn expire_members(&mut self, rules: &GroupRules, now: Now, effects: &mut Effects) {
        for id in self.members.ids() {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            if !member
                .deadline
                .is_some_and(|deadline| deadline.has_passed(now))
            {
                continue;
            }
            // Who waits for the others is alive; its session starts over when it is answered.
            let is_waiting = !member.is_new && (member.is_joining() || member.sync.is_some());
            member.deadline = None;
            if !is_waiting {
                self.remove_member(&id, rules, now, effects);
            }
        }
    }

    pub(super) fn initial_delay_passed(
        &mut self,
        remaining: Duration,
        rules: &GroupRules,
        now: Now,
        effects: &mut Effects,
    ) {
        if !self.has_new_member || remaining.is_zero() {
            self.complete_join(now, effects);
            return;
        }
        self.has_new_member = false;
        let delay = rules.initial_rebalance_delay.min(remaining);
        self.join_timer = Some(JoinTimer::Initial {
            at: self.note(now.deadline(delay)),
            remaining: remaining.saturating_sub(delay),
        });
    }

    pub(super) fn expire_unsynced(&mut self, rules: &GroupRules, now: Now, effects: &mut Effects) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable)
            || self.unsynced.is_empty()
        {
            return;
        }
        for id in std::mem::take(&mut self.unsynced) {
            self.forget_member(&id, effects);
        }
        self.prepare_rebalance_if_possible(rules, now, effects);
    }

    pub(super) fn earliest_deadline(&self) -> Option<Deadline> {
        let join = self.join_timer.map(|timer| match timer {
            JoinTimer::Initial { at, .. } | JoinTimer::Rejoin { at } => at,
        });
        let members = self
            .members
            .iter()
            .filter_map(|(_, member)| member.deadline);
        let pending = self.pending.values().copied();
        members
            .chain(pending)
            .chain(join)
            .chain(self.sync_timer)
            .min()
    }
}
