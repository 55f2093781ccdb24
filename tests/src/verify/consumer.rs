//! A consumer that follows one partition, and one that reads it all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use barnabas_core::records::{self, Record, RecordError};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::cluster_view::{ClusterView, Leader, Link};
use super::{PartitionJournal, VerifierOptions, lock, producer};

const FETCH_VERSION: i16 = 12;
const LIST_OFFSETS_VERSION: i16 = 6;
const MAX_WAIT: Duration = Duration::from_millis(250);
const MAX_BYTES: i32 = 1 << 20;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const LATEST: i64 = -1;

/// Reads what is there and what comes, and requires every number once and in order.
pub(super) fn follow(
    options: &VerifierOptions,
    partition: i32,
    stop: &AtomicBool,
    journal: &PartitionJournal,
) -> Result<()> {
    let mut consumer = Consumer::new(options, partition);
    let mut expected = 0;
    while !stop.load(Ordering::Acquire) {
        // Nothing comes while the partition has no leader: the producer judges how long that may take.
        let Some(found) = consumer.fetch()? else {
            std::thread::sleep(options.retry_backoff);
            continue;
        };
        for record in &found {
            let number = producer::number_of(record)?;
            ensure!(
                number == expected,
                "partition {partition}: a consumer saw {number} at offset {} instead of {expected}",
                record.offset
            );
            expected += 1;
        }
        if !found.is_empty() {
            lock(&journal.consumed_at).push(Instant::now());
            journal.consumed.store(expected, Ordering::Release);
        }
    }
    Ok(())
}

/// Everything below the high watermark.
pub(super) fn read_all(options: &VerifierOptions, partition: i32) -> Result<Vec<Record>> {
    let mut consumer = Consumer::new(options, partition);
    let deadline = Instant::now() + options.delivery_timeout;
    let end = loop {
        match consumer.end_offset() {
            Ok(end) => break end,
            Err(error) => {
                ensure!(Instant::now() < deadline, "no end offset: {error:#}");
                consumer.forget_leader();
                std::thread::sleep(options.retry_backoff);
            }
        }
    };
    let mut all = Vec::new();
    while consumer.offset < end {
        ensure!(
            Instant::now() < deadline,
            "partition {partition} cannot be read to its end: at {} of {end}",
            consumer.offset
        );
        match consumer.fetch()? {
            Some(found) => all.extend(found),
            None => std::thread::sleep(options.retry_backoff),
        }
    }
    Ok(all)
}

struct Consumer<'a> {
    options: &'a VerifierOptions,
    partition: i32,
    view: ClusterView,
    leader: Option<Leader>,
    /// The newest leader epoch that was heard of; what is older is not believed.
    newest_epoch: i32,
    link: Option<Link>,
    offset: i64,
}

impl<'a> Consumer<'a> {
    fn new(options: &'a VerifierOptions, partition: i32) -> Self {
        Self {
            options,
            partition,
            view: ClusterView::new(options.bootstrap.clone()),
            leader: None,
            newest_epoch: -1,
            link: None,
            offset: 0,
        }
    }

    fn link(&mut self) -> Result<Link> {
        if let Some(link) = self.link.take() {
            return Ok(link);
        }
        if self.leader.is_none() {
            let partitions = self.view.partitions(&self.options.topic)?;
            let view = partitions.get(&self.partition);
            let newest_epoch = self.newest_epoch;
            self.leader = view
                .and_then(|view| view.leader.clone())
                .filter(|leader| leader.epoch >= newest_epoch);
        }
        let leader = self.leader.as_ref().context("no leader")?;
        self.newest_epoch = leader.epoch;
        Link::open(&leader.address)
    }

    fn forget_leader(&mut self) {
        self.leader = None;
        self.link = None;
        self.view.ask_elsewhere();
    }

    fn topic(&self) -> TopicName {
        TopicName(StrBytes::from_string(self.options.topic.clone()))
    }

    fn end_offset(&mut self) -> Result<i64> {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(self.partition)
            .with_timestamp(LATEST);
        let topic = ListOffsetsTopic::default()
            .with_name(self.topic())
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let mut link = self.link()?;
        let timeout = self.options.request_timeout;
        let answer = link.call(LIST_OFFSETS_VERSION, &request, timeout)?;
        let found = answer.topics.first();
        let found = found.and_then(|topic| topic.partitions.first());
        let found = found.context("an answer without the partition")?;
        ensure!(found.error_code == 0, "error code {}", found.error_code);
        self.link = Some(link);
        Ok(found.offset)
    }

    /// The records from the offset on; `None` if it has to be tried again.
    fn fetch(&mut self) -> Result<Option<Vec<Record>>> {
        let partition = FetchPartition::default()
            .with_partition(self.partition)
            .with_fetch_offset(self.offset)
            .with_partition_max_bytes(MAX_BYTES);
        let topic = FetchTopic::default()
            .with_topic(self.topic())
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(MAX_WAIT.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(MAX_BYTES)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let timeout = self.options.request_timeout;
        let sent = self.link().and_then(|mut link| {
            let answer = link.call(FETCH_VERSION, &request, timeout)?;
            Ok((link, answer))
        });
        let Ok((link, answer)) = sent else {
            self.forget_leader();
            return Ok(None);
        };
        let found = answer.responses.into_iter().next();
        let found = found.and_then(|topic| topic.partitions.into_iter().next());
        let found = found.context("an answer without the partition")?;
        match found.error_code {
            0 => {}
            OFFSET_OUT_OF_RANGE => bail!(
                "partition {}: offset {} was read up to and is gone (high watermark {}, leader {:?})",
                self.partition,
                self.offset,
                found.high_watermark,
                self.leader
            ),
            _ => {
                self.forget_leader();
                return Ok(None);
            }
        }
        self.link = Some(link);
        let records = decode(&found.records.unwrap_or_default(), self.offset)?;
        if let Some(last) = records.last() {
            // It may be above the high watermark of the answer, which Kafka looks up before it reads.
            self.offset = last.offset + 1;
        }
        Ok(Some(records))
    }
}

/// The records at `offset` and above; a batch that was cut off at the end is left out.
fn decode(bytes: &Bytes, offset: i64) -> Result<Vec<Record>> {
    let mut all = Vec::new();
    for found in records::batches(bytes) {
        let (position, meta) = match found {
            Ok(found) => found,
            Err(RecordError::Incomplete { .. }) => break,
            Err(error) => return Err(error.into()),
        };
        let batch = bytes.slice(position..position + meta.size_in_bytes);
        records::verify_crc(&batch)?;
        for record in records::records(&batch)? {
            let record = record?;
            if record.offset >= offset {
                all.push(record);
            }
        }
    }
    Ok(all)
}
