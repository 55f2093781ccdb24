//! `ApiVersions` (key 18): what this broker serves, told from the table itself.

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::error_code::{NONE, ToErrorCode as _};
use super::{API_TABLE, Api, Context, RequestError};

/// `ApiVersions` (key 18, v0–4).
pub async fn api_versions(
    request: ApiVersionsRequest,
    context: &Context<'_>,
) -> ApiVersionsResponse {
    let software = [
        &request.client_software_name,
        &request.client_software_version,
    ];
    if context.version >= 3 && !software.into_iter().all(|text| names_software(text)) {
        return ApiVersionsResponse::default().with_error_code(RequestError::Invalid.error_code());
    }
    let mut api_keys: Vec<_> = API_TABLE.iter().map(listed).collect();
    api_keys.sort_unstable_by_key(|api| api.api_key);
    let mut response = ApiVersionsResponse::default()
        .with_error_code(NONE)
        .with_api_keys(api_keys);
    if context.version >= 3 {
        // Without a `/feature` znode Kafka 3.9 answers an empty feature set of epoch 0.
        response = response.with_finalized_features_epoch(0);
    }
    response
}

/// The answer to a version that this broker lacks; always in the format of version 0 (KIP-511).
pub fn unsupported_version(api_versions: &Api) -> ApiVersionsResponse {
    ApiVersionsResponse::default()
        .with_error_code(RequestError::UnsupportedVersion.error_code())
        .with_api_keys(vec![listed(api_versions)])
}

fn listed(api: &Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key)
        .with_min_version(api.min_version)
        .with_max_version(api.max_version)
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`
fn names_software(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::names_software;

    #[test]
    fn software_names_are_checked_as_kafka_does() {
        for good in ["a", "apache-kafka-java", "3.9.1", "A-.b"] {
            assert!(names_software(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a/b", ".", "ä"] {
            assert!(!names_software(bad), "{bad}");
        }
    }
}
