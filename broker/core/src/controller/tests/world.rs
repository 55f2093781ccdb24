//! A ZooKeeper in a map and brokers that obey, so that a transcript shows what the controller does and why.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use rand::RngCore;

use crate::control::{
    ControlError, ControlOutcome, ControlRequest, Endpoint, LeaderAndIsr, Leadership,
    SecurityProtocol, StopReplica, UpdateMetadata,
};
use crate::controller::{
    Answer, Controller, Effect, Event, Found, NodeChange, NodeData, Read, Request, Settings,
    Ticket, Write, WriteError, WriteFailure, WriteResult,
};
use crate::ids::{BrokerId, TopicPartition};
use crate::time::Now;
use crate::znodes::{
    BASE_PATHS, BrokerRegistration, ControllerEpochZnode, ControllerSeat, PartitionAssignment,
    PartitionState, TopicAssignment,
};

#[derive(Clone, Debug)]
struct Node {
    data: Vec<u8>,
    version: i32,
    czxid: i64,
    is_ephemeral: bool,
}

/// One controller, a ZooKeeper, and brokers that answer at once.
pub(super) struct World {
    pub(super) controller: Controller,
    nodes: BTreeMap<String, Node>,
    zxid: i64,
    data_watches: BTreeSet<String>,
    child_watches: BTreeSet<String>,
    events: VecDeque<Event>,
    /// Replicas whose log directory failed.
    pub(super) failed_logs: BTreeSet<(BrokerId, TopicPartition)>,
    /// Before the next fenced write, somebody else changes this node.
    pub(super) interfere_with: Option<String>,
    transcript: String,
    /// Everything that brokers were told, in order.
    pub(super) sent: Vec<(BrokerId, ControlRequest)>,
    pub(super) answers: Vec<Answer>,
    /// How often ZooKeeper was asked something.
    pub(super) rounds: usize,
}

pub(super) fn settings(broker_id: i32) -> Settings {
    Settings {
        broker_id: BrokerId(broker_id),
        inter_broker_listener: "PLAINTEXT".to_owned(),
        control_listener: "PLAINTEXT".to_owned(),
        delete_topic_enable: true,
        unclean_leader_election_enable: false,
        auto_leader_rebalance_enable: true,
        leader_imbalance_check_interval: Duration::from_secs(300),
        leader_imbalance_per_broker_percentage: 10,
    }
}

/// Not random at all, so that transcripts stay as they are.
struct Counter(u64);

impl RngCore for Counter {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.0
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = (self.next_u64() >> 32) as u8;
        }
    }
}

