//! Creating, extending and deleting topics.

use std::collections::BTreeMap;
use std::time::Duration;

use barnabas_core::config::describe::{Layers, describe_topic};
use barnabas_core::ids::{BrokerId, TopicId};
use kafka_protocol::messages as wire;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Context;
use super::error_code::{NONE, ToErrorCode, code_of, is_unexpected};
use super::group_offsets::can_be_path;
use crate::topics::{CreatedTopic, Creation, Intent, MorePartitions, NewTopic, TopicError};

/// Where Kafka in `KRaft` mode keeps what `ZooKeeper` keeps here; nobody may make it a topic.
const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// Why a topic is not made, extended or deleted.
#[derive(Debug)]
pub enum TopicRequestError {
    NotController,
    CreatedTwice,
    ExtendedTwice,
    /// One of the topics to delete has a name and an id.
    NameAndId,
    /// A name that is not for clients.
    Reserved,
    /// Neither a name nor an id: nobody may delete that.
    Unnamed,
    DeletionDisabled {
        /// Whether the version has an error for it.
        is_known: bool,
    },
    UnknownId,
    Unknown,
    /// A topic of the request can have no node in ZooKeeper.
    NoPath,
    Topic(TopicError),
    /// Nobody said what became of it.
    Unanswered,
}

impl TopicRequestError {
    /// The text beside the code.
    fn message(&self) -> Option<String> {
        match self {
            Self::CreatedTwice => Some("Found multiple entries for this topic.".to_owned()),
            Self::ExtendedTwice => Some("Duplicate topic in request.".to_owned()),
            Self::Reserved => Some("Authorization failed.".to_owned()),
            Self::Topic(error) if is_told(error) => Some(error.to_string()),
            Self::Topic(_)
            | Self::NotController
            | Self::NameAndId
            | Self::Unnamed
            | Self::DeletionDisabled { .. }
            | Self::UnknownId
            | Self::Unknown
            | Self::NoPath
            | Self::Unanswered => None,
        }
    }
}

/// Kafka is silent about time-outs, and about what it did not expect.
fn is_told(error: &TopicError) -> bool {
    !matches!(error, TopicError::TimedOut) && !is_unexpected(error)
}

impl From<TopicError> for TopicRequestError {
    fn from(error: TopicError) -> Self {
        if is_unexpected(&error) {
            tracing::warn!(%error, "a topic could not be administered");
        }
        Self::Topic(error)
    }
}

fn timeout(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
}

fn wire_name(name: &str) -> wire::TopicName {
    wire::TopicName(StrBytes::from_string(name.to_owned()))
}

fn broker_ids(ids: &[wire::BrokerId]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(id.0)).collect()
}

/// How often each name is there.
fn occurrences<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// `CreateTopics` (key 19, v0–7): on the controller only. v5 tells the settings of what was made, v7 its id.
pub async fn create_topics(
    request: CreateTopicsRequest,
    context: &Context<'_>,
) -> CreateTopicsResponse {
    let counts = occurrences(request.topics.iter().map(|topic| &**topic.name));
    let is_controller = context.broker.controller.is_active();
    let refused = |topic: &CreatableTopic| {
        if !is_controller {
            Some(TopicRequestError::NotController)
        } else if counts.get(&**topic.name).is_some_and(|count| *count > 1) {
            Some(TopicRequestError::CreatedTwice)
        } else if &**topic.name == CLUSTER_METADATA_TOPIC {
            Some(TopicRequestError::Reserved)
        } else {
            None
        }
    };
    let refusals: Vec<Option<TopicRequestError>> = request.topics.iter().map(refused).collect();
    let wanted = request.topics.iter().zip(&refusals);
    let wanted = wanted.filter(|(_, refusal)| refusal.is_none());
    let wanted: Vec<NewTopic> = wanted.map(|(topic, _)| new_topic(topic)).collect();
    let intent = if request.validate_only {
        Intent::Validate
    } else {
        Intent::Carry
    };
    let timeout = timeout(request.timeout_ms);
    let admin = &context.broker.topics;
    let mut mutations = context.mutations(6);
    let mut creations = admin
        .create_topics(&wanted, timeout, intent, &mut mutations)
        .await
        .into_iter();
    context.call.throttle(mutations.throttle());
    let results = request.topics.iter().zip(refusals).map(|(topic, refusal)| {
        let name = &topic.name;
        match refusal {
            Some(error) => not_created(name, &error, context),
            None => match creations.next() {
                Some(creation) => creation_result(name, creation, context),
                None => not_created(name, &TopicRequestError::Unanswered, context),
            },
        }
    });
    CreateTopicsResponse::default().with_topics(results.collect())
}

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    let assignments = topic.assignments.iter();
    let configs = topic.configs.iter();
    NewTopic {
        name: topic.name.to_string(),
        partitions: (topic.num_partitions != -1).then_some(topic.num_partitions),
        replication_factor: (topic.replication_factor != -1).then_some(topic.replication_factor),
        assignment: assignments
            .map(|of| (of.partition_index, broker_ids(&of.broker_ids)))
            .collect(),
        configs: configs
            .map(|config| {
                let value = config.value.as_ref().map(ToString::to_string);
                (config.name.to_string(), value)
            })
            .collect(),
    }
}

