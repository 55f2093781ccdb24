//! Sentences for people, texts for clients, and what Kafka 3.9.1 was seen to answer.

use std::collections::BTreeMap;
use std::path::Path;

use expect_test::{Expect, expect};
use serde_json::Value;

use super::alter::{self, Operation, Target};
use super::describe::{
    Described, Layers, describe_broker, describe_cluster_default, describe_topic,
};
use super::*;

type Texts = BTreeMap<String, String>;

fn texts(pairs: &[(&str, &str)]) -> Texts {
    let pairs = pairs.iter();
    pairs
        .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
        .collect()
}

/// The given keys and what a broker needs to start.
fn file(pairs: &[(&str, &str)]) -> Texts {
    let mut all = texts(&[("zookeeper.connect", "zk:2181")]);
    all.extend(texts(pairs));
    all
}

fn check(pairs: &[(&str, &str)], expected: &Expect) {
    let problems = BrokerConfig::problems(&file(pairs));
    let sentences: Vec<String> = problems.iter().map(ConfigError::to_string).collect();
    expected.assert_eq(&sentences.join("\n"));
}

#[test]
fn each_wrong_value_is_a_sentence() {
    check(
        &[
            ("num.partitions", "0"),
            ("num.io.threads", "many"),
            ("log.cleaner.min.cleanable.ratio", "1.5"),
            ("auto.create.topics.enable", "yes"),
            ("compression.type", "zip"),
            ("log.cleanup.policy", "delete,shred"),
            ("compression.gzip.level", "10"),
            ("inter.broker.protocol.version", "4.0"),
        ],
        &expect![[r"
            auto.create.topics.enable=yes: this is not true or false; give `true` or `false`
            compression.gzip.level=10: the value is not allowed; give 1 to 9, or -1
            compression.type=zip: the value is not allowed; give one of uncompressed, zstd, lz4, snappy, gzip, producer
            inter.broker.protocol.version=4.0: the value is not allowed; give a version from 0.8.0 to 3.9-IV0, such as 3.9
            log.cleaner.min.cleanable.ratio=1.5: the value is not allowed; give a number from 0 to 1
            log.cleanup.policy=delete,shred: the value is not allowed; give a list of compact, delete
            num.io.threads=many: this is not such a whole number; give a whole number from -2147483648 to 2147483647
            num.partitions=0: the value is not allowed; give 1 or more"]],
    );
}

#[test]
fn a_secret_is_not_shown() {
    let config = BrokerConfig::parse(&file(&[("password.encoder.secret", "hush")])).unwrap();
    assert_eq!(
        format!("{:?}", config.password_encoder_secret),
        "Some([hidden])"
    );
}

#[test]
fn kraft_and_a_missing_zookeeper_are_refused() {
    check(
        &[("process.roles", "broker,controller")],
        &expect![
            "process.roles=broker,controller: this broker runs in ZooKeeper mode only, there are no KRaft roles; remove process.roles and set zookeeper.connect"
        ],
    );
    let nothing = BrokerConfig::problems(&Texts::new());
    expect!["zookeeper.connect: this is not a text; give a text"]
        .assert_eq(&nothing[0].to_string());
}

#[test]
fn broker_ids_follow_kafkas_rules() {
    let accepted =
        |pairs: &[(&str, &str)]| BrokerConfig::parse(&file(pairs)).map(|one| one.broker_id);
    assert_eq!(accepted(&[]), Ok(-1));
    assert_eq!(accepted(&[("broker.id", "1000")]), Ok(1000));
    assert_eq!(accepted(&[("node.id", "5")]), Ok(5));
    let ungenerated = ("broker.id.generation.enable", "false");
    assert_eq!(accepted(&[("broker.id", "1001"), ungenerated]), Ok(1001));
    check(
        &[("broker.id", "1001")],
        &expect![
            "broker.id=1001: broker.id must be greater than or equal to -1 and not greater than reserved.broker.max.id; give an id from 0 to 1000, raise reserved.broker.max.id, or set broker.id.generation.enable=false"
        ],
    );
    check(
        &[ungenerated],
        &expect![
            "broker.id=-1: broker.id must be greater than or equal to 0; give an id, or set broker.id.generation.enable=true"
        ],
    );
    check(
        &[("broker.id", "1"), ("node.id", "2")],
        &expect![
            "broker.id=1: You must set `node.id` to the same value as `broker.id`; remove node.id"
        ],
    );
}

fn listeners(pairs: &[(&str, &str)]) -> String {
    match BrokerConfig::parse(&file(pairs)) {
        Ok(config) => {
            let all = config.listeners.advertised.iter();
            let all: Vec<String> = all
                .map(|one| format!("{} {:?} {}", one.listener, one.host, one.port))
                .collect();
            all.join(", ")
        }
        Err(error) => error.kafka_message(),
    }
}

/// Inputs and answers of Kafka 3.9.1's own configuration class.
#[test]
fn listeners_are_judged_as_kafka_does() {
    let map = (
        "listener.security.protocol.map",
        "C:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    );
    let two = ("listeners", "PLAINTEXT://:9092,C://:9093");
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "PLAINTEXT \"\" 9092"),
        (
            &[("listeners", "PLAINTEXT://[::1]:9092")],
            "PLAINTEXT \"::1\" 9092",
        ),
        (
            &[("listeners", "PLAINTEXT://127.0.0.1:9092,SSL://[::1]:9092")],
            "PLAINTEXT \"127.0.0.1\" 9092, SSL \"::1\" 9092",
        ),
        (
            &[("listeners", "PLAINTEXT://:0,SSL://:0")],
            "PLAINTEXT \"\" 0, SSL \"\" 0",
        ),
        (
            &[("listeners", "")],
            "There must be at least one broker advertised listener.",
        ),
        (
            &[("listeners", "FOO://:1")],
            "Error creating broker listeners from 'FOO://:1': No security protocol defined for listener FOO",
        ),
        (
            &[("listeners", "plaintext://:1,PLAINTEXT://:2")],
            "Each listener must have a different name, listeners: plaintext://:1,PLAINTEXT://:2",
        ),
        (
            &[("listeners", "PLAINTEXT://:1,SSL://:1")],
            "Each listener must have a different port, listeners: PLAINTEXT://:1,SSL://:1",
        ),
        (
            &[("listeners", "PLAINTEXT://localhost:9092,SSL://[::1]:9092")],
            "Each listener must have a different port unless exactly one listener has an IPv4 address and the \
             other IPv6 address, listeners: PLAINTEXT://localhost:9092,SSL://[::1]:9092, port: 9092",
        ),
        (
            &[(
                "listeners",
                "PLAINTEXT://127.0.0.1:9092,SSL://127.0.0.2:9092",
            )],
            "If you have two listeners on the same port then one needs to be IPv4 and the other IPv6, \
             listeners: PLAINTEXT://127.0.0.1:9092,SSL://127.0.0.2:9092, port: 9092",
        ),
        (
            &[("listeners", "PLAINTEXT:/:9092")],
            "Error creating broker listeners from 'PLAINTEXT:/:9092': Unable to parse PLAINTEXT:/:9092 to a \
             broker endpoint",
        ),
        (
            &[("listeners", "PLAINTEXT://host:abc")],
            "Error creating broker listeners from 'PLAINTEXT://host:abc': Unable to parse \
             PLAINTEXT://host:abc to a broker endpoint",
        ),
        (
            &[("advertised.listeners", "PLAINTEXT://0.0.0.0:9092")],
            "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address.",
        ),
        (
            &[("listener.security.protocol.map", "PLAINTEXT:FOO")],
            "Invalid security protocol `FOO` defined in listener.security.protocol.map",
        ),
        (
            &[("inter.broker.listener.name", "FOO")],
            "Listener with name FOO defined in inter.broker.listener.name not found in \
             listener.security.protocol.map.",
        ),
        (
            &[("inter.broker.listener.name", "SSL")],
            "inter.broker.listener.name must be a listener name defined in advertised.listeners. The valid \
             options based on currently configured listeners are PLAINTEXT",
        ),
        (
            &[
                ("inter.broker.listener.name", "PLAINTEXT"),
                ("security.inter.broker.protocol", "PLAINTEXT"),
            ],
            "Only one of inter.broker.listener.name and security.inter.broker.protocol should be set.",
        ),
        (
            &[two, map, ("control.plane.listener.name", "C")],
            "PLAINTEXT \"\" 9092, C \"\" 9093",
        ),
        (
            &[
                two,
                map,
                ("control.plane.listener.name", "C"),
                ("advertised.listeners", "PLAINTEXT://h:9092"),
            ],
            "control.plane.listener.name must be a listener name defined in advertised.listeners. The valid \
             options based on currently configured listeners are PLAINTEXT",
        ),
        (
            &[two, map, ("advertised.listeners", "PLAINTEXT://x:9092")],
            "PLAINTEXT \"x\" 9092",
        ),
    ];
    for (pairs, expected) in cases {
        assert_eq!(listeners(pairs), *expected, "{pairs:?}");
    }
}

#[test]
fn keys_without_effect_are_told_apart() {
    let config = BrokerConfig::parse(&file(&[
        ("no.such.key", "1"),
        ("super.users", "User:a;User:b"),
        ("listener.name.plaintext.max.connections", "5"),
        ("metric.reporters", "x.Y"),
    ]));
    let config = config.unwrap();
    assert_eq!(config.unknown_keys(), ["no.such.key"]);
    assert!(!config.keys_not_honoured_yet().contains(&"metric.reporters"));
    assert_eq!(config.super_users(), ["User:a", "User:b"]);
}

#[test]
fn a_topic_inherits_what_the_broker_says_in_other_units() {
    let config = BrokerConfig::parse(&file(&[
        ("log.retention.hours", "2"),
        ("log.roll.hours", "3"),
        ("log.roll.jitter.ms", "7"),
        ("log.cleanup.policy", "compact"),
        ("log.flush.scheduler.interval.ms", "9"),
    ]));
    let config = config.unwrap();
    let topic = config
        .topic_config(&texts(&[("segment.ms", "11")]))
        .unwrap();
    assert_eq!(topic.retention_ms, 2 * 3_600_000);
    assert_eq!(topic.segment_ms, 11);
    assert_eq!(topic.segment_jitter_ms, 7);
    assert_eq!(topic.flush_ms, 9);
    assert!(topic.cleanup_policy.compact && !topic.cleanup_policy.delete);
    let minutes = file(&[("log.retention.hours", "2"), ("log.retention.minutes", "5")]);
    let config = BrokerConfig::parse(&minutes).unwrap();
    assert_eq!(
        config.topic_config(&Texts::new()).unwrap().retention_ms,
        300_000
    );
    let unlimited = BrokerConfig::parse(&file(&[("log.retention.ms", "-5")])).unwrap();
    assert_eq!(
        unlimited.topic_config(&Texts::new()).unwrap().retention_ms,
        -1
    );
}

fn recording() -> Vec<Value> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/wire/describeconfigs.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn as_recorded(described: &Described) -> Value {
    let synonyms = described.synonyms.iter().map(
        |one| serde_json::json!({"name": one.name, "value": one.value, "source": one.source as i8}),
    );
    serde_json::json!({
        "name": described.name,
        "value": described.value,
        "readOnly": described.read_only,
        "configSource": described.source as i8,
        "isSensitive": described.sensitive,
        "synonyms": synonyms.collect::<Vec<_>>(),
        "configType": described.kind.map_or(0, Kind::code),
    })
}

fn by_name(configs: &[Value]) -> BTreeMap<&str, &Value> {
    let configs = configs.iter();
    configs
        .map(|one| (one["name"].as_str().unwrap(), one))
        .collect()
}

/// The file of the recorded broker, as far as the recording shows it.
fn recorded_file(configs: &[Value]) -> Texts {
    let set = configs.iter().filter(|one| one["configSource"] == 4);
    set.map(|one| {
        let text = one["value"].as_str().unwrap_or("60000");
        (one["name"].as_str().unwrap().to_owned(), text.to_owned())
    })
    .collect()
}

#[test]
fn a_broker_and_a_topic_are_described_as_recorded() {
    let recording = recording();
    let recorded = recording[0]["configs"].as_array().unwrap();
    let file = recorded_file(recorded);
    let nothing = Texts::new();
    let layers = Layers {
        file: &file,
        cluster: &nothing,
        broker: &nothing,
    };
    let described: Vec<Value> = describe_broker(layers).iter().map(as_recorded).collect();
    assert_eq!(by_name(&described), by_name(recorded));

    let recorded = recording[1]["configs"].as_array().unwrap();
    let broker = BrokerConfig::parse(&file).unwrap();
    let described = describe_topic(layers, &broker, &nothing);
    let described: Vec<Value> = described.iter().map(as_recorded).collect();
    assert_eq!(by_name(&described), by_name(recorded));
}

fn line(described: &[Described], name: &str) -> String {
    let one = described.iter().find(|one| one.name == name);
    let Some(one) = one else {
        return format!("no {name}");
    };
    let synonyms = one.synonyms.iter();
    let synonyms: Vec<String> = synonyms
        .map(|one| {
            let value = one.value.as_deref().unwrap_or("null");
            format!("{}={value}:{}", one.name, one.source as i8)
        })
        .collect();
    let value = one.value.as_deref().unwrap_or("null");
    let (source, read_only) = (one.source as i8, one.read_only);
    format!(
        "{name}={value}:{source} ro={read_only} [{}]",
        synonyms.join(" ")
    )
}

/// The layers after the changes that Kafka 3.9.1 was given, and what it said of them.
#[test]
fn dynamic_layers_are_described_as_kafka_does() {
    let file = file(&[("num.io.threads", "8")]);
    let cluster = texts(&[
        ("log.retention.ms", "2000"),
        ("num.io.threads", "100"),
        ("nope", "1"),
        ("listener.name.plaintext.max.connections", "10"),
    ]);
    let own = texts(&[
        ("num.io.threads", "4"),
        ("nope", "1"),
        ("listener.name.plaintext.max.connections", "10"),
        ("listener.name.plaintext.foo", "10"),
        ("leader.replication.throttled.rate", "100"),
        ("log.cleanup.policy", "compact,delete"),
    ]);
    let layers = Layers {
        file: &file,
        cluster: &cluster,
        broker: &own,
    };
    let broker = describe_broker(layers);
    let mut merged = file.clone();
    merged.extend(cluster.clone());
    merged.extend(own.clone());
    let config = BrokerConfig::parse(&merged).unwrap();
    let topic = describe_topic(
        layers,
        &config,
        &texts(&[("retention.bytes", " 7 "), ("preallocate", "TRUE")]),
    );
    let everyone = describe_cluster_default(layers);
    let lines = [
        line(&broker, "log.retention.ms"),
        line(&broker, "log.retention.hours"),
        line(&broker, "num.io.threads"),
        line(&broker, "nope"),
        line(&broker, "listener.name.plaintext.max.connections"),
        line(&broker, "listener.name.plaintext.foo"),
        line(&broker, "leader.replication.throttled.rate"),
        line(&everyone, "log.retention.ms"),
        line(&everyone, "nope"),
        line(&everyone, "listener.name.plaintext.max.connections"),
        line(&topic, "retention.ms"),
        line(&topic, "cleanup.policy"),
        line(&topic, "retention.bytes"),
        line(&topic, "preallocate"),
    ];
    expect![[r"
        log.retention.ms=2000:3 ro=false [log.retention.ms=2000:3 log.retention.hours=168:5]
        log.retention.hours=168:5 ro=true [log.retention.hours=168:5]
        num.io.threads=4:2 ro=false [num.io.threads=4:2 num.io.threads=100:3 num.io.threads=8:4 num.io.threads=8:5]
        nope=null:2 ro=true [nope=null:2 nope=null:3]
        listener.name.plaintext.max.connections=10:2 ro=true [listener.name.plaintext.max.connections=10:2 listener.name.plaintext.max.connections=10:3 max.connections=2147483647:5]
        listener.name.plaintext.foo=null:2 ro=true [listener.name.plaintext.foo=null:2]
        leader.replication.throttled.rate=100:2 ro=true [leader.replication.throttled.rate=100:2]
        log.retention.ms=2000:3 ro=false [log.retention.ms=2000:3]
        nope=null:3 ro=true [nope=null:3]
        listener.name.plaintext.max.connections=10:3 ro=true [listener.name.plaintext.max.connections=10:3]
        retention.ms=2000:3 ro=false [log.retention.ms=2000:3 log.retention.hours=168:5]
        cleanup.policy=compact,delete:2 ro=false [log.cleanup.policy=compact,delete:2 log.cleanup.policy=delete:5]
        retention.bytes=7:1 ro=false [retention.bytes=7:1 log.retention.bytes=-1:5]
        preallocate=true:1 ro=false [preallocate=true:1 log.preallocate=false:5]"]]
    .assert_eq(&lines.join("\n"));
}

fn topic_change(present: &[(&str, &str)], operations: &[(&str, Operation)]) -> String {
    let broker = BrokerConfig::parse(&file(&[])).unwrap();
    let operations: Vec<_> = operations
        .iter()
        .map(|(key, operation)| ((*key).to_owned(), operation.clone()))
        .collect();
    let changed = alter::apply(Target::Topic("t"), &operations, texts(present))
        .and_then(|texts| alter::check_topic("t", &broker, &texts).map(|()| texts));
    match changed {
        Ok(texts) => format!("{texts:?}"),
        Err(error) => format!("{error:?}"),
    }
}

/// Kafka 3.9.1's answers to the same requests.
#[test]
fn topic_changes_are_judged_as_kafka_does() {
    use Operation::{Append, Delete, Set, Subtract};
    let set = |text: &str| Set(text.to_owned());
    let lines = [
        topic_change(&[], &[("retention.ms", set("5"))]),
        topic_change(&[], &[("retention.ms", set("-2"))]),
        topic_change(&[], &[("retention.ms", set("x"))]),
        topic_change(
            &[("cleanup.policy", "compact")],
            &[("cleanup.policy", Append("delete".to_owned()))],
        ),
        topic_change(
            &[("cleanup.policy", "compact,delete")],
            &[("cleanup.policy", Subtract("compact".to_owned()))],
        ),
        topic_change(
            &[],
            &[("cleanup.policy", Append("compact,delete".to_owned()))],
        ),
        topic_change(&[], &[("cleanup.policy", Append("foo".to_owned()))]),
        topic_change(&[], &[("retention.ms", Subtract("5".to_owned()))]),
        topic_change(&[], &[("nope", Append("5".to_owned()))]),
        topic_change(&[], &[("nope", Delete)]),
        topic_change(&[], &[("nope", set("5"))]),
        topic_change(
            &[("leader.replication.throttled.replicas", "0:0")],
            &[(
                "leader.replication.throttled.replicas",
                Subtract("0:0".to_owned()),
            )],
        ),
        topic_change(
            &[],
            &[
                ("min.compaction.lag.ms", set("10")),
                ("max.compaction.lag.ms", set("5")),
            ],
        ),
        topic_change(&[], &[("remote.storage.enable", set("true"))]),
        topic_change(&[], &[("message.format.version", set("0.9"))]),
        topic_change(
            &[],
            &[("leader.replication.throttled.replicas", set("foo"))],
        ),
        topic_change(&[], &[("compression.gzip.level", set("0"))]),
        topic_change(&[], &[("min.cleanable.dirty.ratio", set("-1"))]),
    ];
    expect![[r#"
        {"retention.ms": "5"}
        InvalidConfig("Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value -2 for configuration retention.ms: Value must be at least -1")
        InvalidConfig("Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value x for configuration retention.ms: Not a number of type LONG")
        {"cleanup.policy": "compact,delete"}
        {"cleanup.policy": "delete"}
        {"cleanup.policy": "delete,compact"}
        InvalidConfig("Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete")
        InvalidConfig("Config value subtract is not allowed for config key: retention.ms")
        Unexpected
        {}
        InvalidConfig("Unknown topic config name: nope")
        {"leader.replication.throttled.replicas": ""}
        InvalidConfig("conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)")
        InvalidConfig("Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.")
        InvalidConfig("Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value 0.9 for configuration message.format.version: Version 0.9 is not a valid version")
        InvalidConfig("Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value [foo] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...")
        InvalidConfig("Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1")
        InvalidConfig("Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value -1.0 for configuration min.cleanable.dirty.ratio: Value must be at least 0")"#]].assert_eq(&lines.join("\n"));
}

fn broker_change(name: &str, changes: &[(&str, &str)]) -> String {
    let file = file(&[("num.network.threads", "2")]);
    let running = BrokerConfig::parse(&file).unwrap();
    let dynamic = texts(changes);
    let checked = alter::check_broker(name, &dynamic, &file, &Texts::new(), &running)
        .and_then(|()| alter::check_secret(name, &dynamic, &running));
    checked.map_or_else(|error| format!("{error:?}"), |()| "ok".to_owned())
}

/// Kafka 3.9.1's answers to the same requests, but for a password without an encoder secret.
#[test]
fn broker_changes_are_judged_as_kafka_does() {
    let lines = [
        broker_change("0", &[("log.retention.ms", "1000")]),
        broker_change("", &[("log.retention.ms", "2000")]),
        broker_change("0", &[("log.retention.ms", "x")]),
        broker_change("", &[("log.retention.ms", "x")]),
        broker_change("0", &[("log.retention.ms", "0")]),
        broker_change("0", &[("log.roll.ms", "0")]),
        broker_change("0", &[("num.io.threads", "1")]),
        broker_change("0", &[("num.io.threads", "4")]),
        broker_change("0", &[("num.io.threads", "100")]),
        broker_change("0", &[("num.io.threads", "0")]),
        broker_change("", &[("num.io.threads", "100")]),
        broker_change("0", &[("num.replica.fetchers", "0")]),
        broker_change(
            "0",
            &[("listener.name.plaintext.num.network.threads", "10")],
        ),
        broker_change("0", &[("log.cleaner.threads", "10")]),
        broker_change("0", &[("nope", "1")]),
        broker_change("0", &[("num.partitions", "3")]),
        broker_change("", &[("ssl.keystore.password", "x")]),
        broker_change(
            "0",
            &[("listener.name.plaintext.ssl.keystore.password", "x")],
        ),
        broker_change(
            "",
            &[("listener.name.plaintext.ssl.keystore.location", "/x")],
        ),
        broker_change("", &[("sasl.enabled.mechanisms", "PLAIN")]),
        broker_change("", &[("listeners", "PLAINTEXT://:1")]),
        broker_change("0", &[("max.connections.per.ip", "0")]),
        broker_change("0", &[("listeners", "PLAINTEXT://localhost:29555")]),
        broker_change("0", &[("listeners", "PLAINTEXT://:1,PLAINTEXT://:2")]),
        broker_change("0", &[("listener.security.protocol.map", "A:PLAINTEXT")]),
        broker_change("0", &[("leader.replication.throttled.rate", "x")]),
        broker_change("", &[("follower.replication.throttled.rate", "-5")]),
        broker_change("0", &[("log.cleaner.dedupe.buffer.size", "5")]),
        broker_change("0", &[("principal.builder.class", "foo")]),
        broker_change("0", &[("advertised.listeners", "SSL://127.0.0.1:1")]),
        broker_change("0", &[("advertised.listeners", "PLAINTEXT://elsewhere:1")]),
        broker_change(
            "0",
            &[(
                "listener.security.protocol.map",
                "PLAINTEXT:PLAINTEXT,A:PLAINTEXT",
            )],
        ),
        broker_change(
            "0",
            &[("listener.security.protocol.map", "PLAINTEXT:SASL_SSL")],
        ),
        broker_change("0", &[("listener.name.plaintext.foo.bar", "x")]),
        broker_change(
            "0",
            &[
                ("listeners", "PLAINTEXT://localhost:29555"),
                ("listener.name.plaintext.foo.bar", "x"),
            ],
        ),
        broker_change(
            "0",
            &[
                ("listeners", "PLAINTEXT://localhost:29555"),
                ("listener.name.plaintext.max.connections", "5"),
            ],
        ),
        broker_change("0", &[("inter.broker.listener.name", "PLAINTEXT")]),
    ];
    expect![[r#"
        ok
        ok
        InvalidRequest("Invalid value x for configuration log.retention.ms: Not a number of type LONG")
        InvalidRequest("Invalid value x for configuration log.retention.ms: Not a number of type LONG")
        InvalidRequest("requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1")
        InvalidRequest("requirement failed: log.roll.ms must be greater than or equal to 1")
        InvalidRequest("Invalid value org.apache.kafka.common.config.ConfigException: Dynamic thread count update validation failed for num.io.threads=1, value should be at least half the current value 8 for configuration Invalid dynamic configuration")
        ok
        InvalidRequest("Invalid value org.apache.kafka.common.config.ConfigException: Dynamic thread count update validation failed for num.io.threads=100, value should not be greater than double the current value 8 for configuration Invalid dynamic configuration")
        InvalidRequest("Invalid value 0 for configuration num.io.threads: Value must be at least 1")
        InvalidRequest("Invalid value org.apache.kafka.common.config.ConfigException: Dynamic thread count update validation failed for num.io.threads=100, value should not be greater than double the current value 8 for configuration Invalid dynamic configuration")
        InvalidRequest("Invalid value org.apache.kafka.common.config.ConfigException: Dynamic thread count update validation failed for num.replica.fetchers=0, value should be at least 1 for configuration Invalid dynamic configuration")
        InvalidRequest("Invalid value org.apache.kafka.common.config.ConfigException: Dynamic thread count update validation failed for num.network.threads=10, value should not be greater than double the current value 2 for configuration Invalid dynamic configuration")
        InvalidRequest("Invalid value org.apache.kafka.common.config.ConfigException: Log cleaner threads cannot be increased to more than double the current value 1 for configuration Invalid dynamic configuration")
        ok
        InvalidRequest("Cannot update these configs dynamically: Set(num.partitions)")
        InvalidRequest("These security configs can be dynamically updated only per-listener using the listener prefix: HashSet(ssl.keystore.password)")
        InvalidConfig("Invalid config value for resource ConfigResource(type=BROKER, name='0'): Password encoder secret not configured")
        InvalidRequest("Cannot update these configs at default cluster level, broker id must be specified: Set(listener.name.plaintext.ssl.keystore.location)")
        InvalidRequest("Cannot update these configs at default cluster level, broker id must be specified: Set(sasl.enabled.mechanisms)")
        InvalidRequest("Cannot update these configs at default cluster level, broker id must be specified: Set(listeners)")
        InvalidRequest("requirement failed: max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set.")
        ok
        InvalidRequest("requirement failed: Each listener must have a different name, listeners: PLAINTEXT://:1,PLAINTEXT://:2")
        InvalidRequest("Error creating broker listeners from 'PLAINTEXT://:9092': No security protocol defined for listener PLAINTEXT")
        InvalidRequest("Invalid value x for configuration leader.replication.throttled.rate: Not a number of type LONG")
        InvalidRequest("Invalid value -5 for configuration follower.replication.throttled.rate: Value must be at least 0")
        InvalidRequest("requirement failed: log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.")
        InvalidRequest("Invalid value foo for configuration principal.builder.class: Class foo could not be found.")
        InvalidRequest("requirement failed: inter.broker.listener.name must be a listener name defined in advertised.listeners. The valid options based on currently configured listeners are SSL")
        ok
        ok
        InvalidRequest("Invalid value org.apache.kafka.common.config.ConfigException: Security protocol cannot be updated for existing listener ListenerName(PLAINTEXT) for configuration Invalid dynamic configuration")
        ok
        InvalidRequest("Invalid value org.apache.kafka.common.config.ConfigException: Configs cannot be updated dynamically for existing listener ListenerName(PLAINTEXT), restart broker or create a new listener for update for configuration Invalid dynamic configuration")
        ok
        InvalidRequest("Cannot update these configs dynamically: Set(inter.broker.listener.name)")"#]].assert_eq(&lines.join("\n"));
}
