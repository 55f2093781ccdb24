//! What `cargo xtask install` put into `target/test-tools`, and the programs that cargo built.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The repository's root directory.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the root")
}

/// Cargo's build directory: the one this very program lies in.
pub fn target() -> &'static Path {
    static TARGET: LazyLock<PathBuf> = LazyLock::new(|| {
        if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
            return PathBuf::from(target);
        }
        let program = std::env::current_exe().expect("a process knows its own path");
        // target/debug/deps/e2e-0123456789abcdef or target/release/bench
        let profile = program
            .ancestors()
            .find(|directory| directory.ends_with("target"));
        profile.map_or_else(|| repository().join("target"), Path::to_owned)
    });
    &TARGET
}

/// A file or directory below `target/test-tools`.
///
/// # Panics
/// If it is not there, with the command that brings it.
pub fn test_tool(path: &str) -> PathBuf {
    let tools = std::env::var_os("BARNABAS_TEST_TOOLS")
        .map_or_else(|| target().join("test-tools"), PathBuf::from);
    let tool = tools.join(path);
    assert!(
        tool.exists(),
        "{} is missing: `cargo xtask install` brings it",
        tool.display()
    );
    tool
}

/// The broker's binary: `BARNABAS_BROKER`, or the one that the same cargo profile built.
///
/// # Panics
/// If it is not there.
pub fn broker_binary() -> PathBuf {
    binary("barnabas-broker", "BARNABAS_BROKER")
}

/// The operator's binary: `BARNABAS_OPERATOR`, or the one that the same cargo profile built.
///
/// # Panics
/// If it is not there.
pub fn operator_binary() -> PathBuf {
    binary("barnabas-operator", "BARNABAS_OPERATOR")
}

fn binary(name: &str, variable: &str) -> PathBuf {
    if let Some(binary) = std::env::var_os(variable) {
        return PathBuf::from(binary);
    }
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let binary = target().join(profile).join(name);
    assert!(
        binary.exists(),
        "{} is missing: `cargo build` makes it",
        binary.display()
    );
    binary
}

/// Java with everything of Apache Kafka 3.9.1 on its class path; a main class and arguments follow.
pub fn kafka_java(options: &[&str]) -> Command {
    java(options, test_tool("kafka").join("*").into_os_string())
}

/// Java with Kafka Streams, Connect, `MirrorMaker` 2 and the programs of `tests/clients/java/applications` on its
/// class path; a main class and arguments follow.
pub fn applications_java(options: &[&str]) -> Command {
    let tool = test_tool("java-applications");
    let mut classes = tool.join("*").into_os_string();
    classes.push(":");
    classes.push(tool.join("classes"));
    let mut java = java(options, classes);
    let logging = repository().join("tests/clients/java/applications/log4j.properties");
    java.arg(format!("-Dlog4j.configuration=file:{}", logging.display()));
    java
}

fn java(options: &[&str], classes: OsString) -> Command {
    let mut java = Command::new("java");
    java.args(options).arg("-cp").arg(classes);
    java
}
