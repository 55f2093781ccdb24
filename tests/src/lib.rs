//! Harness of the end-to-end tests: real processes on loopback, each with a directory of its own.
//!
//! Everything here blocks; a test is a story that waits for one thing after the other. Whatever is
//! started is ended when its value is dropped.

pub mod broker;
pub mod cluster;
pub mod debug_tree;
pub mod ensemble;
pub mod http;
pub mod images;
pub mod kubernetes;
pub mod limits;
pub mod load;
pub mod network;
pub mod ports;
pub mod server_process;
pub mod small_disk;
pub mod tools;
pub mod verify;
pub mod wait;
pub mod wire;
pub mod zookeeper_server;
