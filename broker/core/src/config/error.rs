//! What can be wrong with a setting, in one sentence for a person and in Kafka's words for a client.

use std::fmt;

use super::setting::{Check, Kind};

/// A setting whose value cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    /// The key as it was given.
    pub key: String,
    /// The text of the value, unless it is secret or missing.
    pub value: Option<String>,
    pub problem: ConfigProblem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigProblem {
    /// The text is no value of this type.
    NotOfKind(Kind),
    /// The value is of the right type but not allowed.
    Fails(Check),
    /// The topic table has no such key.
    UnknownTopicKey,
    /// A rule about several settings or about the meaning of one; `remedy` says what would be right.
    Rule {
        /// In Kafka's words where a client can see it.
        message: String,
        /// What to write instead.
        remedy: String,
    },
}

impl ConfigError {
    /// An error of a rule that is not the check of a single row.
    pub fn rule(
        key: impl Into<String>,
        value: Option<&str>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            value: value.map(str::to_owned),
            problem: ConfigProblem::Rule {
                message: message.into(),
                remedy: remedy.into(),
            },
        }
    }

    /// The message that Kafka's `ConfigException` carries to clients.
    pub fn kafka_message(&self) -> String {
        let value = self.value.as_deref().unwrap_or("null");
        let invalid = |what: String| {
            format!(
                "Invalid value {value} for configuration {}: {what}",
                self.key
            )
        };
        match &self.problem {
            ConfigProblem::NotOfKind(kind) => invalid(kind.kafka_parse_message().to_owned()),
            ConfigProblem::Fails(check) => {
                let (shown, message) = check.kafka_message(&self.key, value);
                format!(
                    "Invalid value {shown} for configuration {}: {message}",
                    self.key
                )
            }
            ConfigProblem::UnknownTopicKey => format!("Unknown topic config name: {}", self.key),
            ConfigProblem::Rule { message, .. } => message.clone(),
        }
    }
}

impl fmt::Display for ConfigError {
    /// Which key, what is wrong, what would be right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}: ", self.key)?,
            None => write!(f, "{}: ", self.key)?,
        }
        match &self.problem {
            ConfigProblem::NotOfKind(kind) => {
                write!(f, "this is not {}; give {}", kind.noun(), kind.example())
            }
            ConfigProblem::Fails(check) => {
                write!(f, "the value is not allowed; give {}", check.allowed())
            }
            ConfigProblem::UnknownTopicKey => {
                f.write_str("no topic setting has this name; see the list of topic settings")
            }
            ConfigProblem::Rule { message, remedy } => {
                write!(f, "{}; {remedy}", message.trim_end_matches('.'))
            }
        }
    }
}

impl std::error::Error for ConfigError {}
