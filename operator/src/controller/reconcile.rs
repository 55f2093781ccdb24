//! One pass over one Topic: deletion, claim, pause, finalizer, then step after step until it is as asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use barnabas_core::ids::TopicName;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use tokio::time::{Instant, sleep};
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::failure::Failure;
use super::writing::latest_status;
use super::{Context, lock};
use crate::admin::{ConfigChanges, ConfigResource};
use crate::cluster::TopicView;
use crate::moves::{Mover, RunningMove};
use crate::resource::{RackSpread, Topic, TopicStatus, annotation};
use crate::topic::claims::Name;
use crate::topic::plan::{Desired, Facts, Plan, Problem, Reason, Step, plan};
use crate::topic::status::{Finding, Verdict, can_wait, compute};

/// Of one resource, unless something flips that people wait for.
const STATUS_PAUSE: Duration = Duration::from_secs(5);
/// A person has to act: look again in case it was done elsewhere.
const STALLED: Duration = Duration::from_secs(600);
/// Somebody else may own the topics by now; if it was a hiccup, look again.
pub(super) const NOT_NOW: Duration = Duration::from_secs(1);
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
    lock(&context.waiting).remove(&name);
    let progress = InProgress::begin(&context, &name);
    let pass = Pass {
        topic: &topic,
        status: latest_status(&context, &name, &topic),
        context: &context,
        name: name.clone(),
    };
    let result = pass.run().instrument(span).await;
    drop(progress);
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

/// Shows a pass that runs, so that one that never ends is seen.
struct InProgress<'a> {
    context: &'a Context,
    name: &'a Name,
}

const DRIFT_REPAIRED: &str = "barnabas_operator_drift_repaired_total";
const IN_PROGRESS: &str = "barnabas_operator_reconcile_in_progress_start_time_seconds";

impl<'a> InProgress<'a> {
    fn begin(context: &'a Context, name: &'a Name) -> Self {
        let now = Timestamp::now().as_millisecond() as f64 / 1000.0;
        context.metrics.set(IN_PROGRESS, &Self::labels(name), now);
        Self { context, name }
    }

    fn labels(name: &Name) -> [(&str, &str); 3] {
        [
            ("kind", "Topic"),
            ("namespace", &name.namespace),
            ("name", &name.name),
        ]
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        let labels = Self::labels(self.name);
        self.context.metrics.unset(IN_PROGRESS, &labels);
    }
}

