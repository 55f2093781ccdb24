//! The settings of a broker, typed (Kafka class `KafkaConfig`).

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::listeners::Listeners;
use super::rules;
use super::setting::{Setting, Support, split_list};
use super::table;
use super::topic::TopicConfig;
use super::values::{Password, Values};

macro_rules! broker_config {
    ($($field:ident: $kind:ty = $key:literal,)*) => {
        /// Every broker setting that code uses: what was given over Kafka's defaults.
        ///
        /// A field is named as its key with `_` for `.`; the unit is in the name.
        #[derive(Clone, Debug)]
        pub struct BrokerConfig {
            $(
                #[doc = concat!("`", $key, "`")]
                pub $field: $kind,
            )*
            /// `listeners`, `advertised.listeners` and what belongs to them.
            pub listeners: Listeners,
            /// `broker.id`; -1 asks for a generated one.
            pub broker_id: i32,
            /// `log.dirs`, else `log.dir`.
            pub log_dirs: Vec<String>,
            /// `max.connections.per.ip.overrides`, host or address to limit.
            pub max_connections_per_ip_overrides: Vec<(String, i32)>,
            given: BTreeMap<String, String>,
        }

        impl BrokerConfig {
            fn from_values(values: &Values<'_>) -> Result<Self, ConfigError> {
                Ok(Self {
                    $($field: values.get($key)?,)*
                    listeners: Listeners::parse(values)?,
                    broker_id: rules::broker_id(values)?,
                    log_dirs: rules::log_dirs(values)?,
                    max_connections_per_ip_overrides: rules::connection_overrides(values)?,
                    given: values.given.clone(),
                })
            }
        }
    };
}

