//! The shell of the controller: the task that owns the state machine, its watches, and the queues to the brokers.
//!
//! | module | what it owns |
//! |---|---|
//! | `task` | the machine, and the one place where its events come from |
//! | `metrics` | what it counts and times |
//! | `channel` | a broker's queue of control requests |
//! | `link` | the way of any broker to whoever is controller |
//! | `remote` | other brokers as the controller tells them what to do |
//! | `operations` | the machine's reads and writes as ZooKeeper's |

mod channel;
mod link;
mod metrics;
mod operations;
mod remote;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use barnabas_core::config::BrokerConfig;
use barnabas_core::control::{ControlOutcome, ControlRequest, Endpoint, LiveBroker};
use barnabas_core::controller::{
    AllocateProducerIdsError, AlterPartition, AlterPartitionError, AlteredPartition, Answer,
    ControlledShutdownError, ControllerError, ElectLeaderError, ElectionType, Event,
    ReassignmentError, Request, Settings, Totals, WantedReplicas,
};
use barnabas_core::ids::{BrokerEpoch, BrokerId, ControllerEpoch, TopicPartition};
use barnabas_core::znodes::{BrokerRegistration, PartitionAssignment};
use futures::future::BoxFuture;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::LiveConfig;
use crate::host;
use crate::zookeeper::ZooKeeper;

pub use link::{ControllerLink, ControllerLinkOptions};
use metrics::ControllerMetrics;
pub use remote::NetworkTargets;

/// Requests of brokers that wait for the machine, at most.
const QUEUED_COMMANDS: usize = 1024;

/// A broker that obeys control requests: this one, in the same process, or a remote one.
pub trait ControlTarget: Send + Sync {
    /// Carries out one request. Called one at a time, in the order in which they must take effect.
    fn deliver(&self, request: ControlRequest) -> BoxFuture<'_, ControlOutcome>;
}

/// Gives access to the brokers other than this one.
pub trait RemoteTargets: Send + Sync {
    /// A way to the broker. Requests that fail are to be repeated until the target is dropped.
    fn connect(&self, broker: &LiveBroker) -> Arc<dyn ControlTarget>;
}

/// What the controller needs of its broker.
pub struct ControllerOptions {
    pub zookeeper: Arc<ZooKeeper>,
    pub config: Arc<LiveConfig>,
    /// How this broker registers again when a session ended.
    pub registration: BrokerRegistration,
    /// The epoch of the current registration; kept up to date.
    pub broker_epoch: Arc<AtomicI64>,
    /// This broker.
    pub target: Arc<dyn ControlTarget>,
    /// The others; without it they are told nothing.
    pub remote: Option<Arc<dyn RemoteTargets>>,
}

/// How the controller of this broker is, for metrics and for who needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ControllerStatus {
    pub is_active: bool,
    /// Who is controller, as far as is known.
    pub active_controller: Option<BrokerId>,
    /// 0 unless active.
    pub epoch: ControllerEpoch,
    /// Events that wait.
    pub queued_events: usize,
    /// Zeros unless active.
    pub totals: Totals,
    /// Leaders that this process has elected so far, as controller.
    pub leader_elections: u64,
    /// Those of them that may lack acknowledged records.
    pub unclean_leader_elections: u64,
    /// What it is doing, as `ControllerState` numbers it.
    pub state: u8,
}

/// Something that others want of the task.
enum Command {
    Request {
        request: Request,
        reply: oneshot::Sender<Answer>,
    },
    /// News from the configuration.
    Tell(Event),
    /// The broker is reached elsewhere from now on.
    Advertise {
        endpoints: Vec<Endpoint>,
        reply: oneshot::Sender<BrokerRegistration>,
    },
    /// Whoever removes this broker's registration now may do so.
    LetGoOfRegistration,
    Resign,
}

