//! `Metadata` (key 3): brokers, topics and partitions as the cluster image has them.

use std::collections::HashSet;

use barnabas_core::control::{NO_LEADER, PartitionMetadata};
use barnabas_core::ids::{BrokerId, TopicId, TopicName, check_topic_name, is_internal_topic};
use barnabas_core::metadata::{ClusterImage, TopicImage};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{self as wire, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Context;
use super::cluster::{ALL_CLUSTER_OPERATIONS, ALL_TOPIC_OPERATIONS};
use super::error_code::{NONE, ToErrorCode as _};
use crate::topics::TopicError;

/// What is wrong with a topic or one of its partitions.
#[derive(Debug)]
pub enum MetadataError {
    /// The request as a whole: topic ids and absent names exist from version 12 on, though the format has them from 10 on.
    Invalid,
    InvalidTopic,
    UnknownTopic,
    UnknownTopicId,
    LeaderNotAvailable,
    /// The leader has no listener of the name by which the client asks.
    ListenerNotFound,
    /// Told of replicas that version 0 leaves out.
    ReplicaNotAvailable,
    NotCreated(TopicError),
}

/// `Metadata` (key 3, v0–12).
pub async fn metadata(request: MetadataRequest, context: &Context<'_>) -> MetadataResponse {
    let version = context.version;
    let asked = match Asked::from_request(&request, version) {
        Ok(asked) => asked,
        Err(error) => return refused(&request, &error, version),
    };
    let image = context.broker.metadata.image();
    let mut topics = match &asked {
        Asked::All => image
            .topics
            .iter()
            .map(|(name, topic)| known(name, topic, &image, context))
            .collect(),
        Asked::Names(names) => {
            let mut topics = Vec::with_capacity(names.len());
            for name in names {
                topics.push(match image.topics.get_key_value(*name) {
                    Some((name, topic)) => known(name, topic, &image, context),
                    None => unknown(name, request.allow_auto_topic_creation, context).await,
                });
            }
            topics
        }
        Asked::Ids(ids) => ids.iter().map(|id| by_id(*id, &image, context)).collect(),
    };
    if version >= 8 && request.include_topic_authorized_operations {
        let is_known = |topic: &&mut MetadataResponseTopic| {
            topic.error_code != MetadataError::UnknownTopicId.error_code()
        };
        for topic in topics.iter_mut().filter(is_known) {
            topic.topic_authorized_operations = ALL_TOPIC_OPERATIONS;
        }
    }
    let mut response = MetadataResponse::default().with_topics(topics);
    response.brokers = image
        .brokers
        .keys()
        .filter_map(|id| broker(*id, &image, context))
        .collect();
    if version >= 1 {
        response.controller_id = wire::BrokerId(image.controller_id.map_or(-1, |id| id.0));
    }
    if version >= 2 {
        let cluster_id = StrBytes::from_string(context.broker.cluster_id.clone());
        response.cluster_id = Some(cluster_id);
    }
    if (8..=10).contains(&version) && request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = ALL_CLUSTER_OPERATIONS;
    }
    response
}

/// Which topics a request asks for.
enum Asked<'a> {
    All,
    /// In the order of the request, each once.
    Names(Vec<&'a str>),
    Ids(Vec<Uuid>),
}

impl<'a> Asked<'a> {
    fn from_request(request: &'a MetadataRequest, version: i16) -> Result<Self, MetadataError> {
        let Some(topics) = &request.topics else {
            return Ok(Self::All);
        };
        if version == 0 && topics.is_empty() {
            return Ok(Self::All);
        }
        let is_allowed =
            |topic: &MetadataRequestTopic| topic.name.is_some() && topic.topic_id.is_nil();
        if version < 12 && !topics.iter().all(is_allowed) {
            return Err(MetadataError::Invalid);
        }
        let mut seen_ids = HashSet::new();
        let ids: Vec<_> = topics
            .iter()
            .map(|topic| topic.topic_id)
            .filter(|id| !id.is_nil() && seen_ids.insert(*id))
            .collect();
        if !ids.is_empty() {
            return Ok(Self::Ids(ids));
        }
        let mut seen_names = HashSet::new();
        let names = topics
            .iter()
            .filter_map(|topic| topic.name.as_ref().map(|name| name.as_str()));
        Ok(Self::Names(
            names.filter(|name| seen_names.insert(*name)).collect(),
        ))
    }
}

/// Kafka's answer to a request that it finds invalid as a whole: every topic, and nothing of the cluster.
fn refused(request: &MetadataRequest, error: &MetadataError, version: i16) -> MetadataResponse {
    let topics = request.topics.iter().flatten().map(|topic| {
        let name = topic.name.clone().unwrap_or_default();
        let mut answer = failed(error).with_name(Some(name));
        if version >= 10 {
            answer.topic_id = topic.topic_id;
        }
        answer
    });
    let mut response = MetadataResponse::default().with_topics(topics.collect());
    if version >= 1 {
        response.controller_id = wire::BrokerId(-1);
    }
    response
}

