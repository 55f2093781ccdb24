//! The operator itself fails.

use barnabas_tests::ports::free_port;
use rustix::process::Signal;

use super::world::{PARTITIONS, World, on, replicas};
use crate::lab::PATIENCE;

/// F11: killed in the middle of moves; the next one finishes them and leaves no throttle.
pub(super) fn one_is_killed(world: &mut World<'_>, kills: usize) {
    for time in 1..=kills {
        world.say("F11 the operator is killed while it empties a broker");
        let before = replicas(&world.views());
        world.kubectl("annotate pod brokers-3 barnabas.dev/decommission=true");
        world.wait_for_views("moves begin", |views| replicas(views) != before);
        world.operator = None;
        let next = world.start_operator(&format!("operator-1-{time}"));
        world.operator = Some(next);
        world.wait_until_quiet("emptied", |views| on(views, 4) == 0);
        world.assert_no_throttle();
        world.kubectl("annotate pod brokers-3 barnabas.dev/decommission-");
        world.wait_until_quiet("filled up again", |views| on(views, 4) > 0);
        world.assert_no_throttle();
    }
}

/// F12: the one that acts is frozen; another takes over; when the first wakes it ends without having done anything.
pub(super) fn one_is_frozen(world: &mut World<'_>) {
    world.say("F12 the operator is frozen, another takes over");
    let mut frozen = world.operator.take().unwrap();
    let before = replicas(&world.views());
    frozen.signal(Signal::STOP);
    world.port = free_port();
    let second = world.start_operator("operator-2");
    world.operator = Some(second);
    world.wait_for_line("/metrics", "barnabas_operator_leader 1");
    world.kubectl("annotate pod brokers-3 barnabas.dev/decommission=true");
    frozen.signal(Signal::CONT);
    let before_it_woke = frozen.log();
    let ended = frozen.wait_for_end(PATIENCE).unwrap();
    assert!(!ended.success(), "who lost the lease ends with an error");
    let after = frozen.log();
    let said = &after[before_it_woke.len()..];
    assert!(
        !said.contains("DrainStarted"),
        "it moved something after another had the lease:\n{said}"
    );
    world.wait_until_quiet("emptied", |views| on(views, 4) == 0);
    world.kubectl("annotate pod brokers-3 barnabas.dev/decommission-");
    world.wait_until_quiet("filled up again", |views| on(views, 4) > 0);
    assert_eq!(before.len(), PARTITIONS as usize);
}
