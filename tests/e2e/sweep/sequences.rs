//! Walks through the states that clients keep in a broker, in which each request depends on what came before it: members
//! of groups that wait for each other, transactions whose steps are out of order, sessions of fetches, settings that are
//! appended to, topics that go and come back (`tests/clients/java/sequences`).
//!
//! Kafka 3.9.1's answers are kept in `golden/wire/sequences.json.gz`. `BARNABAS_RECORD_SEQUENCES=<seed>` asks Kafka anew
//! and writes that file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use barnabas_tests::broker::{Broker, BrokerKind, BrokerOptions};
use barnabas_tests::tools::{repository, test_tool};
use barnabas_tests::wait::until;
use barnabas_tests::wire::{Answer, WireClient, decode_response};
use barnabas_tests::zookeeper_server::ZooKeeperServer;
use base64::Engine as _;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, DescribeGroupsRequest, DescribeTransactionsRequest, FetchRequest,
    FetchResponse, FindCoordinatorRequest, GroupId, InitProducerIdRequest, JoinGroupRequest,
    JoinGroupResponse, MetadataRequest, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Request as _, StrBytes};
use serde::Deserialize;

use super::{Asked, Case, RECORDED_PORT, Report, Substitution, hex, read_recording, substitute};

const PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing may come to who waits for others.
const SILENCE: Duration = Duration::from_millis(150);

/// How many walks of each theme are recorded.
const WALKS: &str = "4";

/// Error codes that a step waits for.
const NONE: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const TRANSACTIONAL_ID_NOT_FOUND: i16 = 105;

#[derive(Deserialize)]
struct Sequences {
    cases: Vec<Step>,
}

/// A request, the answer to one that had to wait, or something to wait for.
#[derive(Deserialize)]
struct Step {
    #[serde(flatten)]
    case: Case,
    /// Its connection.
    #[serde(default)]
    on: usize,
    /// The answer comes in another step.
    #[serde(default)]
    later: bool,
    settle: Option<Settle>,
    name: Option<String>,
    /// The id that the topic had in the recording, in Base64.
    id: Option<String>,
}

/// What a walk waits for before it goes on.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Settle {
    /// The coordinator of a group answers.
    Group,
    /// The coordinator of a transactional id answers.
    Transaction,
    /// All partitions of a topic have leaders.
    Led,
    /// A topic is gone, and could be made anew.
    Gone,
    /// A transaction is not on its way to its end.
    Ended,
    /// What was changed has come by way of ZooKeeper; the next request is repeated until it has.
    Pause,
}

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/wire/sequences.json.gz")
}

fn options(directory: &Path, zookeeper: &ZooKeeperServer) -> BrokerOptions {
    let mut options = BrokerOptions::new(directory, &zookeeper.connect())
        .with("group.min.session.timeout.ms", 1000)
        .with("log.retention.ms", -1)
        .with("num.partitions", 1)
        .with("auto.create.topics.enable", false);
    options.id = 0;
    options
}

/// Has the Java program ask Kafka.
fn record(seed: &str) {
    let directory = tempfile::tempdir().unwrap();
    let zookeeper = ZooKeeperServer::start().unwrap();
    let mut options = options(directory.path(), &zookeeper).of_kind(BrokerKind::Kafka);
    options.port = RECORDED_PORT.parse().unwrap();
    let broker = options.start().unwrap();
    let written = directory.path().join("sequences.json");
    let program = repository().join("tests/clients/java/sequences/Sequences.java");
    let status = Command::new("java")
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-cp"])
        .arg(test_tool("java-3.9.1").join("*"))
        .arg(program)
        .args([&broker.address(), seed, WALKS])
        .arg(&written)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let file = File::create(recording()).unwrap();
    let mut packed = GzEncoder::new(file, Compression::best());
    packed.write_all(&std::fs::read(written).unwrap()).unwrap();
    packed.finish().unwrap();
}

