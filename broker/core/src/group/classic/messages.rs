//! What a group is asked, what it answers, and what it wants done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::group::GroupError;
use crate::group::records::GroupRecord;

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
    pub(super) instance: Arc<str>,
    pub(super) old_id: Arc<str>,
    pub(super) new_id: Arc<str>,
    pub(super) old_leader: Option<Arc<str>>,
    pub(super) old_protocols: Vec<(Arc<str>, Bytes)>,
    pub(super) old_rebalance_timeout_ms: i32,
    pub(super) old_session_timeout_ms: i32,
    pub(super) can_skip_assignment: bool,
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
