//! The requests themselves: plain data to wire structs and back.

use std::collections::BTreeMap;

use barnabas_core::ids::{BrokerId, TopicId, TopicName, TopicPartition};
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId as WireBroker, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
    ElectLeadersRequest, IncrementalAlterConfigsRequest, ListPartitionReassignmentsRequest,
    MetadataRequest, TopicName as WireTopic,
};
use kafka_protocol::protocol::{Request, StrBytes};

use super::Admin;
use super::error::{AdminError, Answer, ItemError, KafkaError};
use super::types::{
    BrokerNode, ConfigChanges, ConfigEntry, ConfigOp, ConfigResource, ConfigSource, CreatedTopic,
    Election, Layout, LogDir, LogDirReplica, Metadata, NewPartitions, NewTopic, PartitionMetadata,
    Reassign, Reassignment, TopicMetadata, Topics,
};

/// What was refused of a request for reassignments; what is not listed was begun.
pub type ReassignmentErrors = BTreeMap<TopicPartition, ItemError>;

/// From this version on metadata tells topic ids.
const METADATA_NEEDED: i16 = 4;
const DELETE_BY_ID: i16 = 6;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn topic(name: &str) -> WireTopic {
    WireTopic(text(name))
}

fn wire_ids(ids: &[BrokerId]) -> Vec<WireBroker> {
    ids.iter().map(|id| WireBroker(id.0)).collect()
}

fn ids(ids: &[WireBroker]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(id.0)).collect()
}

fn broker(id: WireBroker) -> Option<BrokerId> {
    (id.0 >= 0).then_some(BrokerId(id.0))
}

fn name(name: &WireTopic) -> TopicName {
    TopicName::from(&*name.0)
}

fn topic_id(id: uuid::Uuid) -> Option<TopicId> {
    (!id.is_nil()).then_some(TopicId(id))
}

const NOT_CONTROLLER: i16 = 41;

/// Whether every item says that the controller is elsewhere, and there are items.
fn is_elsewhere(codes: impl IntoIterator<Item = i16>) -> bool {
    let mut codes = codes.into_iter().peekable();
    codes.peek().is_some() && codes.all(|code| code == NOT_CONTROLLER)
}

pub(super) fn refused(code: i16, message: Option<&StrBytes>) -> Result<(), AdminError> {
    ItemError::check(code, message).map_err(|item| AdminError::Refused {
        error: item.error,
        message: item.message,
    })
}

impl Admin {
    fn item<T>(&self, api: i16, result: Result<T, ItemError>) -> Result<T, ItemError> {
        if let Err(error) = &result {
            self.inner.observer.item(api, error.error);
        }
        result
    }

    /// Brokers, controller and topics. With no topic named, only the former. Never creates a topic.
    pub async fn metadata(&self, topics: Topics<'_>) -> Result<Metadata, AdminError> {
        let (answer, _) = self
            .ask(METADATA_NEEDED, |_| {
                MetadataRequest::default()
                    .with_allow_auto_topic_creation(false)
                    .with_topics(match topics {
                        Topics::All => None,
                        Topics::Named(names) => Some(
                            names
                                .iter()
                                .map(|one| {
                                    MetadataRequestTopic::default().with_name(Some(topic(one)))
                                })
                                .collect(),
                        ),
                    })
            })
            .await?;
        let partition =
            |wire: &kafka_protocol::messages::metadata_response::MetadataResponsePartition| {
                PartitionMetadata {
                    partition: wire.partition_index,
                    leader: broker(wire.leader_id),
                    leader_epoch: wire.leader_epoch,
                    replicas: ids(&wire.replica_nodes),
                    isr: ids(&wire.isr_nodes),
                    offline: ids(&wire.offline_replicas),
                }
            };
        let metadata = Metadata {
            cluster_id: answer.cluster_id.as_ref().map(ToString::to_string),
            controller: broker(answer.controller_id),
            brokers: answer
                .brokers
                .iter()
                .map(|node| BrokerNode {
                    id: BrokerId(node.node_id.0),
                    host: node.host.to_string(),
                    port: u16::try_from(node.port).unwrap_or(0),
                    rack: node.rack.as_ref().map(ToString::to_string),
                })
                .collect(),
            topics: answer
                .topics
                .iter()
                .filter_map(|wire| {
                    let mut partitions: Vec<_> = wire.partitions.iter().map(partition).collect();
                    partitions.sort_by_key(|one| one.partition);
                    Some(TopicMetadata {
                        name: name(wire.name.as_ref()?),
                        error: KafkaError::try_from_code(wire.error_code),
                        id: topic_id(wire.topic_id),
                        is_internal: wire.is_internal,
                        partitions,
                    })
                })
                .collect(),
        };
        self.learn(&metadata);
        Ok(metadata)
    }

