//! The schema refuses what makes no sense, in words, and knows every value that there is.

use std::fs;

use serde_json::Value;

use super::{chart, template};

/// What is set, and what the refusal must say.
const BAD: &[(&str, &str)] = &[
    ("broker.replicas=0", "broker/replicas"),
    ("broker.replicas=two", "broker/replicas"),
    ("broker.replicas=1.5", "broker/replicas"),
    ("broker.scaleIn=Maybe", "broker/scaleIn"),
    ("broker.scaleInTimeoutSeconds=1", "minimum"),
    ("broker.idOffset=-1", "broker/idOffset"),
    ("broker.brokerCount=3", "brokerCount"),
    ("brokers.replicas=3", "brokers"),
    ("broker.terminationGracePeriodSeconds=5", "minimum"),
    ("broker.startupTimeoutSeconds=1", "minimum"),
    ("broker.drainSeconds=120", "maximum"),
    ("broker.storage.size=big", "broker/storage/size"),
    ("broker.storage.size=-5Gi", "broker/storage/size"),
    ("broker.storage.class=fast", "class"),
    ("broker.resources.requests.gpu=1", "gpu"),
    (
        "broker.resources.limits.memory=1GB",
        "broker/resources/limits/memory",
    ),
    (
        "broker.topologySpread.zone=Always",
        "broker/topologySpread/zone",
    ),
    ("broker.pdb.maxUnavailable=0", "broker/pdb/maxUnavailable"),
    ("broker.pdb.enabled=yes", "broker/pdb/enabled"),
    ("broker.logFormat=xml", "broker/logFormat"),
    (
        "broker.config.broker\\.id=7",
        "broker.id is set by the chart",
    ),
    (
        "broker.config.zookeeper\\.connect=zk",
        "zookeeper.connect is set by the chart",
    ),
    (
        "broker.config.advertised\\.listeners=a://b:1",
        "advertised.listeners is set by the chart",
    ),
    ("broker.config.a b=1", "invalid propertyName 'a b'"),
    ("broker.podLabels.tier=a b", "broker/podLabels/tier"),
    ("broker.extraEnv[0].value=1", "name"),
    ("image.pullPolicy=Sometimes", "image/pullPolicy"),
    ("image.broker.tag=a:b", "image/broker/tag"),
    ("image.broker.digest=sha256:12", "image/broker/digest"),
    ("nameOverride=Kafka_Cluster", "nameOverride"),
    ("zookeeper.mode=kraft", "zookeeper/mode"),
    ("zookeeper.connect=", "zookeeper/connect"),
    ("zookeeper.connect=zk:2181 zk2:2181", "zookeeper/connect"),
    ("zookeeper.connect=zookeeper://zk", "zookeeper/connect"),
    ("zookeeper.bundled.replicas=2", "zookeeper/bundled/replicas"),
    (
        "zookeeper.sessionTimeoutMs=100",
        "zookeeper/sessionTimeoutMs",
    ),
    ("rack.source=cloud", "rack/source"),
    ("rack.source=value", "rack.source=value needs rack.value"),
    ("listeners.internal.port=80", "listeners/internal/port"),
    (
        "listeners.internal.tls.enabled=true",
        "listeners/internal/tls/enabled",
    ),
    ("listeners.external.type=Ingress", "listeners/external/type"),
    (
        "listeners.external.nodePort.first=9092",
        "listeners/external/nodePort/first",
    ),
    (
        "listeners.external.enabled=true,listeners.external.type=LoadBalancer",
        "advertisedHostTemplate",
    ),
    (
        "listeners.external.enabled=true,listeners.external.type=LoadBalancer,\
         listeners.external.advertisedHostTemplate=kafka.example.com",
        "must contain {id}",
    ),
    (
        "listeners.external.enabled=true,listeners.external.port=9092",
        "must differ",
    ),
    (
        "listeners.external.enabled=true,listeners.external.nodePort.first=32766",
        "32767",
    ),
    ("operator.replicas=0", "operator/replicas"),
    (
        "operator.watchNamespaces[0]=Shop",
        "operator/watchNamespaces",
    ),
    ("operator.topicPolicy[0].maxTopics=3", "namespace"),
    ("operator.balancing.mode=auto", "operator/balancing/mode"),
    (
        "operator.balancing.failureGrace=soon",
        "operator/balancing/failureGrace",
    ),
    (
        "operator.balancing.moveCooldown=0s",
        "operator/balancing/moveCooldown",
    ),
    (
        "operator.balancing.throttle=fast",
        "operator/balancing/throttle",
    ),
    (
        "operator.balancing.diskMaxUsed=101",
        "operator/balancing/diskMaxUsed",
    ),
    ("crds.install=maybe", "crds/install"),
    ("metrics.port=9092", "metrics.port must differ"),
    (
        "metrics.serviceMonitor.interval=15",
        "metrics/serviceMonitor/interval",
    ),
];

#[test]
fn bad_values_are_refused_in_words() {
    assert!(BAD.len() >= 40);
    for (bad, words) in BAD {
        let output = template(&["--set", "zookeeper.connect=zk:2181", "--set", bad]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{bad} was taken");
        assert!(text.contains(words), "{bad}: {text}");
        let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= 6, "{bad}: {text}");
    }
}

#[test]
fn values_and_schema_know_the_same_keys_and_describe_them() {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let values: Value = serde_yaml::from_str(&text).unwrap();
    let text = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    compare("", &values, &schema);
}

/// Goes down both: each key of one is in the other, but for maps that users fill.
fn compare(path: &str, values: &Value, schema: &Value) {
    let description = schema["description"].as_str().unwrap_or_default();
    assert!(description.ends_with('.'), "{path} has no description");
    let known = schema["type"].is_string() || schema["type"].is_array();
    assert!(known || schema["const"].is_boolean(), "{path} has no type");
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    assert_eq!(schema["additionalProperties"], false, "{path}");
    let values = values
        .as_object()
        .unwrap_or_else(|| panic!("{path} is no map"));
    for key in values.keys() {
        assert!(
            properties.contains_key(key),
            "{path}/{key} is not in the schema"
        );
    }
    for (key, schema) in properties {
        if key == "global" && path.is_empty() {
            continue;
        }
        let value = values.get(key);
        let value = value.unwrap_or_else(|| panic!("{path}/{key} is not in values.yaml"));
        compare(&format!("{path}/{key}"), value, schema);
    }
}
