//! Why a topic was not created, extended or deleted. The texts are Kafka's where it has one.

use barnabas_core::balance::placement::PlacementError;
use barnabas_core::config::ConfigError;
use barnabas_core::ids::InvalidTopicName;

use crate::quota::MutationQuotaExceeded;
use crate::zookeeper::{CoordinationError, RegistrationError, TopicStoreError};

/// Why something was not done to a topic.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TopicError {
    #[error("Topic '{0}' already exists.")]
    Exists(String),
    #[error("Topic '{0}' is marked for deletion.")]
    MarkedForDeletion(String),
    #[error("The topic is queued for deletion.")]
    QueuedForDeletion,
    #[error("{}", unknown(.0))]
    Unknown(String),
    #[error(transparent)]
    InvalidName(#[from] InvalidTopicName),
    #[error("Topic '{topic}' collides with existing topics: {others}")]
    Collides { topic: String, others: String },
    #[error("Null value not supported for topic configs: {0}")]
    NullConfigs(String),
    #[error("{}", .0.kafka_message())]
    Config(ConfigError),
    #[error(
        "Both numPartitions or replicationFactor and replicasAssignments were set. Both cannot be used at the \
         same time."
    )]
    CountAndAssignment,
    #[error(transparent)]
    Placement(#[from] PlacementError),
    #[error("All partitions should have the same number of replicas")]
    UnequalReplicas,
    #[error("Duplicate replica assignment found: {0}")]
    DuplicateReplicas(String),
    #[error("partitions should be a consecutive 0-based integer sequence")]
    NotConsecutive,
    /// Kafka in `KRaft` mode refuses alike; in `ZooKeeper` mode it runs out of memory.
    #[error(
        "Excessively large number of partitions per request: {asked} (barnabas.max.partitions.per.request is \
         {limit})."
    )]
    TooManyPartitions { asked: i64, limit: i32 },
    /// ZooKeeper would hang up on such a node, again and again.
    #[error(
        "The assignment of the topic would be {bytes} bytes large, and ZooKeeper takes at most {limit}."
    )]
    AssignmentTooLarge { bytes: usize, limit: usize },
    #[error(transparent)]
    QuotaExceeded(#[from] MutationQuotaExceeded),
    /// Written, but not seen to take effect in time.
    #[error("The request timed out.")]
    TimedOut,
    #[error("A partition reassignment is in progress for the topic '{0}'.")]
    ReassignmentInProgress(String),
    #[error(
        "Topic currently has {existing} partitions, which is higher than the requested {asked}."
    )]
    FewerPartitions { existing: i32, asked: i32 },
    #[error("Topic already has {0} partitions.")]
    SamePartitions(i32),
    #[error("Unknown broker(s) in replica assignment: {0}.")]
    UnknownBrokers(String),
    #[error(
        "Increasing the number of partitions by {increase} but {assignments} assignments provided."
    )]
    WrongAssignmentCount { increase: i32, assignments: usize },
    #[error("Cannot have replication factor of 0 for partition id {0}.")]
    EmptyAssignment(i32),
    #[error(
        "Duplicate brokers not allowed in replica assignment: {brokers} for partition id {partition}."
    )]
    DuplicateBrokers { brokers: String, partition: i32 },
    #[error(
        "Inconsistent replication factor between partitions, partition 0 has {expected} while partitions \
         [{partitions}] have replication factors [{factors}], respectively."
    )]
    InconsistentReplicationFactor {
        expected: usize,
        partitions: String,
        factors: String,
    },
    #[error("partition 0 of the topic is missing in ZooKeeper")]
    NoFirstPartition,
    #[error(transparent)]
    Store(#[from] TopicStoreError),
    #[error(transparent)]
    Brokers(#[from] RegistrationError),
    #[error("ZooKeeper could not be asked: {0}")]
    Coordination(#[from] CoordinationError),
}

fn unknown(topic: &str) -> String {
    format!("The topic '{topic}' does not exist.")
}
