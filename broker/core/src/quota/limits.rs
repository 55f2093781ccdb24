//! Which quota is somebody's. Kafka: `DefaultQuotaCallback`, `ConnectionQuotas`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::znodes::ConfigEntity;

/// What a client is limited in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuotaKind {
    /// Bytes a second.
    Produce,
    /// Bytes a second.
    Fetch,
    /// Percent of one thread.
    Request,
    /// Partitions a second that are created or deleted.
    ControllerMutation,
}

impl QuotaKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [
        Self::Produce,
        Self::Fetch,
        Self::Request,
        Self::ControllerMutation,
    ];

    /// The setting in `/config/users` and `/config/clients`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Produce => "producer_byte_rate",
            Self::Fetch => "consumer_byte_rate",
            Self::Request => "request_percentage",
            Self::ControllerMutation => "controller_mutation_rate",
        }
    }
}

/// Who shares a limit: all clients of the user, all users of the client id, or only one client of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    UserAndClient,
    User,
    Client,
}

/// The limit that holds for somebody.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    pub scope: Scope,
    pub per_second: f64,
}

/// Named things and their default.
#[derive(Clone, Debug)]
struct Level<T> {
    named: BTreeMap<String, T>,
    default: Option<T>,
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self {
            named: BTreeMap::new(),
            default: None,
        }
    }
}

impl<T> Level<T> {
    fn own(&self, name: &str) -> Option<&T> {
        self.named.get(name)
    }

    fn of(&self, name: &str) -> Option<&T> {
        self.named.get(name).or(self.default.as_ref())
    }

    fn set(&mut self, name: Option<&String>, value: Option<T>) {
        match (name, value) {
            (None, value) => self.default = value,
            (Some(name), Some(value)) => {
                self.named.insert(name.clone(), value);
            }
            (Some(name), None) => {
                self.named.remove(name);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.named.is_empty() && self.default.is_none()
    }
}

impl<T: Default> Level<T> {
    fn entry(&mut self, name: Option<&String>) -> &mut T {
        match name {
            None => self.default.get_or_insert_default(),
            Some(name) => self.named.entry(name.clone()).or_default(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct UserLimits {
    own: Option<f64>,
    clients: Level<f64>,
}

/// All limits of one kind.
#[derive(Clone, Debug, Default)]
pub struct QuotaLimits {
    users: Level<UserLimits>,
    clients: Level<f64>,
}

impl QuotaLimits {
    /// Sets or removes the limit of an entity. Addresses, topics and brokers have none of these.
    pub fn set(&mut self, entity: &ConfigEntity, limit: Option<f64>) {
        match entity {
            ConfigEntity::User(user) => self.change_user(user.as_ref(), |one| one.own = limit),
            ConfigEntity::UserClient(user, client) => {
                self.change_user(user.as_ref(), |one| one.clients.set(client.as_ref(), limit));
            }
            ConfigEntity::Client(client) => self.clients.set(client.as_ref(), limit),
            ConfigEntity::Topic(_)
            | ConfigEntity::Broker(_)
            | ConfigEntity::DefaultBroker
            | ConfigEntity::Ip(_) => {}
        }
    }

    fn change_user(&mut self, user: Option<&String>, change: impl FnOnce(&mut UserLimits)) {
        let limits = self.users.entry(user);
        change(limits);
        if limits.own.is_none() && limits.clients.is_empty() {
            self.users.set(user, None);
        }
    }

    /// Whether there is no limit for anybody.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.clients.is_empty()
    }

    /// The most specific limit of `user` with `client`, in Kafka's order: the user with the client, the user with
    /// any client, the user, any user with the client, any user with any client, any user, the client, any
    /// client. Who has no client id is reached by the limits of users only.
    pub fn resolve(&self, user: &str, client: &str) -> Option<Limit> {
        let own = self.users.own(user);
        let default = self.users.default.as_ref();
        [own, default]
            .into_iter()
            .flatten()
            .find_map(|user| of_user(user, client))
            .or_else(|| self.of_client(client))
    }

    fn of_client(&self, client: &str) -> Option<Limit> {
        let limit = (!client.is_empty()).then(|| self.clients.of(client))??;
        Some(Limit {
            scope: Scope::Client,
            per_second: *limit,
        })
    }
}

fn of_user(user: &UserLimits, client: &str) -> Option<Limit> {
    let of_client = (!client.is_empty()).then(|| user.clients.of(client));
    let (scope, limit) = match of_client.flatten() {
        Some(limit) => (Scope::UserAndClient, *limit),
        None => (Scope::User, user.own?),
    };
    Some(Limit {
        scope,
        per_second: limit,
    })
}

/// How many connections a second may come from an address (KIP-612).
#[derive(Clone, Debug, Default)]
pub struct AddressLimits {
    named: BTreeMap<IpAddr, f64>,
    default: Option<f64>,
}

impl AddressLimits {
    /// The setting in `/config/ips`.
    pub const KEY: &'static str = "connection_creation_rate";

    /// Sets or removes the limit of an address, or with `None` that of those without one.
    pub fn set(&mut self, address: Option<IpAddr>, limit: Option<f64>) {
        match (address, limit) {
            (None, limit) => self.default = limit,
            (Some(address), Some(limit)) => {
                self.named.insert(address, limit);
            }
            (Some(address), None) => {
                self.named.remove(&address);
            }
        }
    }

    /// The limit of an address.
    pub fn of(&self, address: IpAddr) -> Option<f64> {
        self.named.get(&address).copied().or(self.default)
    }

    /// Whether there is no limit for anybody.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.default.is_none()
    }
}
