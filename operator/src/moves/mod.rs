//! The one owner of all moves: nothing else in the operator reassigns replicas.
//!
//! [`Mover`] is a task that looks at the cluster again and again. What it does is decided by [`Machine`], which is
//! plain code; the task fetches what the machine looks at and carries out what it says, in order, asking the
//! [`Guard`] before each request that changes something.
//!
//! | module | what it owns |
//! |---|---|
//! | [`evidence`] | what is known of brokers |
//! | `machine` | what is done next |
//! | `stock`, `choosing` | its parts: what became of moves; which may begin |
//! | `snapshot` | the planner's view of the cluster |
//! | `waves` | how much at once |
//! | `throttles` | how fast, and that nothing of it stays behind |
//! | [`record`] | what outlives the process |
//! | [`report`] | events and figures |

mod choosing;
pub mod evidence;
mod machine;
pub mod record;
pub mod report;
mod settings;
mod snapshot;
mod stock;
#[cfg(test)]
mod tests;
mod throttles;
mod waves;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use barnabas_core::balance::{self, Placer, Rates};
use barnabas_core::ids::{BrokerId, TopicName, TopicPartition};
use barnabas_core::time::Now;
use futures::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

pub use evidence::{BrokerEvidence, BrokerState, Evidence, EvidenceSource, Frozen, ManyDown};
pub use machine::{Action, Inputs, Machine, Order, Outcome, RunningMove, Status, Step, Wishes};
pub use record::{Record, RecordStore};
pub use report::{Event, Reporter, Subject, metrics};
pub use settings::{Mode, MoverSettings};
use snapshot::place_for;
pub use snapshot::{Marks, snapshot};
pub use throttles::DynamicRates;

use crate::admin::{AdminError, ConfigChanges, ConfigResource, ConfigSource, Election, Reassign};
use crate::cluster::{Cluster, ClusterView};

/// Whether we are still the one who may change anything: the holder of the Lease, or of the lock in ZooKeeper.
pub trait Guard: Send + Sync {
    fn may_change(&self) -> bool;
}

/// Nobody else is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unguarded;

impl Guard for Unguarded {
    fn may_change(&self) -> bool {
        true
    }
}

/// How brokers fare, from whoever reads their metrics.
pub trait Gauges: Send + Sync {
    /// Bytes per second of partitions, smoothed; nothing if that is not known for all.
    fn traffic(&self) -> BoxFuture<'_, Option<BTreeMap<TopicPartition, Rates>>>;

    /// Brokers whose clients wait too long.
    fn overloaded(&self) -> BoxFuture<'_, BTreeSet<BrokerId>>;
}

/// Nothing is measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoGauges;

impl Gauges for NoGauges {
    fn traffic(&self) -> BoxFuture<'_, Option<BTreeMap<TopicPartition, Rates>>> {
        Box::pin(async { None })
    }

    fn overloaded(&self) -> BoxFuture<'_, BTreeSet<BrokerId>> {
        Box::pin(async { BTreeSet::new() })
    }
}

/// What the mover is made of.
pub struct Parts {
    pub cluster: Cluster,
    pub evidence: Arc<dyn EvidenceSource>,
    pub store: Arc<dyn RecordStore>,
    pub reporter: Arc<dyn Reporter>,
    pub guard: Arc<dyn Guard>,
    pub gauges: Arc<dyn Gauges>,
    pub settings: MoverSettings,
}

/// A handle on the task; clones share it.
#[derive(Clone)]
pub struct Mover {
    wishes: watch::Sender<Wishes>,
    order: watch::Sender<Order>,
    status: watch::Receiver<Arc<Status>>,
    look: Arc<Notify>,
    started: Instant,
    planner: balance::Settings,
}

impl Mover {
    /// The handle, and the task to be run by whoever owns it; it ends when it is dropped.
    pub fn new(parts: Parts) -> (Self, impl Future<Output = ()> + Send) {
        let (wishes, wished) = watch::channel(Wishes::default());
        let (order, ordered) = watch::channel(Order::Run);
        let (told, status) = watch::channel(Arc::new(Status::default()));
        let look = Arc::new(Notify::new());
        let started = Instant::now();
        let mover = Self {
            wishes,
            order,
            status,
            look: look.clone(),
            started,
            planner: parts.settings.planner.clone(),
        };
        let task = Task {
            parts,
            wished,
            ordered,
            told,
            look,
            started,
            refreshed: None,
            log_dirs_at: None,
        };
        (mover, task.run())
    }

