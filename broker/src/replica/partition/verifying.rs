//! Transactional batches are let in if they belong to a transaction that the coordinator knows (KIP-890 part 1).

use std::sync::{MutexGuard, PoisonError};

use barnabas_core::ids::LeaderEpoch;
use barnabas_core::partition::PartitionError;
use barnabas_core::partition::producers::ProducerError;
use barnabas_core::partition::verification::{Admission, Beginner, Guard, Verifications};
use barnabas_core::records::BatchHeader;
use barnabas_core::time::Now;

use super::Partition;
use crate::log::{AppendError, PartitionLog};

impl Partition {
    /// The guard to append with once the coordinator has agreed; `None` if the transaction is open here already, or
    /// the batch is a repetition, which begins nothing: one that comes late, from a connection that was given up, may
    /// not be taken for what the next transaction begins with. A guard that is never used is forgotten after
    /// `expiration_ms`.
    pub fn begin_verification(
        &self,
        beginner: Beginner,
        expiration_ms: i64,
        now: Now,
    ) -> Result<Option<Guard>, PartitionError> {
        let state = self.lock();
        state.as_leader()?;
        let log = self.log()?;
        if log.has_open_transaction(beginner.producer_id) || is_repetition(&log, beginner) {
            return Ok(None);
        }
        let mut verifications = self.verifications();
        let leader_epoch = state.leader_epoch();
        let guard = verifications.begin(beginner, leader_epoch, now.wall_clock_ms, expiration_ms);
        Ok(Some(guard))
    }

    /// To be asked, under the state's lock, of a batch that is about to be appended.
    pub(super) fn check_admission(
        &self,
        header: &BatchHeader,
        admission: Admission,
        log: &PartitionLog,
        leader_epoch: LeaderEpoch,
    ) -> Result<(), AppendError> {
        let Admission::Checked(guard) = admission else {
            return Ok(());
        };
        if !header.is_transactional()
            || header.is_control()
            || log.has_open_transaction(header.producer_id)
        {
            return Ok(());
        }
        let beginner = Beginner {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        };
        if is_repetition(log, beginner) {
            return Ok(());
        }
        let checked = self.verifications().check(beginner, guard, leader_epoch);
        checked.map_err(|error: ProducerError| AppendError::Producer(error))
    }

    /// To be told, under the state's lock, of a batch that is in the log.
    pub(super) fn admitted(&self, header: &BatchHeader) {
        if header.is_transactional() {
            self.verifications().written(header.producer_id);
        }
    }

    fn verifications(&self) -> MutexGuard<'_, Verifications> {
        self.verifications
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the log has a batch that begins with the same sequence. It takes no other.
fn is_repetition(log: &PartitionLog, batch: Beginner) -> bool {
    let Beginner {
        producer_id,
        producer_epoch,
        base_sequence,
    } = batch;
    log.has_batch(producer_id, producer_epoch, base_sequence)
}
