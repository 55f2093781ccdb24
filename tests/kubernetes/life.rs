//! One release from its installation to its end, with traffic all the time.

use std::time::{Duration, Instant};

use barnabas_tests::tools::repository;
use barnabas_tests::verify::{TopicPlan, Verified, Verifier, VerifierOptions, create_topic};
use barnabas_tests::wait;

use crate::clients::clients_come_from_both_sides;
use crate::release::{BROKER_PODS, BROKERS, NAMESPACE, PATIENCE, Release, lab};

const TOPIC: &str = "flow";
const PARTITIONS: i32 = 6;

/// Says what was seen: the numbers are what one runs this for.
fn report(what: &str, since: Instant, traffic: &Verifier) {
    let (took, gap) = (since.elapsed(), traffic.longest_gap(since));
    eprintln!("{what}: {took:.1?}, longest time without an acknowledgement {gap:.2?}");
}

/// What promises the chart: whatever happens to one broker at a time, everything acknowledged is there, once and in order.
#[test]
#[ignore = "a cluster of its own: cargo xtask test kubernetes"]
fn a_release_lives_through_what_happens_to_it() {
    let mut lab = lab();
    let connect = format!("zookeeper.connect={}", lab.start_zookeeper().unwrap());
    lab.tag(
        "localhost/barnabas-broker:0.1.0",
        "localhost/barnabas-broker:next",
    )
    .unwrap();
    for node in 1..=4 {
        let (node, zone) = (
            format!("node{node}"),
            format!("topology.kubernetes.io/zone=zone{node}"),
        );
        lab.plane.kubectl(&["label", "node", &node, &zone]).unwrap();
    }
    let values = [
        connect.as_str(),
        "operator.balancing.lostGrace=5s",
        "operator.balancing.settledAfter=10s",
        // The disk is that of this machine, whatever else it is used for.
        "operator.balancing.diskMaxUsed=100",
    ];
    let mut release = Release::new(lab, &values);
    let start = Instant::now();
    release.install();
    a_topic_resource_becomes_ready(&release);
    let took = start.elapsed();
    eprintln!("installed and a Topic ready: {took:.1?}");
    assert!(took <= Duration::from_secs(60));

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
    brokers_know_their_zones(&release);

    let start = Instant::now();
    let namespace = format!("--namespace={NAMESPACE}");
    let tested = ["test", "kafka", &namespace, "--timeout=90s"];
    if let Err(error) = release.lab.plane.helm(&tested) {
        let log = release.try_kubectl(&["logs", "job/kafka-barnabas-test"]);
        panic!("{error:#}\n{log:?}\n{}", release.state());
    }
    eprintln!("helm test: {:.1?}", start.elapsed());
    clients_come_from_both_sides(&release);

    a_container_dies(&release, &traffic);
    versions_change(&mut release, &traffic);
    nodes_are_drained(&release, &traffic);
    a_node_loses_power(&mut release, &traffic);
    a_broker_comes(&mut release, &traffic);
    a_node_is_lost(&mut release, &traffic);
    a_broker_goes(&mut release, &traffic);

    let verified = traffic_ends(&release, traffic);
    eprintln!("{} records acknowledged, all there", verified.records);
    release.uninstall();
    // The operator has let go of its Topics, so that they can be deleted without it.
    release.kubectl(&["delete", "btopic", "--all", "--timeout=20s"]);
    let claims = release.kubectl(&["get", "pvc", "--output=name"]);
    assert_eq!(claims.lines().count(), 4, "records stay: {claims}");
}

/// The examples and one more become ready.
fn a_topic_resource_becomes_ready(release: &Release) {
    let topic = "apiVersion: barnabas.dev/v1alpha1\nkind: Topic\nmetadata: {name: invoices, namespace: streams}\n\
                 spec: {partitions: 4, replicas: 3, config: {retention.ms: 3600000}}\n";
    release.lab.plane.apply(topic).unwrap();
    let examples = repository().join("manifests/examples");
    let examples = examples.display().to_string();
    release.kubectl(&["apply", "--filename", &examples]);
    let ready = [
        "wait",
        "btopic",
        "--all",
        "--for=condition=Ready",
        "--timeout=60s",
    ];
    if let Err(error) = release.try_kubectl(&ready) {
        let topics = release.try_kubectl(&["get", "btopic", "-o", "yaml"]);
        panic!("{error:#}\n{topics:?}\n{}", release.state());
    }
    let view = release.view();
    let count = |topic: &str| {
        let partitions = release.lab.hub().run(|| view().partitions(topic));
        partitions.unwrap().unwrap().len()
    };
    assert_eq!((count("invoices"), count("orders")), (4, 12));
}

/// Racks come from the nodes' zones.
fn brokers_know_their_zones(release: &Release) {
    for broker in 0..release.replicas {
        let pod = format!("kafka-barnabas-broker-{broker}");
        let node = release.kubectl(&["get", "pod", &pod, "-o", "jsonpath={.spec.nodeName}"]);
        let log = release.kubectl(&["logs", &pod, "--container=rack"]);
        let zone = node.replace("node", "zone");
        assert!(log.contains(&zone), "{pod} on {node}: {log}");
    }
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
    release.wait_until_in_sync(TOPIC, PARTITIONS);
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
    release.helm(&["upgrade", "kafka"]).unwrap();
    release.wait_until_ready();
    release.wait_until_in_sync(TOPIC, PARTITIONS);
    report("upgrade of 3 brokers, one by one", start, traffic);
    let image = "jsonpath={.items[*].spec.containers[0].image}";
    let images = release.kubectl(&["get", "pods", "-o", image, BROKER_PODS]);
    assert_eq!(images.matches(":next").count(), 3, "{images}");

    let start = Instant::now();
    let rollback = ["rollback", "kafka", "--namespace=streams"];
    release.lab.plane.helm(&rollback).unwrap();
    "0.1.0".clone_into(&mut release.tag);
    release.wait_until_ready();
    release.wait_until_in_sync(TOPIC, PARTITIONS);
    report("rollback of 3 brokers", start, traffic);
    traffic.wait_for_progress(20, PATIENCE).unwrap();
}

