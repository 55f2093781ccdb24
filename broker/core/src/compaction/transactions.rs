//! What the cleaner knows of transactions on its way through a log (Kafka's
//! `CleanedTransactionMetadata`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::ids::Offset;
use crate::records::{BatchMeta, ControlRecord, RecordError};

/// An aborted transaction, as the transaction index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: Offset,
    /// Offset of the marker.
    pub last_offset: Offset,
    pub last_stable_offset: Offset,
}

#[derive(Debug)]
struct Aborted {
    transaction: AbortedTransaction,
    /// There still are batches of it.
    has_data: bool,
}

/// Transactions that began in what was walked over, and whether data is left of them.
#[derive(Debug, Default)]
pub struct CleanedTransactions {
    committed: BTreeSet<i64>,
    aborted: BTreeMap<i64, Aborted>,
    /// By first and last offset: those that the walk has not come to yet.
    ahead: BTreeMap<(Offset, Offset, i64), AbortedTransaction>,
    /// Aborted transactions that the new segment's index must name.
    retained: Vec<AbortedTransaction>,
}

impl CleanedTransactions {
    /// Adds what the index says of what comes next.
    pub fn add_aborted(&mut self, transactions: impl IntoIterator<Item = AbortedTransaction>) {
        for one in transactions {
            let key = (one.first_offset, one.last_offset, one.producer_id);
            self.ahead.insert(key, one);
        }
    }

    /// Takes note of a data batch. Returns whether it belongs to an aborted transaction.
    pub fn data_read(&mut self, meta: &BatchMeta) -> bool {
        self.advance(meta.last_offset);
        if !meta.is_transactional {
            return false;
        }
        if let Some(aborted) = self.aborted.get_mut(&meta.producer_id) {
            aborted.has_data = true;
            true
        } else {
            self.committed.insert(meta.producer_id);
            false
        }
    }

    /// Takes note of a control batch. Returns whether it may be dropped: no data is left of its
    /// transaction.
    pub fn marker_read(&mut self, meta: &BatchMeta, batch: &Bytes) -> Result<bool, RecordError> {
        self.advance(meta.last_offset);
        Ok(match ControlRecord::of_batch(batch)? {
            // Emptied by an earlier cleaning.
            None => true,
            Some(ControlRecord::Abort { .. }) => match self.aborted.remove(&meta.producer_id) {
                Some(aborted) if aborted.has_data => {
                    self.retained.push(aborted.transaction);
                    false
                }
                _ => true,
            },
            Some(ControlRecord::Commit { .. }) => !self.committed.remove(&meta.producer_id),
            Some(ControlRecord::Unknown(_)) => false,
        })
    }

    /// The aborted transactions of which something was found since the last call.
    pub fn take_retained(&mut self) -> Vec<AbortedTransaction> {
        std::mem::take(&mut self.retained)
    }

    fn advance(&mut self, offset: Offset) {
        while let Some(next) = self.ahead.first_entry()
            && next.key().0 <= offset
        {
            let transaction = next.remove();
            self.aborted
                .entry(transaction.producer_id)
                .or_insert(Aborted {
                    transaction,
                    has_data: false,
                });
        }
    }
}
