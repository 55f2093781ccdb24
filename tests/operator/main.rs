//! The operator with real brokers: its admin client, its view of a cluster, and how it moves replicas.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod admin;
mod balance;
mod failures;
mod lab;
mod relay;
mod topics;
