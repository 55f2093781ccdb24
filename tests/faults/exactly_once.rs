//! Transactions and a consumer group of Kafka's own client, while whatever they depend on dies: what was committed is
//! there once, what was aborted is never seen, and what the group copied is copied once.

use anyhow::{Context, Result};
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use rustix::process::Signal;

use super::under_fire::UnderFire;
use super::{ALL, PATIENCE, alone, rounds, show_logs};

const FROM: &str = "from";
const TO: &str = "to";
/// Transactions and records that prove that all is at work.
const PROGRESS: u64 = 12;
/// Of the internal topics, as the harness sets it.
const INTERNAL_PARTITIONS: usize = 4;

/// Settings for internal topics that survive a broker.
pub(crate) fn with_internal_replicas(options: ClusterOptions) -> ClusterOptions {
    options
        .with("offsets.topic.replication.factor", 3)
        .with("transaction.state.log.replication.factor", 3)
        .with("transaction.state.log.min.isr", 2)
}

/// Starts the load on topics of its own.
pub(crate) fn start(cluster: &Cluster) -> Result<UnderFire> {
    for topic in [FROM, TO] {
        cluster.create_topic(topic, 3, &[("min.insync.replicas", "2")])?;
    }
    let mut load = UnderFire::exactly_once(&cluster.bootstrap(), FROM, TO)?;
    at_work(&mut load)?;
    Ok(load)
}

/// Waits until transactions are committed and records copied.
pub(crate) fn at_work(load: &mut UnderFire) -> Result<()> {
    load.wait_for_progress(2, PROGRESS, PATIENCE).map(drop)
}

/// Waits until the topics of the load, and what coordinators write, are in sync everywhere.
pub(crate) fn in_sync(cluster: &Cluster) -> Result<()> {
    for topic in [FROM, TO, "__transaction_state", "__consumer_offsets"] {
        cluster.view().wait_for_isr(topic, &ALL, PATIENCE)?;
    }
    Ok(())
}

fn kill_and_start(cluster: &mut Cluster, load: &mut UnderFire, id: i32) -> Result<()> {
    cluster.kill(id);
    at_work(load)?;
    cluster.start_broker(id)?;
    in_sync(cluster)
}

/// One of the ways to hurt, in turn.
fn hurt(cluster: &mut Cluster, load: &mut UnderFire, turn: usize) -> Result<()> {
    let internal = (turn / 7 % INTERNAL_PARTITIONS) as i32;
    match turn % 7 {
        0 => {
            let id = cluster.leader("__transaction_state", internal)?;
            kill_and_start(cluster, load, id).context("a coordinator of transactions dies")
        }
        1 => {
            let id = cluster.leader(FROM, internal % 3)?;
            cluster.signal(id, Signal::STOP);
            let went_on = at_work(load);
            cluster.signal(id, Signal::CONT);
            went_on.context("a leader is frozen")?;
            in_sync(cluster)
        }
        2 => {
            for id in ALL {
                cluster.kill(id);
            }
            for id in ALL {
                cluster.spawn(id)?;
            }
            for id in ALL {
                cluster.wait_for(id)?;
            }
            in_sync(cluster).context("all die")
        }
        3 => {
            let id = cluster.controller()?;
            kill_and_start(cluster, load, id).context("the controller dies")
        }
        4 => {
            let id = cluster.leader("__consumer_offsets", internal)?;
            kill_and_start(cluster, load, id).context("a coordinator of groups dies")
        }
        5 => {
            let id = cluster.leader(TO, internal % 3)?;
            cluster.stop(id)?;
            at_work(load).context("a leader is stopped")?;
            cluster.start_broker(id)?;
            in_sync(cluster)
        }
        _ => {
            let zookeeper = cluster.zookeeper().leader()?;
            cluster.zookeeper().kill(zookeeper);
            at_work(load).context("ZooKeeper's leader dies")?;
            cluster.zookeeper().spawn(zookeeper)?;
            cluster.zookeeper().wait_for(zookeeper)
        }
    }
}

#[test]
fn transactions_and_groups_are_exact_whoever_dies() {
    let _alone = alone();
    let options = with_internal_replicas(ClusterOptions::three().zookeepers(3))
        .with("replica.lag.time.max.ms", 3000)
        .with("auto.leader.rebalance.enable", false);
    Cluster::on_machines(&options, |cluster| {
        let mut load = start(cluster).unwrap();
        let mut story = || -> Result<()> {
            for turn in 0..3 * rounds() {
                hurt(cluster, &mut load, turn).with_context(|| format!("turn {turn}"))?;
                at_work(&mut load).with_context(|| format!("after turn {turn}"))?;
            }
            Ok(())
        };
        let story = story();
        let outcome = story.and_then(|()| load.stop());
        match outcome {
            Ok(said) => eprintln!("{said}"),
            Err(error) => {
                show_logs(cluster);
                panic!("{error:#}");
            }
        }
    })
    .unwrap();
}
