//! Worlds with a name: what has to go well in one particular way, and what was found by chance.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::{BrokerId, TopicPartition};
use tokio::time::sleep;

use super::world::network::Node;
use super::world::{self, Load, Plan, World, faults, start_all};
use super::{is_loud, print_logs_if_wanted, require_no_violation, run_seed};

/// Seeds that broke an invariant once, and what was wrong. A change of the world changes what happens in them, so
/// that what can be said in fewer words has a test of its own.
const FOUND: [(u64, &str); 2] = [
    (
        9,
        "a torn partition.metadata kept a log directory from being used",
    ),
    (
        50,
        "a leader epoch was believed whose start offset had been cut",
    ),
];

#[test]
fn seeds_that_were_found_stay_well() {
    for (seed, was) in FOUND {
        println!("{seed}: {was}");
        require_no_violation(seed, &run_seed(seed));
    }
}

/// Tells a story in a world where clients are at work, and requires that all is well in the end.
fn tell<F>(plan: Plan, story: impl FnOnce(Arc<World>) -> F)
where
    F: Future<Output = ()>,
{
    print_logs_if_wanted();
    let outcome = world::run(plan, is_loud(), |world| async move {
        start_all(&world).await;
        let load = Load::start(&world).await;
        let partitions = world.topic_partitions();
        let patience = Duration::from_secs(10);
        world
            .wait_until_well("AllInSync", patience, || world.ailment(&partitions))
            .await;
        sleep(Duration::from_secs(2)).await;
        story(world.clone()).await;
        faults::heal(&world).await;
        load.require_liveness(&world).await;
    });
    require_no_violation(1, &outcome);
}

fn leader(world: &World, partition: &TopicPartition) -> Option<Node> {
    let leader = world.leadership(partition)?.leader;
    (leader >= 0).then_some(leader)
}

/// Requires that every partition is led by another broker than `dead` before long.
async fn require_other_leaders(world: &World, dead: Node, limit: Duration) {
    let partitions = world.topic_partitions();
    world
        .wait_until_well("LeadersChange", limit, || {
            let led = partitions
                .iter()
                .find(|partition| leader(world, partition).is_none_or(|leader| leader == dead))?;
            Some(format!("{led} has no other leader"))
        })
        .await;
}

#[test]
fn a_killed_broker_leads_nothing_after_a_second() {
    for dead in 1..=3 {
        tell(Plan::quiet(), |world| async move {
            world.kill(dead);
            require_other_leaders(&world, dead, Duration::from_secs(1)).await;
        });
    }
}

#[test]
fn a_machine_without_power_leads_nothing_after_its_session() {
    tell(Plan::quiet(), |world| async move {
        let dead = leader(&world, &world.topic_partitions()[0]).unwrap();
        let session = world.plan.session_timeout;
        world.lose_power(dead);
        sleep(session / 2).await;
        // Silence proves nothing.
        assert!(world.is_registered(dead));
        require_other_leaders(&world, dead, session).await;
    });
}

#[test]
fn a_broker_that_refuses_but_lives_registers_again() {
    tell(Plan::quiet(), |world| async move {
        let controller = world.controller().unwrap();
        let victim = world.nodes().find(|node| *node != controller).unwrap();
        for node in world.nodes() {
            world.network.refuse(node, victim, true);
            world.network.reset(node, victim);
        }
        sleep(Duration::from_secs(30)).await;
        for node in world.nodes() {
            world.network.refuse(node, victim, false);
        }
        sleep(Duration::from_secs(5)).await;
        assert!(world.is_registered(victim));
    });
}

