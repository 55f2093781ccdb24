//! Access rights: `DescribeAcls` (key 29), `CreateAcls` (key 30), `DeleteAcls` (key 31). There is no authorizer, so
//! nobody has any; what is asked for is checked as Kafka does when it reads the request.

use bytes::Bytes;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsRequest, DescribeAclsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::error_code::ToErrorCode as _;
use super::{Context, MalformedRequest, decode};

/// Why access rights are neither told nor changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// Nobody decides what principals may do. The texts are Kafka's.
    #[error("No Authorizer is configured.")]
    NoAuthorizer,
    #[error("No Authorizer is configured on the broker")]
    NothingToDescribe,
}

impl AclError {
    fn text(self) -> StrBytes {
        StrBytes::from_string(self.to_string())
    }
}

/// `UNKNOWN` as a type of resources or patterns, an operation or a permission.
const UNKNOWN: i8 = 0;

/// Fails for a kind that Kafka cannot tell (`UNKNOWN`): it hangs up over such a request.
fn require_known(kinds: [i8; 4]) -> Result<(), MalformedRequest> {
    if kinds.contains(&UNKNOWN) {
        let problem = "an access right is of an unknown kind";
        return Err(MalformedRequest::Body(problem.to_owned()));
    }
    Ok(())
}

/// Reads a request of [`describe_acls`].
pub(super) fn decode_description(
    body: Bytes,
    version: i16,
) -> Result<DescribeAclsRequest, MalformedRequest> {
    let request: DescribeAclsRequest = decode::guarded(body, version)?;
    require_known([
        request.resource_type_filter,
        request.pattern_type_filter,
        request.operation,
        request.permission_type,
    ])?;
    Ok(request)
}

/// Reads a request of [`create_acls`].
pub(super) fn decode_creations(
    body: Bytes,
    version: i16,
) -> Result<CreateAclsRequest, MalformedRequest> {
    let request: CreateAclsRequest = decode::guarded(body, version)?;
    for creation in &request.creations {
        require_known([
            creation.resource_type,
            creation.resource_pattern_type,
            creation.operation,
            creation.permission_type,
        ])?;
    }
    Ok(request)
}

/// Reads a request of [`delete_acls`].
pub(super) fn decode_filters(
    body: Bytes,
    version: i16,
) -> Result<DeleteAclsRequest, MalformedRequest> {
    let request: DeleteAclsRequest = decode::guarded(body, version)?;
    for filter in &request.filters {
        require_known([
            filter.resource_type_filter,
            filter.pattern_type_filter,
            filter.operation,
            filter.permission_type,
        ])?;
    }
    Ok(request)
}

/// `DescribeAcls` (v0–3).
pub async fn describe_acls(
    _request: DescribeAclsRequest,
    _context: &Context<'_>,
) -> DescribeAclsResponse {
    let error = AclError::NothingToDescribe;
    DescribeAclsResponse::default()
        .with_error_code(error.error_code())
        .with_error_message(Some(error.text()))
}

/// `CreateAcls` (v0–3).
pub async fn create_acls(request: CreateAclsRequest, _context: &Context<'_>) -> CreateAclsResponse {
    let error = AclError::NoAuthorizer;
    let result = AclCreationResult::default()
        .with_error_code(error.error_code())
        .with_error_message(Some(error.text()));
    CreateAclsResponse::default().with_results(vec![result; request.creations.len()])
}

/// `DeleteAcls` (v0–3).
pub async fn delete_acls(request: DeleteAclsRequest, _context: &Context<'_>) -> DeleteAclsResponse {
    let error = AclError::NoAuthorizer;
    let result = DeleteAclsFilterResult::default()
        .with_error_code(error.error_code())
        .with_error_message(Some(error.text()));
    DeleteAclsResponse::default().with_filter_results(vec![result; request.filters.len()])
}
