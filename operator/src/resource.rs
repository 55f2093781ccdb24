//! The `Topic` resource: its fields, the rules that the API server checks, its status.
//!
//! The manifest in `manifests/` is generated from here (`barnabas-operator crdgen`). Reading is lenient: an object
//! that an older definition let through must not stop the watch, so what cannot be understood is kept as
//! [`TopicSpec::malformed`] and reported by a condition.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "the derived schema holds a second copy of each struct"
)]

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::crd::CustomResourceExt as _;
use kube::{CustomResource, KubeSchema, ResourceExt as _};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// Holds the object until the topic is gone, or is to stay.
pub const FINALIZER: &str = "barnabas.dev/topic";

/// Annotations that people set on Topics.
pub mod annotation {
    /// `"false"`: nothing is done in Kafka.
    pub const MANAGED: &str = "barnabas.dev/managed";
    /// `"true"`: nothing but deletion is done in Kafka.
    pub const PAUSED: &str = "barnabas.dev/paused";
    /// `"true"`: deletion waits for nothing, the topic stays.
    pub const FORCE_FINALIZE: &str = "barnabas.dev/force-finalize";
    /// `"true"`: the name may begin with `__`.
    pub const ALLOW_INTERNAL: &str = "barnabas.dev/allow-internal";
}

/// A topic of a Kafka cluster. What is left out is not managed: partitions and replicas that are not given are
/// the brokers' defaults at creation and left alone afterwards.
#[derive(CustomResource, KubeSchema, Serialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "barnabas.dev",
    version = "v1alpha1",
    kind = "Topic",
    plural = "topics",
    singular = "topic",
    namespaced,
    status = "TopicStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A topic of a Kafka cluster, kept as it is described here.",
    shortname = "btopic",
    shortname = "bt",
    category = "barnabas",
    selectable = ".spec.topicName",
    selectable = ".spec.clusterRef.name",
    validation = Rule::new("has(self.spec.topicName) || size(self.metadata.name) <= 249")
        .message("metadata.name is too long for a topic name; set spec.topicName"),
    validation = Rule::new("(has(self.spec.topicName) ? self.spec.topicName : self.metadata.name) == (has(oldSelf.spec.topicName) ? oldSelf.spec.topicName : oldSelf.metadata.name)")
        .message("the topic name cannot change; create another Topic"),
    validation = Rule::new("!has(self.spec.partitions) || (has(oldSelf.spec.partitions) && self.spec.partitions == oldSelf.spec.partitions) || !has(oldSelf.status) || !has(oldSelf.status.partitions) || self.spec.partitions >= oldSelf.status.partitions")
        .message("partitions cannot decrease below what the topic has (see .status.partitions)")
        .field_path(".spec.partitions"),
    printcolumn(name = "Topic", type_ = "string", json_path = ".status.topicName", priority = 1),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.partitions"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Healthy", type_ = "string", json_path = ".status.conditions[?(@.type==\"Healthy\")].status"),
    printcolumn(name = "URP", type_ = "integer", json_path = ".status.health.underReplicated", description = "Partitions with fewer in-sync replicas than replicas"),
    printcolumn(name = "Moving", type_ = "string", json_path = ".status.reassignment.reason"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(!has(self.clusterRef) && !has(oldSelf.clusterRef)) || (has(self.clusterRef) && has(oldSelf.clusterRef) && self.clusterRef == oldSelf.clusterRef)")
        .message("clusterRef cannot change"),
    validation = Rule::new("!has(self.replicas) || !has(self.config) || !('min.insync.replicas' in self.config) || int(self.config['min.insync.replicas']) <= self.replicas")
        .message("min.insync.replicas is larger than replicas")
)]
pub struct TopicSpec {
    /// The topic's name in Kafka. Default: metadata.name. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("self != '.' && self != '..'").message("topicName must match [a-zA-Z0-9._-], 1 to 249 characters, and be neither . nor .."))]
    pub topic_name: Option<String>,

    /// The cluster that has the topic. Default: the cluster of the operator that sees the resource. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_ref: Option<ClusterRef>,

    /// Number of partitions. It may grow, never shrink. Growing changes which partition a key goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 200_000))]
    pub partitions: Option<i32>,

    /// Replicas of each partition (the replication factor). A change moves data.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32_767))]
    pub replicas: Option<i32>,

