//! What the cluster looks like: one snapshot for everybody, refreshed whole or in parts.
//!
//! A [`ClusterView`] never changes; [`Cluster`] replaces it by a newer one. Whoever has changed something asks
//! for a partial refresh before it looks again, so that everybody reads their own writes. Refreshes take turns.

use std::collections::BTreeMap;
use std::sync::Arc;

use barnabas_core::ids::{BrokerId, TopicId, TopicName, TopicPartition};
use tokio::sync::{Mutex, watch};
use tracing::debug;

use crate::admin::{
    Admin, AdminError, BrokerNode, ConfigResource, ConfigSource, KafkaError, LogDir, Metadata,
    PartitionMetadata, Reassignment, TopicMetadata, Topics,
};

/// Resources of one `DescribeConfigs` request: each answers with all settings it has.
const CONFIGS_AT_ONCE: usize = 500;

/// The cluster at one moment, put together from several answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Grows with every refresh that changed something.
    pub version: u64,
    pub cluster_id: Option<String>,
    pub controller: Option<BrokerId>,
    /// Brokers that are registered.
    pub brokers: BTreeMap<BrokerId, BrokerNode>,
    pub topics: BTreeMap<TopicName, Arc<TopicView>>,
    /// Reassignments that run, whoever began them.
    pub reassignments: BTreeMap<TopicPartition, Reassignment>,
    /// By live broker, as of the last look into log directories.
    pub log_dirs: BTreeMap<BrokerId, Arc<LogDirsView>>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    pub name: TopicName,
    pub id: Option<TopicId>,
    pub is_internal: bool,
    /// By partition number; partitions without a leader included.
    pub partitions: Vec<PartitionMetadata>,
    /// Settings of this topic alone.
    pub overrides: BTreeMap<String, String>,
    /// `min.insync.replicas` in effect, override or default.
    pub min_insync_replicas: i32,
}

/// The disks of a broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogDirsView {
    /// Sum over file systems of directories; nothing if the broker does not say.
    pub total_bytes: Option<u64>,
    pub usable_bytes: Option<u64>,
    /// Directories that failed.
    pub offline: Vec<String>,
    /// Bytes of each replica, also of those that are being copied to here.
    pub replicas: BTreeMap<TopicPartition, u64>,
}

impl LogDirsView {
    fn of(dirs: &[LogDir]) -> Self {
        let online = || dirs.iter().filter(|dir| dir.error.is_none());
        let sum = |bytes: fn(&LogDir) -> Option<u64>| online().map(bytes).sum::<Option<u64>>();
        let mut replicas = BTreeMap::new();
        for replica in online().flat_map(|dir| &dir.replicas) {
            // A copy on its way to another directory of the same broker takes room as well, but is not the replica.
            if !replica.is_future {
                replicas.insert(replica.partition.clone(), replica.bytes);
            }
        }
        let has_online = online().next().is_some();
        Self {
            total_bytes: sum(|dir| dir.total_bytes).filter(|_| has_online),
            usable_bytes: sum(|dir| dir.usable_bytes).filter(|_| has_online),
            offline: dirs
                .iter()
                .filter(|dir| dir.error.is_some())
                .map(|dir| dir.path.clone())
                .collect(),
            replicas,
        }
    }
}

impl TopicView {
    /// Replicas of each partition when running reassignments are done.
    pub fn replication_factor(&self) -> usize {
        let counts = self.partitions.iter().map(|one| one.replicas.len());
        counts.min().unwrap_or(0)
    }
}

impl ClusterView {
    /// A partition, if it exists.
    pub fn partition(&self, partition: &TopicPartition) -> Option<&PartitionMetadata> {
        let partitions = &self.topics.get(&partition.topic)?.partitions;
        let index = partitions
            .binary_search_by_key(&partition.partition, |one| one.partition)
            .ok()?;
        partitions.get(index)
    }

    /// The replicas that a partition has or is getting: the target of its reassignment if one runs.
    pub fn target(&self, partition: &TopicPartition) -> Option<Vec<BrokerId>> {
        let running = self.reassignments.get(partition).map(Reassignment::target);
        running.or_else(|| Some(self.partition(partition)?.replicas.clone()))
    }

    /// Bytes of a replica on a broker, if it was seen there.
    pub fn bytes_on(&self, broker: BrokerId, partition: &TopicPartition) -> Option<u64> {
        self.log_dirs.get(&broker)?.replicas.get(partition).copied()
    }

