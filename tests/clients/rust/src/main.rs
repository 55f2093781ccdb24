//! rdkafka: librdkafka under Rust.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
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

/// Members of a group, and transactions.
impl Story {
    fn create(&self, topic: &str, partitions: i32) -> Outcome<()> {
        let admin: AdminClient<DefaultClientContext> = self.settings().create()?;
        let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let created = admin.create_topics([&wanted], &AdminOptions::new());
        for result in self.runtime.block_on(created)? {
            result.map_err(|(_, code)| code)?;
        }
        let consumer = self.consumer()?;
        until(|| {
            let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
            let found = &metadata.topics()[0];
            Ok(found.error().is_none() && found.partitions().len() == partitions as usize)
        })
    }

    fn send(&self, producer: &FutureProducer, topic: &str, values: &[i64]) -> Outcome<()> {
        let mut sent = Vec::new();
        for (at, value) in values.iter().enumerate() {
            let text = value.to_string();
            // Topics of groups have four partitions, the others one.
            let partition = if topic.ends_with("group") {
                at as i32 % 4
            } else {
                0
            };
            let message = FutureRecord::<(), String>::to(topic)
                .partition(partition)
                .payload(&text);
            sent.push(producer.send_result(message).map_err(|(error, _)| error)?);
        }
        for delivery in sent {
            let delivery = self.runtime.block_on(delivery)?;
            delivery.map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    /// A member that shares a topic of its group's name.
    fn member(&self, group: &str, strategy: &str) -> Outcome<BaseConsumer> {
        let consumer: BaseConsumer = self
            .settings()
            .set("group.id", group)
            .set("session.timeout.ms", "6000")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", strategy)
            .create()?;
        consumer.subscribe(&[group])?;
        Ok(consumer)
    }

    /// A member joins, dies in a process of its own, and nothing is missed or forgotten.
    fn share_in_group(&self, group: &str, strategy: &str) -> Outcome<()> {
        self.create(group, 4)?;
        let producer: FutureProducer = self.settings().create()?;
        let all = |from: i64, to: i64| (from..to).collect::<Vec<i64>>();
        self.send(&producer, group, &all(0, 40))?;
        let mut found = BTreeSet::new();
        let poll = |consumer: &BaseConsumer, found: &mut BTreeSet<i64>| -> Outcome<usize> {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                found.insert(value_of(&message?)?);
            }
            Ok(consumer.assignment()?.count())
        };
        let consumer = self.member(group, strategy)?;
        until(|| Ok(poll(&consumer, &mut found)? == 4))?;
        let mut other = Command::new(std::env::current_exe()?)
            .args([&self.address, group, strategy])
            .spawn()?;
        let shared = until(|| Ok(poll(&consumer, &mut found)? == 2));
        other.kill()?;
        other.wait()?;
        shared?;
        until(|| Ok(poll(&consumer, &mut found)? == 4))?;
        self.send(&producer, group, &all(40, 44))?;
        until(|| Ok(poll(&consumer, &mut found)? == 4 && found.len() == 44))?;
        consumer.commit_consumer_state(CommitMode::Sync)?;
        drop(consumer);

        let consumer = self.member(group, strategy)?;
        found.clear();
        self.send(&producer, group, &all(44, 48))?;
        until(|| Ok(poll(&consumer, &mut found)? == 4 && found.len() >= 4))?;
        equal(found.into_iter().collect(), all(44, 48))
    }

    fn be_member(&self, group: &str, strategy: &str) -> Outcome<()> {
        let consumer = self.member(group, strategy)?;
        loop {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                message?;
            }
        }
    }

    fn transactional(&self, id: &str) -> Outcome<FutureProducer> {
        let producer: FutureProducer = self
            .settings()
            .set("transactional.id", id)
            .set("linger.ms", "5")
            .create()?;
        producer.init_transactions(PATIENCE)?;
        Ok(producer)
    }

