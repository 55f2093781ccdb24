//! The port to ZooKeeper: plain operations on znodes, one-shot watches, sessions.
//!
//! Two implementations keep it honest: [`super::client`] speaks to an ensemble, [`super::memory`] lives in
//! the process, for tests and simulation. What follows holds for both.
//!
//! - Operations of one batch, and of batches submitted one after the other, take effect in that order. (In a
//!   moment in which a connection breaks, one that was lost may take effect after the next few.)
//! - A lost connection is never seen here: what was lost is sent again until it is answered. So a write may
//!   have happened twice: a create can report `NodeExists`, a conditional write `BadVersion`, because of
//!   itself. Who cares reads what is there.
//! - A watch fires once. Who reads again arms it again; no change between firing and reading is missed,
//!   since the reading shows it.
//! - When the session expires, everything under way fails with `SessionExpired`, subscribers get
//!   [`CoordinationEvent::SessionExpired`], and no new session begins before all of them have let go of its hold.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::metrics::Histogram;

/// What ZooKeeper knows about a znode beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stat {
    /// Transaction that created the node; a broker's epoch.
    pub czxid: i64,
    /// Transaction that changed the data last.
    pub mzxid: i64,
    /// Milliseconds since the Unix epoch.
    pub ctime_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub mtime_ms: i64,
    /// How often the data was set.
    pub version: i32,
    /// How often children were created or deleted.
    pub cversion: i32,
    /// How often the ACL was set.
    pub aversion: i32,
    /// The session that an ephemeral node belongs to; 0 for a persistent one.
    pub ephemeral_owner: i64,
    pub data_length: i32,
    pub num_children: i32,
    /// Transaction that created or deleted a child last.
    pub pzxid: i64,
}

/// How long a node lives, and whether ZooKeeper completes its name with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMode {
    Persistent,
    PersistentSequential,
    /// Gone with the session.
    Ephemeral,
}

/// Whether a read leaves a one-shot watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    No,
    /// `get` and `exists`: creation, change and deletion of the node (`get` of a node that does not exist
    /// leaves none). `children`: change of the list, deletion of the node.
    Once,
}

/// One request. Paths are relative to the chroot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Get {
        path: String,
        watch: Watch,
    },
    Exists {
        path: String,
        watch: Watch,
    },
    Children {
        path: String,
        watch: Watch,
    },
    /// Access rights follow from the path and `zookeeper.set.acl`.
    Create {
        path: String,
        /// `None` is null, which is not the same as empty: Kafka tells them apart.
        data: Option<Vec<u8>>,
        mode: CreateMode,
    },
    Set {
        path: String,
        data: Option<Vec<u8>>,
        /// The data version that the node must have; `None` for any.
        version: Option<i32>,
    },
    Delete {
        path: String,
        version: Option<i32>,
    },
    /// Only inside a [`Operation::Multi`].
    Check {
        path: String,
        version: i32,
    },
    /// All or nothing. Only creates, sets, deletes and checks.
    Multi(Vec<Operation>),
}

impl Operation {
    /// Bytes of paths and data, which is most of what is sent.
    pub(super) fn data_bytes(&self) -> usize {
        match self {
            Self::Create { path, data, .. } | Self::Set { path, data, .. } => {
                path.len() + data.as_ref().map_or(0, Vec::len)
            }
            Self::Multi(operations) => operations.iter().map(Self::data_bytes).sum(),
            Self::Get { path, .. }
            | Self::Exists { path, .. }
            | Self::Children { path, .. }
            | Self::Delete { path, .. }
            | Self::Check { path, .. } => path.len(),
        }
    }

    pub fn get(path: impl Into<String>) -> Self {
        let (path, watch) = (path.into(), Watch::No);
        Self::Get { path, watch }
    }

    pub fn exists(path: impl Into<String>) -> Self {
        let (path, watch) = (path.into(), Watch::No);
        Self::Exists { path, watch }
    }

    pub fn children(path: impl Into<String>) -> Self {
        let (path, watch) = (path.into(), Watch::No);
        Self::Children { path, watch }
    }

    /// The same read, leaving a watch; other operations are returned as they are.
    #[must_use]
    pub fn watched(mut self) -> Self {
        match &mut self {
            Self::Get { watch, .. } | Self::Exists { watch, .. } | Self::Children { watch, .. } => {
                *watch = Watch::Once;
            }
            Self::Create { .. }
            | Self::Set { .. }
            | Self::Delete { .. }
            | Self::Check { .. }
            | Self::Multi(_) => {}
        }
        self
    }

    pub fn create(path: impl Into<String>, data: impl Into<Option<Vec<u8>>>) -> Self {
        Self::Create {
            path: path.into(),
            data: data.into(),
            mode: CreateMode::Persistent,
        }
    }

    pub fn create_ephemeral(path: impl Into<String>, data: impl Into<Option<Vec<u8>>>) -> Self {
        Self::Create {
            path: path.into(),
            data: data.into(),
            mode: CreateMode::Ephemeral,
        }
    }

