//! The one who decides what moves: from what is known now to what is to be done next.
//!
//! [`Machine::step`] is called again and again with the state of the cluster as it is found. It waits for nothing and
//! remembers little: what runs is what Kafka says runs, what is done is what replicas say. What it asks for may fail or
//! be done twice; the next step sees what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use barnabas_core::balance::{
    self, FactorError, Move, Pass, Plan, Rates, Reason, Stuck, change_replication_factor,
};
use barnabas_core::ids::{BrokerId, TopicName, TopicPartition};
use barnabas_core::time::Now;

use super::evidence::{BrokerState, Evidence};
use super::record::{Record, RecordedMove, parse_partition};
use super::report::{Event, Subject};
use super::settings::{Mode, MoverSettings};
use super::snapshot::{Marks, snapshot};
use super::throttles::{self, Adaptive, DynamicRates};
use super::waves::{Load, Wait};
use crate::admin::{ConfigChanges, Reassign};
use crate::cluster::ClusterView;

/// What users and their Topics ask for; always the whole of it, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Topics and the replicas that each of their partitions shall have.
    pub replicas: BTreeMap<TopicName, usize>,
    /// Topics with `rackSpread: Required`.
    pub rack_required: BTreeSet<TopicName>,
    /// Topics that are not to be touched.
    pub paused: BTreeSet<TopicName>,
}

/// What a person has ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Run,
    /// Nothing new is begun; what runs finishes.
    Off,
    /// What we began is taken back.
    Cancel,
}

/// What a step looks at.
pub struct Inputs<'a> {
    pub view: &'a ClusterView,
    pub evidence: &'a Evidence,
    /// Rates set on live brokers. Brokers that could not be asked are missing.
    pub rates: &'a BTreeMap<BrokerId, DynamicRates>,
    /// Brokers whose clients suffer, if somebody measures that.
    pub overloaded: &'a BTreeSet<BrokerId>,
    /// Bytes per second of partitions, if brokers tell.
    pub traffic: Option<&'a BTreeMap<TopicPartition, Rates>>,
    pub wishes: &'a Wishes,
    pub order: Order,
    pub now: Now,
}

/// What is to be done, in this order. When one fails the rest is left for the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Keep the record before going on.
    Save(Record),
    Configure(Vec<ConfigChanges>),
    Reassign(Vec<Reassign>),
    Elect(Vec<TopicPartition>),
}

/// What came of looking.
#[derive(Debug, Default)]
pub struct Step {
    pub actions: Vec<Action>,
    pub events: Vec<Event>,
    pub status: Status,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub running: Vec<RunningMove>,
    /// Reassignments that somebody else began.
    pub foreign: usize,
    /// Moves that wait for their turn; in a dry run those that would be made.
    pub planned: Vec<Move>,
    pub stuck: Vec<Stuck>,
    /// Topics whose replicas cannot be as many as asked for, and why.
    pub refused: BTreeMap<TopicName, FactorError>,
    pub score: u64,
    /// Why nothing begins.
    pub frozen: Option<String>,
    pub throttles: BTreeMap<BrokerId, u64>,
    pub brokers: BTreeMap<BrokerId, BrokerState>,
    /// When brokers that are gone will be healed, on the monotonic clock.
    pub due_at: BTreeMap<BrokerId, Duration>,
    pub finished: BTreeMap<(Reason, Outcome), u64>,
    pub bytes_moved: BTreeMap<Reason, u64>,
    pub plan_seconds: f64,
    /// Nothing runs, nothing waits, no throttle of ours is left.
    pub is_idle: bool,
}

/// A move of ours and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningMove {
    pub planned: Move,
    pub bytes_done: u64,
}

/// How a move ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    Done,
    Cancelled,
    /// Somebody else took it over or took it back.
    Gone,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Gone => "gone",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    bytes: u64,
    at: Duration,
    /// Told of, and left to run.
    is_given_up: bool,
}

