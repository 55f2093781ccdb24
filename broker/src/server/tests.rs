//! Whole brokers in this process, on a ZooKeeper in memory and a directory on disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use barnabas_core::config::BrokerConfig;
use barnabas_core::ids::BrokerId;
use barnabas_core::znodes::{ConfigEntity, PartitionAssignment, TopicAssignment};
use expect_test::{Expect, expect};
use kafka_protocol::messages::alter_configs_request as legacy;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;
use crate::api::alter_configs::{alter_configs, incremental_alter_configs};
use crate::api::configs::describe_configs;
use crate::api::{Call, Connection, Context, Principal};
use crate::host;
use crate::zookeeper::memory::MemoryEnsemble;

/// Requests are not measured here.
static CALL: LazyLock<Call> = LazyLock::new(|| Call::new(0));

/// Longer than anything here should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(log_dir: &Path, more: &[(&str, &str)]) -> BrokerConfig {
    let log_dir = log_dir.to_string_lossy();
    let mut texts: BTreeMap<String, String> = [
        ("broker.id", "20"),
        ("zookeeper.connect", "memory:1"),
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", log_dir.as_ref()),
        ("barnabas.admin.listener", "127.0.0.1:0"),
    ]
    .map(|(key, text)| (key.to_owned(), text.to_owned()))
    .into();
    for (key, text) in more {
        texts.insert((*key).to_owned(), (*text).to_owned());
    }
    BrokerConfig::parse(&texts).unwrap()
}

async fn connect(ensemble: &MemoryEnsemble) -> Arc<ZooKeeper> {
    let zookeeper = ZooKeeper::over(ensemble.connect());
    zookeeper.create_base_paths().await.unwrap();
    zookeeper
}

async fn start(ensemble: &MemoryEnsemble, config: BrokerConfig) -> Running {
    Server::start_on(config, connect(ensemble).await, Arc::new(TcpNetwork))
        .await
        .unwrap()
}

