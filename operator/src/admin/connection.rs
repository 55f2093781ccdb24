//! One long-lived connection to one broker: requests go out as they come, answers come back in the same order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::error::AdminError;
use super::options::AdminOptions;
use super::{sasl, tls};

/// The largest response that is believed: metadata of 200,000 partitions is a tenth of it.
const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// Requests that wait for the socket; more wait for room.
const QUEUE: usize = 64;
/// This version is served by every broker since 0.10 and tells of all others.
const API_VERSIONS_VERSION: i16 = 0;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Who waits for the next answer.
struct Waiting {
    correlation_id: i32,
    reply: oneshot::Sender<Bytes>,
}

type Queue = Arc<Mutex<VecDeque<Waiting>>>;

struct Outgoing {
    frame: Bytes,
    correlation_id: i32,
    reply: oneshot::Sender<Bytes>,
}

/// A connection that stands until it fails; dropping it closes it.
pub(super) struct Connection {
    /// For messages: `1 (host:port)`.
    broker: String,
    client_id: StrBytes,
    requests: mpsc::Sender<Outgoing>,
    versions: BTreeMap<i16, (i16, i16)>,
    correlation: std::sync::atomic::AtomicI32,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Connection {
    /// Dials, agrees on TLS and SASL, and asks which versions there are.
    pub(super) async fn open(
        options: &AdminOptions,
        tls: Option<&tls::Connector>,
        host: &str,
        port: u16,
        broker: String,
    ) -> Result<Self, AdminError> {
        let opened = Self::dial(options, tls, host, port, broker.clone());
        timeout(options.connect_timeout, opened)
            .await
            .unwrap_or_else(|_| Err(AdminError::Unreachable(format!("{broker}: timed out"))))
    }

    async fn dial(
        options: &AdminOptions,
        tls: Option<&tls::Connector>,
        host: &str,
        port: u16,
        broker: String,
    ) -> Result<Self, AdminError> {
        let unreachable =
            |error: std::io::Error| AdminError::Unreachable(format!("{broker}: {error}"));
        let tcp = TcpStream::connect((host, port))
            .await
            .map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(tcp),
            Some(connector) => {
                let encrypted = connector.connect(host, tcp).await;
                Box::new(encrypted.map_err(|cause| AdminError::Authentication {
                    broker: broker.clone(),
                    cause,
                })?)
            }
        };
        let mut connection = Self::over(stream, broker, &options.client_id);
        let limit = options.request_timeout;
        if let Some(sasl) = &options.sasl {
            // Before anything else is asked: a broker may close the connection otherwise.
            sasl::authenticate(&connection, sasl, limit).await?;
        }
        let request = ApiVersionsRequest::default();
        let answer = connection
            .call_version(API_VERSIONS_VERSION, &request, limit)
            .await?;
        connection.versions = answer
            .api_keys
            .iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)))
            .collect();
        Ok(connection)
    }

    fn over(stream: Box<dyn Stream>, broker: String, client_id: &str) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let (requests, queued) = mpsc::channel(QUEUE);
        let waiting = Queue::default();
        let tasks = vec![
            tokio::spawn(write_requests(writer, queued, waiting.clone())),
            tokio::spawn(read_responses(reader, waiting)),
        ];
        Self {
            broker,
            client_id: StrBytes::from_string(client_id.to_owned()),
            requests,
            versions: BTreeMap::new(),
            correlation: std::sync::atomic::AtomicI32::new(0),
            tasks,
        }
    }

    /// Whether it is of use still, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.requests.is_closed() && !self.tasks.iter().any(tokio::task::JoinHandle::is_finished)
    }

    pub(super) fn broker(&self) -> &str {
        &self.broker
    }

    /// The highest version that both sides know, which is at least `needed`.
    pub(super) fn version_of<R: Request>(&self, needed: i16) -> Result<i16, AdminError> {
        let ours = R::VERSIONS;
        let agreed = self.versions.get(&R::KEY).and_then(|(min, max)| {
            let version = ours.max.min(*max);
            (version >= ours.min.max(*min).max(needed)).then_some(version)
        });
        agreed.ok_or_else(|| AdminError::Unsupported {
            broker: self.broker.clone(),
            key: R::KEY,
            needed,
        })
    }

    /// Sends a request in this version and waits for its answer.
    pub(super) async fn call_version<R: Request>(
        &self,
        version: i16,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, AdminError> {
        let malformed = |cause: String| AdminError::Malformed {
            broker: self.broker.clone(),
            cause,
        };
        let unanswered = |cause: &str| AdminError::Unanswered {
            broker: self.broker.clone(),
            cause: cause.to_owned(),
        };
        let correlation_id = self
            .correlation
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
            & i32::MAX;
        let mut frame = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation_id)
            .with_client_id(Some(self.client_id.clone()));
        // A field that the version lacks is a mistake of ours, and nothing was sent.
        let encoded = header
            .encode(&mut frame, R::header_version(version))
            .and_then(|()| request.encode(&mut frame, version));
        encoded.map_err(|error| AdminError::Options(format!("API key {}: {error}", R::KEY)))?;
        let (reply, answered) = oneshot::channel();
        let outgoing = Outgoing {
            frame: frame.freeze(),
            correlation_id,
            reply,
        };
        let exchange = async {
            let sent = self.requests.send(outgoing).await;
            if sent.is_err() {
                let broker = &self.broker;
                return Err(AdminError::Unreachable(format!(
                    "{broker}: connection closed"
                )));
            }
            answered.await.map_err(|_| unanswered("connection closed"))
        };
        let mut body = timeout(limit, exchange)
            .await
            .map_err(|_| unanswered("timed out"))??;
        let header_version = <R::Response as HeaderVersion>::header_version(version);
        ResponseHeader::decode(&mut body, header_version)
            .and_then(|_| R::Response::decode(&mut body, version))
            .map_err(|error| malformed(error.to_string()))
    }
}

