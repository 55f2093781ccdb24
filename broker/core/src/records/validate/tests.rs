//! Odd batches and what a Kafka 3.9.1 broker answered to each (codes and messages as observed).

use bytes::Bytes;

use super::*;
use crate::records::batch::{HEADER_SIZE, field, put};
use crate::records::{
    Attributes, BatchBuilder, EndTransactionMarker, batches, codec, end_transaction_marker, legacy,
    records,
};

const NOW: i64 = 1_795_357_032_222;

/// What the broker does with what `prepare` says: an error code, or 0 and the stored batch.
type Answer = Result<Option<PreparedBatch>, ProduceRejection>;

fn code(answer: &Answer) -> i16 {
    match answer {
        Ok(_) => 0,
        Err(rejection) => match rejection {
            ProduceRejection::InvalidRecord { .. } => 87,
            ProduceRejection::InvalidTimestamp { .. } => 32,
            ProduceRejection::Corrupt(_) | ProduceRejection::CorruptWholeRequest(_) => 2,
            ProduceRejection::MessageTooLarge { .. } => 10,
            ProduceRejection::UnsupportedCompression => 76,
            ProduceRejection::TransactionalIdMissing => 53,
            ProduceRejection::Unexpected(_) | ProduceRejection::UnexpectedWholeRequest(_) => -1,
        },
    }
}

fn rules() -> ProduceRules {
    ProduceRules::for_topic(
        &TopicConfig::default(),
        TopicPartition::new("t", 0),
        RequestFormat::OneBatch,
        false,
    )
}

fn rules_with(change: impl FnOnce(&mut ProduceRules)) -> ProduceRules {
    let mut rules = rules();
    change(&mut rules);
    rules
}

fn log_append_time() -> ProduceRules {
    rules_with(|rules| rules.timestamp_type = TimestampType::LogAppendTime)
}

fn stored_in(compression: Compression) -> ProduceRules {
    rules_with(|rules| {
        rules.compression = StoredCompression::Fixed(Codec::with_default_level(compression));
    })
}

/// `k0: v0` and so on, a millisecond apart.
fn batch(compression: Compression, count: usize, start: i64) -> Bytes {
    batch_of(BatchBuilder::new(compression), count, start)
}

