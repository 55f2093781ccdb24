//! Transactions of every client library that has them: what is aborted is not read by readers of committed data,
//! consume-process-produce gives each result once, and a producer that has been replaced writes nothing more.

use crate::client_program::{go, java, node, python};

const STEPS: [&str; 3] = ["abort", "consume process produce", "fence"];

#[test]
fn transactions_of_confluent_kafka() {
    python("transactions_confluent.py", &STEPS);
}

#[test]
fn transactions_of_aiokafka() {
    python("transactions_aio.py", &STEPS);
}

#[test]
fn transactions_of_kafka_python() {
    python("transactions_kafka_python.py", &STEPS);
}

#[test]
fn transactions_of_java_2_8() {
    java("Transactions", "2.8.2", &STEPS);
}

#[test]
fn transactions_of_java_3_9() {
    java("Transactions", "3.9.1", &STEPS);
}

#[test]
fn transactions_of_java_4() {
    java("Transactions", "4.4.0", &STEPS);
}

#[test]
fn transactions_of_franz_go() {
    go("franz_transactions", &STEPS);
}

#[test]
fn transactions_of_sarama() {
    go("sarama_transactions", &STEPS);
}

#[test]
fn transactions_of_kafkajs() {
    node("kafkajs_transactions.js", &STEPS);
}
