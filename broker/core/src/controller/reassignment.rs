//! Moving partitions to other brokers (KIP-455; `onPartitionReassignment` of Kafka's controller).
//!
//! What a reassignment is about is all in the topic's znode: the full list of replicas, those that are being added and
//! those that will go. So it can be taken up by another controller at any point.
//!
//! First the replicas are extended: the leader gets a new epoch with the new list, and those that are added begin to
//! follow. Once all target replicas are in sync, the leadership moves to one of them if it has to, the others are
//! stopped and deleted, and the list becomes what was asked for. A reassignment over one that is under way starts
//! from the replicas that the partition had before; cancelling is a reassignment to just these.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::ReplicaState;
use super::election::Election;
use super::event::{Found, WriteError, WriteResult};
use super::failover::state_reads;
use super::partitions::state_write;
use super::request_batch::Novelty;
use super::task::{PartitionTarget, Task, Then};
use super::{Answer, Controller, NodeChange, Notice, Read, Write};
use crate::control::Leadership;
use crate::ids::{BrokerId, TopicName, TopicPartition};
use crate::znodes::{PartitionAssignment, Reassignment, TopicAssignment};

/// What is wanted of some partitions: new replicas, or (without them) an end to what is under way.
pub type WantedReplicas = BTreeMap<TopicPartition, Option<Vec<BrokerId>>>;

/// Why the replicas of a partition are not being changed. The text is Kafka's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReassignmentError {
    #[error("Empty replica list specified in partition reassignment.")]
    NoReplicas,
    #[error("Duplicate replica ids in partition reassignment replica list: ArrayBuffer({})", list(.0))]
    DuplicateReplicas(Vec<BrokerId>),
    #[error("Invalid broker id in replica list: ArrayBuffer({})", list(.0))]
    NegativeBrokerId(Vec<BrokerId>),
    #[error(
        "Replica assignment has brokers that are not alive. Replica list: ArrayBuffer({}), live broker list: Set({})",
        list(.adding), list(.live)
    )]
    BrokersNotAlive {
        adding: Vec<BrokerId>,
        live: Vec<BrokerId>,
    },
    #[error("No partition reassignment is in progress.")]
    NotInProgress,
    #[error("The partition does not exist.")]
    UnknownTopicOrPartition,
    #[error("The server experienced an unexpected error when processing the request.")]
    Failed,
}

fn list(ids: &[BrokerId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

/// Which entries of `/admin/reassign_partitions` are done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// Overridden, or impossible.
    Partitions(BTreeSet<TopicPartition>),
    /// Carried out.
    Reached(BTreeMap<TopicPartition, Vec<BrokerId>>),
}

impl Done {
    fn covers(&self, of: &TopicPartition, replicas: &[BrokerId]) -> bool {
        match self {
            Self::Partitions(partitions) => partitions.contains(of),
            Self::Reached(reached) => reached.get(of).is_some_and(|target| target == replicas),
        }
    }
}

/// What to do with partitions that have target replicas outside their ISR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfIncomplete {
    /// Tell the replicas to begin.
    Begin,
    Wait,
}

/// What is wrong with wanted replicas in themselves or with the brokers that would get one.
fn check(
    current: &PartitionAssignment,
    target: &[BrokerId],
    live: &[BrokerId],
) -> Result<(), ReassignmentError> {
    if target.is_empty() {
        return Err(ReassignmentError::NoReplicas);
    }
    let distinct: BTreeSet<_> = target.iter().collect();
    if distinct.len() != target.len() {
        return Err(ReassignmentError::DuplicateReplicas(target.to_vec()));
    }
    if target.iter().any(|id| id.0 < 0) {
        return Err(ReassignmentError::NegativeBrokerId(target.to_vec()));
    }
    let adding = current.reassigned_to(target).adding_replicas;
    if adding.iter().any(|id| !live.contains(id)) {
        let live = live.to_vec();
        return Err(ReassignmentError::BrokersNotAlive { adding, live });
    }
    Ok(())
}

