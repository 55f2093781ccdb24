//! The core decides, the shell acts: rules and state machines of the broker as plain, synchronous code.
//!
//! Nothing here awaits, reads a clock, draws a random number, or touches a file or a socket. Time and
//! randomness are arguments. Wire structs, API versions and wire error codes do not exist here.
//!
//! | module | what it owns |
//! |---|---|
//! | [`ids`] | names and numbers of brokers, topics, partitions, producers |
//! | [`time`] | the time, as an argument |
//! | [`records`] | batches and records: format, validation, compression |
//! | [`balance`] | where replicas go |
//! | [`compaction`] | what the log cleaner keeps, and which log it cleans next |
//! | [`config`] | settings of brokers and topics |
//! | [`control`] | what a controller tells a broker |
//! | [`controller`] | who leads which partition, and who is told |
//! | [`liveness`] | whether a broker that seems to be dead is dead |
//! | [`fields`] | fields of keys and values in internal topics |
//! | [`group`] | one consumer group on its coordinator |
//! | [`metadata`] | what a broker knows of the cluster |
//! | [`partition`] | one partition on one broker: role, high watermark, ISR |
//! | [`quota`] | how fast clients may be |
//! | [`scram`] | credentials of users |
//! | [`transaction`] | one transactional id on its coordinator |
//! | [`znodes`] | what is kept in ZooKeeper: paths and data |

pub mod balance;
pub mod compaction;
pub mod config;
pub mod control;
pub mod controller;
pub mod fields;
pub mod group;
pub mod ids;
pub mod liveness;
pub mod metadata;
pub mod partition;
pub mod quota;
pub mod records;
pub mod scram;
pub mod time;
pub mod transaction;
pub mod znodes;
