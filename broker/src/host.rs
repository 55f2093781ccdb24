//! What a broker runs on: tasks, threads, randomness, the end of the process.
//!
//! In production that is the process. In simulation everything that a broker does runs within the scope of a
//! [`SimulatedHost`]: its tasks die with it, blocking work is done at once on the one thread there is, and clock
//! and chance depend on nothing but a seed. The shell therefore starts tasks, threads and random numbers here.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_core::time::Now;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::{AbortHandle, JoinError, JoinHandle};

tokio::task_local! {
    static HOST: Arc<SimulatedHost>;
}

/// A machine in a simulated world, from the start of a broker to its end.
#[derive(Debug)]
pub struct SimulatedHost {
    name: String,
    booted: tokio::time::Instant,
    /// Monotonic time at boot, which differs from machine to machine.
    uptime_at_boot: Duration,
    /// What the wall clock shows beyond the time since boot.
    wall_clock_offset_ms: AtomicI64,
    random: Mutex<StdRng>,
    tasks: Mutex<Vec<AbortHandle>>,
    is_dead: AtomicBool,
    has_exited: AtomicBool,
}

impl SimulatedHost {
    /// A machine whose wall clock shows `wall_clock_ms` now. To be called within a runtime.
    pub fn boot(name: &str, seed: u64, wall_clock_ms: i64) -> Arc<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        Arc::new(Self {
            name: name.to_owned(),
            booted: tokio::time::Instant::now(),
            uptime_at_boot: Duration::from_millis(random.random_range(0..10_000_000)),
            wall_clock_offset_ms: AtomicI64::new(wall_clock_ms),
            random: Mutex::new(random),
            tasks: Mutex::default(),
            is_dead: AtomicBool::new(false),
            has_exited: AtomicBool::new(false),
        })
    }

    /// Lets `future` happen on this machine.
    pub fn run<F: Future>(self: &Arc<Self>, future: F) -> impl Future<Output = F::Output> + use<F> {
        HOST.scope(Arc::clone(self), future)
    }

    /// Starts a task on this machine.
    pub fn spawn<F>(self: &Arc<Self>, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let task = tokio::spawn(self.run(future));
        let mut tasks = lock(&self.tasks);
        if self.is_dead() {
            task.abort();
        } else {
            if tasks.len() >= 64 && tasks.len() == tasks.capacity() {
                tasks.retain(|task| !task.is_finished());
            }
            tasks.push(task.abort_handle());
        }
        task
    }

    /// Ends all tasks; nothing of them runs any more but what drops them.
    pub fn kill(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst)
    }

    /// Whether the broker has ended its process.
    pub fn has_exited(&self) -> bool {
        self.has_exited.load(Ordering::SeqCst)
    }

    /// Sets the wall clock forward, or back. The monotonic clock goes on.
    pub fn shift_wall_clock(&self, by_ms: i64) {
        self.wall_clock_offset_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// The present moment on this machine's clocks.
    pub fn now(&self) -> Now {
        let since_boot = self.booted.elapsed();
        let offset_ms = self.wall_clock_offset_ms.load(Ordering::SeqCst);
        Now {
            monotonic: self.uptime_at_boot + since_boot,
            wall_clock_ms: offset_ms + since_boot.as_millis() as i64,
        }
    }
}

/// The time of the machine, if it is a simulated one.
pub(crate) fn simulated_now() -> Option<Now> {
    HOST.try_with(|host| host.now()).ok()
}

/// The name of the simulated machine that this runs on.
pub fn simulated_name() -> Option<String> {
    HOST.try_with(|host| host.name.clone()).ok()
}

/// Whether this runs on a simulated machine.
pub(crate) fn is_simulated() -> bool {
    HOST.try_with(|_| ()).is_ok()
}

/// Starts a task of this broker.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match HOST.try_with(Arc::clone) {
        Ok(host) => host.spawn(future),
        Err(_) => tokio::spawn(future),
    }
}

/// Does work that may wait for a disk, without holding up the tasks of this thread.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if is_simulated() {
        Ok(work())
    } else {
        tokio::task::spawn_blocking(work).await
    }
}

/// Does the same work on up to `threads` threads, this one among them; the work shares out what there is to do.
pub fn on_threads(threads: usize, work: impl Fn() + Sync) {
    if is_simulated() {
        return work();
    }
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(&work);
        }
        work();
    });
}

/// Applies `work` to all items at once, each on a thread of its own, and returns the results in order.
pub fn on_a_thread_each<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    if is_simulated() {
        return items.iter().map(work).collect();
    }
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items
            .iter()
            .map(|item| scope.spawn(move || work(item)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, T>| {
            thread.join().expect("a panic ends the process")
        };
        threads.into_iter().map(join).collect()
    })
}

/// A source of chance.
pub fn random() -> StdRng {
    let simulated = HOST.try_with(|host| StdRng::from_rng(&mut *lock(&host.random)));
    simulated.unwrap_or_else(|_| StdRng::from_rng(&mut rand::rng()))
}

/// Ends the process of this broker.
pub async fn exit(code: i32) -> Infallible {
    if HOST
        .try_with(|host| host.has_exited.store(true, Ordering::SeqCst))
        .is_err()
    {
        std::process::exit(code);
    }
    std::future::pending().await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_die_with_their_machine_and_those_that_they_started() {
        let host = SimulatedHost::boot("a", 1, 1_000);
        let alive = Arc::new(());
        let task = host.spawn({
            let alive = alive.clone();
            async move {
                let inner = alive.clone();
                spawn(async move {
                    std::future::pending::<()>().await;
                    drop(inner);
                });
                std::future::pending::<()>().await;
                drop(alive);
            }
        });
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&alive), 3);
        host.kill();
        assert!(task.await.unwrap_err().is_cancelled());
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[tokio::test]
    async fn chance_and_time_depend_on_the_seed() {
        let draw = |seed| async move {
            let host = SimulatedHost::boot("a", seed, 1_000);
            host.shift_wall_clock(-100);
            host.run(async { (random().random::<u64>(), crate::clock::now().wall_clock_ms) })
                .await
        };
        assert_eq!(draw(1).await, draw(1).await);
        assert_ne!(draw(1).await.0, draw(2).await.0);
        assert!((900..1_000).contains(&draw(1).await.1));
    }
}
