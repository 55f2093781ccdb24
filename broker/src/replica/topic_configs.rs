//! The settings of topics, as replicas need them.

use std::collections::BTreeSet;
use std::sync::Arc;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::TopicName;
use barnabas_core::znodes::ConfigEntity;
use futures::future::{BoxFuture, FutureExt as _, join_all};

use crate::config::LiveConfig;
use crate::zookeeper::ZooKeeper;

/// Where the replica manager finds the settings of topics.
pub trait TopicConfigs: Send + Sync {
    /// The settings in force.
    fn current(&self, topic: &str) -> Arc<TopicConfig>;

    /// Reads the settings of topics that come to this broker for the first time.
    fn load(&self, topics: BTreeSet<TopicName>) -> BoxFuture<'_, ()>;
}

/// The live configuration, read from ZooKeeper when a topic comes to this broker: its change
/// notification may be older than this broker, or still under way.
pub struct ZooKeeperTopicConfigs {
    pub config: Arc<LiveConfig>,
    pub zookeeper: Arc<ZooKeeper>,
}

impl TopicConfigs for ZooKeeperTopicConfigs {
    fn current(&self, topic: &str) -> Arc<TopicConfig> {
        self.config.topic(topic)
    }

    fn load(&self, topics: BTreeSet<TopicName>) -> BoxFuture<'_, ()> {
        let reads = topics.into_iter().map(|topic| async move {
            let entity = ConfigEntity::Topic(topic.to_string());
            match self.zookeeper.read_config(&entity).await {
                Ok(overrides) => self.config.entity_changed(&entity, overrides),
                Err(error) => {
                    tracing::warn!(%topic, %error, "cannot read the settings of a new topic");
                }
            }
        });
        join_all(reads).map(drop).boxed()
    }
}
