//! The watch of Topics in one namespace (or all): the store, the claims and the queue of reconciles.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{StreamExt as _, stream};
use kube::ResourceExt as _;
use kube::api::Api;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{Config, WatchStreamExt as _, applier};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, warn};

use super::reconcile::{PassError, backoff, is_for, name_of, reconcile};
use super::{Context, lock};
use crate::resource::{DeletionPolicy, Topic, TopicSpec};
use crate::topic::claims::{Name, Statement};

/// More than a batch holds, or batches never fill.
const CONCURRENCY: u16 = 512;

fn statement(topic: &Topic, context: &Context) -> Statement {
    let created = topic.metadata.creation_timestamp.as_ref();
    Statement {
        topic: topic.topic_name(),
        created_s: created.map_or(i64::MAX, |time| time.0.as_second()),
        competes: topic.is_managed() && !topic.is_being_deleted() && is_for(topic, context),
    }
}

/// What a reconcile depends on; the status, which we write, is not part of it.
fn mark(topic: &Topic) -> u64 {
    let mut hasher = DefaultHasher::new();
    topic.metadata.generation.hash(&mut hasher);
    topic.metadata.uid.hash(&mut hasher);
    topic.annotations().hash(&mut hasher);
    topic.finalizers().hash(&mut hasher);
    topic.is_being_deleted().hash(&mut hasher);
    hasher.finish()
}

/// A Topic as far as it can be understood. An object that is none, let through by an older definition, is reported like
/// any other and stops nobody.
pub(super) fn understood(guarded: DeserializeGuard<Topic>) -> Topic {
    let mut topic = guarded
        .0
        .unwrap_or_else(|InvalidObject { metadata, error }| Topic {
            metadata,
            spec: TopicSpec {
                // Nobody knows what was meant, so nothing is deleted.
                deletion_policy: DeletionPolicy::Retain,
                malformed: Some(error),
                ..TopicSpec::default()
            },
            status: None,
        });
    // Nobody reads them, and there may be thousands.
    topic.managed_fields_mut().clear();
    topic
        .annotations_mut()
        .remove("kubectl.kubernetes.io/last-applied-configuration");
    topic
}

fn read(event: Event<DeserializeGuard<Topic>>) -> Event<Topic> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(topic) => Event::InitApply(understood(topic)),
        Event::InitDone => Event::InitDone,
        Event::Apply(topic) => Event::Apply(understood(topic)),
        Event::Delete(topic) => Event::Delete(understood(topic)),
    }
}

struct Watch {
    context: Arc<Context>,
    namespace: Option<String>,
    queue: mpsc::Sender<ObjectRef<Topic>>,
    marks: BTreeMap<Name, u64>,
    store: Store<Topic>,
}

impl Watch {
    async fn observe(&mut self, topic: &Topic) {
        let name = name_of(topic);
        let said = statement(topic, &self.context);
        let concerned = lock(&self.context.claims).observe(&name, said);
        for other in concerned {
            self.context.enqueue(&other).await;
        }
        let mark = mark(topic);
        if self.marks.insert(name.clone(), mark) != Some(mark) {
            let object = ObjectRef::new(&name.name).within(&name.namespace);
            lock(&self.context.waiting).insert(name);
            let _ = self.queue.send(object).await;
        }
    }

    async fn forget(&mut self, name: &Name) {
        self.marks.remove(name);
        lock(&self.context.memory).remove(name);
        lock(&self.context.waiting).remove(name);
        let concerned = lock(&self.context.claims).forget(name);
        for other in concerned {
            self.context.enqueue(&other).await;
        }
    }

    async fn event(&mut self, event: &Event<Topic>) {
        match event {
            // The store shows what is listed only when the list is whole; a pass before that would see what was.
            Event::Init | Event::InitApply(_) => {}
            Event::InitDone => {
                let mut listed = BTreeSet::new();
                for topic in self.store.state() {
                    listed.insert(name_of(&topic));
                    self.observe(&topic).await;
                }
                let known = self.marks.keys();
                let gone = known.filter(|name| !listed.contains(*name)).cloned();
                for name in gone.collect::<Vec<_>>() {
                    self.forget(&name).await;
                }
                let namespace = self.namespace.as_deref();
                let concerned = lock(&self.context.claims).retain(namespace, &listed);
                for other in concerned {
                    self.context.enqueue(&other).await;
                }
            }
            Event::Apply(topic) => self.observe(topic).await,
            Event::Delete(topic) => self.forget(&name_of(topic)).await,
        }
    }
}

