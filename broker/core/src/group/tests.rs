//! Stories of one group, told as a client sees them; the times and answers are those of Apache Kafka 3.9.1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::records::{GroupRecord, OffsetCommit};
use super::*;
use crate::ids::{TopicPartition, coordinator_partition};
use crate::time::Now;

const RULES: GroupRules = GroupRules {
    session_timeout_min_ms: 6_000,
    session_timeout_max_ms: 1_800_000,
    size_max: 4,
    initial_rebalance_delay: Duration::from_secs(3),
};

/// A group, the log that it writes to, and everybody who waits for it.
struct World {
    group: Group,
    now_ms: u64,
    tickets: u64,
    waiting: BTreeSet<Ticket>,
    joins: BTreeMap<Ticket, Result<Joined, JoinFailure>>,
    syncs: BTreeMap<Ticket, Result<Synced, GroupError>>,
    log: Vec<GroupRecord>,
    /// What the next writes come to.
    writes: Result<(), GroupError>,
    /// Writes that are in the log and not durable yet, if they are to be held back.
    held: Option<Vec<(i64, GroupRecord, Purpose)>>,
}

impl World {
    fn new() -> Self {
        Self {
            group: Group::new("g".into()),
            now_ms: 1_000,
            tickets: 0,
            waiting: BTreeSet::new(),
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
            log: Vec::new(),
            writes: Ok(()),
            held: None,
        }
    }

    fn now(&self) -> Now {
        Now {
            monotonic: Duration::from_millis(self.now_ms),
            wall_clock_ms: 1_700_000_000_000 + self.now_ms as i64,
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.waiting.insert(Ticket(self.tickets));
        Ticket(self.tickets)
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::AnswerJoin(ticket, result) => {
                    assert!(self.waiting.remove(&ticket), "answered twice: {ticket:?}");
                    self.joins.insert(ticket, result);
                }
                Effect::AnswerSync(ticket, result) => {
                    assert!(self.waiting.remove(&ticket), "answered twice: {ticket:?}");
                    self.syncs.insert(ticket, result);
                }
                Effect::Write(record, purpose) => {
                    if let Some(held) = &mut self.held {
                        held.push((self.log.len() as i64, record.clone(), purpose));
                        self.log.push(record);
                        continue;
                    }
                    if self.writes.is_ok() {
                        self.group.replay(&record, self.log.len() as i64);
                        self.log.push(record);
                    }
                    let more = self.group.written(purpose, self.writes, &RULES, self.now());
                    self.carry_out(more);
                }
            }
        }
    }

    /// What was held back becomes durable, each as it is in the log but in this order.
    fn settle(&mut self, order: &[usize]) {
        let held = self.held.take().unwrap();
        for place in order {
            let (offset, record, purpose) = held[*place].clone();
            self.group.replay(&record, offset);
            let effects = self.group.written(purpose, Ok(()), &RULES, self.now());
            self.carry_out(effects);
        }
    }

    /// Lets time pass and timers go off, each when it is due.
    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(deadline) = self.group.next_deadline() {
            let at = deadline.0.as_millis() as u64;
            if at > end {
                break;
            }
            self.now_ms = self.now_ms.max(at);
            let effects = self.group.tick(&RULES, self.now());
            self.carry_out(effects);
        }
        self.now_ms = end;
    }

    fn join_with(&mut self, change: impl FnOnce(&mut Join)) -> Ticket {
        let ticket = self.ticket();
        let mut join = Join {
            ticket,
            member_id: "".into(),
            group_instance_id: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 10_000,
            session_timeout_ms: 6_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), subscription(&["t"]))],
            needs_known_id: false,
            can_skip_assignment: true,
            unique: uuid::Uuid::from_u128(u128::from(ticket.0)),
        };
        change(&mut join);
        let effects = self.group.join(join, &RULES, self.now());
        self.carry_out(effects);
        ticket
    }

    fn join(&mut self, member_id: &str) -> Ticket {
        self.join_with(|join| join.member_id = member_id.into())
    }

    fn sync(
        &mut self,
        member_id: &str,
        generation_id: i32,
        assignments: &[(&str, &'static str)],
    ) -> Ticket {
        let ticket = self.ticket();
        let assignments = assignments.iter().map(|(member, assignment)| {
            (
                Arc::from(*member),
                Bytes::from_static(assignment.as_bytes()),
            )
        });
        let sync = Sync {
            ticket,
            member_id: member_id.into(),
            group_instance_id: None,
            generation_id,
            protocol_type: None,
            protocol: None,
            assignments: assignments.collect(),
        };
        let effects = self.group.sync(&sync, self.now());
        self.carry_out(effects);
        ticket
    }

    fn heartbeat(&mut self, member_id: &str, generation_id: i32) -> Result<(), GroupError> {
        let now = self.now();
        self.group.heartbeat(member(member_id, generation_id), now)
    }

    fn joined(&self, ticket: Ticket) -> &Joined {
        self.joins[&ticket].as_ref().unwrap()
    }

    fn refusal(&self, ticket: Ticket) -> GroupError {
        self.joins[&ticket].as_ref().unwrap_err().error
    }

    /// A stable group of `count` members.
    fn stable(count: usize) -> (Self, Vec<Arc<str>>) {
        let mut world = Self::new();
        let tickets: Vec<Ticket> = (0..count).map(|_| world.join("")).collect();
        world.pass(6_000);
        let ids: Vec<Arc<str>> = tickets
            .iter()
            .map(|ticket| Arc::clone(&world.joined(*ticket).member_id))
            .collect();
        let leader = Arc::clone(&world.joined(tickets[0]).leader);
        for id in &ids {
            if *id != leader {
                world.sync(id, 1, &[]);
            }
        }
        world.sync(&leader, 1, &[(&ids[0], "a"), (ids.last().unwrap(), "b")]);
        assert_eq!(world.group.state(), State::Stable);
        assert!(world.waiting.is_empty());
        (world, ids)
    }
}

fn member(member_id: &str, generation_id: i32) -> MemberRef<'_> {
    MemberRef {
        member_id,
        group_instance_id: None,
        generation_id,
    }
}

