//! One fetcher of a follower: the partitions that it copies from one leader, and the incremental
//! session (KIP-227) by which it asks for them.
//!
//! A round costs what has changed since the last one, not what is followed: a request names only
//! partitions whose place differs from what the leader's session remembers. Driven by
//! `replica::fetcher` in the shell, which owns logs and connection. Kafka: `AbstractFetcherThread` with
//! `FetchSessionHandler`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::LogBounds;
use super::follower::{Divergence, FetchState, FollowerLog, Phase};
use crate::ids::{LeaderEpoch, Offset, TopicId, TopicName, TopicPartition};
use crate::time::Now;

/// The first delay of a partition that cannot be fetched; they double up to `replica.fetch.backoff.ms`.
const FIRST_DELAY: Duration = Duration::from_millis(20);

/// What a partition was last asked for with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    topic_id: Option<TopicId>,
    leader_epoch: LeaderEpoch,
    fetch_offset: Offset,
    last_fetched_epoch: Option<LeaderEpoch>,
    log_start_offset: Offset,
}

impl Asked {
    fn of(state: &FetchState) -> Self {
        Self {
            topic_id: state.topic_id,
            leader_epoch: state.leader_epoch,
            fetch_offset: state.fetch_offset,
            last_fetched_epoch: state.last_fetched_epoch,
            log_start_offset: state.log_start_offset,
        }
    }
}

#[derive(Clone, Debug)]
struct Followed {
    state: FetchState,
    /// What the leader's session remembers; `None` if it has no such partition.
    asked: Option<Asked>,
}

/// One partition of a fetch request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchItem {
    pub topic_partition: TopicPartition,
    pub topic_id: Option<TopicId>,
    pub leader_epoch: LeaderEpoch,
    pub fetch_offset: Offset,
    pub last_fetched_epoch: Option<LeaderEpoch>,
    pub log_start_offset: Offset,
}

/// A fetch request without limits and versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPlan {
    /// 0 if there is none.
    pub session_id: i32,
    /// 0 asks for a new session.
    pub session_epoch: i32,
    /// All partitions that are followed have topic ids.
    pub uses_topic_ids: bool,
    pub items: Vec<FetchItem>,
    pub forgotten: Vec<(TopicPartition, Option<TopicId>)>,
}

/// What a leader says about the session as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAnswer {
    /// The id of the session, 0 if there is none.
    Ok { session_id: i32 },
    /// There is no such session any more.
    NotFound,
    /// The session does not fit the request, or the request failed as a whole.
    Failed,
}

/// The quota of a follower (KIP-73) while it is exceeded: which partitions it holds back.
pub type HeldBack<'a> = &'a dyn Fn(&TopicPartition) -> bool;

/// The partitions that are copied from one leader over one connection.
#[derive(Debug)]
pub struct Fetcher {
    divergence: Divergence,
    partitions: BTreeMap<TopicPartition, Followed>,
    names: BTreeMap<TopicId, TopicName>,
    without_id: usize,
    truncating: BTreeSet<TopicPartition>,
    /// Whose place is not as the leader's session has it.
    changed: BTreeSet<TopicPartition>,
    /// In the leader's session but not followed (there) any more.
    forgotten: BTreeSet<(TopicPartition, Option<TopicId>)>,
    /// What waits, by the moment at which it goes on.
    delayed: BTreeSet<(Duration, TopicPartition)>,
    /// Held back by the quota when the last request was made.
    held_back: BTreeSet<TopicPartition>,
    in_session: usize,
    session_id: i32,
    session_epoch: i32,
    session_uses_ids: bool,
    wants_new_session: bool,
}

impl Fetcher {
    pub fn new(divergence: Divergence) -> Self {
        Self {
            divergence,
            partitions: BTreeMap::new(),
            names: BTreeMap::new(),
            without_id: 0,
            truncating: BTreeSet::new(),
            changed: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            delayed: BTreeSet::new(),
            held_back: BTreeSet::new(),
            in_session: 0,
            session_id: 0,
            session_epoch: 0,
            session_uses_ids: true,
            wants_new_session: false,
        }
    }