/// See the module.
pub struct Machine {
    pub(super) settings: MoverSettings,
    record: Record,
    saved: Record,
    /// Brokers that may have throttles from a life that nobody remembers.
    leftovers: BTreeSet<BrokerId>,
    looks_for_leftovers: bool,
    has_looked: bool,
    adaptive: Adaptive,
    progress: BTreeMap<TopicPartition, Progress>,
    /// Where copies stalled.
    avoid: BTreeMap<TopicPartition, BTreeSet<BrokerId>>,
    /// Taken back by us.
    cancelling: BTreeSet<TopicPartition>,
    /// When reassignments were last seen running.
    last_running: BTreeMap<TopicPartition, Duration>,
    foreign: BTreeSet<TopicPartition>,
    /// Moves for the sake of racks, new brokers or balance, as planned.
    queue: Vec<Move>,
    windows: u32,
    window_at: Option<Duration>,
    balanced_at: Option<Duration>,
    imbalanced_since: Option<Duration>,
    states: BTreeMap<BrokerId, BrokerState>,
    stuck_told: bool,
    drained_told: BTreeSet<BrokerId>,
    healing: BTreeSet<Reason>,
    /// What the last score and empty plan were made of.
    scored: Option<(u64, u64)>,
    finished: BTreeMap<(Reason, Outcome), u64>,
    bytes_moved: BTreeMap<Reason, u64>,
}

impl Machine {
    /// `record` is what was kept; nothing if that is not known.
    pub fn new(settings: MoverSettings, record: Option<Record>) -> Self {
        let looks_for_leftovers = record.is_none();
        let record = record.unwrap_or_default();
        Self {
            settings,
            saved: record.clone(),
            record,
            leftovers: BTreeSet::new(),
            looks_for_leftovers,
            has_looked: false,
            adaptive: Adaptive::default(),
            progress: BTreeMap::new(),
            avoid: BTreeMap::new(),
            cancelling: BTreeSet::new(),
            last_running: BTreeMap::new(),
            foreign: BTreeSet::new(),
            queue: Vec::new(),
            windows: 0,
            window_at: None,
            balanced_at: None,
            imbalanced_since: None,
            states: BTreeMap::new(),
            stuck_told: false,
            drained_told: BTreeSet::new(),
            healing: BTreeSet::new(),
            scored: None,
            finished: BTreeMap::new(),
            bytes_moved: BTreeMap::new(),
        }
    }

    /// One look, and what follows from it.
    pub fn step(&mut self, inputs: &Inputs<'_>) -> Step {
        let mut step = Step::default();
        let now = inputs.now.monotonic;
        self.note_states(inputs, &mut step);
        let running = self.take_stock(inputs, &mut step);
        if !self.has_looked {
            self.has_looked = true;
            if self.looks_for_leftovers && throttles::has_lists(inputs.view) {
                let view = inputs.view;
                self.leftovers = view.brokers.keys().copied().collect();
                self.leftovers.extend(inputs.evidence.brokers.keys());
            } else {
                self.looks_for_leftovers = false;
            }
        }
        let cancelled = self.cancellations(inputs, &running, &mut step);
        let mut starting = Vec::new();
        let may_begin = inputs.evidence.frozen.is_none()
            && inputs.order == Order::Run
            && self.settings.mode != Mode::Off;
        if may_begin {
            starting = self.choose(inputs, &running, &mut step);
        } else {
            self.queue.clear();
        }
        let begins = self.settings.mode != Mode::DryRun;
        if !begins {
            // All of it, in turn or not.
            starting.append(&mut step.status.planned);
            step.status.planned = std::mem::take(&mut starting);
        }
        let goes_on: Vec<Move> = running
            .iter()
            .filter(|one| !cancelled.contains(&one.partition))
            .chain(&starting)
            .cloned()
            .collect();
        let active = self.adaptive.rates(
            goes_on.iter().filter(|one| one.adding().next().is_some()),
            inputs.view,
            inputs.overloaded,
            &self.settings,
            now,
        );
        self.act(inputs, &goes_on, &starting, &cancelled, &active, &mut step);
        if may_begin && begins && starting.is_empty() {
            self.elect(inputs, &running, &mut step);
        }
        self.summarize(inputs, running, active, &mut step);
        step
    }

