//! What becomes of a resource that is being deleted, and of its topic.

use std::sync::atomic::Ordering;
use std::time::Duration;

use barnabas_core::ids::TopicName;
use kube::api::Api;
use kube::runtime::controller::Action;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::failure::Failure;
use super::lock;
use super::reconcile::{NOT_NOW, Pass, PassError};
use crate::cluster::TopicView;
use crate::resource::{DeletionPolicy, annotation};
use crate::topic::deletion::{self, Deletion, Live};
use crate::topic::plan::{Desired, Facts, Plan, Reason, plan};
use crate::topic::status::Verdict;

/// No broker is registered for so long before the cluster may be taken for gone.
const CLUSTER_GONE: Duration = Duration::from_secs(60);

impl Pass<'_> {
    /// Lets the resource go, and its topic as the rules say.
    pub(super) async fn delete(&self) -> Result<Action, PassError> {
        let Self { topic, context, .. } = self;
        if !topic.has_finalizer() {
            return Ok(Action::await_change());
        }
        self.withdraw_wishes();
        let since = Instant::now();
        context.remember(&self.name, |memory| {
            memory.deleting_since.get_or_insert(since);
        });
        let kafka_name: TopicName = topic.topic_name().as_str().into();
        let status = self.status.as_ref();
        let other = lock(&context.claims).has_other(&kafka_name, &self.name);
        let mut facts = deletion::Facts {
            is_managed: topic.is_managed() && self.is_of_this_cluster(),
            retains: topic.spec.deletion_policy == DeletionPolicy::Retain,
            is_forced: topic.is_annotated(annotation::FORCE_FINALIZE, "true"),
            is_released: context.is_released.load(Ordering::Relaxed),
            has_other_claim: other,
            owned_id: status.and_then(|status| status.topic_id.clone()),
            looks_own: false,
            live: Live::Unknown,
        };
        if deletion::decide(&facts) == Deletion::WaitForKafka {
            facts.live = match context.look.ask(kafka_name.clone()).await {
                Ok(()) => match context.topic(&kafka_name) {
                    None => Live::Absent,
                    Some(live) => {
                        facts.looks_own = self.looks_own(&live);
                        Live::Present(live.id)
                    }
                },
                Err(_) => Live::Unknown,
            };
        }
        match deletion::decide(&facts) {
            Deletion::Keep(warning) => {
                if let Some(reason) = warning {
                    let note = "the topic stays in Kafka; the resource goes";
                    context.events.warning(topic, reason, note);
                }
                info!(?warning, "the topic stays, the resource goes");
                self.remove_finalizer().await?;
                Ok(Action::await_change())
            }
            Deletion::Done => {
                self.remove_finalizer().await?;
                Ok(Action::await_change())
            }
            Deletion::Delete(id) => {
                if !context.may_change() {
                    return Ok(Action::requeue(NOT_NOW));
                }
                info!(%id, "deleting the topic");
                match context.delete.ask(id).await {
                    Ok(()) | Err(Failure::Look) => self.wait_until_deleted(&kafka_name).await,
                    Err(Failure::Because(problem)) => {
                        if problem.message.contains("TOPIC_DELETION_DISABLED") {
                            let note = "brokers have delete.topic.enable=false: the topic stays";
                            context.events.warning(topic, "TopicDeletionDisabled", note);
                            self.remove_finalizer().await?;
                            return Ok(Action::await_change());
                        }
                        self.warn_once(problem.reason.name(), &problem.message);
                        self.fail(problem).await
                    }
                }
            }
            Deletion::WaitForKafka => self.wait_for_kafka().await,
        }
    }

    /// Nobody wrote down whose topic it is: ours if it is just what we would have made.
    pub(super) fn looks_own(&self, live: &TopicView) -> bool {
        let status = self.status.as_ref();
        if status.is_some_and(|status| status.is_true("Stalled") || status.is_true("Paused")) {
            return false;
        }
        let allows_internal = self.topic.is_annotated(annotation::ALLOW_INTERNAL, "true");
        let name = self.topic.topic_name();
        let Ok(desired) = Desired::read(name, &self.topic.spec, allows_internal) else {
            return false;
        };
        let view = self.context.cluster.view();
        let found = plan(
            &desired,
            &Facts {
                view: &view,
                topic: Some(live),
                is_owned: false,
                eligible: view.brokers.len(),
                racks: 0,
            },
        );
        found.step.is_none() && found.problems.is_empty() && found.unmanaged.is_empty()
    }

    /// In ZooKeeper mode deletion goes on after the answer; it waits for replicas that are offline.
    pub(super) async fn wait_until_deleted(&self, name: &TopicName) -> Result<Action, PassError> {
        let context = self.context;
        let until = Instant::now() + Duration::from_secs(2);
        let mut pause = Duration::from_millis(20);
        loop {
            let looked = context.look.ask(name.clone()).await;
            if looked.is_ok() && context.topic(name).is_none() {
                context
                    .events
                    .normal(self.topic, "TopicDeleted", "the topic was deleted");
                self.remove_finalizer().await?;
                return Ok(Action::await_change());
            }
            if Instant::now() > until {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(400));
        }
        let since = lock(&context.memory)
            .get(&self.name)
            .and_then(|memory| memory.deleting_since);
        if since.is_some_and(|since| since.elapsed() > Duration::from_secs(60)) {
            let view = context.cluster.view();
            let live = view.topics.get(name);
            let replicas = live.into_iter().flat_map(|topic| &topic.partitions);
            let mut away: Vec<String> = replicas
                .flat_map(|one| &one.replicas)
                .filter(|id| !view.brokers.contains_key(id))
                .map(ToString::to_string)
                .collect();
            away.sort();
            away.dedup();
            let message = format!(
                "deletion waits for brokers that are away: {}",
                away.join(", ")
            );
            self.warn_once("DeletionPending", &message);
        }
        let message = "Kafka is deleting the topic".to_owned();
        let verdict = Verdict::Working("Deleting", message);
        self.report_as(
            verdict,
            &Plan::default(),
            true,
            true,
            Duration::from_secs(2),
        )
        .await
    }

    /// A resource never blocks its namespace: if the cluster is gone, so may be the resource.
    pub(super) async fn wait_for_kafka(&self) -> Result<Action, PassError> {
        let Self { topic, context, .. } = self;
        let unreachable = *lock(&context.unreachable_since);
        let is_long = unreachable.is_some_and(|since| since.elapsed() >= CLUSTER_GONE);
        if is_long {
            let note = "no broker has answered for a minute: the topic cannot be deleted";
            let is_gone = self.is_cluster_gone().await
                || context
                    .events
                    .is_namespace_terminating(topic, "DeletionPending", note)
                    .await;
            if is_gone {
                let note = "its cluster is gone: if it comes back, the topic is still there";
                context.events.warning(topic, "TopicDataOrphaned", note);
                warn!("the cluster is gone; the resource goes without deleting the topic");
                self.remove_finalizer().await?;
                return Ok(Action::await_change());
            }
        }
        let message = "no broker can be asked to delete the topic".to_owned();
        self.fail((Reason::KafkaUnavailable, message).into()).await
    }

    /// The brokers' `StatefulSet` is absent, empty or going.
    pub(super) async fn is_cluster_gone(&self) -> bool {
        use k8s_openapi::api::apps::v1::StatefulSet;
        let settings = &self.context.settings;
        if settings.broker_stateful_set.is_empty() {
            return false;
        }
        let api: Api<StatefulSet> =
            Api::namespaced(self.context.client.clone(), &settings.pod_namespace);
        match api.get_opt(&settings.broker_stateful_set).await {
            Ok(None) => true,
            Ok(Some(set)) => {
                let wanted = set.spec.as_ref().and_then(|spec| spec.replicas);
                set.metadata.deletion_timestamp.is_some() || wanted == Some(0)
            }
            Err(error) => {
                debug!(%error, "cannot look at the brokers' StatefulSet");
                false
            }
        }
    }
}
