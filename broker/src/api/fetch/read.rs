//! The partitions of a request: which they are, where they are, and what was read of them.

use std::collections::HashMap;
use std::sync::Arc;

use barnabas_core::ids::{TopicId, TopicName};
use barnabas_core::metadata::ClusterImage;
use kafka_protocol::messages::FetchRequest;
use uuid::Uuid;

use super::answer::failed;
use super::plan::Plan;
use super::{FetchError, SESSIONS, TOPIC_IDS};
use crate::api::Context;
use crate::api::error_code::NONE;
use crate::api::fetch_encoder::{AnsweredPartition, PartitionAnswer};
use crate::replica::PartitionError;
use crate::replica::fetch_session::{Answered, FetchTarget, PartitionKey};
use crate::replica::fetch_session_cache::{PlacedTarget, SessionRequest};
use crate::replica::partition::{Partition, ReadOutcome, Reader};

/// One partition of a fetch, from looking it up to its answer.
pub(super) struct Read {
    pub(super) target: PlacedTarget,
    pub(super) partition: Result<Arc<Partition>, PartitionError>,
    pub(super) outcome: Result<ReadOutcome, PartitionError>,
    pub(super) answer: PartitionAnswer,
}

impl Read {
    pub(super) fn answered(&self) -> Answered {
        Answered {
            high_watermark: self.answer.high_watermark,
            log_start_offset: self.answer.log_start_offset,
            has_records: self.answer.records.size_in_bytes() > 0,
            has_error: self.answer.error_code != NONE,
            has_preferred_replica: self.answer.preferred_read_replica != -1,
            is_diverging: self.answer.diverging_epoch.is_some(),
        }
    }

    pub(super) fn encodable<'a>(
        &'a self,
        by_id: bool,
        no_name: &'a TopicName,
    ) -> AnsweredPartition<'a> {
        let target = &self.target.target;
        AnsweredPartition {
            topic: target.topic.as_ref().unwrap_or(no_name),
            topic_id: if by_id { target.topic_id } else { Uuid::nil() },
            partition: target.partition,
            answer: &self.answer,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.outcome {
            Ok(ReadOutcome {
                records: Some(slice),
                ..
            }) => slice.length,
            Ok(_) | Err(_) => 0,
        }
    }

    /// Whether the partition is not any more as it was when it was read.
    pub(super) fn has_moved(&self, reader: Reader) -> bool {
        let (Ok(partition), Ok(outcome)) = (&self.partition, &self.outcome) else {
            return true;
        };
        match reader {
            Reader::Consumer { .. } => partition.high_watermark() != outcome.high_watermark,
            Reader::Follower { .. } => partition
                .log()
                .map_or(true, |log| log.log_end_offset() != outcome.log_end_offset),
        }
    }
}

pub(super) fn topic_name(image: &ClusterImage, id: Uuid) -> Option<TopicName> {
    image.topic_names.get(&TopicId(id)).cloned()
}

/// The session part of a request, and its partitions, each once.
pub(super) fn session_request(
    request: &FetchRequest,
    plan: &Plan,
    image: &ClusterImage,
) -> SessionRequest {
    let by_id = plan.version >= TOPIC_IDS;
    let name = |name: &str, id: Uuid| {
        if by_id {
            topic_name(image, id)
        } else {
            Some(match image.topics.get_key_value(name) {
                Some((known, _)) => TopicName::clone(known),
                None => TopicName::from(name),
            })
        }
    };
    let mut partitions = Vec::new();
    for topic in &request.topics {
        let topic_name = name(&topic.topic, topic.topic_id);
        for partition in &topic.partitions {
            partitions.push(FetchTarget {
                topic_id: topic.topic_id,
                topic: topic_name.clone(),
                partition: partition.partition,
                fetch_offset: partition.fetch_offset,
                log_start_offset: partition.log_start_offset,
                max_bytes: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            });
        }
    }
    let forgotten = request
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| {
            let topic_name = name(&topic.topic, topic.topic_id);
            topic.partitions.iter().map(move |&partition| PartitionKey {
                topic_id: topic.topic_id,
                topic: topic_name.clone(),
                partition,
            })
        })
        .collect();
    let has_session = plan.version >= SESSIONS;
    SessionRequest {
        session_id: if has_session { request.session_id } else { 0 },
        session_epoch: if has_session {
            request.session_epoch
        } else {
            -1
        },
        uses_topic_ids: by_id,
        is_follower: plan.is_follower(),
        partitions: each_once(partitions),
        forgotten,
    }
}

/// A partition that is named twice is read once, at its first place with its last parameters.
fn each_once(partitions: Vec<FetchTarget>) -> Vec<FetchTarget> {
    if partitions.len() < 2 {
        return partitions;
    }
    let mut places = HashMap::with_capacity(partitions.len());
    let mut once: Vec<FetchTarget> = Vec::with_capacity(partitions.len());
    for target in partitions {
        match places.entry(target.key()) {
            std::collections::hash_map::Entry::Occupied(place) => once[*place.get()] = target,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(once.len());
                once.push(target);
            }
        }
    }
    once
}

/// Finds the partitions to read. Those that the cluster does not have come second: they are told
/// last, and do not keep a request from waiting.
pub(super) fn look_up(
    targets: Vec<PlacedTarget>,
    plan: &Plan,
    image: &ClusterImage,
    context: &Context<'_>,
) -> (Vec<Read>, Vec<Read>) {
    let mut reads = Vec::with_capacity(targets.len());
    let mut unknown = Vec::new();
    for target in targets {
        let wanted = &target.target;
        let is_known = |topic: &TopicName| {
            image
                .topics
                .get(topic)
                .is_some_and(|topic| topic.partitions.contains_key(&wanted.partition))
        };
        let error = match &wanted.topic {
            None => Some(PartitionError::UnknownTopicId),
            Some(topic) if !is_known(topic) => Some(PartitionError::UnknownTopicOrPartition),
            Some(_) => None,
        };
        if let Some(error) = error {
            unknown.push(Read {
                answer: failed(&FetchError::Partition(error), Some(Vec::new())),
                partition: Err(error),
                outcome: Err(error),
                target,
            });
            continue;
        }
        let topic = wanted.topic.as_deref().unwrap_or_default();
        let partition = context.broker.replicas.partition(topic, wanted.partition);
        if let Ok(partition) = &partition {
            partition.metrics.total_fetch_requests.increment();
        }
        reads.push(Read {
            outcome: Err(PartitionError::NotLeaderOrFollower),
            answer: failed(&FetchError::Unexpected, None),
            partition,
            target,
        });
    }
    if !plan.is_follower() {
        // Kafka looks for the names of all topics first.
        let has_name = |read: &Read| !matches!(read.partition, Err(PartitionError::UnknownTopicId));
        unknown.sort_by_key(has_name);
    }
    (reads, unknown)
}
