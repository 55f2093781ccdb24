//! Quotas as administrators see them: `DescribeClientQuotas` (key 48) and `AlterClientQuotas` (key 49).

use barnabas_core::quota::entity::{
    self, AlterQuotaError, Match, QuotaFilter, QuotaFilterError, parts_of, quotas_of,
};
use barnabas_core::znodes::ConfigEntity;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData as Alteration};
use kafka_protocol::messages::alter_client_quotas_response as altered;
use kafka_protocol::messages::describe_client_quotas_response as described;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::error_code::{NONE, ToErrorCode};
use super::{Context, RequestError};
use crate::host;
use crate::quota::addresses_of;
use crate::zookeeper::{ConfigReadError, ConfigWriteError};

/// Why quotas are not described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeQuotasError {
    #[error("unknown type of match {0}")]
    MatchType(i8),
    #[error("a name to match is missing")]
    NoName,
    #[error(transparent)]
    Filter(#[from] QuotaFilterError),
    #[error(transparent)]
    Read(#[from] ConfigReadError),
}

/// Why quotas are not changed.
#[derive(Debug, thiserror::Error)]
pub enum AlterQuotasError {
    #[error(transparent)]
    Alteration(#[from] AlterQuotaError),
    #[error(transparent)]
    Read(#[from] ConfigReadError),
    #[error(transparent)]
    Write(#[from] ConfigWriteError),
}

fn text(text: &(impl ToString + ?Sized)) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

/// The message beside an error; Kafka is silent about what it did not expect.
fn message(error: &(impl ToErrorCode + ToString)) -> Option<StrBytes> {
    let is_expected = error.error_code() != RequestError::Unexpected.error_code();
    is_expected.then(|| text(&error.to_string()))
}

/// `DescribeClientQuotas` (v0–1): by any broker, which reads them from ZooKeeper.
pub async fn describe_client_quotas(
    request: DescribeClientQuotasRequest,
    context: &Context<'_>,
) -> DescribeClientQuotasResponse {
    match describe(request, context).await {
        Ok(entries) => DescribeClientQuotasResponse::default()
            .with_error_code(NONE)
            .with_error_message(Some(StrBytes::default()))
            .with_entries(Some(entries)),
        Err(error) => {
            tracing::debug!(%error, "quotas are not described");
            DescribeClientQuotasResponse::default()
                .with_error_code(error.error_code())
                .with_error_message(message(&error))
                .with_entries(None)
        }
    }
}

async fn describe(
    request: DescribeClientQuotasRequest,
    context: &Context<'_>,
) -> Result<Vec<described::EntryData>, DescribeQuotasError> {
    let mut parts = Vec::with_capacity(request.components.len());
    for component in request.components {
        let wanted = match component.match_type {
            0 => {
                let name = component._match.ok_or(DescribeQuotasError::NoName)?;
                Match::Exact(name.to_string())
            }
            1 => Match::Default,
            2 => Match::Any,
            other => return Err(DescribeQuotasError::MatchType(other)),
        };
        parts.push((component.entity_type.to_string(), wanted));
    }
    let filter = QuotaFilter::new(parts.into_iter(), request.strict)?;
    let configs = context.broker.zookeeper.read_quota_configs().await?;
    let selected = configs
        .into_iter()
        .filter(|(entity, _)| filter.selects(entity));
    let entries = selected.filter_map(|(entity, settings)| {
        let quotas = quotas_of(&settings);
        (!quotas.is_empty()).then(|| entry(&entity, quotas))
    });
    Ok(entries.collect())
}

fn entry(entity: &ConfigEntity, quotas: Vec<(String, f64)>) -> described::EntryData {
    let parts = parts_of(entity).into_iter().map(|(kind, name)| {
        described::EntityData::default()
            .with_entity_type(text(kind))
            .with_entity_name(name.map(|name| text(&name)))
    });
    let values = quotas.into_iter().map(|(key, value)| {
        described::ValueData::default()
            .with_key(text(&key))
            .with_value(value)
    });
    described::EntryData::default()
        .with_entity(parts.collect())
        .with_values(values.collect())
}

/// `AlterClientQuotas` (v0–1): by any broker, which writes them to ZooKeeper and tells all.
pub async fn alter_client_quotas(
    request: AlterClientQuotasRequest,
    context: &Context<'_>,
) -> AlterClientQuotasResponse {
    let mut entries = Vec::with_capacity(request.entries.len());
    for mut alteration in request.entries {
        alteration.entity = each_type_once(alteration.entity);
        let outcome = alter(&alteration, request.validate_only, context).await;
        let (code, message) = match outcome {
            Ok(()) => (NONE, None),
            Err(error) => {
                tracing::info!(%error, "quotas were not changed");
                (error.error_code(), message(&error))
            }
        };
        let parts = alteration.entity.into_iter().map(|part| {
            altered::EntityData::default()
                .with_entity_type(part.entity_type)
                .with_entity_name(part.entity_name)
        });
        entries.push(
            altered::EntryData::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_entity(parts.collect()),
        );
    }
    AlterClientQuotasResponse::default().with_entries(entries)
}

/// The parts of an entity: the last of each type counts.
fn each_type_once(parts: Vec<EntityData>) -> Vec<EntityData> {
    let mut once: Vec<EntityData> = Vec::with_capacity(parts.len());
    for part in parts {
        match once
            .iter_mut()
            .find(|known| known.entity_type == part.entity_type)
        {
            Some(known) => *known = part,
            None => once.push(part),
        }
    }
    once
}

async fn alter(
    alteration: &Alteration,
    is_validated_only: bool,
    context: &Context<'_>,
) -> Result<(), AlterQuotasError> {
    let parts = alteration.entity.iter();
    let entity = entity::entity_of(
        parts.map(|part| (part.entity_type.as_str(), part.entity_name.as_deref())),
    )?;
    if let ConfigEntity::Ip(Some(host)) = &entity {
        let name = host.clone();
        let addresses = host::blocking(move || addresses_of(&name)).await;
        if addresses.is_ok_and(|addresses| addresses.is_empty()) {
            return Err(entity::no_address(host).into());
        }
    }
    let zookeeper = &context.broker.zookeeper;
    let mut settings = zookeeper.read_config(&entity).await?;
    for operation in &alteration.ops {
        let value = (!operation.remove).then_some(operation.value);
        entity::alter(&entity, &mut settings, &operation.key, value)?;
    }
    if !is_validated_only {
        zookeeper.write_config(&entity, settings).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::TestBroker;
    use crate::zookeeper::coordination::CreateMode;
    use barnabas_core::znodes::ControllerSeat;
    use kafka_protocol::messages::alter_client_quotas_request::OpData;
    use kafka_protocol::messages::describe_client_quotas_request::ComponentData;

    fn alteration(parts: &[(&str, Option<&str>)], ops: &[(&str, Option<f64>)]) -> Alteration {
        let parts = parts.iter().map(|(kind, name)| {
            EntityData::default()
                .with_entity_type(text(kind))
                .with_entity_name(name.map(text))
        });
        let ops = ops.iter().map(|(key, value)| {
            OpData::default()
                .with_key(text(key))
                .with_value(value.unwrap_or(0.0))
                .with_remove(value.is_none())
        });
        Alteration::default()
            .with_entity(parts.collect())
            .with_ops(ops.collect())
    }

    async fn altered(broker: &TestBroker, alteration: Alteration) -> (i16, String) {
        let request = AlterClientQuotasRequest::default().with_entries(vec![alteration]);
        let response = alter_client_quotas(request, &broker.context(1)).await;
        let entry = &response.entries[0];
        let message = entry.error_message.as_ref();
        (
            entry.error_code,
            message.map_or_else(String::new, ToString::to_string),
        )
    }

    async fn described(broker: &TestBroker, kind: &str) -> Vec<(Option<String>, f64)> {
        let component = ComponentData::default()
            .with_entity_type(text(kind))
            .with_match_type(2);
        let request = DescribeClientQuotasRequest::default()
            .with_components(vec![component])
            .with_strict(true);
        let response = describe_client_quotas(request, &broker.context(1)).await;
        let entries = response.entries.unwrap().into_iter();
        entries
            .map(|entry| {
                let name = entry.entity[0].entity_name.as_ref();
                (name.map(ToString::to_string), entry.values[0].value)
            })
            .collect()
    }

    #[tokio::test]
    async fn quotas_are_written_described_and_removed() {
        let broker = TestBroker::new();
        let zookeeper = &broker.broker.zookeeper;
        zookeeper.create_base_paths().await.unwrap();
        let seat = ControllerSeat::new(broker.broker.broker_id, 0).encode();
        let mode = CreateMode::Persistent;
        let coordination = zookeeper.coordination();
        coordination
            .create(ControllerSeat::PATH, Some(seat), mode)
            .await
            .unwrap();
        let key = "consumer_byte_rate";
        let set = alteration(&[("client-id", Some("a b"))], &[(key, Some(2048.0))]);
        assert_eq!(altered(&broker, set).await.0, NONE);
        let default = alteration(&[("client-id", None)], &[(key, Some(1.0))]);
        assert_eq!(altered(&broker, default).await.0, NONE);
        let mut found = described(&broker, "client-id").await;
        found.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(found, [(None, 1.0), (Some("a b".to_owned()), 2048.0)]);
        let remove = alteration(&[("client-id", Some("a b"))], &[(key, None)]);
        assert_eq!(altered(&broker, remove).await.0, NONE);
        assert_eq!(described(&broker, "client-id").await, [(None, 1.0)]);
        assert_eq!(described(&broker, "user").await, []);
    }

    #[tokio::test]
    async fn what_is_only_validated_is_not_written() {
        let broker = TestBroker::new();
        let set = alteration(&[("user", Some("u"))], &[("request_percentage", Some(5.0))]);
        let request = AlterClientQuotasRequest::default()
            .with_entries(vec![set])
            .with_validate_only(true);
        let response = alter_client_quotas(request, &broker.context(0)).await;
        assert_eq!(response.entries[0].error_code, NONE);
        assert_eq!(described(&broker, "user").await, []);
    }

    #[tokio::test]
    async fn wrong_quotas_are_refused_in_kafkas_words() {
        let broker = TestBroker::new();
        let wrong = alteration(&[("ip", Some("x y"))], &[]);
        let (code, message) = altered(&broker, wrong).await;
        assert_eq!(code, RequestError::Invalid.error_code());
        assert_eq!(message, "x%20y is not a valid IP or resolvable host.");
        let credentials = alteration(&[("user", Some("u"))], &[("SCRAM-SHA-256", Some(1.0))]);
        let unexpected = (RequestError::Unexpected.error_code(), String::new());
        assert_eq!(altered(&broker, credentials).await, unexpected);
    }
}
