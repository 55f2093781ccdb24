//! The little that has to outlive the process: throttles and what they were before, moves that are ours.
//!
//! All of it can be lost. Reassignments that run then count as somebody else's and finish by themselves, and throttles
//! that nothing moves under are removed instead of restored.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use barnabas_core::balance::{Move, Reason};
use barnabas_core::ids::{BrokerId, TopicPartition};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    /// Brokers whose rates we set, and what they had before.
    pub brokers: BTreeMap<i32, FormerRates>,
    /// Entries we added to throttle lists of topics.
    pub topics: BTreeMap<String, ThrottledReplicas>,
    /// Moves we began, by `topic-partition`.
    pub moves: BTreeMap<String, RecordedMove>,
    /// Until when partitions are left alone, in milliseconds since the Unix epoch.
    pub cool_until_ms: BTreeMap<String, i64>,
}

/// Dynamic settings of a broker before we changed them; nothing if there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FormerRates {
    pub leader: Option<String>,
    pub follower: Option<String>,
}

/// `partition:broker`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottledReplicas {
    pub leader: BTreeSet<String>,
    pub follower: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedMove {
    pub from: Vec<i32>,
    pub to: Vec<i32>,
    pub reason: String,
    pub bytes: u64,
}

impl RecordedMove {
    pub(super) fn new(one: &Move) -> Self {
        let numbers = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
        Self {
            from: numbers(&one.from),
            to: numbers(&one.to),
            reason: one.reason.name().to_owned(),
            bytes: one.bytes,
        }
    }

    pub(super) fn as_move(&self, partition: &TopicPartition) -> Move {
        let ids = |numbers: &[i32]| numbers.iter().map(|id| BrokerId(*id)).collect();
        Move {
            partition: partition.clone(),
            from: ids(&self.from),
            to: ids(&self.to),
            reason: self.reason.parse().unwrap_or(Reason::LoadBalance),
            bytes: self.bytes,
            live_isr: 0,
        }
    }
}

/// `topic-partition` back into its parts.
pub(super) fn parse_partition(text: &str) -> Option<TopicPartition> {
    let (topic, partition) = text.rsplit_once('-')?;
    Some(TopicPartition::new(topic, partition.parse().ok()?))
}

/// Where the record is kept.
pub trait RecordStore: Send + Sync {
    /// What was kept; an empty record if there is none or it cannot be read.
    fn load(&self) -> BoxFuture<'_, Record>;

    /// Keeps it, before what it speaks of is done.
    fn save<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, std::io::Result<()>>;
}

/// Nowhere: after a crash leftovers are found and removed, and former values are forgotten.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecord;

impl RecordStore for NoRecord {
    fn load(&self) -> BoxFuture<'_, Record> {
        Box::pin(async { Record::default() })
    }

    fn save<'a>(&'a self, _: &'a Record) -> BoxFuture<'a, std::io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// A file in JSON, replaced whole.
#[derive(Clone, Debug)]
pub struct FileRecord(pub PathBuf);

impl RecordStore for FileRecord {
    fn load(&self) -> BoxFuture<'_, Record> {
        Box::pin(async {
            let path = self.0.clone();
            let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
            match read {
                Ok(Ok(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                    tracing::warn!(path = %self.0.display(), %error, "the record cannot be read and is begun anew");
                    Record::default()
                }),
                Ok(Err(_)) | Err(_) => Record::default(),
            }
        })
    }

    fn save<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, std::io::Result<()>> {
        Box::pin(async {
            let path = self.0.clone();
            let bytes = serde_json::to_vec_pretty(record)?;
            let written = tokio::task::spawn_blocking(move || {
                let next = path.with_extension("next");
                std::fs::write(&next, bytes)?;
                std::fs::File::open(&next)?.sync_all()?;
                std::fs::rename(next, path)
            });
            written.await.map_err(std::io::Error::other)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_record_survives_in_its_file_and_damage_is_no_end() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileRecord(directory.path().join("balancer.json"));
        assert_eq!(store.load().await, Record::default());
        let mut record = Record::default();
        record.brokers.insert(
            3,
            FormerRates {
                leader: Some("5".to_owned()),
                follower: None,
            },
        );
        record.cool_until_ms.insert("a-b-0".to_owned(), 12);
        store.save(&record).await.unwrap();
        assert_eq!(store.load().await, record);
        std::fs::write(&store.0, b"{").unwrap();
        assert_eq!(store.load().await, Record::default());
    }

    #[test]
    fn names_of_partitions_come_back() {
        let partition = TopicPartition::new("a-b", 7);
        assert_eq!(parse_partition(&partition.to_string()), Some(partition));
        assert_eq!(parse_partition("a"), None);
    }
}
