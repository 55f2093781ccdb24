//! The way of any broker to whoever is controller: this very broker, or another one.
//!
//! Kafka: `BrokerToControllerChannelManager`. The controller is the one that the metadata names. Who turns out
//! not to be it, or cannot be reached, is asked again when the metadata may have changed.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::control::BrokerAddress;
use barnabas_core::controller::{
    AllocateProducerIdsError, AlterPartition, AlterPartitionError, AlteredPartition,
    ControlledShutdownError,
};
use barnabas_core::ids::{BrokerId, TopicPartition};
use futures::future::BoxFuture;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

use super::ControllerHandle;
use crate::config::LiveConfig;
use crate::metadata_cache::MetadataCache;
use crate::peer::{ControlVersions, ControllerPeer, PeerError, PeerNetwork};
use crate::replica::IsrChanges;

/// Between attempts to find the controller.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);

/// What a [`ControllerLink`] is made of.
pub struct ControllerLinkOptions {
    pub network: Arc<dyn PeerNetwork>,
    /// The controller of this broker.
    pub controller: Arc<ControllerHandle>,
    pub metadata: Arc<MetadataCache>,
    pub config: Arc<LiveConfig>,
}

/// Asks the controller, whoever that is.
pub struct ControllerLink {
    options: ControllerLinkOptions,
    /// The connection to the controller that was asked last. Locked for one attempt at a time.
    remote: Mutex<Option<ControllerPeer>>,
}

/// Who is controller, as far as this broker knows.
enum Route {
    Local,
    Remote(BrokerAddress),
    Unknown,
}

