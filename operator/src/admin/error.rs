//! Why a request to Kafka, or one item of it, was not done.

use std::time::Duration;

pub use kafka_protocol::error::ResponseError as KafkaError;

/// Why a whole request has no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No broker could be asked; nothing was sent.
    #[error("no broker can be reached: {0}")]
    Unreachable(String),
    /// The connection ended, or the time was over, after the request had been sent: it may have been done.
    #[error("no answer from broker {broker}: {cause}")]
    Unanswered { broker: String, cause: String },
    /// The broker has no version of the API that says what is needed.
    #[error("broker {broker} does not serve API key {key} in a version from {needed} on")]
    Unsupported {
        broker: String,
        key: i16,
        needed: i16,
    },
    /// The request as a whole was refused.
    #[error("{}", describe(*.error, .message.as_deref()))]
    Refused {
        error: KafkaError,
        message: Option<String>,
    },
    /// The broker does not accept who we are, or we do not accept it.
    #[error("cannot authenticate with broker {broker}: {cause}")]
    Authentication { broker: String, cause: String },
    /// Bytes that are no answer to what was asked.
    #[error("broker {broker} answered what cannot be read: {cause}")]
    Malformed { broker: String, cause: String },
    /// The options themselves cannot be used.
    #[error("{0}")]
    Options(String),
}

impl AdminError {
    /// Whether the request may have been done although there is no answer: describe before repeating it.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Unanswered { .. } | Self::Malformed { .. } => true,
            Self::Refused { error, .. } => *error == KafkaError::RequestTimedOut,
            Self::Unreachable(_)
            | Self::Unsupported { .. }
            | Self::Authentication { .. }
            | Self::Options(_) => false,
        }
    }

    /// Whether the same request may well succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Unanswered { .. } | Self::Malformed { .. } => true,
            Self::Refused { error, .. } => is_transient(*error),
            Self::Unsupported { .. } | Self::Authentication { .. } | Self::Options(_) => false,
        }
    }
}

/// Why one item of a request was not done, while others may have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", describe(*.error, .message.as_deref()))]
pub struct ItemError {
    pub error: KafkaError,
    /// What the broker says about it.
    pub message: Option<String>,
}

impl ItemError {
    /// The error of an item, or nothing for code 0.
    pub(super) fn check<M: ToString>(code: i16, message: Option<M>) -> Result<(), Self> {
        KafkaError::try_from_code(code).map_or(Ok(()), |error| {
            Err(Self {
                error,
                message: message.map(|text| text.to_string()),
            })
        })
    }

    /// Whether the same item may well succeed later.
    pub fn is_transient(&self) -> bool {
        is_transient(self.error)
    }

    /// Whether it may have been done although it was not confirmed: describe before repeating it.
    pub fn may_have_happened(&self) -> bool {
        self.error == KafkaError::RequestTimedOut
    }
}

fn is_transient(error: KafkaError) -> bool {
    error.is_retriable()
        || matches!(
            error,
            KafkaError::NotController
                | KafkaError::ThrottlingQuotaExceeded
                | KafkaError::ReassignmentInProgress
                | KafkaError::RequestTimedOut
        )
}

fn describe(error: KafkaError, message: Option<&str>) -> String {
    // The protocol's own name, as people search for it, then what the broker said.
    let name = name(error);
    match message {
        Some(message) if !message.is_empty() => format!("{name}: {message}"),
        _ => format!("{name}: {error}"),
    }
}

/// The protocol's name of an error: `NOT_CONTROLLER`.
pub fn name(error: KafkaError) -> String {
    if let KafkaError::Unknown(code) = error {
        return format!("UNKNOWN_CODE_{code}");
    }
    let debug = format!("{error:?}");
    let mut name = String::with_capacity(debug.len() + 8);
    for (at, letter) in debug.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// An answer, and how long the broker wants to be left alone (`throttle_time_ms`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    pub value: T,
    pub throttle: Duration,
}

impl<T> Answer<T> {
    pub(super) fn new(value: T, throttle_time_ms: i32) -> Self {
        Self {
            value,
            throttle: Duration::from_millis(u64::try_from(throttle_time_ms).unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_names_of_the_protocol() {
        assert_eq!(name(KafkaError::NotController), "NOT_CONTROLLER");
        assert_eq!(name(KafkaError::UnknownTopicId), "UNKNOWN_TOPIC_ID");
        assert_eq!(name(KafkaError::Unknown(999)), "UNKNOWN_CODE_999");
    }

    #[test]
    fn what_may_have_happened_is_told_apart() {
        let refused = |error| AdminError::Refused {
            error,
            message: None,
        };
        assert!(refused(KafkaError::RequestTimedOut).may_have_happened());
        assert!(!refused(KafkaError::NotController).may_have_happened());
        assert!(refused(KafkaError::NotController).is_transient());
        assert!(!refused(KafkaError::InvalidConfig).is_transient());
    }
}
