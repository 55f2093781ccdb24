//! ZooKeeper as the operator sees it: who is registered, and the one znode that it writes.
//!
//! That znode is [`LOCK`]: an ephemeral node that keeps two balancers apart, inside and outside Kubernetes. Its data says who
//! holds it, for people. Everything else is only read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use barnabas_core::ids::BrokerId;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use zookeeper_client::{Acls, Client, CreateMode, Error, SessionState};

use crate::moves::Guard;

/// The lock, below the cluster's chroot. Neither Kafka nor its tools look at it.
pub const LOCK: &str = "/barnabas_balancer";

/// Below this the servers of an ensemble take half a minute to agree that we are gone.
const SESSION_TIMEOUT: Duration = Duration::from_secs(18);
/// Between two looks at registrations, and at a lock that somebody else holds.
const LOOK: Duration = Duration::from_secs(1);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to have a session.
const PAUSE: Duration = Duration::from_secs(1);

/// What ZooKeeper tells, as of the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Registered brokers; nothing while ZooKeeper cannot be asked.
    pub brokers: Option<BTreeSet<BrokerId>>,
    /// Whether we hold the lock.
    pub holds_lock: bool,
    /// Who holds it instead.
    pub holder: Option<String>,
}

/// A session that is taken up again whenever it ends.
pub struct ZooKeeper {
    seen: watch::Receiver<Seen>,
    holds_lock: Arc<AtomicBool>,
    closing: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether the lock is sought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Only look.
    No,
    /// Hold it, and say this in it.
    As(String),
}

impl ZooKeeper {
    /// Connects to `host:port,host:port/chroot`.
    pub fn connect(connect: &str, lock: Lock) -> Self {
        let (told, seen) = watch::channel(Seen::default());
        let holds_lock = Arc::new(AtomicBool::new(false));
        let closing = Arc::new(Notify::new());
        let session = Session {
            closing: closing.clone(),
            connect: connect.to_owned(),
            lock,
            told,
            holds_lock: holds_lock.clone(),
        };
        Self {
            seen,
            holds_lock,
            closing,
            task: tokio::spawn(session.run()),
        }
    }

    /// What is known, and word of each change.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// Gives the lock back, so that the next one need not wait for the end of the session.
    pub async fn close(mut self) {
        self.closing.notify_one();
        // If ZooKeeper does not answer the session has to end by itself.
        drop(timeout(PATIENCE, &mut self.task).await);
    }

    /// Lets others begin only while the lock is ours.
    pub fn guard(&self) -> Arc<dyn Guard> {
        Arc::new(LockGuard(self.holds_lock.clone()))
    }
}

struct LockGuard(Arc<AtomicBool>);

impl Guard for LockGuard {
    fn may_change(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

struct Session {
    connect: String,
    lock: Lock,
    told: watch::Sender<Seen>,
    holds_lock: Arc<AtomicBool>,
    closing: Arc<Notify>,
}

/// Why a session is of no more use.
enum End {
    Lost,
    Closed,
}

impl Session {
    async fn run(self) {
        loop {
            match self.one_session().await {
                Ok(End::Closed) => break,
                Ok(End::Lost) => {}
                Err(error) => warn!(%error, "ZooKeeper cannot be asked"),
            }
            self.tell(Seen::default());
            sleep(PAUSE).await;
        }
        self.tell(Seen::default());
    }

    fn tell(&self, seen: Seen) {
        self.holds_lock.store(seen.holds_lock, Ordering::Release);
        self.told.send_if_modified(|before| {
            let changed = *before != seen;
            *before = seen;
            changed
        });
    }

    /// Looks until the session is of no more use.
    async fn one_session(&self) -> Result<End, Error> {
        let connector = Client::connector().with_session_timeout(SESSION_TIMEOUT);
        let client = connector.connect(&self.connect).await?;
        // A lock is sure only while ZooKeeper answers: the session may end unseen after this long.
        let sure_for = client.session_timeout() / 2;
        let mut last_answer = Instant::now();
        loop {
            if matches!(
                client.state(),
                SessionState::Expired | SessionState::Closed | SessionState::AuthFailed
            ) {
                return Ok(End::Lost);
            }
            match timeout(PATIENCE.min(sure_for), self.look(&client)).await {
                Ok(Ok(seen)) => {
                    last_answer = Instant::now();
                    self.tell(seen);
                }
                Ok(Err(Error::ConnectionLoss)) | Err(_) => {
                    if last_answer.elapsed() >= sure_for {
                        self.tell(Seen::default());
                    }
                }
                Ok(Err(error)) => return Err(error),
            }
            tokio::select! {
                biased;
                () = self.closing.notified() => {
                    if self.holds_lock.swap(false, Ordering::AcqRel) {
                        client.delete(LOCK, None).await?;
                    }
                    return Ok(End::Closed);
                }
                () = sleep(LOOK) => {}
            }
        }
    }

    async fn look(&self, client: &Client) -> Result<Seen, Error> {
        let names = client.list_children("/brokers/ids").await?;
        let ids = names.iter().filter_map(|name| name.parse().ok());
        let mut seen = Seen {
            brokers: Some(ids.map(BrokerId).collect()),
            ..Seen::default()
        };
        let Lock::As(holder) = &self.lock else {
            return Ok(seen);
        };
        let options = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        match client.create(LOCK, holder.as_bytes(), &options).await {
            Ok(_) => {
                info!(znode = LOCK, "the lock of balancers is ours");
                seen.holds_lock = true;
            }
            Err(Error::NodeExists) => match client.get_data(LOCK).await {
                Ok((data, stat)) => {
                    seen.holds_lock = stat.ephemeral_owner == client.session_id().0;
                    if !seen.holds_lock {
                        seen.holder = Some(String::from_utf8_lossy(&data).into_owned());
                    }
                }
                // It ended just now; the next look gets it.
                Err(Error::NoNode) => {}
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        }
        Ok(seen)
    }
}
