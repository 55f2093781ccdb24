//! Kafka Streams with `exactly_once_v2` on three brokers that are killed, and its tool that lets it begin again.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use barnabas_tests::broker::BrokerKind;
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::server_process::ServerProcess;
use barnabas_tests::tools::applications_java;

use crate::tools::{kafka_tool, require};

const PATIENCE: Duration = Duration::from_secs(180);
/// What must have all its replicas before the next broker is killed.
const TOPICS: [&str; 6] = [
    "lines",
    "counts",
    "word-count-words-repartition",
    "word-count-words-changelog",
    "__consumer_offsets",
    "__transaction_state",
];

/// How often all three brokers are killed, one after the other.
fn rounds() -> usize {
    let rounds = std::env::var("BARNABAS_STREAMS_ROUNDS").ok();
    rounds.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The program that counts words; what it says is in a file of its own.
struct WordCount {
    process: ServerProcess,
    directory: PathBuf,
}

impl WordCount {
    fn start(cluster: &Cluster, runs_before: usize) -> WordCount {
        let directory = cluster.directory().join("streams");
        fs::create_dir_all(&directory).unwrap();
        let options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
        let mut java = applications_java(&options);
        java.args(["WordCount", &cluster.bootstrap().join(",")])
            .arg(&directory)
            .args(["3", &runs_before.to_string()]);
        let log = directory.join(format!("log-{runs_before}"));
        let process = ServerProcess::start("word count", &mut java, &log).unwrap();
        WordCount { process, directory }
    }

    fn times_said(&self, line: &str) -> usize {
        let log = self.process.log();
        log.lines().filter(|said| *said == line).count()
    }

    /// Waits until a line was said so many times more.
    fn wait_for(&mut self, line: &str, times: usize) {
        let enough = self.times_said(line) + times;
        let said = barnabas_tests::wait::until(PATIENCE, || {
            (self.times_said(line) >= enough || self.process.exit_status().is_some()).then_some(())
        });
        assert!(said.is_some() && self.times_said(line) >= enough, "{line}");
    }

    fn write_no_more(&self) {
        fs::write(self.directory.join("stop"), "").unwrap();
    }

    fn finish(mut self) {
        let status = self.process.wait_for_end(PATIENCE).unwrap();
        let log = self.process.log();
        assert!(status.success(), "{status}: {log}");
        require(&log, &["PASS exact"]);
    }
}

fn wait_for_replicas(cluster: &Cluster) {
    for topic in TOPICS {
        cluster
            .view()
            .wait_for(topic, PATIENCE, |view| {
                !view.is_empty() && view.values().all(|one| one.isr.len() == 3)
            })
            .unwrap();
    }
}

/// Each occurrence of a word has its count sent once and in order, whoever dies; and once more when all begins again.
#[test]
fn words_are_counted_exactly_once_while_brokers_die() {
    let options = ClusterOptions::three()
        .with("offsets.topic.replication.factor", 3)
        .with("transaction.state.log.replication.factor", 3)
        .with("transaction.state.log.min.isr", 2)
        .with("min.insync.replicas", 2)
        .with("default.replication.factor", 3);
    let mut cluster = Cluster::start(&options).unwrap();
    for topic in ["lines", "counts"] {
        cluster.create_topic(topic, 3, &[]).unwrap();
    }
    let mut program = WordCount::start(&cluster, 0);
    program.wait_for("STEP", 1);
    for _ in 0..rounds() {
        for id in cluster.ids() {
            wait_for_replicas(&cluster);
            cluster.kill(id);
            program.wait_for("STEP", 2);
            cluster.start_broker(id).unwrap();
        }
    }
    // All at once.
    wait_for_replicas(&cluster);
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        if BrokerKind::under_test() == BrokerKind::Kafka {
            // Kafka ends when it finds its own registration.
            cluster.wait_until_unregistered(id, PATIENCE).unwrap();
        }
        cluster.start_broker(id).unwrap();
    }
    program.wait_for("STEP", 2);
    program.write_no_more();
    program.finish();

    let bootstrap = cluster.bootstrap().join(",");
    let reset = [
        &["--application-id", "word-count", "--force"][..],
        &["--bootstrap-server", &bootstrap, "--input-topics", "lines"],
    ];
    let said = kafka_tool("org.apache.kafka.tools.StreamsResetter", &reset.concat());
    require(
        &said,
        &[
            "Topic: lines Partition: 0 Offset: 0",
            "Topic: lines Partition: 2 Offset: 0",
            "word-count-words-repartition",
            "word-count-words-changelog",
        ],
    );
    let topics = ["--list", "--bootstrap-server", &bootstrap];
    let topics = kafka_tool("org.apache.kafka.tools.TopicCommand", &topics);
    assert!(!topics.contains("word-count"), "{topics}");
    WordCount::start(&cluster, 1).finish();
}
