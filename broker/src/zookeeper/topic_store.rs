//! Topics: creating and extending them, marking them for deletion, reading their assignments and states.
//!
//! Any broker may write these; what follows from them (partition states, deletion) is the controller's.

use std::collections::BTreeMap;

use barnabas_core::control::Leadership;
use barnabas_core::ids::{BrokerId, TopicPartition};
use barnabas_core::znodes::{
    ConfigEntity, DeletionMarker, MalformedZnode, PartitionAssignment, PartitionState,
    TopicAssignment,
};

use super::ZooKeeper;
use super::config_store::ConfigWriteError;
use super::coordination::{CoordinationError, CreateMode, Operation, Outcome, Watch};

/// Why a topic could not be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicStoreError {
    #[error("the topic `{0}` exists already")]
    TopicExists(String),
    #[error("the topic `{0}` does not exist")]
    UnknownTopic(String),
    #[error("the topic `{0}` is already marked for deletion")]
    AlreadyMarkedForDeletion(String),
    #[error("{path} in ZooKeeper holds data that cannot be understood: {source}")]
    Malformed {
        path: String,
        source: MalformedZnode,
    },
    #[error(transparent)]
    Config(#[from] ConfigWriteError),
    #[error("ZooKeeper did not take or give a topic: {0}")]
    Coordination(#[from] CoordinationError),
}

impl ZooKeeper {
    /// Names of all topics, also of those being deleted.
    pub async fn topics(&self) -> Result<Vec<String>, CoordinationError> {
        self.coordination
            .children(TopicAssignment::PARENT, Watch::No)
            .await
    }

    pub async fn topic_exists(&self, topic: &str) -> Result<bool, CoordinationError> {
        let path = TopicAssignment::path(topic);
        Ok(self.coordination.exists(&path, Watch::No).await?.is_some())
    }

    /// Topics that wait for deletion.
    pub async fn topics_marked_for_deletion(&self) -> Result<Vec<String>, CoordinationError> {
        self.coordination
            .children(DeletionMarker::PARENT, Watch::No)
            .await
    }

    /// Creates a topic: its configuration first (fenced by the controller), then its assignment.
    /// The name and the assignment have been checked by the caller.
    pub async fn create_topic(
        &self,
        topic: &str,
        assignment: &TopicAssignment,
        config: BTreeMap<String, String>,
    ) -> Result<(), TopicStoreError> {
        // Before the configuration is touched: that of an existing topic has to stay.
        if self.topic_exists(topic).await? {
            return Err(TopicStoreError::TopicExists(topic.to_owned()));
        }
        let entity = ConfigEntity::Topic(topic.to_owned());
        self.set_config(&entity, config).await?;
        let path = TopicAssignment::path(topic);
        let created =
            self.coordination
                .create(&path, Some(assignment.encode()), CreateMode::Persistent);
        match created.await {
            Ok(_) => Ok(()),
            Err(CoordinationError::NoNode) => {
                let parents_too = self
                    .coordination
                    .create_recursive(&path, Some(assignment.encode()));
                parents_too.await.map_err(TopicStoreError::from)
            }
            Err(CoordinationError::NodeExists) => self.confirm_created(topic, assignment).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Tells a topic of somebody else from one whose creation was confirmed over a connection that broke.
    async fn confirm_created(
        &self,
        topic: &str,
        assignment: &TopicAssignment,
    ) -> Result<(), TopicStoreError> {
        match self.topic_assignment(topic).await? {
            Some(found) if assignment.topic_id.is_some() && found == *assignment => Ok(()),
            _ => Err(TopicStoreError::TopicExists(topic.to_owned())),
        }
    }

    /// Adds partitions to a topic, keeping everything else of it as it is.
    pub async fn add_partitions(
        &self,
        topic: &str,
        partitions: &BTreeMap<i32, Vec<BrokerId>>,
    ) -> Result<(), TopicStoreError> {
        let path = TopicAssignment::path(topic);
        loop {
            let found = self.coordination.get(&path, Watch::No).await?;
            let Some((data, stat)) = found else {
                return Err(TopicStoreError::UnknownTopic(topic.to_owned()));
            };
            let mut assignment = decode_assignment(&path, &data)?;
            let added = partitions
                .iter()
                .map(|(number, replicas)| (*number, PartitionAssignment::new(replicas.clone())));
            assignment.partitions.extend(added);
            // Kafka writes without a condition here, and so can undo a reassignment that just began.
            let data = Some(assignment.encode());
            match self.coordination.set(&path, data, Some(stat.version)).await {
                Ok(_) => return Ok(()),
                Err(CoordinationError::BadVersion) => {}
                Err(CoordinationError::NoNode) => {
                    return Err(TopicStoreError::UnknownTopic(topic.to_owned()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks the controller to delete a topic.
    pub async fn mark_for_deletion(&self, topic: &str) -> Result<(), TopicStoreError> {
        let path = DeletionMarker::path(topic);
        match self.coordination.create_recursive(&path, None).await {
            Ok(()) => Ok(()),
            Err(CoordinationError::NodeExists) => {
                Err(TopicStoreError::AlreadyMarkedForDeletion(topic.to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The assignment of one topic.
    pub async fn topic_assignment(
        &self,
        topic: &str,
    ) -> Result<Option<TopicAssignment>, TopicStoreError> {
        let path = TopicAssignment::path(topic);
        let found = self.coordination.get(&path, Watch::No).await?;
        found
            .map(|(data, _)| decode_assignment(&path, &data))
            .transpose()
    }

    /// The assignments of those `topics` that exist.
    pub async fn topic_assignments(
        &self,
        topics: impl IntoIterator<Item = String>,
    ) -> Result<BTreeMap<String, TopicAssignment>, TopicStoreError> {
        let topics: Vec<String> = topics.into_iter().collect();
        let paths = topics.iter().map(|topic| TopicAssignment::path(topic));
        let answers = self.read_all(paths).await?;
        let mut assignments = BTreeMap::new();
        for (topic, answer) in topics.into_iter().zip(answers) {
            if let Some((data, _)) = answer {
                let assignment = decode_assignment(&TopicAssignment::path(&topic), &data)?;
                assignments.insert(topic, assignment);
            }
        }
        Ok(assignments)
    }

    /// The states of those `partitions` that have one.
    pub async fn partition_states(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Leadership>, TopicStoreError> {
        let paths = partitions.iter().map(PartitionState::path);
        let answers = self.read_all(paths).await?;
        let mut states = BTreeMap::new();
        for (partition, answer) in partitions.iter().zip(answers) {
            let Some((data, version)) = answer else {
                continue;
            };
            let state = PartitionState::decode(&data, version).map_err(|source| {
                let path = PartitionState::path(partition);
                TopicStoreError::Malformed { path, source }
            })?;
            states.insert(partition.clone(), state);
        }
        Ok(states)
    }

    /// Data and version of each path, pipelined; `None` where there is no node.
    async fn read_all(
        &self,
        paths: impl Iterator<Item = String>,
    ) -> Result<Vec<Option<(Vec<u8>, i32)>>, CoordinationError> {
        let answers = self
            .coordination
            .submit(paths.map(Operation::get).collect())
            .await;
        let answers = answers.into_iter().map(|answer| match answer {
            Ok(Outcome::Data { data, stat }) => Ok(Some((data.unwrap_or_default(), stat.version))),
            Ok(_) => Err(CoordinationError::UnexpectedAnswer),
            Err(CoordinationError::NoNode) => Ok(None),
            Err(error) => Err(error),
        });
        answers.collect()
    }
}

fn decode_assignment(path: &str, data: &[u8]) -> Result<TopicAssignment, TopicStoreError> {
    TopicAssignment::decode(data).map_err(|source| TopicStoreError::Malformed {
        path: path.to_owned(),
        source,
    })
}
