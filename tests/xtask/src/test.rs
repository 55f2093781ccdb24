//! `test`: installs what the tests need, runs them all, and sums up.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::kubernetes::require_nodes;
use crate::run::{cargo, check};
use crate::{images, install};

/// Of the images that tests run.
const TAG: &str = "0.1.0";

pub(crate) fn test(words: Vec<String>) -> Result<()> {
    let mut arguments = Arguments::new(words);
    let judge = arguments.flag("--judge");
    let release = arguments.flag("--release");
    let names = arguments.rest()?;
    if names == ["kubernetes"] {
        return kubernetes(release);
    }
    if release {
        bail!("--release is for `cargo xtask test kubernetes`");
    }

    let start = Instant::now();
    install::for_tests()?;
    println!("installed after {} s", start.elapsed().as_secs());
    // A test among them lets crates have the features that all tests build them with.
    check(&mut cargo(&[
        "build",
        "--quiet",
        "--locked",
        "--workspace",
        "--bins",
        "--test",
        "kubernetes",
    ]))?;

    let mut tests = cargo(&["test", "--locked", "--no-fail-fast"]);
    if judge {
        tests.args(["--package", "barnabas-tests", "--test", "e2e"]);
        tests.env("BARNABAS_TEST_BROKER", "kafka");
    } else {
        tests.arg("--workspace");
    }
    tests.args(&names);
    let mut sum = Sum::default();
    let mut success = run(&mut tests, &mut sum)?;
    if !judge && names.is_empty() {
        println!(
            "{} s, last the cluster with real nodes",
            start.elapsed().as_secs()
        );
        match require_nodes() {
            Ok(()) => {
                install::for_nodes()?;
                images::make(true, TAG)?;
                success &= run(&mut on_nodes(), &mut sum)?;
            }
            Err(error) => println!("left out: {error}"),
        }
    }

    let seconds = start.elapsed().as_secs();
    println!("\n{} minutes {} seconds in all", seconds / 60, seconds % 60);
    for name in &sum.failures {
        println!("failed: {name}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        sum.passed, sum.failed, sum.ignored
    );
    if !success {
        bail!("the tests failed");
    }
    Ok(())
}

/// Runs tests with their output shown and added up; whether all passed.
fn run(tests: &mut Command, sum: &mut Sum) -> Result<bool> {
    let mut child = tests
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        sum.note(&line);
    }
    Ok(child.wait()?.success())
}

/// The system on a cluster with real nodes: it needs root, and images of what is there now.
fn kubernetes(release: bool) -> Result<()> {
    let start = Instant::now();
    require_nodes()?;
    install::for_nodes()?;
    images::make(!release, TAG)?;
    println!("images after {} s", start.elapsed().as_secs());
    check(on_nodes().arg("--nocapture"))?;
    println!("{} s in all", start.elapsed().as_secs());
    Ok(())
}

/// The tests that make clusters, one cluster at a time.
fn on_nodes() -> Command {
    // The whole workspace, so that crates are built with the same features as by all other tasks.
    let mut tests = cargo(&["test", "--locked", "--workspace", "--test", "kubernetes"]);
    tests.args(["--", "--ignored", "--test-threads=1"]);
    // Clusters end with this process, however that ends.
    tests.env("BARNABAS_ENDS_WITH", std::process::id().to_string());
    tests
}

/// What the closing lines of all test binaries add up to.
#[derive(Default)]
struct Sum {
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: Vec<String>,
}

impl Sum {
    fn note(&mut self, line: &str) {
        if let Some(closing) = line.strip_prefix("test result: ") {
            let count = |what: &str| {
                let before = closing
                    .split_once(&format!(" {what}"))
                    .map_or("", |(before, _)| before);
                before
                    .rsplit([' ', ';'])
                    .next()
                    .and_then(|word| word.parse().ok())
                    .unwrap_or(0)
            };
            self.passed += count("passed");
            self.failed += count("failed");
            self.ignored += count("ignored");
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up() {
        let mut sum = Sum::default();
        sum.note("test clients::kcat ... FAILED");
        sum.note("test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out");
        sum.note("test result: ok. 30 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!((sum.passed, sum.failed, sum.ignored), (42, 1, 2));
        assert_eq!(sum.failures, ["clients::kcat"]);
    }
}
