//! What `DescribeConfigs` says of a broker or a topic: values, where they come from, and what stands behind
//! them (Kafka class `ConfigHelper`).

use std::collections::{BTreeMap, BTreeSet};

use super::broker::BrokerConfig;
use super::setting::{Dynamic, Kind, Setting, parse_boolean, split_list};
use super::table;

type Texts = BTreeMap<String, String>;

/// Where a value was set, the strongest first. The number is that of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    DynamicBrokerLogger = 6,
}

/// One place that gives a setting a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    /// Absent if it is secret.
    pub value: Option<String>,
    pub source: Source,
}

/// One setting as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    /// Absent if it is null or secret.
    pub value: Option<String>,
    pub read_only: bool,
    pub sensitive: bool,
    pub source: Source,
    /// The strongest first; the first is the one in force.
    pub synonyms: Vec<Synonym>,
    /// Absent for a key that nobody knows.
    pub kind: Option<Kind>,
    pub doc: Option<&'static str>,
}

/// The texts of all places, each by key.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    pub file: &'a Texts,
    /// `/config/brokers/<default>`
    pub cluster: &'a Texts,
    /// `/config/brokers/<id>`
    pub broker: &'a Texts,
}

impl Layers<'_> {
    fn merged(&self) -> Texts {
        let mut merged = self.file.clone();
        merged.extend(self.cluster.clone());
        merged.extend(self.broker.clone());
        merged
    }

    /// Places that give `name` or a synonym of it a value; weaker ones of another name that come first are
    /// left out, as Kafka does.
    fn synonyms(&self, name: &str, sensitive: bool) -> Vec<Synonym> {
        let names = broker_synonyms(name);
        let layers = [
            (self.broker, Source::DynamicBroker),
            (self.cluster, Source::DynamicDefaultBroker),
            (self.file, Source::StaticBroker),
        ];
        let mut synonyms = Vec::new();
        for (texts, source) in layers {
            for synonym in &names {
                if let Some(text) = texts.get(*synonym) {
                    synonyms.push(Synonym {
                        name: (*synonym).to_owned(),
                        value: (!sensitive).then(|| text.clone()),
                        source,
                    });
                }
            }
        }
        for synonym in &names {
            if let Some(default) = table::broker_setting(synonym).and_then(|row| row.default) {
                synonyms.push(Synonym {
                    name: (*synonym).to_owned(),
                    value: (!sensitive).then(|| default.to_owned()),
                    source: Source::Default,
                });
            }
        }
        synonyms
            .into_iter()
            .skip_while(|synonym| synonym.name != name)
            .collect()
    }
}

/// Keys of which the first that is set decides, and their listener's base key for `listener.name.*`.
pub(super) fn broker_synonyms(name: &str) -> Vec<&str> {
    const FAMILIES: [&[&str]; 4] = [
        &["log.roll.ms", "log.roll.hours"],
        &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        &[
            "log.retention.ms",
            "log.retention.minutes",
            "log.retention.hours",
        ],
    ];
    if let Some(family) = FAMILIES.iter().find(|family| family.contains(&name)) {
        return family.to_vec();
    }
    match listener_base(name) {
        Some(base) => vec![name, base],
        None => vec![name],
    }
}

/// Settings that stand behind a mechanism's name in `listener.name.<listener>.<mechanism>.<key>`.
const MECHANISM_KEYS: [&str; 5] = [
    "sasl.jaas.config",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
    "sasl.server.callback.handler.class",
    "connections.max.reauth.ms",
];

/// The key that `listener.name.<listener>.<key>` overrides for one listener.
pub fn listener_base(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("listener.name.")?;
    let (_, base) = rest.split_once('.')?;
    let of_mechanism = MECHANISM_KEYS.iter().find(|key| base.ends_with(**key));
    Some(of_mechanism.copied().unwrap_or(base))
}

/// The row that says what a broker key is: its own, or that of the key it overrides for a listener.
pub fn row_of_broker_key(name: &str) -> Option<&'static Setting> {
    table::broker_setting(name)
        .or_else(|| table::throttle_setting(name))
        .or_else(|| table::broker_setting(listener_base(name)?))
}

