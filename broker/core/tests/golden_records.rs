//! Every batch and record of segments that Apache Kafka 3.9.1 wrote, read as Kafka itself read them,
//! and the record sets it sent to old consumers.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use barnabas_core::records::{
    BatchMeta, Compression, Record, TimestampType, batches, first_offset, legacy, read_batch_meta,
    records, verify_crc,
};
use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/datadirs")
        .join(name)
}

fn unzip(path: &Path) -> Vec<u8> {
    let zipped = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    GzDecoder::new(zipped.as_slice())
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

fn manifest(name: &str) -> Value {
    serde_json::from_slice(&unzip(&golden(&format!("{name}.manifest.json.gz")))).unwrap()
}

/// The plain files of a tar archive (ustar or GNU), by path below `data/`.
fn untar(bytes: &[u8]) -> BTreeMap<String, Bytes> {
    let text = |field: &[u8]| {
        let end = field.iter().position(|&byte| byte == 0);
        String::from_utf8_lossy(&field[..end.unwrap_or(field.len())]).into_owned()
    };
    let mut files = BTreeMap::new();
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut long_name = None;
    while rest.len() >= 512 && rest[0] != 0 {
        let header = rest.split_to(512);
        let size = usize::from_str_radix(text(&header[124..136]).trim(), 8).unwrap();
        let content = rest.split_to(size.next_multiple_of(512)).slice(..size);
        match header[156] {
            b'L' => long_name = Some(text(&content)),
            b'0' | 0 => {
                let name = long_name.take().unwrap_or_else(|| text(&header[..100]));
                let name = name.trim_start_matches("./").trim_start_matches("data/");
                files.insert(name.to_owned(), content);
            }
            _ => long_name = None,
        }
    }
    files
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Bytes {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn describe_record(record: &Record) -> Value {
    let part = |part: &Option<Bytes>| part.as_ref().map(|bytes| hex(bytes));
    let mut described = json!({
        "offset": record.offset,
        "timestamp": record.timestamp,
        "sequence": record.sequence,
        "key": part(&record.key),
        "value": part(&record.value),
    });
    if !record.headers.is_empty() {
        described["headers"] = record
            .headers
            .iter()
            .map(|(name, value)| json!([String::from_utf8_lossy(&name), part(&value)]))
            .collect();
    }
    described
}

fn describe_batch(position: usize, meta: &BatchMeta, batch: &Bytes) -> Value {
    let valid = verify_crc(batch).is_ok();
    let mut described = json!({
        "position": position,
        "size": meta.size_in_bytes,
        "magic": meta.magic,
        "baseOffset": if valid { first_offset(batch).unwrap() } else { meta.base_offset },
        "lastOffset": meta.last_offset,
        "leaderEpoch": meta.leader_epoch,
        "codec": meta.compression().map_or("?", Compression::name),
        "timestampType": match meta.timestamp_type() {
            _ if meta.magic == 0 => "NoTimestampType",
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        },
        "maxTimestamp": meta.max_timestamp,
        "producerId": meta.producer_id,
        "producerEpoch": meta.producer_epoch,
        "baseSequence": meta.base_sequence,
        "transactional": meta.is_transactional,
        "control": meta.is_control,
        "crc": meta.crc,
        "valid": valid,
        "records": [],
    });
    if meta.attributes.has_delete_horizon() {
        let header = barnabas_core::records::BatchHeader::parse(batch).unwrap();
        described["deleteHorizonMs"] = json!(header.delete_horizon_ms());
    }
    if valid {
        described["records"] = records(batch)
            .unwrap()
            .map(|record| describe_record(&record.unwrap()))
            .collect();
    }
    described
}

/// Walks as a log does: by size fields, up to what is no whole batch.
fn describe_segment(segment: &Bytes) -> Vec<Value> {
    let mut described = Vec::new();
    let mut position = 0;
    while let Ok(meta) = read_batch_meta(&segment[position..]) {
        let end = position + meta.size_in_bytes;
        if end > segment.len() {
            break;
        }
        described.push(describe_batch(
            position,
            &meta,
            &segment.slice(position..end),
        ));
        position = end;
    }
    described
}

#[test]
fn segments_read_as_kafka_reads_them() {
    let (mut segments, mut batches_seen, mut records_seen) = (0, 0, 0);
    let mut names: Vec<_> = std::fs::read_dir(golden(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".tar.gz").map(str::to_owned))
        .collect();
    names.sort();
    for name in &names {
        let files = untar(&unzip(&golden(&format!("{name}.tar.gz"))));
        let manifest = manifest(name);
        for (partition, described) in manifest["partitions"].as_object().unwrap() {
            for (file, segment) in described["segments"].as_object().unwrap() {
                let place = format!("{name}/{partition}/{file}");
                let bytes = &files[&format!("{partition}/{file}")];
                assert_eq!(segment["fileSize"], json!(bytes.len()), "{place}");
                let expected = segment["batches"].as_array().unwrap();
                let found = describe_segment(bytes);
                for (expected, found) in expected.iter().zip(&found) {
                    assert_eq!(found, expected, "{place}");
                    records_seen += found["records"].as_array().unwrap().len();
                }
                assert_eq!(found.len(), expected.len(), "{place}");
                segments += 1;
                batches_seen += found.len();
            }
        }
    }
    assert!(
        segments > 300 && batches_seen > 2000 && records_seen > 4500,
        "the data has shrunk: {segments} segments, {batches_seen} batches, {records_seen} records"
    );
}

/// All records of a set as a consumer sees them, and the bytes of the partial message at its end.
fn consume(set: &Bytes) -> (Vec<Value>, Bytes) {
    let mut seen = Vec::new();
    let mut end = 0;
    for (position, meta) in batches(set).map_while(Result::ok) {
        end = position + meta.size_in_bytes;
        let batch = set.slice(position..end);
        verify_crc(&batch).unwrap();
        seen.push(json!([
            meta.magic,
            meta.compression().unwrap().name(),
            meta.last_offset
        ]));
        seen.extend(
            records(&batch)
                .unwrap()
                .map(|record| describe_record(&record.unwrap())),
        );
    }
    (seen, set.slice(end..))
}

#[test]
fn old_consumers_get_what_kafka_sends_them() {
    check_old_consumers(&manifest("legacy-ibp28"));
    check_old_consumers(&manifest("legacy-ibp39-kill9"));
}

fn check_old_consumers(manifest: &Value) {
    let sets = &manifest["fetchMixedFrom0"];
    let set = |version: &str| unhex(sets[version][0].as_str().unwrap());
    let read = set("v11");
    assert_eq!(read, set("v4"));
    for (version, magic) in [("v1", 0), ("v3", 1)] {
        let expected = set(version);
        let converted = legacy::down_convert(&read, magic, 0).unwrap();
        assert_eq!(converted.len(), expected.len(), "{version}");
        let ((found, found_rest), (expected, expected_rest)) =
            (consume(&converted), consume(&expected));
        assert_eq!(found, expected, "{version}");
        // Another gzip makes other sizes, but both end within a message of the same offset: one that
        // was cut (v3), or the filler (v1), whose size is one more than the bytes that are left.
        assert_eq!(found_rest[..8], expected_rest[..8], "{version}");
        if magic == 0 {
            for rest in [&found_rest, &expected_rest] {
                assert_eq!(rest[..8], (-1_i64).to_be_bytes());
                assert_eq!(rest[8..12], (rest.len() as i32 + 1).to_be_bytes());
                assert!(rest[12..].iter().all(|&byte| byte == 0));
            }
        }
    }
}