const NOW: Now = Now {
    monotonic: Duration::ZERO,
    wall_clock_ms: 1_700_000_000_000,
};

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        let random = Box::new(Counter(1));
        let mut world = Self {
            controller: Controller::new(settings, random),
            nodes: BTreeMap::new(),
            zxid: 0,
            data_watches: BTreeSet::new(),
            child_watches: BTreeSet::new(),
            events: VecDeque::new(),
            failed_logs: BTreeSet::new(),
            interfere_with: None,
            transcript: String::new(),
            sent: Vec::new(),
            answers: Vec::new(),
            rounds: 0,
        };
        for path in BASE_PATHS {
            let parts: Vec<&str> = path.split('/').skip(1).collect();
            for depth in 1..=parts.len() {
                let path = format!("/{}", parts[..depth].join("/"));
                let _ = world.create(&path, Vec::new(), false);
            }
        }
        world
    }

    /// Registers a broker; returns its epoch.
    pub(super) fn register(&mut self, id: i32) -> i64 {
        let registration = BrokerRegistration {
            id: BrokerId(id),
            endpoints: vec![Endpoint {
                listener: "PLAINTEXT".to_owned(),
                security_protocol: SecurityProtocol::Plaintext,
                host: format!("h{id}"),
                port: 9092,
            }],
            rack: None,
            jmx_port: -1,
            timestamp_ms: 0,
            features: BTreeMap::new(),
            fast_failover: false,
        };
        let path = BrokerRegistration::path(BrokerId(id));
        self.create(&path, registration.encode(), true).unwrap();
        self.zxid
    }

    pub(super) fn deregister(&mut self, id: i32) {
        self.delete(&BrokerRegistration::path(BrokerId(id)))
            .unwrap();
    }

    pub(super) fn broker_epoch(&self, id: i32) -> i64 {
        self.nodes[&BrokerRegistration::path(BrokerId(id))].czxid
    }

    pub(super) fn set_topic(&mut self, topic: &str, partitions: &[&[i32]]) {
        let partitions = partitions.iter().enumerate().map(|(number, replicas)| {
            let replicas = replicas.iter().copied().map(BrokerId).collect();
            (number as i32, PartitionAssignment::new(replicas))
        });
        let path = TopicAssignment::path(topic);
        let existing = self.nodes.get(&path);
        let existing = existing.and_then(|node| TopicAssignment::decode(&node.data).ok());
        let topic_id = match existing {
            Some(existing) => existing.topic_id,
            None => Some(crate::ids::TopicId(uuid::Uuid::from_u128(7))),
        };
        let assignment = TopicAssignment {
            topic_id,
            partitions: partitions.collect(),
        };
        if self.nodes.contains_key(&path) {
            self.set(&path, assignment.encode(), None).unwrap();
        } else {
            self.create(&format!("/config/topics/{topic}"), b"{}".to_vec(), false)
                .unwrap();
            self.create(&path, assignment.encode(), false).unwrap();
        }
    }

    pub(super) fn create(&mut self, path: &str, data: Vec<u8>, is_ephemeral: bool) -> WriteResult {
        if self.nodes.contains_key(path) {
            return Err(WriteError::NodeExists);
        }
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if !parent.is_empty() && !self.nodes.contains_key(parent) {
            return Err(WriteError::NoNode);
        }
        self.zxid += 1;
        let node = Node {
            data,
            version: 0,
            czxid: self.zxid,
            is_ephemeral,
        };
        self.nodes.insert(path.to_owned(), node);
        self.fire(path, NodeChange::Created);
        self.fire_parent(parent);
        Ok(0)
    }

    pub(super) fn set(&mut self, path: &str, data: Vec<u8>, version: Option<i32>) -> WriteResult {
        let Some(node) = self.nodes.get_mut(path) else {
            return Err(WriteError::NoNode);
        };
        if version.is_some_and(|version| version != node.version) {
            return Err(WriteError::BadVersion);
        }
        node.version += 1;
        node.data = data;
        let version = node.version;
        self.zxid += 1;
        self.fire(path, NodeChange::DataChanged);
        Ok(version)
    }

    pub(super) fn delete(&mut self, path: &str) -> WriteResult {
        if self.nodes.remove(path).is_none() {
            return Err(WriteError::NoNode);
        }
        self.zxid += 1;
        self.fire(path, NodeChange::Deleted);
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.fire_parent(parent);
        Ok(0)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    pub(super) fn data(&self, path: &str) -> String {
        let node = self.nodes.get(path);
        node.map_or("-".to_owned(), |node| {
            String::from_utf8_lossy(&node.data).into_owned()
        })
    }

    /// "leader, leader epoch, ISR, controller epoch / data version", as the worked timelines have it.
    pub(super) fn state(&self, topic: &str, partition: i32) -> String {
        let path = PartitionState::path(&TopicPartition::new(topic, partition));
        let Some(node) = self.nodes.get(&path) else {
            return "-".to_owned();
        };
        let state = PartitionState::decode(&node.data, node.version).unwrap();
        let recovering = if state.is_recovering {
            " recovering"
        } else {
            ""
        };
        format!(
            "{}, {}, {}, {} / {}{recovering}",
            state.leader,
            state.leader_epoch,
            ids(&state.isr),
            state.controller_epoch,
            state.partition_epoch
        )
    }

    fn fire(&mut self, path: &str, change: NodeChange) {
        let watched = match change {
            NodeChange::Created | NodeChange::DataChanged | NodeChange::Deleted => {
                self.data_watches.remove(path)
            }
            NodeChange::ChildrenChanged => self.child_watches.remove(path),
        };
        if watched {
            let path = path.to_owned();
            self.events.push_back(Event::NodeChanged { path, change });
        }
    }

    fn fire_parent(&mut self, parent: &str) {
        self.fire(parent, NodeChange::ChildrenChanged);
    }

    /// Data and data version of a node.
    pub(super) fn node(&self, path: &str) -> Option<(&[u8], i32)> {
        let node = self.nodes.get(path)?;
        Some((&node.data, node.version))
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// The controller's broker is gone with its session; another one takes part from now on.
    pub(super) fn replace_controller(&mut self, settings: Settings) {
        self.data_watches.clear();
        self.child_watches.clear();
        self.events.clear();
        let random = Box::new(Counter(1));
        self.controller = Controller::new(settings, random);
        let _ = self.delete(ControllerSeat::PATH);
    }

    /// Ends the session of the controller's broker.
    pub(super) fn expire(&mut self) -> String {
        self.data_watches.clear();
        self.child_watches.clear();
        self.events.clear();
        let ephemeral = self.nodes.iter().filter(|(_, node)| node.is_ephemeral);
        let paths: Vec<String> = ephemeral.map(|(path, _)| path.clone()).collect();
        for path in paths {
            let _ = self.delete(&path);
        }
        self.handle(Event::SessionExpired)
    }

    /// Lets everything that is pending happen; returns what was said meanwhile.
    pub(super) fn settle(&mut self) -> String {
        while let Some(event) = self.events.pop_front() {
            self.step(event);
        }
        std::mem::take(&mut self.transcript)
    }

    /// Gives the controller an event and lets everything happen that follows.
    pub(super) fn handle(&mut self, event: Event) -> String {
        self.events.push_back(event);
        self.settle()
    }

    pub(super) fn request(&mut self, request: Request) -> String {
        let ticket = Ticket(1);
        self.handle(Event::Requested { ticket, request })
    }

    fn step(&mut self, event: Event) {
        match &event {
            Event::ReadCompleted(_) => {}
            Event::WriteCompleted(Ok(results)) => {
                let failed = results.iter().filter(|result| result.is_err());
                for failure in failed {
                    let _ = writeln!(self.transcript, "    failed: {failure:?}");
                }
            }
            Event::NodeChanged { path, change } => {
                let _ = writeln!(self.transcript, "> {path} {change:?}");
            }
            event => {
                let _ = writeln!(self.transcript, "> {}", say_event(event));
            }
        }
        for effect in self.controller.step(event, NOW) {
            let asks = matches!(
                effect,
                Effect::Read(_)
                    | Effect::Write(_)
                    | Effect::WriteTogether(_)
                    | Effect::WriteFenced { .. }
            );
            self.rounds += usize::from(asks);
            let _ = writeln!(self.transcript, "  {}", say_effect(&effect));
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Read(reads) => {
                let found = reads.into_iter().map(|read| self.look(read)).collect();
                self.events.push_front(Event::ReadCompleted(Ok(found)));
            }
            Effect::Write(writes) => {
                let results = writes.into_iter().map(|write| self.carry(write)).collect();
                self.events.push_front(Event::WriteCompleted(Ok(results)));
            }
            Effect::WriteTogether(writes) => {
                let before = (self.nodes.clone(), self.zxid);
                let results: Vec<_> = writes.into_iter().map(|write| self.carry(write)).collect();
                if results.iter().any(Result::is_err) {
                    (self.nodes, self.zxid) = before;
                }
                self.events.push_front(Event::WriteCompleted(Ok(results)));
            }
            Effect::WriteFenced {
                epoch_version,
                writes,
            } => {
                if let Some(path) = self.interfere_with.take() {
                    let data = self.nodes[&path].data.clone();
                    self.set(&path, data, None).unwrap();
                }
                let node = self.nodes.get(ControllerEpochZnode::PATH);
                let result = if node.map(|node| node.version) == Some(epoch_version) {
                    Ok(writes.into_iter().map(|write| self.carry(write)).collect())
                } else {
                    Err(WriteFailure::ControllerMoved)
                };
                self.events.push_front(Event::WriteCompleted(result));
            }
            Effect::Send { to, request } => {
                self.obey(to, &request);
                self.sent.push((to, request));
            }
            Effect::Answer { answer, .. } => self.answers.push(answer),
            Effect::OpenChannel { .. }
            | Effect::MoveChannel { .. }
            | Effect::CloseChannel { .. }
            | Effect::StartTimer { .. }
            | Effect::StopTimers
            | Effect::Report(_) => {}
        }
    }

    fn look(&mut self, read: Read) -> Found {
        match read {
            Read::Data { path, watch } => {
                let node = self.nodes.get(&path);
                if watch && node.is_some() {
                    self.data_watches.insert(path.clone());
                }
                Found::Data(node.map(|node| NodeData {
                    data: node.data.clone(),
                    version: node.version,
                    czxid: node.czxid,
                }))
            }
            Read::Exists { path, watch } => {
                if watch {
                    self.data_watches.insert(path.clone());
                }
                Found::Exists(self.nodes.contains_key(&path))
            }
            Read::Children { path, watch } => {
                if watch {
                    self.child_watches.insert(path.clone());
                }
                let prefix = format!("{path}/");
                let below = self.nodes.keys();
                let names = below.filter_map(|found| found.strip_prefix(&prefix));
                let names = names.filter(|name| !name.contains('/'));
                Found::Children(names.map(str::to_owned).collect())
            }
        }
    }

    fn carry(&mut self, write: Write) -> WriteResult {
        match write {
            Write::Create { path, data } => self.create(&path, data.unwrap_or_default(), false),
            Write::CreateEphemeral { path, data } => self.create(&path, data, true),
            Write::Set {
                path,
                data,
                version,
            } => self.set(&path, data, version),
            Write::Delete { path } => self.delete(&path),
        }
    }

    fn obey(&mut self, broker: BrokerId, request: &ControlRequest) {
        let controller_epoch = self.controller.epoch();
        match request {
            ControlRequest::LeaderAndIsr(request) => {
                let partitions = request.partitions.iter().map(|of| {
                    let of = of.topic_partition.clone();
                    let failed = self.failed_logs.contains(&(broker, of.clone()));
                    let result = if failed {
                        Err(ControlError::StorageError)
                    } else {
                        Ok(())
                    };
                    (of, result)
                });
                let outcome = ControlOutcome {
                    result: Ok(()),
                    partitions: partitions.collect(),
                };
                if !outcome.partitions.iter().all(|(_, result)| result.is_ok()) {
                    self.events.push_back(Event::LeaderAndIsrAnswered {
                        broker,
                        controller_epoch,
                        outcome,
                    });
                }
            }
            ControlRequest::UpdateMetadata(_) => {}
            ControlRequest::StopReplica(request) => {
                let deleted = request.partitions.iter().filter(|of| of.delete);
                let results: Vec<_> = deleted
                    .map(|of| (of.topic_partition.clone(), Ok(())))
                    .collect();
                if !results.is_empty() {
                    self.events.push_back(Event::ReplicasDeleted {
                        broker,
                        controller_epoch,
                        results,
                    });
                }
            }
        }
    }
}

fn ids(ids: &[BrokerId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    format!("[{}]", ids.join(","))
}

fn say_event(event: &Event) -> String {
    match event {
        Event::ReplicasDeleted {
            broker, results, ..
        } => {
            let list: Vec<_> = results.iter().map(|(of, _)| of.to_string()).collect();
            format!("broker {broker} deleted {}", list.join(" "))
        }
        Event::LeaderAndIsrAnswered {
            broker, outcome, ..
        } => {
            let failed = outcome.partitions.iter();
            let failed = failed.filter_map(|(of, result)| result.err().map(|error| (of, error)));
            let failed: Vec<_> = failed
                .map(|(of, error)| format!("{of} {error:?}"))
                .collect();
            format!("broker {broker} answered: {}", failed.join(" "))
        }
        Event::Requested { request, .. } => match request {
            Request::AlterPartition(request) => {
                let proposals = request.partitions.iter();
                let proposals: Vec<_> = proposals.map(|of| ids(&of.isr)).collect();
                format!(
                    "AlterPartition by {} {}",
                    request.broker,
                    proposals.join(" ")
                )
            }
            Request::ControlledShutdown { broker, .. } => format!("ControlledShutdown of {broker}"),
            Request::AllocateProducerIds { broker, .. } => {
                format!("AllocateProducerIds for {broker}")
            }
            Request::ElectLeaders { kind, .. } => format!("ElectLeaders {kind:?}"),
            Request::AlterReassignments(wanted) => {
                let wanted = wanted.iter().map(|(of, target)| match target {
                    Some(target) => format!("{of} to {}", ids(target)),
                    None => format!("{of} back"),
                });
                let wanted: Vec<_> = wanted.collect();
                format!("AlterReassignments {}", wanted.join(" "))
            }
            Request::ListReassignments(_) => "ListReassignments".to_owned(),
        },
        event => format!("{event:?}"),
    }
}

fn leadership(of: &Leadership) -> String {
    format!(
        "leader {} epoch {} isr {} v{}{}",
        of.leader,
        of.leader_epoch,
        ids(&of.isr),
        of.partition_epoch,
        if of.is_recovering { " recovering" } else { "" }
    )
}

fn say_request(to: BrokerId, request: &ControlRequest) -> String {
    match request {
        ControlRequest::LeaderAndIsr(LeaderAndIsr { partitions, .. }) => {
            let parts = partitions.iter().map(|of| {
                let new = if of.is_new { " new" } else { "" };
                format!("{} {}{new}", of.topic_partition, leadership(&of.leadership))
            });
            let parts: Vec<_> = parts.collect();
            format!("{to} <- LeaderAndIsr {}", parts.join("; "))
        }
        ControlRequest::UpdateMetadata(UpdateMetadata {
            partitions,
            live_brokers,
            ..
        }) => {
            let live: Vec<_> = live_brokers.iter().map(|broker| broker.id).collect();
            let parts = partitions.iter().map(|of| {
                let offline = if of.offline_replicas.is_empty() {
                    String::new()
                } else {
                    format!(" offline {}", ids(&of.offline_replicas))
                };
                format!(
                    "{} leader {}{offline}",
                    of.topic_partition, of.leadership.leader
                )
            });
            let parts: Vec<_> = parts.collect();
            format!(
                "{to} <- UpdateMetadata brokers {} {}",
                ids(&live),
                parts.join("; ")
            )
        }
        ControlRequest::StopReplica(StopReplica { partitions, .. }) => {
            let parts = partitions.iter().map(|of| {
                let delete = if of.delete { " delete" } else { "" };
                format!("{} epoch {}{delete}", of.topic_partition, of.leader_epoch)
            });
            let parts: Vec<_> = parts.collect();
            format!("{to} <- StopReplica {}", parts.join("; "))
        }
    }
}

fn say_write(write: &Write) -> String {
    let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
    match write {
        Write::Create { path, data: None } => format!("create {path}"),
        Write::Create {
            path,
            data: Some(data),
        } => format!("create {path} {}", text(data)),
        Write::CreateEphemeral { path, data } => format!("create ephemeral {path} {}", text(data)),
        Write::Set {
            path,
            data,
            version,
        } => match version {
            Some(version) => format!("set {path} if v{version} {}", text(data)),
            None => format!("set {path} {}", text(data)),
        },
        Write::Delete { path } => format!("delete {path}"),
    }
}

fn say_writes(kind: &str, writes: &[Write]) -> String {
    let lines: Vec<_> = writes.iter().map(say_write).collect();
    format!("{kind}\n      {}", lines.join("\n      "))
}

fn say_effect(effect: &Effect) -> String {
    match effect {
        Effect::Read(reads) => {
            let reads = reads.iter().map(|read| match read {
                Read::Data { path, watch } => (path, watch, ""),
                Read::Exists { path, watch } => (path, watch, "?"),
                Read::Children { path, watch } => (path, watch, "/*"),
            });
            let reads: Vec<_> = reads
                .map(|(path, watch, kind)| {
                    format!("{path}{kind}{}", if *watch { " (watch)" } else { "" })
                })
                .collect();
            format!("read {}", reads.join(", "))
        }
        Effect::WriteFenced { writes, .. } => say_writes("write, fenced:", writes),
        Effect::Write(writes) => say_writes("write:", writes),
        Effect::WriteTogether(writes) => say_writes("write together:", writes),
        Effect::OpenChannel {
            broker,
            broker_epoch,
        } => format!("open channel to {} (epoch {broker_epoch})", broker.id),
        Effect::MoveChannel { broker } => format!("move channel to {}", broker.id),
        Effect::CloseChannel { broker } => format!("close channel to {broker}"),
        Effect::Send { to, request } => say_request(*to, request),
        Effect::StartTimer { timer, after } => format!("start timer {timer:?} in {after:?}"),
        Effect::StopTimers => "stop timers".to_owned(),
        Effect::Answer { answer, .. } => format!("answer {answer:?}"),
        Effect::Report(notice) => format!("log: {notice}"),
    }
}
