//! States of brokers: a pure machine. Facts and the time go in, states and deadlines come out.
//!
//! The first evidence that matches wins. Nothing is concluded while we cannot see, nor when so many brokers are away
//! that something else must be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use barnabas_core::ids::{BrokerEpoch, BrokerId};
use barnabas_core::time::Now;

use crate::moves::{BrokerEvidence, BrokerState, Evidence, Frozen, ManyDown};

/// How long is waited before replicas are made anew elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graces {
    /// Probably gone.
    pub failure: Duration,
    /// Certainly gone.
    pub lost: Duration,
    /// Gone on purpose, to come back.
    pub planned: Duration,
    /// A whole zone is gone.
    pub zone: Duration,
    /// How long a broker has to be alive to be filled up.
    pub settled: Duration,
}

impl Default for Graces {
    fn default() -> Self {
        Self {
            failure: Duration::from_secs(10 * 60),
            lost: Duration::from_secs(30),
            planned: Duration::from_secs(30 * 60),
            zone: Duration::from_secs(60 * 60),
            settled: Duration::from_secs(60),
        }
    }
}

/// A broker that comes back so often …
const RETURNS: usize = 3;
/// … in so long is waited for twice as long.
const FLAPPING: Duration = Duration::from_secs(30 * 60);

/// What is known of one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The epoch of its registration, if it has one.
    pub registered: Option<BrokerEpoch>,
    pub pod: Pod,
    pub node: Node,
    pub volume: Volume,
    pub zone: Option<String>,
    /// Annotated, or about to be scaled in.
    pub is_decommissioned: bool,
    /// In milliseconds since the Unix epoch: not before this.
    pub maintenance_until_ms: Option<i64>,
}

/// The pod, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pod {
    /// Not in Kubernetes, or not seen.
    #[default]
    Unknown,
    Starting,
    Ready,
    CrashLooping,
    /// Somebody wants it to go.
    Deleting,
    /// It cannot be placed, because the node of its volume is gone.
    Unplaceable,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Node {
    #[default]
    Unknown,
    Ready,
    NotReady,
    Cordoned,
    /// The object is deleted, or has the out-of-service taint.
    Gone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Volume {
    #[default]
    Unknown,
    /// It lives with its node.
    Local,
    /// It can be attached elsewhere.
    Remote,
    Lost,
}

/// What is known altogether.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether registrations can be seen now.
    pub sees_registrations: bool,
    /// Whether Kubernetes can be seen now; true where there is none.
    pub sees_kubernetes: bool,
    pub is_rollout: bool,
    pub brokers: BTreeMap<BrokerId, Facts>,
}

/// A broker is something else than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub id: BrokerId,
    pub from: Option<BrokerState>,
    pub to: BrokerState,
}

#[derive(Clone, Debug, Default)]
struct Memory {
    state: Option<BrokerState>,
    state_since: Duration,
    alive_since: Option<Duration>,
    gone_since: Option<Duration>,
    returns: Vec<Duration>,
    epoch: Option<BrokerEpoch>,
}

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    graces: Graces,
    brokers: BTreeMap<BrokerId, Memory>,
    many_down: ManyDown,
    has_looked: bool,
}

impl Machine {
    pub fn new(graces: Graces) -> Self {
        Self {
            graces,
            ..Self::default()
        }
    }

