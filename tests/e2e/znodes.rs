//! The recorded one-broker scenario, step by step: the same paths, data, versions and order of changes as Apache
//! Kafka 3.9.1 left, but for ids and times.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use barnabas_tests::broker::{Broker, BrokerKind, BrokerOptions};
use barnabas_tests::wait;
use barnabas_tests::zookeeper_server::ZooKeeperServer;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::read::GzDecoder;
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterConfigsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, MetadataRequest,
    ProducerId, TopicName, incremental_alter_configs_request as incremental,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use serde_json::Value;
use zookeeper_client::{Acls, Client, CreateMode};

const PATIENCE: Duration = Duration::from_secs(30);
/// Where the recorded broker listened.
const RECORDED_PORT: &str = "29092";

/// One step of the recording.
struct Step {
    name: String,
    changed: Vec<String>,
    removed: Vec<String>,
    nodes: BTreeMap<String, Node>,
}

/// A node, of the recording or of ours.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    data: String,
    version: i32,
    /// Absent for the root, which belongs to ZooKeeper.
    cversion: Option<i32>,
    is_ephemeral: bool,
    /// Transactions that created it and changed it last: equal numbers are one transaction.
    czxid: i64,
    mzxid: i64,
}

/// How a step of the recording is taken.
enum Way {
    /// By a request, a signal, or a node written by hand, as then.
    Taken(fn(&mut World)),
    /// What the step wrote is written by hand, since what writes it is not there yet.
    StoodIn(&'static str),
    /// Not taken, and its dump is not compared: ours differs on purpose.
    LeftOut(&'static str),
}

/// How each step of the recording is taken, by the beginning of its name.
fn way(step: &str) -> Way {
    use Way::{LeftOut, StoodIn, Taken};
    const QUOTAS: &str = "quotas are not served yet";
    const SCRAM: &str = "SCRAM credentials are not served yet";
    const OLD_OFFSETS: &str = "OffsetCommit is not served yet";
    const RESTART: &str =
        "whoever holds the lock of its log directories does not wait for its own old session";
    let ways: [(&str, Way); 30] = [
        ("start fresh broker 20", Taken(World::start)),
        ("CreateTopics t1", Taken(World::create_t1)),
        ("CreateTopics t2", Taken(World::create_t2)),
        ("auto-create", Taken(|world| world.ask_for("auto1"))),
        // Coordinators make their topics when they are asked for; so does Metadata.
        (
            "FindCoordinator group",
            Taken(|world| world.ask_for("__consumer_offsets")),
        ),
        (
            "FindCoordinator txn",
            Taken(|world| world.ask_for("__transaction_state")),
        ),
        ("IncrementalAlterConfigs topic", Taken(World::alter_t1)),
        ("AlterConfigs (legacy)", Taken(World::replace_t1)),
        (
            "IncrementalAlterConfigs broker 20",
            Taken(World::alter_broker),
        ),
        (
            "IncrementalAlterConfigs broker default",
            Taken(World::alter_default_broker),
        ),
        ("AlterClientQuotas", StoodIn(QUOTAS)),
        ("AlterUserScramCredentials", StoodIn(SCRAM)),
        ("CreatePartitions t1", Taken(World::extend_t1)),
        ("InitProducerId", Taken(World::init_producer_id)),
        ("OffsetCommit v0", StoodIn(OLD_OFFSETS)),
        ("OffsetFetch v0", StoodIn(OLD_OFFSETS)),
        ("DeleteTopics t2", Taken(World::delete_t2)),
        (
            "legacy preferred_replica_election",
            Taken(|world| {
                let election = r#"{"version":1,"partitions":[{"topic":"t1","partition":0}]}"#;
                world.create("/admin/preferred_replica_election", election);
            }),
        ),
        (
            "delete_topics marker",
            Taken(|world| world.create("/admin/delete_topics/nosuch", "")),
        ),
        ("isr_change and log_dir_event", Taken(World::notify)),
        (
            "topic znode v1",
            Taken(|world| {
                world.create(
                    "/brokers/topics/byhand",
                    r#"{"version":1,"partitions":{"0":[20]}}"#,
                );
            }),
        ),
        (
            "/controller deleted",
            Taken(|world| world.delete("/controller")),
        ),
        ("/controller_epoch set", Taken(World::fence)),
        ("clean stop", Taken(World::stop)),
        ("start again", Taken(World::start)),
        ("kill -9", Taken(World::kill)),
        ("restart at once", LeftOut(RESTART)),
        ("old session expired", LeftOut(RESTART)),
        ("start after expiry", Taken(World::start)),
        ("broker without broker.id", Taken(World::replace_broker)),
    ];
    let mut ways = ways.into_iter();
    let found = ways.find(|(name, _)| step.starts_with(name));
    found
        .unwrap_or_else(|| panic!("no way to take the step {step}"))
        .1
}

fn recording() -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/znodes/one-broker.json.gz");
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let steps: Vec<Value> = serde_json::from_str(&text).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        let values = value.as_array().unwrap().iter();
        values
            .map(|value| value.as_str().unwrap().to_owned())
            .collect()
    };
    let steps = steps.into_iter().map(|step| Step {
        name: step["step"].as_str().unwrap().to_owned(),
        changed: texts(&step["changedInOrder"]),
        removed: texts(&step["removed"]),
        nodes: step["znodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(recorded_node)
            .collect(),
    });
    steps.collect()
}

fn recorded_node(node: &Value) -> (String, Node) {
    let int = |key: &str| node[key].as_i64();
    let found = Node {
        data: node["data"].as_str().unwrap_or_default().to_owned(),
        version: int("version").unwrap() as i32,
        cversion: int("cversion").map(|cversion| cversion as i32),
        is_ephemeral: node["ephemeral"].as_bool().unwrap(),
        czxid: int("czxidRank").unwrap(),
        mzxid: int("mzxidRank").unwrap(),
    };
    (node["path"].as_str().unwrap().to_owned(), found)
}

/// JSON with its keys in order and what differs from run to run masked; other data as it is.
fn canonical(data: &str, port: u16) -> String {
    let text = data.replace(RECORDED_PORT, &port.to_string());
    let Ok(Value::Object(mut object)) = serde_json::from_str(&text) else {
        return text;
    };
    for key in ["id", "timestamp", "topic_id"] {
        let masked = object.entry(key);
        masked.and_modify(|value| *value = Value::from("*"));
    }
    Value::Object(object).to_string()
}

struct World {
    runtime: tokio::runtime::Runtime,
    client: Client,
    options: BrokerOptions,
    broker: Option<Broker>,
    last: BTreeMap<String, Node>,
}

impl World {
    fn new(zookeeper: &ZooKeeperServer, directory: &Path) -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let root = runtime
            .block_on(Client::connect(&zookeeper.connect()))
            .unwrap();
        let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
        runtime.block_on(root.create("/z", b"", &open)).unwrap();
        let connect = format!("{}/z", zookeeper.connect());
        let client = runtime.block_on(Client::connect(&connect)).unwrap();
        let mut options = BrokerOptions::new(directory, &connect)
            .of_kind(BrokerKind::under_test())
            // Ours says in its registration that it may be failed over fast; that is tested elsewhere.
            .with("barnabas.fast.failover.enable", false)
            .with("broker.rack", "r1")
            .with("log.retention.ms", -1);
        options.id = 20;
        World {
            runtime,
            client,
            options,
            broker: None,
            last: BTreeMap::new(),
        }
    }

