//! This broker's place in the cluster: base paths, cluster id, broker id, registration.

use std::sync::atomic::Ordering;
use std::time::Duration;

use barnabas_core::ids::{BrokerEpoch, BrokerId};
use barnabas_core::znodes::{
    BASE_PATHS, BrokerRegistration, BrokerSequence, ClusterId, ControllerSeat, Feature,
    MalformedZnode,
};
use tracing::{info, warn};

use super::ZooKeeper;
use super::coordination::{
    CoordinationError, CoordinationEvent, CreateMode, Operation, Outcome, Stat, Watch,
};

/// What is known about whoever left a registration under this broker's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormerOwner {
    /// It may be alive elsewhere: wait for its session to end.
    MayBeAlive,
    /// It was a process on the same log directories, whose locks this process holds now, with the same cluster
    /// and broker id in their `meta.properties`. So it is dead, and only its session lingers.
    IsDead,
}

/// Why a broker could not take its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    #[error(
        "broker id {id} is registered by another session (0x{owner:x}) that did not end within {waited_ms} ms; \
         stop the other broker with this id, or give this one another `broker.id`"
    )]
    IdInUse {
        id: BrokerId,
        owner: i64,
        waited_ms: u128,
    },
    #[error(
        "broker {other} is registered with the endpoint {endpoint} too; \
         give each broker its own `advertised.listeners`"
    )]
    EndpointInUse { other: BrokerId, endpoint: String },
    #[error("{path} in ZooKeeper holds data that cannot be understood: {source}")]
    Malformed {
        path: String,
        source: MalformedZnode,
    },
    #[error("broker {id} could not be registered in ZooKeeper: {source}")]
    Coordination {
        id: BrokerId,
        source: CoordinationError,
    },
}

/// What an attempt to register met.
enum Attempt {
    Registered(Stat),
    /// The node belongs to another session.
    Occupied {
        owner: i64,
        stat: Stat,
    },
    /// Something moved in between: try again.
    Again,
}

