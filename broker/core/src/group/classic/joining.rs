//! Members come, and come back.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Effect, Effects, Group, GroupRules, Join, JoinFailure, Joined, JoinedMember, Purpose,
    Replacement, State, Ticket,
};
use crate::group::GroupError;
use crate::group::members::{Member, NewMember};
use crate::time::Now;

/// How long a join of a new member may take (`GroupCoordinator.NewMemberJoinTimeoutMs`).
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);

impl Group {
    /// A member wants to belong to the group.
    pub fn join(&mut self, join: Join, rules: &GroupRules, now: Now) -> Effects {
        let mut effects = Effects::new();
        let refuse = |member_id: &Arc<str>, error| {
            let failure = JoinFailure {
                member_id: Arc::clone(member_id),
                error,
            };
            vec![Effect::AnswerJoin(join.ticket, Err(failure))]
        };
        if !self.has_room_for(&join.member_id, rules) {
            let id = Arc::clone(&join.member_id);
            self.forget_member(&id, &mut effects);
            effects.extend(refuse(&Arc::from(""), GroupError::GroupMaxSizeReached));
        } else if self.state == State::Dead {
            return refuse(&join.member_id, GroupError::CoordinatorNotAvailable);
        } else if !self.supports(&join) {
            effects.extend(refuse(
                &join.member_id,
                GroupError::InconsistentGroupProtocol,
            ));
        } else if join.member_id.is_empty() {
            self.join_anew(join, rules, now, &mut effects);
        } else if self.pending.contains_key(&join.member_id) {
            if join.group_instance_id.is_some() {
                // An id that was given out belongs to a dynamic member: Kafka does not expect anything else.
                return refuse(&Arc::from(""), GroupError::UnknownServerError);
            }
            let id = Arc::clone(&join.member_id);
            self.add_member(&id, join, rules, now, &mut effects);
        } else if let Err(error) =
            self.check_member(&join.member_id, join.group_instance_id.as_deref())
        {
            effects.extend(refuse(&join.member_id, error));
        } else {
            self.join_again(join, rules, now, &mut effects);
        }
        self.complete_join_if_all_joined(now, &mut effects);
        effects
    }

