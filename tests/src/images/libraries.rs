//! What a program loads when it starts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The shared libraries that a program or library loads, and what loads them; none for a static program.
pub fn libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(binary).output();
    let output = output.context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace();
    // Those beside the binary itself come with it.
    let own = binary.ancestors().nth(2).unwrap_or(binary);
    Ok(words
        .filter(|word| word.starts_with('/') && !Path::new(word).starts_with(own))
        .map(PathBuf::from)
        .collect())
}
