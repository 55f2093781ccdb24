//! The controller's view of the cluster: what ZooKeeper says, and where each partition and replica stands.

use std::collections::{BTreeMap, BTreeSet};

use crate::control::{BrokerAddress, Leadership, LiveBroker};
use crate::ids::{BrokerEpoch, BrokerId, ControllerEpoch, TopicId, TopicName, TopicPartition};
use crate::znodes::PartitionAssignment;

/// Where a partition stands (Kafka's `PartitionState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum PartitionState {
    /// Never created, or deleted.
    #[default]
    NonExistent,
    /// Has replicas, but no leader and ISR yet.
    New,
    /// Has a leader.
    Online,
    /// Its leader died, or its topic is being deleted.
    Offline,
}

impl PartitionState {
    pub fn may_become(self, target: Self) -> bool {
        match target {
            Self::New => self == Self::NonExistent,
            Self::Online | Self::Offline => self != Self::NonExistent,
            Self::NonExistent => self == Self::Offline,
        }
    }
}

/// Where a replica stands (Kafka's `ReplicaState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ReplicaState {
    #[default]
    NonExistent,
    /// Created, may only follow.
    New,
    Online,
    /// Its broker or its log directory is down, or its topic is being deleted.
    Offline,
    /// Told to delete itself.
    DeletionStarted,
    /// Deleted itself.
    DeletionSuccessful,
    /// Cannot be deleted now.
    DeletionIneligible,
}

impl ReplicaState {
    pub fn may_become(self, target: Self) -> bool {
        match target {
            Self::New => self == Self::NonExistent,
            Self::Online | Self::Offline => matches!(
                self,
                Self::New | Self::Online | Self::Offline | Self::DeletionIneligible
            ),
            Self::DeletionStarted => self == Self::Offline,
            Self::DeletionSuccessful => self == Self::DeletionStarted,
            Self::DeletionIneligible => matches!(self, Self::Offline | Self::DeletionStarted),
            Self::NonExistent => self == Self::DeletionSuccessful,
        }
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Partition {
    pub(super) assignment: PartitionAssignment,
    /// What its state znode said last.
    pub(super) leadership: Option<Leadership>,
    pub(super) state: PartitionState,
    pub(super) replicas: BTreeMap<BrokerId, ReplicaState>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Topic {
    pub(super) id: Option<TopicId>,
    pub(super) partitions: BTreeMap<i32, Partition>,
}

impl Topic {
    /// Whether there are replicas and all of them are in `state`.
    pub(super) fn all_replicas_are(&self, state: ReplicaState) -> bool {
        self.replica_states().all(|found| found == state)
    }

    pub(super) fn any_replica_is(&self, state: ReplicaState) -> bool {
        self.replica_states().any(|found| found == state)
    }

    fn replica_states(&self) -> impl Iterator<Item = ReplicaState> {
        self.partitions.values().flat_map(|partition| {
            let replicas = partition.assignment.replicas.iter();
            replicas.map(|id| partition.replicas.get(id).copied().unwrap_or_default())
        })
    }
}

/// A broker that has a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RegisteredBroker {
    pub(super) broker: LiveBroker,
    pub(super) epoch: BrokerEpoch,
}

/// Topics on their way out.
#[derive(Clone, Debug, Default)]
pub(super) struct Deletions {
    /// All that are to be deleted.
    pub(super) queued: BTreeSet<TopicName>,
    /// Those whose partitions are gone already.
    pub(super) started: BTreeSet<TopicName>,
    /// Those that have to wait.
    pub(super) ineligible: BTreeSet<TopicName>,
}

impl Deletions {
    pub(super) fn queue(&mut self, topics: impl IntoIterator<Item = TopicName>) {
        self.queued.extend(topics);
    }

    /// Lets those of `topics` wait that are queued; returns them.
    pub(super) fn halt(&mut self, topics: impl IntoIterator<Item = TopicName>) -> Vec<TopicName> {
        let topics = topics.into_iter();
        let halted: Vec<_> = topics.filter(|topic| self.queued.contains(topic)).collect();
        self.ineligible.extend(halted.iter().cloned());
        halted
    }

    fn forget(&mut self, topic: &str) {
        self.queued.remove(topic);
        self.started.remove(topic);
        self.ineligible.remove(topic);
    }
}

/// A replica of a partition.
pub(super) type Replica = (TopicPartition, BrokerId);

/// Everything that a controller knows; empty for who is not controller.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    pub(super) epoch: ControllerEpoch,
    /// Data version of `/controller_epoch`: guards every write.
    pub(super) epoch_version: i32,
    pub(super) brokers: BTreeMap<BrokerId, RegisteredBroker>,
    /// Registered brokers that asked to be relieved of their leaderships.
    pub(super) shutting_down: BTreeSet<BrokerId>,
    pub(super) topics: BTreeMap<TopicName, Topic>,
    /// Names of the topics that have an id.
    topic_names: BTreeMap<TopicId, TopicName>,
    /// Replicas in log directories that failed.
    pub(super) offline_dirs: BTreeMap<BrokerId, BTreeSet<TopicPartition>>,
    pub(super) deletions: Deletions,
    pub(super) reassigning: BTreeSet<TopicPartition>,
    /// Of these, whose replicas are as they shall be while the topic's znode does not say so yet.
    pub(super) completed: BTreeSet<TopicPartition>,
}

impl Cluster {
    pub(super) fn is_registered(&self, id: BrokerId) -> bool {
        self.brokers.contains_key(&id)
    }

