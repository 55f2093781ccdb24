//! What goes wrong: one thing after the other, often several at once, each for a while.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::World;
use super::network::{FIRST_CLIENT, Node, ZOOKEEPER};

/// Lets things go wrong for as long as the plan says, then makes all well again.
pub(crate) async fn make_trouble(world: &Arc<World>) {
    let end = Instant::now() + world.plan.trouble;
    while Instant::now() < end {
        sleep(Duration::from_millis(world.random_below(4_000))).await;
        world.look_after_processes();
        let world = world.clone();
        // It ends by itself; what is left of it when all is healed is healed with the rest.
        let one = one_fault(world.clone());
        tokio::spawn(async move {
            one.await;
        });
    }
    heal(world).await;
}

/// Ends everything that is wrong.
pub(crate) async fn heal(world: &Arc<World>) {
    // Faults that are under way have a time to end by themselves; those that wait to start machines do.
    sleep(Duration::from_secs(25)).await;
    world.network.heal();
    for node in world.nodes() {
        if world.mend_directories(node) {
            // It is used again when the broker starts.
            world.kill(node);
        }
        world.restore_zookeeper(node);
        if !world.is_running(node) {
            world.start(node);
        }
    }
}

fn some_time(world: &World) -> Duration {
    // Often shorter than timeouts, sometimes longer.
    let most = [500, 4_000, 20_000][world.random_below(3) as usize];
    Duration::from_millis(world.random_below(most))
}

async fn one_fault(world: Arc<World>) {
    let node = world.random_node();
    let other = world.random_node();
    let time = some_time(&world);
    let ms = time.as_millis();
    let note = |text: String| world.trace.note(&format!("fault: {text}, {ms} ms"));
    if world.plan.log_dirs > 1 && world.chance(0.1) {
        fail_directory(&world, node, time).await;
        return;
    }
    match world.random_below(19) {
        0..3 => {
            world.kill(node);
            sleep(time).await;
            world.start(node);
        }
        3 => {
            if world.plan.loses_power {
                world.lose_power(node);
            } else {
                world.kill(node);
            }
            sleep(time).await;
            world.start(node);
        }
        4 => {
            world.stop(node).await;
            sleep(time).await;
            world.start(node);
        }
        5 => {
            note(format!("{node} and {other} do not hear each other"));
            partition(&world, &[(node, other), (other, node)], time).await;
        }
        6 => {
            note(format!("{other} does not hear {node}"));
            partition(&world, &[(node, other)], time).await;
        }
        7 => {
            note(format!("{node} is alone"));
            let mut wires = Vec::new();
            for other in world.nodes().chain(clients(&world)) {
                wires.extend([(node, other), (other, node)]);
            }
            world.cut_zookeeper(node);
            partition(&world, &wires, time).await;
            world.restore_zookeeper(node);
        }
        8 => {
            note(format!("{node} hears no client"));
            let wires: Vec<_> = clients(&world).map(|client| (client, node)).collect();
            partition(&world, &wires, time).await;
        }
        9 | 10 => {
            world.cut_zookeeper(node);
            sleep(time).await;
            world.restore_zookeeper(node);
        }
        11 => world.expire_session(node),
        12 => {
            note(format!("connections of {node} are reset"));
            for other in world.nodes().chain(clients(&world)) {
                world.network.reset(node, other);
            }
        }
        16 | 17 => {
            // Whoever watches it will take it for dead, though it lives.
            note(format!(
                "{node} refuses {other}, and its connections are reset"
            ));
            for from in world.nodes() {
                if from == other || world.chance(0.5) {
                    world.network.refuse(from, node, true);
                }
                world.network.reset(from, node);
            }
            sleep(time).await;
            for from in world.nodes() {
                world.network.refuse(from, node, false);
            }
        }
        18 => {
            let mut operator = world.client();
            operator
                .reassign_something(&world.topic_partitions(), world.plan.replicas)
                .await;
        }
        13 => {
            note(format!("{node} stalls"));
            world.network.stall(node, time);
            world.cut_zookeeper(node);
            sleep(time).await;
            world.restore_zookeeper(node);
        }
        14 => {
            if world.chance(0.5) {
                let by_ms = world.random_below(7_200_000) as i64 - 3_600_000;
                world.shift_clock(node, by_ms);
            } else {
                world.move_controller().await;
            }
        }
        _ => {
            if world.chance(0.5) {
                note("messages are lost".to_owned());
                world.network.set_loss(200);
                sleep(time).await;
                world.network.set_loss(0);
            } else {
                note(format!("{node} is far from {other}"));
                world
                    .network
                    .slow_down(node, other, Duration::from_millis(700));
                sleep(time).await;
                world.network.slow_down(node, other, Duration::ZERO);
            }
        }
    }
}

/// A directory fails for a while; then the disk is put right, and the broker started again.
pub(crate) async fn fail_directory(world: &Arc<World>, node: Node, time: Duration) {
    let index = world.random_below(world.plan.log_dirs as u64) as usize;
    world.break_directory(node, index);
    sleep(time).await;
    if world.chance(0.5) {
        world.stop(node).await;
    } else {
        world.kill(node);
    }
    world.mend_directories(node);
    sleep(Duration::from_millis(world.random_below(1_000))).await;
    world.start(node);
}

fn clients(world: &World) -> impl Iterator<Item = Node> + use<> {
    let count = world.plan.clients();
    (1..=count).map(|number| FIRST_CLIENT + number)
}

async fn partition(world: &Arc<World>, wires: &[(Node, Node)], time: Duration) {
    let wires = wires
        .iter()
        .filter(|(from, to)| from != to && *to != ZOOKEEPER);
    for (from, to) in wires.clone() {
        world.network.block(*from, *to);
    }
    sleep(time).await;
    for (from, to) in wires {
        world.network.unblock(*from, *to);
    }
}
