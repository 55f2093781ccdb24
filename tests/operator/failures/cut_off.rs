//! F5: a broker that runs, and that some of the others cannot reach.

use barnabas_tests::cluster::Place;
use barnabas_tests::wait;

use super::world::{World, replicas};
use crate::lab::PATIENCE;

/// A broker that is not the controller, which would move otherwise.
fn victim(world: &World<'_>) -> i32 {
    let controller = wait::until(PATIENCE, || world.cluster.controller().ok()).unwrap();
    (1..=4).find(|id| *id != controller).unwrap()
}

/// Its registration ends although it runs: it may be down; it is there again before anybody has moved anything.
pub(super) fn from_zookeeper(world: &mut World<'_>) {
    let cut = victim(world);
    world.say(&format!("F5 broker {cut} is cut off from ZooKeeper"));
    let before = replicas(&world.views());
    world.cluster.cut(cut, &[Place::ZooKeepers]).unwrap();
    world.wait_for_state(cut, "Suspect");
    world.wait_for_event("BrokerCutOffFromZooKeeper");
    world.cluster.heal().unwrap();
    world.wait_for_state(cut, "Alive");
    let after = world.wait_until_quiet("back", |_| true);
    assert_eq!(replicas(&after), before);
}

/// It is registered, so it is alive, and nothing is healed; it is out of sync meanwhile.
pub(super) fn from_other_brokers(world: &mut World<'_>) {
    let cut = victim(world);
    world.say(&format!("F5 broker {cut} is cut off from the others"));
    let before = replicas(&world.views());
    world.cluster.cut(cut, &[Place::Brokers]).unwrap();
    world.wait_for_views("out of sync", |views| {
        let mut all = views.values();
        all.any(|one| one.isr.len() < one.replicas.len())
    });
    world.wait_for_state(cut, "Alive");
    world.assert_nothing_moves(&before);
    world.cluster.heal().unwrap();
    let after = world.wait_until_quiet("back", |_| true);
    assert_eq!(replicas(&after), before);
}

/// What the operator alone cannot reach is alive for all others; Topics go on.
pub(super) fn from_the_operator(world: &mut World<'_>) {
    let cut = victim(world);
    world.say(&format!(
        "F5 broker {cut} is cut off from the operator and clients"
    ));
    let before = replicas(&world.views());
    world.cluster.cut(cut, &[Place::Clients]).unwrap();
    world.assert_nothing_moves(&before);
    world.wait_for_state(cut, "Alive");
    world
        .lab
        .apply("meanwhile", "partitions: 1, replicas: 3")
        .unwrap();
    world.lab.wait_for("meanwhile", "True AsSpecified");
    world.cluster.heal().unwrap();
    let after = world.wait_until_quiet("back", |_| true);
    assert_eq!(replicas(&after), before);
}
