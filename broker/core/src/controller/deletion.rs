//! Deleting topics (Kafka's `TopicDeletionManager`).
//!
//! Deletion is a round that is entered again and again: whenever something changed that a topic waits for, all queued
//! topics are looked at. First brokers stop serving the topic, then every replica is stopped and told to
//! delete itself, and when all have done so the znodes go. A replica that cannot be deleted makes its topic wait.

use std::collections::BTreeSet;

use super::cluster::{Replica, ReplicaState, Topic};
use super::event::Found;
use super::task::{PartitionTarget, Task, Then};
use super::{Controller, Notice, Read, Write};
use crate::control::ControlError;
use crate::ids::{BrokerId, TopicName, TopicPartition};
use crate::znodes::{ConfigEntity, DeletionMarker, TopicAssignment};

impl Controller {
    pub(super) fn read_deletion_markers(&mut self) {
        let reads = vec![Read::watched_children(DeletionMarker::PARENT)];
        self.read(reads, Then::DeletionMarkersRead);
    }

    pub(super) fn deletion_markers_read(&mut self, found: &[Found]) {
        let names = found.first().map_or(&[][..], Found::children).iter();
        let marked = names.map(|name| TopicName::from(name.as_str()));
        let can_delete = self.settings.delete_topic_enable;
        let (marked, void): (Vec<_>, Vec<_>) =
            marked.partition(|topic| can_delete && self.cluster.topics.contains_key(topic));
        let void = void.iter().map(|topic| DeletionMarker::path(topic));
        let mut tasks = vec![Task::DeleteNodes(void.collect())];
        if !marked.is_empty() {
            let queued = &self.cluster.deletions.queued;
            let new = marked.iter().filter(|topic| !queued.contains(*topic));
            let new: Vec<_> = new.cloned().collect();
            if !new.is_empty() {
                self.report(Notice::TopicsQueuedForDeletion(new));
            }
            self.cluster.deletions.queue(marked.iter().cloned());
            let reassigning = self.cluster.reassigning.iter();
            let reassigning: BTreeSet<_> = reassigning.map(|of| of.topic.clone()).collect();
            let waiting = marked
                .into_iter()
                .filter(|topic| reassigning.contains(topic));
            tasks.push(Task::HaltDeletions {
                topics: waiting.collect(),
                reason: "its partitions are being reassigned",
            });
            tasks.push(Task::ResumeDeletions);
        }
        self.push(tasks);
    }

    pub(super) fn halt_deletions(&mut self, topics: Vec<TopicName>, reason: &'static str) {
        let topics = self.cluster.deletions.halt(topics);
        if !topics.is_empty() {
            self.report(Notice::DeletionHalted { topics, reason });
        }
    }

    pub(super) fn resume_deletions_of(&mut self, topics: &BTreeSet<TopicName>) {
        let deletions = &mut self.cluster.deletions;
        let mut queued = topics
            .iter()
            .filter(|topic| deletions.queued.contains(*topic))
            .peekable();
        if queued.peek().is_none() {
            return;
        }
        for topic in queued {
            deletions.ineligible.remove(topic);
        }
        self.tasks.push(Task::ResumeDeletions);
    }

    /// Looks at all queued topics: who is done, who can be tried again, who can begin.
    pub(super) fn resume_deletions(&mut self) {
        let (mut done, mut retried, mut eligible) = (Vec::new(), Vec::new(), Vec::new());
        let nothing = Topic::default();
        for name in &self.cluster.deletions.queued {
            let topic = self.cluster.topics.get(name).unwrap_or(&nothing);
            let is_started = topic.any_replica_is(ReplicaState::DeletionStarted);
            if topic.all_replicas_are(ReplicaState::DeletionSuccessful) {
                done.push(Task::CompleteTopicDeletion(name.clone()));
                continue;
            }
            if !is_started && topic.any_replica_is(ReplicaState::DeletionIneligible) {
                retried.push(name.clone());
            }
            if !is_started && !self.cluster.deletions.ineligible.contains(name) {
                eligible.push(name.clone());
            }
        }
        let mut tasks = done;
        if !retried.is_empty() {
            tasks.push(Task::RetryDeletions(retried));
        }
        if !eligible.is_empty() {
            tasks.push(Task::DeleteTopics(eligible));
        }
        self.push(tasks);
    }

    pub(super) fn retry_deletions(&mut self, topics: &[TopicName]) {
        let failed = topics.iter().flat_map(|topic| {
            let state = ReplicaState::DeletionIneligible;
            self.cluster.replicas_in_state(topic, state)
        });
        let replicas = failed.collect();
        self.tasks.push(Task::MoveReplicas {
            replicas,
            target: ReplicaState::Offline,
        });
    }

    pub(super) fn delete_topics(&mut self, topics: Vec<TopicName>) {
        let unseen = topics
            .iter()
            .filter(|topic| !self.cluster.deletions.started.contains(*topic));
        let unseen: Vec<TopicName> = unseen.cloned().collect();
        let partitions_of = |topics: &[TopicName]| -> Vec<TopicPartition> {
            let topics = topics.iter();
            topics
                .flat_map(|topic| self.cluster.partitions_of(topic))
                .collect()
        };
        let going = partitions_of(&unseen);
        let all = partitions_of(&topics);
        // Neither of these moves asks anything, so that the topics count as started from here on.
        let moves = [PartitionTarget::Offline, PartitionTarget::NonExistent];
        let moves = moves.map(|target| Task::MovePartitions {
            partitions: going.clone(),
            target,
        });
        self.cluster.deletions.started.extend(unseen);
        let tasks = moves.into_iter().chain([
            // Brokers stop serving the topics before their logs go.
            Task::SendMetadata {
                to: None,
                partitions: all,
            },
            Task::DeletePartitions(topics),
        ]);
        let tasks: Vec<_> = tasks.collect();
        self.push(tasks);
    }

