//! Laws of all znodes: what is written is read back, what is read may be anything.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::control::{Endpoint, Leadership, SecurityProtocol};
use crate::ids::{BrokerId, TopicId, TopicPartition};

fn name() -> impl Strategy<Value = String> {
    "[ -~\u{e9}\u{1f600}]{1,12}"
}

fn topic() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._-]{1,12}"
}

fn broker_id() -> impl Strategy<Value = BrokerId> {
    any::<i32>().prop_map(BrokerId)
}

fn partition() -> impl Strategy<Value = TopicPartition> {
    (topic(), 0..100_000).prop_map(|(topic, number)| TopicPartition::new(topic, number))
}

fn entity() -> impl Strategy<Value = ConfigEntity> {
    let maybe = || proptest::option::of(name());
    prop_oneof![
        topic().prop_map(ConfigEntity::Topic),
        broker_id().prop_map(ConfigEntity::Broker),
        Just(ConfigEntity::DefaultBroker),
        maybe().prop_map(ConfigEntity::User),
        maybe().prop_map(ConfigEntity::Client),
        (maybe(), maybe()).prop_map(|(user, client)| ConfigEntity::UserClient(user, client)),
        maybe().prop_map(ConfigEntity::Ip),
    ]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let protocol = prop_oneof![
        Just(SecurityProtocol::Plaintext),
        Just(SecurityProtocol::Ssl),
        Just(SecurityProtocol::SaslPlaintext),
        Just(SecurityProtocol::SaslSsl),
    ];
    let host = prop_oneof![
        "[a-z.]{0,10}",
        Just("::1".to_owned()),
        Just("fe80::2".to_owned())
    ];
    (("[A-Z][A-Z0-9_]{0,8}"), protocol, host, any::<u16>()).prop_map(
        |(listener, security_protocol, host, port)| Endpoint {
            listener,
            security_protocol,
            host,
            port,
        },
    )
}

prop_compose! {
    fn registration()(
        id in 0..i32::MAX,
        endpoints in vec(endpoint(), 1..4),
        rack in proptest::option::of(name()),
        jmx_port in -1..65536,
        timestamp_ms in any::<i64>(),
        features in btree_map(name(), (any::<i16>(), any::<i16>()), 0..3),
        fast_failover in any::<bool>(),
    ) -> BrokerRegistration {
        // One protocol a listener, as in any registration.
        let endpoints: std::collections::BTreeMap<_, _> =
            endpoints.into_iter().map(|endpoint| (endpoint.listener.clone(), endpoint)).collect();
        let features = features.into_iter().map(|(name, (min_version, max_version))| {
            (name, SupportedFeature { min_version, max_version })
        });
        BrokerRegistration {
            id: BrokerId(id),
            endpoints: endpoints.into_values().collect(),
            rack,
            jmx_port,
            timestamp_ms,
            features: features.collect(),
            fast_failover,
        }
    }
}

prop_compose! {
    fn assignment()(
        id in proptest::option::of(any::<[u8; 16]>()),
        partitions in btree_map(
            0..10_000,
            (vec(broker_id(), 0..4), vec(broker_id(), 0..3), vec(broker_id(), 0..3)),
            0..20,
        ),
    ) -> TopicAssignment {
        let partitions = partitions.into_iter().map(|(number, (replicas, adding, removing))| {
            let partition = PartitionAssignment {
                replicas,
                adding_replicas: adding,
                removing_replicas: removing,
            };
            (number, partition)
        });
        TopicAssignment {
            topic_id: id.map(|bytes| TopicId(uuid::Uuid::from_bytes(bytes))),
            partitions: partitions.collect(),
        }
    }
}

prop_compose! {
    fn leadership()(
        controller_epoch in any::<i32>(),
        leader in -2..i32::MAX,
        leader_epoch in any::<i32>(),
        isr in vec(broker_id(), 0..5),
        partition_epoch in any::<i32>(),
        is_recovering in any::<bool>(),
    ) -> Leadership {
        Leadership { controller_epoch, leader, leader_epoch, isr, partition_epoch, is_recovering }
    }
}

