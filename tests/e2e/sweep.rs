//! Good and bad requests of every API and version, recorded from Apache Kafka 3.9.1 in one run against one
//! fresh broker. Sent in the same order to ours, each must be answered alike, or closed alike.

mod deviations;
mod generated;
mod responses;
mod sequences;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, Instant};

use barnabas_tests::broker::{Broker, BrokerOptions};
use barnabas_tests::debug_tree::Tree;
use barnabas_tests::wait::until;
use barnabas_tests::wire::{Answer, WireClient};
use barnabas_tests::zookeeper_server::ZooKeeperServer;
use base64::Engine as _;
use bytes::Bytes;
use flate2::read::GzDecoder;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DescribeConfigsRequest, DescribeGroupsRequest,
    DescribeLogDirsRequest, InitProducerIdRequest, JoinGroupRequest, ListGroupsRequest,
    MetadataRequest, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Request as _, StrBytes};
use serde::Deserialize;
use serde_json::Value;
use zookeeper_client::Client;

use deviations::{Deviation, deviation_of};

/// Where the recorded broker listened.
const RECORDED_PORT: &str = "29092";

/// How long the recorded members are sure to belong to their groups: they have sessions of six seconds.
const MEMBERS_LIVE: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Sweep {
    varies: BTreeMap<String, Value>,
    /// Requests that led to the state in which the recording began, beside what [`prepare_topics`] and
    /// [`prepare_coordinators`] do.
    #[serde(default)]
    prepare: Vec<String>,
    cases: Vec<Case>,
}

/// One request and what Kafka made of it.
#[derive(Deserialize)]
struct Case {
    key: Option<i16>,
    api: Option<String>,
    #[serde(default)]
    version: i16,
    case: String,
    /// Hex, without the size; absent if the version has no such request.
    request: Option<String>,
    response: Option<String>,
    closed: bool,
    decoded: Option<Value>,
}

impl Case {
    fn name(&self) -> String {
        let api = self.api.as_deref().unwrap_or("frame");
        format!("{api} v{} {}", self.version, self.case)
    }
}

#[test]
fn every_recorded_request_is_answered_as_by_kafka() {
    let directory = tempfile::tempdir().unwrap();
    let zookeeper = ZooKeeperServer::start().unwrap();
    let mut options = BrokerOptions::new(directory.path(), &zookeeper.connect())
        .with("group.min.session.timeout.ms", 1000)
        .with("log.retention.ms", -1);
    options.id = 20;
    let broker = options.start().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/wire/sweep.json.gz");
    let sweep = read_sweep(&path);
    let mut client = WireClient::connect(&broker.address()).unwrap();
    prepare(&mut client, &sweep);
    let mut substitutions = substitutions(&mut client, &sweep);
    substitutions.push(broker_epochs(&zookeeper, &sweep));

    let mut report = Report::default();
    let mut joined_at = None;
    for case in &sweep.cases {
        let Some(request) = &case.request else {
            continue;
        };
        let (frame, answer) = if let Some(size) = request.strip_prefix("size field ") {
            (Vec::new(), lie_about_size(&broker, size.parse().unwrap()))
        } else {
            let frame = substitute(hex(request), &substitutions);
            let answer = client.exchange(&frame).unwrap();
            (frame, answer)
        };
        if case.key == Some(JoinGroupRequest::KEY) && case.case == "new member" {
            joined_at.get_or_insert_with(Instant::now);
        }
        // On a busy machine the members that joined are gone by now, and their groups' records say so.
        let is_late = joined_at.is_some_and(|joined: Instant| joined.elapsed() > MEMBERS_LIVE);
        if is_late
            && matches!(
                case.key,
                Some(ListGroupsRequest::KEY | DescribeGroupsRequest::KEY)
            )
        {
            continue;
        }
        let asked = Asked {
            case,
            frame,
            answer,
            passing: passing_topics(case, is_late),
            hidden: &[],
        };
        asked.judge(&mut client, &broker, &mut report);
    }
    report.finish();
    check_api_versions(&mut client);
}

/// A recorded request that was sent again.
struct Asked<'a> {
    case: &'a Case,
    frame: Vec<u8>,
    answer: Answer,
    passing: Passing,
    /// Fields of which is compared only whether there is anything.
    hidden: &'static [&'static str],
}

