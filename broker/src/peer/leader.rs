//! What a follower asks the leaders of its partitions: `Fetch`, `ListOffsets` and `OffsetForLeaderEpoch`, in
//! the versions that `inter.broker.protocol.version` stands for (Kafka's `RemoteLeaderEndPoint`).

use std::collections::BTreeMap;
use std::time::Duration;

use barnabas_core::config::versions::metadata_version_index;
use barnabas_core::ids::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicId, TopicName, TopicPartition,
};
use barnabas_core::partition::fetcher::{FetchItem, FetchPlan, SessionAnswer};
use barnabas_core::partition::follower::{Divergence, EpochEnd, FetchError};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, OffsetForLeaderEpochRequest,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Peer, PeerError};

/// Special timestamps of `ListOffsets`.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// First version of Fetch that names topics by id, and the one below it.
const TOPIC_IDS: i16 = 13;
/// First version of Fetch by which leaders see that logs part (KIP-595).
const DIVERGING_EPOCHS: i16 = 12;
/// First version of Fetch with the epoch of the replica's broker (KIP-903).
const REPLICA_STATE: i16 = 15;

/// Versions of the requests to leaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderVersions {
    pub fetch: i16,
    pub list_offsets: i16,
    pub offset_for_leader_epoch: i16,
}

impl LeaderVersions {
    /// The versions for an `inter.broker.protocol.version` (Kafka's `MetadataVersion`).
    pub fn of(inter_broker_protocol_version: &str) -> Self {
        let ours = metadata_version_index(inter_broker_protocol_version);
        let first = |versions: &[(&str, i16)]| {
            let known = versions
                .iter()
                .find(|(since, _)| ours.is_none() || ours >= metadata_version_index(since));
            known.map_or(0, |(_, version)| *version)
        };
        Self {
            fetch: first(&[
                ("3.9-IV0", 17),
                ("3.7-IV4", 16),
                ("3.5-IV1", 15),
                ("3.5-IV0", 14),
                ("3.1-IV0", 13),
                ("2.7-IV1", 12),
                ("2.3-IV1", 11),
                ("2.1-IV2", 10),
                ("2.0-IV1", 8),
                ("1.1-IV0", 7),
                ("0.11.0-IV1", 5),
                ("0.11.0-IV0", 4),
                ("0.10.1-IV1", 3),
                ("0.10.0-IV0", 2),
                ("0.9.0", 1),
            ]),
            list_offsets: first(&[
                ("3.9-IV0", 9),
                ("3.5-IV0", 8),
                ("3.0-IV1", 7),
                ("2.8-IV1", 6),
                ("2.2-IV1", 5),
                ("2.1-IV1", 4),
                ("2.0-IV1", 3),
                ("0.11.0-IV0", 2),
                ("0.10.1-IV2", 1),
            ]),
            offset_for_leader_epoch: first(&[
                ("2.8-IV0", 4),
                ("2.3-IV1", 3),
                ("2.1-IV1", 2),
                ("2.0-IV0", 1),
            ]),
        }
    }

    /// Who finds out where logs part.
    pub fn divergence(self) -> Divergence {
        if self.fetch >= DIVERGING_EPOCHS {
            Divergence::SeenByLeader
        } else {
            Divergence::AskedFor
        }
    }
}

/// How much a follower wants at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
}

/// Who fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchingReplica {
    pub broker: BrokerId,
    pub broker_epoch: BrokerEpoch,
}

/// How a leader's answer names a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchedTopic {
    Named(StrBytes),
    Id(TopicId),
}

/// What a leader has of one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// A part of the response's frame. The last batch may be cut.
    pub records: Bytes,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
    /// The logs part: there are no records then.
    pub diverging: Option<EpochEnd>,
}

/// A leader's answer to a fetch.
#[derive(Debug)]
pub struct FetchReply {
    pub session: SessionAnswer,
    /// 0 if the request as a whole was understood.
    pub error_code: i16,
    pub partitions: Vec<(FetchedTopic, i32, Result<Fetched, FetchError>)>,
}

/// Which end of a leader's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEdge {
    Start,
    End,
}

/// A connection to a leader.
pub struct LeaderClient {
    peer: Peer,
    versions: LeaderVersions,
    replica: FetchingReplica,
    timeout: Duration,
}

