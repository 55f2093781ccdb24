//! Produce and Fetch together: what is written, waited for, replicated and read.

mod transactions;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use barnabas_core::control::{StopReplica, StopReplicaPartition};
use barnabas_core::ids::TopicPartition;
use barnabas_core::records::{BatchBuilder, Compression, batches};
use bytes::Bytes;
use futures::FutureExt as _;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

use super::testing::{BROKER, TestBroker, header, inlined};
use super::{Reply, fetch, offsets, produce};

type Pending<'a> = Pin<Box<dyn Future<Output = Reply> + 'a>>;

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(1_700_000_000_000, Some(b"k"), Some(value.as_bytes()), &[]);
    }
    builder.build()
}

fn produce_request(topic: &str, acks: i16, records: Bytes) -> ProduceRequest {
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(60_000)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(name(topic))
                .with_partition_data(vec![
                    PartitionProduceData::default().with_records(Some(records)),
                ]),
        ])
}

fn fetch_request(topic: &str, offset: i64) -> FetchRequest {
    FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(name(topic))
                .with_partitions(vec![
                    FetchPartition::default()
                        .with_fetch_offset(offset)
                        .with_partition_max_bytes(1 << 20),
                ]),
        ])
}

/// (error, base offset) of the only partition.
fn produced(reply: Reply) -> (i16, i64) {
    let Reply::Body(mut body) = reply else {
        panic!("{reply:?}");
    };
    let response = ProduceResponse::decode(&mut body, 9).unwrap();
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

fn fetched(reply: Reply, version: i16) -> FetchResponse {
    let Reply::Fetched { sections, .. } = reply else {
        panic!("{reply:?}");
    };
    FetchResponse::decode(&mut Bytes::from(inlined(&sections)), version).unwrap()
}

/// (error, high watermark, base offsets of the batches) of the only partition.
fn read(reply: Reply, version: i16) -> (i16, i64, Vec<i64>) {
    let response = fetched(reply, version);
    let partition = &response.responses[0].partitions[0];
    let records = partition.records.clone().unwrap_or_default();
    let offsets = batches(&records)
        .map(|batch| batch.unwrap().1.base_offset)
        .collect();
    (partition.error_code, partition.high_watermark, offsets)
}

impl TestBroker {
    fn produce(&self, topic: &str, acks: i16, records: Bytes) -> (i16, i64) {
        let pending = self.begin_produce(produce_request(topic, acks, records));
        produced(pending.now_or_never().expect("it waits"))
    }

    fn begin_produce(&self, request: ProduceRequest) -> Pending<'_> {
        Box::pin(async move { produce::produce(request, &self.context(9)).await })
    }

    fn begin_fetch(&self, request: FetchRequest, version: i16) -> Pending<'_> {
        Box::pin(async move { fetch::fetch(request, &self.context(version)).await })
    }

    fn read(&self, request: FetchRequest) -> (i16, i64, Vec<i64>) {
        read(
            self.begin_fetch(request, 11)
                .now_or_never()
                .expect("it waits"),
            11,
        )
    }

    /// A fetch of broker 21, which follows.
    fn follow(&self, topic: &str, offset: i64) -> (i16, i64, Vec<i64>) {
        self.read(fetch_request(topic, offset).with_replica_id(21.into()))
    }
}

fn is_waiting(pending: &mut Pending<'_>) -> bool {
    pending.as_mut().now_or_never().is_none()
}

#[tokio::test]
async fn a_long_poll_is_woken_by_an_append() {
    let broker = TestBroker::new();
    broker.create_topic("t", 1, None);
    let request = fetch_request("t", 0)
        .with_max_wait_ms(600_000)
        .with_min_bytes(1);
    let mut pending = broker.begin_fetch(request, 11);
    assert!(is_waiting(&mut pending));
    assert_eq!(broker.produce("t", -1, batch(&["a"])), (0, 0));
    assert_eq!(read(pending.await, 11), (0, 1, vec![0]));
}

