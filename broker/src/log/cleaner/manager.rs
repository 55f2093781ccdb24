//! Which log is cleaned when, and by how many threads (Kafka's `LogCleaner` and `LogCleanerManager`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use barnabas_core::compaction::{Cleanable, is_due};
use barnabas_core::config::{BrokerConfig, TopicConfig};
use barnabas_core::ids::TopicPartition;

use super::CleanError;
use super::clean::{Cleaning, Settings, find_cleanable};
use super::throttle::Throttle;
use crate::log::background::Background;
use crate::log::log_dirs::LogManager;
use crate::log::partition_log::PartitionLog;

/// The longest pause of a throttled cleaner before it looks whether to give up.
const PAUSE_MAX: Duration = Duration::from_millis(300);

/// Cleaning as the configuration asks for it.
#[derive(Clone, Copy, Debug)]
struct Options {
    threads: usize,
    settings: Settings,
    bytes_per_second: f64,
    backoff: Duration,
}

/// The cleaners of a broker.
#[derive(Debug, Default)]
pub(in crate::log) struct Cleaner {
    /// None until the configuration is known, and if it wants no cleaning.
    options: Mutex<Option<Options>>,
    threads: Mutex<Vec<Arc<Background>>>,
    /// Logs that are being cleaned.
    busy: Mutex<BTreeSet<TopicPartition>>,
    /// Logs that cannot be cleaned until the broker starts again.
    uncleanable: Mutex<BTreeSet<TopicPartition>>,
    throttle: Throttle,
    is_stopping: AtomicBool,
}

impl Cleaner {
    /// Ends cleaning and waits for that.
    pub(in crate::log) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            thread.close();
        }
    }

    /// Notes bytes that were read or written, and waits if there were too many; returns whether to
    /// give up.
    fn pace(&self, bytes: u64, now: Duration) -> bool {
        let Some(options) = *lock(&self.options) else {
            return true;
        };
        let mut wait = self.throttle.note(bytes, options.bytes_per_second, now);
        while !wait.is_zero() && !self.is_stopping() && !crate::host::is_simulated() {
            let pause = wait.min(PAUSE_MAX);
            std::thread::sleep(pause);
            wait -= pause;
        }
        self.is_stopping()
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }
}

impl LogManager {
    /// Cleans compacted logs as the configuration says now; begins with it if need be.
    pub fn configure_cleaner(self: &Arc<Self>, config: &BrokerConfig) {
        if !config.log_cleaner_enable {
            return;
        }
        let threads = config.log_cleaner_threads.max(1) as usize;
        let dedupe_bytes = config.log_cleaner_dedupe_buffer_size.max(0) as usize;
        *lock(&self.cleaner.options) = Some(Options {
            threads,
            settings: Settings {
                map_bytes: (dedupe_bytes / threads).min(i32::MAX as usize),
                load_factor: config.log_cleaner_io_buffer_load_factor,
            },
            bytes_per_second: config.log_cleaner_io_max_bytes_per_second,
            backoff: Duration::from_millis(config.log_cleaner_backoff_ms.max(1) as u64),
        });
        let mut running = lock(&self.cleaner.threads);
        while running.len() < threads && !self.cleaner.is_stopping() {
            let index = running.len();
            let clock = self.options.clock;
            match Background::start(&format!("log-cleaner-{index}"), move || clock().monotonic) {
                Ok(thread) => {
                    self.clean_after(Duration::ZERO, index, &thread);
                    running.push(thread);
                }
                Err(error) => {
                    tracing::error!(%error, "cannot start a thread that cleans logs");
                    return;
                }
            }
        }
    }

    fn clean_after(self: &Arc<Self>, delay: Duration, index: usize, thread: &Arc<Background>) {
        let manager = Arc::downgrade(self);
        let again: Weak<Background> = Arc::downgrade(thread);
        thread.run_after(delay, move || {
            let (Some(manager), Some(thread)) = (manager.upgrade(), again.upgrade()) else {
                return;
            };
            let Some(options) = *lock(&manager.cleaner.options) else {
                return;
            };
            let has_cleaned = index < options.threads && manager.clean_dirtiest(options.settings);
            let delay = if has_cleaned {
                Duration::ZERO
            } else {
                options.backoff
            };
            manager.clean_after(delay, index, &thread);
        });
    }

    /// Cleans the log that needs it most; returns whether there was one.
    fn clean_dirtiest(&self, settings: Settings) -> bool {
        let now_ms = self.now().wall_clock_ms;
        let Some((log, config, cleanable)) = self.choose(now_ms) else {
            return false;
        };
        let pace = |bytes| self.cleaner.pace(bytes, self.now().monotonic);
        let cleaning = Cleaning::new(&log, config, cleanable, settings, now_ms, &pace);
        let result = cleaning.run();
        lock(&self.cleaner.busy).remove(log.topic_partition());
        match result {
            Ok(stats) => {
                tracing::info!(
                    log = %log.topic_partition(), end_offset = stats.end_offset,
                    bytes_read = stats.bytes_read, bytes_written = stats.bytes_written,
                    map_utilization = stats.map_utilization, "cleaned"
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
    fn choose(&self, now_ms: i64) -> Option<(Arc<PartitionLog>, Arc<TopicConfig>, Cleanable)> {
        let mut busy = lock(&self.cleaner.busy);
        let mut dirtiest: Option<(Arc<PartitionLog>, Arc<TopicConfig>, Cleanable)> = None;
        for log in self.all_logs() {
            let config = log.config();
            if !config.cleanup_policy.compact
                || log.failure().is_some()
                || busy.contains(log.topic_partition())
                || lock(&self.cleaner.uncleanable).contains(log.topic_partition())
            {
                continue;
            }
            match find_cleanable(&log, &config, now_ms) {
                Ok(found) => {
                    let best = dirtiest.as_ref().map_or(-1.0, |(.., best)| best.ratio());
                    if is_due(&found, &config) && found.ratio() > best {
                        dirtiest = Some((log, config, found));
                    }
                }
                Err(error) => self.note_failure(&log, error),
            }
        }
        if let Some((log, ..)) = &dirtiest {
            busy.insert(log.topic_partition().clone());
        }
        dirtiest
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
                lock(&self.cleaner.uncleanable).insert(log.topic_partition().clone());
            }
            CleanError::Storage(error) => {
                log.volume().fail(error);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
