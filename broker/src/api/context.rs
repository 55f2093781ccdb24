//! What a handler is given beside the request: the broker's parts, and who asks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use barnabas_core::ids::BrokerId;

use super::Call;
use crate::clock;
use crate::config::LiveConfig;
use crate::controller::{ControllerHandle, ControllerLink};
use crate::coordinator::{GroupCoordinator, TransactionCoordinator, TransactionVerifier};
use crate::log::LogManager;
use crate::metadata_cache::MetadataCache;
use crate::metrics::Metrics;
use crate::peer::PeerNetwork;
use crate::producer_ids::ProducerIdManager;
use crate::quota::{Client, ClientQuotas, Mutations, Strictness, percent};
use crate::replica::ReplicaManager;
use crate::replica::fetch_session_cache::FetchSessions;
use crate::topics::TopicAdmin;
use crate::zookeeper::ZooKeeper;

/// The parts of the broker that requests work on. Each part is shared and looks after its own locks.
pub struct Broker {
    pub broker_id: BrokerId,
    /// `/cluster/id`, 22 characters.
    pub cluster_id: String,
    pub config: Arc<LiveConfig>,
    pub metadata: Arc<MetadataCache>,
    pub metrics: Arc<Metrics>,
    pub zookeeper: Arc<ZooKeeper>,
    pub logs: Arc<LogManager>,
    pub replicas: Arc<ReplicaManager>,
    pub fetch_sessions: Arc<FetchSessions>,
    pub controller: Arc<ControllerHandle>,
    /// Whoever is controller.
    pub controller_link: Arc<ControllerLink>,
    /// How other brokers are reached.
    pub peers: Arc<dyn PeerNetwork>,
    pub topics: Arc<TopicAdmin>,
    pub producer_ids: Arc<ProducerIdManager>,
    pub quotas: Arc<ClientQuotas>,
    pub groups: Arc<GroupCoordinator>,
    pub verifier: Arc<TransactionVerifier>,
    pub transactions: Arc<TransactionCoordinator>,
}

/// Who sent a request: `User:name`, as authorizers and quotas know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    pub kind: Arc<str>,
    pub name: Arc<str>,
}

impl Principal {
    /// The principal of connections without authentication.
    pub fn anonymous() -> Self {
        Self {
            kind: Arc::from("User"),
            name: Arc::from("ANONYMOUS"),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

/// What all requests of one connection have in common.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Unique within this process.
    pub id: u64,
    /// Listener name, upper case: decides which endpoints a client is told.
    pub listener: Arc<str>,
    pub peer_address: SocketAddr,
    pub principal: Principal,
}

impl Connection {
    /// The client's address as Java writes it: `/127.0.0.1`, and all eight parts of one of IPv6.
    pub fn host(&self) -> String {
        match self.peer_address.ip().to_canonical() {
            IpAddr::V4(ip) => format!("/{ip}"),
            IpAddr::V6(ip) => {
                let parts = ip.segments().map(|part| format!("{part:x}"));
                format!("/{}", parts.join(":"))
            }
        }
    }
}

/// The circumstances of one request.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub broker: &'a Arc<Broker>,
    pub connection: &'a Connection,
    /// API version of the request; the response has the same.
    pub version: i16,
    /// Absent if the client sent none.
    pub client_id: Option<&'a str>,
    pub call: &'a Call,
}

impl Context<'_> {
    /// Name of the listener through which the request came.
    pub fn listener(&self) -> &str {
        &self.connection.listener
    }

    /// Whose quotas the request counts against.
    pub fn client(&self) -> Client<'_> {
        Client {
            user: &self.connection.principal.name,
            client_id: self.client_id.unwrap_or_default(),
        }
    }

    /// Charges the client for the time that the request took so far, when its response is about to be made, and
    /// returns for how many milliseconds the client is throttled, by this or any other quota.
    pub fn charge(&self) -> u32 {
        let quota = &self.broker.quotas.request;
        if quota.is_enabled() {
            self.call.charge();
            let now = clock::now().monotonic;
            let throttle_ms = quota.record(self.client(), percent(self.call.busy()), now);
            self.call.throttle(throttle_ms);
        }
        self.call.throttle_ms()
    }

    /// Notes the time of a request that no quota holds for.
    pub fn charge_exempt(&self) {
        let quota = &self.broker.quotas.request;
        if quota.is_enabled() {
            quota.note_exempt(percent(self.call.busy()), clock::now().monotonic);
        }
    }

    /// What the request may ask the controller to change. Clients know the error from a version on.
    pub fn mutations(&self, strict_since: i16) -> Mutations {
        let strictness = if self.version >= strict_since {
            Strictness::Strict
        } else {
            Strictness::Permissive
        };
        self.broker.quotas.mutations.of(self.client(), strictness)
    }
}
