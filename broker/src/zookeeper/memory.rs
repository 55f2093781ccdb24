//! A ZooKeeper in this process, for tests and simulation: sessions, ephemeral nodes, watches, versions,
//! transactions, and the faults that a real one has.
//!
//! Every operation takes effect when it is submitted (or, while the client is cut off, when it is connected
//! again), so a run depends on nothing but the order of calls. The clock is set from outside.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::coordination::{
    Coordination, CoordinationError, CoordinationEvent, CreateMode, NodeEvent, Operation, Outcome,
    SessionHold, SessionState, Stat, Watch,
};

type Results = Vec<Result<Outcome, CoordinationError>>;

#[derive(Clone, Default)]
struct Node {
    data: Option<Vec<u8>>,
    stat: Stat,
    children: BTreeSet<String>,
    /// Children ever created: the number of the next sequential one.
    creations: i32,
}

impl Node {
    fn stat(&self) -> Stat {
        let children = self.children.len() as i32;
        Stat {
            data_length: self.data.as_ref().map_or(0, Vec::len) as i32,
            num_children: children,
            // Each child counts when it comes and when it goes.
            cversion: self.creations.wrapping_mul(2).wrapping_sub(children),
            ..self.stat
        }
    }
}

#[derive(Default)]
struct Tree {
    nodes: BTreeMap<String, Node>,
    zxid: i64,
    wall_clock_ms: i64,
    last_session_id: i64,
    /// Watches left by `get` and `exists`, and by `children`: path and session.
    data_watches: BTreeMap<String, BTreeSet<i64>>,
    child_watches: BTreeMap<String, BTreeSet<i64>>,
    clients: BTreeMap<i64, Arc<Client>>,
}

/// The ensemble: what clients share.
#[derive(Clone, Default)]
pub struct MemoryEnsemble {
    tree: Arc<Mutex<Tree>>,
}

/// A client of a [`MemoryEnsemble`].
pub struct MemoryZooKeeper {
    ensemble: MemoryEnsemble,
    client: Arc<Client>,
}

struct Client {
    session: Mutex<Session>,
    state: watch::Sender<SessionState>,
    subscribers: Mutex<Vec<mpsc::UnboundedSender<CoordinationEvent>>>,
}

struct Session {
    id: i64,
    is_cut_off: bool,
    /// Batches and events that wait for the connection.
    waiting: VecDeque<(Vec<Operation>, oneshot::Sender<Results>)>,
    undelivered: Vec<CoordinationEvent>,
    is_repeating_next_batch: bool,
}

/// A test that panicked with the lock held has failed already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryEnsemble {
    /// An empty ensemble whose clock stands at 0.
    pub fn new() -> Self {
        let ensemble = Self::default();
        let root = (String::from("/"), Node::default());
        lock(&ensemble.tree).nodes.extend([root]);
        ensemble
    }

    /// Sets the clock that times of creation and change are taken from.
    pub fn set_wall_clock_ms(&self, now_ms: i64) {
        lock(&self.tree).wall_clock_ms = now_ms;
    }

    /// A new client with a session of its own.
    pub fn connect(&self) -> Arc<MemoryZooKeeper> {
        let client = Arc::new(Client {
            session: Mutex::new(Session {
                id: 0,
                is_cut_off: false,
                waiting: VecDeque::new(),
                undelivered: Vec::new(),
                is_repeating_next_batch: false,
            }),
            state: watch::Sender::new(SessionState::Connected),
            subscribers: Mutex::new(Vec::new()),
        });
        lock(&self.tree).begin_session(&client);
        Arc::new(MemoryZooKeeper {
            ensemble: self.clone(),
            client,
        })
    }

    /// Data and stat of a node.
    pub fn node(&self, path: &str) -> Option<(Option<Vec<u8>>, Stat)> {
        let tree = lock(&self.tree);
        let node = tree.nodes.get(path)?;
        Some((node.data.clone(), node.stat()))
    }

    /// All nodes with data and stat, by path.
    pub fn dump(&self) -> BTreeMap<String, (Option<Vec<u8>>, Stat)> {
        let tree = lock(&self.tree);
        let nodes = tree.nodes.iter();
        nodes
            .map(|(path, node)| (path.clone(), (node.data.clone(), node.stat())))
            .collect()
    }
}