    /// Registered, and not about to stop.
    pub(super) fn is_live(&self, id: BrokerId) -> bool {
        self.is_registered(id) && !self.shutting_down.contains(&id)
    }

    pub(super) fn live_brokers(&self) -> Vec<LiveBroker> {
        let registered = self.brokers.values();
        registered.map(|known| known.broker.clone()).collect()
    }

    /// Also of brokers that are about to stop.
    pub(super) fn registered_ids(&self) -> Vec<BrokerId> {
        self.brokers.keys().copied().collect()
    }

    pub(super) fn is_online(&self, id: BrokerId, partition: &TopicPartition) -> bool {
        self.is_live(id) && self.has_its_log(id, partition)
    }

    pub(super) fn is_online_or_shutting_down(
        &self,
        id: BrokerId,
        partition: &TopicPartition,
    ) -> bool {
        self.is_registered(id) && self.has_its_log(id, partition)
    }

    fn has_its_log(&self, id: BrokerId, partition: &TopicPartition) -> bool {
        let offline = self.offline_dirs.get(&id);
        !offline.is_some_and(|offline| offline.contains(partition))
    }

    pub(super) fn topic_id(&self, topic: &str) -> Option<TopicId> {
        self.topics.get(topic)?.id
    }

    /// Makes a topic known by its id, which replaces one that it had before.
    pub(super) fn set_topic_id(&mut self, topic: &TopicName, id: Option<TopicId>) {
        let known = self.topics.entry(topic.clone()).or_default();
        if let Some(before) = std::mem::replace(&mut known.id, id) {
            self.topic_names.remove(&before);
        }
        if let Some(id) = id {
            self.topic_names.insert(id, topic.clone());
        }
    }

    pub(super) fn topic_named(&self, id: TopicId) -> Option<&TopicName> {
        self.topic_names.get(&id)
    }

    pub(super) fn partition(&self, of: &TopicPartition) -> Option<&Partition> {
        self.topics.get(&of.topic)?.partitions.get(&of.partition)
    }

    pub(super) fn partition_mut(&mut self, of: &TopicPartition) -> Option<&mut Partition> {
        let topic = self.topics.get_mut(&of.topic)?;
        topic.partitions.get_mut(&of.partition)
    }

    /// Creates what is missing on the way.
    pub(super) fn partition_entry(&mut self, of: &TopicPartition) -> &mut Partition {
        let topic = self.topics.entry(of.topic.clone()).or_default();
        topic.partitions.entry(of.partition).or_default()
    }

    pub(super) fn leadership(&self, of: &TopicPartition) -> Option<&Leadership> {
        self.partition(of)?.leadership.as_ref()
    }

    pub(super) fn partition_state(&self, of: &TopicPartition) -> PartitionState {
        self.partition(of)
            .map_or(PartitionState::NonExistent, |partition| partition.state)
    }

