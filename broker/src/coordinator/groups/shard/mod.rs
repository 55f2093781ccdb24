//! The groups of one partition of `__consumer_offsets`, while this broker leads it.
//!
//! A group is locked while it decides and while its records are appended, so the log has them in the order in which
//! they were decided. Nobody holds the lock while replicas are waited for.

pub(super) mod committing;
mod errors;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_core::group::records::GroupRecord;
use barnabas_core::group::{
    Effect, Group, GroupError, GroupRules, Join, JoinFailure, Joined, Purpose, State, Sync, Synced,
    Ticket,
};
use barnabas_core::ids::{GroupId, LeaderEpoch};
use barnabas_core::records::Compression;
use barnabas_core::time::{Deadline, Now};
use indexmap::IndexMap;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::errors::{ForWhat, group_error};
use super::TransactionEnd;
use super::loading;
use super::metrics::GroupMetrics;
use super::timers::Timers;
use crate::config::LiveConfig;
use crate::coordinator::appending::{Appended, Author, KeyValue, WriteError, append};
use crate::coordinator::shards::{self, Coordinated};
use crate::replica::Partition;
use crate::{clock, host};

/// The answer to a join, when it comes.
pub(super) type JoinAnswer = oneshot::Receiver<Result<Joined, JoinFailure>>;

/// The answer to a sync, when it comes.
pub(super) type SyncAnswer = oneshot::Receiver<Result<Synced, GroupError>>;

/// Tombstones are written in batches of about this size, far below what a topic allows.
const TOMBSTONE_BATCH_BYTES: usize = 256 << 10;

/// A group and who waits for it.
pub(super) struct Seat {
    pub(super) group: Group,
    tickets: u64,
    joins: HashMap<Ticket, oneshot::Sender<Result<Joined, JoinFailure>>>,
    syncs: HashMap<Ticket, oneshot::Sender<Result<Synced, GroupError>>>,
    /// The next time that the timer looks at the group.
    scheduled: Option<Deadline>,
}

/// A group behind its lock.
pub(super) struct Cell {
    seat: Mutex<Seat>,
}

