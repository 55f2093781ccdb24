//! What a partition remembers of its idempotent and transactional producers (KIP-98; Kafka's
//! `ProducerStateManager`, `ProducerStateEntry` and `ProducerAppendInfo`).
//!
//! The log asks [`Producers::check`] before it appends a batch and tells [`Producers::apply`]
//! afterwards, both under its own lock. Loading a log replays stored batches the same way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::Offset;

mod snapshot;

pub use snapshot::{InvalidSnapshot, decode_snapshot, encode_snapshot};

/// How many batches of a producer are kept to recognize repeated ones.
const BATCHES_KEPT: usize = 5;
const NO_EPOCH: i16 = -1;
const NO_SEQUENCE: i32 = -1;

/// Why a producer may not append what it sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    #[error("producer {producer_id} sent sequence {sequence} after {last_sequence}")]
    OutOfOrderSequence {
        producer_id: i64,
        sequence: i32,
        last_sequence: i32,
    },
    #[error("producer {producer_id} has epoch {epoch}, but {current} is in use")]
    InvalidProducerEpoch {
        producer_id: i64,
        epoch: i16,
        current: i16,
    },
    #[error("producer {producer_id} sent a batch outside of its open transaction")]
    InvalidTxnState { producer_id: i64 },
    #[error("a marker of coordinator epoch {epoch} came after one of {current}")]
    TransactionCoordinatorFenced { epoch: i32, current: i32 },
}

/// Who appends: a client's batch must follow the last one, a leader's or stored one is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Client,
    /// A transaction coordinator's marker, or the coordinator's own record.
    Coordinator,
    /// Copied from a leader, or read from the log.
    Replication,
}

/// A batch as far as it concerns its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub content: BatchContent,
}

/// What a batch of a producer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchContent {
    Data {
        base_sequence: i32,
        last_sequence: i32,
        max_timestamp: i64,
        is_transactional: bool,
    },
    Marker(Marker),
    /// A control batch that compaction has emptied, or one that ends no transaction.
    Nothing,
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    pub is_abort: bool,
    pub coordinator_epoch: i32,
    pub timestamp: i64,
}

/// One of the last batches of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    pub last_sequence: i32,
    pub last_offset: Offset,
    pub offset_delta: i32,
    pub timestamp: i64,
}

impl StoredBatch {
    pub fn base_sequence(&self) -> i32 {
        sequence_before(self.last_sequence, self.offset_delta)
    }

    pub fn base_offset(&self) -> Offset {
        self.last_offset - Offset::from(self.offset_delta)
    }
}

/// The state of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
    /// Timestamp of its last batch or marker; producers silent for too long are forgotten.
    pub last_timestamp: i64,
    /// First offset of its open transaction.
    pub current_txn_first_offset: Option<Offset>,
    /// Oldest first, at most five.
    pub batches: VecDeque<StoredBatch>,
}

impl Default for ProducerEntry {
    fn default() -> Self {
        Self {
            producer_epoch: NO_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: -1,
            current_txn_first_offset: None,
            batches: VecDeque::new(),
        }
    }
}

impl ProducerEntry {
    pub fn last_sequence(&self) -> i32 {
        self.batches
            .back()
            .map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    /// Offset of its last record; -1 if no batch is known.
    pub fn last_offset(&self) -> Offset {
        self.batches.back().map_or(-1, |batch| batch.last_offset)
    }

    fn enter_epoch(&mut self, epoch: i16) {
        if self.producer_epoch != epoch {
            self.batches.clear();
            self.producer_epoch = epoch;
        }
    }

    fn add_batch(&mut self, batch: StoredBatch) {
        if self.batches.len() == BATCHES_KEPT {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
    }

    fn duplicate_of(&self, epoch: i16, base: i32, last: i32) -> Option<StoredBatch> {
        if epoch != self.producer_epoch {
            return None;
        }
        let same =
            |stored: &&StoredBatch| stored.base_sequence() == base && stored.last_sequence == last;
        self.batches.iter().find(same).copied()
    }
}

/// What [`Producers::check`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Acceptable,
    /// The batch is already in the log.
    Duplicate(StoredBatch),
}

/// A transaction that a marker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedTxn {
    pub producer_id: i64,
    pub first_offset: Offset,
    /// Offset of the marker.
    pub last_offset: Offset,
    pub is_aborted: bool,
    /// The last stable offset once the high watermark has passed the marker.
    pub last_stable_offset: Offset,
}