impl LeaderClient {
    /// `timeout` is `replica.socket.timeout.ms`.
    pub fn new(
        peer: Peer,
        versions: LeaderVersions,
        replica: FetchingReplica,
        timeout: Duration,
    ) -> Self {
        Self {
            peer,
            versions,
            replica,
            timeout,
        }
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Fetches what a plan asks for.
    pub async fn fetch(
        &mut self,
        plan: &FetchPlan,
        limits: FetchLimits,
    ) -> Result<FetchReply, PeerError> {
        let version = if plan.uses_topic_ids {
            self.versions.fetch
        } else {
            self.versions.fetch.min(TOPIC_IDS - 1)
        };
        let request = fetch_request(plan, limits, self.replica, version);
        let response = self.peer.call(version, &request, self.timeout).await?;
        Ok(fetch_reply(response, version))
    }

    /// Where the leader's log of a partition begins or ends.
    pub async fn log_edge(
        &mut self,
        topic_partition: &TopicPartition,
        leader_epoch: LeaderEpoch,
        edge: LogEdge,
    ) -> Result<Result<Offset, FetchError>, PeerError> {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(topic_partition.partition)
            .with_current_leader_epoch(leader_epoch)
            .with_timestamp(match edge {
                LogEdge::Start => EARLIEST,
                LogEdge::End => LATEST,
            });
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&topic_partition.topic))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(self.replica.broker.0.into())
            .with_topics(vec![topic]);
        let version = self.versions.list_offsets;
        let response = self.peer.call(version, &request, self.timeout).await?;
        let found = response
            .topics
            .first()
            .and_then(|topic| topic.partitions.first());
        let found = found.ok_or_else(|| PeerError::Malformed("no offset in the answer".into()))?;
        Ok(match fetch_error(found.error_code) {
            None if version == 0 => Ok(found.old_style_offsets.first().copied().unwrap_or(-1)),
            None => Ok(found.offset),
            Some(error) => Err(error),
        })
    }

    /// Where a leader epoch ends in the leader's log of a partition.
    pub async fn epoch_end(
        &mut self,
        topic_partition: &TopicPartition,
        current_leader_epoch: LeaderEpoch,
        leader_epoch: LeaderEpoch,
    ) -> Result<Result<EpochEnd, FetchError>, PeerError> {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(topic_partition.partition)
            .with_current_leader_epoch(current_leader_epoch)
            .with_leader_epoch(leader_epoch);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(topic_name(&topic_partition.topic))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id(self.replica.broker.0.into())
            .with_topics(vec![topic]);
        let version = self.versions.offset_for_leader_epoch;
        let response = self.peer.call(version, &request, self.timeout).await?;
        let found = response
            .topics
            .first()
            .and_then(|topic| topic.partitions.first());
        let found = found.ok_or_else(|| PeerError::Malformed("no epoch in the answer".into()))?;
        Ok(match fetch_error(found.error_code) {
            None => Ok(EpochEnd {
                epoch: known(found.leader_epoch),
                end_offset: known(found.end_offset),
            }),
            Some(error) => Err(error),
        })
    }
}

fn topic_name(topic: &TopicName) -> kafka_protocol::messages::TopicName {
    StrBytes::from_string(topic.to_string()).into()
}

/// -1 stands for "unknown".
fn known<T: Copy + PartialOrd + From<i8>>(value: T) -> Option<T> {
    (value >= T::from(0)).then_some(value)
}

fn fetch_error(code: i16) -> Option<FetchError> {
    if code == 0 {
        None
    } else if code == ResponseError::OffsetOutOfRange.code() {
        Some(FetchError::OffsetOutOfRange)
    } else if code == ResponseError::FencedLeaderEpoch.code() {
        Some(FetchError::FencedLeaderEpoch)
    } else {
        Some(FetchError::Other(code))
    }
}

fn fetch_request(
    plan: &FetchPlan,
    limits: FetchLimits,
    replica: FetchingReplica,
    version: i16,
) -> FetchRequest {
    let by_id = version >= TOPIC_IDS;
    let topic_of = |topic: &TopicName, id: Option<TopicId>| {
        let id = id.filter(|_| by_id).map_or(Uuid::nil(), |id| id.0);
        let name = if by_id {
            kafka_protocol::messages::TopicName::default()
        } else {
            topic_name(topic)
        };
        (name, id)
    };
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut previous: Option<(&TopicName, Option<TopicId>)> = None;
    for item in &plan.items {
        let topic = (&item.topic_partition.topic, item.topic_id);
        if previous != Some(topic) {
            let (name, id) = topic_of(topic.0, topic.1);
            topics.push(FetchTopic::default().with_topic(name).with_topic_id(id));
            previous = Some(topic);
        }
        if let Some(last) = topics.last_mut() {
            last.partitions.push(fetch_partition(item, limits, version));
        }
    }
    let mut forgotten: BTreeMap<(&TopicName, Option<TopicId>), Vec<i32>> = BTreeMap::new();
    for (topic_partition, id) in &plan.forgotten {
        let topic = forgotten.entry((&topic_partition.topic, *id)).or_default();
        topic.push(topic_partition.partition);
    }
    let forgotten = forgotten.into_iter().map(|((topic, id), partitions)| {
        let (name, id) = topic_of(topic, id);
        ForgottenTopic::default()
            .with_topic(name)
            .with_topic_id(id)
            .with_partitions(partitions)
    });
    let mut request = FetchRequest::default()
        .with_max_wait_ms(limits.max_wait_ms)
        .with_min_bytes(limits.min_bytes)
        .with_max_bytes(limits.max_bytes)
        .with_topics(topics);
    if version >= 7 {
        request.session_id = plan.session_id;
        request.session_epoch = plan.session_epoch;
        request.forgotten_topics_data = forgotten.collect();
    }
    if version >= REPLICA_STATE {
        request.replica_state = ReplicaState::default()
            .with_replica_id(replica.broker.0.into())
            .with_replica_epoch(replica.broker_epoch);
    } else {
        request.replica_id = replica.broker.0.into();
    }
    request
}

