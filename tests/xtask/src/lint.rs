//! `lint`: format, lints, licences; the same for a person and for CI.

use anyhow::Result;

use crate::arguments::Arguments;
use crate::install;
use crate::run::{cargo, check, command};

pub(crate) fn lint(words: Vec<String>) -> Result<()> {
    Arguments::new(words).finish()?;
    println!("lint: rustfmt");
    check(&mut cargo(&["fmt", "--all", "--check"]))?;
    println!("lint: clippy");
    check(&mut cargo(&[
        "clippy",
        "--quiet",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "--deny=warnings",
    ]))?;
    println!("lint: cargo deny");
    let cargo_deny = install::cargo_deny()?;
    check(&mut command(
        cargo_deny,
        &["check", "bans", "licenses", "sources"],
    ))?;
    println!("lint: clean");
    Ok(())
}
