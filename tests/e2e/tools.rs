//! Kafka's own command line tools against the broker, and its dump tool on the files the broker leaves.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use barnabas_tests::tools::{kafka_java, repository};

use crate::client_program::OneBroker;
use crate::kcat::kcat_prints;

/// Runs one of Kafka's tools to its end and returns what it prints; it must succeed.
pub(crate) fn kafka_tool(main_class: &str, arguments: &[&str]) -> String {
    let mut java = kafka_java(&["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    let output = java.arg(main_class).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{main_class} {arguments:?}:\n{text}\n{errors}"
    );
    text
}

/// Runs a tool again and again with other arguments, in one virtual machine; returns what it prints each time.
pub(crate) fn kafka_tool_runs(main_class: &str, runs: &[String]) -> Vec<String> {
    let mut java = kafka_java(&["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    let mut child = java
        .arg(repository().join("tests/clients/java/Tools.java"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for arguments in runs {
        let arguments = arguments.split(' ').collect::<Vec<_>>().join("\t");
        writeln!(input, "{main_class}\t{arguments}").unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut printed: Vec<String> = text.split("\n----------\n").map(str::to_owned).collect();
    let rest = printed.pop();
    assert!(
        output.status.success() && printed.len() == runs.len(),
        "{} of {} runs, then: {rest:?}",
        printed.len(),
        runs.len()
    );
    printed
}

pub(crate) fn require(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
}

fn numbers(count: usize) -> String {
    (0..count).fold(String::new(), |text, i| text + &i.to_string() + "\n")
}

#[test]
fn kafka_topics() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    let topics = |arguments: &[&str]| {
        let server = ["--bootstrap-server", &address];
        kafka_tool(
            "org.apache.kafka.tools.TopicCommand",
            &[&server, arguments].concat(),
        )
    };
    let create = [
        "--create",
        "--topic",
        "made",
        "--partitions",
        "3",
        "--config",
        "segment.bytes=1048576",
    ];
    require(&topics(&create), &["Created topic made."]);
    assert_eq!(topics(&["--list"]), "made\n");
    require(
        &topics(&["--describe", "--topic", "made"]),
        &[
            "Topic: made\tTopicId: ",
            "PartitionCount: 3\tReplicationFactor: 1\tConfigs: segment.bytes=1048576",
            "Partition: 2\tLeader: 0\tReplicas: 0\tIsr: 0",
        ],
    );
    topics(&["--alter", "--topic", "made", "--partitions", "5"]);
    require(
        &topics(&["--describe", "--topic", "made"]),
        &["PartitionCount: 5", "Partition: 4"],
    );
    assert_eq!(topics(&["--describe", "--under-replicated-partitions"]), "");
    topics(&["--delete", "--topic", "made"]);
    assert_eq!(topics(&["--list"]).trim(), "");
}

#[test]
fn kafka_configs() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    kcat_prints(&address, &["-P", "-t", "configured"], "hello\n");
    let configs = |arguments: &[&str]| {
        let server = ["--bootstrap-server", &address];
        kafka_tool("kafka.admin.ConfigCommand", &[&server, arguments].concat())
    };
    let topic = ["--entity-type", "topics", "--entity-name", "configured"];
    let set = "retention.ms=3600000,cleanup.policy=[compact,delete]";
    configs(&[&topic[..], &["--alter", "--add-config", set]].concat());
    require(
        &configs(&[&topic[..], &["--describe"]].concat()),
        &[
            "retention.ms=3600000",
            "cleanup.policy=compact,delete",
            "DYNAMIC_TOPIC_CONFIG",
        ],
    );
    configs(&[&topic[..], &["--alter", "--delete-config", "retention.ms"]].concat());
    let described = configs(&[&topic[..], &["--describe"]].concat());
    assert!(!described.contains("retention.ms=3600000"), "{described}");

    let broker = ["--entity-type", "brokers", "--entity-name", "0"];
    configs(
        &[
            &broker[..],
            &["--alter", "--add-config", "log.cleaner.threads=2"],
        ]
        .concat(),
    );
    let described = configs(&[&broker[..], &["--describe"]].concat());
    require(
        &described,
        &["log.cleaner.threads=2", "DYNAMIC_BROKER_CONFIG"],
    );
    let all = ["--entity-type", "brokers", "--entity-default"];
    configs(
        &[
            &all[..],
            &["--alter", "--add-config", "log.retention.ms=7200000"],
        ]
        .concat(),
    );
    require(
        &configs(&[&all[..], &["--describe"]].concat()),
        &["log.retention.ms=7200000"],
    );
}

#[test]
fn offsets_and_deleted_records() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    kcat_prints(&address, &["-P", "-t", "counted"], &numbers(10));
    let offsets = |time: &str| {
        let arguments = [
            "--bootstrap-server",
            &address,
            "--topic",
            "counted",
            "--time",
            time,
        ];
        kafka_tool("org.apache.kafka.tools.GetOffsetShell", &arguments)
    };
    assert_eq!(offsets("latest"), "counted:0:10\n");
    assert_eq!(offsets("earliest"), "counted:0:0\n");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("offsets.json");
    let partitions =
        r#"{"partitions": [{"topic": "counted", "partition": 0, "offset": 4}], "version": 1}"#;
    fs::write(&file, partitions).unwrap();
    let arguments = [
        "--bootstrap-server",
        &address,
        "--offset-json-file",
        file.to_str().unwrap(),
    ];
    let deleted = kafka_tool("org.apache.kafka.tools.DeleteRecordsCommand", &arguments);
    require(&deleted, &["partition: counted-0\tlow_watermark: 4"]);
    assert_eq!(offsets("earliest"), "counted:0:4\n");
    assert_eq!(offsets("max-timestamp").matches("counted:0:").count(), 1);
}

#[test]
fn kafka_log_dirs() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    kcat_prints(&address, &["-P", "-t", "stored"], &numbers(10));
    let arguments = [
        "--bootstrap-server",
        &address,
        "--describe",
        "--topic-list",
        "stored",
    ];
    let described = kafka_tool("org.apache.kafka.tools.LogDirsCommand", &arguments);
    let partition = r#""partition":"stored-0","size":"#;
    let directory = one.broker.options().log_dir();
    require(
        &described,
        &[r#""broker":0"#, directory.to_str().unwrap(), partition],
    );
}

#[test]
fn kafka_broker_api_versions() {
    let one = OneBroker::start(|options| options);
    let arguments = ["--bootstrap-server", &one.broker.address()];
    let versions = kafka_tool("kafka.admin.BrokerApiVersionsCommand", &arguments);
    require(
        &versions,
        &[
            "(id: 0 rack: null) -> (",
            "Produce(0): 0 to 11 [usable: 11]",
            "Fetch(1): 0 to 17 [usable: 17]",
            "ListOffsets(2): 0 to 9 [usable: 9]",
            "Metadata(3): 0 to 12 [usable: 12]",
            "ApiVersions(18): 0 to 4 [usable: 4]",
        ],
    );
}

#[test]
fn console_and_perf_tools() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    let server = format!("bootstrap.servers={address}");
    let produced = kafka_tool(
        "org.apache.kafka.tools.ProducerPerformance",
        &[
            "--topic",
            "perf",
            "--num-records",
            "50000",
            "--record-size",
            "1000",
            "--throughput",
            "-1",
            "--producer-props",
            &server,
            "acks=all",
            "batch.size=65536",
        ],
    );
    require(&produced, &["50000 records sent", "99.9th."]);
    // Kafka's perf tools that consume need a group; this one reads a partition.
    let consumed = kafka_tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &[
            "--bootstrap-server",
            &address,
            "--topic",
            "perf",
            "--partition",
            "0",
            "--offset",
            "earliest",
            "--max-messages",
            "50000",
            "--timeout-ms",
            "30000",
        ],
    );
    assert_eq!(consumed.lines().count(), 50000);
    assert!(consumed.lines().all(|line| line.len() == 1000));
}

/// The files of one partition with this extension, in order of their base offsets.
pub(crate) fn files(partition: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(partition)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

pub(crate) fn dump(files: &[PathBuf], options: &[&str]) -> String {
    let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let files = files.join(",");
    let arguments = [&["--files", &files], options].concat();
    let text = kafka_tool("kafka.tools.DumpLogSegments", &arguments);
    for complaint in [
        "mismatch",
        "Found",
        "Error",
        "isvalid: false",
        "corrupt",
        "not find",
    ] {
        assert!(!text.contains(complaint), "{complaint}:\n{text}");
    }
    text
}

#[test]
fn dump_log_finds_our_files_sane() {
    let one = OneBroker::start(|options| {
        options
            .with("log.segment.bytes", 64 * 1024)
            .with("log.index.interval.bytes", 1024)
    });
    let address = one.broker.address();
    let batches = ["-X", "batch.num.messages=20", "-X", "linger.ms=1"];
    let idempotent = ["-X", "enable.idempotence=true"];
    let produce = ["-P", "-t", "dumped"];
    kcat_prints(
        &address,
        &[&produce[..], &batches, &idempotent].concat(),
        &numbers(20_000),
    );
    kcat_prints(
        &address,
        &[&produce[..], &batches, &["-z", "zstd"]].concat(),
        &numbers(20_000),
    );
    let partition = one.broker.options().log_dir().join("dumped-0");

    // A running broker preallocates its indexes, so dump what a clean stop leaves.
    let directory = one.stop();
    let logs = files(&partition, "log");
    assert!(logs.len() >= 3, "{logs:?}");
    let text = dump(&logs, &["--deep-iteration", "--print-data-log"]);
    let offsets: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| offset: ")?.split(' ').next())
        .collect();
    assert!(
        offsets.iter().copied().eq(numbers(40_000).lines()),
        "{} records",
        offsets.len()
    );
    require(
        &text,
        &["producerEpoch: 0", "compresscodec: zstd", "isvalid: true"],
    );

    dump(&files(&partition, "index"), &["--index-sanity-check"]);
    dump(&files(&partition, "index"), &["--verify-index-only"]);
    dump(&files(&partition, "timeindex"), &["--index-sanity-check"]);
    dump(&files(&partition, "timeindex"), &["--verify-index-only"]);
    let snapshots = files(&partition, "snapshot");
    require(
        &dump(&snapshots[snapshots.len() - 1..], &[]),
        &["producerId: ", "firstSequence: "],
    );
    drop(directory);
}
