//! Reading JSON as Kafka's own reader does: by key and by type, without caring for the rest.

use serde_json::{Map, Value};

/// Why the data of a znode cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedZnode {
    #[error("the data is not a JSON object")]
    NotAnObject,
    #[error("the key `{0}` is missing")]
    Missing(&'static str),
    #[error("the value of `{key}` is not {expected}")]
    Unexpected {
        key: &'static str,
        expected: &'static str,
    },
    #[error("the data is not {0}")]
    NotText(&'static str),
}

/// A JSON object being read.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a Map<String, Value>);

/// Parses bytes that should be one JSON object.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, MalformedZnode> {
    serde_json::from_slice(bytes).map_err(|_| MalformedZnode::NotAnObject)
}

pub(super) fn encode(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value) -> Result<Self, MalformedZnode> {
        value
            .as_object()
            .map(Self)
            .ok_or(MalformedZnode::NotAnObject)
    }

    /// The value of a key; a JSON null counts as absent.
    pub(super) fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn need(self, key: &'static str) -> Result<&'a Value, MalformedZnode> {
        self.get(key).ok_or(MalformedZnode::Missing(key))
    }

    pub(super) fn int(self, key: &'static str) -> Result<i32, MalformedZnode> {
        self.need(key).and_then(|value| int(key, value))
    }

    pub(super) fn int_or(self, key: &'static str, default: i32) -> Result<i32, MalformedZnode> {
        self.get(key).map_or(Ok(default), |value| int(key, value))
    }

    pub(super) fn long(self, key: &'static str) -> Result<i64, MalformedZnode> {
        self.need(key)?.as_i64().ok_or(MalformedZnode::Unexpected {
            key,
            expected: "a 64-bit number",
        })
    }

    pub(super) fn text(self, key: &'static str) -> Result<&'a str, MalformedZnode> {
        self.need(key).and_then(|value| text(key, value))
    }

    pub(super) fn optional_text(
        self,
        key: &'static str,
    ) -> Result<Option<&'a str>, MalformedZnode> {
        self.get(key).map(|value| text(key, value)).transpose()
    }

    /// A number written as a string.
    pub(super) fn long_text(self, key: &'static str) -> Result<i64, MalformedZnode> {
        self.text(key)?
            .parse()
            .map_err(|_| MalformedZnode::Unexpected {
                key,
                expected: "a number written as text",
            })
    }

    pub(super) fn object(self, key: &'static str) -> Result<Fields<'a>, MalformedZnode> {
        object(key, self.need(key)?)
    }

    pub(super) fn optional_object(
        self,
        key: &'static str,
    ) -> Result<Option<Fields<'a>>, MalformedZnode> {
        self.get(key).map(|value| object(key, value)).transpose()
    }

    pub(super) fn list(self, key: &'static str) -> Result<&'a [Value], MalformedZnode> {
        self.need(key).and_then(|value| list(key, value))
    }

    pub(super) fn entries(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

pub(super) fn int(key: &'static str, value: &Value) -> Result<i32, MalformedZnode> {
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    number.ok_or(MalformedZnode::Unexpected {
        key,
        expected: "a 32-bit number",
    })
}

pub(super) fn text<'a>(key: &'static str, value: &'a Value) -> Result<&'a str, MalformedZnode> {
    value.as_str().ok_or(MalformedZnode::Unexpected {
        key,
        expected: "text",
    })
}

pub(super) fn object<'a>(
    key: &'static str,
    value: &'a Value,
) -> Result<Fields<'a>, MalformedZnode> {
    value
        .as_object()
        .map(Fields)
        .ok_or(MalformedZnode::Unexpected {
            key,
            expected: "an object",
        })
}

pub(super) fn list<'a>(key: &'static str, value: &'a Value) -> Result<&'a [Value], MalformedZnode> {
    value
        .as_array()
        .map(Vec::as_slice)
        .ok_or(MalformedZnode::Unexpected {
            key,
            expected: "a list",
        })
}
