//! Requests of all APIs and versions, well-formed but odd, generated from the schemas of Kafka's own client library
//! (`tests/clients/java/generated`): unknown topics, negative numbers, empty, absent and repeated elements, wrong ids.
//!
//! Kafka 3.9.1's answers are kept in `golden/wire/generated.json.gz`. `BARNABAS_RECORD_GENERATED=<seed>` asks Kafka
//! anew, under `BARNABAS_TEST_BROKER=kafka`, and writes that file.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use barnabas_tests::broker::{BrokerKind, BrokerOptions};
use barnabas_tests::tools::{repository, test_tool};
use barnabas_tests::wire::WireClient;
use barnabas_tests::zookeeper_server::ZooKeeperServer;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{
    Asked, RECORDED_PORT, Report, Sweep, hex, id_substitutions, prepare_coordinators,
    prepare_topics, read_sweep, substitute,
};

/// How many requests of each version are recorded.
const REQUESTS_PER_VERSION: &str = "5";

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/wire/generated.json.gz")
}

fn options(directory: &Path, zookeeper: &ZooKeeperServer) -> BrokerOptions {
    BrokerOptions::new(directory, &zookeeper.connect())
        .with("group.min.session.timeout.ms", 1000)
        .with("log.retention.ms", -1)
        .with("auto.create.topics.enable", false)
}

/// Has the Java program ask Kafka.
fn record(seed: &str) {
    let directory = tempfile::tempdir().unwrap();
    let zookeeper = ZooKeeperServer::start().unwrap();
    let mut options = options(directory.path(), &zookeeper).of_kind(BrokerKind::Kafka);
    options.port = RECORDED_PORT.parse().unwrap();
    let broker = options.start().unwrap();
    let written = directory.path().join("generated.json");
    let program = repository().join("tests/clients/java/generated/Generated.java");
    let status = Command::new("java")
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-cp"])
        .arg(test_tool("java-3.9.1").join("*"))
        .arg(program)
        .args([&broker.address(), seed, REQUESTS_PER_VERSION])
        .arg(&written)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let file = File::create(recording()).unwrap();
    let mut packed = GzEncoder::new(file, Compression::best());
    packed.write_all(&std::fs::read(written).unwrap()).unwrap();
    packed.finish().unwrap();
}

#[test]
fn generated_requests_are_answered_as_by_kafka() {
    if let Ok(seed) = std::env::var("BARNABAS_RECORD_GENERATED") {
        record(&seed);
    }
    let sweep: Sweep = read_sweep(&recording());
    let directory = tempfile::tempdir().unwrap();
    let zookeeper = ZooKeeperServer::start().unwrap();
    let broker = options(directory.path(), &zookeeper).start().unwrap();
    let mut client = WireClient::connect(&broker.address()).unwrap();
    prepare_topics(&mut client);
    prepare_coordinators(&mut client);
    for frame in &sweep.prepare {
        client.exchange(&hex(frame)).unwrap();
    }
    let ids = sweep.varies.iter();
    let ids = ids.map(|(name, recorded)| (recorded.clone(), name.clone()));
    let substitutions = id_substitutions(&mut client, ids.collect());
    let mut report = Report::default();
    for case in &sweep.cases {
        let frame = substitute(hex(case.request.as_deref().unwrap()), &substitutions);
        let answer = client.exchange(&frame).unwrap();
        let asked = Asked {
            case,
            frame,
            answer,
            passing: |_| false,
            hidden: &[],
        };
        asked.judge(&mut client, &broker, &mut report);
    }
    report.finish();
}
