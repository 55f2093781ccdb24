//! One fetch session (KIP-227): the partitions a client fetches, remembered so that requests and
//! responses carry only what changed.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use barnabas_core::ids::{LeaderEpoch, Offset, TopicName};
use uuid::Uuid;

/// One partition of a fetch: which one, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTarget {
    /// Nil before version 13.
    pub topic_id: Uuid,
    /// `None` if no topic has the id (so far).
    pub topic: Option<TopicName>,
    pub partition: i32,
    pub fetch_offset: Offset,
    /// Log start offset of a fetching follower, else -1.
    pub log_start_offset: Offset,
    pub max_bytes: i32,
    /// -1 if the client does not say.
    pub current_leader_epoch: LeaderEpoch,
    /// -1 if the client does not say.
    pub last_fetched_epoch: LeaderEpoch,
}

/// A partition as a session tells them apart: by id if it has one, else by name.
#[derive(Clone, Debug)]
pub struct PartitionKey {
    pub topic_id: Uuid,
    pub topic: Option<TopicName>,
    pub partition: i32,
}

impl PartialEq for PartitionKey {
    fn eq(&self, other: &Self) -> bool {
        self.partition == other.partition
            && self.topic_id == other.topic_id
            && (!self.topic_id.is_nil() || self.topic == other.topic)
    }
}

impl Eq for PartitionKey {}

impl Hash for PartitionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.partition.hash(state);
        if self.topic_id.is_nil() {
            self.topic.hash(state);
        } else {
            self.topic_id.hash(state);
        }
    }
}

impl FetchTarget {
    pub fn key(&self) -> PartitionKey {
        PartitionKey {
            topic_id: self.topic_id,
            topic: self.topic.clone(),
            partition: self.partition,
        }
    }
}

/// What a response says about one partition, as far as a session compares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
    pub has_records: bool,
    pub has_error: bool,
    /// The consumer is sent to another replica.
    pub has_preferred_replica: bool,
    pub is_diverging: bool,
}

#[derive(Clone, Debug)]
struct Remembered {
    target: FetchTarget,
    /// As answered last; -1 forces the next answer.
    high_watermark: Offset,
    log_start_offset: Offset,
}

impl Remembered {
    /// Takes what is answered now; returns whether the client must be told.
    ///
    /// Kafka: `CachedPartition.maybeUpdateResponseData`.
    fn take(&mut self, answered: Answered) -> bool {
        let changed = self.high_watermark != answered.high_watermark
            || self.log_start_offset != answered.log_start_offset;
        self.high_watermark = answered.high_watermark;
        self.log_start_offset = answered.log_start_offset;
        if answered.has_error || answered.is_diverging {
            // The partition is answered again once the trouble is over.
            self.high_watermark = -1;
        }
        changed
            || answered.has_records
            || answered.has_preferred_replica
            || answered.has_error
            || answered.is_diverging
    }
}

const NONE: usize = usize::MAX;

#[derive(Clone, Debug)]
struct Slot {
    remembered: Option<Remembered>,
    previous: usize,
    next: usize,
}

/// The partitions of a session in the order in which they are read. One that returned records
/// moves to the end, so that all get their turn.
#[derive(Debug)]
pub struct FetchSession {
    pub id: i32,
    /// The epoch that the next request must carry.
    pub epoch: i32,
    pub uses_topic_ids: bool,
    places: HashMap<PartitionKey, usize>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    first: usize,
    last: usize,
}

