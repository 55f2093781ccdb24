//! Makes images of the binaries that `cargo xtask images` has built, with the libraries of those that are not static.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool talks on standard output"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use barnabas_tests::images::{Entry, Image, libraries, sbom};

/// Package, what it is, and ports; the binary has the package's name.
const PROGRAMS: [(&str, &str, &[u16]); 2] = [
    (
        "barnabas-broker",
        "A broker that is Apache Kafka 3.9 in ZooKeeper mode",
        &[9092, 9404],
    ),
    (
        "barnabas-operator",
        "Keeps topics and replicas of a Kafka cluster as described",
        &[9404],
    ),
];

fn main() -> Result<()> {
    let mut words = env::args_os().skip(1).map(PathBuf::from);
    let usage = "images <directory of binaries> <output directory> <tag>";
    let (Some(binaries), Some(output), Some(tag)) = (words.next(), words.next(), words.next())
    else {
        anyhow::bail!("{usage}");
    };
    fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    for (program, description, ports) in PROGRAMS {
        let name = format!("localhost/{program}:{}", tag.display());
        let binary = stripped(&binaries.join(program), &output.join("stripped"))?;
        let mut image = Image::of_program(&name, program, binary, ports.to_vec(), &sbom(program)?);
        for library in libraries(&binaries.join(program))? {
            let bytes = fs::read(&library).with_context(|| library.display().to_string())?;
            let path = library.display().to_string();
            image.entries.push(Entry::file(&path, 0o755, bytes));
        }
        let version = "org.opencontainers.image.version".to_owned();
        image.labels.push((version, tag.display().to_string()));
        let label = "org.opencontainers.image.description".to_owned();
        image.labels.push((label, description.to_owned()));
        let archive = output.join(format!("{program}.tar"));
        let digest = image.write(&output.join(program), &archive)?;
        let size = fs::metadata(&archive)?.len();
        println!(
            "{name}  {digest}  {} MB  {}",
            size / 1_000_000,
            archive.display()
        );
    }
    Ok(())
}

/// The binary without its symbols.
fn stripped(binary: &Path, scratch: &Path) -> Result<Vec<u8>> {
    let status = Command::new("strip")
        .arg("-o")
        .args([scratch, binary])
        .status()
        .context("cannot run strip: on Debian install binutils")?;
    ensure!(status.success(), "strip {}", binary.display());
    let bytes = fs::read(scratch).with_context(|| scratch.display().to_string())?;
    fs::remove_file(scratch)?;
    Ok(bytes)
}
