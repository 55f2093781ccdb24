//! Records of transactions, as they are written and read.

use barnabas_core::partition::verification::{Admission, Beginner};
use barnabas_core::records::validate::PreparedBatch;
use barnabas_core::records::{
    BatchBuilder, Compression, EndTransactionMarker, end_transaction_marker,
};
use futures::FutureExt as _;
use kafka_protocol::messages::{ProduceRequest, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use super::{fetch_request, fetched, produce_request, produced};
use crate::api::testing::TestBroker;
use crate::clock;

/// Transactions without a coordinator that would know of them.
const UNVERIFIED: (&str, &str) = ("transaction.partition.verification.enable", "false");

#[test]
fn readers_of_committed_data_stop_at_an_open_transaction() {
    let broker = TestBroker::with_settings(&[UNVERIFIED]);
    broker.create_topic("t", 1, None);
    let mut builder = BatchBuilder::new(Compression::None)
        .producer(7, 0, 0)
        .transactional();
    builder.push(1_700_000_000_000, None, Some(b"v"), &[]);
    let request = produce_request("t", -1, builder.build())
        .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("x"))));
    let reply = broker.begin_produce(request).now_or_never().unwrap();
    assert_eq!(produced(reply), (0, 0));

    let committed = || fetch_request("t", 0).with_isolation_level(1);
    assert_eq!(broker.read(committed()), (0, 1, vec![]));
    assert_eq!(broker.read(fetch_request("t", 0)), (0, 1, vec![0]));

    let marker = end_transaction_marker(&EndTransactionMarker {
        producer_id: 7,
        producer_epoch: 0,
        commit: false,
        coordinator_epoch: 0,
        timestamp_ms: 1_700_000_000_001,
        is_log_append_time: false,
        leader_epoch: -1,
    });
    let partition = broker.broker.replicas.partition("t", 0).unwrap();
    let marker = PreparedBatch::from_own(marker).unwrap();
    partition
        .append_from_coordinator(&marker, Admission::Unchecked, -1, None, clock::now())
        .unwrap();
    let response = fetched(
        broker.begin_fetch(committed(), 11).now_or_never().unwrap(),
        11,
    );
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.last_stable_offset, 2);
    let aborted = partition.aborted_transactions.as_ref().unwrap();
    assert_eq!((aborted[0].producer_id.0, aborted[0].first_offset), (7, 0));
}

/// KIP-890: nothing is written that the coordinator would never end.
#[test]
fn a_transaction_that_its_coordinator_does_not_confirm_writes_nothing() {
    let broker = TestBroker::new();
    broker.create_topic("t", 1, None);
    let records = |producer_id| {
        let mut builder = BatchBuilder::new(Compression::None)
            .producer(producer_id, 0, 0)
            .transactional();
        builder.push(1_700_000_000_000, None, Some(b"v"), &[]);
        builder.build()
    };
    let of = |request: ProduceRequest| {
        request.with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("x"))))
    };
    let request = of(produce_request("t", -1, records(7)));
    let reply = broker.begin_produce(request).now_or_never().unwrap();
    assert_eq!(produced(reply), (19, -1));
    let mut two = of(produce_request("t", -1, records(7)));
    broker.create_topic("u", 1, None);
    let other = produce_request("u", -1, records(8));
    two.topic_data.extend(other.topic_data);
    let reply = broker.begin_produce(two).now_or_never().unwrap();
    assert_eq!(produced(reply), (49, -1));
    assert_eq!(broker.read(fetch_request("t", 0)), (0, 0, vec![]));
}

