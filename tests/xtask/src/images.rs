//! `images`: container images of the broker and the operator, without a daemon.

use anyhow::Result;

use crate::arguments::Arguments;
use crate::run::{cargo, check, target};

/// Static programs need nothing else in their image.
const STATIC: &str = "-C target-feature=+crt-static";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn images(words: Vec<String>) -> Result<()> {
    let mut arguments = Arguments::new(words);
    let is_debug = arguments.flag("--debug");
    let tag = arguments
        .option::<String>("--tag")?
        .unwrap_or_else(|| "0.1.0".to_owned());
    arguments.finish()?;
    make(is_debug, &tag)
}

/// Builds both programs and writes `target/images`.
pub(crate) fn make(is_debug: bool, tag: &str) -> Result<()> {
    println!("building static binaries");
    let mut build = cargo(&["build", "--quiet", "--locked", "--target", TRIPLE]);
    build.args([
        "--package",
        "barnabas-broker",
        "--package",
        "barnabas-operator",
    ]);
    if !is_debug {
        build.arg("--release");
    }
    check(build.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", STATIC))?;
    let profile = if is_debug { "debug" } else { "release" };
    let mut write = cargo(&["run", "--quiet", "--locked", "--bin", "images", "--"]);
    write
        .arg(target().join(TRIPLE).join(profile))
        .arg(target().join("images"))
        .arg(tag);
    check(&mut write)
}
