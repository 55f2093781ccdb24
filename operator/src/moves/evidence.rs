//! What is known of brokers, as far as moves depend on it, and who says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use barnabas_core::balance::BrokerRole;
use barnabas_core::ids::BrokerId;
use barnabas_core::time::Now;

/// What a broker seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BrokerState {
    Alive,
    Starting,
    PlannedDown,
    Suspect,
    Failed,
    Lost,
    Draining,
    Drained,
    Unknown,
}

impl BrokerState {
    pub const ALL: [Self; 9] = [
        Self::Alive,
        Self::Starting,
        Self::PlannedDown,
        Self::Suspect,
        Self::Failed,
        Self::Lost,
        Self::Draining,
        Self::Drained,
        Self::Unknown,
    ];

    /// As metrics and events have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alive => "Alive",
            Self::Starting => "Starting",
            Self::PlannedDown => "PlannedDown",
            Self::Suspect => "Suspect",
            Self::Failed => "Failed",
            Self::Lost => "Lost",
            Self::Draining => "Draining",
            Self::Drained => "Drained",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether it is to be emptied: nothing new is placed on it.
    pub fn is_leaving(self) -> bool {
        matches!(self, Self::Draining | Self::Drained)
    }

    /// Whether nothing may be moved for the sake of balance while a broker is like that.
    pub fn disturbs_balance(self) -> bool {
        match self {
            Self::Suspect
            | Self::Failed
            | Self::PlannedDown
            | Self::Starting
            | Self::Lost
            | Self::Unknown => true,
            Self::Alive | Self::Draining | Self::Drained => false,
        }
    }
}

/// What is known of one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerEvidence {
    pub state: BrokerState,
    /// Its wait is over: what it had is to be made anew elsewhere. Only ever for brokers that are not registered.
    pub is_due: bool,
    /// Alive long enough to be filled up.
    pub is_settled: bool,
    /// When its wait will be over, on the monotonic clock; for people.
    pub due_at: Option<Duration>,
}

impl BrokerEvidence {
    /// A broker that is well.
    pub const ALIVE: Self = Self {
        state: BrokerState::Alive,
        is_due: false,
        is_settled: true,
        due_at: None,
    };

    pub fn of(state: BrokerState) -> Self {
        Self {
            state,
            is_due: false,
            is_settled: false,
            due_at: None,
        }
    }

    /// What the planner may do with it.
    pub fn role(&self) -> BrokerRole {
        match self.state {
            BrokerState::Alive => BrokerRole::Member,
            BrokerState::Draining | BrokerState::Drained => BrokerRole::Drain,
            BrokerState::Starting
            | BrokerState::PlannedDown
            | BrokerState::Suspect
            | BrokerState::Failed
            | BrokerState::Lost
                if self.is_due =>
            {
                BrokerRole::Lost
            }
            BrokerState::Starting | BrokerState::PlannedDown | BrokerState::Unknown => {
                BrokerRole::Keep
            }
            BrokerState::Suspect | BrokerState::Failed | BrokerState::Lost => BrokerRole::Away,
        }
    }
}

/// Why nothing is to be begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// Whoever watches cannot see: what is out of sight.
    Blind(&'static str),
    /// So many brokers are down that something else must be wrong.
    TooManyDown { down: usize, all: usize },
}

impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blind(what) => write!(f, "{what} cannot be seen"),
            Self::TooManyDown { down, all } => write!(f, "{down} of {all} brokers are down"),
        }
    }
}

/// What is known of all brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    pub brokers: BTreeMap<BrokerId, BrokerEvidence>,
    /// Brokers are being restarted or upgraded one after the other.
    pub is_rollout: bool,
    /// Why nothing is to be begun at all: whoever watches cannot see, or too many brokers are down.
    pub frozen: Option<Frozen>,
}

impl Evidence {
    /// What is known of a broker; one that nobody mentions is left alone.
    pub fn of(&self, id: BrokerId) -> BrokerEvidence {
        let found = self.brokers.get(&id).copied();
        found.unwrap_or(BrokerEvidence::of(BrokerState::Unknown))
    }
}

