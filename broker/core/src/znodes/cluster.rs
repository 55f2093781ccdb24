//! The cluster itself: its id, its brokers, its controller, its features, its producer ids.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::json::{Fields, MalformedZnode, encode, int, object, parse, text};
use crate::control::{Endpoint, LiveBroker, SecurityProtocol};
use crate::ids::{BrokerId, ControllerEpoch};

/// `/cluster/id`: 16 random bytes in URL-safe base64 without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterId(pub String);

impl ClusterId {
    pub const PATH: &'static str = "/cluster/id";

    /// A new id for a new cluster.
    pub fn random(random: &mut impl rand::Rng) -> Self {
        let id = uuid::Builder::from_random_bytes(random.random()).into_uuid();
        Self(URL_SAFE_NO_PAD.encode(id.as_bytes()))
    }

    /// The version is text here, and only here.
    pub fn encode(&self) -> Vec<u8> {
        encode(&json!({"version": "1", "id": self.0}))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let value = parse(bytes)?;
        let id = Fields::of(&value)?.text("id")?;
        Ok(Self(id.to_owned()))
    }
}

/// Why an endpoint's text cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an endpoint like `NAME://host:port`")]
pub struct InvalidEndpoint(pub String);

/// Versions of a feature that a broker supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupportedFeature {
    pub min_version: i16,
    pub max_version: i16,
}

/// `/brokers/ids/<id>` (version 5; versions 1 to 4 are read): a live broker. Ephemeral; its czxid is the broker epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    pub id: BrokerId,
    pub endpoints: Vec<Endpoint>,
    pub rack: Option<String>,
    /// -1 if there is none.
    pub jmx_port: i32,
    /// When the broker registered; milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// A broker in ZooKeeper mode supports none.
    pub features: BTreeMap<String, SupportedFeature>,
    /// Whether other brokers may remove this registration once the broker's process is known to be gone. Who says
    /// so watches its own registration and registers anew should it have been alive. Kafka ignores the key.
    pub fast_failover: bool,
}

impl SecurityProtocol {
    /// Kafka's name of the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// The protocol of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::Plaintext,
            Self::Ssl,
            Self::SaslPlaintext,
            Self::SaslSsl,
        ];
        all.into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }
}

impl BrokerRegistration {
    /// The parent of all registrations.
    pub const PARENT: &'static str = "/brokers/ids";

    const FAST_FAILOVER: &'static str = "barnabas_fast_failover";

    pub fn path(id: BrokerId) -> String {
        format!("{}/{id}", Self::PARENT)
    }

