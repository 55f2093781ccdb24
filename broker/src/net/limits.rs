//! How many connections there may be, and how fast new ones come (Kafka class `ConnectionQuotas`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use barnabas_core::quota::{QuotaRate, Window};
use tokio::sync::Notify;

use super::Network;
use crate::clock;

/// Limits on connections. `None` is no limit.
#[derive(Clone, Debug, Default)]
pub struct ConnectionLimits {
    /// `max.connections`
    pub broker: Option<usize>,
    /// `max.connections.per.ip`
    pub per_address: Option<usize>,
    /// `max.connections.per.ip.overrides`
    pub per_address_overrides: HashMap<IpAddr, usize>,
    /// `max.connection.creation.rate`, per second.
    pub creation_rate: Option<u32>,
    /// `listener.name.<name>.…`, by listener name.
    pub listeners: HashMap<String, ListenerLimits>,
    /// The listener between brokers: `max.connections` does not keep it waiting if there are others.
    pub protected_listener: Option<String>,
}

/// Limits of one listener.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenerLimits {
    /// `max.connections`
    pub connections: Option<usize>,
    /// `max.connection.creation.rate`, per second.
    pub creation_rate: Option<u32>,
}

impl ConnectionLimits {
    fn of_address(&self, address: IpAddr) -> usize {
        self.per_address_overrides
            .get(&address)
            .copied()
            .or(self.per_address)
            .unwrap_or(usize::MAX)
    }

    fn of_listener(&self, listener: &str) -> ListenerLimits {
        self.listeners.get(listener).copied().unwrap_or_default()
    }

    fn is_protected(&self, listener: &str) -> bool {
        self.protected_listener.as_deref() == Some(listener)
    }
}

/// Counts connections against the limits.
pub(super) struct ConnectionQuotas {
    window: Window,
    counts: Mutex<Counts>,
    /// Told when a connection ends or limits change.
    freed: Notify,
}

struct Counts {
    total: usize,
    by_listener: HashMap<Arc<str>, usize>,
    by_address: HashMap<IpAddr, usize>,
    /// How fast connections come to the broker, and to each listener.
    broker_rate: QuotaRate,
    listener_rates: HashMap<Arc<str>, QuotaRate>,
}

/// An address has as many connections as it may have.
#[derive(Debug, thiserror::Error)]
#[error("{address} already has the configured maximum of {limit} connections")]
pub(super) struct TooManyFromAddress {
    pub(super) address: IpAddr,
    pub(super) limit: usize,
}

/// Why a connection is not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    TooMany(#[from] TooManyFromAddress),
    /// It is kept open that long without being read, so that the client does not try again at once.
    #[error("{address} connects faster than its quota allows")]
    TooFast { address: IpAddr, wait: Duration },
}

/// The place of one connection in the counts; dropping it gives the place up.
pub(super) struct ConnectionSlot {
    network: Arc<Network>,
    listener: Arc<str>,
    address: IpAddr,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.network.quotas.release(&self.listener, self.address);
    }
}

/// Waits until the limits leave room for another connection of `listener`, then takes it.
pub(super) async fn take_slot(
    network: &Arc<Network>,
    listener: &Arc<str>,
    address: IpAddr,
) -> Result<ConnectionSlot, Refusal> {
    let quotas = &network.quotas;
    let now = clock::now().monotonic;
    let delay = quotas.pace(&network.limits.load(), listener, now);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let now = clock::now().monotonic;
    let admitted = network.address_rates.admit(listener, address, now);
    admitted.map_err(|wait| Refusal::TooFast { address, wait })?;
    loop {
        let freed = quotas.freed.notified();
        if quotas.try_take(&network.limits.load(), listener, address)? {
            let slot = ConnectionSlot {
                network: network.clone(),
                listener: listener.clone(),
                address,
            };
            return Ok(slot);
        }
        freed.await;
    }
}

impl ConnectionQuotas {
    pub(super) fn new(window: Window) -> Self {
        let counts = Counts {
            total: 0,
            by_listener: HashMap::new(),
            by_address: HashMap::new(),
            broker_rate: QuotaRate::new(window),
            listener_rates: HashMap::new(),
        };
        Self {
            window,
            counts: Mutex::new(counts),
            freed: Notify::new(),
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn total(&self) -> usize {
        self.counts().total
    }

    pub(super) fn of_listener(&self, listener: &str) -> usize {
        self.counts()
            .by_listener
            .get(listener)
            .copied()
            .unwrap_or(0)
    }

    pub(super) fn of_address(&self, address: IpAddr) -> usize {
        self.counts()
            .by_address
            .get(&address.to_canonical())
            .copied()
            .unwrap_or(0)
    }

    pub(super) fn limits_changed(&self) {
        self.freed.notify_waiters();
    }

    /// A listener is gone; one of the same name begins anew.
    pub(super) fn forget_listener(&self, listener: &str) {
        self.counts().listener_rates.remove(listener);
    }

    /// False if the connection has to wait for another one to end.
    fn try_take(
        &self,
        limits: &ConnectionLimits,
        listener: &Arc<str>,
        address: IpAddr,
    ) -> Result<bool, TooManyFromAddress> {
        let mut counts = self.counts();
        let of_listener = counts.by_listener.get(listener).copied().unwrap_or(0);
        if of_listener
            >= limits
                .of_listener(listener)
                .connections
                .unwrap_or(usize::MAX)
            || (counts.total >= limits.broker.unwrap_or(usize::MAX)
                && !limits.is_protected(listener))
        {
            return Ok(false);
        }
        let limit = limits.of_address(address);
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= limit {
            return Err(TooManyFromAddress { address, limit });
        }
        *of_address += 1;
        *counts.by_listener.entry(listener.clone()).or_default() += 1;
        counts.total += 1;
        Ok(true)
    }

    fn release(&self, listener: &Arc<str>, address: IpAddr) {
        {
            let mut counts = self.counts();
            counts.total -= 1;
            if let Some(count) = counts.by_listener.get_mut(listener) {
                *count -= 1;
            }
            if let Some(count) = counts.by_address.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    counts.by_address.remove(&address);
                }
            }
        }
        self.freed.notify_waiters();
    }

