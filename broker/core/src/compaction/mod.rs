//! Compaction: which records of a log stay (Kafka's `Cleaner`) and which log is next (Kafka's
//! `LogCleanerManager`). Files, threads and time are the shell's.

mod filter;
mod key_hash;
mod offset_map;
mod selection;
#[cfg(test)]
mod tests;
mod transactions;

pub use filter::{Filter, FilterError, Filtered, LastRecord, Scratch};
pub use offset_map::{KeyId, OffsetMap};
pub use selection::{Cleanable, LogState, SegmentSize, cleanable, group_ends, is_due};
pub use transactions::{AbortedTransaction, CleanedTransactions};