/// The same object with its keys the other way round and one more that nobody knows, at every level.
fn disturbed(bytes: &[u8]) -> Vec<u8> {
    fn write(value: &Value, is_map: bool, text: &mut String) {
        match value {
            Value::Object(fields) => {
                text.push_str("{ ");
                // Maps keyed by partitions or names have no unknown keys.
                if !is_map {
                    text.push_str(r#""unknown":[{"a":null}],"#);
                }
                let mut fields: Vec<_> = fields.iter().collect();
                fields.reverse();
                for (at, (key, value)) in fields.into_iter().enumerate() {
                    if at > 0 {
                        text.push_str(" ,\n");
                    }
                    text.extend([&Value::from(key.as_str()).to_string(), " : "]);
                    let is_map = matches!(
                        key.as_str(),
                        "partitions"
                            | "adding_replicas"
                            | "removing_replicas"
                            | "config"
                            | "features"
                            | "listener_security_protocol_map"
                    );
                    write(value, is_map, text);
                }
                if text.trim_end().ends_with(',') {
                    let end = text.trim_end().len() - 1;
                    text.truncate(end);
                }
                text.push('}');
            }
            other => text.push_str(&other.to_string()),
        }
    }
    let mut text = String::new();
    write(&serde_json::from_slice(bytes).unwrap(), false, &mut text);
    text.into_bytes()
}

/// Asserts that a value is read back from what was written, however it is laid out.
macro_rules! round_trip {
    ($encoded:expr, $decode:expr, $value:expr) => {{
        let encoded: Vec<u8> = $encoded;
        prop_assert_eq!(&$decode(&encoded).unwrap(), &$value);
        prop_assert_eq!(&$decode(&disturbed(&encoded)).unwrap(), &$value);
    }};
}

proptest! {
    #[test]
    fn registrations_round_trip(value in registration()) {
        round_trip!(value.encode(), |bytes: &[u8]| BrokerRegistration::decode(value.id, bytes), value);
    }

    #[test]
    fn topics_round_trip(value in assignment(), state in leadership()) {
        round_trip!(value.encode(), TopicAssignment::decode, value);
        let decode = |bytes: &[u8]| PartitionState::decode(bytes, state.partition_epoch);
        round_trip!(PartitionState::encode(&state), decode, state);
    }

    #[test]
    fn configurations_round_trip(
        entity in entity(),
        config in btree_map(name(), name(), 0..5),
    ) {
        let change = ConfigChange(entity.clone());
        round_trip!(change.encode(), ConfigChange::decode, change);
        let config = EntityConfig(config);
        round_trip!(config.encode(), EntityConfig::decode, config);
        prop_assert_eq!(ConfigEntity::from_entity_path(&entity.entity_path()), Ok(entity.clone()));
        prop_assert!(entity.path().is_ascii());
    }

    #[test]
    fn admin_nodes_round_trip(
        partitions in vec(partition(), 0..5),
        replicas in btree_map(partition(), vec(broker_id(), 0..4), 0..5),
        broker in broker_id(),
    ) {
        let election = PreferredElection { partitions: partitions.clone() };
        round_trip!(election.encode(), PreferredElection::decode, election);
        let change = IsrChange { partitions };
        round_trip!(change.encode(), IsrChange::decode, change);
        let reassignment = Reassignment { partitions: replicas };
        round_trip!(reassignment.encode(), Reassignment::decode, reassignment);
        let event = LogDirEvent { broker, kind: LogDirEventKind::Failure };
        round_trip!(event.encode(), LogDirEvent::decode, event);
    }

    #[test]
    fn cluster_nodes_round_trip(
        broker in broker_id(),
        timestamp_ms in any::<i64>(),
        epoch in any::<i32>(),
        ids in (any::<i64>(), any::<i64>()),
        levels in btree_map(name(), any::<i16>(), 0..3),
        text in name(),
    ) {
        let seat = ControllerSeat { broker_id: broker, timestamp_ms, kraft_controller_epoch: epoch };
        round_trip!(seat.encode(), ControllerSeat::decode, seat);
        let block = Some(ProducerIdBlock { broker, ids: ids.0..=ids.1 });
        round_trip!(block.clone().unwrap().encode(), ProducerIdBlock::decode, block);
        let feature = Feature::enabled(levels);
        round_trip!(feature.encode(), Feature::decode, feature);
        let id = ClusterId(text);
        round_trip!(id.encode(), ClusterId::decode, id);
        prop_assert_eq!(ControllerEpochZnode::decode(&ControllerEpochZnode::encode(epoch)), Ok(epoch));
        prop_assert_eq!(OldConsumerOffset::decode(&OldConsumerOffset::encode(ids.0)), Ok(ids.0));
    }

    #[test]
    fn security_nodes_round_trip(
        texts in vec(name(), 6),
        kind in proptest::sample::select(ResourceType::ALL.to_vec()),
        times in (any::<i64>(), any::<i64>(), any::<i64>()),
        secrets in (vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40)),
        iterations in any::<i32>(),
    ) {
        let acl = Acl {
            principal: texts[0].clone(),
            permission_type: texts[1].clone(),
            operation: texts[2].clone(),
            host: texts[3].clone(),
        };
        let acls = AclSet(vec![acl.clone(), acl]);
        round_trip!(acls.encode(), AclSet::decode, acls);
        let change = AclChange {
            resource_type: kind,
            name: texts[4].clone(),
            pattern: PatternType::Prefixed,
        };
        round_trip!(ExtendedAclChange::encode(kind, &texts[4]), ExtendedAclChange::decode, change);
        let literal = AclChange { pattern: PatternType::Literal, ..change };
        let encoded = LiteralAclChange::encode(kind, &texts[4]);
        prop_assert_eq!(LiteralAclChange::decode(&encoded), Ok(literal));
        let token = TokenInformation {
            token_id: texts[0].clone(),
            owner: texts[1].clone(),
            token_requester: texts[2].clone(),
            renewers: texts[3..].to_vec(),
            issue_timestamp_ms: times.0,
            max_timestamp_ms: times.1,
            expiry_timestamp_ms: times.2,
        };
        round_trip!(token.encode(), TokenInformation::decode, token);
        let (salt, stored_key, server_key) = secrets;
        let credential = ScramCredential { salt, stored_key, server_key, iterations };
        prop_assert_eq!(ScramCredential::decode(&credential.encode()), Ok(credential));
        prop_assert_eq!(TokenChange::decode(&TokenChange::encode(&texts[0])), Ok(texts[0].clone()));
    }

    #[test]
    fn names_survive_sanitizing(name in any::<String>()) {
        let sanitized = sanitize(&name);
        prop_assert!(sanitized.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-%".contains(&byte)));
        prop_assert_eq!(desanitize(&sanitized), Ok(name));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..100)) {
        read_everything(&bytes);
    }

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        read_everything(value.to_string().as_bytes());
    }
}