    /// Bytes of a partition: those of the leader, or of the largest replica.
    pub fn bytes(&self, partition: &TopicPartition) -> u64 {
        let Some(metadata) = self.partition(partition) else {
            return 0;
        };
        let of_leader = metadata.leader.and_then(|id| self.bytes_on(id, partition));
        of_leader.unwrap_or_else(|| {
            let replicas = metadata.replicas.iter();
            replicas
                .filter_map(|id| self.bytes_on(*id, partition))
                .max()
                .unwrap_or(0)
        })
    }
}

/// The snapshot that everybody shares.
#[derive(Clone)]
pub struct Cluster {
    admin: Admin,
    published: watch::Sender<Arc<ClusterView>>,
    refreshing: Arc<Mutex<()>>,
}

impl Cluster {
    /// Empty until the first refresh.
    pub fn new(admin: Admin) -> Self {
        let (published, _) = watch::channel(Arc::default());
        Self {
            admin,
            published,
            refreshing: Arc::default(),
        }
    }

    /// The client it asks with.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// What is known now.
    pub fn view(&self) -> Arc<ClusterView> {
        self.published.borrow().clone()
    }

    /// Tells of each newer view.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.published.subscribe()
    }

    /// Asks for everything: brokers, topics, overrides, reassignments and log directories.
    pub async fn refresh(&self) -> Result<Arc<ClusterView>, AdminError> {
        let _turn = self.refreshing.lock().await;
        let metadata = self.admin.metadata(Topics::All).await?;
        let names: Vec<TopicName> = metadata
            .topics
            .iter()
            .map(|topic| topic.name.clone())
            .collect();
        let settings = self.settings(&names).await?;
        let reassignments = self.admin.list_partition_reassignments(None).await?;
        let log_dirs = self.look_into_log_dirs(&metadata).await;
        Ok(self.publish(|view| {
            view.take_brokers(&metadata);
            view.topics.clear();
            view.take_topics(metadata.topics, &settings);
            view.reassignments = reassignments;
            view.log_dirs = log_dirs;
        }))
    }

    /// Asks for brokers, all topics' replicas and reassignments: what changes while replicas move. Overrides stay
    /// as they were known; those of topics that are new are asked for.
    pub async fn refresh_replicas(&self) -> Result<Arc<ClusterView>, AdminError> {
        let _turn = self.refreshing.lock().await;
        let reassignments = self.admin.list_partition_reassignments(None).await?;
        let metadata = self.admin.metadata(Topics::All).await?;
        let before = self.view();
        let is_new = |topic: &&TopicMetadata| {
            let known = before.topics.get(&topic.name);
            known.is_none_or(|known| known.id != topic.id)
        };
        let new: Vec<TopicName> = metadata
            .topics
            .iter()
            .filter(is_new)
            .map(|topic| topic.name.clone())
            .collect();
        let mut settings = self.settings(&new).await?;
        for (name, topic) in &before.topics {
            let known = || Settings {
                overrides: topic.overrides.clone(),
                min_insync_replicas: topic.min_insync_replicas,
            };
            settings.entry(name.clone()).or_insert_with(known);
        }
        Ok(self.publish(|view| {
            view.take_brokers(&metadata);
            view.topics.clear();
            view.take_topics(metadata.topics, &settings);
            view.reassignments = reassignments;
        }))
    }

    /// Looks into log directories anew: progress of moves, room on disks.
    pub async fn refresh_log_dirs(&self) -> Result<Arc<ClusterView>, AdminError> {
        let _turn = self.refreshing.lock().await;
        let metadata = self.admin.metadata(Topics::Named(&[])).await?;
        let log_dirs = self.look_into_log_dirs(&metadata).await;
        Ok(self.publish(|view| {
            view.take_brokers(&metadata);
            view.log_dirs = log_dirs;
        }))
    }

    /// Asks for these topics alone; those that are gone leave the view.
    pub async fn refresh_topics(
        &self,
        names: &[TopicName],
    ) -> Result<Arc<ClusterView>, AdminError> {
        let _turn = self.refreshing.lock().await;
        let metadata = self.admin.metadata(Topics::Named(names)).await?;
        let found: Vec<TopicName> = metadata
            .topics
            .iter()
            .filter(|topic| exists(topic))
            .map(|topic| topic.name.clone())
            .collect();
        let settings = self.settings(&found).await?;
        let partitions: Vec<TopicPartition> = metadata
            .topics
            .iter()
            .flat_map(|topic| {
                let numbers = topic.partitions.iter();
                numbers.map(|one| TopicPartition::new(topic.name.clone(), one.partition))
            })
            .collect();
        let reassignments = if partitions.is_empty() {
            BTreeMap::new()
        } else {
            self.admin
                .list_partition_reassignments(Some(&partitions))
                .await?
        };
        Ok(self.publish(|view| {
            view.take_brokers(&metadata);
            for name in names {
                view.topics.remove(name);
            }
            view.reassignments
                .retain(|partition, _| !names.contains(&partition.topic));
            view.take_topics(metadata.topics, &settings);
            view.reassignments.extend(reassignments);
        }))
    }

    fn publish(&self, change: impl FnOnce(&mut ClusterView)) -> Arc<ClusterView> {
        let before = self.view();
        let mut view = ClusterView::clone(&before);
        change(&mut view);
        if view == *before {
            return before;
        }
        view.version += 1;
        let view = Arc::new(view);
        self.published.send_replace(view.clone());
        view
    }

    async fn settings(
        &self,
        names: &[TopicName],
    ) -> Result<BTreeMap<TopicName, Settings>, AdminError> {
        let mut settings = BTreeMap::new();
        for names in names.chunks(CONFIGS_AT_ONCE) {
            let topics = names.iter().cloned().map(ConfigResource::Topic);
            let resources: Vec<ConfigResource> = topics.collect();
            let described = self.admin.describe_configs(&resources, &[]).await?;
            for (name, entries) in names.iter().zip(described) {
                // A topic that was deleted a moment ago has none; the next refresh does not mention it.
                let Ok(entries) = entries else { continue };
                let mut found = Settings::default();
                for entry in entries {
                    let Some(value) = entry.value else { continue };
                    if entry.name == "min.insync.replicas" {
                        found.min_insync_replicas = value.parse().unwrap_or(1);
                    }
                    if entry.source == ConfigSource::DynamicTopic {
                        found.overrides.insert(entry.name, value);
                    }
                }
                settings.insert(name.clone(), found);
            }
        }
        Ok(settings)
    }

    /// Of brokers that answer. Who does not has no entry: nothing is known of its disks.
    async fn look_into_log_dirs(
        &self,
        metadata: &Metadata,
    ) -> BTreeMap<BrokerId, Arc<LogDirsView>> {
        let asked = metadata.brokers.iter().map(|node| async {
            let found = self.admin.describe_log_dirs(node.id).await;
            found
                .inspect_err(
                    |error| debug!(broker = %node.id, %error, "its log directories are unknown"),
                )
                .ok()
                .map(|dirs| (node.id, Arc::new(LogDirsView::of(&dirs))))
        });
        let found = futures::future::join_all(asked).await;
        found.into_iter().flatten().collect()
    }
}

