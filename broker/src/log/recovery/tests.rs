//! Loading what was interrupted: replacements of segments at every step, offsets that go too far.

use std::path::Path;
use std::time::Duration;

use barnabas_core::config::CleanupPolicy;
use barnabas_core::records::{BatchBuilder, Compression, batches, read_batch_meta};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::files::cache::FileCache;
use crate::files::memory::Memory;
use crate::files::{Durability, Files as _};
use crate::log::background::Background;
use crate::log::place::Volume;
use crate::log::rewrite::{self, Rewrite};

const DIRECTORY: &str = "/data/t-0";

fn place(files: &Memory) -> Arc<Place> {
    let background = Background::manual(|| Duration::ZERO);
    let cache = Arc::new(FileCache::new(Arc::new(files.clone()), 3));
    let volume = Arc::new(Volume::new("/data".into(), cache, background));
    Arc::new(Place::new(volume, Path::new(DIRECTORY)))
}

fn try_load(files: &Memory, stop: Stop) -> Result<Arc<PartitionLog>, StorageError> {
    try_load_from(files, stop, 0)
}

fn try_load_from(
    files: &Memory,
    stop: Stop,
    recovery_point: Offset,
) -> Result<Arc<PartitionLog>, StorageError> {
    load(request(files, stop, recovery_point))
}

fn request(files: &Memory, stop: Stop, recovery_point: Offset) -> LoadRequest {
    LoadRequest {
        topic_partition: TopicPartition::new("t", 0),
        place: place(files),
        config: Arc::new(TopicConfig {
            index_interval_bytes: 100,
            // There may be gaps.
            cleanup_policy: CleanupPolicy {
                delete: false,
                compact: true,
            },
            ..TopicConfig::default()
        }),
        stop,
        recovery_point,
        log_start_offset: 0,
        cleaned_offset: 0,
        producer_expiration_ms: 1_000_000,
        now_ms: 1000,
    }
}

/// A batch of one record at `offset`.
fn batch_at(offset: Offset) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(offset % 1000, None, Some(&[7; 60]), &[]);
    let mut bytes = builder.build().to_vec();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes
}

fn directory() -> Memory {
    let files = Memory::new();
    files.create_directory(Path::new(DIRECTORY)).unwrap();
    files
}

fn write_segment(files: &Memory, base_offset: Offset, offsets: &[Offset]) {
    let bytes: Vec<u8> = offsets
        .iter()
        .flat_map(|offset| batch_at(*offset))
        .collect();
    let path = Path::new(DIRECTORY).join(file_name(base_offset, LOG));
    files.replace(&path, &bytes, Durability::Written).unwrap();
}

fn offsets(log: &PartitionLog) -> Vec<Offset> {
    let mut found = Vec::new();
    let mut next = log.log_start_offset();
    while next < log.log_end_offset() {
        let slice = log.read(next, 1000, Offset::MAX, true).unwrap();
        if slice.is_empty() {
            break;
        }
        let bytes = slice.read_all().unwrap();
        for batch in batches(&bytes) {
            let Ok((_, meta)) = batch else { break };
            found.push(meta.base_offset);
            next = meta.next_offset();
        }
    }
    found
}