#[tokio::test]
async fn a_long_poll_waits_for_its_minimum_of_bytes() {
    let broker = TestBroker::new();
    broker.create_topic("t", 1, None);
    let size = batch(&["a"]).len() as i32;
    let request = fetch_request("t", 0)
        .with_max_wait_ms(600_000)
        .with_min_bytes(2 * size + 1);
    let mut pending = broker.begin_fetch(request, 11);
    assert!(is_waiting(&mut pending));
    for _ in 0..2 {
        broker.produce("t", -1, batch(&["a"]));
        assert!(is_waiting(&mut pending));
    }
    broker.produce("t", -1, batch(&["a"]));
    assert_eq!(read(pending.await, 11), (0, 3, vec![0, 1, 2]));
}

#[tokio::test]
async fn a_long_poll_ends_when_its_time_is_over() {
    let broker = TestBroker::new();
    broker.create_topic("t", 1, None);
    let request = fetch_request("t", 0).with_max_wait_ms(5).with_min_bytes(1);
    assert_eq!(
        read(broker.begin_fetch(request, 11).await, 11),
        (0, 0, vec![])
    );
}

#[tokio::test]
async fn acks_all_waits_for_the_in_sync_replicas() {
    let broker = TestBroker::new();
    broker.lead("t", 0, None, 0, &[20, 21], &[20, 21]);
    let mut pending = broker.begin_produce(produce_request("t", -1, batch(&["a"])));
    assert!(is_waiting(&mut pending));
    // Consumers see nothing yet, the follower does.
    assert_eq!(broker.read(fetch_request("t", 0)), (0, 0, vec![]));
    assert_eq!(broker.follow("t", 0), (0, 0, vec![0]));
    assert!(is_waiting(&mut pending));
    assert_eq!(broker.follow("t", 1), (0, 0, vec![]));
    assert_eq!(produced(pending.await), (0, 0));
    assert_eq!(broker.read(fetch_request("t", 0)), (0, 1, vec![0]));
}

#[tokio::test]
async fn acks_all_gives_up_after_its_timeout_or_with_its_leadership() {
    let broker = TestBroker::new();
    broker.lead("t", 0, None, 0, &[20, 21], &[20, 21]);
    let request = produce_request("t", -1, batch(&["a"])).with_timeout_ms(5);
    assert_eq!(produced(broker.begin_produce(request).await), (7, 0));
    let mut pending = broker.begin_produce(produce_request("t", -1, batch(&["b"])));
    assert!(is_waiting(&mut pending));
    broker.assign("t", 0, None, 21, 1, &[20, 21], &[20, 21]);
    assert_eq!(produced(pending.await), (6, 1));
    assert_eq!(broker.produce("t", 1, batch(&["c"])), (6, -1));
}

/// The high watermark of the next time that this broker leads says nothing about what it wrote before.
#[tokio::test]
async fn acks_all_is_not_granted_after_another_has_led() {
    let broker = TestBroker::new();
    broker.lead("t", 0, None, 0, &[20, 21], &[20, 21]);
    let mut pending = broker.begin_produce(produce_request("t", -1, batch(&["a"])));
    assert!(is_waiting(&mut pending));
    broker.assign("t", 0, None, 21, 1, &[20, 21], &[20, 21]);
    broker.lead("t", 0, None, 2, &[20, 21], &[20]);
    assert_eq!(produced(pending.await).0, 6);
    // A new epoch without a break does no harm.
    broker.lead("t", 0, None, 3, &[20, 21], &[20, 21]);
    let mut pending = broker.begin_produce(produce_request("t", -1, batch(&["b"])));
    assert!(is_waiting(&mut pending));
    broker.lead("t", 0, None, 4, &[20, 21], &[20]);
    assert_eq!(produced(pending.await).0, 0);
}

#[test]
fn too_few_in_sync_replicas_refuse_acks_all_and_stall_the_high_watermark() {
    let broker = TestBroker::new();
    broker.configure("t", &[("min.insync.replicas", "2")]);
    broker.lead("t", 0, None, 0, &[20, 21], &[20]);
    assert_eq!(broker.produce("t", -1, batch(&["a"])), (19, -1));
    assert_eq!(broker.produce("t", 1, batch(&["a"])), (0, 0));
    assert_eq!(broker.read(fetch_request("t", 0)), (0, 0, vec![]));
}

