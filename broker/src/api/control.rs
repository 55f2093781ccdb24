//! What brokers say to each other about the cluster: the controller's orders, and what is asked of the controller.
//!
//! Orders of one connection come in order, and the replicas take them one at a time whoever sends them. Only
//! brokers may send these requests; that is for the authorizer to know.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use barnabas_core::control::{
    BrokerAddress, ControlHeader, ControlOutcome, ControlRequest, Endpoint, LeaderAndIsr,
    LeaderAndIsrPartition, Leadership, LiveBroker, PartitionMetadata, SecurityProtocol,
    StopReplica, StopReplicaPartition, UpdateMetadata,
};
use barnabas_core::controller::{
    AlterPartition, AlteredPartition, ControlledShutdownError, IsrProposal, ProposedPartition,
};
use barnabas_core::ids::{BrokerId, TopicId, TopicName, TopicPartition};
use kafka_protocol::messages::alter_partition_response::{PartitionData, TopicData};
use kafka_protocol::messages::controlled_shutdown_response::RemainingPartition;
use kafka_protocol::messages::leader_and_isr_request::LeaderAndIsrPartitionState;
use kafka_protocol::messages::leader_and_isr_response::{
    LeaderAndIsrPartitionError, LeaderAndIsrTopicError,
};
use kafka_protocol::messages::stop_replica_response::StopReplicaPartitionError;
use kafka_protocol::messages::update_metadata_request::{
    UpdateMetadataBroker, UpdateMetadataPartitionState,
};
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest,
    AlterPartitionResponse, BrokerId as WireBrokerId, ControlledShutdownRequest,
    ControlledShutdownResponse, EnvelopeRequest, LeaderAndIsrRequest, LeaderAndIsrResponse,
    ProducerId, StopReplicaRequest, StopReplicaResponse, TopicName as WireTopicName,
    UpdateMetadataRequest, UpdateMetadataResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::error_code::{NONE, ToErrorCode as _, code_of};
use super::{Context, Reply};
use crate::controller::ControlTarget as _;
use crate::peer::security_protocol_of;

/// `LeaderAndIsr` (key 4, v0–7): lead or follow these partitions.
pub async fn leader_and_isr(
    request: LeaderAndIsrRequest,
    context: &Context<'_>,
) -> LeaderAndIsrResponse {
    let request = leader_and_isr_of(request, context.version);
    let asked = Asked::of(&request);
    let outcome = obey(ControlRequest::LeaderAndIsr(request), context).await;
    leader_and_isr_response(outcome, asked, context.version)
}

/// The partitions of a [`LeaderAndIsr`], and the ids of their topics.
pub(crate) struct Asked {
    partitions: Vec<TopicPartition>,
    topic_ids: HashMap<TopicName, Uuid>,
}

impl Asked {
    pub(crate) fn of(request: &LeaderAndIsr) -> Self {
        let partitions = || request.partitions.iter();
        Self {
            partitions: partitions().map(|of| of.topic_partition.clone()).collect(),
            topic_ids: partitions()
                .map(|of| (of.topic_partition.topic.clone(), uuid(of.topic_id)))
                .collect(),
        }
    }
}

pub(crate) fn leader_and_isr_response(
    outcome: ControlOutcome,
    asked: Asked,
    version: i16,
) -> LeaderAndIsrResponse {
    let response = LeaderAndIsrResponse::default().with_error_code(code_of(&outcome.result));
    // A request that is refused as a whole is refused for each partition, too.
    let errors: Vec<(TopicPartition, i16)> = match &outcome.result {
        Ok(()) => codes(outcome),
        Err(error) => {
            let partitions = asked.partitions.into_iter();
            partitions.map(|of| (of, error.error_code())).collect()
        }
    };
    let error = |of: &TopicPartition, code| {
        LeaderAndIsrPartitionError::default()
            .with_partition_index(of.partition)
            .with_error_code(code)
    };
    if version <= 4 {
        let errors = errors.iter();
        let errors =
            errors.map(|(of, code)| error(of, *code).with_topic_name(wire_name(&of.topic)));
        return response.with_partition_errors(errors.collect());
    }
    let topics = errors.chunk_by(|(a, _), (b, _)| a.topic == b.topic);
    let topics = topics.map(|of_topic| {
        let errors = of_topic.iter().map(|(of, code)| error(of, *code));
        let topic_id = asked.topic_ids.get(&of_topic[0].0.topic);
        LeaderAndIsrTopicError::default()
            .with_topic_id(topic_id.copied().unwrap_or_default())
            .with_partition_errors(errors.collect())
    });
    response.with_topics(topics.collect())
}

