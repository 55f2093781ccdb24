//! Moving replicas between brokers (KIP-455): beginning it, ending it, seeing how far it is.

use std::collections::{BTreeMap, BTreeSet};

use barnabas_core::controller::WantedReplicas;
use barnabas_core::ids::{BrokerId, TopicPartition};
use kafka_protocol::messages as wire;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::error_code::{ToErrorCode, code_of, message_of};

/// `AlterPartitionReassignments` (key 45, v0): by the controller. Answers when the reassignments have begun.
pub async fn alter_partition_reassignments(
    request: AlterPartitionReassignmentsRequest,
    context: &Context<'_>,
) -> AlterPartitionReassignmentsResponse {
    let mut wanted = WantedReplicas::new();
    for topic in request.topics {
        for partition in topic.partitions {
            let of = TopicPartition::new(&**topic.name, partition.partition_index);
            let ids = |ids: Vec<wire::BrokerId>| ids.into_iter().map(|id| BrokerId(id.0)).collect();
            wanted.insert(of, partition.replicas.map(ids));
        }
    }
    let response = AlterPartitionReassignmentsResponse::default();
    let results = match context.broker.controller.alter_reassignments(wanted).await {
        Ok(results) => results,
        Err(error) => {
            return response
                .with_error_code(error.error_code())
                .with_error_message(Some(StrBytes::from_static_str(message_of(error))));
        }
    };
    let mut topics: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (of, result) in results {
        let message = result.as_ref().err().map(ToString::to_string);
        let partition = ReassignablePartitionResponse::default()
            .with_partition_index(of.partition)
            .with_error_code(code_of(&result))
            .with_error_message(message.map(StrBytes::from_string));
        topics.entry(of.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        ReassignableTopicResponse::default()
            .with_name(name(&topic))
            .with_partitions(partitions)
    });
    response
        .with_error_message(Some(StrBytes::default()))
        .with_responses(topics.collect())
}

/// `ListPartitionReassignments` (key 46, v0): by the controller. Partitions that are not being reassigned are left out.
pub async fn list_partition_reassignments(
    request: ListPartitionReassignmentsRequest,
    context: &Context<'_>,
) -> ListPartitionReassignmentsResponse {
    let wanted: Option<BTreeSet<_>> = request.topics.map(|topics| {
        let partitions = topics.into_iter().flat_map(|topic| {
            let numbers = topic.partition_indexes.into_iter();
            numbers.map(move |number| TopicPartition::new(&**topic.name, number))
        });
        partitions.collect()
    });
    let response = ListPartitionReassignmentsResponse::default();
    let found = match context.broker.controller.list_reassignments(wanted).await {
        Ok(found) => found,
        Err(error) => {
            return response
                .with_error_code(error.error_code())
                .with_error_message(Some(StrBytes::from_static_str(message_of(error))));
        }
    };
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| wire::BrokerId(id.0)).collect();
    let mut topics: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (of, assignment) in found {
        let partition = OngoingPartitionReassignment::default()
            .with_partition_index(of.partition)
            .with_replicas(ids(&assignment.replicas))
            .with_adding_replicas(ids(&assignment.adding_replicas))
            .with_removing_replicas(ids(&assignment.removing_replicas));
        topics.entry(of.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        OngoingTopicReassignment::default()
            .with_name(name(&topic))
            .with_partitions(partitions)
    });
    response
        .with_error_message(Some(StrBytes::default()))
        .with_topics(topics.collect())
}

fn name(topic: &str) -> wire::TopicName {
    wire::TopicName(StrBytes::from_string(topic.to_owned()))
}
