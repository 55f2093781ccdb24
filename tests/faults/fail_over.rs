//! How long a producer waits when a broker ends, with the settings that brokers and clients have by default.

use std::time::Instant;

use barnabas_tests::cluster::{Cluster, ClusterOptions};

use super::{PATIENCE, TOPIC, alone, verifier};

/// Three brokers whose ZooKeeper session is as long as it is by default.
fn three_with_defaults() -> Cluster {
    let options = ClusterOptions::three().with_default("zookeeper.session.timeout.ms");
    Cluster::start(&options).unwrap()
}

#[test]
fn a_killed_leader_is_replaced() {
    let _alone = alone();
    let mut cluster = three_with_defaults();
    let verifier = verifier(&cluster, 1);
    let leader = cluster.leader(TOPIC, 0).unwrap();
    let killed = Instant::now();
    cluster.kill(leader);
    verifier.wait_for_progress(50, PATIENCE).unwrap();
    println!(
        "kill -9 of the leader (controller: {:?}): {:?} without an acknowledgement",
        cluster.controller(),
        verifier.longest_gap(killed)
    );
    println!("{:?}", verifier.stop().unwrap());
    if std::env::var_os("SHOW").is_some() {
        for id in cluster.ids() {
            if id != leader {
                println!("--- {id}\n{}", cluster.broker(id).log());
            }
        }
    }
}

#[test]
fn a_stopped_leader_hands_over() {
    let _alone = alone();
    let mut cluster = three_with_defaults();
    let verifier = verifier(&cluster, 1);
    let leader = cluster.leader(TOPIC, 0).unwrap();
    let stopped = Instant::now();
    cluster.stop(leader).unwrap();
    verifier.wait_for_progress(50, PATIENCE).unwrap();
    println!(
        "SIGTERM of the leader: {:?} without an acknowledgement",
        verifier.longest_gap(stopped)
    );
    println!("{:?}", verifier.stop().unwrap());
}