impl Asked<'_> {
    /// Compares the answer with the recorded one.
    fn judge(self, client: &mut WireClient, broker: &Broker, report: &mut Report) {
        let Self {
            case,
            passing,
            hidden,
            ..
        } = self;
        let mut difference = differences(case, self.answer, broker, passing, hidden);
        let asks_of_topics = [
            MetadataRequest::KEY,
            DeleteRecordsRequest::KEY,
            DescribeConfigsRequest::KEY,
        ]
        .map(Some);
        if !difference.is_empty() && asks_of_topics.contains(&case.key) {
            // Topics and settings come and go when the controller or ZooKeeper has told everybody.
            until(Duration::from_secs(5), || {
                let answer = client.exchange(&self.frame).unwrap();
                difference = differences(case, answer, broker, passing, hidden);
                difference.is_empty().then_some(())
            });
        }
        let deviation = deviation_of(case.key, case.version, &case.case);
        report.judge(case, &difference, deviation);
    }
}

/// One recorded `ApiVersions` request.
#[derive(Deserialize)]
struct ApiVersionsCase {
    request: Option<String>,
    /// The same where `request` is absent.
    req: Option<String>,
    resp: String,
    /// The version that the answer is in.
    rv: i16,
}

/// All APIs in all their versions are told as Kafka tells them.
fn check_api_versions(client: &mut WireClient) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/wire/apiversions.json");
    let cases: Vec<ApiVersionsCase> =
        serde_json::from_reader(BufReader::new(File::open(path).unwrap())).unwrap();
    for case in cases {
        let request = case.request.or(case.req).unwrap();
        let Answer::Frame(frame) = client.exchange(&hex(&request)).unwrap() else {
            panic!("closed for {request}");
        };
        let ours = responses::decode(18, case.rv, frame).unwrap();
        let theirs = responses::decode(18, case.rv, hex(&case.resp).into()).unwrap();
        let sorted = |mut tree: Tree| {
            tree.sort();
            tree.lines()
        };
        assert_eq!(sorted(ours), sorted(theirs), "{request}");
    }
}

/// What came of all cases.
#[derive(Default)]
struct Report {
    equal: usize,
    deviating: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
}

impl Report {
    fn judge(&mut self, case: &Case, difference: &str, deviation: Option<&'static Deviation>) {
        match (difference.is_empty(), deviation) {
            (true, None) => self.equal += 1,
            (false, Some(deviation)) => *self.deviating.entry(deviation.reason).or_default() += 1,
            (false, None) => self.failures.push(format!("{}\n{difference}", case.name())),
            (true, Some(deviation)) => self.failures.push(format!(
                "{}\n  equal, though it is said to deviate: {}\n",
                case.name(),
                deviation.reason
            )),
        }
    }

    /// Tells what came of it, and fails if something differs.
    fn finish(&self) {
        self.print();
        assert!(
            self.failures.is_empty(),
            "{} cases differ",
            self.failures.len()
        );
    }

    #[expect(
        clippy::print_stdout,
        reason = "the counts are what a reader of the log looks for"
    )]
    fn print(&self) {
        for failure in &self.failures {
            println!("{failure}");
        }
        println!("{} cases equal, {} differ", self.equal, self.failures.len());
        for (reason, count) in &self.deviating {
            println!("{count} deviate on purpose: {reason}");
        }
    }
}

fn read_sweep(path: &Path) -> Sweep {
    read_recording(path)
}

fn read_recording<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let file = File::open(path).unwrap();
    serde_json::from_reader(BufReader::new(GzDecoder::new(file))).unwrap()
}

/// The state that the recording began with.
fn prepare(client: &mut WireClient, sweep: &Sweep) {
    prepare_topics(client);
    prepare_coordinators(client);
    let valid = sweep
        .cases
        .iter()
        .find(|case| case.key == Some(0) && case.version == 3 && case.case == "valid");
    let frame = hex(valid.and_then(|case| case.request.as_deref()).unwrap());
    for _ in 0..5 {
        assert!(matches!(client.exchange(&frame).unwrap(), Answer::Frame(_)));
    }
}