fn subscription(topics: &[&str]) -> Bytes {
    let mut out = crate::fields::Writer::default();
    out.i16(1);
    out.i32(topics.len() as i32);
    for topic in topics {
        out.string(topic);
    }
    out.i32(-1);
    out.finish().unwrap().into()
}

fn commit(offset: i64, commit_timestamp: i64) -> OffsetCommit {
    OffsetCommit {
        offset,
        leader_epoch: -1,
        metadata: "".into(),
        commit_timestamp,
        expire_timestamp: None,
    }
}

#[test]
fn the_first_rebalance_waits_for_more_members_but_not_forever() {
    let mut world = World::new();
    let first = world.join("");
    world.pass(2_999);
    assert!(!world.joins.contains_key(&first));
    let second = world.join("");
    world.pass(1);
    assert!(
        !world.joins.contains_key(&first),
        "somebody joined: it waits again"
    );
    world.pass(3_000);
    assert_eq!(world.joined(first).generation_id, 1);
    assert_eq!(world.joined(second).generation_id, 1);
    assert_eq!(
        world.joined(first).members.len(),
        2,
        "the leader is told of all"
    );
    assert!(world.joined(second).members.is_empty());

    let mut world = World::new();
    let first = world.join("");
    for _ in 0..3 {
        world.pass(2_900);
        world.join("");
    }
    world.pass(1_300);
    assert_eq!(
        world.joined(first).members.len(),
        4,
        "ten seconds are all that members gave"
    );
}

#[test]
fn a_dynamic_member_comes_again_with_the_id_that_it_was_given() {
    let mut world = World::new();
    let first = world.join_with(|join| join.needs_known_id = true);
    let failure = world.joins[&first].as_ref().unwrap_err().clone();
    assert_eq!(failure.error, GroupError::MemberIdRequired);
    assert!(failure.member_id.starts_with("c-"));
    assert_eq!(world.group.describe().state, State::Empty);
    let again = world.join(&failure.member_id);
    world.pass(3_000);
    assert_eq!(world.joined(again).member_id, failure.member_id);
    // An id that is not used in time is worth nothing.
    let unused = world.join_with(|join| join.needs_known_id = true);
    let unused = Arc::clone(&world.joins[&unused].as_ref().unwrap_err().member_id);
    world.pass(6_000);
    let late = world.join(&unused);
    assert_eq!(world.refusal(late), GroupError::UnknownMemberId);
}

