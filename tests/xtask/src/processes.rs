//! Servers that outlive this program: each has a directory with its log and a file with its process id.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run::{command, output};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// A server with its own directory.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
}

impl Server {
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The id of its process, if that runs. Its command line names the directory, so that an id which
    /// the system gave to another process since is not taken for it.
    pub(crate) fn process_id(&self) -> Option<u32> {
        let id = fs::read_to_string(self.directory.join("pid"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let line = fs::read_to_string(format!("/proc/{id}/cmdline")).ok()?;
        line.contains(self.directory.to_str()?).then_some(id)
    }

    /// Starts `program` in the background, in a process group of its own, with its output in the log.
    pub(crate) fn start(&self, program: &mut Command) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = program
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        fs::write(self.directory.join("pid"), child.id().to_string())?;
        Ok(child)
    }

    /// Waits until `serves` says so. An error with the end of the log if the process ends before.
    pub(crate) fn wait(&self, mut child: Option<Child>, serves: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !serves() {
            if let Some(status) = child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten())
            {
                bail!("{} ended ({status}); {}", self.name, self.end_of_log());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} does not serve after {PATIENCE:?}; {}",
                    self.name,
                    self.end_of_log()
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Asks the process to end and waits for that; kills it if it takes too long.
    pub(crate) fn stop(&self) -> Result<bool> {
        let Some(id) = self.process_id() else {
            return Ok(false);
        };
        let _ = output(&mut command("kill", &["-TERM", &id.to_string()]));
        let deadline = Instant::now() + PATIENCE;
        while self.process_id().is_some() {
            if Instant::now() > deadline {
                let _ = output(&mut command("kill", &["-KILL", &id.to_string()]));
            }
            std::thread::sleep(POLL);
        }
        fs::remove_file(self.directory.join("pid"))?;
        Ok(true)
    }

    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(10)..].join("\n  ");
        format!("the end of {}:\n  {end}", self.log().display())
    }
}

/// Whether anything listens on this port.
pub(crate) fn listens(port: u16) -> bool {
    connect(port).is_ok()
}

/// Whether a ZooKeeper server on this port says that it serves.
pub(crate) fn zookeeper_serves(port: u16) -> bool {
    let answer = || -> Result<String> {
        let mut stream = connect(port)?;
        stream.write_all(b"srvr")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    answer().is_ok_and(|answer| answer.contains("Mode: "))
}

/// How many brokers the broker on this port knows of (Metadata v1 for no topic); 0 if it does not answer.
pub(crate) fn brokers_known(port: u16) -> u32 {
    const REQUEST: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
    let answer = || -> Result<u32> {
        let mut stream = connect(port)?;
        stream.write_all(&REQUEST)?;
        let mut head = [0; 12]; // size, correlation id, number of brokers
        stream.read_exact(&mut head)?;
        Ok(u32::from_be_bytes([head[8], head[9], head[10], head[11]]))
    };
    answer().unwrap_or(0)
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("localhost", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(stream)
}

/// The servers that have a directory below `state` whose name begins with `kind`, in order.
pub(crate) fn servers(state: &Path, kind: &str) -> Vec<Server> {
    let Ok(entries) = fs::read_dir(state) else {
        return Vec::new();
    };
    let mut servers: Vec<Server> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.starts_with(kind).then(|| Server {
                name,
                directory: entry.path(),
            })
        })
        .collect();
    servers.sort_by(|one, other| one.name.cmp(&other.name));
    servers
}
