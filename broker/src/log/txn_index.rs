//! The aborted transactions whose markers are in a segment (`.txnindex`). Most segments have none
//! and no file either.

use std::sync::Arc;

use barnabas_core::ids::Offset;
use barnabas_core::partition::producers::CompletedTxn;

use super::error::StorageError;
use super::index_file::IndexFile;
use super::place::{Place, TXN_INDEX};

const SIZE: usize = 34;

/// An aborted transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AbortedTxn {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: Offset,
    /// Offset of the marker.
    pub(crate) last_offset: Offset,
    /// The last stable offset after it.
    pub(crate) last_stable_offset: Offset,
}

impl AbortedTxn {
    pub(crate) fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let fields = [
            self.producer_id,
            self.first_offset,
            self.last_offset,
            self.last_stable_offset,
        ];
        let (places, _) = bytes[2..].as_chunks_mut::<8>();
        for (place, field) in places.iter_mut().zip(fields) {
            *place = field.to_be_bytes();
        }
        bytes
    }
}

impl From<CompletedTxn> for AbortedTxn {
    fn from(txn: CompletedTxn) -> Self {
        Self {
            producer_id: txn.producer_id,
            first_offset: txn.first_offset,
            last_offset: txn.last_offset,
            last_stable_offset: txn.last_stable_offset,
        }
    }
}

/// The transaction index of one segment. Only the log's writer changes it.
#[derive(Debug)]
pub(crate) struct TxnIndex {
    base_offset: Offset,
    file: IndexFile<SIZE>,
}

impl TxnIndex {
    pub(crate) fn new(place: Arc<Place>, base_offset: Offset) -> Self {
        Self {
            base_offset,
            file: IndexFile::new(place, base_offset, TXN_INDEX),
        }
    }

    /// All entries, by ascending marker offset.
    pub(crate) fn entries(&self) -> Result<Vec<AbortedTxn>, StorageError> {
        let count = self.file.count()?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let entries = self.file.read_many(0, count as usize)?;
        Ok(entries.iter().map(decode).collect())
    }

    pub(crate) fn append(&self, txn: AbortedTxn) -> Result<(), StorageError> {
        self.file.write(self.file.count()?, &txn.encode())
    }

    /// Whether the entries can be of this segment: of the known version, above the base offset.
    pub(crate) fn is_sane(&self) -> Result<bool, StorageError> {
        let Some(length) = self.file.length()? else {
            return Ok(true);
        };
        if length % SIZE as u64 != 0 {
            return Ok(false);
        }
        let count = self.file.count()? as usize;
        if count == 0 {
            return Ok(true);
        }
        let entries = self.file.read_many(0, count)?;
        Ok(entries
            .iter()
            .all(|entry| entry[..2] == [0, 0] && decode(entry).last_offset >= self.base_offset))
    }

    /// Keeps transactions whose markers are below `offset`.
    pub(crate) fn truncate_to(&self, offset: Offset) -> Result<(), StorageError> {
        let entries = self.entries()?;
        let kept = entries.partition_point(|txn| txn.last_offset < offset);
        if kept < entries.len() {
            self.file.truncate(kept as u32)?;
        }
        Ok(())
    }

    /// Makes these the entries.
    pub(crate) fn replace(&self, txns: &[AbortedTxn]) -> Result<(), StorageError> {
        if self.file.length()?.is_none() && txns.is_empty() {
            return Ok(());
        }
        if self.is_sane()? && self.entries()? == txns {
            return Ok(());
        }
        self.reset()?;
        for txn in txns {
            self.append(*txn)?;
        }
        Ok(())
    }

    /// Removes all entries.
    pub(crate) fn reset(&self) -> Result<(), StorageError> {
        match self.file.length()? {
            None | Some(0) => Ok(()),
            Some(_) => self.file.truncate(0),
        }
    }

    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        match self.file.length()? {
            None => Ok(()),
            Some(_) => self.file.sync(),
        }
    }

    pub(crate) fn close(&self) {
        self.file.close();
    }
}

fn decode(entry: &[u8; SIZE]) -> AbortedTxn {
    let (fields, _) = entry[2..].as_chunks::<8>();
    let field = |index: usize| i64::from_be_bytes(fields[index]);
    AbortedTxn {
        producer_id: field(0),
        first_offset: field(1),
        last_offset: field(2),
        last_stable_offset: field(3),
    }
}
