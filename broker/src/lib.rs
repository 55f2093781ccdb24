//! The shell around `barnabas-core`: sockets, files, ZooKeeper, clocks and tasks.

pub mod admin_http;
pub mod api;
pub mod clock;
pub mod config;
pub mod controller;
pub mod coordinator;
pub mod files;
pub mod host;
pub mod liveness;
pub mod log;
pub mod metadata_cache;
pub mod metrics;
pub mod net;
pub mod peer;
pub mod producer_ids;
pub mod quota;
pub mod server;
pub mod telemetry;
pub mod topics;
pub mod zookeeper;

pub mod replica;
