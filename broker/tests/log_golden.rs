//! Log directories that Apache Kafka 3.9.1 wrote, closed or killed or damaged, opened by ours: the
//! same records, offsets and producers, and after a clean stop the same files byte for byte.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use barnabas_broker::files::disk::Disk;
use barnabas_broker::log::{LogDirsError, LogDirsOptions, LogManager, PartitionLog};
use barnabas_core::config::TopicConfig;
use barnabas_core::ids::TopicPartition;
use barnabas_core::records::{batches, records, verify_crc};
use barnabas_core::time::Now;
use bytes::Bytes;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

/// When the records were sent, by their own timestamps: no producer has expired.
fn then() -> Now {
    Now {
        monotonic: Duration::ZERO,
        wall_clock_ms: 1_700_000_000_000,
    }
}

/// When the directories were made: producers of records with older timestamps have expired.
fn golden_now() -> Now {
    Now {
        monotonic: Duration::ZERO,
        wall_clock_ms: 1_795_356_200_000,
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/datadirs")
        .join(name)
}

fn manifest(name: &str) -> Value {
    let file = golden(&format!("{name}.manifest.json.gz"));
    let output = Command::new("gzip").arg("-dc").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", file.display());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn unpack(name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new("tar")
        .arg("xzf")
        .arg(golden(&format!("{name}.tar.gz")))
        .arg("-C")
        .arg(directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    directory
}

/// The topics' settings as they were when the directories were made.
fn topic_config(topic: &str) -> Arc<TopicConfig> {
    let (segment_bytes, index_interval_bytes) = match topic {
        "segs" => (8192, 512),
        "delrec" => (4096, 512),
        "ooo" => (4096, 100),
        "compact-before" | "compact-after" | "compact-gone" | "compact-txn" => (2048, 256),
        _ => (1 << 30, 4096),
    };
    Arc::new(TopicConfig {
        segment_bytes,
        index_interval_bytes,
        segment_index_bytes: 102_400,
        ..TopicConfig::default()
    })
}

fn open(data: &Path, clock: fn() -> Now) -> Arc<LogManager> {
    LogManager::open(options(data, clock), Arc::new(Disk), topic_config).unwrap()
}

fn options(data: &Path, clock: fn() -> Now) -> LogDirsOptions {
    let day = Duration::from_secs(86400);
    LogDirsOptions {
        log_dirs: vec![data.to_owned()],
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
        open_files: 16,
        clock,
    }
}

/// All records of a log as they are read from its start, in the manifest's words.
fn records_of(log: &PartitionLog) -> Vec<Value> {
    let mut all = Vec::new();
    let mut offset = log.log_start_offset();
    let end = log.log_end_offset();
    while offset < end {
        let slice = log.read(offset, 1000, end, true).unwrap();
        if slice.is_empty() {
            break;
        }
        let bytes = slice.read_all().unwrap();
        let before = offset;
        for batch in batches(&bytes) {
            let Ok((position, meta)) = batch else { break };
            let batch = bytes.slice(position..position + meta.size_in_bytes);
            if verify_crc(&batch).is_err() {
                offset = meta.next_offset();
                continue;
            }
            for record in records(&batch).unwrap() {
                let record = record.unwrap();
                if record.offset >= log.log_start_offset() {
                    let key = record.key.map(|key| hex(&key));
                    let value = record.value.map(|value| hex(&value));
                    all.push(json!([record.offset, record.timestamp, key, value]));
                }
            }
            offset = meta.next_offset();
        }
        if offset == before {
            all.push(json!([offset, "unreadable"]));
            break;
        }
    }
    all
}

fn hex(bytes: &Bytes) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn records_in_manifest(partition: &Value, log_start_offset: i64) -> Vec<Value> {
    let mut all = Vec::new();
    for segment in partition["segments"].as_object().unwrap().values() {
        for batch in segment["batches"].as_array().unwrap() {
            if batch["valid"] == false {
                continue;
            }
            for record in batch["records"].as_array().into_iter().flatten() {
                if record["offset"].as_i64().unwrap() >= log_start_offset {
                    let (key, value) = (&record["key"], &record["value"]);
                    all.push(json!([record["offset"], record["timestamp"], key, value]));
                }
            }
        }
    }
    all
}

/// What Kafka answered about a partition, and what ours does.
fn check_offsets(log: &PartitionLog, partition: &Value, differences: &mut Vec<String>) {
    let name = log.topic_partition().to_string();
    let offsets = &partition["offsets"];
    let end = log.log_end_offset();
    log.set_high_watermark(end);
    if offsets.is_null() {
        return;
    }
    let mut compare = |what: &str, ours: Value, theirs: &Value| {
        if ours != *theirs {
            differences.push(format!("{name} {what}: {ours}, Kafka's {theirs}"));
        }
    };
    let start = log.log_start_offset();
    compare("earliest", start.into(), &offsets["earliest"]["offset"]);
    compare("latest", end.into(), &offsets["latest"]["offset"]);
    let stable = log.first_unstable_offset().unwrap_or(end).min(end);
    compare(
        "lastStable",
        stable.into(),
        &offsets["lastStable"]["offset"],
    );
    let max = match log.max_timestamp_offset() {
        Ok(max) => max
            .filter(|max| max.offset < end)
            .map_or(json!([-1, -1]), |max| json!([max.offset, max.timestamp])),
        Err(error) => error.to_string().into(),
    };
    let theirs = &offsets["maxTimestamp"];
    compare(
        "maxTimestamp",
        max,
        &json!([theirs["offset"], theirs["timestamp"]]),
    );
    let slice = log.read(start, 1 << 20, stable, true).unwrap();
    let aborted = log.aborted_transactions_of(start, &slice).unwrap();
    let describe = |txn: &barnabas_broker::log::AbortedTransaction| json!({"producerId": txn.producer_id, "firstOffset": txn.first_offset});
    let aborted: Vec<Value> = aborted.iter().map(describe).collect();
    let theirs = &offsets["abortedTransactionsFromStart"];
    if !theirs.is_null() {
        compare("aborted", aborted.into(), theirs);
    }
}

fn check_producers(manager: &LogManager, manifest: &Value, differences: &mut Vec<String>) {
    for topic in manifest["describeProducers"]["topics"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let name = topic["name"].as_str().unwrap();
        for partition in topic["partitions"].as_array().unwrap() {
            let index = partition["partitionIndex"].as_i64().unwrap() as i32;
            let topic_partition = TopicPartition::new(name, index);
            let producers = manager.log(&topic_partition).unwrap().active_producers();
            let ours: BTreeSet<String> = producers
                .iter()
                .map(|p| {
                    json!({
                        "producerId": p.producer_id,
                        "producerEpoch": p.producer_epoch,
                        "lastSequence": p.last_sequence,
                        "lastTimestamp": p.last_timestamp,
                        "coordinatorEpoch": p.coordinator_epoch,
                        "currentTxnStartOffset": p.current_txn_start_offset,
                    })
                    .to_string()
                })
                .collect();
            let theirs = partition["activeProducers"].as_array().unwrap();
            let theirs: BTreeSet<String> = theirs.iter().map(ToString::to_string).collect();
            for only in ours.symmetric_difference(&theirs) {
                let whose = if ours.contains(only) {
                    "ours"
                } else {
                    "Kafka's"
                };
                differences.push(format!("{topic_partition} producer only {whose}: {only}"));
            }
        }
    }
}

/// The files in the partitions of a log directory, with their content.
fn files_of(data: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for directory in std::fs::read_dir(data).unwrap() {
        let directory = directory.unwrap();
        if !directory.file_type().unwrap().is_dir() {
            continue;
        }
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let file = file.unwrap();
            let (parent, name) = (directory.file_name(), file.file_name());
            let name = format!("{}/{}", parent.to_string_lossy(), name.to_string_lossy());
            if name.ends_with(".deleted") {
                continue;
            }
            files.insert(name, std::fs::read(file.path()).unwrap());
        }
    }
    files
}

/// Snapshots list their producers in the order of a Java hash map: compare them sorted.
fn comparable(name: &str, content: &[u8]) -> Vec<u8> {
    if !name.ends_with(".snapshot") || content.len() < 10 {
        return content.to_vec();
    }
    let mut entries: Vec<&[u8]> = content[10..].chunks(46).collect();
    entries.sort_unstable();
    let mut sorted = content[..2].to_vec();
    sorted.extend_from_slice(&content[6..10]);
    sorted.extend(entries.concat());
    sorted
}

fn compare_files(ours: &Path, theirs: &Path, differences: &mut Vec<String>) {
    let ours = files_of(ours);
    let theirs = files_of(theirs);
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        match (ours.get(name), theirs.get(name)) {
            (Some(a), Some(b)) if comparable(name, a) == comparable(name, b) => {}
            (Some(a), Some(b)) => differences.push(format!(
                "{name}: {} bytes differ from Kafka's {}",
                a.len(),
                b.len()
            )),
            (Some(_), None) => differences.push(format!("{name}: only ours")),
            (None, _) => differences.push(format!("{name}: only Kafka's")),
        }
    }
}

