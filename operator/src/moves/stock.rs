//! What has become of the moves that run: which have ended and how, and which are to be taken back.

use std::collections::{BTreeMap, BTreeSet};

use barnabas_core::balance::Move;
use barnabas_core::ids::{BrokerId, TopicPartition};

use super::evidence::BrokerState;
use super::machine::{Inputs, Machine, Order, Outcome, Progress, Step, bytes_done, is_optional};
use super::record::parse_partition;
use super::report::{Event, Subject};
use crate::cluster::ClusterView;

impl Machine {
    /// Which of our moves run, which have ended and how. Partitions whose end was just seen are remembered for a while.
    pub(super) fn take_stock(&mut self, inputs: &Inputs<'_>, step: &mut Step) -> Vec<Move> {
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
    pub(super) fn cancellations(
        &mut self,
        inputs: &Inputs<'_>,
        running: &[Move],
        step: &mut Step,
    ) -> BTreeSet<TopicPartition> {
        let now = inputs.now.monotonic;
        let mut cancelled = BTreeSet::new();
        let mut room = room(inputs.view);
        for one in running {
            let done = bytes_done(inputs.view, one);
            if inputs.order == Order::Cancel {
                cancelled.insert(one.partition.clone());
                continue;
            }
            let full = take_room(inputs.view, one, &mut room);
            if !full.is_empty() && inputs.evidence.frozen.is_none() {
                let subject = Subject::Topic(one.partition.topic.clone());
                let text = format!(
                    "{} needs {} bytes more than the disks of broker {} have; another broker is tried",
                    one.partition,
                    one.bytes.saturating_sub(done),
                    full[0],
                );
                step.events
                    .push(Event::warning("TargetDiskFull", subject, &text));
                let avoid = self.avoid.entry(one.partition.clone()).or_default();
                avoid.extend(full);
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
}

/// Bytes that the disks of brokers have left, of those that say so.
fn room(view: &ClusterView) -> BTreeMap<BrokerId, u64> {
    let dirs = view.log_dirs.iter();
    dirs.filter_map(|(id, dirs)| Some((*id, dirs.usable_bytes?)))
        .collect()
}

/// Takes what a move has yet to copy from what is left; brokers that do not have so much are returned, and lose nothing.
fn take_room(view: &ClusterView, one: &Move, room: &mut BTreeMap<BrokerId, u64>) -> Vec<BrokerId> {
    let bytes = view.bytes(&one.partition);
    let mut full = Vec::new();
    for id in one.adding() {
        let there = view.bytes_on(id, &one.partition).unwrap_or(0);
        let needed = bytes.saturating_sub(there);
        match room.get_mut(&id) {
            Some(left) if *left < needed => full.push(id),
            Some(left) => *left -= needed,
            None => {}
        }
    }
    full
}