    /// Changes what is wished for. Wishes last until they are taken back.
    pub fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        let changed = self.wishes.send_if_modified(|wishes| {
            let before = wishes.clone();
            change(wishes);
            *wishes != before
        });
        if changed {
            self.look.notify_one();
        }
    }

    /// Whether another number of replicas of a topic is wished for.
    pub fn wishes_replicas(&self, topic: &TopicName) -> bool {
        self.wishes.borrow().replicas.contains_key(topic)
    }

    /// Chooses brokers for new partitions, as the planner would have them.
    pub fn placer(&self, view: &ClusterView) -> Placer {
        place_for(view, &self.status.borrow().brokers, &self.planner)
    }

    /// Stops, cancels or resumes everything.
    pub fn order(&self, order: Order) {
        self.order.send_replace(order);
        self.look.notify_one();
    }

    /// Something has changed: look now.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// How things stand, and word of each change.
    pub fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// The balancer's figures in Prometheus' text format.
    pub fn metrics(&self) -> String {
        metrics(&self.status.borrow(), self.started.elapsed())
    }
}

struct Task {
    parts: Parts,
    wished: watch::Receiver<Wishes>,
    ordered: watch::Receiver<Order>,
    told: watch::Sender<Arc<Status>>,
    look: Arc<Notify>,
    started: Instant,
    refreshed: Option<Instant>,
    log_dirs_at: Option<Instant>,
}

/// How old sizes and free space may be while nothing moves.
const LOG_DIRS_AGE: Duration = Duration::from_secs(30);
/// So that a deadline is past when it is looked at.
const DEADLINE_SLACK: Duration = Duration::from_millis(10);
/// Brokers hear of a changed throttle from ZooKeeper a moment later; what moves meanwhile would not be held back.
const THROTTLE_HEAD_START: Duration = Duration::from_millis(500);
/// Reassignments of one request.
const REASSIGN_AT_ONCE: usize = 500;

