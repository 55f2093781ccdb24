//! Rules about several settings, and settings whose text has a form of its own.

use std::collections::BTreeMap;

use super::broker::BrokerConfig;
use super::error::ConfigError;
use super::setting::split_list;
use super::values::Values;

/// `broker.id` is also `node.id`, and the other way round.
pub(super) fn with_node_id(given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut given = given.clone();
    match (
        given.get("broker.id").cloned(),
        given.get("node.id").cloned(),
    ) {
        (Some(id), None) => drop(given.insert("node.id".to_owned(), id)),
        (None, Some(id)) => drop(given.insert("broker.id".to_owned(), id)),
        (None, None) | (Some(_), Some(_)) => {}
    }
    given
}

/// Keys under which anything may stand: listener prefixes, and settings of plug-ins.
pub(super) fn is_free_key(key: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "listener.name.",
        "authorizer.",
        "rsm.config.",
        "rlmm.config.",
        "metrics.",
        "confluent.",
    ];
    key == "super.users"
        || key == "allow.everyone.if.no.acl.found"
        || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

pub(super) fn broker_id(values: &Values<'_>) -> Result<i32, ConfigError> {
    let id: i32 = values.get("broker.id")?;
    let node_id: i32 = values.get("node.id")?;
    let text = id.to_string();
    let error = |message: &str, remedy: String| {
        Err(ConfigError::rule("broker.id", Some(&text), message, remedy))
    };
    if id != node_id {
        return error(
            "You must set `node.id` to the same value as `broker.id`.",
            "remove node.id".to_owned(),
        );
    }
    let generated: bool = values.get("broker.id.generation.enable")?;
    let reserved: i32 = values.get("reserved.broker.max.id")?;
    if generated && !(-1..=reserved).contains(&id) {
        return error(
            "broker.id must be greater than or equal to -1 and not greater than reserved.broker.max.id",
            format!(
                "give an id from 0 to {reserved}, raise reserved.broker.max.id, or set \
                 broker.id.generation.enable=false"
            ),
        );
    }
    if !generated && id < 0 {
        return error(
            "broker.id must be greater than or equal to 0",
            "give an id, or set broker.id.generation.enable=true".to_owned(),
        );
    }
    Ok(id)
}

