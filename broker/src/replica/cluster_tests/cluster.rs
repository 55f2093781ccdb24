//! Several brokers in one process: real replicas and handlers, files and network in memory, and a
//! controller that does as the test says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use barnabas_core::control::{
    BrokerAddress, ControlHeader, LeaderAndIsr, LeaderAndIsrPartition, Leadership,
    PartitionMetadata, StopReplica, StopReplicaPartition, UpdateMetadata,
};
use barnabas_core::controller::{
    AlterPartition, AlterPartitionError, AlteredPartition, IsrRefusal,
};
use barnabas_core::ids::{BrokerId, Offset, TopicId, TopicPartition};
use barnabas_core::partition::leader_epochs::EpochStart;
use barnabas_core::records::{BatchBuilder, Compression, batches, records};
use barnabas_core::znodes::ConfigEntity;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::{Decodable as _, StrBytes};

use crate::api::dispatch::{Outcome, dispatch};
use crate::api::testing::{Setup, TestBroker, inlined, live_broker};
use crate::api::{Connection, Reply, produce};
use crate::files::Files;
use crate::files::memory::Memory;
use crate::log::PartitionLog;
use crate::peer::{PeerError, PeerNetwork, PeerStream};
use crate::replica::{IsrChanges, Partition};

pub(in crate::replica) const TOPIC: &str = "rep";
const CONTROLLER_EPOCH: i32 = 1;

/// The cables between brokers.
#[derive(Default)]
pub(in crate::replica) struct Cables {
    state: Mutex<CableState>,
}

#[derive(Default)]
struct CableState {
    up: BTreeMap<i32, Arc<TestBroker>>,
    /// Pairs (from, to) that do not reach each other.
    cut: BTreeSet<(i32, i32)>,
    requests: u64,
}

/// One end of the cables.
struct Plug {
    cables: Arc<Cables>,
    from: i32,
}

struct Wire {
    cables: Arc<Cables>,
    from: i32,
    to: i32,
    broker: Arc<TestBroker>,
    connection: Connection,
}

impl Cables {
    fn lock(&self) -> MutexGuard<'_, CableState> {
        self.state.lock().unwrap()
    }

    fn target(&self, from: i32, to: i32) -> Option<Arc<TestBroker>> {
        let state = self.lock();
        let is_cut = state.cut.contains(&(from, to));
        state.up.get(&to).filter(|_| !is_cut).cloned()
    }
}

impl PeerNetwork for Plug {
    fn connect<'a>(
        &'a self,
        address: &'a BrokerAddress,
    ) -> BoxFuture<'a, Result<Box<dyn PeerStream>, PeerError>> {
        async move {
            let to = address.id.0;
            let broker = self.cables.target(self.from, to);
            let broker = broker
                .ok_or_else(|| PeerError::Refused(io::Error::from(ErrorKind::ConnectionRefused)))?;
            let wire = Wire {
                cables: Arc::clone(&self.cables),
                from: self.from,
                to,
                connection: broker.connection.clone(),
                broker,
            };
            Ok(Box::new(wire) as Box<dyn PeerStream>)
        }
        .boxed()
    }
}

impl PeerStream for Wire {
    fn exchange(
        &mut self,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        async move {
            let reset = || PeerError::Reset(io::Error::from(ErrorKind::ConnectionReset));
            let is_same = |broker: &Arc<TestBroker>| Arc::ptr_eq(broker, &self.broker);
            let before = self.cables.target(self.from, self.to);
            before.filter(is_same).ok_or_else(reset)?;
            self.cables.lock().requests += 1;
            let answer = dispatch(request, &self.broker.broker, &self.connection);
            let outcome = tokio::time::timeout(timeout, answer)
                .await
                .map_err(|_| PeerError::TimedOut)?;
            let after = self.cables.target(self.from, self.to);
            after.filter(is_same).ok_or_else(reset)?;
            match outcome {
                Outcome::Respond(response) => {
                    let mut bytes = response.head()[4..].to_vec();
                    bytes.extend(inlined(response.sections()));
                    Ok(bytes.into())
                }
                Outcome::Silent(_) | Outcome::Close(_) => Err(reset()),
            }
        }
        .boxed()
    }
}

/// What the controller knows of the partition.
pub(in crate::replica) struct Seat {
    leadership: Mutex<Leadership>,
    pub(in crate::replica) refuse: Mutex<Option<IsrRefusal>>,
    pub(in crate::replica) asked: Mutex<u32>,
}