    /// All nodes, in the order of a walk down the tree.
    fn dump(&self) -> Vec<(String, Node)> {
        self.runtime.block_on(async {
            let (mut nodes, mut paths) = (Vec::new(), vec![String::from("/")]);
            while let Some(path) = paths.pop() {
                // A node may go while the tree is walked; the next walk sees it gone.
                let Ok((data, stat)) = self.client.get_data(&path).await else {
                    continue;
                };
                let Ok(mut children) = self.client.list_children(&path).await else {
                    continue;
                };
                children.sort_unstable();
                let parent = if path == "/" { "" } else { &path };
                let below = children.iter().rev();
                paths.extend(below.map(|child| format!("{parent}/{child}")));
                let node = Node {
                    data: String::from_utf8_lossy(&data).into_owned(),
                    version: stat.version,
                    cversion: (path != "/").then_some(stat.cversion),
                    is_ephemeral: stat.ephemeral_owner != 0,
                    czxid: stat.czxid,
                    mzxid: stat.mzxid,
                };
                nodes.push((path, node));
            }
            nodes
        })
    }

    /// What is not as it was recorded, and the dump.
    fn differences(&self, step: &Step) -> (String, BTreeMap<String, Node>) {
        let mut dumped = self.dump();
        let mut changed: Vec<(i64, String)> = dumped
            .iter()
            .filter(|(path, node)| {
                let last = self.last.get(path);
                last.is_none_or(|last| (last.czxid, last.mzxid) != (node.czxid, node.mzxid))
            })
            .map(|(path, node)| (node.mzxid, path.clone()))
            .collect();
        changed.sort_by_key(|(mzxid, _)| *mzxid);
        let changed: Vec<String> = changed.into_iter().map(|(_, path)| path).collect();
        let zxids = dumped.iter().flat_map(|(_, node)| [node.czxid, node.mzxid]);
        let zxids: BTreeSet<i64> = zxids.collect();
        let ranks: BTreeMap<i64, i64> = zxids.into_iter().zip(0..).collect();
        let found: BTreeMap<String, Node> = dumped.iter().cloned().collect();
        for (_, node) in &mut dumped {
            (node.czxid, node.mzxid) = (ranks[&node.czxid], ranks[&node.mzxid]);
        }
        let ranked: BTreeMap<String, Node> = dumped.into_iter().collect();
        (self.compare(step, &changed, &ranked), found)
    }

