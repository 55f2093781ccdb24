//! Topics of a real API server become topics of real brokers.

use std::time::Duration;

use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::kubernetes::Options;
use barnabas_tests::wait;

use crate::lab::{DEFINITION, Lab, PATIENCE};

const INSTALL: &str = include_str!("../../manifests/install.yaml");
const EXAMPLES: [&str; 2] = [
    include_str!("../../manifests/examples/orders.yaml"),
    include_str!("../../manifests/examples/take-over.yaml"),
];

/// The API server judges each rule: what it has to accept and what it has to refuse.
#[test]
fn the_api_server_holds_the_rules_of_topics() {
    let lab = Lab::start();
    let refused = |name: &str, spec: &str, because: &str| {
        let error = lab.apply(name, spec).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains(because), "{spec}: {text}");
    };
    for (name, spec) in [
        ("empty", ""),
        ("named", "topicName: Orders_v1, clusterRef: {name: a}"),
        ("longest", &*format!("topicName: {}", "x".repeat(249))),
        (
            "numbers",
            "replicas: 3, config: {min.insync.replicas: 3, retention.ms: 31536000000}",
        ),
        ("texts", "replicas: 2, config: {min.insync.replicas: \"2\"}"),
        ("grown", "partitions: 5"),
    ] {
        lab.apply(name, spec).unwrap();
    }
    for name in ["..", "a/b", &"x".repeat(250)] {
        refused("bad-name", &format!("topicName: \"{name}\""), "topicName");
    }
    let long = "a".repeat(250);
    refused(&long, "", "metadata.name is too long");
    lab.apply(&long, "topicName: short").unwrap();
    refused(
        "named",
        "topicName: Other, clusterRef: {name: a}",
        "the topic name cannot change",
    );
    refused(
        "named",
        "clusterRef: {name: a}",
        "the topic name cannot change",
    );
    refused("named", "topicName: Orders_v1", "clusterRef cannot change");
    refused(
        "named",
        "topicName: Orders_v1, clusterRef: {name: b}",
        "clusterRef cannot change",
    );
    for value in ["2", "\"2\""] {
        let spec = format!("replicas: 1, config: {{min.insync.replicas: {value}}}");
        refused(
            "min-isr",
            &spec,
            "min.insync.replicas is larger than replicas",
        );
    }
    refused(
        "min-isr",
        "replicas: 1, config: {min.insync.replicas: x}",
        "type conversion",
    );
    for side in ["leader", "follower"] {
        let spec = format!("config: {{{side}.replication.throttled.replicas: \"*\"}}");
        refused("throttled", &spec, "throttle lists belong to the balancer");
    }
    refused("zero", "partitions: 0", "greater than or equal to 1");
    refused("policy", "configPolicy: Some", "Unsupported value");
    // Partitions are compared with those that there are, and status can be written whatever the specification says.
    let status = "{\"status\":{\"partitions\":7}}";
    let patch = [
        "patch",
        "topics.barnabas.dev",
        "grown",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ];
    lab.kubernetes.kubectl(&patch).unwrap();
    refused("grown", "partitions: 6", "partitions cannot decrease");
    lab.apply("grown", "partitions: 5, replicas: 1").unwrap();
    lab.apply("grown", "partitions: 8").unwrap();
    lab.apply("grown", "partitions: 7").unwrap();
    lab.apply("grown", "").unwrap();
    // Status is not written through the resource itself.
    let patch = [
        "patch",
        "topics.barnabas.dev",
        "grown",
        "--type=merge",
        "-p",
        "{\"status\":{\"partitions\":1}}",
    ];
    lab.kubernetes.kubectl(&patch).unwrap();
    assert_eq!(lab.get("grown", ".status.partitions"), "7");
    let by_name = [
        "get",
        "btopic",
        "--field-selector=spec.topicName=Orders_v1",
        "-o",
        "name",
    ];
    assert_eq!(
        lab.kubernetes.kubectl(&by_name).unwrap().trim(),
        "topic.barnabas.dev/named"
    );
    let explained = lab
        .kubernetes
        .kubectl(&["explain", "topics.barnabas.dev.spec.partitions"]);
    assert!(explained.unwrap().contains("Number of partitions"));
}

