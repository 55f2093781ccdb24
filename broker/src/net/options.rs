//! Settings of the network, and where they stand in the broker's configuration.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::time::Duration;

use barnabas_core::config::BrokerConfig;
use barnabas_core::quota::Window;

use super::limits::{ConnectionLimits, ListenerLimits};

/// Settings that all listeners share.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// `socket.request.max.bytes`
    pub request_bytes_max: usize,
    /// `queued.max.request.bytes`; `None` for the default limit.
    pub request_memory_bytes_max: Option<usize>,
    /// `connections.max.idle.ms`; `None` never closes.
    pub idle_max: Option<Duration>,
    pub limits: ConnectionLimits,
    /// Over which rates of connections are measured: `quota.window.num` and `.size.seconds`.
    pub rate_window: Window,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            request_bytes_max: 100 << 20,
            request_memory_bytes_max: None,
            idle_max: Some(Duration::from_secs(600)),
            limits: ConnectionLimits::default(),
            rate_window: Window::new(11, 1),
        }
    }
}

/// Settings of one listener.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Upper case, as in `listeners`.
    pub name: String,
    /// A name or an address; IPv6 without brackets; empty for every interface.
    pub host: String,
    /// 0 for any free port.
    pub port: u16,
    /// `socket.listen.backlog.size`
    pub backlog: i32,
    /// `socket.send.buffer.bytes`; `None` leaves it to the system.
    pub send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None` leaves it to the system.
    pub receive_buffer_bytes: Option<usize>,
}

impl NetworkOptions {
    pub fn from_config(config: &BrokerConfig) -> Self {
        Self {
            request_bytes_max: usize::try_from(config.socket_request_max_bytes).unwrap_or(0),
            request_memory_bytes_max: positive(config.queued_max_request_bytes),
            idle_max: u64::try_from(config.connections_max_idle_ms)
                .ok()
                .map(Duration::from_millis),
            limits: ConnectionLimits::from_config(config),
            rate_window: Window::new(config.quota_window_num, config.quota_window_size_seconds),
        }
    }
}

impl ConnectionLimits {
    /// These settings are dynamic: see [`super::Network::set_limits`].
    pub fn from_config(config: &BrokerConfig) -> Self {
        let listeners = config.listeners.bind.iter().map(|endpoint| {
            let own = |key: &str| {
                let prefix = endpoint.listener.to_lowercase();
                let text = config
                    .given()
                    .get(&format!("listener.name.{prefix}.{key}"))?;
                text.trim().parse::<i32>().ok()
            };
            let limits = ListenerLimits {
                connections: own("max.connections").and_then(limit),
                creation_rate: own("max.connection.creation.rate").and_then(rate),
            };
            (endpoint.listener.clone(), limits)
        });
        let listeners: HashMap<_, _> = listeners.collect();
        Self {
            broker: limit(config.max_connections),
            per_address: limit(config.max_connections_per_ip),
            per_address_overrides: config
                .max_connections_per_ip_overrides
                .iter()
                .flat_map(|(host, max)| {
                    let max = usize::try_from(*max).unwrap_or(0);
                    addresses(host)
                        .into_iter()
                        .map(move |address| (address, max))
                })
                .collect(),
            creation_rate: rate(config.max_connection_creation_rate),
            protected_listener: (listeners.len() > 1)
                .then(|| config.listeners.inter_broker.clone()),
            listeners,
        }
    }
}

/// How many connections may wait if nobody wrote down a number; the system may allow less.
const BACKLOG: i32 = 4096;

impl ListenerOptions {
    /// One for each of `listeners`.
    pub fn from_config(config: &BrokerConfig) -> Vec<Self> {
        // Kafka's default of 100 KiB switches the kernel's own sizing off and costs a wake-up per buffer. It is
        // honoured if somebody wrote it down.
        let buffer = |key: &str, bytes: i32| {
            config
                .given()
                .contains_key(key)
                .then(|| positive(i64::from(bytes)))
                .flatten()
        };
        let send = buffer("socket.send.buffer.bytes", config.socket_send_buffer_bytes);
        let receive = buffer(
            "socket.receive.buffer.bytes",
            config.socket_receive_buffer_bytes,
        );
        // Who comes when the default of 50 wait already comes again after a second. Some hundred clients that
        // connect at once, as after a fail-over, would.
        let backlog_is_given = config.given().contains_key("socket.listen.backlog.size");
        let backlog = if backlog_is_given {
            config.socket_listen_backlog_size
        } else {
            BACKLOG
        };
        config
            .listeners
            .bind
            .iter()
            .map(|endpoint| Self {
                name: endpoint.listener.clone(),
                host: endpoint.host.clone(),
                port: endpoint.port,
                backlog,
                send_buffer_bytes: send,
                receive_buffer_bytes: receive,
            })
            .collect()
    }
}

fn positive(bytes: i64) -> Option<usize> {
    usize::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

/// The largest `int` stands for "no limit".
fn limit(max: i32) -> Option<usize> {
    usize::try_from(max).ok().filter(|_| max != i32::MAX)
}

fn rate(per_second: i32) -> Option<u32> {
    u32::try_from(per_second)
        .ok()
        .filter(|_| per_second != i32::MAX)
}

/// An override may name a host; it is looked up once, as in Kafka.
fn addresses(host: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    match (host, 0).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip().to_canonical()).collect(),
        Err(error) => {
            tracing::warn!(host, %error, "max.connections.per.ip.overrides names an unknown host");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn config(settings: &[(&str, &str)]) -> BrokerConfig {
        let mut given: BTreeMap<_, _> = [("zookeeper.connect", "localhost:2181")].into();
        given.extend(settings.iter().copied());
        let given = given
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        BrokerConfig::parse(&given.collect()).unwrap()
    }

    #[test]
    fn defaults_set_no_limits() {
        let config = config(&[]);
        let options = NetworkOptions::from_config(&config);
        assert_eq!(options.request_bytes_max, 104_857_600);
        assert_eq!(options.idle_max, Some(Duration::from_secs(600)));
        assert_eq!(
            (options.limits.broker, options.limits.per_address),
            (None, None)
        );
        assert_eq!(
            ListenerOptions::from_config(&config)[0].send_buffer_bytes,
            None
        );
    }

    #[test]
    fn limits_of_listeners_and_addresses_are_read() {
        let config = config(&[
            ("listeners", "A://127.0.0.1:1,B://[::1]:2"),
            ("listener.security.protocol.map", "A:PLAINTEXT,B:PLAINTEXT"),
            ("inter.broker.listener.name", "B"),
            ("listener.name.a.max.connections", "7"),
            ("max.connections", "9"),
            ("max.connections.per.ip.overrides", "10.0.0.1:3"),
            ("socket.send.buffer.bytes", "4096"),
        ]);
        let limits = ConnectionLimits::from_config(&config);
        assert_eq!(limits.broker, Some(9));
        assert_eq!(limits.listeners["A"].connections, Some(7));
        assert_eq!(limits.listeners["B"].connections, None);
        assert_eq!(limits.protected_listener.as_deref(), Some("B"));
        assert_eq!(
            limits.per_address_overrides[&IpAddr::from([10, 0, 0, 1])],
            3
        );
        let listeners = ListenerOptions::from_config(&config);
        assert_eq!((listeners[1].host.as_str(), listeners[1].port), ("::1", 2));
        assert_eq!(listeners[1].send_buffer_bytes, Some(4096));
    }
}
