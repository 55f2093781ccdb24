//! Which log is cleaned when, and by how many threads (Kafka's `LogCleaner` and `LogCleanerManager`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_core::compaction::{Cleanable, is_due};
use barnabas_core::config::{BrokerConfig, TopicConfig};
use barnabas_core::ids::TopicPartition;

use super::CleanError;
use super::clean::{Cleaning, Settings, Stats, find_cleanable};
use super::throttle::Throttle;
use crate::log::background::Background;
use crate::log::log_dirs::LogManager;
use crate::log::partition_log::PartitionLog;
use crate::log::periodic::delete_old_segments_of;

/// The longest pause of a throttled cleaner before it looks whether to give up.
const PAUSE_MAX: Duration = Duration::from_millis(300);

/// Cleaning as the configuration asks for it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Options {
    threads: usize,
    settings: Settings,
    backoff: Duration,
}

impl Options {
    fn of(config: &BrokerConfig) -> Self {
        let threads = config.log_cleaner_threads.max(1) as usize;
        // Kafka's arrays have no more either.
        let share = |bytes: i64| {
            let bytes = bytes.max(0) as usize / threads;
            bytes.min(i32::MAX as usize)
        };
        let dedupe_bytes = config.log_cleaner_dedupe_buffer_size;
        if dedupe_bytes / threads as i64 > i64::from(i32::MAX) {
            tracing::warn!(
                "cleaners use 2 GiB per thread at most: the rest of log.cleaner.dedupe.buffer.size is ignored"
            );
        }
        Self {
            threads,
            settings: Settings {
                map_bytes: share(dedupe_bytes),
                load_factor: config.log_cleaner_io_buffer_load_factor,
                // One half to read with, one to write with.
                io_bytes: share(config.log_cleaner_io_buffer_size.into()) / 2,
            },
            backoff: Duration::from_millis(config.log_cleaner_backoff_ms.max(1) as u64),
        }
    }
}

/// The cleaners of a broker.
#[derive(Debug, Default)]
pub(in crate::log) struct Cleaner {
    /// Those that run, and as what; none until the configuration is known, and if it wants no cleaning.
    crew: Mutex<Option<Crew>>,
    /// Threads that were told to end.
    retired: Mutex<Vec<Arc<Worker>>>,
    /// Logs that are being cleaned, or looked at for what retention wants gone.
    busy: Mutex<BTreeSet<TopicPartition>>,
    /// `log.cleaner.io.max.bytes.per.second`, as the bits of a floating point number.
    bytes_per_second: AtomicU64,
    throttle: Throttle,
    is_stopping: AtomicBool,
    pub(super) last_look: Mutex<LastLook>,
}

/// What the last choice of a log saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastLook {
    /// Wall clock, in milliseconds.
    pub(super) at_ms: i64,
    /// Of the dirtiest log, 0 to 1.
    pub(super) ratio: f64,
}

#[derive(Debug)]
struct Crew {
    options: Options,
    workers: Vec<Arc<Worker>>,
}

/// A thread that cleans.
#[derive(Debug)]
pub(super) struct Worker {
    thread: Arc<Background>,
    is_ended: AtomicBool,
    pub(super) last: Mutex<LastCleaning>,
}

/// What a thread did last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastCleaning {
    pub(super) stats: Stats,
    pub(super) took: Duration,
    /// By how much `max.compaction.lag.ms` was exceeded where that is longest, before the cleaning.
    pub(super) overdue_ms: i64,
}

impl Cleaner {
    /// Ends cleaning and waits for that.
    pub(in crate::log) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        let crew = lock(&self.crew).take();
        let retired = std::mem::take(&mut *lock(&self.retired));
        for worker in crew
            .into_iter()
            .flat_map(|crew| crew.workers)
            .chain(retired)
        {
            worker.thread.close();
        }
    }

    /// Notes bytes that were read or written, and waits if there were too many; returns whether to
    /// give up.
    fn pace(&self, worker: &Worker, bytes: u64, now: Duration) -> bool {
        let bytes_per_second = f64::from_bits(self.bytes_per_second.load(Ordering::Relaxed));
        let mut wait = self.throttle.note(bytes, bytes_per_second, now);
        while !wait.is_zero() && !self.has_ended(worker) && !crate::host::is_simulated() {
            let pause = wait.min(PAUSE_MAX);
            std::thread::sleep(pause);
            wait -= pause;
        }
        self.has_ended(worker)
    }

    fn has_ended(&self, worker: &Worker) -> bool {
        worker.is_ended.load(Ordering::Acquire) || self.is_stopping()
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// How many threads there are to be, and those that there are.
    pub(super) fn workers(&self) -> (usize, Vec<Arc<Worker>>) {
        let crew = lock(&self.crew);
        crew.as_ref().map_or((0, Vec::new()), |crew| {
            (crew.options.threads, crew.workers.clone())
        })
    }
}

