//! A real ZooKeeper server: Debian's jars, a free port, a directory of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ports::free_port;
use crate::server_process::ServerProcess;

/// The first names most of the others itself, but not what its TLS needs, nor anything that writes a log.
pub(crate) const CLASSPATH: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/netty-codec.jar:\
                         /usr/share/java/netty-resolver.jar:/usr/share/java/slf4j-simple.jar";
const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Sessions live at least two ticks, so this is what tests of expiry wait for.
pub(crate) const TICK_MS: u32 = 500;

/// What a server has beside the usual.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Lines for `zoo.cfg`. `{directory}` stands for the server's own directory.
    pub configuration: Vec<String>,
    /// Arguments for Java before the class to run, with the same placeholder.
    pub java: Vec<String>,
    /// Files to put into the server's directory first: name and content.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A standalone ZooKeeper server; dropping it kills it and removes its data.
#[derive(Debug)]
pub struct ZooKeeperServer {
    port: u16,
    configuration: PathBuf,
    java: Vec<String>,
    process: Option<ServerProcess>,
    directory: tempfile::TempDir,
}

impl ZooKeeperServer {
    /// Starts a server with no data and waits until it serves.
    pub fn start() -> Result<ZooKeeperServer> {
        Self::start_with(&ServerOptions::default())
    }

    /// Starts a server with no data and some features of its own, and waits until it serves.
    pub fn start_with(options: &ServerOptions) -> Result<ZooKeeperServer> {
        let directory = tempfile::tempdir().context("a directory for ZooKeeper")?;
        let port = free_port();
        let configuration = directory.path().join("zoo.cfg");
        let place = |text: &String| {
            let path = directory.path().display().to_string();
            text.replace("{directory}", &path)
        };
        for (name, content) in &options.files {
            fs::write(directory.path().join(name), content)?;
        }
        let more: Vec<String> = options.configuration.iter().map(place).collect();
        let java = options.java.iter().map(place).collect();
        fs::write(
            &configuration,
            format!(
                "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime={TICK_MS}\n\
                 maxSessionTimeout=60000\nmaxClientCnxns=0\nadmin.enableServer=false\n\
                 extendedTypesEnabled=true\n4lw.commands.whitelist=*\n{}\n",
                directory.path().join("data").display(),
                more.join("\n")
            ),
        )?;
        let mut server = ZooKeeperServer {
            port,
            configuration,
            java,
            process: None,
            directory,
        };
        server.restart()?;
        Ok(server)
    }

    /// What a broker's `zookeeper.connect` is set to.
    pub fn connect(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts the server again with the data it has; whatever still runs is stopped first.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        let mut java = Command::new("java");
        java.args([
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            CLASSPATH,
        ])
        .args(&self.java)
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(&self.configuration);
        let mut process = ServerProcess::start("ZooKeeper", &mut java, &self.log_file())?;
        process.wait_until(START_PATIENCE, || {
            let answer = ask(self.address(), "srvr").ok()?;
            answer.contains("Mode: ").then_some(())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGTERM, and waits for the end. The data stays.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.terminate(STOP_PATIENCE)?;
        }
        Ok(())
    }

    /// `kill -9`. The data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The answer to one of ZooKeeper's four letter words.
    pub fn ask(&self, word: &str) -> Result<String> {
        ask(self.address(), word)
    }

    /// The server's process, unless it is stopped.
    pub fn process(&self) -> Option<&ServerProcess> {
        self.process.as_ref()
    }

    fn log_file(&self) -> PathBuf {
        self.directory().join("log")
    }

    /// Where its configuration, data and log are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The answer to one of ZooKeeper's four letter words.
pub(crate) fn ask(address: SocketAddr, word: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
