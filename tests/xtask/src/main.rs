//! The developer entry: `cargo xtask <task>`.
fn main() {}