fn batch_of(mut builder: BatchBuilder, count: usize, start: i64) -> Bytes {
    for at in 0..count {
        let key = format!("k{at}");
        let value = format!("v{at}");
        let timestamp = start + at as i64;
        builder.push(timestamp, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    }
    builder.build()
}

fn plain() -> Bytes {
    batch(Compression::None, 2, NOW)
}

/// Changes fields and makes the CRC fit.
fn changed(batch: &[u8], change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(batch).unwrap();
    let mut bytes = batch.to_vec();
    change(&mut header);
    crate::records::build::write_header(&mut bytes, header);
    bytes.into()
}

/// A batch around a records block, with the header of `like`.
fn around(like: &[u8], compression: Compression, records: &[u8]) -> Bytes {
    let mut bytes = like[..HEADER_SIZE].to_vec();
    bytes.extend_from_slice(&codec::compress(
        Codec::with_default_level(compression),
        2,
        records,
    ));
    let size = bytes.len();
    changed_size(&bytes, size, |header| {
        header.attributes = header.attributes.with_compression(compression);
    })
}

fn changed_size(bytes: &[u8], size: usize, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut bytes = bytes.to_vec();
    put(
        &mut bytes,
        field::BATCH_LENGTH,
        (size as i32 - 12).to_be_bytes(),
    );
    changed(&bytes, change)
}

fn concat(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

fn ask(records: impl Into<Bytes>) -> Answer {
    prepare(records.into(), &rules(), NOW)
}

fn ask_with(records: impl Into<Bytes>, rules: &ProduceRules) -> Answer {
    prepare(records.into(), rules, NOW)
}

#[track_caller]
fn stored(answer: Answer) -> PreparedBatch {
    let stored = answer.unwrap().unwrap();
    verify_crc(&stored.bytes).unwrap();
    assert_eq!(BatchHeader::parse(&stored.bytes).unwrap(), stored.header);
    stored
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "cases read as a table without borrowing"
)]
#[track_caller]
fn check(expected: i16, answer: Answer) {
    assert_eq!(code(&answer), expected, "{answer:?}");
}

#[test]
fn an_ordinary_batch_is_kept_as_it_came() {
    for compression in Compression::ALL {
        let sent = batch(compression, 100, NOW);
        let stored = stored(ask(sent.clone()));
        assert_eq!(
            stored.bytes.as_ptr(),
            sent.as_ptr(),
            "{compression:?} was copied"
        );
        assert_eq!(stored.max_timestamp, NOW + 99);
        assert_eq!(stored.log_append_time_ms, -1);
    }
}

#[test]
fn zstd_needs_version_7() {
    for (version, expected) in [(3, 76), (6, 76), (7, 0), (11, 0)] {
        let rules = rules_with(|rules| rules.format = RequestFormat::of_version(version));
        let sent = batch(Compression::Zstd, 2, NOW);
        check(expected, ask_with(sent, &rules));
    }
}

#[test]
fn framing() {
    let sent = plain();
    let with_size = |size: i32| {
        let mut bytes = sent.to_vec();
        put(&mut bytes, field::BATCH_LENGTH, size.to_be_bytes());
        bytes
    };
    let size = sent.len() as i32 - 12;
    check(87, ask(changed(&sent, |header| header.base_offset = 5)));
    let answer = ask(with_size(5));
    assert_eq!(
        answer.as_ref().unwrap_err().client_message(),
        Some("Record size 5 is less than the minimum record overhead (14)")
    );
    assert!(answer.as_ref().unwrap_err().fails_whole_request());
    check(2, answer);
    check(87, ask(with_size(size + 100)));
    check(2, ask(with_size(size - 10)));
    check(87, ask(concat(&[&sent, &sent])));
    check(87, ask(Bytes::new()));
    check(87, ask(vec![1, 2, 3, 4, 5]));
    check(87, ask(sent.slice(..sent.len() - 1)));

    let mut bad_crc = sent.to_vec();
    bad_crc[field::MAX_TIMESTAMP] ^= 1;
    check(2, ask(bad_crc));

    let answer = ask(changed(&sent, |header| header.magic = 3));
    assert_eq!(
        answer.as_ref().unwrap_err().client_message(),
        Some("Invalid magic found in record: 3")
    );
    check(2, answer);
    let mut magic_1 = sent.to_vec();
    magic_1[field::MAGIC] = 1;
    check(87, ask(magic_1));
}

#[test]
fn bytes_behind_the_batch() {
    let sent = plain();
    let trailing = |tail: &[u8]| ask(concat(&[&sent, tail]));
    check(0, trailing(&[1, 2, 3, 4, 5]));
    check(0, trailing(&[0; 11]));
    check(2, trailing(&[0; 12]));
    check(2, trailing(&[0; 30]));
    check(
        0,
        trailing(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 50, 2, 2, 2, 2]),
    );
    check(2, trailing(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13]));
    check(0, trailing(&sent[..sent.len() - 1]));
    check(0, trailing(&sent[..40]));
    let mut huge = vec![0; 32];
    put(&mut huge, 8, i32::MAX.to_be_bytes());
    check(-1, trailing(&huge));
    assert_eq!(stored(trailing(&[0; 11])).bytes, sent);
}

#[test]
fn counts() {
    let sent = plain();
    let with = |count, delta| {
        ask(changed(&sent, |header| {
            header.records_count = count;
            header.last_offset_delta = delta;
        }))
    };
    check(87, with(0, 1));
    check(87, with(0, -1));
    check(87, with(-1, 1));
    check(87, with(3, 1));
    check(87, with(2, 5));
    check(87, with(3, 2));
    check(87, with(1, 0));
    check(87, with(i32::MIN, i32::MAX));
    let packed = batch(Compression::Gzip, 2, NOW);
    check(
        87,
        ask(changed(&packed, |header| {
            header.records_count = 3;
            header.last_offset_delta = 2;
        })),
    );
}

