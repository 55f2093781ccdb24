//! The log cleaner among kills, transactions, settings and Kafka: whatever happens, the latest committed
//! value of each key is there, at its offset.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use barnabas_tests::broker::{Broker, BrokerKind, BrokerOptions};
use barnabas_tests::wait;
use barnabas_tests::zookeeper_server::ZooKeeperServer;

use crate::kcat::kcat_prints;
use crate::kill_loop::start_after_kill;
use crate::tools::{dump, files, kafka_tool};
use crate::transactions::{Producer, TOPIC};

const PATIENCE: Duration = Duration::from_secs(60);
const KEYS: usize = 25;
/// Transactions between two kills.
const TRANSACTIONS: usize = 12;
/// Records of a transaction.
const RECORDS: usize = 20;

fn rounds() -> usize {
    let given = std::env::var("BARNABAS_CLEANER_KILL_ROUNDS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(10)
}

fn create(address: &str, topic: &str, configs: &[&str]) {
    let mut arguments = vec!["--bootstrap-server", address, "--create", "--topic", topic];
    for config in configs {
        arguments.extend(["--config", config]);
    }
    kafka_tool("org.apache.kafka.tools.TopicCommand", &arguments);
}

/// Up to where the checkpoint says that a partition was cleaned.
fn cleaned_offset(options: &BrokerOptions, topic: &str) -> Option<u64> {
    let path = options.log_dir().join("cleaner-offset-checkpoint");
    let text = fs::read_to_string(path).ok()?;
    let line = format!("{topic} 0 ");
    let offset = text.lines().find_map(|found| found.strip_prefix(&line))?;
    offset.parse().ok()
}

fn active_base_offset(partition: &Path) -> Option<u64> {
    files(partition, "log")
        .last()?
        .file_stem()?
        .to_str()?
        .parse()
        .ok()
}

/// Waits until everything below the active segment is clean.
fn wait_until_clean(options: &BrokerOptions, topic: &str) {
    let partition = options.log_dir().join(format!("{topic}-0"));
    let clean = wait::until(PATIENCE, || {
        let active = active_base_offset(&partition)?;
        (cleaned_offset(options, topic) == Some(active)).then_some(())
    });
    let cleaned = cleaned_offset(options, topic);
    assert!(clean.is_some(), "{topic} is clean up to {cleaned:?}");
}

/// Waits until the cleaner is writing segments anew or swapping them.
fn wait_until_cleaning(partition: &Path) -> bool {
    let begun = wait::until(Duration::from_secs(5), || {
        let entries = fs::read_dir(partition).ok()?;
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .any(|name| [".cleaned", ".swap"].iter().any(|end| name.ends_with(end)))
            .then_some(())
    });
    begun.is_some()
}

/// Keys with values, by offset.
type Records = BTreeMap<u64, (String, String)>;

fn read(address: &str, topic: &str, isolation: &str) -> Records {
    let consume = ["-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q"];
    let isolation = format!("isolation.level={isolation}");
    let format = ["-X", &isolation, "-f", "%o %k %s\n"];
    let text = kcat_prints(address, &[&consume[..], &format].concat(), "");
    let record = |line: &str| {
        let mut parts = line.splitn(3, ' ').map(str::to_owned);
        let offset = parts.next().unwrap().parse().unwrap();
        (offset, (parts.next().unwrap(), parts.next().unwrap()))
    };
    text.lines().map(record).collect()
}

/// The last of each key.
fn latest(records: &Records) -> BTreeMap<&str, (u64, &str)> {
    let mut latest = BTreeMap::new();
    for (offset, (key, value)) in records {
        latest.insert(key.as_str(), (*offset, value.as_str()));
    }
    latest
}

/// What transactions wrote, and what of that counts.
struct Story {
    producer: Producer,
    next_offset: u64,
    count: usize,
    committed: Records,
}

impl Story {
    /// A transaction over some keys; every third one is aborted.
    fn transact(&mut self) {
        let is_committed = self.count % 3 != 1;
        let (first_offset, records) = self.send();
        assert_eq!(self.producer.end(is_committed), 0);
        let complete = ["CompleteAbort", "CompleteCommit"][usize::from(is_committed)];
        self.producer.wait_for_state(complete);
        self.next_offset += 1;
        if is_committed {
            self.committed.extend((first_offset..).zip(records));
        }
    }

    fn send(&mut self) -> (u64, Vec<(String, String)>) {
        let record = |i: usize| {
            let key = format!("key-{}", (self.count * 7 + i) % KEYS);
            (key, format!("{}-{i}-{:x<60}", self.count, ""))
        };
        let records: Vec<_> = (0..RECORDS).map(record).collect();
        let parts: Vec<_> = records
            .iter()
            .map(|(key, value)| (Some(key.as_str()), Some(value.as_str())))
            .collect();
        self.producer.send_all(0, &parts);
        let first_offset = self.next_offset;
        self.next_offset += RECORDS as u64;
        self.count += 1;
        (first_offset, records)
    }

    /// What readers of committed records see is what was committed, at its offsets, and the latest of
    /// each key is among it.
    fn check(&self, address: &str, when: &str) -> Records {
        let found = read(address, TOPIC, "read_committed");
        for (offset, record) in &found {
            assert_eq!(
                self.committed.get(offset),
                Some(record),
                "{when}, at {offset}"
            );
        }
        assert_eq!(latest(&found), latest(&self.committed), "{when}");
        found
    }
}

/// The cleaner works slowly on two logs with two threads, and is killed in the middle again and again.
/// In the end Kafka goes on with our files, and ours with Kafka's.
#[test]
fn a_cleaner_that_is_killed_leaves_what_was_committed() {
    let zookeeper = ZooKeeperServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let slow = BrokerOptions::new(directory.path(), &zookeeper.connect())
        .with("log.cleaner.backoff.ms", 20)
        .with("log.cleaner.threads", 2)
        .with("log.cleaner.dedupe.buffer.size", 8 << 20)
        .with("log.cleaner.io.max.bytes.per.second", 100_000)
        .with("zookeeper.session.timeout.ms", 2000);
    let address = slow.address();
    let partition = slow.log_dir().join(format!("{TOPIC}-0"));
    let mut broker = slow.start().unwrap();
    let settings = [
        "cleanup.policy=compact",
        "segment.bytes=8192",
        "index.interval.bytes=512",
        "min.cleanable.dirty.ratio=0.01",
        "file.delete.delay.ms=100",
    ];
    create(&address, TOPIC, &settings);
    let mut story = Story {
        producer: Producer::init(std::slice::from_ref(&address), "till", 900_000),
        next_offset: 0,
        count: 0,
        committed: Records::new(),
    };
    let mut in_the_middle = 0;
    for round in 0..rounds() {
        for _ in 0..TRANSACTIONS {
            story.transact();
        }
        in_the_middle += usize::from(wait_until_cleaning(&partition));
        // Each round dies a little later.
        std::thread::sleep(Duration::from_millis((round as u64 * 37) % 150));
        broker.kill();
        broker = start_after_kill(&slow);
        broker.wait_for_leaders(TOPIC).unwrap();
        story.check(&address, &format!("round {round}"));
    }
    assert!(
        in_the_middle * 2 > rounds(),
        "{in_the_middle} kills hit a cleaning"
    );

    // One transaction stays open: what follows it is not cleaned, and nobody reads it.
    broker.stop().unwrap();
    let quick = slow
        .clone()
        .with("log.cleaner.io.max.bytes.per.second", 1e9);
    let broker = quick.start().unwrap();
    wait_until_clean(&quick, TOPIC);
    story.send();
    let cleaned = story.check(&address, "all clean");
    assert!(
        cleaned.len() < story.committed.len() / 2,
        "{}",
        cleaned.len()
    );
    broker.stop().unwrap();
    dump(&files(&partition, "log"), &["--deep-iteration"]);
    dump(&files(&partition, "index"), &["--index-sanity-check"]);
    if BrokerKind::under_test() == BrokerKind::Kafka {
        return;
    }

    let kafka = quick.clone().of_kind(BrokerKind::Kafka);
    let mut broker = start_after_kill(&kafka);
    broker.wait_for_leaders(TOPIC).unwrap();
    let found = story.check(&address, "Kafka on our files");
    assert_among(&found, &cleaned);
    assert_eq!(story.producer.end(true), 0, "Kafka commits what ours began");
    story.producer.wait_for_state("CompleteCommit");
    story.next_offset += 1;
    story.commit_last();
    for _ in 0..2 * TRANSACTIONS {
        story.transact();
    }
    wait_until_clean(&kafka, TOPIC);
    let by_kafka = story.check(&address, "Kafka has cleaned");
    broker.stop().unwrap();
    let mut broker = start_after_kill(&quick);
    broker.wait_for_leaders(TOPIC).unwrap();
    let found = story.check(&address, "ours on Kafka's files");
    assert_among(&found, &by_kafka);
    for _ in 0..TRANSACTIONS {
        story.transact();
    }
    wait_until_clean(&quick, TOPIC);
    story.check(&address, "ours has cleaned Kafka's files");
    broker.stop().unwrap();
}

/// What one broker left is all that the next one has; its own cleaner may have gone on from there.
fn assert_among(found: &Records, left: &Records) {
    for (offset, record) in found {
        assert_eq!(left.get(offset), Some(record), "at {offset}");
    }
}

impl Story {
    /// The transaction that was sent last was committed after all.
    fn commit_last(&mut self) {
        let count = self.count - 1;
        let first_offset = self.next_offset - 1 - RECORDS as u64;
        let record = |i: usize| {
            let key = format!("key-{}", (count * 7 + i) % KEYS);
            (key, format!("{count}-{i}-{:x<60}", ""))
        };
        let records = (0..RECORDS).map(record);
        self.committed.extend((first_offset..).zip(records));
    }
}

/// Sends values of ten keys in turn; returns what was sent, by offset.
fn fill(broker: &Broker, topic: &str, from: usize, count: usize) -> Records {
    let mut input = String::new();
    let mut sent = Records::new();
    for i in from..from + count {
        let (key, value) = (format!("key-{}", i % 10), format!("{i:0>100}"));
        writeln!(input, "{key}:{value}").unwrap();
        sent.insert(i as u64, (key, value));
    }
    let produce = ["-P", "-t", topic, "-p", "0", "-K", ":"];
    let batches = ["-X", "batch.num.messages=10"];
    kcat_prints(
        &broker.address(),
        &[&produce[..], &batches].concat(),
        &input,
    );
    sent
}

#[test]
fn lags_and_retention_say_what_is_cleaned_when() {
    let zookeeper = ZooKeeperServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::new(directory.path(), &zookeeper.connect())
        .with("log.cleaner.backoff.ms", 50)
        .with("log.cleaner.dedupe.buffer.size", 4 << 20);
    let broker = options.start().unwrap();
    let address = broker.address();
    let segments = ["segment.bytes=16384", "file.delete.delay.ms=100"];
    let compact = ["cleanup.policy=compact", "min.cleanable.dirty.ratio=0.01"];
    let kinds: [(&str, &[&str]); 4] = [
        ("plain", &compact),
        (
            "young",
            &[compact[0], compact[1], "min.compaction.lag.ms=3600000"],
        ),
        (
            "overdue",
            &[
                compact[0],
                "min.cleanable.dirty.ratio=1.0",
                "max.compaction.lag.ms=1500",
            ],
        ),
        (
            "both",
            &[
                "cleanup.policy=compact,delete",
                compact[1],
                "retention.bytes=40000",
            ],
        ),
    ];
    let mut sent = BTreeMap::new();
    for (topic, configs) in kinds {
        create(&address, topic, &[configs, &segments[..]].concat());
        sent.insert(topic, fill(&broker, topic, 0, 2000));
    }
    for topic in ["plain", "both", "overdue"] {
        wait_until_clean(&options, topic);
    }
    for topic in ["plain", "both", "overdue"] {
        let found = read(&address, topic, "read_uncommitted");
        assert_eq!(latest(&found), latest(&sent[topic]), "{topic}");
        assert!(found.len() < 500, "{} of {topic}", found.len());
    }
    // What is too young stays, however dirty the log is.
    assert_eq!(read(&address, "young", "read_uncommitted"), sent["young"]);
    let alter = "min.compaction.lag.ms=0";
    let entity = ["--entity-type", "topics", "--entity-name", "young"];
    let server = [
        "--bootstrap-server",
        &address,
        "--alter",
        "--add-config",
        alter,
    ];
    kafka_tool(
        "kafka.admin.ConfigCommand",
        &[&server[..], &entity].concat(),
    );
    wait_until_clean(&options, "young");
    let found = read(&address, "young", "read_uncommitted");
    assert_eq!(latest(&found), latest(&sent["young"]));

    // Retention takes whole segments of what compaction leaves, were they ever so clean: keys of their own
    // fill what it does not get smaller by itself.
    let mut input = String::new();
    for i in 0..1500 {
        writeln!(input, "own-{i}:{i:0>100}").unwrap();
    }
    let produce = [
        "-P",
        "-t",
        "both",
        "-p",
        "0",
        "-K",
        ":",
        "-X",
        "batch.num.messages=10",
    ];
    kcat_prints(&address, &produce, &input);
    let partition = options.log_dir().join("both-0");
    let size = || -> u64 {
        let sizes = files(&partition, "log").into_iter();
        sizes
            .filter_map(|log| Some(fs::metadata(log).ok()?.len()))
            .sum()
    };
    let small = wait::until(PATIENCE, || (size() < 60_000).then_some(()));
    assert!(small.is_some(), "{} bytes are left", size());
    let found = read(&address, "both", "read_uncommitted");
    assert!(found.values().any(|(key, _)| key == "own-1499"));
    assert!(!found.values().any(|(key, _)| key == "own-0"));
    broker.stop().unwrap();
}