    /// The live brokers and the controller (`DescribeCluster` would say the same; Metadata is served everywhere).
    pub async fn describe_cluster(&self) -> Result<Metadata, AdminError> {
        self.metadata(Topics::Named(&[])).await
    }

    /// Creates topics; one result for each, in their order.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
    ) -> Result<Answer<Vec<Result<CreatedTopic, ItemError>>>, AdminError> {
        let wire = |new: &NewTopic| {
            let configs = new.configs.iter().map(|(key, value)| {
                CreatableTopicConfig::default()
                    .with_name(text(key))
                    .with_value(Some(text(value)))
            });
            let created = CreatableTopic::default()
                .with_name(topic(&new.name))
                .with_configs(configs.collect());
            match &new.layout {
                Layout::Counts {
                    partitions,
                    replication_factor,
                } => created
                    .with_num_partitions(*partitions)
                    .with_replication_factor(*replication_factor),
                Layout::Assignments(assignments) => created
                    .with_num_partitions(-1)
                    .with_replication_factor(-1)
                    .with_assignments(
                        (0..)
                            .zip(assignments)
                            .map(|(partition, replicas)| {
                                CreatableReplicaAssignment::default()
                                    .with_partition_index(partition)
                                    .with_broker_ids(wire_ids(replicas))
                            })
                            .collect(),
                    ),
            }
        };
        let timeout = self.broker_timeout_ms();
        let (answer, _) = self
            .ask_controller(
                5,
                |_| {
                    CreateTopicsRequest::default()
                        .with_timeout_ms(timeout)
                        .with_topics(topics.iter().map(wire).collect())
                },
                |answer| is_elsewhere(answer.topics.iter().map(|topic| topic.error_code)),
            )
            .await?;
        let mut found: BTreeMap<&str, Result<CreatedTopic, ItemError>> = BTreeMap::new();
        for topic in &answer.topics {
            let checked = ItemError::check(topic.error_code, topic.error_message.as_ref());
            let created = checked.map(|()| CreatedTopic {
                id: topic_id(topic.topic_id),
                partitions: topic.num_partitions,
                replication_factor: topic.replication_factor,
            });
            found.insert(&topic.name, self.item(CreateTopicsRequest::KEY, created));
        }
        let results = topics.iter().map(|new| {
            found
                .remove(&*new.name)
                .unwrap_or_else(|| Err(unmentioned()))
        });
        Ok(Answer::new(results.collect(), answer.throttle_time_ms))
    }

    /// Deletes topics by their ids; one result for each, in their order.
    pub async fn delete_topics(
        &self,
        topics: &[TopicId],
    ) -> Result<Answer<Vec<Result<(), ItemError>>>, AdminError> {
        let timeout = self.broker_timeout_ms();
        let (answer, _) = self
            .ask_controller(
                DELETE_BY_ID,
                |_| {
                    let states = topics.iter().map(|id| {
                        DeleteTopicState::default()
                            .with_name(None)
                            .with_topic_id(id.0)
                    });
                    DeleteTopicsRequest::default()
                        .with_timeout_ms(timeout)
                        .with_topics(states.collect())
                },
                |answer| is_elsewhere(answer.responses.iter().map(|topic| topic.error_code)),
            )
            .await?;
        let mut found: BTreeMap<uuid::Uuid, Result<(), ItemError>> = BTreeMap::new();
        for topic in &answer.responses {
            let checked = ItemError::check(topic.error_code, topic.error_message.as_ref());
            found.insert(topic.topic_id, self.item(DeleteTopicsRequest::KEY, checked));
        }
        let results = topics
            .iter()
            .map(|id| found.remove(&id.0).unwrap_or_else(|| Err(unmentioned())));
        Ok(Answer::new(results.collect(), answer.throttle_time_ms))
    }

    /// Adds partitions; one result for each topic, in their order.
    pub async fn create_partitions(
        &self,
        topics: &[NewPartitions],
    ) -> Result<Answer<Vec<Result<(), ItemError>>>, AdminError> {
        let wire = |new: &NewPartitions| {
            let assignments = new.assignments.iter().map(|replicas| {
                CreatePartitionsAssignment::default().with_broker_ids(wire_ids(replicas))
            });
            CreatePartitionsTopic::default()
                .with_name(topic(&new.topic))
                .with_count(new.total)
                .with_assignments((!new.assignments.is_empty()).then(|| assignments.collect()))
        };
        let timeout = self.broker_timeout_ms();
        let (answer, _) = self
            .ask_controller(
                0,
                |_| {
                    CreatePartitionsRequest::default()
                        .with_timeout_ms(timeout)
                        .with_topics(topics.iter().map(wire).collect())
                },
                |answer| is_elsewhere(answer.results.iter().map(|topic| topic.error_code)),
            )
            .await?;
        let mut found: BTreeMap<&str, Result<(), ItemError>> = BTreeMap::new();
        for topic in &answer.results {
            let checked = ItemError::check(topic.error_code, topic.error_message.as_ref());
            found.insert(
                &topic.name,
                self.item(CreatePartitionsRequest::KEY, checked),
            );
        }
        let results = topics.iter().map(|new| {
            found
                .remove(&*new.topic)
                .unwrap_or_else(|| Err(unmentioned()))
        });
        Ok(Answer::new(results.collect(), answer.throttle_time_ms))
    }

    /// Changes settings; one result for each resource, in their order. Settings of a broker are changed by that
    /// broker, so brokers that are away have an `UNREACHABLE`-like error of the whole request: ask for them apart.
    pub async fn incremental_alter_configs(
        &self,
        changes: &[ConfigChanges],
    ) -> Result<Vec<Result<(), ItemError>>, AdminError> {
        let mut results: Vec<Result<(), ItemError>> = vec![Err(unmentioned()); changes.len()];
        for (owner, indexes) in by_owner(changes.iter().map(|change| &change.resource)) {
            let build = |_| {
                let resources = indexes.iter().map(|index| wire_changes(&changes[*index]));
                IncrementalAlterConfigsRequest::default().with_resources(resources.collect())
            };
            let (answer, _) = match owner {
                Some(id) => self.ask_broker(id, 0, build).await?,
                None => {
                    // Any broker writes it; but never twice without looking.
                    self.ask_controller(0, build, |_| false).await?
                }
            };
            let mut found = BTreeMap::new();
            for one in &answer.responses {
                let checked = ItemError::check(one.error_code, one.error_message.as_ref());
                let checked = self.item(IncrementalAlterConfigsRequest::KEY, checked);
                found.insert((one.resource_type, one.resource_name.to_string()), checked);
            }
            for index in indexes {
                if let Some(result) = found.remove(&wire_resource(&changes[index].resource)) {
                    results[index] = result;
                }
            }
        }
        Ok(results)
    }

    /// Settings in effect; one result for each resource, in their order. `keys` limits which, if there are any.
    pub async fn describe_configs(
        &self,
        resources: &[ConfigResource],
        keys: &[&str],
    ) -> Result<Vec<Result<Vec<ConfigEntry>, ItemError>>, AdminError> {
        let mut results: Vec<Result<Vec<ConfigEntry>, ItemError>> =
            resources.iter().map(|_| Err(unmentioned())).collect();
        for (owner, indexes) in by_owner(resources) {
            let build = |_| {
                let wanted = indexes.iter().map(|index| {
                    let (kind, name) = wire_resource(&resources[*index]);
                    let keys = keys.iter().map(|key| text(key)).collect();
                    DescribeConfigsResource::default()
                        .with_resource_type(kind)
                        .with_resource_name(StrBytes::from_string(name))
                        .with_configuration_keys(
                            Some(keys).filter(|keys: &Vec<_>| !keys.is_empty()),
                        )
                });
                DescribeConfigsRequest::default().with_resources(wanted.collect())
            };
            let (answer, _) = match owner {
                Some(id) => self.ask_broker(id, 1, build).await?,
                None => self.ask(1, build).await?,
            };
            let mut found = BTreeMap::new();
            for one in answer.results {
                let key = (one.resource_type, one.resource_name.to_string());
                let checked = ItemError::check(one.error_code, one.error_message.as_ref());
                let checked = self.item(DescribeConfigsRequest::KEY, checked);
                let entries = checked.map(|()| one.configs.into_iter().map(config_entry).collect());
                found.insert(key, entries);
            }
            for index in indexes {
                if let Some(result) = found.remove(&wire_resource(&resources[index])) {
                    results[index] = result;
                }
            }
        }
        Ok(results)
    }

    /// Begins, replaces and cancels reassignments (KIP-455); says which were refused.
    pub async fn alter_partition_reassignments(
        &self,
        reassignments: &[Reassign],
    ) -> Result<ReassignmentErrors, AdminError> {
        let mut by_topic: BTreeMap<&TopicName, Vec<ReassignablePartition>> = BTreeMap::new();
        for one in reassignments {
            let replicas = one.target.as_deref().map(wire_ids);
            let wire = ReassignablePartition::default()
                .with_partition_index(one.partition.partition)
                .with_replicas(replicas);
            by_topic.entry(&one.partition.topic).or_default().push(wire);
        }
        let timeout = self.broker_timeout_ms();
        let (answer, _) = self
            .ask_controller(
                0,
                |_| {
                    let topics = by_topic.iter().map(|(name, partitions)| {
                        ReassignableTopic::default()
                            .with_name(topic(name))
                            .with_partitions(partitions.clone())
                    });
                    AlterPartitionReassignmentsRequest::default()
                        .with_timeout_ms(timeout)
                        .with_topics(topics.collect())
                },
                |answer| answer.error_code == NOT_CONTROLLER,
            )
            .await?;
        refused(answer.error_code, answer.error_message.as_ref())?;
        let mut errors = ReassignmentErrors::new();
        for topic in &answer.responses {
            for one in &topic.partitions {
                let checked = ItemError::check(one.error_code, one.error_message.as_ref());
                let checked = self.item(AlterPartitionReassignmentsRequest::KEY, checked);
                if let Err(error) = checked {
                    let partition = TopicPartition::new(name(&topic.name), one.partition_index);
                    errors.insert(partition, error);
                }
            }
        }
        Ok(errors)
    }

    /// All reassignments that run, or those of some partitions.
    pub async fn list_partition_reassignments(
        &self,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, Reassignment>, AdminError> {
        let timeout = self.broker_timeout_ms();
        let build = |_| {
            let mut by_topic: BTreeMap<&TopicName, Vec<i32>> = BTreeMap::new();
            for one in partitions.unwrap_or_default() {
                by_topic.entry(&one.topic).or_default().push(one.partition);
            }
            let topics = by_topic.into_iter().map(|(name, indexes)| {
                ListPartitionReassignmentsTopics::default()
                    .with_name(topic(name))
                    .with_partition_indexes(indexes)
            });
            ListPartitionReassignmentsRequest::default()
                .with_timeout_ms(timeout)
                .with_topics(partitions.map(|_| topics.collect()))
        };
        let elsewhere = |answer: &kafka_protocol::messages::ListPartitionReassignmentsResponse| {
            answer.error_code == NOT_CONTROLLER
        };
        let (answer, _) = self.ask_controller(0, build, elsewhere).await?;
        refused(answer.error_code, answer.error_message.as_ref())?;
        let topics = answer.topics.iter();
        Ok(topics
            .flat_map(|topic| {
                let topic_name = name(&topic.name);
                topic.partitions.iter().map(move |one| {
                    let reassignment = Reassignment {
                        replicas: ids(&one.replicas),
                        adding: ids(&one.adding_replicas),
                        removing: ids(&one.removing_replicas),
                    };
                    let partition = TopicPartition::new(topic_name.clone(), one.partition_index);
                    (partition, reassignment)
                })
            })
            .collect())
    }

    /// The log directories of a broker with all replicas in them.
    pub async fn describe_log_dirs(&self, id: BrokerId) -> Result<Vec<LogDir>, AdminError> {
        let build = |_| DescribeLogDirsRequest::default().with_topics(None);
        let (answer, version) = self.ask_broker(id, 1, build).await?;
        refused(answer.error_code, None)?;
        let bytes = |bytes: i64| u64::try_from(bytes).ok().filter(|_| version >= 4);
        let dirs = answer.results.iter().map(|dir| LogDir {
            path: dir.log_dir.to_string(),
            error: KafkaError::try_from_code(dir.error_code),
            total_bytes: bytes(dir.total_bytes),
            usable_bytes: bytes(dir.usable_bytes),
            replicas: dir
                .topics
                .iter()
                .flat_map(|topic| {
                    let topic_name = name(&topic.name);
                    topic.partitions.iter().map(move |one| LogDirReplica {
                        partition: TopicPartition::new(topic_name.clone(), one.partition_index),
                        bytes: u64::try_from(one.partition_size).unwrap_or(0),
                        offset_lag: one.offset_lag,
                        is_future: one.is_future_key,
                    })
                })
                .collect(),
        });
        Ok(dirs.collect())
    }

    /// Elects leaders of these partitions; says which were refused. A leader that is the preferred one already is
    /// no error.
    pub async fn elect_leaders(
        &self,
        election: Election,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, ItemError>, AdminError> {
        let timeout = self.broker_timeout_ms();
        let build = |_| {
            let mut by_topic: BTreeMap<&TopicName, Vec<i32>> = BTreeMap::new();
            for one in partitions {
                by_topic.entry(&one.topic).or_default().push(one.partition);
            }
            let topics = by_topic.into_iter().map(|(name, partitions)| {
                TopicPartitions::default()
                    .with_topic(topic(name))
                    .with_partitions(partitions)
            });
            ElectLeadersRequest::default()
                .with_election_type(match election {
                    Election::Preferred => 0,
                    Election::Unclean => 1,
                })
                .with_timeout_ms(timeout)
                .with_topic_partitions(Some(topics.collect()))
        };
        let elsewhere = |answer: &kafka_protocol::messages::ElectLeadersResponse| {
            let results = answer.replica_election_results.iter();
            let items = results.flat_map(|topic| &topic.partition_result);
            answer.error_code == NOT_CONTROLLER || is_elsewhere(items.map(|one| one.error_code))
        };
        let (answer, _) = self.ask_controller(1, build, elsewhere).await?;
        refused(answer.error_code, None)?;
        let mut errors = BTreeMap::new();
        for topic in &answer.replica_election_results {
            for one in &topic.partition_result {
                let checked = ItemError::check(one.error_code, one.error_message.as_ref());
                match checked {
                    Err(error) if error.error != KafkaError::ElectionNotNeeded => {
                        self.inner
                            .observer
                            .item(ElectLeadersRequest::KEY, error.error);
                        let partition = TopicPartition::new(name(&topic.topic), one.partition_id);
                        errors.insert(partition, error);
                    }
                    Err(_) | Ok(()) => {}
                }
            }
        }
        Ok(errors)
    }
}

/// A broker that leaves an item out has not said that it did it.
fn unmentioned() -> ItemError {
    ItemError {
        error: KafkaError::UnknownServerError,
        message: Some("the broker's answer does not mention it".to_owned()),
    }
}

fn wire_resource(resource: &ConfigResource) -> (i8, String) {
    match resource {
        ConfigResource::Topic(name) => (2, name.to_string()),
        ConfigResource::Broker(id) => (4, id.to_string()),
        ConfigResource::AllBrokers => (4, String::new()),
    }
}

/// Which resources which broker has to be asked about; nothing for those that any knows.
fn by_owner<'a>(
    resources: impl IntoIterator<Item = &'a ConfigResource>,
) -> BTreeMap<Option<BrokerId>, Vec<usize>> {
    let mut owners: BTreeMap<Option<BrokerId>, Vec<usize>> = BTreeMap::new();
    for (index, resource) in resources.into_iter().enumerate() {
        let owner = match resource {
            ConfigResource::Broker(id) => Some(*id),
            ConfigResource::Topic(_) | ConfigResource::AllBrokers => None,
        };
        owners.entry(owner).or_default().push(index);
    }
    owners
}

