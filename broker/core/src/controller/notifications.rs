//! What others leave in ZooKeeper or in their settings for the controller to look at.

use std::collections::BTreeSet;

use super::cluster::ReplicaState;
use super::event::Found;
use super::failover::state_reads;
use super::reassignment::IfIncomplete;
use super::task::{Task, Then};
use super::{Controller, Read};
use crate::ids::{TopicName, TopicPartition};
use crate::znodes::{IsrChange, LogDirEvent};

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
            Task::ContinueReassignments {
                partitions: partitions.clone(),
                if_incomplete: IfIncomplete::Wait,
            },
            Task::DeleteNodes(paths),
        ]);
        if !partitions.is_empty() {
            let reads = state_reads(&partitions);
            self.read(reads, Then::LeadershipsRead(partitions));
        }
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
