//! From one generation to the next.

use std::sync::Arc;
use std::time::Duration;

use super::{Effect, Effects, Group, GroupRules, JoinTimer, Purpose, State};
use crate::group::GroupError;
use crate::time::Now;

/// A member has at least this long to send its `SyncGroup`, however short its rebalance timeout: there are clients that say 0,
/// and with Kafka it depends on a timer's tick whether they are in time.
const SHORTEST_SYNC: Duration = Duration::from_millis(100);

impl Group {
    pub(super) fn prepare_rebalance_if_possible(
        &mut self,
        rules: &GroupRules,
        now: Now,
        effects: &mut Effects,
    ) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare_rebalance(rules, now, effects);
            }
            State::PreparingRebalance | State::Dead => {}
        }
    }

    pub(super) fn prepare_rebalance(
        &mut self,
        rules: &GroupRules,
        now: Now,
        effects: &mut Effects,
    ) {
        if self.state == State::CompletingRebalance {
            self.fail_syncs(GroupError::RebalanceInProgress, now, effects);
        }
        self.sync_timer = None;
        let rebalance_timeout = self.rebalance_timeout();
        self.join_timer = Some(if self.state == State::Empty {
            let delay = rules.initial_rebalance_delay;
            JoinTimer::Initial {
                at: self.note(now.deadline(delay)),
                remaining: rebalance_timeout.saturating_sub(delay),
            }
        } else {
            JoinTimer::Rejoin {
                at: self.note(now.deadline(rebalance_timeout)),
            }
        });
        self.become_state(State::PreparingRebalance, now);
        self.complete_join_if_all_joined(now, effects);
    }

    pub(super) fn rebalance_timeout(&self) -> Duration {
        Duration::from_millis(self.members.rebalance_timeout_ms().max(0) as u64)
    }

    /// The initial delay is waited for in any case; afterwards nobody waits longer than needed.
    pub(super) fn complete_join_if_all_joined(&mut self, now: Now, effects: &mut Effects) {
        let have_all_joined =
            self.members.joining() == self.members.len() && self.pending.is_empty();
        if self.state == State::PreparingRebalance
            && have_all_joined
            && matches!(self.join_timer, Some(JoinTimer::Rejoin { .. }))
        {
            self.complete_join(now, effects);
        }
    }

    pub(super) fn complete_join(&mut self, now: Now, effects: &mut Effects) {
        self.join_timer = None;
        // Dynamic members that did not come in time are out; static ones have until their session ends.
        let missing = self.members.iter();
        let missing: Vec<Arc<str>> = missing
            .filter(|(_, member)| !member.is_joining() && !member.is_static())
            .map(|(id, _)| Arc::clone(id))
            .collect();
        for id in missing {
            self.forget_member(&id, effects);
        }
        if !self.members.is_empty() && !self.members.elect_joined_leader() {
            // Only static members, and none of them is here: their sessions will end.
            let at = self.note(now.deadline(self.rebalance_timeout()));
            self.join_timer = Some(JoinTimer::Rejoin { at });
            return;
        }
        self.generation_id = self.generation_id.wrapping_add(1).max(0);
        self.has_new_member = false;
        self.unsynced.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.subscribed = self.compute_subscribed();
            self.become_state(State::Empty, now);
            effects.push(Effect::Write(self.generation_record(), Purpose::Emptied));
            return;
        }
        self.protocol = self.members.elect_protocol();
        self.subscribed = self.compute_subscribed();
        self.become_state(State::CompletingRebalance, now);
        for id in self.members.ids() {
            if let Some(ticket) = self.members.take_join(&id) {
                let joined = self.joined(&id, self.members.is_leader(&id));
                effects.push(Effect::AnswerJoin(ticket, Ok(joined)));
            }
            self.heard_of(&id, now);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
            }
            self.unsynced.insert(id);
        }
        let sync_timeout = self.rebalance_timeout().max(SHORTEST_SYNC);
        self.sync_timer = Some(self.note(now.deadline(sync_timeout)));
    }
}
