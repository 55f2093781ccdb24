//! Offsets that members commit.

use std::sync::Arc;

use barnabas_core::fields::FieldError;
use barnabas_core::group::records::{OffsetCommit, offset_key};
use barnabas_core::group::{GroupError, MemberRef};
use barnabas_core::ids::TopicPartition;
use barnabas_core::partition::verification::Admission;
use barnabas_core::time::Now;

use super::errors::{ForWhat, group_error};
use super::{Cell, GroupMetrics, Seat, Shard};
use crate::coordinator::appending::{Appended, Author, KeyValue, WriteError};
use crate::{clock, host};

/// Who commits offsets within a transaction.
#[derive(Clone, Copy, Debug)]
pub struct TransactionalProducer {
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// What its coordinator said of the group's partition of `__consumer_offsets`.
    pub admission: Admission,
}

impl Shard {
    /// Commits offsets. One result for each.
    pub(in crate::coordinator::groups) async fn commit(
        self: &Arc<Self>,
        id: &str,
        member: MemberRef<'_>,
        commits: Vec<(TopicPartition, OffsetCommit)>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let cell = match self.cell(id)? {
            Some(cell) => cell,
            None if member.generation_id < 0 => self.cell_or_new(id)?,
            None => return Err(GroupError::IllegalGeneration),
        };
        let now = clock::now();
        let results = self.check_metadata(&commits);
        let pending = {
            let mut seat = cell.lock();
            seat.group.check_commit(member, now)?;
            self.schedule(&mut seat);
            let mut fit = results.iter();
            let mut accepted = commits;
            accepted.retain(|_| fit.next().is_some_and(Result::is_ok));
            if accepted.is_empty() {
                return Ok(results);
            }
            match self.append_commits(&mut seat, &accepted, now) {
                Err(error) => Err(error),
                Ok(appended) => match appended.settled() {
                    Some(outcome) => land(&mut seat, &accepted, &appended, outcome).map(|()| None),
                    None => Ok(Some((accepted, appended))),
                },
            }
        };
        let count = results.iter().filter(|result| result.is_ok()).count();
        let outcome = match pending {
            Ok(None) => Ok(()),
            Ok(Some((accepted, appended))) => self.land_later(cell, accepted, appended).await,
            Err(error) => Err(error),
        };
        if outcome.is_ok() {
            GroupMetrics::add(&self.metrics.offset_commits, count);
        }
        Ok(results.into_iter().map(|fits| fits.and(outcome)).collect())
    }

    fn append_commits(
        &self,
        seat: &mut Seat,
        commits: &[(TopicPartition, OffsetCommit)],
        now: Now,
    ) -> Result<Appended, GroupError> {
        let records = encode(seat, commits)?;
        let required_acks = self.config.broker().offsets_commit_required_acks;
        let appended = self
            .append(records, Author::Committer, required_acks, now)
            .map_err(|error| group_error(&error, ForWhat::Offsets))?;
        for ((partition, _), record_offset) in commits.iter().zip(appended.first_offset..) {
            seat.group.offsets.begin(partition, record_offset);
        }
        Ok(appended)
    }

    /// Commits offsets within a transaction: they count when its marker comes. One result for each.
    pub(in crate::coordinator::groups) async fn commit_transactional(
        self: &Arc<Self>,
        id: &str,
        member: MemberRef<'_>,
        producer: TransactionalProducer,
        commits: Vec<(TopicPartition, OffsetCommit)>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let cell = self.cell_or_new(id)?;
        let now = clock::now();
        let results = self.check_metadata(&commits);
        let appended = {
            let mut seat = cell.lock();
            seat.group.check_transactional_commit(member)?;
            let mut fit = results.iter();
            let mut accepted = commits;
            accepted.retain(|_| fit.next().is_some_and(Result::is_ok));
            if accepted.is_empty() {
                return Ok(results);
            }
            self.append_transactional(&mut seat, producer, accepted, now)?
        };
        let outcome = match appended.settled() {
            Some(outcome) => outcome,
            None => appended.settle(self.commit_timeout()).await,
        };
        let outcome = outcome.map_err(|error| group_error(&error, ForWhat::Offsets));
        if outcome.is_ok() {
            let count = results.iter().filter(|result| result.is_ok()).count();
            GroupMetrics::add(&self.metrics.offset_commits, count);
        }
        Ok(results.into_iter().map(|fits| fits.and(outcome)).collect())
    }

