//! The control requests that one state change gives rise to, gathered per broker (Kafka's
//! `AbstractControllerBrokerRequestBatch`).
//!
//! They are sent in one order: first who leads, then what the cluster looks like, then what stops.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cluster::{Cluster, Partition};
use super::effect::Effect;
use super::event::Settings;
use crate::control::{
    ControlHeader, ControlRequest, EPOCH_DURING_DELETE, LEADER_DURING_DELETE, LeaderAndIsr,
    LeaderAndIsrPartition, Leadership, PartitionMetadata, StopReplica, StopReplicaPartition,
    UpdateMetadata,
};
use crate::ids::{BrokerId, TopicPartition};

/// Whether a replica is told that it has not existed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Novelty {
    New,
    Existing,
}

/// Whether a stopped replica is also deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    KeepLog,
    DeleteLog,
}

/// What is to be sent; taken by [`RequestBatch::flush`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestBatch {
    leader_and_isr: BTreeMap<BrokerId, BTreeMap<TopicPartition, LeaderAndIsrPartition>>,
    metadata_receivers: BTreeSet<BrokerId>,
    /// What is said of these is seen when it is sent.
    metadata: BTreeSet<TopicPartition>,
    stop_replica: BTreeMap<BrokerId, BTreeMap<TopicPartition, StopReplicaPartition>>,
}

impl RequestBatch {
    /// Forgets what was not sent.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Tells `receivers` who leads a partition, and everybody that it changed.
    pub(super) fn lead_or_follow(
        &mut self,
        cluster: &Cluster,
        receivers: impl IntoIterator<Item = BrokerId>,
        partition: &TopicPartition,
        leadership: &Leadership,
        novelty: Novelty,
    ) {
        let Some(known) = cluster.partition(partition) else {
            return;
        };
        for receiver in receivers {
            let to_receiver = self.leader_and_isr.entry(receiver).or_default();
            let earlier = to_receiver.get(partition);
            // Once new within a batch, always new.
            let is_new = novelty == Novelty::New || earlier.is_some_and(|earlier| earlier.is_new);
            let request = LeaderAndIsrPartition {
                topic_partition: partition.clone(),
                topic_id: cluster.topic_id(&partition.topic),
                leadership: leadership.clone(),
                replicas: known.assignment.replicas.clone(),
                adding_replicas: known.assignment.adding_replicas.clone(),
                removing_replicas: known.assignment.removing_replicas.clone(),
                is_new,
            };
            to_receiver.insert(partition.clone(), request);
        }
        self.update_metadata(cluster, cluster.registered_ids(), [partition]);
    }

    /// Tells `receivers` about brokers and these partitions.
    pub(super) fn update_metadata<'a>(
        &mut self,
        cluster: &Cluster,
        receivers: impl IntoIterator<Item = BrokerId>,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) {
        self.metadata_receivers.extend(receivers);
        for of in partitions {
            let is_led = |known: &Partition| known.leadership.is_some();
            if cluster.partition(of).is_some_and(is_led) && !self.metadata.contains(of) {
                self.metadata.insert(of.clone());
            }
        }
    }

    /// Tells a broker to stop its replica of a partition.
    pub(super) fn stop_replica(
        &mut self,
        cluster: &Cluster,
        receiver: BrokerId,
        partition: &TopicPartition,
        stop: Stop,
    ) {
        let leader_epoch = if cluster.is_queued_for_deletion(&partition.topic) {
            EPOCH_DURING_DELETE
        } else {
            let leadership = cluster.leadership(partition);
            leadership.map_or(-1, |leadership| leadership.leader_epoch)
        };
        let to_receiver = self.stop_replica.entry(receiver).or_default();
        let earlier = to_receiver.get(partition);
        // Once to be deleted within a batch, always.
        let delete = stop == Stop::DeleteLog || earlier.is_some_and(|earlier| earlier.delete);
        let request = StopReplicaPartition {
            topic_partition: partition.clone(),
            leader_epoch,
            delete,
        };
        to_receiver.insert(partition.clone(), request);
    }

    /// The requests to brokers that are still registered; nothing is left to send.
    pub(super) fn flush(&mut self, cluster: &Cluster, settings: &Settings) -> Vec<Effect> {
        let batch = std::mem::take(self);
        let header_for = |receiver: BrokerId| {
            let known = cluster.brokers.get(&receiver)?;
            Some(ControlHeader {
                controller_id: settings.broker_id,
                controller_epoch: cluster.epoch,
                broker_epoch: known.epoch,
            })
        };
        let mut effects = Vec::new();
        for (receiver, partitions) in batch.leader_and_isr {
            let Some(header) = header_for(receiver) else {
                continue;
            };
            let leaders = partitions.values().map(|of| of.leadership.leader);
            let leaders: BTreeSet<i32> = leaders.collect();
            let live_leaders = leaders
                .into_iter()
                .filter_map(|id| cluster.address(BrokerId(id), &settings.inter_broker_listener));
            let request = LeaderAndIsr {
                header,
                live_leaders: live_leaders.collect(),
                partitions: partitions.into_values().collect(),
            };
            effects.push(Effect::Send {
                to: receiver,
                request: ControlRequest::LeaderAndIsr(request),
            });
        }
        let partitions = batch.metadata.into_iter();
        let partitions: Arc<[_]> = partitions
            .filter_map(|of| partition_metadata(cluster, of))
            .collect();
        let live_brokers: Arc<[_]> = cluster.live_brokers().into();
        for receiver in batch.metadata_receivers {
            let Some(header) = header_for(receiver) else {
                continue;
            };
            let request = UpdateMetadata {
                header,
                partitions: partitions.clone(),
                live_brokers: live_brokers.clone(),
            };
            effects.push(Effect::Send {
                to: receiver,
                request: ControlRequest::UpdateMetadata(request),
            });
        }
        for (receiver, partitions) in batch.stop_replica {
            let Some(header) = header_for(receiver) else {
                continue;
            };
            let request = StopReplica {
                header,
                partitions: partitions.into_values().collect(),
            };
            effects.push(Effect::Send {
                to: receiver,
                request: ControlRequest::StopReplica(request),
            });
        }
        effects
    }
}

/// What everybody may know of a partition; `None` if it has no leader and ISR.
fn partition_metadata(cluster: &Cluster, of: TopicPartition) -> Option<PartitionMetadata> {
    let partition = cluster.partition(&of)?;
    let leadership = partition.leadership.clone()?;
    let leadership = if cluster.is_queued_for_deletion(&of.topic) {
        Leadership {
            leader: LEADER_DURING_DELETE,
            leader_epoch: 0,
            partition_epoch: 0,
            is_recovering: false,
            ..leadership
        }
    } else {
        leadership
    };
    let replicas = &partition.assignment.replicas;
    let offline = replicas.iter().filter(|id| !cluster.is_online(**id, &of));
    Some(PartitionMetadata {
        topic_id: cluster.topic_id(&of.topic),
        leadership,
        replicas: replicas.clone(),
        offline_replicas: offline.copied().collect(),
        topic_partition: of,
    })
}