    fn compare(&self, step: &Step, changed: &[String], ranked: &BTreeMap<String, Node>) -> String {
        let mut text = String::new();
        let paths: BTreeSet<&String> = step.nodes.keys().chain(ranked.keys()).collect();
        // The order in which all partitions of a broker that is gone are written is that of a hash table.
        let has_order = !step.name.starts_with("broker without");
        let shown = |node: Option<&Node>| {
            let Some(node) = node else {
                return "none".to_owned();
            };
            let mut node = node.clone();
            node.data = canonical(&node.data, self.options.port);
            if !has_order {
                (node.czxid, node.mzxid) = (0, 0);
            }
            format!("{node:?}")
        };
        for path in paths {
            let (wanted, found) = (shown(step.nodes.get(path)), shown(ranked.get(path)));
            if wanted != found {
                let _ = writeln!(text, "{path}\n  recorded: {wanted}\n  found:    {found}");
            }
        }
        if has_order && changed != step.changed {
            let _ = writeln!(
                text,
                "order\n  recorded: {:?}\n  found:    {changed:?}",
                step.changed
            );
        }
        text
    }

    fn start(&mut self) {
        self.broker = Some(self.options.start().unwrap());
    }

    fn stop(&mut self) {
        self.broker.take().unwrap().stop().unwrap();
    }

    fn kill(&mut self) {
        self.broker.take().unwrap().kill();
    }

    fn replace_broker(&mut self) {
        self.stop();
        let directory = self.options.directory.join("generated");
        self.options.directory = directory;
        self.options.properties.remove("broker.rack");
        self.options.id = -1;
        self.broker = Some(self.options.start().unwrap());
    }

    fn create(&mut self, path: &str, data: &str) {
        let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let created = self.client.create(path, data.as_bytes(), &open);
        self.runtime.block_on(created).unwrap();
    }

    fn create_sequential(&mut self, path: &str, data: &str) {
        let open = CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
        let created = self.client.create(path, data.as_bytes(), &open);
        self.runtime.block_on(created).unwrap();
    }

    fn set(&mut self, path: &str, data: &str) {
        let set = self.client.set_data(path, data.as_bytes(), None);
        self.runtime.block_on(set).unwrap();
    }

    fn delete(&mut self, path: &str) {
        let deleted = self.client.delete(path, None);
        self.runtime.block_on(deleted).unwrap();
    }

    fn notify(&mut self) {
        let change = r#"{"version":1,"partitions":[{"topic":"t1","partition":0}]}"#;
        self.create_sequential("/isr_change_notification/isr_change_", change);
        let failure = r#"{"version":1,"broker":20,"event":1}"#;
        self.create_sequential("/log_dir_event_notification/log_dir_event_", failure);
    }

    /// Writes by hand what a step wrote.
    fn stand_in(&mut self, step: &Step) {
        for path in &step.changed {
            let data = &step.nodes[path].data;
            match path.strip_prefix("/config/changes/config_change_") {
                Some(_) => self.create_sequential("/config/changes/config_change_", data),
                None if self.last.contains_key(path) => self.set(path, data),
                None => self.create(path, data),
            }
        }
        for path in step.removed.iter().rev() {
            self.delete(path);
        }
    }

    fn request<R>(&self, version: i16, request: &R) -> R::Response
    where
        R: Request + HeaderVersion,
    {
        let mut frame = BytesMut::new();
        frame.put_i16(R::KEY);
        frame.put_i16(version);
        frame.put_i32(7);
        frame.put_i16(-1);
        if R::header_version(version) >= 2 {
            frame.put_u8(0);
        }
        request.encode(&mut frame, version).unwrap();
        let mut stream = TcpStream::connect(self.options.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(&(frame.len() as u32).to_be_bytes())
            .unwrap();
        stream.write_all(&frame).unwrap();
        let mut size = [0; 4];
        stream.read_exact(&mut size).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut answer).unwrap();
        let mut answer = Bytes::from(answer);
        answer.advance(4);
        if R::Response::header_version(version) >= 1 {
            answer.advance(1);
        }
        R::Response::decode(&mut answer, version).unwrap()
    }

