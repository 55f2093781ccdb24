//! End-to-end tests: real processes, real clients, one module per story.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod bad_clients;
mod bad_input;
mod cleaning;
mod client_program;
mod clients;
mod compaction;
mod connect;
mod exchange;
mod full_disk;
mod groups;
mod groups_tool;
mod hanging_transactions;
mod kcat;
mod kill_loop;
mod listeners;
mod many_partitions;
mod mirror;
mod quotas;
mod reassignment;
mod replicas;
mod streams;
mod sweep;
mod three_brokers;
mod tools;
mod transactional_clients;
mod transactions;
mod znode_dumps;
mod znodes;
mod zookeeper;
