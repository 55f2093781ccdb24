//! Quotas of clients, measured: bytes, time, changes of the controller and connections; set by any client and by
//! `kafka-configs`, while all go on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use barnabas_tests::broker::BrokerKind;
use barnabas_tests::http;
use barnabas_tests::load::{batch, ensure_topic};
use barnabas_tests::ports::free_port;
use barnabas_tests::wait::until;
use barnabas_tests::wire::{WireClient, encode_request};
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AlterClientQuotasRequest, ApiVersionsRequest, CreateTopicsRequest, FetchRequest,
    ListGroupsRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::client_program::OneBroker;
use crate::tools::{kafka_tool, require};

const THROTTLING_QUOTA_EXCEEDED: i16 = 89;

const PATIENCE: Duration = Duration::from_secs(20);

/// How many seconds the broker looks back on.
const WINDOW: Duration = Duration::from_secs(3);

/// How long a rate is measured.
const MEASURED: Duration = Duration::from_secs(6);

/// What a broker may let through at once, beyond the rate: the use of the second that it forgets. A client that waits
/// for what it has used, as producers do, never gets that.
const FORGOTTEN: Duration = Duration::from_secs(1);

/// An address of this machine that nobody else connects from.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 77];

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A broker whose windows are short enough for a test, and where its metrics are.
fn start() -> (OneBroker, String) {
    let metrics = format!("127.0.0.1:{}", free_port());
    let one = OneBroker::start(|options| {
        options
            .with("quota.window.num", WINDOW.as_secs())
            .with("controller.quota.window.num", 2)
            .with("barnabas.admin.listener", &metrics)
    });
    (one, metrics)
}

/// Sets quotas of whoever is named by kind and name, in place of those that they had.
fn alter(address: &str, entities: &[(&str, Option<&str>)], key: &str, value: f64) {
    let op = OpData::default().with_key(text(key)).with_value(value);
    let entities = entities.iter().map(|(kind, name)| {
        EntityData::default()
            .with_entity_type(text(kind))
            .with_entity_name(name.map(text))
    });
    let entry = EntryData::default()
        .with_entity(entities.collect())
        .with_ops(vec![op]);
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    let mut client = WireClient::connect(address).unwrap();
    let response = client.request(&request, 1).unwrap();
    assert_eq!(response.entries[0].error_code, 0, "{response:?}");
}

/// What one request did: how much of a quota it used, and for how many milliseconds it had its client throttled.
struct Step {
    used: usize,
    throttle_ms: i32,
}

fn produce(client: &mut WireClient, records: &[u8]) -> Step {
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(records.to_vec().into()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(text("measured")))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic]);
    let response = client.request(&request, 7).unwrap();
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 0);
    Step {
        used: encode_request(&request, 7, 0).unwrap().len(),
        throttle_ms: response.throttle_time_ms,
    }
}

/// Fetches from the start; a client that is throttled by that is given no records.
fn fetch(client: &mut WireClient) -> Step {
    const MAX_BYTES: i32 = 50_000;
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(0)
        .with_partition_max_bytes(MAX_BYTES);
    let topic = FetchTopic::default()
        .with_topic(TopicName(text("measured")))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_wait_ms(100)
        .with_min_bytes(1)
        .with_max_bytes(MAX_BYTES)
        .with_topics(vec![topic]);
    let response = client.request(&request, 11).unwrap();
    assert_eq!(response.error_code, 0);
    let partitions = response.responses.iter().flat_map(|one| &one.partitions);
    let records = partitions.filter_map(|one| one.records.as_ref());
    let used = records.map(bytes::Bytes::len).sum();
    if response.throttle_time_ms > 0 {
        assert_eq!(used, 0, "a throttled client is given records");
    }
    Step {
        used,
        throttle_ms: response.throttle_time_ms,
    }
}

