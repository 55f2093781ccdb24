//! Listeners that come and go while the broker runs, by the settings that any admin client changes.

use std::net::TcpStream;
use std::time::Duration;

use barnabas_tests::load::{batch, ensure_topic};
use barnabas_tests::ports::free_port;
use barnabas_tests::wait::until;
use barnabas_tests::wire::{Answer, WireClient};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    IncrementalAlterConfigsRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::client_program::OneBroker;

const PATIENCE: Duration = Duration::from_secs(20);
const INVALID_REQUEST: i16 = 42;
const TOPIC: &str = "through-any-door";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Sets what has a value and deletes what has none, for broker 0; gives the code and the message.
fn alter(client: &mut WireClient, changes: &[(&str, Option<&str>)]) -> (i16, String) {
    let configs = changes.iter().map(|(key, value)| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(i8::from(value.is_none()))
            .with_value(value.map(text))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(text("0"))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = client.request(&request, 1).unwrap();
    let response = &response.responses[0];
    let message = response.error_message.as_ref();
    (
        response.error_code,
        message.map_or_else(String::new, ToString::to_string),
    )
}

/// The port that the broker tells clients of this listener, unless it cannot be asked.
fn told_port(address: &str) -> Option<u16> {
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    let mut client = WireClient::connect(address).ok()?;
    let response = client.request(&request, 9).ok()?;
    u16::try_from(response.brokers.first()?.port).ok()
}

fn produce(client: &mut WireClient) -> i16 {
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(batch(1, 100, 1_700_000_000_000).into()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(text(TOPIC)))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic]);
    let response = client.request(&request, 7).unwrap();
    response.responses[0].partition_responses[0].error_code
}

/// `listeners`, `advertised.listeners` and the protocol map are dynamic settings of a broker (KIP-226).
#[test]
fn listeners_are_added_told_anew_and_removed_while_the_broker_runs() {
    let one = OneBroker::start(|options| options);
    let first = one.broker.address();
    let second = format!("127.0.0.1:{}", free_port());
    let told = free_port();
    ensure_topic(&first, TOPIC, 1).unwrap();
    let mut client = WireClient::connect(&first).unwrap();

    let both = format!("PLAINTEXT://{first},EXTRA://{second}");
    let map = "PLAINTEXT:PLAINTEXT,EXTRA:PLAINTEXT";
    let (code, message) = alter(&mut client, &[("listeners", Some(&both))]);
    assert_eq!(
        (code, message),
        (
            INVALID_REQUEST,
            format!(
                "Error creating broker listeners from '{both}': No security protocol defined for listener EXTRA"
            )
        )
    );
    let alone = format!("EXTRA://{second}");
    let settings = [
        ("listeners", Some(&*alone)),
        ("listener.security.protocol.map", Some(map)),
    ];
    let (code, message) = alter(&mut client, &settings);
    assert_eq!(code, INVALID_REQUEST, "brokers need their listener");
    assert!(message.starts_with("requirement failed: inter.broker.listener.name must be"));
    let (code, message) = alter(
        &mut client,
        &[("listener.security.protocol.map", Some("PLAINTEXT:SSL"))],
    );
    assert_eq!(code, INVALID_REQUEST);
    assert!(
        message.contains(
            "Security protocol cannot be updated for existing listener ListenerName(PLAINTEXT)"
        ),
        "{message}"
    );

    let settings = [
        ("listeners", Some(&*both)),
        ("listener.security.protocol.map", Some(map)),
    ];
    assert_eq!(alter(&mut client, &settings).0, 0);
    let port_of = |address: &str| address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let is_told = |address: &str, port| (told_port(address) == Some(port)).then_some(());
    until(PATIENCE, || is_told(&second, port_of(&second))).expect("the second listener serves");
    assert_eq!(told_port(&first), Some(port_of(&first)));
    let mut through = WireClient::connect(&second).unwrap();
    assert_eq!(produce(&mut through), 0);

    let elsewhere = format!("PLAINTEXT://{first},EXTRA://127.0.0.1:{told}");
    let changes = [("advertised.listeners", Some(&*elsewhere))];
    assert_eq!(alter(&mut client, &changes).0, 0);
    until(PATIENCE, || is_told(&second, told)).expect("clients are sent to the advertised port");
    assert_eq!(told_port(&first), Some(port_of(&first)));
    assert_eq!(produce(&mut through), 0, "an open connection stays");

    drop((client, through));
    let mut one = one.restart();
    one.broker.wait_for_leaders(TOPIC).unwrap();
    until(PATIENCE, || is_told(&second, told)).expect("it stays so across a restart");

    let mut client = WireClient::connect(&first).unwrap();
    let mut through = WireClient::connect(&second).unwrap();
    assert_eq!(produce(&mut through), 0);
    let changes = [
        ("listeners", None),
        ("advertised.listeners", None),
        ("listener.security.protocol.map", None),
    ];
    assert_eq!(alter(&mut client, &changes).0, 0);
    assert_eq!(
        through.receive().unwrap(),
        Answer::Closed,
        "connections end with their listener"
    );
    until(PATIENCE, || {
        TcpStream::connect(&second).is_err().then_some(())
    })
    .expect("nobody listens any more");
    assert_eq!(produce(&mut client), 0, "the other listener goes on");
    assert_eq!(told_port(&one.broker.address()), Some(port_of(&first)));
}
