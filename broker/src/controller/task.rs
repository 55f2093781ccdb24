//! The task that owns the machine: events in, effects out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use barnabas_core::control::LiveBroker;
use barnabas_core::controller::{Answer, Controller, Effect, Event, Notice, Ticket, Timer, Totals};
use barnabas_core::ids::{BrokerEpoch, BrokerId};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::channel::Channel;
use super::metrics::ControllerMetrics;
use super::{Command, ControllerOptions, ControllerStatus, operations, settings};
use crate::clock;
use crate::host;
use crate::zookeeper::coordination::SessionHold;
use crate::zookeeper::{
    BrokerRegistration, Coordination, CoordinationError, CoordinationEvent, FormerOwner,
    RegistrationError, SessionState, Stat, Watch,
};

/// Answers of brokers that wait for the machine, at most; beyond that their queues wait.
const QUEUED_ANSWERS: usize = 1024;

/// How long a registration that somebody else holds is waited for in one go.
const REGISTRATION_PATIENCE: Duration = Duration::from_secs(60);

/// Between attempts to register that fail at once.
const REGISTRATION_BACKOFF: Duration = Duration::from_secs(1);

/// Between two counts of everything that the machine knows: it takes 20 ms for 10,000 partitions in a debug build, and
/// figures are not looked at more often.
const BETWEEN_TOTALS: Duration = Duration::from_secs(1);

type Registering = BoxFuture<'static, Result<BrokerEpoch, RegistrationError>>;

type Looking = BoxFuture<'static, Result<Option<Stat>, CoordinationError>>;

/// Why this broker registers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    NewSession,
    /// The session lives, but its registration was removed: somebody took this broker for dead.
    Removed,
}

/// What the loop wakes up for.
enum Input {
    Event(Event),
    SessionExpired(SessionHold),
    SessionEstablished,
    Registered(Result<BrokerEpoch, RegistrationError>),
    /// What is there at the path of this broker's own registration.
    RegistrationSeen(Result<Option<Stat>, CoordinationError>),
    Command(Command),
    TotalsDue,
    /// ZooKeeper's client or all handles are gone.
    End,
}

pub(super) struct ControllerTask {
    options: ControllerOptions,
    machine: Controller,
    coordination: Arc<dyn Coordination>,
    node_events: mpsc::UnboundedReceiver<CoordinationEvent>,
    commands: mpsc::Receiver<Command>,
    answers_in: mpsc::Sender<Event>,
    answers: mpsc::Receiver<Event>,
    /// The one read or write that is under way.
    pending: Option<BoxFuture<'static, Event>>,
    registering: Option<Registering>,
    registering_because: Reason,
    /// A look at this broker's own registration that leaves a watch.
    looking: Option<Looking>,
    /// This broker is about to stop.
    is_leaving: bool,
    timer: Option<(Timer, Instant)>,
    /// As counted last.
    totals: Totals,
    /// When they may be counted again.
    next_totals: Instant,
    /// Something has happened since.
    totals_are_old: bool,
    channels: BTreeMap<BrokerId, Channel>,
    waiting: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    last_ticket: u64,
    status: watch::Sender<ControllerStatus>,
    leader_elections: u64,
    metrics: Arc<ControllerMetrics>,
}

impl ControllerTask {
    /// Subscribes to ZooKeeper before anything is read.
    pub(super) fn new(
        options: ControllerOptions,
        commands: mpsc::Receiver<Command>,
        status: watch::Sender<ControllerStatus>,
        metrics: Arc<ControllerMetrics>,
    ) -> Self {
        let coordination = options.zookeeper.coordination().clone();
        let (answers_in, answers) = mpsc::channel(QUEUED_ANSWERS);
        let settings = settings(options.registration.id, &options.config.broker());
        Self {
            machine: Controller::new(settings, Box::new(host::random())),
            node_events: coordination.subscribe(),
            coordination,
            commands,
            answers_in,
            answers,
            pending: None,
            registering: None,
            registering_because: Reason::NewSession,
            looking: None,
            is_leaving: false,
            timer: None,
            totals: Totals::default(),
            next_totals: Instant::now(),
            totals_are_old: false,
            channels: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_ticket: 0,
            status,
            leader_elections: 0,
            metrics,
            options,
        }
    }