#[test]
fn acks_0_is_silent_and_hangs_up_after_an_error() {
    let broker = TestBroker::new();
    broker.create_topic("t", 1, None);
    let reply = |topic| {
        broker
            .begin_produce(produce_request(topic, 0, batch(&["a"])))
            .now_or_never()
    };
    assert!(matches!(reply("t"), Some(Reply::None)));
    assert!(matches!(reply("no"), Some(Reply::Close)));
    assert_eq!(broker.read(fetch_request("t", 0)), (0, 1, vec![0]));
}

#[test]
fn only_new_consumers_may_read_from_a_follower() {
    let broker = TestBroker::new();
    broker.assign("t", 0, None, 21, 0, &[21, 20], &[21, 20]);
    for (version, error) in [(10, 6), (11, 0)] {
        let reply = broker
            .begin_fetch(fetch_request("t", 0), version)
            .now_or_never()
            .unwrap();
        assert_eq!(read(reply, version).0, error);
    }
}

#[test]
fn a_limit_never_keeps_a_consumer_from_getting_on() {
    let broker = TestBroker::new();
    broker.create_topic("t", 2, None);
    broker.produce("t", 1, batch(&["a", "b"]));
    let second = produce_request("t", 1, batch(&["c"]));
    let mut second = second;
    second.topic_data[0].partition_data[0].index = 1;
    broker.begin_produce(second).now_or_never().unwrap();
    let mut request = fetch_request("t", 0).with_max_bytes(1);
    let other = FetchPartition::default()
        .with_partition(1)
        .with_partition_max_bytes(1 << 20);
    request.topics[0].partitions.push(other);
    let response = fetched(broker.begin_fetch(request, 11).now_or_never().unwrap(), 11);
    let sizes: Vec<usize> = response.responses[0]
        .partitions
        .iter()
        .map(|partition| partition.records.as_ref().unwrap().len())
        .collect();
    assert_eq!(sizes, [batch(&["a", "b"]).len(), 0]);
}

/// The session of the recorded checks: partitions with an error are told again and again, others
/// when something changed, and what had records comes last.
#[test]
fn a_session_tells_what_changed() {
    let broker = TestBroker::new();
    broker.create_topic("ts", 1, None);
    broker.create_topic("gz", 1, None);
    broker.produce("ts", 1, batch(&["a", "b", "c"]));
    broker.produce("gz", 1, batch(&["a", "b"]));
    let session = |id: i32, epoch: i32, topics: &[(&str, i64)], forget: &[&str]| {
        let mut request = fetch_request("", 0)
            .with_session_id(id)
            .with_session_epoch(epoch);
        request.topics = topics
            .iter()
            .flat_map(|(topic, offset)| fetch_request(topic, *offset).topics)
            .collect();
        request.forgotten_topics_data = forget
            .iter()
            .map(|topic| {
                ForgottenTopic::default()
                    .with_topic(name(topic))
                    .with_partitions(vec![0])
            })
            .collect();
        let response = fetched(broker.begin_fetch(request, 11).now_or_never().unwrap(), 11);
        let answers: Vec<(String, i16, i64)> = response
            .responses
            .iter()
            .map(|topic| {
                let partition = &topic.partitions[0];
                let name = topic.topic.to_string();
                (name, partition.error_code, partition.high_watermark)
            })
            .collect();
        (response.error_code, response.session_id, answers)
    };
    let entry =
        |topic: &str, error: i16, high_watermark: i64| (topic.to_owned(), error, high_watermark);
    let nope = || entry("nope", 3, -1);

    let (error, id, answers) = session(0, 0, &[("ts", 3), ("nope", 0), ("gz", 2)], &[]);
    assert_eq!(error, 0);
    assert_eq!(answers, [entry("ts", 0, 3), entry("gz", 0, 2), nope()]);
    assert_eq!(session(id, 1, &[], &[]), (0, id, vec![nope()]));
    assert_eq!(session(id, 2, &[], &[]), (0, id, vec![nope()]));
    assert_eq!(session(id, 2, &[], &[]), (71, 0, vec![]));
    assert_eq!(session(id, 9, &[], &[]), (71, 0, vec![]));
    broker.produce("gz", 1, batch(&["c", "d"]));
    assert_eq!(
        session(id, 3, &[], &[]),
        (0, id, vec![entry("gz", 0, 4), nope()])
    );
    assert_eq!(session(id, 4, &[], &["ts", "nope", "gz"]), (0, 0, vec![]));
    assert_eq!(session(id, 5, &[], &[]), (70, 0, vec![]));
    assert_eq!(
        session(id, -1, &[("ts", 0)], &[]),
        (0, 0, vec![entry("ts", 0, 3)])
    );
}

