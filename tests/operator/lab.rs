//! An API server that knows Topics, and the operator on it.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use barnabas_tests::cluster::Cluster;
use barnabas_tests::kubernetes::{ControlPlane, Options};
use barnabas_tests::server_process::ServerProcess;
use barnabas_tests::{tools, wait};

pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const DEFINITION: &str = include_str!("../../manifests/crds/topics.yaml");

pub(crate) fn topic(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: barnabas.dev/v1alpha1, kind: Topic, metadata: {{name: {name}, namespace: default}}, spec: {{{spec}}}}}"
    )
}

pub(crate) struct Lab {
    pub(crate) kubernetes: ControlPlane,
    pub(crate) directory: tempfile::TempDir,
}

impl Lab {
    /// An API server that knows Topics.
    pub(crate) fn start() -> Lab {
        Self::start_with(DEFINITION, &Options::default())
    }

    /// The same with another definition of Topics.
    pub(crate) fn start_with(definition: &str, options: &Options) -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().join("kubernetes");
        let kubernetes = ControlPlane::start_with(&files, options).unwrap();
        kubernetes.apply(definition).unwrap();
        let established = [
            "wait",
            "--for=condition=Established",
            "crd/topics.barnabas.dev",
            "--timeout=30s",
        ];
        kubernetes.kubectl(&established).unwrap();
        Lab {
            kubernetes,
            directory,
        }
    }

    pub(crate) fn operator(&self, name: &str, brokers: &Cluster, zookeeper: &str) -> ServerProcess {
        let mut command = Command::new(tools::operator_binary());
        command
            .env("KUBECONFIG", &self.kubernetes.kubeconfig)
            .args([
                "run",
                "--lease=operator",
                "--listen=127.0.0.1:0",
                "--namespace=*",
            ])
            .args(["--pod-namespace=default", "--pod-name", name])
            .args(["--bootstrap", &brokers.bootstrap().join(",")])
            .args(["--zookeeper", zookeeper]);
        let log = self.directory.path().join(format!("{name}.log"));
        ServerProcess::start(name, &mut command, &log).unwrap()
    }

    pub(crate) fn apply(&self, name: &str, spec: &str) -> Result<String> {
        self.kubernetes.apply(&topic(name, spec))
    }

    pub(crate) fn get(&self, name: &str, path: &str) -> String {
        let path = format!("jsonpath={{{path}}}");
        let arguments = ["get", "topics.barnabas.dev", name, "-o", &path];
        self.kubernetes.kubectl(&arguments).unwrap_or_default()
    }

    /// `status reason` of the Ready condition.
    pub(crate) fn ready(&self, name: &str) -> String {
        let condition = |field: &str| {
            self.get(
                name,
                &format!(".status.conditions[?(@.type==\"Ready\")].{field}"),
            )
        };
        format!("{} {}", condition("status"), condition("reason"))
    }

    pub(crate) fn wait_for(&self, name: &str, wanted: &str) {
        let found = wait::until(PATIENCE, || (self.ready(name) == wanted).then_some(()));
        assert!(
            found.is_some(),
            "{name}: {} instead of {wanted}",
            self.ready(name)
        );
    }

    pub(crate) fn wait_until_gone(&self, name: &str) {
        let gone = wait::until(PATIENCE, || {
            self.get(name, ".metadata.name").is_empty().then_some(())
        });
        assert!(gone.is_some(), "{name} stays");
    }

    pub(crate) fn delete(&self, name: &str) {
        let arguments = ["delete", "topics.barnabas.dev", name, "--timeout=60s"];
        self.kubernetes.kubectl(&arguments).unwrap();
    }
}
