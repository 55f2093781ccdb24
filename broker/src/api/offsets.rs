//! Questions about offsets, and the deletion of records: `ListOffsets` (key 2), `OffsetForLeaderEpoch`
//! (key 23), `DeleteRecords` (key 21), `DescribeProducers` (key 61).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::{InvalidTopicName, Offset, check_topic_name, is_internal_topic};
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, DescribeProducersRequest,
    DescribeProducersResponse, ListOffsetsRequest, ListOffsetsResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::error_code::{NONE, ToErrorCode, code_of};
use super::{Context, RequestError, repeated};
use crate::clock;
use crate::log::{LogError, OffsetLookup};
use crate::replica::PartitionError;
use crate::replica::partition::{Partition, ReadFrom};
use crate::replica::waiters::{WaitFor, Waiter};

/// Special timestamps of `ListOffsets`.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// KIP-734.
const MAX_TIMESTAMP: i64 = -3;
/// KIP-405, without tiered storage the same as the earliest.
const EARLIEST_LOCAL: i64 = -4;
/// KIP-1005, without tiered storage unknown.
const LATEST_TIERED: i64 = -5;

/// Replica ids of those who are no followers.
const CONSUMER: i32 = -1;
const DEBUGGING_CONSUMER: i32 = -2;

/// Why an offset cannot be told.
#[derive(Clone, Debug)]
pub enum ListOffsetsError {
    Partition(PartitionError),
    Log(LogError),
    /// The version does not have the special timestamp.
    UnsupportedTimestamp,
    DuplicatePartition,
    /// Fewer offsets than none are asked for.
    NegativeCount,
    /// A new leader does not yet know what is committed.
    OffsetNotAvailable,
    /// The same for clients before version 5.
    LeaderNotAvailable,
}

impl From<PartitionError> for ListOffsetsError {
    fn from(error: PartitionError) -> Self {
        Self::Partition(error)
    }
}

impl From<LogError> for ListOffsetsError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// `ListOffsets` (v0–9): offset by timestamp; -1 latest, -2 earliest, -3 max timestamp (v7), -4 earliest
/// local (v8), -5 latest tiered (v9).
pub async fn list_offsets(
    request: ListOffsetsRequest,
    context: &Context<'_>,
) -> ListOffsetsResponse {
    let mut seen = BTreeSet::new();
    let mut duplicates = BTreeSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if !seen.insert((topic.name.clone(), partition.partition_index)) {
                duplicates.insert((topic.name.clone(), partition.partition_index));
            }
        }
    }
    let query = OffsetQuery {
        version: context.version,
        replica_id: request.replica_id.0,
        isolation_level: request.isolation_level,
    };
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let partition = context
                .broker
                .replicas
                .partition(&topic.name, wanted.partition_index);
            if context.version == 0 {
                return query.legacy(wanted, partition);
            }
            let is_duplicate = duplicates.contains(&(topic.name.clone(), wanted.partition_index));
            query.answer(wanted, partition, is_duplicate)
        });
        ListOffsetsTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn no_offset(wanted: &ListOffsetsPartition, error_code: i16) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(wanted.partition_index)
        .with_error_code(error_code)
}

/// Who asks for offsets, and in which version.
struct OffsetQuery {
    version: i16,
    replica_id: i32,
    isolation_level: i8,
}

impl OffsetQuery {
    fn from(&self) -> ReadFrom {
        if self.replica_id == DEBUGGING_CONSUMER {
            ReadFrom::AnyReplica
        } else {
            ReadFrom::Leader
        }
    }

    fn is_consumer(&self) -> bool {
        self.replica_id == CONSUMER
    }

    /// The isolation level of others than consumers is not looked at.
    fn is_isolation_unknown(&self) -> bool {
        self.is_consumer() && !matches!(self.isolation_level, 0 | 1)
    }

    /// Whether the version has the special timestamp; all others are times.
    fn knows(&self, timestamp: i64) -> bool {
        match timestamp {
            0.. | LATEST | EARLIEST => true,
            MAX_TIMESTAMP => self.version >= 7,
            EARLIEST_LOCAL => self.version >= 8,
            LATEST_TIERED => self.version >= 9,
            _ => false,
        }
    }

