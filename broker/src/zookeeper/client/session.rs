//! The task of a client: one session after the other, and what waits for them.
//!
//! It owns everything that changes. Requests go out in the order of submission; those lost with a connection are
//! sent again before later ones. Changes with null data go by another connection, so both kinds wait for each
//! other. The library takes a session for expired by its own clock; here only a server's word counts: until
//! then the session is taken up again, and watches that may have fired meanwhile are told as fired.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use rand::Rng as _;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{info, warn};
use zookeeper_client::{
    Client, Connector, Error, SaslOptions, SessionInfo, SessionState as LibraryState, WatchedEvent,
};

use super::Shared;
use super::null_data::{Lost, NullDataWriter};
use super::reading::ReadsTogether;
use super::translate::{self, Answer, WatchKind};
use crate::zookeeper::coordination::{
    CoordinationError, CoordinationEvent, CreateMode, NodeEvent, Operation, Outcome, SessionHold,
    SessionState,
};
use crate::zookeeper::options::ZooKeeperOptions;

/// One operation on its way.
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) reply: oneshot::Sender<Result<Outcome, CoordinationError>>,
    /// How many connections broke while this had no answer.
    pub(super) losses: u32,
}

/// What the task is asked for.
pub(super) enum Job {
    Request(Request),
    Close(oneshot::Sender<()>),
}

/// A server closes the connection over a request above its `jute.maxbuffer`, which is never less than 1 MiB;
/// data below this cannot be why.
const SAFE_DATA_BYTES: usize = 1_000_000;
/// After so many connections broke over one such request it fails, or nothing else would ever be done.
const LOSSES_OF_LARGE_REQUEST: u32 = 3;
/// The first pause between two rounds of attempts to connect; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two rounds of attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long a refusal of credentials is waited out.
const AUTH_FAILED_PAUSE: Duration = Duration::from_secs(1);
/// How long the answer to a close is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the connection for null data is kept without use.
const NULL_DATA_IDLE: Duration = Duration::from_secs(2);

impl Request {
    /// Whether a server may refuse it for its size, by closing the connection without a word.
    fn is_large(&self) -> bool {
        self.operation.data_bytes() > SAFE_DATA_BYTES
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

/// Which connection an operation goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Session,
    NullData,
}

fn lane_of(operation: &Operation) -> Lane {
    let is_ephemeral = |operation: &Operation| {
        matches!(
            operation,
            Operation::Create {
                mode: CreateMode::Ephemeral,
                ..
            }
        )
    };
    match operation {
        // An ephemeral node has to belong to the session; registration sets its data at once anyway.
        Operation::Create { data: None, .. } if !is_ephemeral(operation) => Lane::NullData,
        Operation::Set { data: None, .. } => Lane::NullData,
        Operation::Multi(operations) if !operations.iter().any(is_ephemeral) => {
            let mut lanes = operations.iter().map(lane_of);
            lanes
                .find(|lane| *lane == Lane::NullData)
                .unwrap_or(Lane::Session)
        }
        Operation::Create { .. }
        | Operation::Set { .. }
        | Operation::Multi(_)
        | Operation::Get { .. }
        | Operation::Exists { .. }
        | Operation::Children { .. }
        | Operation::Delete { .. }
        | Operation::Check { .. } => Lane::Session,
    }
}

/// How an attempt to have a session ended.
enum Attempt {
    Connected(Client),
    Expired,
    Closed,
}

/// Why a connected client is of no more use.
enum End {
    /// The session may live on.
    Lost(SessionInfo),
    Closed,
}

/// Requests that were sent together; one, but for changes with null data and many reads.
type InFlight = BoxFuture<'static, Vec<(Request, Answer)>>;

pub(super) struct SessionTask {
    options: Arc<ZooKeeperOptions>,
    connector: Connector,
    /// What the library is to connect to.
    cluster: String,
    null_data: Arc<Mutex<NullDataWriter>>,
    null_data_used: Option<Instant>,
    reads: ReadsTogether,
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedReceiver<Job>,
    waiting: VecDeque<Request>,
    in_flight: FuturesOrdered<InFlight>,
    /// Of those in flight.
    lane: Lane,
    has_suspect_in_flight: bool,
    /// Requests without an answer, until nothing is in flight any more.
    lost: Vec<Request>,
    watchers: FuturesUnordered<BoxFuture<'static, (String, WatchKind, WatchedEvent)>>,
    /// How many watchers there are of each watch: a server keeps one, however often it is set.
    armed: BTreeMap<(String, WatchKind), u32>,
    closing: Option<oneshot::Sender<()>>,
}

impl SessionTask {
    pub(super) fn new(
        options: Arc<ZooKeeperOptions>,
        tls: Option<zookeeper_client::TlsOptions>,
        null_data: NullDataWriter,
        shared: Arc<Shared>,
        jobs: mpsc::UnboundedReceiver<Job>,
    ) -> Self {
        let mut connector = Client::connector()
            .with_session_timeout(options.session_timeout)
            .with_fail_eagerly();
        if let Some(credentials) = &options.sasl {
            let sasl =
                SaslOptions::digest_md5(credentials.username.clone(), credentials.password.clone());
            connector = connector.with_sasl(sasl);
        }
        if let Some(tls) = tls {
            connector = connector.with_tls(tls);
        }
        let servers = options.connect.servers.iter();
        let servers: Vec<String> = servers
            .map(|(host, port)| server_text(host, *port))
            .collect();
        Self {
            cluster: format!("{}{}", servers.join(","), options.connect.chroot),
            options,
            connector,
            null_data: Arc::new(Mutex::new(null_data)),
            null_data_used: None,
            reads: ReadsTogether::default(),
            shared,
            jobs,
            waiting: VecDeque::new(),
            in_flight: FuturesOrdered::new(),
            lane: Lane::Session,
            has_suspect_in_flight: false,
            lost: Vec::new(),
            watchers: FuturesUnordered::new(),
            armed: BTreeMap::new(),
            closing: None,
        }
    }

