//! One idempotent producer for one partition.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use barnabas_core::records::{BatchBuilder, Compression, Record};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    InitProducerIdRequest, ProduceRequest, ProduceResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::cluster_view::{ClusterView, Leader, Link};
use super::{Acknowledged, PartitionJournal, VerifierOptions};

const PRODUCE_VERSION: i16 = 10;
const INIT_PRODUCER_ID_VERSION: i16 = 4;
const VALUE_SIZE: usize = 64;

const NONE: i16 = 0;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const FENCED_LEADER_EPOCH: i16 = 74;
const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
/// What Kafka's client tries again: unknown topic, leader not available, timed out, network, too few replicas before
/// and after the append, storage, unknown leader epoch, unknown topic id, throttled, loading.
const RETRIABLE: [i16; 13] = [2, 3, 5, 7, 9, 13, 14, 19, 20, 56, 75, 76, 100];

/// The text of record `number`.
pub(super) fn value_of(number: i64) -> Vec<u8> {
    let mut value = format!("{number} ").into_bytes();
    value.resize(VALUE_SIZE, b'.');
    value
}

/// The number in a record's text.
pub(super) fn number_of(record: &Record) -> Result<i64> {
    let value = record.value.as_ref().context("a record without a value")?;
    let text = std::str::from_utf8(value).context("a value that is not text")?;
    let (number, rest) = text.split_once(' ').context("a value without a number")?;
    ensure!(
        rest.bytes().all(|byte| byte == b'.') && value.len() >= VALUE_SIZE,
        "a spoiled value: {text}"
    );
    number.parse().context("a value without a number")
}

/// Produces until `stop`; whatever was begun is finished.
pub(super) fn produce(
    options: &VerifierOptions,
    partition: i32,
    stop: &AtomicBool,
    journal: &PartitionJournal,
) -> Result<()> {
    let mut producer = Producer::new(options, partition)?;
    let mut next_number = 0;
    while !stop.load(Ordering::Acquire) {
        let base_offset = producer.deliver(next_number)?;
        journal.acknowledge(Acknowledged {
            at: Instant::now(),
            first_number: next_number,
            base_offset,
        });
        next_number += options.records_per_batch as i64;
        std::thread::sleep(options.pause);
    }
    Ok(())
}

struct Producer<'a> {
    options: &'a VerifierOptions,
    partition: i32,
    view: ClusterView,
    producer_id: i64,
    producer_epoch: i16,
    leader: Option<Leader>,
    /// The newest leader epoch that was heard of: who tells of an older one has not heard of it yet.
    newest_epoch: i32,
    link: Option<Link>,
}

impl<'a> Producer<'a> {
    fn new(options: &'a VerifierOptions, partition: i32) -> Result<Self> {
        let mut view = ClusterView::new(options.bootstrap.clone());
        let deadline = Instant::now() + options.delivery_timeout;
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let (producer_id, producer_epoch) = loop {
            match view.ask(INIT_PRODUCER_ID_VERSION, &request) {
                Ok(answer) if answer.error_code == NONE => {
                    break (answer.producer_id.0, answer.producer_epoch);
                }
                other => {
                    ensure!(Instant::now() < deadline, "no producer id: {other:?}");
                    view.ask_elsewhere();
                    std::thread::sleep(options.retry_backoff);
                }
            }
        };
        Ok(Self {
            options,
            partition,
            view,
            producer_id,
            producer_epoch,
            leader: None,
            newest_epoch: -1,
            link: None,
        })
    }

