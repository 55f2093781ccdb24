//! The HTTP port for operators: `/metrics`, `/healthz`, `/readyz`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::Broker;
use crate::metrics::{Exposition, write_all};
use crate::zookeeper::SessionState;

const KEY: &str = "barnabas.admin.listener";

/// Why the port could not be opened although it was asked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "{KEY}={listener}: cannot listen there: {source}; give a free host:port, or an empty value to switch it off"
)]
pub struct AdminError {
    listener: String,
    source: io::Error,
}

struct Shared {
    broker: Arc<Broker>,
    is_ready: AtomicBool,
}

/// The running port.
pub struct AdminServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl AdminServer {
    /// Opens the port. A default address that is taken (by another broker on this host) is only worth a
    /// warning, one that was given must be free.
    pub async fn start(broker: Arc<Broker>) -> Result<Option<Self>, AdminError> {
        let config = broker.config.broker();
        let listener = config.barnabas_admin_listener.clone();
        if listener.is_empty() {
            return Ok(None);
        }
        let bound = async {
            let socket = TcpListener::bind(with_host(&listener)).await?;
            Ok((socket.local_addr()?, socket))
        };
        let (address, socket) = match bound.await {
            Ok(bound) => bound,
            Err(source) if config.given().contains_key(KEY) => {
                return Err(AdminError { listener, source });
            }
            Err(error) => {
                tracing::warn!(%error, listener, "metrics and health are not served: set {KEY}");
                return Ok(None);
            }
        };
        let shared = Arc::new(Shared {
            broker,
            is_ready: AtomicBool::new(true),
        });
        let routes = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .with_state(shared.clone());
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let until_stopped = async move {
                // An error says that the sender is gone, which is a stop as well.
                let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
            };
            let served = axum::serve(socket, routes).with_graceful_shutdown(until_stopped);
            if let Err(error) = served.await {
                tracing::warn!(%error, "metrics and health are no longer served");
            }
        });
        Ok(Some(Self {
            address,
            shared,
            stop,
            task,
        }))
    }

    /// The address that is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `/readyz` says no: the broker is about to stop.
    pub fn not_ready(&self) {
        self.shared.is_ready.store(false, Ordering::Relaxed);
    }

    /// Closes the port.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.task.abort();
        // A scrape that hangs must not hold up the stop.
        let _ = self.task.await;
    }
}

/// `:9404` is every interface.
fn with_host(listener: &str) -> String {
    if listener.starts_with(':') {
        format!("0.0.0.0{listener}")
    } else {
        listener.to_owned()
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready while the broker serves, has a session and has heard of a controller: who sends clients here wants all.
async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    let metadata = &shared.broker.metadata;
    metadata.settled().await;
    let session = *shared.broker.zookeeper.session_state().borrow();
    if !shared.is_ready.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    if metadata.image().brokers.is_empty() {
        let reason = "no controller has told this broker of the cluster yet\n";
        return (StatusCode::SERVICE_UNAVAILABLE, reason.to_owned());
    }
    match session {
        SessionState::Connected => (StatusCode::OK, "ready\n".to_owned()),
        other => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("ZooKeeper session: {other:?}\n"),
        ),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let mut out = Exposition::default();
    write_all(&shared.broker, &mut out);
    let content_type = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (content_type, out.into_text())
}
