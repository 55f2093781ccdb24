//! `AddPartitionsToTxn` with nothing but questions: which partitions belong to open transactions (KIP-890).

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::control::BrokerAddress;
use barnabas_core::ids::{BrokerId, TopicPartition};
use barnabas_core::transaction::TransactionError;
use indexmap::IndexMap;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiVersionsRequest, ProducerId,
    TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Request as _, StrBytes};

use super::{Peer, PeerError, PeerNetwork};
use crate::api::error_code::TRANSACTION_ABORTABLE;
use crate::coordinator::verification::{Claim, Verdict, VerificationError};

/// The first version between brokers, and the newest.
const OLDEST: i16 = 4;
const NEWEST: i16 = 5;

/// A connection to a broker that coordinates transactions.
pub struct VerificationPeer {
    peer: Peer,
    /// The newest version that both sides have; asked for on each connection.
    version: Option<i16>,
}

impl VerificationPeer {
    pub fn new(network: Arc<dyn PeerNetwork>, address: BrokerAddress, us: BrokerId) -> Self {
        let client_id = format!("AddPartitionsManager-client-{us}");
        Self {
            peer: Peer::new(network, address, client_id),
            version: None,
        }
    }

    pub fn address(&self) -> &BrokerAddress {
        self.peer.address()
    }

    async fn version(&mut self, timeout: Duration) -> Result<i16, PeerError> {
        if let Some(version) = self.version.filter(|_| self.peer.is_connected()) {
            return Ok(version);
        }
        let request = ApiVersionsRequest::default();
        let response = self.peer.call(0, &request, timeout).await?;
        let mut apis = response.api_keys.iter();
        let found = apis.find(|api| api.api_key == AddPartitionsToTxnRequest::KEY);
        let version = found.map_or(-1, |api| api.max_version.min(NEWEST));
        self.version = Some(version);
        Ok(version)
    }

    /// Asks about claims, each of another transactional id; a verdict for each. `None` if the other broker does not
    /// know such questions.
    pub async fn verify(
        &mut self,
        claims: &[&Claim],
        timeout: Duration,
    ) -> Result<Option<Vec<Verdict>>, PeerError> {
        let version = self.version(timeout).await?;
        if version < OLDEST {
            return Ok(None);
        }
        let transactions = claims.iter().map(|claim| transaction(claim)).collect();
        let request = AddPartitionsToTxnRequest::default().with_transactions(transactions);
        let response = self.peer.call(version, &request, timeout).await?;
        let verdicts = claims.iter().map(|claim| verdict(claim, &response));
        Ok(Some(verdicts.collect()))
    }
}

fn transaction(claim: &Claim) -> AddPartitionsToTxnTransaction {
    let mut topics: IndexMap<&str, Vec<i32>> = IndexMap::new();
    for TopicPartition { topic, partition } in &claim.partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        AddPartitionsToTxnTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(partitions)
    });
    let id = StrBytes::from_string(claim.transactional_id.clone());
    AddPartitionsToTxnTransaction::default()
        .with_transactional_id(TransactionalId(id))
        .with_producer_id(ProducerId(claim.producer_id))
        .with_producer_epoch(claim.producer_epoch)
        .with_verify_only(true)
        .with_topics(topics.collect())
}

fn verdict(claim: &Claim, response: &AddPartitionsToTxnResponse) -> Verdict {
    if let Some(error) = ResponseError::try_from_code(response.error_code) {
        tracing::error!(%error, "a coordinator of transactions refuses to be asked");
        let error = match error {
            // Clients are not to see how brokers get on with each other: nothing was verified.
            ResponseError::ClusterAuthorizationFailed => TransactionError::InvalidState.into(),
            other => verification_error(other),
        };
        return vec![Err(error); claim.partitions.len()];
    }
    let mut results = response.results_by_transaction.iter();
    let result = results.find(|result| *result.transactional_id.0 == *claim.transactional_id);
    let topics = result.map_or(&[][..], |result| &result.topic_results);
    let of_partition = |asked: &TopicPartition| {
        let topic = topics.iter().find(|topic| **topic.name == *asked.topic);
        let partition = topic.and_then(|topic| {
            let mut partitions = topic.results_by_partition.iter();
            partitions.find(|partition| partition.partition_index == asked.partition)
        });
        match partition {
            // What is not named is not refused.
            None => Ok(()),
            Some(found) => match ResponseError::try_from_code(found.partition_error_code) {
                None => Ok(()),
                Some(error) => Err(verification_error(error)),
            },
        }
    };
    claim.partitions.iter().map(of_partition).collect()
}

fn verification_error(error: ResponseError) -> VerificationError {
    let error = match error {
        ResponseError::UnknownTopicOrPartition => {
            return VerificationError::UnknownTopicOrPartition;
        }
        ResponseError::NetworkException => return VerificationError::Network,
        TRANSACTION_ABORTABLE => TransactionError::NotInTransaction,
        ResponseError::InvalidRequest => TransactionError::InvalidRequest,
        ResponseError::CoordinatorNotAvailable => TransactionError::CoordinatorNotAvailable,
        ResponseError::CoordinatorLoadInProgress => TransactionError::CoordinatorLoadInProgress,
        ResponseError::NotCoordinator => TransactionError::NotCoordinator,
        ResponseError::InvalidProducerIdMapping => TransactionError::InvalidProducerIdMapping,
        ResponseError::ProducerFenced | ResponseError::InvalidProducerEpoch => {
            TransactionError::ProducerFenced
        }
        ResponseError::ConcurrentTransactions => TransactionError::ConcurrentTransactions,
        ResponseError::InvalidTxnState => TransactionError::InvalidState,
        _ => TransactionError::UnknownServerError,
    };
    error.into()
}
