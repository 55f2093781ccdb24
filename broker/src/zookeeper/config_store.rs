//! Dynamic configurations: fenced writes, reads, and the listener that follows changes made by any broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use barnabas_core::znodes::{
    ConfigChange, ConfigEntity, ControllerSeat, EntityConfig, MalformedZnode, sequence_number,
};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::ZooKeeper;
use super::coordination::{
    CoordinationError, CoordinationEvent, CreateMode, NodeEvent, Operation, Outcome, Watch,
};
use crate::clock;

/// How long a change notification is kept for brokers that are away; milliseconds
/// (`ZkNodeChangeNotificationListener.DefaultChangeExpirationMs`).
const NOTIFICATION_LIFE_MS: i64 = 15 * 60 * 1000;

/// Why a configuration was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigWriteError {
    /// There is no controller, it changed meanwhile, or it is one of `KRaft`.
    #[error("the cluster has no controller in ZooKeeper mode, or it has just changed")]
    ControllerMoved,
    #[error("/controller in ZooKeeper holds data that cannot be understood: {0}")]
    MalformedController(MalformedZnode),
    #[error(transparent)]
    Read(#[from] ConfigReadError),
    #[error("ZooKeeper did not take the configuration: {0}")]
    Coordination(#[from] CoordinationError),
}

/// Why a configuration is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigReadError {
    #[error("{path} in ZooKeeper holds data that cannot be understood: {source}")]
    Malformed {
        path: String,
        source: MalformedZnode,
    },
    #[error("a configuration could not be read from ZooKeeper: {0}")]
    Coordination(#[from] CoordinationError),
}

fn decode(path: &str, data: &[u8]) -> Result<BTreeMap<String, String>, ConfigReadError> {
    let config = EntityConfig::decode(data).map(|config| config.0);
    config.map_err(|source| ConfigReadError::Malformed {
        path: path.to_owned(),
        source,
    })
}

impl ZooKeeper {
    /// The overrides of an entity; none if it has no znode.
    pub async fn read_config(
        &self,
        entity: &ConfigEntity,
    ) -> Result<BTreeMap<String, String>, ConfigReadError> {
        let path = entity.path();
        let found = self.coordination.get(&path, Watch::No).await?;
        found.map_or_else(|| Ok(BTreeMap::new()), |(data, _)| decode(&path, &data))
    }

    /// The overrides of all entities that have a znode, except those that cannot be understood (logged).
    pub async fn read_all_configs(
        &self,
    ) -> Result<Vec<(ConfigEntity, BTreeMap<String, String>)>, ConfigReadError> {
        self.read_configs_of(&ConfigEntity::TYPE_PATHS).await
    }

    /// The overrides of all users, clients and addresses that have a znode.
    pub async fn read_quota_configs(
        &self,
    ) -> Result<Vec<(ConfigEntity, BTreeMap<String, String>)>, ConfigReadError> {
        self.read_configs_of(&ConfigEntity::QUOTA_TYPE_PATHS).await
    }

    async fn read_configs_of(
        &self,
        types: &[&str],
    ) -> Result<Vec<(ConfigEntity, BTreeMap<String, String>)>, ConfigReadError> {
        let entities = self.configured_entities(types).await?;
        let reads = entities.iter().map(|entity| Operation::get(entity.path()));
        let answers = self.coordination.submit(reads.collect()).await;
        let mut configs = Vec::with_capacity(entities.len());
        for (entity, answer) in entities.into_iter().zip(answers) {
            match answer {
                Ok(Outcome::Data { data, .. }) => {
                    match decode(&entity.path(), &data.unwrap_or_default()) {
                        Ok(config) => configs.push((entity, config)),
                        Err(error) => warn!(%error, "ignoring a configuration"),
                    }
                }
                Err(CoordinationError::NoNode) => {}
                Ok(_) => return Err(CoordinationError::UnexpectedAnswer.into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(configs)
    }

    async fn configured_entities(
        &self,
        types: &[&str],
    ) -> Result<Vec<ConfigEntity>, CoordinationError> {
        let mut entities = Vec::new();
        let mut users = Vec::new();
        let parents: Vec<String> = types.iter().map(|path| (*path).to_owned()).collect();
        let names = self.children_of(&parents).await?;
        for (parent, names) in parents.iter().zip(names) {
            let kind = parent.trim_start_matches("/config/");
            for name in names {
                match ConfigEntity::from_entity_path(&format!("{kind}/{name}")) {
                    Ok(entity) => {
                        if matches!(entity, ConfigEntity::User(_)) {
                            users.push(entity.clone());
                        }
                        entities.push(entity);
                    }
                    Err(error) => warn!(%error, "ignoring a configuration"),
                }
            }
        }
        let parents: Vec<String> = users.iter().map(ConfigEntity::clients_path).collect();
        let clients = self.children_of(&parents).await?;
        for (user, clients) in users.iter().zip(clients) {
            for client in clients {
                let path = format!("{}/clients/{client}", user.entity_path());
                match ConfigEntity::from_entity_path(&path) {
                    Ok(entity) => entities.push(entity),
                    Err(error) => warn!(%error, "ignoring a configuration"),
                }
            }
        }
        Ok(entities)
    }

    /// The children of each of these nodes; none of one that does not exist.
    async fn children_of(&self, paths: &[String]) -> Result<Vec<Vec<String>>, CoordinationError> {
        let reads = paths.iter().map(|path| Operation::children(path.as_str()));
        let answers = self.coordination.submit(reads.collect()).await;
        let names = answers.into_iter().map(|answer| match answer {
            Ok(Outcome::Children(names)) => Ok(names),
            Ok(_) => Err(CoordinationError::UnexpectedAnswer),
            Err(CoordinationError::NoNode) => Ok(Vec::new()),
            Err(error) => Err(error),
        });
        names.collect()
    }

    /// Replaces the overrides of an entity and tells all brokers.
    pub async fn write_config(
        &self,
        entity: &ConfigEntity,
        config: BTreeMap<String, String>,
    ) -> Result<(), ConfigWriteError> {
        let is_cleaned =
            config.is_empty() && entity.is_quota_entity() && self.clean(entity).await?;
        if !is_cleaned {
            self.set_config(entity, config).await?;
        }
        let (prefix, mode) = (
            ConfigChange::path_prefix(),
            CreateMode::PersistentSequential,
        );
        let change = Some(ConfigChange(entity.clone()).encode());
        self.coordination.create(&prefix, change, mode).await?;
        Ok(())
    }

    /// Writes the overrides of this broker, which has not joined the cluster yet; so there may be no controller.
    pub async fn replace_own_config(
        &self,
        entity: &ConfigEntity,
        config: BTreeMap<String, String>,
    ) -> Result<(), CoordinationError> {
        let data = Some(EntityConfig(config).encode());
        self.coordination
            .set(&entity.path(), data, None)
            .await
            .map(drop)
    }

    /// Writes the overrides of an entity without telling anybody, as at the creation of a topic.
    pub(super) async fn set_config(
        &self,
        entity: &ConfigEntity,
        config: BTreeMap<String, String>,
    ) -> Result<(), ConfigWriteError> {
        let controller = self
            .coordination
            .get(ControllerSeat::PATH, Watch::No)
            .await?;
        let Some((data, stat)) = controller else {
            return Err(ConfigWriteError::ControllerMoved);
        };
        let seat = ControllerSeat::decode(&data).map_err(ConfigWriteError::MalformedController)?;
        if seat.is_kraft() {
            return Err(ConfigWriteError::ControllerMoved);
        }
        let path = entity.path();
        let data = EntityConfig(config).encode();
        if self.set_fenced(&path, &data, stat.version).await? {
            return Ok(());
        }
        match self
            .coordination
            .create_recursive(&path, Some(data.clone()))
            .await
        {
            Ok(()) => Ok(()),
            Err(CoordinationError::NodeExists) => {
                if self.set_fenced(&path, &data, stat.version).await? {
                    Ok(())
                } else {
                    Err(CoordinationError::NoNode.into())
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there was a node to set.
    async fn set_fenced(
        &self,
        path: &str,
        data: &[u8],
        controller_version: i32,
    ) -> Result<bool, ConfigWriteError> {
        let transaction = vec![
            Operation::check(ControllerSeat::PATH, controller_version),
            Operation::set(path, data.to_vec()),
        ];
        let mut results = self.coordination.multi(transaction).await?.into_iter();
        match (results.next(), results.next()) {
            (Some(Err(CoordinationError::BadVersion | CoordinationError::NoNode)), _) => {
                Err(ConfigWriteError::ControllerMoved)
            }
            (_, Some(Ok(_))) => Ok(true),
            (_, Some(Err(CoordinationError::NoNode))) => Ok(false),
            (Some(Err(error)), _) | (_, Some(Err(error))) => Err(error.into()),
            (_, None) => Err(CoordinationError::UnexpectedAnswer.into()),
        }
    }

    /// Removes the node of a quota entity that has nothing left, and parents that were there only for it.
    /// Returns false if the node has to stay because of its children.
    async fn clean(&self, entity: &ConfigEntity) -> Result<bool, ConfigWriteError> {
        let path = entity.path();
        if !self
            .coordination
            .children(&path, Watch::No)
            .await?
            .is_empty()
        {
            return Ok(false);
        }
        self.delete_if_childless(&path).await?;
        if let Some(user) = entity.user() {
            self.delete_if_childless(&user.clients_path()).await?;
            if self.read_config(&user).await?.is_empty() {
                self.delete_if_childless(&user.path()).await?;
            }
        }
        Ok(true)
    }

    async fn delete_if_childless(&self, path: &str) -> Result<(), CoordinationError> {
        match self.coordination.delete(path, None).await {
            Ok(()) | Err(CoordinationError::NoNode | CoordinationError::NotEmpty) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What a [`ConfigListener`] calls with an entity and all its overrides, each time they may have changed.
pub type ApplyConfig = Box<dyn FnMut(ConfigEntity, BTreeMap<String, String>) + Send>;

/// Follows `/config/changes` and applies what changed; also deletes notifications that grew old.
pub struct ConfigListener {
    zookeeper: Arc<ZooKeeper>,
    events: mpsc::UnboundedReceiver<CoordinationEvent>,
    apply: ApplyConfig,
    last_change: i64,
}

impl ConfigListener {
    /// A listener that has seen nothing yet.
    pub fn new(zookeeper: Arc<ZooKeeper>, apply: ApplyConfig) -> Self {
        let events = zookeeper.coordination().subscribe();
        Self {
            zookeeper,
            events,
            apply,
            last_change: -1,
        }
    }

    /// Begins to watch, then loads and applies the configurations of all entities.
    pub async fn load(&mut self) -> Result<(), ConfigReadError> {
        self.apply_changes().await?;
        for (entity, config) in self.zookeeper.read_all_configs().await? {
            (self.apply)(entity, config);
        }
        Ok(())
    }

    /// Applies changes for as long as the connection to ZooKeeper is not closed.
    pub async fn run(mut self) {
        while let Some(event) = self.events.recv().await {
            let is_news = match event {
                CoordinationEvent::Node { path, event } => {
                    path == ConfigChange::PARENT && event == NodeEvent::ChildrenChanged
                }
                // Nothing is kept of a session but the watch, which the next one sets again.
                CoordinationEvent::SessionExpired(_hold) => false,
                CoordinationEvent::SessionEstablished => true,
            };
            if !is_news {
                continue;
            }
            if let Err(error) = self.apply_changes().await {
                // A session that ended is followed by another, and then everything is listed again.
                warn!(%error, "the changes of configurations could not be read");
            }
        }
    }

    /// Lists the notifications (which sets the watch again), applies those not seen yet and deletes old ones.
    async fn apply_changes(&mut self) -> Result<(), ConfigReadError> {
        let coordination = self.zookeeper.coordination().clone();
        let names = coordination
            .children(ConfigChange::PARENT, Watch::Once)
            .await?;
        let reads = names
            .iter()
            .map(|name| Operation::get(ConfigChange::path(name)));
        let answers = coordination.submit(reads.collect()).await;
        let mut old = Vec::new();
        for (name, answer) in names.iter().zip(answers) {
            let (data, stat) = match answer {
                Ok(Outcome::Data { data, stat }) => (data.unwrap_or_default(), stat),
                Err(CoordinationError::NoNode) => continue,
                Ok(_) => return Err(CoordinationError::UnexpectedAnswer.into()),
                Err(error) => return Err(error.into()),
            };
            if clock::wall_clock_ms().saturating_sub(stat.ctime_ms) > NOTIFICATION_LIFE_MS {
                old.push(Operation::delete(ConfigChange::path(name)));
            }
            let Some(number) = sequence_number(name, ConfigChange::PREFIX) else {
                continue;
            };
            if number <= self.last_change {
                continue;
            }
            match ConfigChange::decode(&data) {
                Ok(ConfigChange(entity)) => self.apply_entity(entity).await?,
                Err(error) => warn!(node = name, %error, "ignoring a change notification"),
            }
            self.last_change = number;
        }
        if !old.is_empty() {
            // Several brokers may be at it; what is gone is gone.
            coordination.submit(old).await;
        }
        Ok(())
    }

    async fn apply_entity(&mut self, entity: ConfigEntity) -> Result<(), ConfigReadError> {
        match self.zookeeper.read_config(&entity).await {
            Ok(config) => {
                let keys: Vec<&String> = config.keys().collect();
                info!(%entity, ?keys, "a dynamic configuration changed");
                (self.apply)(entity, config);
                Ok(())
            }
            Err(error @ ConfigReadError::Malformed { .. }) => {
                warn!(%error, "ignoring a configuration");
                Ok(())
            }
            Err(error @ ConfigReadError::Coordination(_)) => Err(error),
        }
    }
}