impl FetchSession {
    pub fn new(id: i32, uses_topic_ids: bool) -> Self {
        Self {
            id,
            epoch: 1,
            uses_topic_ids,
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            first: NONE,
            last: NONE,
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Remembers a partition that was just answered for the first time.
    pub fn remember(&mut self, target: &FetchTarget, answered: Answered) {
        let mut remembered = Remembered {
            target: target.clone(),
            high_watermark: -1,
            log_start_offset: -1,
        };
        // With the same care as later: who was told that logs part has taken no notice of the rest.
        remembered.take(answered);
        self.insert(remembered);
    }

    /// Adds a partition or changes from where it is fetched.
    pub fn fetch(&mut self, target: FetchTarget) {
        let known = self
            .places
            .get(&target.key())
            .and_then(|&slot| self.slots[slot].remembered.as_mut());
        if let Some(known) = known {
            let topic = target.topic.clone().or_else(|| known.target.topic.take());
            known.target = FetchTarget { topic, ..target };
        } else {
            self.insert(Remembered {
                target,
                high_watermark: -1,
                log_start_offset: -1,
            });
        }
    }

    pub fn forget(&mut self, key: &PartitionKey) {
        if let Some(slot) = self.places.remove(key) {
            self.unlink(slot);
            self.slots[slot].remembered = None;
            self.free.push(slot);
        }
    }

    /// All partitions in reading order, each with its place for [`FetchSession::answer`].
    pub fn targets(&self) -> impl Iterator<Item = (usize, &FetchTarget)> {
        let mut slot = self.first;
        std::iter::from_fn(move || {
            let current = slot;
            let entry = self.slots.get(current)?;
            slot = entry.next;
            let target = entry.remembered.as_ref().map(|known| &known.target)?;
            Some((current, target))
        })
    }

    /// Looks up the names of topics that were unknown so far.
    pub fn resolve_names(&mut self, name_of: impl Fn(Uuid) -> Option<TopicName>) {
        for slot in &mut self.slots {
            if let Some(known) = &mut slot.remembered
                && known.target.topic.is_none()
            {
                known.target.topic = name_of(known.target.topic_id);
            }
        }
    }

    /// Takes what is answered for the partition at `place`; returns whether it belongs into the
    /// response.
    pub fn answer(&mut self, place: usize, answered: Answered) -> bool {
        let Some(known) = self
            .slots
            .get_mut(place)
            .and_then(|slot| slot.remembered.as_mut())
        else {
            return true;
        };
        let included = known.take(answered);
        if answered.has_records && self.last != place {
            self.unlink(place);
            self.link_last(place);
        }
        included
    }

    fn insert(&mut self, remembered: Remembered) {
        let key = remembered.target.key();
        let slot = Slot {
            remembered: Some(remembered),
            previous: NONE,
            next: NONE,
        };
        let place = if let Some(place) = self.free.pop() {
            self.slots[place] = slot;
            place
        } else {
            self.slots.push(slot);
            self.slots.len() - 1
        };
        self.places.insert(key, place);
        self.link_last(place);
    }

    fn link_last(&mut self, place: usize) {
        self.slots[place].previous = self.last;
        self.slots[place].next = NONE;
        if self.last == NONE {
            self.first = place;
        } else {
            self.slots[self.last].next = place;
        }
        self.last = place;
    }

    fn unlink(&mut self, place: usize) {
        let Slot { previous, next, .. } = self.slots[place];
        if previous == NONE {
            self.first = next;
        } else {
            self.slots[previous].next = next;
        }
        if next == NONE {
            self.last = previous;
        } else {
            self.slots[next].previous = previous;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn target(topic: &str, partition: i32) -> FetchTarget {
        FetchTarget {
            topic_id: Uuid::nil(),
            topic: Some(topic.into()),
            partition,
            fetch_offset: 0,
            log_start_offset: -1,
            max_bytes: 1024,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        }
    }

    pub(crate) fn answered(high_watermark: Offset, has_records: bool) -> Answered {
        Answered {
            high_watermark,
            log_start_offset: 0,
            has_records,
            has_error: false,
            has_preferred_replica: false,
            is_diverging: false,
        }
    }

    fn order(session: &FetchSession) -> Vec<i32> {
        session.targets().map(|(_, t)| t.partition).collect()
    }

    fn session(partitions: i32) -> FetchSession {
        let mut session = FetchSession::new(1, false);
        for partition in 0..partitions {
            session.remember(&target("t", partition), answered(5, false));
        }
        session
    }

    fn place(session: &FetchSession, partition: i32) -> usize {
        session
            .targets()
            .find(|(_, t)| t.partition == partition)
            .unwrap()
            .0
    }

    #[test]
    fn a_partition_with_records_moves_to_the_end() {
        let mut session = session(4);
        let place = place(&session, 1);
        assert!(session.answer(place, answered(5, true)));
        assert_eq!(order(&session), [0, 2, 3, 1]);
        assert!(session.answer(place, answered(5, true)));
        assert_eq!(order(&session), [0, 2, 3, 1]);
    }

    #[test]
    fn only_changes_are_answered() {
        let mut session = session(1);
        let place = place(&session, 0);
        assert!(!session.answer(place, answered(5, false)));
        assert!(session.answer(place, answered(6, false)));
        assert!(!session.answer(place, answered(6, false)));
        let moved_start = Answered {
            log_start_offset: 3,
            ..answered(6, false)
        };
        assert!(session.answer(place, moved_start));
        assert!(!session.answer(place, moved_start));
    }

    #[test]
    fn an_error_is_repeated_until_it_is_over_and_then_once_more() {
        let mut session = session(1);
        let place = place(&session, 0);
        let failed = Answered {
            high_watermark: -1,
            log_start_offset: -1,
            has_error: true,
            ..answered(0, false)
        };
        assert!(session.answer(place, failed));
        assert!(session.answer(place, failed));
        assert!(session.answer(place, answered(5, false)));
        assert!(!session.answer(place, answered(5, false)));
    }

    #[test]
    fn partitions_come_and_go() {
        let mut session = session(3);
        session.forget(&target("t", 1).key());
        session.forget(&target("t", 9).key());
        assert_eq!(order(&session), [0, 2]);
        session.fetch(FetchTarget {
            fetch_offset: 77,
            ..target("t", 0)
        });
        session.fetch(target("u", 8));
        assert_eq!(order(&session), [0, 2, 8]);
        assert_eq!(session.targets().next().unwrap().1.fetch_offset, 77);
        let place = place(&session, 8);
        assert!(session.answer(place, answered(0, false)));
        for key in [("t", 0), ("t", 2), ("u", 8)] {
            session.forget(&target(key.0, key.1).key());
        }
        assert!(session.is_empty());
        assert!(order(&session).is_empty());
    }

    #[test]
    fn ids_tell_topics_apart_and_names_come_later() {
        let mut session = FetchSession::new(1, true);
        let by_id = FetchTarget {
            topic_id: Uuid::from_bytes([7; 16]),
            topic: None,
            ..target("t", 0)
        };
        session.fetch(by_id.clone());
        session.resolve_names(|_| Some("t".into()));
        assert_eq!(
            session.targets().next().unwrap().1.topic.as_deref(),
            Some("t")
        );
        session.fetch(by_id);
        assert_eq!(session.len(), 1);
        assert_eq!(
            session.targets().next().unwrap().1.topic.as_deref(),
            Some("t")
        );
    }
}