/// Does what a broker does on becoming leader: notes the new epoch, which loading drops as long as
/// it has no records.
fn lead(log: &PartitionLog, theirs: &Path) {
    let text = std::fs::read_to_string(theirs.join("leader-epoch-checkpoint")).unwrap_or_default();
    let last = text
        .lines()
        .skip(2)
        .last()
        .and_then(|line| line.split_once(' '));
    if let Some((epoch, start)) = last
        && start.parse() == Ok(log.log_end_offset())
    {
        let end = log.log_end_offset();
        log.assign_epoch_start(epoch.parse().unwrap(), end).unwrap();
    }
}

/// Opens and closes `before`, and compares with what Kafka made of it.
fn check(before: &str, after: &str, expected: &Expect) {
    let ours = unpack(before);
    let theirs = unpack(after);
    let theirs = theirs.path().join("data");
    let data = ours.path().join("data");
    let clock = if before == after { then } else { golden_now };
    let manager = open(&data, clock);
    let mut differences = Vec::new();
    compare_answers(&manager, &manifest(after), Some(&theirs), &mut differences);
    manager.shutdown();
    compare_files(&data, &theirs, &mut differences);
    expected.assert_eq(&differences.join("\n"));
}

/// Opens a directory of which there is no state after Kafka's own load.
fn check_answers(name: &str, expected: &Expect) {
    let directory = unpack(name);
    let manager = open(&directory.path().join("data"), golden_now);
    let mut differences = Vec::new();
    compare_answers(&manager, &manifest(name), None, &mut differences);
    manager.shutdown();
    expected.assert_eq(&differences.join("\n"));
}