    /// All values that a reader of this isolation finds up to the end.
    fn values(&self, topic: &str, isolation: &str) -> Outcome<Vec<i64>> {
        let consumer: BaseConsumer = self
            .settings()
            .set("group.id", "unused")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", isolation)
            .create()?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&assignment)?;
        let mut found = Vec::new();
        loop {
            match consumer.poll(PATIENCE).ok_or("no end")? {
                Ok(message) => found.push(value_of(&message)?),
                Err(KafkaError::PartitionEOF(_)) => return Ok(found),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn abort(&self) -> Outcome<()> {
        let topic = "rdkafka-aborted";
        self.create(topic, 1)?;
        let producer = self.transactional("rdkafka-a")?;
        producer.begin_transaction()?;
        self.send(&producer, topic, &[1, 2, 3])?;
        equal(self.values(topic, "read_uncommitted")?, vec![1, 2, 3])?;
        equal(self.values(topic, "read_committed")?, vec![])?;
        producer.abort_transaction(PATIENCE)?;
        equal(self.values(topic, "read_uncommitted")?, vec![1, 2, 3])?;
        equal(self.values(topic, "read_committed")?, vec![])?;
        producer.begin_transaction()?;
        self.send(&producer, topic, &[4])?;
        producer.commit_transaction(PATIENCE)?;
        equal(self.values(topic, "read_committed")?, vec![4])
    }

    fn consume_process_produce(&self) -> Outcome<()> {
        let (input, output) = ("rdkafka-in", "rdkafka-out");
        self.create(input, 1)?;
        self.create(output, 1)?;
        let plain: FutureProducer = self.settings().create()?;
        self.send(&plain, input, &(0..30).collect::<Vec<i64>>())?;
        let producer = self.transactional("rdkafka-b")?;
        let (mut rounds, mut done) = (0, 0);
        while done < 30 {
            // Whoever comes after an abort begins at what was committed.
            let consumer = self.member(input, "range")?;
            loop {
                let mut values = Vec::new();
                until(|| {
                    if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                        values.push(1000 + value_of(&message?)?);
                    }
                    Ok(values.len() == 5)
                })?;
                producer.begin_transaction()?;
                self.send(&producer, output, &values)?;
                let group = consumer.group_metadata().ok_or("no group metadata")?;
                producer.send_offsets_to_transaction(&consumer.position()?, &group, PATIENCE)?;
                rounds += 1;
                if rounds % 3 == 0 {
                    producer.abort_transaction(PATIENCE)?;
                    break;
                }
                producer.commit_transaction(PATIENCE)?;
                done += 5;
                if done == 30 {
                    break;
                }
            }
        }
        equal(
            self.values(output, "read_committed")?,
            (1000..1030).collect(),
        )?;
        equal(
            self.values(output, "read_uncommitted")?.len(),
            5 * rounds as usize,
        )
    }

    fn fence(&self) -> Outcome<()> {
        let topic = "rdkafka-fenced";
        self.create(topic, 1)?;
        let zombie = self.transactional("rdkafka-c")?;
        zombie.begin_transaction()?;
        self.send(&zombie, topic, &[1])?;
        let producer = self.transactional("rdkafka-c")?;
        match zombie.commit_transaction(PATIENCE) {
            Err(KafkaError::Transaction(error)) if error.is_fatal() => {
                let code = error.code();
                let codes = [
                    RDKafkaErrorCode::Fenced,
                    RDKafkaErrorCode::InvalidProducerEpoch,
                ];
                if !codes.contains(&code) {
                    return Err(format!("{code:?}").into());
                }
            }
            other => return Err(format!("the zombie: {other:?}").into()),
        }
        producer.begin_transaction()?;
        self.send(&producer, topic, &[2])?;
        producer.commit_transaction(PATIENCE)?;
        equal(self.values(topic, "read_committed")?, vec![2])
    }
}

fn value_of(message: &impl Message) -> Outcome<i64> {
    Ok(std::str::from_utf8(message.payload().ok_or("no value")?)?.parse()?)
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
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    if let [group, strategy] = &arguments[..] {
        return story.be_member(group, strategy);
    }
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
    check("group", story.share_in_group("rdkafka-group", "range"));
    let cooperative = ("rdkafka-cooperative-group", "cooperative-sticky");
    check(
        "cooperative group",
        story.share_in_group(cooperative.0, cooperative.1),
    );
    check("abort", story.abort());
    check("consume process produce", story.consume_process_produce());
    check("fence", story.fence());
    std::process::exit(i32::from(failed))
}
