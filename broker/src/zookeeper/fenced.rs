//! Writes of the controller, which fail once another broker is controller.

use std::sync::Arc;

use barnabas_core::znodes::ControllerEpochZnode;

use super::coordination::{Coordination, CoordinationError, Operation, Outcome};

/// Somebody else is controller now: the write did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FencedWriteError {
    /// `/controller_epoch` has another version than the one this controller was elected with.
    #[error("another broker has become controller")]
    ControllerMoved,
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
}

/// Batches up to this size are sent as Kafka does, one transaction an operation, so that an ordinary topic leaves the
/// very transactions that Kafka's would. Larger ones share transactions: 3,000 operations take 65 ms on loopback.
const SINGLE_TRANSACTIONS: usize = 64;
/// How many operations one transaction has at most when there are many.
const OPERATIONS_A_TRANSACTION: usize = 100;
/// How much data one transaction has at most when there are many; well below the 1 MiB that servers take.
const BYTES_A_TRANSACTION: usize = 256 * 1024;

/// Writes as controller: every operation in a transaction with a check of `/controller_epoch`, all pipelined.
///
/// `epoch_version` is the data version of `/controller_epoch` that the election gave. The inner results are as if
/// each had been sent alone. Large batches share transactions, and those that fail are sent again one by one.
pub async fn write_as_controller(
    coordination: &Arc<dyn Coordination>,
    epoch_version: i32,
    operations: Vec<Operation>,
) -> Result<Vec<Result<Outcome, CoordinationError>>, FencedWriteError> {
    let transaction = |group: &[Operation]| {
        let check = Operation::check(ControllerEpochZnode::PATH, epoch_version);
        Operation::Multi(
            std::iter::once(check)
                .chain(group.iter().cloned())
                .collect(),
        )
    };
    let groups = groups(&operations);
    let batch = groups.iter().map(|group| transaction(group)).collect();
    let answers = coordination.submit(batch).await;
    let mut results = Vec::with_capacity(operations.len());
    for (group, answer) in groups.into_iter().zip(answers) {
        let answer = unfenced(answer)?;
        if group.len() == 1 || answer.iter().all(Result::is_ok) {
            results.extend(answer);
            continue;
        }
        let singly = group.chunks(1).map(transaction).collect();
        for answer in coordination.submit(singly).await {
            results.extend(unfenced(answer)?);
        }
    }
    if results.len() != operations.len() {
        return Err(CoordinationError::UnexpectedAnswer.into());
    }
    Ok(results)
}

/// Which operations go together.
fn groups(operations: &[Operation]) -> Vec<&[Operation]> {
    if operations.len() <= SINGLE_TRANSACTIONS {
        return operations.chunks(1).collect();
    }
    let mut groups = Vec::new();
    let mut rest = operations;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest
            .iter()
            .take(OPERATIONS_A_TRANSACTION)
            .take_while(|operation| {
                bytes += operation.data_bytes();
                bytes <= BYTES_A_TRANSACTION
            });
        let (group, tail) = rest.split_at(fits.count().max(1));
        groups.push(group);
        rest = tail;
    }
    groups
}

/// The results of a fenced transaction without that of the check.
fn unfenced(
    answer: Result<Outcome, CoordinationError>,
) -> Result<Vec<Result<Outcome, CoordinationError>>, FencedWriteError> {
    let Outcome::Multi(mut results) = answer? else {
        return Err(CoordinationError::UnexpectedAnswer.into());
    };
    if results.is_empty() {
        return Err(CoordinationError::UnexpectedAnswer.into());
    }
    match results.remove(0) {
        Ok(_) | Err(CoordinationError::RolledBack) => Ok(results),
        Err(CoordinationError::BadVersion) => Err(FencedWriteError::ControllerMoved),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_share_transactions_up_to_a_size() {
        let sizes = |operations: &[Operation]| {
            groups(operations)
                .iter()
                .map(|group| group.len())
                .collect::<Vec<_>>()
        };
        let small = |count: usize| vec![Operation::create("/x", None); count];
        assert_eq!(sizes(&small(0)), Vec::<usize>::new());
        assert_eq!(sizes(&small(SINGLE_TRANSACTIONS)), [1; SINGLE_TRANSACTIONS]);
        assert_eq!(sizes(&small(250)), [100, 100, 50]);
        let mut mixed = small(SINGLE_TRANSACTIONS + 1);
        mixed[10] = Operation::create("/large", vec![0; BYTES_A_TRANSACTION + 1]);
        assert_eq!(sizes(&mixed), [10, 1, SINGLE_TRANSACTIONS - 10]);
    }
}