/// The way to the controller of this broker, active or not.
pub struct ControllerHandle {
    broker_epoch: Arc<AtomicI64>,
    broker_id: BrokerId,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<ControllerStatus>,
    metrics: Arc<ControllerMetrics>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ControllerHandle {
    /// Starts the controller of a broker that has just registered.
    pub fn start(options: ControllerOptions) -> Arc<Self> {
        let (commands, received) = mpsc::channel(QUEUED_COMMANDS);
        let (status, watched) = watch::channel(ControllerStatus::default());
        let broker_id = options.registration.id;
        let broker_epoch = options.broker_epoch.clone();
        follow_config(&options.config, broker_id, &commands);
        let metrics = ControllerMetrics::new();
        let task = task::ControllerTask::new(options, received, status, metrics.clone());
        Arc::new(Self {
            broker_epoch,
            broker_id,
            commands,
            status: watched,
            metrics,
            task: Mutex::new(Some(host::spawn(task.run()))),
        })
    }

    pub fn status(&self) -> watch::Receiver<ControllerStatus> {
        self.status.clone()
    }

    pub fn metrics(&self) -> &ControllerMetrics {
        &self.metrics
    }

    /// Whether this broker is the controller at this moment.
    pub fn is_active(&self) -> bool {
        self.status.borrow().is_active
    }

    /// The epoch of this broker's registration.
    pub fn broker_epoch(&self) -> BrokerEpoch {
        self.broker_epoch.load(Ordering::Acquire)
    }

    /// Changes ISRs; for leaders.
    pub async fn alter_partition(
        &self,
        request: AlterPartition,
    ) -> Result<Vec<AlteredPartition>, AlterPartitionError> {
        match self.ask(Request::AlterPartition(request)).await {
            Some(Answer::AlterPartition(result)) => result,
            _ => Err(AlterPartitionError::NotController),
        }
    }

    /// Takes all leaderships from a broker that is about to stop; gives back those that it keeps.
    pub async fn controlled_shutdown(
        &self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Result<Vec<TopicPartition>, ControlledShutdownError> {
        let request = Request::ControlledShutdown {
            broker,
            broker_epoch,
        };
        match self.ask(request).await {
            Some(Answer::ControlledShutdown(result)) => result,
            _ => Err(ControlledShutdownError::NotController),
        }
    }

    /// A block of producer ids for a broker.
    pub async fn allocate_producer_ids(
        &self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Result<RangeInclusive<i64>, AllocateProducerIdsError> {
        let request = Request::AllocateProducerIds {
            broker,
            broker_epoch,
        };
        match self.ask(request).await {
            Some(Answer::AllocateProducerIds(result)) => result,
            _ => Err(AllocateProducerIdsError::NotController),
        }
    }

    /// Elects leaders of partitions; for administrators.
    pub async fn elect_leaders(
        &self,
        kind: ElectionType,
        partitions: BTreeSet<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, Result<BrokerId, ElectLeaderError>>, ControllerError> {
        let request = Request::ElectLeaders { kind, partitions };
        match self.ask(request).await {
            Some(Answer::ElectLeaders(result)) => result,
            _ => Err(ControllerError::NotController),
        }
    }

    /// Begins, changes and ends reassignments; the result says what began, not what is done.
    pub async fn alter_reassignments(
        &self,
        wanted: WantedReplicas,
    ) -> Result<BTreeMap<TopicPartition, Result<(), ReassignmentError>>, ControllerError> {
        match self.ask(Request::AlterReassignments(wanted)).await {
            Some(Answer::AlterReassignments(result)) => result,
            _ => Err(ControllerError::NotController),
        }
    }

    /// The reassignments under way, of all partitions or of these.
    pub async fn list_reassignments(
        &self,
        partitions: Option<BTreeSet<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, PartitionAssignment>, ControllerError> {
        match self.ask(Request::ListReassignments(partitions)).await {
            Some(Answer::ListReassignments(result)) => result,
            _ => Err(ControllerError::NotController),
        }
    }

    /// This broker.
    pub fn broker_id(&self) -> BrokerId {
        self.broker_id
    }

    async fn ask(&self, request: Request) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Request { request, reply };
        self.commands.send(command).await.ok()?;
        answer.await.ok()
    }

    /// From now on this broker does not register anew should somebody remove its registration: it is about to stop.
    pub async fn let_go_of_registration(&self) {
        // An error says that the task has ended already.
        let _ = self.commands.send(Command::LetGoOfRegistration).await;
    }

    /// From now on this broker registers with these endpoints. Gives the registration that it should have now, for
    /// the caller to write; `None` if the task has ended.
    pub async fn advertise(&self, endpoints: Vec<Endpoint>) -> Option<BrokerRegistration> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Advertise { endpoints, reply };
        self.commands.send(command).await.ok()?;
        answer.await.ok()
    }

    /// Gives up the seat and ends the task. The seat itself goes with the ZooKeeper session.
    pub async fn resign(&self) {
        // An error says that the task has ended already.
        let _ = self.commands.send(Command::Resign).await;
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the controller's task did not end well");
        }
    }
}

/// What the machine needs to know of the configuration.
fn settings(broker_id: BrokerId, config: &BrokerConfig) -> Settings {
    let interval = u64::try_from(config.leader_imbalance_check_interval_seconds).unwrap_or(300);
    let listeners = &config.listeners;
    Settings {
        broker_id,
        inter_broker_listener: listeners.inter_broker.clone(),
        control_listener: listeners.of_controller().clone(),
        delete_topic_enable: config.delete_topic_enable,
        unclean_leader_election_enable: config.unclean_leader_election_enable,
        auto_leader_rebalance_enable: config.auto_leader_rebalance_enable,
        leader_imbalance_check_interval: Duration::from_secs(interval),
        leader_imbalance_per_broker_percentage: config.leader_imbalance_per_broker_percentage,
    }
}

/// Passes on what changes in the configuration.
fn follow_config(config: &LiveConfig, broker_id: BrokerId, commands: &mpsc::Sender<Command>) {
    let tell = |commands: &mpsc::Sender<Command>, event| {
        if commands.try_send(Command::Tell(event)).is_err() {
            tracing::warn!("the controller is too busy to hear of a configuration change");
        }
    };
    let to_task = commands.clone();
    config.on_broker_change(move |config| {
        let settings = settings(broker_id, config);
        let is_unclean = settings.unclean_leader_election_enable;
        tell(&to_task, Event::SettingsChanged(settings));
        if is_unclean {
            tell(&to_task, Event::UncleanElectionEnabled { topic: None });
        }
    });
    let to_task = commands.clone();
    config.on_topic_change(move |topic, config| {
        if config.unclean_leader_election_enable {
            let topic = Some(topic.into());
            tell(&to_task, Event::UncleanElectionEnabled { topic });
        }
    });
}
