//! Carrying out steps: one request for many topics.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::{BrokerId, TopicId, TopicName};

use super::batcher::Batcher;
use super::failure::{Failure, Tried};
use crate::admin::{
    AdminError, Answer, ConfigChanges, CreatedTopic, ItemError, Layout, NewPartitions, NewTopic,
    Reassign,
};
use crate::cluster::{Cluster, TopicView};
use crate::metrics::Metrics;
use crate::topic::placement::Brokers;
use crate::topic::plan::Desired;

/// Reassignments of users' topics that run at a time.
const MOVES_AT_ONCE: usize = 50;

type Results<O> = (Vec<Result<O, Failure>>, Duration);

fn results<O>(
    tried: Tried,
    count: usize,
    answer: Result<Answer<Vec<Result<O, ItemError>>>, AdminError>,
) -> Results<O> {
    match answer {
        Ok(answer) => {
            let items = answer.value.into_iter();
            let items = items.map(|item| item.map_err(|error| Failure::of_item(tried, &error)));
            (items.collect(), answer.throttle)
        }
        Err(error) => {
            let failures = (0..count).map(|_| Err(Failure::of_request(&error)));
            (failures.collect(), Duration::ZERO)
        }
    }
}

/// Placed here, one after another, so that each knows of those before.
fn new_topic(desired: Desired, brokers: &mut Brokers) -> NewTopic {
    let counts = || Layout::Counts {
        partitions: desired.partitions.unwrap_or(-1),
        replication_factor: desired.replicas.map_or(-1, |count| count as i16),
    };
    let layout = match (desired.partitions, desired.replicas) {
        (Some(partitions), Some(replicas)) => {
            let placed = brokers.place(0, partitions, replicas as i16, None);
            // What cannot be placed is refused by Kafka in its own words.
            placed.map_or_else(|_| counts(), Layout::Assignments)
        }
        _ => counts(),
    };
    NewTopic {
        name: desired.name.as_str().into(),
        layout,
        configs: desired.config,
    }
}

pub(super) fn creator(cluster: &Cluster, metrics: &Arc<Metrics>) -> Batcher<Desired, CreatedTopic> {
    let cluster = cluster.clone();
    Batcher::spawn(
        "CreateTopics",
        metrics.clone(),
        move |wishes: Vec<Desired>| {
            let cluster = cluster.clone();
            async move {
                let mut brokers = Brokers::new(&cluster.view(), &[]);
                let wishes = wishes.into_iter();
                let topics: Vec<NewTopic> =
                    wishes.map(|one| new_topic(one, &mut brokers)).collect();
                let answer = cluster.admin().create_topics(&topics).await;
                results(Tried::Create, topics.len(), answer)
            }
        },
    )
}

pub(super) fn deleter(cluster: &Cluster, metrics: &Arc<Metrics>) -> Batcher<TopicId, ()> {
    let admin = cluster.admin().clone();
    Batcher::spawn("DeleteTopics", metrics.clone(), move |ids: Vec<TopicId>| {
        let admin = admin.clone();
        async move { results(Tried::Delete, ids.len(), admin.delete_topics(&ids).await) }
    })
}

pub(super) fn grower(cluster: &Cluster, metrics: &Arc<Metrics>) -> Batcher<NewPartitions, ()> {
    let admin = cluster.admin().clone();
    Batcher::spawn(
        "CreatePartitions",
        metrics.clone(),
        move |wishes: Vec<NewPartitions>| {
            let admin = admin.clone();
            async move {
                let answer = admin.create_partitions(&wishes).await;
                results(Tried::AddPartitions, wishes.len(), answer)
            }
        },
    )
}

pub(super) fn configurer(cluster: &Cluster, metrics: &Arc<Metrics>) -> Batcher<ConfigChanges, ()> {
    let admin = cluster.admin().clone();
    let op = "IncrementalAlterConfigs";
    Batcher::spawn(op, metrics.clone(), move |wishes: Vec<ConfigChanges>| {
        let admin = admin.clone();
        async move {
            let answer = admin.incremental_alter_configs(&wishes).await;
            let answer = answer.map(|value| Answer {
                value,
                throttle: Duration::ZERO,
            });
            results(Tried::AlterConfig, wishes.len(), answer)
        }
    })
}

pub(super) fn looker(cluster: &Cluster, metrics: &Arc<Metrics>) -> Batcher<TopicName, ()> {
    let cluster = cluster.clone();
    Batcher::spawn(
        "Describe",
        metrics.clone(),
        move |mut names: Vec<TopicName>| {
            let cluster = cluster.clone();
            async move {
                let count = names.len();
                names.sort();
                names.dedup();
                let failure = match cluster.refresh_topics(&names).await {
                    Ok(_) => None,
                    // Nothing was to be done, so nothing may have happened.
                    Err(error) if error.may_have_happened() => {
                        Some(Failure::transient(error.to_string()))
                    }
                    Err(error) => Some(Failure::of_request(&error)),
                };
                let answers = (0..count).map(|_| failure.clone().map_or(Ok(()), Err));
                (answers.collect(), Duration::ZERO)
            }
        },
    )
}

/// Partitions from what there is to `total`, on brokers of our choice.
pub(super) fn new_partitions(cluster: &Cluster, topic: &TopicView, total: i32) -> NewPartitions {
    let mut brokers = Brokers::new(&cluster.view(), &[]);
    let first = topic.partitions.len() as i32;
    let replicas = topic.partitions.first().map_or(1, |one| one.replicas.len());
    let placed = brokers.place(first, total - first, replicas as i16, Some(topic));
    let assignments: Vec<Vec<BrokerId>> = placed.unwrap_or_default();
    NewPartitions {
        topic: topic.name.clone(),
        total,
        assignments,
    }
}

/// Asks for other replicas of as many partitions as may move now; how many that were.
pub(super) async fn change_replicas(
    cluster: &Cluster,
    topic: &TopicView,
    wanted: usize,
) -> Result<usize, Failure> {
    let view = cluster.view();
    let room = MOVES_AT_ONCE.saturating_sub(view.reassignments.len());
    let mut brokers = Brokers::new(&view, &[]);
    let changes = brokers.change_replicas(&view, topic, wanted);
    let wave: Vec<Reassign> = changes
        .into_iter()
        .take(room)
        .map(|(partition, replicas)| Reassign {
            partition,
            target: Some(replicas),
        })
        .collect();
    if wave.is_empty() {
        return Ok(0);
    }
    let answer = cluster.admin().alter_partition_reassignments(&wave).await;
    let refused = answer.map_err(|error| Failure::of_request(&error))?;
    match refused.values().next() {
        None => Ok(wave.len()),
        Some(error) => Err(Failure::of_item(Tried::Reassign, error)),
    }
}