    /// Version 0: offsets at which segments begin, newest first.
    fn legacy(
        &self,
        wanted: &ListOffsetsPartition,
        partition: Result<Arc<Partition>, PartitionError>,
    ) -> ListOffsetsPartitionResponse {
        match self.legacy_offsets(wanted, partition) {
            Ok(offsets) => no_offset(wanted, NONE).with_old_style_offsets(offsets),
            Err(error) => no_offset(wanted, error.error_code()),
        }
    }

    fn legacy_offsets(
        &self,
        wanted: &ListOffsetsPartition,
        partition: Result<Arc<Partition>, PartitionError>,
    ) -> Result<Vec<Offset>, ListOffsetsError> {
        if !self.knows(wanted.timestamp) {
            return Err(ListOffsetsError::UnsupportedTimestamp);
        }
        let partition = partition?;
        let (log, _) = partition.log_for(wanted.current_leader_epoch, self.from())?;
        let most =
            usize::try_from(wanted.max_num_offsets).map_err(|_| ListOffsetsError::NegativeCount)?;
        let now_ms = clock::wall_clock_ms();
        let mut offsets = log.legacy_offsets_before(wanted.timestamp, most, now_ms)?;
        let high_watermark = partition.high_watermark();
        if self.is_consumer() && offsets.iter().any(|offset| *offset > high_watermark) {
            offsets.retain(|offset| *offset <= high_watermark);
            offsets.insert(0, high_watermark);
        }
        Ok(offsets)
    }

    fn answer(
        &self,
        wanted: &ListOffsetsPartition,
        partition: Result<Arc<Partition>, PartitionError>,
        is_duplicate: bool,
    ) -> ListOffsetsPartitionResponse {
        let found = if is_duplicate {
            Err(ListOffsetsError::DuplicatePartition)
        } else if self.knows(wanted.timestamp) && self.is_isolation_unknown() {
            return no_offset(wanted, RequestError::Unexpected.error_code());
        } else if self.knows(wanted.timestamp) {
            partition
                .map_err(ListOffsetsError::from)
                .and_then(|partition| self.offset(wanted, &partition))
        } else {
            Err(ListOffsetsError::UnsupportedTimestamp)
        };
        match found {
            Ok(Some(found)) => {
                let mut response = no_offset(wanted, NONE)
                    .with_timestamp(found.timestamp)
                    .with_offset(found.offset);
                if let (Some(epoch), 4..) = (found.leader_epoch, self.version) {
                    response.leader_epoch = epoch;
                }
                response
            }
            Ok(None) => no_offset(wanted, NONE),
            Err(error) => no_offset(wanted, error.error_code()),
        }
    }

    fn offset(
        &self,
        wanted: &ListOffsetsPartition,
        partition: &Partition,
    ) -> Result<Option<OffsetLookup>, ListOffsetsError> {
        let (log, leader_epoch) = partition.log_for(wanted.current_leader_epoch, self.from())?;
        let bound = match (self.is_consumer(), self.isolation_level) {
            (true, 1) => partition.last_stable_offset(&log),
            (true, _) => partition.high_watermark(),
            (false, _) => log.log_end_offset(),
        };
        let found = match wanted.timestamp {
            LATEST => {
                self.check_available(partition)?;
                return Ok(Some(OffsetLookup {
                    offset: bound,
                    timestamp: -1,
                    leader_epoch: Some(leader_epoch),
                }));
            }
            EARLIEST | EARLIEST_LOCAL => {
                let log_start_offset = log.log_start_offset();
                let earliest = log
                    .earliest_epoch()
                    .filter(|entry| entry.start_offset <= log_start_offset);
                return Ok(Some(OffsetLookup {
                    offset: log_start_offset,
                    timestamp: -1,
                    leader_epoch: earliest.map(|entry| entry.epoch),
                }));
            }
            LATEST_TIERED => None,
            MAX_TIMESTAMP => log.max_timestamp_offset()?,
            timestamp => log.offset_for_timestamp(timestamp)?,
        };
        let found = found.filter(|found| found.offset < bound);
        if found.is_none() && wanted.timestamp != LATEST_TIERED {
            self.check_available(partition)?;
        }
        Ok(found)
    }