fn creation_result(
    name: &wire::TopicName,
    creation: Creation,
    context: &Context<'_>,
) -> CreatableTopicResult {
    let mut result = match creation.result {
        Err(error) => not_created(name, &error.into(), context),
        Ok(created) => created_result(name, &created, context),
    };
    if context.version >= 7 {
        result.topic_id = creation.id.map_or(Uuid::nil(), |id| id.0);
    }
    result
}

fn not_created(
    name: &wire::TopicName,
    error: &TopicRequestError,
    context: &Context<'_>,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default()
        .with_name(name.clone())
        .with_error_code(error.error_code());
    if context.version >= 1 {
        result.with_error_message(error.message().map(StrBytes::from_string))
    } else {
        result
    }
}

fn created_result(
    name: &wire::TopicName,
    created: &CreatedTopic,
    context: &Context<'_>,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default()
        .with_name(name.clone())
        .with_error_message(None);
    if context.version < 5 {
        return result;
    }
    let config = &context.broker.config;
    let dynamic = config.layers();
    let layers = Layers {
        file: config.file(),
        cluster: &dynamic.cluster,
        broker: &dynamic.broker,
    };
    let described = describe_topic(layers, &config.broker(), &created.configs).into_iter();
    let configs = described.map(|one| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_string(one.name))
            .with_value(one.value.map(StrBytes::from_string))
            .with_read_only(one.read_only)
            .with_config_source(one.source as i8)
            .with_is_sensitive(one.sensitive)
    });
    result
        .with_num_partitions(created.partitions)
        .with_replication_factor(created.replication_factor)
        .with_configs(Some(configs.collect()))
}

/// `DeleteTopics` (key 20, v0–6): on the controller only; from v6 on by name or id.
pub async fn delete_topics(
    request: DeleteTopicsRequest,
    context: &Context<'_>,
) -> DeleteTopicsResponse {
    let targets = deletion_targets(&request, context);
    let names_both = request
        .topics
        .iter()
        .any(|topic| topic.name.is_some() && !topic.topic_id.is_nil());
    let refuse_all = if names_both {
        Some(TopicRequestError::NameAndId)
    } else if !context.broker.controller.is_active() {
        Some(TopicRequestError::NotController)
    } else if !context.broker.config.broker().delete_topic_enable {
        Some(TopicRequestError::DeletionDisabled {
            is_known: context.version >= 3,
        })
    } else {
        None
    };
    let image = context.broker.metadata.image();
    if let Some(error) = refuse_all {
        let refused = targets.into_iter();
        let refused = refused.map(|target| deletion_result(target, Some(&error), context));
        return DeleteTopicsResponse::default().with_responses(refused.collect());
    }
    let errors: Vec<Option<TopicRequestError>> = targets
        .iter()
        .map(|target| match &target.name {
            None if target.id.is_nil() => Some(TopicRequestError::Unnamed),
            None => Some(TopicRequestError::UnknownId),
            Some(name) if image.topic(name).is_none() => Some(TopicRequestError::Unknown),
            Some(_) => None,
        })
        .collect();
    let wanted = targets.iter().zip(&errors);
    let wanted = wanted.filter(|(_, error)| error.is_none());
    let wanted: Vec<String> = wanted
        .filter_map(|(target, _)| target.name.clone())
        .collect();
    let timeout = timeout(request.timeout_ms);
    let admin = &context.broker.topics;
    let mut mutations = context.mutations(5);
    let deleted = admin.delete_topics(&wanted, timeout, &mut mutations).await;
    let mut outcomes = deleted.into_iter();
    context.call.throttle(mutations.throttle());
    let results = targets.into_iter().zip(errors).map(|(target, error)| {
        let error = error.or_else(|| match outcomes.next() {
            Some(outcome) => outcome.err().map(TopicRequestError::from),
            None => Some(TopicRequestError::Unanswered),
        });
        deletion_result(target, error.as_ref(), context)
    });
    DeleteTopicsResponse::default().with_responses(results.collect())
}

