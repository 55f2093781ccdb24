//! An image of what clients and ZooKeeper need, made of this machine's files: Java, Python with kafka-python, Kafka's
//! Java client, Debian's ZooKeeper, a shell.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::lab::shell;
use crate::images::{Entry, Image, USER, libraries as libraries_of};
use crate::tools::{repository, test_tool};
use crate::zookeeper_server::CLASSPATH;

/// Its name; the bundled ZooKeeper of the chart can be run from it under another one.
pub const TOOLBOX: &str = "localhost/toolbox:lab";

const PYTHON: &str = "/usr/lib/python3";
/// What Kafka's client and ZooKeeper need of Java.
const MODULES: &str = "java.base,java.logging,java.management,java.naming,java.security.jgss,\
                       java.security.sasl,java.sql,java.xml,jdk.management,jdk.unsupported";
/// Does what the official image of ZooKeeper does with the same variables.
const SERVE: &str = "#!/bin/sh\nset -e\n[ -f /data/myid ] || echo \"${ZOO_MY_ID:-1}\" > /data/myid\n\
                     exec /opt/java/bin/java -Xmx${ZK_SERVER_HEAP:-256}m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \\\n  \
                     -cp CLASSPATH org.apache.zookeeper.server.quorum.QuorumPeerMain /conf/zoo.cfg\n";

/// Puts the image together; `scratch` is a directory for a trimmed Java, which is made anew.
pub(super) fn toolbox(scratch: &Path) -> Result<Image> {
    let mut entries = shell()?;
    let mut libraries = BTreeSet::new();

    let java = scratch.join("java");
    let mut jlink = Command::new("jlink");
    jlink.args(["--add-modules", MODULES, "--strip-debug"]);
    jlink.args(["--no-header-files", "--no-man-pages", "--output"]);
    let output = jlink.arg(&java).output();
    let output = output.context("cannot run jlink: on Debian install default-jdk-headless")?;
    let problem = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "jlink: {problem}");
    add_below(&mut entries, &java, "opt/java", &|path| {
        !path.starts_with("legal")
    })?;
    libraries.extend(libraries_of(&java.join("bin/java"))?);
    libraries.extend(libraries_of(&java.join("lib/server/libjvm.so"))?);
    // Jars of Debian name each other by absolute paths.
    for jar in jars()? {
        let bytes = fs::read(&jar).with_context(|| jar.display().to_string())?;
        entries.push(Entry::file(&jar.display().to_string(), 0o644, bytes));
    }
    let client = test_tool("java-3.9.1");
    add_below(&mut entries, &client, "opt/client", &|_| true)?;

    let python = fs::canonicalize("/usr/bin/python3").context("python3")?;
    entries.push(Entry::file(
        "usr/bin/python3",
        0o755,
        fs::read(&python).with_context(|| python.display().to_string())?,
    ));
    libraries.extend(libraries_of(&python)?);
    let name = python.file_name().unwrap_or_default().to_string_lossy();
    let version = name.trim_start_matches("python3").to_owned();
    let home = PathBuf::from(format!("{PYTHON}{version}"));
    let is_wanted = |path: &Path| {
        let skipped = ["test", "__pycache__", "idlelib", "pydoc_data", "ensurepip"];
        !path
            .components()
            .any(|part| skipped.iter().any(|one| part.as_os_str() == *one))
    };
    add_below(&mut entries, &home, &home.display().to_string(), &is_wanted)?;
    for file in files_below(&home.join("lib-dynload"))? {
        libraries.extend(libraries_of(&file)?);
    }
    let packages = test_tool("python/lib").join(format!("python3{version}/site-packages"));
    for package in ["kafka", "crc32c"] {
        let path = packages.join(package);
        let place = format!("opt/python/{package}");
        add_below(&mut entries, &path, &place, &is_wanted)?;
    }
    let scripts = repository().join("tests/clients/python");
    add_below(&mut entries, &scripts, "opt/clients", &is_wanted)?;

    for library in libraries {
        let bytes = fs::read(&library).with_context(|| library.display().to_string())?;
        entries.push(Entry::file(&library.display().to_string(), 0o755, bytes));
    }
    let serve = SERVE.replace("CLASSPATH", CLASSPATH);
    entries.push(Entry::file("serve.sh", 0o755, serve.into_bytes()));
    let passwd = format!("root:x:0:0:root:/:\ntools:x:{USER}:{USER}:tools:/tmp:\n");
    entries.push(Entry::file("etc/passwd", 0o644, passwd.into_bytes()));
    Ok(Image {
        name: TOOLBOX.to_owned(),
        entries,
        entrypoint: vec!["/serve.sh".to_owned()],
        environment: vec![
            "PATH=/bin:/usr/bin:/opt/java/bin".to_owned(),
            "PYTHONPATH=/opt/python:/opt/clients".to_owned(),
            "PYTHONDONTWRITEBYTECODE=1".to_owned(),
        ],
        ports: Vec::new(),
        labels: Vec::new(),
        is_root: false,
    })
}

/// ZooKeeper's jars and those that it names.
fn jars() -> Result<BTreeSet<PathBuf>> {
    let mut all: BTreeSet<PathBuf> = CLASSPATH.split(':').map(PathBuf::from).collect();
    let zookeeper = "/usr/share/java/zookeeper.jar";
    let manifest = Command::new("python3")
        .arg("-c")
        .arg("import sys, zipfile; print(zipfile.ZipFile(sys.argv[1]).read('META-INF/MANIFEST.MF').decode())")
        .arg(zookeeper)
        .output()
        .context("cannot run python3")?;
    let manifest = String::from_utf8_lossy(&manifest.stdout)
        .replace("\r\n", "\n")
        // A long line goes on behind a space.
        .replace("\n ", "");
    let named = manifest
        .lines()
        .find_map(|line| line.strip_prefix("Class-Path:"));
    let named = named.with_context(|| format!("{zookeeper} names no other jars"))?;
    let named = named.split_whitespace().map(PathBuf::from);
    all.extend(named.filter(|jar| jar.exists()));
    Ok(all)
}

/// Adds all files below `directory` that `is_wanted` by their paths in it.
fn add_below(
    entries: &mut Vec<Entry>,
    directory: &Path,
    place: &str,
    is_wanted: &dyn Fn(&Path) -> bool,
) -> Result<()> {
    for file in files_below(directory)? {
        let path = file.strip_prefix(directory)?;
        if is_wanted(path) {
            let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
            let is_program = path.components().any(|part| part.as_os_str() == "bin")
                || path.extension() == Some(OsStr::new("so"))
                || path.ends_with("jspawnhelper");
            let mode = if is_program { 0o755 } else { 0o644 };
            let path = format!("{place}/{}", path.display());
            entries.push(Entry::file(&path, mode, bytes));
        }
    }
    Ok(())
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}
