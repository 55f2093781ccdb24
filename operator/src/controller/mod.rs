//! The controller of Topics: from the watch to Kafka and back into the status.
//!
//! ```text
//! watch → queue → reconcile (many at once) → intent → batcher → one admin request → per-item result → status
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`reconcile`] | one pass over one resource: the order of steps |
//! | `rights`, `wishes`, `deleting` | who may ask for a topic; what the mover is told of it; how its resource ends |
//! | `writing`, [`flow`] | what is written to the API server, and how much at once |
//! | [`steps`] | carrying out a step |
//! | [`batcher`], [`failure`] | many intents in one request; what a refusal means |
//! | [`watch`] | the watch of resources, the claims, the queue |
//! | [`refresh`] | the cluster's snapshot, and whom a change of it concerns |
//! | [`events`] | events |

pub mod batcher;
mod deleting;
pub mod events;
pub mod failure;
#[cfg(test)]
mod fake_broker;
pub mod flow;
pub mod reconcile;
pub mod refresh;
mod rights;
pub mod steps;
#[cfg(test)]
mod tests;
pub mod watch;
mod wishes;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use barnabas_core::ids::{TopicId, TopicName};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{mpsc, watch as latest};
use tokio::time::Instant;

use crate::admin::{ConfigChanges, CreatedTopic, NewPartitions};
use crate::cluster::{Cluster, ClusterView, TopicView};
use crate::election::RENEW_DEADLINE;
use crate::metrics::Metrics;
use crate::moves::Mover;
use crate::resource::{RackSpread, Topic, TopicStatus};
use crate::settings::Settings;
use crate::topic::claims::{Claims, Name};
use crate::topic::plan::Desired;
use batcher::Batcher;
use events::Events;
use flow::Flow;

/// What reconciles share.
pub struct Context {
    pub client: kube::Client,
    pub settings: Settings,
    pub cluster: Cluster,
    pub metrics: Arc<Metrics>,
    pub events: Events,
    pub claims: Mutex<Claims>,
    /// Who waits for what, by namespace that is watched.
    queues: Mutex<Vec<Queue>>,
    pub create: Batcher<Desired, CreatedTopic>,
    pub delete: Batcher<TopicId, ()>,
    pub add_partitions: Batcher<NewPartitions, ()>,
    pub alter_config: Batcher<ConfigChanges, ()>,
    pub look: Batcher<TopicName, ()>,
    /// What is remembered of resources between passes; lost without harm.
    pub memory: Mutex<BTreeMap<Name, Memory>>,
    /// Requests to the API server about Topics.
    pub flow: Flow,
    pub status_writes: Limiter,
    /// Resources that wait for a pass.
    pub waiting: Mutex<BTreeSet<Name>>,
    /// A whole snapshot was read at least once.
    pub is_cluster_known: AtomicBool,
    /// Since when no broker answers.
    pub unreachable_since: Mutex<Option<Instant>>,
    /// The operator is being uninstalled.
    pub is_released: AtomicBool,
    /// The Lease is lost, or the process stops: nothing is changed any more.
    pub is_stopped: AtomicBool,
    /// Who moves replicas, once this operator acts.
    pub mover: Arc<OnceLock<Mover>>,
    /// When our Lease was renewed; never set without election.
    pub lease_renewed: OnceLock<latest::Receiver<Instant>>,
    /// Topics that changed since they were looked at.
    pub dirty: Mutex<BTreeSet<String>>,
}

/// A namespace, or all of them, and who waits for its Topics.
type Queue = (Option<String>, mpsc::Sender<ObjectRef<Topic>>);

/// Of one resource.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub failures: u32,
    pub written: Option<Written>,
    pub first_seen: Option<Instant>,
    pub was_ready: bool,
    /// When deletion was asked for.
    pub deleting_since: Option<Instant>,
    /// The last warning, not to repeat it each pass.
    pub warned: Option<String>,
    /// Since when the replicas are not as many as asked for, although they were.
    pub replicas_off_since: Option<Instant>,
    /// In a word, for the figures.
    pub state: Option<&'static str>,
}

/// A status that was written.
#[derive(Clone, Debug)]
pub struct Written {
    pub at: Instant,
    pub uid: Option<String>,
    /// The resource's version by it.
    pub version: u64,
    /// Until the watch tells of it.
    pub status: Option<TopicStatus>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    pub fn new(
        client: kube::Client,
        settings: Settings,
        cluster: Cluster,
        metrics: Arc<Metrics>,
    ) -> Self {
        let events = Events::spawn(client.clone(), &settings.pod_name, metrics.clone());
        let mover = Arc::<OnceLock<Mover>>::default();
        Self {
            create: steps::creator(&cluster, &mover, &metrics),
            delete: steps::deleter(&cluster, &metrics),
            add_partitions: steps::grower(&cluster, &metrics),
            alter_config: steps::configurer(&cluster, &metrics),
            look: steps::looker(&cluster, &metrics),
            flow: Flow::default(),
            waiting: Mutex::default(),
            status_writes: Limiter::new(settings.status_writes_per_second),
            client,
            settings,
            cluster,
            metrics,
            events,
            claims: Mutex::default(),
            queues: Mutex::default(),
            memory: Mutex::default(),
            is_cluster_known: AtomicBool::new(false),
            unreachable_since: Mutex::default(),
            is_released: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            mover,
            lease_renewed: OnceLock::new(),
            dirty: Mutex::default(),
        }
    }

