//! The shell around `barnabas-core`: sockets, files, ZooKeeper, clocks and tasks.

pub mod api;
pub mod clock;
pub mod metadata_cache;
