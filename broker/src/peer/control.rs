//! What a controller tells brokers, on the wire. Versions come from `inter.broker.protocol.version` alone, as in
//! Kafka: nothing is negotiated on these connections.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use barnabas_core::config::versions::metadata_version_index;
use barnabas_core::control::{
    ControlError, ControlOutcome, ControlRequest, LeaderAndIsr, LeaderAndIsrPartition, LiveBroker,
    PartitionMetadata, SecurityProtocol, StopReplica, StopReplicaPartition, UpdateMetadata,
};
use barnabas_core::ids::{BrokerEpoch, BrokerId, ControllerEpoch, TopicId, TopicPartition};
use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::leader_and_isr_request::{
    LeaderAndIsrLiveLeader, LeaderAndIsrPartitionState, LeaderAndIsrTopicState,
};
use kafka_protocol::messages::stop_replica_request::{
    StopReplicaPartitionState, StopReplicaPartitionV0, StopReplicaTopicState, StopReplicaTopicV1,
};
use kafka_protocol::messages::update_metadata_request::{
    UpdateMetadataBroker, UpdateMetadataEndpoint, UpdateMetadataPartitionState,
    UpdateMetadataTopicState,
};
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, LeaderAndIsrRequest, LeaderAndIsrResponse, StopReplicaRequest,
    TopicName as WireTopicName, UpdateMetadataRequest, UpdateMetadataResponse,
};
use kafka_protocol::protocol::{Decodable as _, Encodable as _, StrBytes};
use uuid::Uuid;

use super::{Call, Peer, PeerError};

/// The versions of control requests that all brokers of a cluster understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlVersions {
    pub leader_and_isr: i16,
    pub stop_replica: i16,
    pub update_metadata: i16,
    /// Sent by brokers to the controller.
    pub controlled_shutdown: i16,
}

impl ControlVersions {
    /// Those of a value of `inter.broker.protocol.version`.
    pub fn of(inter_broker_protocol: &str) -> Self {
        let spoken = metadata_version_index(inter_broker_protocol);
        let newest = |thresholds: &[&str]| {
            let reached = thresholds
                .iter()
                .rposition(|since| spoken >= metadata_version_index(since));
            reached.map_or(0, |position| position as i16 + 1)
        };
        Self {
            leader_and_isr: newest(&[
                "1.0-IV0", "2.2-IV0", "2.4-IV0", "2.4-IV1", "2.8-IV1", "3.2-IV0", "3.4-IV0",
            ]),
            stop_replica: newest(&["2.2-IV0", "2.4-IV1", "2.6-IV0", "3.4-IV0"]),
            update_metadata: newest(&[
                "0.9.0",
                "0.10.0-IV0",
                "0.10.2-IV0",
                "1.0-IV0",
                "2.2-IV0",
                "2.4-IV1",
                "2.8-IV1",
                "3.4-IV0",
            ]),
            controlled_shutdown: newest(&["0.9.0", "2.2-IV0", "2.4-IV1"]),
        }
    }
}

/// Encodes an [`UpdateMetadata`] once for all brokers that are told the same.
#[derive(Default)]
pub struct MetadataEncoder {
    last: Mutex<Option<EncodedMetadata>>,
}

struct EncodedMetadata {
    partitions: Weak<[PartitionMetadata]>,
    live_brokers: Weak<[LiveBroker]>,
    controller_epoch: ControllerEpoch,
    version: i16,
    body: Bytes,
}

impl EncodedMetadata {
    fn is_of(&self, request: &UpdateMetadata, version: i16) -> bool {
        fn is_same<T>(weak: &Weak<[T]>, shared: &Arc<[T]>) -> bool {
            weak.upgrade()
                .is_some_and(|known| Arc::ptr_eq(&known, shared))
        }
        self.version == version
            && self.controller_epoch == request.header.controller_epoch
            && is_same(&self.partitions, &request.partitions)
            && is_same(&self.live_brokers, &request.live_brokers)
    }
}