impl ControllerLink {
    pub fn new(options: ControllerLinkOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            remote: Mutex::default(),
        })
    }

    /// Changes ISRs of partitions that this broker leads. Who asks, and in which registration, is filled in here.
    ///
    /// # Errors
    /// `NotController` if no controller was found within `request.timeout.ms`.
    pub async fn alter_partition(
        &self,
        mut request: AlterPartition,
    ) -> Result<Vec<AlteredPartition>, AlterPartitionError> {
        let controller = &self.options.controller;
        let limit = self.request_timeout();
        let deadline = Instant::now() + limit;
        loop {
            request.broker = controller.broker_id();
            request.broker_epoch = controller.broker_epoch();
            let answer = match self.route() {
                Route::Local => {
                    let asked = controller.alter_partition(request.clone());
                    timeout(limit, asked).await.map_err(|_| PeerError::TimedOut)
                }
                Route::Remote(address) => {
                    let image = self.options.metadata.image();
                    self.unless_replaced(address.id, async {
                        let mut peer = self.peer(address).await;
                        peer.alter_partition(&request, &image, limit).await
                    })
                    .await
                }
                Route::Unknown => Ok(Err(AlterPartitionError::NotController)),
            };
            let answer = answer.unwrap_or_else(|error| {
                unreached(&error);
                Err(AlterPartitionError::NotController)
            });
            let is_final = !matches!(answer, Err(AlterPartitionError::NotController));
            if is_final || !may_retry(deadline).await {
                return answer;
            }
        }
    }

    /// A block of producer ids for this broker.
    ///
    /// # Errors
    /// `NotController` if no controller was found within `request.timeout.ms`.
    pub async fn allocate_producer_ids(
        &self,
    ) -> Result<RangeInclusive<i64>, AllocateProducerIdsError> {
        let controller = &self.options.controller;
        let limit = self.request_timeout();
        let deadline = Instant::now() + limit;
        loop {
            let (id, epoch) = (controller.broker_id(), controller.broker_epoch());
            let answer = match self.route() {
                Route::Local => {
                    let asked = controller.allocate_producer_ids(id, epoch);
                    timeout(limit, asked).await.map_err(|_| PeerError::TimedOut)
                }
                Route::Remote(address) => {
                    self.unless_replaced(address.id, async {
                        let mut peer = self.peer(address).await;
                        peer.allocate_producer_ids(id, epoch, limit).await
                    })
                    .await
                }
                Route::Unknown => Ok(Err(AllocateProducerIdsError::NotController)),
            };
            let answer = answer.unwrap_or_else(|error| {
                unreached(&error);
                Err(AllocateProducerIdsError::NotController)
            });
            let is_final = !matches!(answer, Err(AllocateProducerIdsError::NotController));
            if is_final || !may_retry(deadline).await {
                return answer;
            }
        }
    }

    /// Asks once that all leaderships of this broker go elsewhere; gives back those that it keeps.
    ///
    /// # Errors
    /// `NotController` also if the controller cannot be reached: another one may be found later.
    pub async fn controlled_shutdown(
        &self,
    ) -> Result<Vec<TopicPartition>, ControlledShutdownError> {
        let controller = &self.options.controller;
        let (id, epoch) = (controller.broker_id(), controller.broker_epoch());
        let limit = self.request_timeout();
        let answer = match self.route() {
            Route::Local => {
                let asked = controller.controlled_shutdown(id, epoch);
                timeout(limit, asked).await.map_err(|_| PeerError::TimedOut)
            }
            Route::Remote(address) => {
                let config = self.options.config.broker();
                let versions = ControlVersions::of(&config.inter_broker_protocol_version);
                // A connection of its own, which waits for nothing else.
                let mut peer = self.connect(address.clone());
                let version = versions.controlled_shutdown;
                let asked = peer.controlled_shutdown(id, epoch, version, limit);
                self.unless_replaced(address.id, asked).await
            }
            Route::Unknown => Ok(Err(ControlledShutdownError::NotController)),
        };
        answer.unwrap_or_else(|error| {
            unreached(&error);
            Err(ControlledShutdownError::NotController)
        })
    }

    fn route(&self) -> Route {
        let controller = &self.options.controller;
        if controller.is_active() {
            return Route::Local;
        }
        let image = self.options.metadata.image();
        let Some(id) = image.controller_id else {
            return Route::Unknown;
        };
        if id == controller.broker_id() {
            return Route::Local;
        }
        let config = self.options.config.broker();
        let endpoint = image.endpoint(id, config.listeners.of_controller());
        endpoint.map_or(Route::Unknown, |endpoint| {
            Route::Remote(BrokerAddress {
                id,
                host: endpoint.host.clone(),
                port: endpoint.port,
            })
        })
    }

    /// The answer of a controller, unless another broker is controller before it comes: one that is frozen or cut off
    /// would hold up its successor's work until the request times out.
    async fn unless_replaced<T>(
        &self,
        asked: BrokerId,
        answer: impl Future<Output = Result<T, PeerError>>,
    ) -> Result<T, PeerError> {
        let mut changed = self.options.metadata.changed();
        let replaced = async {
            loop {
                let controller = self.options.metadata.image().controller_id;
                if controller.is_some_and(|id| id != asked) {
                    return;
                }
                if changed.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = replaced => Err(PeerError::TimedOut),
        }
    }

    /// The connection to the controller at `address`, for one attempt.
    async fn peer(&self, address: BrokerAddress) -> MappedMutexGuard<'_, ControllerPeer> {
        let remote = self.remote.lock().await;
        MutexGuard::map(remote, |remote| {
            if remote
                .as_ref()
                .is_some_and(|known| *known.address() != address)
            {
                *remote = None;
            }
            remote.get_or_insert_with(|| self.connect(address))
        })
    }

    fn connect(&self, address: BrokerAddress) -> ControllerPeer {
        let client_id = self.options.controller.broker_id().to_string();
        ControllerPeer::new(self.options.network.clone(), address, client_id)
    }

    fn request_timeout(&self) -> Duration {
        let timeout = self.options.config.broker().request_timeout_ms;
        Duration::from_millis(timeout.max(0) as u64)
    }
}

fn unreached(error: &PeerError) {
    tracing::info!(%error, "the controller did not answer");
}

/// Waits until the next attempt; false if there is none.
async fn may_retry(deadline: Instant) -> bool {
    let next = Instant::now() + RETRY_BACKOFF;
    if next > deadline {
        return false;
    }
    tokio::time::sleep_until(next).await;
    true
}

impl IsrChanges for Arc<ControllerLink> {
    fn alter_partition(
        &self,
        request: AlterPartition,
    ) -> BoxFuture<'_, Result<Vec<AlteredPartition>, AlterPartitionError>> {
        Box::pin(ControllerLink::alter_partition(self, request))
    }
}
