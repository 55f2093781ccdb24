//! A broker to which markers are sent: one connection, one request at a time with everything that waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_core::control::BrokerAddress;
use barnabas_core::ids::BrokerId;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::config::LiveConfig;
use crate::coordinator::markers::Marker;
use crate::host;
use crate::peer::markers::{MarkerResults, write_markers};
use crate::peer::{Peer, PeerNetwork};

/// Markers in one request at most, so that its answer does not wait for too much.
const BATCH_MAX: usize = 1000;

struct Order {
    marker: Marker,
    answer: oneshot::Sender<MarkerResults>,
}

/// What waits for the next request: one for each transaction that is being completed, at most.
#[derive(Default)]
struct Orders {
    waiting: Mutex<Vec<Order>>,
    added: Notify,
}

/// See the module.
pub(super) struct Destination {
    address: BrokerAddress,
    orders: Arc<Orders>,
    task: JoinHandle<()>,
}

impl Destination {
    pub(super) fn start(
        sender: BrokerId,
        address: BrokerAddress,
        network: &Arc<dyn PeerNetwork>,
        config: &Arc<LiveConfig>,
    ) -> Arc<Self> {
        let client_id = format!("broker-{sender}-txn-marker-sender");
        let peer = Peer::new(Arc::clone(network), address.clone(), client_id);
        let orders = Arc::<Orders>::default();
        let running = Arc::clone(&orders).run(peer, Arc::clone(config));
        Arc::new(Self {
            address,
            orders,
            task: host::spawn(running),
        })
    }

    pub(super) fn address(&self) -> &BrokerAddress {
        &self.address
    }

    /// Sends a marker with the next request. The answer never comes if the broker does not give one.
    pub(super) fn order(&self, marker: Marker) -> oneshot::Receiver<MarkerResults> {
        let (answer, receiver) = oneshot::channel();
        self.orders.lock().push(Order { marker, answer });
        self.orders.added.notify_one();
        receiver
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Orders {
    fn lock(&self) -> MutexGuard<'_, Vec<Order>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Order> {
        let mut waiting = self.lock();
        // Who does not wait for the answer any more has found another way.
        waiting.retain(|order| !order.answer.is_closed());
        let count = waiting.len().min(BATCH_MAX);
        waiting.drain(..count).collect()
    }

    async fn run(self: Arc<Self>, mut peer: Peer, config: Arc<LiveConfig>) {
        loop {
            let orders = self.take();
            if orders.is_empty() {
                self.added.notified().await;
                continue;
            }
            let settings = config.broker();
            let timeout = Duration::from_millis(settings.request_timeout_ms.max(0) as u64);
            let (markers, answers): (Vec<Marker>, Vec<_>) = orders
                .into_iter()
                .map(|order| (order.marker, order.answer))
                .unzip();
            let protocol = &settings.inter_broker_protocol_version;
            match write_markers(&mut peer, &markers, protocol, timeout).await {
                Ok(results) => {
                    for (answer, results) in answers.into_iter().zip(results) {
                        // Nobody listens if the leader has changed meanwhile.
                        let _ = answer.send(results);
                    }
                }
                // Whoever waits is told by the end of the channel.
                Err(error) => {
                    tracing::debug!(broker = %peer.address().id, %error, "markers were not answered");
                }
            }
        }
    }
}
