//! The ends of transactions, written to the partitions that this broker leads (KIP-98).
//!
//! A transaction coordinator asks for it over the wire or, if it is this broker's own, by calling
//! [`MarkerWriter::write`]. What a group committed within the transaction counts as soon as the marker in its
//! partition of `__consumer_offsets` is replicated, whether or not somebody still waits for the answer.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::config::TimestampKind;
use barnabas_core::ids::TopicPartition;
use barnabas_core::partition::producers::ProducerError;
use barnabas_core::partition::verification::Admission;
use barnabas_core::records::validate::PreparedBatch;
use barnabas_core::records::{EndTransactionMarker, end_transaction_marker};
use barnabas_core::time::Now;
use tokio::time::Instant;

use super::appending::Replicating;
use super::groups::TransactionEnd;
use super::{GroupCoordinator, OFFSETS_TOPIC};
use crate::config::LiveConfig;
use crate::log::AppendError;
use crate::replica::partition::PartitionAppendError;
use crate::replica::{PartitionError, ReplicaManager};
use crate::{clock, host};

/// The end of one transaction on some partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// Leader epoch of the partition of `__transaction_state` that decided.
    pub coordinator_epoch: i32,
    pub commit: bool,
    pub partitions: Vec<TopicPartition>,
}

/// What became of a [`Marker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkerOutcome {
    pub producer_id: i64,
    /// In the order of the marker's partitions.
    pub partitions: Vec<(TopicPartition, Result<(), MarkerError>)>,
}

/// Why a marker is not in a partition, or not known to be replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkerError {
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// The partition knows the producer with a later epoch.
    #[error("the partition knows the producer with a later epoch")]
    InvalidProducerEpoch,
    /// The partition has a marker of a later coordinator.
    #[error("the partition has a marker of a later coordinator")]
    CoordinatorFenced,
    /// The partition has messages of a format without transactions.
    #[error("the messages of the partition have no transactions")]
    UnsupportedForMessageFormat,
    #[error("the marker could not be appended")]
    Unexpected,
}

impl From<PartitionAppendError> for MarkerError {
    fn from(error: PartitionAppendError) -> Self {
        match error {
            PartitionAppendError::Partition(error) => Self::Partition(error),
            PartitionAppendError::Append(AppendError::Producer(error)) => match error {
                ProducerError::InvalidProducerEpoch { .. } => Self::InvalidProducerEpoch,
                ProducerError::TransactionCoordinatorFenced { .. } => Self::CoordinatorFenced,
                ProducerError::OutOfOrderSequence { .. }
                | ProducerError::InvalidTxnState { .. } => Self::Unexpected,
            },
            PartitionAppendError::Append(AppendError::Storage(_)) => {
                Self::Partition(PartitionError::StorageError)
            }
            PartitionAppendError::Append(
                AppendError::RecordListTooLarge { .. }
                | AppendError::UnexpectedOffset { .. }
                | AppendError::OffsetsNotAscending
                | AppendError::Corrupt { .. },
            ) => Self::Unexpected,
        }
    }
}

/// Writes markers to the partitions of this broker.
#[derive(Clone)]
pub struct MarkerWriter {
    replicas: Arc<ReplicaManager>,
    groups: Arc<GroupCoordinator>,
    config: Arc<LiveConfig>,
}

impl MarkerWriter {
    /// For the partitions in `replicas` and the offsets of `groups`.
    pub fn new(
        replicas: Arc<ReplicaManager>,
        groups: Arc<GroupCoordinator>,
        config: Arc<LiveConfig>,
    ) -> Self {
        Self {
            replicas,
            groups,
            config,
        }
    }

