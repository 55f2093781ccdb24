//! All log directories of a broker and the logs in them (Kafka's `LogManager`).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::{Offset, TopicId, TopicPartition};
use barnabas_core::time::Now;
use indexmap::IndexMap;
use tokio::sync::watch;

use super::cleaner::Cleaner;
use super::dir_name::DirName;
use super::error::{LogDirsError, LogError, StorageError};
use super::log_dir::{LogDir, remove_later};
use super::options::LogDirsOptions;
use super::partition_log::PartitionLog;
use super::place::{Keeper, Place};
use super::recovery::{self, LoadRequest, Stop};
use super::relocation::MoveQuota;
use super::types::{DirectoryDescription, ReplicaSize};
use crate::files::Files;
use crate::files::cache::FileCache;
use crate::host;
use crate::metrics::Exposition;

type TopicConfigs = dyn Fn(&str) -> Arc<TopicConfig> + Send + Sync;

/// The log directories of a broker.
pub struct LogManager {
    this: Weak<LogManager>,
    pub(super) options: LogDirsOptions,
    pub(super) dirs: Vec<Arc<LogDir>>,
    pub(super) logs: RwLock<Logs>,
    /// Where a partition shall go when it is created (`AlterReplicaLogDirs` before that).
    preferred: Mutex<HashMap<TopicPartition, PathBuf>>,
    /// Creating and deleting logs goes one after the other.
    pub(super) creation: Mutex<()>,
    topic_config: Box<TopicConfigs>,
    offline: watch::Sender<Vec<PathBuf>>,
    open_files: Arc<FileCache>,
    pub(super) move_quota: MoveQuota,
    pub(super) cleaner: Cleaner,
}

/// The logs by partition, in an order that depends on what was asked for only.
#[derive(Default)]
pub(super) struct Logs {
    pub(super) current: IndexMap<TopicPartition, Arc<PartitionLog>>,
    /// Copies in the making.
    pub(super) future: IndexMap<TopicPartition, Arc<PartitionLog>>,
}

/// Tells the manager what happens in one of its directories.
struct DirKeeper {
    manager: Weak<LogManager>,
    dir: Weak<LogDir>,
}

impl Keeper for DirKeeper {
    fn failed(&self) {
        if let Some(manager) = self.manager.upgrade() {
            manager.publish_offline();
        }
    }

    fn recovery_point_moved(&self) {
        if let (Some(manager), Some(dir)) = (self.manager.upgrade(), self.dir.upgrade()) {
            manager.checkpoint_recovery_points(&dir);
        }
    }

    fn cleaned_offset_lowered(&self) {
        if let (Some(manager), Some(dir)) = (self.manager.upgrade(), self.dir.upgrade()) {
            // The error has taken the directory offline and was logged there.
            let _ = dir.write_cleaned_offsets(&manager.current_logs_in(&dir));
        }
    }
}

impl fmt::Debug for LogManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogManager")
            .field("options", &self.options)
            .field("logs", &self.read_logs().current.len())
            .finish_non_exhaustive()
    }
}