#[test]
fn attributes_and_producers() {
    let sent = plain();
    let with_bits = |bits| {
        ask(changed(&sent, |header| {
            header.attributes = Attributes(bits);
        }))
    };
    let marker = end_transaction_marker(&EndTransactionMarker {
        producer_id: 5,
        producer_epoch: 0,
        commit: true,
        coordinator_epoch: 0,
        timestamp_ms: NOW,
        is_log_append_time: false,
        leader_epoch: -1,
    });
    check(53, ask(marker.clone()));
    let in_transaction = rules_with(|rules| rules.transactional_id_present = true);
    check(87, ask_with(marker, &in_transaction));
    check(87, with_bits(0x20));
    check(53, with_bits(0x10));
    for bits in [0x40, 0x80, 0x7f00] {
        let stored = stored(with_bits(bits));
        assert_eq!(stored.header.attributes.0, bits);
    }
    check(-1, with_bits(5));
    check(-1, with_bits(7));
    check(-1, with_bits(1));
    let with_producer = |id, epoch, sequence| {
        ask(changed(&sent, |header| {
            header.producer_id = id;
            header.producer_epoch = epoch;
            header.base_sequence = sequence;
        }))
    };
    check(87, with_producer(5, 0, -1));
    check(0, with_producer(5, -1, 0));
    check(0, with_producer(-1, -1, 0));
}

#[test]
fn timestamps() {
    let sent = plain();
    let as_log_append_time = changed(&sent, |header| {
        header.attributes = header
            .attributes
            .with_timestamp_type(TimestampType::LogAppendTime);
    });
    // On a CreateTime topic the bit is taken away: here that gives the producer's own bytes back.
    assert_eq!(stored(ask(as_log_append_time.clone())).bytes, sent);
    let answer = ask_with(as_log_append_time.clone(), &log_append_time());
    assert_eq!(
        answer.as_ref().unwrap_err().record_errors()[0],
        (
            0,
            format!(
                "Invalid timestamp type in message DefaultRecord(offset=0, timestamp={}, key=2 bytes, \
                 value=2 bytes). Producer should not set timestamp type to LogAppendTime.",
                NOW + 1
            )
        )
    );
    assert_eq!(answer.as_ref().unwrap_err().record_errors().len(), 2);
    check(32, answer);
    check(
        32,
        ask(changed(&as_log_append_time, |header| {
            header.max_timestamp = -1;
        })),
    );

    let lie = changed(&sent, |header| header.max_timestamp = NOW + 999_999);
    assert_eq!(stored(ask(lie)).bytes, sent);

    let one = batch(Compression::None, 1, -1);
    assert_eq!(stored(ask(one)).max_timestamp, -1);
    let negative = changed(&batch(Compression::None, 1, 5), |header| {
        header.base_timestamp = -5;
        header.max_timestamp = -5;
    });
    assert_eq!(stored(ask(negative.clone())).max_timestamp, -1);
    check(-1, ask_with(negative, &stored_in(Compression::Gzip)));

    let hour = rules_with(|rules| {
        rules.timestamp_before_max_ms = 3_600_000;
        rules.timestamp_after_max_ms = 3_600_000;
    });
    let answer = ask_with(batch(Compression::None, 2, NOW - 7_200_000), &hour);
    let rejection = answer.as_ref().unwrap_err();
    assert_eq!(
        rejection.record_errors()[1],
        (
            1,
            format!(
                "Timestamp {} of message with offset 1 is out of range. The timestamp should be within \
                 [{}, {}]",
                NOW - 7_199_999,
                NOW - 3_600_000,
                NOW + 3_600_000
            )
        )
    );
    assert_eq!(
        rejection.client_message(),
        Some("One or more records have been rejected due to invalid timestamp")
    );
    check(32, answer);
    check(
        32,
        ask_with(batch(Compression::None, 2, NOW + 7_200_000), &hour),
    );
    check(
        32,
        ask_with(batch(Compression::Lz4, 2, NOW + 7_200_000), &hour),
    );
    check(0, ask_with(plain(), &hour));
    check(0, ask_with(batch(Compression::None, 1, -1), &hour));
}

