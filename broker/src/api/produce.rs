//! Produce (key 0, v0–11): appends one batch to each of several partitions and, with acks=all, waits
//! until the in-sync replicas have them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::{LeaderEpoch, Offset, is_internal_topic};
use barnabas_core::partition::verification::Admission;
use barnabas_core::records::BatchHeader;
use barnabas_core::records::validate::{self, ProduceRejection, ProduceRules, RequestFormat};
use barnabas_core::time::Now;
use bytes::Bytes;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::{Request as _, StrBytes};

use super::error_code::{NONE, ResponseError, ToErrorCode};
use super::leaders;
use super::repeated;
use super::throttled::Throttled as _;
use super::traffic::{self, Form};
use super::verification::{self, AdmissionError, Transaction};
use super::{Context, ErrorCodes as _, Reply};
use crate::clock;
use crate::log::{AppendError, AppendInfo};
use crate::replica::PartitionError;
use crate::replica::partition::{Partition, PartitionAppendError};
use crate::replica::waiters::{WaitFor, Waiter};

/// Client id of the tool that may write to internal topics. Kafka: `AdminUtils.ADMIN_CLIENT_ID`.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// From this version on clients know [`TRANSACTION_ABORTABLE`](super::error_code::TRANSACTION_ABORTABLE).
const ABORTABLE_ERRORS: i16 = 11;

const SEVERAL_PRODUCERS: &str = "Transactional records contained more than one producer ID";

/// Why a partition's records were not taken.
#[derive(Clone, Debug)]
pub enum ProduceError {
    Partition(PartitionError),
    InvalidRequiredAcks,
    InternalTopic,
    Rejected(ProduceRejection),
    NotAdmitted(AdmissionError),
    Append(AppendError),
}

impl From<PartitionAppendError> for ProduceError {
    fn from(error: PartitionAppendError) -> Self {
        match error {
            PartitionAppendError::Partition(error) => Self::Partition(error),
            PartitionAppendError::Append(error) => Self::Append(error),
        }
    }
}

/// What became of one partition's records.
struct Outcome {
    result: Result<Written, ProduceError>,
    /// -1 if unknown, or if the error is of those that do not tell it.
    log_start_offset: Offset,
}

/// Records that are in the log, or none that could have been.
struct Written {
    /// `None` if there was no whole batch, which versions 0 to 2 allow.
    info: Option<AppendInfo>,
    durability: Durability,
}

/// Whether the records are as durable as the request asks for.
enum Durability {
    Reached,
    /// Not before the high watermark of the partition is there.
    Awaits(Arc<Partition>, Offset, LeaderEpoch),
    /// It was not reached; the records stay in the log.
    Failed(PartitionError),
}

impl Outcome {
    fn awaited(&self) -> Option<(&Arc<Partition>, Offset, LeaderEpoch)> {
        match &self.result {
            Ok(Written {
                durability: Durability::Awaits(partition, offset, epoch),
                ..
            }) => Some((partition, *offset, *epoch)),
            Ok(_) | Err(_) => None,
        }
    }

    fn finish(&mut self, replicated: Result<(), PartitionError>) {
        if let Ok(Written { durability, .. }) = &mut self.result
            && matches!(durability, Durability::Awaits(..))
        {
            *durability = match replicated {
                Ok(()) => Durability::Reached,
                Err(error) => Durability::Failed(error),
            };
        }
    }

    fn error(&self) -> Option<ProduceError> {
        match &self.result {
            Ok(Written {
                durability: Durability::Failed(error),
                ..
            }) => Some(ProduceError::Partition(*error)),
            Ok(_) => None,
            Err(error) => Some(error.clone()),
        }
    }
}

