//! Brings what the servers and the tests need: Debian packages, and what registries have, into
//! `target/test-tools`. Nothing is installed twice: each part leaves a stamp of what it was made from.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::{cargo, check_quietly, command, on_path, output, root, test_tools};

/// The releases of the Java client that the tests run, and that share one program.
const JAVA_CLIENTS: [&str; 3] = ["2.8.2", "3.9.1", "4.4.0"];

/// The release that runs in pods.
const CLIENT_OF_PODS: &str = "3.9.1";

/// A need, and Debian's package that meets it.
type Need = (Presence, &'static str);

#[derive(Clone, Copy)]
enum Presence {
    /// A program on the PATH.
    Program(&'static str),
    /// A file at a fixed place.
    File(&'static str),
    /// A module that Python can import.
    PythonModule(&'static str),
}

impl Presence {
    fn is_there(self) -> bool {
        match self {
            Presence::Program(name) => on_path(name),
            Presence::File(path) => Path::new(path).exists(),
            Presence::PythonModule(name) => {
                output(&mut command("python3", &["-c", &format!("import {name}")])).is_some()
            }
        }
    }
}

const SERVERS: &[Need] = &[
    (Presence::Program("java"), "default-jre-headless"),
    (Presence::File("/usr/share/java/zookeeper.jar"), "zookeeper"),
];
const MAVEN: Need = (Presence::Program("mvn"), "maven");
/// What clients in Java and Python are made with.
const CLIENT_PROGRAMS: &[Need] = &[
    (Presence::Program("javac"), "default-jdk-headless"),
    (Presence::Program("jlink"), "default-jdk-headless"),
    MAVEN,
    (Presence::PythonModule("ensurepip"), "python3-venv"),
];
const TEST_PROGRAMS: &[Need] = &[
    (Presence::Program("kcat"), "kcat"),
    (Presence::Program("node"), "nodejs"),
    (Presence::Program("npm"), "npm"),
    (Presence::Program("go"), "golang-go"),
    (Presence::Program("make"), "make"),
    (Presence::Program("g++"), "g++"),
    (Presence::Program("ip"), "iproute2"),
    (Presence::Program("nft"), "nftables"),
    (Presence::Program("nsenter"), "util-linux"),
];

/// What a node of a Kubernetes cluster runs on.
const NODE_PROGRAMS: &[Need] = &[
    (Presence::Program("containerd"), "containerd"),
    (Presence::Program("runc"), "runc"),
    (
        Presence::File("/usr/lib/cni/bridge"),
        "containernetworking-plugins",
    ),
    (Presence::Program("nft"), "nftables"),
    (Presence::Program("iptables"), "iptables"),
    (Presence::Program("conntrack"), "conntrack"),
    (Presence::Program("ethtool"), "ethtool"),
    (Presence::Program("socat"), "socat"),
    (Presence::File("/bin/busybox"), "busybox-static"),
    (Presence::Program("strip"), "binutils"),
    (Presence::Program("ip"), "iproute2"),
    (Presence::Program("nsenter"), "util-linux"),
    (Presence::Program("go"), "golang-go"),
    (Presence::Program("npm"), "npm"),
];

/// What it takes to run ZooKeeper.
pub(crate) fn for_servers() -> Result<()> {
    packages(SERVERS)
}

/// What it takes to run Apache Kafka.
pub(crate) fn for_kafka() -> Result<()> {
    packages(&[SERVERS, &[MAVEN]].concat())?;
    kafka()
}

/// A Kubernetes with real nodes.
pub(crate) fn for_nodes() -> Result<()> {
    packages(&[SERVERS, NODE_PROGRAMS, CLIENT_PROGRAMS].concat())?;
    java_client(CLIENT_OF_PODS)?;
    python()?;
    crate::kubernetes::install()
}

/// Everything the tests need.
pub(crate) fn for_tests() -> Result<()> {
    packages(&[SERVERS, CLIENT_PROGRAMS, TEST_PROGRAMS].concat())?;
    kafka()?;
    for version in JAVA_CLIENTS {
        java_client(version)?;
    }
    java_applications()?;
    python()?;
    node()?;
    go()?;
    rust()?;
    crate::kubernetes::install()
}

/// Brings `cargo deny`, unless it is there.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    if on_path("cargo-deny") {
        return Ok("cargo-deny".into());
    }
    let directory = test_tools().join("cargo-deny");
    part("cargo-deny", &directory, "0.20.2", || {
        let mut install = cargo(&["install", "--quiet", "--locked", "--debug", "--force"]);
        check_quietly(install.args(["--root"]).arg(&directory).args([
            "--version",
            "0.20.2",
            "cargo-deny",
        ]))
    })?;
    Ok(directory.join("bin/cargo-deny"))
}

/// Installs the Debian packages of those needs that are not met.
fn packages(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|(presence, _)| !presence.is_there())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let is_root = output(&mut command("id", &["-u"])).is_some_and(|id| id.trim() == "0");
    if !is_root || !on_path("apt-get") {
        bail!(
            "please install by hand: apt-get install {}",
            missing.join(" ")
        );
    }
    println!("installing Debian packages: {}", missing.join(" "));
    check_quietly(&mut command("apt-get", &["update", "-qq"]))?;
    let mut install = command(
        "apt-get",
        &["install", "-y", "-qq", "--no-install-recommends"],
    );
    check_quietly(
        install
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// Apache Kafka 3.9.1, broker and tools.
fn kafka() -> Result<()> {
    let source = root().join("tests/clients/java/kafka");
    let directory = test_tools().join("kafka");
    part(
        "Apache Kafka 3.9.1",
        &directory,
        &contents(&source)?,
        || jars(&source, &directory, &[]),
    )
}

/// The Java client program, compiled against one release of the client.
fn java_client(version: &str) -> Result<()> {
    java_program(
        &format!("Java client {version}"),
        "client",
        &format!("java-{version}"),
        &[&format!("-Dkafka.version={version}")],
    )
}

/// Kafka Streams with a program for it, Connect and what copies between clusters.
fn java_applications() -> Result<()> {
    java_program(
        "Streams, Connect, MirrorMaker",
        "applications",
        "java-applications",
        &[],
    )
}

/// The program in a folder below `tests/clients/java`, compiled, with what its pom names.
fn java_program(name: &str, folder: &str, tool: &str, options: &[&str]) -> Result<()> {
    let source = root().join("tests/clients/java").join(folder);
    let directory = test_tools().join(tool);
    part(name, &directory, &contents(&source)?, || {
        jars(&source, &directory, options)?;
        let mut javac = command("javac", &["-nowarn", "-cp"]);
        javac
            .arg(directory.join("*"))
            .arg("-d")
            .arg(directory.join("classes"));
        for file in files_below(&source)? {
            if file.extension() == Some(OsStr::new("java")) {
                javac.arg(file);
            }
        }
        check_quietly(&mut javac)
    })
}

/// Copies the jars of a pom's dependencies into `directory`.
fn jars(project: &Path, directory: &Path, options: &[&str]) -> Result<()> {
    let mut maven = command("mvn", &["-q", "-B", "dependency:copy-dependencies"]);
    maven.arg("-DincludeScope=runtime").args(options);
    let mut destination = std::ffi::OsString::from("-DoutputDirectory=");
    destination.push(directory);
    check_quietly(maven.arg(destination).current_dir(project))
}

fn python() -> Result<()> {
    let requirements = root().join("tests/clients/python/requirements.txt");
    let directory = test_tools().join("python");
    let made_from = read(&requirements)?;
    part("Python clients", &directory, &made_from, || {
        let mut venv = command("python3", &["-m", "venv"]);
        check_quietly(venv.arg(&directory))
            .context("Python cannot make a virtual environment: on Debian install python3-venv")?;
        let mut pip = command(directory.join("bin/pip"), &["install", "--quiet"]);
        pip.args(["--disable-pip-version-check", "-r"])
            .arg(&requirements);
        check_quietly(&mut pip)
    })
}

fn node() -> Result<()> {
    let source = root().join("tests/clients/node");
    let directory = test_tools().join("node");
    let manifests = ["package.json", "package-lock.json"];
    let made_from = read(&source.join(manifests[0]))? + &read(&source.join(manifests[1]))?;
    part("Node clients", &directory, &made_from, || {
        for name in manifests {
            fs::copy(source.join(name), directory.join(name))?;
        }
        let mut npm = command("npm", &["ci", "--silent", "--no-audit", "--no-fund"]);
        check_quietly(npm.current_dir(&directory))
    })
}

fn go() -> Result<()> {
    let source = root().join("tests/clients/go");
    let directory = test_tools().join("go");
    part("Go clients", &directory, &contents(&source)?, || {
        let mut go = command("go", &["build", "-o"]);
        check_quietly(go.arg(&directory).arg("./...").current_dir(&source))
    })
}

fn rust() -> Result<()> {
    let source = root().join("tests/clients/rust");
    let directory = test_tools().join("rust");
    part("Rust client", &directory, &contents(&source)?, || {
        let mut build = cargo(&["build", "--quiet", "--locked", "--target-dir"]);
        check_quietly(build.arg(&directory).current_dir(&source))
    })
}

/// Makes `directory` by `make`, unless its stamp says that it was made from the same things.
pub(crate) fn part(
    name: &str,
    directory: &Path,
    made_from: &str,
    make: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let stamp = directory.join("made-from");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == made_from) {
        return Ok(());
    }
    println!("installing {name}");
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    make().with_context(|| format!("installing {name}"))?;
    fs::write(&stamp, made_from).with_context(|| stamp.display().to_string())
}

/// The text of all files below `directory`, in a fixed order.
pub(crate) fn contents(directory: &Path) -> Result<String> {
    files_below(directory)?
        .iter()
        .map(|file| read(file))
        .collect()
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| file.display().to_string())
}
