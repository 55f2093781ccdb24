//! What brokers ask the controller, on the wire.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::control::{BrokerAddress, Leadership};
use barnabas_core::controller::{
    AllocateProducerIdsError, AlterPartition, AlterPartitionError, AlteredPartition,
    ControlledShutdownError, IsrProposal, IsrRefusal, ProposedPartition,
};
use barnabas_core::ids::{BrokerEpoch, BrokerId, TopicId, TopicPartition};
use barnabas_core::metadata::ClusterImage;
use indexmap::IndexMap;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use kafka_protocol::messages::alter_partition_response::PartitionData as AlteredData;
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, AlterPartitionResponse, ApiVersionsRequest,
    BrokerId as WireBrokerId, ControlledShutdownRequest, TopicName as WireTopicName,
};
use kafka_protocol::protocol::{Request as _, StrBytes};
use uuid::Uuid;

use super::{Peer, PeerError, PeerNetwork};
use crate::api::error_code::INELIGIBLE_REPLICA;

/// The newest version of `AlterPartition`.
const ALTER_PARTITION_NEWEST: i16 = 3;
/// Topics have ids from this version of `AlterPartition` on, and names before.
const ALTER_PARTITION_BY_ID: i16 = 2;

/// A connection to the broker that is controller.
pub struct ControllerPeer {
    peer: Peer,
    /// The newest version of `AlterPartition` that the controller has; asked for on each connection.
    alter_partition: Option<i16>,
}

impl ControllerPeer {
    pub fn new(network: Arc<dyn PeerNetwork>, address: BrokerAddress, client_id: String) -> Self {
        Self {
            peer: Peer::new(network, address, client_id),
            alter_partition: None,
        }
    }

    pub fn address(&self) -> &BrokerAddress {
        self.peer.address()
    }

    async fn alter_partition_version(&mut self, timeout: Duration) -> Result<i16, PeerError> {
        if let Some(version) = self.alter_partition.filter(|_| self.peer.is_connected()) {
            return Ok(version);
        }
        let request = ApiVersionsRequest::default();
        let response = self.peer.call(0, &request, timeout).await?;
        let mut apis = response.api_keys.iter();
        let found = apis.find(|api| api.api_key == AlterPartitionRequest::KEY);
        let Some(found) = found else {
            let text = "the controller does not serve AlterPartition".to_owned();
            return Err(PeerError::Malformed(text));
        };
        let version = found.max_version.min(ALTER_PARTITION_NEWEST);
        self.alter_partition = Some(version);
        Ok(version)
    }

    /// Asks for other ISRs. `image` knows names and ids of topics.
    pub async fn alter_partition(
        &mut self,
        request: &AlterPartition,
        image: &ClusterImage,
        timeout: Duration,
    ) -> Result<Result<Vec<AlteredPartition>, AlterPartitionError>, PeerError> {
        let newest = self.alter_partition_version(timeout).await?;
        let named: Vec<Named<'_>> = request
            .partitions
            .iter()
            .map(|proposal| Named::of(proposal, image))
            .collect();
        // One topic without an id, and all go by name.
        let version = if named.iter().all(|named| named.id.is_some()) {
            newest
        } else {
            newest.min(ALTER_PARTITION_BY_ID - 1)
        };
        let wire = alter_partition_request(request, &named, version);
        let response = self.peer.call(version, &wire, timeout).await?;
        let error = match ResponseError::try_from_code(response.error_code) {
            None => return Ok(Ok(altered(&response, &named, version))),
            Some(ResponseError::NotController) => AlterPartitionError::NotController,
            Some(ResponseError::StaleBrokerEpoch) => AlterPartitionError::StaleBrokerEpoch,
            Some(error) => {
                tracing::warn!(%error, "the controller refuses to change ISRs");
                AlterPartitionError::Failed
            }
        };
        Ok(Err(error))
    }