    /// A node whose name ZooKeeper completes with ten digits.
    pub fn create_sequential(prefix: impl Into<String>, data: impl Into<Option<Vec<u8>>>) -> Self {
        Self::Create {
            path: prefix.into(),
            data: data.into(),
            mode: CreateMode::PersistentSequential,
        }
    }

    pub fn set(path: impl Into<String>, data: impl Into<Option<Vec<u8>>>) -> Self {
        Self::Set {
            path: path.into(),
            data: data.into(),
            version: None,
        }
    }

    pub fn set_if(path: impl Into<String>, data: impl Into<Option<Vec<u8>>>, version: i32) -> Self {
        Self::Set {
            path: path.into(),
            data: data.into(),
            version: Some(version),
        }
    }

    pub fn delete(path: impl Into<String>) -> Self {
        let (path, version) = (path.into(), None);
        Self::Delete { path, version }
    }

    pub fn delete_if(path: impl Into<String>, version: i32) -> Self {
        let (path, version) = (path.into(), Some(version));
        Self::Delete { path, version }
    }

    pub fn check(path: impl Into<String>, version: i32) -> Self {
        let path = path.into();
        Self::Check { path, version }
    }
}

/// The answer to an [`Operation`], variant by variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Data {
        /// Null may read as empty: the client library does not tell them apart.
        data: Option<Vec<u8>>,
        stat: Stat,
    },
    /// `None`: there is no such node.
    Exists(Option<Stat>),
    /// Names, sorted.
    Children(Vec<String>),
    Created {
        /// The whole path, with the number of a sequential node.
        path: String,
    },
    Set(Stat),
    Deleted,
    Checked,
    /// One result an operation. If one failed, the ones before it say `RolledBack`, and the ones after it
    /// `RuntimeInconsistency`.
    Multi(Vec<Result<Outcome, CoordinationError>>),
}

/// Why ZooKeeper did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinationError {
    #[error("the znode does not exist")]
    NoNode,
    #[error("the znode exists already")]
    NodeExists,
    #[error("the znode has another version than expected")]
    BadVersion,
    #[error("the znode has children")]
    NotEmpty,
    #[error("an ephemeral znode cannot have children")]
    NoChildrenForEphemerals,
    #[error("ZooKeeper denies access to the znode")]
    NoAuth,
    #[error("the access rights given for a znode are not valid")]
    InvalidAcl,
    /// An operation of a multi that would have worked.
    #[error("undone because a later operation of the transaction failed")]
    RolledBack,
    /// An operation of a multi that was not tried.
    #[error("not tried because an earlier operation of the transaction failed")]
    RuntimeInconsistency,
    #[error("the ZooKeeper session has expired")]
    SessionExpired,
    #[error("the ZooKeeper session is closed")]
    Closed,
    #[error("ZooKeeper refuses the credentials of this broker")]
    AuthFailed,
    #[error("ZooKeeper answered with error {0}")]
    Other(i32),
    #[error("the request is not valid: {0}")]
    Invalid(&'static str),
    #[error("the answer of ZooKeeper is not what was asked for")]
    UnexpectedAnswer,
}

impl CoordinationError {
    /// Whether the session is gone, so that everything in it failed or will fail alike.
    pub fn is_of_session(&self) -> bool {
        matches!(self, Self::SessionExpired | Self::Closed | Self::AuthFailed)
    }
}

/// What happened to a watched node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    Created,
    DataChanged,
    Deleted,
    ChildrenChanged,
}

/// Keeps the next session from beginning as long as a clone of it lives.
#[derive(Clone, Debug)]
pub struct SessionHold(#[expect(dead_code, reason = "held, not read")] mpsc::Sender<()>);

impl SessionHold {
    /// A hold, and a receiver that ends when all its clones are gone.
    pub(super) fn new() -> (Self, mpsc::Receiver<()>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }
}

/// What a subscriber is told. Every subscriber gets every event.
#[derive(Clone, Debug)]
pub enum CoordinationEvent {
    /// A watch fired, and is gone.
    Node { path: String, event: NodeEvent },
    /// The session is over, with its ephemeral nodes and its watches. The next one begins when all
    /// subscribers have dropped the hold, so that nobody acts in the new session on what the old one knew.
    SessionExpired(SessionHold),
    /// A new session began (not sent for the first). Watches have to be set again.
    SessionEstablished,
}

/// How the connection to ZooKeeper is, for metrics and health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Not connected; the session may live on.
    Disconnected,
    Connected,
    /// The session is over; a new one is being made.
    Expired,
    AuthFailed,
    /// Closed by this side.
    Closed,
}

/// ZooKeeper, or something that behaves like it. See the module's text for what holds.
pub trait Coordination: Send + Sync {
    /// Submits a batch, pipelined, before this returns; the future gives one result an operation, in order.
    fn submit(
        &self,
        batch: Vec<Operation>,
    ) -> BoxFuture<'static, Vec<Result<Outcome, CoordinationError>>>;

    /// All events from now on. The receiver has to be read until it is dropped: an unread
    /// [`CoordinationEvent::SessionExpired`] holds up the next session. Unbounded, since there
    /// are never more events than watches were set.
    fn subscribe(&self) -> mpsc::UnboundedReceiver<CoordinationEvent>;

