//! The machine against a cluster made of plain data, which copies, finishes and loses what it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::balance::Reason;
use barnabas_core::ids::{BrokerId, TopicName, TopicPartition};
use barnabas_core::time::Now;

use super::*;
use crate::admin::{BrokerNode, ConfigOp, PartitionMetadata, Reassignment};
use crate::cluster::{LogDirsView, TopicView};

const RATE_KEYS: [&str; 2] = [throttles::LEADER_RATE, throttles::FOLLOWER_RATE];
const BYTES: u64 = 1000;

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(*id)).collect()
}

/// Kafka as far as moves see it.
struct Fake {
    view: ClusterView,
    rates: BTreeMap<BrokerId, DynamicRates>,
    evidence: Evidence,
    wishes: Wishes,
    order: Order,
    overloaded: BTreeSet<BrokerId>,
    kept: Record,
    now: Duration,
    /// Brokers that copy nothing.
    stalled: BTreeSet<BrokerId>,
    /// Bytes that each move copies in a second.
    speed: u64,
    /// Most moves into one broker that ever ran.
    most_into: usize,
    events: Vec<&'static str>,
}

impl Fake {
    /// Brokers 1..=n; partitions of `t` on brokers in turn.
    fn new(brokers: i32, factor: i32, partitions: i32) -> Self {
        let mut fake = Self {
            view: ClusterView::default(),
            rates: BTreeMap::new(),
            evidence: Evidence::default(),
            wishes: Wishes::default(),
            order: Order::Run,
            overloaded: BTreeSet::new(),
            kept: Record::default(),
            now: Duration::from_secs(1000),
            stalled: BTreeSet::new(),
            speed: BYTES / 4,
            most_into: 0,
            events: Vec::new(),
        };
        let found = (0..partitions).map(|partition| {
            let replicas: Vec<i32> = (0..factor)
                .map(|position| (partition + position) % brokers + 1)
                .collect();
            PartitionMetadata {
                partition,
                leader: Some(BrokerId(replicas[0])),
                leader_epoch: 0,
                replicas: ids(&replicas),
                isr: ids(&replicas),
                offline: Vec::new(),
            }
        });
        let topic = TopicView {
            name: "t".into(),
            id: None,
            is_internal: false,
            partitions: found.collect(),
            overrides: BTreeMap::new(),
            min_insync_replicas: 1,
        };
        fake.view.topics.insert("t".into(), Arc::new(topic));
        for id in 1..=brokers {
            fake.add_broker(id);
        }
        fake
    }

    fn add_broker(&mut self, id: i32) {
        let node = BrokerNode {
            id: BrokerId(id),
            host: "localhost".to_owned(),
            port: 9092,
            rack: None,
        };
        self.view.brokers.insert(BrokerId(id), node);
        self.rates.entry(BrokerId(id)).or_default();
        self.evidence
            .brokers
            .insert(BrokerId(id), BrokerEvidence::ALIVE);
        let mut dirs = LogDirsView {
            total_bytes: Some(1_000_000),
            usable_bytes: Some(900_000),
            ..LogDirsView::default()
        };
        for one in self.partitions() {
            if one.replicas.contains(&BrokerId(id)) {
                dirs.replicas
                    .insert(TopicPartition::new("t", one.partition), BYTES);
            }
        }
        self.view.log_dirs.insert(BrokerId(id), Arc::new(dirs));
        self.view.version += 1;
    }

    fn lose(&mut self, id: i32, state: BrokerState, is_due: bool) {
        let id = BrokerId(id);
        self.view.brokers.remove(&id);
        self.view.log_dirs.remove(&id);
        let evidence = BrokerEvidence {
            is_due,
            ..BrokerEvidence::of(state)
        };
        self.evidence.brokers.insert(id, evidence);
        self.change(|one| {
            one.isr.retain(|other| *other != id);
            if one.replicas.contains(&id) {
                one.offline = vec![id];
            }
            if one.leader == Some(id) {
                one.leader = one.isr.first().copied();
            }
        });
    }

    fn partitions(&self) -> Vec<PartitionMetadata> {
        self.view.topics["t"].partitions.clone()
    }

    fn change(&mut self, change: impl FnMut(&mut PartitionMetadata)) {
        let topic = self.view.topics.get_mut("t").unwrap();
        Arc::make_mut(topic).partitions.iter_mut().for_each(change);
        self.view.version += 1;
    }

