//! The table against what Kafka 3.9.1 answers to `DescribeConfigs`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::config::setting::Dynamic;

fn described(resource_type: i64) -> Vec<Value> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/wire/describeconfigs.json");
    let text = std::fs::read_to_string(path).unwrap();
    let resources: Vec<Value> = serde_json::from_str(&text).unwrap();
    let resource = resources
        .into_iter()
        .find(|resource| resource["resourceType"] == resource_type)
        .unwrap();
    resource["configs"].as_array().unwrap().clone()
}

/// The value in the layer of defaults (maybe null), if the recording shows it.
#[expect(
    clippy::option_option,
    reason = "a null default is a default that is shown"
)]
fn recorded_default(config: &Value) -> Option<Option<&str>> {
    if config["configSource"] == 5 {
        return Some(config["value"].as_str());
    }
    let synonyms = config["synonyms"].as_array().unwrap();
    let default = synonyms
        .iter()
        .find(|one| one["source"] == 5 && one["name"] == config["name"])?;
    Some(default["value"].as_str())
}

#[test]
fn broker_settings_are_kafkas() {
    let described = described(4);
    let mut seen = BTreeSet::new();
    for config in &described {
        let name = config["name"].as_str().unwrap();
        seen.insert(name.to_owned());
        if name == "file.delete.delay.ms" {
            // A topic's key in the recorded broker's file: unknown to brokers.
            assert!(broker_setting(name).is_none());
            continue;
        }
        let row = broker_setting(name).unwrap_or_else(|| panic!("{name} has no row"));
        assert_eq!(config["configType"], row.kind.code(), "type of {name}");
        assert_eq!(config["isSensitive"], row.is_sensitive(), "{name}");
        let read_only = row.dynamic == Dynamic::ReadOnly;
        assert_eq!(config["readOnly"], read_only, "read-only {name}");
        if let Some(default) = recorded_default(config) {
            assert_eq!(default, row.default, "default of {name}");
        }
    }
    for row in broker_settings().filter(|row| !row.internal) {
        assert!(seen.contains(row.name), "Kafka has no {}", row.name);
    }
}

#[test]
fn topic_settings_are_kafkas() {
    let described = described(2);
    assert_eq!(described.len(), topic_settings().count());
    for config in &described {
        let name = config["name"].as_str().unwrap();
        let row = topic_setting(name).unwrap_or_else(|| panic!("{name} has no row"));
        assert_eq!(config["configType"], row.kind.code(), "type of {name}");
        if config["configSource"] == 5 {
            assert_eq!(config["value"].as_str(), row.default, "default of {name}");
        }
        for synonym in config["synonyms"].as_array().unwrap() {
            let synonym = synonym["name"].as_str().unwrap();
            assert!(
                topic_synonyms(name).contains(&synonym),
                "{synonym} for {name}"
            );
        }
    }
}

#[test]
fn every_row_is_explained_and_its_default_is_allowed() {
    for row in broker_settings()
        .chain(topic_settings())
        .chain(own_settings())
    {
        assert!(!row.doc.is_empty(), "{} has no doc", row.name);
        if let Some(default) = row.default {
            assert_eq!(row.validate(default), Ok(()), "default of {}", row.name);
        }
    }
}

#[test]
fn synonyms_name_rows_of_both_tables() {
    for (topic_key, synonyms) in SYNONYMS {
        assert!(topic_setting(topic_key).is_some(), "{topic_key}");
        for synonym in *synonyms {
            assert!(broker_setting(synonym).is_some(), "{synonym}");
        }
    }
}
