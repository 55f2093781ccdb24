//! Changes that clients ask for: what they make of the present texts, and whether that is allowed
//! (Kafka classes `ConfigAdminManager`, `ZkAdminManager`, `DynamicBrokerConfig`).

mod listeners;

use std::collections::BTreeMap;

use super::broker::BrokerConfig;
use super::describe::{listener_base, row_of_broker_key};
use super::error::{ConfigError, ConfigProblem};
use super::setting::{Dynamic, Kind, Setting, split_list};
use super::table;

type Texts = BTreeMap<String, String>;

/// One change of `IncrementalAlterConfigs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Set(String),
    Delete,
    Append(String),
    Subtract(String),
}

/// Why a change is refused. The texts are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterError {
    /// `INVALID_CONFIG`
    #[error("{0}")]
    InvalidConfig(String),
    /// `INVALID_REQUEST`
    #[error("{0}")]
    InvalidRequest(String),
    /// Kafka stumbles over it: `UNKNOWN_SERVER_ERROR`, without a message.
    #[error("The server experienced an unexpected error when processing the request.")]
    Unexpected,
}

/// Whose settings are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Topic(&'a str),
    /// A broker by its id as text, or with an empty text all brokers.
    Broker(&'a str),
}

impl Target<'_> {
    fn row(self, key: &str) -> Option<&'static Setting> {
        match self {
            Self::Topic(_) => table::topic_setting(key),
            Self::Broker(_) => table::broker_setting(key),
        }
    }

    /// As Java prints a `ConfigResource`.
    fn printed(self) -> String {
        match self {
            Self::Topic(name) => format!("ConfigResource(type=TOPIC, name='{name}')"),
            Self::Broker(name) => format!("ConfigResource(type=BROKER, name='{name}')"),
        }
    }
}

/// Applies the changes to `texts` one after the other.
pub fn apply(
    target: Target<'_>,
    operations: &[(String, Operation)],
    mut texts: Texts,
) -> Result<Texts, AlterError> {
    for (key, operation) in operations {
        match operation {
            Operation::Set(value) => {
                texts.insert(key.clone(), value.clone());
            }
            Operation::Delete => {
                texts.remove(key);
            }
            Operation::Append(value) => {
                let mut elements = list_elements(target, key, "append", &texts)?;
                let present = elements.clone();
                let added = value.split(',').map(str::to_owned);
                elements.extend(added.filter(|one| !present.contains(one)));
                texts.insert(key.clone(), joined(&elements));
            }
            Operation::Subtract(value) => {
                let mut elements = list_elements(target, key, "subtract", &texts)?;
                for gone in value.split(',') {
                    if let Some(position) = elements.iter().position(|one| one == gone) {
                        elements.remove(position);
                    }
                }
                texts.insert(key.clone(), joined(&elements));
            }
        }
    }
    Ok(texts)
}

fn joined(elements: &[String]) -> String {
    let elements = elements.iter().map(String::as_str);
    let elements: Vec<&str> = elements.filter(|one| !one.is_empty()).collect();
    elements.join(",")
}

fn list_elements(
    target: Target<'_>,
    key: &str,
    verb: &str,
    texts: &Texts,
) -> Result<Vec<String>, AlterError> {
    let row = target.row(key).ok_or(AlterError::Unexpected)?;
    if row.kind != Kind::List {
        return Err(AlterError::InvalidConfig(format!(
            "Config value {verb} is not allowed for config key: {key}"
        )));
    }
    let present = texts.get(key).map(String::as_str).or(row.default);
    let elements = present.unwrap_or_default().split(',');
    Ok(elements.map(str::to_owned).collect())
}

/// Checks the overrides that a topic would have (Kafka's `LogConfig.validate`).
pub fn check_topic_overrides(broker: &BrokerConfig, overrides: &Texts) -> Result<(), ConfigError> {
    let mut keys = overrides.keys();
    if let Some(key) = keys.find(|key| table::topic_setting(key).is_none()) {
        return Err(ConfigError {
            key: key.clone(),
            value: None,
            problem: ConfigProblem::UnknownTopicKey,
        });
    }
    for row in table::topic_settings() {
        if let Some(text) = overrides.get(row.name) {
            row.validate(text)?;
        }
    }
    let config = broker.topic_config(overrides)?;
    let (min, max) = (config.min_compaction_lag_ms, config.max_compaction_lag_ms);
    if min > max {
        return Err(ConfigError::rule(
            "min.compaction.lag.ms",
            None,
            format!(
                "conflict topic config setting min.compaction.lag.ms ({min}) > \
                 max.compaction.lag.ms ({max})"
            ),
            "give the smaller number to min.compaction.lag.ms",
        ));
    }
    let is_remote = overrides.get("remote.storage.enable");
    if is_remote.is_some_and(|text| text.trim().eq_ignore_ascii_case("true")) {
        return Err(ConfigError::rule(
            "remote.storage.enable",
            None,
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with \
             remote log storage.",
            "leave it at false",
        ));
    }
    Ok(())
}