#[test]
fn who_was_given_an_id_may_join_when_everybody_else_has_gone() {
    let (mut world, ids) = World::stable(2);
    world.join(&ids[0]);
    let ticket = world.join_with(|join| join.needs_known_id = true);
    let id = Arc::clone(&world.joins[&ticket].as_ref().unwrap_err().member_id);
    for member_id in ids {
        let leaver = Leaver {
            member_id,
            group_instance_id: None,
        };
        let now = world.now();
        let (_, effects) = world.group.leave(&[leaver], &RULES, now).unwrap();
        world.carry_out(effects);
    }
    assert_eq!(world.group.state(), State::PreparingRebalance);
    let again = world.join(&id);
    world.pass(10_000);
    assert_eq!(world.joined(again).member_id, id);
}

#[test]
fn who_gives_itself_no_time_has_enough_for_the_next_request() {
    let mut world = World::new();
    let hasty = world.join_with(|join| join.rebalance_timeout_ms = 0);
    world.pass(3_000);
    let member = world.joined(hasty).member_id.clone();
    world.pass(50);
    let synced = world.sync(&member, 1, &[(&member, "all")]);
    assert_eq!(world.syncs[&synced].as_ref().unwrap().assignment, "all");
}

#[test]
fn the_leader_divides_the_work_and_everybody_gets_a_part() {
    let (mut world, ids) = World::stable(2);
    let again = world.sync(&ids[1], 1, &[]);
    assert_eq!(world.syncs[&again].as_ref().unwrap().assignment, "b");
    let description = world.group.describe();
    assert_eq!(&*description.protocol, "range");
    assert_eq!(description.members.len(), 2);
    assert_eq!(world.log.len(), 1);
}

#[test]
fn a_member_that_dies_is_missed_after_its_session() {
    let (mut world, ids) = World::stable(2);
    world.pass(5_000);
    assert_eq!(world.heartbeat(&ids[0], 1), Ok(()));
    world.pass(1_001);
    assert_eq!(world.group.state(), State::PreparingRebalance);
    assert_eq!(
        world.heartbeat(&ids[0], 1),
        Err(GroupError::RebalanceInProgress)
    );
    assert_eq!(
        world.heartbeat(&ids[1], 1),
        Err(GroupError::UnknownMemberId)
    );
    let again = world.join(&ids[0]);
    assert_eq!(
        world.joined(again).generation_id,
        2,
        "nobody else is waited for"
    );
    world.pass(10_000);
    assert_eq!(
        world.group.state(),
        State::Empty,
        "it never asked for its part"
    );
    let Some(GroupRecord::Group {
        generation: Some(last),
        ..
    }) = world.log.last()
    else {
        panic!("{:?}", world.log);
    };
    assert_eq!((last.generation_id, last.members.len()), (3, 0));
}

#[test]
fn who_does_not_come_back_in_time_is_left_behind() {
    let (mut world, ids) = World::stable(2);
    let new = world.join("");
    world.join(&ids[0]);
    for _ in 0..4 {
        world.pass(2_400);
        let _ = world.heartbeat(&ids[1], 1);
    }
    assert!(!world.joins.contains_key(&new));
    world.pass(400);
    assert_eq!(world.joined(new).generation_id, 2);
    assert_eq!(
        world.heartbeat(&ids[1], 1),
        Err(GroupError::UnknownMemberId)
    );
}

