//! What others leave in ZooKeeper for the controller to look at, and what it looks at by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::ReplicaState;
use super::election::Election;
use super::event::Found;
use super::failover::state_reads;
use super::task::{PartitionTarget, Task, Then};
use super::{Controller, Effect, Read, Timer};
use crate::ids::{BrokerId, TopicName, TopicPartition};
use crate::znodes::{IsrChange, LogDirEvent, PreferredElection};

impl Controller {
    pub(super) fn list_log_dir_events(&mut self) {
        let reads = vec![Read::watched_children(LogDirEvent::PARENT)];
        self.read(reads, Then::LogDirEventsListed);
    }

    pub(super) fn log_dir_events_listed(&mut self, found: &[Found]) {
        let names = found.first().map_or(&[][..], Found::children).iter();
        let paths: Vec<String> = names.map(|name| LogDirEvent::path(name)).collect();
        if paths.is_empty() {
            return;
        }
        let reads = paths.iter().cloned().map(Read::data).collect();
        self.read(reads, Then::LogDirEventsRead(paths));
    }

    /// Which replicas are affected only the broker knows: it is told to lead and follow again, and refuses those.
    pub(super) fn log_dir_events_read(&mut self, paths: Vec<String>, found: &[Found]) {
        let mut brokers = BTreeSet::new();
        for (path, found) in paths.iter().zip(found) {
            let Some(node) = found.data() else {
                continue;
            };
            match LogDirEvent::decode(&node.data) {
                Ok(event) => drop(brokers.insert(event.broker)),
                Err(error) => self.malformed(path.clone(), &error),
            }
        }
        let replicas = self.cluster.replicas_on(&brokers);
        self.push([
            Task::MoveReplicas {
                replicas,
                target: ReplicaState::Online,
            },
            Task::DeleteNodes(paths),
        ]);
    }

    pub(super) fn list_isr_changes(&mut self) {
        let reads = vec![Read::watched_children(IsrChange::PARENT)];
        self.read(reads, Then::IsrChangesListed);
    }

    pub(super) fn isr_changes_listed(&mut self, found: &[Found]) {
        let names = found.first().map_or(&[][..], Found::children).iter();
        let paths: Vec<String> = names.map(|name| IsrChange::path(name)).collect();
        if paths.is_empty() {
            return;
        }
        let reads = paths.iter().cloned().map(Read::data).collect();
        self.read(reads, Then::IsrChangesRead(paths));
    }

    /// Leaders older than 2.7 wrote these states themselves: read them, and tell everybody.
    pub(super) fn isr_changes_read(&mut self, paths: Vec<String>, found: &[Found]) {
        let mut changed = BTreeSet::new();
        for (path, found) in paths.iter().zip(found) {
            let Some(node) = found.data() else {
                continue;
            };
            match IsrChange::decode(&node.data) {
                Ok(change) => changed.extend(change.partitions),
                Err(error) => self.malformed(path.clone(), &error),
            }
        }
        changed.retain(|of| self.cluster.partition(of).is_some());
        let partitions: Vec<TopicPartition> = changed.into_iter().collect();
        self.push([
            Task::SendMetadata {
                to: None,
                partitions: partitions.clone(),
            },
            Task::DeleteNodes(paths),
        ]);
        if !partitions.is_empty() {
            let reads = state_reads(&partitions);
            self.read(reads, Then::LeadershipsRead(partitions));
        }
    }

    pub(super) fn read_preferred_election(&mut self) {
        let path = PreferredElection::PATH;
        let reads = vec![Read::watched_exists(path), Read::data(path.to_owned())];
        self.read(reads, Then::PreferredElectionRead);
    }

    pub(super) fn preferred_election_read(&mut self, found: &[Found]) {
        let Some(node) = found.get(1).and_then(Found::data) else {
            return;
        };
        let path = PreferredElection::PATH.to_owned();
        let wanted = match PreferredElection::decode(&node.data) {
            Ok(wanted) => wanted.partitions,
            Err(error) => {
                self.malformed(path.clone(), &error);
                Vec::new()
            }
        };
        let partitions = wanted.into_iter().filter(|of| {
            let is_staying = !self.cluster.is_queued_for_deletion(&of.topic);
            is_staying && self.is_led_by_another_than_preferred(of)
        });
        let partitions = partitions.collect();
        self.push([
            Task::MovePartitions {
                partitions,
                target: PartitionTarget::Online(Election::Preferred),
            },
            Task::DeleteNodes(vec![path]),
            // The node may be there again already, and its watch has to be.
            Task::ReadPreferredElection,
        ]);
    }

    fn is_led_by_another_than_preferred(&self, of: &TopicPartition) -> bool {
        let Some(partition) = self.cluster.partition(of) else {
            return false;
        };
        let preferred = partition.assignment.replicas.first();
        let leader = partition.leadership.as_ref().map(|found| found.leader);
        preferred.is_some_and(|id| leader.is_some_and(|leader| leader != id.0))
    }

    /// Moves leaders back to their preferred replicas where too many are elsewhere.
    pub(super) fn rebalance(&mut self) {
        if !self.is_active() || !self.settings.auto_leader_rebalance_enable {
            return;
        }
        let mut by_preferred: BTreeMap<BrokerId, (usize, Vec<TopicPartition>)> = BTreeMap::new();
        for (of, partition) in self.cluster.all_partitions() {
            if self.cluster.is_queued_for_deletion(&of.topic) {
                continue;
            }
            let Some(preferred) = partition.assignment.replicas.first() else {
                continue;
            };
            let (total, elsewhere) = by_preferred.entry(*preferred).or_default();
            *total += 1;
            if self.is_led_by_another_than_preferred(&of) {
                elsewhere.push(of);
            }
        }
        let limit = self.settings.leader_imbalance_per_broker_percentage;
        let mut moving = Vec::new();
        for (preferred, (total, elsewhere)) in by_preferred {
            let percentage = elsewhere.len() as f64 * 100.0 / total as f64;
            if percentage <= f64::from(limit) {
                continue;
            }
            moving.extend(elsewhere.into_iter().filter(|of| {
                let leadership = self.cluster.leadership(of);
                let in_sync = leadership.is_some_and(|found| found.isr.contains(&preferred));
                in_sync
                    && self.cluster.is_online(preferred, of)
                    && !self.cluster.reassigning.contains(of)
            }));
        }
        if !moving.is_empty() {
            self.tasks.push(Task::MovePartitions {
                partitions: moving,
                target: PartitionTarget::Online(Election::Preferred),
            });
        }
        self.effects.push(Effect::StartTimer {
            timer: Timer::AutoRebalance,
            after: self.settings.leader_imbalance_check_interval,
        });
    }

    /// Partitions that had no leader may have one now.
    pub(super) fn unclean_election_enabled(&mut self, topic: Option<TopicName>) {
        if !self.is_active() {
            return;
        }
        if topic.is_none_or(|topic| self.cluster.topics.contains_key(&topic)) {
            self.tasks.push(Task::BringPartitionsOnline);
        }
    }
}
