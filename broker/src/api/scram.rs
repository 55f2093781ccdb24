//! `DescribeUserScramCredentials` (key 50): who has SCRAM credentials, which `kafka-configs` asks for beside the
//! quotas of users.

use std::collections::{BTreeMap, BTreeSet};

use barnabas_core::znodes::ConfigEntity;
use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use kafka_protocol::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::error_code::{NONE, ResponseError};

/// Mechanisms, as settings of a user and on the wire.
const MECHANISMS: [(&str, i8); 2] = [("SCRAM-SHA-256", 1), ("SCRAM-SHA-512", 2)];

/// `DescribeUserScramCredentials` (v0): mechanisms and iterations, never what the credentials are.
pub async fn describe_user_scram_credentials(
    request: DescribeUserScramCredentialsRequest,
    context: &Context<'_>,
) -> DescribeUserScramCredentialsResponse {
    let configs = match context.broker.zookeeper.read_quota_configs().await {
        Ok(configs) => configs,
        Err(error) => {
            tracing::warn!(%error, "credentials are not described");
            let code = ResponseError::UnknownServerError.code();
            return DescribeUserScramCredentialsResponse::default()
                .with_error_code(code)
                .with_error_message(Some(StrBytes::default()));
        }
    };
    let users = configs.into_iter().filter_map(|(entity, settings)| {
        let ConfigEntity::User(Some(user)) = entity else {
            return None;
        };
        let credentials = credentials(&settings);
        (!credentials.is_empty()).then_some((user, credentials))
    });
    let users: BTreeMap<String, Vec<CredentialInfo>> = users.collect();
    let asked = request.users.filter(|asked| !asked.is_empty());
    let results = match asked {
        None => users
            .into_iter()
            .map(|(user, credentials)| described(user, credentials))
            .collect(),
        Some(asked) => {
            let mut names: Vec<String> = Vec::with_capacity(asked.len());
            let mut twice = BTreeSet::new();
            for user in asked {
                let name = user.name.to_string();
                if names.contains(&name) {
                    twice.insert(name);
                } else {
                    names.push(name);
                }
            }
            names
                .into_iter()
                .map(|name| {
                    if twice.contains(&name) {
                        let message = format!(
                            "Cannot describe SCRAM credentials for the same user twice in a single request: {name}"
                        );
                        return refused(name, ResponseError::DuplicateResource, message);
                    }
                    if let Some(credentials) = users.get(&name) { described(name, credentials.clone()) } else {
                        let message = format!(
                            "Attempt to describe a user credential that does not exist: {name}"
                        );
                        refused(name, ResponseError::ResourceNotFound, message)
                    }
                })
                .collect()
        }
    };
    DescribeUserScramCredentialsResponse::default()
        .with_error_code(NONE)
        .with_error_message(Some(StrBytes::default()))
        .with_results(results)
}

fn described(user: String, credentials: Vec<CredentialInfo>) -> DescribeUserScramCredentialsResult {
    DescribeUserScramCredentialsResult::default()
        .with_user(StrBytes::from_string(user))
        .with_error_message(Some(StrBytes::default()))
        .with_credential_infos(credentials)
}

fn refused(
    user: String,
    error: ResponseError,
    message: String,
) -> DescribeUserScramCredentialsResult {
    DescribeUserScramCredentialsResult::default()
        .with_user(StrBytes::from_string(user))
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_string(message)))
}

fn credentials(settings: &BTreeMap<String, String>) -> Vec<CredentialInfo> {
    let found = MECHANISMS.iter().filter_map(|(name, mechanism)| {
        let mut fields = settings.get(*name)?.split(',');
        let iterations = fields.find_map(|field| field.strip_prefix("iterations="))?;
        let iterations = iterations.trim().parse().ok()?;
        Some(
            CredentialInfo::default()
                .with_mechanism(*mechanism)
                .with_iterations(iterations),
        )
    });
    found.collect()
}
