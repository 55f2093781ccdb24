//! One cluster of Apache Kafka 3.9.1 and ours: who leads, who follows and who controls is on either side.

use anyhow::{Context, Result, ensure};
use barnabas_tests::broker::BrokerKind::{Barnabas, Kafka};
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::verify::{TopicPlan, Verifier, create_topic};
use barnabas_tests::wire::WireClient;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use rustix::process::Signal;

use super::{
    ALL, PATIENCE, PROGRESS, REQUEST_TIMEOUT, TOPIC, all_in_sync, alone, exactly_once, rounds,
    settle, verifier,
};

const PARTITIONS: i32 = 3;
const MOVED: &str = "moved";

fn options(options: ClusterOptions) -> ClusterOptions {
    exactly_once::with_internal_replicas(options)
        .with("zookeeper.session.timeout.ms", 6000)
        .with("replica.lag.time.max.ms", 3000)
        .with("auto.leader.rebalance.enable", false)
        .with("log.segment.bytes", 256 * 1024)
}

/// Stops controllers until one of these brokers is it.
fn make_controller(cluster: &mut Cluster, wanted: &[i32]) -> Result<()> {
    for _ in 0..12 {
        let controller = cluster.controller()?;
        if wanted.contains(&controller) {
            return Ok(());
        }
        cluster.stop(controller)?;
        cluster.start_broker(controller)?;
        all_in_sync(cluster)?;
    }
    anyhow::bail!("none of {wanted:?} became controller")
}

/// Moves the only replica of a topic to that broker and waits until it is there.
fn move_to(cluster: &Cluster, id: i32) -> Result<()> {
    let partition = ReassignablePartition::default()
        .with_partition_index(0)
        .with_replicas(Some(vec![BrokerId(id)]));
    let topic = ReassignableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(MOVED)))
        .with_partitions(vec![partition]);
    let request = AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(10_000)
        .with_topics(vec![topic]);
    let controller = cluster.controller()?;
    let address = &cluster.bootstrap()[controller as usize - 1];
    let answer = WireClient::connect(address)?.request(&request, 0)?;
    let result = answer.responses.first();
    let result = result.and_then(|topic| topic.partitions.first());
    let code = result.map_or(answer.error_code, |partition| partition.error_code);
    ensure!(code == 0, "moving to {id}: error code {code}, {answer:?}");
    cluster.view().wait_for(MOVED, PATIENCE, |partitions| {
        partitions.get(&0).is_some_and(|view| {
            view.replicas == [id] && view.leader.as_ref().is_some_and(|leader| leader.id == id)
        })
    })?;
    Ok(())
}

/// Every segment of every partition is the same on all brokers. To be called when nothing is written any more.
fn logs_are_equal(cluster: &Cluster) -> Result<()> {
    all_in_sync(cluster)?;
    for partition in 0..PARTITIONS {
        // Replicas may roll segments at different offsets: Kafka does so by time and size of each.
        let first = cluster.segments(1, TOPIC, partition)?;
        ensure!(!first.is_empty(), "partition {partition} is empty");
        for id in [2, 3] {
            let other = cluster.segments(id, TOPIC, partition)?;
            let same = first.iter().zip(&other).take_while(|(a, b)| a == b).count();
            ensure!(
                first == other,
                "partition {partition}: broker {id} has {} bytes, broker 1 {}; they differ from byte {same} on",
                other.len(),
                first.len()
            );
        }
    }
    Ok(())
}

/// `kill -9`, and a new start once the others have noticed.
fn kill_and_start(cluster: &mut Cluster, verifier: &Verifier, id: i32) -> Result<()> {
    cluster.kill(id);
    verifier.wait_for_progress(PROGRESS, PATIENCE)?;
    let mut others = cluster.view_without(id);
    others.wait_for(TOPIC, PATIENCE, |partitions| {
        partitions.values().all(|view| !view.isr.contains(&id))
    })?;
    // Apache Kafka does not start while its old session lives.
    cluster.wait_until_unregistered(id, PATIENCE)?;
    cluster.start_broker(id)?;
    all_in_sync(cluster)
}

/// Kills, freezes, moves: with the controller that there is.
fn hurt_everybody(cluster: &mut Cluster, verifier: &Verifier) -> Result<()> {
    move_to(cluster, 3)?;
    move_to(cluster, 1)?;
    for id in [3, 1] {
        cluster.signal(id, Signal::STOP);
        let shrunk = cluster
            .view_without(id)
            .wait_for(TOPIC, PATIENCE, |partitions| {
                partitions.values().all(|view| !view.isr.contains(&id))
            });
        cluster.signal(id, Signal::CONT);
        shrunk?;
        all_in_sync(cluster)?;
    }
    let controller = cluster.controller()?;
    for id in [3, if controller == 1 { 2 } else { 1 }] {
        if id != controller {
            kill_and_start(cluster, verifier, id)?;
        }
    }
    verifier.wait_for_progress(PROGRESS, PATIENCE)
}

#[test]
fn two_kafkas_and_one_of_ours_are_one_cluster() {
    let _alone = alone();
    let mut cluster =
        Cluster::start(&options(ClusterOptions::of(&[Kafka, Kafka, Barnabas]))).unwrap();
    let plan = TopicPlan {
        name: MOVED.to_owned(),
        assignment: vec![vec![1]],
        configs: Vec::new(),
    };
    create_topic(&cluster.bootstrap(), &plan, PATIENCE).unwrap();
    let verifier = verifier(&cluster, PARTITIONS, REQUEST_TIMEOUT);
    let mut story = || -> Result<()> {
        make_controller(&mut cluster, &[1, 2])?;
        hurt_everybody(&mut cluster, &verifier).context("the controller is Kafka")?;
        make_controller(&mut cluster, &[3])?;
        hurt_everybody(&mut cluster, &verifier).context("the controller is ours")?;
        // The controllers themselves, one of each.
        for _ in 0..2 {
            let controller = cluster.controller()?;
            kill_and_start(&mut cluster, &verifier, controller)?;
        }
        verifier.wait_for_progress(PROGRESS, PATIENCE)
    };
    let story = story();
    settle(&cluster, verifier, story);
    logs_are_equal(&cluster).unwrap();
}

#[test]
fn a_kafka_cluster_is_replaced_broker_by_broker_and_back() {
    let _alone = alone();
    let mut cluster = Cluster::start(&options(ClusterOptions::of(&[Kafka; 3]))).unwrap();
    let verifier = verifier(&cluster, PARTITIONS, REQUEST_TIMEOUT);
    // For those who have the time: three Java brokers are work enough for a small machine.
    let mut java = (rounds() > 1).then(|| exactly_once::start(&cluster).unwrap());
    let mut story = || -> Result<()> {
        for kind in [Barnabas, Kafka] {
            for id in ALL {
                cluster.stop(id)?;
                verifier.wait_for_progress(PROGRESS, PATIENCE)?;
                if let Some(java) = &mut java {
                    exactly_once::at_work(java)?;
                }
                cluster.options(id).kind = kind;
                cluster.start_broker(id)?;
                all_in_sync(&cluster).with_context(|| format!("broker {id} is {kind:?} now"))?;
                verifier.wait_for_progress(PROGRESS, PATIENCE)?;
                if let Some(java) = &mut java {
                    exactly_once::in_sync(&cluster)?;
                    exactly_once::at_work(java)?;
                }
            }
        }
        Ok(())
    };
    let mut story = story();
    if let Some(java) = java
        && story.is_ok()
    {
        story = java.stop().map(|said| eprintln!("{said}"));
    }
    settle(&cluster, verifier, story);
    logs_are_equal(&cluster).unwrap();
}
