//! Producer ids for idempotent producers, handed out from blocks that the controller allocates (KIP-730).

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use barnabas_core::controller::AllocateProducerIdsError;

use crate::controller::ControllerLink;

/// How long a producer waits for a controller before it is told to try again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no producer id now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerIdError {
    /// The producer tries again.
    #[error("no block of producer ids could be had: {0}")]
    NotAvailable(AllocateProducerIdsError),
}

/// Gives every producer an id of its own; ids of a block that is not used up are lost with the process.
pub struct ProducerIdManager {
    link: Arc<ControllerLink>,
    block: Mutex<Option<RangeInclusive<i64>>>,
    /// Held while a block is asked for, so that only one is.
    asking: tokio::sync::Mutex<()>,
}

impl ProducerIdManager {
    pub fn new(link: Arc<ControllerLink>) -> Arc<Self> {
        Arc::new(Self {
            link,
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
        let asked = self.link.allocate_producer_ids();
        let not_in_time = |_| Err(AllocateProducerIdsError::NotController);
        let block = tokio::time::timeout(PATIENCE, asked).await;
        let block = block.unwrap_or_else(not_in_time);
        let block = block.map_err(ProducerIdError::NotAvailable)?;
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
