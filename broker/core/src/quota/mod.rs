//! Quotas of clients (KIP-13, KIP-55, KIP-124, KIP-599, KIP-612): how fast somebody may be, and how long somebody
//! who was faster has to wait. Nothing here waits or reads a clock.
//!
//! | module | what it owns |
//! |---|---|
//! | [`rate`] | what passed lately, in samples, and the throttle time that follows |
//! | [`bucket`] | tokens for changes that the controller makes |
//! | [`limits`] | which of the eight levels of quotas is somebody's |
//! | [`entity`] | what an administrator may write, and what a filter selects |

pub mod bucket;
pub mod entity;
pub mod limits;
pub mod rate;

pub use bucket::TokenBucket;
pub use limits::{AddressLimits, Limit, QuotaKind, QuotaLimits, Scope};
pub use rate::{QuotaRate, Window};

#[cfg(test)]
mod tests;
