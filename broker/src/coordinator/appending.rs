//! Writing a coordinator's records and waiting until they are safe.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::config::TimestampKind;
use barnabas_core::fields::FieldError;
use barnabas_core::ids::{LeaderEpoch, Offset};
use barnabas_core::partition::verification::Admission;
use barnabas_core::records::validate::PreparedBatch;
use barnabas_core::records::{BatchBuilder, Compression};
use barnabas_core::time::Now;
use tokio::time::Instant;

use crate::log::{AppendError, AppendInfo};
use crate::replica::partition::PartitionAppendError;
use crate::replica::waiters::{WaitFor, Waiter};
use crate::replica::{Partition, PartitionError};

/// Key and value of a record.
pub type KeyValue = (Vec<u8>, Option<Vec<u8>>);

/// Why records of a coordinator are not in the log, or not safe.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Partition(#[from] PartitionError),
    #[error(transparent)]
    Append(AppendError),
    #[error("a batch of {size} bytes is larger than the topic allows")]
    TooLarge { size: usize },
    #[error("a record cannot be written: {0}")]
    Field(#[from] FieldError),
}

impl From<PartitionAppendError> for WriteError {
    fn from(error: PartitionAppendError) -> Self {
        match error {
            PartitionAppendError::Partition(error) => Self::Partition(error),
            PartitionAppendError::Append(error) => Self::Append(error),
        }
    }
}

/// What a batch says of its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// Groups, transactions and tombstones.
    Coordinator,
    /// Committed offsets: Kafka gives their batches the sequence 0, though nobody numbers them.
    Committer,
    /// Offsets committed within a transaction.
    Transaction {
        producer_id: i64,
        epoch: i16,
        admission: Admission,
    },
}

/// What is in the leader's log below an offset, whoever has written it, on its way to the replicas.
pub struct Replicating {
    partition: Arc<Partition>,
    next_offset: Offset,
    leader_epoch: LeaderEpoch,
}

impl Replicating {
    /// What was just appended.
    pub fn new(partition: Arc<Partition>, info: &AppendInfo) -> Self {
        Self {
            partition,
            next_offset: info.last_offset + 1,
            leader_epoch: info.leader_epoch,
        }
    }

    /// Everything below `next_offset`, as the leader of an epoch found it.
    pub fn everything(
        partition: Arc<Partition>,
        next_offset: Offset,
        leader_epoch: LeaderEpoch,
    ) -> Self {
        Self {
            partition,
            next_offset,
            leader_epoch,
        }
    }

    /// Whether the in-sync replicas have it; `None` if that is not known yet.
    pub fn settled(&self) -> Option<Result<(), PartitionError>> {
        self.partition
            .replicated(self.next_offset, self.leader_epoch)
    }

    /// Returns when the in-sync replicas have it, or it is known that they will not, or at the deadline.
    pub async fn settle(&self, deadline: Instant) -> Result<(), PartitionError> {
        let waiter = Waiter::new(0);
        let _waiting = self
            .partition
            .wait(WaitFor::Offset(self.next_offset), &waiter);
        let settled = async {
            loop {
                if let Some(result) = self.settled() {
                    return result;
                }
                waiter.woken().await;
            }
        };
        tokio::time::timeout_at(deadline, settled)
            .await
            .unwrap_or(Err(PartitionError::RequestTimedOut))
    }
}

/// Where records are in the log, and how many replicas have to have them.
pub struct Appended {
    pub first_offset: Offset,
    replicating: Replicating,
    waits_for_replicas: bool,
}

/// Appends `records` as one batch. With `required_acks` of -1 the in-sync replicas have to confirm. Who was `elected`
/// in an epoch, and lost that since, appends nothing, even if this broker leads again: another coordinator has written
/// what this one does not know.
pub fn append(
    partition: &Arc<Partition>,
    records: impl IntoIterator<Item = KeyValue>,
    author: Author,
    compression: Compression,
    required_acks: i16,
    elected: LeaderEpoch,
    now: Now,
) -> Result<Appended, WriteError> {
    let config = partition.config();
    let mut builder = BatchBuilder::new(compression);
    builder = match author {
        Author::Coordinator => builder,
        Author::Committer => builder.producer(-1, -1, 0),
        Author::Transaction {
            producer_id, epoch, ..
        } => builder.producer(producer_id, epoch, 0).transactional(),
    };
    if config.message_timestamp_type == TimestampKind::LogAppendTime {
        builder = builder.log_append_time(now.wall_clock_ms);
    }
    for (key, value) in records {
        builder.push(now.wall_clock_ms, Some(&key), value.as_deref(), &[]);
    }
    let bytes = builder.build();
    if bytes.len() > usize::try_from(config.max_message_bytes).unwrap_or(0) {
        return Err(WriteError::TooLarge { size: bytes.len() });
    }
    let batch = PreparedBatch::from_own(bytes).map_err(|error| {
        WriteError::Append(AppendError::Corrupt {
            reason: error.to_string(),
        })
    })?;
    let admission = match author {
        Author::Coordinator | Author::Committer => Admission::Unchecked,
        Author::Transaction { admission, .. } => admission,
    };
    let elected = Some(elected);
    let info = partition.append_from_coordinator(&batch, admission, required_acks, elected, now)?;
    Ok(Appended {
        first_offset: info.first_offset,
        replicating: Replicating::new(Arc::clone(partition), &info),
        waits_for_replicas: required_acks == -1,
    })
}

impl Appended {
    /// Whether the records are safe; `None` if that is not known yet.
    pub fn settled(&self) -> Option<Result<(), WriteError>> {
        if !self.waits_for_replicas {
            return Some(Ok(()));
        }
        let replicated = self.replicating.settled()?;
        Some(replicated.map_err(WriteError::Partition))
    }

    /// Returns when the records are safe, or it is known that they are not, or the time is over.
    pub async fn settle(&self, timeout: Duration) -> Result<(), WriteError> {
        if !self.waits_for_replicas {
            return Ok(());
        }
        let replicated = self.replicating.settle(Instant::now() + timeout).await;
        replicated.map_err(WriteError::Partition)
    }
}
