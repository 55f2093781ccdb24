//! The classic group protocol: joining, dividing the work, staying alive.
//!
//! Kafka: `GroupCoordinator` and `GroupMetadata` of 3.9. A rebalance goes Empty or Stable → `PreparingRebalance`
//! (members join) → `CompletingRebalance` (the leader divides the work) → Stable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::GroupError;
use super::members::{Member, Members, NewMember};
use super::offsets::Offsets;
use super::records::{Generation, GroupRecord};
use crate::ids::{GroupId, Offset, TopicName, TopicPartition};
use crate::time::{Deadline, Now};

/// How long a join of a new member may take (`GroupCoordinator.NewMemberJoinTimeoutMs`).
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);

/// Protocol type of consumers, whose subscriptions the coordinator can read.
const CONSUMER: &str = "consumer";

/// Settings that a group obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRules {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: i32,
    /// `group.max.size`.
    pub size_max: usize,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay: Duration,
}

/// Stands for a request that waits to be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A request to join.
#[derive(Clone, Debug)]
pub struct Join {
    pub ticket: Ticket,
    /// Empty for a member that has no id yet.
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    /// Milliseconds.
    pub rebalance_timeout_ms: i32,
    /// Milliseconds.
    pub session_timeout_ms: i32,
    pub protocol_type: Arc<str>,
    /// The preferred one first.
    pub protocols: Vec<(Arc<str>, Bytes)>,
    /// The member has to come again with the id that it is given (KIP-394).
    pub needs_known_id: bool,
    /// The leader may be told to leave the assignment as it is (KIP-814).
    pub can_skip_assignment: bool,
    /// What makes the id of a new member unique; random.
    pub unique: uuid::Uuid,
}

/// The answer to a join that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub member_id: Arc<str>,
    pub generation_id: i32,
    pub protocol_type: Option<Arc<str>>,
    pub protocol: Option<Arc<str>>,
    pub leader: Arc<str>,
    pub skip_assignment: bool,
    /// Only for the leader, which divides the work among them.
    pub members: Vec<JoinedMember>,
}

/// What the leader is told of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub metadata: Bytes,
}

/// The answer to a join that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinFailure {
    /// The id of the request, or the one that the member shall use from now on.
    pub member_id: Arc<str>,
    pub error: GroupError,
}

/// Who a request says that it comes from.
#[derive(Clone, Copy, Debug)]
pub struct MemberRef<'a> {
    pub member_id: &'a str,
    pub group_instance_id: Option<&'a str>,
    /// Negative for consumers that manage their partitions themselves.
    pub generation_id: i32,
}

/// A member asks for its part of the work; the leader brings everybody's.
#[derive(Clone, Debug)]
pub struct Sync {
    pub ticket: Ticket,
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub generation_id: i32,
    pub protocol_type: Option<Arc<str>>,
    pub protocol: Option<Arc<str>>,
    pub assignments: BTreeMap<Arc<str>, Bytes>,
}

/// The answer to a sync that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Option<Arc<str>>,
    pub protocol: Option<Arc<str>>,
    pub assignment: Bytes,
}

/// A member that leaves, or is made to leave by its instance id alone.
#[derive(Clone, Debug)]
pub struct Leaver {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
}

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    AnswerJoin(Ticket, Result<Joined, JoinFailure>),
    AnswerSync(Ticket, Result<Synced, GroupError>),
    /// Append the record. Once it is in the log for good, [`Group::replay`] it; tell [`Group::written`] either way.
    Write(GroupRecord, Purpose),
}

/// Why a record is written: comes back with the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The assignments of a generation.
    Assignment { generation_id: i32 },
    /// Nobody is left.
    Emptied,
    /// A static member has another id.
    Replaced(Box<Replacement>),
}

/// A static member came back under another id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    instance: Arc<str>,
    old_id: Arc<str>,
    new_id: Arc<str>,
    old_leader: Option<Arc<str>>,
    old_protocols: Vec<(Arc<str>, Bytes)>,
    old_rebalance_timeout_ms: i32,
    old_session_timeout_ms: i32,
    can_skip_assignment: bool,
}

/// Where a group is between two rebalances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl State {
    /// The name that tools show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// What a group is, for those who look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub state: State,
    pub protocol_type: Arc<str>,
    /// Only while the group is stable, like the metadata and assignments of members.
    pub protocol: Arc<str>,
    pub members: Vec<MemberDescription>,
}

/// A member in a [`Description`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// How long a rebalance waits for members.
#[derive(Clone, Copy, Debug)]
enum JoinTimer {
    /// The first rebalance of a group waits for more members, and again as long as some come.
    Initial {
        at: Deadline,
        remaining: Duration,
    },
    Rejoin {
        at: Deadline,
    },
}

