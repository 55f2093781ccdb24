//! Transactions: identities of their producers, what belongs to them, how they end, looking at them.

use barnabas_core::ids::{TopicName, TopicPartition, is_internal_topic};
use barnabas_core::transaction::{Init, Outcome, State, TransactionError};
use indexmap::IndexSet;
use kafka_protocol::messages as wire;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::describe_transactions_response::{
    TopicData, TransactionState as DescribedTransaction,
};
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedTransaction;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse,
    ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use super::Context;
use super::error_code::{NONE, ToErrorCode, code_for_producer};
use super::groups::wire_text;
use super::repeated;
use crate::coordinator::OFFSETS_TOPIC;
use crate::coordinator::transactions::{ProducerRef, TransactionFilter};
use crate::producer_ids::ProducerIdError;

/// No producer id, no producer epoch.
const UNKNOWN: i64 = -1;

/// First versions whose clients know `PRODUCER_FENCED`; others are told that their epoch is not valid.
const INIT_KNOWS_FENCED: i16 = 4;
const OTHERS_KNOW_FENCED: i16 = 2;

/// First version of `AddPartitionsToTxn` for several transactions, which brokers use to verify (KIP-890).
const BATCHED: i16 = 4;

/// Why a producer gets no identity.
#[derive(Clone, Copy, Debug)]
pub enum InitProducerError {
    /// An id without an epoch, or an epoch without an id.
    HalfAnIdentity,
    ProducerId(ProducerIdError),
    Transaction(TransactionError),
}

/// Why a partition does not come to belong to a transaction.
#[derive(Clone, Copy, Debug)]
pub enum AddPartitionError {
    /// Offsets go there by a request of their own.
    Internal,
    UnknownTopicOrPartition,
    /// Another partition of the request cannot be added.
    NotAttempted,
    Transaction(TransactionError),
}

fn code_for(result: Result<(), impl ToErrorCode>, version: i16) -> i16 {
    result.err().map_or(NONE, |error| {
        code_for_producer(&error, version >= OTHERS_KNOW_FENCED)
    })
}

/// `InitProducerId` (key 22, v0–5): an identity for a producer, be it transactional or only idempotent.
pub async fn init_producer_id(
    request: InitProducerIdRequest,
    context: &Context<'_>,
) -> InitProducerIdResponse {
    match identify(&request, context).await {
        Ok((id, epoch)) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(code_for_producer(
                &error,
                context.version >= INIT_KNOWS_FENCED,
            ))
            .with_producer_id(ProducerId(UNKNOWN))
            .with_producer_epoch(UNKNOWN as i16),
    }
}

async fn identify(
    request: &InitProducerIdRequest,
    context: &Context<'_>,
) -> Result<(i64, i16), InitProducerError> {
    let broker = context.broker;
    let has_id = request.producer_id.0 != UNKNOWN;
    let has_epoch = i64::from(request.producer_epoch) != UNKNOWN;
    if has_id != has_epoch {
        return Err(InitProducerError::HalfAnIdentity);
    }
    let Some(transactional_id) = &request.transactional_id else {
        // An id that the producer has already does not matter: it gets a new one.
        let id = broker.producer_ids.next().await.map_err(|error| {
            tracing::warn!(%error, "a producer got no id");
            InitProducerError::ProducerId(error)
        })?;
        return Ok((id, 0));
    };
    let init = Init {
        timeout_ms: request.transaction_timeout_ms,
        expected: has_id.then_some((request.producer_id.0, request.producer_epoch)),
    };
    let identity = broker
        .transactions
        .init_producer(transactional_id, init, &broker.producer_ids);
    identity.await.map_err(InitProducerError::Transaction)
}

/// `AddPartitionsToTxn` (key 24, v0–5): partitions belong to a transaction, or are asked whether they do.
pub async fn add_partitions_to_txn(
    request: AddPartitionsToTxnRequest,
    context: &Context<'_>,
) -> AddPartitionsToTxnResponse {
    if context.version < BATCHED {
        let mut transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        let results = add_to_one(&mut transaction, context).await;
        return AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results);
    }
    let mut results = Vec::with_capacity(request.transactions.len());
    for mut transaction in request.transactions {
        let topics = add_to_one(&mut transaction, context).await;
        results.push(
            AddPartitionsToTxnResult::default()
                .with_transactional_id(transaction.transactional_id)
                .with_topic_results(topics),
        );
    }
    AddPartitionsToTxnResponse::default().with_results_by_transaction(results)
}

async fn add_to_one(
    transaction: &mut AddPartitionsToTxnTransaction,
    context: &Context<'_>,
) -> Vec<AddPartitionsToTxnTopicResult> {
    repeated::merge_all(
        &mut transaction.topics,
        |topic| &topic.name,
        |topic| &mut topic.partitions,
        |partition| *partition,
    );
    let drop_empty = |transaction: &mut AddPartitionsToTxnTransaction| {
        transaction
            .topics
            .retain(|topic| !topic.partitions.is_empty());
    };
    if transaction.verify_only {
        drop_empty(transaction);
    }
    let broker = context.broker;
    let partitions = partitions_of(&transaction.topics);
    let image = broker.metadata.image();
    let exists = |of: &TopicPartition| image.partition(&of.topic, of.partition).is_some();
    let checked: Vec<Result<(), AddPartitionError>> = partitions
        .iter()
        .map(|of| {
            if is_internal_topic(&of.topic) && context.version < BATCHED {
                Err(AddPartitionError::Internal)
            } else if exists(of) {
                Ok(())
            } else {
                Err(AddPartitionError::UnknownTopicOrPartition)
            }
        })
        .collect();
    if checked.iter().any(Result::is_err) {
        let refused = checked
            .into_iter()
            .map(|checked| checked.err().unwrap_or(AddPartitionError::NotAttempted));
        let codes: Vec<i16> = refused.map(|error| error.error_code()).collect();
        drop_empty(transaction);
        return respond_added(&transaction.topics, &codes);
    }
    let producer = ProducerRef {
        transactional_id: &transaction.transactional_id,
        producer_id: transaction.producer_id.0,
        producer_epoch: transaction.producer_epoch,
    };
    let codes: Vec<i16> = if transaction.verify_only {
        let verified = broker.transactions.verify(
            producer.transactional_id,
            producer.producer_id,
            producer.producer_epoch,
            &partitions,
        );
        let verified = verified.into_iter();
        verified
            .map(|result| result.map_err(AddPartitionError::Transaction))
            .map(|result| code_for(result, context.version))
            .collect()
    } else {
        let added = broker.transactions.add_partitions(producer, &partitions);
        let added = added.await.map_err(AddPartitionError::Transaction);
        vec![code_for(added, context.version); partitions.len()]
    };
    respond_added(&transaction.topics, &codes)
}

