//! Settings of the operator: a file, over it the environment and flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::admin::{AdminOptions, SaslMechanism, SaslOptions, TlsOptions};

/// What the operator is told. Keys are camelCase; unknown ones are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Name of the cluster in Kubernetes (`clusterRef.name`): the Helm release.
    pub cluster_name: String,
    /// `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// As brokers have it, chroot included. Without it, drift is found by resync only.
    pub zookeeper_connect: String,
    /// Namespaces whose Topics are served; `*` for all, none for the operator's own.
    pub watch_namespaces: Vec<String>,
    /// Whether Nodes and `PersistentVolumes` may be read.
    pub cluster_scope: bool,
    /// The `StatefulSet` of the brokers; empty if they do not run in Kubernetes.
    pub broker_stateful_set: String,
    /// Id of the broker in the pod with ordinal 0.
    pub broker_id_offset: i32,
    /// Where the balancer keeps its record; empty for nowhere.
    pub state_config_map: String,
    /// The Lease that says who acts; empty for no election.
    pub lease: String,
    /// Metrics, health and debug pages.
    pub listen: SocketAddr,
    /// Whether `/debug` answers.
    pub debug_endpoints: bool,
    pub topic_policy: Vec<TopicPolicy>,
    /// Of the balancer.
    pub balancing: serde_yaml::Value,
    /// Between two looks at everything.
    pub resync_seconds: u64,
    /// Between two looks at replicas and leaders.
    pub refresh_seconds: u64,
    pub status_writes_per_second: u32,
    pub pod_name: String,
    pub pod_namespace: String,
    pub tls: Option<TlsFiles>,
    pub sasl: Option<Sasl>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_name: "barnabas".to_owned(),
            bootstrap_servers: "localhost:9092".to_owned(),
            zookeeper_connect: String::new(),
            watch_namespaces: Vec::new(),
            cluster_scope: true,
            broker_stateful_set: String::new(),
            broker_id_offset: 0,
            state_config_map: String::new(),
            lease: "barnabas-operator".to_owned(),
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            debug_endpoints: false,
            topic_policy: Vec::new(),
            balancing: serde_yaml::Value::Null,
            resync_seconds: 120,
            refresh_seconds: 5,
            status_writes_per_second: 1000,
            pod_name: "barnabas-operator".to_owned(),
            pod_namespace: "default".to_owned(),
            tls: None,
            sasl: None,
        }
    }
}

/// What resources of a namespace may ask for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TopicPolicy {
    /// `*` for all that no other entry names.
    pub namespace: String,
    /// Beginnings of names that are allowed; none for all.
    pub prefixes: Vec<String>,
    pub max_partitions: Option<i32>,
    pub max_replicas: Option<i32>,
    pub max_topics: Option<usize>,
}

/// PEM files.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sasl {
    pub mechanism: String,
    pub username: String,
    /// Where the password is, on its first line.
    pub password_file: PathBuf,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{path}: {error}")]
    Read {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{path}: {error}")]
    Yaml {
        path: PathBuf,
        error: serde_yaml::Error,
    },
    #[error("{0}")]
    Invalid(String),
}

fn read(path: &std::path::Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path).map_err(|error| SettingsError::Read {
        path: path.to_owned(),
        error,
    })
}

impl Settings {
    /// Reads a file.
    pub fn load(path: &std::path::Path) -> Result<Self, SettingsError> {
        serde_yaml::from_str(&read(path)?).map_err(|error| SettingsError::Yaml {
            path: path.to_owned(),
            error,
        })
    }

    /// How to reach brokers.
    pub fn admin_options(&self) -> Result<AdminOptions, SettingsError> {
        let addresses = self.bootstrap_servers.split(',').map(str::trim);
        let mut options = AdminOptions::new(addresses.filter(|one| !one.is_empty()));
        if let Some(tls) = &self.tls {
            let identity = match (&tls.certificate, &tls.key) {
                (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
                (None, None) => None,
                _ => {
                    let message = "tls.certificate and tls.key belong together";
                    return Err(SettingsError::Invalid(message.to_owned()));
                }
            };
            options.tls = Some(TlsOptions {
                ca: tls.ca.clone(),
                identity,
            });
        }
        if let Some(sasl) = &self.sasl {
            let mechanism: SaslMechanism =
                sasl.mechanism.parse().map_err(SettingsError::Invalid)?;
            let password = read(&sasl.password_file)?;
            options.sasl = Some(SaslOptions {
                mechanism,
                username: sasl.username.clone(),
                password: password.lines().next().unwrap_or_default().to_owned(),
            });
        }
        Ok(options)
    }

    /// Namespaces to watch; nothing stands for all.
    pub fn namespaces(&self) -> Vec<Option<String>> {
        if self.watch_namespaces.iter().any(|one| one == "*") {
            return vec![None];
        }
        if self.watch_namespaces.is_empty() {
            return vec![Some(self.pod_namespace.clone())];
        }
        let mut namespaces = self.watch_namespaces.clone();
        namespaces.sort();
        namespaces.dedup();
        namespaces.into_iter().map(Some).collect()
    }

    pub fn resync(&self) -> Duration {
        Duration::from_secs(self.resync_seconds.max(1))
    }

    /// The policy for a namespace: its own, else that of `*`.
    pub fn policy(&self, namespace: &str) -> Option<&TopicPolicy> {
        let named = |name: &str| self.topic_policy.iter().find(|one| one.namespace == name);
        named(namespace).or_else(|| named("*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_chart_is_read() {
        let yaml = "
clusterName: kafka
bootstrapServers: kafka-bootstrap.shop:9092
zookeeperConnect: zk:2181/kafka
watchNamespaces: [b, a, b]
clusterScope: false
brokerStatefulSet: kafka-broker
stateConfigMap: kafka-balancer-state
lease: kafka-operator
listen: 0.0.0.0:9404
topicPolicy:
- {namespace: a, prefixes: [a.], maxPartitions: 10}
balancing: {mode: Full, failureGrace: 10m}
";
        let settings: Settings = serde_yaml::from_str(yaml).unwrap();
        let namespaces = [Some("a".to_owned()), Some("b".to_owned())];
        assert_eq!(settings.namespaces(), namespaces);
        assert_eq!(settings.policy("a").unwrap().max_partitions, Some(10));
        assert_eq!(settings.policy("b"), None);
        assert!(serde_yaml::from_str::<Settings>("bootstrap: x").is_err());
    }
}
