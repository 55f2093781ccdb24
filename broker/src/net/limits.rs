//! How many connections there may be, and how fast new ones come (Kafka class `ConnectionQuotas`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Network;

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
#[derive(Default)]
pub(super) struct ConnectionQuotas {
    counts: Mutex<Counts>,
    /// Told when a connection ends or limits change.
    freed: Notify,
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_listener: HashMap<Arc<str>, usize>,
    by_address: HashMap<IpAddr, usize>,
    /// When the next connection of the broker, or of a listener, is due.
    broker_pace: Pace,
    listener_paces: HashMap<Arc<str>, Pace>,
}

/// An address has as many connections as it may have.
#[derive(Debug, thiserror::Error)]
#[error("{address} already has the configured maximum of {limit} connections")]
pub(super) struct TooManyFromAddress {
    pub(super) address: IpAddr,
    pub(super) limit: usize,
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
) -> Result<ConnectionSlot, TooManyFromAddress> {
    let quotas = &network.quotas;
    let delay = quotas.pace(&network.limits.load(), listener);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
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

    /// How long the next connection of `listener` has to wait for the creation rates.
    fn pace(&self, limits: &ConnectionLimits, listener: &Arc<str>) -> Duration {
        let now = Instant::now();
        let mut counts = self.counts();
        let mut delay = Duration::ZERO;
        if let Some(rate) = limits.creation_rate {
            delay = counts.broker_pace.next(rate, now);
        }
        if let Some(rate) = limits.of_listener(listener).creation_rate {
            let pace = counts.listener_paces.entry(listener.clone()).or_default();
            delay = delay.max(pace.next(rate, now));
        }
        delay
    }
}

/// Spreads events so that not more than a rate come in a second; a second's worth may come at once.
#[derive(Default)]
struct Pace {
    /// When all that came so far would have come at an even pace.
    even: Option<Instant>,
}

impl Pace {
    fn next(&mut self, rate: u32, now: Instant) -> Duration {
        let step = Duration::from_secs(1) / rate.max(1);
        let even = self.even.map_or(now, |even| even.max(now)) + step;
        self.even = Some(even);
        (even - now).saturating_sub(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

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
        let quotas = ConnectionQuotas::default();
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
        let quotas = ConnectionQuotas::default();
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
        let quotas = ConnectionQuotas::default();
        assert_eq!(take(&quotas, &limits, "A", ADDRESS), Some(true));
        assert_eq!(take(&quotas, &limits, "A", ADDRESS), Some(false));
        assert_eq!(take(&quotas, &limits, "B", ADDRESS), Some(true));
    }

    #[test]
    fn a_pace_allows_a_second_at_once_and_then_delays() {
        let now = Instant::now();
        let mut pace = Pace::default();
        let delays: Vec<_> = (0..12).map(|_| pace.next(10, now).as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200]);
        assert_eq!(pace.next(10, now + Duration::from_secs(5)), Duration::ZERO);
    }
}
