//! Committed offsets of one group: those in force, those whose records are not replicated yet, and those of open
//! transactions.

use std::collections::{BTreeMap, BTreeSet};

use super::records::OffsetCommit;
use crate::ids::{Offset, TopicName, TopicPartition};

/// A committed offset and where it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Offset of the record in `__consumer_offsets`: of two commits the later in the log wins.
    pub record_offset: Offset,
    pub commit: OffsetCommit,
}

/// By partition number.
type OfTopic<T> = BTreeMap<i32, T>;
type ByPartition<T> = BTreeMap<TopicName, OfTopic<T>>;

/// The offsets of one group.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    committed: ByPartition<CommittedOffset>,
    /// Where in the log the commits are that are not replicated yet.
    pending: ByPartition<Vec<Offset>>,
    /// Commits in the log whose transactions are open, by producer id.
    transactional: BTreeMap<i64, ByPartition<CommittedOffset>>,
}

impl Offsets {
    pub fn get(&self, topic: &str, partition: i32) -> Option<&OffsetCommit> {
        let committed = self.committed.get(topic)?.get(&partition)?;
        Some(&committed.commit)
    }

    /// All of them, topics and partitions in order.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicName, i32, &OffsetCommit)> {
        let topics = self.committed.iter();
        topics.flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(partition, committed)| (topic, *partition, &committed.commit))
        })
    }

    /// How many partitions have a committed offset.
    pub fn len(&self) -> usize {
        self.committed.values().map(BTreeMap::len).sum()
    }

    /// Whether there is neither a committed offset nor one that may become one.
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty() && self.transactional.is_empty()
    }

    /// Whether a commit is under way that may still change the offset (KIP-447).
    pub fn is_unstable(&self, topic: &str, partition: i32) -> bool {
        is_in(&self.pending, topic, partition)
            || self
                .transactional
                .values()
                .any(|pending| is_in(pending, topic, partition))
    }

    /// A commit is in the log, but not yet for good.
    pub fn begin(&mut self, partition: &TopicPartition, record_offset: Offset) {
        if let Some(of_topic) = self.pending.get_mut(&partition.topic) {
            let commits = of_topic.entry(partition.partition).or_default();
            commits.push(record_offset);
        } else {
            let of_topic = BTreeMap::from([(partition.partition, vec![record_offset])]);
            let topic = TopicName::clone(&partition.topic);
            self.pending.insert(topic, of_topic);
        }
    }

    /// What [`Self::begin`] announced is in the log for good, or will never be. Returns whether it counted still:
    /// a tombstone behind it makes it void.
    pub fn end(&mut self, partition: &TopicPartition, record_offset: Offset) -> bool {
        self.take_pending(&partition.topic, partition.partition, |offset| {
            offset == record_offset
        })
    }

    fn take_pending(
        &mut self,
        topic: &str,
        partition: i32,
        is_meant: impl Fn(Offset) -> bool,
    ) -> bool {
        let Some(of_topic) = self.pending.get_mut(topic) else {
            return false;
        };
        let Some(commits) = of_topic.get_mut(&partition) else {
            return false;
        };
        let before = commits.len();
        commits.retain(|offset| !is_meant(*offset));
        let were_some = commits.len() < before;
        if commits.is_empty() {
            of_topic.remove(&partition);
            if of_topic.is_empty() {
                self.pending.remove(topic);
            }
        }
        were_some
    }

    /// A commit that [`Self::begin`] announced is in the log for good. If a tombstone came behind it, it is void.
    pub fn landed(
        &mut self,
        partition: &TopicPartition,
        commit: OffsetCommit,
        record_offset: Offset,
    ) {
        if self.end(partition, record_offset) {
            self.replay(partition, Some(commit), record_offset);
        }
    }

    /// Whether a transaction of this producer may still change offsets.
    pub fn has_transaction(&self, producer_id: i64) -> bool {
        self.transactional.contains_key(&producer_id)
    }

    /// Producers whose transactions may still change offsets.
    pub fn producers(&self) -> impl Iterator<Item = i64> {
        self.transactional.keys().copied()
    }

    // --- replaying the log ---

    /// A commit is in the log, or a tombstone.
    pub fn replay(
        &mut self,
        partition: &TopicPartition,
        commit: Option<OffsetCommit>,
        record_offset: Offset,
    ) {
        match commit {
            Some(commit) => self.store(
                &partition.topic,
                partition.partition,
                CommittedOffset {
                    record_offset,
                    commit,
                },
            ),
            None => self.forget(&partition.topic, partition.partition, record_offset),
        }
    }

    /// A commit within a transaction is in the log: it counts once the transaction is committed.
    pub fn replay_transactional(
        &mut self,
        producer_id: i64,
        partition: &TopicPartition,
        commit: OffsetCommit,
        record_offset: Offset,
    ) {
        let pending = self.transactional.entry(producer_id).or_default();
        let of_topic = pending
            .entry(TopicName::clone(&partition.topic))
            .or_default();
        let committed = CommittedOffset {
            record_offset,
            commit,
        };
        match of_topic.get_mut(&partition.partition) {
            Some(known) if known.record_offset > record_offset => {}
            Some(known) => *known = committed,
            None => {
                of_topic.insert(partition.partition, committed);
            }
        }
    }

    /// The transaction of a producer ended: its marker is at `marker_offset`. What stands behind that belongs to the
    /// next transaction.
    pub fn replay_marker(&mut self, producer_id: i64, is_committed: bool, marker_offset: Offset) {
        let Some(pending) = self.transactional.remove(&producer_id) else {
            return;
        };
        for (topic, partitions) in pending {
            for (partition, committed) in partitions {
                if committed.record_offset > marker_offset {
                    let of = TopicPartition::new(TopicName::clone(&topic), partition);
                    let CommittedOffset {
                        record_offset,
                        commit,
                    } = committed;
                    self.replay_transactional(producer_id, &of, commit, record_offset);
                } else if is_committed {
                    self.store(&topic, partition, committed);
                }
            }
        }
    }

    fn store(&mut self, topic: &TopicName, partition: i32, committed: CommittedOffset) {
        if let Some(of_topic) = self.committed.get_mut(topic) {
            match of_topic.get_mut(&partition) {
                Some(known) if known.record_offset > committed.record_offset => {}
                Some(known) => *known = committed,
                None => {
                    of_topic.insert(partition, committed);
                }
            }
        } else {
            let of_topic = BTreeMap::from([(partition, committed)]);
            self.committed.insert(TopicName::clone(topic), of_topic);
        }
    }

    /// A tombstone does not concern what an open transaction has in mind: that comes later, if it comes.
    fn forget(&mut self, topic: &str, partition: i32, record_offset: Offset) {
        remove_from(&mut self.committed, topic, partition);
        self.take_pending(topic, partition, |offset| offset < record_offset);
    }

    /// Forgets what open transactions have in mind for `partitions`: somebody wants their offsets to be gone.
    pub fn forget_transactional(&mut self, partitions: &[TopicPartition]) {
        for pending in self.transactional.values_mut() {
            for TopicPartition { topic, partition } in partitions {
                remove_from(pending, topic, *partition);
            }
        }
        self.transactional.retain(|_, pending| !pending.is_empty());
    }

    // --- what may be forgotten ---

    /// All partitions that have an offset.
    pub fn all(&self) -> Vec<TopicPartition> {
        self.iter()
            .map(|(topic, partition, _)| TopicPartition::new(TopicName::clone(topic), partition))
            .collect()
    }

    /// Those of `partitions` that have an offset or may get one.
    pub fn known_of(&self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        let known = partitions.iter().filter(|of| {
            is_in(&self.committed, &of.topic, of.partition)
                || self.is_unstable(&of.topic, of.partition)
        });
        known.cloned().collect()
    }

    /// Whether no transaction may still change an offset.
    pub(super) fn are_settled(&self) -> bool {
        self.transactional.is_empty()
    }

    /// Whether nothing is left without `partitions`.
    pub(super) fn are_only(&self, partitions: &[TopicPartition]) -> bool {
        let given: BTreeSet<(&str, i32)> = partitions
            .iter()
            .map(|TopicPartition { topic, partition }| (&**topic, *partition))
            .collect();
        has_only(&self.committed, &given)
            && has_only(&self.pending, &given)
            && self
                .transactional
                .values()
                .all(|pending| has_only(pending, &given))
    }

    /// Offsets that have outlived their time. Without an expiry of its own an offset lives for `retention_ms` from
    /// `since` (or its commit); topics in `kept` are in use.
    pub fn expired(
        &self,
        now_ms: i64,
        retention_ms: i64,
        since: Option<i64>,
        kept: &BTreeSet<TopicName>,
    ) -> Vec<TopicPartition> {
        let expired = self.iter().filter(|(topic, partition, commit)| {
            !kept.contains(*topic)
                && !is_in(&self.pending, topic, *partition)
                && match commit.expire_timestamp {
                    Some(expire_timestamp) => now_ms >= expire_timestamp,
                    None => {
                        now_ms.saturating_sub(since.unwrap_or(commit.commit_timestamp))
                            >= retention_ms
                    }
                }
        });
        expired
            .map(|(topic, partition, _)| TopicPartition::new(TopicName::clone(topic), partition))
            .collect()
    }
}

fn has_only<T>(map: &ByPartition<T>, given: &BTreeSet<(&str, i32)>) -> bool {
    map.iter().all(|(topic, of_topic)| {
        of_topic
            .keys()
            .all(|partition| given.contains(&(&**topic, *partition)))
    })
}

fn is_in<T>(map: &ByPartition<T>, topic: &str, partition: i32) -> bool {
    map.get(topic)
        .is_some_and(|of_topic| of_topic.contains_key(&partition))
}

fn remove_from<T>(map: &mut ByPartition<T>, topic: &str, partition: i32) {
    if let Some(of_topic) = map.get_mut(topic) {
        of_topic.remove(&partition);
        if of_topic.is_empty() {
            map.remove(topic);
        }
    }
}