#[test]
fn log_append_time_is_written_into_the_header() {
    for compression in Compression::ALL {
        let sent = batch(compression, 2, 1_700_000_000_000);
        let stored = stored(ask_with(sent.clone(), &log_append_time()));
        assert_eq!(stored.header.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(stored.header.max_timestamp, NOW);
        assert_eq!(stored.log_append_time_ms, NOW);
        assert_eq!(stored.header.base_timestamp, 1_700_000_000_000);
        assert_eq!(stored.bytes[HEADER_SIZE..], sent[HEADER_SIZE..]);
        let seen: Vec<_> = records(&stored.bytes)
            .unwrap()
            .map(|record| record.unwrap().timestamp)
            .collect();
        assert_eq!(seen, [NOW, NOW]);
    }
}

#[test]
fn compacted_topics_need_keys() {
    let compacted = rules_with(|rules| {
        rules.is_compacted = true;
        rules.partition = TopicPartition::new("c", 0);
    });
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression);
        builder.push(NOW, Some(b"a"), Some(b"b"), &[]);
        builder.push(NOW, None, Some(b"x"), &[]);
        builder.push(NOW, None, Some(b"y"), &[]);
        let answer = ask_with(builder.build(), &compacted);
        let rejection = answer.as_ref().unwrap_err();
        assert_eq!(
            rejection.client_message(),
            Some(
                "One or more records have been rejected due to 2 record errors in total, and only \
                 showing the first three errors at most: [RecordError(batchIndex=1, \
                 message='Compacted topic cannot accept message without key in topic partition c-0'), \
                 RecordError(batchIndex=2, message='Compacted topic cannot accept message without key \
                 in topic partition c-0')]"
            )
        );
        let indexes: Vec<_> = rejection
            .record_errors()
            .iter()
            .map(|error| error.0)
            .collect();
        assert_eq!(indexes, [1, 2]);
        check(87, answer);
        check(0, ask_with(batch(compression, 2, NOW), &compacted));
    }
}

#[test]
fn sizes() {
    let small = rules_with(|rules| rules.max_message_bytes = 500);
    let large = |compression, count| {
        let mut builder = BatchBuilder::new(compression);
        for _ in 0..count {
            builder.push(NOW, Some(b"k"), Some(&[b'z'; 300]), &[]);
        }
        builder.build()
    };
    check(10, ask_with(large(Compression::None, 3), &small));
    check(0, ask_with(large(Compression::Gzip, 5), &small));
    let small_and_plain = rules_with(|rules| {
        rules.max_message_bytes = 500;
        rules.compression = StoredCompression::Fixed(Codec::with_default_level(Compression::None));
    });
    check(10, ask_with(large(Compression::Gzip, 5), &small_and_plain));
}

#[test]
fn offset_deltas() {
    let sent = plain();
    let with_deltas = |first: u8, second: u8, compression| {
        let mut body = sent[HEADER_SIZE..].to_vec();
        let second_record = usize::from(body[0] / 2) + 1;
        body[3] = first * 2;
        body[second_record + 3] = second * 2;
        around(&sent, compression, &body)
    };
    for (first, second) in [(1, 0), (5, 6)] {
        let odd = with_deltas(first, second, Compression::None);
        assert_eq!(stored(ask(odd.clone())).bytes, odd);
        let packed = with_deltas(first, second, Compression::Gzip);
        check(-1, ask(packed.clone()));
        for odd in [odd, packed] {
            let anew = stored(ask_with(odd, &stored_in(Compression::Zstd)));
            let offsets: Vec<_> = records(&anew.bytes)
                .unwrap()
                .map(|record| record.unwrap().offset)
                .collect();
            assert_eq!(offsets, [0, 1]);
        }
    }
    check(0, ask(with_deltas(0, 1, Compression::Gzip)));
}

#[test]
fn bytes_behind_the_records() {
    let sent = plain();
    for compression in Compression::ALL {
        let body = concat(&[&sent[HEADER_SIZE..], &[0, 1]]);
        check(87, ask(around(&sent, compression, &body)));
        check(
            87,
            ask(around(
                &sent,
                compression,
                &sent[HEADER_SIZE..sent.len() - 1],
            )),
        );
        let mut odd = sent[HEADER_SIZE..].to_vec();
        odd[1] = 7; // the attributes of the record
        check(0, ask(around(&sent, compression, &odd)));
    }
}

#[test]
fn other_codecs_are_recompressed() {
    for source in Compression::ALL {
        for target in Compression::ALL {
            let builder = BatchBuilder::new(source)
                .producer(7, 3, 100)
                .transactional();
            let mut builder = builder.leader_epoch(4);
            builder.push(NOW, Some(b"key"), Some(&[b'x'; 1000]), &[]);
            builder.push(NOW + 5, None, None, &[(b"h", Some(b"1")), (b"h", None)]);
            let sent = builder.build();
            let mut rules = stored_in(target);
            rules.transactional_id_present = true;
            let stored = stored(ask_with(sent.clone(), &rules));
            assert_eq!(stored.header.compression(), Ok(target));
            assert_eq!(stored.header.producer_id, 7);
            assert_eq!(stored.header.base_sequence, 100);
            assert!(stored.header.is_transactional());
            assert_eq!(stored.max_timestamp, NOW + 5);
            let all =
                |batch: &Bytes| -> Vec<_> { records(batch).unwrap().map(Result::unwrap).collect() };
            assert_eq!(all(&stored.bytes), all(&sent), "{source:?} {target:?}");
        }
    }
}