/// JSON with the keys that matter, and any values.
fn any_json() -> impl Strategy<Value = Value> {
    let key = proptest::sample::select(vec![
        "version",
        "endpoints",
        "host",
        "port",
        "partitions",
        "adding_replicas",
        "topic_id",
        "isr",
        "leader",
        "config",
        "features",
        "status",
        "entity_path",
        "entity_type",
        "entity_name",
        "broker",
        "block_start",
        "block_end",
        "brokerid",
        "acls",
        "replicas",
        "topic",
        "0",
        "x",
        "min_version",
        "max_version_level",
        "listener_security_protocol_map",
        "renewers",
        "owner",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..6).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "[a-zA-Z0-9%:/._-]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(key.clone(), inner, 0..8)
                .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

fn read_everything(bytes: &[u8]) {
    drop(BrokerRegistration::decode(BrokerId(1), bytes));
    drop(ClusterId::decode(bytes));
    drop(ControllerSeat::decode(bytes));
    drop(ControllerEpochZnode::decode(bytes));
    drop(
        ProducerIdBlock::decode(bytes)
            .map(|latest| ProducerIdBlock::next(latest.as_ref(), BrokerId(1))),
    );
    drop(Feature::decode(bytes));
    drop(Migration::decode(bytes));
    drop(OldConsumerOffset::decode(bytes));
    drop(TopicAssignment::decode(bytes));
    drop(PartitionState::decode(bytes, 0));
    drop(EntityConfig::decode(bytes));
    drop(ConfigChange::decode(bytes));
    drop(Reassignment::decode(bytes));
    drop(PreferredElection::decode(bytes));
    drop(IsrChange::decode(bytes));
    drop(LogDirEvent::decode(bytes));
    drop(AclSet::decode(bytes));
    drop(LiteralAclChange::decode(bytes));
    drop(ExtendedAclChange::decode(bytes));
    drop(TokenInformation::decode(bytes));
    drop(TokenChange::decode(bytes));
    let text = String::from_utf8_lossy(bytes);
    drop(ScramCredential::decode(&text));
    drop(desanitize(&text));
    drop(ConfigEntity::from_entity_path(&text));
}

fn registration_of(text: &str) -> Result<BrokerRegistration, MalformedZnode> {
    BrokerRegistration::decode(BrokerId(1), text.as_bytes())
}

#[test]
fn registrations_of_all_versions_are_read() {
    let endpoints = |text| {
        let registration = registration_of(text).unwrap();
        let endpoints = registration.endpoints.into_iter();
        let endpoints = endpoints.map(|endpoint| {
            let protocol = endpoint.security_protocol.name();
            format!(
                "{} {protocol} {} {}",
                endpoint.listener, endpoint.host, endpoint.port
            )
        });
        endpoints.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        endpoints(r#"{"version":1,"host":"h","port":9092,"jmx_port":9999,"timestamp":"2"}"#),
        "PLAINTEXT PLAINTEXT h 9092"
    );
    assert_eq!(
        endpoints(r#"{"version":2,"endpoints":["PLAINTEXT://:9092","SSL://[::1]:9093"]}"#),
        "PLAINTEXT PLAINTEXT  9092, SSL SSL ::1 9093"
    );
    assert_eq!(
        endpoints(
            r#"{"version":4,"endpoints":["IN://h:1"],"listener_security_protocol_map":{"IN":"SASL_SSL"}}"#
        ),
        "IN SASL_SSL h 1"
    );
    for bad in [
        r#"{"version":0,"host":"h","port":1}"#,
        r#"{"version":1,"host":"h","port":70000}"#,
        r#"{"version":2,"endpoints":["IN://h:1"]}"#,
        r#"{"version":5,"endpoints":["h:1"]}"#,
        r#"{"version":5}"#,
        r"[]",
    ] {
        assert!(registration_of(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_broker_without_plaintext_has_no_host_for_old_readers() {
    let registration = registration_of(r#"{"version":4,"endpoints":["SSL://h:1"]}"#).unwrap();
    let value: Value = serde_json::from_slice(&registration.encode()).unwrap();
    assert_eq!(value["host"], Value::Null);
    assert_eq!(value["port"], json!(-1));
    assert_eq!(value.get("rack"), None);
}

#[test]
fn topics_of_all_versions_are_read() {
    let old =
        TopicAssignment::decode(br#"{"version":1,"partitions":{"0":[1,2],"10":[3]}}"#).unwrap();
    assert_eq!(old.topic_id, None);
    assert_eq!(old.partitions[&10].replicas, [BrokerId(3)]);
    let text = br#"{"version":3,"topic_id":"F53iZoZySnmeSEqaSJU7MA","partitions":{"0":[1,2,3]},
        "adding_replicas":{"0":[3]},"removing_replicas":{"0":[1]}}"#;
    let assignment = &TopicAssignment::decode(text).unwrap().partitions[&0];
    assert!(assignment.is_being_reassigned());
    assert_eq!(assignment.origin_replicas(), [BrokerId(1), BrokerId(2)]);
    assert_eq!(assignment.target_replicas(), [BrokerId(2), BrokerId(3)]);
    for bad in [
        r#"{"partitions":{"x":[1]}}"#,
        r#"{"partitions":{"0":1}}"#,
        r#"{"partitions":{"0":["1"]}}"#,
        r#"{"partitions":{"0":[2147483648]}}"#,
        r#"{"topic_id":"short","partitions":{}}"#,
    ] {
        assert!(TopicAssignment::decode(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn producer_id_blocks_follow_each_other() {
    let broker = BrokerId(7);
    let first = ProducerIdBlock::next(None, broker).unwrap();
    assert_eq!(first.ids, 0..=999);
    let second = ProducerIdBlock::next(Some(&first), broker).unwrap();
    assert_eq!(second.ids, 1000..=1999);
    let last = ProducerIdBlock {
        broker,
        ids: i64::MAX - 10..=i64::MAX,
    };
    assert_eq!(ProducerIdBlock::next(Some(&last), broker), None);
    assert_eq!(ProducerIdBlock::decode(b""), Ok(None));
}

#[test]
fn names_are_sanitized_as_in_java() {
    assert_eq!(
        sanitize("a b*c+d~\u{e9}/.-_"),
        "a%20b%2Ac%2Bd%7E%C3%A9%2F.-_"
    );
    assert_eq!(desanitize("a+b%20c"), Ok("a b c".to_owned()));
    for bad in ["%", "%4", "%zz", "%+1", "%ff"] {
        assert!(desanitize(bad).is_err(), "{bad}");
    }
}

#[test]
fn entities_are_named_in_changes_of_both_versions() {
    let change =
        |text: &str| ConfigChange::decode(text.as_bytes()).map(|change| change.0.entity_path());
    for (text, expected) in [
        (
            r#"{"version":1,"entity_type":"topics","entity_name":"x"}"#,
            "topics/x",
        ),
        (
            r#"{"version":1,"entity_type":"clients","entity_name":"a%20b"}"#,
            "clients/a%20b",
        ),
        (
            r#"{"version":2,"entity_path":"users/<default>/clients/<default>"}"#,
            "users/<default>/clients/<default>",
        ),
        (
            r#"{"version":2,"entity_path":"brokers/<default>"}"#,
            "brokers/<default>",
        ),
        (
            r#"{"version":2,"entity_path":"ips/10.0.0.1"}"#,
            "ips/10.0.0.1",
        ),
    ] {
        assert_eq!(change(text).as_deref(), Ok(expected));
    }
    for bad in [
        r#"{"version":1,"entity_type":"users","entity_name":"x"}"#,
        r#"{"version":2,"entity_path":"topics"}"#,
        r#"{"version":2,"entity_path":"topics/a/b"}"#,
        r#"{"version":2,"entity_path":"brokers/x"}"#,
        r#"{"version":3,"entity_path":"topics/x"}"#,
        r#"{"entity_path":"topics/x"}"#,
    ] {
        assert!(change(bad).is_err(), "{bad}");
    }
}

#[test]
fn rights_follow_from_paths() {
    assert!(is_sensitive("/config/users/u") && is_sensitive("/config/brokers/1"));
    assert!(is_sensitive("/delegation_token/tokens/t") && !is_sensitive("/config/topics/t"));
    assert!(is_open_to_all("/consumers") && !is_open_to_all("/consumers/g"));
    assert_eq!(
        sequence_number("config_change_0000000012", ConfigChange::PREFIX),
        Some(12)
    );
    assert_eq!(sequence_number("other", ConfigChange::PREFIX), None);
}