    /// Appends the markers to all their partitions, then returns when they are replicated, or `request.timeout.ms`
    /// have passed. One outcome for each marker.
    pub async fn write(&self, markers: Vec<Marker>) -> Vec<MarkerOutcome> {
        let patience = self.config.broker().request_timeout_ms.max(0) as u64;
        let deadline = Instant::now() + Duration::from_millis(patience);
        let now = clock::now();
        let appended: Vec<(Marker, Vec<_>)> = markers
            .into_iter()
            .map(|marker| {
                let appended = marker
                    .partitions
                    .iter()
                    .map(|of| self.append(&marker, of, deadline, now));
                let appended = appended.collect();
                (marker, appended)
            })
            .collect();
        let mut outcomes = Vec::with_capacity(appended.len());
        for (marker, appended) in appended {
            let mut partitions = Vec::with_capacity(appended.len());
            for (partition, appended) in marker.partitions.into_iter().zip(appended) {
                let result = match appended {
                    Ok(pending) => pending.settle(deadline).await,
                    Err(error) => Err(error),
                };
                partitions.push((partition, result));
            }
            outcomes.push(MarkerOutcome {
                producer_id: marker.producer_id,
                partitions,
            });
        }
        outcomes
    }

    fn append(
        &self,
        marker: &Marker,
        of: &TopicPartition,
        deadline: Instant,
        now: Now,
    ) -> Result<Pending, MarkerError> {
        let partition = match self.replicas.partition(&of.topic, of.partition) {
            Ok(partition) => partition,
            // Kafka's look at the format of its messages finds no log.
            Err(PartitionError::NotLeaderOrFollower | PartitionError::StorageError) => {
                return Err(PartitionError::UnknownTopicOrPartition.into());
            }
            Err(error) => return Err(error.into()),
        };
        let is_log_append_time =
            partition.config().message_timestamp_type == TimestampKind::LogAppendTime;
        let batch = end_transaction_marker(&EndTransactionMarker {
            producer_id: marker.producer_id,
            producer_epoch: marker.producer_epoch,
            commit: marker.commit,
            coordinator_epoch: marker.coordinator_epoch,
            timestamp_ms: now.wall_clock_ms,
            is_log_append_time,
            leader_epoch: -1,
        });
        let batch = PreparedBatch::from_own(batch).map_err(|_| MarkerError::Unexpected)?;
        let info = partition
            .append_from_coordinator(&batch, Admission::Unchecked, -1, None, now)
            .inspect_err(|error| {
                tracing::warn!(partition = %of, producer_id = marker.producer_id, %error, "a marker was not written");
            })?;
        let replicating = Replicating::new(partition, &info);
        let completion = (&*of.topic == OFFSETS_TOPIC).then(|| {
            let (groups, number) = (Arc::clone(&self.groups), of.partition);
            let end = TransactionEnd {
                producer_id: marker.producer_id,
                is_committed: marker.commit,
                marker_offset: info.last_offset,
            };
            move || groups.transaction_ended(number, end)
        });
        if let Some(settled) = replicating.settled() {
            if let (Ok(()), Some(complete)) = (settled, completion) {
                complete();
            }
            return settled.map(|()| Pending::Nothing).map_err(Into::into);
        }
        let Some(complete) = completion else {
            return Ok(Pending::Marker(replicating));
        };
        // Completed by a task of its own: the marker stands in the log, whoever hangs up.
        Ok(Pending::Offsets(host::spawn(async move {
            let settled = replicating.settle(deadline).await;
            if settled.is_ok() {
                complete();
            }
            settled.map_err(Into::into)
        })))
    }
}

/// What a marker still waits for.
enum Pending {
    Nothing,
    Marker(Replicating),
    Offsets(tokio::task::JoinHandle<Result<(), MarkerError>>),
}

impl Pending {
    async fn settle(self, deadline: Instant) -> Result<(), MarkerError> {
        match self {
            Self::Nothing => Ok(()),
            Self::Marker(replicating) => Ok(replicating.settle(deadline).await?),
            Self::Offsets(task) => task
                .await
                .unwrap_or(Err(PartitionError::NotLeaderOrFollower.into())),
        }
    }
}
