//! What Kafka 3.9.1's cleaner read and what it left, both from a directory of its own: ours leaves
//! the same, byte for byte where no codec is in between.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use barnabas_core::config::{CleanupPolicy, TopicConfig};
use barnabas_core::ids::{Offset, TopicPartition};
use barnabas_core::records::{BatchHeader, Compression, Record, batches, records};
use bytes::Bytes;

use super::clean::{Cleaning, Settings, find_cleanable};
use crate::files::cache::FileCache;
use crate::files::memory::Memory;
use crate::files::{Durability, Files};
use crate::log::background::Background;
use crate::log::place::{Place, Volume};
use crate::log::recovery::{LoadRequest, Stop, load};

const DIRECTORY: &str = "/data/t-0";
/// Settings do not last as long as the clock of a test.
const NEVER_MS: i64 = i64::MAX / 4;

/// A cleaning of Kafka's.
struct Recording {
    archive: &'static str,
    partition: &'static str,
    segment_bytes: i32,
    index_interval_bytes: i32,
    delete_retention_ms: i64,
    /// Up to where the log had been cleaned before.
    cleaned_offset: Offset,
    now_ms: i64,
}

fn unpack(archive: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/datadirs")
        .join(format!("{archive}.tar.gz"));
    let mut tar = Command::new("tar");
    let status = tar.arg("xzf").arg(&path).arg("-C").arg(directory.path());
    assert!(status.status().unwrap().success());
    directory
}

/// The files of a log with the given ending.
fn with_ending(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// A batch without what depends on the codec's implementation, and its records.
fn comparable(bytes: &Bytes) -> Vec<(Option<BatchHeader>, Bytes, Vec<Record>)> {
    let describe = |batch: Result<(usize, _), _>| {
        let (position, meta): (usize, barnabas_core::records::BatchMeta) = batch.unwrap();
        let batch = bytes.slice(position..position + meta.size_in_bytes);
        if meta.compression().unwrap() == Compression::None {
            return (None, batch, Vec::new());
        }
        let mut header = BatchHeader::parse(&batch).unwrap();
        (header.crc, header.batch_length) = (0, 0);
        let records = records(&batch).unwrap().map(Result::unwrap).collect();
        (Some(header), Bytes::new(), records)
    };
    batches(bytes).map(describe).collect()
}

/// Cleans what Kafka cleaned, and compares all files of the log below the active segment.
fn check(recording: &Recording) {
    let unpacked = unpack(recording.archive);
    let golden = unpacked.path().join("data").join(recording.partition);
    let files = Memory::new();
    files.set_clock_ms(recording.now_ms);
    let to = |name: &str| Path::new(DIRECTORY).join(name);
    files.create_directory(Path::new(DIRECTORY)).unwrap();
    let put = |name: &str, from: &Path| {
        let bytes = fs::read(from).unwrap();
        files
            .replace(&to(name), &bytes, Durability::Written)
            .unwrap();
    };
    // What was cleaned is there under its names of before, for as long as Kafka keeps such files.
    let old: BTreeSet<String> = with_ending(&golden, ".log.deleted")
        .iter()
        .map(|path| name(path).replace(".deleted", ""))
        .collect();
    assert!(!old.is_empty());
    for name in &old {
        put(name, &golden.join(format!("{name}.deleted")));
    }
    let active = name(with_ending(&golden, ".log").last().unwrap());
    assert!(!old.contains(&active));
    put(&active, &golden.join(&active));

    let cache = FileCache::new(Arc::new(files.clone()), 16);
    let background = Background::manual(|| std::time::Duration::ZERO);
    let volume = Arc::new(Volume::new("/data".into(), Arc::new(cache), background));
    let config = TopicConfig {
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: true,
        },
        segment_bytes: recording.segment_bytes,
        index_interval_bytes: recording.index_interval_bytes,
        delete_retention_ms: recording.delete_retention_ms,
        ..TopicConfig::default()
    };
    let log = load(LoadRequest {
        topic_partition: TopicPartition::new("t", 0),
        place: Arc::new(Place::new(volume, Path::new(DIRECTORY))),
        config: Arc::new(config),
        stop: Stop::Unclean,
        recovery_point: 0,
        log_start_offset: 0,
        cleaned_offset: recording.cleaned_offset,
        producer_expiration_ms: NEVER_MS,
        now_ms: recording.now_ms,
    })
    .unwrap();
    log.restore_cleaned_offset(recording.cleaned_offset);
    log.set_high_watermark(log.log_end_offset());
    let now_ms = recording.now_ms;
    let cleanable = find_cleanable(&log, &log.config(), now_ms).unwrap();
    let settings = Settings {
        map_bytes: 1 << 20,
        load_factor: 0.9,
        io_bytes: 1 << 18,
    };
    let cleaning = Cleaning::new(&log, log.config(), cleanable, settings, now_ms, &|_| false);
    let end_offset = cleaning.run().unwrap().end_offset;
    assert_eq!(active, format!("{end_offset:020}.log"));

    let listed = files.list(Path::new(DIRECTORY)).unwrap();
    let ours: BTreeSet<String> = listed.into_iter().map(|entry| entry.name).collect();
    let segments = |ending: &str| -> BTreeSet<String> {
        let all = ours.iter().filter(|name| name.ends_with(ending));
        all.cloned().collect()
    };
    for ending in [".log", ".txnindex"] {
        let kafkas: BTreeSet<_> = with_ending(&golden, ending)
            .iter()
            .map(|path| name(path))
            .collect();
        assert_eq!(segments(ending), kafkas, "{}", recording.partition);
    }
    for path in with_ending(&golden, ".log") {
        let log_name = name(&path);
        let expected = Bytes::from(fs::read(&path).unwrap());
        let found = Bytes::from(files.read(&to(&log_name)).unwrap());
        assert_eq!(comparable(&found), comparable(&expected), "{log_name}");
        if log_name == active || found != expected {
            // Indexes say where batches begin.
            continue;
        }
        for ending in ["index", "timeindex", "txnindex"] {
            let other = log_name.replace("log", ending);
            let expected = fs::read(golden.join(&other)).ok();
            assert_eq!(files.read(&to(&other)).ok(), expected, "{other}");
        }
    }
}

