//! A partition that this broker hosts: its log, the state that the controller gave it, and those
//! who wait for it.
//!
//! Appends go one after the other under the state's lock, which also orders them with changes of
//! leadership. Readers take no lock: they see the latest [`View`] and high watermark.

pub mod following;
mod isr_change;
mod verifying;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use barnabas_core::config::TopicConfig;
use barnabas_core::control::ControlError;
use barnabas_core::control::LeaderAndIsrPartition;
use barnabas_core::ids::{BrokerId, LeaderEpoch, Offset, TopicId, TopicPartition};
use barnabas_core::partition::leader::{FollowerFetch, Surroundings};
use barnabas_core::partition::throttle::is_throttled;
use barnabas_core::partition::verification::{Admission, Verifications};
use barnabas_core::partition::{
    BecameLeader, LogBounds, PartitionError, PartitionState, Verdict, check_leader_epoch,
    last_stable_offset,
};
use barnabas_core::records::validate::PreparedBatch;
use barnabas_core::time::Now;

pub use isr_change::PendingIsrChange;

use super::isr_changer::IsrQueue;
use super::waiters::{WaitFor, Waiter, Waiters};
use crate::log::{AbortedTransaction, AppendError, AppendInfo, LogError, LogSlice, PartitionLog};
use crate::metadata_cache::MetadataCache;
use crate::metrics::TopicMetrics;

/// What partitions know of the cluster around them.
pub struct Neighbourhood {
    pub broker_id: BrokerId,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_max: Duration,
    pub metadata: Arc<MetadataCache>,
    /// Where leaders propose other ISRs.
    pub(super) isr_queue: Arc<IsrQueue>,
}

impl Neighbourhood {
    fn is_alive(&self, broker: BrokerId) -> bool {
        self.metadata.image().brokers.contains_key(&broker)
    }
}

/// What readers need to know of a partition, swapped whole.
#[derive(Clone)]
pub struct View {
    pub leader_epoch: LeaderEpoch,
    /// Broker id, or -1.
    pub leader: i32,
    pub is_leader: bool,
    /// The epoch since which this broker leads without a break, if it does.
    pub leads_since: LeaderEpoch,
    /// Absent until the controller assigns a role.
    pub log: Option<Arc<PartitionLog>>,
    /// Why the partition is of no use any more: deleted, or its directory failed.
    pub closed: Option<PartitionError>,
}

/// Who reads, which decides how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Reads below the high watermark, or below the last stable offset.
    Consumer {
        isolation: Isolation,
        /// A consumer that knows of KIP-392 may read from a follower.
        from: ReadFrom,
    },
    /// Reads to the log end.
    Follower {
        id: BrokerId,
        /// The follower's log start offset.
        log_start_offset: Offset,
    },
}

/// Which replica answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    Leader,
    AnyReplica,
}

/// `isolation.level` of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

/// One read of one partition.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub topic_id: Option<TopicId>,
    pub fetch_offset: Offset,
    pub max_bytes: usize,
    /// The first batch is read even if it is larger than `max_bytes`.
    pub minimum_one_batch: bool,
    /// -1 if the reader does not say.
    pub current_leader_epoch: LeaderEpoch,
    /// -1 if the reader does not say.
    pub last_fetched_epoch: LeaderEpoch,
    pub reader: Reader,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct ReadOutcome {
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_start_offset: Offset,
    pub log_end_offset: Offset,
    /// The leader epoch under which it was read.
    pub leader_epoch: LeaderEpoch,
    /// `None` if there is nothing to read for this reader yet.
    pub records: Option<LogSlice>,
    /// For readers of committed data.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// Epoch and end offset where the reader's log parts from ours; then there are no records.
    pub diverging_epoch: Option<(LeaderEpoch, Offset)>,
    /// The consumer had better read there (KIP-392); then there are no records.
    pub preferred_replica: Option<BrokerId>,
}

/// Why nothing was appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PartitionAppendError {
    #[error(transparent)]
    Partition(#[from] PartitionError),
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// How a partition fares on the broker that leads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub is_leader: bool,
    /// Fewer in sync than assigned.
    pub is_under_replicated: bool,
    /// Fewer in sync than `min.insync.replicas`.
    pub is_under_min_isr: bool,
    /// Just as many in sync as `min.insync.replicas`.
    pub is_at_min_isr: bool,
    /// Replicas are being added or removed.
    pub is_reassigning: bool,
    pub in_sync: usize,
    pub replicas: usize,
}

