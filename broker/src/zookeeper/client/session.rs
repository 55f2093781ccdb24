//! The task of a client: one session after the other, each over one connection after the other.
//!
//! It owns everything that changes. Requests lost with a connection are sent again before later ones, so the
//! order of submission holds. Only a server says that a session has expired; until it does, requests wait.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Shared;
use super::digest;
use super::jute::{Malformed, Reader, Writer};
use super::transport::{Stream, Transport};
use super::wire::{SetWatch, Wire, error_code, op_code, watch_event, xid};
use crate::zookeeper::coordination::{
    CoordinationError, CoordinationEvent, NodeEvent, Operation, Outcome, SessionHold, SessionState,
};
use crate::zookeeper::options::ZooKeeperOptions;

/// One operation on its way.
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) code: i32,
    pub(super) body: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<Outcome, CoordinationError>>,
    /// How many connections broke while this had no answer.
    pub(super) losses: u32,
}

impl Request {
    /// Whether a server may refuse it for its size, by closing the connection without a word.
    fn is_large(&self) -> bool {
        self.body.len() > SAFE_REQUEST_BYTES
    }

    /// Whether it broke connections that nothing else can have broken.
    fn is_hopeless(&self) -> bool {
        self.is_large() && self.losses >= LOSSES_OF_LARGE_REQUEST
    }

    /// Whether it is sent with nothing else under way, to see whether it is what breaks connections.
    fn is_suspect(&self) -> bool {
        self.is_large() && self.losses > 0
    }
}

/// What the task is asked for.
pub(super) enum Job {
    Request(Request),
    Close(oneshot::Sender<()>),
}

/// A server closes the connection over a request above its `jute.maxbuffer`, which is never less than this.
const SAFE_REQUEST_BYTES: usize = 0xf_ffff;
/// After so many connections broke over one such request it fails, or nothing else would ever be done.
const LOSSES_OF_LARGE_REQUEST: u32 = 3;
/// No answer is longer. Above Kafka's own limit (4 MiB), to be able to list very many topics.
const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;
/// Paths in one request to set watches again; as in ZooKeeper's own client, to stay below `jute.maxbuffer`.
const SET_WATCHES_BYTES: usize = 128 * 1024;
/// The first pause between two rounds of attempts to connect; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two rounds of attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long a refusal of credentials is waited out.
const AUTH_FAILED_PAUSE: Duration = Duration::from_secs(1);
/// How long the answer to a close is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection is over.
enum Lost {
    Io(String),
    Expired,
    AuthFailed(String),
    Closed,
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl From<Malformed> for Lost {
    fn from(error: Malformed) -> Self {
        Self::Io(error.to_string())
    }
}

/// Why a session is over.
enum End {
    Expired,
    Closed,
}

#[derive(Default)]
struct Watches {
    data: BTreeSet<String>,
    exists: BTreeSet<String>,
    children: BTreeSet<String>,
}

/// Bytes in both directions.
struct Connection {
    stream: Box<dyn Stream>,
    incoming: Vec<u8>,
    outgoing: bytes::BytesMut,
    is_flushed: bool,
    last_received: Instant,
    last_sent: Instant,
}

impl Connection {
    fn send(&mut self, frame: &[u8]) {
        self.outgoing
            .extend_from_slice(&(frame.len() as u32).to_be_bytes());
        self.outgoing.extend_from_slice(frame);
        self.is_flushed = false;
        self.last_sent = Instant::now();
    }

    fn send_request(&mut self, id: i32, code: i32, body: &[u8]) {
        let mut frame = Writer::default();
        frame.int(id).int(code);
        frame.0.extend_from_slice(body);
        self.send(&frame.0);
    }

