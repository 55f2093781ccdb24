//! `sim`: simulated worlds, one seed after the other.

use anyhow::Result;

use crate::arguments::Arguments;
use crate::run::{cargo, check};

pub(crate) fn sim(words: Vec<String>) -> Result<()> {
    let mut arguments = Arguments::new(words);
    let seconds = arguments.option::<u64>("--seconds")?.unwrap_or(0);
    let steps = arguments.option::<u64>("--steps")?;
    let seed = arguments.option::<u64>("--seed")?;
    let trace = arguments.flag("--trace");
    let log = arguments.option::<String>("--log")?;
    arguments.finish()?;
    let mut tests = cargo(&[
        "test",
        "--quiet",
        "--locked",
        "--package",
        "barnabas-tests",
        "--test",
        "simulation",
        "no_world_breaks_an_invariant",
        "--",
        "--nocapture",
    ]);
    tests.env("BARNABAS_SIM_SECONDS", seconds.to_string());
    if let Some(steps) = steps {
        tests.env("BARNABAS_SIM_STEPS", steps.to_string());
    }
    if let Some(seed) = seed {
        tests.env("BARNABAS_SIM_SEED", seed.to_string());
    }
    if trace {
        tests.env("BARNABAS_SIM_TRACE", "1");
    }
    if let Some(log) = log {
        tests.env("BARNABAS_SIM_LOG", log);
    }
    check(&mut tests)
}
