//! One release from its installation to its end, with traffic all the time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use barnabas_tests::kubernetes::Lab;
use barnabas_tests::tools::{repository, target};
use barnabas_tests::verify::{ClusterView, TopicPlan, Verifier, VerifierOptions, create_topic};
use barnabas_tests::wait;

const PATIENCE: Duration = Duration::from_secs(180);
const TOPIC: &str = "orders";
const PARTITIONS: i32 = 6;
const BROKERS: &str = "statefulset/kafka-barnabas-broker";
const BROKER_PODS: &str = "--selector=app.kubernetes.io/component=broker";
/// The first node's, which leads to every broker: node ports are open on all nodes.
const NODE: &str = "10.250.0.11";

fn image(name: &str) -> PathBuf {
    let archive = target().join("images").join(format!("{name}.tar"));
    assert!(
        archive.exists(),
        "{} is missing: `cargo xtask images` makes it",
        archive.display()
    );
    archive
}

/// A release and what is done to it.
struct Release {
    lab: Lab,
    zookeeper: String,
    bootstrap: Vec<String>,
    /// Values beside the usual ones, as they are now.
    replicas: u8,
    tag: String,
}

impl Release {
    fn helm(&self, task: &[&str]) -> String {
        let chart = repository().join("charts/barnabas").display().to_string();
        let values = [
            format!("zookeeper.connect={}", self.zookeeper),
            format!("broker.replicas={}", self.replicas),
            format!("image.broker.tag={}", self.tag),
            "image.broker.repository=localhost/barnabas-broker".to_owned(),
            "image.operator.repository=localhost/barnabas-operator".to_owned(),
            "listeners.external.enabled=true".to_owned(),
            "broker.resources.requests.cpu=50m".to_owned(),
            "broker.resources.requests.memory=128Mi".to_owned(),
        ];
        let mut arguments = task.to_vec();
        arguments.extend([chart.as_str(), "--namespace=streams"]);
        for value in &values {
            arguments.extend(["--set", value.as_str()]);
        }
        self.lab.plane.helm(&arguments).unwrap()
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let arguments = [arguments, &["--namespace=streams"]].concat();
        self.lab.plane.kubectl(&arguments).unwrap()
    }

    /// Waits until as many brokers as there should be are ready, in the revision that was asked for last.
    fn wait_until_ready(&self) {
        let rolled = [
            "rollout",
            "status",
            BROKERS,
            "--timeout=180s",
            "--namespace=streams",
        ];
        if let Err(error) = self.lab.plane.kubectl(&rolled) {
            let pods = self
                .lab
                .plane
                .kubectl(&["describe", "pods", "--namespace=streams"]);
            panic!("{error:#}\n{pods:?}\n{}", self.lab.end_of_logs());
        }
    }

    /// Waits until all replicas of the topic are in sync, as brokers say.
    fn wait_until_in_sync(&self) {
        let bootstrap = self.bootstrap.clone();
        let in_sync = || {
            let mut view = ClusterView::new(bootstrap.clone());
            let all = view.partitions(TOPIC).ok()?;
            let complete = all.len() == PARTITIONS as usize
                && all.values().all(|partition| partition.isr.len() == 3);
            complete.then_some(())
        };
        let synced = self
            .lab
            .hub()
            .run(|| wait::until(PATIENCE, in_sync))
            .unwrap();
        assert!(synced.is_some(), "not all replicas are in sync");
    }
}

/// Says what was seen: the numbers are what one runs this for.
fn report(what: &str, since: Instant, traffic: &Verifier) {
    let (took, gap) = (since.elapsed(), traffic.longest_gap(since));
    eprintln!("{what}: {took:.1?}, longest time without an acknowledgement {gap:.2?}");
}