#[test]
fn generations_and_members_are_checked() {
    let (mut world, ids) = World::stable(1);
    assert_eq!(
        world.heartbeat(&ids[0], 99),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(
        world.heartbeat("nobody", 1),
        Err(GroupError::UnknownMemberId)
    );
    let wrong = world.sync(&ids[0], 7, &[]);
    assert_eq!(world.syncs[&wrong], Err(GroupError::IllegalGeneration));
    let other = world.join_with(|join| join.protocols[0].0 = "sticky".into());
    assert_eq!(world.refusal(other), GroupError::InconsistentGroupProtocol);
    let other = world.join_with(|join| join.protocol_type = "connect".into());
    assert_eq!(world.refusal(other), GroupError::InconsistentGroupProtocol);
    let stranger = world.join("nobody");
    assert_eq!(world.refusal(stranger), GroupError::UnknownMemberId);
}

#[test]
fn a_full_group_takes_nobody_else() {
    let (mut world, ids) = World::stable(4);
    let fifth = world.join("");
    assert_eq!(world.refusal(fifth), GroupError::GroupMaxSizeReached);
    let known = world.join(&ids[1]);
    assert_eq!(world.joined(known).generation_id, 1);
}

#[test]
fn the_protocol_that_most_members_prefer_wins() {
    let mut world = World::new();
    let all = |first: &str, second: &str| {
        vec![
            (Arc::from(first), Bytes::new()),
            (Arc::from(second), Bytes::new()),
        ]
    };
    let tickets = [
        world.join_with(|join| join.protocols = all("range", "sticky")),
        world.join_with(|join| join.protocols = all("sticky", "range")),
        world.join_with(|join| join.protocols = all("sticky", "range")),
    ];
    world.pass(9_000);
    assert_eq!(world.joined(tickets[0]).protocol.as_deref(), Some("sticky"));
}

fn static_group() -> (World, Arc<str>) {
    let mut world = World::new();
    let ticket = world.join_with(|join| join.group_instance_id = Some("i1".into()));
    world.pass(3_000);
    let id = Arc::clone(&world.joined(ticket).member_id);
    assert!(id.starts_with("i1-"));
    world.sync(&id, 1, &[(&id, "a")]);
    (world, id)
}

#[test]
fn a_static_member_takes_its_place_again_without_a_rebalance() {
    let (mut world, old) = static_group();
    let again = world.join_with(|join| join.group_instance_id = Some("i1".into()));
    let joined = world.joined(again).clone();
    assert_eq!(joined.generation_id, 1);
    assert!(joined.skip_assignment, "it leads, but the work is divided");
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.members.len(), 1);
    assert_eq!(world.log.len(), 2, "the new id is written");
    let fenced = MemberRef {
        group_instance_id: Some("i1"),
        ..member(&old, 1)
    };
    let now = world.now();
    assert_eq!(
        world.group.heartbeat(fenced, now),
        Err(GroupError::FencedInstanceId)
    );
    assert_eq!(world.heartbeat(&old, 1), Err(GroupError::UnknownMemberId));
    let sync = world.sync(&joined.member_id, 1, &[]);
    assert_eq!(world.syncs[&sync].as_ref().unwrap().assignment, "a");
    // Older clients are told that the old member leads, so that they do not divide the work.
    let older = world.join_with(|join| {
        join.group_instance_id = Some("i1".into());
        join.can_skip_assignment = false;
    });
    assert_eq!(world.joined(older).leader, joined.member_id);
    assert_ne!(world.joined(older).member_id, joined.member_id);
    assert!(world.joined(older).members.is_empty());
}

/// A deployment restarts all its members at once.
#[test]
fn static_members_that_come_back_together_are_all_answered() {
    for order in [[0, 1], [1, 0]] {
        let mut world = World::new();
        let instances = ["i1", "i2"];
        let join = |world: &mut World, instance: &str| {
            world.join_with(|join| join.group_instance_id = Some(instance.into()))
        };
        let tickets = instances.map(|instance| join(&mut world, instance));
        world.pass(6_000);
        let ids = tickets.map(|ticket| Arc::clone(&world.joined(ticket).member_id));
        let leader = Arc::clone(&world.joined(tickets[0]).leader);
        world.sync(&leader, 1, &[(&ids[0], "a"), (&ids[1], "b")]);
        assert_eq!(world.group.state(), State::Stable);

        world.held = Some(Vec::new());
        let again = instances.map(|instance| join(&mut world, instance));
        world.settle(&order);
        let ids = again.map(|ticket| Arc::clone(&world.joined(ticket).member_id));
        for id in &ids {
            assert_eq!(world.heartbeat(id, 1), Ok(()), "{order:?}");
        }
        // They are watched over: one that is silent from now on goes.
        world.pass(5_000);
        assert_eq!(world.heartbeat(&ids[0], 1), Ok(()));
        world.pass(5_000);
        assert_eq!(
            world.heartbeat(&ids[1], 1),
            Err(GroupError::UnknownMemberId)
        );
    }
}

