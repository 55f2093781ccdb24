//! Sockets: listeners, limits on connections, request frames in, responses out.
//!
//! [`Network`] owns every connection of the broker. A connection is one task that reads a request, runs it and
//! writes the answer before it reads the next (Kafka mutes the channel meanwhile). While it waits for a
//! request it holds no buffer: what ten thousand idle connections cost is their tasks.

mod buffers;
mod congestion;
mod connection;
mod descriptors;
mod frame;
mod idle;
mod limits;
mod listener;
mod options;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinHandle};

use crate::api::dispatch::{Outcome, Response};
use crate::api::{Broker, Connection, dispatch};
use crate::clock;
use crate::metrics::ListenerMetrics;
use crate::quota::{AddressRates, Client, percent};

pub use descriptors::raise_open_file_limit;
pub use limits::ConnectionLimits;
pub use listener::{ListenError, Listener};
pub use options::{ListenerOptions, NetworkOptions};

use buffers::BufferPool;
use limits::ConnectionQuotas;

/// Requests in progress may hold this many bytes if `queued.max.request.bytes` sets no limit.
const DEFAULT_REQUEST_MEMORY: usize = 512 << 20;

/// What one permit of the request memory stands for.
const MEMORY_UNIT: usize = 1024;

/// What answers the requests of connections.
pub trait Service: Send + Sync + 'static {
    /// Runs one request to its end. `frame` is the request without its size.
    fn handle(
        self: &Arc<Self>,
        frame: Bytes,
        connection: &Connection,
    ) -> impl Future<Output = Outcome> + Send;

    /// Where the connections of a listener are counted.
    fn listener_metrics(&self, listener: &str) -> Arc<ListenerMetrics>;

    /// A response is on its way to the client. Handing it over took so long, of which this broker was busy so long
    /// (0 if nobody is charged for it).
    fn was_sent(
        &self,
        response: &Response,
        connection: &Connection,
        took: Duration,
        busy: Duration,
    );
}

impl Service for Broker {
    fn handle(
        self: &Arc<Self>,
        frame: Bytes,
        connection: &Connection,
    ) -> impl Future<Output = Outcome> + Send {
        dispatch::dispatch(frame, self, connection)
    }

    fn listener_metrics(&self, listener: &str) -> Arc<ListenerMetrics> {
        self.metrics.listener(listener)
    }

    fn was_sent(
        &self,
        response: &Response,
        connection: &Connection,
        took: Duration,
        busy: Duration,
    ) {
        response.was_sent(&self.metrics, took);
        if let Some(client_id) = response.charged() {
            let client = Client {
                user: &connection.principal.name,
                client_id,
            };
            let now = clock::now().monotonic;
            self.quotas.request.note(client, percent(busy), now);
        }
    }
}

/// All connections of a broker.
pub struct Network {
    request_bytes_max: usize,
    idle_max: Option<Duration>,
    limits: ArcSwap<ConnectionLimits>,
    quotas: ConnectionQuotas,
    address_rates: Arc<AddressRates>,
    buffers: BufferPool,
    request_memory: Semaphore,
    /// In permits of `request_memory`.
    request_memory_max: usize,
    next_connection_id: AtomicU64,
    sessions: Mutex<HashMap<u64, Session>>,
    /// Told whenever a connection is gone.
    gone: Notify,
    is_draining: AtomicBool,
    acceptors: Mutex<Vec<Acceptor>>,
}

/// The task that accepts the connections of a listener.
struct Acceptor {
    listener: String,
    task: JoinHandle<()>,
}

impl Acceptor {
    /// Closes the socket. Every connection that was accepted is in the list of sessions then, or closed.
    async fn stop(self) {
        self.task.abort();
        // Its end is what matters; that it was cancelled is no news.
        let _ = self.task.await;
    }
}

/// What the owner of a connection's task keeps of it.
struct Session {
    listener: Arc<str>,
    task: AbortHandle,
    state: Arc<SessionState>,
}

impl Session {
    /// Ends the connection: at once if it waits for a request, else after the one in progress.
    fn end(&self) {
        self.state.is_closing.store(true, Ordering::SeqCst);
        if !self.state.is_busy.load(Ordering::SeqCst) {
            self.task.abort();
        }
    }
}

#[derive(Default)]
struct SessionState {
    /// A request is in progress.
    is_busy: AtomicBool,
    /// The connection ends instead of waiting for its next request.
    is_closing: AtomicBool,
    /// Written with the list of sessions locked.
    has_ended: AtomicBool,
}