#[test]
fn what_kafka_left_of_a_compacted_topic() {
    check(&Recording {
        archive: "clean",
        partition: "compact-after-0",
        segment_bytes: 2048,
        index_interval_bytes: 256,
        delete_retention_ms: 86_400_000,
        cleaned_offset: 0,
        now_ms: 1_795_442_536_834 - 86_400_000,
    });
}

#[test]
fn what_kafka_left_when_the_time_of_tombstones_was_over() {
    check(&Recording {
        archive: "clean",
        partition: "compact-gone-0",
        segment_bytes: 2048,
        index_interval_bytes: 256,
        delete_retention_ms: 1,
        cleaned_offset: 111,
        now_ms: 1_795_356_140_000,
    });
}

#[test]
fn what_kafka_left_of_a_committed_and_an_aborted_transaction() {
    check(&Recording {
        archive: "clean",
        partition: "compact-txn-0",
        segment_bytes: 2048,
        index_interval_bytes: 256,
        delete_retention_ms: 86_400_000,
        cleaned_offset: 0,
        now_ms: 1_795_356_136_834,
    });
}

#[test]
fn what_kafka_left_of_messages_of_magic_0() {
    check(&Recording {
        archive: "legacy-ibp28",
        partition: "m0-compact-0",
        segment_bytes: 1024,
        index_interval_bytes: 4096,
        delete_retention_ms: 86_400_000,
        cleaned_offset: 0,
        now_ms: 1_795_356_200_000,
    });
}
