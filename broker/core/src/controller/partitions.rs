//! Moving partitions from state to state (Kafka's `ZkPartitionStateMachine`).

use std::collections::BTreeSet;

use super::cluster::PartitionState;
use super::election::{
    Elected, Election, controlled_shutdown_leader, first_leadership, offline_leader,
    preferred_leader, reassign_leader,
};
use super::event::{Found, WriteError, WriteResult};
use super::failover::state_reads;
use super::request_batch::Novelty;
use super::task::{PartitionTarget, Task, Then};
use super::{Controller, Notice, Read, Write};
use crate::control::Leadership;
use crate::ids::{BrokerId, TopicName, TopicPartition};
use crate::znodes::{ConfigEntity, EntityConfig, PartitionState as PartitionStateZnode};

impl Controller {
    pub(super) fn move_partitions(
        &mut self,
        partitions: Vec<TopicPartition>,
        target: PartitionTarget,
    ) {
        self.batch.clear();
        let to = target.state();
        let mut moving = Vec::with_capacity(partitions.len());
        for of in partitions {
            let from = self.cluster.partition_state(&of);
            if from.may_become(to) {
                moving.push(of);
            } else {
                self.partition_not_moved(of, to, "there is no way from one to the other");
            }
        }
        match target {
            PartitionTarget::New | PartitionTarget::Offline | PartitionTarget::NonExistent => {
                for of in &moving {
                    self.cluster.set_partition_state(of, to);
                }
            }
            PartitionTarget::Online(election) => {
                let (uninitialized, led): (Vec<_>, Vec<_>) = moving
                    .into_iter()
                    .partition(|of| self.cluster.partition_state(of) == PartitionState::New);
                self.push([
                    Task::InitializePartitions(uninitialized),
                    Task::ElectLeaders {
                        partitions: led,
                        election,
                    },
                    Task::SendBatch,
                ]);
            }
        }
    }

    fn partition_not_moved(
        &mut self,
        partition: TopicPartition,
        to: PartitionState,
        reason: impl Into<String>,
    ) {
        let reason = reason.into();
        self.report(Notice::PartitionNotMoved {
            from: self.cluster.partition_state(&partition),
            partition: partition.clone(),
            to,
            reason: reason.clone(),
        });
        self.elections.insert(partition, Err(reason));
    }

    /// Gives new partitions their first leader, and a state znode.
    pub(super) fn initialize_partitions(&mut self, partitions: Vec<TopicPartition>) {
        let mut states = Vec::with_capacity(partitions.len());
        for of in partitions {
            let Some(partition) = self.cluster.partition(&of) else {
                continue;
            };
            let replicas = &partition.assignment.replicas;
            let is_online = |id| self.cluster.is_online(id, &of);
            if let Some(leadership) = first_leadership(replicas, is_online, self.cluster.epoch) {
                states.push((of, leadership));
            } else {
                let to = PartitionState::Online;
                self.partition_not_moved(of, to, "no replica is online");
            }
        }
        if states.is_empty() {
            return;
        }
        let null = |path| Write::Create { path, data: None };
        let topics: BTreeSet<&TopicName> = states.iter().map(|(of, _)| &of.topic).collect();
        let parents = topics.into_iter();
        let parents = parents.map(|topic| null(PartitionStateZnode::partitions_path(topic)));
        let of_partitions = states.iter();
        let of_partitions =
            of_partitions.map(|(of, _)| null(PartitionStateZnode::partition_path(of)));
        let of_states = states.iter().map(|(of, leadership)| Write::Create {
            path: PartitionStateZnode::path(of),
            data: Some(PartitionStateZnode::encode(leadership)),
        });
        let writes = parents.chain(of_partitions).chain(of_states).collect();
        self.write_fenced(writes, Then::PartitionsInitialized(states));
    }

    pub(super) fn partitions_initialized(
        &mut self,
        states: Vec<(TopicPartition, Leadership)>,
        results: &[WriteResult],
    ) {
        // The results of the state znodes are the last; their parents may have existed.
        let of_states = results.len().saturating_sub(states.len());
        for ((of, leadership), result) in states.into_iter().zip(&results[of_states..]) {
            match result {
                Ok(_) => {
                    let receivers = leadership.isr.clone();
                    self.leader_found(&of, &leadership, receivers, Novelty::New);
                }
                Err(error) => {
                    let reason = format!("its state znode was not created: {error}");
                    self.partition_not_moved(of, PartitionState::Online, reason);
                }
            }
        }
    }