    /// Runs until the client is closed or dropped.
    pub(super) async fn run(mut self) {
        let mut session: Option<SessionInfo> = None;
        let mut is_first = true;
        loop {
            let is_new = session.is_none();
            let client = match self.connect(session.take()).await {
                Attempt::Connected(client) => client,
                Attempt::Closed => break,
                Attempt::Expired if self.expire().await => break,
                Attempt::Expired => continue,
            };
            self.begin(&client, is_new, is_first);
            is_first = false;
            match self.serve(client).await {
                End::Closed => break,
                End::Lost(info) => session = Some(info),
            }
        }
        self.null_data.lock().await.close().await;
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

    /// Begins a session, or takes one up again, however long it takes.
    async fn connect(&mut self, session: Option<SessionInfo>) -> Attempt {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut connector = self.connector.clone();
            if let Some(session) = &session {
                connector = connector.with_session(session.clone());
            }
            let cluster = self.cluster.clone();
            let is_secure = self.options.tls.is_some();
            let connecting = async move {
                if is_secure {
                    connector.secure_connect(&cluster).await
                } else {
                    connector.connect(&cluster).await
                }
            };
            let Some(connected) = self.unless_closed(connecting).await else {
                return Attempt::Closed;
            };
            match connected {
                Ok(client) => return Attempt::Connected(client),
                Err(Error::SessionExpired) if session.is_some() => return Attempt::Expired,
                Err(Error::AuthFailed) => {
                    self.refuse_credentials();
                    pause = AUTH_FAILED_PAUSE;
                }
                Err(error) => {
                    self.shared.set_reason(error.to_string());
                    self.shared.set_state(SessionState::Disconnected);
                }
            }
            let jitter = rand::rng().random_range(0.75..1.0);
            let sleep = tokio::time::sleep(pause.mul_f64(jitter));
            if self.unless_closed(sleep).await.is_none() {
                return Attempt::Closed;
            }
            // A server that comes back has to be found well before the session would expire on it.
            let limit = self.options.session_timeout / 8;
            pause = (pause * 2).min(MAX_PAUSE).min(limit);
        }
    }

    fn refuse_credentials(&mut self) {
        let reason = "the user name or password of the JAAS file's `Client` section is wrong";
        warn!(reason, "ZooKeeper refuses this broker's credentials");
        self.shared.set_reason(reason.to_owned());
        self.shared.set_state(SessionState::AuthFailed);
        self.fail_all(&CoordinationError::AuthFailed);
    }