    pub(super) fn set_partition_state(&mut self, of: &TopicPartition, state: PartitionState) {
        if let Some(partition) = self.partition_mut(of) {
            partition.state = state;
        }
    }

    pub(super) fn replica_state(&self, (of, id): &Replica) -> ReplicaState {
        let partition = self.partition(of);
        let state = partition.and_then(|partition| partition.replicas.get(id));
        state.copied().unwrap_or_default()
    }

    pub(super) fn set_replica_state(&mut self, (of, id): &Replica, state: ReplicaState) {
        if let Some(partition) = self.partition_mut(of) {
            partition.replicas.insert(*id, state);
        }
    }

    pub(super) fn all_partitions(&self) -> impl Iterator<Item = (TopicPartition, &Partition)> {
        self.topics.iter().flat_map(|(topic, of)| {
            let partitions = of.partitions.iter();
            partitions
                .map(|(number, partition)| (TopicPartition::new(topic.clone(), *number), partition))
        })
    }

    pub(super) fn partitions_of(&self, topic: &str) -> Vec<TopicPartition> {
        let Some((name, of)) = self.topics.get_key_value(topic) else {
            return Vec::new();
        };
        let numbers = of.partitions.keys();
        numbers
            .map(|number| TopicPartition::new(name.clone(), *number))
            .collect()
    }

    pub(super) fn replicas_of(&self, topic: &str) -> Vec<Replica> {
        let Some((name, of)) = self.topics.get_key_value(topic) else {
            return Vec::new();
        };
        let partitions = of.partitions.iter();
        partitions
            .flat_map(|(number, partition)| {
                let replicas = partition.assignment.replicas.iter();
                replicas.map(|id| (TopicPartition::new(name.clone(), *number), *id))
            })
            .collect()
    }

    /// The replicas of some partitions.
    pub(super) fn replicas_of_partitions(&self, partitions: &[TopicPartition]) -> Vec<Replica> {
        let partitions = partitions.iter();
        partitions
            .flat_map(|of| {
                let replicas = self.partition(of).map(|found| &found.assignment.replicas);
                let replicas = replicas.into_iter().flatten();
                replicas.map(|id| (of.clone(), *id))
            })
            .collect()
    }

    /// The replicas that live on some brokers.
    pub(super) fn replicas_on(&self, brokers: &BTreeSet<BrokerId>) -> Vec<Replica> {
        let mut found = Vec::new();
        for (of, partition) in self.all_partitions() {
            let replicas = partition.assignment.replicas.iter();
            let on_them = replicas.filter(|id| brokers.contains(id));
            found.extend(on_them.map(|id| (of.clone(), *id)));
        }
        found
    }

    pub(super) fn replicas_in_state(&self, topic: &str, state: ReplicaState) -> Vec<Replica> {
        let mut replicas = self.replicas_of(topic);
        replicas.retain(|replica| self.replica_state(replica) == state);
        replicas
    }

    pub(super) fn is_queued_for_deletion(&self, topic: &str) -> bool {
        self.deletions.queued.contains(topic)
    }

    /// Where brokers reach a broker; `None` if it is gone or lacks the listener.
    pub(super) fn address(&self, id: BrokerId, listener: &str) -> Option<BrokerAddress> {
        let endpoint = self.brokers.get(&id)?.broker.endpoint(listener)?;
        Some(BrokerAddress {
            id,
            host: endpoint.host.clone(),
            port: endpoint.port,
        })
    }

    pub(super) fn remove_topic(&mut self, topic: &str) {
        let removed = self.topics.remove(topic);
        if let Some(id) = removed.and_then(|topic| topic.id) {
            self.topic_names.remove(&id);
        }
        self.deletions.forget(topic);
        self.reassigning.retain(|of| &*of.topic != topic);
        self.completed.retain(|of| &*of.topic != topic);
        for offline in self.offline_dirs.values_mut() {
            offline.retain(|of| &*of.topic != topic);
        }
    }

    /// Partitions of topics that stay which lost their leader and got no other.
    pub(super) fn offline_partitions(&self) -> usize {
        let all = self.all_partitions();
        let offline = all.filter(|(of, partition)| {
            let is_offline = partition.state == PartitionState::Offline;
            is_offline && !self.is_queued_for_deletion(&of.topic)
        });
        offline.count()
    }
}
