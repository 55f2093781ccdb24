//! The shells of the coordinators: internal topics that this broker leads, kept in memory and written to.
//!
//! | module | what it owns |
//! |---|---|
//! | [`groups`] | consumer groups and their offsets, in `__consumer_offsets` |
//! | [`transactions`] | transactional ids, in `__transaction_state` |
//! | [`markers`] | the ends of transactions, in the partitions of this broker |
//! | [`verification`] | questions to the coordinators of transactions |
//! | [`appending`] | writing a coordinator's records and waiting until they are safe |
//! | [`shards`] | the partitions that this broker leads; loading them |
//! | [`reading`] | walking over the log of an internal topic |

pub mod appending;
pub mod groups;
pub mod markers;
pub mod reading;
pub mod shards;
pub mod transactions;
pub mod verification;

use std::sync::{Arc, Weak};

use barnabas_core::ids::{LeaderEpoch, TopicPartition};

use crate::replica::{Partition, RoleListener};

pub use groups::GroupCoordinator;
pub use transactions::TransactionCoordinator;
pub use verification::{TransactionVerifier, TransactionVerifierOptions};

/// Where committed offsets and groups are kept.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Where transactions are kept.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// All coordinators of this broker, as the replica manager knows them.
pub struct Coordinators {
    pub groups: Arc<GroupCoordinator>,
    /// It writes markers to partitions of the replica manager that knows it.
    pub transactions: Weak<TransactionCoordinator>,
}

impl RoleListener for Coordinators {
    fn elected(&self, partition: &Arc<Partition>, leader_epoch: LeaderEpoch) {
        if &*partition.topic_partition.topic == OFFSETS_TOPIC {
            self.groups.elected(partition, leader_epoch);
        } else if &*partition.topic_partition.topic == TRANSACTIONS_TOPIC
            && let Some(transactions) = self.transactions.upgrade()
        {
            transactions.elected(partition, leader_epoch);
        }
    }

    fn resigned(&self, partition: &TopicPartition, leader_epoch: Option<LeaderEpoch>) {
        if &*partition.topic == OFFSETS_TOPIC {
            self.groups.resigned(partition.partition, leader_epoch);
        } else if &*partition.topic == TRANSACTIONS_TOPIC
            && let Some(transactions) = self.transactions.upgrade()
        {
            transactions.resigned(partition.partition, leader_epoch);
        }
    }

    fn deleted(&self, partitions: &[TopicPartition]) {
        self.groups.partitions_deleted(partitions);
    }
}