    /// The broker as metadata shows it.
    pub fn live_broker(&self) -> LiveBroker {
        LiveBroker {
            id: self.id,
            endpoints: self.endpoints.clone(),
            rack: self.rack.clone(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let protocols = self.endpoints.iter().map(|endpoint| {
            let protocol = endpoint.security_protocol.name();
            (endpoint.listener.clone(), Value::from(protocol))
        });
        let protocols: Map<String, Value> = protocols.collect();
        let features = self.features.iter().map(|(name, range)| {
            let range = json!({"min_version": range.min_version, "max_version": range.max_version});
            (name.clone(), range)
        });
        let features: Map<String, Value> = features.collect();
        // Readers older than listeners (0.9) know a host and a port only, and only in the clear.
        let mut endpoints = self.endpoints.iter();
        let plaintext =
            endpoints.find(|endpoint| endpoint.security_protocol == SecurityProtocol::Plaintext);
        let texts: Vec<String> = self.endpoints.iter().map(endpoint_text).collect();
        let mut value = json!({
            "version": 5,
            "host": plaintext.map(|endpoint| endpoint.host.as_str()),
            "port": plaintext.map_or(-1, |endpoint| i32::from(endpoint.port)),
            "jmx_port": self.jmx_port,
            "timestamp": self.timestamp_ms.to_string(),
            "endpoints": texts,
            "listener_security_protocol_map": protocols,
            "features": features,
        });
        if let Some(rack) = &self.rack {
            value["rack"] = Value::from(rack.as_str());
        }
        if self.fast_failover {
            value[Self::FAST_FAILOVER] = Value::from(true);
        }
        encode(&value)
    }

    /// Reads the registration of broker `id`.
    pub fn decode(id: BrokerId, bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let value = parse(bytes)?;
        let fields = Fields::of(&value)?;
        let version = fields.int("version")?;
        if version < 1 {
            return Err(MalformedZnode::Unexpected {
                key: "version",
                expected: "1 or more",
            });
        }
        let endpoints = if version == 1 {
            vec![endpoint_of_version_1(fields)?]
        } else {
            endpoints(fields)?
        };
        let timestamp = fields.get("timestamp");
        Ok(Self {
            id,
            endpoints,
            rack: fields.optional_text("rack")?.map(str::to_owned),
            jmx_port: fields.int_or("jmx_port", -1)?,
            timestamp_ms: timestamp.and_then(lenient_long).unwrap_or(-1),
            features: supported_features(fields)?,
            // Anything but `true` asks for nothing.
            fast_failover: fields.get(Self::FAST_FAILOVER) == Some(&Value::Bool(true)),
        })
    }
}

/// Nobody decides on a registration's time, so a strange one is no reason to ignore the broker.
fn lenient_long(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn endpoint_of_version_1(fields: Fields<'_>) -> Result<Endpoint, MalformedZnode> {
    let port = u16::try_from(fields.int("port")?);
    Ok(Endpoint {
        listener: SecurityProtocol::Plaintext.name().to_owned(),
        security_protocol: SecurityProtocol::Plaintext,
        host: fields.text("host")?.to_owned(),
        port: port.map_err(|_| MalformedZnode::Unexpected {
            key: "port",
            expected: "a port",
        })?,
    })
}

fn endpoints(fields: Fields<'_>) -> Result<Vec<Endpoint>, MalformedZnode> {
    let protocols = fields.optional_object("listener_security_protocol_map")?;
    let bad_endpoint = MalformedZnode::Unexpected {
        key: "endpoints",
        expected: "a list of `NAME://host:port`",
    };
    let bad_protocol = MalformedZnode::Unexpected {
        key: "listener_security_protocol_map",
        expected: "a security protocol for every endpoint",
    };
    let listed = fields.list("endpoints")?.iter();
    listed
        .map(|value| {
            let (listener, host, port) =
                split_endpoint(text("endpoints", value)?).map_err(|_| bad_endpoint.clone())?;
            let protocol = match protocols {
                Some(protocols) => protocols.get(&listener).and_then(Value::as_str),
                None => Some(listener.as_str()),
            };
            let protocol = protocol.and_then(SecurityProtocol::from_name);
            Ok(Endpoint {
                security_protocol: protocol.ok_or_else(|| bad_protocol.clone())?,
                listener,
                host,
                port,
            })
        })
        .collect()
}

fn endpoint_text(endpoint: &Endpoint) -> String {
    let Endpoint {
        listener,
        host,
        port,
        ..
    } = endpoint;
    if host.contains(':') {
        format!("{listener}://[{host}]:{port}")
    } else {
        format!("{listener}://{host}:{port}")
    }
}

fn split_endpoint(text: &str) -> Result<(String, String, u16), InvalidEndpoint> {
    let invalid = || InvalidEndpoint(text.to_owned());
    let (listener, address) = text.split_once("://").ok_or_else(invalid)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bracketed.unwrap_or(host);
    let port = port.parse().map_err(|_| invalid())?;
    if listener.is_empty() {
        return Err(invalid());
    }
    Ok((listener.to_uppercase(), host.to_owned(), port))
}

fn supported_features(
    fields: Fields<'_>,
) -> Result<BTreeMap<String, SupportedFeature>, MalformedZnode> {
    let Some(features) = fields.optional_object("features")? else {
        return Ok(BTreeMap::new());
    };
    let entries = features.entries().map(|(name, value)| {
        let range = object("features", value)?;
        let supported = SupportedFeature {
            min_version: short("min_version", range.get("min_version"))?,
            max_version: short("max_version", range.get("max_version"))?,
        };
        Ok((name.to_owned(), supported))
    });
    entries.collect()
}

fn short(key: &'static str, value: Option<&Value>) -> Result<i16, MalformedZnode> {
    let number = int(key, value.ok_or(MalformedZnode::Missing(key))?)?;
    i16::try_from(number).map_err(|_| MalformedZnode::Unexpected {
        key,
        expected: "a 16-bit number",
    })
}

/// `/brokers/seqid`: its data version counts the broker ids handed out to brokers without one.
#[derive(Clone, Copy, Debug)]
pub struct BrokerSequence;

impl BrokerSequence {
    pub const PATH: &'static str = "/brokers/seqid";

    /// The id that goes with the version a write returned, above `reserved.broker.max.id`.
    pub fn broker_id(version: i32, reserved_broker_max_id: i32) -> BrokerId {
        BrokerId(version.saturating_add(reserved_broker_max_id))
    }
}

/// `/controller` (version 2): the active controller. Ephemeral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerSeat {
    pub broker_id: BrokerId,
    /// When it was elected; milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Above 0 only while the cluster moves to `KRaft`; then no broker may write configurations.
    pub kraft_controller_epoch: i32,
}

impl ControllerSeat {
    pub const PATH: &'static str = "/controller";

    /// The seat of a controller in ZooKeeper mode.
    pub fn new(broker_id: BrokerId, timestamp_ms: i64) -> Self {
        Self {
            broker_id,
            timestamp_ms,
            kraft_controller_epoch: -1,
        }
    }

    pub fn is_kraft(&self) -> bool {
        self.kraft_controller_epoch > 0
    }

    pub fn encode(&self) -> Vec<u8> {
        encode(&json!({
            "version": 2,
            "brokerid": self.broker_id.0,
            "timestamp": self.timestamp_ms.to_string(),
            "kraftControllerEpoch": self.kraft_controller_epoch,
        }))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let value = parse(bytes)?;
        let fields = Fields::of(&value)?;
        let timestamp = fields.get("timestamp");
        Ok(Self {
            broker_id: BrokerId(fields.int("brokerid")?),
            timestamp_ms: timestamp.and_then(lenient_long).unwrap_or(-1),
            kraft_controller_epoch: fields.int_or("kraftControllerEpoch", -1)?,
        })
    }
}

/// `/controller_epoch`: a decimal number as text. Its *data version* is what fences controllers.
#[derive(Clone, Copy, Debug)]
pub struct ControllerEpochZnode;

impl ControllerEpochZnode {
    pub const PATH: &'static str = "/controller_epoch";
    /// What the node is created with; the first controller then writes 1.
    pub const INITIAL: ControllerEpoch = 0;

    pub fn encode(epoch: ControllerEpoch) -> Vec<u8> {
        epoch.to_string().into_bytes()
    }

    pub fn decode(bytes: &[u8]) -> Result<ControllerEpoch, MalformedZnode> {
        decimal(bytes)
    }
}

fn decimal<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, MalformedZnode> {
    let text = std::str::from_utf8(bytes).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or(MalformedZnode::NotText("a decimal number"))
}

/// `/latest_producer_id_block` (version 1): the block of producer ids that was handed out last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The broker that got it.
    pub broker: BrokerId,
    /// The ids in it.
    pub ids: RangeInclusive<i64>,
}

impl ProducerIdBlock {
    pub const PATH: &'static str = "/latest_producer_id_block";
    /// How many ids a block has.
    pub const SIZE: i64 = 1000;

