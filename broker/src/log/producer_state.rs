//! The producers of a log and their snapshot files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barnabas_core::ids::Offset;
use barnabas_core::partition::producers::{
    BatchContent, CompletedTxn, ProducerBatch, Producers, decode_snapshot, encode_snapshot,
};
use barnabas_core::records::BatchMeta;

use super::error::{Described as _, StorageError};
use super::place::{DELETED, Place, SNAPSHOT, parse_file_name};
use super::segment::{remove_if_exists, with_suffix};
use crate::files::{Durability, OpenMode};

/// Producers as of `end_offset`, and which snapshots exist.
#[derive(Debug)]
pub(crate) struct ProducerState {
    place: Arc<Place>,
    pub(crate) producers: Producers,
    /// All batches below it are included.
    end_offset: Offset,
    last_snapshot: Offset,
    /// Offsets of the snapshot files, ascending.
    snapshots: Vec<Offset>,
    /// Snapshot files that do not count, see [`ProducerState::remove_outdated`].
    outdated: Vec<Offset>,
    expiration_ms: i64,
}

impl ProducerState {
    pub(crate) fn new(place: Arc<Place>, snapshots: Vec<Offset>, expiration_ms: i64) -> Self {
        Self {
            place,
            producers: Producers::default(),
            end_offset: 0,
            last_snapshot: 0,
            snapshots,
            outdated: Vec::new(),
            expiration_ms,
        }
    }