impl Controller {
    /// Starts, changes and cancels reassignments on behalf of an administrator.
    pub(super) fn alter_reassignments(&mut self, wanted: WantedReplicas) {
        let live: Vec<BrokerId> = self.cluster.registered_ids();
        let live: Vec<_> = live
            .into_iter()
            .filter(|id| self.cluster.is_live(*id))
            .collect();
        let none = PartitionAssignment::default();
        let mut overridden = BTreeSet::new();
        let mut accepted = Vec::new();
        for (of, target) in wanted {
            let known = self.cluster.partition(&of);
            let current = known.map_or(&none, |known| &known.assignment);
            let next = match target {
                Some(target) => {
                    check(current, &target, &live).map(|()| current.reassigned_to(&target))
                }
                None if current.is_being_reassigned() => {
                    Ok(current.reassigned_to(&current.origin_replicas()))
                }
                None => Err(ReassignmentError::NotInProgress),
            };
            match next {
                Ok(assignment) => {
                    overridden.insert(of.clone());
                    accepted.extend(self.accept(of, assignment));
                }
                Err(error) => drop(self.reassignments.insert(of, Err(error))),
            }
        }
        let mut tasks = Vec::new();
        if !overridden.is_empty() {
            // The latest order counts, whether it came through ZooKeeper or not.
            tasks.push(Task::DropReassignments(Done::Partitions(overridden)));
        }
        tasks.extend(by_topic(accepted));
        tasks.push(Task::AnswerReassignments);
        self.push(tasks);
    }

    pub(super) fn answer_reassignments(&mut self) {
        let results = std::mem::take(&mut self.reassignments);
        self.answer(Answer::AlterReassignments(Ok(results)));
    }

    /// The reassignments that are under way, of all partitions or of these.
    pub(super) fn list_reassignments(&mut self, wanted: Option<&BTreeSet<TopicPartition>>) {
        let listed = wanted.unwrap_or(&self.cluster.reassigning);
        let found = listed.iter().filter_map(|of| {
            let assignment = &self.cluster.partition(of)?.assignment;
            let is_under_way = assignment.is_being_reassigned();
            is_under_way.then(|| (of.clone(), assignment.clone()))
        });
        let found = found.collect();
        self.answer(Answer::ListReassignments(Ok(found)));
    }

    /// What tools older than KIP-455 want; read with a watch.
    pub(super) fn read_reassignments(&mut self) {
        let path = Reassignment::PATH;
        let reads = vec![Read::watched_exists(path), Read::data(path.to_owned())];
        self.read(reads, Then::ReassignmentsRead);
    }

    pub(super) fn reassignments_read(&mut self, found: &[Found]) {
        let Some(node) = found.get(1).and_then(Found::data) else {
            return;
        };
        let wanted = match Reassignment::decode(&node.data) {
            Ok(wanted) => wanted.partitions,
            Err(error) => return self.malformed(Reassignment::PATH.to_owned(), &error),
        };
        let none = PartitionAssignment::default();
        let mut accepted = Vec::new();
        for (of, target) in wanted {
            let known = self.cluster.partition(&of);
            let current = known.map_or(&none, |known| &known.assignment);
            let assignment = current.reassigned_to(&target);
            accepted.extend(self.accept(of, assignment));
        }
        let mut tasks = by_topic(accepted);
        tasks.push(Task::DropFailedReassignments);
        self.push(tasks);
    }

    /// A new reassignment, unless there is no such partition.
    fn accept(
        &mut self,
        of: TopicPartition,
        assignment: PartitionAssignment,
    ) -> Option<(TopicPartition, PartitionAssignment)> {
        let known = self.cluster.partition(&of);
        let exists = known.is_some_and(|known| !known.assignment.replicas.is_empty());
        if exists && !self.cluster.is_queued_for_deletion(&of.topic) {
            return Some((of, assignment));
        }
        self.reassignment_failed(of, ReassignmentError::UnknownTopicOrPartition);
        None
    }

    pub(super) fn drop_failed_reassignments(&mut self) {
        let failed = self.reassignments.iter();
        let failed = failed.filter(|(_, result)| result.is_err());
        let failed: BTreeSet<_> = failed.map(|(of, _)| of.clone()).collect();
        if !failed.is_empty() {
            let done = Done::Partitions(failed);
            self.tasks.push(Task::DropReassignments(done));
        }
    }

