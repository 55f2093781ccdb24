//! Making, extending and deleting topics: what a broker does itself before the controller sees it.
//!
//! | module | what it owns |
//! |---|---|
//! | `plan` | the rules, on plain values |
//! | `error` | what can be wrong, in Kafka's words |

mod error;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::balance::placement::Candidate;
use barnabas_core::config::BrokerConfig;
use barnabas_core::config::alter::check_topic_overrides;
use barnabas_core::ids::{BrokerId, TopicId, is_internal_topic};
use barnabas_core::metadata::ClusterImage;
use barnabas_core::znodes::{PartitionAssignment, TopicAssignment};
use tokio::time::Instant;

pub use error::TopicError;
use plan::Rules;
pub use plan::{Assignment, NewTopic};

use crate::config::LiveConfig;
use crate::host;
use crate::metadata_cache::MetadataCache;
use crate::quota::Mutations;
use crate::zookeeper::{TopicStoreError, ZooKeeper};

/// Whether a request is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    Carry,
    /// Only say whether it would work.
    Validate,
}

/// A topic as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// `None` if it was only validated.
    pub id: Option<TopicId>,
    pub partitions: i32,
    pub replication_factor: i16,
    /// The settings that differ from the broker's.
    pub configs: BTreeMap<String, String>,
}

/// What came of one topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Creation {
    /// Also known if the creation timed out: then the topic is there all the same.
    pub id: Option<TopicId>,
    pub result: Result<CreatedTopic, TopicError>,
}

/// More partitions for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MorePartitions {
    pub topic: String,
    /// How many the topic shall have.
    pub count: i32,
    /// The replicas of those that are added; `None` to have them placed.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// Makes, extends and deletes topics on behalf of clients.
pub struct TopicAdmin {
    zookeeper: Arc<ZooKeeper>,
    config: Arc<LiveConfig>,
    metadata: Arc<MetadataCache>,
    /// Many clients find a coordinator missing at the same time.
    internal_creation: tokio::sync::Mutex<()>,
}

impl TopicAdmin {
    pub fn new(
        zookeeper: Arc<ZooKeeper>,
        config: Arc<LiveConfig>,
        metadata: Arc<MetadataCache>,
    ) -> Arc<Self> {
        Arc::new(Self {
            zookeeper,
            config,
            metadata,
            internal_creation: tokio::sync::Mutex::default(),
        })
    }

