//! Fetch (key 1, v0–17): reads partitions, waits for more if there is too little, and answers with
//! ranges of segment files. Sessions (KIP-227) are in `replica::fetch_session_cache`.

mod answer;
mod plan;
mod read;

use std::time::Duration;

use barnabas_core::ids::TopicName;
use barnabas_core::records::legacy::DownConversionError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::protocol::Request as _;
use uuid::Uuid;

use super::error_code::{NONE, ToErrorCode as _, is_led_elsewhere};
use super::fetch_encoder::{AnsweredPartition, FetchHeader, encode};
use super::leaders;
use super::{Context, Reply, traffic};
use crate::clock;
use crate::metrics::Fetcher;
use crate::replica::PartitionError;
use crate::replica::fetch_session_cache::SessionReply;
use answer::refusal;
use plan::Plan;
use read::{Read, look_up, session_request, topic_name};

/// First version that tells the throttle time.
const THROTTLE_TIME: i16 = 1;
/// First version whose limits may be exceeded by one batch, so that a consumer always gets on.
const SOFT_LIMITS: i16 = 3;
/// First version with sessions.
const SESSIONS: i16 = 7;
/// Ids that Kafka finds a place for in the eight parts of its cache (`FetchSessionCache.getCacheShard`).
const SESSION_IDS: std::ops::RangeInclusive<i32> = -(i32::MAX / 8 - 1)..=8 * (i32::MAX / 8) - 1;
/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;
/// First version that moves the replica id into a tagged field.
const REPLICA_STATE: i16 = 15;
/// First version that tells the current leader (KIP-951).
const CURRENT_LEADER: i16 = 16;

/// Why a partition is not read as it is asked for.
#[derive(Clone, Debug)]
pub enum FetchError {
    Partition(PartitionError),
    /// Records in zstd for clients that do not know it.
    UnknownCodec,
    /// Records are not converted for old clients.
    NoDownConversion,
    DownConversion(DownConversionError),
    /// What no client of Kafka's sends, or what nobody has read.
    Unexpected,
}

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
    let (mut reads, unknown) = look_up(targets, &plan, &image, context);
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

/// What cannot be fails the whole request, up to version 12 each partition.
fn refuse(request: &FetchRequest, context: &Context<'_>) -> Reply {
    let header = FetchHeader {
        error_code: FetchError::Unexpected.error_code(),
        session_id: request.session_id,
        ..FetchHeader::default()
    };
    let answer = refusal(&FetchError::Unexpected);
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

/// Tells who leads the partitions that are led elsewhere, and where those brokers are.
fn name_leaders(reads: &mut [Read], context: &Context<'_>) -> Vec<leaders::NodeEndpoint> {
    let mut named = Vec::new();
    for read in reads {
        if is_led_elsewhere(read.answer.error_code)
            && let Some(topic) = &read.target.target.topic
        {
            let leader = leaders::current_leader(context, topic, read.target.target.partition);
            read.answer.current_leader = Some((leader.id, leader.epoch));
            named.push(leader);
        }
    }
    leaders::endpoints(context, named)
}
