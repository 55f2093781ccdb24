//! The configuration as it is now: the file, and over it what ZooKeeper says.

pub mod passwords;
mod providers;
pub mod sources;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use barnabas_core::config::{BrokerConfig, ConfigError, TopicConfig};
use barnabas_core::ids::BrokerId;
use barnabas_core::znodes::ConfigEntity;

/// Texts by key.
pub type Texts = BTreeMap<String, String>;

/// What the broker knows of `/config/brokers` and `/config/topics`.
#[derive(Clone, Debug, Default)]
pub struct DynamicLayers {
    /// `/config/brokers/<default>`: for all brokers.
    pub cluster: Texts,
    /// `/config/brokers/<id>`: for this broker.
    pub broker: Texts,
}

type TopicListener = Box<dyn Fn(&str, &Arc<TopicConfig>) + Send + Sync>;
type BrokerListener = Box<dyn Fn(&BrokerConfig) + Send + Sync>;

struct State {
    layers: DynamicLayers,
    topics: BTreeMap<String, Texts>,
}

/// The settings in force, readable at any time without waiting.
///
/// A topic's overrides win over `/config/brokers/<id>`, that over `/config/brokers/<default>`, that over the
/// file. An update with a wrong value changes nothing and is logged.
pub struct LiveConfig {
    broker_id: BrokerId,
    file: Texts,
    state: Mutex<State>,
    broker: ArcSwap<BrokerConfig>,
    default_topic: ArcSwap<TopicConfig>,
    topics: ArcSwap<HashMap<String, Arc<TopicConfig>>>,
    topic_listeners: Mutex<Vec<TopicListener>>,
    broker_listeners: Mutex<Vec<BrokerListener>>,
}

impl LiveConfig {
    /// The file alone; `broker_id` is the id under which the broker registers (it may be generated).
    pub fn new(config: BrokerConfig, broker_id: BrokerId) -> Result<Self, ConfigError> {
        let default_topic = config.topic_config(&Texts::new())?;
        Ok(Self {
            broker_id,
            file: config.given().clone(),
            state: Mutex::new(State {
                layers: DynamicLayers::default(),
                topics: BTreeMap::new(),
            }),
            broker: ArcSwap::from_pointee(config),
            default_topic: ArcSwap::from_pointee(default_topic),
            topics: ArcSwap::default(),
            topic_listeners: Mutex::default(),
            broker_listeners: Mutex::default(),
        })
    }

    /// The broker's settings, dynamic ones merged in.
    pub fn broker(&self) -> Arc<BrokerConfig> {
        self.broker.load_full()
    }

    /// The settings of a topic; of one without overrides (or unknown) the broker's own.
    pub fn topic(&self, topic: &str) -> Arc<TopicConfig> {
        match self.topics.load().get(topic) {
            Some(config) => config.clone(),
            None => self.default_topic.load_full(),
        }
    }

    /// The texts of the file (and of the command line and the environment).
    pub fn file(&self) -> &Texts {
        &self.file
    }

    /// The texts that ZooKeeper has for brokers.
    pub fn layers(&self) -> DynamicLayers {
        self.lock().layers.clone()
    }

    /// The overrides of a topic as last heard of.
    pub fn topic_overrides(&self, topic: &str) -> Texts {
        self.lock().topics.get(topic).cloned().unwrap_or_default()
    }

    /// Calls `listener` whenever the settings of a topic changed, also because the broker's did.
    pub fn on_topic_change(
        &self,
        listener: impl Fn(&str, &Arc<TopicConfig>) + Send + Sync + 'static,
    ) {
        let mut listeners = self
            .topic_listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.push(Box::new(listener));
    }

    /// Calls `listener` whenever the broker's settings changed.
    pub fn on_broker_change(&self, listener: impl Fn(&BrokerConfig) + Send + Sync + 'static) {
        let mut listeners = self
            .broker_listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.push(Box::new(listener));
    }

    /// Takes over what ZooKeeper has for an entity; empty `overrides` stand for "nothing any more".
    /// Users, clients and addresses are quotas and no business of this view.
    pub fn entity_changed(&self, entity: &ConfigEntity, overrides: Texts) {
        match entity {
            ConfigEntity::Topic(topic) => self.topic_changed(topic, overrides),
            ConfigEntity::DefaultBroker => {
                let mut layers = self.layers();
                layers.cluster = overrides;
                self.layers_changed(layers);
            }
            ConfigEntity::Broker(id) if *id == self.broker_id => {
                let mut layers = self.layers();
                layers.broker = overrides;
                self.layers_changed(layers);
            }
            ConfigEntity::Broker(_)
            | ConfigEntity::User(_)
            | ConfigEntity::Client(_)
            | ConfigEntity::UserClient(..)
            | ConfigEntity::Ip(_) => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn topic_changed(&self, topic: &str, overrides: Texts) {
        let config = match self.broker().topic_config(&overrides) {
            Ok(config) => Arc::new(config),
            Err(error) => {
                tracing::error!(topic, %error, "ignored settings of a topic");
                return;
            }
        };
        {
            let mut state = self.lock();
            let mut topics = HashMap::clone(&self.topics.load());
            if overrides.is_empty() {
                state.topics.remove(topic);
                topics.remove(topic);
            } else {
                state.topics.insert(topic.to_owned(), overrides);
                topics.insert(topic.to_owned(), config.clone());
            }
            self.topics.store(Arc::new(topics));
        }
        self.tell_topic_listeners(topic, &config);
    }

    fn layers_changed(&self, layers: DynamicLayers) {
        let mut texts = self.file.clone();
        texts.extend(layers.cluster.clone());
        texts.extend(layers.broker.clone());
        let parsed = BrokerConfig::parse(&texts)
            .and_then(|broker| Ok((broker.topic_config(&Texts::new())?, broker)));
        let (default_topic, broker) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                tracing::error!(%error, "ignored a change of broker settings");
                return;
            }
        };
        let topics: Vec<(String, Arc<TopicConfig>)> = {
            let mut state = self.lock();
            state.layers = layers;
            let overrides = state.topics.iter();
            let topics: HashMap<String, Arc<TopicConfig>> = overrides
                .filter_map(|(topic, texts)| {
                    Some((topic.clone(), Arc::new(broker.topic_config(texts).ok()?)))
                })
                .collect();
            self.topics.store(Arc::new(topics.clone()));
            topics.into_iter().collect()
        };
        self.default_topic.store(Arc::new(default_topic));
        self.broker.store(Arc::new(broker));
        for (topic, config) in &topics {
            self.tell_topic_listeners(topic, config);
        }
        let broker = self.broker();
        let listeners = self
            .broker_listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter() {
            listener(&broker);
        }
    }

    fn tell_topic_listeners(&self, topic: &str, config: &Arc<TopicConfig>) {
        let listeners = self
            .topic_listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter() {
            listener(topic, config);
        }
    }
}