    /// Sends the batch that begins with `first_number` until it is acknowledged; its base offset, if told.
    fn deliver(&mut self, first_number: i64) -> Result<Option<i64>> {
        let deadline = Instant::now() + self.options.delivery_timeout;
        let request = self.request(first_number);
        let mut last_problem = String::new();
        while Instant::now() < deadline {
            if self.leader.is_none() && !self.find_leader() {
                std::thread::sleep(self.options.retry_backoff);
                continue;
            }
            let answer = match self.send(&request) {
                Ok(answer) => answer,
                Err(error) => {
                    last_problem = format!("{error:#}");
                    self.forget_leader();
                    continue;
                }
            };
            let result = answer.responses.first();
            let result = result.and_then(|topic| topic.partition_responses.first());
            let result = result.context("an answer without the partition")?;
            match result.error_code {
                NONE => return Ok(Some(result.base_offset)),
                DUPLICATE_SEQUENCE_NUMBER => return Ok(None),
                NOT_LEADER_OR_FOLLOWER | FENCED_LEADER_EPOCH => {
                    last_problem = format!("error code {}", result.error_code);
                    if !self.follow(result, &answer) {
                        self.forget_leader();
                        std::thread::sleep(self.options.retry_backoff);
                    }
                }
                code if RETRIABLE.contains(&code) => {
                    last_problem = format!("error code {code}");
                    // A leader cut off from ZooKeeper goes on believing in itself, and says so to who asks it.
                    self.forget_leader();
                    std::thread::sleep(self.options.retry_backoff);
                }
                code => bail!(
                    "partition {}: error code {code} for the records from {first_number} on ({:?})",
                    self.partition,
                    self.leader
                ),
            }
        }
        bail!(
            "partition {}: records from {first_number} on were not acknowledged in {:?}; last problem: {last_problem}",
            self.partition,
            self.options.delivery_timeout
        )
    }

    fn request(&self, first_number: i64) -> ProduceRequest {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |since| since.as_millis() as i64);
        // Sequences are record numbers until they wrap, which no test lives to see.
        let mut batch = BatchBuilder::new(Compression::None).producer(
            self.producer_id,
            self.producer_epoch,
            first_number as i32,
        );
        for number in first_number..first_number + self.options.records_per_batch as i64 {
            batch.push(now_ms, None, Some(&value_of(number)), &[]);
        }
        let data = PartitionProduceData::default()
            .with_index(self.partition)
            .with_records(Some(batch.build()));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(self.options.topic.clone())))
            .with_partition_data(vec![data]);
        ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(self.options.request_timeout.as_millis() as i32)
            .with_topic_data(vec![topic])
    }

    fn send(&mut self, request: &ProduceRequest) -> Result<ProduceResponse> {
        let leader = self.leader.as_ref().context("no leader")?;
        let mut link = match self.link.take() {
            Some(link) => link,
            None => Link::open(&leader.address)?,
        };
        let timeout = self.options.request_timeout + Duration::from_millis(500);
        let answer = link.call(PRODUCE_VERSION, request, timeout)?;
        self.link = Some(link);
        Ok(answer)
    }

    fn find_leader(&mut self) -> bool {
        let Ok(partitions) = self.view.partitions(&self.options.topic) else {
            return false;
        };
        self.leader = partitions
            .get(&self.partition)
            .and_then(|view| view.leader.clone())
            .filter(|leader| leader.epoch >= self.newest_epoch);
        self.link = None;
        match &self.leader {
            Some(leader) => self.newest_epoch = leader.epoch,
            None => self.view.ask_elsewhere(),
        }
        self.leader.is_some()
    }

    fn forget_leader(&mut self) {
        self.leader = None;
        self.link = None;
        // The one that is asked may be the one that is cut off.
        self.view.ask_elsewhere();
    }

    /// Turns to the leader that the refusal names (Produce 10 and later), if it is a newer one.
    fn follow(&mut self, result: &PartitionProduceResponse, answer: &ProduceResponse) -> bool {
        let current = &result.current_leader;
        let known_epoch = self.leader.as_ref().map_or(-1, |leader| leader.epoch);
        let mut endpoints = answer.node_endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.node_id == current.leader_id);
        let Some(endpoint) = endpoint.filter(|_| current.leader_epoch > known_epoch) else {
            return false;
        };
        self.newest_epoch = self.newest_epoch.max(current.leader_epoch);
        self.leader = Some(Leader {
            id: current.leader_id.0,
            epoch: current.leader_epoch,
            address: format!("{}:{}", endpoint.host, endpoint.port),
        });
        self.link = None;
        true
    }
}
