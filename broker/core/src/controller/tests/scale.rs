//! Many partitions: ZooKeeper and the brokers are asked no more often than for a few.

use super::world::{World, settings};
use crate::controller::{AlterPartition, Event, IsrProposal, ProposedPartition, Request};
use crate::ids::{BrokerId, TopicId};

/// How often ZooKeeper is asked, and how many requests brokers get, for each thing that happens.
fn rounds(partitions: i32) -> Vec<(&'static str, usize, usize)> {
    let mut world = World::new(settings(1));
    for id in 1..=3 {
        world.register(id);
    }
    world.handle(Event::Started);
    let rows = (0..partitions).map(|n| (0..3).map(|r| 1 + (n + r) % 3).collect());
    let rows: Vec<Vec<i32>> = rows.collect();
    let rows: Vec<&[i32]> = rows.iter().map(Vec::as_slice).collect();
    let mut counts = Vec::new();
    let mut count = |world: &mut World, what| {
        let requests = std::mem::take(&mut world.sent).len();
        counts.push((what, std::mem::take(&mut world.rounds), requests));
    };
    world.set_topic("t", &rows);
    world.settle();
    count(&mut world, "topic created");
    world.deregister(3);
    world.settle();
    count(&mut world, "broker gone");
    world.register(3);
    world.settle();
    count(&mut world, "broker back");
    let joined = (0..partitions).map(|partition| IsrProposal {
        partition: ProposedPartition::ById {
            topic_id: TopicId(uuid::Uuid::from_u128(7)),
            partition,
        },
        leader_epoch: 1,
        isr: [1, 2, 3].map(BrokerId).to_vec(),
        is_recovering: false,
        partition_epoch: 1,
    });
    let broker_epoch = world.broker_epoch(1);
    world.request(Request::AlterPartition(AlterPartition {
        broker: BrokerId(1),
        broker_epoch,
        version: 3,
        partitions: joined.collect(),
    }));
    count(&mut world, "followers in sync");
    world.deregister(1);
    world.replace_controller(settings(2));
    world.handle(Event::Started);
    count(&mut world, "controller gone");
    world
        .create("/admin/delete_topics/t", Vec::new(), false)
        .unwrap();
    world.register(1);
    world.settle();
    count(&mut world, "topic deleted");
    assert!(!world.exists("/brokers/topics/t"));
    counts
}

#[test]
fn many_partitions_take_no_more_rounds_than_a_few() {
    assert_eq!(rounds(6), rounds(600));
}