#[test]
fn a_new_leader_does_not_tell_offsets_that_may_go_back() {
    let broker = TestBroker::new();
    broker.lead("t", 0, None, 0, &[20, 21], &[20, 21]);
    broker.produce("t", 1, batch(&["a"]));
    broker.lead("t", 0, None, 1, &[20, 21], &[20, 21]);
    let latest = |version| {
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![
                ListOffsetsTopic::default()
                    .with_name(name("t"))
                    .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-1)]),
            ]);
        let context = broker.context(version);
        let response = offsets::list_offsets(request, &context)
            .now_or_never()
            .unwrap();
        response.topics[0].partitions[0].error_code
    };
    assert_eq!(latest(5), 78);
    assert_eq!(latest(4), 5);
    broker.follow("t", 1);
    assert_eq!(latest(5), 0);
}

#[test]
fn a_deleted_partition_is_gone_and_may_come_back() {
    let broker = TestBroker::new();
    broker.create_topic("t", 1, None);
    broker.produce("t", 1, batch(&["a"]));
    let stop = StopReplica {
        header: header(),
        partitions: vec![StopReplicaPartition {
            topic_partition: TopicPartition::new("t", 0),
            leader_epoch: -2,
            delete: true,
        }],
    };
    let outcome = broker.broker.replicas.apply_stop_replica(&stop);
    assert_eq!(outcome.partitions[0].1, Ok(()));
    // The metadata still has it.
    assert_eq!(broker.produce("t", 1, batch(&["a"])), (6, -1));
    broker.create_topic("t", 1, None);
    assert_eq!(broker.produce("t", 1, batch(&["a"])), (0, 0));
}

#[test]
fn a_stale_controller_is_not_obeyed() {
    let broker = TestBroker::new();
    broker.create_topic("t", 1, None);
    let outcome = broker.lead("t", 0, None, 0, &[20], &[20]);
    assert!(outcome.partitions[0].1.is_err());
    let mut stop = StopReplica {
        header: header(),
        partitions: Vec::new(),
    };
    stop.header.controller_epoch = 0;
    assert!(
        broker
            .broker
            .replicas
            .apply_stop_replica(&stop)
            .result
            .is_err()
    );
}

#[test]
fn a_failed_directory_takes_only_its_replicas_offline() {
    let broker = TestBroker::new();
    for topic in ["p", "q", "r", "s"] {
        broker.create_topic(topic, 1, None);
    }
    broker.files.break_directory(Path::new("/a"));
    let produce_all = || -> BTreeMap<&str, i16> {
        ["p", "q", "r", "s"]
            .into_iter()
            .map(|topic| (topic, broker.produce(topic, 1, batch(&["a"])).0))
            .collect()
    };
    let first = produce_all();
    let failed = first.values().filter(|code| **code == 56).count();
    assert_eq!(failed, 2, "{first:?}");
    let lost = broker.broker.replicas.directories_failed();
    assert_eq!(lost.len(), 2);
    assert_eq!(produce_all(), first);
    for topic_partition in &lost {
        assert_eq!(broker.read(fetch_request(&topic_partition.topic, 0)).0, 56);
    }
    assert_eq!(broker.broker.replicas.counts().offline, 2);
    assert_eq!(broker.broker.broker_id, BROKER);
}
