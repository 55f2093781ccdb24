//! What `/metrics` shows of a broker that served a producer and a consumer.

use barnabas_core::records::{BatchBuilder, Compression};
use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, FetchRequest, ProduceRequest, RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request};

use super::*;
use crate::metrics::reference::FAMILIES;

/// Sends a request by a connection of its own and returns the body of the answer, with its header.
async fn ask<R: Request + Encodable + HeaderVersion>(
    running: &Running,
    version: i16,
    request: &R,
) -> Vec<u8> {
    let mut frame = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .encode(&mut frame, R::header_version(version))
        .unwrap();
    request.encode(&mut frame, version).unwrap();
    let mut stream = TcpStream::connect(running.addresses()[0].1).await.unwrap();
    let mut sized = BytesMut::new();
    sized.put_i32(frame.len() as i32);
    sized.extend_from_slice(&frame);
    stream.write_all(&sized).await.unwrap();
    let size = stream.read_i32().await.unwrap();
    let mut answer = vec![0; size as usize];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn produce(topic: &str, records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic])
}

fn fetch(topic: &str, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(WireBrokerId(-1))
        .with_max_wait_ms(50)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// The value of a sample, as text; waits for what is counted after the answer was sent.
async fn sample(running: &Running, name: &str) -> Option<f64> {
    let metrics = get(running, "/metrics").await;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dashboard_asks_for_is_there_and_counts() {
    let one = configured().await;
    let running = &one.running;
    let mut records = BatchBuilder::new(Compression::None);
    for _ in 0..10 {
        records.push(1_700_000_000_000, None, Some(b"value"), &[]);
    }
    let records = records.build();
    let size = records.len() as f64;
    ask(running, 9, &produce("t", records.clone())).await;
    ask(running, 9, &produce("nobody has it", records)).await;
    ask(running, 11, &fetch("t", 0)).await;
    // Nothing comes, so this waits: time that others take.
    ask(running, 11, &fetch("t", 10)).await;
    let broker = running.broker().clone();
    host::blocking(move || {
        for log in broker.logs.all_logs() {
            log.flush().unwrap();
        }
    })
    .await
    .unwrap();

    let done =
        r#"kafka_network_requestmetrics_requests_total{request="FetchConsumer",version="11"}"#;
    let send = r#"kafka_network_requestmetrics_responsesendtimems_count{request="Fetch"}"#;
    let counted = async {
        while sample(running, send).await != Some(2.0) || sample(running, done).await != Some(2.0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.unwrap();
    let metrics = get(running, "/metrics").await;
    let missing: Vec<_> = FAMILIES
        .iter()
        .filter(|family| {
            !metrics.lines().any(|line| {
                line.strip_prefix(**family)
                    .is_some_and(|rest| rest.starts_with([' ', '{']))
            })
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?} in\n{metrics}");
    for (name, expected) in [
        (
            r#"kafka_server_brokertopicmetrics_bytesin_total{topic="t"}"#,
            size,
        ),
        (
            r#"kafka_server_brokertopicmetrics_bytesout_total{topic="t"}"#,
            size,
        ),
        ("kafka_server_brokertopicmetrics_bytesout_total", size),
        (
            r#"kafka_server_brokertopicmetrics_messagesin_total{topic="t"}"#,
            10.0,
        ),
        (
            r#"kafka_server_brokertopicmetrics_totalfetchrequests_total{topic="t"}"#,
            2.0,
        ),
        (
            "kafka_server_brokertopicmetrics_replicationbytesout_total",
            0.0,
        ),
        (r#"kafka_log_log_size{topic="t",partition="0"}"#, size),
        (
            r#"kafka_log_log_logendoffset{topic="t",partition="0"}"#,
            10.0,
        ),
        (
            r#"kafka_log_log_numlogsegments{topic="t",partition="0"}"#,
            1.0,
        ),
        (
            r#"kafka_cluster_partition_insyncreplicascount{topic="t",partition="0"}"#,
            1.0,
        ),
        (
            r#"kafka_network_requestmetrics_requests_total{request="Produce",version="9"}"#,
            2.0,
        ),
        (
            r#"kafka_network_requestmetrics_errors_total{request="Produce",error="NONE"}"#,
            1.0,
        ),
        (
            r#"kafka_network_requestmetrics_errors_total{request="Produce",error="UNKNOWN_TOPIC_OR_PARTITION"}"#,
            1.0,
        ),
        (
            r#"kafka_network_requestmetrics_requestqueuetimems_sum{request="Produce"}"#,
            0.0,
        ),
        (
            r#"kafka_network_requestmetrics_totaltimems_count{request="Produce"}"#,
            2.0,
        ),
        (
            r#"kafka_network_requestmetrics_localtimems_count{request="Fetch"}"#,
            2.0,
        ),
    ] {
        assert_eq!(
            sample(running, name).await,
            Some(expected),
            "{name} in\n{metrics}"
        );
    }
    let waited = r#"kafka_network_requestmetrics_remotetimems_sum{request="Fetch"}"#;
    assert!(sample(running, waited).await.unwrap() >= 50.0, "{metrics}");
    one.running.stop().await;
}
