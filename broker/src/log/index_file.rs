//! A file of fixed-size entries beside a segment: what the three indexes share.
//!
//! Kafka maps its indexes into memory and keeps the active ones padded with zeros to their full
//! size. Here they are read and written by position and never longer than their entries, so a
//! directory that was not closed looks as if it had been, as far as indexes go.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use barnabas_core::ids::Offset;

use super::error::{Described as _, StorageError};
use super::place::Place;
use crate::files::cache::CachedFile;
use crate::files::{self, FileHandle, OpenMode};

/// Entries of `SIZE` bytes.
#[derive(Debug)]
pub(crate) struct IndexFile<const SIZE: usize> {
    place: Arc<Place>,
    base_offset: Offset,
    suffix: &'static str,
    file: Arc<CachedFile>,
}

impl<const SIZE: usize> IndexFile<SIZE> {
    pub(crate) fn new(place: Arc<Place>, base_offset: Offset, suffix: &'static str) -> Self {
        Self {
            place,
            base_offset,
            suffix,
            file: Arc::default(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.place.segment_path(self.base_offset, self.suffix)
    }

    fn handle(&self) -> Result<Arc<dyn FileHandle>, StorageError> {
        self.open(OpenMode::Write)
    }

    fn open(&self, mode: OpenMode) -> Result<Arc<dyn FileHandle>, StorageError> {
        self.place
            .volume
            .cache
            .handle(&self.file, mode, || self.path())
            .map_err(|source| StorageError::new("open", self.path(), source))
    }

    /// Length in bytes; `None` if the file does not exist.
    pub(crate) fn length(&self) -> Result<Option<u64>, StorageError> {
        let path = self.path();
        match self.place.files().status(&path) {
            Ok(status) => Ok(Some(status.length)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::new("examine", path, error)),
        }
    }

    /// How many whole entries the file has; 0 if it does not exist.
    pub(crate) fn count(&self) -> Result<u32, StorageError> {
        let length = self.length()?.unwrap_or(0);
        Ok(u32::try_from(length / SIZE as u64).unwrap_or(u32::MAX))
    }

    pub(crate) fn create(&self) -> Result<(), StorageError> {
        self.open(OpenMode::Create).map(drop)
    }

    /// One entry; `None` if it was cut off by a truncation meanwhile.
    pub(crate) fn read(&self, slot: u32) -> Result<Option<[u8; SIZE]>, StorageError> {
        let mut entry = [0; SIZE];
        let read = files::read_full_at(&*self.handle()?, &mut entry, Self::position(slot))
            .describe("read", &self.path())?;
        Ok((read == SIZE).then_some(entry))
    }

    /// Up to `count` entries from `slot` on; fewer at the end of the file.
    pub(crate) fn read_many(
        &self,
        slot: u32,
        count: usize,
    ) -> Result<Vec<[u8; SIZE]>, StorageError> {
        let mut bytes = vec![0; count * SIZE];
        let read = files::read_full_at(&*self.handle()?, &mut bytes, Self::position(slot))
            .describe("read", &self.path())?;
        let (entries, _) = bytes[..read].as_chunks::<SIZE>();
        Ok(entries.to_vec())
    }

    pub(crate) fn write(&self, slot: u32, entry: &[u8; SIZE]) -> Result<(), StorageError> {
        files::write_full_at(
            &*self.open(OpenMode::Create)?,
            &mut [IoSlice::new(entry)],
            Self::position(slot),
        )
        .describe("write to", &self.path())
    }

    /// Cuts the file to `count` entries.
    pub(crate) fn truncate(&self, count: u32) -> Result<(), StorageError> {
        self.handle()?
            .truncate(Self::position(count))
            .describe("truncate", &self.path())
    }

    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.handle()?.sync().describe("flush", &self.path())
    }

    pub(crate) fn close(&self) {
        self.file.close();
    }

    fn position(slot: u32) -> u64 {
        u64::from(slot) * SIZE as u64
    }
}
