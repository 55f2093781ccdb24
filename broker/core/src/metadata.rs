//! What a broker knows of the cluster: an immutable image, made anew by every `UpdateMetadata`.
//!
//! As in Kafka's `ZkMetadataCache`, the list of live brokers is replaced each time while partitions
//! are merged. Images share whatever an update did not touch.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::control::{
    Endpoint, LEADER_DURING_DELETE, LiveBroker, NO_LEADER, PartitionMetadata, UpdateMetadata,
};
use crate::ids::{BrokerId, ControllerEpoch, TopicId, TopicName, TopicPartition};

/// The cluster at one moment, as the controller last told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterImage {
    /// `None` until the first update.
    pub controller_id: Option<BrokerId>,
    /// Epoch of the controller that sent the last update; 0 before the first.
    pub controller_epoch: ControllerEpoch,
    /// Brokers that are alive now.
    pub brokers: Arc<BTreeMap<BrokerId, LiveBroker>>,
    /// Topics that have at least one partition.
    pub topics: Arc<BTreeMap<TopicName, Arc<TopicImage>>>,
    /// Names of those topics that have an id.
    pub topic_names: Arc<BTreeMap<TopicId, TopicName>>,
}

/// One topic of a [`ClusterImage`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicImage {
    /// Absent for topics made by brokers older than topic ids (KIP-516).
    pub id: Option<TopicId>,
    pub partitions: BTreeMap<i32, Arc<PartitionMetadata>>,
}

impl ClusterImage {
    /// The image after `update`.
    #[must_use]
    pub fn apply(&self, update: &UpdateMetadata) -> Self {
        let mut next = self.clone();
        next.controller_id =
            (update.header.controller_id.0 >= 0).then_some(update.header.controller_id);
        next.controller_epoch = update.header.controller_epoch;
        if !self.brokers.values().eq(update.live_brokers.iter()) {
            next.brokers = Arc::new(
                update
                    .live_brokers
                    .iter()
                    .map(|broker| (broker.id, broker.clone()))
                    .collect(),
            );
        }
        for partition in update.partitions.iter() {
            next.merge(partition);
        }
        next
    }

    fn merge(&mut self, partition: &PartitionMetadata) {
        let TopicPartition {
            topic,
            partition: index,
        } = &partition.topic_partition;
        if partition.leadership.leader == LEADER_DURING_DELETE {
            self.remove(topic, *index);
            return;
        }
        let topics = Arc::make_mut(&mut self.topics);
        let image = Arc::make_mut(topics.entry(topic.clone()).or_default());
        image.partitions.insert(*index, Arc::new(partition.clone()));
        if image.id != partition.topic_id {
            let names = Arc::make_mut(&mut self.topic_names);
            if let Some(old) = image.id {
                names.remove(&old);
            }
            if let Some(id) = partition.topic_id {
                names.insert(id, topic.clone());
            }
            image.id = partition.topic_id;
        }
    }

    /// Forgets a partition and, with its last partition, the topic.
    fn remove(&mut self, topic: &TopicName, index: i32) {
        let topics = Arc::make_mut(&mut self.topics);
        let Some(image) = topics.get_mut(topic) else {
            return;
        };
        let image = Arc::make_mut(image);
        image.partitions.remove(&index);
        if image.partitions.is_empty() {
            if let Some(id) = image.id {
                Arc::make_mut(&mut self.topic_names).remove(&id);
            }
            topics.remove(topic);
        }
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    pub fn partition(&self, topic: &str, index: i32) -> Option<&Arc<PartitionMetadata>> {
        self.topics.get(topic)?.partitions.get(&index)
    }

    pub fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.topics.get(name)?.id
    }

    pub fn topic_name(&self, id: TopicId) -> Option<&TopicName> {
        self.topic_names.get(&id)
    }

    pub fn is_alive(&self, broker: BrokerId) -> bool {
        self.brokers.contains_key(&broker)
    }

    /// Where clients of `listener` reach `broker`; `None` if it is dead or lacks that listener.
    pub fn endpoint(&self, broker: BrokerId, listener: &str) -> Option<&Endpoint> {
        self.brokers.get(&broker)?.endpoint(listener)
    }
}

impl TopicImage {
    /// One past the highest partition number.
    pub fn partition_count(&self) -> i32 {
        self.partitions.len() as i32
    }
}

impl LiveBroker {
    /// Where clients of `listener` reach this broker.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints
            .iter()
            .find(|endpoint| endpoint.listener == listener)
    }
}

