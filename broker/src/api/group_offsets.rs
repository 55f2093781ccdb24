//! Offsets that consumers commit and ask for. Version 0 of both keeps them in ZooKeeper.

use barnabas_core::group::records::OffsetCommit;
use barnabas_core::group::{Group, GroupError, MemberRef};
use barnabas_core::ids::{TopicName, TopicPartition};
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    self as wire, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::error_code::{NONE, ToErrorCode as _, code_of};
use super::groups::wire_text;
use super::repeated;
use crate::clock;

/// An offset, a leader epoch or a time that is not there.
const ABSENT: i64 = -1;

/// Why an offset is not kept, told or forgotten, apart from what the group says.
#[derive(Clone, Copy, Debug)]
pub enum OffsetError {
    UnknownTopicOrPartition,
    MetadataTooLarge,
    /// ZooKeeper can have no node of the group's name.
    NoPath,
    ZooKeeper,
}

// --- OffsetCommit ---

/// One partition of a commit, and where it stands in the answer.
struct Wanted<'a> {
    topic: usize,
    partition: usize,
    name: &'a str,
    asked: &'a OffsetCommitRequestPartition,
}

/// `OffsetCommit` (key 8, v0–9).
pub async fn offset_commit(
    mut request: OffsetCommitRequest,
    context: &Context<'_>,
) -> OffsetCommitResponse {
    let image = context.broker.metadata.image();
    // What is not there is answered as it is asked, everything else once.
    let (mut known_topics, mut topics_of_nobody) = (Vec::new(), Vec::new());
    for mut topic in request.topics {
        let is_known = |one: &OffsetCommitRequestPartition| {
            image.partition(&topic.name, one.partition_index).is_some()
        };
        let (known, unknown) = std::mem::take(&mut topic.partitions)
            .into_iter()
            .partition::<Vec<_>, _>(is_known);
        if !unknown.is_empty() || (known.is_empty() && image.topic(&topic.name).is_none()) {
            topics_of_nobody.push(topic.clone().with_partitions(unknown));
        }
        known_topics.push(topic.with_partitions(known));
    }
    repeated::merge(
        &mut known_topics,
        |topic| &topic.name,
        |topic| &mut topic.partitions,
        |partition| partition.partition_index,
    );
    known_topics.append(&mut topics_of_nobody);
    request.topics = known_topics;
    let mut topics: Vec<OffsetCommitResponseTopic> = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                OffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(OffsetError::UnknownTopicOrPartition.error_code())
            });
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        })
        .collect();
    let mut known = Vec::new();
    for (topic_index, topic) in request.topics.iter().enumerate() {
        for (partition_index, partition) in topic.partitions.iter().enumerate() {
            if image
                .partition(&topic.name, partition.partition_index)
                .is_some()
            {
                known.push(Wanted {
                    topic: topic_index,
                    partition: partition_index,
                    name: &topic.name,
                    asked: partition,
                });
            }
        }
    }
    if !known.is_empty() {
        let codes = if context.version == 0 {
            commit_to_zookeeper(&request, &known, context).await
        } else {
            commit_to_group(&request, &known, context).await
        };
        for (wanted, code) in known.iter().zip(codes) {
            topics[wanted.topic].partitions[wanted.partition].error_code = code;
        }
    }
    // Both parts of a topic are answered together.
    let mut together: Vec<OffsetCommitResponseTopic> = Vec::with_capacity(topics.len());
    for mut topic in topics {
        match together.iter_mut().find(|known| known.name == topic.name) {
            Some(known) => known.partitions.append(&mut topic.partitions),
            None => together.push(topic),
        }
    }
    OffsetCommitResponse::default().with_topics(together)
}

