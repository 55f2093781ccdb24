//! Kafka Connect in distributed mode: lines go from a file through a topic to a file while workers die.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use barnabas_tests::http;
use barnabas_tests::ports::free_port;
use barnabas_tests::server_process::ServerProcess;
use barnabas_tests::tools::applications_java;
use barnabas_tests::wait::until;

use crate::client_program::OneBroker;
use crate::kcat::kcat_prints;
use crate::tools::{kafka_tool, require};

const PATIENCE: Duration = Duration::from_secs(90);
/// What Connect keeps, in topics of its own.
const STATE: [&str; 3] = ["connect-configs", "connect-offsets", "connect-status"];
const LINES: usize = 500;

/// What Connect promises of lines on their way from a source into a topic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    AtLeastOnce,
    ExactlyOnce,
}

/// A worker in a process of its own.
struct Worker {
    process: ServerProcess,
    rest: String,
}

impl Worker {
    fn start(broker: &str, directory: &Path, promise: Promise) -> Worker {
        let rest = format!("127.0.0.1:{}", free_port());
        let exactly_once = match promise {
            Promise::AtLeastOnce => "disabled",
            Promise::ExactlyOnce => "enabled",
        };
        let properties = format!(
            "bootstrap.servers={broker}\ngroup.id=connect\nlisteners=http://{rest}\n\
             key.converter=org.apache.kafka.connect.storage.StringConverter\n\
             value.converter=org.apache.kafka.connect.storage.StringConverter\n\
             config.storage.topic={}\noffset.storage.topic={}\nstatus.storage.topic={}\n\
             config.storage.replication.factor=1\noffset.storage.replication.factor=1\n\
             status.storage.replication.factor=1\noffset.storage.partitions=5\n\
             offset.flush.interval.ms=500\nscheduled.rebalance.max.delay.ms=0\n\
             session.timeout.ms=6000\nheartbeat.interval.ms=1000\n\
             exactly.once.source.support={exactly_once}\nplugin.discovery=service_load\n",
            STATE[0], STATE[1], STATE[2]
        );
        let file = directory.join(format!("{rest}.properties"));
        fs::write(&file, properties).unwrap();
        let options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
        let mut java = applications_java(&options);
        java.arg("org.apache.kafka.connect.cli.ConnectDistributed")
            .arg(file);
        let log = directory.join(format!("{rest}.log"));
        let process = ServerProcess::start("Connect", &mut java, &log).unwrap();
        Worker { process, rest }
    }

    /// The body of the answer, once it is a good one.
    fn ask(&mut self, method: &str, path: &str, json: &str) -> String {
        let rest = &self.rest;
        let answered = self.process.wait_until(PATIENCE, || {
            let (status, body) = http::request(rest, method, path, json).ok()?;
            (200..300).contains(&status).then_some(body)
        });
        answered.unwrap()
    }

    /// Which worker runs the only task of a connector, if one does.
    fn runs(&mut self, connector: &str) -> Option<String> {
        let status = self.ask("GET", &format!("/connectors/{connector}/status"), "");
        let (_, tasks) = status.split_once("\"tasks\":[")?;
        let (_, state) = tasks.split_once("\"state\":\"")?;
        let (_, worker) = tasks.split_once("\"worker_id\":\"")?;
        let worker = worker.split('"').next()?;
        state.starts_with("RUNNING").then(|| worker.to_owned())
    }
}

fn append(file: &Path, lines: std::ops::Range<usize>) {
    let text = lines.fold(String::new(), |text, line| text + &format!("line {line}\n"));
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The numbers of the lines in a text.
fn numbers(text: &str) -> Vec<usize> {
    let numbers = text.lines().map(|line| line.strip_prefix("line ").unwrap());
    numbers.map(|number| number.parse().unwrap()).collect()
}

fn wait_for_line(sink: &Path, last: usize) {
    let wanted = format!("line {last}\n");
    let found = until(PATIENCE, || {
        let text = fs::read_to_string(sink).ok()?;
        text.contains(&wanted).then_some(())
    });
    assert!(found.is_some(), "line {last} does not come");
}

/// Every number below `count`, in order but for those that come again from somewhere before.
fn assert_at_least_once(found: &[usize], count: usize) {
    let mut next = 0;
    for number in found {
        assert!(*number <= next, "{number} comes before {next}");
        next = next.max(number + 1);
    }
    assert_eq!(next, count);
}

fn lines_survive_workers(promise: Promise) {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    let directory = tempfile::tempdir().unwrap();
    let (source, sink): (PathBuf, PathBuf) = (
        directory.path().join("source.txt"),
        directory.path().join("sink.txt"),
    );
    append(&source, 0..LINES);
    let start = || Worker::start(&address, directory.path(), promise);
    let mut workers = [start(), start()];
    let connectors = [
        ("source", "FileStreamSource", &source, "\"topic\":\"lines\""),
        ("sink", "FileStreamSink", &sink, "\"topics\":\"lines\""),
    ];
    for (name, class, file, topic) in connectors {
        let json = format!(
            "{{\"connector.class\":\"{class}\",\"tasks.max\":\"1\",\"file\":\"{}\",{topic},\
             \"errors.retry.timeout\":\"0\"}}",
            file.display()
        );
        workers[0].ask("PUT", &format!("/connectors/{name}/config"), &json);
    }
    wait_for_line(&sink, LINES - 1);

    // Who reads the file dies; the other one goes on where it was.
    let victim = until(PATIENCE, || workers[1].runs("source")).unwrap();
    let victim = usize::from(workers[1].rest == victim);
    append(&source, LINES..2 * LINES);
    workers[victim].process.kill();
    append(&source, 2 * LINES..3 * LINES);
    wait_for_line(&sink, 3 * LINES - 1);
    let survivor = workers[1 - victim].rest.clone();
    let running = workers[1 - victim].runs("source");
    assert_eq!(running, Some(survivor));

    // It comes back, and the other one dies, with everything that it runs.
    workers[victim] = start();
    workers[victim].ask("GET", "/health", "");
    workers[1 - victim].process.kill();
    append(&source, 3 * LINES..4 * LINES);
    wait_for_line(&sink, 4 * LINES - 1);

    let consume = ["-C", "-t", "lines", "-o", "beginning", "-e", "-q"];
    let committed = numbers(&kcat_prints(&address, &consume, ""));
    match promise {
        Promise::AtLeastOnce => assert_at_least_once(&committed, 4 * LINES),
        Promise::ExactlyOnce => assert!(committed.into_iter().eq(0..4 * LINES)),
    }
    assert_at_least_once(&numbers(&fs::read_to_string(&sink).unwrap()), 4 * LINES);

    let describe = [
        "--describe",
        "--bootstrap-server",
        &address,
        "--topic",
        "connect-.*",
    ];
    let described = kafka_tool("org.apache.kafka.tools.TopicCommand", &describe);
    for (topic, partitions) in STATE.iter().zip([1, 5, 5]) {
        let line = described
            .lines()
            .find(|line| line.contains(&format!("Topic: {topic}\tTopicId")));
        let parts = [
            format!("PartitionCount: {partitions}\t"),
            "cleanup.policy=compact".to_owned(),
        ];
        require(line.unwrap_or_default(), &[&parts[0], &parts[1]]);
    }
}

/// In the longer form once more with a source that is only sure to forget nothing.
#[test]
fn exactly_the_lines_go_through_connect_while_workers_die() {
    lines_survive_workers(Promise::ExactlyOnce);
    if std::env::var_os("BARNABAS_CONNECT_AT_LEAST_ONCE").is_some() {
        lines_survive_workers(Promise::AtLeastOnce);
    }
}
