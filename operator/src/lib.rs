//! The operator as a library: what its binary and its tests share.
//!
//! | module | what it owns |
//! |---|---|
//! | [`admin`] | the admin client: connections, requests, per-item results |
//! | [`balance_command`] | `balance`: the mover on plain machines |
//! | [`cluster`] | a snapshot of the cluster that is refreshed |
//! | [`moves`] | the one owner of moves: heal, drain, spread, balance; waves and throttles |
//! | [`zookeeper`] | registrations, and the lock that keeps two balancers apart |
//! | [`brokers`] | what each broker seems to be: a pure machine and the watches that feed it |
//! | [`balancer`] | the mover inside Kubernetes |
//! | [`resource`] | the Topic resource and its generated definition |
//! | [`topic`] | what is to become of a topic: decisions over plain data |
//! | [`controller`] | from the watch of Topics to Kafka and back into their status |
//! | [`signals`] | what ZooKeeper says |
//! | [`election`] | who of several operators acts |
//! | [`settings`], [`metrics`], [`http`] | settings; figures; pages |
//! | [`run`] | the order of starting and stopping |
//! | [`hooks`] | what the chart runs beside: racks, `helm test`, scaling in |

pub mod admin;
pub mod balance_command;
pub mod balancer;
pub mod brokers;
pub mod cluster;
pub mod controller;
pub mod election;
pub mod hooks;
pub mod http;
pub mod metrics;
pub mod moves;
pub mod resource;
pub mod run;
pub mod settings;
pub mod signals;
pub mod topic;
pub mod zookeeper;

use anyhow::Context as _;

/// A client of the API server: of the cluster that this runs in, or of the kubeconfig.
pub async fn client() -> anyhow::Result<kube::Client> {
    // Two providers are compiled in, so one has to be chosen. An error means that it was.
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    drop(provider.install_default());
    let client = kube::Client::try_default().await;
    client.context("finding the API server (in-cluster environment or kubeconfig)")
}