pub(super) struct Pass<'a> {
    pub(super) topic: &'a Topic,
    /// Newer than the resource's own if that was written a moment ago.
    pub(super) status: Option<TopicStatus>,
    pub(super) context: &'a Context,
    pub(super) name: Name,
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
            self.withdraw_wishes();
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
    pub(super) async fn work(&self, desired: &Desired) -> Result<Action, PassError> {
        let Self { topic, context, .. } = self;
        let status = self.status.as_ref();
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
            let (eligible, racks) = context.members(&view);
            let is_owned = owned_id.is_some() && owned_id == live_id;
            let facts = Facts {
                view: &view,
                topic: live.as_deref(),
                is_owned,
                eligible,
                racks,
            };
            let found = plan(desired, &facts);
            let is_blocked = found
                .problems
                .iter()
                .any(|one| one.reason == Reason::AdoptionNeedsDecision);
            let Some(step) = found.step.clone().filter(|_| !is_blocked) else {
                return self.conclude(&found, is_owned, had).await;
            };
            if !context.may_change() {
                return Ok(Action::requeue(NOT_NOW));
            }
            if let Step::ChangeReplicas(wanted) = step {
                let Some(mover) = context.mover.get() else {
                    return Ok(Action::requeue(NOT_NOW));
                };
                return self
                    .ask_mover(mover, &kafka_name, wanted as usize, found)
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

    /// Reads what was just written. A new topic takes a moment until all brokers know it and it has leaders.
    pub(super) async fn look(&self, name: &TopicName, step: &Step) -> Result<(), Failure> {
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
    pub(super) async fn carry_out(
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
                let wish = context.new_partitions(live, *total, desired.rack_spread);
                context.add_partitions.ask(wish).await.map(|()| None)
            }
            (Step::AlterConfig(changes), Some(live)) => {
                info!(?changes, "changing settings");
                let wish = ConfigChanges {
                    resource: ConfigResource::Topic(live.name.clone()),
                    changes: changes.clone(),
                };
                context.alter_config.ask(wish).await.map(|()| None)
            }
            // Other replicas are the mover's business.
            (Step::ChangeReplicas(_), _)
            | (Step::AddPartitions(_) | Step::AlterConfig(_), None) => Err(Failure::Look),
        }
    }

    /// Events of what was done.
    pub(super) fn announce(&self, step: &Step, found: &Plan, had: bool, is_owned: bool) {
        let Self { topic, context, .. } = self;
        let events = &context.events;
        let status = self.status.as_ref();
        let is_as_seen =
            status.and_then(|one| one.observed_generation) == topic.metadata.generation;
        match step {
            Step::Create if had => {
                let kind = [("kind", "topic")];
                context.metrics.count(DRIFT_REPAIRED, &kind, 1);
                let note = "the topic was deleted by somebody else and is made anew, empty";
                events.warning(topic, "TopicRecreated", note);
            }
            Step::Create => events.normal(topic, "TopicCreated", "the topic was created"),
            Step::AddPartitions(total) => {
                let note = format!("to {total}: keys map to other partitions than before");
                events.normal(topic, "PartitionsIncreased", &note);
            }
            Step::ChangeReplicas(wanted) => {
                if is_as_seen {
                    let kind = [("kind", "replicas")];
                    context.metrics.count(DRIFT_REPAIRED, &kind, 1);
                }
                let note = format!("to {wanted} replicas of each partition");
                events.normal(topic, "ReplicasChangeStarted", &note);
            }
            Step::AlterConfig(_) if is_owned && is_as_seen => {
                let kind = [("kind", "config")];
                context.metrics.count(DRIFT_REPAIRED, &kind, 1);
                let note = found.differing.join(", ");
                events.normal(topic, "ConfigDriftRepaired", &note);
            }
            Step::AlterConfig(_) => {
                events.normal(topic, "ConfigChanged", &found.differing.join(", "));
            }
        }
    }

    /// Nothing is left to be done.
    pub(super) async fn conclude(
        &self,
        found: &Plan,
        is_owned: bool,
        had: bool,
    ) -> Result<Action, PassError> {
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
                    context.remember(&self.name, |memory| memory.replicas_off_since = None);
                    self.withdraw_replicas();
                }
                let was_moving = self.status.as_ref().is_some_and(|status| {
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

    pub(super) fn warn_once(&self, reason: &str, message: &str) {
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

    pub(super) async fn stall(
        &self,
        problem: Problem,
        is_owned: bool,
    ) -> Result<Action, PassError> {
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
    pub(super) fn is_live_owned(&self) -> bool {
        let status = self.status.as_ref();
        let owned = status.and_then(|status| status.topic_id.as_deref());
        let live = self.context.topic(&self.topic.topic_name());
        match (owned, live.and_then(|topic| topic.id)) {
            (Some(owned), Some(live)) => live.to_string() == owned,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// Something that passes: tried again, ever more seldom.
    pub(super) async fn fail(&self, problem: Problem) -> Result<Action, PassError> {
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
        let status = self.status.as_ref();
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

    pub(super) async fn report(
        &self,
        verdict: Verdict,
        found: &Plan,
        shows: bool,
    ) -> Result<Action, PassError> {
        let again = self.context.settings.resync();
        let owns = self.is_live_owned();
        self.report_as(verdict, found, shows, owns, again).await
    }

    pub(super) async fn report_as(
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
        let mover = context.mover.get().map(Mover::status);
        let running: Vec<RunningMove> = mover.map_or_else(Vec::new, |status| {
            let status = status.borrow();
            let running = status.running.iter();
            let of_topic =
                |one: &&RunningMove| *one.planned.partition.topic == *kafka_name.as_str();
            running.filter(of_topic).cloned().collect()
        });
        let finding = Finding {
            generation: topic.metadata.generation,
            name: &kafka_name,
            verdict,
            topic: live.filter(|_| shows).map(|live| (&*view, &**live)),
            is_owned,
            unmanaged: found.unmanaged.clone(),
            moves: &running,
            now: Timestamp::now(),
        };
        let status = compute(finding, self.status.as_ref());
        let state = state_of(&status);
        context.remember(&self.name, |memory| memory.state = Some(state));
        if self.status.as_ref() == Some(&status) {
            return Ok(Action::requeue(again));
        }
        if can_wait(self.status.as_ref(), &status) {
            let written = lock(&context.memory)
                .get(&self.name)
                .and_then(|memory| memory.written.as_ref().map(|written| written.at));
            if let Some(left) = written.and_then(|at| STATUS_PAUSE.checked_sub(at.elapsed())) {
                return Ok(Action::requeue(left.min(again)));
            }
        }
        self.write_status(&status).await?;
        Ok(Action::requeue(again))
    }
}

/// A resource's state in a word.
fn state_of(status: &TopicStatus) -> &'static str {
    let is = |kind: &str| status.is_true(kind);
    match () {
        () if is("Unmanaged") => "unmanaged",
        () if is("Paused") => "paused",
        () if is("Stalled") => "stalled",
        () if is("Ready") => "ready",
        () => "reconciling",
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