/// What comes late, from a connection that was given up, neither begins a transaction nor holds up the next one.
#[test]
fn a_repetition_from_an_ended_transaction_begins_nothing() {
    let broker = TestBroker::new();
    broker.create_topic("t", 1, None);
    let partition = broker.broker.replicas.partition("t", 0).unwrap();
    let begin = |base_sequence| {
        let beginner = Beginner {
            producer_id: 7,
            producer_epoch: 0,
            base_sequence,
        };
        let begun = partition.begin_verification(beginner, 60_000, clock::now());
        begun.unwrap()
    };
    let append = |base_sequence, guard| {
        let mut builder = BatchBuilder::new(Compression::None)
            .producer(7, 0, base_sequence)
            .transactional();
        builder.push(1_700_000_000_000, None, Some(b"v"), &[]);
        let batch = PreparedBatch::from_own(builder.build()).unwrap();
        let admission = Admission::Checked(guard);
        let appended = partition.append(&batch, admission, 1, clock::now());
        appended.map(|info| info.is_duplicate).ok()
    };
    let guard = begin(0);
    assert!(guard.is_some());
    assert_eq!(append(0, guard), Some(false));
    let marker = end_transaction_marker(&EndTransactionMarker {
        producer_id: 7,
        producer_epoch: 0,
        commit: true,
        coordinator_epoch: 0,
        timestamp_ms: 1_700_000_000_001,
        is_log_append_time: false,
        leader_epoch: -1,
    });
    let marker = PreparedBatch::from_own(marker).unwrap();
    partition
        .append_from_coordinator(&marker, Admission::Unchecked, -1, None, clock::now())
        .unwrap();
    let late = begin(0);
    assert_eq!(late, None);
    assert_eq!(append(0, late), Some(true));
    assert_eq!(append(1, None), None, "nobody has confirmed it");
    let guard = begin(1);
    assert!(guard.is_some());
    assert_eq!(append(1, guard), Some(false));
}

/// A reader is told of the aborted transactions up to the index entry behind what it read, as by Kafka.
#[test]
fn readers_of_committed_data_learn_of_the_aborts_in_what_they_read() {
    let broker = TestBroker::with_settings(&[UNVERIFIED]);
    broker.create_topic("t", 1, None);
    let large = "v".repeat(5000);
    for transaction in 0..6 {
        let mut builder = BatchBuilder::new(Compression::None)
            .producer(7, 0, transaction)
            .transactional();
        builder.push(1_700_000_000_000, None, Some(large.as_bytes()), &[]);
        let request = produce_request("t", -1, builder.build())
            .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("x"))));
        let reply = broker.begin_produce(request).now_or_never().unwrap();
        assert_eq!(produced(reply), (0, i64::from(transaction) * 2));
        let marker = end_transaction_marker(&EndTransactionMarker {
            producer_id: 7,
            producer_epoch: 0,
            commit: false,
            coordinator_epoch: 0,
            timestamp_ms: 1_700_000_000_001,
            is_log_append_time: false,
            leader_epoch: -1,
        });
        let partition = broker.broker.replicas.partition("t", 0).unwrap();
        let marker = PreparedBatch::from_own(marker).unwrap();
        partition
            .append_from_coordinator(&marker, Admission::Unchecked, -1, None, clock::now())
            .unwrap();
    }
    let aborted = |offset: i64, max_bytes: i32| -> Vec<i64> {
        let mut request = fetch_request("t", offset).with_isolation_level(1);
        request.topics[0].partitions[0].partition_max_bytes = max_bytes;
        let response = fetched(broker.begin_fetch(request, 11).now_or_never().unwrap(), 11);
        let partition = &response.responses[0].partitions[0];
        let aborted = partition.aborted_transactions.as_ref().unwrap();
        aborted.iter().map(|aborted| aborted.first_offset).collect()
    };
    assert_eq!(aborted(0, 1 << 20), [0, 2, 4, 6, 8, 10]);
    assert_eq!(aborted(4, 1 << 20), [4, 6, 8, 10]);
    assert_eq!(aborted(0, 100), [0]);
    assert_eq!(aborted(4, 100), [4]);
    // The next index entry stands at the marker of the following transaction.
    assert_eq!(aborted(4, 5200), [4, 6]);
    assert_eq!(aborted(12, 1 << 20), [0_i64; 0]);
}
