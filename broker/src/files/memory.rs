//! A file system in memory that can lose power, tear writes, run full and fail.
//!
//! A write reaches the "page cache" at once and the "disk" by [`FileHandle::sync`]; names reach it by
//! [`Files::sync_directory`]. When the process is killed nothing is lost, so opening the same
//! [`Memory`] again is enough to play that. [`Memory::power_loss`] keeps of the unsynced changes
//! whatever chance says, each write whole, in part or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;

use super::{Entry, FileHandle, Files, Lock, OpenMode, Space, Status};

/// A file system in memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    root: Arc<Mutex<Directory>>,
    faults: Mutex<Faults>,
    locked: Mutex<BTreeSet<PathBuf>>,
}

#[derive(Debug, Default)]
struct Faults {
    clock_ms: i64,
    /// Bytes that still fit, if the disk is bounded.
    room: Option<u64>,
    /// Changing operations until everything fails.
    operations_left: Option<u64>,
    /// Whether the operation that fails first writes a part of its bytes.
    tear: bool,
    operations: u64,
    /// Everything below these paths fails.
    broken: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
struct Directory {
    names: BTreeMap<OsString, Node>,
    synced: BTreeMap<OsString, Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Directory(Arc<Mutex<Directory>>),
    File(Arc<Mutex<Content>>),
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    modified_ms: i64,
}

impl Content {
    /// Brings what changed to the "disk"; what did not is there already.
    fn write_back(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            apply(&mut self.synced, &change);
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// How much of a change is carried out.
enum Permit {
    Whole,
    /// The process "dies" in this operation: a write may leave its first bytes.
    Torn,
}

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time that changed files get, in milliseconds since the Unix epoch.
    pub fn set_clock_ms(&self, clock_ms: i64) {
        lock(&self.shared.faults).clock_ms = clock_ms;
    }

    /// Lets only `bytes` more be added, or any number again.
    pub fn set_room(&self, bytes: Option<u64>) {
        lock(&self.shared.faults).room = bytes;
    }

    /// Lets `operations` changing operations pass and fails everything after them, as a process
    /// that was killed does nothing more; the first that fails may `tear` a write.
    pub fn stop_after(&self, operations: u64, tear: bool) {
        let mut faults = lock(&self.shared.faults);
        faults.operations_left = Some(operations);
        faults.tear = tear;
    }

    /// Ends what [`Memory::stop_after`] began.
    pub fn resume(&self) {
        let mut faults = lock(&self.shared.faults);
        faults.operations_left = None;
        faults.tear = false;
    }

    /// Makes every operation at or below `path` fail, as a disk that died.
    pub fn break_directory(&self, path: &Path) {
        lock(&self.shared.faults).broken.insert(path.to_owned());
    }

    /// Ends what [`Memory::break_directory`] began, everywhere. Returns whether anything was broken.
    pub fn mend_directories(&self) -> bool {
        let broken = std::mem::take(&mut lock(&self.shared.faults).broken);
        !broken.is_empty()
    }

    /// How many changing operations were asked for.
    pub fn operations(&self) -> u64 {
        lock(&self.shared.faults).operations
    }

    /// Releases the locks of a process that is gone.
    pub fn release_locks(&self) {
        lock(&self.shared.locked).clear();
    }

    /// Loses what was not synced, or some of it.
    pub fn power_loss(&self, random: &mut impl Rng) {
        lose_directory(&self.shared.root, random);
    }

    /// Brings everything to the "disk", as the kernel does after some time.
    pub fn write_back(&self) {
        write_back_directory(&self.shared.root);
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        let faults = lock(&self.shared.faults);
        if faults.operations_left == Some(0)
            || faults.broken.iter().any(|broken| path.starts_with(broken))
        {
            return Err(io::Error::other("injected failure"));
        }
        Ok(())
    }

    fn permit(&self, path: &Path) -> io::Result<Permit> {
        let mut faults = lock(&self.shared.faults);
        faults.operations += 1;
        if faults.broken.iter().any(|broken| path.starts_with(broken)) {
            return Err(io::Error::other("injected failure"));
        }
        match &mut faults.operations_left {
            None => Ok(Permit::Whole),
            Some(0) => {
                if std::mem::take(&mut faults.tear) {
                    Ok(Permit::Torn)
                } else {
                    Err(io::Error::other("injected failure"))
                }
            }
            Some(left) => {
                *left -= 1;
                Ok(Permit::Whole)
            }
        }
    }

    /// A change that is done whole or not at all.
    fn permit_whole(&self, path: &Path) -> io::Result<()> {
        match self.permit(path)? {
            Permit::Whole => Ok(()),
            Permit::Torn => Err(io::Error::other("injected failure")),
        }
    }

    fn now_ms(&self) -> i64 {
        lock(&self.shared.faults).clock_ms
    }

    fn directory(&self, path: &Path) -> io::Result<Arc<Mutex<Directory>>> {
        let mut current = Arc::clone(&self.shared.root);
        for component in path.components() {
            if let Component::Normal(name) = component {
                let next = match lock(&current).names.get(name) {
                    Some(Node::Directory(directory)) => Arc::clone(directory),
                    Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                    None => return Err(io::ErrorKind::NotFound.into()),
                };
                current = next;
            }
        }
        Ok(current)
    }

    fn parent(&self, path: &Path) -> io::Result<(Arc<Mutex<Directory>>, OsString)> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.directory(parent)?, name.to_owned()))
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        let (parent, name) = self.parent(path)?;
        let node = lock(&parent).names.get(&name).cloned();
        node.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Files for Memory {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FileHandle>> {
        self.check(path)?;
        let (parent, name) = self.parent(path)?;
        let existing = lock(&parent).names.get(&name).cloned();
        let content = match existing {
            Some(Node::File(content)) => content,
            Some(Node::Directory(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            None if mode == OpenMode::Create => {
                self.permit_whole(path)?;
                let content = Arc::new(Mutex::new(Content {
                    modified_ms: self.now_ms(),
                    ..Content::default()
                }));
                lock(&parent)
                    .names
                    .insert(name, Node::File(Arc::clone(&content)));
                content
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(MemoryFile {
            memory: self.clone(),
            path: path.to_owned(),
            content,
        }))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if self.directory(path).is_ok() {
            return Ok(());
        }
        self.permit_whole(path)?;
        let mut current = Arc::clone(&self.shared.root);
        for component in path.components() {
            if let Component::Normal(name) = component {
                let next = match lock(&current)
                    .names
                    .entry(name.to_owned())
                    .or_insert_with(|| Node::Directory(Arc::default()))
                {
                    Node::Directory(directory) => Arc::clone(directory),
                    Node::File(_) => return Err(io::ErrorKind::NotADirectory.into()),
                };
                current = next;
            }
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        self.check(directory)?;
        let directory = self.directory(directory)?;
        let directory = lock(&directory);
        Ok(directory
            .names
            .iter()
            .map(|(name, node)| Entry {
                name: name.to_string_lossy().into_owned(),
                is_directory: matches!(node, Node::Directory(_)),
            })
            .collect())
    }

    fn status(&self, path: &Path) -> io::Result<Status> {
        self.check(path)?;
        if self.directory(path).is_ok() {
            return Ok(Status {
                length: 0,
                modified_ms: 0,
                is_directory: true,
            });
        }
        match self.node(path)? {
            Node::File(content) => {
                let content = lock(&content);
                Ok(Status {
                    length: content.bytes.len() as u64,
                    modified_ms: content.modified_ms,
                    is_directory: false,
                })
            }
            Node::Directory(_) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn set_modified(&self, path: &Path, modified_ms: i64) -> io::Result<()> {
        self.permit_whole(path)?;
        match self.node(path)? {
            Node::File(content) => lock(&content).modified_ms = modified_ms,
            Node::Directory(_) => {}
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.permit_whole(from)?;
        let (old_parent, old_name) = self.parent(from)?;
        let (new_parent, new_name) = self.parent(to)?;
        let node = lock(&old_parent)
            .names
            .remove(&old_name)
            .ok_or(io::ErrorKind::NotFound)?;
        lock(&new_parent).names.insert(new_name, node);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.permit_whole(path)?;
        let (parent, name) = self.parent(path)?;
        let mut parent = lock(&parent);
        match parent.names.get(&name) {
            Some(Node::File(_)) => {
                parent.names.remove(&name);
                Ok(())
            }
            Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.permit_whole(path)?;
        let (parent, name) = self.parent(path)?;
        let removed = lock(&parent).names.remove(&name);
        removed
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.permit_whole(path)?;
        let directory = self.directory(path)?;
        let mut directory = lock(&directory);
        directory.synced = directory.names.clone();
        Ok(())
    }

    fn sync_volume(&self, directory: &Path) -> io::Result<()> {
        self.permit_whole(directory)?;
        self.write_back();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.open(path, OpenMode::Create)?;
        if !lock(&self.shared.locked).insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(MemoryLock {
            shared: Arc::clone(&self.shared),
            path: path.to_owned(),
        })))
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        self.check(directory)?;
        let room = lock(&self.shared.faults).room.unwrap_or(1 << 40);
        Ok(Space {
            total_bytes: 1 << 40,
            usable_bytes: room,
        })
    }
}

#[derive(Debug)]
struct MemoryLock {
    shared: Arc<Shared>,
    path: PathBuf,
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        lock(&self.shared.locked).remove(&self.path);
    }
}

#[derive(Debug)]
struct MemoryFile {
    memory: Memory,
    path: PathBuf,
    content: Arc<Mutex<Content>>,
}

impl FileHandle for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.memory.check(&self.path)?;
        let content = lock(&self.content);
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        let rest = content.bytes.get(position..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let permit = self.memory.permit(&self.path)?;
        let mut bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.to_vec()).collect();
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput)?;
        if matches!(permit, Permit::Torn) {
            bytes.truncate(bytes.len() / 2);
        }
        let mut content = lock(&self.content);
        let added = (position + bytes.len()).saturating_sub(content.bytes.len()) as u64;
        {
            let mut faults = lock(&self.memory.shared.faults);
            if let Some(room) = &mut faults.room {
                if added > *room {
                    let fits = bytes.len().saturating_sub((added - *room) as usize);
                    bytes.truncate(fits);
                    *room = 0;
                    if bytes.is_empty() {
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                } else {
                    *room -= added;
                }
            }
            content.modified_ms = faults.clock_ms;
        }
        let count = bytes.len();
        let change = Change::Write { position, bytes };
        apply(&mut content.bytes, &change);
        content.unsynced.push(change);
        if matches!(permit, Permit::Torn) {
            return Err(io::Error::other("injected failure"));
        }
        Ok(count)
    }

    fn length(&self) -> io::Result<u64> {
        self.memory.check(&self.path)?;
        Ok(lock(&self.content).bytes.len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.memory.permit_whole(&self.path)?;
        let change =
            Change::Truncate(usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?);
        let mut content = lock(&self.content);
        apply(&mut content.bytes, &change);
        content.unsynced.push(change);
        content.modified_ms = self.memory.now_ms();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.memory.permit_whole(&self.path)?;
        lock(&self.content).write_back();
        Ok(())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Truncate(length) => bytes.resize(*length, 0),
        Change::Write {
            position,
            bytes: written,
        } => {
            let end = position + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*position..end].copy_from_slice(written);
        }
    }
}

fn write_back_directory(directory: &Arc<Mutex<Directory>>) {
    let children: Vec<Node> = {
        let mut directory = lock(directory);
        directory.synced = directory.names.clone();
        directory.names.values().cloned().collect()
    };
    for child in children {
        match child {
            Node::Directory(directory) => write_back_directory(&directory),
            Node::File(content) => {
                lock(&content).write_back();
            }
        }
    }
}

fn lose_directory(directory: &Arc<Mutex<Directory>>, random: &mut impl Rng) {
    let children: Vec<Node> = {
        let mut directory = lock(directory);
        if random.random() {
            directory.names = directory.synced.clone();
        } else {
            directory.synced = directory.names.clone();
        }
        directory.names.values().cloned().collect()
    };
    for child in children {
        match child {
            Node::Directory(directory) => lose_directory(&directory, random),
            Node::File(content) => lose_bytes(&mut lock(&content), random),
        }
    }
}

fn lose_bytes(content: &mut Content, random: &mut impl Rng) {
    let mut bytes = std::mem::take(&mut content.synced);
    let in_order: bool = random.random();
    for change in std::mem::take(&mut content.unsynced) {
        let fate: u8 = random.random_range(0..4);
        match (fate, change) {
            (0, _) if in_order => break,
            (0, _) => {}
            (
                1,
                Change::Write {
                    position,
                    bytes: mut written,
                },
            ) => {
                let kept = random.random_range(0..=written.len());
                written.truncate(kept);
                apply(
                    &mut bytes,
                    &Change::Write {
                        position,
                        bytes: written,
                    },
                );
                if in_order {
                    break;
                }
            }
            (_, change) => apply(&mut bytes, &change),
        }
    }
    content.bytes.clone_from(&bytes);
    content.synced = bytes;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
