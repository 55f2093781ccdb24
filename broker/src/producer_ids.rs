//! Producer ids for idempotent producers, handed out from blocks that the controller allocates (KIP-730).

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use barnabas_core::controller::AllocateProducerIdsError;

use crate::controller::ControllerHandle;

/// Why there is no producer id now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerIdError {
    /// The producer tries again.
    #[error("no block of producer ids could be had: {0}")]
    NotAvailable(AllocateProducerIdsError),
}

/// Gives every producer an id of its own; ids of a block that is not used up are lost with the process.
pub struct ProducerIdManager {
    controller: Arc<ControllerHandle>,
    block: Mutex<Option<RangeInclusive<i64>>>,
    /// Held while a block is asked for, so that only one is.
    asking: tokio::sync::Mutex<()>,
}

impl ProducerIdManager {
    pub fn new(controller: Arc<ControllerHandle>) -> Arc<Self> {
        Arc::new(Self {
            controller,
            block: Mutex::new(None),
            asking: tokio::sync::Mutex::new(()),
        })
    }

    /// An id that nobody got before.
    pub async fn next(&self) -> Result<i64, ProducerIdError> {
        if let Some(id) = self.take_from_block() {
            return Ok(id);
        }
        let _asking = self.asking.lock().await;
        if let Some(id) = self.take_from_block() {
            return Ok(id);
        }
        let broker = self.controller.broker_id();
        let broker_epoch = self.controller.broker_epoch();
        let block = self
            .controller
            .allocate_producer_ids(broker, broker_epoch)
            .await
            .map_err(ProducerIdError::NotAvailable)?;
        tracing::debug!(
            first = block.start(),
            last = block.end(),
            "a block of producer ids"
        );
        let first = *block.start();
        let rest = first + 1..=*block.end();
        *self.block.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        Ok(first)
    }

    fn take_from_block(&self) -> Option<i64> {
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        block.as_mut()?.next()
    }
}
