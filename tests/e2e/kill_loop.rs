//! `kill -9` again and again while an idempotent producer sends: what was acknowledged is the oracle.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use barnabas_tests::broker::{Broker, BrokerKind, BrokerOptions};
use barnabas_tests::tools::{repository, test_tool};
use barnabas_tests::wait;
use barnabas_tests::zookeeper_server::ZooKeeperServer;

use crate::kcat::kcat_prints;

const TOPIC: &str = "killed";
const PARTITIONS: usize = 4;
const ROUND_PATIENCE: Duration = Duration::from_secs(60);
/// Acknowledged bytes of the oracle's file to wait for in a round; each round waits for another number
/// of them, so that the kills hit at all points of the broker's work.
const LEAST_PROGRESS: u64 = 2_000;
const PROGRESS_STEP: u64 = 1_777;
const PROGRESS_STEPS: u64 = 23;

fn rounds() -> u64 {
    let default = match BrokerKind::under_test() {
        BrokerKind::Barnabas => 100,
        BrokerKind::Kafka => 5,
    };
    std::env::var("BARNABAS_KILL_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Starts the broker whose predecessor was killed. Until that one's session expires its registration is
/// in the way and, as with Kafka, the new process may end with an error; then it is started again.
pub(crate) fn start_after_kill(options: &BrokerOptions) -> Broker {
    let mut last_error = None;
    wait::until(ROUND_PATIENCE, || {
        options
            .start()
            .map_err(|error| last_error = Some(error))
            .ok()
    })
    .unwrap_or_else(|| panic!("the broker does not start again: {last_error:?}"))
}

fn producer(address: &str, acknowledged: &Path) -> Child {
    Command::new(test_tool("python/bin/python"))
        .arg(repository().join("tests/clients/python/acknowledged.py"))
        .args([address, TOPIC, &PARTITIONS.to_string()])
        .arg(acknowledged)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}

#[test]
fn nothing_acknowledged_is_lost_duplicated_or_reordered() {
    let zookeeper = ZooKeeperServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::new(directory.path(), &zookeeper.connect())
        .with("num.partitions", PARTITIONS)
        .with("zookeeper.session.timeout.ms", 1000)
        .with("log.segment.bytes", 256 * 1024);
    let acknowledged = directory.path().join("acknowledged");

    let mut broker = options.start().unwrap();
    let mut producer = producer(&options.address(), &acknowledged);
    for round in 0..rounds() {
        let enough =
            length(&acknowledged) + LEAST_PROGRESS + PROGRESS_STEP * (round * 7 % PROGRESS_STEPS);
        wait::until(ROUND_PATIENCE, || {
            (length(&acknowledged) >= enough).then_some(())
        })
        .unwrap_or_else(|| panic!("round {round}: nothing more is acknowledged"));
        broker.kill();
        broker = start_after_kill(&options);
    }

    drop(producer.stdin.take());
    let mut said = String::new();
    producer
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(producer.wait().unwrap().success(), "{said}");
    let sent: usize = said.trim().strip_prefix("PASS ").unwrap().parse().unwrap();

    broker.wait_for_leaders(TOPIC).unwrap();
    let mut logs = Vec::new();
    for partition in 0..PARTITIONS {
        let partition = partition.to_string();
        let consume = [
            "-C",
            "-t",
            TOPIC,
            "-p",
            &partition,
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            "%o %s\n",
        ];
        logs.push(kcat_prints(&options.address(), &consume, ""));
    }
    let mut acknowledged_numbers = [0; PARTITIONS];
    let oracle: BTreeMap<(usize, u64), usize> = fs::read_to_string(&acknowledged)
        .unwrap()
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let mut next = || words.next().unwrap().parse::<u64>().unwrap();
            let (partition, offset, number) = (next() as usize, next(), next() as usize);
            acknowledged_numbers[partition] += 1;
            ((partition, offset), number)
        })
        .collect();
    assert_eq!(
        acknowledged_numbers.iter().sum::<usize>(),
        sent,
        "all are acknowledged in the end"
    );

    for (partition, log) in logs.iter().enumerate() {
        let mut expected = partition;
        for line in log.lines() {
            let (offset, number) = line.split_once(' ').unwrap();
            let (offset, number): (u64, usize) = (offset.parse().unwrap(), number.parse().unwrap());
            assert_eq!(number, expected, "partition {partition} at offset {offset}");
            assert_eq!(
                oracle.get(&(partition, offset)),
                Some(&number),
                "acknowledged elsewhere"
            );
            expected += PARTITIONS;
        }
        assert!(
            expected >= sent,
            "partition {partition} ends before {expected} of {sent}"
        );
    }
}