    /// A state that ZooKeeper has taken: remember it, and tell who has to know.
    fn leader_found(
        &mut self,
        of: &TopicPartition,
        leadership: &Leadership,
        receivers: Vec<BrokerId>,
        novelty: Novelty,
    ) {
        self.report(Notice::LeaderElected {
            partition: of.clone(),
            leader: leadership.leader,
            leader_epoch: leadership.leader_epoch,
            isr: leadership.isr.clone(),
        });
        if let Some(partition) = self.cluster.partition_mut(of) {
            partition.leadership = Some(leadership.clone());
            partition.state = PartitionState::Online;
        }
        self.elections.insert(of.clone(), Ok(()));
        self.batch
            .lead_or_follow(&self.cluster, receivers, of, leadership, novelty);
    }

    pub(super) fn read_states_for_election(
        &mut self,
        partitions: Vec<TopicPartition>,
        election: Election,
    ) {
        if partitions.is_empty() {
            return;
        }
        let reads = state_reads(&partitions);
        let then = Then::ElectionStatesRead {
            partitions,
            election,
        };
        self.read(reads, then);
    }

    pub(super) fn election_states_read(
        &mut self,
        partitions: Vec<TopicPartition>,
        election: Election,
        found: &[Found],
    ) {
        let mut states = Vec::with_capacity(partitions.len());
        for (of, found) in partitions.into_iter().zip(found) {
            match self.decode_state(&of, found.data()) {
                Some(state) if state.controller_epoch > self.cluster.epoch => {
                    let reason = "a later controller has written its state";
                    self.partition_not_moved(of, PartitionState::Online, reason);
                }
                Some(state) => states.push((of, state)),
                None => {
                    let reason = "it has no usable state znode";
                    self.partition_not_moved(of, PartitionState::Online, reason);
                }
            }
        }
        let topics = match election {
            Election::Offline {
                allow_unclean: false,
            } => self.topics_without_clean_candidate(&states),
            Election::Offline {
                allow_unclean: true,
            }
            | Election::Reassign
            | Election::Preferred
            | Election::ControlledShutdown => Vec::new(),
        };
        if topics.is_empty() {
            self.elect(states, election, &BTreeSet::new());
            return;
        }
        let entities = topics
            .iter()
            .map(|topic| ConfigEntity::Topic(topic.to_string()));
        let reads = entities.map(|entity| Read::data(entity.path())).collect();
        let then = Then::UncleanConfigsRead {
            states,
            topics,
            election,
        };
        self.read(reads, then);
    }

    /// Topics whose configuration decides whether a leader outside the ISR will do.
    fn topics_without_clean_candidate(
        &self,
        states: &[(TopicPartition, Leadership)],
    ) -> Vec<TopicName> {
        let in_need = states.iter().filter(|(of, state)| {
            let mut isr = state.isr.iter();
            !isr.any(|id| self.cluster.is_online(*id, of))
        });
        let topics: BTreeSet<_> = in_need.map(|(of, _)| of.topic.clone()).collect();
        topics.into_iter().collect()
    }

    pub(super) fn unclean_configs_read(
        &mut self,
        mut states: Vec<(TopicPartition, Leadership)>,
        topics: &[TopicName],
        election: Election,
        found: &[Found],
    ) {
        let mut unclean = BTreeSet::new();
        for (topic, found) in topics.iter().zip(found) {
            let overrides = found.data().map(|node| EntityConfig::decode(&node.data));
            let allowed = match overrides {
                None => self.settings.unclean_leader_election_enable,
                Some(Ok(config)) => config
                    .0
                    .get("unclean.leader.election.enable")
                    .map_or(self.settings.unclean_leader_election_enable, |text| {
                        text.trim().eq_ignore_ascii_case("true")
                    }),
                Some(Err(error)) => {
                    let path = ConfigEntity::Topic(topic.to_string()).path();
                    self.malformed(path, &error);
                    // Unknown whether it is allowed: skip what depends on it.
                    states.retain(|(of, _)| of.topic != *topic);
                    false
                }
            };
            if allowed {
                unclean.insert(topic.clone());
            }
        }
        self.elect(states, election, &unclean);
    }

