//! Transcripts: what happened, and what the controller did about it.

#![allow(
    clippy::needless_raw_string_hashes,
    reason = "transcripts are written by the test tool"
)]

mod elections;
mod one_broker;
mod reassignment;
mod recorded;
mod scale;
mod three_brokers;
mod world;
