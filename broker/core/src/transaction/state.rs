//! What may happen to a transactional id, and when.

use std::collections::BTreeSet;

use super::records::{State, TransactionValue};
use super::{Outcome, TransactionError, TransactionalId};
use crate::ids::{TopicName, TopicPartition};

/// No producer id, or none that is known any more.
const NO_PRODUCER_ID: i64 = -1;

/// No epoch: the identity was never handed out.
const NO_EPOCH: i16 = -1;

/// The last epoch that a producer may get; the one above is left for fencing it.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// A transactional id, see the [module](super).
#[derive(Clone, Debug)]
pub struct Transaction {
    id: TransactionalId,
    /// What lasts. Changes by [`replay`](Self::replay) only.
    value: TransactionValue,
    /// An epoch above the lasting one that shuts the producer out while its transaction is being aborted. It stays if
    /// the abort cannot be written, and is not raised again then: nobody was ever given it.
    fenced_epoch: Option<i16>,
    /// Identity before the last change of it, for a producer that repeats a request whose answer got lost.
    former: Identity,
    pending: Option<Pending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    producer_id: i64,
    epoch: i16,
}

impl Identity {
    const NONE: Self = Self {
        producer_id: NO_PRODUCER_ID,
        epoch: NO_EPOCH,
    };
}

/// What the transactional id waits for.
#[derive(Clone, Debug)]
enum Pending {
    /// A record is on its way to the log, and to enough replicas.
    Record {
        value: TransactionValue,
        former: Identity,
    },
    /// Markers are on their way to the partitions.
    Markers { since_ms: i64 },
    /// A tombstone is on its way.
    Tombstone,
}

/// What a producer that introduces itself says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// Milliseconds.
    pub timeout_ms: i32,
    /// Producer id and epoch of one that goes on after an error (KIP-360).
    pub expected: Option<(i64, i16)>,
}

/// What is done for a producer that introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initiation {
    /// To be written; then it has this identity.
    Identify(TransactionValue),
    /// The transaction of its predecessor is aborted first, by this record. It has to ask again.
    Abort(TransactionValue),
    /// Epochs are used up: it needs another producer id. Ask again with one.
    NeedsProducerId,
}

/// Markers to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub outcome: Outcome,
    pub partitions: BTreeSet<TopicPartition>,
}

/// What administrators see of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionDescription {
    pub state: State,
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// Milliseconds.
    pub timeout_ms: i32,
    /// Milliseconds since the epoch; -1 before the first transaction.
    pub start_ms: i64,
    pub topics: Vec<(TopicName, Vec<i32>)>,
}

impl Transaction {
    /// A transactional id that nobody used before. Nothing of it lasts until its producer is identified.
    pub fn new(id: TransactionalId, producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self::loaded(
            id,
            TransactionValue {
                producer_id,
                producer_epoch: NO_EPOCH,
                timeout_ms,
                state: State::Empty,
                partitions: BTreeSet::new(),
                last_update_ms: now_ms,
                start_ms: -1,
            },
        )
    }

    /// A transactional id as its last record says.
    pub fn loaded(id: TransactionalId, value: TransactionValue) -> Self {
        Self {
            id,
            value,
            fenced_epoch: None,
            former: Identity::NONE,
            pending: None,
        }
    }

    pub fn id(&self) -> &TransactionalId {
        &self.id
    }

    pub fn state(&self) -> State {
        self.value.state
    }

    pub fn producer_id(&self) -> i64 {
        self.value.producer_id
    }

    /// The epoch that requests must have.
    pub fn producer_epoch(&self) -> i16 {
        self.fenced_epoch.unwrap_or(self.value.producer_epoch)
    }

    /// Whether the transactional id is being forgotten.
    pub fn is_dying(&self) -> bool {
        matches!(self.pending, Some(Pending::Tombstone))
    }

    /// Takes in a record that is in the log for good.
    pub fn replay(&mut self, value: &TransactionValue) {
        let start_ms = if value.state == State::Empty {
            // Its record says that no transaction was begun, but administrators see when the last was.
            self.value.start_ms
        } else {
            value.start_ms
        };
        self.value = TransactionValue {
            start_ms,
            ..value.clone()
        };
        self.fenced_epoch = None;
    }

    // --- decisions; each returns what is to be written, and nothing else is decided until `settled` ---