    fn step(&self, machine: &mut Machine) -> Step {
        let alive = |id: &BrokerId| self.view.brokers.contains_key(id);
        let rates = self.rates.iter().filter(|(id, _)| alive(id));
        let rates = rates.map(|(id, rates)| (*id, rates.clone())).collect();
        machine.step(&Inputs {
            view: &self.view,
            evidence: &self.evidence,
            rates: &rates,
            overloaded: &self.overloaded,
            traffic: None,
            wishes: &self.wishes,
            order: self.order,
            now: Now {
                monotonic: self.now,
                wall_clock_ms: self.now.as_millis() as i64,
            },
        })
    }

    fn apply(&mut self, action: &Action) {
        match action {
            Action::Save(record) => self.kept = record.clone(),
            Action::Configure(changes) => changes.iter().for_each(|change| self.configure(change)),
            Action::Reassign(all) => all.iter().for_each(|one| self.reassign(one)),
            Action::Elect(partitions) => {
                let partitions = partitions.clone();
                self.change(|one| {
                    let id = TopicPartition::new("t", one.partition);
                    if partitions.contains(&id) {
                        one.leader = one.replicas.first().copied();
                    }
                });
            }
        }
        self.view.version += 1;
    }

    fn configure(&mut self, change: &ConfigChanges) {
        for (key, op) in &change.changes {
            match &change.resource {
                ConfigResource::Broker(id) => {
                    assert!(self.view.brokers.contains_key(id), "{id} cannot be asked");
                    let rates = self.rates.get_mut(id).unwrap();
                    let value = match op {
                        ConfigOp::Set(value) => Some(value.clone()),
                        ConfigOp::Delete => None,
                        ConfigOp::Append(_) | ConfigOp::Subtract(_) => panic!("not a list"),
                    };
                    if key == RATE_KEYS[0] {
                        rates.leader = value;
                    } else {
                        rates.follower = value;
                    }
                }
                ConfigResource::Topic(name) => {
                    let mut entries = throttles::entries(&self.view, name, key);
                    let list = |text: &str| -> BTreeSet<String> {
                        text.split(',').map(str::to_owned).collect()
                    };
                    match op {
                        ConfigOp::Append(text) => entries.extend(list(text)),
                        ConfigOp::Subtract(text) => entries.retain(|one| !list(text).contains(one)),
                        ConfigOp::Delete => entries.clear(),
                        ConfigOp::Set(_) => panic!("lists are shared"),
                    }
                    let topic = Arc::make_mut(self.view.topics.get_mut(name).unwrap());
                    if *op == ConfigOp::Delete {
                        topic.overrides.remove(key);
                    } else {
                        let text: Vec<String> = entries.into_iter().collect();
                        topic.overrides.insert(key.clone(), text.join(","));
                    }
                }
                ConfigResource::AllBrokers => panic!("never"),
            }
        }
    }

    fn reassign(&mut self, one: &Reassign) {
        let index = one.partition.partition as usize;
        let found = &self.partitions()[index];
        let origin = self
            .view
            .reassignments
            .get(&one.partition)
            .map_or(found.replicas.clone(), Reassignment::origin);
        let Some(target) = &one.target else {
            let cancelled = self.view.reassignments.remove(&one.partition);
            for id in cancelled.map(|one| one.adding).unwrap_or_default() {
                self.set_bytes(id, &one.partition, None);
            }
            self.change(|found| {
                if found.partition as usize == index {
                    found.replicas.clone_from(&origin);
                    found.isr.retain(|id| origin.contains(id));
                }
            });
            return;
        };
        let adding: Vec<BrokerId> = target
            .iter()
            .filter(|id| !origin.contains(id))
            .copied()
            .collect();
        let removing: Vec<BrokerId> = origin
            .iter()
            .filter(|id| !target.contains(id))
            .copied()
            .collect();
        let replicas: Vec<BrokerId> = target.iter().chain(&removing).copied().collect();
        self.change(|found| {
            if found.partition as usize == index {
                found.replicas.clone_from(&replicas);
            }
        });
        let running = Reassignment {
            replicas,
            adding,
            removing,
        };
        self.view
            .reassignments
            .insert(one.partition.clone(), running);
    }

    fn set_bytes(&mut self, id: BrokerId, partition: &TopicPartition, bytes: Option<u64>) {
        if let Some(dirs) = self.view.log_dirs.get_mut(&id) {
            let replicas = &mut Arc::make_mut(dirs).replicas;
            match bytes {
                Some(bytes) => drop(replicas.insert(partition.clone(), bytes)),
                None => drop(replicas.remove(partition)),
            }
        }
    }

