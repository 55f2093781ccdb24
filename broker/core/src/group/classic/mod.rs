//! The classic group protocol: joining, dividing the work, staying alive.
//!
//! Kafka: `GroupCoordinator` and `GroupMetadata` of 3.9. A rebalance goes Empty or Stable → `PreparingRebalance`
//! (members join) → `CompletingRebalance` (the leader divides the work) → Stable.
//!
//! | module | what it owns |
//! |---|---|
//! | [`messages`] | what is asked, answered and done |
//! | `joining`, `rebalancing`, `syncing` | the way of a generation |
//! | `liveness` | heartbeats, leaving, deadlines |
//! | `lasting` | commits, replaying the log, tombstones |

mod joining;
mod lasting;
mod liveness;
pub mod messages;
mod rebalancing;
mod syncing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::members::Members;
use super::offsets::Offsets;
use crate::ids::{GroupId, Offset, TopicName};
use crate::time::{Deadline, Now};

pub use messages::{
    Description, Effect, GroupRules, Join, JoinFailure, Joined, JoinedMember, Leaver,
    MemberDescription, MemberRef, Purpose, Replacement, State, Sync, Synced, Ticket,
};

/// Protocol type of consumers, whose subscriptions the coordinator can read.
const CONSUMER: &str = "consumer";

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
    /// Where in the log the last generation is that was replayed.
    generation_offset: Option<Offset>,
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
            generation_offset: None,
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
