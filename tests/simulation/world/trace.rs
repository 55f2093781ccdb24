//! What happened: counted, hashed, and the last of it kept for the day it is wanted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_broker::host;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// How many events a failure shows.
const SHOWN: usize = 80;

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static STARTED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Keeps what panics say. A panic within a task of a broker would go unnoticed: tokio catches it.
pub(crate) fn catch_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.to_string();
            PANICS.with_borrow_mut(|panics| panics.push(text));
            before(panic);
        }));
    });
}

/// Prints what brokers log, with the time of their world and the name of their machine.
pub(crate) fn print_logs(level: &str) {
    struct Clock;
    impl FormatTime for Clock {
        fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
            let started = STARTED
                .get()
                .map_or_else(Duration::default, |at| at.elapsed());
            let name = host::simulated_name().unwrap_or_default();
            write!(writer, "{:10.3} [{name}]", started.as_secs_f64())
        }
    }
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    // A second world in the same process finds it set.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_timer(Clock)
        .with_ansi(false)
        .with_writer(std::io::stdout)
        .try_init();
}

/// The events of one world.
pub(crate) struct Trace {
    started: Instant,
    state: Mutex<State>,
    failed: Notify,
    /// Every event is printed as it happens.
    is_loud: bool,
}

struct State {
    events: u64,
    hash: u64,
    recent: VecDeque<String>,
    violation: Option<String>,
}

impl Trace {
    pub(crate) fn new(is_loud: bool) -> Arc<Self> {
        PANICS.with_borrow_mut(Vec::clear);
        STARTED.set(Some(Instant::now()));
        Arc::new(Self {
            started: Instant::now(),
            state: Mutex::new(State {
                events: 0,
                hash: 0xcbf2_9ce4_8422_2325,
                recent: VecDeque::new(),
                violation: None,
            }),
            failed: Notify::new(),
            is_loud,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Something happened.
    pub(crate) fn note(&self, text: &str) {
        let at = self.started.elapsed();
        let line = format!("{:10.3} {text}", at.as_secs_f64());
        if self.is_loud {
            println!("{line}");
        }
        let mut state = self.state();
        state.events += 1;
        for byte in line.bytes() {
            state.hash = (state.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if state.recent.len() == SHOWN {
            state.recent.pop_front();
        }
        state.recent.push_back(line);
        drop(state);
        let panic = PANICS.with_borrow_mut(Vec::pop);
        if let Some(panic) = panic {
            self.violated(&format!("NothingPanics: {panic}"));
        }
    }

    /// An invariant does not hold. The first one counts.
    pub(crate) fn violated(&self, what: &str) {
        let is_first = self.state().violation.is_none();
        if is_first {
            let line = format!("VIOLATION {what}");
            self.state().violation = Some(what.to_owned());
            self.note(&line);
            self.failed.notify_one();
        }
    }

    /// Ends when something was violated.
    pub(crate) async fn failure(&self) {
        self.failed.notified().await;
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    pub(crate) fn events(&self) -> u64 {
        self.state().events
    }

    pub(crate) fn hash(&self) -> u64 {
        self.state().hash
    }

    /// The last events, oldest first.
    pub(crate) fn recent(&self) -> Vec<String> {
        self.state().recent.iter().cloned().collect()
    }
}
