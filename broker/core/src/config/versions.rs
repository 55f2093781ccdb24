//! Names of metadata versions (`inter.broker.protocol.version`).

/// Every version up to 3.9 in ZooKeeper mode, oldest first (`MetadataVersion`).
const VERSIONS: &[&str] = &[
    "0.8.0",
    "0.8.1",
    "0.8.2",
    "0.9.0",
    "0.10.0-IV0",
    "0.10.0-IV1",
    "0.10.1-IV0",
    "0.10.1-IV1",
    "0.10.1-IV2",
    "0.10.2-IV0",
    "0.11.0-IV0",
    "0.11.0-IV1",
    "0.11.0-IV2",
    "1.0-IV0",
    "1.1-IV0",
    "2.0-IV0",
    "2.0-IV1",
    "2.1-IV0",
    "2.1-IV1",
    "2.1-IV2",
    "2.2-IV0",
    "2.2-IV1",
    "2.3-IV0",
    "2.3-IV1",
    "2.4-IV0",
    "2.4-IV1",
    "2.5-IV0",
    "2.6-IV0",
    "2.7-IV0",
    "2.7-IV1",
    "2.7-IV2",
    "2.8-IV0",
    "2.8-IV1",
    "3.0-IV0",
    "3.0-IV1",
    "3.1-IV0",
    "3.2-IV0",
    "3.3-IV0",
    "3.3-IV1",
    "3.3-IV2",
    "3.3-IV3",
    "3.4-IV0",
    "3.5-IV0",
    "3.5-IV1",
    "3.5-IV2",
    "3.6-IV0",
    "3.6-IV1",
    "3.6-IV2",
    "3.7-IV0",
    "3.7-IV1",
    "3.7-IV2",
    "3.7-IV3",
    "3.7-IV4",
    "3.8-IV0",
    "3.9-IV0",
];

/// The part of a version that names the release: two numbers, or three before 1.0.
fn release(version: &str) -> String {
    let parts = if version.starts_with("0.") { 3 } else { 2 };
    let number = version.split('-').next().unwrap_or(version);
    number.split('.').take(parts).collect::<Vec<_>>().join(".")
}

/// Position of a version in the list; a short form such as `3.9` or `3.9.1` is the newest of its release.
pub fn metadata_version_index(version: &str) -> Option<usize> {
    if version.contains('-') {
        return VERSIONS.iter().position(|known| *known == version);
    }
    let wanted = release(version);
    VERSIONS.iter().rposition(|known| release(known) == wanted)
}

pub(super) fn is_metadata_version(version: &str) -> bool {
    metadata_version_index(version).is_some()
}
