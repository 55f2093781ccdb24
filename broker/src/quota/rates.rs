//! A quota of so much a second, and the rates of all clients under it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use barnabas_core::quota::{QuotaLimits, QuotaRate, Window};

use super::throttled::{ThrottleTime, Throttled};
use super::{Client, Key};
use crate::metrics::Exposition;

/// What those who share a limit have used.
struct Used {
    rate: QuotaRate,
    throttle_time: ThrottleTime,
}

impl Used {
    fn new(window: Window) -> Self {
        Self {
            rate: QuotaRate::new(window),
            throttle_time: ThrottleTime::new(window),
        }
    }
}

/// One kind of quota.
pub struct RateQuota {
    /// Names of the metrics: `kafka_server_<kind>_<rate>`.
    kind: &'static str,
    rate: &'static str,
    window: Window,
    throttle_ms_max: u32,
    is_enabled: AtomicBool,
    limits: ArcSwap<QuotaLimits>,
    used: Mutex<HashMap<Key, Used>>,
    throttled: Throttled,
    /// What requests used that no quota holds for.
    exempt: Mutex<QuotaRate>,
}

impl RateQuota {
    pub(super) fn new(
        kind: &'static str,
        rate: &'static str,
        window: Window,
        throttle_max: Option<Duration>,
    ) -> Self {
        let longest = throttle_max.map_or(i32::MAX as u128, |max| max.as_millis());
        Self {
            kind,
            rate,
            window,
            throttle_ms_max: u32::try_from(longest).unwrap_or(u32::MAX),
            is_enabled: AtomicBool::new(false),
            limits: ArcSwap::default(),
            used: Mutex::default(),
            throttled: Throttled::default(),
            exempt: Mutex::new(QuotaRate::new(window)),
        }
    }

    pub(super) fn set_limits(&self, limits: &QuotaLimits) {
        self.limits.store(limits.clone().into());
        self.is_enabled.store(!limits.is_empty(), Ordering::Relaxed);
    }

    /// Whether anybody has a quota of this kind.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled.load(Ordering::Relaxed)
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Key, Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a client used `amount`, and returns for how many milliseconds it is throttled.
    pub fn record(&self, client: Client<'_>, amount: f64, now: Duration) -> u32 {
        let throttle_ms = self.change(client, |used, limit| {
            used.rate.record(amount, now);
            let throttle_ms = used.rate.throttle_ms(limit, now).min(self.throttle_ms_max);
            used.throttle_time.note(throttle_ms, now);
            throttle_ms
        });
        let throttle_ms = throttle_ms.unwrap_or(0);
        let throttle = Duration::from_millis(throttle_ms.into());
        self.throttled.note(throttle, now);
        throttle_ms
    }

    /// Notes that a client used `amount` (or gave it back), which is paid for with its next request.
    pub fn note(&self, client: Client<'_>, amount: f64, now: Duration) {
        self.change(client, |used, _| used.rate.record(amount, now));
    }

    fn change<R>(&self, client: Client<'_>, change: impl FnOnce(&mut Used, f64) -> R) -> Option<R> {
        if !self.is_enabled() {
            return None;
        }
        let limit = self.limits.load().resolve(client.user, client.client_id)?;
        let mut all = self.used();
        let used = all
            .entry(Key::new(client, limit.scope))
            .or_insert_with(|| Used::new(self.window));
        Some(change(used, limit.per_second))
    }

    /// Notes what a request used that no quota holds for.
    pub fn note_exempt(&self, amount: f64, now: Duration) {
        if self.is_enabled() {
            let mut exempt = self.exempt.lock().unwrap_or_else(PoisonError::into_inner);
            exempt.record(amount, now);
        }
    }

    /// What a client may use at most without being throttled; `None` is no limit.
    pub fn allowance(&self, client: Client<'_>) -> Option<f64> {
        if !self.is_enabled() {
            return None;
        }
        let limit = self.limits.load().resolve(client.user, client.client_id)?;
        Some(self.window.allowance(limit.per_second))
    }

    pub(super) fn forget_idle(&self, memory: Duration, now: Duration) {
        self.used()
            .retain(|_, used| !used.rate.is_idle(memory, now));
    }

    /// How many connections are throttled.
    pub fn throttled(&self, now: Duration) -> usize {
        self.throttled.count(now)
    }

    /// How many clients, or groups of them that share a limit, are remembered.
    pub fn remembered(&self) -> usize {
        self.used().len()
    }

    pub(super) fn write_metrics(&self, out: &mut Exposition, now: Duration) {
        let prefix = format!("kafka_server_{}", self.kind);
        let mut figures: Vec<(Key, f64, f64)> = self
            .used()
            .iter_mut()
            .map(|(key, used)| {
                let average = used.throttle_time.average(now);
                (key.clone(), used.rate.measure(now), average)
            })
            .collect();
        figures.sort_by(|one, other| one.0.cmp(&other.0));
        for (key, rate, _) in &figures {
            let labels = [("user", &*key.user), ("client_id", &*key.client_id)];
            out.gauge(&format!("{prefix}_{}", self.rate), &labels, rate);
        }
        for (key, _, average) in &figures {
            let labels = [("user", &*key.user), ("client_id", &*key.client_id)];
            out.gauge(&format!("{prefix}_throttle_time"), &labels, average);
        }
        out.gauge(&format!("{prefix}_queue_size"), &[], self.throttled(now));
        if self.kind == "request" && self.is_enabled() {
            let mut exempt = self.exempt.lock().unwrap_or_else(PoisonError::into_inner);
            let name = format!("{prefix}_exempt_request_time");
            out.gauge(&name, &[], exempt.measure(now));
        }
    }
}
