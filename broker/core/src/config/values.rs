//! From the text of a setting to a typed value.

use std::collections::BTreeMap;
use std::fmt;

use super::error::{ConfigError, ConfigProblem};
use super::setting::{Setting, parse_boolean, split_list};

/// A secret that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// Given texts over the defaults of a table.
pub(super) struct Values<'a> {
    pub(super) lookup: fn(&str) -> Option<&'static Setting>,
    pub(super) given: &'a BTreeMap<String, String>,
}

impl Values<'_> {
    /// The value of a key of the table: what was given, else the default.
    pub(super) fn get<T: FromText>(&self, key: &'static str) -> Result<T, ConfigError> {
        let setting = (self.lookup)(key).expect("typed settings name rows of the table");
        let text = self.given.get(key).map(String::as_str);
        if let Some(text) = text {
            setting.validate(text)?;
        }
        let text = text.or(setting.default).map(str::trim);
        T::from_text(text).ok_or_else(|| ConfigError {
            key: key.to_owned(),
            value: text.map(str::to_owned),
            problem: ConfigProblem::NotOfKind(setting.kind),
        })
    }
}

/// A type that a setting can have.
pub(super) trait FromText: Sized {
    fn from_text(text: Option<&str>) -> Option<Self>;
}

macro_rules! number_from_text {
    ($($number:ty)*) => {$(
        impl FromText for $number {
            fn from_text(text: Option<&str>) -> Option<Self> {
                text?.parse().ok()
            }
        }
    )*};
}

number_from_text!(i16 i32 i64 f64);

impl FromText for bool {
    fn from_text(text: Option<&str>) -> Option<Self> {
        parse_boolean(text?)
    }
}

impl FromText for String {
    fn from_text(text: Option<&str>) -> Option<Self> {
        text.map(str::to_owned)
    }
}

impl FromText for Password {
    fn from_text(text: Option<&str>) -> Option<Self> {
        text.map(|text| Self(text.to_owned()))
    }
}

impl FromText for Vec<String> {
    fn from_text(text: Option<&str>) -> Option<Self> {
        Some(split_list(text.unwrap_or_default()))
    }
}

impl<T: FromText> FromText for Option<T> {
    fn from_text(text: Option<&str>) -> Option<Self> {
        match text {
            None => Some(None),
            Some(text) => T::from_text(Some(text)).map(Some),
        }
    }
}