impl IsrChanges for Seat {
    fn alter_partition(
        &self,
        request: AlterPartition,
    ) -> BoxFuture<'_, Result<Vec<AlteredPartition>, AlterPartitionError>> {
        *self.asked.lock().unwrap() += 1;
        let answers = request.partitions.into_iter().map(|proposal| {
            let mut leadership = self.leadership.lock().unwrap();
            let refused = *self.refuse.lock().unwrap();
            let result = if let Some(refusal) = refused {
                Err(refusal)
            } else if proposal.leader_epoch < leadership.leader_epoch {
                Err(IsrRefusal::FencedLeaderEpoch)
            } else if proposal.partition_epoch != leadership.partition_epoch {
                Err(IsrRefusal::InvalidUpdateVersion)
            } else {
                leadership.isr = proposal.isr;
                leadership.partition_epoch += 1;
                Ok(leadership.clone())
            };
            AlteredPartition {
                partition: proposal.partition,
                result,
            }
        });
        let answers = answers.collect();
        async move { Ok(answers) }.boxed()
    }
}

/// Brokers with one partition of one topic between them.
pub(in crate::replica) struct Cluster {
    cables: Arc<Cables>,
    pub(in crate::replica) seat: Arc<Seat>,
    settings: Vec<(&'static str, &'static str)>,
    files: BTreeMap<i32, Memory>,
    nodes: BTreeMap<i32, Arc<TestBroker>>,
    pub(in crate::replica) replicas: Vec<i32>,
    topic_id: TopicId,
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn header() -> ControlHeader {
    ControlHeader {
        controller_id: BrokerId(1),
        controller_epoch: CONTROLLER_EPOCH,
        broker_epoch: -1,
    }
}

impl Cluster {
    /// Brokers 1 to `count` with a partition that 1 leads and all are in sync with.
    pub(in crate::replica) fn new(count: i32, settings: &[(&'static str, &'static str)]) -> Self {
        let replicas: Vec<i32> = (1..=count).collect();
        let topic_id = TopicId(uuid::Uuid::from_u128(0x7001));
        let mut cluster = Self::without_brokers(&replicas, settings, topic_id);
        for &id in &replicas {
            cluster.start(id);
        }
        cluster.elect(1, &replicas);
        cluster
    }

    pub(in crate::replica) fn without_brokers(
        replicas: &[i32],
        settings: &[(&'static str, &'static str)],
        topic_id: TopicId,
    ) -> Self {
        Self {
            cables: Arc::default(),
            seat: Arc::new(Seat {
                leadership: Mutex::new(Leadership {
                    controller_epoch: CONTROLLER_EPOCH,
                    leader: -1,
                    leader_epoch: -1,
                    isr: ids(replicas),
                    partition_epoch: -1,
                    is_recovering: false,
                }),
                refuse: Mutex::default(),
                asked: Mutex::default(),
            }),
            settings: settings.to_vec(),
            files: BTreeMap::new(),
            nodes: BTreeMap::new(),
            replicas: replicas.to_vec(),
            topic_id,
        }
    }

    /// Starts a broker on the files that it left, or on none.
    pub(in crate::replica) fn start(&mut self, id: i32) {
        let memory = self.files.entry(id).or_default().clone();
        memory.set_clock_ms(crate::clock::wall_clock_ms());
        memory.release_locks();
        self.start_on(id, Arc::new(memory.clone()), memory, &[]);
    }

    /// Starts a broker on a directory of the disk.
    pub(in crate::replica) fn start_on_disk(&mut self, id: i32, log_dir: &Path) {
        let disk = Arc::new(crate::files::disk::Disk);
        let log_dir = log_dir.to_str().unwrap();
        self.start_on(id, disk, Memory::new(), &[("log.dirs", log_dir)]);
    }

    fn start_on(&mut self, id: i32, files: Arc<dyn Files>, memory: Memory, more: &[(&str, &str)]) {
        let mut settings: Vec<(&str, &str)> = self.settings.clone();
        settings.extend(more);
        let broker = Arc::new(TestBroker::build(Setup {
            id: BrokerId(id),
            settings: &settings,
            files,
            memory,
            network: Arc::new(Plug {
                cables: Arc::clone(&self.cables),
                from: id,
            }),
            isr: self.seat.clone(),
        }));
        broker.broker.replicas.start();
        self.cables.lock().up.insert(id, Arc::clone(&broker));
        self.nodes.insert(id, broker);
        self.tell_metadata();
    }