impl LogManager {
    /// Locks the log directories and loads all logs, repairing those that were not closed.
    pub fn open(
        options: LogDirsOptions,
        files: Arc<dyn Files>,
        topic_config: impl Fn(&str) -> Arc<TopicConfig> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, LogDirsError> {
        let topic_config: Box<TopicConfigs> = Box::new(topic_config);
        let open_files = Arc::new(FileCache::new(files, options.open_files));
        let mut dirs = Vec::with_capacity(options.log_dirs.len());
        for path in &options.log_dirs {
            dirs.push(Arc::new(LogDir::open(
                path.clone(),
                &open_files,
                options.clock,
            )?));
        }
        let (offline, _) = watch::channel(Vec::new());
        let mut logs = Logs::default();
        let loaded = host::on_a_thread_each(&dirs, |dir| dir.load(&options, &*topic_config));
        for found in loaded {
            for found in found? {
                let topic_partition = found.log.topic_partition().clone();
                let map = if found.is_future {
                    &mut logs.future
                } else {
                    &mut logs.current
                };
                let second = found.log.directory().to_path_buf();
                if let Some(first) = map.insert(topic_partition.clone(), found.log) {
                    return Err(LogDirsError::Duplicate {
                        topic_partition,
                        first: first.directory().to_path_buf(),
                        second,
                    });
                }
            }
        }
        let manager = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            move_quota: MoveQuota::new(&options),
            cleaner: Cleaner::default(),
            options,
            dirs,
            logs: RwLock::new(logs),
            preferred: Mutex::default(),
            creation: Mutex::default(),
            topic_config,
            offline,
            open_files,
        });
        manager.listen_for_failures();
        if let Some(last) = manager.all_offline() {
            return Err(LogDirsError::AllOffline { last });
        }
        Ok(manager)
    }

    fn listen_for_failures(self: &Arc<Self>) {
        for dir in &self.dirs {
            dir.volume.set_keeper(Arc::new(DirKeeper {
                manager: Arc::downgrade(self),
                dir: Arc::downgrade(dir),
            }));
        }
        self.publish_offline();
    }

    fn publish_offline(&self) {
        let offline: Vec<PathBuf> = self
            .dirs
            .iter()
            .filter(|dir| !dir.is_online())
            .map(|dir| dir.volume.path().to_owned())
            .collect();
        self.offline.send_replace(offline);
    }

    /// The last failure, if no log directory can be used any more.
    pub fn all_offline(&self) -> Option<StorageError> {
        let mut last = None;
        for dir in &self.dirs {
            last = Some(dir.volume.failure()?.clone());
        }
        last
    }

    /// The log directories that are offline, now and whenever another one fails. Once there is no
    /// other left ([`LogManager::all_offline`]) the process has to end.
    pub fn subscribe_failures(&self) -> watch::Receiver<Vec<PathBuf>> {
        self.offline.subscribe()
    }

    /// The log of a partition, if it has one here; it may be in a directory that is offline.
    pub fn log(&self, topic_partition: &TopicPartition) -> Option<Arc<PartitionLog>> {
        self.read_logs().current.get(topic_partition).cloned()
    }

    /// The copy that `AlterReplicaLogDirs` is making of a partition.
    pub fn future_log(&self, topic_partition: &TopicPartition) -> Option<Arc<PartitionLog>> {
        self.read_logs().future.get(topic_partition).cloned()
    }

    /// All logs but copies in the making.
    pub fn all_logs(&self) -> Vec<Arc<PartitionLog>> {
        self.read_logs().current.values().cloned().collect()
    }

    /// The log of a partition, created if there is none: in the directory that was asked for, or
    /// else in that with the fewest logs. While a directory is offline only a partition that
    /// `is_new` gets one, as any other may have its log there.
    #[expect(clippy::needless_pass_by_value, reason = "a new log shares it")]
    pub fn create_log(
        &self,
        topic_partition: &TopicPartition,
        is_new: bool,
        topic_id: Option<TopicId>,
        config: Arc<TopicConfig>,
    ) -> Result<Arc<PartitionLog>, LogError> {
        let _creation = lock(&self.creation);
        let log = match self.log(topic_partition) {
            Some(log) => log,
            None => self.create(topic_partition, is_new, &config)?,
        };
        if let Some(error) = log.failure() {
            return Err(error.into());
        }
        if let Some(topic_id) = topic_id {
            log.assign_topic_id(topic_id)?;
        }
        Ok(log)
    }

    fn create(
        &self,
        topic_partition: &TopicPartition,
        is_new: bool,
        config: &Arc<TopicConfig>,
    ) -> Result<Arc<PartitionLog>, LogError> {
        if !is_new && let Some(offline) = self.dirs.iter().find(|dir| !dir.is_online()) {
            return Err(LogError::LogDirOffline {
                path: offline.volume.path().to_owned(),
            });
        }
        let preferred = lock(&self.preferred).remove(topic_partition);
        let mut last = None;
        for dir in self.dirs_by_load(preferred.as_deref()) {
            if dir.names_cleaned(topic_partition) {
                // A log of the same name that was deleted lately: this one must not pass for cleaned.
                let _ = dir.write_cleaned_offsets(&self.current_logs_in(&dir));
            }
            match self.load_new(&dir, &topic_partition.to_string(), topic_partition, config) {
                Ok(log) => {
                    tracing::info!(
                        log = %topic_partition, log_dir = %dir.volume.path().display(), "created"
                    );
                    self.write_logs()
                        .current
                        .insert(topic_partition.clone(), Arc::clone(&log));
                    return Ok(log);
                }
                Err(error) => last = Some(dir.volume.fail(error)),
            }
        }
        Err(match last {
            Some(error) => error.into(),
            None => LogError::LogDirOffline {
                path: self.options.log_dirs.first().cloned().unwrap_or_default(),
            },
        })
    }

    fn load_new(
        &self,
        dir: &LogDir,
        name: &str,
        topic_partition: &TopicPartition,
        config: &Arc<TopicConfig>,
    ) -> Result<Arc<PartitionLog>, StorageError> {
        let path = dir.volume.path().join(name);
        dir.files()
            .create_directory(&path)
            .map_err(|source| StorageError::new("create", path.clone(), source))?;
        recovery::load(LoadRequest {
            topic_partition: topic_partition.clone(),
            place: Arc::new(Place::new(Arc::clone(&dir.volume), path)),
            config: Arc::clone(config),
            stop: Stop::Clean,
            recovery_point: 0,
            log_start_offset: 0,
            cleaned_offset: 0,
            producer_expiration_ms: self.options.producer_expiration_ms,
            now_ms: self.now().wall_clock_ms,
        })
    }

    /// The directories that are online: the preferred one alone, or those with the fewest logs
    /// first.
    fn dirs_by_load(&self, preferred: Option<&Path>) -> Vec<Arc<LogDir>> {
        let online = || self.dirs.iter().filter(|dir| dir.is_online());
        if let Some(preferred) = preferred
            && let Some(dir) = online().find(|dir| dir.volume.path() == preferred)
        {
            return vec![Arc::clone(dir)];
        }
        let mut dirs: Vec<_> = online().map(Arc::clone).collect();
        if dirs.len() > 1 {
            dirs.sort_by_cached_key(|dir| self.logs_in(dir).len());
        }
        dirs
    }

    /// Deletes the log of a partition and a copy in the making: renamed at once, removed later.
    pub fn delete_log_async(&self, topic_partition: &TopicPartition) -> Result<(), LogError> {
        let _creation = lock(&self.creation);
        lock(&self.preferred).remove(topic_partition);
        let (current, future) = {
            let mut logs = self.write_logs();
            (
                logs.current.swap_remove(topic_partition),
                logs.future.swap_remove(topic_partition),
            )
        };
        for log in [current, future].into_iter().flatten() {
            self.discard(&log)?;
        }
        Ok(())
    }

    /// Renames the directory of a log that is no longer in the maps, and removes it later.
    fn discard(&self, log: &PartitionLog) -> Result<(), LogError> {
        if let Some(error) = log.failure() {
            return Err(error.into());
        }
        let place = log.retire(&DirName::deleted(log.topic_partition()))?;
        if let Some(dir) = self.dir_of(log) {
            // The checkpoints would name a log that is gone until they are next written.
            self.checkpoint_soon(&dir);
        }
        remove_later(place, self.options.segment_delete_delay);
        Ok(())
    }

    /// Writes the checkpoints of a directory once, however many logs are deleted together.
    fn checkpoint_soon(&self, dir: &Arc<LogDir>) {
        if dir.volume.claim_checkpoint() {
            let manager = self.this.clone();
            let dir = Arc::clone(dir);
            let background = Arc::clone(&dir.volume.background);
            background.run_after(Duration::from_millis(100), move || {
                dir.volume.release_checkpoint();
                if let Some(manager) = manager.upgrade() {
                    // The error has taken the directory offline and was logged there.
                    let _ = dir.write_checkpoints(&manager.current_logs_in(&dir));
                }
            });
        }
    }

    /// The high watermark of a partition that was last written to disk.
    pub fn high_watermark_checkpoint(&self, topic_partition: &TopicPartition) -> Option<Offset> {
        self.log(topic_partition)?.checkpointed_high_watermark()
    }

    /// Writes high watermarks to the directories of their logs. Logs that are not named keep what
    /// was last written of them.
    pub fn checkpoint_high_watermarks(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, Offset)>,
    ) {
        for (topic_partition, offset) in offsets {
            if let Some(log) = self.log(&topic_partition) {
                log.set_checkpointed_high_watermark(offset);
            }
        }
        for dir in self.dirs.iter().filter(|dir| dir.is_online()) {
            let logs = self.current_logs_in(dir);
            let offsets: BTreeMap<&TopicPartition, Offset> = logs
                .iter()
                .filter_map(|log| Some((log.topic_partition(), log.checkpointed_high_watermark()?)))
                .collect();
            // The error has taken the directory offline and was logged there.
            let _ = dir.write_high_watermarks(offsets.into_iter());
        }
    }

    /// Writes how long flushes took.
    pub fn write_flush_times(&self, out: &mut Exposition) {
        for dir in &self.dirs {
            let path = dir.volume.path().to_string_lossy();
            let labels = [("logDirectory", path.as_ref())];
            let family = "kafka_log_logflushstats_logflushrateandtimems";
            out.histogram(family, &labels, &dir.volume.flush_times);
        }
    }

    /// The log directories with their logs, as `DescribeLogDirs` reports them.
    pub fn directories(&self) -> Vec<DirectoryDescription> {
        self.dirs.iter().map(|dir| self.describe(dir)).collect()
    }

    fn describe(&self, dir: &Arc<LogDir>) -> DirectoryDescription {
        let path = dir.volume.path().to_owned();
        let space = dir.files().space(&path).ok();
        let bytes =
            |value: Option<u64>| value.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let mut replicas = Vec::new();
        if dir.is_online() {
            let logs = self.read_logs();
            let is_here = |log: &&Arc<PartitionLog>| log.is_in(&dir.volume);
            for log in logs.current.values().filter(is_here) {
                replicas.push(ReplicaSize {
                    topic_partition: log.topic_partition().clone(),
                    size: log.size_in_bytes(),
                    offset_lag: (log.high_watermark() - log.log_end_offset()).max(0),
                    is_future: false,
                });
            }
            for log in logs.future.values().filter(is_here) {
                let current = logs.current.get(log.topic_partition());
                let end = current.map_or(0, |current| current.log_end_offset());
                replicas.push(ReplicaSize {
                    topic_partition: log.topic_partition().clone(),
                    size: log.size_in_bytes(),
                    offset_lag: (end - log.log_end_offset()).max(0),
                    is_future: true,
                });
            }
        }
        replicas.sort_by(|a, b| a.topic_partition.cmp(&b.topic_partition));
        DirectoryDescription {
            path,
            error: dir.volume.failure().cloned(),
            total_bytes: bytes(space.map(|space| space.total_bytes)),
            usable_bytes: bytes(space.map(|space| space.usable_bytes)),
            replicas,
        }
    }

    /// Begins to copy the log of a partition to another log directory, which it then moves to. A
    /// partition without a log here will be created there (and the answer is `UnknownPartition`).
    pub fn move_replica(
        self: &Arc<Self>,
        topic_partition: &TopicPartition,
        log_dir: &Path,
    ) -> Result<(), LogError> {
        let _creation = lock(&self.creation);
        let Some(dir) = self.dirs.iter().find(|dir| dir.volume.path() == log_dir) else {
            return Err(LogError::LogDirNotFound {
                path: log_dir.to_owned(),
            });
        };
        if !dir.is_online() {
            return Err(LogError::LogDirOffline {
                path: log_dir.to_owned(),
            });
        }
        let Some(current) = self.log(topic_partition) else {
            lock(&self.preferred).insert(topic_partition.clone(), log_dir.to_owned());
            return Err(LogError::UnknownPartition {
                topic_partition: topic_partition.clone(),
            });
        };
        if let Some(error) = current.failure() {
            return Err(error.into());
        }
        if let Some(future) = self.future_log(topic_partition) {
            if future.is_in(&dir.volume) {
                return Ok(());
            }
            self.write_logs().future.swap_remove(topic_partition);
            self.discard(&future)?;
            current.resume_cleaning();
        }
        if current.is_in(&dir.volume) {
            return Ok(());
        }
        let name = DirName::future(topic_partition);
        let future = self
            .load_new(dir, &name, topic_partition, &current.config())
            .map_err(|error| dir.volume.fail(error))?;
        current.pause_cleaning();
        if let Some(topic_id) = current.topic_id() {
            future.assign_topic_id(topic_id)?;
        }
        self.write_logs()
            .future
            .insert(topic_partition.clone(), future);
        self.continue_move(topic_partition);
        Ok(())
    }

    /// Gives the logs of a topic another configuration.
    pub fn update_topic_config(&self, topic: &str, config: &Arc<TopicConfig>) {
        let logs = self.read_logs();
        for log in logs.current.values().chain(logs.future.values()) {
            if &*log.topic_partition().topic == topic {
                log.set_config(Arc::clone(config));
            }
        }
    }

    /// Gives every log the configuration that its topic has now, after the broker's defaults
    /// changed.
    pub fn refresh_topic_configs(&self) {
        let logs = self.read_logs();
        for log in logs.current.values().chain(logs.future.values()) {
            log.set_config((self.topic_config)(&log.topic_partition().topic));
        }
    }

    /// Closes all logs and leaves the clean shutdown markers; releases the locks.
    pub fn shutdown(&self) {
        self.cleaner.stop();
        host::on_a_thread_each(&self.dirs, |dir| {
            dir.shutdown(&self.logs_in(dir), &self.current_logs_in(dir));
        });
    }

    /// How many segment files are open.
    pub fn open_files(&self) -> usize {
        self.open_files.open_files()
    }

    pub(super) fn logs_in(&self, dir: &Arc<LogDir>) -> Vec<Arc<PartitionLog>> {
        let logs = self.read_logs();
        let all = logs.current.values().chain(logs.future.values());
        all.filter(|log| log.is_in(&dir.volume)).cloned().collect()
    }

    pub(super) fn current_logs_in(&self, dir: &Arc<LogDir>) -> Vec<Arc<PartitionLog>> {
        let logs = self.read_logs();
        let mut here: Vec<_> = logs
            .current
            .values()
            .filter(|log| log.is_in(&dir.volume))
            .cloned()
            .collect();
        here.sort_by(|a, b| a.topic_partition().cmp(b.topic_partition()));
        here
    }

    pub(super) fn dir_of(&self, log: &PartitionLog) -> Option<Arc<LogDir>> {
        self.dirs.iter().find(|dir| log.is_in(&dir.volume)).cloned()
    }

    pub(super) fn now(&self) -> Now {
        (self.options.clock)()
    }

    pub(super) fn segment_delete_delay(&self) -> Duration {
        self.options.segment_delete_delay
    }

    pub(super) fn read_logs(&self) -> RwLockReadGuard<'_, Logs> {
        self.logs.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write_logs(&self) -> RwLockWriteGuard<'_, Logs> {
        self.logs.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
