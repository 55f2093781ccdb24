//! The table of settings: one row for each that Kafka 3.9 knows.
//!
//! To honour a setting: use it through [`BrokerConfig`](super::BrokerConfig) or
//! [`TopicConfig`](super::TopicConfig) and drop `.not_yet()` from its row.

mod coordinators;
mod kraft;
mod log;
mod network;
mod ours;
mod quotas;
mod remote;
mod replication;
mod security;
mod topics;
mod zookeeper;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::setting::{Check, Kind, Setting};

const BROKER_GROUPS: &[&[Setting]] = &[
    log::SETTINGS,
    network::SETTINGS,
    replication::SETTINGS,
    coordinators::SETTINGS,
    zookeeper::SETTINGS,
    security::SETTINGS,
    quotas::SETTINGS,
    remote::SETTINGS,
    kraft::SETTINGS,
];

static BROKER: LazyLock<BTreeMap<&'static str, &'static Setting>> = LazyLock::new(|| {
    let kafka = BROKER_GROUPS.iter().copied().flatten();
    kafka
        .chain(ours::SETTINGS)
        .map(|row| (row.name, row))
        .collect()
});

static TOPIC: LazyLock<BTreeMap<&'static str, &'static Setting>> =
    LazyLock::new(|| topics::SETTINGS.iter().map(|row| (row.name, row)).collect());

/// The row of a broker setting, Kafka's or our own (`barnabas.*`).
pub fn broker_setting(name: &str) -> Option<&'static Setting> {
    BROKER.get(name).copied()
}

/// The row of a replication throttle: a broker setting that exists only dynamically.
pub fn throttle_setting(name: &str) -> Option<&'static Setting> {
    THROTTLES.iter().find(|row| row.name == name)
}

/// The row of a topic setting.
pub fn topic_setting(name: &str) -> Option<&'static Setting> {
    TOPIC.get(name).copied()
}

/// Kafka's broker settings, group by group.
pub fn broker_settings() -> impl Iterator<Item = &'static Setting> {
    BROKER_GROUPS.iter().copied().flatten()
}

/// The settings of a topic, in Kafka's order.
pub fn topic_settings() -> impl Iterator<Item = &'static Setting> {
    topics::SETTINGS.iter()
}

/// Settings that only this broker has; `DescribeConfigs` lists them only where they are set.
pub fn own_settings() -> impl Iterator<Item = &'static Setting> {
    ours::SETTINGS.iter()
}

/// Broker settings that stand behind a topic setting, the strongest first.
pub fn topic_synonyms(topic_key: &str) -> &'static [&'static str] {
    SYNONYMS
        .iter()
        .find(|(key, _)| *key == topic_key)
        .map_or(&[], |(_, synonyms)| synonyms)
}

/// Kafka's `DynamicConfig.Broker`, beyond what a file may have. In bytes per second.
const THROTTLES: &[Setting] = &[
    Setting::new("leader.replication.throttled.rate", Kind::Long, None)
        .check(Check::AtLeast(0))
        .doc("Bytes per second that leaders send to throttled replicas."),
    Setting::new("follower.replication.throttled.rate", Kind::Long, None)
        .check(Check::AtLeast(0))
        .doc("Bytes per second that throttled replicas fetch."),
    Setting::new(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        Kind::Long,
        None,
    )
    .check(Check::AtLeast(0))
    .doc("Bytes per second that move between log directories."),
];

/// Topic settings and their broker settings (`ServerTopicConfigSynonyms`).
const SYNONYMS: &[(&str, &[&str])] = &[
    ("segment.bytes", &["log.segment.bytes"]),
    ("segment.ms", &["log.roll.ms", "log.roll.hours"]),
    (
        "segment.jitter.ms",
        &["log.roll.jitter.ms", "log.roll.jitter.hours"],
    ),
    ("segment.index.bytes", &["log.index.size.max.bytes"]),
    ("flush.messages", &["log.flush.interval.messages"]),
    (
        "flush.ms",
        &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
    ),
    ("retention.bytes", &["log.retention.bytes"]),
    (
        "retention.ms",
        &[
            "log.retention.ms",
            "log.retention.minutes",
            "log.retention.hours",
        ],
    ),
    ("max.message.bytes", &["message.max.bytes"]),
    ("index.interval.bytes", &["log.index.interval.bytes"]),
    ("delete.retention.ms", &["log.cleaner.delete.retention.ms"]),
    (
        "min.compaction.lag.ms",
        &["log.cleaner.min.compaction.lag.ms"],
    ),
    (
        "max.compaction.lag.ms",
        &["log.cleaner.max.compaction.lag.ms"],
    ),
    ("file.delete.delay.ms", &["log.segment.delete.delay.ms"]),
    (
        "min.cleanable.dirty.ratio",
        &["log.cleaner.min.cleanable.ratio"],
    ),
    ("cleanup.policy", &["log.cleanup.policy"]),
    (
        "unclean.leader.election.enable",
        &["unclean.leader.election.enable"],
    ),
    ("min.insync.replicas", &["min.insync.replicas"]),
    ("compression.type", &["compression.type"]),
    ("compression.gzip.level", &["compression.gzip.level"]),
    ("compression.lz4.level", &["compression.lz4.level"]),
    ("compression.zstd.level", &["compression.zstd.level"]),
    ("preallocate", &["log.preallocate"]),
    ("message.format.version", &["log.message.format.version"]),
    ("message.timestamp.type", &["log.message.timestamp.type"]),
    (
        "message.timestamp.difference.max.ms",
        &["log.message.timestamp.difference.max.ms"],
    ),
    (
        "message.timestamp.before.max.ms",
        &["log.message.timestamp.before.max.ms"],
    ),
    (
        "message.timestamp.after.max.ms",
        &["log.message.timestamp.after.max.ms"],
    ),
    (
        "message.downconversion.enable",
        &["log.message.downconversion.enable"],
    ),
    ("local.retention.ms", &["log.local.retention.ms"]),
    ("local.retention.bytes", &["log.local.retention.bytes"]),
];
