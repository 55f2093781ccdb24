//! How fast connections may come from an address (KIP-612).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use barnabas_core::quota::{AddressLimits, QuotaRate, Window};

use super::throttled::ThrottleTime;
use crate::metrics::Exposition;

/// The rates at which addresses connect, and their limits.
pub struct AddressRates {
    window: Window,
    is_enabled: AtomicBool,
    limits: ArcSwap<AddressLimits>,
    rates: Mutex<HashMap<IpAddr, QuotaRate>>,
    /// By listener.
    throttle_times: Mutex<BTreeMap<Arc<str>, ThrottleTime>>,
}

impl AddressRates {
    /// Without limits yet.
    pub fn new(window: Window) -> Self {
        Self {
            window,
            is_enabled: AtomicBool::new(false),
            limits: ArcSwap::default(),
            rates: Mutex::default(),
            throttle_times: Mutex::default(),
        }
    }

    pub(super) fn set_limits(&self, limits: AddressLimits) {
        self.is_enabled.store(!limits.is_empty(), Ordering::Relaxed);
        self.limits.store(limits.into());
    }

    fn rates(&self) -> MutexGuard<'_, HashMap<IpAddr, QuotaRate>> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttle_times(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, ThrottleTime>> {
        let times = self.throttle_times.lock();
        times.unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection of a listener, or returns for how long to let the client wait before it is refused. A refused one is
    /// not counted.
    pub fn admit(
        &self,
        listener: &Arc<str>,
        address: IpAddr,
        now: Duration,
    ) -> Result<(), Duration> {
        if !self.is_enabled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let address = address.to_canonical();
        let Some(limit) = self.limits.load().of(address) else {
            return Ok(());
        };
        let mut rates = self.rates();
        let rate = rates
            .entry(address)
            .or_insert_with(|| QuotaRate::new(self.window));
        rate.record(1.0, now);
        let throttle_ms = rate.throttle_ms(limit, now);
        if throttle_ms == 0 {
            return Ok(());
        }
        rate.record(-1.0, now);
        drop(rates);
        let wait = Duration::from_millis(throttle_ms.into()).min(self.window.sample_length);
        self.throttle_times()
            .entry(listener.clone())
            .or_insert_with(|| ThrottleTime::new(self.window))
            .note(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX), now);
        Err(wait)
    }

    pub(super) fn write_metrics(&self, out: &mut Exposition, now: Duration) {
        let prefix = "kafka_server_socket_server_metrics";
        let mut rates: Vec<(IpAddr, f64)> = self
            .rates()
            .iter_mut()
            .map(|(address, rate)| (*address, rate.measure(now)))
            .collect();
        rates.sort_by_key(|(address, _)| *address);
        for (address, rate) in rates {
            let labels = [("ip", &*address.to_string())];
            out.gauge(&format!("{prefix}_connection_accept_rate"), &labels, rate);
        }
        for (listener, times) in self.throttle_times().iter_mut() {
            let labels = [("listener", &**listener)];
            let name = format!("{prefix}_ip_connection_accept_throttle_time");
            out.gauge(&name, &labels, times.average(now));
        }
    }

    pub(super) fn forget_idle(&self, memory: Duration, now: Duration) {
        self.rates().retain(|_, rate| !rate.is_idle(memory, now));
    }
}
