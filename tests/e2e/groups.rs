//! Consumer groups as people meet them: Kafka's console consumer and its tool for groups, a broker that comes back,
//! and Kafka's dump tool on what the broker wrote.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use barnabas_tests::broker::BrokerKind;
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::verify::PartitionView;
use barnabas_tests::wire::WireClient;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::client_program::OneBroker;
use crate::kcat::kcat_prints;
use crate::tools::kafka_tool;

fn consume(address: &str, group: &str, count: usize) -> String {
    let count = count.to_string();
    let arguments = [
        &["--bootstrap-server", address, "--topic", "shared"][..],
        &["--group", group, "--from-beginning"],
        &["--max-messages", &count, "--timeout-ms", "30000"],
    ];
    kafka_tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &arguments.concat(),
    )
}

fn groups(address: &str, arguments: &[&str]) -> String {
    kafka_tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &[&["--bootstrap-server", address], arguments].concat(),
    )
}

/// Topic, partition, committed offset, log end offset and lag of the first line about the topic.
fn row(described: &str) -> Vec<&str> {
    let line = described
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some("shared"));
    let line = line.unwrap_or_else(|| panic!("no line about the topic:\n{described}"));
    line.split_whitespace().skip(1).take(5).collect()
}

fn produce(address: &str, from: usize, to: usize) {
    let lines = (from..to).fold(String::new(), |text, i| text + &i.to_string() + "\n");
    kcat_prints(address, &["-P", "-t", "shared"], &lines);
}

fn count(text: &str) -> usize {
    text.lines()
        .filter(|line| line.parse::<usize>().is_ok())
        .count()
}

#[test]
fn offsets_are_committed_described_reset_and_deleted() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    produce(&address, 0, 10);
    assert_eq!(count(&consume(&address, "g", 10)), 10);
    assert_eq!(groups(&address, &["--list"]).trim(), "g");
    let describe = ["--describe", "--group", "g"];
    assert_eq!(
        row(&groups(&address, &describe)),
        ["shared", "0", "10", "10", "0"]
    );
    produce(&address, 10, 15);
    assert_eq!(
        row(&groups(&address, &describe)),
        ["shared", "0", "10", "15", "5"]
    );
    let state = groups(&address, &["--describe", "--group", "g", "--state"]);
    assert!(state.contains("Empty"), "{state}");

    // What was committed outlives the broker.
    let one = one.restart();
    let address = one.broker.address();
    assert_eq!(
        row(&groups(&address, &describe)),
        ["shared", "0", "10", "15", "5"]
    );
    assert_eq!(count(&consume(&address, "g", 5)), 5);

    let reset = ["--reset-offsets", "--group", "g", "--topic", "shared"];
    let execute = ["--to-offset", "3", "--execute"];
    groups(&address, &[&reset[..], &execute].concat());
    assert_eq!(
        row(&groups(&address, &describe)),
        ["shared", "0", "3", "15", "12"]
    );
    assert_eq!(count(&consume(&address, "g", 12)), 12);

    let states = ["--list", "--state", "stable"];
    assert!(!groups(&address, &states).contains("g "), "nobody is there");
    let deleted = groups(&address, &["--delete", "--group", "g"]);
    assert!(deleted.contains("successful"), "{deleted}");
    assert_eq!(groups(&address, &["--list"]).trim(), "");
    assert_eq!(count(&consume(&address, "g", 15)), 15, "from the beginning");

    let directory = one.stop();
    dumped(directory.path().join("data"));
}

/// Kafka's own decoder reads what is in `__consumer_offsets`.
fn dumped(data: PathBuf) {
    let files: Vec<String> = std::fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("__consumer_offsets-"))
        .map(|path| path.join("00000000000000000000.log"))
        .filter(|path| path.metadata().is_ok_and(|metadata| metadata.len() > 0))
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    assert_eq!(files.len(), 1, "one group, one partition: {files:?}");
    let dump = kafka_tool(
        "kafka.tools.DumpLogSegments",
        &["--offsets-decoder", "--files", &files[0]],
    );
    for part in [
        "\"group\":\"g\"",
        "\"protocolType\":\"consumer\"",
        "\"topic\":\"shared\"",
        "payload: <DELETE>",
    ] {
        assert!(dump.contains(part), "`{part}` is missing in:\n{dump}");
    }
}

#[test]
fn offsets_of_deleted_topics_are_forgotten() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    produce(&address, 0, 10);
    assert_eq!(count(&consume(&address, "g", 10)), 10);
    let delete = [
        "--delete",
        "--topic",
        "shared",
        "--bootstrap-server",
        &address,
    ];
    kafka_tool("org.apache.kafka.tools.TopicCommand", &delete);
    let gone = barnabas_tests::wait::until(std::time::Duration::from_secs(30), || {
        groups(&address, &["--list"])
            .trim()
            .is_empty()
            .then_some(())
    });
    assert!(gone.is_some(), "the group has nothing left");
}

const DESCRIBE: [&str; 3] = ["--describe", "--group", "g"];

/// Committed offset and lag of the group.
fn committed(address: &str) -> (usize, usize) {
    let described = groups(address, &DESCRIBE);
    let row = row(&described);
    (row[2].parse().unwrap(), row[4].parse().unwrap())
}

