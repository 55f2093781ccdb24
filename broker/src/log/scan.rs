//! Walking over the batches of a segment file, by headers only or whole.

use std::path::PathBuf;

use barnabas_core::records::{BatchMeta, RecordError, read_batch_meta};

use super::error::StorageError;
use crate::files::{self, FileHandle};

/// First read of a walk by headers: one index interval.
const CHUNK: usize = 4096;
/// Later reads of a walk by headers: a file without an index is walked from its start.
const CHUNK_MAX: usize = 64 * 1024;
/// How much is read at once of batches that are read whole.
const WHOLE_CHUNK: usize = 1024 * 1024;
/// The longest header, that of magic 2.
const HEADER: usize = 61;

/// Why a walk ends before the end.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// What stands at `position` is no whole batch.
    #[error("{source} (at position {position} of {})", path.display())]
    Broken {
        path: PathBuf,
        position: u64,
        source: RecordError,
    },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A batch's place, header and bytes.
pub(crate) type WholeBatch<'a> = (u64, BatchMeta, &'a [u8]);

/// A walk over `[position, limit)` of a file.
pub(crate) struct Scan<'a> {
    file: &'a dyn FileHandle,
    path: PathBuf,
    position: u64,
    limit: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    buffered_at: u64,
    chunk: usize,
    whole_chunk: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(file: &'a dyn FileHandle, path: PathBuf, position: u64, limit: u64) -> Self {
        Self {
            file,
            path,
            position,
            limit,
            buffer: Vec::new(),
            buffered_at: position,
            chunk: CHUNK,
            whole_chunk: WHOLE_CHUNK,
        }
    }

    /// Reads about as much at once of batches that are read whole; more only of a longer batch.
    pub(crate) fn reading(mut self, bytes: usize) -> Self {
        self.whole_chunk = bytes.max(HEADER);
        self
    }

    /// Where the next batch begins; after an error, where the broken one does.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch's place and header.
    pub(crate) fn next_header(&mut self) -> Result<Option<(u64, BatchMeta)>, ScanError> {
        if self.position >= self.limit {
            return Ok(None);
        }
        let position = self.position;
        self.fill(HEADER)?;
        let meta = self.meta()?;
        self.position += meta.size_in_bytes as u64;
        Ok(Some((position, meta)))
    }

    /// The next batch's place, header and bytes.
    pub(crate) fn next_whole(&mut self) -> Result<Option<WholeBatch<'_>>, ScanError> {
        if self.position >= self.limit {
            return Ok(None);
        }
        let position = self.position;
        self.chunk = self.whole_chunk;
        self.fill(HEADER)?;
        let meta = self.meta()?;
        self.fill(meta.size_in_bytes)?;
        let start = (position - self.buffered_at) as usize;
        let end = start + meta.size_in_bytes;
        if self.buffer.len() < end {
            return Err(self.broken(RecordError::Incomplete {
                needed: meta.size_in_bytes,
            }));
        }
        self.position += meta.size_in_bytes as u64;
        Ok(Some((position, meta, &self.buffer[start..end])))
    }

    fn meta(&self) -> Result<BatchMeta, ScanError> {
        let start = (self.position - self.buffered_at) as usize;
        let meta = read_batch_meta(&self.buffer[start..]).map_err(|error| self.broken(error))?;
        if self.position + meta.size_in_bytes as u64 > self.limit {
            return Err(self.broken(RecordError::Incomplete {
                needed: meta.size_in_bytes,
            }));
        }
        if meta.last_offset < meta.base_offset {
            return Err(self.broken(RecordError::SizeTooSmall(0)));
        }
        Ok(meta)
    }

    /// Makes the buffer hold `wanted` bytes from the position on, or all up to the limit.
    fn fill(&mut self, wanted: usize) -> Result<(), ScanError> {
        let wanted = wanted.min((self.limit - self.position) as usize);
        let available = (self.buffered_at + self.buffer.len() as u64).saturating_sub(self.position);
        if self.position >= self.buffered_at && available >= wanted as u64 {
            return Ok(());
        }
        let length = wanted
            .max(self.chunk)
            .min((self.limit - self.position) as usize);
        self.chunk = self.chunk.max((self.chunk * 2).min(CHUNK_MAX));
        self.buffer.resize(length, 0);
        let read = files::read_full_at(self.file, &mut self.buffer, self.position)
            .map_err(|source| StorageError::new("read", self.path.clone(), source))?;
        self.buffer.truncate(read);
        self.buffered_at = self.position;
        Ok(())
    }

    fn broken(&self, source: RecordError) -> ScanError {
        ScanError::Broken {
            path: self.path.clone(),
            position: self.position,
            source,
        }
    }
}