broker_config! {
    barnabas_admin_listener: String = "barnabas.admin.listener",
    barnabas_fast_failover_enable: bool = "barnabas.fast.failover.enable",
    barnabas_fast_failover_probe_interval_ms: i32 = "barnabas.fast.failover.probe.interval.ms",
    barnabas_fast_failover_probe_timeout_ms: i32 = "barnabas.fast.failover.probe.timeout.ms",
    barnabas_fast_failover_probes: i32 = "barnabas.fast.failover.probes",
    barnabas_max_partitions_per_request: i32 = "barnabas.max.partitions.per.request",
    alter_config_policy_class_name: Option<String> = "alter.config.policy.class.name",
    alter_log_dirs_replication_quota_window_num: i32 = "alter.log.dirs.replication.quota.window.num",
    alter_log_dirs_replication_quota_window_size_seconds: i32 = "alter.log.dirs.replication.quota.window.size.seconds",
    authorizer_class_name: String = "authorizer.class.name",
    auto_create_topics_enable: bool = "auto.create.topics.enable",
    auto_leader_rebalance_enable: bool = "auto.leader.rebalance.enable",
    background_threads: i32 = "background.threads",
    broker_id_generation_enable: bool = "broker.id.generation.enable",
    broker_rack: Option<String> = "broker.rack",
    client_quota_callback_class: Option<String> = "client.quota.callback.class",
    compression_gzip_level: i32 = "compression.gzip.level",
    compression_lz4_level: i32 = "compression.lz4.level",
    compression_type: String = "compression.type",
    compression_zstd_level: i32 = "compression.zstd.level",
    connection_failed_authentication_delay_ms: i32 = "connection.failed.authentication.delay.ms",
    connections_max_idle_ms: i64 = "connections.max.idle.ms",
    connections_max_reauth_ms: i64 = "connections.max.reauth.ms",
    controlled_shutdown_enable: bool = "controlled.shutdown.enable",
    controlled_shutdown_max_retries: i32 = "controlled.shutdown.max.retries",
    controlled_shutdown_retry_backoff_ms: i64 = "controlled.shutdown.retry.backoff.ms",
    controller_quota_window_num: i32 = "controller.quota.window.num",
    controller_quota_window_size_seconds: i32 = "controller.quota.window.size.seconds",
    controller_socket_timeout_ms: i32 = "controller.socket.timeout.ms",
    create_topic_policy_class_name: Option<String> = "create.topic.policy.class.name",
    default_replication_factor: i32 = "default.replication.factor",
    delegation_token_expiry_check_interval_ms: i64 = "delegation.token.expiry.check.interval.ms",
    delegation_token_expiry_time_ms: i64 = "delegation.token.expiry.time.ms",
    delegation_token_master_key: Option<Password> = "delegation.token.master.key",
    delegation_token_max_lifetime_ms: i64 = "delegation.token.max.lifetime.ms",
    delegation_token_secret_key: Option<Password> = "delegation.token.secret.key",
    delete_topic_enable: bool = "delete.topic.enable",
    early_start_listeners: Option<String> = "early.start.listeners",
    fetch_max_bytes: i32 = "fetch.max.bytes",
    group_initial_rebalance_delay_ms: i32 = "group.initial.rebalance.delay.ms",
    group_max_session_timeout_ms: i32 = "group.max.session.timeout.ms",
    group_max_size: i32 = "group.max.size",
    group_min_session_timeout_ms: i32 = "group.min.session.timeout.ms",
    inter_broker_protocol_version: String = "inter.broker.protocol.version",
    leader_imbalance_check_interval_seconds: i64 = "leader.imbalance.check.interval.seconds",
    leader_imbalance_per_broker_percentage: i32 = "leader.imbalance.per.broker.percentage",
    log_cleaner_backoff_ms: i64 = "log.cleaner.backoff.ms",
    log_cleaner_dedupe_buffer_size: i64 = "log.cleaner.dedupe.buffer.size",
    log_cleaner_delete_retention_ms: i64 = "log.cleaner.delete.retention.ms",
    log_cleaner_enable: bool = "log.cleaner.enable",
    log_cleaner_io_buffer_load_factor: f64 = "log.cleaner.io.buffer.load.factor",
    log_cleaner_io_buffer_size: i32 = "log.cleaner.io.buffer.size",
    log_cleaner_io_max_bytes_per_second: f64 = "log.cleaner.io.max.bytes.per.second",
    log_cleaner_max_compaction_lag_ms: i64 = "log.cleaner.max.compaction.lag.ms",
    log_cleaner_min_cleanable_ratio: f64 = "log.cleaner.min.cleanable.ratio",
    log_cleaner_min_compaction_lag_ms: i64 = "log.cleaner.min.compaction.lag.ms",
    log_cleaner_threads: i32 = "log.cleaner.threads",
    log_cleanup_policy: Vec<String> = "log.cleanup.policy",
    log_dir_failure_timeout_ms: i64 = "log.dir.failure.timeout.ms",
    log_flush_interval_messages: i64 = "log.flush.interval.messages",
    log_flush_interval_ms: Option<i64> = "log.flush.interval.ms",
    log_flush_offset_checkpoint_interval_ms: i32 = "log.flush.offset.checkpoint.interval.ms",
    log_flush_scheduler_interval_ms: i64 = "log.flush.scheduler.interval.ms",
    log_flush_start_offset_checkpoint_interval_ms: i32 = "log.flush.start.offset.checkpoint.interval.ms",
    log_index_interval_bytes: i32 = "log.index.interval.bytes",
    log_index_size_max_bytes: i32 = "log.index.size.max.bytes",
    log_initial_task_delay_ms: i64 = "log.initial.task.delay.ms",
    log_message_downconversion_enable: bool = "log.message.downconversion.enable",
    log_message_timestamp_after_max_ms: i64 = "log.message.timestamp.after.max.ms",
    log_message_timestamp_before_max_ms: i64 = "log.message.timestamp.before.max.ms",
    log_message_timestamp_difference_max_ms: i64 = "log.message.timestamp.difference.max.ms",
    log_message_timestamp_type: String = "log.message.timestamp.type",
    log_preallocate: bool = "log.preallocate",
    log_retention_bytes: i64 = "log.retention.bytes",
    log_retention_check_interval_ms: i64 = "log.retention.check.interval.ms",
    log_retention_hours: i32 = "log.retention.hours",
    log_retention_minutes: Option<i32> = "log.retention.minutes",
    log_retention_ms: Option<i64> = "log.retention.ms",
    log_roll_hours: i32 = "log.roll.hours",
    log_roll_jitter_hours: i32 = "log.roll.jitter.hours",
    log_roll_jitter_ms: Option<i64> = "log.roll.jitter.ms",
    log_roll_ms: Option<i64> = "log.roll.ms",
    log_segment_bytes: i32 = "log.segment.bytes",
    log_segment_delete_delay_ms: i64 = "log.segment.delete.delay.ms",
    max_connection_creation_rate: i32 = "max.connection.creation.rate",
    max_connections: i32 = "max.connections",
    max_connections_per_ip: i32 = "max.connections.per.ip",
    max_incremental_fetch_session_cache_slots: i32 = "max.incremental.fetch.session.cache.slots",
    max_request_partition_size_limit: i32 = "max.request.partition.size.limit",
    message_max_bytes: i32 = "message.max.bytes",
    min_insync_replicas: i32 = "min.insync.replicas",
    num_io_threads: i32 = "num.io.threads",
    num_network_threads: i32 = "num.network.threads",
    num_partitions: i32 = "num.partitions",
    num_recovery_threads_per_data_dir: i32 = "num.recovery.threads.per.data.dir",
    num_replica_alter_log_dirs_threads: Option<i32> = "num.replica.alter.log.dirs.threads",
    num_replica_fetchers: i32 = "num.replica.fetchers",
    offset_metadata_max_bytes: i32 = "offset.metadata.max.bytes",
    offsets_commit_required_acks: i16 = "offsets.commit.required.acks",
    offsets_commit_timeout_ms: i32 = "offsets.commit.timeout.ms",
    offsets_load_buffer_size: i32 = "offsets.load.buffer.size",
    offsets_retention_check_interval_ms: i64 = "offsets.retention.check.interval.ms",
    offsets_retention_minutes: i32 = "offsets.retention.minutes",
    offsets_topic_compression_codec: i32 = "offsets.topic.compression.codec",
    offsets_topic_num_partitions: i32 = "offsets.topic.num.partitions",
    offsets_topic_replication_factor: i16 = "offsets.topic.replication.factor",
    offsets_topic_segment_bytes: i32 = "offsets.topic.segment.bytes",
    password_encoder_cipher_algorithm: String = "password.encoder.cipher.algorithm",
    password_encoder_iterations: i32 = "password.encoder.iterations",
    password_encoder_key_length: i32 = "password.encoder.key.length",
    password_encoder_keyfactory_algorithm: Option<String> = "password.encoder.keyfactory.algorithm",
    password_encoder_old_secret: Option<Password> = "password.encoder.old.secret",
    password_encoder_secret: Option<Password> = "password.encoder.secret",
    principal_builder_class: String = "principal.builder.class",
    producer_id_expiration_check_interval_ms: i32 = "producer.id.expiration.check.interval.ms",
    producer_id_expiration_ms: i32 = "producer.id.expiration.ms",
    queued_max_request_bytes: i64 = "queued.max.request.bytes",
    queued_max_requests: i32 = "queued.max.requests",
    quota_window_num: i32 = "quota.window.num",
    quota_window_size_seconds: i32 = "quota.window.size.seconds",
    replica_fetch_backoff_ms: i32 = "replica.fetch.backoff.ms",
    replica_fetch_max_bytes: i32 = "replica.fetch.max.bytes",
    replica_fetch_min_bytes: i32 = "replica.fetch.min.bytes",
    replica_fetch_response_max_bytes: i32 = "replica.fetch.response.max.bytes",
    replica_fetch_wait_max_ms: i32 = "replica.fetch.wait.max.ms",
    replica_high_watermark_checkpoint_interval_ms: i64 = "replica.high.watermark.checkpoint.interval.ms",
    replica_lag_time_max_ms: i64 = "replica.lag.time.max.ms",
    replica_selector_class: Option<String> = "replica.selector.class",
    replica_socket_receive_buffer_bytes: i32 = "replica.socket.receive.buffer.bytes",
    replica_socket_timeout_ms: i32 = "replica.socket.timeout.ms",
    replication_quota_window_num: i32 = "replication.quota.window.num",
    replication_quota_window_size_seconds: i32 = "replication.quota.window.size.seconds",
    request_timeout_ms: i32 = "request.timeout.ms",
    reserved_broker_max_id: i32 = "reserved.broker.max.id",
    socket_connection_setup_timeout_max_ms: i64 = "socket.connection.setup.timeout.max.ms",
    socket_connection_setup_timeout_ms: i64 = "socket.connection.setup.timeout.ms",
    socket_listen_backlog_size: i32 = "socket.listen.backlog.size",
    socket_receive_buffer_bytes: i32 = "socket.receive.buffer.bytes",
    socket_request_max_bytes: i32 = "socket.request.max.bytes",
    socket_send_buffer_bytes: i32 = "socket.send.buffer.bytes",
    transaction_abort_timed_out_transaction_cleanup_interval_ms: i32 = "transaction.abort.timed.out.transaction.cleanup.interval.ms",
    transaction_max_timeout_ms: i32 = "transaction.max.timeout.ms",
    transaction_partition_verification_enable: bool = "transaction.partition.verification.enable",
    transaction_remove_expired_transaction_cleanup_interval_ms: i32 = "transaction.remove.expired.transaction.cleanup.interval.ms",
    transaction_state_log_load_buffer_size: i32 = "transaction.state.log.load.buffer.size",
    transaction_state_log_min_isr: i32 = "transaction.state.log.min.isr",
    transaction_state_log_num_partitions: i32 = "transaction.state.log.num.partitions",
    transaction_state_log_replication_factor: i16 = "transaction.state.log.replication.factor",
    transaction_state_log_segment_bytes: i32 = "transaction.state.log.segment.bytes",
    transactional_id_expiration_ms: i32 = "transactional.id.expiration.ms",
    unclean_leader_election_enable: bool = "unclean.leader.election.enable",
    unclean_leader_election_interval_ms: i64 = "unclean.leader.election.interval.ms",
    zookeeper_connect: String = "zookeeper.connect",
    zookeeper_connection_timeout_ms: Option<i32> = "zookeeper.connection.timeout.ms",
    zookeeper_max_in_flight_requests: i32 = "zookeeper.max.in.flight.requests",
    zookeeper_metadata_migration_enable: bool = "zookeeper.metadata.migration.enable",
    zookeeper_session_timeout_ms: i32 = "zookeeper.session.timeout.ms",
    zookeeper_set_acl: bool = "zookeeper.set.acl",
    zookeeper_ssl_cipher_suites: Vec<String> = "zookeeper.ssl.cipher.suites",
    zookeeper_ssl_client_enable: bool = "zookeeper.ssl.client.enable",
    zookeeper_ssl_crl_enable: bool = "zookeeper.ssl.crl.enable",
    zookeeper_ssl_enabled_protocols: Vec<String> = "zookeeper.ssl.enabled.protocols",
    zookeeper_ssl_endpoint_identification_algorithm: String = "zookeeper.ssl.endpoint.identification.algorithm",
    zookeeper_ssl_keystore_location: Option<String> = "zookeeper.ssl.keystore.location",
    zookeeper_ssl_keystore_password: Option<Password> = "zookeeper.ssl.keystore.password",
    zookeeper_ssl_keystore_type: Option<String> = "zookeeper.ssl.keystore.type",
    zookeeper_ssl_ocsp_enable: bool = "zookeeper.ssl.ocsp.enable",
    zookeeper_ssl_protocol: String = "zookeeper.ssl.protocol",
    zookeeper_ssl_truststore_location: Option<String> = "zookeeper.ssl.truststore.location",
    zookeeper_ssl_truststore_password: Option<Password> = "zookeeper.ssl.truststore.password",
    zookeeper_ssl_truststore_type: Option<String> = "zookeeper.ssl.truststore.type",
}

