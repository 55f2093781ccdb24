//! Listeners: where a broker is reached, by whom and under which protocol.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::control::{Endpoint, SecurityProtocol};

use super::error::ConfigError;
use super::setting::split_list;
use super::values::Values;

/// The listeners of a broker, checked against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// Where to listen. An empty host is every interface; port 0 is any free port.
    pub bind: Vec<Endpoint>,
    /// What to tell others. An empty host is the canonical name of this host; port 0 is the bound one.
    pub advertised: Vec<Endpoint>,
    /// The listener that brokers use between themselves.
    pub inter_broker: String,
    /// The listener on which the controller talks to brokers, if it is one of its own.
    pub control_plane: Option<String>,
    /// Listener name to protocol, all that the map defines.
    pub protocols: BTreeMap<String, SecurityProtocol>,
}

/// The protocol of a name such as `SASL_SSL`, in any case.
pub fn security_protocol(name: &str) -> Option<SecurityProtocol> {
    match name.to_ascii_uppercase().as_str() {
        "PLAINTEXT" => Some(SecurityProtocol::Plaintext),
        "SSL" => Some(SecurityProtocol::Ssl),
        "SASL_PLAINTEXT" => Some(SecurityProtocol::SaslPlaintext),
        "SASL_SSL" => Some(SecurityProtocol::SaslSsl),
        _ => None,
    }
}

impl Listeners {
    /// The listener on which brokers and the controller talk.
    pub fn of_controller(&self) -> &String {
        self.control_plane.as_ref().unwrap_or(&self.inter_broker)
    }

    /// Listeners whose protocol cannot be served: TLS and SASL are not there yet.
    pub fn unserved(&self) -> impl Iterator<Item = &Endpoint> {
        let bind = self.bind.iter();
        bind.filter(|endpoint| endpoint.security_protocol != SecurityProtocol::Plaintext)
    }

    pub(super) fn parse(values: &Values<'_>) -> Result<Self, ConfigError> {
        let protocols = protocol_map(values)?;
        let listeners: String = values.get("listeners")?;
        let bind = endpoints("listeners", &listeners, &protocols)?;
        unique_names("listeners", &listeners, &bind)?;
        unique_ports(&listeners, &bind)?;
        let advertised = match values.get::<Option<String>>("advertised.listeners")? {
            None => bind.clone(),
            Some(text) => {
                let advertised = endpoints("advertised.listeners", &text, &protocols)?;
                unique_names("advertised.listeners", &text, &advertised)?;
                advertised
            }
        };
        let inter_broker = inter_broker(values, &protocols)?;
        let control_plane = control_plane(values, &protocols)?;
        let listeners = Self {
            bind,
            advertised,
            inter_broker,
            control_plane,
            protocols,
        };
        listeners.check(values)?;
        Ok(listeners)
    }

    fn check(&self, values: &Values<'_>) -> Result<(), ConfigError> {
        let text = |key: &str| values.given.get(key).map(String::as_str);
        let advertised_names = names(&self.advertised);
        if self.advertised.is_empty() {
            let key = if text("advertised.listeners").is_some() {
                "advertised.listeners"
            } else {
                "listeners"
            };
            return Err(ConfigError::rule(
                key,
                text(key),
                "There must be at least one broker advertised listener.",
                "give at least one, such as PLAINTEXT://:9092",
            ));
        }
        if !advertised_names.contains(&self.inter_broker.as_str()) {
            let key = if text("security.inter.broker.protocol").is_some() {
                "security.inter.broker.protocol"
            } else {
                "inter.broker.listener.name"
            };
            return Err(ConfigError::rule(
                key,
                text(key),
                format!(
                    "inter.broker.listener.name must be a listener name defined in advertised.listeners. The \
                     valid options based on currently configured listeners are {}",
                    advertised_names.join(",")
                ),
                format!("set inter.broker.listener.name={}", advertised_names[0]),
            ));
        }
        if let Some(missing) = self
            .advertised
            .iter()
            .find(|one| !self.bind.iter().any(|bound| bound.listener == one.listener))
        {
            return Err(ConfigError::rule(
                "advertised.listeners",
                text("advertised.listeners"),
                format!(
                    "advertised.listeners listener names must be equal to or a subset of the ones defined in \
                     listeners, and {} is not among them",
                    missing.listener
                ),
                format!("advertise only {}", names(&self.bind).join(", ")),
            ));
        }
        if self.advertised.iter().any(|one| one.host == "0.0.0.0") {
            let key = if text("advertised.listeners").is_some() {
                "advertised.listeners"
            } else {
                "listeners"
            };
            return Err(ConfigError::rule(
                key,
                text(key),
                "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP \
                 address.",
                "set advertised.listeners to a name or address that clients can reach",
            ));
        }
        self.check_control_plane(&advertised_names, text("control.plane.listener.name"))
    }

