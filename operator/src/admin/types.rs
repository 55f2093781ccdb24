//! What is asked of Kafka and what it answers, as plain data.

use std::collections::BTreeMap;

use barnabas_core::ids::{BrokerId, LeaderEpoch, TopicId, TopicName, TopicPartition};

/// Which topics a question is about.
#[derive(Clone, Copy, Debug)]
pub enum Topics<'a> {
    All,
    Named(&'a [TopicName]),
}

/// What Metadata says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pub cluster_id: Option<String>,
    pub controller: Option<BrokerId>,
    pub brokers: Vec<BrokerNode>,
    pub topics: Vec<TopicMetadata>,
}

/// A live broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerNode {
    pub id: BrokerId,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
}

/// A topic, or why there is nothing to say of it (`UNKNOWN_TOPIC_OR_PARTITION`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    pub name: TopicName,
    pub error: Option<super::KafkaError>,
    pub id: Option<TopicId>,
    pub is_internal: bool,
    /// By partition number.
    pub partitions: Vec<PartitionMetadata>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    pub partition: i32,
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    /// The preferred leader first; while it moves, old and new ones.
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    pub offline: Vec<BrokerId>,
}

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub name: TopicName,
    pub layout: Layout,
    pub configs: BTreeMap<String, String>,
}

/// Partitions and replicas of a new topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// By the brokers; -1 each for their defaults.
    Counts {
        partitions: i32,
        replication_factor: i16,
    },
    /// Replicas of the partitions 0, 1, …
    Assignments(Vec<Vec<BrokerId>>),
}

/// What became of a topic that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    pub id: Option<TopicId>,
    /// -1 from brokers that do not say.
    pub partitions: i32,
    pub replication_factor: i16,
}

/// More partitions for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartitions {
    pub topic: TopicName,
    /// How many it shall have altogether.
    pub total: i32,
    /// Replicas of each new partition; the brokers choose if empty.
    pub assignments: Vec<Vec<BrokerId>>,
}

/// Whose settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResource {
    Topic(TopicName),
    Broker(BrokerId),
    /// The cluster-wide default of brokers.
    AllBrokers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOp {
    Set(String),
    /// Back to the default.
    Delete,
    /// To a list.
    Append(String),
    /// From a list.
    Subtract(String),
}

/// Changes to the settings of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChanges {
    pub resource: ConfigResource,
    pub changes: Vec<(String, ConfigOp)>,
}

/// Where a value comes from (`ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    Unknown,
    DynamicTopic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    DynamicBrokerLogger,
}

/// One setting as it is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// Nothing if it is sensitive, or null.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub read_only: bool,
    pub sensitive: bool,
}

/// A reassignment to ask for; no target cancels the one that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassign {
    pub partition: TopicPartition,
    pub target: Option<Vec<BrokerId>>,
}

/// A reassignment that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// All replicas meanwhile, the target's first.
    pub replicas: Vec<BrokerId>,
    pub adding: Vec<BrokerId>,
    pub removing: Vec<BrokerId>,
}

impl Reassignment {
    /// The replicas when it is done.
    pub fn target(&self) -> Vec<BrokerId> {
        let stays = |id: &&BrokerId| !self.removing.contains(id);
        self.replicas.iter().filter(stays).copied().collect()
    }

    /// The replicas as they were before, in no particular order beyond Kafka's.
    pub fn origin(&self) -> Vec<BrokerId> {
        let was = |id: &&BrokerId| !self.adding.contains(id);
        self.replicas.iter().filter(was).copied().collect()
    }
}

/// A log directory of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    pub path: String,
    /// `KAFKA_STORAGE_ERROR` if it is offline.
    pub error: Option<super::KafkaError>,
    /// Size of the file system; nothing from brokers before 3.3 or of an offline directory.
    pub total_bytes: Option<u64>,
    pub usable_bytes: Option<u64>,
    pub replicas: Vec<LogDirReplica>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirReplica {
    pub partition: TopicPartition,
    pub bytes: u64,
    pub offset_lag: i64,
    /// Copied from another directory of the same broker, to take its place.
    pub is_future: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    Preferred,
    Unclean,
}
