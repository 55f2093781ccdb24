//! The port to ZooKeeper and what stands on it, on a real ensemble and on the one in memory.

mod conformance;
mod connection;
mod key_stores;
mod proxy;
mod security;
mod stores;
mod subject;
