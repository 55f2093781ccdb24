//! A thin admin client: the dozen requests that an operator of a cluster needs, on long-lived connections.
//!
//! One connection per broker, requests pipelined; a connection that breaks is dialled again by the next request.
//! What reads only is asked again elsewhere when there is no answer; what changes something never is: it may
//! have been done, and whoever asked has to look before repeating it (see [`AdminError::may_have_happened`]).
//! `NOT_CONTROLLER` for everything that was asked means that nothing was done: then the controller is looked up
//! and asked again, a few times. Wire structs and error codes stay within this module.

mod calls;
mod connection;
mod error;
mod options;
mod records;
mod sasl;
mod tls;
mod types;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use barnabas_core::ids::BrokerId;
use kafka_protocol::protocol::Request;
use tokio::sync::Mutex;

pub use calls::ReassignmentErrors;
pub use error::{AdminError, Answer, ItemError, KafkaError, name as error_name};
pub use options::{AdminOptions, SaslMechanism, SaslOptions, TlsOptions};
pub use types::*;

use connection::Connection;

/// How often a request goes to the next controller.
const CONTROLLER_ATTEMPTS: u32 = 6;
/// Between two looks for the controller, doubled each time.
const CONTROLLER_PAUSE: Duration = Duration::from_millis(100);

/// Sees each request that was answered or failed, for metrics.
pub trait Observer: Send + Sync {
    /// `api` is the protocol's key.
    fn request(&self, api: i16, took: Duration, error: Option<&AdminError>);

    /// An item of a request that was refused.
    fn item(&self, api: i16, error: KafkaError);
}

struct NoObserver;

impl Observer for NoObserver {
    fn request(&self, _: i16, _: Duration, _: Option<&AdminError>) {}
    fn item(&self, _: i16, _: KafkaError) {}
}

/// A handle on a cluster; clones share connections.
#[derive(Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

struct Inner {
    options: AdminOptions,
    tls: Option<tls::Connector>,
    observer: Arc<dyn Observer>,
    /// What the last metadata said.
    known: RwLock<Known>,
    /// One slot per broker, so that many callers wait for one dialling.
    slots: std::sync::Mutex<Slots>,
}

#[derive(Default)]
struct Known {
    controller: Option<BrokerId>,
    brokers: BTreeMap<BrokerId, BrokerNode>,
}

type Slots = BTreeMap<Address, Arc<Mutex<Option<Arc<Connection>>>>>;

/// Host and port.
type Address = (String, u16);

/// Which broker a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Any,
    Controller,
    Broker(BrokerId),
}

impl Admin {
    /// Connects to nobody yet. An error if files of TLS cannot be read or an address is none.
    pub fn new(options: AdminOptions) -> Result<Self, AdminError> {
        Self::observed(options, Arc::new(NoObserver))
    }

