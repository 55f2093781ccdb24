//! The APIs: one table, from which both dispatch and `ApiVersions` come, and one file per group of APIs.
//!
//! A handler is `async fn(Request, &Context) -> Response` and always answers, errors included. Those that
//! stream files, answer nothing or hang up return a [`Reply`]. Decoding, headers, encoding, metrics and quotas
//! live in the dispatcher, once.

#![expect(clippy::unused_async, reason = "the table wants handlers of one shape")]

pub mod acls;
pub mod alter_configs;
pub mod api_versions;
pub mod call;
pub mod cluster;
pub mod configs;
pub mod context;
pub mod control;
pub mod coordinators;
pub mod decode;
pub mod delegation_tokens;
pub mod dispatch;
pub mod elections;
pub mod error_code;
pub mod error_counts;
pub mod features;
pub mod fetch;
pub mod fetch_encoder;
pub mod group_offsets;
pub mod groups;
pub mod leaders;
pub mod log_dirs;
pub mod metadata;
pub mod offsets;
pub mod produce;
pub mod quotas;
pub mod reassignment;
mod repeated;
pub mod request_error;
pub mod sasl;
pub mod scram;
mod throttled;
pub mod topics;
mod traffic;
pub mod transactions;
pub mod txn_markers;
pub mod txn_offsets;
pub mod verification;

#[cfg(test)]
mod every_version;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod stories;
#[cfg(test)]
pub(crate) mod testing;

use std::future::Future;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as wire;
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request};

use crate::log::LogSlice;
use crate::metrics::Fetcher;

pub use call::Call;
pub use context::{Broker, Connection, Context, Principal};
pub use decode::MalformedRequest;
pub use error_counts::ErrorCodes;
pub use request_error::RequestError;
use throttled::Throttled;

/// A handler's answer.
#[derive(Debug)]
pub enum Reply {
    /// The encoded response, without its header.
    Body(Bytes),
    /// The encoded response to a fetch, without its header, in pieces that are sent one after the other.
    Fetched { by: Fetcher, sections: Vec<Section> },
    /// No answer at all: a produce request with acks=0.
    None,
    /// Hang up without an answer.
    Close,
}

/// A piece of a response body.
#[derive(Debug)]
pub enum Section {
    Bytes(Bytes),
    /// Bytes of a segment file, sent from the page cache.
    File(LogSlice),
}

impl Section {
    /// How many bytes go over the wire.
    pub fn size_in_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(slice) => slice.length,
        }
    }
}

impl Reply {
    /// Whose fetch this answers, if it answers one.
    fn fetcher(&self) -> Option<Fetcher> {
        match self {
            Self::Fetched { by, .. } => Some(*by),
            Self::Body(_) | Self::None | Self::Close => None,
        }
    }

    /// Encodes `response`. One that sets a field which `version` lacks is a defect: it is logged and hangs up.
    pub fn message<R: Encodable>(response: &R, version: i16) -> Self {
        let mut body = BytesMut::with_capacity(response.compute_size(version).unwrap_or(0));
        match response.encode(&mut body, version) {
            Ok(()) => Self::Body(body.freeze()),
            Err(error) => {
                tracing::error!(
                    response = std::any::type_name::<R>(),
                    version,
                    %error,
                    "a response cannot be encoded in the version of its request"
                );
                Self::Close
            }
        }
    }
}

type ReplyFuture<'a> = Pin<Box<dyn Future<Output = Result<Reply, MalformedRequest>> + Send + 'a>>;

/// One row of the table.
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    pub min_version: i16,
    pub max_version: i16,
    /// Version of the request's header at a version of the API.
    pub request_header_version: fn(i16) -> i16,
    /// Version of the response's header at a version of the API.
    pub response_header_version: fn(i16) -> i16,
    /// Decodes the body and runs the handler.
    pub handle: for<'a> fn(Bytes, Context<'a>) -> ReplyFuture<'a>,
    /// Makes up a request body at a version.
    #[cfg(test)]
    invent: fn(&mut every_version::Inventor, i16) -> anyhow::Result<Bytes>,
    /// Decodes a response body at a version and encodes it again.
    #[cfg(test)]
    read_back: fn(Bytes, i16) -> anyhow::Result<Bytes>,
}

impl Api {
    /// The row of an API, if this broker serves it.
    pub fn find(key: i16) -> Option<&'static Self> {
        let position = *API_BY_KEY.get(usize::try_from(key).ok()?)?;
        API_TABLE.get(usize::from(position))
    }

    pub fn serves(&self, version: i16) -> bool {
        (self.min_version..=self.max_version).contains(&version)
    }
}

