//! The log cleaner: a log whose keys have several values each is cleaned by one thread.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use barnabas_core::records::{BatchBuilder, Compression};
use barnabas_tests::broker::BrokerKind;
use barnabas_tests::wait;
use barnabas_tests::wire::WireClient;
use barnabas_tests::zookeeper_server::ZooKeeperServer;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, IncrementalAlterConfigsRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::report::Figure;
use crate::stages::{GIB, MIB, Sizes, cost, one_broker};

const TOPIC: &str = "dirty";
const SEGMENT_BYTES: u64 = 64 << 20;
/// Values of a key, on average.
const VALUES_A_KEY: u64 = 8;
const VALUE_BYTES: usize = 180;
/// About what a batch of 16 KiB, a producer's default, holds.
const RECORDS_A_BATCH: usize = 80;
const PATIENCE: Duration = Duration::from_secs(600);

/// Fills a log that may not be cleaned, permits that, and watches.
pub(crate) fn run(
    kind: BrokerKind,
    sizes: &Sizes,
    note: &mut impl FnMut(Figure, f64),
) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let zookeeper = ZooKeeperServer::start()?;
    let options = one_broker(kind, directory.path(), &zookeeper)
        .with("log.cleaner.backoff.ms", 100)
        .with("log.cleaner.threads", 1);
    let mut broker = options.start()?;
    let mut client = WireClient::connect(&broker.address())?;
    // Warm up on a log of its own, or the first second of a virtual machine is what is measured.
    for (topic, bytes) in [("warm-up", sizes.dirty / 4), (TOPIC, sizes.dirty)] {
        create(&mut client, topic)?;
        let dirty = fill(&mut client, topic, bytes.max(2 * SEGMENT_BYTES))?;
        // The files of the load are written by now, or their cost would be the cleaner's.
        std::thread::sleep(Duration::from_secs(2));
        let checkpoint = options.log_dir().join("cleaner-offset-checkpoint");
        let start = Instant::now();
        let (cpu, ()) = cost(&mut broker, || {
            permit_cleaning(&mut client, topic)?;
            let line = format!("{topic} 0 ");
            let done = wait::until(PATIENCE, || {
                let text = fs::read_to_string(&checkpoint).ok()?;
                text.lines()
                    .any(|found| found.starts_with(&line))
                    .then_some(())
            });
            ensure!(done.is_some(), "{topic} is not cleaned");
            Ok(())
        })?;
        if topic == TOPIC {
            let seconds = start.elapsed().as_secs_f64();
            note(Figure::CleanerCpu, cpu / (dirty as f64 / GIB));
            note(Figure::CleanerThroughput, dirty as f64 / MIB / seconds);
        }
    }
    broker.stop()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn create(client: &mut WireClient, topic: &str) -> Result<()> {
    let segment_bytes = SEGMENT_BYTES.to_string();
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", &segment_bytes),
        // Not even a log that is dirty throughout.
        ("min.cleanable.dirty.ratio", "1.0"),
    ];
    let configs = configs.map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(topic)))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.to_vec());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(30_000);
    let answer = client.request(&request, 5)?;
    ensure!(answer.topics[0].error_code == 0, "{answer:?}");
    Ok(())
}

fn permit_cleaning(client: &mut WireClient, topic: &str) -> Result<()> {
    let config = AlterableConfig::default()
        .with_name(text("min.cleanable.dirty.ratio"))
        .with_config_operation(0)
        .with_value(Some(text("0.01")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.request(&request, 1)?;
    ensure!(answer.responses[0].error_code == 0, "{answer:?}");
    Ok(())
}

/// Sends about so many bytes, and gives back how many of them are below the active segment.
fn fill(client: &mut WireClient, topic: &str, bytes: u64) -> Result<u64> {
    let mut random = 1_u64;
    let keys = bytes / (VALUE_BYTES as u64 + 30) / VALUES_A_KEY;
    let mut sent = 0;
    let mut of_segment = 0;
    let mut dirty = 0;
    while sent < bytes {
        let mut batch = BatchBuilder::new(Compression::None);
        for _ in 0..RECORDS_A_BATCH {
            // Knuth's generator, the same for both brokers.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let key = format!("key-{:012}", (random >> 33) % keys);
            let value = [b'v'; VALUE_BYTES];
            batch.push(1_700_000_000_000, Some(key.as_bytes()), Some(&value), &[]);
        }
        let batch = batch.build();
        let size = batch.len() as u64;
        let partition = PartitionProduceData::default().with_records(Some(batch));
        let data = TopicProduceData::default()
            .with_name(TopicName(text(topic)))
            .with_partition_data(vec![partition]);
        let request = ProduceRequest::default()
            .with_acks(1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![data]);
        let answer = client.request(&request, 7)?;
        let code = answer.responses[0].partition_responses[0].error_code;
        // The leader of a new topic may not have heard of it.
        if [3, 6].contains(&code) && sent == 0 {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        ensure!(code == 0, "producing: {code}");
        sent += size;
        of_segment += size;
        if of_segment > SEGMENT_BYTES {
            dirty += of_segment - size;
            of_segment = size;
        }
    }
    Ok(dirty)
}
