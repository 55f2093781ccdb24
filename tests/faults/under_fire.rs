//! Kafka's own Java client at work while a cluster is hurt: the program `UnderFire` below `tests/clients/java/client`.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use barnabas_tests::tools::test_tool;
use barnabas_tests::wait;

/// To answer a question.
const PATIENCE: Duration = Duration::from_secs(30);
/// To finish what was begun, read all and compare.
const END_PATIENCE: Duration = Duration::from_secs(400);

/// Runs until it is stopped or dropped.
pub(crate) struct UnderFire {
    child: Child,
    lines: Receiver<String>,
}

impl UnderFire {
    /// An idempotent producer with the client's default settings, to partition 0 of a topic.
    pub(crate) fn steady(bootstrap: &[String], topic: &str) -> Result<Self> {
        Self::start(&["steady", &bootstrap.join(","), topic])
    }

    /// A consumer of partition 0 of a topic that is written by a [`Verifier`](barnabas_tests::verify::Verifier).
    pub(crate) fn follow(bootstrap: &[String], topic: &str, rack: &str) -> Result<Self> {
        Self::start(&["follow", &bootstrap.join(","), topic, rack])
    }

    /// Producers whose transactions commit or abort, and a group that copies exactly once what is committed.
    pub(crate) fn exactly_once(bootstrap: &[String], from: &str, to: &str) -> Result<Self> {
        Self::start(&["exactly-once", &bootstrap.join(","), from, to])
    }

    /// Another program of one file, which answers and ends in the same way.
    pub(crate) fn of_source(program: &Path, arguments: &[&str]) -> Result<Self> {
        Self::run(program.as_os_str(), arguments)
    }

    fn start(arguments: &[&str]) -> Result<Self> {
        Self::run(OsStr::new("UnderFire"), arguments)
    }

    fn run(program: &OsStr, arguments: &[&str]) -> Result<Self> {
        let tool = test_tool("java-3.9.1");
        let mut classes = tool.join("*").into_os_string();
        classes.push(":");
        classes.push(tool.join("classes"));
        let mut child = Command::new("java")
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m"])
            .arg("-cp")
            .arg(classes)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run java")?;
        let output = child.stdout.take().context("no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// What it has done so far, in numbers that its own documentation explains.
    pub(crate) fn ask(&mut self) -> Result<Vec<u64>> {
        let input = self.child.stdin.as_mut().context("it was stopped")?;
        input.write_all(b"\n")?;
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.context("the Java client does not answer")?;
        let numbers = line.split(' ').filter_map(|word| word.parse().ok());
        let numbers: Vec<u64> = numbers.collect();
        ensure!(numbers.len() >= 2, "the Java client says {line}");
        Ok(numbers)
    }

    /// Asks until what it has done satisfies `condition`, and gives back all answers.
    pub(crate) fn wait_for(
        &mut self,
        patience: Duration,
        condition: impl Fn(&[u64]) -> bool,
    ) -> Result<Vec<Vec<u64>>> {
        let mut answers = Vec::new();
        let is_so = wait::until(patience, || match self.ask() {
            Ok(answer) => {
                let is_so = condition(&answer);
                answers.push(answer);
                is_so.then_some(Ok(()))
            }
            Err(error) => Some(Err(error)),
        });
        let last = answers.last().cloned();
        is_so.with_context(|| format!("the Java client is at {last:?} after {patience:?}"))??;
        Ok(answers)
    }

    /// Waits until the first `figures` numbers have grown by so much.
    pub(crate) fn wait_for_progress(
        &mut self,
        figures: usize,
        by: u64,
        patience: Duration,
    ) -> Result<Vec<Vec<u64>>> {
        let before = self.ask()?;
        self.wait_for(patience, |now| {
            let mut pairs = before.iter().zip(now).take(figures);
            pairs.all(|(before, now)| *now >= before + by)
        })
        .with_context(|| format!("no progress since {before:?}"))
    }

    /// Lets it finish and compare what is there with what it was told; its last words.
    pub(crate) fn stop(mut self) -> Result<String> {
        drop(self.child.stdin.take());
        let mut said = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(END_PATIENCE) {
            said.push(line);
        }
        let said = said.join("\n");
        let ended = wait::until(PATIENCE, || self.child.try_wait().ok().flatten());
        let status = ended.with_context(|| format!("the Java client does not end: {said}"))?;
        ensure!(status.success(), "{said}");
        Ok(said)
    }
}

impl Drop for UnderFire {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