    /// The topic as it was seen last.
    pub fn topic(&self, name: &str) -> Option<Arc<TopicView>> {
        self.cluster.view().topics.get(name).cloned()
    }

    /// Whether anything may be changed: nobody stops us, and the Lease was renewed in time. A process that was frozen
    /// for a while finds out here, before anybody has told it.
    pub fn may_change(&self) -> bool {
        let renewed = self.lease_renewed.get();
        !self.is_stopped.load(Ordering::Relaxed)
            && renewed.is_none_or(|at| at.borrow().elapsed() < RENEW_DEADLINE)
    }

    /// How many brokers may get replicas, and in how many racks they are (0 if that is not known of all).
    pub fn members(&self, view: &ClusterView) -> (usize, usize) {
        let known = self.mover.get().map(Mover::status);
        let known = known.map(|status| status.borrow().brokers.clone());
        let may = |id| {
            let state = known.as_ref().and_then(|known| known.get(&id));
            state.is_none_or(|state| !state.is_leaving())
        };
        let members: Vec<_> = view.brokers.values().filter(|node| may(node.id)).collect();
        let racks: Option<BTreeSet<&String>> =
            members.iter().map(|node| node.rack.as_ref()).collect();
        (members.len(), racks.map_or(0, |racks| racks.len()))
    }

    /// Partitions from what there is to `total`, on brokers of the planner's choice.
    pub(crate) fn new_partitions(
        &self,
        topic: &TopicView,
        total: i32,
        spread: RackSpread,
    ) -> NewPartitions {
        let view = self.cluster.view();
        let placer = self.mover.get().map(|mover| mover.placer(&view));
        steps::new_partitions(placer, topic, total, spread)
    }

    /// Adds what is only known when somebody asks to the figures.
    pub fn figures(&self) {
        let waiting = lock(&self.waiting).len();
        let metrics = &self.metrics;
        metrics.set("barnabas_operator_queue_depth", &[], waiting as f64);
        let limit = self.flow.limit();
        metrics.set("barnabas_operator_api_requests_limit", &[], limit);
        let mut states = BTreeMap::<&str, usize>::new();
        for memory in lock(&self.memory).values() {
            *states.entry(memory.state.unwrap_or("new")).or_default() += 1;
        }
        let name = "barnabas_operator_topics";
        metrics.clear(name);
        for (state, count) in states {
            metrics.set(name, &[("state", state)], count as f64);
        }
    }

    /// Puts a resource into the queue of its namespace.
    pub async fn enqueue(&self, name: &Name) {
        lock(&self.waiting).insert(name.clone());
        let queue = lock(&self.queues)
            .iter()
            .find(|(namespace, _)| namespace.as_ref().is_none_or(|one| *one == name.namespace))
            .map(|(_, queue)| queue.clone());
        if let Some(queue) = queue {
            let object = ObjectRef::new(&name.name).within(&name.namespace);
            // An error means that the queue's controller has ended.
            let _ = queue.send(object).await;
        }
    }

    /// The owners of these topics look again.
    pub async fn enqueue_topics(&self, topics: impl IntoIterator<Item = impl AsRef<str>>) {
        let owners = lock(&self.claims).owners_of(topics);
        for owner in owners {
            self.enqueue(&owner).await;
        }
    }

    pub(crate) fn remember(&self, name: &Name, change: impl FnOnce(&mut Memory)) {
        change(lock(&self.memory).entry(name.clone()).or_default());
    }
}

/// So many per second, in bursts of a second's worth.
pub struct Limiter {
    per_second: f64,
    state: Mutex<(f64, Instant)>,
}

impl Limiter {
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            per_second,
            state: Mutex::new((per_second, Instant::now())),
        }
    }

    /// Waits for a turn.
    pub async fn turn(&self) {
        let wait = {
            let mut state = lock(&self.state);
            let now = Instant::now();
            let gained = (now - state.1).as_secs_f64() * self.per_second;
            state.0 = (state.0 + gained).min(self.per_second) - 1.0;
            state.1 = now;
            (-state.0 / self.per_second).max(0.0)
        };
        tokio::time::sleep(Duration::from_secs_f64(wait)).await;
    }
}
