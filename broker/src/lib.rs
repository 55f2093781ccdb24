//! The shell around `barnabas-core`: sockets, files, ZooKeeper, clocks and tasks.
