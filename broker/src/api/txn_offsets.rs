//! `TxnOffsetCommit` (key 28): offsets that count once a transaction is committed.

use barnabas_core::group::records::OffsetCommit;
use barnabas_core::group::{GroupError, MemberRef};
use barnabas_core::ids::{TopicName, TopicPartition};
use kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestPartition;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    TopicName as WireTopicName, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::Context;
use super::error_code::{ToErrorCode as _, code_of, code_without_loading};
use super::verification::{AdmissionError, Transaction, admit};
use crate::clock;
use crate::coordinator::groups::TransactionalProducer;

/// From this version on clients know [`TRANSACTION_ABORTABLE`](super::error_code::TRANSACTION_ABORTABLE).
const ABORTABLE_ERRORS: i16 = 4;
/// Older clients give up over a coordinator that is still loading.
const LOADING_ERRORS: i16 = 2;

/// Why an offset does not become part of a transaction.
#[derive(Clone, Copy, Debug)]
pub enum TxnOffsetError {
    UnknownTopicOrPartition,
    Group(GroupError),
    NotAdmitted(AdmissionError),
    /// The verification said nothing of the partition.
    Unexpected,
}

/// `TxnOffsetCommit` (key 28, v0–4; members and generations from v3 on, KIP-447).
pub async fn txn_offset_commit(
    request: TxnOffsetCommitRequest,
    context: &Context<'_>,
) -> TxnOffsetCommitResponse {
    let image = context.broker.metadata.image();
    let mut refused: Vec<TxnOffsetCommitResponseTopic> = Vec::new();
    let mut known: Vec<(&WireTopicName, &TxnOffsetCommitRequestPartition)> = Vec::new();
    let unknown = TxnOffsetError::UnknownTopicOrPartition.error_code();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let index = partition.partition_index;
            if image.partition(&topic.name, index).is_some() {
                // What is there is answered once, by the last that is said of it.
                known.retain(
                    |(name, one): &(&WireTopicName, &TxnOffsetCommitRequestPartition)| {
                        **name != topic.name || one.partition_index != index
                    },
                );
                known.push((&topic.name, partition));
            } else {
                add(&mut refused, &topic.name, index, unknown);
            }
        }
    }
    let mut topics = refused;
    if !known.is_empty() {
        let codes = commit(&request, &known, context).await;
        for ((topic, partition), code) in known.into_iter().zip(codes) {
            add(&mut topics, topic, partition.partition_index, code);
        }
    }
    // Here Kafka tells of topics without partitions.
    for topic in request
        .topics
        .iter()
        .filter(|topic| topic.partitions.is_empty())
    {
        if topics.iter().all(|known| known.name != topic.name) {
            topics.push(TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone()));
        }
    }
    TxnOffsetCommitResponse::default().with_topics(topics)
}

/// Adds a partition to an answer. Partitions of which nobody knows come before all others, as in Kafka.
fn add(
    topics: &mut Vec<TxnOffsetCommitResponseTopic>,
    topic: &WireTopicName,
    partition: i32,
    code: i16,
) {
    let partition = TxnOffsetCommitResponsePartition::default()
        .with_partition_index(partition)
        .with_error_code(code);
    match topics.iter_mut().find(|known| known.name == *topic) {
        Some(known) => known.partitions.push(partition),
        None => topics.push(
            TxnOffsetCommitResponseTopic::default()
                .with_name(topic.clone())
                .with_partitions(vec![partition]),
        ),
    }
}

