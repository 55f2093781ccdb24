//! From a frame to the bytes of its answer: header, table row, handler.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, ApiVersionsRequest,
    ControlledShutdownRequest, LeaderAndIsrRequest, MetadataRequest, SaslAuthenticateRequest,
    SaslHandshakeRequest, StopReplicaRequest, UpdateMetadataRequest,
};
use kafka_protocol::protocol::Request as _;

use crate::metrics::{Fetcher, Metrics, RequestTimes};

use super::call::Timed;
use super::{
    Api, Broker, Call, Connection, Context, MalformedRequest, Reply, Section, api_versions,
};

/// What becomes of a request.
pub enum Outcome {
    Respond(Response),
    /// The client expects no answer.
    Silent(Option<Mute>),
    Close(CloseReason),
}

/// Until when a connection is not read from, because its client is throttled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mute(pub tokio::time::Instant);

impl Mute {
    fn of(call: &Call) -> Option<Self> {
        let throttle_ms = call.throttle_ms();
        let length = Duration::from_millis(throttle_ms.into());
        (throttle_ms > 0).then(|| Self(tokio::time::Instant::now() + length))
    }
}

/// Why a connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    #[error("the request header cannot be decoded")]
    Header,
    #[error("API key {key} version {version} is not supported")]
    Unsupported { key: i16, version: i16 },
    #[error("malformed {api} request of version {version}: {source}")]
    Malformed {
        api: &'static str,
        version: i16,
        source: MalformedRequest,
    },
    #[error("the {api} request ends the connection")]
    Hangup { api: &'static str },
    #[error("the {api} response of {size} bytes is too large for a frame")]
    TooLarge { api: &'static str, size: usize },
}

/// A response as it goes over the wire: size and header, then the body.
pub struct Response {
    head: [u8; HEAD_MAX],
    head_length: usize,
    body: Body,
    request: Option<Answered>,
    mute: Option<Mute>,
}

/// The request that a response answers.
struct Answered {
    key: i16,
    version: i16,
    times: RequestTimes,
    /// Who fetched, if it was a fetch.
    fetcher: Option<Fetcher>,
    /// Client id of who pays for the time that sending takes, if anybody does.
    charged: Option<Box<str>>,
}

/// Size, correlation id, and in header version 1 an empty list of tagged fields.
const HEAD_MAX: usize = 9;

enum Body {
    One(Section),
    Many(Vec<Section>),
}

impl Response {
    /// Fails with the size of a response that no frame can announce.
    pub fn new(
        correlation_id: i32,
        header_version: i16,
        sections: Vec<Section>,
    ) -> Result<Self, usize> {
        Self::of_body(correlation_id, header_version, Body::Many(sections))
    }

    fn of_body(correlation_id: i32, header_version: i16, body: Body) -> Result<Self, usize> {
        let head_length = if header_version >= 1 {
            HEAD_MAX
        } else {
            HEAD_MAX - 1
        };
        let mut response = Self {
            head: [0; HEAD_MAX],
            head_length,
            body,
            request: None,
            mute: None,
        };
        let size = response.size_in_bytes() - 4;
        let announced = i32::try_from(size).map_err(|_| size)?;
        response.head[..4].copy_from_slice(&announced.to_be_bytes());
        response.head[4..8].copy_from_slice(&correlation_id.to_be_bytes());
        Ok(response)
    }

    /// Until when the connection is not read from.
    pub fn mute(&self) -> Option<Mute> {
        self.mute
    }

    /// Client id of who pays for the time that sending takes, if anybody does.
    pub fn charged(&self) -> Option<&str> {
        self.request.as_ref()?.charged.as_deref()
    }

    /// Counts the request as done, with the time that it took to send the response.
    pub fn was_sent(&self, metrics: &Metrics, took: Duration) {
        if let Some(request) = &self.request {
            let times = RequestTimes {
                response_send: took,
                ..request.times
            };
            metrics.request(request.key).done(request.version, &times);
            if let Some(fetcher) = request.fetcher {
                metrics.fetched(fetcher, request.version, &times);
            }
        }
    }

    /// All of it, its size field included.
    pub fn size_in_bytes(&self) -> usize {
        let body: usize = self.sections().iter().map(Section::size_in_bytes).sum();
        self.head_length + body
    }

    /// Size and header.
    pub fn head(&self) -> &[u8] {
        &self.head[..self.head_length]
    }

    pub fn sections(&self) -> &[Section] {
        match &self.body {
            Body::One(section) => slice::from_ref(section),
            Body::Many(sections) => sections,
        }
    }
}

/// Runs one request to its end.
pub async fn dispatch(frame: Bytes, broker: &Arc<Broker>, connection: &Connection) -> Outcome {
    let call = Call::new(frame.len());
    let Some(header) = RequestHeader::parse(frame) else {
        return Outcome::Close(CloseReason::Header);
    };
    let RequestHeader {
        key,
        version,
        correlation_id,
        rest,
    } = header;
    let Some(api) = Api::find(key) else {
        return Outcome::Close(CloseReason::Unsupported { key, version });
    };
    if !api.serves(version) {
        if key != ApiVersionsRequest::KEY {
            return Outcome::Close(CloseReason::Unsupported { key, version });
        }
        let reply = Reply::message(&api_versions::unsupported_version(api), 0);
        return respond(api, 0, correlation_id, reply);
    }
    let Some((client_id, body)) = split_header(rest, (api.request_header_version)(version)) else {
        return Outcome::Close(CloseReason::Header);
    };
    let Ok(client_id) = client_id.as_deref().map(std::str::from_utf8).transpose() else {
        return Outcome::Close(CloseReason::Header);
    };
    let context = Context {
        broker,
        connection,
        version,
        client_id,
        call: &call,
    };
    if !broker.metadata.is_settled() && is_for_clients(key) {
        broker.metadata.settled().await;
    }
    if key == MetadataRequest::KEY && broker.metadata.is_ignorant() {
        // Whoever asks goes to another broker, or comes again.
        return Outcome::Close(CloseReason::Hangup { api: api.name });
    }
    let request_bytes = body.len() as u64;
    let (outcome, times) = Timed::new((api.handle)(body, context), &call).await;
    match outcome {
        Ok(reply) => {
            let metrics = broker.metrics.request(key);
            metrics.request_bytes.add(request_bytes);
            let fetcher = reply.fetcher();
            let mut outcome = respond(api, version, correlation_id, reply);
            match &mut outcome {
                Outcome::Respond(response) => {
                    metrics.response_bytes.add(response.size_in_bytes() as u64);
                    response.request = Some(Answered {
                        key,
                        version,
                        times,
                        fetcher,
                        charged: call
                            .is_charged()
                            .then(|| client_id.unwrap_or_default().into()),
                    });
                    response.mute = Mute::of(&call);
                }
                Outcome::Silent(mute) => {
                    *mute = Mute::of(&call);
                    metrics.done(version, &times);
                }
                Outcome::Close(_) => {}
            }
            outcome
        }
        Err(source) => Outcome::Close(CloseReason::Malformed {
            api: api.name,
            version,
            source,
        }),
    }
}

/// Whether a request may wait while a broker that has just started knows nothing of the cluster. What the
/// controller sends is what it waits for; what the controller is asked for, and how a connection begins, has
/// nothing to do with it.
fn is_for_clients(key: i16) -> bool {
    ![
        LeaderAndIsrRequest::KEY,
        StopReplicaRequest::KEY,
        UpdateMetadataRequest::KEY,
        ControlledShutdownRequest::KEY,
        AlterPartitionRequest::KEY,
        AllocateProducerIdsRequest::KEY,
        SaslHandshakeRequest::KEY,
        SaslAuthenticateRequest::KEY,
        ApiVersionsRequest::KEY,
    ]
    .contains(&key)
}

fn respond(api: &Api, version: i16, correlation_id: i32, reply: Reply) -> Outcome {
    let body = match reply {
        Reply::Body(bytes) => Body::One(Section::Bytes(bytes)),
        Reply::Fetched { sections, .. } => Body::Many(sections),
        Reply::None => return Outcome::Silent(None),
        Reply::Close => return Outcome::Close(CloseReason::Hangup { api: api.name }),
    };
    match Response::of_body(correlation_id, (api.response_header_version)(version), body) {
        Ok(response) => Outcome::Respond(response),
        Err(size) => Outcome::Close(CloseReason::TooLarge {
            api: api.name,
            size,
        }),
    }
}

/// The part of a header that all its versions begin with.
struct RequestHeader {
    key: i16,
    version: i16,
    correlation_id: i32,
    rest: Bytes,
}

impl RequestHeader {
    fn parse(mut frame: Bytes) -> Option<Self> {
        Some(Self {
            key: frame.try_get_i16().ok()?,
            version: frame.try_get_i16().ok()?,
            correlation_id: frame.try_get_i32().ok()?,
            rest: frame,
        })
    }
}

/// Splits what follows into the client id, if there is one, and the body.
fn split_header(mut rest: Bytes, header_version: i16) -> Option<(Option<Bytes>, Bytes)> {
    if header_version == 0 {
        return Some((None, rest));
    }
    let client_id = match rest.try_get_i16().ok()? {
        -1 => None,
        length => Some(split(&mut rest, usize::try_from(length).ok()?)?),
    };
    if header_version >= 2 {
        for _ in 0..varint(&mut rest)? {
            varint(&mut rest)?;
            let size = varint(&mut rest)?;
            split(&mut rest, size as usize)?;
        }
    }
    Some((client_id, rest))
}

fn split(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

/// An unsigned varint of at most five bytes.
pub(crate) fn varint(bytes: &mut Bytes) -> Option<u32> {
    let mut value = 0_u32;
    for shift in (0..35).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_all_versions_are_split() {
        let check = |bytes: &'static [u8], version, expected: Option<(Option<&str>, &str)>| {
            let found = split_header(Bytes::from_static(bytes), version);
            let expected = expected.map(|(id, body)| {
                (
                    id.map(|id| Bytes::from(id.to_owned())),
                    Bytes::from(body.to_owned()),
                )
            });
            assert_eq!(found, expected);
        };
        check(b"body", 0, Some((None, "body")));
        check(b"\0\x02idbody", 1, Some((Some("id"), "body")));
        check(b"\xff\xffbody", 1, Some((None, "body")));
        check(b"\xff\xfebody", 1, None);
        check(b"\0\x09idbody", 1, None);
        check(b"\0\x02id\0body", 2, Some((Some("id"), "body")));
        check(b"\0\x02id\x01\x05\x02xxbody", 2, Some((Some("id"), "body")));
        check(b"\0\x02id\x01\x05\x7fxxbody", 2, None);
        check(b"\0\x02id\xff\xff\xff\xff\xff", 2, None);
        check(b"", 1, None);
    }
}
