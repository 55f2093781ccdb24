//! A topic that is created, written to and deleted, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use barnabas_broker::files::Files as _;
use barnabas_core::ids::{BrokerId, TopicPartition};
use barnabas_core::records::{BatchBuilder, Compression};
use barnabas_core::znodes::{DeletionMarker, TopicAssignment};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{DeleteTopicsRequest, ProduceRequest};
use rand::Rng as _;

use super::clients::{Client, Progress, name};
use super::{World, log_dirs};

const TOPIC: &str = "fleeting";
const PARTITIONS: i32 = 2;
/// How often something is tried before the next thing is.
const ATTEMPTS: u32 = 20;

/// Whether topics of that name come and go.
pub(crate) fn topic_is_recreated(topic: &str) -> bool {
    topic == TOPIC
}

/// Which records are in which incarnation of the topic.
#[derive(Default)]
pub(crate) struct Recreations {
    /// Records that were given up and may come to a later incarnation: a request names the topic only.
    late: BTreeSet<Bytes>,
    /// The incarnation, by the number of the topic that its client has created.
    incarnations: BTreeMap<u64, String>,
}

impl Recreations {
    fn given_up(&mut self, value: &Bytes) {
        self.late.insert(value.clone());
    }

    /// A record is below the high watermark of an incarnation.
    pub(crate) fn committed(&mut self, incarnation: &str, value: &Bytes) -> Result<(), String> {
        let Some(number) = number_of(value).filter(|_| !self.late.contains(value)) else {
            return Ok(());
        };
        let known = self.incarnations.entry(number);
        let known = known.or_insert_with(|| incarnation.to_owned());
        if known == incarnation {
            return Ok(());
        }
        Err(format!(
            "DeletedRecordsStayDeleted: {value:?} is in {incarnation}, and belongs to {known}"
        ))
    }
}

fn value_of(number: u64, record: u64) -> Bytes {
    format!("fleeting-{number}/{record}").into()
}

fn number_of(value: &Bytes) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let (number, _) = text.strip_prefix("fleeting-")?.split_once('/')?;
    number.parse().ok()
}

/// Creates the topic, writes to it, deletes it and waits until nobody knows it any more.
pub(crate) async fn create_and_delete(mut client: Client, replicas: i16, progress: Arc<Progress>) {
    let mut number = 0;
    while progress.goes_on() {
        number += 1;
        client.create_topic(TOPIC, PARTITIONS, replicas).await;
        for record in 0..client.random.random_range(0..6) {
            write(&mut client, value_of(number, record)).await;
        }
        client.pause(500).await;
        delete(&mut client).await;
        progress.step();
    }
    progress.has_stopped.store(true, Ordering::SeqCst);
}

async fn write(client: &mut Client, value: Bytes) {
    let partition = client.random.random_range(0..PARTITIONS);
    let partition = TopicPartition::new(TOPIC, partition);
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(client.network.wall_clock_ms(), None, Some(&value), &[]);
    let data = PartitionProduceData::default()
        .with_index(partition.partition)
        .with_records(Some(batch.build()));
    let topic = TopicProduceData::default()
        .with_name(name(TOPIC))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(1_000)
        .with_topic_data(vec![topic]);
    for _ in 0..ATTEMPTS {
        client.refresh().await;
        let Some(leader) = client.known_leader(&partition) else {
            client.pause(100).await;
            continue;
        };
        let Ok(response) = client.call(leader, 9, &request).await else {
            let checks = client.network.checks.clone();
            checks.recreations(|known| known.given_up(&value));
            return;
        };
        let topic = response.responses.first();
        let answer = topic.and_then(|topic| topic.partition_responses.first());
        if answer.is_some_and(|answer| answer.error_code == 0) {
            return;
        }
    }
}

async fn delete(client: &mut Client) {
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![name(TOPIC)])
        .with_timeout_ms(3_000);
    loop {
        let broker = client.any_broker();
        if let Ok(response) = client.call(broker, 4, &request).await {
            let code = response
                .responses
                .first()
                .map_or(-1, |topic| topic.error_code);
            if code == ResponseError::UnknownTopicOrPartition.code() {
                break;
            }
            client
                .network
                .trace
                .note(&format!("{} delete topic: {code}", client.node));
        }
        client.pause(300).await;
    }
    client.forget(TOPIC);
}

/// What is left of a topic that is deleted, or missing of one that is not.
pub(crate) fn leftover(world: &World) -> Option<String> {
    let marked = world.ensemble.node(&DeletionMarker::path(TOPIC));
    if marked.is_some() {
        return Some(format!("{TOPIC} is being deleted"));
    }
    let topic = world.ensemble.node(&TopicAssignment::path(TOPIC));
    let topic = topic.and_then(|(data, _)| TopicAssignment::decode(&data?).ok());
    let is_assigned = |node: i32, partition: i32| {
        let partition = topic.as_ref()?.partitions.get(&partition)?;
        Some(partition.replicas.contains(&BrokerId(node)))
    };
    let state = world.state();
    for (node, machine) in &state.machines {
        let run = machine.run.as_ref();
        let Some(assembled) = run.and_then(|run| run.assembled.as_ref()) else {
            return Some(format!("broker {node} does not run"));
        };
        let hosted = assembled.broker.replicas.partitions();
        let stray = hosted.iter().find(|partition| {
            let of = &partition.topic_partition;
            *of.topic == *TOPIC && is_assigned(*node, of.partition) != Some(true)
        });
        if let Some(stray) = stray {
            return Some(format!("{node} hosts {}", stray.topic_partition));
        }
        let directories = log_dirs(*node, world.plan.log_dirs);
        let entries = directories.iter().flat_map(|directory| {
            let entries = machine.memory.list(Path::new(directory));
            entries.unwrap_or_default()
        });
        for entry in entries {
            let entry = entry.name;
            let of = entry
                .strip_prefix(TOPIC)
                .and_then(|of| of.strip_prefix('-'));
            let number = of.and_then(|of| of.parse().ok());
            if of.is_some() && number.is_none_or(|number| is_assigned(*node, number) != Some(true))
            {
                return Some(format!("{node} keeps {entry}"));
            }
        }
    }
    None
}
