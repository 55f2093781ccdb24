//! What an administrator may write about quotas, and what a filter selects. Kafka: `ZkAdminManager`.

use std::collections::BTreeMap;

use super::limits::{AddressLimits, QuotaKind};
use crate::znodes::{ConfigEntity, DEFAULT_ENTITY, sanitize};

/// Names of the types of entities.
pub const USER: &str = "user";
pub const CLIENT_ID: &str = "client-id";
pub const IP: &str = "ip";

/// How far a value may be from a whole number that it stands for.
const EPSILON: f64 = 1e-6;

/// Why a quota cannot be written. The texts are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterQuotaError {
    #[error("Invalid empty client quota entity")]
    NoEntity,
    #[error("Unhandled client quota entity type: {0}")]
    UnknownType(String),
    #[error("Empty {0} not supported")]
    EmptyName(String),
    #[error(
        "Invalid quota entity combination, IP entity should not be used with user/client ID entity."
    )]
    AddressAndClient,
    /// The name as it would stand in a path.
    #[error("{0} is not a valid IP or resolvable host.")]
    NoAddress(String),
    #[error("Invalid configuration key {0}")]
    UnknownKey(String),
    #[error("Configuration {key} must be a {kind} value")]
    NotWhole { key: String, kind: &'static str },
    /// Credentials, which are no number, or a number out of its range: unexpected to Kafka.
    #[error("{0} cannot have this value")]
    Unexpected(String),
}

/// What the parts of an entity, type and name, stand for together; no name is the default.
pub fn entity_of<'a>(
    parts: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<ConfigEntity, AlterQuotaError> {
    let (mut user, mut client, mut address) = (None, None, None);
    for (kind, name) in parts {
        let part = match kind {
            USER => &mut user,
            CLIENT_ID => &mut client,
            IP => &mut address,
            other => return Err(AlterQuotaError::UnknownType(other.to_owned())),
        };
        if name.is_some_and(str::is_empty) {
            return Err(AlterQuotaError::EmptyName(kind.to_owned()));
        }
        *part = Some(name.map(str::to_owned));
    }
    match (user, client, address) {
        (Some(user), Some(client), None) => Ok(ConfigEntity::UserClient(user, client)),
        (Some(user), None, None) => Ok(ConfigEntity::User(user)),
        (None, Some(client), None) => Ok(ConfigEntity::Client(client)),
        (None, None, Some(address)) => Ok(ConfigEntity::Ip(address)),
        (_, _, Some(_)) => Err(AlterQuotaError::AddressAndClient),
        (None, None, None) => Err(AlterQuotaError::NoEntity),
    }
}

/// The refusal of a name that is no address.
pub fn no_address(name: &str) -> AlterQuotaError {
    AlterQuotaError::NoAddress(sanitize(name))
}

/// Types of values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueType {
    Double,
    Long,
    Int,
    Credentials,
}

fn value_type(entity: &ConfigEntity, key: &str) -> Option<ValueType> {
    let is_address = matches!(entity, ConfigEntity::Ip(_));
    let is_user = matches!(entity, ConfigEntity::User(_) | ConfigEntity::UserClient(..));
    match key {
        "producer_byte_rate" | "consumer_byte_rate" if !is_address => Some(ValueType::Long),
        "request_percentage" | "controller_mutation_rate" if !is_address => Some(ValueType::Double),
        "SCRAM-SHA-256" | "SCRAM-SHA-512" if is_user => Some(ValueType::Credentials),
        AddressLimits::KEY if is_address => Some(ValueType::Int),
        _ => None,
    }
}

/// Sets a quota among the settings of an entity, or removes it.
pub fn alter(
    entity: &ConfigEntity,
    settings: &mut BTreeMap<String, String>,
    key: &str,
    value: Option<f64>,
) -> Result<(), AlterQuotaError> {
    let Some(value) = value else {
        settings.remove(key);
        return Ok(());
    };
    let kind = value_type(entity, key);
    let kind = kind.ok_or_else(|| AlterQuotaError::UnknownKey(key.to_owned()))?;
    let whole = |number: i64, kind| {
        if (number as f64 - value).abs() > EPSILON {
            let key = key.to_owned();
            return Err(AlterQuotaError::NotWhole { key, kind });
        }
        Ok(number.to_string())
    };
    let text = match kind {
        ValueType::Double => java_double(value),
        ValueType::Long => whole((value + EPSILON) as i64, "LONG")?,
        ValueType::Int => {
            let text = whole(i64::from((value + EPSILON) as i32), "INT")?;
            if value < -EPSILON {
                return Err(AlterQuotaError::Unexpected(key.to_owned()));
            }
            text
        }
        ValueType::Credentials => return Err(AlterQuotaError::Unexpected(key.to_owned())),
    };
    settings.insert(key.to_owned(), text);
    Ok(())
}