    /// Takes up what an earlier controller left, except what was taken up in this event already.
    pub(super) fn resume_reassignments(&mut self) {
        let begun = |of: &&TopicPartition| !matches!(self.reassignments.get(*of), Some(Ok(())));
        let left: Vec<_> = self.cluster.reassigning.iter().filter(begun).collect();
        self.reassign_again(left.into_iter().cloned().collect());
    }

    /// Takes up those that wait for one of these brokers.
    pub(super) fn resume_reassignments_to(&mut self, brokers: &BTreeSet<BrokerId>) {
        let waiting = self.cluster.reassigning.iter().filter(|of| {
            let assignment = self.cluster.partition(of).map(|known| &known.assignment);
            let mut target = assignment
                .into_iter()
                .flat_map(PartitionAssignment::target_replicas);
            target.any(|id| brokers.contains(&id))
        });
        self.reassign_again(waiting.cloned().collect());
    }

    fn reassign_again(&mut self, partitions: Vec<TopicPartition>) {
        let again = partitions.into_iter().filter_map(|of| {
            let assignment = self.cluster.partition(&of)?.assignment.clone();
            Some((of, assignment))
        });
        let tasks = by_topic(again.collect());
        self.push(tasks);
    }

    /// Makes these the assignments that partitions of a topic are on the way to. They are all in one znode, which is
    /// written once.
    pub(super) fn reassign(
        &mut self,
        topic: &TopicName,
        assignments: BTreeMap<i32, PartitionAssignment>,
    ) {
        self.halt_deletions(vec![topic.clone()], "its partitions are being reassigned");
        let mut changed = BTreeMap::new();
        let (mut take, mut remove, mut note) = (Vec::new(), Vec::new(), Vec::new());
        let (mut begun, mut going_on) = (Vec::new(), Vec::new());
        for (number, assignment) in assignments {
            let of = TopicPartition::new(topic.clone(), number);
            let Some(known) = self.cluster.partition(&of) else {
                continue;
            };
            let current = known.assignment.replicas.clone();
            let is_as_it_was = known.assignment == assignment;
            self.reassignments.insert(of.clone(), Ok(()));
            if is_as_it_was {
                self.cluster.reassigning.insert(of.clone());
                going_on.push(of);
                continue;
            }
            self.report(Notice::Reassigning {
                partition: of.clone(),
                from: current.clone(),
                to: assignment.clone(),
            });
            take.push(Task::TakeAssignment {
                partition: of.clone(),
                assignment: assignment.clone(),
            });
            // Replicas that an earlier reassignment was adding may not be needed any more.
            remove.push(Task::RemoveReplicas {
                partition: of.clone(),
                replicas: without(&current, &assignment.replicas),
            });
            note.push(Task::NoteReassignment(of.clone()));
            begun.push(of);
            changed.insert(number, assignment);
        }
        let go_on = |partitions: Vec<_>| {
            let if_incomplete = IfIncomplete::Begin;
            (!partitions.is_empty()).then_some(Task::ContinueReassignments {
                partitions,
                if_incomplete,
            })
        };
        let mut tasks = Vec::new();
        if !changed.is_empty() {
            // All are taken before any goes on: what is written of the topic next is written of all its partitions.
            let sequel = take.into_iter().chain(remove).chain(note);
            tasks.push(Task::WriteAssignments {
                topic: topic.clone(),
                assignments: changed,
                sequel: sequel.chain(go_on(begun)).collect(),
            });
        }
        tasks.extend(go_on(going_on));
        self.push(tasks);
    }

    fn reassignment_failed(&mut self, partition: TopicPartition, error: ReassignmentError) {
        self.report(Notice::NotReassigned {
            partition: partition.clone(),
            reason: error.to_string(),
        });
        self.reassignments.insert(partition, Err(error));
    }

