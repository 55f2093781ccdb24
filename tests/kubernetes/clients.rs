//! Clients that people have, inside the pods' network and outside.

use std::process::Command;

use barnabas_tests::kubernetes::TOOLBOX;
use barnabas_tests::tools::{repository, test_tool};

use crate::release::Release;

/// Where clients in the cluster begin.
const INSIDE: &str = "kafka-barnabas-bootstrap.streams.svc.cluster.local:9092";
const CLASS: &str = "ThereAndBack";

/// kafka-python and Kafka's own Java client write and read, from pods of another namespace and from beside the cluster.
pub(crate) fn clients_come_from_both_sides(release: &Release) {
    release
        .lab
        .plane
        .kubectl(&["create", "namespace", "shop"])
        .unwrap();
    let classes = "/opt/client/*:/opt/client/classes";
    in_a_pod(
        release,
        "python-inside",
        &["python3", "/opt/clients/there_and_back.py"],
    );
    in_a_pod(
        release,
        "java-inside",
        &[
            "java",
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-cp",
            classes,
            CLASS,
        ],
    );

    let outside = release.bootstrap.join(",");
    let mut python = Command::new(test_tool("python/bin/python"));
    python
        .arg(repository().join("tests/clients/python/there_and_back.py"))
        .args([&outside, "python-outside"])
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let tool = test_tool("java-3.9.1");
    let mut java = Command::new("java");
    let classes = format!("{0}/*:{0}/classes", tool.display());
    java.args(["-Xmx128m", "-XX:+UseSerialGC", "-cp", &classes, CLASS]);
    java.args([&outside, "java-outside"]);
    for (program, topic) in [(python, "python-outside"), (java, "java-outside")] {
        let said = release.lab.outside(program).unwrap();
        assert!(said.contains(&format!("PASS {topic}")), "{said}");
    }
    eprintln!("kafka-python and the Java client wrote and read, inside and outside");
}

/// Runs a program, with address and topic as arguments, in a pod to its end.
fn in_a_pod(release: &Release, topic: &str, program: &[&str]) {
    let image = format!("--image={TOOLBOX}");
    let run = [
        "run",
        topic,
        "--namespace=shop",
        &image,
        "--restart=Never",
        "--attach",
        "--quiet",
        "--pod-running-timeout=60s",
        "--command",
        "--",
    ];
    let arguments = [&run[..], program, &[INSIDE, topic]].concat();
    let said = release.lab.plane.kubectl(&arguments);
    // What was said before somebody listened is in the log.
    let log = || {
        release
            .lab
            .plane
            .kubectl(&["logs", topic, "--namespace=shop"])
    };
    let is_passed = |said: &anyhow::Result<String>| {
        said.as_ref()
            .is_ok_and(|said| said.contains(&format!("PASS {topic}")))
    };
    assert!(
        is_passed(&said) || is_passed(&log()),
        "{said:?}\n{:?}",
        log()
    );
}
