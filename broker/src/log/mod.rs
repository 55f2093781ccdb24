//! Logs on disk, laid out exactly as Kafka 3.9 does.
//!
//! [`LogManager`] owns the log directories: locks, loading, checkpoints, timers, failures.
//! [`PartitionLog`] is one replica's log. Reading a log takes no lock that is held during disk
//! writes; appends go one after the other under the log's own mutex.

mod append;
mod background;
mod change;
mod checkpoint;
mod cleaner;
mod control;
mod dir_name;
mod error;
mod flush;
mod index;
mod index_file;
mod log_dir;
mod log_dirs;
mod meta_properties;
#[cfg(test)]
mod model_tests;
mod offset_index;
mod options;
mod partition_log;
mod partition_metadata;
mod periodic;
mod place;
mod producer_state;
mod read;
mod recovery;
mod relocation;
mod rewrite;
mod scan;
mod segment;
mod time_index;
mod txn_index;
mod types;

pub use error::{AppendError, LogDirsError, LogError, StorageError};
pub use log_dirs::LogManager;
pub use meta_properties::{MetaProperties, meta_properties_path};
pub use options::LogDirsOptions;
pub use partition_log::PartitionLog;
pub use types::{
    AbortedTransaction, AppendInfo, DirectoryDescription, FollowerAppend, LogSlice, OffsetLookup,
    ProducerDescription, ReplicaSize,
};
