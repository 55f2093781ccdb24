//! Every znode that Apache Kafka 3.9.1 wrote in the recorded runs is read, and written again as the same JSON.
#![allow(
    clippy::unwrap_used,
    reason = "a recording that cannot be read fails the test where it stands"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use barnabas_core::ids::{BrokerId, TopicPartition};
use barnabas_core::znodes::{
    AclSet, BASE_PATHS, BrokerRegistration, ClusterId, ConfigChange, ConfigEntity,
    ControllerEpochZnode, ControllerSeat, EntityConfig, ExtendedAclChange, Feature,
    LiteralAclChange, OldConsumerOffset, PartitionState, PatternType, PreferredElection,
    ProducerIdBlock, Reassignment, ResourceType, ScramCredential, ScramMechanism, TokenChange,
    TokenInformation, TopicAssignment,
};
use serde_json::Value;

fn steps(name: &str) -> Vec<Value> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/znodes");
    let zipped = std::fs::read(root.join(format!("{name}.json.gz"))).unwrap();
    serde_json::from_reader(flate2::read::GzDecoder::new(zipped.as_slice())).unwrap()
}

/// Which znode a path is, and what is written for what was read; `None` if nothing is known of it.
fn rewritten(path: &str, data: &[u8], version: i32) -> Option<(&'static str, Vec<u8>)> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let same_path = |own: String| assert_eq!(own, path);
    Some(match parts[..] {
        ["cluster", "id"] => ("cluster id", ClusterId::decode(data).unwrap().encode()),
        ["brokers", "ids", id] => {
            let id = BrokerId(id.parse().unwrap());
            same_path(BrokerRegistration::path(id));
            (
                "registration",
                BrokerRegistration::decode(id, data).unwrap().encode(),
            )
        }
        ["brokers", "topics", topic] => {
            same_path(TopicAssignment::path(topic));
            ("topic", TopicAssignment::decode(data).unwrap().encode())
        }
        ["brokers", "topics", topic, "partitions", number, "state"] => {
            let partition = TopicPartition::new(topic, number.parse().unwrap());
            same_path(PartitionState::path(&partition));
            let state = PartitionState::decode(data, version).unwrap();
            assert_eq!(state.partition_epoch, version);
            ("state", PartitionState::encode(&state))
        }
        ["brokers", "seqid"] => ("sequence", data.to_vec()),
        ["controller"] => ("controller", ControllerSeat::decode(data).unwrap().encode()),
        ["controller_epoch"] => {
            let epoch = ControllerEpochZnode::decode(data).unwrap();
            ("controller epoch", ControllerEpochZnode::encode(epoch))
        }
        ["feature"] => ("feature", Feature::decode(data).unwrap().encode()),
        ["latest_producer_id_block"] => {
            let block = ProducerIdBlock::decode(data).unwrap().unwrap();
            ("producer ids", block.encode())
        }
        ["config", "changes", _] => (
            "config change",
            ConfigChange::decode(data).unwrap().encode(),
        ),
        ["config", ..] => {
            let entity = ConfigEntity::from_entity_path(&parts[1..].join("/")).unwrap();
            same_path(entity.path());
            let config = EntityConfig::decode(data).unwrap();
            for mechanism in ScramMechanism::ALL {
                if let Some(credential) = config.0.get(mechanism.name()) {
                    let read = ScramCredential::decode(credential).unwrap();
                    assert_eq!(&read.encode(), credential);
                }
            }
            ("config", config.encode())
        }
        ["admin", "reassign_partitions"] => {
            ("reassignment", Reassignment::decode(data).unwrap().encode())
        }
        ["admin", "preferred_replica_election"] => (
            "election",
            PreferredElection::decode(data).unwrap().encode(),
        ),
        ["consumers", group, "offsets", topic, partition] => {
            same_path(OldConsumerOffset::path(
                group,
                topic,
                partition.parse().unwrap(),
            ));
            let offset = OldConsumerOffset::decode(data).unwrap();
            ("old offset", OldConsumerOffset::encode(offset))
        }
        ["kafka-acl", kind, name] | ["kafka-acl-extended", "prefixed", kind, name] => {
            let pattern = match parts[0] {
                "kafka-acl" => PatternType::Literal,
                _ => PatternType::Prefixed,
            };
            let kind = ResourceType::ALL
                .into_iter()
                .find(|known| known.name() == kind);
            same_path(AclSet::path(pattern, kind.unwrap(), name));
            ("ACLs", AclSet::decode(data).unwrap().encode())
        }
        ["kafka-acl-changes", _] => {
            let change = LiteralAclChange::decode(data).unwrap();
            let written = LiteralAclChange::encode(change.resource_type, &change.name);
            ("ACL change", written)
        }
        ["kafka-acl-extended-changes", _] => {
            let change = ExtendedAclChange::decode(data).unwrap();
            let written = ExtendedAclChange::encode(change.resource_type, &change.name);
            ("extended ACL change", written)
        }
        ["delegation_token", "tokens", id] => {
            same_path(TokenInformation::path(id));
            ("token", TokenInformation::decode(data).unwrap().encode())
        }
        ["delegation_token", "token_changes", _] => {
            let id = TokenChange::decode(data).unwrap();
            ("token change", TokenChange::encode(&id))
        }
        _ => return None,
    })
}

fn json_or_text(bytes: &[u8]) -> Value {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    serde_json::from_str(&text).unwrap_or(Value::from(text))
}

/// Counts the distinct contents of each kind.
fn reread(name: &str) -> BTreeMap<&'static str, usize> {
    let mut contents: BTreeMap<&'static str, std::collections::BTreeSet<String>> = BTreeMap::new();
    for step in steps(name) {
        for node in step["znodes"].as_array().unwrap() {
            let (path, data) = (node["path"].as_str().unwrap(), node["data"].as_str());
            let Some(data) = data else {
                continue;
            };
            let version = i32::try_from(node["version"].as_i64().unwrap()).unwrap();
            let Some((kind, written)) = rewritten(path, data.as_bytes(), version) else {
                panic!("{name}: nobody knows {path}: {data}");
            };
            assert_eq!(
                json_or_text(&written),
                json_or_text(data.as_bytes()),
                "{name}: {path}"
            );
            contents.entry(kind).or_default().insert(data.to_owned());
        }
    }
    contents
        .into_iter()
        .map(|(kind, contents)| (kind, contents.len()))
        .collect()
}

#[test]
fn one_broker() {
    let kinds = reread("one-broker");
    for kind in [
        "cluster id",
        "registration",
        "topic",
        "state",
        "controller",
        "controller epoch",
        "feature",
        "producer ids",
        "config change",
        "config",
        "old offset",
    ] {
        assert!(kinds.contains_key(kind), "{kind} in {kinds:?}");
    }
}

#[test]
fn three_brokers() {
    assert!(reread("three-brokers")["state"] > 10);
}

#[test]
fn access_control() {
    let kinds = reread("acl");
    assert!(
        kinds["ACLs"] > 5 && kinds.contains_key("extended ACL change"),
        "{kinds:?}"
    );
}

#[test]
fn tokens() {
    assert!(reread("tokens")["token"] > 2);
}

#[test]
fn a_fresh_broker_makes_the_base_paths_in_this_order() {
    let first = &steps("one-broker")[0];
    let written = first["changedInOrder"].as_array().unwrap().iter();
    let written: Vec<&str> = written.map(|path| path.as_str().unwrap()).collect();
    let positions = BASE_PATHS.map(|path| written.iter().position(|known| *known == path).unwrap());
    assert!(positions.is_sorted(), "{positions:?}");
}
