//! Kafka's tool for transactions that hang (KIP-664): it shows who writes, finds what no coordinator knows, and ends it.

use barnabas_core::records::{BatchBuilder, Compression};
use barnabas_tests::wait::until;
use barnabas_tests::wire::WireClient;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use crate::client_program::OneBroker;
use crate::kcat::kcat_prints;
use crate::tools::{kafka_tool, require};

/// Begins a transaction that no coordinator knows, as brokers before KIP-890 let happen.
fn begin_unknown(address: &str, producer_id: i64) {
    let mut batch = BatchBuilder::new(Compression::None)
        .producer(producer_id, 3, 0)
        .transactional();
    batch.push(1_700_000_000_000, None, Some(b"lost"), &[]);
    let partition = PartitionProduceData::default().with_records(Some(batch.build()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str("data")))
        .with_partition_data(vec![partition]);
    let id = TransactionalId(StrBytes::from_static_str("nobody"));
    let request = ProduceRequest::default()
        .with_transactional_id(Some(id))
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic]);
    let mut client = WireClient::connect(address).unwrap();
    let answer = client.request(&request, 9).unwrap();
    let written = &answer.responses[0].partition_responses[0];
    assert_eq!((written.error_code, written.base_offset), (0, 1));
}

#[test]
fn a_hanging_transaction_is_found_and_ended() {
    let one = OneBroker::start(|options| {
        options.with("transaction.partition.verification.enable", false)
    });
    let address = one.broker.address();
    kcat_prints(&address, &["-P", "-t", "data", "-p", "0"], "before\n");
    begin_unknown(&address, 4242);
    kcat_prints(&address, &["-P", "-t", "data", "-p", "0"], "after\n");
    let committed = || {
        let arguments = ["-C", "-t", "data", "-o", "beginning", "-e", "-q"];
        let isolation = ["-X", "isolation.level=read_committed"];
        kcat_prints(&address, &[&arguments[..], &isolation].concat(), "")
    };
    assert_eq!(committed(), "before\n");

    let tool = |arguments: &[&str]| {
        let server = ["--bootstrap-server", &address];
        kafka_tool(
            "org.apache.kafka.tools.TransactionsCommand",
            &[&server, arguments].concat(),
        )
    };
    let partition = ["--topic", "data", "--partition", "0"];
    require(
        &tool(&[&["describe-producers"], &partition[..]].concat()),
        &["ProducerId", "4242"],
    );
    // The tool counts from the time of the last record.
    require(
        &tool(&["find-hanging", "--topic", "data"]),
        &["data", "4242"],
    );
    tool(&[&["abort"], &partition[..], &["--start-offset", "1"]].concat());
    let ended = until(std::time::Duration::from_secs(30), || {
        (committed() == "before\nafter\n").then_some(())
    });
    assert!(ended.is_some(), "{}", committed());
    let found = tool(&["find-hanging", "--topic", "data"]);
    assert!(!found.contains("4242"), "{found}");
}