impl MetadataEncoder {
    /// The body, but for the broker epoch in it.
    fn encode(&self, request: &UpdateMetadata, version: i16) -> Result<Bytes, PeerError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| last.is_of(request, version)) {
            return Ok(last.body.clone());
        }
        let wire = update_metadata_request(request, version);
        let mut body = BytesMut::with_capacity(wire.compute_size(version).unwrap_or(0));
        wire.encode(&mut body, version)
            .map_err(|error| PeerError::Malformed(error.to_string()))?;
        let body = body.freeze();
        *last = Some(EncodedMetadata {
            partitions: Arc::downgrade(&request.partitions),
            live_brokers: Arc::downgrade(&request.live_brokers),
            controller_epoch: request.header.controller_epoch,
            version,
            body: body.clone(),
        });
        Ok(body)
    }
}

/// Sends one control request and waits for what the broker makes of it.
pub async fn send_control(
    peer: &mut Peer,
    versions: ControlVersions,
    encoder: &MetadataEncoder,
    request: &ControlRequest,
    timeout: Duration,
) -> Result<ControlOutcome, PeerError> {
    match request {
        ControlRequest::LeaderAndIsr(request) => {
            let version = versions.leader_and_isr;
            let wire = leader_and_isr_request(request, version);
            let response = peer.call(version, &wire, timeout).await?;
            Ok(leader_and_isr_outcome(&response, request))
        }
        ControlRequest::UpdateMetadata(request) => {
            let version = versions.update_metadata;
            let body = encoder.encode(request, version)?;
            let call = Call::of::<UpdateMetadataRequest>(version);
            let parts = with_broker_epoch(&body, version, request.header.broker_epoch);
            let parts: [&[u8]; 3] = [parts.0, &parts.1, parts.2];
            let mut answer = peer.call_encoded(call, &parts, timeout).await?;
            let response = UpdateMetadataResponse::decode(&mut answer, version);
            let response = response.map_err(|error| {
                peer.disconnect();
                PeerError::Malformed(error.to_string())
            })?;
            Ok(ControlOutcome {
                result: control_result(response.error_code),
                partitions: Vec::new(),
            })
        }
        ControlRequest::StopReplica(request) => {
            let mut outcome = ControlOutcome {
                result: Ok(()),
                partitions: Vec::new(),
            };
            for wire in stop_replica_requests(request, versions.stop_replica) {
                let response = peer.call(versions.stop_replica, &wire, timeout).await?;
                outcome.result = outcome.result.and(control_result(response.error_code));
                let partitions = response.partition_errors.iter().map(|of| {
                    let name = TopicPartition::new(of.topic_name.as_str(), of.partition_index);
                    (name, control_result(of.error_code))
                });
                outcome.partitions.extend(partitions);
            }
            Ok(outcome)
        }
    }
}

/// The body with the receiver's epoch in its place: behind controller id, kind and epoch, from version 5 on.
fn with_broker_epoch(body: &[u8], version: i16, epoch: BrokerEpoch) -> (&[u8], Vec<u8>, &[u8]) {
    let at = match version {
        ..=4 => return (body, Vec::new(), &[]),
        5..=7 => 4 + 4,
        8.. => 4 + 1 + 4,
    };
    (&body[..at], epoch.to_be_bytes().to_vec(), &body[at + 8..])
}

fn ids(ids: &[BrokerId]) -> Vec<WireBrokerId> {
    ids.iter().map(|id| WireBrokerId(id.0)).collect()
}

fn name(topic: &str) -> WireTopicName {
    WireTopicName(StrBytes::from_string(topic.to_owned()))
}

/// Without an id it is all zeros.
fn uuid(topic_id: Option<TopicId>) -> Uuid {
    topic_id.map_or(Uuid::nil(), |id| id.0)
}

