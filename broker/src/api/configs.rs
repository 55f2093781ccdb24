//! `DescribeConfigs`: the settings of topics, brokers and loggers, and where they come from.

use barnabas_core::config::Kind;
use barnabas_core::config::describe::{
    Described, Layers, Source, Synonym, describe_broker, describe_cluster_default, describe_topic,
};
use barnabas_core::ids::check_topic_name;
use barnabas_core::znodes::ConfigEntity;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::error_code::{NONE, ResponseError};
use crate::telemetry;

/// Types of resources on the wire (`ConfigResource.Type`).
pub(super) mod resource_type {
    pub(in crate::api) const TOPIC: i8 = 2;
    pub(in crate::api) const BROKER: i8 = 4;
    pub(in crate::api) const BROKER_LOGGER: i8 = 8;
    pub(in crate::api) const CLIENT_METRICS: i8 = 16;
}

/// Why a resource is not described, with the text for the client.
pub(super) type Refusal = (ResponseError, Option<String>);

/// What Kafka says of a request that no sound client sends.
const MALFORMED: &str = "This most likely occurs because of a request being malformed by the client \
     library or the message was sent to an incompatible broker. See the broker logs for more details.";

pub(super) fn refuse(error: ResponseError, message: impl Into<String>) -> Refusal {
    (error, Some(message.into()))
}

/// `DescribeConfigs` (key 32, v0–4). v0 knows no sources, v3 adds types and documentation.
pub async fn describe_configs(
    request: DescribeConfigsRequest,
    context: &Context<'_>,
) -> DescribeConfigsResponse {
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in &request.resources {
        let described = describe(resource, context).await.map(|mut all| {
            if let Some(keys) = resource
                .configuration_keys
                .as_ref()
                .filter(|keys| !keys.is_empty())
            {
                all.retain(|one| keys.iter().any(|key| **key == *one.name));
            }
            all
        });
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        results.push(match described {
            Ok(configs) => {
                let configs = configs.into_iter();
                result
                    .with_error_code(NONE)
                    .with_error_message(Some(StrBytes::default()))
                    .with_configs(
                        configs
                            .map(|config| answer(config, &request, context.version))
                            .collect(),
                    )
            }
            Err((error, message)) => result
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(message.unwrap_or_default()))),
        });
    }
    DescribeConfigsResponse::default().with_results(results)
}

async fn describe(
    resource: &DescribeConfigsResource,
    context: &Context<'_>,
) -> Result<Vec<Described>, Refusal> {
    let name: &str = &resource.resource_name;
    match resource.resource_type {
        resource_type::TOPIC => topic(name, context).await,
        resource_type::BROKER => broker(name, context),
        resource_type::BROKER_LOGGER => loggers(name, context),
        resource_type::CLIENT_METRICS => Err(refuse(
            ResponseError::InvalidRequest,
            "Config type client-metrics is only supported on KRaft clusters",
        )),
        _ => Err(refuse(ResponseError::InvalidRequest, MALFORMED)),
    }
}

async fn topic(name: &str, context: &Context<'_>) -> Result<Vec<Described>, Refusal> {
    check_topic_name(name)
        .map_err(|error| refuse(ResponseError::InvalidTopicException, error.to_string()))?;
    let broker = context.broker;
    if broker.metadata.image().topic(name).is_none() {
        return Err((ResponseError::UnknownTopicOrPartition, None));
    }
    let entity = ConfigEntity::Topic(name.to_owned());
    // As Kafka does: ZooKeeper may know a change before its notification has arrived.
    let overrides = broker
        .zookeeper
        .read_config(&entity)
        .await
        .map_err(|error| {
            tracing::warn!(topic = name, %error, "the settings of a topic cannot be described");
            (ResponseError::UnknownServerError, None)
        })?;
    let dynamic = broker.config.layers();
    let layers = Layers {
        file: broker.config.file(),
        cluster: &dynamic.cluster,
        broker: &dynamic.broker,
    };
    Ok(describe_topic(layers, &broker.config.broker(), &overrides))
}

fn broker(name: &str, context: &Context<'_>) -> Result<Vec<Described>, Refusal> {
    let broker = context.broker;
    let dynamic = broker.config.layers();
    let layers = Layers {
        file: broker.config.file(),
        cluster: &dynamic.cluster,
        broker: &dynamic.broker,
    };
    if name.is_empty() {
        return Ok(describe_cluster_default(layers));
    }
    if broker_id(name)? != broker.broker_id.0 {
        return Err(refuse(
            ResponseError::InvalidRequest,
            format!(
                "Unexpected broker id, expected {} or empty string, but received {name}",
                broker.broker_id
            ),
        ));
    }
    Ok(describe_broker(layers))
}

fn broker_id(name: &str) -> Result<i32, Refusal> {
    name.parse().map_err(|_| {
        refuse(
            ResponseError::InvalidRequest,
            format!("Broker id must be an integer, but it is: {name}"),
        )
    })
}

fn loggers(name: &str, context: &Context<'_>) -> Result<Vec<Described>, Refusal> {
    if name.is_empty() {
        return Err(refuse(
            ResponseError::InvalidRequest,
            "Broker id must not be empty",
        ));
    }
    let own = context.broker.broker_id;
    if broker_id(name)? != own.0 {
        return Err(refuse(
            ResponseError::InvalidRequest,
            format!("Unexpected broker id, expected {own} but received {name}"),
        ));
    }
    let loggers = telemetry::loggers().into_iter();
    Ok(loggers
        .map(|(logger, level)| Described {
            name: logger.to_owned(),
            value: Some(level.name().to_owned()),
            read_only: false,
            sensitive: false,
            source: Source::DynamicBrokerLogger,
            synonyms: Vec::new(),
            kind: None,
            doc: None,
        })
        .collect())
}

fn answer(
    config: Described,
    request: &DescribeConfigsRequest,
    version: i16,
) -> DescribeConfigsResourceResult {
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_string(config.name))
        .with_value(config.value.map(StrBytes::from_string))
        .with_read_only(config.read_only)
        .with_is_sensitive(config.sensitive);
    if version == 0 {
        return result.with_is_default(config.source == Source::Default);
    }
    result = result.with_config_source(config.source as i8);
    if request.include_synonyms {
        let synonyms = config.synonyms.into_iter();
        result = result.with_synonyms(synonyms.map(synonym).collect());
    }
    if version >= 3 {
        let doc = config.doc.filter(|_| request.include_documentation);
        result = result
            .with_config_type(config.kind.map_or(0, Kind::code))
            .with_documentation(doc.map(StrBytes::from_static_str));
    }
    result
}

fn synonym(synonym: Synonym) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default()
        .with_name(StrBytes::from_string(synonym.name))
        .with_value(synonym.value.map(StrBytes::from_string))
        .with_source(synonym.source as i8)
}