/// The walks as they are repeated.
struct Walks<'a> {
    broker: &'a Broker,
    /// Asks what no step asks.
    observer: WireClient,
    connections: Vec<WireClient>,
    /// Walk of the last step; each has connections of its own.
    walk: String,
    substitutions: BTreeMap<Vec<u8>, Vec<u8>>,
    report: Report,
}

impl Walks<'_> {
    fn step(&mut self, step: &Step) {
        let (walk, _) = step
            .case
            .case
            .split_once(' ')
            .unwrap_or((&step.case.case, ""));
        if self.walk != walk {
            walk.clone_into(&mut self.walk);
            let fresh = (0..3).map(|_| WireClient::connect(&self.broker.address()).unwrap());
            self.connections = fresh.collect();
        }
        if let Some(settle) = step.settle {
            self.settle(settle, step);
            return;
        }
        let connection = &mut self.connections[step.on];
        let frame = step.case.request.as_deref().map(|request| {
            let known = self.substitutions.iter();
            let known: Vec<Substitution> =
                known.map(|(from, to)| (from.clone(), to.clone())).collect();
            substitute(hex(request), &known)
        });
        let answer = match &frame {
            Some(frame) if step.later => {
                connection.send_frame(frame).unwrap();
                self.wait_for_its_wait(step);
                return;
            }
            Some(frame) => connection.exchange(frame).unwrap(),
            None => connection.receive().unwrap(),
        };
        if let Answer::Frame(ours) = &answer
            && let Some(theirs) = &step.case.response
        {
            self.learn(&step.case, hex(theirs).into(), ours.clone());
        }
        let asked = Asked {
            case: &step.case,
            frame: frame.unwrap_or_default(),
            answer,
            passing: |_| false,
            // Markers have the time in them.
            hidden: &["records"],
        };
        asked.judge(&mut self.observer, self.broker, &mut self.report);
    }

    /// Waits until a request has come to where it waits for others.
    fn wait_for_its_wait(&mut self, step: &Step) {
        let stream = self.connections[step.on].stream();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        let is_silent = stream.peek(&mut [0]).is_err();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if !is_silent {
            let name = step.case.name();
            self.report
                .failures
                .push(format!("{name}\n  is answered at once\n"));
        }
        if step.case.key == Some(JoinGroupRequest::KEY) {
            let group = step.name.as_deref().unwrap_or_default();
            let group = GroupId(StrBytes::from_string(group.to_owned()));
            let describe = DescribeGroupsRequest::default().with_groups(vec![group]);
            until(PATIENCE, || {
                let described = self.observer.request(&describe, 5).unwrap();
                (&*described.groups[0].group_state == "PreparingRebalance").then_some(())
            })
            .unwrap();
        }
    }

    /// Takes note of random names that later requests repeat.
    fn learn(&mut self, case: &Case, theirs: Bytes, ours: Bytes) {
        let mut same = |theirs: &[u8], ours: &[u8]| {
            if theirs.len() == ours.len() && theirs != ours {
                self.substitutions.insert(theirs.to_vec(), ours.to_vec());
            }
        };
        match case.key {
            Some(JoinGroupRequest::KEY) => {
                let id = |frame| {
                    let joined = decode_response::<JoinGroupResponse>(frame, case.version, 7);
                    joined.map(|joined| joined.member_id.to_string())
                };
                if let (Ok(theirs), Ok(ours)) = (id(theirs), id(ours)) {
                    same(theirs.as_bytes(), ours.as_bytes());
                }
            }
            Some(FetchRequest::KEY) if case.version >= 7 => {
                let id = |frame| {
                    let fetched = decode_response::<FetchResponse>(frame, case.version, 7);
                    fetched.map(|fetched| fetched.session_id)
                };
                if let (Ok(theirs @ 1..), Ok(ours @ 1..)) = (id(theirs), id(ours)) {
                    same(&theirs.to_be_bytes(), &ours.to_be_bytes());
                }
            }
            _ => {}
        }
    }

    fn settle(&mut self, settle: Settle, step: &Step) {
        let name = step.name.as_deref().unwrap_or_default();
        let text = StrBytes::from_string(name.to_owned());
        let observer = &mut self.observer;
        match settle {
            Settle::Group | Settle::Transaction => {
                let is_group = matches!(settle, Settle::Group);
                let find = FindCoordinatorRequest::default()
                    .with_key_type(i8::from(!is_group))
                    .with_coordinator_keys(vec![text.clone()]);
                let is_ready = |observer: &mut WireClient| {
                    let found = observer.request(&find, 4).unwrap();
                    if found.coordinators[0].error_code != NONE {
                        return false;
                    }
                    if is_group {
                        let describe = DescribeGroupsRequest::default()
                            .with_groups(vec![GroupId(text.clone())]);
                        observer.request(&describe, 5).unwrap().groups[0].error_code == NONE
                    } else {
                        let (code, _) = transaction(observer, &text);
                        code == TRANSACTIONAL_ID_NOT_FOUND
                    }
                };
                until(PATIENCE, || is_ready(observer).then_some(())).unwrap();
            }
            Settle::Led => {
                let request = metadata(&text);
                let id = until(PATIENCE, || {
                    let answer = observer.request(&request, 12).unwrap();
                    let topic = &answer.topics[0];
                    let are_led = topic.partitions.iter().all(|one| one.error_code == NONE);
                    (topic.error_code == NONE && are_led).then_some(topic.topic_id)
                })
                .unwrap();
                let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
                let recorded = engine.decode(step.id.as_deref().unwrap()).unwrap();
                self.substitutions.insert(recorded, id.as_bytes().to_vec());
            }
            Settle::Gone => {
                let topic = CreatableTopic::default()
                    .with_name(TopicName(text.clone()))
                    .with_num_partitions(1)
                    .with_replication_factor(1);
                let create = CreateTopicsRequest::default()
                    .with_topics(vec![topic])
                    .with_timeout_ms(10_000)
                    .with_validate_only(true);
                let request = metadata(&text);
                until(PATIENCE, || {
                    let known = observer.request(&request, 12).unwrap().topics[0].error_code;
                    let made = observer.request(&create, 5).unwrap().topics[0].error_code;
                    (known == UNKNOWN_TOPIC_OR_PARTITION && made == NONE).then_some(())
                })
                .unwrap();
            }
            Settle::Ended => {
                until(PATIENCE, || {
                    let (_, state) = transaction(observer, &text);
                    (!state.starts_with("Prepare")).then_some(())
                })
                .unwrap();
            }
            Settle::Pause => {}
        }
    }
}

