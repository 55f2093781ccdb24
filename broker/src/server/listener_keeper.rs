//! Sockets and the registration follow `listeners` and `advertised.listeners` while the broker runs (Kafka class
//! `DynamicListenerConfig`).
//!
//! The keeper compares what the settings want with what there is, whenever the settings change, and tries again
//! after a while what did not succeed. It is the only one that changes the broker's advertised endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::config::BrokerConfig;
use barnabas_core::control::Endpoint;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::identity;
use crate::api::Broker;
use crate::net::{Listener, ListenerOptions, Network};

/// How long a request in progress may take on a listener that was removed.
const CLOSING_GRACE: Duration = Duration::from_secs(1);

/// Between attempts to open a socket or to write the registration.
const RETRY_BACKOFF: Duration = Duration::from_secs(2);

/// A listener that is open.
pub(super) struct Bound {
    /// As it stands in `listeners`.
    pub(super) asked: Endpoint,
    pub(super) address: SocketAddr,
}

pub(super) struct ListenerKeeper {
    pub(super) broker: Arc<Broker>,
    pub(super) network: Arc<Network>,
    pub(super) bound: Vec<Bound>,
    /// What others were told last.
    pub(super) advertised: Vec<Endpoint>,
}

/// Whether everything is as the settings want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Something failed that may succeed later.
    Again,
}

impl ListenerKeeper {
    /// Follows the settings until the task is aborted.
    pub(super) fn start(self) -> JoinHandle<()> {
        let (changes, changed) = watch::channel(());
        let config = &self.broker.config;
        config.on_broker_change(move |_| changes.send_replace(()));
        tokio::spawn(self.run(changed))
    }

    async fn run(mut self, mut changed: watch::Receiver<()>) {
        loop {
            let config = self.broker.config.broker();
            let next = match self.follow(&config).await {
                Outcome::Done => changed.changed().await,
                Outcome::Again => {
                    let next = tokio::time::timeout(RETRY_BACKOFF, changed.changed());
                    next.await.unwrap_or(Ok(()))
                }
            };
            if next.is_err() {
                return;
            }
        }
    }

    async fn follow(&mut self, config: &BrokerConfig) -> Outcome {
        let removed = self.stop_accepting(config).await;
        let opened = self.open(config).await;
        let told = self.advertise(config).await;
        for listener in removed {
            tracing::info!(
                listener,
                "a listener was removed; its connections are closed"
            );
            self.network.close_listener(&listener, CLOSING_GRACE).await;
        }
        if opened == Outcome::Done {
            told
        } else {
            opened
        }
    }

    /// Closes the sockets of listeners that are not wanted, or wanted elsewhere. Gives the former.
    async fn stop_accepting(&mut self, config: &BrokerConfig) -> Vec<String> {
        let wanted = &config.listeners.bind;
        let mut removed = Vec::new();
        let mut kept = Vec::new();
        for bound in std::mem::take(&mut self.bound) {
            if wanted.contains(&bound.asked) {
                kept.push(bound);
                continue;
            }
            let name = &bound.asked.listener;
            self.network.stop_accepting(name).await;
            if !wanted.iter().any(|endpoint| endpoint.listener == *name) {
                removed.push(name.clone());
            }
        }
        self.bound = kept;
        removed
    }

    async fn open(&mut self, config: &BrokerConfig) -> Outcome {
        let mut outcome = Outcome::Done;
        let options = ListenerOptions::from_config(config);
        for (asked, options) in config.listeners.bind.iter().zip(options) {
            if self.bound.iter().any(|bound| bound.asked == *asked) {
                continue;
            }
            if config.listeners.unserved().any(|one| one == asked) {
                // Somebody wrote it into ZooKeeper.
                let protocol = asked.security_protocol.name();
                tracing::error!(
                    listener = asked.listener,
                    protocol,
                    "a listener is not opened: its protocol is not served yet"
                );
                continue;
            }
            match Listener::bind(&options).await {
                Ok(listener) => {
                    let address = listener.local_address();
                    tracing::info!(listener = asked.listener, %address, "a listener was added");
                    self.network.serve(listener, self.broker.clone());
                    let asked = asked.clone();
                    self.bound.push(Bound { asked, address });
                }
                Err(error) => {
                    tracing::error!(%error, "a listener cannot be opened; trying again");
                    outcome = Outcome::Again;
                }
            }
        }
        outcome
    }

    /// Rewrites the registration if others are to be told something else.
    async fn advertise(&mut self, config: &BrokerConfig) -> Outcome {
        let bound = self.bound.iter();
        let ports: Vec<(String, u16)> = bound
            .map(|bound| (bound.asked.listener.clone(), bound.address.port()))
            .collect();
        let mut endpoints = identity::advertised(config, &ports);
        // Nobody is sent where nobody listens.
        endpoints.retain(|endpoint| {
            let is_open = ports.iter().any(|(name, _)| *name == endpoint.listener);
            is_open || endpoint.listener == config.listeners.inter_broker
        });
        if endpoints == self.advertised {
            return Outcome::Done;
        }
        let zookeeper = &self.broker.zookeeper;
        let mut registration = identity::registration(config, self.broker.broker_id, &ports);
        registration.endpoints.clone_from(&endpoints);
        if let Err(error) = zookeeper.check_endpoints(&registration).await {
            tracing::error!(%error, "the advertised listeners stay as they are");
            return Outcome::Again;
        }
        let controller = &self.broker.controller;
        let Some(registration) = controller.advertise(endpoints.clone()).await else {
            // The broker stops.
            return Outcome::Done;
        };
        if let Err(error) = zookeeper.update_registration(&registration).await {
            tracing::warn!(%error, "the advertised listeners could not be written to ZooKeeper");
            return Outcome::Again;
        }
        let listeners = endpoints.iter();
        let listeners: Vec<String> = listeners
            .map(|one| format!("{}://{}:{}", one.listener, one.host, one.port))
            .collect();
        tracing::info!(
            listeners = listeners.join(","),
            "advertised listeners changed"
        );
        self.advertised = endpoints;
        Outcome::Done
    }
}
