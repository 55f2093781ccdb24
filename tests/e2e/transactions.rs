//! Transactions whose coordinators die or move: what was decided is what readers of committed records see.

mod states;

use std::time::Duration;

use anyhow::Result;
use barnabas_core::records::{BatchBuilder, Compression};
use barnabas_tests::broker::BrokerKind;
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::verify::{TopicPlan, create_topic};
use barnabas_tests::wait::until;
use barnabas_tests::wire::WireClient;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest, FindCoordinatorRequest,
    InitProducerIdRequest, ListTransactionsRequest, ProduceRequest, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::client_program::OneBroker;
use crate::kcat::kcat_prints;
use crate::tools::{kafka_tool, require};

const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const TOPIC: &str = "data";
/// Each partition is on one broker alone; their numbers count from [`LONELY_FROM`].
const LONELY: &str = "lonely";
const LONELY_FROM: i32 = 100;

/// Answers that mean: look for the coordinator and ask again.
const ASK_AGAIN: [i16; 4] = [14, 15, 16, 51];

const PRODUCER_FENCED: i16 = 90;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The topic that a number stands for, and its own number of the partition.
fn place(partition: i32) -> (&'static str, i32) {
    if partition < LONELY_FROM {
        (TOPIC, partition)
    } else {
        (LONELY, partition - LONELY_FROM)
    }
}

/// A transactional producer, one request at a time.
pub(crate) struct Producer {
    brokers: Vec<String>,
    id: String,
    identity: (i64, i16),
    sequence: i32,
}