    /// The topic's znode with other assignments of some partitions; then the sequel, unless that fails.
    pub(super) fn write_assignments(
        &mut self,
        topic: &TopicName,
        assignments: BTreeMap<i32, PartitionAssignment>,
        sequel: Vec<Task>,
    ) {
        let Some(known) = self.cluster.topics.get(topic) else {
            return;
        };
        let partitions = known.partitions.iter();
        let mut node = TopicAssignment {
            topic_id: known.id,
            partitions: partitions
                .map(|(number, known)| (*number, known.assignment.clone()))
                .collect(),
        };
        let written = assignments.keys().copied();
        let partitions = written
            .map(|number| TopicPartition::new(topic.clone(), number))
            .collect();
        node.partitions.extend(assignments);
        let set = Write::Set {
            path: TopicAssignment::path(topic),
            data: node.encode(),
            version: None,
        };
        self.write_fenced(vec![set], Then::AssignmentsWritten { partitions, sequel });
    }

    pub(super) fn assignments_written(
        &mut self,
        partitions: Vec<TopicPartition>,
        sequel: Vec<Task>,
        results: &[WriteResult],
    ) {
        match results.first() {
            Some(Ok(_)) => self.push(sequel),
            Some(Err(_)) | None => {
                for partition in partitions {
                    self.reassignment_failed(partition, ReassignmentError::Failed);
                }
            }
        }
    }

    pub(super) fn take_assignment(&mut self, of: &TopicPartition, assignment: PartitionAssignment) {
        if let Some(partition) = self.cluster.partition_mut(of) {
            partition.assignment = assignment;
        }
    }

    /// Stops replicas that are no longer wanted, and deletes them. Nobody waits for their answer.
    pub(super) fn remove_replicas(&mut self, of: &TopicPartition, replicas: &[BrokerId]) {
        if replicas.is_empty() {
            return;
        }
        let replicas = replicas.iter().map(|id| (of.clone(), *id));
        let replicas: Vec<_> = replicas.collect();
        let steps = [
            ReplicaState::Offline,
            ReplicaState::DeletionStarted,
            ReplicaState::DeletionSuccessful,
            ReplicaState::NonExistent,
        ];
        self.push(steps.map(|target| Task::MoveReplicas {
            replicas: replicas.clone(),
            target,
        }));
    }

    /// Sees which of these have all their target replicas in sync.
    pub(super) fn continue_reassignments(
        &mut self,
        partitions: Vec<TopicPartition>,
        if_incomplete: IfIncomplete,
    ) {
        let (unchanged, moving): (Vec<_>, Vec<_>) = partitions
            .into_iter()
            .filter(|of| self.cluster.reassigning.contains(of))
            .partition(|of| {
                let known = self.cluster.partition(of);
                known.is_none_or(|known| !known.assignment.is_being_reassigned())
            });
        self.push(complete(unchanged));
        if !moving.is_empty() {
            let reads = state_reads(&moving);
            let then = Then::ReassignmentStatesRead {
                partitions: moving,
                if_incomplete,
            };
            self.read(reads, then);
        }
    }

    pub(super) fn reassignment_states_read(
        &mut self,
        partitions: Vec<TopicPartition>,
        if_incomplete: IfIncomplete,
        found: &[Found],
    ) {
        let (mut tasks, mut topics) = (Vec::new(), BTreeSet::new());
        for (of, found) in partitions.into_iter().zip(found) {
            let state = self.decode_state(&of, found.data());
            let Some(partition) = self.cluster.partition(&of) else {
                continue;
            };
            let assignment = &partition.assignment;
            let mut target = assignment.target_replicas().into_iter();
            if state.is_some_and(|state| target.all(|id| state.isr.contains(&id))) {
                topics.insert(of.topic.clone());
                tasks.push(Task::CompleteReassignment(of));
                continue;
            }
            if if_incomplete == IfIncomplete::Wait {
                continue;
            }
            let adding = assignment.adding_replicas.iter();
            let begin = adding.map(|id| Task::MoveReplicas {
                replicas: vec![(of.clone(), *id)],
                target: ReplicaState::New,
            });
            let sequel = begin.collect();
            tasks.push(Task::RaiseLeaderEpoch {
                partition: of,
                sequel,
            });
        }
        tasks.extend(topics.into_iter().map(Task::WriteCompleted));
        self.push(tasks);
    }

