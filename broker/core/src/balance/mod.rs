//! Where replicas go: rules over plain sets of brokers.
//!
//! | module | what it owns |
//! |---|---|
//! | [`placement`] | replicas of new topics and new partitions |

pub mod placement;
