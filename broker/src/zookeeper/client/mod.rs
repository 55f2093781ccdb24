//! A client of a real ensemble: the library's, made to behave as the port says.

mod jks;
mod null_data;
mod reading;
mod rights;
mod session;
mod stores;
mod tls;
mod translate;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::null_data::transport::Transport;
use self::null_data::{Lost, NullDataWriter};
use self::session::{Job, Request, SessionTask};
use super::ConnectError;
use super::coordination::{
    Coordination, CoordinationError, CoordinationEvent, Operation, Outcome, SessionState,
};
use super::options::ZooKeeperOptions;
use crate::metrics::Histogram;

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
    shared: Arc<Shared>,
    request_times: Arc<Histogram>,
}

impl ZooKeeperClient {
    /// Connects to an ensemble, waiting for `connection_timeout` at most, and creates the chroot if it is missing.
    pub async fn connect(options: &ZooKeeperOptions) -> Result<Arc<Self>, ConnectError> {
        let options = Arc::new(options.clone());
        let transport = Transport {
            tls: options.tls.as_ref().map(tls::client_config).transpose()?,
        };
        let library_tls = options.tls.as_ref().map(tls::library_options).transpose()?;
        let deadline = Instant::now() + options.connection_timeout;
        prepare(&options, &transport, deadline).await?;
        let shared = Arc::new(Shared {
            state: watch::Sender::new(SessionState::Disconnected),
            session_id: AtomicI64::new(0),
            subscribers: Mutex::default(),
            reason: Mutex::default(),
        });
        let (jobs, queue) = mpsc::unbounded_channel();
        let mut state = shared.state.subscribe();
        let null_data =
            NullDataWriter::new(options.clone(), transport.clone(), &options.connect.chroot);
        let task = SessionTask::new(
            options.clone(),
            library_tls,
            null_data,
            shared.clone(),
            queue,
        );
        // Ends when `jobs` is dropped, as it is when this fails.
        tokio::spawn(task.run());
        let connected = state.wait_for(|state| match state {
            SessionState::Connected | SessionState::AuthFailed => true,
            SessionState::Disconnected | SessionState::Expired | SessionState::Closed => false,
        });
        let connected = tokio::time::timeout_at(deadline, connected).await;
        match connected.map(|state| state.map(|state| *state)) {
            Ok(Ok(SessionState::AuthFailed)) => {
                let reason = shared.reason.lock().unwrap_or_else(PoisonError::into_inner);
                Err(ConnectError::AuthFailed {
                    connect: options.connect_text.clone(),
                    reason: reason.clone(),
                })
            }
            Ok(Ok(_)) => Ok(Arc::new(Self {
                jobs,
                shared,
                request_times: Arc::default(),
            })),
            Ok(Err(_)) | Err(_) => {
                let reason = shared
                    .reason
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                Err(unreachable(&options, &transport, &reason).await)
            }
        }
    }
}

/// The library does not tell why a server cannot be reached, so that is found out here.
async fn unreachable(
    options: &ZooKeeperOptions,
    transport: &Transport,
    last: &str,
) -> ConnectError {
    const PATIENCE: Duration = Duration::from_secs(1);
    let mut reasons = Vec::new();
    for (host, port) in &options.connect.servers {
        let reason = match transport.connect(host, *port, PATIENCE).await {
            Ok(_) => format!("takes connections but opens no session ({last})"),
            Err(error) => error.to_string(),
        };
        reasons.push(format!("{host}:{port}: {reason}"));
    }
    ConnectError::Unreachable {
        connect: options.connect_text.clone(),
        timeout_ms: options.connection_timeout.as_millis(),
        reason: reasons.join("; "),
    }
}

/// Creates each element of the chroot with null data, as Kafka does, from outside of it. Credentials are tried even
/// if there is no chroot: the library goes on without them where a server does not ask for any.
async fn prepare(
    options: &Arc<ZooKeeperOptions>,
    transport: &Transport,
    deadline: Instant,
) -> Result<(), ConnectError> {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut outside = NullDataWriter::new(options.clone(), transport.clone(), "");
    let chroot = &options.connect.chroot;
    let mut steps: Vec<Operation> = Vec::new();
    if options.sasl.is_some() {
        steps.push(Operation::Multi(vec![Operation::check("/", -1)]));
    }
    let ends = chroot.match_indices('/').map(|(at, _)| at).skip(1);
    let ends = ends.chain((!chroot.is_empty()).then_some(chroot.len()));
    steps.extend(ends.map(|end| Operation::create(&chroot[..end], None)));
    for step in steps {
        let created = loop {
            match tokio::time::timeout_at(deadline, outside.write(&step)).await {
                Ok(Ok(created)) => break created,
                Ok(Err(Lost::AuthFailed(reason))) => {
                    return Err(ConnectError::AuthFailed {
                        connect: options.connect_text.clone(),
                        reason,
                    });
                }
                Ok(Err(Lost::Connection(_))) if Instant::now() + PAUSE < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(Err(Lost::Connection(reason))) => {
                    tokio::time::sleep_until(deadline).await;
                    return Err(unreachable(options, transport, &reason).await);
                }
                Err(_) => return Err(unreachable(options, transport, "no answer").await),
            }
        };
        match created {
            Ok(_) | Err(CoordinationError::NodeExists) => {}
            Err(source) => {
                return Err(ConnectError::Chroot {
                    chroot: chroot.clone(),
                    source,
                });
            }
        }
    }
    outside.close().await;
    Ok(())
}

impl Coordination for ZooKeeperClient {
    fn submit(
        &self,
        batch: Vec<Operation>,
    ) -> BoxFuture<'static, Vec<Result<Outcome, CoordinationError>>> {
        let answers = batch.into_iter().map(|operation| {
            let (reply, answer) = oneshot::channel();
            let request = Request {
                operation,
                reply,
                losses: 0,
            };
            // A closed queue drops the reply, which answers below.
            drop(self.jobs.send(Job::Request(request)));
            answer.map(|answer| answer.unwrap_or(Err(CoordinationError::Closed)))
        });
        let answers: Vec<_> = answers.collect();
        let started = Instant::now();
        let times = self.request_times.clone();
        async move {
            let mut results = Vec::with_capacity(answers.len());
            for answer in answers {
                results.push(answer.await);
                times.observe(started.elapsed());
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

    fn request_times(&self) -> Option<Arc<Histogram>> {
        Some(self.request_times.clone())
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
