//! rdkafka: librdkafka under Rust.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const COUNT: i64 = 100;
const SPLIT: i64 = 40;
const PATIENCE: Duration = Duration::from_secs(20);

/// Offset, timestamp, key, value and header of a record; one key and one value are null.
type Record = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

fn record(base_time: i64, i: i64) -> Record {
    let key = (i != 3).then(|| format!("key-{i}").into_bytes());
    let value = (i != 5).then(|| format!("value-{i} {}", "x".repeat(i as usize)).into_bytes());
    (
        i,
        base_time + 1000 * i,
        key,
        value,
        format!("h{i}").into_bytes(),
    )
}

fn equal<T: PartialEq + Debug>(found: T, wanted: T) -> Outcome<()> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("found {found:?}, wanted {wanted:?}").into())
}

struct Story {
    address: String,
    base_time: i64,
    runtime: tokio::runtime::Runtime,
}

impl Story {
    fn settings(&self) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.address);
        settings
    }

    fn consumer(&self) -> Outcome<BaseConsumer> {
        Ok(self
            .settings()
            .set("group.id", "unused")
            .set("enable.auto.commit", "false")
            .create()?)
    }

    fn consume(&self, topic: &str, offset: Offset) -> Outcome<Vec<Record>> {
        let consumer = self.consumer()?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, 0, offset)?;
        consumer.assign(&assignment)?;
        let mut found: Vec<Record> = Vec::new();
        while found.last().is_none_or(|last| last.0 < COUNT - 1) {
            let message = consumer.poll(PATIENCE).ok_or("nothing more")??;
            found.push((
                message.offset(),
                message.timestamp().to_millis().unwrap_or(-1),
                message.key().map(<[u8]>::to_vec),
                message.payload().map(<[u8]>::to_vec),
                message
                    .headers()
                    .and_then(|all| all.get(0).value)
                    .unwrap_or_default()
                    .to_vec(),
            ));
        }
        Ok(found)
    }

    fn produce_and_consume(&self, topic: &str, settings: &[(&str, &str)]) -> Outcome<()> {
        let mut all = self.settings();
        for (key, value) in settings {
            all.set(*key, *value);
        }
        let producer: FutureProducer = all.set("linger.ms", "5").create()?;
        let expected: Vec<Record> = (0..COUNT).map(|i| record(self.base_time, i)).collect();
        let mut sent = Vec::new();
        for (_, timestamp, key, value, header) in &expected {
            let headers = OwnedHeaders::new().insert(Header {
                key: "header",
                value: Some(header),
            });
            let mut message = FutureRecord::to(topic)
                .partition(0)
                .timestamp(*timestamp)
                .headers(headers);
            message.key = key.as_ref();
            message.payload = value.as_ref();
            sent.push(producer.send_result(message).map_err(|(error, _)| error)?);
        }
        for (i, delivery) in (0..).zip(sent) {
            let delivery = self
                .runtime
                .block_on(delivery)?
                .map_err(|(error, _)| error)?;
            equal(delivery.offset, i)?;
        }

        let split = SPLIT as usize;
        equal(self.consume(topic, Offset::Beginning)?, expected.clone())?;
        equal(
            self.consume(topic, Offset::Offset(SPLIT))?,
            expected[split..].to_vec(),
        )?;
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(topic, 0, Offset::Offset(expected[split].1))?;
        let found = self.consumer()?.offsets_for_times(times, PATIENCE)?;
        let offset = found
            .find_partition(topic, 0)
            .ok_or("no offset for the time")?
            .offset();
        equal(offset, Offset::Offset(SPLIT))?;
        equal(self.consume(topic, offset)?, expected[split..].to_vec())
    }

    fn administrate(&self) -> Outcome<()> {
        let topic = "rdkafka-admin";
        let admin: AdminClient<DefaultClientContext> = self.settings().create()?;
        let options = AdminOptions::new();
        let consumer = self.consumer()?;
        let partitions = || -> Outcome<usize> {
            let metadata = consumer.fetch_metadata(None, PATIENCE)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            Ok(found.map_or(0, |found| found.partitions().len()))
        };
        let retention = || -> Outcome<Option<String>> {
            let resource = [ResourceSpecifier::Topic(topic)];
            let mut configs = self
                .runtime
                .block_on(admin.describe_configs(&resource, &options))?;
            let config = configs.remove(0).map_err(|code| code.to_string())?;
            Ok(config
                .get("retention.ms")
                .and_then(|entry| entry.value.clone()))
        };

        let wanted =
            NewTopic::new(topic, 2, TopicReplication::Fixed(1)).set("retention.ms", "7200000");
        let created = self
            .runtime
            .block_on(admin.create_topics([&wanted], &options))?;
        created
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|(_, code)| code)?;
        until(|| Ok(partitions()? == 2))?;
        until(|| Ok(retention()?.as_deref() == Some("7200000")))?;

        let change =
            AlterConfig::new(ResourceSpecifier::Topic(topic)).set("retention.ms", "3600000");
        let changed = self
            .runtime
            .block_on(admin.alter_configs([&change], &options))?;
        changed
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|(_, code)| code)?;
        until(|| Ok(retention()?.as_deref() == Some("3600000")))?;

        let more = NewPartitions::new(topic, 4);
        let made = self
            .runtime
            .block_on(admin.create_partitions([&more], &options))?;
        made.into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|(_, code)| code)?;
        until(|| Ok(partitions()? == 4))?;

        let producer: FutureProducer = self.settings().create()?;
        for _ in 0..10 {
            let message = FutureRecord::<(), str>::to(topic)
                .partition(3)
                .payload("value");
            let sent = producer.send_result(message).map_err(|(error, _)| error)?;
            self.runtime.block_on(sent)?.map_err(|(error, _)| error)?;
        }
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, 3, Offset::Offset(7))?;
        self.runtime
            .block_on(admin.delete_records(&before, &options))?;
        equal(consumer.fetch_watermarks(topic, 3, PATIENCE)?, (7, 10))?;

        let deleted = self
            .runtime
            .block_on(admin.delete_topics(&[topic], &options))?;
        deleted
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|(_, code)| code)?;
        until(|| Ok(partitions()? == 0))
    }
}

fn until(mut condition: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition()? {
        if Instant::now() > deadline {
            return Err("still not so".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let story = Story {
        address: std::env::args()
            .nth(1)
            .ok_or("usage: rdkafka-client HOST:PORT")?,
        base_time: now - 3_600_000,
        runtime: tokio::runtime::Runtime::new()?,
    };
    let mut failed = false;
    let mut check = |name: &str, outcome: Outcome<()>| match outcome {
        Ok(()) => println!("PASS {name}"),
        Err(error) => {
            failed = true;
            println!("FAIL {name}: {error}");
        }
    };
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let settings = [("compression.type", codec)];
        check(
            codec,
            story.produce_and_consume(&format!("rdkafka-{codec}"), &settings),
        );
    }
    let settings = [("enable.idempotence", "true")];
    check(
        "idempotent",
        story.produce_and_consume("rdkafka-idempotent", &settings),
    );
    check("admin", story.administrate());
    std::process::exit(i32::from(failed))
}
