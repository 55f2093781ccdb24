//! Producers and consumers that never give up, and note what they are told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use barnabas_broker::peer::{Peer, PeerError};
use barnabas_core::control::BrokerAddress;
use barnabas_core::ids::{BrokerId, Offset, TopicPartition};
use barnabas_core::records::{BatchBuilder, Compression, batches, records};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, CreateTopicsRequest, FetchRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use super::checks::value_of;
use super::network::{Network, Node, PORT, host_name};

/// How long a client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// What clients have in common.
pub(crate) struct Client {
    pub(crate) network: Arc<Network>,
    pub(crate) node: Node,
    brokers: Node,
    peers: BTreeMap<Node, Peer>,
    /// Leader and epoch, which never falls.
    leaders: BTreeMap<TopicPartition, (Node, i32)>,
    pub(crate) random: StdRng,
}

/// How far a client is, for those who wait for it.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) steps: AtomicU64,
    pub(crate) is_to_stop: AtomicBool,
    pub(crate) has_stopped: AtomicBool,
}

impl Progress {
    pub(crate) fn goes_on(&self) -> bool {
        !self.is_to_stop.load(Ordering::SeqCst)
    }

    pub(crate) fn step(&self) {
        self.steps.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) fn name(text: &str) -> TopicName {
    StrBytes::from_string(text.to_owned()).into()
}

impl Client {
    pub(crate) fn new(network: &Arc<Network>, node: Node, brokers: Node, seed: u64) -> Self {
        Self {
            network: network.clone(),
            node,
            brokers,
            peers: BTreeMap::new(),
            leaders: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    pub(crate) async fn call<R: Request + Encodable + HeaderVersion>(
        &mut self,
        to: Node,
        version: i16,
        request: &R,
    ) -> Result<R::Response, PeerError> {
        let port = self.network.port(self.node);
        let peer = self.peers.entry(to).or_insert_with(|| {
            let address = BrokerAddress {
                id: BrokerId(to),
                host: host_name(to),
                port: PORT,
            };
            Peer::new(port, address, "simulated".to_owned())
        });
        peer.call(version, request, ANSWER_TIMEOUT).await
    }

    /// Another client on the same machine.
    pub(crate) fn twin(&mut self) -> Self {
        let seed = self.random.random();
        Self {
            leaders: self.leaders.clone(),
            ..Self::new(&self.network, self.node, self.brokers, seed)
        }
    }

    pub(crate) fn any_broker(&mut self) -> Node {
        self.random.random_range(1..=self.brokers)
    }

    pub(crate) async fn pause(&mut self, most_ms: u64) {
        let ms = self.random.random_range(0..=most_ms);
        sleep(Duration::from_millis(ms)).await;
    }

    /// Creates a topic, however often that has to be tried.
    pub(crate) async fn create_topic(&mut self, topic: &str, partitions: i32, replicas: i16) {
        self.create_topic_with(topic, partitions, replicas, &[])
            .await;
    }

    /// Creates a topic that has settings of its own.
    pub(crate) async fn create_topic_with(
        &mut self,
        topic: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&'static str, &'static str)],
    ) {
        let configs = configs.iter().map(|(key, value)| {
            let value = StrBytes::from_static_str(value);
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str(key))
                .with_value(Some(value))
        });
        let wanted = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_timeout_ms(3_000)
            .with_topics(vec![wanted]);
        loop {
            let broker = self.any_broker();
            if let Ok(response) = self.call(broker, 5, &request).await {
                let code = response.topics.first().map_or(-1, |topic| topic.error_code);
                if code == 0 || code == ResponseError::TopicAlreadyExists.code() {
                    return;
                }
                self.network
                    .trace
                    .note(&format!("{} create topic: {code}", self.node));
            }
            self.pause(1_000).await;
        }
    }

    pub(crate) async fn refresh(&mut self) {
        let broker = self.any_broker();
        let request = MetadataRequest::default().with_topics(None);
        let Ok(response) = self.call(broker, 12, &request).await else {
            return;
        };
        for topic in response.topics {
            let Some(topic_name) = &topic.name else {
                continue;
            };
            for partition in topic.partitions {
                let key = TopicPartition::new(topic_name.as_str(), partition.partition_index);
                let (leader, epoch) = (partition.leader_id.0, partition.leader_epoch);
                let known = self.leaders.get(&key).map_or(-1, |(_, epoch)| *epoch);
                if epoch >= known {
                    self.leaders.insert(key, (leader, epoch));
                }
            }
        }
    }

