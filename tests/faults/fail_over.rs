//! How long a producer waits when a broker ends, with the settings that brokers and clients have by default.

use std::time::{Duration, Instant};

use barnabas_tests::broker::BrokerKind;
use barnabas_tests::cluster::{Cluster, ClusterOptions};

use super::{PATIENCE, REQUEST_TIMEOUT, TOPIC, alone, settle, verifier};

/// Three brokers whose ZooKeeper session is as long as it is by default: 18 s.
fn three_with_defaults() -> Cluster {
    let options = ClusterOptions::three().with_default("zookeeper.session.timeout.ms");
    Cluster::start(&options).unwrap()
}

/// Ends the broker that `choose` names by `end`; the longest time without an acknowledgement.
fn gap(choose: impl Fn(&Cluster) -> i32, end: impl Fn(&mut Cluster, i32)) -> Duration {
    let _alone = alone();
    let mut cluster = three_with_defaults();
    let verifier = verifier(&cluster, 1, REQUEST_TIMEOUT);
    let chosen = choose(&cluster);
    let began = Instant::now();
    end(&mut cluster, chosen);
    let story = verifier.wait_for_progress(50, PATIENCE);
    let gap = verifier.longest_gap(began);
    settle(&cluster, verifier, story);
    gap
}

fn leader(cluster: &Cluster) -> i32 {
    cluster.leader(TOPIC, 0).unwrap()
}

fn controller(cluster: &Cluster) -> i32 {
    cluster.controller().unwrap()
}

fn follower(cluster: &Cluster) -> i32 {
    let busy = [leader(cluster), controller(cluster)];
    let mut ids = cluster.ids().into_iter();
    ids.find(|id| !busy.contains(id)).unwrap()
}

/// Kafka waits for the session to end; ours must not, however slow the machine is.
fn not_the_session(what: &str, gap: Duration) {
    eprintln!("{what}: {gap:?} without an acknowledgement");
    if BrokerKind::under_test() == BrokerKind::Barnabas {
        assert!(gap < Duration::from_secs(12), "{what}: {gap:?}");
    }
}

#[test]
fn a_killed_leader_is_replaced_before_its_session_ends() {
    not_the_session("kill -9 of the leader", gap(leader, Cluster::kill));
}

#[test]
fn a_killed_controller_is_replaced_before_its_session_ends() {
    not_the_session("kill -9 of the controller", gap(controller, Cluster::kill));
}

#[test]
fn a_killed_follower_leaves_the_isr_before_its_session_ends() {
    not_the_session("kill -9 of a follower", gap(follower, Cluster::kill));
}

#[test]
fn a_stopped_leader_hands_over() {
    let stop = |cluster: &mut Cluster, id| cluster.stop(id).unwrap();
    not_the_session("SIGTERM of the leader", gap(leader, stop));
}
