//! `AlterConfigs` and `IncrementalAlterConfigs`: change the settings of topics and brokers in ZooKeeper, and the
//! levels of loggers in this process.

use std::collections::BTreeMap;

use barnabas_core::config::BrokerConfig;
use barnabas_core::config::alter::{self, AlterError, Operation, Target};
use barnabas_core::ids::BrokerId;
use barnabas_core::znodes::ConfigEntity;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as LegacyResponse;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::configs::resource_type;
use super::error_code::{NONE, ToErrorCode as _};
use crate::config::Texts;
use crate::config::passwords::{PasswordEncoder, PasswordError};
use crate::host;
use crate::telemetry::{self, Level};

/// Why settings are not changed. The texts are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterConfigsError {
    #[error("Each resource must appear at most once.")]
    RepeatedResource,
    #[error("Error due to duplicate config keys")]
    DuplicateKeys,
    #[error("Null value not supported for : {0}")]
    NullValues(String),
    #[error(
        "AlterConfigs is only supported for topics and brokers, but resource type is CLIENT_METRICS"
    )]
    ClientMetrics,
    #[error("Unknown resource type {0}")]
    UnknownResourceType(i8),
    #[error("Default topic resources are not allowed.")]
    DefaultTopic,
    #[error("The topic '{0}' does not exist.")]
    UnknownTopic(String),
    #[error("Node id must be an integer, but it is: {0}")]
    NotABrokerId(String),
    #[error("Unexpected broker id, expected {own}, but received {given}")]
    OtherBroker { own: BrokerId, given: String },
    #[error("Unknown operations type {0}")]
    UnknownOperation(i8),
    /// Kafka names itself twice.
    #[error("Unexpected node id. Expected {0}, but received {0}")]
    OtherLoggers(BrokerId),
    #[error("Logger {0} does not exist!")]
    UnknownLogger(String),
    #[error(
        "Cannot set the log level of {logger} to {level} as it is not a supported log level. Valid log levels are \
         DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
    )]
    UnknownLevel { logger: String, level: String },
    #[error("Removing the log level of the {0} logger is not allowed")]
    RootLogger(String),
    #[error("{0} operation is not allowed for the BROKER_LOGGER resource")]
    NotForLoggers(&'static str),
    #[error("Unknown operation type {0} is not allowed for the BROKER_LOGGER resource")]
    UnknownLoggerOperation(i8),
    #[error(transparent)]
    Alter(#[from] AlterError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// ZooKeeper failed, or the operation has a number that Kafka has no word for either.
    #[error("the server stumbled")]
    Unexpected,
}

impl AlterConfigsError {
    /// What the client is told beside the code; nothing where Kafka stumbles.
    fn message(&self) -> Option<StrBytes> {
        match self {
            Self::Unexpected | Self::Alter(AlterError::Unexpected) => None,
            other => Some(StrBytes::from_string(other.to_string())),
        }
    }
}

/// One change of one key: the number of its operation (`AlterConfigOp.OpType`) and its value.
struct Change {
    key: String,
    operation: i8,
    value: Option<String>,
}

/// What is asked for one resource.
struct Wish {
    resource_type: i8,
    resource_name: String,
    changes: Vec<Change>,
    /// Legacy: what is not mentioned loses its value.
    replaces_all: bool,
}

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// `AlterConfigs` (key 33, v0–2): replaces all settings of a resource.
pub async fn alter_configs(
    request: AlterConfigsRequest,
    context: &Context<'_>,
) -> AlterConfigsResponse {
    let resources = request.resources.into_iter();
    let wishes: Vec<Wish> = resources
        .map(|resource| Wish {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.to_string(),
            changes: resource
                .configs
                .into_iter()
                .map(|config| Change {
                    key: config.name.to_string(),
                    operation: SET,
                    value: config.value.map(|value| value.to_string()),
                })
                .collect(),
            replaces_all: true,
        })
        .collect();
    let outcomes = alter_all(&wishes, request.validate_only, context).await;
    let responses = wishes.into_iter().zip(outcomes).map(|(wish, outcome)| {
        let (code, message) = code_and_message(outcome);
        LegacyResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(wish.resource_type)
            .with_resource_name(StrBytes::from_string(wish.resource_name))
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

/// `IncrementalAlterConfigs` (key 44, v0–1): changes single settings (KIP-339).
pub async fn incremental_alter_configs(
    request: IncrementalAlterConfigsRequest,
    context: &Context<'_>,
) -> IncrementalAlterConfigsResponse {
    let resources = request.resources.into_iter();
    let wishes: Vec<Wish> = resources
        .map(|resource| Wish {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.to_string(),
            changes: resource
                .configs
                .into_iter()
                .map(|config| Change {
                    key: config.name.to_string(),
                    operation: config.config_operation,
                    value: config.value.map(|value| value.to_string()),
                })
                .collect(),
            replaces_all: false,
        })
        .collect();
    let outcomes = alter_all(&wishes, request.validate_only, context).await;
    let responses = wishes.into_iter().zip(outcomes).map(|(wish, outcome)| {
        let (code, message) = code_and_message(outcome);
        AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(wish.resource_type)
            .with_resource_name(StrBytes::from_string(wish.resource_name))
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn code_and_message(outcome: Result<(), AlterConfigsError>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(()) => (NONE, None),
        Err(error) => (error.error_code(), error.message()),
    }
}

async fn alter_all(
    wishes: &[Wish],
    validate_only: bool,
    context: &Context<'_>,
) -> Vec<Result<(), AlterConfigsError>> {
    let mut seen: BTreeMap<(i8, &str), usize> = BTreeMap::new();
    for wish in wishes {
        *seen
            .entry((wish.resource_type, &wish.resource_name))
            .or_default() += 1;
    }
    let mut outcomes = Vec::with_capacity(wishes.len());
    for wish in wishes {
        let is_repeated = seen[&(wish.resource_type, wish.resource_name.as_str())] > 1;
        outcomes.push(if is_repeated {
            Err(AlterConfigsError::RepeatedResource)
        } else {
            alter_one(wish, validate_only, context).await
        });
    }
    outcomes
}

async fn alter_one(
    wish: &Wish,
    validate_only: bool,
    context: &Context<'_>,
) -> Result<(), AlterConfigsError> {
    check_form(wish)?;
    match wish.resource_type {
        resource_type::TOPIC => alter_topic(wish, validate_only, context).await,
        resource_type::BROKER => alter_broker(wish, validate_only, context).await,
        resource_type::BROKER_LOGGER if !wish.replaces_all => {
            alter_loggers(wish, validate_only, context)
        }
        resource_type::CLIENT_METRICS => Err(AlterConfigsError::ClientMetrics),
        other => Err(AlterConfigsError::UnknownResourceType(other)),
    }
}

/// Each key once, and a value where one is needed.
fn check_form(wish: &Wish) -> Result<(), AlterConfigsError> {
    for (index, change) in wish.changes.iter().enumerate() {
        if wish.changes[..index]
            .iter()
            .any(|other| other.key == change.key)
        {
            return Err(AlterConfigsError::DuplicateKeys);
        }
    }
    let missing = wish.changes.iter();
    let missing: Vec<&str> = missing
        .filter(|change| change.operation != DELETE && change.value.is_none())
        .map(|change| change.key.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(AlterConfigsError::NullValues(missing.join(", ")))
}

fn operations(wish: &Wish) -> Result<Vec<(String, Operation)>, AlterConfigsError> {
    let operations = wish.changes.iter().map(|change| {
        let value = change.value.clone().unwrap_or_default();
        let operation = match change.operation {
            SET => Operation::Set(value),
            DELETE => Operation::Delete,
            APPEND => Operation::Append(value),
            SUBTRACT => Operation::Subtract(value),
            // Of topics Kafka does not expect it.
            other if wish.resource_type == resource_type::BROKER => {
                return Err(AlterConfigsError::UnknownOperation(other));
            }
            _ => return Err(AlterConfigsError::Unexpected),
        };
        Ok((change.key.clone(), operation))
    });
    operations.collect()
}

/// The texts of an entity in ZooKeeper with the changes applied.
async fn proposed(
    wish: &Wish,
    target: Target<'_>,
    entity: &ConfigEntity,
    context: &Context<'_>,
) -> Result<Texts, AlterConfigsError> {
    let operations = operations(wish)?;
    let present = if wish.replaces_all {
        Texts::new()
    } else {
        let read = context.broker.zookeeper.read_config(entity).await;
        read.map_err(|error| {
            tracing::warn!(%entity, %error, "settings cannot be changed");
            AlterConfigsError::Unexpected
        })?
    };
    Ok(alter::apply(target, &operations, present)?)
}

async fn write(
    entity: ConfigEntity,
    texts: Texts,
    context: &Context<'_>,
) -> Result<(), AlterConfigsError> {
    let broker = context.broker;
    let written = broker.zookeeper.write_config(&entity, texts.clone()).await;
    written.map_err(|error| {
        tracing::warn!(%entity, %error, "settings were not changed");
        AlterConfigsError::Unexpected
    })?;
    // The notification is under way; whoever asks this broker next need not wait for it.
    broker.config.entity_changed(&entity, texts);
    Ok(())
}

async fn alter_topic(
    wish: &Wish,
    validate_only: bool,
    context: &Context<'_>,
) -> Result<(), AlterConfigsError> {
    let name = &wish.resource_name;
    if name.is_empty() {
        return Err(AlterConfigsError::DefaultTopic);
    }
    let entity = ConfigEntity::Topic(name.clone());
    let texts = proposed(wish, Target::Topic(name), &entity, context).await?;
    if context.broker.metadata.image().topic(name).is_none() {
        return Err(AlterConfigsError::UnknownTopic(name.clone()));
    }
    let running = context.broker.config.broker();
    alter::check_topic(name, &running, &texts)?;
    if validate_only {
        return Ok(());
    }
    write(entity, texts, context).await
}

/// A broker's own settings can be changed through itself only.
fn check_own_id(name: &str, own: BrokerId) -> Result<(), AlterConfigsError> {
    let given = || name.to_owned();
    let id: i32 = name
        .parse()
        .map_err(|_| AlterConfigsError::NotABrokerId(given()))?;
    if id == own.0 {
        return Ok(());
    }
    Err(AlterConfigsError::OtherBroker {
        own,
        given: given(),
    })
}

async fn alter_broker(
    wish: &Wish,
    validate_only: bool,
    context: &Context<'_>,
) -> Result<(), AlterConfigsError> {
    let name = &wish.resource_name;
    let broker = context.broker;
    let entity = if name.is_empty() {
        ConfigEntity::DefaultBroker
    } else {
        check_own_id(name, broker.broker_id)?;
        ConfigEntity::Broker(broker.broker_id)
    };
    let texts = proposed(wish, Target::Broker(name), &entity, context).await?;
    let config = &broker.config;
    let layers = config.layers();
    let other = if name.is_empty() {
        &layers.broker
    } else {
        &layers.cluster
    };
    let running = config.broker();
    alter::check_broker(name, &texts, config.file(), other, &running)?;
    if validate_only {
        return Ok(());
    }
    alter::check_secret(name, &texts, &running)?;
    let texts = with_encoded_passwords(texts, wish, &running)?;
    write(entity, texts, context).await
}

/// Encrypts what was set just now; the rest of the passwords is encrypted already.
fn with_encoded_passwords(
    mut texts: Texts,
    wish: &Wish,
    running: &BrokerConfig,
) -> Result<Texts, AlterConfigsError> {
    let Some(encoder) = PasswordEncoder::from_config(running) else {
        return Ok(texts);
    };
    let set = wish.changes.iter().filter(|change| change.operation == SET);
    for change in set.filter(|change| alter::is_password(&change.key)) {
        if let Some(text) = texts.get_mut(&change.key) {
            *text = encoder.encode(text, &mut host::random())?;
        }
    }
    Ok(texts)
}

fn alter_loggers(
    wish: &Wish,
    validate_only: bool,
    context: &Context<'_>,
) -> Result<(), AlterConfigsError> {
    let own = context.broker.broker_id;
    check_own_id(&wish.resource_name, own).map_err(|error| match error {
        AlterConfigsError::OtherBroker { own, .. } => AlterConfigsError::OtherLoggers(own),
        error => error,
    })?;
    let mut levels = Vec::with_capacity(wish.changes.len());
    for change in &wish.changes {
        levels.push((change.key.as_str(), wanted_level(change)?));
    }
    if !validate_only {
        for (logger, level) in levels {
            tracing::info!(
                logger,
                level = level.map_or("inherited", Level::name),
                "log level changes"
            );
            telemetry::set_level(logger, level);
        }
    }
    Ok(())
}

/// The level that a change asks for; none gives the logger back to what encloses it.
fn wanted_level(change: &Change) -> Result<Option<Level>, AlterConfigsError> {
    let logger = || change.key.clone();
    if matches!(change.operation, SET | DELETE) && !telemetry::logger_exists(&change.key) {
        return Err(AlterConfigsError::UnknownLogger(logger()));
    }
    match change.operation {
        SET => {
            let name = change.value.as_deref().unwrap_or_default();
            let level = Level::parse(name).filter(|level| level.name() == name);
            level
                .map(Some)
                .ok_or_else(|| AlterConfigsError::UnknownLevel {
                    logger: logger(),
                    level: name.to_owned(),
                })
        }
        DELETE if change.key == telemetry::ROOT_LOGGER => {
            Err(AlterConfigsError::RootLogger(logger()))
        }
        DELETE => Ok(None),
        APPEND => Err(AlterConfigsError::NotForLoggers("APPEND")),
        SUBTRACT => Err(AlterConfigsError::NotForLoggers("SUBTRACT")),
        other => Err(AlterConfigsError::UnknownLoggerOperation(other)),
    }
}
