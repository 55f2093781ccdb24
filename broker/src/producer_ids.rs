//! Producer ids for idempotent producers, handed out from blocks that the controller allocates (KIP-730; Kafka's
//! `RPCProducerIdManager`).

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use barnabas_core::controller::AllocateProducerIdsError;

use crate::controller::ControllerLink;
use crate::host;

/// How long a producer waits for a controller before it is told to try again.
const PATIENCE: Duration = Duration::from_secs(5);
/// The share of a block that is left when the next one is asked for: a tenth.
const PREFETCH_DIVISOR: i64 = 10;
/// How long nothing is asked for ahead of time after that has failed.
const PREFETCH_BACKOFF: Duration = Duration::from_millis(50);

/// Why there is no producer id now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerIdError {
    /// The producer tries again.
    #[error("no block of producer ids could be had: {0}")]
    NotAvailable(AllocateProducerIdsError),
}

/// Gives every producer an id of its own; ids of a block that is not used up are lost with the process.
pub struct ProducerIdManager {
    this: Weak<Self>,
    link: Arc<ControllerLink>,
    blocks: Mutex<Blocks>,
    /// Held while a block is asked for, so that only one is.
    asking: tokio::sync::Mutex<()>,
}

/// The ids that are left.
#[derive(Debug, Default)]
struct Blocks {
    current: Option<RangeInclusive<i64>>,
    /// When so many are left of the current block, the next one is asked for.
    low_water: i64,
    next: Option<RangeInclusive<i64>>,
    is_prefetching: bool,
}

impl Blocks {
    /// The next id, and whether it is time to ask for another block.
    fn take(&mut self) -> (Option<i64>, bool) {
        let id = self.take_from_current().or_else(|| {
            let next = self.next.take()?;
            self.begin(next);
            self.take_from_current()
        });
        let left = self
            .current
            .as_ref()
            .map_or(0, |block| (block.end() - block.start() + 1).max(0));
        let is_low = left <= self.low_water && self.next.is_none() && !self.is_prefetching;
        (id, id.is_some() && is_low)
    }

    fn take_from_current(&mut self) -> Option<i64> {
        self.current.as_mut()?.next()
    }

    fn begin(&mut self, block: RangeInclusive<i64>) {
        let size = block.end() - block.start() + 1;
        self.low_water = size / PREFETCH_DIVISOR;
        self.current = Some(block);
    }

    /// Takes in a block that was allocated.
    fn add(&mut self, block: RangeInclusive<i64>) {
        let is_used_up = self.current.as_ref().is_none_or(RangeInclusive::is_empty);
        if is_used_up && self.next.is_none() {
            self.begin(block);
        } else {
            self.next = Some(block);
        }
    }
}

impl ProducerIdManager {
    pub fn new(link: Arc<ControllerLink>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            link,
            blocks: Mutex::default(),
            asking: tokio::sync::Mutex::new(()),
        })
    }

    /// An id that nobody got before.
    pub async fn next(&self) -> Result<i64, ProducerIdError> {
        if let Some(id) = self.take() {
            return Ok(id);
        }
        loop {
            let _asking = self.asking.lock().await;
            if let Some(id) = self.take() {
                return Ok(id);
            }
            let block = self.allocate().await?;
            self.blocks().add(block);
        }
    }

    /// An id of the blocks that are here. The next block is on its way before they are used up.
    fn take(&self) -> Option<i64> {
        let mut blocks = self.blocks();
        let (id, is_low) = blocks.take();
        if is_low && let Some(this) = self.this.upgrade() {
            blocks.is_prefetching = true;
            drop(blocks);
            host::spawn(this.prefetch());
        }
        id
    }

    async fn prefetch(self: Arc<Self>) {
        let allocated = {
            let _asking = self.asking.lock().await;
            let allocated = if self.blocks().next.is_some() {
                None
            } else {
                Some(self.allocate().await)
            };
            if let Some(Ok(block)) = &allocated {
                self.blocks().add(block.clone());
            }
            allocated
        };
        if let Some(Err(error)) = allocated {
            tracing::debug!(%error, "no block of producer ids ahead of time");
            tokio::time::sleep(PREFETCH_BACKOFF).await;
        }
        self.blocks().is_prefetching = false;
    }

    async fn allocate(&self) -> Result<RangeInclusive<i64>, ProducerIdError> {
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
        Ok(block)
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_block_is_asked_for_when_a_tenth_is_left() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.take(), (None, false));
        blocks.add(1000..=1999);
        for id in 1000..1899 {
            assert_eq!(blocks.take(), (Some(id), false));
        }
        assert_eq!(blocks.take(), (Some(1899), true));
        blocks.is_prefetching = true;
        assert_eq!(blocks.take(), (Some(1900), false));
        blocks.add(5000..=5999);
        blocks.is_prefetching = false;
        for id in 1901..2000 {
            assert_eq!(blocks.take(), (Some(id), false));
        }
        assert_eq!(blocks.take(), (Some(5000), false));
    }

    #[test]
    fn who_gets_no_block_ahead_of_time_asks_when_none_is_left() {
        let mut blocks = Blocks::default();
        blocks.add(0..=9);
        for id in 0..8 {
            assert_eq!(blocks.take(), (Some(id), false));
        }
        assert_eq!(blocks.take(), (Some(8), true));
        // It is asked for again with each id that is left.
        assert_eq!(blocks.take(), (Some(9), true));
        assert_eq!(blocks.take(), (None, false));
        blocks.add(10..=19);
        assert_eq!(blocks.take(), (Some(10), false));
    }
}