/// The topics that recordings begin with.
fn prepare_topics(client: &mut WireClient) {
    let topic = |name: &'static str, partitions| {
        CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
    };
    let compacted = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("cleanup.policy"))
        .with_value(Some(StrBytes::from_static_str("compact")));
    let topics = vec![
        topic("t", 2),
        topic("compact", 1).with_configs(vec![compacted]),
        topic("c_c", 1),
        topic("ap0", 1),
        topic("ap1", 1),
        topic("ap2", 1),
        topic("ap3", 1),
    ];
    let count = topics.len();
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(10_000);
    let response = client.request(&request, 5).unwrap();
    assert!(
        response.topics.iter().all(|topic| topic.error_code == 0),
        "{response:?}"
    );
    until(Duration::from_secs(30), || {
        let metadata = client
            .request(&MetadataRequest::default().with_topics(None), 12)
            .unwrap();
        let partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
        let are_led = partitions
            .clone()
            .all(|partition| partition.error_code == 0);
        (metadata.topics.len() == count && are_led).then_some(())
    })
    .unwrap();
}

/// Makes coordinators exist.
fn prepare_coordinators(client: &mut WireClient) {
    const PATIENCE: Duration = Duration::from_secs(30);
    let kinds = [(0, "g"), (1, "x")];
    for (key_type, key) in kinds {
        until(PATIENCE, || {
            let request = FindCoordinatorRequest::default()
                .with_key_type(key_type)
                .with_coordinator_keys(vec![StrBytes::from_static_str(key)]);
            let response = client.request(&request, 4).unwrap();
            (response.coordinators[0].error_code == 0).then_some(())
        })
        .unwrap();
    }
    // The first id went to somebody else; requests name the one that `x` got.
    let somebody = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000);
    until(PATIENCE, || {
        (client.request(&somebody, 4).unwrap().producer_id.0 == 0).then_some(())
    })
    .unwrap();
    let id = TransactionalId(StrBytes::from_static_str("x"));
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id))
        .with_transaction_timeout_ms(60_000);
    until(PATIENCE, || {
        (client.request(&request, 4).unwrap().producer_id.0 == 1).then_some(())
    })
    .unwrap();
}

/// What stood in the recording, and what stands there in this run.
type Substitution = (Vec<u8>, Vec<u8>);

/// The id of the broker and its epoch, as they follow each other in requests.
fn broker_epochs(zookeeper: &ZooKeeperServer, sweep: &Sweep) -> Substitution {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (_, stat) = runtime
        .block_on(async {
            let client = Client::connect(&zookeeper.connect()).await?;
            client.get_data("/brokers/ids/20").await
        })
        .unwrap();
    let bytes = |epoch: i64| [20_i32.to_be_bytes().as_slice(), &epoch.to_be_bytes()].concat();
    let recorded = sweep.varies["brokerEpoch"].as_i64().unwrap();
    (bytes(recorded), bytes(stat.czxid))
}

/// Topic ids.
fn substitutions(client: &mut WireClient, sweep: &Sweep) -> Vec<Substitution> {
    let more = &sweep.varies["topicIds ap2, ap3"];
    let recorded = [
        (&sweep.varies["topicId t"], "t"),
        (&sweep.varies["topicId compact"], "compact"),
        (&more[0], "ap2"),
        (&more[1], "ap3"),
    ];
    let recorded = recorded.map(|(id, name)| (id.clone(), name.to_owned()));
    id_substitutions(client, recorded.to_vec())
}

/// The ids that topics had in a recording, in Base64, and those that topics of these names have now.
fn id_substitutions(client: &mut WireClient, recorded: Vec<(Value, String)>) -> Vec<Substitution> {
    let metadata = client
        .request(&MetadataRequest::default().with_topics(None), 12)
        .unwrap();
    let id_of = |name: &str| {
        let is_it = |topic: &str| topic == name;
        let mut topics = metadata.topics.iter();
        let topic = topics.find(|t| t.name.as_ref().is_some_and(|n| is_it(n)));
        topic.unwrap().topic_id.as_bytes().to_vec()
    };
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let recorded = recorded.into_iter().map(|(id, name)| {
        let id = engine.decode(id.as_str().unwrap()).unwrap();
        (id, id_of(&name))
    });
    recorded.collect()
}

fn substitute(mut frame: Vec<u8>, substitutions: &[Substitution]) -> Vec<u8> {
    for (from, to) in substitutions.iter().filter(|(from, to)| from != to) {
        let length = from.len();
        while let Some(at) = frame.windows(length).position(|window| window == from) {
            frame[at..at + length].copy_from_slice(to);
        }
    }
    frame
}