    /// The leader as the last metadata named it.
    pub(crate) fn known_leader(&self, partition: &TopicPartition) -> Option<Node> {
        let (leader, _) = self.leaders.get(partition)?;
        (*leader >= 0).then_some(*leader)
    }

    /// A topic is deleted; what is created under its name is another.
    pub(crate) fn forget(&mut self, topic: &str) {
        self.leaders
            .retain(|partition, _| *partition.topic != *topic);
    }

    pub(crate) async fn leader(&mut self, partition: &TopicPartition) -> (Node, i32) {
        loop {
            match self.leaders.get(partition) {
                Some((leader, epoch)) if *leader >= 0 => return (*leader, *epoch),
                _ => {
                    self.refresh().await;
                    self.pause(100).await;
                }
            }
        }
    }

    /// Asks the controller to move a partition to other brokers. Whether it does is of no concern.
    pub(crate) async fn reassign_something(
        &mut self,
        partitions: &[TopicPartition],
        replicas: i16,
    ) {
        let partition = &partitions[self.random.random_range(0..partitions.len())];
        let mut brokers: Vec<i32> = (1..=self.brokers).collect();
        brokers.shuffle(&mut self.random);
        brokers.truncate(replicas as usize);
        self.network
            .trace
            .note(&format!("{partition} is to move to {brokers:?}"));
        let broker = self.any_broker();
        let request = MetadataRequest::default().with_topics(None);
        let Ok(metadata) = self.call(broker, 12, &request).await else {
            return;
        };
        let wanted = ReassignablePartition::default()
            .with_partition_index(partition.partition)
            .with_replicas(Some(brokers.into_iter().map(Into::into).collect()));
        let topic = ReassignableTopic::default()
            .with_name(name(&partition.topic))
            .with_partitions(vec![wanted]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(10_000)
            .with_topics(vec![topic]);
        let controller = metadata.controller_id.0;
        if controller > 0
            && let Ok(response) = self.call(controller, 0, &request).await
        {
            let note = format!("reassignment: {}", response.error_code);
            self.network.trace.note(&note);
        }
    }

    pub(crate) async fn producer_id(&mut self) -> (i64, i16) {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        loop {
            let broker = self.any_broker();
            if let Ok(response) = self.call(broker, 4, &request).await
                && response.error_code == 0
            {
                return (response.producer_id.0, response.producer_epoch);
            }
            self.pause(200).await;
        }
    }

    pub(crate) fn violated(&self, what: &str) {
        self.network.trace.violated(what);
    }
}

/// Errors after which a producer tries again.
pub(crate) fn is_retriable(code: i16) -> bool {
    [
        ResponseError::UnknownTopicOrPartition,
        ResponseError::LeaderNotAvailable,
        ResponseError::NotLeaderOrFollower,
        ResponseError::RequestTimedOut,
        ResponseError::NotEnoughReplicas,
        ResponseError::NotEnoughReplicasAfterAppend,
        ResponseError::KafkaStorageError,
        ResponseError::FencedLeaderEpoch,
        ResponseError::UnknownLeaderEpoch,
        ResponseError::OffsetNotAvailable,
        ResponseError::ReplicaNotAvailable,
    ]
    .iter()
    .any(|error| error.code() == code)
}

/// Sends numbered records to all partitions, idempotent and with acks=all, one request at a time.
pub(crate) async fn produce(
    mut client: Client,
    partitions: Vec<TopicPartition>,
    progress: Arc<Progress>,
) {
    let (producer_id, producer_epoch) = client.producer_id().await;
    let mut sent: BTreeMap<TopicPartition, u64> = BTreeMap::new();
    while progress.goes_on() {
        let index = client.random.random_range(0..partitions.len());
        let partition = &partitions[index];
        let first = sent.get(partition).copied().unwrap_or(0);
        let count = client.random.random_range(1..=4_u64);
        let now_ms = client.network.wall_clock_ms();
        let mut batch = BatchBuilder::new(Compression::None).producer(
            producer_id,
            producer_epoch,
            first as i32,
        );
        for number in first..first + count {
            batch.push(now_ms, None, Some(&value_of(client.node, number)), &[]);
        }
        let Some(offset) = send(&mut client, partition, &batch.build(), &progress).await else {
            break;
        };
        let checks = client.network.checks.clone();
        for number in first..first + count {
            let value = value_of(client.node, number);
            let at = offset + (number - first) as i64;
            checks.acknowledged(&client.network.trace, partition, at, value);
        }
        sent.insert(partition.clone(), first + count);
        progress.step();
        client.pause(60).await;
    }
    progress.has_stopped.store(true, Ordering::SeqCst);
}

/// Sends a batch until it is acknowledged, or nobody wants it any more.
pub(crate) async fn send(
    client: &mut Client,
    partition: &TopicPartition,
    batch: &Bytes,
    progress: &Progress,
) -> Option<Offset> {
    let data = PartitionProduceData::default()
        .with_index(partition.partition)
        .with_records(Some(batch.clone()));
    let topic = TopicProduceData::default()
        .with_name(name(&partition.topic))
        .with_partition_data(vec![data]);
    while progress.goes_on() {
        let (leader, _) = client.leader(partition).await;
        let timeout_ms = client.random.random_range(500..4_000);
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(-1)
            .with_timeout_ms(timeout_ms)
            .with_topic_data(vec![topic.clone()]);
        if let Ok(response) = client.call(leader, 9, &request).await {
            let Some(answer) = response
                .responses
                .first()
                .and_then(|topic| topic.partition_responses.first())
            else {
                client.violated("AnswersAreComplete: a produce response names no partition");
                return None;
            };
            if answer.error_code == 0 {
                return Some(answer.base_offset);
            }
            if !is_retriable(answer.error_code) {
                client.violated(&format!(
                    "NoDuplicatesNoReordering: producer {} of {partition} was told {:?}",
                    client.node,
                    ResponseError::try_from_code(answer.error_code)
                ));
                return None;
            }
        }
        client.refresh().await;
        client.pause(100).await;
    }
    None
}

/// What a consumer wants to see, as Kafka numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isolation {
    Uncommitted = 0,
    Committed = 1,
}

