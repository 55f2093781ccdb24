//! `WriteTxnMarkers` (key 27): a transaction coordinator ends transactions on the partitions of this broker.

use barnabas_core::ids::{TopicName, TopicPartition};
use kafka_protocol::messages as wire;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::Broker;
use super::error_code::code_of;
use super::groups::wire_text;
use super::{Context, repeated};
use crate::coordinator::markers::{Marker, MarkerError, MarkerOutcome, MarkerWriter};

/// Ends transactions on partitions that this broker leads; see [`MarkerWriter::write`].
pub async fn write_txn_markers(broker: &Broker, markers: Vec<Marker>) -> Vec<MarkerOutcome> {
    let writer = MarkerWriter::new(
        broker.replicas.clone(),
        broker.groups.clone(),
        broker.config.clone(),
    );
    writer.write(markers).await
}

/// `WriteTxnMarkers` (key 27, v0–1).
pub async fn write_markers(
    request: WriteTxnMarkersRequest,
    context: &Context<'_>,
) -> WriteTxnMarkersResponse {
    let markers = request.markers.into_iter().map(read);
    // One without partitions is not answered, as there is nothing to do.
    let markers: Vec<Marker> = markers
        .filter(|marker| !marker.partitions.is_empty())
        .collect();
    if markers
        .iter()
        .any(|marker| is_of_nobody(marker) && is_here(marker, context))
    {
        return stumbled(markers);
    }
    let outcomes = write_txn_markers(context.broker, markers).await;
    let mut results: Vec<WritableTxnMarkerResult> = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let topics = respond(&outcome);
        // Several markers of one producer are answered as one.
        match results
            .iter_mut()
            .find(|result| result.producer_id.0 == outcome.producer_id)
        {
            Some(result) => merge(&mut result.topics, topics),
            None => results.push(
                WritableTxnMarkerResult::default()
                    .with_producer_id(outcome.producer_id.into())
                    .with_topics(topics),
            ),
        }
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

/// Whether no producer can have sent what the marker ends: -1 stands for none.
fn is_of_nobody(marker: &Marker) -> bool {
    marker.producer_id == -1 || marker.producer_epoch == -1
}

fn is_here(marker: &Marker, context: &Context<'_>) -> bool {
    let replicas = &context.broker.replicas;
    let mut partitions = marker.partitions.iter();
    partitions.any(|of| replicas.partition(&of.topic, of.partition).is_ok())
}

/// Kafka stumbles over a marker that cannot be written, and with it over the whole request.
fn stumbled(markers: Vec<Marker>) -> WriteTxnMarkersResponse {
    let markers = markers.into_iter().map(|marker| {
        let outcome = MarkerOutcome {
            producer_id: marker.producer_id,
            partitions: marker
                .partitions
                .into_iter()
                .map(|of| (of, Err(MarkerError::Unexpected)))
                .collect(),
        };
        WritableTxnMarkerResult::default()
            .with_producer_id(outcome.producer_id.into())
            .with_topics(respond(&outcome))
    });
    WriteTxnMarkersResponse::default().with_markers(markers.collect())
}

fn read(mut marker: WritableTxnMarker) -> Marker {
    repeated::merge(
        &mut marker.topics,
        |topic| &topic.name,
        |topic| &mut topic.partition_indexes,
        |partition| *partition,
    );
    let partitions = marker.topics.into_iter().flat_map(|topic| {
        let name = TopicName::from(&**topic.name);
        let partitions = topic.partition_indexes.into_iter();
        partitions.map(move |partition| TopicPartition::new(TopicName::clone(&name), partition))
    });
    Marker {
        producer_id: marker.producer_id.0,
        producer_epoch: marker.producer_epoch,
        coordinator_epoch: marker.coordinator_epoch,
        commit: marker.transaction_result,
        partitions: partitions.collect(),
    }
}

fn respond(outcome: &MarkerOutcome) -> Vec<WritableTxnMarkerTopicResult> {
    let mut topics: Vec<WritableTxnMarkerTopicResult> = Vec::new();
    for (partition, result) in &outcome.partitions {
        let result = WritableTxnMarkerPartitionResult::default()
            .with_partition_index(partition.partition)
            .with_error_code(code_of(result));
        match topics
            .iter_mut()
            .find(|topic| **topic.name == *partition.topic)
        {
            Some(topic) => topic.partitions.push(result),
            None => topics.push(
                WritableTxnMarkerTopicResult::default()
                    .with_name(wire::TopicName(wire_text(&partition.topic)))
                    .with_partitions(vec![result]),
            ),
        }
    }
    topics
}

fn merge(known: &mut Vec<WritableTxnMarkerTopicResult>, topics: Vec<WritableTxnMarkerTopicResult>) {
    for topic in topics {
        let Some(same) = known.iter_mut().find(|known| known.name == topic.name) else {
            known.push(topic);
            continue;
        };
        for result in topic.partitions {
            match same
                .partitions
                .iter_mut()
                .find(|known| known.partition_index == result.partition_index)
            {
                Some(known) => *known = result,
                None => same.partitions.push(result),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use barnabas_core::partition::verification::Admission;
    use barnabas_core::records::{BatchBuilder, Compression};
    use futures::FutureExt as _;

    use super::*;
    use crate::api::testing::TestBroker;
    use crate::clock;

    fn marker(epochs: (i16, i32), commit: bool, partitions: &[(&str, i32)]) -> Marker {
        Marker {
            producer_id: 7,
            producer_epoch: epochs.0,
            coordinator_epoch: epochs.1,
            commit,
            partitions: partitions
                .iter()
                .map(|(topic, partition)| TopicPartition::new(*topic, *partition))
                .collect(),
        }
    }

    fn write(broker: &TestBroker, markers: Vec<Marker>) -> Vec<i16> {
        let outcomes = write_txn_markers(&broker.broker, markers).now_or_never();
        let outcomes = outcomes.expect("it waits").into_iter();
        let codes = outcomes.flat_map(|outcome| outcome.partitions);
        codes.map(|(_, result)| code_of(&result)).collect()
    }

    #[test]
    fn a_marker_ends_the_transaction_and_fences_older_epochs() {
        let broker = TestBroker::new();
        broker.create_topic("t", 1, None);
        let partition = broker.broker.replicas.partition("t", 0).unwrap();
        let mut records = BatchBuilder::new(Compression::None)
            .producer(7, 3, 0)
            .transactional();
        records.push(1, None, Some(b"v"), &[]);
        let records =
            barnabas_core::records::validate::PreparedBatch::from_own(records.build()).unwrap();
        partition
            .append(&records, Admission::Unchecked, -1, clock::now())
            .unwrap();
        let log = partition.log().unwrap();
        assert_eq!(log.first_unstable_offset(), Some(0));

        let t = [("t", 0)];
        assert_eq!(write(&broker, vec![marker((2, 5), true, &t)]), [47]);
        assert_eq!(write(&broker, vec![marker((3, 5), false, &t)]), [0]);
        assert_eq!(log.first_unstable_offset(), None);
        assert_eq!(log.aborted_transactions(0, i64::MAX).unwrap().len(), 1);
        assert_eq!(write(&broker, vec![marker((4, 4), true, &t)]), [52]);
        assert_eq!(write(&broker, vec![marker((2, 6), true, &t)]), [47]);
        // Without an open transaction there is a marker nevertheless.
        assert_eq!(write(&broker, vec![marker((4, 5), true, &t)]), [0]);
        assert_eq!(log.log_end_offset(), 3);
    }

    #[test]
    fn each_partition_of_each_marker_has_its_own_result() {
        let broker = TestBroker::new();
        broker.create_topic("t", 2, None);
        broker.assign("t", 2, None, 21, 0, &[20, 21], &[21]);
        broker.configure("strict", &[("min.insync.replicas", "2")]);
        broker.lead("strict", 0, None, 0, &[20, 21], &[20]);
        let markers = vec![
            marker((0, 0), true, &[("t", 1), ("no", 0), ("t", 0)]),
            marker((0, 0), false, &[("t", 2), ("strict", 0)]),
        ];
        assert_eq!(write(&broker, markers), [0, 3, 0, 6, 19]);
        assert_eq!(write(&broker, Vec::new()), [0; 0]);
    }
}
