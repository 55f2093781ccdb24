//! The controller: decides who leads each partition and tells the brokers (Kafka's `KafkaController`).
//!
//! Every broker has one; at most one of them is active, whoever holds `/controller`. [`Controller::step`] takes an
//! event and returns effects, and is all there is: the shell reads and writes ZooKeeper, keeps the queues to the
//! brokers and the timers, and comes back with what happened.
//!
//! Invariants:
//! - Every write of the active controller is guarded by the version of `/controller_epoch` that it was elected with.
//! - What must follow a write is returned only when the write's completion has come back.
//! - One event is handled at a time, to its end; those that come meanwhile wait in order. The end of the
//!   session is the exception: it voids what is under way.
//!
//! | module | what it owns |
//! |---|---|
//! | [`alter_partition`], [`election`] | rules over plain values |
//! | `cluster` | what the controller knows |
//! | `task` | what it is in the middle of |
//! | `seat` | becoming controller, ceasing to be |
//! | `failover` | what a new controller reads and says |
//! | `brokers`, `topics`, `deletion`, `reassignment`, `leader_election`, `notifications`, `requests` | what it reacts to |
//! | `activity` | what it is doing, for metrics |
//! | `answers` | ZooKeeper's answers, taken apart |
//! | `partitions`, `replicas` | moving these from state to state |
//! | `request_batch` | what the brokers are told |

mod activity;
pub mod alter_partition;
mod answers;
mod brokers;
mod cluster;
mod deletion;
mod effect;
pub mod election;
mod event;
mod failover;
mod leader_election;
mod notice;
mod notifications;
mod partitions;
mod reassignment;
mod replicas;
mod request_batch;
mod requests;
mod seat;
mod task;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngCore;

pub use activity::{Activity, Finished};
pub use alter_partition::{
    AlterPartition, AlterPartitionError, AlteredPartition, IsrProposal, IsrRefusal,
    ProposedPartition,
};
use answers::{found, topic_is_gone, written};
use cluster::Cluster;
pub use cluster::{PartitionState, ReplicaState};
pub use effect::{
    AllocateProducerIdsError, Answer, ControlledShutdownError, ControllerError, Effect, Read,
    Timer, Write,
};
pub use event::{
    Event, Found, NodeChange, NodeData, Request, Settings, Ticket, WriteError, WriteFailure,
    WriteResult, ZooKeeperFailure,
};
pub use leader_election::{ElectLeaderError, ElectionType};
pub use notice::Notice;
pub use reassignment::{ReassignmentError, WantedReplicas};
use request_batch::RequestBatch;
use task::{Completion, Task, Then};

use crate::ids::{BrokerId, ControllerEpoch, TopicPartition};
use crate::time::Now;

/// The controller of one broker, active or not.
pub struct Controller {
    settings: Settings,
    /// For the ids of topics that were created without one.
    random: Box<dyn RngCore + Send>,
    /// Wall clock of the event that is being handled; milliseconds since the Unix epoch.
    now_ms: i64,
    /// Who is controller, as far as is known.
    active_controller: Option<BrokerId>,
    is_failing_over: bool,
    cluster: Cluster,
    batch: RequestBatch,
    /// What the current event still needs, last first.
    tasks: Vec<Task>,
    /// What goes on when the answer comes.
    then: Option<Then>,
    /// Who waits for the outcome of the current event.
    asker: Option<(Ticket, Asked)>,
    /// Outcomes of the elections of the current event.
    elections: BTreeMap<TopicPartition, Result<(), String>>,
    /// Answers to the election that somebody asked for, as far as they are known.
    election_results: BTreeMap<TopicPartition, Result<BrokerId, ElectLeaderError>>,
    /// What came of the reassignments of the current event.
    reassignments: BTreeMap<TopicPartition, Result<(), ReassignmentError>>,
    /// Events that wait for the current one, and since when.
    queue: VecDeque<(Duration, Event)>,
    /// Watched nodes of which the queue tells already.
    queued_nodes: BTreeSet<(String, NodeChange)>,
    /// Of the event that is being handled.
    monotonic: Duration,
    under_way: Option<activity::UnderWay>,
    finished: Vec<Finished>,
    /// Leaders that may lack records which were acknowledged.
    unclean_elections: u64,
    effects: Vec<Effect>,
}

