//! Delegation tokens (KIP-48): keys 38 to 41. Kafka gives none to who has not proved who it is, which is everybody
//! on a listener in the clear.

use kafka_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse,
    RenewDelegationTokenRequest, RenewDelegationTokenResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::error_code::ToErrorCode as _;
use super::{Context, Principal};

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("tokens are not given over connections without authentication")]
    NotAllowed,
    /// An owner with a name and without a type, over which Kafka stumbles.
    #[error("the owner of a token has no type")]
    OwnerWithoutType,
}

/// Neither a time nor a token.
const NEVER_MS: i64 = -1;

/// First version that tells who asked (KIP-373).
const TELLS_REQUESTER: i16 = 3;

/// `CreateDelegationToken` (key 38, v0–3).
pub async fn create(
    request: CreateDelegationTokenRequest,
    context: &Context<'_>,
) -> CreateDelegationTokenResponse {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let requester = &context.connection.principal;
    let owner = request.owner_principal_name.filter(|name| !name.is_empty());
    let (error, owner, requester) = match (owner, request.owner_principal_type) {
        (None, _) => {
            let own = (text(&requester.kind), text(&requester.name));
            (TokenError::NotAllowed, own, requester.clone())
        }
        (Some(name), Some(kind)) => (TokenError::NotAllowed, (kind, name), requester.clone()),
        (Some(_), None) => {
            let nobody = Principal::anonymous();
            let owner = (text(&nobody.kind), text(&nobody.name));
            (TokenError::OwnerWithoutType, owner, nobody)
        }
    };
    let response = CreateDelegationTokenResponse::default()
        .with_error_code(error.error_code())
        .with_principal_type(owner.0)
        .with_principal_name(owner.1)
        .with_issue_timestamp_ms(NEVER_MS)
        .with_expiry_timestamp_ms(NEVER_MS)
        .with_max_timestamp_ms(NEVER_MS);
    if context.version < TELLS_REQUESTER {
        return response;
    }
    response
        .with_token_requester_principal_type(text(&requester.kind))
        .with_token_requester_principal_name(text(&requester.name))
}

/// `RenewDelegationToken` (key 39, v0–2).
pub async fn renew(
    _request: RenewDelegationTokenRequest,
    _context: &Context<'_>,
) -> RenewDelegationTokenResponse {
    RenewDelegationTokenResponse::default()
        .with_error_code(TokenError::NotAllowed.error_code())
        .with_expiry_timestamp_ms(NEVER_MS)
}

/// `ExpireDelegationToken` (key 40, v0–2).
pub async fn expire(
    _request: ExpireDelegationTokenRequest,
    _context: &Context<'_>,
) -> ExpireDelegationTokenResponse {
    ExpireDelegationTokenResponse::default()
        .with_error_code(TokenError::NotAllowed.error_code())
        .with_expiry_timestamp_ms(NEVER_MS)
}

/// `DescribeDelegationToken` (key 41, v0–3).
pub async fn describe(
    _request: DescribeDelegationTokenRequest,
    _context: &Context<'_>,
) -> DescribeDelegationTokenResponse {
    DescribeDelegationTokenResponse::default().with_error_code(TokenError::NotAllowed.error_code())
}
