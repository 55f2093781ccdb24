//! Transactions of every client library that has them: what is aborted is not read by readers of committed data,
//! consume-process-produce gives each result once, and a producer that has been replaced writes nothing more.

use std::process::Command;

use barnabas_tests::tools::{repository, test_tool};

use crate::client_program::{OneBroker, require_pass};

const STEPS: [&str; 3] = ["abort", "consume process produce", "fence"];

fn python(program: &str) {
    let one = OneBroker::start(|options| options);
    let mut python = Command::new(test_tool("python/bin/python"));
    python
        .arg(repository().join("tests/clients/python").join(program))
        .arg(one.broker.address());
    require_pass(python.env("PYTHONDONTWRITEBYTECODE", "1"), &STEPS);
}

#[test]
fn transactions_of_confluent_kafka() {
    python("transactions_confluent.py");
}

#[test]
fn transactions_of_aiokafka() {
    python("transactions_aio.py");
}

#[test]
fn transactions_of_kafka_python() {
    python("transactions_kafka_python.py");
}

fn java(version: &str) {
    let one = OneBroker::start(|options| options);
    let tool = test_tool(&format!("java-{version}"));
    let mut classes = tool.join("*").into_os_string();
    classes.push(":");
    classes.push(tool.join("classes"));
    let mut java = Command::new("java");
    java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m"])
        .arg("-cp")
        .arg(classes)
        .arg("Transactions")
        .arg(one.broker.address())
        .arg(format!("java-{version}"));
    require_pass(&mut java, &STEPS);
}

#[test]
fn transactions_of_java_2_8() {
    java("2.8.2");
}

#[test]
fn transactions_of_java_3_9() {
    java("3.9.1");
}

#[test]
fn transactions_of_java_4() {
    java("4.4.0");
}

fn go(program: &str) {
    let one = OneBroker::start(|options| options);
    let mut go = Command::new(test_tool("go").join(program));
    require_pass(go.arg(one.broker.address()), &STEPS);
}

#[test]
fn transactions_of_franz_go() {
    go("franz_transactions");
}

#[test]
fn transactions_of_sarama() {
    go("sarama_transactions");
}

#[test]
fn transactions_of_kafkajs() {
    let one = OneBroker::start(|options| options);
    let mut node = Command::new("node");
    node.arg(repository().join("tests/clients/node/kafkajs_transactions.js"))
        .arg(one.broker.address());
    node.env("NODE_PATH", test_tool("node/node_modules"));
    node.env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
    require_pass(&mut node, &STEPS);
}
