//! Markers of transactions, sent to the leaders of their partitions (`WriteTxnMarkers`).

use std::collections::HashMap;
use std::time::Duration;

use barnabas_core::config::versions::metadata_version_index;
use barnabas_core::ids::TopicPartition;
use barnabas_core::partition::PartitionError;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{TopicName, WriteTxnMarkersRequest};
use kafka_protocol::protocol::StrBytes;

use super::{Peer, PeerError};
use crate::coordinator::markers::{Marker, MarkerError};

/// What became of a marker in each of its partitions.
pub type MarkerResults = Vec<(TopicPartition, Result<(), MarkerError>)>;

/// The version of `WriteTxnMarkers` for an `inter.broker.protocol.version`.
fn version_for(inter_broker_protocol_version: &str) -> i16 {
    let ours = metadata_version_index(inter_broker_protocol_version);
    i16::from(ours.is_none() || ours >= metadata_version_index("2.8-IV0"))
}

/// Sends markers and waits until they are replicated, or not. One list of results for each marker, in the order of
/// its partitions; those that the answer lacks are left out.
pub async fn write_markers(
    peer: &mut Peer,
    markers: &[Marker],
    inter_broker_protocol_version: &str,
    timeout: Duration,
) -> Result<Vec<MarkerResults>, PeerError> {
    let version = version_for(inter_broker_protocol_version);
    let request =
        WriteTxnMarkersRequest::default().with_markers(markers.iter().map(wire_marker).collect());
    let response = peer.call(version, &request, timeout).await?;
    // Markers of one producer may be answered as one.
    let mut codes: HashMap<(i64, &str, i32), i16> = HashMap::new();
    for marker in &response.markers {
        for topic in &marker.topics {
            for partition in &topic.partitions {
                let key = (
                    marker.producer_id.0,
                    topic.name.as_str(),
                    partition.partition_index,
                );
                codes.insert(key, partition.error_code);
            }
        }
    }
    let results = markers.iter().map(|marker| {
        let partitions = marker.partitions.iter().filter_map(|of| {
            let code = codes.get(&(marker.producer_id, &*of.topic, of.partition))?;
            Some((of.clone(), result_of(*code)))
        });
        partitions.collect()
    });
    Ok(results.collect())
}

fn wire_marker(marker: &Marker) -> WritableTxnMarker {
    let mut topics: Vec<WritableTxnMarkerTopic> = Vec::new();
    for of in &marker.partitions {
        match topics.iter_mut().find(|topic| **topic.name == *of.topic) {
            Some(topic) => topic.partition_indexes.push(of.partition),
            None => topics.push(
                WritableTxnMarkerTopic::default()
                    .with_name(TopicName(StrBytes::from_string(of.topic.to_string())))
                    .with_partition_indexes(vec![of.partition]),
            ),
        }
    }
    WritableTxnMarker::default()
        .with_producer_id(marker.producer_id.into())
        .with_producer_epoch(marker.producer_epoch)
        .with_transaction_result(marker.commit)
        .with_coordinator_epoch(marker.coordinator_epoch)
        .with_topics(topics)
}

fn result_of(code: i16) -> Result<(), MarkerError> {
    let Some(error) = ResponseError::try_from_code(code) else {
        return Ok(());
    };
    Err(match error {
        ResponseError::UnknownTopicOrPartition => {
            MarkerError::Partition(PartitionError::UnknownTopicOrPartition)
        }
        ResponseError::NotLeaderOrFollower => {
            MarkerError::Partition(PartitionError::NotLeaderOrFollower)
        }
        ResponseError::NotEnoughReplicas => {
            MarkerError::Partition(PartitionError::NotEnoughReplicas)
        }
        ResponseError::NotEnoughReplicasAfterAppend => {
            MarkerError::Partition(PartitionError::NotEnoughReplicasAfterAppend)
        }
        ResponseError::RequestTimedOut => MarkerError::Partition(PartitionError::RequestTimedOut),
        ResponseError::KafkaStorageError => MarkerError::Partition(PartitionError::StorageError),
        ResponseError::InvalidProducerEpoch => MarkerError::InvalidProducerEpoch,
        ResponseError::TransactionCoordinatorFenced => MarkerError::CoordinatorFenced,
        ResponseError::UnsupportedForMessageFormat | ResponseError::UnsupportedVersion => {
            MarkerError::UnsupportedForMessageFormat
        }
        _ => MarkerError::Unexpected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_follows_the_inter_broker_protocol() {
        assert_eq!(
            ["2.7-IV2", "2.8-IV0", "3.9-IV0", "3.9"].map(version_for),
            [0, 1, 1, 1]
        );
    }

    #[test]
    fn partitions_are_sent_by_topic() {
        let partitions = [("t", 1), ("u", 0), ("t", 0)];
        let marker = wire_marker(&Marker {
            producer_id: 7,
            producer_epoch: 1,
            coordinator_epoch: 3,
            commit: true,
            partitions: partitions
                .map(|(topic, n)| TopicPartition::new(topic, n))
                .into(),
        });
        let topics: Vec<(&str, &[i32])> = marker
            .topics
            .iter()
            .map(|topic| (topic.name.as_str(), &topic.partition_indexes[..]))
            .collect();
        assert_eq!(topics, [("t", &[1, 0][..]), ("u", &[0])]);
        assert!(marker.transaction_result);
        assert_eq!(result_of(0), Ok(()));
        assert_eq!(result_of(52), Err(MarkerError::CoordinatorFenced));
    }
}
