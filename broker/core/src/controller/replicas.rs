//! Moving replicas from state to state (Kafka's `ZkReplicaStateMachine`).

use std::collections::BTreeMap;

use super::cluster::{Replica, ReplicaState};
use super::election::without_replica;
use super::event::{Found, WriteError, WriteResult};
use super::failover::state_reads;
use super::partitions::state_write;
use super::request_batch::{Novelty, Stop};
use super::task::{Task, Then};
use super::{Controller, Notice};
use crate::control::Leadership;
use crate::ids::{BrokerId, TopicPartition};

impl Controller {
    pub(super) fn move_replicas(&mut self, replicas: Vec<Replica>, target: ReplicaState) {
        self.batch.clear();
        let mut by_broker: BTreeMap<BrokerId, Vec<TopicPartition>> = BTreeMap::new();
        for (of, id) in replicas {
            by_broker.entry(id).or_default().push(of);
        }
        let moves = by_broker.into_iter();
        let moves = moves.map(|(broker, partitions)| Task::MoveReplicasOf {
            broker,
            partitions,
            target,
        });
        let tasks: Vec<_> = moves.chain([Task::SendBatch]).collect();
        self.push(tasks);
    }

    pub(super) fn move_replicas_of(
        &mut self,
        broker: BrokerId,
        partitions: Vec<TopicPartition>,
        target: ReplicaState,
    ) {
        let mut moving = Vec::with_capacity(partitions.len());
        for of in partitions {
            let replica = (of, broker);
            if self.cluster.replica_state(&replica).may_become(target) {
                moving.push(replica);
            } else {
                self.replica_not_moved(&replica, target, "there is no way from one to the other");
            }
        }
        match target {
            ReplicaState::New => self.create_replicas(moving),
            ReplicaState::Online => self.start_existing_replicas(moving),
            ReplicaState::Offline => self.stop_replicas(broker, moving),
            ReplicaState::DeletionStarted => {
                for replica in moving {
                    self.cluster.set_replica_state(&replica, target);
                    let (of, stop) = (&replica.0, Stop::DeleteLog);
                    self.batch.stop_replica(&self.cluster, broker, of, stop);
                }
            }
            ReplicaState::DeletionSuccessful | ReplicaState::DeletionIneligible => {
                for replica in moving {
                    self.cluster.set_replica_state(&replica, target);
                }
            }
            ReplicaState::NonExistent => {
                for (of, id) in moving {
                    if let Some(partition) = self.cluster.partition_mut(&of) {
                        let assignment = &mut partition.assignment;
                        assignment.replicas.retain(|replica| *replica != id);
                        assignment.adding_replicas.retain(|replica| *replica != id);
                        assignment
                            .removing_replicas
                            .retain(|replica| *replica != id);
                        partition.replicas.remove(&id);
                    }
                }
            }
        }
    }

    fn replica_not_moved(&mut self, replica: &Replica, to: ReplicaState, reason: &'static str) {
        self.report(Notice::ReplicaNotMoved {
            partition: replica.0.clone(),
            replica: replica.1,
            from: self.cluster.replica_state(replica),
            to,
            reason,
        });
    }

    /// A replica that did not exist may only follow.
    fn create_replicas(&mut self, replicas: Vec<Replica>) {
        for replica in replicas {
            let (of, id) = &replica;
            if let Some(leadership) = self.cluster.leadership(of).cloned() {
                if leadership.leader == id.0 {
                    self.replica_not_moved(&replica, ReplicaState::New, "it leads the partition");
                    continue;
                }
                let (receivers, novelty) = ([*id], Novelty::New);
                self.batch
                    .lead_or_follow(&self.cluster, receivers, of, &leadership, novelty);
            }
            self.cluster.set_replica_state(&replica, ReplicaState::New);
        }
    }

    fn start_existing_replicas(&mut self, replicas: Vec<Replica>) {
        for replica in replicas {
            let (of, id) = &replica;
            if self.cluster.replica_state(&replica) == ReplicaState::New {
                if let Some(partition) = self.cluster.partition_mut(of) {
                    let assigned = &mut partition.assignment.replicas;
                    if !assigned.contains(id) {
                        assigned.push(*id);
                    }
                }
            } else if let Some(leadership) = self.cluster.leadership(of).cloned() {
                let (receivers, novelty) = ([*id], Novelty::Existing);
                self.batch
                    .lead_or_follow(&self.cluster, receivers, of, &leadership, novelty);
            }
            self.cluster
                .set_replica_state(&replica, ReplicaState::Online);
        }
    }