impl Network {
    /// Addresses that connect faster than `address_rates` allow are refused.
    pub fn new(options: NetworkOptions, address_rates: Arc<AddressRates>) -> Arc<Self> {
        let memory = options
            .request_memory_bytes_max
            .unwrap_or(DEFAULT_REQUEST_MEMORY);
        // A single request of the largest size must fit.
        let memory = memory.max(options.request_bytes_max).div_ceil(MEMORY_UNIT);
        Arc::new(Self {
            request_bytes_max: options.request_bytes_max,
            idle_max: options.idle_max,
            limits: ArcSwap::from_pointee(options.limits),
            quotas: ConnectionQuotas::new(options.rate_window),
            address_rates,
            buffers: BufferPool::default(),
            request_memory: Semaphore::new(memory),
            request_memory_max: memory,
            next_connection_id: AtomicU64::new(0),
            sessions: Mutex::default(),
            gone: Notify::new(),
            is_draining: AtomicBool::new(false),
            acceptors: Mutex::default(),
        })
    }

    /// Accepts connections of `listener` and serves them until [`Network::close_listener`] or
    /// [`Network::shutdown`].
    pub fn serve(self: &Arc<Self>, listener: Listener, service: Arc<impl Service>) {
        let name = listener.name().to_owned();
        let task = tokio::spawn(listener::accept_loop(self.clone(), listener, service));
        self.acceptors().push(Acceptor {
            listener: name,
            task,
        });
    }

    /// Closes the socket of a listener. Its connections stay.
    pub async fn stop_accepting(&self, listener: &str) {
        let stopped: Vec<Acceptor> = self
            .acceptors()
            .extract_if(.., |acceptor| acceptor.listener == listener)
            .collect();
        for acceptor in stopped {
            acceptor.stop().await;
        }
    }

    /// Closes the socket and the connections of a listener; those with a request in progress get `grace` to answer.
    pub async fn close_listener(&self, listener: &str, grace: Duration) {
        self.stop_accepting(listener).await;
        let is_of_it = |session: &&Session| &*session.listener == listener;
        self.sessions()
            .values()
            .filter(is_of_it)
            .for_each(Session::end);
        let has_ended =
            |sessions: &HashMap<u64, Session>| !sessions.values().any(|one| is_of_it(&one));
        if tokio::time::timeout(grace, self.wait_until(has_ended))
            .await
            .is_err()
        {
            let sessions = self.sessions();
            for session in sessions.values().filter(is_of_it) {
                session.task.abort();
            }
        }
        self.quotas.forget_listener(listener);
    }

    /// Replaces the limits on connections; open ones stay.
    pub fn set_limits(&self, limits: ConnectionLimits) {
        self.limits.store(Arc::new(limits));
        self.quotas.limits_changed();
    }

    pub fn connection_count(&self) -> usize {
        self.quotas.total()
    }

    /// Open connections of one listener.
    pub fn connection_count_of(&self, listener: &str) -> usize {
        self.quotas.of_listener(listener)
    }

    /// Open connections from one address.
    pub fn connection_count_from(&self, address: IpAddr) -> usize {
        self.quotas.of_address(address)
    }

    /// Stops accepting, closes connections that wait for a request, and gives the others `grace` to answer.
    pub async fn shutdown(&self, grace: Duration) {
        let acceptors = std::mem::take(&mut *self.acceptors());
        for acceptor in acceptors {
            acceptor.stop().await;
        }
        // From here on a connection ends instead of waiting for its next request.
        self.is_draining.store(true, Ordering::SeqCst);
        self.sessions().values().for_each(Session::end);
        if tokio::time::timeout(grace, self.wait_until(HashMap::is_empty))
            .await
            .is_err()
        {
            let sessions = self.sessions();
            tracing::warn!(
                connections = sessions.len(),
                "closing connections in the middle of a request"
            );
            for session in sessions.values() {
                session.task.abort();
            }
        }
        // Aborted tasks end at their next step.
        let ended = self.wait_until(HashMap::is_empty);
        let _ = tokio::time::timeout(Duration::from_secs(1), ended).await;
    }

    async fn wait_until(&self, condition: impl Fn(&HashMap<u64, Session>) -> bool) {
        loop {
            let gone = self.gone.notified();
            if condition(&self.sessions()) {
                return;
            }
            gone.await;
        }
    }

    fn acceptors(&self) -> std::sync::MutexGuard<'_, Vec<Acceptor>> {
        self.acceptors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    fn forget_session(&self, id: u64, state: &SessionState) {
        let mut sessions = self.sessions();
        state.has_ended.store(true, Ordering::SeqCst);
        sessions.remove(&id);
        self.gone.notify_waiters();
    }
}
