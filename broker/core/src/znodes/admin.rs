//! What administrators and brokers leave for the controller to do, and what brokers leave for it to know.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::json::{Fields, MalformedZnode, encode, int, list, object, parse};
use crate::ids::{BrokerId, TopicPartition};

fn partition(value: &Value) -> Result<TopicPartition, MalformedZnode> {
    let fields = object("partitions", value)?;
    Ok(TopicPartition::new(
        fields.text("topic")?,
        fields.int("partition")?,
    ))
}

fn partitions(bytes: &[u8]) -> Result<Vec<TopicPartition>, MalformedZnode> {
    let value = parse(bytes)?;
    let listed = Fields::of(&value)?.get("partitions");
    let Some(listed) = listed else {
        return Ok(Vec::new());
    };
    list("partitions", listed)?.iter().map(partition).collect()
}

fn encode_partitions<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Vec<u8> {
    let partitions = partitions.into_iter();
    let partitions: Value = partitions
        .map(|of| json!({"topic": &*of.topic, "partition": of.partition}))
        .collect();
    encode(&json!({"version": 1, "partitions": partitions}))
}

/// `/admin/delete_topics/<topic>`: the topic is to be deleted. Its data is null.
#[derive(Clone, Copy, Debug)]
pub struct DeletionMarker;

impl DeletionMarker {
    /// The parent of all markers.
    pub const PARENT: &'static str = "/admin/delete_topics";

    pub fn path(topic: &str) -> String {
        format!("{}/{topic}", Self::PARENT)
    }
}

/// `/admin/reassign_partitions` (version 1): target replicas, written by tools older than KIP-455.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Reassignment {
    pub partitions: BTreeMap<TopicPartition, Vec<BrokerId>>,
}

impl Reassignment {
    pub const PATH: &'static str = "/admin/reassign_partitions";

    pub fn encode(&self) -> Vec<u8> {
        let entries = self.partitions.iter().map(|(of, replicas)| {
            let replicas: Vec<i32> = replicas.iter().map(|id| id.0).collect();
            json!({"topic": &*of.topic, "partition": of.partition, "replicas": replicas})
        });
        let entries: Value = entries.collect();
        encode(&json!({"version": 1, "partitions": entries}))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let value = parse(bytes)?;
        let mut partitions = BTreeMap::new();
        let Some(listed) = Fields::of(&value)?.get("partitions") else {
            return Ok(Self { partitions });
        };
        for entry in list("partitions", listed)? {
            let replicas = object("partitions", entry)?.list("replicas")?.iter();
            let replicas = replicas.map(|id| int("replicas", id).map(BrokerId));
            partitions.insert(partition(entry)?, replicas.collect::<Result<_, _>>()?);
        }
        Ok(Self { partitions })
    }
}

/// `/admin/preferred_replica_election` (version 1): partitions that should go back to their preferred leader.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PreferredElection {
    pub partitions: Vec<TopicPartition>,
}

impl PreferredElection {
    pub const PATH: &'static str = "/admin/preferred_replica_election";

    pub fn encode(&self) -> Vec<u8> {
        encode_partitions(&self.partitions)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let partitions = partitions(bytes)?;
        Ok(Self { partitions })
    }
}

/// `/isr_change_notification/isr_change_<seq>` (version 1): written by brokers before 2.7 after they changed an ISR.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct IsrChange {
    pub partitions: Vec<TopicPartition>,
}

impl IsrChange {
    pub const PARENT: &'static str = "/isr_change_notification";
    pub const PREFIX: &'static str = "isr_change_";

    /// The path to create sequentially.
    pub fn path_prefix() -> String {
        format!("{}/{}", Self::PARENT, Self::PREFIX)
    }

    /// The path of a node named in a listing of [`Self::PARENT`].
    pub fn path(name: &str) -> String {
        format!("{}/{name}", Self::PARENT)
    }

    pub fn encode(&self) -> Vec<u8> {
        encode_partitions(&self.partitions)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let partitions = partitions(bytes)?;
        Ok(Self { partitions })
    }
}

/// What a [`LogDirEvent`] tells. There is one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogDirEventKind {
    /// 1: a log directory went offline.
    Failure,
}

/// `/log_dir_event_notification/log_dir_event_<seq>` (version 1): a log directory of a broker failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogDirEvent {
    pub broker: BrokerId,
    pub kind: LogDirEventKind,
}

impl LogDirEvent {
    pub const PARENT: &'static str = "/log_dir_event_notification";
    pub const PREFIX: &'static str = "log_dir_event_";

    /// The path to create sequentially.
    pub fn path_prefix() -> String {
        format!("{}/{}", Self::PARENT, Self::PREFIX)
    }

    /// The path of a node named in a listing of [`Self::PARENT`].
    pub fn path(name: &str) -> String {
        format!("{}/{name}", Self::PARENT)
    }

    pub fn encode(&self) -> Vec<u8> {
        let event = match self.kind {
            LogDirEventKind::Failure => 1,
        };
        encode(&json!({"version": 1, "broker": self.broker.0, "event": event}))
    }

    /// Reads only the broker, as Kafka does: every event is a failure.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let value = parse(bytes)?;
        Ok(Self {
            broker: BrokerId(Fields::of(&value)?.int("broker")?),
            kind: LogDirEventKind::Failure,
        })
    }
}
