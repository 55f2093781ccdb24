//! What the mover is told of a topic: other replicas are its business.

use std::collections::BTreeSet;
use std::time::Duration;

use barnabas_core::balance::FactorError;
use barnabas_core::ids::TopicName;
use kube::runtime::controller::Action;
use tokio::time::Instant;
use tracing::info;

use super::lock;
use super::reconcile::{Pass, PassError};
use crate::moves::Mover;
use crate::topic::plan::{Plan, Reason, Step};

/// Another number of replicas that nobody asked for has to be seen for so long before anything is done about it.
const SETTLE: Duration = Duration::from_secs(8);

impl Pass<'_> {
    /// Other replicas are the mover's business: it is told what is wanted and says what it makes of it.
    pub(super) async fn ask_mover(
        &self,
        mover: &Mover,
        name: &TopicName,
        wanted: usize,
        mut found: Plan,
    ) -> Result<Action, PassError> {
        let status = self.status.as_ref();
        let is_drift = status.and_then(|one| one.observed_generation)
            == self.topic.metadata.generation
            && !mover.wishes_replicas(name);
        if is_drift {
            // Right after a move brokers may still tell of old and new replicas.
            let mut since = Instant::now();
            self.context.remember(&self.name, |memory| {
                since = *memory.replicas_off_since.get_or_insert(since);
            });
            if since.elapsed() < SETTLE {
                found.is_moving = true;
                return self.conclude(&found, true, true).await;
            }
        }
        let mut is_new = false;
        mover.wish(|wishes| is_new = wishes.replicas.insert(name.clone(), wanted) != Some(wanted));
        if is_new {
            info!(wanted, "asking for other replicas");
            self.announce(&Step::ChangeReplicas(wanted as i32), &found, true, true);
        }
        let refused = mover.status().borrow().refused.get(name).cloned();
        if let Some(refused) = refused.filter(|_| !is_new) {
            let reason = match refused {
                FactorError::BelowMinIsr { .. } => Reason::ReplicasBelowMinIsr,
                FactorError::NoReplicas => Reason::InvalidSpec,
                FactorError::NoTopic(_)
                | FactorError::TooFewBrokers { .. }
                | FactorError::NoRoom { .. } => Reason::WaitingForBrokers,
            };
            found.problems.push((reason, refused.to_string()).into());
        }
        found.is_moving = true;
        self.conclude(&found, true, true).await
    }

    /// What the mover has to know of a topic beside its replicas.
    pub(super) fn tell_mover(&self, rack_required: bool, paused: bool) {
        if let Some(mover) = self.context.mover.get() {
            let name: TopicName = self.topic.topic_name().as_str().into();
            mover.wish(|wishes| {
                let set = |names: &mut BTreeSet<TopicName>, is: bool| {
                    if is {
                        names.insert(name.clone());
                    } else {
                        names.remove(&name);
                    }
                };
                set(&mut wishes.rack_required, rack_required);
                set(&mut wishes.paused, paused);
                if paused {
                    wishes.replicas.remove(&name);
                }
            });
        }
    }

    /// Nobody wishes anything of the mover any more, unless another resource claims the topic: then it is that one's say.
    pub(super) fn withdraw_wishes(&self) {
        let topic = self.topic.topic_name();
        if !lock(&self.context.claims).has_other(&topic, &self.name) {
            self.tell_mover(false, false);
            self.withdraw_replicas();
        }
    }

    pub(super) fn withdraw_replicas(&self) {
        if let Some(mover) = self.context.mover.get() {
            let name: TopicName = self.topic.topic_name().as_str().into();
            mover.wish(|wishes| {
                wishes.replicas.remove(&name);
            });
        }
    }
}