/// As [`check_topic_overrides`], with the error that `AlterConfigs` answers.
pub fn check_topic(
    topic: &str,
    broker: &BrokerConfig,
    overrides: &Texts,
) -> Result<(), AlterError> {
    check_topic_overrides(broker, overrides).map_err(|error| {
        let message = error.kafka_message();
        let is_bare = matches!(error.problem, ConfigProblem::UnknownTopicKey)
            || error.key == "min.compaction.lag.ms"
                && matches!(error.problem, ConfigProblem::Rule { .. });
        if is_bare {
            return AlterError::InvalidConfig(message);
        }
        let resource = Target::Topic(topic).printed();
        AlterError::InvalidConfig(format!(
            "Invalid config value for resource {resource}: {message}"
        ))
    })
}

/// Checks the texts that a broker (or all brokers, if `name` is empty) would have dynamically.
///
/// `running` is the configuration in force, `file` the texts below the dynamic ones, and `other` those of the
/// cluster if `name` is a broker, else those of the broker that is asked.
pub fn check_broker(
    name: &str,
    dynamic: &Texts,
    file: &Texts,
    other: &Texts,
    running: &BrokerConfig,
) -> Result<(), AlterError> {
    check_may_change(dynamic)?;
    for (key, text) in dynamic {
        if let Some(row) = row_of_broker_key(key) {
            let checked = row.validate(text).map_err(|error| ConfigError {
                key: key.clone(),
                ..error
            });
            checked.map_err(|error| AlterError::InvalidRequest(error.kafka_message()))?;
            if row.kind == Kind::Class && row.default != Some(text.trim()) {
                // There are no classes to load here, so none is ever found.
                return Err(AlterError::InvalidRequest(format!(
                    "Invalid value {text} for configuration {key}: Class {text} could not be found."
                )));
            }
        }
    }
    let (weaker, stronger) = if name.is_empty() {
        check_may_be_default(dynamic)?;
        (dynamic, other)
    } else {
        (other, dynamic)
    };
    let mut merged = file.clone();
    merged.extend(weaker.clone());
    merged.extend(stronger.clone());
    let proposed = BrokerConfig::parse(&merged).map_err(|error| refused_by_rule(&error))?;
    check_threads(&merged, running)?;
    check_reporters(dynamic)?;
    listeners::check(&proposed, running)
}

/// Checks that there is a secret for the passwords among the texts that a broker is to have dynamically. Kafka asks for
/// it only when it writes.
pub fn check_secret(name: &str, dynamic: &Texts, running: &BrokerConfig) -> Result<(), AlterError> {
    let has_secret = running.password_encoder_secret.is_some();
    if !has_secret && dynamic.keys().any(|key| is_password(key)) {
        return Err(AlterError::InvalidConfig(format!(
            "Invalid config value for resource {}: Password encoder secret not configured",
            Target::Broker(name).printed()
        )));
    }
    Ok(())
}

/// Whether the value of a broker's setting is a secret, which stands in ZooKeeper encrypted.
pub fn is_password(key: &str) -> bool {
    row_of_broker_key(key).is_some_and(Setting::is_sensitive)
}

fn refused_by_rule(error: &ConfigError) -> AlterError {
    // Kafka checks these with Scala's `require`, which says so.
    let message = error.kafka_message();
    let is_requirement = matches!(error.problem, ConfigProblem::Rule { .. })
        && !message.starts_with("Error ")
        && !message.starts_with("For input string")
        && !message.starts_with("Invalid ")
        && !message.starts_with("Unable ");
    AlterError::InvalidRequest(if is_requirement {
        format!("requirement failed: {message}")
    } else {
        message
    })
}

fn dynamic_of(key: &str) -> Option<Dynamic> {
    table::broker_setting(key).map(|row| row.dynamic)
}

/// As Scala prints a set.
fn set(keys: &[&str]) -> String {
    format!("Set({})", keys.join(", "))
}