    /// The same with somebody who counts requests.
    pub fn observed(
        options: AdminOptions,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, AdminError> {
        if options.bootstrap.is_empty() {
            return Err(AdminError::Options("no bootstrap address".to_owned()));
        }
        for text in &options.bootstrap {
            address(text)?;
        }
        let tls = options.tls.as_ref().map(tls::Connector::new).transpose()?;
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                tls,
                observer,
                known: RwLock::default(),
                slots: std::sync::Mutex::default(),
            }),
        })
    }

    /// How long a broker may work on a request: less than we wait, so that its answer comes in time.
    fn broker_timeout_ms(&self) -> i32 {
        let limit = self.inner.options.request_timeout.as_millis();
        i32::try_from(limit * 4 / 5).unwrap_or(i32::MAX)
    }

    /// Connections that are open.
    pub async fn connections(&self) -> usize {
        let slots: Vec<_> = self.slots().values().cloned().collect();
        let mut open = 0;
        for slot in slots {
            open += usize::from(slot.lock().await.as_ref().is_some_and(|one| one.is_open()));
        }
        open
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.inner
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Where brokers may be reached, best first.
    fn addresses(&self, to: To) -> Vec<(Address, String)> {
        let known = self
            .inner
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let labelled = |node: &BrokerNode| {
            let label = format!("{} ({}:{})", node.id, node.host, node.port);
            ((node.host.clone(), node.port), label)
        };
        let one = |id: &BrokerId| known.brokers.get(id).map(labelled);
        match to {
            To::Broker(id) => one(&id).into_iter().collect(),
            To::Controller => known
                .controller
                .as_ref()
                .and_then(one)
                .into_iter()
                .collect(),
            To::Any => {
                // Those that were told of last, the configured ones in case all of them moved.
                let bootstrap = self.inner.options.bootstrap.iter();
                let bootstrap =
                    bootstrap.filter_map(|text| Some((address(text).ok()?, text.clone())));
                known
                    .brokers
                    .values()
                    .map(labelled)
                    .chain(bootstrap)
                    .collect()
            }
        }
    }

    async fn connection(
        &self,
        address: Address,
        label: String,
    ) -> Result<Arc<Connection>, AdminError> {
        let slot = self.slots().entry(address.clone()).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|one| one.is_open()) {
            return Ok(connection.clone());
        }
        let inner = &self.inner;
        let (host, port) = address;
        let opened = Connection::open(&inner.options, inner.tls.as_ref(), &host, port, label).await;
        *slot = None;
        let connection = Arc::new(opened?);
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Keeps who is there, and closes connections to who is no longer.
    fn learn(&self, metadata: &Metadata) {
        let bootstrap = self.inner.options.bootstrap.iter();
        let mut wanted: Vec<Address> = bootstrap.filter_map(|text| address(text).ok()).collect();
        wanted.extend(
            metadata
                .brokers
                .iter()
                .map(|node| (node.host.clone(), node.port)),
        );
        self.slots().retain(|address, _| wanted.contains(address));
        let mut known = self
            .inner
            .known
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        known.controller = metadata.controller;
        known.brokers = metadata
            .brokers
            .iter()
            .map(|node| (node.id, node.clone()))
            .collect();
    }

    /// One request to one broker; `build` makes it for the version that was agreed upon.
    async fn call_once<R: Request>(
        &self,
        to: To,
        needed: i16,
        build: &(dyn Fn(i16) -> R + Sync),
    ) -> Result<(R::Response, i16), AdminError> {
        let mut failure = AdminError::Unreachable(match to {
            To::Any => "none is known".to_owned(),
            To::Controller => "no controller is known".to_owned(),
            To::Broker(id) => format!("broker {id} is not registered"),
        });
        for (address, label) in self.addresses(to) {
            let begun = tokio::time::Instant::now();
            let answer = async {
                let connection = self.connection(address, label).await?;
                let version = connection.version_of::<R>(needed)?;
                let limit = self.inner.options.request_timeout;
                let answer = connection
                    .call_version(version, &build(version), limit)
                    .await?;
                Ok((answer, version))
            };
            let answer = answer.await;
            self.inner
                .observer
                .request(R::KEY, begun.elapsed(), answer.as_ref().err());
            match answer {
                Ok(answer) => return Ok(answer),
                // Only a question may be put to the next one after it was sent.
                Err(error) if error.may_have_happened() && to != To::Any => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// A question that any broker can answer.
    pub(crate) async fn ask<R: Request>(
        &self,
        needed: i16,
        build: impl Fn(i16) -> R + Sync,
    ) -> Result<(R::Response, i16), AdminError> {
        self.call_once(To::Any, needed, &build).await
    }

    /// For one broker, found by metadata.
    pub(crate) async fn ask_broker<R: Request>(
        &self,
        id: BrokerId,
        needed: i16,
        build: impl Fn(i16) -> R + Sync,
    ) -> Result<(R::Response, i16), AdminError> {
        if self.addresses(To::Broker(id)).is_empty() {
            self.metadata(Topics::Named(&[])).await?;
        }
        self.call_once(To::Broker(id), needed, &build).await
    }

    /// For the controller, whoever that is by now. `is_elsewhere` says that an answer is `NOT_CONTROLLER` throughout.
    pub(crate) async fn ask_controller<R: Request>(
        &self,
        needed: i16,
        build: impl Fn(i16) -> R + Sync,
        is_elsewhere: impl Fn(&R::Response) -> bool,
    ) -> Result<(R::Response, i16), AdminError> {
        let mut pause = CONTROLLER_PAUSE;
        let mut attempt = 1;
        loop {
            if attempt > 1 || self.addresses(To::Controller).is_empty() {
                self.metadata(Topics::Named(&[])).await?;
            }
            match self.call_once(To::Controller, needed, &build).await {
                Ok((answer, version)) => {
                    if !is_elsewhere(&answer) || attempt == CONTROLLER_ATTEMPTS {
                        return Ok((answer, version));
                    }
                }
                // Not sent: the controller may just have died.
                Err(AdminError::Unreachable(_)) if attempt < CONTROLLER_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            attempt += 1;
        }
    }
}

fn address(text: &str) -> Result<Address, AdminError> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then_some((host.to_owned(), port.parse().ok()?))
    });
    parsed.ok_or_else(|| AdminError::Options(format!("`{text}` is not host:port")))
}
