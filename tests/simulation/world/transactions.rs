//! Transactional producers, and what becomes of their transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use barnabas_core::ids::TopicPartition;
use barnabas_core::records::{BatchBuilder, Compression};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest,
    ProduceRequest, TransactionalId,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};
use rand::Rng as _;
use rand::seq::SliceRandom as _;

use super::clients::{Client, Progress, is_retriable, name};
use super::network::Node;

/// Of the records that a producer writes after it was shut out.
const ZOMBIE_FROM: u64 = 1 << 32;

/// A producer's transaction, by its number.
pub(crate) type Transaction = (Node, u64);

/// How transactions ended, by markers in logs and by what producers were told.
#[derive(Default)]
pub(crate) struct Outcomes {
    /// Transactions with committed records that no marker follows, by partition and producer id.
    open: BTreeMap<(TopicPartition, i64), BTreeSet<Transaction>>,
    /// Whether they were committed.
    ended: BTreeMap<Transaction, bool>,
}

/// The value of a record that a transactional producer sends; no two are the same.
fn value_of(transaction: Transaction, number: u64) -> Bytes {
    format!("tx-{}-{}/{number}", transaction.0, transaction.1).into()
}

fn transaction_of(value: &Bytes) -> Option<Transaction> {
    let text = std::str::from_utf8(value).ok()?.strip_prefix("tx-")?;
    let (producer, rest) = text.split_once('-')?;
    let (number, _) = rest.split_once('/')?;
    Some((producer.parse().ok()?, number.parse().ok()?))
}

impl Outcomes {
    /// A record is committed, in the sense of replicas.
    pub(crate) fn record(&mut self, partition: &TopicPartition, producer_id: i64, value: &Bytes) {
        if let Some(transaction) = transaction_of(value) {
            let key = (partition.clone(), producer_id);
            self.open.entry(key).or_default().insert(transaction);
        }
    }

    /// A marker is.
    pub(crate) fn marker(
        &mut self,
        partition: &TopicPartition,
        producer_id: i64,
        is_commit: bool,
    ) -> Result<(), String> {
        let key = (partition.clone(), producer_id);
        for transaction in self.open.remove(&key).unwrap_or_default() {
            self.end(transaction, is_commit, &format!("in {partition}"))?;
        }
        Ok(())
    }

    /// A producer was told that its transaction ended like that.
    pub(crate) fn told(&mut self, transaction: Transaction, is_commit: bool) -> Result<(), String> {
        self.end(transaction, is_commit, "says the coordinator")
    }

    fn end(&mut self, transaction: Transaction, is_commit: bool, who: &str) -> Result<(), String> {
        let known = *self.ended.entry(transaction).or_insert(is_commit);
        if known == is_commit {
            return Ok(());
        }
        let name = |is_commit| if is_commit { "committed" } else { "aborted" };
        Err(format!(
            "TransactionsAreAllOrNothing: transaction {transaction:?} is {} {who}, and was {} elsewhere",
            name(is_commit),
            name(known)
        ))
    }

    /// Whether a record belongs to no transaction or to a committed one.
    pub(crate) fn is_to_be_seen(&self, value: &Bytes) -> bool {
        transaction_of(value).is_none_or(|transaction| {
            self.ended
                .get(&transaction)
                .is_some_and(|is_commit| *is_commit)
        })
    }

    /// A transaction that has not ended everywhere.
    pub(crate) fn open(&self) -> Option<String> {
        let ((partition, producer_id), open) = self.open.first_key_value()?;
        Some(format!(
            "{open:?} of producer {producer_id} in {partition} have not ended"
        ))
    }

    /// How many transactions ended by commit, and how many by abort.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let committed = self.ended.values().filter(|is_commit| **is_commit).count();
        (committed, self.ended.len() - committed)
    }
}

/// Errors after which a transactional producer looks for the coordinator and asks again.
pub(crate) fn is_passing(code: i16) -> bool {
    let passing = [
        ResponseError::CoordinatorLoadInProgress,
        ResponseError::CoordinatorNotAvailable,
        ResponseError::NotCoordinator,
        ResponseError::ConcurrentTransactions,
        ResponseError::NetworkException,
    ];
    is_retriable(code) || passing.iter().any(|error| error.code() == code)
}

/// Somebody or a time-out has shut the producer out.
fn is_fencing(code: i16) -> bool {
    [
        ResponseError::ProducerFenced,
        ResponseError::InvalidProducerEpoch,
        ResponseError::InvalidProducerIdMapping,
    ]
    .iter()
    .any(|error| error.code() == code)
}