    /// Members that wait are counted while a rebalance is prepared, so that the last to come are the ones to go.
    pub(super) fn has_room_for(&self, member_id: &str, rules: &GroupRules) -> bool {
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                self.members.get(member_id).is_some_and(Member::is_joining)
                    || self.members.joining() < rules.size_max
            }
            State::CompletingRebalance | State::Stable => {
                self.members.get(member_id).is_some() || self.members.len() < rules.size_max
            }
        }
    }

    pub(super) fn supports(&self, join: &Join) -> bool {
        if self.state == State::Empty {
            !join.protocol_type.is_empty() && !join.protocols.is_empty()
        } else {
            self.protocol_type.as_ref() == Some(&join.protocol_type)
                && self.members.share_one_of(&join.protocols)
        }
    }

    pub(super) fn join_anew(
        &mut self,
        join: Join,
        rules: &GroupRules,
        now: Now,
        effects: &mut Effects,
    ) {
        let named = join.group_instance_id.as_ref().unwrap_or(&join.client_id);
        let new_id: Arc<str> = format!("{named}-{}", join.unique).into();
        let known = join
            .group_instance_id
            .as_ref()
            .and_then(|instance| self.members.id_of_instance(instance))
            .cloned();
        if let Some(old_id) = known {
            self.replace_static_member(&old_id, &new_id, join, rules, now, effects);
        } else if join.needs_known_id && join.group_instance_id.is_none() {
            let timeout = Duration::from_millis(join.session_timeout_ms.max(0) as u64);
            let deadline = self.note(now.deadline(timeout));
            self.pending.insert(Arc::clone(&new_id), deadline);
            let failure = JoinFailure {
                member_id: new_id,
                error: GroupError::MemberIdRequired,
            };
            effects.push(Effect::AnswerJoin(join.ticket, Err(failure)));
        } else {
            self.add_member(&new_id, join, rules, now, effects);
        }
    }

    pub(super) fn add_member(
        &mut self,
        id: &Arc<str>,
        join: Join,
        rules: &GroupRules,
        now: Now,
        effects: &mut Effects,
    ) {
        if self.state == State::PreparingRebalance && self.generation_id == 0 {
            self.has_new_member = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        let new = NewMember {
            group_instance_id: join.group_instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols,
        };
        self.members.add(id, new, Some(join.ticket));
        self.pending.remove(id);
        self.set_deadline(id, NEW_MEMBER_JOIN_TIMEOUT, now);
        self.prepare_rebalance_if_possible(rules, now, effects);
    }

    pub(super) fn join_again(
        &mut self,
        join: Join,
        rules: &GroupRules,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some(member) = self.members.get(&join.member_id) else {
            return;
        };
        let is_unchanged = member.has(&join.protocols);
        let is_leader = self.members.is_leader(&join.member_id);
        let must_rebalance = match self.state {
            State::PreparingRebalance => true,
            State::CompletingRebalance => !is_unchanged,
            // A leader may have reasons that its metadata does not show: partitions of a topic, say.
            State::Stable => is_leader || !is_unchanged,
            State::Empty | State::Dead => {
                let failure = JoinFailure {
                    member_id: join.member_id,
                    error: GroupError::UnknownMemberId,
                };
                effects.push(Effect::AnswerJoin(join.ticket, Err(failure)));
                return;
            }
        };
        if must_rebalance {
            self.update_member(&join, effects);
            self.prepare_rebalance_if_possible(rules, now, effects);
        } else {
            // It may not have got the answer to its first request.
            let tells_members = is_leader && self.state == State::CompletingRebalance;
            let joined = self.joined(&join.member_id, tells_members);
            effects.push(Effect::AnswerJoin(join.ticket, Ok(joined)));
        }
    }

    pub(super) fn update_member(&mut self, join: &Join, effects: &mut Effects) {
        let waited = self.members.update(
            &join.member_id,
            join.protocols.clone(),
            join.rebalance_timeout_ms,
            join.session_timeout_ms,
            Some(join.ticket),
        );
        answer_superseded(waited, &join.member_id, effects);
    }

    /// KIP-345: an instance that comes back takes the place that it had.
    pub(super) fn replace_static_member(
        &mut self,
        old_id: &Arc<str>,
        new_id: &Arc<str>,
        join: Join,
        rules: &GroupRules,
        now: Now,
        effects: &mut Effects,
    ) {
        let (Some(instance), Some(member)) =
            (join.group_instance_id.clone(), self.members.get_mut(old_id))
        else {
            return;
        };
        let old_sync = member.sync.take();
        let mut replacement = Box::new(Replacement {
            instance: Arc::clone(&instance),
            old_id: Arc::clone(old_id),
            new_id: Arc::clone(new_id),
            old_leader: None,
            old_protocols: member.protocols().clone(),
            old_rebalance_timeout_ms: member.rebalance_timeout_ms,
            old_session_timeout_ms: member.session_timeout_ms,
            can_skip_assignment: join.can_skip_assignment,
        });
        replacement.old_leader.clone_from(&self.members.leader);
        // Whoever still waits under the old id is fenced at once.
        if let Some(ticket) = self.members.take_join(old_id) {
            let failure = JoinFailure {
                member_id: Arc::clone(old_id),
                error: GroupError::FencedInstanceId,
            };
            effects.push(Effect::AnswerJoin(ticket, Err(failure)));
        }
        if let Some(ticket) = old_sync {
            effects.push(Effect::AnswerSync(
                ticket,
                Err(GroupError::FencedInstanceId),
            ));
        }
        self.members.rename(&instance, old_id, new_id);
        self.unsynced.remove(old_id);
        self.members.update(
            new_id,
            join.protocols,
            join.rebalance_timeout_ms,
            join.session_timeout_ms,
            Some(join.ticket),
        );
        self.heard_of(new_id, now);
        match self.state {
            State::Stable if self.members.elect_protocol() == self.protocol => {
                let record = self.generation_record();
                effects.push(Effect::Write(record, Purpose::Replaced(replacement)));
            }
            State::Stable => self.prepare_rebalance_if_possible(rules, now, effects),
            // The leader may have been told of the old id already, and would divide the work for that one.
            State::CompletingRebalance => self.prepare_rebalance(rules, now, effects),
            State::PreparingRebalance | State::Empty | State::Dead => {}
        }
    }

    pub(super) fn joined(&self, member_id: &Arc<str>, tells_members: bool) -> Joined {
        Joined {
            member_id: Arc::clone(member_id),
            generation_id: self.generation_id,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.members.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members: if tells_members {
                self.joined_members()
            } else {
                Vec::new()
            },
        }
    }

    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter();
        members
            .map(|(id, member)| JoinedMember {
                member_id: Arc::clone(id),
                group_instance_id: member.group_instance_id.clone(),
                metadata: member.metadata(protocol),
            })
            .collect()
    }
}

/// A member that joins twice is answered once more: Kafka forgets the first request, and lets it hang.
fn answer_superseded(waited: Option<Ticket>, member_id: &Arc<str>, effects: &mut Effects) {
    if let Some(ticket) = waited {
        let failure = JoinFailure {
            member_id: Arc::clone(member_id),
            error: GroupError::RebalanceInProgress,
        };
        effects.push(Effect::AnswerJoin(ticket, Err(failure)));
    }
}
