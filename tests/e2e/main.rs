//! End-to-end tests: stories as modules.
