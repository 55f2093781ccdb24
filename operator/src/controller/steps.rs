//! Carrying out steps: one request for many topics.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use barnabas_core::balance::{self, Placer};
use barnabas_core::ids::{BrokerId, TopicId, TopicName};

use super::batcher::Batcher;
use super::failure::{Failure, Tried};
use crate::admin::{
    AdminError, Answer, ConfigChanges, CreatedTopic, ItemError, Layout, NewPartitions, NewTopic,
};
use crate::cluster::{Cluster, TopicView};
use crate::metrics::Metrics;
use crate::moves::Mover;
use crate::resource::RackSpread;
use crate::topic::plan::Desired;

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

fn spread_of(spread: RackSpread) -> balance::RackSpread {
    match spread {
        RackSpread::Preferred => balance::RackSpread::Preferred,
        RackSpread::Required => balance::RackSpread::Required,
    }
}

/// Placed here, one after another, so that each knows of those before.
fn new_topic(desired: Desired, placer: Option<&mut Placer>) -> NewTopic {
    let counts = || Layout::Counts {
        partitions: desired.partitions.unwrap_or(-1),
        replication_factor: desired.replicas.map_or(-1, |count| count as i16),
    };
    let layout = match (desired.partitions, desired.replicas, placer) {
        (Some(partitions), Some(replicas), Some(placer)) => {
            let spread = spread_of(desired.rack_spread);
            let placed = placer.place_topic(partitions, replicas as i16, spread);
            // What cannot be placed, for want of room perhaps, is placed or refused by Kafka.
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

pub(super) fn creator(
    cluster: &Cluster,
    mover: &Arc<OnceLock<Mover>>,
    metrics: &Arc<Metrics>,
) -> Batcher<Desired, CreatedTopic> {
    let cluster = cluster.clone();
    let mover = mover.clone();
    Batcher::spawn(
        "CreateTopics",
        metrics.clone(),
        move |wishes: Vec<Desired>| {
            let cluster = cluster.clone();
            let mut placer = mover.get().map(|mover| mover.placer(&cluster.view()));
            async move {
                let wishes = wishes.into_iter();
                let topics: Vec<NewTopic> =
                    wishes.map(|one| new_topic(one, placer.as_mut())).collect();
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

/// Partitions from what there is to `total`, on brokers of the planner's choice.
pub(super) fn new_partitions(
    placer: Option<Placer>,
    topic: &TopicView,
    total: i32,
    spread: RackSpread,
) -> NewPartitions {
    let existing: Vec<Vec<BrokerId>> = topic
        .partitions
        .iter()
        .map(|one| one.replicas.clone())
        .collect();
    let added = total - existing.len() as i32;
    let replicas = existing.first().map_or(1, Vec::len) as i16;
    let placed = placer.and_then(|mut placer| {
        let spread = spread_of(spread);
        placer
            .place_partitions(&existing, added, replicas, spread)
            .ok()
    });
    NewPartitions {
        topic: topic.name.clone(),
        total,
        assignments: placed.unwrap_or_default(),
    }
}