fn partitions_of(topics: &[AddPartitionsToTxnTopic]) -> Vec<TopicPartition> {
    let partitions = topics.iter().flat_map(|topic| {
        let name = TopicName::from(topic.name.as_str());
        let numbers = topic.partitions.iter();
        numbers.map(move |number| TopicPartition::new(TopicName::clone(&name), *number))
    });
    partitions.collect()
}

/// `codes` are those of the partitions, one after the other.
fn respond_added(
    topics: &[AddPartitionsToTxnTopic],
    codes: &[i16],
) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut codes = codes.iter().copied();
    let topics = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(codes.by_ref());
        let partitions = partitions.map(|(number, code)| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*number)
                .with_partition_error_code(code)
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    topics.collect()
}

/// `AddOffsetsToTxn` (key 25, v0–4): offsets of a group belong to a transaction.
pub async fn add_offsets_to_txn(
    request: AddOffsetsToTxnRequest,
    context: &Context<'_>,
) -> AddOffsetsToTxnResponse {
    let broker = context.broker;
    let partition = broker.groups.partition_for(&request.group_id);
    let producer = ProducerRef {
        transactional_id: &request.transactional_id,
        producer_id: request.producer_id.0,
        producer_epoch: request.producer_epoch,
    };
    let partition = [TopicPartition::new(OFFSETS_TOPIC, partition)];
    let added = broker.transactions.add_partitions(producer, &partition);
    AddOffsetsToTxnResponse::default().with_error_code(code_for(added.await, context.version))
}

/// `EndTxn` (key 26, v0–4): commits or aborts a transaction.
pub async fn end_txn(request: EndTxnRequest, context: &Context<'_>) -> EndTxnResponse {
    let producer = ProducerRef {
        transactional_id: &request.transactional_id,
        producer_id: request.producer_id.0,
        producer_epoch: request.producer_epoch,
    };
    let outcome = if request.committed {
        Outcome::Commit
    } else {
        Outcome::Abort
    };
    let ended = context.broker.transactions.end(producer, outcome);
    EndTxnResponse::default().with_error_code(code_for(ended.await, context.version))
}

/// `DescribeTransactions` (key 65, v0).
pub async fn describe_transactions(
    request: DescribeTransactionsRequest,
    context: &Context<'_>,
) -> DescribeTransactionsResponse {
    let states = request.transactional_ids.into_iter();
    let states = states.map(|id| describe(id, context));
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn describe(id: TransactionalId, context: &Context<'_>) -> DescribedTransaction {
    let description = context.broker.transactions.describe(&id);
    let answer = DescribedTransaction::default().with_transactional_id(id);
    let description = match description {
        Ok(description) => description,
        Err(error) => return answer.with_error_code(error.error_code()),
    };
    let topics = description.topics.into_iter().map(|(topic, partitions)| {
        TopicData::default()
            .with_topic(wire::TopicName(wire_text(&topic)))
            .with_partitions(partitions)
    });
    answer
        .with_transaction_state(StrBytes::from_static_str(description.state.name()))
        .with_transaction_timeout_ms(description.timeout_ms)
        .with_transaction_start_time_ms(description.start_ms)
        .with_producer_id(ProducerId(description.producer_id))
        .with_producer_epoch(description.producer_epoch)
        .with_topics(topics.collect())
}

/// `ListTransactions` (key 66, v0–1): the transactional ids that this broker coordinates.
pub async fn list_transactions(
    request: ListTransactionsRequest,
    context: &Context<'_>,
) -> ListTransactionsResponse {
    let filter = TransactionFilter {
        states: request
            .state_filters
            .iter()
            .map(ToString::to_string)
            .collect(),
        producer_ids: request.producer_id_filters.iter().map(|id| id.0).collect(),
        min_duration_ms: (context.version >= 1 && request.duration_filter >= 0)
            .then_some(request.duration_filter),
    };
    let listed = match context.broker.transactions.list(&filter) {
        Ok(listed) => listed,
        Err(error) => {
            return ListTransactionsResponse::default().with_error_code(error.error_code());
        }
    };
    let unknown = request.state_filters.into_iter();
    let unknown: IndexSet<StrBytes> = unknown.filter(|name| !State::is_name(name)).collect();
    let states = listed.into_iter().map(|(id, description)| {
        ListedTransaction::default()
            .with_transactional_id(TransactionalId(wire_text(&id)))
            .with_producer_id(ProducerId(description.producer_id))
            .with_transaction_state(StrBytes::from_static_str(description.state.name()))
    });
    ListTransactionsResponse::default()
        .with_unknown_state_filters(unknown.into_iter().collect())
        .with_transaction_states(states.collect())
}
