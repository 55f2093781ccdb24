//! One row of the configuration table.

use super::error::{ConfigError, ConfigProblem};

/// The type of a value (`ConfigDef.Type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

impl Kind {
    /// The number of the type in `DescribeConfigs`.
    pub fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }

    pub(super) fn kafka_parse_message(self) -> &'static str {
        match self {
            Self::Boolean => "Expected value to be either true or false",
            Self::Int => "Not a number of type INT",
            Self::Short => "Not a number of type SHORT",
            Self::Long => "Not a number of type LONG",
            Self::Double => "Not a number of type DOUBLE",
            Self::String | Self::List | Self::Class | Self::Password => "Not a text",
        }
    }

    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Boolean => "true or false",
            Self::Int | Self::Short | Self::Long => "such a whole number",
            Self::Double => "a number",
            Self::String | Self::List | Self::Class | Self::Password => "a text",
        }
    }

    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Boolean => "`true` or `false`",
            Self::Int => "a whole number from -2147483648 to 2147483647",
            Self::Short => "a whole number from -32768 to 32767",
            Self::Long => "a whole number of 64 bits",
            Self::Double => "a number such as 0.5",
            Self::String | Self::List | Self::Class | Self::Password => "a text",
        }
    }
}

/// Which values of the right type are allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Check {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// A range and -1 ("let the codec choose").
    BetweenOrMinusOne(i64, i64),
    /// -1 or at least 1.
    MinusOneOrPositive,
    /// A fraction within a closed interval.
    Fraction(f64, f64),
    OneOf(&'static [&'static str]),
    /// As [`Check::OneOf`], upper and lower case alike.
    OneOfIgnoringCase(&'static [&'static str]),
    /// Each element of a list is one of these.
    EachOf(&'static [&'static str]),
    NonEmpty,
    /// `partition:broker,...` or `*`, or nothing.
    ThrottledReplicas,
    /// A version such as `3.9-IV0` or a short form of one.
    MetadataVersion,
}

impl Check {
    /// What Kafka shows of the value, and its message.
    pub(super) fn kafka_message(&self, key: &str, value: &str) -> (String, String) {
        let value = value.trim();
        let range = |least: String, most: String, below: bool| {
            if below {
                format!("Value must be at least {least}")
            } else {
                format!("Value must be no more than {most}")
            }
        };
        let message = match self {
            Self::Any => String::new(),
            Self::AtLeast(least) => format!("Value must be at least {least}"),
            Self::Between(least, most) => {
                let below = value.parse::<i64>().is_ok_and(|value| value < *least);
                range(least.to_string(), most.to_string(), below)
            }
            Self::BetweenOrMinusOne(least, most) => {
                format!("Value must be between {least} and {most} or equal to -1")
            }
            Self::MinusOneOrPositive => "Value can be -1 or greater than 0".to_owned(),
            Self::Fraction(least, most) => {
                let number = value.parse::<f64>().unwrap_or(f64::NAN);
                let message = range(least.to_string(), most.to_string(), number < *least);
                return (format!("{number:?}"), message);
            }
            Self::OneOf(allowed) => format!("String must be one of: {}", allowed.join(", ")),
            Self::OneOfIgnoringCase(allowed) => {
                format!(
                    "String must be one of (case insensitive): {}",
                    allowed.join(", ")
                )
            }
            Self::EachOf(allowed) => {
                let elements = split_list(value);
                let wrong = elements
                    .into_iter()
                    .find(|one| !allowed.contains(&one.as_str()));
                let message = format!("String must be one of: {}", allowed.join(", "));
                return (wrong.unwrap_or_default(), message);
            }
            Self::NonEmpty => "String must be non-empty".to_owned(),
            Self::ThrottledReplicas => {
                let message = format!(
                    "{key} must be the literal '*' or a list of replicas in the following format: \
                     [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                );
                return (format!("[{}]", split_list(value).join(", ")), message);
            }
            Self::MetadataVersion => format!("Version {value} is not a valid version"),
        };
        (value.to_owned(), message)
    }

    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Any => "any value".to_owned(),
            Self::AtLeast(least) => format!("{least} or more"),
            Self::Between(least, most) => format!("{least} to {most}"),
            Self::BetweenOrMinusOne(least, most) => format!("{least} to {most}, or -1"),
            Self::MinusOneOrPositive => "1 or more, or -1".to_owned(),
            Self::Fraction(least, most) => format!("a number from {least} to {most}"),
            Self::OneOf(allowed) | Self::OneOfIgnoringCase(allowed) => {
                format!("one of {}", allowed.join(", "))
            }
            Self::EachOf(allowed) => format!("a list of {}", allowed.join(", ")),
            Self::NonEmpty => "a text that is not empty, or leave the key out".to_owned(),
            Self::ThrottledReplicas => {
                "`*` or a list such as 0:101,0:102 of partition:broker".to_owned()
            }
            Self::MetadataVersion => "a version from 0.8.0 to 3.9-IV0, such as 3.9".to_owned(),
        }
    }

    /// Whether `text`, already known to be of the row's type, is allowed.
    pub(super) fn accepts(&self, text: &str) -> bool {
        let number = || text.trim().parse::<i64>();
        let elements = || split_list(text);
        match self {
            Self::Any => true,
            Self::AtLeast(least) => number().is_ok_and(|value| value >= *least),
            Self::Between(least, most) => {
                number().is_ok_and(|value| (*least..=*most).contains(&value))
            }
            Self::BetweenOrMinusOne(least, most) => {
                number().is_ok_and(|value| value == -1 || (*least..=*most).contains(&value))
            }
            Self::MinusOneOrPositive => number().is_ok_and(|value| value == -1 || value >= 1),
            Self::Fraction(least, most) => text
                .trim()
                .parse::<f64>()
                .is_ok_and(|value| value >= *least && value <= *most),
            Self::OneOf(allowed) => allowed.contains(&text.trim()),
            Self::OneOfIgnoringCase(allowed) => allowed
                .iter()
                .any(|one| one.eq_ignore_ascii_case(text.trim())),
            Self::EachOf(allowed) => elements().iter().all(|one| allowed.contains(&one.as_str())),
            Self::NonEmpty => !text.trim().is_empty(),
            Self::ThrottledReplicas => {
                text.trim() == "*" || elements().iter().all(|one| is_partition_and_broker(one))
            }
            Self::MetadataVersion => super::versions::is_metadata_version(text.trim()),
        }
    }
}