impl MemoryZooKeeper {
    /// Ends the session as an ensemble does that has not heard from a client for too long, waits until all
    /// subscribers have let go of it, and begins the next one.
    pub async fn expire(&self) {
        let (hold, mut released) = SessionHold::new();
        {
            let mut tree = lock(&self.ensemble.tree);
            let waiting = {
                let mut session = lock(&self.client.session);
                tree.end_session(session.id);
                session.is_cut_off = false;
                session.undelivered.clear();
                std::mem::take(&mut session.waiting)
            };
            for (batch, reply) in waiting {
                // Nobody may be waiting any more.
                let _ = reply.send(failed(&batch, &CoordinationError::SessionExpired));
            }
            self.client.state.send_replace(SessionState::Expired);
        }
        self.client.tell(&CoordinationEvent::SessionExpired(hold));
        // Ends with `None` when the last hold is gone.
        released.recv().await;
        lock(&self.ensemble.tree).begin_session(&self.client);
        self.client.state.send_replace(SessionState::Connected);
        self.client.tell(&CoordinationEvent::SessionEstablished);
    }

    /// Cuts the connection: requests and events wait, the session lives on.
    pub fn cut_off(&self) {
        lock(&self.client.session).is_cut_off = true;
        self.client.state.send_replace(SessionState::Disconnected);
    }

    /// Ends the session as the ensemble does; the client does not know. It is to [`expire`](Self::expire) when
    /// it is connected again, or never, if its process is gone.
    pub fn lose_session(&self) {
        let mut tree = lock(&self.ensemble.tree);
        let id = lock(&self.client.session).id;
        tree.end_session(id);
    }

    /// Restores the connection. What waited is done in order, events first.
    pub fn reconnect(&self) {
        let mut tree = lock(&self.ensemble.tree);
        let (events, waiting, id) = {
            let mut session = lock(&self.client.session);
            session.is_cut_off = false;
            let events = std::mem::take(&mut session.undelivered);
            (events, std::mem::take(&mut session.waiting), session.id)
        };
        self.client.state.send_replace(SessionState::Connected);
        for event in &events {
            self.client.tell(event);
        }
        for (batch, reply) in waiting {
            // Nobody may be waiting any more.
            let _ = reply.send(tree.run_batch(&batch, id));
        }
    }

    /// Does the next batch twice and answers with the second results: a reply was lost and the batch sent again.
    pub fn lose_next_reply(&self) {
        lock(&self.client.session).is_repeating_next_batch = true;
    }
}

fn failed(batch: &[Operation], error: &CoordinationError) -> Results {
    batch.iter().map(|_| Err(error.clone())).collect()
}

impl Client {
    fn tell(&self, event: &CoordinationEvent) {
        lock(&self.subscribers).retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    fn tell_when_connected(&self, event: CoordinationEvent) {
        let mut session = lock(&self.session);
        if session.is_cut_off {
            session.undelivered.push(event);
        } else {
            drop(session);
            self.tell(&event);
        }
    }
}

impl Coordination for MemoryZooKeeper {
    fn submit(&self, batch: Vec<Operation>) -> BoxFuture<'static, Results> {
        let mut tree = lock(&self.ensemble.tree);
        let (id, is_repeating) = {
            let mut session = lock(&self.client.session);
            if session.is_cut_off {
                let error = CoordinationError::Closed;
                let results = failed(&batch, &error);
                let (reply, answer) = oneshot::channel();
                session.waiting.push_back((batch, reply));
                return answer.map(|answer| answer.unwrap_or(results)).boxed();
            }
            let is_repeating = std::mem::take(&mut session.is_repeating_next_batch);
            (session.id, is_repeating)
        };
        let gone = match *self.client.state.borrow() {
            SessionState::Closed => Some(CoordinationError::Closed),
            SessionState::AuthFailed => Some(CoordinationError::AuthFailed),
            SessionState::Expired => Some(CoordinationError::SessionExpired),
            SessionState::Connected | SessionState::Disconnected => None,
        };
        let mut results = match gone {
            Some(error) => failed(&batch, &error),
            None => tree.run_batch(&batch, id),
        };
        if is_repeating {
            results = tree.run_batch(&batch, id);
        }
        std::future::ready(results).boxed()
    }

