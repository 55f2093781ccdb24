//! Start and stop of a broker, in the order that others can see.
//!
//! Start: ZooKeeper, cluster id, broker id, dynamic settings, logs, sockets bound, registration, controller,
//! change listener, and only then requests. Stop: the reverse, leaders handed over first.

mod identity;
mod replica_keeper;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
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
use crate::files::Files;
use crate::files::disk::Disk;
use crate::log::{LogDirsError, LogDirsOptions, LogManager, MetaProperties};
use crate::metadata_cache::MetadataCache;
use crate::metrics::Metrics;
use crate::net::{ListenError, Listener, ListenerOptions, Network, NetworkOptions};
use crate::replica::fetch_session_cache::FetchSessions;
use crate::replica::{ReplicaManager, ReplicaManagerOptions, ZooKeeperTopicConfigs};
use crate::zookeeper::options::ZooKeeperOptions;
use crate::zookeeper::{
    ClusterIdError, ConfigListener, ConfigReadError, ConnectError, CoordinationError, FormerOwner,
    RegistrationError, ZooKeeper,
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
    zookeeper: Arc<ZooKeeper>,
    addresses: Vec<(String, SocketAddr)>,
    admin: Option<AdminServer>,
    config_listener: JoinHandle<()>,
    keeper: ReplicaKeeper,
}

impl Server {
    /// Starts a broker and returns when it serves.
    pub async fn start(config: BrokerConfig) -> Result<Running, StartError> {
        if let Some(error) = cannot_serve(&config).into_iter().next() {
            return Err(error.into());
        }
        let zookeeper = ZooKeeper::connect(&ZooKeeperOptions::from_config(&config)?).await?;
        let cluster_id = zookeeper.cluster_id().await?;
        let files: Arc<dyn Files> = Arc::new(Disk);
        let log_dirs_options = LogDirsOptions::from_config(&config);
        let properties = MetaProperties::read(&*files, &log_dirs_options.log_dirs)?;
        properties.check_cluster(&cluster_id)?;
        let configured = (config.broker_id >= 0).then_some(BrokerId(config.broker_id));
        let broker_id = match properties.broker_id(configured)? {
            Some(known) => known,
            None => zookeeper
                .generate_broker_id(config.reserved_broker_max_id)
                .await
                .map_err(StartError::BrokerId)?,
        };
        let live = Arc::new(LiveConfig::new(config, broker_id)?);
        let mut config_listener = ConfigListener::new(zookeeper.clone(), {
            let live = live.clone();
            Box::new(move |entity, texts| live.entity_changed(&entity, texts))
        });
        config_listener.load().await?;
        let config = live.broker();

        let logs = LogManager::open(log_dirs_options, files.clone(), {
            let live = live.clone();
            move |topic| live.topic(topic)
        })?;
        let now_ms = clock::wall_clock_ms();
        for error in properties.write(&*files, broker_id, &cluster_id, now_ms) {
            tracing::error!(%error, "meta.properties was not written");
        }

        let mut listeners = Vec::new();
        for options in ListenerOptions::from_config(&config) {
            listeners.push(Listener::bind(&options).await?);
        }
        let addresses: Vec<(String, SocketAddr)> = listeners
            .iter()
            .map(|listener| (listener.name().to_owned(), listener.local_address()))
            .collect();
        let metrics = Arc::new(Metrics::default());
        let metadata = MetadataCache::new();
        let replicas = ReplicaManager::new(ReplicaManagerOptions {
            broker_id,
            replica_lag_max: Duration::from_millis(config.replica_lag_time_max_ms.max(0) as u64),
            logs: logs.clone(),
            metadata: metadata.clone(),
            topic_configs: Arc::new(ZooKeeperTopicConfigs {
                config: live.clone(),
                zookeeper: zookeeper.clone(),
            }),
            metrics: metrics.clone(),
        });
        let session_slots = config.max_incremental_fetch_session_cache_slots;
        let broker = Arc::new(Broker {
            broker_id,
            cluster_id,
            config: live.clone(),
            metadata,
            metrics,
            zookeeper: zookeeper.clone(),
            logs: logs.clone(),
            replicas: replicas.clone(),
            fetch_sessions: Arc::new(FetchSessions::new(session_slots.max(0) as usize)),
        });
        let network = Network::new(NetworkOptions::from_config(&config));
        let registration = identity::registration(&config, broker_id, &addresses);
        zookeeper.check_endpoints(&registration).await?;
        let patience = Duration::from_millis(config.zookeeper_session_timeout_ms.max(0) as u64);
        let broker_epoch = zookeeper
            .register_broker(&registration, FormerOwner::MayBeAlive, patience)
            .await?;
        replicas.set_broker_epoch(broker_epoch);
        logs.start();
        let keeper = ReplicaKeeper::start(&replicas, &logs, &live, &zookeeper, broker_id);
        let admin = AdminServer::start(broker.clone(), zookeeper.clone()).await?;
        for listener in listeners {
            network.serve(listener, broker.clone());
        }
        live.on_broker_change({
            let network = network.clone();
            move |config| network.set_limits(NetworkOptions::from_config(config).limits)
        });
        let running = Running {
            broker,
            network,
            zookeeper,
            addresses,
            admin,
            config_listener: tokio::spawn(config_listener.run()),
            keeper,
        };
        running.announce(&config);
        Ok(running)
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
        self.network.shutdown(DRAIN_GRACE).await;
        self.config_listener.abort();
        self.keeper.stop();
        self.broker.replicas.checkpoint_high_watermarks();
        self.broker.logs.shutdown();
        self.zookeeper.close().await;
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        tracing::info!("stopped");
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