impl ZooKeeper {
    /// Creates what every broker expects to exist, in Kafka's order.
    pub async fn create_base_paths(&self) -> Result<(), CoordinationError> {
        // All but the first start find everything there, at the price of one round trip.
        let reads = BASE_PATHS.map(Operation::exists).to_vec();
        let found = self.coordination.submit(reads).await;
        let mut missing: Vec<&str> = Vec::new();
        for (path, found) in BASE_PATHS.into_iter().zip(found) {
            if let Outcome::Exists(Some(_)) = found? {
                continue;
            }
            let parents = path.match_indices('/').map(|(end, _)| &path[..end]).skip(1);
            for node in parents.chain([path]) {
                if !missing.contains(&node) {
                    missing.push(node);
                }
            }
        }
        // Each is a transaction of its own, as with Kafka, but nothing waits for the one before.
        let creates = missing
            .into_iter()
            .map(|path| Operation::create(path, None));
        for created in self.coordination.submit(creates.collect()).await {
            match created {
                Ok(_) | Err(CoordinationError::NodeExists) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The id of the cluster; a new one if this is the first broker ever.
    pub async fn cluster_id(&self) -> Result<String, ClusterIdError> {
        if let Some(id) = self.read_cluster_id().await? {
            return Ok(id);
        }
        let new = ClusterId::random(&mut crate::host::random());
        let path = ClusterId::PATH;
        match self
            .coordination
            .create_recursive(path, Some(new.encode()))
            .await
        {
            Ok(()) => return Ok(new.0),
            Err(CoordinationError::NodeExists) => {}
            Err(error) => return Err(error.into()),
        }
        let found = self.read_cluster_id().await?;
        found.ok_or(ClusterIdError::Coordination(CoordinationError::NoNode))
    }

    async fn read_cluster_id(&self) -> Result<Option<String>, ClusterIdError> {
        let found = self.coordination.get(ClusterId::PATH, Watch::No).await?;
        let id = found
            .map(|(data, _)| ClusterId::decode(&data))
            .transpose()?;
        Ok(id.map(|id| id.0))
    }

    /// An id for a broker without `broker.id`: one more than the last, above `reserved.broker.max.id`.
    pub async fn generate_broker_id(
        &self,
        reserved_broker_max_id: i32,
    ) -> Result<BrokerId, CoordinationError> {
        let path = BrokerSequence::PATH;
        let empty = || Some(Vec::new());
        let stat = match self.coordination.set(path, empty(), None).await {
            Err(CoordinationError::NoNode) => {
                match self.coordination.create_recursive(path, None).await {
                    Ok(()) | Err(CoordinationError::NodeExists) => {}
                    Err(error) => return Err(error),
                }
                self.coordination.set(path, empty(), None).await?
            }
            other => other?,
        };
        Ok(BrokerSequence::broker_id(
            stat.version,
            reserved_broker_max_id,
        ))
    }

    /// The finalized features and the version of their node, and a watch on it; `None` if there are none.
    pub async fn features(&self) -> Result<Option<(Feature, i32)>, RegistrationError> {
        let path = Feature::PATH;
        let failed = |source| RegistrationError::Coordination {
            id: BrokerId(-1),
            source,
        };
        let found = self
            .coordination
            .get(path, Watch::Once)
            .await
            .map_err(failed)?;
        let Some((data, stat)) = found else {
            // A `get` leaves no watch where there is no node.
            let stat = self.coordination.exists(path, Watch::Once).await;
            stat.map_err(failed)?;
            return Ok(None);
        };
        let malformed = |source| RegistrationError::Malformed {
            path: path.to_owned(),
            source,
        };
        let feature = Feature::decode(&data).map_err(malformed)?;
        Ok(Some((feature, stat.version)))
    }

    /// All brokers that are registered, with their broker epochs. One that cannot be understood is an error.
    pub async fn registered_brokers(
        &self,
    ) -> Result<Vec<(BrokerRegistration, BrokerEpoch)>, RegistrationError> {
        let failed = |source| RegistrationError::Coordination {
            id: BrokerId(-1),
            source,
        };
        let parent = BrokerRegistration::PARENT;
        let names = self.coordination.children(parent, Watch::No).await;
        let ids: Vec<BrokerId> = names
            .map_err(failed)?
            .iter()
            .filter_map(|name| name.parse().ok().map(BrokerId))
            .collect();
        let paths = ids.iter().map(|id| BrokerRegistration::path(*id));
        let reads = self
            .coordination
            .submit(paths.map(Operation::get).collect())
            .await;
        let mut brokers = Vec::with_capacity(ids.len());
        for (id, read) in ids.into_iter().zip(reads) {
            match read {
                Ok(Outcome::Data { data, stat }) => {
                    let registration = BrokerRegistration::decode(id, &data.unwrap_or_default());
                    let registration = registration.map_err(|source| {
                        let path = BrokerRegistration::path(id);
                        RegistrationError::Malformed { path, source }
                    })?;
                    brokers.push((registration, stat.czxid));
                }
                // It went in between.
                Err(CoordinationError::NoNode) => {}
                Ok(_) => return Err(failed(CoordinationError::UnexpectedAnswer)),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(brokers)
    }

    /// Fails if another broker is registered with a host and port of this one.
    pub async fn check_endpoints(
        &self,
        registration: &BrokerRegistration,
    ) -> Result<(), RegistrationError> {
        let own = |host: &str, port: u16| {
            let mut endpoints = registration.endpoints.iter();
            endpoints.any(|endpoint| endpoint.host == host && endpoint.port == port)
        };
        for (other, _) in self.registered_brokers().await? {
            if other.id == registration.id {
                continue;
            }
            let mut endpoints = other.endpoints.iter();
            if let Some(clash) = endpoints.find(|endpoint| own(&endpoint.host, endpoint.port)) {
                return Err(RegistrationError::EndpointInUse {
                    other: other.id,
                    endpoint: format!("{}:{}", clash.host, clash.port),
                });
            }
        }
        Ok(())
    }

    /// Registers this broker and returns its broker epoch, for the first start and after each session expiry.
    ///
    /// A registration left by this process' previous session is replaced. One of another session is replaced if
    /// `former_owner` [is dead](FormerOwner::IsDead); else its end is awaited for `patience` (a session timeout
    /// is enough for one that nobody keeps alive).
    pub async fn register_broker(
        &self,
        registration: &BrokerRegistration,
        former_owner: FormerOwner,
        patience: Duration,
    ) -> Result<BrokerEpoch, RegistrationError> {
        let id = registration.id;
        let path = BrokerRegistration::path(id);
        let failed = |source| RegistrationError::Coordination { id, source };
        let started = tokio::time::Instant::now();
        let mut events = self.coordination.subscribe();
        let mut is_waiting = false;
        loop {
            let attempt = self.try_register(&path, registration.encode()).await;
            let (owner, stat) = match attempt.map_err(failed)? {
                Attempt::Registered(stat) => {
                    let session = self.coordination.session_id();
                    self.registered_session.store(session, Ordering::Relaxed);
                    info!(broker = id.0, epoch = stat.czxid, "registered in ZooKeeper");
                    return Ok(stat.czxid);
                }
                Attempt::Again => continue,
                Attempt::Occupied { owner, stat } => (owner, stat),
            };
            let is_own = owner == self.registered_session.load(Ordering::Relaxed);
            if is_own || former_owner == FormerOwner::IsDead {
                info!(
                    broker = id.0,
                    session = format!("0x{owner:x}"),
                    "removing the registration that the former process or session of this broker left"
                );
                self.remove_left_over(&path, stat).await.map_err(failed)?;
                self.vacate_seat_of(owner).await.map_err(failed)?;
                continue;
            }
            let remaining = patience.saturating_sub(started.elapsed());
            let in_use = RegistrationError::IdInUse {
                id,
                owner,
                waited_ms: started.elapsed().as_millis(),
            };
            if remaining.is_zero() {
                return Err(in_use);
            }
            if !is_waiting {
                is_waiting = true;
                warn!(
                    broker = id.0,
                    session = format!("0x{owner:x}"),
                    timeout_ms = remaining.as_millis(),
                    "this broker id is still registered by another session; waiting for that session to end"
                );
            }
            let present = self.coordination.exists(&path, Watch::Once).await;
            if present
                .map_err(failed)?
                .is_none_or(|found| found.czxid != stat.czxid)
            {
                continue;
            }
            let change = async {
                while let Some(event) = events.recv().await {
                    match event {
                        CoordinationEvent::Node { path: changed, .. } if changed == path => break,
                        CoordinationEvent::Node { .. } => {}
                        CoordinationEvent::SessionExpired(_)
                        | CoordinationEvent::SessionEstablished => break,
                    }
                }
            };
            if tokio::time::timeout(remaining, change).await.is_err() {
                return Err(in_use);
            }
        }
    }

    async fn try_register(&self, path: &str, data: Vec<u8>) -> Result<Attempt, CoordinationError> {
        // The result of a create in a transaction carries no stat; that of a set does.
        let transaction = vec![
            Operation::create_ephemeral(path, None),
            Operation::set_if(path, data.clone(), 0),
        ];
        let mut results = self.coordination.multi(transaction).await?.into_iter();
        match (results.next(), results.next()) {
            (Some(Ok(_)), Some(Ok(Outcome::Set(stat)))) => return Ok(Attempt::Registered(stat)),
            (Some(Err(CoordinationError::NodeExists)), _) => {}
            (Some(Err(error)), _) | (_, Some(Err(error))) => return Err(error),
            (_, _) => return Err(CoordinationError::UnexpectedAnswer),
        }
        let Some((_, stat)) = self.coordination.get(path, Watch::No).await? else {
            return Ok(Attempt::Again);
        };
        // The answer to an earlier attempt was lost with a connection.
        if stat.ephemeral_owner == self.coordination.session_id() {
            return Ok(Attempt::Registered(stat));
        }
        Ok(Attempt::Occupied {
            owner: stat.ephemeral_owner,
            stat,
        })
    }

    /// Deletes `/controller` if a session that is known to be dead holds it. Otherwise the cluster would have no
    /// controller, and this broker nothing to lead, until that session expires.
    async fn vacate_seat_of(&self, session: i64) -> Result<(), CoordinationError> {
        match self
            .coordination
            .exists(ControllerSeat::PATH, Watch::No)
            .await?
        {
            Some(stat) if stat.ephemeral_owner == session => {
                self.remove_left_over(ControllerSeat::PATH, stat).await
            }
            _ => Ok(()),
        }
    }

    /// Deletes a node of a dead session if it is still the one that `stat` describes.
    async fn remove_left_over(&self, path: &str, stat: Stat) -> Result<(), CoordinationError> {
        let found = self.coordination.exists(path, Watch::No).await?;
        if found.is_none_or(|found| found.czxid != stat.czxid) {
            return Ok(());
        }
        match self.coordination.delete(path, Some(stat.version)).await {
            Ok(()) | Err(CoordinationError::NoNode | CoordinationError::BadVersion) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Rewrites this broker's registration, as when a listener is added. The broker epoch stays.
    pub async fn update_registration(
        &self,
        registration: &BrokerRegistration,
    ) -> Result<(), CoordinationError> {
        let path = BrokerRegistration::path(registration.id);
        let data = Some(registration.encode());
        self.coordination.set(&path, data, None).await.map(drop)
    }

    /// Tells the controller that a log directory of this broker failed.
    pub async fn report_log_dir_failure(&self, broker: BrokerId) -> Result<(), CoordinationError> {
        use barnabas_core::znodes::{LogDirEvent, LogDirEventKind};
        let kind = LogDirEventKind::Failure;
        let event = LogDirEvent { broker, kind };
        let (prefix, mode) = (LogDirEvent::path_prefix(), CreateMode::PersistentSequential);
        let data = Some(event.encode());
        self.coordination
            .create(&prefix, data, mode)
            .await
            .map(drop)
    }
}

/// Why the id of the cluster is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterIdError {
    #[error("/cluster/id in ZooKeeper holds data that cannot be understood: {0}")]
    Malformed(#[from] MalformedZnode),
    #[error("the cluster id could not be read from ZooKeeper: {0}")]
    Coordination(#[from] CoordinationError),
}