    /// An empty state for the same log, to replay into.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(
            Arc::clone(&self.place),
            self.snapshots.clone(),
            self.expiration_ms,
        )
    }

    pub(crate) fn end_offset(&self) -> Offset {
        self.end_offset
    }

    pub(crate) fn set_end_offset(&mut self, end_offset: Offset) {
        self.end_offset = end_offset;
    }

    pub(crate) fn has_snapshots(&self) -> bool {
        !self.snapshots.is_empty()
    }

    pub(crate) fn set_snapshots(&mut self, snapshots: Vec<Offset>) {
        self.snapshots = snapshots;
    }

    fn path(&self, offset: Offset) -> PathBuf {
        self.place.segment_path(offset, SNAPSHOT)
    }

    /// Takes note of a stored batch.
    pub(crate) fn replay(
        &mut self,
        batch: Option<&ProducerBatch>,
        next_offset: Offset,
    ) -> Option<CompletedTxn> {
        self.end_offset = next_offset;
        batch.and_then(|batch| self.producers.apply(batch))
    }

    /// Writes a snapshot unless nothing came since the last one. Returns the file.
    pub(crate) fn take_snapshot(&mut self) -> Result<Option<PathBuf>, StorageError> {
        if self.end_offset <= self.last_snapshot {
            return Ok(None);
        }
        let path = self.path(self.end_offset);
        let bytes = encode_snapshot(self.producers.iter());
        if !self.is_outdated_but_right(&path, &bytes) {
            self.place
                .files()
                .replace(&path, &bytes, Durability::Written)
                .describe("write", &path)?;
        }
        self.outdated.retain(|offset| *offset != self.end_offset);
        if let Err(index) = self.snapshots.binary_search(&self.end_offset) {
            self.snapshots.insert(index, self.end_offset);
        }
        self.last_snapshot = self.end_offset;
        Ok(Some(path))
    }

    fn is_outdated_but_right(&self, path: &Path, bytes: &[u8]) -> bool {
        self.outdated.contains(&self.end_offset)
            && self
                .place
                .files()
                .read(path)
                .is_ok_and(|stored| stored == bytes)
    }

    /// Removes the snapshot files that do not count any more. To be called after
    /// [`ProducerState::reload`], and before the log grows: it could reach their offsets again.
    pub(crate) fn remove_outdated(&mut self) -> Result<(), StorageError> {
        for offset in std::mem::take(&mut self.outdated) {
            remove_if_exists(&**self.place.files(), &self.path(offset))?;
        }
        Ok(())
    }

    /// Returns once the newest snapshot file is on disk.
    pub(crate) fn sync(place: &Place, path: &Path) -> Result<(), StorageError> {
        match place.files().open(path, OpenMode::Write) {
            Ok(file) => file.sync().describe("flush", path),
            // Deleted with its segment meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StorageError::new("open", path, error)),
        }
    }

    /// Snapshots outside of `(start_offset, end_offset]` do not count any more; unless the state is that of
    /// `end_offset` already, replaces it by that of the newest snapshot left.
    pub(crate) fn reload(
        &mut self,
        start_offset: Offset,
        end_offset: Offset,
        now_ms: i64,
    ) -> Result<(), StorageError> {
        let counts = |offset: &Offset| *offset <= end_offset && *offset > start_offset;
        self.outdated
            .extend(self.snapshots.extract_if(.., |offset| !counts(offset)));
        if self.end_offset == end_offset {
            self.start_advanced(start_offset);
            return Ok(());
        }
        self.producers = Producers::default();
        while let Some(offset) = self.snapshots.last().copied() {
            let path = self.path(offset);
            let bytes = self.place.files().read(&path).describe("read", &path)?;
            match decode_snapshot(&bytes) {
                Ok(entries) => {
                    self.producers = Producers::from_snapshot(entries, now_ms, self.expiration_ms);
                    self.end_offset = offset;
                    self.last_snapshot = offset;
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "deleting a damaged snapshot");
                    self.remove_snapshot(offset)?;
                }
            }
        }
        self.end_offset = start_offset;
        self.last_snapshot = start_offset;
        Ok(())
    }

    /// The log now starts at `start_offset`.
    pub(crate) fn start_advanced(&mut self, start_offset: Offset) {
        self.producers.high_watermark_advanced(start_offset);
        self.end_offset = self.end_offset.max(start_offset);
        self.last_snapshot = self.snapshots.last().copied().unwrap_or(start_offset);
    }

    /// Keeps what a snapshot of the state would hold: the last batch of each producer, as far as it
    /// was not silent for too long.
    pub(crate) fn forget_as_a_restart_does(&mut self, now_ms: i64) {
        if let Ok(entries) = decode_snapshot(&encode_snapshot(self.producers.iter())) {
            self.producers = Producers::from_snapshot(entries, now_ms, self.expiration_ms);
        }
    }

    /// Forgets everything: the log is empty and starts at `offset`.
    pub(crate) fn start_at(&mut self, offset: Offset) -> Result<(), StorageError> {
        self.producers = Producers::default();
        for snapshot in self.snapshots.clone() {
            self.remove_snapshot(snapshot)?;
        }
        self.end_offset = offset;
        self.last_snapshot = 0;
        Ok(())
    }

    /// Removes snapshots that are neither at the base of a segment nor the newest.
    pub(crate) fn remove_stray(&mut self, base_offsets: &[Offset]) -> Result<(), StorageError> {
        let newest = self.snapshots.last().copied();
        let last_base = base_offsets.last().copied();
        for offset in self.snapshots.clone() {
            let is_newest = Some(offset) == newest && Some(offset) >= last_base;
            if !is_newest && base_offsets.binary_search(&offset).is_err() {
                self.remove_snapshot(offset)?;
            }
        }
        Ok(())
    }

    fn remove_snapshot(&mut self, offset: Offset) -> Result<(), StorageError> {
        remove_if_exists(&**self.place.files(), &self.path(offset))?;
        self.snapshots.retain(|snapshot| *snapshot != offset);
        Ok(())
    }

    /// Renames the snapshot at `offset`, whose segment is deleted; it is removed later.
    pub(crate) fn rename_deleted(
        &mut self,
        offset: Offset,
    ) -> Result<Option<PathBuf>, StorageError> {
        let Ok(index) = self.snapshots.binary_search(&offset) else {
            return Ok(None);
        };
        self.snapshots.remove(index);
        let path = self.path(offset);
        let to = with_suffix(&path, DELETED);
        match self.place.files().rename(&path, &to) {
            Ok(()) => Ok(Some(to)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::new("rename", path, error)),
        }
    }

    /// Forgets producers that were silent for too long.
    pub(crate) fn expire(&mut self, now_ms: i64) {
        self.producers.expire(now_ms, self.expiration_ms);
    }
}

/// The offset in the name of a snapshot file.
pub(crate) fn snapshot_offset(name: &str) -> Option<Offset> {
    parse_file_name(name)
        .filter(|(_, suffix)| *suffix == SNAPSHOT)
        .map(|(offset, _)| offset)
}

/// What a stored batch means to its producer; `None` if it has none.
pub(crate) fn producer_batch(meta: &BatchMeta, batch: &[u8]) -> Option<ProducerBatch> {
    if !meta.has_producer_id() {
        return None;
    }
    let content = if meta.is_control {
        super::control::marker(batch).map_or(BatchContent::Nothing, BatchContent::Marker)
    } else {
        BatchContent::Data {
            base_sequence: meta.base_sequence,
            last_sequence: meta.last_sequence,
            max_timestamp: meta.max_timestamp,
            is_transactional: meta.is_transactional,
        }
    };
    Some(ProducerBatch {
        producer_id: meta.producer_id,
        producer_epoch: meta.producer_epoch,
        base_offset: meta.base_offset,
        last_offset: meta.last_offset,
        content,
    })
}
