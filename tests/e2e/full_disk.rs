//! A real file system runs full under a load with acks=all. Its log directory goes offline, the other one
//! serves on, and once there is space the broker goes on with everything that it had acknowledged.

use std::fs;
use std::time::Duration;

use barnabas_core::records::{BatchBuilder, Compression, batches, records};
use barnabas_tests::broker::{BrokerKind, BrokerOptions};
use barnabas_tests::small_disk::SmallDisk;
use barnabas_tests::wait;
use barnabas_tests::wire::WireClient;
use barnabas_tests::zookeeper_server::ZooKeeperServer;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, FetchRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

const SMALL_MIB: u32 = 8;
const ENOUGH_MIB: u32 = 256;
const RECORD_BYTES: usize = 100_000;
/// Far more than fits.
const RECORDS_MAX: i64 = 1000;
const KAFKA_STORAGE_ERROR: i16 = 56;
const PATIENCE: Duration = Duration::from_secs(60);

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn create(client: &mut WireClient, topic: &str) {
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(30_000);
    let response = client.request(&request, 5).unwrap();
    assert_eq!(response.topics[0].error_code, 0);
}

/// Sends one record and returns (error code, offset).
fn produce(client: &mut WireClient, topic: &str, number: i64) -> (i16, i64) {
    let mut value = vec![b'x'; RECORD_BYTES];
    value[..8].copy_from_slice(&number.to_be_bytes());
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(1_700_000_000_000, None, Some(&value), &[]);
    let partition = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(builder.build()));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![partition]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(20_000)
        .with_topic_data(vec![topic]);
    let response = client.request(&request, 8).unwrap();
    let answer = &response.responses[0].partition_responses[0];
    (answer.error_code, answer.base_offset)
}

/// Fetches from `offset` on: the error code, and (offset, number) of what was read.
fn fetch(client: &mut WireClient, topic: &str, offset: i64) -> (i16, Vec<(i64, i64)>) {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let response = client.request(&request, 11).unwrap();
    let answer = &response.responses[0].partitions[0];
    let mut found = Vec::new();
    let bytes = answer.records.clone().unwrap_or_default();
    for batch in batches(&bytes) {
        let Ok((position, meta)) = batch else { break };
        let batch = bytes.slice(position..position + meta.size_in_bytes);
        for record in records(&batch).unwrap() {
            let record = record.unwrap();
            let number = record.value.unwrap()[..8].try_into().unwrap();
            found.push((record.offset, i64::from_be_bytes(number)));
        }
    }
    (answer.error_code, found)
}

#[test]
fn a_full_disk_takes_one_directory_and_nothing_acknowledged() {
    let zookeeper = ZooKeeperServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (small, large) = (
        directory.path().join("small"),
        directory.path().join("large"),
    );
    fs::create_dir(&small).unwrap();
    let disk = match SmallDisk::mount(&small, SMALL_MIB) {
        Ok(disk) => disk,
        Err(error) => {
            println!("cannot make a small disk here: {error:#}");
            return;
        }
    };
    let mut options = BrokerOptions::new(directory.path(), &zookeeper.connect()).with(
        "log.dirs",
        format!("{},{}", small.display(), large.display()),
    );
    options.launcher = disk.launcher();
    let broker = options.start().unwrap();
    let mut client = WireClient::connect(&broker.address()).unwrap();
    // The directory with the fewest logs is taken, the first of several.
    for topic in ["full", "roomy"] {
        create(&mut client, topic);
    }
    assert!(disk.seen_from_outside(&small).join("full-0").is_dir());
    assert!(large.join("roomy-0").is_dir());

    let mut acknowledged = Vec::new();
    let mut refused = None;
    for number in 0..RECORDS_MAX {
        match produce(&mut client, "full", number) {
            (0, offset) => acknowledged.push((offset, number)),
            (error, _) => {
                refused = Some(error);
                break;
            }
        }
        if number % 10 == 0 {
            assert_eq!(produce(&mut client, "roomy", number).0, 0);
        }
    }
    assert_eq!(refused, Some(KAFKA_STORAGE_ERROR));
    let bytes = acknowledged.len() * RECORD_BYTES;
    assert!(
        bytes > SMALL_MIB as usize * 900_000,
        "only {bytes} bytes fit"
    );

    // It stays so, for reading too, and the other directory serves on.
    assert_eq!(produce(&mut client, "full", -1).0, KAFKA_STORAGE_ERROR);
    assert_eq!(fetch(&mut client, "full", 0).0, KAFKA_STORAGE_ERROR);
    assert_eq!(produce(&mut client, "roomy", -1).0, 0);
    assert_eq!(fetch(&mut client, "roomy", 0).0, 0);
    let log = broker.log();
    assert!(log.contains("No space left"), "{log}");
    if BrokerKind::under_test() == BrokerKind::Barnabas {
        let advice = "free or repair the volume and restart the broker";
        assert!(log.contains(advice), "{log}");
    }

    drop(client);
    broker.stop().unwrap();
    // A start without space takes nothing else with it. (Kafka ends: it maps its indexes into memory.)
    if BrokerKind::under_test() == BrokerKind::Barnabas {
        let broker = options.start().unwrap();
        let mut client = WireClient::connect(&broker.address()).unwrap();
        wait::until(PATIENCE, || {
            (produce(&mut client, "roomy", -2).0 == 0).then_some(())
        })
        .expect("the other directory serves after a restart");
        drop(client);
        broker.stop().unwrap();
    }

    disk.resize(ENOUGH_MIB).unwrap();
    let mut broker = options.start().unwrap();
    broker.wait_for_leaders("full").unwrap();
    let mut client = WireClient::connect(&broker.address()).unwrap();
    let mut found = Vec::new();
    while found.len() < acknowledged.len() {
        let (error, more) = fetch(&mut client, "full", found.len() as i64);
        assert_eq!(error, 0);
        assert!(!more.is_empty(), "nothing at {}", found.len());
        found.extend(more);
    }
    assert_eq!(found, acknowledged);
    let next = acknowledged.len() as i64;
    assert_eq!(produce(&mut client, "full", next), (0, next));
    drop(client);
    broker.stop().unwrap();
}
