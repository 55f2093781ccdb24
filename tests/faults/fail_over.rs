//! How long a producer waits when a broker ends, with the settings that brokers and clients have by default.

use std::time::{Duration, Instant};

use barnabas_tests::broker::BrokerKind;
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::verify::{TopicPlan, create_topic};

use super::under_fire::UnderFire;
use super::{ALL, PATIENCE, REQUEST_TIMEOUT, TOPIC, alone, rounds, settle, verifier};

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

/// The worst case: who leads is the controller as well, so that a new one has to be elected first. With Kafka's own
/// client, as often as there is time for.
#[test]
fn a_controller_that_leads_is_replaced_for_the_java_client() {
    let _alone = alone();
    let mut cluster = three_with_defaults();
    for turn in 0..2 * rounds() {
        let chosen = controller(&cluster);
        let mut replicas = ALL.to_vec();
        replicas.retain(|id| *id != chosen);
        replicas.insert(0, chosen);
        let plan = TopicPlan {
            name: format!("{TOPIC}-{turn}"),
            assignment: vec![replicas],
            configs: vec![("min.insync.replicas".to_owned(), "2".to_owned())],
        };
        create_topic(&cluster.bootstrap(), &plan, PATIENCE).unwrap();
        let mut java = UnderFire::steady(&cluster.bootstrap(), &plan.name).unwrap();
        java.wait_for(PATIENCE, |now| now[0] >= 200).unwrap();
        java.ask().unwrap();
        let what = if turn % 2 == 0 {
            cluster.kill(chosen);
            "kill -9 of leader and controller, Java"
        } else {
            cluster.stop(chosen).unwrap();
            "SIGTERM of leader and controller, Java"
        };
        let answers = java.wait_for_progress(1, 200, PATIENCE).unwrap();
        let gap = answers.iter().map(|answer| answer[1]).max().unwrap();
        not_the_session(what, Duration::from_millis(gap));
        println!("{}", java.stop().unwrap());
        // Apache Kafka does not start while its old session lives.
        cluster.wait_until_unregistered(chosen, PATIENCE).unwrap();
        cluster.start_broker(chosen).unwrap();
        let mut view = cluster.view();
        view.wait_for_isr(&plan.name, &ALL, PATIENCE).unwrap();
    }
}
