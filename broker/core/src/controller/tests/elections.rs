//! Elections on demand, and leaders that move back by themselves.

use expect_test::expect;

use super::world::{World, settings};
use crate::controller::{Answer, ElectionType, Event, Request, Settings, Timer};
use crate::ids::{BrokerId, TopicPartition};

fn started_with(settings: Settings) -> World {
    let mut world = World::new(settings);
    for id in 1..=4 {
        world.register(id);
    }
    world.handle(Event::Started);
    world.set_topic("t", &[&[2, 3], &[3, 2], &[1, 2]]);
    world.settle();
    world
}

/// What came of the partitions of `t`, and of one of a topic that does not exist.
fn elect(world: &mut World, kind: ElectionType) -> String {
    let partitions = [("t", 0), ("t", 1), ("t", 2), ("u", 0)];
    let partitions = partitions.map(|(topic, number)| TopicPartition::new(topic, number));
    let partitions = partitions.into();
    world.request(Request::ElectLeaders { kind, partitions });
    let Some(Answer::ElectLeaders(Ok(results))) = world.answers.pop() else {
        panic!("no answer");
    };
    let lines = results.iter().map(|(of, result)| match result {
        Ok(leader) => format!("{of} {leader}"),
        Err(error) => format!("{of} {error:?}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn only_partitions_that_need_a_leader_get_one() {
    let mut world = started_with(settings(4));
    world.deregister(2);
    world.settle();
    world.register(2);
    world.settle();
    // Broker 2 is back, but not in sync.
    expect![[r#"
        t-0 PreferredLeaderNotAvailable("Failed to elect leader for partition t-0 under strategy PreferredReplicaPartitionLeaderElectionStrategy")
        t-1 NotNeeded
        t-2 NotNeeded
        u-0 UnknownTopicOrPartition"#]].assert_eq(&elect(&mut world, ElectionType::Preferred));
    expect![[r#"
        t-0 NotNeeded
        t-1 NotNeeded
        t-2 NotNeeded
        u-0 UnknownTopicOrPartition"#]]
    .assert_eq(&elect(&mut world, ElectionType::Unclean));
    world.deregister(3);
    world.settle();
    world.deregister(2);
    world.settle();
    expect![[r#"
        t-0 EligibleLeadersNotAvailable("Failed to elect leader for partition t-0 under strategy OfflinePartitionLeaderElectionStrategy(true)")
        t-1 EligibleLeadersNotAvailable("Failed to elect leader for partition t-1 under strategy OfflinePartitionLeaderElectionStrategy(true)")
        t-2 NotNeeded
        u-0 UnknownTopicOrPartition"#]].assert_eq(&elect(&mut world, ElectionType::Unclean));
    world.register(2);
    world.settle();
    expect![[r#"
        t-0 2
        t-1 2
        t-2 NotNeeded
        u-0 UnknownTopicOrPartition"#]]
    .assert_eq(&elect(&mut world, ElectionType::Unclean));
    world
        .create("/admin/delete_topics/t", Vec::new(), false)
        .unwrap();
    world.settle();
    expect![[r#"
        t-0 BeingDeleted
        t-1 BeingDeleted
        t-2 BeingDeleted
        u-0 UnknownTopicOrPartition"#]]
    .assert_eq(&elect(&mut world, ElectionType::Preferred));
}

#[test]
fn leaders_stay_while_replicas_move_or_few_are_elsewhere() {
    let tolerant = Settings {
        leader_imbalance_per_broker_percentage: 100,
        ..settings(4)
    };
    let mut world = started_with(tolerant);
    let broker_epoch = world.broker_epoch(1);
    world.request(Request::ControlledShutdown {
        broker: BrokerId(1),
        broker_epoch,
    });
    world.deregister(1);
    world.settle();
    world.register(1);
    world.settle();
    let path = "/brokers/topics/t/partitions/2/state";
    let state = br#"{"controller_epoch":1,"isr":[2,1],"leader":2,"leader_epoch":1,"version":1}"#;
    world.set(path, state.to_vec(), None).unwrap();
    let change = br#"{"version":1,"partitions":[{"topic":"t","partition":2}]}"#;
    let node = "/isr_change_notification/isr_change_0000000000";
    world.create(node, change.to_vec(), false).unwrap();
    world.settle();
    let leader = |world: &World| world.state("t", 2);
    let before = leader(&world);
    world.handle(Event::TimerFired(Timer::AutoRebalance));
    assert_eq!(leader(&world), before);

    world.handle(Event::SettingsChanged(settings(4)));
    let of = TopicPartition::new("t", 0);
    let move_it =
        |target: Option<Vec<BrokerId>>| Request::AlterReassignments([(of.clone(), target)].into());
    world.request(move_it(Some(vec![BrokerId(4), BrokerId(3)])));
    world.handle(Event::TimerFired(Timer::AutoRebalance));
    assert_eq!(leader(&world), before);
    world.request(move_it(None));
    world.handle(Event::TimerFired(Timer::AutoRebalance));
    assert_eq!(leader(&world), "1, 2, [2,1], 1 / 3");
}

#[test]
fn figures_count_what_kafkas_count() {
    let mut world = started_with(settings(4));
    let figures = |world: &World| {
        let totals = world.controller.totals();
        (
            totals.offline_partitions,
            totals.preferred_replica_imbalance,
        )
    };
    assert_eq!(figures(&world), (0, 0));
    // Nobody can lead it yet: it is new, not offline.
    world.set_topic("n", &[&[9]]);
    world.settle();
    assert_eq!(figures(&world), (0, 0));
    world.deregister(1);
    world.settle();
    assert_eq!(figures(&world), (0, 1));
    world.deregister(2);
    world.settle();
    assert_eq!(figures(&world), (1, 2));
}
