//! A consumer that reads from the replica in its rack (KIP-392), and what it does when that replica falls behind or dies.

use anyhow::{Context, Result};
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use rustix::process::Signal;

use super::under_fire::UnderFire;
use super::{PATIENCE, REQUEST_TIMEOUT, TOPIC, all_in_sync, alone, settle, verifier};

/// Enough to be records, not only answers to requests for metadata.
const BYTES: u64 = 30_000;

/// Waits until this broker has sent so much more to the consumer.
fn reads_from(java: &mut UnderFire, id: i32) -> Result<()> {
    let before = java.ask()?;
    let of = id as usize;
    java.wait_for(PATIENCE, |now| now[of] >= before[of] + BYTES)
        .map(drop)
        .with_context(|| format!("nothing is read from broker {id}; at first: {before:?}"))
}

#[test]
fn a_consumer_reads_from_its_rack_and_from_the_leader_while_that_is_away() {
    let _alone = alone();
    let mut options = ClusterOptions::three()
        .with(
            "replica.selector.class",
            "org.apache.kafka.common.replica.RackAwareReplicaSelector",
        )
        .with("replica.lag.time.max.ms", 2000)
        .with("auto.leader.rebalance.enable", false)
        // A frozen broker is to fall out of the ISR, not of the cluster.
        .with("zookeeper.session.timeout.ms", 30_000);
    options.has_racks = true;
    let mut cluster = Cluster::start(&options).unwrap();
    // Broker 1 leads the only partition.
    let verifier = verifier(&cluster, 1, REQUEST_TIMEOUT);
    let mut story = || -> Result<()> {
        // Without a controller nobody leaves an ISR.
        let controller = cluster.controller()?;
        let follower = if controller == 2 { 3 } else { 2 };
        let rack = format!("rack{follower}");
        let mut java = UnderFire::follow(&cluster.bootstrap(), TOPIC, &rack)?;
        reads_from(&mut java, follower)?;
        let before = java.ask()?;
        reads_from(&mut java, follower)?;
        let after = java.ask()?;
        eprintln!("records, bytes of brokers 1 to 3: {before:?}, then {after:?}");
        assert!(after[1] - before[1] < BYTES / 4, "the leader is left alone");

        cluster.signal(follower, Signal::STOP);
        let shrunk = cluster
            .view_without(follower)
            .wait_for(TOPIC, PATIENCE, |view| !view[&0].isr.contains(&follower));
        let away = shrunk.and_then(|_| reads_from(&mut java, 1));
        cluster.signal(follower, Signal::CONT);
        away.context("the follower is frozen")?;
        all_in_sync(&cluster)?;
        reads_from(&mut java, follower).context("the follower is back")?;

        cluster.kill(follower);
        reads_from(&mut java, 1).context("the follower is dead")?;
        cluster.wait_until_unregistered(follower, PATIENCE)?;
        cluster.start_broker(follower)?;
        all_in_sync(&cluster)?;
        reads_from(&mut java, follower).context("the follower was started again")?;
        println!("{}", java.stop()?);
        Ok(())
    };
    let story = story();
    settle(&cluster, verifier, story);
}