async fn get(running: &Running, path: &str) -> String {
    let mut stream = TcpStream::connect(running.admin_address().unwrap())
        .await
        .unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_starts_serves_and_leaves_no_trace_but_its_files() {
    let (ensemble, directory) = (MemoryEnsemble::new(), tempfile::tempdir().unwrap());
    let running = start(&ensemble, config(directory.path(), &[])).await;
    assert!(ensemble.dump().contains_key("/brokers/ids/20"));

    // ApiVersions v0: header v1, no body.
    let (_, address) = &running.addresses()[0];
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 255, 255];
    stream.write_all(&request).await.unwrap();
    let size = stream.read_i32().await.unwrap();
    assert!(size > 10);
    assert_eq!(
        (
            stream.read_i32().await.unwrap(),
            stream.read_i16().await.unwrap()
        ),
        (7, 0)
    );
    let mut rest = vec![0; size as usize - 6];
    stream.read_exact(&mut rest).await.unwrap();
    // A request is counted when its answer has been sent, which is before the next one of the connection is served.
    let next = [0, 0, 0, 10, 0, 18, 0, 1, 0, 0, 0, 8, 255, 255];
    stream.write_all(&next).await.unwrap();
    let size = stream.read_i32().await.unwrap();
    stream
        .read_exact(&mut vec![0; size as usize])
        .await
        .unwrap();

    assert!(get(&running, "/healthz").await.ends_with("ok\n"));
    assert!(get(&running, "/readyz").await.ends_with("ready\n"));
    let metrics = get(&running, "/metrics").await;
    for line in [
        "kafka_network_requestmetrics_requests_total{request=\"ApiVersions\",version=\"0\"} 1",
        "kafka_server_replicamanager_partitioncount 0",
        "kafka_server_sessionexpirelistener_sessionstate{state=\"CONNECTED\"} 1",
        "kafka_log_logmanager_offlinelogdirectorycount 0",
        "barnabas_build_info{version=",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }

    running.stop().await;
    assert!(!ensemble.dump().contains_key("/brokers/ids/20"));
    let left = |name: &str| directory.path().join(name).exists();
    assert!(left(".kafka_cleanshutdown") && left("meta.properties"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_id_is_kept() {
    let (ensemble, directory) = (MemoryEnsemble::new(), tempfile::tempdir().unwrap());
    let unnamed = || config(directory.path(), &[("broker.id", "-1")]);
    for _ in 0..2 {
        let running = start(&ensemble, unnamed()).await;
        assert_eq!(running.broker().broker_id, BrokerId(1001));
        running.stop().await;
    }
}

async fn refused(config: BrokerConfig, ensemble: &MemoryEnsemble, expected: Expect) {
    let log_dir = config.log_dirs[0].clone();
    let error = Server::start_on(config, connect(ensemble).await, Arc::new(TcpNetwork)).await;
    let text = error.err().expect("the broker must not start").to_string();
    expected.assert_eq(&text.replace(&log_dir, "LOGDIR"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_start_says_why_in_one_sentence() {
    let (ensemble, directory) = (MemoryEnsemble::new(), tempfile::tempdir().unwrap());
    let second = tempfile::tempdir().unwrap();
    let running = start(&ensemble, config(directory.path(), &[])).await;
    let other = start_second(&ensemble, second.path()).await;
    other.stop().await;
    refused(
        config(directory.path(), &[("broker.id", "21")]),
        &ensemble,
        expect!["LOGDIR/meta.properties: the directory belongs to broker 20, but broker.id is 21; if it was moved on purpose, change the file"],
    )
    .await;
    refused(
        config(
            second.path(),
            &[
                ("broker.id", "22"),
                ("barnabas.admin.listener", "127.0.0.1:x"),
            ],
        ),
        &ensemble,
        expect!["barnabas.admin.listener=127.0.0.1:x: cannot listen there: invalid port value; give a free host:port, or an empty value to switch it off"],
    )
    .await;
    running.stop().await;
}

async fn start_second(ensemble: &MemoryEnsemble, log_dir: &Path) -> Running {
    start(ensemble, config(log_dir, &[("broker.id", "22")])).await
}

#[test]
fn listeners_that_are_not_plaintext_are_refused() {
    let config = config(Path::new("/x"), &[("listeners", "PLAINTEXT://:1,SSL://:2")]);
    let problems: Vec<String> = cannot_serve(&config)
        .iter()
        .map(ToString::to_string)
        .collect();
    expect!["listeners=PLAINTEXT://:1,SSL://:2: listener SSL has protocol SSL, and TLS and SASL are not served yet; map SSL to PLAINTEXT, or remove it"].assert_eq(&problems.join("\n"));
}

#[test]
fn classes_that_decide_what_is_allowed_are_refused() {
    let keys = CLASSES.map(|(key, _)| (key, "com.example.Strict"));
    let problems: Vec<String> = cannot_serve(&config(Path::new("/x"), &keys))
        .iter()
        .map(ToString::to_string)
        .collect();
    expect![[r"
        create.topic.policy.class.name=com.example.Strict: Java classes cannot be loaded here, and without it topics would be made that the policy forbids; remove create.topic.policy.class.name to run without it
        alter.config.policy.class.name=com.example.Strict: Java classes cannot be loaded here, and without it settings would be changed that the policy forbids; remove alter.config.policy.class.name to run without it
        client.quota.callback.class=com.example.Strict: Java classes cannot be loaded here, and without it clients would be without their quotas; remove client.quota.callback.class to run without it
        authorizer.class.name=com.example.Strict: Java classes cannot be loaded here, and without it everybody could do everything, as ACLs are not enforced yet; remove authorizer.class.name to run without it"]].assert_eq(&problems.join("\n"));
    let empty = config(Path::new("/x"), &[("authorizer.class.name", "")]);
    assert!(cannot_serve(&empty).is_empty());
}

/// Key, number of the operation, value.
type Change<'a> = (&'a str, i8, Option<&'a str>);

/// A broker with one topic, and what changes in its settings.
struct Configured {
    running: Running,
    changes: mpsc::UnboundedReceiver<(String, i64)>,
    _directory: tempfile::TempDir,
}

async fn configured() -> Configured {
    let (ensemble, directory) = (MemoryEnsemble::new(), tempfile::tempdir().unwrap());
    let running = start(&ensemble, config(directory.path(), &[])).await;
    let broker = running.broker().clone();
    let (sender, changes) = mpsc::unbounded_channel();
    broker.config.on_topic_change(move |topic, config| {
        // The test may have ended.
        let _ = sender.send((topic.to_owned(), config.retention_ms));
    });
    let mut status = broker.controller.status();
    status.wait_for(|status| status.is_active).await.unwrap();
    let assignment = TopicAssignment {
        partitions: BTreeMap::from([(
            0,
            PartitionAssignment {
                replicas: vec![BrokerId(20)],
                ..PartitionAssignment::default()
            },
        )]),
        ..TopicAssignment::default()
    };
    let overrides = BTreeMap::from([("retention.ms".to_owned(), "7".to_owned())]);
    broker
        .zookeeper
        .create_topic("t", &assignment, overrides)
        .await
        .unwrap();
    assert!(
        broker
            .metadata
            .wait_for(PATIENCE, |image| image.topic("t").is_some())
            .await
    );
    Configured {
        running,
        changes,
        _directory: directory,
    }
}

impl Configured {
    fn connection() -> Connection {
        Connection {
            id: 1,
            listener: Arc::from("PLAINTEXT"),
            peer_address: "127.0.0.1:1".parse().unwrap(),
            principal: Principal::anonymous(),
        }
    }

    /// `type name key op value`; answers the error code and the message.
    async fn change(&self, kind: i8, name: &str, changes: &[Change<'_>]) -> (i16, String) {
        let configs = changes.iter().map(|(key, operation, value)| {
            AlterableConfig::default()
                .with_name(text(key))
                .with_config_operation(*operation)
                .with_value(value.map(text))
        });
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(configs.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let connection = Self::connection();
        let response = incremental_alter_configs(request, &self.context(&connection, 1)).await;
        let one = &response.responses[0];
        let message = one
            .error_message
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        (one.error_code, message)
    }

    fn context<'a>(&'a self, connection: &'a Connection, version: i16) -> Context<'a> {
        Context {
            broker: self.running.broker(),
            connection,
            version,
            client_id: None,
            call: &CALL,
        }
    }

    async fn described(&self, kind: i8, name: &str, key: &str) -> String {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(Some(vec![text(key)]));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let connection = Self::connection();
        let response = describe_configs(request, &self.context(&connection, 4)).await;
        match response.results[0].configs.first() {
            Some(one) => format!(
                "{}:{}",
                one.value.as_ref().map_or("null", |value| value),
                one.config_source
            ),
            None => format!("none, error {}", response.results[0].error_code),
        }
    }

    /// The retention of a topic after its next change.
    async fn next_retention(&mut self) -> i64 {
        let changed = tokio::time::timeout(PATIENCE, self.changes.recv()).await;
        changed.unwrap().unwrap().1
    }
}

fn text(text: impl AsRef<str>) -> StrBytes {
    StrBytes::from_string(text.as_ref().to_owned())
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const SET: i8 = 0;
const DELETE: i8 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_settings_apply_while_the_broker_runs() {
    let mut one = configured().await;
    while one.next_retention().await != 7 {}
    assert_eq!(one.described(TOPIC, "t", "retention.ms").await, "7:1");

    let ok = (0, String::new());
    assert_eq!(
        one.change(TOPIC, "t", &[("retention.ms", SET, Some("8"))])
            .await,
        ok
    );
    while one.next_retention().await != 8 {}
    assert_eq!(one.described(TOPIC, "t", "retention.ms").await, "8:1");

    // Without its override the topic follows the broker, and that the cluster.
    assert_eq!(
        one.change(TOPIC, "t", &[("retention.ms", DELETE, None)])
            .await,
        ok
    );
    while one.next_retention().await != 604_800_000 {}
    let flush = [("flush.ms", SET, Some("5"))];
    assert_eq!(one.change(TOPIC, "t", &flush).await, ok);
    while one.next_retention().await != 604_800_000 {}
    assert_eq!(
        one.change(BROKER, "", &[("log.retention.ms", SET, Some("9"))])
            .await,
        ok
    );
    while one.next_retention().await != 9 {}
    assert_eq!(one.described(BROKER, "20", "log.retention.ms").await, "9:3");
    assert_eq!(
        one.change(BROKER, "20", &[("log.retention.ms", SET, Some("10"))])
            .await,
        ok
    );
    while one.next_retention().await != 10 {}
    assert_eq!(
        one.described(BROKER, "20", "log.retention.ms").await,
        "10:2"
    );
    assert_eq!(one.described(TOPIC, "t", "retention.ms").await, "10:2");

    // The older request replaces everything.
    let resource = legacy::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("t"))
        .with_configs(vec![
            legacy::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("11"))),
        ]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let connection = Configured::connection();
    let response = alter_configs(request, &one.context(&connection, 2)).await;
    assert_eq!(response.responses[0].error_code, 0);
    while one.next_retention().await != 11 {}
    assert_eq!(
        one.described(TOPIC, "t", "flush.ms").await,
        "9223372036854775807:5"
    );
    let broker = one.running.broker();
    let entity = ConfigEntity::Topic("t".to_owned());
    let stored = broker.zookeeper.read_config(&entity).await.unwrap();
    assert_eq!(stored.len(), 1);
    one.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_make_no_sense_are_refused() {
    let one = configured().await;
    let mut lines = Vec::new();
    let cases: &[(i8, &str, &[Change<'_>])] = &[
        (TOPIC, "no", &[("retention.ms", SET, Some("8"))]),
        (TOPIC, "", &[("retention.ms", SET, Some("8"))]),
        (TOPIC, "t", &[("retention.ms", SET, Some("x"))]),
        (TOPIC, "t", &[("nope", SET, Some("8"))]),
        (TOPIC, "t", &[("retention.ms", SET, None)]),
        (TOPIC, "t", &[("retention.ms", 9, Some("8"))]),
        (
            TOPIC,
            "t",
            &[
                ("retention.ms", SET, Some("8")),
                ("retention.ms", DELETE, None),
            ],
        ),
        (BROKER, "21", &[("log.retention.ms", SET, Some("8"))]),
        (BROKER, "x", &[("log.retention.ms", SET, Some("8"))]),
        (BROKER, "20", &[("num.partitions", SET, Some("8"))]),
        (BROKER, "", &[("listeners", SET, Some("PLAINTEXT://:1"))]),
        (LOGGER, "20", &[("kafka.x", SET, Some("INFO"))]),
        (
            LOGGER,
            "20",
            &[("kafka.server.KafkaServer", SET, Some("FOO"))],
        ),
        (LOGGER, "20", &[("root", DELETE, None)]),
        (LOGGER, "21", &[("root", SET, Some("INFO"))]),
        (16, "x", &[("a", SET, Some("b"))]),
        (32, "x", &[("a", SET, Some("b"))]),
        (77, "x", &[]),
    ];
    for (kind, name, changes) in cases {
        let (code, message) = one.change(*kind, name, changes).await;
        lines.push(format!("{kind} '{name}' {changes:?}: {code} {message}"));
    }
    expect![[r#"
        2 'no' [("retention.ms", 0, Some("8"))]: 3 The topic 'no' does not exist.
        2 '' [("retention.ms", 0, Some("8"))]: 42 Default topic resources are not allowed.
        2 't' [("retention.ms", 0, Some("x"))]: 40 Invalid config value for resource ConfigResource(type=TOPIC, name='t'): Invalid value x for configuration retention.ms: Not a number of type LONG
        2 't' [("nope", 0, Some("8"))]: 40 Unknown topic config name: nope
        2 't' [("retention.ms", 0, None)]: 42 Null value not supported for : retention.ms
        2 't' [("retention.ms", 9, Some("8"))]: -1 
        2 't' [("retention.ms", 0, Some("8")), ("retention.ms", 1, None)]: 42 Error due to duplicate config keys
        4 '21' [("log.retention.ms", 0, Some("8"))]: 42 Unexpected broker id, expected 20, but received 21
        4 'x' [("log.retention.ms", 0, Some("8"))]: 42 Node id must be an integer, but it is: x
        4 '20' [("num.partitions", 0, Some("8"))]: 42 Cannot update these configs dynamically: Set(num.partitions)
        4 '' [("listeners", 0, Some("PLAINTEXT://:1"))]: 42 Cannot update these configs at default cluster level, broker id must be specified: Set(listeners)
        8 '20' [("kafka.x", 0, Some("INFO"))]: 40 Logger kafka.x does not exist!
        8 '20' [("kafka.server.KafkaServer", 0, Some("FOO"))]: 40 Cannot set the log level of kafka.server.KafkaServer to FOO as it is not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN
        8 '20' [("root", 1, None)]: 42 Removing the log level of the root logger is not allowed
        8 '21' [("root", 0, Some("INFO"))]: 42 Unexpected node id. Expected 20, but received 20
        16 'x' [("a", 0, Some("b"))]: 42 AlterConfigs is only supported for topics and brokers, but resource type is CLIENT_METRICS
        32 'x' [("a", 0, Some("b"))]: 42 Unknown resource type 32
        77 'x' []: 42 Unknown resource type 77"#]].assert_eq(&lines.join("\n"));
    let level = one
        .described(LOGGER, "20", "kafka.server.KafkaServer")
        .await;
    assert_eq!(level, "INFO:6");
    one.running.stop().await;
}

#[path = "metrics_tests.rs"]
mod metrics;