impl BrokerConfig {
    /// Types and checks `given` (keys of the file, with dynamic ones merged in) over Kafka's defaults.
    ///
    /// Unknown keys are kept and ignored. The error is the first wrong setting in the order of the table;
    /// [`BrokerConfig::problems`] has them all.
    pub fn parse(given: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let given = rules::with_node_id(given);
        if let Some(error) = Self::row_problems(&given).into_iter().next() {
            return Err(error);
        }
        let values = Values {
            lookup: table::broker_setting,
            given: &given,
        };
        let config = Self::from_values(&values)?;
        match rules::problems(&config, &given).into_iter().next() {
            None => Ok(config),
            Some(error) => Err(error),
        }
    }

    /// Everything that is wrong with `given`; rules about several keys are only looked at when each
    /// single value is right.
    pub fn problems(given: &BTreeMap<String, String>) -> Vec<ConfigError> {
        let rows = Self::row_problems(given);
        if rows.is_empty() {
            return Self::parse(given).err().into_iter().collect();
        }
        rows
    }

    fn row_problems(given: &BTreeMap<String, String>) -> Vec<ConfigError> {
        given
            .iter()
            .filter_map(|(key, text)| table::broker_setting(key)?.validate(text).err())
            .collect()
    }

    /// The texts that were given, by key, without defaults.
    pub fn given(&self) -> &BTreeMap<String, String> {
        &self.given
    }

