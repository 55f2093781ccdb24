//! What can go wrong with a log, as a caller has to tell it apart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barnabas_core::ids::{Offset, TopicId, TopicPartition};
use barnabas_core::partition::producers::ProducerError;

/// A file operation that failed. It takes the log directory offline.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct StorageError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: Arc<io::Error>,
}

impl StorageError {
    pub fn new(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self {
            action,
            path: path.into(),
            source: Arc::new(source),
        }
    }
}

/// Adds to an I/O error what was done to which file.
pub(crate) trait Described<T> {
    fn describe(self, action: &'static str, path: &Path) -> Result<T, StorageError>;
}

impl<T> Described<T> for io::Result<T> {
    fn describe(self, action: &'static str, path: &Path) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::new(action, path, source))
    }
}

/// Why a log does not answer a question or carry out a change.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "offset {offset} is not within {log_start_offset} to {log_end_offset} of {topic_partition}"
    )]
    OffsetOutOfRange {
        topic_partition: TopicPartition,
        offset: Offset,
        log_start_offset: Offset,
        log_end_offset: Offset,
    },
    #[error("{topic_partition} has topic id {known} on disk, not {asked}")]
    InconsistentTopicId {
        topic_partition: TopicPartition,
        known: TopicId,
        asked: TopicId,
    },
    #[error("{topic_partition} has no replica here")]
    UnknownPartition { topic_partition: TopicPartition },
    #[error("{} is not one of log.dirs", path.display())]
    LogDirNotFound { path: PathBuf },
    #[error("the log directory {} is offline", path.display())]
    LogDirOffline { path: PathBuf },
    #[error("a stored batch of {topic_partition} cannot be read: {reason}")]
    CorruptBatch {
        topic_partition: TopicPartition,
        reason: String,
    },
    /// The largest timestamp was asked of records that carry none (magic 0).
    #[error("the records of {topic_partition} have no timestamps")]
    NoTimestamps { topic_partition: TopicPartition },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why nothing was appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The state of the idempotent or transactional producer forbids the batch.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    #[error("{size} bytes do not fit into a segment of {segment_bytes}")]
    RecordListTooLarge { size: usize, segment_bytes: usize },
    /// A follower was given offsets below its log end offset.
    #[error("offsets {first_offset} to {last_offset} were to be appended at {log_end_offset}")]
    UnexpectedOffset {
        first_offset: Offset,
        last_offset: Offset,
        log_end_offset: Offset,
    },
    #[error("the offsets of the batches do not ascend")]
    OffsetsNotAscending,
    #[error("invalid batch: {reason}")]
    Corrupt { reason: String },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why the log directories cannot be used at all: the broker does not start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogDirsError {
    #[error("{} is locked: is another broker running on it?", path.display())]
    Locked { path: PathBuf },
    #[error("{}: {reason}", path.display())]
    MetaProperties { path: PathBuf, reason: String },
    #[error(
        "{} does not look like <topic>-<partition>: move it out of the log directory",
        path.display()
    )]
    StrangeDirectory { path: PathBuf },
    #[error("{topic_partition} is both in {} and in {}", first.display(), second.display())]
    Duplicate {
        topic_partition: TopicPartition,
        first: PathBuf,
        second: PathBuf,
    },
    #[error("no log directory can be used: {last}")]
    AllOffline { last: StorageError },
}