    /// Creates topics and waits until this broker knows leaders for all their partitions. One result a topic.
    ///
    /// Without time to wait every topic is answered [`TopicError::TimedOut`], though it was created.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        timeout: Duration,
        intent: Intent,
        mutations: &mut Mutations,
    ) -> Vec<Creation> {
        let deadline = Instant::now() + timeout;
        let rules = self.rules();
        let mut budget = i64::from(rules.partitions_max);
        let mut creations = Vec::with_capacity(topics.len());
        for topic in topics {
            let created = self.create(topic, rules, &mut budget, intent, mutations);
            let result = created.await;
            creations.push(Creation {
                id: result.as_ref().ok().and_then(|created| created.id),
                result,
            });
        }
        if intent == Intent::Validate {
            return creations;
        }
        for (topic, creation) in topics.iter().zip(&mut creations) {
            let Ok(created) = &creation.result else {
                continue;
            };
            let wanted = created.partitions;
            let has_leaders = |image: &ClusterImage| {
                (0..wanted).all(|number| has_leader(image, &topic.name, number))
            };
            if !self.wait_until(deadline, timeout, has_leaders).await {
                creation.result = Err(TopicError::TimedOut);
            }
        }
        creations
    }

    /// Waits for the metadata of this broker; without any timeout it is not even looked at, as in Kafka.
    async fn wait_until(
        &self,
        deadline: Instant,
        timeout: Duration,
        condition: impl FnMut(&ClusterImage) -> bool,
    ) -> bool {
        if timeout.is_zero() {
            return false;
        }
        let remaining = deadline.saturating_duration_since(Instant::now());
        self.metadata.wait_for(remaining, condition).await
    }

    async fn create(
        &self,
        topic: &NewTopic,
        rules: Rules,
        budget: &mut i64,
        intent: Intent,
        mutations: &mut Mutations,
    ) -> Result<CreatedTopic, TopicError> {
        let image = self.metadata.image();
        if image.topic(&topic.name).is_some() {
            return Err(TopicError::Exists(topic.name.clone()));
        }
        let configs = plan::given_configs(&topic.configs)?;
        let brokers = candidates(&image);
        let assignment = {
            let random = &mut host::random();
            plan::assign_new_topic(topic, &brokers, rules, budget, random)?
        };
        let existing = self.zookeeper.topics().await?;
        let marked = self.zookeeper.topics_marked_for_deletion().await?;
        plan::check_name(&topic.name, &existing, &marked)?;
        plan::check_given_assignment(&topic.assignment, &assignment)?;
        check_topic_overrides(&self.config.broker(), &configs).map_err(TopicError::Config)?;
        let id = TopicId::random(&mut host::random());
        let partitions = assignment.len() as i32;
        let replication_factor = assignment.values().next().map_or(0, Vec::len) as i16;
        let assignment = TopicAssignment {
            topic_id: Some(id),
            partitions: assignment
                .into_iter()
                .map(|(number, replicas)| (number, PartitionAssignment::new(replicas)))
                .collect(),
        };
        plan::check_size(&assignment)?;
        if intent == Intent::Carry {
            mutations.record(assignment.partitions.len())?;
            let created = self
                .zookeeper
                .create_topic(&topic.name, &assignment, configs.clone());
            created.await.map_err(|error| match error {
                TopicStoreError::TopicExists(topic) => TopicError::Exists(topic),
                error => TopicError::Store(error),
            })?;
            tracing::info!(topic = topic.name, partitions, replication_factor, %id, "created a topic");
        }
        Ok(CreatedTopic {
            id: (intent == Intent::Carry).then_some(id),
            partitions,
            replication_factor,
            configs,
        })
    }

    /// Creates a topic that a client asked about and that does not exist; returns when its znodes are written.
    /// Internal topics get their own settings.
    pub async fn auto_create(
        &self,
        name: &str,
        mutations: &mut Mutations,
    ) -> Result<(), TopicError> {
        let config = self.config.broker();
        let topic = if is_internal_topic(name) {
            internal_topic(name, &config)
        } else {
            NewTopic {
                name: name.to_owned(),
                ..NewTopic::default()
            }
        };
        let rules = self.rules();
        let mut budget = i64::from(rules.partitions_max);
        let created = self.create(&topic, rules, &mut budget, Intent::Carry, mutations);
        match created.await {
            // Somebody else was faster; who asked has to ask again anyway.
            Ok(_) | Err(TopicError::Exists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Creates `__consumer_offsets` or `__transaction_state` if it is not there; one attempt at a time.
    pub async fn create_internal(&self, name: &str) -> Result<(), TopicError> {
        let _turn = self.internal_creation.lock().await;
        if self.metadata.image().topic(name).is_some() || self.zookeeper.topic_exists(name).await? {
            return Ok(());
        }
        self.auto_create(name, &mut Mutations::unlimited()).await
    }

    /// Asks the controller to delete topics and waits until this broker knows them no more. One result a topic.
    pub async fn delete_topics(
        &self,
        topics: &[String],
        timeout: Duration,
        mutations: &mut Mutations,
    ) -> Vec<Result<(), TopicError>> {
        let deadline = Instant::now() + timeout;
        let mut results = Vec::with_capacity(topics.len());
        for topic in topics {
            results.push(self.delete(topic, mutations).await);
        }
        for (topic, result) in topics.iter().zip(&mut results) {
            let is_gone = |image: &ClusterImage| image.topic(topic).is_none();
            if result.is_ok() && !self.wait_until(deadline, timeout, is_gone).await {
                *result = Err(TopicError::TimedOut);
            }
        }
        results
    }

    async fn delete(&self, topic: &str, mutations: &mut Mutations) -> Result<(), TopicError> {
        let partitions = self
            .metadata
            .image()
            .topic(topic)
            .map_or(0, |topic| topic.partitions.len());
        mutations.record(partitions)?;
        if !self.zookeeper.topic_exists(topic).await? {
            return Err(TopicError::Unknown(topic.to_owned()));
        }
        match self.zookeeper.mark_for_deletion(topic).await {
            Ok(()) => {
                tracing::info!(topic, "marked a topic for deletion");
                Ok(())
            }
            // Several may wait for the same deletion.
            Err(TopicStoreError::AlreadyMarkedForDeletion(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds partitions to topics and waits until this broker knows their leaders. One result a topic.
    pub async fn create_partitions(
        &self,
        wanted: &[MorePartitions],
        timeout: Duration,
        intent: Intent,
        mutations: &mut Mutations,
    ) -> Vec<Result<(), TopicError>> {
        let deadline = Instant::now() + timeout;
        let rules = self.rules();
        let mut budget = i64::from(rules.partitions_max);
        let mut results = Vec::with_capacity(wanted.len());
        for more in wanted {
            let extended = self.extend(more, rules, &mut budget, intent, mutations);
            results.push(extended.await);
        }
        if intent == Intent::Validate {
            return results.into_iter().map(|result| result.map(drop)).collect();
        }
        let mut outcomes = Vec::with_capacity(results.len());
        for (more, result) in wanted.iter().zip(results) {
            outcomes.push(match result {
                Err(error) => Err(error),
                Ok(added) => {
                    let have_leaders = |image: &ClusterImage| {
                        let mut added = added.iter();
                        added.all(|number| has_leader(image, &more.topic, *number))
                    };
                    let in_time = self.wait_until(deadline, timeout, have_leaders).await;
                    if in_time {
                        Ok(())
                    } else {
                        Err(TopicError::TimedOut)
                    }
                }
            });
        }
        outcomes
    }

    /// The numbers of the partitions that were added.
    async fn extend(
        &self,
        more: &MorePartitions,
        rules: Rules,
        budget: &mut i64,
        intent: Intent,
        mutations: &mut Mutations,
    ) -> Result<BTreeSet<i32>, TopicError> {
        let topic = &more.topic;
        let marked = self.zookeeper.topics_marked_for_deletion().await?;
        if marked.contains(topic) {
            return Err(TopicError::QueuedForDeletion);
        }
        let existing = self.zookeeper.topic_assignment(topic).await?;
        let existing = existing.filter(|existing| !existing.partitions.is_empty());
        let Some(mut existing) = existing else {
            return Err(TopicError::Unknown(topic.clone()));
        };
        let registered = self.zookeeper.registered_brokers().await?;
        let mut brokers: Vec<Candidate> = registered
            .into_iter()
            .map(|(registration, _)| Candidate {
                id: registration.id,
                rack: registration.rack,
            })
            .collect();
        brokers.sort();
        let given = more.assignments.as_deref();
        let added = plan::assign_new_partitions(
            topic, &existing, more.count, given, &brokers, rules, budget,
        )?;
        for (number, replicas) in &added {
            let partition = PartitionAssignment::new(replicas.clone());
            existing.partitions.insert(*number, partition);
        }
        plan::check_size(&existing)?;
        if intent == Intent::Carry {
            mutations.record(added.len())?;
            self.zookeeper.add_partitions(topic, &added).await?;
            tracing::info!(
                topic,
                partitions = more.count,
                "added partitions to a topic"
            );
        }
        Ok(added.into_keys().collect())
    }

    fn rules(&self) -> Rules {
        let config = self.config.broker();
        Rules {
            default_partitions: config.num_partitions,
            default_replication_factor: i16::try_from(config.default_replication_factor)
                .unwrap_or(i16::MAX),
            partitions_max: config.barnabas_max_partitions_per_request,
        }
    }
}

/// All brokers that are alive, by id.
fn candidates(image: &ClusterImage) -> Vec<Candidate> {
    let alive = image.brokers.values();
    alive
        .map(|broker| Candidate {
            id: broker.id,
            rack: broker.rack.clone(),
        })
        .collect()
}

fn has_leader(image: &ClusterImage, topic: &str, number: i32) -> bool {
    let partition = image.partition(topic, number);
    partition.is_some_and(|partition| partition.leader().is_some())
}

/// The topics that coordinators keep their state in (Kafka class `DefaultAutoTopicCreationManager`).
fn internal_topic(name: &str, config: &BrokerConfig) -> NewTopic {
    let set = |key: &str, value: &dyn ToString| (key.to_owned(), Some(value.to_string()));
    let compacted = set("cleanup.policy", &"compact");
    if name == "__consumer_offsets" {
        return NewTopic {
            name: name.to_owned(),
            partitions: Some(config.offsets_topic_num_partitions),
            replication_factor: Some(config.offsets_topic_replication_factor),
            assignment: Vec::new(),
            configs: vec![
                compacted,
                set("segment.bytes", &config.offsets_topic_segment_bytes),
                set("compression.type", &"producer"),
            ],
        };
    }
    NewTopic {
        name: name.to_owned(),
        partitions: Some(config.transaction_state_log_num_partitions),
        replication_factor: Some(config.transaction_state_log_replication_factor),
        assignment: Vec::new(),
        configs: vec![
            compacted,
            set("segment.bytes", &config.transaction_state_log_segment_bytes),
            set("compression.type", &"uncompressed"),
            set("min.insync.replicas", &config.transaction_state_log_min_isr),
            set("unclean.leader.election.enable", &"false"),
        ],
    }
}