    /// The block after `latest` for `broker`; `None` if all ids are used up.
    pub fn next(latest: Option<&Self>, broker: BrokerId) -> Option<Self> {
        let start = latest.map_or(Some(0), |latest| latest.ids.end().checked_add(1))?;
        let end = start.checked_add(Self::SIZE - 1)?;
        Some(Self {
            broker,
            ids: start..=end,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        encode(&json!({
            "version": 1,
            "broker": self.broker.0,
            "block_start": self.ids.start().to_string(),
            "block_end": self.ids.end().to_string(),
        }))
    }

    /// `None` for the null data of a node that was just created.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, MalformedZnode> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let value = parse(bytes)?;
        let fields = Fields::of(&value)?;
        Ok(Some(Self {
            broker: BrokerId(fields.int("broker")?),
            ids: fields.long_text("block_start")?..=fields.long_text("block_end")?,
        }))
    }
}

/// Whether finalized features are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureStatus {
    /// 0
    Disabled,
    /// 1
    Enabled,
}

/// `/feature` (version 2; version 1 is read): the finalized features of the cluster (KIP-584).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// 1 or 2, as found; 2 is written.
    pub version: i32,
    pub status: FeatureStatus,
    /// The highest level in force of each feature.
    pub features: BTreeMap<String, i16>,
}

