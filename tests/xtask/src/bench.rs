//! `bench`: builds what it measures and hands over to the programs that measure.

use anyhow::Result;

use crate::arguments::Arguments;
use crate::install;
use crate::run::{cargo, check, command, target};

pub(crate) fn bench(words: Vec<String>) -> Result<()> {
    let mut arguments = Arguments::new(words);
    let quick = arguments.flag("--quick");
    let ours = arguments.flag("--ours");
    let rows = arguments.rest()?;
    if rows == ["operator"] {
        return operator(quick);
    }
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

/// The operator's budgets: Topics on a real control plane, then plans for a large cluster.
fn operator(quick: bool) -> Result<()> {
    install::for_tests()?;
    check(&mut cargo(&[
        "build",
        "--quiet",
        "--release",
        "--locked",
        "--package",
        "barnabas-broker",
        "--package",
        "barnabas-operator",
        "--package",
        "barnabas-tests",
        "--bins",
    ]))?;
    let mut bench = command(target().join("release/bench_operator"), &[]);
    if quick {
        bench.arg("--quick");
    }
    check(&mut bench)?;
    check(&mut cargo(&[
        "bench",
        "--locked",
        "--package",
        "barnabas-core",
        "--bench",
        "balance",
    ]))
}
