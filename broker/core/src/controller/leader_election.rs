//! Elections that somebody asks for, and those that bring leaders back to their preferred replicas.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::Partition;
use super::election::Election;
use super::event::Found;
use super::task::{PartitionTarget, Task, Then};
use super::{Answer, Controller, Effect, Read, Timer};
use crate::control::NO_LEADER;
use crate::ids::{BrokerId, TopicPartition};
use crate::znodes::PreferredElection;

/// What kind of leader an administrator wants (KIP-460).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ElectionType {
    /// The first replica of the assignment.
    Preferred,
    /// Any replica that is online, for a partition that has no leader.
    Unclean,
}

impl ElectionType {
    fn election(self) -> Election {
        match self {
            Self::Preferred => Election::Preferred,
            Self::Unclean => Election::Offline {
                allow_unclean: true,
            },
        }
    }
}

/// Why a partition got no other leader. The text is Kafka's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectLeaderError {
    #[error("Leader election not needed for topic partition.")]
    NotNeeded,
    #[error("The partition does not exist.")]
    UnknownTopicOrPartition,
    #[error("The topic is being deleted")]
    BeingDeleted,
    /// The preferred replica is not online or not in sync.
    #[error("{0}")]
    PreferredLeaderNotAvailable(String),
    /// No replica is online.
    #[error("{0}")]
    EligibleLeadersNotAvailable(String),
}

impl Controller {
    pub(super) fn elect_on_demand(
        &mut self,
        partitions: BTreeSet<TopicPartition>,
        kind: ElectionType,
    ) {
        let mut electable = Vec::new();
        for of in partitions {
            let refusal = match self.cluster.partition(&of) {
                None => Some(ElectLeaderError::UnknownTopicOrPartition),
                Some(_) if self.cluster.is_queued_for_deletion(&of.topic) => {
                    Some(ElectLeaderError::BeingDeleted)
                }
                Some(partition) if self.needs(kind, partition) => None,
                Some(_) => Some(ElectLeaderError::NotNeeded),
            };
            match refusal {
                Some(error) => drop(self.election_results.insert(of, Err(error))),
                None => electable.push(of),
            }
        }
        self.push([
            Task::MovePartitions {
                partitions: electable.clone(),
                target: PartitionTarget::Online(kind.election()),
            },
            Task::AnswerElections {
                partitions: electable,
                kind,
            },
        ]);
    }

    fn needs(&self, kind: ElectionType, partition: &Partition) -> bool {
        let leader = partition.leadership.as_ref();
        let leader = leader.map_or(NO_LEADER, |leadership| leadership.leader);
        match kind {
            ElectionType::Preferred => {
                let preferred = partition.assignment.replicas.first();
                preferred.is_some_and(|id| id.0 != leader)
            }
            ElectionType::Unclean => leader == NO_LEADER || !self.cluster.is_live(BrokerId(leader)),
        }
    }

    pub(super) fn answer_elections(&mut self, partitions: Vec<TopicPartition>, kind: ElectionType) {
        let mut results = std::mem::take(&mut self.election_results);
        for of in partitions {
            let failure = |reason: String| match kind {
                ElectionType::Preferred => ElectLeaderError::PreferredLeaderNotAvailable(reason),
                ElectionType::Unclean => ElectLeaderError::EligibleLeadersNotAvailable(reason),
            };
            let leader = self
                .cluster
                .leadership(&of)
                .map_or(NO_LEADER, |led| led.leader);
            let result = match self.elections.get(&of) {
                Some(Ok(())) => Ok(BrokerId(leader)),
                Some(Err(reason)) => Err(failure(reason.clone())),
                None => Err(failure("nothing was tried".to_owned())),
            };
            results.insert(of, result);
        }
        self.answer(Answer::ElectLeaders(Ok(results)));
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
        // While replicas move there is load enough.
        if !self.cluster.reassigning.is_empty() {
            by_preferred.clear();
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
                in_sync && self.cluster.is_online(preferred, of)
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
}
