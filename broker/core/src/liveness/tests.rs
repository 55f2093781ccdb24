use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::control::{Endpoint, SecurityProtocol};

const PROBING: Probing = Probing {
    attempts: 3,
    interval: Duration::from_millis(60),
};
const SUSPECT: BrokerId = BrokerId(2);

fn seen(epoch: i64) -> Seen {
    Seen {
        registration: BrokerRegistration {
            id: SUSPECT,
            endpoints: vec![Endpoint {
                listener: "PLAINTEXT".to_owned(),
                security_protocol: SecurityProtocol::Plaintext,
                host: "h2".to_owned(),
                port: 9092,
            }],
            rack: None,
            jmx_port: -1,
            timestamp_ms: epoch,
            features: BTreeMap::new(),
            fast_failover: true,
        },
        epoch,
        version: 1,
        session: 100 + epoch,
    }
}

fn begin() -> Inquiry {
    let (inquiry, action) =
        Inquiry::begin(SUSPECT, "PLAINTEXT".to_owned(), PROBING, Duration::ZERO);
    assert_eq!(action, Action::Read);
    inquiry
}

/// Up to the point where only the registration has to be read once more.
fn refused_throughout() -> Inquiry {
    let mut inquiry = begin();
    let mut action = inquiry.read(Some(seen(1)), None);
    for attempt in 1..=PROBING.attempts {
        assert!(matches!(action, Action::Probe(_)), "{action:?}");
        action = inquiry.probed(Probe::Refused);
        if attempt < PROBING.attempts {
            assert_eq!(action, Action::Wait(PROBING.interval));
            action = inquiry.waited();
        }
    }
    assert_eq!(action, Action::Read);
    inquiry
}

#[test]
fn a_broker_that_refuses_every_time_is_removed() {
    let mut inquiry = refused_throughout();
    let expected = Action::Remove {
        registration_version: 1,
        seat_version: None,
    };
    assert_eq!(inquiry.read(Some(seen(1)), None), expected);
    assert_eq!(inquiry.removed(true), Action::Close(Verdict::Removed));
}

#[test]
fn the_seat_goes_with_its_session_only() {
    let seat = |session| {
        Some(SeatSeen {
            version: 4,
            session,
        })
    };
    let remove = |seat_version| Action::Remove {
        registration_version: 1,
        seat_version,
    };
    let mut inquiry = refused_throughout();
    assert_eq!(inquiry.read(Some(seen(1)), seat(101)), remove(Some(4)));
    // Somebody else took it in between.
    assert_eq!(inquiry.removed(false), Action::Read);
    assert_eq!(inquiry.read(Some(seen(1)), seat(7)), remove(None));
}

#[test]
fn one_answer_or_one_silence_ends_it() {
    for (probe, verdict) in [
        (Probe::Accepted, Verdict::Alive),
        (Probe::Silent, Verdict::Silent),
    ] {
        for refused_before in 0..PROBING.attempts {
            let mut inquiry = begin();
            inquiry.read(Some(seen(1)), None);
            for _ in 0..refused_before {
                inquiry.probed(Probe::Refused);
                inquiry.waited();
            }
            assert_eq!(inquiry.probed(probe), Action::Close(verdict));
        }
    }
}

#[test]
fn a_broker_that_does_not_ask_for_it_is_left_to_its_session() {
    let mut kafka = seen(1);
    kafka.registration.fast_failover = false;
    let left = Action::Close(Verdict::LeftToSession);
    assert_eq!(begin().read(Some(kafka), None), left);
    let mut elsewhere = seen(1);
    elsewhere.registration.endpoints[0].listener = "CLIENTS".to_owned();
    assert_eq!(begin().read(Some(elsewhere), None), left);
}

#[test]
fn a_new_registration_is_not_touched() {
    let gone = Action::Close(Verdict::Gone);
    assert_eq!(refused_throughout().read(Some(seen(2)), None), gone);
    assert_eq!(refused_throughout().read(None, None), gone);
    let mut changed = seen(1);
    changed.version = 2;
    assert_eq!(refused_throughout().read(Some(changed), None), gone);
    let mut inquiry = refused_throughout();
    inquiry.read(Some(seen(1)), None);
    assert_eq!(inquiry.removed(false), Action::Read);
    assert_eq!(inquiry.read(Some(seen(2)), None), gone);
}

