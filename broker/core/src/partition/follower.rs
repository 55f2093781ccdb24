//! The rules of a follower for one partition: where it fetches next, and what it does with each answer
//! of its leader (KIP-101, KIP-279, KIP-595; Kafka's `AbstractFetcherThread` and `ReplicaFetcherThread`).

use std::time::Duration;

use super::LogBounds;
use crate::ids::{LeaderEpoch, Offset, TopicId};
use crate::time::Now;

/// What a follower is doing with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its log may hold records that the leader does not have: it is cut before anything is fetched.
    Truncating,
    /// It fetches; the leader tells it if the logs part.
    Fetching,
}

/// What the follower's own log says when it begins to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerLog {
    pub bounds: LogBounds,
    pub high_watermark: Offset,
    /// The latest epoch in the log's epoch cache.
    pub latest_epoch: Option<LeaderEpoch>,
}

/// From where a follower fetches a partition next, and whether it may.
///
/// Kafka: `PartitionFetchState`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchState {
    pub topic_id: Option<TopicId>,
    /// The epoch of the leader that is followed.
    pub leader_epoch: LeaderEpoch,
    pub fetch_offset: Offset,
    /// The latest epoch of the own log: the leader compares it with its own.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    pub log_start_offset: Offset,
    pub phase: Phase,
    /// Not to be fetched before this moment (monotonic clock).
    pub delayed_until: Option<Duration>,
    /// How often in a row it was put off.
    pub delays: u32,
    /// How far the log is behind the leader's high watermark, once that is known.
    pub lag: Option<Offset>,
}

/// Who finds out where logs part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// The leader, at each fetch (Fetch v12, KIP-595).
    SeenByLeader,
    /// The follower, by `OffsetForLeaderEpoch` before it fetches.
    AskedFor,
}

impl FetchState {
    /// How a follower begins: at its log end if the leader can compare epochs, else at the high
    /// watermark, from where nobody can have other records.
    pub fn begin(
        topic_id: Option<TopicId>,
        leader_epoch: LeaderEpoch,
        log: FollowerLog,
        divergence: Divergence,
    ) -> Self {
        let phase = match (divergence, log.latest_epoch) {
            (Divergence::SeenByLeader, Some(_)) => Phase::Fetching,
            (Divergence::SeenByLeader, None) | (Divergence::AskedFor, _) => Phase::Truncating,
        };
        Self {
            topic_id,
            leader_epoch,
            fetch_offset: match log.latest_epoch {
                Some(_) => log.bounds.log_end_offset,
                None => log.high_watermark,
            },
            last_fetched_epoch: log.latest_epoch,
            log_start_offset: log.bounds.log_start_offset,
            phase,
            delayed_until: None,
            delays: 0,
            lag: None,
        }
    }

    /// Whether it may be fetched now.
    pub fn is_ready(&self, now: Now) -> bool {
        self.phase == Phase::Fetching
            && self
                .delayed_until
                .is_none_or(|until| now.monotonic >= until)
    }

    /// Whether it has everything that its leader has committed, as of the last answer.
    pub fn is_in_sync(&self) -> bool {
        self.lag.is_some_and(|lag| lag <= 0)
    }

    /// Goes on from the end of the log as it is now.
    pub fn resume(&mut self, bounds: LogBounds, latest_epoch: Option<LeaderEpoch>) {
        self.delays = 0;
        self.fetch_offset = bounds.log_end_offset;
        self.log_start_offset = bounds.log_start_offset;
        self.last_fetched_epoch = latest_epoch;
        self.phase = Phase::Fetching;
    }
}

/// Where a leader says that an epoch ends in its log; `None` for what it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The greatest epoch it knows that is at most the one asked for.
    pub epoch: Option<LeaderEpoch>,
    /// The end of that epoch (exclusive).
    pub end_offset: Option<Offset>,
}

/// Where to cut the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    pub offset: Offset,
    /// The logs agree up to there; else the leader is to be asked again with what is left.
    pub is_complete: bool,
}