#[test]
fn records_larger_than_the_window() {
    let value: Vec<u8> = (0..300_000_u32)
        .map(|at| (at.wrapping_mul(at) >> 7) as u8)
        .collect();
    let mut builder = BatchBuilder::new(Compression::Lz4);
    builder.push(NOW, Some(b"small"), Some(b"value"), &[]);
    builder.push(NOW, Some(&value), Some(&value), &[(b"name", Some(&value))]);
    builder.push(NOW, None, Some(b"last"), &[]);
    let sent = builder.build();
    assert_eq!(stored(ask(sent.clone())).bytes, sent);
    for target in Compression::ALL {
        let stored = stored(ask_with(sent.clone(), &stored_in(target)));
        let all =
            |batch: &Bytes| -> Vec<_> { records(batch).unwrap().map(Result::unwrap).collect() };
        assert!(all(&stored.bytes) == all(&sent), "{target:?}");
    }
    // The same with a value that is longer than its record.
    let plain = stored(ask_with(sent, &stored_in(Compression::None))).bytes;
    let mut body = plain[HEADER_SIZE..].to_vec();
    let size_of_small = usize::from(body[0] / 2) + 1;
    body[size_of_small + 2] ^= 1;
    for compression in Compression::ALL {
        check(87, ask(around(&plain, compression, &body)));
    }
}

fn message(magic: i8, key: Option<&[u8]>, timestamp: i64) -> Bytes {
    messages(magic, Compression::None, &[(key, timestamp)])
}

fn messages(magic: i8, compression: Compression, entries: &[(Option<&[u8]>, i64)]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for (key, timestamp) in entries {
        builder.push(*timestamp, *key, Some(b"b"), &[]);
    }
    let format = legacy::MessageFormat {
        magic,
        compression,
        log_append_time: None,
    };
    let mut out = Vec::new();
    legacy::write_messages(&mut out, format, records(&builder.build()).unwrap()).unwrap();
    out.into()
}

fn any_magic() -> ProduceRules {
    rules_with(|rules| rules.format = RequestFormat::AnyMagic)
}

#[test]
fn old_messages_become_one_batch() {
    for (magic, timestamp) in [(0, -1), (1, NOW)] {
        let one = message(magic, Some(b"a"), timestamp);
        check(87, ask(one.clone()));
        let batch = stored(ask_with(one.clone(), &any_magic()));
        assert_eq!((batch.header.magic, batch.header.records_count), (2, 1));
        assert_eq!(batch.max_timestamp, timestamp);
        let three = concat(&[&one, &one, &one, &one[..20]]);
        let batch = stored(ask_with(three, &any_magic()));
        assert_eq!(batch.header.records_count, 3);
        assert_eq!(records(&batch.bytes).unwrap().count(), 3);
        for compression in &Compression::ALL[..4] {
            let set = messages(magic, *compression, &[(Some(&b"a"[..]), timestamp); 5]);
            let batch = stored(ask_with(set.clone(), &any_magic()));
            assert_eq!(batch.header.compression(), Ok(*compression));
            assert_eq!(batch.header.records_count, 5);
            let anew = stored(ask_with(set, &{
                let mut rules = any_magic();
                rules.compression =
                    StoredCompression::Fixed(Codec::with_default_level(Compression::Zstd));
                rules
            }));
            assert_eq!(anew.header.compression(), Ok(Compression::Zstd));
        }
        let packed = messages(magic, Compression::Gzip, &[(Some(b"a"), timestamp)]);
        check(87, ask_with(concat(&[&packed, &one]), &any_magic()));
    }
    let mixed = concat(&[&message(0, None, -1), &message(1, None, NOW)]);
    check(87, ask_with(mixed, &any_magic()));
    check(87, ask_with(concat(&[&plain(), &plain()]), &any_magic()));
    check(0, ask_with(plain(), &any_magic()));
}