#[test]
fn the_controller_goes_first_then_the_lowest_ids() {
    let ids = [1, 2, 3, 4].map(BrokerId);
    let step = PROBING.expected();
    let delays = |suspect, controller: Option<i32>, eligible: &[BrokerId]| {
        let order = eligible.iter().filter(|id| **id != suspect);
        let order = order.map(|own| {
            let waited = delay(*own, suspect, controller.map(BrokerId), eligible, PROBING);
            (waited.as_millis() / step.as_millis()) as usize
        });
        order.collect::<Vec<_>>()
    };
    // Brokers 1, 3 and 4.
    assert_eq!(delays(SUSPECT, Some(3), &ids), [1, 0, 2]);
    assert_eq!(delays(SUSPECT, Some(2), &ids), [0, 1, 2], "it is the seat");
    assert_eq!(delays(SUSPECT, None, &ids), [0, 1, 2]);
    assert_eq!(delays(SUSPECT, Some(9), &ids), [0, 1, 2], "a Kafka");
}

#[test]
fn the_controller_and_three_more_watch() {
    let ids: Vec<BrokerId> = (1..100).map(BrokerId).collect();
    let controller = Some(BrokerId(50));
    let watchers = ids.iter().filter(|id| is_watcher(**id, controller, &ids));
    let watchers: Vec<i32> = watchers.map(|id| id.0).collect();
    assert_eq!(watchers, [1, 2, 3, 50]);
}

/// What the world may answer.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Probe(Probe),
    Read { epoch: Option<i64>, asks: bool },
    Removed(bool),
}

fn turn() -> impl Strategy<Value = Turn> {
    let probe = prop_oneof![
        6 => Just(Probe::Refused),
        1 => Just(Probe::Accepted),
        1 => Just(Probe::Silent)
    ];
    prop_oneof![
        4 => probe.prop_map(Turn::Probe),
        3 => (proptest::option::weighted(0.9, 1..3i64), prop::bool::weighted(0.9))
            .prop_map(|(epoch, asks)| Turn::Read { epoch, asks }),
        1 => any::<bool>().prop_map(Turn::Removed),
    ]
}

proptest! {
    /// Whatever the world does, nothing is removed that was not refused every time under one registration.
    #[test]
    fn nothing_is_removed_without_proof(world in prop::collection::vec(turn(), 0..40)) {
        let (mut inquiry, mut action) =
            Inquiry::begin(SUSPECT, "PLAINTEXT".to_owned(), PROBING, Duration::from_millis(1));
        let mut world = world.into_iter();
        let (mut first, mut refused) = (None, 0);
        let mut last = None;
        loop {
            let next = world.by_ref();
            action = match action {
                Action::Wait(_) => inquiry.waited(),
                Action::Read => {
                    let mut reads = next.filter_map(|turn| match turn {
                        Turn::Read { epoch, asks } => Some((epoch, asks)),
                        Turn::Probe(_) | Turn::Removed(_) => None,
                    });
                    let Some((epoch, asks)) = reads.next() else { break };
                    let found = epoch.map(|epoch| {
                        let mut found = seen(epoch);
                        found.registration.fast_failover = asks;
                        found
                    });
                    first = first.or_else(|| found.clone());
                    last.clone_from(&found);
                    inquiry.read(found, None)
                }
                Action::Probe(_) => {
                    let mut probes = next.filter_map(|turn| match turn {
                        Turn::Probe(probe) => Some(probe),
                        Turn::Read { .. } | Turn::Removed(_) => None,
                    });
                    let Some(probe) = probes.next() else { break };
                    prop_assert!(refused < PROBING.attempts);
                    refused += u32::from(probe == Probe::Refused);
                    inquiry.probed(probe)
                }
                Action::Remove { .. } => {
                    prop_assert_eq!(refused, PROBING.attempts);
                    prop_assert_eq!(&first, &last);
                    prop_assert!(last.as_ref().is_some_and(|seen| seen.registration.fast_failover));
                    let mut results = next.filter_map(|turn| match turn {
                        Turn::Removed(is_removed) => Some(is_removed),
                        Turn::Read { .. } | Turn::Probe(_) => None,
                    });
                    let Some(is_removed) = results.next() else { break };
                    inquiry.removed(is_removed)
                }
                Action::Close(_) => break,
            };
        }
    }
}
