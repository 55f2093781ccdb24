//! What a transactional write has to show before it is appended (KIP-890 part 1).

use std::sync::Arc;

use barnabas_core::partition::verification::{Admission, Beginner};

use super::{Broker, Context};
use crate::clock;
use crate::coordinator::verification::{Claim, VerificationError};
use crate::replica::{Partition, PartitionError};

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
    /// Whether the version of the request has [`TRANSACTION_ABORTABLE`](super::error_code::TRANSACTION_ABORTABLE).
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
