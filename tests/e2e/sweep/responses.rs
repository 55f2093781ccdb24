//! Responses of all APIs as trees.

use anyhow::{Result, bail};
use barnabas_tests::debug_tree::Tree;
use barnabas_tests::wire::decode_response;
use bytes::Bytes;
use kafka_protocol::messages as wire;
use kafka_protocol::protocol::Request;

/// Correlation id of all recorded requests.
const CORRELATION_ID: i32 = 7;

macro_rules! decode_any {
    ($key:expr, $version:expr, $frame:expr, $($request:ident)*) => {
        match $key {
            $(<wire::$request as Request>::KEY => {
                type Response = <wire::$request as Request>::Response;
                Tree::of(&decode_response::<Response>($frame, $version, CORRELATION_ID)?)
            })*
            key => bail!("no decoder for the responses of API key {key}"),
        }
    };
}

/// Decodes a response whose bytes must all belong to it.
pub(super) fn decode(key: i16, version: i16, frame: Bytes) -> Result<Tree> {
    Ok(decode_any!(key, version, frame,
        ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest FindCoordinatorRequest
        ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest DeleteRecordsRequest
        InitProducerIdRequest OffsetForLeaderEpochRequest DescribeConfigsRequest AlterConfigsRequest
        AlterReplicaLogDirsRequest DescribeLogDirsRequest CreatePartitionsRequest
        IncrementalAlterConfigsRequest DescribeClusterRequest DescribeProducersRequest
        LeaderAndIsrRequest StopReplicaRequest UpdateMetadataRequest ControlledShutdownRequest
        AlterPartitionRequest AllocateProducerIdsRequest ElectLeadersRequest
        AlterPartitionReassignmentsRequest ListPartitionReassignmentsRequest UpdateFeaturesRequest
        OffsetCommitRequest OffsetFetchRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest
        SyncGroupRequest DescribeGroupsRequest ListGroupsRequest DeleteGroupsRequest OffsetDeleteRequest
        ConsumerGroupHeartbeatRequest ConsumerGroupDescribeRequest AddPartitionsToTxnRequest
        AddOffsetsToTxnRequest EndTxnRequest WriteTxnMarkersRequest TxnOffsetCommitRequest
        DescribeTransactionsRequest ListTransactionsRequest SaslHandshakeRequest SaslAuthenticateRequest
        DescribeAclsRequest CreateAclsRequest DeleteAclsRequest CreateDelegationTokenRequest
        RenewDelegationTokenRequest ExpireDelegationTokenRequest DescribeDelegationTokenRequest
        DescribeClientQuotasRequest AlterClientQuotasRequest DescribeUserScramCredentialsRequest
        AlterUserScramCredentialsRequest
    ))
}
