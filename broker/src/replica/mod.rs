//! The partitions that this broker hosts: what the controller wants of them, who writes and reads
//! them, and who waits.
//!
//! | module | what it owns |
//! |---|---|
//! | [`manager`] | the hosted partitions; obeys the controller |
//! | [`partition`] | one partition: its log, its state, its readers and writers |
//! | [`fetchers`], `fetcher` | copy partitions that others lead |
//! | `isr_changer` | carries ISR changes to the controller |
//! | [`throttle`] | quotas of replication |
//! | [`isr_changes`] | asks the controller for other ISRs |
//! | [`hosted`] | the map of partitions, swapped whole |
//! | [`roles`] | who hears of the leaders of internal topics |
//! | [`topic_configs`] | the settings of topics |
//! | [`waiters`] | who waits for a partition to move |
//! | [`fetch_session`], [`fetch_session_cache`] | what consumers fetch incrementally (KIP-227) |

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod fences_tests;
pub mod fetch_session;
pub mod fetch_session_cache;
mod fetcher;
pub mod fetchers;
pub mod hosted;
mod isr_changer;
pub mod isr_changes;
pub mod manager;
pub mod partition;
pub mod roles;
pub mod throttle;
pub mod topic_configs;
pub mod waiters;

pub use barnabas_core::partition::PartitionError;
pub use isr_changes::IsrChanges;
pub use manager::{ReplicaManager, ReplicaManagerOptions};
pub use partition::Partition;
pub use roles::RoleListener;
pub use topic_configs::{TopicConfigs, ZooKeeperTopicConfigs};