    /// The next whole frame that has been received.
    fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        let Some((length, rest)) = self.incoming.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(Malformed);
        }
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = frame.to_vec();
        self.incoming.drain(..4 + length);
        Ok(Some(frame))
    }

    /// Moves bytes until some have been received. Cancelling it loses nothing.
    async fn progress(&mut self) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let write = async {
            while !self.outgoing.is_empty() {
                writer.write_buf(&mut self.outgoing).await?;
            }
            if !self.is_flushed {
                writer.flush().await?;
                self.is_flushed = true;
            }
            std::future::pending::<io::Result<()>>().await
        };
        tokio::select! {
            biased;
            received = reader.read_buf(&mut self.incoming) => {
                if received? == 0 {
                    let why = "the server closed the connection";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
                self.last_received = Instant::now();
                Ok(())
            }
            failed = write => failed,
        }
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Lost> {
        loop {
            if let Some(frame) = self.next_frame()? {
                return Ok(frame);
            }
            self.progress().await?;
        }
    }
}

pub(super) struct SessionTask {
    options: Arc<ZooKeeperOptions>,
    transport: Transport,
    wire: Wire,
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedReceiver<Job>,
    waiting: VecDeque<Request>,
    in_flight: VecDeque<(i32, Request)>,
    closing: Option<oneshot::Sender<()>>,
    watches: Watches,
    servers: Vec<(String, u16)>,
    session_id: i64,
    password: Vec<u8>,
    /// As negotiated.
    timeout: Duration,
    last_zxid: i64,
    last_xid: i32,
}

impl SessionTask {
    pub(super) fn new(
        options: Arc<ZooKeeperOptions>,
        transport: Transport,
        wire: Wire,
        shared: Arc<Shared>,
        jobs: mpsc::UnboundedReceiver<Job>,
    ) -> Self {
        let mut servers = options.connect.servers.clone();
        // So that the clients of an ensemble spread over it.
        servers.shuffle(&mut rand::rng());
        Self {
            timeout: options.session_timeout,
            options,
            transport,
            wire,
            shared,
            jobs,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            closing: None,
            watches: Watches::default(),
            servers,
            session_id: 0,
            password: vec![0; 16],
            last_zxid: 0,
            last_xid: 0,
        }
    }

    /// Runs until the client is closed or dropped.
    pub(super) async fn run(mut self) {
        let mut is_first = true;
        loop {
            match self.live(is_first).await {
                End::Closed => break,
                End::Expired => {
                    is_first = false;
                    if let End::Closed = self.expire().await {
                        break;
                    }
                }
            }
        }
        self.shared.set_state(SessionState::Closed);
        self.fail_all(&CoordinationError::Closed);
        self.jobs.close();
        while let Some(job) = self.jobs.recv().await {
            match job {
                Job::Request(request) => answer(request.reply, Err(CoordinationError::Closed)),
                Job::Close(done) => answer(done, ()),
            }
        }
        if let Some(done) = self.closing.take() {
            answer(done, ());
        }
    }

    /// One session, over as many connections as it takes.
    async fn live(&mut self, is_first: bool) -> End {
        let mut is_new = true;
        let mut pause = FIRST_PAUSE;
        loop {
            for (host, port) in self.servers.clone() {
                let lost = self
                    .connect_and_serve(&host, port, is_first, &mut is_new)
                    .await;
                let was_connected = *self.shared.state.borrow() == SessionState::Connected;
                self.lose_requests();
                match lost {
                    Lost::Expired => return End::Expired,
                    Lost::Closed => return End::Closed,
                    Lost::AuthFailed(reason) => {
                        warn!(server = %format_args!("{host}:{port}"), reason, "ZooKeeper refuses this broker's credentials");
                        self.shared.set_reason(format!("{host}:{port}: {reason}"));
                        self.shared.set_state(SessionState::AuthFailed);
                        self.fail_all(&CoordinationError::AuthFailed);
                        if self.pause(AUTH_FAILED_PAUSE).await {
                            return End::Closed;
                        }
                    }
                    Lost::Io(reason) => {
                        self.shared.set_reason(format!("{host}:{port}: {reason}"));
                        self.shared.set_state(SessionState::Disconnected);
                        if was_connected {
                            pause = FIRST_PAUSE;
                            warn!(server = %format_args!("{host}:{port}"), reason, "lost the connection to ZooKeeper; connecting again");
                        } else {
                            debug!(server = %format_args!("{host}:{port}"), reason, "no connection to ZooKeeper");
                        }
                    }
                }
            }
            if self.pause(pause).await {
                return End::Closed;
            }
            // A server that comes back has to be found well before the session would expire on it.
            pause = (pause * 2).min(MAX_PAUSE).min(self.timeout / 8);
        }
    }