impl Task {
    async fn run(mut self) {
        let record = self.parts.store.load().await;
        // An empty record may be all there ever was, or what a crash has left of it: look for leftovers either way.
        let known = (record != Record::default()).then_some(record);
        let mut machine = Machine::new(self.parts.settings.clone(), known);
        loop {
            let is_busy = match self.turn(machine).await {
                (back, Ok(is_busy)) => {
                    machine = back;
                    is_busy
                }
                (back, Err(error)) => {
                    machine = back;
                    warn!(%error, "the cluster cannot be looked at or changed now");
                    false
                }
            };
            let settings = &self.parts.settings;
            let pause = if is_busy {
                settings.busy_interval
            } else {
                settings.idle_interval
            };
            let pause = pause.min(self.next_deadline());
            tokio::select! {
                biased;
                () = self.look.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// How long until the wait for a broker is over: what was on it is healed then, not at the next look after.
    fn next_deadline(&self) -> Duration {
        let now = self.started.elapsed();
        let status = self.told.borrow();
        let left = status.due_at.values().filter_map(|at| at.checked_sub(now));
        left.min()
            .map_or(Duration::MAX, |left| left + DEADLINE_SLACK)
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Now {
            monotonic: self.started.elapsed(),
            wall_clock_ms: wall.map_or(0, |since| since.as_millis() as i64),
        }
    }

    /// One look, and what follows. Whether there is more to do soon.
    async fn turn(&mut self, machine: Machine) -> (Machine, Result<bool, AdminError>) {
        if !self.parts.guard.may_change() {
            // Somebody else owns the moves; what they do is not told twice.
            return (machine, Ok(false));
        }
        let seen = match self.see().await {
            Ok(seen) => seen,
            Err(error) => return (machine, Err(error)),
        };
        let now = self.now();
        let evidence = self.parts.evidence.evidence(now);
        let wishes = self.wished.borrow().clone();
        let order = *self.ordered.borrow();
        let overloaded = self.parts.gauges.overloaded().await;
        let traffic = self.parts.gauges.traffic().await;
        // Planning for a large cluster takes a while; the runtime has other things to do.
        let stepped = tokio::task::spawn_blocking(move || {
            let mut machine = machine;
            let step = machine.step(&Inputs {
                view: &seen.view,
                evidence: &evidence,
                rates: &seen.rates,
                overloaded: &overloaded,
                traffic: traffic.as_ref(),
                wishes: &wishes,
                order,
                now,
            });
            (machine, step)
        });
        let (machine, step) = match stepped.await {
            Ok(stepped) => stepped,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        for event in &step.events {
            self.parts.reporter.event(event);
        }
        let is_busy = !step.status.is_idle;
        self.told.send_replace(Arc::new(step.status));
        let mut is_configured = false;
        for action in step.actions {
            if is_configured && matches!(action, Action::Reassign(_)) {
                tokio::time::sleep(THROTTLE_HEAD_START).await;
            }
            is_configured = matches!(action, Action::Configure(_));
            if !self.parts.guard.may_change() {
                warn!("somebody else owns the moves now");
                return (machine, Ok(false));
            }
            if let Err(error) = self.carry_out(action).await {
                return (machine, Err(error));
            }
        }
        (machine, Ok(is_busy))
    }

    async fn see(&mut self) -> Result<Seen, AdminError> {
        let cluster = &self.parts.cluster;
        let is_old = |at: Option<Instant>, age: Duration| at.is_none_or(|at| at.elapsed() >= age);
        if is_old(self.refreshed, self.parts.settings.resync) {
            cluster.refresh().await?;
            self.refreshed = Some(Instant::now());
            self.log_dirs_at = self.refreshed;
        } else {
            let view = cluster.refresh_replicas().await?;
            if !view.reassignments.is_empty() || is_old(self.log_dirs_at, LOG_DIRS_AGE) {
                cluster.refresh_log_dirs().await?;
                self.log_dirs_at = Some(Instant::now());
            }
        }
        let view = cluster.view();
        let rates = self.rates(&view).await;
        Ok(Seen { view, rates })
    }

    /// Rates of those who answer.
    async fn rates(&self, view: &ClusterView) -> BTreeMap<BrokerId, DynamicRates> {
        let admin = self.parts.cluster.admin();
        let asked = view.brokers.keys().map(|id| async move {
            let resource = [ConfigResource::Broker(*id)];
            let keys = [throttles::LEADER_RATE, throttles::FOLLOWER_RATE];
            let described = admin.describe_configs(&resource, &keys).await;
            let entries = described
                .map_err(|error| error.to_string())
                .and_then(|mut all| all.pop().ok_or_else(String::new))
                .and_then(|entries| entries.map_err(|error| error.to_string()));
            let entries = entries
                .inspect_err(|error| debug!(broker = %id, error, "its throttles are unknown"))
                .ok()?;
            let mut rates = DynamicRates::default();
            for entry in entries {
                if entry.source != ConfigSource::DynamicBroker {
                    continue;
                }
                match entry.name.as_str() {
                    throttles::LEADER_RATE => rates.leader = entry.value,
                    throttles::FOLLOWER_RATE => rates.follower = entry.value,
                    _ => {}
                }
            }
            Some((*id, rates))
        });
        let found = futures::future::join_all(asked).await;
        found.into_iter().flatten().collect()
    }

    async fn carry_out(&self, action: Action) -> Result<(), AdminError> {
        let admin = self.parts.cluster.admin();
        match action {
            Action::Save(record) => {
                if let Err(error) = self.parts.store.save(&record).await {
                    // Leftovers can be found without it, so moves need not wait.
                    warn!(%error, "the record of throttles cannot be kept");
                }
            }
            Action::Configure(changes) => self.configure(&changes).await?,
            Action::Reassign(reassignments) => {
                for some in reassignments.chunks(REASSIGN_AT_ONCE) {
                    self.reassign(some).await?;
                }
            }
            Action::Elect(partitions) => {
                for (partition, error) in admin
                    .elect_leaders(Election::Preferred, &partitions)
                    .await?
                {
                    debug!(%partition, %error, "the preferred replica was not elected");
                }
            }
        }
        Ok(())
    }

    async fn reassign(&self, reassignments: &[Reassign]) -> Result<(), AdminError> {
        let admin = self.parts.cluster.admin();
        for (partition, error) in admin.alter_partition_reassignments(reassignments).await? {
            if error.error == crate::admin::KafkaError::NoReassignmentInProgress {
                // Cancelled too late: it is done.
                continue;
            }
            warn!(%partition, %error, "not reassigned");
        }
        Ok(())
    }

    /// Each broker by itself, so that one that is away keeps nobody from being throttled or freed; the first error
    /// is told when all have been asked.
    async fn configure(&self, changes: &[ConfigChanges]) -> Result<(), AdminError> {
        let admin = self.parts.cluster.admin();
        let mut failure = None;
        let of_topics =
            |change: &&ConfigChanges| matches!(change.resource, ConfigResource::Topic(_));
        let topics: Vec<ConfigChanges> = changes.iter().filter(of_topics).cloned().collect();
        let brokers = changes.iter().filter(|change| !of_topics(change));
        let groups: Vec<&[ConfigChanges]> = brokers
            .map(std::slice::from_ref)
            .chain((!topics.is_empty()).then_some(topics.as_slice()))
            .collect();
        for group in groups {
            match admin.incremental_alter_configs(group).await {
                Err(error) => failure = Some(error),
                Ok(results) => {
                    for (change, result) in group.iter().zip(results) {
                        if let Err(error) = result {
                            warn!(resource = ?change.resource, %error, "throttles were not changed");
                            failure.get_or_insert(AdminError::Refused {
                                error: error.error,
                                message: error.message,
                            });
                        }
                    }
                }
            }
        }
        let names = topics.iter().filter_map(|change| match &change.resource {
            ConfigResource::Topic(name) => Some(name.clone()),
            ConfigResource::Broker(_) | ConfigResource::AllBrokers => None,
        });
        let names: Vec<TopicName> = names.collect();
        if !names.is_empty() {
            self.parts.cluster.refresh_topics(&names).await?;
        }
        failure.map_or(Ok(()), Err)
    }
}

struct Seen {
    view: Arc<ClusterView>,
    rates: BTreeMap<BrokerId, DynamicRates>,
}