fn compare_answers(
    manager: &LogManager,
    manifest: &Value,
    theirs: Option<&Path>,
    differences: &mut Vec<String>,
) {
    for (name, partition) in manifest["partitions"].as_object().unwrap() {
        let (topic, index) = name.rsplit_once('-').unwrap();
        let Some(log) = manager.log(&TopicPartition::new(topic, index.parse().unwrap())) else {
            differences.push(format!("{name}: no such log"));
            continue;
        };
        if let Some(theirs) = theirs {
            lead(&log, &theirs.join(name));
        }
        check_offsets(&log, partition, differences);
        let theirs = records_in_manifest(partition, log.log_start_offset());
        let ours = records_of(&log);
        if ours != theirs {
            let (a, b) = (ours.len(), theirs.len());
            differences.push(format!("{name}: {a} records differ from Kafka's {b}"));
        }
    }
    check_producers(manager, manifest, differences);
}

#[test]
fn a_directory_that_was_closed_stays_as_it_is() {
    // A snapshot below the log start goes at the next load, Kafka's own too.
    check(
        "clean",
        "clean",
        &expect!["delrec-0/00000000000000000040.snapshot: only Kafka's"],
    );
}

#[test]
fn a_directory_of_a_killed_broker_is_recovered() {
    check("kill9", "kill9-recovered", &expect![""]);
}

#[test]
fn torn_files_are_cut_where_kafka_cuts_them() {
    // The last batch of idem-0 got a magic of 9, which recovery believes and a reader cannot.
    check(
        "torn",
        "torn-recovered",
        &expect!["idem-0: 21 records differ from Kafka's 22"],
    );
}