async fn commit(
    request: &TxnOffsetCommitRequest,
    wanted: &[(&WireTopicName, &TxnOffsetCommitRequestPartition)],
    context: &Context<'_>,
) -> Vec<i16> {
    let all = |error: TxnOffsetError| {
        let code = if context.version < LOADING_ERRORS {
            code_without_loading(&error)
        } else {
            error.error_code()
        };
        vec![code; wanted.len()]
    };
    let groups = &context.broker.groups;
    let partition = match groups.offsets_partition(&request.group_id) {
        Ok(partition) => partition,
        Err(error) => return all(TxnOffsetError::Group(error)),
    };
    let transaction = Transaction {
        transactional_id: &request.transactional_id,
        producer_id: request.producer_id.0,
        producer_epoch: request.producer_epoch,
        knows_abortable: context.version >= ABORTABLE_ERRORS,
    };
    // Offsets have no sequence that could be out of order.
    let admitted = admit(context, transaction, &[(partition, -1)]).await.pop();
    let admission = match admitted {
        Some(Ok(admission)) => admission,
        Some(Err(error)) => return all(TxnOffsetError::NotAdmitted(error)),
        None => return all(TxnOffsetError::Unexpected),
    };
    let producer = TransactionalProducer {
        producer_id: request.producer_id.0,
        producer_epoch: request.producer_epoch,
        admission,
    };
    let member = MemberRef {
        member_id: &request.member_id,
        group_instance_id: request.group_instance_id.as_deref(),
        generation_id: request.generation_id,
    };
    let commits = commits(wanted);
    let committed = groups.commit_transactional(&request.group_id, member, producer, commits);
    match committed.await {
        Ok(results) => results.iter().map(code_of).collect(),
        Err(error) => all(TxnOffsetError::Group(error)),
    }
}

