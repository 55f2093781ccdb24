//! `__consumer_offsets` as Apache Kafka 3.9.1 left it: read, written again byte for byte, and replayed to the groups
//! that Kafka itself described.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    reason = "a test of files that are there"
)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use barnabas_core::group::Group;
use barnabas_core::group::records::GroupRecord;
use barnabas_core::ids::coordinator_partition;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::Value;

fn manifest(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/datadirs")
        .join(format!("{name}.manifest.json.gz"));
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

fn hex(value: &Value) -> Option<Bytes> {
    let text = value.as_str()?;
    let bytes = (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap());
    Some(bytes.collect())
}

/// Batches of all partitions of the topic, in order, with the number of the partition.
fn batches(manifest: &Value) -> Vec<(i32, &Value)> {
    let mut all = Vec::new();
    for (directory, partition) in manifest["partitions"].as_object().unwrap() {
        let Some(number) = directory.strip_prefix("__consumer_offsets-") else {
            continue;
        };
        for segment in partition["segments"].as_object().unwrap().values() {
            let batches = segment.as_array().or_else(|| segment["batches"].as_array());
            for batch in batches.unwrap() {
                all.push((number.parse().unwrap(), batch));
            }
        }
    }
    all
}

/// Groups as the log makes them, markers of transactions included.
fn replay(manifest: &Value) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (number, batch) in batches(manifest) {
        let producer_id = batch["producerId"].as_i64().unwrap();
        for record in batch["records"].as_array().unwrap() {
            let (key, value) = (hex(&record["key"]), hex(&record["value"]));
            if batch["control"] == true {
                let is_committed = key.unwrap()[3] == 1;
                for group in groups.values_mut() {
                    let offset = record["offset"].as_i64().unwrap();
                    let offsets = &mut group.offsets;
                    offsets.replay_marker(producer_id, is_committed, offset);
                }
                continue;
            }
            let decoded = GroupRecord::decode(key.as_ref(), value.as_ref()).unwrap();
            let (ours_key, ours_value) = decoded.encode().unwrap();
            assert_eq!(Some(&ours_key[..]), key.as_deref(), "{record}");
            assert_eq!(ours_value.as_deref(), value.as_deref(), "{record}");
            let id = decoded.group().unwrap();
            assert_eq!(coordinator_partition(id, 4), number, "{id}");
            let group = groups
                .entry(id.to_string())
                .or_insert_with(|| Group::new(id.clone()));
            let offset = record["offset"].as_i64().unwrap();
            match decoded {
                GroupRecord::Offset {
                    partition,
                    commit: Some(commit),
                    ..
                } if batch["transactional"] == true => {
                    let offsets = &mut group.offsets;
                    offsets.replay_transactional(producer_id, &partition, commit, offset);
                }
                decoded => group.replay(&decoded, offset),
            }
        }
    }
    groups
}

#[test]
fn records_are_read_and_written_as_kafka_does() {
    let manifest = manifest("clean");
    assert!(batches(&manifest).len() > 15);
    replay(&manifest);
}

#[test]
fn groups_are_what_kafka_says_that_they_are() {
    let manifest = manifest("clean");
    let groups = replay(&manifest);
    for expected in manifest["describeGroups"]["groups"].as_array().unwrap() {
        let id = expected["groupId"].as_str().unwrap();
        let known = groups
            .get(id)
            .filter(|group| group.is_recorded() || !group.offsets.is_empty());
        let Some(group) = known else {
            assert_eq!(expected["groupState"], "Dead", "{id}");
            continue;
        };
        let ours = group.describe();
        assert_eq!(expected["groupState"], ours.state.name(), "{id}");
        assert_eq!(expected["protocolType"], *ours.protocol_type, "{id}");
        assert_eq!(expected["protocolData"], *ours.protocol, "{id}");
        let members = expected["members"].as_array().unwrap();
        assert_eq!(members.len(), ours.members.len(), "{id}");
        for (expected, member) in members.iter().zip(&ours.members) {
            assert_eq!(expected["memberId"], *member.member_id);
            assert_eq!(
                expected["groupInstanceId"].as_str(),
                member.group_instance_id.as_deref()
            );
            assert_eq!(expected["clientId"], *member.client_id);
            assert_eq!(expected["clientHost"], *member.client_host);
            assert_eq!(
                expected["memberMetadata"],
                STANDARD.encode(&member.metadata)
            );
            assert_eq!(
                expected["memberAssignment"],
                STANDARD.encode(&member.assignment)
            );
        }
    }
}

#[test]
fn offsets_are_what_kafka_says_that_they_are() {
    let manifest = manifest("clean");
    let groups = replay(&manifest);
    for expected in manifest["groupOffsets"]["groups"].as_array().unwrap() {
        let id = expected["groupId"].as_str().unwrap();
        let mut theirs = Vec::new();
        for topic in expected["topics"].as_array().unwrap() {
            for partition in topic["partitions"].as_array().unwrap() {
                theirs.push((
                    topic["name"].as_str().unwrap().to_owned(),
                    partition["partitionIndex"].as_i64().unwrap() as i32,
                    partition["committedOffset"].as_i64().unwrap(),
                    partition["committedLeaderEpoch"].as_i64().unwrap() as i32,
                    partition["metadata"].as_str().unwrap().to_owned(),
                ));
            }
        }
        theirs.sort();
        let offsets = groups
            .get(id)
            .into_iter()
            .flat_map(|group| group.offsets.iter());
        let ours: Vec<_> = offsets
            .map(|(topic, partition, commit)| {
                (
                    topic.to_string(),
                    partition,
                    commit.offset,
                    commit.leader_epoch,
                    commit.metadata.to_string(),
                )
            })
            .collect();
        assert_eq!(ours, theirs, "{id}");
    }
}
