//! `MirrorMaker` 2 copies from ours to Apache Kafka and from Apache Kafka to ours, both at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use barnabas_tests::broker::BrokerKind;
use barnabas_tests::server_process::ServerProcess;
use barnabas_tests::tools::applications_java;
use barnabas_tests::wait::until;
use barnabas_tests::wire::WireClient;
use kafka_protocol::messages::{GroupId, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;

use crate::client_program::OneBroker;
use crate::kcat::kcat_prints;
use crate::tools::{kafka_tool, require};

const PATIENCE: Duration = Duration::from_secs(90);
const RECORDS: usize = 600;

/// Copies everything both ways, looking for news every second.
fn properties(ours: &str, kafka: &str) -> String {
    format!(
        "clusters=ours,kafka\nours.bootstrap.servers={ours}\nkafka.bootstrap.servers={kafka}\n\
         ours->kafka.enabled=true\nkafka->ours.enabled=true\ntasks.max=1\n\
         replication.factor=1\nheartbeats.topic.replication.factor=1\n\
         checkpoints.topic.replication.factor=1\noffset-syncs.topic.replication.factor=1\n\
         config.storage.replication.factor=1\noffset.storage.replication.factor=1\n\
         status.storage.replication.factor=1\noffset.storage.partitions=1\n\
         refresh.topics.interval.seconds=1\nrefresh.groups.interval.seconds=1\n\
         sync.topic.configs.interval.seconds=1\nemit.checkpoints.interval.seconds=1\n\
         sync.group.offsets.enabled=true\nsync.group.offsets.interval.seconds=1\n\
         offset.lag.max=0\noffset.flush.interval.ms=1000\n"
    )
}

fn start(directory: &Path, ours: &str, kafka: &str) -> ServerProcess {
    let file = directory.join("mirror.properties");
    fs::write(&file, properties(ours, kafka)).unwrap();
    let options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
    let mut java = applications_java(&options);
    java.arg("org.apache.kafka.connect.mirror.MirrorMaker")
        .arg(file);
    ServerProcess::start("MirrorMaker", &mut java, &directory.join("mirror.log")).unwrap()
}

/// One side: a broker with a topic of its own.
struct Side {
    name: &'static str,
    one: OneBroker,
    topic: &'static str,
}

impl Side {
    fn start(name: &'static str, kind: BrokerKind, topic: &'static str) -> Side {
        let one = OneBroker::start(|options| options.of_kind(kind));
        let side = Side { name, one, topic };
        let address = side.address();
        let create = [
            &["--create", "--bootstrap-server", &address, "--topic", topic][..],
            &["--partitions", "2", "--config", "retention.ms=987654321"],
            &["--config", "cleanup.policy=compact,delete"],
        ];
        kafka_tool("org.apache.kafka.tools.TopicCommand", &create.concat());
        side.produce(0);
        side
    }

    fn address(&self) -> String {
        self.one.broker.address()
    }

    fn produce(&self, from: usize) {
        let line = |i| format!("key-{}:{} of {}\n", i % 50, i, self.name);
        let lines: String = (from..from + RECORDS).map(line).collect();
        let produce = ["-P", "-t", self.topic, "-K", ":", "-H", "from=test"];
        kcat_prints(&self.address(), &produce, &lines);
    }

    /// Partition, offset, time, key, header and value of all records of a topic; those of a partition in order.
    fn records(&self, topic: &str) -> Vec<String> {
        let format = "%p %o %T %k %h %s\n";
        let consume = ["-C", "-t", topic, "-o", "beginning", "-e", "-q"];
        let text = kcat_prints(
            &self.address(),
            &[&consume[..], &["-f", format]].concat(),
            "",
        );
        let mut records: Vec<String> = text.lines().map(str::to_owned).collect();
        records.sort_by_key(|record| {
            let mut words = record.split(' ').map(|word| word.parse::<usize>().unwrap());
            (words.next(), words.next())
        });
        records
    }

    /// What a group has committed, by partition of the topic.
    fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_topics(None);
        let mut client = WireClient::connect(&self.address()).unwrap();
        let answer = client.request(&request, 5).unwrap();
        assert_eq!(answer.error_code, 0, "{answer:?}");
        let topics = answer.topics.iter().filter(|one| &*one.name.0 == topic);
        let partitions = topics.flat_map(|one| &one.partitions);
        partitions
            .map(|one| (one.partition_index, one.committed_offset))
            .collect()
    }
}