    /// Gives a producer its identity. `fresh` is a producer id that nobody has, if one was asked for.
    pub fn init(
        &mut self,
        init: Init,
        fresh: Option<i64>,
        now_ms: i64,
    ) -> Result<Initiation, TransactionError> {
        if self.pending.is_some() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        if init
            .expected
            .is_some_and(|expected| !self.is_known(expected))
        {
            return Err(TransactionError::ProducerFenced);
        }
        match self.value.state {
            State::PrepareCommit | State::PrepareAbort => {
                Err(TransactionError::ConcurrentTransactions)
            }
            State::Ongoing => self.fence(now_ms).map(Initiation::Abort),
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                self.identify(init, fresh, now_ms)
            }
        }
    }

    /// Whether a producer that goes on is the one that had the identity last, or may be.
    fn is_known(&self, (producer_id, epoch): (i64, i16)) -> bool {
        self.value.producer_epoch == NO_EPOCH
            || producer_id == self.value.producer_id
            || (producer_id == self.former.producer_id && epoch >= LAST_EPOCH)
    }

    fn identify(
        &mut self,
        init: Init,
        fresh: Option<i64>,
        now_ms: i64,
    ) -> Result<Initiation, TransactionError> {
        let current = self.value.producer_epoch;
        let expected = init.expected.map(|(_, epoch)| epoch);
        let is_exhausted = current >= LAST_EPOCH;
        let (producer_id, epoch, former_epoch) = match expected {
            _ if is_exhausted && expected.is_none_or(|epoch| epoch == current) => {
                let Some(fresh) = fresh else {
                    return Ok(Initiation::NeedsProducerId);
                };
                (fresh, 0, expected.map_or(NO_EPOCH, |_| current))
            }
            // Kafka fails here, too: it was told an epoch of the past and has none left for the future.
            _ if is_exhausted => return Err(TransactionError::UnknownServerError),
            None => (self.value.producer_id, current + 1, NO_EPOCH),
            Some(epoch) if current == NO_EPOCH || epoch == current => {
                (self.value.producer_id, current + 1, current)
            }
            // The answer to the same request got lost.
            Some(epoch) if epoch == self.former.epoch => {
                (self.value.producer_id, current, self.former.epoch)
            }
            Some(_) => return Err(TransactionError::ProducerFenced),
        };
        let former = Identity {
            producer_id: self.value.producer_id,
            epoch: former_epoch,
        };
        let value = TransactionValue {
            producer_id,
            producer_epoch: epoch,
            timeout_ms: init.timeout_ms,
            state: State::Empty,
            partitions: BTreeSet::new(),
            last_update_ms: now_ms,
            start_ms: -1,
        };
        Ok(Initiation::Identify(self.begin(value, former)))
    }

    /// Adds partitions to the transaction, which begins with the first. `None` if they belong to it already.
    pub fn add_partitions(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
        partitions: &[TopicPartition],
        now_ms: i64,
    ) -> Result<Option<TransactionValue>, TransactionError> {
        self.check_producer(producer_id, producer_epoch)?;
        if self.pending.is_some() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let (start_ms, mut all) = match self.value.state {
            State::PrepareCommit | State::PrepareAbort => {
                return Err(TransactionError::ConcurrentTransactions);
            }
            State::Ongoing => {
                let known = &self.value.partitions;
                if partitions.iter().all(|one| known.contains(one)) {
                    return Ok(None);
                }
                (self.value.start_ms, known.clone())
            }
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                (now_ms, BTreeSet::new())
            }
        };
        all.extend(partitions.iter().cloned());
        let value = TransactionValue {
            state: State::Ongoing,
            partitions: all,
            last_update_ms: now_ms,
            start_ms,
            ..self.value.clone()
        };
        Ok(Some(self.begin(value, self.former)))
    }

    /// Ends the transaction. `None` if it has ended like that.
    pub fn end(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
        outcome: Outcome,
        now_ms: i64,
    ) -> Result<Option<TransactionValue>, TransactionError> {
        self.check_producer(producer_id, producer_epoch)?;
        if self.pending.is_some() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        match (self.value.state, outcome) {
            (State::Ongoing, _) => {
                let value = self.prepared(outcome, now_ms);
                Ok(Some(self.begin(value, self.former)))
            }
            (State::CompleteCommit, Outcome::Commit) | (State::CompleteAbort, Outcome::Abort) => {
                Ok(None)
            }
            (State::PrepareCommit, Outcome::Commit) | (State::PrepareAbort, Outcome::Abort) => {
                Err(TransactionError::ConcurrentTransactions)
            }
            (
                State::Empty
                | State::PrepareCommit
                | State::PrepareAbort
                | State::CompleteCommit
                | State::CompleteAbort,
                _,
            ) => Err(TransactionError::InvalidState),
        }
    }

    /// Aborts a transaction that was open for too long, and shuts its producer out.
    pub fn time_out(&mut self, now_ms: i64) -> Result<Option<TransactionValue>, TransactionError> {
        if self.is_overdue(now_ms) {
            self.fence(now_ms).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Whether the transaction was open for too long and nobody is ending it.
    pub fn is_overdue(&self, now_ms: i64) -> bool {
        let end_ms = self.value.start_ms + i64::from(self.value.timeout_ms);
        self.pending.is_none() && self.value.state == State::Ongoing && end_ms < now_ms
    }

    /// Whether nobody has used the transactional id for `retention_ms`, so that a tombstone is to be written.
    pub fn expire(&mut self, retention_ms: i64, now_ms: i64) -> bool {
        let is_idle = match self.value.state {
            State::Empty | State::CompleteCommit | State::CompleteAbort => true,
            State::Ongoing | State::PrepareCommit | State::PrepareAbort => false,
        };
        let expires = is_idle
            && self.pending.is_none()
            && self.value.last_update_ms <= now_ms.saturating_sub(retention_ms);
        if expires {
            self.pending = Some(Pending::Tombstone);
        }
        expires
    }

    /// The tombstone could not be written.
    pub fn revive(&mut self) {
        if self.is_dying() {
            self.pending = None;
        }
    }

    /// All partitions have their markers: the record that says so. `None` if nobody waited for them.
    pub fn complete(&mut self) -> Option<TransactionValue> {
        let Some(Pending::Markers { since_ms }) = self.pending else {
            return None;
        };
        let state = match self.value.state {
            State::PrepareCommit => State::CompleteCommit,
            State::PrepareAbort => State::CompleteAbort,
            State::Empty | State::Ongoing | State::CompleteCommit | State::CompleteAbort => {
                return None;
            }
        };
        let value = TransactionValue {
            state,
            partitions: BTreeSet::new(),
            last_update_ms: since_ms,
            ..self.value.clone()
        };
        Some(self.begin(value, self.former))
    }

    fn fence(&mut self, now_ms: i64) -> Result<TransactionValue, TransactionError> {
        let raised = match self.fenced_epoch {
            Some(epoch) => Some(epoch),
            None => self.value.producer_epoch.checked_add(1),
        };
        let epoch = raised.ok_or(TransactionError::UnknownServerError)?;
        self.fenced_epoch = Some(epoch);
        let value = TransactionValue {
            producer_epoch: epoch,
            ..self.prepared(Outcome::Abort, now_ms)
        };
        let former = Identity {
            epoch: NO_EPOCH,
            ..self.former
        };
        Ok(self.begin(value, former))
    }

    fn prepared(&self, outcome: Outcome, now_ms: i64) -> TransactionValue {
        TransactionValue {
            state: match outcome {
                Outcome::Commit => State::PrepareCommit,
                Outcome::Abort => State::PrepareAbort,
            },
            last_update_ms: now_ms,
            ..self.value.clone()
        }
    }

    fn begin(&mut self, value: TransactionValue, former: Identity) -> TransactionValue {
        assert!(
            value.state.may_follow(self.value.state),
            "{}: {:?} cannot follow {:?}",
            self.id,
            value.state,
            self.value.state
        );
        self.pending = Some(Pending::Record {
            value: value.clone(),
            former,
        });
        value
    }

    fn check_producer(&self, producer_id: i64, epoch: i16) -> Result<(), TransactionError> {
        if producer_id != self.value.producer_id {
            Err(TransactionError::InvalidProducerIdMapping)
        } else if epoch != self.producer_epoch() {
            Err(TransactionError::ProducerFenced)
        } else {
            Ok(())
        }
    }

    // --- what became of decisions ---

    /// The record that was decided on is safe, or was given up. Returns the markers that are to be written now.
    pub fn settled(
        &mut self,
        outcome: Result<(), TransactionError>,
        now_ms: i64,
    ) -> Option<Completion> {
        let Some(Pending::Record { value, former }) = self.pending.take() else {
            return None;
        };
        if outcome.is_ok() {
            self.replay(&value);
            self.former = former;
            return self.resume(now_ms);
        }
        // The end is decided whether its last record can be written now or not.
        self.pending = match value.state {
            State::CompleteCommit | State::CompleteAbort => Some(Pending::Markers {
                since_ms: value.last_update_ms,
            }),
            State::Empty | State::Ongoing | State::PrepareCommit | State::PrepareAbort => None,
        };
        None
    }

    /// Takes up a transaction whose end is decided: the markers that are to be written.
    pub fn resume(&mut self, now_ms: i64) -> Option<Completion> {
        let outcome = match self.value.state {
            State::PrepareCommit => Outcome::Commit,
            State::PrepareAbort => Outcome::Abort,
            State::Empty | State::Ongoing | State::CompleteCommit | State::CompleteAbort => {
                return None;
            }
        };
        self.pending = Some(Pending::Markers { since_ms: now_ms });
        Some(Completion {
            producer_id: self.value.producer_id,
            producer_epoch: self.value.producer_epoch,
            outcome,
            partitions: self.value.partitions.clone(),
        })
    }

    // --- looking ---

    /// Whether partitions belong to the open transaction of a producer (KIP-890). One result for each.
    pub fn verify(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        self.check_producer(producer_id, producer_epoch)?;
        match self.value.state {
            State::PrepareCommit | State::PrepareAbort => {
                Err(TransactionError::ConcurrentTransactions)
            }
            State::Empty | State::Ongoing | State::CompleteCommit | State::CompleteAbort => {
                let known = &self.value.partitions;
                let results = partitions.iter().map(|one| {
                    if known.contains(one) {
                        Ok(())
                    } else {
                        Err(TransactionError::NotInTransaction)
                    }
                });
                Ok(results.collect())
            }
        }
    }

    pub fn describe(&self) -> TransactionDescription {
        let topics = self.value.topics().into_iter();
        TransactionDescription {
            state: self.value.state,
            producer_id: self.value.producer_id,
            producer_epoch: self.producer_epoch(),
            timeout_ms: self.value.timeout_ms,
            start_ms: self.value.start_ms,
            topics: topics
                .map(|(topic, partitions)| (TopicName::clone(topic), partitions))
                .collect(),
        }
    }
}