    pub async fn allocate_producer_ids(
        &mut self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
        timeout: Duration,
    ) -> Result<Result<RangeInclusive<i64>, AllocateProducerIdsError>, PeerError> {
        let request = AllocateProducerIdsRequest::default()
            .with_broker_id(WireBrokerId(broker.0))
            .with_broker_epoch(broker_epoch);
        let response = self.peer.call(0, &request, timeout).await?;
        let first = response.producer_id_start.0;
        let last = first.checked_add(i64::from(response.producer_id_len) - 1);
        let error = match ResponseError::try_from_code(response.error_code) {
            None => {
                return match last.filter(|last| first >= 0 && *last >= first) {
                    Some(last) => Ok(Ok(first..=last)),
                    None => Err(PeerError::Malformed(
                        "no producer ids in a block".to_owned(),
                    )),
                };
            }
            Some(ResponseError::NotController) => AllocateProducerIdsError::NotController,
            Some(ResponseError::StaleBrokerEpoch) => AllocateProducerIdsError::StaleBrokerEpoch,
            Some(ResponseError::BrokerIdNotRegistered) => {
                AllocateProducerIdsError::BrokerNotRegistered
            }
            Some(error) => {
                tracing::warn!(%error, "the controller gives no producer ids");
                AllocateProducerIdsError::Failed
            }
        };
        Ok(Err(error))
    }

    /// Asks that all leaderships of a broker go elsewhere; gives back those that it keeps.
    pub async fn controlled_shutdown(
        &mut self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
        version: i16,
        timeout: Duration,
    ) -> Result<Result<Vec<TopicPartition>, ControlledShutdownError>, PeerError> {
        let request = ControlledShutdownRequest::default()
            .with_broker_id(WireBrokerId(broker.0))
            .with_broker_epoch(broker_epoch);
        let response = self.peer.call(version, &request, timeout).await?;
        let error = match ResponseError::try_from_code(response.error_code) {
            None => {
                let kept = response.remaining_partitions.iter();
                let kept =
                    kept.map(|of| TopicPartition::new(of.topic_name.as_str(), of.partition_index));
                return Ok(Ok(kept.collect()));
            }
            Some(ResponseError::StaleControllerEpoch | ResponseError::NotController) => {
                ControlledShutdownError::NotController
            }
            Some(ResponseError::StaleBrokerEpoch) => ControlledShutdownError::StaleBrokerEpoch,
            Some(ResponseError::BrokerNotAvailable) => ControlledShutdownError::BrokerNotAvailable,
            Some(error) => {
                tracing::warn!(%error, "the controller does not take leaderships away");
                ControlledShutdownError::Failed
            }
        };
        Ok(Err(error))
    }
}

/// A proposal, and all that is known of its topic.
struct Named<'a> {
    proposal: &'a IsrProposal,
    id: Option<TopicId>,
    name: Option<Arc<str>>,
    partition: i32,
}

impl<'a> Named<'a> {
    fn of(proposal: &'a IsrProposal, image: &ClusterImage) -> Self {
        match &proposal.partition {
            ProposedPartition::ByName(of) => Self {
                proposal,
                id: image.topic_id(&of.topic),
                name: Some(of.topic.clone()),
                partition: of.partition,
            },
            ProposedPartition::ById {
                topic_id,
                partition,
            } => Self {
                proposal,
                id: Some(*topic_id),
                name: image.topic_name(*topic_id).cloned(),
                partition: *partition,
            },
        }
    }

    /// What the topic is called in a version: its id, or its name.
    fn key(&self, version: i16) -> (Uuid, &str) {
        if version >= ALTER_PARTITION_BY_ID {
            (self.id.map_or(Uuid::nil(), |id| id.0), "")
        } else {
            (Uuid::nil(), self.name.as_deref().unwrap_or_default())
        }
    }
}

