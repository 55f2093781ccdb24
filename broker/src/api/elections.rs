//! `ElectLeaders` (key 43): other leaders on demand (KIP-460).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use barnabas_core::controller::{ElectLeaderError, ElectionType};
use barnabas_core::ids::{BrokerId, TopicPartition};
use barnabas_core::metadata::ClusterImage;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::error_code::{NONE, ToErrorCode};
use super::{Context, RequestError};

/// Election types of a request, from v1 on.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// An error code and the text beside it.
type Outcome = (i16, Option<String>);

/// `ElectLeaders` (key 43, v0–2): by the controller; v0 knows preferred leaders only. Answers when this broker sees the
/// new leaders.
pub async fn elect_leaders(
    request: ElectLeadersRequest,
    context: &Context<'_>,
) -> ElectLeadersResponse {
    let deadline = Instant::now() + timeout(request.timeout_ms);
    let kind = match (context.version, request.election_type) {
        (0, _) | (_, PREFERRED) => ElectionType::Preferred,
        (_, UNCLEAN) => ElectionType::Unclean,
        _ => return refused(request),
    };
    let named: Option<BTreeSet<TopicPartition>> = request.topic_partitions.map(|topics| {
        let topics = topics.into_iter();
        let partitions = topics.flat_map(|of| {
            let topic = of.topic.to_string();
            let partitions = of.partitions.into_iter();
            partitions.map(move |number| TopicPartition::new(topic.as_str(), number))
        });
        partitions.collect()
    });
    let is_for_all = named.is_none();
    let known = || partitions_of(&context.broker.metadata.image());
    let partitions = named.unwrap_or_else(known);
    let controller = &context.broker.controller;
    let outcomes = match controller.elect_leaders(kind, partitions.clone()).await {
        Ok(results) => outcomes(results, is_for_all, deadline, context).await,
        Err(error) => {
            let code = error.error_code();
            let partitions = partitions.into_iter();
            partitions.map(|of| (of, (code, None))).collect()
        }
    };
    response(NONE, outcomes, context)
}

/// The answer to a type of election that does not exist: the error for the whole and for all that is asked for.
fn refused(request: ElectLeadersRequest) -> ElectLeadersResponse {
    let error = RequestError::Unexpected.error_code();
    let topics = request.topic_partitions.into_iter().flatten().map(|of| {
        let partitions = of.partitions.into_iter().map(|number| {
            PartitionResult::default()
                .with_partition_id(number)
                .with_error_code(error)
                .with_error_message(None)
        });
        ReplicaElectionResult::default()
            .with_topic(of.topic)
            .with_partition_result(partitions.collect())
    });
    ElectLeadersResponse::default()
        .with_error_code(error)
        .with_replica_election_results(topics.collect())
}

/// What came of each partition, when the new leaders are known here or time is up.
async fn outcomes(
    results: BTreeMap<TopicPartition, Result<BrokerId, ElectLeaderError>>,
    is_for_all: bool,
    deadline: Instant,
    context: &Context<'_>,
) -> BTreeMap<TopicPartition, Outcome> {
    let led = results.iter();
    let led = led.filter_map(|(of, result)| Some((of.clone(), *result.as_ref().ok()?)));
    let mut awaited: BTreeMap<TopicPartition, BrokerId> = led.collect();
    if !awaited.is_empty() {
        let patience = deadline.saturating_duration_since(Instant::now());
        let all_seen = |image: &ClusterImage| {
            awaited.retain(|of, leader| leader_of(image, of) != Some(leader.0));
            awaited.is_empty()
        };
        context.broker.metadata.wait_for(patience, all_seen).await;
    }
    let outcomes = results.into_iter().filter_map(|(of, result)| {
        let outcome = match result {
            Ok(_) if awaited.contains_key(&of) => (RequestError::TimedOut.error_code(), None),
            Ok(_) => (NONE, None),
            // Who asks for all wants to hear of changes and failures only.
            Err(ElectLeaderError::NotNeeded) if is_for_all => return None,
            Err(error) => (error.error_code(), Some(error.to_string())),
        };
        Some((of, outcome))
    });
    outcomes.collect()
}

fn leader_of(image: &ClusterImage, of: &TopicPartition) -> Option<i32> {
    let topic = image.topics.get(&of.topic)?;
    Some(topic.partitions.get(&of.partition)?.leadership.leader)
}

fn partitions_of(image: &ClusterImage) -> BTreeSet<TopicPartition> {
    let topics = image.topics.iter();
    let partitions = topics.flat_map(|(name, topic)| {
        let numbers = topic.partitions.keys();
        numbers.map(|number| TopicPartition::new(name.clone(), *number))
    });
    partitions.collect()
}

fn response(
    error: i16,
    outcomes: BTreeMap<TopicPartition, Outcome>,
    context: &Context<'_>,
) -> ElectLeadersResponse {
    let mut topics: Vec<ReplicaElectionResult> = Vec::new();
    for (of, (code, message)) in outcomes {
        let result = PartitionResult::default()
            .with_partition_id(of.partition)
            .with_error_code(code)
            .with_error_message(message.map(StrBytes::from_string));
        match topics.last_mut().filter(|last| **last.topic == *of.topic) {
            Some(last) => last.partition_result.push(result),
            None => topics.push(
                ReplicaElectionResult::default()
                    .with_topic(TopicName(StrBytes::from_string(of.topic.to_string())))
                    .with_partition_result(vec![result]),
            ),
        }
    }
    let response = ElectLeadersResponse::default().with_replica_election_results(topics);
    if context.version >= 1 {
        response.with_error_code(error)
    } else {
        response
    }
}

fn timeout(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
}