fn failed(error: &MetadataError) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_error_code(error.error_code())
}

fn named(answer: MetadataResponseTopic, name: &str, version: i16) -> MetadataResponseTopic {
    let wire_name = wire::TopicName(StrBytes::from_string(name.to_owned()));
    let answer = answer.with_name(Some(wire_name));
    if version >= 1 {
        answer.with_is_internal(is_internal_topic(name))
    } else {
        answer
    }
}

/// The answer for a topic that does not exist (yet).
async fn unknown(name: &str, allow_creation: bool, context: &Context<'_>) -> MetadataResponseTopic {
    let error = if check_topic_name(name).is_err() {
        MetadataError::InvalidTopic
    } else if allow_creation && context.broker.config.broker().auto_create_topics_enable {
        let mut mutations = context.mutations(i16::MAX);
        created(
            context
                .broker
                .topics
                .auto_create(name, &mut mutations)
                .await,
        )
    } else {
        MetadataError::UnknownTopic
    };
    named(failed(&error), name, context.version)
}

/// A topic that exists by now, whoever created it, will have a leader soon.
fn created(outcome: Result<(), TopicError>) -> MetadataError {
    match outcome {
        Ok(()) | Err(TopicError::Exists(_) | TopicError::MarkedForDeletion(_)) => {
            MetadataError::LeaderNotAvailable
        }
        Err(error) => MetadataError::NotCreated(error),
    }
}

fn by_id(id: Uuid, image: &ClusterImage, context: &Context<'_>) -> MetadataResponseTopic {
    let topic = image
        .topic_name(TopicId(id))
        .and_then(|name| Some(known(name, image.topic(name)?, image, context)));
    topic.unwrap_or_else(|| {
        failed(&MetadataError::UnknownTopicId)
            .with_name(None)
            .with_topic_id(id)
    })
}

fn known(
    name: &TopicName,
    topic: &TopicImage,
    image: &ClusterImage,
    context: &Context<'_>,
) -> MetadataResponseTopic {
    let partitions = topic
        .partitions
        .values()
        .map(|partition| describe(partition, image, context))
        .collect();
    let answer = MetadataResponseTopic::default()
        .with_error_code(NONE)
        .with_partitions(partitions);
    let mut answer = named(answer, name, context.version);
    if context.version >= 10 {
        answer.topic_id = topic.id.map_or_else(Uuid::nil, |id| id.0);
    }
    answer
}

fn describe(
    partition: &PartitionMetadata,
    image: &ClusterImage,
    context: &Context<'_>,
) -> MetadataResponsePartition {
    let version = context.version;
    let is_reachable = |id: &BrokerId| image.endpoint(*id, context.listener()).is_some();
    // Version 0 has no other way to tell which replicas are dead.
    let shown = |ids: &[BrokerId]| -> Vec<wire::BrokerId> {
        ids.iter()
            .filter(|id| version > 0 || is_reachable(id))
            .map(|id| wire::BrokerId(id.0))
            .collect()
    };
    let replicas = shown(&partition.replicas);
    let isr = shown(&partition.leadership.isr);
    let leader = partition.leader().filter(is_reachable);
    let error = if leader.is_none() {
        let is_alive = partition
            .leader()
            .is_some_and(|leader| image.is_alive(leader));
        Some(if is_alive && version >= 6 {
            MetadataError::ListenerNotFound
        } else {
            MetadataError::LeaderNotAvailable
        })
    } else if replicas.len() < partition.replicas.len()
        || isr.len() < partition.leadership.isr.len()
    {
        Some(MetadataError::ReplicaNotAvailable)
    } else {
        None
    };
    let mut answer = MetadataResponsePartition::default()
        .with_error_code(error.map_or(NONE, |error| error.error_code()))
        .with_partition_index(partition.topic_partition.partition)
        .with_leader_id(wire::BrokerId(leader.map_or(NO_LEADER, |leader| leader.0)))
        .with_replica_nodes(replicas)
        .with_isr_nodes(isr);
    if version >= 7 {
        answer.leader_epoch = partition.leadership.leader_epoch;
    }
    if version >= 5 {
        answer.offline_replicas = partition
            .offline_replicas
            .iter()
            .map(|id| wire::BrokerId(id.0))
            .collect();
    }
    answer
}

fn broker(
    id: BrokerId,
    image: &ClusterImage,
    context: &Context<'_>,
) -> Option<MetadataResponseBroker> {
    let endpoint = image.endpoint(id, context.listener())?;
    let mut answer = MetadataResponseBroker::default()
        .with_node_id(wire::BrokerId(id.0))
        .with_host(StrBytes::from_string(endpoint.host.clone()))
        .with_port(i32::from(endpoint.port));
    if context.version >= 1 {
        let rack = image
            .brokers
            .get(&id)
            .and_then(|broker| broker.rack.clone());
        answer.rack = rack.map(StrBytes::from_string);
    }
    Some(answer)
}