    fn check_control_plane(
        &self,
        advertised_names: &[&str],
        text: Option<&str>,
    ) -> Result<(), ConfigError> {
        let Some(control_plane) = &self.control_plane else {
            return Ok(());
        };
        if !advertised_names.contains(&control_plane.as_str()) {
            return Err(ConfigError::rule(
                "control.plane.listener.name",
                text,
                format!(
                    "control.plane.listener.name must be a listener name defined in advertised.listeners. The \
                     valid options based on currently configured listeners are {}",
                    advertised_names.join(",")
                ),
                format!("add {control_plane} to listeners and advertised.listeners"),
            ));
        }
        if *control_plane == self.inter_broker {
            return Err(ConfigError::rule(
                "control.plane.listener.name",
                text,
                format!(
                    "control.plane.listener.name, when defined, should have a different value from the inter \
                     broker listener name. Currently they both have the value {control_plane}"
                ),
                "give the control plane a listener of its own, or leave the key out",
            ));
        }
        Ok(())
    }
}

fn names(endpoints: &[Endpoint]) -> Vec<&str> {
    endpoints.iter().map(|one| one.listener.as_str()).collect()
}

fn protocol_map(values: &Values<'_>) -> Result<BTreeMap<String, SecurityProtocol>, ConfigError> {
    let key = "listener.security.protocol.map";
    let text: String = values.get(key)?;
    let error = |message: String| {
        let remedy = "give elements such as CLIENT:PLAINTEXT, separated by commas";
        ConfigError::rule(key, Some(&text), message, remedy)
    };
    let mut protocols = BTreeMap::new();
    for element in split_list(&text).iter().filter(|one| !one.is_empty()) {
        let (name, protocol) = element.split_once(':').ok_or_else(|| {
            error(format!(
                "`{element}` does not name a listener and a protocol"
            ))
        })?;
        let protocol = security_protocol(protocol.trim()).ok_or_else(|| {
            error(format!(
                "Invalid security protocol `{}` defined in listener.security.protocol.map",
                protocol.trim()
            ))
        })?;
        protocols.insert(name.trim().to_ascii_uppercase(), protocol);
    }
    Ok(protocols)
}

fn endpoints(
    key: &str,
    text: &str,
    protocols: &BTreeMap<String, SecurityProtocol>,
) -> Result<Vec<Endpoint>, ConfigError> {
    let error =
        |message: String, remedy: String| ConfigError::rule(key, Some(text), message, remedy);
    let mut endpoints = Vec::new();
    for element in split_list(text).iter().filter(|one| !one.is_empty()) {
        let (name, host, port) = split_endpoint(element).ok_or_else(|| {
            error(
                format!(
                    "Error creating broker listeners from '{text}': Unable to parse {element} to a broker \
                     endpoint"
                ),
                "write NAME://host:port, IPv6 addresses in brackets, such as PLAINTEXT://[::1]:9092".to_owned(),
            )
        })?;
        let listener = name.to_ascii_uppercase();
        let security_protocol = *protocols.get(&listener).ok_or_else(|| {
            error(
                format!(
                    "Error creating broker listeners from '{text}': No security protocol defined for \
                     listener {listener}"
                ),
                format!("add {listener}:PLAINTEXT (or another protocol) to listener.security.protocol.map"),
            )
        })?;
        endpoints.push(Endpoint {
            listener,
            security_protocol,
            host,
            port,
        });
    }
    Ok(endpoints)
}

