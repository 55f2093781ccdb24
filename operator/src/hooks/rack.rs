//! `rack`: a broker's settings, completed by the zone of the node that it runs on.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt as _};
use tracing::{info, warn};

/// Writes a copy of a properties file with `broker.rack` added.
#[derive(Args, Clone, Debug)]
pub struct RackArgs {
    /// The node that the pod is on.
    #[arg(long, env = "NODE_NAME")]
    pub node: String,
    /// The label of nodes whose value is the rack.
    #[arg(long, default_value = "topology.kubernetes.io/zone")]
    pub label: String,
    /// The settings to start from.
    #[arg(long)]
    pub properties: PathBuf,
    /// Where to write them, completed.
    #[arg(long)]
    pub output: PathBuf,
}

/// Looks the node up, and writes the file. A node without the label gives a broker without a rack, as on
/// plain machines; a node that cannot be looked up is an error, since a rack must not change from start to start.
pub async fn rack(args: &RackArgs, client: kube::Client) -> anyhow::Result<()> {
    let node = Api::<Node>::all(client).get(&args.node).await;
    let node = node.with_context(|| format!("looking at node {}", args.node))?;
    let rack = node.labels().get(&args.label);
    match rack {
        Some(rack) => info!(node = args.node, rack, "the broker's rack"),
        None => {
            warn!(
                node = args.node,
                label = args.label,
                "the node has no such label: the broker has no rack"
            );
        }
    }
    let settings = std::fs::read_to_string(&args.properties)
        .with_context(|| args.properties.display().to_string())?;
    std::fs::write(&args.output, with_rack(&settings, rack.map(String::as_str)))
        .with_context(|| args.output.display().to_string())
}

/// Values of labels need no escaping in a properties file: letters, digits, `-`, `_` and `.`.
fn with_rack(settings: &str, rack: Option<&str>) -> String {
    let mut text = settings.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if let Some(rack) = rack {
        text.extend(["broker.rack=", rack, "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rack_is_a_line_of_its_own() {
        assert_eq!(with_rack("a=b", Some("z1")), "a=b\nbroker.rack=z1\n");
        assert_eq!(with_rack("a=b\n", Some("z1")), "a=b\nbroker.rack=z1\n");
        assert_eq!(with_rack("a=b\n", None), "a=b\n");
    }
}
