//! The chart as Helm renders it, as its schema guards it, and as a real API server takes it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod readme;
mod renderings;
mod schema;
mod server;

use std::path::PathBuf;
use std::process::{Command, Output};

use barnabas_tests::tools::{repository, test_tool};

/// The chart's directory.
fn chart() -> PathBuf {
    repository().join("charts/barnabas")
}

/// `helm template` of the chart as release `kafka` in namespace `streams` for the newest Kubernetes that is tested.
fn template(arguments: &[&str]) -> Output {
    Command::new(test_tool("kubernetes").join("helm"))
        .args(["template", "kafka"])
        .arg(chart())
        .args(["--namespace=streams", "--kube-version=1.34.4"])
        .args([
            "--api-versions=admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy",
            "--api-versions=monitoring.coreos.com/v1",
        ])
        .args(arguments)
        .output()
        .unwrap()
}