    /// The id of the current (or last) session, as in [`Stat::ephemeral_owner`].
    fn session_id(&self) -> i64;

    fn session_state(&self) -> watch::Receiver<SessionState>;

    /// How long requests took, for metrics; `None` if that is not measured.
    fn request_times(&self) -> Option<Arc<Histogram>> {
        None
    }

    /// Ends the session, which removes its ephemeral nodes at once.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// Single operations, for callers that need no pipelining.
impl dyn Coordination {
    /// One operation.
    pub async fn run(&self, operation: Operation) -> Result<Outcome, CoordinationError> {
        let mut results = self.submit(vec![operation]).await;
        results
            .pop()
            .unwrap_or(Err(CoordinationError::UnexpectedAnswer))
    }

    /// Data and stat of a node, or `None` if there is no such node. Null data reads as empty.
    pub async fn get(
        &self,
        path: &str,
        watch: Watch,
    ) -> Result<Option<(Vec<u8>, Stat)>, CoordinationError> {
        let path = path.to_owned();
        match self.run(Operation::Get { path, watch }).await {
            Ok(Outcome::Data { data, stat }) => Ok(Some((data.unwrap_or_default(), stat))),
            Ok(_) => Err(CoordinationError::UnexpectedAnswer),
            Err(CoordinationError::NoNode) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The stat of a node, or `None` if there is no such node; a watch then waits for its creation.
    pub async fn exists(
        &self,
        path: &str,
        watch: Watch,
    ) -> Result<Option<Stat>, CoordinationError> {
        let path = path.to_owned();
        match self.run(Operation::Exists { path, watch }).await? {
            Outcome::Exists(stat) => Ok(stat),
            _ => Err(CoordinationError::UnexpectedAnswer),
        }
    }

    /// Names of the children, sorted; none if there is no such node (as Kafka takes it).
    pub async fn children(
        &self,
        path: &str,
        watch: Watch,
    ) -> Result<Vec<String>, CoordinationError> {
        let path = path.to_owned();
        match self.run(Operation::Children { path, watch }).await {
            Ok(Outcome::Children(names)) => Ok(names),
            Ok(_) => Err(CoordinationError::UnexpectedAnswer),
            Err(CoordinationError::NoNode) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Creates a node and returns its path.
    pub async fn create(
        &self,
        path: &str,
        data: Option<Vec<u8>>,
        mode: CreateMode,
    ) -> Result<String, CoordinationError> {
        let path = path.to_owned();
        match self.run(Operation::Create { path, data, mode }).await? {
            Outcome::Created { path } => Ok(path),
            _ => Err(CoordinationError::UnexpectedAnswer),
        }
    }

    /// Creates a persistent node and, with null data, the parents that are missing.
    pub async fn create_recursive(
        &self,
        path: &str,
        data: Option<Vec<u8>>,
    ) -> Result<(), CoordinationError> {
        let created = self
            .create(path, data.clone(), CreateMode::Persistent)
            .await;
        match created {
            Err(CoordinationError::NoNode) => {}
            other => return other.map(drop),
        }
        // Upwards until something can be created, then down again.
        let mut missing = vec![path];
        let mut current = path;
        while let Some((parent, _)) = current.rsplit_once('/') {
            if parent.is_empty() {
                break;
            }
            match self.create(parent, None, CreateMode::Persistent).await {
                Ok(_) | Err(CoordinationError::NodeExists) => break,
                Err(CoordinationError::NoNode) => missing.push(parent),
                Err(error) => return Err(error),
            }
            current = parent;
        }
        while let Some(next) = missing.pop() {
            let is_target = missing.is_empty();
            let data = if is_target { data.clone() } else { None };
            match self.create(next, data, CreateMode::Persistent).await {
                Ok(_) => {}
                Err(CoordinationError::NodeExists) if !is_target => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets the data of a node; `version` `None` for any.
    pub async fn set(
        &self,
        path: &str,
        data: Option<Vec<u8>>,
        version: Option<i32>,
    ) -> Result<Stat, CoordinationError> {
        let path = path.to_owned();
        let set = Operation::Set {
            path,
            data,
            version,
        };
        match self.run(set).await? {
            Outcome::Set(stat) => Ok(stat),
            _ => Err(CoordinationError::UnexpectedAnswer),
        }
    }

    /// Deletes a node; `version` `None` for any.
    pub async fn delete(&self, path: &str, version: Option<i32>) -> Result<(), CoordinationError> {
        let path = path.to_owned();
        self.run(Operation::Delete { path, version })
            .await
            .map(drop)
    }

    /// All or nothing; the results of each, or the error of each.
    pub async fn multi(
        &self,
        operations: Vec<Operation>,
    ) -> Result<Vec<Result<Outcome, CoordinationError>>, CoordinationError> {
        match self.run(Operation::Multi(operations)).await? {
            Outcome::Multi(results) => Ok(results),
            _ => Err(CoordinationError::UnexpectedAnswer),
        }
    }
}
