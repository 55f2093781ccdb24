//! A cluster with nodes and the chart in it, for a person to play with: `cargo xtask up --kubernetes` runs it.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool talks on standard output"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use barnabas_tests::kubernetes::Lab;
use barnabas_tests::tools::{repository, test_tool};
use tokio::signal::unix::{SignalKind, signal};

/// Its end is asked for by SIGTERM.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut words = env::args_os().skip(1);
    let (Some(directory), Some(nodes), Some(images)) = (words.next(), words.next(), words.next())
    else {
        bail!("kubernetes <directory for scripts> <nodes> <directory of images>");
    };
    let (directory, images) = (PathBuf::from(directory), PathBuf::from(images));
    let nodes = nodes.to_string_lossy().parse().context("number of nodes")?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let started = tokio::task::spawn_blocking(move || serve(&directory, nodes, &images));
    let lab = tokio::select! {
        started = started => started??,
        // What is there so far is cleaned up when this process is gone.
        _ = interrupt.recv() => std::process::exit(1),
        _ = terminate.recv() => std::process::exit(1),
    };
    println!("serving");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    drop(lab);
    Ok(())
}

fn serve(directory: &Path, nodes: u8, images: &Path) -> Result<Lab> {
    let archives = ["barnabas-broker.tar", "barnabas-operator.tar"];
    let mut lab = Lab::start(nodes, &archives.map(|name| images.join(name)))?;
    let zookeeper = lab.start_zookeeper()?;
    for name in ["kubectl", "helm"] {
        let program = test_tool("kubernetes").join(name);
        let script = format!(
            "#!/bin/sh\nKUBECONFIG={} exec {} {} \"$@\"\n",
            lab.plane.kubeconfig.display(),
            lab.hub().launcher().join(" "),
            program.display()
        );
        put(&directory.join(name), &script)?;
    }
    let enter = format!(
        "#!/bin/sh\nexec {} \"$@\"\n",
        lab.hub().launcher().join(" ")
    );
    put(&directory.join("enter"), &enter)?;
    let chart = repository().join("charts/barnabas").display().to_string();
    let replicas = format!("broker.replicas={}", nodes.min(3));
    let connect = format!("zookeeper.connect={zookeeper}");
    let install = [
        "install", "barnabas", &chart, "--set", &replicas, "--set", &connect,
    ];
    let images = [
        "--set=image.broker.repository=localhost/barnabas-broker",
        "--set=image.operator.repository=localhost/barnabas-operator",
        "--set=listeners.external.enabled=true",
        "--set=broker.resources.requests.cpu=50m",
    ];
    lab.plane.helm(&[&install[..], &images].concat())?;
    let brokers = "statefulset/barnabas-broker";
    lab.plane
        .kubectl(&["rollout", "status", brokers, "--timeout=60s"])?;
    put(&directory.join("ready"), "")?;
    Ok(lab)
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
