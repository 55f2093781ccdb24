//! What an interrupted deletion, cleaning or split left in a log's directory.

use barnabas_core::ids::Offset;

use crate::files::OpenMode;
use crate::log::error::{Described as _, StorageError};
use crate::log::place::{CLEANED, DELETED, LOG, Place, SWAP, parse_file_name};
use crate::log::scan::{Scan, ScanError};

/// The names of the files in a log's directory, sorted.
pub(super) fn names(place: &Place) -> Result<Vec<String>, StorageError> {
    let directory = place.directory();
    let entries = place
        .files()
        .list(&directory)
        .describe("list", &directory)?;
    let files = entries.into_iter().filter(|entry| !entry.is_directory);
    Ok(files.map(|entry| entry.name).collect())
}

pub(super) fn remove(place: &Place, name: &str) -> Result<(), StorageError> {
    let path = place.path(name);
    tracing::info!(path = %path.display(), "removing a leftover file");
    place.files().remove_file(&path).describe("remove", &path)
}

/// Removes what will not be used any more, and finishes replacements that had begun: `.swap`
/// segments take the place of all segments whose offsets they cover. Returns the names that are left.
///
/// `.swap` files count only below the first `.cleaned` one: else not all of them are there yet, and
/// the old segments are (KAFKA-6264). `.cleaned` files therefore go after these.
pub(super) fn clear(place: &Place) -> Result<Vec<String>, StorageError> {
    let all = names(place)?;
    let is_temporary = |name: &String| {
        [DELETED, CLEANED, SWAP]
            .iter()
            .any(|suffix| name.ends_with(suffix))
    };
    if !all.iter().any(is_temporary) {
        return Ok(all);
    }
    for name in all.iter().filter(|name| name.ends_with(DELETED)) {
        remove(place, name)?;
    }
    let cleaned: Vec<&String> = all.iter().filter(|name| name.ends_with(CLEANED)).collect();
    let first_cleaned = cleaned.iter().filter_map(|name| offset_of(name)).min();
    let mut swaps = Vec::new();
    for name in all.iter().filter(|name| name.ends_with(SWAP)) {
        match (offset_of(name), first_cleaned) {
            (Some(offset), Some(first)) if offset >= first => remove(place, name)?,
            (Some(_), _) => swaps.push(name.as_str()),
            (None, _) => {}
        }
    }
    if !cleaned.is_empty() {
        // Not one of them may outlive the `.swap` files that they say are not to be used.
        place.sync_directory(&place.directory())?;
        for name in cleaned {
            remove(place, name)?;
        }
    }
    if !swaps.is_empty() {
        finish_swap(place, &all, &swaps)?;
    }
    names(place)
}

fn finish_swap(place: &Place, all: &[String], swaps: &[&str]) -> Result<(), StorageError> {
    let (mut first_replaced, mut end_replaced) = (Offset::MAX, Offset::MIN);
    for name in swaps {
        if let Some((offset, LOG)) = name.strip_suffix(SWAP).and_then(parse_file_name) {
            first_replaced = first_replaced.min(offset);
            end_replaced = end_replaced.max(end_of(place, name, offset)?);
        }
    }
    for name in all {
        if let Some((offset, suffix)) = parse_file_name(name)
            && !suffix.contains('.')
            && (first_replaced..end_replaced).contains(&offset)
        {
            remove(place, name)?;
        }
    }
    for name in swaps {
        let from = place.path(name);
        let to = place.path(name.trim_end_matches(SWAP));
        tracing::info!(path = %to.display(), "finishing the replacement of a segment");
        place.files().rename(&from, &to).describe("rename", &from)?;
    }
    place.sync_directory(&place.directory())
}

/// The offset in front of any number of suffixes.
fn offset_of(name: &str) -> Option<Offset> {
    parse_file_name(name).map(|(offset, _)| offset)
}

/// The offset after the last batch of a segment that is not in its place yet.
fn end_of(place: &Place, name: &str, base_offset: Offset) -> Result<Offset, StorageError> {
    let path = place.path(name);
    let file = place
        .files()
        .open(&path, OpenMode::Read)
        .describe("open", &path)?;
    let length = file.length().describe("examine", &path)?;
    let mut scan = Scan::new(&*file, path, 0, length);
    let mut end = base_offset;
    loop {
        match scan.next_header() {
            Ok(Some((_, meta))) => end = meta.next_offset(),
            Ok(None) | Err(ScanError::Broken { .. }) => return Ok(end),
            Err(ScanError::Storage(error)) => return Err(error),
        }
    }
}
