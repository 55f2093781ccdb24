//! A broker's session with ZooKeeper, over a wire that delays and breaks.
//!
//! Requests take effect at the ensemble in order, some time after they were sent, and answers and events come
//! back in order, some time later. While the wire is cut both wait; a session that is cut off for too long ends
//! at the ensemble, and the client learns of it when the wire is well again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use barnabas_broker::zookeeper::memory::{MemoryEnsemble, MemoryZooKeeper};
use barnabas_broker::zookeeper::{
    Coordination, CoordinationError, CoordinationEvent, NodeEvent, Operation, Outcome,
    SessionState, Watch,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::network::{Network, Node};

type Results = Vec<Result<Outcome, CoordinationError>>;

struct Job {
    batch: Vec<Operation>,
    /// Of the session that the client meant.
    session: u64,
    arrives: Instant,
    reply: oneshot::Sender<Results>,
}

enum Delivery {
    Reply(oneshot::Sender<Results>, Results),
    Event(CoordinationEvent),
}

/// One broker's client, for one run of the broker.
pub(crate) struct ZooKeeperClient {
    shared: Arc<Shared>,
    pumps: Mutex<Vec<AbortHandle>>,
}

struct Shared {
    node: Node,
    network: Arc<Network>,
    ensemble: MemoryEnsemble,
    inner: Arc<MemoryZooKeeper>,
    jobs: mpsc::UnboundedSender<Job>,
    last_arrival: Mutex<Instant>,
    state: watch::Sender<SessionState>,
    subscribers: Mutex<Vec<mpsc::UnboundedSender<CoordinationEvent>>>,
    session_id: AtomicI64,
    /// How many sessions ended as the client knows, and as the ensemble knows.
    ended_for_client: AtomicU64,
    ended_for_ensemble: AtomicU64,
    /// Paths on which the client has watches, and whether they are for children.
    armed: Mutex<BTreeSet<(String, bool)>>,
    is_cut: AtomicBool,
    cut_since: Mutex<Instant>,
    is_lost: AtomicBool,
    is_closed: AtomicBool,
}

impl ZooKeeperClient {
    pub(crate) fn connect(
        node: Node,
        network: &Arc<Network>,
        ensemble: &MemoryEnsemble,
    ) -> Arc<Self> {
        let inner = ensemble.connect();
        let (jobs, received) = mpsc::unbounded_channel();
        let (deliveries, delivered) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            node,
            network: network.clone(),
            ensemble: ensemble.clone(),
            jobs,
            last_arrival: Mutex::new(Instant::now()),
            state: watch::Sender::new(SessionState::Connected),
            subscribers: Mutex::default(),
            session_id: AtomicI64::new(inner.session_id()),
            ended_for_client: AtomicU64::new(0),
            ended_for_ensemble: AtomicU64::new(0),
            armed: Mutex::default(),
            is_cut: AtomicBool::new(false),
            cut_since: Mutex::new(Instant::now()),
            is_lost: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            inner,
        });
        let events = shared.inner.subscribe();
        let up = tokio::spawn(run_jobs(shared.clone(), received, events, deliveries));
        let down = tokio::spawn(deliver(shared.clone(), delivered));
        Arc::new(Self {
            shared,
            pumps: Mutex::new(vec![up.abort_handle(), down.abort_handle()]),
        })
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.shared.is_cut.load(Ordering::SeqCst)
    }

    /// When the wire was cut last.
    pub(crate) fn cut_since(&self) -> Instant {
        *lock(&self.shared.cut_since)
    }

    /// Cuts the wire.
    pub(crate) fn cut(&self) {
        if self.shared.is_closed.load(Ordering::SeqCst) {
            return;
        }
        if self.shared.is_cut.swap(true, Ordering::SeqCst) {
            return;
        }
        *lock(&self.shared.cut_since) = Instant::now();
        self.shared.inner.cut_off();
        self.shared.state.send_replace(SessionState::Disconnected);
    }

    /// The ensemble has not heard from this client for too long.
    pub(crate) fn lose_session(&self) {
        if self.shared.is_lost.swap(true, Ordering::SeqCst) {
            return;
        }
        self.shared.note("session is lost");
        self.shared
            .ended_for_ensemble
            .fetch_add(1, Ordering::SeqCst);
        self.shared.inner.lose_session();
    }

    /// The wire is well again: the session goes on, or another one begins.
    pub(crate) fn restore(&self) {
        let shared = &self.shared;
        if !shared.is_cut.swap(false, Ordering::SeqCst) || shared.is_closed.load(Ordering::SeqCst) {
            return;
        }
        if shared.is_lost.load(Ordering::SeqCst) {
            self.expire();
            return;
        }
        shared.note("is connected again");
        if shared.network.chance(0.5) {
            // An answer was lost with the connection, and what was asked is asked again.
            shared.inner.lose_next_reply();
        }
        shared.inner.reconnect();
        shared.state.send_replace(SessionState::Connected);
        // What the client library does, for nobody knows what was missed.
        let armed = std::mem::take(&mut *lock(&shared.armed));
        for (path, is_children) in armed {
            let event = if is_children {
                NodeEvent::ChildrenChanged
            } else {
                NodeEvent::DataChanged
            };
            shared.tell(&CoordinationEvent::Node { path, event });
        }
    }

    /// The session ends, and the client hears of it.
    pub(crate) fn expire(&self) {
        let shared = self.shared.clone();
        if shared.is_closed.load(Ordering::SeqCst) {
            return;
        }
        if !shared.is_lost.swap(true, Ordering::SeqCst) {
            shared.ended_for_ensemble.fetch_add(1, Ordering::SeqCst);
        }
        shared.note("session expires");
        let expiring = tokio::spawn(async move {
            shared.inner.expire().await;
        });
        let mut pumps = lock(&self.pumps);
        pumps.push(expiring.abort_handle());
    }

    /// The process is gone: nothing is sent any more.
    pub(crate) fn hang_up(&self) {
        for pump in lock(&self.pumps).drain(..) {
            pump.abort();
        }
    }
}

