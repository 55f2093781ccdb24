//! Where the error codes of a response are: they are counted by API (`ErrorsPerSec`), success included.

use kafka_protocol::messages as wire;

/// A response that tells its error codes.
pub trait ErrorCodes {
    /// Passes on every error code in the response.
    fn each_error_code(&self, note: &mut dyn FnMut(i16));
}

macro_rules! walk {
    ($at:expr, $note:ident, error_code) => {
        $note($at.error_code)
    };
    ($at:expr, $note:ident, $list:ident . $($rest:tt)+) => {
        for one in &$at.$list {
            walk!(one, $note, $($rest)+);
        }
    };
}

/// `Response: path, path;` with lists on the way to the code.
macro_rules! error_codes {
    ($($response:ident: $($($step:ident).+),+;)*) => {$(
        impl ErrorCodes for wire::$response {
            fn each_error_code(&self, note: &mut dyn FnMut(i16)) {
                $(walk!(self, note, $($step).+);)+
            }
        }
    )*};
}

error_codes! {
    ProduceResponse: responses.partition_responses.error_code;
    FetchResponse: error_code, responses.partitions.error_code;
    ListOffsetsResponse: topics.partitions.error_code;
    MetadataResponse: topics.error_code, topics.partitions.error_code;
    LeaderAndIsrResponse: error_code, partition_errors.error_code, topics.partition_errors.error_code;
    StopReplicaResponse: error_code, partition_errors.error_code;
    UpdateMetadataResponse: error_code;
    ControlledShutdownResponse: error_code;
    OffsetCommitResponse: topics.partitions.error_code;
    OffsetFetchResponse: error_code, topics.partitions.error_code, groups.error_code, groups.topics.partitions.error_code;
    FindCoordinatorResponse: error_code, coordinators.error_code;
    JoinGroupResponse: error_code;
    HeartbeatResponse: error_code;
    LeaveGroupResponse: error_code, members.error_code;
    SyncGroupResponse: error_code;
    DescribeGroupsResponse: groups.error_code;
    ListGroupsResponse: error_code;
    SaslHandshakeResponse: error_code;
    ApiVersionsResponse: error_code;
    CreateTopicsResponse: topics.error_code;
    DeleteTopicsResponse: responses.error_code;
    DeleteRecordsResponse: topics.partitions.error_code;
    InitProducerIdResponse: error_code;
    OffsetForLeaderEpochResponse: topics.partitions.error_code;
    AddPartitionsToTxnResponse: error_code;
    AddOffsetsToTxnResponse: error_code;
    EndTxnResponse: error_code;
    WriteTxnMarkersResponse: markers.topics.partitions.error_code;
    TxnOffsetCommitResponse: topics.partitions.error_code;
    DescribeAclsResponse: error_code;
    CreateAclsResponse: results.error_code;
    DeleteAclsResponse: filter_results.error_code;
    DescribeConfigsResponse: results.error_code;
    AlterConfigsResponse: responses.error_code;
    AlterReplicaLogDirsResponse: results.partitions.error_code;
    DescribeLogDirsResponse: error_code, results.error_code;
    SaslAuthenticateResponse: error_code;
    CreatePartitionsResponse: results.error_code;
    CreateDelegationTokenResponse: error_code;
    RenewDelegationTokenResponse: error_code;
    ExpireDelegationTokenResponse: error_code;
    DescribeDelegationTokenResponse: error_code;
    DeleteGroupsResponse: results.error_code;
    ElectLeadersResponse: error_code, replica_election_results.partition_result.error_code;
    IncrementalAlterConfigsResponse: responses.error_code;
    AlterPartitionReassignmentsResponse: error_code, responses.partitions.error_code;
    ListPartitionReassignmentsResponse: error_code;
    OffsetDeleteResponse: error_code;
    DescribeClientQuotasResponse: error_code;
    AlterClientQuotasResponse: entries.error_code;
    DescribeUserScramCredentialsResponse: error_code, results.error_code;
    AlterUserScramCredentialsResponse: results.error_code;
    AlterPartitionResponse: error_code, topics.partitions.error_code;
    UpdateFeaturesResponse: error_code, results.error_code;
    EnvelopeResponse: error_code;
    DescribeClusterResponse: error_code;
    DescribeProducersResponse: topics.partitions.error_code;
    DescribeTransactionsResponse: transaction_states.error_code;
    ListTransactionsResponse: error_code;
    AllocateProducerIdsResponse: error_code;
    ConsumerGroupHeartbeatResponse: error_code;
    ConsumerGroupDescribeResponse: groups.error_code;
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::{
        MetadataResponsePartition, MetadataResponseTopic,
    };

    use super::*;

    #[test]
    fn codes_are_found_at_every_depth() {
        let partition = MetadataResponsePartition::default().with_error_code(5);
        let topic = MetadataResponseTopic::default()
            .with_error_code(3)
            .with_partitions(vec![partition.clone(), partition]);
        let response = wire::MetadataResponse::default().with_topics(vec![topic]);
        let mut codes = Vec::new();
        response.each_error_code(&mut |code| codes.push(code));
        assert_eq!(codes, [3, 5, 5]);
    }
}