/// What promises the chart: whatever happens to one broker at a time, everything acknowledged is there, once and in order.
#[test]
#[ignore = "a cluster of its own: cargo xtask test kubernetes"]
fn a_release_lives_through_what_happens_to_it() {
    let start = Instant::now();
    let mut lab = Lab::start(4, &[image("barnabas-broker"), image("barnabas-operator")]).unwrap();
    let zookeeper = lab.start_zookeeper().unwrap();
    eprintln!("a cluster of 4 nodes: {:.1?}", start.elapsed());
    for node in &lab.nodes {
        node.tag(
            "localhost/barnabas-broker:0.1.0",
            "localhost/barnabas-broker:next",
        )
        .unwrap();
    }
    lab.plane
        .apply(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: streams, labels: \
             {pod-security.kubernetes.io/enforce: restricted}}\n",
        )
        .unwrap();

    let mut release = Release {
        lab,
        zookeeper,
        bootstrap: (32000..32003)
            .map(|port| format!("{NODE}:{port}"))
            .collect(),
        replicas: 3,
        tag: "0.1.0".to_owned(),
    };
    let start = Instant::now();
    release.helm(&["install", "kafka"]);
    release.wait_until_ready();
    eprintln!("installed, 3 brokers ready: {:.1?}", start.elapsed());

    let plan = TopicPlan {
        name: TOPIC.to_owned(),
        assignment: (0..PARTITIONS)
            .map(|partition| (0..3).map(|n| (partition + n) % 3).collect())
            .collect(),
        configs: vec![("min.insync.replicas".to_owned(), "2".to_owned())],
    };
    let bootstrap = release.bootstrap.clone();
    let traffic = release
        .lab
        .hub()
        .run(|| {
            create_topic(&bootstrap, &plan, PATIENCE).unwrap();
            Verifier::start(VerifierOptions::new(bootstrap.clone(), TOPIC, PARTITIONS))
        })
        .unwrap();
    traffic.wait_for_progress(20, PATIENCE).unwrap();
    eprintln!("installed and records flow: {:.1?}", start.elapsed());

    a_topic_resource_becomes_ready(&release);
    eprintln!("installed and a Topic ready: {:.1?}", start.elapsed());
    let tested = ["test", "kafka", "--namespace=streams", "--timeout=60s"];
    release.lab.plane.helm(&tested).unwrap();

    a_container_dies(&release, &traffic);
    versions_change(&mut release, &traffic);
    a_node_is_drained(&release, &traffic);
    a_node_loses_power(&mut release, &traffic);
    brokers_come_and_go(&mut release, &traffic);

    let verified = traffic_ends(&release, traffic);
    eprintln!("{} records acknowledged, all there", verified.records);
    let start = Instant::now();
    release
        .lab
        .plane
        .helm(&[
            "uninstall",
            "kafka",
            "--namespace=streams",
            "--wait",
            "--timeout=60s",
        ])
        .unwrap();
    let pods = || {
        let pods = release.kubectl(&["get", "pods", "--output=name"]);
        pods.is_empty().then_some(())
    };
    wait::until(Duration::from_secs(60), pods).unwrap();
    eprintln!("uninstalled: {:.1?}", start.elapsed());
    // The operator has let go of its Topics, so that they can be deleted without it.
    release.kubectl(&["delete", "btopic", "invoices", "--timeout=20s"]);
    let claims = release.kubectl(&["get", "pvc", "--output=name"]);
    assert_eq!(claims.lines().count(), 4, "records stay: {claims}");
}

fn a_topic_resource_becomes_ready(release: &Release) {
    let topic = "apiVersion: barnabas.dev/v1alpha1\nkind: Topic\nmetadata: {name: invoices, namespace: streams}\n\
                 spec: {partitions: 4, replicas: 3, config: {retention.ms: 3600000}}\n";
    release.lab.plane.apply(topic).unwrap();
    let ready = [
        "wait",
        "btopic/invoices",
        "--for=condition=Ready",
        "--timeout=60s",
    ];
    let wait = [&ready[..], &["--namespace=streams"]].concat();
    if let Err(error) = release.lab.plane.kubectl(&wait) {
        let operator = [
            "logs",
            "deployment/kafka-barnabas-operator",
            "--namespace=streams",
        ];
        let topic = [
            "get",
            "btopic",
            "invoices",
            "--namespace=streams",
            "-o",
            "yaml",
        ];
        let (log, topic) = (
            release.lab.plane.kubectl(&operator),
            release.lab.plane.kubectl(&topic),
        );
        panic!("{error:#}\n{topic:?}\n{log:?}");
    }
    let bootstrap = release.bootstrap.clone();
    let hub = release.lab.hub();
    let partitions = hub
        .run(|| ClusterView::new(bootstrap).partitions("invoices"))
        .unwrap()
        .unwrap();
    assert_eq!(partitions.len(), 4);
}