impl Feature {
    pub const PATH: &'static str = "/feature";

    /// What a controller in ZooKeeper mode writes: enabled, and no features.
    pub fn enabled(features: BTreeMap<String, i16>) -> Self {
        Self {
            version: 2,
            status: FeatureStatus::Enabled,
            features,
        }
    }

    /// Always version 2.
    pub fn encode(&self) -> Vec<u8> {
        let status = match self.status {
            FeatureStatus::Disabled => 0,
            FeatureStatus::Enabled => 1,
        };
        let levels = self.features.iter();
        let levels = levels.map(|(name, max)| (name.clone(), json!({"max_version_level": max})));
        let levels: Map<String, Value> = levels.collect();
        encode(&json!({"version": 2, "status": status, "features": levels}))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let value = parse(bytes)?;
        let fields = Fields::of(&value)?;
        let unexpected = |key, expected| MalformedZnode::Unexpected { key, expected };
        let version = fields.int("version")?;
        if !(1..=2).contains(&version) {
            return Err(unexpected("version", "1 or 2"));
        }
        let status = match fields.int("status")? {
            0 => FeatureStatus::Disabled,
            1 => FeatureStatus::Enabled,
            _ => return Err(unexpected("status", "0 or 1")),
        };
        let levels = fields.object("features")?;
        let levels = levels.entries().map(|(name, value)| {
            let level = object("features", value)?.get("max_version_level");
            Ok((name.to_owned(), short("max_version_level", level)?))
        });
        Ok(Self {
            version,
            status,
            features: levels.collect::<Result<_, _>>()?,
        })
    }
}

/// `/migration` (version 0): where a `KRaft` controller stands in a migration. Read only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    pub kraft_controller_id: i32,
    pub kraft_controller_epoch: i32,
    pub kraft_metadata_offset: i64,
    pub kraft_metadata_epoch: i32,
}

impl Migration {
    pub const PATH: &'static str = "/migration";

    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let value = parse(bytes)?;
        let fields = Fields::of(&value)?;
        Ok(Self {
            kraft_controller_id: fields.int("kraft_controller_id")?,
            kraft_controller_epoch: fields.int("kraft_controller_epoch")?,
            kraft_metadata_offset: fields.long("kraft_metadata_offset")?,
            kraft_metadata_epoch: fields.int("kraft_metadata_epoch")?,
        })
    }
}

/// `/consumers/<group>/offsets/<topic>/<partition>`: an offset committed with version 0 of `OffsetCommit`.
#[derive(Clone, Copy, Debug)]
pub struct OldConsumerOffset;

impl OldConsumerOffset {
    pub fn path(group: &str, topic: &str, partition: i32) -> String {
        format!("/consumers/{group}/offsets/{topic}/{partition}")
    }

    pub fn encode(offset: i64) -> Vec<u8> {
        offset.to_string().into_bytes()
    }

    pub fn decode(bytes: &[u8]) -> Result<i64, MalformedZnode> {
        decimal(bytes)
    }
}
