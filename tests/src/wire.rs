//! The Kafka protocol, one request at a time, over a plain blocking socket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// How long an answer may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

fn client_id() -> StrBytes {
    StrBytes::from_static_str("test")
}

/// What came back for a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The response without its size.
    Frame(Bytes),
    /// The broker hung up instead.
    Closed,
}

/// A connection to a broker.
#[derive(Debug)]
pub struct WireClient {
    stream: TcpStream,
    address: String,
    client_id: StrBytes,
    next_correlation_id: i32,
}

impl WireClient {
    /// Connects to `host:port`.
    pub fn connect(address: &str) -> Result<WireClient> {
        let stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(WireClient {
            stream,
            address: address.to_owned(),
            client_id: client_id(),
            next_correlation_id: 1,
        })
    }

    /// The same under another client id.
    #[must_use]
    pub fn named(mut self, client_id: &str) -> WireClient {
        self.client_id = StrBytes::from_string(client_id.to_owned());
        self
    }

    /// The socket, for what no client would do.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one frame, its size first.
    pub fn send_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(4 + frame.len());
        bytes.extend_from_slice(&i32::try_from(frame.len()).unwrap_or(i32::MAX).to_be_bytes());
        bytes.extend_from_slice(frame);
        self.send_raw(&bytes)
    }

    /// Waits for the next response.
    pub fn receive(&mut self) -> Result<Answer> {
        let mut size = [0; 4];
        match self.stream.read_exact(&mut size) {
            Ok(()) => {}
            Err(error) if has_closed(&error) => return Ok(Answer::Closed),
            Err(error) => return Err(error).context("waiting for a response"),
        }
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(size))?];
        self.stream
            .read_exact(&mut frame)
            .context("reading a response")?;
        Ok(Answer::Frame(frame.into()))
    }

    /// Sends one frame and waits; connects anew if the broker hung up.
    pub fn exchange(&mut self, frame: &[u8]) -> Result<Answer> {
        let answer = match self.send_frame(frame) {
            Ok(()) => self.receive()?,
            Err(error) if has_closed(&error) => Answer::Closed,
            Err(error) => return Err(error.into()),
        };
        if answer == Answer::Closed {
            let client_id = self.client_id.clone();
            *self = WireClient::connect(&self.address)?;
            self.client_id = client_id;
        }
        Ok(answer)
    }

    /// Sends a request and decodes its answer.
    pub fn request<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let frame = encode_request_of(&self.client_id, request, version, correlation_id)?;
        match self.exchange(&frame)? {
            Answer::Frame(frame) => decode_response::<R::Response>(frame, version, correlation_id),
            Answer::Closed => bail!("closed for API key {} version {version}", R::KEY),
        }
    }
}

/// Header and body of a request.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
) -> Result<BytesMut> {
    encode_request_of(&client_id(), request, version, correlation_id)
}

fn encode_request_of<R: Request>(
    client_id: &StrBytes,
    request: &R,
    version: i16,
    correlation_id: i32,
) -> Result<BytesMut> {
    let mut frame = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(client_id.clone()))
        .encode(&mut frame, R::header_version(version))?;
    request.encode(&mut frame, version)?;
    Ok(frame)
}

/// The body of a response, all of whose bytes must belong to it.
pub fn decode_response<R: Decodable + HeaderVersion>(
    mut frame: Bytes,
    version: i16,
    correlation_id: i32,
) -> Result<R> {
    let header = ResponseHeader::decode(&mut frame, R::header_version(version))?;
    if header.correlation_id != correlation_id {
        bail!(
            "correlation id {} instead of {correlation_id}",
            header.correlation_id
        );
    }
    let response = R::decode(&mut frame, version)?;
    if frame.has_remaining() {
        bail!("{} bytes behind the response", frame.remaining());
    }
    Ok(response)
}

fn has_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
