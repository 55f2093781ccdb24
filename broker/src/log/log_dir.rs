//! One log directory: lock, clean shutdown marker, checkpoints, loading of its logs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::{Offset, TopicPartition};
use barnabas_core::time::Now;

use super::background::Background;
use super::checkpoint::{
    self, CLEANED_OFFSETS, HIGH_WATERMARKS, LOG_START_OFFSETS, RECOVERY_POINTS,
};
use super::dir_name::DirName;
use super::error::{Described as _, LogDirsError, StorageError};
use super::options::LogDirsOptions;
use super::partition_log::PartitionLog;
use super::place::{Place, Volume};
use super::recovery::{self, LoadRequest, Stop};
use crate::files::cache::FileCache;
use crate::files::{Durability, Files, Lock};
use crate::host;

const LOCK: &str = ".lock";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// Brokers that use ZooKeeper have no epoch to note here.
const CLEAN_SHUTDOWN_CONTENT: &[u8] = br#"{"version":0,"brokerEpoch":-1}"#;
/// How often loading says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// A log directory that is in use.
#[derive(Debug)]
pub(crate) struct LogDir {
    pub(crate) volume: Arc<Volume>,
    lock: Mutex<Option<Box<dyn Lock>>>,
    /// The logs that the checkpoint of the cleaner names. Held while that is written.
    cleaned: Mutex<BTreeSet<TopicPartition>>,
    /// Held while another checkpoint is written: two that write the same file at once would take each other's
    /// temporary file away.
    checkpointing: Mutex<()>,
}

/// A log that was found, and whether it is a copy in the making.
pub(crate) struct Found {
    pub(crate) log: Arc<PartitionLog>,
    pub(crate) is_future: bool,
}

/// The checkpoints of a log directory.
#[derive(Default)]
struct Checkpoints {
    recovery_points: BTreeMap<TopicPartition, Offset>,
    log_start_offsets: BTreeMap<TopicPartition, Offset>,
    high_watermarks: BTreeMap<TopicPartition, Offset>,
    cleaned_offsets: BTreeMap<TopicPartition, Offset>,
}

impl LogDir {
    /// Creates the directory if need be and locks it. A disk error leaves it offline.
    pub(crate) fn open(
        path: PathBuf,
        cache: &Arc<FileCache>,
        clock: fn() -> Now,
    ) -> Result<Self, LogDirsError> {
        let name = format!(
            "log-dir-{}",
            path.file_name()
                .map_or_else(Default::default, |name| name.to_string_lossy())
        );
        // Linux cuts thread names at 15 bytes.
        let name: String = name.chars().take(15).collect();
        let background = match Background::start(&name, move || clock().monotonic) {
            Ok(background) => background,
            Err(source) => {
                let last = StorageError::new("start a thread for", path, source);
                return Err(LogDirsError::AllOffline { last });
            }
        };
        let volume = Arc::new(Volume::new(path.clone(), Arc::clone(cache), background));
        let files = cache.files();
        let locked = files
            .create_directory(&path)
            .describe("create", &path)
            .and_then(|()| {
                let path = path.join(LOCK);
                files.lock(&path).describe("lock", &path)
            });
        let lock = match locked {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => return Err(LogDirsError::Locked { path }),
            Err(error) => {
                volume.fail(error);
                None
            }
        };
        Ok(Self {
            volume,
            lock: Mutex::new(lock),
            cleaned: Mutex::default(),
            checkpointing: Mutex::default(),
        })
    }

    pub(crate) fn is_online(&self) -> bool {
        self.volume.failure().is_none()
    }

