//! The transactions that this broker coordinates.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use barnabas_core::ids::{TopicPartition, coordinator_partition};
use barnabas_core::transaction::TransactionError;

use crate::config::LiveConfig;

/// All transactions of this broker.
pub struct TransactionCoordinator {
    /// How many partitions `__transaction_state` has; fixed while the broker runs.
    partitions: AtomicI32,
}

impl TransactionCoordinator {
    pub fn new(config: &Arc<LiveConfig>) -> Arc<Self> {
        Arc::new(Self {
            partitions: AtomicI32::new(config.broker().transaction_state_log_num_partitions),
        })
    }

    /// The partition of `__transaction_state` that a transactional id belongs to.
    pub fn partition_for(&self, transactional_id: &str) -> i32 {
        coordinator_partition(transactional_id, self.partitions.load(Ordering::SeqCst))
    }

    /// Whether partitions belong to the open transaction of a producer (KIP-890). One result for each;
    /// [`TransactionError::NotInTransaction`] where one does not.
    pub fn verify(
        &self,
        _transactional_id: &str,
        _producer_id: i64,
        _producer_epoch: i16,
        partitions: &[TopicPartition],
    ) -> Vec<Result<(), TransactionError>> {
        vec![Err(TransactionError::NotCoordinator); partitions.len()]
    }
}