/// Creates a topic of two partitions, unless it is throttled instead.
fn create(client: &mut WireClient, version: i16, name: &str) -> Step {
    const PARTITIONS: usize = 2;
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(PARTITIONS as i32)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(20_000)
        .with_topics(vec![topic]);
    let response = client.request(&request, version).unwrap();
    let used = match response.topics[0].error_code {
        0 => PARTITIONS,
        error => {
            assert_eq!(error, THROTTLING_QUOTA_EXCEEDED);
            assert!(response.throttle_time_ms > 0);
            0
        }
    };
    Step {
        used,
        throttle_ms: response.throttle_time_ms,
    }
}

/// How much a second `step` uses from when it has been throttled for as long as the broker looks back.
fn throttled_rate(mut step: impl FnMut() -> Step) -> f64 {
    let mut settled = None;
    while settled.is_none_or(|settled| Instant::now() < settled) {
        if step().throttle_ms > 0 && settled.is_none() {
            settled = Some(Instant::now() + WINDOW);
        }
    }
    // From the end of one step that used something to the end of another one.
    assert!(
        until(PATIENCE, || (step().used > 0).then_some(())).is_some(),
        "a throttled client is never served"
    );
    let began = Instant::now();
    let mut used = 0;
    loop {
        let one = step();
        used += one.used;
        let passed = began.elapsed();
        if one.used > 0 && passed > MEASURED {
            return used as f64 / passed.as_secs_f64();
        }
    }
}

fn assert_within_a_tenth(what: &str, rate: f64, limit: f64) {
    eprintln!("{what}: {rate:.1} of {limit} a second");
    assert!(
        (0.9..=1.1).contains(&(rate / limit)),
        "{what}: {rate:.1} a second of {limit}"
    );
}

/// As above, for what is refused while a quota is used up: Kafka 3.9.1 shows the same figures.
fn assert_within_a_tenth_and_a_second(what: &str, rate: f64, limit: f64) {
    eprintln!("{what}: {rate:.1} of {limit} a second");
    let apart = 0.1 + FORGOTTEN.as_secs_f64() / MEASURED.as_secs_f64();
    assert!(
        (rate / limit - 1.0).abs() <= apart,
        "{what}: {rate} a second of {limit}"
    );
}

fn configs(address: &str, arguments: &[&str]) -> String {
    let server = ["--bootstrap-server", address];
    kafka_tool("kafka.admin.ConfigCommand", &[&server, arguments].concat())
}

