//! Topics: who holds the replicas of a partition, and who leads it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::json::{Fields, MalformedZnode, encode, int, list, parse};
use crate::control::Leadership;
use crate::ids::{BrokerId, PartitionEpoch, TopicId, TopicPartition};

/// The replicas of one partition, preferred leader first.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PartitionAssignment {
    /// All replicas; during a reassignment the target ones followed by those that will go.
    pub replicas: Vec<BrokerId>,
    /// Replicas that a reassignment is adding; empty when there is none.
    pub adding_replicas: Vec<BrokerId>,
    /// Replicas that a reassignment will remove; empty when there is none.
    pub removing_replicas: Vec<BrokerId>,
}

impl PartitionAssignment {
    /// An assignment that is not being changed.
    pub fn new(replicas: Vec<BrokerId>) -> Self {
        Self {
            replicas,
            ..Self::default()
        }
    }

    pub fn is_being_reassigned(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }

    /// What the partition had before the reassignment began.
    pub fn origin_replicas(&self) -> Vec<BrokerId> {
        without(&self.replicas, &self.adding_replicas)
    }

    /// The assignment on the way to `target`, whatever is under way now: the target replicas, then those that it had
    /// before (Kafka's `ReplicaAssignment.reassignTo`).
    #[must_use]
    pub fn reassigned_to(&self, target: &[BrokerId]) -> Self {
        let origin = self.origin_replicas();
        let mut replicas = target.to_vec();
        replicas.extend(without(&origin, target));
        Self {
            adding_replicas: without(&replicas, &origin),
            removing_replicas: without(&replicas, target),
            replicas,
        }
    }

    /// What the partition will have when the reassignment is done.
    pub fn target_replicas(&self) -> Vec<BrokerId> {
        without(&self.replicas, &self.removing_replicas)
    }
}

fn without(replicas: &[BrokerId], excluded: &[BrokerId]) -> Vec<BrokerId> {
    let kept = replicas.iter().filter(|id| !excluded.contains(id));
    kept.copied().collect()
}

/// `/brokers/topics/<topic>` (version 3; Kafka's `TopicZNode`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TopicAssignment {
    /// Absent in topics made before topic ids (KIP-516); the controller then adds one.
    pub topic_id: Option<TopicId>,
    pub partitions: BTreeMap<i32, PartitionAssignment>,
}

impl TopicAssignment {
    /// The parent of all topics.
    pub const PARENT: &'static str = "/brokers/topics";

    pub fn path(topic: &str) -> String {
        format!("{}/{topic}", Self::PARENT)
    }

    pub fn encode(&self) -> Vec<u8> {
        type Replicas = fn(&PartitionAssignment) -> &Vec<BrokerId>;
        let replicas: Replicas = |partition| &partition.replicas;
        let adding: Replicas = |partition| &partition.adding_replicas;
        let removing: Replicas = |partition| &partition.removing_replicas;
        let lists = |of: Replicas, even_empty: bool| -> Value {
            let entries = self.partitions.iter();
            let entries = entries.filter(|(_, partition)| even_empty || !of(partition).is_empty());
            entries
                .map(|(number, partition)| (number.to_string(), broker_ids(of(partition))))
                .collect()
        };
        let mut value = json!({
            "version": 3,
            "partitions": lists(replicas, true),
            "adding_replicas": lists(adding, false),
            "removing_replicas": lists(removing, false),
        });
        if let Some(topic_id) = self.topic_id {
            value["topic_id"] = Value::from(topic_id.to_string());
        }
        encode(&value)
    }