    /// Collects jobs for a while. Returns whether the client was closed.
    async fn pause(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause.mul_f64(rand::rng().random_range(0.75..1.0));
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return false,
                job = self.jobs.recv() => match job {
                    Some(Job::Request(request)) => self.waiting.push_back(request),
                    Some(Job::Close(done)) => {
                        self.closing = Some(done);
                        return true;
                    }
                    None => return true,
                },
            }
        }
    }

    /// Tells everybody, and waits until they have let go of the session.
    async fn expire(&mut self) -> End {
        warn!(
            session = format!("0x{:x}", self.session_id),
            "the ZooKeeper session has expired"
        );
        self.shared.set_state(SessionState::Expired);
        self.fail_all(&CoordinationError::SessionExpired);
        self.watches = Watches::default();
        let (hold, mut released) = SessionHold::new();
        self.shared.tell(&CoordinationEvent::SessionExpired(hold));
        loop {
            tokio::select! {
                biased;
                _ = released.recv() => break,
                job = self.jobs.recv() => match job {
                    Some(Job::Request(request)) => {
                        answer(request.reply, Err(CoordinationError::SessionExpired));
                    }
                    Some(Job::Close(done)) => {
                        self.closing = Some(done);
                        return End::Closed;
                    }
                    None => return End::Closed,
                },
            }
        }
        self.session_id = 0;
        self.password = vec![0; 16];
        self.last_zxid = 0;
        End::Expired
    }

    fn fail_all(&mut self, error: &CoordinationError) {
        let in_flight = self.in_flight.drain(..).map(|(_, request)| request);
        for request in in_flight.chain(self.waiting.drain(..)) {
            answer(request.reply, Err(error.clone()));
        }
    }

    /// What was sent without an answer goes first on the next connection.
    fn lose_requests(&mut self) {
        for (_, request) in &mut self.in_flight {
            request.losses += 1;
        }
        let oldest = self.in_flight.front();
        if oldest.is_some_and(|(_, request)| request.is_hopeless())
            && let Some((_, request)) = self.in_flight.pop_front()
        {
            let error = "larger than the `jute.maxbuffer` of the ZooKeeper servers";
            answer(request.reply, Err(CoordinationError::Invalid(error)));
        }
        while let Some((_, request)) = self.in_flight.pop_back() {
            self.waiting.push_front(request);
        }
    }

    async fn connect_and_serve(
        &mut self,
        host: &str,
        port: u16,
        is_first: bool,
        is_new: &mut bool,
    ) -> Lost {
        let timeout = self.options.session_timeout / self.servers.len() as u32;
        let stream = match self.transport.connect(host, port, timeout).await {
            Ok(stream) => stream,
            Err(error) => return error.into(),
        };
        let now = Instant::now();
        let mut connection = Connection {
            stream,
            incoming: Vec::new(),
            outgoing: bytes::BytesMut::new(),
            is_flushed: true,
            last_received: now,
            last_sent: now,
        };
        let greeting = tokio::time::timeout(timeout, self.greet(&mut connection));
        match greeting.await {
            Ok(Ok(())) => {}
            Ok(Err(lost)) => return lost,
            Err(_) => return Lost::Io("the server did not open the session in time".to_owned()),
        }
        info!(
            server = %format_args!("{host}:{port}"),
            session = format!("0x{:x}", self.session_id),
            timeout_ms = self.timeout.as_millis(),
            "connected to ZooKeeper"
        );
        self.shared
            .session_id
            .store(self.session_id, Ordering::Release);
        self.shared.set_state(SessionState::Connected);
        if std::mem::take(is_new) && !is_first {
            self.shared.tell(&CoordinationEvent::SessionEstablished);
        }
        match self.serve(&mut connection).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    /// Opens or takes up the session, proves who this is, and sets the watches again.
    async fn greet(&mut self, connection: &mut Connection) -> Result<(), Lost> {
        let mut hello = Writer::default();
        let timeout_ms =
            i32::try_from(self.options.session_timeout.as_millis()).unwrap_or(i32::MAX);
        hello
            .int(0)
            .long(self.last_zxid)
            .int(timeout_ms)
            .long(self.session_id)
            .buffer(Some(&self.password))
            .bool(false);
        connection.send(&hello.0);
        let frame = connection.receive().await?;
        let mut reader = Reader(&frame);
        let (_protocol, timeout_ms, session_id) = (reader.int()?, reader.int()?, reader.long()?);
        let password = reader.buffer()?.unwrap_or_default();
        if timeout_ms <= 0 {
            return Err(Lost::Expired);
        }
        self.timeout = Duration::from_millis(u64::from(timeout_ms.unsigned_abs()));
        self.session_id = session_id;
        self.password = password.to_vec();
        if self.options.sasl.is_some() {
            self.authenticate(connection).await?;
        }
        self.set_watches_again(connection);
        Ok(())
    }

    async fn authenticate(&mut self, connection: &mut Connection) -> Result<(), Lost> {
        let Some(credentials) = &self.options.sasl else {
            return Ok(());
        };
        let failed = |reason: &str| Lost::AuthFailed(reason.to_owned());
        let mut token = Vec::new();
        // A challenge, and the server's own proof.
        for is_challenge in [true, false] {
            self.last_xid = self.last_xid.wrapping_add(1).max(1);
            let mut body = Writer::default();
            body.buffer(Some(&token));
            connection.send_request(self.last_xid, op_code::SASL, &body.0);
            let frame = connection.receive().await?;
            let mut reader = Reader(&frame);
            let (_, _, code) = (reader.int()?, reader.long()?, reader.int()?);
            if code != error_code::OK {
                return Err(failed(
                    "the user name or password of the JAAS file's `Client` section is wrong",
                ));
            }
            let Some(challenge) = reader.buffer()? else {
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

    fn set_watches_again(&self, connection: &mut Connection) {
        let data = self.watches.data.iter().map(|path| (0, path.as_str()));
        let exists = self.watches.exists.iter().map(|path| (1, path.as_str()));
        let children = self.watches.children.iter().map(|path| (2, path.as_str()));
        let mut all = data.chain(exists).chain(children).peekable();
        while all.peek().is_some() {
            let mut lists: [Vec<&str>; 3] = Default::default();
            let mut bytes = 0;
            while let Some((list, path)) = all.next_if(|_| bytes < SET_WATCHES_BYTES) {
                bytes += path.len() + 4;
                lists[list].push(path);
            }
            let mut body = Writer::default();
            body.long(self.last_zxid);
            for list in &lists {
                body.texts(list.iter().copied());
            }
            connection.send_request(xid::SET_WATCHES, op_code::SET_WATCHES, &body.0);
        }
    }

    /// Sends and receives until the connection is lost.
    async fn serve(
        &mut self,
        connection: &mut Connection,
    ) -> Result<std::convert::Infallible, Lost> {
        loop {
            while let Some(frame) = connection.next_frame()? {
                self.receive(&frame)?;
            }
            if self.closing.is_some() {
                return Err(self.close(connection).await);
            }
            // Whatever has been asked meanwhile goes out in one write.
            while let Ok(job) = self.jobs.try_recv() {
                self.take(job);
            }
            while let Some(request) = self.next_to_send() {
                self.last_xid = self.last_xid.wrapping_add(1).max(1);
                connection.send_request(self.last_xid, request.code, &request.body);
                self.in_flight.push_back((self.last_xid, request));
            }
            let ping_at = connection.last_sent + self.timeout / 3;
            let lost_at = connection.last_received + self.timeout * 2 / 3;
            tokio::select! {
                biased;
                progress = connection.progress() => progress?,
                job = self.jobs.recv() => match job {
                    Some(job) => self.take(job),
                    // All handles are gone without a close: be as quick to let go of the session.
                    None => return Err(self.close(connection).await),
                },
                () = tokio::time::sleep_until(lost_at) => {
                    return Err(Lost::Io("the server has been silent for too long".to_owned()));
                }
                () = tokio::time::sleep_until(ping_at) => {
                    connection.send_request(xid::PING, op_code::PING, &[]);
                }
            }
        }
    }

    /// The next request, if it may go out now.
    fn next_to_send(&mut self) -> Option<Request> {
        let may_join = match self.in_flight.back() {
            None => true,
            Some((_, last)) => {
                let is_suspect = self.waiting.front().is_some_and(Request::is_suspect);
                self.in_flight.len() < self.options.max_in_flight
                    && !is_suspect
                    && !last.is_suspect()
            }
        };
        if may_join {
            self.waiting.pop_front()
        } else {
            None
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Request(request) => self.waiting.push_back(request),
            Job::Close(done) => self.closing = Some(done),
        }
    }

    /// Ends the session. What still waits for an answer is not waited for.
    async fn close(&mut self, connection: &mut Connection) -> Lost {
        self.last_xid = self.last_xid.wrapping_add(1).max(1);
        let id = self.last_xid;
        connection.send_request(id, op_code::CLOSE_SESSION, &[]);
        let closed = async {
            while let Ok(frame) = connection.receive().await {
                let mut reader = Reader(&frame);
                if reader.int() == Ok(id) {
                    break;
                }
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            warn!("ZooKeeper did not confirm the end of the session");
        }
        Lost::Closed
    }

    fn receive(&mut self, frame: &[u8]) -> Result<(), Lost> {
        let mut reader = Reader(frame);
        let (id, zxid, code) = (reader.int()?, reader.long()?, reader.int()?);
        if id == xid::EVENT {
            if let Some((path, event)) = watch_event(reader.0)? {
                self.fire(&path, event);
            }
            return Ok(());
        }
        if zxid > 0 {
            self.last_zxid = zxid;
        }
        match code {
            error_code::SESSION_EXPIRED => return Err(Lost::Expired),
            error_code::SESSION_MOVED => {
                return Err(Lost::Io("the session moved to another server".to_owned()));
            }
            error_code::AUTH_FAILED | error_code::SESSION_CLOSED_REQUIRE_SASL_AUTH => {
                return Err(Lost::AuthFailed("authentication failed".to_owned()));
            }
            _ => {}
        }
        if id == xid::PING || id == xid::SET_WATCHES {
            return Ok(());
        }
        let Some((expected, request)) = self.in_flight.pop_front() else {
            return Err(Malformed.into());
        };
        if expected != id {
            self.in_flight.push_front((expected, request));
            return Err(Malformed.into());
        }
        match self.wire.watch_set_by(&request.operation, code) {
            Some(SetWatch::Data(path)) => drop(self.watches.data.insert(path)),
            Some(SetWatch::Exists(path)) => drop(self.watches.exists.insert(path)),
            Some(SetWatch::Children(path)) => drop(self.watches.children.insert(path)),
            None => {}
        }
        let decoded = self.wire.decode(&request.operation, code, reader.0);
        // An answer that cannot be read would come again and again, so the request fails instead.
        let result = decoded.unwrap_or(Err(CoordinationError::UnexpectedAnswer));
        answer(request.reply, result);
        Ok(())
    }

    fn fire(&mut self, full_path: &str, event: NodeEvent) {
        let watches = &mut self.watches;
        match event {
            NodeEvent::Created | NodeEvent::DataChanged => {
                watches.data.remove(full_path);
                watches.exists.remove(full_path);
            }
            NodeEvent::Deleted => {
                watches.data.remove(full_path);
                watches.exists.remove(full_path);
                watches.children.remove(full_path);
            }
            NodeEvent::ChildrenChanged => drop(watches.children.remove(full_path)),
        }
        let path = self.wire.path_below_chroot(full_path);
        self.shared.tell(&CoordinationEvent::Node { path, event });
    }
}

/// Whoever asked may have gone.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    drop(reply.send(value));
}
