//! Which broker coordinates a group or a transaction.

use barnabas_core::control::Endpoint;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::error_code::{NONE, ToErrorCode as _};
use crate::coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::topics::TopicError;

/// Kinds of coordinator keys.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

const NOT_AVAILABLE_MESSAGE: &str = "The coordinator is not available.";
const INVALID_MESSAGE: &str = "This most likely occurs because of a request being malformed by the client \
                               library or the message was sent to an incompatible broker. See the broker \
                               logs for more details.";

/// Why no coordinator is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindCoordinatorError {
    /// Not yet, not any more, or not on the client's listener.
    #[error("there is no coordinator at present")]
    NotAvailable,
    #[error("nobody knows coordinators of this type")]
    UnknownType,
}

/// A broker and where the client reaches it.
struct Node {
    id: i32,
    endpoint: Endpoint,
}

/// `FindCoordinator` (key 10, v0–6).
pub async fn find_coordinator(
    request: FindCoordinatorRequest,
    context: &Context<'_>,
) -> FindCoordinatorResponse {
    if context.version < 4 {
        return respond_one(
            find(request.key_type, &request.key, context).await,
            context.version,
        );
    }
    let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
    for key in request.coordinator_keys {
        let found = find(request.key_type, &key, context).await;
        coordinators.push(respond_each(request.key_type, key, found));
    }
    FindCoordinatorResponse::default().with_coordinators(coordinators)
}

async fn find(
    key_type: i8,
    key: &str,
    context: &Context<'_>,
) -> Result<Node, FindCoordinatorError> {
    match key_type {
        GROUP => {
            let partition = context.broker.groups.partition_for(key);
            leader_of(OFFSETS_TOPIC, partition, context).await
        }
        TRANSACTION => {
            let partition = context.broker.transactions.partition_for(key);
            leader_of(TRANSACTIONS_TOPIC, partition, context).await
        }
        SHARE if context.version >= 6 => Err(FindCoordinatorError::NotAvailable),
        _ => Err(FindCoordinatorError::UnknownType),
    }
}

/// The leader of a partition of an internal topic, which is created if nobody has needed it before.
async fn leader_of(
    topic: &str,
    partition: i32,
    context: &Context<'_>,
) -> Result<Node, FindCoordinatorError> {
    let broker = context.broker;
    let image = broker.metadata.image();
    if image.topic(topic).is_none() {
        match broker.topics.create_internal(topic).await {
            Ok(()) => {}
            Err(error @ TopicError::Placement(_)) => {
                tracing::error!(topic, %error, "too few brokers are alive for an internal topic");
            }
            Err(error) => tracing::warn!(topic, %error, "an internal topic is not there yet"),
        }
        return Err(FindCoordinatorError::NotAvailable);
    }
    let leader = image
        .partition(topic, partition)
        .and_then(|partition| partition.leader())
        .ok_or(FindCoordinatorError::NotAvailable)?;
    let endpoint = image
        .endpoint(leader, context.listener())
        .ok_or(FindCoordinatorError::NotAvailable)?;
    Ok(Node {
        id: leader.0,
        endpoint: endpoint.clone(),
    })
}

fn respond_each(
    key_type: i8,
    key: StrBytes,
    found: Result<Node, FindCoordinatorError>,
) -> Coordinator {
    // Only a type that nobody knows fails the request as a whole, with a message.
    let is_known = matches!(key_type, GROUP | TRANSACTION | SHARE);
    let message = if is_known { "" } else { INVALID_MESSAGE };
    let answer = Coordinator::default()
        .with_key(key)
        .with_error_message(Some(StrBytes::from_static_str(message)));
    match found {
        Ok(node) => answer
            .with_node_id(BrokerId(node.id))
            .with_host(StrBytes::from_string(node.endpoint.host))
            .with_port(i32::from(node.endpoint.port)),
        Err(error) => answer
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(error.error_code()),
    }
}

fn respond_one(found: Result<Node, FindCoordinatorError>, version: i16) -> FindCoordinatorResponse {
    let (message, response) = match found {
        Ok(node) => (
            "NONE",
            FindCoordinatorResponse::default()
                .with_error_code(NONE)
                .with_node_id(BrokerId(node.id))
                .with_host(StrBytes::from_string(node.endpoint.host))
                .with_port(i32::from(node.endpoint.port)),
        ),
        Err(error) => (
            match error {
                FindCoordinatorError::UnknownType => INVALID_MESSAGE,
                FindCoordinatorError::NotAvailable => NOT_AVAILABLE_MESSAGE,
            },
            FindCoordinatorResponse::default()
                .with_error_code(error.error_code())
                .with_node_id(BrokerId(-1))
                .with_port(-1),
        ),
    };
    if version == 0 {
        response
    } else {
        response.with_error_message(Some(StrBytes::from_static_str(message)))
    }
}
