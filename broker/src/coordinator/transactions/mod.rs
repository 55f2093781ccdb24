//! The transactions that this broker coordinates.
//!
//! A transactional id belongs to the partition of `__transaction_state` that it hashes to, and to the broker that leads
//! it. Loading a partition holds up nobody but its own ids.
//!
//! | module | what it owns |
//! |---|---|
//! | [`shard`] | the ids of one partition: loading, changing, time-outs, expiry |
//! | [`completing`] | from a decision to its completion: markers and the last record |
//! | [`destination`] | a broker to which markers are sent |

mod completing;
mod destination;
mod loading;
mod metrics;
mod shard;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::{LeaderEpoch, TopicPartition};
use barnabas_core::transaction::{
    Init, Initiation, Outcome, Transaction, TransactionDescription, TransactionError,
    TransactionalId,
};
use tokio::task::JoinHandle;

use super::shards::{Coordinated as _, Shards};
use crate::config::LiveConfig;
use crate::producer_ids::ProducerIdManager;
use crate::replica::Partition;
use crate::{clock, host};

use completing::Completer;
pub use completing::CompleterOptions;
pub use metrics::TransactionMetrics;
use shard::{Shard, Step};

/// All transactions of this broker.
pub struct TransactionCoordinator {
    config: Arc<LiveConfig>,
    completer: Arc<Completer>,
    shards: Shards<Shard>,
}

/// Who asks, as requests of producers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerRef<'a> {
    pub transactional_id: &'a str,
    pub producer_id: i64,
    pub producer_epoch: i16,
}

/// Which transactional ids an administrator wants to see; empty lists are all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    /// Names of states. Nothing has a state that does not exist.
    pub states: Vec<String>,
    pub producer_ids: Vec<i64>,
    /// Only those that began longer ago than so many milliseconds.
    pub min_duration_ms: Option<i64>,
}

/// What comes after a producer was introduced.
enum Introduced {
    As(i64, i16),
    /// Its predecessor's transaction is being aborted.
    AskAgain,
    NeedsProducerId,
}

impl TransactionCoordinator {
    pub fn new(options: CompleterOptions) -> Arc<Self> {
        let config = Arc::clone(&options.config);
        Arc::new(Self {
            shards: Shards::new(config.broker().transaction_state_log_num_partitions),
            completer: Completer::new(options),
            config,
        })
    }

    /// Begins to serve; the topic has, or will have, so many partitions. The returned tasks look for transactions
    /// that are open, and for ids that are unused, for too long.
    pub fn start(self: &Arc<Self>, partitions: i32) -> [JoinHandle<()>; 2] {
        self.shards.start(partitions);
        [
            host::spawn(Arc::clone(self).abort_timed_out_regularly()),
            host::spawn(Arc::clone(self).expire_regularly()),
        ]
    }

    /// Answers nobody from now on.
    pub fn stop(&self) {
        self.shards.stop();
    }

    /// The partition of `__transaction_state` that a transactional id belongs to.
    pub fn partition_for(&self, transactional_id: &str) -> i32 {
        self.shards.partition_for(transactional_id)
    }

    pub fn metrics(&self) -> &TransactionMetrics {
        &self.completer.metrics
    }

    // --- leading and not leading ---

    /// This broker leads a partition of `__transaction_state` from now on.
    pub fn elected(&self, partition: &Arc<Partition>, leader_epoch: LeaderEpoch) {
        let number = partition.topic_partition.partition;
        self.shards.elected(number, leader_epoch, || {
            Shard::start(partition, leader_epoch, &self.config, &self.completer)
        });
    }

    /// This broker does not lead it any more; without an epoch it is deleted.
    pub fn resigned(&self, partition: i32, leader_epoch: Option<LeaderEpoch>) {
        if self.shards.resigned(partition, leader_epoch) {
            tracing::info!(partition, ?leader_epoch, "unloaded transactions");
        }
    }

    fn shard(&self, id: &str) -> Result<Arc<Shard>, TransactionError> {
        let number = self.shards.partition_for(id);
        let shard = self.shards.get(number);
        shard.ok_or(TransactionError::NotCoordinator)
    }

    /// The same for requests that need an id.
    fn shard_of_named(&self, id: &str) -> Result<Arc<Shard>, TransactionError> {
        if id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        self.shard(id)
    }

    // --- producers ---

    /// Gives a producer its id and epoch, and shuts out those that had the transactional id before.
    pub async fn init_producer(
        &self,
        id: &str,
        init: Init,
        producer_ids: &ProducerIdManager,
    ) -> Result<(i64, i16), TransactionError> {
        if id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        let timeout_max = self.config.broker().transaction_max_timeout_ms;
        if !(1..=timeout_max).contains(&init.timeout_ms) {
            return Err(TransactionError::InvalidTimeout);
        }
        let shard = self.shard(id)?;
        let cell = if let Some(cell) = shard.cell(id)? {
            cell
        } else {
            let producer_id = new_producer_id(producer_ids).await?;
            let now_ms = clock::now().wall_clock_ms;
            let id = TransactionalId::from(id);
            shard.cell_or(Transaction::new(id, producer_id, init.timeout_ms, now_ms))?
        };
        let mut fresh = None;
        loop {
            let introduced = shard.change(&cell, |transaction, now_ms| {
                Ok(match transaction.init(init, fresh, now_ms)? {
                    Initiation::Identify(value) => Step {
                        then: Introduced::As(value.producer_id, value.producer_epoch),
                        write: Some(value),
                    },
                    Initiation::Abort(value) => Step {
                        write: Some(value),
                        then: Introduced::AskAgain,
                    },
                    Initiation::NeedsProducerId => Step {
                        write: None,
                        then: Introduced::NeedsProducerId,
                    },
                })
            });
            match introduced.await? {
                Introduced::As(producer_id, epoch) => return Ok((producer_id, epoch)),
                Introduced::AskAgain => return Err(TransactionError::ConcurrentTransactions),
                Introduced::NeedsProducerId => fresh = Some(new_producer_id(producer_ids).await?),
            }
        }
    }