    fn note_states(&mut self, inputs: &Inputs<'_>, step: &mut Step) {
        for (id, found) in &inputs.evidence.brokers {
            let before = self.states.insert(*id, found.state);
            if before == Some(found.state) || before.is_none() && found.state == BrokerState::Alive
            {
                continue;
            }
            let subject = Subject::Broker(*id);
            let event = match found.state {
                BrokerState::Suspect => {
                    Some(Event::warning("BrokerSuspect", subject, "it may be down"))
                }
                BrokerState::Failed => Some(Event::warning("BrokerFailed", subject, "it is down")),
                BrokerState::Lost => {
                    Some(Event::warning("BrokerLost", subject, "it is gone for good"))
                }
                BrokerState::Draining => Some(Event::normal(
                    "DrainStarted",
                    subject,
                    "its replicas move elsewhere",
                )),
                BrokerState::Alive
                    if matches!(
                        before,
                        Some(BrokerState::Suspect | BrokerState::Failed | BrokerState::Lost)
                    ) =>
                {
                    Some(Event::normal(
                        "BrokerReturned",
                        subject,
                        "it is registered again",
                    ))
                }
                BrokerState::Alive
                | BrokerState::Starting
                | BrokerState::PlannedDown
                | BrokerState::Drained
                | BrokerState::Unknown => None,
            };
            step.events.extend(event);
        }
        let known = &inputs.evidence.brokers;
        self.states.retain(|id, _| known.contains_key(id));
    }

    /// Which of our moves run, which have ended and how. Partitions whose end was just seen are remembered for a while.
    fn take_stock(&mut self, inputs: &Inputs<'_>, step: &mut Step) -> Vec<Move> {
        let now = inputs.now.monotonic;
        let view = inputs.view;
        for partition in view.reassignments.keys() {
            self.last_running.insert(partition.clone(), now);
        }
        let settle = self.settings.settle;
        self.last_running
            .retain(|_, seen| now.saturating_sub(*seen) < settle);
        let mut running = Vec::new();
        let mut ended = Vec::new();
        for (name, recorded) in &self.record.moves {
            let Some(partition) = parse_partition(name) else {
                ended.push((name.clone(), None));
                continue;
            };
            let planned = recorded.as_move(&partition);
            match view.reassignments.get(&partition) {
                Some(found) if found.target() == planned.to => running.push(planned),
                Some(_) => ended.push((name.clone(), Some((planned, Outcome::Gone)))),
                None => {
                    let replicas = view.partition(&partition).map(|found| &found.replicas);
                    if replicas == Some(&planned.to) {
                        ended.push((name.clone(), Some((planned, Outcome::Done))));
                    } else if replicas.is_none() || !self.last_running.contains_key(&partition) {
                        ended.push((name.clone(), Some((planned, Outcome::Gone))));
                    }
                }
            }
        }
        for (name, ended) in ended {
            self.record.moves.remove(&name);
            let Some((planned, mut outcome)) = ended else {
                continue;
            };
            if self.cancelling.remove(&planned.partition) && outcome == Outcome::Gone {
                outcome = Outcome::Cancelled;
            }
            self.progress.remove(&planned.partition);
            *self.finished.entry((planned.reason, outcome)).or_default() += 1;
            if outcome == Outcome::Done {
                self.avoid.remove(&planned.partition);
                *self.bytes_moved.entry(planned.reason).or_default() += planned.bytes;
                if is_optional(planned.reason) && planned.bytes > 0 {
                    let until = inputs.now.wall_clock_ms
                        + i64::try_from(self.settings.cool_down.as_millis())
                            .unwrap_or(i64::MAX / 2);
                    self.record.cool_until_ms.insert(name, until);
                }
            }
        }
        let wall = inputs.now.wall_clock_ms;
        self.record.cool_until_ms.retain(|_, until| *until > wall);
        let ours: BTreeSet<&TopicPartition> = running.iter().map(|one| &one.partition).collect();
        let foreign = view.reassignments.keys();
        let foreign: BTreeSet<TopicPartition> = foreign
            .filter(|partition| !ours.contains(partition))
            .cloned()
            .collect();
        for partition in foreign.difference(&self.foreign) {
            let subject = Subject::Topic(partition.topic.clone());
            let text =
                format!("{partition} is being reassigned by somebody else and is left alone");
            step.events
                .push(Event::normal("ForeignReassignment", subject, &text));
        }
        self.foreign = foreign;
        running
    }