impl Producer {
    /// One whose transactions take `timeout_ms` at most.
    pub(crate) fn init(brokers: &[String], id: &str, timeout_ms: i32) -> Producer {
        let mut producer = Producer {
            brokers: brokers.to_vec(),
            id: id.to_owned(),
            identity: (-1, -1),
            sequence: 0,
        };
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(producer.transactional_id()))
            .with_transaction_timeout_ms(timeout_ms);
        producer.identity = until(PATIENCE, || {
            let answer = producer.ask(&request, 3).ok()?;
            assert!(
                answer.error_code == 0 || ASK_AGAIN.contains(&answer.error_code),
                "{answer:?}"
            );
            (answer.error_code == 0).then_some((answer.producer_id.0, answer.producer_epoch))
        })
        .expect("a producer gets an identity");
        producer
    }

    fn transactional_id(&self) -> TransactionalId {
        TransactionalId(text(&self.id))
    }

    /// The broker that any other names as coordinator.
    fn coordinator(&self) -> Result<(i32, String)> {
        let request = FindCoordinatorRequest::default()
            .with_key_type(1)
            .with_coordinator_keys(vec![text(&self.id)]);
        let mut last = anyhow::anyhow!("there are no brokers");
        for broker in &self.brokers {
            let answer = WireClient::connect(broker).and_then(|mut one| one.request(&request, 4));
            match answer {
                Ok(answer) if answer.coordinators[0].error_code == 0 => {
                    let found = &answer.coordinators[0];
                    return Ok((found.node_id.0, format!("{}:{}", found.host, found.port)));
                }
                Ok(answer) => last = anyhow::anyhow!("{answer:?}"),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn ask<R: Request>(&self, request: &R, version: i16) -> Result<R::Response> {
        WireClient::connect(&self.coordinator()?.1)?.request(request, version)
    }

    /// Asks until the answer is one that lasts, and gives back its error.
    fn ask_until_told<R: Request>(
        &self,
        request: &R,
        version: i16,
        code: impl Fn(&R::Response) -> i16,
    ) -> i16 {
        let told = until(PATIENCE, || {
            let code = code(&self.ask(request, version).ok()?);
            (!ASK_AGAIN.contains(&code)).then_some(code)
        });
        told.expect("a coordinator answers")
    }

    fn add(&self, partition: i32) -> i16 {
        let (topic, partition) = place(partition);
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.transactional_id())
            .with_v3_and_below_producer_id(self.identity.0.into())
            .with_v3_and_below_producer_epoch(self.identity.1)
            .with_v3_and_below_topics(vec![topic]);
        self.ask_until_told(&request, 3, |answer| {
            answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
        })
    }

    /// Writes one record to the only partition, on whichever broker leads it.
    fn send(&mut self, value: &str) {
        self.send_to(0, value);
    }

    fn send_to(&mut self, partition: i32, value: &str) {
        self.send_all(partition, &[(None, Some(value))]);
    }

    /// Writes keys and values as one batch.
    pub(crate) fn send_all(&mut self, partition: i32, records: &[(Option<&str>, Option<&str>)]) {
        assert_eq!(self.add(partition), 0);
        assert_eq!(self.write_all(partition, records), 0);
        self.sequence += records.len() as i32;
    }

    /// Writes a record without saying before that it will; the answer that lasts.
    fn write(&self, partition: i32, value: &str) -> i16 {
        self.write_all(partition, &[(None, Some(value))])
    }

    fn write_all(&self, partition: i32, records: &[(Option<&str>, Option<&str>)]) -> i16 {
        let (id, epoch) = self.identity;
        let batch = BatchBuilder::new(Compression::None);
        let mut batch = batch.producer(id, epoch, self.sequence).transactional();
        for (key, value) in records {
            let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
            batch.push(1_700_000_000_000, key, value, &[]);
        }
        let (topic, partition) = place(partition);
        let partition = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch.build()));
        let topic = TopicProduceData::default()
            .with_name(TopicName(text(topic)))
            .with_partition_data(vec![partition]);
        let request = ProduceRequest::default()
            .with_transactional_id(Some(self.transactional_id()))
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![topic]);
        let written = until(PATIENCE, || {
            self.brokers.iter().find_map(|broker| {
                let mut client = WireClient::connect(broker).ok()?;
                let answer = client.request(&request, 9).ok()?;
                let code = answer.responses[0].partition_responses[0].error_code;
                // A leader may not have heard of its role, or not be able to ask the coordinator.
                (![3, 5, 6, 7, 14, 15, 16, 19, 20, 51].contains(&code)).then_some(code)
            })
        });
        written.expect("a leader answers")
    }

    pub(crate) fn end(&mut self, is_committed: bool) -> i16 {
        let request = EndTxnRequest::default()
            .with_transactional_id(self.transactional_id())
            .with_producer_id(self.identity.0.into())
            .with_producer_epoch(self.identity.1)
            .with_committed(is_committed);
        self.ask_until_told(&request, 2, |answer| answer.error_code)
    }

    fn state(&self) -> Option<String> {
        let ids = vec![self.transactional_id()];
        let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
        let answer = self.ask(&request, 0).ok()?;
        let described = &answer.transaction_states[0];
        (described.error_code == 0).then(|| described.transaction_state.to_string())
    }

    pub(crate) fn wait_for_state(&self, wanted: &str) {
        let mut last = None;
        let reached = until(PATIENCE, || {
            last = self.state();
            (last.as_deref() == Some(wanted)).then_some(())
        });
        assert!(reached.is_some(), "{last:?} instead of {wanted}");
    }

    /// What readers of committed records see, in the order of partitions.
    fn committed(&self) -> Vec<String> {
        self.committed_in(TOPIC)
    }

    fn committed_in(&self, topic: &str) -> Vec<String> {
        let brokers = self.brokers.join(",");
        let arguments = ["-C", "-t", topic, "-o", "beginning", "-e", "-q"];
        let isolation = ["-X", "isolation.level=read_committed"];
        let printed = kcat_prints(&brokers, &[&arguments[..], &isolation].concat(), "");
        let mut lines: Vec<String> = printed.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn data_topic(cluster: &Cluster, assignment: &[&[i32]]) {
    topic(cluster, TOPIC, assignment);
}

fn topic(cluster: &Cluster, name: &str, assignment: &[&[i32]]) {
    let plan = TopicPlan {
        name: name.to_owned(),
        assignment: assignment
            .iter()
            .map(|replicas| replicas.to_vec())
            .collect(),
        configs: Vec::new(),
    };
    create_topic(&cluster.bootstrap(), &plan, PATIENCE).unwrap();
}

/// A producer whose coordinator is that broker.
fn coordinated_by(cluster: &Cluster, broker: i32) -> Producer {
    let brokers = cluster.bootstrap();
    let found = (0..100).find_map(|n| {
        let producer = Producer::init(&brokers, &format!("tx-{n}"), 60_000);
        (producer.coordinator().ok()?.0 == broker).then_some(producer)
    });
    found.expect("partitions of transactions are spread")
}

fn revive(cluster: &mut Cluster, id: i32) {
    cluster.wait_until_unregistered(id, PATIENCE).unwrap();
    cluster.start_broker(id).unwrap();
}

/// The leader of the data is dead when the transaction is ended, so the decision stands without its markers. Then the
/// coordinator is killed, too.
fn kill_between_decision_and_markers(is_committed: bool) {
    let kinds = [BrokerKind::under_test(); 2];
    let mut cluster = Cluster::start(&ClusterOptions::of(&kinds)).unwrap();
    data_topic(&cluster, &[&[2], &[1]]);
    let mut producer = coordinated_by(&cluster, 1);
    producer.send_to(0, "on the dead");
    producer.send_to(1, "on the living");
    assert!(producer.committed().is_empty());
    cluster.kill(2);
    assert_eq!(
        producer.end(is_committed),
        0,
        "the end does not wait for markers"
    );
    let prepared = ["PrepareAbort", "PrepareCommit"][usize::from(is_committed)];
    assert_eq!(producer.state().as_deref(), Some(prepared));
    cluster.kill(1);
    revive(&mut cluster, 1);
    producer.wait_for_state(prepared);
    revive(&mut cluster, 2);
    producer.wait_for_state(["CompleteAbort", "CompleteCommit"][usize::from(is_committed)]);
    let all = ["on the dead", "on the living"];
    let wanted = if is_committed { &all[..] } else { &[] };
    assert_eq!(producer.committed(), wanted);
    assert_eq!(producer.end(is_committed), 0, "again");
    assert_eq!(producer.end(!is_committed), 48);
}

#[test]
fn a_commit_that_was_decided_survives_the_death_of_its_coordinator() {
    kill_between_decision_and_markers(true);
}

#[test]
fn an_abort_that_was_decided_survives_the_death_of_its_coordinator() {
    kill_between_decision_and_markers(false);
}

/// Open transactions, identities and epochs go from one broker to the other and back, whatever either is.
fn move_coordinator(kinds: [BrokerKind; 2]) {
    let options = ClusterOptions::of(&kinds)
        .with("transaction.state.log.replication.factor", 2)
        .with("auto.leader.rebalance.enable", false);
    let mut cluster = Cluster::start(&options).unwrap();
    data_topic(&cluster, &[&[1, 2], &[2, 1]]);
    let mut wanted: Vec<String> = Vec::new();
    let mut producer = coordinated_by(&cluster, 1);
    let brokers = cluster.bootstrap();
    for (turn, leaving) in [1, 2, 1, 2].into_iter().enumerate() {
        let is_committed = turn % 3 != 2;
        assert_eq!(producer.coordinator().unwrap().0, leaving, "turn {turn}");
        let values = [format!("{turn} on 1"), format!("{turn} on 2")];
        producer.send_to(0, &values[0]);
        producer.sequence -= 1;
        producer.send_to(1, &values[1]);
        cluster.stop(leaving).unwrap();
        assert_eq!(producer.state_when_moved(), "Ongoing", "turn {turn}");
        assert_eq!(producer.end(is_committed), 0, "turn {turn}");
        let complete = if is_committed {
            "CompleteCommit"
        } else {
            "CompleteAbort"
        };
        producer.wait_for_state(complete);
        if is_committed {
            wanted.extend(values);
            wanted.sort();
        }
        assert_eq!(producer.committed(), wanted, "turn {turn}");
        cluster.start_broker(leaving).unwrap();
        for topic in [TOPIC, "__transaction_state"] {
            let mut view = cluster.view();
            view.wait_for_isr(topic, &[1, 2], PATIENCE).unwrap();
        }
        // Another instance takes over on the broker that coordinates now, and shuts the old one out.
        let successor = Producer::init(&brokers, &producer.id, 60_000);
        assert_eq!(successor.identity.0, producer.identity.0);
        assert_eq!(successor.identity.1, producer.identity.1 + 1, "turn {turn}");
        assert_eq!(producer.add(0), PRODUCER_FENCED, "turn {turn}");
        producer = successor;
    }
}

impl Producer {
    /// The state as a new coordinator has it.
    fn state_when_moved(&self) -> String {
        until(PATIENCE, || self.state()).expect("there is a new coordinator")
    }
}

#[test]
fn coordinators_take_over_from_each_other() {
    move_coordinator([BrokerKind::under_test(); 2]);
}

#[test]
fn kafka_and_ours_take_transactions_over_from_each_other() {
    move_coordinator([BrokerKind::Barnabas, BrokerKind::Kafka]);
}

/// Each leader asks the other's coordinator whether a transaction is what it says, and believes the answer (KIP-890).
fn verify_with_each_other(kinds: [BrokerKind; 2]) {
    let cluster = Cluster::start(&ClusterOptions::of(&kinds)).unwrap();
    data_topic(&cluster, &[&[1], &[2]]);
    for (coordinator, partition) in [(1, 1), (2, 0)] {
        let mut producer = coordinated_by(&cluster, coordinator);
        // Nothing is open, then something is, but elsewhere.
        let invalid_txn_state = 48;
        assert_eq!(producer.write(partition, "early"), invalid_txn_state);
        producer.send_to(1 - partition, &format!("elsewhere by {coordinator}"));
        producer.sequence -= 1;
        assert_eq!(producer.write(partition, "astray"), invalid_txn_state);
        producer.send_to(partition, &format!("by {coordinator}"));
        assert_eq!(producer.end(true), 0);
        producer.wait_for_state("CompleteCommit");
        // What was verified for one transaction is not for the next.
        assert_eq!(producer.write(partition, "late"), invalid_txn_state);
    }
    let producer = coordinated_by(&cluster, 1);
    let wanted = ["by 1", "by 2", "elsewhere by 1", "elsewhere by 2"];
    assert_eq!(producer.committed(), wanted);
}

#[test]
fn leaders_verify_with_the_coordinator() {
    verify_with_each_other([BrokerKind::under_test(); 2]);
}

#[test]
fn kafka_and_ours_verify_transactions_with_each_other() {
    verify_with_each_other([BrokerKind::Barnabas, BrokerKind::Kafka]);
}

#[test]
fn transactions_time_out_and_unused_ids_expire() {
    let options = ClusterOptions::of(&[BrokerKind::under_test()])
        .with(
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            200,
        )
        .with("transactional.id.expiration.ms", 3000)
        .with(
            "transaction.remove.expired.transaction.cleanup.interval.ms",
            200,
        );
    let cluster = Cluster::start(&options).unwrap();
    data_topic(&cluster, &[&[1]]);
    let mut slow = Producer::init(&cluster.bootstrap(), "slow", 500);
    slow.send("never");
    slow.wait_for_state("CompleteAbort");
    assert_eq!(slow.end(true), PRODUCER_FENCED);
    assert!(slow.committed().is_empty());
    let mut quick = Producer::init(&cluster.bootstrap(), "quick", 60_000);
    quick.send("once");
    assert_eq!(quick.end(true), 0);
    quick.wait_for_state("CompleteCommit");
    assert_eq!(quick.committed(), ["once"]);
    let gone = until(PATIENCE, || {
        let mut client = WireClient::connect(&cluster.bootstrap()[0]).ok()?;
        let request = ListTransactionsRequest::default().with_duration_filter(-1);
        let listed = client.request(&request, 1).ok()?;
        (listed.error_code == 0 && listed.transaction_states.is_empty()).then_some(())
    });
    assert!(gone.is_some(), "ids that nobody uses are forgotten");
    assert_eq!(quick.add(0), 49, "nobody has the id any more");
    let again = Producer::init(&cluster.bootstrap(), "quick", 60_000);
    assert_eq!(again.identity.1, 0);
    assert_ne!(again.identity.0, quick.identity.0);
}

/// What the README says, and what Kafka makes of the files afterwards.
#[test]
fn kafka_tools_write_transactions_and_read_their_records() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    let server = format!("bootstrap.servers={address}");
    let produce = "--topic paid --num-records 400 --record-size 100 --throughput 1000 --transactional-id till \
                   --transaction-duration-ms 100 --producer-props";
    let produce: Vec<&str> = produce
        .split_whitespace()
        .chain([server.as_str()])
        .collect();
    let produced = kafka_tool("org.apache.kafka.tools.ProducerPerformance", &produce);
    require(&produced, &["400 records sent"]);
    let consume = [
        "-C",
        "-t",
        "paid",
        "-X",
        "isolation.level=read_committed",
        "-e",
        "-q",
    ];
    assert_eq!(kcat_prints(&address, &consume, "").lines().count(), 400);
    let transactions = |arguments: &[&str]| {
        let server = ["--bootstrap-server", &address];
        let class = "org.apache.kafka.tools.TransactionsCommand";
        kafka_tool(class, &[&server, arguments].concat())
    };
    require(&transactions(&["list"]), &["till", "CompleteCommit"]);
    let till = transactions(&["describe", "--transactional-id", "till"]);
    require(&till, &["till", "CompleteCommit", "60000"]);
    let log_dir = one.broker.options().log_dir();
    one.broker.stop().unwrap();
    let mut dumped = String::new();
    for partition in 0..4 {
        let segment = format!("__transaction_state-{partition}/00000000000000000000.log");
        let segment = log_dir.join(segment);
        let files = segment.to_string_lossy();
        let arguments = ["--transaction-log-decoder", "--files", &files];
        dumped += &kafka_tool("kafka.tools.DumpLogSegments", &arguments);
    }
    let states = ["Empty", "Ongoing", "PrepareCommit", "CompleteCommit"];
    let states = states.map(|state| format!("state={state}"));
    require(&dumped, &states.each_ref().map(String::as_str));
    require(&dumped, &["transactionalId=till", "partitions=[paid-0]"]);
}
