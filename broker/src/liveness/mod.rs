//! Notices at once when the process of another broker ends, and removes its registration (fast fail-over).
//!
//! The controller, and a few brokers beside it in case it is the controller that dies, keep an idle connection to
//! every broker whose registration asks for it; and who talks to such a broker, as followers do, tells when that fails
//! (see [`reporting`]). When a connection ends, `barnabas_core::liveness` decides what is to be done, step by step. From the removal on everything is the ordinary way of a broker whose session expired. Nothing
//! but a dialled connection ever reaches the other broker, and none at all one of Apache Kafka.

mod inquiry;
mod reporting;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::control::BrokerAddress;
use barnabas_core::ids::{BrokerEpoch, BrokerId};
use barnabas_core::liveness::{self, Probing, Verdict};
use barnabas_core::znodes::BrokerRegistration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::LiveConfig;
use crate::controller::ControllerStatus;
use crate::host;
use crate::peer::{PeerError, PeerNetwork};
use crate::zookeeper::{Coordination, CoordinationEvent, Outcome, Watch, ZooKeeper};

use inquiry::InquiryOptions;
pub use reporting::{SuspicionQueue, reporting};

/// Suspicions that wait; more are dropped, since whoever has one will have it again.
const QUEUED_SUSPICIONS: usize = 256;
/// Before a connection is dialled again that somebody closed who lives, or that could not be made.
const REDIAL_BACKOFF: Duration = Duration::from_secs(1);
/// Before the brokers are listed again if that failed for another reason than the session's end.
const LIST_BACKOFF: Duration = Duration::from_secs(1);

/// What it needs of its broker.
pub struct LivenessOptions {
    pub broker_id: BrokerId,
    pub zookeeper: Arc<ZooKeeper>,
    pub config: Arc<LiveConfig>,
    pub controller: watch::Receiver<ControllerStatus>,
    /// One that reports nothing.
    pub network: Arc<dyn PeerNetwork>,
    /// What everybody else's network reports.
    pub suspected: SuspicionQueue,
}

/// The way to tell that another broker may be dead.
#[derive(Clone)]
struct Suspicions(mpsc::Sender<BrokerId>);

impl Suspicions {
    /// To be called when a connection to that broker ended or was refused; anything else says nothing.
    fn connection_failed(&self, broker: BrokerId, error: &PeerError) {
        match error {
            // Full: there is enough to look into, and the next attempt will fail as well.
            PeerError::Refused(_) | PeerError::Reset(_) => drop(self.0.try_send(broker)),
            PeerError::TimedOut | PeerError::Io(_) | PeerError::Malformed(_) => {}
        }
    }
}

/// Starts the task that watches other brokers; `None` if it is switched off.
pub fn start(options: LivenessOptions) -> Option<JoinHandle<()>> {
    let config = options.config.broker();
    if !config.barnabas_fast_failover_enable {
        return None;
    }
    let SuspicionQueue {
        suspicions,
        received,
    } = options.suspected;
    let positive = |number: i32| u64::try_from(number).unwrap_or(1).max(1);
    let interval = positive(config.barnabas_fast_failover_probe_interval_ms);
    let timeout = positive(config.barnabas_fast_failover_probe_timeout_ms);
    let task = LivenessTask {
        broker_id: options.broker_id,
        inter_broker_listener: config.listeners.inter_broker.clone(),
        probing: Probing {
            attempts: config.barnabas_fast_failover_probes.max(1).cast_unsigned(),
            interval: Duration::from_millis(interval),
        },
        probe_timeout: Duration::from_millis(timeout),
        coordination: options.zookeeper.coordination().clone(),
        controller: options.controller,
        network: options.network,
        suspicions,
        eligible: BTreeMap::new(),
        watched: BTreeMap::new(),
        inquiries: BTreeMap::new(),
    };
    Some(host::spawn(task.run(received)))
}

/// A task that ends with its owner.
struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A broker that takes part, as its registration says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Eligible {
    epoch: BrokerEpoch,
    address: BrokerAddress,
}

struct LivenessTask {
    broker_id: BrokerId,
    inter_broker_listener: String,
    probing: Probing,
    probe_timeout: Duration,
    coordination: Arc<dyn Coordination>,
    controller: watch::Receiver<ControllerStatus>,
    network: Arc<dyn PeerNetwork>,
    suspicions: Suspicions,
    /// This broker among them.
    eligible: BTreeMap<BrokerId, Eligible>,
    /// The connections that this broker keeps.
    watched: BTreeMap<BrokerId, (Eligible, Owned)>,
    inquiries: BTreeMap<BrokerId, Owned>,
}

