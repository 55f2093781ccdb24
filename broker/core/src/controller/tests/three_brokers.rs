//! Three brokers: the worked timelines of one partition, and what brokers are told.

use expect_test::{Expect, expect};

use super::world::{World, settings};
use crate::controller::{
    AlterPartition, Event, IsrProposal, ProposedPartition, Request, Settings, Timer,
};
use crate::ids::{BrokerId, TopicPartition};

fn check(transcript: &str, expected: &Expect) {
    expected.assert_eq(transcript);
}

fn started_with(settings: Settings) -> World {
    let mut world = World::new(settings);
    for id in 1..=3 {
        world.register(id);
    }
    world.handle(Event::Started);
    world.set_topic("t", &[&[1, 2, 3]]);
    world.settle();
    world
}

fn started() -> World {
    started_with(settings(1))
}

fn propose(world: &mut World, broker: i32, isr: &[i32], leader_epoch: i32, partition_epoch: i32) {
    let broker_epoch = world.broker_epoch(broker);
    world.request(Request::AlterPartition(AlterPartition {
        broker: BrokerId(broker),
        broker_epoch,
        version: 3,
        partitions: vec![IsrProposal {
            partition: ProposedPartition::ByName(TopicPartition::new("t", 0)),
            leader_epoch,
            isr: isr.iter().copied().map(BrokerId).collect(),
            is_recovering: false,
            partition_epoch,
        }],
    }));
}

