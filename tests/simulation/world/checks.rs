//! What must hold, whatever happens. Looked at after every event, by name.
//!
//! | invariant | says |
//! |---|---|
//! | `HighWatermarkIsMonotonic` | a leader's high watermark never falls within its epoch |
//! | `OneLeaderPerEpoch` | no two brokers lead a partition in the same epoch, and epochs never fall in ZooKeeper |
//! | `RolesAreNotTakenBack` | as long as a broker lives, the leader epoch of none of its partitions falls |
//! | `ReplicasAgreeBelowHighWatermark` | what stands below a high watermark is the same on every replica, for ever |
//! | `LeadersHaveWhatIsCommitted` | who leads has everything that was committed in earlier epochs |
//! | `AcknowledgedRecordsSurvive` | what was acknowledged for acks=all is committed, where the producer was told |
//! | `AcknowledgedRecordsHaveCopies` | what is acknowledged for acks=all is on as many brokers as `min.insync.replicas` asks for |
//! | `NoDuplicatesNoReordering` | what an idempotent producer sent is committed once, in its order |
//! | `TransactionsAreAllOrNothing` | a transaction ends alike in all its partitions, and as its producer is told |
//! | `ReadersOfCommittedSeeNothingElse` | what such a consumer is given belongs to no transaction that is open or aborted |
//! | `CommittedOffsetsStay` | a group is told the offset that it committed last |
//! | `PartitionsHaveOneOwner` | no two members of a group are given the same partition in one generation |
//! | `DeletedRecordsStayDeleted` | a topic that was created anew has nothing of the one that had its name |
//! | `OrdersOfThePastAreRefused` | an order that comes again is refused, all the more by a broker that was started since |
//! | `LatestValuesStay` | of a compacted topic every reader and every replica has the latest value of each key |
//! | `IsrSubsetOfAssignment` | in ZooKeeper the leader is in the ISR, and the ISR among the replicas |
//! | `ZnodesAreWellFormed` | what brokers write to ZooKeeper can be read |
//! | `NothingPanics` | a broken invariant within a broker is noticed |

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use barnabas_broker::api::Broker;
use barnabas_broker::log::PartitionLog;
use barnabas_broker::zookeeper::memory::MemoryEnsemble;
use barnabas_broker::zookeeper::{BrokerRegistration, Operation};
use barnabas_core::control::Leadership;
use barnabas_core::ids::{BrokerId, LeaderEpoch, Offset, TopicPartition};
use barnabas_core::records::{ControlRecord, batches, records};
use barnabas_core::znodes::{ControllerSeat, PartitionState, TopicAssignment};
use bytes::Bytes;

use super::compactions::{self, Latest};
use super::deletions::{Recreations, topic_is_recreated};
use super::members::Memberships;
use super::network::Node;
use super::trace::Trace;
use super::transactions::{Outcomes, Transaction};

/// How much of a log is read at once.
const READ_BYTES: usize = 1 << 20;

/// A record as it stands in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) producer_id: i64,
    pub(crate) sequence: i32,
    pub(crate) value: Bytes,
}

/// What a partition must be.
#[derive(Default)]
struct Truth {
    /// Everything that ever stood below a high watermark.
    committed: BTreeMap<Offset, Entry>,
    /// Acknowledged, and not seen below a high watermark yet.
    acknowledged: BTreeMap<Offset, Bytes>,
    /// Who led in each epoch.
    leaders: BTreeMap<LeaderEpoch, BrokerId>,
    /// The last number that each producer committed, and where.
    last_of_producer: BTreeMap<i64, (u64, Offset)>,
    /// The state znode as it was written last.
    znode: Option<Leadership>,
}

/// What is known of a replica in one run of its broker.
#[derive(Default)]
struct Seen {
    /// Everything below was compared.
    compared: Offset,
    leader_epoch: LeaderEpoch,
    is_leader: bool,
    high_watermark: Offset,
}

#[derive(Default)]
struct State {
    brokers: BTreeMap<Node, Arc<Broker>>,
    truths: BTreeMap<TopicPartition, Truth>,
    outcomes: Outcomes,
    memberships: Memberships,
    recreations: Recreations,
    seen: BTreeMap<(Node, TopicPartition), Seen>,
    /// Log directories that cannot be read.
    unreadable: BTreeSet<PathBuf>,
    /// Where each log ended when it was looked at last, whether or not its broker lives.
    held: BTreeMap<TopicPartition, BTreeMap<Node, Offset>>,
}

/// The invariants of one world.
pub(crate) struct Checks {
    min_insync_replicas: usize,
    state: Mutex<State>,
}