/// What `manifests/` brings is accepted, and gives no more rights than these.
#[test]
fn the_manifests_are_accepted_and_rights_are_few() {
    let lab = Lab::start();
    lab.kubernetes.apply(INSTALL).unwrap();
    for example in EXAMPLES {
        lab.kubernetes.apply(example).unwrap();
    }
    let may = |verb: &str, resource: &str, namespace: &str| {
        let account = "--as=system:serviceaccount:barnabas:barnabas-operator";
        let arguments = ["auth", "can-i", verb, resource, "-n", namespace, account];
        let answer = lab
            .kubernetes
            .kubectl_command()
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&answer.stdout).trim() == "yes"
    };
    for (verb, resource, namespace) in [
        ("patch", "topics.barnabas.dev", "default"),
        ("watch", "topics.barnabas.dev", "default"),
        ("patch", "topics.barnabas.dev/status", "default"),
        ("create", "events.events.k8s.io", "default"),
        ("create", "leases.coordination.k8s.io", "barnabas"),
        (
            "update",
            "leases.coordination.k8s.io/barnabas-operator",
            "barnabas",
        ),
        ("patch", "configmaps/barnabas-balancer-state", "barnabas"),
        ("list", "pods", "barnabas"),
        ("watch", "nodes", "default"),
    ] {
        assert!(may(verb, resource, namespace), "{verb} {resource}");
    }
    for (verb, resource, namespace) in [
        ("delete", "topics.barnabas.dev", "default"),
        ("create", "topics.barnabas.dev", "default"),
        ("update", "topics.barnabas.dev", "default"),
        ("delete", "pods", "barnabas"),
        ("create", "pods/exec", "barnabas"),
        ("create", "pods/eviction", "barnabas"),
        ("list", "pods", "default"),
        ("list", "secrets", "barnabas"),
        ("get", "secrets", "barnabas"),
        ("delete", "persistentvolumeclaims", "barnabas"),
        ("update", "leases.coordination.k8s.io/other", "barnabas"),
        ("patch", "nodes", "default"),
        (
            "patch",
            "customresourcedefinitions.apiextensions.k8s.io",
            "default",
        ),
    ] {
        assert!(!may(verb, resource, namespace), "{verb} {resource}");
    }
}

/// The definition as an older release may have had it: it lets everything through.
fn lenient_definition() -> String {
    let mut definition: serde_yaml::Value = serde_yaml::from_str(DEFINITION).unwrap();
    let version = &mut definition["spec"]["versions"][0];
    version["schema"]["openAPIV3Schema"] =
        serde_yaml::from_str("{type: object, x-kubernetes-preserve-unknown-fields: true}").unwrap();
    version.as_mapping_mut().unwrap().remove("selectableFields");
    serde_yaml::to_string(&definition).unwrap()
}