/// Appends the records of a request and answers once they are as durable as it asks for.
pub async fn produce(mut request: ProduceRequest, context: &Context<'_>) -> Reply {
    repeated::merge(
        &mut request.topic_data,
        |topic| &topic.name,
        |topic| &mut topic.partition_data,
        |partition| partition.index,
    );
    if let Some(rejection) = refuse_whole(&request, context.version) {
        return if request.acks == 0 {
            Reply::Close
        } else {
            answer(respond_whole(&request, &rejection), context)
        };
    }
    let mut outcomes = match transactional_producer(&request) {
        Producer::None => append_all(&request, &BTreeMap::new(), context),
        Producer::One(producer) => {
            let admissions = admissions(&request, producer, context).await;
            append_all(&request, &admissions, context)
        }
        Producer::Several => {
            let error = ResponseError::InvalidProducerIdMapping;
            let response = respond_whole_with(&request, error, Some(SEVERAL_PRODUCERS));
            return if request.acks == 0 {
                Reply::Close
            } else {
                answer(response, context)
            };
        }
    };
    match request.acks {
        0 if outcomes.iter().any(|outcome| outcome.result.is_err()) => return Reply::Close,
        0 => {
            charge_bytes(context);
            context.charge_exempt();
            return Reply::None;
        }
        -1 => {
            let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
            wait_until_replicated(&mut outcomes, timeout).await;
        }
        _ => {}
    }
    answer(respond(&request, outcomes, context), context)
}

/// Counts the errors of a response and what its request used, and encodes it.
fn answer(mut response: ProduceResponse, context: &Context<'_>) -> Reply {
    let metrics = context.broker.metrics.request(ProduceRequest::KEY);
    response.each_error_code(&mut |code| metrics.errors(code, 1));
    charge_bytes(context);
    if let throttle_ms @ 1.. = context.charge() {
        response.set_throttle_time(context.version, throttle_ms as i32);
    }
    Reply::message(&response, context.version)
}

/// Counts the request against the client's quota of bytes. Kafka: the whole request, whatever became of it.
fn charge_bytes(context: &Context<'_>) {
    let quota = &context.broker.quotas.produce;
    if quota.is_enabled() {
        let bytes = context.call.request_bytes() as f64;
        let throttle_ms = quota.record(context.client(), bytes, clock::now().monotonic);
        context.call.throttle(throttle_ms);
    }
}

/// Flaws in any partition's records that fail the request as a whole, before any is appended.
fn refuse_whole(request: &ProduceRequest, version: i16) -> Option<ProduceRejection> {
    let format = RequestFormat::of_version(version);
    let records = || {
        request
            .topic_data
            .iter()
            .flat_map(|topic| &topic.partition_data)
            .filter_map(|partition| partition.records.as_ref())
    };
    let at_first = records().find_map(|records| match validate::first_look(records) {
        Ok(true) if request.transactional_id.is_none() => {
            Some(ProduceRejection::TransactionalIdMissing)
        }
        Ok(_) => None,
        Err(rejection) => Some(rejection),
    });
    at_first.or_else(|| {
        records()
            .filter_map(|records| validate::check_batches(records, format).err())
            .find(ProduceRejection::fails_whole_request)
    })
}

/// Producers of the transactional batches in a request.
enum Producer {
    None,
    /// Id and epoch.
    One((i64, i16)),
    Several,
}

fn transactional_producer(request: &ProduceRequest) -> Producer {
    if request.transactional_id.is_none() {
        return Producer::None;
    }
    let topics = request.topic_data.iter();
    let partitions = topics.flat_map(|topic| &topic.partition_data);
    let mut producers = partitions
        .filter_map(|data| transactional_batch(data.records.as_ref()?))
        .map(|header| (header.producer_id, header.producer_epoch));
    match producers.next() {
        None => Producer::None,
        Some(first) if producers.all(|other| other == first) => Producer::One(first),
        Some(_) => Producer::Several,
    }
}

/// The header of the first batch if it is transactional.
fn transactional_batch(records: &Bytes) -> Option<BatchHeader> {
    let header = BatchHeader::parse(records).ok()?;
    let is_transactional =
        header.magic >= 2 && header.is_transactional() && header.has_producer_id();
    is_transactional.then_some(header)
}