/// A partition hosted by this broker.
pub struct Partition {
    pub topic_partition: TopicPartition,
    /// Counters of the topic.
    pub metrics: Arc<TopicMetrics>,
    neighbourhood: Arc<Neighbourhood>,
    state: Mutex<PartitionState>,
    view: ArcSwap<View>,
    /// As in the state; written under its lock.
    high_watermark: AtomicI64,
    config: ArcSwap<TopicConfig>,
    waiters: Waiters,
    /// Locked within the state's lock.
    verifications: Mutex<Verifications>,
}

impl Partition {
    /// A partition of which the controller has said nothing yet.
    pub fn new(
        topic_partition: TopicPartition,
        config: Arc<TopicConfig>,
        metrics: Arc<TopicMetrics>,
        neighbourhood: Arc<Neighbourhood>,
    ) -> Self {
        Self {
            topic_partition,
            metrics,
            state: Mutex::new(PartitionState::new(neighbourhood.broker_id)),
            neighbourhood,
            view: ArcSwap::from_pointee(View {
                leader_epoch: -1,
                leader: -1,
                is_leader: false,
                leads_since: -1,
                log: None,
                closed: None,
            }),
            high_watermark: AtomicI64::new(0),
            config: ArcSwap::new(config),
            waiters: Waiters::default(),
            verifications: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, PartitionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_surroundings<T>(&self, act: impl FnOnce(Surroundings<'_>) -> T) -> T {
        let min_insync_replicas = self.config.load().min_insync_replicas;
        act(Surroundings {
            min_insync_replicas,
            replica_lag_max: self.neighbourhood.replica_lag_max,
            is_alive: &|broker| self.neighbourhood.is_alive(broker),
        })
    }

    /// Whether `follower.replication.throttled.replicas` names this replica.
    pub fn is_throttled_as_follower(&self) -> bool {
        let config = self.config.load();
        self.is_named_in(&config.follower_replication_throttled_replicas)
    }

    /// Whether `leader.replication.throttled.replicas` names this replica.
    pub fn is_throttled_as_leader(&self) -> bool {
        let config = self.config.load();
        self.is_named_in(&config.leader_replication_throttled_replicas)
    }

    fn is_named_in(&self, replicas: &[String]) -> bool {
        let partition = self.topic_partition.partition;
        is_throttled(replicas, partition, self.neighbourhood.broker_id)
    }

    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }

    pub fn set_config(&self, config: Arc<TopicConfig>) {
        self.config.store(config);
    }

    pub fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark.load(Ordering::SeqCst)
    }

    /// The log, if the partition has one that can be used.
    pub fn log(&self) -> Result<Arc<PartitionLog>, PartitionError> {
        let view = self.view();
        if let Some(closed) = view.closed {
            return Err(closed);
        }
        view.log.clone().ok_or(PartitionError::NotLeaderOrFollower)
    }

    /// The log and the current leader epoch if this broker leads the partition and the caller
    /// believes in the same epoch (-1: any).
    pub fn led_log(
        &self,
        current_leader_epoch: LeaderEpoch,
    ) -> Result<(Arc<PartitionLog>, LeaderEpoch), PartitionError> {
        self.log_for(current_leader_epoch, ReadFrom::Leader)
    }

    /// The log and the current leader epoch, for a caller that asks the leader or any replica.
    pub fn log_for(
        &self,
        current_leader_epoch: LeaderEpoch,
        from: ReadFrom,
    ) -> Result<(Arc<PartitionLog>, LeaderEpoch), PartitionError> {
        let view = self.view();
        let log = usable_log(&view, current_leader_epoch, from)?;
        Ok((Arc::clone(log), view.leader_epoch))
    }

    /// The last stable offset: what readers of committed data see.
    pub fn last_stable_offset(&self, log: &PartitionLog) -> Offset {
        last_stable_offset(self.high_watermark(), log.first_unstable_offset())
    }

    /// Start offset of the current leader epoch.
    pub fn epoch_start_offset(&self) -> Result<Offset, PartitionError> {
        Ok(self.lock().as_leader()?.epoch_start_offset)
    }

    // --- what the controller says ---

    /// Decides about one partition of a `LeaderAndIsr` request.
    pub fn examine(
        &self,
        request: &LeaderAndIsrPartition,
        log_topic_id: Option<TopicId>,
    ) -> Result<Verdict, ControlError> {
        self.lock().examine(request, log_topic_id)
    }

    /// Gives a log that was just opened to the partition, with its checkpointed high watermark.
    pub fn open_log(&self, log: &Arc<PartitionLog>, checkpoint: Option<Offset>) {
        let mut state = self.lock();
        state.restore_high_watermark(checkpoint, bounds(log));
        self.publish(&state, Some(Arc::clone(log)));
    }

    /// Whether the partition has a log already.
    pub fn has_log(&self) -> bool {
        self.view().log.is_some()
    }

    /// Takes the role of the leader. Returns false if the request is older than what is known.
    pub fn become_leader(
        &self,
        request: &LeaderAndIsrPartition,
        now: Now,
    ) -> Result<bool, LogError> {
        let Some(log) = self.view().log.clone() else {
            return Ok(false);
        };
        let mut state = self.lock();
        let became = self.with_surroundings(|surroundings| {
            state.become_leader(request, bounds(&log), surroundings, now)
        });
        let Some(BecameLeader {
            epoch_starts_at, ..
        }) = became
        else {
            return Ok(false);
        };
        if let Some(offset) = epoch_starts_at {
            // Before anything is appended, else followers cannot see where logs parted (KIP-101).
            log.assign_epoch_start(state.leader_epoch(), offset)?;
        }
        self.publish(&state, Some(log));
        drop(state);
        self.waiters.wake_all();
        Ok(true)
    }

    /// Takes the role of a follower. Returns false if the request is older than what is known.
    pub fn become_follower(&self, request: &LeaderAndIsrPartition) -> bool {
        let log = self.view().log.clone();
        let mut state = self.lock();
        if !state.become_follower(request) {
            return false;
        }
        self.publish(&state, log);
        drop(state);
        self.waiters.wake_all();
        true
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.view().leader_epoch
    }

    /// The partition was deleted or its directory failed: whoever still holds it is told so.
    pub fn close(&self, reason: PartitionError) {
        let _state = self.lock();
        let mut view = View::clone(&self.view());
        view.closed = Some(reason);
        view.is_leader = false;
        self.view.store(Arc::new(view));
        self.waiters.wake_all();
    }

    /// Whether the log's directory is offline.
    pub fn has_failed(&self) -> bool {
        let view = self.view();
        view.log.as_ref().is_some_and(|log| log.failure().is_some())
    }

    fn publish(&self, state: &PartitionState, log: Option<Arc<PartitionLog>>) {
        if let Some(log) = &log {
            log.set_high_watermark(state.high_watermark());
        }
        self.high_watermark
            .store(state.high_watermark(), Ordering::SeqCst);
        let before = self.view();
        let leads_since = if before.is_leader {
            before.leads_since
        } else {
            state.leader_epoch()
        };
        self.view.store(Arc::new(View {
            leader_epoch: state.leader_epoch(),
            leader: state.leader(),
            is_leader: state.as_leader().is_ok(),
            leads_since,
            log,
            closed: None,
        }));
    }

    // --- writing ---

    /// Whether a write with `required_acks` may be accepted now.
    pub fn check_writable(&self, required_acks: i16) -> Result<(), PartitionError> {
        let view = self.view();
        usable_log(&view, -1, ReadFrom::Leader)?;
        if required_acks == -1 {
            self.check_in_sync(&self.lock())?;
        }
        Ok(())
    }

    fn check_in_sync(&self, state: &PartitionState) -> Result<(), PartitionError> {
        let leader = state.as_leader()?;
        if self.with_surroundings(|surroundings| leader.has_enough_in_sync(surroundings)) {
            Ok(())
        } else {
            Err(PartitionError::NotEnoughReplicas)
        }
    }

    /// Appends a validated batch of a client as the leader. Nothing is appended if it fails.
    pub fn append(
        &self,
        batch: &PreparedBatch,
        admission: Admission,
        required_acks: i16,
        now: Now,
    ) -> Result<AppendInfo, PartitionAppendError> {
        let state = self.lock();
        self.append_with(state, batch, admission, required_acks, now, |log, epoch| {
            log.append_as_leader(batch, epoch, now)
        })
    }

    /// Appends a transaction marker or a coordinator's own records as the leader; the latter only if this broker has
    /// led without a break since that coordinator was elected.
    pub fn append_from_coordinator(
        &self,
        batch: &PreparedBatch,
        admission: Admission,
        required_acks: i16,
        elected: Option<LeaderEpoch>,
        now: Now,
    ) -> Result<AppendInfo, PartitionAppendError> {
        let state = self.lock();
        if elected.is_some_and(|epoch| self.view().leads_since > epoch) {
            return Err(PartitionError::NotLeaderOrFollower.into());
        }
        self.append_with(state, batch, admission, required_acks, now, |log, epoch| {
            log.append_from_coordinator(batch, epoch, now)
        })
    }

    fn append_with(
        &self,
        mut state: MutexGuard<'_, PartitionState>,
        batch: &PreparedBatch,
        admission: Admission,
        required_acks: i16,
        now: Now,
        append: impl FnOnce(&PartitionLog, LeaderEpoch) -> Result<AppendInfo, AppendError>,
    ) -> Result<AppendInfo, PartitionAppendError> {
        state.as_leader()?;
        if required_acks == -1 {
            self.check_in_sync(&state)?;
        }
        let log = self.log()?;
        self.check_admission(&batch.header, admission, &log, state.leader_epoch())?;
        let info = append(&log, state.leader_epoch())?;
        if info.is_duplicate {
            return Ok(info);
        }
        self.admitted(&batch.header);
        let bytes = batch.bytes.len();
        let moved = self.with_surroundings(|surroundings| {
            state.appended(info.last_offset + 1, surroundings, now)
        });
        let high_watermark = state.high_watermark();
        if moved {
            self.publish_high_watermark(high_watermark, &log);
        }
        drop(state);
        self.waiters.appended(bytes);
        if moved {
            self.waiters.committed(high_watermark, bytes);
        }
        Ok(info)
    }

    fn publish_high_watermark(&self, high_watermark: Offset, log: &PartitionLog) {
        log.set_high_watermark(high_watermark);
        self.high_watermark.store(high_watermark, Ordering::SeqCst);
    }

    /// Whether a write of the leader of `leader_epoch` whose last record lies below `offset` is as durable as
    /// acks=-1 asks for; `None` if it is not replicated yet.
    pub fn replicated(
        &self,
        offset: Offset,
        leader_epoch: LeaderEpoch,
    ) -> Option<Result<(), PartitionError>> {
        let view = self.view();
        if let Some(closed) = view.closed {
            return Some(Err(closed));
        }
        // Who has followed meanwhile may have something else at that offset by now.
        if !view.is_leader || view.leads_since > leader_epoch {
            return Some(Err(PartitionError::NotLeaderOrFollower));
        }
        if self.high_watermark() < offset {
            return None;
        }
        let state = self.lock();
        Some(state.as_leader().and_then(|leader| {
            if self.with_surroundings(|surroundings| leader.has_enough_after_append(surroundings)) {
                Ok(())
            } else {
                Err(PartitionError::NotEnoughReplicasAfterAppend)
            }
        }))
    }

    /// Drops records below `offset` (-1: the high watermark). Returns the new log start offset.
    ///
    /// # Errors
    /// `OffsetOutOfRange` if the offset is negative or above the high watermark.
    pub fn delete_records(&self, offset: Offset) -> Result<Offset, PartitionError> {
        let state = self.lock();
        state.as_leader()?;
        let log = self.log()?;
        let high_watermark = self.high_watermark();
        let to = if offset == -1 { high_watermark } else { offset };
        if to < 0 || to > high_watermark {
            return Err(PartitionError::OffsetOutOfRange);
        }
        log.increment_log_start_offset(to)
            .map_err(|error| partition_error(&error))?;
        Ok(to)
    }

    /// The lowest log start offset of all live replicas.
    pub fn low_watermark(&self) -> Result<Offset, PartitionError> {
        let state = self.lock();
        let log_start_offset = self.log()?.log_start_offset();
        Ok(state
            .as_leader()?
            .low_watermark(log_start_offset, &|id| self.neighbourhood.is_alive(id)))
    }

    // --- reading ---

    /// Reads from the log as far as `request.reader` may.
    pub fn read(&self, request: &ReadRequest) -> Result<ReadOutcome, PartitionError> {
        let view = self.view();
        let from = match request.reader {
            Reader::Consumer { from, .. } => from,
            Reader::Follower { .. } => ReadFrom::Leader,
        };
        if let (Some(asked), Some(log)) = (request.topic_id, &view.log)
            && log.topic_id().is_some_and(|known| known != asked)
        {
            return Err(PartitionError::InconsistentTopicId);
        }
        let log = usable_log(&view, request.current_leader_epoch, from)?;
        if let Reader::Follower { id, .. } = request.reader
            && (id == self.neighbourhood.broker_id || !self.lock().replicas().contains(&id))
        {
            return Err(if request.current_leader_epoch == -1 {
                PartitionError::NotLeaderOrFollower
            } else {
                PartitionError::UnknownLeaderEpoch
            });
        }
        // In this order: the bounds of the log may move meanwhile, but never past each other.
        let log_start_offset = log.log_start_offset();
        let high_watermark = self.high_watermark();
        let last_stable_offset = last_stable_offset(high_watermark, log.first_unstable_offset());
        let log_end_offset = log.log_end_offset();
        let outcome = ReadOutcome {
            high_watermark,
            last_stable_offset,
            log_start_offset,
            log_end_offset,
            leader_epoch: view.leader_epoch,
            records: None,
            aborted_transactions: None,
            diverging_epoch: None,
            preferred_replica: None,
        };
        if request.last_fetched_epoch != -1
            && let Some(diverging_epoch) = diverging(log, request, log_start_offset)?
        {
            return Ok(ReadOutcome {
                diverging_epoch: Some(diverging_epoch),
                ..outcome
            });
        }
        if request.fetch_offset > log_end_offset || request.fetch_offset < log_start_offset {
            return Err(PartitionError::OffsetOutOfRange);
        }
        let bound = match request.reader {
            Reader::Consumer {
                isolation: Isolation::ReadUncommitted,
                ..
            } => high_watermark,
            Reader::Consumer {
                isolation: Isolation::ReadCommitted,
                ..
            } => last_stable_offset,
            Reader::Follower { .. } => log_end_offset,
        };
        let records = if request.fetch_offset < bound {
            let slice = log
                .read(
                    request.fetch_offset,
                    request.max_bytes,
                    bound,
                    request.minimum_one_batch,
                )
                .map_err(|error| partition_error(&error))?;
            (!slice.is_empty()).then_some(slice)
        } else {
            None
        };
        let reads_committed = matches!(
            request.reader,
            Reader::Consumer {
                isolation: Isolation::ReadCommitted,
                ..
            }
        );
        let aborted_transactions = if reads_committed {
            Some(match &records {
                Some(slice) => log
                    .aborted_transactions_of(request.fetch_offset, slice)
                    .map_err(|error| partition_error(&error))?,
                None => Vec::new(),
            })
        } else {
            None
        };
        Ok(ReadOutcome {
            records,
            aborted_transactions,
            ..outcome
        })
    }

    /// Where a consumer of `rack` had better read on (KIP-392), if this broker leads and another replica is
    /// nearer. `listener` is the consumer's: it must be able to reach the replica.
    pub fn preferred_replica(
        &self,
        offset: Offset,
        rack: &str,
        listener: &str,
    ) -> Option<BrokerId> {
        let image = self.neighbourhood.metadata.image();
        let is_in_rack = |id: BrokerId| {
            image.brokers.get(&id).is_some_and(|broker| {
                broker.rack.as_deref() == Some(rack) && broker.endpoint(listener).is_some()
            })
        };
        let is_leader_in_rack = is_in_rack(self.neighbourhood.broker_id);
        let state = self.lock();
        let leader = state.as_leader().ok()?;
        leader.preferred_replica(offset, is_leader_in_rack, &is_in_rack)
    }

    /// Notes that a follower has everything below `fetch_offset`. To be called for the first read of
    /// a fetch, not for those after waiting.
    ///
    /// `leader_epoch` is the one under which the fetch was read: what was said to a leader of the past says
    /// nothing about a log that may have been cut since.
    pub fn follower_fetched(
        self: &Arc<Self>,
        follower: BrokerId,
        leader_epoch: LeaderEpoch,
        fetch_offset: Offset,
        log_start_offset: Offset,
        leader_end_offset: Offset,
        now: Now,
    ) {
        let Ok(log) = self.log() else { return };
        let mut state = self.lock();
        if state.leader_epoch() != leader_epoch {
            return;
        }
        let fetch = FollowerFetch {
            follower,
            fetch_offset,
            log_start_offset,
            leader_end_offset,
        };
        let before = state.high_watermark();
        let fetched =
            self.with_surroundings(|surroundings| state.follower_fetched(fetch, surroundings, now));
        let high_watermark = state.high_watermark();
        let fetched = fetched.unwrap_or_default();
        if fetched.high_watermark_moved {
            self.publish_high_watermark(high_watermark, &log);
        }
        drop(state);
        if fetched.isr_change_proposed {
            self.neighbourhood.isr_queue.add(Arc::clone(self));
        }
        self.waiters.low_watermark_moved();
        if fetched.high_watermark_moved {
            // How many bytes that are is not known: enough to look again.
            let bytes = if high_watermark > before {
                usize::MAX
            } else {
                0
            };
            self.waiters.committed(high_watermark, bytes);
        }
    }

    /// Lets everybody who waits look again.
    pub fn wake_waiters(&self) {
        self.waiters.wake_all();
    }

    /// How the partition fares, for metrics.
    pub fn health(&self) -> Health {
        let state = self.lock();
        let Ok(leader) = state.as_leader() else {
            return Health::default();
        };
        let in_sync = leader.isr.committed().len();
        let min_isr = self.with_surroundings(|around| leader.effective_min_isr(around));
        Health {
            is_leader: true,
            is_under_replicated: in_sync < state.replicas().len() - state.adding_replicas().len(),
            is_under_min_isr: in_sync < min_isr,
            is_at_min_isr: in_sync == min_isr,
            is_reassigning: state.is_reassigning(),
            in_sync,
            replicas: state.replicas().len(),
        }
    }

    /// Registers `waiter` until the returned guard is dropped.
    pub fn wait(self: &Arc<Self>, wait_for: WaitFor, waiter: &Arc<Waiter>) -> Waiting {
        Waiting {
            slot: self.waiters.add(wait_for, Arc::clone(waiter)),
            partition: Arc::clone(self),
        }
    }
}

/// A registration with a partition; ends when dropped.
pub struct Waiting {
    partition: Arc<Partition>,
    slot: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.partition.waiters.remove(self.slot);
    }
}

