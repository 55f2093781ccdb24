//! What a broker does that has just become controller, in Kafka's order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cluster::{PartitionState, ReplicaState};
use super::event::{Found, NodeData};
use super::task::{Task, Then, TopicSequel};
use super::{Controller, Effect, Notice, Read, Timer, Write};
use crate::control::Leadership;
use crate::ids::{BrokerId, TopicName, TopicPartition};
use crate::znodes::{
    BrokerRegistration, DeletionMarker, Feature, FeatureStatus, IsrChange, LogDirEvent,
    PartitionState as PartitionStateZnode, TopicAssignment,
};

/// After a failover, leaders get this long to come back before balance is looked at.
const FIRST_REBALANCE: Duration = Duration::from_secs(5);

impl Controller {
    pub(super) fn fail_over(&mut self) {
        self.is_failing_over = true;
        self.push([
            Task::SetUpFeature,
            Task::DiscardNotifications,
            Task::ReadCluster,
            Task::ReadLeaderships,
            Task::ReadDeletions,
            // Brokers have to know who is alive before they are told to follow anybody.
            Task::SendMetadata {
                to: None,
                partitions: Vec::new(),
            },
            Task::StartReplicas,
            Task::StartPartitions,
            Task::ReadReassignments,
            Task::ResumeReassignments,
            Task::ResumeDeletions,
            Task::ReadPreferredElection,
            Task::FailoverDone,
        ]);
    }

    pub(super) fn failover_done(&mut self) {
        self.is_failing_over = false;
        if self.settings.auto_leader_rebalance_enable {
            self.effects.push(Effect::StartTimer {
                timer: Timer::AutoRebalance,
                after: FIRST_REBALANCE,
            });
        }
    }

    pub(super) fn read_feature(&mut self) {
        self.read(
            vec![Read::data(Feature::PATH.to_owned())],
            Then::FeatureRead,
        );
    }

    /// Finalized features stay as they are if they are in force; a broker in ZooKeeper mode adds none.
    pub(super) fn feature_read(&mut self, found: &[Found]) {
        let path = Feature::PATH.to_owned();
        let Some(node) = found.first().and_then(Found::data) else {
            let data = Some(Feature::enabled(BTreeMap::new()).encode());
            self.write(vec![Write::Create { path, data }], Then::Ignore);
            return;
        };
        let existing = match Feature::decode(&node.data) {
            Ok(existing) => existing,
            Err(error) => return self.malformed(path, &error),
        };
        let features = match existing.status {
            FeatureStatus::Enabled => existing.features.clone(),
            FeatureStatus::Disabled => BTreeMap::new(),
        };
        let wanted = Feature::enabled(features);
        if wanted != existing {
            let set = Write::Set {
                path,
                data: wanted.encode(),
                version: None,
            };
            self.write(vec![set], Then::Ignore);
        }
    }

    pub(super) fn malformed(&mut self, path: String, error: &impl ToString) {
        self.report(Notice::Malformed {
            path,
            reason: error.to_string(),
        });
    }

    /// What was left for an earlier controller is void: this one reads everything anyway.
    pub(super) fn list_notifications(&mut self) {
        let parents = [LogDirEvent::PARENT, IsrChange::PARENT];
        let reads = parents.map(Read::watched_children);
        self.read(reads.into(), Then::NotificationsListed);
    }

    pub(super) fn notifications_listed(&mut self, found: &[Found]) {
        let names = |index: usize| found.get(index).map_or(&[][..], Found::children).iter();
        let events = names(0).map(|name| LogDirEvent::path(name));
        let changes = names(1).map(|name| IsrChange::path(name));
        let paths: Vec<_> = events.chain(changes).collect();
        self.delete_nodes(paths);
    }

    pub(super) fn delete_nodes(&mut self, paths: Vec<String>) {
        if paths.is_empty() {
            return;
        }
        let deletes = paths.into_iter().map(|path| Write::Delete { path });
        self.write_fenced(deletes.collect(), Then::Ignore);
    }

    pub(super) fn list_cluster(&mut self) {
        let parents = [BrokerRegistration::PARENT, TopicAssignment::PARENT];
        let reads = parents.map(Read::watched_children);
        self.read(reads.into(), Then::ClusterListed);
    }

    pub(super) fn cluster_listed(&mut self, found: &[Found]) {
        let names = |index: usize| found.get(index).map_or(&[][..], Found::children).iter();
        let brokers = names(0).filter_map(|name| name.parse().ok().map(BrokerId));
        let mut brokers: Vec<BrokerId> = brokers.collect();
        brokers.sort_unstable();
        let topics: Vec<TopicName> = names(1).map(|name| name.as_str().into()).collect();
        let broker_reads = brokers.iter().map(|id| BrokerRegistration::path(*id));
        let topic_reads = topics.iter().map(|topic| TopicAssignment::path(topic));
        let reads = broker_reads.chain(topic_reads).map(Read::watched_data);
        let reads = reads.collect();
        self.read(reads, Then::ClusterRead { brokers, topics });
    }