async fn commit_to_group(
    request: &OffsetCommitRequest,
    wanted: &[Wanted<'_>],
    context: &Context<'_>,
) -> Vec<i16> {
    let now_ms = clock::now().wall_clock_ms;
    let retention_ms = Some(request.retention_time_ms).filter(|retention| *retention != ABSENT);
    let mut last_topic: Option<TopicName> = None;
    let mut commits = Vec::with_capacity(wanted.len());
    for one in wanted {
        let topic = match &last_topic {
            Some(topic) if **topic == *one.name => TopicName::clone(topic),
            Some(_) | None => TopicName::from(one.name),
        };
        last_topic = Some(TopicName::clone(&topic));
        let metadata = one.asked.committed_metadata.as_deref().unwrap_or_default();
        let timestamp = one.asked.commit_timestamp;
        commits.push((
            TopicPartition {
                topic,
                partition: one.asked.partition_index,
            },
            OffsetCommit {
                offset: one.asked.committed_offset,
                leader_epoch: one.asked.committed_leader_epoch.max(-1),
                metadata: metadata.into(),
                commit_timestamp: if timestamp == ABSENT {
                    now_ms
                } else {
                    timestamp
                },
                expire_timestamp: retention_ms.map(|retention| now_ms.saturating_add(retention)),
            },
        ));
    }
    let member = MemberRef {
        member_id: &request.member_id,
        group_instance_id: request.group_instance_id.as_deref(),
        generation_id: request.generation_id_or_member_epoch,
    };
    let groups = &context.broker.groups;
    match groups.commit(&request.group_id, member, commits).await {
        Ok(results) => results.iter().map(code_of).collect(),
        Err(error) => vec![error.error_code(); wanted.len()],
    }
}

async fn commit_to_zookeeper(
    request: &OffsetCommitRequest,
    wanted: &[Wanted<'_>],
    context: &Context<'_>,
) -> Vec<i16> {
    let metadata_max = context.broker.config.broker().offset_metadata_max_bytes;
    let metadata_max = usize::try_from(metadata_max).unwrap_or(0);
    let mut codes = Vec::with_capacity(wanted.len());
    for one in wanted {
        let metadata = one.asked.committed_metadata.as_deref().unwrap_or_default();
        codes.push(if metadata.encode_utf16().count() > metadata_max {
            OffsetError::MetadataTooLarge.error_code()
        } else if !can_be_path(&request.group_id) {
            OffsetError::NoPath.error_code()
        } else {
            let written = context.broker.zookeeper.commit_old_offset(
                &request.group_id,
                one.name,
                one.asked.partition_index,
                one.asked.committed_offset,
            );
            match written.await {
                Ok(()) => NONE,
                Err(error) => {
                    tracing::warn!(group = %request.group_id.0, %error, "an offset was not written to ZooKeeper");
                    OffsetError::ZooKeeper.error_code()
                }
            }
        });
    }
    codes
}

/// Whether ZooKeeper can have a node of this name. Kafka lets it fail.
pub(super) fn can_be_path(name: &str) -> bool {
    !name.is_empty()
        && !name.contains('\0')
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

// --- OffsetFetch ---

/// What is told of one partition.
struct Found {
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: StrBytes,
    error_code: i16,
}

impl Found {
    fn nothing(partition: i32, error_code: i16) -> Self {
        Self {
            partition,
            offset: ABSENT,
            leader_epoch: -1,
            metadata: StrBytes::default(),
            error_code,
        }
    }

    fn of_group(group: &Group, topic: &str, partition: i32, require_stable: bool) -> Self {
        if require_stable && group.offsets.is_unstable(topic, partition) {
            return Self::nothing(partition, GroupError::UnstableOffsetCommit.error_code());
        }
        match group.offsets.get(topic, partition) {
            Some(commit) => Self {
                partition,
                offset: commit.offset,
                leader_epoch: commit.leader_epoch,
                metadata: wire_text(&commit.metadata),
                error_code: NONE,
            },
            None => Self::nothing(partition, NONE),
        }
    }
}

type FoundTopics = Vec<(wire::TopicName, Vec<Found>)>;

/// `OffsetFetch` (key 9, v0–9); from version 8 on for several groups.
pub async fn offset_fetch(
    mut request: OffsetFetchRequest,
    context: &Context<'_>,
) -> OffsetFetchResponse {
    let version = context.version;
    if let Some(topics) = &mut request.topics {
        repeated::merge(
            topics,
            |topic| &topic.name,
            |topic| &mut topic.partition_indexes,
            |partition| *partition,
        );
    }
    for topics in request
        .groups
        .iter_mut()
        .filter_map(|group| group.topics.as_mut())
    {
        repeated::merge(
            topics,
            |topic| &topic.name,
            |topic| &mut topic.partition_indexes,
            |partition| *partition,
        );
    }
    if version >= 8 {
        let groups = request.groups.into_iter().map(|group| {
            let topics = group.topics.map(|topics| {
                let topics = topics.into_iter();
                topics
                    .map(|topic| (topic.name, topic.partition_indexes))
                    .collect::<Vec<_>>()
            });
            let asked = topics.as_deref();
            let found = fetch_from_group(&group.group_id, asked, request.require_stable, context);
            respond_group(group.group_id, found)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    if version == 0 {
        let topics = request.topics.unwrap_or_default();
        let found = fetch_from_zookeeper(&request.group_id, topics, context).await;
        return OffsetFetchResponse::default().with_topics(respond_topics(found, version));
    }
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter();
        topics
            .map(|topic| (topic.name, topic.partition_indexes))
            .collect::<Vec<_>>()
    });
    let asked = topics.as_deref();
    match fetch_from_group(&request.group_id, asked, request.require_stable, context) {
        Ok(found) => OffsetFetchResponse::default().with_topics(respond_topics(found, version)),
        Err(error) if version >= 2 => {
            OffsetFetchResponse::default().with_error_code(error.error_code())
        }
        // There is no other place for the error.
        Err(error) => {
            let topics = topics.unwrap_or_default().into_iter();
            let failed = topics.map(|(topic, partitions)| {
                let partitions = partitions.into_iter();
                let code = error.error_code();
                (
                    topic,
                    partitions.map(|one| Found::nothing(one, code)).collect(),
                )
            });
            OffsetFetchResponse::default().with_topics(respond_topics(failed.collect(), version))
        }
    }
}

/// `None` asks for all offsets of the group.
fn fetch_from_group(
    group_id: &str,
    asked: Option<&[(wire::TopicName, Vec<i32>)]>,
    require_stable: bool,
    context: &Context<'_>,
) -> Result<FoundTopics, GroupError> {
    context
        .broker
        .groups
        .look(group_id, |group| match (asked, group) {
            (Some(topics), group) => topics
                .iter()
                .map(|(topic, partitions)| {
                    let found = partitions.iter().map(|partition| match group {
                        Some(group) => Found::of_group(group, topic, *partition, require_stable),
                        None => Found::nothing(*partition, NONE),
                    });
                    (topic.clone(), found.collect())
                })
                .collect(),
            (None, Some(group)) => {
                let mut topics = FoundTopics::new();
                for (topic, partition, _) in group.offsets.iter() {
                    let found = Found::of_group(group, topic, partition, require_stable);
                    match topics.last_mut() {
                        Some((last, partitions)) if ***last == **topic => partitions.push(found),
                        Some(_) | None => {
                            topics.push((wire::TopicName(wire_text(topic)), vec![found]));
                        }
                    }
                }
                topics
            }
            (None, None) => Vec::new(),
        })
}

async fn fetch_from_zookeeper(
    group_id: &str,
    topics: Vec<OffsetFetchRequestTopic>,
    context: &Context<'_>,
) -> FoundTopics {
    let image = context.broker.metadata.image();
    let mut found = FoundTopics::with_capacity(topics.len());
    for topic in topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for partition in topic.partition_indexes {
            let unknown = OffsetError::UnknownTopicOrPartition.error_code();
            partitions.push(if image.partition(&topic.name, partition).is_none() {
                Found::nothing(partition, unknown)
            } else if !can_be_path(group_id) {
                Found::nothing(partition, OffsetError::NoPath.error_code())
            } else {
                let zookeeper = &context.broker.zookeeper;
                match zookeeper.old_offset(group_id, &topic.name, partition).await {
                    Ok(Some(offset)) => Found {
                        offset,
                        ..Found::nothing(partition, NONE)
                    },
                    Ok(None) => Found::nothing(partition, unknown),
                    Err(error) => {
                        tracing::warn!(group = group_id, %error, "an offset was not read from ZooKeeper");
                        Found::nothing(partition, OffsetError::ZooKeeper.error_code())
                    }
                }
            });
        }
        found.push((topic.name, partitions));
    }
    found
}

fn respond_topics(found: FoundTopics, version: i16) -> Vec<OffsetFetchResponseTopic> {
    let topics = found.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|found| {
            let mut answer = OffsetFetchResponsePartition::default()
                .with_partition_index(found.partition)
                .with_committed_offset(found.offset)
                .with_metadata(Some(found.metadata))
                .with_error_code(found.error_code);
            if version >= 5 {
                answer.committed_leader_epoch = found.leader_epoch;
            }
            answer
        });
        OffsetFetchResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions.collect())
    });
    topics.collect()
}