fn bounds(log: &PartitionLog) -> LogBounds {
    LogBounds {
        log_start_offset: log.log_start_offset(),
        log_end_offset: log.log_end_offset(),
    }
}

fn usable_log(
    view: &View,
    current_leader_epoch: LeaderEpoch,
    from: ReadFrom,
) -> Result<&Arc<PartitionLog>, PartitionError> {
    if let Some(closed) = view.closed {
        return Err(closed);
    }
    check_leader_epoch(current_leader_epoch, view.leader_epoch)?;
    if from == ReadFrom::Leader && !view.is_leader {
        return Err(PartitionError::NotLeaderOrFollower);
    }
    view.log.as_ref().ok_or(PartitionError::NotLeaderOrFollower)
}

/// Where the reader's log parts from ours, if it does (KIP-595).
fn diverging(
    log: &PartitionLog,
    request: &ReadRequest,
    log_start_offset: Offset,
) -> Result<Option<(LeaderEpoch, Offset)>, PartitionError> {
    let (epoch, end_offset) = log
        .end_offset_for_epoch(request.last_fetched_epoch)
        .ok_or(PartitionError::OffsetOutOfRange)?;
    if request.fetch_offset < log_start_offset {
        return Err(PartitionError::OffsetOutOfRange);
    }
    let parts = epoch < request.last_fetched_epoch || end_offset < request.fetch_offset;
    Ok(parts.then_some((epoch, end_offset)))
}

/// What a reader is told of a log that fails.
pub fn partition_error(error: &LogError) -> PartitionError {
    match error {
        LogError::OffsetOutOfRange { .. } => PartitionError::OffsetOutOfRange,
        LogError::InconsistentTopicId { .. } => PartitionError::InconsistentTopicId,
        LogError::UnknownPartition { .. } => PartitionError::UnknownTopicOrPartition,
        LogError::LogDirNotFound { .. }
        | LogError::LogDirOffline { .. }
        | LogError::CorruptBatch { .. }
        | LogError::NoTimestamps { .. }
        | LogError::Storage(_) => PartitionError::StorageError,
    }
}