    fn create_topic(&self, topic: CreatableTopic, timeout_ms: i32) -> i16 {
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(timeout_ms);
        self.request(7, &request).topics[0].error_code
    }

    fn create_t1(&mut self) {
        let config = CreatableTopicConfig::default()
            .with_name(text("retention.ms"))
            .with_value(Some(text("1000000")));
        let topic = CreatableTopic::default()
            .with_name(topic("t1"))
            .with_num_partitions(3)
            .with_replication_factor(1)
            .with_configs(vec![config]);
        assert_eq!(self.create_topic(topic, 30_000), 0);
    }

    fn create_t2(&mut self) {
        let assignment = |partition| {
            CreatableReplicaAssignment::default()
                .with_partition_index(partition)
                .with_broker_ids(vec![BrokerId(20)])
        };
        let topic = CreatableTopic::default()
            .with_name(topic("t2"))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![assignment(0), assignment(1)]);
        assert_eq!(self.create_topic(topic, 30_000), 0);
    }

    fn ask_for(&mut self, name: &str) {
        let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![asked]))
            .with_allow_auto_topic_creation(true);
        self.request(12, &request);
    }

    fn alter_incrementally(&self, kind: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) {
        let changes = changes.iter().map(|(key, operation, value)| {
            incremental::AlterableConfig::default()
                .with_name(text(key))
                .with_config_operation(*operation)
                .with_value(value.map(text))
        });
        let resource = incremental::AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(changes.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.request(1, &request);
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }

    fn alter_t1(&mut self) {
        let changes = [
            ("cleanup.policy", 0, Some("compact")),
            ("retention.ms", 1, None),
        ];
        self.alter_incrementally(2, "t1", &changes);
    }

    fn alter_broker(&mut self) {
        self.alter_incrementally(4, "20", &[("log.retention.ms", 0, Some("700000000"))]);
    }

    fn alter_default_broker(&mut self) {
        self.alter_incrementally(4, "", &[("log.cleaner.threads", 0, Some("1"))]);
    }

    fn replace_t1(&mut self) {
        let config = AlterableConfig::default()
            .with_name(text("flush.ms"))
            .with_value(Some(text("5000")));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("t1"))
            .with_configs(vec![config]);
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.request(2, &request);
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }

    fn extend_t1(&mut self) {
        let more = CreatePartitionsTopic::default()
            .with_name(topic("t1"))
            .with_count(5)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![more])
            .with_timeout_ms(10_000);
        let answer = self.request(3, &request);
        assert_eq!(answer.results[0].error_code, 0, "{answer:?}");
    }

    fn init_producer_id(&mut self) {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        self.request(4, &request);
    }

    fn delete_t2(&mut self) {
        let named = DeleteTopicState::default().with_name(Some(topic("t2")));
        let request = DeleteTopicsRequest::default()
            .with_topics(vec![named])
            .with_timeout_ms(30_000);
        let answer = self.request(6, &request);
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }

    /// Somebody else raises the epoch: the controller can write no more, though it stays controller.
    fn fence(&mut self) {
        self.set("/controller_epoch", "77");
        let topic = CreatableTopic::default()
            .with_name(topic("t3"))
            .with_num_partitions(1)
            .with_replication_factor(1);
        assert_eq!(self.create_topic(topic, 3000), 7);
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

#[test]
fn the_recorded_steps_leave_the_recorded_znodes() {
    let zookeeper = ZooKeeperServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(&zookeeper, directory.path());
    let mut differences = String::new();
    for step in recording() {
        match way(&step.name) {
            Way::Taken(take) => take(&mut world),
            Way::StoodIn(reason) => {
                eprintln!("written by hand: {} ({reason})", step.name);
                world.stand_in(&step);
            }
            Way::LeftOut(reason) => {
                eprintln!("left out: {} ({reason})", step.name);
                continue;
            }
        }
        // What follows from the step takes its time, and what is right does not change any more.
        let same = wait::until(PATIENCE, || {
            world.differences(&step).0.is_empty().then_some(())
        });
        let (different, dump) = world.differences(&step);
        if same.is_none() || !different.is_empty() {
            let _ = writeln!(differences, "--- after: {}\n{different}", step.name);
            break;
        }
        world.last = dump;
    }
    assert!(differences.is_empty(), "{differences}");
}