    /// Changes a dynamic setting of a broker that runs.
    pub(in crate::replica) fn set_broker_setting(&self, id: i32, name: &str, value: &str) {
        let node = &self.broker(id).broker;
        let overrides = [(name.to_owned(), value.to_owned())].into_iter().collect();
        let entity = ConfigEntity::Broker(BrokerId(id));
        node.config.entity_changed(&entity, overrides);
        node.replicas.broker_config_changed(&node.config.broker());
    }

    /// Ends a broker as `kill -9` would: what it wrote stays.
    pub(in crate::replica) fn kill(&mut self, id: i32) {
        self.cables.lock().up.remove(&id);
        if let Some(node) = self.nodes.remove(&id) {
            node.broker.replicas.stop();
        }
        self.tell_metadata();
    }

    /// Ends a broker in order.
    pub(in crate::replica) fn stop(&mut self, id: i32) {
        let node = self.nodes[&id].clone();
        self.kill(id);
        node.broker.replicas.checkpoint_high_watermarks();
        node.broker.logs.shutdown();
    }

    pub(in crate::replica) fn is_up(&self, id: i32) -> bool {
        self.nodes.contains_key(&id)
    }

    /// Cuts the cable by which `from` reaches `to`, or mends it.
    pub(in crate::replica) fn set_cut(&self, from: i32, to: i32, is_cut: bool) {
        let mut cables = self.cables.lock();
        if is_cut {
            cables.cut.insert((from, to));
        } else {
            cables.cut.remove(&(from, to));
        }
    }

    /// How many requests brokers have sent to each other.
    pub(in crate::replica) fn requests(&self) -> u64 {
        self.cables.lock().requests
    }

    /// The controller's view.
    pub(in crate::replica) fn leadership(&self) -> Leadership {
        self.seat.leadership.lock().unwrap().clone()
    }

    /// Says who leads under which epoch, without telling it.
    pub(in crate::replica) fn set_leadership(&self, leader: i32, leader_epoch: i32, isr: &[i32]) {
        let mut leadership = self.seat.leadership.lock().unwrap();
        leadership.leader = leader;
        leadership.leader_epoch = leader_epoch;
        leadership.partition_epoch = leader_epoch;
        leadership.isr = ids(isr);
        drop(leadership);
        self.tell_metadata();
    }

    /// Another leader, under the next epoch; all that are up are told.
    pub(in crate::replica) fn elect(&self, leader: i32, isr: &[i32]) {
        {
            let mut leadership = self.seat.leadership.lock().unwrap();
            leadership.leader = leader;
            leadership.leader_epoch += 1;
            leadership.partition_epoch += 1;
            leadership.isr = ids(isr);
        }
        self.tell_metadata();
        for id in self.nodes.keys() {
            self.tell_leader(*id);
        }
    }

    /// `LeaderAndIsr` to one broker.
    pub(in crate::replica) fn tell_leader(&self, id: i32) {
        let request = LeaderAndIsr {
            header: header(),
            partitions: vec![LeaderAndIsrPartition {
                topic_partition: TopicPartition::new(TOPIC, 0),
                topic_id: Some(self.topic_id),
                leadership: self.leadership(),
                replicas: ids(&self.replicas),
                adding_replicas: Vec::new(),
                removing_replicas: Vec::new(),
                is_new: true,
            }],
            live_leaders: Vec::new(),
        };
        let outcome = self.nodes[&id]
            .broker
            .replicas
            .apply_leader_and_isr(&request);
        assert!(outcome.partitions[0].1.is_ok(), "{outcome:?}");
    }

    /// `StopReplica` to one broker.
    pub(in crate::replica) fn stop_replica(&self, id: i32, delete: bool) {
        let request = StopReplica {
            header: header(),
            partitions: vec![StopReplicaPartition {
                topic_partition: TopicPartition::new(TOPIC, 0),
                leader_epoch: -1,
                delete,
            }],
        };
        let outcome = self.nodes[&id].broker.replicas.apply_stop_replica(&request);
        assert!(outcome.partitions[0].1.is_ok(), "{outcome:?}");
    }

    fn tell_metadata(&self) {
        let update = UpdateMetadata {
            header: header(),
            partitions: Arc::new([PartitionMetadata {
                topic_partition: TopicPartition::new(TOPIC, 0),
                topic_id: Some(self.topic_id),
                leadership: self.leadership(),
                replicas: ids(&self.replicas),
                offline_replicas: Vec::new(),
            }]),
            live_brokers: self
                .nodes
                .keys()
                .map(|&id| live_broker(id, 9000 + id as u16))
                .collect(),
        };
        for node in self.nodes.values() {
            node.broker.replicas.apply_update_metadata(&update).unwrap();
        }
    }