/// Position of a partition's records in a request.
type Position = (usize, usize);
type Admissions = BTreeMap<Position, Result<Admission, AdmissionError>>;

/// What the appends of a producer's transaction have to show.
async fn admissions(
    request: &ProduceRequest,
    (producer_id, producer_epoch): (i64, i16),
    context: &Context<'_>,
) -> Admissions {
    let mut positions = Vec::new();
    let mut partitions = Vec::new();
    for (topic_index, topic) in request.topic_data.iter().enumerate() {
        for (index, data) in topic.partition_data.iter().enumerate() {
            let Some(records) = &data.records else {
                continue;
            };
            if let Some(header) = transactional_batch(records)
                && let Ok(partition) = writable(request, &topic.name, data.index, records, context)
            {
                positions.push((topic_index, index));
                partitions.push((partition, header.base_sequence));
            }
        }
    }
    let transaction = Transaction {
        transactional_id: request
            .transactional_id
            .as_ref()
            .map_or("", |id| id.as_str()),
        producer_id,
        producer_epoch,
        knows_abortable: context.version >= ABORTABLE_ERRORS,
    };
    let admitted = verification::admit(context, transaction, &partitions).await;
    positions.into_iter().zip(admitted).collect()
}

fn append_all(
    request: &ProduceRequest,
    admissions: &Admissions,
    context: &Context<'_>,
) -> Vec<Outcome> {
    let now = clock::now();
    let count = request
        .topic_data
        .iter()
        .map(|topic| topic.partition_data.len())
        .sum();
    let mut outcomes = Vec::with_capacity(count);
    for (topic_index, topic) in request.topic_data.iter().enumerate() {
        for (index, data) in topic.partition_data.iter().enumerate() {
            let admission = admissions.get(&(topic_index, index));
            let admission = admission.copied().unwrap_or(Ok(Admission::Unchecked));
            outcomes.push(match admission {
                Ok(admission) => append_one(request, &topic.name, data, admission, context, now),
                Err(error) => Outcome {
                    result: Err(ProduceError::NotAdmitted(error)),
                    log_start_offset: -1,
                },
            });
        }
    }
    outcomes
}

fn append_one(
    request: &ProduceRequest,
    topic: &str,
    data: &PartitionProduceData,
    admission: Admission,
    context: &Context<'_>,
    now: Now,
) -> Outcome {
    let records = data.records.clone().unwrap_or_default();
    let partition = match writable(request, topic, data.index, &records, context) {
        Ok(partition) => partition,
        Err(error) => {
            return Outcome {
                result: Err(error),
                log_start_offset: -1,
            };
        }
    };
    partition.metrics.total_produce_requests.increment();
    let result = append_records(
        &partition,
        request,
        records,
        admission,
        context.version,
        now,
    );
    let log_start_offset = match &result {
        Ok(Written {
            info: Some(info), ..
        }) => info.log_start_offset,
        Ok(_) => partition.log().map_or(-1, |log| log.log_start_offset()),
        Err(error) => {
            traffic::rejected(&partition.metrics, error);
            if tells_log_start_offset(error) {
                partition.metrics.failed_produce_requests.increment();
                partition.log().map_or(-1, |log| log.log_start_offset())
            } else {
                -1
            }
        }
    };
    Outcome {
        result,
        log_start_offset,
    }
}

/// The partition, if this request may write to it at all.
fn writable(
    request: &ProduceRequest,
    topic: &str,
    partition: i32,
    records: &Bytes,
    context: &Context<'_>,
) -> Result<Arc<Partition>, ProduceError> {
    let found = context.broker.replicas.partition(topic, partition);
    if let Err(error @ PartitionError::UnknownTopicOrPartition) = found {
        return Err(ProduceError::Partition(error));
    }
    validate::check_batches(records, RequestFormat::of_version(context.version))
        .map_err(ProduceError::Rejected)?;
    if !matches!(request.acks, -1..=1) {
        return Err(ProduceError::InvalidRequiredAcks);
    }
    if is_internal_topic(topic) && context.client_id != Some(ADMIN_CLIENT_ID) {
        return Err(ProduceError::InternalTopic);
    }
    found.map_err(ProduceError::Partition)
}