    /// How long the next connection of `listener` has to wait for the creation rates. It is counted already.
    fn pace(&self, limits: &ConnectionLimits, listener: &Arc<str>, now: Duration) -> Duration {
        let mut counts = self.counts();
        let mut throttle_ms = 0;
        if let Some(rate) = limits.creation_rate
            && !limits.is_protected(listener)
        {
            let so_far = &mut counts.broker_rate;
            so_far.record(1.0, now);
            throttle_ms = so_far.throttle_ms(rate.into(), now);
        }
        if let Some(rate) = limits.of_listener(listener).creation_rate {
            let so_far = counts
                .listener_rates
                .entry(listener.clone())
                .or_insert_with(|| QuotaRate::new(self.window));
            so_far.record(1.0, now);
            throttle_ms = throttle_ms.max(so_far.throttle_ms(rate.into(), now));
        }
        Duration::from_millis(throttle_ms.into()).min(self.window.sample_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn quotas() -> ConnectionQuotas {
        ConnectionQuotas::new(Window::new(11, 1))
    }

    fn take(
        quotas: &ConnectionQuotas,
        limits: &ConnectionLimits,
        listener: &str,
        address: IpAddr,
    ) -> Option<bool> {
        quotas.try_take(limits, &Arc::from(listener), address).ok()
    }

    #[test]
    fn the_broker_limit_keeps_waiting_all_but_the_protected_listener() {
        let limits = ConnectionLimits {
            broker: Some(1),
            protected_listener: Some("INTERNAL".to_owned()),
            ..ConnectionLimits::default()
        };
        let quotas = quotas();
        assert_eq!(take(&quotas, &limits, "CLIENT", ADDRESS), Some(true));
        assert_eq!(take(&quotas, &limits, "CLIENT", ADDRESS), Some(false));
        assert_eq!(take(&quotas, &limits, "INTERNAL", ADDRESS), Some(true));
        quotas.release(&Arc::from("CLIENT"), ADDRESS);
        quotas.release(&Arc::from("INTERNAL"), ADDRESS);
        assert_eq!(take(&quotas, &limits, "CLIENT", ADDRESS), Some(true));
    }

    #[test]
    fn an_address_over_its_limit_is_refused() {
        let limits = ConnectionLimits {
            per_address: Some(1),
            per_address_overrides: HashMap::from([(OTHER, 2)]),
            ..ConnectionLimits::default()
        };
        let quotas = quotas();
        assert_eq!(take(&quotas, &limits, "A", ADDRESS), Some(true));
        assert_eq!(take(&quotas, &limits, "A", ADDRESS), None);
        assert_eq!(take(&quotas, &limits, "A", OTHER), Some(true));
        assert_eq!(take(&quotas, &limits, "A", OTHER), Some(true));
        assert_eq!(take(&quotas, &limits, "A", OTHER), None);
        assert_eq!((quotas.total(), quotas.of_address(OTHER)), (3, 2));
    }

    #[test]
    fn a_listener_has_its_own_limit() {
        let limits = ConnectionLimits {
            listeners: HashMap::from([(
                "A".to_owned(),
                ListenerLimits {
                    connections: Some(1),
                    creation_rate: None,
                },
            )]),
            ..ConnectionLimits::default()
        };
        let quotas = quotas();
        assert_eq!(take(&quotas, &limits, "A", ADDRESS), Some(true));
        assert_eq!(take(&quotas, &limits, "A", ADDRESS), Some(false));
        assert_eq!(take(&quotas, &limits, "B", ADDRESS), Some(true));
    }

    #[test]
    fn connections_beyond_the_rate_of_a_window_wait_for_a_sample_at_most() {
        let limits = ConnectionLimits {
            creation_rate: Some(10),
            ..ConnectionLimits::default()
        };
        let quotas = quotas();
        let listener = Arc::from("A");
        let now = Duration::from_secs(5);
        let mut delays = (0..200).map(|_| quotas.pace(&limits, &listener, now));
        assert!(delays.by_ref().take(100).all(|delay| delay.is_zero()));
        assert_eq!(delays.next(), Some(Duration::from_millis(100)));
        assert_eq!(delays.last(), Some(Duration::from_secs(1)));
        let later = now + Duration::from_secs(12);
        assert_eq!(quotas.pace(&limits, &listener, later), Duration::ZERO);
    }
}
