//! Cleaning among everything else that happens to the logs of a broker.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use barnabas_core::config::{BrokerConfig, CleanupPolicy, TopicConfig};
use barnabas_core::ids::{Offset, TopicPartition};
use barnabas_core::records::validate::PreparedBatch;
use barnabas_core::records::{BatchBuilder, Compression, batches, records};

use crate::clock;
use crate::files::Files;
use crate::files::memory::Memory;
use crate::log::{LogDirsOptions, LogManager, PartitionLog};
use crate::metrics::Exposition;

const CHECKPOINT: &str = "cleaner-offset-checkpoint";
/// Each record is in a segment of its own.
const KEYS: [u8; 9] = [1, 2, 1, 3, 1, 2, 4, 4, 5];
/// Offsets of the latest record of each key; the last segment is the active one.
const CLEANED: [Offset; 5] = [3, 4, 5, 7, 8];

struct Fixture {
    files: Memory,
    manager: Arc<LogManager>,
    policy: Arc<Mutex<TopicConfig>>,
}

fn config(settings: &[(&str, &str)]) -> BrokerConfig {
    let defaults = [("zookeeper.connect", "unused:1"), ("log.dirs", "/a,/b")];
    let given = defaults.iter().chain(settings);
    let given = given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    BrokerConfig::parse(&given.collect::<BTreeMap<_, _>>()).unwrap()
}

fn open(files: &Memory, policy: &Arc<Mutex<TopicConfig>>) -> Arc<LogManager> {
    let policy = Arc::clone(policy);
    let options = LogDirsOptions::from_config(&config(&[]));
    LogManager::open(options, Arc::new(files.clone()), move |_| {
        Arc::new(policy.lock().unwrap().clone())
    })
    .unwrap()
}

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

const COMPACT: CleanupPolicy = CleanupPolicy {
    delete: false,
    compact: true,
};

impl Fixture {
    fn new() -> Self {
        let files = Memory::new();
        files.set_clock_ms(clock::now().wall_clock_ms);
        let policy = Arc::new(Mutex::new(TopicConfig {
            cleanup_policy: COMPACT,
            segment_bytes: 80,
            ..TopicConfig::default()
        }));
        let manager = open(&files, &policy);
        Self {
            files,
            manager,
            policy,
        }
    }

    /// A log with [`KEYS`].
    fn write(&self) -> Arc<PartitionLog> {
        let config = Arc::new(self.policy.lock().unwrap().clone());
        let log = self.manager.create_log(&partition(), true, None, config);
        let log = log.unwrap();
        for key in KEYS {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(clock::now().wall_clock_ms, Some(&[key]), Some(b"v"), &[]);
            let batch = PreparedBatch::from_own(builder.build()).unwrap();
            log.append_as_leader(&batch, 0, clock::now()).unwrap();
        }
        log.set_high_watermark(log.log_end_offset());
        log
    }

    /// Ends as by kill -9 and starts again.
    fn die(self) -> Self {
        let Self {
            files,
            manager,
            policy,
        } = self;
        drop(manager);
        files.release_locks();
        let manager = open(&files, &policy);
        for log in manager.all_logs() {
            log.set_high_watermark(log.log_end_offset());
        }
        Self {
            files,
            manager,
            policy,
        }
    }

    fn checkpoint(&self, dir: &str) -> Vec<String> {
        let path = Path::new(dir).join(CHECKPOINT);
        let text = self.files.read(&path).unwrap_or_default();
        let text = String::from_utf8(text).unwrap();
        text.lines().skip(2).map(str::to_owned).collect()
    }

    fn metrics(&self) -> String {
        let mut out = Exposition::default();
        self.manager.write_cleaner(&mut out);
        out.into_text()
    }
}