impl Cell {
    fn new(group: Group) -> Arc<Self> {
        Arc::new(Self {
            seat: Mutex::new(Seat {
                group,
                tickets: 0,
                joins: HashMap::new(),
                syncs: HashMap::new(),
                scheduled: None,
            }),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

/// What a shard is there for.
enum Status {
    /// The log is being read. Ends of transactions that come meanwhile are kept.
    Loading { ended: Vec<TransactionEnd> },
    Active {
        groups: IndexMap<GroupId, Arc<Cell>>,
    },
    /// Another broker leads the partition.
    Resigned,
}

/// See the module.
pub(super) struct Shard {
    partition: Arc<Partition>,
    leader_epoch: LeaderEpoch,
    config: Arc<LiveConfig>,
    status: Mutex<Status>,
    metrics: Arc<GroupMetrics>,
    timers: Timers,
    timer_task: Mutex<Option<JoinHandle<()>>>,
    /// Groups to which producers may have committed within open transactions.
    open: Mutex<BTreeMap<i64, BTreeSet<GroupId>>>,
}

impl Shard {
    /// Begins to load the partition.
    pub(super) fn start(
        partition: &Arc<Partition>,
        leader_epoch: LeaderEpoch,
        config: &Arc<LiveConfig>,
        metrics: &Arc<GroupMetrics>,
    ) -> Arc<Self> {
        let shard = Arc::new(Self {
            partition: Arc::clone(partition),
            leader_epoch,
            config: Arc::clone(config),
            status: Mutex::new(Status::Loading { ended: Vec::new() }),
            metrics: Arc::clone(metrics),
            timers: Timers::default(),
            timer_task: Mutex::new(None),
            open: Mutex::default(),
        });
        host::spawn(Arc::clone(&shard).load());
        shard
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn partition(&self) -> Arc<Partition> {
        Arc::clone(&self.partition)
    }

    pub(super) fn rules(&self) -> GroupRules {
        let config = self.config.broker();
        GroupRules {
            session_timeout_min_ms: config.group_min_session_timeout_ms,
            session_timeout_max_ms: config.group_max_session_timeout_ms,
            size_max: usize::try_from(config.group_max_size).unwrap_or(usize::MAX),
            initial_rebalance_delay: millis(config.group_initial_rebalance_delay_ms),
        }
    }

    // --- loading and unloading ---

    async fn load(self: Arc<Self>) {
        let started = clock::now();
        let loaded = shards::load(&self, &self.partition, |shard, log| {
            let buffer_bytes = shard.config.broker().offsets_load_buffer_size.max(1) as usize;
            loading::load(log, buffer_bytes, || shard.is_loading())
        });
        let Some(groups) = loaded.await else {
            return;
        };
        let count = groups.len();
        if self.activate(groups) {
            let took = clock::now().monotonic.saturating_sub(started.monotonic);
            self.metrics.loaded(took);
            let took_ms = took.as_millis() as u64;
            tracing::info!(
                partition = %self.partition.topic_partition,
                leader_epoch = self.leader_epoch,
                groups = count,
                took_ms,
                "loaded groups"
            );
        }
    }

    fn activate(self: &Arc<Self>, mut groups: IndexMap<GroupId, Group>) -> bool {
        let (now, rules) = (clock::now(), self.rules());
        let mut status = self.status();
        let Status::Loading { ended } = &mut *status else {
            return false;
        };
        for end in ended.drain(..) {
            for group in groups.values_mut() {
                let offsets = &mut group.offsets;
                offsets.replay_marker(end.producer_id, end.is_committed, end.marker_offset);
            }
        }
        for (id, group) in &groups {
            for producer_id in group.offsets.producers() {
                self.note_open(producer_id, id);
            }
        }
        let groups: IndexMap<GroupId, Arc<Cell>> = groups
            .into_iter()
            .map(|(id, group)| (id, Cell::new(group)))
            .collect();
        let cells: Vec<Arc<Cell>> = groups.values().cloned().collect();
        *status = Status::Active { groups };
        drop(status);
        for cell in cells {
            let mut seat = cell.lock();
            let effects = seat.group.loaded(&rules, now);
            self.carry_out(&cell, &mut seat, effects, now);
        }
        let task = host::spawn(Arc::clone(self).keep_time());
        *self
            .timer_task
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(task);
        true
    }

    async fn keep_time(self: Arc<Self>) {
        loop {
            let now = clock::now();
            for id in self.timers.take_due(now) {
                let Ok(Some(cell)) = self.cell(&id) else {
                    continue;
                };
                let mut seat = cell.lock();
                // There may be a later entry that was overtaken by an earlier one.
                if seat
                    .scheduled
                    .is_some_and(|deadline| deadline.has_passed(now))
                {
                    seat.scheduled = None;
                    let effects = seat.group.tick(&self.rules(), now);
                    self.carry_out(&cell, &mut seat, effects, now);
                }
            }
            self.timers.wait(clock::now()).await;
        }
    }

    fn schedule(&self, seat: &mut Seat) {
        if let Some(deadline) = seat.group.next_deadline()
            && seat.scheduled.is_none_or(|scheduled| deadline < scheduled)
        {
            seat.scheduled = Some(deadline);
            self.timers.add(deadline, seat.group.id());
        }
    }

    // --- groups ---

    /// The group, if there is one.
    pub(super) fn cell(&self, id: &str) -> Result<Option<Arc<Cell>>, GroupError> {
        match &*self.status() {
            Status::Loading { .. } => Err(GroupError::CoordinatorLoadInProgress),
            Status::Active { groups } => Ok(groups.get(id).cloned()),
            Status::Resigned => Err(GroupError::NotCoordinator),
        }
    }

    fn cell_or_new(&self, id: &str) -> Result<Arc<Cell>, GroupError> {
        match &mut *self.status() {
            Status::Loading { .. } => Err(GroupError::CoordinatorLoadInProgress),
            Status::Active { groups } => {
                if let Some(cell) = groups.get(id) {
                    return Ok(Arc::clone(cell));
                }
                let id = GroupId::from(id);
                let cell = Cell::new(Group::new(Arc::clone(&id)));
                groups.insert(id, Arc::clone(&cell));
                Ok(cell)
            }
            Status::Resigned => Err(GroupError::NotCoordinator),
        }
    }

    pub(super) fn cells(&self) -> Vec<Arc<Cell>> {
        match &*self.status() {
            Status::Active { groups } => groups.values().cloned().collect(),
            Status::Loading { .. } | Status::Resigned => Vec::new(),
        }
    }

    fn remove(&self, id: &str, cell: &Arc<Cell>) {
        if let Status::Active { groups } = &mut *self.status()
            && groups.get(id).is_some_and(|known| Arc::ptr_eq(known, cell))
        {
            groups.swap_remove(id);
        }
    }

    // --- the protocol ---

    pub(super) fn join(
        self: &Arc<Self>,
        id: &str,
        request: Join,
    ) -> Result<JoinAnswer, JoinFailure> {
        let now = clock::now();
        let failure = |error| JoinFailure {
            member_id: Arc::clone(&request.member_id),
            error,
        };
        let cell = if request.member_id.is_empty() {
            self.cell_or_new(id).map_err(failure)?
        } else {
            let known = self.cell(id).map_err(failure)?;
            known.ok_or_else(|| failure(GroupError::UnknownMemberId))?
        };
        let (answer, receiver) = oneshot::channel();
        let mut seat = cell.lock();
        let ticket = seat.ticket();
        seat.joins.insert(ticket, answer);
        let effects = seat
            .group
            .join(Join { ticket, ..request }, &self.rules(), now);
        self.carry_out(&cell, &mut seat, effects, now);
        Ok(receiver)
    }

    pub(super) fn sync(
        self: &Arc<Self>,
        id: &str,
        request: Sync,
    ) -> Result<SyncAnswer, GroupError> {
        let now = clock::now();
        let cell = self.cell(id)?.ok_or(GroupError::UnknownMemberId)?;
        let (answer, receiver) = oneshot::channel();
        let mut seat = cell.lock();
        let ticket = seat.ticket();
        seat.syncs.insert(ticket, answer);
        let effects = seat.group.sync(&Sync { ticket, ..request }, now);
        self.carry_out(&cell, &mut seat, effects, now);
        Ok(receiver)
    }

    /// Lets `act` do something to the group that may have effects.
    pub(super) fn act<T>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        act: impl FnOnce(&mut Group, Now) -> (T, Vec<Effect>),
    ) -> T {
        let now = clock::now();
        let mut seat = cell.lock();
        let (result, effects) = act(&mut seat.group, now);
        self.carry_out(cell, &mut seat, effects, now);
        result
    }

    fn carry_out(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        seat: &mut Seat,
        effects: Vec<Effect>,
        now: Now,
    ) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::AnswerJoin(ticket, result) => {
                    if let Some(answer) = seat.joins.remove(&ticket) {
                        // Nobody listens any more if the connection is gone.
                        let _ = answer.send(result);
                    }
                }
                Effect::AnswerSync(ticket, result) => {
                    if let Some(answer) = seat.syncs.remove(&ticket) {
                        let _ = answer.send(result);
                    }
                }
                Effect::Write(record, purpose) => {
                    effects.extend(self.write(cell, seat, record, purpose, now));
                }
            }
        }
        self.schedule(seat);
    }

    fn write(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        seat: &mut Seat,
        record: GroupRecord,
        purpose: Purpose,
        now: Now,
    ) -> Vec<Effect> {
        let required_acks = self.config.broker().offsets_commit_required_acks;
        let encoded = record.encode().map_err(WriteError::Field);
        let appended = encoded.and_then(|key_value| {
            self.append([key_value], Author::Coordinator, required_acks, now)
        });
        match appended {
            Ok(appended) => {
                if let Some(outcome) = appended.settled() {
                    return self.settled(seat, &record, &appended, purpose, outcome, now);
                }
                let (shard, cell) = (Arc::clone(self), Arc::clone(cell));
                host::spawn(async move {
                    let outcome = appended.settle(shard.commit_timeout()).await;
                    let now = clock::now();
                    let mut seat = cell.lock();
                    let effects =
                        shard.settled(&mut seat, &record, &appended, purpose, outcome, now);
                    shard.carry_out(&cell, &mut seat, effects, now);
                });
                Vec::new()
            }
            Err(error) => self.failed(seat, purpose, &error, now),
        }
    }

    fn settled(
        &self,
        seat: &mut Seat,
        record: &GroupRecord,
        appended: &Appended,
        purpose: Purpose,
        outcome: Result<(), WriteError>,
        now: Now,
    ) -> Vec<Effect> {
        match outcome {
            Ok(()) => {
                if matches!(purpose, Purpose::Assignment { .. }) {
                    GroupMetrics::add(&self.metrics.completed_rebalances, 1);
                }
                seat.group.replay(record, appended.first_offset);
                seat.group.written(purpose, Ok(()), &self.rules(), now)
            }
            Err(error) => self.failed(seat, purpose, &error, now),
        }
    }

    fn failed(
        &self,
        seat: &mut Seat,
        purpose: Purpose,
        error: &WriteError,
        now: Now,
    ) -> Vec<Effect> {
        tracing::warn!(
            partition = %self.partition.topic_partition,
            group = %seat.group.id(),
            %error,
            "a group could not be written"
        );
        let error = group_error(error, ForWhat::Group);
        seat.group.written(purpose, Err(error), &self.rules(), now)
    }

    fn append(
        &self,
        records: impl IntoIterator<Item = KeyValue>,
        author: Author,
        required_acks: i16,
        now: Now,
    ) -> Result<Appended, WriteError> {
        let codec = self.config.broker().offsets_topic_compression_codec;
        let compression = u8::try_from(codec)
            .ok()
            .and_then(|codec| Compression::from_id(codec).ok())
            .unwrap_or(Compression::None);
        append(
            &self.partition,
            records,
            author,
            compression,
            required_acks,
            self.leader_epoch,
            now,
        )
    }

    fn commit_timeout(&self) -> Duration {
        millis(self.config.broker().offsets_commit_timeout_ms)
    }

    /// The end of a transaction is in the log: what it committed counts from now on, or never.
    pub(super) fn transaction_ended(&self, end: TransactionEnd) {
        if let Status::Loading { ended } = &mut *self.status() {
            ended.push(end);
            return;
        }
        let producer_id = end.producer_id;
        let groups = self.open().remove(&producer_id).unwrap_or_default();
        for id in groups {
            let Ok(Some(cell)) = self.cell(&id) else {
                continue;
            };
            let mut seat = cell.lock();
            let offsets = &mut seat.group.offsets;
            offsets.replay_marker(producer_id, end.is_committed, end.marker_offset);
            // The next transaction of the producer may have begun.
            if offsets.has_transaction(producer_id) {
                self.note_open(producer_id, &id);
            }
        }
    }

    /// A group of which the end of the producer's transaction has to be told.
    fn note_open(&self, producer_id: i64, group: &GroupId) {
        let mut open = self.open();
        open.entry(producer_id)
            .or_default()
            .insert(Arc::clone(group));
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<i64, BTreeSet<GroupId>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- forgetting ---

    /// Writes tombstones that `choose` wants, and forgets what they say.
    pub(super) fn forget(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        choose: impl FnOnce(&Group) -> Result<Vec<GroupRecord>, GroupError>,
    ) -> Result<(), GroupError> {
        let now = clock::now();
        let mut seat = cell.lock();
        let records = choose(&seat.group)?;
        let is_recorded = seat.group.is_recorded();
        let written = records
            .iter()
            .filter(|record| is_recorded || !matches!(record, GroupRecord::Group { .. }));
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        for record in written {
            let encoded = record
                .encode()
                .map_err(|_| GroupError::UnknownServerError)?;
            batch_bytes += encoded.0.len() + 16;
            batch.push(encoded);
            if batch_bytes >= TOMBSTONE_BATCH_BYTES {
                batch_bytes = 0;
                self.append_tombstones(std::mem::take(&mut batch), now)?;
            }
        }
        if !batch.is_empty() {
            self.append_tombstones(batch, now)?;
        }
        for record in &records {
            seat.group.replay(record, i64::MAX);
        }
        let is_dead = seat.group.state() == State::Dead;
        let id = Arc::clone(seat.group.id());
        drop(seat);
        if is_dead {
            self.remove(&id, cell);
        }
        Ok(())
    }

    /// Tombstones do not wait for replicas: they are written again if they get lost.
    fn append_tombstones(&self, records: Vec<KeyValue>, now: Now) -> Result<(), GroupError> {
        match self.append(records, Author::Coordinator, 0, now) {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(
                    partition = %self.partition.topic_partition,
                    %error,
                    "tombstones could not be written"
                );
                Err(group_error(&error, ForWhat::Group))
            }
        }
    }
}

impl Coordinated for Shard {
    fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    fn is_loading(&self) -> bool {
        matches!(*self.status(), Status::Loading { .. })
    }

    fn resign(self: &Arc<Self>) {
        let status = std::mem::replace(&mut *self.status(), Status::Resigned);
        if let Some(task) = self
            .timer_task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            task.abort();
        }
        if let Status::Active { groups } = status {
            let now = clock::now();
            for cell in groups.values() {
                let mut seat = cell.lock();
                let effects = seat.group.unload();
                self.carry_out(cell, &mut seat, effects, now);
            }
        }
    }
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(ms.max(0) as u64)
}