fn alter_partition_request(
    request: &AlterPartition,
    named: &[Named<'_>],
    version: i16,
) -> AlterPartitionRequest {
    // In the order of the proposals.
    let mut topics: IndexMap<(Uuid, &str), Vec<PartitionData>> = IndexMap::new();
    for named in named {
        let proposal = named.proposal;
        let data = PartitionData::default()
            .with_partition_index(named.partition)
            .with_leader_epoch(proposal.leader_epoch)
            .with_partition_epoch(proposal.partition_epoch);
        let isr = proposal.isr.iter().map(|id| WireBrokerId(id.0));
        let data = if version >= 3 {
            // Epochs of members are known to KRaft controllers only.
            let members = isr.map(|id| {
                BrokerState::default()
                    .with_broker_id(id)
                    .with_broker_epoch(-1)
            });
            data.with_new_isr_with_epochs(members.collect())
        } else {
            data.with_new_isr(isr.collect())
        };
        let data = if version >= 1 {
            data.with_leader_recovery_state(i8::from(proposal.is_recovering))
        } else {
            data
        };
        topics.entry(named.key(version)).or_default().push(data);
    }
    let topics = topics.into_iter().map(|((id, name), partitions)| {
        let topic = TopicData::default().with_partitions(partitions);
        if version >= ALTER_PARTITION_BY_ID {
            topic.with_topic_id(id)
        } else {
            topic.with_topic_name(WireTopicName(StrBytes::from_string(name.to_owned())))
        }
    });
    AlterPartitionRequest::default()
        .with_broker_id(WireBrokerId(request.broker.0))
        .with_broker_epoch(request.broker_epoch)
        .with_topics(topics.collect())
}

/// The answers to those proposals that were answered, named as they were asked for.
fn altered(
    response: &AlterPartitionResponse,
    named: &[Named<'_>],
    version: i16,
) -> Vec<AlteredPartition> {
    let mut answers = BTreeMap::new();
    for topic in &response.topics {
        for data in &topic.partitions {
            let key = if version >= ALTER_PARTITION_BY_ID {
                (topic.topic_id, "")
            } else {
                (Uuid::nil(), topic.topic_name.as_str())
            };
            answers.insert((key, data.partition_index), data);
        }
    }
    let answered = named.iter().filter_map(|named| {
        let data = answers.get(&(named.key(version), named.partition))?;
        Some(AlteredPartition {
            partition: named.proposal.partition.clone(),
            result: isr_result(data),
        })
    });
    answered.collect()
}

fn isr_result(data: &AlteredData) -> Result<Leadership, IsrRefusal> {
    Err(match ResponseError::try_from_code(data.error_code) {
        None => {
            return Ok(Leadership {
                // Not told; nobody asks for it at the leader.
                controller_epoch: -1,
                leader: data.leader_id.0,
                leader_epoch: data.leader_epoch,
                isr: data.isr.iter().map(|id| BrokerId(id.0)).collect(),
                partition_epoch: data.partition_epoch,
                is_recovering: data.leader_recovery_state == 1,
            });
        }
        Some(ResponseError::UnknownTopicId) => IsrRefusal::UnknownTopicId,
        Some(ResponseError::UnknownTopicOrPartition) => IsrRefusal::UnknownTopicOrPartition,
        Some(ResponseError::NotController) => IsrRefusal::NotController,
        Some(ResponseError::FencedLeaderEpoch) => IsrRefusal::FencedLeaderEpoch,
        Some(ResponseError::InvalidUpdateVersion) => IsrRefusal::InvalidUpdateVersion,
        Some(ResponseError::InvalidRequest) => IsrRefusal::InvalidRequest,
        Some(INELIGIBLE_REPLICA) => IsrRefusal::IneligibleReplica,
        Some(ResponseError::OperationNotAttempted) => IsrRefusal::OperationNotAttempted,
        Some(error) => {
            tracing::warn!(%error, "the controller does not change an ISR");
            IsrRefusal::Failed
        }
    })
}
