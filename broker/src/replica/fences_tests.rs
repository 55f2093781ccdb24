//! Each fence on its own: what the past says to a broker changes nothing. In a cluster a second fence mostly stands
//! behind each of these, so that only a test of the one shows that it holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use barnabas_core::control::{
    ControlError, ControlHeader, ControlRequest, LeaderAndIsr, StopReplica, StopReplicaPartition,
    UpdateMetadata,
};
use barnabas_core::ids::{BrokerId, TopicPartition};
use bytes::Bytes;

use super::cluster_tests::cluster::{Cluster, TOPIC};
use super::cluster_tests::world;
use super::partition::following::{FollowError, LeaderData};
use crate::api::testing::{TestBroker, header};
use crate::clock;
use crate::replica::PartitionError;

const NONE: i16 = 0;

/// Everything that a controller may order, with this header and for no partition.
fn orders(header: &ControlHeader) -> [ControlRequest; 3] {
    [
        ControlRequest::LeaderAndIsr(LeaderAndIsr {
            header: *header,
            partitions: Vec::new(),
            live_leaders: Vec::new(),
        }),
        ControlRequest::UpdateMetadata(UpdateMetadata {
            header: *header,
            partitions: Arc::new([]),
            live_brokers: Arc::new([]),
        }),
        ControlRequest::StopReplica(StopReplica {
            header: *header,
            partitions: Vec::new(),
        }),
    ]
}

#[test]
fn orders_for_a_registration_of_the_past_are_refused() {
    let broker = TestBroker::new();
    let replicas = &broker.broker.replicas;
    replicas.broker_epoch().store(9, Ordering::SeqCst);
    let with_epoch = |broker_epoch| ControlHeader {
        broker_epoch,
        ..header()
    };
    for order in orders(&with_epoch(8)) {
        let refused = Err(ControlError::StaleBrokerEpoch);
        assert_eq!(replicas.obey(&order).result, refused, "{order:?}");
    }
    for order in orders(&with_epoch(9)) {
        assert_eq!(replicas.obey(&order).result, Ok(()), "{order:?}");
    }
}

#[test]
fn orders_of_a_controller_of_the_past_are_refused() {
    let broker = TestBroker::new();
    let replicas = &broker.broker.replicas;
    let with_epoch = |controller_epoch| ControlHeader {
        controller_epoch,
        ..header()
    };
    for later in orders(&with_epoch(7)) {
        assert_eq!(replicas.obey(&later).result, Ok(()));
        for order in orders(&with_epoch(6)) {
            let refused = Err(ControlError::StaleControllerEpoch);
            assert_eq!(replicas.obey(&order).result, refused, "{order:?}");
        }
    }
}

#[test]
fn a_replica_is_not_stopped_by_an_order_from_before_its_epoch() {
    let broker = TestBroker::new();
    let us = broker.broker.broker_id.0;
    broker.lead("t", 0, None, 5, &[us], &[us]);
    let stop = |leader_epoch| {
        let request = StopReplica {
            header: header(),
            partitions: vec![StopReplicaPartition {
                topic_partition: TopicPartition::new("t", 0),
                leader_epoch,
                delete: true,
            }],
        };
        let outcome = broker.broker.replicas.apply_stop_replica(&request);
        outcome.partitions[0].1
    };
    assert_eq!(stop(4), Err(ControlError::FencedLeaderEpoch));
    assert!(broker.broker.replicas.partition("t", 0).is_ok());
    assert_eq!(stop(5), Ok(()));
    assert!(broker.broker.replicas.partition("t", 0).is_err());
}

/// What stands at the offset now was written by another leader: whoever waits is not told that it is safe.
#[tokio::test(start_paused = true)]
async fn a_write_is_not_acknowledged_by_a_leadership_that_was_lost_and_regained() {
    world(async {
        let cluster = Cluster::new(2, &[]);
        cluster.set_cut(2, 1, true);
        let epoch = cluster.leadership().leader_epoch;
        assert_eq!(cluster.produce(1, 1, &["ours"]).await, (NONE, 0));
        let partition = cluster.partition(1);
        assert_eq!(partition.replicated(1, epoch), None);
        cluster.elect(2, &[2]);
        assert_eq!(cluster.produce(2, -1, &["theirs"]).await, (NONE, 0));
        cluster
            .until("1 has followed", || {
                cluster.values(1) == [(0, "theirs".to_owned())]
            })
            .await;
        cluster.elect(1, &[1]);
        assert!(partition.high_watermark() >= 1);
        let told = partition.replicated(1, epoch);
        assert_eq!(told, Some(Err(PartitionError::NotLeaderOrFollower)));
        let told = partition.replicated(1, epoch + 2);
        assert_eq!(told, Some(Ok(())));
    })
    .await;
}

