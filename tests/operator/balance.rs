//! `barnabas-operator balance` with real brokers, while a verifying producer and consumer work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::verify::PartitionView;
use barnabas_tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(90);

fn operator() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().unwrap().parent().unwrap();
    let binary = target.join("barnabas-operator");
    assert!(binary.exists(), "`cargo build` makes {}", binary.display());
    binary
}

fn command(cluster: &mut Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(operator());
    let bootstrap = cluster.bootstrap().join(",");
    let zookeeper = cluster.zookeeper().connect();
    command
        .args(["balance", "--bootstrap", &bootstrap, "--zookeeper", &zookeeper])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end, which has to be a good one; what it printed.
fn balance(cluster: &mut Cluster, arguments: &[&str]) -> String {
    let child = command(cluster, arguments).spawn().unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = Running(Some(child)).finish();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let log = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{status}: {text}\n{log}");
    text
}

/// A balancer that is killed if the test ends before it does.
struct Running(Option<Child>);

impl Running {
    fn finish(mut self) -> Output {
        let mut child = self.0.take().unwrap();
        let ended = until(PATIENCE, || child.try_wait().unwrap());
        if ended.is_none() {
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(ended.is_some(), "it does not end:\n{log}");
        output
    }

    fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

type Views = BTreeMap<i32, PartitionView>;

fn view(cluster: &Cluster, topic: &str) -> Views {
    let patience = Duration::from_secs(30);
    cluster.view().wait_for(topic, patience, |_| true).unwrap()
}

fn count(views: &Views, broker: i32) -> usize {
    let replicas = views.values();
    replicas.filter(|one| one.replicas.contains(&broker)).count()
}

/// Nothing of a throttle in ZooKeeper, where brokers keep them.
fn has_no_throttle(cluster: &mut Cluster, topic: &str) {
    let mut paths = vec![format!("/config/topics/{topic}")];
    paths.extend(cluster.ids().iter().map(|id| format!("/config/brokers/{id}")));
    for path in paths {
        let data = cluster.zookeeper().read(&path).unwrap_or_default();
        assert!(!data.contains("throttled"), "{path}: {data}");
    }
}
