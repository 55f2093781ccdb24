//! `bench`: builds what it measures and hands over to the programs that measure.

use std::process::Command;

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
    let mut bench = built("bench", &["barnabas-broker", "barnabas-tests"], quick)?;
    if ours {
        bench.arg("--ours");
    }
    check(bench.args(rows))
}

/// A program that measures, after all programs of those packages were built.
fn built(program: &str, packages: &[&str], quick: bool) -> Result<Command> {
    let mut build = cargo(&["build", "--quiet", "--release", "--locked", "--bins"]);
    for package in packages {
        build.args(["--package", package]);
    }
    check(&mut build)?;
    let mut bench = command(target().join("release").join(program), &[]);
    if quick {
        bench.arg("--quick");
    }
    Ok(bench)
}

/// The operator's budgets: Topics on a real control plane, then plans for a large cluster.
fn operator(quick: bool) -> Result<()> {
    install::for_tests()?;
    let packages = ["barnabas-broker", "barnabas-operator", "barnabas-tests"];
    check(&mut built("bench_operator", &packages, quick)?)?;
    check(&mut cargo(&[
        "bench",
        "--locked",
        "--package",
        "barnabas-core",
        "--bench",
        "balance",
    ]))
}
