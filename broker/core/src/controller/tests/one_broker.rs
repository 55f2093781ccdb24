//! One broker, as in the scenario of the recorded znode dumps.

use expect_test::{Expect, expect};

use super::world::{World, settings};
use crate::controller::{Event, Request};
use crate::ids::BrokerId;

fn check(transcript: &str, expected: &Expect) {
    expected.assert_eq(transcript);
}

fn started() -> World {
    let mut world = World::new(settings(20));
    world.register(20);
    world.handle(Event::Started);
    world
}

#[test]
fn the_first_start_elects_and_makes_the_feature_node() {
    let mut world = World::new(settings(20));
    world.register(20);
    check(
        &world.handle(Event::Started),
        &expect![[r#"
        > Started
          read /controller? (watch), /controller
          read /controller_epoch
          write:
              create /controller_epoch 0
          write together:
              create ephemeral /controller {"brokerid":20,"kraftControllerEpoch":-1,"timestamp":"1700000000000","version":2}
              set /controller_epoch if v0 1
          log: elected as controller, epoch 1
          read /feature
          write:
              create /feature {"features":{},"status":1,"version":2}
          read /log_dir_event_notification/* (watch), /isr_change_notification/* (watch)
          read /brokers/ids/* (watch), /brokers/topics/* (watch)
          read /brokers/ids/20 (watch)
          open channel to 20 (epoch 18)
          read /admin/delete_topics/* (watch)
          20 <- UpdateMetadata brokers [20] 
          read /admin/reassign_partitions? (watch), /admin/reassign_partitions
          read /admin/preferred_replica_election? (watch), /admin/preferred_replica_election
          start timer AutoRebalance in 5s
        > /controller Created
          read /controller? (watch), /controller
    "#]],
    );
}

#[test]
fn a_topic_is_created_extended_and_deleted() {
    let mut world = started();
    world.set_topic("t", &[&[20], &[20]]);
    check(
        &world.settle(),
        &expect![[r#"
        > /brokers/topics ChildrenChanged
          read /brokers/topics/* (watch)
          read /brokers/topics/t (watch)
          log: new partitions: t-0,t-1
          write, fenced:
              create /brokers/topics/t/partitions
              create /brokers/topics/t/partitions/0
              create /brokers/topics/t/partitions/1
              create /brokers/topics/t/partitions/0/state {"controller_epoch":1,"isr":[20],"leader":20,"leader_epoch":0,"version":1}
              create /brokers/topics/t/partitions/1/state {"controller_epoch":1,"isr":[20],"leader":20,"leader_epoch":0,"version":1}
          log: t-0 has leader 20 in epoch 0, ISR [20]
          log: t-1 has leader 20 in epoch 0, ISR [20]
          20 <- LeaderAndIsr t-0 leader 20 epoch 0 isr [20] v0 new; t-1 leader 20 epoch 0 isr [20] v0 new
          20 <- UpdateMetadata brokers [20] t-0 leader 20; t-1 leader 20
    "#]],
    );
    world.set_topic("t", &[&[20], &[20], &[20]]);
    check(
        &world.settle(),
        &expect![[r#"
        > /brokers/topics/t DataChanged
          read /brokers/topics/t (watch)
          log: new partitions: t-2
          write, fenced:
              create /brokers/topics/t/partitions
              create /brokers/topics/t/partitions/2
              create /brokers/topics/t/partitions/2/state {"controller_epoch":1,"isr":[20],"leader":20,"leader_epoch":0,"version":1}
            failed: Err(NodeExists)
          log: t-2 has leader 20 in epoch 0, ISR [20]
          20 <- LeaderAndIsr t-2 leader 20 epoch 0 isr [20] v0 new
          20 <- UpdateMetadata brokers [20] t-2 leader 20
    "#]],
    );
    world
        .create("/admin/delete_topics/t", Vec::new(), false)
        .unwrap();
    check(
        &world.settle(),
        &expect![[r#"
        > /admin/delete_topics ChildrenChanged
          read /admin/delete_topics/* (watch)
          log: topics to be deleted: t
          20 <- UpdateMetadata brokers [20] t-0 leader -2; t-1 leader -2; t-2 leader -2
          read /brokers/topics/t/partitions/0/state, /brokers/topics/t/partitions/1/state, /brokers/topics/t/partitions/2/state
          write, fenced:
              set /brokers/topics/t/partitions/0/state if v0 {"controller_epoch":1,"isr":[20],"leader":-1,"leader_epoch":1,"version":1}
              set /brokers/topics/t/partitions/1/state if v0 {"controller_epoch":1,"isr":[20],"leader":-1,"leader_epoch":1,"version":1}
              set /brokers/topics/t/partitions/2/state if v0 {"controller_epoch":1,"isr":[20],"leader":-1,"leader_epoch":1,"version":1}
          20 <- StopReplica t-0 epoch -2; t-1 epoch -2; t-2 epoch -2
          20 <- StopReplica t-0 epoch -2 delete; t-1 epoch -2 delete; t-2 epoch -2 delete
        > broker 20 deleted t-0 t-1 t-2
          read /brokers/topics/t/*
          read /brokers/topics/t/partitions/*
          read /brokers/topics/t/partitions/0/*, /brokers/topics/t/partitions/1/*, /brokers/topics/t/partitions/2/*
          read /brokers/topics/t/partitions/0/state/*, /brokers/topics/t/partitions/1/state/*, /brokers/topics/t/partitions/2/state/*
          write, fenced:
              delete /brokers/topics/t/partitions/2/state
              delete /brokers/topics/t/partitions/2
              delete /brokers/topics/t/partitions/1/state
              delete /brokers/topics/t/partitions/1
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
    assert!(!world.exists("/config/topics/t"));
}

#[test]
fn a_topic_without_id_gets_one() {
    let mut world = started();
    let by_hand = br#"{"version":1,"partitions":{"0":[20]}}"#;
    world
        .create("/brokers/topics/byhand", by_hand.to_vec(), false)
        .unwrap();
    check(
        &world.settle(),
        &expect![[r#"
        > /brokers/topics ChildrenChanged
          read /brokers/topics/* (watch)
          read /brokers/topics/byhand (watch)
          write, fenced:
              set /brokers/topics/byhand {"adding_replicas":{},"partitions":{"0":[20]},"removing_replicas":{},"topic_id":"LhcMHRqTSPmGz2SVMsuw8Q","version":3}
          log: new partitions: byhand-0
          write, fenced:
              create /brokers/topics/byhand/partitions
              create /brokers/topics/byhand/partitions/0
              create /brokers/topics/byhand/partitions/0/state {"controller_epoch":1,"isr":[20],"leader":20,"leader_epoch":0,"version":1}
          log: byhand-0 has leader 20 in epoch 0, ISR [20]
          20 <- LeaderAndIsr byhand-0 leader 20 epoch 0 isr [20] v0 new
          20 <- UpdateMetadata brokers [20] byhand-0 leader 20
        > /brokers/topics/byhand DataChanged
          read /brokers/topics/byhand (watch)
    "#]],
    );
}

#[test]
fn what_is_left_by_hand_is_cleaned_up() {
    let mut world = started();
    world.set_topic("t", &[&[20]]);
    world.settle();
    let partitions = br#"{"version":1,"partitions":[{"topic":"t","partition":0}]}"#;
    let election = "/admin/preferred_replica_election";
    world.create(election, partitions.to_vec(), false).unwrap();
    check(
        &world.settle(),
        &expect![[r#"
        > /admin/preferred_replica_election Created
          read /admin/preferred_replica_election? (watch), /admin/preferred_replica_election
          write, fenced:
              delete /admin/preferred_replica_election
          read /admin/preferred_replica_election? (watch), /admin/preferred_replica_election
        > /admin/preferred_replica_election Deleted
          read /admin/preferred_replica_election? (watch), /admin/preferred_replica_election
    "#]],
    );
    world
        .create("/admin/delete_topics/nosuch", Vec::new(), false)
        .unwrap();
    check(
        &world.settle(),
        &expect![[r#"
        > /admin/delete_topics ChildrenChanged
          read /admin/delete_topics/* (watch)
          write, fenced:
              delete /admin/delete_topics/nosuch
        > /admin/delete_topics ChildrenChanged
          read /admin/delete_topics/* (watch)
    "#]],
    );
    let change = "/isr_change_notification/isr_change_0000000000";
    world.create(change, partitions.to_vec(), false).unwrap();
    let event = "/log_dir_event_notification/log_dir_event_0000000000";
    let failure = br#"{"version":1,"broker":20,"event":1}"#;
    world.create(event, failure.to_vec(), false).unwrap();
    check(
        &world.settle(),
        &expect![[r#"
        > /isr_change_notification ChildrenChanged
          read /isr_change_notification/* (watch)
          read /isr_change_notification/isr_change_0000000000
          read /brokers/topics/t/partitions/0/state
          20 <- UpdateMetadata brokers [20] t-0 leader 20
          write, fenced:
              delete /isr_change_notification/isr_change_0000000000
        > /log_dir_event_notification ChildrenChanged
          read /log_dir_event_notification/* (watch)
          read /log_dir_event_notification/log_dir_event_0000000000
          20 <- LeaderAndIsr t-0 leader 20 epoch 0 isr [20] v0
          20 <- UpdateMetadata brokers [20] t-0 leader 20
          write, fenced:
              delete /log_dir_event_notification/log_dir_event_0000000000
        > /isr_change_notification ChildrenChanged
          read /isr_change_notification/* (watch)
        > /log_dir_event_notification ChildrenChanged
          read /log_dir_event_notification/* (watch)
    "#]],
    );
}

#[test]
fn a_deleted_seat_is_taken_again() {
    let mut world = started();
    world.set_topic("t", &[&[20]]);
    world.settle();
    world.delete("/controller").unwrap();
    check(
        &world.settle(),
        &expect![[r#"
        > /controller Deleted
          read /controller? (watch), /controller
          log: there is no controller
          stop timers
          close channel to 20
          log: resigned as controller of epoch 1
          read /controller_epoch
          write together:
              create ephemeral /controller {"brokerid":20,"kraftControllerEpoch":-1,"timestamp":"1700000000000","version":2}
              set /controller_epoch if v1 2
          log: elected as controller, epoch 2
          read /feature
          read /log_dir_event_notification/* (watch), /isr_change_notification/* (watch)
          read /brokers/ids/* (watch), /brokers/topics/* (watch)
          read /brokers/ids/20 (watch), /brokers/topics/t (watch)
          open channel to 20 (epoch 18)
          read /brokers/topics/t/partitions/0/state
          read /admin/delete_topics/* (watch)
          20 <- UpdateMetadata brokers [20] 
          20 <- LeaderAndIsr t-0 leader 20 epoch 0 isr [20] v0
          20 <- UpdateMetadata brokers [20] t-0 leader 20
          read /admin/reassign_partitions? (watch), /admin/reassign_partitions
          read /admin/preferred_replica_election? (watch), /admin/preferred_replica_election
          start timer AutoRebalance in 5s
        > /controller Created
          read /controller? (watch), /controller
    "#]],
    );
}

#[test]
fn an_epoch_changed_by_hand_fences_every_write() {
    let mut world = started();
    world
        .set("/controller_epoch", b"77".to_vec(), None)
        .unwrap();
    world.settle();
    world.set_topic("t3", &[&[20]]);
    check(
        &world.settle(),
        &expect![[r#"
        > /brokers/topics ChildrenChanged
          read /brokers/topics/* (watch)
          read /brokers/topics/t3 (watch)
          log: new partitions: t3-0
          write, fenced:
              create /brokers/topics/t3/partitions
              create /brokers/topics/t3/partitions/0
              create /brokers/topics/t3/partitions/0/state {"controller_epoch":1,"isr":[20],"leader":20,"leader_epoch":0,"version":1}
        > WriteCompleted(Err(ControllerMoved))
          log: a write was refused because /controller_epoch has changed; what was being done is given up
          read /controller? (watch), /controller
    "#]],
    );
    assert!(world.controller.is_active());
    world.delete("/controller").unwrap();
    world.settle();
    assert_eq!(world.data("/controller_epoch"), "78");
    assert_eq!(world.state("t3", 0), "20, 0, [20], 78 / 0");
}

#[test]
fn the_end_of_the_session_voids_everything() {
    let mut world = started();
    check(
        &world.expire(),
        &expect![[r#"
        > SessionExpired
          stop timers
          close channel to 20
          log: resigned as controller of epoch 1
    "#]],
    );
    assert!(!world.controller.is_active());
    world.register(20);
    world.handle(Event::SessionEstablished);
    assert!(world.controller.is_active());
    assert_eq!(world.data("/controller_epoch"), "2");
}

#[test]
fn producer_ids_come_in_blocks_of_a_thousand() {
    let mut world = World::new(settings(20));
    let epoch = world.register(20);
    world.handle(Event::Started);
    let request = |broker, broker_epoch| Request::AllocateProducerIds {
        broker: BrokerId(broker),
        broker_epoch,
    };
    check(
        &world.request(request(20, epoch)),
        &expect![[r#"
        > AllocateProducerIds for 20
          read /latest_producer_id_block
          write:
              set /latest_producer_id_block if v0 {"block_end":"999","block_start":"0","broker":20,"version":1}
          answer AllocateProducerIds(Ok(0..=999))
    "#]],
    );
    check(
        &world.request(request(20, epoch)),
        &expect![[r#"
        > AllocateProducerIds for 20
          read /latest_producer_id_block
          write:
              set /latest_producer_id_block if v1 {"block_end":"1999","block_start":"1000","broker":20,"version":1}
          answer AllocateProducerIds(Ok(1000..=1999))
    "#]],
    );
    check(
        &world.request(request(20, epoch + 1)),
        &expect![[r#"
        > AllocateProducerIds for 20
          answer AllocateProducerIds(Err(StaleBrokerEpoch))
    "#]],
    );
    check(
        &world.request(request(21, epoch)),
        &expect![[r#"
        > AllocateProducerIds for 21
          answer AllocateProducerIds(Err(BrokerNotRegistered))
    "#]],
    );
}

#[test]
fn stopping_gives_up_the_seat() {
    let mut world = started();
    check(
        &world.handle(Event::Stopped),
        &expect![[r#"
        > Stopped
          stop timers
          close channel to 20
          log: resigned as controller of epoch 1
    "#]],
    );
    assert!(!world.controller.is_active());
}
