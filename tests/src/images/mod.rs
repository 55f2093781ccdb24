//! Container images, written by ourselves: no daemon, no registry, and the same bytes from the same contents.
//!
//! An image is one layer. It becomes an OCI layout (a directory that `skopeo`, `crane`, `podman` and others push), and the
//! same as one archive, which `ctr images import` and `podman load` take.

mod archive;
mod libraries;
mod sbom;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use ring::digest;
use serde_json::{Value, json};

pub use archive::{Archive, Entry};
pub use libraries::libraries;
pub use sbom::sbom;

/// Who everything in an image runs as.
pub const USER: u32 = 10001;

/// What an image is made of, and what it says of itself.
#[derive(Clone, Debug)]
pub struct Image {
    /// Name and tag, as `localhost/barnabas-broker:0.1.0`.
    pub name: String,
    /// Files and links of the layer; directories above them are added.
    pub entries: Vec<Entry>,
    pub entrypoint: Vec<String>,
    pub environment: Vec<String>,
    pub ports: Vec<u16>,
    /// Labels beside the usual ones.
    pub labels: Vec<(String, String)>,
    /// Whether processes are root; images that ship are not.
    pub is_root: bool,
}

impl Image {
    /// An image of one static program, with what it needs around it and its bill of materials.
    pub fn of_program(
        name: &str,
        program: &str,
        binary: Vec<u8>,
        ports: Vec<u16>,
        sbom: &Value,
    ) -> Image {
        let passwd = format!("root:x:0:0:root:/:\nbarnabas:x:{USER}:{USER}:barnabas:/:\n");
        let group = format!("root:x:0:\nbarnabas:x:{USER}:\n");
        let sbom = format!("{sbom:#}\n").into_bytes();
        let license = include_bytes!("../../../LICENSE").to_vec();
        let entries = vec![
            Entry::file(&format!("usr/bin/{program}"), 0o755, binary),
            Entry::file("etc/passwd", 0o644, passwd.into_bytes()),
            Entry::file("etc/group", 0o644, group.into_bytes()),
            Entry::file(&format!("usr/share/{program}/sbom.spdx.json"), 0o644, sbom),
            Entry::file(&format!("usr/share/{program}/LICENSE"), 0o644, license),
            Entry::directory("tmp", 0o1777),
        ];
        let title = "org.opencontainers.image.title".to_owned();
        Image {
            name: name.to_owned(),
            entries,
            entrypoint: vec![format!("/usr/bin/{program}")],
            environment: Vec::new(),
            ports,
            labels: vec![(title, program.to_owned())],
            is_root: false,
        }
    }

    /// Writes the layout into `directory` and the archive to `archive`; returns the manifest's digest.
    pub fn write(&self, directory: &Path, archive: &Path) -> Result<String> {
        if directory.exists() {
            fs::remove_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        let mut files = vec![(
            "oci-layout".to_owned(),
            json!({"imageLayoutVersion": "1.0.0"})
                .to_string()
                .into_bytes(),
        )];
        let mut blob = |media_type: &str, bytes: Vec<u8>| {
            let digest = sha256(&bytes);
            let size = bytes.len();
            files.push((format!("blobs/sha256/{digest}"), bytes));
            json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
        };

        let layer = Archive::of(&self.entries);
        let diff_id = format!("sha256:{}", sha256(&layer));
        let layer = blob(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            compressed(&layer)?,
        );
        let config = self.config(&diff_id).to_string().into_bytes();
        let config = blob("application/vnd.oci.image.config.v1+json", config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [layer],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut manifest = blob("application/vnd.oci.image.manifest.v1+json", manifest);
        let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        manifest["platform"] = json!({"architecture": "amd64", "os": "linux"});
        manifest["annotations"] = json!({
            "org.opencontainers.image.ref.name": tag,
            "io.containerd.image.name": self.name,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest],
        });
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));

        for (name, bytes) in &files {
            let path = directory.join(name);
            let parent = path.parent().unwrap_or(directory);
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
            fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        }
        let entries = files.into_iter();
        let entries: Vec<Entry> = entries
            .map(|(name, bytes)| Entry::file(&name, 0o644, bytes))
            .collect();
        let mut file = fs::File::create(archive).with_context(|| archive.display().to_string())?;
        file.write_all(&Archive::of(&entries))
            .with_context(|| archive.display().to_string())?;
        Ok(digest)
    }

    fn config(&self, diff_id: &str) -> Value {
        let mut labels = json!({
            "org.opencontainers.image.vendor": "Barnabas",
            "org.opencontainers.image.licenses": "Apache-2.0",
        });
        for (key, value) in &self.labels {
            labels[key] = json!(value);
        }
        let ports = self.ports.iter();
        let ports: serde_json::Map<_, _> = ports
            .map(|port| (format!("{port}/tcp"), json!({})))
            .collect();
        let user = if self.is_root {
            "0:0".to_owned()
        } else {
            format!("{USER}:{USER}")
        };
        json!({
            // The same contents are the same image whenever it is made.
            "created": "1970-01-01T00:00:00Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "User": user,
                "Entrypoint": self.entrypoint,
                "Env": self.environment,
                "ExposedPorts": ports,
                "WorkingDir": "/",
                "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask images"}],
        })
    }
}

/// gzip without a time or a file's name.
fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::default());
    gzip.write_all(bytes).context("gzip")?;
    gzip.finish().context("gzip")
}

fn sha256(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        let sbom = json!({"spdxVersion": "SPDX-2.3"});
        Image::of_program(
            "localhost/try:1",
            "try",
            b"binary".to_vec(),
            vec![9092],
            &sbom,
        )
    }

    #[test]
    fn the_same_contents_are_the_same_image() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let archive = directory.path().join(format!("{name}.tar"));
            let digest = image()
                .write(&directory.path().join(name), &archive)
                .unwrap();
            (digest, fs::read(archive).unwrap())
        };
        assert_eq!(make("one"), make("two"));
    }

    #[test]
    fn a_layout_names_its_blobs_by_their_digests() {
        let directory = tempfile::tempdir().unwrap();
        let layout = directory.path().join("layout");
        let digest = image()
            .write(&layout, &directory.path().join("image.tar"))
            .unwrap();
        let mut seen = 0;
        for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            assert_eq!(sha256(&fs::read(entry.path()).unwrap()), name);
            seen += 1;
        }
        assert_eq!(seen, 3);
        let manifest = layout.join("blobs").join(digest.replace(':', "/"));
        let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
        let config = manifest["config"]["digest"].as_str().unwrap();
        let config = fs::read(layout.join("blobs").join(config.replace(':', "/"))).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["config"]["User"], "10001:10001");
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/try"]));
    }
}