#[test]
fn a_generation_that_becomes_durable_late_does_not_undo_a_later_one() {
    let (mut world, old) = static_group();
    world.held = Some(Vec::new());
    let again = world.join_with(|join| join.group_instance_id = Some("i1".into()));
    // A second member comes, and the group goes on to its next generation.
    let other = world.join("");
    world.pass(3_000);
    let (id, generation) = {
        let joined = world.joined(again);
        (Arc::clone(&joined.member_id), joined.generation_id)
    };
    let other = Arc::clone(&world.joined(other).member_id);
    assert_ne!(id, old);
    assert_eq!(generation, 2);
    world.sync(&other, 2, &[]);
    world.sync(&id, 2, &[(&id, "a"), (&other, "b")]);
    world.settle(&[1, 0]);
    assert_eq!(world.group.state(), State::Stable);
    assert_eq!(world.heartbeat(&id, 2), Ok(()));
    assert_eq!(world.heartbeat(&other, 2), Ok(()));
}

#[test]
fn the_last_generation_of_a_log_is_the_one_in_force() {
    let (mut world, ids) = World::stable(1);
    let id = Arc::clone(&ids[0]);
    world.join_with(|join| {
        join.member_id = Arc::clone(&id);
        join.protocols
            .insert(0, ("sticky".into(), subscription(&["u"])));
    });
    world.sync(&id, 2, &[(&id, "c")]);
    let mut replayed = Group::new("g".into());
    for (offset, record) in world.log.iter().enumerate() {
        replayed.replay(record, offset as i64);
    }
    assert_eq!(replayed.describe(), world.group.describe());
    assert_eq!(&*replayed.describe().protocol, "sticky");
    assert_eq!(
        replayed.describe().members[0].metadata,
        subscription(&["u"])
    );
}

#[test]
fn a_static_member_keeps_its_id_if_the_new_one_cannot_be_written() {
    let (mut world, old) = static_group();
    world.writes = Err(GroupError::CoordinatorNotAvailable);
    let again = world.join_with(|join| join.group_instance_id = Some("i1".into()));
    assert_eq!(world.refusal(again), GroupError::CoordinatorNotAvailable);
    assert_eq!(world.heartbeat(&old, 1), Ok(()));
}

#[test]
fn members_leave_by_id_or_by_instance() {
    let (mut world, _) = static_group();
    let leaver = |member_id: &str, instance: Option<&str>| Leaver {
        member_id: member_id.into(),
        group_instance_id: instance.map(Arc::from),
    };
    let leavers = [
        leaver("", Some("i1")),
        leaver("", Some("zz")),
        leaver("x", None),
    ];
    let now = world.now();
    let (results, effects) = world.group.leave(&leavers, &RULES, now).unwrap();
    world.carry_out(effects);
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(results, [Ok(()), unknown, unknown]);
    assert_eq!(world.group.state(), State::Empty);
}