    /// Takes in what is seen; answers what brokers are and what has changed.
    pub fn observe(&mut self, seen: &Seen, now: Now) -> (Evidence, Vec<Transition>) {
        let frozen = if !seen.sees_registrations {
            Some(Frozen::Blind("ZooKeeper"))
        } else if !seen.sees_kubernetes {
            Some(Frozen::Blind("Kubernetes"))
        } else {
            self.note(seen, now.monotonic);
            let all = seen.brokers.len();
            let away = seen.brokers.values().filter(|one| one.registered.is_none());
            let settled = self.graces.settled;
            self.many_down
                .look(away.count(), all, settled, now.monotonic)
        };
        if let Some(Frozen::TooManyDown { .. }) = frozen {
            for memory in self.brokers.values_mut() {
                memory.gone_since = memory.gone_since.map(|_| now.monotonic);
            }
        }
        let zones_gone = zones_gone(seen);
        let mut evidence = Evidence {
            brokers: BTreeMap::new(),
            is_rollout: seen.is_rollout,
            frozen,
        };
        let mut transitions = Vec::new();
        for (id, facts) in &seen.brokers {
            let is_in_doubt = evidence.frozen.is_some() && facts.registered.is_none();
            let state = if is_in_doubt || !seen.sees_registrations || !seen.sees_kubernetes {
                BrokerState::Unknown
            } else {
                state(facts, seen.is_rollout, now)
            };
            let memory = self.brokers.entry(*id).or_default();
            if memory.state != Some(state) {
                transitions.push(Transition {
                    id: *id,
                    from: memory.state,
                    to: state,
                });
                memory.state = Some(state);
                memory.state_since = now.monotonic;
            }
            let zone_is_gone = facts
                .zone
                .as_ref()
                .is_some_and(|one| zones_gone.contains(one));
            let found = evidence_of(memory, facts, state, &self.graces, zone_is_gone, now);
            evidence.brokers.insert(*id, found);
        }
        self.brokers.retain(|id, _| seen.brokers.contains_key(id));
        (evidence, transitions)
    }

    /// Clocks: who is there and who is not. Only while we can see.
    fn note(&mut self, seen: &Seen, now: Duration) {
        let is_first = !self.has_looked;
        self.has_looked = true;
        for (id, facts) in &seen.brokers {
            let memory = self.brokers.entry(*id).or_default();
            let Some(epoch) = facts.registered else {
                memory.alive_since = None;
                memory.gone_since.get_or_insert(now);
                continue;
            };
            if memory.gone_since.take().is_some() {
                memory.returns.push(now);
            }
            memory
                .returns
                .retain(|at| now.saturating_sub(*at) <= FLAPPING);
            // Who was there when we began counts as settled; who restarted in between does not.
            if memory.epoch.is_some_and(|known| known != epoch) {
                memory.alive_since = Some(now);
            }
            memory.epoch = Some(epoch);
            let settled = now.checked_sub(self.graces.settled);
            let since = if is_first {
                settled.unwrap_or(Duration::ZERO)
            } else {
                now
            };
            memory.alive_since.get_or_insert(since);
        }
    }
}

/// Zones of two or more brokers without any that is registered, while others are there.
fn zones_gone(seen: &Seen) -> BTreeSet<String> {
    let mut zones: BTreeMap<&String, (usize, usize)> = BTreeMap::new();
    for facts in seen.brokers.values() {
        if let Some(zone) = &facts.zone {
            let (all, alive) = zones.entry(zone).or_default();
            *all += 1;
            *alive += usize::from(facts.registered.is_some());
        }
    }
    if zones.len() < 2 {
        return BTreeSet::new();
    }
    let gone = zones
        .into_iter()
        .filter(|(_, (all, alive))| *all >= 2 && *alive == 0);
    gone.map(|(zone, _)| zone.clone()).collect()
}

/// The first that matches.
fn state(facts: &Facts, is_rollout: bool, now: Now) -> BrokerState {
    if facts.registered.is_some() {
        return if facts.is_decommissioned {
            BrokerState::Draining
        } else {
            BrokerState::Alive
        };
    }
    if facts.is_decommissioned {
        return BrokerState::Draining;
    }
    let in_maintenance = facts
        .maintenance_until_ms
        .is_some_and(|until| until > now.wall_clock_ms);
    if in_maintenance {
        return BrokerState::PlannedDown;
    }
    let data_is_gone =
        facts.volume == Volume::Lost || (facts.node == Node::Gone && facts.volume == Volume::Local);
    if data_is_gone || facts.pod == Pod::Unplaceable {
        return BrokerState::Lost;
    }
    if facts.node == Node::Cordoned
        || is_rollout
        || facts.pod == Pod::Deleting && facts.node == Node::Ready
    {
        return BrokerState::PlannedDown;
    }
    if matches!(facts.node, Node::NotReady | Node::Gone) || facts.pod == Pod::CrashLooping {
        return BrokerState::Failed;
    }
    match facts.pod {
        Pod::Ready => BrokerState::Suspect,
        Pod::Starting => BrokerState::Starting,
        Pod::Unknown | Pod::CrashLooping | Pod::Deleting | Pod::Unplaceable => BrokerState::Failed,
    }
}

