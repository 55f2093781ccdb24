//! Writes null data, on a connection of its own.
//!
//! Kafka tells null from empty data: the parents it makes are null, and it takes an empty
//! `/latest_producer_id_block` for a damaged one. The client library can only write empty data, so changes
//! with null in them are spoken here: handshake, credentials, create, set, delete, check, multi. No watches and
//! no ephemeral nodes; the session lives while it is used, and nothing hangs on it.

mod digest;
mod jute;
pub(super) mod transport;
pub(super) mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use self::jute::{Malformed, Reader, Writer};
use self::transport::{Stream, Transport};
use self::wire::{Wire, op_code};
use crate::zookeeper::coordination::{CoordinationError, Operation, Outcome};
use crate::zookeeper::options::ZooKeeperOptions;

/// Answers to changes are never longer.
const MAX_FRAME_BYTES: u32 = 16 * 1024 * 1024;
/// The protocol's id for notifications and pings; requests count from 1.
const FIRST_XID: i32 = 1;

/// Why a change was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It may or may not have happened.
    Connection(String),
    AuthFailed(String),
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Connection(error.to_string())
    }
}

impl From<Malformed> for Lost {
    fn from(error: Malformed) -> Self {
        Self::Connection(error.to_string())
    }
}

/// What became of a change.
pub(super) type Written = Result<Result<Outcome, CoordinationError>, Lost>;

struct Connection {
    stream: Box<dyn Stream>,
    /// As negotiated.
    session_timeout: Duration,
    last_xid: i32,
    last_used: Instant,
}

/// See the module's text.
pub(super) struct NullDataWriter {
    options: Arc<ZooKeeperOptions>,
    transport: Transport,
    wire: Wire,
    connection: Option<Connection>,
}

impl NullDataWriter {
    pub(super) fn new(options: Arc<ZooKeeperOptions>, transport: Transport, chroot: &str) -> Self {
        let wire = Wire {
            chroot: chroot.to_owned(),
            set_acl: options.set_acl,
        };
        Self {
            options,
            transport,
            wire,
            connection: None,
        }
    }

    /// Does one change, on a new connection if need be. Never tries twice.
    pub(super) async fn write(
        &mut self,
        operation: &Operation,
    ) -> Result<Result<Outcome, CoordinationError>, Lost> {
        let mut written = self.write_all(&[operation]).await;
        written.pop().expect("there is an answer to each change")
    }

    /// Does changes in their order without waiting for one before the next is sent. None is tried twice; those
    /// behind one that was lost are lost as well.
    pub(super) async fn write_all(&mut self, operations: &[&Operation]) -> Vec<Written> {
        let limit = self.options.session_timeout;
        let mut answers = Vec::with_capacity(operations.len());
        let written = self.try_write_all(operations, &mut answers);
        let lost = match tokio::time::timeout(limit, written).await {
            Ok(Ok(())) => return answers,
            Ok(Err(lost)) => lost,
            Err(_) => Lost::Connection("no answer in time".to_owned()),
        };
        answers.resize_with(operations.len(), || Err(lost.clone()));
        answers
    }

    async fn try_write_all(
        &mut self,
        operations: &[&Operation],
        answers: &mut Vec<Written>,
    ) -> Result<(), Lost> {
        let mut connection = self.take_connection().await?;
        let mut frames = Vec::new();
        let mut sent = Vec::with_capacity(operations.len());
        for operation in operations {
            sent.push(self.wire.encode(operation).map(|(code, body)| {
                let (id, frame) = connection.frame(code, &body);
                frames.extend_from_slice(&frame);
                id
            }));
        }
        connection.send(&frames).await?;
        for (operation, sent) in operations.iter().zip(sent) {
            let answer = match sent {
                Err(error) => Err(error),
                Ok(id) => {
                    let (error, answer) = connection.answer(id).await?;
                    self.wire.decode(operation, error, &answer)?
                }
            };
            answers.push(Ok(answer));
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Ends the session, if there is one.
    pub(super) async fn close(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let closing = connection.ask(op_code::CLOSE_SESSION, &[]);
            // The server forgets it by itself if it does not hear this.
            drop(tokio::time::timeout(Duration::from_secs(1), closing).await);
        }
    }

    async fn take_connection(&mut self) -> Result<Connection, Lost> {
        if let Some(connection) = self.connection.take()
            && connection.last_used.elapsed() < connection.session_timeout / 3
        {
            return Ok(connection);
        }
        let servers = &self.options.connect.servers;
        let timeout = self.options.session_timeout / (servers.len() as u32).max(1);
        let mut lost = Lost::Connection("no server".to_owned());
        for (host, port) in servers {
            let connecting = async {
                let stream = self.transport.connect(host, *port, timeout).await?;
                self.greet(stream).await
            };
            match tokio::time::timeout(timeout, connecting).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => lost = error,
                Err(_) => lost = Lost::Connection("no answer in time".to_owned()),
            }
        }
        Err(lost)
    }