    pub(super) async fn run(mut self) {
        self.step(Event::Started);
        self.watch_registration();
        loop {
            match self.next_input().await {
                Input::Event(event) | Input::Command(Command::Tell(event)) => self.step(event),
                Input::SessionExpired(hold) => {
                    // In this order: what waits is void, then the next session may begin.
                    self.pending = None;
                    self.registering = None;
                    self.looking = None;
                    self.step(Event::SessionExpired);
                    drop(hold);
                }
                Input::SessionEstablished => self.register(Reason::NewSession, Duration::ZERO),
                Input::Registered(Ok(epoch)) => {
                    self.options.broker_epoch.store(epoch, Ordering::Release);
                    self.watch_registration();
                    match self.registering_because {
                        Reason::NewSession => self.step(Event::SessionEstablished),
                        // The seat was not touched by that, and whoever has it sees the new registration.
                        Reason::Removed => {}
                    }
                }
                Input::Registered(Err(error @ RegistrationError::IdInUse { .. }))
                    if self.registering_because == Reason::Removed =>
                {
                    // Two brokers with one id would take turns for ever.
                    tracing::error!(%error, "this broker was replaced by another one with its id; it ends");
                    match host::exit(1).await {}
                }
                Input::RegistrationSeen(seen) => self.registration_seen(&seen),
                Input::Registered(Err(error)) => {
                    tracing::error!(%error, "this broker could not register again in ZooKeeper");
                    let state = *self.coordination.session_state().borrow();
                    if state == SessionState::Connected {
                        self.register(self.registering_because, REGISTRATION_BACKOFF);
                    }
                }
                Input::Command(Command::Request { request, reply }) => {
                    self.last_ticket += 1;
                    let ticket = Ticket(self.last_ticket);
                    self.waiting.insert(ticket, reply);
                    self.step(Event::Requested { ticket, request });
                }
                Input::Command(Command::LetGoOfRegistration) => self.is_leaving = true,
                Input::Command(Command::Advertise { endpoints, reply }) => {
                    let registration = &mut self.options.registration;
                    registration.endpoints = endpoints;
                    registration.timestamp_ms = clock::wall_clock_ms();
                    // Who asked may have given up.
                    let _ = reply.send(registration.clone());
                }
                Input::TotalsDue => self.publish_status(),
                Input::Command(Command::Resign) | Input::End => break,
            }
        }
        // What is under way is not waited for: whoever stops has finished with the cluster.
        self.pending = None;
        self.step(Event::Stopped);
    }

    /// Waits for the next thing to react to. Cancel safe: receivers give nothing away unless they are chosen, and
    /// futures stay where they are until they are done.
    async fn next_input(&mut self) -> Input {
        let deadline = self.timer.map(|(_, at)| at);
        let timer = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let totals_due = self.totals_are_old.then_some(self.next_totals);
        let totals_due = async {
            match totals_due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The session first: all else means nothing without it. Then answers, so that the machine gets on.
            biased;
            event = self.node_events.recv() => match event {
                Some(CoordinationEvent::Node { path, event }) => {
                    if path == BrokerRegistration::path(self.options.registration.id) {
                        self.watch_registration();
                    }
                    let change = operations::node_change(event);
                    Input::Event(Event::NodeChanged { path, change })
                }
                Some(CoordinationEvent::SessionExpired(hold)) => Input::SessionExpired(hold),
                Some(CoordinationEvent::SessionEstablished) => Input::SessionEstablished,
                None => Input::End,
            },
            event = completed(&mut self.pending) => Input::Event(event),
            result = completed(&mut self.registering) => Input::Registered(result),
            seen = completed(&mut self.looking) => Input::RegistrationSeen(seen),
            // Neither channel ends while this task lives.
            Some(event) = self.answers.recv() => Input::Event(event),
            () = timer => match self.timer.take() {
                Some((timer, _)) => Input::Event(Event::TimerFired(timer)),
                None => Input::End,
            },
            () = totals_due => Input::TotalsDue,
            command = self.commands.recv() => match command {
                Some(command) => Input::Command(command),
                None => Input::End,
            },
        }
    }

    /// Looks at this broker's own registration, and again whenever it changes.
    fn watch_registration(&mut self) {
        let coordination = self.coordination.clone();
        let path = BrokerRegistration::path(self.options.registration.id);
        let looking = async move { coordination.exists(&path, Watch::Once).await };
        self.looking = Some(looking.boxed());
    }

    fn registration_seen(&mut self, seen: &Result<Option<Stat>, CoordinationError>) {
        let owner = match seen {
            Ok(stat) => stat.map(|stat| stat.ephemeral_owner),
            // A look that failed goes with its session, and the next session registers in any case.
            Err(_) => return,
        };
        if owner == Some(self.coordination.session_id())
            || self.registering.is_some()
            || self.is_leaving
        {
            return;
        }
        tracing::warn!(
            broker = %self.options.registration.id,
            "the registration of this broker was removed although its session lives; it registers anew"
        );
        // Whoever took this broker for dead would do so again: from now on it is left to its session.
        self.options.registration.fast_failover = false;
        self.register(Reason::Removed, Duration::ZERO);
    }

    fn register(&mut self, reason: Reason, after: Duration) {
        self.registering_because = reason;
        // In a living session only somebody else can be in the way.
        let patience = match reason {
            Reason::NewSession => REGISTRATION_PATIENCE,
            Reason::Removed => Duration::ZERO,
        };
        let zookeeper = self.options.zookeeper.clone();
        let mut registration = self.options.registration.clone();
        registration.timestamp_ms = clock::wall_clock_ms();
        let registering = async move {
            tokio::time::sleep(after).await;
            let former = FormerOwner::MayBeAlive;
            zookeeper
                .register_broker(&registration, former, patience)
                .await
        };
        self.registering = Some(registering.boxed());
    }