    /// Which of our moves are to be taken back: all on order, those of brokers that returned early, and stalled ones once.
    fn cancellations(
        &mut self,
        inputs: &Inputs<'_>,
        running: &[Move],
        step: &mut Step,
    ) -> BTreeSet<TopicPartition> {
        let now = inputs.now.monotonic;
        let mut cancelled = BTreeSet::new();
        for one in running {
            let done = bytes_done(inputs.view, one);
            if inputs.order == Order::Cancel {
                cancelled.insert(one.partition.clone());
                continue;
            }
            let is_back = |id: BrokerId| {
                inputs.view.brokers.contains_key(&id)
                    && inputs.evidence.of(id).state == BrokerState::Alive
            };
            let returned = one.reason.is_repair() && one.removing().all(is_back);
            let had_failed_disk = one.removing().any(|id| {
                let dirs = inputs.view.log_dirs.get(&id);
                dirs.is_some_and(|dirs| !dirs.offline.is_empty())
            });
            if returned
                && !had_failed_disk
                && inputs.evidence.frozen.is_none()
                && done * 2 < one.bytes
            {
                cancelled.insert(one.partition.clone());
                continue;
            }
            let progress = self
                .progress
                .entry(one.partition.clone())
                .or_insert(Progress {
                    bytes: done,
                    at: now,
                    is_given_up: false,
                });
            if done != progress.bytes {
                progress.bytes = done;
                progress.at = now;
            }
            let has_stalled = now.saturating_sub(progress.at) >= self.settings.stall_after;
            if !has_stalled || progress.is_given_up || one.adding().next().is_none() {
                continue;
            }
            let subject = Subject::Topic(one.partition.topic.clone());
            let was_retried = self.avoid.contains_key(&one.partition);
            let what = if was_retried {
                "it is left to run"
            } else {
                "another broker is tried"
            };
            let text = format!(
                "{} has not progressed at {done} of {} bytes; {what}",
                one.partition, one.bytes
            );
            step.events
                .push(Event::warning("MoveStalled", subject, &text));
            progress.is_given_up = true;
            if !was_retried && inputs.evidence.frozen.is_none() {
                let avoid = self.avoid.entry(one.partition.clone()).or_default();
                avoid.extend(one.adding());
                cancelled.insert(one.partition.clone());
            }
        }
        for partition in &cancelled {
            self.progress.remove(partition);
        }
        cancelled
    }

    /// What may begin now, most urgent first.
    fn choose(&mut self, inputs: &Inputs<'_>, running: &[Move], step: &mut Step) -> Vec<Move> {
        let view = inputs.view;
        let mut marks = self.marks(inputs);
        let begun = std::time::Instant::now();
        let urgent = {
            let snapshot = snapshot(view, inputs.evidence, &marks);
            let passes = [Pass::Heal, Pass::MinIsr, Pass::Drain];
            let limits = balance::Limits::default();
            balance::plan(&snapshot, &passes, &self.settings.planner, limits)
        };
        self.tell_of_stuck(inputs, &urgent, running, step);
        let settings = self.settings.clone();
        let mut load = Load::new(view, &settings);
        let mut starting = Vec::new();
        admit(&mut load, &urgent.moves, &mut starting);
        let repairs = running.iter().chain(&urgent.moves);
        let repairs = repairs.filter(|one| one.reason.is_repair()).count();
        let mut wished = Vec::new();
        if repairs == 0 {
            // In a snapshot of its own, so that racks and replicas do not depend on what else is planned.
            let snapshot = snapshot(view, inputs.evidence, &marks);
            for (topic, wanted) in &inputs.wishes.replicas {
                if view.topics.get(topic).is_none_or(|found| {
                    let partitions = found.partitions.iter();
                    partitions.clone().all(|one| one.replicas.len() == *wanted)
                }) {
                    continue;
                }
                let planner = &self.settings.planner;
                match change_replication_factor(&snapshot, topic, *wanted, planner) {
                    Ok(moves) => wished.extend(moves),
                    Err(error) => {
                        step.status.refused.insert(topic.clone(), error);
                    }
                }
            }
            admit(&mut load, &wished, &mut starting);
        }
        let has_duties = !urgent.moves.is_empty()
            || !wished.is_empty()
            || running.iter().any(|one| !is_optional(one.reason));
        if self.settings.mode != Mode::HealOnly {
            marks.pinned.extend(self.cooling());
            self.balance(inputs, running, has_duties, &mut marks, step);
            // What others began or finished meanwhile is not planned with any more.
            let mut waits = Vec::new();
            for one in std::mem::take(&mut self.queue) {
                match load.admit(&one) {
                    Ok(()) => starting.push(one),
                    Err(Wait::Capacity | Wait::Disk) => waits.push(one),
                    Err(Wait::MinIsr | Wait::Stale) => {}
                }
            }
            self.queue = waits;
        }
        step.status.plan_seconds = begun.elapsed().as_secs_f64();
        let begins: BTreeSet<&TopicPartition> = starting.iter().map(|one| &one.partition).collect();
        let all = urgent.moves.iter().chain(&wished).chain(&self.queue);
        step.status.planned = all
            .filter(|one| !begins.contains(&one.partition))
            .cloned()
            .collect();
        step.status.stuck = urgent.stuck;
        starting
    }

