//! What a client knows of a cluster: who leads, and the connections it has.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{BrokerId, CreateTopicsRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::wait;
use crate::wire::{decode_response, encode_request};

const METADATA_VERSION: i16 = 8;
const CREATE_TOPICS_VERSION: i16 = 5;
/// Not longer than this for one attempt to connect: a machine that is cut off does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A question for metadata that takes longer is put to another broker.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection with one request in flight; of no use after an error.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    correlation_id: i32,
}

impl Link {
    pub(super) fn open(address: &str) -> Result<Link> {
        let target: SocketAddr = address
            .to_socket_addrs()
            .with_context(|| address.to_owned())?
            .next()
            .with_context(|| format!("no address: {address}"))?;
        let stream = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        Ok(Link {
            stream,
            correlation_id: 0,
        })
    }

    pub(super) fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response> {
        self.correlation_id += 1;
        let frame = encode_request(request, version, self.correlation_id)?;
        self.stream.set_read_timeout(Some(timeout))?;
        self.stream.set_write_timeout(Some(timeout))?;
        let mut bytes = i32::try_from(frame.len())?.to_be_bytes().to_vec();
        bytes.extend_from_slice(&frame);
        self.stream.write_all(&bytes)?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(size))?];
        self.stream.read_exact(&mut answer)?;
        decode_response::<R::Response>(answer.into(), version, self.correlation_id)
    }
}

/// Who leads a partition, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    pub id: i32,
    pub epoch: i32,
    /// `host:port`
    pub address: String,
}

/// A partition as one broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    pub leader: Option<Leader>,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

/// A client's view of the cluster, from whichever broker answers.
#[derive(Debug)]
pub struct ClusterView {
    bootstrap: Vec<String>,
    /// Who to ask next.
    turn: usize,
    link: Option<Link>,
}

impl ClusterView {
    pub fn new(bootstrap: Vec<String>) -> ClusterView {
        ClusterView {
            bootstrap,
            turn: 0,
            link: None,
        }
    }

    /// Sends a request that any broker can answer to some broker; the next one's turn comes after a failure.
    pub(super) fn ask<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        let mut link = if let Some(link) = self.link.take() {
            link
        } else {
            let address = self.bootstrap[self.turn % self.bootstrap.len()].clone();
            Link::open(&address).inspect_err(|_| self.turn += 1)?
        };
        let answer = link.call(version, request, METADATA_TIMEOUT);
        match &answer {
            Ok(_) => self.link = Some(link),
            Err(_) => self.turn += 1,
        }
        answer
    }

    /// Asks another broker next time.
    pub(super) fn ask_elsewhere(&mut self) {
        self.link = None;
        self.turn += 1;
    }

    /// The partitions of a topic; those whose leader is unknown have none.
    pub fn partitions(&mut self, topic: &str) -> Result<BTreeMap<i32, PartitionView>> {
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let request = MetadataRequest::default()
            .with_allow_auto_topic_creation(false)
            .with_topics(Some(vec![
                MetadataRequestTopic::default().with_name(Some(name)),
            ]));
        let answer = self.ask(METADATA_VERSION, &request)?;
        let addresses: BTreeMap<i32, String> = answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id.0, format!("{}:{}", broker.host, broker.port)))
            .collect();
        let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let partitions = partitions.map(|partition| {
            let leader = addresses.get(&partition.leader_id.0);
            let leader = leader.filter(|_| partition.error_code == 0);
            let view = PartitionView {
                leader: leader.map(|address| Leader {
                    id: partition.leader_id.0,
                    epoch: partition.leader_epoch,
                    address: address.clone(),
                }),
                replicas: ids(&partition.replica_nodes),
                isr: ids(&partition.isr_nodes),
            };
            (partition.partition_index, view)
        });
        Ok(partitions.collect())
    }

    /// Ids of the brokers that are alive, and who is their controller.
    pub fn brokers(&mut self) -> Result<(Vec<i32>, i32)> {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        let answer = self.ask(METADATA_VERSION, &request)?;
        let brokers = answer.brokers.iter().map(|broker| broker.node_id.0);
        Ok((brokers.collect(), answer.controller_id.0))
    }

    /// Waits until a view of the topic satisfies `condition`.
    pub fn wait_for(
        &mut self,
        topic: &str,
        patience: Duration,
        condition: impl Fn(&BTreeMap<i32, PartitionView>) -> bool,
    ) -> Result<BTreeMap<i32, PartitionView>> {
        let mut last = None;
        let found = wait::until(patience, || match self.partitions(topic) {
            Ok(partitions) if !partitions.is_empty() && condition(&partitions) => Some(partitions),
            other => {
                last = Some(other);
                None
            }
        });
        found.with_context(|| format!("topic {topic} is not as awaited: {last:?}"))
    }

    /// Waits until every partition of the topic has a leader and these replicas, and no others, in sync.
    pub fn wait_for_isr(&mut self, topic: &str, isr: &[i32], patience: Duration) -> Result<()> {
        let is_so = |view: &PartitionView| {
            let mut actual = view.isr.clone();
            actual.sort_unstable();
            view.leader.is_some() && actual == isr
        };
        self.wait_for(topic, patience, |partitions| partitions.values().all(is_so))?;
        Ok(())
    }
}

/// A topic to be made.
#[derive(Clone, Debug)]
pub struct TopicPlan {
    pub name: String,
    /// The replicas of each partition, the preferred leader first.
    pub assignment: Vec<Vec<i32>>,
    pub configs: Vec<(String, String)>,
}

/// Creates a topic, unless it exists, and waits until all its replicas are in sync.
pub fn create_topic(bootstrap: &[String], plan: &TopicPlan, patience: Duration) -> Result<()> {
    let mut view = ClusterView::new(bootstrap.to_vec());
    let assignment = (0..).zip(&plan.assignment).map(|(partition, replicas)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(partition)
            .with_broker_ids(replicas.iter().map(|id| BrokerId(*id)).collect())
    });
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let configs = plan.configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(2_000)
        .with_topics(vec![
            CreatableTopic::default()
                .with_name(TopicName(text(&plan.name)))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_assignments(assignment.collect())
                .with_configs(configs.collect()),
        ]);
    let deadline = Instant::now() + patience;
    loop {
        // 0: created; 36: exists; 7: created, but the answerer has not seen its leaders yet.
        let code = match view.ask(CREATE_TOPICS_VERSION, &request) {
            Ok(answer) => answer.topics.first().map_or(-1, |topic| topic.error_code),
            Err(_) => -1,
        };
        if [0, 7, 36].contains(&code) {
            break;
        }
        ensure!(Instant::now() < deadline, "not created: error code {code}");
        // 41: not the controller.
        view.ask_elsewhere();
        std::thread::sleep(Duration::from_millis(50));
    }
    let remaining = deadline.saturating_duration_since(Instant::now());
    let expected = plan.assignment.clone();
    let is_whole = |partitions: &BTreeMap<i32, PartitionView>| {
        partitions.len() == expected.len()
            && partitions
                .values()
                .zip(&expected)
                .all(|(view, replicas)| view.leader.is_some() && view.isr.len() == replicas.len())
    };
    let partitions = view.wait_for(&plan.name, remaining, is_whole)?;
    // Whoever answers may know of a leader before that does.
    let leaders = partitions.values().filter_map(|view| view.leader.as_ref());
    let addresses: BTreeSet<&String> = leaders.map(|leader| &leader.address).collect();
    for address in addresses {
        let remaining = deadline.saturating_duration_since(Instant::now());
        ClusterView::new(vec![address.clone()]).wait_for(&plan.name, remaining, is_whole)?;
    }
    Ok(())
}
