//! The current [`ClusterImage`], swapped whole: readers never wait, and nobody sees half an update.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use barnabas_core::control::UpdateMetadata;
use barnabas_core::metadata::ClusterImage;
use tokio::sync::watch;
use tokio::time::Instant;

/// Holds the cluster image of this broker; written by `UpdateMetadata` only.
pub struct MetadataCache {
    image: ArcSwap<ClusterImage>,
    /// Serializes writers.
    writer: Mutex<()>,
    /// Counts updates.
    changes: watch::Sender<u64>,
    is_settled: AtomicBool,
    /// Some update has named a partition, if only as deleted.
    has_heard_of_topics: AtomicBool,
    expected: OnceLock<Expected>,
}

/// How long after a start a broker that hosts partitions does not say that there are no topics. It hears of them within
/// milliseconds, but all brokers of a busy machine that start at once may take some seconds.
const NO_TOPICS_IS_NO_ANSWER: Duration = Duration::from_secs(30);

/// What a broker that has just started waits for.
struct Expected {
    since: Instant,
    until: Instant,
    /// It hosts partitions, so there are topics to hear of.
    has_topics: bool,
}

impl Default for MetadataCache {
    fn default() -> Self {
        Self {
            image: ArcSwap::default(),
            writer: Mutex::new(()),
            changes: watch::Sender::new(0),
            is_settled: AtomicBool::new(true),
            has_heard_of_topics: AtomicBool::new(false),
            expected: OnceLock::new(),
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
        if !update.partitions.is_empty() {
            self.has_heard_of_topics.store(true, Ordering::Release);
        }
        self.changes.send_modify(|count| *count += 1);
        next
    }

    /// Says that the controller is about to tell of the cluster, so that [`settled`](Self::settled) waits for
    /// that, for `patience` from now at most. `has_topics` says whether there are topics to hear of.
    pub fn expect_update(&self, patience: Duration, has_topics: bool) {
        let since = Instant::now();
        let expected = Expected {
            since,
            until: since + patience,
            has_topics,
        };
        let is_first = self.expected.set(expected).is_ok();
        self.is_settled.store(!is_first, Ordering::Release);
    }

    /// Whether [`settled`](Self::settled) would return at once.
    pub fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Acquire)
    }

    /// Waits until the controller has told of the cluster, if that is expected.
    pub async fn settled(&self) {
        if self.is_settled() {
            return;
        }
        if let Some(expected) = self.expected.get() {
            // The first update after a start names the brokers only, in Kafka as well.
            let is_told = |image: &ClusterImage| {
                !image.brokers.is_empty() && (!expected.has_topics || !image.topics.is_empty())
            };
            let patience = expected.until.saturating_duration_since(Instant::now());
            self.wait_for(patience, is_told).await;
        }
        self.is_settled.store(true, Ordering::Release);
    }

    /// Whether nothing can be said of topics: this broker has started a short while ago, hosts partitions, and was not
    /// told of any, not even that one is deleted. A client that hears of no topics takes its own for deleted.
    pub fn is_ignorant(&self) -> bool {
        self.expected.get().is_some_and(|expected| {
            expected.has_topics
                && expected.since.elapsed() < NO_TOPICS_IS_NO_ANSWER
                && !self.has_heard_of_topics.load(Ordering::Acquire)
        })
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
    use barnabas_core::control::{
        ControlHeader, LEADER_DURING_DELETE, Leadership, LiveBroker, PartitionMetadata,
    };
    use barnabas_core::ids::{BrokerId, TopicPartition};

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

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_the_first_word_of_the_controller_but_not_for_ever() {
        let cache = MetadataCache::new();
        assert!(cache.is_settled(), "nothing is expected");
        cache.expect_update(Duration::from_secs(2), true);
        let update_with = |cache: &MetadataCache, partitions: Vec<PartitionMetadata>| {
            cache.update(&UpdateMetadata {
                header: ControlHeader {
                    controller_id: BrokerId(1),
                    controller_epoch: 1,
                    broker_epoch: -1,
                },
                partitions: Arc::from(partitions),
                live_brokers: Arc::from([LiveBroker {
                    id: BrokerId(1),
                    endpoints: vec![],
                    rack: None,
                }]),
            });
        };
        let update = |cache: &MetadataCache| update_with(cache, Vec::new());
        update(&cache);
        let one_second = tokio::time::timeout(Duration::from_secs(1), cache.settled()).await;
        assert!(one_second.is_err(), "brokers are known, topics are not");
        cache.settled().await;
        assert!(cache.is_settled());
        assert!(cache.is_ignorant(), "that there are topics is certain");
        tokio::time::sleep(NO_TOPICS_IS_NO_ANSWER).await;
        assert!(!cache.is_ignorant(), "they may have been deleted");

        let without_topics = MetadataCache::new();
        without_topics.expect_update(Duration::from_secs(2), false);
        assert!(!without_topics.is_settled());
        update(&without_topics);
        let at_once = tokio::time::timeout(Duration::ZERO, without_topics.settled()).await;
        assert!(at_once.is_ok() && without_topics.is_settled());
        assert!(!without_topics.is_ignorant());

        let all_deleted = MetadataCache::new();
        all_deleted.expect_update(Duration::from_secs(2), true);
        assert!(all_deleted.is_ignorant());
        let deleted = PartitionMetadata {
            topic_partition: TopicPartition::new("gone", 0),
            topic_id: None,
            leadership: Leadership {
                controller_epoch: 1,
                leader: LEADER_DURING_DELETE,
                leader_epoch: 0,
                isr: Vec::new(),
                partition_epoch: 0,
                is_recovering: false,
            },
            replicas: vec![BrokerId(1)],
            offline_replicas: Vec::new(),
        };
        update_with(&all_deleted, vec![deleted]);
        assert!(!all_deleted.is_ignorant(), "there are none any more");
    }
}
