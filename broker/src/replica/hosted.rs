//! Which partitions this broker hosts: a map that is swapped whole, so that looking one up takes no
//! lock, and changed in batches, so that ten thousand new partitions are one swap.

use std::collections::BTreeMap;
use std::sync::Arc;

use barnabas_core::ids::{TopicName, TopicPartition};
use indexmap::IndexMap;

use super::partition::Partition;

/// One replica of this broker.
#[derive(Clone)]
pub enum Replica {
    Online(Arc<Partition>),
    /// Its log directory failed.
    Offline,
}

/// All replicas of this broker, by topic and partition number.
#[derive(Clone, Default)]
pub struct Hosted {
    /// In an order that depends on what was asked for only.
    topics: IndexMap<TopicName, Arc<BTreeMap<i32, Replica>>>,
}

impl Hosted {
    pub fn get(&self, topic: &str, partition: i32) -> Option<&Replica> {
        self.topics.get(topic)?.get(&partition)
    }

    pub fn insert(&mut self, topic_partition: &TopicPartition, replica: Replica) {
        let partitions = self
            .topics
            .entry(Arc::clone(&topic_partition.topic))
            .or_default();
        Arc::make_mut(partitions).insert(topic_partition.partition, replica);
    }

    pub fn remove(&mut self, topic_partition: &TopicPartition) -> Option<Replica> {
        let partitions = self.topics.get_mut(&topic_partition.topic)?;
        let removed = Arc::make_mut(partitions).remove(&topic_partition.partition);
        if partitions.is_empty() {
            self.topics.swap_remove(&topic_partition.topic);
        }
        removed
    }

    pub fn has_topic(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// The online partitions of one topic.
    pub fn topic(&self, topic: &str) -> impl Iterator<Item = &Arc<Partition>> {
        self.topics
            .get(topic)
            .into_iter()
            .flat_map(|partitions| partitions.values())
            .filter_map(Replica::online)
    }

    /// All online partitions, in no order that matters.
    pub fn online(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.topics
            .values()
            .flat_map(|partitions| partitions.values())
            .filter_map(Replica::online)
    }

    pub fn offline_count(&self) -> usize {
        self.topics
            .values()
            .flat_map(|partitions| partitions.values())
            .filter(|replica| replica.online().is_none())
            .count()
    }
}

impl Replica {
    pub fn online(&self) -> Option<&Arc<Partition>> {
        match self {
            Self::Online(partition) => Some(partition),
            Self::Offline => None,
        }
    }
}
