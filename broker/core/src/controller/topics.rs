//! Topics and partitions that appear, and topics that disappear by themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::ReplicaState;
use super::election::Election;
use super::event::Found;
use super::task::{PartitionTarget, Task, Then, TopicSequel};
use super::{Controller, Notice, Read, Write};
use crate::ids::{TopicId, TopicName, TopicPartition};
use crate::znodes::{PartitionAssignment, PartitionState as PartitionStateZnode, TopicAssignment};

impl Controller {
    pub(super) fn list_topics(&mut self) {
        let reads = vec![Read::watched_children(TopicAssignment::PARENT)];
        self.read(reads, Then::TopicsListed);
    }

    pub(super) fn topics_listed(&mut self, found: &[Found]) {
        let names = found.first().map_or(&[][..], Found::children).iter();
        let listed: BTreeSet<&str> = names.map(String::as_str).collect();
        let known = self.cluster.topics.keys();
        let gone: Vec<TopicName> = known
            .filter(|topic| !listed.contains(&***topic))
            .cloned()
            .collect();
        for topic in gone {
            self.cluster.remove_topic(&topic);
        }
        let new = listed
            .into_iter()
            .filter(|name| !self.cluster.topics.contains_key(*name));
        let new: Vec<TopicName> = new.map(TopicName::from).collect();
        if new.is_empty() {
            return;
        }
        let paths = new.iter().map(|topic| TopicAssignment::path(topic));
        let reads = paths.map(Read::watched_data).collect();
        self.read(reads, Then::TopicsRead(new));
    }

    pub(super) fn topics_read(&mut self, topics: Vec<TopicName>, found: &[Found]) {
        let topics = self.decode_topics(topics, found);
        self.give_topics_ids(topics, TopicSequel::Created);
    }

    /// Topics made by old tools have no id (KIP-516): write one.
    pub(super) fn give_topics_ids(
        &mut self,
        mut topics: BTreeMap<TopicName, TopicAssignment>,
        sequel: TopicSequel,
    ) {
        let mut writes = Vec::new();
        for (topic, assignment) in &mut topics {
            if assignment.topic_id.is_none() {
                assignment.topic_id = Some(TopicId::random(&mut self.random));
                writes.push(Write::Set {
                    path: TopicAssignment::path(topic),
                    data: assignment.encode(),
                    version: None,
                });
            }
        }
        if writes.is_empty() {
            self.topics_have_ids(topics, sequel);
        } else {
            self.write_fenced(writes, Then::TopicIdsWritten { topics, sequel });
        }
    }

    pub(super) fn topics_have_ids(
        &mut self,
        topics: BTreeMap<TopicName, TopicAssignment>,
        sequel: TopicSequel,
    ) {
        match sequel {
            TopicSequel::Known => {
                self.take_over(topics);
            }
            TopicSequel::Created => self.tasks.push(Task::AddTopics(topics)),
        }
    }

    /// Makes topics known; returns their partitions.
    fn take_over(&mut self, topics: BTreeMap<TopicName, TopicAssignment>) -> Vec<TopicPartition> {
        let mut partitions = Vec::new();
        for (topic, assignment) in topics {
            self.cluster.set_topic_id(&topic, assignment.topic_id);
            for (number, assignment) in assignment.partitions {
                let of = TopicPartition::new(topic.clone(), number);
                if assignment.is_being_reassigned() {
                    self.cluster.reassigning.insert(of.clone());
                }
                self.cluster.partition_entry(&of).assignment = assignment;
                partitions.push(of);
            }
        }
        partitions
    }

    pub(super) fn add_topics(&mut self, topics: BTreeMap<TopicName, TopicAssignment>) {
        let partitions = self.take_over(topics);
        self.start_new_partitions(partitions);
    }

    fn start_new_partitions(&mut self, partitions: Vec<TopicPartition>) {
        if partitions.is_empty() {
            return;
        }
        self.report(Notice::NewPartitions(partitions.clone()));
        let replicas = self.cluster.replicas_of_partitions(&partitions);
        let online = PartitionTarget::Online(Election::Offline {
            allow_unclean: false,
        });
        self.push([
            Task::MovePartitions {
                partitions: partitions.clone(),
                target: PartitionTarget::New,
            },
            Task::MoveReplicas {
                replicas: replicas.clone(),
                target: ReplicaState::New,
            },
            Task::MovePartitions {
                partitions,
                target: online,
            },
            Task::MoveReplicas {
                replicas,
                target: ReplicaState::Online,
            },
        ]);
    }

    pub(super) fn read_topic(&mut self, topic: TopicName) {
        let reads = vec![Read::watched_data(TopicAssignment::path(&topic))];
        self.read(reads, Then::TopicRead(topic));
    }

    /// Only added partitions are acted on; other changes of a topic's node are the controller's own.
    pub(super) fn topic_read(&mut self, topic: TopicName, found: &[Found]) {
        let decoded = self.decode_topics(vec![topic.clone()], found);
        let Some(assignment) = decoded.into_values().next() else {
            return;
        };
        let Some(known) = self.cluster.topics.get(&topic) else {
            return;
        };
        let is_added = |number: &i32| !known.partitions.contains_key(number);
        let added = assignment.partitions.keys().copied().filter(is_added);
        let added: Vec<i32> = added.collect();
        if added.is_empty() {
            return;
        }
        if self.cluster.is_queued_for_deletion(&topic) {
            let path = PartitionStateZnode::partitions_path(&topic);
            let then = Then::PartitionsListed { topic, assignment };
            self.read(vec![Read::children(path)], then);
            return;
        }
        let mut partitions = Vec::with_capacity(added.len());
        for number in added {
            let of = TopicPartition::new(topic.clone(), number);
            let assigned = assignment.partitions.get(&number).cloned();
            self.cluster.partition_entry(&of).assignment = assigned.unwrap_or_default();
            partitions.push(of);
        }
        self.start_new_partitions(partitions);
    }

    /// A topic that is being deleted gets no partitions: its node is put back.
    pub(super) fn partitions_listed(
        &mut self,
        topic: &TopicName,
        mut assignment: TopicAssignment,
        found: &[Found],
    ) {
        let existing = found.first().map_or(&[][..], Found::children);
        let exists = |number: i32| existing.iter().any(|name| name.parse() == Ok(number));
        assignment.partitions.retain(|number, _| exists(*number));
        for partition in assignment.partitions.values_mut() {
            *partition = PartitionAssignment::new(std::mem::take(&mut partition.replicas));
        }
        let set = Write::Set {
            path: TopicAssignment::path(topic),
            data: assignment.encode(),
            version: None,
        };
        self.write_fenced(vec![set], Then::Ignore);
    }
}
