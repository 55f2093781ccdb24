//! Several ZooKeeper servers that form one ensemble.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::network::Machine;
use crate::ports::free_port;
use crate::server_process::{ServerProcess, launched};
use crate::wait;
use crate::zookeeper_server::{CLASSPATH, TICK_MS, ask};

const START_PATIENCE: Duration = Duration::from_secs(90);

/// A server of the ensemble.
#[derive(Debug)]
struct Member {
    client: SocketAddr,
    launcher: Vec<String>,
    configuration: PathBuf,
    log: PathBuf,
    process: Option<ServerProcess>,
}

/// ZooKeeper servers, numbered from 0; dropping it kills them and removes their data.
#[derive(Debug)]
pub struct Ensemble {
    members: Vec<Member>,
    // Dropped last.
    _directory: tempfile::TempDir,
}

impl Ensemble {
    /// Starts `count` servers on loopback and waits until they serve.
    pub fn on_loopback(count: usize) -> Result<Ensemble> {
        let places = (0..count).map(|_| (Ipv4Addr::LOCALHOST, Vec::new()));
        let mut ensemble = Self::prepare(places.collect())?;
        ensemble.start_all()?;
        Ok(ensemble)
    }

    /// Starts a server on each of the machines and waits until they serve. To be called where they can be reached.
    pub fn on(machines: &[Machine]) -> Result<Ensemble> {
        let machines = machines.iter();
        let places = machines.map(|machine| (machine.address, machine.launcher()));
        let mut ensemble = Self::prepare(places.collect())?;
        ensemble.start_all()?;
        Ok(ensemble)
    }

    fn prepare(places: Vec<(Ipv4Addr, Vec<String>)>) -> Result<Ensemble> {
        let directory = tempfile::tempdir().context("a directory for ZooKeeper")?;
        let mut servers = Vec::new();
        let mut ports = Vec::new();
        for (number, (address, _)) in (1..).zip(&places) {
            let (client, follow, elect) = (free_port(), free_port(), free_port());
            ports.push(client);
            if places.len() > 1 {
                servers.push(format!("server.{number}={address}:{follow}:{elect}"));
            }
        }
        let servers = servers.join("\n");
        let mut members = Vec::new();
        for ((number, (address, launcher)), port) in (1..).zip(places).zip(ports) {
            let own = directory.path().join(format!("zookeeper-{number}"));
            let data = own.join("data");
            fs::create_dir_all(&data)?;
            fs::write(data.join("myid"), format!("{number}\n"))?;
            let configuration = own.join("zoo.cfg");
            fs::write(
                &configuration,
                format!(
                    "dataDir={}\nclientPort={port}\nclientPortAddress={address}\ntickTime={TICK_MS}\n\
                     initLimit=40\nsyncLimit=8\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n\
                     admin.enableServer=false\n4lw.commands.whitelist=*\nforceSync=no\n{servers}\n",
                    data.display(),
                ),
            )?;
            members.push(Member {
                client: SocketAddr::from((address, port)),
                launcher,
                configuration,
                log: own.join("log"),
                process: None,
            });
        }
        Ok(Ensemble {
            members,
            _directory: directory,
        })
    }

    fn start_all(&mut self) -> Result<()> {
        for number in 0..self.members.len() {
            self.spawn(number)?;
        }
        for number in 0..self.members.len() {
            self.wait_for(number)?;
        }
        Ok(())
    }

    /// What a broker's `zookeeper.connect` is set to.
    pub fn connect(&self) -> String {
        let members = self.members.iter();
        let texts: Vec<String> = members.map(|member| member.client.to_string()).collect();
        texts.join(",")
    }

    /// Starts a server, with the data it has, without waiting for it.
    pub fn spawn(&mut self, number: usize) -> Result<()> {
        let member = &mut self.members[number];
        let mut java = Command::new("java");
        java.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg("-Dzookeeper.forceSync=no")
            .args(["-cp", CLASSPATH])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(&member.configuration);
        let mut java = launched(&member.launcher, java);
        let name = format!("ZooKeeper {}", number + 1);
        member.process = Some(ServerProcess::start(&name, &mut java, &member.log)?);
        Ok(())
    }

    /// Waits until a server serves; there must be a majority.
    pub fn wait_for(&mut self, number: usize) -> Result<()> {
        let member = &mut self.members[number];
        let client = member.client;
        let process = member.process.as_mut().context("it is not started")?;
        process.wait_until(START_PATIENCE, || mode(client).map(drop))
    }

    /// `kill -9`. The data stays.
    pub fn kill(&mut self, number: usize) {
        self.members[number].process = None;
    }

    /// The server that leads the others; waits for one.
    pub fn leader(&self) -> Result<usize> {
        let leads = |member: &Member| mode(member.client).is_some_and(|mode| mode != "follower");
        let found = wait::until(START_PATIENCE, || self.members.iter().position(leads));
        found.context("no ZooKeeper server leads")
    }

    /// Waits until no session holds this ephemeral znode.
    pub fn wait_until_gone(&self, path: &str, patience: Duration) -> Result<()> {
        let server = self.members[self.leader()?].client;
        let is_gone = || {
            let dump = ask(server, "dump").ok()?;
            (!dump.lines().any(|line| line.trim() == path)).then_some(())
        };
        wait::until(patience, is_gone).with_context(|| format!("{path} is still there"))
    }
}

/// `leader`, `follower` or `standalone`, if it serves.
fn mode(client: SocketAddr) -> Option<String> {
    let answer = ask(client, "srvr").ok()?;
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix("Mode: "))?;
    Some(line.to_owned())
}
