//! All fetch sessions of a broker (KIP-227): a limited number of slots, and who gets one when they
//! are all taken.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use barnabas_core::ids::TopicName;
use rand::Rng as _;
use uuid::Uuid;

use super::fetch_session::{Answered, FetchSession, FetchTarget, PartitionKey};

/// Slots are divided over this many independent parts. Kafka: `FetchSessionCache.NumCacheShards`.
const SHARDS: usize = 8;
/// A session that was not used for this long gives its slot to anybody. Kafka:
/// `KafkaServer.MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`.
const EVICTION_MS: u64 = 120_000;
/// Session epoch of a request that fetches everything and begins a session.
const INITIAL_EPOCH: i32 = 0;
/// Session epoch of a request that fetches everything and ends its session.
const FINAL_EPOCH: i32 = -1;

/// Why a request cannot use the session that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchSessionError {
    #[error("there is no such fetch session")]
    IdNotFound,
    #[error("the fetch session expects another epoch")]
    InvalidEpoch,
    #[error("the fetch session names topics in another way")]
    TopicIdMismatch,
}

/// What a fetch request says about its session and partitions.
#[derive(Debug)]
pub struct SessionRequest {
    /// 0 before version 7.
    pub session_id: i32,
    /// -1 before version 7.
    pub session_epoch: i32,
    /// From version 13 on.
    pub uses_topic_ids: bool,
    /// Sessions of followers come first when slots are scarce.
    pub is_follower: bool,
    pub partitions: Vec<FetchTarget>,
    pub forgotten: Vec<PartitionKey>,
}

/// One partition to read, and its place in the session if there is one.
#[derive(Clone, Debug)]
pub struct PlacedTarget {
    pub target: FetchTarget,
    place: usize,
}

/// How a fetch is answered as far as its session is concerned.
#[derive(Debug)]
pub enum FetchContext {
    /// Every partition is answered, nothing is remembered.
    Sessionless,
    /// Every partition is answered and, if a slot is free, remembered.
    Full {
        uses_topic_ids: bool,
        is_follower: bool,
    },
    /// What changed is answered.
    Incremental {
        session: Arc<Mutex<FetchSession>>,
        id: i32,
        /// The session's epoch after this request: another one means that it was sent twice.
        next_epoch: i32,
    },
}

/// The session part of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionReply {
    pub session_id: i32,
    pub error: Option<FetchSessionError>,
    /// Which of the answers the response contains; `None` is all.
    pub included: Option<Vec<bool>>,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchSessionCounts {
    pub sessions: usize,
    pub partitions: usize,
    /// Since the start.
    pub evictions: u64,
}

/// Order of eviction: consumers before followers, small before large.
type Worth = (bool, usize, i32);

#[derive(Debug)]
struct Cached {
    session: Arc<Mutex<FetchSession>>,
    is_privileged: bool,
    created_ms: u64,
    last_used_ms: u64,
    size: usize,
}

impl Cached {
    fn worth(&self, id: i32) -> Worth {
        (self.is_privileged, self.size, id)
    }
}

#[derive(Debug)]
struct Shard {
    slots: usize,
    /// Ids of this shard: from here, [`ids_per_shard`] many.
    first_id: i32,
    sessions: HashMap<i32, Cached>,
    by_last_use: BTreeSet<(u64, i32)>,
    evictable_by_all: BTreeSet<Worth>,
    evictable_by_privileged: BTreeSet<Worth>,
    evictions: u64,
}

fn ids_per_shard() -> i32 {
    i32::MAX / SHARDS as i32
}

fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        FINAL_EPOCH => FINAL_EPOCH,
        i32::MAX => 1,
        epoch => epoch + 1,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn remove(&mut self, id: i32) -> Option<Cached> {
        let cached = self.sessions.remove(&id)?;
        self.by_last_use.remove(&(cached.last_used_ms, id));
        let worth = cached.worth(id);
        self.evictable_by_all.remove(&worth);
        self.evictable_by_privileged.remove(&worth);
        Some(cached)
    }

    /// Notes that a session was used and how large it is now.
    fn touch(&mut self, id: i32, size: usize, now_ms: u64) {
        let Some(mut cached) = self.remove(id) else {
            return;
        };
        cached.size = size;
        cached.last_used_ms = now_ms;
        self.insert(id, cached, now_ms);
    }

    fn insert(&mut self, id: i32, cached: Cached, now_ms: u64) {
        let worth = cached.worth(id);
        let is_old = now_ms.saturating_sub(cached.created_ms) > EVICTION_MS;
        if is_old || !cached.is_privileged {
            self.evictable_by_privileged.insert(worth);
        }
        if is_old {
            self.evictable_by_all.insert(worth);
        }
        self.by_last_use.insert((cached.last_used_ms, id));
        self.sessions.insert(id, cached);
    }

    /// Makes room for a session of `size` partitions, if another is worth less.
    fn try_evict(&mut self, is_privileged: bool, size: usize, now_ms: u64) -> bool {
        let Some(&(last_used_ms, least_used)) = self.by_last_use.first() else {
            return false;
        };
        let victim = if now_ms.saturating_sub(last_used_ms) > EVICTION_MS {
            least_used
        } else {
            let candidates = if is_privileged {
                &self.evictable_by_privileged
            } else {
                &self.evictable_by_all
            };
            match candidates.first() {
                Some(worth) if (is_privileged, size, 0) >= *worth => worth.2,
                Some(_) | None => return false,
            }
        };
        self.remove(victim);
        self.evictions += 1;
        true
    }

    fn unused_id(&self) -> i32 {
        loop {
            let id = crate::host::random()
                .random_range(self.first_id.max(1)..self.first_id + ids_per_shard());
            if !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }
}

/// The fetch sessions of this broker.
#[derive(Debug)]
pub struct FetchSessions {
    shards: Vec<Mutex<Shard>>,
    next_shard: AtomicUsize,
}

impl FetchSessions {
    /// `slots` is `max.incremental.fetch.session.cache.slots`.
    pub fn new(slots: usize) -> Self {
        let shard = |number: usize| Shard {
            slots: slots / SHARDS,
            first_id: number as i32 * ids_per_shard(),
            sessions: HashMap::new(),
            by_last_use: BTreeSet::new(),
            evictable_by_all: BTreeSet::new(),
            evictable_by_privileged: BTreeSet::new(),
            evictions: 0,
        };
        Self {
            shards: (0..SHARDS)
                .map(|number| Mutex::new(shard(number)))
                .collect(),
            next_shard: AtomicUsize::new(0),
        }
    }

    fn shard_of(&self, id: i32) -> &Mutex<Shard> {
        let number = usize::try_from(id / ids_per_shard()).unwrap_or(0);
        &self.shards[number.min(SHARDS - 1)]
    }

    /// Finds or ends the session that a request names, and the partitions that it fetches.
    ///
    /// `name_of` is asked for the name of topics that were unknown so far. Kafka:
    /// `FetchManager.newContext`.
    pub fn begin(
        &self,
        request: SessionRequest,
        name_of: impl Fn(Uuid) -> Option<TopicName>,
        now_ms: u64,
    ) -> Result<(FetchContext, Vec<PlacedTarget>), FetchSessionError> {
        if matches!(request.session_epoch, INITIAL_EPOCH | FINAL_EPOCH) {
            if request.session_id != 0 {
                lock(self.shard_of(request.session_id)).remove(request.session_id);
            }
            let context = if request.session_epoch == FINAL_EPOCH {
                FetchContext::Sessionless
            } else {
                FetchContext::Full {
                    uses_topic_ids: request.uses_topic_ids,
                    is_follower: request.is_follower,
                }
            };
            return Ok((context, unplaced(request.partitions)));
        }
        let mut shard = lock(self.shard_of(request.session_id));
        let cached = shard
            .sessions
            .get(&request.session_id)
            .ok_or(FetchSessionError::IdNotFound)?;
        let shared = Arc::clone(&cached.session);
        let mut session = lock(&shared);
        if session.epoch != request.session_epoch {
            return Err(FetchSessionError::InvalidEpoch);
        }
        if session.uses_topic_ids != request.uses_topic_ids {
            return Err(FetchSessionError::TopicIdMismatch);
        }
        for target in &request.partitions {
            session.fetch(target.clone());
        }
        for key in &request.forgotten {
            session.forget(key);
        }
        if session.is_empty() {
            shard.remove(request.session_id);
            return Ok((FetchContext::Sessionless, unplaced(request.partitions)));
        }
        shard.touch(request.session_id, session.len(), now_ms);
        drop(shard);
        session.epoch = next_epoch(session.epoch);
        if session.uses_topic_ids {
            session.resolve_names(name_of);
        }
        let targets = session
            .targets()
            .map(|(place, target)| PlacedTarget {
                target: target.clone(),
                place,
            })
            .collect();
        let context = FetchContext::Incremental {
            id: session.id,
            next_epoch: session.epoch,
            session: Arc::clone(&shared),
        };
        Ok((context, targets))
    }

