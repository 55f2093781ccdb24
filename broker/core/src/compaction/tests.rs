use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::TopicConfig;
use crate::ids::Offset;
use crate::records::{
    BatchBuilder, BatchHeader, Compression, EndTransactionMarker, end_transaction_marker,
    read_batch_meta, records, verify_crc,
};

const DAY_MS: i64 = 86_400_000;

/// Cleans batches as a log of them would be, all of them known to the map.
fn clean(
    batches: &[Bytes],
    aborted: &[AbortedTransaction],
    last_records: &BTreeMap<i64, LastRecord>,
    now_ms: i64,
) -> Vec<Bytes> {
    let mut map = OffsetMap::new(1 << 20, 0.9, 1000, [1, 2]);
    let mut transactions = CleanedTransactions::default();
    transactions.add_aborted(aborted.iter().copied());
    for batch in batches {
        let meta = read_batch_meta(batch).unwrap();
        if meta.is_control {
            transactions.marker_read(&meta, batch).unwrap();
        } else if !transactions.data_read(&meta) {
            for record in records(batch).unwrap().map(Result::unwrap) {
                if let Some(key) = &record.key {
                    assert!(map.put(map.id_of(key), record.offset));
                }
            }
        }
        map.set_latest_offset(meta.last_offset);
    }
    let filter = Filter {
        map: &map,
        last_records,
        now_ms,
        delete_retention_ms: DAY_MS,
        keeps_legacy_tombstones: false,
    };
    let mut transactions = CleanedTransactions::default();
    transactions.add_aborted(aborted.iter().copied());
    let mut cleaned = Vec::new();
    let mut scratch = Scratch::default();
    for batch in batches {
        let meta = read_batch_meta(batch).unwrap();
        let filtered = filter.apply(&meta, batch, &mut transactions, &mut scratch);
        match filtered.unwrap() {
            Filtered::Dropped => {}
            Filtered::Unchanged => cleaned.push(batch.clone()),
            Filtered::Changed(batch) => cleaned.push(batch),
        }
    }
    for batch in &cleaned {
        verify_crc(batch).unwrap();
    }
    cleaned
}

fn contents(batches: &[Bytes]) -> Vec<(Offset, Option<Bytes>, Option<Bytes>)> {
    let all = batches.iter().flat_map(|batch| records(batch).unwrap());
    all.map(Result::unwrap)
        .map(|record| (record.offset, record.key, record.value))
        .collect()
}

type Entry = (u8, Option<u8>);

fn batch(base: Offset, compression: Compression, entries: &[Entry]) -> Bytes {
    let mut builder = BatchBuilder::new(compression).base_offset(base);
    for (index, (key, value)) in entries.iter().enumerate() {
        let value = value.map(|value| [value; 3]);
        builder.push(
            1000 + index as i64,
            Some(&[*key]),
            value.as_ref().map(|v| &v[..]),
            &[],
        );
    }
    builder.build()
}

proptest! {
    /// The latest record of every key stays, with its offset, timestamp and value, and nothing else;
    /// tombstones stay until their time is over, and then go too.
    #[test]
    fn the_latest_record_of_every_key_stays(
        batches in proptest::collection::vec(
            (0_u8..5, proptest::collection::vec((0_u8..12, proptest::option::of(any::<u8>())), 1..8)),
            0..12,
        )
    ) {
        let mut base = 0;
        let mut log = Vec::new();
        let mut latest = BTreeMap::new();
        for (codec, entries) in &batches {
            log.push(batch(base, Compression::from_id(*codec).unwrap(), entries));
            for (key, value) in entries {
                latest.insert(*key, (base, value.map(|value| vec![value; 3])));
                base += 1;
            }
        }
        let expected = |with_tombstones: bool| {
            let mut expected: Vec<_> = latest
                .iter()
                .filter(|(_, (_, value))| with_tombstones || value.is_some())
                .map(|(key, (offset, value))| {
                    (*offset, Some(Bytes::from(vec![*key])), value.clone().map(Bytes::from))
                })
                .collect();
            expected.sort_by_key(|(offset, ..)| *offset);
            expected
        };
        let once = clean(&log, &[], &BTreeMap::new(), 5000);
        prop_assert_eq!(contents(&once), expected(true));
        let soon = clean(&once, &[], &BTreeMap::new(), 5000 + DAY_MS - 1);
        prop_assert_eq!(&soon, &once);
        let later = clean(&once, &[], &BTreeMap::new(), 5000 + DAY_MS);
        prop_assert_eq!(contents(&later), expected(false));
    }
}