async fn write_requests(
    mut writer: tokio::io::WriteHalf<Box<dyn Stream>>,
    mut queued: mpsc::Receiver<Outgoing>,
    waiting: Queue,
) {
    while let Some(outgoing) = queued.recv().await {
        let size = outgoing.frame.len() as u32;
        let entry = Waiting {
            correlation_id: outgoing.correlation_id,
            reply: outgoing.reply,
        };
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(entry);
        let mut frame = Bytes::copy_from_slice(&size.to_be_bytes()).chain(outgoing.frame);
        if writer.write_all_buf(&mut frame).await.is_err() || writer.flush().await.is_err() {
            break;
        }
    }
}

/// Ends at the first thing that is not an answer to the request whose turn it is; whoever still waits is told so
/// by the end of the queue.
async fn read_responses(mut reader: tokio::io::ReadHalf<Box<dyn Stream>>, waiting: Queue) {
    while let Ok(size) = reader.read_i32().await {
        let Some(size) = usize::try_from(size)
            .ok()
            .filter(|size| (4..=RESPONSE_BYTES_MAX).contains(size))
        else {
            break;
        };
        let Some(frame) = read_frame(&mut reader, size).await else {
            break;
        };
        let next = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let correlation_id = (&frame[..]).get_i32();
        match next {
            // Nobody may wait any more: the time was over.
            Some(next) if next.correlation_id == correlation_id => drop(next.reply.send(frame)),
            _ => break,
        }
    }
    waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}

async fn read_frame(
    reader: &mut tokio::io::ReadHalf<Box<dyn Stream>>,
    size: usize,
) -> Option<Bytes> {
    // Memory grows with what arrives, not with what is announced.
    let mut frame = BytesMut::with_capacity(size.min(1 << 20));
    let mut limited = reader.take(size as u64);
    while frame.len() < size {
        if limited.read_buf(&mut frame).await.ok()? == 0 {
            return None;
        }
    }
    Some(frame.freeze())
}
