//! `bench`: builds what it measures and hands over to the program that measures.

use anyhow::Result;

use crate::arguments::Arguments;
use crate::install;
use crate::run::{cargo, check, command, target};

pub(crate) fn bench(words: Vec<String>) -> Result<()> {
    let mut arguments = Arguments::new(words);
    let quick = arguments.flag("--quick");
    let ours = arguments.flag("--ours");
    let rows = arguments.rest()?;
    install::for_kafka()?;
    check(&mut cargo(&[
        "build",
        "--quiet",
        "--release",
        "--locked",
        "--package",
        "barnabas-broker",
        "--package",
        "barnabas-tests",
        "--bins",
    ]))?;
    let mut bench = command(target().join("release/bench"), &[]);
    if quick {
        bench.arg("--quick");
    }
    if ours {
        bench.arg("--ours");
    }
    check(bench.args(rows))
}