fn check_may_change(dynamic: &Texts) -> Result<(), AlterError> {
    let keys = || dynamic.keys().map(String::as_str);
    let unchangeable: Vec<&str> = keys()
        .filter(|key| dynamic_of(key) == Some(Dynamic::ReadOnly))
        .collect();
    if !unchangeable.is_empty() {
        return Err(AlterError::InvalidRequest(format!(
            "Cannot update these configs dynamically: {}",
            set(&unchangeable)
        )));
    }
    let without_listener: Vec<&str> = keys().filter(|key| is_security_store(key)).collect();
    if !without_listener.is_empty() {
        return Err(AlterError::InvalidRequest(format!(
            "These security configs can be dynamically updated only per-listener using the listener \
             prefix: Hash{}",
            set(&without_listener)
        )));
    }
    Ok(())
}

/// Checks that what all brokers are to have may be set for all of them.
fn check_may_be_default(dynamic: &Texts) -> Result<(), AlterError> {
    let keys = dynamic.keys().map(String::as_str);
    let of_one_broker: Vec<&str> = keys
        .filter(|key| {
            let base = listener_base(key).unwrap_or(key);
            dynamic_of(base) == Some(Dynamic::PerBroker)
        })
        .collect();
    if of_one_broker.is_empty() {
        return Ok(());
    }
    Err(AlterError::InvalidRequest(format!(
        "Cannot update these configs at default cluster level, broker id must be specified: {}",
        set(&of_one_broker)
    )))
}

/// Key stores, trust stores and their passwords belong to a listener.
fn is_security_store(key: &str) -> bool {
    key.starts_with("ssl.keystore.")
        || key.starts_with("ssl.truststore.")
        || key == "ssl.key.password"
}

/// Reporters of metrics are Java classes. The one that Java has anyway is the only one that can be found.
fn check_reporters(dynamic: &Texts) -> Result<(), AlterError> {
    const KNOWN: &str = "org.apache.kafka.common.metrics.JmxReporter";
    let key = "metric.reporters";
    let reporters = dynamic.get(key).map(|text| split_list(text));
    if reporters.into_iter().flatten().all(|class| class == KNOWN) {
        return Ok(());
    }
    Err(refused_by_part(&format!(
        "Validation of dynamic config update of Set({key}) failed with class class \
         kafka.server.DynamicMetricsReporters"
    )))
}

/// A pool may shrink to half and grow to double its size at a time.
fn check_threads(merged: &Texts, running: &BrokerConfig) -> Result<(), AlterError> {
    let pools = [
        ("num.io.threads", running.num_io_threads),
        ("num.network.threads", running.num_network_threads),
        ("num.replica.fetchers", running.num_replica_fetchers),
        (
            "num.recovery.threads.per.data.dir",
            running.num_recovery_threads_per_data_dir,
        ),
        ("background.threads", running.background_threads),
        ("log.cleaner.threads", running.log_cleaner_threads),
    ];
    for (key, current) in pools {
        let for_listener = merged
            .iter()
            .filter(|(given, _)| given.as_str() != key && listener_base(given) == Some(key));
        let texts = merged.get(key).into_iter();
        for text in texts.chain(for_listener.map(|(_, text)| text)) {
            let Ok(wanted) = text.trim().parse::<i32>() else {
                continue;
            };
            if let Some(problem) = thread_problem(key, wanted, current) {
                return Err(refused_by_part(&problem));
            }
        }
    }
    Ok(())
}

fn thread_problem(key: &str, wanted: i32, current: i32) -> Option<String> {
    if wanted == current {
        return None;
    }
    let double = current.saturating_mul(2);
    if key == "log.cleaner.threads" {
        return if wanted < 1 {
            Some("Log cleaner threads should be at least 1".to_owned())
        } else if wanted < current / 2 {
            Some(format!(
                "Log cleaner threads cannot be reduced to less than half the current value {current}"
            ))
        } else if wanted > double {
            Some(format!(
                "Log cleaner threads cannot be increased to more than double the current value {current}"
            ))
        } else {
            None
        };
    }
    let why = if wanted <= 0 {
        "value should be at least 1".to_owned()
    } else if wanted < current / 2 {
        format!("value should be at least half the current value {current}")
    } else if wanted > double {
        format!("value should not be greater than double the current value {current}")
    } else {
        return None;
    };
    Some(format!(
        "Dynamic thread count update validation failed for {key}={wanted}, {why}"
    ))
}

/// What a part of the broker that would take over the new settings says against them.
fn refused_by_part(problem: &str) -> AlterError {
    AlterError::InvalidRequest(format!(
        "Invalid value org.apache.kafka.common.config.ConfigException: {problem} for configuration Invalid \
         dynamic configuration"
    ))
}
