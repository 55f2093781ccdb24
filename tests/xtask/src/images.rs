//! `images`: container images of the broker and the operator, without a daemon.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::arguments::Arguments;
use crate::run::{cargo, check, command, root, target};

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Compiled into programs where the compiler would write a time.
const NO_TIME: &str = "0";

pub(crate) fn images(words: Vec<String>) -> Result<()> {
    let mut arguments = Arguments::new(words);
    let is_debug = arguments.flag("--debug");
    let tag = arguments
        .option::<String>("--tag")?
        .unwrap_or_else(|| "0.1.0".to_owned());
    arguments.finish()?;
    make(is_debug, &tag)
}

/// Builds both programs and writes `target/images`. Without optimizing, they are those that tests run, with this
/// machine's C library beside them: nothing is compiled a second time.
pub(crate) fn make(is_debug: bool, tag: &str) -> Result<()> {
    let mut build = cargo(&["build", "--quiet", "--locked"]);
    let binaries = if is_debug {
        println!("building the broker and the operator");
        // A test among them lets crates have the features that all tests build them with.
        build.args(["--workspace", "--bins", "--test", "kubernetes"]);
        target().join("debug")
    } else {
        println!("building static binaries");
        let flags = flags()?;
        build
            .args(["--release", "--target", TRIPLE])
            .args(["--package", "barnabas-broker"])
            .args(["--package", "barnabas-operator"])
            .env("CARGO_ENCODED_RUSTFLAGS", flags.rust.join("\u{1f}"))
            .env("CFLAGS_x86_64_unknown_linux_gnu", flags.c.join(" "))
            .env("SOURCE_DATE_EPOCH", NO_TIME);
        target().join(TRIPLE).join("release")
    };
    check(&mut build)?;
    let mut write = if is_debug {
        command(binaries.join("images"), &[])
    } else {
        cargo(&["run", "--quiet", "--locked", "--bin", "images", "--"])
    };
    write.arg(binaries).arg(target().join("images")).arg(tag);
    check(&mut write)
}

struct Flags {
    rust: Vec<String>,
    c: Vec<String>,
}

/// Static programs, as their images hold nothing else, and the same bytes wherever they are compiled: no path of this
/// machine and no build id gets into them.
fn flags() -> Result<Flags> {
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(directory) => PathBuf::from(directory),
        None => std::env::home_dir()
            .context("there is neither CARGO_HOME nor a home directory")?
            .join(".cargo"),
    };
    // Where several fit, compilers take the last one.
    let places = [
        (root(), "/barnabas"),
        (cargo_home, "/cargo"),
        (target(), "/target"),
    ];
    let mut flags = Flags {
        rust: vec![
            "-Ctarget-feature=+crt-static".to_owned(),
            "-Clink-arg=-Wl,--build-id=none".to_owned(),
        ],
        c: Vec::new(),
    };
    for (from, to) in places {
        let from = from.display();
        flags.rust.push(format!("--remap-path-prefix={from}={to}"));
        flags.c.push(format!("-ffile-prefix-map={from}={to}"));
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_of_this_machine_gets_into_a_program() {
        let flags = flags().unwrap();
        for place in [root(), target()] {
            let from = format!("={}=", place.display());
            assert!(flags.rust.iter().any(|flag| flag.contains(&from)));
            assert!(flags.c.iter().any(|flag| flag.contains(&from)));
        }
    }
}
