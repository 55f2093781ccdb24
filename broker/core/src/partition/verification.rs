//! Which producers may begin a transaction in a partition: those of whom their coordinator has said that the
//! partition belongs to their open transaction (KIP-890 part 1; Kafka's `VerificationGuard` and
//! `VerificationStateEntry`).
//!
//! Whoever leads the partition begins a verification, asks the coordinator and appends with the [`Guard`] that it was
//! given. A marker that was written meanwhile makes the guard void: the answer spoke of a transaction that is over.
//! Once a transaction is open in the partition nothing is asked.

use std::collections::BTreeMap;

use super::producers::ProducerError;
use crate::ids::LeaderEpoch;

/// How many verifications are kept before those that are too old are looked for.
const KEPT_MIN: usize = 64;

/// The right to begin a transaction, once the coordinator has agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    leader_epoch: LeaderEpoch,
    number: u64,
}

/// What a transactional batch has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing: `transaction.partition.verification.enable` is off, or the batch is believed.
    Unchecked,
    /// A guard, unless the transaction is open in the partition.
    Checked(Option<Guard>),
}

/// Who is about to begin a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginner {
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// First sequence of the batch; -1 if it has none.
    pub base_sequence: i32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    guard: Guard,
    producer_epoch: i16,
    lowest_sequence: i32,
    since_ms: i64,
}

/// The verifications of one partition.
#[derive(Debug, Default)]
pub struct Verifications {
    /// By producer id.
    entries: BTreeMap<i64, Entry>,
    last_number: u64,
    kept_max: usize,
}

impl Verifications {
    /// The guard of a producer whose coordinator is about to be asked. Those that were never used are forgotten
    /// after `expiration_ms`.
    pub fn begin(
        &mut self,
        beginner: Beginner,
        leader_epoch: LeaderEpoch,
        now_ms: i64,
        expiration_ms: i64,
    ) -> Guard {
        if self.entries.len() >= self.kept_max.max(KEPT_MIN) {
            self.entries
                .retain(|_, entry| now_ms.saturating_sub(entry.since_ms) < expiration_ms);
            self.kept_max = self.entries.len() * 2;
        }
        let Beginner {
            producer_id,
            producer_epoch,
            base_sequence,
        } = beginner;
        let last_number = &mut self.last_number;
        let mut fresh = || {
            *last_number += 1;
            Entry {
                guard: Guard {
                    leader_epoch,
                    number: *last_number,
                },
                producer_epoch,
                lowest_sequence: base_sequence,
                since_ms: now_ms,
            }
        };
        let entry = self.entries.entry(producer_id).or_insert_with(&mut fresh);
        if entry.guard.leader_epoch != leader_epoch {
            *entry = fresh();
        }
        if producer_epoch > entry.producer_epoch {
            entry.producer_epoch = producer_epoch;
            entry.lowest_sequence = base_sequence;
        } else if producer_epoch == entry.producer_epoch {
            entry.lowest_sequence = entry.lowest_sequence.min(base_sequence);
        }
        entry.guard
    }

    /// Whether a batch that would begin a transaction may be appended with `guard`.
    ///
    /// # Errors
    /// `InvalidTxnState` without the right guard; `OutOfOrderSequence` if a batch that comes before it is on its way.
    pub fn check(
        &self,
        beginner: Beginner,
        guard: Option<Guard>,
        leader_epoch: LeaderEpoch,
    ) -> Result<(), ProducerError> {
        let producer_id = beginner.producer_id;
        let entry = self.entries.get(&producer_id);
        let entry = entry
            .filter(|entry| Some(entry.guard) == guard && entry.guard.leader_epoch == leader_epoch)
            .ok_or(ProducerError::InvalidTxnState { producer_id })?;
        if beginner.base_sequence > entry.lowest_sequence && entry.lowest_sequence >= 0 {
            return Err(ProducerError::OutOfOrderSequence {
                producer_id,
                sequence: beginner.base_sequence,
                last_sequence: entry.lowest_sequence,
            });
        }
        Ok(())
    }

    /// A transactional batch or a marker of the producer is in the log: guards that were given out are void.
    pub fn written(&mut self, producer_id: i64) {
        self.entries.remove(&producer_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beginner(base_sequence: i32) -> Beginner {
        Beginner {
            producer_id: 7,
            producer_epoch: 0,
            base_sequence,
        }
    }

    fn checked(verifications: &Verifications, sequence: i32, guard: Option<Guard>) -> &'static str {
        match verifications.check(beginner(sequence), guard, 3) {
            Ok(()) => "ok",
            Err(ProducerError::InvalidTxnState { .. }) => "invalid state",
            Err(ProducerError::OutOfOrderSequence { .. }) => "out of order",
            Err(_) => "other",
        }
    }

    #[test]
    fn a_marker_makes_guards_void_that_were_given_out_before() {
        let mut verifications = Verifications::default();
        assert_eq!(checked(&verifications, 0, None), "invalid state");
        let guard = verifications.begin(beginner(0), 3, 0, 1000);
        assert_eq!(verifications.begin(beginner(0), 3, 0, 1000), guard);
        assert_eq!(checked(&verifications, 0, Some(guard)), "ok");
        assert_eq!(checked(&verifications, 0, None), "invalid state");
        verifications.written(7);
        assert_eq!(checked(&verifications, 0, Some(guard)), "invalid state");
        let next = verifications.begin(beginner(0), 3, 0, 1000);
        assert_ne!(next, guard);
        assert_eq!(checked(&verifications, 0, Some(guard)), "invalid state");
        assert_eq!(checked(&verifications, 0, Some(next)), "ok");
    }

    #[test]
    fn a_guard_is_void_under_another_leader_epoch() {
        let mut verifications = Verifications::default();
        let guard = verifications.begin(beginner(0), 2, 0, 1000);
        assert_eq!(checked(&verifications, 0, Some(guard)), "invalid state");
        let next = verifications.begin(beginner(0), 3, 0, 1000);
        assert_eq!(checked(&verifications, 0, Some(next)), "ok");
    }

    /// The second of two batches in flight must not get in first because the verification of the first failed.
    #[test]
    fn a_later_batch_waits_for_an_earlier_one_of_which_is_known() {
        let mut verifications = Verifications::default();
        let guard = verifications.begin(beginner(0), 3, 0, 1000);
        assert_eq!(verifications.begin(beginner(5), 3, 0, 1000), guard);
        assert_eq!(checked(&verifications, 5, Some(guard)), "out of order");
        assert_eq!(checked(&verifications, 0, Some(guard)), "ok");
        let newer = Beginner {
            producer_epoch: 1,
            ..beginner(5)
        };
        let guard = verifications.begin(newer, 3, 0, 1000);
        assert_eq!(checked(&verifications, 5, Some(guard)), "ok");
    }

    #[test]
    fn verifications_that_nobody_used_are_forgotten() {
        let mut verifications = Verifications::default();
        for producer_id in 0..1000 {
            let beginner = Beginner {
                producer_id,
                ..beginner(0)
            };
            verifications.begin(beginner, 3, producer_id * 100, 1000);
        }
        assert!(verifications.entries.len() <= KEPT_MIN + 1);
    }
}
