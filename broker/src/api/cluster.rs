//! `DescribeCluster` (key 60): the cluster as a whole.

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::error_code::{MISMATCHED_ENDPOINT_TYPE, UNSUPPORTED_ENDPOINT_TYPE};

/// What everybody may do with a topic where nothing is forbidden: a bit per operation (KIP-430).
pub(super) const ALL_TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;

/// The same for the cluster.
pub(super) const ALL_CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// Endpoint types of a request (KIP-919).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// `DescribeCluster` (key 60, v0–1).
pub async fn describe_cluster(
    request: DescribeClusterRequest,
    context: &Context<'_>,
) -> DescribeClusterResponse {
    if context.version >= 1 && request.endpoint_type != BROKERS {
        return refused(request.endpoint_type);
    }
    let image = context.broker.metadata.image();
    let brokers = image.brokers.values().filter_map(|broker| {
        let endpoint = broker.endpoint(context.listener())?;
        Some(
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(broker.id.0))
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(i32::from(endpoint.port))
                .with_rack(broker.rack.clone().map(StrBytes::from_string)),
        )
    });
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(context.broker.cluster_id.clone()))
        .with_controller_id(BrokerId(image.controller_id.map_or(-1, |id| id.0)))
        .with_brokers(brokers.collect());
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = ALL_CLUSTER_OPERATIONS;
    }
    response
}

fn refused(endpoint_type: i8) -> DescribeClusterResponse {
    let (error, message) = if endpoint_type == CONTROLLERS {
        (
            MISMATCHED_ENDPOINT_TYPE,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
                .to_owned(),
        )
    } else {
        (
            UNSUPPORTED_ENDPOINT_TYPE,
            format!("Unsupported endpoint type {endpoint_type}"),
        )
    };
    DescribeClusterResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_string(message)))
        .with_controller_id(BrokerId(-1))
}
