//! What a real API server says to the chart.

use std::time::Duration;

use barnabas_tests::kubernetes::ControlPlane;
use barnabas_tests::tools::repository;
use barnabas_tests::wait;
use expect_test::expect_file;

use super::chart;
use super::renderings::{rendering, value_files};

const PATIENCE: Duration = Duration::from_secs(60);

/// Stands for the Prometheus operator.
const MONITORING: &str = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: PLURAL.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: KIND, plural: PLURAL}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

/// One story, as the control plane takes seconds to start: every rendering is taken, a restricted namespace admits the
/// pods, the operator has these rights and no others, and brokers are not scaled away by mistake.
#[test]
fn an_api_server_takes_the_chart() {
    let directory = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(directory.path()).unwrap();
    let version = plane.kubectl(&["version"]).unwrap();
    assert!(version.contains("Server Version: v1.34.4"), "{version}");
    for namespace in ["streams", "shop", "stock"] {
        plane.kubectl(&["create", "namespace", namespace]).unwrap();
    }
    for (kind, plural) in [
        ("ServiceMonitor", "servicemonitors"),
        ("PrometheusRule", "prometheusrules"),
    ] {
        let crd = MONITORING.replace("KIND", kind).replace("PLURAL", plural);
        plane.apply(&crd).unwrap();
    }
    plane
        .kubectl(&["wait", "crd", "--all", "--for=condition=Established"])
        .unwrap();

    for (name, path) in value_files() {
        let dry = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
        if let Err(error) = plane.kubectl_with_input(&dry, &rendering(&path)) {
            panic!("{name}: {error:#}");
        }
    }

    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    plane
        .kubectl(&["label", "namespace", "streams", restricted])
        .unwrap();
    install(&plane);
    admits_all_pods(&plane);
    rights_are_few(&plane);
    scaling_in_is_guarded(&plane);

    let left = "customresourcedefinition.apiextensions.k8s.io/topics.barnabas.dev\n";
    // There is no node that the hook could run on.
    let uninstall = ["uninstall", "kafka", "--namespace=streams", "--no-hooks"];
    plane.helm(&uninstall).unwrap();
    let crd = ["get", "crd", "topics.barnabas.dev", "--output=name"];
    assert_eq!(plane.kubectl(&crd).unwrap(), left);
}

fn helm(plane: &ControlPlane, task: &[&str], more: &[&str]) -> anyhow::Result<String> {
    let chart = chart().display().to_string();
    let common = [chart.as_str(), "--namespace=streams"];
    let values = ["--set", "zookeeper.mode=bundled"];
    plane.helm(&[task, &common, &values, more].concat())
}

fn install(plane: &ControlPlane) {
    let notes = helm(plane, &["install", "kafka"], &["--set=broker.replicas=4"]).unwrap();
    assert!(
        notes.contains("bootstrap.servers=kafka-barnabas-bootstrap.streams.svc.cluster.local:9092"),
        "{notes}"
    );
}

fn admits_all_pods(plane: &ControlPlane) {
    let count = || {
        let pods = plane
            .kubectl(&["get", "pods", "--namespace=streams", "--output=name"])
            .unwrap();
        (pods.lines().count() == 4 + 2 + 1).then_some(())
    };
    if wait::until(PATIENCE, count).is_none() {
        let events = plane.kubectl(&["get", "events", "--namespace=streams"]);
        panic!("not all pods were admitted: {events:?}");
    }
}

fn rights_are_few(plane: &ControlPlane) {
    let mut all = String::new();
    for account in ["kafka-barnabas-operator", "kafka-barnabas-broker"] {
        for namespace in ["streams", "shop"] {
            let who = format!("--as=system:serviceaccount:streams:{account}");
            let namespace = format!("--namespace={namespace}");
            let list = plane
                .kubectl(&["auth", "can-i", "--list", &who, &namespace])
                .unwrap();
            let mut lines: Vec<_> = list
                .lines()
                // What everybody may: ask who they are, what they may, and what there is.
                .filter(|line| !line.contains("[/") && !line.contains("self"))
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect();
            lines.sort();
            all.extend([
                "# ",
                account,
                " ",
                &namespace,
                "\n",
                &lines.join("\n"),
                "\n\n",
            ]);
        }
    }
    expect_file![repository().join("tests/golden/chart/rights.txt")].assert_eq(&all);
}

fn scaling_in_is_guarded(plane: &ControlPlane) {
    let brokers = "statefulset/kafka-barnabas-broker";
    // Nothing is really scaled by hand: Helm would refuse to take the number back.
    let scale = |replicas: &str| {
        let task = ["scale", brokers, "--namespace=streams"];
        plane.kubectl(&[&task[..], &[replicas, "--dry-run=server"]].concat())
    };
    // A policy works a moment after it was made.
    let refused = || scale("--replicas=3").err();
    let error = wait::until(PATIENCE, refused).unwrap().to_string();
    assert!(error.contains("through the chart"), "{error}");
    scale("--replicas=5").unwrap();

    // There is no node that the hook could run on, which looks whether brokers are empty.
    let three = ["--set=broker.replicas=3", "--no-hooks"];
    let refused = || helm(plane, &["upgrade", "kafka"], &three).err();
    let error = format!("{:#}", wait::until(PATIENCE, refused).unwrap());
    assert!(error.contains("may still hold replicas"), "{error}");
    let drained = "barnabas.dev/drained-to=3";
    plane
        .kubectl(&["annotate", brokers, "--namespace=streams", drained])
        .unwrap();
    helm(plane, &["upgrade", "kafka"], &three).unwrap();
}
