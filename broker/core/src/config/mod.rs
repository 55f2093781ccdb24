//! Settings of brokers and topics: Kafka 3.9's keys, types, defaults and rules.
//!
//! The [`table`] has one row a setting. It feeds parsing ([`BrokerConfig`], [`TopicConfig`]), validation of
//! dynamic changes and what `DescribeConfigs` answers. Reading files is the shell's business: the core
//! is given maps of texts.

pub mod alter;
mod broker;
pub mod describe;
mod error;
pub mod listeners;
mod rules;
mod setting;
pub mod table;
mod topic;
mod values;
pub mod versions;

pub use broker::BrokerConfig;
pub use error::{ConfigError, ConfigProblem};
pub use setting::{Check, Dynamic, Kind, Setting, Support, split_list};
pub use topic::{CleanupPolicy, TargetCompression, TimestampKind, TopicConfig};
pub use values::Password;

#[cfg(test)]
mod tests;
