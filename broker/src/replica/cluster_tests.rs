//! Replication between whole brokers, on paused time: nothing acknowledged is lost, and replicas are equal byte
//! for byte.

pub(super) mod cluster;
mod golden;

use std::future::Future;
use std::time::Duration;

use barnabas_core::controller::IsrRefusal;
use barnabas_core::ids::BrokerId;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use cluster::{Cluster, TOPIC, produce_to};

use super::partition::following::LeaderData;
use crate::clock;
use crate::host::SimulatedHost;

const NONE: i16 = 0;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
const REQUEST_TIMED_OUT: i16 = 7;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;

/// Runs a story in a world with a clock of its own.
pub(super) async fn world<F: Future>(story: F) -> F::Output {
    SimulatedHost::boot("b1", 1, 1_700_000_000_000)
        .run(story)
        .await
}

fn isr(cluster: &Cluster) -> Vec<i32> {
    let leadership = cluster.leadership();
    leadership.isr.iter().map(|id| id.0).collect()
}

#[tokio::test(start_paused = true)]
async fn acks_all_waits_for_the_followers() {
    world(async {
        let cluster = Cluster::new(3, &[]);
        assert_eq!(cluster.produce(1, -1, &["a", "b"]).await, (NONE, 0));
        for id in 1..=3 {
            assert_eq!(cluster.log(id).log_end_offset(), 2, "broker {id}");
        }
        cluster.settled().await;
        // A member of the ISR that does not fetch holds the answer back.
        cluster.set_cut(3, 1, true);
        let (error, _) = cluster.produce(1, -1, &["c"]).await;
        // 60 s are longer than replica.lag.time.max.ms: 3 was dropped meanwhile.
        assert_eq!(error, NONE);
        assert_eq!(isr(&cluster), [1, 2]);
        assert_eq!(cluster.log(3).log_end_offset(), 2);
        cluster.set_cut(3, 1, false);
        cluster
            .until("3 is back in the ISR", || isr(&cluster) == [1, 2, 3])
            .await;
        cluster.settled().await;
        let metrics = &cluster.broker(1).broker.metrics;
        assert_eq!(
            (metrics.isr_shrinks.get(), metrics.isr_expands.get()),
            (1, 1)
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_else_had_is_cut_off_after_a_fail_over() {
    world(async {
        let cluster = Cluster::new(3, &[]);
        assert_eq!(cluster.produce(1, -1, &["a", "b"]).await, (NONE, 0));
        for id in [2, 3] {
            cluster.set_cut(id, 1, true);
        }
        assert_eq!(
            cluster.produce(1, 1, &["lost 1", "lost 2"]).await,
            (NONE, 2)
        );
        assert_eq!(cluster.produce(1, 1, &["lost 3"]).await, (NONE, 4));
        // 1 does not hear of its successor for a while.
        cluster.set_cut(1, 2, true);
        cluster.elect(2, &[2, 3]);
        assert_eq!(cluster.produce(2, -1, &["c"]).await, (NONE, 2));
        assert_eq!(cluster.log(1).log_end_offset(), 5);
        cluster.set_cut(1, 2, false);
        cluster
            .until("1 is back in the ISR", || isr(&cluster) == [2, 3, 1])
            .await;
        cluster.settled().await;
        let values: Vec<_> = cluster
            .values(1)
            .into_iter()
            .map(|(_, value)| value)
            .collect();
        assert_eq!(values, ["a", "b", "c"]);
        assert_eq!(cluster.epochs(1).len(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_comes_back_as_a_follower() {
    world(async {
        let mut cluster = Cluster::new(3, &[]);
        for number in 0..20 {
            let value = number.to_string();
            assert_eq!(cluster.produce(1, -1, &[&value]).await, (NONE, number));
        }
        cluster.set_cut(2, 1, true);
        cluster.set_cut(3, 1, true);
        assert_eq!(cluster.produce(1, 1, &["lost"]).await.0, NONE);
        cluster.kill(1);
        cluster.elect(2, &[2, 3]);
        assert_eq!(cluster.produce(2, -1, &["after"]).await, (NONE, 20));
        cluster.start(1);
        cluster.tell_leader(1);
        cluster
            .until("1 is back in the ISR", || isr(&cluster) == [2, 3, 1])
            .await;
        cluster.settled().await;
        assert_eq!(cluster.values(1)[20], (20, "after".to_owned()));
    })
    .await;
}

/// The last answer of a fetcher that was ended (`num.replica.fetchers`) may come after its successor has asked.
#[tokio::test(start_paused = true)]
async fn an_answer_for_another_place_in_the_log_does_not_end_the_following() {
    world(async {
        let cluster = Cluster::new(2, &[]);
        assert_eq!(cluster.produce(1, -1, &["a", "b"]).await, (NONE, 0));
        cluster.settled().await;
        let records = Bytes::from(cluster.bytes(1));
        let stale = LeaderData {
            leader_epoch: cluster.leadership().leader_epoch,
            fetch_offset: 0,
            records: &records,
            high_watermark: 2,
            log_start_offset: 0,
        };
        let place = cluster
            .partition(2)
            .append_from_leader(&stale, clock::now());
        assert_eq!(place.map(|place| place.bounds.log_end_offset).ok(), Some(2));
        assert_eq!(cluster.values(2), cluster.values(1));
        assert_eq!(cluster.produce(1, -1, &["c"]).await, (NONE, 2));
        assert_eq!(cluster.values(2).len(), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_producer_is_told_when_leadership_is_lost() {
    world(async {
        let cluster = Cluster::new(2, &[]);
        cluster.set_cut(2, 1, true);
        let waiting = cluster.produce(1, -1, &["a"]);
        let election = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.elect(2, &[2]);
        };
        let ((error, _), ()) = tokio::join!(waiting, election);
        assert_eq!(error, NOT_LEADER_OR_FOLLOWER);
        assert_eq!(
            cluster.produce(1, 1, &["b"]).await.0,
            NOT_LEADER_OR_FOLLOWER
        );
        cluster.settled().await;
        assert_eq!(cluster.log(1).log_end_offset(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn too_few_in_sync_replicas_refuse_writes() {
    world(async {
        let mut cluster = Cluster::new(3, &[("min.insync.replicas", "2")]);
        assert_eq!(cluster.produce(1, -1, &["a"]).await, (NONE, 0));
        for id in [2, 3] {
            cluster.kill(id);
        }
        // Both leave the ISR while this waits, and the high watermark stands still below the minimum.
        let (error, offset) = cluster.produce(1, -1, &["b"]).await;
        assert!(
            matches!(error, REQUEST_TIMED_OUT | NOT_ENOUGH_REPLICAS_AFTER_APPEND),
            "{error}"
        );
        assert_eq!(offset, 1);
        assert_eq!(isr(&cluster), [1]);
        assert_eq!(cluster.produce(1, -1, &["c"]).await.0, NOT_ENOUGH_REPLICAS);
        assert_eq!(cluster.produce(1, 1, &["d"]).await, (NONE, 2));
        assert_eq!(cluster.partition(1).high_watermark(), 1);
        cluster.start(2);
        cluster.tell_leader(2);
        cluster
            .until("2 is back in the ISR", || isr(&cluster) == [1, 2])
            .await;
        cluster.settled().await;
        assert_eq!(cluster.partition(1).high_watermark(), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_change_is_tried_again_and_an_outdated_one_waits() {
    world(async {
        let cluster = Cluster::new(2, &[("replica.lag.time.max.ms", "1000")]);
        cluster.produce(1, -1, &["a"]).await;
        *cluster.seat.refuse.lock().unwrap() = Some(IsrRefusal::IneligibleReplica);
        cluster.set_cut(2, 1, true);
        cluster.produce(1, 1, &["b"]).await;
        let asked = || *cluster.seat.asked.lock().unwrap();
        cluster.until("it is asked again", || asked() >= 3).await;
        *cluster.seat.refuse.lock().unwrap() = Some(IsrRefusal::InvalidUpdateVersion);
        let before = asked();
        cluster
            .until("it is asked again", || asked() > before)
            .await;
        let before = asked();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(asked(), before, "the controller has news that it will send");
        // The news.
        *cluster.seat.refuse.lock().unwrap() = None;
        cluster.elect(1, &[1, 2]);
        cluster.until("2 is out", || isr(&cluster) == [1]).await;
        cluster.set_cut(2, 1, false);
        cluster.until("2 is back", || isr(&cluster) == [1, 2]).await;
        cluster.settled().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_far_behind_begins_at_the_leaders_start() {
    world(async {
        let mut cluster = Cluster::new(2, &[]);
        assert_eq!(cluster.produce(1, -1, &["a", "b"]).await, (NONE, 0));
        cluster.settled().await;
        cluster.kill(2);
        cluster.elect(1, &[1]);
        assert_eq!(
            cluster.produce(1, -1, &["c", "d", "e", "f"]).await,
            (NONE, 2)
        );
        assert_eq!(cluster.produce(1, -1, &["g"]).await, (NONE, 6));
        // In the middle of the second batch: what is served begins before the follower's start.
        assert_eq!(cluster.partition(1).delete_records(4), Ok(4));
        cluster.start(2);
        cluster.tell_leader(2);
        cluster
            .until("2 is back in the ISR", || isr(&cluster) == [1, 2])
            .await;
        let (log, copy) = (cluster.log(1), cluster.log(2));
        cluster
            .until("logs begin and end alike", || {
                copy.log_start_offset() == log.log_start_offset()
                    && copy.log_end_offset() == log.log_end_offset()
            })
            .await;
        assert_eq!(copy.log_start_offset(), 4);
        assert_eq!(cluster.bytes(2), cluster.bytes(1));
        cluster
            .until("the low watermark has come", || {
                cluster.partition(1).low_watermark() == Ok(4)
            })
            .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unclean_leader_with_less_makes_the_others_shorter() {
    world(async {
        let mut cluster = Cluster::new(3, &[]);
        cluster.produce(1, -1, &["a"]).await;
        cluster.settled().await;
        cluster.kill(3);
        cluster.elect(1, &[1, 2]);
        cluster.produce(1, -1, &["b", "c"]).await;
        cluster.settled().await;
        // 3 missed b and c, and leads all the same.
        cluster.start(3);
        cluster.elect(3, &[3]);
        cluster.settled().await;
        assert_eq!(cluster.values(1), [(0, "a".to_owned())]);
        assert_eq!(cluster.produce(3, -1, &["d"]).await, (NONE, 1));
        cluster.settled().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_replica_fetches_no_more() {
    world(async {
        let cluster = Cluster::new(2, &[]);
        cluster.produce(1, -1, &["a"]).await;
        cluster.settled().await;
        cluster.stop_replica(2, false);
        cluster.produce(1, 1, &["b"]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.log(2).log_end_offset(), 1);
        cluster.elect(1, &[1, 2]);
        cluster.settled().await;
        cluster.stop_replica(2, true);
        let requests = cluster.requests();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.requests(), requests);
        assert!(
            cluster
                .broker(2)
                .broker
                .replicas
                .partition(TOPIC, 0)
                .is_err()
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_follower_asks_twice_a_second() {
    world(async {
        let cluster = Cluster::new(2, &[]);
        cluster.produce(1, -1, &["a"]).await;
        cluster.settled().await;
        let before = cluster.requests();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(cluster.requests() - before <= 121);
        // Nobody leaves the ISR for being idle.
        assert_eq!(isr(&cluster), [1, 2]);
    })
    .await;
}

/// Random elections, crashes and cut cables: what was acknowledged with acks=all stays, once and in
/// order, and in the end all replicas are equal.
#[tokio::test(start_paused = true)]
async fn acknowledged_records_survive_whatever_happens() {
    // 122 once left a follower's high watermark behind for good.
    for seed in [0, 1, 2, 3, 4, 5, 6, 7, 122] {
        eprintln!("seed {seed}");
        world(survive(seed, &[])).await;
    }
}

/// Before 2.7 a leader does not say in its answer where logs part: followers ask for the ends of epochs first.
#[tokio::test(start_paused = true)]
async fn acknowledged_records_survive_under_older_inter_broker_protocols() {
    for version in ["2.6", "1.1"] {
        for seed in 0..5 {
            eprintln!("{version}, seed {seed}");
            world(survive(seed, &[("inter.broker.protocol.version", version)])).await;
        }
    }
}

/// More and fewer fetchers while records come in: all of them arrive once, and nobody leaves the ISR.
#[tokio::test(start_paused = true)]
async fn the_number_of_fetchers_changes_while_they_fetch() {
    world(async {
        let cluster = Cluster::new(2, &[]);
        let mut expected = Vec::new();
        for (round, fetchers) in [3, 8, 1, 5, 2].into_iter().enumerate() {
            cluster.set_broker_setting(2, "num.replica.fetchers", &fetchers.to_string());
            for half in ["a", "b"] {
                let value = format!("{round}{half}");
                let (error, offset) = cluster.produce(1, -1, &[&value]).await;
                assert_eq!(error, NONE);
                expected.push((offset, value));
                if half == "a" {
                    cluster.set_broker_setting(2, "num.replica.fetchers", "7");
                }
            }
        }
        cluster.settled().await;
        assert_eq!(cluster.values(2), expected);
        assert_eq!(isr(&cluster), [1, 2]);
        let counts = cluster.broker(2).broker.replicas.fetchers().counts();
        assert_eq!((counts.fetchers, counts.failed_partitions), (1, 0));
    })
    .await;
}

async fn survive(seed: u64, settings: &[(&'static str, &'static str)]) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut all = vec![
        ("min.insync.replicas", "2"),
        ("replica.lag.time.max.ms", "2000"),
        ("log.segment.bytes", "600"),
    ];
    all.extend(settings);
    let mut cluster = Cluster::new(3, &all);
    let mut acknowledged: Vec<(i64, String)> = Vec::new();
    for step in 0..60 {
        let leader = cluster.leadership().leader;
        match random.random_range(0..10) {
            0..=4 if cluster.is_up(leader) => {
                let node = cluster.node(leader);
                let value = format!("{seed}.{step}");
                let acks = if random.random_bool(0.7) { -1 } else { 1 };
                let patience = Duration::from_millis(random.random_range(1..3_000));
                let values = [value.as_str()];
                let produced = produce_to(&node, acks, &values);
                if let Ok((NONE, offset)) = tokio::time::timeout(patience, produced).await
                    && acks == -1
                {
                    acknowledged.push((offset, value));
                }
            }
            5 => {
                let (from, to) = (random.random_range(1..=3), random.random_range(1..=3));
                cluster.set_cut(from, to, random.random_bool(0.5));
            }
            6 => {
                let id = random.random_range(1..=3);
                if cluster.is_up(id) {
                    if (1..=3).filter(|id| cluster.is_up(*id)).count() > 1 {
                        cluster.kill(id);
                    }
                } else {
                    cluster.start(id);
                    cluster.tell_leader(id);
                }
            }
            7 | 8 => elect_somebody(&cluster, &mut random),
            _ => {
                let pause = random.random_range(0..4_000);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }
    for from in 1..=3 {
        for to in 1..=3 {
            cluster.set_cut(from, to, false);
        }
        if !cluster.is_up(from) {
            cluster.start(from);
        }
    }
    elect_somebody(&cluster, &mut random);
    cluster
        .until("all are in sync", || isr(&cluster).len() == 3)
        .await;
    cluster.settled().await;
    let values = cluster.values(1);
    for record in &acknowledged {
        assert!(values.contains(record), "seed {seed}: {record:?} is gone");
    }
    let count = values.len();
    let mut distinct: Vec<_> = values.into_iter().map(|(_, value)| value).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(
        distinct.len(),
        count,
        "seed {seed}: something is there twice"
    );
    // Hardly ever is everything down or cut off from the first step on.
    tracing::debug!(seed, acknowledged = acknowledged.len(), "survived");
}

/// What a controller does: a live member of the ISR leads, the dead leave the ISR (but not the last one).
fn elect_somebody(cluster: &Cluster, random: &mut StdRng) {
    let known = cluster.leadership().isr;
    let live: Vec<BrokerId> = known
        .iter()
        .copied()
        .filter(|id| cluster.is_up(id.0))
        .collect();
    if let Some(leader) = live.choose(random) {
        let live: Vec<i32> = live.iter().map(|id| id.0).collect();
        cluster.elect(leader.0, &live);
    }
}