/// One group.
#[derive(Clone, Debug)]
pub struct Group {
    id: GroupId,
    state: State,
    /// When the group came into its state, milliseconds since the epoch.
    state_timestamp: Option<i64>,
    generation_id: i32,
    protocol_type: Option<Arc<str>>,
    protocol: Option<Arc<str>>,
    members: Members,
    /// Ids that were given out and not used yet, and until when they may be.
    pending: BTreeMap<Arc<str>, Deadline>,
    /// Members that have not asked for their part yet.
    unsynced: BTreeSet<Arc<str>>,
    join_timer: Option<JoinTimer>,
    /// Until when members have to ask for their part.
    sync_timer: Option<Deadline>,
    /// Somebody joined for the first time during the initial delay.
    has_new_member: bool,
    /// Topics that members of a consumer group read; unknown if their subscriptions cannot be read.
    subscribed: Option<BTreeSet<TopicName>>,
    /// No timer ends earlier than this.
    soonest: Option<Deadline>,
    pub offsets: Offsets,
}

type Effects = Vec<Effect>;

impl Group {
    /// A group that nobody has joined.
    pub fn new(id: GroupId) -> Self {
        Self {
            id,
            state: State::Empty,
            state_timestamp: None,
            generation_id: 0,
            protocol_type: None,
            protocol: None,
            members: Members::default(),
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            join_timer: None,
            sync_timer: None,
            has_new_member: false,
            subscribed: None,
            soonest: None,
            offsets: Offsets::default(),
        }
    }