fn evidence_of(
    memory: &Memory,
    facts: &Facts,
    state: BrokerState,
    graces: &Graces,
    zone_is_gone: bool,
    now: Now,
) -> BrokerEvidence {
    let mut found = BrokerEvidence::of(state);
    let monotonic = now.monotonic;
    let gone_since = memory.gone_since.unwrap_or(monotonic);
    let (since, grace) = match state {
        BrokerState::Alive => {
            let since = memory.alive_since.unwrap_or(monotonic);
            found.is_settled = monotonic.saturating_sub(since) >= graces.settled;
            return found;
        }
        BrokerState::Unknown => return found,
        BrokerState::Draining | BrokerState::Drained => {
            found.is_due = facts.registered.is_none();
            return found;
        }
        BrokerState::Lost => (memory.state_since, graces.lost),
        BrokerState::PlannedDown => (gone_since, graces.planned),
        BrokerState::Suspect | BrokerState::Failed | BrokerState::Starting => {
            (gone_since, graces.failure)
        }
    };
    let mut grace = grace;
    if memory.returns.len() >= RETURNS {
        grace *= 2;
    }
    if zone_is_gone {
        grace = grace.max(graces.zone);
    }
    let mut due_at = since + grace;
    if state == BrokerState::PlannedDown
        && let Some(until) = facts.maintenance_until_ms
    {
        let left = u64::try_from(until - now.wall_clock_ms).unwrap_or(0);
        due_at = due_at.max(monotonic + Duration::from_millis(left));
    }
    found.due_at = Some(due_at);
    found.is_due = monotonic >= due_at;
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(monotonic: Duration) -> Now {
        Now {
            monotonic,
            wall_clock_ms: monotonic.as_millis() as i64,
        }
    }

    fn well(count: i32) -> Seen {
        let one = || Facts {
            registered: Some(1),
            pod: Pod::Ready,
            node: Node::Ready,
            volume: Volume::Local,
            ..Facts::default()
        };
        Seen {
            sees_registrations: true,
            sees_kubernetes: true,
            is_rollout: false,
            brokers: (0..count).map(|id| (BrokerId(id), one())).collect(),
        }
    }

    fn with(count: i32, change: impl Fn(&mut Facts)) -> Seen {
        let mut seen = well(count);
        let facts = seen.brokers.get_mut(&BrokerId(0)).unwrap();
        facts.registered = None;
        change(facts);
        seen
    }

    /// The state of broker 0 and when it would be due, a minute after all was well.
    fn found(seen: &Seen) -> (BrokerState, Option<Duration>) {
        let mut machine = Machine::default();
        machine.observe(&well(seen.brokers.len() as i32), at(MINUTE));
        let (evidence, _) = machine.observe(seen, at(MINUTE * 2));
        let one = evidence.of(BrokerId(0));
        (
            one.state,
            one.due_at.map(|due| due.saturating_sub(MINUTE * 2)),
        )
    }

    #[test]
    fn each_evidence_has_its_state_and_its_wait() {
        let graces = Graces::default();
        let cut_off = found(&with(4, |_| {}));
        assert_eq!(cut_off, (BrokerState::Suspect, Some(graces.failure)));
        let node_down = found(&with(4, |one| one.node = Node::NotReady));
        assert_eq!(node_down, (BrokerState::Failed, Some(graces.failure)));
        let node_gone = found(&with(4, |one| one.node = Node::Gone));
        assert_eq!(node_gone, (BrokerState::Lost, Some(graces.lost)));
        let disk_elsewhere = found(&with(4, |one| {
            one.node = Node::Gone;
            one.volume = Volume::Remote;
        }));
        assert_eq!(disk_elsewhere, (BrokerState::Failed, Some(graces.failure)));
        let claim_lost = found(&with(4, |one| one.volume = Volume::Lost));
        assert_eq!(claim_lost, (BrokerState::Lost, Some(graces.lost)));
        let restarts = found(&with(4, |one| one.pod = Pod::Deleting));
        assert_eq!(restarts, (BrokerState::PlannedDown, Some(graces.planned)));
        let cordoned = found(&with(4, |one| one.node = Node::Cordoned));
        assert_eq!(cordoned, (BrokerState::PlannedDown, Some(graces.planned)));
        let starts = found(&with(4, |one| one.pod = Pod::Starting));
        assert_eq!(starts, (BrokerState::Starting, Some(graces.failure)));
        let loops = found(&with(4, |one| one.pod = Pod::CrashLooping));
        assert_eq!(loops, (BrokerState::Failed, Some(graces.failure)));
        let maintained = found(&with(4, |one| {
            one.node = Node::Gone;
            one.maintenance_until_ms = Some((MINUTE * 120).as_millis() as i64);
        }));
        assert_eq!(maintained, (BrokerState::PlannedDown, Some(MINUTE * 118)));
        let drained = found(&with(4, |one| one.is_decommissioned = true));
        assert_eq!(drained.0, BrokerState::Draining);
    }

    #[test]
    fn a_whole_zone_is_waited_for_longer() {
        let mut seen = well(6);
        for (id, facts) in &mut seen.brokers {
            facts.zone = Some((id.0 % 3).to_string());
            if id.0 % 3 == 0 {
                facts.registered = None;
                facts.node = Node::Gone;
            }
        }
        let mut machine = Machine::default();
        machine.observe(&well(6), at(MINUTE));
        let (evidence, _) = machine.observe(&seen, at(MINUTE * 2));
        assert_eq!(evidence.frozen, None);
        let due = evidence.of(BrokerId(0)).due_at.unwrap();
        assert_eq!(due, MINUTE * 62);
    }

    #[test]
    fn a_broker_that_flaps_is_waited_for_twice_as_long() {
        let mut machine = Machine::default();
        machine.observe(&well(4), at(MINUTE));
        let gone = with(4, |one| one.node = Node::NotReady);
        for minute in 1..4 {
            machine.observe(&gone, at(MINUTE * (minute * 2)));
            machine.observe(&well(4), at(MINUTE * (minute * 2 + 1)));
        }
        let (evidence, _) = machine.observe(&gone, at(MINUTE * 8));
        assert_eq!(evidence.of(BrokerId(0)).due_at, Some(MINUTE * 28));
    }

    #[test]
    fn two_of_three_freeze_everything() {
        let mut seen = well(3);
        for id in [0, 1] {
            seen.brokers.get_mut(&BrokerId(id)).unwrap().registered = None;
        }
        let mut machine = Machine::default();
        machine.observe(&well(3), at(MINUTE));
        let (evidence, _) = machine.observe(&seen, at(MINUTE * 500));
        assert_eq!(
            evidence.frozen,
            Some(Frozen::TooManyDown { down: 2, all: 3 })
        );
        assert_eq!(evidence.of(BrokerId(0)).state, BrokerState::Unknown);
        assert_eq!(evidence.of(BrokerId(2)).state, BrokerState::Alive);
        assert!(evidence.brokers.values().all(|one| !one.is_due));
    }

    /// The others are not made anew elsewhere the moment that one is back.
    #[test]
    fn the_wait_begins_anew_when_no_longer_too_many_are_down() {
        let without = |ids: &[i32]| {
            let mut seen = well(4);
            for id in ids {
                seen.brokers.get_mut(&BrokerId(*id)).unwrap().registered = None;
            }
            seen
        };
        let Graces {
            failure, settled, ..
        } = Graces::default();
        let mut machine = Machine::default();
        machine.observe(&well(4), at(MINUTE));
        machine.observe(&without(&[0, 1]), at(MINUTE * 2));
        let later = MINUTE * 500;
        machine.observe(&without(&[0, 1]), at(later));
        let one = without(&[0]);
        let (evidence, _) = machine.observe(&one, at(later + settled / 2));
        assert!(evidence.frozen.is_some());
        let (evidence, _) = machine.observe(&one, at(later + settled));
        assert_eq!(evidence.frozen, None);
        assert!(!evidence.of(BrokerId(0)).is_due);
        let (evidence, _) = machine.observe(&one, at(later + settled + failure));
        assert!(evidence.of(BrokerId(0)).is_due);
        // Nothing is waited for when all are back.
        machine.observe(&without(&[0, 1]), at(later * 2));
        let (evidence, _) = machine.observe(&well(4), at(later * 2 + settled / 2));
        assert_eq!(evidence.frozen, None);
    }

    fn facts() -> impl Strategy<Value = Facts> {
        let pod = prop_oneof![
            Just(Pod::Unknown),
            Just(Pod::Starting),
            Just(Pod::Ready),
            Just(Pod::CrashLooping),
            Just(Pod::Deleting),
            Just(Pod::Unplaceable)
        ];
        let node = prop_oneof![
            Just(Node::Unknown),
            Just(Node::Ready),
            Just(Node::NotReady),
            Just(Node::Cordoned),
            Just(Node::Gone)
        ];
        let volume = prop_oneof![
            Just(Volume::Unknown),
            Just(Volume::Local),
            Just(Volume::Remote),
            Just(Volume::Lost)
        ];
        let registered = proptest::option::weighted(0.8, 1..3_i64);
        (registered, pod, node, volume, prop::bool::weighted(0.1)).prop_map(
            |(registered, pod, node, volume, is_decommissioned)| Facts {
                registered,
                pod,
                node,
                volume,
                is_decommissioned,
                ..Facts::default()
            },
        )
    }

    proptest! {
        /// Lost needs its evidence; whoever is registered is never due; nothing is due that was not gone for its wait; and
        /// nothing is due while we cannot see or too many are away.
        #[test]
        fn nothing_is_concluded_without_evidence(
            looks in prop::collection::vec((prop::collection::vec(facts(), 5), any::<bool>(), 1..600_u64), 1..20)
        ) {
            let mut machine = Machine::default();
            let mut now = Duration::ZERO;
            let mut gone_since: BTreeMap<BrokerId, Duration> = BTreeMap::new();
            for (brokers, sees, seconds) in looks {
                now += Duration::from_secs(seconds);
                let seen = Seen {
                    sees_registrations: sees,
                    sees_kubernetes: true,
                    is_rollout: false,
                    brokers: (0..).map(BrokerId).zip(brokers).collect(),
                };
                let (evidence, _) = machine.observe(&seen, at(now));
                if !sees {
                    prop_assert!(evidence.frozen.is_some());
                    prop_assert!(evidence.brokers.values().all(|one| one.state == BrokerState::Unknown && !one.is_due));
                    continue;
                }
                for (id, facts) in &seen.brokers {
                    if facts.registered.is_some() {
                        gone_since.remove(id);
                    } else {
                        gone_since.entry(*id).or_insert(now);
                    }
                    let found = evidence.of(*id);
                    prop_assert!(!(found.is_due && facts.registered.is_some()));
                    if found.state == BrokerState::Lost {
                        let proven = facts.volume == Volume::Lost
                            || facts.pod == Pod::Unplaceable
                            || (facts.node == Node::Gone && facts.volume == Volume::Local);
                        prop_assert!(proven);
                    }
                    if found.is_due && found.state != BrokerState::Draining {
                        let waited = now.checked_sub(gone_since[id]).unwrap();
                        prop_assert!(waited >= Graces::default().lost);
                        prop_assert!(found.state == BrokerState::Lost || waited >= Graces::default().failure);
                    }
                    if evidence.frozen.is_some() {
                        prop_assert!(!found.is_due);
                    }
                }
            }
        }
    }
}
