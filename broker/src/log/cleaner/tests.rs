use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use barnabas_core::config::{CleanupPolicy, TopicConfig};
use barnabas_core::ids::{Offset, TopicPartition};
use barnabas_core::records::{BatchBuilder, Compression, batches, records};
use bytes::Bytes;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::CleanError;
use super::clean::{Cleaning, Settings, Stats, find_cleanable};
use crate::files::cache::FileCache;
use crate::files::memory::Memory;
use crate::files::{Durability, Files};
use crate::log::background::Background;
use crate::log::partition_log::PartitionLog;
use crate::log::place::{LOG, Place, Volume, file_name};
use crate::log::recovery::{LoadRequest, Stop, load};

const DIRECTORY: &str = "/data/t-0";
const NOW_MS: i64 = 1_000_000;

fn open(files: &Memory) -> Arc<PartitionLog> {
    let cache = Arc::new(FileCache::new(Arc::new(files.clone()), 16));
    let background = Background::manual(|| std::time::Duration::ZERO);
    let volume = Arc::new(Volume::new("/data".into(), cache, background));
    let log = load(LoadRequest {
        topic_partition: TopicPartition::new("t", 0),
        place: Arc::new(Place::new(volume, Path::new(DIRECTORY))),
        config: Arc::new(TopicConfig {
            cleanup_policy: CleanupPolicy {
                delete: false,
                compact: true,
            },
            index_interval_bytes: 1,
            ..TopicConfig::default()
        }),
        stop: Stop::Unclean,
        recovery_point: 0,
        log_start_offset: 0,
        cleaned_offset: 0,
        producer_expiration_ms: 1_000_000,
        now_ms: NOW_MS,
    })
    .unwrap();
    log.set_high_watermark(log.log_end_offset());
    log
}

type Entry = (u8, Option<u8>);

/// A log of segments with a batch each, the last one active. Returns what compaction has to leave.
fn write(files: &Memory, segments: &[Vec<Entry>]) -> BTreeMap<u8, (Offset, Option<u8>)> {
    files.create_directory(Path::new(DIRECTORY)).unwrap();
    let mut base = 0;
    let mut latest = BTreeMap::new();
    for entries in segments {
        let mut builder = BatchBuilder::new(Compression::None)
            .base_offset(base)
            .leader_epoch(0);
        let first = base;
        for (key, value) in entries {
            let value = value.map(|value| [value]);
            builder.push(NOW_MS, Some(&[*key]), value.as_ref().map(|v| &v[..]), &[]);
            latest.insert(*key, (base, value.map(|value| value[0])));
            base += 1;
        }
        let path = Path::new(DIRECTORY).join(file_name(first, LOG));
        files
            .replace(&path, &builder.build(), Durability::Synced)
            .unwrap();
    }
    let path = Path::new(DIRECTORY).join(file_name(base, LOG));
    files.replace(&path, b"", Durability::Synced).unwrap();
    files.sync_directory(Path::new(DIRECTORY)).unwrap();
    latest
}

fn clean(log: &Arc<PartitionLog>, map_bytes: usize, now_ms: i64) -> Result<Stats, CleanError> {
    let cleanable = find_cleanable(log, &log.config(), now_ms)?;
    let settings = Settings {
        map_bytes,
        load_factor: 0.9,
        io_bytes: 100,
    };
    Cleaning::new(log, log.config(), cleanable, settings, now_ms, &|_| false).run()
}

fn contents(log: &PartitionLog) -> BTreeMap<u8, Vec<(Offset, Option<u8>)>> {
    let mut found: BTreeMap<u8, Vec<_>> = BTreeMap::new();
    let mut offset = 0;
    loop {
        let slice = log.read(offset, 1 << 20, Offset::MAX, true).unwrap();
        if slice.is_empty() {
            return found;
        }
        let bytes: Bytes = slice.read_all().unwrap();
        for batch in batches(&bytes) {
            let (position, meta) = batch.unwrap();
            let batch = bytes.slice(position..position + meta.size_in_bytes);
            for record in records(&batch).unwrap().map(Result::unwrap) {
                let value = record.value.map(|value| value[0]);
                found
                    .entry(record.key.unwrap()[0])
                    .or_default()
                    .push((record.offset, value));
            }
            offset = meta.next_offset();
        }
    }
}