/// Two clients produce and fetch as fast as they may, which changes while they do.
#[test]
fn bytes_move_at_the_rate_of_the_quota_while_it_holds() {
    let (one, metrics) = start();
    let address = &one.broker.address();
    ensure_topic(address, "measured", 1).unwrap();
    let records = &batch(20, 1000, 1_700_000_000_000);
    let connect = |name: &str| WireClient::connect(address).unwrap().named(name);
    let (mut producer, mut consumer) = (connect("producer"), connect("consumer"));
    for _ in 0..10 {
        assert_eq!(produce(&mut producer, records).throttle_ms, 0);
    }
    let mut measure = |produced: f64, fetched: f64| {
        thread::scope(|scope| {
            let rate = scope.spawn(|| throttled_rate(|| fetch(&mut consumer)));
            let of_producer = throttled_rate(|| produce(&mut producer, records));
            assert_within_a_tenth("produced", of_producer, produced);
            assert_within_a_tenth_and_a_second("fetched", rate.join().unwrap(), fetched);
        });
    };

    alter(
        address,
        &[("client-id", Some("producer"))],
        "producer_byte_rate",
        200_000.0,
    );
    alter(
        address,
        &[("client-id", None)],
        "consumer_byte_rate",
        400_000.0,
    );
    measure(200_000.0, 400_000.0);

    // Quotas of users come before those of client ids.
    let add = ["--alter", "--add-config"];
    let all_users = [
        "producer_byte_rate=100000",
        "--entity-type",
        "users",
        "--entity-default",
    ];
    configs(address, &[&add[..], &all_users].concat());
    let consumer_of_user = [
        "consumer_byte_rate=200000,request_percentage=5000",
        "--entity-type",
        "users",
        "--entity-name",
        "ANONYMOUS",
        "--entity-type",
        "clients",
        "--entity-name",
        "consumer",
    ];
    configs(address, &[&add[..], &consumer_of_user].concat());
    measure(100_000.0, 200_000.0);
    if BrokerKind::under_test() == BrokerKind::Barnabas {
        let (_, figures) = http::request(&metrics, "GET", "/metrics", "").unwrap();
        for name in [
            "produce_byte_rate",
            "produce_throttle_time",
            "fetch_byte_rate",
        ] {
            require(&figures, &[&format!("kafka_server_{name}{{user=")]);
        }
        require(&figures, &["kafka_server_produce_queue_size 1\n"]);
    }

    let described = configs(
        address,
        &[
            "--describe",
            "--entity-type",
            "users",
            "--entity-type",
            "clients",
        ],
    );
    require(
        &described,
        &[
            "Quota configs for user-principal 'ANONYMOUS', client-id 'consumer' are ",
            "consumer_byte_rate=200000.0",
            "request_percentage=5000.0",
        ],
    );
    let users = configs(address, &["--describe", "--entity-type", "users"]);
    require(
        &users,
        &["Quota configs for the default user-principal are producer_byte_rate=100000.0"],
    );
    configs(
        address,
        &[
            "--alter",
            "--delete-config",
            "producer_byte_rate",
            "--entity-type",
            "users",
            "--entity-default",
        ],
    );
    alter(
        address,
        &[("client-id", Some("producer"))],
        "producer_byte_rate",
        1e9,
    );
    // More at once than either of the former quotas lets through in a window.
    let is_free = until(PATIENCE, || {
        let mut sent = (0..50).map(|_| produce(&mut producer, records));
        sent.all(|one| one.throttle_ms == 0).then_some(())
    });
    assert!(
        is_free.is_some(),
        "a change holds for clients that are there"
    );
}

/// A connection from an address of its own, which has asked for the versions.
fn connect_from_elsewhere(port: u16) -> TcpStream {
    let end = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&end, &SocketAddr::from((ELSEWHERE, 0))).unwrap();
    connect(&end, &SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    let mut stream = TcpStream::from(end);
    let request = encode_request(&ApiVersionsRequest::default(), 0, 1).unwrap();
    // An error if it is refused already.
    let _ = stream.write_all(&(request.len() as i32).to_be_bytes());
    let _ = stream.write_all(&request);
    stream
}

/// Whether the broker answers instead of hanging up.
fn is_answered(mut connection: &TcpStream) -> bool {
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    match connection.read(&mut [0; 4]) {
        Ok(bytes) => bytes > 0,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) => panic!("neither answered nor refused: {error}"),
    }
}

/// How many connections a second are accepted of three times as many as the limit.
fn accepted_rate(port: u16, limit: f64) -> f64 {
    let mut tried = Vec::new();
    let began = Instant::now();
    while began.elapsed() < 2 * WINDOW + MEASURED {
        tried.push((began.elapsed(), connect_from_elsewhere(port)));
        thread::sleep(Duration::from_secs_f64(1.0 / (3.0 * limit)));
    }
    let accepted = tried
        .iter()
        .filter(|(_, connection)| is_answered(connection));
    let accepted: Vec<Duration> = accepted.map(|(at, _)| *at).collect();
    assert!(accepted.len() < tried.len(), "all are accepted");
    let settled: Vec<&Duration> = accepted.iter().filter(|at| **at > 2 * WINDOW).collect();
    let (first, last) = (settled[0], settled[settled.len() - 1]);
    (settled.len() - 1) as f64 / last.saturating_sub(*first).as_secs_f64()
}

fn client_id(name: &str) -> [(&str, Option<&str>); 1] {
    [("client-id", Some(name))]
}

