//! The HTTP port for operators: `/metrics`, `/healthz`, `/readyz`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use barnabas_core::ids::BrokerId;
use barnabas_core::metadata::ClusterImage;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::api::Broker;
use crate::metrics::{Exposition, write_all};
use crate::zookeeper::SessionState;

const KEY: &str = "barnabas.admin.listener";
/// A broker that has not been in sync for so long is ready nevertheless: what keeps it back needs a person, and
/// keeping clients from the partitions that it does lead helps nobody.
const IN_SYNC_PATIENCE: Duration = Duration::from_secs(600);

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
    is_stopping: AtomicBool,
    /// Whether it has been ready: from then on only a stop makes it not so. Another broker's trouble must not take this one
    /// out of its services as well, and a rolling update waits for the first time.
    was_ready: AtomicBool,
    started: Instant,
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
            is_stopping: AtomicBool::new(false),
            was_ready: AtomicBool::new(false),
            started: Instant::now(),
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
        self.shared.is_stopping.store(true, Ordering::Relaxed);
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

/// Ready once the broker serves, has a session, has heard of a controller and has been in sync wherever it keeps a
/// replica; from then on until it stops.
async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    let metadata = &shared.broker.metadata;
    metadata.settled().await;
    let answer = if shared.is_stopping.load(Ordering::Relaxed) {
        Err("stopping".to_owned())
    } else if shared.was_ready.load(Ordering::Relaxed) {
        Ok(())
    } else {
        let session = *shared.broker.zookeeper.session_state().borrow();
        let waited = shared.started.elapsed();
        readiness(&metadata.image(), shared.broker.broker_id, session, waited)
    };
    match answer {
        Ok(()) => {
            if !shared.was_ready.swap(true, Ordering::Relaxed) {
                tracing::info!("ready");
            }
            (StatusCode::OK, "ready\n".to_owned())
        }
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// Whether a broker that was not ready yet is, `waited` after its start; else why not.
fn readiness(
    image: &ClusterImage,
    own: BrokerId,
    session: SessionState,
    waited: Duration,
) -> Result<(), String> {
    if session != SessionState::Connected {
        return Err(format!("ZooKeeper session: {session:?}"));
    }
    if !image.is_alive(own) {
        return Err("no controller has told this broker of the cluster yet".to_owned());
    }
    let partitions = image
        .topics
        .values()
        .flat_map(|topic| topic.partitions.values());
    let lagging: Vec<_> = partitions
        .filter(|partition| partition.replicas.contains(&own))
        .filter(|partition| !partition.leadership.isr.contains(&own))
        .collect();
    match lagging.first() {
        Some(first) if waited < IN_SYNC_PATIENCE => Err(format!(
            "{} replicas are not in sync yet, among them {}",
            lagging.len(),
            first.topic_partition
        )),
        Some(first) => {
            tracing::warn!(
                replicas = lagging.len(),
                example = %first.topic_partition,
                "ready although replicas are not in sync"
            );
            Ok(())
        }
        None => Ok(()),
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

#[cfg(test)]
mod tests {
    use barnabas_core::control::{Leadership, LiveBroker, PartitionMetadata};
    use barnabas_core::ids::TopicPartition;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    /// A cluster of brokers 1 and 2 with one partition on both.
    fn image(isr: &[i32]) -> ClusterImage {
        let isr: Vec<_> = isr.iter().map(|id| BrokerId(*id)).collect();
        let partition = PartitionMetadata {
            topic_partition: TopicPartition::new("orders", 0),
            topic_id: None,
            leadership: Leadership {
                controller_epoch: 1,
                leader: 1,
                leader_epoch: 0,
                isr,
                partition_epoch: 0,
                is_recovering: false,
            },
            replicas: vec![BrokerId(1), BrokerId(2)],
            offline_replicas: vec![],
        };
        let mut image = ClusterImage::default();
        let topics = Arc::make_mut(&mut image.topics);
        let topic = topics.entry("orders".into()).or_default();
        Arc::make_mut(topic).partitions.insert(0, partition.into());
        image.brokers = Arc::new([1, 2].map(live).into());
        image
    }

    fn live(id: i32) -> (BrokerId, LiveBroker) {
        let broker = LiveBroker {
            id: BrokerId(id),
            rack: None,
            endpoints: vec![],
        };
        (BrokerId(id), broker)
    }

    fn ready(isr: &[i32], waited: Duration) -> Result<(), String> {
        readiness(&image(isr), BrokerId(2), SessionState::Connected, waited)
    }

    #[test]
    fn a_broker_is_ready_when_all_its_replicas_are_in_sync() {
        assert_eq!(ready(&[1, 2], SOON), Ok(()));
        let reason = ready(&[1], SOON).unwrap_err();
        assert_eq!(
            reason,
            "1 replicas are not in sync yet, among them orders-0"
        );
        assert_eq!(ready(&[1], IN_SYNC_PATIENCE), Ok(()));
    }

    #[test]
    fn a_broker_that_nobody_knows_is_not_ready() {
        let connected = SessionState::Connected;
        let nobody = readiness(&ClusterImage::default(), BrokerId(2), connected, SOON);
        assert!(nobody.unwrap_err().contains("no controller"));
        let own = BrokerId(2);
        let lost = readiness(&image(&[1, 2]), own, SessionState::Disconnected, SOON);
        assert!(lost.unwrap_err().contains("ZooKeeper"));
    }
}
