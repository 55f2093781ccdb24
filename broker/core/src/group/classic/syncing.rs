//! The leader divides the work, and everybody gets a part.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{
    Effect, Effects, Group, GroupRules, JoinFailure, Joined, Purpose, Replacement, State, Sync,
    Synced,
};
use crate::group::GroupError;
use crate::group::records::{Generation, GroupRecord};
use crate::time::Now;

impl Group {
    /// A member asks for its part.
    pub fn sync(&mut self, sync: &Sync, now: Now) -> Effects {
        let answer = |result| vec![Effect::AnswerSync(sync.ticket, result)];
        if let Err(error) = self.check_sync(sync) {
            return answer(Err(error));
        }
        match self.state {
            State::Empty | State::Dead => answer(Err(GroupError::UnknownMemberId)),
            State::PreparingRebalance => answer(Err(GroupError::RebalanceInProgress)),
            State::Stable => {
                self.unsynced.remove(&sync.member_id);
                let assignment = self.members.get(&sync.member_id);
                let synced = Synced {
                    protocol_type: self.protocol_type.clone(),
                    protocol: self.protocol.clone(),
                    assignment: assignment
                        .map(|member| member.assignment.clone())
                        .unwrap_or_default(),
                };
                self.heard_of(&sync.member_id, now);
                answer(Ok(synced))
            }
            State::CompletingRebalance => {
                let mut effects = Effects::new();
                self.unsynced.remove(&sync.member_id);
                if let Some(member) = self.members.get_mut(&sync.member_id)
                    && let Some(ticket) = member.sync.replace(sync.ticket)
                {
                    let superseded = Err(GroupError::RebalanceInProgress);
                    effects.push(Effect::AnswerSync(ticket, superseded));
                }
                if self.members.is_leader(&sync.member_id) {
                    let record = self.assigned_record(&sync.assignments);
                    let purpose = Purpose::Assignment {
                        generation_id: self.generation_id,
                    };
                    effects.push(Effect::Write(record, purpose));
                }
                effects
            }
        }
    }

    pub(super) fn check_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        let differs =
            |given: &Option<Arc<str>>, own: &Option<Arc<str>>| given.is_some() && given != own;
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(&sync.member_id, sync.group_instance_id.as_deref())?;
        if sync.generation_id != self.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// What the log is to say of the group as it is.
    pub(super) fn generation_record(&self) -> GroupRecord {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        GroupRecord::Group {
            group: Arc::clone(&self.id),
            generation: Some(Generation {
                protocol_type: self.protocol_type.clone().unwrap_or_default(),
                generation_id: self.generation_id,
                protocol: self.protocol.clone(),
                leader: self.members.leader.clone(),
                state_timestamp: self.state_timestamp.unwrap_or(-1),
                members: self.members.recorded(protocol),
            }),
        }
    }

    /// The same with these assignments; who has none gets an empty one.
    pub(super) fn assigned_record(&self, assignments: &BTreeMap<Arc<str>, Bytes>) -> GroupRecord {
        let mut record = self.generation_record();
        if let GroupRecord::Group {
            generation: Some(generation),
            ..
        } = &mut record
        {
            for member in &mut generation.members {
                let assignment = assignments.get(&member.member_id);
                member.assignment = assignment.cloned().unwrap_or_default();
            }
        }
        record
    }

    pub(super) fn fail_syncs(&mut self, error: GroupError, now: Now, effects: &mut Effects) {
        for id in self.members.ids() {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.assignment = Bytes::new();
            if let Some(ticket) = member.sync.take() {
                effects.push(Effect::AnswerSync(ticket, Err(error)));
                self.heard_of(&id, now);
            }
        }
    }

    /// A record is in the log for good and was replayed, or it could not be written.
    pub fn written(
        &mut self,
        purpose: Purpose,
        outcome: Result<(), GroupError>,
        rules: &GroupRules,
        now: Now,
    ) -> Effects {
        let mut effects = Effects::new();
        match purpose {
            Purpose::Emptied => {}
            Purpose::Assignment { generation_id } => {
                self.assignment_written(generation_id, outcome, rules, now, &mut effects);
            }
            Purpose::Replaced(replacement) => {
                self.replacement_written(&replacement, outcome, now, &mut effects);
            }
        }
        effects
    }

    pub(super) fn assignment_written(
        &mut self,
        generation_id: i32,
        outcome: Result<(), GroupError>,
        rules: &GroupRules,
        now: Now,
        effects: &mut Effects,
    ) {
        if generation_id != self.generation_id {
            return;
        }
        match outcome {
            Err(error) if self.state == State::CompletingRebalance => {
                self.fail_syncs(error, now, effects);
                self.prepare_rebalance_if_possible(rules, now, effects);
            }
            Ok(()) if self.state == State::Stable => {
                for id in self.members.ids() {
                    let Some(member) = self.members.get_mut(&id) else {
                        continue;
                    };
                    if let Some(ticket) = member.sync.take() {
                        let synced = Synced {
                            protocol_type: self.protocol_type.clone(),
                            protocol: self.protocol.clone(),
                            assignment: member.assignment.clone(),
                        };
                        effects.push(Effect::AnswerSync(ticket, Ok(synced)));
                        self.heard_of(&id, now);
                    }
                }
            }
            // Another rebalance has begun.
            Ok(()) | Err(_) => {}
        }
    }

    pub(super) fn replacement_written(
        &mut self,
        replacement: &Replacement,
        outcome: Result<(), GroupError>,
        now: Now,
        effects: &mut Effects,
    ) {
        let Replacement {
            instance,
            old_id,
            new_id,
            ..
        } = replacement;
        if self.state == State::PreparingRebalance {
            // The member takes part in the rebalance that has begun.
            return;
        }
        let Some(ticket) = self.members.take_join(new_id) else {
            return;
        };
        let old_leader = replacement.old_leader.clone().unwrap_or_default();
        let result = match outcome {
            Ok(()) if replacement.can_skip_assignment => {
                let is_leader = self.members.is_leader(new_id);
                Ok(Joined {
                    skip_assignment: is_leader,
                    ..self.joined(new_id, is_leader)
                })
            }
            // It must not think that it leads: nobody would hear of its assignment.
            Ok(()) => Ok(Joined {
                leader: old_leader,
                ..self.joined(new_id, false)
            }),
            Err(error) => {
                self.members.update(
                    new_id,
                    replacement.old_protocols.clone(),
                    replacement.old_rebalance_timeout_ms,
                    replacement.old_session_timeout_ms,
                    None,
                );
                self.members.rename(instance, new_id, old_id);
                self.heard_of(old_id, now);
                Err(JoinFailure {
                    member_id: Arc::from(""),
                    error,
                })
            }
        };
        effects.push(Effect::AnswerJoin(ticket, result));
    }
}
