//! Start and stop of a broker, in the order that others can see.
//!
//! Start: ZooKeeper, cluster id, broker id, dynamic settings, logs, sockets bound, registration, controller,
//! change listener, and only then requests. Stop: the reverse, leaders handed over first.

mod identity;
mod replica_keeper;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use barnabas_core::config::{BrokerConfig, ConfigError};
use barnabas_core::control::SecurityProtocol;
use barnabas_core::ids::BrokerId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::admin_http::{AdminError, AdminServer};
use crate::api::Broker;
use crate::clock;
use crate::config::LiveConfig;
use crate::controller::{
    ControllerHandle, ControllerLink, ControllerLinkOptions, ControllerOptions,
};
use crate::files::disk::Disk;
use crate::log::{LogDirsError, LogDirsOptions, LogManager, MetaProperties};
use crate::metadata_cache::MetadataCache;
use crate::metrics::Metrics;
use crate::net::{
    ConnectionLimits, ListenError, Listener, ListenerOptions, Network, NetworkOptions,
    raise_open_file_limit,
};
use crate::peer::{PeerNetwork, TcpNetwork};
use crate::producer_ids::ProducerIdManager;
use crate::replica::fetch_session_cache::FetchSessions;
use crate::replica::{ReplicaManager, ReplicaManagerOptions, ZooKeeperTopicConfigs};
use crate::topics::TopicAdmin;
use crate::zookeeper::{
    ClusterIdError, ConfigListener, ConfigReadError, ConnectError, CoordinationError, FormerOwner,
    RegistrationError, SessionState, ZooKeeper, ZooKeeperOptions,
};

use replica_keeper::ReplicaKeeper;

/// The version that `--version` and the banner show.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long requests in progress may take when the broker stops.
const DRAIN_GRACE: Duration = Duration::from_secs(10);

