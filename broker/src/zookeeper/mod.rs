//! The only door to ZooKeeper: sessions, registration, configurations, topics.
//!
//! | module | what it owns |
//! |---|---|
//! | [`coordination`] | the port: operations, watches, sessions |

pub mod coordination;

use std::sync::Arc;

use tokio::sync::watch;

pub use barnabas_core::znodes::{BrokerRegistration, ConfigEntity};

pub use self::coordination::{
    Coordination, CoordinationError, CoordinationEvent, CreateMode, FencedWriteError, NodeEvent,
    Operation, Outcome, SessionState, Stat, Watch, write_as_controller,
};

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
    #[error("the base paths could not be created in ZooKeeper: {0}")]
    BasePaths(CoordinationError),
}

/// The cluster's ZooKeeper as this broker sees it.
pub struct ZooKeeper {
    coordination: Arc<dyn Coordination>,
}

impl ZooKeeper {
    /// A view on something that is connected already.
    pub fn over(coordination: Arc<dyn Coordination>) -> Arc<Self> {
        Arc::new(Self { coordination })
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
