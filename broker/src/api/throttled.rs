//! Which responses tell a client how long it is throttled, and which requests no quota holds for.

use kafka_protocol::messages as wire;

/// A response as quotas see it.
pub(super) trait Throttled {
    /// Between brokers: no quota holds for the request (Kafka: `sendResponseExemptThrottle`).
    const IS_EXEMPT: bool;

    /// Tells the throttle time, if the version can.
    fn set_throttle_time(&mut self, version: i16, throttle_ms: i32);
}

/// `Response first_version` that has the throttle time.
macro_rules! throttled {
    ($($response:ident $first:literal,)*) => {$(
        impl Throttled for wire::$response {
            const IS_EXEMPT: bool = false;

            fn set_throttle_time(&mut self, version: i16, throttle_ms: i32) {
                if version >= $first {
                    self.throttle_time_ms = throttle_ms;
                }
            }
        }
    )*};
}

macro_rules! exempt {
    ($($response:ident,)*) => {$(
        impl Throttled for wire::$response {
            const IS_EXEMPT: bool = true;

            fn set_throttle_time(&mut self, _version: i16, _throttle_ms: i32) {}
        }
    )*};
}

throttled! {
    ProduceResponse 1,
    ListOffsetsResponse 2,
    MetadataResponse 3,
    OffsetCommitResponse 3,
    OffsetFetchResponse 3,
    FindCoordinatorResponse 1,
    JoinGroupResponse 2,
    HeartbeatResponse 1,
    LeaveGroupResponse 1,
    SyncGroupResponse 1,
    DescribeGroupsResponse 1,
    ListGroupsResponse 1,
    ApiVersionsResponse 1,
    CreateTopicsResponse 2,
    DeleteTopicsResponse 1,
    DeleteRecordsResponse 0,
    InitProducerIdResponse 0,
    OffsetForLeaderEpochResponse 2,
    AddPartitionsToTxnResponse 0,
    AddOffsetsToTxnResponse 0,
    EndTxnResponse 0,
    TxnOffsetCommitResponse 0,
    DescribeAclsResponse 0,
    CreateAclsResponse 0,
    DeleteAclsResponse 0,
    DescribeConfigsResponse 0,
    AlterConfigsResponse 0,
    IncrementalAlterConfigsResponse 0,
    AlterReplicaLogDirsResponse 0,
    DescribeLogDirsResponse 0,
    CreatePartitionsResponse 0,
    CreateDelegationTokenResponse 0,
    RenewDelegationTokenResponse 0,
    ExpireDelegationTokenResponse 0,
    DescribeDelegationTokenResponse 0,
    DeleteGroupsResponse 0,
    ElectLeadersResponse 0,
    AlterPartitionReassignmentsResponse 0,
    ListPartitionReassignmentsResponse 0,
    OffsetDeleteResponse 0,
    DescribeClientQuotasResponse 0,
    AlterClientQuotasResponse 0,
    DescribeUserScramCredentialsResponse 0,
    AlterUserScramCredentialsResponse 0,
    UpdateFeaturesResponse 0,
    DescribeClusterResponse 0,
    DescribeProducersResponse 0,
    DescribeTransactionsResponse 0,
    ListTransactionsResponse 0,
    ConsumerGroupHeartbeatResponse 0,
    ConsumerGroupDescribeResponse 0,
}

exempt! {
    LeaderAndIsrResponse,
    StopReplicaResponse,
    UpdateMetadataResponse,
    ControlledShutdownResponse,
    WriteTxnMarkersResponse,
    AlterPartitionResponse,
    AllocateProducerIdsResponse,
    SaslHandshakeResponse,
    SaslAuthenticateResponse,
    EnvelopeResponse,
}