impl PartitionMetadata {
    /// The leader, if there is one.
    pub fn leader(&self) -> Option<BrokerId> {
        (self.leadership.leader > NO_LEADER).then_some(BrokerId(self.leadership.leader))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ControlHeader, Leadership, SecurityProtocol};
    use uuid::Uuid;

    fn id(n: u128) -> TopicId {
        TopicId(Uuid::from_u128(n))
    }

    fn partition(topic: &str, index: i32, id: Option<TopicId>, leader: i32) -> PartitionMetadata {
        PartitionMetadata {
            topic_partition: TopicPartition::new(topic, index),
            topic_id: id,
            leadership: Leadership {
                controller_epoch: 1,
                leader,
                leader_epoch: 0,
                isr: vec![BrokerId(1)],
                partition_epoch: 0,
                is_recovering: false,
            },
            replicas: vec![BrokerId(1)],
            offline_replicas: vec![],
        }
    }

    fn broker(id: i32) -> LiveBroker {
        LiveBroker {
            id: BrokerId(id),
            endpoints: vec![Endpoint {
                listener: "PLAINTEXT".to_owned(),
                security_protocol: SecurityProtocol::Plaintext,
                host: "localhost".to_owned(),
                port: 9092,
            }],
            rack: None,
        }
    }

    fn update(partitions: Vec<PartitionMetadata>, brokers: &[i32]) -> UpdateMetadata {
        UpdateMetadata {
            header: ControlHeader {
                controller_id: BrokerId(1),
                controller_epoch: 3,
                broker_epoch: 7,
            },
            partitions: partitions.into(),
            live_brokers: brokers.iter().map(|id| broker(*id)).collect(),
        }
    }

    #[test]
    fn partitions_are_merged_and_brokers_replaced() {
        let first = ClusterImage::default().apply(&update(
            vec![
                partition("a", 0, Some(id(1)), 1),
                partition("b", 0, Some(id(2)), 1),
            ],
            &[1, 2],
        ));
        let second = first.apply(&update(vec![partition("a", 1, Some(id(1)), 2)], &[1]));
        assert_eq!(second.controller_id, Some(BrokerId(1)));
        assert_eq!(second.topic("a").unwrap().partition_count(), 2);
        assert!(Arc::ptr_eq(
            first.topic("b").unwrap(),
            second.topic("b").unwrap()
        ));
        assert!(!second.is_alive(BrokerId(2)));
        assert_eq!(second.topic_name(id(2)).map(AsRef::as_ref), Some("b"));
        assert_eq!(
            second.endpoint(BrokerId(1), "PLAINTEXT").unwrap().port,
            9092
        );
        assert_eq!(second.endpoint(BrokerId(1), "SSL"), None);
    }

    #[test]
    fn what_an_update_does_not_touch_is_shared() {
        let first =
            ClusterImage::default().apply(&update(vec![partition("a", 0, None, 1)], &[1, 2]));
        let second = first.apply(&update(vec![], &[1, 2]));
        assert!(Arc::ptr_eq(&first.topics, &second.topics));
        assert!(Arc::ptr_eq(&first.brokers, &second.brokers));
    }

    #[test]
    fn the_last_partition_takes_topic_and_id_with_it() {
        let image = ClusterImage::default().apply(&update(
            vec![
                partition("a", 0, Some(id(1)), 1),
                partition("a", 1, Some(id(1)), 1),
            ],
            &[1],
        ));
        let half = image.apply(&update(
            vec![partition("a", 0, Some(id(1)), LEADER_DURING_DELETE)],
            &[1],
        ));
        assert_eq!(half.topic("a").unwrap().partition_count(), 1);
        let gone = half.apply(&update(
            vec![partition("a", 1, Some(id(1)), LEADER_DURING_DELETE)],
            &[1],
        ));
        assert_eq!(gone.topic("a"), None);
        assert_eq!(gone.topic_name(id(1)), None);
    }

    #[test]
    fn a_new_id_replaces_the_old_one_and_no_id_removes_it() {
        let image =
            ClusterImage::default().apply(&update(vec![partition("a", 0, Some(id(1)), 1)], &[1]));
        let renewed = image.apply(&update(vec![partition("a", 0, Some(id(2)), 1)], &[1]));
        assert_eq!(renewed.topic_name(id(1)), None);
        assert_eq!(renewed.topic_id("a"), Some(id(2)));
        let without = renewed.apply(&update(vec![partition("a", 0, None, 1)], &[1]));
        assert_eq!(without.topic_id("a"), None);
        assert!(without.topic_names.is_empty());
    }
}
