//! A bound on open files: a partition at rest costs no descriptor.
//!
//! Files are opened when they are used. Once more than `limit` are open, those that were not used
//! since the last look are closed (the clock algorithm). A reader that holds a handle keeps its file
//! open for as long as it needs it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{FileHandle, Files, OpenMode};

/// The open files of a process.
#[derive(Debug)]
pub struct FileCache {
    files: Arc<dyn Files>,
    limit: usize,
    open: Mutex<VecDeque<Weak<CachedFile>>>,
}

/// A file that is opened when needed.
#[derive(Debug, Default)]
pub struct CachedFile {
    handle: Mutex<Option<Arc<dyn FileHandle>>>,
    used: AtomicBool,
}

impl FileCache {
    /// Keeps about `limit` files open.
    pub fn new(files: Arc<dyn Files>, limit: usize) -> Self {
        Self {
            files,
            limit: limit.max(1),
            open: Mutex::default(),
        }
    }

    pub fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    /// The open handle of `file`, which is opened at `path` if need be.
    pub fn handle(
        &self,
        file: &Arc<CachedFile>,
        mode: OpenMode,
        path: impl FnOnce() -> PathBuf,
    ) -> io::Result<Arc<dyn FileHandle>> {
        let handle = {
            let mut slot = file.slot();
            file.used.store(true, Ordering::Relaxed);
            if let Some(handle) = &*slot {
                return Ok(Arc::clone(handle));
            }
            let handle = self.files.open(&path(), mode)?;
            *slot = Some(Arc::clone(&handle));
            handle
        };
        self.opened(file);
        Ok(handle)
    }

    fn opened(&self, file: &Arc<CachedFile>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::downgrade(file));
        // Two rounds suffice: the first clears every mark, the second finds a victim.
        let mut steps = open.len() * 2;
        while open.len() > self.limit && steps > 0 {
            steps -= 1;
            let Some(candidate) = open.pop_front() else {
                break;
            };
            let Some(candidate) = candidate.upgrade() else {
                continue;
            };
            if candidate.used.swap(false, Ordering::Relaxed) || Arc::ptr_eq(&candidate, file) {
                open.push_back(Arc::downgrade(&candidate));
            } else {
                candidate.close();
            }
        }
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|file| file.upgrade().is_some_and(|file| file.slot().is_some()));
        open.len()
    }
}

impl CachedFile {
    fn slot(&self) -> MutexGuard<'_, Option<Arc<dyn FileHandle>>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the file; it is opened again when it is used again.
    pub fn close(&self) {
        *self.slot() = None;
    }
}