fn metadata(topic: &StrBytes) -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(topic.clone())));
    MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(false)
}

/// Error code and state of a transactional id.
fn transaction(observer: &mut WireClient, id: &StrBytes) -> (i16, String) {
    let describe = DescribeTransactionsRequest::default()
        .with_transactional_ids(vec![TransactionalId(id.clone())]);
    let answer = observer.request(&describe, 0).unwrap();
    let state = &answer.transaction_states[0];
    (state.error_code, state.transaction_state.to_string())
}

#[test]
fn requests_that_depend_on_each_other_are_answered_as_by_kafka() {
    if let Ok(seed) = std::env::var("BARNABAS_RECORD_SEQUENCES") {
        record(&seed);
    }
    let sequences: Sequences = read_recording(&recording());
    let directory = tempfile::tempdir().unwrap();
    let zookeeper = ZooKeeperServer::start().unwrap();
    let broker = options(directory.path(), &zookeeper).start().unwrap();
    let mut observer = WireClient::connect(&broker.address()).unwrap();
    // As in the recording, the first producer id is nobody's.
    let somebody = InitProducerIdRequest::default().with_transaction_timeout_ms(1000);
    until(PATIENCE, || {
        let answer = observer.request(&somebody.clone().with_transactional_id(None), 4);
        (answer.unwrap().error_code == NONE).then_some(())
    })
    .unwrap();
    let mut walks = Walks {
        broker: &broker,
        observer,
        connections: Vec::new(),
        walk: String::new(),
        substitutions: BTreeMap::new(),
        report: Report::default(),
    };
    for step in &sequences.cases {
        walks.step(step);
    }
    walks.report.finish();
}
