//! A release of the chart in a lab, and what one does to it and asks of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use barnabas_tests::kubernetes::Lab;
use barnabas_tests::tools::{repository, target};
use barnabas_tests::verify::ClusterView;
use barnabas_tests::wait;

pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
pub(crate) const NAMESPACE: &str = "streams";
pub(crate) const BROKERS: &str = "statefulset/kafka-barnabas-broker";
pub(crate) const BROKER_PODS: &str = "--selector=app.kubernetes.io/component=broker";
/// The first node's, which leads to every broker: node ports are open on all nodes.
pub(crate) const NODE: &str = "10.250.0.11";
/// The images that `cargo xtask images` has made, as nodes name them.
const TAG: &str = "0.1.0";

/// The archive of an image.
pub(crate) fn image(name: &str) -> PathBuf {
    let archive = target().join("images").join(format!("{name}.tar"));
    assert!(
        archive.exists(),
        "{} is missing: `cargo xtask images` makes it",
        archive.display()
    );
    archive
}

/// A cluster of four nodes that have our images, with a namespace that admits restricted pods only.
pub(crate) fn lab() -> Lab {
    let start = Instant::now();
    let images = [image("barnabas-broker"), image("barnabas-operator")];
    let lab = Lab::start(4, &images).unwrap();
    eprintln!("a cluster of 4 nodes: {:.1?}", start.elapsed());
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}, labels: \
         {{pod-security.kubernetes.io/enforce: restricted}}}}\n"
    );
    lab.plane.apply(&namespace).unwrap();
    lab
}

/// The release `kafka`.
pub(crate) struct Release {
    pub(crate) lab: Lab,
    /// Values beside those for images, as they are now.
    pub(crate) values: Vec<String>,
    pub(crate) replicas: u8,
    pub(crate) tag: String,
    /// Where clients outside the cluster begin.
    pub(crate) bootstrap: Vec<String>,
}

impl Release {
    /// Of three brokers, not installed yet.
    pub(crate) fn new(lab: Lab, values: &[&str]) -> Release {
        let common = [
            "listeners.external.enabled=true",
            "broker.resources.requests.cpu=50m",
            "broker.resources.requests.memory=128Mi",
        ];
        Release {
            lab,
            values: [&common[..], values]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            replicas: 3,
            tag: TAG.to_owned(),
            bootstrap: (30020..30023)
                .map(|port| format!("{NODE}:{port}"))
                .collect(),
        }
    }

    /// Helm with the chart and its values.
    pub(crate) fn helm(&self, task: &[&str]) -> anyhow::Result<String> {
        let chart = repository().join("charts/barnabas").display().to_string();
        let namespace = format!("--namespace={NAMESPACE}");
        let own = [
            format!("broker.replicas={}", self.replicas),
            format!("image.broker.tag={}", self.tag),
            "image.broker.repository=localhost/barnabas-broker".to_owned(),
            "image.operator.repository=localhost/barnabas-operator".to_owned(),
        ];
        let mut arguments = task.to_vec();
        arguments.extend([chart.as_str(), &namespace]);
        for value in self.values.iter().chain(&own) {
            arguments.extend(["--set", value.as_str()]);
        }
        self.lab.plane.helm(&arguments)
    }

    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let namespace = format!("--namespace={NAMESPACE}");
        let arguments = [arguments, &[&namespace]].concat();
        self.lab.plane.kubectl(&arguments)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap()
    }

    /// Installs it and waits until its brokers are ready.
    pub(crate) fn install(&self) {
        let start = Instant::now();
        self.helm(&["install", "kafka"]).unwrap();
        self.wait_until_ready();
        eprintln!(
            "installed, {} brokers ready: {:.1?}",
            self.replicas,
            start.elapsed()
        );
    }

    /// Waits until as many brokers as there should be are ready, in the revision that was asked for last.
    pub(crate) fn wait_until_ready(&self) {
        let rolled = ["rollout", "status", BROKERS, "--timeout=180s"];
        if let Err(error) = self.try_kubectl(&rolled) {
            panic!("{error:#}\n{}", self.state());
        }
    }

    /// Waits until all replicas of a topic are in sync, as brokers say.
    pub(crate) fn wait_until_in_sync(&self, topic: &str, partitions: i32) {
        let view = self.view();
        let in_sync = || {
            let all = view().partitions(topic).ok()?;
            let complete = all.len() == partitions as usize
                && all.values().all(|partition| partition.isr.len() == 3);
            complete.then_some(())
        };
        let synced = self
            .lab
            .hub()
            .run(|| wait::until(PATIENCE, in_sync))
            .unwrap();
        let state = || view().partitions(topic);
        assert!(
            synced.is_some(),
            "not all replicas are in sync: {:?}\n{}",
            self.lab.hub().run(state),
            self.state()
        );
    }

    /// Waits until the replicas of a topic are on brokers as `is_wanted` says of all its assignments.
    pub(crate) fn wait_until_placed(
        &self,
        topic: &str,
        is_wanted: impl Fn(&[Vec<i32>]) -> bool + Sync,
    ) {
        let view = self.view();
        let placed = || {
            let all = view().partitions(topic).ok()?;
            let replicas: Vec<Vec<i32>> = all.values().map(|one| one.replicas.clone()).collect();
            is_wanted(&replicas).then_some(())
        };
        let placed = self.lab.hub().run(|| wait::until(PATIENCE, placed));
        assert!(
            placed.unwrap().is_some(),
            "replicas have not moved: {:?}\n{}",
            self.lab.hub().run(|| view().partitions(topic)),
            self.state()
        );
    }

    /// Asks anew each time, and another broker first, as one may be away.
    pub(crate) fn view(&self) -> impl Fn() -> ClusterView + Sync {
        let bootstrap = self.bootstrap.clone();
        let turn = AtomicUsize::new(0);
        move || {
            let mut brokers = bootstrap.clone();
            brokers.rotate_left(turn.fetch_add(1, Ordering::Relaxed) % bootstrap.len());
            ClusterView::new(brokers)
        }
    }

    /// What a person would look at when something does not go on.
    pub(crate) fn state(&self) -> String {
        let looks: [&[&str]; 5] = [
            &["get", "pods,pvc,jobs", "-o", "wide"],
            &["describe", "pods"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &["logs", "deployment/kafka-barnabas-operator", "--tail=60"],
            &["logs", BROKERS, "--tail=30"],
        ];
        let mut text = String::new();
        for look in looks {
            let seen = self
                .try_kubectl(look)
                .unwrap_or_else(|error| error.to_string());
            text.extend(["--- kubectl ", &look.join(" "), "\n", &seen, "\n"]);
        }
        text + &self.lab.end_of_logs()
    }

    /// `helm uninstall`, which ends within a minute and leaves no pod.
    pub(crate) fn uninstall(&self) {
        let start = Instant::now();
        let namespace = format!("--namespace={NAMESPACE}");
        let task = ["uninstall", "kafka", &namespace, "--wait", "--timeout=60s"];
        if let Err(error) = self.lab.plane.helm(&task) {
            panic!("{error:#}\n{}", self.state());
        }
        let gone = || {
            let pods = self.kubectl(&["get", "pods,jobs", "--output=name"]);
            pods.is_empty().then_some(())
        };
        let left = Duration::from_secs(60).saturating_sub(start.elapsed());
        assert!(
            wait::until(left, gone).is_some(),
            "pods are left\n{}",
            self.state()
        );
        eprintln!("uninstalled: {:.1?}", start.elapsed());
    }
}
