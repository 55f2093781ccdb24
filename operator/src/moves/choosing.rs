//! What may begin: what is urgent, what users ask for, and, when everything is quiet, what evens out.

use std::collections::{BTreeMap, BTreeSet};

use barnabas_core::balance::{self, Move, Pass, Plan, Reason, change_replication_factor};
use barnabas_core::ids::{BrokerId, TopicPartition};

use super::evidence::BrokerState;
use super::machine::{Action, Inputs, Machine, Step, is_optional, planned};
use super::record::parse_partition;
use super::report::{Event, Subject};
use super::settings::Mode;
use super::snapshot::{Marks, snapshot};
use super::waves::{Load, Wait};

impl Machine {
    /// What may begin now, most urgent first.
    pub(super) fn choose(
        &mut self,
        inputs: &Inputs<'_>,
        running: &[Move],
        step: &mut Step,
    ) -> Vec<Move> {
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

    pub(super) fn marks<'a>(&self, inputs: &Inputs<'a>) -> Marks<'a> {
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

    /// Puts leaders back onto preferred replicas when too many have been elsewhere for too long.
    pub(super) fn elect(&mut self, inputs: &Inputs<'_>, running: &[Move], step: &mut Step) {
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
}

fn admit(load: &mut Load<'_>, moves: &[Move], starting: &mut Vec<Move>) {
    for one in moves {
        if load.admit(one).is_ok() {
            starting.push(one.clone());
        }
    }
}
