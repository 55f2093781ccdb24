//! `fuzz`: runs each fuzz target for a bounded time.

use anyhow::Result;

use crate::arguments::Arguments;
use crate::run::{cargo, check, target};

/// The fuzz tests have this in their names; the environment tells them how long and from which seed.
const FUZZ_TESTS: &str = "fuzz";

pub(crate) fn fuzz(words: Vec<String>) -> Result<()> {
    let mut arguments = Arguments::new(words);
    let seconds = arguments.option::<u64>("--seconds")?.unwrap_or(30);
    let seed = arguments.option::<u64>("--seed")?;
    arguments.finish()?;
    // Optimised, but without the long link of a release, and so in a directory of its own.
    let mut tests = cargo(&[
        "test",
        "--release",
        "--config=profile.release.lto=false",
        "--locked",
    ]);
    tests.arg("--target-dir").arg(target().join("fuzz")).args([
        "--package",
        "barnabas-tests",
        "--test",
        "fuzz",
        FUZZ_TESTS,
    ]);
    tests.env("BARNABAS_FUZZ_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        tests.env("BARNABAS_FUZZ_SEED", seed.to_string());
    }
    check(&mut tests)
}