/// Announces a size and sends a few bytes.
fn lie_about_size(broker: &Broker, size: i32) -> Answer {
    let mut client = WireClient::connect(&broker.address()).unwrap();
    client.send_raw(&size.to_be_bytes()).unwrap();
    // The broker may have hung up already.
    let _ = client.send_raw(&hex("0012000000000007ffff"));
    client.receive().unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// What differs from Kafka's answer, in lines; empty if nothing does.
fn differences(
    case: &Case,
    answer: Answer,
    broker: &Broker,
    passing: Passing,
    hidden: &[&str],
) -> String {
    let frame = match (answer, case.closed) {
        (Answer::Closed, true) => return String::new(),
        (Answer::Closed, false) => return "  closed, but Kafka answers\n".to_owned(),
        (Answer::Frame(frame), true) => {
            return format!(
                "  Kafka closes, but the answer is {:?}\n",
                decode(case, frame)
            );
        }
        (Answer::Frame(frame), false) => frame,
    };
    let mut ours = match decode(case, frame) {
        Ok(tree) => tree,
        Err(error) => return format!("  cannot be decoded: {error}\n"),
    };
    let mut theirs = match (&case.response, &case.decoded) {
        (Some(response), _) => decode(case, hex(response).into()).unwrap(),
        (None, Some(decoded)) => Tree::of_json(decoded),
        (None, None) => return format!("  Kafka does not answer, but ours is {ours:?}\n"),
    };
    if case.response.is_none() {
        ours.keep_fields_of(&theirs);
    }
    for tree in [&mut ours, &mut theirs] {
        tree.retain(&|_, item| !item.leaf("name").is_some_and(passing));
        tree.mask(&|field, leaf| {
            let is_hidden = hidden.contains(&field) && !matches!(leaf, "None" | "b\"\"");
            is_hidden
                .then(|| format!("<{field}>"))
                .or_else(|| mask(field, leaf, broker))
        });
        tree.sort();
    }
    line_differences(&theirs.lines(), &ours.lines())
}

/// Whether what is told of a topic depends on how fast the machine is.
type Passing = fn(&str) -> bool;

fn passing_topics(case: &Case, is_late: bool) -> Passing {
    match case.key {
        // One that the request before asked for may or may not have been made already.
        Some(MetadataRequest::KEY) if case.case.starts_with("all") => {
            |name| name.contains("\"nope")
        }
        Some(DescribeLogDirsRequest::KEY) if is_late => |name| name.contains("__consumer_offsets"),
        _ => |_| false,
    }
}

/// What differs from run to run.
fn mask(field: &str, leaf: &str, broker: &Broker) -> Option<String> {
    if is_of_these_days(leaf) {
        return Some(format!("<time of {field}>"));
    }
    let is_masked = match field {
        "topic_id" => !leaf.starts_with("00000000-0000-0000-0000-0000000000"),
        "cluster_id" => leaf != "\"\"" && leaf != "None",
        "port" => leaf == RECORDED_PORT || leaf == broker.options().port.to_string(),
        "producer_id" | "total_bytes" | "usable_bytes" => leaf != "-1",
        "transaction_start_time_ms" => leaf.len() >= 13,
        "session_id" => leaf != "0",
        "member_id" | "leader" => leaf.starts_with("\"probe-") || is_of_static_member(leaf),
        "log_dir" => {
            // One of the broker's own, recorded or not.
            leaf == "\"LOGDIR\""
                || leaf.ends_with("/data\"")
                || leaf.contains(&*broker.options().log_dir().to_string_lossy())
        }
        _ => false,
    };
    is_masked.then(|| format!("<{field}>"))
}

/// Whether a number is a time of the clock: those that clients give in recordings are older.
fn is_of_these_days(leaf: &str) -> bool {
    let number = leaf.parse::<i64>();
    number.is_ok_and(|number| (1_750_000_000_000..5_000_000_000_000).contains(&number))
}

/// The id of a member begins with the name of its instance, which recordings call `i0` and so on.
fn is_of_static_member(leaf: &str) -> bool {
    leaf.starts_with("\"i") && leaf.len() > 38
}

fn decode(case: &Case, frame: Bytes) -> anyhow::Result<Tree> {
    responses::decode(case.key.unwrap_or(18), case.version, frame)
}

fn line_differences(theirs: &str, ours: &str) -> String {
    let mut text = String::new();
    if theirs != ours {
        let (theirs, ours): (Vec<_>, Vec<_>) = (theirs.lines().collect(), ours.lines().collect());
        for line in theirs.iter().filter(|line| !ours.contains(line)) {
            let _ = writeln!(text, "  Kafka {line}");
        }
        for line in ours.iter().filter(|line| !theirs.contains(line)) {
            let _ = writeln!(text, "  ours  {line}");
        }
    }
    text
}
