//! Several log directories with many logs: load, failures, full disks, moves.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use barnabas_broker::clock;
use barnabas_broker::files::disk::Disk;
use barnabas_broker::files::memory::Memory;
use barnabas_broker::files::{Durability, Files};
use barnabas_broker::log::{
    AppendError, LogDirsError, LogDirsOptions, LogError, LogManager, PartitionLog,
};
use barnabas_core::config::{BrokerConfig, TopicConfig};
use barnabas_core::ids::TopicPartition;
use barnabas_core::records::validate::PreparedBatch;
use barnabas_core::records::{BatchBuilder, Compression};

fn options(log_dirs: &[&Path]) -> LogDirsOptions {
    let day = Duration::from_secs(86400);
    LogDirsOptions {
        log_dirs: log_dirs.iter().map(|path| path.to_path_buf()).collect(),
        recovery_threads_per_data_dir: 1,
        initial_task_delay: day,
        retention_check_interval: day,
        flush_scheduler_interval: day,
        recovery_point_checkpoint_interval: day,
        log_start_checkpoint_interval: day,
        segment_delete_delay: day,
        producer_expiration_ms: 86_400_000,
        producer_expiration_check_interval: day,
        move_quota_samples: 11,
        move_quota_sample_length: Duration::from_secs(1),
        move_bytes_per_second: None,
        open_files: 64,
        clock: clock::now,
    }
}

fn open(log_dirs: &[&Path], files: impl Files + 'static) -> Arc<LogManager> {
    let config = Arc::new(TopicConfig::default());
    LogManager::open(options(log_dirs), Arc::new(files), move |_| {
        Arc::clone(&config)
    })
    .unwrap()
}

fn create(manager: &LogManager, topic: &str, partition: i32) -> Arc<PartitionLog> {
    let topic_partition = TopicPartition::new(topic, partition);
    let config = Arc::new(TopicConfig::default());
    manager
        .create_log(&topic_partition, true, None, config)
        .unwrap()
}

fn append(log: &PartitionLog, value: &[u8]) -> Result<i64, AppendError> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(1000, None, Some(value), &[]);
    let batch = PreparedBatch::from_own(builder.build()).unwrap();
    log.append_as_leader(&batch, 0, clock::now())
        .map(|info| info.last_offset)
}

