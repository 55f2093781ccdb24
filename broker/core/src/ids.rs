//! Names and numbers: the vocabulary that every module shares.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

/// The id of a broker (`broker.id`); never negative for a broker that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BrokerId(pub i32);

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Position of a record in a partition.
pub type Offset = i64;

/// How often a partition changed its leader (or its replicas); -1 before the first.
pub type LeaderEpoch = i32;

/// How often the cluster changed its controller.
pub type ControllerEpoch = i32;

/// The transaction id of ZooKeeper that created a broker's registration; -1 if unknown.
pub type BrokerEpoch = i64;

/// The data version of a partition's state znode ("zkVersion").
pub type PartitionEpoch = i32;

/// The name of a topic; cheap to clone.
pub type TopicName = Arc<str>;

/// The name of a consumer group; cheap to clone.
pub type GroupId = Arc<str>;

/// A topic and the number of one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: TopicName,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<TopicName>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    /// `topic-0`, the name of the partition's directory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// The id of a topic (KIP-516). Its text is URL-safe base64 without padding, 22 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

/// Why a text is not a topic id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not 16 bytes in URL-safe base64 without padding")]
pub struct InvalidTopicId(String);

impl TopicId {
    /// A new id from 16 random bytes as Kafka draws them: a version 4 UUID, but never one whose
    /// text begins with `-` (it would look like an option on a command line).
    pub fn random(random: &mut impl rand::Rng) -> Self {
        loop {
            let id = Self(uuid::Builder::from_random_bytes(random.random()).into_uuid());
            if !id.to_string().starts_with('-') {
                return id;
            }
        }
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TopicId {
    type Err = InvalidTopicId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| InvalidTopicId(text.to_owned()))?;
        let bytes: [u8; 16] = bytes
            .try_into()
            .map_err(|_| InvalidTopicId(text.to_owned()))?;
        Ok(Self(Uuid::from_bytes(bytes)))
    }
}

/// `__consumer_offsets` and `__transaction_state`: clients may not write to them.
pub fn is_internal_topic(topic: &str) -> bool {
    matches!(topic, "__consumer_offsets" | "__transaction_state")
}

/// Which of `partitions` partitions of an internal topic keeps what belongs to `key`, a group or a transactional id:
/// Java's hash over UTF-16 code units, absolute. Clients and brokers all over the cluster must agree.
pub fn coordinator_partition(key: &str, partitions: i32) -> i32 {
    // Kafka's `Utils.abs` makes the smallest number zero.
    java_hash(key).checked_abs().unwrap_or(0) % partitions.max(1)
}

/// `String.hashCode` of Java.
pub(crate) fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// Longest name of a topic: `<name>-<partition>.<32 hex digits>-delete` must fit a file name.
const TOPIC_NAME_LENGTH_MAX: usize = 249;

/// Why a text cannot name a topic. The text is Kafka's own (class `Topic`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    #[error("Topic name is invalid: the empty string is not allowed")]
    Empty,
    #[error("Topic name is invalid: '{0}' is not allowed")]
    Dots(String),
    #[error(
        "Topic name is invalid: the length of '{0}' is longer than the max allowed length {TOPIC_NAME_LENGTH_MAX}"
    )]
    TooLong(String),
    #[error(
        "Topic name is invalid: '{0}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    )]
    Character(String),
}

/// Whether a topic may have this name.
pub fn check_topic_name(name: &str) -> Result<(), InvalidTopicName> {
    if name.is_empty() {
        Err(InvalidTopicName::Empty)
    } else if matches!(name, "." | "..") {
        Err(InvalidTopicName::Dots(name.to_owned()))
    } else if name.len() > TOPIC_NAME_LENGTH_MAX {
        Err(InvalidTopicName::TooLong(name.to_owned()))
    } else if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        Err(InvalidTopicName::Character(name.to_owned()))
    } else {
        Ok(())
    }
}
