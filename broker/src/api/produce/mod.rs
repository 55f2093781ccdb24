//! Produce (key 0, v0–11): appends one batch to each of several partitions and, with acks=all, waits
//! until the in-sync replicas have them.

mod append;
mod respond;

use std::collections::BTreeMap;
use std::time::Duration;

use barnabas_core::partition::verification::Admission;
use barnabas_core::records::BatchHeader;
use barnabas_core::records::validate::{self, ProduceRejection, RequestFormat};
use bytes::Bytes;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::Request as _;

use super::repeated;
use super::throttled::Throttled as _;
use super::verification::{self, AdmissionError, Transaction};
use super::{Context, ErrorCodes as _, Reply};
use crate::clock;
use crate::log::AppendError;
use crate::replica::PartitionError;
use crate::replica::partition::PartitionAppendError;
use append::{append_all, wait_until_replicated, writable};
use respond::{respond, respond_whole};

/// Client id of the tool that may write to internal topics. Kafka: `AdminUtils.ADMIN_CLIENT_ID`.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// From this version on clients know [`TRANSACTION_ABORTABLE`](super::error_code::TRANSACTION_ABORTABLE).
const ABORTABLE_ERRORS: i16 = 11;

/// Why a partition's records were not taken.
#[derive(Clone, Debug)]
pub enum ProduceError {
    Partition(PartitionError),
    InvalidRequiredAcks,
    InternalTopic,
    /// Transactional records of more than one producer; fails the whole request.
    SeveralProducers,
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
            answer(
                respond_whole(&request, &ProduceError::Rejected(rejection)),
                context,
            )
        };
    }
    let mut outcomes = match transactional_producer(&request) {
        Producer::None => append_all(&request, &BTreeMap::new(), context),
        Producer::One(producer) => {
            let admissions = admissions(&request, producer, context).await;
            append_all(&request, &admissions, context)
        }
        Producer::Several => {
            let response = respond_whole(&request, &ProduceError::SeveralProducers);
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