    /// Keys that Kafka does not know (nor we), but not those with a prefix under which any key may stand.
    pub fn unknown_keys(&self) -> Vec<&str> {
        let keys = self.given.keys().map(String::as_str);
        keys.filter(|key| table::broker_setting(key).is_none() && !rules::is_free_key(key))
            .collect()
    }

    /// Keys that were given, are known and have no effect yet.
    pub fn keys_not_honoured_yet(&self) -> Vec<&'static str> {
        let rows = self
            .given
            .keys()
            .filter_map(|key| table::broker_setting(key));
        rows.filter(|row: &&Setting| row.support == Support::NotYet)
            .map(|row| row.name)
            .collect()
    }

    /// The settings of a topic: `overrides` over this broker's values.
    pub fn topic_config(
        &self,
        overrides: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, ConfigError> {
        let mut given = self.topic_defaults();
        given.extend(
            overrides
                .iter()
                .map(|(key, text)| (key.clone(), text.clone())),
        );
        TopicConfig::parse(&given)
    }

    /// What the topic settings are where a topic overrides nothing, as text; keys at Kafka's own
    /// default are left out (`KafkaConfig.extractLogConfigMap`).
    pub fn topic_defaults(&self) -> BTreeMap<String, String> {
        let mut defaults = BTreeMap::new();
        for setting in table::topic_settings() {
            let synonyms = table::topic_synonyms(setting.name);
            let found = synonyms
                .iter()
                .find_map(|synonym| Some((*synonym, self.given.get(*synonym)?)));
            if let Some((synonym, text)) = found {
                defaults.insert(setting.name.to_owned(), to_topic_unit(synonym, text.trim()));
            }
        }
        defaults
    }

    /// How long the start waits for ZooKeeper, in milliseconds.
    pub fn zookeeper_connection_timeout(&self) -> i32 {
        self.zookeeper_connection_timeout_ms
            .unwrap_or(self.zookeeper_session_timeout_ms)
    }

    /// `super.users` is read by the authorizer only; elements are principals such as `User:alice`.
    pub fn super_users(&self) -> Vec<String> {
        let users = self.given.get("super.users").map_or("", String::as_str);
        split_list(&users.replace(';', ","))
    }
}