    /// A new leader whose high watermark lags behind the start of its epoch would answer with
    /// offsets that go back (KIP-207).
    fn check_available(&self, partition: &Partition) -> Result<(), ListOffsetsError> {
        let lags = partition
            .epoch_start_offset()
            .is_ok_and(|start| start > partition.high_watermark());
        if !self.is_consumer() || !lags {
            Ok(())
        } else if self.version >= 5 {
            Err(ListOffsetsError::OffsetNotAvailable)
        } else {
            Err(ListOffsetsError::LeaderNotAvailable)
        }
    }
}

/// `OffsetForLeaderEpoch` (v0–4): where a leader epoch ends, so that a client sees whether its log parted
/// from ours (KIP-101, KIP-320).
pub async fn offset_for_leader_epoch(
    request: OffsetForLeaderEpochRequest,
    context: &Context<'_>,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let end = context
                .broker
                .replicas
                .partition(&topic.topic, wanted.partition)
                .and_then(|partition| partition.led_log(wanted.current_leader_epoch))
                .map(|(log, _)| log.end_offset_for_epoch(wanted.leader_epoch));
            let response = EpochEndOffset::default()
                .with_partition(wanted.partition)
                .with_error_code(code_of(&end));
            match end {
                Ok(Some((epoch, end_offset))) => response
                    .with_leader_epoch(epoch)
                    .with_end_offset(end_offset),
                Ok(None) | Err(_) => response,
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic.clone())
            .with_partitions(partitions.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// Why records were not deleted.
#[derive(Clone, Copy, Debug)]
pub enum DeleteRecordsError {
    Partition(PartitionError),
    InternalTopic,
    /// The topic's `cleanup.policy` does not contain delete.
    Policy,
}

/// A deletion that has happened here and may not yet have on all replicas.
struct Deletion {
    partition: Arc<Partition>,
    offset: Offset,
}

/// `DeleteRecords` (v0–2): drops the records below an offset, -1 for all that are committed, and waits
/// until all live replicas have done so.
pub async fn delete_records(
    mut request: DeleteRecordsRequest,
    context: &Context<'_>,
) -> DeleteRecordsResponse {
    repeated::merge(
        &mut request.topics,
        |topic| &topic.name,
        |topic| &mut topic.partitions,
        |partition| partition.partition_index,
    );
    let mut deletions: Vec<Vec<Result<Deletion, DeleteRecordsError>>> = request
        .topics
        .iter()
        .map(|topic| {
            let delete = |wanted: &_| delete_from(&topic.name, wanted, context);
            topic.partitions.iter().map(delete).collect()
        })
        .collect();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    wait_until_deleted(&mut deletions, timeout).await;
    let topics = request
        .topics
        .iter()
        .zip(deletions)
        .map(|(topic, deleted)| {
            let partitions = topic
                .partitions
                .iter()
                .zip(deleted)
                .map(|(wanted, deleted)| {
                    let low_watermark = deleted.and_then(|deletion| {
                        deletion
                            .partition
                            .low_watermark()
                            .map_err(DeleteRecordsError::Partition)
                    });
                    DeleteRecordsPartitionResult::default()
                        .with_partition_index(wanted.partition_index)
                        .with_error_code(code_of(&low_watermark))
                        .with_low_watermark(low_watermark.unwrap_or(-1))
                });
            DeleteRecordsTopicResult::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn delete_from(
    topic: &str,
    wanted: &kafka_protocol::messages::delete_records_request::DeleteRecordsPartition,
    context: &Context<'_>,
) -> Result<Deletion, DeleteRecordsError> {
    let found = context
        .broker
        .replicas
        .partition(topic, wanted.partition_index);
    if let Err(error @ PartitionError::UnknownTopicOrPartition) = found {
        return Err(DeleteRecordsError::Partition(error));
    }
    if is_internal_topic(topic) {
        return Err(DeleteRecordsError::InternalTopic);
    }
    let partition = found.map_err(DeleteRecordsError::Partition)?;
    partition
        .led_log(-1)
        .map_err(DeleteRecordsError::Partition)?;
    if !partition.config().cleanup_policy.delete {
        return Err(DeleteRecordsError::Policy);
    }
    let offset = partition
        .delete_records(wanted.offset)
        .map_err(DeleteRecordsError::Partition)?;
    Ok(Deletion { partition, offset })
}

async fn wait_until_deleted(
    deletions: &mut [Vec<Result<Deletion, DeleteRecordsError>>],
    timeout: Duration,
) {
    let is_done = |deletion: &Deletion| {
        deletion
            .partition
            .low_watermark()
            .map_or(true, |low_watermark| low_watermark >= deletion.offset)
    };
    let pending = |deletions: &[Vec<Result<Deletion, DeleteRecordsError>>]| {
        deletions
            .iter()
            .flatten()
            .flatten()
            .any(|deletion| !is_done(deletion))
    };
    if !pending(deletions) {
        return;
    }
    let waiter = Waiter::new(0);
    let registrations: Vec<_> = deletions
        .iter()
        .flatten()
        .flatten()
        .map(|deletion| deletion.partition.wait(WaitFor::LowWatermark, &waiter))
        .collect();
    let deleted = async {
        while pending(deletions) {
            waiter.woken().await;
        }
    };
    if tokio::time::timeout(timeout, deleted).await.is_err() {
        for deletion in deletions.iter_mut().flatten() {
            if deletion.as_ref().is_ok_and(|deletion| !is_done(deletion)) {
                *deletion = Err(DeleteRecordsError::Partition(
                    PartitionError::RequestTimedOut,
                ));
            }
        }
    }
    drop(registrations);
}

/// Why the producers of a partition are not told.
#[derive(Clone, Debug)]
pub enum DescribeProducersError {
    InvalidTopic(InvalidTopicName),
    Partition(PartitionError),
}

/// `DescribeProducers` (v0, KIP-664): who writes to a partition, and open transactions.
pub async fn describe_producers(
    request: DescribeProducersRequest,
    context: &Context<'_>,
) -> DescribeProducersResponse {
    let image = context.broker.metadata.image();
    let topics = request.topics.iter().map(|topic| {
        let is_known = image.topics.contains_key(topic.name.as_str());
        let invalid_name = check_topic_name(&topic.name).err();
        let partitions = topic.partition_indexes.iter().map(|&partition| {
            let producers = context
                .broker
                .replicas
                .partition(&topic.name, partition)
                .and_then(|partition| partition.log())
                .map(|log| log.active_producers());
            let producers = match &invalid_name {
                Some(error) => Err(DescribeProducersError::InvalidTopic(error.clone())),
                None => producers.map_err(DescribeProducersError::Partition),
            };
            let mut response = PartitionResponse::default()
                .with_partition_index(partition)
                .with_error_code(code_of(&producers));
            if let Err(DescribeProducersError::InvalidTopic(error)) = &producers {
                let message = StrBytes::from_string(error.to_string());
                return response.with_error_message(Some(message));
            }
            if !is_known {
                response.error_message = Some(StrBytes::from_static_str(
                    "This server does not host this topic-partition.",
                ));
            }
            let states = producers.unwrap_or_default().into_iter().map(|producer| {
                ProducerState::default()
                    .with_producer_id(producer.producer_id.into())
                    .with_producer_epoch(producer.producer_epoch.into())
                    .with_last_sequence(producer.last_sequence)
                    .with_last_timestamp(producer.last_timestamp)
                    .with_coordinator_epoch(producer.coordinator_epoch)
                    .with_current_txn_start_offset(producer.current_txn_start_offset)
            });
            response.with_active_producers(states.collect())
        });
        TopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}