    fn step(&mut self, event: Event) {
        let effects = self.machine.step(event, clock::now());
        for effect in effects {
            self.carry_out(effect);
        }
        self.metrics.finished(&self.machine.take_finished());
        self.totals_are_old = true;
        if self.machine.is_idle() {
            self.publish_status();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Read(reads) => {
                self.pending = Some(operations::read(&self.coordination, reads));
            }
            Effect::WriteFenced {
                epoch_version,
                writes,
            } => {
                let pending = operations::write_fenced(&self.coordination, epoch_version, writes);
                self.pending = Some(pending);
            }
            Effect::Write(writes) => {
                self.pending = Some(operations::write(&self.coordination, writes));
            }
            Effect::WriteTogether(writes) => {
                self.pending = Some(operations::write_together(&self.coordination, writes));
            }
            // The epoch goes with each request.
            Effect::OpenChannel {
                broker,
                broker_epoch: _,
            } => self.open_channel(&broker),
            Effect::MoveChannel { broker } => {
                // The local broker is where it was; a remote one is reached at its new address.
                if broker.id != self.options.registration.id {
                    self.open_channel(&broker);
                }
            }
            Effect::CloseChannel { broker } => {
                self.channels.remove(&broker);
                self.metrics.channel_closed(broker);
            }
            Effect::Send { to, request } => {
                // There is none to a broker that is gone, nor may there be one.
                if let Some(channel) = self.channels.get(&to) {
                    channel.send(request);
                }
            }
            Effect::StartTimer { timer, after } => {
                self.timer = Some((timer, Instant::now() + after));
            }
            Effect::StopTimers => self.timer = None,
            Effect::Answer { ticket, answer } => {
                if let Some(reply) = self.waiting.remove(&ticket) {
                    // Who asked may have given up.
                    let _ = reply.send(answer);
                }
            }
            Effect::Report(notice) => {
                self.leader_elections += u64::from(matches!(notice, Notice::LeaderElected { .. }));
                report(&notice);
            }
        }
    }

    fn open_channel(&mut self, broker: &LiveBroker) {
        let target = if broker.id == self.options.registration.id {
            self.options.target.clone()
        } else if let Some(remote) = &self.options.remote {
            remote.connect(broker)
        } else {
            tracing::warn!(broker = %broker.id, "other brokers cannot be reached yet");
            return;
        };
        let metrics = self.metrics.channel(broker.id);
        let channel = Channel::open(broker.id, target, self.answers_in.clone(), metrics);
        self.channels.insert(broker.id, channel);
    }

    fn publish_status(&mut self) {
        let is_active = self.machine.is_active();
        let now = Instant::now();
        if !is_active {
            self.totals = Totals::default();
            self.totals_are_old = false;
        } else if self.totals_are_old && now >= self.next_totals {
            self.totals = self.machine.totals();
            self.totals_are_old = false;
            self.next_totals = now + BETWEEN_TOTALS;
        }
        let status = ControllerStatus {
            is_active,
            active_controller: self.machine.active_controller(),
            epoch: self.machine.epoch(),
            queued_events: self.machine.queue_length(),
            totals: self.totals,
            leader_elections: self.leader_elections,
            unclean_leader_elections: self.machine.unclean_elections(),
            state: self.machine.activity() as u8,
        };
        self.status.send_if_modified(|current| {
            let is_new = *current != status;
            *current = status;
            is_new
        });
    }
}

/// Waits for the future, if there is one, and takes it away when it is done.
async fn completed<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(future) = slot else {
        return std::future::pending().await;
    };
    let output = future.await;
    *slot = None;
    output
}

fn report(notice: &Notice) {
    match notice {
        Notice::LeaderElected { .. } => tracing::debug!("{notice}"),
        Notice::Elected { .. }
        | Notice::Resigned { .. }
        | Notice::ControllerIs(_)
        | Notice::BrokersChanged { .. }
        | Notice::NewPartitions(_)
        | Notice::Reassigning { .. }
        | Notice::Reassigned { .. }
        | Notice::TopicsQueuedForDeletion(_)
        | Notice::TopicDeleted(_)
        | Notice::DeletionHalted { .. }
        | Notice::ControlledShutdownBegan { .. } => tracing::info!("{notice}"),
        Notice::ControllerMoved
        | Notice::EventFailed { .. }
        | Notice::BrokerIgnored { .. }
        | Notice::PartitionNotMoved { .. }
        | Notice::ReplicaNotMoved { .. }
        | Notice::Malformed { .. }
        | Notice::BrokerRefused { .. }
        | Notice::NotReassigned { .. }
        | Notice::ReplicasOffline { .. } => tracing::warn!("{notice}"),
    }
}
