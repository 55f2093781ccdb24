//! Appending the batches of a request, and waiting until they are replicated.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::{LeaderEpoch, Offset, is_internal_topic};
use barnabas_core::partition::verification::Admission;
use barnabas_core::records::validate::{self, ProduceRejection, ProduceRules, RequestFormat};
use barnabas_core::time::Now;
use bytes::Bytes;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::PartitionProduceData;

use super::{ADMIN_CLIENT_ID, Admissions, ProduceError};
use crate::api::Context;
use crate::api::traffic::{self, Form};
use crate::clock;
use crate::log::{AppendError, AppendInfo};
use crate::replica::PartitionError;
use crate::replica::partition::Partition;
use crate::replica::waiters::{WaitFor, Waiter};

/// What became of one partition's records.
pub(super) struct Outcome {
    pub(super) result: Result<Written, ProduceError>,
    /// -1 if unknown, or if the error is of those that do not tell it.
    pub(super) log_start_offset: Offset,
}

/// Records that are in the log, or none that could have been.
pub(super) struct Written {
    /// `None` if there was no whole batch, which versions 0 to 2 allow.
    pub(super) info: Option<AppendInfo>,
    durability: Durability,
}

/// Whether the records are as durable as the request asks for.
pub(super) enum Durability {
    Reached,
    /// Not before the high watermark of the partition is there.
    Awaits(Arc<Partition>, Offset, LeaderEpoch),
    /// It was not reached; the records stay in the log.
    Failed(PartitionError),
}

impl Outcome {
    fn awaited(&self) -> Option<(&Arc<Partition>, Offset, LeaderEpoch)> {
        match &self.result {
            Ok(Written {
                durability: Durability::Awaits(partition, offset, epoch),
                ..
            }) => Some((partition, *offset, *epoch)),
            Ok(_) | Err(_) => None,
        }
    }

    fn finish(&mut self, replicated: Result<(), PartitionError>) {
        if let Ok(Written { durability, .. }) = &mut self.result
            && matches!(durability, Durability::Awaits(..))
        {
            *durability = match replicated {
                Ok(()) => Durability::Reached,
                Err(error) => Durability::Failed(error),
            };
        }
    }

    pub(super) fn error(&self) -> Option<ProduceError> {
        match &self.result {
            Ok(Written {
                durability: Durability::Failed(error),
                ..
            }) => Some(ProduceError::Partition(*error)),
            Ok(_) => None,
            Err(error) => Some(error.clone()),
        }
    }
}

pub(super) fn append_all(
    request: &ProduceRequest,
    admissions: &Admissions,
    context: &Context<'_>,
) -> Vec<Outcome> {
    let now = clock::now();
    let count = request
        .topic_data
        .iter()
        .map(|topic| topic.partition_data.len())
        .sum();
    let mut outcomes = Vec::with_capacity(count);
    for (topic_index, topic) in request.topic_data.iter().enumerate() {
        for (index, data) in topic.partition_data.iter().enumerate() {
            let admission = admissions.get(&(topic_index, index));
            let admission = admission.copied().unwrap_or(Ok(Admission::Unchecked));
            outcomes.push(match admission {
                Ok(admission) => append_one(request, &topic.name, data, admission, context, now),
                Err(error) => Outcome {
                    result: Err(ProduceError::NotAdmitted(error)),
                    log_start_offset: -1,
                },
            });
        }
    }
    outcomes
}

fn append_one(
    request: &ProduceRequest,
    topic: &str,
    data: &PartitionProduceData,
    admission: Admission,
    context: &Context<'_>,
    now: Now,
) -> Outcome {
    let records = data.records.clone().unwrap_or_default();
    let partition = match writable(request, topic, data.index, &records, context) {
        Ok(partition) => partition,
        Err(error) => {
            return Outcome {
                result: Err(error),
                log_start_offset: -1,
            };
        }
    };
    partition.metrics.total_produce_requests.increment();
    let result = append_records(
        &partition,
        request,
        records,
        admission,
        context.version,
        now,
    );
    let log_start_offset = match &result {
        Ok(Written {
            info: Some(info), ..
        }) => info.log_start_offset,
        Ok(_) => partition.log().map_or(-1, |log| log.log_start_offset()),
        Err(error) => {
            traffic::rejected(&partition.metrics, error);
            if tells_log_start_offset(error) {
                partition.metrics.failed_produce_requests.increment();
                partition.log().map_or(-1, |log| log.log_start_offset())
            } else {
                -1
            }
        }
    };
    Outcome {
        result,
        log_start_offset,
    }
}

