//! The chart as Helm renders it, as its schema guards it, and as a real API server takes it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod server;