#[test]
fn a_batch_with_a_tombstone_gets_a_delete_horizon_and_keeps_its_offsets_and_timestamps() {
    let source = batch(
        7,
        Compression::None,
        &[(1, Some(1)), (2, None), (1, Some(2)), (1, None)],
    );
    let cleaned = clean(&[source], &[], &BTreeMap::new(), 5000);
    let header = BatchHeader::parse(&cleaned[0]).unwrap();
    assert_eq!(header.delete_horizon_ms(), Some(5000 + DAY_MS));
    assert_eq!((header.base_offset, header.last_offset()), (7, 10));
    assert_eq!(header.max_timestamp, 1003);
    let times: Vec<_> = records(&cleaned[0])
        .unwrap()
        .map(|r| r.unwrap().timestamp)
        .collect();
    assert_eq!(times, [1001, 1003]);
}

#[test]
fn the_last_batch_of_a_producer_stays_without_records() {
    let of = |base: Offset, sequence| {
        let mut builder = BatchBuilder::new(Compression::Gzip)
            .base_offset(base)
            .producer(5, 1, sequence);
        builder.push(1000, Some(b"k"), Some(b"v"), &[]);
        builder.build()
    };
    let later = batch(2, Compression::None, &[(b'k', Some(1))]);
    let last = BTreeMap::from([(
        5,
        LastRecord {
            last_data_offset: Some(1),
            producer_epoch: 1,
        },
    )]);
    let cleaned = clean(&[of(0, 0), of(1, 1), later.clone()], &[], &last, 5000);
    assert_eq!(cleaned.len(), 2);
    let header = BatchHeader::parse(&cleaned[0]).unwrap();
    assert_eq!(
        (
            header.base_offset,
            header.last_offset(),
            header.records_count
        ),
        (1, 1, 0)
    );
    assert_eq!((header.producer_id, header.last_sequence()), (5, 1));
    assert_eq!((header.base_timestamp, header.max_timestamp), (-1, 1000));
    assert_eq!(cleaned[0].len(), 61);
    assert_eq!(clean(&cleaned, &[], &last, 5000), cleaned);
}

#[test]
fn aborted_data_goes_at_once_and_its_marker_after_the_delete_horizon() {
    let data = |base: Offset, producer_id, key: &[u8]| {
        let mut builder = BatchBuilder::new(Compression::None)
            .base_offset(base)
            .producer(producer_id, 0, 0)
            .transactional();
        builder.push(1000, Some(key), Some(b"v"), &[]);
        builder.build()
    };
    let marker = |offset: Offset, producer_id, commit| {
        let marker = end_transaction_marker(&EndTransactionMarker {
            producer_id,
            producer_epoch: 0,
            commit,
            coordinator_epoch: 0,
            timestamp_ms: 1000,
            is_log_append_time: false,
            leader_epoch: 0,
        });
        let mut bytes = marker.to_vec();
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        Bytes::from(bytes)
    };
    let log = [
        data(0, 1, b"a"),
        data(1, 2, b"b"),
        data(2, 2, b"a"),
        marker(3, 2, false),
        marker(4, 1, true),
    ];
    let aborted = [AbortedTransaction {
        producer_id: 2,
        first_offset: 1,
        last_offset: 3,
        last_stable_offset: 0,
    }];
    let offsets = |batches: &[Bytes]| -> Vec<Offset> {
        batches
            .iter()
            .map(|batch| read_batch_meta(batch).unwrap().base_offset)
            .collect()
    };
    let once = clean(&log, &aborted, &BTreeMap::new(), 5000);
    assert_eq!(offsets(&once), [0, 3, 4]);
    // Nothing is left of the aborted transaction, and its index entry has gone with its data.
    let twice = clean(&once, &[], &BTreeMap::new(), 6000);
    assert_eq!(offsets(&twice), [0, 3, 4]);
    let header = BatchHeader::parse(&twice[1]).unwrap();
    assert_eq!(header.delete_horizon_ms(), Some(6000 + DAY_MS));
    let late = clean(&twice, &[], &BTreeMap::new(), 6000 + DAY_MS);
    assert_eq!(offsets(&late), [0, 4]);
}