    pub(super) fn cluster_read(
        &mut self,
        brokers: &[BrokerId],
        topics: Vec<TopicName>,
        found: &[Found],
    ) {
        let (of_brokers, of_topics) = found.split_at(brokers.len().min(found.len()));
        for registered in self.decode_brokers(brokers, of_brokers) {
            self.open_channel(registered);
        }
        let topics = self.decode_topics(topics, of_topics);
        self.give_topics_ids(topics, TopicSequel::Known);
    }

    /// The topics among `found`; those that cannot be understood are left out.
    pub(super) fn decode_topics(
        &mut self,
        topics: Vec<TopicName>,
        found: &[Found],
    ) -> BTreeMap<TopicName, TopicAssignment> {
        let mut decoded = BTreeMap::new();
        for (topic, found) in topics.into_iter().zip(found) {
            let Some(node) = found.data() else {
                continue;
            };
            match TopicAssignment::decode(&node.data) {
                Ok(assignment) => drop(decoded.insert(topic, assignment)),
                Err(error) => self.malformed(TopicAssignment::path(&topic), &error),
            }
        }
        decoded
    }

    pub(super) fn read_leaderships(&mut self) {
        let partitions: Vec<_> = self.cluster.all_partitions().map(|(of, _)| of).collect();
        if partitions.is_empty() {
            return;
        }
        let reads = state_reads(&partitions);
        self.read(reads, Then::LeadershipsRead(partitions));
    }

    /// Takes over what the state znodes say; those that are missing change nothing.
    pub(super) fn leaderships_read(&mut self, partitions: Vec<TopicPartition>, found: &[Found]) {
        for (of, found) in partitions.into_iter().zip(found) {
            let Some(leadership) = self.decode_state(&of, found.data()) else {
                continue;
            };
            if let Some(partition) = self.cluster.partition_mut(&of) {
                partition.leadership = Some(leadership);
            }
        }
    }

    /// The state in a znode; `None` without a node or with one that makes no sense.
    pub(super) fn decode_state(
        &mut self,
        of: &TopicPartition,
        node: Option<&NodeData>,
    ) -> Option<Leadership> {
        let node = node?;
        match PartitionStateZnode::decode(&node.data, node.version) {
            Ok(leadership) => Some(leadership),
            Err(error) => {
                self.malformed(PartitionStateZnode::path(of), &error);
                None
            }
        }
    }

    pub(super) fn read_deletions(&mut self) {
        let reads = vec![Read::watched_children(DeletionMarker::PARENT)];
        self.read(reads, Then::DeletionsRead);
    }

    pub(super) fn deletions_read(&mut self, found: &[Found]) {
        let names = found.first().map_or(&[][..], Found::children);
        if names.is_empty() {
            return;
        }
        if !self.settings.delete_topic_enable {
            let markers = names.iter().map(|topic| DeletionMarker::path(topic));
            self.delete_nodes(markers.collect());
            return;
        }
        let marked = names.iter().map(|name| TopicName::from(name.as_str()));
        let marked: Vec<_> = marked.collect();
        self.report(Notice::TopicsQueuedForDeletion(marked.clone()));
        self.cluster.deletions.queue(marked);
        let mut waiting = BTreeSet::new();
        for (of, partition) in self.cluster.all_partitions() {
            let mut replicas = partition.assignment.replicas.iter();
            if partition.assignment.is_being_reassigned()
                || replicas.any(|id| !self.cluster.is_online(*id, &of))
            {
                waiting.insert(of.topic);
            }
        }
        self.cluster.deletions.halt(waiting);
    }

    pub(super) fn start_replicas(&mut self) {
        let partitions: Vec<_> = self.cluster.all_partitions().map(|(of, _)| of).collect();
        let replicas = self.cluster.replicas_of_partitions(&partitions);
        let (online, offline): (Vec<_>, Vec<_>) = replicas
            .into_iter()
            .partition(|(of, id)| self.cluster.is_online(*id, of));
        for replica in &online {
            self.cluster
                .set_replica_state(replica, ReplicaState::Online);
        }
        for replica in &offline {
            let state = ReplicaState::DeletionIneligible;
            self.cluster.set_replica_state(replica, state);
        }
        let moves = [
            (online, ReplicaState::Online),
            (offline, ReplicaState::Offline),
        ];
        self.push(moves.map(|(replicas, target)| Task::MoveReplicas { replicas, target }));
    }

    pub(super) fn start_partitions(&mut self) {
        let all = self.cluster.all_partitions();
        let states: Vec<_> = all
            .map(|(of, partition)| {
                let state = match &partition.leadership {
                    None => PartitionState::New,
                    Some(found) if self.cluster.is_online(BrokerId(found.leader), &of) => {
                        PartitionState::Online
                    }
                    Some(_) => PartitionState::Offline,
                };
                (of, state)
            })
            .collect();
        for (of, state) in states {
            self.cluster.set_partition_state(&of, state);
        }
        self.tasks.push(Task::BringPartitionsOnline);
    }
}

/// Reads of the state znodes of `partitions`.
pub(super) fn state_reads(partitions: &[TopicPartition]) -> Vec<Read> {
    let paths = partitions.iter().map(PartitionStateZnode::path);
    paths.map(Read::data).collect()
}
