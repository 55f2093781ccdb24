//! What a program is built from, as SPDX 2.3.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::tools::repository;

/// The crates that the package `name` links, as cargo resolves them from the lock file.
pub fn sbom(name: &str) -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--edges=normal", "--prefix=none"])
        .args(["--target=x86_64-unknown-linux-gnu", "--package", name])
        .args(["--format", "{p}\t{l}"])
        .current_dir(repository())
        .output()
        .context("cannot run cargo tree")?;
    let problem = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo tree: {problem}");
    let text = String::from_utf8(output.stdout).context("cargo tree")?;
    let mut crates: Vec<(&str, &str, &str)> = text.lines().filter_map(parsed).collect();
    crates.sort_unstable();
    crates.dedup();
    let root = crates.iter().find(|(crate_name, ..)| *crate_name == name);
    let root = root.map(|(name, version, _)| id(name, version));
    let packages: Vec<Value> = crates.into_iter().map(package).collect();
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("https://barnabas.dev/sbom/{name}"),
        "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": ["Tool: cargo xtask images"]},
        "documentDescribes": root.into_iter().collect::<Vec<_>>(),
        "packages": packages,
    }))
}

/// Name, version and licence of `name v1.2.3 (*)<tab>licence`.
fn parsed(line: &str) -> Option<(&str, &str, &str)> {
    let (package, license) = line.split_once('\t')?;
    let mut words = package.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    let license = license.trim_end_matches(" (*)").trim();
    Some((name, version, license))
}

fn id(name: &str, version: &str) -> String {
    format!("SPDXRef-{name}-{version}").replace(['_', '+'], "-")
}

fn package((name, version, license): (&str, &str, &str)) -> Value {
    let license = if license.is_empty() || license.contains('/') {
        "NOASSERTION"
    } else {
        license
    };
    json!({
        "SPDXID": id(name, version),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": license,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": format!("pkg:cargo/{name}@{version}"),
        }],
    })
}
