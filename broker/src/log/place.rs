//! Where a log lives: the health of its log directory, the path of its own directory, file names.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use barnabas_core::ids::Offset;

use super::background::Background;
use super::error::{Described as _, StorageError};
use crate::files::cache::FileCache;
use crate::files::{Files, OpenMode};
use crate::metrics::Histogram;

pub(crate) const LOG: &str = "log";
pub(crate) const OFFSET_INDEX: &str = "index";
pub(crate) const TIME_INDEX: &str = "timeindex";
pub(crate) const TXN_INDEX: &str = "txnindex";
pub(crate) const SNAPSHOT: &str = "snapshot";
/// Appended to the name of a file that is removed later.
pub(crate) const DELETED: &str = ".deleted";
/// Appended to the names of a segment that is being written anew.
pub(crate) const CLEANED: &str = ".cleaned";
/// Appended to the names of a segment that is about to take the place of others.
pub(crate) const SWAP: &str = ".swap";

/// Whoever looks after a log directory.
pub(crate) trait Keeper: Send + Sync {
    /// The directory failed, for the first time.
    fn failed(&self);

    /// The recovery points in the checkpoint must not stay as they are. A log was cut below its own,
    /// and a crash would leave what is appended now unchecked; or it is about to be cleaned above it,
    /// and a crash would leave gaps that pass for a loss.
    fn recovery_point_moved(&self);

    /// A log was cut below where it was cleaned: what is appended now must not pass for clean.
    fn cleaned_offset_lowered(&self);
}

/// A log directory as its logs see it.
pub(crate) struct Volume {
    path: PathBuf,
    pub(crate) cache: Arc<FileCache>,
    pub(crate) background: Arc<Background>,
    failure: OnceLock<StorageError>,
    keeper: Mutex<Option<Arc<dyn Keeper>>>,
    checkpoint_is_due: AtomicBool,
    /// How long flushes of logs took.
    pub(crate) flush_times: Histogram,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("path", &self.path)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl Volume {
    pub(crate) fn new(path: PathBuf, cache: Arc<FileCache>, background: Arc<Background>) -> Self {
        Self {
            path,
            cache,
            background,
            failure: OnceLock::new(),
            keeper: Mutex::new(None),
            checkpoint_is_due: AtomicBool::new(false),
            flush_times: Histogram::default(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        self.cache.files()
    }

    pub(crate) fn set_keeper(&self, keeper: Arc<dyn Keeper>) {
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
    }

    fn keeper(&self) -> Option<Arc<dyn Keeper>> {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.clone()
    }

    /// Has the checkpoint of recovery points written anew at once: one must not be above what is
    /// there, another must not be below.
    pub(crate) fn recovery_point_moved(&self) {
        if let Some(keeper) = self.keeper() {
            keeper.recovery_point_moved();
        }
    }

    /// Has the checkpoint of the cleaner written anew.
    pub(crate) fn cleaned_offset_lowered(&self) {
        if let Some(keeper) = self.keeper() {
            keeper.cleaned_offset_lowered();
        }
    }

    /// Takes the directory offline: from now on all its logs answer with this error.
    pub(crate) fn fail(&self, error: StorageError) -> StorageError {
        if self.failure.set(error.clone()).is_ok() {
            tracing::error!(
                log_dir = %self.path.display(),
                %error,
                "log directory goes offline; free or repair the volume and restart the broker"
            );
            if let Some(keeper) = self.keeper() {
                keeper.failed();
            }
        }
        error
    }

    /// Whether the caller is to have the checkpoints written, as nobody else is about to.
    pub(crate) fn claim_checkpoint(&self) -> bool {
        !self.checkpoint_is_due.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn release_checkpoint(&self) {
        self.checkpoint_is_due.store(false, Ordering::Release);
    }

    pub(crate) fn failure(&self) -> Option<&StorageError> {
        self.failure.get()
    }

    pub(crate) fn check(&self) -> Result<(), StorageError> {
        self.failure
            .get()
            .map_or(Ok(()), |error| Err(error.clone()))
    }
}

/// The directory of one log. It may be renamed while segments refer to it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) volume: Arc<Volume>,
    directory: RwLock<Arc<Path>>,
}

impl Place {
    pub(crate) fn new(volume: Arc<Volume>, directory: impl Into<Arc<Path>>) -> Self {
        Self {
            volume,
            directory: RwLock::new(directory.into()),
        }
    }

    pub(crate) fn directory(&self) -> Arc<Path> {
        Arc::clone(
            &self
                .directory
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Renames the directory; files that are open stay so.
    pub(crate) fn rename(&self, to: &Path) -> Result<(), StorageError> {
        let mut directory = self
            .directory
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let files = self.volume.files();
        files
            .rename(&directory, to)
            .and_then(|()| files.sync_directory(self.volume.path()))
            .map_err(|source| StorageError::new("rename", &**directory, source))?;
        *directory = to.into();
        Ok(())
    }

    /// Makes names in a directory durable.
    pub(crate) fn sync_directory(&self, directory: &Path) -> Result<(), StorageError> {
        self.files()
            .sync_directory(directory)
            .describe("flush", directory)
    }

    /// Makes a file of the log durable, if it exists.
    pub(crate) fn sync_file(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path(name);
        match self.files().open(&path, OpenMode::Write) {
            Ok(file) => file.sync().describe("flush", &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StorageError::new("open", path, error)),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub(crate) fn segment_path(&self, base_offset: Offset, suffix: &str) -> PathBuf {
        self.path(&file_name(base_offset, suffix))
    }

    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        self.volume.files()
    }
}

/// Whether an offset can be told relative to the base offset of a segment, as indexes do.
pub(crate) fn reaches(base_offset: Offset, offset: Offset) -> bool {
    offset - base_offset <= Offset::from(i32::MAX)
}

/// `00000000000000000042.log`
pub(crate) fn file_name(offset: Offset, suffix: &str) -> String {
    format!("{offset:020}.{suffix}")
}

/// The offset and the rest of a name like `00000000000000000042.log`.
pub(crate) fn parse_file_name(name: &str) -> Option<(Offset, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, suffix))
}
