//! Who may ask for which topic: claims, and the policy of a namespace.

use super::lock;
use super::reconcile::{Pass, is_for};
use crate::topic::plan::{Desired, Problem, Reason};

impl Pass<'_> {
    pub(super) fn is_of_this_cluster(&self) -> bool {
        is_for(self.topic, self.context)
    }

    pub(super) fn check_claim(&self) -> Result<(), Problem> {
        let claims = lock(&self.context.claims);
        match claims.owner(&self.topic.topic_name()) {
            Some(owner) if *owner != self.name => {
                let message = format!("the topic belongs to {owner}, which is older");
                Err((Reason::ResourceConflict, message).into())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_policy(&self, desired: &Desired) -> Result<(), Problem> {
        let namespace = &self.name.namespace;
        let Some(policy) = self.context.settings.policy(namespace) else {
            return Ok(());
        };
        let allowed = &policy.prefixes;
        let matches = |prefix: &String| desired.name.starts_with(prefix.as_str());
        if !allowed.is_empty() && !allowed.iter().any(matches) {
            let message = format!(
                "topics of namespace {namespace} begin with {}",
                allowed.join(" or ")
            );
            return Err((Reason::NameNotAllowed, message).into());
        }
        let limits = [
            ("partitions", desired.partitions, policy.max_partitions),
            ("replicas", desired.replicas, policy.max_replicas),
        ];
        for (what, wanted, max) in limits {
            if let (Some(wanted), Some(max)) = (wanted, max)
                && wanted > max
            {
                let message = format!(
                    "{wanted} {what} are more than the {max} that namespace {namespace} may have"
                );
                return Err((Reason::PolicyViolation, message).into());
            }
        }
        if let Some(max) = policy.max_topics {
            let rank = lock(&self.context.claims).rank(&self.name);
            if rank > max {
                let message = format!(
                    "namespace {namespace} may have {max} topics, and older resources have them"
                );
                return Err((Reason::PolicyViolation, message).into());
            }
        }
        Ok(())
    }
}
