//! Sockets: listeners, limits on connections, request frames in, responses out.
//!
//! [`Network`] owns every connection of the broker. A connection is one task that reads a request, runs it and
//! writes the answer before it reads the next (Kafka mutes the channel meanwhile). While it waits for a
//! request it holds no buffer: what ten thousand idle connections cost is their tasks.

mod buffers;
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
    /// Told when the last connection is gone.
    emptied: Notify,
    is_draining: AtomicBool,
    acceptors: Mutex<Vec<JoinHandle<()>>>,
}

/// What the owner of a connection's task keeps of it.
struct Session {
    task: AbortHandle,
    state: Arc<SessionState>,
}

#[derive(Default)]
struct SessionState {
    /// A request is in progress.
    is_busy: AtomicBool,
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
            emptied: Notify::new(),
            is_draining: AtomicBool::new(false),
            acceptors: Mutex::default(),
        })
    }

    /// Accepts connections of `listener` and serves them until [`Network::shutdown`].
    pub fn serve(self: &Arc<Self>, listener: Listener, service: Arc<impl Service>) {
        let task = tokio::spawn(listener::accept_loop(self.clone(), listener, service));
        self.acceptors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(task);
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
        let acceptors = std::mem::take(
            &mut *self
                .acceptors
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for acceptor in acceptors {
            acceptor.abort();
            // Its end is what matters; that it was cancelled is no news.
            let _ = acceptor.await;
        }
        // From here on a connection ends instead of waiting for its next request.
        self.is_draining.store(true, Ordering::SeqCst);
        for session in self.sessions().values() {
            if !session.state.is_busy.load(Ordering::SeqCst) {
                session.task.abort();
            }
        }
        if tokio::time::timeout(grace, self.wait_until_empty())
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
        let _ = tokio::time::timeout(Duration::from_secs(1), self.wait_until_empty()).await;
    }

    async fn wait_until_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.sessions().is_empty() {
                return;
            }
            emptied.await;
        }
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
        if sessions.is_empty() {
            self.emptied.notify_waiters();
        }
    }
}