fn a_container_dies(release: &Release, traffic: &Verifier) {
    let start = Instant::now();
    let restarts = || {
        let path = "jsonpath={.status.containerStatuses[0].restartCount}";
        release.kubectl(&["get", "pod", "kafka-barnabas-broker-1", "-o", path])
    };
    let before = restarts();
    let path = "jsonpath={.metadata.uid}";
    let pod = release.kubectl(&["get", "pod", "kafka-barnabas-broker-1", "-o", path]);
    assert_eq!(release.lab.kill_container(&pod, "barnabas-broker"), 1);
    traffic.wait_for_progress(20, PATIENCE).unwrap();
    wait::until(PATIENCE, || (restarts() != before).then_some(())).unwrap();
    release.wait_until_in_sync();
    release.wait_until_ready();
    report(
        "a broker's container killed, until in sync again",
        start,
        traffic,
    );
}

fn versions_change(release: &mut Release, traffic: &Verifier) {
    let start = Instant::now();
    "next".clone_into(&mut release.tag);
    release.helm(&["upgrade", "kafka"]);
    release.wait_until_ready();
    release.wait_until_in_sync();
    report("upgrade of 3 brokers, one by one", start, traffic);
    let image = "jsonpath={.items[*].spec.containers[0].image}";
    let images = release.kubectl(&["get", "pods", "-o", image, BROKER_PODS]);
    assert_eq!(images.matches(":next").count(), 3, "{images}");

    let start = Instant::now();
    let rollback = ["rollback", "kafka", "--namespace=streams"];
    release.lab.plane.helm(&rollback).unwrap();
    "0.1.0".clone_into(&mut release.tag);
    release.wait_until_ready();
    release.wait_until_in_sync();
    report("rollback of 3 brokers", start, traffic);
    traffic.wait_for_progress(20, PATIENCE).unwrap();
}

fn a_node_is_drained(release: &Release, traffic: &Verifier) {
    let start = Instant::now();
    let path = "jsonpath={.spec.nodeName}";
    let node = release.kubectl(&["get", "pod", "kafka-barnabas-broker-0", "-o", path]);
    let drain = [
        "drain",
        &node,
        "--delete-emptydir-data",
        "--ignore-daemonsets",
        "--timeout=120s",
    ];
    release.lab.plane.kubectl(&drain).unwrap();
    report("a node drained", start, traffic);
    traffic.wait_for_progress(20, PATIENCE).unwrap();
    release.lab.plane.kubectl(&["uncordon", &node]).unwrap();
    release.wait_until_ready();
    release.wait_until_in_sync();
    report(
        "a node drained and back, until in sync again",
        start,
        traffic,
    );
}

fn a_node_loses_power(release: &mut Release, traffic: &Verifier) {
    let start = Instant::now();
    // Not the node that all clients come through.
    let path = "jsonpath={range .items[*]}{.spec.nodeName}{\"\\n\"}{end}";
    let nodes = release.kubectl(&["get", "pods", "-o", path, BROKER_PODS]);
    let lost = nodes.lines().find(|node| *node != "node1").unwrap();
    let index: usize = lost.strip_prefix("node").unwrap().parse().unwrap();
    release.lab.nodes[index - 1].power_off();
    traffic.wait_for_progress(20, PATIENCE).unwrap();
    report("a node without power", start, traffic);
    release.lab.power_on(index - 1).unwrap();
    release.wait_until_in_sync();
    release.wait_until_ready();
    report(
        "a node without power and back, until in sync again",
        start,
        traffic,
    );
}

fn brokers_come_and_go(release: &mut Release, traffic: &Verifier) {
    let start = Instant::now();
    release.replicas = 4;
    release.helm(&["upgrade", "kafka"]);
    release.wait_until_ready();
    let bootstrap = release.bootstrap.clone();
    let known = || {
        let (brokers, _) = ClusterView::new(bootstrap.clone()).brokers().ok()?;
        (brokers.len() == 4).then_some(())
    };
    let hub = release.lab.hub();
    hub.run(|| wait::until(PATIENCE, known)).unwrap().unwrap();
    report("a fourth broker", start, traffic);

    let start = Instant::now();
    // Nobody has moved anything to it.
    release.kubectl(&["annotate", BROKERS, "barnabas.dev/drained-to=3"]);
    release.replicas = 3;
    release.helm(&["upgrade", "kafka"]);
    let gone = || {
        let pods = release.kubectl(&["get", "pods", "--output=name", BROKER_PODS]);
        (pods.lines().count() == 3).then_some(())
    };
    wait::until(PATIENCE, gone).unwrap();
    release.wait_until_ready();
    traffic.wait_for_progress(20, PATIENCE).unwrap();
    report("three brokers again", start, traffic);
}

fn traffic_ends(release: &Release, traffic: Verifier) -> barnabas_tests::verify::Verified {
    release.lab.hub().run(|| traffic.stop()).unwrap().unwrap()
}
