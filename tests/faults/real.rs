//! Three brokers and three ZooKeeper servers, each on a machine of its own, and everything that can happen to them.
//! What was acknowledged must be there in the end, once and in order, and work must go on where it can.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use barnabas_tests::cluster::{Cluster, ClusterOptions, Place};
use barnabas_tests::verify::Verifier;
use barnabas_tests::wait;
use rustix::process::Signal;

use super::{ALL, PATIENCE, PROGRESS, TOPIC, all_in_sync, alone, rounds, settle, verifier};

const PARTITIONS: i32 = 3;
/// What a producer waits for an answer from a broker that is cut off.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs a story under load on a cluster with short timers.
fn story(story: impl FnOnce(&mut Cluster, &Verifier) -> Result<()> + Send) {
    let _alone = alone();
    let options = ClusterOptions::three()
        .zookeepers(3)
        .with("zookeeper.session.timeout.ms", 6000)
        .with("replica.lag.time.max.ms", 3000)
        .with("request.timeout.ms", 5000)
        .with("replica.socket.timeout.ms", 5000)
        .with("auto.leader.rebalance.enable", false);
    Cluster::on_machines(&options, |cluster| {
        let verifier = verifier(cluster, PARTITIONS, REQUEST_TIMEOUT);
        let outcome = story(cluster, &verifier);
        if outcome.is_err() {
            // What is cut stays unreadable.
            let _ = cluster.heal();
        }
        settle(cluster, verifier, outcome);
    })
    .unwrap();
}

/// The partitions that other brokers lead.
fn led_by_others(cluster: &Cluster, id: i32) -> Result<Vec<i32>> {
    let mut led = Vec::new();
    for partition in 0..PARTITIONS {
        if cluster.leader(TOPIC, partition)? != id {
            led.push(partition);
        }
    }
    Ok(led)
}

/// A broker that leads something; not the controller.
fn ordinary_leader(cluster: &Cluster) -> Result<i32> {
    let controller = cluster.controller()?;
    for partition in 0..PARTITIONS {
        let leader = cluster.leader(TOPIC, partition)?;
        if leader != controller {
            return Ok(leader);
        }
    }
    anyhow::bail!("the controller leads everything")
}

/// Makes what was cut whole and waits until all is as it was.
fn heal(cluster: &Cluster, verifier: &Verifier) -> Result<()> {
    cluster.heal()?;
    all_in_sync(cluster)?;
    verifier.wait_for_progress(PROGRESS, PATIENCE)
}

#[test]
fn brokers_and_zookeepers_are_killed_again_and_again() {
    story(|cluster, verifier| {
        for round in 0..rounds() {
            let leader = cluster.leader(TOPIC, round as i32 % PARTITIONS)?;
            for killed in [leader, cluster.controller()?] {
                cluster.kill(killed);
                verifier.wait_for_progress(PROGRESS, PATIENCE)?;
                cluster.start_broker(killed)?;
                all_in_sync(cluster)?;
            }
            let zookeeper = cluster.zookeeper().leader()?;
            cluster.zookeeper().kill(zookeeper);
            verifier.wait_for_progress(PROGRESS, PATIENCE)?;
            cluster.zookeeper().spawn(zookeeper)?;
            cluster.zookeeper().wait_for(zookeeper)?;
            verifier.wait_for_progress(PROGRESS, PATIENCE)?;
        }
        Ok(())
    });
}

#[test]
fn a_frozen_broker_is_replaced_and_does_no_harm_when_it_thaws() {
    story(|cluster, verifier| {
        for round in 0..2 * rounds() {
            let frozen = if round % 2 == 0 {
                ordinary_leader(cluster)?
            } else {
                cluster.controller()?
            };
            cluster.signal(frozen, Signal::STOP);
            let moved = verifier.wait_for_progress(PROGRESS, PATIENCE);
            cluster.signal(frozen, Signal::CONT);
            moved?;
            all_in_sync(cluster)?;
            verifier.wait_for_progress(PROGRESS, PATIENCE)?;
        }
        Ok(())
    });
}

#[test]
fn a_broker_without_zookeeper_is_replaced() {
    story(|cluster, verifier| {
        let leader = ordinary_leader(cluster)?;
        cluster.cut(leader, &[Place::ZooKeepers])?;
        verifier.wait_for_progress(PROGRESS, PATIENCE)?;
        let mut view = cluster.view_without(leader);
        view.wait_for(TOPIC, PATIENCE, |partitions| {
            let mut leaders = partitions.values().map(|view| view.leader.as_ref());
            leaders.all(|found| found.is_some_and(|found| found.id != leader))
        })?;
        verifier.wait_for_progress(PROGRESS, PATIENCE)?;
        heal(cluster, verifier)?;
        // The same, but it hears what ZooKeeper says, and it is the controller.
        let controller = cluster.controller()?;
        cluster.mute(controller, &[Place::ZooKeepers])?;
        let mut view = cluster.view_without(controller);
        wait::until(PATIENCE, || {
            let (_, found) = view.brokers().ok()?;
            (found >= 0 && found != controller).then_some(())
        })
        .context("no other broker became controller")?;
        verifier.wait_for_progress(PROGRESS, PATIENCE)?;
        heal(cluster, verifier)
    });
}

#[test]
fn a_broker_without_peers_or_clients_holds_up_only_what_it_leads() {
    story(|cluster, verifier| {
        for (places, is_mute) in [
            (&[Place::Brokers], false),
            (&[Place::Clients], false),
            (&[Place::Brokers], true),
        ] {
            let leader = ordinary_leader(cluster)?;
            let others = led_by_others(cluster, leader)?;
            if is_mute {
                cluster.mute(leader, places)?;
            } else {
                cluster.cut(leader, places)?;
            }
            verifier.wait_for_progress_of(&others, PROGRESS, PATIENCE)?;
            heal(cluster, verifier)?;
        }
        Ok(())
    });
}

#[test]
fn leaders_work_on_without_a_zookeeper_majority() {
    let seconds = std::env::var("BARNABAS_ZOOKEEPER_OUTAGE_S").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(20);
    story(|cluster, verifier| {
        let began = Instant::now();
        cluster.zookeeper().kill(0);
        cluster.zookeeper().kill(1);
        while began.elapsed() < Duration::from_secs(seconds) {
            verifier.wait_for_progress(PROGRESS, Duration::from_secs(20))?;
        }
        eprintln!(
            "{seconds} s without ZooKeeper: at most {:?} without an acknowledgement, {:?} without news for a consumer",
            verifier.longest_gap(began),
            verifier.longest_consumer_gap(began)
        );
        for zookeeper in [0, 1] {
            cluster.zookeeper().spawn(zookeeper)?;
        }
        for zookeeper in [0, 1] {
            cluster.zookeeper().wait_for(zookeeper)?;
        }
        verifier.wait_for_progress(PROGRESS, PATIENCE)?;
        // And it is a cluster that can change again.
        let leader = cluster.leader(TOPIC, 0)?;
        cluster.kill(leader);
        verifier.wait_for_progress(PROGRESS, PATIENCE)?;
        cluster.start_broker(leader)?;
        all_in_sync(cluster)
    });
}

#[test]
fn all_brokers_are_killed_at_once() {
    story(|cluster, verifier| {
        for _ in 0..rounds() {
            for id in ALL {
                cluster.kill(id);
            }
            for id in ALL {
                cluster.spawn(id)?;
            }
            for id in ALL {
                cluster.wait_for(id)?;
            }
            verifier.wait_for_progress(PROGRESS, PATIENCE)?;
            all_in_sync(cluster)?;
        }
        Ok(())
    });
}
