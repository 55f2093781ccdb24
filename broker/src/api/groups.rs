//! Coordinators of groups and transactions. None is served yet: `FindCoordinator` says so in a way that
//! clients retry, so that a consumer with a group waits and reports instead of being cut off.

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::error_code::ResponseError;

/// Kinds of coordinator keys.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

const NOT_AVAILABLE_MESSAGE: &str = "The coordinator is not available.";
const INVALID_MESSAGE: &str = "This most likely occurs because of a request being malformed by the client \
                               library or the message was sent to an incompatible broker. See the broker \
                               logs for more details.";

/// `FindCoordinator` (key 10, v0–6).
pub async fn find_coordinator(
    request: FindCoordinatorRequest,
    context: &Context<'_>,
) -> FindCoordinatorResponse {
    let version = context.version;
    let error = match request.key_type {
        GROUP | TRANSACTION => ResponseError::CoordinatorNotAvailable,
        SHARE if version >= 6 => ResponseError::CoordinatorNotAvailable,
        _ => ResponseError::InvalidRequest,
    };
    if version >= 4 {
        // Only a type that nobody knows fails the request as a whole, with a message.
        let is_known = matches!(request.key_type, GROUP | TRANSACTION | SHARE);
        let message = if is_known { "" } else { INVALID_MESSAGE };
        let coordinators = request.coordinator_keys.into_iter().map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_static_str(message)))
        });
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    let response = FindCoordinatorResponse::default()
        .with_error_code(error.code())
        .with_node_id(BrokerId(-1))
        .with_port(-1);
    if version == 0 {
        return response;
    }
    let is_invalid = error == ResponseError::InvalidRequest;
    let message = if is_invalid {
        INVALID_MESSAGE
    } else {
        NOT_AVAILABLE_MESSAGE
    };
    response.with_error_message(Some(StrBytes::from_static_str(message)))
}
