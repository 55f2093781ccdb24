//! `/metrics`, `/healthz`, `/readyz` and, if enabled, `/debug`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::controller::Context;

/// A heartbeat older than this means that the process hangs.
const HANGS: Duration = Duration::from_secs(10);

/// Whether the process lives and is ready.
pub struct Health {
    begun: Instant,
    beat_ms: AtomicU64,
    /// Caches are synced and the Lease is known; true on the standby too.
    pub is_ready: AtomicBool,
}

impl Health {
    /// Beats from now on.
    pub fn start() -> Arc<Self> {
        let health = Arc::new(Self {
            begun: Instant::now(),
            beat_ms: AtomicU64::new(0),
            is_ready: AtomicBool::new(false),
        });
        let beats = health.clone();
        tokio::spawn(async move {
            loop {
                let now = beats.begun.elapsed().as_millis() as u64;
                beats.beat_ms.store(now, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        health
    }

    fn is_alive(&self) -> bool {
        let beat = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(beat) <= HANGS
    }
}

#[derive(Clone)]
struct Pages {
    health: Arc<Health>,
    context: Arc<Context>,
}

/// Binds and serves until the process ends; the address it got.
pub async fn serve(
    address: SocketAddr,
    health: Arc<Health>,
    context: Arc<Context>,
) -> std::io::Result<SocketAddr> {
    let with_debug = context.settings.debug_endpoints;
    let pages = Pages { health, context };
    let mut router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz));
    if with_debug {
        router = router
            .route("/debug/topics", get(topics))
            .route("/debug/assignments/{topic}", get(assignments))
            .route("/debug/claims", get(claims))
            .route("/debug/plan", get(moves))
            .route("/debug/brokers", get(brokers));
    }
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    tokio::spawn(async move {
        // Only ends with an error of the listener; the health check tells.
        let _ = axum::serve(listener, router.with_state(pages)).await;
    });
    Ok(bound)
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    let head = [("content-type", "text/plain; version=0.0.4")];
    pages.context.figures();
    let mut text = pages.context.metrics.exposition();
    if let Some(mover) = pages.context.mover.get() {
        text.push_str(&mover.metrics());
    }
    (head, text)
}

async fn healthz(State(pages): State<Pages>) -> impl IntoResponse {
    if pages.health.is_alive() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no heartbeat\n")
    }
}

async fn readyz(State(pages): State<Pages>) -> impl IntoResponse {
    if pages.health.is_ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "caches are not synced\n")
    }
}

async fn topics(State(pages): State<Pages>) -> String {
    let view = pages.context.cluster.view();
    let lines = view.topics.values().map(|topic| {
        let count = topic.partitions.len();
        let replicas = topic.replication_factor();
        format!(
            "{} partitions={count} replicas={replicas} {:?}\n",
            topic.name, topic.overrides
        )
    });
    lines.collect()
}

async fn assignments(
    State(pages): State<Pages>,
    Path(name): Path<String>,
) -> Result<String, (StatusCode, String)> {
    let view = pages.context.cluster.view();
    let topic = view.topics.get(name.as_str());
    let missing = || (StatusCode::NOT_FOUND, format!("there is no topic {name}\n"));
    let topic = topic.ok_or_else(missing)?;
    let lines = topic.partitions.iter().map(|one| {
        let replicas = one.replicas.iter().map(ToString::to_string);
        format!(
            "{}:{}\n",
            one.partition,
            replicas.collect::<Vec<_>>().join(",")
        )
    });
    Ok(lines.collect())
}

async fn moves(State(pages): State<Pages>) -> String {
    let Some(mover) = pages.context.mover.get() else {
        return "this operator does not act\n".to_owned();
    };
    let status = mover.status().borrow().clone();
    let head = format!("score {} frozen {:?}\n", status.score, status.frozen);
    let running = status.running.iter();
    let running =
        running.map(|one| format!("running {:?} {} bytes\n", one.planned, one.bytes_done));
    let planned = status.planned.iter();
    let planned = planned.map(|one| format!("planned {one:?}\n"));
    let stuck = status.stuck.iter().map(|one| format!("stuck {one:?}\n"));
    std::iter::once(head)
        .chain(running)
        .chain(planned)
        .chain(stuck)
        .collect()
}

async fn brokers(State(pages): State<Pages>) -> String {
    let Some(mover) = pages.context.mover.get() else {
        return "this operator does not act\n".to_owned();
    };
    let status = mover.status().borrow().clone();
    let lines = status.brokers.iter().map(|(id, state)| {
        let due = status.due_at.get(id);
        format!("{id} {} due {due:?}\n", state.name())
    });
    lines.collect()
}

async fn claims(State(pages): State<Pages>) -> String {
    let claims = crate::controller::lock(&pages.context.claims);
    let lines = claims.topics().map(|topic| {
        let owner = claims.owner(&topic).map(ToString::to_string);
        format!("{topic} {}\n", owner.unwrap_or_default())
    });
    lines.collect()
}
