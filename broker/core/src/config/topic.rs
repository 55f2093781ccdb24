//! The settings of one topic, typed (Kafka class `LogConfig`).

use super::error::ConfigError;
use super::setting::Setting;
use super::table;
use super::values::Values;
use std::collections::BTreeMap;

/// `cleanup.policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub delete: bool,
    pub compact: bool,
}

/// `compression.type`: what the broker stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetCompression {
    /// What the producer chose.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampKind {
    CreateTime,
    LogAppendTime,
}

/// Every setting of a topic, overrides over the broker's values.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression_type: TargetCompression,
    /// 1 to 9, or -1 for the codec's own default.
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub index_interval_bytes: i32,
    pub max_compaction_lag_ms: i64,
    /// Largest batch, in bytes.
    pub max_message_bytes: i32,
    pub message_downconversion_enable: bool,
    pub message_timestamp_type: TimestampKind,
    /// How much older than the broker's clock a timestamp may be; the smaller of this and the deprecated
    /// `message.timestamp.difference.max.ms` as KIP-937 combines them.
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_after_max_ms: i64,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    /// -1 keeps any size.
    pub retention_bytes: i64,
    /// -1 keeps for ever.
    pub retention_ms: i64,
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
    /// `partition:broker` elements, or `*`.
    pub leader_replication_throttled_replicas: Vec<String>,
    pub follower_replication_throttled_replicas: Vec<String>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self::parse(&BTreeMap::new()).expect("the defaults of the table are valid")
    }
}

impl TopicConfig {
    /// Types `given` over the topic table's defaults. Rules about several keys are not checked here.
    pub(super) fn parse(given: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let lookup: fn(&str) -> Option<&'static Setting> = table::topic_setting;
        let values = Values { lookup, given };
        let policy: Vec<String> = values.get("cleanup.policy")?;
        let has = |wanted: &str| policy.iter().any(|one| one == wanted);
        let (before, after) = timestamp_bounds(&values)?;
        Ok(Self {
            cleanup_policy: CleanupPolicy {
                delete: has("delete"),
                compact: has("compact"),
            },
            compression_type: target_compression(&values.get::<String>("compression.type")?),
            compression_gzip_level: values.get("compression.gzip.level")?,
            compression_lz4_level: values.get("compression.lz4.level")?,
            compression_zstd_level: values.get("compression.zstd.level")?,
            delete_retention_ms: values.get("delete.retention.ms")?,
            file_delete_delay_ms: values.get("file.delete.delay.ms")?,
            flush_messages: values.get("flush.messages")?,
            flush_ms: values.get("flush.ms")?,
            index_interval_bytes: values.get("index.interval.bytes")?,
            max_compaction_lag_ms: values.get("max.compaction.lag.ms")?,
            max_message_bytes: values.get("max.message.bytes")?,
            message_downconversion_enable: values.get("message.downconversion.enable")?,
            message_timestamp_type: timestamp_kind(
                &values.get::<String>("message.timestamp.type")?,
            ),
            message_timestamp_before_max_ms: before,
            message_timestamp_after_max_ms: after,
            min_cleanable_dirty_ratio: values.get("min.cleanable.dirty.ratio")?,
            min_compaction_lag_ms: values.get("min.compaction.lag.ms")?,
            min_insync_replicas: values.get("min.insync.replicas")?,
            preallocate: values.get("preallocate")?,
            retention_bytes: values.get("retention.bytes")?,
            retention_ms: values.get("retention.ms")?,
            segment_bytes: values.get("segment.bytes")?,
            segment_index_bytes: values.get("segment.index.bytes")?,
            segment_jitter_ms: values.get("segment.jitter.ms")?,
            segment_ms: values.get("segment.ms")?,
            unclean_leader_election_enable: values.get("unclean.leader.election.enable")?,
            leader_replication_throttled_replicas: values
                .get("leader.replication.throttled.replicas")?,
            follower_replication_throttled_replicas: values
                .get("follower.replication.throttled.replicas")?,
        })
    }
}

/// KIP-937: the deprecated difference bounds both sides unless a newer bound is set.
fn timestamp_bounds(values: &Values<'_>) -> Result<(i64, i64), ConfigError> {
    let difference: i64 = values.get("message.timestamp.difference.max.ms")?;
    let before: i64 = values.get("message.timestamp.before.max.ms")?;
    let after: i64 = values.get("message.timestamp.after.max.ms")?;
    let bound = |newer: i64| if newer == i64::MAX { difference } else { newer };
    Ok((bound(before), bound(after)))
}

fn target_compression(name: &str) -> TargetCompression {
    match name {
        "uncompressed" => TargetCompression::Uncompressed,
        "gzip" => TargetCompression::Gzip,
        "snappy" => TargetCompression::Snappy,
        "lz4" => TargetCompression::Lz4,
        "zstd" => TargetCompression::Zstd,
        _ => TargetCompression::Producer,
    }
}

fn timestamp_kind(name: &str) -> TimestampKind {
    if name == "LogAppendTime" {
        TimestampKind::LogAppendTime
    } else {
        TimestampKind::CreateTime
    }
}