    fn marks<'a>(&self, inputs: &Inputs<'a>) -> Marks<'a> {
        Marks {
            pinned: self.last_running.keys().cloned().collect(),
            paused: inputs.wishes.paused.clone(),
            rack_required: inputs.wishes.rack_required.clone(),
            avoid: self.avoid.clone(),
            rates: inputs.traffic,
            only_settled: false,
        }
    }

    fn cooling(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        let names = self.record.cool_until_ms.keys();
        names.filter_map(|name| parse_partition(name))
    }

    /// Fills the queue with what is not urgent, if everything is quiet.
    fn balance(
        &mut self,
        inputs: &Inputs<'_>,
        running: &[Move],
        has_duties: bool,
        marks: &mut Marks<'_>,
        step: &mut Step,
    ) {
        let now = inputs.now.monotonic;
        let states = inputs.evidence.brokers.values();
        let is_disturbed = states.clone().any(|found| found.state.disturbs_balance());
        if is_disturbed || inputs.evidence.is_rollout || has_duties {
            self.queue.clear();
            self.windows = 0;
            return;
        }
        if !self.queue.is_empty() || running.iter().any(|one| is_optional(one.reason)) {
            return;
        }
        if self.balanced_at.is_none() && self.healing.contains(&Reason::LoadBalance) {
            self.balanced_at = Some(now);
        }
        marks.only_settled = true;
        let snapshot = snapshot(inputs.view, inputs.evidence, marks);
        let limits = self.settings.balance_limits;
        let plan = |passes: &[Pass]| {
            balance::plan(&snapshot, passes, &self.settings.planner, limits).moves
        };
        for (pass, event) in [
            (Pass::RackRepair, "RackRepairStarted"),
            (Pass::Spread, "SpreadStarted"),
        ] {
            let moves = plan(&[pass]);
            if !moves.is_empty() {
                step.events.push(planned(event, &moves));
                self.queue = moves;
                return;
            }
        }
        let window = self.settings.balance_window;
        if self
            .window_at
            .is_some_and(|at| now.saturating_sub(at) < window)
        {
            return;
        }
        self.window_at = Some(now);
        let moves = plan(&[Pass::Balance]);
        self.windows = if moves.is_empty() {
            0
        } else {
            self.windows + 1
        };
        let has_rested = self
            .balanced_at
            .is_none_or(|at| now.saturating_sub(at) >= self.settings.balance_pause);
        if !moves.is_empty() && self.windows >= self.settings.balance_windows && has_rested {
            step.events.push(planned("RebalancePlanned", &moves));
            self.queue = moves;
            self.windows = 0;
            self.balanced_at = None;
        }
    }

    fn tell_of_stuck(
        &mut self,
        inputs: &Inputs<'_>,
        urgent: &Plan,
        running: &[Move],
        step: &mut Step,
    ) {
        let lost = urgent.stuck.iter();
        let lost = lost.filter(|one| one.reason == Reason::NodeFailure).count();
        if lost > 0 && !self.stuck_told {
            let text = format!("{lost} replicas are lost and no broker can take them");
            let event = Event::warning("HealImpossible", Subject::Cluster, &text);
            step.events.push(event);
        }
        self.stuck_told = lost > 0;
        for (id, found) in &inputs.evidence.brokers {
            if found.state != BrokerState::Draining {
                self.drained_told.remove(id);
                continue;
            }
            let has_replicas = inputs.view.topics.values().any(|topic| {
                let partitions = topic.partitions.iter();
                partitions.clone().any(|one| one.replicas.contains(id))
            });
            let moves = running.iter().any(|one| one.from.contains(id));
            if !has_replicas && !moves && self.drained_told.insert(*id) {
                let event =
                    Event::normal("DrainFinished", Subject::Broker(*id), "it has no replicas");
                step.events.push(event);
            }
        }
    }

    /// Turns decisions into actions: the record first, then throttles, then moves; cleaning up last.
    fn act(
        &mut self,
        inputs: &Inputs<'_>,
        goes_on: &[Move],
        starting: &[Move],
        cancelled: &BTreeSet<TopicPartition>,
        active: &BTreeMap<BrokerId, u64>,
        step: &mut Step,
    ) {
        if self.settings.mode == Mode::DryRun {
            return;
        }
        for one in starting {
            let name = one.partition.to_string();
            self.record.moves.insert(name, RecordedMove::new(one));
            self.last_running
                .insert(one.partition.clone(), inputs.now.monotonic);
        }
        let prepared = throttles::prepare(
            &mut self.record,
            goes_on.iter(),
            active,
            inputs.rates,
            self.looks_for_leftovers.then_some(&self.leftovers),
            inputs.view,
        );
        self.tell_of_begin(starting, step);
        if !prepared.is_empty() || !starting.is_empty() {
            self.save(step);
        }
        if !prepared.is_empty() {
            step.actions.push(Action::Configure(prepared));
        }
        let mut reassign: Vec<Reassign> = cancelled
            .iter()
            .map(|partition| Reassign {
                partition: partition.clone(),
                target: None,
            })
            .collect();
        reassign.extend(starting.iter().map(|one| Reassign {
            partition: one.partition.clone(),
            target: Some(one.to.clone()),
        }));
        if !reassign.is_empty() {
            step.actions.push(Action::Reassign(reassign));
        }
        self.cancelling.extend(cancelled.iter().cloned());
        let (record, view) = (&mut self.record, inputs.view);
        let mut cleaned = throttles::clean_up(record, goes_on.iter(), active, inputs.rates, view);
        if self.looks_for_leftovers {
            let found = inputs.rates;
            let leftovers = throttles::remove_leftovers(&mut self.leftovers, record, found, view);
            // Those who are away are looked at when they return.
            self.looks_for_leftovers = !self.leftovers.is_empty() || !leftovers.is_empty();
            cleaned.extend(leftovers);
        }
        if !cleaned.is_empty() {
            step.actions.push(Action::Configure(cleaned));
        }
        self.save(step);
    }

    fn save(&mut self, step: &mut Step) {
        if self.record != self.saved {
            self.saved = self.record.clone();
            step.actions.push(Action::Save(self.record.clone()));
        }
    }

    fn tell_of_begin(&mut self, starting: &[Move], step: &mut Step) {
        let lost = Reason::NodeFailure;
        let moves = starting.iter().filter(|one| one.reason == lost);
        let moves: Vec<Move> = moves.cloned().collect();
        if !moves.is_empty() && !self.healing.contains(&lost) {
            step.events.push(planned("HealStarted", &moves));
        }
        self.healing.extend(starting.iter().map(|one| one.reason));
    }

    /// Puts leaders back onto preferred replicas when too many have been elsewhere for too long.
    fn elect(&mut self, inputs: &Inputs<'_>, running: &[Move], step: &mut Step) {
        let now = inputs.now.monotonic;
        let mut states = inputs.evidence.brokers.values();
        let is_quiet = running.is_empty()
            && step.status.planned.is_empty()
            && !inputs.evidence.is_rollout
            && self.settings.mode == Mode::Full
            && !states.any(|found| found.state.disturbs_balance());
        if !is_quiet {
            self.imbalanced_since = None;
            return;
        }
        let snapshot = snapshot(inputs.view, inputs.evidence, &self.marks(inputs));
        if balance::leader_imbalance(&snapshot) <= self.settings.imbalance_percent {
            self.imbalanced_since = None;
            return;
        }
        let since = *self.imbalanced_since.get_or_insert(now);
        if now.saturating_sub(since) < self.settings.imbalance_for {
            return;
        }
        let mut per_broker: BTreeMap<BrokerId, usize> = BTreeMap::new();
        let preferred = |id: &TopicPartition| inputs.view.partition(id)?.replicas.first().copied();
        let elections: Vec<TopicPartition> = balance::elections(&snapshot)
            .into_iter()
            .filter(|partition| !inputs.wishes.paused.contains(&partition.topic))
            .filter(|partition| {
                let count = preferred(partition).map(|id| per_broker.entry(id).or_default());
                count.is_some_and(|count| {
                    *count += 1;
                    *count <= self.settings.elections_per_broker_max
                })
            })
            .take(self.settings.elections_max)
            .collect();
        if !elections.is_empty() {
            step.actions.push(Action::Elect(elections));
        }
    }

    fn summarize(
        &mut self,
        inputs: &Inputs<'_>,
        running: Vec<Move>,
        active: BTreeMap<BrokerId, u64>,
        step: &mut Step,
    ) {
        let view = inputs.view;
        let still: BTreeSet<Reason> = running
            .iter()
            .chain(&step.status.planned)
            .map(|one| one.reason)
            .collect();
        let begun = step
            .actions
            .iter()
            .any(|one| matches!(one, Action::Reassign(_)));
        if !begun {
            for reason in self.healing.clone() {
                if still.contains(&reason) {
                    continue;
                }
                let name = match reason {
                    Reason::NodeFailure => Some("HealFinished"),
                    Reason::ScaleOut => Some("SpreadFinished"),
                    Reason::LoadBalance => Some("RebalanceFinished"),
                    Reason::ReplicasChange => Some("ReplicasChangeFinished"),
                    Reason::RackRepair => Some("RackRepairFinished"),
                    Reason::MinIsr | Reason::Drain => None,
                };
                if reason == Reason::LoadBalance {
                    self.balanced_at = Some(inputs.now.monotonic);
                }
                self.healing.remove(&reason);
                let text = "no such move runs or waits";
                let event = name.map(|name| Event::normal(name, Subject::Cluster, text));
                step.events.extend(event);
            }
        }
        let status = &mut step.status;
        if self
            .scored
            .is_none_or(|(version, _)| version != view.version)
        {
            let snapshot = snapshot(view, inputs.evidence, &Marks::default());
            let score = balance::score(&snapshot, &self.settings.planner);
            self.scored = Some((view.version, score));
        }
        status.score = self.scored.map_or(0, |(_, score)| score);
        status.foreign = self.foreign.len();
        status.frozen.clone_from(&inputs.evidence.frozen);
        status.throttles = active;
        let brokers = inputs.evidence.brokers.iter();
        status.brokers = brokers
            .clone()
            .map(|(id, found)| (*id, found.state))
            .collect();
        status.due_at = brokers
            .filter_map(|(id, found)| Some((*id, found.due_at?)))
            .collect();
        status.finished.clone_from(&self.finished);
        status.bytes_moved.clone_from(&self.bytes_moved);
        status.running = running
            .into_iter()
            .map(|planned| RunningMove {
                bytes_done: bytes_done(view, &planned),
                planned,
            })
            .collect();
        status.is_idle = status.running.is_empty()
            && status.planned.is_empty()
            && step.actions.is_empty()
            && self.record.brokers.is_empty()
            && self.record.topics.is_empty()
            && self.record.moves.is_empty()
            && self.last_running.is_empty()
            && !(self.looks_for_leftovers
                && self
                    .leftovers
                    .iter()
                    .any(|id| view.brokers.contains_key(id)));
    }
}

/// Moves for the sake of balance: those that wait until everything else is done.
fn is_optional(reason: Reason) -> bool {
    match reason {
        Reason::RackRepair | Reason::ScaleOut | Reason::LoadBalance => true,
        Reason::NodeFailure | Reason::MinIsr | Reason::Drain | Reason::ReplicasChange => false,
    }
}

fn admit(load: &mut Load<'_>, moves: &[Move], starting: &mut Vec<Move>) {
    for one in moves {
        if load.admit(one).is_ok() {
            starting.push(one.clone());
        }
    }
}

fn planned(event: &'static str, moves: &[Move]) -> Event {
    let bytes: u64 = moves.iter().map(|one| one.bytes).sum();
    let text = format!("{} partitions, {bytes} bytes", moves.len());
    Event::normal(event, Subject::Cluster, &text)
}

/// What has been copied of a move, over all brokers that get a replica.
fn bytes_done(view: &ClusterView, one: &Move) -> u64 {
    let adding = one.adding();
    adding
        .filter_map(|id| view.bytes_on(id, &one.partition))
        .sum()
}