fn names(files: &Memory) -> Vec<String> {
    let entries = files.list(Path::new(DIRECTORY)).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

fn require_tidy(files: &Memory) {
    for name in names(files) {
        let is_temporary = [".swap", ".cleaned", ".deleted"]
            .iter()
            .any(|suffix| name.ends_with(suffix));
        assert!(!is_temporary, "{name} is left");
    }
}

const OLD: [&[Offset]; 4] = [&[0, 1, 2], &[10, 11, 12], &[20, 21, 22], &[30, 31]];
/// What stays of the first three segments, in two.
const NEW: [&[Offset]; 2] = [&[1, 11], &[20, 22]];

/// What a cleaner does; it may end anywhere.
fn replace_segments(files: &Memory) -> Result<(), StorageError> {
    let place = place(files);
    let mut rewritten = Vec::new();
    for (base_offset, offsets) in [(0, NEW[0]), (20, NEW[1])] {
        let mut rewrite = Rewrite::create(Arc::clone(&place), base_offset, 100)?;
        for offset in offsets {
            let batch = batch_at(*offset);
            let meta = read_batch_meta(&batch).unwrap();
            rewrite.append(&meta, &batch)?;
        }
        rewritten.push(rewrite.finish(500)?);
    }
    let mut old = Vec::new();
    rewrite::replace(&place, &rewritten, || {
        for base_offset in [0, 10, 20] {
            let segment = Segment::new(Arc::clone(&place), base_offset, 0, 0);
            old.extend(segment.rename_deleted()?);
        }
        Ok(())
    })?;
    for path in old {
        crate::log::segment::remove_if_exists(&**place.files(), &path)?;
    }
    Ok(())
}

/// Whenever a replacement is interrupted, and the loading after it too: afterwards either all of
/// it was done or nothing, unless it had come to the renaming of the old segments, which are then
/// dropped as far as the new ones reach.
#[test]
fn a_replacement_of_segments_may_end_anywhere() {
    let old: Vec<Offset> = OLD.concat();
    let new: Vec<Offset> = [NEW[0], NEW[1], OLD[3]].concat();
    let mut seen = std::collections::BTreeSet::new();
    for stop in 0..60 {
        for second_stop in [0, 1, 2, 3, 5, 8, 13, 21, 34, u64::MAX] {
            for power_loss in [None, Some(stop * 100 + second_stop % 100)] {
                let files = directory();
                for (base_offset, offsets) in [0, 10, 20, 30].into_iter().zip(OLD) {
                    write_segment(&files, base_offset, offsets);
                }
                // Makes the indexes.
                try_load(&files, Stop::Unclean).unwrap();
                files.write_back();
                files.stop_after(stop, stop % 2 == 0);
                let is_done = replace_segments(&files).is_ok();
                files.resume();
                if let Some(seed) = power_loss {
                    files.power_loss(&mut StdRng::seed_from_u64(seed));
                }
                files.stop_after(second_stop, false);
                drop(try_load(&files, Stop::Clean));
                files.resume();
                let log = try_load(&files, Stop::Clean).unwrap();
                let found = offsets(&log);
                let is_new = found == new;
                assert!(
                    is_new || found == old,
                    "{found:?} after {stop}, {second_stop}, {power_loss:?}"
                );
                assert!(is_new || !is_done);
                seen.insert(is_new);
                require_tidy(&files);
            }
        }
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn files_that_will_not_be_used_any_more_are_removed() {
    let files = directory();
    write_segment(&files, 0, &[0, 1]);
    for name in [
        "00000000000000000000.log.deleted",
        "00000000000000000005.snapshot.deleted",
        "00000000000000000000.timeindex.cleaned",
        // An output that is not complete, as not all of it has this name.
        "00000000000000000001.log.swap",
        // An index without its log.
        "00000000000000000007.index",
    ] {
        let path = Path::new(DIRECTORY).join(name);
        files.replace(&path, b"x", Durability::Written).unwrap();
    }
    let log = try_load(&files, Stop::Clean).unwrap();
    assert_eq!(offsets(&log), [0, 1]);
    assert_eq!(
        names(&files),
        [
            "00000000000000000000.index",
            "00000000000000000000.log",
            "00000000000000000000.timeindex",
            "00000000000000000002.snapshot",
        ]
    );
}

/// A topic that was compacted until lately, with the gaps that this has left.
#[test]
fn gaps_of_a_cleaned_log_are_no_loss_also_when_it_is_not_compacted_any_more() {
    for (cleaned_offset, expected) in [
        (20, vec![1, 11, 20, 21, 30]),
        // Behind what was cleaned, a gap is one.
        (10, vec![1, 11]),
        (0, vec![1]),
    ] {
        let files = directory();
        write_segment(&files, 0, &[1]);
        write_segment(&files, 10, &[11]);
        write_segment(&files, 20, &[20, 21]);
        write_segment(&files, 22, &[30]);
        let mut request = request(&files, Stop::Unclean, 0);
        request.cleaned_offset = cleaned_offset;
        request.config = Arc::new(TopicConfig::default());
        let log = load(request).unwrap();
        assert_eq!(offsets(&log), expected, "cleaned up to {cleaned_offset}");
    }
}

/// Where the leader epoch of a batch is; its CRC does not cover it.
const EPOCH: std::ops::Range<usize> = 12..16;

fn write_segment_of_epoch(files: &Memory, epoch: i32, offsets: &[Offset]) {
    let batches = offsets.iter().map(|offset| {
        let mut batch = batch_at(*offset);
        batch[EPOCH].copy_from_slice(&epoch.to_be_bytes());
        batch
    });
    let path = Path::new(DIRECTORY).join(file_name(offsets[0], LOG));
    let bytes: Vec<u8> = batches.flatten().collect();
    files.replace(&path, &bytes, Durability::Written).unwrap();
}

#[test]
fn epochs_from_below_the_recovery_point_are_found_again_too() {
    let files = directory();
    write_segment_of_epoch(&files, 1, &[0, 1, 2]);
    write_segment_of_epoch(&files, 2, &[3, 4, 5]);
    // Makes the indexes: without them both segments would be recovered.
    try_load(&files, Stop::Unclean).unwrap().close().unwrap();
    let checkpoint = Path::new(DIRECTORY).join(LEADER_EPOCHS);
    files.remove_file(&checkpoint).unwrap();
    let log = try_load_from(&files, Stop::Unclean, 3).unwrap();
    assert_eq!(log.epoch_for_offset(0), Some(1));
    assert_eq!(log.epoch_for_offset(3), Some(2));
}

#[test]
fn a_log_without_epochs_is_not_given_a_checkpoint_of_none() {
    let files = directory();
    write_segment(&files, 0, &[]);
    let log = try_load(&files, Stop::Unclean).unwrap();
    assert_eq!(log.latest_epoch(), None);
    assert!(!names(&files).contains(&LEADER_EPOCHS.to_owned()));
}

#[test]
fn a_damaged_checkpoint_of_epochs_is_replaced_even_by_an_empty_one() {
    let files = directory();
    write_segment(&files, 0, &[]);
    let checkpoint = Path::new(DIRECTORY).join(LEADER_EPOCHS);
    files
        .replace(&checkpoint, b"damaged", Durability::Written)
        .unwrap();
    try_load(&files, Stop::Unclean).unwrap().close().unwrap();
    // After a clean stop damage is an error.
    try_load(&files, Stop::Clean).unwrap();
}

const FAR: Offset = 1 << 31;

/// Old versions of Kafka left segments like this (KAFKA-6264). The split may end anywhere too.
#[test]
fn a_segment_with_offsets_too_far_from_its_first_is_split() {
    let written = [0, 5, FAR - 1, FAR, FAR + 9, 2 * FAR - 1, 2 * FAR, 5 * FAR];
    for stop in (0..70).chain([u64::MAX]) {
        let files = directory();
        write_segment(&files, 0, &written);
        files.stop_after(stop, stop % 2 == 0);
        drop(try_load(&files, Stop::Unclean));
        files.resume();
        let log = try_load(&files, Stop::Unclean).unwrap();
        assert_eq!(offsets(&log), written);
        let bases: Vec<Offset> = log.segments().iter().map(|s| s.base_offset()).collect();
        assert_eq!(bases, [0, FAR, 2 * FAR, 5 * FAR]);
        require_tidy(&files);
        log.close().unwrap();
        assert_eq!(offsets(&try_load(&files, Stop::Clean).unwrap()), written);
    }
}

/// The base offset of a segment may lie far below its first batch.
#[test]
fn a_segment_whose_first_batch_is_too_far_gets_another_base() {
    for stop in (0..70).chain([u64::MAX]) {
        let files = directory();
        write_segment(&files, 0, &[FAR + 3, FAR + 4]);
        write_segment(&files, FAR + 5, &[FAR + 5]);
        files.stop_after(stop, false);
        drop(try_load(&files, Stop::Unclean));
        files.resume();
        let log = try_load(&files, Stop::Unclean).unwrap();
        assert_eq!(offsets(&log), [FAR + 3, FAR + 4, FAR + 5]);
        require_tidy(&files);
    }
}