fn leader_and_isr_request(request: &LeaderAndIsr, version: i16) -> LeaderAndIsrRequest {
    let live_leaders = request.live_leaders.iter().map(|leader| {
        LeaderAndIsrLiveLeader::default()
            .with_broker_id(WireBrokerId(leader.id.0))
            .with_host_name(StrBytes::from_string(leader.host.clone()))
            .with_port(i32::from(leader.port))
    });
    let wire = LeaderAndIsrRequest::default()
        .with_controller_id(WireBrokerId(request.header.controller_id.0))
        .with_controller_epoch(request.header.controller_epoch)
        .with_broker_epoch(request.header.broker_epoch)
        .with_live_leaders(live_leaders.collect());
    let state = |of: &LeaderAndIsrPartition| {
        let leadership = &of.leadership;
        let state = LeaderAndIsrPartitionState::default()
            .with_partition_index(of.topic_partition.partition)
            .with_controller_epoch(leadership.controller_epoch)
            .with_leader(WireBrokerId(leadership.leader))
            .with_leader_epoch(leadership.leader_epoch)
            .with_isr(ids(&leadership.isr))
            .with_partition_epoch(leadership.partition_epoch)
            .with_replicas(ids(&of.replicas))
            .with_adding_replicas(ids(&of.adding_replicas))
            .with_removing_replicas(ids(&of.removing_replicas))
            .with_is_new(of.is_new);
        if version >= 6 {
            state.with_leader_recovery_state(i8::from(leadership.is_recovering))
        } else {
            state
        }
    };
    if version <= 1 {
        let states = request.partitions.iter();
        let states = states.map(|of| state(of).with_topic_name(name(&of.topic_partition.topic)));
        return wire.with_ungrouped_partition_states(states.collect());
    }
    let partitions = &request.partitions;
    let topics = partitions.chunk_by(|a, b| a.topic_partition.topic == b.topic_partition.topic);
    let topics = topics.map(|of_topic| {
        LeaderAndIsrTopicState::default()
            .with_topic_name(name(&of_topic[0].topic_partition.topic))
            .with_topic_id(uuid(of_topic[0].topic_id))
            .with_partition_states(of_topic.iter().map(state).collect())
    });
    wire.with_topic_states(topics.collect())
}

fn leader_and_isr_outcome(
    response: &LeaderAndIsrResponse,
    request: &LeaderAndIsr,
) -> ControlOutcome {
    let named = response.partition_errors.iter().map(|of| {
        let named = TopicPartition::new(of.topic_name.as_str(), of.partition_index);
        (named, control_result(of.error_code))
    });
    let mut partitions: Vec<_> = named.collect();
    if !response.topics.is_empty() {
        let asked = request.partitions.iter();
        let names: std::collections::BTreeMap<_, _> = asked
            .map(|of| (uuid(of.topic_id), &of.topic_partition.topic))
            .collect();
        for topic in &response.topics {
            // Who answers for a topic that was not asked about is not worth an error.
            let Some(name) = names.get(&topic.topic_id) else {
                continue;
            };
            partitions.extend(topic.partition_errors.iter().map(|of| {
                let named = TopicPartition::new((*name).clone(), of.partition_index);
                (named, control_result(of.error_code))
            }));
        }
    }
    ControlOutcome {
        result: control_result(response.error_code),
        partitions,
    }
}

