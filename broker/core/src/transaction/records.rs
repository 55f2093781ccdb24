//! The records of `__transaction_state`, byte for byte (schemas `TransactionLogKey`, `TransactionLogValue`).
//!
//! Version 0 is written, as Kafka 3.9 does without `KRaft`; the flexible version 1 is only read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{TransactionalId, order};
use crate::fields::{FieldError, Reader, Writer};
use crate::ids::{TopicName, TopicPartition};

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionRecordError {
    #[error("the record has no key")]
    NoKey,
    #[error("the version {0} of the value is not known")]
    UnknownValueVersion(i16),
    #[error("the state {0} is not known")]
    UnknownState(i8),
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Where a transactional id stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The producer has an identity and has not begun a transaction with it.
    Empty,
    /// Partitions belong to an open transaction.
    Ongoing,
    /// It is decided that the transaction is committed; markers are being written.
    PrepareCommit,
    /// It is decided that the transaction is aborted; markers are being written.
    PrepareAbort,
    /// All partitions have their markers.
    CompleteCommit,
    /// All partitions have their markers.
    CompleteAbort,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// States that Kafka knows and never writes.
    const UNWRITTEN: [&'static str; 2] = ["Dead", "PrepareEpochFence"];

    /// The name that administrators see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Whether a state has this name, be it one that no transactional id is ever seen in.
    pub fn is_name(name: &str) -> bool {
        Self::ALL.iter().any(|state| state.name() == name) || Self::UNWRITTEN.contains(&name)
    }

    fn id(self) -> i8 {
        match self {
            Self::Empty => 0,
            Self::Ongoing => 1,
            Self::PrepareCommit => 2,
            Self::PrepareAbort => 3,
            Self::CompleteCommit => 4,
            Self::CompleteAbort => 5,
        }
    }

    fn from_id(id: i8) -> Result<Self, TransactionRecordError> {
        let state = Self::ALL.into_iter().find(|state| state.id() == id);
        state.ok_or(TransactionRecordError::UnknownState(id))
    }

    /// Whether a transactional id may come into this state from `previous`.
    pub fn may_follow(self, previous: Self) -> bool {
        match self {
            Self::Empty => matches!(
                previous,
                Self::Empty | Self::CompleteCommit | Self::CompleteAbort
            ),
            Self::Ongoing => matches!(
                previous,
                Self::Ongoing | Self::Empty | Self::CompleteCommit | Self::CompleteAbort
            ),
            Self::PrepareCommit | Self::PrepareAbort => previous == Self::Ongoing,
            Self::CompleteCommit => previous == Self::PrepareCommit,
            Self::CompleteAbort => previous == Self::PrepareAbort,
        }
    }
}

/// What is kept of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionValue {
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// How long a transaction may stay open, in milliseconds.
    pub timeout_ms: i32,
    pub state: State,
    /// What belongs to the transaction.
    pub partitions: BTreeSet<TopicPartition>,
    /// Milliseconds since the epoch.
    pub last_update_ms: i64,
    /// When the transaction began, in milliseconds since the epoch; -1 before the first.
    pub start_ms: i64,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionRecord {
    Transaction {
        id: TransactionalId,
        /// `None` forgets the transactional id.
        value: Option<TransactionValue>,
    },
    /// A kind of record that only later versions of Kafka write. It is passed over.
    Unknown { key_version: i16 },
}

impl TransactionRecord {
    /// Reads key and value of a record.
    pub fn decode(
        key: Option<&Bytes>,
        value: Option<&Bytes>,
    ) -> Result<Self, TransactionRecordError> {
        let mut key = Reader::new(key.ok_or(TransactionRecordError::NoKey)?);
        match key.i16()? {
            0 => Ok(Self::Transaction {
                id: key.string()?.into(),
                value: value.map(TransactionValue::decode).transpose()?,
            }),
            key_version => Ok(Self::Unknown { key_version }),
        }
    }
}

/// The key of a transactional id; an error if it has more than 32,767 bytes.
pub fn transaction_key(id: &str) -> Result<Vec<u8>, FieldError> {
    let mut out = Writer::with_capacity(4 + id.len());
    out.i16(0);
    out.string(id);
    out.finish()
}

impl TransactionValue {
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut out = Writer::with_capacity(64 + 24 * self.partitions.len());
        out.i16(0);
        out.i64(self.producer_id);
        out.i16(self.producer_epoch);
        out.i32(self.timeout_ms);
        out.i8(self.state.id());
        if self.state == State::Empty {
            out.i32(-1);
        } else {
            let topics = order::as_written(&self.partitions, self.state);
            out.i32(topics.len() as i32);
            for (topic, partitions) in topics {
                out.string(topic);
                out.i32(partitions.len() as i32);
                for partition in partitions {
                    out.i32(partition);
                }
            }
        }
        out.i64(self.last_update_ms);
        out.i64(self.start_ms);
        out.finish()
    }

    pub fn decode(value: &Bytes) -> Result<Self, TransactionRecordError> {
        let mut value = Reader::new(value);
        let version = value.i16()?;
        match version {
            0 => {}
            1 => value.flexible(),
            unknown => return Err(TransactionRecordError::UnknownValueVersion(unknown)),
        }
        let producer_id = value.i64()?;
        let producer_epoch = value.i16()?;
        let timeout_ms = value.i32()?;
        let state = State::from_id(value.i8()?)?;
        let mut partitions = BTreeSet::new();
        for _ in 0..value.nullable_count()?.unwrap_or(0) {
            let topic = TopicName::from(value.string()?);
            for _ in 0..value.count()? {
                partitions.insert(TopicPartition {
                    topic: TopicName::clone(&topic),
                    partition: value.i32()?,
                });
            }
            value.skip_tagged_fields()?;
        }
        let last_update_ms = value.i64()?;
        let start_ms = value.i64()?;
        value.skip_tagged_fields()?;
        Ok(Self {
            producer_id,
            producer_epoch,
            timeout_ms,
            state,
            partitions,
            last_update_ms,
            start_ms,
        })
    }

    /// The partitions by topic.
    pub fn topics(&self) -> BTreeMap<&TopicName, Vec<i32>> {
        let mut topics: BTreeMap<&TopicName, Vec<i32>> = BTreeMap::new();
        for partition in &self.partitions {
            let numbers = topics.entry(&partition.topic).or_default();
            numbers.push(partition.partition);
        }
        topics
    }
}
