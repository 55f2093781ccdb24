//! Fetch (key 1, v0–17): reads partitions, waits for more if there is too little, and answers with
//! ranges of segment files. Sessions (KIP-227) are in `replica::fetch_session_cache`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::config::TargetCompression;
use barnabas_core::ids::{BrokerId, TopicId, TopicName};
use barnabas_core::metadata::ClusterImage;
use barnabas_core::records::legacy;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::protocol::Request as _;
use uuid::Uuid;

use super::error_code::{NONE, ResponseError, ToErrorCode};
use super::fetch_encoder::{AnsweredPartition, FetchHeader, PartitionAnswer, Records, encode};
use super::leaders;
use super::{Context, Reply, traffic};
use crate::clock;
use crate::metrics::Fetcher;
use crate::replica::PartitionError;
use crate::replica::fetch_session::{Answered, FetchTarget, PartitionKey};
use crate::replica::fetch_session_cache::{PlacedTarget, SessionReply, SessionRequest};
use crate::replica::partition::{Isolation, Partition, ReadFrom, ReadOutcome, ReadRequest, Reader};
use crate::replica::waiters::{WaitFor, Waiter};

/// First version that tells the throttle time.
const THROTTLE_TIME: i16 = 1;
/// First version whose limits may be exceeded by one batch, so that a consumer always gets on.
const SOFT_LIMITS: i16 = 3;
/// First version with sessions.
const SESSIONS: i16 = 7;
/// Ids that Kafka finds a place for in the eight parts of its cache (`FetchSessionCache.getCacheShard`).
const SESSION_IDS: std::ops::RangeInclusive<i32> = -(i32::MAX / 8 - 1)..=8 * (i32::MAX / 8) - 1;
/// First version whose clients may read from followers (KIP-392).
const FOLLOWER_READS: i16 = 11;
/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;
/// First version that moves the replica id into a tagged field.
const REPLICA_STATE: i16 = 15;
/// First version that tells the current leader (KIP-951).
const CURRENT_LEADER: i16 = 16;
/// Value of `replica.selector.class` that sends consumers to the replica in their rack.
const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// What a response has beside records: for itself, and for each partition.
const RESPONSE_BYTES: usize = 20;
const PARTITION_BYTES: usize = 48;

/// Reads what a request asks for; waits up to `MaxWaitMs` until there are `MinBytes`.
pub async fn fetch(request: FetchRequest, context: &Context<'_>) -> Reply {
    if context.version >= SESSIONS && !SESSION_IDS.contains(&request.session_id) {
        return refuse(&request, context);
    }
    let plan = Plan::new(&request, context);
    let image = context.broker.metadata.image();
    let now = clock::now();
    let now_ms = now.monotonic.as_millis() as u64;
    let sessions = &context.broker.fetch_sessions;
    let begun = sessions.begin(
        session_request(&request, &plan, &image),
        |id| topic_name(&image, id),
        now_ms,
    );
    let (session, targets) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let header = FetchHeader {
                error_code: error.error_code(),
                ..FetchHeader::default()
            };
            note_errors(context, [header.error_code].into_iter());
            let nothing = std::iter::empty();
            return Reply::Fetched {
                by: plan.fetcher(),
                sections: encode(context.version, &header, nothing),
            };
        }
    };
    let (mut reads, unknown) = look_up(targets, &image, context);
    if !reads.is_empty() && !matches!(request.isolation_level, 0 | 1) {
        return refuse(&request, context);
    }
    let pass = plan.read(&mut reads);
    plan.note_follower(&reads, now);
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    if !wait.is_zero() && !reads.is_empty() && !pass.is_enough(&plan) {
        plan.wait(&mut reads, wait).await;
    }
    if let throttle_ms @ 1.. = plan.charge(&reads, context) {
        return throttled(throttle_ms, &sessions.throttled(session), &plan, context);
    }
    for read in &mut reads {
        read.answer = plan.answer(read);
        if let Ok(partition) = &read.partition {
            let bytes = read.answer.records.size_in_bytes();
            if bytes == 0 {
                continue;
            }
            traffic::fetched(&partition.metrics, plan.fetcher(), bytes);
            if plan.is_follower() && partition.is_throttled_as_leader() {
                let quota = context.broker.replicas.leader_quota();
                quota.record(bytes, clock::now());
            }
        }
    }
    reads.extend(unknown);
    let mut header = FetchHeader::default();
    if context.version >= CURRENT_LEADER {
        header.node_endpoints = name_leaders(&mut reads, context);
    }
    let reply = sessions.finish(
        session,
        reads.iter().map(|read| (&read.target, read.answered())),
        now_ms,
    );
    header.session_id = reply.session_id;
    header.error_code = reply.error.map_or(NONE, |error| error.error_code());
    let by_id = context.version >= TOPIC_IDS;
    let no_name = TopicName::from("");
    let included = reply.included.as_deref();
    let answers = reads
        .iter()
        .enumerate()
        .filter(|(place, _)| included.is_none_or(|included| included[*place]))
        .map(|(_, read)| read.encodable(by_id, &no_name));
    let sections = encode(context.version, &header, answers.clone());
    let of_partitions = answers.map(|answered| answered.answer.error_code);
    note_errors(context, of_partitions.chain([header.error_code]));
    Reply::Fetched {
        by: plan.fetcher(),
        sections,
    }
}

