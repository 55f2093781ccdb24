//! Start and stop of a broker, in the order that others can see.
//!
//! Start: ZooKeeper, cluster id, broker id, dynamic settings, logs, sockets bound, registration, controller,
//! change listener, and only then requests. Stop: the reverse, leaders handed over first.

mod assembly;
mod identity;
mod listener_keeper;
mod replica_keeper;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::config::{BrokerConfig, ConfigError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::admin_http::{AdminError, AdminServer};
use crate::api::Broker;
use crate::files::disk::Disk;
use crate::log::LogDirsError;
use crate::net::{
    ConnectionLimits, ListenError, Listener, ListenerOptions, Network, NetworkOptions,
    raise_open_file_limit,
};
use crate::peer::{PeerNetwork, TcpNetwork};
use crate::zookeeper::{
    ClusterIdError, ConfigReadError, ConnectError, CoordinationError, RegistrationError,
    TopicStoreError, ZooKeeper, ZooKeeperOptions,
};

pub use assembly::{Assembled, Assembly, Ground};
use listener_keeper::{Bound, ListenerKeeper};

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
    #[error("an internal topic could not be looked at in ZooKeeper: {0}")]
    InternalTopic(TopicStoreError),
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// Java classes that decide what is allowed, with what would happen without them. To go on as if they were not
/// set would allow everything.
const CLASSES: [(&str, &str); 4] = [
    (
        "create.topic.policy.class.name",
        "topics would be made that the policy forbids",
    ),
    (
        "alter.config.policy.class.name",
        "settings would be changed that the policy forbids",
    ),
    (
        "client.quota.callback.class",
        "clients would be without their quotas",
    ),
    (
        "authorizer.class.name",
        "everybody could do everything, as ACLs are not enforced yet",
    ),
];

/// Settings that are right but ask for what this broker cannot do.
pub fn cannot_serve(config: &BrokerConfig) -> Vec<ConfigError> {
    let protocols = config.listeners.unserved().map(|endpoint| {
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
    });
    let classes = CLASSES.iter().filter_map(|(key, consequence)| {
        let class = config.given().get(*key)?.trim();
        (!class.is_empty()).then(|| {
            ConfigError::rule(
                *key,
                Some(class),
                format!("Java classes cannot be loaded here, and without it {consequence}"),
                format!("remove {key} to run without it"),
            )
        })
    });
    protocols.chain(classes).collect()
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
    assembled: Assembled,
    network: Arc<Network>,
    addresses: Vec<(String, SocketAddr)>,
    /// Opens and closes listeners as the settings change.
    listener_keeper: JoinHandle<()>,
    admin: Option<AdminServer>,
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
        let ground = Ground {
            zookeeper: zookeeper.clone(),
            files: Arc::new(Disk),
            network: peers,
        };
        match Self::start_parts(config, ground).await {
            Ok(running) => Ok(running),
            Err(error) => {
                // What was registered goes with the session.
                zookeeper.close().await;
                Err(error)
            }
        }
    }

    async fn start_parts(config: BrokerConfig, ground: Ground) -> Result<Running, StartError> {
        let assembly = Assembly::prepare(config, ground).await?;
        let live = assembly.config().clone();
        let config = live.broker();
        if let Some(error) = cannot_serve(&config).into_iter().next() {
            // Dynamic settings, which another kind of broker may have accepted.
            return Err(error.into());
        }
        let listeners = bind(&config).await?;
        let addresses: Vec<(String, SocketAddr)> = listeners
            .iter()
            .map(|listener| (listener.name().to_owned(), listener.local_address()))
            .collect();
        let ports: Vec<(String, u16)> = addresses
            .iter()
            .map(|(name, address)| (name.clone(), address.port()))
            .collect();
        let assembled = assembly.join(&ports).await?;
        let address_rates = assembled.broker.quotas.addresses.clone();
        let network = Network::new(NetworkOptions::from_config(&config), address_rates);
        live.on_broker_change({
            let network = network.clone();
            move |config| network.set_limits(ConnectionLimits::from_config(config))
        });
        let broker = &assembled.broker;
        let admin = AdminServer::start(broker.clone()).await?;
        let endpoints = config.listeners.bind.iter().cloned();
        let bound = endpoints.zip(&listeners).map(|(asked, listener)| Bound {
            asked,
            address: listener.local_address(),
        });
        let listener_keeper = ListenerKeeper {
            broker: broker.clone(),
            network: network.clone(),
            bound: bound.collect(),
            advertised: identity::advertised(&config, &ports),
        };
        for listener in listeners {
            network.serve(listener, broker.clone());
        }
        let running = Running {
            assembled,
            network,
            addresses,
            listener_keeper: listener_keeper.start(),
            admin,
        };
        running.announce(&config);
        Ok(running)
    }
}

async fn bind(config: &BrokerConfig) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    for options in ListenerOptions::from_config(config) {
        listeners.push(Listener::bind(&options).await?);
    }
    Ok(listeners)
}

impl Running {
    /// Listener names and the addresses they were bound to at the start.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// The parts that requests work on.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.assembled.broker
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
        self.assembled.hand_over().await;
        self.listener_keeper.abort();
        self.network.shutdown(DRAIN_GRACE).await;
        self.assembled.leave().await;
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        tracing::info!("stopped");
    }

    fn announce(&self, config: &BrokerConfig) {
        let broker = self.broker();
        let listeners: Vec<String> = self
            .addresses
            .iter()
            .map(|(name, address)| format!("{name}://{address}"))
            .collect();
        tracing::info!(
            version = VERSION,
            broker_id = %broker.broker_id,
            cluster_id = broker.cluster_id,
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
