//! Moving partitions to other brokers: what is written and said, and what survives a change of controller.

use expect_test::{Expect, expect};

use super::world::{World, settings};
use crate::controller::{
    AlterPartition, Answer, ControllerError, Event, IsrProposal, ProposedPartition,
    ReassignmentError, Request,
};
use crate::ids::{BrokerId, TopicPartition};

fn started(brokers: i32, partitions: &[&[i32]]) -> World {
    let mut world = World::new(settings(1));
    for id in 1..=brokers {
        world.register(id);
    }
    world.handle(Event::Started);
    world.set_topic("t", partitions);
    world.settle();
    world
}

fn t(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn request(target: Option<&[i32]>) -> Request {
    Request::AlterReassignments([(t(0), target.map(ids))].into())
}

fn outcome(world: &mut World, request: Request) -> Result<(), ReassignmentError> {
    world.request(request);
    match world.answers.pop() {
        Some(Answer::AlterReassignments(Ok(results))) => results[&t(0)].clone(),
        answer => panic!("{answer:?}"),
    }
}

fn joins(world: &mut World, leader: i32, isr: &[i32], leader_epoch: i32, partition_epoch: i32) {
    let broker_epoch = world.broker_epoch(leader);
    world.request(Request::AlterPartition(AlterPartition {
        broker: BrokerId(leader),
        broker_epoch,
        version: 3,
        partitions: vec![IsrProposal {
            partition: ProposedPartition::ByName(t(0)),
            leader_epoch,
            isr: ids(isr),
            is_recovering: false,
            partition_epoch,
        }],
    }));
}

fn check(transcript: &str, expected: &Expect) {
    expected.assert_eq(transcript);
}

#[test]
fn replicas_are_added_first_and_removed_when_all_are_in_sync() {
    let mut world = started(3, &[&[1, 2]]);
    check(
        &world.request(request(Some(&[3, 2]))),
        &expect![[r#"
        > AlterReassignments t-0 to [3,2]
          read /admin/reassign_partitions
          log: t-0 moves from [1,2] to [3,2], adding [3], removing [1]
          write, fenced:
              set /brokers/topics/t {"adding_replicas":{"0":[3]},"partitions":{"0":[3,2,1]},"removing_replicas":{"0":[1]},"topic_id":"AAAAAAAAAAAAAAAAAAAABw","version":3}
          read /brokers/topics/t/partitions/0/state
          read /brokers/topics/t/partitions/0/state
          write, fenced:
              set /brokers/topics/t/partitions/0/state if v0 {"controller_epoch":1,"isr":[1,2],"leader":1,"leader_epoch":1,"version":1}
          1 <- LeaderAndIsr t-0 leader 1 epoch 1 isr [1,2] v1
          2 <- LeaderAndIsr t-0 leader 1 epoch 1 isr [1,2] v1
          3 <- LeaderAndIsr t-0 leader 1 epoch 1 isr [1,2] v1 new
          1 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          3 <- LeaderAndIsr t-0 leader 1 epoch 1 isr [1,2] v1 new
          1 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          2 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          3 <- UpdateMetadata brokers [1,2,3] t-0 leader 1
          answer AlterReassignments(Ok({TopicPartition { topic: "t", partition: 0 }: Ok(())}))
        > /brokers/topics/t DataChanged
          read /brokers/topics/t (watch)
    "#]],
    );
    assert_eq!(world.state("t", 0), "1, 1, [1,2], 1 / 1");
    joins(&mut world, 1, &[1, 2, 3], 1, 1);
    assert_eq!(world.state("t", 0), "3, 3, [2,3], 1 / 4");
    check(
        &world.data("/brokers/topics/t"),
        &expect![[
            r#"{"adding_replicas":{},"partitions":{"0":[3,2]},"removing_replicas":{},"topic_id":"AAAAAAAAAAAAAAAAAAAABw","version":3}"#
        ]],
    );
}

#[test]
fn what_cannot_be_is_refused_in_kafkas_words() {
    let mut world = started(3, &[&[1, 2]]);
    let mut refused = |target: Option<&[i32]>| {
        let error = outcome(&mut world, request(target)).unwrap_err();
        error.to_string()
    };
    check(
        &[
            refused(Some(&[])),
            refused(Some(&[2, 2])),
            refused(Some(&[-1])),
            refused(Some(&[1, 9])),
            refused(None),
        ]
        .join("\n"),
        &expect![[r#"
            Empty replica list specified in partition reassignment.
            Duplicate replica ids in partition reassignment replica list: ArrayBuffer(2, 2)
            Invalid broker id in replica list: ArrayBuffer(-1)
            Replica assignment has brokers that are not alive. Replica list: ArrayBuffer(9), live broker list: Set(1, 2, 3)
            No partition reassignment is in progress."#]],
    );
    let unknown = [(t(7), Some(ids(&[1])))];
    world.request(Request::AlterReassignments(unknown.into()));
    let expected = [(t(7), Err(ReassignmentError::UnknownTopicOrPartition))];
    let answer = world.answers.pop().unwrap();
    assert_eq!(answer, Answer::AlterReassignments(Ok(expected.into())));
}

#[test]
fn a_cancelled_reassignment_leaves_the_replicas_it_began_with() {
    let mut world = started(3, &[&[1, 2]]);
    outcome(&mut world, request(Some(&[3, 2]))).unwrap();
    outcome(&mut world, request(None)).unwrap();
    assert_eq!(world.state("t", 0), "1, 2, [1,2], 1 / 2");
    let node = world.data("/brokers/topics/t");
    assert!(node.contains(r#""partitions":{"0":[2,1]}"#), "{node}");
    let again = outcome(&mut world, request(None));
    assert_eq!(again, Err(ReassignmentError::NotInProgress));
}

#[test]
fn the_next_controller_goes_on() {
    let mut world = started(4, &[&[1, 2], &[1, 2]]);
    outcome(&mut world, request(Some(&[3, 2]))).unwrap();
    // Somebody joined the ISR while there was no controller: nobody has seen it yet.
    world.deregister(1);
    world.replace_controller(settings(4));
    world.handle(Event::Started);
    assert_eq!(world.state("t", 0), "2, 4, [2], 2 / 4");
    joins(&mut world, 2, &[2, 3], 4, 4);
    assert_eq!(world.state("t", 0), "2, 5, [2,3], 2 / 6");
    let node = world.data("/brokers/topics/t");
    assert!(
        node.contains(r#""partitions":{"0":[3,2],"1":[1,2]}"#),
        "{node}"
    );
}

#[test]
fn a_finished_reassignment_is_completed_by_the_next_controller() {
    let mut world = started(4, &[&[1, 2]]);
    outcome(&mut world, request(Some(&[3, 2]))).unwrap();
    let state = br#"{"controller_epoch":1,"isr":[1,2,3],"leader":1,"leader_epoch":1,"version":1}"#;
    let path = "/brokers/topics/t/partitions/0/state";
    world.set(path, state.to_vec(), None).unwrap();
    world.replace_controller(settings(4));
    world.handle(Event::Started);
    assert_eq!(world.state("t", 0), "3, 3, [2,3], 2 / 4");
    world.request(Request::ListReassignments(None));
    let expected = Answer::ListReassignments(Ok([].into()));
    assert_eq!(world.answers.pop(), Some(expected));
}

#[test]
fn a_replica_whose_broker_was_away_is_started_when_it_returns() {
    let mut world = started(3, &[&[1, 2]]);
    outcome(&mut world, request(Some(&[3, 2]))).unwrap();
    world.deregister(3);
    world.settle();
    let before = world.sent.len();
    world.register(3);
    world.settle();
    let told_new = world.sent[before..]
        .iter()
        .any(|(to, request)| match request {
            crate::control::ControlRequest::LeaderAndIsr(request) => {
                to.0 == 3 && request.partitions.iter().any(|of| of.is_new)
            }
            _ => false,
        });
    assert!(told_new, "{:?}", &world.sent[before..]);
}

#[test]
fn a_topic_is_deleted_only_after_its_reassignment() {
    let mut world = started(3, &[&[1, 2]]);
    outcome(&mut world, request(Some(&[3, 2]))).unwrap();
    let marker = "/admin/delete_topics/t";
    world.create(marker, Vec::new(), false).unwrap();
    world.settle();
    assert!(world.exists("/brokers/topics/t"));
    let refused = outcome(&mut world, request(Some(&[1])));
    assert_eq!(refused, Err(ReassignmentError::UnknownTopicOrPartition));
    joins(&mut world, 1, &[1, 2, 3], 1, 1);
    assert!(!world.exists("/brokers/topics/t"));
    assert!(!world.exists(marker));
}

#[test]
fn old_tools_are_served_through_their_znode() {
    let mut world = started(3, &[&[1, 2], &[1, 2]]);
    let node = br#"{"version":1,"partitions":[
        {"topic":"t","partition":0,"replicas":[3,2]},
        {"topic":"t","partition":1,"replicas":[2,1]},
        {"topic":"nowhere","partition":0,"replicas":[2,1]}]}"#;
    let path = "/admin/reassign_partitions";
    world.create(path, node.to_vec(), false).unwrap();
    world.settle();
    // What is done or impossible is taken out.
    check(
        &world.data(path),
        &expect![[r#"{"partitions":[{"partition":0,"replicas":[3,2],"topic":"t"}],"version":1}"#]],
    );
    assert_eq!(world.state("t", 1), "1, 1, [1,2], 1 / 1");
    joins(&mut world, 1, &[1, 2, 3], 1, 1);
    assert!(!world.exists(path));
    // And the next order is seen.
    let node = br#"{"version":1,"partitions":[{"topic":"t","partition":1,"replicas":[1,2]}]}"#;
    world.create(path, node.to_vec(), false).unwrap();
    world.settle();
    assert_eq!(world.state("t", 1), "1, 2, [1,2], 1 / 2");
    assert!(!world.exists(path));
}

#[test]
fn the_latest_order_replaces_that_of_old_tools() {
    let mut world = started(3, &[&[1, 2]]);
    let node = br#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[3,2]}]}"#;
    let path = "/admin/reassign_partitions";
    world.create(path, node.to_vec(), false).unwrap();
    world.settle();
    outcome(&mut world, request(Some(&[3, 1]))).unwrap();
    assert!(!world.exists(path));
    let node = world.data("/brokers/topics/t");
    assert!(node.contains(r#""partitions":{"0":[3,1,2]}"#), "{node}");
}

#[test]
fn who_is_not_controller_says_so() {
    let mut world = World::new(settings(1));
    world.request(request(Some(&[1])));
    let expected = Answer::AlterReassignments(Err(ControllerError::NotController));
    assert_eq!(world.answers.pop(), Some(expected));
}

#[test]
fn a_topics_znode_is_written_once_for_all_partitions_that_move() {
    const PARTITIONS: i32 = 20;
    let rows: Vec<&[i32]> = (0..PARTITIONS).map(|_| &[1, 2][..]).collect();
    let mut world = started(3, &rows);
    let version = |world: &World| world.node("/brokers/topics/t").expect("the topic").1;
    let before = version(&world);
    let wanted = (0..PARTITIONS).map(|partition| (t(partition), Some(ids(&[3, 2]))));
    world.request(Request::AlterReassignments(wanted.collect()));
    assert_eq!(version(&world), before + 1);
    let joined = (0..PARTITIONS).map(|partition| IsrProposal {
        partition: ProposedPartition::ByName(t(partition)),
        leader_epoch: 1,
        isr: ids(&[1, 2, 3]),
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
    assert_eq!(version(&world), before + 2);
    for partition in 0..PARTITIONS {
        assert_eq!(world.state("t", partition), "3, 3, [2,3], 1 / 4");
    }
    let topic = world.data("/brokers/topics/t");
    assert!(topic.contains(r#""adding_replicas":{}"#), "{topic}");
    assert!(topic.contains(r#""removing_replicas":{}"#), "{topic}");
    assert!(topic.contains(r#""19":[3,2]"#), "{topic}");
}
