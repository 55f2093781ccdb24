use super::*;
use crate::control::Leadership;
use crate::ids::TopicPartition;
use proptest::prelude::*;

const LAG_MAX: Duration = Duration::from_secs(30);

fn at(ms: u64) -> Now {
    Now {
        monotonic: Duration::from_millis(ms),
        wall_clock_ms: 1_700_000_000_000 + ms as i64,
    }
}

fn everybody(_: BrokerId) -> bool {
    true
}

fn surroundings(min_insync_replicas: i32) -> Surroundings<'static> {
    Surroundings {
        min_insync_replicas,
        replica_lag_max: LAG_MAX,
        is_alive: &everybody,
    }
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn bounds(log_end_offset: Offset) -> LogBounds {
    LogBounds {
        log_start_offset: 0,
        log_end_offset,
    }
}

fn leader_and_isr(epoch: LeaderEpoch, replicas: &[i32], isr: &[i32]) -> LeaderAndIsrPartition {
    LeaderAndIsrPartition {
        topic_partition: TopicPartition::new("t", 0),
        topic_id: None,
        leadership: Leadership {
            controller_epoch: 1,
            leader: 1,
            leader_epoch: epoch,
            isr: ids(isr),
            partition_epoch: epoch,
            is_recovering: false,
        },
        replicas: ids(replicas),
        adding_replicas: Vec::new(),
        removing_replicas: Vec::new(),
        is_new: false,
    }
}

fn leading(replicas: &[i32], isr: &[i32], end: Offset, min_isr: i32) -> PartitionState {
    let mut state = PartitionState::new(BrokerId(1));
    state
        .become_leader(
            &leader_and_isr(0, replicas, isr),
            bounds(end),
            surroundings(min_isr),
            at(0),
        )
        .unwrap();
    state
}

fn fetched(
    state: &mut PartitionState,
    follower: i32,
    offset: Offset,
    end: Offset,
    ms: u64,
) -> FollowerFetched {
    let fetch = FollowerFetch {
        follower: BrokerId(follower),
        fetch_offset: offset,
        log_start_offset: 0,
        leader_end_offset: end,
    };
    state
        .follower_fetched(fetch, surroundings(1), at(ms))
        .unwrap()
}

#[test]
fn a_single_replica_commits_what_it_appends() {
    let mut state = leading(&[1], &[1], 7, 1);
    assert_eq!(state.high_watermark(), 7);
    assert!(state.appended(9, surroundings(1), at(1)));
    assert_eq!(state.high_watermark(), 9);
    assert!(!state.appended(9, surroundings(1), at(2)));
}

#[test]
fn min_isr_is_never_more_than_the_replicas() {
    let mut state = leading(&[1], &[1], 0, 2);
    assert!(
        state
            .as_leader()
            .unwrap()
            .has_enough_in_sync(surroundings(2))
    );
    assert!(state.appended(1, surroundings(2), at(1)));
}

#[test]
fn the_high_watermark_stalls_below_min_isr() {
    let mut state = leading(&[1, 2, 3], &[1], 0, 2);
    assert!(!state.appended(5, surroundings(2), at(1)));
    assert_eq!(state.high_watermark(), 0);
    assert!(
        !state
            .as_leader()
            .unwrap()
            .has_enough_in_sync(surroundings(2))
    );
}

#[test]
fn the_high_watermark_waits_for_the_isr() {
    let mut state = leading(&[1, 2, 3], &[1, 2], 0, 1);
    assert!(!state.appended(5, surroundings(1), at(1)));
    assert!(fetched(&mut state, 2, 3, 5, 2).high_watermark_moved);
    assert_eq!(state.high_watermark(), 3);
    // 3 is outside the ISR and was never caught up.
    assert!(fetched(&mut state, 2, 5, 5, 3).high_watermark_moved);
    assert_eq!(state.high_watermark(), 5);
}

#[test]
fn a_follower_joins_once_it_has_the_committed_records() {
    let mut state = leading(&[1, 2], &[1], 10, 1);
    assert_eq!(state.high_watermark(), 10);
    assert!(!fetched(&mut state, 2, 9, 10, 1).isr_change_proposed);
    assert!(fetched(&mut state, 2, 10, 10, 2).isr_change_proposed);
    assert_eq!(
        state.as_leader().unwrap().isr.proposed(),
        Some(ids(&[1, 2]))
    );
    // The high watermark waits for it from now on, though the controller has not answered.
    assert!(!state.appended(12, surroundings(1), at(3)));
    let written = IsrChangeOutcome::Written {
        leader_epoch: 0,
        partition_epoch: 1,
        isr: ids(&[1, 2]),
    };
    assert!(!state.isr_change_answered(written, 12, surroundings(1), at(4)));
    assert_eq!(state.partition_epoch(), 1);
    assert!(fetched(&mut state, 2, 12, 12, 5).high_watermark_moved);
}

