//! Carries ISR changes of partitions that this broker leads to the controller: one request at a time, with
//! everything that waits (Kafka: `DefaultAlterPartitionManager`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use barnabas_core::controller::{
    AlterPartition, AlterPartitionError, AlteredPartition, IsrRefusal,
};
use barnabas_core::ids::{BrokerId, TopicPartition};
use barnabas_core::partition::IsrChangeOutcome;
use barnabas_core::partition::isr::IsrState;
use tokio::sync::Notify;

use super::isr_changes::IsrChanges;
use super::partition::{Partition, PendingIsrChange};
use crate::clock;
use crate::metrics::Metrics;

/// Pause after a request that failed. Kafka: `AlterPartitionManager`'s retry backoff.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);
/// Versions of `AlterPartition` that name topics by id and by name.
const BY_ID: i16 = 3;
const BY_NAME: i16 = 1;

/// Partitions whose leader has proposed another ISR, each once.
#[derive(Default)]
pub(super) struct IsrQueue {
    waiting: Mutex<BTreeMap<TopicPartition, Arc<Partition>>>,
    added: Notify,
}

impl IsrQueue {
    pub(super) fn add(&self, partition: Arc<Partition>) {
        self.lock()
            .insert(partition.topic_partition.clone(), partition);
        self.added.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<TopicPartition, Arc<Partition>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that empties the queue.
pub(super) struct IsrChanger {
    pub(super) broker_id: BrokerId,
    pub(super) broker_epoch: Arc<AtomicI64>,
    pub(super) queue: Arc<IsrQueue>,
    pub(super) changes: Arc<dyn IsrChanges>,
    pub(super) metrics: Arc<Metrics>,
}

impl IsrChanger {
    /// Runs until the task is aborted.
    pub(super) async fn run(self) {
        loop {
            // The queue's lock must be free again: who adds to it holds the lock of a partition.
            let waiting = std::mem::take(&mut *self.queue.lock());
            let waiting: Vec<_> = waiting
                .into_values()
                .filter_map(|partition| {
                    let change = partition.pending_isr_change()?;
                    Some((partition, change))
                })
                .collect();
            if waiting.is_empty() {
                self.queue.added.notified().await;
            } else if self.submit(&waiting).await {
                tokio::time::sleep(RETRY_BACKOFF).await;
            }
        }
    }

    /// Sends one request; returns whether something of it has to be sent again.
    async fn submit(&self, waiting: &[(Arc<Partition>, PendingIsrChange)]) -> bool {
        let by_id = waiting.iter().all(|(_, change)| change.has_topic_id());
        let request = AlterPartition {
            broker: self.broker_id,
            broker_epoch: self.broker_epoch.load(Ordering::SeqCst),
            version: if by_id { BY_ID } else { BY_NAME },
            partitions: waiting
                .iter()
                .map(|(partition, change)| change.proposal(&partition.topic_partition, by_id))
                .collect(),
        };
        let answer = self.changes.alter_partition(request.clone()).await;
        match answer {
            Ok(answered) => {
                let mut is_left = false;
                for ((partition, change), proposal) in waiting.iter().zip(&request.partitions) {
                    let own = answered
                        .iter()
                        .find(|answered| answered.partition == proposal.partition);
                    is_left |= self.take(partition, change, own);
                }
                is_left
            }
            Err(
                error @ (AlterPartitionError::NotController
                | AlterPartitionError::StaleBrokerEpoch
                | AlterPartitionError::Failed),
            ) => {
                tracing::debug!(%error, "ISRs were not changed yet");
                for (partition, _) in waiting {
                    self.queue.add(Arc::clone(partition));
                }
                true
            }
        }
    }

    /// Takes the answer for one partition; returns whether it has to be asked again.
    fn take(
        &self,
        partition: &Arc<Partition>,
        change: &PendingIsrChange,
        answer: Option<&AlteredPartition>,
    ) -> bool {
        let refused = |error: IsrRefusal| {
            self.metrics.failed_isr_updates.increment();
            tracing::info!(
                partition = %partition.topic_partition, proposed = ?change.isr, %error,
                "the controller did not change the ISR"
            );
        };
        let outcome = match answer.map(|answer| &answer.result) {
            Some(Ok(leadership)) => {
                tracing::info!(
                    partition = %partition.topic_partition, isr = ?leadership.isr,
                    partition_epoch = leadership.partition_epoch, "the ISR has changed"
                );
                match change.isr {
                    IsrState::PendingExpand { .. } => self.metrics.isr_expands.increment(),
                    IsrState::PendingShrink { .. } => self.metrics.isr_shrinks.increment(),
                    IsrState::Committed { .. } => {}
                }
                IsrChangeOutcome::Written {
                    leader_epoch: leadership.leader_epoch,
                    partition_epoch: leadership.partition_epoch,
                    isr: leadership.isr.clone(),
                }
            }
            Some(Err(error)) => match error {
                IsrRefusal::IneligibleReplica | IsrRefusal::OperationNotAttempted => {
                    refused(*error);
                    IsrChangeOutcome::Refused
                }
                IsrRefusal::UnknownTopicId
                | IsrRefusal::UnknownTopicOrPartition
                | IsrRefusal::FencedLeaderEpoch
                | IsrRefusal::InvalidUpdateVersion
                | IsrRefusal::InvalidRequest => {
                    refused(*error);
                    IsrChangeOutcome::Outdated
                }
                IsrRefusal::NotController | IsrRefusal::Failed => {
                    self.queue.add(Arc::clone(partition));
                    return true;
                }
            },
            None => {
                self.queue.add(Arc::clone(partition));
                return true;
            }
        };
        partition.isr_change_answered(change, outcome, clock::now());
        false
    }
}