    /// Once in the log the commits are the marker's to decide on, as they are for whoever reads the log: also if the
    /// replicas do not confirm in time.
    fn append_transactional(
        &self,
        seat: &mut Seat,
        producer: TransactionalProducer,
        commits: Vec<(TopicPartition, OffsetCommit)>,
        now: Now,
    ) -> Result<Appended, GroupError> {
        let records = encode(seat, &commits)?;
        let TransactionalProducer {
            producer_id,
            producer_epoch,
            admission,
        } = producer;
        let author = Author::Transaction {
            producer_id,
            epoch: producer_epoch,
            admission,
        };
        let required_acks = self.config.broker().offsets_commit_required_acks;
        self.note_open(producer_id, seat.group.id());
        let appended = self
            .append(records, author, required_acks, now)
            .map_err(|error| group_error(&error, ForWhat::Offsets))?;
        for ((partition, commit), record_offset) in commits.into_iter().zip(appended.first_offset..)
        {
            let offsets = &mut seat.group.offsets;
            offsets.replay_transactional(producer_id, &partition, commit, record_offset);
        }
        // Also if the end of the producer's last transaction has just taken the note away.
        self.note_open(producer_id, seat.group.id());
        Ok(appended)
    }

    fn check_metadata(
        &self,
        commits: &[(TopicPartition, OffsetCommit)],
    ) -> Vec<Result<(), GroupError>> {
        let metadata_max = self.config.broker().offset_metadata_max_bytes;
        let metadata_max = usize::try_from(metadata_max).unwrap_or(0);
        let commits = commits.iter();
        commits
            .map(|(_, commit)| {
                // Kafka counts UTF-16 units.
                if commit.metadata.encode_utf16().count() > metadata_max {
                    Err(GroupError::OffsetMetadataTooLarge)
                } else {
                    Ok(())
                }
            })
            .collect()
    }

    /// Sees a commit through even if who asked for it hangs up.
    async fn land_later(
        self: &Arc<Self>,
        cell: Arc<Cell>,
        commits: Vec<(TopicPartition, OffsetCommit)>,
        appended: Appended,
    ) -> Result<(), GroupError> {
        let timeout = self.commit_timeout();
        let landing = host::spawn(async move {
            let outcome = appended.settle(timeout).await;
            land(&mut cell.lock(), &commits, &appended, outcome)
        });
        landing.await.unwrap_or(Err(GroupError::NotCoordinator))
    }
}

fn encode(
    seat: &Seat,
    commits: &[(TopicPartition, OffsetCommit)],
) -> Result<Vec<KeyValue>, GroupError> {
    let id = seat.group.id();
    let commits = commits.iter();
    let records = commits.map(|(partition, commit)| {
        let key = offset_key(id, &partition.topic, partition.partition)?;
        Ok((key, Some(commit.encode()?)))
    });
    records
        .collect::<Result<_, FieldError>>()
        .map_err(|_| GroupError::UnknownServerError)
}

/// Commits are in the log for good, or not.
fn land(
    seat: &mut Seat,
    commits: &[(TopicPartition, OffsetCommit)],
    appended: &Appended,
    outcome: Result<(), WriteError>,
) -> Result<(), GroupError> {
    let offsets = &mut seat.group.offsets;
    match outcome {
        Ok(()) => {
            for ((partition, commit), record_offset) in commits.iter().zip(appended.first_offset..)
            {
                offsets.landed(partition, commit.clone(), record_offset);
            }
            Ok(())
        }
        Err(error) => {
            for ((partition, _), record_offset) in commits.iter().zip(appended.first_offset..) {
                offsets.end(partition, record_offset);
            }
            Err(group_error(&error, ForWhat::Offsets))
        }
    }
}