/// The answer to a client that is over a quota: no records, and its session stays as it was.
fn throttled(
    throttle_ms: u32,
    session: &SessionReply,
    plan: &Plan,
    context: &Context<'_>,
) -> Reply {
    let header = FetchHeader {
        throttle_time_ms: if context.version >= THROTTLE_TIME {
            throttle_ms as i32
        } else {
            0
        },
        session_id: session.session_id,
        error_code: session.error.map_or(NONE, |error| error.error_code()),
        ..FetchHeader::default()
    };
    note_errors(context, [header.error_code].into_iter());
    Reply::Fetched {
        by: plan.fetcher(),
        sections: encode(context.version, &header, std::iter::empty()),
    }
}

/// Counts error codes; almost all of them are "no error".
fn note_errors(context: &Context<'_>, codes: impl Iterator<Item = i16>) {
    let metrics = context.broker.metrics.request(FetchRequest::KEY);
    let mut without = 0;
    for code in codes {
        if code == NONE {
            without += 1;
        } else {
            metrics.errors(code, 1);
        }
    }
    metrics.errors(NONE, without);
}

/// One partition of a fetch, from looking it up to its answer.
struct Read {
    target: PlacedTarget,
    partition: Result<Arc<Partition>, PartitionError>,
    outcome: Result<ReadOutcome, PartitionError>,
    answer: PartitionAnswer,
}

impl Read {
    fn answered(&self) -> Answered {
        Answered {
            high_watermark: self.answer.high_watermark,
            log_start_offset: self.answer.log_start_offset,
            has_records: self.answer.records.size_in_bytes() > 0,
            has_error: self.answer.error_code != NONE,
            has_preferred_replica: self.answer.preferred_read_replica != -1,
            is_diverging: self.answer.diverging_epoch.is_some(),
        }
    }

    fn encodable<'a>(&'a self, by_id: bool, no_name: &'a TopicName) -> AnsweredPartition<'a> {
        let target = &self.target.target;
        AnsweredPartition {
            topic: target.topic.as_ref().unwrap_or(no_name),
            topic_id: if by_id { target.topic_id } else { Uuid::nil() },
            partition: target.partition,
            answer: &self.answer,
        }
    }

    fn bytes(&self) -> usize {
        match &self.outcome {
            Ok(ReadOutcome {
                records: Some(slice),
                ..
            }) => slice.length,
            Ok(_) | Err(_) => 0,
        }
    }

    /// Whether the partition is not any more as it was when it was read.
    fn has_moved(&self, reader: Reader) -> bool {
        let (Ok(partition), Ok(outcome)) = (&self.partition, &self.outcome) else {
            return true;
        };
        match reader {
            Reader::Consumer { .. } => partition.high_watermark() != outcome.high_watermark,
            Reader::Follower { .. } => partition
                .log()
                .map_or(true, |log| log.log_end_offset() != outcome.log_end_offset),
        }
    }
}

/// The result of reading all partitions once.
struct Pass {
    bytes: usize,
    /// Something happened that the client should know at once.
    is_news: bool,
}

impl Pass {
    fn is_enough(&self, plan: &Plan) -> bool {
        self.is_news || self.bytes >= plan.min_bytes
    }
}

