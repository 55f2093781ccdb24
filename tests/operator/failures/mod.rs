//! Nodes, brokers, ZooKeeper, the API server and the operator itself fail, one after the other, on one cluster, while a
//! verifying producer and consumer work: what was lost comes back by itself, nothing that was acknowledged is gone,
//! and no partition is pushed below its min ISR by a move.
//!
//! Nodes are objects that a real control plane judges: a node that is lost is one whose Lease is not renewed any more, and
//! the node controller finds out. Pods are made by the controller of `StatefulSet`s and placed by the scheduler onto the
//! node of their volume; brokers are processes beside them. What is told each time takes a minute and a half, all of it
//! a quarter of an hour: with `BARNABAS_OPERATOR_FAILURES=1`, or a larger number for as many kills of the operator.

mod brokers;
mod cut_off;
mod moves;
mod operators;
mod servers;
mod world;

use barnabas_tests::cluster::Cluster;

use self::world::World;

/// How often the operator is killed; nothing if only the short story is asked for.
fn kills() -> Option<usize> {
    let text = std::env::var("BARNABAS_OPERATOR_FAILURES").ok()?;
    Some(text.parse().unwrap())
}

const SPEC: &str = "partitions: 6, replicas: 3, config: {min.insync.replicas: 2}";

#[test]
fn whatever_fails_comes_back_and_nothing_acknowledged_is_lost() {
    let zookeepers = if kills().is_some() { 3 } else { 1 };
    let options = world::options(4).zookeepers(zookeepers);
    let mut cluster = Cluster::start(&options).unwrap();
    let world = &mut World::start(&mut cluster, 4);
    world
        .lab
        .apply("wide", "partitions: 1, replicas: 4")
        .unwrap();
    let verifier = world.open(4, SPEC);
    world.lab.wait_for("wide", "True AsSpecified");
    let views = world.views();
    let mut leaders: Vec<_> = views.values().map(|view| view.replicas[0]).collect();
    leaders.sort_unstable();
    leaders.dedup();
    assert!(leaders.len() >= 3, "the planner spreads leaders: {views:?}");

    brokers::one_returns_in_time(world);
    brokers::a_node_is_not_ready(world);
    brokers::a_node_is_gone(world);
    if let Some(kills) = kills() {
        moves::other_numbers_of_replicas(world);
        moves::a_broker_is_emptied(world);
        world.assert_safe();
        servers::the_operator_is_cut_off(world);
        brokers::a_rollout(world);
        servers::zookeeper_is_away(world);
        operators::one_is_killed(world, kills);
        operators::one_is_frozen(world);
    }
    world.assert_safe();
    brokers::too_many_are_down(world);
    world.close(verifier);
}

/// Moves meet brokers that return, disks that fill up, and moves of others.
#[test]
fn moves_that_meet_trouble_end_well() {
    if kills().is_none() {
        return;
    }
    // A fetch is let through whole before a throttle counts it.
    let options = world::options(4).with("replica.fetch.max.bytes", 100_000);
    let mut cluster = Cluster::start(&options).unwrap();
    let Some(disk) = moves::give_a_small_disk(&mut cluster, 4) else {
        eprintln!("left out: this machine does not let tests mount a file system");
        return;
    };
    let world = &mut World::start(&mut cluster, 4);
    world.heal_rate = 700_000;
    let verifier = world.open(4, SPEC);
    moves::somebody_else_moves_too(world);
    moves::a_broker_returns_early_or_late(world);
    moves::a_disk_fills_up(world, &disk);
    world.assert_safe();
    world.close(verifier);
}

/// Servers are added, one and then three, and one is taken away.
#[test]
fn brokers_come_and_go() {
    if kills().is_none() {
        return;
    }
    let mut cluster = Cluster::start(&world::options(8)).unwrap();
    for broker in 5..=8 {
        cluster.stop(broker).unwrap();
    }
    let world = &mut World::start(&mut cluster, 4);
    let verifier = world.open(4, SPEC);
    brokers::more_come(world, 5..=5);
    brokers::more_come(world, 6..=8);
    brokers::one_goes(world, 8);
    world.assert_safe();
    world.close(verifier);
}

/// A broker that cannot reach others, or that others cannot reach, is judged by what is known of it.
#[test]
fn a_broker_that_is_cut_off_is_judged_rightly() {
    if kills().is_none() {
        return;
    }
    let told = Cluster::on_machines(&world::options(4), |cluster| {
        let world = &mut World::start(cluster, 4);
        let verifier = world.open(4, SPEC);
        cut_off::from_zookeeper(world);
        cut_off::from_other_brokers(world);
        cut_off::from_the_operator(world);
        world.close(verifier);
    });
    told.unwrap();
}