#[test]
fn thousands_of_partitions_start_at_once_and_rest_cheaply() {
    let directory = tempfile::tempdir().unwrap();
    let manager = open(&[directory.path()], Disk);
    for partition in 0..2_000 {
        let log = create(&manager, "many", partition);
        if partition % 100 == 0 {
            append(&log, b"x").unwrap();
        }
    }
    assert!(manager.open_files() <= 64);
    manager.shutdown();
    drop(manager);
    let started = Instant::now();
    let manager = open(&[directory.path()], Disk);
    let took = started.elapsed();
    println!("2,000 logs loaded in {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(manager.all_logs().len(), 2_000);
    assert!(manager.open_files() <= 64);
    let log = manager.log(&TopicPartition::new("many", 700)).unwrap();
    assert_eq!(log.log_end_offset(), 1);
    manager.shutdown();
}

#[test]
fn a_directory_is_used_by_one_broker_only() {
    let directory = tempfile::tempdir().unwrap();
    let manager = open(&[directory.path()], Disk);
    let config = Arc::new(TopicConfig::default());
    let second = LogManager::open(options(&[directory.path()]), Arc::new(Disk), move |_| {
        Arc::clone(&config)
    });
    assert!(matches!(second, Err(LogDirsError::Locked { .. })));
    manager.shutdown();
    open(&[directory.path()], Disk).shutdown();
}

#[test]
fn a_directory_that_fails_takes_only_its_own_logs() {
    let files = Memory::new();
    let (a, b) = (Path::new("/a"), Path::new("/b"));
    let manager = open(&[a, b], files.clone());
    let failures = manager.subscribe_failures();
    let first = create(&manager, "t", 0);
    let second = create(&manager, "t", 1);
    assert_eq!(first.log_dir(), a);
    assert_eq!(second.log_dir(), b);
    append(&second, b"x").unwrap();
    files.break_directory(b);
    assert!(matches!(
        append(&second, b"y"),
        Err(AppendError::Storage(_))
    ));
    assert!(matches!(
        second.read(0, 10, 1, true),
        Err(LogError::Storage(_))
    ));
    assert_eq!(*failures.borrow(), vec![PathBuf::from("/b")]);
    assert_eq!(append(&first, b"z").unwrap(), 0);
    assert!(manager.all_offline().is_none());
    // The new one may have its log in the directory that is gone, unless it is really new.
    let config = Arc::new(TopicConfig::default());
    let unknown = manager.create_log(&TopicPartition::new("t", 2), false, None, config);
    assert!(matches!(unknown, Err(LogError::LogDirOffline { .. })));
    assert_eq!(create(&manager, "t", 3).log_dir(), a);
    let described = manager.directories();
    assert!(described[0].error.is_none() && described[1].error.is_some());
    files.break_directory(a);
    assert!(append(&first, b"z").is_err());
    assert!(manager.all_offline().is_some());
    manager.shutdown();
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let files = Memory::new();
    let directory = Path::new("/a");
    let manager = open(&[directory], files.clone());
    let log = create(&manager, "t", 0);
    let value = vec![7; 500];
    files.set_room(Some(3000));
    let mut acknowledged = 0;
    while append(&log, &value).is_ok() {
        acknowledged += 1;
    }
    assert!(acknowledged > 0);
    assert_eq!(log.log_end_offset(), acknowledged);
    assert!(manager.all_offline().is_some());
    manager.shutdown();
    files.set_room(None);
    let manager = open(&[directory], files);
    let log = manager.log(&TopicPartition::new("t", 0)).unwrap();
    assert_eq!(log.log_end_offset(), acknowledged);
    assert_eq!(append(&log, &value).unwrap(), acknowledged);
    manager.shutdown();
}

/// The process died between the cut of a log and the new checkpoint.
#[test]
fn a_recovery_point_above_the_end_of_its_log_is_lowered_at_once() {
    for is_clean in [true, false] {
        let files = Memory::new();
        let directory = Path::new("/a");
        let manager = open(&[directory], files.clone());
        append(&create(&manager, "t", 0), b"x").unwrap();
        manager.shutdown();
        let checkpoint = Path::new("/a/recovery-point-offset-checkpoint");
        files
            .replace(checkpoint, b"0\n1\nt 0 7\n", Durability::Synced)
            .unwrap();
        if !is_clean {
            files
                .remove_file(Path::new("/a/.kafka_cleanshutdown"))
                .unwrap();
        }
        let manager = open(&[directory], files.clone());
        assert_eq!(files.read(checkpoint).unwrap(), b"0\n1\nt 0 1\n");
        manager.shutdown();
    }
}

#[test]
fn a_log_moves_to_another_directory_under_its_readers() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let manager = open(&[a.path(), b.path()], Disk);
    let log = create(&manager, "t", 0);
    let value = vec![7; 1000];
    for _ in 0..100 {
        append(&log, &value).unwrap();
    }
    let before = log.read(0, 1 << 20, 100, true).unwrap();
    let from = log.log_dir();
    let to = if from == a.path() { b.path() } else { a.path() };
    let topic_partition = TopicPartition::new("t", 0);
    manager.move_replica(&topic_partition, to).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while log.log_dir() != to {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(log.log_end_offset(), 100);
    let after = log.read(0, 1 << 20, 100, true).unwrap();
    assert_eq!(before.read_all().unwrap(), after.read_all().unwrap());
    assert_eq!(append(&log, &value).unwrap(), 100);
    assert!(to.join("t-0").is_dir());
    assert!(!from.join("t-0").exists());
    manager.shutdown();
    drop((manager, log));
    let manager = open(&[a.path(), b.path()], Disk);
    let log = manager.log(&topic_partition).unwrap();
    assert_eq!((log.log_end_offset(), log.log_dir().as_path()), (101, to));
    manager.shutdown();
}

fn properties(more: &[(&str, &str)]) -> BrokerConfig {
    let given = [("zookeeper.connect", "unused:1")];
    let given = given.iter().chain(more);
    let given = given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    BrokerConfig::parse(&given.collect()).unwrap()
}

#[test]
fn a_move_between_directories_waits_while_it_was_too_fast() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let manager = open(&[a.path(), b.path()], Disk);
    let limit = "replica.alter.log.dirs.io.max.bytes.per.second";
    manager.limit_moves(&properties(&[(limit, "1")]));
    let log = create(&manager, "t", 0);
    let value = vec![7; 500_000];
    for _ in 0..8 {
        append(&log, &value).unwrap();
    }
    let to = if log.log_dir() == a.path() {
        b.path()
    } else {
        a.path()
    };
    let topic_partition = TopicPartition::new("t", 0);
    manager.move_replica(&topic_partition, to).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let copy = manager.future_log(&topic_partition).unwrap();
    while copy.log_end_offset() == 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    // One step is 1 MiB; the next may be made in a day or so.
    assert_eq!(copy.log_end_offset(), 2);
    manager.limit_moves(&properties(&[]));
    while log.log_dir() != to {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(log.log_end_offset(), 8);
    manager.shutdown();
}

#[test]
fn preallocated_segments_have_their_full_size_until_they_are_closed() {
    let directory = tempfile::tempdir().unwrap();
    let manager = open(&[directory.path()], Disk);
    let config = Arc::new(TopicConfig {
        preallocate: true,
        segment_bytes: 4096,
        ..TopicConfig::default()
    });
    let topic_partition = TopicPartition::new("t", 0);
    let log = manager
        .create_log(&topic_partition, true, None, config)
        .unwrap();
    let length = |base: i64| {
        let name = format!("t-0/{base:020}.log");
        std::fs::metadata(directory.path().join(name))
            .unwrap()
            .len()
    };
    let value = vec![7; 1500];
    for _ in 0..3 {
        append(&log, &value).unwrap();
    }
    assert_eq!(log.segment_count(), 2);
    assert!((3000..3500).contains(&length(0)));
    assert_eq!(length(2), 4096);
    manager.shutdown();
    assert!((1500..2000).contains(&length(2)));
}

#[test]
fn a_deleted_log_is_gone_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let manager = open(&[directory.path()], Disk);
    let log = create(&manager, "t", 0);
    append(&log, b"x").unwrap();
    let topic_partition = TopicPartition::new("t", 0);
    manager.delete_log_async(&topic_partition).unwrap();
    assert!(manager.log(&topic_partition).is_none());
    assert!(!directory.path().join("t-0").exists());
    assert!(append(&log, b"y").is_err());
    let again = create(&manager, "t", 0);
    assert_eq!(again.log_end_offset(), 0);
    manager.shutdown();
}