/// `StopReplica` (key 5, v0–4): stop these replicas, and delete some of them.
pub async fn stop_replica(
    request: StopReplicaRequest,
    context: &Context<'_>,
) -> StopReplicaResponse {
    let request = stop_replica_of(&request, context.version);
    stop_replica_response(obey(ControlRequest::StopReplica(request), context).await)
}

pub(crate) fn stop_replica_response(outcome: ControlOutcome) -> StopReplicaResponse {
    let response = StopReplicaResponse::default().with_error_code(code_of(&outcome.result));
    let errors = codes(outcome).into_iter().map(|(of, code)| {
        StopReplicaPartitionError::default()
            .with_topic_name(wire_name(&of.topic))
            .with_partition_index(of.partition)
            .with_error_code(code)
    });
    response.with_partition_errors(errors.collect())
}

/// `UpdateMetadata` (key 6, v0–8): this is the cluster.
pub async fn update_metadata(
    request: UpdateMetadataRequest,
    context: &Context<'_>,
) -> UpdateMetadataResponse {
    let request = update_metadata_of(&request, context.version);
    let outcome = obey(ControlRequest::UpdateMetadata(request), context).await;
    UpdateMetadataResponse::default().with_error_code(code_of(&outcome.result))
}

/// `ControlledShutdown` (key 7, v0–3): a broker wants others to lead what it leads.
pub async fn controlled_shutdown(
    request: ControlledShutdownRequest,
    context: &Context<'_>,
) -> ControlledShutdownResponse {
    let controller = &context.broker.controller;
    let broker = BrokerId(request.broker_id.0);
    let asked = controller.controlled_shutdown(broker, request.broker_epoch);
    controlled_shutdown_response(asked.await)
}

/// Tells which partitions the broker still leads.
pub(crate) fn controlled_shutdown_response(
    kept: Result<Vec<TopicPartition>, ControlledShutdownError>,
) -> ControlledShutdownResponse {
    match kept {
        Ok(kept) => {
            let kept = kept.into_iter().map(|of| {
                RemainingPartition::default()
                    .with_topic_name(wire_name(&of.topic))
                    .with_partition_index(of.partition)
            });
            ControlledShutdownResponse::default()
                .with_error_code(NONE)
                .with_remaining_partitions(kept.collect())
        }
        Err(error) => ControlledShutdownResponse::default().with_error_code(error.error_code()),
    }
}

/// `AlterPartition` (key 56, v0–3): a leader wants other ISRs (KIP-497).
pub async fn alter_partition(
    request: AlterPartitionRequest,
    context: &Context<'_>,
) -> AlterPartitionResponse {
    let request = alter_partition_of(&request, context.version);
    match context.broker.controller.alter_partition(request).await {
        Ok(altered) => altered_partitions(altered, context.version),
        Err(error) => AlterPartitionResponse::default().with_error_code(error.error_code()),
    }
}

/// `Envelope` (key 58, v0): a request that a broker forwards to a controller in `KRaft`. Nobody forwards any in
/// `ZooKeeper` mode, so Kafka hangs up over it.
pub async fn envelope(_request: EnvelopeRequest, _context: &Context<'_>) -> Reply {
    Reply::Close
}

/// `AllocateProducerIds` (key 67, v0): a broker needs ids for its producers (KIP-730).
pub async fn allocate_producer_ids(
    request: AllocateProducerIdsRequest,
    context: &Context<'_>,
) -> AllocateProducerIdsResponse {
    let controller = &context.broker.controller;
    let broker = BrokerId(request.broker_id.0);
    let asked = controller.allocate_producer_ids(broker, request.broker_epoch);
    match asked.await {
        Ok(ids) => AllocateProducerIdsResponse::default()
            .with_producer_id_start(ProducerId(*ids.start()))
            .with_producer_id_len((ids.end() - ids.start() + 1) as i32),
        Err(error) => AllocateProducerIdsResponse::default().with_error_code(error.error_code()),
    }
}

async fn obey(request: ControlRequest, context: &Context<'_>) -> ControlOutcome {
    context.broker.replicas.deliver(request).await
}

fn codes(outcome: ControlOutcome) -> Vec<(TopicPartition, i16)> {
    let partitions = outcome.partitions.into_iter();
    partitions
        .map(|(of, result)| (of, code_of(&result)))
        .collect()
}

fn wire_name(topic: &str) -> WireTopicName {
    WireTopicName(StrBytes::from_string(topic.to_owned()))
}

fn uuid(topic_id: Option<TopicId>) -> Uuid {
    topic_id.map_or(Uuid::nil(), |id| id.0)
}

