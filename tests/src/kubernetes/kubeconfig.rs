//! Who may talk to the API server, and the files by which they do.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result};

/// A user's name in files, the name the API server knows, and the groups.
const USERS: [(&str, &str, &str); 4] = [
    ("admin", "admin", "system:masters"),
    ("controllers", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
];

/// Writes `tokens.csv` for the API server, and `<user>.kubeconfig` for each user and each of `nodes` nodes.
pub(super) fn write(directory: &Path, url: &str, nodes: u8) -> Result<()> {
    let users = USERS.map(|(file, name, group)| (file.to_owned(), name.to_owned(), group));
    let nodes = (1..=nodes).map(|node| {
        let name = format!("system:node:node{node}");
        (format!("node{node}"), name, "system:nodes")
    });
    let authority = directory.join("pki/ca.crt");
    let mut tokens = String::new();
    for (file, name, group) in users.into_iter().chain(nodes) {
        let token = token()?;
        writeln!(tokens, "{token},{name},{name},{group}")?;
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters: [{{name: lab, cluster: {{server: \"{url}\", certificate-authority: \"{}\"}}}}]\n\
             users: [{{name: lab, user: {{token: {token}}}}}]\n\
             contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n",
            authority.display()
        );
        let path = directory.join(format!("{file}.kubeconfig"));
        fs::write(&path, config).with_context(|| path.display().to_string())?;
    }
    let path = directory.join("pki/tokens.csv");
    fs::write(&path, tokens).with_context(|| path.display().to_string())
}

fn token() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("/dev/urandom")?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