/// The life of topics, with brokers that are ours or Apache Kafka's.
#[test]
fn topics_become_and_stay_what_their_resources_say() {
    // What an older definition let through stops nobody.
    let lab = Lab::start_with(&lenient_definition(), &Options::default());
    lab.apply("odd-number", "partitions: many").unwrap();
    lab.apply("odd-kind", "config: [1, 2]").unwrap();
    let without = "{apiVersion: barnabas.dev/v1alpha1, kind: Topic, metadata: {name: without, namespace: default}}";
    lab.kubernetes.apply(without).unwrap();
    lab.kubernetes.apply(DEFINITION).unwrap();
    // Nor does an operator that is gone and whose clock was many years ahead.
    let ahead = "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: operator, namespace: default}, \
        spec: {holderIdentity: gone, leaseDurationSeconds: 2, renewTime: \"2100-01-01T00:00:00.000000Z\"}}";
    lab.kubernetes.apply(ahead).unwrap();
    let mut brokers = Cluster::start(&ClusterOptions::three()).unwrap();
    let zookeeper = brokers.zookeeper().connect();
    let mut operator = lab.operator("operator-1", &brokers, &zookeeper);

    lab.apply(
        "orders",
        "topicName: Orders_v1, partitions: 2, replicas: 2, config: {retention.ms: 86400000}",
    )
    .unwrap();
    lab.wait_for("orders", "True AsSpecified");
    assert_eq!(lab.get("orders", ".status.partitions"), "2");
    assert_eq!(
        lab.get("orders", ".metadata.finalizers[0]"),
        "barnabas.dev/topic"
    );
    let id = lab.get("orders", ".status.topicId");
    assert_eq!(id.len(), 22, "{id}");

    // More partitions, another setting.
    lab.apply(
        "orders",
        "topicName: Orders_v1, partitions: 3, replicas: 2, config: {retention.ms: 7200000}",
    )
    .unwrap();
    let grown = wait::until(PATIENCE, || {
        (lab.get("orders", ".status.partitions") == "3").then_some(())
    });
    assert!(grown.is_some());
    lab.wait_for("orders", "True AsSpecified");

    // What cannot be is said, and the others go on.
    lab.apply("unknown-key", "partitions: 1, config: {no.such.key: 1}")
        .unwrap();
    lab.wait_for("unknown-key", "False InvalidConfig");
    lab.apply("too-many", "partitions: 1, replicas: 9").unwrap();
    lab.wait_for("too-many", "False ReplicasExceedBrokers");
    lab.apply("internal", "topicName: __mine, partitions: 1")
        .unwrap();
    lab.wait_for("internal", "False InternalTopic");
    lab.wait_for("odd-number", "False InvalidSpec");
    // Of these the API server takes no status, as its rules cannot be asked of what they are.
    for malformed in ["odd-kind", "without"] {
        let of_it = format!("jsonpath={{.items[?(@.regarding.name==\"{malformed}\")].reason}}");
        let told = wait::until(PATIENCE, || {
            let arguments = ["get", "events.events.k8s.io", "-o", &of_it];
            let reasons = lab.kubernetes.kubectl(&arguments).unwrap();
            reasons.contains("InvalidSpec").then_some(())
        });
        assert!(told.is_some(), "no event tells of {malformed}");
    }

    // Two resources, one topic: the older has it; when it is let go of, the next one takes over at once.
    lab.apply(
        "second",
        "topicName: Orders_v1, config: {retention.ms: 7200000}",
    )
    .unwrap();
    lab.wait_for("second", "False ResourceConflict");
    lab.delete("orders");
    lab.wait_for("second", "True AsSpecified");
    assert_eq!(
        lab.get("second", ".status.topicId"),
        id,
        "the topic itself stayed"
    );

    // What survives its resource, and what does not.
    lab.apply("kept", "partitions: 1, deletionPolicy: Retain")
        .unwrap();
    lab.wait_for("kept", "True AsSpecified");
    let kept = lab.get("kept", ".status.topicId");
    lab.delete("kept");
    lab.apply("kept", "").unwrap();
    lab.wait_for("kept", "True AsSpecified");
    assert_eq!(lab.get("kept", ".status.topicId"), kept);
    lab.delete("second");
    lab.apply("orders", "topicName: Orders_v1, partitions: 1, replicas: 1")
        .unwrap();
    lab.wait_for("orders", "True AsSpecified");
    assert_ne!(
        lab.get("orders", ".status.topicId"),
        id,
        "the topic was deleted and made anew"
    );

    // An operator that was away finishes what was asked meanwhile; the next one takes over from one that stops.
    operator.terminate(Duration::from_secs(20)).unwrap();
    let arguments = ["delete", "topics.barnabas.dev", "orders", "--wait=false"];
    lab.kubernetes.kubectl(&arguments).unwrap();
    let _second = lab.operator("operator-2", &brokers, &zookeeper);
    lab.wait_until_gone("orders");
}