/// The aborted transactions of an answer, as Kafka's consumer keeps track of them.
struct Aborted {
    /// First offset and producer id, in the order of offsets.
    to_come: VecDeque<(Offset, i64)>,
    producers: BTreeSet<i64>,
}

impl Aborted {
    fn of(answer: &PartitionData) -> Self {
        let aborted = answer.aborted_transactions.iter().flatten();
        let mut to_come: Vec<_> = aborted
            .map(|aborted| (aborted.first_offset, aborted.producer_id.0))
            .collect();
        to_come.sort_unstable();
        Self {
            to_come: to_come.into(),
            producers: BTreeSet::new(),
        }
    }

    /// Whether a batch of that producer belongs to an aborted transaction.
    fn contain(&mut self, base_offset: Offset, producer_id: i64) -> bool {
        while let Some((first_offset, producer)) = self.to_come.front().copied()
            && first_offset <= base_offset
        {
            self.to_come.pop_front();
            self.producers.insert(producer);
        }
        self.producers.contains(&producer_id)
    }

    /// A marker of that producer was read.
    fn ended(&mut self, producer_id: i64) {
        self.producers.remove(&producer_id);
    }
}

/// Reads all partitions from the beginning and checks what is read.
pub(crate) async fn consume(
    mut client: Client,
    partitions: Vec<TopicPartition>,
    positions: Arc<std::sync::Mutex<BTreeMap<TopicPartition, Offset>>>,
    progress: Arc<Progress>,
) {
    let mut turn = 0;
    let isolation = if client.random.random_bool(0.5) {
        Isolation::Committed
    } else {
        Isolation::Uncommitted
    };
    while progress.goes_on() {
        let partition = &partitions[turn % partitions.len()];
        turn += 1;
        let position = {
            let positions = positions.lock().expect("nobody panics");
            positions.get(partition).copied().unwrap_or(0)
        };
        if let Some(next) = fetch(&mut client, partition, position, isolation).await {
            let mut positions = positions.lock().expect("nobody panics");
            positions.insert(partition.clone(), next);
            progress.step();
        } else {
            client.refresh().await;
            client.pause(200).await;
        }
        client.pause(20).await;
    }
    progress.has_stopped.store(true, Ordering::SeqCst);
}