    /// Reads versions 1 to 3: the number itself is ignored, what is absent is empty.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let value = parse(bytes)?;
        let fields = Fields::of(&value)?;
        let topic_id = fields
            .optional_text("topic_id")?
            .map(str::parse)
            .transpose();
        let topic_id = topic_id.map_err(|_| MalformedZnode::Unexpected {
            key: "topic_id",
            expected: "a topic id",
        })?;
        let mut adding = replica_lists(fields, "adding_replicas")?;
        let mut removing = replica_lists(fields, "removing_replicas")?;
        let partitions = replica_lists(fields, "partitions")?;
        let partitions = partitions.into_iter().map(|(number, replicas)| {
            let assignment = PartitionAssignment {
                replicas,
                adding_replicas: adding.remove(&number).unwrap_or_default(),
                removing_replicas: removing.remove(&number).unwrap_or_default(),
            };
            (number, assignment)
        });
        Ok(Self {
            topic_id,
            partitions: partitions.collect(),
        })
    }
}

fn broker_ids(ids: &[BrokerId]) -> Value {
    ids.iter().map(|id| id.0).collect()
}

fn replica_lists(
    fields: Fields<'_>,
    key: &'static str,
) -> Result<BTreeMap<i32, Vec<BrokerId>>, MalformedZnode> {
    let Some(lists) = fields.optional_object(key)? else {
        return Ok(BTreeMap::new());
    };
    let mut result = BTreeMap::new();
    for (number, value) in lists.entries() {
        let number = number.parse().map_err(|_| MalformedZnode::Unexpected {
            key,
            expected: "keyed by partition numbers",
        })?;
        result.insert(number, read_broker_ids(key, value)?);
    }
    Ok(result)
}

fn read_broker_ids(key: &'static str, value: &Value) -> Result<Vec<BrokerId>, MalformedZnode> {
    let ids = list(key, value)?.iter();
    ids.map(|id| int(key, id).map(BrokerId)).collect()
}

/// `/brokers/topics/<topic>/partitions/<partition>/state` (version 1; Kafka's `TopicPartitionStateZNode`).
///
/// The data version of this node is the partition epoch.
#[derive(Clone, Copy, Debug)]
pub struct PartitionState;

impl PartitionState {
    /// The parent of a topic's partitions; its data is null.
    pub fn partitions_path(topic: &str) -> String {
        format!("{}/partitions", TopicAssignment::path(topic))
    }

    /// The parent of a partition's state; its data is null.
    pub fn partition_path(partition: &TopicPartition) -> String {
        let parent = Self::partitions_path(&partition.topic);
        format!("{parent}/{}", partition.partition)
    }

    pub fn path(partition: &TopicPartition) -> String {
        format!("{}/state", Self::partition_path(partition))
    }

    /// The data for `leadership`. Its partition epoch is not part of it: ZooKeeper assigns that.
    pub fn encode(leadership: &Leadership) -> Vec<u8> {
        let mut value = json!({
            "version": 1,
            "controller_epoch": leadership.controller_epoch,
            "leader": leadership.leader,
            "leader_epoch": leadership.leader_epoch,
            "isr": broker_ids(&leadership.isr),
        });
        if leadership.is_recovering {
            value["leader_recovery_state"] = Value::from(1);
        }
        encode(&value)
    }

    /// Reads the data of a node whose data version is `partition_epoch`.
    pub fn decode(
        bytes: &[u8],
        partition_epoch: PartitionEpoch,
    ) -> Result<Leadership, MalformedZnode> {
        let value = parse(bytes)?;
        let fields = Fields::of(&value)?;
        let isr = fields.list("isr")?.iter();
        let isr: Result<Vec<_>, _> = isr.map(|id| int("isr", id).map(BrokerId)).collect();
        let is_recovering = match fields.int_or("leader_recovery_state", 0)? {
            0 => false,
            1 => true,
            _ => {
                return Err(MalformedZnode::Unexpected {
                    key: "leader_recovery_state",
                    expected: "0 or 1",
                });
            }
        };
        Ok(Leadership {
            controller_epoch: fields.int("controller_epoch")?,
            leader: fields.int("leader")?,
            leader_epoch: fields.int("leader_epoch")?,
            isr: isr?,
            partition_epoch,
            is_recovering,
        })
    }
}
