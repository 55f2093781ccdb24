//! What the log needs from a file system, as a port with two implementations.
//!
//! [`disk`] is the real one. [`memory`] keeps everything in the process and can lose unsynced bytes,
//! tear writes, run full and fail, so that crash tests need no disk. [`cache`] bounds how many files
//! are open at once.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod cache;
pub mod disk;
pub mod memory;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; it is created if it does not exist.
    Create,
}

/// What a directory holds under one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub name: String,
    pub is_directory: bool,
}

/// What is known of a file without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Length in bytes.
    pub length: u64,
    /// When the content last changed, in milliseconds since the Unix epoch.
    pub modified_ms: i64,
    pub is_directory: bool,
}

/// How much room the volume of a directory has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub usable_bytes: u64,
}

/// A lock that is held until it is dropped.
pub trait Lock: Send + Sync + fmt::Debug {}

/// A file system. Paths are absolute or relative to the process.
pub trait Files: Send + Sync + fmt::Debug {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FileHandle>>;

    /// Creates a directory and its parents; one that exists is no error.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, sorted by name.
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>>;

    fn status(&self, path: &Path) -> io::Result<Status>;

    /// Sets the time of the last change, in milliseconds since the Unix epoch.
    fn set_modified(&self, path: &Path, modified_ms: i64) -> io::Result<()>;

    /// Renames a file or directory; a file that has the new name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and everything below it.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes created, renamed and removed names of a directory survive a power loss.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes everything on the volume of a directory survive a power loss; that may take long.
    fn sync_volume(&self, directory: &Path) -> io::Result<()>;

    /// Takes the exclusive lock that a file stands for (created if missing), or `None` if it is
    /// held, by this process or another one.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    fn space(&self, directory: &Path) -> io::Result<Space>;

    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let mut bytes = vec![0; usize::try_from(file.length()?).unwrap_or(usize::MAX)];
        let read = read_full_at(&*file, &mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Replaces a file's content at once: `<path>.tmp` is written and renamed over it.
    fn replace(&self, path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = self.open(&temporary, OpenMode::Create)?;
        // Not in any case: ext4 begins to write a file out at once that was made empty and written anew.
        if file.length()? > 0 {
            file.truncate(0)?;
        }
        write_full_at(&*file, &mut [IoSlice::new(content)], 0)?;
        if durability == Durability::Synced {
            file.sync()?;
        }
        self.rename(&temporary, path)?;
        if durability == Durability::Synced
            && let Some(directory) = path.parent()
        {
            self.sync_directory(directory)?;
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.status(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether a write waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives a power loss once the call returns.
    Synced,
    /// Survives the end of the process, but maybe not a power loss.
    Written,
}

/// An open file. All access is positional, so one handle serves many threads.
pub trait FileHandle: Send + Sync + fmt::Debug {
    /// Reads up to `buffer.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes the buffers one after the other; may write less than all.
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize>;

    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Sets the length in bytes; a longer file is filled with zeros.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Returns once the content is on disk.
    fn sync(&self) -> io::Result<()>;

    /// The descriptor, for `sendfile`; none if the file is not on disk.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// Reads until the buffer is full or the file ends; returns the number of bytes read.
pub fn read_full_at(file: &dyn FileHandle, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], position + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Fills the buffer, or fails with `UnexpectedEof` if the file is too short.
pub fn read_exact_at(file: &dyn FileHandle, buffer: &mut [u8], position: u64) -> io::Result<()> {
    if read_full_at(file, buffer, position)? < buffer.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Writes all buffers, going on after short writes. When it fails, some bytes may have been written.
pub fn write_full_at(
    file: &dyn FileHandle,
    mut buffers: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut buffers, 0);
    while !buffers.is_empty() {
        match file.write_vectored_at(buffers, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                position += count as u64;
                IoSlice::advance_slices(&mut buffers, count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