    fn stop_replicas(&mut self, broker: BrokerId, replicas: Vec<Replica>) {
        let mut led = Vec::new();
        for replica in replicas {
            let of = &replica.0;
            self.batch
                .stop_replica(&self.cluster, broker, of, Stop::KeepLog);
            if self.cluster.leadership(of).is_some() {
                led.push(replica.0);
            } else {
                let receivers = self.cluster.registered_ids();
                self.batch.update_metadata(&self.cluster, receivers, [of]);
                self.cluster
                    .set_replica_state(&replica, ReplicaState::Offline);
            }
        }
        if !led.is_empty() {
            self.tasks.push(Task::RemoveFromIsr {
                broker,
                partitions: led,
            });
        }
    }

    pub(super) fn read_states_for_removal(
        &mut self,
        broker: BrokerId,
        partitions: Vec<TopicPartition>,
    ) {
        let reads = state_reads(&partitions);
        self.read(reads, Then::IsrStatesRead { broker, partitions });
    }

    pub(super) fn isr_states_read(
        &mut self,
        broker: BrokerId,
        partitions: Vec<TopicPartition>,
        found: &[Found],
    ) {
        let mut removals = Vec::new();
        for (of, found) in partitions.into_iter().zip(found) {
            let Some(mut state) = self.decode_state(&of, found.data()) else {
                if !self.cluster.is_queued_for_deletion(&of.topic) {
                    let reason = "the partition has no usable state znode";
                    self.replica_not_moved(&(of, broker), ReplicaState::Offline, reason);
                }
                continue;
            };
            if state.isr.contains(&broker) {
                let mut next = without_replica(&state, broker);
                next.controller_epoch = self.cluster.epoch;
                removals.push((of, next));
            } else {
                // Nothing to write, yet the others hear of it under this controller's epoch.
                state.controller_epoch = self.cluster.epoch;
                self.replica_is_offline(&of, broker, &state);
            }
        }
        if removals.is_empty() {
            return;
        }
        let writes = removals.iter().map(|(of, next)| state_write(of, next));
        let writes = writes.collect();
        self.write_fenced(writes, Then::IsrsWritten { broker, removals });
    }

    pub(super) fn isrs_written(
        &mut self,
        broker: BrokerId,
        removals: Vec<(TopicPartition, Leadership)>,
        results: Vec<WriteResult>,
    ) {
        let mut again = Vec::new();
        for ((of, mut leadership), result) in removals.into_iter().zip(results) {
            match result {
                Ok(version) => {
                    leadership.partition_epoch = version;
                    self.replica_is_offline(&of, broker, &leadership);
                }
                // The leader changed its ISR meanwhile: look again.
                Err(WriteError::BadVersion) => again.push(of),
                Err(_) => {
                    let reason = "the state of the partition was not written";
                    self.replica_not_moved(&(of, broker), ReplicaState::Offline, reason);
                }
            }
        }
        if !again.is_empty() {
            self.tasks.push(Task::RemoveFromIsr {
                broker,
                partitions: again,
            });
        }
    }

    fn replica_is_offline(
        &mut self,
        of: &TopicPartition,
        broker: BrokerId,
        leadership: &Leadership,
    ) {
        if let Some(partition) = self.cluster.partition_mut(of) {
            partition.leadership = Some(leadership.clone());
            let replicas = partition.assignment.replicas.iter();
            let others: Vec<_> = replicas.filter(|id| **id != broker).copied().collect();
            if !self.cluster.is_queued_for_deletion(&of.topic) {
                let novelty = Novelty::Existing;
                self.batch
                    .lead_or_follow(&self.cluster, others, of, leadership, novelty);
            }
        }
        let replica = (of.clone(), broker);
        self.cluster
            .set_replica_state(&replica, ReplicaState::Offline);
    }
}