    async fn greet(&self, stream: Box<dyn Stream>) -> Result<Connection, Lost> {
        let timeout_ms = i32::try_from(self.options.session_timeout.as_millis());
        let mut connection = Connection {
            stream,
            session_timeout: self.options.session_timeout,
            last_xid: FIRST_XID - 1,
            last_used: Instant::now(),
        };
        let mut hello = Writer::default();
        hello
            .int(0)
            .long(0)
            .int(timeout_ms.unwrap_or(i32::MAX))
            .long(0);
        hello.buffer(Some(&[0; 16])).bool(false);
        connection.send(&framed(&hello.0)).await?;
        let frame = connection.receive().await?;
        let mut reader = Reader(&frame);
        let (_protocol, timeout_ms) = (reader.int()?, reader.int()?);
        let timeout_ms = u64::try_from(timeout_ms).unwrap_or(0);
        connection.session_timeout = Duration::from_millis(timeout_ms);
        self.authenticate(&mut connection).await?;
        Ok(connection)
    }

    async fn authenticate(&self, connection: &mut Connection) -> Result<(), Lost> {
        let Some(credentials) = &self.options.sasl else {
            return Ok(());
        };
        let failed = |reason: &str| Lost::AuthFailed(reason.to_owned());
        let mut token = Vec::new();
        // A challenge, and the server's own proof.
        for is_challenge in [true, false] {
            let mut body = Writer::default();
            body.buffer(Some(&token));
            let (code, answer) = connection.ask(op_code::SASL, &body.0).await?;
            if code != 0 {
                return Err(failed(
                    "the user name or password of the JAAS file's `Client` section is wrong",
                ));
            }
            let Some(challenge) = Reader(&answer).buffer()? else {
                return Err(failed(
                    "the server does not offer SASL; configure its JAAS file or remove this broker's",
                ));
            };
            if is_challenge {
                let nonce = format!("{:032x}", rand::rng().random::<u128>());
                let answer = digest::answer(challenge, credentials, &nonce);
                token = answer.ok_or_else(|| failed("the server does not offer DIGEST-MD5"))?;
            }
        }
        Ok(())
    }
}

/// A frame with its length before it.
fn framed(frame: &[u8]) -> Vec<u8> {
    let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(frame);
    bytes
}

impl Connection {
    async fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream.write_all(frames).await?;
        self.stream.flush().await?;
        self.last_used = Instant::now();
        Ok(())
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Lost> {
        let length = self.stream.read_u32().await?;
        if length > MAX_FRAME_BYTES {
            return Err(Malformed.into());
        }
        let mut frame = vec![0; length as usize];
        self.stream.read_exact(&mut frame).await?;
        Ok(frame)
    }

    /// The id and the frame of the next request.
    fn frame(&mut self, code: i32, body: &[u8]) -> (i32, Vec<u8>) {
        self.last_xid = self.last_xid.checked_add(1).unwrap_or(FIRST_XID);
        let mut frame = Writer::default();
        frame.int(self.last_xid).int(code);
        frame.0.extend_from_slice(body);
        (self.last_xid, framed(&frame.0))
    }

    /// The error number and the body of the answer to a request.
    async fn answer(&mut self, id: i32) -> Result<(i32, Vec<u8>), Lost> {
        loop {
            let frame = self.receive().await?;
            let mut reader = Reader(&frame);
            let (xid, _zxid, error) = (reader.int()?, reader.long()?, reader.int()?);
            if xid == id {
                return Ok((error, reader.0.to_vec()));
            }
        }
    }

    /// Sends one request and waits for its answer.
    async fn ask(&mut self, code: i32, body: &[u8]) -> Result<(i32, Vec<u8>), Lost> {
        let (id, frame) = self.frame(code, body);
        self.send(&frame).await?;
        self.answer(id).await
    }
}
