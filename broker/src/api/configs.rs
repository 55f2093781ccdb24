//! `DescribeConfigs`: the settings of topics, brokers and loggers, and where they come from.

use barnabas_core::config::Kind;
use barnabas_core::config::describe::{
    Described, Layers, Source, Synonym, describe_broker, describe_cluster_default, describe_topic,
};
use barnabas_core::ids::{BrokerId, check_topic_name};
use barnabas_core::znodes::ConfigEntity;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::error_code::{NONE, ToErrorCode as _};
use crate::telemetry;

/// Types of resources on the wire (`ConfigResource.Type`).
pub(super) mod resource_type {
    pub(in crate::api) const TOPIC: i8 = 2;
    pub(in crate::api) const BROKER: i8 = 4;
    pub(in crate::api) const BROKER_LOGGER: i8 = 8;
    pub(in crate::api) const CLIENT_METRICS: i8 = 16;
}

/// Why a resource is not described. The texts are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeConfigsError {
    #[error("Config type client-metrics is only supported on KRaft clusters")]
    ClientMetrics,
    /// What Kafka says of a request that no sound client sends.
    #[error(
        "This most likely occurs because of a request being malformed by the client library or the message was \
         sent to an incompatible broker. See the broker logs for more details."
    )]
    UnknownResourceType,
    #[error("{0}")]
    InvalidTopic(String),
    #[error("")]
    UnknownTopic,
    #[error("Broker id must be an integer, but it is: {0}")]
    NotABrokerId(String),
    #[error("Unexpected broker id, expected {own} or empty string, but received {given}")]
    OtherBroker { own: BrokerId, given: String },
    #[error("Broker id must not be empty")]
    NoBrokerId,
    #[error("Unexpected broker id, expected {own} but received {given}")]
    OtherLoggers { own: BrokerId, given: String },
    #[error("")]
    Unexpected,
}

/// `DescribeConfigs` (key 32, v0–4). v0 knows no sources, v3 adds types and documentation.
pub async fn describe_configs(
    request: DescribeConfigsRequest,
    context: &Context<'_>,
) -> DescribeConfigsResponse {
    let mut results = Vec::with_capacity(request.resources.len());
    // A single type that nobody knows fails the whole request.
    let is_sound = request.resources.iter().all(|resource| {
        use resource_type::{BROKER, BROKER_LOGGER, CLIENT_METRICS, TOPIC};
        matches!(
            resource.resource_type,
            TOPIC | BROKER | BROKER_LOGGER | CLIENT_METRICS
        )
    });
    for resource in &request.resources {
        let described = if is_sound {
            describe(resource, context).await
        } else {
            Err(DescribeConfigsError::UnknownResourceType)
        };
        let described = described.map(|mut all| {
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
            Err(error) => result
                .with_error_code(error.error_code())
                .with_error_message(Some(StrBytes::from_string(error.to_string()))),
        });
    }
    DescribeConfigsResponse::default().with_results(results)
}

async fn describe(
    resource: &DescribeConfigsResource,
    context: &Context<'_>,
) -> Result<Vec<Described>, DescribeConfigsError> {
    let name: &str = &resource.resource_name;
    match resource.resource_type {
        resource_type::TOPIC => topic(name, context).await,
        resource_type::BROKER => broker(name, context),
        resource_type::BROKER_LOGGER => loggers(name, context),
        resource_type::CLIENT_METRICS => Err(DescribeConfigsError::ClientMetrics),
        _ => Err(DescribeConfigsError::UnknownResourceType),
    }
}

async fn topic(name: &str, context: &Context<'_>) -> Result<Vec<Described>, DescribeConfigsError> {
    check_topic_name(name)
        .map_err(|error| DescribeConfigsError::InvalidTopic(error.to_string()))?;
    let broker = context.broker;
    if broker.metadata.image().topic(name).is_none() {
        return Err(DescribeConfigsError::UnknownTopic);
    }
    let entity = ConfigEntity::Topic(name.to_owned());
    // As Kafka does: ZooKeeper may know a change before its notification has arrived.
    let overrides = broker
        .zookeeper
        .read_config(&entity)
        .await
        .map_err(|error| {
            tracing::warn!(topic = name, %error, "the settings of a topic cannot be described");
            DescribeConfigsError::Unexpected
        })?;
    let dynamic = broker.config.layers();
    let layers = Layers {
        file: broker.config.file(),
        cluster: &dynamic.cluster,
        broker: &dynamic.broker,
    };
    Ok(describe_topic(layers, &broker.config.broker(), &overrides))
}

fn broker(name: &str, context: &Context<'_>) -> Result<Vec<Described>, DescribeConfigsError> {
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
        return Err(DescribeConfigsError::OtherBroker {
            own: broker.broker_id,
            given: name.to_owned(),
        });
    }
    Ok(describe_broker(layers))
}

fn broker_id(name: &str) -> Result<i32, DescribeConfigsError> {
    name.parse()
        .map_err(|_| DescribeConfigsError::NotABrokerId(name.to_owned()))
}

fn loggers(name: &str, context: &Context<'_>) -> Result<Vec<Described>, DescribeConfigsError> {
    if name.is_empty() {
        return Err(DescribeConfigsError::NoBrokerId);
    }
    let own = context.broker.broker_id;
    if broker_id(name)? != own.0 {
        return Err(DescribeConfigsError::OtherLoggers {
            own,
            given: name.to_owned(),
        });
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
        // `is_default` stays false: Kafka has not set it since there are sources.
        return result;
    }
    result = result.with_config_source(config.source as i8);
    if request.include_synonyms {
        let synonyms = config.synonyms.into_iter();
        result = result.with_synonyms(synonyms.map(synonym).collect());
    }
    if version >= 3 {
        // Loggers have an empty text even for who asks for none.
        let doc = match config.source {
            Source::DynamicBrokerLogger => Some(""),
            _ => config.doc.filter(|_| request.include_documentation),
        };
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