    fn subscribe(&self) -> mpsc::UnboundedReceiver<CoordinationEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.client.subscribers).push(sender);
        receiver
    }

    fn session_id(&self) -> i64 {
        lock(&self.client.session).id
    }

    fn session_state(&self) -> watch::Receiver<SessionState> {
        self.client.state.subscribe()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let id = self.session_id();
        self.client.state.send_replace(SessionState::Closed);
        lock(&self.ensemble.tree).end_session(id);
        std::future::ready(()).boxed()
    }
}

fn parent_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// How to take back one change.
enum Undo {
    Create {
        path: String,
        parent_pzxid: i64,
    },
    Set {
        path: String,
        data: Option<Vec<u8>>,
        stat: Stat,
    },
    Delete {
        path: String,
        node: Node,
        parent_pzxid: i64,
    },
}

/// Changes of one transaction: how to undo them, and the events to send if it is kept.
#[derive(Default)]
struct Changes {
    undo: Vec<Undo>,
    events: Vec<(String, NodeEvent)>,
}

impl Tree {
    fn begin_session(&mut self, client: &Arc<Client>) {
        self.last_session_id += 1;
        lock(&client.session).id = self.last_session_id;
        self.clients.insert(self.last_session_id, client.clone());
    }

    fn end_session(&mut self, id: i64) {
        if self.clients.remove(&id).is_none() {
            return;
        }
        for watches in [&mut self.data_watches, &mut self.child_watches] {
            for sessions in watches.values_mut() {
                sessions.remove(&id);
            }
        }
        let ephemeral = self.nodes.iter();
        let ephemeral = ephemeral.filter(|(_, node)| node.stat.ephemeral_owner == id);
        let paths: Vec<String> = ephemeral.map(|(path, _)| path.clone()).collect();
        self.zxid += 1;
        let mut changes = Changes::default();
        for path in paths {
            let deleted = self.delete(&path, None, &mut changes);
            debug_assert!(deleted.is_ok(), "an ephemeral node has no children");
        }
        self.fire(changes);
    }

    fn run_batch(&mut self, batch: &[Operation], session: i64) -> Results {
        batch.iter().map(|one| self.run(one, session)).collect()
    }

    fn run(&mut self, operation: &Operation, session: i64) -> Result<Outcome, CoordinationError> {
        match operation {
            Operation::Get { path, watch } => {
                let node = self.nodes.get(path).ok_or(CoordinationError::NoNode)?;
                let (data, stat) = (node.data.clone(), node.stat());
                remember(&mut self.data_watches, path, *watch, session);
                Ok(Outcome::Data { data, stat })
            }
            Operation::Exists { path, watch } => {
                let stat = self.nodes.get(path).map(Node::stat);
                remember(&mut self.data_watches, path, *watch, session);
                Ok(Outcome::Exists(stat))
            }
            Operation::Children { path, watch } => {
                let node = self.nodes.get(path).ok_or(CoordinationError::NoNode)?;
                let names = node.children.iter().cloned().collect();
                remember(&mut self.child_watches, path, *watch, session);
                Ok(Outcome::Children(names))
            }
            Operation::Create { .. } | Operation::Set { .. } | Operation::Delete { .. } => {
                let mut changes = Changes::default();
                self.zxid += 1;
                let outcome = self.write(operation, session, &mut changes)?;
                self.fire(changes);
                Ok(outcome)
            }
            Operation::Check { .. } => Err(CoordinationError::Invalid("a check outside a multi")),
            Operation::Multi(operations) => self.run_multi(operations, session),
        }
    }

