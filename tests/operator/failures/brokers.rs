//! Brokers and their nodes are lost, return, are added and taken away.

use std::ops::RangeInclusive;
use std::time::Instant;

use super::world::{FAILURE_GRACE, World, assert_only_lost_ones_moved, on, replicas};

/// F1: kill -9, back before its wait is over.
pub(super) fn one_returns_in_time(world: &mut World<'_>) {
    world.say("F1 a broker returns in time");
    let before = replicas(&world.views());
    world.cluster.kill(4);
    // Its pod is ready as far as Kubernetes knows, and it is not registered.
    world.wait_for_state(4, "Suspect");
    world.wait_for_event("BrokerCutOffFromZooKeeper");
    world.cluster.start_broker(4).unwrap();
    world.wait_for_state(4, "Alive");
    let after = world.wait_until_quiet("back in time", |_| true);
    assert_eq!(replicas(&after), before);
    world.assert_safe();
}

/// F2, F2b: a node stops; its broker's replicas are made anew elsewhere when the wait is over, those for which there is no
/// broker are told of. When it returns it is filled up (P5).
pub(super) fn a_node_is_not_ready(world: &mut World<'_>) {
    world.say("F2 a node stops");
    let before = replicas(&world.views());
    let killed = Instant::now();
    world.kubelets.lose(2);
    world.cluster.kill(2);
    world.wait_for_state(2, "Failed");
    world.wait_for_event("BrokerFailed");
    world.wait_for_views("healing begins", |views| replicas(views) != before);
    let begun = killed.elapsed();
    world.say(&format!(
        "F2 healing began {begun:.1?} after the kill, waited for {FAILURE_GRACE:.0?}"
    ));
    assert!(begun >= FAILURE_GRACE, "{begun:?}");
    let healed = world.wait_until_quiet("healed", |views| on(views, 2) == 0);
    world.say(&format!(
        "F2 healed {:.1?} after the kill",
        killed.elapsed()
    ));
    assert_only_lost_ones_moved(&before, &replicas(&healed), 2);
    world.wait_for_event("HealStarted");
    world.wait_for_event("HealImpossible");
    world.assert_safe();
    world.bring_back(2);
    world.wait_until_quiet("filled up again", |views| on(views, 2) > 0);
    world.wait_for_event("SpreadFinished");
    world.say("P5 the broker that returned has replicas again");
    world.assert_no_throttle();
    world.assert_safe();
}

/// F3: the Node object is deleted, and the volume was tied to it.
pub(super) fn a_node_is_gone(world: &mut World<'_>) {
    world.say("F3 a node is deleted");
    let before = replicas(&world.views());
    let killed = Instant::now();
    world.kubelets.lose(3);
    world.cluster.kill(3);
    world.kubectl("delete node node-3 --wait=false");
    world.wait_for_state(3, "Lost");
    world.wait_for_views("healing begins", |views| replicas(views) != before);
    world.say(&format!(
        "F3 healing began {:.1?} after the kill",
        killed.elapsed()
    ));
    let healed = world.wait_until_quiet("healed", |views| on(views, 3) == 0);
    assert_only_lost_ones_moved(&before, &replicas(&healed), 3);
    world.assert_safe();
    world.bring_back(3);
    world.wait_until_quiet("filled up again", |views| on(views, 3) > 0);
    world.assert_safe();
}

/// F15: while pods are being replaced a broker that is away is waited for as long as planned.
pub(super) fn a_rollout(world: &mut World<'_>) {
    world.say("F15 a rollout");
    let patch = "{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"version\":\"2\"}}}}}";
    let arguments = [
        "patch",
        "statefulset",
        "brokers",
        "--type=merge",
        "-p",
        patch,
    ];
    world.lab.kubernetes.kubectl(&arguments).unwrap();
    let before = replicas(&world.views());
    world.cluster.stop(1).unwrap();
    world.wait_for_state(1, "PlannedDown");
    world.assert_nothing_moves(&before);
    world.cluster.start_broker(1).unwrap();
    world.wait_for_state(1, "Alive");
    let back = "{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"version\":null}}}}}";
    let arguments = [
        "patch",
        "statefulset",
        "brokers",
        "--type=merge",
        "-p",
        back,
    ];
    world.lab.kubernetes.kubectl(&arguments).unwrap();
    let after = world.wait_until_quiet("after the rollout", |_| true);
    assert_eq!(replicas(&after), before);
}