proptest! {
    /// However little memory there is, cleaning comes to an end that has the latest record of each key.
    #[test]
    fn a_log_keeps_the_latest_record_of_every_key(
        segments in proptest::collection::vec(
            proptest::collection::vec((0_u8..20, proptest::option::of(any::<u8>())), 1..9), 1..9,
        ),
        map_bytes in 0_usize..1000,
    ) {
        let files = Memory::new();
        let latest = write(&files, &segments);
        let log = open(&files);
        for _ in 0..100 {
            let before = log.cleaned_offset();
            clean(&log, map_bytes, NOW_MS).unwrap();
            if log.cleaned_offset() == before {
                break;
            }
        }
        let expected: BTreeMap<_, _> = latest.into_iter().map(|(key, last)| (key, vec![last])).collect();
        prop_assert_eq!(contents(&log), expected.clone());
        log.close().unwrap();
        // And so does the log that is loaded from what is on the disk.
        prop_assert_eq!(contents(&open(&files)), expected);
    }
}

/// Whatever operation on files is the last one: the latest record of each key is there, and nothing
/// that was not; the next cleaning leaves what this one would have left.
#[test]
fn a_cleaning_may_end_anywhere() {
    let segments: Vec<Vec<Entry>> = vec![
        vec![(1, Some(1)), (2, Some(1)), (3, Some(1))],
        vec![(1, Some(2)), (2, None)],
        vec![(1, Some(3)), (4, Some(1))],
        vec![(5, Some(1)), (4, Some(2))],
    ];
    let mut ends = [0, 0];
    for stop in 0..120 {
        for power_loss in [None, Some(stop), Some(stop + 1000)] {
            let files = Memory::new();
            let latest = write(&files, &segments);
            drop(open(&files));
            files.write_back();
            let log = open(&files);
            files.write_back();
            files.stop_after(stop, stop % 2 == 0);
            let is_done = clean(&log, 1000, NOW_MS).is_ok();
            drop(log);
            files.resume();
            if let Some(seed) = power_loss {
                files.power_loss(&mut StdRng::seed_from_u64(seed));
            }
            ends[usize::from(is_done)] += 1;
            let log = open(&files);
            for (key, found) in contents(&log) {
                assert_eq!(
                    found.last(),
                    latest.get(&key),
                    "{key} after {stop}, {power_loss:?}"
                );
            }
            assert_eq!(
                contents(&log).len(),
                latest.len(),
                "after {stop}, {power_loss:?}"
            );
            clean(&log, 1000, NOW_MS).unwrap();
            let expected: BTreeMap<_, _> = latest
                .into_iter()
                .map(|(key, last)| (key, vec![last]))
                .collect();
            assert_eq!(contents(&log), expected, "after {stop}, {power_loss:?}");
        }
    }
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
}

#[test]
fn a_log_that_was_cut_meanwhile_is_left_alone() {
    let files = Memory::new();
    write(
        &files,
        &[vec![(1, Some(1)), (1, Some(2))], vec![(1, Some(3))]],
    );
    let log = open(&files);
    let cleanable = find_cleanable(&log, &log.config(), NOW_MS).unwrap();
    let settings = Settings {
        map_bytes: 1000,
        load_factor: 0.9,
        io_bytes: 100,
    };
    let cut = |_| {
        log.truncate_to(2, NOW_MS).unwrap();
        false
    };
    let result = Cleaning::new(&log, log.config(), cleanable, settings, NOW_MS, &cut).run();
    assert!(matches!(result, Err(CleanError::Aborted)), "{result:?}");
    assert_eq!(
        contents(&log),
        BTreeMap::from([(1, vec![(0, Some(1)), (1, Some(2))])])
    );
    assert_eq!(log.failure().map(|error| error.to_string()), None);
}
