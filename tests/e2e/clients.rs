//! Every standard client, unmodified and pinned: produce with each codec it has, consume from the
//! beginning, an offset and a timestamp, and administrate topics.

use crate::client_program::{go, java, node, python, rust};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

fn steps(before: &[&'static str], after: &[&'static str]) -> Vec<&'static str> {
    [before, &CODECS, after].concat()
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

fn java_client(version: &str) {
    let after = [
        "idempotent",
        "fire and forget",
        "admin",
        "group",
        "cooperative group",
    ];
    java("Client", version, &steps(&[], &after));
}

#[test]
fn java_2_8() {
    java_client("2.8.2");
}

#[test]
fn java_3_9() {
    java_client("3.9.1");
}

#[test]
fn java_4() {
    java_client("4.4.0");
}

#[test]
fn franz_go() {
    go("franz", &steps(&[], &["idempotent", "admin", "group"]));
}

#[test]
fn sarama() {
    go("sarama", &steps(&[], &["idempotent", "admin", "group"]));
}

#[test]
fn kafkajs() {
    let codecs_of_its_own = ["none", "gzip", "snappy"];
    let after = ["idempotent", "admin", "group"];
    node("kafkajs.js", &[&codecs_of_its_own[..], &after].concat());
}

#[test]
fn rdkafka() {
    let after = [
        "idempotent",
        "admin",
        "group",
        "cooperative group",
        "abort",
        "consume process produce",
        "fence",
    ];
    rust("rdkafka-client", &steps(&[], &after));
}
