//! Transactions as a partition of `__transaction_state` has them.

use std::sync::Arc;

use barnabas_core::transaction::{Transaction, TransactionRecord, TransactionalId};
use indexmap::IndexMap;

use crate::coordinator::reading::{Entry, walk};
use crate::log::{LogError, PartitionLog};

/// Replays a log from its start to its end, unless `goes_on` says otherwise: the last record of an id is all of it.
pub(super) fn load(
    log: &Arc<PartitionLog>,
    buffer_bytes: usize,
    goes_on: impl Fn() -> bool,
) -> Result<IndexMap<TransactionalId, Transaction>, LogError> {
    let mut transactions: IndexMap<TransactionalId, Transaction> = IndexMap::new();
    walk(log, buffer_bytes, goes_on, |entry| {
        // Nothing is written to this topic within a transaction.
        let Entry::Record { record, .. } = entry else {
            return;
        };
        match TransactionRecord::decode(record.key.as_ref(), record.value.as_ref()) {
            Ok(TransactionRecord::Transaction {
                id,
                value: Some(value),
            }) => {
                let transaction = Transaction::loaded(Arc::clone(&id), value);
                transactions.insert(id, transaction);
            }
            Ok(TransactionRecord::Transaction { id, value: None }) => {
                transactions.swap_remove(&id);
            }
            Ok(unknown @ TransactionRecord::Unknown { .. }) => {
                tracing::warn!(
                    offset = record.offset,
                    ?unknown,
                    "passed over an unknown record of a transaction"
                );
            }
            Err(error) => tracing::error!(
                partition = %log.topic_partition(),
                offset = record.offset,
                %error,
                "left out a record of a transaction that cannot be read"
            ),
        }
    })?;
    Ok(transactions)
}
