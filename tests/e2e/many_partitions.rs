//! Ten thousand partitions in one broker: made, written to, kept over a restart.

use std::fs;

use barnabas_tests::broker::{Broker, BrokerKind};

use crate::client_program::OneBroker;
use crate::kcat::kcat_prints;
use crate::tools::kafka_tool;

const TOPICS: usize = 10;
const PARTITIONS_EACH: &str = "1000";
/// Far below what the files of ten thousand partitions come to, so they cannot all be held open.
const OPEN_FILES: usize = 10_000;
/// The broker has little to keep for a partition that nobody uses.
const RESIDENT_MIB: u64 = 400;

fn open_files(broker: &mut Broker) -> usize {
    fs::read_dir(format!("/proc/{}/fd", broker.process().id()))
        .unwrap()
        .count()
}

fn resident_mib(broker: &mut Broker) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.process().id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn require_moderation(broker: &mut Broker) {
    if broker.options().kind == BrokerKind::Barnabas {
        let (files, resident) = (open_files(broker), resident_mib(broker));
        assert!(files < OPEN_FILES, "{files} files are open");
        assert!(resident < RESIDENT_MIB, "{resident} MiB are resident");
    }
}

#[test]
fn ten_thousand_partitions() {
    let mut one = OneBroker::start(|options| options.with("zookeeper.session.timeout.ms", 18_000));
    let address = one.broker.address();
    let names: Vec<String> = (0..TOPICS).map(|i| format!("many-{i}")).collect();
    for name in &names {
        let create = ["--create", "--topic", name, "--partitions", PARTITIONS_EACH];
        let server = ["--bootstrap-server", &address];
        kafka_tool(
            "org.apache.kafka.tools.TopicCommand",
            &[&server[..], &create].concat(),
        );
        one.broker.wait_for_leaders(name).unwrap();
    }
    require_moderation(&mut one.broker);

    let last = names.last().unwrap();
    for partition in ["0", "500", "999"] {
        kcat_prints(&address, &["-P", "-t", last, "-p", partition], "hello\n");
    }
    let mut one = one.restart();
    for name in &names {
        one.broker.wait_for_leaders(name).unwrap();
    }
    require_moderation(&mut one.broker);
    for partition in ["0", "500", "999"] {
        let consume = [
            "-C",
            "-t",
            last,
            "-p",
            partition,
            "-o",
            "beginning",
            "-e",
            "-q",
        ];
        assert_eq!(kcat_prints(&address, &consume, ""), "hello\n");
    }
}
