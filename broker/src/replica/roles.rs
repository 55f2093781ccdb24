//! Who hears which partitions of internal topics this broker leads.

use std::sync::Arc;

use barnabas_core::ids::{LeaderEpoch, TopicPartition};

use super::Partition;

/// Told of changes by the replica manager, in the order of the controller's requests; must not wait.
pub trait RoleListener: Send + Sync {
    /// This broker leads the partition of an internal topic from now on, and did not before.
    fn elected(&self, partition: &Arc<Partition>, leader_epoch: LeaderEpoch);

    /// This broker does not lead the partition of an internal topic any more; without an epoch it is deleted.
    fn resigned(&self, partition: &TopicPartition, leader_epoch: Option<LeaderEpoch>);

    /// Partitions of any topic are gone from the cluster.
    fn deleted(&self, partitions: &[TopicPartition]);
}
