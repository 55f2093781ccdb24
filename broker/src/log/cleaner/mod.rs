//! Cleaning compacted logs (Kafka's `LogCleaner`). What stays of a log is decided in
//! `barnabas_core::compaction`; the swap of segments is [`super::rewrite`]'s.
//!
//! Nobody waits for the cleaner: a log that is cut, moved or deleted while it is cleaned makes the
//! cleaning end without effect, at the latest when segments are to be replaced.

mod clean;
#[cfg(test)]
mod golden_tests;
mod manager;
#[cfg(test)]
mod manager_tests;
mod metrics;
mod replace;
#[cfg(test)]
mod tests;
mod throttle;

pub(super) use clean::CleanError;
pub(super) use manager::Cleaner;
