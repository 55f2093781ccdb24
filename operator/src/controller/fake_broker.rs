//! A broker that does what it is told to: refuse with a code, or do what was asked and lose the answer. A real one cannot
//! be made to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, BrokerId, CreateTopicsRequest, CreateTopicsResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, DescribeLogDirsRequest,
    DescribeLogDirsResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    MetadataRequest, MetadataResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::lock;

/// What a creation is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not done, for this reason.
    Refuse(i16),
    /// Done, and answered with this code all the same.
    DoneAnd(i16),
    /// Done, and the connection ends without an answer.
    LoseAnswer,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, (Uuid, i32)>,
    faults: VecDeque<Fault>,
    creations: usize,
}

/// Alone in its cluster, and its controller.
#[derive(Clone)]
pub(super) struct FakeBroker {
    state: Arc<Mutex<State>>,
    port: u16,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl FakeBroker {
    pub(super) async fn start(faults: &[Fault]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            faults: faults.iter().copied().collect(),
            ..State::default()
        };
        let broker = Self {
            state: Arc::new(Mutex::new(state)),
            port: listener.local_addr().unwrap().port(),
        };
        let serving = broker.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        broker
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How often a topic was to be created.
    pub(super) fn creations(&self) -> usize {
        lock(&self.state).creations
    }

    /// Until the connection ends.
    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        loop {
            let length = stream.read_i32().await.ok()?;
            let mut frame = vec![0; usize::try_from(length).ok()?];
            stream.read_exact(&mut frame).await.ok()?;
            let answer = self.answer(frame.into())?;
            stream.write_i32(answer.len() as i32).await.ok()?;
            stream.write_all(&answer).await.ok()?;
        }
    }

    fn answer(&self, frame: Bytes) -> Option<BytesMut> {
        let key = i16::from_be_bytes([frame[0], frame[1]]);
        match key {
            ApiVersionsRequest::KEY => reply(frame, |_: ApiVersionsRequest| Some(versions())),
            MetadataRequest::KEY => reply(frame, |request| Some(self.metadata(&request))),
            CreateTopicsRequest::KEY => reply(frame, |request| self.create(request)),
            DescribeConfigsRequest::KEY => reply(frame, |request: DescribeConfigsRequest| {
                let resources = request.resources.into_iter();
                let results = resources.map(|one| {
                    DescribeConfigsResult::default()
                        .with_resource_type(one.resource_type)
                        .with_resource_name(one.resource_name)
                });
                Some(DescribeConfigsResponse::default().with_results(results.collect()))
            }),
            ListPartitionReassignmentsRequest::KEY => {
                reply(frame, |_: ListPartitionReassignmentsRequest| {
                    Some(ListPartitionReassignmentsResponse::default())
                })
            }
            DescribeLogDirsRequest::KEY => reply(frame, |_: DescribeLogDirsRequest| {
                Some(DescribeLogDirsResponse::default())
            }),
            _ => None,
        }
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let state = lock(&self.state);
        let asked = request.topics.as_ref().map(|topics| {
            let names = topics.iter().flat_map(|topic| &topic.name);
            names.map(|name| name.to_string()).collect::<Vec<_>>()
        });
        let names = asked.unwrap_or_else(|| state.topics.keys().cloned().collect());
        let topics = names.iter().map(|name| {
            let topic = MetadataResponseTopic::default().with_name(Some(TopicName(text(name))));
            let Some((id, partitions)) = state.topics.get(name) else {
                return topic.with_error_code(3);
            };
            let partitions = (0..*partitions).map(|index| {
                MetadataResponsePartition::default()
                    .with_partition_index(index)
                    .with_leader_id(BrokerId(1))
                    .with_replica_nodes(vec![BrokerId(1)])
                    .with_isr_nodes(vec![BrokerId(1)])
            });
            topic
                .with_topic_id(*id)
                .with_partitions(partitions.collect())
        });
        MetadataResponse::default()
            .with_controller_id(BrokerId(1))
            .with_brokers(vec![
                MetadataResponseBroker::default()
                    .with_node_id(BrokerId(1))
                    .with_host(text("127.0.0.1"))
                    .with_port(self.port.into()),
            ])
            .with_topics(topics.collect())
    }

    fn create(&self, request: CreateTopicsRequest) -> Option<CreateTopicsResponse> {
        let mut state = lock(&self.state);
        let fault = state.faults.pop_front();
        let mut results = Vec::new();
        for topic in request.topics {
            state.creations += 1;
            let result = CreatableTopicResult::default()
                .with_name(topic.name.clone())
                .with_error_message(Some(text("as told")));
            if let Some(Fault::Refuse(code)) = fault {
                results.push(result.with_error_code(code));
                continue;
            }
            let name = topic.name.to_string();
            let code = if state.topics.contains_key(&name) {
                36
            } else {
                0
            };
            let id = Uuid::from_u128(state.topics.len() as u128 + 1);
            let known = state.topics.entry(name);
            let (id, _) = *known.or_insert((id, topic.num_partitions.max(1)));
            let code = match fault {
                Some(Fault::DoneAnd(code)) => code,
                _ => code,
            };
            results.push(result.with_error_code(code).with_topic_id(id));
        }
        (fault != Some(Fault::LoseAnswer))
            .then(|| CreateTopicsResponse::default().with_topics(results))
    }
}

/// Everything that is served, in all versions.
fn versions() -> ApiVersionsResponse {
    fn one<R: Request>() -> ApiVersion {
        ApiVersion::default()
            .with_api_key(R::KEY)
            .with_min_version(R::VERSIONS.min)
            .with_max_version(R::VERSIONS.max)
    }
    ApiVersionsResponse::default().with_api_keys(vec![
        one::<ApiVersionsRequest>(),
        one::<MetadataRequest>(),
        one::<CreateTopicsRequest>(),
        one::<DescribeConfigsRequest>(),
        one::<ListPartitionReassignmentsRequest>(),
        one::<DescribeLogDirsRequest>(),
    ])
}

fn reply<R: Request + Decodable>(
    mut frame: Bytes,
    answer: impl FnOnce(R) -> Option<R::Response>,
) -> Option<BytesMut>
where
    R::Response: Encodable + HeaderVersion,
{
    let version = i16::from_be_bytes([frame[2], frame[3]]);
    let header = RequestHeader::decode(&mut frame, R::header_version(version)).ok()?;
    let request = R::decode(&mut frame, version).ok()?;
    let answer = answer(request)?;
    let mut bytes = BytesMut::new();
    ResponseHeader::default()
        .with_correlation_id(header.correlation_id)
        .encode(&mut bytes, R::Response::header_version(version))
        .ok()?;
    answer.encode(&mut bytes, version).ok()?;
    Some(bytes)
}
