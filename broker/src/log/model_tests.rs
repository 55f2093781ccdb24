//! A log against a plain vector, with crashes, lost power and torn writes below the file layer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::{Offset, TopicPartition};
use barnabas_core::records::validate::PreparedBatch;
use barnabas_core::records::{BatchBuilder, Compression, batches, records};
use barnabas_core::time::Now;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::background::Background;
use super::error::StorageError;
use super::partition_log::PartitionLog;
use super::place::{Place, Volume};
use super::recovery::{self, LoadRequest, Stop};
use super::types::AppendInfo;
use crate::files::Files;
use crate::files::cache::FileCache;
use crate::files::memory::Memory;

const PRODUCER: i64 = 7;
const DIRECTORY: &str = "/data/t-0";

#[derive(Clone, Debug)]
enum Step {
    Append {
        records: u8,
        bytes: u8,
    },
    /// The same batch as the last one again.
    Retry,
    Flush,
    /// What the log left for later (flushes after a roll, removal of deleted files).
    Background,
    /// The log directory's periodic checkpoint.
    Checkpoint,
    Truncate {
        part: u8,
    },
    DeleteRecords {
        part: u8,
    },
    Retention,
    Restart,
    Kill,
    PowerLoss {
        seed: u64,
    },
    /// After so many more file operations everything fails; then a kill or a loss of power.
    Crash {
        after: u8,
        tear: bool,
        seed: Option<u64>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..5_u8, 0..200_u8).prop_map(|(records, bytes)| Step::Append { records, bytes }),
        1 => Just(Step::Retry),
        1 => Just(Step::Flush),
        2 => Just(Step::Background),
        1 => Just(Step::Checkpoint),
        1 => any::<u8>().prop_map(|part| Step::Truncate { part }),
        1 => any::<u8>().prop_map(|part| Step::DeleteRecords { part }),
        1 => Just(Step::Retention),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::PowerLoss { seed }),
        2 => (any::<u8>(), any::<bool>(), any::<Option<u64>>())
            .prop_map(|(after, tear, seed)| Step::Crash { after: after % 24, tear, seed }),
    ]
}

/// A record of the model.
#[derive(Clone, PartialEq)]
struct Entry {
    offset: Offset,
    timestamp: i64,
    value: Vec<u8>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.offset)
    }
}

struct World {
    files: Memory,
    preallocate: bool,
    log: Arc<PartitionLog>,
    background: Arc<Background>,
    /// All records from offset 0 on, those before the log start included.
    model: Vec<Entry>,
    /// The batch that is being appended: after a crash it may be there or not.
    pending: Vec<Entry>,
    /// A truncation to this offset did not end well.
    doubtful_from: Option<Offset>,
    last_batch: Option<(PreparedBatch, AppendInfo)>,
    sequence: i32,
    /// The checkpoints of the log directory: recovery point, log start offset.
    checkpoint: (Offset, Offset),
    counter: i64,
}

fn config(preallocate: bool) -> Arc<TopicConfig> {
    Arc::new(TopicConfig {
        preallocate,
        segment_bytes: 1500,
        index_interval_bytes: 150,
        segment_index_bytes: 8 * 12,
        retention_bytes: 3000,
        ..TopicConfig::default()
    })
}

fn now() -> Now {
    Now {
        monotonic: Duration::ZERO,
        wall_clock_ms: 1000,
    }
}

type Loaded = (Arc<PartitionLog>, Arc<Background>);

fn load(files: &Memory, stop: Stop, checkpoint: (Offset, Offset)) -> Loaded {
    try_load(files, stop, checkpoint, false).unwrap()
}

fn try_load(
    files: &Memory,
    stop: Stop,
    checkpoint: (Offset, Offset),
    preallocate: bool,
) -> Result<Loaded, StorageError> {
    let background = Background::manual(|| Duration::ZERO);
    let cache = Arc::new(FileCache::new(Arc::new(files.clone()), 3));
    let volume = Arc::new(Volume::new("/data".into(), cache, Arc::clone(&background)));
    let log = recovery::load(LoadRequest {
        topic_partition: TopicPartition::new("t", 0),
        place: Arc::new(Place::new(volume, Path::new(DIRECTORY))),
        config: config(preallocate),
        stop,
        recovery_point: checkpoint.0,
        log_start_offset: checkpoint.1,
        cleaned_offset: 0,
        producer_expiration_ms: 1_000_000,
        now_ms: 1000,
    })?;
    Ok((log, background))
}