    fn run_multi(
        &mut self,
        operations: &[Operation],
        session: i64,
    ) -> Result<Outcome, CoordinationError> {
        let is_write = |operation: &Operation| match operation {
            Operation::Create { .. }
            | Operation::Set { .. }
            | Operation::Delete { .. }
            | Operation::Check { .. } => true,
            Operation::Get { .. }
            | Operation::Exists { .. }
            | Operation::Children { .. }
            | Operation::Multi(_) => false,
        };
        if !operations.iter().all(is_write) {
            return Err(CoordinationError::Invalid("a read inside a multi"));
        }
        self.zxid += 1;
        let mut changes = Changes::default();
        let mut results: Results = Vec::with_capacity(operations.len());
        for operation in operations {
            match self.write(operation, session, &mut changes) {
                Ok(outcome) => results.push(Ok(outcome)),
                Err(error) => {
                    let undo = changes.undo.into_iter().rev();
                    undo.for_each(|undo| self.take_back(undo));
                    results.fill(Err(CoordinationError::RolledBack));
                    results.push(Err(error));
                    let skipped = Err(CoordinationError::RuntimeInconsistency);
                    results.resize(operations.len(), skipped);
                    return Ok(Outcome::Multi(results));
                }
            }
        }
        self.fire(changes);
        Ok(Outcome::Multi(results))
    }

    fn write(
        &mut self,
        operation: &Operation,
        session: i64,
        changes: &mut Changes,
    ) -> Result<Outcome, CoordinationError> {
        match operation {
            Operation::Create { path, data, mode } => {
                let path = self.create(path, data.clone(), *mode, session, changes)?;
                Ok(Outcome::Created { path })
            }
            Operation::Set {
                path,
                data,
                version,
            } => {
                let (zxid, now_ms) = (self.zxid, self.wall_clock_ms);
                let node = self.node_of_version(path, *version)?;
                changes.undo.push(Undo::Set {
                    path: path.clone(),
                    stat: node.stat,
                    data: std::mem::replace(&mut node.data, data.clone()),
                });
                node.stat.version += 1;
                node.stat.mzxid = zxid;
                node.stat.mtime_ms = now_ms;
                changes.events.push((path.clone(), NodeEvent::DataChanged));
                Ok(Outcome::Set(node.stat()))
            }
            Operation::Delete { path, version } => {
                self.delete(path, *version, changes)?;
                Ok(Outcome::Deleted)
            }
            Operation::Check { path, version } => {
                self.node_of_version(path, Some(*version))?;
                Ok(Outcome::Checked)
            }
            Operation::Get { .. }
            | Operation::Exists { .. }
            | Operation::Children { .. }
            | Operation::Multi(_) => Err(CoordinationError::Invalid("not a write")),
        }
    }

    fn node_of_version(
        &mut self,
        path: &str,
        version: Option<i32>,
    ) -> Result<&mut Node, CoordinationError> {
        let node = self.nodes.get_mut(path).ok_or(CoordinationError::NoNode)?;
        if version.is_some_and(|version| version != node.stat.version) {
            return Err(CoordinationError::BadVersion);
        }
        Ok(node)
    }