    /// Adds partitions to the open transaction of a producer, which begins with the first.
    pub async fn add_partitions(
        &self,
        producer: ProducerRef<'_>,
        partitions: &[TopicPartition],
    ) -> Result<(), TransactionError> {
        let shard = self.shard_of_named(producer.transactional_id)?;
        let known = shard.cell(producer.transactional_id)?;
        let cell = known.ok_or(TransactionError::InvalidProducerIdMapping)?;
        let added = shard.change(&cell, |transaction, now_ms| {
            let (id, epoch) = (producer.producer_id, producer.producer_epoch);
            let write = transaction.add_partitions(id, epoch, partitions, now_ms)?;
            Ok(Step { write, then: () })
        });
        added.await
    }

    /// Ends the open transaction of a producer. From then on it will be so; markers are written afterwards.
    pub async fn end(
        &self,
        producer: ProducerRef<'_>,
        outcome: Outcome,
    ) -> Result<(), TransactionError> {
        let shard = self.shard_of_named(producer.transactional_id)?;
        let known = shard.cell(producer.transactional_id)?;
        let cell = known.ok_or(TransactionError::InvalidProducerIdMapping)?;
        let ended = shard.change(&cell, |transaction, now_ms| {
            let (id, epoch) = (producer.producer_id, producer.producer_epoch);
            let write = transaction.end(id, epoch, outcome, now_ms)?;
            Ok(Step { write, then: () })
        });
        ended.await
    }

    // --- looking ---

    /// Whether partitions belong to the open transaction of a producer (KIP-890). One result for each;
    /// [`TransactionError::NotInTransaction`] where one does not.
    pub fn verify(
        &self,
        transactional_id: &str,
        producer_id: i64,
        producer_epoch: i16,
        partitions: &[TopicPartition],
    ) -> Vec<Result<(), TransactionError>> {
        let shard = self.shard_of_named(transactional_id);
        let cell = shard.and_then(|shard| shard.cell(transactional_id));
        let verified = cell.and_then(|cell| {
            let cell = cell.ok_or(TransactionError::InvalidProducerIdMapping)?;
            cell.lock().verify(producer_id, producer_epoch, partitions)
        });
        verified.unwrap_or_else(|error| vec![Err(error); partitions.len()])
    }

    /// What is known of a transactional id.
    pub fn describe(&self, id: &str) -> Result<TransactionDescription, TransactionError> {
        if !self.shards.is_active() {
            return Err(TransactionError::CoordinatorNotAvailable);
        }
        let cell = self.shard_of_named(id)?.cell(id)?;
        let cell = cell.ok_or(TransactionError::NotFound)?;
        let transaction = cell.lock();
        if transaction.is_dying() {
            return Err(TransactionError::NotFound);
        }
        Ok(transaction.describe())
    }

    /// The transactional ids that `filter` wants; an error while some are not known yet.
    pub fn list(
        &self,
        filter: &TransactionFilter,
    ) -> Result<Vec<(TransactionalId, TransactionDescription)>, TransactionError> {
        if !self.shards.is_active() {
            return Err(TransactionError::CoordinatorNotAvailable);
        }
        let shards = self.shards.all();
        if shards.iter().any(|shard| shard.is_loading()) {
            return Err(TransactionError::CoordinatorLoadInProgress);
        }
        let now_ms = clock::now().wall_clock_ms;
        let mut listed = Vec::new();
        for cell in shards.iter().flat_map(|shard| shard.cells()) {
            let transaction = cell.lock();
            let description = transaction.describe();
            if !transaction.is_dying() && filter.wants(&description, now_ms) {
                listed.push((TransactionalId::clone(transaction.id()), description));
            }
        }
        Ok(listed)
    }

    // --- time ---

    async fn abort_timed_out_regularly(self: Arc<Self>) {
        loop {
            let config = self.config.broker();
            let interval = config.transaction_abort_timed_out_transaction_cleanup_interval_ms;
            tokio::time::sleep(Duration::from_millis(interval.max(1) as u64)).await;
            for shard in self.shards.all() {
                shard.abort_timed_out();
                tokio::task::yield_now().await;
            }
        }
    }

    async fn expire_regularly(self: Arc<Self>) {
        loop {
            let config = self.config.broker();
            let interval = config.transaction_remove_expired_transaction_cleanup_interval_ms;
            tokio::time::sleep(Duration::from_millis(interval.max(1) as u64)).await;
            let retention_ms = i64::from(config.transactional_id_expiration_ms);
            for shard in self.shards.all() {
                shard.forget_expired(retention_ms).await;
            }
        }
    }
}

impl TransactionFilter {
    fn wants(&self, description: &TransactionDescription, now_ms: i64) -> bool {
        let has_state = |name: &String| name == description.state.name();
        let age_ms = now_ms - description.start_ms;
        (self.states.is_empty() || self.states.iter().any(has_state))
            && (self.producer_ids.is_empty()
                || self.producer_ids.contains(&description.producer_id))
            && self.min_duration_ms.is_none_or(|min| age_ms > min)
    }
}

/// A producer that gets no id asks again, as if the coordinator were loading.
async fn new_producer_id(producer_ids: &ProducerIdManager) -> Result<i64, TransactionError> {
    producer_ids.next().await.map_err(|error| {
        tracing::warn!(%error, "a transactional producer got no id");
        TransactionError::CoordinatorLoadInProgress
    })
}