/// Each node in turn, those without a broker too. A broker's disk stays with its node, so its pod waits for that.
fn nodes_are_drained(release: &Release, traffic: &Verifier) {
    for node in ["node1", "node2", "node3", "node4"] {
        let start = Instant::now();
        let drain = [
            "drain",
            node,
            "--delete-emptydir-data",
            "--ignore-daemonsets",
            // Those of clients that have ended.
            "--force",
            "--timeout=120s",
        ];
        release.lab.plane.kubectl(&drain).unwrap();
        let drained = start.elapsed();
        traffic.wait_for_progress(20, PATIENCE).unwrap();
        release.lab.plane.kubectl(&["uncordon", node]).unwrap();
        release.wait_until_ready();
        release.wait_until_in_sync(TOPIC, PARTITIONS);
        let what = format!("{node} drained in {drained:.1?}, and back, until in sync again");
        report(&what, start, traffic);
    }
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
    report("a node without power: fail-over", start, traffic);
    release.lab.power_on(index - 1).unwrap();
    release.wait_until_in_sync(TOPIC, PARTITIONS);
    release.wait_until_ready();
    report(
        "a node without power and back, until in sync again",
        start,
        traffic,
    );
}

/// A fourth broker takes its share.
fn a_broker_comes(release: &mut Release, traffic: &Verifier) {
    let start = Instant::now();
    release.replicas = 4;
    release.helm(&["upgrade", "kafka"]).unwrap();
    release.wait_until_ready();
    report("a fourth broker ready", start, traffic);
    release.wait_until_placed(TOPIC, |partitions| {
        let on_it = partitions.iter().filter(|one| one.contains(&3)).count();
        on_it >= 3 && partitions.iter().all(|one| one.len() == 3)
    });
    release.wait_until_in_sync(TOPIC, PARTITIONS);
    report("a fourth broker filled", start, traffic);
}

/// Kubelet and containers are stopped, and the Node is removed: the disk is lost, and the others make anew what was on it.
fn a_node_is_lost(release: &mut Release, traffic: &Verifier) {
    let start = Instant::now();
    let path = "jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name}{\"\\n\"}{end}";
    let pods = release.kubectl(&["get", "pods", "-o", path, BROKER_PODS]);
    // Not the node that all clients come through, and not the broker that is to go later.
    let lost = pods
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(node, pod)| *node != "node1" && !pod.ends_with("-3"));
    let (node, pod) = lost.unwrap();
    let broker: i32 = pod.rsplit_once('-').unwrap().1.parse().unwrap();
    let index: usize = node.strip_prefix("node").unwrap().parse().unwrap();
    release.lab.nodes[index - 1].stop_containers();
    release
        .lab
        .plane
        .kubectl(&["delete", "node", node])
        .unwrap();
    traffic.wait_for_progress(20, PATIENCE).unwrap();
    report(
        &format!("broker {broker} lost with its node: fail-over"),
        start,
        traffic,
    );
    release.wait_until_placed(TOPIC, |partitions| {
        let mut all = partitions.iter();
        all.all(|one| one.len() == 3 && !one.contains(&broker))
    });
    release.wait_until_in_sync(TOPIC, PARTITIONS);
    report("healed on the fourth broker", start, traffic);
    let start = Instant::now();
    release.lab.nodes[index - 1].power_off();
    release.lab.power_on(index - 1).unwrap();
    release.wait_until_ready();
    traffic.wait_for_progress(20, PATIENCE).unwrap();
    report("the lost node is back, 4 brokers ready", start, traffic);
}

/// Three brokers again: refused while the fourth holds replicas, by Helm and by `kubectl scale`; then it is emptied first.
fn a_broker_goes(release: &mut Release, traffic: &Verifier) {
    let scale = ["scale", BROKERS, "--replicas=3"];
    let refused = release.try_kubectl(&scale).unwrap_err().to_string();
    assert!(refused.contains("through the chart"), "{refused}");
    release.replicas = 3;
    let refused = release.helm(&["upgrade", "kafka"]);
    assert!(refused.is_err(), "a broker with replicas may not go");
    let log = release.kubectl(&["logs", "job/kafka-barnabas-broker-scale-in"]);
    assert!(log.contains("broker 3 holds"), "{log}");
    eprintln!("scaling in refused: {}", log.trim());

    let start = Instant::now();
    release.values.push("broker.scaleIn=Auto".to_owned());
    let upgraded = release.helm(&["upgrade", "kafka", "--timeout=180s"]);
    if let Err(error) = upgraded {
        let log = release.try_kubectl(&["logs", "job/kafka-barnabas-broker-scale-in"]);
        panic!("{error:#}\n{log:?}\n{}", release.state());
    }
    let gone = || {
        let pods = release.kubectl(&["get", "pods", "--output=name", BROKER_PODS]);
        (pods.lines().count() == 3).then_some(())
    };
    wait::until(PATIENCE, gone).unwrap();
    release.wait_until_ready();
    release.wait_until_in_sync(TOPIC, PARTITIONS);
    traffic.wait_for_progress(20, PATIENCE).unwrap();
    report("the fourth broker emptied and gone", start, traffic);
}

fn traffic_ends(release: &Release, traffic: Verifier) -> Verified {
    release.lab.hub().run(|| traffic.stop()).unwrap().unwrap()
}