/// All producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    entries: BTreeMap<i64, ProducerEntry>,
    /// First offsets of open transactions, with their producers.
    ongoing: BTreeMap<Offset, i64>,
    /// First offset to marker offset of transactions that ended above the high watermark.
    unreplicated: BTreeMap<Offset, Offset>,
}

impl Producers {
    /// The state that a snapshot held, without producers that have expired by now.
    pub fn from_snapshot(
        entries: impl IntoIterator<Item = (i64, ProducerEntry)>,
        now_ms: i64,
        expiration_ms: i64,
    ) -> Self {
        let mut producers = Self::default();
        for (producer_id, entry) in entries {
            if has_expired(&entry, now_ms, expiration_ms) {
                continue;
            }
            if let Some(first_offset) = entry.current_txn_first_offset {
                producers.ongoing.insert(first_offset, producer_id);
            }
            producers.entries.insert(producer_id, entry);
        }
        producers
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The producers by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i64, &ProducerEntry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    pub fn get(&self, producer_id: i64) -> Option<&ProducerEntry> {
        self.entries.get(&producer_id)
    }

    /// Whether a batch of the producer that begins with this sequence is among the last ones.
    pub fn has_batch(&self, producer_id: i64, epoch: i16, base_sequence: i32) -> bool {
        let known = self.entries.get(&producer_id);
        let known = known.filter(|entry| entry.producer_epoch == epoch);
        known.is_some_and(|entry| {
            let mut batches = entry.batches.iter();
            batches.any(|batch| batch.base_sequence() == base_sequence)
        })
    }

    /// Whether the batch may be appended at its offsets.
    pub fn check(&self, batch: &ProducerBatch, origin: Origin) -> Result<Checked, ProducerError> {
        let fresh = ProducerEntry::default();
        let entry = self.entries.get(&batch.producer_id).unwrap_or(&fresh);
        match batch.content {
            BatchContent::Data {
                base_sequence,
                last_sequence,
                is_transactional,
                ..
            } => {
                if origin == Origin::Client
                    && let Some(stored) =
                        entry.duplicate_of(batch.producer_epoch, base_sequence, last_sequence)
                {
                    return Ok(Checked::Duplicate(stored));
                }
                check_epoch(entry, batch, origin)?;
                if origin == Origin::Client {
                    check_sequence(entry, batch, base_sequence)?;
                }
                if entry.current_txn_first_offset.is_some() && !is_transactional {
                    return Err(ProducerError::InvalidTxnState {
                        producer_id: batch.producer_id,
                    });
                }
            }
            BatchContent::Marker(marker) => {
                check_epoch(entry, batch, origin)?;
                if entry.coordinator_epoch > marker.coordinator_epoch
                    && origin != Origin::Replication
                {
                    return Err(ProducerError::TransactionCoordinatorFenced {
                        epoch: marker.coordinator_epoch,
                        current: entry.coordinator_epoch,
                    });
                }
            }
            BatchContent::Nothing => {}
        }
        Ok(Checked::Acceptable)
    }

    /// Takes note of a batch that is in the log. Returns the transaction that it ended, if any.
    pub fn apply(&mut self, batch: &ProducerBatch) -> Option<CompletedTxn> {
        match batch.content {
            BatchContent::Data {
                last_sequence,
                max_timestamp,
                is_transactional,
                ..
            } => {
                let entry = self.entries.entry(batch.producer_id).or_default();
                entry.enter_epoch(batch.producer_epoch);
                entry.add_batch(StoredBatch {
                    last_sequence,
                    last_offset: batch.last_offset,
                    offset_delta: (batch.last_offset - batch.base_offset) as i32,
                    timestamp: max_timestamp,
                });
                entry.last_timestamp = max_timestamp;
                if is_transactional && entry.current_txn_first_offset.is_none() {
                    entry.current_txn_first_offset = Some(batch.base_offset);
                    self.ongoing.insert(batch.base_offset, batch.producer_id);
                }
                None
            }
            BatchContent::Marker(marker) => {
                let entry = self.entries.entry(batch.producer_id).or_default();
                let first_offset = entry.current_txn_first_offset.take();
                entry.enter_epoch(batch.producer_epoch);
                entry.coordinator_epoch = marker.coordinator_epoch;
                entry.last_timestamp = marker.timestamp;
                first_offset.map(|first_offset| {
                    self.complete(
                        batch.producer_id,
                        first_offset,
                        batch.base_offset,
                        marker.is_abort,
                    )
                })
            }
            BatchContent::Nothing => None,
        }
    }

    fn complete(
        &mut self,
        producer_id: i64,
        first_offset: Offset,
        last_offset: Offset,
        is_aborted: bool,
    ) -> CompletedTxn {
        self.ongoing.remove(&first_offset);
        self.unreplicated.insert(first_offset, last_offset);
        let next_open = self.ongoing.keys().next().copied();
        CompletedTxn {
            producer_id,
            first_offset,
            last_offset,
            is_aborted,
            last_stable_offset: next_open.unwrap_or(last_offset + 1),
        }
    }

    /// First offset of the earliest transaction that is open or whose end is not yet below the high
    /// watermark.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let undecided = self.ongoing.keys().next();
        let unreplicated = self.unreplicated.keys().next();
        undecided.into_iter().chain(unreplicated).min().copied()
    }