    /// A new leader epoch for the same leader, so that it and its followers take up a new list of replicas; then the
    /// sequel, unless that fails.
    pub(super) fn raise_leader_epoch(&mut self, partition: TopicPartition, sequel: Vec<Task>) {
        let reads = state_reads(std::slice::from_ref(&partition));
        self.read(reads, Then::LeaderEpochRead { partition, sequel });
    }

    pub(super) fn leader_epoch_read(
        &mut self,
        partition: TopicPartition,
        sequel: Vec<Task>,
        found: &[Found],
    ) {
        let state = self.decode_state(&partition, found.first().and_then(Found::data));
        let state = state.filter(|state| state.controller_epoch <= self.cluster.epoch);
        let Some(mut next) = state else {
            self.reassignment_failed(partition, ReassignmentError::Failed);
            return;
        };
        next.leader_epoch = next.leader_epoch.saturating_add(1);
        next.controller_epoch = self.cluster.epoch;
        let set = state_write(&partition, &next);
        let then = Then::LeaderEpochRaised {
            partition,
            leadership: next,
            sequel,
        };
        self.write_fenced(vec![set], then);
    }

    pub(super) fn leader_epoch_raised(
        &mut self,
        of: TopicPartition,
        mut leadership: Leadership,
        sequel: Vec<Task>,
        results: &[WriteResult],
    ) {
        match results.first() {
            Some(Ok(version)) => leadership.partition_epoch = *version,
            // The leader changed its ISR meanwhile: look again.
            Some(Err(WriteError::BadVersion)) => {
                let partition = of;
                self.tasks
                    .push(Task::RaiseLeaderEpoch { partition, sequel });
                return;
            }
            Some(Err(_)) | None => {
                self.reassignment_failed(of, ReassignmentError::Failed);
                return;
            }
        }
        let Some(partition) = self.cluster.partition_mut(&of) else {
            return;
        };
        partition.leadership = Some(leadership.clone());
        let origin = partition.assignment.origin_replicas();
        let adding = partition.assignment.adding_replicas.clone();
        self.batch.clear();
        for (receivers, novelty) in [(origin, Novelty::Existing), (adding, Novelty::New)] {
            self.batch
                .lead_or_follow(&self.cluster, receivers, &of, &leadership, novelty);
        }
        self.send_batch();
        self.push(sequel);
    }

    /// All target replicas are in sync: the others go.
    pub(super) fn complete_reassignment(&mut self, of: TopicPartition) {
        let Some(partition) = self.cluster.partition(&of) else {
            return;
        };
        let current = &partition.assignment;
        let adding = current.adding_replicas.iter();
        let adding = adding.map(|id| (of.clone(), *id)).collect();
        let removing = current.removing_replicas.clone();
        let assignment = PartitionAssignment::new(current.target_replicas());
        let partition = of;
        let led = vec![
            Task::RemoveReplicas {
                partition: partition.clone(),
                replicas: removing,
            },
            Task::NoteCompletion(partition.clone()),
        ];
        self.push([
            Task::MoveReplicas {
                replicas: adding,
                target: ReplicaState::Online,
            },
            Task::TakeAssignment {
                partition: partition.clone(),
                assignment,
            },
            Task::MoveLeaderIntoTarget {
                partition,
                sequel: led,
            },
        ]);
    }

    pub(super) fn move_leader_into_target(&mut self, of: TopicPartition, sequel: Vec<Task>) {
        let Some(partition) = self.cluster.partition(&of) else {
            return;
        };
        let leader = partition.leadership.as_ref();
        let leader = leader.map(|leadership| BrokerId(leadership.leader));
        let may_stay = leader.is_some_and(|leader| {
            let replicas = &partition.assignment.replicas;
            replicas.contains(&leader) && self.cluster.is_online(leader, &of)
        });
        if may_stay {
            let partition = of;
            self.tasks
                .push(Task::RaiseLeaderEpoch { partition, sequel });
        } else {
            self.push(sequel);
            self.tasks.push(Task::MovePartitions {
                partitions: vec![of],
                target: PartitionTarget::Online(Election::Reassign),
            });
        }
    }

