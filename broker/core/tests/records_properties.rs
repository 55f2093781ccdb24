//! What is written reads back, whatever it is and in whichever codec; and what a leader stores is what
//! the producer meant.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::TopicPartition;
use barnabas_core::records::codec::{self, Codec};
use barnabas_core::records::validate::{ProduceRules, RequestFormat, StoredCompression, prepare};
use barnabas_core::records::{
    BatchBuilder, Compression, Headers, Record, TimestampType, batches, find_by_timestamp, legacy,
    max_timestamp_record, read_batch_meta, records, verify_crc,
};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Entry {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 0..100_000_usize).prop_map(|(byte, count)| vec![byte; count]),
        1 => vec(any::<u8>(), 0..100_000),
    ]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (
        prop_oneof![
            Just(-1),
            0..2_000_000_000_000_i64,
            any::<i64>().prop_map(|ts| ts & i64::MAX)
        ],
        option::of(any_bytes()),
        option::of(any_bytes()),
        vec((".{0,8}", option::of(vec(any::<u8>(), 0..20))), 0..4),
    )
        .prop_map(|(timestamp, key, value, headers)| Entry {
            timestamp,
            key,
            value,
            headers,
        })
}

fn any_codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(&Compression::ALL[..])
}

fn build(mut builder: BatchBuilder, entries: &[Entry]) -> Bytes {
    for entry in entries {
        let headers: Vec<_> = entry
            .headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_deref()))
            .collect();
        builder.push(
            entry.timestamp,
            entry.key.as_deref(),
            entry.value.as_deref(),
            &headers,
        );
    }
    builder.build()
}

fn all(batch: &Bytes) -> Vec<Record> {
    records(batch).unwrap().map(Result::unwrap).collect()
}