#[test]
fn an_assignment_that_cannot_be_written_begins_another_rebalance() {
    let mut world = World::new();
    let ticket = world.join("");
    world.pass(3_000);
    let id = Arc::clone(&world.joined(ticket).member_id);
    world.writes = Err(GroupError::CoordinatorNotAvailable);
    let sync = world.sync(&id, 1, &[(&id, "a")]);
    assert_eq!(world.syncs[&sync], Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(world.group.state(), State::PreparingRebalance);
}

#[test]
fn whoever_waits_is_sent_away_when_the_coordinator_moves() {
    let (mut world, ids) = World::stable(2);
    let join = world.join(&ids[0]);
    let effects = world.group.unload();
    world.carry_out(effects);
    assert_eq!(world.refusal(join), GroupError::NotCoordinator);
    assert_eq!(
        world.heartbeat(&ids[0], 1),
        Err(GroupError::CoordinatorNotAvailable)
    );
}

#[test]
fn commits_are_for_members_or_for_empty_groups() {
    let mut world = World::new();
    let now = world.now();
    assert_eq!(world.group.check_commit(member("", -1), now), Ok(()));
    let (mut world, ids) = World::stable(2);
    let now = world.now();
    let mut check = |id: &str, generation| world.group.check_commit(member(id, generation), now);
    assert_eq!(check(&ids[0], 1), Ok(()));
    assert_eq!(check(&ids[0], 2), Err(GroupError::IllegalGeneration));
    assert_eq!(check("", -1), Err(GroupError::UnknownMemberId));
    // While a rebalance is prepared the old generation may still commit; while work is divided nobody may.
    world.join("");
    let now = world.now();
    assert_eq!(world.group.check_commit(member(&ids[0], 1), now), Ok(()));
    world.join(&ids[0]);
    world.join(&ids[1]);
    let now = world.now();
    assert_eq!(world.group.state(), State::CompletingRebalance);
    let refused = world.group.check_commit(member(&ids[0], 2), now);
    assert_eq!(refused, Err(GroupError::RebalanceInProgress));
}

#[test]
fn offsets_live_as_long_as_somebody_may_need_them() {
    const HOUR: i64 = 3_600_000;
    let (mut world, ids) = World::stable(1);
    let start = world.now().wall_clock_ms;
    let partition = |topic: &str| TopicPartition::new(topic, 0);
    for topic in ["t", "other"] {
        let offsets = &mut world.group.offsets;
        offsets.replay(&partition(topic), Some(commit(5, start)), 10);
    }
    let expiry = |world: &World, at| -> Vec<String> {
        let records = world.group.expiry(HOUR, at);
        records
            .iter()
            .map(|record| match record {
                GroupRecord::Offset { partition, .. } => partition.topic.to_string(),
                GroupRecord::Group { .. } => "group".to_owned(),
                GroupRecord::Unknown { .. } => unreachable!(),
            })
            .collect()
    };
    assert_eq!(expiry(&world, start + HOUR - 1), [""; 0]);
    assert_eq!(
        expiry(&world, start + HOUR),
        ["other"],
        "`t` is subscribed to"
    );
    let now = world.now();
    let leaver = Leaver {
        member_id: Arc::clone(&ids[0]),
        group_instance_id: None,
    };
    let (_, effects) = world.group.leave(&[leaver], &RULES, now).unwrap();
    world.carry_out(effects);
    // From the moment on when the group became empty.
    let emptied = world.now().wall_clock_ms;
    assert_eq!(expiry(&world, emptied + HOUR - 1), [""; 0]);
    assert_eq!(expiry(&world, emptied + HOUR), ["other", "t", "group"]);
    let deletable = world.group.check_offset_deletion(&[partition("t")]);
    assert_eq!(deletable, Ok(vec![Ok(())]));
}

#[test]
fn offsets_of_subscribed_topics_are_not_deleted() {
    let (world, _) = World::stable(1);
    let partitions = [TopicPartition::new("t", 0), TopicPartition::new("u", 0)];
    assert_eq!(
        world.group.check_offset_deletion(&partitions),
        Ok(vec![Err(GroupError::GroupSubscribedToTopic), Ok(())])
    );
    assert_eq!(world.group.deletion(), Err(GroupError::NonEmptyGroup));
}

#[test]
fn offsets_of_transactions_wait_for_their_marker() {
    let mut offsets = Offsets::default();
    let partition = TopicPartition::new("t", 0);
    offsets.replay(&partition, Some(commit(1, 0)), 1);
    offsets.replay_transactional(7, &partition, commit(2, 0), 2);
    assert!(offsets.is_unstable("t", 0));
    assert_eq!(offsets.get("t", 0).unwrap().offset, 1);
    let mut aborted = offsets.clone();
    aborted.replay_marker(7, false, 9);
    assert_eq!(aborted.get("t", 0).unwrap().offset, 1);
    // A later commit outside of the transaction wins over the transaction's.
    let mut overtaken = offsets.clone();
    overtaken.replay(&partition, Some(commit(3, 0)), 3);
    overtaken.replay_marker(7, true, 9);
    assert_eq!(overtaken.get("t", 0).unwrap().offset, 3);
    // So does what was committed before a tombstone, as far as the transaction committed it behind.
    let mut expired = offsets.clone();
    expired.replay(&partition, None, 3);
    assert!(expired.get("t", 0).is_none() && expired.is_unstable("t", 0));
    let mut deleted = expired.clone();
    expired.replay_marker(7, true, 9);
    assert_eq!(expired.get("t", 0).unwrap().offset, 2);
    deleted.forget_transactional(std::slice::from_ref(&partition));
    deleted.replay_marker(7, true, 9);
    assert!(deleted.is_empty());
    offsets.replay_marker(7, true, 9);
    assert_eq!(offsets.get("t", 0).unwrap().offset, 2);
    assert!(!offsets.is_unstable("t", 0));
}

/// A marker that comes twice, or late, does not end the transaction that has begun since.
#[test]
fn a_marker_ends_what_stands_before_it() {
    let mut offsets = Offsets::default();
    let (t, u) = (TopicPartition::new("t", 0), TopicPartition::new("u", 0));
    offsets.replay_transactional(7, &t, commit(1, 0), 1);
    offsets.replay_transactional(7, &u, commit(2, 0), 3);
    offsets.replay_marker(7, true, 2);
    assert_eq!(offsets.get("t", 0).unwrap().offset, 1);
    assert!(offsets.get("u", 0).is_none() && offsets.is_unstable("u", 0));
    offsets.replay_marker(7, false, 2);
    assert!(offsets.is_unstable("u", 0));
    offsets.replay_marker(7, true, 4);
    assert_eq!(offsets.get("u", 0).unwrap().offset, 2);
    assert!(!offsets.is_unstable("u", 0));
}

/// Of two commits on their way to the replicas, a tombstone between them is about the first alone.
#[test]
fn a_tombstone_makes_void_what_stands_before_it() {
    let mut offsets = Offsets::default();
    let t = TopicPartition::new("t", 0);
    offsets.begin(&t, 1);
    offsets.replay(&t, None, 2);
    offsets.begin(&t, 3);
    assert!(offsets.is_unstable("t", 0));
    offsets.landed(&t, commit(1, 0), 1);
    assert!(offsets.get("t", 0).is_none() && offsets.is_unstable("t", 0));
    offsets.landed(&t, commit(2, 0), 3);
    assert_eq!(offsets.get("t", 0).unwrap().offset, 2);
    assert!(!offsets.is_unstable("t", 0));
    offsets.begin(&t, 4);
    assert!(offsets.end(&t, 4), "given up");
    assert!(!offsets.end(&t, 4));
    assert_eq!(offsets.get("t", 0).unwrap().offset, 2);
}

#[test]
fn a_group_that_a_transaction_may_still_commit_to_does_not_expire() {
    let mut group = Group::new("g".into());
    let (t, u) = (TopicPartition::new("t", 0), TopicPartition::new("u", 0));
    group.offsets.replay(&t, Some(commit(1, 0)), 1);
    group.offsets.replay_transactional(7, &u, commit(1, 0), 2);
    assert_eq!(group.expiry(10, 1000).len(), 1);
    group.offsets.replay_marker(7, false, 9);
    assert_eq!(group.expiry(10, 1000).len(), 2);
}

#[test]
fn keys_are_coordinated_where_kafka_looks_for_them() {
    assert_eq!(coordinator_partition("g", 50), 103 % 50);
    assert_eq!(coordinator_partition("", 50), 0);
    // Java: "polygenelubricants".hashCode() is the smallest number, whose absolute value Kafka takes for zero.
    assert_eq!(coordinator_partition("polygenelubricants", 50), 0);
}

/// What a client may do.
#[derive(Clone, Debug)]
enum Step {
    Join {
        member: usize,
        sticky: bool,
    },
    JoinNew {
        needs_known_id: bool,
        instance: Option<u8>,
    },
    Sync {
        member: usize,
    },
    Heartbeat {
        member: usize,
    },
    Leave {
        member: usize,
    },
    Pass {
        ms: u64,
    },
    FailWrites {
        fail: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..8_usize, any::<bool>()).prop_map(|(member, sticky)| Step::Join { member, sticky }),
        3 => (any::<bool>(), proptest::option::of(0..2_u8))
            .prop_map(|(needs_known_id, instance)| Step::JoinNew { needs_known_id, instance }),
        4 => (0..8_usize).prop_map(|member| Step::Sync { member }),
        3 => (0..8_usize).prop_map(|member| Step::Heartbeat { member }),
        1 => (0..8_usize).prop_map(|member| Step::Leave { member }),
        4 => (0..7_000_u64).prop_map(|ms| Step::Pass { ms }),
        1 => any::<bool>().prop_map(|fail| Step::FailWrites { fail }),
    ]
}