#[test]
fn a_map_holds_as_many_keys_as_its_memory_and_load_factor_allow() {
    let mut map = OffsetMap::new(24 * 100, 0.9, 1_000_000, [1, 2]);
    let fits = (0_i64..200)
        .take_while(|key| map.put(map.id_of(&key.to_be_bytes()), *key))
        .count();
    assert_eq!(fits, 90);
    assert_eq!(map.latest_offset(), 89);
    assert!((0_i64..90).all(|key| map.get(map.id_of(&key.to_be_bytes())) == Some(key)));
    assert_eq!(map.get(map.id_of(&90_i64.to_be_bytes())), None);
}

#[test]
fn what_can_be_cleaned_ends_below_the_active_segment_the_stable_end_and_what_is_too_young() {
    let segment = |base_offset, timestamp| SegmentSize {
        base_offset,
        size: 100,
        largest_timestamp: timestamp,
        first_timestamp: timestamp,
    };
    let segments = [
        segment(0, 10),
        segment(10, 20),
        segment(20, 30),
        segment(30, 40),
    ];
    let check = |checkpoint,
                 last_stable_offset,
                 lag: (i64, i64),
                 expected: (Offset, Offset, u64, u64, i64)| {
        let log = LogState {
            checkpoint,
            log_start_offset: 0,
            log_end_offset: 35,
            last_stable_offset,
            segments: &segments,
        };
        let config = TopicConfig {
            min_compaction_lag_ms: lag.0,
            max_compaction_lag_ms: lag.1,
            ..TopicConfig::default()
        };
        let found = cleanable(&log, &config, 100);
        assert_eq!(
            (
                found.first_dirty_offset,
                found.first_uncleanable_offset,
                found.clean_bytes,
                found.cleanable_bytes,
                found.overdue_ms
            ),
            expected
        );
    };
    check(None, 35, (0, i64::MAX), (0, 30, 0, 300, 0));
    check(Some(20), 35, (0, i64::MAX), (20, 30, 200, 100, 0));
    check(Some(36), 35, (0, i64::MAX), (0, 30, 0, 300, 0));
    check(None, 25, (0, i64::MAX), (0, 20, 0, 200, 0));
    check(None, 35, (80, i64::MAX), (0, 20, 0, 200, 0));
    check(Some(10), 35, (0, 50), (10, 30, 100, 200, 30));
}

#[test]
fn segments_are_joined_up_to_the_size_of_one() {
    let sizes = [
        (0, 40, 8, 12),
        (10, 40, 8, 12),
        (20, 40, 8, 12),
        ((1 << 31) + 100, 10, 8, 12),
        ((1 << 31) + 105, 10, 8, 12),
    ];
    assert_eq!(group_ends(&sizes, (1 << 31) + 109, 100, 1000), [2, 3, 5]);
    assert_eq!(
        group_ends(&sizes, (1 << 31) + 109, 1, 1000),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(group_ends(&[], 0, 100, 1000), [0_usize; 0]);
}