    /// A second passes: copies go on, and those that are whole are done.
    fn pass(&mut self) {
        self.now += Duration::from_secs(1);
        let mut into: BTreeMap<BrokerId, usize> = BTreeMap::new();
        for (partition, running) in self.view.reassignments.clone() {
            for id in &running.adding {
                *into.entry(*id).or_default() += 1;
                let bytes = self.view.bytes_on(*id, &partition).unwrap_or(0);
                if !self.stalled.contains(id) && self.view.brokers.contains_key(id) {
                    self.set_bytes(*id, &partition, Some((bytes + self.speed).min(BYTES)));
                }
            }
            let target = running.target();
            let is_whole =
                |id: &BrokerId| self.view.bytes_on(*id, &partition).unwrap_or(0) >= BYTES;
            if target.iter().all(is_whole) {
                self.view.reassignments.remove(&partition);
                for id in &running.removing {
                    self.set_bytes(*id, &partition, None);
                }
                self.change(|found| {
                    if found.partition == partition.partition {
                        found.replicas.clone_from(&target);
                        found.isr.clone_from(&target);
                        found.offline.clear();
                        if found.leader.is_none_or(|id| !target.contains(&id)) {
                            found.leader = target.first().copied();
                        }
                    }
                });
            }
        }
        self.most_into = self.most_into.max(into.into_values().max().unwrap_or(0));
        self.view.version += 1;
    }

    fn turn(&mut self, machine: &mut Machine) -> Step {
        let step = self.step(machine);
        self.events
            .extend(step.events.iter().map(|event| event.reason));
        for action in &step.actions {
            self.apply(action);
        }
        self.pass();
        step
    }

    /// Until nothing is left to do.
    fn settle(&mut self, machine: &mut Machine) {
        for _ in 0..2000 {
            if self.turn(machine).status.is_idle {
                return;
            }
        }
        panic!("it never ends: {:?}", self.step(machine));
    }

    fn has_throttles(&self) -> bool {
        let rates = self.rates.values();
        let mut rates = rates.filter(|one| **one != DynamicRates::default());
        rates.next().is_some() || !self.view.topics["t"].overrides.is_empty()
    }

    fn replicas(&self) -> Vec<Vec<BrokerId>> {
        let partitions = self.partitions().into_iter();
        partitions.map(|one| one.replicas).collect()
    }
}

fn settings() -> MoverSettings {
    MoverSettings {
        mode: Mode::HealOnly,
        ..MoverSettings::default()
    }
}

fn machine(settings: MoverSettings) -> Machine {
    Machine::new(settings, None)
}

#[test]
fn a_lost_broker_is_healed_exactly_and_leaves_no_throttle() {
    let mut fake = Fake::new(4, 3, 24);
    fake.lose(2, BrokerState::Failed, true);
    let before = fake.replicas();
    let mut machine = machine(settings());
    let first = fake.turn(&mut machine);
    assert_eq!(first.events[0].reason, "BrokerFailed");
    assert!(fake.has_throttles());
    // The record and throttles come before the first move.
    let order: Vec<_> = first.actions.iter().map(std::mem::discriminant).collect();
    assert_eq!(order.len(), 3);
    assert!(matches!(first.actions[0], Action::Save(_)));
    assert!(matches!(first.actions[1], Action::Configure(_)));
    assert!(matches!(first.actions[2], Action::Reassign(_)));
    fake.settle(&mut machine);
    assert!(!fake.has_throttles());
    assert_eq!(fake.kept, Record::default());
    assert_eq!(fake.most_into, 5);
    for (before, after) in before.iter().zip(fake.replicas()) {
        assert!(!after.contains(&BrokerId(2)));
        for (old, new) in before.iter().zip(&after) {
            assert!(old == new || *old == BrokerId(2), "{before:?} -> {after:?}");
        }
    }
    assert!(fake.events.contains(&"HealStarted") && fake.events.contains(&"HealFinished"));
}

