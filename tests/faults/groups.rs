//! A plain consumer group of Kafka's own client, whose members come and go while brokers die: every acknowledged record is
//! consumed at least once, committed offsets never go back, and no partition has two owners in a generation.

use anyhow::{Context, Result};
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::tools::repository;

use super::under_fire::UnderFire;
use super::{ALL, PATIENCE, alone, rounds, show_logs};

const TOPIC: &str = "grouped";
const PARTITIONS: i32 = 6;
/// Of `__consumer_offsets`, as the harness sets it.
const OFFSETS_PARTITIONS: i32 = 4;
/// Records written, records consumed and commits that prove that all is at work.
const PROGRESS: u64 = 30;

fn at_work(load: &mut UnderFire) -> Result<()> {
    load.wait_for_progress(3, PROGRESS, PATIENCE).map(drop)
}

/// Kills one of those that the group depends on, in turn.
fn hurt(cluster: &mut Cluster, load: &mut UnderFire, turn: usize) -> Result<()> {
    let round = (turn / 3) as i32;
    let id = match turn % 3 {
        0 => cluster.leader("__consumer_offsets", round % OFFSETS_PARTITIONS)?,
        1 => cluster.leader(TOPIC, round % PARTITIONS)?,
        _ => cluster.controller()?,
    };
    cluster.kill(id);
    at_work(load).with_context(|| format!("without broker {id}"))?;
    cluster.start_broker(id)?;
    for topic in [TOPIC, "__consumer_offsets"] {
        cluster.view().wait_for_isr(topic, &ALL, PATIENCE)?;
    }
    at_work(load)
}

#[test]
fn a_group_consumes_all_whoever_dies() {
    let _alone = alone();
    let options = ClusterOptions::three()
        .with("offsets.topic.replication.factor", 3)
        .with("auto.leader.rebalance.enable", false);
    let mut cluster = Cluster::start(&options).unwrap();
    cluster
        .create_topic(TOPIC, PARTITIONS, &[("min.insync.replicas", "2")])
        .unwrap();
    let program = repository().join("tests/clients/java/group/PlainGroup.java");
    let bootstrap = cluster.bootstrap().join(",");
    let mut load =
        UnderFire::of_source(&program, &[&bootstrap, TOPIC, &PARTITIONS.to_string()]).unwrap();
    let mut story = || -> Result<()> {
        at_work(&mut load)?;
        for turn in 0..3 * rounds() - 2 {
            hurt(&mut cluster, &mut load, turn).with_context(|| format!("turn {turn}"))?;
        }
        Ok(())
    };
    let story = story();
    match story.and_then(|()| load.stop()) {
        Ok(said) => eprintln!("{said}"),
        Err(error) => {
            show_logs(&cluster);
            panic!("{error:#}");
        }
    }
}