/// What kind of answer somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    AlterPartition,
    ControlledShutdown,
    AllocateProducerIds,
    ElectLeaders,
    AlterReassignments,
    ListReassignments,
}

/// Numbers about an active controller, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Totals {
    pub live_brokers: usize,
    pub topics: usize,
    pub partitions: usize,
    /// Partitions that lost their leader and got no other; one that never had any is not counted.
    pub offline_partitions: usize,
    /// Partitions led by another than the first replica of their assignment.
    pub preferred_replica_imbalance: usize,
    pub topics_to_delete: usize,
    pub topics_ineligible_for_deletion: usize,
    /// Replicas of topics to be deleted that are not deleted yet.
    pub replicas_to_delete: usize,
    pub replicas_ineligible_for_deletion: usize,
}

/// Why the current event is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    ControllerMoved,
    Other(String),
}

impl From<WriteFailure> for Failure {
    fn from(failure: WriteFailure) -> Self {
        match failure {
            WriteFailure::ControllerMoved => Self::ControllerMoved,
            WriteFailure::ZooKeeper(failure) => failure.into(),
        }
    }
}

impl From<ZooKeeperFailure> for Failure {
    fn from(failure: ZooKeeperFailure) -> Self {
        Self::Other(failure.to_string())
    }
}

impl Controller {
    /// A controller that has seen nothing yet. `random` makes ids for topics without one.
    pub fn new(settings: Settings, random: Box<dyn RngCore + Send>) -> Self {
        Self {
            settings,
            random,
            now_ms: 0,
            active_controller: None,
            is_failing_over: false,
            cluster: Cluster::default(),
            batch: RequestBatch::default(),
            tasks: Vec::new(),
            then: None,
            asker: None,
            elections: BTreeMap::new(),
            election_results: BTreeMap::new(),
            reassignments: BTreeMap::new(),
            queue: VecDeque::new(),
            queued_nodes: BTreeSet::new(),
            monotonic: Duration::ZERO,
            under_way: None,
            finished: Vec::new(),
            unclean_elections: 0,
            effects: Vec::new(),
        }
    }