    /// The session part of an answer without partitions to a client that is throttled: nothing is remembered, and
    /// the client asks again for what it asked for.
    pub fn throttled(&self, context: FetchContext) -> SessionReply {
        let (session_id, error) = match context {
            FetchContext::Sessionless | FetchContext::Full { .. } => (0, None),
            FetchContext::Incremental {
                session,
                id,
                next_epoch,
            } => {
                let is_current = lock(&session).epoch == next_epoch;
                (id, (!is_current).then_some(FetchSessionError::InvalidEpoch))
            }
        };
        SessionReply {
            session_id,
            error,
            included: None,
        }
    }

    /// Remembers what is answered, and says which part of it is news to the client. `answers` are
    /// in the order of the response.
    pub fn finish<'a>(
        &self,
        context: FetchContext,
        answers: impl ExactSizeIterator<Item = (&'a PlacedTarget, Answered)>,
        now_ms: u64,
    ) -> SessionReply {
        match context {
            FetchContext::Sessionless => SessionReply {
                session_id: 0,
                error: None,
                included: None,
            },
            FetchContext::Full {
                uses_topic_ids,
                is_follower,
            } => SessionReply {
                session_id: self.create(uses_topic_ids, is_follower, answers, now_ms),
                error: None,
                included: None,
            },
            FetchContext::Incremental {
                session,
                id,
                next_epoch,
            } => {
                let mut session = lock(&session);
                if session.epoch != next_epoch {
                    return SessionReply {
                        session_id: id,
                        error: Some(FetchSessionError::InvalidEpoch),
                        included: Some(vec![false; answers.len()]),
                    };
                }
                let included = answers
                    .map(|(target, answered)| session.answer(target.place, answered))
                    .collect();
                SessionReply {
                    session_id: id,
                    error: None,
                    included: Some(included),
                }
            }
        }
    }

    /// Returns the id of the new session, or 0 if no slot could be had.
    fn create<'a>(
        &self,
        uses_topic_ids: bool,
        is_privileged: bool,
        answers: impl ExactSizeIterator<Item = (&'a PlacedTarget, Answered)>,
        now_ms: u64,
    ) -> i32 {
        let turn = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let mut shard = lock(&self.shards[turn % SHARDS]);
        let has_room = shard.sessions.len() < shard.slots
            || shard.try_evict(is_privileged, answers.len(), now_ms);
        if !has_room {
            return 0;
        }
        let id = shard.unused_id();
        let mut session = FetchSession::new(id, uses_topic_ids);
        for (target, answered) in answers {
            session.remember(&target.target, answered);
        }
        let cached = Cached {
            size: session.len(),
            session: Arc::new(Mutex::new(session)),
            is_privileged,
            created_ms: now_ms,
            last_used_ms: now_ms,
        };
        shard.insert(id, cached, now_ms);
        id
    }

    /// Numbers for metrics.
    pub fn counts(&self) -> FetchSessionCounts {
        self.shards.iter().map(|shard| lock(shard)).fold(
            FetchSessionCounts::default(),
            |counts, shard| FetchSessionCounts {
                sessions: counts.sessions + shard.sessions.len(),
                partitions: counts.partitions
                    + shard
                        .sessions
                        .values()
                        .map(|cached| cached.size)
                        .sum::<usize>(),
                evictions: counts.evictions + shard.evictions,
            },
        )
    }
}

