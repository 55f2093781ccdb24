//! What the table of settings says about each against what the code does with it: a setting that is used is
//! honoured, and one that nobody uses says so at the start.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use barnabas_core::config::table;
use barnabas_core::config::{BrokerConfig, Support};

/// Checked, described or read for the sake of others, and without an effect of their own yet.
const READ_BUT_WITHOUT_EFFECT: &[&str] = &[
    "connection.failed.authentication.delay.ms",
    "connections.max.reauth.ms",
    "control.plane.listener.name",
    "sasl.jaas.config",
    "sasl.server.callback.handler.class",
    "ssl.key.password",
    // Refused at the start.
    "authorizer.class.name",
    "alter.config.policy.class.name",
    "client.quota.callback.class",
    "create.topic.policy.class.name",
];

/// All code that may use a setting: not the table itself, not the list of fields, not tests.
fn code() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    let mut folders = vec![root.join("src"), root.join("core/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(root).unwrap();
            let text = below.to_string_lossy();
            let is_skipped = text.contains("/config/table") || text.ends_with("config/broker.rs");
            if is_skipped || text.contains("test") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                let tests = source.find("#[cfg(test)]\nmod tests {");
                code.push_str(&source[..tests.unwrap_or(source.len())]);
            }
        }
    }
    code
}

/// Whether `word` stands in `code` by itself.
fn has_word(code: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part)
    })
}

#[test]
fn settings_are_what_the_table_says_they_are() {
    let code = code();
    let behind_topics: Vec<&str> = table::topic_settings()
        .flat_map(|topic| table::topic_synonyms(topic.name))
        .copied()
        .collect();
    let mut wrong = Vec::new();
    for setting in table::broker_settings() {
        let field = setting.name.replace('.', "_");
        let quoted = format!("\"{}\"", setting.name);
        let is_used = has_word(&code, &field) || code.contains(&quoted);
        let has_effect = is_used && !READ_BUT_WITHOUT_EFFECT.contains(&setting.name);
        match setting.support {
            Support::NotYet if has_effect => {
                wrong.push(format!("{} is used: drop `.not_yet()`", setting.name));
            }
            Support::Honoured if !has_effect && !behind_topics.contains(&setting.name) => {
                wrong.push(format!("{} is not used: add `.not_yet()`", setting.name));
            }
            Support::NotYet | Support::Honoured | Support::NoEffect => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_has_no_effect_yet_is_said() {
    let given = [("zookeeper.connect", "z:1"), ("log.preallocate", "true")];
    let given: BTreeMap<String, String> = given
        .map(|(key, text)| (key.to_owned(), text.to_owned()))
        .into();
    let config = BrokerConfig::parse(&given).unwrap();
    let is_said = config.keys_not_honoured_yet() == ["log.preallocate"];
    let is_honoured = table::broker_setting("log.preallocate")
        .is_some_and(|setting| setting.support == Support::Honoured);
    assert!(is_said || is_honoured);
}