fn update_metadata_request(request: &UpdateMetadata, version: i16) -> UpdateMetadataRequest {
    let brokers = request.live_brokers.iter();
    let wire = UpdateMetadataRequest::default()
        .with_controller_id(WireBrokerId(request.header.controller_id.0))
        .with_controller_epoch(request.header.controller_epoch)
        .with_broker_epoch(request.header.broker_epoch)
        .with_live_brokers(brokers.map(|of| live_broker(of, version)).collect());
    let state = |of: &PartitionMetadata| {
        let leadership = &of.leadership;
        UpdateMetadataPartitionState::default()
            .with_partition_index(of.topic_partition.partition)
            .with_controller_epoch(leadership.controller_epoch)
            .with_leader(WireBrokerId(leadership.leader))
            .with_leader_epoch(leadership.leader_epoch)
            .with_isr(ids(&leadership.isr))
            .with_zk_version(leadership.partition_epoch)
            .with_replicas(ids(&of.replicas))
            .with_offline_replicas(ids(&of.offline_replicas))
    };
    if version <= 4 {
        let states = request.partitions.iter();
        let states = states.map(|of| state(of).with_topic_name(name(&of.topic_partition.topic)));
        return wire.with_ungrouped_partition_states(states.collect());
    }
    let partitions = &request.partitions;
    let topics = partitions.chunk_by(|a, b| a.topic_partition.topic == b.topic_partition.topic);
    let topics = topics.map(|of_topic| {
        UpdateMetadataTopicState::default()
            .with_topic_name(name(&of_topic[0].topic_partition.topic))
            .with_topic_id(uuid(of_topic[0].topic_id))
            .with_partition_states(of_topic.iter().map(state).collect())
    });
    wire.with_topic_states(topics.collect())
}

fn live_broker(broker: &LiveBroker, version: i16) -> UpdateMetadataBroker {
    let wire = UpdateMetadataBroker::default()
        .with_id(WireBrokerId(broker.id.0))
        .with_rack(broker.rack.clone().map(StrBytes::from_string));
    if version == 0 {
        // Before listeners had names there was one of each protocol, and this version knows only the first.
        let plaintext = broker
            .endpoints
            .iter()
            .find(|of| of.security_protocol == SecurityProtocol::Plaintext);
        let host = plaintext.map_or(String::new(), |of| of.host.clone());
        return wire
            .with_v0_host(StrBytes::from_string(host))
            .with_v0_port(plaintext.map_or(-1, |of| i32::from(of.port)));
    }
    let endpoints = broker.endpoints.iter().map(|of| {
        UpdateMetadataEndpoint::default()
            .with_port(i32::from(of.port))
            .with_host(StrBytes::from_string(of.host.clone()))
            .with_listener(StrBytes::from_string(of.listener.clone()))
            .with_security_protocol(security_protocol_id(of.security_protocol))
    });
    wire.with_endpoints(endpoints.collect())
}

/// The number of a security protocol (`SecurityProtocol.id`).
pub fn security_protocol_id(protocol: SecurityProtocol) -> i16 {
    match protocol {
        SecurityProtocol::Plaintext => 0,
        SecurityProtocol::Ssl => 1,
        SecurityProtocol::SaslPlaintext => 2,
        SecurityProtocol::SaslSsl => 3,
    }
}

/// The reverse of [`security_protocol_id`].
pub fn security_protocol_of(id: i16) -> Option<SecurityProtocol> {
    match id {
        0 => Some(SecurityProtocol::Plaintext),
        1 => Some(SecurityProtocol::Ssl),
        2 => Some(SecurityProtocol::SaslPlaintext),
        3 => Some(SecurityProtocol::SaslSsl),
        _ => None,
    }
}