/// Why a broker did not start. Its text is one that a person acts on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    ClusterId(#[from] ClusterIdError),
    #[error("no broker id could be had from ZooKeeper: {0}")]
    BrokerId(CoordinationError),
    #[error(transparent)]
    DynamicConfig(#[from] ConfigReadError),
    #[error(transparent)]
    LogDirs(#[from] LogDirsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// Settings that are right but ask for what this broker cannot do.
pub fn cannot_serve(config: &BrokerConfig) -> Vec<ConfigError> {
    let listeners = config.listeners.bind.iter();
    listeners
        .filter(|endpoint| endpoint.security_protocol != SecurityProtocol::Plaintext)
        .map(|endpoint| {
            ConfigError::rule(
                "listeners",
                config.given().get("listeners").map(String::as_str),
                format!(
                    "listener {} has protocol {}, and TLS and SASL are not served yet",
                    endpoint.listener,
                    endpoint.security_protocol.name()
                ),
                format!("map {} to PLAINTEXT, or remove it", endpoint.listener),
            )
        })
        .collect()
}

/// The runtime of a broker process: as many threads as there are cores, and few for blocking work.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("barnabas")
        .enable_all()
        .max_blocking_threads(16)
        .build()
}

/// Completes at the first SIGTERM or SIGINT. Must be called within the runtime.
pub fn interrupted() -> impl Future<Output = ()> {
    let terminate = signal(SignalKind::terminate());
    let interrupt = signal(SignalKind::interrupt());
    async move {
        match (terminate, interrupt) {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                tokio::select! {
                    biased;
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            // Without handlers the process dies by the signal, which loses nothing that was acknowledged.
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "signals cannot be caught");
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A broker that can be started.
pub struct Server;

/// A broker that runs.
pub struct Running {
    broker: Arc<Broker>,
    network: Arc<Network>,
    addresses: Vec<(String, SocketAddr)>,
    admin: Option<AdminServer>,
    /// End with the broker, before its logs are closed.
    tasks: Vec<JoinHandle<()>>,
    keeper: ReplicaKeeper,
}

/// Who this broker is, and what its log directories said before.
struct Identity {
    cluster_id: String,
    broker_id: BrokerId,
    former_owner: FormerOwner,
    meta_properties: MetaProperties,
}

impl Server {
    /// Starts a broker and returns when it serves.
    pub async fn start(config: BrokerConfig) -> Result<Running, StartError> {
        if let Some(error) = cannot_serve(&config).into_iter().next() {
            return Err(error.into());
        }
        raise_open_file_limit();
        let zookeeper = ZooKeeper::connect(&ZooKeeperOptions::from_config(&config)?).await?;
        Self::start_on(config, zookeeper, Arc::new(TcpNetwork)).await
    }

    /// Starts a broker on a ZooKeeper that is connected already, and closes the session if that fails. Other
    /// brokers are reached through `peers`.
    pub async fn start_on(
        config: BrokerConfig,
        zookeeper: Arc<ZooKeeper>,
        peers: Arc<dyn PeerNetwork>,
    ) -> Result<Running, StartError> {
        match Self::start_parts(config, &zookeeper, peers).await {
            Ok(running) => Ok(running),
            Err(error) => {
                // What was registered goes with the session.
                zookeeper.close().await;
                Err(error)
            }
        }
    }

    async fn start_parts(
        config: BrokerConfig,
        zookeeper: &Arc<ZooKeeper>,
        peers: Arc<dyn PeerNetwork>,
    ) -> Result<Running, StartError> {
        let identity = identify(&config, zookeeper).await?;
        let broker_id = identity.broker_id;
        let live = Arc::new(LiveConfig::new(config, broker_id)?);
        let mut config_listener = ConfigListener::new(zookeeper.clone(), {
            let live = live.clone();
            Box::new(move |entity, texts| live.entity_changed(&entity, texts))
        });
        config_listener.load().await?;
        let config = live.broker();

        let logs = open_logs(&config, live.clone()).await?;
        logs.start();
        let listeners = bind(&config).await?;
        let addresses: Vec<(String, SocketAddr)> = listeners
            .iter()
            .map(|listener| (listener.name().to_owned(), listener.local_address()))
            .collect();

        let metrics = Arc::new(Metrics::default());
        let metadata = MetadataCache::new();
        let isr = Arc::new(OnceLock::new());
        let replicas = ReplicaManager::new(ReplicaManagerOptions {
            broker_id,
            replica_lag_max: Duration::from_millis(config.replica_lag_time_max_ms.max(0) as u64),
            logs: logs.clone(),
            metadata: metadata.clone(),
            topic_configs: Arc::new(ZooKeeperTopicConfigs {
                config: live.clone(),
                zookeeper: zookeeper.clone(),
            }),
            isr: isr.clone(),
            metrics: metrics.clone(),
        });
        let session_slots = config.max_incremental_fetch_session_cache_slots;
        let registration = identity::registration(&config, broker_id, &addresses);
        zookeeper.check_endpoints(&registration).await?;
        let patience = Duration::from_millis(config.zookeeper_session_timeout_ms.max(0) as u64);
        let broker_epoch = zookeeper
            .register_broker(&registration, identity.former_owner, patience)
            .await?;
        replicas
            .broker_epoch()
            .store(broker_epoch, Ordering::SeqCst);
        let unwritten = identity.meta_properties.write(
            &Disk,
            broker_id,
            &identity.cluster_id,
            clock::wall_clock_ms(),
        );
        for error in unwritten {
            tracing::error!(%error, "a log directory does not know its broker");
        }

        let controller = ControllerHandle::start(ControllerOptions {
            zookeeper: zookeeper.clone(),
            config: live.clone(),
            registration,
            broker_epoch: replicas.broker_epoch(),
            target: replicas.clone(),
            remote: None,
        });
        let controller_link = ControllerLink::new(ControllerLinkOptions {
            network: peers.clone(),
            controller: controller.clone(),
            metadata: metadata.clone(),
            config: live.clone(),
        });
        let _ = isr.set(controller_link.clone());
        let broker = Arc::new(Broker {
            broker_id,
            cluster_id: identity.cluster_id,
            config: live.clone(),
            metrics,
            zookeeper: zookeeper.clone(),
            logs: logs.clone(),
            replicas: replicas.clone(),
            fetch_sessions: Arc::new(FetchSessions::new(session_slots.max(0) as usize)),
            topics: TopicAdmin::new(zookeeper.clone(), live.clone(), metadata.clone()),
            producer_ids: ProducerIdManager::new(controller_link.clone()),
            controller,
            controller_link,
            peers,
            metadata,
        });
        let network = Network::new(NetworkOptions::from_config(&config));
        live.on_broker_change({
            let network = network.clone();
            move |config| network.set_limits(ConnectionLimits::from_config(config))
        });
        let tasks = vec![
            tokio::spawn(config_listener.run()),
            tokio::spawn(count_session_events(broker.clone())),
        ];
        let keeper = ReplicaKeeper::start(&replicas, &logs, &live, zookeeper, broker_id);
        let admin = AdminServer::start(broker.clone()).await?;
        for listener in listeners {
            network.serve(listener, broker.clone());
        }
        let running = Running {
            broker,
            network,
            addresses,
            admin,
            tasks,
            keeper,
        };
        running.announce(&config);
        Ok(running)
    }
}

/// Cluster id, then broker id: the configured one, that of the log directories, or a new one.
async fn identify(
    config: &BrokerConfig,
    zookeeper: &Arc<ZooKeeper>,
) -> Result<Identity, StartError> {
    let cluster_id = zookeeper.cluster_id().await?;
    let log_dirs: Vec<PathBuf> = config.log_dirs.iter().map(PathBuf::from).collect();
    let meta_properties = MetaProperties::read(&Disk, &log_dirs)?;
    meta_properties.check_cluster(&cluster_id)?;
    let configured = (config.broker_id >= 0).then_some(BrokerId(config.broker_id));
    let known = meta_properties.broker_id(configured)?;
    let broker_id = match known {
        Some(known) => known,
        None => zookeeper
            .generate_broker_id(config.reserved_broker_max_id)
            .await
            .map_err(StartError::BrokerId)?,
    };
    // The locks of the directories, which are taken before the registration, prove that their last owner is
    // gone.
    let was_here = meta_properties.broker_id(None)? == Some(broker_id);
    Ok(Identity {
        cluster_id,
        broker_id,
        former_owner: if was_here {
            FormerOwner::IsDead
        } else {
            FormerOwner::MayBeAlive
        },
        meta_properties,
    })
}

async fn open_logs(
    config: &BrokerConfig,
    live: Arc<LiveConfig>,
) -> Result<Arc<LogManager>, StartError> {
    let options = LogDirsOptions::from_config(config);
    let opened = tokio::task::spawn_blocking(move || {
        LogManager::open(options, Arc::new(Disk), move |topic| live.topic(topic))
    });
    let opened = opened
        .await
        .expect("loading logs panics only if the process is broken");
    Ok(opened?)
}

async fn bind(config: &BrokerConfig) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    for options in ListenerOptions::from_config(config) {
        listeners.push(Listener::bind(&options).await?);
    }
    Ok(listeners)
}

/// Counts what happens to the ZooKeeper session.
async fn count_session_events(broker: Arc<Broker>) {
    let mut state = broker.zookeeper.session_state();
    loop {
        let metrics = &broker.metrics;
        match *state.borrow_and_update() {
            SessionState::Connected => metrics.zookeeper_sync_connects.increment(),
            SessionState::Disconnected => metrics.zookeeper_disconnects.increment(),
            SessionState::Expired => metrics.zookeeper_expires.increment(),
            SessionState::AuthFailed => metrics.zookeeper_auth_failures.increment(),
            SessionState::Closed => {}
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

impl Running {
    /// Listener names and the addresses they are bound to.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// The parts that requests work on.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Where metrics and health are served, if anywhere.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminServer::address)
    }

    /// Stops in order and returns when everything is on disk and the registration is gone.
    pub async fn stop(self) {
        tracing::info!("stopping");
        if let Some(admin) = &self.admin {
            admin.not_ready();
        }
        self.hand_over().await;
        self.network.shutdown(DRAIN_GRACE).await;
        for task in &self.tasks {
            task.abort();
        }
        self.keeper.stop();
        let broker = self.broker.clone();
        let closed = tokio::task::spawn_blocking(move || {
            broker.replicas.checkpoint_high_watermarks();
            broker.logs.shutdown();
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "the logs were not closed");
        }
        self.broker.controller.resign().await;
        self.broker.zookeeper.close().await;
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        tracing::info!("stopped");
    }

    /// Asks the controller for other leaders, as often as `controlled.shutdown.*` say.
    async fn hand_over(&self) {
        let config = self.broker.config.broker();
        if !config.controlled_shutdown_enable || !self.broker.controller.is_active() {
            return;
        }
        let (broker_id, epoch) = (self.broker.broker_id, self.broker.replicas.broker_epoch());
        let backoff = config.controlled_shutdown_retry_backoff_ms.max(0) as u64;
        for attempt in 0..config.controlled_shutdown_max_retries.max(1) {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(backoff)).await;
            }
            let epoch = epoch.load(Ordering::SeqCst);
            let asked = self.broker.controller.controlled_shutdown(broker_id, epoch);
            match tokio::time::timeout(DRAIN_GRACE, asked).await {
                Ok(Ok(kept)) if kept.is_empty() => return,
                Ok(Ok(kept)) => tracing::info!(partitions = kept.len(), "still leading"),
                Ok(Err(error)) => tracing::warn!(%error, "leaders were not handed over"),
                Err(_) => tracing::warn!("the controller did not hand over leaders in time"),
            }
        }
    }

    fn announce(&self, config: &BrokerConfig) {
        let listeners: Vec<String> = self
            .addresses
            .iter()
            .map(|(name, address)| format!("{name}://{address}"))
            .collect();
        tracing::info!(
            version = VERSION,
            broker_id = %self.broker.broker_id,
            cluster_id = self.broker.cluster_id,
            listeners = listeners.join(","),
            log_dirs = config.log_dirs.join(","),
            zookeeper = config.zookeeper_connect,
            admin = self.admin_address().map(tracing::field::display),
            "started"
        );
    }
}

#[cfg(test)]
mod tests;
