//! A client of a real ensemble.
//!
//! Written for what Kafka's znodes need and other clients lack: null data is not empty data, a session ends
//! when a server says so and not by this side's clock, and requests lost with a connection are sent again.

mod digest;
mod jute;
mod session;
mod tls;
mod transport;
mod wire;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use self::session::{Job, Request, SessionTask};
use self::transport::Transport;
use self::wire::Wire;
use super::ConnectError;
use super::coordination::{
    Coordination, CoordinationError, CoordinationEvent, CreateMode, Operation, Outcome,
    SessionState,
};
use super::options::ZooKeeperOptions;

/// What the task and the handles of a client share.
struct Shared {
    state: watch::Sender<SessionState>,
    session_id: AtomicI64,
    subscribers: Mutex<Vec<mpsc::UnboundedSender<CoordinationEvent>>>,
    /// The last problem in connecting.
    reason: Mutex<String>,
}

impl Shared {
    fn set_state(&self, state: SessionState) {
        self.state
            .send_if_modified(|current| std::mem::replace(current, state) != state);
    }

    fn set_reason(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn tell(&self, event: &CoordinationEvent) {
        let mut subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }
}

/// A client with a session of its own. The session ends with [`Coordination::close`], or when this is dropped.
pub struct ZooKeeperClient {
    jobs: mpsc::UnboundedSender<Job>,
    wire: Wire,
    shared: Arc<Shared>,
}

impl ZooKeeperClient {
    /// Connects to an ensemble, waiting for `connection_timeout` at most, and creates the chroot if it is missing.
    pub async fn connect(options: &ZooKeeperOptions) -> Result<Arc<Self>, ConnectError> {
        let tls = options.tls.as_ref().map(tls::client_config).transpose()?;
        let transport = Transport { tls };
        if !options.connect.chroot.is_empty() {
            // Paths below a chroot that does not exist cannot be made from below it.
            let outside = Self::start(options, transport.clone(), "").await?;
            let created = outside.create_path(&options.connect.chroot).await;
            outside.close().await;
            created.map_err(|source| ConnectError::Chroot {
                chroot: options.connect.chroot.clone(),
                source,
            })?;
        }
        Self::start(options, transport, &options.connect.chroot).await
    }

    async fn start(
        options: &ZooKeeperOptions,
        transport: Transport,
        chroot: &str,
    ) -> Result<Arc<Self>, ConnectError> {
        let shared = Arc::new(Shared {
            state: watch::Sender::new(SessionState::Disconnected),
            session_id: AtomicI64::new(0),
            subscribers: Mutex::default(),
            reason: Mutex::new("no connection was made".to_owned()),
        });
        let wire = Wire {
            chroot: chroot.to_owned(),
            set_acl: options.set_acl,
        };
        let (jobs, queue) = mpsc::unbounded_channel();
        let mut state = shared.state.subscribe();
        let options = Arc::new(options.clone());
        let task = SessionTask::new(
            options.clone(),
            transport,
            wire.clone(),
            shared.clone(),
            queue,
        );
        // Ends when `jobs` is dropped, as it is when this fails.
        tokio::spawn(task.run());
        let connected = state.wait_for(|state| match state {
            SessionState::Connected | SessionState::AuthFailed => true,
            SessionState::Disconnected | SessionState::Expired | SessionState::Closed => false,
        });
        let connected = tokio::time::timeout(options.connection_timeout, connected).await;
        let connect = options.connect_text.clone();
        let reason = || {
            let reason = shared.reason.lock().unwrap_or_else(PoisonError::into_inner);
            reason.clone()
        };
        match connected.map(|state| state.map(|state| *state)) {
            Ok(Ok(SessionState::AuthFailed)) => Err(ConnectError::AuthFailed {
                connect,
                reason: reason(),
            }),
            Ok(Ok(_)) => Ok(Arc::new(Self { jobs, wire, shared })),
            Ok(Err(_)) | Err(_) => Err(ConnectError::Unreachable {
                connect,
                timeout_ms: options.connection_timeout.as_millis(),
                reason: reason(),
            }),
        }
    }

    async fn create_path(&self, path: &str) -> Result<(), CoordinationError> {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1);
        for end in ends.chain([path.len()]) {
            let create = Operation::Create {
                path: path[..end].to_owned(),
                data: None,
                mode: CreateMode::Persistent,
            };
            match self.submit(vec![create]).await.pop() {
                Some(Ok(_) | Err(CoordinationError::NodeExists)) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(CoordinationError::UnexpectedAnswer),
            }
        }
        Ok(())
    }
}

impl Coordination for ZooKeeperClient {
    fn submit(
        &self,
        batch: Vec<Operation>,
    ) -> BoxFuture<'static, Vec<Result<Outcome, CoordinationError>>> {
        let answers = batch.into_iter().map(|operation| {
            let (reply, answer) = oneshot::channel();
            match self.wire.encode(&operation) {
                Ok((code, body)) => {
                    let request = Request {
                        operation,
                        code,
                        body,
                        reply,
                        losses: 0,
                    };
                    // A closed queue drops the reply, which answers below.
                    let _ = self.jobs.send(Job::Request(request));
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
            answer.map(|answer| answer.unwrap_or(Err(CoordinationError::Closed)))
        });
        let answers: Vec<_> = answers.collect();
        async move {
            let mut results = Vec::with_capacity(answers.len());
            for answer in answers {
                results.push(answer.await);
            }
            results
        }
        .boxed()
    }

    fn subscribe(&self) -> mpsc::UnboundedReceiver<CoordinationEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let subscribers = self.shared.subscribers.lock();
        subscribers
            .unwrap_or_else(PoisonError::into_inner)
            .push(sender);
        receiver
    }

    fn session_id(&self) -> i64 {
        self.shared.session_id.load(Ordering::Acquire)
    }

    fn session_state(&self) -> watch::Receiver<SessionState> {
        self.shared.state.subscribe()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let (done, closed) = oneshot::channel();
        let sent = self.jobs.send(Job::Close(done));
        async move {
            if sent.is_ok() {
                // An error is as good: the task has ended.
                let _ = closed.await;
            }
        }
        .boxed()
    }
}