/// What the only member of a group reads before it commits and leaves.
fn consume(side: &Side, topic: &str, group: &str, count: usize) -> String {
    let count = count.to_string();
    let consume = ["-G", group, "-q", "-c", &count, topic];
    let from_start = ["-X", "auto.offset.reset=earliest"];
    kcat_prints(&side.address(), &[&from_start[..], &consume].concat(), "")
}

/// What is on one side comes to the other under the name of where it is from.
fn assert_copied(from: &Side, to: &Side) {
    let copy = format!("{}.{}", from.name, from.topic);
    let original = from.records(from.topic);
    let mut found = Vec::new();
    let arrived = until(PATIENCE, || {
        found = to.records(&copy);
        (found.len() >= original.len()).then_some(())
    });
    assert!(arrived.is_some(), "{copy}: {} records", found.len());
    assert_eq!(found, original);
}

/// Topics arrive with their configurations and records, and groups where they had been.
#[test]
fn mirror_maker_copies_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, kafka) = std::thread::scope(|scope| {
        let kafka = scope.spawn(|| Side::start("kafka", BrokerKind::Kafka, "bills"));
        let ours = Side::start("ours", BrokerKind::under_test(), "orders");
        (ours, kafka.join().unwrap())
    });
    for side in [&ours, &kafka] {
        consume(side, side.topic, "done", RECORDS);
        consume(side, side.topic, "half", RECORDS / 2);
    }
    let mut mirror = start(directory.path(), &ours.address(), &kafka.address());
    let ways = [(&ours, &kafka), (&kafka, &ours)];
    for (from, to) in ways {
        let copy = format!("{}.{}", from.name, from.topic);
        mirror
            .wait_until(PATIENCE, || {
                let topics = kcat_prints(&to.address(), &["-L"], "");
                topics.contains(&format!("\"{copy}\"")).then_some(())
            })
            .unwrap();
        assert_copied(from, to);
    }
    for (from, to) in ways {
        let copy = format!("{}.{}", from.name, from.topic);
        let wanted = from.committed("done", from.topic);
        assert_eq!(wanted.values().sum::<i64>(), RECORDS as i64);
        let translated = until(PATIENCE, || {
            (to.committed("done", &copy) == wanted).then_some(())
        });
        assert!(translated.is_some(), "{:?}", to.committed("done", &copy));
        // Behind the newest copies an offset may be translated to an earlier one, never to a later one.
        let halves = (
            from.committed("half", from.topic),
            to.committed("half", &copy),
        );
        for (partition, offset) in &halves.1 {
            assert!(*offset <= halves.0[partition], "{halves:?}");
        }

        let describe = ["--describe", "--bootstrap-server", &to.address(), "--topic"];
        let described = kafka_tool(
            "org.apache.kafka.tools.TopicCommand",
            &[&describe[..], &[&copy]].concat(),
        );
        require(
            &described,
            &[
                "PartitionCount: 2",
                "retention.ms=987654321",
                "cleanup.policy=compact,delete",
            ],
        );
    }
    // What comes later comes too, and whoever moves to the other cluster goes on there.
    for (from, to) in ways {
        from.produce(RECORDS);
        assert_copied(from, to);
    }
    mirror.kill();
    assert!(!mirror.log().contains(" ERROR "), "it had no troubles");
    let copy = format!("{}.{}", ours.name, ours.topic);
    let read = consume(&kafka, &copy, "done", RECORDS);
    let mut numbers: Vec<usize> = read
        .lines()
        .filter_map(|line| line.strip_suffix(" of ours")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(RECORDS..2 * RECORDS), "{read}");
}