/// The coordinator of the only partition of `__consumer_offsets` dies; once it is back, its successor dies.
fn outlive_coordinators(kinds: &[BrokerKind]) {
    let options = ClusterOptions::of(kinds)
        .with("offsets.topic.num.partitions", 1)
        .with("offsets.topic.replication.factor", kinds.len());
    let mut cluster = Cluster::start(&options).unwrap();
    cluster.create_topic("shared", 1, &[]).unwrap();
    let all = cluster.bootstrap().join(",");
    produce(&all, 0, 10);
    assert_eq!(count(&consume(&all, "g", 10)), 10);
    for round in 1..=2 {
        let patience = Duration::from_secs(60);
        for topic in ["__consumer_offsets", "shared"] {
            let are_in_sync = |view: &BTreeMap<i32, PartitionView>| {
                let mut partitions = view.values();
                partitions.all(|partition| partition.isr.len() == kinds.len())
            };
            let mut view = cluster.view();
            view.wait_for(topic, patience, are_in_sync).unwrap();
        }
        let coordinator = cluster.leader("__consumer_offsets", 0).unwrap();
        cluster.kill(coordinator);
        produce(&all, 10 * round, 10 * round + 10);
        assert_eq!(
            count(&consume(&all, "g", 10)),
            10,
            "after broker {coordinator}"
        );
        assert_eq!(committed(&all), (10 * round + 10, 0));
        cluster.start_broker(coordinator).unwrap();
    }
}

#[test]
fn coordination_moves_between_ours_and_kafka() {
    outlive_coordinators(&[BrokerKind::under_test(), BrokerKind::Kafka]);
}

/// The error and the offset of the partition in an answer to `OffsetFetch`.
fn committed_by(client: &mut WireClient) -> (i16, i64) {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("shared")))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("simple")))
        .with_topics(Some(vec![topic]));
    let answer = client.request(&request, 3).unwrap();
    let partition = &answer.topics[0].partitions[0];
    (partition.error_code, partition.committed_offset)
}

/// Commits for a group without members; the offset is to live for `retention_ms`.
fn commit_for(client: &mut WireClient, retention_ms: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(7)
        .with_committed_metadata(Some(StrBytes::default()));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("shared")))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("simple")))
        .with_generation_id_or_member_epoch(-1)
        .with_retention_time_ms(retention_ms)
        .with_topics(vec![topic]);
    let answer = client.request(&request, 3).unwrap();
    answer.topics[0].partitions[0].error_code
}

/// KIP-211: what outlived its time is gone, and the group with the last of its offsets.
#[test]
fn offsets_expire() {
    let one = OneBroker::start(|options| options.with("offsets.retention.check.interval.ms", 500));
    let address = one.broker.address();
    produce(&address, 0, 10);
    let mut client = WireClient::connect(&address).unwrap();
    let find = FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("simple"));
    let committed = barnabas_tests::wait::until(Duration::from_secs(30), || {
        let found = client.request(&find, 1).unwrap();
        (found.error_code == 0 && commit_for(&mut client, 600_000) == 0).then_some(())
    });
    assert!(committed.is_some(), "there is a coordinator");
    assert_eq!(committed_by(&mut client), (0, 7));
    assert_eq!(commit_for(&mut client, 1), 0);
    let expired = barnabas_tests::wait::until(Duration::from_secs(30), || {
        (committed_by(&mut client) == (0, -1)).then_some(())
    });
    assert!(expired.is_some(), "the offset is gone");
    assert_eq!(groups(&address, &["--list"]).trim(), "");
}

/// Nothing that stands in `__consumer_offsets` keeps a coordinator from loading the rest of it.
#[test]
fn groups_are_loaded_around_what_cannot_be_read() {
    // Kafka gives up on the partition.
    if BrokerKind::under_test() == BrokerKind::Kafka {
        return;
    }
    let one = OneBroker::start(|options| options.with("offsets.topic.num.partitions", 1));
    let address = one.broker.address();
    produce(&address, 0, 10);
    assert_eq!(count(&consume(&address, "g", 10)), 10);
    // The key says that it is an offset, and then says nothing.
    let spoil = ["-P", "-t", "__consumer_offsets", "-p", "0", "-K", ":"];
    let as_admin = ["-X", "client.id=__admin_client"];
    kcat_prints(
        &address,
        &[&spoil[..], &as_admin].concat(),
        "\0\u{1}g:nonsense\n",
    );
    let one = one.restart();
    let address = one.broker.address();
    assert_eq!(committed(&address), (10, 0));
    let log = one.broker.log();
    let line = log.lines().find(|line| line.contains("left out"));
    let line = line.expect("the log says what was left out");
    assert!(
        line.contains("__consumer_offsets-0") && line.contains("offset"),
        "{line}"
    );
}

/// kcat's balanced consumer (`-G`): it reads all, and its group is where it left off.
#[test]
fn kcat_in_a_group() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    produce(&address, 0, 10);
    let read = |count: &str| {
        let group = [
            "-G",
            "kcat",
            "-q",
            "-c",
            count,
            "-X",
            "auto.offset.reset=earliest",
        ];
        kcat_prints(&address, &[&group[..], &["shared"]].concat(), "")
    };
    assert_eq!(count(&read("10")), 10);
    produce(&address, 10, 15);
    let numbers =
        |from: usize, to: usize| (from..to).map(|i| i.to_string() + "\n").collect::<String>();
    assert_eq!(read("5"), numbers(10, 15));
}