/// With the record and without it; before and after each action.
#[test]
fn a_crash_at_any_point_ends_in_the_same_place_without_throttles() {
    for keeps_record in [true, false] {
        for crash in 0..60 {
            let mut fake = Fake::new(4, 3, 12);
            fake.speed = BYTES / 2;
            fake.lose(2, BrokerState::Lost, true);
            let mut life = machine(settings());
            let mut done = 0;
            let mut crashed = false;
            for _ in 0..60 {
                let step = fake.step(&mut life);
                for action in &step.actions {
                    if done == crash {
                        crashed = true;
                        break;
                    }
                    fake.apply(action);
                    done += 1;
                }
                if crashed {
                    break;
                }
                fake.pass();
            }
            let kept = keeps_record.then(|| fake.kept.clone());
            let kept = kept.filter(|kept| *kept != Record::default());
            let mut next = Machine::new(settings(), kept);
            fake.settle(&mut next);
            assert!(
                !fake.has_throttles(),
                "crash {crash}, record {keeps_record}"
            );
            for replicas in fake.replicas() {
                assert_eq!(replicas.len(), 3, "crash {crash}");
                assert!(!replicas.contains(&BrokerId(2)), "crash {crash}");
            }
            if !crashed {
                break;
            }
        }
    }
}

#[test]
fn what_a_broker_was_throttled_to_before_comes_back() {
    let mut fake = Fake::new(4, 3, 12);
    let former = DynamicRates {
        leader: Some("777".to_owned()),
        follower: None,
    };
    fake.rates.insert(BrokerId(1), former.clone());
    fake.lose(2, BrokerState::Lost, true);
    let mut machine = machine(settings());
    fake.turn(&mut machine);
    assert_eq!(
        fake.rates[&BrokerId(1)].leader.as_deref(),
        Some("209715200")
    );
    fake.settle(&mut machine);
    assert_eq!(fake.rates[&BrokerId(1)], former);
}

#[test]
fn reassignments_of_others_are_left_alone_and_count() {
    let mut fake = Fake::new(4, 3, 24);
    fake.stalled.extend(ids(&[4]));
    let foreign: Vec<TopicPartition> = fake
        .partitions()
        .iter()
        .filter(|one| !one.replicas.contains(&BrokerId(4)) && !one.replicas.contains(&BrokerId(2)))
        .map(|one| TopicPartition::new("t", one.partition))
        .collect();
    // All of them are on 1, 2, 3 or beyond: take those that 2 leads none of, and send them to 4.
    let all = fake.partitions();
    let lacks_four = all
        .iter()
        .filter(|one| !one.replicas.contains(&BrokerId(4)));
    let taken: Vec<TopicPartition> = lacks_four
        .take(5)
        .map(|one| TopicPartition::new("t", one.partition))
        .collect();
    assert!(foreign.is_empty());
    for partition in &taken {
        fake.reassign(&Reassign {
            partition: partition.clone(),
            target: Some(ids(&[4, 1, 3])),
        });
    }
    fake.lose(2, BrokerState::Lost, true);
    let mut machine = machine(settings());
    for _ in 0..50 {
        let step = fake.turn(&mut machine);
        assert_eq!(step.status.foreign, 5);
        for action in step.actions {
            if let Action::Reassign(all) = action {
                for one in all {
                    assert!(!taken.contains(&one.partition));
                    // Broker 4 has its five already.
                    let was = &fake.view.reassignments.get(&one.partition);
                    assert!(was.is_none_or(|was| !was.adding.contains(&BrokerId(4))));
                }
            }
        }
    }
    assert!(fake.events.contains(&"ForeignReassignment"));
    for partition in &taken {
        assert!(fake.view.reassignments.contains_key(partition));
    }
}

#[test]
fn a_stalled_move_is_tried_elsewhere_once() {
    let mut fake = Fake::new(5, 2, 10);
    fake.lose(1, BrokerState::Lost, true);
    fake.stalled.extend(ids(&[3]));
    let mut machine = machine(settings());
    fake.settle(&mut machine);
    assert!(fake.events.contains(&"MoveStalled"));
    for replicas in fake.replicas() {
        assert!(!replicas.contains(&BrokerId(1)));
    }
    assert!(!fake.has_throttles());
}