/// How a request is to be read.
struct Plan {
    version: i16,
    reader: Reader,
    min_bytes: usize,
    max_bytes: usize,
    /// Rack and listener of a consumer that may be sent to another replica.
    rack: Option<(String, Arc<str>)>,
    /// Followers have used up what this broker sends to throttled replicas.
    is_quota_exceeded: bool,
}

impl Plan {
    fn new(request: &FetchRequest, context: &Context<'_>) -> Self {
        let version = context.version;
        let replica_id = replica_id(request, version);
        let reader = if replica_id >= 0 {
            Reader::Follower {
                id: BrokerId(replica_id),
                log_start_offset: -1,
            }
        } else {
            Reader::Consumer {
                isolation: if request.isolation_level == 1 {
                    Isolation::ReadCommitted
                } else {
                    Isolation::ReadUncommitted
                },
                from: if version >= FOLLOWER_READS {
                    ReadFrom::AnyReplica
                } else {
                    ReadFrom::Leader
                },
            }
        };
        let most = context.broker.config.broker().fetch_max_bytes;
        let max_bytes = if version >= SOFT_LIMITS {
            request.max_bytes.min(most)
        } else {
            most
        };
        let is_follower = replica_id >= 0;
        let max_bytes = match context.broker.quotas.fetch.allowance(context.client()) {
            Some(allowance) if !is_follower => max_bytes.min(allowance as i32),
            Some(_) | None => max_bytes,
        };
        let selector = context.broker.config.broker();
        let selector = selector.replica_selector_class.as_deref();
        let is_rack_aware = selector == Some(RACK_AWARE_SELECTOR);
        let may_be_sent_on = is_rack_aware && !is_follower && version >= FOLLOWER_READS;
        let quota = context.broker.replicas.leader_quota();
        Self {
            version,
            reader,
            rack: (may_be_sent_on && !request.rack_id.is_empty()).then(|| {
                let listener = Arc::clone(&context.connection.listener);
                (request.rack_id.to_string(), listener)
            }),
            is_quota_exceeded: is_follower && quota.is_exceeded(clock::now()),
            min_bytes: usize::try_from(request.min_bytes.min(max_bytes)).unwrap_or(0),
            max_bytes: usize::try_from(max_bytes).unwrap_or(0),
        }
    }

    /// Counts what was read against the client's quotas. Returns for how many milliseconds the client is throttled:
    /// then it is not given what was read, and what it did not get is not counted.
    fn charge(&self, reads: &[Read], context: &Context<'_>) -> u32 {
        if self.is_follower() {
            context.charge_exempt();
            return 0;
        }
        let quota = &context.broker.quotas.fetch;
        if !quota.is_enabled() {
            return context.charge();
        }
        let now = clock::now().monotonic;
        let with_records = reads.iter().map(Read::bytes).filter(|bytes| *bytes > 0);
        let bytes: usize = with_records.map(|bytes| bytes + PARTITION_BYTES).sum();
        let bytes = (bytes + RESPONSE_BYTES) as f64;
        context
            .call
            .throttle(quota.record(context.client(), bytes, now));
        let throttle_ms = context.charge();
        if throttle_ms > 0 {
            quota.note(context.client(), -bytes, now);
        }
        throttle_ms
    }

    fn is_follower(&self) -> bool {
        matches!(self.reader, Reader::Follower { .. })
    }

    fn fetcher(&self) -> Fetcher {
        match self.reader {
            Reader::Follower { .. } => Fetcher::Follower,
            Reader::Consumer { .. } => Fetcher::Consumer,
        }
    }

    /// Reads all partitions in order, within the limits of the request.
    fn read(&self, reads: &mut [Read]) -> Pass {
        let mut pass = Pass {
            bytes: 0,
            is_news: false,
        };
        let mut left = self.max_bytes;
        let mut minimum_one_batch = self.version >= SOFT_LIMITS;
        for read in reads {
            read.outcome = self.read_one(read, left, minimum_one_batch);
            if self.version >= SOFT_LIMITS
                && let Ok(ReadOutcome { records, .. }) = &mut read.outcome
            {
                // A batch that does not fit is not sent in part, but before version 3 it is.
                records.take_if(|slice| slice.first_batch_incomplete);
            }
            let bytes = read.bytes();
            pass.bytes += bytes;
            pass.is_news |= match &read.outcome {
                Ok(outcome) => {
                    outcome.diverging_epoch.is_some() || outcome.preferred_replica.is_some()
                }
                Err(_) => true,
            };
            minimum_one_batch &= bytes == 0;
            left = left.saturating_sub(bytes);
        }
        pass
    }