    pub(super) fn delete_partitions(&mut self, topics: &[TopicName]) {
        let (mut dead, mut alive, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for topic in topics {
            let replicas = self.cluster.replicas_of(topic);
            let (of_living, of_dead): (Vec<_>, Vec<_>) = replicas
                .into_iter()
                .partition(|(of, id)| self.cluster.is_online(*id, of));
            if !of_dead.is_empty() {
                waiting.push(topic.clone());
            }
            dead.extend(of_dead);
            let undeleted = of_living.into_iter().filter(|replica| {
                self.cluster.replica_state(replica) != ReplicaState::DeletionSuccessful
            });
            alive.extend(undeleted);
        }
        let move_to = |replicas: &[Replica], target| Task::MoveReplicas {
            replicas: replicas.to_vec(),
            target,
        };
        self.push([
            move_to(&dead, ReplicaState::DeletionIneligible),
            move_to(&alive, ReplicaState::Offline),
            move_to(&alive, ReplicaState::DeletionStarted),
            Task::HaltDeletions {
                topics: waiting,
                reason: "some of its replicas are offline",
            },
        ]);
    }

    /// A broker says what became of the replicas that it was told to delete.
    pub(super) fn replicas_deleted(
        &mut self,
        broker: BrokerId,
        results: Vec<(TopicPartition, Result<(), ControlError>)>,
    ) {
        let started = &self.cluster.deletions.started;
        let (mut deleted, mut failed) = (Vec::new(), Vec::new());
        for (of, result) in results {
            if started.contains(&of.topic) {
                match result {
                    Ok(()) => deleted.push((of, broker)),
                    Err(_) => failed.push((of, broker)),
                }
            }
        }
        self.push([
            Task::FailReplicaDeletions(failed),
            Task::CompleteReplicaDeletions(deleted),
        ]);
    }

    pub(super) fn fail_replica_deletions(&mut self, mut replicas: Vec<Replica>) {
        replicas.retain(|(of, _)| self.cluster.is_queued_for_deletion(&of.topic));
        if replicas.is_empty() {
            return;
        }
        let topics: BTreeSet<_> = replicas.iter().map(|(of, _)| of.topic.clone()).collect();
        self.push([
            Task::MoveReplicas {
                replicas,
                target: ReplicaState::DeletionIneligible,
            },
            Task::HaltDeletions {
                topics: topics.into_iter().collect(),
                reason: "a replica could not be deleted",
            },
            Task::ResumeDeletions,
        ]);
    }

    pub(super) fn complete_replica_deletions(&mut self, mut replicas: Vec<Replica>) {
        replicas.retain(|(of, _)| self.cluster.is_queued_for_deletion(&of.topic));
        if replicas.is_empty() {
            return;
        }
        self.push([
            Task::MoveReplicas {
                replicas,
                target: ReplicaState::DeletionSuccessful,
            },
            Task::ResumeDeletions,
        ]);
    }

    pub(super) fn complete_topic_deletion(&mut self, topic: TopicName) {
        let state = ReplicaState::DeletionSuccessful;
        let replicas = self.cluster.replicas_in_state(&topic, state);
        self.push([
            Task::MoveReplicas {
                replicas,
                target: ReplicaState::NonExistent,
            },
            Task::DeleteTopicNodes(topic),
        ]);
    }

    pub(super) fn list_topic_nodes(&mut self, topic: TopicName) {
        let root = TopicAssignment::path(&topic);
        self.list_below(topic, vec![root], BTreeSet::new());
    }

    fn list_below(&mut self, topic: TopicName, listed: Vec<String>, known: BTreeSet<String>) {
        let reads = listed.iter().cloned().map(Read::children).collect();
        let then = Then::TopicNodesListed {
            topic,
            listed,
            known,
        };
        self.read(reads, then);
    }

    pub(super) fn topic_nodes_listed(
        &mut self,
        topic: TopicName,
        listed: Vec<String>,
        mut known: BTreeSet<String>,
        found: &[Found],
    ) {
        let below = listed.iter().zip(found).flat_map(|(parent, found)| {
            let names = found.children().iter();
            names.map(move |name| format!("{parent}/{name}"))
        });
        let below: Vec<String> = below.collect();
        known.extend(listed);
        if !below.is_empty() {
            self.list_below(topic, below, known);
            return;
        }
        // A path sorts before the paths below it, so backwards children go before their parents.
        let tree = known.into_iter().rev();
        let config = ConfigEntity::Topic(topic.to_string()).path();
        let paths = tree.chain([config, DeletionMarker::path(&topic)]);
        let deletes = paths.map(|path| Write::Delete { path }).collect();
        self.write_fenced(deletes, Then::TopicNodesDeleted(topic));
    }

    pub(super) fn topic_deleted(&mut self, topic: TopicName) {
        self.cluster.remove_topic(&topic);
        self.report(Notice::TopicDeleted(topic));
    }
}