impl World {
    fn new() -> Self {
        Self::with(false)
    }

    fn with(preallocate: bool) -> Self {
        let files = Memory::new();
        files.create_directory(Path::new(DIRECTORY)).unwrap();
        for directory in ["/", "/data"] {
            files.sync_directory(Path::new(directory)).unwrap();
        }
        let (log, background) = try_load(&files, Stop::Clean, (0, 0), preallocate).unwrap();
        Self {
            files,
            preallocate,
            log,
            background,
            model: Vec::new(),
            pending: Vec::new(),
            doubtful_from: None,
            last_batch: None,
            sequence: 0,
            checkpoint: (0, 0),
            counter: 0,
        }
    }

    fn load(&self, stop: Stop) -> Loaded {
        try_load(&self.files, stop, self.checkpoint, self.preallocate).unwrap()
    }

    fn end(&self) -> Offset {
        self.model.len() as Offset
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append { records, bytes } => self.append(*records, *bytes),
            Step::Retry => self.retry(),
            Step::Flush => drop(self.log.flush()),
            Step::Background => self.background.run_until(Duration::MAX),
            Step::Checkpoint => {
                if self.log.failure().is_none() {
                    self.checkpoint = (self.log.recovery_point(), self.log.log_start_offset());
                }
            }
            Step::Truncate { part } => self.truncate(*part),
            Step::DeleteRecords { part } => self.delete_records(*part),
            Step::Retention => {
                self.log.set_high_watermark(self.end());
                drop(self.log.delete_old_segments(1000));
            }
            Step::Restart => self.restart(),
            Step::Kill => self.reopen(None),
            Step::PowerLoss { seed } => self.reopen(Some(*seed)),
            Step::Crash { after, tear, .. } => self.files.stop_after(u64::from(*after), *tear),
        }
    }

    fn append(&mut self, count: u8, bytes: u8) {
        let mut builder = BatchBuilder::new(Compression::None).producer(PRODUCER, 0, self.sequence);
        let mut entries = Vec::new();
        for index in 0..count {
            self.counter += 1;
            // Not in order, so that the time index is put to the test.
            let timestamp = 500 + self.counter * 7 % 400;
            let value = vec![self.counter as u8; usize::from(bytes)];
            builder.push(timestamp, None, Some(&value), &[]);
            entries.push(Entry {
                offset: self.end() + Offset::from(index),
                timestamp,
                value,
            });
        }
        let batch = PreparedBatch::from_own(builder.build()).unwrap();
        self.pending = entries.clone();
        if let Ok(info) = self.log.append_as_leader(&batch, 3, now()) {
            assert!(!info.is_duplicate);
            assert_eq!(info.first_offset, self.end());
            self.model.extend(entries);
            assert_eq!(info.last_offset + 1, self.end());
            self.pending.clear();
            self.sequence += i32::from(count);
            self.last_batch = Some((batch, info));
        } else {
            // Nothing of it can be seen, and the directory is offline.
            assert!(self.log.failure().is_some());
            assert_eq!(self.log.log_end_offset(), self.end());
        }
    }

    fn retry(&mut self) {
        if let Some((batch, info)) = &self.last_batch
            && let Ok(again) = self.log.append_as_leader(batch, 3, now())
        {
            assert!(again.is_duplicate);
            assert_eq!(
                (again.first_offset, again.last_offset),
                (info.first_offset, info.last_offset)
            );
        }
    }

    fn truncate(&mut self, part: u8) {
        // A follower is cut where a batch of its leader ends.
        let starts = self.batch_starts();
        let Some(to) = starts.get(usize::from(part) * starts.len() / 256).copied() else {
            return;
        };
        if self.log.truncate_to(to, 1000).is_ok() && self.log.failure().is_none() {
            assert_eq!(self.log.log_end_offset(), to);
            self.model.truncate(to as usize);
            self.checkpoint.0 = self.checkpoint.0.min(to);
            self.forget_producer();
        } else {
            self.log
                .failure()
                .expect("truncation fails only with the disk");
            // It may have come to pass on disk or not, in part too; the checkpoint was not written.
            self.doubtful_from = Some(to);
        }
    }

    fn batch_starts(&self) -> Vec<Offset> {
        let mut starts = Vec::new();
        let mut offset = self.log.log_start_offset();
        while offset < self.log.log_end_offset() && self.log.failure().is_none() {
            let Ok(slice) = self.log.read(offset, 0, Offset::MAX, true) else {
                break;
            };
            let Ok(bytes) = slice.read_all() else { break };
            let (_, meta) = batches(&bytes).next().unwrap().unwrap();
            if meta.base_offset >= self.log.log_start_offset() {
                starts.push(meta.base_offset);
            }
            offset = meta.next_offset();
        }
        starts
    }

    /// After records are gone the producer goes on as a new one.
    fn forget_producer(&mut self) {
        self.last_batch = None;
        self.sequence = self
            .log
            .active_producers()
            .first()
            .map_or(0, |producer| producer.last_sequence + 1);
    }

    fn delete_records(&mut self, part: u8) {
        let start = self.log.log_start_offset();
        let to = start + (self.end() - start) * Offset::from(part) / 255;
        self.log.set_high_watermark(self.end());
        if self.log.increment_log_start_offset(to).is_ok() {
            assert_eq!(self.log.log_start_offset(), to);
        }
    }

    /// A clean stop and start.
    fn restart(&mut self) {
        if self.log.close().is_err() {
            return;
        }
        assert_eq!(self.log.recovery_point(), self.end());
        self.files.resume();
        self.checkpoint = (self.log.recovery_point(), self.log.log_start_offset());
        let start = self.log.log_start_offset();
        (self.log, self.background) = self.load(Stop::Clean);
        assert_eq!(self.log.log_start_offset(), start);
        assert_eq!(self.log.log_end_offset(), self.end());
        self.check();
        if start == self.end() {
            // Snapshots at or below the log start go, as they do in Kafka.
            self.forget_producer();
        }
        self.retry();
    }

    /// The process is gone, and with `seed` the power too.
    fn reopen(&mut self, seed: Option<u64>) {
        let doubtful_from = self.doubtful_from.take();
        let sure = doubtful_from.unwrap_or(self.end());
        let flushed = self.log.recovery_point().min(sure);
        self.files.resume();
        if doubtful_from.is_some() && seed.is_none() {
            // A cut that was not waited for may come undone by a later loss of power.
            self.files.write_back();
        }
        if let Some(seed) = seed {
            self.files.power_loss(&mut StdRng::seed_from_u64(seed));
            // The process dies in the middle of the recovery, too.
            self.files.stop_after(seed % 40, seed % 2 == 0);
            drop(try_load(
                &self.files,
                Stop::Unclean,
                self.checkpoint,
                self.preallocate,
            ));
            self.files.resume();
        }
        (self.log, self.background) = self.load(Stop::Unclean);
        // The log directory writes its checkpoint anew if it is above the end of a log.
        self.checkpoint.0 = self.checkpoint.0.min(self.log.recovery_point());
        let end = self.log.log_end_offset();
        if end > self.end() {
            // A batch that was written but not answered.
            self.model.append(&mut self.pending);
            assert_eq!(end, self.end(), "more than what was sent");
        } else if seed.is_some() {
            assert!(
                end >= flushed,
                "{end} is below {flushed}, which was flushed"
            );
            self.model.truncate(end as usize);
        } else {
            assert!(end >= sure, "something acknowledged is lost");
            self.model.truncate(end as usize);
        }
        self.pending.clear();
        self.check();
        self.forget_producer();
    }

    /// Every record is found where it belongs, by offset and by time.
    fn check(&self) {
        let log = &self.log;
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        assert!(start <= end);
        let kept = &self.model[start as usize..end as usize];
        assert_eq!(read_all(log), kept);
        for entry in kept {
            let slice = log.read(entry.offset, 0, Offset::MAX, true).unwrap();
            let bytes = slice.read_all().unwrap();
            let (_, meta) = batches(&bytes).next().unwrap().unwrap();
            assert!((meta.base_offset..=meta.last_offset).contains(&entry.offset));
        }
        let latest = kept.iter().map(|entry| entry.timestamp).max();
        let found = log.max_timestamp_offset().unwrap();
        // Records before the log start may be in the first segment still.
        if start == 0 {
            assert_eq!(found.map(|found| found.timestamp), latest);
        }
        if let Some(latest) = latest {
            let first = kept.iter().find(|entry| entry.timestamp >= latest).unwrap();
            let found = log.offset_for_timestamp(latest).unwrap();
            assert_eq!(found.map(|found| found.offset), Some(first.offset));
        }
        assert!(matches!(log.latest_epoch(), None | Some(3)));
    }
}

