//! Where replicas go: rules over plain sets of brokers.
//!
//! Whoever asks makes a [`Snapshot`] of the cluster. [`plan`] answers which partitions get which replicas, by
//! passes in the order of their urgency: what is lost is re-homed, what drains leaves, racks are repaired, new
//! brokers fill up, and only then is anything moved for the sake of balance. The same snapshot gives the same
//! plan, whatever the order of its parts, and a plan that was carried out leaves nothing to be planned.
//!
//! | module | what it owns |
//! |---|---|
//! | [`placement`] | replicas of new topics and new partitions, as Kafka places them |
//! | [`snapshot`] | what is asked, what is answered |
//! | [`planner`] | the passes and their order |
//! | [`new_topics`] | which of Kafka's placements suits the load that is there |
//! | [`factor`] | more or fewer replicas of a topic |
//! | [`score`] | one number for people |
//!
//! Inside, `model` holds brokers and partitions in dense arrays with all sums kept up to date, `repair` and `spread`
//! are the passes that have a reason, `soft` the one that only evens out.

pub mod factor;
mod model;
pub mod new_topics;
pub mod placement;
pub mod planner;
mod repair;
pub mod score;
pub mod snapshot;
mod soft;
mod spread;
#[cfg(test)]
mod tests;

pub use factor::{FactorError, change_replication_factor};
pub use new_topics::Placer;
pub use planner::{elections, leader_imbalance, plan};
pub use score::score;
pub use snapshot::{
    Broker, BrokerRole, Disk, Limits, Move, Partition, Pass, Plan, RackSpread, Rates, Reason,
    Settings, Snapshot, Stuck, StuckCause,
};
