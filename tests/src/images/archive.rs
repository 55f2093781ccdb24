//! tar archives (POSIX ustar) that depend on nothing but their contents.

use std::collections::BTreeSet;

const BLOCK: usize = 512;

/// One thing in an archive.
#[derive(Clone, Debug)]
pub struct Entry {
    path: String,
    mode: u32,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    File(Vec<u8>),
    Directory,
    Link(String),
}

impl Entry {
    pub fn file(path: &str, mode: u32, bytes: Vec<u8>) -> Entry {
        Entry::new(path, mode, Kind::File(bytes))
    }

    pub fn directory(path: &str, mode: u32) -> Entry {
        Entry::new(path, mode, Kind::Directory)
    }

    /// A symbolic link to `target`.
    pub fn link(path: &str, target: &str) -> Entry {
        Entry::new(path, 0o777, Kind::Link(target.to_owned()))
    }

    fn new(path: &str, mode: u32, kind: Kind) -> Entry {
        Entry {
            path: path.trim_matches('/').to_owned(),
            mode,
            kind,
        }
    }
}

/// Puts entries together.
pub struct Archive;

impl Archive {
    /// The archive of `entries` in the order of their paths, all owned by root at the epoch, with the directories above
    /// them.
    pub fn of(entries: &[Entry]) -> Vec<u8> {
        let mut entries: Vec<&Entry> = entries.iter().collect();
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        let mut made = BTreeSet::new();
        let mut bytes = Vec::new();
        for entry in entries {
            let mut parents: Vec<&str> = Vec::new();
            let mut rest = entry.path.as_str();
            while let Some((parent, _)) = rest.rsplit_once('/') {
                parents.push(parent);
                rest = parent;
            }
            for parent in parents.into_iter().rev() {
                if made.insert(parent.to_owned()) {
                    append(&mut bytes, &Entry::directory(parent, 0o755));
                }
            }
            if made.insert(entry.path.clone()) {
                append(&mut bytes, entry);
            }
        }
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        bytes
    }
}

fn append(bytes: &mut Vec<u8>, entry: &Entry) {
    let (kind, size, target): (u8, usize, &str) = match &entry.kind {
        Kind::File(content) => (b'0', content.len(), ""),
        Kind::Directory => (b'5', 0, ""),
        Kind::Link(target) => (b'2', 0, target),
    };
    let mut path = entry.path.clone();
    if kind == b'5' {
        path.push('/');
    }
    if path.len() > 100 || target.len() > 100 {
        // A pax header says what the fields below have no room for.
        let records = [record("path", &path), record("linkpath", target)].concat();
        let mut extra = header("pax", 0o644, records.len(), b'x', "");
        extra.extend(records.as_bytes());
        pad(&mut extra);
        bytes.extend(extra);
    }
    bytes.extend(header(&path, entry.mode, size, kind, target));
    if let Kind::File(content) = &entry.kind {
        bytes.extend(content);
        pad(bytes);
    }
}

/// `length key=value`, where the length counts itself.
fn record(key: &str, value: &str) -> String {
    if value.is_empty() {
        return String::new();
    }
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

fn header(path: &str, mode: u32, size: usize, kind: u8, target: &str) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    let mut put = |at: usize, length: usize, text: &str| {
        let text = &text.as_bytes()[..text.len().min(length)];
        header[at..at + text.len()].copy_from_slice(text);
    };
    put(0, 100, path);
    put(100, 8, &format!("{mode:07o}"));
    put(108, 8, "0000000");
    put(116, 8, "0000000");
    put(124, 12, &format!("{size:011o}"));
    put(136, 12, "00000000000");
    put(148, 8, "        ");
    put(157, 100, target);
    put(257, 8, "ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.tar");
        let long = format!("{}/file", "long-".repeat(30));
        let entries = [
            Entry::file("usr/bin/tool", 0o755, b"tool".to_vec()),
            Entry::link("usr/bin/alias", "tool"),
            Entry::directory("tmp", 0o1777),
            Entry::file(&long, 0o644, vec![7; 1000]),
        ];
        std::fs::write(&file, Archive::of(&entries)).unwrap();
        let output = Command::new("tar")
            .args(["--list", "--verbose", "--utc", "--file"])
            .arg(&file)
            .output()
            .unwrap();
        let list = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<String> = list
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let long = format!("-rw-r--r-- 0/0 1000 1970-01-01 00:00 {long}");
        for expected in [
            "drwxr-xr-x 0/0 0 1970-01-01 00:00 usr/bin/",
            "lrwxrwxrwx 0/0 0 1970-01-01 00:00 usr/bin/alias -> tool",
            "-rwxr-xr-x 0/0 4 1970-01-01 00:00 usr/bin/tool",
            "drwxrwxrwt 0/0 0 1970-01-01 00:00 tmp/",
            &long,
        ] {
            assert!(
                lines.iter().any(|line| line == expected),
                "{expected}: {list}"
            );
        }
    }
}
