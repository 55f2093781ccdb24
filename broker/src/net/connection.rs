//! One connection: read a request, run it, write the answer, again.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::frame::{Frame, FrameError, FrameReader};
use super::idle::IdleTimer;
use super::limits::ConnectionSlot;
use super::stream::Stream;
use super::{Network, Service, Session, SessionState};
use crate::api::dispatch::{Mute, Outcome};
use crate::api::{Connection, Principal};
use crate::metrics::ListenerMetrics;

/// A connection that may be served.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer_address: SocketAddr,
    pub(super) listener: Arc<str>,
    pub(super) metrics: Arc<ListenerMetrics>,
    pub(super) slot: ConnectionSlot,
}

/// Starts the task of an accepted connection.
pub(super) fn spawn<S: Service>(network: &Arc<Network>, service: &Arc<S>, accepted: Accepted) {
    let Accepted {
        stream,
        peer_address,
        listener,
        metrics,
        slot,
    } = accepted;
    let id = network.next_connection_id.fetch_add(1, Ordering::Relaxed);
    let connection = Connection {
        id,
        listener: listener.clone(),
        peer_address,
        principal: Principal::anonymous(),
    };
    let state = Arc::new(SessionState::default());
    metrics.connections.add(1);
    metrics.connections_created.increment();
    let session = SessionGuard {
        network: network.clone(),
        id,
        state: state.clone(),
        metrics,
        _slot: slot,
    };
    let service = service.clone();
    let task = tokio::spawn(async move {
        serve(&session, &service, &connection, Stream::Plain(stream)).await;
    });
    let mut sessions = network.sessions();
    if !state.has_ended.load(Ordering::SeqCst) {
        sessions.insert(
            id,
            Session {
                listener,
                task: task.abort_handle(),
                state,
            },
        );
    }
}

/// Leaves the list of sessions however the task ends.
struct SessionGuard {
    network: Arc<Network>,
    id: u64,
    state: Arc<SessionState>,
    metrics: Arc<ListenerMetrics>,
    _slot: ConnectionSlot,
}

impl SessionGuard {
    /// Marks the start or the end of a request; false if the connection is to end now instead.
    fn goes_on(&self, is_busy: bool) -> bool {
        self.state.is_busy.store(is_busy, Ordering::SeqCst);
        !self.network.is_draining() && !self.state.is_closing.load(Ordering::SeqCst)
    }

    /// One line for a connection that ends because of what the client sent; none for one that simply ends.
    fn log_end(&self, connection: &Connection, error: &FrameError) {
        let peer = connection.peer_address;
        let listener = &*connection.listener;
        match error {
            FrameError::Size(_) | FrameError::Truncated => {
                self.metrics.protocol_errors.increment();
                tracing::info!(%peer, listener, reason = %error, "closing a connection");
            }
            FrameError::Closed | FrameError::Idle | FrameError::Io(_) => {
                tracing::debug!(%peer, listener, reason = %error, "connection ended");
            }
        }
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.metrics.connections.add(-1);
        self.metrics.connections_closed.increment();
        self.network.forget_session(self.id, &self.state);
    }
}

async fn serve<S: Service>(
    session: &SessionGuard,
    service: &Arc<S>,
    connection: &Connection,
    mut stream: Stream,
) {
    let network = &*session.network;
    let mut idle = IdleTimer::new(network.idle_max);
    let mut reader = FrameReader::default();
    loop {
        if !session.goes_on(false) {
            return;
        }
        let frame = match reader.next(&mut stream, network, &mut idle).await {
            Ok(frame) => frame,
            Err(error) => return session.log_end(connection, &error),
        };
        if !session.goes_on(true) {
            return;
        }
        let Frame { bytes, memory } = frame;
        let outcome = service.handle(bytes, connection).await;
        drop(memory);
        idle.note_activity();
        match outcome {
            Outcome::Respond(response) => {
                let started = Instant::now();
                let mut busy = Duration::ZERO;
                let sending = stream.send(&response, &mut idle);
                let sent = if response.charged().is_some() {
                    measured(sending, &mut busy).await
                } else {
                    sending.await
                };
                if let Err(error) = sent {
                    tracing::debug!(
                        peer = %connection.peer_address,
                        %error,
                        "cannot send a response; closing the connection"
                    );
                    return;
                }
                service.was_sent(&response, connection, started.elapsed(), busy);
                let mute = response.mute();
                drop(response);
                if !stay_muted(session, mute, &mut idle).await {
                    return;
                }
            }
            Outcome::Silent(mute) => {
                if !stay_muted(session, mute, &mut idle).await {
                    return;
                }
            }
            Outcome::Close(reason) => {
                session.metrics.protocol_errors.increment();
                tracing::info!(
                    peer = %connection.peer_address,
                    listener = &*connection.listener,
                    %reason,
                    "closing a connection"
                );
                return;
            }
        }
        // A client with a thousand requests in the buffer is not the only one.
        tokio::task::consume_budget().await;
    }
}

/// Reads nothing from a connection whose client is throttled; false if the connection is to end instead, because
/// the broker stops or the client would be idle for too long (KIP-219).
async fn stay_muted(session: &SessionGuard, mute: Option<Mute>, idle: &mut IdleTimer) -> bool {
    let Some(Mute(until)) = mute else {
        return true;
    };
    if !session.goes_on(false) {
        return false;
    }
    tokio::select! {
        biased;
        () = tokio::time::sleep_until(until) => true,
        () = poll_fn(|cx| idle.poll_expired(cx)) => false,
    }
}

/// Runs `work`, and adds to `busy` what it takes without what it waits.
async fn measured<T>(work: impl Future<Output = T>, busy: &mut Duration) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let began = Instant::now();
        let polled = work.as_mut().poll(cx);
        *busy += began.elapsed();
        polled
    })
    .await
}