fn wire_changes(changes: &ConfigChanges) -> AlterConfigsResource {
    let (kind, name) = wire_resource(&changes.resource);
    let configs = changes.changes.iter().map(|(key, op)| {
        let (operation, value) = match op {
            ConfigOp::Set(value) => (0, Some(value)),
            ConfigOp::Delete => (1, None),
            ConfigOp::Append(value) => (2, Some(value)),
            ConfigOp::Subtract(value) => (3, Some(value)),
        };
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(operation)
            .with_value(value.map(|value| text(value)))
    });
    AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(StrBytes::from_string(name))
        .with_configs(configs.collect())
}

fn config_entry(
    wire: kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult,
) -> ConfigEntry {
    ConfigEntry {
        name: wire.name.to_string(),
        value: wire.value.map(|value| value.to_string()),
        source: match wire.config_source {
            1 => ConfigSource::DynamicTopic,
            2 => ConfigSource::DynamicBroker,
            3 => ConfigSource::DynamicDefaultBroker,
            4 => ConfigSource::StaticBroker,
            5 => ConfigSource::Default,
            6 => ConfigSource::DynamicBrokerLogger,
            _ => ConfigSource::Unknown,
        },
        read_only: wire.read_only,
        sensitive: wire.is_sensitive,
    }
}
