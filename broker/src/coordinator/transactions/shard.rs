//! The transactional ids of one partition of `__transaction_state`, while this broker leads it.
//!
//! An id is locked while it decides and while its record is appended, so the log has records in the order in which
//! they were decided. Nobody holds the lock while replicas are waited for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_core::ids::{LeaderEpoch, Offset};
use barnabas_core::records::Compression;
use barnabas_core::time::Now;
use barnabas_core::transaction::records::transaction_key;
use barnabas_core::transaction::{
    Completion, Transaction, TransactionError, TransactionValue, TransactionalId,
};
use indexmap::IndexMap;
use tokio::time::Instant;

use super::completing::Completer;
use super::loading;
use crate::config::LiveConfig;
use crate::coordinator::appending::{Appended, Author, KeyValue, Replicating, WriteError, append};
use crate::coordinator::shards::{self, Coordinated};
use crate::log::AppendError;
use crate::replica::{Partition, PartitionError};
use crate::{clock, host};

/// Tombstones are written in batches of about this size, far below what a topic allows.
const TOMBSTONE_BATCH_BYTES: usize = 256 << 10;

/// A transactional id behind its lock.
pub(super) struct Cell(Mutex<Transaction>);

impl Cell {
    fn new(transaction: Transaction) -> Arc<Self> {
        Arc::new(Self(Mutex::new(transaction)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Transaction> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a shard is there for.
enum Status {
    /// The log is being read.
    Loading,
    Active {
        transactions: IndexMap<TransactionalId, Arc<Cell>>,
    },
    /// Another broker leads the partition.
    Resigned,
}

/// See the module.
pub(super) struct Shard {
    partition: Arc<Partition>,
    leader_epoch: LeaderEpoch,
    config: Arc<LiveConfig>,
    completer: Arc<Completer>,
    status: Mutex<Status>,
}

/// What is to be done with a transactional id.
pub(super) struct Step<T> {
    /// The record to be written, if one is.
    pub(super) write: Option<TransactionValue>,
    /// What is true once it is written.
    pub(super) then: T,
}

impl Shard {
    /// Begins to load the partition.
    pub(super) fn start(
        partition: &Arc<Partition>,
        leader_epoch: LeaderEpoch,
        config: &Arc<LiveConfig>,
        completer: &Arc<Completer>,
    ) -> Arc<Self> {
        let shard = Arc::new(Self {
            partition: Arc::clone(partition),
            leader_epoch,
            config: Arc::clone(config),
            completer: Arc::clone(completer),
            status: Mutex::new(Status::Loading),
        });
        host::spawn(Arc::clone(&shard).load());
        shard
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this broker still is the coordinator that it was elected as.
    pub(super) fn is_active(&self) -> bool {
        matches!(*self.status(), Status::Active { .. })
    }

    // --- loading ---

    async fn load(self: Arc<Self>) {
        let started = clock::now();
        let loaded = shards::load(&self, &self.partition, |shard, log| {
            let buffer_bytes = shard.config.broker().transaction_state_log_load_buffer_size;
            let transactions =
                loading::load(log, buffer_bytes.max(1) as usize, || shard.is_loading())?;
            Ok((transactions, log.log_end_offset()))
        });
        let Some((transactions, end)) = loaded.await else {
            return;
        };
        let count = transactions.len();
        let Some(unfinished) = self.activate(transactions) else {
            return;
        };
        let took = clock::now().monotonic.saturating_sub(started.monotonic);
        self.completer.metrics.loaded(took);
        tracing::info!(
            partition = %self.partition.topic_partition,
            leader_epoch = self.leader_epoch,
            transactions = count,
            unfinished = unfinished.len(),
            took_ms = took.as_millis() as u64,
            "loaded transactions"
        );
        if unfinished.is_empty() || !self.is_replicated(end).await {
            return;
        }
        for (cell, completion) in unfinished {
            self.completer.begin(&self, &cell, completion);
        }
    }

    /// Gives the unfinished transactions back, unless the broker does not lead the partition any more.
    fn activate(
        &self,
        loaded: IndexMap<TransactionalId, Transaction>,
    ) -> Option<Vec<(Arc<Cell>, Completion)>> {
        let now_ms = clock::now().wall_clock_ms;
        let mut unfinished = Vec::new();
        let mut transactions = IndexMap::with_capacity(loaded.len());
        for (id, mut transaction) in loaded {
            let completion = transaction.resume(now_ms);
            let cell = Cell::new(transaction);
            if let Some(completion) = completion {
                unfinished.push((Arc::clone(&cell), completion));
            }
            transactions.insert(id, cell);
        }
        let mut status = self.status();
        match *status {
            Status::Loading => {
                *status = Status::Active { transactions };
                Some(unfinished)
            }
            Status::Active { .. } | Status::Resigned => None,
        }
    }

    /// Returns when everything below `end` is replicated: a decision that this broker alone has read could be lost
    /// with it, when some partitions have their markers. `false` if it is not the coordinator any more.
    async fn is_replicated(&self, end: Offset) -> bool {
        let partition = Arc::clone(&self.partition);
        let loaded = Replicating::everything(partition, end, self.leader_epoch);
        while self.is_active() {
            match loaded.settle(Instant::now() + self.patience()).await {
                Ok(()) | Err(PartitionError::NotEnoughReplicasAfterAppend) => {
                    return self.is_active();
                }
                Err(PartitionError::RequestTimedOut) => {}
                Err(error) => {
                    tracing::warn!(partition = %self.partition.topic_partition, %error, "cannot tell whether transactions are replicated");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        false
    }

    // --- transactional ids ---

    /// The transactional id, if it is known.
    pub(super) fn cell(&self, id: &str) -> Result<Option<Arc<Cell>>, TransactionError> {
        match &*self.status() {
            Status::Loading => Err(TransactionError::CoordinatorLoadInProgress),
            Status::Active { transactions } => Ok(transactions.get(id).cloned()),
            Status::Resigned => Err(TransactionError::NotCoordinator),
        }
    }

    /// The transactional id, which is `new` if it is not known.
    pub(super) fn cell_or(&self, new: Transaction) -> Result<Arc<Cell>, TransactionError> {
        match &mut *self.status() {
            Status::Loading => Err(TransactionError::CoordinatorLoadInProgress),
            Status::Active { transactions } => {
                let entry = transactions.entry(Arc::clone(new.id()));
                Ok(Arc::clone(entry.or_insert_with(|| Cell::new(new))))
            }
            Status::Resigned => Err(TransactionError::NotCoordinator),
        }
    }

    pub(super) fn cells(&self) -> Vec<Arc<Cell>> {
        match &*self.status() {
            Status::Active { transactions } => transactions.values().cloned().collect(),
            Status::Loading | Status::Resigned => Vec::new(),
        }
    }

    fn remove(&self, cell: &Arc<Cell>) {
        let id = Arc::clone(cell.lock().id());
        if let Status::Active { transactions } = &mut *self.status()
            && transactions
                .get(&id)
                .is_some_and(|known| Arc::ptr_eq(known, cell))
        {
            transactions.swap_remove(&id);
        }
    }

    // --- changing them ---

    /// Lets `decide` say what is to be done, and returns when that is in the log for good. Markers that have to be
    /// written then are begun. It is seen through even if who asked for it hangs up.
    pub(super) async fn change<T>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        decide: impl FnOnce(&mut Transaction, i64) -> Result<Step<T>, TransactionError>,
    ) -> Result<T, TransactionError> {
        let (appended, then) = {
            let mut transaction = cell.lock();
            let now = clock::now();
            let step = decide(&mut transaction, now.wall_clock_ms)?;
            let Some(value) = step.write else {
                return Ok(step.then);
            };
            match self.append_value(&transaction, &value, now) {
                Ok(appended) => (appended, step.then),
                Err(error) => {
                    let error = self.failed(&transaction, &error);
                    transaction.settled(Err(error), now.wall_clock_ms);
                    return Err(error);
                }
            }
        };
        if let Some(outcome) = appended.settled() {
            return self.settled(cell, outcome).map(|()| then);
        }
        let (shard, cell) = (Arc::clone(self), Arc::clone(cell));
        let settling = host::spawn(async move {
            let outcome = appended.settle(shard.patience()).await;
            shard.settled(&cell, outcome)
        });
        let settled = settling.await;
        settled
            .unwrap_or(Err(TransactionError::NotCoordinator))
            .map(|()| then)
    }

    fn settled(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        outcome: Result<(), WriteError>,
    ) -> Result<(), TransactionError> {
        let now_ms = clock::now().wall_clock_ms;
        let mut transaction = cell.lock();
        // The log may have been cut since, and grown again.
        let outcome = if self.is_active() {
            outcome.map_err(|error| self.failed(&transaction, &error))
        } else {
            Err(TransactionError::NotCoordinator)
        };
        let completion = transaction.settled(outcome, now_ms);
        drop(transaction);
        if let Some(completion) = completion {
            self.completer.begin(self, cell, completion);
        }
        outcome
    }

    fn failed(&self, transaction: &Transaction, error: &WriteError) -> TransactionError {
        tracing::warn!(
            partition = %self.partition.topic_partition,
            transactional_id = %transaction.id(),
            %error,
            "a transaction could not be written"
        );
        transaction_error(error)
    }

    fn append_value(
        &self,
        transaction: &Transaction,
        value: &TransactionValue,
        now: Now,
    ) -> Result<Appended, WriteError> {
        let record = (transaction_key(transaction.id())?, Some(value.encode()?));
        self.append([record], now)
    }

    fn append(
        &self,
        records: impl IntoIterator<Item = KeyValue>,
        now: Now,
    ) -> Result<Appended, WriteError> {
        if !self.is_active() {
            return Err(PartitionError::NotLeaderOrFollower.into());
        }
        let (author, codec) = (Author::Coordinator, Compression::None);
        let elected = self.leader_epoch;
        append(&self.partition, records, author, codec, -1, elected, now)
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.config.broker().request_timeout_ms.max(0) as u64)
    }

    // --- time ---

    /// Aborts what is open for too long.
    pub(super) fn abort_timed_out(self: &Arc<Self>) {
        let now_ms = clock::now().wall_clock_ms;
        for cell in self.cells() {
            if !cell.lock().is_overdue(now_ms) {
                continue;
            }
            let shard = Arc::clone(self);
            host::spawn(async move {
                let id = Arc::clone(cell.lock().id());
                let aborted = shard.change(&cell, |transaction, now_ms| {
                    let write = transaction.time_out(now_ms)?;
                    let is_aborted = write.is_some();
                    Ok(Step {
                        write,
                        then: is_aborted,
                    })
                });
                match aborted.await {
                    Ok(true) => {
                        tracing::info!(transactional_id = %id, "a transaction timed out and is aborted");
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(transactional_id = %id, %error, "a transaction that timed out is not aborted yet");
                    }
                }
            });
        }
    }

    /// Forgets ids that nobody has used for `retention_ms`.
    pub(super) async fn forget_expired(&self, retention_ms: i64) {
        let now_ms = clock::now().wall_clock_ms;
        let mut dying: Vec<(Arc<Cell>, Vec<u8>)> = Vec::new();
        let mut size = 0;
        for cell in self.cells() {
            let key = {
                let mut transaction = cell.lock();
                if !transaction.expire(retention_ms, now_ms) {
                    continue;
                }
                transaction_key(transaction.id()).unwrap_or_default()
            };
            size += key.len() + 16;
            dying.push((cell, key));
            if size >= TOMBSTONE_BATCH_BYTES {
                size = 0;
                self.bury(std::mem::take(&mut dying)).await;
            }
        }
        if !dying.is_empty() {
            self.bury(dying).await;
        }
    }

    async fn bury(&self, dying: Vec<(Arc<Cell>, Vec<u8>)>) {
        let tombstones = dying.iter().map(|(_, key)| (key.clone(), None));
        let written = match self.append(tombstones, clock::now()) {
            Ok(appended) => appended.settle(self.patience()).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {
                for (cell, _) in &dying {
                    self.remove(cell);
                }
                tracing::info!(partition = %self.partition.topic_partition, ids = dying.len(), "forgot transactional ids");
            }
            Err(error) => {
                tracing::warn!(partition = %self.partition.topic_partition, %error, "expired transactional ids stay for now");
                for (cell, _) in &dying {
                    cell.lock().revive();
                }
            }
        }
    }
}

impl Coordinated for Shard {
    fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    fn is_loading(&self) -> bool {
        matches!(*self.status(), Status::Loading)
    }

    fn resign(self: &Arc<Self>) {
        *self.status() = Status::Resigned;
    }
}

/// What producers are told of a write that failed (`TransactionStateManager`).
fn transaction_error(error: &WriteError) -> TransactionError {
    match error {
        WriteError::Partition(
            PartitionError::UnknownTopicOrPartition
            | PartitionError::NotEnoughReplicas
            | PartitionError::NotEnoughReplicasAfterAppend
            | PartitionError::RequestTimedOut,
        ) => TransactionError::CoordinatorNotAvailable,
        WriteError::Partition(
            PartitionError::NotLeaderOrFollower | PartitionError::StorageError,
        )
        | WriteError::Append(AppendError::Storage(_)) => TransactionError::NotCoordinator,
        WriteError::Partition(
            PartitionError::UnknownTopicId
            | PartitionError::FencedLeaderEpoch
            | PartitionError::UnknownLeaderEpoch
            | PartitionError::InconsistentTopicId
            | PartitionError::OffsetOutOfRange,
        )
        | WriteError::TooLarge { .. }
        | WriteError::Append(
            AppendError::RecordListTooLarge { .. }
            | AppendError::Producer(_)
            | AppendError::UnexpectedOffset { .. }
            | AppendError::OffsetsNotAscending
            | AppendError::Corrupt { .. },
        )
        | WriteError::Field(_) => TransactionError::UnknownServerError,
    }
}
