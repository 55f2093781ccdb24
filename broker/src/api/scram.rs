//! SCRAM credentials of users (KIP-554): `DescribeUserScramCredentials` (key 50), which `kafka-configs` asks for beside
//! the quotas of users, and `AlterUserScramCredentials` (key 51).

use std::collections::{BTreeMap, BTreeSet};

use barnabas_core::controller::ControllerError;
use barnabas_core::scram::{self, Alteration, Change, Mechanism, ScramError};
use barnabas_core::znodes::ConfigEntity;
use indexmap::{IndexMap, IndexSet};
use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
use kafka_protocol::protocol::StrBytes;
use ring::digest::{self, digest};
use ring::hmac;

use super::Context;
use super::error_code::{NONE, ToErrorCode, message_of};
use crate::zookeeper::{ConfigReadError, ConfigWriteError};

/// Why credentials are not described. The texts are Kafka's.
#[derive(Debug, thiserror::Error)]
pub enum DescribeScramError {
    #[error("Cannot describe SCRAM credentials for the same user twice in a single request: {0}")]
    Repeated(String),
    #[error("Username must not be empty")]
    EmptyName,
    #[error("Attempt to describe a user credential that does not exist: {0}")]
    UnknownUser(String),
    #[error("")]
    Read(#[from] ConfigReadError),
}

/// Why credentials are not changed.
#[derive(Debug, thiserror::Error)]
pub enum AlterScramError {
    #[error(transparent)]
    Refused(#[from] ScramError),
    #[error("{}", message_of(ControllerError::NotController))]
    NotController,
    #[error("{}", message_of(ControllerError::Failed))]
    Read(#[from] ConfigReadError),
    #[error("{}", message_of(ControllerError::Failed))]
    Write(#[from] ConfigWriteError),
}

/// The number of a mechanism on the wire.
fn wire_number(mechanism: Mechanism) -> i8 {
    match mechanism {
        Mechanism::Sha256 => 1,
        Mechanism::Sha512 => 2,
    }
}

fn mechanism_of(number: i8) -> Option<Mechanism> {
    let mut mechanisms = Mechanism::ALL.into_iter();
    mechanisms.find(|mechanism| wire_number(*mechanism) == number)
}

fn text(text: &(impl ToString + ?Sized)) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

/// `DescribeUserScramCredentials` (v0): mechanisms and iterations, never what the credentials are.
pub async fn describe_user_scram_credentials(
    request: DescribeUserScramCredentialsRequest,
    context: &Context<'_>,
) -> DescribeUserScramCredentialsResponse {
    let users = match users_with_credentials(context).await {
        Ok(users) => users,
        Err(error) => {
            tracing::warn!(%error, "credentials are not described");
            let error = DescribeScramError::Read(error);
            return DescribeUserScramCredentialsResponse::default()
                .with_error_code(error.error_code())
                .with_error_message(Some(text(&error)));
        }
    };
    let asked = request.users.filter(|asked| !asked.is_empty());
    let results = match asked {
        None => users
            .into_iter()
            .map(|(user, credentials)| described(user, Ok(credentials)))
            .collect(),
        Some(asked) => {
            let mut names = IndexSet::with_capacity(asked.len());
            let mut twice = BTreeSet::new();
            for user in asked {
                let name = user.name.to_string();
                if !names.insert(name.clone()) {
                    twice.insert(name);
                }
            }
            let outcome = |name: &String| {
                if name.is_empty() {
                    return Err(DescribeScramError::EmptyName);
                }
                if twice.contains(name) {
                    return Err(DescribeScramError::Repeated(name.clone()));
                }
                let credentials = users.get(name).cloned();
                credentials.ok_or_else(|| DescribeScramError::UnknownUser(name.clone()))
            };
            let results = names.into_iter().map(|name| {
                let outcome = outcome(&name);
                described(name, outcome)
            });
            results.collect()
        }
    };
    DescribeUserScramCredentialsResponse::default()
        .with_error_code(NONE)
        .with_error_message(Some(StrBytes::default()))
        .with_results(results)
}

async fn users_with_credentials(
    context: &Context<'_>,
) -> Result<BTreeMap<String, Vec<CredentialInfo>>, ConfigReadError> {
    let configs = context.broker.zookeeper.read_quota_configs().await?;
    let users = configs.into_iter().filter_map(|(entity, settings)| {
        let ConfigEntity::User(Some(user)) = entity else {
            return None;
        };
        let credentials = credentials(&settings);
        (!credentials.is_empty()).then_some((user, credentials))
    });
    Ok(users.collect())
}

fn credentials(settings: &BTreeMap<String, String>) -> Vec<CredentialInfo> {
    let found = Mechanism::ALL.into_iter().filter_map(|mechanism| {
        let iterations = scram::iterations_of(settings.get(mechanism.name())?)?;
        Some(
            CredentialInfo::default()
                .with_mechanism(wire_number(mechanism))
                .with_iterations(iterations),
        )
    });
    found.collect()
}

fn described(
    user: String,
    outcome: Result<Vec<CredentialInfo>, DescribeScramError>,
) -> DescribeUserScramCredentialsResult {
    let result =
        DescribeUserScramCredentialsResult::default().with_user(StrBytes::from_string(user));
    match outcome {
        Ok(credentials) => result
            .with_error_message(Some(StrBytes::default()))
            .with_credential_infos(credentials),
        Err(error) => result
            .with_error_code(error.error_code())
            .with_error_message(Some(text(&error))),
    }
}

/// `AlterUserScramCredentials` (v0): on the controller only. A user with one bad alteration keeps all credentials.
pub async fn alter_user_scram_credentials(
    request: AlterUserScramCredentialsRequest,
    context: &Context<'_>,
) -> AlterUserScramCredentialsResponse {
    let deletions = request.deletions.into_iter().map(|deletion| Alteration {
        user: deletion.name.to_string(),
        mechanism: mechanism_of(deletion.mechanism),
        change: Change::Delete,
    });
    let upsertions = request.upsertions.iter().map(upsertion);
    let alterations: Vec<Alteration> = upsertions.chain(deletions).collect();
    let outcomes = if context.broker.controller.is_active() {
        alter_all(&alterations, context).await
    } else {
        let users: BTreeSet<&String> = alterations.iter().map(|one| &one.user).collect();
        let users = users.into_iter().cloned();
        users
            .map(|user| (user, Err(AlterScramError::NotController)))
            .collect()
    };
    let results = outcomes.into_iter().map(|(user, outcome)| {
        let result =
            AlterUserScramCredentialsResult::default().with_user(StrBytes::from_string(user));
        match outcome {
            Ok(()) => result.with_error_message(Some(StrBytes::default())),
            Err(error) => {
                tracing::debug!(%error, "credentials are not changed");
                result
                    .with_error_code(error.error_code())
                    .with_error_message(Some(text(&error)))
            }
        }
    });
    AlterUserScramCredentialsResponse::default().with_results(results.collect())
}

async fn alter_all(
    alterations: &[Alteration],
    context: &Context<'_>,
) -> Vec<(String, Result<(), AlterScramError>)> {
    let refusals = scram::refusals(alterations);
    let users: IndexSet<&String> = alterations.iter().map(|one| &one.user).collect();
    let users = users.into_iter();
    let users: Vec<&String> = users.filter(|user| !refusals.contains_key(*user)).collect();
    let mut outcomes: IndexMap<String, Result<(), AlterScramError>> = refusals
        .into_iter()
        .map(|(user, error)| (user, Err(error.into())))
        .collect();
    for user in users {
        let outcome = alter_one(user, alterations, context).await;
        outcomes.insert(user.clone(), outcome);
    }
    outcomes.into_iter().collect()
}

async fn alter_one(
    user: &str,
    alterations: &[Alteration],
    context: &Context<'_>,
) -> Result<(), AlterScramError> {
    let zookeeper = &context.broker.zookeeper;
    let entity = ConfigEntity::User(Some(user.to_owned()));
    let mut settings = zookeeper.read_config(&entity).await?;
    scram::alter(user, alterations, &mut settings)?;
    zookeeper.write_config(&entity, settings).await?;
    Ok(())
}

/// What a client asks for; the credential follows from the salted password (RFC 5802, section 3).
fn upsertion(upsertion: &ScramCredentialUpsertion) -> Alteration {
    let mechanism = mechanism_of(upsertion.mechanism);
    let iterations = upsertion.iterations;
    let credential = mechanism.map(|mechanism| {
        let (mac, hash) = match mechanism {
            Mechanism::Sha256 => (hmac::HMAC_SHA256, &digest::SHA256),
            Mechanism::Sha512 => (hmac::HMAC_SHA512, &digest::SHA512),
        };
        let salted_password = hmac::Key::new(mac, &upsertion.salted_password);
        let client_key = hmac::sign(&salted_password, b"Client Key");
        let server_key = hmac::sign(&salted_password, b"Server Key");
        let stored_key = digest(hash, client_key.as_ref());
        scram::stored_text(
            &upsertion.salt,
            stored_key.as_ref(),
            server_key.as_ref(),
            iterations,
        )
    });
    Alteration {
        user: upsertion.name.to_string(),
        mechanism,
        change: Change::Upsert {
            iterations,
            credential: credential.unwrap_or_default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use serde::Deserialize;

    use super::*;

    /// A credential that Kafka made.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Recorded {
        mechanism: String,
        iterations: i32,
        salt_base64: String,
        salted_password_base64: String,
        znode_value: String,
    }

    #[test]
    fn credentials_are_stored_as_by_kafka() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/golden/units/scram.json"
        );
        let recorded = std::fs::read_to_string(path).unwrap();
        let recorded: Vec<Recorded> = serde_json::from_str(&recorded).unwrap();
        assert!(!recorded.is_empty());
        let bytes = |text: &str| {
            let engine = base64::engine::general_purpose::STANDARD;
            engine.decode(text).unwrap()
        };
        for case in recorded {
            let mut mechanisms = Mechanism::ALL.into_iter();
            let mechanism = mechanisms.find(|one| one.name() == case.mechanism).unwrap();
            let wish = ScramCredentialUpsertion::default()
                .with_mechanism(wire_number(mechanism))
                .with_iterations(case.iterations)
                .with_salt(bytes(&case.salt_base64).into())
                .with_salted_password(bytes(&case.salted_password_base64).into());
            let expected = Change::Upsert {
                iterations: case.iterations,
                credential: case.znode_value,
            };
            assert_eq!(upsertion(&wish).change, expected);
        }
    }
}
