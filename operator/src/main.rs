//! `barnabas-operator`: see `--help`.

fn main() {}
