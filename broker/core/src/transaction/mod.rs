//! One transactional id on the broker that coordinates it (Kafka's `TransactionMetadata`, transaction version 0).
//!
//! A [`Transaction`] decides what is to be written; what lasts changes only when a record is replayed, the same way
//! while a log is loaded and after an append. Between a decision and its record being safe nothing else is decided:
//! whoever asks is told to come again. A transaction whose end is decided and safe stays in that state until every
//! partition has its marker; who loads it takes up writing markers where the predecessor was.
//!
//! | module | what it owns |
//! |---|---|
//! | [`records`] | keys and values in `__transaction_state` |
//! | `order` | in which order Kafka writes partitions |
//! | [`state`] | what may happen when (`TransactionCoordinator`, `TransactionMetadata`) |

mod order;
pub mod records;
pub mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use records::{State, TransactionRecord, TransactionValue};
pub use state::{Completion, Init, Initiation, Transaction, TransactionDescription};

/// A transactional id; cheap to clone.
pub type TransactionalId = Arc<str>;

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Commit,
    Abort,
}

/// Why a transaction does not do what it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    #[error("the request makes no sense")]
    InvalidRequest,
    #[error("the transaction timeout is outside the limits")]
    InvalidTimeout,
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    #[error("the coordinator is loading the transaction")]
    CoordinatorLoadInProgress,
    #[error("another broker coordinates the transaction")]
    NotCoordinator,
    #[error("the transactional id belongs to another producer id")]
    InvalidProducerIdMapping,
    #[error("a newer instance of the producer has taken over")]
    ProducerFenced,
    #[error("a change of the transaction is on its way")]
    ConcurrentTransactions,
    #[error("the state of the transaction forbids it")]
    InvalidState,
    #[error("the partition does not belong to the transaction")]
    NotInTransaction,
    #[error("there is no such transactional id")]
    NotFound,
    #[error("the record cannot be written")]
    UnknownServerError,
}