fn topic_id(uuid: Uuid) -> Option<TopicId> {
    (!uuid.is_nil()).then_some(TopicId(uuid))
}

fn ids(ids: &[WireBrokerId]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(id.0)).collect()
}

fn header(controller: WireBrokerId, controller_epoch: i32, broker_epoch: i64) -> ControlHeader {
    ControlHeader {
        controller_id: BrokerId(controller.0),
        controller_epoch,
        broker_epoch,
    }
}

pub(crate) fn leader_and_isr_of(request: LeaderAndIsrRequest, version: i16) -> LeaderAndIsr {
    let partition =
        |topic: &TopicName, topic_id, of: &LeaderAndIsrPartitionState| LeaderAndIsrPartition {
            topic_partition: TopicPartition::new(topic.clone(), of.partition_index),
            topic_id,
            leadership: Leadership {
                controller_epoch: of.controller_epoch,
                leader: of.leader.0,
                leader_epoch: of.leader_epoch,
                isr: ids(&of.isr),
                partition_epoch: of.partition_epoch,
                is_recovering: of.leader_recovery_state == 1,
            },
            replicas: ids(&of.replicas),
            adding_replicas: ids(&of.adding_replicas),
            removing_replicas: ids(&of.removing_replicas),
            is_new: of.is_new,
        };
    let mut partitions = Vec::new();
    if version <= 1 {
        let states = request.ungrouped_partition_states.iter();
        partitions.extend(states.map(|of| partition(&of.topic_name.as_str().into(), None, of)));
    }
    for topic in &request.topic_states {
        let name = TopicName::from(topic.topic_name.as_str());
        let id = topic_id(topic.topic_id);
        let states = topic.partition_states.iter();
        partitions.extend(states.map(|of| partition(&name, id, of)));
    }
    let leaders = request
        .live_leaders
        .into_iter()
        .map(|leader| BrokerAddress {
            id: BrokerId(leader.broker_id.0),
            host: leader.host_name.to_string(),
            port: port(leader.port),
        });
    LeaderAndIsr {
        header: header(
            request.controller_id,
            request.controller_epoch,
            request.broker_epoch,
        ),
        partitions,
        live_leaders: leaders.collect(),
    }
}

/// 0 stands for what is no port.
fn port(port: i32) -> u16 {
    u16::try_from(port).unwrap_or(0)
}

pub(crate) fn stop_replica_of(request: &StopReplicaRequest, version: i16) -> StopReplica {
    let delete = request.delete_partitions;
    // Before version 3 no leader epoch is told.
    let without_epoch = |topic: TopicName, partition| StopReplicaPartition {
        topic_partition: TopicPartition::new(topic, partition),
        leader_epoch: -1,
        delete,
    };
    let mut partitions = Vec::new();
    match version {
        ..=0 => {
            let ungrouped = request.ungrouped_partitions.iter();
            partitions.extend(
                ungrouped
                    .map(|of| without_epoch(of.topic_name.as_str().into(), of.partition_index)),
            );
        }
        1..=2 => {
            for topic in &request.topics {
                let name = TopicName::from(topic.name.as_str());
                let indexes = topic.partition_indexes.iter();
                partitions.extend(indexes.map(|index| without_epoch(name.clone(), *index)));
            }
        }
        3.. => {
            for topic in &request.topic_states {
                let name = TopicName::from(topic.topic_name.as_str());
                let states = topic.partition_states.iter();
                partitions.extend(states.map(|of| StopReplicaPartition {
                    topic_partition: TopicPartition::new(name.clone(), of.partition_index),
                    leader_epoch: of.leader_epoch,
                    delete: of.delete_partition,
                }));
            }
        }
    }
    StopReplica {
        header: header(
            request.controller_id,
            request.controller_epoch,
            request.broker_epoch,
        ),
        partitions,
    }
}

pub(crate) fn update_metadata_of(request: &UpdateMetadataRequest, version: i16) -> UpdateMetadata {
    let partition =
        |topic: &TopicName, topic_id, of: &UpdateMetadataPartitionState| PartitionMetadata {
            topic_partition: TopicPartition::new(topic.clone(), of.partition_index),
            topic_id,
            leadership: Leadership {
                controller_epoch: of.controller_epoch,
                leader: of.leader.0,
                leader_epoch: of.leader_epoch,
                isr: ids(&of.isr),
                partition_epoch: of.zk_version,
                is_recovering: false,
            },
            replicas: ids(&of.replicas),
            offline_replicas: ids(&of.offline_replicas),
        };
    let mut partitions = Vec::new();
    let ungrouped = request.ungrouped_partition_states.iter();
    partitions.extend(ungrouped.map(|of| partition(&of.topic_name.as_str().into(), None, of)));
    for topic in &request.topic_states {
        let name = TopicName::from(topic.topic_name.as_str());
        let id = topic_id(topic.topic_id);
        let states = topic.partition_states.iter();
        partitions.extend(states.map(|of| partition(&name, id, of)));
    }
    let brokers = request.live_brokers.iter();
    UpdateMetadata {
        header: header(
            request.controller_id,
            request.controller_epoch,
            request.broker_epoch,
        ),
        partitions: partitions.into(),
        live_brokers: brokers.map(|of| live_broker(of, version)).collect(),
    }
}

