//! SASL on listeners without it: `SaslHandshake` (key 17), `SaslAuthenticate` (key 36). Whoever comes there is let in
//! as it is, so both come too late.

use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::error_code::ToErrorCode as _;

/// Why nobody proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The text is Kafka's.
    #[error("SaslAuthenticate request received after successful authentication")]
    AlreadyAuthenticated,
}

/// `SaslHandshake` (v0–1).
pub async fn handshake(
    _request: SaslHandshakeRequest,
    _context: &Context<'_>,
) -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(SaslError::AlreadyAuthenticated.error_code())
}

/// `SaslAuthenticate` (v0–2).
pub async fn authenticate(
    _request: SaslAuthenticateRequest,
    _context: &Context<'_>,
) -> SaslAuthenticateResponse {
    let error = SaslError::AlreadyAuthenticated;
    SaslAuthenticateResponse::default()
        .with_error_code(error.error_code())
        .with_error_message(Some(StrBytes::from_string(error.to_string())))
}
