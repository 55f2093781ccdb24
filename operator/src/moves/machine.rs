//! The one who decides what moves: from what is known now to what is to be done next.
//!
//! [`Machine::step`] is called again and again with the state of the cluster as it is found. It waits for nothing and
//! remembers little: what runs is what Kafka says runs, what is done is what replicas say. What it asks for may fail or
//! be done twice; the next step sees what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use barnabas_core::balance::{self, FactorError, Move, Rates, Reason, Stuck};
use barnabas_core::ids::{BrokerId, TopicName, TopicPartition};
use barnabas_core::time::Now;

use super::evidence::{BrokerState, Evidence, Frozen};
use super::record::{Record, RecordedMove};
use super::report::{Event, Subject};
use super::settings::{Mode, MoverSettings};
use super::snapshot::{Marks, snapshot};
use super::throttles::{self, Adaptive, DynamicRates};
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
    pub frozen: Option<Frozen>,
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
pub(super) struct Progress {
    pub(super) bytes: u64,
    pub(super) at: Duration,
    /// Told of, and left to run.
    pub(super) is_given_up: bool,
}

/// See the module.
pub struct Machine {
    pub(super) settings: MoverSettings,
    pub(super) record: Record,
    pub(super) saved: Record,
    /// Brokers that may have throttles from a life that nobody remembers.
    pub(super) leftovers: BTreeSet<BrokerId>,
    pub(super) looks_for_leftovers: bool,
    pub(super) has_looked: bool,
    pub(super) adaptive: Adaptive,
    pub(super) progress: BTreeMap<TopicPartition, Progress>,
    /// Where copies stalled.
    pub(super) avoid: BTreeMap<TopicPartition, BTreeSet<BrokerId>>,
    /// Taken back by us.
    pub(super) cancelling: BTreeSet<TopicPartition>,
    /// When reassignments were last seen running.
    pub(super) last_running: BTreeMap<TopicPartition, Duration>,
    pub(super) foreign: BTreeSet<TopicPartition>,
    /// Moves for the sake of racks, new brokers or balance, as planned.
    pub(super) queue: Vec<Move>,
    pub(super) windows: u32,
    pub(super) window_at: Option<Duration>,
    pub(super) balanced_at: Option<Duration>,
    pub(super) imbalanced_since: Option<Duration>,
    pub(super) states: BTreeMap<BrokerId, BrokerState>,
    pub(super) stuck_told: bool,
    /// Brokers that were down when last told of too many.
    pub(super) down_told: bool,
    pub(super) drained_told: BTreeSet<BrokerId>,
    pub(super) healing: BTreeSet<Reason>,
    /// What the last score and empty plan were made of.
    pub(super) scored: Option<(u64, u64)>,
    pub(super) finished: BTreeMap<(Reason, Outcome), u64>,
    pub(super) bytes_moved: BTreeMap<Reason, u64>,
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
            down_told: false,
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
        let too_many = inputs.evidence.frozen.as_ref();
        let too_many = too_many.filter(|why| matches!(why, Frozen::TooManyDown { .. }));
        if let Some(why) = too_many.filter(|_| !self.down_told) {
            let text = format!("{why}: nothing is moved until they return");
            let event = Event::warning("TooManyBrokersDown", Subject::Cluster, &text);
            step.events.push(event);
        }
        self.down_told = too_many.is_some();
        let known = &inputs.evidence.brokers;
        self.states.retain(|id, _| known.contains_key(id));
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
            .map(|(id, found)| match found.state {
                BrokerState::Draining if self.drained_told.contains(id) => {
                    (*id, BrokerState::Drained)
                }
                state => (*id, state),
            })
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
            // Those who are away are freed of throttles when they return.
            && !self.record.brokers.keys().any(|id| view.brokers.contains_key(&BrokerId(*id)))
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
pub(super) fn is_optional(reason: Reason) -> bool {
    match reason {
        Reason::RackRepair | Reason::ScaleOut | Reason::LoadBalance => true,
        Reason::NodeFailure | Reason::MinIsr | Reason::Drain | Reason::ReplicasChange => false,
    }
}

pub(super) fn planned(event: &'static str, moves: &[Move]) -> Event {
    let bytes: u64 = moves.iter().map(|one| one.bytes).sum();
    let text = format!("{} partitions, {bytes} bytes", moves.len());
    Event::normal(event, Subject::Cluster, &text)
}

/// What has been copied of a move, over all brokers that get a replica.
pub(super) fn bytes_done(view: &ClusterView, one: &Move) -> u64 {
    let adding = one.adding();
    adding
        .filter_map(|id| view.bytes_on(id, &one.partition))
        .sum()
}
