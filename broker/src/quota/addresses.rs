//! How fast connections may come from an address (KIP-612).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use barnabas_core::quota::{AddressLimits, QuotaRate, Window};

/// The rates at which addresses connect, and their limits.
pub struct AddressRates {
    window: Window,
    is_enabled: AtomicBool,
    limits: ArcSwap<AddressLimits>,
    rates: Mutex<HashMap<IpAddr, QuotaRate>>,
}

impl AddressRates {
    /// Without limits yet.
    pub fn new(window: Window) -> Self {
        Self {
            window,
            is_enabled: AtomicBool::new(false),
            limits: ArcSwap::default(),
            rates: Mutex::default(),
        }
    }

    pub(super) fn set_limits(&self, limits: AddressLimits) {
        self.is_enabled.store(!limits.is_empty(), Ordering::Relaxed);
        self.limits.store(limits.into());
    }

    fn rates(&self) -> MutexGuard<'_, HashMap<IpAddr, QuotaRate>> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection, or returns for how long to let the client wait before it is refused. A refused one is
    /// not counted.
    pub fn admit(&self, address: IpAddr, now: Duration) -> Result<(), Duration> {
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
        Err(Duration::from_millis(throttle_ms.into()).min(self.window.sample_length))
    }

    pub(super) fn forget_idle(&self, memory: Duration, now: Duration) {
        self.rates().retain(|_, rate| !rate.is_idle(memory, now));
    }
}
