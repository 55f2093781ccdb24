//! Log directories that Kafka 3.9.1 wrote: the replica of a leader that was killed with records nobody else
//! had becomes equal to what Kafka made of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use barnabas_core::ids::{BrokerId, TopicId};

use super::cluster::{Cluster, TOPIC};
use super::world;

fn unpack(name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/datadirs")
        .join(format!("{name}.tar.gz"));
    let status = Command::new("tar")
        .arg("xzf")
        .arg(archive)
        .arg("-C")
        .arg(directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    directory
}

fn data(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("data")
}

/// The leader epochs that have records; brokers that lead at the end have one more.
fn epochs(data: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(data.join("rep-0/leader-epoch-checkpoint")).unwrap();
    let entries = text.lines().skip(2).map(str::to_owned);
    entries.filter(|entry| !entry.ends_with(" 26")).collect()
}

/// The files of the partition that tell what is in it, and the checkpoint of its high watermark.
fn content(data: &Path) -> Vec<(String, Vec<u8>)> {
    let names = [
        "rep-0/00000000000000000000.log",
        "rep-0/00000000000000000000.index",
        "rep-0/00000000000000000000.timeindex",
        "rep-0/partition.metadata",
        "replication-offset-checkpoint",
        "recovery-point-offset-checkpoint",
    ];
    names
        .into_iter()
        .map(|name| (name.to_owned(), std::fs::read(data.join(name)).unwrap()))
        .collect()
}

fn assert_equal(ours: &Path, kafka: &Path) {
    for ((name, own), (_, theirs)) in content(ours).into_iter().zip(content(kafka)) {
        assert!(own == theirs, "{name} differs");
    }
    assert_eq!(epochs(ours), epochs(kafka));
}

fn topic_id(data: &Path) -> TopicId {
    let text = std::fs::read_to_string(data.join("rep-0/partition.metadata")).unwrap();
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("topic_id: "));
    id.unwrap().parse().unwrap()
}

/// The brokers 21 (with Kafka's directory of the last leader) and 20 (with `follower`), and what 20
/// has in the end.
async fn replicate(follower: &str) -> tempfile::TempDir {
    let (leader, copy) = (unpack("replica-21"), unpack(follower));
    let topic_id = topic_id(&data(&leader));
    let mut cluster = Cluster::without_brokers(&[21, 20, 22], &[], topic_id);
    cluster.start_on_disk(21, &data(&leader));
    cluster.start_on_disk(20, &data(&copy));
    assert_eq!(cluster.broker(20).broker.broker_id, BrokerId(20));
    // Later than any epoch of the directories.
    cluster.set_leadership(21, 6, &[21]);
    cluster.tell_leader(21);
    cluster.tell_leader(20);
    cluster
        .until("20 is in sync", || {
            cluster.leadership().isr.contains(&BrokerId(20))
        })
        .await;
    cluster.settled().await;
    assert!(
        cluster
            .broker(20)
            .broker
            .replicas
            .partition(TOPIC, 0)
            .is_ok()
    );
    cluster.stop(20);
    copy
}

#[tokio::test(start_paused = true)]
async fn a_divergent_replica_becomes_what_kafka_made_of_it() {
    world(async {
        let copy = replicate("replica-divergent-20").await;
        let kafka = unpack("replica-20");
        assert_equal(&data(&copy), &data(&kafka));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_equal_replica_stays_as_it_is() {
    world(async {
        let copy = replicate("replica-20").await;
        let kafka = unpack("replica-20");
        assert_equal(&data(&copy), &data(&kafka));
    })
    .await;
}
