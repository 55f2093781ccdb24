//! Dynamic configuration of topics, brokers, users, clients and addresses.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::json::{Fields, MalformedZnode, encode, parse, text};
use crate::ids::BrokerId;

/// The name under which the default of an entity type is kept; the only name with such characters.
pub const DEFAULT_ENTITY: &str = "<default>";

/// Makes a user name, client id or address fit for a path: Java's URL encoding, but `*` as `%2A` and a
/// space as `%20` (Kafka's `Sanitizer`).
pub fn sanitize(name: &str) -> String {
    let mut sanitized = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
            sanitized.push(char::from(byte));
        } else {
            let hex = |digit: u8| {
                char::from_digit(u32::from(digit), 16).map(|hex| hex.to_ascii_uppercase())
            };
            sanitized.push('%');
            sanitized.extend(hex(byte >> 4).into_iter().chain(hex(byte & 15)));
        }
    }
    sanitized
}

/// The reverse of [`sanitize`]; bad escapes are an error and `+` is a space, as for Java's `URLDecoder`.
pub fn desanitize(text: &str) -> Result<String, InvalidConfigEntity> {
    let invalid = || InvalidConfigEntity(text.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2).ok_or_else(invalid)?;
                let digits = std::str::from_utf8(digits).map_err(|_| invalid())?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(invalid());
                }
                bytes.push(u8::from_str_radix(digits, 16).map_err(|_| invalid())?);
                rest = tail;
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

/// Why a text names nothing that can be configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no entity that can be configured")]
pub struct InvalidConfigEntity(pub String);

/// Something with a configuration of its own. Names are as users write them, not sanitized;
/// in users, clients and addresses `None` stands for the default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigEntity {
    Topic(String),
    Broker(BrokerId),
    DefaultBroker,
    User(Option<String>),
    Client(Option<String>),
    UserClient(Option<String>, Option<String>),
    Ip(Option<String>),
}

fn sanitized(name: Option<&String>) -> String {
    name.map_or_else(|| DEFAULT_ENTITY.to_owned(), |name| sanitize(name))
}

fn desanitized(text: &str) -> Result<Option<String>, InvalidConfigEntity> {
    if text == DEFAULT_ENTITY {
        return Ok(None);
    }
    desanitize(text).map(Some)
}

impl ConfigEntity {
    /// Parents of the entities of each type.
    pub const TYPE_PATHS: [&'static str; 5] = [
        "/config/topics",
        "/config/clients",
        "/config/users",
        "/config/brokers",
        "/config/ips",
    ];

    /// Those of them whose entities carry quotas.
    pub const QUOTA_TYPE_PATHS: [&'static str; 3] =
        ["/config/clients", "/config/users", "/config/ips"];

    /// What a change notification calls it: `topics/t`, `users/<default>/clients/c%2A1`.
    pub fn entity_path(&self) -> String {
        match self {
            Self::Topic(topic) => format!("topics/{topic}"),
            Self::Broker(id) => format!("brokers/{id}"),
            Self::DefaultBroker => format!("brokers/{DEFAULT_ENTITY}"),
            Self::User(user) => format!("users/{}", sanitized(user.as_ref())),
            Self::Client(client) => format!("clients/{}", sanitized(client.as_ref())),
            Self::UserClient(user, client) => {
                let (user, client) = (sanitized(user.as_ref()), sanitized(client.as_ref()));
                format!("users/{user}/clients/{client}")
            }
            Self::Ip(ip) => format!("ips/{}", sanitized(ip.as_ref())),
        }
    }

    /// The reverse of [`Self::entity_path`].
    pub fn from_entity_path(entity_path: &str) -> Result<Self, InvalidConfigEntity> {
        let invalid = || InvalidConfigEntity(entity_path.to_owned());
        let parts: Vec<&str> = entity_path.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(invalid());
        }
        match parts[..] {
            ["topics", topic] => Ok(Self::Topic(topic.to_owned())),
            ["brokers", DEFAULT_ENTITY] => Ok(Self::DefaultBroker),
            ["brokers", id] => {
                let id = id.parse().map_err(|_| invalid())?;
                Ok(Self::Broker(BrokerId(id)))
            }
            ["users", user] => Ok(Self::User(desanitized(user)?)),
            ["clients", client] => Ok(Self::Client(desanitized(client)?)),
            ["users", user, "clients", client] => {
                Ok(Self::UserClient(desanitized(user)?, desanitized(client)?))
            }
            ["ips", ip] => Ok(Self::Ip(desanitized(ip)?)),
            _ => Err(invalid()),
        }
    }