/// Who watches brokers: a state machine fed by Kubernetes and ZooKeeper, or by ZooKeeper alone.
pub trait EvidenceSource: Send + Sync {
    /// What is known now.
    fn evidence(&self, now: Now) -> Evidence;
}

/// How long brokers that are not registered are waited for where only registrations are known.
#[derive(Clone, Debug)]
pub struct Graces {
    pub failure: Duration,
    /// How long a broker has to be alive to be filled up.
    pub settled: Duration,
}

impl Default for Graces {
    fn default() -> Self {
        Self {
            failure: Duration::from_secs(10 * 60),
            settled: Duration::from_secs(60),
        }
    }
}

/// States of brokers on plain machines, where registrations in ZooKeeper are all there is.
#[derive(Debug, Default)]
pub struct Registrations {
    pub graces: Graces,
    /// To be emptied.
    pub drain: BTreeSet<BrokerId>,
    /// A person says that they will not come back.
    pub lost: BTreeSet<BrokerId>,
    since: BTreeMap<BrokerId, Since>,
    many_down: ManyDown,
}

#[derive(Clone, Copy, Debug)]
enum Since {
    Alive(Duration),
    Gone(Duration),
}

/// More brokers than this share of all that are gone at once mean that something else is wrong.
const GONE_PERCENT_MAX: usize = 34;

/// Whether too many brokers are gone, or were a moment ago: whatever took them away is likely to end for all
/// of them, but not at one moment, and who is not the first to return shall not be made anew elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct ManyDown {
    /// When and how many they last were.
    last: Option<(Duration, usize)>,
}

impl ManyDown {
    /// Takes in how many of all are gone now; says why nothing is to be begun. Afterwards the waits for those
    /// that are gone are to begin anew.
    pub fn look(
        &mut self,
        down: usize,
        all: usize,
        settled: Duration,
        now: Duration,
    ) -> Option<Frozen> {
        if down > (all * GONE_PERCENT_MAX / 100).max(1) {
            self.last = Some((now, down));
        }
        let (at, most) = self.last?;
        let is_recent = at == now || now.saturating_sub(at) < settled;
        if down == 0 || !is_recent {
            self.last = None;
            return None;
        }
        Some(Frozen::TooManyDown { down: most, all })
    }
}

impl Registrations {
    pub fn new(graces: Graces, drain: BTreeSet<BrokerId>, lost: BTreeSet<BrokerId>) -> Self {
        Self {
            graces,
            drain,
            lost,
            since: BTreeMap::new(),
            many_down: ManyDown::default(),
        }
    }

