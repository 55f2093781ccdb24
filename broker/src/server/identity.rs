//! Who this broker is to others.

use std::collections::BTreeMap;

use barnabas_core::config::BrokerConfig;
use barnabas_core::control::Endpoint;
use barnabas_core::ids::BrokerId;
use barnabas_core::znodes::BrokerRegistration;

use crate::clock;

/// The registration of a broker whose listeners have the ports in `addresses`.
pub(super) fn registration(
    config: &BrokerConfig,
    id: BrokerId,
    addresses: &[(String, u16)],
) -> BrokerRegistration {
    BrokerRegistration {
        id,
        endpoints: advertised(config, addresses),
        rack: config.broker_rack.clone(),
        jmx_port: -1,
        timestamp_ms: clock::wall_clock_ms(),
        features: BTreeMap::new(),
        fast_failover: config.barnabas_fast_failover_enable,
    }
}

/// What others are told: the advertised listeners of a broker whose listeners have the ports in `addresses`.
pub(super) fn advertised(config: &BrokerConfig, addresses: &[(String, u16)]) -> Vec<Endpoint> {
    let advertised = config.listeners.advertised.iter();
    advertised
        .map(|endpoint| reachable(endpoint, addresses))
        .collect()
}

/// An empty host is this host's name, and port 0 the one that was bound.
fn reachable(endpoint: &Endpoint, addresses: &[(String, u16)]) -> Endpoint {
    let mut endpoint = endpoint.clone();
    if endpoint.host.is_empty() {
        endpoint.host = host_name();
    }
    if endpoint.port == 0 {
        let bound = addresses
            .iter()
            .find(|(name, _)| *name == endpoint.listener);
        endpoint.port = bound.map_or(0, |(_, port)| *port);
    }
    endpoint
}

fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}
