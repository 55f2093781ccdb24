//! Listeners that come, go and are told anew while the broker runs (Kafka class `DynamicListenerConfig`).

use std::collections::BTreeMap;

use super::{AlterError, BrokerConfig, is_security_store, refused_by_part};

/// Keys whose change has the sockets and the registration of a broker changed.
const KEYS: [&str; 3] = [
    "listeners",
    "advertised.listeners",
    "listener.security.protocol.map",
];

/// Settings of one listener that may change while it is open.
const CHANGEABLE: [&str; 3] = [
    "max.connections",
    "max.connection.creation.rate",
    "num.network.threads",
];

/// A listener that exists keeps its protocol and its own settings; which listeners there are may change.
pub(super) fn check(proposed: &BrokerConfig, running: &BrokerConfig) -> Result<(), AlterError> {
    let is_changed = |key: &&str| proposed.given().get(*key) != running.given().get(*key);
    if !KEYS.iter().any(is_changed) {
        return Ok(());
    }
    let (new, old) = (&proposed.listeners, &running.listeners);
    let names = new.bind.iter().map(|endpoint| &endpoint.listener);
    for name in names.filter(|name| old.bind.iter().any(|known| known.listener == **name)) {
        if fixed_settings(proposed, name) != fixed_settings(running, name) {
            return Err(refused_by_part(&format!(
                "Configs cannot be updated dynamically for existing listener ListenerName({name}), restart \
                 broker or create a new listener for update"
            )));
        }
        if new.protocols.get(name) != old.protocols.get(name) {
            return Err(refused_by_part(&format!(
                "Security protocol cannot be updated for existing listener ListenerName({name})"
            )));
        }
    }
    // Kafka would open it, or find out too late that it has no key store.
    new.unserved().next().map_or(Ok(()), |endpoint| {
        Err(refused_by_part(&format!(
            "Listener {} has protocol {}, and TLS and SASL are not served yet",
            endpoint.listener,
            endpoint.security_protocol.name()
        )))
    })
}

/// What is set for one listener, without what may change at any time; by key without the prefix.
fn fixed_settings<'a>(config: &'a BrokerConfig, listener: &str) -> BTreeMap<&'a str, &'a str> {
    let prefix = format!("listener.name.{}.", listener.to_lowercase());
    let given = config.given().iter();
    let own = given.filter_map(|(key, text)| Some((key.strip_prefix(&prefix)?, text.as_str())));
    own.filter(|(key, _)| !is_security_store(key) && !CHANGEABLE.contains(key))
        .collect()
}