    /// Settings of the topic, as in `retention.ms: 604800000`. Booleans are quoted: `"true"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 100))]
    #[x_kube(validation = Rule::new("!('leader.replication.throttled.replicas' in self) && !('follower.replication.throttled.replicas' in self)").message("throttle lists belong to the balancer"))]
    pub config: Option<BTreeMap<String, ConfigValue>>,

    /// `Exact`: config is all there is, other settings of the topic are reset. `Merge`: other settings are left alone.
    /// Absent: as `Exact`, but a topic that was there before is not taken over while it has other settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_policy: Option<ConfigPolicy>,

    /// What becomes of the topic when this resource is deleted.
    #[schemars(default)]
    pub deletion_policy: DeletionPolicy,

    /// Where replicas may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,

    /// Why the rest could not be read, if it could not.
    #[serde(skip)]
    #[schemars(skip)]
    pub malformed: Option<String>,
}

/// A reference to a cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterRef {
    /// Name of the cluster: the Helm release.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Namespace of the cluster. Default: the namespace of the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigPolicy {
    Exact,
    Merge,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    #[default]
    Delete,
    Retain,
}

/// Where replicas may be.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// `Required`: rather fail than place two replicas of a partition in one zone.
    #[serde(default)]
    #[schemars(default)]
    pub rack_spread: RackSpread,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RackSpread {
    #[default]
    Preferred,
    Required,
}

/// A setting's value: a number or a text.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
pub enum ConfigValue {
    Int(i64),
    Text(String),
    /// What an older definition let through.
    Other(serde_json::Value),
}

impl JsonSchema for ConfigValue {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ConfigValue".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 4096})
    }
}

impl fmt::Display for ConfigValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Other(value) => value.fmt(f),
        }
    }
}

/// The fields of [`TopicSpec`] as they are read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecFields {
    topic_name: Option<String>,
    cluster_ref: Option<ClusterRef>,
    partitions: Option<i32>,
    replicas: Option<i32>,
    config: Option<BTreeMap<String, ConfigValue>>,
    config_policy: Option<ConfigPolicy>,
    deletion_policy: Option<DeletionPolicy>,
    placement: Option<Placement>,
}

impl<'de> Deserialize<'de> for TopicSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let fields = match serde_json::from_value::<SpecFields>(value.clone()) {
            Ok(fields) => fields,
            Err(error) => {
                // The name and the fate of the topic must be known even so.
                let text = |key: &str| value.get(key).and_then(|text| text.as_str());
                let known = text("topicName").map(str::to_owned);
                let retains = text("deletionPolicy") != Some("Delete");
                return Ok(Self {
                    topic_name: known,
                    deletion_policy: if retains {
                        DeletionPolicy::Retain
                    } else {
                        DeletionPolicy::Delete
                    },
                    malformed: Some(error.to_string()),
                    ..Self::default()
                });
            }
        };
        Ok(Self {
            topic_name: fields.topic_name,
            cluster_ref: fields.cluster_ref,
            partitions: fields.partitions,
            replicas: fields.replicas,
            config: fields.config,
            config_policy: fields.config_policy,
            deletion_policy: fields.deletion_policy.unwrap_or_default(),
            placement: fields.placement,
            malformed: None,
        })
    }
}

/// The topic as it is.
#[derive(Serialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// The generation of the resource that this was written for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The topic's name in Kafka.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_name: Option<String>,
    /// The topic's id, as Kafka prints it. Set once the topic belongs to this resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Partitions that there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// Replicas that there are; the lowest number over partitions while that changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// `partition:replicas`, the preferred leader first; the first 256 partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assignments: Vec<String>,
    /// Whether there are more partitions than assignments are shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assignments_truncated: bool,
    /// Settings that the topic has and the resource does not own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmanaged_config: Vec<String>,
    /// What moves, while something does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reassignment: Option<ReassignmentStatus>,
    /// What is true of it, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Partitions that are not as they should be.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Health {
    /// Without a leader.
    pub offline: i32,
    /// With fewer in-sync replicas than `min.insync.replicas`.
    pub under_min_isr: i32,
    /// With fewer in-sync replicas than replicas.
    pub under_replicated: i32,
    /// Led by another than the first of their replicas.
    pub non_preferred_leader: i32,
}

