use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::{BrokerId, TopicPartition};
use barnabas_core::records::Compression;
use barnabas_core::transaction::records::transaction_key;
use barnabas_core::transaction::{Outcome, State, TransactionError, TransactionValue};

use super::{ProducerRef, TransactionCoordinator, TransactionFilter};
use crate::api::testing::TestBroker;
use crate::clock;
use crate::coordinator::TRANSACTIONS_TOPIC;
use crate::coordinator::appending::{Author, KeyValue, append};
use crate::replica::Partition;

/// One partition of `__transaction_state` and one of data, with the given records in the former.
fn broker_with(records: Vec<KeyValue>) -> TestBroker {
    let broker = TestBroker::with_settings(&[("transaction.state.log.num.partitions", "1")]);
    broker.create_topic(TRANSACTIONS_TOPIC, 1, None);
    broker.create_topic("t", 1, None);
    let partition = broker.broker.replicas.partition(TRANSACTIONS_TOPIC, 0);
    let (author, codec) = (Author::Coordinator, Compression::None);
    for record in records {
        let partition = partition.as_ref().unwrap();
        append(partition, [record], author, codec, -1, 0, clock::now()).unwrap();
    }
    broker
}

fn record(id: &str, state: State) -> KeyValue {
    record_of(id, state, "t")
}

/// The record of a transaction with the first partition of a topic.
fn record_of(id: &str, state: State, topic: &str) -> KeyValue {
    let value = TransactionValue {
        producer_id: 7,
        producer_epoch: 3,
        timeout_ms: 60_000,
        state,
        partitions: [TopicPartition::new(topic, 0)].into(),
        last_update_ms: clock::wall_clock_ms(),
        start_ms: clock::wall_clock_ms(),
    };
    (transaction_key(id).unwrap(), Some(value.encode().unwrap()))
}

/// Makes the broker the coordinator, and waits until it is.
async fn elect(broker: &TestBroker) -> Arc<TransactionCoordinator> {
    let transactions = Arc::clone(&broker.broker.transactions);
    transactions.shards.start(1);
    let partition = broker.broker.replicas.partition(TRANSACTIONS_TOPIC, 0);
    transactions.elected(&partition.unwrap(), 5);
    wait_until(|| transactions.list(&TransactionFilter::default()).is_ok()).await;
    transactions
}

async fn wait_until(condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, reached).await.unwrap();
}

fn state_of(transactions: &TransactionCoordinator, id: &str) -> Result<State, TransactionError> {
    transactions
        .describe(id)
        .map(|description| description.state)
}

#[tokio::test]
async fn what_cannot_be_read_is_left_out_and_the_rest_is_loaded() {
    let (key, value) = record("cut", State::Ongoing);
    let cut = value.map(|value| value[..20].to_vec());
    let broker = broker_with(vec![
        record("before", State::CompleteAbort),
        (key, cut),
        (vec![0, 9, 1], Some(vec![1])),
        (vec![0], Some(vec![])),
        record("gone", State::CompleteCommit),
        (transaction_key("gone").unwrap(), None),
        record("after", State::Ongoing),
    ]);
    let transactions = elect(&broker).await;
    let listed = transactions.list(&TransactionFilter::default()).unwrap();
    let mut ids: Vec<&str> = listed.iter().map(|(id, _)| &**id).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["after", "before"]);
    let open = TransactionFilter {
        states: vec!["Ongoing".to_owned(), "NoState".to_owned()],
        ..TransactionFilter::default()
    };
    assert_eq!(transactions.list(&open).unwrap().len(), 1);
    assert_eq!(
        state_of(&transactions, "gone"),
        Err(TransactionError::NotFound)
    );
    assert_eq!(
        state_of(&transactions, ""),
        Err(TransactionError::InvalidRequest)
    );
}

#[tokio::test]
async fn what_was_decided_is_completed_by_who_loads_it() {
    let broker = broker_with(vec![record("x", State::PrepareCommit)]);
    let transactions = elect(&broker).await;
    wait_until(|| state_of(&transactions, "x") == Ok(State::CompleteCommit)).await;
    let data = broker.broker.replicas.partition("t", 0).unwrap();
    assert_eq!(data.log().unwrap().log_end_offset(), 1, "one marker");
}

#[tokio::test]
async fn a_topic_that_is_gone_keeps_no_transaction_open() {
    let broker = broker_with(vec![record_of("x", State::PrepareAbort, "gone")]);
    let transactions = elect(&broker).await;
    wait_until(|| state_of(&transactions, "x") == Ok(State::CompleteAbort)).await;
}