fn live_broker(broker: &UpdateMetadataBroker, version: i16) -> LiveBroker {
    let endpoints = if version == 0 {
        let protocol = SecurityProtocol::Plaintext;
        vec![Endpoint {
            listener: protocol.name().to_owned(),
            security_protocol: protocol,
            host: broker.v0_host.to_string(),
            port: port(broker.v0_port),
        }]
    } else {
        let endpoints = broker.endpoints.iter().filter_map(|of| {
            let security_protocol = security_protocol_of(of.security_protocol)?;
            // Listeners have names of their own from version 3 on.
            let listener = if version >= 3 {
                of.listener.to_string()
            } else {
                security_protocol.name().to_owned()
            };
            Some(Endpoint {
                listener,
                security_protocol,
                host: of.host.to_string(),
                port: port(of.port),
            })
        });
        endpoints.collect()
    };
    LiveBroker {
        id: BrokerId(broker.id.0),
        endpoints,
        rack: broker
            .rack
            .as_ref()
            .filter(|_| version >= 2)
            .map(ToString::to_string),
    }
}

pub(crate) fn alter_partition_of(request: &AlterPartitionRequest, version: i16) -> AlterPartition {
    let mut partitions = Vec::new();
    for topic in &request.topics {
        let name = TopicName::from(topic.topic_name.as_str());
        partitions.extend(topic.partitions.iter().map(|of| IsrProposal {
            partition: if version >= 2 {
                ProposedPartition::ById {
                    topic_id: TopicId(topic.topic_id),
                    partition: of.partition_index,
                }
            } else {
                ProposedPartition::ByName(TopicPartition::new(name.clone(), of.partition_index))
            },
            leader_epoch: of.leader_epoch,
            isr: if version >= 3 {
                let members = of.new_isr_with_epochs.iter();
                members.map(|of| BrokerId(of.broker_id.0)).collect()
            } else {
                ids(&of.new_isr)
            },
            is_recovering: of.leader_recovery_state == 1,
            partition_epoch: of.partition_epoch,
        }));
    }
    AlterPartition {
        broker: BrokerId(request.broker_id.0),
        broker_epoch: request.broker_epoch,
        version,
        partitions,
    }
}

/// Grouped by topic, in the order in which the topics were asked for.
pub(crate) fn altered_partitions(
    altered: Vec<AlteredPartition>,
    version: i16,
) -> AlterPartitionResponse {
    let mut topics: Vec<TopicData> = Vec::new();
    let mut positions = HashMap::new();
    for partition in altered {
        let (topic, index) = match &partition.partition {
            ProposedPartition::ByName(of) => {
                let topic = TopicData::default().with_topic_name(wire_name(&of.topic));
                (topic, of.partition)
            }
            ProposedPartition::ById {
                topic_id,
                partition,
            } => (TopicData::default().with_topic_id(topic_id.0), *partition),
        };
        let position = match positions.entry((topic.topic_name.clone(), topic.topic_id)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                topics.push(topic);
                *new.insert(topics.len() - 1)
            }
        };
        let data = altered_partition(&partition, index, version);
        topics[position].partitions.push(data);
    }
    AlterPartitionResponse::default().with_topics(topics)
}

fn altered_partition(partition: &AlteredPartition, index: i32, version: i16) -> PartitionData {
    let data = PartitionData::default().with_partition_index(index);
    match &partition.result {
        Ok(leadership) => {
            let isr = leadership.isr.iter().map(|id| WireBrokerId(id.0));
            let data = data
                .with_leader_id(WireBrokerId(leadership.leader))
                .with_leader_epoch(leadership.leader_epoch)
                .with_isr(isr.collect())
                .with_partition_epoch(leadership.partition_epoch);
            if version >= 1 {
                data.with_leader_recovery_state(i8::from(leadership.is_recovering))
            } else {
                data
            }
        }
        Err(error) => data.with_error_code(error.error_code()),
    }
}