    /// Writes the assignments of those partitions of a topic whose other replicas have gone.
    pub(super) fn write_completed(&mut self, topic: TopicName) {
        let completed = std::mem::take(&mut self.cluster.completed);
        let (of_topic, others) = completed.into_iter().partition(|of| of.topic == topic);
        self.cluster.completed = others;
        let of_topic: BTreeSet<TopicPartition> = of_topic;
        let of_topic: Vec<_> = of_topic.into_iter().collect();
        let assignments = of_topic.iter().filter_map(|of| {
            let known = self.cluster.partition(of)?;
            Some((of.partition, known.assignment.clone()))
        });
        let assignments: BTreeMap<_, _> = assignments.collect();
        if assignments.is_empty() {
            return;
        }
        let sequel = vec![
            Task::ForgetReassignments(of_topic.clone()),
            Task::SendMetadata {
                to: None,
                partitions: of_topic,
            },
            Task::ResumeDeletionsOf(BTreeSet::from([topic.clone()])),
        ];
        self.tasks.push(Task::WriteAssignments {
            topic,
            assignments,
            sequel,
        });
    }

    pub(super) fn forget_reassignments(&mut self, partitions: Vec<TopicPartition>) {
        let mut reached = BTreeMap::new();
        for of in partitions {
            self.cluster.reassigning.remove(&of);
            let known = self.cluster.partition(&of);
            let replicas = known.map(|known| known.assignment.replicas.clone());
            let replicas = replicas.unwrap_or_default();
            self.report(Notice::Reassigned {
                partition: of.clone(),
                replicas: replicas.clone(),
            });
            reached.insert(of, replicas);
        }
        let done = Done::Reached(reached);
        self.tasks.push(Task::DropReassignments(done));
    }

    /// Takes entries out of the znode of old tools, if there is one.
    pub(super) fn read_reassignments_to_drop(&mut self, done: Done) {
        let reads = vec![Read::data(Reassignment::PATH.to_owned())];
        self.read(reads, Then::ReassignmentsToDropRead(done));
    }

    pub(super) fn drop_reassignments(&mut self, done: &Done, found: &[Found]) {
        let Some(node) = found.first().and_then(Found::data) else {
            return;
        };
        let Ok(mut listed) = Reassignment::decode(&node.data) else {
            return;
        };
        let before = listed.partitions.len();
        let is_left = |of: &TopicPartition, replicas: &mut Vec<_>| !done.covers(of, replicas);
        listed.partitions.retain(is_left);
        let path = Reassignment::PATH.to_owned();
        if listed.partitions.is_empty() {
            self.write_fenced(vec![Write::Delete { path: path.clone() }], Then::Ignore);
            // Another one may be there before the watch is.
            self.enqueue_node(path, NodeChange::Created);
        } else if listed.partitions.len() < before {
            let set = Write::Set {
                path,
                data: listed.encode(),
                version: None,
            };
            self.write_fenced(vec![set], Then::Ignore);
        }
    }
}

/// One task for each topic, in the order of their names.
fn by_topic(assignments: Vec<(TopicPartition, PartitionAssignment)>) -> Vec<Task> {
    let mut topics: BTreeMap<TopicName, BTreeMap<i32, PartitionAssignment>> = BTreeMap::new();
    for (of, assignment) in assignments {
        let of_topic = topics.entry(of.topic).or_default();
        of_topic.insert(of.partition, assignment);
    }
    let topics = topics.into_iter();
    let tasks = topics.map(|(topic, assignments)| Task::Reassign { topic, assignments });
    tasks.collect()
}

/// Each of these to its end, then the znodes of their topics.
fn complete(partitions: Vec<TopicPartition>) -> Vec<Task> {
    let topics: BTreeSet<_> = partitions.iter().map(|of| of.topic.clone()).collect();
    let each = partitions.into_iter().map(Task::CompleteReassignment);
    each.chain(topics.into_iter().map(Task::WriteCompleted))
        .collect()
}

fn without(replicas: &[BrokerId], excluded: &[BrokerId]) -> Vec<BrokerId> {
    let kept = replicas.iter().filter(|id| !excluded.contains(id));
    kept.copied().collect()
}
