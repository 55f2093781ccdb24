//! The answers of Apache Kafka 3.9.1 to good and bad requests, against ours, byte for byte.

use std::io::Read as _;
use std::path::Path;

use barnabas_core::ids::TopicId;
use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::Value;

use super::testing::TestBroker;

/// Produce, Fetch, `ListOffsets`, `DeleteRecords`, `OffsetForLeaderEpoch`, `WriteTxnMarkers`, `DescribeProducers`.
const KEYS: [i64; 7] = [0, 1, 2, 21, 23, 27, 61];

fn recording() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/wire/sweep.json.gz");
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// A broker in the state in which the recording began.
fn recorded_broker(recording: &Value) -> TestBroker {
    let broker = TestBroker::new();
    let id = |topic: &str| -> Option<TopicId> {
        let text = recording["varies"][format!("topicId {topic}")].as_str()?;
        Some(text.parse().unwrap())
    };
    broker.configure("compact", &[("cleanup.policy", "compact")]);
    broker.create_topic("t", 2, id("t"));
    broker.create_topic("compact", 1, id("compact"));
    broker.create_topic("__consumer_offsets", 1, None);
    let first = recording["cases"]
        .as_array()
        .unwrap()
        .iter()
        .find(|case| case["key"] == 0 && case["version"] == 9 && case["case"] == "valid")
        .unwrap();
    for _ in 0..5 {
        let request = from_hex(first["request"].as_str().unwrap());
        broker.exchange(Bytes::from(request)).unwrap();
    }
    broker
}

/// The random id of a new session is as good as any other.
fn mask_session(case: &Value, response: &mut [u8]) {
    let is_flexible = case["version"].as_i64() >= Some(12);
    let at = if is_flexible { 5 } else { 4 } + 4 + 2;
    if case["case"] == "new session" && case["version"].as_i64() >= Some(7) {
        assert_ne!(response[at..at + 4], [0; 4]);
        response[at..at + 4].fill(0);
    }
}

/// What the controller says, but not the requests that only a controller answers.
const CONTROL_KEYS: [i64; 3] = [4, 5, 6];

#[tokio::test]
async fn orders_of_the_controller_are_answered_as_by_kafka() {
    let recording = recording();
    let broker = recorded_broker(&recording);
    let epoch = recording["varies"]["brokerEpoch"].as_i64().unwrap();
    let known_epoch = broker.broker.replicas.broker_epoch();
    known_epoch.store(epoch, std::sync::atomic::Ordering::SeqCst);
    let mut compared = 0;
    let mut different = Vec::new();
    for case in recording["cases"].as_array().unwrap() {
        let is_control = |key| CONTROL_KEYS.contains(&key);
        if !case["key"].as_i64().is_some_and(is_control) {
            continue;
        }
        compared += 1;
        let request = from_hex(case["request"].as_str().unwrap());
        let ours = broker.exchange_later(Bytes::from(request)).await;
        let theirs = case["response"].as_str().map(from_hex);
        if ours != theirs {
            different.push(format!(
                "{} v{} {}\n  ours   {ours:02x?}\n  theirs {theirs:02x?}",
                case["api"], case["version"], case["case"],
            ));
        }
    }
    assert_eq!(compared, 67);
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn answers_are_those_of_kafka() {
    let recording = recording();
    let broker = recorded_broker(&recording);
    let mut compared = 0;
    let mut different = Vec::new();
    for case in recording["cases"].as_array().unwrap() {
        if !case["key"].as_i64().is_some_and(|key| KEYS.contains(&key)) {
            continue;
        }
        compared += 1;
        let request = from_hex(case["request"].as_str().unwrap());
        let mut ours = broker.exchange(Bytes::from(request));
        let mut theirs = case["response"].as_str().map(from_hex);
        if case["key"] == 1 {
            for response in [&mut ours, &mut theirs].into_iter().flatten() {
                mask_session(case, response);
            }
        }
        if ours != theirs {
            let show = |bytes: &Option<Vec<u8>>| match bytes {
                Some(bytes) => format!("{:02x?}", &bytes[..bytes.len().min(400)]),
                None => "closed".to_owned(),
            };
            different.push(format!(
                "{} v{} {}\n  ours   {}\n  theirs {}",
                case["api"],
                case["version"],
                case["case"],
                show(&ours),
                show(&theirs)
            ));
        }
    }
    assert!(compared > 500, "{compared}");
    assert!(
        different.is_empty(),
        "{} of {compared} differ\n{}",
        different.len(),
        different.join("\n")
    );
}