/// The value of the `number`th record that a producer sends to a partition.
pub(crate) fn value_of(producer: Node, number: u64) -> Bytes {
    format!("{producer}/{number}").into()
}

fn number_of(value: &Bytes) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    text.rsplit_once('/')?.1.parse().ok()
}

impl Checks {
    pub(crate) fn new(min_insync_replicas: usize) -> Self {
        Self {
            min_insync_replicas,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn broker_started(&self, node: Node, broker: &Arc<Broker>) {
        self.state().brokers.insert(node, broker.clone());
    }

    pub(crate) fn broker_gone(&self, node: Node) {
        let mut state = self.state();
        state.brokers.remove(&node);
        state.seen.retain(|(of, _), _| *of != node);
    }

    /// What stands in that directory cannot be read, and is compared later.
    pub(crate) fn directory_fails(&self, directory: PathBuf) {
        self.state().unreadable.insert(directory);
    }

    /// It can be read again.
    pub(crate) fn directory_is_mended(&self, directory: &Path) {
        self.state().unreadable.remove(directory);
    }

    /// A producer was told that its record is at `offset`.
    pub(crate) fn acknowledged(
        &self,
        trace: &Trace,
        partition: &TopicPartition,
        offset: Offset,
        value: Bytes,
    ) {
        let mut state = self.state();
        let held = state.held.get(partition).into_iter().flatten();
        let copies = held.filter(|(_, end)| **end > offset).count();
        if copies < self.min_insync_replicas {
            drop(state);
            trace.violated(&format!(
                "AcknowledgedRecordsHaveCopies: {partition} {offset} is on {copies} brokers"
            ));
            return;
        }
        let truth = state.truths.entry(partition.clone()).or_default();
        match truth.committed.get(&offset) {
            Some(entry) if entry.value != value => {
                let found = entry.value.clone();
                drop(state);
                trace.violated(&format!(
                    "AcknowledgedRecordsSurvive: {partition} {offset} is {found:?}, not {value:?}"
                ));
            }
            Some(_) => {}
            None => {
                truth.acknowledged.insert(offset, value);
            }
        }
    }

    /// A producer was told that its transaction ended like that.
    pub(crate) fn transaction_told(
        &self,
        trace: &Trace,
        transaction: Transaction,
        is_commit: bool,
    ) {
        let told = self.state().outcomes.told(transaction, is_commit);
        if let Err(violation) = told {
            trace.violated(&violation);
        }
    }

    /// What members of the group were told.
    pub(crate) fn memberships<T>(&self, look: impl FnOnce(&mut Memberships) -> T) -> T {
        look(&mut self.state().memberships)
    }

    /// What was written to the topic that is deleted and created anew.
    pub(crate) fn recreations<T>(&self, look: impl FnOnce(&mut Recreations) -> T) -> T {
        look(&mut self.state().recreations)
    }

    /// A transaction that has not ended everywhere, if there is one.
    pub(crate) fn open_transaction(&self) -> Option<String> {
        self.state().outcomes.open()
    }

    /// How many transactions ended by commit, and how many by abort.
    pub(crate) fn transaction_counts(&self) -> (usize, usize) {
        self.state().outcomes.counts()
    }

    /// A consumer read a record.
    pub(crate) fn consumed(
        &self,
        trace: &Trace,
        partition: &TopicPartition,
        offset: Offset,
        value: &Bytes,
    ) {
        let state = self.state();
        let truth = state.truths.get(partition);
        let entry = truth.and_then(|truth| truth.committed.get(&offset));
        if entry.is_none_or(|entry| entry.value != value) {
            let entry = entry.cloned();
            drop(state);
            trace.violated(&format!(
                "ReplicasAgreeBelowHighWatermark: a consumer read {value:?} at {partition} {offset}, \
                 where {entry:?} is committed"
            ));
        }
    }

    /// A reader of committed transactions was given a record.
    pub(crate) fn consumed_committed(
        &self,
        trace: &Trace,
        partition: &TopicPartition,
        value: &Bytes,
    ) {
        if !self.state().outcomes.is_to_be_seen(value) {
            trace.violated(&format!(
                "ReadersOfCommittedSeeNothingElse: {value:?} was read from {partition}"
            ));
        }
    }

    /// The end of what is committed.
    pub(crate) fn committed_end(&self, partition: &TopicPartition) -> Offset {
        let state = self.state();
        let truth = state.truths.get(partition);
        truth
            .and_then(|truth| truth.committed.keys().next_back())
            .map_or(0, |last| last + 1)
    }

    /// The latest value of each key of a compacted partition.
    pub(crate) fn latest_values(&self, partition: &TopicPartition) -> Latest {
        let state = self.state();
        let truth = state.truths.get(partition);
        let committed = truth.into_iter().flat_map(|truth| &truth.committed);
        let keyed = committed.filter_map(|(offset, entry)| {
            let value = entry.value.clone();
            Some((compactions::key_of(&value)?, (*offset, value)))
        });
        keyed.collect()
    }

    /// The latest value of each key on each broker that hosts a partition, as its log has it.
    pub(crate) fn replicas(
        &self,
        partition: &TopicPartition,
    ) -> Vec<(Node, Result<Latest, String>)> {
        let state = self.state();
        let hosts = state.brokers.iter().filter_map(|(node, broker)| {
            let found = broker
                .replicas
                .partition(&partition.topic, partition.partition);
            let log = found.ok()?.log().ok()?;
            Some((
                *node,
                compactions::latest_of(&log).map_err(|error| error.to_string()),
            ))
        });
        hosts.collect()
    }

    /// How many records a broker's log has, and where it ends; nothing if the broker does not host it.
    pub(crate) fn records_kept(
        &self,
        node: Node,
        partition: &TopicPartition,
    ) -> Option<(i64, Offset)> {
        let state = self.state();
        let broker = state.brokers.get(&node)?;
        let found = broker
            .replicas
            .partition(&partition.topic, partition.partition);
        let log = found.ok()?.log().ok()?;
        let mut kept = 0;
        compactions::walk(&log, |_, _| kept += 1).ok()?;
        Some((kept, log.log_end_offset()))
    }

    /// Acknowledged records that no high watermark has passed.
    pub(crate) fn uncommitted(&self) -> Vec<(TopicPartition, Offset)> {
        let state = self.state();
        let truths = state.truths.iter();
        let uncommitted = truths.flat_map(|(partition, truth)| {
            let offsets = truth.acknowledged.keys();
            offsets.map(|offset| (partition.clone(), *offset))
        });
        uncommitted.collect()
    }

    /// Looks at all replicas of all brokers that live.
    pub(crate) fn after_event(&self, trace: &Trace) {
        let mut state = self.state();
        let mut violations = Vec::new();
        let State {
            brokers,
            truths,
            outcomes,
            recreations,
            seen,
            unreadable,
            held,
            ..
        } = &mut *state;
        for (node, broker) in brokers {
            for partition in broker.replicas.partitions() {
                let view = partition.view();
                let Some(log) = view.log.as_ref().filter(|_| view.closed.is_none()) else {
                    continue;
                };
                let name = &incarnation(&partition.topic_partition, log);
                let ends = held.entry(name.clone()).or_default();
                ends.insert(*node, log.log_end_offset());
                let look = Look {
                    node: *node,
                    partition: name,
                    leader_epoch: view.leader_epoch,
                    is_leader: view.is_leader,
                    high_watermark: partition.high_watermark(),
                    log,
                    is_readable: !unreadable.contains(&log.log_dir()),
                };
                let truth = truths.entry(name.clone()).or_default();
                let seen = seen.entry((*node, name.clone())).or_default();
                let known = (&mut *outcomes, &mut *recreations);
                if let Err(violation) = look.check(truth, known, seen) {
                    violations.push(violation);
                }
            }
        }
        drop(state);
        for violation in violations {
            trace.violated(&violation);
        }
    }

    /// Looks at what was just written to ZooKeeper.
    pub(crate) fn zookeeper_written(
        &self,
        trace: &Trace,
        ensemble: &MemoryEnsemble,
        batch: &[Operation],
    ) {
        for operation in batch {
            match operation {
                Operation::Multi(operations) => {
                    self.zookeeper_written(trace, ensemble, operations);
                }
                Operation::Create { path, .. } | Operation::Set { path, .. } => {
                    if let Err(violation) = self.look_at_znode(ensemble, path) {
                        trace.violated(&violation);
                    }
                }
                _ => {}
            }
        }
    }

    fn look_at_znode(&self, ensemble: &MemoryEnsemble, path: &str) -> Result<(), String> {
        let Some((Some(data), stat)) = ensemble.node(path) else {
            return Ok(());
        };
        let malformed = |error: &dyn std::fmt::Display| {
            let text = String::from_utf8_lossy(&data);
            format!("ZnodesAreWellFormed: {path}: {error}: {text}")
        };
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match parts[..] {
            ["brokers", "ids", id] => {
                let id = BrokerId(id.parse().map_err(|error| malformed(&error))?);
                BrokerRegistration::decode(id, &data).map_err(|error| malformed(&error))?;
            }
            ["brokers", "topics", _] => {
                TopicAssignment::decode(&data).map_err(|error| malformed(&error))?;
            }
            ["controller"] => {
                ControllerSeat::decode(&data).map_err(|error| malformed(&error))?;
            }
            ["brokers", "topics", topic, "partitions", number, "state"] => {
                let number = number.parse().map_err(|error| malformed(&error))?;
                let leadership = PartitionState::decode(&data, stat.version)
                    .map_err(|error| malformed(&error))?;
                self.look_at_state(ensemble, &TopicPartition::new(topic, number), leadership)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn look_at_state(
        &self,
        ensemble: &MemoryEnsemble,
        partition: &TopicPartition,
        leadership: Leadership,
    ) -> Result<(), String> {
        let topic = ensemble.node(&TopicAssignment::path(&partition.topic));
        let assignment = topic
            .and_then(|(data, _)| TopicAssignment::decode(&data?).ok())
            .and_then(|topic| topic.partitions.get(&partition.partition).cloned())
            .ok_or_else(|| format!("IsrSubsetOfAssignment: {partition} is not assigned"))?;
        let isr = &leadership.isr;
        let leader_is_in_isr =
            leadership.leader == -1 || isr.contains(&BrokerId(leadership.leader));
        if isr.is_empty()
            || !leader_is_in_isr
            || !isr.iter().all(|id| assignment.replicas.contains(id))
        {
            return Err(format!(
                "IsrSubsetOfAssignment: {partition} {leadership:?}, replicas {:?}",
                assignment.replicas
            ));
        }
        let mut state = self.state();
        let truth = state.truths.entry(partition.clone()).or_default();
        // Of a topic that was created anew the epochs begin anew.
        let is_first = topic_is_recreated(&partition.topic) && leadership.partition_epoch == 0;
        if let Some(before) = truth.znode.as_ref().filter(|_| !is_first) {
            let falls = leadership.leader_epoch < before.leader_epoch
                || leadership.controller_epoch < before.controller_epoch;
            let changes_leader = leadership.leader_epoch == before.leader_epoch
                && leadership.leader != before.leader;
            if falls || changes_leader {
                return Err(format!(
                    "OneLeaderPerEpoch: {partition} from {before:?} to {leadership:?}"
                ));
            }
        }
        truth.znode = Some(leadership);
        Ok(())
    }
}

/// What a log is compared as: topics that bear the same name one after the other have nothing in common.
fn incarnation(partition: &TopicPartition, log: &PartitionLog) -> TopicPartition {
    if !topic_is_recreated(&partition.topic) {
        return partition.clone();
    }
    let topic = format!("{}@{:?}", partition.topic, log.topic_id());
    TopicPartition::new(&*topic, partition.partition)
}

/// A replica at this moment.
struct Look<'a> {
    node: Node,
    partition: &'a TopicPartition,
    leader_epoch: LeaderEpoch,
    is_leader: bool,
    high_watermark: Offset,
    log: &'a Arc<PartitionLog>,
    is_readable: bool,
}

impl Look<'_> {
    fn check(
        &self,
        truth: &mut Truth,
        known: (&mut Outcomes, &mut Recreations),
        seen: &mut Seen,
    ) -> Result<(), String> {
        let Self {
            node,
            partition,
            leader_epoch,
            high_watermark,
            ..
        } = self;
        if *leader_epoch < seen.leader_epoch {
            return Err(format!(
                "RolesAreNotTakenBack: {partition} on {node} is in epoch {leader_epoch} after {}",
                seen.leader_epoch
            ));
        }
        let is_same_role = seen.leader_epoch == *leader_epoch && seen.is_leader == self.is_leader;
        if is_same_role && self.is_leader && *high_watermark < seen.high_watermark {
            return Err(format!(
                "HighWatermarkIsMonotonic: {partition} on {node} in epoch {leader_epoch}: \
                 {high_watermark} after {}",
                seen.high_watermark
            ));
        }
        let log_end_offset = self.log.log_end_offset();
        if self.is_leader && !is_same_role {
            let leader = BrokerId(*node);
            let known = *truth.leaders.entry(*leader_epoch).or_insert(leader);
            if known != leader {
                return Err(format!(
                    "OneLeaderPerEpoch: {partition} has {known} and {leader} in epoch {leader_epoch}"
                ));
            }
            let earlier = truth
                .committed
                .iter()
                .next_back()
                .filter(|(_, entry)| entry.leader_epoch < *leader_epoch);
            if let Some((last, _)) = earlier
                && log_end_offset <= *last
            {
                return Err(format!(
                    "LeadersHaveWhatIsCommitted: {partition} on {node} in epoch {leader_epoch} ends at \
                     {log_end_offset}, and {last} is committed"
                ));
            }
        }
        seen.leader_epoch = *leader_epoch;
        seen.is_leader = self.is_leader;
        seen.high_watermark = *high_watermark;
        if log_end_offset < seen.compared {
            seen.compared = log_end_offset;
        }
        let end = log_end_offset.min(*high_watermark);
        if seen.compared < end && self.is_readable {
            let from = seen.compared.max(self.log.log_start_offset());
            self.compare(from, end, truth, known)?;
            seen.compared = end;
        }
        Ok(())
    }

    /// Compares the log with what is committed.
    fn compare(
        &self,
        from: Offset,
        end: Offset,
        truth: &mut Truth,
        (outcomes, recreations): (&mut Outcomes, &mut Recreations),
    ) -> Result<(), String> {
        let (node, partition) = (self.node, self.partition);
        let unreadable = |error: &dyn std::fmt::Display| {
            format!("LogsCanBeRead: {partition} on {node}: {error}")
        };
        let mut position = from;
        while position < end {
            let slice = self.log.read(position, READ_BYTES, end, true);
            let bytes = slice
                .map_err(|error| unreadable(&error))?
                .read_all()
                .map_err(|error| unreadable(&error))?;
            let before = position;
            let walk = batches(&bytes);
            for batch in walk.clone() {
                // The last may be cut.
                let Ok((place, meta)) = batch else { break };
                if meta.last_offset < position {
                    continue;
                }
                if meta.base_offset >= end {
                    break;
                }
                let batch = bytes.slice_ref(walk.slice(place, &meta));
                let marker = if meta.is_control {
                    ControlRecord::of_batch(&batch).map_err(|error| unreadable(&error))?
                } else {
                    None
                };
                for record in records(&batch).map_err(|error| unreadable(&error))? {
                    let record = record.map_err(|error| unreadable(&error))?;
                    if record.offset < from || record.offset >= end {
                        continue;
                    }
                    let entry = Entry {
                        leader_epoch: meta.leader_epoch,
                        producer_id: meta.producer_id,
                        sequence: record.sequence,
                        value: record.value.unwrap_or_default(),
                    };
                    let (producer_id, value) = (entry.producer_id, entry.value.clone());
                    if !self.commit(record.offset, entry, truth)? {
                        continue;
                    }
                    recreations.committed(&partition.topic, &value)?;
                    match marker {
                        Some(ControlRecord::Commit { .. }) => {
                            outcomes.marker(partition, producer_id, true)?;
                        }
                        Some(ControlRecord::Abort { .. }) => {
                            outcomes.marker(partition, producer_id, false)?;
                        }
                        None if meta.is_transactional => {
                            outcomes.record(partition, producer_id, &value);
                        }
                        Some(ControlRecord::Unknown(_)) | None => {}
                    }
                }
                position = meta.last_offset + 1;
            }
            if position == before && compactions::may_have_gaps(&partition.topic) {
                break;
            }
            if position == before {
                return Err(unreadable(&format!("nothing at {position}, below {end}")));
            }
        }
        Ok(())
    }

    /// Returns whether the record was not seen on any replica before.
    fn commit(&self, offset: Offset, entry: Entry, truth: &mut Truth) -> Result<bool, String> {
        let (node, partition) = (self.node, self.partition);
        if let Some(known) = truth.committed.get(&offset) {
            return if *known == entry {
                Ok(false)
            } else {
                Err(format!(
                    "ReplicasAgreeBelowHighWatermark: {partition} {offset} on {node} is {entry:?}, and \
                     {known:?} was committed"
                ))
            };
        }
        if let Some(value) = truth.acknowledged.remove(&offset)
            && value != entry.value
        {
            return Err(format!(
                "AcknowledgedRecordsSurvive: {partition} {offset} on {node} is {entry:?}, and {value:?} was \
                 acknowledged"
            ));
        }
        if let Some(number) = number_of(&entry.value).filter(|_| entry.producer_id >= 0) {
            let last = truth.last_of_producer.get(&entry.producer_id);
            if let Some((last, at)) = last
                && ((*at < offset) != (*last < number) || *last == number)
            {
                return Err(format!(
                    "NoDuplicatesNoReordering: {partition} {offset} on {node} is {entry:?}, and the producer's \
                     number {last} is at {at}"
                ));
            }
            truth
                .last_of_producer
                .insert(entry.producer_id, (number, offset));
        }
        truth.committed.insert(offset, entry);
        Ok(true)
    }
}