    fn elect(
        &mut self,
        states: Vec<(TopicPartition, Leadership)>,
        election: Election,
        unclean: &BTreeSet<TopicName>,
    ) {
        let mut elections = Vec::with_capacity(states.len());
        for (of, current) in states {
            let Some((elected, receivers)) = self.find_leader(&of, &current, election, unclean)
            else {
                let strategy = election.strategy();
                let reason =
                    format!("Failed to elect leader for partition {of} under strategy {strategy}");
                self.partition_not_moved(of, PartitionState::Online, reason);
                continue;
            };
            self.unclean_elections += u64::from(elected.is_unclean);
            let mut next = elected.leadership(&current);
            next.controller_epoch = self.cluster.epoch;
            elections.push((of, next, receivers));
        }
        if elections.is_empty() {
            return;
        }
        let writes = elections.iter().map(|(of, next, _)| state_write(of, next));
        let writes = writes.collect();
        let then = Then::ElectionsWritten {
            elections,
            election,
        };
        self.write_fenced(writes, then);
    }

    /// The leader, and the brokers that are told.
    fn find_leader(
        &self,
        of: &TopicPartition,
        current: &Leadership,
        election: Election,
        unclean: &BTreeSet<TopicName>,
    ) -> Option<(Elected, Vec<BrokerId>)> {
        let cluster = &self.cluster;
        let assignment = &cluster.partition(of)?.assignment;
        let isr = &current.isr;
        let is_online = |id| cluster.is_online(id, of);
        let is_there = |id| cluster.is_online_or_shutting_down(id, of);
        let those = |of_these: &[BrokerId], which: &dyn Fn(BrokerId) -> bool| {
            let found = of_these.iter().filter(|id| which(**id));
            found.copied().collect::<Vec<_>>()
        };
        match election {
            Election::Offline { allow_unclean } => {
                let allow_unclean = allow_unclean || unclean.contains(&of.topic);
                let elected = offline_leader(&assignment.replicas, isr, is_online, allow_unclean)?;
                Some((elected, those(&assignment.replicas, &is_online)))
            }
            Election::Reassign => {
                let target = assignment.target_replicas();
                let elected = reassign_leader(&target, isr, is_online)?;
                Some((elected, target))
            }
            Election::Preferred => {
                let elected = preferred_leader(&assignment.replicas, isr, is_online)?;
                Some((elected, assignment.replicas.clone()))
            }
            Election::ControlledShutdown => {
                let is_stopping = |id| cluster.shutting_down.contains(&id);
                let replicas = &assignment.replicas;
                let elected = controlled_shutdown_leader(replicas, isr, is_there, is_stopping)?;
                Some((elected, those(replicas, &is_there)))
            }
        }
    }

    pub(super) fn elections_written(
        &mut self,
        elections: Vec<(TopicPartition, Leadership, Vec<BrokerId>)>,
        election: Election,
        results: Vec<WriteResult>,
    ) {
        let mut again = Vec::new();
        for ((of, mut leadership, receivers), result) in elections.into_iter().zip(results) {
            match result {
                Ok(version) => {
                    leadership.partition_epoch = version;
                    self.leader_found(&of, &leadership, receivers, Novelty::Existing);
                }
                // The leader changed its ISR meanwhile: look again.
                Err(WriteError::BadVersion) => again.push(of),
                Err(error) => {
                    let reason = format!("its state was not written: {error}");
                    self.partition_not_moved(of, PartitionState::Online, reason);
                }
            }
        }
        if !again.is_empty() {
            self.tasks.push(Task::ElectLeaders {
                partitions: again,
                election,
            });
        }
    }

    pub(super) fn bring_partitions_online(&mut self) {
        let all = self.cluster.all_partitions();
        let without_leader = all.filter(|(of, partition)| {
            let is_down = match partition.state {
                PartitionState::New | PartitionState::Offline => true,
                PartitionState::Online | PartitionState::NonExistent => false,
            };
            is_down && !self.cluster.is_queued_for_deletion(&of.topic)
        });
        let partitions: Vec<_> = without_leader.map(|(of, _)| of).collect();
        if partitions.is_empty() {
            return;
        }
        let allow_unclean = false;
        self.tasks.push(Task::MovePartitions {
            partitions,
            target: PartitionTarget::Online(Election::Offline { allow_unclean }),
        });
    }
}

/// The write of a new state over the version that it was made from.
pub(super) fn state_write(of: &TopicPartition, next: &Leadership) -> Write {
    Write::Set {
        path: PartitionStateZnode::path(of),
        data: PartitionStateZnode::encode(next),
        version: Some(next.partition_epoch),
    }
}
