//! Apache Kafka 3.9.1 starts on the ZooKeeper tree and the log directory that ours left, and ours on Kafka's.

use std::time::Duration;

use barnabas_tests::broker::{BrokerKind, BrokerOptions};
use barnabas_tests::wait;
use barnabas_tests::zookeeper_server::ZooKeeperServer;

use crate::kcat::kcat_prints;
use crate::kill_loop::start_after_kill;
use crate::tools::kafka_tool;

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

const SESSION_PATIENCE: Duration = Duration::from_secs(30);

/// Lines in which Kafka tells that it did, or did not have to, recover its log.
const KAFKA_SKIPS: &str = "since clean shutdown file was found";
const KAFKA_RECOVERS: &str = "since no clean shutdown file was found";

#[derive(Clone, Copy)]
enum End {
    Stop,
    Kill,
}

/// One line per number, long enough that a thousand of them fill several segments.
fn numbers(from: usize, to: usize) -> String {
    (from..to).fold(String::new(), |text, i| {
        text + &format!("{i:0>8} {:x<100}\n", "")
    })
}

/// Sends the next thousand numbers in small batches to one topic per codec and to one idempotently.
fn send_thousand(address: &str, from: usize) {
    let input = numbers(from, from + 1000);
    let send = |name: &str, option: [&str; 2]| {
        let topic = format!("exchanged-{name}");
        let produce = ["-P", "-t", &topic, "-X", "batch.num.messages=10"];
        kcat_prints(address, &[&produce[..], &option].concat(), &input);
    };
    for codec in CODECS {
        send(codec, ["-z", codec]);
    }
    send("idempotent", ["-X", "enable.idempotence=true"]);
}

fn topics() -> impl Iterator<Item = String> {
    CODECS
        .into_iter()
        .chain(["idempotent"])
        .map(|name| format!("exchanged-{name}"))
}

fn require_numbers(address: &str, to: usize) {
    for topic in topics() {
        let consume = ["-C", "-t", &topic, "-o", "beginning", "-e", "-q"];
        assert!(
            kcat_prints(address, &consume, "") == numbers(0, to),
            "{topic}"
        );
    }
}

fn configs(address: &str, arguments: &[&str]) -> String {
    let topic = ["--bootstrap-server", address, "--entity-type", "topics"];
    kafka_tool(
        "kafka.admin.ConfigCommand",
        &[&topic[..], arguments].concat(),
    )
}

/// Kafka recovers its log before it finds the registration of its former life in the way and ends; a second
/// start would then have nothing to recover.
fn wait_for_registration_to_go(zookeeper: &ZooKeeperServer) {
    wait::until(SESSION_PATIENCE, || {
        let ephemerals = zookeeper.ask("dump").unwrap();
        (!ephemerals.contains("/brokers/ids/")).then_some(())
    })
    .expect("the session of a killed broker ends");
}

/// Brokers of these kinds live one after the other on the same state, each ending like this.
fn exchange(kinds: [BrokerKind; 3], end: End) {
    let zookeeper = ZooKeeperServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = BrokerOptions::new(directory.path(), &zookeeper.connect())
        .with("log.segment.bytes", 16 * 1024)
        .with("log.index.interval.bytes", 512)
        .with("zookeeper.session.timeout.ms", 2000);
    let config = "max.message.bytes=654321";
    for (life, kind) in kinds.into_iter().enumerate() {
        let options = options.clone().of_kind(kind);
        let said_before =
            std::fs::read_to_string(options.directory.join("log")).unwrap_or_default();
        let mut broker = start_after_kill(&options);
        let address = broker.address();
        if kind == BrokerKind::Kafka && life > 0 {
            let log = broker.log().split_off(said_before.len());
            let (wanted, unwanted) = match end {
                End::Stop => (KAFKA_SKIPS, KAFKA_RECOVERS),
                End::Kill => (KAFKA_RECOVERS, KAFKA_SKIPS),
            };
            assert!(log.contains(wanted) && !log.contains(unwanted), "{log}");
            assert!(!log.contains("ERROR"), "{log}");
        }
        if life == 0 {
            send_thousand(&address, 0);
            let one = [
                "--entity-name",
                "exchanged-none",
                "--alter",
                "--add-config",
                config,
            ];
            configs(&address, &one);
        } else {
            for name in topics() {
                broker.wait_for_leaders(&name).unwrap();
            }
            require_numbers(&address, 1000 * life);
            let described = configs(&address, &["--entity-name", "exchanged-none", "--describe"]);
            assert!(described.contains(config), "{described}");
            send_thousand(&address, 1000 * life);
        }
        require_numbers(&address, 1000 * (life + 1));
        match end {
            End::Stop => broker.stop().unwrap(),
            End::Kill => {
                broker.kill();
                wait_for_registration_to_go(&zookeeper);
            }
        }
    }
}

/// Kafka is judged by itself if it is the broker under test.
fn ours() -> BrokerKind {
    BrokerKind::under_test()
}

#[test]
fn ours_then_kafka_then_ours() {
    exchange([ours(), BrokerKind::Kafka, ours()], End::Stop);
}

#[test]
fn kafka_then_ours_then_kafka() {
    exchange([BrokerKind::Kafka, ours(), BrokerKind::Kafka], End::Stop);
}

#[test]
fn ours_killed_then_kafka_killed_then_ours() {
    exchange([ours(), BrokerKind::Kafka, ours()], End::Kill);
}
