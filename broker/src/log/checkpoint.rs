//! Checkpoint files: small texts with a version, a count and one entry a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use barnabas_core::ids::{Offset, TopicPartition};
use barnabas_core::partition::leader_epochs::EpochStart;

use super::error::StorageError;
use crate::files::{Durability, Files};

const VERSION: &str = "0";

/// The recovery points of the logs in a log directory: what is below them is on disk.
pub(crate) const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// High watermarks.
pub(crate) const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Start offsets of logs that do not start with their first segment.
pub(crate) const LOG_START_OFFSETS: &str = "log-start-offset-checkpoint";
/// Up to where compacted logs were cleaned.
pub(crate) const CLEANED_OFFSETS: &str = "cleaner-offset-checkpoint";
/// In the directory of each log.
pub(crate) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";

/// Reads offsets by partition; a file that is missing or empty has none.
pub(crate) fn read_offsets(
    files: &dyn Files,
    path: &Path,
) -> Result<BTreeMap<TopicPartition, Offset>, StorageError> {
    let entries = read(files, path, |line| {
        let mut fields = line.split_whitespace();
        let topic = fields.next()?;
        let partition = fields.next()?.parse().ok()?;
        let offset = fields.next()?.parse().ok()?;
        let is_last = fields.next().is_none();
        is_last.then(|| (TopicPartition::new(topic, partition), offset))
    })?;
    Ok(entries.into_iter().collect())
}

/// Replaces the file at once and waits for the disk.
pub(crate) fn write_offsets<'a>(
    files: &dyn Files,
    path: &Path,
    offsets: impl ExactSizeIterator<Item = (&'a TopicPartition, Offset)>,
) -> Result<(), StorageError> {
    let mut text = format!("{VERSION}\n{}\n", offsets.len());
    for (topic_partition, offset) in offsets {
        let TopicPartition { topic, partition } = topic_partition;
        let _ = writeln!(text, "{topic} {partition} {offset}");
    }
    write(files, path, &text, Durability::Synced)
}

/// Reads leader epochs; a file that is missing or empty has none.
pub(crate) fn read_epochs(files: &dyn Files, path: &Path) -> Result<Vec<EpochStart>, StorageError> {
    read(files, path, |line| {
        let mut fields = line.split_whitespace();
        let epoch = fields.next()?.parse().ok()?;
        let start_offset = fields.next()?.parse().ok()?;
        let is_last = fields.next().is_none();
        is_last.then_some(EpochStart {
            epoch,
            start_offset,
        })
    })
}

/// Replaces the file at once.
pub(crate) fn write_epochs(
    files: &dyn Files,
    path: &Path,
    epochs: &[EpochStart],
    durability: Durability,
) -> Result<(), StorageError> {
    let mut text = format!("{VERSION}\n{}\n", epochs.len());
    for entry in epochs {
        let _ = writeln!(text, "{} {}", entry.epoch, entry.start_offset);
    }
    write(files, path, &text, durability)
}

fn write(
    files: &dyn Files,
    path: &Path,
    text: &str,
    durability: Durability,
) -> Result<(), StorageError> {
    files
        .replace(path, text.as_bytes(), durability)
        .map_err(|source| StorageError::new("write", path, source))
}

fn read<T>(
    files: &dyn Files,
    path: &Path,
    entry: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, StorageError> {
    let bytes = match files.read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StorageError::new("read", path, error)),
    };
    parse(&bytes, entry).map_err(|reason| {
        StorageError::new(
            "understand",
            path,
            io::Error::new(io::ErrorKind::InvalidData, reason),
        )
    })
}

fn parse<T>(bytes: &[u8], entry: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    // A power loss may cut the last number, and what is left of it is a number too.
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line is cut".to_owned());
    }
    let mut lines = text.lines();
    let Some(version) = lines.next() else {
        return Ok(Vec::new());
    };
    if version.trim() != VERSION {
        return Err(format!("unknown version `{version}`"));
    }
    let Some(count) = lines.next() else {
        return Ok(Vec::new());
    };
    let count: usize = count
        .trim()
        .parse()
        .map_err(|_| format!("`{count}` is not a number of entries"))?;
    let entries = lines
        .map(|line| entry(line).ok_or_else(|| format!("malformed line `{line}`")))
        .collect::<Result<Vec<T>, String>>()?;
    if entries.len() != count {
        return Err(format!("{count} entries promised, {} found", entries.len()));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::memory::Memory;

    #[test]
    fn a_number_that_a_power_loss_has_cut_is_not_believed() {
        let (files, path) = (Memory::new(), Path::new("/checkpoint"));
        let check = |text: &str, expected: Option<usize>| {
            files
                .replace(path, text.as_bytes(), Durability::Written)
                .unwrap();
            let found = read_epochs(&files, path).ok().map(|entries| entries.len());
            assert_eq!(found, expected, "{text:?}");
        };
        check("0\n2\n0 0\n5 390\n", Some(2));
        check("0\n2\n0 0\n5 39", None);
        check("0\n2\n0 0\n", None);
        check("0\n2", None);
        check("", Some(0));
    }
}