/// The partition, if this request may write to it at all.
pub(super) fn writable(
    request: &ProduceRequest,
    topic: &str,
    partition: i32,
    records: &Bytes,
    context: &Context<'_>,
) -> Result<Arc<Partition>, ProduceError> {
    let found = context.broker.replicas.partition(topic, partition);
    if let Err(error @ PartitionError::UnknownTopicOrPartition) = found {
        return Err(ProduceError::Partition(error));
    }
    validate::check_batches(records, RequestFormat::of_version(context.version))
        .map_err(ProduceError::Rejected)?;
    if !matches!(request.acks, -1..=1) {
        return Err(ProduceError::InvalidRequiredAcks);
    }
    if is_internal_topic(topic) && context.client_id != Some(ADMIN_CLIENT_ID) {
        return Err(ProduceError::InternalTopic);
    }
    found.map_err(ProduceError::Partition)
}

fn append_records(
    partition: &Arc<Partition>,
    request: &ProduceRequest,
    records: Bytes,
    admission: Admission,
    version: i16,
    now: Now,
) -> Result<Written, ProduceError> {
    partition
        .check_writable(request.acks)
        .map_err(ProduceError::Partition)?;
    let rules = ProduceRules::for_topic(
        &partition.config(),
        partition.topic_partition.clone(),
        RequestFormat::of_version(version),
        request.transactional_id.is_some(),
    );
    let form = Form::of(&records);
    let prepared =
        validate::prepare(records, &rules, now.wall_clock_ms).map_err(ProduceError::Rejected)?;
    let Some(batch) = prepared else {
        return Ok(Written {
            info: None,
            durability: Durability::Reached,
        });
    };
    let info = partition.append(&batch, admission, request.acks, now)?;
    traffic::appended(&partition.metrics, form, &batch);
    let durability = if request.acks == -1 {
        Durability::Awaits(
            Arc::clone(partition),
            info.last_offset + 1,
            info.leader_epoch,
        )
    } else {
        Durability::Reached
    };
    Ok(Written {
        info: Some(info),
        durability,
    })
}

/// Waits until every written partition is replicated; what is not in time gets an error.
pub(super) async fn wait_until_replicated(outcomes: &mut [Outcome], timeout: Duration) {
    settle(outcomes);
    if outcomes.iter().all(|outcome| outcome.awaited().is_none()) {
        return;
    }
    let waiter = Waiter::new(0);
    let registrations: Vec<_> = outcomes
        .iter()
        .filter_map(Outcome::awaited)
        .map(|(partition, offset, _)| partition.wait(WaitFor::Offset(offset), &waiter))
        .collect();
    let replicated = async {
        loop {
            settle(outcomes);
            if outcomes.iter().all(|outcome| outcome.awaited().is_none()) {
                return;
            }
            waiter.woken().await;
        }
    };
    if tokio::time::timeout(timeout, replicated).await.is_err() {
        for outcome in outcomes.iter_mut() {
            outcome.finish(Err(PartitionError::RequestTimedOut));
        }
    }
    drop(registrations);
}

/// Takes note of what is replicated by now.
fn settle(outcomes: &mut [Outcome]) {
    for outcome in outcomes {
        let replicated = outcome
            .awaited()
            .and_then(|(partition, offset, epoch)| partition.replicated(offset, epoch));
        if let Some(replicated) = replicated {
            outcome.finish(replicated);
        }
    }
}

/// Whether the answer to a failed append tells the log start offset: not for those errors that Kafka
/// expects (`ReplicaManager.appendToLocalLog`).
fn tells_log_start_offset(error: &ProduceError) -> bool {
    match error {
        ProduceError::Partition(error) => match error {
            PartitionError::UnknownTopicOrPartition
            | PartitionError::NotLeaderOrFollower
            | PartitionError::StorageError => false,
            PartitionError::UnknownTopicId
            | PartitionError::FencedLeaderEpoch
            | PartitionError::UnknownLeaderEpoch
            | PartitionError::InconsistentTopicId
            | PartitionError::OffsetOutOfRange
            | PartitionError::NotEnoughReplicas
            | PartitionError::NotEnoughReplicasAfterAppend
            | PartitionError::RequestTimedOut => true,
        },
        ProduceError::InvalidRequiredAcks
        | ProduceError::InternalTopic
        | ProduceError::SeveralProducers
        | ProduceError::NotAdmitted(_) => false,
        ProduceError::Rejected(rejection) => match rejection {
            ProduceRejection::MessageTooLarge { .. }
            | ProduceRejection::Corrupt(_)
            | ProduceRejection::CorruptWholeRequest(_) => false,
            ProduceRejection::InvalidRecord { .. }
            | ProduceRejection::InvalidTimestamp { .. }
            | ProduceRejection::UnsupportedCompression
            | ProduceRejection::TransactionalIdMissing
            | ProduceRejection::Unexpected(_)
            | ProduceRejection::UnexpectedWholeRequest(_) => true,
        },
        ProduceError::Append(error) => match error {
            AppendError::RecordListTooLarge { .. }
            | AppendError::Corrupt { .. }
            | AppendError::Storage(_) => false,
            AppendError::Producer(_)
            | AppendError::UnexpectedOffset { .. }
            | AppendError::OffsetsNotAscending => true,
        },
    }
}
