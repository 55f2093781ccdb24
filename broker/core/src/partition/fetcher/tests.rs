use super::*;
use uuid::Uuid;

const BACKOFF: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Now {
    Now {
        monotonic: Duration::from_millis(ms),
        wall_clock_ms: 0,
    }
}

fn of(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

#[expect(clippy::unnecessary_wraps, reason = "a topic may lack an id")]
fn id(number: u128) -> Option<TopicId> {
    Some(TopicId(Uuid::from_u128(number)))
}

fn bounds(log_end_offset: Offset) -> LogBounds {
    LogBounds {
        log_start_offset: 0,
        log_end_offset,
    }
}

fn log(log_end_offset: Offset) -> FollowerLog {
    FollowerLog {
        bounds: bounds(log_end_offset),
        high_watermark: 0,
        latest_epoch: Some(0),
    }
}

fn fetcher(partitions: i32) -> Fetcher {
    let mut fetcher = Fetcher::new(Divergence::SeenByLeader);
    for partition in 0..partitions {
        fetcher.follow(&of(partition), id(1), 1, log(0));
    }
    fetcher
}

fn ask(fetcher: &mut Fetcher, ms: u64) -> (i32, Vec<i32>, Vec<i32>) {
    let plan = fetcher.next_request(at(ms), None).unwrap();
    (
        plan.session_epoch,
        plan.items
            .iter()
            .map(|item| item.topic_partition.partition)
            .collect(),
        plan.forgotten.iter().map(|(of, _)| of.partition).collect(),
    )
}

fn established(partitions: i32) -> Fetcher {
    let mut fetcher = fetcher(partitions);
    ask(&mut fetcher, 0);
    assert!(fetcher.session_answered(SessionAnswer::Ok { session_id: 9 }));
    fetcher
}

#[test]
fn only_what_changed_is_asked_for_again() {
    let mut fetcher = fetcher(3);
    assert_eq!(ask(&mut fetcher, 0), (0, vec![0, 1, 2], vec![]));
    fetcher.session_answered(SessionAnswer::Ok { session_id: 9 });
    assert_eq!(ask(&mut fetcher, 1), (1, vec![], vec![]));
    fetcher.session_answered(SessionAnswer::Ok { session_id: 9 });
    fetcher.resume(&of(1), 1, bounds(5), Some(1), Some(0));
    assert_eq!(ask(&mut fetcher, 2), (2, vec![1], vec![]));
}

#[test]
fn without_a_session_everything_is_asked_for() {
    let mut fetcher = fetcher(2);
    ask(&mut fetcher, 0);
    fetcher.session_answered(SessionAnswer::Ok { session_id: 0 });
    assert_eq!(ask(&mut fetcher, 1), (0, vec![0, 1], vec![]));
    fetcher.session_answered(SessionAnswer::Ok { session_id: 9 });
    assert!(!fetcher.session_answered(SessionAnswer::Failed));
    let plan = fetcher.next_request(at(2), None).unwrap();
    // The old session may be named so that the leader closes it.
    assert_eq!(
        (plan.session_id, plan.session_epoch, plan.items.len()),
        (9, 0, 2)
    );
    assert!(!fetcher.session_answered(SessionAnswer::NotFound));
    assert_eq!(fetcher.next_request(at(2), None).unwrap().session_id, 0);
}

#[test]
fn what_is_delayed_leaves_the_session_and_comes_back() {
    let mut fetcher = established(2);
    fetcher.delay(&of(0), BACKOFF, at(10));
    assert_eq!(fetcher.asked(&of(0), at(11)), None);
    assert_eq!(ask(&mut fetcher, 11), (1, vec![], vec![0]));
    fetcher.session_answered(SessionAnswer::Ok { session_id: 9 });
    let first = 10 + FIRST_DELAY.as_millis() as u64;
    assert_eq!(fetcher.next_delay(), Some(Duration::from_millis(first)));
    assert_eq!(ask(&mut fetcher, first - 1), (2, vec![], vec![]));
    fetcher.session_answered(SessionAnswer::Ok { session_id: 9 });
    assert_eq!(ask(&mut fetcher, first), (3, vec![0], vec![]));
}

#[test]
fn delays_grow_until_something_is_fetched() {
    let mut fetcher = established(1);
    let mut delays = || {
        fetcher.delay(&of(0), BACKOFF, at(0));
        let delay = fetcher.next_delay().unwrap();
        ask(&mut fetcher, delay.as_millis() as u64);
        delay
    };
    let growing = [delays(), delays(), delays()];
    assert_eq!(growing, [1, 2, 4].map(|times| FIRST_DELAY * times));
    for _ in 0..20 {
        delays();
    }
    assert_eq!(delays(), BACKOFF);
    fetcher.resume(&of(0), 1, bounds(5), Some(1), None);
    fetcher.delay(&of(0), BACKOFF, at(0));
    assert_eq!(fetcher.next_delay(), Some(FIRST_DELAY));
}

#[test]
fn an_answer_to_an_older_question_does_not_count() {
    let mut fetcher = established(1);
    assert!(fetcher.asked(&of(0), at(1)).is_some());
    // The leader changes while the request is under way.
    fetcher.follow(&of(0), id(1), 2, log(0));
    assert_eq!(fetcher.asked(&of(0), at(1)), None);
    // The session would not repeat what it has told: it is left behind.
    assert_eq!(ask(&mut fetcher, 2), (0, vec![0], vec![]));
    assert!(fetcher.asked(&of(0), at(3)).is_some());
    fetcher.resume(&of(0), 1, bounds(5), Some(1), None);
    assert_eq!(
        fetcher.state(&of(0)).map(|state| state.fetch_offset),
        Some(0)
    );
}

#[test]
fn a_topic_that_was_made_anew_replaces_the_old_one_in_the_session() {
    let mut fetcher = established(1);
    fetcher.unfollow(&of(0));
    fetcher.follow(&of(0), id(2), 0, log(0));
    let plan = fetcher.next_request(at(1), None).unwrap();
    assert_eq!(plan.items[0].topic_id, id(2));
    assert_eq!(plan.forgotten, [(of(0), id(1))]);
    assert_eq!(fetcher.topic_name(TopicId(Uuid::from_u128(1))), None);
}

#[test]
fn nothing_to_follow_is_nothing_to_ask() {
    let mut fetcher = established(1);
    fetcher.unfollow(&of(0));
    assert_eq!(ask(&mut fetcher, 1), (1, vec![], vec![0]));
    fetcher.session_answered(SessionAnswer::Ok { session_id: 0 });
    assert_eq!(fetcher.next_request(at(2), None), None);
    assert!(fetcher.is_empty());
}

#[test]
fn a_topic_without_id_changes_how_topics_are_named() {
    let mut fetcher = established(1);
    fetcher.follow(&TopicPartition::new("old", 0), None, 0, log(0));
    let plan = fetcher.next_request(at(1), None).unwrap();
    assert!(!plan.uses_topic_ids);
    assert_eq!((plan.session_epoch, plan.items.len()), (0, 2));
}

#[test]
fn a_log_without_epochs_is_cut_to_its_high_watermark_first() {
    let mut fetcher = Fetcher::new(Divergence::SeenByLeader);
    let before = FollowerLog {
        latest_epoch: None,
        high_watermark: 4,
        ..log(9)
    };
    fetcher.follow(&of(0), id(1), 1, before);
    assert_eq!(fetcher.next_request(at(0), None), None);
    let truncating = fetcher.truncating(at(0));
    assert_eq!(truncating[0].1.fetch_offset, 4);
    fetcher.resume(&of(0), 1, bounds(4), None, None);
    assert!(fetcher.truncating(at(0)).is_empty());
    let plan = fetcher.next_request(at(0), None).unwrap();
    assert_eq!(plan.items[0].fetch_offset, 4);
}

#[test]
fn an_exceeded_quota_holds_back_what_is_not_in_sync() {
    let mut fetcher = established(3);
    fetcher.resume(&of(1), 1, bounds(5), Some(1), Some(0));
    let throttled = |of: &TopicPartition| of.partition < 2;
    let plan = fetcher.next_request(at(1), Some(&throttled)).unwrap();
    // 0 is behind (as far as is known), 1 is in sync, 2 is not throttled.
    assert_eq!(plan.forgotten, [(of(0), id(1))]);
    assert_eq!(plan.items[0].topic_partition, of(1));
    assert!(fetcher.is_holding_back());
    fetcher.session_answered(SessionAnswer::Ok { session_id: 9 });
    let plan = fetcher.next_request(at(2), None).unwrap();
    assert_eq!(plan.items[0].topic_partition, of(0));
    assert!(!fetcher.is_holding_back());
}

/// Kafka's own numbers.
#[test]
fn partitions_are_spread_over_fetchers_as_kafka_does() {
    for (topic, fetcher) in [("", 1), ("a", 2), ("group", 1), ("polygenelubricants", 1)] {
        let topic_partition = TopicPartition::new(topic, 7);
        assert_eq!(fetcher_of(&topic_partition, 3), fetcher, "{topic}");
    }
}