pub(super) fn log_dirs(values: &Values<'_>) -> Result<Vec<String>, ConfigError> {
    let (key, text) = match values.get::<Option<String>>("log.dirs")? {
        Some(text) => ("log.dirs", text),
        None => ("log.dir", values.get::<String>("log.dir")?),
    };
    let mut directories: Vec<String> = Vec::new();
    for directory in split_list(&text) {
        if !directory.is_empty() && !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    if directories.is_empty() {
        return Err(ConfigError::rule(
            key,
            Some(&text),
            "At least one log directory must be defined via log.dirs or log.dir.",
            "give a path, or several separated by commas",
        ));
    }
    Ok(directories)
}

pub(super) fn connection_overrides(values: &Values<'_>) -> Result<Vec<(String, i32)>, ConfigError> {
    let key = "max.connections.per.ip.overrides";
    let text: String = values.get(key)?;
    let elements = split_list(&text);
    let mut overrides = Vec::with_capacity(elements.len());
    for element in elements {
        let wrong = |message| {
            let remedy = "give elements such as 10.0.0.1:100, separated by commas";
            ConfigError::rule(key, Some(&text), message, remedy)
        };
        // The messages are those of Java's `substring` and `Integer.valueOf`.
        let (host, limit) = element.rsplit_once(':').ok_or_else(|| {
            let length = element.encode_utf16().count();
            wrong(format!(
                "Error parsing configuration property '{key}': begin 0, end -1, length {length}"
            ))
        })?;
        let limit = limit.trim();
        let number = limit.parse();
        let number = number.map_err(|_| wrong(format!("For input string: \"{limit}\"")))?;
        overrides.push((host.trim().to_owned(), number));
    }
    Ok(overrides)
}

struct Rule {
    key: &'static str,
    holds: bool,
    message: String,
    remedy: String,
}

fn rule(
    key: &'static str,
    holds: bool,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Rule {
    Rule {
        key,
        holds,
        message: message.into(),
        remedy: remedy.into(),
    }
}

/// What `KafkaConfig.validateValues` refuses, in its order and mostly in its words.
pub(super) fn problems(
    config: &BrokerConfig,
    given: &BTreeMap<String, String>,
) -> Vec<ConfigError> {
    let rules = mode(given)
        .into_iter()
        .chain(logs(config))
        .chain(replication(config))
        .chain(network(config, given));
    rules
        .filter(|rule| !rule.holds)
        .map(|rule| {
            let value = given.get(rule.key).map(String::as_str);
            ConfigError::rule(rule.key, value, rule.message, rule.remedy)
        })
        .collect()
}

fn mode(given: &BTreeMap<String, String>) -> Vec<Rule> {
    let is_empty = |key: &str| given.get(key).is_none_or(|text| text.trim().is_empty());
    let is_false = |key: &str| {
        given
            .get(key)
            .is_none_or(|text| text.trim().eq_ignore_ascii_case("false"))
    };
    vec![
        rule(
            "process.roles",
            is_empty("process.roles"),
            "this broker runs in ZooKeeper mode only, there are no KRaft roles",
            "remove process.roles and set zookeeper.connect",
        ),
        rule(
            "zookeeper.connect",
            given.contains_key("zookeeper.connect"),
            "Missing required configuration `zookeeper.connect` which has no default value.",
            "set it to host:port of each ZooKeeper server, with an optional /chroot at the end",
        ),
        rule(
            "zookeeper.connect",
            !given.contains_key("zookeeper.connect") || !is_empty("zookeeper.connect"),
            "no ZooKeeper server is named",
            "set it to host:port of each ZooKeeper server, with an optional /chroot at the end",
        ),
        rule(
            "controller.listener.names",
            is_empty("controller.listener.names"),
            "controller.listener.names must be empty when not running in KRaft mode",
            "remove it",
        ),
        rule(
            "zookeeper.metadata.migration.enable",
            is_false("zookeeper.metadata.migration.enable"),
            "this broker does not take part in a migration to KRaft",
            "remove it",
        ),
        rule(
            "remote.log.storage.system.enable",
            is_false("remote.log.storage.system.enable"),
            "tiered storage is not supported",
            "remove it",
        ),
    ]
}

fn logs(config: &BrokerConfig) -> Vec<Rule> {
    let retention = config
        .log_retention_ms
        .or_else(|| {
            config
                .log_retention_minutes
                .map(|minutes| i64::from(minutes) * 60_000)
        })
        .unwrap_or_else(|| i64::from(config.log_retention_hours) * 3_600_000);
    let retention_key = match (config.log_retention_ms, config.log_retention_minutes) {
        (Some(_), _) => "log.retention.ms",
        (None, Some(_)) => "log.retention.minutes",
        (None, None) => "log.retention.hours",
    };
    let cleaner_bytes = config
        .log_cleaner_dedupe_buffer_size
        .checked_div(i64::from(config.log_cleaner_threads))
        .unwrap_or(i64::MAX);
    vec![
        rule(
            "log.roll.ms",
            config.log_roll_ms.is_none_or(|roll| roll >= 1),
            "log.roll.ms must be greater than or equal to 1",
            "give 1 or more",
        ),
        rule(
            "log.roll.jitter.ms",
            config.log_roll_jitter_ms.is_none_or(|jitter| jitter >= 0),
            "log.roll.jitter.ms must be greater than or equal to 0",
            "give 0 or more",
        ),
        rule(
            retention_key,
            retention != 0,
            "log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
            "give -1, or 1 or more",
        ),
        rule(
            "log.cleaner.dedupe.buffer.size",
            cleaner_bytes > 1024 * 1024,
            "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.",
            "raise it, or lower log.cleaner.threads",
        ),
        rule(
            "offsets.commit.required.acks",
            (-1..=config.offsets_topic_replication_factor)
                .contains(&config.offsets_commit_required_acks),
            "offsets.commit.required.acks must be greater or equal to -1 and less or equal to \
             offsets.topic.replication.factor",
            "leave it at -1",
        ),
        rule(
            "offsets.topic.compression.codec",
            (0..=4).contains(&config.offsets_topic_compression_codec),
            format!(
                "Unknown compression type id: {}",
                config.offsets_topic_compression_codec
            ),
            "give 0 (none), 1 (gzip), 2 (snappy), 3 (lz4) or 4 (zstd)",
        ),
    ]
}

fn replication(config: &BrokerConfig) -> Vec<Rule> {
    vec![
        rule(
            "replica.lag.time.max.ms",
            i64::from(config.replica_fetch_wait_max_ms) <= config.replica_lag_time_max_ms,
            "replica.fetch.wait.max.ms should always be less than or equal to replica.lag.time.max.ms to \
             prevent frequent changes in ISR",
            format!("give {} or more", config.replica_fetch_wait_max_ms),
        ),
        rule(
            "replica.socket.timeout.ms",
            config.replica_fetch_wait_max_ms <= config.replica_socket_timeout_ms,
            "replica.socket.timeout.ms should always be at least replica.fetch.wait.max.ms to prevent \
             unnecessary socket timeouts",
            format!("give {} or more", config.replica_fetch_wait_max_ms),
        ),
    ]
}

fn network(config: &BrokerConfig, given: &BTreeMap<String, String>) -> Vec<Rule> {
    let idle = config.connections_max_idle_ms;
    let delay = config.connection_failed_authentication_delay_ms;
    vec![
        rule(
            "queued.max.request.bytes",
            config.queued_max_request_bytes <= 0
                || config.queued_max_request_bytes >= i64::from(config.socket_request_max_bytes),
            "queued.max.request.bytes must be larger or equal to socket.request.max.bytes",
            format!("give -1, or {} or more", config.socket_request_max_bytes),
        ),
        rule(
            "max.connections.per.ip",
            config.max_connections_per_ip != 0
                || given
                    .get("max.connections.per.ip.overrides")
                    .is_some_and(|text| !text.trim().is_empty()),
            "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is \
             set.",
            "give 1 or more, or name the hosts that may connect in max.connections.per.ip.overrides",
        ),
        rule(
            "connections.max.idle.ms",
            idle < 0 || i64::from(delay) < idle,
            format!(
                "connection.failed.authentication.delay.ms={delay} should always be less than \
                 connections.max.idle.ms={idle} to prevent failed authentication responses from timing out"
            ),
            format!("give more than {delay}"),
        ),
    ]
}
