//! Resources for topics that exist.

use std::collections::BTreeMap;

use ring::digest;

use super::values::THROTTLES;
use crate::cluster::{ClusterView, TopicView};
use crate::resource::{ConfigValue, Topic, TopicSpec};

/// A name that Kubernetes accepts: lower case, other characters as `-`, and a hash if that changed anything.
pub fn resource_name(topic: &str) -> String {
    let mut name: String = topic
        .chars()
        .map(|one| match one {
            'a'..='z' | '0'..='9' | '.' | '-' => one,
            'A'..='Z' => one.to_ascii_lowercase(),
            _ => '-',
        })
        .collect();
    let edges: &[char] = &['-', '.'];
    // Labels between dots begin and end with a letter or digit.
    let labels = name
        .trim_matches(edges)
        .split('.')
        .map(|label| label.trim_matches('-'));
    name = labels
        .filter(|label| !label.is_empty())
        .collect::<Vec<_>>()
        .join(".");
    if name == topic {
        return name;
    }
    let hash = digest::digest(&digest::SHA256, topic.as_bytes());
    let (hash, _) = hash.as_ref().split_at(4);
    let hash = hash
        .iter()
        .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    let hash = format!("{hash:08x}");
    if name.is_empty() {
        return format!("topic-{hash}");
    }
    name.truncate(240);
    format!("{}-{hash}", name.trim_end_matches(edges))
}

fn value(text: &str) -> ConfigValue {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => ConfigValue::Int(number),
        _ => ConfigValue::Text(text.to_owned()),
    }
}

fn resource(namespace: Option<&str>, topic: &TopicView) -> Topic {
    let name = resource_name(&topic.name);
    let config: BTreeMap<String, ConfigValue> = topic
        .overrides
        .iter()
        .filter(|(key, _)| !THROTTLES.contains(&key.as_str()))
        .map(|(key, text)| (key.clone(), value(text)))
        .collect();
    let is_renamed = name != *topic.name;
    let mut exported = Topic::new(
        &name,
        TopicSpec {
            topic_name: is_renamed.then(|| topic.name.to_string()),
            partitions: Some(topic.partitions.len() as i32),
            replicas: Some(topic.replication_factor() as i32),
            config: (!config.is_empty()).then_some(config),
            ..TopicSpec::default()
        },
    );
    exported.metadata.namespace = namespace.map(str::to_owned);
    exported
}

/// YAML documents for all topics but internal ones, by name.
pub fn manifests(view: &ClusterView, namespace: Option<&str>) -> Result<String, serde_yaml::Error> {
    let mut text = String::new();
    for topic in view.topics.values() {
        if topic.is_internal || topic.name.starts_with("__") {
            continue;
        }
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(&resource(namespace, topic))?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_what_kubernetes_accepts() {
        assert_eq!(resource_name("orders"), "orders");
        assert_eq!(resource_name("a.b-c"), "a.b-c");
        assert!(resource_name("Orders_v1").starts_with("orders-v1-"));
        for odd in [
            "Orders_v1",
            "_",
            "..a",
            "a..b",
            "a.-b",
            &"A".repeat(249),
            "-",
        ] {
            let name = resource_name(odd);
            assert!(name.len() <= 253, "{name}");
            let is_label = |label: &str| {
                let edge = |one: Option<char>| one.is_some_and(|one| one.is_ascii_alphanumeric());
                edge(label.chars().next()) && edge(label.chars().last())
            };
            assert!(name.split('.').all(is_label), "{odd} -> {name}");
            assert_ne!(name, odd);
        }
        assert_ne!(resource_name("a_b"), resource_name("a-B"));
    }
}
