//! One fetcher: a task that copies partitions from one leader over one connection.
//!
//! What to ask for and what to do with each answer is decided by `core::partition::fetcher` and
//! `core::partition::follower`. The board with the partitions is shared with the replica manager, which
//! changes it while a request is under way: an answer counts only for what is still asked for, and reaches the
//! log only under the leader epoch for which it was fetched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_core::config::BrokerConfig;
use barnabas_core::ids::{LeaderEpoch, Offset, TopicPartition};
use barnabas_core::partition::LogBounds;
use barnabas_core::partition::fetcher::{FetchPlan, Fetcher, SessionAnswer};
use barnabas_core::partition::follower::{
    self, EpochEnd, FetchError, FetchState, OutOfRange, Remedy,
};
use barnabas_core::time::Now;
use tokio::sync::Notify;

use super::fetchers::FetcherContext;
use super::partition::Partition;
use super::partition::following::{FollowError, FollowerPlace, Following, LeaderData};
use crate::clock;
use crate::peer::PeerError;
use crate::peer::leader::{FetchLimits, FetchReply, Fetched, FetchedTopic, LeaderClient, LogEdge};

/// How long a fetcher without anything to do sleeps at most.
const IDLE: Duration = Duration::from_secs(60);
/// How often followers look whether retention has moved their log starts.
const LOG_START_CHECK: Duration = Duration::from_secs(10);

/// What a fetcher and the replica manager share.
pub(super) struct Board {
    content: Mutex<Content>,
    /// Something was added or taken away.
    changed: Notify,
}

pub(super) struct Content {
    pub(super) fetcher: Fetcher,
    pub(super) partitions: BTreeMap<TopicPartition, Arc<Partition>>,
}

