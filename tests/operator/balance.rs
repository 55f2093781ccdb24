//! `barnabas-operator balance` with real brokers, while a verifying producer and consumer work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use barnabas_core::ids::{BrokerId, TopicName, TopicPartition};
use barnabas_operator::admin::{
    Admin, AdminOptions, ConfigChanges, ConfigOp, ConfigResource, ConfigSource, Reassign,
};
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::load::{Produce, produce};
use barnabas_tests::verify::{PartitionView, TopicPlan, Verifier, VerifierOptions, create_topic};
use barnabas_tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(120);
const TOPIC: &str = "orders";

fn operator() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().unwrap().parent().unwrap();
    let binary = target.join("barnabas-operator");
    assert!(binary.exists(), "`cargo build` makes {}", binary.display());
    binary
}

/// A balancer that is killed if the test ends before it does.
struct Balancer(Option<Child>);

impl Balancer {
    fn start(cluster: &mut Cluster, arguments: &[&str]) -> Self {
        let bootstrap = cluster.bootstrap().join(",");
        let zookeeper = cluster.zookeeper().connect();
        let child = Command::new(operator())
            .args(["balance", "--bootstrap", &bootstrap])
            .args(["--zookeeper", &zookeeper])
            // The machine that tests run on may be as full as it likes.
            .args(["--disk-max-used", "100"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(Some(child.unwrap()))
    }

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

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs one to its end, which has to be a good one; what it printed.
fn balance(cluster: &mut Cluster, arguments: &[&str]) -> String {
    let output = Balancer::start(cluster, arguments).finish();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}\n{log}", output.status);
    text
}

type Views = BTreeMap<i32, PartitionView>;

/// The topic when nothing of it moves and all its replicas are in sync.
fn settled(cluster: &Cluster) -> Views {
    let is_settled = |views: &Views| {
        let mut all = views.values();
        !views.is_empty() && all.all(|one| one.isr.len() == one.replicas.len())
    };
    cluster
        .view()
        .wait_for(TOPIC, PATIENCE, is_settled)
        .unwrap()
}

fn on(views: &Views, broker: i32) -> usize {
    let replicas = views.values();
    replicas
        .filter(|one| one.replicas.contains(&broker))
        .count()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(future)
}

/// No throttle on any live broker or on the topic.
fn assert_no_throttle(cluster: &Cluster) {
    wait(async {
        let admin = Admin::new(AdminOptions::new(cluster.bootstrap())).unwrap();
        let found = admin.describe_cluster().await.unwrap();
        let mut resources = vec![ConfigResource::Topic(TopicName::from(TOPIC))];
        resources.extend(
            found
                .brokers
                .iter()
                .map(|node| ConfigResource::Broker(node.id)),
        );
        for (resource, entries) in resources
            .iter()
            .zip(admin.describe_configs(&resources, &[]).await.unwrap())
        {
            for entry in entries.unwrap() {
                let is_dynamic = matches!(
                    entry.source,
                    ConfigSource::DynamicBroker | ConfigSource::DynamicTopic
                );
                assert!(
                    !is_dynamic || !entry.name.contains("throttled"),
                    "{resource:?}: {entry:?}"
                );
            }
        }
    });
}

fn cluster(brokers: usize) -> Cluster {
    // A fetch is let through whole before a throttle counts it.
    let fetch_bytes = 20_000;
    let kind = barnabas_tests::broker::BrokerKind::under_test();
    let options = ClusterOptions::of(&vec![kind; brokers])
        .with("replica.fetch.max.bytes", fetch_bytes)
        .with("auto.leader.rebalance.enable", false)
        .with("zookeeper.session.timeout.ms", 6000);
    Cluster::start(&options).unwrap()
}

/// Partitions of the topic on brokers 1 to 3, three replicas each.
fn topic(cluster: &Cluster, partitions: i32) {
    let rotated = |by: i32| (0..3).map(|position| (by + position) % 3 + 1).collect();
    let plan = TopicPlan {
        name: TOPIC.to_owned(),
        assignment: (0..partitions).map(rotated).collect(),
        configs: vec![("min.insync.replicas".to_owned(), "2".to_owned())],
    };
    create_topic(&cluster.bootstrap(), &plan, PATIENCE).unwrap();
}

fn verifier(cluster: &Cluster, partitions: i32) -> Verifier {
    let mut options = VerifierOptions::new(cluster.bootstrap(), TOPIC, partitions);
    options.pause = Duration::from_millis(30);
    let verifier = Verifier::start(options);
    verifier.wait_for_progress(2, PATIENCE).unwrap();
    verifier
}

#[test]
fn a_fourth_broker_fills_up_and_a_lost_one_is_healed_onto_the_others() {
    let mut cluster = cluster(4);
    topic(&cluster, 8);
    let verifier = verifier(&cluster, 8);

    let before = settled(&cluster);
    let shown = balance(&mut cluster, &["--dry-run"]);
    assert!(shown.contains("6 moves"), "{shown}");
    assert_eq!(settled(&cluster), before);

    balance(&mut cluster, &[]);
    let spread = settled(&cluster);
    for broker in 1..=4 {
        assert_eq!(on(&spread, broker), 6, "broker {broker}: {spread:?}");
    }
    assert_no_throttle(&cluster);

    cluster.kill(2);
    cluster.wait_until_unregistered(2, PATIENCE).unwrap();
    balance(&mut cluster, &["--lost", "2", "--heal-only"]);
    let healed = settled(&cluster);
    for (partition, was) in &spread {
        let is = &healed[partition].replicas;
        assert!(!is.contains(&2));
        let mut places = was.replicas.iter().zip(is);
        assert!(
            places.all(|(was, is)| was == is || *was == 2),
            "{was:?} became {is:?}"
        );
    }
    assert_no_throttle(&cluster);
    verifier.stop().unwrap();
}

#[test]
fn a_broker_is_drained_and_replicas_are_as_many_as_asked_for() {
    let mut cluster = cluster(4);
    topic(&cluster, 6);
    let verifier = verifier(&cluster, 6);
    balance(&mut cluster, &["--drain", "1", "--heal-only"]);
    let drained = settled(&cluster);
    assert_eq!(on(&drained, 1), 0);
    assert_eq!(
        (on(&drained, 2), on(&drained, 3), on(&drained, 4)),
        (6, 6, 6)
    );
    balance(&mut cluster, &["--replicas", "orders=2", "--heal-only"]);
    let fewer = settled(&cluster);
    assert!(fewer.values().all(|one| one.replicas.len() == 2));
    balance(&mut cluster, &["--replicas", "orders=4", "--heal-only"]);
    let more = settled(&cluster);
    assert!(more.values().all(|one| one.replicas.len() == 4));
    // Fewer than have to be in sync, and more than there are brokers.
    for wanted in ["orders=1", "orders=5"] {
        let arguments = ["--replicas", wanted, "--heal-only"];
        let refused = Balancer::start(&mut cluster, &arguments).finish();
        assert!(!refused.status.success(), "{wanted}");
    }
    assert_eq!(settled(&cluster), more);
    assert_no_throttle(&cluster);
    verifier.stop().unwrap();
}

#[test]
fn after_a_balancer_was_killed_no_throttle_stays_and_foreign_moves_are_left_alone() {
    let mut cluster = cluster(4);
    topic(&cluster, 6);
    let data = Produce {
        topic: TOPIC.to_owned(),
        partitions: 6,
        record_size: 1000,
        records_per_batch: 10,
        total_bytes: 6_000_000,
        connections: 1,
        in_flight: 5,
        acks: -1,
    };
    // A broker may not have heard of the topic yet.
    let bootstrap = cluster.bootstrap();
    until(PATIENCE, || produce(&bootstrap[0], &data).ok()).unwrap();
    settled(&cluster);

    // Somebody else's move, slow enough to meet ours.
    let admin = Admin::new(AdminOptions::new(cluster.bootstrap())).unwrap();
    let foreign = TopicPartition::new(TOPIC, 5);
    let four = BrokerId(4);
    let target = vec![four, BrokerId(1), BrokerId(2)];
    wait(async {
        let set = |resource, key: &str, value: &str| ConfigChanges {
            resource,
            changes: vec![(key.to_owned(), ConfigOp::Set(value.to_owned()))],
        };
        let throttles = [
            set(
                ConfigResource::Topic(TopicName::from(TOPIC)),
                "follower.replication.throttled.replicas",
                "5:4",
            ),
            set(
                ConfigResource::Broker(four),
                "follower.replication.throttled.rate",
                "50000",
            ),
        ];
        for change in throttles {
            let changed = admin.incremental_alter_configs(&[change]).await.unwrap();
            assert_eq!(changed, [Ok(())]);
        }
        let moves = [Reassign {
            partition: foreign.clone(),
            target: Some(target.clone()),
        }];
        let errors = admin.alter_partition_reassignments(&moves).await.unwrap();
        assert!(errors.is_empty(), "{errors:?}");
    });
    // Its own connections belong to a runtime that has ended.
    drop(admin);

    let slow = ["--drain", "3", "--heal-only", "--throttle", "200000"];
    let killed = Balancer::start(&mut cluster, &slow);
    let running = |cluster: &Cluster| {
        wait(async {
            let admin = Admin::new(AdminOptions::new(cluster.bootstrap())).unwrap();
            admin.list_partition_reassignments(None).await.unwrap()
        })
    };
    until(PATIENCE, || (running(&cluster).len() > 1).then_some(())).unwrap();
    killed.kill();
    let all = running(&cluster);
    // It may be done by now: throttles reach brokers a little later than moves.
    if let Some(found) = all.get(&foreign) {
        assert_eq!(found.target(), target);
    }

    // The next one waits for the lock, leaves alone what runs, and takes throttles off as moves end.
    balance(&mut cluster, &["--drain", "3", "--heal-only"]);
    let drained = settled(&cluster);
    assert_eq!(on(&drained, 3), 0);
    assert_eq!(drained[&5].replicas, [4, 1, 2]);
    assert!(running(&cluster).is_empty());
    assert_no_throttle(&cluster);
}
