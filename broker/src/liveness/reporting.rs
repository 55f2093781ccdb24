//! Whoever talks to another broker notices when it seems to be dead: fetchers, the controller's senders, coordinators.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::control::BrokerAddress;
use barnabas_core::ids::BrokerId;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::{QUEUED_SUSPICIONS, Suspicions};
use crate::peer::{PeerError, PeerNetwork, PeerStream};

/// Where suspicions wait to be looked into.
pub struct SuspicionQueue {
    pub(super) suspicions: Suspicions,
    pub(super) received: mpsc::Receiver<BrokerId>,
}

/// The same network, but that it tells when a connection is refused or ends in the middle of a request. Probes do not
/// go through it, or they would be suspicions of their own.
pub fn reporting(network: Arc<dyn PeerNetwork>) -> (Arc<dyn PeerNetwork>, SuspicionQueue) {
    let (sender, received) = mpsc::channel(QUEUED_SUSPICIONS);
    let suspicions = Suspicions(sender);
    let network = Arc::new(ReportingNetwork {
        network,
        suspicions: suspicions.clone(),
    });
    (
        network,
        SuspicionQueue {
            suspicions,
            received,
        },
    )
}

struct ReportingNetwork {
    network: Arc<dyn PeerNetwork>,
    suspicions: Suspicions,
}

impl PeerNetwork for ReportingNetwork {
    fn connect<'a>(
        &'a self,
        address: &'a BrokerAddress,
    ) -> BoxFuture<'a, Result<Box<dyn PeerStream>, PeerError>> {
        async move {
            let (suspicions, broker) = (self.suspicions.clone(), address.id);
            match self.network.connect(address).await {
                Ok(stream) => Ok(Box::new(ReportingStream {
                    stream,
                    broker,
                    suspicions,
                }) as Box<dyn PeerStream>),
                Err(error) => {
                    suspicions.connection_failed(broker, &error);
                    Err(error)
                }
            }
        }
        .boxed()
    }
}

struct ReportingStream {
    stream: Box<dyn PeerStream>,
    broker: BrokerId,
    suspicions: Suspicions,
}

impl PeerStream for ReportingStream {
    fn exchange(
        &mut self,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        async move {
            let answer = self.stream.exchange(request, timeout).await;
            if let Err(error) = &answer {
                self.suspicions.connection_failed(self.broker, error);
            }
            answer
        }
        .boxed()
    }

    fn closed(&mut self) -> BoxFuture<'_, PeerError> {
        self.stream.closed()
    }
}