    fn read_one(
        &self,
        read: &Read,
        left: usize,
        minimum_one_batch: bool,
    ) -> Result<ReadOutcome, PartitionError> {
        let target = &read.target.target;
        let partition = read.partition.as_ref().map_err(|error| *error)?;
        let preferred_replica = self.rack.as_ref().and_then(|(rack, listener)| {
            partition.preferred_replica(target.fetch_offset, rack, listener)
        });
        // Neither who is sent elsewhere nor who has to wait for the quota is given records.
        let is_empty_handed = preferred_replica.is_some() || self.is_throttled(partition);
        let (left, minimum_one_batch) = if is_empty_handed {
            (0, false)
        } else {
            (left, minimum_one_batch)
        };
        let outcome = partition.read(&ReadRequest {
            topic_id: (!target.topic_id.is_nil()).then_some(TopicId(target.topic_id)),
            fetch_offset: target.fetch_offset,
            max_bytes: usize::try_from(target.max_bytes).unwrap_or(0).min(left),
            minimum_one_batch,
            current_leader_epoch: target.current_leader_epoch,
            last_fetched_epoch: target.last_fetched_epoch,
            reader: self.reader,
        })?;
        Ok(ReadOutcome {
            preferred_replica,
            ..outcome
        })
    }

    /// Whether a follower that is not in sync has to wait because the leader's quota is used up (KIP-73).
    fn is_throttled(&self, partition: &Partition) -> bool {
        let Reader::Follower { id, .. } = self.reader else {
            return false;
        };
        self.is_quota_exceeded
            && partition.is_throttled_as_leader()
            && partition
                .in_sync_replicas()
                .is_some_and(|isr| !isr.contains(&id))
    }

    /// Tells the partitions how far a follower has got. Kafka: only after the first read of a fetch.
    fn note_follower(&self, reads: &[Read], now: barnabas_core::time::Now) {
        let Reader::Follower { id, .. } = self.reader else {
            return;
        };
        for read in reads {
            if let (Ok(partition), Ok(outcome)) = (&read.partition, &read.outcome)
                && outcome.diverging_epoch.is_none()
            {
                let target = &read.target.target;
                partition.follower_fetched(
                    id,
                    outcome.leader_epoch,
                    target.fetch_offset,
                    target.log_start_offset,
                    outcome.log_end_offset,
                    now,
                );
            }
        }
    }

    /// Waits until there is enough to read or the time is over, and reads again.
    async fn wait(&self, reads: &mut [Read], longest: Duration) {
        let deadline = tokio::time::Instant::now() + longest;
        let wait_for = if self.is_follower() {
            WaitFor::AppendedBytes
        } else {
            WaitFor::CommittedBytes
        };
        let waiter = Waiter::new(self.min_bytes);
        let registrations: Vec<_> = reads
            .iter()
            .filter_map(|read| read.partition.as_ref().ok())
            .map(|partition| partition.wait(wait_for, &waiter))
            .collect();
        // What moved before the registration woke nobody.
        let mut is_due = reads.iter().any(|read| read.has_moved(self.reader));
        loop {
            let is_over = !is_due
                && tokio::time::timeout_at(deadline, waiter.woken())
                    .await
                    .is_err();
            is_due = false;
            waiter.expect(self.min_bytes);
            let pass = self.read(reads);
            if is_over || pass.is_enough(self) {
                break;
            }
            waiter.credit(pass.bytes);
        }
        drop(registrations);
    }

    fn answer(&self, read: &Read) -> PartitionAnswer {
        let answer = match &read.outcome {
            Ok(outcome) => found(outcome),
            Err(error) => failed(self.wire_error(*error), None),
        };
        match &read.partition {
            Ok(partition) => self.convert(partition, &read.target.target, answer),
            Err(_) => answer,
        }
    }

    /// Clients before version 6 do not know the storage error.
    fn wire_error(&self, error: PartitionError) -> ResponseError {
        if error == PartitionError::StorageError && self.version <= 5 {
            ResponseError::NotLeaderOrFollower
        } else {
            error.to_response_error()
        }
    }

