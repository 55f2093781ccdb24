//! Log directories: whatever stands in their files, loading them does not panic, comes to an end, and
//! leaves logs that can be read, written to, closed and loaded again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use barnabas_broker::clock;
use barnabas_broker::files::memory::Memory;
use barnabas_broker::files::{Durability, Files};
use barnabas_broker::log::{LogDirsOptions, LogManager, PartitionLog};
use barnabas_core::config::{BrokerConfig, TopicConfig};
use barnabas_core::ids::TopicPartition;
use barnabas_core::records::validate::PreparedBatch;
use barnabas_core::records::{
    BatchBuilder, Compression, EndTransactionMarker, batches, end_transaction_marker,
};

use crate::mutation::{Random, mutate, run};

const LOG_DIR: &str = "/data";
const MARKER: &str = "/data/.kafka_cleanshutdown";

/// More batches than any directory here can hold.
const STEPS_MAX: usize = 10_000;

type Content = Vec<(PathBuf, Vec<u8>)>;

/// A directory that was closed: several segments, aborted transactions, two leader epochs.
static SEED: LazyLock<Content> = LazyLock::new(|| {
    let files = Memory::new();
    let manager = open(&files).unwrap();
    let log = manager
        .create_log(&TopicPartition::new("t", 0), true, None, config())
        .unwrap();
    for at in 0..24_i32 {
        let mut builder = BatchBuilder::new(Compression::None)
            .producer(i64::from(at % 3), 0, at / 3)
            .transactional();
        let value = vec![7; 40 * (at as usize % 4)];
        builder.push(1000 + i64::from(at * 37 % 50), None, Some(&value), &[]);
        let batch = PreparedBatch::from_own(builder.build()).unwrap();
        log.append_as_leader(&batch, at / 13, clock::now()).unwrap();
        if at % 5 == 4 {
            let marker = end_transaction_marker(&EndTransactionMarker {
                producer_id: i64::from(at % 3),
                producer_epoch: 0,
                commit: at % 2 == 0,
                coordinator_epoch: 0,
                timestamp_ms: 2000,
                is_log_append_time: false,
                leader_epoch: -1,
            });
            let marker = PreparedBatch::from_own(marker).unwrap();
            log.append_from_coordinator(&marker, at / 13, clock::now())
                .unwrap();
        }
    }
    assert!(log.segment_count() > 2);
    manager.shutdown();
    content(&files)
});

fn config() -> Arc<TopicConfig> {
    Arc::new(TopicConfig {
        segment_bytes: 1500,
        index_interval_bytes: 100,
        ..TopicConfig::default()
    })
}

fn open(files: &Memory) -> Option<Arc<LogManager>> {
    let given = [("zookeeper.connect", "unused:1"), ("log.dirs", LOG_DIR)];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options =
        LogDirsOptions::from_config(&BrokerConfig::parse(&BTreeMap::from(given)).unwrap());
    let config = config();
    LogManager::open(options, Arc::new(files.clone()), move |_| {
        Arc::clone(&config)
    })
    .ok()
}

/// Every file of the log directory and of the log.
fn content(files: &Memory) -> Content {
    let mut content = Vec::new();
    for directory in [LOG_DIR, "/data/t-0"].map(Path::new) {
        for entry in files.list(directory).unwrap() {
            if !entry.is_directory {
                let path = directory.join(entry.name);
                let bytes = files.read(&path).unwrap();
                content.push((path, bytes));
            }
        }
    }
    content
}

fn restore(content: &Content) -> Memory {
    let files = Memory::new();
    files.create_directory(Path::new("/data/t-0")).unwrap();
    for (path, bytes) in content {
        files.replace(path, bytes, Durability::Written).unwrap();
    }
    files
}

fn spoil(content: &mut Content, random: &mut Random) {
    for _ in 0..=random.below(3) {
        if content.is_empty() {
            return;
        }
        let victim = random.below(content.len());
        match random.below(8) {
            0 => drop(content.remove(victim)),
            1 => {
                let size = random.below(200);
                content[victim].1 = (0..size).map(|_| random.below(256) as u8).collect();
            }
            2 => {
                let suffix = [".swap", ".cleaned", ".deleted", ".tmp"][random.below(4)];
                let mut name = content[victim].0.clone().into_os_string();
                name.push(suffix);
                content[victim].0 = name.into();
            }
            3 => {
                // The content of another file.
                let other = random.below(content.len());
                content[victim].1 = content[other].1.clone();
            }
            4 => content[victim].1.extend(vec![0; random.below(300)]),
            _ => mutate(&mut content[victim].1, random),
        }
    }
}

/// Reads all there is, by offset and by time. Broken batches may be met, but there is an end to it.
fn read(log: &PartitionLog) {
    let mut offset = log.log_start_offset();
    let end = log.log_end_offset();
    assert!(offset <= end);
    for step in 0.. {
        assert!(step < STEPS_MAX, "no end of {offset}");
        if offset >= end {
            break;
        }
        let Ok(slice) = log.read(offset, 300, i64::MAX, true) else {
            break;
        };
        let bytes = slice.read_all().unwrap();
        let Some(Ok((_, meta))) = batches(&bytes).next() else {
            break;
        };
        assert!(meta.last_offset >= offset);
        let _ = log.aborted_transactions_of(offset, &slice);
        offset = meta.last_offset.saturating_add(1);
    }
    for timestamp in [0, 1010, 1030, 2000, i64::MAX] {
        let _ = log.offset_for_timestamp(timestamp);
    }
    let _ = log.max_timestamp_offset();
    let _ = log.aborted_transactions(0, i64::MAX);
    let _ = log.legacy_offsets_before(-1, 10, 3000);
    let _ = log.bytes_between(log.log_start_offset(), end);
    let _ = log.active_producers();
}

fn write(log: &PartitionLog) -> Option<i64> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(3000, None, Some(b"new"), &[]);
    let batch = PreparedBatch::from_own(builder.build()).unwrap();
    let appended = log.append_as_leader(&batch, 5, clock::now()).ok()?;
    Some(appended.last_offset)
}

fn exercise(content: &Content) {
    let files = restore(content);
    // Text that makes no sense takes the directory offline, as in Kafka.
    let Some(manager) = open(&files) else { return };
    let partition = TopicPartition::new("t", 0);
    let log = manager.log(&partition).unwrap();
    read(&log);
    let written = write(&log);
    if log.log_start_offset() < log.log_end_offset() {
        let _ = log.truncate_to(log.log_end_offset() - 1, 3000);
    }
    let written = written.and_then(|_| write(&log));
    read(&log);
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    let failed = log.failure();
    manager.shutdown();
    if let Some(failed) = failed {
        panic!("the log directory failed: {failed}");
    }
    drop(manager);
    let manager = open(&files).unwrap();
    let log = manager.log(&partition).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (start, end));
    if let Some(offset) = written {
        let slice = log.read(offset, 0, i64::MAX, true).unwrap();
        assert!(!slice.is_empty());
    }
    read(&log);
    manager.shutdown();
}

#[test]
fn fuzz_log_directories() {
    let rounds = run(|random| {
        let mut content = SEED.clone();
        if random.below(2) == 0 {
            content.retain(|(path, _)| path != Path::new(MARKER));
        }
        spoil(&mut content, random);
        exercise(&content);
    });
    println!("{rounds} log directories");
}
