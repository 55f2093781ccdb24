//! Names of directories in a log directory.

use barnabas_core::ids::TopicPartition;
use rand::Rng as _;

/// What a name says about a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DirName {
    /// `<topic>-<partition>`
    Log(TopicPartition),
    /// `<topic>-<partition>.<unique>-future`: the copy that `AlterReplicaLogDirs` makes.
    Future(TopicPartition),
    /// `<topic>-<partition>.<unique>-delete`, the topic maybe cut short.
    Deleted,
    /// Left alone: of tiered storage, or put aside by a KRaft migration.
    Ignored,
}

const DELETED: &str = "-delete";
const FUTURE: &str = "-future";
const STRAY: &str = "-stray";
const TIERED: &str = "remote-log-index-cache";
/// The longest name that file systems take.
const LONGEST: usize = 255;

impl DirName {
    /// Reads a name; `None` if it is of no known form.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if name == TIERED {
            return Some(Self::Ignored);
        }
        if let Some(rest) = unique_suffix(name, DELETED) {
            return topic_partition(rest).map(|_| Self::Deleted);
        }
        if let Some(rest) = unique_suffix(name, FUTURE) {
            return topic_partition(rest).map(Self::Future);
        }
        if let Some(rest) = unique_suffix(name, STRAY) {
            return topic_partition(rest).map(|_| Self::Ignored);
        }
        topic_partition(name).map(Self::Log)
    }

    /// A name for a log that is to be deleted.
    pub(crate) fn deleted(topic_partition: &TopicPartition) -> String {
        unique(topic_partition, DELETED)
    }

    /// A name for a copy in the making.
    pub(crate) fn future(topic_partition: &TopicPartition) -> String {
        unique(topic_partition, FUTURE)
    }
}

fn unique(topic_partition: &TopicPartition, suffix: &str) -> String {
    let TopicPartition { topic, partition } = topic_partition;
    let unique: u128 = crate::host::random().random();
    let tail = format!("-{partition}.{unique:032x}{suffix}");
    let kept = topic.len().min(LONGEST - tail.len());
    // Names of topics are ASCII, so that the cut is between characters.
    format!("{}{tail}", topic.get(..kept).unwrap_or("topic"))
}

/// What precedes `.<unique><suffix>`.
fn unique_suffix<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let (rest, unique) = name.strip_suffix(suffix)?.rsplit_once('.')?;
    (!unique.is_empty()).then_some(rest)
}

/// Splits at the last dash, for a topic may contain others.
fn topic_partition(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    let is_number = !partition.is_empty() && partition.bytes().all(|b| b.is_ascii_digit());
    if topic.is_empty() || !is_number {
        return None;
    }
    Some(TopicPartition::new(topic, partition.parse().ok()?))
}