/// A fetch that was read under an epoch of the past says nothing of a log that may have been cut since.
#[tokio::test(start_paused = true)]
async fn a_fetch_from_a_leader_of_the_past_commits_nothing() {
    world(async {
        let cluster = Cluster::new(2, &[]);
        let before = cluster.leadership().leader_epoch;
        cluster.set_cut(2, 1, true);
        cluster.elect(1, &[1, 2]);
        assert_eq!(cluster.produce(1, 1, &["a"]).await, (NONE, 0));
        let partition = cluster.partition(1);
        let fetched = |epoch| {
            partition.follower_fetched(BrokerId(2), epoch, 1, 0, 1, clock::now());
            partition.high_watermark()
        };
        assert_eq!(fetched(before), 0);
        assert_eq!(fetched(before + 1), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_leader_of_the_past_is_not_appended() {
    world(async {
        let cluster = Cluster::new(2, &[]);
        cluster.set_cut(2, 1, true);
        assert_eq!(cluster.produce(1, 1, &["a"]).await, (NONE, 0));
        let records = Bytes::from(cluster.bytes(1));
        let epoch = cluster.leadership().leader_epoch;
        cluster.elect(1, &[1, 2]);
        let follower = cluster.partition(2);
        let append = |leader_epoch| {
            let answer = LeaderData {
                leader_epoch,
                fetch_offset: 0,
                records: &records,
                high_watermark: 1,
                log_start_offset: 0,
            };
            follower.append_from_leader(&answer, clock::now())
        };
        assert!(matches!(append(epoch), Err(FollowError::NotFollowing)));
        let cut = follower.truncate_as_follower(epoch, 0, clock::now());
        assert!(matches!(cut, Err(FollowError::NotFollowing)));
        assert_eq!(cluster.log(2).log_end_offset(), 0);
        assert!(append(epoch + 1).is_ok());
        assert_eq!(cluster.log(2).log_end_offset(), 1);
    })
    .await;
}

/// Followers see where logs part by where an epoch began, even if it has no batch yet (KIP-101).
#[tokio::test(start_paused = true)]
async fn an_epoch_begins_before_its_first_batch() {
    world(async {
        let cluster = Cluster::new(2, &[]);
        assert_eq!(cluster.produce(1, -1, &["a", "b"]).await, (NONE, 0));
        cluster.settled().await;
        let epoch = cluster.leadership().leader_epoch;
        // 1 gets a record that nobody else has, and loses the partition.
        cluster.set_cut(2, 1, true);
        assert_eq!(cluster.produce(1, 1, &["lost"]).await, (NONE, 2));
        cluster.set_cut(1, 2, true);
        cluster.elect(2, &[2]);
        let ends = cluster.partition(2).local_epoch_end(epoch);
        assert_eq!(ends, Some((epoch, 2)));
        cluster.set_cut(1, 2, false);
        cluster
            .until("1 has cut its log", || cluster.log(1).log_end_offset() == 2)
            .await;
        assert_eq!(cluster.partition(1).topic_partition.topic.as_ref(), TOPIC);
    })
    .await;
}

/// Who may be in the ISR by now is waited for, though it has not fetched since.
#[tokio::test(start_paused = true)]
async fn who_was_proposed_for_the_isr_is_waited_for() {
    world(async {
        let cluster = Cluster::new(2, &[("replica.lag.time.max.ms", "1000")]);
        cluster.set_cut(2, 1, true);
        cluster.elect(1, &[1]);
        let partition = cluster.partition(1);
        let epoch = cluster.leadership().leader_epoch;
        // The controller's answer does not come, and 2 falls silent.
        *cluster.seat.refuse.lock().unwrap() =
            Some(barnabas_core::controller::IsrRefusal::InvalidUpdateVersion);
        partition.follower_fetched(BrokerId(2), epoch, 0, 0, 0, clock::now());
        assert!(partition.pending_isr_change().is_some());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.produce(1, 1, &["a"]).await, (NONE, 0));
        assert_eq!(partition.high_watermark(), 0);
    })
    .await;
}