/// One request, but two up to version 2 where a request is either for replicas to be deleted or for others.
fn stop_replica_requests(request: &StopReplica, version: i16) -> Vec<StopReplicaRequest> {
    let wire = || {
        StopReplicaRequest::default()
            .with_controller_id(WireBrokerId(request.header.controller_id.0))
            .with_controller_epoch(request.header.controller_epoch)
            .with_broker_epoch(request.header.broker_epoch)
    };
    if version >= 3 {
        let partitions = &request.partitions;
        let topics = partitions.chunk_by(|a, b| a.topic_partition.topic == b.topic_partition.topic);
        let topics = topics.map(|of_topic| {
            let states = of_topic.iter().map(|of| {
                StopReplicaPartitionState::default()
                    .with_partition_index(of.topic_partition.partition)
                    .with_leader_epoch(of.leader_epoch)
                    .with_delete_partition(of.delete)
            });
            StopReplicaTopicState::default()
                .with_topic_name(name(&of_topic[0].topic_partition.topic))
                .with_partition_states(states.collect())
        });
        return vec![wire().with_topic_states(topics.collect())];
    }
    let kinds = [false, true].into_iter();
    let requests = kinds.filter_map(|delete| {
        let partitions = request.partitions.iter().filter(|of| of.delete == delete);
        let partitions: Vec<&StopReplicaPartition> = partitions.collect();
        if partitions.is_empty() {
            return None;
        }
        let wire = wire().with_delete_partitions(delete);
        let wire = if version == 0 {
            let ungrouped = partitions.iter().map(|of| {
                StopReplicaPartitionV0::default()
                    .with_topic_name(name(&of.topic_partition.topic))
                    .with_partition_index(of.topic_partition.partition)
            });
            wire.with_ungrouped_partitions(ungrouped.collect())
        } else {
            let topics =
                partitions.chunk_by(|a, b| a.topic_partition.topic == b.topic_partition.topic);
            let topics = topics.map(|of_topic| {
                let indexes = of_topic.iter().map(|of| of.topic_partition.partition);
                StopReplicaTopicV1::default()
                    .with_name(name(&of_topic[0].topic_partition.topic))
                    .with_partition_indexes(indexes.collect())
            });
            wire.with_topics(topics.collect())
        };
        Some(wire)
    });
    requests.collect()
}