fn respond_group(
    group_id: wire::GroupId,
    found: Result<FoundTopics, GroupError>,
) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default()
        .with_group_id(group_id)
        .with_error_code(code_of(&found));
    let topics = found
        .unwrap_or_default()
        .into_iter()
        .map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|found| {
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(found.partition)
                    .with_committed_offset(found.offset)
                    .with_committed_leader_epoch(found.leader_epoch)
                    .with_metadata(Some(found.metadata))
                    .with_error_code(found.error_code)
            });
            OffsetFetchResponseTopics::default()
                .with_name(name)
                .with_partitions(partitions.collect())
        });
    answer.with_topics(topics.collect())
}

// --- OffsetDelete ---

/// `OffsetDelete` (key 47, v0): forgets offsets of topics that no member reads.
pub async fn offset_delete(
    request: OffsetDeleteRequest,
    context: &Context<'_>,
) -> OffsetDeleteResponse {
    let image = context.broker.metadata.image();
    let mut known = Vec::new();
    for topic in &request.topics {
        if image.topic(&topic.name).is_some() {
            let name = TopicName::from(&**topic.name);
            known.extend(topic.partitions.iter().map(|partition| TopicPartition {
                topic: TopicName::clone(&name),
                partition: partition.partition_index,
            }));
        }
    }
    let groups = &context.broker.groups;
    let results = match groups.delete_offsets(&request.group_id, &known) {
        Ok(results) => results,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(error.error_code()),
    };
    let mut codes = known.iter().zip(results.iter().map(code_of));
    let topics = request.topics.into_iter().map(|topic| {
        let is_known = image.topic(&topic.name).is_some();
        let partitions = topic.partitions.iter().map(|partition| {
            let code = if is_known {
                codes.next().map_or(NONE, |(_, code)| code)
            } else {
                OffsetError::UnknownTopicOrPartition.error_code()
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        OffsetDeleteResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
