//! One pass over one Topic: deletion, claim, pause, finalizer, then step after step until it is as asked for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use barnabas_core::balance::FactorError;
use barnabas_core::ids::TopicName;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::failure::Failure;
use super::{Context, lock, steps};
use crate::admin::{ConfigChanges, ConfigResource};
use crate::cluster::TopicView;
use crate::moves::Mover;
use crate::resource::{DeletionPolicy, FINALIZER, RackSpread, Topic, TopicStatus, annotation};
use crate::topic::claims::Name;
use crate::topic::deletion::{self, Deletion, Live};
use crate::topic::placement::Brokers;
use crate::topic::plan::{Desired, Facts, Plan, Problem, Reason, Step, plan};
use crate::topic::status::{Finding, Verdict, can_wait, compute};

/// Who writes status.
const FIELD_MANAGER: &str = "barnabas-operator-status";
/// Of one resource, unless something flips that people wait for.
const STATUS_PAUSE: Duration = Duration::from_secs(5);
/// A person has to act: look again in case it was done elsewhere.
const STALLED: Duration = Duration::from_secs(600);
/// No broker is registered for so long before the cluster may be taken for gone.
const CLUSTER_GONE: Duration = Duration::from_secs(60);
/// Steps in one pass; each is followed by a look.
const STEPS_MAX: usize = 8;

/// Why a pass could not be finished: the API server.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
    #[error("the status cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

pub(super) fn name_of(topic: &Topic) -> Name {
    Name {
        namespace: topic.namespace().unwrap_or_default(),
        name: topic.name_any(),
    }
}

/// Waits 1 s, 2 s, … 60 s, with 20 % of chance.
pub(super) fn backoff(failures: u32) -> Duration {
    let seconds = f64::from(1_u32 << failures.min(6)).min(60.0);
    Duration::from_secs_f64(seconds * (0.8 + 0.4 * rand::random::<f64>()))
}

/// Does what is to be done for one resource and says when to look again.
pub async fn reconcile(topic: Arc<Topic>, context: Arc<Context>) -> Result<Action, PassError> {
    let name = name_of(&topic);
    let span = info_span!(
        "reconcile",
        namespace = name.namespace,
        name = name.name,
        topic = topic.topic_name(),
        generation = topic.metadata.generation
    );
    let begun = Instant::now();
    context.remember(&name, |memory| {
        memory.first_seen.get_or_insert(begun);
    });
    let pass = Pass {
        topic: &topic,
        context: &context,
        name,
    };
    let result = pass.run().instrument(span).await;
    let metrics = &context.metrics;
    let outcome = match &result {
        Ok(_) => [("result", "ok"), ("class", "none")],
        Err(_) => [("result", "error"), ("class", "Transient")],
    };
    metrics.count("barnabas_operator_reconcile_total", &outcome, 1);
    let took = begun.elapsed().as_secs_f64();
    metrics.observe("barnabas_operator_reconcile_duration_seconds", &[], took);
    result
}

struct Pass<'a> {
    topic: &'a Topic,
    context: &'a Context,
    name: Name,
}