#[test]
fn a_move_to_a_disk_that_fills_up_goes_elsewhere() {
    let mut fake = Fake::new(5, 2, 10);
    fake.speed = BYTES / 5;
    fake.lose(1, BrokerState::Lost, true);
    let mut machine = machine(settings());
    fake.turn(&mut machine);
    let target = {
        let mut running = fake.view.reassignments.values();
        running.next().unwrap().adding[0]
    };
    let on_it = |fake: &Fake| {
        let all = fake.replicas();
        all.iter().filter(|one| one.contains(&target)).count()
    };
    // Something else takes what was left.
    let dirs = fake.view.log_dirs.get_mut(&target).unwrap();
    Arc::make_mut(dirs).usable_bytes = Some(BYTES / 10);
    fake.turn(&mut machine);
    assert!(fake.events.contains(&"TargetDiskFull"));
    let before = on_it(&fake);
    fake.settle(&mut machine);
    assert!(on_it(&fake) <= before);
    for replicas in fake.replicas() {
        assert!(!replicas.contains(&BrokerId(1)));
    }
    assert!(!fake.has_throttles());
}

#[test]
fn a_broker_that_returns_early_has_its_copies_taken_back_and_late_ones_finish() {
    for (seconds, cancels) in [(1, true), (4, false)] {
        let mut fake = Fake::new(4, 3, 4);
        fake.speed = BYTES / 5;
        fake.lose(2, BrokerState::Failed, true);
        let mut machine = machine(settings());
        for _ in 0..seconds {
            fake.turn(&mut machine);
        }
        fake.add_broker(2);
        let step = fake.turn(&mut machine);
        let cancelled = step.actions.iter().any(|action| {
            matches!(action, Action::Reassign(all) if all.iter().any(|one| one.target.is_none()))
        });
        assert_eq!(cancelled, cancels, "after {seconds} s");
        fake.change(|one| one.isr.clone_from(&one.replicas));
        fake.settle(&mut machine);
        assert!(!fake.has_throttles());
        let on_two = fake
            .replicas()
            .iter()
            .flatten()
            .filter(|id| id.0 == 2)
            .count();
        assert_eq!(on_two > 0, cancels);
    }
}

#[test]
fn an_order_to_cancel_takes_everything_back() {
    let mut fake = Fake::new(4, 3, 12);
    fake.speed = 1;
    let before = fake.replicas();
    fake.lose(2, BrokerState::Lost, true);
    let mut machine = machine(settings());
    fake.turn(&mut machine);
    assert!(!fake.view.reassignments.is_empty());
    fake.order = Order::Cancel;
    fake.settle(&mut machine);
    // As Kafka leaves them: the same brokers, those that would have stayed first.
    let sorted = |mut all: Vec<Vec<BrokerId>>| {
        for replicas in &mut all {
            replicas.sort();
        }
        all
    };
    assert_eq!(sorted(fake.replicas()), sorted(before));
    assert!(!fake.has_throttles());
}

#[test]
fn nothing_moves_for_a_broker_whose_wait_is_not_over_nor_when_nobody_can_see() {
    let full = MoverSettings::default().at_once();
    let mut fake = Fake::new(4, 3, 13);
    fake.lose(2, BrokerState::Failed, false);
    let mut machine = machine(full.clone());
    for _ in 0..30 {
        assert_eq!(fake.turn(&mut machine).actions, []);
    }
    let mut fake = Fake::new(4, 3, 12);
    fake.lose(2, BrokerState::Lost, true);
    fake.evidence.frozen = Some(Frozen::Blind("ZooKeeper"));
    let step = fake.turn(&mut machine);
    assert_eq!(step.actions, []);
    assert_eq!(step.status.frozen, Some(Frozen::Blind("ZooKeeper")));
}

#[test]
fn without_a_broker_to_take_them_lost_replicas_are_told_of_once() {
    let mut fake = Fake::new(3, 3, 6);
    fake.lose(2, BrokerState::Lost, true);
    let mut machine = machine(MoverSettings::default().at_once());
    for _ in 0..5 {
        let step = fake.turn(&mut machine);
        assert_eq!((step.actions.len(), step.status.stuck.len()), (0, 6));
    }
    let told = fake.events.iter().filter(|one| **one == "HealImpossible");
    assert_eq!(told.count(), 1);
    // A broker comes, and it begins at once.
    fake.add_broker(9);
    fake.turn(&mut machine);
    assert!(!fake.view.reassignments.is_empty());
}

#[test]
fn a_dry_run_changes_nothing_and_tells_what_it_would() {
    let mut fake = Fake::new(4, 3, 12);
    fake.lose(2, BrokerState::Lost, true);
    let mut machine = machine(MoverSettings {
        mode: Mode::DryRun,
        ..MoverSettings::default()
    });
    let step = fake.turn(&mut machine);
    assert_eq!(step.actions, []);
    assert_eq!(step.status.planned.len(), 9);
    let reasons = step.status.planned.iter().map(|one| one.reason);
    assert!(
        reasons
            .into_iter()
            .all(|reason| reason == Reason::NodeFailure)
    );
}

