//! Changes of the ISR that this broker proposes as the leader of a partition.

use std::sync::Arc;

use barnabas_core::controller::{IsrProposal, ProposedPartition};
use barnabas_core::ids::{BrokerId, LeaderEpoch, PartitionEpoch, TopicId, TopicPartition};
use barnabas_core::partition::IsrChangeOutcome;
use barnabas_core::partition::isr::IsrState;
use barnabas_core::time::Now;

use super::Partition;

/// A change that was proposed, as it stood when it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingIsrChange {
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
    pub isr: IsrState,
    topic_id: Option<TopicId>,
}

impl PendingIsrChange {
    pub fn has_topic_id(&self) -> bool {
        self.topic_id.is_some()
    }

    /// What the controller is asked for.
    pub fn proposal(&self, topic_partition: &TopicPartition, by_id: bool) -> IsrProposal {
        let partition = match self.topic_id {
            Some(topic_id) if by_id => ProposedPartition::ById {
                topic_id,
                partition: topic_partition.partition,
            },
            Some(_) | None => ProposedPartition::ByName(topic_partition.clone()),
        };
        IsrProposal {
            partition,
            leader_epoch: self.leader_epoch,
            isr: self.isr.proposed().unwrap_or_default(),
            is_recovering: false,
            partition_epoch: self.partition_epoch,
        }
    }
}

impl Partition {
    /// The change of the ISR that is proposed now; `None` if there is none (any more).
    pub fn pending_isr_change(&self) -> Option<PendingIsrChange> {
        let topic_id = self.log().ok()?.topic_id();
        let state = self.lock();
        let leader = state.as_leader().ok()?;
        leader.isr.is_in_flight().then(|| PendingIsrChange {
            leader_epoch: state.leader_epoch(),
            partition_epoch: state.partition_epoch(),
            isr: leader.isr.clone(),
            topic_id,
        })
    }

    /// Takes the controller's answer to a change. It does not count if the controller has named a leader and
    /// ISR since.
    pub fn isr_change_answered(
        &self,
        change: &PendingIsrChange,
        outcome: IsrChangeOutcome,
        now: Now,
    ) {
        let Ok(log) = self.log() else { return };
        let mut state = self.lock();
        let is_current = state.leader_epoch() == change.leader_epoch
            && state
                .as_leader()
                .is_ok_and(|leader| leader.isr == change.isr);
        if !is_current {
            return;
        }
        let end = log.log_end_offset();
        let moved = self.with_surroundings(|surroundings| {
            state.isr_change_answered(outcome, end, surroundings, now)
        });
        let high_watermark = state.high_watermark();
        if moved {
            self.publish_high_watermark(high_watermark, &log);
        }
        drop(state);
        if moved {
            self.waiters.committed(high_watermark, usize::MAX);
        }
    }

    /// Proposes to drop the members of the ISR that fell behind, if there are any.
    pub fn shrink_isr(self: &Arc<Self>, now: Now) {
        let Ok(log) = self.log() else { return };
        let mut state = self.lock();
        if state.replicas().len() < 2 {
            return;
        }
        let lag_max = self.neighbourhood.replica_lag_max;
        if state.shrink_isr(log.log_end_offset(), lag_max, now) {
            if let Ok(leader) = state.as_leader() {
                tracing::info!(
                    partition = %self.topic_partition, isr = ?leader.isr,
                    high_watermark = state.high_watermark(), log_end_offset = log.log_end_offset(),
                    "followers fell behind"
                );
            }
            drop(state);
            self.neighbourhood.isr_queue.add(Arc::clone(self));
        }
    }

    /// The members of the ISR that the controller has agreed to; `None` if this broker does not lead.
    pub fn in_sync_replicas(&self) -> Option<Vec<BrokerId>> {
        let state = self.lock();
        let leader = state.as_leader().ok()?;
        Some(leader.isr.committed().to_vec())
    }
}