fn append_records(
    partition: &Arc<Partition>,
    request: &ProduceRequest,
    records: Bytes,
    admission: Admission,
    version: i16,
    now: Now,
) -> Result<Written, ProduceError> {
    partition
        .check_writable(request.acks)
        .map_err(ProduceError::Partition)?;
    let rules = ProduceRules::for_topic(
        &partition.config(),
        partition.topic_partition.clone(),
        RequestFormat::of_version(version),
        request.transactional_id.is_some(),
    );
    let form = Form::of(&records);
    let prepared =
        validate::prepare(records, &rules, now.wall_clock_ms).map_err(ProduceError::Rejected)?;
    let Some(batch) = prepared else {
        return Ok(Written {
            info: None,
            durability: Durability::Reached,
        });
    };
    let info = partition.append(&batch, admission, request.acks, now)?;
    traffic::appended(&partition.metrics, form, &batch);
    let durability = if request.acks == -1 {
        Durability::Awaits(
            Arc::clone(partition),
            info.last_offset + 1,
            info.leader_epoch,
        )
    } else {
        Durability::Reached
    };
    Ok(Written {
        info: Some(info),
        durability,
    })
}

/// Waits until every written partition is replicated; what is not in time gets an error.
async fn wait_until_replicated(outcomes: &mut [Outcome], timeout: Duration) {
    settle(outcomes);
    if outcomes.iter().all(|outcome| outcome.awaited().is_none()) {
        return;
    }
    let waiter = Waiter::new(0);
    let registrations: Vec<_> = outcomes
        .iter()
        .filter_map(Outcome::awaited)
        .map(|(partition, offset, _)| partition.wait(WaitFor::Offset(offset), &waiter))
        .collect();
    let replicated = async {
        loop {
            settle(outcomes);
            if outcomes.iter().all(|outcome| outcome.awaited().is_none()) {
                return;
            }
            waiter.woken().await;
        }
    };
    if tokio::time::timeout(timeout, replicated).await.is_err() {
        for outcome in outcomes.iter_mut() {
            outcome.finish(Err(PartitionError::RequestTimedOut));
        }
    }
    drop(registrations);
}

/// Takes note of what is replicated by now.
fn settle(outcomes: &mut [Outcome]) {
    for outcome in outcomes {
        let replicated = outcome
            .awaited()
            .and_then(|(partition, offset, epoch)| partition.replicated(offset, epoch));
        if let Some(replicated) = replicated {
            outcome.finish(replicated);
        }
    }
}

/// Whether the answer to a failed append tells the log start offset: not for those errors that Kafka
/// expects (`ReplicaManager.appendToLocalLog`).
fn tells_log_start_offset(error: &ProduceError) -> bool {
    match error {
        ProduceError::Partition(error) => match error {
            PartitionError::UnknownTopicOrPartition
            | PartitionError::NotLeaderOrFollower
            | PartitionError::StorageError => false,
            PartitionError::UnknownTopicId
            | PartitionError::FencedLeaderEpoch
            | PartitionError::UnknownLeaderEpoch
            | PartitionError::InconsistentTopicId
            | PartitionError::OffsetOutOfRange
            | PartitionError::NotEnoughReplicas
            | PartitionError::NotEnoughReplicasAfterAppend
            | PartitionError::RequestTimedOut => true,
        },
        ProduceError::InvalidRequiredAcks
        | ProduceError::InternalTopic
        | ProduceError::NotAdmitted(_) => false,
        ProduceError::Rejected(rejection) => match rejection {
            ProduceRejection::MessageTooLarge { .. }
            | ProduceRejection::Corrupt(_)
            | ProduceRejection::CorruptWholeRequest(_) => false,
            ProduceRejection::InvalidRecord { .. }
            | ProduceRejection::InvalidTimestamp { .. }
            | ProduceRejection::UnsupportedCompression
            | ProduceRejection::TransactionalIdMissing
            | ProduceRejection::Unexpected(_)
            | ProduceRejection::UnexpectedWholeRequest(_) => true,
        },
        ProduceError::Append(error) => match error {
            AppendError::RecordListTooLarge { .. }
            | AppendError::Corrupt { .. }
            | AppendError::Storage(_) => false,
            AppendError::Producer(_)
            | AppendError::UnexpectedOffset { .. }
            | AppendError::OffsetsNotAscending => true,
        },
    }
}