impl LivenessTask {
    async fn run(mut self, mut suspicions: mpsc::Receiver<BrokerId>) {
        let mut events = self.coordination.subscribe();
        let (closed, mut verdicts) = mpsc::channel(QUEUED_SUSPICIONS);
        let mut controller = self.controller.clone();
        self.list().await;
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(CoordinationEvent::Node { path, .. }) => {
                        if path == BrokerRegistration::PARENT {
                            self.list().await;
                        }
                    }
                    Some(CoordinationEvent::SessionEstablished) => self.list().await,
                    // What is under way fails by itself.
                    Some(CoordinationEvent::SessionExpired(_)) => {}
                    None => return,
                },
                Some((broker, verdict)) = verdicts.recv() => {
                    self.inquiries.remove(&broker);
                    report(broker, verdict);
                    if verdict == Verdict::Alive {
                        // It may be reached elsewhere by now.
                        self.list().await;
                    }
                }
                Some(broker) = suspicions.recv() => self.suspect(broker, &closed),
                changed = controller.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.keep_watch();
                }
            }
        }
    }

    /// Reads who is registered, and leaves a watch on that.
    async fn list(&mut self) {
        loop {
            match self.read_eligible().await {
                Ok(eligible) => {
                    self.eligible = eligible;
                    return self.keep_watch();
                }
                // The next session lists again.
                Err(error) if error.is_of_session() => return,
                Err(error) => {
                    tracing::warn!(%error, "the brokers could not be listed to watch them");
                    tokio::time::sleep(LIST_BACKOFF).await;
                }
            }
        }
    }

    async fn read_eligible(
        &self,
    ) -> Result<BTreeMap<BrokerId, Eligible>, crate::zookeeper::CoordinationError> {
        let parent = BrokerRegistration::PARENT;
        let names = self.coordination.children(parent, Watch::Once).await?;
        let ids = names.iter().filter_map(|name| name.parse().ok());
        let ids: Vec<BrokerId> = ids.map(BrokerId).collect();
        let paths = ids.iter().map(|id| BrokerRegistration::path(*id));
        let reads = paths.map(crate::zookeeper::Operation::get).collect();
        let found = self.coordination.submit(reads).await;
        let mut eligible = BTreeMap::new();
        for (id, found) in ids.into_iter().zip(found) {
            // One that went in between, or cannot be understood, does not take part.
            let Ok(Outcome::Data {
                data: Some(data),
                stat,
            }) = found
            else {
                continue;
            };
            let Ok(registration) = BrokerRegistration::decode(id, &data) else {
                continue;
            };
            let address = liveness::address(&registration, &self.inter_broker_listener);
            if let Some(address) = address.filter(|_| registration.fast_failover) {
                let epoch = stat.czxid;
                eligible.insert(id, Eligible { epoch, address });
            }
        }
        Ok(eligible)
    }

    fn eligible_ids(&self) -> Vec<BrokerId> {
        self.eligible.keys().copied().collect()
    }

    /// Keeps connections to those that are to be watched, in their present registrations, and to no others.
    fn keep_watch(&mut self) {
        let controller = self.controller.borrow().active_controller;
        let is_watcher = liveness::is_watcher(self.broker_id, controller, &self.eligible_ids());
        let eligible = &self.eligible;
        self.watched
            .retain(|id, (watched, _)| is_watcher && eligible.get(id) == Some(watched));
        if !is_watcher {
            return;
        }
        for (id, peer) in eligible {
            if *id == self.broker_id || self.watched.contains_key(id) {
                continue;
            }
            let watching = watch_peer(
                self.network.clone(),
                peer.address.clone(),
                self.suspicions.clone(),
            );
            let task = Owned(host::spawn(async move { match watching.await {} }));
            self.watched.insert(*id, (peer.clone(), task));
        }
    }

    fn suspect(&mut self, suspect: BrokerId, closed: &mpsc::Sender<(BrokerId, Verdict)>) {
        let is_known = self.eligible.contains_key(&suspect);
        if suspect == self.broker_id || !is_known || self.inquiries.contains_key(&suspect) {
            return;
        }
        let controller = self.controller.borrow().active_controller;
        let ids = self.eligible_ids();
        let delay = liveness::delay(self.broker_id, suspect, controller, &ids, self.probing);
        let inquiry = inquiry::inquire(InquiryOptions {
            suspect,
            inter_broker_listener: self.inter_broker_listener.clone(),
            probing: self.probing,
            probe_timeout: self.probe_timeout,
            delay,
            coordination: self.coordination.clone(),
            network: self.network.clone(),
        });
        let closed = closed.clone();
        let task = host::spawn(async move {
            let verdict = inquiry.await;
            // An error says that the broker stops.
            let _ = closed.send((suspect, verdict)).await;
        });
        self.inquiries.insert(suspect, Owned(task));
    }
}

/// Holds a connection to a broker and tells whenever it ends.
async fn watch_peer(
    network: Arc<dyn PeerNetwork>,
    address: BrokerAddress,
    suspicions: Suspicions,
) -> Infallible {
    loop {
        let error = match network.connect(&address).await {
            Ok(mut stream) => stream.closed().await,
            Err(error) => error,
        };
        tracing::debug!(broker = %address.id, %error, "the connection that watches a broker ended");
        suspicions.connection_failed(address.id, &error);
        tokio::time::sleep(REDIAL_BACKOFF).await;
    }
}

fn report(broker: BrokerId, verdict: Verdict) {
    match verdict {
        Verdict::Removed => tracing::warn!(
            %broker,
            "this broker's process is dead: its registration was removed before its session ends"
        ),
        Verdict::Alive => tracing::debug!(%broker, "a suspected broker is alive"),
        Verdict::Gone => tracing::debug!(%broker, "a suspected broker is gone already"),
        Verdict::Silent | Verdict::LeftToSession => tracing::info!(
            %broker,
            ?verdict,
            "a suspected broker is left to its ZooKeeper session"
        ),
    }
}
