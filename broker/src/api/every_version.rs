//! Every version of every API in the table, with all the fields that it has: the answer must be one that the
//! version can carry.
//!
//! No request is written down here. A generated decoder asks for one field after the other, so a decoder that
//! is given an [`Inventor`] to read from makes up a request of its own; an API is tested as soon as it stands
//! in the table.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use barnabas_core::config::BrokerConfig;
use barnabas_core::ids::{BrokerId, TopicId};
use barnabas_core::znodes::{PartitionAssignment, TopicAssignment};
use bytes::{Buf, Bytes, BytesMut, TryGetError};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::dispatch::{Outcome, dispatch};
use super::testing::inlined;
use super::{API_TABLE, Api, Connection, Principal};
use crate::peer::TcpNetwork;
use crate::server::{Running, Server};
use crate::zookeeper::ZooKeeper;
use crate::zookeeper::memory::MemoryEnsemble;

/// Requests per version, beside the one in which every field is set.
const VARIANTS: u64 = 40;

/// Longer than any answer takes on a busy machine; the requests themselves ask for milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fields of the largest request that is worth sending.
const MOST_READS: u32 = 400;

/// The id of topic `t`.
const TOPIC_ID: [u8; 16] = [1; 16];

/// Strings that mean something to the broker; one is chosen by its length.
const WORDS: &[&str] = &[
    "t",
    "u",
    "1",
    ".",
    "-1",
    "__x",
    "compact",
    "PLAINTEXT",
    "retention.ms",
    "cleanup.policy",
    "__consumer_offsets",
];

/// Bytes that are made up as a decoder asks for them.
///
/// Whatever may be a length is read as one element, so a request without `random` always has every field, no
/// field with its default, and comes to an end. With `random` a request may turn out to be no request.
pub(crate) struct Inventor {
    random: Option<StdRng>,
    reads: u32,
}

impl Inventor {
    /// Sets every field, and always in the same way.
    fn complete() -> Self {
        Self {
            random: None,
            reads: 0,
        }
    }

    fn seeded(seed: u64) -> Self {
        Self {
            random: Some(StdRng::seed_from_u64(seed)),
            reads: 0,
        }
    }

    /// A number: `usual`, or often enough one of `others`.
    fn number<T: Copy>(&mut self, usual: T, others: &[T]) -> Result<T, TryGetError> {
        self.reads += 1;
        if self.reads > MOST_READS {
            return Err(TryGetError {
                requested: 1,
                available: 0,
            });
        }
        let Some(random) = &mut self.random else {
            return Ok(usual);
        };
        let is_other = random.random_ratio(2, 5);
        let other = others.choose(random).filter(|_| is_other);
        Ok(*other.unwrap_or(&usual))
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        let length = bytes.len();
        let of_length: Vec<_> = WORDS.iter().filter(|word| word.len() == length).collect();
        let word = match &mut self.random {
            Some(random) => of_length.choose(random).copied(),
            None => of_length.first().copied(),
        };
        match word {
            Some(word) => bytes.copy_from_slice(word.as_bytes()),
            None => bytes.fill(b'x'),
        }
    }
}

impl Buf for Inventor {
    fn remaining(&self) -> usize {
        usize::MAX
    }

    fn chunk(&self) -> &[u8] {
        &[]
    }

    fn advance(&mut self, _count: usize) {}

    /// A boolean, or one byte of a varint: lengths are one more than what follows.
    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        self.number(2, &[0, 1, 3, 8, 13, 15])
    }

    fn try_get_i8(&mut self) -> Result<i8, TryGetError> {
        self.number(1, &[0, 2, 4, -1, i8::MAX])
    }

    fn try_get_i16(&mut self) -> Result<i16, TryGetError> {
        self.number(1, &[0, 2, 7, 12, 14, -1])
    }

    fn try_get_u16(&mut self) -> Result<u16, TryGetError> {
        self.number(1, &[0, 9092])
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        self.number(1, &[0, 2, -1, -2])
    }

    fn try_get_i64(&mut self) -> Result<i64, TryGetError> {
        self.number(1, &[0, 2, -1, -2, i64::MAX])
    }

    fn try_get_f64(&mut self) -> Result<f64, TryGetError> {
        self.number(1.0, &[0.0, -1.0, 0.5])
    }

    /// A topic id.
    fn try_copy_to_slice(&mut self, bytes: &mut [u8]) -> Result<(), TryGetError> {
        let byte = self.number(TOPIC_ID[0], &[0, 2])?;
        bytes.fill(byte);
        Ok(())
    }
}

impl ByteBuf for Inventor {
    fn peek_bytes(&mut self, _range: Range<usize>) -> Bytes {
        Bytes::new()
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        let mut bytes = vec![0; size];
        self.fill(&mut bytes);
        bytes.into()
    }
}

/// The body of a request that `inventor` makes up. Fails if it made up none.
pub(crate) fn invent<R: Decodable + Encodable>(
    inventor: &mut Inventor,
    version: i16,
) -> anyhow::Result<Bytes> {
    let request = R::decode(inventor, version)?;
    let mut body = BytesMut::new();
    request.encode(&mut body, version)?;
    Ok(body.freeze())
}

/// Decodes the body of a response to its last byte and encodes it again.
pub(crate) fn read_back<R: Decodable + Encodable>(
    mut body: Bytes,
    version: i16,
) -> anyhow::Result<Bytes> {
    let response = R::decode(&mut body, version)?;
    ensure!(body.is_empty(), "{} bytes are left", body.len());
    let mut again = BytesMut::new();
    response.encode(&mut again, version)?;
    Ok(again.freeze())
}