/// A broker setting in hours or minutes is a topic setting in milliseconds.
fn to_topic_unit(broker_key: &str, text: &str) -> String {
    let factor = match broker_key.rsplit('.').next() {
        Some("hours") => 3_600_000,
        Some("minutes") => 60_000,
        Some(_) | None => 1,
    };
    let number = text.parse::<i64>();
    match number {
        Ok(number) if broker_key.starts_with("log.retention.") && number < 0 && factor > 1 => {
            "-1".to_owned()
        }
        Ok(number) if broker_key == "log.retention.ms" && number < 0 => "-1".to_owned(),
        Ok(number) if factor > 1 => number.saturating_mul(factor).to_string(),
        Ok(_) | Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_defaults_are_valid() {
        let given = BTreeMap::from([("zookeeper.connect".to_owned(), "zk:2181".to_owned())]);
        let config = BrokerConfig::parse(&given).unwrap();
        assert_eq!(config.num_partitions, 1);
        assert_eq!(config.broker_id, -1);
        assert_eq!(config.listeners.inter_broker, "PLAINTEXT");
        let topic = config.topic_config(&BTreeMap::new()).unwrap();
        assert_eq!(topic, TopicConfig::default());
        assert_eq!(topic.retention_ms, 7 * 24 * 3_600_000);
    }
}