fn is_partition_and_broker(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once(':')
        .is_some_and(|(partition, broker)| digits(partition) && digits(broker))
}

/// Where a broker setting may be changed while the broker runs (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {
    /// Only in the file.
    ReadOnly,
    /// In `/config/brokers/<id>` only.
    PerBroker,
    /// In `/config/brokers/<id>` and for all brokers in `/config/brokers/<default>`.
    ClusterWide,
}

/// What this broker makes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what Kafka 3.9 does with it.
    Honoured,
    /// It is known and checked, but has no effect yet.
    NotYet,
    /// It has no effect by nature: of `KRaft` mode, or of the Java process.
    NoEffect,
}

/// One row of the table: a setting of a broker or of a topic.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    /// The default as text; `None` is Kafka's null.
    pub default: Option<&'static str>,
    pub check: Check,
    pub dynamic: Dynamic,
    pub support: Support,
    /// Kafka does not list it in `DescribeConfigs` unless it is set.
    pub internal: bool,
    /// A sentence or two for people.
    pub doc: &'static str,
}

impl Setting {
    pub(super) const fn new(name: &'static str, kind: Kind, default: Option<&'static str>) -> Self {
        Self {
            name,
            kind,
            default,
            check: Check::Any,
            dynamic: Dynamic::ReadOnly,
            support: Support::Honoured,
            internal: false,
            doc: "",
        }
    }

    pub(super) const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    pub(super) const fn check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    pub(super) const fn per_broker(mut self) -> Self {
        self.dynamic = Dynamic::PerBroker;
        self
    }

    pub(super) const fn cluster_wide(mut self) -> Self {
        self.dynamic = Dynamic::ClusterWide;
        self
    }

    pub(super) const fn not_yet(mut self) -> Self {
        self.support = Support::NotYet;
        self
    }

    pub(super) const fn no_effect(mut self) -> Self {
        self.support = Support::NoEffect;
        self
    }

    pub(super) const fn internal(mut self) -> Self {
        self.internal = true;
        self
    }

    /// Whether the value may be shown: passwords may not.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// Checks type and range of `text`.
    pub fn validate(&self, text: &str) -> Result<(), ConfigError> {
        let error = |problem| ConfigError {
            key: self.name.to_owned(),
            value: (!self.is_sensitive()).then(|| text.to_owned()),
            problem,
        };
        let trimmed = text.trim();
        let parses = match self.kind {
            Kind::Boolean => parse_boolean(trimmed).is_some(),
            Kind::Int => trimmed.parse::<i32>().is_ok(),
            Kind::Short => trimmed.parse::<i16>().is_ok(),
            Kind::Long => trimmed.parse::<i64>().is_ok(),
            Kind::Double => trimmed.parse::<f64>().is_ok(),
            Kind::String | Kind::List | Kind::Class | Kind::Password => true,
        };
        if !parses {
            return Err(error(ConfigProblem::NotOfKind(self.kind)));
        }
        if !self.check.accepts(trimmed) {
            return Err(error(ConfigProblem::Fails(self.check)));
        }
        Ok(())
    }
}

pub(super) fn parse_boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// Elements of a comma list, trimmed; an empty text is an empty list.
pub fn split_list(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    text.split(',').map(|one| one.trim().to_owned()).collect()
}