/// Serves the Topics of one namespace until `stop` says so; reconciles that run are finished.
/// `acts` turns true when this operator may act: until then the watch keeps its caches warm.
pub async fn serve(
    context: Arc<Context>,
    namespace: Option<String>,
    mut acts: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
    synced: mpsc::Sender<()>,
) {
    let api: Api<DeserializeGuard<Topic>> = match &namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let (queue, mut queued) = mpsc::channel(4096);
    lock(&context.queues).push((namespace.clone(), queue.clone()));
    let (store, mut writer) = reflector::store();
    let mut watch = Watch {
        context: context.clone(),
        namespace,
        queue,
        marks: BTreeMap::new(),
        store: store.clone(),
    };
    let watched = context.clone();
    let watching = tokio::spawn(async move {
        let config = watcher::Config::default().page_size(500);
        let events = kube::runtime::watcher(api, config)
            .default_backoff()
            .map(|event| event.map(read));
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    writer.apply_watcher_event(&event);
                    watch.event(&event).await;
                    if matches!(event, Event::InitDone) {
                        let _ = synced.try_send(());
                    }
                }
                Err(error) => {
                    let pairs = [("code", "watch")];
                    let name = "barnabas_operator_api_errors_total";
                    watched.metrics.count(name, &pairs, 1);
                    warn!(%error, "the watch of Topics broke; it is begun anew");
                }
            }
        }
    });
    // A standby drains nothing: what is queued is reconciled when it takes over.
    let mut stopping = stop.clone();
    let is_stopping = |stop: &watch::Receiver<bool>| *stop.borrow();
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => break,
            acting = acts.wait_for(|acts| *acts) => {
                if acting.is_ok() { break; }
            }
            // The store knows them all; the queue must not fill up meanwhile.
            _ = queued.recv() => {}
        }
    }
    if !is_stopping(&stop) {
        let known = store.state();
        let first = stream::iter(known).map(|topic| ObjectRef::from_obj(&*topic));
        let rest = stream::unfold((queued, stop), |(mut queued, mut stop)| async move {
            let next = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => None,
                next = queued.recv() => next,
            };
            next.map(|next| (next, (queued, stop)))
        });
        let queue = first.chain(rest).map(Ok::<_, Infallible>);
        let results = applier(
            |topic, context| Box::pin(reconcile(topic, context)),
            error_policy,
            context,
            store,
            queue,
            Config::default().concurrency(CONCURRENCY),
        );
        results
            .for_each(|result| async move {
                if let Err(error) = result {
                    debug!(%error, "pass");
                }
            })
            .await;
    }
    watching.abort();
}

/// The API server did not do its part.
#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
pub(super) fn error_policy(
    topic: Arc<Topic>,
    error: &PassError,
    context: Arc<Context>,
) -> kube::runtime::controller::Action {
    let name = name_of(&topic);
    let mut failures = 0;
    context.remember(&name, |memory| {
        failures = memory.failures;
        memory.failures = memory.failures.saturating_add(1);
    });
    if context.is_stopped.load(Ordering::Relaxed) {
        debug!(%name, %error, "stopped");
    } else if failures == 3 {
        error!(%name, %error, "passes keep failing");
    } else {
        warn!(%name, %error, "the pass failed");
    }
    kube::runtime::controller::Action::requeue(backoff(failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_is_no_topic_is_seen_all_the_same() {
        let metadata = serde_json::json!({"name": "a", "namespace": "shop", "uid": "1"});
        for object in [
            serde_json::json!({"metadata": metadata}),
            serde_json::json!({"metadata": metadata, "spec": 5}),
            serde_json::json!({"metadata": metadata, "spec": {"partitions": []}, "status": 7}),
        ] {
            let guarded = serde_json::from_value(object.clone()).unwrap();
            let topic = understood(guarded);
            assert!(topic.spec.malformed.is_some(), "{object}");
            assert_eq!(name_of(&topic).to_string(), "shop/a");
            assert_eq!(topic.spec.deletion_policy, DeletionPolicy::Retain);
        }
    }
}
