//! One transactional id on the broker that coordinates it (Kafka's `TransactionMetadata`, transaction version 0).

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
