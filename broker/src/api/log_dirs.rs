//! Log directories: `DescribeLogDirs` (key 35) and `AlterReplicaLogDirs` (key 34, KIP-113).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use barnabas_core::ids::TopicPartition;
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, DescribeLogDirsRequest,
    DescribeLogDirsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::error_code::{ToErrorCode as _, code_of};
use super::{Context, repeated};
use crate::log::{DirectoryDescription, LogError, ReplicaSize};
use crate::replica::PartitionError;

/// `offset_lag` of a replica without a log that could be compared. Kafka: `INVALID_OFFSET_LAG`.
const UNKNOWN_LAG: i64 = -1;

/// `DescribeLogDirs` (v0–4): sizes of replicas and, from v4 on, of the volumes.
pub async fn describe_log_dirs(
    request: DescribeLogDirsRequest,
    context: &Context<'_>,
) -> DescribeLogDirsResponse {
    let wanted: Option<BTreeSet<(StrBytes, i32)>> = request.topics.map(|topics| {
        topics
            .into_iter()
            .flat_map(|topic| {
                let name = topic.topic.0;
                topic
                    .partitions
                    .into_iter()
                    .map(move |partition| (name.clone(), partition))
            })
            .collect()
    });
    let is_wanted = |replica: &ReplicaSize| match &wanted {
        None => true,
        Some(wanted) => {
            let TopicPartition { topic, partition } = &replica.topic_partition;
            wanted.contains(&(StrBytes::from_string(topic.to_string()), *partition))
        }
    };
    let directories = context.broker.logs.directories();
    let results = directories
        .iter()
        .map(|directory| describe(directory, is_wanted, context))
        .collect();
    DescribeLogDirsResponse::default().with_results(results)
}

fn describe(
    directory: &DirectoryDescription,
    is_wanted: impl Fn(&ReplicaSize) -> bool,
    context: &Context<'_>,
) -> DescribeLogDirsResult {
    let path = directory.path.to_string_lossy().into_owned();
    let mut result = DescribeLogDirsResult::default().with_log_dir(StrBytes::from_string(path));
    if directory.error.is_some() {
        return result.with_error_code(PartitionError::StorageError.error_code());
    }
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for replica in directory
        .replicas
        .iter()
        .filter(|replica| is_wanted(replica))
    {
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(replica.topic_partition.partition)
            .with_partition_size(i64::try_from(replica.size).unwrap_or(i64::MAX))
            .with_offset_lag(offset_lag(replica, context))
            .with_is_future_key(replica.is_future);
        topics
            .entry(&replica.topic_partition.topic)
            .or_default()
            .push(partition);
    }
    result.topics = topics
        .into_iter()
        .map(|(name, partitions)| {
            DescribeLogDirsTopic::default()
                .with_name(TopicName(StrBytes::from_string(name.to_owned())))
                .with_partitions(partitions)
        })
        .collect();
    if context.version >= 4 {
        result.total_bytes = directory.total_bytes;
        result.usable_bytes = directory.usable_bytes;
    }
    result
}

/// How far a copy is behind the log, or the log behind its high watermark.
fn offset_lag(replica: &ReplicaSize, context: &Context<'_>) -> i64 {
    let topic_partition = &replica.topic_partition;
    let logs = &context.broker.logs;
    let Some(current) = logs.log(topic_partition) else {
        return UNKNOWN_LAG;
    };
    if replica.is_future {
        logs.future_log(topic_partition)
            .map_or(UNKNOWN_LAG, |future| {
                current.log_end_offset() - future.log_end_offset()
            })
    } else {
        (current.high_watermark() - current.log_end_offset()).max(0)
    }
}

/// A dot, 32 digits and `-future`, which the directory of a copy has behind topic and partition (KAFKA-4893).
const FUTURE_SUFFIX_BYTES: usize = 1 + 32 + 7;
/// The longest name of a directory.
const NAME_BYTES_MAX: usize = 255;

/// Why a replica does not move to another directory.
#[derive(Clone, Debug)]
pub enum MoveError {
    Partition(PartitionError),
    /// The cluster has the partition, but this broker no replica of it.
    ReplicaNotAvailable,
    /// The directory of the copy could not have such a name.
    NameTooLong,
    Log(LogError),
}

/// `AlterReplicaLogDirs` (v0–2): moves replicas between the directories of this broker. A replica that
/// is not here (yet) is created in its directory later.
pub async fn alter_replica_log_dirs(
    request: AlterReplicaLogDirsRequest,
    context: &Context<'_>,
) -> AlterReplicaLogDirsResponse {
    let mut results: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
    for directory in &request.dirs {
        for topic in directory
            .topics
            .iter()
            .filter(|topic| !topic.partitions.is_empty())
        {
            let partitions = topic.partitions.iter().map(|&partition| {
                let moved = move_replica(&topic.name, partition, &directory.path, context);
                AlterReplicaLogDirPartitionResult::default()
                    .with_partition_index(partition)
                    .with_error_code(code_of(&moved))
            });
            let known = results
                .iter_mut()
                .find(|result| result.topic_name == topic.name);
            if let Some(result) = known {
                result.partitions.extend(partitions);
            } else {
                results.push(
                    AlterReplicaLogDirTopicResult::default()
                        .with_topic_name(topic.name.clone())
                        .with_partitions(partitions.collect()),
                );
            }
        }
    }
    repeated::merge(
        &mut results,
        |topic| &topic.topic_name,
        |topic| &mut topic.partitions,
        |partition| partition.partition_index,
    );
    AlterReplicaLogDirsResponse::default().with_results(results)
}

fn move_replica(
    topic: &str,
    partition: i32,
    directory: &str,
    context: &Context<'_>,
) -> Result<(), MoveError> {
    let replicas = &context.broker.replicas;
    let topic_partition = TopicPartition::new(topic, partition);
    if topic.len() + 1 + partition.to_string().len() + FUTURE_SUFFIX_BYTES > NAME_BYTES_MAX {
        return Err(MoveError::NameTooLong);
    }
    match context
        .broker
        .logs
        .move_replica(&topic_partition, Path::new(directory))
    {
        Ok(()) => Ok(()),
        Err(LogError::UnknownPartition { .. }) if replicas.is_known(topic, partition) => {
            Err(MoveError::ReplicaNotAvailable)
        }
        Err(LogError::UnknownPartition { .. }) => Err(MoveError::Partition(
            PartitionError::UnknownTopicOrPartition,
        )),
        Err(error) => Err(MoveError::Log(error)),
    }
}