/// Where to cut the log when the leader says that an epoch ends at `leader`.
///
/// `local` is where the epoch that the leader names ends in the own log: the greatest own epoch that
/// is at most that one, and its end. Kafka: `AbstractFetcherThread.getOffsetTruncationState`.
pub fn truncation(
    leader: EpochEnd,
    local: Option<(LeaderEpoch, Offset)>,
    fetch_offset: Offset,
    log_end_offset: Offset,
) -> Truncation {
    let complete = |offset| Truncation {
        offset,
        is_complete: true,
    };
    let Some(end_offset) = leader.end_offset else {
        return complete(fetch_offset);
    };
    match (leader.epoch, local) {
        (None, _) | (Some(_), None) => complete(end_offset.min(log_end_offset)),
        // The leader's epoch is unknown here: drop what is newer than the own epoch before it.
        (Some(epoch), Some((local_epoch, local_end))) if local_epoch != epoch => Truncation {
            offset: local_end.min(log_end_offset),
            is_complete: false,
        },
        (Some(_), Some((_, local_end))) => complete(local_end.min(end_offset).min(log_end_offset)),
    }
}

/// What to do when the leader does not have the offset that was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfRange {
    /// The leader's log is shorter (an unclean election): cut to its end and go on there.
    TruncateTo(Offset),
    /// The leader no longer has what would come next: drop everything and begin at its start.
    StartAt(Offset),
    /// The offsets fit again: go on at the own log end.
    GoOn,
}

/// Decides by the bounds of the leader's log. Kafka: `fetchOffsetAndTruncate`.
pub fn out_of_range(leader: LogBounds, log_end_offset: Offset) -> OutOfRange {
    if leader.log_end_offset < log_end_offset {
        OutOfRange::TruncateTo(leader.log_end_offset)
    } else if leader.log_start_offset > log_end_offset {
        OutOfRange::StartAt(leader.log_start_offset)
    } else {
        OutOfRange::GoOn
    }
}

/// Why a leader gave no records of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("the leader does not have the offset")]
    OffsetOutOfRange,
    #[error("the leader knows a newer leader epoch")]
    FencedLeaderEpoch,
    /// It will pass: the leader does not lead (yet), does not know the topic (yet), is busy.
    #[error("the leader answered with error {0}")]
    Other(i16),
}

/// What becomes of a partition that the leader gave an error for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Ask for the bounds of the leader's log, see [`out_of_range`].
    AskForBounds,
    /// No more fetches until the controller names a leader again.
    Stop,
    /// Try again after `replica.fetch.backoff.ms`.
    Delay,
}

