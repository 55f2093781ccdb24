//! Every standard client, unmodified and pinned: produce with each codec it has, consume from the
//! beginning, an offset and a timestamp, and administrate topics.

use std::process::Command;

use barnabas_tests::tools::{repository, test_tool};

use crate::client_program::{OneBroker, require_pass};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

fn steps(before: &[&'static str], after: &[&'static str]) -> Vec<&'static str> {
    [before, &CODECS, after].concat()
}

fn python(program: &str, steps: &[&str]) {
    let one = OneBroker::start(|options| options);
    let mut python = Command::new(test_tool("python/bin/python"));
    python
        .arg(repository().join("tests/clients/python").join(program))
        .arg(one.broker.address());
    require_pass(python.env("PYTHONDONTWRITEBYTECODE", "1"), steps);
}

#[test]
fn kafka_python() {
    let first = ["hello world", "hello from now on"];
    python(
        "kafka_python.py",
        &steps(&first, &["idempotent", "admin", "group"]),
    );
}

#[test]
fn confluent_kafka() {
    let after = ["idempotent", "admin", "group", "cooperative group"];
    python("confluent.py", &steps(&[], &after));
}

#[test]
fn aiokafka() {
    python("aio.py", &steps(&[], &["idempotent", "admin", "group"]));
}

fn java(version: &str) {
    let one = OneBroker::start(|options| options);
    let tool = test_tool(&format!("java-{version}"));
    let mut classes = tool.join("*").into_os_string();
    classes.push(":");
    classes.push(tool.join("classes"));
    let mut java = Command::new("java");
    java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(classes);
    java.arg("Client")
        .arg(one.broker.address())
        .arg(format!("java-{version}"));
    require_pass(
        &mut java,
        &steps(
            &[],
            &[
                "idempotent",
                "fire and forget",
                "admin",
                "group",
                "cooperative group",
            ],
        ),
    );
}

#[test]
fn java_2_8() {
    java("2.8.2");
}

#[test]
fn java_3_9() {
    java("3.9.1");
}

#[test]
fn java_4() {
    java("4.4.0");
}

fn go(program: &str) {
    let one = OneBroker::start(|options| options);
    let mut go = Command::new(test_tool("go").join(program));
    require_pass(
        go.arg(one.broker.address()),
        &steps(&[], &["idempotent", "admin", "group"]),
    );
}

#[test]
fn franz_go() {
    go("franz");
}

#[test]
fn sarama() {
    go("sarama");
}

#[test]
fn kafkajs() {
    let one = OneBroker::start(|options| options);
    let mut node = Command::new("node");
    node.arg(repository().join("tests/clients/node/kafkajs.js"))
        .arg(one.broker.address());
    node.env("NODE_PATH", test_tool("node/node_modules"));
    node.env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
    require_pass(
        &mut node,
        &["none", "gzip", "snappy", "idempotent", "admin", "group"],
    );
}

#[test]
fn rdkafka() {
    let one = OneBroker::start(|options| options);
    let mut client = Command::new(test_tool("rust/debug/rdkafka-client"));
    require_pass(
        client.arg(one.broker.address()),
        &steps(&[], &["idempotent", "admin"]),
    );
}
