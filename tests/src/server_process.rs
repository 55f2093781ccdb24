//! A server in a process of its own, with its output in a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

const LINES_SHOWN_ON_FAILURE: usize = 40;

/// A running server. Dropping it kills it; if that is because a test panics, the end of its log is shown.
#[derive(Debug)]
pub struct ServerProcess {
    name: String,
    child: Child,
    log: PathBuf,
}

/// `command` as `launcher` runs it: the launcher has to become the program, not to start it as a child.
pub fn launched(launcher: &[String], command: Command) -> Command {
    let Some((program, arguments)) = launcher.split_first() else {
        return command;
    };
    let mut launched = Command::new(program);
    launched
        .args(arguments)
        .arg(command.get_program())
        .args(command.get_args());
    launched
}

impl ServerProcess {
    /// Starts `command` with standard output and error appended to the file `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<ServerProcess> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| {
                format!("cannot start {name} by {}", command.get_program().display())
            })?;
        Ok(ServerProcess {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it did.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until `ready` yields a value. An error if the process ends or `patience` is over before.
    pub fn wait_until<T>(
        &mut self,
        patience: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let outcome = wait::until(patience, || {
            if let Some(value) = ready() {
                return Some(Ok(value));
            }
            self.exit_status().map(Err)
        });
        match outcome {
            Some(Ok(value)) => Ok(value),
            Some(Err(status)) => bail!("{} ended ({status}):\n{}", self.name, self.end_of_log()),
            None => bail!(
                "{} is not ready in {patience:?}:\n{}",
                self.name,
                self.end_of_log()
            ),
        }
    }

    /// Sends a signal; no error if the process is gone.
    pub fn signal(&self, signal: Signal) {
        if let Some(id) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(id, signal);
        }
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end. An error if that takes longer than `patience`.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait_for_end(patience)
    }

    /// Waits until the process ends by itself.
    pub fn wait_for_end(&mut self, patience: Duration) -> Result<ExitStatus> {
        match wait::until(patience, || self.exit_status()) {
            Some(status) => Ok(status),
            None => bail!(
                "{} still runs after {patience:?}:\n{}",
                self.name,
                self.end_of_log()
            ),
        }
    }

    /// Everything the process and its predecessors with the same log file have said.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    fn end_of_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_SHOWN_ON_FAILURE)..].join("\n")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!(
                "--- {}: end of its log ---\n{}",
                self.name,
                self.end_of_log()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn shell(script: &str, directory: &Path) -> ServerProcess {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        ServerProcess::start("shell", &mut command, &directory.join("log")).unwrap()
    }

    #[test]
    fn output_is_kept_and_the_end_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("echo out; echo err >&2; exit 3", directory.path());
        assert_eq!(process.wait_for_end(PATIENCE).unwrap().code(), Some(3));
        assert_eq!(process.log(), "out\nerr\n");
        let error = process
            .wait_until(PATIENCE, || None::<()>)
            .unwrap_err()
            .to_string();
        assert!(error.contains("err"), "{error}");
    }

    #[test]
    fn a_process_can_be_asked_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell(
            "trap 'exit 0' TERM; echo up; read forever",
            directory.path(),
        );
        let waiting = process.wait_until(PATIENCE, || None::<()>);
        assert!(waiting.is_err(), "standard input is closed");

        let mut process = shell(
            "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done",
            directory.path(),
        );
        let log = directory.path().join("log");
        let up = || {
            fs::read_to_string(&log)
                .ok()
                .filter(|log| log.matches("up").count() == 2)
                .map(|_| ())
        };
        process.wait_until(PATIENCE, up).unwrap();
        assert!(process.terminate(PATIENCE).unwrap().success());
        assert!(process.log().ends_with("bye\n"));
    }
}
