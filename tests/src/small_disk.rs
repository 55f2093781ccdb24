//! A file system with a limit, in a mount namespace of its own: nobody else sees it, and it is gone with its
//! holder.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A small `tmpfs`. Processes that shall see it are started by [`SmallDisk::launcher`].
#[derive(Debug)]
pub struct SmallDisk {
    /// Keeps the namespace until its standard input ends, at the latest with this process.
    holder: Child,
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts a file system of `mib` mebibytes at `path`, an empty directory. Needs the right to mount.
    pub fn mount(path: &Path, mib: u32) -> Result<SmallDisk> {
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount -t tmpfs -o size=\"$2\" barnabas-test \"$1\" && echo mounted && exec cat")
            .arg("sh")
            .arg(path)
            .arg(size(mib))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let mut line = String::new();
        let output = holder.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let disk = SmallDisk {
            holder,
            path: path.to_owned(),
        };
        ensure!(line == "mounted\n", "mounting a tmpfs is not permitted");
        Ok(disk)
    }

    /// The command that runs another as a process that sees the file system.
    pub fn launcher(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), self.namespace()]
    }

    fn namespace(&self) -> String {
        format!("--mount=/proc/{}/ns/mnt", self.holder.id())
    }

    /// A file below the mount point, as this process can open it.
    pub fn seen_from_outside(&self, file: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(file.strip_prefix("/").unwrap_or(file))
    }

    /// Makes it larger.
    pub fn resize(&self, mib: u32) -> Result<()> {
        let status = Command::new("nsenter")
            .arg(self.namespace())
            .args(["mount", "-o"])
            .arg(format!("remount,size={}", size(mib)))
            .arg(&self.path)
            .status()?;
        ensure!(status.success(), "mount: {status}");
        Ok(())
    }

    /// Makes it so small, or so large, that about `bytes` are left.
    pub fn leave(&self, bytes: u64) -> Result<()> {
        let found = rustix::fs::statvfs(self.seen_from_outside(&self.path))?;
        let used = (found.f_blocks - found.f_bfree) * found.f_frsize;
        self.resize(u32::try_from((used + bytes).div_ceil(1 << 20))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.holder.stdin.take());
        if let Err(error) = self.holder.wait() {
            eprintln!("the holder of a small disk: {error}");
        }
    }
}

fn size(mib: u32) -> String {
    format!("{mib}m")
}