#[tokio::test]
async fn a_resigned_coordinator_decides_nothing() {
    let broker = broker_with(vec![record("x", State::Ongoing)]);
    let transactions = elect(&broker).await;
    let producer = ProducerRef {
        transactional_id: "x",
        producer_id: 7,
        producer_epoch: 3,
    };
    let partitions = [TopicPartition::new("t", 0), TopicPartition::new("t", 1)];
    let verified = transactions.verify("x", 7, 3, &partitions);
    assert_eq!(verified, [Ok(()), Err(TransactionError::NotInTransaction)]);
    transactions.resigned(0, Some(4));
    assert!(transactions.describe("x").is_ok(), "that was long ago");
    transactions.resigned(0, Some(6));
    let not_here = Err(TransactionError::NotCoordinator);
    assert_eq!(transactions.end(producer, Outcome::Commit).await, not_here);
    assert_eq!(transactions.verify("x", 7, 3, &partitions), [not_here; 2]);
    let log = broker.broker.replicas.partition(TRANSACTIONS_TOPIC, 0);
    assert_eq!(log.unwrap().log().unwrap().log_end_offset(), 1);
}

/// Another coordinator has been there meanwhile, and nobody has told this one yet.
#[tokio::test]
async fn who_has_lost_the_partition_writes_nothing_even_if_it_is_back() {
    let broker = broker_with(vec![record("x", State::Ongoing)]);
    let transactions = elect(&broker).await;
    let us = broker.broker.broker_id.0;
    broker.assign(TRANSACTIONS_TOPIC, 0, None, 21, 6, &[us, 21], &[us, 21]);
    broker.lead(TRANSACTIONS_TOPIC, 0, None, 7, &[us, 21], &[us]);
    let producer = ProducerRef {
        transactional_id: "x",
        producer_id: 7,
        producer_epoch: 3,
    };
    let ended = transactions.end(producer, Outcome::Commit).await;
    assert_eq!(ended, Err(TransactionError::NotCoordinator));
    let partition = broker.broker.replicas.partition(TRANSACTIONS_TOPIC, 0);
    assert_eq!(partition.unwrap().log().unwrap().log_end_offset(), 1);
}

/// The first partition of `__transaction_state` with a follower that has fetched nothing yet.
fn with_follower(broker: &TestBroker) -> Arc<Partition> {
    let us = broker.broker.broker_id.0;
    broker.lead(TRANSACTIONS_TOPIC, 0, None, 5, &[us, 21], &[us, 21]);
    let partition = broker.broker.replicas.partition(TRANSACTIONS_TOPIC, 0);
    partition.unwrap()
}

fn let_the_follower_catch_up(partition: &Arc<Partition>) {
    let end = partition.log().unwrap().log_end_offset();
    let epoch = partition.leader_epoch();
    partition.follower_fetched(BrokerId(21), epoch, end, 0, end, clock::now());
}

/// A decision that only this broker has could be lost with it, when a marker of it is written already.
#[tokio::test(start_paused = true)]
async fn a_decision_that_was_read_is_carried_out_once_it_is_replicated() {
    let record = record("x", State::PrepareCommit);
    let broker = TestBroker::with_settings(&[("transaction.state.log.num.partitions", "1")]);
    broker.create_topic("t", 1, None);
    let partition = with_follower(&broker);
    let (author, codec) = (Author::Coordinator, Compression::None);
    append(&partition, [record], author, codec, -1, 5, clock::now()).unwrap();
    let transactions = elect(&broker).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let data = broker.broker.replicas.partition("t", 0).unwrap();
    assert_eq!(state_of(&transactions, "x"), Ok(State::PrepareCommit));
    assert_eq!(data.log().unwrap().log_end_offset(), 0, "no marker");
    let_the_follower_catch_up(&partition);
    wait_until(|| data.log().unwrap().log_end_offset() == 1).await;
}

/// Its record is in the log, but the log may have been cut since, and grown again.
#[tokio::test(start_paused = true)]
async fn who_resigns_before_its_decision_is_replicated_says_nothing_of_it() {
    let broker = broker_with(vec![record("x", State::Ongoing)]);
    let transactions = elect(&broker).await;
    let partition = with_follower(&broker);
    let producer = ProducerRef {
        transactional_id: "x",
        producer_id: 7,
        producer_epoch: 3,
    };
    let ended = transactions.end(producer, Outcome::Commit);
    let resigned = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        transactions.resigned(0, Some(6));
        let_the_follower_catch_up(&partition);
    };
    let (ended, ()) = tokio::join!(ended, resigned);
    assert_eq!(ended, Err(TransactionError::NotCoordinator));
    let data = broker.broker.replicas.partition("t", 0).unwrap();
    assert_eq!(data.log().unwrap().log_end_offset(), 0, "no marker");
}