/// A broker with id 1 that leads both partitions of topic `t`.
struct Subject {
    running: Running,
    connection: Connection,
    _log_dir: tempfile::TempDir,
}

impl Subject {
    async fn start() -> Self {
        let log_dir = tempfile::tempdir().unwrap();
        let path = log_dir.path().to_string_lossy();
        let settings: BTreeMap<String, String> = [
            ("broker.id", "1"),
            ("zookeeper.connect", "memory:1"),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("log.dirs", path.as_ref()),
            ("log.index.size.max.bytes", "4096"),
            ("controlled.shutdown.enable", "false"),
            ("barnabas.admin.listener", ""),
        ]
        .map(|(key, text)| (key.to_owned(), text.to_owned()))
        .into();
        let zookeeper = ZooKeeper::over(MemoryEnsemble::new().connect());
        zookeeper.create_base_paths().await.unwrap();
        let config = BrokerConfig::parse(&settings).unwrap();
        let running = Server::start_on(config, zookeeper, Arc::new(TcpNetwork))
            .await
            .unwrap();
        let broker = running.broker();
        let replicas = PartitionAssignment {
            replicas: vec![BrokerId(1)],
            ..PartitionAssignment::default()
        };
        let topic = TopicAssignment {
            partitions: BTreeMap::from([(0, replicas.clone()), (1, replicas)]),
            topic_id: Some(TopicId(uuid::Uuid::from_bytes(TOPIC_ID))),
        };
        let mut status = broker.controller.status();
        status.wait_for(|status| status.is_active).await.unwrap();
        let created = broker
            .zookeeper
            .create_topic("t", &topic, BTreeMap::new())
            .await;
        created.unwrap();
        let is_there = broker.metadata.wait_for(PATIENCE, |image| {
            image.topic("t").is_some() && broker.replicas.counts().leaders == 2
        });
        assert!(is_there.await, "the topic is not led in time");
        Self {
            running,
            connection: Connection {
                id: 1,
                listener: Arc::from("PLAINTEXT"),
                peer_address: "127.0.0.1:50000".parse().unwrap(),
                principal: Principal::anonymous(),
            },
            _log_dir: log_dir,
        }
    }

    /// Sends a request and takes its answer apart, if it is one that has an answer.
    async fn ask(&self, api: &Api, version: i16, body: &[u8]) -> anyhow::Result<()> {
        let header = RequestHeader::default()
            .with_request_api_key(api.key)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .with_client_id(Some(StrBytes::from_static_str("test")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, (api.request_header_version)(version))?;
        frame.extend_from_slice(body);
        let answering = dispatch(frame.freeze(), self.running.broker(), &self.connection);
        let outcome = tokio::time::timeout(PATIENCE, answering)
            .await
            .context("no answer in time")?;
        let response = match outcome {
            Outcome::Respond(response) => response,
            Outcome::Silent(_) => {
                ensure!(api.name == "Produce", "no answer at all");
                return Ok(());
            }
            Outcome::Close(reason) => anyhow::bail!("closed: {reason}"),
        };
        let mut bytes = Bytes::copy_from_slice(&response.head()[4..]);
        let header_version = (api.response_header_version)(version);
        let header = ResponseHeader::decode(&mut bytes, header_version)?;
        ensure!(header.correlation_id == 7 && bytes.is_empty(), "{header:?}");
        let body = Bytes::from(inlined(response.sections()));
        let again = (api.read_back)(body.clone(), version).context("the response")?;
        ensure!(again == body, "{body:02x?} is read as {again:02x?}");
        Ok(())
    }
}

/// Whether hanging up is the right answer: always for an envelope, as no request is forwarded without `KRaft`,
/// for a produce request with acks=0 (the made-up ones may have it) that fails, and for ACLs of unknown kinds.
fn may_close(api: &Api, is_complete: bool) -> bool {
    let is_choosy = api.name == "Produce" || api.name.ends_with("Acls");
    api.name == "Envelope" || is_choosy && !is_complete
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_of_every_api_answers_what_its_version_can_carry() {
    let mut failures = Vec::new();
    let mut asked = 0_u64;
    for api in API_TABLE {
        let subject = Subject::start().await;
        for version in api.min_version..=api.max_version {
            let mut inventor = Inventor::complete();
            let complete = (api.invent)(&mut inventor, version)
                .unwrap_or_else(|error| panic!("{} {version}: {error:#}", api.name));
            let variants = (0..VARIANTS).filter_map(|seed| {
                let mut inventor = Inventor::seeded(seed);
                (api.invent)(&mut inventor, version).ok()
            });
            for (index, body) in iter::once(complete).chain(variants).enumerate() {
                asked += 1;
                let outcome = subject.ask(api, version, &body).await;
                if let Err(error) = outcome
                    && !may_close(api, index == 0)
                {
                    failures.push(format!(
                        "{} v{version}, request {:02x?}: {error:#}",
                        api.name,
                        &body[..]
                    ));
                }
            }
        }
        subject.running.stop().await;
    }
    // Most of what is made up is a request.
    let versions = API_TABLE
        .iter()
        .map(|api| (api.max_version - api.min_version + 1) as u64);
    assert!(asked > versions.sum::<u64>() * VARIANTS / 2, "{asked}");
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>();
    assert!(
        failures.is_empty(),
        "{} of {asked} answers are wrong\n{}",
        failures.len(),
        shown.join("\n")
    );
}
