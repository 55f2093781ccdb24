//! Offsets that members commit.

use std::sync::Arc;

use barnabas_core::group::records::{OffsetCommit, offset_key};
use barnabas_core::group::{GroupError, MemberRef};
use barnabas_core::ids::TopicPartition;
use barnabas_core::time::Now;

use super::errors::{ForWhat, group_error};
use super::{Cell, Seat, Shard};
use crate::coordinator::appending::{Appended, Author, WriteError};
use crate::{clock, host};

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
        let metadata_max = self.config.broker().offset_metadata_max_bytes;
        let results: Vec<Result<(), GroupError>> = commits
            .iter()
            .map(|(_, commit)| {
                // Kafka counts UTF-16 units.
                let length = commit.metadata.encode_utf16().count();
                if length > usize::try_from(metadata_max).unwrap_or(0) {
                    Err(GroupError::OffsetMetadataTooLarge)
                } else {
                    Ok(())
                }
            })
            .collect();
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
        let outcome = match pending {
            Ok(None) => Ok(()),
            Ok(Some((accepted, appended))) => self.land_later(cell, accepted, appended).await,
            Err(error) => Err(error),
        };
        Ok(results.into_iter().map(|fits| fits.and(outcome)).collect())
    }

    fn append_commits(
        &self,
        seat: &mut Seat,
        commits: &[(TopicPartition, OffsetCommit)],
        now: Now,
    ) -> Result<Appended, GroupError> {
        let id = seat.group.id();
        let mut records = Vec::with_capacity(commits.len());
        for (partition, commit) in commits {
            let key = offset_key(id, &partition.topic, partition.partition);
            let record = key.and_then(|key| Ok((key, Some(commit.encode()?))));
            records.push(record.map_err(|_| GroupError::UnknownServerError)?);
        }
        let required_acks = self.config.broker().offsets_commit_required_acks;
        let appended = self
            .append(records, Author::Committer, required_acks, now)
            .map_err(|error| group_error(&error, ForWhat::Offsets))?;
        let partitions = commits.iter().map(|(partition, _)| partition);
        seat.group.offsets.begin(partitions);
        Ok(appended)
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
            offsets.end(commits.iter().map(|(partition, _)| partition));
            Err(group_error(&error, ForWhat::Offsets))
        }
    }
}