/// The ensemble's end of the wire.
async fn run_jobs(
    shared: Arc<Shared>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    mut events: mpsc::UnboundedReceiver<CoordinationEvent>,
    deliveries: mpsc::UnboundedSender<(Instant, Delivery)>,
) {
    let mut last = Instant::now();
    let mut send = |delivery| {
        let delay = shared.network.random_delay(Duration::from_millis(3));
        last = last.max(Instant::now() + delay);
        // The other end goes away with this one.
        let _ = deliveries.send((last, delivery));
    };
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(event) => send(Delivery::Event(event)),
                None => return,
            },
            job = jobs.recv() => {
                let Some(job) = job else { return };
                sleep_until(job.arrives).await;
                let results = shared.carry_out(job.batch, job.session).await;
                // What happened before the answer is told before it.
                while let Ok(event) = events.try_recv() {
                    send(Delivery::Event(event));
                }
                send(Delivery::Reply(job.reply, results));
            }
        }
    }
}

/// The client's end of the wire.
async fn deliver(
    shared: Arc<Shared>,
    mut deliveries: mpsc::UnboundedReceiver<(Instant, Delivery)>,
) {
    while let Some((at, delivery)) = deliveries.recv().await {
        sleep_until(at).await;
        match delivery {
            Delivery::Reply(reply, results) => {
                // Who asked may be gone.
                let _ = reply.send(results);
            }
            Delivery::Event(event) => {
                match &event {
                    CoordinationEvent::Node { path, event } => {
                        let mut armed = lock(&shared.armed);
                        armed.remove(&(path.clone(), *event == NodeEvent::ChildrenChanged));
                        if *event == NodeEvent::Deleted {
                            armed.remove(&(path.clone(), true));
                        }
                    }
                    CoordinationEvent::SessionExpired(_) => {
                        shared.ended_for_client.fetch_add(1, Ordering::SeqCst);
                        lock(&shared.armed).clear();
                        shared.state.send_replace(SessionState::Expired);
                    }
                    CoordinationEvent::SessionEstablished => {
                        shared.is_lost.store(false, Ordering::SeqCst);
                        let id = shared.inner.session_id();
                        shared.session_id.store(id, Ordering::SeqCst);
                        shared.state.send_replace(SessionState::Connected);
                    }
                }
                shared.tell(&event);
            }
        }
    }
}