    /// Loads all logs of the directory. A disk error takes it offline: then there are none.
    pub(crate) fn load(
        self: &Arc<Self>,
        options: &LogDirsOptions,
        topic_config: &(dyn Fn(&str) -> Arc<TopicConfig> + Sync),
    ) -> Result<Vec<Found>, LogDirsError> {
        if !self.is_online() {
            return Ok(Vec::new());
        }
        let prepared = self
            .take_marker()
            .and_then(|stop| Ok((stop, self.read_checkpoints()?, self.list()?)));
        let (stop, checkpoints, names) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.volume.fail(error);
                return Ok(Vec::new());
            }
        };
        *self.cleaned() = checkpoints.cleaned_offsets.keys().cloned().collect();
        let mut jobs = Vec::new();
        for name in names {
            let path = self.volume.path().join(&name);
            match DirName::parse(&name) {
                Some(DirName::Log(topic_partition)) => jobs.push((topic_partition, path, false)),
                Some(DirName::Future(topic_partition)) => jobs.push((topic_partition, path, true)),
                Some(DirName::Deleted) => {
                    let place = Place::new(Arc::clone(&self.volume), path);
                    remove_later(Arc::new(place), options.segment_delete_delay);
                }
                Some(DirName::Ignored) => {}
                None => return Err(LogDirsError::StrangeDirectory { path }),
            }
        }
        Ok(self.load_all(jobs, stop, &checkpoints, options, topic_config))
    }

    fn load_all(
        &self,
        jobs: Vec<(TopicPartition, PathBuf, bool)>,
        stop: Stop,
        checkpoints: &Checkpoints,
        options: &LogDirsOptions,
        topic_config: &(dyn Fn(&str) -> Arc<TopicConfig> + Sync),
    ) -> Vec<Found> {
        let total = jobs.len();
        let path = self.volume.path().display();
        let started = (options.clock)();
        if stop == Stop::Unclean && total > 0 {
            tracing::warn!(log_dir = %path, logs = total, "no clean shutdown: recovering");
        }
        // Recovery is bound by the disk, opening what was closed cleanly by the processor.
        let threads = match stop {
            Stop::Unclean => options.recovery_threads_per_data_dir,
            Stop::Clean => options
                .recovery_threads_per_data_dir
                .max(std::thread::available_parallelism().map_or(1, usize::from)),
        };
        let queue = Mutex::new(jobs.into_iter());
        let found = Mutex::new(Vec::with_capacity(total));
        let done = AtomicUsize::new(0);
        let reported = Mutex::new(started.monotonic);
        let work = || {
            loop {
                let job = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((topic_partition, directory, is_future)) = job else {
                    return;
                };
                if !self.is_online() {
                    return;
                }
                let place = Arc::new(Place::new(Arc::clone(&self.volume), directory));
                let loaded = recovery::load(LoadRequest {
                    config: topic_config(&topic_partition.topic),
                    place,
                    stop,
                    recovery_point: offset_of(&checkpoints.recovery_points, &topic_partition),
                    log_start_offset: offset_of(&checkpoints.log_start_offsets, &topic_partition),
                    cleaned_offset: offset_of(&checkpoints.cleaned_offsets, &topic_partition),
                    producer_expiration_ms: options.producer_expiration_ms,
                    now_ms: started.wall_clock_ms,
                    topic_partition,
                });
                match loaded {
                    Ok(log) => {
                        let cleaned = checkpoints.cleaned_offsets.get(log.topic_partition());
                        if let Some(offset) = cleaned {
                            log.restore_cleaned_offset(*offset);
                        }
                        let high_watermark = checkpoints.high_watermarks.get(log.topic_partition());
                        if let Some(high_watermark) = high_watermark {
                            log.set_checkpointed_high_watermark(*high_watermark);
                        }
                        found
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(Found { log, is_future });
                    }
                    Err(error) => {
                        self.volume.fail(error);
                        return;
                    }
                }
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                let now = (options.clock)().monotonic;
                let mut reported = reported.lock().unwrap_or_else(PoisonError::into_inner);
                if now.saturating_sub(*reported) >= PROGRESS_INTERVAL {
                    *reported = now;
                    tracing::info!("recovered {done} of {total} logs in {path}");
                }
            }
        };
        host::on_threads(threads.min(total), work);
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.lower_recovery_points(&found, checkpoints);
        if !self.is_online() {
            return Vec::new();
        }
        if stop == Stop::Unclean {
            self.settle_later(&found);
        }
        let took = (options.clock)()
            .monotonic
            .saturating_sub(started.monotonic);
        tracing::info!(
            took_ms = took.as_millis() as u64,
            "recovered {total} of {total} logs in {path}"
        );
        found
    }

    /// Writes the checkpoint anew if a log is shorter than it says: the last process was cutting it.
    /// Else what is appended now would pass for flushed after the next crash.
    fn lower_recovery_points(&self, found: &[Found], checkpoints: &Checkpoints) {
        let current = found.iter().filter(|found| !found.is_future);
        let logs: Vec<_> = current.map(|found| Arc::clone(&found.log)).collect();
        let is_shorter = |log: &Arc<PartitionLog>| {
            log.recovery_point() < offset_of(&checkpoints.recovery_points, log.topic_partition())
        };
        if self.is_online() && logs.iter().any(is_shorter) {
            // The error has taken the directory offline and was logged there.
            let _ = self.write_recovery_points(&logs);
        }
    }

    /// Brings to disk what the last process left behind, for all logs at once and in the background;
    /// each log that is written to before that does it for itself.
    fn settle_later(&self, found: &[Found]) {
        let volume = Arc::clone(&self.volume);
        let logs: Vec<_> = found
            .iter()
            .map(|found| Arc::downgrade(&found.log))
            .collect();
        self.volume.background.run_after(Duration::ZERO, move || {
            let path = volume.path();
            match volume.files().sync_volume(path).describe("flush", path) {
                Ok(()) => logs
                    .iter()
                    .filter_map(std::sync::Weak::upgrade)
                    .for_each(|log| log.settled()),
                Err(error) => drop(volume.fail(error)),
            }
        });
    }

    /// Finds out how the last process ended, and removes its marker before anything is changed.
    fn take_marker(&self) -> Result<Stop, StorageError> {
        let path = self.volume.path().join(CLEAN_SHUTDOWN);
        match self.files().remove_file(&path) {
            Ok(()) => {
                // A marker that came back after a power loss would lie about this run.
                self.files()
                    .sync_directory(self.volume.path())
                    .describe("flush", self.volume.path())?;
                Ok(Stop::Clean)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Stop::Unclean),
            Err(error) => Err(StorageError::new("remove", path, error)),
        }
    }

    fn read_checkpoints(&self) -> Result<Checkpoints, StorageError> {
        let read = |name: &str| {
            let path = self.volume.path().join(name);
            let files = &**self.files();
            if !files.exists(&path).describe("examine", &path)? {
                files
                    .replace(&path, b"", Durability::Written)
                    .describe("create", &path)?;
            }
            checkpoint::read_offsets(files, &path)
        };
        Ok(Checkpoints {
            recovery_points: read(RECOVERY_POINTS)?,
            log_start_offsets: read(LOG_START_OFFSETS)?,
            high_watermarks: read(HIGH_WATERMARKS)?,
            cleaned_offsets: {
                let path = self.volume.path().join(CLEANED_OFFSETS);
                checkpoint::read_offsets(&**self.files(), &path)?
            },
        })
    }

    fn list(&self) -> Result<Vec<String>, StorageError> {
        let path = self.volume.path();
        let entries = self.files().list(path).describe("list", path)?;
        let directories = entries.into_iter().filter(|entry| entry.is_directory);
        Ok(directories.map(|entry| entry.name).collect())
    }

    /// Writes recovery points and log start offsets of the given logs, which are all of the
    /// directory's but for copies in the making.
    pub(crate) fn write_checkpoints(&self, logs: &[Arc<PartitionLog>]) -> Result<(), StorageError> {
        self.write_recovery_points(logs)?;
        self.write_log_start_offsets(logs)?;
        let cleaned: BTreeSet<_> = logs
            .iter()
            .filter(|log| log.cleaned_offset().is_some())
            .map(|log| log.topic_partition().clone())
            .collect();
        // A log of the same name must not pass for cleaned.
        if cleaned != *self.cleaned() {
            self.write_cleaned_offsets(logs)?;
        }
        Ok(())
    }

    /// Whether the checkpoint of the cleaner names a log.
    pub(crate) fn names_cleaned(&self, topic_partition: &TopicPartition) -> bool {
        self.cleaned().contains(topic_partition)
    }

    fn checkpointing(&self) -> MutexGuard<'_, ()> {
        self.checkpointing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn cleaned(&self) -> MutexGuard<'_, BTreeSet<TopicPartition>> {
        self.cleaned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes up to where logs were cleaned.
    pub(crate) fn write_cleaned_offsets(
        &self,
        logs: &[Arc<PartitionLog>],
    ) -> Result<(), StorageError> {
        // Held while the file is written: what is written last is also what is remembered.
        let mut cleaned = self.cleaned();
        let offsets: Vec<_> = logs
            .iter()
            .filter_map(|log| Some((log.topic_partition(), log.cleaned_offset()?)))
            .collect();
        self.write_checkpoint(CLEANED_OFFSETS, offsets.iter().copied())?;
        *cleaned = offsets.into_iter().map(|(log, _)| log.clone()).collect();
        Ok(())
    }

    pub(crate) fn write_recovery_points(
        &self,
        logs: &[Arc<PartitionLog>],
    ) -> Result<(), StorageError> {
        let _checkpointing = self.checkpointing();
        let points: Vec<_> = logs
            .iter()
            .map(|log| (log.topic_partition(), log.recovery_point()))
            .collect();
        self.write_checkpoint(RECOVERY_POINTS, points.iter().copied())?;
        for (log, (_, point)) in logs.iter().zip(&points) {
            log.set_checkpointed_recovery_point(*point);
        }
        Ok(())
    }

    pub(crate) fn write_log_start_offsets(
        &self,
        logs: &[Arc<PartitionLog>],
    ) -> Result<(), StorageError> {
        let _checkpointing = self.checkpointing();
        let starts: Vec<_> = logs
            .iter()
            .filter(|log| log.log_start_offset() > log.first_base_offset())
            .map(|log| (log.topic_partition(), log.log_start_offset()))
            .collect();
        self.write_checkpoint(LOG_START_OFFSETS, starts.into_iter())
    }

    pub(crate) fn write_high_watermarks<'a>(
        &self,
        offsets: impl ExactSizeIterator<Item = (&'a TopicPartition, Offset)>,
    ) -> Result<(), StorageError> {
        let _checkpointing = self.checkpointing();
        self.write_checkpoint(HIGH_WATERMARKS, offsets)
    }

    fn write_checkpoint<'a>(
        &self,
        name: &str,
        offsets: impl ExactSizeIterator<Item = (&'a TopicPartition, Offset)>,
    ) -> Result<(), StorageError> {
        self.volume.check()?;
        let path = self.volume.path().join(name);
        checkpoint::write_offsets(&**self.files(), &path, offsets)
            .map_err(|error| self.volume.fail(error))
    }

    /// Closes the logs and, if all of that went well, leaves the marker that says so.
    pub(crate) fn shutdown(&self, logs: &[Arc<PartitionLog>], current: &[Arc<PartitionLog>]) {
        self.volume.background.close();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let all_closed = std::sync::atomic::AtomicBool::new(true);
        let work = || {
            while let Some(log) = logs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = log.close() {
                    tracing::error!(log = %log.topic_partition(), %error, "cannot close");
                    all_closed.store(false, Ordering::Relaxed);
                }
            }
        };
        host::on_threads(threads.min(logs.len()), work);
        if all_closed.into_inner() && self.is_online() {
            let path = self.volume.path().join(CLEAN_SHUTDOWN);
            let marked = self.write_checkpoints(current).and_then(|()| {
                self.files()
                    .replace(&path, CLEAN_SHUTDOWN_CONTENT, Durability::Synced)
                    .describe("write", &path)
            });
            if let Err(error) = marked {
                tracing::error!(%error, "the next start will have to recover");
            }
        }
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        self.volume.files()
    }
}

fn offset_of(offsets: &BTreeMap<TopicPartition, Offset>, partition: &TopicPartition) -> Offset {
    offsets.get(partition).copied().unwrap_or(0).max(0)
}

/// Removes a directory that was renamed for that, after a while.
pub(crate) fn remove_later(place: Arc<Place>, delay: Duration) {
    let background = Arc::clone(&place.volume.background);
    background.run_after(delay, move || {
        if place.volume.failure().is_some() {
            return;
        }
        let directory = place.directory();
        match place.files().remove_directory(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                place
                    .volume
                    .fail(StorageError::new("remove", &*directory, error));
            }
            _ => tracing::info!(directory = %directory.display(), "removed a deleted log"),
        }
    });
}