    /// Makes records readable for clients that know neither zstd nor batches of magic 2.
    fn convert(
        &self,
        partition: &Partition,
        target: &FetchTarget,
        answer: PartitionAnswer,
    ) -> PartitionAnswer {
        if self.version >= 10 {
            return answer;
        }
        let config = partition.config();
        if config.compression_type == TargetCompression::Zstd {
            return refusal(ResponseError::UnsupportedCompressionType);
        }
        if self.version > 3 {
            return answer;
        }
        if !self.is_follower() && !config.message_downconversion_enable {
            return refusal(ResponseError::UnsupportedVersion);
        }
        let Records::File(slice) = &answer.records else {
            return answer;
        };
        partition.metrics.fetch_message_conversions.increment();
        let magic = i8::from(self.version > 1);
        let converted = slice
            .read_all()
            .map_err(|_| self.wire_error(PartitionError::StorageError))
            .and_then(|bytes| {
                legacy::down_convert(&bytes, magic, target.fetch_offset)
                    .map_err(|error| error.to_response_error())
            });
        match converted {
            Ok(records) => PartitionAnswer {
                records: Records::Bytes(records),
                ..answer
            },
            Err(error) => refusal(error),
        }
    }
}

fn found(outcome: &ReadOutcome) -> PartitionAnswer {
    PartitionAnswer {
        error_code: NONE,
        high_watermark: outcome.high_watermark,
        last_stable_offset: outcome.last_stable_offset,
        log_start_offset: outcome.log_start_offset,
        diverging_epoch: outcome.diverging_epoch,
        current_leader: None,
        aborted_transactions: outcome.aborted_transactions.clone(),
        preferred_read_replica: outcome.preferred_replica.map_or(-1, |id| id.0),
        records: match &outcome.records {
            Some(slice) => Records::File(slice.clone()),
            None => Records::EMPTY,
        },
    }
}

fn failed(
    error: ResponseError,
    aborted_transactions: Option<Vec<crate::log::AbortedTransaction>>,
) -> PartitionAnswer {
    PartitionAnswer {
        error_code: error.code(),
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        diverging_epoch: None,
        current_leader: None,
        aborted_transactions,
        preferred_read_replica: -1,
        records: Records::EMPTY,
    }
}

/// An error that is told without any records. Kafka: `FetchResponse.partitionResponse`.
fn refusal(error: ResponseError) -> PartitionAnswer {
    PartitionAnswer {
        records: Records::Null,
        ..failed(error, Some(Vec::new()))
    }
}

/// What cannot be fails the whole request, up to version 12 each partition.
fn refuse(request: &FetchRequest, context: &Context<'_>) -> Reply {
    let header = FetchHeader {
        error_code: ResponseError::UnknownServerError.code(),
        session_id: request.session_id,
        ..FetchHeader::default()
    };
    let answer = refusal(ResponseError::UnknownServerError);
    let names: Vec<TopicName> = request
        .topics
        .iter()
        .map(|topic| TopicName::from(topic.topic.as_str()))
        .collect();
    let topics = if context.version < TOPIC_IDS {
        request.topics.as_slice()
    } else {
        &[]
    };
    let answers = topics.iter().zip(&names).flat_map(|(topic, name)| {
        topic.partitions.iter().map(|partition| AnsweredPartition {
            topic: name,
            topic_id: Uuid::nil(),
            partition: partition.partition,
            answer: &answer,
        })
    });
    Reply::Fetched {
        by: if replica_id(request, context.version) >= 0 {
            Fetcher::Follower
        } else {
            Fetcher::Consumer
        },
        sections: encode(context.version, &header, answers),
    }
}

/// The follower's id; negative for consumers.
fn replica_id(request: &FetchRequest, version: i16) -> i32 {
    if version >= REPLICA_STATE {
        request.replica_state.replica_id.0
    } else {
        request.replica_id.0
    }
}

fn topic_name(image: &ClusterImage, id: Uuid) -> Option<TopicName> {
    image.topic_names.get(&TopicId(id)).cloned()
}