/// What the leader answers to a reader at a position; nothing if that did not work.
async fn fetch_from(
    client: &mut Client,
    partition: &TopicPartition,
    position: Offset,
    isolation: Isolation,
) -> Option<PartitionData> {
    let (leader, epoch) = client.leader(partition).await;
    let wanted = FetchPartition::default()
        .with_partition(partition.partition)
        .with_current_leader_epoch(epoch)
        .with_fetch_offset(position)
        .with_partition_max_bytes(4096);
    let topic = FetchTopic::default()
        .with_topic(name(&partition.topic))
        .with_partitions(vec![wanted]);
    let request = FetchRequest::default()
        .with_max_wait_ms(client.random.random_range(0..300))
        .with_min_bytes(1)
        .with_isolation_level(isolation as i8)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic]);
    let response = client.call(leader, 11, &request).await.ok()?;
    let answer = response.responses.first()?.partitions.first()?;
    if answer.error_code != 0 {
        if !is_retriable(answer.error_code) {
            client.violated(&format!(
                "CommittedRecordsStay: a consumer at {partition} {position} was told {:?}",
                ResponseError::try_from_code(answer.error_code)
            ));
        }
        return None;
    }
    Some(answer.clone())
}

/// Reads from a position on; gives back the next one, or nothing if that did not work.
async fn fetch(
    client: &mut Client,
    partition: &TopicPartition,
    position: Offset,
    isolation: Isolation,
) -> Option<i64> {
    let answer = fetch_from(client, partition, position, isolation).await?;
    let mut aborted = Aborted::of(&answer);
    let bytes = answer.records.clone().unwrap_or_default();
    let mut next = position;
    let walk = batches(&bytes);
    for batch in walk.clone() {
        let Ok((place, meta)) = batch else { break };
        let batch = bytes.slice_ref(walk.slice(place, &meta));
        let is_seen = isolation == Isolation::Committed
            && !meta.is_control
            && !aborted.contain(meta.base_offset, meta.producer_id);
        if meta.is_control {
            aborted.ended(meta.producer_id);
        }
        for record in records(&batch).ok()?.filter_map(Result::ok) {
            if record.offset < next {
                continue;
            }
            if record.offset != next {
                client.violated(&format!(
                    "CommittedRecordsStay: {partition} {} follows {next}",
                    record.offset
                ));
            }
            let value = record.value.unwrap_or_default();
            let checks = client.network.checks.clone();
            checks.consumed(&client.network.trace, partition, record.offset, &value);
            if is_seen {
                checks.consumed_committed(&client.network.trace, partition, &value);
            }
            next = record.offset + 1;
        }
    }
    Some(next)
}

/// What was read from a position on.
pub(crate) struct Read {
    /// Offsets and values, in their order and without markers.
    pub(crate) values: Vec<(Offset, Bytes)>,
    /// The position to go on from.
    pub(crate) next: Offset,
}

/// Reads from a position on where offsets may have gaps; nothing if that did not work.
pub(crate) async fn fetch_records(
    client: &mut Client,
    partition: &TopicPartition,
    position: Offset,
) -> Option<Read> {
    let answer = fetch_from(client, partition, position, Isolation::Uncommitted).await?;
    let bytes = answer.records.unwrap_or_default();
    let (mut values, mut next) = (Vec::new(), position);
    let walk = batches(&bytes);
    for batch in walk.clone() {
        let Ok((place, meta)) = batch else { break };
        let batch = bytes.slice_ref(walk.slice(place, &meta));
        for record in records(&batch).ok()?.filter_map(Result::ok) {
            if record.offset >= position && !meta.is_control {
                values.push((record.offset, record.value.unwrap_or_default()));
            }
        }
        next = next.max(meta.last_offset + 1);
    }
    Some(Read { values, next })
}

/// The latest offset as a client is told it.
pub(crate) async fn latest_offset(
    client: &mut Client,
    partition: &TopicPartition,
) -> Option<Offset> {
    client.refresh().await;
    let (leader, epoch) = client.leader(partition).await;
    let wanted = ListOffsetsPartition::default()
        .with_partition_index(partition.partition)
        .with_current_leader_epoch(epoch)
        .with_timestamp(-1);
    let topic = ListOffsetsTopic::default()
        .with_name(name(&partition.topic))
        .with_partitions(vec![wanted]);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![topic]);
    let response = client.call(leader, 7, &request).await.ok()?;
    let answer = response.topics.first()?.partitions.first()?.clone();
    (answer.error_code == 0).then_some(answer.offset)
}
