//! A topic that is compacted while it is written to and read: some keys, each with one value after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use barnabas_broker::log::PartitionLog;
use barnabas_core::ids::{Offset, TopicPartition};
use barnabas_core::records::{BatchBuilder, Compression, batches, records};
use bytes::Bytes;
use rand::Rng as _;
use tokio::time::timeout;

use super::World;
use super::clients::{Client, Progress, fetch_records, send};

/// The topic whose offsets have gaps.
pub(crate) const TOPIC: &str = "compacted";
pub(crate) const PARTITIONS: i32 = 2;
const KEYS: u64 = 6;
/// How long a reader has to come from the beginning to the end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much of a log is read at once.
const READ_BYTES: usize = 1 << 20;

/// For each key the last offset and value.
pub(crate) type Latest = BTreeMap<Bytes, (Offset, Bytes)>;

/// Settings of brokers whose cleaners are never idle for long.
pub(crate) fn settings() -> [(&'static str, &'static str); 6] {
    [
        ("log.cleaner.backoff.ms", "700"),
        ("log.cleaner.min.cleanable.ratio", "0.01"),
        ("log.cleaner.dedupe.buffer.size", "2000000"),
        ("log.cleaner.io.buffer.size", "65536"),
        ("offsets.topic.segment.bytes", "1500"),
        ("transaction.state.log.segment.bytes", "1500"),
    ]
}

/// Whether a cleaner may have taken records out of a topic.
pub(crate) fn may_have_gaps(topic: &str) -> bool {
    topic == TOPIC || topic.starts_with("__")
}

pub(crate) fn partitions() -> Vec<TopicPartition> {
    let numbers = 0..PARTITIONS;
    numbers
        .map(|number| TopicPartition::new(TOPIC, number))
        .collect()
}

/// The `number`th value that a producer gives to a key of a partition.
fn value_of(client: &Client, key: u64, number: u64) -> Bytes {
    format!("{}/k{key}/{number}", client.node).into()
}

/// The key of a value.
pub(crate) fn key_of(value: &Bytes) -> Option<Bytes> {
    let end = value.iter().rposition(|byte| *byte == b'/')?;
    Some(value.slice(..end))
}

/// Gives keys new values, and reads now and then which they have.
pub(crate) async fn write_and_read(mut client: Client, replicas: i16, progress: Arc<Progress>) {
    let configs = [("cleanup.policy", "compact")];
    client
        .create_topic_with(TOPIC, PARTITIONS, replicas, &configs)
        .await;
    let (producer_id, producer_epoch) = client.producer_id().await;
    let partitions = partitions();
    let mut sent = vec![0_u64; partitions.len()];
    while progress.goes_on() {
        let index = client.random.random_range(0..partitions.len());
        let (partition, first) = (&partitions[index], sent[index]);
        let count = client.random.random_range(1..=5_u64);
        let now_ms = client.network.wall_clock_ms();
        let builder = BatchBuilder::new(Compression::None);
        let mut batch = builder.producer(producer_id, producer_epoch, first as i32);
        let mut values = Vec::new();
        for number in first..first + count {
            let key = client.random.random_range(0..KEYS);
            let value = value_of(&client, key, number);
            let key = key_of(&value).unwrap_or_default();
            batch.push(now_ms, Some(&key), Some(&value), &[]);
            values.push(value);
        }
        let Some(offset) = send(&mut client, partition, &batch.build(), &progress).await else {
            break;
        };
        let checks = client.network.checks.clone();
        for (at, value) in (offset..).zip(values) {
            checks.acknowledged(&client.network.trace, partition, at, value);
        }
        sent[index] = first + count;
        if client.random.random_bool(0.1) {
            // Who does not come to the end has seen nothing.
            let _ = timeout(PATIENCE, read(&mut client, partition)).await;
        }
        progress.step();
        client.pause(60).await;
    }
    progress.has_stopped.store(true, Ordering::SeqCst);
}

/// Reads a partition from its beginning on. Whatever has been committed until then, the reader has to learn of every
/// key the value that was the last, or a later one.
async fn read(client: &mut Client, partition: &TopicPartition) {
    let checks = client.network.checks.clone();
    let expected = checks.latest_values(partition);
    let end = checks.committed_end(partition);
    let (mut position, mut seen) = (0, Latest::new());
    while position < end {
        let Some(records) = fetch_records(client, partition, position).await else {
            client.refresh().await;
            client.pause(200).await;
            continue;
        };
        position = records.next;
        for (offset, value) in records.values {
            checks.consumed(&client.network.trace, partition, offset, &value);
            if let Some(key) = key_of(&value) {
                seen.insert(key, (offset, value));
            }
        }
    }
    if let Some(lost) = missing(&expected, &seen) {
        let reader = format!("a reader of {partition}");
        client.violated(&format!("LatestValuesStay: {reader} does not see {lost}"));
    }
}

/// A value that `seen` lacks, though nothing later has come for its key.
pub(crate) fn missing(expected: &Latest, seen: &Latest) -> Option<String> {
    let lost = expected.iter().find(|(key, (offset, _))| {
        let found = seen.get(*key);
        found.is_none_or(|(found, _)| found < offset)
    });
    lost.map(|(key, (offset, value))| {
        let found = seen.get(key);
        format!("{value:?}, which is at {offset}, but {found:?}")
    })
}

/// A replica that lacks the latest value of a key, once everybody has everything.
pub(crate) fn lost(world: &World) -> Option<String> {
    partitions().iter().find_map(|partition| {
        let expected = world.checks.latest_values(partition);
        world
            .checks
            .replicas(partition)
            .into_iter()
            .find_map(|(node, seen)| match seen {
                Ok(seen) => {
                    let lost = missing(&expected, &seen)?;
                    Some(format!("{partition} on {node} lacks {lost}"))
                }
                Err(error) => Some(format!("{partition} on {node}: {error}")),
            })
    })
}

/// The latest value of each key in a log.
pub(crate) fn latest_of(log: &PartitionLog) -> Result<Latest, Box<dyn std::error::Error>> {
    let mut latest = Latest::new();
    walk(log, |offset, value| {
        if let Some(key) = key_of(&value) {
            latest.insert(key, (offset, value));
        }
    })?;
    Ok(latest)
}

/// Shows all records of a log, by offset and value.
pub(crate) fn walk(
    log: &PartitionLog,
    mut show: impl FnMut(Offset, Bytes),
) -> Result<(), Box<dyn std::error::Error>> {
    let (mut position, end) = (log.log_start_offset(), log.log_end_offset());
    while position < end {
        let bytes = log.read(position, READ_BYTES, end, true)?.read_all()?;
        let before = position;
        let walk = batches(&bytes);
        for batch in walk.clone() {
            let Ok((place, meta)) = batch else { break };
            for record in records(&bytes.slice_ref(walk.slice(place, &meta)))? {
                let record = record?;
                show(record.offset, record.value.unwrap_or_default());
            }
            position = meta.last_offset + 1;
        }
        if position == before {
            // All that was there is compacted.
            break;
        }
    }
    Ok(())
}