/// Decides about an error; `asked_epoch` is the leader epoch that the request carried.
pub fn remedy(error: FetchError, asked_epoch: LeaderEpoch, known_epoch: LeaderEpoch) -> Remedy {
    match error {
        FetchError::OffsetOutOfRange => Remedy::AskForBounds,
        FetchError::FencedLeaderEpoch if asked_epoch == known_epoch => Remedy::Stop,
        FetchError::FencedLeaderEpoch | FetchError::Other(_) => Remedy::Delay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::leader_epochs::{EpochStart, LeaderEpochs};
    use proptest::prelude::*;

    fn log(start: Offset, end: Offset, epoch: Option<LeaderEpoch>) -> FollowerLog {
        FollowerLog {
            bounds: LogBounds {
                log_start_offset: start,
                log_end_offset: end,
            },
            high_watermark: 3,
            latest_epoch: epoch,
        }
    }

    fn end(epoch: LeaderEpoch, end_offset: Offset) -> EpochEnd {
        EpochEnd {
            epoch: Some(epoch),
            end_offset: Some(end_offset),
        }
    }

    #[test]
    fn a_log_with_epochs_is_fetched_from_its_end_at_once() {
        let state = FetchState::begin(None, 4, log(0, 9, Some(3)), Divergence::SeenByLeader);
        assert_eq!((state.fetch_offset, state.phase), (9, Phase::Fetching));
        let state = FetchState::begin(None, 4, log(0, 9, None), Divergence::SeenByLeader);
        assert_eq!((state.fetch_offset, state.phase), (3, Phase::Truncating));
        let state = FetchState::begin(None, 4, log(0, 9, Some(3)), Divergence::AskedFor);
        assert_eq!((state.fetch_offset, state.phase), (9, Phase::Truncating));
    }

    #[test]
    fn a_tail_of_the_same_epoch_is_cut_to_the_leaders_end() {
        assert_eq!(
            truncation(end(2, 20), Some((2, 26)), 26, 26),
            Truncation {
                offset: 20,
                is_complete: true
            }
        );
    }

    #[test]
    fn an_epoch_that_only_the_leader_has_takes_another_round() {
        assert_eq!(
            truncation(end(3, 20), Some((1, 15)), 26, 26),
            Truncation {
                offset: 15,
                is_complete: false
            }
        );
    }

    #[test]
    fn what_the_leader_does_not_know_leaves_the_fetch_offset() {
        let unknown = EpochEnd {
            epoch: None,
            end_offset: None,
        };
        assert_eq!(truncation(unknown, None, 7, 9).offset, 7);
        assert_eq!(truncation(end(3, 20), None, 26, 26).offset, 20);
    }

    #[test]
    fn bounds_of_the_leader_decide_what_is_out_of_range() {
        let leader = |start, end| LogBounds {
            log_start_offset: start,
            log_end_offset: end,
        };
        assert_eq!(out_of_range(leader(0, 5), 9), OutOfRange::TruncateTo(5));
        assert_eq!(out_of_range(leader(12, 15), 9), OutOfRange::StartAt(12));
        assert_eq!(out_of_range(leader(2, 15), 9), OutOfRange::GoOn);
    }

    #[test]
    fn a_fenced_epoch_stops_only_if_it_is_still_the_known_one() {
        assert_eq!(remedy(FetchError::FencedLeaderEpoch, 3, 3), Remedy::Stop);
        assert_eq!(remedy(FetchError::FencedLeaderEpoch, 3, 4), Remedy::Delay);
    }

    /// A log as a list of the epochs of its records.
    fn epochs(records: &[LeaderEpoch]) -> LeaderEpochs {
        LeaderEpochs::from_entries(
            records
                .iter()
                .enumerate()
                .map(|(offset, &epoch)| EpochStart {
                    epoch,
                    start_offset: offset as Offset,
                }),
        )
    }

    proptest! {
        /// Whatever two logs look like that share a beginning and never an epoch after it (no two
        /// leaders have the same epoch): fetching ends with the follower a prefix of the leader,
        /// and nothing that both have is lost for good.
        #[test]
        fn truncation_makes_the_follower_a_prefix(
            shared in 0..6_usize,
            lengths in proptest::collection::vec((0..2_usize, 1..4_usize), 0..6),
        ) {
            let mut leader: Vec<LeaderEpoch> = vec![0; shared];
            let mut follower = leader.clone();
            for (epoch, (whose, length)) in lengths.into_iter().enumerate() {
                let log = if whose == 0 { &mut leader } else { &mut follower };
                log.extend(std::iter::repeat_n(epoch as LeaderEpoch + 1, length));
            }
            // A leader notes its epoch when it takes over, whether or not it writes anything.
            let mut others = epochs(&leader);
            others.assign(100, leader.len() as Offset);
            for round in 0.. {
                prop_assert!(round < 50);
                let (own, end) = (epochs(&follower), follower.len() as Offset);
                let Some(latest) = own.latest() else {
                    break;
                };
                let (epoch, end_offset) =
                    others.end_offset_for(latest.epoch, leader.len() as Offset).unwrap();
                if epoch == latest.epoch && end_offset >= end {
                    break;
                }
                let told = EpochEnd { epoch: Some(epoch), end_offset: Some(end_offset) };
                let cut = truncation(told, own.end_offset_for(epoch, end), end, end);
                prop_assert!(cut.offset < end);
                follower.truncate(cut.offset as usize);
            }
            prop_assert!(leader.starts_with(&follower), "{:?} {:?}", leader, follower);
            prop_assert!(follower.len() >= shared.min(leader.len()));
        }
    }
}
