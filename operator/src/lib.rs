//! The operator as a library: what its binary and its tests share.
//!
//! | module | what it owns |
//! |---|---|
//! | [`admin`] | the admin client: connections, requests, per-item results |
//! | [`cluster`] | a snapshot of the cluster that is refreshed |

pub mod admin;
pub mod cluster;