/// A topic to delete: as the client named it, and its name if that is known.
struct DeletionTarget {
    name: Option<String>,
    id: Uuid,
}

fn deletion_targets(request: &DeleteTopicsRequest, context: &Context<'_>) -> Vec<DeletionTarget> {
    if context.version < 6 {
        let names = request.topic_names.iter();
        return names
            .map(|name| DeletionTarget {
                name: Some(name.to_string()),
                id: Uuid::nil(),
            })
            .collect();
    }
    let image = context.broker.metadata.image();
    let topics = request.topics.iter();
    topics
        .map(|topic| {
            let given = topic.name.as_ref().map(|name| name.to_string());
            let by_id = || {
                image
                    .topic_name(TopicId(topic.topic_id))
                    .map(ToString::to_string)
            };
            DeletionTarget {
                name: given.or_else(by_id),
                id: topic.topic_id,
            }
        })
        .collect()
}

fn deletion_result(
    target: DeletionTarget,
    error: Option<&TopicRequestError>,
    context: &Context<'_>,
) -> DeletableTopicResult {
    let mut result = DeletableTopicResult::default()
        .with_name(target.name.map(|name| wire_name(&name)))
        .with_error_code(error.map_or(NONE, ToErrorCode::error_code));
    if context.version >= 5 {
        result.error_message = None;
    }
    if context.version >= 6 {
        result.topic_id = target.id;
    }
    result
}

/// `CreatePartitions` (key 37, v0–3): on the controller only.
pub async fn create_partitions(
    request: CreatePartitionsRequest,
    context: &Context<'_>,
) -> CreatePartitionsResponse {
    let result = |name: &str, outcome: Result<(), TopicRequestError>| {
        let code = code_of(&outcome);
        let message = outcome.err().and_then(|error| error.message());
        CreatePartitionsTopicResult::default()
            .with_name(wire_name(name))
            .with_error_code(code)
            .with_error_message(message.map(StrBytes::from_string))
    };
    let topics = &request.topics;
    if !context.broker.controller.is_active() {
        let refused = || Err(TopicRequestError::NotController);
        let results = topics.iter().map(|topic| result(&topic.name, refused()));
        return CreatePartitionsResponse::default().with_results(results.collect());
    }
    if !topics.iter().all(|topic| can_be_path(&topic.name)) {
        // No path in ZooKeeper: Kafka stumbles over it, and with it over all topics of the request.
        let stumbled = || Err(TopicRequestError::NoPath);
        let results = topics.iter().map(|topic| result(&topic.name, stumbled()));
        return CreatePartitionsResponse::default().with_results(results.collect());
    }
    let counts = occurrences(topics.iter().map(|topic| &**topic.name));
    let unique = |name: &str| counts.get(name) == Some(&1);
    let wanted = topics.iter().filter(|topic| unique(&topic.name));
    let wanted: Vec<MorePartitions> = wanted
        .map(|topic| {
            let assignments = topic.assignments.as_ref();
            MorePartitions {
                topic: topic.name.to_string(),
                count: topic.count,
                assignments: assignments.map(|assignments| {
                    let assignments = assignments.iter();
                    assignments.map(|of| broker_ids(&of.broker_ids)).collect()
                }),
            }
        })
        .collect();
    let intent = if request.validate_only {
        Intent::Validate
    } else {
        Intent::Carry
    };
    let timeout = timeout(request.timeout_ms);
    let admin = &context.broker.topics;
    let mut mutations = context.mutations(3);
    let outcomes = admin
        .create_partitions(&wanted, timeout, intent, &mut mutations)
        .await;
    context.call.throttle(mutations.throttle());
    let results = wanted
        .iter()
        .zip(outcomes)
        .map(|(wanted, outcome)| result(&wanted.topic, outcome.map_err(TopicRequestError::from)));
    let duplicates = counts.iter().filter(|(_, count)| **count > 1);
    let duplicates =
        duplicates.map(|(name, _)| result(name, Err(TopicRequestError::ExtendedTwice)));
    CreatePartitionsResponse::default().with_results(results.chain(duplicates).collect())
}
