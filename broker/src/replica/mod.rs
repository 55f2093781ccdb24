//! The partitions that this broker hosts.

pub mod fetch_session;
pub mod fetch_session_cache;
pub mod waiters;