impl Shared {
    async fn carry_out(&self, batch: Vec<Operation>, session: u64) -> Results {
        let is_of_session = || session == self.ended_for_ensemble.load(Ordering::SeqCst);
        if !is_of_session() {
            return failed(&batch);
        }
        let clock = self.network.wall_clock_ms();
        self.ensemble.set_wall_clock_ms(clock);
        let results = self.inner.submit(batch.clone()).await;
        if batch.iter().any(is_write) {
            let count = batch.len();
            let bytes = format!("{batch:?}{results:?}");
            let sum = crc32c::crc32c(bytes.as_bytes());
            self.note(&format!(
                "writes {count} operations, {}: {sum:08x}",
                describe(&batch[0])
            ));
            self.network
                .checks
                .zookeeper_written(&self.network.trace, &self.ensemble, &batch);
        }
        self.network.checks.after_event(&self.network.trace);
        results
    }

    fn note(&self, text: &str) {
        let node = self.node;
        self.network.trace.note(&format!("{node}>zk {text}"));
    }

    fn tell(&self, event: &CoordinationEvent) {
        lock(&self.subscribers).retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }
}

fn is_write(operation: &Operation) -> bool {
    !matches!(
        operation,
        Operation::Get { .. } | Operation::Exists { .. } | Operation::Children { .. }
    )
}

/// The first write, in a few words.
fn describe(operation: &Operation) -> String {
    match operation {
        Operation::Create { path, .. } => format!("create {path}"),
        Operation::Set { path, .. } => format!("set {path}"),
        Operation::Delete { path, .. } => format!("delete {path}"),
        Operation::Check { path, version } => format!("check {path} {version}"),
        Operation::Multi(operations) => {
            let texts: Vec<String> = operations.iter().take(4).map(describe).collect();
            format!("[{}]", texts.join(", "))
        }
        Operation::Get { path, .. }
        | Operation::Exists { path, .. }
        | Operation::Children { path, .. } => path.clone(),
    }
}

fn failed(batch: &[Operation]) -> Results {
    batch
        .iter()
        .map(|_| Err(CoordinationError::SessionExpired))
        .collect()
}

impl Coordination for ZooKeeperClient {
    fn submit(
        &self,
        batch: Vec<Operation>,
    ) -> BoxFuture<'static, Vec<Result<Outcome, CoordinationError>>> {
        let shared = &self.shared;
        if shared.is_closed.load(Ordering::SeqCst) {
            let results = batch.iter().map(|_| Err(CoordinationError::Closed));
            return std::future::ready(results.collect()).boxed();
        }
        if *shared.state.borrow() == SessionState::Expired {
            return std::future::ready(failed(&batch)).boxed();
        }
        for operation in &batch {
            let (path, is_children) = match operation {
                Operation::Get {
                    path,
                    watch: Watch::Once,
                }
                | Operation::Exists {
                    path,
                    watch: Watch::Once,
                } => (path, false),
                Operation::Children {
                    path,
                    watch: Watch::Once,
                } => (path, true),
                _ => continue,
            };
            lock(&shared.armed).insert((path.clone(), is_children));
        }
        let arrives = {
            let delay = shared.network.random_delay(Duration::from_millis(3));
            let mut last = lock(&shared.last_arrival);
            *last = (*last).max(Instant::now() + delay);
            *last
        };
        let results = failed(&batch);
        let (reply, answer) = oneshot::channel();
        let job = Job {
            batch,
            session: shared.ended_for_client.load(Ordering::SeqCst),
            arrives,
            reply,
        };
        let _ = shared.jobs.send(job);
        answer.map(|answer| answer.unwrap_or(results)).boxed()
    }

    fn subscribe(&self) -> mpsc::UnboundedReceiver<CoordinationEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.shared.subscribers).push(sender);
        receiver
    }

    fn session_id(&self) -> i64 {
        self.shared.session_id.load(Ordering::SeqCst)
    }

    fn session_state(&self) -> watch::Receiver<SessionState> {
        self.shared.state.subscribe()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let shared = self.shared.clone();
        async move {
            if shared.is_closed.swap(true, Ordering::SeqCst) {
                return;
            }
            shared.note("closes its session");
            shared.state.send_replace(SessionState::Closed);
            // Otherwise the ensemble never hears of it.
            if !shared.is_cut.load(Ordering::SeqCst) {
                shared.inner.close().await;
            }
        }
        .boxed()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