    /// Which brokers are registered now (nothing if that is not known), and which have replicas.
    pub fn observe(
        &mut self,
        registered: Option<&BTreeSet<BrokerId>>,
        with_replicas: &BTreeSet<BrokerId>,
        now: Duration,
    ) -> Evidence {
        let Some(registered) = registered else {
            return Evidence {
                frozen: Some(Frozen::Blind("ZooKeeper")),
                ..Evidence::default()
            };
        };
        // Those seen first were alive before anybody looked.
        let is_first = self.since.is_empty();
        for id in registered {
            let since = self.since.entry(*id).or_insert(Since::Gone(now));
            if let Since::Gone(_) = since {
                let before = now.checked_sub(self.graces.settled);
                *since = Since::Alive(if is_first { before.unwrap_or(now) } else { now });
            }
        }
        for id in with_replicas {
            self.since.entry(*id).or_insert(Since::Gone(now));
        }
        // Who neither is there nor has anything is no broker any more.
        self.since
            .retain(|id, _| registered.contains(id) || with_replicas.contains(id));
        for (id, since) in &mut self.since {
            if !registered.contains(id) && matches!(since, Since::Alive(_)) {
                *since = Since::Gone(now);
            }
        }
        let gone = self.since.keys().filter(|id| !registered.contains(id));
        let unexplained = gone.filter(|id| !self.lost.contains(id)).count();
        let all = self.since.len();
        let mut evidence = Evidence {
            frozen: self
                .many_down
                .look(unexplained, all, self.graces.settled, now),
            ..Evidence::default()
        };
        if evidence.frozen.is_some() {
            for since in self.since.values_mut() {
                if let Since::Gone(since) = since {
                    *since = now;
                }
            }
        }
        for (id, since) in &self.since {
            let found = match since {
                Since::Alive(_) if self.drain.contains(id) => {
                    BrokerEvidence::of(BrokerState::Draining)
                }
                Since::Alive(since) => BrokerEvidence {
                    state: BrokerState::Alive,
                    is_due: false,
                    is_settled: is_first || now.saturating_sub(*since) >= self.graces.settled,
                    due_at: None,
                },
                Since::Gone(_) if evidence.frozen.is_some() => {
                    BrokerEvidence::of(BrokerState::Unknown)
                }
                Since::Gone(_) if self.lost.contains(id) => BrokerEvidence {
                    state: BrokerState::Lost,
                    is_due: true,
                    is_settled: false,
                    due_at: None,
                },
                Since::Gone(since) => {
                    let due_at = *since + self.graces.failure;
                    BrokerEvidence {
                        state: BrokerState::Failed,
                        is_due: now >= due_at,
                        is_settled: false,
                        due_at: Some(due_at),
                    }
                }
            };
            evidence.brokers.insert(*id, found);
        }
        evidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[i32]) -> BTreeSet<BrokerId> {
        ids.iter().map(|id| BrokerId(*id)).collect()
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_broker_is_due_when_its_wait_is_over_and_not_before() {
        let mut seen = Registrations::default();
        let all = ids(&[1, 2, 3, 4]);
        let first = seen.observe(Some(&all), &all, MINUTE);
        assert!(
            first
                .brokers
                .values()
                .all(|one| *one == BrokerEvidence::ALIVE)
        );
        let three = ids(&[1, 2, 3]);
        let state =
            |seen: &mut Registrations, now| seen.observe(Some(&three), &all, now).of(BrokerId(4));
        let at_once = state(&mut seen, MINUTE * 2);
        assert_eq!(at_once.role(), BrokerRole::Away);
        assert_eq!(at_once.due_at, Some(MINUTE * 12));
        assert_eq!(state(&mut seen, MINUTE * 11).role(), BrokerRole::Away);
        assert_eq!(state(&mut seen, MINUTE * 12).role(), BrokerRole::Lost);
        // It returns, and its clock begins anew.
        let back = seen.observe(Some(&all), &all, MINUTE * 13).of(BrokerId(4));
        assert_eq!((back.state, back.is_settled), (BrokerState::Alive, false));
        assert_eq!(state(&mut seen, MINUTE * 14).role(), BrokerRole::Away);
    }

    #[test]
    fn nothing_is_concluded_when_many_are_gone_or_nobody_can_see() {
        let mut seen = Registrations::default();
        let all = ids(&[1, 2, 3]);
        seen.observe(Some(&all), &all, MINUTE);
        let two_gone = seen.observe(Some(&ids(&[1])), &all, MINUTE * 30);
        assert_eq!(
            two_gone.frozen,
            Some(Frozen::TooManyDown { down: 2, all: 3 })
        );
        assert_eq!(two_gone.of(BrokerId(2)).role(), BrokerRole::Keep);
        assert!(seen.observe(None, &all, MINUTE * 60).frozen.is_some());
    }

    #[test]
    fn a_person_can_say_that_a_broker_is_lost_or_to_be_emptied() {
        let mut seen = Registrations::new(Graces::default(), ids(&[1]), ids(&[3]));
        let found = seen.observe(Some(&ids(&[1, 2])), &ids(&[1, 2, 3]), MINUTE);
        assert_eq!(found.of(BrokerId(1)).role(), BrokerRole::Drain);
        assert_eq!(found.of(BrokerId(2)).role(), BrokerRole::Member);
        assert_eq!(found.of(BrokerId(3)).role(), BrokerRole::Lost);
        assert_eq!(found.of(BrokerId(9)).role(), BrokerRole::Keep);
    }
}
