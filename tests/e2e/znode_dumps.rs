//! The same steps on Apache Kafka 3.9.1 and on ours leave the same znodes, but for ids and times.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use barnabas_tests::broker::{Broker, BrokerKind, BrokerOptions};
use barnabas_tests::ports::free_port;
use barnabas_tests::wait;
use barnabas_tests::zookeeper_server::ZooKeeperServer;
use serde_json::Value;
use zookeeper_client::Client;

use crate::kcat::kcat_prints;
use crate::kill_loop::start_after_kill;
use crate::tools::kafka_tool;

const PATIENCE: Duration = Duration::from_secs(30);
/// A tree that stays the same for this many polls in a row has come to rest.
const POLLS_AT_REST: usize = 25;
/// JSON keys whose values differ from run to run.
const RUN_KEYS: [&str; 3] = ["id", "timestamp", "topic_id"];

/// Path to data version, kind and data of each znode.
type Dump = BTreeMap<String, String>;

struct Tree {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Tree {
    fn of(zookeeper: &ZooKeeperServer) -> Tree {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime
            .block_on(Client::connect(&zookeeper.connect()))
            .unwrap();
        Tree { runtime, client }
    }

    /// All znodes, once nothing changes any more.
    fn at_rest(&self) -> Dump {
        let (mut last, mut polls) = (Dump::new(), 0);
        let rested = wait::until(PATIENCE, || {
            let dump = self.runtime.block_on(self.dump());
            polls = if dump == last { polls + 1 } else { 0 };
            last = dump;
            (polls >= POLLS_AT_REST).then_some(())
        });
        assert!(
            rested.is_some(),
            "the tree does not come to rest: {last:#?}"
        );
        last
    }

    async fn dump(&self) -> Dump {
        let mut dump = Dump::new();
        let mut paths = vec![String::from("/")];
        while let Some(path) = paths.pop() {
            // A node may go while the tree is walked; the next walk sees it gone.
            let Ok((data, stat)) = self.client.get_data(&path).await else {
                continue;
            };
            let Ok(children) = self.client.list_children(&path).await else {
                continue;
            };
            let parent = if path == "/" { "" } else { &path };
            paths.extend(children.iter().map(|child| format!("{parent}/{child}")));
            if path == "/" || path.starts_with("/zookeeper") {
                continue;
            }
            let kind = if stat.ephemeral_owner == 0 {
                "persistent"
            } else {
                "ephemeral"
            };
            dump.insert(
                path,
                format!("version {} {kind} {}", stat.version, canonical(&data)),
            );
        }
        dump
    }
}

/// JSON with its keys in order and the values of one run masked; any other data as it is.
fn canonical(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data).into_owned();
    let Ok(Value::Object(mut object)) = serde_json::from_str(&text) else {
        return text;
    };
    for key in RUN_KEYS {
        object
            .entry(key)
            .and_modify(|value| *value = Value::from("*"));
    }
    Value::Object(object).to_string()
}

fn difference(kafka: &Dump, ours: &Dump) -> String {
    let mut text = String::new();
    for (path, wanted) in kafka {
        match ours.get(path) {
            Some(found) if found == wanted => {}
            Some(found) => {
                let _ = writeln!(text, "{path}\n  Kafka: {wanted}\n  ours:  {found}");
            }
            None => {
                let _ = writeln!(text, "{path}\n  Kafka: {wanted}\n  ours:  none");
            }
        }
    }
    for (path, found) in ours.iter().filter(|(path, _)| !kafka.contains_key(*path)) {
        let _ = writeln!(text, "{path}\n  Kafka: none\n  ours:  {found}");
    }
    text
}

/// Lives through all steps with a broker of this kind; a dump for each step.
fn story(kind: BrokerKind, port: u16) -> Vec<(&'static str, Dump)> {
    let zookeeper = ZooKeeperServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut options = BrokerOptions::new(directory.path(), &zookeeper.connect())
        .of_kind(kind)
        // Ours says in its registration that it may be failed over fast; that is tested elsewhere.
        .with("barnabas.fast.failover.enable", false)
        .with("zookeeper.session.timeout.ms", 2000);
    options.port = port;
    let address = options.address();
    let tree = Tree::of(&zookeeper);
    let mut dumps = Vec::new();
    let mut note = |step| dumps.push((step, tree.at_rest()));

    let topics = |arguments: &[&str]| {
        let server = ["--bootstrap-server", &address];
        kafka_tool(
            "org.apache.kafka.tools.TopicCommand",
            &[&server, arguments].concat(),
        );
    };
    let alter = |entity: &[&str], change: &[&str]| {
        let start = ["--bootstrap-server", &address, "--alter"];
        kafka_tool(
            "kafka.admin.ConfigCommand",
            &[&start, entity, change].concat(),
        );
    };
    let topic = ["--entity-type", "topics", "--entity-name", "made"];

    let mut broker: Broker = options.start().unwrap();
    note("start");
    topics(&[
        "--create",
        "--topic",
        "made",
        "--partitions",
        "2",
        "--config",
        "retention.ms=3600000",
    ]);
    note("create a topic");
    kcat_prints(&address, &["-P", "-t", "auto"], "hello\n");
    note("create one by producing");
    alter(
        &topic,
        &[
            "--add-config",
            "segment.bytes=1048576,cleanup.policy=[compact,delete]",
        ],
    );
    note("alter its settings");
    alter(&topic, &["--delete-config", "retention.ms"]);
    note("delete one of them");
    let change = ["--add-config", "log.cleaner.threads=2"];
    alter(&["--entity-type", "brokers", "--entity-name", "0"], &change);
    note("alter the broker's settings");
    let change = ["--add-config", "log.retention.ms=7200000"];
    alter(&["--entity-type", "brokers", "--entity-default"], &change);
    note("alter all brokers' settings");
    topics(&["--alter", "--topic", "made", "--partitions", "4"]);
    note("add partitions");
    kcat_prints(
        &address,
        &["-P", "-t", "auto", "-X", "enable.idempotence=true"],
        "hello\n",
    );
    note("produce idempotently");
    topics(&["--delete", "--topic", "made"]);
    note("delete a topic");
    broker.stop().unwrap();
    note("stop");
    broker = options.start().unwrap();
    broker.wait_for_leaders("auto").unwrap();
    note("start again");
    broker.kill();
    let mut broker = start_after_kill(&options);
    broker.wait_for_leaders("auto").unwrap();
    note("start after kill -9");
    dumps
}

#[test]
fn the_same_steps_leave_the_same_znodes() {
    let port = free_port();
    let kafka = story(BrokerKind::Kafka, port);
    let ours = story(BrokerKind::under_test(), port);
    let mut differences = String::new();
    for ((step, kafka), (_, ours)) in kafka.iter().zip(&ours) {
        let difference = difference(kafka, ours);
        if !difference.is_empty() {
            let _ = writeln!(differences, "--- after: {step}\n{difference}");
        }
    }
    assert!(differences.is_empty(), "{differences}");
}
