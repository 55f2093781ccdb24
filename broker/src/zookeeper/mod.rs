//! The only door to ZooKeeper: sessions, registration, configurations, topics.
//!
//! | module | what it owns |
//! |---|---|
//! | [`coordination`] | the port: operations, watches, sessions |
//! | [`client`] | the port to a real ensemble |
//! | [`options`] | how to reach one |
//! | [`memory`] | the port in this process, for tests |
//! | [`fenced`] | writes of the controller |
//! | [`registration`] | this broker's place in the cluster |
//! | [`config_store`] | dynamic configurations and their change notifications |
//! | [`old_offsets`] | offsets of consumers that still keep them here |
//! | [`topic_store`] | topics and their assignments |

pub mod client;
pub mod config_store;
pub mod coordination;
pub mod fenced;
pub mod memory;
pub mod old_offsets;
pub mod options;
pub mod registration;
pub mod topic_store;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use tokio::sync::watch;

pub use barnabas_core::znodes::{BrokerRegistration, ConfigEntity};

pub use self::client::ZooKeeperClient;
pub use self::config_store::{ConfigListener, ConfigReadError, ConfigWriteError};
pub use self::coordination::{
    Coordination, CoordinationError, CoordinationEvent, CreateMode, NodeEvent, Operation, Outcome,
    SessionState, Stat, Watch,
};
pub use self::fenced::{FencedWriteError, write_as_controller};
pub use self::options::ZooKeeperOptions;
pub use self::registration::{ClusterIdError, FormerOwner, RegistrationError};
pub use self::topic_store::TopicStoreError;

/// Why there is no connection at start. Its text is one that a person acts on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "no ZooKeeper server answered at `{connect}` within {timeout_ms} ms; start the ensemble or correct \
         `zookeeper.connect` (last problem: {reason})"
    )]
    Unreachable {
        connect: String,
        timeout_ms: u128,
        reason: String,
    },
    #[error("{0}")]
    Options(String),
    #[error("ZooKeeper at `{connect}` refuses the credentials of this broker: {reason}")]
    AuthFailed { connect: String, reason: String },
    #[error("the chroot `{chroot}` could not be created in ZooKeeper: {source}")]
    Chroot {
        chroot: String,
        source: CoordinationError,
    },
    #[error("the base paths could not be created in ZooKeeper: {0}")]
    BasePaths(CoordinationError),
}

/// The cluster's ZooKeeper as this broker sees it.
pub struct ZooKeeper {
    coordination: Arc<dyn Coordination>,
    /// The session that this broker registered in last; -1 before.
    registered_session: AtomicI64,
}

impl ZooKeeper {
    /// Connects to an ensemble and creates what every broker expects to be there.
    pub async fn connect(options: &ZooKeeperOptions) -> Result<Arc<Self>, ConnectError> {
        let zookeeper = Self::over(ZooKeeperClient::connect(options).await?);
        let created = zookeeper.create_base_paths().await;
        created.map_err(ConnectError::BasePaths)?;
        Ok(zookeeper)
    }

    /// A view on something that is connected already.
    pub fn over(coordination: Arc<dyn Coordination>) -> Arc<Self> {
        Arc::new(Self {
            coordination,
            registered_session: AtomicI64::new(-1),
        })
    }

    /// The port itself: for the controller, and for tests.
    pub fn coordination(&self) -> &Arc<dyn Coordination> {
        &self.coordination
    }

    /// How the connection is, for metrics and health.
    pub fn session_state(&self) -> watch::Receiver<SessionState> {
        self.coordination.session_state()
    }

    /// Ends the session, which removes this broker's registration at once.
    pub async fn close(&self) {
        self.coordination.close().await;
    }
}