/// The session part of a request, and its partitions, each once.
fn session_request(request: &FetchRequest, plan: &Plan, image: &ClusterImage) -> SessionRequest {
    let by_id = plan.version >= TOPIC_IDS;
    let name = |name: &str, id: Uuid| {
        if by_id {
            topic_name(image, id)
        } else {
            Some(match image.topics.get_key_value(name) {
                Some((known, _)) => TopicName::clone(known),
                None => TopicName::from(name),
            })
        }
    };
    let mut partitions = Vec::new();
    for topic in &request.topics {
        let topic_name = name(&topic.topic, topic.topic_id);
        for partition in &topic.partitions {
            partitions.push(FetchTarget {
                topic_id: topic.topic_id,
                topic: topic_name.clone(),
                partition: partition.partition,
                fetch_offset: partition.fetch_offset,
                log_start_offset: partition.log_start_offset,
                max_bytes: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            });
        }
    }
    let forgotten = request
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| {
            let topic_name = name(&topic.topic, topic.topic_id);
            topic.partitions.iter().map(move |&partition| PartitionKey {
                topic_id: topic.topic_id,
                topic: topic_name.clone(),
                partition,
            })
        })
        .collect();
    let has_session = plan.version >= SESSIONS;
    SessionRequest {
        session_id: if has_session { request.session_id } else { 0 },
        session_epoch: if has_session {
            request.session_epoch
        } else {
            -1
        },
        uses_topic_ids: by_id,
        is_follower: plan.is_follower(),
        partitions: each_once(partitions),
        forgotten,
    }
}

/// A partition that is named twice is read once, at its first place with its last parameters.
fn each_once(partitions: Vec<FetchTarget>) -> Vec<FetchTarget> {
    if partitions.len() < 2 {
        return partitions;
    }
    let mut places = HashMap::with_capacity(partitions.len());
    let mut once: Vec<FetchTarget> = Vec::with_capacity(partitions.len());
    for target in partitions {
        match places.entry(target.key()) {
            std::collections::hash_map::Entry::Occupied(place) => once[*place.get()] = target,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(once.len());
                once.push(target);
            }
        }
    }
    once
}

/// Finds the partitions to read. Those that the cluster does not have come second: they are told
/// last, and do not keep a request from waiting.
fn look_up(
    targets: Vec<PlacedTarget>,
    image: &ClusterImage,
    context: &Context<'_>,
) -> (Vec<Read>, Vec<Read>) {
    let mut reads = Vec::with_capacity(targets.len());
    let mut unknown = Vec::new();
    for target in targets {
        let wanted = &target.target;
        let is_known = |topic: &TopicName| {
            image
                .topics
                .get(topic)
                .is_some_and(|topic| topic.partitions.contains_key(&wanted.partition))
        };
        let error = match &wanted.topic {
            None => Some(PartitionError::UnknownTopicId),
            Some(topic) if !is_known(topic) => Some(PartitionError::UnknownTopicOrPartition),
            Some(_) => None,
        };
        if let Some(error) = error {
            unknown.push(Read {
                answer: failed(error.to_response_error(), Some(Vec::new())),
                partition: Err(error),
                outcome: Err(error),
                target,
            });
            continue;
        }
        let topic = wanted.topic.as_deref().unwrap_or_default();
        let partition = context.broker.replicas.partition(topic, wanted.partition);
        if let Ok(partition) = &partition {
            partition.metrics.total_fetch_requests.increment();
        }
        reads.push(Read {
            outcome: Err(PartitionError::NotLeaderOrFollower),
            answer: failed(ResponseError::UnknownServerError, None),
            partition,
            target,
        });
    }
    (reads, unknown)
}

/// Tells who leads the partitions that are led elsewhere, and where those brokers are.
fn name_leaders(reads: &mut [Read], context: &Context<'_>) -> Vec<leaders::NodeEndpoint> {
    let elsewhere = [
        ResponseError::NotLeaderOrFollower.code(),
        ResponseError::FencedLeaderEpoch.code(),
    ];
    let mut named = Vec::new();
    for read in reads {
        if elsewhere.contains(&read.answer.error_code)
            && let Some(topic) = &read.target.target.topic
        {
            let leader = leaders::current_leader(context, topic, read.target.target.partition);
            read.answer.current_leader = Some((leader.id, leader.epoch));
            named.push(leader);
        }
    }
    leaders::endpoints(context, named)
}