/// Position in [`API_TABLE`] by API key; beyond its end where there is none.
const API_BY_KEY: [u8; 128] = {
    let mut positions = [u8::MAX; 128];
    let mut row = 0;
    while row < API_TABLE.len() {
        positions[API_TABLE[row].key as usize] = row as u8;
        row += 1;
    }
    positions
};

/// What a handler may return.
trait Answer {
    fn into_reply(self, key: i16, context: &Context<'_>) -> Reply;
}

/// Whose handler has counted its errors.
impl Answer for Reply {
    fn into_reply(self, _key: i16, _context: &Context<'_>) -> Reply {
        self
    }
}

impl<R: Encodable + ErrorCodes + Throttled> Answer for R {
    fn into_reply(mut self, key: i16, context: &Context<'_>) -> Reply {
        let metrics = context.broker.metrics.request(key);
        self.each_error_code(&mut |code| metrics.errors(code, 1));
        if R::IS_EXEMPT {
            context.charge_exempt();
        } else if let throttle_ms @ 1.. = context.charge() {
            self.set_throttle_time(context.version, throttle_ms as i32);
        }
        Reply::message(&self, context.version)
    }
}

macro_rules! decoder {
    () => {
        decode::guarded
    };
    ($($decode:ident)::+) => {
        $($decode)::+
    };
}

/// `Name(Request) first..=last => handler`; `by` names a decoder of its own.
macro_rules! api_table {
    ($($name:ident($request:ident) $min:literal..=$max:literal $(by $($decode:ident)::+)? => $($handler:ident)::+,)*) => {
        /// All APIs of this broker.
        pub const API_TABLE: &[Api] = &[$(Api {
            key: <wire::$request as Request>::KEY,
            name: stringify!($name),
            min_version: $min,
            max_version: $max,
            request_header_version: <wire::$request as HeaderVersion>::header_version,
            response_header_version: <<wire::$request as Request>::Response as HeaderVersion>::header_version,
            handle: |body, context| {
                Box::pin(async move {
                    let request: wire::$request =
                        decoder!($($($decode)::+)?)(body, context.version)?;
                    let answer = $($handler)::+(request, &context).await;
                    Ok(answer.into_reply(<wire::$request as Request>::KEY, &context))
                })
            },
            #[cfg(test)]
            invent: every_version::invent::<wire::$request>,
            #[cfg(test)]
            read_back: every_version::read_back::<<wire::$request as Request>::Response>,
        },)*];
    };
}

api_table! {
    Produce(ProduceRequest) 0..=11 by decode::produce => produce::produce,
    Fetch(FetchRequest) 0..=17 => fetch::fetch,
    ListOffsets(ListOffsetsRequest) 0..=9 => offsets::list_offsets,
    Metadata(MetadataRequest) 0..=12 => metadata::metadata,
    LeaderAndIsr(LeaderAndIsrRequest) 0..=7 => control::leader_and_isr,
    StopReplica(StopReplicaRequest) 0..=4 => control::stop_replica,
    UpdateMetadata(UpdateMetadataRequest) 0..=8 => control::update_metadata,
    ControlledShutdown(ControlledShutdownRequest) 0..=3 => control::controlled_shutdown,
    OffsetCommit(OffsetCommitRequest) 0..=9 => group_offsets::offset_commit,
    OffsetFetch(OffsetFetchRequest) 0..=9 => group_offsets::offset_fetch,
    FindCoordinator(FindCoordinatorRequest) 0..=6 => coordinators::find_coordinator,
    JoinGroup(JoinGroupRequest) 0..=9 => groups::join_group,
    Heartbeat(HeartbeatRequest) 0..=4 => groups::heartbeat,
    LeaveGroup(LeaveGroupRequest) 0..=5 => groups::leave_group,
    SyncGroup(SyncGroupRequest) 0..=5 => groups::sync_group,
    DescribeGroups(DescribeGroupsRequest) 0..=5 => groups::describe_groups,
    ListGroups(ListGroupsRequest) 0..=5 => groups::list_groups,
    ApiVersions(ApiVersionsRequest) 0..=4 => api_versions::api_versions,
    CreateTopics(CreateTopicsRequest) 0..=7 => topics::create_topics,
    DeleteTopics(DeleteTopicsRequest) 0..=6 => topics::delete_topics,
    DeleteRecords(DeleteRecordsRequest) 0..=2 => offsets::delete_records,
    InitProducerId(InitProducerIdRequest) 0..=5 => transactions::init_producer_id,
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest) 0..=4 => offsets::offset_for_leader_epoch,
    AddPartitionsToTxn(AddPartitionsToTxnRequest) 0..=5 => transactions::add_partitions_to_txn,
    AddOffsetsToTxn(AddOffsetsToTxnRequest) 0..=4 => transactions::add_offsets_to_txn,
    EndTxn(EndTxnRequest) 0..=4 => transactions::end_txn,
    DescribeTransactions(DescribeTransactionsRequest) 0..=0 => transactions::describe_transactions,
    ListTransactions(ListTransactionsRequest) 0..=1 => transactions::list_transactions,
    WriteTxnMarkers(WriteTxnMarkersRequest) 0..=1 => txn_markers::write_markers,
    TxnOffsetCommit(TxnOffsetCommitRequest) 0..=4 => txn_offsets::txn_offset_commit,
    SaslHandshake(SaslHandshakeRequest) 0..=1 => sasl::handshake,
    SaslAuthenticate(SaslAuthenticateRequest) 0..=2 => sasl::authenticate,
    DescribeAcls(DescribeAclsRequest) 0..=3 by acls::decode_description => acls::describe_acls,
    CreateAcls(CreateAclsRequest) 0..=3 by acls::decode_creations => acls::create_acls,
    DeleteAcls(DeleteAclsRequest) 0..=3 by acls::decode_filters => acls::delete_acls,
    CreateDelegationToken(CreateDelegationTokenRequest) 0..=3 => delegation_tokens::create,
    RenewDelegationToken(RenewDelegationTokenRequest) 0..=2 => delegation_tokens::renew,
    ExpireDelegationToken(ExpireDelegationTokenRequest) 0..=2 => delegation_tokens::expire,
    DescribeDelegationToken(DescribeDelegationTokenRequest) 0..=3 => delegation_tokens::describe,
    DescribeConfigs(DescribeConfigsRequest) 0..=4 => configs::describe_configs,
    AlterConfigs(AlterConfigsRequest) 0..=2 => alter_configs::alter_configs,
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest) 0..=1 => alter_configs::incremental_alter_configs,
    AlterReplicaLogDirs(AlterReplicaLogDirsRequest) 0..=2 => log_dirs::alter_replica_log_dirs,
    DescribeLogDirs(DescribeLogDirsRequest) 0..=4 => log_dirs::describe_log_dirs,
    CreatePartitions(CreatePartitionsRequest) 0..=3 => topics::create_partitions,
    ElectLeaders(ElectLeadersRequest) 0..=2 => elections::elect_leaders,
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest) 0..=0 => reassignment::alter_partition_reassignments,
    ListPartitionReassignments(ListPartitionReassignmentsRequest) 0..=0 => reassignment::list_partition_reassignments,
    DescribeClientQuotas(DescribeClientQuotasRequest) 0..=1 => quotas::describe_client_quotas,
    AlterClientQuotas(AlterClientQuotasRequest) 0..=1 => quotas::alter_client_quotas,
    DescribeUserScramCredentials(DescribeUserScramCredentialsRequest) 0..=0 => scram::describe_user_scram_credentials,
    AlterUserScramCredentials(AlterUserScramCredentialsRequest) 0..=0 => scram::alter_user_scram_credentials,
    AlterPartition(AlterPartitionRequest) 0..=3 => control::alter_partition,
    UpdateFeatures(UpdateFeaturesRequest) 0..=1 => features::update_features,
    Envelope(EnvelopeRequest) 0..=0 => control::envelope,
    DescribeCluster(DescribeClusterRequest) 0..=1 => cluster::describe_cluster,
    DescribeProducers(DescribeProducersRequest) 0..=0 => offsets::describe_producers,
    AllocateProducerIds(AllocateProducerIdsRequest) 0..=0 => control::allocate_producer_ids,
    DeleteGroups(DeleteGroupsRequest) 0..=2 => groups::delete_groups,
    OffsetDelete(OffsetDeleteRequest) 0..=0 => group_offsets::offset_delete,
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatRequest) 0..=0 => groups::consumer_group_heartbeat,
    ConsumerGroupDescribe(ConsumerGroupDescribeRequest) 0..=0 => groups::consumer_group_describe,
}
