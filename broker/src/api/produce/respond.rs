//! The answer to a request, partition by partition.

use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;

use super::ProduceError;
use super::append::{Outcome, Written};
use crate::api::error_code::{NONE, ToErrorCode, is_not_leader};
use crate::api::{Context, leaders};

const SEVERAL_PRODUCERS: &str = "Transactional records contained more than one producer ID";

pub(super) fn respond(
    request: &ProduceRequest,
    outcomes: Vec<Outcome>,
    context: &Context<'_>,
) -> ProduceResponse {
    let mut leaders = Vec::new();
    let mut outcomes = outcomes.into_iter();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in &request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for (data, outcome) in topic.partition_data.iter().zip(outcomes.by_ref()) {
            let mut response = respond_partition(data.index, &outcome);
            if context.version >= 10 && is_not_leader(response.error_code) {
                let leader = leaders::current_leader(context, &topic.name, data.index);
                response.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(leader.id.into())
                    .with_leader_epoch(leader.epoch);
                leaders.push(leader);
            }
            partitions.push(response);
        }
        responses.push(
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_partition_responses(partitions),
        );
    }
    let response = ProduceResponse::default().with_responses(responses);
    if leaders.is_empty() {
        return response;
    }
    let endpoints = leaders::endpoints(context, leaders)
        .into_iter()
        .map(|endpoint| {
            NodeEndpoint::default()
                .with_node_id(endpoint.node_id.into())
                .with_host(StrBytes::from_string(endpoint.host))
                .with_port(endpoint.port)
                .with_rack(endpoint.rack.map(StrBytes::from_string))
        });
    response.with_node_endpoints(endpoints.collect())
}

/// Fields that the version lacks are left out by the encoder.
fn respond_partition(index: i32, outcome: &Outcome) -> PartitionProduceResponse {
    let error = outcome.error();
    let mut response = PartitionProduceResponse::default()
        .with_index(index)
        .with_base_offset(-1)
        .with_error_code(error.as_ref().map_or(NONE, ToErrorCode::error_code))
        .with_log_start_offset(outcome.log_start_offset);
    if let Ok(Written {
        info: Some(info), ..
    }) = &outcome.result
    {
        response.base_offset = info.first_offset;
        response.log_append_time_ms = info.log_append_time_ms;
    }
    if let Some(ProduceError::NotAdmitted(refusal)) = &error {
        let (_, message) = refusal.for_produce();
        response.error_message = message.map(StrBytes::from_string);
    }
    if let Some(ProduceError::Rejected(rejection)) = error {
        response.error_message = rejection
            .client_message()
            .map(|message| StrBytes::from_string(message.to_owned()));
        response.record_errors = rejection
            .record_errors()
            .iter()
            .map(|(index, message)| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(*index)
                    .with_batch_index_error_message(Some(StrBytes::from_string(message.clone())))
            })
            .collect();
    }
    response
}

/// A flaw that fails the request as a whole, told for each of its partitions.
pub(super) fn respond_whole(request: &ProduceRequest, error: &ProduceError) -> ProduceResponse {
    let message = match error {
        ProduceError::Rejected(rejection) => rejection.client_message(),
        ProduceError::SeveralProducers => Some(SEVERAL_PRODUCERS),
        ProduceError::Partition(_)
        | ProduceError::InvalidRequiredAcks
        | ProduceError::InternalTopic
        | ProduceError::NotAdmitted(_)
        | ProduceError::Append(_) => None,
    };
    let respond = |data: &PartitionProduceData| {
        PartitionProduceResponse::default()
            .with_index(data.index)
            .with_error_code(error.error_code())
            .with_base_offset(-1)
            .with_error_message(message.map(|text| StrBytes::from_string(text.to_owned())))
    };
    let topics = request.topic_data.iter().map(|topic| {
        TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_partition_responses(topic.partition_data.iter().map(respond).collect())
    });
    ProduceResponse::default().with_responses(topics.collect())
}