    /// Whether ended transactions wait for the high watermark.
    pub fn awaits_high_watermark(&self) -> bool {
        !self.unreplicated.is_empty()
    }

    /// Forgets ended transactions whose markers are below the high watermark (or the log start).
    pub fn high_watermark_advanced(&mut self, high_watermark: Offset) {
        self.unreplicated
            .retain(|_, last_offset| *last_offset >= high_watermark);
    }

    /// Forgets producers without an open transaction that were silent for `expiration_ms`.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.entries
            .retain(|_, entry| !has_expired(entry, now_ms, expiration_ms));
    }

    /// When the producer of the earliest open transaction last wrote; milliseconds.
    pub fn earliest_transaction_ms(&self) -> Option<i64> {
        let (_, producer_id) = self.ongoing.first_key_value()?;
        self.entries
            .get(producer_id)
            .map(|entry| entry.last_timestamp)
    }

    /// Producers with an open transaction.
    pub fn producers_in_transaction(&self) -> BTreeSet<i64> {
        self.ongoing.values().copied().collect()
    }
}

fn has_expired(entry: &ProducerEntry, now_ms: i64, expiration_ms: i64) -> bool {
    entry.current_txn_first_offset.is_none()
        && now_ms.saturating_sub(entry.last_timestamp) >= expiration_ms
}

fn check_epoch(
    entry: &ProducerEntry,
    batch: &ProducerBatch,
    origin: Origin,
) -> Result<(), ProducerError> {
    if batch.producer_epoch < entry.producer_epoch && origin != Origin::Replication {
        return Err(ProducerError::InvalidProducerEpoch {
            producer_id: batch.producer_id,
            epoch: batch.producer_epoch,
            current: entry.producer_epoch,
        });
    }
    Ok(())
}

fn check_sequence(
    entry: &ProducerEntry,
    batch: &ProducerBatch,
    base_sequence: i32,
) -> Result<(), ProducerError> {
    // A producer that is not known may start anywhere: its state may have been deleted with its records.
    if entry.producer_epoch == NO_EPOCH {
        return Ok(());
    }
    let last_sequence = if batch.producer_epoch == entry.producer_epoch {
        entry.last_sequence()
    } else {
        NO_SEQUENCE
    };
    if follows(last_sequence, base_sequence) {
        return Ok(());
    }
    Err(ProducerError::OutOfOrderSequence {
        producer_id: batch.producer_id,
        sequence: base_sequence,
        last_sequence,
    })
}

/// Whether `sequence` comes right after `last_sequence`; sequences wrap to 0.
fn follows(last_sequence: i32, sequence: i32) -> bool {
    i64::from(sequence) == i64::from(last_sequence) + 1
        || (sequence == 0 && last_sequence == i32::MAX)
}

/// The sequence `decrement` before `sequence`, wrapping below 0 (`DefaultRecordBatch.decrementSequence`).
fn sequence_before(sequence: i32, decrement: i32) -> i32 {
    if sequence < decrement {
        i32::MAX
            .wrapping_sub(decrement.wrapping_sub(sequence))
            .wrapping_add(1)
    } else {
        sequence.wrapping_sub(decrement)
    }
}
