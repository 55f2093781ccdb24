//! What brokers of Apache Kafka 3.9.1 said to each other while three of them went through creation, crashes,
//! reassignment, unclean election, controlled shutdown and deletion: read as a broker reads it and said again as
//! a broker says it, it must be the same bytes. (Recorded as text, turned into bytes by Kafka's own classes.)

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Mutex;

use barnabas_core::control::{ControlOutcome, ControlRequest};
use barnabas_core::controller::AllocateProducerIdsError;
use barnabas_core::ids::BrokerId;
use barnabas_core::metadata::ClusterImage;
use bytes::{Buf as _, BufMut as _};
use flate2::read::GzDecoder;
use futures::FutureExt as _;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, AlterPartitionResponse, ApiVersionsRequest,
    ApiVersionsResponse, ControlledShutdownRequest, LeaderAndIsrRequest, StopReplicaRequest,
    UpdateMetadataRequest, UpdateMetadataResponse,
};
use serde_json::Value;

use super::*;
use crate::api::control::{
    Asked, alter_partition_of, altered_partitions, controlled_shutdown_response, leader_and_isr_of,
    leader_and_isr_response, stop_replica_of, stop_replica_response, update_metadata_of,
};
use crate::api::error_code::{ToErrorCode as _, code_of};

/// One recorded request and its answer.
struct Row {
    key: i16,
    version: i16,
    client_id: String,
    request: Bytes,
    response: Option<Bytes>,
}

fn rows() -> Vec<Row> {
    let path = "../tests/golden/wire/control-requests.jsonl.gz";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let lines = BufReader::new(GzDecoder::new(std::fs::File::open(path).unwrap())).lines();
    let rows = lines.map(|line| {
        let row: Value = serde_json::from_str(&line.unwrap()).unwrap();
        Row {
            key: row["key"].as_i64().unwrap() as i16,
            version: row["version"].as_i64().unwrap() as i16,
            client_id: row["clientId"].as_str().unwrap().to_owned(),
            request: from_hex(row["request"].as_str().unwrap()),
            response: row["response"].as_str().map(from_hex),
        }
    });
    rows.collect()
}

fn from_hex(text: &str) -> Bytes {
    let digits = (0..text.len()).step_by(2);
    let bytes = digits.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap());
    bytes.collect()
}

/// Answers with what was recorded and keeps what it was sent.
struct Recording {
    answer: Bytes,
    sent: Mutex<Vec<Bytes>>,
}

impl PeerNetwork for Arc<Recording> {
    fn connect<'a>(
        &'a self,
        _address: &'a BrokerAddress,
    ) -> BoxFuture<'a, Result<Box<dyn PeerStream>, PeerError>> {
        async move { Ok(Box::new(self.clone()) as Box<dyn PeerStream>) }.boxed()
    }
}

impl PeerStream for Arc<Recording> {
    fn exchange(
        &mut self,
        request: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        let mut response = BytesMut::new();
        response.put_slice(&request[4..8]);
        let is_api_versions = request[..2] == ApiVersionsRequest::KEY.to_be_bytes();
        if is_api_versions {
            let api = ApiVersion::default()
                .with_api_key(AlterPartitionRequest::KEY)
                .with_max_version(3);
            let apis = ApiVersionsResponse::default().with_api_keys(vec![api]);
            apis.encode(&mut response, 0).unwrap();
        } else {
            // All recorded versions are flexible: the header ends with tagged fields.
            response.put_u8(0);
            response.put_slice(&self.answer);
            self.sent.lock().unwrap().push(request);
        }
        async move { Ok(response.freeze()) }.boxed()
    }
}

impl Recording {
    fn of(row: &Row) -> Arc<Self> {
        Arc::new(Self {
            answer: row.response.clone().unwrap(),
            sent: Mutex::default(),
        })
    }

    fn address() -> BrokerAddress {
        BrokerAddress {
            id: BrokerId(20),
            host: "localhost".to_owned(),
            port: 9092,
        }
    }

    /// The one request that was sent, which must be the recorded one, header included.
    fn check(&self, row: &Row) {
        let sent = self.sent.lock().unwrap();
        let [sent] = &sent[..] else {
            panic!("{} requests", sent.len());
        };
        let mut sent = sent.clone();
        assert_eq!((sent.get_i16(), sent.get_i16()), (row.key, row.version));
        sent.advance(4);
        let mut client_id = vec![0, row.client_id.len() as u8];
        client_id.extend_from_slice(row.client_id.as_bytes());
        client_id.push(0);
        assert_eq!(sent.split_to(client_id.len()), client_id);
        assert_eq!(sent, row.request, "key {}", row.key);
    }
}

