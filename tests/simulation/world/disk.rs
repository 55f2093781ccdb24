//! A disk of a machine: files in memory that nobody can reach any more once the machine is dead.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use barnabas_broker::files::memory::Memory;
use barnabas_broker::files::{Entry, FileHandle, Files, Lock, OpenMode, Space, Status};
use barnabas_broker::host::SimulatedHost;

/// The disk as one run of a broker sees it.
#[derive(Debug)]
pub(crate) struct Disk {
    memory: Memory,
    host: Arc<SimulatedHost>,
}

impl Disk {
    pub(crate) fn new(memory: &Memory, host: &Arc<SimulatedHost>) -> Arc<Self> {
        Arc::new(Self {
            memory: memory.clone(),
            host: host.clone(),
        })
    }

    fn files(&self) -> io::Result<&Memory> {
        alive(&self.host)?;
        self.memory.set_clock_ms(self.host.now().wall_clock_ms);
        Ok(&self.memory)
    }
}

fn alive(host: &SimulatedHost) -> io::Result<()> {
    if host.is_dead() {
        return Err(io::Error::other("the machine is dead"));
    }
    Ok(())
}

impl Files for Disk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(File {
            file: self.files()?.open(path, mode)?,
            host: self.host.clone(),
        }))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.files()?.create_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        self.files()?.list(directory)
    }

    fn status(&self, path: &Path) -> io::Result<Status> {
        self.files()?.status(path)
    }

    fn set_modified(&self, path: &Path, modified_ms: i64) -> io::Result<()> {
        self.files()?.set_modified(path, modified_ms)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files()?.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.files()?.remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.files()?.remove_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.files()?.sync_directory(path)
    }

    fn sync_volume(&self, path: &Path) -> io::Result<()> {
        self.files()?.sync_volume(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        // A lock dies with its process; what drops it may come later.
        #[derive(Debug)]
        struct Held;
        impl Lock for Held {}
        self.files()?.open(path, OpenMode::Create)?;
        Ok(Some(Box::new(Held)))
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        self.files()?.space(directory)
    }
}

#[derive(Debug)]
struct File {
    file: Arc<dyn FileHandle>,
    host: Arc<SimulatedHost>,
}

impl FileHandle for File {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        alive(&self.host)?;
        self.file.read_at(buffer, position)
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        alive(&self.host)?;
        self.file.write_vectored_at(buffers, position)
    }

    fn length(&self) -> io::Result<u64> {
        alive(&self.host)?;
        self.file.length()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        alive(&self.host)?;
        self.file.truncate(length)
    }

    fn sync(&self) -> io::Result<()> {
        alive(&self.host)?;
        self.file.sync()
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
