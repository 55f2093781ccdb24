//! What is to become of a topic: decisions over plain data, without Kubernetes or Kafka.
//!
//! | module | what it owns |
//! |---|---|
//! | [`values`] | whether two texts of a setting mean the same |
//! | [`claims`] | which of several resources owns a topic |
//! | [`plan`] | the next step from what there is to what was asked for |
//! | [`deletion`] | what becomes of the topic when its resource goes |
//! | [`status`] | conditions and the rest of the status |
//! | [`export`] | resources for topics that exist |

pub mod claims;
pub mod deletion;
pub mod export;
pub mod plan;
pub mod status;
pub mod values;

#[cfg(test)]
mod plan_tests;