#[test]
fn changes_and_connections_are_made_at_the_rate_of_the_quota() {
    let (one, metrics) = start();
    let port = one.broker.options().port;
    let address = &one.broker.address();
    let connect = |name: &str| WireClient::connect(address).unwrap().named(name);
    let rate_of_ip = ["--alter", "--add-config", "connection_creation_rate=10"];
    let elsewhere = ["--entity-type", "ips", "--entity-name", "127.0.0.77"];
    configs(address, &[&rate_of_ip[..], &elsewhere].concat());
    let described = configs(address, &[&["--describe"][..], &elsewhere].concat());
    require(
        &described,
        &["Quota configs for ip '127.0.0.77' are connection_creation_rate=10.0"],
    );
    for (client, key, value) in [
        ("changer", "controller_mutation_rate", 5.0),
        ("asker", "request_percentage", 2.0),
        ("curious", "controller_mutation_rate", 1.0),
        ("forbidden", "producer_byte_rate", 0.0),
    ] {
        alter(address, &client_id(client), key, value);
    }

    thread::scope(|scope| {
        let accepted = scope.spawn(|| accepted_rate(port, 10.0));
        let asked = scope.spawn(|| {
            let mut client = connect("asker");
            throttled_rate(|| {
                let response = client.request(&ListGroupsRequest::default(), 4).unwrap();
                assert!(response.throttle_time_ms <= 1000, "longer than a sample");
                Step {
                    used: 1,
                    throttle_ms: response.throttle_time_ms,
                }
            });
            if BrokerKind::under_test() == BrokerKind::Barnabas {
                let (_, figures) = http::request(&metrics, "GET", "/metrics", "").unwrap();
                let name = "kafka_server_request_request_time{user=\"\",client_id=\"asker\"} ";
                let figure = figures.lines().find_map(|line| line.strip_prefix(name));
                assert_within_a_tenth("percent of a thread", figure.unwrap().parse().unwrap(), 2.0);
            }
        });
        let mut changer = connect("changer");
        let mut number = 0;
        let changed = throttled_rate(|| {
            number += 1;
            create(&mut changer, 7, &format!("made-{number}"))
        });
        assert_within_a_tenth("partitions created", changed, 5.0);
        // A client that does not know the error is throttled instead of refused.
        let step = create(&mut changer, 5, "permitted");
        assert!(step.used > 0 && step.throttle_ms > 0);
        asked.join().unwrap();
        assert_within_a_tenth_and_a_second("connections", accepted.join().unwrap(), 10.0);
    });
    if BrokerKind::under_test() == BrokerKind::Barnabas {
        let (_, figures) = http::request(&metrics, "GET", "/metrics", "").unwrap();
        for name in [
            "controllermutation_throttle_time{user=\"\",client_id=\"changer\"}",
            "controllermutation_tokens{user=\"\",client_id=\"changer\"}",
            "request_throttle_time{user=\"\",client_id=\"asker\"}",
            "socket_server_metrics_connection_accept_rate{ip=\"127.0.0.77\"}",
            "socket_server_metrics_ip_connection_accept_throttle_time{listener=\"PLAINTEXT\"}",
        ] {
            require(&figures, &[&format!("kafka_server_{name}")]);
        }
    }

    // Topics that are created since somebody asked for them count, but whoever asks is not throttled for it.
    let mut curious = connect("curious");
    for name in ["a", "b", "c", "d", "e", "f"] {
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(true);
        let response = curious.request(&request, 9).unwrap();
        assert_eq!(response.throttle_time_ms, 0);
        assert_ne!(response.topics[0].error_code, THROTTLING_QUOTA_EXCEEDED);
    }
    assert_eq!(create(&mut curious, 7, "refused").used, 0);

    // Nothing is allowed; in Kafka the throttle time overflows.
    ensure_topic(address, "measured", 1).unwrap();
    let step = produce(&mut connect("forbidden"), &batch(1, 10, 1_700_000_000_000));
    let is_throttled = BrokerKind::under_test() == BrokerKind::Barnabas;
    assert_eq!(step.throttle_ms > 0, is_throttled, "{}", step.throttle_ms);
}