/// One record of a transaction.
fn batch_of(
    (producer_id, epoch): (i64, i16),
    sequence: i32,
    timestamp_ms: i64,
    value: &Bytes,
) -> Bytes {
    let batch = BatchBuilder::new(Compression::None);
    let mut batch = batch.producer(producer_id, epoch, sequence).transactional();
    batch.push(timestamp_ms, None, Some(value), &[]);
    batch.build()
}

fn request_of(id: &TransactionalId, partition: &TopicPartition, batch: &Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition.partition)
        .with_records(Some(batch.clone()));
    let topic = TopicProduceData::default()
        .with_name(name(&partition.topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_transactional_id(Some(id.clone()))
        .with_acks(-1)
        .with_timeout_ms(3_000)
        .with_topic_data(vec![topic])
}

/// The producer has to introduce itself again.
struct ShutOut;

struct Producer {
    client: Client,
    id: TransactionalId,
    identity: (i64, i16),
    /// Of the next batch, by partition.
    sequences: BTreeMap<TopicPartition, i32>,
    coordinator: Option<Node>,
    /// A request to the coordinator was given up, and may still arrive.
    has_given_up: bool,
    transactions: u64,
    records: u64,
}

/// Writes to several partitions in transactions that it commits, aborts, or leaves open when it comes back as if after
/// a crash.
pub(crate) async fn transact(
    client: Client,
    partitions: Vec<TopicPartition>,
    progress: Arc<Progress>,
) {
    let id = StrBytes::from_string(format!("tx-{}", client.node));
    let mut producer = Producer {
        client,
        id: TransactionalId(id),
        identity: (-1, -1),
        sequences: BTreeMap::new(),
        coordinator: None,
        has_given_up: false,
        transactions: 0,
        records: 0,
    };
    loop {
        producer.introduce().await;
        if progress.is_to_stop.load(Ordering::SeqCst) {
            break;
        }
        while !progress.is_to_stop.load(Ordering::SeqCst) {
            if producer.one_transaction(&partitions).await.is_err() {
                break;
            }
            progress.steps.fetch_add(1, Ordering::SeqCst);
            producer.client.pause(200).await;
        }
    }
    progress.has_stopped.store(true, Ordering::SeqCst);
}

impl Producer {
    /// Asks the coordinator until it gives an answer that lasts.
    async fn ask<R: Request + Encodable + HeaderVersion>(
        &mut self,
        version: i16,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
    ) -> R::Response {
        loop {
            let Some(coordinator) = self.coordinator else {
                self.find_coordinator().await;
                continue;
            };
            match self.client.call(coordinator, version, request).await {
                Ok(response) if !is_passing(code(&response)) => return response,
                Ok(response) if code(&response) == ResponseError::ConcurrentTransactions.code() => {
                }
                Ok(_) => self.coordinator = None,
                Err(_) => {
                    self.has_given_up = true;
                    self.coordinator = None;
                }
            }
            self.client.pause(100).await;
        }
    }

    async fn find_coordinator(&mut self) {
        let request = FindCoordinatorRequest::default()
            .with_key_type(1)
            .with_coordinator_keys(vec![self.id.0.clone()]);
        let broker = self.client.any_broker();
        if let Ok(response) = self.client.call(broker, 4, &request).await
            && let Some(found) = response.coordinators.first()
            && found.error_code == 0
        {
            self.coordinator = Some(found.node_id.0);
        } else {
            self.client.pause(200).await;
        }
    }

    async fn introduce(&mut self) {
        let timeout_ms = self.client.random.random_range(2_000..30_000);
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(self.id.clone()))
            .with_transaction_timeout_ms(timeout_ms);
        let answer = self.ask(4, &request, |answer| answer.error_code).await;
        if answer.error_code != 0 {
            self.violated("a producer that introduces itself", answer.error_code);
        }
        self.identity = (answer.producer_id.0, answer.producer_epoch);
        self.sequences.clear();
    }

    async fn one_transaction(&mut self, partitions: &[TopicPartition]) -> Result<(), ShutOut> {
        self.transactions += 1;
        let transaction = (self.client.node, self.transactions);
        let mut chosen = partitions.to_vec();
        chosen.shuffle(&mut self.client.random);
        let count = self.client.random.random_range(1..=chosen.len());
        for partition in &chosen[..count] {
            self.add(partition).await?;
            for _ in 0..self.client.random.random_range(1..=2) {
                self.send(partition, transaction).await?;
            }
            self.client.pause(100).await;
        }
        if self.client.random.random_bool(0.1) {
            // As after a crash: whoever introduces itself next aborts what is open. It only seemed to be one.
            self.leave_zombie(partitions, transaction);
            return Err(ShutOut);
        }
        let is_commit = self.client.random.random_bool(0.7);
        self.end(transaction, is_commit).await
    }

    /// Whoever was taken for dead goes on writing for a while, to all partitions.
    fn leave_zombie(&mut self, partitions: &[TopicPartition], transaction: Transaction) {
        let mut client = self.client.twin();
        let (partitions, id, identity) = (partitions.to_vec(), self.id.clone(), self.identity);
        tokio::spawn(async move {
            for number in 0..20 {
                client.pause(300).await;
                let place = client.random.random_range(0..partitions.len());
                let partition = &partitions[place];
                let Some(leader) = client.known_leader(partition) else {
                    continue;
                };
                let value = value_of(transaction, ZOMBIE_FROM + number);
                let now_ms = client.network.wall_clock_ms();
                let batch = batch_of(identity, 0, now_ms, &value);
                let request = request_of(&id, partition, &batch);
                // Whatever the answer: it is part of a transaction that is aborted, or is not written.
                let _ = client.call(leader, 9, &request).await;
                client.refresh().await;
            }
        });
    }

    async fn add(&mut self, partition: &TopicPartition) -> Result<(), ShutOut> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(name(&partition.topic))
            .with_partitions(vec![partition.partition]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.id.clone())
            .with_v3_and_below_producer_id(self.identity.0.into())
            .with_v3_and_below_producer_epoch(self.identity.1)
            .with_v3_and_below_topics(vec![topic]);
        let answer = self.ask(3, &request, |answer| {
            let topic = answer.results_by_topic_v3_and_below.first();
            let partition = topic.and_then(|topic| topic.results_by_partition.first());
            partition.map_or(-1, |partition| partition.partition_error_code)
        });
        let answer = answer.await;
        let result = &answer.results_by_topic_v3_and_below[0].results_by_partition[0];
        self.judge("a partition that is added", result.partition_error_code)
    }

    async fn send(
        &mut self,
        partition: &TopicPartition,
        transaction: Transaction,
    ) -> Result<(), ShutOut> {
        let sequence = self.sequences.get(partition).copied().unwrap_or(0);
        self.records += 1;
        let value = value_of(transaction, self.records);
        let now_ms = self.client.network.wall_clock_ms();
        let batch = batch_of(self.identity, sequence, now_ms, &value);
        let request = request_of(&self.id, partition, &batch);
        loop {
            let (leader, _) = self.client.leader(partition).await;
            if let Ok(response) = self.client.call(leader, 9, &request).await {
                let topic = response.responses.first();
                let answer = topic.and_then(|topic| topic.partition_responses.first());
                let (code, offset) =
                    answer.map_or((-1, -1), |answer| (answer.error_code, answer.base_offset));
                if code == 0 {
                    let checks = self.client.network.checks.clone();
                    checks.acknowledged(&self.client.network.trace, partition, offset, value);
                    self.sequences.insert(partition.clone(), sequence + 1);
                    return Ok(());
                }
                if !is_passing(code) {
                    // Verification says so if the transaction timed out meanwhile.
                    let is_over = code == ResponseError::InvalidTxnState.code();
                    return if is_over {
                        Err(ShutOut)
                    } else {
                        self.judge("a record", code)
                    };
                }
            }
            self.client.refresh().await;
            self.client.pause(100).await;
        }
    }

    /// Ends the transaction. Up to transaction version 1 nothing in a request tells to which of a producer's transactions
    /// it belongs, in Kafka as in ours (KIP-890): one that was given up and arrives late ends the next transaction. So
    /// who has given one up takes a new epoch, which shuts out the old one's requests, before it begins another.
    async fn end(&mut self, transaction: Transaction, is_commit: bool) -> Result<(), ShutOut> {
        let request = EndTxnRequest::default()
            .with_transactional_id(self.id.clone())
            .with_producer_id(self.identity.0.into())
            .with_producer_epoch(self.identity.1)
            .with_committed(is_commit);
        self.has_given_up = false;
        let answer = self.ask(2, &request, |answer| answer.error_code).await;
        self.judge("an end", answer.error_code)?;
        let network = &self.client.network;
        network
            .checks
            .transaction_told(&network.trace, transaction, is_commit);
        if self.has_given_up {
            return Err(ShutOut);
        }
        Ok(())
    }

    /// What an answer that lasts means.
    fn judge(&self, what: &str, code: i16) -> Result<(), ShutOut> {
        if code == 0 {
            return Ok(());
        }
        if !is_fencing(code) {
            self.violated(what, code);
        }
        Err(ShutOut)
    }

    fn violated(&self, what: &str, code: i16) {
        self.client.network.trace.violated(&format!(
            "TransactionsAreAllOrNothing: {what} of {} {:?} is answered {:?}",
            &*self.id.0,
            self.identity,
            ResponseError::try_from_code(code)
        ));
    }
}