    pub(in crate::replica) fn node(&self, id: i32) -> Arc<TestBroker> {
        Arc::clone(&self.nodes[&id])
    }

    pub(in crate::replica) fn broker(&self, id: i32) -> &TestBroker {
        &self.nodes[&id]
    }

    pub(in crate::replica) fn partition(&self, id: i32) -> Arc<Partition> {
        self.nodes[&id].broker.replicas.partition(TOPIC, 0).unwrap()
    }

    pub(in crate::replica) fn log(&self, id: i32) -> Arc<PartitionLog> {
        self.partition(id).log().unwrap()
    }

    /// All bytes of a replica's log.
    pub(in crate::replica) fn bytes(&self, id: i32) -> Vec<u8> {
        bytes_of(&self.log(id))
    }

    /// The values of all records of a replica, with their offsets.
    pub(in crate::replica) fn values(&self, id: i32) -> Vec<(Offset, String)> {
        values_of(&self.bytes(id).into())
    }

    /// The leader epochs that have records: a follower learns of an epoch by its first record.
    pub(in crate::replica) fn epochs(&self, id: i32) -> Vec<EpochStart> {
        let log = self.log(id);
        let mut epochs = log.leader_epochs();
        epochs.retain(|epoch| epoch.start_offset < log.log_end_offset());
        epochs
    }

    /// Writes values as one batch through a broker; the error code and base offset.
    pub(in crate::replica) async fn produce(
        &self,
        id: i32,
        acks: i16,
        values: &[&str],
    ) -> (i16, Offset) {
        let node = Arc::clone(&self.nodes[&id]);
        produce_to(&node, acks, values).await
    }

    /// Waits until all replicas that are up are equal to the leader and know what is committed.
    pub(in crate::replica) async fn settled(&self) {
        let leader = self.leadership().leader;
        let is_settled = || {
            let (end, committed) = (
                self.log(leader).log_end_offset(),
                self.partition(leader).high_watermark(),
            );
            end == committed
                && self.nodes.keys().all(|id| {
                    self.log(*id).log_end_offset() == end
                        && self.partition(*id).high_watermark() == end
                })
        };
        self.until("all replicas are equal", is_settled).await;
        for id in self.nodes.keys() {
            assert_eq!(self.bytes(*id), self.bytes(leader), "broker {id}");
            assert_eq!(self.epochs(*id), self.epochs(leader), "broker {id}");
        }
    }

    /// Waits (on paused time) until `condition` holds.
    pub(in crate::replica) async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        for _ in 0..20_000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for id in self.nodes.keys() {
            let log = self.log(*id);
            eprintln!(
                "broker {id}: {} to {}, high watermark {}, epochs {:?}",
                log.log_start_offset(),
                log.log_end_offset(),
                self.partition(*id).high_watermark(),
                self.epochs(*id)
            );
        }
        panic!("it never came to be that {what}: {:?}", self.leadership());
    }
}

pub(in crate::replica) async fn produce_to(
    node: &TestBroker,
    acks: i16,
    values: &[&str],
) -> (i16, Offset) {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
    }
    let request = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(60_000)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
                .with_partition_data(vec![
                    PartitionProduceData::default().with_records(Some(builder.build())),
                ]),
        ]);
    let Reply::Body(mut body) = produce::produce(request, &node.context(9)).await else {
        panic!("no answer");
    };
    let response = ProduceResponse::decode(&mut body, 9).unwrap();
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

pub(in crate::replica) fn bytes_of(log: &PartitionLog) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut offset = log.log_start_offset();
    while offset < log.log_end_offset() {
        let slice = log.read(offset, usize::MAX, Offset::MAX, true).unwrap();
        let part = slice.read_all().unwrap();
        let last = batches(&part).last().unwrap().unwrap().1;
        offset = last.last_offset + 1;
        bytes.extend_from_slice(&part);
    }
    bytes
}

pub(in crate::replica) fn values_of(bytes: &Bytes) -> Vec<(Offset, String)> {
    let mut values = Vec::new();
    for batch in batches(bytes) {
        let (position, meta) = batch.unwrap();
        let batch = bytes.slice(position..position + meta.size_in_bytes);
        for record in records(&batch).unwrap() {
            let record = record.unwrap();
            let value = record.value.as_deref().unwrap_or_default();
            values.push((record.offset, String::from_utf8(value.to_vec()).unwrap()));
        }
    }
    values
}
