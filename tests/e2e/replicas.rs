//! Replicas on disk: whatever happens to leaders, in the end every broker has the same bytes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use barnabas_core::records::batches;
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::verify::{Verifier, VerifierOptions};
use barnabas_tests::wait;

const TOPIC: &str = "rep";
const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of the epoch checkpoint whose epochs have records. An epoch without any is known to its leader
/// only.
fn epochs_of(log_dir: &Path, partition: i32, bytes: &[u8]) -> Vec<String> {
    let written: BTreeSet<i32> = batches(bytes)
        .map(|batch| batch.unwrap().1.leader_epoch)
        .collect();
    let path = log_dir.join(format!("{TOPIC}-{partition}/leader-epoch-checkpoint"));
    let text = std::fs::read_to_string(path).unwrap();
    let is_written = |line: &&str| {
        let epoch = line.split(' ').next().unwrap_or_default();
        epoch.parse().is_ok_and(|epoch| written.contains(&epoch))
    };
    let lines = text.lines().skip(2).filter(is_written);
    lines.map(str::to_owned).collect()
}

fn are_equal(cluster: &Cluster) -> bool {
    (0..PARTITIONS).all(|partition| {
        let all: Vec<Vec<u8>> = cluster
            .ids()
            .into_iter()
            .map(|id| cluster.segments(id, TOPIC, partition).unwrap())
            .collect();
        all.iter().all(|bytes| *bytes == all[0])
    })
}

#[test]
fn killed_leaders_come_back_with_the_same_bytes() {
    let options = ClusterOptions::three()
        .with("replica.lag.time.max.ms", 5_000)
        .with("log.segment.bytes", 100_000);
    let mut cluster = Cluster::start(&options).unwrap();
    let configs = [("min.insync.replicas", "2")];
    cluster.create_topic(TOPIC, PARTITIONS, &configs).unwrap();
    let verifier = Verifier::start(VerifierOptions::new(cluster.bootstrap(), TOPIC, PARTITIONS));
    verifier.wait_for_progress(60, PATIENCE).unwrap();
    let ids = cluster.ids();
    for partition in 0..PARTITIONS {
        let leader = cluster.leader(TOPIC, partition).unwrap();
        cluster.kill(leader);
        verifier.wait_for_progress(60, PATIENCE).unwrap();
        cluster.start_broker(leader).unwrap();
        cluster.view().wait_for_isr(TOPIC, &ids, PATIENCE).unwrap();
    }
    let verified = verifier.stop().unwrap();
    println!("{verified:?}");
    let equal = wait::until(PATIENCE, || are_equal(&cluster).then_some(()));
    assert!(equal.is_some(), "the replicas differ");
    for partition in 0..PARTITIONS {
        let of = |id: i32| {
            let log_dir = cluster.log_dir(id);
            let bytes = cluster.segments(id, TOPIC, partition).unwrap();
            epochs_of(&log_dir, partition, &bytes)
        };
        let first = of(ids[0]);
        assert!(first.len() > 1, "{first:?}");
        for &id in &ids {
            assert_eq!(of(id), first, "broker {id}, partition {partition}");
        }
    }
}