fn rules() -> ProduceRules {
    let mut rules = ProduceRules::for_topic(
        &TopicConfig::default(),
        TopicPartition::new("t", 0),
        RequestFormat::OneBatch,
        false,
    );
    rules.max_message_bytes = i32::MAX;
    rules
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn batches_read_back(
        compression in any_codec(),
        entries in vec(any_entry(), 1..12),
        base_offset in 0..i64::MAX / 2,
        (id, epoch, sequence) in (any::<i64>(), any::<i16>(), 0..=i32::MAX),
    ) {
        let builder = BatchBuilder::new(compression)
            .base_offset(base_offset)
            .producer(id, epoch, sequence);
        let batch = build(builder, &entries);
        verify_crc(&batch).unwrap();
        let walked: Vec<_> = batches(&batch).map(Result::unwrap).collect();
        prop_assert_eq!(walked.len(), 1);
        let meta = walked[0].1;
        prop_assert_eq!(meta.size_in_bytes, batch.len());
        prop_assert_eq!(meta.records_count, Some(entries.len() as i32));
        let read = all(&batch);
        prop_assert_eq!(read.len(), entries.len());
        for (at, (record, entry)) in read.iter().zip(&entries).enumerate() {
            prop_assert_eq!(record.offset, base_offset + at as i64);
            prop_assert_eq!(record.timestamp, entry.timestamp);
            prop_assert_eq!(i64::from(record.sequence), (i64::from(sequence) + at as i64) % (1 << 31));
            prop_assert_eq!(record.key.as_deref(), entry.key.as_deref());
            prop_assert_eq!(record.value.as_deref(), entry.value.as_deref());
            let headers: Vec<_> = record
                .headers
                .iter()
                .map(|(name, value)| {
                    (String::from_utf8(name.to_vec()).unwrap(), value.map(|value| value.to_vec()))
                })
                .collect();
            prop_assert_eq!(&headers, &entry.headers);
        }
        prop_assert_eq!(meta.last_sequence, read.last().unwrap().sequence);

        let latest = entries.iter().map(|entry| entry.timestamp).max().unwrap();
        let expected = read.iter().find(|record| record.timestamp == latest && latest >= 0);
        prop_assert_eq!(
            max_timestamp_record(&batch).unwrap(),
            expected.map(|record| (record.offset, record.timestamp))
        );
        let middle = entries[entries.len() / 2].timestamp;
        let start = base_offset + 1;
        let expected = read
            .iter()
            .find(|record| record.timestamp >= middle && record.offset >= start);
        prop_assert_eq!(
            find_by_timestamp(&batch, middle, start).unwrap(),
            expected.map(|record| (record.offset, record.timestamp))
        );
    }

    #[test]
    fn leaders_store_what_was_sent(
        compression in any_codec(),
        stored in option::of(any_codec()),
        log_append_time: bool,
        entries in vec(any_entry(), 1..12),
    ) {
        let sent = build(BatchBuilder::new(compression), &entries);
        let mut rules = rules();
        if let Some(stored) = stored {
            rules.compression = StoredCompression::Fixed(Codec::with_default_level(stored));
        }
        if log_append_time {
            rules.timestamp_type = TimestampType::LogAppendTime;
        }
        let prepared = prepare(sent.clone(), &rules, 77).unwrap().unwrap();
        verify_crc(&prepared.bytes).unwrap();
        prop_assert_eq!(prepared.header.compression(), Ok(stored.unwrap_or(compression)));
        let mut expected = all(&sent);
        if log_append_time {
            for record in &mut expected {
                record.timestamp = 77;
            }
        } else if stored.is_none_or(|stored| stored == compression) {
            prop_assert_eq!(&prepared.bytes, &sent);
        }
        prop_assert_eq!(all(&prepared.bytes), expected);
        // What is stored would be accepted again as it is.
        if !log_append_time {
            let again = prepare(prepared.bytes.clone(), &rules, 78).unwrap().unwrap();
            prop_assert_eq!(again.bytes, prepared.bytes);
        }
    }

    #[test]
    fn old_clients_lose_headers_only(
        compression in prop::sample::select(&Compression::ALL[..4]),
        entries in vec(any_entry(), 1..12),
        magic in 0..=1_i8,
        base_offset in 0..i64::MAX / 2,
        skip in 0..12_i64,
    ) {
        let batch = build(BatchBuilder::new(compression).base_offset(base_offset), &entries);
        let fetch_offset = base_offset + skip.min(entries.len() as i64 - 1);
        let converted = legacy::down_convert(&batch, magic, fetch_offset).unwrap();
        prop_assert!(converted.len() >= batch.len());
        let mut found = Vec::new();
        for (position, meta) in batches(&converted).map_while(Result::ok) {
            let message = converted.slice(position..position + meta.size_in_bytes);
            verify_crc(&message).unwrap();
            prop_assert_eq!(meta.magic, magic);
            found.extend(all(&message));
        }
        let expected: Vec<_> = all(&batch)
            .into_iter()
            .filter(|record| compression != Compression::None || record.offset >= fetch_offset)
            .map(|mut record| {
                record.headers = Headers::default();
                if magic == 0 {
                    record.timestamp = -1;
                }
                record
            })
            .collect();
        prop_assert_eq!(&found, &expected);

        // And as a producer's messages they become magic 2 again.
        let size: usize = batches(&converted).map_while(Result::ok).map(|(_, meta)| meta.size_in_bytes).sum();
        let mut rules = rules();
        rules.format = RequestFormat::AnyMagic;
        let back = prepare(converted.slice(..size), &rules, 77).unwrap().unwrap();
        let back = all(&back.bytes);
        prop_assert_eq!(back.len(), found.len());
        for (back, found) in back.iter().zip(&found) {
            prop_assert_eq!((&back.key, &back.value), (&found.key, &found.value));
            prop_assert_eq!(back.timestamp, found.timestamp);
        }
    }

    #[test]
    fn codecs_give_back_what_they_took(
        compression in any_codec(),
        bytes in any_bytes(),
        magic in 0..=2_i8,
        level in 1..=9,
    ) {
        let data = codec::compress(Codec { compression, level }, magic, &bytes);
        let back = codec::decompress(compression, magic, data.into(), bytes.len()).unwrap();
        prop_assert!(back == bytes);
    }

    #[test]
    fn the_header_needs_61_bytes_at_most(
        magic in 0..=2_i8,
        entry in any_entry(),
    ) {
        let batch = build(BatchBuilder::new(Compression::None), &[entry]);
        let mut message = batch.to_vec();
        if magic < 2 {
            message.clear();
            let format = legacy::MessageFormat {
                magic,
                compression: Compression::None,
                log_append_time: None,
            };
            legacy::write_messages(&mut message, format, records(&batch).unwrap()).unwrap();
        }
        message.truncate(61);
        prop_assert!(read_batch_meta(&message).is_ok());
    }
}