/// F8: half of the brokers are gone at once: something else must be wrong, nothing moves.
pub(super) fn too_many_are_down(world: &mut World<'_>) {
    world.say("F8 half of the brokers are gone");
    let before = world.wait_until_settled("before half are gone");
    for broker in [2, 3] {
        world.kubelets.lose(broker);
        world.cluster.kill(broker);
    }
    world.wait_for_event("TooManyBrokersDown");
    world.assert_nothing_moves(&before);
    // Both: their waits are over, so if one were back alone the other would be healed.
    for broker in [2, 3] {
        world.cluster.spawn(broker).unwrap();
    }
    for broker in [2, 3] {
        world.kubelets.find(broker);
        world.apply_node(broker);
        world.cluster.wait_for(broker).unwrap();
    }
    for broker in [2, 3] {
        world.wait_for_return(broker);
    }
    let after = world.wait_until_quiet("all are back", |_| true);
    assert_eq!(replicas(&after), before);
}

/// F17: brokers are added with their nodes and pods; they fill up, and nothing moves but onto them.
pub(super) fn more_come(world: &mut World<'_>, new: RangeInclusive<i32>) {
    world.say(&format!("F17 brokers {new:?} are added"));
    let before = replicas(&world.wait_until_quiet("before more come", |_| true));
    for broker in new.clone() {
        world.give_a_node(broker);
        world.kubelets.find(broker);
    }
    world.kubectl(&format!(
        "scale statefulset brokers --replicas={}",
        new.end()
    ));
    for broker in new.clone() {
        world.cluster.start_broker(broker).unwrap();
        world.pod_is_ready(broker - 1);
    }
    for broker in new.clone() {
        world.wait_for_state(broker, "Alive");
    }
    let all = usize::try_from(*new.end()).unwrap();
    let replicas_in_all: usize = before.values().map(Vec::len).sum();
    let share = replicas_in_all / all;
    world.wait_until_quiet("the new ones are filled", |views| {
        new.clone().all(|broker| on(views, broker) >= share)
    });
    let after = world.wait_until_settled("the new ones are filled");
    let mut moved = 0;
    for (partition, was) in &before {
        let is = &after[partition];
        let added: Vec<_> = is.iter().filter(|id| !was.contains(id)).collect();
        assert!(
            added.iter().all(|id| new.contains(id)),
            "{partition}: {was:?} became {is:?}"
        );
        moved += added.len();
    }
    let bound = new.clone().count() * replicas_in_all.div_ceil(all);
    assert!(moved <= bound, "{moved} replicas moved, {bound} are needed");
    world.say(&format!(
        "F17 {moved} replicas moved, at most {bound} are needed"
    ));
}

/// F17: a broker with data goes: it is emptied first, and then nobody misses it.
pub(super) fn one_goes(world: &mut World<'_>, broker: i32) {
    world.say("F17 a broker with replicas is taken away");
    let pod = format!("brokers-{}", broker - 1);
    world.kubectl(&format!(
        "annotate pod {pod} barnabas.dev/decommission=true"
    ));
    world.wait_until_quiet("emptied", |views| on(views, broker) == 0);
    world.wait_for_state(broker, "Drained");
    let before = replicas(&world.views());
    world.kubectl(&format!(
        "scale statefulset brokers --replicas={}",
        broker - 1
    ));
    world.cluster.stop(broker).unwrap();
    world.assert_nothing_moves(&before);
}