impl World {
    fn known_id(&self, member: usize) -> Arc<str> {
        let ids: Vec<Arc<str>> = self
            .joins
            .values()
            .map(|result| match result {
                Ok(joined) => Arc::clone(&joined.member_id),
                Err(failure) => Arc::clone(&failure.member_id),
            })
            .collect();
        ids.get(ids.len().wrapping_sub(1 + member % ids.len().max(1)))
            .cloned()
            .unwrap_or_else(|| "nobody".into())
    }

    fn step(&mut self, step: &Step) {
        let generation_id = self.group.generation_id();
        match step {
            Step::Join { member, sticky } => {
                let id = self.known_id(*member);
                self.join_with(|join| {
                    join.member_id = id;
                    if *sticky {
                        join.protocols.insert(0, ("sticky".into(), Bytes::new()));
                    }
                });
            }
            Step::JoinNew {
                needs_known_id,
                instance,
            } => {
                self.join_with(|join| {
                    join.group_instance_id = instance.map(|instance| format!("i{instance}").into());
                    join.needs_known_id = *needs_known_id;
                });
            }
            Step::Sync { member } => {
                let id = self.known_id(*member);
                self.sync(&id, generation_id, &[(&id, "x")]);
            }
            Step::Heartbeat { member } => {
                let id = self.known_id(*member);
                let _ = self.heartbeat(&id, generation_id);
            }
            Step::Leave { member } => {
                let leaver = Leaver {
                    member_id: self.known_id(*member),
                    group_instance_id: None,
                };
                let now = self.now();
                if let Ok((_, effects)) = self.group.leave(&[leaver], &RULES, now) {
                    self.carry_out(effects);
                }
            }
            Step::Pass { ms } => self.pass(*ms),
            Step::FailWrites { fail } => {
                self.writes = if *fail {
                    Err(GroupError::CoordinatorNotAvailable)
                } else {
                    Ok(())
                };
            }
        }
    }
}