/// A number as Java writes it: `50.0`, `1.0E7`, `1.5E-4`.
pub fn java_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let point = if digits.contains('.') { "" } else { ".0" };
    format!("{digits}{point}E{exponent}")
}

/// What a filter asks of one part of an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    Exact(String),
    Default,
    /// Any name, and the default.
    Any,
}

impl Match {
    fn selects(&self, name: Option<&String>) -> bool {
        match self {
            // Kafka keeps the default under its name, by which it can be asked for as well.
            Self::Exact(wanted) => name.map_or(DEFAULT_ENTITY, String::as_str) == wanted,
            Self::Default => name.is_none(),
            Self::Any => true,
        }
    }
}

/// Why a filter selects nothing. The texts are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaFilterError {
    #[error("Duplicate {0} filter component entity type")]
    Duplicate(String),
    #[error("Unexpected empty filter component entity type")]
    EmptyType,
    #[error("Custom entity type '{0}' not supported")]
    UnknownType(String),
    #[error(
        "Invalid entity filter component combination, IP filter component should not be used with user or \
         clientId filter component."
    )]
    AddressAndClient,
}

/// Selects entities with quotas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaFilter {
    user: Option<Match>,
    client: Option<Match>,
    address: Option<Match>,
    /// Entities have no parts but those that are asked for.
    is_strict: bool,
}

impl QuotaFilter {
    /// The filter of type and match for several parts.
    pub fn new(
        parts: impl Iterator<Item = (String, Match)>,
        is_strict: bool,
    ) -> Result<Self, QuotaFilterError> {
        let mut filter = Self {
            user: None,
            client: None,
            address: None,
            is_strict,
        };
        for (kind, wanted) in parts {
            let part = match kind.as_str() {
                USER => &mut filter.user,
                CLIENT_ID => &mut filter.client,
                IP => &mut filter.address,
                "" => return Err(QuotaFilterError::EmptyType),
                _ => return Err(QuotaFilterError::UnknownType(kind)),
            };
            if part.replace(wanted).is_some() {
                return Err(QuotaFilterError::Duplicate(kind));
            }
        }
        if filter.address.is_some() && (filter.user.is_some() || filter.client.is_some()) {
            return Err(QuotaFilterError::AddressAndClient);
        }
        Ok(filter)
    }

    /// Whether an entity is selected.
    pub fn selects(&self, entity: &ConfigEntity) -> bool {
        let part = |wanted: &Option<Match>, name: Option<&Option<String>>| match (wanted, name) {
            (Some(wanted), Some(name)) => wanted.selects(name.as_ref()),
            (Some(_), None) => false,
            (None, Some(_)) => !self.is_strict,
            (None, None) => true,
        };
        let (user, client, address) = match entity {
            ConfigEntity::User(user) => (Some(user), None, None),
            ConfigEntity::Client(client) => (None, Some(client), None),
            ConfigEntity::UserClient(user, client) => (Some(user), Some(client), None),
            ConfigEntity::Ip(address) => (None, None, Some(address)),
            ConfigEntity::Topic(_) | ConfigEntity::Broker(_) | ConfigEntity::DefaultBroker => {
                return false;
            }
        };
        part(&self.user, user) && part(&self.client, client) && part(&self.address, address)
    }
}

/// The parts of an entity, type and name.
pub fn parts_of(entity: &ConfigEntity) -> Vec<(&'static str, Option<String>)> {
    match entity {
        ConfigEntity::User(user) => vec![(USER, user.clone())],
        ConfigEntity::Client(client) => vec![(CLIENT_ID, client.clone())],
        ConfigEntity::UserClient(user, client) => {
            vec![(USER, user.clone()), (CLIENT_ID, client.clone())]
        }
        ConfigEntity::Ip(address) => vec![(IP, address.clone())],
        ConfigEntity::Topic(_) | ConfigEntity::Broker(_) | ConfigEntity::DefaultBroker => {
            Vec::new()
        }
    }
}

/// The quotas among the settings of an entity; what is no number is left out.
pub fn quotas_of(settings: &BTreeMap<String, String>) -> Vec<(String, f64)> {
    let is_quota = |key: &str| {
        key == AddressLimits::KEY || QuotaKind::ALL.iter().any(|kind| kind.key() == key)
    };
    let quotas = settings.iter().filter(|(key, _)| is_quota(key));
    quotas
        .filter_map(|(key, text)| Some((key.clone(), text.trim().parse().ok()?)))
        .collect()
}