fn unplaced(partitions: Vec<FetchTarget>) -> Vec<PlacedTarget> {
    partitions
        .into_iter()
        .map(|target| PlacedTarget {
            target,
            place: usize::MAX,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fetch_session::tests::{answered, target};
    use super::*;

    fn request(session_id: i32, session_epoch: i32, partitions: &[i32]) -> SessionRequest {
        SessionRequest {
            session_id,
            session_epoch,
            uses_topic_ids: false,
            is_follower: false,
            partitions: partitions.iter().map(|&p| target("t", p)).collect(),
            forgotten: Vec::new(),
        }
    }

    fn fetch(
        sessions: &FetchSessions,
        request: SessionRequest,
        now_ms: u64,
    ) -> Result<(SessionReply, Vec<i32>), FetchSessionError> {
        let (context, targets) = sessions.begin(request, |_| None, now_ms)?;
        let partitions = targets.iter().map(|t| t.target.partition).collect();
        let answers = targets.iter().map(|t| (t, answered(5, false)));
        Ok((sessions.finish(context, answers, now_ms), partitions))
    }

    /// Opens a session of `size` partitions and returns its id.
    fn open(sessions: &FetchSessions, size: i32, is_follower: bool, now_ms: u64) -> i32 {
        let partitions: Vec<i32> = (0..size).collect();
        let request = SessionRequest {
            is_follower,
            ..request(0, 0, &partitions)
        };
        fetch(sessions, request, now_ms).unwrap().0.session_id
    }

    #[test]
    fn a_session_lives_from_full_fetch_to_its_last_partition() {
        let sessions = FetchSessions::new(1000);
        let id = open(&sessions, 2, false, 0);
        assert!(id > 0);
        let (reply, partitions) = fetch(&sessions, request(id, 1, &[]), 1).unwrap();
        assert_eq!(partitions, [0, 1]);
        assert_eq!(reply.session_id, id);
        assert_eq!(reply.included, Some(vec![false, false]));
        let (reply, partitions) = fetch(&sessions, request(id, 2, &[7]), 1).unwrap();
        assert_eq!(partitions, [0, 1, 7]);
        assert_eq!(reply.included, Some(vec![false, false, true]));
        assert_eq!(sessions.counts().partitions, 3);

        let last = SessionRequest {
            forgotten: [0, 1, 7].iter().map(|&p| target("t", p).key()).collect(),
            ..request(id, 3, &[])
        };
        let (reply, partitions) = fetch(&sessions, last, 1).unwrap();
        assert_eq!((reply.session_id, partitions), (0, vec![]));
        assert_eq!(
            fetch(&sessions, request(id, 4, &[]), 1),
            Err(FetchSessionError::IdNotFound)
        );
    }

    #[test]
    fn a_wrong_epoch_does_not_harm_the_session() {
        let sessions = FetchSessions::new(1000);
        let id = open(&sessions, 1, false, 0);
        for epoch in [2, 7, -5] {
            assert_eq!(
                fetch(&sessions, request(id, epoch, &[]), 1),
                Err(FetchSessionError::InvalidEpoch)
            );
        }
        assert!(fetch(&sessions, request(id, 1, &[]), 1).is_ok());
        let by_id = SessionRequest {
            uses_topic_ids: true,
            ..request(id, 2, &[])
        };
        assert_eq!(
            fetch(&sessions, by_id, 1),
            Err(FetchSessionError::TopicIdMismatch)
        );
        // A final fetch ends it.
        assert_eq!(
            fetch(&sessions, request(id, -1, &[1]), 1)
                .unwrap()
                .0
                .session_id,
            0
        );
        assert_eq!(sessions.counts().sessions, 0);
    }

    #[test]
    fn an_answer_to_a_repeated_request_is_refused() {
        let sessions = FetchSessions::new(1000);
        let id = open(&sessions, 1, false, 0);
        let (context, targets) = sessions.begin(request(id, 1, &[]), |_| None, 1).unwrap();
        fetch(&sessions, request(id, 2, &[]), 1).unwrap();
        let answers = targets.iter().map(|t| (t, answered(9, false)));
        let reply = sessions.finish(context, answers, 1);
        assert_eq!(reply.session_id, id);
        assert_eq!(reply.error, Some(FetchSessionError::InvalidEpoch));
    }

    #[test]
    fn epochs_wrap_to_one() {
        assert_eq!(next_epoch(0), 1);
        assert_eq!(next_epoch(i32::MAX), 1);
        assert_eq!(next_epoch(-1), -1);
    }

    #[test]
    fn consumers_do_not_displace_young_sessions_and_followers_do() {
        let sessions = FetchSessions::new(8);
        let consumers: Vec<i32> = (0..8).map(|_| open(&sessions, 3, false, 0)).collect();
        assert!(consumers.iter().all(|&id| id != 0));
        assert_eq!(open(&sessions, 100, false, 1), 0);
        for _ in 0..7 {
            assert_ne!(open(&sessions, 1, true, 1), 0);
        }
        assert_eq!(sessions.counts().sessions, 8);
        assert_eq!(sessions.counts().evictions, 7);
        // The eighth shard's turn: still a consumer there, which a follower displaces too.
        assert_eq!(open(&sessions, 100, false, 1), 0);
    }

    #[test]
    fn old_sessions_give_way_to_larger_ones_and_idle_ones_to_all() {
        let sessions = FetchSessions::new(8);
        let ids: Vec<i32> = (0..8).map(|_| open(&sessions, 3, false, 0)).collect();
        // Used at 100 s, so neither idle nor, at 121 s, young.
        for &id in &ids {
            fetch(&sessions, request(id, 1, &[]), 120_001).unwrap();
        }
        assert_eq!(open(&sessions, 2, false, 121_000), 0);
        assert_ne!(open(&sessions, 4, false, 121_000), 0);
        // Nobody used the rest for two minutes.
        for _ in 0..6 {
            assert_ne!(open(&sessions, 1, false, 240_002), 0);
        }
    }
}