#[test]
fn a_follower_of_an_older_epoch_may_not_join() {
    let mut state = PartitionState::new(BrokerId(1));
    state.restore_high_watermark(Some(3), bounds(10));
    // Leads with an ISR below the minimum: the high watermark stays at 3.
    state
        .become_leader(
            &leader_and_isr(4, &[1, 2, 3], &[1]),
            bounds(10),
            surroundings(2),
            at(0),
        )
        .unwrap();
    assert_eq!(state.high_watermark(), 3);
    assert!(!fetched(&mut state, 2, 9, 10, 1).isr_change_proposed);
    assert!(fetched(&mut state, 2, 10, 10, 2).isr_change_proposed);
}

#[test]
fn a_silent_follower_leaves_the_isr_and_an_idle_one_does_not() {
    let mut state = leading(&[1, 2, 3], &[1, 2, 3], 5, 1);
    fetched(&mut state, 2, 5, 5, 10);
    assert!(!state.shrink_isr(5, LAG_MAX, at(30_000)));
    assert!(state.shrink_isr(5, LAG_MAX, at(30_001)));
    let leader = state.as_leader().unwrap();
    assert_eq!(leader.isr.proposed(), Some(ids(&[1, 2])));
    assert!(leader.isr.maximal_contains(BrokerId(3)));
    // One change at a time.
    assert!(!state.shrink_isr(5, LAG_MAX, at(90_000)));
    state.isr_change_answered(IsrChangeOutcome::Refused, 5, surroundings(1), at(90_000));
    assert!(state.shrink_isr(5, LAG_MAX, at(90_001)));
}

#[test]
fn a_dead_broker_is_not_proposed_for_the_isr() {
    let mut state = leading(&[1, 2], &[1], 5, 1);
    let fetch = FollowerFetch {
        follower: BrokerId(2),
        fetch_offset: 5,
        log_start_offset: 0,
        leader_end_offset: 5,
    };
    let proposed = |state: &mut PartitionState, is_alive: &dyn Fn(BrokerId) -> bool| {
        let surroundings = Surroundings {
            is_alive,
            ..surroundings(1)
        };
        let fetched = state.follower_fetched(fetch, surroundings, at(10)).unwrap();
        fetched.isr_change_proposed
    };
    assert!(!proposed(&mut state, &|id| id != BrokerId(2)));
    assert!(proposed(&mut state, &everybody));
}

#[test]
fn a_broker_that_dies_while_it_joins_is_not_waited_for() {
    let dead = Surroundings {
        is_alive: &|broker| broker != BrokerId(2),
        ..surroundings(2)
    };
    let joining = || {
        let mut state = leading(&[1, 2, 3], &[1, 3], 5, 2);
        fetched(&mut state, 3, 5, 5, 1);
        assert!(fetched(&mut state, 2, 5, 5, 2).isr_change_proposed);
        assert!(!state.appended(9, surroundings(2), at(3)));
        fetched(&mut state, 3, 9, 9, 4);
        assert_eq!(state.high_watermark(), 5, "2 has not got it");
        state
    };
    // The refusal comes after the news of its death, or before.
    let mut state = joining();
    assert!(state.isr_change_answered(IsrChangeOutcome::Refused, 9, dead, at(5)));
    let mut state = joining();
    assert!(!state.isr_change_answered(IsrChangeOutcome::Refused, 9, surroundings(2), at(5)));
    let again = FollowerFetch {
        follower: BrokerId(3),
        fetch_offset: 9,
        log_start_offset: 0,
        leader_end_offset: 9,
    };
    let fetched = state.follower_fetched(again, dead, at(6)).unwrap();
    assert!(
        fetched.high_watermark_moved,
        "nothing new, but nobody else counts"
    );
    assert_eq!(state.high_watermark(), 9);
}

#[test]
fn caught_up_with_the_previous_fetch_counts_from_then() {
    let mut state = leading(&[1, 2], &[1, 2], 0, 1);
    fetched(&mut state, 2, 0, 100, 1_000);
    // Reached what was the end at 1 s: caught up as of 1 s.
    fetched(&mut state, 2, 100, 200, 20_000);
    assert!(!state.shrink_isr(200, LAG_MAX, at(31_000)));
    assert!(state.shrink_isr(200, LAG_MAX, at(31_001)));
}

#[test]
fn consumers_are_sent_to_the_replica_in_their_rack() {
    let mut state = leading(&[1, 2, 3, 4], &[1, 2, 3], 0, 1);
    fetched(&mut state, 2, 8, 10, 1);
    fetched(&mut state, 3, 9, 10, 2);
    let leader = state.as_leader().unwrap();
    let in_rack = |ids: &'static [i32]| move |id: BrokerId| ids.contains(&id.0);
    let preferred = |offset, ids| leader.preferred_replica(offset, false, &in_rack(ids));
    assert_eq!(preferred(5, &[2]), Some(BrokerId(2)));
    assert_eq!(preferred(5, &[2, 3]), Some(BrokerId(3)));
    // It lacks the offset; it is not in sync; nobody is there.
    assert_eq!(preferred(9, &[2]), None);
    assert_eq!(preferred(5, &[4]), None);
    assert_eq!(preferred(5, &[]), None);
    assert_eq!(leader.preferred_replica(5, true, &in_rack(&[2])), None);
}

