//! Brokers other than this one, as the controller tells them what to do.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::control::{BrokerAddress, ControlOutcome, ControlRequest, LiveBroker};
use barnabas_core::ids::BrokerId;
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
    fn connect(&self, broker: &LiveBroker) -> Arc<dyn ControlTarget> {
        let config = self.config.broker();
        let listener = config.listeners.of_controller();
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
            timeout: Duration::from_millis(config.controller_socket_timeout_ms.max(0) as u64),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex as StdMutex;

    use barnabas_core::config::BrokerConfig;
    use barnabas_core::control::{ControlHeader, Endpoint, SecurityProtocol, StopReplica};
    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;
    use crate::peer::{PeerError, PeerStream};

    /// A broker that does not answer the first `failures` requests.
    struct Deaf {
        failures: usize,
        sent: StdMutex<Vec<Bytes>>,
    }

    impl PeerNetwork for Arc<Deaf> {
        fn connect<'a>(
            &'a self,
            address: &'a BrokerAddress,
        ) -> BoxFuture<'a, Result<Box<dyn PeerStream>, PeerError>> {
            assert_eq!(
                address.port, 9091,
                "the control plane has a listener of its own"
            );
            async move { Ok(Box::new(self.clone()) as Box<dyn PeerStream>) }.boxed()
        }
    }

    impl PeerStream for Arc<Deaf> {
        fn exchange(
            &mut self,
            request: Bytes,
            _timeout: Duration,
        ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
            let mut sent = self.sent.lock().unwrap();
            let is_answered = sent.len() >= self.failures;
            let correlation_id = request.slice(4..8);
            sent.push(request);
            async move {
                if is_answered {
                    Ok([&correlation_id[..], &[0, 0, 0, 1, 0]].concat().into())
                } else {
                    Err(PeerError::TimedOut)
                }
            }
            .boxed()
        }
    }

    fn target(failures: usize) -> (Arc<Deaf>, Arc<dyn ControlTarget>) {
        let given: BTreeMap<String, String> = [
            ("zookeeper.connect", "localhost:2181"),
            (
                "listeners",
                "CONTROL://localhost:9091,CLIENTS://localhost:9092",
            ),
            (
                "listener.security.protocol.map",
                "CONTROL:PLAINTEXT,CLIENTS:PLAINTEXT",
            ),
            ("inter.broker.listener.name", "CLIENTS"),
            ("control.plane.listener.name", "CONTROL"),
        ]
        .map(|(key, text)| (key.to_owned(), text.to_owned()))
        .into();
        let config = BrokerConfig::parse(&given).unwrap();
        let config = Arc::new(LiveConfig::new(config, BrokerId(1)).unwrap());
        let network = Arc::new(Deaf {
            failures,
            sent: StdMutex::default(),
        });
        let targets = NetworkTargets::new(Arc::new(network.clone()), config, BrokerId(1));
        let endpoint = |listener: &str, port| Endpoint {
            listener: listener.to_owned(),
            security_protocol: SecurityProtocol::Plaintext,
            host: "localhost".to_owned(),
            port,
        };
        let broker = LiveBroker {
            id: BrokerId(2),
            endpoints: vec![endpoint("CLIENTS", 9092), endpoint("CONTROL", 9091)],
            rack: None,
        };
        (network, targets.connect(&broker))
    }

    fn request() -> ControlRequest {
        ControlRequest::StopReplica(StopReplica {
            header: ControlHeader {
                controller_id: BrokerId(1),
                controller_epoch: 1,
                broker_epoch: 7,
            },
            partitions: Vec::new(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_does_not_answer_is_told_the_same_until_it_does() {
        let (network, target) = target(3);
        let began = Instant::now();
        let outcome = target.deliver(request()).await;
        assert_eq!(outcome.result, Ok(()));
        assert_eq!(began.elapsed(), 3 * RETRY_BACKOFF);
        let sent = network.sent.lock().unwrap();
        assert_eq!(sent.len(), 4);
        for again in &sent[1..] {
            assert_eq!(again[8..], sent[0][8..]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_drops_the_queue_to_a_broker_gives_up() {
        let (network, target) = target(usize::MAX);
        let (answers, _events) = tokio::sync::mpsc::channel(1);
        let held = Arc::downgrade(&target);
        let channel =
            super::super::channel::Channel::open(BrokerId(2), target, answers, Arc::default());
        channel.send(request());
        let given_up = async {
            while network.sent.lock().unwrap().len() < 3 {
                tokio::time::sleep(RETRY_BACKOFF).await;
            }
            drop(channel);
            while held.upgrade().is_some() {
                tokio::time::sleep(RETRY_BACKOFF).await;
            }
        };
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, given_up).await.unwrap();
    }
}
