//! Record batches: nothing that a client sends or a disk holds may make the broker panic, or allocate
//! what a length only claims.

use std::path::Path;
use std::sync::LazyLock;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::TopicPartition;
use barnabas_core::records::codec::Codec;
use barnabas_core::records::validate::{
    ProduceRules, RequestFormat, StoredCompression, check_batches, first_look, prepare,
};
use barnabas_core::records::{
    BatchBuilder, BatchHeader, Compression, ControlRecord, TimestampType, batches,
    find_by_timestamp, first_offset, legacy, max_timestamp_record, read_batch_meta, records,
    verify_crc,
};
use bytes::Bytes;

use crate::allocations::peak_bytes_of;
use crate::mutation::{Random, mutate, run};

/// What a set of a few KiB may need at once: snappy and lz4 expand a byte to 22 or 255 at most, gzip's
/// and the broker's own windows are fixed. A length that is believed would show as up to 2 GiB.
const BYTES_MAX: usize = 16 << 20;

/// One record set of each kind there is: codecs, magics, markers.
static SEEDS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let mut seeds = Vec::new();
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression).producer(1, 0, 5);
        for at in 0..20_u8 {
            let value = vec![b'a' + at; usize::from(at) * 20];
            let header: &[(&[u8], Option<&[u8]>)] = &[(b"name", Some(b"value")), (b"null", None)];
            builder.push(1_700_000_000_000, Some(&[at]), Some(&value), header);
        }
        let batch = builder.build();
        if compression != Compression::Zstd {
            for magic in [0, 1] {
                let mut messages = Vec::new();
                let format = legacy::MessageFormat {
                    magic,
                    compression,
                    log_append_time: None,
                };
                legacy::write_messages(&mut messages, format, records(&batch).unwrap()).unwrap();
                seeds.push(messages.into());
            }
        }
        seeds.push(batch);
    }
    seeds.extend(recorded_sets());
    seeds
});

/// The record sets in Kafka's own answers to Fetch: magic 0, 1 and 2 in one, and what was converted.
fn recorded_sets() -> Vec<Bytes> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/datadirs/legacy-ibp28.manifest.json.gz");
    let file = std::fs::File::open(path).unwrap();
    let manifest: serde_json::Value =
        serde_json::from_reader(flate2::read::GzDecoder::new(file)).unwrap();
    let sets = manifest["fetchMixedFrom0"].as_object().unwrap();
    sets.values()
        .map(|set| {
            let hex = set[0].as_str().unwrap();
            (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect()
        })
        .collect()
}

/// Makes size and CRC of the first batch right again, so that what was changed within it is looked at.
fn mend(bytes: &mut [u8]) {
    if bytes.len() < 61 {
        return;
    }
    let size = bytes.len() as i32 - 12;
    bytes[8..12].copy_from_slice(&size.to_be_bytes());
    if bytes[16] < 2 {
        let crc = crc32_of_message(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_be_bytes());
    } else {
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

fn crc32_of_message(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn rules(at: usize) -> ProduceRules {
    let mut rules = ProduceRules::for_topic(
        &TopicConfig::default(),
        TopicPartition::new("t", 0),
        [RequestFormat::OneBatch, RequestFormat::AnyMagic][at % 2],
        true,
    );
    if at >= 2 {
        let compression = Compression::ALL[at % 5];
        rules.compression = StoredCompression::Fixed(Codec::with_default_level(compression));
        rules.timestamp_type = TimestampType::LogAppendTime;
        rules.is_compacted = at.is_multiple_of(3);
    }
    rules
}

/// Calls everything that takes foreign bytes.
fn exercise(bytes: &Bytes) {
    let _ = BatchHeader::parse(bytes);
    let _ = verify_crc(bytes);
    let _ = first_look(bytes);
    for version in [0, 3, 7] {
        let _ = check_batches(bytes, RequestFormat::of_version(version));
    }
    if read_batch_meta(bytes).is_ok() {
        look_into(bytes);
    }
    for (position, meta) in batches(bytes).map_while(Result::ok) {
        look_into(&bytes.slice(position..position + meta.size_in_bytes));
    }
    for at in 0..7 {
        let rules = rules(at);
        if let Ok(Some(prepared)) = prepare(bytes.clone(), &rules, 1_800_000_000_000) {
            verify_crc(&prepared.bytes).unwrap();
            assert_eq!(prepared.bytes.len(), prepared.header.size_in_bytes());
            assert!(prepared.bytes.len() <= 1_048_588);
            let read = records(&prepared.bytes)
                .unwrap()
                .map(Result::unwrap)
                .count();
            assert_eq!(read, prepared.header.records_count as usize);
        }
    }
    for magic in [0, 1] {
        if let Ok(converted) = legacy::down_convert(bytes, magic, 7) {
            // At least a message that consumers ignore, unless there is not one whole batch.
            match batches(bytes).next() {
                Some(Ok(_)) => assert!(converted.len() >= 12),
                _ => assert!(converted.is_empty()),
            }
        }
    }
}

fn look_into(batch: &Bytes) {
    if let Ok(records) = records(batch) {
        for record in records.map_while(Result::ok) {
            assert_eq!(record.headers.iter().count(), record.headers.len());
        }
    }
    let _ = first_offset(batch);
    let _ = find_by_timestamp(batch, 0, 0);
    let _ = max_timestamp_record(batch);
    let _ = ControlRecord::of_batch(batch);
}

fn exercise_within_bounds(bytes: Vec<u8>) {
    let set = Bytes::from(bytes);
    let peak = peak_bytes_of(|| exercise(&set));
    assert!(peak <= BYTES_MAX, "{peak} bytes for {:02x?}", &set[..]);
}

#[test]
fn fuzz_arbitrary_record_sets() {
    run(|random| {
        let size = random.below(200);
        exercise_within_bounds((0..size).map(|_| random.below(256) as u8).collect());
    });
}

#[test]
fn fuzz_changed_record_sets() {
    let seed = |random: &mut Random| &SEEDS[random.below(SEEDS.len())];
    run(|random| {
        let mut bytes = seed(random).to_vec();
        if random.below(8) == 0 {
            let other = seed(random);
            bytes.extend_from_slice(other);
        }
        mutate(&mut bytes, random);
        if random.below(3) > 0 {
            mend(&mut bytes);
        }
        exercise_within_bounds(bytes);
    });
}
