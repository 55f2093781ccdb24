//! `fuzz`: runs each fuzz target for a bounded time.

use anyhow::Result;

use crate::arguments::Arguments;
use crate::run::{cargo, check};

/// The fuzz tests have this in their names; the environment sets how long each of them runs.
const FUZZ_TESTS: &str = "fuzz";

pub(crate) fn fuzz(words: Vec<String>) -> Result<()> {
    let mut arguments = Arguments::new(words);
    let seconds = arguments.option::<u64>("--seconds")?.unwrap_or(30);
    arguments.finish()?;
    let mut tests = cargo(&["test", "--release", "--locked", "--workspace", FUZZ_TESTS]);
    check(tests.env("BARNABAS_FUZZ_SECONDS", seconds.to_string()))
}
