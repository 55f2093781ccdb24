//! Every Produce request of the recorded sweep whose answer the records decide: the error code, the
//! faulty records and the message are Kafka's.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::collections::BTreeSet;
use std::path::Path;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::TopicPartition;
use barnabas_core::records::validate::{ProduceRejection, ProduceRules, RequestFormat, prepare};
use bytes::{Buf, Bytes};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

/// The one partition of a Produce request, read from the request's bytes.
struct Request {
    version: i16,
    topic: String,
    partition: i32,
    acks: i16,
    records: Bytes,
}

fn compact_size(bytes: &mut Bytes) -> Option<usize> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value.checked_sub(1);
        }
    }
    None
}

fn take(bytes: &mut Bytes, size: usize) -> Option<Bytes> {
    (size <= bytes.len()).then(|| bytes.split_to(size))
}

/// None if the request is cut short or has no topic.
fn parse(mut bytes: Bytes) -> Option<Request> {
    let _key = bytes.try_get_i16().ok()?;
    let version = bytes.try_get_i16().ok()?;
    let is_flexible = version >= 9;
    let _correlation_id = bytes.try_get_i32().ok()?;
    let client_id = bytes.try_get_i16().ok()?;
    take(&mut bytes, client_id as usize)?;
    if is_flexible {
        bytes.try_get_u8().ok()?;
        compact_size(&mut bytes);
    } else if version >= 3 {
        assert_eq!(
            bytes.try_get_i16(),
            Ok(-1),
            "no transactional id is expected"
        );
    }
    let acks = bytes.try_get_i16().ok()?;
    let _timeout = bytes.try_get_i32().ok()?;
    let count = |bytes: &mut Bytes| {
        if is_flexible {
            compact_size(bytes)
        } else {
            bytes.try_get_i32().ok().map(|count| count as usize)
        }
    };
    if count(&mut bytes)? == 0 {
        return None;
    }
    let name = if is_flexible {
        compact_size(&mut bytes)?
    } else {
        bytes.try_get_i16().ok()? as usize
    };
    let topic = String::from_utf8(take(&mut bytes, name)?.to_vec()).ok()?;
    count(&mut bytes)?;
    let partition = bytes.try_get_i32().ok()?;
    let size = count(&mut bytes)?;
    Some(Request {
        version,
        topic,
        partition,
        acks,
        records: take(&mut bytes, size)?,
    })
}

fn unhex(text: &str) -> Bytes {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn code(rejection: &ProduceRejection) -> i16 {
    match rejection {
        ProduceRejection::InvalidRecord { .. } => 87,
        ProduceRejection::InvalidTimestamp { .. } => 32,
        ProduceRejection::Corrupt(_) | ProduceRejection::CorruptWholeRequest(_) => 2,
        ProduceRejection::MessageTooLarge { .. } => 10,
        ProduceRejection::UnsupportedCompression => 76,
        ProduceRejection::TransactionalIdMissing => 53,
        ProduceRejection::Unexpected(_) | ProduceRejection::UnexpectedWholeRequest(_) => -1,
    }
}

/// Error code, record errors and message, as far as the version tells them.
fn answer(request: &Request) -> Value {
    let mut rules = ProduceRules::for_topic(
        &TopicConfig::default(),
        TopicPartition::new(request.topic.as_str(), request.partition),
        RequestFormat::of_version(request.version),
        false,
    );
    rules.is_compacted = request.topic == "compact";
    let rejection = prepare(request.records.clone(), &rules, 1_795_357_032_222).err();
    let mut answer = json!({ "errorCode": rejection.as_ref().map_or(0, code) });
    if request.version >= 8 {
        let errors = rejection.iter().flat_map(ProduceRejection::record_errors);
        answer["recordErrors"] = errors
            .map(|(index, message)| {
                json!({ "batchIndex": index, "batchIndexErrorMessage": message })
            })
            .collect();
        answer["errorMessage"] = json!(
            rejection
                .as_ref()
                .and_then(ProduceRejection::client_message)
        );
    }
    answer
}

#[test]
fn records_are_judged_as_kafka_judged_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/wire/sweep.json.gz");
    let zipped = std::fs::read(path).unwrap();
    let sweep: Value = serde_json::from_reader(GzDecoder::new(zipped.as_slice())).unwrap();
    let mut seen = BTreeSet::new();
    for case in sweep["cases"].as_array().unwrap() {
        if case["key"] != 0 || case["closed"] == true || case["request"].is_null() {
            continue;
        }
        let Some(request) = parse(unhex(case["request"].as_str().unwrap())) else {
            continue;
        };
        let is_decided_elsewhere = !["t", "compact"].contains(&request.topic.as_str())
            || request.partition != 0
            || !(-1..=1).contains(&request.acks);
        let Some(expected) = case["decoded"]["responses"][0]["partitionResponses"].get(0) else {
            continue;
        };
        if is_decided_elsewhere {
            continue;
        }
        for (name, value) in answer(&request).as_object().unwrap() {
            assert_eq!(
                value, &expected[name],
                "{} v{} {name}",
                case["case"], request.version
            );
        }
        seen.insert((request.version, case["case"].to_string()));
    }
    assert!(seen.len() >= 80, "{}", seen.len());
}
