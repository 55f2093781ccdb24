//! The whole system on a real cluster: nodes with kubelets and containers, Helm, traffic that must not be lost.
//!
//! `cargo xtask test kubernetes` runs it: it needs root, and images that `cargo xtask images` has made.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod bundled;
mod clients;
mod life;
mod release;