impl LogManager {
    /// Cleans compacted logs as the configuration says now; begins with it if need be. Threads whose
    /// settings change give up what they clean and are replaced, as in Kafka.
    pub fn configure_cleaner(self: &Arc<Self>, config: &BrokerConfig) {
        if !config.log_cleaner_enable {
            return;
        }
        let cleaner = &self.cleaner;
        let bytes_per_second = config.log_cleaner_io_max_bytes_per_second.to_bits();
        cleaner
            .bytes_per_second
            .store(bytes_per_second, Ordering::Relaxed);
        let options = Options::of(config);
        let mut crew = lock(&cleaner.crew);
        if cleaner.is_stopping() || crew.as_ref().is_some_and(|crew| crew.options == options) {
            return;
        }
        if let Some(old) = crew.take() {
            tracing::info!(?options, "the cleaner begins anew");
            let mut retired = lock(&cleaner.retired);
            retired.retain(|worker| !worker.thread.has_ended());
            for worker in old.workers {
                worker.is_ended.store(true, Ordering::Release);
                worker.thread.end();
                retired.push(worker);
            }
        }
        let mut workers = Vec::with_capacity(options.threads);
        for index in 0..options.threads {
            let clock = self.options.clock;
            match Background::start(&format!("log-cleaner-{index}"), move || clock().monotonic) {
                Ok(thread) => {
                    let worker = Arc::new(Worker {
                        thread,
                        is_ended: AtomicBool::new(false),
                        last: Mutex::default(),
                    });
                    self.work_after(Duration::ZERO, options, &worker);
                    workers.push(worker);
                }
                Err(error) => {
                    tracing::error!(%error, "cannot start a thread that cleans logs");
                }
            }
        }
        *crew = Some(Crew { options, workers });
    }

    /// Whether compacted logs are cleaned, which includes that retention is applied to them.
    pub(in crate::log) fn cleans(&self) -> bool {
        lock(&self.cleaner.crew).is_some()
    }

    fn work_after(self: &Arc<Self>, delay: Duration, options: Options, worker: &Arc<Worker>) {
        let manager = Arc::downgrade(self);
        let again = Arc::downgrade(worker);
        worker.thread.run_after(delay, move || {
            let (Some(manager), Some(worker)) = (manager.upgrade(), again.upgrade()) else {
                return;
            };
            let has_cleaned = manager.clean_dirtiest(&worker, options.settings);
            manager.apply_retention(&worker);
            let delay = if has_cleaned {
                Duration::ZERO
            } else {
                options.backoff
            };
            manager.work_after(delay, options, &worker);
        });
    }

    /// Cleans the log that needs it most; returns whether there was one.
    fn clean_dirtiest(&self, worker: &Worker, settings: Settings) -> bool {
        let began = self.now();
        let Some((log, config, cleanable)) = self.choose(worker, began.wall_clock_ms) else {
            return false;
        };
        let pace = |bytes| self.cleaner.pace(worker, bytes, self.now().monotonic);
        let now_ms = began.wall_clock_ms;
        let cleaning = Cleaning::new(&log, config, cleanable, settings, now_ms, &pace);
        let result = cleaning.run();
        lock(&self.cleaner.busy).remove(log.topic_partition());
        match result {
            Ok(stats) => {
                let took = self.now().monotonic.saturating_sub(began.monotonic);
                let mut last = lock(&worker.last);
                (last.stats, last.took) = (stats, took);
                drop(last);
                tracing::info!(
                    log = %log.topic_partition(), end_offset = stats.end_offset,
                    bytes_read = stats.bytes_read, bytes_written = stats.bytes_written,
                    map_utilization = stats.map_utilization, took_ms = took.as_millis() as u64,
                    "cleaned"
                );
                if let Some(dir) = self.dir_of(&log) {
                    // The error has taken the directory offline and was logged there.
                    let _ = dir.write_cleaned_offsets(&self.current_logs_in(&dir));
                }
                true
            }
            Err(error) => {
                self.note_failure(&log, error);
                false
            }
        }
    }

