//! `up` and `down`: ZooKeeper and brokers on this machine, with their state in `.barnabas`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::kubernetes::require_nodes;
use crate::processes::{Server, brokers_known, listens, servers, zookeeper_serves};
use crate::run::{cargo, check, command, root, target};
use crate::{images, install};

const FIRST_BROKER_PORT: u16 = 9092;
const FIRST_ZOOKEEPER_PORT: u16 = 2181;
const FIRST_QUORUM_PORT: u16 = 2888;
const FIRST_ELECTION_PORT: u16 = 3888;
const FIRST_ADMIN_PORT: u16 = 9404;
const MOST_SERVERS: u16 = 50;

/// How the broker is compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Profile {
    Debug,
    Release,
}

impl Profile {
    fn binary(self) -> PathBuf {
        target().join(match self {
            Self::Debug => "debug/barnabas-broker",
            Self::Release => "release/barnabas-broker",
        })
    }
}

fn state() -> PathBuf {
    root().join(".barnabas")
}

pub(crate) fn up(words: Vec<String>) -> Result<()> {
    let mut arguments = Arguments::new(words);
    let brokers = arguments.option::<u16>("--brokers")?.unwrap_or(1);
    let zookeepers = arguments.option::<u16>("--zookeepers")?;
    let ensemble = arguments.option::<String>("--zookeeper")?;
    let fresh = arguments.flag("--fresh");
    let kubernetes = arguments.flag("--kubernetes");
    let profile = if arguments.flag("--debug") {
        Profile::Debug
    } else {
        Profile::Release
    };
    arguments.finish()?;
    if !(1..=MOST_SERVERS).contains(&brokers)
        || !(1..=MOST_SERVERS).contains(&zookeepers.unwrap_or(1))
    {
        bail!("--brokers and --zookeepers take 1 to {MOST_SERVERS}");
    }
    if ensemble.is_some() && zookeepers.is_some() {
        bail!(
            "--zookeeper uses an ensemble that exists, --zookeepers starts one: give one of them"
        );
    }

    if fresh {
        down(Vec::new())?;
        if state().exists() {
            fs::remove_dir_all(state()).context("cannot remove .barnabas")?;
        }
    }
    fs::create_dir_all(state()).context("cannot make .barnabas")?;
    if kubernetes {
        return up_kubernetes(profile);
    }
    if ensemble.is_none() {
        install::for_servers()?;
    }
    println!("building the broker");
    let mut build = cargo(&[
        "build",
        "--quiet",
        "--locked",
        "--package",
        "barnabas-broker",
    ]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    check(&mut build)?;

    let connect = match ensemble {
        Some(connect) => connect,
        None => start_zookeepers(zookeepers.unwrap_or(1))?,
    };
    start_brokers(brokers, &connect, profile)?;
    print_what_runs(brokers, &connect);
    Ok(())
}

pub(crate) fn down(words: Vec<String>) -> Result<()> {
    Arguments::new(words).finish()?;
    // Brokers first: they leave the cluster through ZooKeeper.
    for kind in ["kubernetes-", "broker-", "zookeeper-"] {
        for server in servers(&state(), kind) {
            if server.stop()? {
                println!("stopped {}", server.name);
            }
        }
    }
    Ok(())
}

/// A Kubernetes with four nodes on this machine, and the chart installed in it.
fn up_kubernetes(profile: Profile) -> Result<()> {
    require_nodes()?;
    install::for_nodes()?;
    images::make(profile == Profile::Debug, "0.1.0")?;
    // A test among them lets crates have the features that all tests build them with.
    let mut build = cargo(&["build", "--quiet", "--locked", "--workspace"]);
    build.args(["--bin", "kubernetes", "--test", "kubernetes"]);
    check(&mut build)?;
    let server = server("kubernetes", 1)?;
    let ready = server.directory.join("ready");
    if server.process_id().is_none() {
        if ready.exists() {
            fs::remove_file(&ready)?;
        }
        println!("starting four nodes, and installing the chart");
        let mut lab = command(target().join("debug/kubernetes"), &[]);
        lab.arg(&server.directory)
            .arg("4")
            .arg(target().join("images"));
        let child = server.start(&mut lab)?;
        server.wait(Some(child), || ready.exists())?;
    }
    println!(
        "\nrunning: four nodes, brokers and the operator (see .barnabas/kubernetes-1/log)\n\ntry:\n  \
         .barnabas/kubernetes-1/kubectl get nodes,pods -o wide\n  \
         .barnabas/kubernetes-1/helm list\n  \
         .barnabas/kubernetes-1/enter kcat -b 10.250.0.11:30020 -L\n\nstop: cargo xtask down"
    );
    Ok(())
}

/// Starts those servers of an ensemble of `count` that do not run, and says how to connect to it.
fn start_zookeepers(count: u16) -> Result<String> {
    let mut members = String::new();
    if count > 1 {
        for index in 0..count {
            let (quorum, election) = (FIRST_QUORUM_PORT + index, FIRST_ELECTION_PORT + index);
            writeln!(
                members,
                "server.{}=localhost:{quorum}:{election}",
                index + 1
            )?;
        }
    }
    let mut started = Vec::new();
    for index in 0..count {
        let port = FIRST_ZOOKEEPER_PORT + index;
        let server = server("zookeeper", index + 1)?;
        if server.process_id().is_some() {
            started.push((server, port, None));
            continue;
        }
        if listens(port) {
            bail!(
                "something else listens on port {port}: stop it, or use it with \
                 `cargo xtask up --zookeeper localhost:{port}`"
            );
        }
        let data = server.directory.join("data");
        fs::create_dir_all(&data)?;
        fs::write(data.join("myid"), (index + 1).to_string())?;
        let configuration = server.directory.join("zoo.cfg");
        fs::write(
            &configuration,
            format!(
                "dataDir={}\nclientPort={port}\nclientPortAddress=localhost\ntickTime=2000\n\
                 initLimit=10\nsyncLimit=5\nadmin.enableServer=false\n{members}",
                data.display()
            ),
        )?;
        let mut java = command(
            "java",
            &["-Xmx256m", "-cp", "/usr/share/java/zookeeper.jar"],
        );
        java.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(&configuration);
        let child = server.start(&mut java)?;
        started.push((server, port, Some(child)));
    }
    let mut connect = Vec::new();
    for (server, port, child) in started {
        server.wait(child, || zookeeper_serves(port))?;
        connect.push(format!("localhost:{port}"));
    }
    Ok(connect.join(","))
}

/// Starts those brokers that do not run, and waits until each knows of all.
fn start_brokers(count: u16, connect: &str, profile: Profile) -> Result<()> {
    let mut started = Vec::new();
    for id in 0..count {
        let port = FIRST_BROKER_PORT + id;
        let server = server("broker", id)?;
        if server.process_id().is_some() {
            started.push((server, port, None));
            continue;
        }
        if listens(port) {
            bail!("something else listens on port {port}: stop it first");
        }
        let properties = server.directory.join("server.properties");
        let replication_factor = count.min(3);
        fs::write(
            &properties,
            format!(
                "broker.id={id}\nlisteners=PLAINTEXT://localhost:{port}\n\
                 zookeeper.connect={connect}\nlog.dirs={}\n\
                 barnabas.admin.listener=localhost:{}\n\
                 default.replication.factor={replication_factor}\n\
                 offsets.topic.replication.factor={replication_factor}\n\
                 transaction.state.log.replication.factor={replication_factor}\n\
                 transaction.state.log.min.isr={}\n",
                server.directory.join("data").display(),
                FIRST_ADMIN_PORT + id,
                replication_factor.min(2),
            ),
        )?;
        let mut broker = command(profile.binary(), &[]);
        let child = server.start(broker.arg(&properties))?;
        started.push((server, port, Some(child)));
    }
    for (server, port, child) in started {
        server.wait(child, || brokers_known(port) >= u32::from(count))?;
    }
    Ok(())
}

fn server(kind: &str, number: u16) -> Result<Server> {
    let name = format!("{kind}-{number}");
    let directory = state().join(&name);
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    Ok(Server { name, directory })
}

fn print_what_runs(brokers: u16, connect: &str) {
    println!("\nrunning:");
    println!("  ZooKeeper   {connect}");
    for id in 0..brokers {
        println!(
            "  broker {id}    localhost:{}   metrics: localhost:{}/metrics   log: .barnabas/broker-{id}/log",
            FIRST_BROKER_PORT + id,
            FIRST_ADMIN_PORT + id
        );
    }
    let bootstrap: Vec<String> = (0..brokers.min(3))
        .map(|id| format!("localhost:{}", FIRST_BROKER_PORT + id))
        .collect();
    let bootstrap = bootstrap.join(",");
    println!(
        "\ntry (kcat is Debian's package of that name):\n  \
         kcat -b {bootstrap} -L\n  \
         echo 'hello, world!' | kcat -b {bootstrap} -t test_topic -P\n  \
         kcat -b {bootstrap} -t test_topic -C -o beginning -e"
    );
    if brokers > 1 {
        println!(
            "\nkill one and look again (`up` with the same options starts it anew):\n  \
             kill -9 $(cat .barnabas/broker-0/pid)\n  \
             kcat -b {bootstrap} -L -t test_topic"
        );
    }
    println!("\nstop: cargo xtask down");
}