/// Kafka serves c-none up to offset 0 after this, and appends behind the torn bytes of the three.
#[test]
fn torn_files_behind_a_clean_marker_are_cut_too() {
    check(
        "torn-clean",
        "torn-clean-recovered",
        &expect![[r"
        c-none-0 latest: 20, Kafka's 0
        c-none-0 lastStable: 20, Kafka's 0
        c-none-0 maxTimestamp: [19,1700000000019], Kafka's [-1,-1]
        idem-0: 16 records differ from Kafka's 16
        c-gzip-0/00000000000000000000.log: 646 bytes differ from Kafka's 676
        c-lz4-0/00000000000000000000.log: 709 bytes differ from Kafka's 717
        c-none-0/00000000000000000000.index: 0 bytes differ from Kafka's 8
        c-none-0/00000000000000000000.log: 6442 bytes differ from Kafka's 9651
        c-none-0/00000000000000000000.timeindex: 12 bytes differ from Kafka's 12
        c-none-0/00000000000000000020.snapshot: only ours"]],
    );
}

/// Kafka keeps padded indexes as they are, and finds nothing by time in c-gzip afterwards.
#[test]
fn bad_files_behind_a_clean_marker_are_replaced() {
    check(
        "clean-badfiles",
        "clean-badfiles-recovered",
        &expect![[r"
        c-gzip-0 maxTimestamp: [29,1700000000029], Kafka's [-1,-1]
        c-gzip-0/00000000000000000000.timeindex: 12 bytes differ from Kafka's 0
        ooo-0/00000000000000000100.timeindex: 36 bytes differ from Kafka's 1236
        segs-0/00000000000000000110.index: 32 bytes differ from Kafka's 832"]],
    );
}

/// Kafka does not start on this one.
#[test]
fn zeros_behind_the_last_batch_are_cut_behind_a_clean_marker_too() {
    let directory = unpack("clean");
    let data = directory.path().join("data");
    let file = data.join("c-zstd-0/00000000000000000000.log");
    let before = std::fs::read(&file).unwrap();
    let mut longer = before.clone();
    longer.extend([0; 200]);
    std::fs::write(&file, longer).unwrap();
    let manager = open(&data, golden_now);
    let log = manager.log(&TopicPartition::new("c-zstd", 0)).unwrap();
    assert_eq!(log.log_end_offset(), 30);
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn old_formats_are_loaded() {
    check("legacy-ibp28", "legacy-ibp28", &expect![""]);
    check_answers("legacy-ibp39-kill9", &expect![""]);
}

#[test]
fn replicas_are_loaded() {
    // The snapshot is neither at a segment's base nor the newest: Kafka drops it at a load, too.
    check(
        "replica-20",
        "replica-20",
        &expect!["rep-0/00000000000000000020.snapshot: only Kafka's"],
    );
    check(
        "replica-21",
        "replica-21",
        &expect!["rep-0/00000000000000000014.snapshot: only Kafka's"],
    );
    check_answers("replica-divergent-20", &expect![""]);
}

#[test]
fn a_divergent_replica_is_cut_where_the_epochs_say() {
    let divergent = unpack("replica-divergent-20");
    let leader = unpack("replica-21");
    let after = unpack("replica-20");
    let topic_partition = TopicPartition::new("rep", 0);
    let ours = open(&divergent.path().join("data"), golden_now);
    let log = ours.log(&topic_partition).unwrap();
    let theirs = open(&leader.path().join("data"), golden_now);
    let leader = theirs.log(&topic_partition).unwrap();
    let latest = log.latest_epoch().unwrap();
    let (epoch, end) = leader.end_offset_for_epoch(latest).unwrap();
    let (_, own_end) = log.end_offset_for_epoch(epoch).unwrap();
    let end = end.min(own_end);
    assert_eq!(log.log_end_offset() - end, 6);
    assert!(log.truncate_to(end, 0).unwrap());
    assert_eq!(log.log_end_offset(), end);
    let name = "data/rep-0/00000000000000000000.log";
    let cut = std::fs::read(divergent.path().join(name)).unwrap();
    let whole = std::fs::read(after.path().join(name)).unwrap();
    assert_eq!(cut, whole[..cut.len()]);
    ours.shutdown();
    theirs.shutdown();
}

#[test]
fn a_directory_of_no_partition_is_refused() {
    let directory = unpack("clean");
    let data = directory.path().join("data");
    std::fs::create_dir(data.join("foo-1")).unwrap();
    let manager = open(&data, golden_now);
    let strange = manager.log(&TopicPartition::new("foo", 1)).unwrap();
    assert_eq!(strange.log_end_offset(), 0);
    manager.shutdown();
    drop((strange, manager));
    std::fs::create_dir(data.join("lost+found")).unwrap();
    let refused = LogManager::open(options(&data, golden_now), Arc::new(Disk), topic_config);
    assert!(matches!(
        refused,
        Err(LogDirsError::StrangeDirectory { .. })
    ));
}
