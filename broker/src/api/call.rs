//! One request on its way through its handler: how long it keeps this broker busy, and how long its client has to
//! wait afterwards.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use crate::metrics::RequestTimes;

/// What is measured of a request while it is handled. Only its own task looks at it.
#[derive(Debug)]
pub struct Call {
    /// Size of the request, header included.
    request_bytes: usize,
    started: Instant,
    /// Nanoseconds of the polls that are over.
    busy_ns: AtomicU64,
    /// When the present poll began, in nanoseconds since the start.
    poll_began_ns: AtomicU64,
    throttle_ms: AtomicU32,
    is_charged: AtomicBool,
}

impl Call {
    /// A request that is taken in hand now.
    pub fn new(request_bytes: usize) -> Self {
        Self {
            request_bytes,
            started: Instant::now(),
            busy_ns: AtomicU64::new(0),
            poll_began_ns: AtomicU64::new(0),
            throttle_ms: AtomicU32::new(0),
            is_charged: AtomicBool::new(false),
        }
    }

    /// Size of the request, header included.
    pub fn request_bytes(&self) -> usize {
        self.request_bytes
    }

    fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long the request has kept this broker busy so far. Waiting for others does not count.
    pub fn busy(&self) -> Duration {
        let began = self.poll_began_ns.load(Ordering::Relaxed);
        let present = self.elapsed_ns().saturating_sub(began);
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed) + present)
    }

    /// The client has to wait for so many milliseconds, or longer if something else says so.
    pub fn throttle(&self, throttle_ms: u32) {
        if throttle_ms > 0 {
            self.throttle_ms.fetch_max(throttle_ms, Ordering::Relaxed);
        }
    }

    /// For how many milliseconds the client has to wait.
    pub fn throttle_ms(&self) -> u32 {
        self.throttle_ms.load(Ordering::Relaxed)
    }

    /// The time of this request counts against a quota.
    pub fn charge(&self) {
        self.is_charged.store(true, Ordering::Relaxed);
    }

    /// Whether the time of this request counts against a quota.
    pub fn is_charged(&self) -> bool {
        self.is_charged.load(Ordering::Relaxed)
    }
}

/// Measures a handler: what passes while it runs is this broker's time, the rest it waits for others.
pub(super) struct Timed<'a, F> {
    handler: F,
    call: &'a Call,
}

impl<'a, F> Timed<'a, F> {
    pub(super) fn new(handler: F, call: &'a Call) -> Self {
        Self { handler, call }
    }
}

impl<F: Future + Unpin> Future for Timed<'_, F> {
    type Output = (F::Output, RequestTimes);

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let call = self.call;
        let began = call.elapsed_ns();
        call.poll_began_ns.store(began, Ordering::Relaxed);
        let polled = Pin::new(&mut self.handler).poll(context);
        let now = call.elapsed_ns();
        let busy = call.busy_ns.load(Ordering::Relaxed) + (now - began);
        call.busy_ns.store(busy, Ordering::Relaxed);
        polled.map(|output| {
            let local = Duration::from_nanos(busy);
            let times = RequestTimes {
                local,
                remote: Duration::from_nanos(now.saturating_sub(busy)),
                throttle: Duration::from_millis(call.throttle_ms().into()),
                response_send: Duration::ZERO,
            };
            (output, times)
        })
    }
}