impl Board {
    pub(super) fn new(fetcher: Fetcher) -> Self {
        Self {
            content: Mutex::new(Content {
                fetcher,
                partitions: BTreeMap::new(),
            }),
            changed: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn follow(&self, partition: Arc<Partition>, following: &Following) {
        let mut content = self.lock();
        content.fetcher.follow(
            &partition.topic_partition,
            following.topic_id,
            following.leader_epoch,
            following.log,
        );
        content
            .partitions
            .insert(partition.topic_partition.clone(), partition);
        drop(content);
        self.changed.notify_one();
    }

    pub(super) fn unfollow(&self, topic_partition: &TopicPartition) -> bool {
        let mut content = self.lock();
        content.partitions.remove(topic_partition);
        content.fetcher.unfollow(topic_partition)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().fetcher.is_empty()
    }
}

/// The task's own part of a fetcher.
pub(super) struct FetcherTask {
    context: Arc<FetcherContext>,
    leader: i32,
    number: i32,
    board: Arc<Board>,
    client: Option<LeaderClient>,
    /// Failed requests since the last that succeeded.
    failures: u32,
    log_starts_checked: Duration,
}

impl FetcherTask {
    pub(super) fn new(
        context: Arc<FetcherContext>,
        leader: i32,
        number: i32,
        board: Arc<Board>,
    ) -> Self {
        Self {
            context,
            leader,
            number,
            board,
            client: None,
            failures: 0,
            log_starts_checked: Duration::ZERO,
        }
    }

    /// Fetches until the task is aborted.
    pub(super) async fn run(mut self) {
        loop {
            self.truncate_all().await;
            self.note_log_starts();
            match self.plan() {
                None => self.rest().await,
                Some(plan) => match self.fetch(&plan).await {
                    Ok(reply) => self.take_reply(reply).await,
                    Err(error) => self.failed(&error).await,
                },
            }
        }
    }

    fn config(&self) -> Arc<BrokerConfig> {
        self.context.config.broker()
    }

    fn backoff(&self) -> Duration {
        millis(self.config().replica_fetch_backoff_ms)
    }

    fn plan(&self) -> Option<FetchPlan> {
        let now = clock::now();
        let mut content = self.board.lock();
        let Content {
            fetcher,
            partitions,
        } = &mut *content;
        if self.context.quota.is_exceeded(now) {
            let is_throttled = |of: &TopicPartition| {
                partitions
                    .get(of)
                    .is_some_and(|partition| partition.is_throttled_as_follower())
            };
            fetcher.next_request(now, Some(&is_throttled))
        } else {
            fetcher.next_request(now, None)
        }
    }

    /// Waits until there may be something to fetch.
    async fn rest(&mut self) {
        let now = clock::now();
        let longest = {
            let content = self.board.lock();
            let delay = content.fetcher.next_delay();
            let delay = delay.map_or(IDLE, |until| until.saturating_sub(now.monotonic));
            if content.fetcher.is_holding_back() || !content.fetcher.truncating(now).is_empty() {
                delay.min(self.backoff())
            } else {
                delay
            }
        };
        // The time being over is as good a reason to look again.
        let _ = tokio::time::timeout(longest, self.board.changed.notified()).await;
    }

    /// The connection to the leader, to where it is now; `None` if nobody knows where that is.
    fn client(&mut self) -> Option<&mut LeaderClient> {
        let client = self.client.as_ref();
        if !client.is_some_and(|client| client.peer().is_connected()) {
            let address = self.context.address_of(self.leader);
            self.client = address.map(|address| self.context.client(address, self.number));
        }
        self.client.as_mut()
    }

    async fn fetch(&mut self, plan: &FetchPlan) -> Result<FetchReply, PeerError> {
        let config = self.config();
        let limits = FetchLimits {
            max_wait_ms: config.replica_fetch_wait_max_ms,
            min_bytes: config.replica_fetch_min_bytes,
            max_bytes: config.replica_fetch_response_max_bytes,
            partition_max_bytes: config.replica_fetch_max_bytes,
        };
        match self.client() {
            Some(client) => client.fetch(plan, limits).await,
            None => Err(unreachable_leader()),
        }
    }

    async fn failed(&mut self, error: &PeerError) {
        self.failures += 1;
        if self.failures == 1 {
            tracing::warn!(leader = self.leader, fetcher = self.number, %error, "cannot fetch");
        } else {
            tracing::debug!(leader = self.leader, fetcher = self.number, %error, "cannot fetch");
        }
        self.client = None;
        self.board
            .lock()
            .fetcher
            .session_answered(SessionAnswer::Failed);
        tokio::time::sleep(self.backoff()).await;
    }

    async fn take_reply(&mut self, reply: FetchReply) {
        if !self.board.lock().fetcher.session_answered(reply.session) {
            self.failures += 1;
            tracing::info!(
                leader = self.leader,
                fetcher = self.number,
                error_code = reply.error_code,
                "the leader wants a new fetch session"
            );
            if self.failures > 1 {
                tokio::time::sleep(self.backoff()).await;
            }
            return;
        }
        if self.failures > 0 {
            tracing::info!(
                leader = self.leader,
                fetcher = self.number,
                "fetching again"
            );
            self.failures = 0;
        }
        for (topic, partition, result) in reply.partitions {
            let now = clock::now();
            if let Some((partition, state)) = self.asked(&topic, partition, now) {
                match result {
                    Ok(fetched) => self.take(&partition, &state, &fetched, now),
                    Err(error) => self.take_error(&partition, &state, error, now).await,
                }
            }
        }
    }

    /// The partition that an answer is for, if it is still fetched as it was asked for.
    fn asked(
        &self,
        topic: &FetchedTopic,
        partition: i32,
        now: Now,
    ) -> Option<(Arc<Partition>, FetchState)> {
        let content = self.board.lock();
        let topic = match topic {
            FetchedTopic::Id(id) => content.fetcher.topic_name(*id)?.clone(),
            FetchedTopic::Named(name) => name.as_str().into(),
        };
        let topic_partition = TopicPartition { topic, partition };
        let state = content.fetcher.asked(&topic_partition, now)?.clone();
        let partition = content.partitions.get(&topic_partition)?;
        Some((Arc::clone(partition), state))
    }

    fn take(&self, partition: &Partition, state: &FetchState, fetched: &Fetched, now: Now) {
        if let Some(diverging) = fetched.diverging {
            self.cut(partition, state, diverging, now);
            return;
        }
        let data = LeaderData {
            leader_epoch: state.leader_epoch,
            fetch_offset: state.fetch_offset,
            records: &fetched.records,
            high_watermark: fetched.high_watermark,
            log_start_offset: fetched.log_start_offset,
        };
        let appended = partition.append_from_leader(&data, now);
        if !fetched.records.is_empty() && partition.is_throttled_as_follower() {
            self.context.quota.record(fetched.records.len(), now);
        }
        let lag = |place: &FollowerPlace| {
            Some((fetched.high_watermark - place.bounds.log_end_offset).max(0))
        };
        self.go_on(partition, state, appended, lag, now);
    }

    /// Cuts off what the leader does not have.
    fn cut(&self, partition: &Partition, state: &FetchState, leader: EpochEnd, now: Now) {
        let Ok(log) = partition.log() else { return };
        let local = leader
            .epoch
            .and_then(|epoch| partition.local_epoch_end(epoch));
        let end = log.log_end_offset();
        let truncation = follower::truncation(leader, local, state.fetch_offset, end);
        tracing::info!(
            partition = %partition.topic_partition,
            leader_epoch = state.leader_epoch,
            diverging = ?leader,
            log_end_offset = end,
            offset = truncation.offset,
            "logs part: cutting"
        );
        let cut = partition.truncate_as_follower(state.leader_epoch, truncation.offset, now);
        self.go_on(partition, state, cut, |_| state.lag, now);
    }

    /// Fetches from where the log ends now, or not any more.
    fn go_on(
        &self,
        partition: &Partition,
        state: &FetchState,
        done: Result<FollowerPlace, FollowError>,
        lag: impl FnOnce(&FollowerPlace) -> Option<Offset>,
        now: Now,
    ) {
        let topic_partition = &partition.topic_partition;
        match done {
            Ok(place) => {
                let FollowerPlace {
                    bounds,
                    latest_epoch,
                } = place;
                let lag = lag(&place);
                let mut content = self.board.lock();
                content.fetcher.resume(
                    topic_partition,
                    state.leader_epoch,
                    bounds,
                    latest_epoch,
                    lag,
                );
            }
            Err(FollowError::NotFollowing) => {}
            Err(error) if error.is_transient() => {
                tracing::warn!(partition = %topic_partition, %error, "fetched bad records");
                self.delay(topic_partition, now);
            }
            Err(error) => {
                tracing::error!(partition = %topic_partition, %error, "cannot follow any more");
                self.stop(topic_partition, state.leader_epoch);
            }
        }
    }

    fn delay(&self, topic_partition: &TopicPartition, now: Now) {
        let backoff = self.backoff();
        self.board
            .lock()
            .fetcher
            .delay(topic_partition, backoff, now);
    }

    /// Gives a partition up until the controller names a leader again.
    fn stop(&self, topic_partition: &TopicPartition, leader_epoch: LeaderEpoch) {
        let mut content = self.board.lock();
        let is_same = content
            .fetcher
            .state(topic_partition)
            .is_some_and(|state| state.leader_epoch == leader_epoch);
        if is_same {
            content.fetcher.unfollow(topic_partition);
            content.partitions.remove(topic_partition);
            self.context.note_failed(topic_partition);
        }
    }

    async fn take_error(
        &mut self,
        partition: &Partition,
        state: &FetchState,
        error: FetchError,
        now: Now,
    ) {
        let topic_partition = &partition.topic_partition;
        match follower::remedy(error, state.leader_epoch, state.leader_epoch) {
            Remedy::AskForBounds => self.find_place(partition, state).await,
            Remedy::Stop => {
                // One of them for each partition of the broker that failed: nothing for a person to read.
                tracing::debug!(
                    partition = %topic_partition, leader_epoch = state.leader_epoch,
                    "the leader knows a newer epoch: waiting for the controller"
                );
                self.stop(topic_partition, state.leader_epoch);
            }
            Remedy::Delay => {
                tracing::debug!(partition = %topic_partition, %error, "fetching later");
                self.delay(topic_partition, now);
            }
        }
    }

    /// The leader does not have the offset: goes where it has something.
    async fn find_place(&mut self, partition: &Partition, state: &FetchState) {
        let leader = self.leader_bounds(partition, state).await;
        let now = clock::now();
        let leader = match leader {
            Ok(Ok(leader)) => leader,
            Ok(Err(FetchError::FencedLeaderEpoch)) => {
                return self.stop(&partition.topic_partition, state.leader_epoch);
            }
            Ok(Err(error)) => {
                tracing::info!(partition = %partition.topic_partition, %error, "no offsets");
                return self.delay(&partition.topic_partition, now);
            }
            Err(error) => {
                tracing::warn!(partition = %partition.topic_partition, %error, "no offsets");
                self.client = None;
                return self.delay(&partition.topic_partition, now);
            }
        };
        let Ok(log) = partition.log() else { return };
        let end = log.log_end_offset();
        let epoch = state.leader_epoch;
        let decision = follower::out_of_range(leader, end);
        tracing::warn!(
            partition = %partition.topic_partition,
            fetch_offset = state.fetch_offset,
            log_end_offset = end,
            ?leader,
            ?decision,
            "the leader does not have the offset"
        );
        let done = match decision {
            OutOfRange::TruncateTo(offset) => partition.truncate_as_follower(epoch, offset, now),
            OutOfRange::StartAt(offset) => partition.restart_as_follower(epoch, offset, now),
            OutOfRange::GoOn => Ok(FollowerPlace {
                bounds: LogBounds {
                    log_start_offset: log.log_start_offset(),
                    log_end_offset: end,
                },
                latest_epoch: log.latest_epoch(),
            }),
        };
        let lag = |place: &FollowerPlace| {
            Some((leader.log_end_offset - place.bounds.log_end_offset).max(0))
        };
        let has_moved = !matches!(decision, OutOfRange::GoOn);
        self.go_on(partition, state, done, lag, now);
        if !has_moved {
            // Nothing was changed: do not ask the same thing at once.
            self.delay(&partition.topic_partition, now);
        }
    }

    async fn leader_bounds(
        &mut self,
        partition: &Partition,
        state: &FetchState,
    ) -> Result<Result<LogBounds, FetchError>, PeerError> {
        let Some(client) = self.client() else {
            return Err(unreachable_leader());
        };
        let (of, epoch) = (&partition.topic_partition, state.leader_epoch);
        let end = match client.log_edge(of, epoch, LogEdge::End).await? {
            Ok(end) => end,
            Err(error) => return Ok(Err(error)),
        };
        Ok(client
            .log_edge(of, epoch, LogEdge::Start)
            .await?
            .map(|start| LogBounds {
                log_start_offset: start,
                log_end_offset: end,
            }))
    }

    /// Cuts what must be cut before it is fetched.
    async fn truncate_all(&mut self) {
        let truncating = self.board.lock().fetcher.truncating(clock::now());
        for (topic_partition, state) in truncating {
            let partition = self.board.lock().partitions.get(&topic_partition).cloned();
            let Some(partition) = partition else {
                continue;
            };
            let Some(epoch) = state.last_fetched_epoch else {
                // Without epochs only what was committed is sure to be the leader's.
                let now = clock::now();
                let cut =
                    partition.truncate_as_follower(state.leader_epoch, state.fetch_offset, now);
                self.go_on(&partition, &state, cut, |_| None, now);
                continue;
            };
            let asked = match self.client() {
                Some(client) => {
                    client
                        .epoch_end(&topic_partition, state.leader_epoch, epoch)
                        .await
                }
                None => Err(unreachable_leader()),
            };
            let now = clock::now();
            match asked {
                Ok(Ok(end)) => self.truncate_by_epoch(&partition, &state, end, now),
                Ok(Err(error)) => self.take_error(&partition, &state, error, now).await,
                Err(error) => {
                    tracing::warn!(partition = %topic_partition, %error, "no epochs");
                    self.client = None;
                    self.delay(&topic_partition, now);
                }
            }
        }
    }

    /// Before Fetch v12 the leader does not say where logs part: cut until both agree.
    fn truncate_by_epoch(
        &self,
        partition: &Partition,
        state: &FetchState,
        leader: EpochEnd,
        now: Now,
    ) {
        let Ok(log) = partition.log() else { return };
        let local = leader
            .epoch
            .and_then(|epoch| partition.local_epoch_end(epoch));
        let truncation =
            follower::truncation(leader, local, state.fetch_offset, log.log_end_offset());
        let cut = partition.truncate_as_follower(state.leader_epoch, truncation.offset, now);
        if truncation.is_complete {
            self.go_on(partition, state, cut, |_| None, now);
        } else if let Err(error) = cut {
            self.go_on(partition, state, Err(error), |_| None, now);
        } else if let Some(following) = partition.following() {
            // Asks again with the epochs that are left, unless the controller has named a leader since.
            let mut content = self.board.lock();
            let followed = content.fetcher.state(&partition.topic_partition);
            let is_same = following.leader_epoch == state.leader_epoch
                && followed.is_some_and(|followed| followed.leader_epoch == state.leader_epoch);
            if is_same {
                content.fetcher.follow(
                    &partition.topic_partition,
                    following.topic_id,
                    following.leader_epoch,
                    following.log,
                );
            }
        }
    }

    /// Notes where retention has moved the beginnings of logs, which leaders want to know.
    fn note_log_starts(&mut self) {
        let now = clock::now().monotonic;
        if now.saturating_sub(self.log_starts_checked) < LOG_START_CHECK {
            return;
        }
        self.log_starts_checked = now;
        let mut content = self.board.lock();
        let Content {
            fetcher,
            partitions,
        } = &mut *content;
        for (topic_partition, partition) in partitions {
            if let Ok(log) = partition.log() {
                fetcher.log_start_moved(topic_partition, log.log_start_offset());
            }
        }
    }
}

fn unreachable_leader() -> PeerError {
    PeerError::Io(std::io::Error::new(
        std::io::ErrorKind::NotFound,
        "the leader is not among the live brokers",
    ))
}

fn millis(value: i32) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}
