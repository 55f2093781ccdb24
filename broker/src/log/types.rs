//! What logs answer.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use barnabas_core::ids::{LeaderEpoch, Offset, TopicPartition};
use bytes::Bytes;

use super::error::{Described as _, StorageError};
use crate::files::{self, FileHandle};

/// Where an appended batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    pub first_offset: Offset,
    pub last_offset: Offset,
    /// Milliseconds since the epoch if the topic uses `LogAppendTime`, else -1.
    pub log_append_time_ms: i64,
    pub log_start_offset: Offset,
    /// The epoch of the leader that this broker is.
    pub leader_epoch: LeaderEpoch,
    /// The batch was already in the log; the offsets are those of the first time.
    pub is_duplicate: bool,
}

/// A byte range of one segment file. Its last batch may be cut.
#[derive(Clone, Debug)]
pub struct LogSlice {
    pub file: Arc<dyn FileHandle>,
    /// For error messages.
    pub path: Arc<Path>,
    pub position: u64,
    pub length: usize,
    /// Base offset of the segment, so that two slices can be told to be of the same file.
    pub segment_base_offset: Offset,
    /// The limit cuts the first batch. Old Fetch versions send the part, later ones nothing.
    pub first_batch_incomplete: bool,
}

/// The file of a slice that is empty.
#[derive(Debug)]
struct NoFile;

impl FileHandle for NoFile {
    fn read_at(&self, _buffer: &mut [u8], _position: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_vectored_at(&self, _buffers: &[io::IoSlice<'_>], _position: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn truncate(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl LogSlice {
    /// A slice of nothing.
    pub fn empty() -> Self {
        static NOTHING: LazyLock<(Arc<dyn FileHandle>, Arc<Path>)> =
            LazyLock::new(|| (Arc::new(NoFile), Path::new("").into()));
        let (file, path) = &*NOTHING;
        Self {
            file: Arc::clone(file),
            path: Arc::clone(path),
            position: 0,
            length: 0,
            segment_base_offset: 0,
            first_batch_incomplete: false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes of the slice.
    pub fn read_all(&self) -> Result<Bytes, StorageError> {
        let mut buffer = vec![0; self.length];
        files::read_exact_at(&*self.file, &mut buffer, self.position)
            .describe("read", &self.path)?;
        Ok(buffer.into())
    }

    /// Reads a part of the slice, from `start` bytes behind its beginning.
    pub fn read_at(&self, buffer: &mut [u8], start: u64) -> io::Result<usize> {
        self.file.read_at(buffer, self.position + start)
    }
}

/// What a lookup by timestamp found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetLookup {
    pub offset: Offset,
    pub timestamp: i64,
    pub leader_epoch: Option<LeaderEpoch>,
}

/// An aborted transaction as Fetch reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: Offset,
}

/// A producer as `DescribeProducers` (KIP-664) reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerDescription {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp: i64,
    pub coordinator_epoch: i32,
    /// -1 without an open transaction.
    pub current_txn_start_offset: Offset,
}

/// A log directory as `DescribeLogDirs` reports it.
#[derive(Clone, Debug)]
pub struct DirectoryDescription {
    /// As it stands in `log.dirs`.
    pub path: PathBuf,
    /// Why the directory is offline.
    pub error: Option<StorageError>,
    /// -1 if unknown.
    pub total_bytes: i64,
    /// -1 if unknown.
    pub usable_bytes: i64,
    pub replicas: Vec<ReplicaSize>,
}

/// The size of one replica in a log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSize {
    pub topic_partition: TopicPartition,
    /// Bytes of its segments.
    pub size: u64,
    /// How many offsets the log is behind its high watermark, or a copy behind its original.
    pub offset_lag: i64,
    /// It is the copy that `AlterReplicaLogDirs` makes.
    pub is_future: bool,
}

/// What a follower appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerAppend {
    pub first_offset: Offset,
    /// The offset before `first_offset` if there was no whole batch.
    pub last_offset: Offset,
    pub size_in_bytes: usize,
}