#[derive(Debug)]
struct Settings {
    overrides: BTreeMap<String, String>,
    min_insync_replicas: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            overrides: BTreeMap::new(),
            min_insync_replicas: 1,
        }
    }
}

/// Metadata also mentions topics that were asked for and are not there. `LEADER_NOT_AVAILABLE` is said of topics
/// that exist.
fn exists(topic: &TopicMetadata) -> bool {
    match topic.error {
        None | Some(KafkaError::LeaderNotAvailable) => true,
        Some(_) => false,
    }
}

impl ClusterView {
    fn take_brokers(&mut self, metadata: &Metadata) {
        self.cluster_id.clone_from(&metadata.cluster_id);
        self.controller = metadata.controller;
        self.brokers = metadata
            .brokers
            .iter()
            .map(|node| (node.id, node.clone()))
            .collect();
    }

    fn take_topics(
        &mut self,
        topics: Vec<TopicMetadata>,
        settings: &BTreeMap<TopicName, Settings>,
    ) {
        for topic in topics.into_iter().filter(exists) {
            let found = settings.get(&topic.name);
            let view = TopicView {
                name: topic.name.clone(),
                id: topic.id,
                is_internal: topic.is_internal,
                partitions: topic.partitions,
                overrides: found.map(|one| one.overrides.clone()).unwrap_or_default(),
                min_insync_replicas: found.map_or(1, |one| one.min_insync_replicas),
            };
            self.topics.insert(topic.name, Arc::new(view));
        }
    }
}