    /// Waits for something and collects jobs meanwhile. `None` if the client was closed before.
    async fn unless_closed<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return Some(done),
                job = self.jobs.recv() => match job {
                    Some(Job::Request(request)) => self.waiting.push_back(request),
                    Some(Job::Close(done)) => {
                        self.closing = Some(done);
                        return None;
                    }
                    None => return None,
                },
            }
        }
    }

    fn begin(&mut self, client: &Client, is_new: bool, is_first: bool) {
        let id = client.session_id().0;
        info!(
            session = format!("0x{id:x}"),
            timeout_ms = client.session_timeout().as_millis(),
            "connected to ZooKeeper"
        );
        self.shared.session_id.store(id, Ordering::Release);
        self.shared.set_state(SessionState::Connected);
        if is_new && !is_first {
            self.shared.tell(&CoordinationEvent::SessionEstablished);
        }
        // Their watches went with the library's client; nobody knows what happened since.
        self.watchers.clear();
        for (path, kind) in std::mem::take(&mut self.armed).into_keys() {
            let event = match kind {
                WatchKind::Data => NodeEvent::DataChanged,
                WatchKind::Children => NodeEvent::ChildrenChanged,
            };
            self.shared.tell(&CoordinationEvent::Node { path, event });
        }
    }

    /// Tells everybody, and waits until they have let go of the session. Returns whether the client was closed.
    async fn expire(&mut self) -> bool {
        warn!("the ZooKeeper session has expired");
        self.shared.set_state(SessionState::Expired);
        self.fail_all(&CoordinationError::SessionExpired);
        self.watchers.clear();
        self.armed.clear();
        let (hold, mut released) = SessionHold::new();
        self.shared.tell(&CoordinationEvent::SessionExpired(hold));
        loop {
            tokio::select! {
                biased;
                _ = released.recv() => return false,
                job = self.jobs.recv() => match job {
                    Some(Job::Request(request)) => {
                        answer(request.reply, Err(CoordinationError::SessionExpired));
                    }
                    Some(Job::Close(done)) => {
                        self.closing = Some(done);
                        return true;
                    }
                    None => return true,
                },
            }
        }
    }

    fn fail_all(&mut self, error: &CoordinationError) {
        for request in self.lost.drain(..).chain(self.waiting.drain(..)) {
            answer(request.reply, Err(error.clone()));
        }
    }

    /// Sends and receives until the library's client is at its end.
    async fn serve(&mut self, client: Client) -> End {
        let mut states = client.state_watcher();
        loop {
            while let Ok(job) = self.jobs.try_recv() {
                self.take(job);
            }
            if self.closing.is_some() {
                return self.close(client).await;
            }
            if self.in_flight.is_empty() {
                self.requeue_lost();
            }
            match client.state() {
                LibraryState::SyncConnected | LibraryState::ConnectedReadOnly => {
                    self.shared.set_state(SessionState::Connected);
                    while let Some(request) = self.next_to_send() {
                        self.send(&client, request);
                    }
                }
                LibraryState::Disconnected => self.shared.set_state(SessionState::Disconnected),
                LibraryState::Expired | LibraryState::Closed | LibraryState::AuthFailed
                    if self.in_flight.is_empty() =>
                {
                    self.shared.set_state(SessionState::Disconnected);
                    return End::Lost(client.session().clone());
                }
                LibraryState::Expired | LibraryState::Closed | LibraryState::AuthFailed => {}
            }
            let null_data_idle = self.null_data_used.map(|used| used + NULL_DATA_IDLE);
            tokio::select! {
                biased;
                Some(answers) = self.in_flight.next() => for (request, answer) in answers {
                    self.answered(request, answer);
                },
                Some((path, kind, event)) = self.watchers.next() => self.fire(path, kind, &event),
                _ = states.changed() => {}
                job = self.jobs.recv() => match job {
                    Some(job) => self.take(job),
                    // All handles are gone without a close: be as quick to let go of the session.
                    None => return self.close(client).await,
                },
                () = tokio::time::sleep_until(null_data_idle.unwrap_or_else(Instant::now)),
                    if null_data_idle.is_some() && self.in_flight.is_empty() =>
                {
                    self.null_data_used = None;
                    self.null_data.lock().await.close().await;
                }
            }
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Request(request) => self.waiting.push_back(request),
            Job::Close(done) => self.closing = Some(done),
        }
    }

    /// What was lost goes first, in its order.
    fn requeue_lost(&mut self) {
        for request in self.lost.drain(..).rev() {
            self.waiting.push_front(request);
        }
        let is_hopeless = self.waiting.front().is_some_and(Request::is_hopeless);
        if is_hopeless && let Some(request) = self.waiting.pop_front() {
            let error = "larger than the `jute.maxbuffer` of the ZooKeeper servers";
            answer(request.reply, Err(CoordinationError::Invalid(error)));
        }
    }

    /// The next request, if it may go out now.
    fn next_to_send(&mut self) -> Option<Request> {
        let next = self.waiting.front()?;
        let may_join = self.in_flight.is_empty()
            || (self.lost.is_empty()
                && self.in_flight.len() < self.options.max_in_flight
                && self.lane == lane_of(&next.operation)
                && !next.is_suspect()
                && !self.has_suspect_in_flight);
        if may_join {
            self.waiting.pop_front()
        } else {
            None
        }
    }

    fn send(&mut self, client: &Client, request: Request) {
        self.lane = lane_of(&request.operation);
        self.has_suspect_in_flight = request.is_suspect();
        let mut asking: InFlight = match self.lane {
            Lane::Session => {
                let (client, set_acl) = (client.clone(), self.options.set_acl);
                let joining = self.reads.joining(&request, self.waiting.iter());
                if joining > 0 {
                    let mut requests = vec![request];
                    requests.extend(self.waiting.drain(..joining));
                    self.reads.clone().run(client, requests, set_acl).boxed()
                } else {
                    async move {
                        let answer = translate::run(&client, &request.operation, set_acl).await;
                        vec![(request, answer)]
                    }
                    .boxed()
                }
            }
            Lane::NullData => {
                self.null_data_used = Some(Instant::now());
                let mut requests = vec![request];
                requests.extend(self.null_data_to_join());
                write_null_data(self.null_data.clone(), requests).boxed()
            }
        };
        // Requests are sent when they are polled first, so this is what keeps their order.
        match (&mut asking).now_or_never() {
            Some(answered) => self
                .in_flight
                .push_back(std::future::ready(answered).boxed()),
            None => self.in_flight.push_back(asking),
        }
    }

    /// The changes with null data that follow one that may go out now, as many as may go out with it.
    fn null_data_to_join(&mut self) -> Vec<Request> {
        let mut joining = Vec::new();
        while joining.len() + 1 < self.options.max_in_flight
            && !self.has_suspect_in_flight
            && self.waiting.front().is_some_and(|next| {
                lane_of(&next.operation) == Lane::NullData && !next.is_suspect()
            })
        {
            joining.extend(self.waiting.pop_front());
        }
        joining
    }

    fn answered(&mut self, mut request: Request, became: Answer) {
        match became {
            Answer::Lost => {
                request.losses += 1;
                self.lost.push(request);
            }
            Answer::Done(result, watcher) => {
                if let Some((watcher, watch)) = watcher.zip(translate::watch_of(&request.operation))
                {
                    *self.armed.entry(watch.clone()).or_default() += 1;
                    let (path, kind) = watch;
                    let changed = async move { (path, kind, watcher.changed().await) };
                    self.watchers.push(changed.boxed());
                }
                answer(request.reply, result);
            }
        }
    }

    fn fire(&mut self, path: String, kind: WatchKind, event: &WatchedEvent) {
        let Some(event) = translate::node_event(event) else {
            // The end of the session; the watch stays armed to be told when it is taken up again.
            return;
        };
        let key = (path, kind);
        match self.armed.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.armed.remove(&key);
                let path = key.0;
                self.shared.tell(&CoordinationEvent::Node { path, event });
            }
            None => {}
        }
    }

    /// Ends the session. What still waits for an answer is not waited for.
    async fn close(&mut self, client: Client) -> End {
        let mut states = client.state_watcher();
        self.in_flight = FuturesOrdered::new();
        self.watchers.clear();
        // The library closes the session when the last handle is gone.
        drop(client);
        let closed = async {
            while !matches!(
                states.changed().await,
                LibraryState::Closed | LibraryState::Expired | LibraryState::AuthFailed
            ) {}
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            warn!("ZooKeeper did not confirm the end of the session");
        }
        End::Closed
    }
}

async fn write_null_data(
    writer: Arc<Mutex<NullDataWriter>>,
    requests: Vec<Request>,
) -> Vec<(Request, Answer)> {
    let operations: Vec<&Operation> = requests.iter().map(|one| &one.operation).collect();
    let written = writer.lock().await.write_all(&operations).await;
    if written
        .iter()
        .any(|one| matches!(one, Err(Lost::Connection(_))))
    {
        // The library's own reconnecting sets the pace where both are cut off.
        tokio::time::sleep(FIRST_PAUSE).await;
    }
    let answers = written.into_iter().map(|written| match written {
        Ok(result) => Answer::Done(result, None),
        Err(Lost::AuthFailed(_)) => Answer::Done(Err(CoordinationError::AuthFailed), None),
        Err(Lost::Connection(_)) => Answer::Lost,
    });
    requests.into_iter().zip(answers).collect()
}

fn server_text(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Whoever asked may have gone.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    drop(reply.send(value));
}