    /// The znode of the entity's configuration.
    pub fn path(&self) -> String {
        format!("/config/{}", self.entity_path())
    }

    /// Whether it carries quotas (or credentials): its znode goes away when nothing is left in it.
    pub fn is_quota_entity(&self) -> bool {
        match self {
            Self::Topic(_) | Self::Broker(_) | Self::DefaultBroker => false,
            Self::User(_) | Self::Client(_) | Self::UserClient(..) | Self::Ip(_) => true,
        }
    }

    /// The user's node that holds the clients of a user-and-client entity.
    pub fn user(&self) -> Option<ConfigEntity> {
        match self {
            Self::UserClient(user, _) => Some(Self::User(user.clone())),
            Self::Topic(_)
            | Self::Broker(_)
            | Self::DefaultBroker
            | Self::User(_)
            | Self::Client(_)
            | Self::Ip(_) => None,
        }
    }

    /// Where the clients of a user are kept.
    pub fn clients_path(&self) -> String {
        format!("{}/clients", self.path())
    }
}

impl fmt::Display for ConfigEntity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.entity_path())
    }
}

/// `/config/<type>/<name>` (version 1): overrides of one entity, all values as text.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EntityConfig(pub BTreeMap<String, String>);

impl EntityConfig {
    pub fn encode(&self) -> Vec<u8> {
        let config: Value = self.0.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        encode(&json!({"version": 1, "config": config}))
    }

    /// Null or empty data, as parents made on the way have it, is an empty configuration.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let value = parse(bytes)?;
        let Some(config) = Fields::of(&value)?.optional_object("config")? else {
            return Ok(Self::default());
        };
        let entries = config.entries();
        let entries = entries.map(|(k, v)| Ok((k.to_owned(), text("config", v)?.to_owned())));
        entries.collect::<Result<_, _>>().map(Self)
    }
}

/// `/config/changes/config_change_<seq>` (version 2; version 1 is still read): this entity changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange(pub ConfigEntity);

impl ConfigChange {
    pub const PARENT: &'static str = "/config/changes";
    pub const PREFIX: &'static str = "config_change_";

    /// The path to create sequentially.
    pub fn path_prefix() -> String {
        format!("{}/{}", Self::PARENT, Self::PREFIX)
    }

    /// The path of a node named in a listing of [`Self::PARENT`].
    pub fn path(name: &str) -> String {
        format!("{}/{name}", Self::PARENT)
    }

    pub fn encode(&self) -> Vec<u8> {
        encode(&json!({"version": 2, "entity_path": self.0.entity_path()}))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let value = parse(bytes)?;
        let fields = Fields::of(&value)?;
        let unexpected = |key, expected| MalformedZnode::Unexpected { key, expected };
        let (key, path) = match fields.int("version")? {
            1 => {
                let kind = fields.text("entity_type")?;
                if !matches!(kind, "topics" | "clients") {
                    return Err(unexpected("entity_type", "`topics` or `clients`"));
                }
                (
                    "entity_name",
                    format!("{kind}/{}", fields.text("entity_name")?),
                )
            }
            2 => ("entity_path", fields.text("entity_path")?.to_owned()),
            _ => return Err(unexpected("version", "1 or 2")),
        };
        let entity = ConfigEntity::from_entity_path(&path);
        entity
            .map(Self)
            .map_err(|_| unexpected(key, "an entity that can be configured"))
    }
}