/// Replicas on their way.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ReassignmentStatus {
    /// `NodeFailure`, `ScaleOut`, `Drain`, `LoadBalance`, `RackRepair`, `ReplicasChange` or `Foreign`.
    pub reason: String,
    pub partitions_done: i32,
    pub partitions_total: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct StatusFields {
    observed_generation: Option<i64>,
    topic_name: Option<String>,
    topic_id: Option<String>,
    partitions: Option<i32>,
    replicas: Option<i32>,
    health: Option<Health>,
    assignments: Vec<String>,
    assignments_truncated: bool,
    unmanaged_config: Vec<String>,
    reassignment: Option<ReassignmentStatus>,
    conditions: Vec<Condition>,
}

impl<'de> Deserialize<'de> for TopicStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        // What somebody else wrote there is computed anew; only the topic's id is worth keeping.
        let id = value.get("topicId").and_then(|id| id.as_str());
        let id = id.map(str::to_owned);
        let fields = serde_json::from_value(value).unwrap_or(StatusFields {
            topic_id: id,
            ..StatusFields::default()
        });
        Ok(Self {
            observed_generation: fields.observed_generation,
            topic_name: fields.topic_name,
            topic_id: fields.topic_id,
            partitions: fields.partitions,
            replicas: fields.replicas,
            health: fields.health,
            assignments: fields.assignments,
            assignments_truncated: fields.assignments_truncated,
            unmanaged_config: fields.unmanaged_config,
            reassignment: fields.reassignment,
            conditions: fields.conditions,
        })
    }
}

impl TopicStatus {
    /// A condition by its type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|one| one.type_ == kind)
    }

    /// Whether a condition is there and true.
    pub fn is_true(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|one| one.status == "True")
    }
}

impl Topic {
    /// The name that the topic has in Kafka.
    pub fn topic_name(&self) -> String {
        self.spec
            .topic_name
            .clone()
            .unwrap_or_else(|| self.name_any())
    }

    /// Whether an annotation has this value.
    pub fn is_annotated(&self, key: &str, value: &str) -> bool {
        self.annotations().get(key).is_some_and(|one| one == value)
    }

    pub fn is_managed(&self) -> bool {
        !self.is_annotated(annotation::MANAGED, "false")
    }

    pub fn is_paused(&self) -> bool {
        self.is_annotated(annotation::PAUSED, "true")
    }

    pub fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    pub fn has_finalizer(&self) -> bool {
        self.finalizers().iter().any(|one| one == FINALIZER)
    }
}

/// The definition of the resource as YAML, with the comment that it is generated.
pub fn definition_yaml() -> Result<String, serde_yaml::Error> {
    let mut value = serde_yaml::to_value(Topic::crd())?;
    // Absent and null are not the same to rules; only absent is allowed.
    remove_nullable(&mut value);
    let yaml = serde_yaml::to_string(&value)?;
    Ok(format!(
        "# Generated by `barnabas-operator crdgen`; a test keeps it so.\n{yaml}"
    ))
}

fn remove_nullable(value: &mut serde_yaml::Value) {
    match value {
        serde_yaml::Value::Mapping(fields) => {
            fields.remove("nullable");
            if let Some(serde_yaml::Value::Sequence(values)) = fields.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            for (_, field) in fields.iter_mut() {
                remove_nullable(field);
            }
        }
        serde_yaml::Value::Sequence(items) => items.iter_mut().for_each(remove_nullable),
        serde_yaml::Value::Null
        | serde_yaml::Value::Bool(_)
        | serde_yaml::Value::Number(_)
        | serde_yaml::Value::String(_)
        | serde_yaml::Value::Tagged(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/crds/topics.yaml");
        let expected = definition_yaml().unwrap();
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == expected,
            "manifests/crds/topics.yaml is not fresh: run `cargo run -p barnabas-operator -- crdgen`"
        );
    }

    #[test]
    fn an_object_that_makes_no_sense_is_read_all_the_same() {
        let topic: Topic = serde_json::from_value(serde_json::json!({
            "apiVersion": "barnabas.dev/v1alpha1",
            "kind": "Topic",
            "metadata": {"name": "a"},
            "spec": {"partitions": "many", "topicName": "b"},
            "status": {"conditions": "none", "topicId": "x"},
        }))
        .unwrap();
        assert!(topic.spec.malformed.is_some());
        assert_eq!(topic.topic_name(), "b");
        assert_eq!(topic.spec.deletion_policy, DeletionPolicy::Retain);
        assert_eq!(topic.status.unwrap().topic_id.as_deref(), Some("x"));
    }
}
