//! Brokers other than this one, as the controller tells them what to do.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::control::{BrokerAddress, ControlOutcome, ControlRequest, LiveBroker};
use barnabas_core::ids::{BrokerEpoch, BrokerId};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Mutex;

use super::{ControlTarget, RemoteTargets};
use crate::config::LiveConfig;
use crate::peer::{ControlVersions, MetadataEncoder, Peer, PeerNetwork, send_control};

/// Between attempts to send a request, as in Kafka's `RequestSendThread`.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);

/// Reaches brokers over the network: one connection each, one request at a time, repeated until it is answered.
pub struct NetworkTargets {
    network: Arc<dyn PeerNetwork>,
    config: Arc<LiveConfig>,
    /// This broker; its id is the client id of all requests.
    broker_id: BrokerId,
    encoder: Arc<MetadataEncoder>,
}

impl NetworkTargets {
    pub fn new(
        network: Arc<dyn PeerNetwork>,
        config: Arc<LiveConfig>,
        broker_id: BrokerId,
    ) -> Arc<Self> {
        Arc::new(Self {
            network,
            config,
            broker_id,
            encoder: Arc::default(),
        })
    }
}

impl RemoteTargets for NetworkTargets {
    fn connect(&self, broker: &LiveBroker, _epoch: BrokerEpoch) -> Arc<dyn ControlTarget> {
        let config = self.config.broker();
        let listeners = &config.listeners;
        let listener = listeners.control_plane.as_ref();
        let listener = listener.unwrap_or(&listeners.inter_broker);
        let Some(endpoint) = broker.endpoint(listener) else {
            tracing::error!(broker = %broker.id, listener, "a broker cannot be told anything: it lacks the listener");
            return Arc::new(Unreachable);
        };
        let address = BrokerAddress {
            id: broker.id,
            host: endpoint.host.clone(),
            port: endpoint.port,
        };
        let client_id = self.broker_id.to_string();
        Arc::new(NetworkTarget {
            id: broker.id,
            versions: ControlVersions::of(&config.inter_broker_protocol_version),
            timeout: Duration::from_millis(config.request_timeout_ms.max(0) as u64),
            encoder: self.encoder.clone(),
            peer: Mutex::new(Peer::new(self.network.clone(), address, client_id)),
        })
    }
}

struct NetworkTarget {
    id: BrokerId,
    versions: ControlVersions,
    timeout: Duration,
    encoder: Arc<MetadataEncoder>,
    peer: Mutex<Peer>,
}

impl ControlTarget for NetworkTarget {
    /// Ends only when the broker has answered.
    fn deliver(&self, request: ControlRequest) -> BoxFuture<'_, ControlOutcome> {
        async move {
            let mut peer = self.peer.lock().await;
            let mut has_failed = false;
            loop {
                let sent = send_control(
                    &mut peer,
                    self.versions,
                    &self.encoder,
                    &request,
                    self.timeout,
                );
                match sent.await {
                    Ok(outcome) => return outcome,
                    // Said once a request: a broker that is gone is sent to until ZooKeeper notices.
                    Err(error) if has_failed => {
                        tracing::debug!(broker = %self.id, %error, "a broker still cannot be told");
                    }
                    Err(error) => {
                        has_failed = true;
                        tracing::warn!(broker = %self.id, %error, "a broker cannot be told; trying again");
                    }
                }
                tokio::time::sleep(RETRY_BACKOFF).await;
            }
        }
        .boxed()
    }
}

/// A broker without the listener that brokers use.
struct Unreachable;

impl ControlTarget for Unreachable {
    fn deliver(&self, _request: ControlRequest) -> BoxFuture<'_, ControlOutcome> {
        std::future::pending().boxed()
    }
}