#[test]
fn a_reset_proves_nothing() {
    tell(Plan::quiet(), |world| async move {
        let controller = world.controller().unwrap();
        let victim = world.nodes().find(|node| *node != controller).unwrap();
        let registered = world.registration_epoch(victim);
        for _ in 0..5 {
            for node in world.nodes() {
                world.network.reset(node, victim);
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(world.registration_epoch(victim), registered);
    });
}

#[test]
fn a_follower_that_is_cut_off_holds_nobody_up_for_longer_than_its_lag_may_be() {
    let lag = Duration::from_secs(4);
    let setting = ("replica.lag.time.max.ms", lag.as_millis());
    let plan = Plan {
        partitions: 1,
        transactional_producers: 0,
        groups: 0,
        members: 0,
        settings: vec![(setting.0.to_owned(), setting.1.to_string())],
        ..Plan::quiet()
    };
    tell(plan, |world| async move {
        let partition = world.topic_partitions().remove(0);
        let busy = [world.controller(), leader(&world, &partition)];
        // It stays registered, so that nobody but the leader can take it out of the ISR.
        let victim = world.nodes().find(|node| !busy.contains(&Some(*node)));
        let victim = victim.unwrap();
        for node in world.nodes().filter(|node| *node != victim) {
            world.network.block(victim, node);
            world.network.block(node, victim);
        }
        sleep(lag * 2).await;
        assert!(world.is_registered(victim));
        let end = world.checks.committed_end(&partition);
        let patience = Duration::from_secs(5);
        world
            .wait_until_well("WritesGoOn", patience, || {
                let goes_on = world.checks.committed_end(&partition) > end;
                (!goes_on).then(|| format!("{partition} stays at {end}"))
            })
            .await;
    });
}

#[test]
fn the_controller_dies_with_what_it_had_begun() {
    for delay_ms in [0, 3, 10, 40, 200] {
        tell(Plan::quiet(), |world| async move {
            let controller = world.controller().unwrap();
            let other = world.nodes().find(|node| *node != controller).unwrap();
            world.kill(other);
            sleep(Duration::from_millis(500 + delay_ms)).await;
            world.kill(controller);
            sleep(Duration::from_secs(2)).await;
            world.start(other);
            sleep(Duration::from_secs(2)).await;
            world.start(controller);
        });
    }
}

/// A follower that returns hears its leader late, and the moment it counts as in sync all others die.
#[test]
fn who_joins_the_isr_has_all_that_is_committed() {
    let setting = ("replica.lag.time.max.ms", "1500");
    let plan = Plan {
        partitions: 1,
        producers: 4,
        transactional_producers: 0,
        groups: 0,
        members: 0,
        settings: vec![(setting.0.to_owned(), setting.1.to_owned())],
        ..Plan::quiet()
    };
    tell(plan, |world| async move {
        let partition = world.topic_partitions().remove(0);
        for round in 0..5 {
            let Some(led) = leader(&world, &partition) else {
                sleep(Duration::from_secs(1)).await;
                continue;
            };
            let joining = world.nodes().find(|node| *node != led).unwrap();
            world.kill(joining);
            sleep(Duration::from_secs(2)).await;
            let far = Duration::from_millis(500 * (round % 4) + 200);
            world.network.slow_down(led, joining, far * 2);
            for node in world.nodes().filter(|node| *node != joining) {
                world.network.slow_down(led, node, far);
            }
            world.start(joining);
            for _ in 0..2_000 {
                let known = world.leadership(&partition);
                if known.is_some_and(|known| known.isr.contains(&BrokerId(joining))) {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
            for node in world.nodes().filter(|node| *node != joining) {
                world.kill(node);
            }
            sleep(Duration::from_secs(3)).await;
            world.network.heal();
            for node in world.nodes() {
                world.start(node);
            }
            sleep(Duration::from_secs(5)).await;
        }
    });
}

/// What a controller has sent arrives late, when itself or its successor has given other orders.
#[test]
fn orders_of_the_past_are_not_obeyed() {
    let setting = ("controller.socket.timeout.ms", "1000");
    let plan = Plan {
        settings: vec![(setting.0.to_owned(), setting.1.to_owned())],
        ..Plan::quiet()
    };
    tell(plan, |world| async move {
        for _ in 0..4 {
            let Some(controller) = world.controller() else {
                sleep(Duration::from_secs(1)).await;
                continue;
            };
            let victim = world.nodes().find(|node| *node != controller).unwrap();
            for node in world.nodes() {
                let far = Duration::from_secs(4);
                world.network.slow_down(controller, node, far);
            }
            world.kill(victim);
            sleep(Duration::from_millis(400 + world.random_below(400))).await;
            world.start(victim);
            sleep(Duration::from_millis(world.random_below(800))).await;
            world.cut_zookeeper(controller);
            world.expire_session(controller);
            world.move_controller().await;
            sleep(Duration::from_millis(500 + world.random_below(1_500))).await;
            world.kill(victim);
            sleep(Duration::from_millis(700)).await;
            world.start(victim);
            sleep(Duration::from_secs(3)).await;
            for node in world.nodes() {
                world.network.repeat_orders(node);
            }
            world.network.heal();
            world.restore_zookeeper(controller);
            sleep(Duration::from_secs(6)).await;
        }
    });
}

/// The latest value of each key stays, on every replica, whoever cleans and dies.
#[test]
fn what_is_compacted_keeps_the_latest_values_whoever_dies() {
    let plan = Plan {
        producers: 1,
        members: 0,
        groups: 2,
        settings: vec![("log.segment.bytes".to_owned(), "900".to_owned())],
        ..Plan::quiet()
    };
    tell(plan.compacting(), |world| async move {
        let partition = world::compactions::partitions().remove(0);
        for round in 0..5 {
            sleep(Duration::from_secs(4)).await;
            let victim = world.random_node();
            world.kill(victim);
            sleep(Duration::from_millis(300 + 900 * round)).await;
            world.start(victim);
        }
        // Else there was nothing to see.
        let is_cleaned = |node: Node| {
            let ends = world.checks.records_kept(node, &partition);
            ends.is_some_and(|(kept, end)| kept * 2 < end)
        };
        let patience = Duration::from_secs(10);
        world
            .wait_until_well("LogsAreCleaned", patience, || {
                let mut nodes = world.nodes();
                let whole = nodes.find(|node| !is_cleaned(*node))?;
                Some(format!("{partition} on {whole} has too much"))
            })
            .await;
    });
}

/// Of a broker whose directory fails others lead what was there, and the rest goes on where it is.
#[test]
fn a_directory_that_fails_takes_only_its_replicas_along_and_loses_nothing() {
    let plan = Plan {
        partitions: 4,
        log_dirs: 2,
        ..Plan::quiet()
    };
    tell(plan, |world| async move {
        for round in 0..3 {
            let victim = leader(&world, &world.topic_partitions()[round]).unwrap();
            let registered = world.registration_epoch(victim);
            let before = world.partitions_in(victim, round % 2);
            world.break_directory(victim, round % 2);
            let patience = Duration::from_secs(10);
            world
                .wait_until_well("OthersLead", patience, || {
                    let mut lost = before.iter();
                    let stays = lost.find(|partition| {
                        leader(&world, partition).is_none_or(|led| led == victim)
                    })?;
                    Some(format!("{stays} was in the directory that failed"))
                })
                .await;
            assert_eq!(world.registration_epoch(victim), registered);
            let ends = world.topic_partitions();
            let ends: Vec<_> = ends
                .iter()
                .map(|of| world.checks.committed_end(of))
                .collect();
            world
                .wait_until_well("WritesGoOn", patience, || {
                    let partitions = world.topic_partitions();
                    let mut all = partitions.iter().zip(&ends);
                    let (stuck, end) =
                        all.find(|(of, end)| world.checks.committed_end(of) <= **end)?;
                    Some(format!("{stuck} stays at {end}"))
                })
                .await;
            world.kill(victim);
            world.mend_directories(victim);
            world.start(victim);
            let partitions = world.topic_partitions();
            let patience = Duration::from_secs(30);
            world
                .wait_until_well("AllInSync", patience, || world.ailment(&partitions))
                .await;
        }
    });
}

#[test]
fn all_brokers_die_at_once() {
    tell(Plan::quiet(), |world| async move {
        for node in world.nodes() {
            world.kill(node);
        }
        sleep(Duration::from_secs(1)).await;
        for node in world.nodes() {
            world.start(node);
        }
    });
}

#[test]
fn sessions_of_all_brokers_expire_again_and_again() {
    tell(Plan::quiet(), |world| async move {
        for round in 0..6 {
            for node in world.nodes() {
                world.expire_session(node);
                sleep(Duration::from_millis(round * 40)).await;
            }
            sleep(Duration::from_secs(1)).await;
        }
    });
}

/// The members of a group find each other, and what they have committed, whoever dies.
#[test]
fn members_lose_no_commit_whoever_dies() {
    let plan = Plan {
        producers: 1,
        consumers: 0,
        transactional_producers: 0,
        groups: 0,
        members: 4,
        ..Plan::quiet()
    };
    tell(plan, |world| async move {
        for round in 0..6 {
            let victim = world.random_node();
            world.kill(victim);
            sleep(Duration::from_millis(300 + 370 * round)).await;
            world.start(victim);
            sleep(Duration::from_millis(3_000 + world.random_below(3_000))).await;
        }
    });
}

/// A topic that is deleted while a replica is away is gone when that comes back, and so is nothing of the next one.
#[test]
fn what_is_deleted_while_brokers_are_away_is_gone_when_they_return() {
    let plan = Plan {
        producers: 1,
        members: 0,
        deletes_topics: true,
        ..Plan::quiet()
    };
    tell(plan, |world| async move {
        for round in 0..5 {
            let victim = world.random_node();
            world.kill(victim);
            sleep(Duration::from_millis(400 + 1_300 * round)).await;
            world.start(victim);
            sleep(Duration::from_millis(1_000 + world.random_below(3_000))).await;
        }
    });
}

/// Coordinators, leaders and whoever else a transaction needs die one after the other, in all phases of transactions.
#[test]
fn transactions_end_alike_everywhere_whoever_dies() {
    let plan = Plan {
        producers: 0,
        consumers: 0,
        transactional_producers: 6,
        ..Plan::quiet()
    };
    tell(plan, |world| async move {
        for round in 0..8 {
            let victim = world.random_node();
            world.kill(victim);
            sleep(Duration::from_millis(300 + 170 * round)).await;
            world.start(victim);
            sleep(Duration::from_millis(2_500 + world.random_below(2_000))).await;
        }
        let (committed, aborted) = world.checks.transaction_counts();
        assert!(committed >= 10 && aborted >= 4, "{committed} {aborted}");
    });
}

/// What is not flushed is lost when all machines lose power: if nobody notices that, nobody would notice a defect.
#[test]
fn the_checks_see_what_is_lost() {
    let outcome = world::run(Plan::quiet(), is_loud(), |world| async move {
        start_all(&world).await;
        let load = Load::start(&world).await;
        sleep(Duration::from_secs(5)).await;
        for node in world.nodes() {
            world.lose_power(node);
        }
        sleep(Duration::from_secs(10)).await;
        faults::heal(&world).await;
        load.require_liveness(&world).await;
    });
    let violation = outcome.violation.expect("records are lost");
    let seen = [
        "AcknowledgedRecordsSurvive",
        "LeadersHaveWhatIsCommitted",
        "ReplicasAgreeBelowHighWatermark",
        "NoDuplicatesNoReordering",
        "CommittedRecordsStay",
    ];
    assert!(
        seen.iter().any(|name| violation.starts_with(name)),
        "{violation}"
    );
}
