//! Logs on disk, laid out exactly as Kafka 3.9 does.
//!
//! [`LogManager`] owns the log directories: locks, loading, checkpoints, timers, failures.
//! [`PartitionLog`] is one replica's log. Reading a log takes no lock that is held during disk
//! writes; appends go one after the other under the log's own mutex.

mod error;
mod types;

pub use error::{AppendError, LogDirsError, LogError, StorageError};
pub use types::{
    AbortedTransaction, AppendInfo, DirectoryDescription, LogSlice, OffsetLookup,
    ProducerDescription, ReplicaSize,
};
