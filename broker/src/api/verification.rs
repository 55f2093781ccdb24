//! What a transactional write has to show before it is appended (KIP-890 part 1).

use std::sync::Arc;

use barnabas_core::partition::verification::{Admission, Beginner};
use barnabas_core::transaction::TransactionError;

use super::error_code::{ResponseError, TRANSACTION_ABORTABLE, ToErrorCode, name_of};
use super::{Broker, Context};
use crate::clock;
use crate::coordinator::verification::{Claim, VerificationError};
use crate::replica::{Partition, PartitionError};

/// What old clients are told of a partition that their transaction does not have.
const NOT_ADDED: &str = "Partition was not added to the transaction";

/// Why a partition may not be written to.
#[derive(Clone, Copy, Debug)]
pub enum AdmissionError {
    Partition(PartitionError),
    Refused {
        error: VerificationError,
        /// The client knows that it can go on after an abort.
        knows_abortable: bool,
    },
}

/// A transaction as a client names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transaction<'a> {
    pub(super) transactional_id: &'a str,
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    /// Whether the version of the request has [`TRANSACTION_ABORTABLE`].
    pub(super) knows_abortable: bool,
}

/// Asks for each partition, with the first sequence that is to be written to it, what an append has to show.
/// One result for each.
pub(super) async fn admit(
    context: &Context<'_>,
    transaction: Transaction<'_>,
    partitions: &[(Arc<Partition>, i32)],
) -> Vec<Result<Admission, AdmissionError>> {
    let config = context.broker.config.broker();
    if !config.transaction_partition_verification_enable {
        return vec![Ok(Admission::Unchecked); partitions.len()];
    }
    let expiration_ms = i64::from(config.producer_id_expiration_ms);
    let now = clock::now();
    let begun: Vec<_> = partitions
        .iter()
        .map(|(partition, base_sequence)| {
            let beginner = Beginner {
                producer_id: transaction.producer_id,
                producer_epoch: transaction.producer_epoch,
                base_sequence: *base_sequence,
            };
            partition.begin_verification(beginner, expiration_ms, now)
        })
        .collect();
    let asked = partitions.iter().zip(&begun);
    let claimed: Vec<_> = asked
        .filter(|(_, begun)| matches!(begun, Ok(Some(_))))
        .map(|((partition, _), _)| partition.topic_partition.clone())
        .collect();
    let verdicts = if claimed.is_empty() {
        Vec::new()
    } else {
        verify(context.broker, transaction, claimed).await
    };
    let mut verdicts = verdicts.into_iter();
    let results = begun.into_iter().map(|begun| match begun {
        Err(error) => Err(AdmissionError::Partition(error)),
        Ok(None) => Ok(Admission::Checked(None)),
        Ok(Some(guard)) => match verdicts.next() {
            Some(Ok(())) => Ok(Admission::Checked(Some(guard))),
            Some(Err(error)) => Err(AdmissionError::Refused {
                error,
                knows_abortable: transaction.knows_abortable,
            }),
            None => Err(AdmissionError::Refused {
                error: VerificationError::Network,
                knows_abortable: transaction.knows_abortable,
            }),
        },
    });
    results.collect()
}

async fn verify(
    broker: &Broker,
    transaction: Transaction<'_>,
    partitions: Vec<barnabas_core::ids::TopicPartition>,
) -> Vec<Result<(), VerificationError>> {
    let claim = Claim {
        transactional_id: transaction.transactional_id.to_owned(),
        producer_id: transaction.producer_id,
        producer_epoch: transaction.producer_epoch,
        partitions,
    };
    broker.verifier.verify(claim).await
}

impl AdmissionError {
    /// The error as the coordinator gave it, in the terms of the client's version.
    fn underlying(self) -> ResponseError {
        match self {
            Self::Partition(error) => error.to_response_error(),
            Self::Refused {
                error,
                knows_abortable,
            } => match error {
                VerificationError::Network => ResponseError::NetworkException,
                VerificationError::UnknownTopicOrPartition => {
                    ResponseError::UnknownTopicOrPartition
                }
                // Producers know this one as the sign that they are fenced.
                VerificationError::Transaction(TransactionError::ProducerFenced) => {
                    ResponseError::InvalidProducerEpoch
                }
                VerificationError::Transaction(TransactionError::NotInTransaction) => {
                    if knows_abortable {
                        TRANSACTION_ABORTABLE
                    } else {
                        ResponseError::InvalidTxnState
                    }
                }
                VerificationError::Transaction(error) => error.to_response_error(),
            },
        }
    }

    /// The error of a produce request, and the text beside it: what can be tried again becomes
    /// `NOT_ENOUGH_REPLICAS`, which old clients try again without looking for other leaders.
    pub(super) fn for_produce(self) -> (ResponseError, Option<String>) {
        let Self::Refused { .. } = self else {
            return (self.underlying(), None);
        };
        match self.underlying() {
            error @ ResponseError::InvalidTxnState => (error, Some(NOT_ADDED.to_owned())),
            error @ (ResponseError::ConcurrentTransactions
            | ResponseError::NetworkException
            | ResponseError::CoordinatorLoadInProgress
            | ResponseError::CoordinatorNotAvailable
            | ResponseError::NotCoordinator) => {
                let message = format!(
                    "Unable to verify the partition has been added to the transaction. Underlying error: {}",
                    name_of(error.code())
                );
                (ResponseError::NotEnoughReplicas, Some(message))
            }
            error => (error, None),
        }
    }

    /// The error of a transactional offset commit (`GroupMetadataManager.maybeConvertOffsetCommitError`).
    pub(super) fn for_offsets(self) -> ResponseError {
        match self.underlying() {
            ResponseError::NetworkException => ResponseError::CoordinatorLoadInProgress,
            ResponseError::UnknownTopicOrPartition
            | ResponseError::NotEnoughReplicas
            | ResponseError::NotEnoughReplicasAfterAppend => ResponseError::CoordinatorNotAvailable,
            ResponseError::NotLeaderOrFollower | ResponseError::KafkaStorageError => {
                ResponseError::NotCoordinator
            }
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(error: impl Into<VerificationError>, knows_abortable: bool) -> (i16, i16) {
        let error = AdmissionError::Refused {
            error: error.into(),
            knows_abortable,
        };
        (error.for_produce().0.code(), error.for_offsets().code())
    }

    /// As `ReplicaManager.handleProduceAppend` and `GroupMetadataManager` of 3.9 have it.
    #[test]
    fn clients_are_told_what_their_version_can_act_on() {
        use TransactionError as E;
        assert_eq!(codes(E::NotInTransaction, true), (120, 120));
        assert_eq!(codes(E::NotInTransaction, false), (48, 48));
        assert_eq!(codes(E::ProducerFenced, true), (47, 47));
        assert_eq!(codes(E::InvalidProducerIdMapping, false), (49, 49));
        assert_eq!(codes(E::ConcurrentTransactions, true), (19, 51));
        assert_eq!(codes(E::CoordinatorLoadInProgress, true), (19, 14));
        assert_eq!(codes(E::CoordinatorNotAvailable, true), (19, 15));
        assert_eq!(codes(E::NotCoordinator, true), (19, 16));
        assert_eq!(codes(VerificationError::Network, true), (19, 14));
        assert_eq!(
            codes(VerificationError::UnknownTopicOrPartition, true),
            (3, 15)
        );
    }
}