    pub fn id(&self) -> &GroupId {
        &self.id
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn generation_id(&self) -> i32 {
        self.generation_id
    }

    pub fn protocol_type(&self) -> Option<&Arc<str>> {
        self.protocol_type.as_ref()
    }

    /// When to call [`Group::tick`], at the latest; it may turn out to be too early.
    pub fn next_deadline(&self) -> Option<Deadline> {
        self.soonest
    }

    fn become_state(&mut self, state: State, now: Now) {
        self.state = state;
        self.state_timestamp = Some(now.wall_clock_ms);
    }

    fn note(&mut self, deadline: Deadline) -> Deadline {
        self.soonest = Some(
            self.soonest
                .map_or(deadline, |soonest| soonest.min(deadline)),
        );
        deadline
    }

    // --- joining ---

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
                // An id that was given out belongs to a dynamic member.
                return refuse(&join.member_id, GroupError::UnknownMemberId);
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
    fn has_room_for(&self, member_id: &str, rules: &GroupRules) -> bool {
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

    fn supports(&self, join: &Join) -> bool {
        if self.state == State::Empty {
            !join.protocol_type.is_empty() && !join.protocols.is_empty()
        } else {
            self.protocol_type.as_ref() == Some(&join.protocol_type)
                && self.members.share_one_of(&join.protocols)
        }
    }

    fn join_anew(&mut self, join: Join, rules: &GroupRules, now: Now, effects: &mut Effects) {
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

    fn add_member(
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

    fn join_again(&mut self, join: Join, rules: &GroupRules, now: Now, effects: &mut Effects) {
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

    fn update_member(&mut self, join: &Join, effects: &mut Effects) {
        let waited = self.members.update(
            &join.member_id,
            join.protocols.clone(),
            join.rebalance_timeout_ms,
            join.session_timeout_ms,
            Some(join.ticket),
        );
        self.answer_superseded(waited, &join.member_id, effects);
    }

    /// A member that joins twice is answered once more: Kafka forgets the first request, and lets it hang.
    fn answer_superseded(
        &mut self,
        waited: Option<Ticket>,
        member_id: &Arc<str>,
        effects: &mut Effects,
    ) {
        if let Some(ticket) = waited {
            let failure = JoinFailure {
                member_id: Arc::clone(member_id),
                error: GroupError::RebalanceInProgress,
            };
            effects.push(Effect::AnswerJoin(ticket, Err(failure)));
        }
    }

    /// KIP-345: an instance that comes back takes the place that it had.
    fn replace_static_member(
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

    fn joined(&self, member_id: &Arc<str>, tells_members: bool) -> Joined {
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

    fn joined_members(&self) -> Vec<JoinedMember> {
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

    // --- rebalancing ---

    fn prepare_rebalance_if_possible(
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

    fn prepare_rebalance(&mut self, rules: &GroupRules, now: Now, effects: &mut Effects) {
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

    fn rebalance_timeout(&self) -> Duration {
        Duration::from_millis(self.members.rebalance_timeout_ms().max(0) as u64)
    }

    /// The initial delay is waited for in any case; afterwards nobody waits longer than needed.
    fn complete_join_if_all_joined(&mut self, now: Now, effects: &mut Effects) {
        let have_all_joined =
            self.members.joining() == self.members.len() && self.pending.is_empty();
        if self.state == State::PreparingRebalance
            && have_all_joined
            && matches!(self.join_timer, Some(JoinTimer::Rejoin { .. }))
        {
            self.complete_join(now, effects);
        }
    }

    fn complete_join(&mut self, now: Now, effects: &mut Effects) {
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
        self.sync_timer = Some(self.note(now.deadline(self.rebalance_timeout())));
    }

    // --- dividing the work ---

    /// A member asks for its part.
    pub fn sync(&mut self, sync: Sync, now: Now) -> Effects {
        let answer = |result| vec![Effect::AnswerSync(sync.ticket, result)];
        if let Err(error) = self.check_sync(&sync) {
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

    fn check_sync(&self, sync: &Sync) -> Result<(), GroupError> {
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
    fn generation_record(&self) -> GroupRecord {
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
    fn assigned_record(&self, assignments: &BTreeMap<Arc<str>, Bytes>) -> GroupRecord {
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

    fn fail_syncs(&mut self, error: GroupError, now: Now, effects: &mut Effects) {
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

    fn assignment_written(
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

    fn replacement_written(
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

    // --- staying alive ---

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

    fn leave_one(
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

    fn remove_member(&mut self, id: &str, rules: &GroupRules, now: Now, effects: &mut Effects) {
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
    fn forget_member(&mut self, id: &str, effects: &mut Effects) {
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

    fn check_member(&self, member_id: &str, instance: Option<&str>) -> Result<(), GroupError> {
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

    fn check_generation(&self, member: MemberRef<'_>) -> Result<(), GroupError> {
        self.check_member(member.member_id, member.group_instance_id)?;
        if member.generation_id == self.generation_id {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration)
        }
    }

    /// The member is alive: its session starts over.
    fn heard_of(&mut self, id: &str, now: Now) {
        if let Some(member) = self.members.get(id) {
            let timeout = Duration::from_millis(member.session_timeout_ms.max(0) as u64);
            self.set_deadline(id, timeout, now);
        }
    }

    fn set_deadline(&mut self, id: &str, timeout: Duration, now: Now) {
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

    fn expire_members(&mut self, rules: &GroupRules, now: Now, effects: &mut Effects) {
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

    fn initial_delay_passed(
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

    fn expire_unsynced(&mut self, rules: &GroupRules, now: Now, effects: &mut Effects) {
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

    fn earliest_deadline(&self) -> Option<Deadline> {
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

    // --- committing offsets ---

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

    fn check_committer(
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

    // --- what lasts ---

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
            } => self.replay_generation(generation),
            GroupRecord::Group {
                generation: None, ..
            } => self.state = State::Dead,
            GroupRecord::Unknown { .. } => {}
        }
    }

    /// The generation that the log has is the one in force, unless a rebalance is on its way to the next one.
    fn replay_generation(&mut self, generation: &Generation) {
        match self.state {
            State::PreparingRebalance | State::Dead => return,
            State::CompletingRebalance if generation.generation_id != self.generation_id => return,
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

    fn would_be_empty_without(&self, partitions: &[TopicPartition]) -> bool {
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
        self.offset_deletion(&expired)
    }

    fn tombstones(&self, partitions: &[TopicPartition]) -> Vec<GroupRecord> {
        let partitions = partitions.iter();
        partitions
            .map(|partition| GroupRecord::Offset {
                group: Arc::clone(&self.id),
                partition: partition.clone(),
                commit: None,
            })
            .collect()
    }

    fn group_tombstone(&self) -> GroupRecord {
        GroupRecord::Group {
            group: Arc::clone(&self.id),
            generation: None,
        }
    }

    /// Whether the log has a record of the group itself, that a tombstone must undo.
    pub fn is_recorded(&self) -> bool {
        self.generation_id > 0
    }

    // --- looking ---

    /// Who belongs to the group and what they do.
    pub fn describe(&self) -> Description {
        let is_stable = self.state == State::Stable;
        let protocol = self
            .protocol
            .clone()
            .filter(|_| is_stable)
            .unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| MemberDescription {
            member_id: Arc::clone(id),
            group_instance_id: member.group_instance_id.clone(),
            client_id: Arc::clone(&member.client_id),
            client_host: Arc::clone(&member.client_host),
            metadata: if is_stable {
                member.metadata(&protocol)
            } else {
                Bytes::new()
            },
            assignment: if is_stable {
                member.assignment.clone()
            } else {
                Bytes::new()
            },
        });
        Description {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol,
        }
    }

    fn is_consumer_group(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed
            .as_ref()
            .is_none_or(|subscribed| subscribed.contains(topic))
    }

    fn compute_subscribed(&self) -> Option<BTreeSet<TopicName>> {
        if !self.is_consumer_group() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_ref()?;
        let mut topics = BTreeSet::new();
        for (_, member) in self.members.iter() {
            super::subscription::topics(&member.metadata(protocol), &mut topics)?;
        }
        Some(topics)
    }
}
