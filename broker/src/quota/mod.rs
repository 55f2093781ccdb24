//! Quotas of clients as they are set now, and what each client has used (Kafka classes `ClientQuotaManager`,
//! `ClientRequestQuotaManager`, `ControllerMutationQuotaManager`, `ConnectionQuotas`).
//!
//! Who is over a quota is answered at once, told how long it is throttled, and its connection is not read from
//! for that time (`net`). Where no quota is set a request costs one load of a flag. What a client used is
//! forgotten when it was away for an hour.

mod addresses;
mod mutations;
mod rates;
mod throttled;

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use barnabas_core::config::BrokerConfig;
use barnabas_core::quota::{AddressLimits, QuotaKind, QuotaLimits, Window};
use barnabas_core::znodes::ConfigEntity;

pub use addresses::AddressRates;
pub use mutations::{MutationQuota, MutationQuotaExceeded, Mutations, Strictness};
pub use rates::RateQuota;

use crate::clock;
use crate::metrics::Exposition;

/// For how long what a client used is remembered after its last request (Kafka:
/// `InactiveSensorExpirationTimeSeconds`).
const MEMORY: Duration = Duration::from_secs(3600);

/// How often it is looked for those to forget.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Whose quota a request counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client<'a> {
    /// Name of the principal.
    pub user: &'a str,
    /// Empty if the client sends none.
    pub client_id: &'a str,
}

/// Who shares a limit; empty for what the limit does not depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    user: Box<str>,
    client_id: Box<str>,
}

impl Key {
    fn new(client: Client<'_>, scope: barnabas_core::quota::Scope) -> Self {
        use barnabas_core::quota::Scope;
        let (user, client_id) = match scope {
            Scope::UserAndClient => (client.user, client.client_id),
            Scope::User => (client.user, ""),
            Scope::Client => ("", client.client_id),
        };
        Self {
            user: user.into(),
            client_id: client_id.into(),
        }
    }
}

/// All quotas of clients on this broker.
pub struct ClientQuotas {
    pub produce: RateQuota,
    pub fetch: RateQuota,
    /// In percent of one thread.
    pub request: RateQuota,
    pub mutations: Arc<MutationQuota>,
    pub addresses: Arc<AddressRates>,
    limits: Mutex<AllLimits>,
}

/// What ZooKeeper says, from which the limits of each kind are copied when they change.
#[derive(Default)]
struct AllLimits {
    by_kind: [QuotaLimits; QuotaKind::ALL.len()],
    addresses: AddressLimits,
}

impl ClientQuotas {
    /// Without limits yet; the windows are those of the configuration file.
    pub fn new(config: &BrokerConfig) -> Self {
        let window = Window::new(config.quota_window_num, config.quota_window_size_seconds);
        let of_controller = Window::new(
            config.controller_quota_window_num,
            config.controller_quota_window_size_seconds,
        );
        Self {
            produce: RateQuota::new("produce", "byte_rate", window, None),
            fetch: RateQuota::new("fetch", "byte_rate", window, None),
            request: RateQuota::new(
                "request",
                "request_time",
                window,
                Some(window.sample_length),
            ),
            mutations: Arc::new(MutationQuota::new(of_controller)),
            addresses: Arc::new(AddressRates::new(window)),
            limits: Mutex::default(),
        }
    }

    /// Takes over what ZooKeeper has for an entity; without settings it has no quotas any more.
    pub fn entity_changed(&self, entity: &ConfigEntity, settings: &BTreeMap<String, String>) {
        if !entity.is_quota_entity() {
            return;
        }
        let number = |key: &str| -> Option<f64> {
            let text = settings.get(key)?;
            let number = text.trim().parse().ok();
            if number.is_none() {
                tracing::error!(%entity, key, text, "ignored a quota that is no number");
            }
            number
        };
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if let ConfigEntity::Ip(address) = entity {
            let limit = number(AddressLimits::KEY);
            match address {
                None => limits.addresses.set(None, limit),
                Some(host) => {
                    for address in addresses_of(host) {
                        limits.addresses.set(Some(address), limit);
                    }
                }
            }
            self.addresses.set_limits(limits.addresses.clone());
            return;
        }
        for (kind, limits) in QuotaKind::ALL.iter().zip(&mut limits.by_kind) {
            limits.set(entity, number(kind.key()));
            match kind {
                QuotaKind::Produce => self.produce.set_limits(limits),
                QuotaKind::Fetch => self.fetch.set_limits(limits),
                QuotaKind::Request => self.request.set_limits(limits),
                QuotaKind::ControllerMutation => self.mutations.set_limits(limits),
            }
        }
    }

    /// Forgets those who were away for an hour, for as long as the broker runs.
    pub async fn forget_idle(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.sweep(clock::now().monotonic);
        }
    }

    fn sweep(&self, now: Duration) {
        for quota in [&self.produce, &self.fetch, &self.request] {
            quota.forget_idle(MEMORY, now);
        }
        self.mutations.forget_idle(MEMORY, now);
        self.addresses.forget_idle(MEMORY, now);
    }

    /// Writes what is known of each client under a quota.
    pub fn write_metrics(&self, out: &mut Exposition) {
        let now = clock::now().monotonic;
        for quota in [&self.produce, &self.fetch, &self.request] {
            quota.write_metrics(out, now);
        }
        self.mutations.write_metrics(out, now);
        self.addresses.write_metrics(out, now);
    }
}

/// Time as request quotas count it: 100 is a whole second of one thread.
pub fn percent(busy: Duration) -> f64 {
    busy.as_secs_f64() * 100.0
}

/// The addresses of a name. Kafka looks it up as well, when the quota is set.
pub fn addresses_of(host: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return vec![address.to_canonical()];
    }
    match (host, 0).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip().to_canonical()).collect(),
        Err(error) => {
            tracing::warn!(host, %error, "the host of a quota is unknown");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests;