/// `NAME://host:port`; the host may be empty, or IPv6 with or without brackets.
fn split_endpoint(text: &str) -> Option<(&str, String, u16)> {
    let (name, address) = text.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let is_word =
        |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || byte == b'.';
    if name.is_empty() || !name.bytes().all(is_word) {
        return None;
    }
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let inner = bracketed.unwrap_or(host);
    let allowed = |byte: u8| is_word(byte) || byte == b'%' || byte == b':';
    if !inner.bytes().all(allowed) || (bracketed.is_none() && inner.contains(['[', ']'])) {
        return None;
    }
    Some((name, inner.to_owned(), port))
}

fn unique_names(key: &str, text: &str, endpoints: &[Endpoint]) -> Result<(), ConfigError> {
    for (index, one) in endpoints.iter().enumerate() {
        if endpoints[..index]
            .iter()
            .any(|other| other.listener == one.listener)
        {
            return Err(ConfigError::rule(
                key,
                Some(text),
                format!("Each listener must have a different name, listeners: {text}"),
                format!("rename the second {}", one.listener),
            ));
        }
    }
    Ok(())
}

/// One port serves one listener, or two if one is bound to an IPv4 address and the other to an IPv6 one.
fn unique_ports(text: &str, endpoints: &[Endpoint]) -> Result<(), ConfigError> {
    let mut by_port: BTreeMap<u16, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints.iter().filter(|one| one.port != 0) {
        by_port.entry(endpoint.port).or_default().push(endpoint);
    }
    for (port, sharing) in by_port {
        let is_v4 = |one: &&Endpoint| one.host.parse::<Ipv4Addr>().is_ok();
        let is_v6 = |one: &&Endpoint| one.host.parse::<Ipv6Addr>().is_ok();
        let addresses = sharing
            .iter()
            .filter(|one| is_v4(one) || is_v6(one))
            .count();
        let message = match (sharing.len(), addresses) {
            (1, _) => continue,
            (_, 0 | 1) if addresses == 0 => {
                format!("Each listener must have a different port, listeners: {text}")
            }
            (2, 2) if sharing.iter().any(is_v4) && sharing.iter().any(is_v6) => {
                continue;
            }
            (2, 2) => format!(
                "If you have two listeners on the same port then one needs to be IPv4 and the other IPv6, \
                 listeners: {text}, port: {port}"
            ),
            _ => format!(
                "Each listener must have a different port unless exactly one listener has an IPv4 address \
                 and the other IPv6 address, listeners: {text}, port: {port}"
            ),
        };
        return Err(ConfigError::rule(
            "listeners",
            Some(text),
            message,
            format!("move all but one from port {port}"),
        ));
    }
    Ok(())
}

fn inter_broker(
    values: &Values<'_>,
    protocols: &BTreeMap<String, SecurityProtocol>,
) -> Result<String, ConfigError> {
    let name = values.get::<Option<String>>("inter.broker.listener.name")?;
    let Some(name) = name else {
        let protocol: String = values.get("security.inter.broker.protocol")?;
        return Ok(protocol);
    };
    if values.given.contains_key("security.inter.broker.protocol") {
        return Err(ConfigError::rule(
            "inter.broker.listener.name",
            Some(&name),
            "Only one of inter.broker.listener.name and security.inter.broker.protocol should be set.",
            "remove security.inter.broker.protocol",
        ));
    }
    let listener = name.to_ascii_uppercase();
    if !protocols.contains_key(&listener) {
        return Err(ConfigError::rule(
            "inter.broker.listener.name",
            Some(&name),
            format!(
                "Listener with name {listener} defined in inter.broker.listener.name not found in \
                 listener.security.protocol.map."
            ),
            format!("add {listener}:PLAINTEXT (or another protocol) to the map"),
        ));
    }
    Ok(listener)
}

fn control_plane(
    values: &Values<'_>,
    protocols: &BTreeMap<String, SecurityProtocol>,
) -> Result<Option<String>, ConfigError> {
    let Some(name) = values.get::<Option<String>>("control.plane.listener.name")? else {
        return Ok(None);
    };
    let listener = name.to_ascii_uppercase();
    if !protocols.contains_key(&listener) {
        return Err(ConfigError::rule(
            "control.plane.listener.name",
            Some(&name),
            format!(
                "Listener with {listener} defined in control.plane.listener.name not found in \
                 listener.security.protocol.map."
            ),
            format!("add {listener}:PLAINTEXT (or another protocol) to the map"),
        ));
    }
    Ok(Some(listener))
}