/// A text as Kafka prints the typed value.
fn printed(row: &Setting, text: &str) -> String {
    let text = text.trim();
    match row.kind {
        Kind::Boolean => parse_boolean(text).map_or_else(|| text.to_owned(), |one| one.to_string()),
        Kind::Int | Kind::Short | Kind::Long => {
            let number = text.parse::<i64>();
            number.map_or_else(|_| text.to_owned(), |number| number.to_string())
        }
        Kind::List => split_list(text).join(","),
        Kind::Double => text.parse().map_or_else(|_| text.to_owned(), java_double),
        Kind::String | Kind::Class | Kind::Password => text.to_owned(),
    }
}

/// A number as Java prints it: with a fraction, and with an exponent if it is large or small.
fn java_double(number: f64) -> String {
    let is_plain = number == 0.0 || (1e-3..1e7).contains(&number.abs());
    if is_plain || !number.is_finite() {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        Some(_) | None => text,
    }
}

/// All settings of the broker.
pub fn describe_broker(layers: Layers<'_>) -> Vec<Described> {
    let merged = super::rules::with_node_id(&layers.merged());
    let file = super::rules::with_node_id(layers.file);
    let layers = Layers {
        file: &file,
        ..layers
    };
    let rows = table::broker_settings().filter(|row| !row.internal);
    let mut names: BTreeSet<&str> = rows.map(|row| row.name).collect();
    names.extend(merged.keys().map(String::as_str));
    let names = names.into_iter();
    names
        .map(|name| describe_broker_key(layers, name, merged.get(name).map(String::as_str)))
        .collect()
}

/// What is set for all brokers of the cluster.
pub fn describe_cluster_default(layers: Layers<'_>) -> Vec<Described> {
    let described = layers.cluster.iter().map(|(name, text)| {
        let mut described = describe_broker_key(layers, name, Some(text));
        described
            .synonyms
            .retain(|synonym| synonym.source == Source::DynamicDefaultBroker);
        described.source = source_of(&described.synonyms);
        if !described.sensitive {
            // Kafka has not made a typed value of it here.
            described.value = Some(text.clone());
        }
        described
    });
    described.collect()
}

fn source_of(synonyms: &[Synonym]) -> Source {
    synonyms
        .first()
        .map_or(Source::Default, |synonym| synonym.source)
}

fn describe_broker_key(layers: Layers<'_>, name: &str, text: Option<&str>) -> Described {
    let row = row_of_broker_key(name);
    let sensitive = row.is_none_or(Setting::is_sensitive);
    let synonyms = layers.synonyms(name, sensitive);
    let value = match row {
        Some(row) => text.map(|text| printed(row, text)).or_else(|| {
            let default = table::broker_setting(name)?.default?;
            Some(printed(row, default))
        }),
        None => None,
    };
    let dynamic = table::broker_setting(name).map_or(Dynamic::ReadOnly, |row| row.dynamic);
    Described {
        name: name.to_owned(),
        value: value.filter(|_| !sensitive),
        read_only: dynamic == Dynamic::ReadOnly,
        sensitive,
        source: source_of(&synonyms),
        synonyms,
        kind: row.map(|row| row.kind),
        doc: row.map(|row| row.doc),
    }
}

/// All settings of a topic with these overrides on a broker with this configuration.
pub fn describe_topic(
    layers: Layers<'_>,
    broker: &BrokerConfig,
    overrides: &Texts,
) -> Vec<Described> {
    let inherited = broker.topic_defaults();
    let mut names: Vec<&str> = table::topic_settings().map(|row| row.name).collect();
    let unknown = overrides
        .keys()
        .filter(|key| table::topic_setting(key).is_none());
    names.extend(unknown.map(String::as_str));
    let described = names.into_iter().map(|name| {
        let row = table::topic_setting(name);
        let sensitive = row.is_none_or(Setting::is_sensitive);
        let text = overrides.get(name).or_else(|| inherited.get(name));
        let value = row.and_then(|row| {
            let text = text.map(String::as_str).or(row.default)?;
            Some(printed(row, text))
        });
        let behind = table::topic_synonyms(name).first();
        let mut synonyms = behind.map_or_else(Vec::new, |key| layers.synonyms(key, sensitive));
        if overrides.contains_key(name) {
            let own = Synonym {
                name: name.to_owned(),
                value: value.clone(),
                source: Source::Topic,
            };
            synonyms.insert(0, own);
        }
        Described {
            name: name.to_owned(),
            value,
            read_only: false,
            sensitive,
            source: source_of(&synonyms),
            synonyms,
            kind: row.map(|row| row.kind),
            doc: row.map(|row| row.doc),
        }
    });
    described.collect()
}