    /// Reacts to one event. Effects run in order; what must follow a ZooKeeper write is returned only when
    /// that write's completion comes back as an event.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        self.now_ms = now.wall_clock_ms;
        self.monotonic = now.monotonic;
        match event {
            Event::SessionExpired | Event::Stopped => self.session_expired(),
            Event::ReadCompleted(result) => self.complete(Completion::Read(result)),
            Event::WriteCompleted(result) => self.complete(Completion::Write(result)),
            // A watch that fires twice before it is looked at says nothing new.
            Event::NodeChanged { path, change } => self.enqueue_node(path, change),
            event => self.queue.push_back((self.monotonic, event)),
        }
        self.run();
        std::mem::take(&mut self.effects)
    }

    /// Whether this broker is the controller.
    pub fn is_active(&self) -> bool {
        self.active_controller == Some(self.settings.broker_id)
    }

    /// Who is controller, as far as is known.
    pub fn active_controller(&self) -> Option<BrokerId> {
        self.active_controller
    }

    /// The epoch of the active controller; 0 for who is not.
    pub fn epoch(&self) -> ControllerEpoch {
        self.cluster.epoch
    }

    /// How many events wait.
    pub fn queue_length(&self) -> usize {
        self.queue.len()
    }

    /// How many leaders were elected outside their ISR.
    pub fn unclean_elections(&self) -> u64 {
        self.unclean_elections
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.then.is_none()
    }

    /// Walks over all partitions.
    pub fn totals(&self) -> Totals {
        let cluster = &self.cluster;
        let staying = cluster
            .all_partitions()
            .filter(|(of, _)| !cluster.is_queued_for_deletion(&of.topic));
        let imbalanced = staying.filter(|(_, partition)| {
            let preferred = partition.assignment.replicas.first();
            let leadership = partition.leadership.as_ref();
            leadership.is_some_and(|led| preferred.is_some_and(|id| id.0 != led.leader))
        });
        let leaving = |counts: &dyn Fn(ReplicaState) -> bool| {
            let replicas = cluster.deletions.queued.iter();
            let replicas = replicas.flat_map(|topic| cluster.replicas_of(topic));
            replicas
                .filter(|replica| counts(cluster.replica_state(replica)))
                .count()
        };
        Totals {
            live_brokers: cluster.brokers.len() - cluster.shutting_down.len(),
            topics: cluster.topics.len(),
            partitions: cluster.all_partitions().count(),
            offline_partitions: cluster.offline_partitions(),
            preferred_replica_imbalance: imbalanced.count(),
            topics_to_delete: cluster.deletions.queued.len(),
            topics_ineligible_for_deletion: cluster.deletions.ineligible.len(),
            replicas_to_delete: leaving(&|state| state != ReplicaState::DeletionSuccessful),
            replicas_ineligible_for_deletion: leaving(&|state| {
                state == ReplicaState::DeletionIneligible
            }),
        }
    }

    /// Goes on until an answer is awaited or nothing is left.
    fn run(&mut self) {
        while self.then.is_none() {
            if let Some(task) = self.tasks.pop() {
                self.perform(task);
            } else if let Some((enqueued, event)) = self.queue.pop_front() {
                self.activity_began(&event, enqueued);
                if let Event::NodeChanged { path, change } = &event {
                    self.queued_nodes.remove(&(path.clone(), *change));
                }
                self.asker = None;
                self.elections.clear();
                self.election_results.clear();
                self.reassignments.clear();
                self.begin(event);
            } else {
                self.activity_ended();
                return;
            }
        }
    }

    fn enqueue_node(&mut self, path: String, change: NodeChange) {
        if self.queued_nodes.insert((path.clone(), change)) {
            let event = Event::NodeChanged { path, change };
            self.queue.push_back((self.monotonic, event));
        }
    }

    fn complete(&mut self, completion: Completion) {
        // An answer that nobody waits for is from before the session expired.
        let Some(then) = self.then.take() else {
            return;
        };
        if let Err(failure) = self.resume(then, completion) {
            self.give_up(failure);
        }
    }

    /// Abandons the current event.
    fn give_up(&mut self, failure: Failure) {
        self.tasks.clear();
        self.batch.clear();
        self.refuse_asker(&failure);
        match failure {
            Failure::ControllerMoved => {
                self.report(Notice::ControllerMoved);
                self.is_failing_over = false;
                self.tasks.push(Task::LookAtSeat(task::IfVacant::Leave));
            }
            Failure::Other(reason) => {
                self.report(Notice::EventFailed { reason });
                if self.is_failing_over {
                    let epoch_version = self.cluster.epoch_version;
                    self.active_controller = None;
                    self.resign();
                    self.tasks.push(Task::LeaveSeat { epoch_version });
                }
            }
        }
    }

    /// Starts on an event.
    fn begin(&mut self, event: Event) {
        match event {
            Event::Started | Event::SessionEstablished => {
                self.tasks.push(Task::LookAtSeat(task::IfVacant::Elect));
            }
            Event::NodeChanged { path, change } => self.node_changed(&path, change),
            Event::LeaderAndIsrAnswered {
                broker,
                controller_epoch,
                outcome,
            } => {
                if self.is_of_now(controller_epoch) {
                    self.leader_and_isr_answered(broker, &outcome);
                }
            }
            Event::ReplicasDeleted {
                broker,
                controller_epoch,
                results,
            } => {
                if self.is_of_now(controller_epoch) {
                    self.replicas_deleted(broker, results);
                }
            }
            Event::TimerFired(Timer::AutoRebalance) => self.rebalance(),
            Event::Requested { ticket, request } => self.requested(ticket, request),
            Event::UncleanElectionEnabled { topic } => self.unclean_election_enabled(topic),
            Event::SettingsChanged(settings) => self.settings = settings,
            // Handled on arrival.
            Event::SessionExpired
            | Event::Stopped
            | Event::ReadCompleted(_)
            | Event::WriteCompleted(_) => {}
        }
    }

    fn is_of_now(&self, controller_epoch: ControllerEpoch) -> bool {
        self.is_active() && self.cluster.epoch == controller_epoch
    }

    /// Takes a step.
    fn perform(&mut self, task: Task) {
        match task {
            Task::LookAtSeat(if_vacant) => self.look_at_seat(if_vacant),
            Task::Elect => self.read_epoch(),
            Task::LeaveSeat { epoch_version } => self.leave_seat(epoch_version),
            Task::SetUpFeature => self.read_feature(),
            Task::DiscardNotifications => self.list_notifications(),
            Task::ReadCluster => self.list_cluster(),
            Task::ReadLeaderships => self.read_leaderships(),
            Task::ReadDeletions => self.read_deletions(),
            Task::StartReplicas => self.start_replicas(),
            Task::StartPartitions => self.start_partitions(),
            Task::FailoverDone => self.failover_done(),
            Task::SendBatch => self.send_batch(),
            Task::SendMetadata { to, partitions } => self.send_metadata(to, &partitions),
            Task::SendAllMetadata { to } => self.send_all_metadata(to),
            Task::MovePartitions { partitions, target } => {
                self.move_partitions(partitions, target);
            }
            Task::InitializePartitions(partitions) => self.initialize_partitions(partitions),
            Task::ElectLeaders {
                partitions,
                election,
            } => self.read_states_for_election(partitions, election),
            Task::BringPartitionsOnline => self.bring_partitions_online(),
            Task::MoveReplicas { replicas, target } => self.move_replicas(replicas, target),
            Task::MoveReplicasOf {
                broker,
                partitions,
                target,
            } => self.move_replicas_of(broker, partitions, target),
            Task::RemoveFromIsr { broker, partitions } => {
                self.read_states_for_removal(broker, partitions);
            }
            Task::SendPrepared(batch) => {
                self.batch = *batch;
                self.send_batch();
            }
            Task::RegisterAgain(bounced) => self.register_again(bounced),
            Task::ReadBrokers => self.list_brokers(),
            Task::ReadBroker(id) => self.read_broker(id),
            Task::BrokersStarted(ids) => self.brokers_started(ids),
            Task::BrokersFailed(ids) => self.brokers_failed(&ids),
            Task::ReplicasBecameOffline(replicas) => self.replicas_became_offline(replicas),
            Task::AnnounceUnlessElected => self.announce_unless_elected(),
            Task::ReadTopics => self.list_topics(),
            Task::AddTopics(topics) => self.add_topics(topics),
            Task::ReadTopic(topic) => self.read_topic(topic),
            Task::ReadDeletionMarkers => self.read_deletion_markers(),
            Task::ResumeDeletions => self.resume_deletions(),
            Task::ResumeDeletionsOf(topics) => self.resume_deletions_of(&topics),
            Task::DeleteTopics(topics) => self.delete_topics(topics),
            Task::DeletePartitions(topics) => self.delete_partitions(&topics),
            Task::HaltDeletions { topics, reason } => self.halt_deletions(topics, reason),
            Task::FailReplicaDeletions(replicas) => self.fail_replica_deletions(replicas),
            Task::CompleteReplicaDeletions(replicas) => {
                self.complete_replica_deletions(replicas);
            }
            Task::CompleteTopicDeletion(topic) => self.complete_topic_deletion(topic),
            Task::RetryDeletions(topics) => self.retry_deletions(&topics),
            Task::DeleteTopicNodes(topic) => self.list_topic_nodes(topic),
            Task::ReadLogDirEvents => self.list_log_dir_events(),
            Task::ReadIsrChanges => self.list_isr_changes(),
            Task::DeleteNodes(paths) => self.delete_nodes(paths),
            Task::ReadPreferredElection => self.read_preferred_election(),
            Task::ElectOnDemand { partitions, kind } => self.elect_on_demand(partitions, kind),
            Task::AnswerElections { partitions, kind } => self.answer_elections(partitions, kind),
            Task::AlterReassignments(wanted) => self.alter_reassignments(wanted),
            Task::AnswerReassignments => self.answer_reassignments(),
            Task::ReadReassignments => self.read_reassignments(),
            Task::DropFailedReassignments => self.drop_failed_reassignments(),
            Task::ResumeReassignments => self.resume_reassignments(),
            Task::ResumeReassignmentsTo(brokers) => self.resume_reassignments_to(&brokers),
            Task::Reassign { topic, assignments } => self.reassign(&topic, assignments),
            Task::NoteReassignment(of) => drop(self.cluster.reassigning.insert(of)),
            Task::WriteAssignments {
                topic,
                assignments,
                sequel,
            } => self.write_assignments(&topic, assignments, sequel),
            Task::TakeAssignment {
                partition,
                assignment,
            } => self.take_assignment(&partition, assignment),
            Task::RemoveReplicas {
                partition,
                replicas,
            } => self.remove_replicas(&partition, &replicas),
            Task::ContinueReassignments {
                partitions,
                if_incomplete,
            } => self.continue_reassignments(partitions, if_incomplete),
            Task::RaiseLeaderEpoch { partition, sequel } => {
                self.raise_leader_epoch(partition, sequel);
            }
            Task::CompleteReassignment(of) => self.complete_reassignment(of),
            Task::MoveLeaderIntoTarget { partition, sequel } => {
                self.move_leader_into_target(partition, sequel);
            }
            Task::NoteCompletion(of) => drop(self.cluster.completed.insert(of)),
            Task::WriteCompleted(topic) => self.write_completed(topic),
            Task::ForgetReassignments(partitions) => self.forget_reassignments(partitions),
            Task::DropReassignments(done) => self.read_reassignments_to_drop(done),
            Task::AlterPartitions(request) => self.alter_partitions(request),
            Task::AllocateProducerIds(broker) => self.read_producer_ids(broker),
            Task::AnswerControlledShutdown(broker) => self.answer_controlled_shutdown(broker),
        }
    }

    /// Goes on with an answer.
    fn resume(&mut self, then: Then, completion: Completion) -> Result<(), Failure> {
        match then {
            Then::SeatSeen(if_vacant) => self.seat_seen(if_vacant, &found(completion)?),
            Then::EpochRead => self.epoch_read(&found(completion)?)?,
            Then::EpochCreated => self.epoch_created(&written(completion)?),
            Then::SeatTaken { epoch } => self.seat_taken(epoch, &written(completion)?)?,
            Then::SeatChecked { epoch } => self.seat_checked(epoch, &found(completion)?)?,
            Then::FeatureRead => self.feature_read(&found(completion)?),
            Then::NotificationsListed => self.notifications_listed(&found(completion)?),
            Then::ClusterListed => self.cluster_listed(&found(completion)?),
            Then::ClusterRead { brokers, topics } => {
                self.cluster_read(&brokers, topics, &found(completion)?);
            }
            Then::TopicIdsWritten { topics, sequel } => {
                written(completion)?;
                self.topics_have_ids(topics, sequel);
            }
            Then::LeadershipsRead(partitions) => {
                self.leaderships_read(partitions, &found(completion)?);
            }
            Then::DeletionsRead => self.deletions_read(&found(completion)?),
            Then::PartitionsInitialized(states) => {
                self.partitions_initialized(states, &written(completion)?);
            }
            Then::ElectionStatesRead {
                partitions,
                election,
            } => self.election_states_read(partitions, election, &found(completion)?),
            Then::UncleanConfigsRead {
                states,
                topics,
                election,
            } => self.unclean_configs_read(states, &topics, election, &found(completion)?),
            Then::ElectionsWritten {
                elections,
                election,
            } => self.elections_written(elections, election, written(completion)?),
            Then::IsrStatesRead { broker, partitions } => {
                self.isr_states_read(broker, partitions, &found(completion)?);
            }
            Then::IsrsWritten { broker, removals } => {
                self.isrs_written(broker, removals, written(completion)?);
            }
            Then::BrokersListed => self.brokers_listed(&found(completion)?),
            Then::BrokersRead(ids) => self.brokers_read(&ids, &found(completion)?),
            Then::BrokerRead(id) => self.broker_read(id, &found(completion)?),
            Then::TopicsListed => self.topics_listed(&found(completion)?),
            Then::TopicsRead(topics) => self.topics_read(topics, &found(completion)?),
            Then::TopicRead(topic) => self.topic_read(topic, &found(completion)?),
            Then::PartitionsListed { topic, assignment } => {
                self.partitions_listed(&topic, assignment, &found(completion)?);
            }
            Then::DeletionMarkersRead => self.deletion_markers_read(&found(completion)?),
            Then::TopicNodesListed {
                topic,
                listed,
                known,
            } => self.topic_nodes_listed(topic, listed, known, &found(completion)?),
            Then::TopicNodesDeleted(topic) => {
                topic_is_gone(&written(completion)?)?;
                self.topic_deleted(topic);
            }
            Then::LogDirEventsListed => self.log_dir_events_listed(&found(completion)?),
            Then::LogDirEventsRead(paths) => {
                self.log_dir_events_read(paths, &found(completion)?);
            }
            Then::IsrChangesListed => self.isr_changes_listed(&found(completion)?),
            Then::IsrChangesRead(paths) => self.isr_changes_read(paths, &found(completion)?),
            Then::PreferredElectionRead => self.preferred_election_read(&found(completion)?),
            Then::ReassignmentsRead => self.reassignments_read(&found(completion)?),
            Then::ReassignmentsToDropRead(done) => {
                self.drop_reassignments(&done, &found(completion)?);
            }
            Then::ReassignmentStatesRead {
                partitions,
                if_incomplete,
            } => self.reassignment_states_read(partitions, if_incomplete, &found(completion)?),
            Then::AssignmentsWritten { partitions, sequel } => {
                self.assignments_written(partitions, sequel, &written(completion)?);
            }
            Then::LeaderEpochRead { partition, sequel } => {
                self.leader_epoch_read(partition, sequel, &found(completion)?);
            }
            Then::LeaderEpochRaised {
                partition,
                leadership,
                sequel,
            } => {
                self.leader_epoch_raised(partition, leadership, sequel, &written(completion)?);
            }
            Then::IsrProposalsWritten { answers, writes } => {
                self.isr_proposals_written(answers, writes, written(completion)?);
            }
            Then::ProducerIdsRead(broker) => self.producer_ids_read(broker, &found(completion)?)?,
            Then::ProducerIdsWritten { broker, block } => {
                self.producer_ids_written(broker, &block, &written(completion)?)?;
            }
            Then::Ignore => drop(completion.outcome()?),
        }
        Ok(())
    }

    /// Puts steps on the stack, to be taken in this order before what is there already.
    fn push(&mut self, tasks: impl IntoIterator<Item = Task, IntoIter: DoubleEndedIterator>) {
        self.tasks.extend(tasks.into_iter().rev());
    }

    fn report(&mut self, notice: Notice) {
        self.effects.push(Effect::Report(notice));
    }

    /// Asks ZooKeeper; nothing else happens until the answer is there.
    fn read(&mut self, reads: Vec<Read>, then: Then) {
        self.effects.push(Effect::Read(reads));
        self.then = Some(then);
    }

    /// Writes as the controller that was elected.
    fn write_fenced(&mut self, writes: Vec<Write>, then: Then) {
        self.effects.push(Effect::WriteFenced {
            epoch_version: self.cluster.epoch_version,
            writes,
        });
        self.then = Some(then);
    }

    fn write(&mut self, writes: Vec<Write>, then: Then) {
        self.effects.push(Effect::Write(writes));
        self.then = Some(then);
    }

    fn send_batch(&mut self) {
        let requests = self.batch.flush(&self.cluster, &self.settings);
        self.effects.extend(requests);
    }

    fn send_metadata(&mut self, to: Option<Vec<BrokerId>>, partitions: &[TopicPartition]) {
        self.batch.clear();
        let receivers = to.unwrap_or_else(|| self.cluster.registered_ids());
        self.batch
            .update_metadata(&self.cluster, receivers, partitions);
        self.send_batch();
    }

    fn send_all_metadata(&mut self, to: Vec<BrokerId>) {
        let all = self.cluster.all_partitions();
        let led = all.filter(|(of, partition)| {
            partition.leadership.is_some() && !self.cluster.is_queued_for_deletion(&of.topic)
        });
        let led: Vec<_> = led.map(|(of, _)| of).collect();
        self.send_metadata(Some(to), &led);
    }
}
