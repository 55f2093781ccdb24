//! Work that a log does later: flushing what was rolled, removing deleted files, timers.
//!
//! One thread per log directory, so that a slow disk holds up only itself; on a simulated machine, a
//! task. Without either (in tests) jobs wait until `run_until` is called.

use std::collections::BinaryHeap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use crate::host;

type Job = Box<dyn FnOnce() + Send>;
type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// A queue of jobs, each with a moment before which it must not run.
pub(crate) struct Background {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// What a task waits for in place of `changed`.
    changed_for_task: Notify,
    clock: Clock,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    jobs: BinaryHeap<Scheduled>,
    sequence: u64,
    is_closed: bool,
}

struct Scheduled {
    due: Duration,
    sequence: u64,
    job: Job,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.sequence) == (other.due, other.sequence)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// Reversed: the heap gives the greatest first, and that shall be the earliest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.sequence).cmp(&(self.due, self.sequence))
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background")
            .field("jobs", &self.queue().jobs.len())
            .finish_non_exhaustive()
    }
}

impl Background {
    /// A queue whose jobs run when `run_until` says so.
    pub(crate) fn manual(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            changed: Condvar::new(),
            changed_for_task: Notify::new(),
            clock: Box::new(clock),
            thread: Mutex::new(None),
        })
    }

    /// A queue with a thread of its own; `clock` is monotonic.
    pub(crate) fn start(
        name: &str,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let background = Self::manual(clock);
        let worker = Arc::clone(&background);
        if host::is_simulated() {
            host::spawn(async move { worker.work_in_task().await });
            return Ok(background);
        }
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || worker.work())?;
        *background.thread() = Some(thread);
        Ok(background)
    }

    /// Runs `job` once `delay` has passed; never after [`Background::close`].
    pub(crate) fn run_after(&self, delay: Duration, job: impl FnOnce() + Send + 'static) {
        let due = (self.clock)().saturating_add(delay);
        let mut queue = self.queue();
        if queue.is_closed {
            return;
        }
        let sequence = queue.sequence;
        queue.sequence += 1;
        queue.jobs.push(Scheduled {
            due,
            sequence,
            job: Box::new(job),
        });
        self.changed.notify_one();
        self.changed_for_task.notify_one();
    }

    /// Runs every job that is due at `until`, and those which they add and are due too.
    pub(crate) fn run_until(&self, until: Duration) {
        loop {
            let job = {
                let mut queue = self.queue();
                match queue.jobs.peek() {
                    Some(next) if next.due <= until => queue.jobs.pop(),
                    _ => None,
                }
            };
            match job {
                Some(scheduled) => (scheduled.job)(),
                None => return,
            }
        }
    }

    /// Drops waiting jobs; the one that runs is the last.
    pub(crate) fn end(&self) {
        {
            let mut queue = self.queue();
            queue.is_closed = true;
            queue.jobs.clear();
        }
        self.changed.notify_all();
        self.changed_for_task.notify_one();
    }

    /// Whether the thread that was told to end has done so.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread()
            .as_ref()
            .is_none_or(std::thread::JoinHandle::is_finished)
    }

    /// Drops waiting jobs and waits for the one that runs.
    pub(crate) fn close(&self) {
        self.end();
        let thread = self.thread().take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("a background job of a log directory panicked");
        }
    }

    fn work(&self) {
        let mut queue = self.queue();
        while !queue.is_closed {
            let now = (self.clock)();
            let wait = queue.jobs.peek().map(|next| next.due.saturating_sub(now));
            queue = match wait {
                None => self
                    .changed
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    let next = queue.jobs.pop();
                    drop(queue);
                    if let Some(scheduled) = next {
                        (scheduled.job)();
                    }
                    self.queue()
                }
                Some(wait) => {
                    self.changed
                        .wait_timeout(queue, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    async fn work_in_task(&self) {
        loop {
            self.run_until((self.clock)());
            let due = {
                let queue = self.queue();
                if queue.is_closed {
                    return;
                }
                queue.jobs.peek().map(|next| next.due)
            };
            let wait = async {
                match due {
                    Some(due) => {
                        tokio::time::sleep(due.saturating_sub((self.clock)())).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.changed_for_task.notified() => {}
                () = wait => {}
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