#[test]
fn a_new_broker_fills_up_when_it_is_settled_and_rests_afterwards() {
    let mut fake = Fake::new(3, 3, 12);
    fake.add_broker(4);
    let fresh = BrokerEvidence {
        is_settled: false,
        ..BrokerEvidence::ALIVE
    };
    fake.evidence.brokers.insert(BrokerId(4), fresh);
    let mut machine = machine(MoverSettings::default());
    for _ in 0..10 {
        assert_eq!(fake.turn(&mut machine).actions, []);
    }
    fake.evidence
        .brokers
        .insert(BrokerId(4), BrokerEvidence::ALIVE);
    fake.settle(&mut machine);
    let on_new = fake
        .replicas()
        .iter()
        .flatten()
        .filter(|id| id.0 == 4)
        .count();
    assert_eq!(on_new, 9);
    assert!(fake.events.contains(&"SpreadStarted") && fake.events.contains(&"SpreadFinished"));
    assert!(!fake.has_throttles());
    assert_eq!(fake.kept.cool_until_ms.len(), 9);
}

#[test]
fn replicas_are_added_and_taken_as_wished() {
    let mut fake = Fake::new(4, 2, 8);
    let mut machine = machine(settings());
    fake.wishes.replicas.insert(TopicName::from("t"), 3);
    fake.settle(&mut machine);
    assert!(fake.replicas().iter().all(|one| one.len() == 3));
    fake.wishes.replicas.insert(TopicName::from("t"), 1);
    fake.settle(&mut machine);
    assert!(fake.replicas().iter().all(|one| one.len() == 1));
    fake.wishes.replicas.insert(TopicName::from("t"), 9);
    let refused = fake.turn(&mut machine).status.refused;
    assert_eq!(
        refused["t"].to_string(),
        "9 replicas are more than the 4 brokers that could have one"
    );
    assert!(!fake.has_throttles());
}

#[test]
fn a_disk_that_would_be_too_full_gets_nothing() {
    let mut fake = Fake::new(4, 3, 12);
    fake.lose(2, BrokerState::Lost, true);
    for dirs in fake.view.log_dirs.values_mut() {
        Arc::make_mut(dirs).usable_bytes = Some(200_000 + BYTES);
    }
    let mut machine = machine(settings());
    fake.turn(&mut machine);
    assert!(fake.most_into <= 1, "{}", fake.most_into);
}

#[test]
fn a_throttle_halves_where_clients_suffer_and_grows_elsewhere() {
    let mut fake = Fake::new(4, 3, 12);
    fake.speed = 1;
    fake.lose(2, BrokerState::Lost, true);
    fake.overloaded.insert(BrokerId(3));
    let mut machine = machine(settings());
    for _ in 0..33 {
        fake.turn(&mut machine);
    }
    let rate = |id: i32| fake.rates[&BrokerId(id)].follower.clone().unwrap();
    assert_eq!(rate(3), (100_u64 << 20).to_string());
    assert_eq!(rate(4), (220_u64 << 20).to_string());
}

#[test]
fn leaders_go_back_when_everything_is_quiet() {
    let mut fake = Fake::new(3, 3, 9);
    fake.change(|one| one.leader = Some(BrokerId(1)));
    let mut machine = machine(MoverSettings::default());
    let mut seconds = 0;
    while fake.turn(&mut machine).actions.is_empty() {
        seconds += 1;
        assert!(seconds < 600);
    }
    assert!(seconds >= 300, "{seconds}");
    let mut partitions = fake.partitions().into_iter();
    assert!(partitions.all(|one| one.leader == one.replicas.first().copied()));
}

#[test]
fn figures_are_in_the_text_format_of_prometheus() {
    let mut fake = Fake::new(4, 3, 12);
    fake.lose(2, BrokerState::Lost, true);
    let mut machine = machine(settings());
    fake.turn(&mut machine);
    let status = fake.turn(&mut machine).status;
    let text = metrics(&status, fake.now);
    assert!(text.contains("barnabas_moves_running 9\n"), "{text}");
    assert!(text.contains("barnabas_broker_state{broker=\"2\",state=\"Lost\"} 1\n"));
    assert!(text.contains("barnabas_throttle_bytes_per_second{broker=\"1\"} 209715200\n"));
}