fn read_all(log: &PartitionLog) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut offset = log.log_start_offset();
    while offset < log.log_end_offset() {
        let slice = log.read(offset, 700, Offset::MAX, true).unwrap();
        assert!(!slice.is_empty(), "nothing at {offset}");
        let bytes = slice.read_all().unwrap();
        for batch in batches(&bytes) {
            let Ok((position, meta)) = batch else { break };
            let batch = bytes.slice(position..position + meta.size_in_bytes);
            for record in records(&batch).unwrap() {
                let record = record.unwrap();
                if record.offset >= offset {
                    all.push(Entry {
                        offset: record.offset,
                        timestamp: record.timestamp,
                        value: record.value.unwrap().to_vec(),
                    });
                }
            }
            offset = meta.next_offset();
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_log_is_a_vector_that_survives(
        steps in prop::collection::vec(step(), 1..60),
        preallocate in prop::bool::weighted(0.2),
    ) {
        play_on(World::with(preallocate), &steps);
    }
}

/// Takes the steps and then a crash and a clean restart, and requires the promise after each.
fn play(steps: &[Step]) {
    play_on(World::new(), steps);
}

fn play_on(mut world: World, steps: &[Step]) {
    let mut crash: Option<Option<u64>> = None;
    for step in steps {
        if let Step::Crash { seed, .. } = step {
            crash.get_or_insert(*seed);
        }
        world.run(step);
        if matches!(step, Step::Kill | Step::PowerLoss { .. }) {
            crash = None;
        }
        if world.log.failure().is_some()
            && let Some(seed) = crash.take()
        {
            world.reopen(seed);
        }
    }
    world.reopen(crash.flatten());
    world.restart();
}

fn append(records: u8, bytes: u8) -> Step {
    Step::Append { records, bytes }
}

/// The power fails, the recovery dies between its cut and the wait for the disk, and the next one
/// finds nothing to cut. What was cut off came back behind later records.
#[test]
fn a_cut_of_a_recovery_that_died_does_not_come_undone() {
    play(&[
        append(4, 113),
        append(1, 133),
        append(4, 163),
        append(1, 35),
        Step::Restart,
        append(4, 138),
        append(3, 58),
        append(3, 169),
        Step::PowerLoss {
            seed: 5_539_327_241_952_530_533,
        },
        append(1, 0),
        append(2, 0),
        Step::PowerLoss {
            seed: 2_311_721_701_845_468_754,
        },
    ]);
}

/// The same at every step of the recovery of a segment with a damaged end and another one behind it.
#[test]
fn a_recovery_may_die_anywhere() {
    for (stop, seed) in (0..24).flat_map(|stop| (0..16).map(move |seed| (stop, seed))) {
        let mut world = World::new();
        for (records, bytes) in [(4, 113), (4, 138), (3, 58), (3, 169)] {
            world.append(records, bytes);
        }
        let segments = world.log.segments().clone();
        assert_eq!(segments.last().unwrap().base_offset(), 11);
        // The last batch of the first segment is damaged.
        let path = segments[0].path();
        let mut bytes = world.files.read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let written = crate::files::Durability::Written;
        world.files.replace(&path, &bytes, written).unwrap();
        world.files.write_back();
        world.files.stop_after(stop, false);
        drop(try_load(&world.files, Stop::Unclean, (0, 0), false));
        world.files.resume();
        (world.log, world.background) = load(&world.files, Stop::Unclean, (0, 0));
        assert_eq!(world.log.log_end_offset(), 8);
        world.model.truncate(8);
        world.forget_producer();
        // Up to where the second segment began, and in the place of the damaged batch.
        world.append(1, 0);
        world.append(2, 0);
        world.reopen(Some(seed * 40));
        world.append(3, 58);
        world.reopen(Some(seed * 40));
    }
}

/// A log that is cut at its recovery point and rolls there: no recovery looks at the first segment
/// any more, whose index had come back as it was before the cut.
#[test]
fn an_index_cut_at_the_recovery_point_does_not_come_back_longer() {
    play(&[
        append(1, 137),
        append(4, 139),
        Step::Restart,
        append(3, 23),
        append(1, 0),
        append(1, 0),
        append(2, 138),
        Step::Truncate { part: 86 },
        append(4, 136),
        Step::PowerLoss {
            seed: 17_526_767_630_656_414_770,
        },
    ]);
}

/// What a recovery remembers of producers is what a snapshot holds, whether it was read or not: batches
/// before the log start must not pass for the originals of new ones.
#[test]
fn a_recovery_remembers_the_last_batch_of_a_producer_only() {
    play(&[
        append(1, 0),
        append(1, 29),
        append(1, 16),
        append(1, 27),
        append(2, 90),
        append(3, 197),
        append(1, 149),
        Step::DeleteRecords { part: 153 },
        Step::Truncate { part: 0 },
        append(4, 0),
        Step::Kill,
        append(2, 0),
    ]);
}

/// A preallocated segment whose batches were flushed is cut to its size when the log rolls.
#[test]
fn a_preallocated_segment_does_not_get_its_zeros_back() {
    let steps = [
        append(1, 0),
        append(2, 84),
        append(4, 95),
        append(2, 97),
        Step::Flush,
        append(3, 116),
        Step::Restart,
        append(1, 0),
        Step::Kill,
        Step::PowerLoss {
            seed: 11_590_146_042_409_664_318,
        },
        Step::Truncate { part: 205 },
    ];
    play_on(World::with(true), &steps);
}

/// A directory with three segments that was closed.
fn closed_log() -> (Memory, usize) {
    let mut world = World::new();
    for _ in 0..12 {
        world.append(3, 90);
    }
    world.background.run_until(Duration::MAX);
    world.log.close().unwrap();
    let segments = world.log.segment_count();
    assert!(segments >= 3);
    (world.files, segments)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever stands in the files beside the log, loading does not panic; after an unclean stop
    /// every record is there, and after a clean one all that can be found is.
    #[test]
    fn files_beside_the_log_may_hold_anything(
        which in any::<prop::sample::Index>(),
        content in prop::collection::vec(any::<u8>(), 0..120),
        stop in prop_oneof![Just(Stop::Clean), Just(Stop::Unclean)],
    ) {
        let (files, _) = closed_log();
        let directory = Path::new(DIRECTORY);
        let names = files.list(directory).unwrap();
        let others: Vec<_> = names.iter().filter(|entry| Path::new(&entry.name).extension().is_none_or(|suffix| suffix != "log")).collect();
        let victim = directory.join(&which.get(&others).name);
        files.replace(&victim, &content, crate::files::Durability::Written).unwrap();
        let Ok((log, _)) = try_load(&files, stop, (0, 0), false) else {
            // Only text files that make no sense are refused.
            prop_assert!(victim.extension().is_none() || victim.ends_with("partition.metadata"));
            return Ok(());
        };
        if stop == Stop::Unclean {
            prop_assert_eq!(read_all(&log).len(), 36);
        }
        for offset in log.log_start_offset()..log.log_end_offset() {
            prop_assert!(!log.read(offset, 0, Offset::MAX, true).unwrap().is_empty());
        }
        prop_assert!(log.offset_for_timestamp(0).is_ok());
        prop_assert!(log.max_timestamp_offset().is_ok());
        prop_assert!(log.aborted_transactions(0, Offset::MAX).is_ok());
    }
}