fn commits(
    wanted: &[(&WireTopicName, &TxnOffsetCommitRequestPartition)],
) -> Vec<(TopicPartition, OffsetCommit)> {
    let now_ms = clock::now().wall_clock_ms;
    let mut last_topic: Option<TopicName> = None;
    let commits = wanted.iter().map(|(name, asked)| {
        let topic = match &last_topic {
            Some(topic) if **topic == *name.as_str() => TopicName::clone(topic),
            Some(_) | None => TopicName::from(name.as_str()),
        };
        last_topic = Some(TopicName::clone(&topic));
        let metadata = asked.committed_metadata.as_deref().unwrap_or_default();
        let commit = OffsetCommit {
            offset: asked.committed_offset,
            leader_epoch: asked.committed_leader_epoch.max(-1),
            metadata: metadata.into(),
            commit_timestamp: now_ms,
            expire_timestamp: None,
        };
        (TopicPartition::new(topic, asked.partition_index), commit)
    });
    commits.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestTopic;
    use kafka_protocol::messages::{GroupId, ProducerId};
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::api::testing::TestBroker;
    use crate::api::txn_markers::write_txn_markers;
    use crate::coordinator::markers::Marker;

    fn request(producer_id: i64, epoch: i16, offset: i64) -> TxnOffsetCommitRequest {
        let partition = |index| {
            TxnOffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
        };
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(WireTopicName(StrBytes::from_static_str("t")))
            .with_partitions(vec![partition(9), partition(0)]);
        TxnOffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str("g")))
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch)
            .with_topics(vec![topic])
    }

    async fn coordinating(settings: &[(&str, &str)]) -> TestBroker {
        let broker = TestBroker::with_settings(settings);
        broker.create_topic("t", 1, None);
        broker.create_topic("__consumer_offsets", 1, None);
        drop(broker.broker.groups.start(1));
        reload(&broker, 0).await;
        broker
    }

    /// Reads the groups from their log, as a broker does that has just been elected.
    async fn reload(broker: &TestBroker, leader_epoch: i32) {
        let groups = &broker.broker.groups;
        let partition = broker.broker.replicas.partition("__consumer_offsets", 0);
        groups.elected(&partition.unwrap(), leader_epoch);
        let loaded = async {
            while groups.describe("g") == Err(GroupError::CoordinatorLoadInProgress) {
                tokio::task::yield_now().await;
            }
        };
        let loaded = tokio::time::timeout(Duration::from_secs(10), loaded).await;
        loaded.expect("the groups are loaded");
    }

    async fn codes(broker: &TestBroker, request: TxnOffsetCommitRequest, version: i16) -> Vec<i16> {
        let answer = txn_offset_commit(request, &broker.context(version)).await;
        let topics = answer.topics.into_iter();
        let partitions = topics.flat_map(|topic| topic.partitions);
        partitions.map(|partition| partition.error_code).collect()
    }

    /// The offset, and whether a transaction may still change it.
    fn offset(broker: &TestBroker) -> (Option<i64>, bool) {
        let looked = broker.broker.groups.look("g", |group| {
            group.map_or((None, false), |group| {
                let offset = group.offsets.get("t", 0).map(|commit| commit.offset);
                (offset, group.offsets.is_unstable("t", 0))
            })
        });
        looked.unwrap()
    }

    async fn end(broker: &TestBroker, producer_id: i64, producer_epoch: i16, commit: bool) {
        let marker = Marker {
            producer_id,
            producer_epoch,
            coordinator_epoch: 0,
            commit,
            partitions: vec![TopicPartition::new("__consumer_offsets", 0)],
        };
        let outcomes = write_txn_markers(&broker.broker, vec![marker]).await;
        assert_eq!(outcomes[0].partitions[0].1, Ok(()));
    }

    const UNCHECKED: (&str, &str) = ("transaction.partition.verification.enable", "false");

    #[tokio::test]
    async fn offsets_of_a_transaction_count_once_it_is_committed() {
        let broker = coordinating(&[UNCHECKED]).await;
        assert_eq!(codes(&broker, request(7, 0, 5), 3).await, [3, 0]);
        assert_eq!(offset(&broker), (None, true));
        end(&broker, 8, 0, true).await;
        assert_eq!(offset(&broker), (None, true), "another producer's end");
        end(&broker, 7, 0, true).await;
        assert_eq!(offset(&broker), (Some(5), false));

        assert_eq!(codes(&broker, request(7, 0, 6), 3).await, [3, 0]);
        assert_eq!(offset(&broker), (Some(5), true));
        end(&broker, 7, 0, false).await;
        assert_eq!(offset(&broker), (Some(5), false));
        // A marker under a later epoch fences the producer.
        end(&broker, 7, 1, false).await;
        assert_eq!(codes(&broker, request(7, 0, 6), 3).await, [3, 47]);
        assert_eq!(offset(&broker), (Some(5), false));
    }

    #[tokio::test]
    async fn a_new_coordinator_knows_the_offsets_of_open_transactions() {
        let broker = coordinating(&[UNCHECKED]).await;
        assert_eq!(codes(&broker, request(7, 0, 5), 0).await, [3, 0]);
        assert_eq!(codes(&broker, request(8, 0, 6), 0).await, [3, 0]);
        reload(&broker, 1).await;
        assert_eq!(offset(&broker), (None, true));
        end(&broker, 7, 0, true).await;
        assert_eq!(offset(&broker), (Some(5), true));
        reload(&broker, 2).await;
        assert_eq!(offset(&broker), (Some(5), true));
        end(&broker, 8, 0, false).await;
        reload(&broker, 3).await;
        assert_eq!(offset(&broker), (Some(5), false));
    }

    #[tokio::test]
    async fn members_of_the_past_do_not_commit() {
        let broker = coordinating(&[UNCHECKED]).await;
        let member = |generation_id| {
            request(7, 0, 5)
                .with_member_id(StrBytes::from_static_str("gone"))
                .with_generation_id(generation_id)
        };
        assert_eq!(codes(&broker, member(3), 3).await, [3, 25]);
        let nobody = request(7, 0, 5).with_group_id(GroupId::default());
        assert_eq!(codes(&broker, nobody, 3).await, [3, 24]);
        assert_eq!(offset(&broker), (None, false));
    }

    #[tokio::test]
    async fn without_its_coordinator_a_transaction_is_not_believed() {
        let broker = coordinating(&[]).await;
        assert_eq!(codes(&broker, request(7, 0, 5), 3).await, [3, 15]);
        assert_eq!(offset(&broker), (None, false));
    }
}
