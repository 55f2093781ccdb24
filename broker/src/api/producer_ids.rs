//! Identities of idempotent producers.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::Context;
use super::error_code::{ResponseError, ToErrorCode};

/// No producer id, no producer epoch.
const NONE: i64 = -1;

/// `InitProducerId` (key 22, v0–5): an id for a producer. Transactions have no coordinator yet, which clients are
/// told in a way that makes them try again.
pub async fn init_producer_id(
    request: InitProducerIdRequest,
    context: &Context<'_>,
) -> InitProducerIdResponse {
    match producer_id(&request, context).await {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(0),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(NONE))
            .with_producer_epoch(NONE as i16),
    }
}

async fn producer_id(
    request: &InitProducerIdRequest,
    context: &Context<'_>,
) -> Result<i64, ResponseError> {
    let has_id = request.producer_id.0 != NONE;
    let has_epoch = i64::from(request.producer_epoch) != NONE;
    if has_id != has_epoch {
        return Err(ResponseError::InvalidRequest);
    }
    let Some(transactional_id) = &request.transactional_id else {
        // An id that the producer has already does not matter: it gets a new one.
        let id = context.broker.producer_ids.next().await;
        return id.map_err(|error| {
            tracing::warn!(%error, "a producer got no id");
            error.to_response_error()
        });
    };
    if transactional_id.0.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    let timeout_max = context.broker.config.broker().transaction_max_timeout_ms;
    if !(1..=timeout_max).contains(&request.transaction_timeout_ms) {
        return Err(ResponseError::InvalidTransactionTimeout);
    }
    Err(ResponseError::CoordinatorNotAvailable)
}