fn fetch_partition(item: &FetchItem, limits: FetchLimits, version: i16) -> FetchPartition {
    let mut partition = FetchPartition::default()
        .with_partition(item.topic_partition.partition)
        .with_fetch_offset(item.fetch_offset)
        .with_partition_max_bytes(limits.partition_max_bytes);
    if version >= 5 {
        partition.log_start_offset = item.log_start_offset;
    }
    if version >= 9 {
        partition.current_leader_epoch = item.leader_epoch;
    }
    if version >= DIVERGING_EPOCHS {
        partition.last_fetched_epoch = item.last_fetched_epoch.unwrap_or(-1);
    }
    partition
}

fn fetch_reply(response: FetchResponse, version: i16) -> FetchReply {
    let error_code = response.error_code;
    let session = if error_code == 0 {
        SessionAnswer::Ok {
            session_id: response.session_id,
        }
    } else if error_code == ResponseError::FetchSessionIdNotFound.code() {
        SessionAnswer::NotFound
    } else {
        SessionAnswer::Failed
    };
    let mut partitions = Vec::new();
    for topic in response.responses {
        let named = if version >= TOPIC_IDS {
            FetchedTopic::Id(TopicId(topic.topic_id))
        } else {
            FetchedTopic::Named(topic.topic.0)
        };
        for partition in topic.partitions {
            let number = partition.partition_index;
            partitions.push((named.clone(), number, fetched(partition)));
        }
    }
    FetchReply {
        session,
        error_code,
        partitions,
    }
}

fn fetched(partition: PartitionData) -> Result<Fetched, FetchError> {
    if let Some(error) = fetch_error(partition.error_code) {
        return Err(error);
    }
    let diverging = known(partition.diverging_epoch.epoch).map(|epoch| EpochEnd {
        epoch: Some(epoch),
        end_offset: known(partition.diverging_epoch.end_offset),
    });
    Ok(Fetched {
        records: partition.records.unwrap_or_default(),
        high_watermark: partition.high_watermark,
        log_start_offset: partition.log_start_offset,
        diverging,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_follow_the_inter_broker_protocol() {
        let of = |ibp| {
            let versions = LeaderVersions::of(ibp);
            (
                versions.fetch,
                versions.list_offsets,
                versions.offset_for_leader_epoch,
            )
        };
        assert_eq!(of("3.9-IV0"), (17, 9, 4));
        assert_eq!(of("3.9"), (17, 9, 4));
        assert_eq!(of("3.4"), (13, 7, 4));
        assert_eq!(of("2.8"), (12, 6, 4));
        assert_eq!(of("2.6"), (11, 5, 3));
        assert_eq!(LeaderVersions::of("2.6").divergence(), Divergence::AskedFor);
    }

    /// What a real 3.9.1 follower sent first (see the recorded replica requests).
    #[test]
    fn the_first_fetch_is_that_of_kafka() {
        let plan = FetchPlan {
            session_id: 0,
            session_epoch: 0,
            uses_topic_ids: true,
            items: vec![FetchItem {
                topic_partition: TopicPartition::new("t", 0),
                topic_id: Some(TopicId(Uuid::from_u128(7))),
                leader_epoch: 0,
                fetch_offset: 0,
                last_fetched_epoch: None,
                log_start_offset: 0,
            }],
            forgotten: Vec::new(),
        };
        let limits = FetchLimits {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 10_485_760,
            partition_max_bytes: 1_048_576,
        };
        let replica = FetchingReplica {
            broker: BrokerId(21),
            broker_epoch: 54_066,
        };
        let request = fetch_request(&plan, limits, replica, 17);
        assert_eq!(request.replica_state.replica_id.0, 21);
        assert_eq!(request.replica_state.replica_epoch, 54_066);
        assert_eq!(request.replica_id.0, -1);
        assert_eq!(request.topics[0].topic_id, Uuid::from_u128(7));
        assert_eq!(request.topics[0].partitions[0].last_fetched_epoch, -1);
        assert_eq!(request.topics[0].partitions[0].current_leader_epoch, 0);
        assert_eq!((request.session_id, request.session_epoch), (0, 0));
    }
}