    fn create(
        &mut self,
        path: &str,
        data: Option<Vec<u8>>,
        mode: CreateMode,
        session: i64,
        changes: &mut Changes,
    ) -> Result<String, CoordinationError> {
        let (zxid, now_ms) = (self.zxid, self.wall_clock_ms);
        if !path.starts_with('/')
            || (path.ends_with('/') && mode != CreateMode::PersistentSequential)
        {
            return Err(CoordinationError::Invalid("a path that is not absolute"));
        }
        let parent_path = parent_of(path);
        let parent = self
            .nodes
            .get(parent_path)
            .ok_or(CoordinationError::NoNode)?;
        let path = match mode {
            CreateMode::PersistentSequential => format!("{path}{:010}", parent.creations),
            CreateMode::Persistent | CreateMode::Ephemeral => path.to_owned(),
        };
        if self.nodes.contains_key(&path) {
            return Err(CoordinationError::NodeExists);
        }
        if parent.stat.ephemeral_owner != 0 {
            return Err(CoordinationError::NoChildrenForEphemerals);
        }
        changes.undo.push(Undo::Create {
            path: path.clone(),
            parent_pzxid: parent.stat.pzxid,
        });
        if let Some(parent) = self.nodes.get_mut(parent_path) {
            parent.children.insert(name_of(&path).to_owned());
            parent.creations += 1;
            parent.stat.pzxid = zxid;
        }
        let stat = Stat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime_ms: now_ms,
            mtime_ms: now_ms,
            ephemeral_owner: match mode {
                CreateMode::Ephemeral => session,
                CreateMode::Persistent | CreateMode::PersistentSequential => 0,
            },
            ..Stat::default()
        };
        let node = Node {
            data,
            stat,
            ..Node::default()
        };
        self.nodes.insert(path.clone(), node);
        changes.events.push((path.clone(), NodeEvent::Created));
        Ok(path)
    }

    fn delete(
        &mut self,
        path: &str,
        version: Option<i32>,
        changes: &mut Changes,
    ) -> Result<(), CoordinationError> {
        let zxid = self.zxid;
        if path == "/" {
            return Err(CoordinationError::Invalid("the root cannot be deleted"));
        }
        if !self.node_of_version(path, version)?.children.is_empty() {
            return Err(CoordinationError::NotEmpty);
        }
        let node = self.nodes.remove(path).ok_or(CoordinationError::NoNode)?;
        let mut parent_pzxid = 0;
        if let Some(parent) = self.nodes.get_mut(parent_of(path)) {
            parent.children.remove(name_of(path));
            parent_pzxid = std::mem::replace(&mut parent.stat.pzxid, zxid);
        }
        changes.undo.push(Undo::Delete {
            path: path.to_owned(),
            node,
            parent_pzxid,
        });
        changes.events.push((path.to_owned(), NodeEvent::Deleted));
        Ok(())
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Create { path, parent_pzxid } => {
                self.nodes.remove(&path);
                if let Some(parent) = self.nodes.get_mut(parent_of(&path)) {
                    parent.children.remove(name_of(&path));
                    parent.creations -= 1;
                    parent.stat.pzxid = parent_pzxid;
                }
            }
            Undo::Set { path, data, stat } => {
                if let Some(node) = self.nodes.get_mut(&path) {
                    (node.data, node.stat) = (data, stat);
                }
            }
            Undo::Delete {
                path,
                node,
                parent_pzxid,
            } => {
                if let Some(parent) = self.nodes.get_mut(parent_of(&path)) {
                    parent.children.insert(name_of(&path).to_owned());
                    parent.stat.pzxid = parent_pzxid;
                }
                self.nodes.insert(path, node);
            }
        }
    }

    fn fire(&mut self, changes: Changes) {
        for (path, event) in changes.events {
            let parent = parent_of(&path).to_owned();
            let mut sessions = self.data_watches.remove(&path).unwrap_or_default();
            if event == NodeEvent::Deleted {
                sessions.extend(self.child_watches.remove(&path).unwrap_or_default());
            }
            self.tell(&sessions, &path, event);
            if event != NodeEvent::DataChanged {
                let sessions = self.child_watches.remove(&parent).unwrap_or_default();
                self.tell(&sessions, &parent, NodeEvent::ChildrenChanged);
            }
        }
    }

    fn tell(&self, sessions: &BTreeSet<i64>, path: &str, event: NodeEvent) {
        for client in sessions.iter().filter_map(|id| self.clients.get(id)) {
            let path = path.to_owned();
            client.tell_when_connected(CoordinationEvent::Node { path, event });
        }
    }
}

fn remember(watches: &mut BTreeMap<String, BTreeSet<i64>>, path: &str, watch: Watch, session: i64) {
    if watch == Watch::Once {
        watches.entry(path.to_owned()).or_default().insert(session);
    }
}
