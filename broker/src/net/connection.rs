//! One connection: read a request, run it, write the answer, again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;

use super::frame::{Frame, FrameError, FrameReader};
use super::idle::IdleTimer;
use super::limits::ConnectionSlot;
use super::stream::Stream;
use super::{Network, Session, SessionState};
use crate::api::dispatch::{self, Outcome};
use crate::api::{Broker, Connection, Principal};

/// Starts the task of an accepted connection.
pub(super) fn spawn(
    network: &Arc<Network>,
    broker: &Arc<Broker>,
    listener: &Arc<str>,
    stream: TcpStream,
    peer_address: SocketAddr,
    slot: ConnectionSlot,
) {
    let id = network.next_connection_id.fetch_add(1, Ordering::Relaxed);
    let connection = Connection {
        id,
        listener: listener.clone(),
        peer_address,
        principal: Principal::anonymous(),
    };
    let state = Arc::new(SessionState::default());
    let session = SessionGuard {
        network: network.clone(),
        id,
        state: state.clone(),
        _slot: slot,
    };
    let broker = broker.clone();
    let task = tokio::spawn(async move {
        serve(&session, &broker, &connection, Stream::Plain(stream)).await;
    });
    let mut sessions = network.sessions();
    if !state.has_ended.load(Ordering::SeqCst) {
        sessions.insert(
            id,
            Session {
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
    _slot: ConnectionSlot,
}

impl SessionGuard {
    /// Marks the start or the end of a request; false if the connection is to end now instead.
    fn goes_on(&self, is_busy: bool) -> bool {
        self.state.is_busy.store(is_busy, Ordering::SeqCst);
        !self.network.is_draining()
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.network.forget_session(self.id, &self.state);
    }
}

async fn serve(
    session: &SessionGuard,
    broker: &Arc<Broker>,
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
            Err(error) => return log_end(connection, &error),
        };
        if !session.goes_on(true) {
            return;
        }
        let Frame { bytes, memory } = frame;
        let outcome = dispatch::dispatch(bytes, broker, connection).await;
        drop(memory);
        idle.note_activity();
        match outcome {
            Outcome::Respond(response) => {
                if let Err(error) = stream.send(&response, &mut idle).await {
                    tracing::debug!(
                        peer = %connection.peer_address,
                        %error,
                        "cannot send a response; closing the connection"
                    );
                    return;
                }
            }
            Outcome::Silent => {}
            Outcome::Close(reason) => {
                tracing::info!(
                    peer = %connection.peer_address,
                    listener = &*connection.listener,
                    %reason,
                    "closing a connection"
                );
                return;
            }
        }
    }
}

/// One line for a connection that ends because of what the client sent; none for one that simply ends.
fn log_end(connection: &Connection, error: &FrameError) {
    match error {
        FrameError::Size(_) | FrameError::Truncated => tracing::info!(
            peer = %connection.peer_address,
            listener = &*connection.listener,
            reason = %error,
            "closing a connection"
        ),
        FrameError::Closed | FrameError::Idle | FrameError::Io(_) => tracing::debug!(
            peer = %connection.peer_address,
            listener = &*connection.listener,
            reason = %error,
            "connection ended"
        ),
    }
}