    pub fn len(&self) -> usize {
        self.partitions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    pub fn partitions(&self) -> impl Iterator<Item = (&TopicPartition, &FetchState)> {
        self.partitions
            .iter()
            .map(|(topic_partition, followed)| (topic_partition, &followed.state))
    }

    /// Begins to follow a partition, or begins anew under another leader epoch.
    pub fn follow(
        &mut self,
        topic_partition: &TopicPartition,
        topic_id: Option<TopicId>,
        leader_epoch: LeaderEpoch,
        log: FollowerLog,
    ) {
        self.unfollow(topic_partition);
        let state = FetchState::begin(topic_id, leader_epoch, log, self.divergence);
        match topic_id {
            Some(id) => {
                self.names.insert(id, topic_partition.topic.clone());
            }
            None => self.without_id += 1,
        }
        if state.phase == Phase::Truncating {
            self.truncating.insert(topic_partition.clone());
        }
        // What the leader answers to the old question does not count, but its session remembers that it
        // was told, the high watermark above all: only a new session tells it again.
        let known = (topic_partition.clone(), topic_id);
        self.wants_new_session |= self.forgotten.remove(&known);
        self.changed.insert(topic_partition.clone());
        let followed = Followed { state, asked: None };
        self.partitions.insert(topic_partition.clone(), followed);
    }

    /// Gives a partition up. Returns whether it was followed.
    pub fn unfollow(&mut self, topic_partition: &TopicPartition) -> bool {
        let Some(followed) = self.partitions.remove(topic_partition) else {
            return false;
        };
        self.truncating.remove(topic_partition);
        self.changed.remove(topic_partition);
        self.held_back.remove(topic_partition);
        if let Some(until) = followed.state.delayed_until {
            self.delayed.remove(&(until, topic_partition.clone()));
        }
        if let Some(asked) = followed.asked {
            self.in_session -= 1;
            self.forgotten
                .insert((topic_partition.clone(), asked.topic_id));
        }
        match followed.state.topic_id {
            Some(id) => {
                if !self.is_topic_followed(&topic_partition.topic) {
                    self.names.remove(&id);
                }
            }
            None => self.without_id -= 1,
        }
        true
    }

    fn is_topic_followed(&self, topic: &TopicName) -> bool {
        let first = TopicPartition {
            topic: topic.clone(),
            partition: i32::MIN,
        };
        self.partitions
            .range(first..)
            .next()
            .is_some_and(|(next, _)| next.topic == *topic)
    }

    /// The topic that has this id, if one of its partitions is followed.
    pub fn topic_name(&self, id: TopicId) -> Option<&TopicName> {
        self.names.get(&id)
    }

    pub fn state(&self, topic_partition: &TopicPartition) -> Option<&FetchState> {
        self.partitions
            .get(topic_partition)
            .map(|followed| &followed.state)
    }

    /// What has to be cut before it can be fetched.
    pub fn truncating(&self, now: Now) -> Vec<(TopicPartition, FetchState)> {
        self.truncating
            .iter()
            .filter_map(|topic_partition| {
                let state = &self.partitions.get(topic_partition)?.state;
                let is_due = state
                    .delayed_until
                    .is_none_or(|until| now.monotonic >= until);
                is_due.then(|| (topic_partition.clone(), state.clone()))
            })
            .collect()
    }

    /// What to ask the leader for; `None` if there is nothing to fetch now.
    ///
    /// `held_back` is given while the follower's quota is exceeded: what it names and is not in sync is
    /// left out.
    pub fn next_request(&mut self, now: Now, held_back: Option<HeldBack<'_>>) -> Option<FetchPlan> {
        self.end_delays(now);
        self.apply_quota(held_back);
        let uses_topic_ids = self.without_id == 0;
        if self.wants_new_session || self.session_uses_ids != uses_topic_ids {
            self.session_epoch = 0;
        }
        self.wants_new_session = false;
        self.session_uses_ids = uses_topic_ids;
        if self.session_epoch == 0 {
            return self.full_request(now);
        }
        let mut items = Vec::new();
        for topic_partition in std::mem::take(&mut self.changed) {
            let Some(followed) = self.partitions.get_mut(&topic_partition) else {
                continue;
            };
            let is_ready =
                followed.state.is_ready(now) && !self.held_back.contains(&topic_partition);
            if is_ready {
                let ask = Asked::of(&followed.state);
                if followed.asked == Some(ask) {
                    continue;
                }
                self.in_session += usize::from(followed.asked.replace(ask).is_none());
                self.forgotten
                    .remove(&(topic_partition.clone(), ask.topic_id));
                items.push(item(topic_partition, ask));
            } else if let Some(asked) = followed.asked.take() {
                self.in_session -= 1;
                self.forgotten.insert((topic_partition, asked.topic_id));
            }
        }
        let forgotten: Vec<_> = std::mem::take(&mut self.forgotten).into_iter().collect();
        if self.in_session == 0 && forgotten.is_empty() {
            return None;
        }
        Some(FetchPlan {
            session_id: self.session_id,
            session_epoch: self.session_epoch,
            uses_topic_ids,
            items,
            forgotten,
        })
    }

    fn full_request(&mut self, now: Now) -> Option<FetchPlan> {
        self.changed.clear();
        self.forgotten.clear();
        let mut items = Vec::new();
        for (topic_partition, followed) in &mut self.partitions {
            followed.asked = None;
            if followed.state.is_ready(now) && !self.held_back.contains(topic_partition) {
                let ask = Asked::of(&followed.state);
                followed.asked = Some(ask);
                items.push(item(topic_partition.clone(), ask));
            }
        }
        self.in_session = items.len();
        (!items.is_empty()).then_some(FetchPlan {
            session_id: self.session_id,
            session_epoch: 0,
            uses_topic_ids: self.session_uses_ids,
            items,
            forgotten: Vec::new(),
        })
    }

    fn end_delays(&mut self, now: Now) {
        while let Some((until, _)) = self.delayed.first()
            && *until <= now.monotonic
            && let Some((_, topic_partition)) = self.delayed.pop_first()
        {
            if let Some(followed) = self.partitions.get_mut(&topic_partition) {
                followed.state.delayed_until = None;
                self.changed.insert(topic_partition);
            }
        }
    }

    fn apply_quota(&mut self, held_back: Option<HeldBack<'_>>) {
        // Who was held back is looked at again: it goes on, or is held back again below.
        self.changed.append(&mut self.held_back);
        let Some(is_throttled) = held_back else {
            return;
        };
        for (topic_partition, followed) in &self.partitions {
            if !followed.state.is_in_sync() && is_throttled(topic_partition) {
                self.held_back.insert(topic_partition.clone());
                self.changed.insert(topic_partition.clone());
            }
        }
    }

    /// When the next delay ends; `None` if nothing is delayed.
    pub fn next_delay(&self) -> Option<Duration> {
        self.delayed.first().map(|(until, _)| *until)
    }

    /// Whether the quota held something back when the last request was made.
    pub fn is_holding_back(&self) -> bool {
        !self.held_back.is_empty()
    }

    /// Takes what the leader says about the session. Returns whether the partitions of the answer count.
    pub fn session_answered(&mut self, answer: SessionAnswer) -> bool {
        match answer {
            SessionAnswer::Ok { session_id } => {
                if session_id == 0 {
                    // The leader keeps nothing (any more): the next request names everything again.
                    self.session_id = 0;
                    self.session_epoch = 0;
                } else {
                    self.session_id = session_id;
                    self.session_epoch = match self.session_epoch {
                        i32::MAX => 1,
                        epoch => epoch + 1,
                    };
                }
                true
            }
            SessionAnswer::NotFound => {
                self.session_id = 0;
                self.session_epoch = 0;
                false
            }
            SessionAnswer::Failed => {
                self.session_epoch = 0;
                false
            }
        }
    }

    /// The state in which a partition was asked for, if that is still its state: only then its answer
    /// counts.
    pub fn asked(&self, topic_partition: &TopicPartition, now: Now) -> Option<&FetchState> {
        let followed = self.partitions.get(topic_partition)?;
        let asked = followed.asked?;
        let is_current = asked.fetch_offset == followed.state.fetch_offset
            && asked.leader_epoch == followed.state.leader_epoch;
        (is_current && followed.state.is_ready(now)).then_some(&followed.state)
    }

    /// Goes on from the end of the log as it is now, if the partition is still followed under
    /// `leader_epoch`.
    pub fn resume(
        &mut self,
        topic_partition: &TopicPartition,
        leader_epoch: LeaderEpoch,
        bounds: LogBounds,
        latest_epoch: Option<LeaderEpoch>,
        lag: Option<Offset>,
    ) {
        if let Some(followed) = self.partitions.get_mut(topic_partition)
            && followed.state.leader_epoch == leader_epoch
        {
            followed.state.resume(bounds, latest_epoch);
            followed.state.lag = lag;
            self.truncating.remove(topic_partition);
            if followed.asked != Some(Asked::of(&followed.state)) {
                self.changed.insert(topic_partition.clone());
            }
        }
    }

    /// Notes where the own log begins now, which the leader wants to know (`DeleteRecords`).
    pub fn log_start_moved(&mut self, topic_partition: &TopicPartition, log_start_offset: Offset) {
        if let Some(followed) = self.partitions.get_mut(topic_partition)
            && followed.state.log_start_offset != log_start_offset
        {
            followed.state.log_start_offset = log_start_offset;
            self.changed.insert(topic_partition.clone());
        }
    }

    /// Does not fetch a partition for a while: shortly at first, twice as long each time, at most `backoff_max`. A
    /// follower often hears of a new leader before that one does, and whoever waits for the high watermark would
    /// wait for all of Kafka's `replica.fetch.backoff.ms`.
    pub fn delay(&mut self, topic_partition: &TopicPartition, backoff_max: Duration, now: Now) {
        if let Some(followed) = self.partitions.get_mut(topic_partition)
            && followed.state.delayed_until.is_none()
        {
            let doubled = FIRST_DELAY.saturating_mul(1 << followed.state.delays.min(16));
            followed.state.delays += 1;
            let until = now.deadline(doubled.min(backoff_max)).0;
            followed.state.delayed_until = Some(until);
            self.delayed.insert((until, topic_partition.clone()));
            self.changed.insert(topic_partition.clone());
        }
    }
}

fn item(topic_partition: TopicPartition, asked: Asked) -> FetchItem {
    FetchItem {
        topic_partition,
        topic_id: asked.topic_id,
        leader_epoch: asked.leader_epoch,
        fetch_offset: asked.fetch_offset,
        last_fetched_epoch: asked.last_fetched_epoch,
        log_start_offset: asked.log_start_offset,
    }
}

/// Which of `fetchers` a partition belongs to. Kafka: `AbstractFetcherManager.getFetcherId`, with Java's
/// hash of the topic's name.
pub fn fetcher_of(topic_partition: &TopicPartition, fetchers: i32) -> i32 {
    let hash = topic_partition
        .topic
        .encode_utf16()
        .fold(0_i32, |hash, unit| {
            hash.wrapping_mul(31).wrapping_add(i32::from(unit))
        });
    let sum = hash
        .wrapping_mul(31)
        .wrapping_add(topic_partition.partition);
    // Kafka's `Utils.abs`: the most negative number counts as 0.
    sum.checked_abs().unwrap_or(0) % fetchers.max(1)
}

#[cfg(test)]
mod tests;
