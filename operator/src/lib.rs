//! The operator as a library: what its binary and its tests share.
//!
//! | module | what it owns |
//! |---|---|
//! | [`admin`] | the admin client: connections, requests, per-item results |
//! | [`cluster`] | a snapshot of the cluster that is refreshed |
//! | [`moves`] | the one owner of moves: heal, drain, spread, balance; waves and throttles |

pub mod admin;
pub mod cluster;
pub mod moves;