fn respond(
    request: &ProduceRequest,
    outcomes: Vec<Outcome>,
    context: &Context<'_>,
) -> ProduceResponse {
    let mut leaders = Vec::new();
    let mut outcomes = outcomes.into_iter();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in &request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for (data, outcome) in topic.partition_data.iter().zip(outcomes.by_ref()) {
            let mut response = respond_partition(data.index, &outcome);
            if context.version >= 10
                && response.error_code == ResponseError::NotLeaderOrFollower.code()
            {
                let leader = leaders::current_leader(context, &topic.name, data.index);
                response.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(leader.id.into())
                    .with_leader_epoch(leader.epoch);
                leaders.push(leader);
            }
            partitions.push(response);
        }
        responses.push(
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_partition_responses(partitions),
        );
    }
    let response = ProduceResponse::default().with_responses(responses);
    if leaders.is_empty() {
        return response;
    }
    let endpoints = leaders::endpoints(context, leaders)
        .into_iter()
        .map(|endpoint| {
            NodeEndpoint::default()
                .with_node_id(endpoint.node_id.into())
                .with_host(StrBytes::from_string(endpoint.host))
                .with_port(endpoint.port)
                .with_rack(endpoint.rack.map(StrBytes::from_string))
        });
    response.with_node_endpoints(endpoints.collect())
}

/// Fields that the version lacks are left out by the encoder.
fn respond_partition(index: i32, outcome: &Outcome) -> PartitionProduceResponse {
    let error = outcome.error();
    let mut response = PartitionProduceResponse::default()
        .with_index(index)
        .with_base_offset(-1)
        .with_error_code(error.as_ref().map_or(NONE, ToErrorCode::error_code))
        .with_log_start_offset(outcome.log_start_offset);
    if let Ok(Written {
        info: Some(info), ..
    }) = &outcome.result
    {
        response.base_offset = info.first_offset;
        response.log_append_time_ms = info.log_append_time_ms;
    }
    if let Some(ProduceError::NotAdmitted(refusal)) = &error {
        let (_, message) = refusal.for_produce();
        response.error_message = message.map(StrBytes::from_string);
    }
    if let Some(ProduceError::Rejected(rejection)) = error {
        response.error_message = rejection
            .client_message()
            .map(|message| StrBytes::from_string(message.to_owned()));
        response.record_errors = rejection
            .record_errors()
            .iter()
            .map(|(index, message)| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(*index)
                    .with_batch_index_error_message(Some(StrBytes::from_string(message.clone())))
            })
            .collect();
    }
    response
}

/// A flaw that fails the request as a whole, told for each of its partitions.
fn respond_whole(request: &ProduceRequest, rejection: &ProduceRejection) -> ProduceResponse {
    let error = rejection.to_response_error();
    respond_whole_with(request, error, rejection.client_message())
}

fn respond_whole_with(
    request: &ProduceRequest,
    error: ResponseError,
    message: Option<&str>,
) -> ProduceResponse {
    let respond = |data: &PartitionProduceData| {
        PartitionProduceResponse::default()
            .with_index(data.index)
            .with_error_code(error.code())
            .with_base_offset(-1)
            .with_error_message(message.map(|text| StrBytes::from_string(text.to_owned())))
    };
    let topics = request.topic_data.iter().map(|topic| {
        TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_partition_responses(topic.partition_data.iter().map(respond).collect())
    });
    ProduceResponse::default().with_responses(topics.collect())
}