#[test]
fn old_messages_are_checked() {
    let one = message(1, Some(b"a"), NOW);
    assert_eq!(ask_with(one.slice(..one.len() - 1), &any_magic()), Ok(None));
    assert_eq!(ask_with(Bytes::new(), &any_magic()), Ok(None));
    let mut bad = one.to_vec();
    bad[30] ^= 1;
    check(2, ask_with(bad, &any_magic()));
    let compacted = {
        let mut rules = any_magic();
        rules.is_compacted = true;
        rules
    };
    check(87, ask_with(message(0, None, -1), &compacted));
    check(-1, ask_with(message(1, Some(b"a"), -5), &any_magic()));
    let hour = {
        let mut rules = any_magic();
        rules.timestamp_before_max_ms = 3_600_000;
        rules
    };
    check(32, ask_with(message(1, None, NOW - 7_200_000), &hour));
    check(0, ask_with(message(0, None, -1), &hour));
    let mut lat = any_magic();
    lat.timestamp_type = TimestampType::LogAppendTime;
    let batch = stored(ask_with(message(1, None, 5), &lat));
    assert_eq!((batch.log_append_time_ms, batch.max_timestamp), (NOW, NOW));
}

#[test]
fn a_wrapper_is_refused_for_what_it_holds() {
    let wrap = |inner: &[u8], magic: i8, offset: i64| -> Bytes {
        let data = codec::compress(Codec::with_default_level(Compression::Gzip), magic, inner);
        let mut bytes = messages(magic, Compression::Gzip, &[(None, NOW)]).to_vec();
        let head = if magic == 1 { 34 } else { 26 };
        bytes.truncate(head - 4);
        bytes.extend_from_slice(&(data.len() as i32).to_be_bytes());
        bytes.extend_from_slice(&data);
        let size = bytes.len() as i32 - 12;
        put(&mut bytes, 0, offset.to_be_bytes());
        put(&mut bytes, 8, size.to_be_bytes());
        let crc = crc32fast::hash(&bytes[16..]);
        put(&mut bytes, 12, crc.to_be_bytes());
        bytes.into()
    };
    let inner = message(1, Some(b"a"), NOW);
    check(0, ask_with(wrap(&inner, 1, 0), &any_magic()));
    check(87, ask_with(wrap(&[], 1, 0), &any_magic()));
    check(
        87,
        ask_with(
            wrap(&messages(1, Compression::Gzip, &[(None, NOW)]), 1, 0),
            &any_magic(),
        ),
    );
    check(
        87,
        ask_with(wrap(&message(0, None, -1), 1, 0), &any_magic()),
    );
    check(2, ask_with(wrap(&[0; 20], 1, 0), &any_magic()));
    let mut bad = inner.to_vec();
    bad[20] ^= 1;
    check(2, ask_with(wrap(&bad, 1, 0), &any_magic()));
    let mut later = inner.to_vec();
    put(&mut later, 0, 9_i64.to_be_bytes());
    check(87, ask_with(wrap(&later, 1, 3), &any_magic()));
    check(0, ask_with(wrap(&later, 1, 0), &any_magic()));
}

#[test]
fn bombs_cost_no_memory() {
    // A record whose value is a gigabyte of zeros, of which each 128 KiB take a few bytes.
    let mut head = Vec::new();
    let value_size = (1_i64 << 30) + 4096;
    let mut body = vec![0, 0, 0, 1];
    crate::records::varint::write_varlong(&mut body, value_size);
    crate::records::varint::write_varlong(&mut head, body.len() as i64 + value_size + 1);
    head.extend_from_slice(&body);
    let mut encoder = codec::Encoder::new(
        Codec::with_default_level(Compression::Zstd),
        2,
        plain()[..HEADER_SIZE].to_vec(),
    );
    encoder.write(&head);
    let zeros = vec![0; 1 << 20];
    for _ in 0..1025 {
        encoder.write(&zeros);
    }
    let bytes = encoder.finish();
    let size = bytes.len();
    assert!(size < 200_000);
    let bomb = changed_size(&bytes, size, |header| {
        header.attributes = Attributes::new(Compression::Zstd, TimestampType::CreateTime);
        header.records_count = 1;
        header.last_offset_delta = 0;
    });
    check(10, ask(bomb.clone()));
    check(10, ask_with(bomb, &stored_in(Compression::None)));
}

#[test]
fn stored_batches_are_one_whole_batch() {
    let stored = stored(ask(concat(&[&plain(), &[0; 5]])));
    let all: Vec<_> = batches(&stored.bytes).collect();
    assert_eq!(all.len(), 1);
    assert!(all[0].is_ok());
    assert_eq!(PreparedBatch::from_own(stored.bytes.clone()), Ok(stored));
}