#[test]
fn a_new_topic_is_announced_to_all() {
    let mut world = World::new(settings(1));
    for id in 1..=3 {
        world.register(id);
    }
    world.handle(Event::Started);
    world.set_topic("t", &[&[1, 2, 3]]);
    check(
        &world.settle(),
        &expect![[r#"
        > /brokers/topics ChildrenChanged
          read /brokers/topics/* (watch)
          read /brokers/topics/t (watch)
          log: new partitions: t-0
          write, fenced:
              create /brokers/topics/t/partitions
              create /brokers/topics/t/partitions/0
              create /brokers/topics/t/partitions/0/state {"controller_epoch":1,"isr":[1,2,3],"leader":1,"leader_epoch":0,"version":1}
          log: t-0 has leader 1 in epoch 0, ISR [1,2,3]
          1 <- LeaderAndIsr t-0 leader 1 epoch 0 isr [1,2,3] v0 new
          2 <- LeaderAndIsr t-0 leader 1 epoch 0 isr [1,2,3] v0 new
          3 <- LeaderAndIsr t-0 leader 1 epoch 0 isr [1,2,3] v0 new
          1 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
    "#]],
    );
}

#[test]
fn the_timeline_of_one_partition() {
    let mut world = started();
    assert_eq!(world.state("t", 0), "1, 0, [1,2,3], 1 / 0");
    propose(&mut world, 1, &[1, 2], 0, 0);
    assert_eq!(world.state("t", 0), "1, 0, [1,2], 1 / 1");
    propose(&mut world, 1, &[1, 2, 3], 0, 1);
    assert_eq!(world.state("t", 0), "1, 0, [1,2,3], 1 / 2");
    world.deregister(2);
    check(
        &world.settle(),
        &expect![[r#"
        > /brokers/ids/2 Deleted
        > /brokers/ids ChildrenChanged
          read /brokers/ids/* (watch)
          read /brokers/ids/1 (watch), /brokers/ids/3 (watch)
          log: brokers changed: new [], restarted [], gone [2]
          close channel to 2
          read /brokers/topics/t/partitions/0/state
          write, fenced:
              set /brokers/topics/t/partitions/0/state if v2 {"controller_epoch":1,"isr":[1,3],"leader":1,"leader_epoch":1,"version":1}
          1 <- LeaderAndIsr t-0 leader 1 epoch 1 isr [1,3] v3
          3 <- LeaderAndIsr t-0 leader 1 epoch 1 isr [1,3] v3
          1 <- UpdateMetadata brokers [1,3] t-0 leader 1 offline [2]
          3 <- UpdateMetadata brokers [1,3] t-0 leader 1 offline [2]
    "#]],
    );
    assert_eq!(world.state("t", 0), "1, 1, [1,3], 1 / 3");
    world.register(2);
    check(
        &world.settle(),
        &expect![[r#"
        > /brokers/ids ChildrenChanged
          read /brokers/ids/* (watch)
          read /brokers/ids/1 (watch), /brokers/ids/2 (watch), /brokers/ids/3 (watch)
          log: brokers changed: new [2 (epoch 34)], restarted [], gone []
          open channel to 2 (epoch 34)
          1 <- UpdateMetadata brokers [1,2,3] 
          3 <- UpdateMetadata brokers [1,2,3] 
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          2 <- LeaderAndIsr t-0 leader 1 epoch 1 isr [1,3] v3
          1 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
    "#]],
    );
    assert_eq!(world.state("t", 0), "1, 1, [1,3], 1 / 3");
    propose(&mut world, 1, &[1, 3, 2], 1, 3);
    assert_eq!(world.state("t", 0), "1, 1, [1,3,2], 1 / 4");
}

#[test]
fn a_leader_that_stops_cleanly_hands_over_first() {
    let mut world = started_with(settings(2));
    let broker_epoch = world.broker_epoch(1);
    let request = Request::ControlledShutdown {
        broker: BrokerId(1),
        broker_epoch,
    };
    check(
        &world.request(request),
        &expect![[r#"
        > ControlledShutdown of 1
          log: broker 1 is shutting down
          read /brokers/topics/t/partitions/0/state
          write, fenced:
              set /brokers/topics/t/partitions/0/state if v0 {"controller_epoch":1,"isr":[2,3],"leader":2,"leader_epoch":1,"version":1}
          log: t-0 has leader 2 in epoch 1, ISR [2,3]
          1 <- LeaderAndIsr t-0 leader 2 epoch 1 isr [2,3] v1
          2 <- LeaderAndIsr t-0 leader 2 epoch 1 isr [2,3] v1
          3 <- LeaderAndIsr t-0 leader 2 epoch 1 isr [2,3] v1
          1 <- UpdateMetadata brokers [1,2,3] t-0 leader 2 offline [1]
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader 2 offline [1]
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader 2 offline [1]
          answer ControlledShutdown(Ok([]))
    "#]],
    );
    assert_eq!(world.state("t", 0), "2, 1, [2,3], 1 / 1");
    world.deregister(1);
    check(
        &world.settle(),
        &expect![[r#"
        > /brokers/ids/1 Deleted
        > /brokers/ids ChildrenChanged
          read /brokers/ids/* (watch)
          read /brokers/ids/2 (watch), /brokers/ids/3 (watch)
          log: brokers changed: new [], restarted [], gone [1]
          close channel to 1
          read /brokers/topics/t/partitions/0/state
          2 <- LeaderAndIsr t-0 leader 2 epoch 1 isr [2,3] v1
          3 <- LeaderAndIsr t-0 leader 2 epoch 1 isr [2,3] v1
          2 <- UpdateMetadata brokers [2,3] t-0 leader 2 offline [1]
          3 <- UpdateMetadata brokers [2,3] t-0 leader 2 offline [1]
    "#]],
    );
    assert_eq!(world.state("t", 0), "2, 1, [2,3], 1 / 1");
    world.register(1);
    world.settle();
    propose(&mut world, 2, &[2, 3, 1], 1, 1);
    world.handle(Event::TimerFired(Timer::AutoRebalance));
    assert_eq!(world.state("t", 0), "1, 2, [2,3,1], 1 / 3");
}

#[test]
fn the_last_in_sync_replica_is_remembered() {
    let mut world = World::new(settings(1));
    for id in 1..=3 {
        world.register(id);
    }
    world.handle(Event::Started);
    world.set_topic("u", &[&[2, 3]]);
    world.settle();
    world.deregister(2);
    world.settle();
    assert_eq!(world.state("u", 0), "3, 1, [3], 1 / 1");
    world.deregister(3);
    world.settle();
    assert_eq!(world.state("u", 0), "-1, 2, [3], 1 / 2");
    world.register(2);
    world.settle();
    assert_eq!(world.state("u", 0), "-1, 2, [3], 1 / 2");
    let config = br#"{"version":1,"config":{"unclean.leader.election.enable":"true"}}"#;
    world
        .set("/config/topics/u", config.to_vec(), None)
        .unwrap();
    world.handle(Event::UncleanElectionEnabled {
        topic: Some("u".into()),
    });
    assert_eq!(world.state("u", 0), "2, 3, [2], 1 / 3 recovering");
}

#[test]
fn the_last_in_sync_replica_leads_again_when_it_returns() {
    let mut world = World::new(settings(1));
    for id in 1..=3 {
        world.register(id);
    }
    world.handle(Event::Started);
    world.set_topic("u", &[&[2, 3]]);
    world.settle();
    world.deregister(2);
    world.settle();
    world.deregister(3);
    world.settle();
    world.register(3);
    world.settle();
    assert_eq!(world.state("u", 0), "3, 3, [3], 1 / 3");
}

#[test]
fn a_killed_controller_and_leader_costs_two_epochs() {
    let mut world = started_with(settings(2));
    // The seat was of broker 1, in effect: its successor finds the leader dead at its start.
    world.handle(Event::Stopped);
    world.delete("/controller").unwrap();
    world.deregister(1);
    world.settle();
    world.handle(Event::Started);
    assert_eq!(world.state("t", 0), "2, 2, [2,3], 2 / 2");
}

#[test]
fn a_broker_that_comes_back_under_a_new_epoch_is_failed_and_started() {
    let mut world = started();
    // Both changes before the controller looks.
    world.deregister(3);
    world.register(3);
    check(
        &world.settle(),
        &expect![[r#"
        > /brokers/ids/3 Deleted
        > /brokers/ids ChildrenChanged
          read /brokers/ids/* (watch)
          read /brokers/ids/1 (watch), /brokers/ids/2 (watch), /brokers/ids/3 (watch)
          log: brokers changed: new [], restarted [3 (epoch 31)], gone []
          close channel to 3
          open channel to 3 (epoch 31)
          read /brokers/topics/t/partitions/0/state
          write, fenced:
              set /brokers/topics/t/partitions/0/state if v0 {"controller_epoch":1,"isr":[1,2],"leader":1,"leader_epoch":1,"version":1}
          1 <- LeaderAndIsr t-0 leader 1 epoch 1 isr [1,2] v1
          2 <- LeaderAndIsr t-0 leader 1 epoch 1 isr [1,2] v1
          1 <- UpdateMetadata brokers [1,2] t-0 leader 1 offline [3]
          2 <- UpdateMetadata brokers [1,2] t-0 leader 1 offline [3]
          1 <- UpdateMetadata brokers [1,2,3] 
          2 <- UpdateMetadata brokers [1,2,3] 
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          3 <- LeaderAndIsr t-0 leader 1 epoch 1 isr [1,2] v1
          1 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
    "#]],
    );
}

#[test]
fn a_state_that_changed_meanwhile_is_read_again() {
    let mut world = started();
    world.interfere_with = Some("/brokers/topics/t/partitions/0/state".to_owned());
    world.deregister(2);
    world.settle();
    assert_eq!(world.state("t", 0), "1, 1, [1,3], 1 / 2");
}

#[test]
fn deletion_waits_for_a_dead_replica() {
    let mut world = started();
    world.deregister(3);
    world.settle();
    world
        .create("/admin/delete_topics/t", Vec::new(), false)
        .unwrap();
    check(
        &world.settle(),
        &expect![[r#"
        > /admin/delete_topics ChildrenChanged
          read /admin/delete_topics/* (watch)
          log: topics to be deleted: t
          1 <- UpdateMetadata brokers [1,2] t-0 leader -2 offline [3]
          2 <- UpdateMetadata brokers [1,2] t-0 leader -2 offline [3]
          read /brokers/topics/t/partitions/0/state
          write, fenced:
              set /brokers/topics/t/partitions/0/state if v1 {"controller_epoch":1,"isr":[2],"leader":-1,"leader_epoch":2,"version":1}
          read /brokers/topics/t/partitions/0/state
          write, fenced:
              set /brokers/topics/t/partitions/0/state if v2 {"controller_epoch":1,"isr":[2],"leader":-1,"leader_epoch":3,"version":1}
          1 <- StopReplica t-0 epoch -2
          2 <- StopReplica t-0 epoch -2
          1 <- StopReplica t-0 epoch -2 delete
          2 <- StopReplica t-0 epoch -2 delete
          log: the deletion of t waits: some of its replicas are offline
        > broker 1 deleted t-0
        > broker 2 deleted t-0
          read /brokers/topics/t/partitions/0/state
    "#]],
    );
    assert_eq!(world.state("t", 0), "-1, 3, [2], 1 / 3");
    assert!(world.exists("/admin/delete_topics/t"));
    world.register(3);
    check(
        &world.settle(),
        &expect![[r#"
        > /brokers/ids ChildrenChanged
          read /brokers/ids/* (watch)
          read /brokers/ids/1 (watch), /brokers/ids/2 (watch), /brokers/ids/3 (watch)
          log: brokers changed: new [3 (epoch 35)], restarted [], gone []
          open channel to 3 (epoch 35)
          1 <- UpdateMetadata brokers [1,2,3] 
          2 <- UpdateMetadata brokers [1,2,3] 
          3 <- UpdateMetadata brokers [1,2,3] 
          3 <- LeaderAndIsr t-0 leader -1 epoch 3 isr [2] v3
          1 <- UpdateMetadata brokers [1,2,3] t-0 leader -2
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader -2
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader -2
          1 <- UpdateMetadata brokers [1,2,3] t-0 leader -2
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader -2
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader -2
          read /brokers/topics/t/partitions/0/state
          3 <- StopReplica t-0 epoch -2
          3 <- StopReplica t-0 epoch -2 delete
        > broker 3 deleted t-0
          read /brokers/topics/t/*
          read /brokers/topics/t/partitions/*
          read /brokers/topics/t/partitions/0/*
          read /brokers/topics/t/partitions/0/state/*
          write, fenced:
              delete /brokers/topics/t/partitions/0/state
              delete /brokers/topics/t/partitions/0
              delete /brokers/topics/t/partitions
              delete /brokers/topics/t
              delete /config/topics/t
              delete /admin/delete_topics/t
          log: topic t is deleted
        > /brokers/topics/t Deleted
        > /brokers/topics ChildrenChanged
          read /brokers/topics/* (watch)
        > /admin/delete_topics ChildrenChanged
          read /admin/delete_topics/* (watch)
    "#]],
    );
    assert!(!world.exists("/brokers/topics/t"));
    assert!(!world.exists("/admin/delete_topics/t"));
}

#[test]
fn a_failed_log_directory_is_like_a_dead_broker_for_its_replicas() {
    let mut world = started();
    let failed = (BrokerId(1), TopicPartition::new("t", 0));
    world.failed_logs.insert(failed);
    let event = "/log_dir_event_notification/log_dir_event_0000000000";
    let failure = br#"{"version":1,"broker":1,"event":1}"#;
    world.create(event, failure.to_vec(), false).unwrap();
    check(
        &world.settle(),
        &expect![[r#"
        > /log_dir_event_notification ChildrenChanged
          read /log_dir_event_notification/* (watch)
          read /log_dir_event_notification/log_dir_event_0000000000
          1 <- LeaderAndIsr t-0 leader 1 epoch 0 isr [1,2,3] v0
          1 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          write, fenced:
              delete /log_dir_event_notification/log_dir_event_0000000000
        > broker 1 answered: t-0 StorageError
          log: broker 1 cannot serve t-0: their log directory failed
          read /brokers/topics/t/partitions/0/state
          write, fenced:
              set /brokers/topics/t/partitions/0/state if v0 {"controller_epoch":1,"isr":[2,3],"leader":2,"leader_epoch":1,"version":1}
          log: t-0 has leader 2 in epoch 1, ISR [2,3]
          2 <- LeaderAndIsr t-0 leader 2 epoch 1 isr [2,3] v1
          3 <- LeaderAndIsr t-0 leader 2 epoch 1 isr [2,3] v1
          1 <- UpdateMetadata brokers [1,2,3] t-0 leader 2 offline [1]
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader 2 offline [1]
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader 2 offline [1]
          read /brokers/topics/t/partitions/0/state
          2 <- LeaderAndIsr t-0 leader 2 epoch 1 isr [2,3] v1
          3 <- LeaderAndIsr t-0 leader 2 epoch 1 isr [2,3] v1
          1 <- UpdateMetadata brokers [1,2,3] t-0 leader 2 offline [1]
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader 2 offline [1]
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader 2 offline [1]
          1 <- StopReplica t-0 epoch 1
        > /log_dir_event_notification ChildrenChanged
          read /log_dir_event_notification/* (watch)
    "#]],
    );
    assert_eq!(world.state("t", 0), "2, 1, [2,3], 1 / 1");
}

/// Its registration of today may have been told of other leaders.
#[test]
fn a_leader_of_a_registration_of_the_past_changes_no_isr() {
    let mut world = started();
    let broker_epoch = world.broker_epoch(1);
    for epoch in [broker_epoch - 1, broker_epoch + 1] {
        world.request(Request::AlterPartition(AlterPartition {
            broker: BrokerId(1),
            broker_epoch: epoch,
            version: 3,
            partitions: vec![IsrProposal {
                partition: ProposedPartition::ByName(TopicPartition::new("t", 0)),
                leader_epoch: 0,
                isr: vec![BrokerId(1), BrokerId(2)],
                is_recovering: false,
                partition_epoch: 0,
            }],
        }));
        assert_eq!(world.state("t", 0), "1, 0, [1,2,3], 1 / 0");
    }
    propose(&mut world, 1, &[1, 2], 0, 0);
    assert_eq!(world.state("t", 0), "1, 0, [1,2], 1 / 1");
}
