//! What a refusal of Kafka means for the topic it was about.

use crate::admin::{AdminError, ItemError, KafkaError};
use crate::topic::plan::{Problem, Reason};

/// Why a step was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may have been done, or the topic is not as it was thought to be: look again before anything else.
    Look,
    /// As it stands in the condition.
    Because(Problem),
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    Create,
    Delete,
    AddPartitions,
    AlterConfig,
    Reassign,
    Describe,
}

impl Failure {
    pub fn because(reason: Reason, message: impl Into<String>) -> Self {
        Self::Because(Problem {
            reason,
            message: message.into(),
        })
    }

    pub fn transient(message: impl Into<String>) -> Self {
        Self::because(Reason::KafkaError, message)
    }

    /// Of a request as a whole.
    pub fn of_request(error: &AdminError) -> Self {
        if error.may_have_happened() {
            return Self::Look;
        }
        match error {
            AdminError::Refused { error: code, .. }
                if *code == KafkaError::ClusterAuthorizationFailed =>
            {
                Self::because(Reason::AuthorizationFailed, error.to_string())
            }
            AdminError::Refused { .. } | AdminError::Malformed { .. } => {
                Self::transient(error.to_string())
            }
            AdminError::Unreachable(_)
            | AdminError::Unanswered { .. }
            | AdminError::Unsupported { .. }
            | AdminError::Authentication { .. }
            | AdminError::Options(_) => Self::because(Reason::KafkaUnavailable, error.to_string()),
        }
    }

    /// Of one topic in a request. Whatever is not known to need a person is tried again, ever more seldom.
    pub fn of_item(tried: Tried, error: &ItemError) -> Self {
        if error.may_have_happened() {
            return Self::Look;
        }
        let message = error.to_string();
        match error.error {
            KafkaError::TopicAlreadyExists
            | KafkaError::UnknownTopicOrPartition
            | KafkaError::UnknownTopicId => Self::Look,
            KafkaError::InvalidPartitions if tried == Tried::AddPartitions => Self::Look,
            KafkaError::InvalidConfig | KafkaError::InvalidRequest
                if matches!(tried, Tried::Create | Tried::AlterConfig) =>
            {
                Self::because(Reason::InvalidConfig, message)
            }
            KafkaError::InvalidTopicException => Self::because(Reason::NameNotAllowed, message),
            KafkaError::InvalidReplicationFactor => {
                Self::because(Reason::ReplicasExceedBrokers, message)
            }
            KafkaError::InvalidPartitions => Self::because(Reason::InvalidSpec, message),
            KafkaError::PolicyViolation => Self::because(Reason::PolicyViolation, message),
            KafkaError::TopicAuthorizationFailed | KafkaError::ClusterAuthorizationFailed => {
                Self::because(Reason::AuthorizationFailed, message)
            }
            KafkaError::InvalidReplicaAssignment | KafkaError::BrokerNotAvailable => {
                Self::because(Reason::WaitingForBrokers, message)
            }
            _ => Self::transient(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_reason_and_none_is_repeated_blindly() {
        let of = |tried, error| {
            let item = ItemError {
                error,
                message: Some("because".to_owned()),
            };
            match Failure::of_item(tried, &item) {
                Failure::Look => None,
                Failure::Because(problem) => Some(problem.reason),
            }
        };
        let create = |error| of(Tried::Create, error);
        assert_eq!(create(KafkaError::RequestTimedOut), None);
        assert_eq!(create(KafkaError::TopicAlreadyExists), None);
        assert_eq!(
            create(KafkaError::InvalidConfig),
            Some(Reason::InvalidConfig)
        );
        assert_eq!(
            create(KafkaError::PolicyViolation),
            Some(Reason::PolicyViolation)
        );
        let quota = create(KafkaError::ThrottlingQuotaExceeded).unwrap();
        assert!(!quota.is_stalled());
        assert_eq!(
            of(Tried::AddPartitions, KafkaError::InvalidPartitions),
            None
        );
        // Every code of the protocol leads somewhere.
        for code in -1..=130 {
            if let Some(error) = KafkaError::try_from_code(code) {
                for tried in [
                    Tried::Create,
                    Tried::Delete,
                    Tried::AlterConfig,
                    Tried::Reassign,
                ] {
                    let _ = of(tried, error);
                }
            }
        }
    }
}