/// What a broker's code means to the controller.
fn control_result(code: i16) -> Result<(), ControlError> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(ResponseError::StaleControllerEpoch) => Err(ControlError::StaleControllerEpoch),
        Some(ResponseError::StaleBrokerEpoch) => Err(ControlError::StaleBrokerEpoch),
        Some(ResponseError::FencedLeaderEpoch) => Err(ControlError::FencedLeaderEpoch),
        Some(ResponseError::InconsistentTopicId) => Err(ControlError::InconsistentTopicId),
        Some(ResponseError::KafkaStorageError) => Err(ControlError::StorageError),
        Some(ResponseError::UnknownTopicOrPartition) => Err(ControlError::UnknownTopicOrPartition),
        Some(other) => {
            tracing::warn!(error = %other, "a broker answered a control request in an unknown way");
            Err(ControlError::Unexpected)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barnabas_core::control::{BrokerAddress, ControlHeader, Endpoint, Leadership};

    use crate::api::control::{leader_and_isr_of, stop_replica_of, update_metadata_of};

    fn header(broker_epoch: i64) -> ControlHeader {
        ControlHeader {
            controller_id: BrokerId(1),
            controller_epoch: 5,
            broker_epoch,
        }
    }

    fn leadership() -> Leadership {
        Leadership {
            controller_epoch: 4,
            leader: 2,
            leader_epoch: 3,
            isr: vec![BrokerId(2), BrokerId(1)],
            partition_epoch: 9,
            is_recovering: false,
        }
    }

    fn partitions() -> [TopicPartition; 3] {
        [("a", 0), ("a", 1), ("b", 0)].map(|(topic, index)| TopicPartition::new(topic, index))
    }

    /// What an older version cannot say is what a receiver of it takes for granted.
    #[test]
    fn orders_of_all_versions_are_understood() {
        for version in 0..=7 {
            let id = (version >= 5).then_some(TopicId(Uuid::from_u128(7)));
            let replicas = |from: i16| {
                let ids = vec![BrokerId(3)];
                if version >= from { ids } else { Vec::new() }
            };
            let leaders = BrokerAddress {
                id: BrokerId(2),
                host: "h".to_owned(),
                port: 9092,
            };
            let request = LeaderAndIsr {
                header: header(if version >= 2 { 77 } else { -1 }),
                partitions: Vec::from(partitions().map(|topic_partition| LeaderAndIsrPartition {
                    topic_partition,
                    topic_id: id,
                    leadership: Leadership {
                        is_recovering: version >= 6,
                        ..leadership()
                    },
                    replicas: vec![BrokerId(2), BrokerId(1)],
                    adding_replicas: replicas(3),
                    removing_replicas: replicas(3),
                    is_new: version >= 1,
                })),
                live_leaders: vec![leaders],
            };
            let mut bytes = BytesMut::new();
            let wire = leader_and_isr_request(&request, version);
            wire.encode(&mut bytes, version).unwrap();
            let wire = LeaderAndIsrRequest::decode(&mut bytes, version).unwrap();
            assert_eq!(leader_and_isr_of(wire, version), request, "v{version}");
        }
        for version in 0..=4 {
            let request = StopReplica {
                header: header(if version >= 1 { 77 } else { -1 }),
                partitions: Vec::from(partitions().map(|topic_partition| StopReplicaPartition {
                    leader_epoch: if version >= 3 { 6 } else { -1 },
                    delete: topic_partition.partition == 1,
                    topic_partition,
                })),
            };
            let mut understood = Vec::new();
            for wire in stop_replica_requests(&request, version) {
                let mut bytes = BytesMut::new();
                wire.encode(&mut bytes, version).unwrap();
                let wire = StopReplicaRequest::decode(&mut bytes, version).unwrap();
                let part = stop_replica_of(&wire, version);
                assert_eq!(part.header, request.header);
                understood.extend(part.partitions);
            }
            understood.sort_by(|a, b| a.topic_partition.cmp(&b.topic_partition));
            assert_eq!(understood, request.partitions, "v{version}");
        }
    }

    fn update(version: i16, broker_epoch: i64) -> UpdateMetadata {
        let listener = if version >= 3 { "INSIDE" } else { "PLAINTEXT" };
        let endpoint = Endpoint {
            listener: listener.to_owned(),
            security_protocol: SecurityProtocol::Plaintext,
            host: "h".to_owned(),
            port: 9092,
        };
        let offline = if version >= 4 {
            vec![BrokerId(1)]
        } else {
            vec![]
        };
        UpdateMetadata {
            header: header(if version >= 5 { broker_epoch } else { -1 }),
            partitions: Arc::new(partitions().map(|topic_partition| PartitionMetadata {
                topic_partition,
                topic_id: (version >= 7).then_some(TopicId(Uuid::from_u128(7))),
                leadership: leadership(),
                replicas: vec![BrokerId(2), BrokerId(1)],
                offline_replicas: offline.clone(),
            })),
            live_brokers: Arc::new([LiveBroker {
                id: BrokerId(2),
                endpoints: vec![endpoint],
                rack: (version >= 2).then(|| "r".to_owned()),
            }]),
        }
    }

    #[test]
    fn one_encoding_of_the_metadata_serves_all_brokers() {
        for version in 0..=8 {
            let encoder = MetadataEncoder::default();
            let first = update(version, 77);
            let body = encoder.encode(&first, version).unwrap();
            for broker_epoch in [77, 78] {
                let header = ControlHeader {
                    broker_epoch,
                    ..first.header
                };
                let request = UpdateMetadata {
                    header: if version >= 5 { header } else { first.header },
                    ..first.clone()
                };
                let same = encoder.encode(&request, version).unwrap();
                assert_eq!(same.as_ptr(), body.as_ptr(), "encoded twice");
                let parts = with_broker_epoch(&same, version, broker_epoch);
                let mut bytes = Bytes::from([parts.0, &parts.1, parts.2].concat());
                let wire = UpdateMetadataRequest::decode(&mut bytes, version).unwrap();
                assert_eq!(update_metadata_of(&wire, version), request, "v{version}");
            }
            let other = encoder.encode(&update(version, 77), version).unwrap();
            assert_ne!(other.as_ptr(), body.as_ptr());
        }
    }
}