impl Pass<'_> {
    async fn run(&self) -> Result<Action, PassError> {
        let Self { topic, context, .. } = self;
        if context.is_stopped.load(Ordering::Relaxed) {
            return Ok(Action::await_change());
        }
        if topic.is_being_deleted() {
            return self.delete().await;
        }
        if context.is_released.load(Ordering::Relaxed) {
            self.remove_finalizer().await?;
            return Ok(Action::await_change());
        }
        if !self.is_of_this_cluster() {
            return Ok(Action::await_change());
        }
        if !topic.is_managed() {
            self.tell_mover(false, false);
            self.withdraw_replicas();
            self.remove_finalizer().await?;
            return self
                .report(Verdict::Unmanaged, &Plan::default(), true)
                .await;
        }
        if let Err(problem) = self.check_claim() {
            return self.stall(problem, false).await;
        }
        let kafka_name = topic.topic_name();
        let allows_internal = topic.is_annotated(annotation::ALLOW_INTERNAL, "true");
        let desired = match Desired::read(kafka_name, &topic.spec, allows_internal) {
            Ok(desired) => desired,
            Err(problem) => return self.stall(problem, true).await,
        };
        if let Err(problem) = self.check_policy(&desired) {
            return self.stall(problem, true).await;
        }
        let rack_required = desired.rack_spread == RackSpread::Required;
        self.tell_mover(rack_required, topic.is_paused());
        if topic.is_paused() {
            return self.report(Verdict::Paused, &Plan::default(), true).await;
        }
        if !context.is_cluster_known.load(Ordering::Relaxed) {
            let problem = (
                Reason::KafkaUnavailable,
                "no broker has answered yet".to_owned(),
            );
            return self.fail(problem.into()).await;
        }
        self.ensure_finalizer().await?;
        self.work(&desired).await
    }

    /// Step after step, each followed by a look.
    async fn work(&self, desired: &Desired) -> Result<Action, PassError> {
        let Self { topic, context, .. } = self;
        let status = topic.status.as_ref();
        let mut owned_id = status.and_then(|status| status.topic_id.clone());
        let had = owned_id.is_some();
        let kafka_name: TopicName = desired.name.as_str().into();
        let was_dirty = lock(&context.dirty).remove(&desired.name);
        let is_new = topic.metadata.generation != status.and_then(|one| one.observed_generation);
        if (was_dirty || (is_new && context.topic(&desired.name).is_some()))
            && let Err(Failure::Because(problem)) = context.look.ask(kafka_name.clone()).await
        {
            return self.fail(problem).await;
        }
        let mut said_to_exist = false;
        for _ in 0..STEPS_MAX {
            let view = context.cluster.view();
            let live = view.topics.get(&*desired.name).cloned();
            let live_id = live
                .as_ref()
                .and_then(|one| one.id)
                .map(|id| id.to_string());
            let brokers = Brokers::new(&view, &[]);
            let is_owned = owned_id.is_some() && owned_id == live_id;
            let facts = Facts {
                view: &view,
                topic: live.as_deref(),
                is_owned,
                eligible: brokers.eligible(),
                racks: brokers.racks(),
            };
            let found = plan(desired, &facts);
            let is_blocked = found
                .problems
                .iter()
                .any(|one| one.reason == Reason::AdoptionNeedsDecision);
            let Some(step) = found.step.clone().filter(|_| !is_blocked) else {
                return self.conclude(&found, is_owned, had).await;
            };
            if context.is_stopped.load(Ordering::Relaxed) {
                return Ok(Action::await_change());
            }
            if let (Step::ChangeReplicas(wanted), Some(mover)) = (&step, context.mover.get()) {
                return self
                    .ask_mover(mover, &kafka_name, *wanted as usize, found)
                    .await;
            }
            let done = self.carry_out(desired, &step, live.as_deref()).await;
            match done {
                Ok(id) => {
                    self.announce(&step, &found, had, is_owned);
                    if id.is_some() {
                        owned_id = id;
                    }
                }
                Err(Failure::Look) => {
                    if step == Step::Create && said_to_exist {
                        let message = "Kafka says that the topic exists, but does not show it: it is still being deleted";
                        let problem = (Reason::WaitingForPreviousDeletion, message.to_owned());
                        return self.fail(problem.into()).await;
                    }
                    said_to_exist |= step == Step::Create;
                }
                Err(Failure::Because(problem)) if problem.reason.is_stalled() => {
                    self.warn_once(problem.reason.name(), &problem.message);
                    // What was asked for is refused; the topic is still ours if it was.
                    return self.stall(problem, true).await;
                }
                Err(Failure::Because(problem)) => return self.fail(problem).await,
            }
            if let Err(Failure::Because(problem)) = self.look(&kafka_name, &step).await {
                return self.fail(problem).await;
            }
        }
        let message = "the topic does not become what it was asked to be; trying again";
        self.fail((Reason::KafkaError, message.to_owned()).into())
            .await
    }

    /// Other replicas are the mover's business: it is told what is wanted and says what it makes of it.
    async fn ask_mover(
        &self,
        mover: &Mover,
        name: &TopicName,
        wanted: usize,
        mut found: Plan,
    ) -> Result<Action, PassError> {
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
    fn tell_mover(&self, rack_required: bool, paused: bool) {
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

    fn withdraw_replicas(&self) {
        if let Some(mover) = self.context.mover.get() {
            let name: TopicName = self.topic.topic_name().as_str().into();
            mover.wish(|wishes| {
                wishes.replicas.remove(&name);
            });
        }
    }

    /// Reads what was just written. A new topic takes a moment until all brokers know it and it has leaders.
    async fn look(&self, name: &TopicName, step: &Step) -> Result<(), Failure> {
        let context = self.context;
        let until = Instant::now() + Duration::from_millis(1500);
        let mut pause = Duration::from_millis(10);
        loop {
            context.look.ask(name.clone()).await?;
            let topic = context.topic(name);
            let is_seen = match step {
                Step::Create => topic.is_some_and(|topic| {
                    let mut partitions = topic.partitions.iter();
                    !topic.partitions.is_empty() && partitions.all(|one| one.leader.is_some())
                }),
                Step::AddPartitions(total) => topic.is_some_and(|topic| {
                    let mut partitions = topic.partitions.iter();
                    topic.partitions.len() as i32 >= *total
                        && partitions.all(|one| one.leader.is_some())
                }),
                Step::ChangeReplicas(_) => true,
                // Configurations reach brokers by ZooKeeper's notifications.
                Step::AlterConfig(changes) => topic.is_some_and(|topic| {
                    changes.iter().all(|(key, op)| match op {
                        crate::admin::ConfigOp::Set(_) => topic.overrides.contains_key(key),
                        crate::admin::ConfigOp::Delete => !topic.overrides.contains_key(key),
                        crate::admin::ConfigOp::Append(_) | crate::admin::ConfigOp::Subtract(_) => {
                            true
                        }
                    })
                }),
            };
            if is_seen || Instant::now() > until {
                return Ok(());
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Does it; the id of the topic if that is known to be ours by it.
    async fn carry_out(
        &self,
        desired: &Desired,
        step: &Step,
        live: Option<&TopicView>,
    ) -> Result<Option<String>, Failure> {
        let context = self.context;
        match (step, live) {
            (Step::Create, _) => {
                info!(?desired.partitions, ?desired.replicas, "creating the topic");
                let created = context.create.ask(desired.clone()).await?;
                Ok(created.id.map(|id| id.to_string()))
            }
            (Step::AddPartitions(total), Some(live)) => {
                info!(
                    from = live.partitions.len(),
                    to = total,
                    "adding partitions"
                );
                let wish = steps::new_partitions(&context.cluster, live, *total);
                context.add_partitions.ask(wish).await.map(|()| None)
            }
            (Step::ChangeReplicas(wanted), Some(live)) => {
                let moved =
                    steps::change_replicas(&context.cluster, live, *wanted as usize).await?;
                info!(wanted, partitions = moved, "changing replicas");
                if moved == 0 {
                    let message = "other moves have to end first, or replicas to come in sync";
                    return Err(Failure::because(Reason::WaitingForBrokers, message));
                }
                Ok(None)
            }
            (Step::AlterConfig(changes), Some(live)) => {
                info!(?changes, "changing settings");
                let wish = ConfigChanges {
                    resource: ConfigResource::Topic(live.name.clone()),
                    changes: changes.clone(),
                };
                context.alter_config.ask(wish).await.map(|()| None)
            }
            (Step::AddPartitions(_) | Step::ChangeReplicas(_) | Step::AlterConfig(_), None) => {
                Err(Failure::Look)
            }
        }
    }

    /// Events of what was done.
    fn announce(&self, step: &Step, found: &Plan, had: bool, is_owned: bool) {
        let Self { topic, context, .. } = self;
        let events = &context.events;
        let status = topic.status.as_ref();
        let is_as_seen =
            status.and_then(|one| one.observed_generation) == topic.metadata.generation;
        match step {
            Step::Create if had => {
                let note = "the topic was deleted by somebody else and is made anew, empty";
                events.warning(topic, "TopicRecreated", note);
            }
            Step::Create => events.normal(topic, "TopicCreated", "the topic was created"),
            Step::AddPartitions(total) => {
                let note = format!("to {total}: keys map to other partitions than before");
                events.normal(topic, "PartitionsIncreased", &note);
            }
            Step::ChangeReplicas(wanted) => {
                let note = format!("to {wanted} replicas of each partition");
                events.normal(topic, "ReplicasChangeStarted", &note);
            }
            Step::AlterConfig(_) if is_owned && is_as_seen => {
                let kind = [("kind", "config")];
                let name = "barnabas_operator_drift_repaired_total";
                context.metrics.count(name, &kind, 1);
                let note = found.differing.join(", ");
                events.normal(topic, "ConfigDriftRepaired", &note);
            }
            Step::AlterConfig(_) => {
                events.normal(topic, "ConfigChanged", &found.differing.join(", "));
            }
        }
    }

    /// Nothing is left to be done.
    async fn conclude(&self, found: &Plan, is_owned: bool, had: bool) -> Result<Action, PassError> {
        let Self { topic, context, .. } = self;
        let problem = found.problems.first();
        // Taken over, now that nothing speaks against it.
        let refused = problem.is_some_and(|one| one.reason.is_stalled());
        let owns = is_owned || !refused;
        if owns && !had && context.topic(&topic.topic_name()).is_some() && !is_owned {
            context.events.normal(
                topic,
                "TopicAdopted",
                "the topic was there and is managed from now on",
            );
        }
        match problem {
            Some(problem) if problem.reason.is_stalled() => {
                self.warn_once(problem.reason.name(), &problem.message);
                self.report_as(Verdict::Failed(problem.clone()), found, true, owns, STALLED)
                    .await
            }
            Some(problem) => {
                self.warn_once(problem.reason.name(), &problem.message);
                let again = Duration::from_secs(10);
                self.report_as(Verdict::Failed(problem.clone()), found, true, owns, again)
                    .await
            }
            None => {
                let moving = found.is_moving;
                if found.step.is_none() {
                    self.withdraw_replicas();
                }
                let was_moving = topic.status.as_ref().is_some_and(|status| {
                    let condition = status.condition("Reconciling");
                    condition
                        .is_some_and(|one| one.status == "True" && one.reason == "ReplicasChanging")
                });
                if was_moving && !moving {
                    let note = "all partitions have the replicas that were asked for";
                    context.events.normal(topic, "ReplicasChangeFinished", note);
                }
                context.remember(&self.name, |memory| {
                    memory.failures = 0;
                    memory.warned = None;
                    if let Some(first) = memory.first_seen.filter(|_| !memory.was_ready) {
                        memory.was_ready = true;
                        let took = first.elapsed().as_secs_f64();
                        let name = "barnabas_operator_time_to_ready_seconds";
                        context.metrics.observe(name, &[], took);
                    }
                });
                let again = if moving {
                    Duration::from_secs(10)
                } else {
                    context
                        .settings
                        .resync()
                        .mul_f64(1.0 + rand::random::<f64>())
                };
                self.report_as(Verdict::Ready { moving }, found, true, true, again)
                    .await
            }
        }
    }

    fn warn_once(&self, reason: &str, message: &str) {
        let text = format!("{reason}: {message}");
        let mut is_new = false;
        self.context.remember(&self.name, |memory| {
            is_new = memory.warned.as_ref() != Some(&text);
            memory.warned = Some(text.clone());
        });
        if is_new {
            warn!(reason, message, "the topic is not as asked for");
            self.context.events.warning(self.topic, reason, message);
        }
    }

    fn is_of_this_cluster(&self) -> bool {
        is_for(self.topic, self.context)
    }

    fn check_claim(&self) -> Result<(), Problem> {
        let claims = lock(&self.context.claims);
        match claims.owner(&self.topic.topic_name()) {
            Some(owner) if *owner != self.name => {
                let message = format!("the topic belongs to {owner}, which is older");
                Err((Reason::ResourceConflict, message).into())
            }
            _ => Ok(()),
        }
    }

    fn check_policy(&self, desired: &Desired) -> Result<(), Problem> {
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

    async fn stall(&self, problem: Problem, is_owned: bool) -> Result<Action, PassError> {
        self.warn_once(problem.reason.name(), &problem.message);
        let owns = is_owned && self.is_live_owned();
        let shows = problem.reason != Reason::ResourceConflict;
        self.report_as(
            Verdict::Failed(problem),
            &Plan::default(),
            shows,
            owns,
            STALLED,
        )
        .await
    }

    /// The topic that lives is the one that the status names.
    fn is_live_owned(&self) -> bool {
        let status = self.topic.status.as_ref();
        let owned = status.and_then(|status| status.topic_id.as_deref());
        let live = self.context.topic(&self.topic.topic_name());
        match (owned, live.and_then(|topic| topic.id)) {
            (Some(owned), Some(live)) => live.to_string() == owned,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// Something that passes: tried again, ever more seldom.
    async fn fail(&self, problem: Problem) -> Result<Action, PassError> {
        let context = self.context;
        let mut failures = 0;
        context.remember(&self.name, |memory| {
            failures = memory.failures;
            memory.failures = memory.failures.saturating_add(1);
        });
        debug!(
            reason = problem.reason.name(),
            message = problem.message,
            "trying again"
        );
        let again = backoff(failures);
        let is_out = problem.reason == Reason::KafkaUnavailable;
        let status = self.topic.status.as_ref();
        let is_known = status.is_some_and(|status| {
            status.observed_generation == self.topic.metadata.generation && status.is_true("Ready")
        });
        if is_out && is_known {
            // Nothing is known to be wrong with the topic; and thousands of writes would help nobody.
            return Ok(Action::requeue(again));
        }
        let owns = self.is_live_owned();
        self.report_as(
            Verdict::Failed(problem),
            &Plan::default(),
            true,
            owns,
            again,
        )
        .await
    }

    async fn report(
        &self,
        verdict: Verdict,
        found: &Plan,
        shows: bool,
    ) -> Result<Action, PassError> {
        let again = self.context.settings.resync();
        let owns = self.is_live_owned();
        self.report_as(verdict, found, shows, owns, again).await
    }

    async fn report_as(
        &self,
        verdict: Verdict,
        found: &Plan,
        shows: bool,
        is_owned: bool,
        again: Duration,
    ) -> Result<Action, PassError> {
        let Self { topic, context, .. } = self;
        let view = context.cluster.view();
        let kafka_name = topic.topic_name();
        let live = view.topics.get(kafka_name.as_str());
        let finding = Finding {
            generation: topic.metadata.generation,
            name: &kafka_name,
            verdict,
            topic: live.filter(|_| shows).map(|live| (&*view, &**live)),
            is_owned,
            unmanaged: found.unmanaged.clone(),
            now: Timestamp::now(),
        };
        let status = compute(finding, topic.status.as_ref());
        if topic.status.as_ref() == Some(&status) {
            return Ok(Action::requeue(again));
        }
        if can_wait(topic.status.as_ref(), &status) {
            let written = lock(&context.memory)
                .get(&self.name)
                .and_then(|memory| memory.written);
            if let Some(left) = written.and_then(|at| STATUS_PAUSE.checked_sub(at.elapsed())) {
                return Ok(Action::requeue(left.min(again)));
            }
        }
        self.write_status(&status).await?;
        Ok(Action::requeue(again))
    }

    async fn write_status(&self, status: &TopicStatus) -> Result<(), PassError> {
        let Self { topic, context, .. } = self;
        context.status_writes.turn().await;
        let patch = json!({
            "apiVersion": Topic::api_version(&()),
            "kind": Topic::kind(&()),
            // A resource of that name that came later is not meant.
            "metadata": {"name": self.name.name, "namespace": self.name.namespace, "uid": topic.metadata.uid},
            "status": serde_json::to_value(status)?,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = self
            .api()
            .patch_status(&self.name.name, &params, &Patch::Apply(&patch))
            .await;
        match written {
            Ok(_) => {
                context
                    .metrics
                    .count("barnabas_operator_status_writes_total", &[], 1);
                context.remember(&self.name, |memory| memory.written = Some(Instant::now()));
                Ok(())
            }
            // It is gone, or another has its name: the watch tells.
            Err(kube::Error::Api(gone)) if matches!(gone.code, 404 | 409) => Ok(()),
            Err(error) => {
                self.count_api_error(&error);
                Err(error.into())
            }
        }
    }

    fn count_api_error(&self, error: &kube::Error) {
        let code = match error {
            kube::Error::Api(status) => status.code.to_string(),
            _ => "none".to_owned(),
        };
        let pairs = [("code", code.as_str())];
        self.context
            .metrics
            .count("barnabas_operator_api_errors_total", &pairs, 1);
    }

    fn api(&self) -> Api<Topic> {
        Api::namespaced(self.context.client.clone(), &self.name.namespace)
    }

    async fn patch_finalizers(&self, patch: serde_json::Value) -> Result<(), PassError> {
        let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
        let params = PatchParams::default();
        match self.api().patch(&self.name.name, &params, &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(gone)) if gone.code == 404 => Ok(()),
            Err(error) => {
                self.count_api_error(&error);
                Err(error.into())
            }
        }
    }

    async fn ensure_finalizer(&self) -> Result<(), PassError> {
        if self.topic.has_finalizer() {
            return Ok(());
        }
        let uid = &self.topic.metadata.uid;
        let same = json!({"op": "test", "path": "/metadata/uid", "value": uid});
        let patch = if self.topic.finalizers().is_empty() {
            json!([
                same,
                {"op": "test", "path": "/metadata/finalizers", "value": null},
                {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]},
            ])
        } else {
            json!([same, {"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER}])
        };
        self.patch_finalizers(patch).await
    }

    async fn remove_finalizer(&self) -> Result<(), PassError> {
        let mut finalizers = self.topic.finalizers().iter();
        let Some(at) = finalizers.position(|one| one == FINALIZER) else {
            return Ok(());
        };
        let path = format!("/metadata/finalizers/{at}");
        self.patch_finalizers(json!([
            {"op": "test", "path": "/metadata/uid", "value": self.topic.metadata.uid},
            {"op": "test", "path": path, "value": FINALIZER},
            {"op": "remove", "path": path},
        ]))
        .await
    }

    /// Lets the resource go, and its topic as the rules say.
    async fn delete(&self) -> Result<Action, PassError> {
        let Self { topic, context, .. } = self;
        if !topic.has_finalizer() {
            return Ok(Action::await_change());
        }
        self.withdraw_replicas();
        let since = Instant::now();
        context.remember(&self.name, |memory| {
            memory.deleting_since.get_or_insert(since);
        });
        let kafka_name: TopicName = topic.topic_name().as_str().into();
        let status = topic.status.as_ref();
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
    fn looks_own(&self, live: &TopicView) -> bool {
        let status = self.topic.status.as_ref();
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
    async fn wait_until_deleted(&self, name: &TopicName) -> Result<Action, PassError> {
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
    async fn wait_for_kafka(&self) -> Result<Action, PassError> {
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
    async fn is_cluster_gone(&self) -> bool {
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

/// Whether a resource is for the cluster of this operator.
pub(super) fn is_for(topic: &Topic, context: &Context) -> bool {
    let settings = &context.settings;
    topic.spec.cluster_ref.as_ref().is_none_or(|cluster| {
        let is = |said: &Option<String>, ours: &str| said.as_ref().is_none_or(|one| one == ours);
        is(&cluster.name, &settings.cluster_name) && is(&cluster.namespace, &settings.pod_namespace)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute() {
        for (failures, least, most) in [
            (0, 0.8, 1.2),
            (3, 6.4, 9.6),
            (6, 48.0, 72.0),
            (60, 48.0, 72.0),
        ] {
            let wait = backoff(failures).as_secs_f64();
            assert!((least..=most).contains(&wait), "{failures}: {wait}");
        }
    }
}
