//! A compacted topic: the log shrinks to the latest record of each key, whatever end the broker comes to.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use barnabas_tests::broker::{Broker, BrokerOptions};
use barnabas_tests::wait;
use barnabas_tests::zookeeper_server::ZooKeeperServer;

use crate::kcat::kcat_prints;
use crate::kill_loop::start_after_kill;
use crate::tools::{dump, files, kafka_tool, require};

const TOPIC: &str = "compacted";
const PATIENCE: Duration = Duration::from_secs(60);

const KEYS: usize = 40;
/// Those of them that are deleted.
const DELETED: usize = 5;
/// Each fills many segments.
const WAVE: usize = 4000;

/// A record as it was sent; its offset is its place among all that were.
#[derive(Clone)]
struct Sent {
    key: usize,
    value: Option<String>,
}

/// Values of all keys in turn; those that are to be deleted early in the first wave are only there.
fn wave(sent: &[Sent]) -> Vec<Sent> {
    let is_first = sent.is_empty();
    let record = |i: usize| {
        let key = i % KEYS;
        let value = Some(format!("{:0>8} {:x<100}", sent.len() + i, ""));
        match key < DELETED {
            true if !is_first || i > 10 * KEYS => None,
            true if i >= 9 * KEYS => Some(Sent { key, value: None }),
            _ => Some(Sent { key, value }),
        }
    };
    (0..WAVE).filter_map(record).collect()
}

fn send(address: &str, wave: &[Sent], codec: &str) {
    let mut input = String::new();
    for Sent { key, value } in wave {
        writeln!(input, "key-{key}:{}", value.as_deref().unwrap_or("")).unwrap();
    }
    let produce = ["-P", "-t", TOPIC, "-p", "0", "-K", ":", "-Z", "-z", codec];
    let batches = [
        "-X",
        "batch.num.messages=10",
        "-X",
        "enable.idempotence=true",
    ];
    kcat_prints(address, &[&produce[..], &batches].concat(), &input);
}

fn partition(options: &BrokerOptions) -> PathBuf {
    options.log_dir().join(format!("{TOPIC}-0"))
}

fn active_base_offset(partition: &Path) -> usize {
    let logs = files(partition, "log");
    let name = logs.last().unwrap().file_stem().unwrap();
    name.to_str().unwrap().parse().unwrap()
}

fn log_bytes(partition: &Path) -> u64 {
    let logs = files(partition, "log");
    // The cleaner may take one away meanwhile.
    let sizes = logs.iter().filter_map(|log| fs::metadata(log).ok());
    sizes.map(|status| status.len()).sum()
}

/// Up to where the checkpoint says that the log was cleaned.
fn cleaned_offset(options: &BrokerOptions) -> Option<usize> {
    let path = options.log_dir().join("cleaner-offset-checkpoint");
    let text = fs::read_to_string(path).ok()?;
    let line = format!("{TOPIC} 0 ");
    let offset = text.lines().find_map(|found| found.strip_prefix(&line))?;
    offset.parse().ok()
}

/// Waits until everything below the active segment is clean; returns where that begins.
fn wait_until_clean(options: &BrokerOptions) -> usize {
    let partition = partition(options);
    wait::until(PATIENCE, || {
        let active = active_base_offset(&partition);
        (cleaned_offset(options) == Some(active)).then_some(active)
    })
    .unwrap_or_else(|| {
        panic!(
            "clean up to {:?} of {}",
            cleaned_offset(options),
            active_base_offset(&partition)
        )
    })
}

/// Of what was sent: everything in the active segment, and below it the latest record of each key unless
/// that is a tombstone.
fn compacted(sent: &[Sent], active: usize) -> String {
    let mut latest = HashMap::new();
    for (offset, record) in sent[..active].iter().enumerate() {
        latest.insert(record.key, offset);
    }
    let mut text = String::new();
    for (offset, Sent { key, value }) in sent.iter().enumerate() {
        if let Some(value) = value
            && (offset >= active || latest[key] == offset)
        {
            writeln!(text, "{offset} key-{key} {value}").unwrap();
        }
    }
    text
}

fn consume(address: &str) -> String {
    let consume = ["-C", "-t", TOPIC, "-p", "0", "-o", "beginning", "-e", "-q"];
    kcat_prints(address, &[&consume[..], &["-f", "%o %k %s\n"]].concat(), "")
}

fn create(address: &str) {
    let server = ["--bootstrap-server", address, "--create", "--topic", TOPIC];
    let mut arguments = server.to_vec();
    for config in [
        "cleanup.policy=compact",
        "segment.bytes=16384",
        "index.interval.bytes=512",
        "min.cleanable.dirty.ratio=0.01",
        "delete.retention.ms=0",
        "file.delete.delay.ms=100",
    ] {
        arguments.extend(["--config", config]);
    }
    let text = kafka_tool("org.apache.kafka.tools.TopicCommand", &arguments);
    require(&text, &["Created topic compacted."]);
}

fn keep_from_now_on(address: &str) {
    let arguments = [
        "--bootstrap-server",
        address,
        "--entity-type",
        "topics",
        "--entity-name",
        TOPIC,
        "--alter",
        "--add-config",
        "cleanup.policy=delete",
    ];
    kafka_tool("kafka.admin.ConfigCommand", &arguments);
}

fn restart_after_kill(broker: Broker) -> Broker {
    let options = broker.options().clone();
    broker.kill();
    let mut broker = start_after_kill(&options);
    broker.wait_for_leaders(TOPIC).unwrap();
    broker
}

#[test]
fn only_the_latest_record_of_each_key_stays() {
    let zookeeper = ZooKeeperServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::new(directory.path(), &zookeeper.connect())
        .with("log.cleaner.backoff.ms", 100)
        .with("log.cleaner.dedupe.buffer.size", 4 << 20)
        .with("zookeeper.session.timeout.ms", 2000);
    let partition = partition(&options);
    let broker = options.start().unwrap();
    let address = broker.address();
    create(&address);

    let mut sent = wave(&[]);
    send(&address, &sent, "none");
    let tombstones = 10 * KEYS;
    assert!(wait_until_clean(&options) > tombstones);
    // A tombstone goes when the log is cleaned for the second time.
    let second = wave(&sent);
    sent.extend(second.iter().cloned());
    send(&address, &second, "zstd");
    let active = wait_until_clean(&options);
    assert!(active > WAVE, "{active}");

    let expected = compacted(&sent, active);
    assert_eq!(consume(&address), expected);
    let bytes = log_bytes(&partition);
    assert!(bytes < 3 * 16384, "{bytes} bytes are left");

    let broker = restart_after_kill(broker);
    assert_eq!(consume(&address), expected);
    assert_eq!(wait_until_clean(&options), active);

    // What compaction has left is no damage when the topic is not compacted any more.
    keep_from_now_on(&address);
    let broker = restart_after_kill(broker);
    assert_eq!(consume(&address), expected);

    // A running broker preallocates its indexes, so dump what a clean stop leaves.
    broker.stop().unwrap();
    let text = dump(
        &files(&partition, "log"),
        &["--deep-iteration", "--print-data-log"],
    );
    let found = text
        .lines()
        .filter_map(|line| line.strip_prefix("| offset: ")?.split(' ').next());
    let offsets = expected.lines().filter_map(|line| line.split(' ').next());
    assert!(found.eq(offsets), "{text}");
    dump(&files(&partition, "index"), &["--index-sanity-check"]);
    dump(&files(&partition, "timeindex"), &["--index-sanity-check"]);
}