#[test]
fn an_answer_for_another_epoch_is_ignored() {
    let mut state = leading(&[1, 2], &[1], 0, 1);
    fetched(&mut state, 2, 0, 0, 1);
    for (leader_epoch, partition_epoch) in [(1, 5), (0, -1)] {
        let outcome = IsrChangeOutcome::Written {
            leader_epoch,
            partition_epoch,
            isr: ids(&[1, 2]),
        };
        state.isr_change_answered(outcome, 0, surroundings(1), at(2));
        assert!(state.as_leader().unwrap().isr.is_in_flight());
    }
}

#[test]
fn leader_and_isr_is_judged_by_epoch_and_topic_id() {
    let id = |n: u8| Some(TopicId(uuid::Uuid::from_bytes([n; 16])));
    let state = leading(&[1], &[1], 0, 1);
    let mut request = leader_and_isr(1, &[1], &[1]);
    assert_eq!(state.examine(&request, None), Ok(Verdict::Apply));
    request.replicas = ids(&[2]);
    assert_eq!(
        state.examine(&request, None),
        Err(ControlError::UnknownTopicOrPartition)
    );
    let mut request = leader_and_isr(0, &[1], &[1]);
    assert_eq!(
        state.examine(&request, None),
        Err(ControlError::StaleControllerEpoch)
    );
    request.topic_id = id(1);
    assert_eq!(state.examine(&request, None), Ok(Verdict::AssignTopicId));
    assert_eq!(
        state.examine(&request, id(2)),
        Err(ControlError::InconsistentTopicId)
    );
    let request = leader_and_isr(-1, &[1], &[1]);
    assert_eq!(
        state.examine(&request, None),
        Err(ControlError::StaleControllerEpoch)
    );
}

#[test]
fn an_older_partition_epoch_changes_nothing() {
    let mut state = leading(&[1], &[1], 0, 1);
    let mut request = leader_and_isr(1, &[1], &[1]);
    request.leadership.partition_epoch = -1;
    let before = state.clone();
    assert_eq!(
        state.become_leader(&request, bounds(0), surroundings(1), at(1)),
        None
    );
    assert!(!state.become_follower(&request));
    assert_eq!(state, before);
}

#[test]
fn a_new_epoch_starts_at_the_log_end() {
    let mut state = leading(&[1], &[1], 3, 1);
    let became = state
        .become_leader(
            &leader_and_isr(5, &[1], &[1]),
            bounds(8),
            surroundings(1),
            at(1),
        )
        .unwrap();
    assert_eq!(became.epoch_starts_at, Some(8));
    assert_eq!(state.as_leader().unwrap().epoch_start_offset, 8);
}

#[test]
fn epochs_of_callers() {
    assert_eq!(check_leader_epoch(-1, 3), Ok(()));
    assert_eq!(check_leader_epoch(3, 3), Ok(()));
    assert_eq!(
        check_leader_epoch(2, 3),
        Err(PartitionError::FencedLeaderEpoch)
    );
    assert_eq!(
        check_leader_epoch(4, 3),
        Err(PartitionError::UnknownLeaderEpoch)
    );
}

#[test]
fn the_last_stable_offset_is_bounded_by_the_high_watermark() {
    assert_eq!(last_stable_offset(10, None), 10);
    assert_eq!(last_stable_offset(10, Some(4)), 4);
    assert_eq!(last_stable_offset(10, Some(12)), 10);
}

proptest! {
    /// Whatever order appends and fetches come in: the high watermark only grows, and every member
    /// of the ISR has what lies below it.
    #[test]
    fn the_high_watermark_is_monotonic_and_replicated(
        steps in proptest::collection::vec((0..3_i32, 0..20_i64), 1..60),
    ) {
        let mut state = leading(&[1, 2, 3], &[1, 2, 3], 0, 1);
        let mut end = 0;
        let mut followers = std::collections::BTreeMap::from([(2, 0), (3, 0)]);
        for (step, (who, by)) in steps.into_iter().enumerate() {
            let before = state.high_watermark();
            if who == 0 {
                end += by;
                state.appended(end, surroundings(1), at(step as u64));
            } else {
                let offset = followers.get_mut(&(who + 1)).unwrap();
                *offset = (*offset + by).min(end);
                let offset = *offset;
                fetched(&mut state, who + 1, offset, end, step as u64);
            }
            prop_assert!(state.high_watermark() >= before);
            prop_assert!(state.high_watermark() <= end);
            prop_assert!(followers.values().all(|&offset| offset >= state.high_watermark()));
        }
    }
}