proptest! {
    /// Nobody is answered twice (asserted in the world), nobody waits forever, and a group that comes to rest is what
    /// its log says, if that could be written.
    #[test]
    fn every_group_comes_to_rest(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.writes = Ok(());
        // Longer than a new member's join may take; nobody says anything any more.
        world.pass(1_000_000);
        prop_assert!(world.waiting.is_empty(), "{:?}", world.waiting);
        prop_assert_eq!(world.group.state(), State::Empty);
        prop_assert_eq!(world.group.next_deadline(), None);
        let mut replayed = Group::new("g".into());
        for (offset, record) in world.log.iter().enumerate() {
            replayed.replay(record, offset as i64);
        }
        // A last generation that could not be written is not there: as in Kafka, the one before it would come to life
        // again with another coordinator, and its members be missed.
        let was_disturbed = steps
            .iter()
            .any(|step| matches!(step, Step::FailWrites { fail: true }));
        if !was_disturbed {
            prop_assert_eq!(replayed.state(), State::Empty);
            if !world.log.is_empty() {
                prop_assert_eq!(replayed.generation_id(), world.group.generation_id());
            }
        }
    }

    /// Whenever a group is stable, another coordinator that reads the log sees the same group.
    #[test]
    fn a_stable_group_is_what_its_log_says(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            if !matches!(step, Step::FailWrites { .. }) {
                world.step(step);
            }
            if world.group.state() == State::Stable {
                let mut replayed = Group::new("g".into());
                for (offset, record) in world.log.iter().enumerate() {
                    replayed.replay(record, offset as i64);
                }
                prop_assert_eq!(replayed.describe(), world.group.describe());
            }
        }
    }
}