const TIMEOUT: Duration = Duration::from_secs(1);

async fn send(row: &Row, request: &ControlRequest) -> ControlOutcome {
    let recording = Recording::of(row);
    let network = Arc::new(recording.clone());
    let mut peer = Peer::new(network, Recording::address(), row.client_id.clone());
    let versions = ControlVersions::of("3.9");
    let encoder = MetadataEncoder::default();
    let outcome = send_control(&mut peer, versions, &encoder, request, TIMEOUT).await;
    recording.check(row);
    outcome.unwrap()
}

fn encoded<R: Encodable>(response: &R, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    response.encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

/// Says the request again; the answer as it would be said again.
async fn replay(row: &Row) -> Bytes {
    let (mut body, version) = (row.request.clone(), row.version);
    match row.key {
        LeaderAndIsrRequest::KEY => {
            let wire = LeaderAndIsrRequest::decode(&mut body, version).unwrap();
            let request = leader_and_isr_of(wire, version);
            let asked = Asked::of(&request);
            let outcome = send(row, &ControlRequest::LeaderAndIsr(request)).await;
            encoded(&leader_and_isr_response(outcome, asked, version), version)
        }
        StopReplicaRequest::KEY => {
            let wire = StopReplicaRequest::decode(&mut body, version).unwrap();
            let request = ControlRequest::StopReplica(stop_replica_of(&wire, version));
            encoded(&stop_replica_response(send(row, &request).await), version)
        }
        UpdateMetadataRequest::KEY => {
            let wire = UpdateMetadataRequest::decode(&mut body, version).unwrap();
            let request = ControlRequest::UpdateMetadata(update_metadata_of(&wire, version));
            let code = code_of(&send(row, &request).await.result);
            let response = UpdateMetadataResponse::default().with_error_code(code);
            encoded(&response, version)
        }
        key => {
            let recording = Recording::of(row);
            let network = Arc::new(recording.clone());
            let client_id = row.client_id.clone();
            let mut peer = ControllerPeer::new(network, Recording::address(), client_id);
            match key {
                AlterPartitionRequest::KEY => {
                    let wire = AlterPartitionRequest::decode(&mut body, version).unwrap();
                    let request = alter_partition_of(&wire, version);
                    let image = ClusterImage::default();
                    let altered = peer.alter_partition(&request, &image, TIMEOUT).await;
                    recording.check(row);
                    let response = match altered.unwrap() {
                        Ok(altered) => altered_partitions(altered, version),
                        Err(error) => {
                            AlterPartitionResponse::default().with_error_code(error.error_code())
                        }
                    };
                    encoded(&response, version)
                }
                ControlledShutdownRequest::KEY => {
                    let wire = ControlledShutdownRequest::decode(&mut body, version).unwrap();
                    let id = BrokerId(wire.broker_id.0);
                    let kept = peer
                        .controlled_shutdown(id, wire.broker_epoch, version, TIMEOUT)
                        .await;
                    recording.check(row);
                    encoded(&controlled_shutdown_response(kept.unwrap()), version)
                }
                AllocateProducerIdsRequest::KEY => {
                    let wire = AllocateProducerIdsRequest::decode(&mut body, version).unwrap();
                    let id = BrokerId(wire.broker_id.0);
                    let ids = peer
                        .allocate_producer_ids(id, wire.broker_epoch, TIMEOUT)
                        .await;
                    recording.check(row);
                    assert_eq!(ids.unwrap(), Ok::<_, AllocateProducerIdsError>(0..=999));
                    row.response.clone().unwrap()
                }
                other => panic!("key {other}"),
            }
        }
    }
}

#[tokio::test]
async fn what_kafka_brokers_said_is_said_in_the_same_bytes() {
    let mut counts: BTreeMap<i16, usize> = BTreeMap::new();
    for row in rows() {
        *counts.entry(row.key).or_default() += 1;
        if row.response.is_none() {
            continue;
        }
        let answer = replay(&row).await;
        assert_eq!(Some(answer), row.response, "key {}", row.key);
    }
    let expected = [(4, 86), (5, 17), (6, 211), (7, 5), (56, 20), (67, 1)];
    assert_eq!(counts, BTreeMap::from(expected));
}