/// Reads on where one slice ends.
fn offsets(log: &PartitionLog) -> Vec<Offset> {
    let mut found: Vec<Offset> = Vec::new();
    loop {
        let next = found.last().map_or(log.log_start_offset(), |last| last + 1);
        let slice = log.read(next, 1 << 20, Offset::MAX, true).unwrap();
        if slice.is_empty() {
            return found;
        }
        let bytes = slice.read_all().unwrap();
        for batch in batches(&bytes) {
            let (position, meta) = batch.unwrap();
            let batch = bytes.slice(position..position + meta.size_in_bytes);
            let records = records(&batch).unwrap();
            found.extend(records.map(|record| record.unwrap().offset));
        }
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The broker dies between the swap and the checkpoint of the cleaner, and when it starts again the
/// topic is not compacted any more: what the cleaner took away is no loss.
#[test]
fn death_before_the_checkpoint_loses_nothing_when_the_policy_changes() {
    let fixture = Fixture::new();
    fixture.write();
    // The swaps are done, the checkpoint cannot be written.
    let path = Path::new("/a").join(CHECKPOINT);
    assert!(fixture.manager.clean_once(&config(&[])));
    fixture.files.remove_file(&path).unwrap();
    fixture.policy.lock().unwrap().cleanup_policy = CleanupPolicy {
        delete: true,
        compact: false,
    };
    let fixture = fixture.die();
    let log = fixture.manager.log(&partition()).unwrap();
    assert_eq!(log.cleaned_offset(), None);
    assert_eq!(offsets(&log), CLEANED);
    fixture.manager.shutdown();
}

#[test]
fn a_log_that_moves_keeps_its_checkpoint_and_is_not_cleaned_meanwhile() {
    let fixture = Fixture::new();
    let log = fixture.write();
    assert!(fixture.manager.clean_once(&config(&[])));
    assert_eq!(fixture.checkpoint("/a"), ["t 0 8"]);
    // The next record of a key makes the log dirty again.
    log.pause_cleaning();
    fixture.write();
    assert!(!fixture.manager.clean_once(&config(&[])));
    log.resume_cleaning();

    let target = Path::new("/b");
    fixture.manager.move_replica(&partition(), target).unwrap();
    until("the log does not move", || {
        fixture.manager.future_log(&partition()).is_none()
    });
    until("the checkpoint does not follow", || {
        fixture.checkpoint("/a").is_empty()
    });
    assert_eq!(fixture.checkpoint("/b"), ["t 0 8"]);
    assert!(log.directory().starts_with(target));
    assert_eq!(log.cleaned_offset(), Some(8));

    let fixture = fixture.die();
    let log = fixture.manager.log(&partition()).unwrap();
    assert_eq!(log.cleaned_offset(), Some(8));
    assert!(fixture.manager.clean_once(&config(&[])));
    assert_eq!(log.cleaned_offset(), Some(17));
    fixture.manager.shutdown();
}

#[test]
fn a_log_that_cannot_be_cleaned_says_so_until_it_is_deleted() {
    let fixture = Fixture::new();
    let log = fixture.write();
    // The third record says that it is longer than its batch.
    let path = log.directory().join("00000000000000000002.log");
    let mut bytes = fixture.files.read(&path).unwrap();
    bytes[61] = 0x7e;
    fixture
        .files
        .replace(&path, &bytes, crate::files::Durability::Written)
        .unwrap();
    log.close_files();
    assert!(!fixture.manager.clean_once(&config(&[])));
    let text = fixture.metrics();
    let count = "kafka_log_logcleanermanager_uncleanable_partitions_count";
    assert!(
        text.contains(&format!("{count}{{logDirectory=\"/a\"}} 1\n")),
        "{text}"
    );
    let line = text
        .lines()
        .find(|line| line.contains("uncleanable_bytes{logDirectory=\"/a\"}"));
    let bytes: u64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(bytes > 8 * 61, "{bytes}");

    fixture.manager.delete_log_async(&partition()).unwrap();
    fixture.write();
    let text = fixture.metrics();
    assert!(
        text.contains(&format!("{count}{{logDirectory=\"/a\"}} 0\n")),
        "{text}"
    );
    assert!(fixture.manager.clean_once(&config(&[])));
    fixture.manager.shutdown();
}

#[test]
fn a_new_log_of_the_same_name_is_not_clean() {
    let fixture = Fixture::new();
    fixture.write();
    assert!(fixture.manager.clean_once(&config(&[])));
    fixture.manager.delete_log_async(&partition()).unwrap();
    fixture.write();
    let fixture = fixture.die();
    assert!(fixture.manager.clean_once(&config(&[])));
    let log = fixture.manager.log(&partition()).unwrap();
    assert_eq!(offsets(&log), CLEANED);
    fixture.manager.shutdown();
}

/// What is written behind a cut is dirty, also for whoever starts after a crash.
#[test]
fn a_cut_lowers_the_checkpoint_at_once() {
    let fixture = Fixture::new();
    let log = fixture.write();
    assert!(fixture.manager.clean_once(&config(&[])));
    log.truncate_to(5, clock::now().wall_clock_ms).unwrap();
    assert_eq!(fixture.checkpoint("/a"), ["t 0 5"]);
    fixture.manager.shutdown();
}

#[test]
fn retention_is_applied_to_what_is_compacted_too() {
    let fixture = Fixture::new();
    let log = fixture.write();
    let settings = TopicConfig {
        cleanup_policy: CleanupPolicy {
            delete: true,
            compact: true,
        },
        retention_bytes: 200,
        ..TopicConfig::clone(&log.config())
    };
    log.set_config(Arc::new(settings));
    while fixture.manager.clean_once(&config(&[])) {}
    assert!(log.size_in_bytes() < 280, "{}", log.size_in_bytes());
    let last = log.log_end_offset() - 1;
    assert_eq!(offsets(&log).last(), Some(&last));
    assert!(log.log_start_offset() > 0);
    fixture.manager.shutdown();
}

/// Threads, memory, backoff and the throttle are those of the configuration as it is now.
#[test]
fn cleaners_follow_the_configuration() {
    let fixture = Fixture::new();
    let log = fixture.write();
    let manager = &fixture.manager;
    // A pause of a day: whoever looks once does not look again.
    let slow = ("log.cleaner.backoff.ms", "86400000");
    let all_dirty = ("log.cleaner.min.cleanable.ratio", "1");
    manager.configure_cleaner(&config(&[slow, ("log.cleaner.threads", "3"), all_dirty]));
    assert_eq!(manager.cleaning_threads(), 3);
    until("nothing is cleaned", || log.cleaned_offset() == Some(8));
    until("no thread rests", || {
        fixture
            .metrics()
            .contains("kafka_log_logcleanermanager_max_dirty_percent 0\n")
    });
    fixture.write();
    manager.configure_cleaner(&config(&[("log.cleaner.backoff.ms", "5")]));
    assert_eq!(manager.cleaning_threads(), 1);
    until("the new pause is not used", || {
        log.cleaned_offset() == Some(17)
    });
    fixture.write();
    until("the thread does not come again", || {
        log.cleaned_offset() == Some(26)
    });
    let text = fixture.metrics();
    assert!(
        text.contains("kafka_log_logcleaner_deadthreadcount 0\n"),
        "{text}"
    );
    manager.shutdown();
}

/// The cleaner, truncations and the clock write the checkpoints of a directory, each on a thread of its own.
#[test]
fn checkpoints_that_are_written_at_once_do_not_get_into_each_others_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let config = config(&[("log.dirs", path)]);
    let files = Arc::new(crate::files::disk::Disk);
    let manager = LogManager::open(LogDirsOptions::from_config(&config), files, |_| {
        Arc::default()
    });
    let manager = manager.unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let dir = &manager.dirs[0];
                    dir.write_checkpoints(&[]).unwrap();
                    dir.write_cleaned_offsets(&[]).unwrap();
                }
            });
        }
    });
    assert!(manager.all_offline().is_none());
    manager.shutdown();
}
