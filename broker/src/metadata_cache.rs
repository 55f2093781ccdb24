//! The current [`ClusterImage`], swapped whole: readers never wait, and nobody sees half an update.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use barnabas_core::control::UpdateMetadata;
use barnabas_core::metadata::ClusterImage;
use tokio::sync::watch;

/// Holds the cluster image of this broker; written by `UpdateMetadata` only.
pub struct MetadataCache {
    image: ArcSwap<ClusterImage>,
    /// Serializes writers.
    writer: Mutex<()>,
    /// Counts updates.
    changes: watch::Sender<u64>,
}

impl Default for MetadataCache {
    fn default() -> Self {
        Self {
            image: ArcSwap::default(),
            writer: Mutex::new(()),
            changes: watch::Sender::new(0),
        }
    }
}

impl MetadataCache {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The image of this moment.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.image.load_full()
    }

    /// Makes `update` visible and returns the image that it made. The caller has checked its epochs.
    pub fn update(&self, update: &UpdateMetadata) -> Arc<ClusterImage> {
        let next = {
            let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let next = Arc::new(self.image.load().apply(update));
            self.image.store(next.clone());
            next
        };
        self.changes.send_modify(|count| *count += 1);
        next
    }

    /// Reports every later update.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until the image satisfies `condition`, at most `timeout`. Returns whether it did.
    pub async fn wait_for(
        &self,
        timeout: Duration,
        mut condition: impl FnMut(&ClusterImage) -> bool,
    ) -> bool {
        let mut changed = self.changed();
        let satisfied = async {
            loop {
                changed.mark_unchanged();
                if condition(&self.image.load()) {
                    return true;
                }
                if changed.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(timeout, satisfied)
            .await
            .unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barnabas_core::control::ControlHeader;
    use barnabas_core::ids::BrokerId;

    #[tokio::test]
    async fn a_waiter_sees_the_update_that_it_waits_for() {
        let cache = MetadataCache::new();
        let waiting = tokio::spawn({
            let cache = cache.clone();
            async move {
                cache
                    .wait_for(Duration::from_secs(60), |image| {
                        image.controller_id.is_some()
                    })
                    .await
            }
        });
        tokio::task::yield_now().await;
        cache.update(&UpdateMetadata {
            header: ControlHeader {
                controller_id: BrokerId(1),
                controller_epoch: 1,
                broker_epoch: -1,
            },
            partitions: Arc::default(),
            live_brokers: Arc::default(),
        });
        assert!(waiting.await.unwrap());
        assert!(
            !cache
                .wait_for(Duration::ZERO, |image| image.controller_id.is_none())
                .await
        );
    }
}
