//! What the planner is asked and what it answers.

use std::fmt;

use crate::ids::{BrokerId, TopicPartition};

/// A cluster at one moment. The order of its parts does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub brokers: Vec<Broker>,
    /// Each partition once. Replicas on brokers that are not listed count as on one with [`BrokerRole::Keep`].
    pub partitions: Vec<Partition>,
}

/// A broker that has replicas or may get some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: BrokerId,
    pub rack: Option<String>,
    pub role: BrokerRole,
    /// Bytes of its disks, and how much of them is in use; nothing if it does not say.
    pub disk: Option<Disk>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    pub total_bytes: u64,
    pub used_bytes: u64,
}

/// What may happen to a broker's replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerRole {
    /// Alive: it may get and lose replicas.
    Member,
    /// It keeps what it has and gets nothing: restarting, or nobody knows.
    Keep,
    /// Dead, but its wait is not over: only partitions that cannot be written to get others in its place.
    Away,
    /// Alive, and all it has is to go.
    Drain,
    /// Dead for good, as far as can be told: what it had is to be made anew.
    Lost,
}

/// A partition. While a reassignment runs, its replicas are those of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub id: TopicPartition,
    /// The preferred leader first.
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    pub leader: Option<BrokerId>,
    pub min_insync_replicas: u32,
    /// Of one replica.
    pub bytes: u64,
    /// Per second, into the leader and from it to consumers; nothing if brokers do not say.
    pub rates: Option<Rates>,
    /// Replicas on disks that failed, of brokers that are alive: they are re-homed like lost ones.
    pub on_failed_disks: Vec<BrokerId>,
    /// Brokers that are to get no replica of it: copying there did not succeed.
    pub avoid: Vec<BrokerId>,
    pub rack_spread: RackSpread,
    /// It counts, but is left where it is: it moves already, moved a moment ago, or somebody else moves it.
    pub pinned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    pub bytes_in: u64,
    pub bytes_out: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RackSpread {
    /// As even as brokers allow.
    #[default]
    Preferred,
    /// Rather no replica than a second one in a rack.
    Required,
}

/// How far values may be from their mean, and what a broker can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Used bytes of a broker's disks that a plan may lead to, in percent.
    pub disk_used_percent_max: u64,
    pub replicas_per_broker_max: u32,
    /// Tolerance of replicas, bytes on disk and leaders per broker, in percent of the mean.
    pub tolerance_percent: u64,
    /// Tolerance of bytes per second, in percent of the mean.
    pub rate_tolerance_percent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            disk_used_percent_max: 80,
            replicas_per_broker_max: 4000,
            tolerance_percent: 10,
            rate_tolerance_percent: 15,
        }
    }
}

/// One kind of work, in the order of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// What was on lost brokers and failed disks.
    Heal,
    /// Partitions below their min ISR with replicas on brokers that are away.
    MinIsr,
    Drain,
    RackRepair,
    /// Onto members that are clearly emptier.
    Spread,
    Balance,
}

impl Pass {
    pub const ALL: [Self; 6] = [
        Self::Heal,
        Self::MinIsr,
        Self::Drain,
        Self::RackRepair,
        Self::Spread,
        Self::Balance,
    ];
}

/// How much may be planned for the sake of balance alone (Spread and Balance).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub moves: usize,
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            moves: usize::MAX,
            bytes: u64::MAX,
        }
    }
}

/// Why a partition gets other replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    NodeFailure,
    MinIsr,
    Drain,
    ReplicasChange,
    RackRepair,
    ScaleOut,
    LoadBalance,
}

impl Reason {
    pub const ALL: [Self; 7] = [
        Self::NodeFailure,
        Self::MinIsr,
        Self::Drain,
        Self::ReplicasChange,
        Self::RackRepair,
        Self::ScaleOut,
        Self::LoadBalance,
    ];

    /// Whether data is at stake: such moves go first and faster.
    pub fn is_repair(self) -> bool {
        matches!(self, Self::NodeFailure | Self::MinIsr)
    }

    /// As statuses and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NodeFailure => "NodeFailure",
            Self::MinIsr => "MinIsr",
            Self::Drain => "Drain",
            Self::ReplicasChange => "ReplicasChange",
            Self::RackRepair => "RackRepair",
            Self::ScaleOut => "ScaleOut",
            Self::LoadBalance => "LoadBalance",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Reason {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|reason| reason.name() == text).ok_or(())
    }
}

/// A partition's new replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub partition: TopicPartition,
    pub from: Vec<BrokerId>,
    pub to: Vec<BrokerId>,
    pub reason: Reason,
    /// To be copied: the size of a replica for each broker that gets one.
    pub bytes: u64,
    /// In-sync replicas on brokers that stay, before it begins; the fewest are moved first.
    pub live_isr: usize,
}

impl Move {
    /// Brokers that get a replica.
    pub fn adding(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let is_new = |id: &BrokerId| !self.from.contains(id);
        self.to.iter().copied().filter(is_new)
    }

    /// Brokers that lose theirs.
    pub fn removing(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let goes = |id: &BrokerId| !self.to.contains(id);
        self.from.iter().copied().filter(goes)
    }

    /// Whether only the order changes.
    pub fn is_reorder(&self) -> bool {
        self.adding().next().is_none() && self.removing().next().is_none()
    }
}

/// A replica that ought to move and cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    pub partition: TopicPartition,
    /// Where it is.
    pub broker: BrokerId,
    pub reason: Reason,
    pub cause: StuckCause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StuckCause {
    /// Every member has a replica already.
    NoBroker,
    /// Members without a replica are in racks that have one, and `rackSpread: Required`.
    NoRack,
    /// Members without a replica are too full.
    NoRoom,
    /// No replica that data could be copied from is in sync.
    NoSource,
}

impl fmt::Display for StuckCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBroker => "every broker that could take it has a replica of the partition",
            Self::NoRack => "no broker is in a rack of its own",
            Self::NoRoom => "no broker has room for it",
            Self::NoSource => "no replica that it could be copied from is in sync",
        })
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Most urgent first; within a class partitions with the fewest in-sync replicas, then small ones. A partition
    /// is moved once at most.
    pub moves: Vec<Move>,
    pub stuck: Vec<Stuck>,
}

impl Plan {
    /// Bytes to be copied by all moves.
    pub fn bytes(&self) -> u64 {
        self.moves.iter().map(|one| one.bytes).sum()
    }
}
