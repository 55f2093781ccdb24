//! Request bodies of all APIs in all versions.

use std::fs::File;
use std::path::Path;

use barnabas_broker::api::decode::{guarded, produce};
use bytes::Bytes;
use flate2::read::GzDecoder;
use kafka_protocol::messages as wire;
use kafka_protocol::protocol::Request;

use crate::allocations::peak_bytes_of;
use crate::mutation::{Random, mutate, run};

/// What decoding one of these small requests may hold at most, whatever its counts say.
const BYTES_MAX: usize = 32 << 20;

macro_rules! decode_any {
    ($key:expr, $version:expr, $body:expr, $($request:ident)*) => {
        match $key {
            $(<wire::$request as Request>::KEY => guarded::<wire::$request>($body, $version).is_ok(),)*
            _ => false,
        }
    };
}

/// Decodes the body of a request; true if it is well-formed.
fn decode(key: i16, version: i16, body: Bytes) -> bool {
    if key == wire::ProduceRequest::KEY {
        return produce(body, version).is_ok();
    }
    decode_any!(key, version, body,
        FetchRequest ListOffsetsRequest MetadataRequest LeaderAndIsrRequest StopReplicaRequest
        UpdateMetadataRequest ControlledShutdownRequest OffsetCommitRequest OffsetFetchRequest
        FindCoordinatorRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest SyncGroupRequest
        DescribeGroupsRequest ListGroupsRequest SaslHandshakeRequest ApiVersionsRequest
        CreateTopicsRequest DeleteTopicsRequest DeleteRecordsRequest InitProducerIdRequest
        OffsetForLeaderEpochRequest AddPartitionsToTxnRequest AddOffsetsToTxnRequest EndTxnRequest
        WriteTxnMarkersRequest TxnOffsetCommitRequest DescribeAclsRequest CreateAclsRequest
        DeleteAclsRequest DescribeConfigsRequest AlterConfigsRequest AlterReplicaLogDirsRequest
        DescribeLogDirsRequest SaslAuthenticateRequest CreatePartitionsRequest
        CreateDelegationTokenRequest RenewDelegationTokenRequest ExpireDelegationTokenRequest
        DescribeDelegationTokenRequest DeleteGroupsRequest ElectLeadersRequest
        IncrementalAlterConfigsRequest AlterPartitionReassignmentsRequest
        ListPartitionReassignmentsRequest OffsetDeleteRequest DescribeClientQuotasRequest
        AlterClientQuotasRequest DescribeUserScramCredentialsRequest AlterUserScramCredentialsRequest
        AlterPartitionRequest UpdateFeaturesRequest EnvelopeRequest DescribeClusterRequest
        DescribeProducersRequest DescribeTransactionsRequest ListTransactionsRequest
        AllocateProducerIdsRequest ConsumerGroupHeartbeatRequest ConsumerGroupDescribeRequest
    )
}

/// Well-formed requests of all APIs, as recorded: key, version, body.
fn recorded() -> Vec<(i16, i16, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/wire/sweep.json.gz");
    let sweep: serde_json::Value =
        serde_json::from_reader(GzDecoder::new(File::open(path).unwrap())).unwrap();
    let mut bodies = Vec::new();
    for case in sweep["cases"].as_array().unwrap() {
        let Some(hex) = case["request"]
            .as_str()
            .filter(|hex| hex.len() > 40 && hex.is_ascii())
        else {
            continue;
        };
        let digits = hex.as_bytes().chunks(2);
        let frame: Option<Vec<u8>> = digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let Some(frame) = frame else { continue };
        let key = i16::from_be_bytes([frame[0], frame[1]]);
        let version = i16::from_be_bytes([frame[2], frame[3]]);
        // Key, version, correlation id, and "probe" as client id; flexible headers end with an empty list.
        for start in [15, 16] {
            let body = frame[start..].to_vec();
            if decode(key, version, Bytes::copy_from_slice(&body)) {
                bodies.push((key, version, body));
                break;
            }
        }
    }
    bodies
}

#[test]
fn fuzz_request_bodies() {
    let seeds = recorded();
    assert!(seeds.len() > 1500, "{}", seeds.len());
    let mut well_formed = 0_u64;
    let rounds = run(|random: &mut Random| {
        let (key, version, mut body) = seeds[random.below(seeds.len())].clone();
        mutate(&mut body, random);
        let size = body.len();
        let peak = peak_bytes_of(|| well_formed += u64::from(decode(key, version, body.into())));
        assert!(
            peak < BYTES_MAX,
            "{peak} bytes for {size} of API key {key} version {version}"
        );
    });
    println!("{rounds} bodies, {well_formed} of them well-formed");
}
