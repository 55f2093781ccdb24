//! ZooKeeper and the API server are away, for everybody or for the operator alone.

use std::time::Duration;

use super::world::{World, assert_only_lost_ones_moved, on, replicas};

/// F6: one server of the ensemble, its leader maybe, is missed by nobody for long; without the majority nothing is concluded
/// and nothing moves.
pub(super) fn zookeeper_is_away(world: &mut World<'_>) {
    world.say("F6 a server of ZooKeeper's is away");
    let before = replicas(&world.views());
    let leader = world.cluster.zookeeper().leader().unwrap();
    world.cluster.zookeeper().kill(leader);
    world.assert_nothing_moves(&before);
    world.wait_for_line("/metrics", "barnabas_operator_zk_connected 1");
    world.say("F6 ZooKeeper's majority is away");
    let other = (leader + 1) % 3;
    world.cluster.zookeeper().kill(other);
    world.wait_for_line("/metrics", "barnabas_operator_zk_connected 0");
    world.wait_for_line("/debug/plan", "score");
    world.assert_nothing_moves(&before);
    for server in [leader, other] {
        world.cluster.zookeeper().spawn(server).unwrap();
    }
    for server in [leader, other] {
        world.cluster.zookeeper().wait_for(server).unwrap();
    }
    world.wait_for_line("/metrics", "barnabas_operator_zk_connected 1");
    for broker in 1..=4 {
        world.wait_for_state(broker, "Alive");
    }
    let after = world.wait_until_quiet("ZooKeeper is back", |_| true);
    assert_eq!(replicas(&after), before);
}

/// F7, F13: the operator alone is cut off from ZooKeeper, then loses its connections to the API server again and
/// again. A broker dies meanwhile, and is healed when the operator sees again.
pub(super) fn the_operator_is_cut_off(world: &mut World<'_>) {
    world.say("F7 the operator is cut off from ZooKeeper");
    for relay in &world.to_zookeeper {
        relay.cut();
    }
    world.wait_for_line("/metrics", "barnabas_operator_zk_connected 0");
    let before = replicas(&world.views());
    world.kubelets.lose(2);
    world.cluster.kill(2);
    world.assert_nothing_moves(&before);
    for relay in &world.to_zookeeper {
        relay.mend();
    }
    world.wait_for_line("/metrics", "barnabas_operator_zk_connected 1");
    world.say("F13 connections to the API server drop");
    for _ in 0..5 {
        world.to_kubernetes.drop_connections();
        std::thread::sleep(Duration::from_millis(600));
    }
    let healed = world.wait_until_quiet("healed", |views| on(views, 2) == 0);
    assert_only_lost_ones_moved(&before, &replicas(&healed), 2);
    world.bring_back(2);
    world.wait_until_quiet("filled up again", |views| on(views, 2) > 0);
    // Topics are served as before.
    world
        .lab
        .apply("after", "partitions: 1, replicas: 3")
        .unwrap();
    world.lab.wait_for("after", "True AsSpecified");
    world.lab.delete("after");
}