    /// The dirtiest of the logs that have to be cleaned; it is busy from now on.
    fn choose(
        &self,
        worker: &Worker,
        now_ms: i64,
    ) -> Option<(Arc<PartitionLog>, Arc<TopicConfig>, Cleanable)> {
        let mut busy = lock(&self.cleaner.busy);
        let mut dirtiest: Option<(Arc<PartitionLog>, Arc<TopicConfig>, Cleanable)> = None;
        let mut look = LastLook {
            at_ms: now_ms,
            ratio: 0.0,
        };
        let mut overdue_ms = 0;
        for log in self.all_logs() {
            let config = log.config();
            if !config.cleanup_policy.compact
                || log.failure().is_some()
                || log.is_uncleanable()
                || log.cleaning_is_paused()
                || busy.contains(log.topic_partition())
            {
                continue;
            }
            match find_cleanable(&log, &config, now_ms) {
                Ok(found) => {
                    look.ratio = found.ratio().max(look.ratio);
                    overdue_ms = found.overdue_ms.max(overdue_ms);
                    let best = dirtiest.as_ref().map_or(-1.0, |(.., best)| best.ratio());
                    if is_due(&found, &config) && found.ratio() > best {
                        dirtiest = Some((log, config, found));
                    }
                }
                Err(error) => self.note_failure(&log, error),
            }
        }
        *lock(&self.cleaner.last_look) = look;
        lock(&worker.last).overdue_ms = overdue_ms;
        if let Some((log, ..)) = &dirtiest {
            busy.insert(log.topic_partition().clone());
        }
        dirtiest
    }

    /// Deletes segments of compacted logs that nobody cleans now, where the policy, or a log start
    /// offset that has moved, wants that.
    fn apply_retention(&self, worker: &Worker) {
        for log in self.all_logs() {
            if self.cleaner.has_ended(worker) {
                return;
            }
            let is_mine = log.config().cleanup_policy.compact
                && log.failure().is_none()
                && lock(&self.cleaner.busy).insert(log.topic_partition().clone());
            if is_mine {
                if !log.is_closed() {
                    delete_old_segments_of(&log, self.now().wall_clock_ms);
                }
                lock(&self.cleaner.busy).remove(log.topic_partition());
            }
        }
    }

    fn note_failure(&self, log: &Arc<PartitionLog>, error: CleanError) {
        // Files of a log that is deleted go while it is looked at.
        let is_current = self
            .log(log.topic_partition())
            .is_some_and(|current| Arc::ptr_eq(&current, log));
        match error {
            CleanError::Aborted => {}
            _ if !is_current || log.is_closed() => {}
            CleanError::Corrupt(reason) => {
                tracing::error!(log = %log.topic_partition(), %reason, "the log cannot be cleaned");
                log.set_uncleanable();
            }
            CleanError::Storage(error) => {
                log.volume().fail(error);
            }
        }
    }
}

#[cfg(test)]
impl LogManager {
    /// What a thread does in one round; returns whether a log was cleaned.
    pub(super) fn clean_once(&self, config: &BrokerConfig) -> bool {
        let cleaner = &self.cleaner;
        let bytes_per_second = config.log_cleaner_io_max_bytes_per_second.to_bits();
        cleaner
            .bytes_per_second
            .store(bytes_per_second, Ordering::Relaxed);
        let worker = Worker {
            thread: Background::manual(|| Duration::ZERO),
            is_ended: AtomicBool::new(false),
            last: Mutex::default(),
        };
        let has_cleaned = self.clean_dirtiest(&worker, Options::of(config).settings);
        self.apply_retention(&worker);
        has_cleaned
    }

    pub(super) fn cleaning_threads(&self) -> usize {
        self.cleaner.workers().1.len()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
