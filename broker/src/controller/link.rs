//! The way of any broker to whoever is controller: this very broker, or another one.
//!
//! Kafka: `BrokerToControllerChannelManager`. The controller is the one that the metadata names. Who turns out
//! not to be it, or cannot be reached, is asked again when the metadata may have changed.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::controller::{
    AllocateProducerIdsError, AlterPartition, AlterPartitionError, AlteredPartition,
    ControlledShutdownError,
};
use barnabas_core::ids::TopicPartition;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::ControllerHandle;
use crate::config::LiveConfig;
use crate::metadata_cache::MetadataCache;
use crate::peer::PeerNetwork;
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
}

impl ControllerLink {
    pub fn new(options: ControllerLinkOptions) -> Arc<Self> {
        Arc::new(Self { options })
    }

    /// Changes ISRs of partitions that this broker leads. Who asks, and in which registration, is filled in here.
    pub async fn alter_partition(
        &self,
        mut request: AlterPartition,
    ) -> Result<Vec<AlteredPartition>, AlterPartitionError> {
        let controller = &self.options.controller;
        let deadline = self.deadline();
        loop {
            request.broker = controller.broker_id();
            request.broker_epoch = controller.broker_epoch();
            let answer = controller.alter_partition(request.clone()).await;
            let is_final = !matches!(answer, Err(AlterPartitionError::NotController));
            if is_final || !Self::may_retry(deadline).await {
                return answer;
            }
        }
    }

    /// A block of producer ids for this broker.
    pub async fn allocate_producer_ids(
        &self,
    ) -> Result<RangeInclusive<i64>, AllocateProducerIdsError> {
        let controller = &self.options.controller;
        let deadline = self.deadline();
        loop {
            let (id, epoch) = (controller.broker_id(), controller.broker_epoch());
            let answer = controller.allocate_producer_ids(id, epoch).await;
            let is_final = !matches!(answer, Err(AllocateProducerIdsError::NotController));
            if is_final || !Self::may_retry(deadline).await {
                return answer;
            }
        }
    }

    /// Asks once that all leaderships of this broker go elsewhere; gives back those that it keeps.
    pub async fn controlled_shutdown(
        &self,
    ) -> Result<Vec<TopicPartition>, ControlledShutdownError> {
        let controller = &self.options.controller;
        let (id, epoch) = (controller.broker_id(), controller.broker_epoch());
        controller.controlled_shutdown(id, epoch).await
    }

    fn deadline(&self) -> Instant {
        let timeout = self.options.config.broker().request_timeout_ms;
        Instant::now() + Duration::from_millis(timeout.max(0) as u64)
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
}

impl IsrChanges for Arc<ControllerLink> {
    fn alter_partition(
        &self,
        request: AlterPartition,
    ) -> BoxFuture<'_, Result<Vec<AlteredPartition>, AlterPartitionError>> {
        Box::pin(ControllerLink::alter_partition(self, request))
    }
}
