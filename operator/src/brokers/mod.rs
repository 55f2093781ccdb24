//! What each broker seems to be, from ZooKeeper's registrations and what Kubernetes says of pods, nodes and volumes.
//!
//! | module | what it owns |
//! |---|---|
//! | [`machine`] | the states and how long each is waited for; plain code on a clock of the caller |
//! | [`watch`] | the watches that feed it |

pub mod machine;
pub mod watch;
