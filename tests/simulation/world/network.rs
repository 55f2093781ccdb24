//! The network between machines: delays, losses, partitions in either direction, resets, machines that stall.
//!
//! A connection carries one request at a time, as connections between brokers do, so that nothing is reordered
//! within it; across connections everything may be. What was sent before a connection was given up still arrives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use barnabas_broker::api::dispatch::{Outcome, dispatch};
use barnabas_broker::api::{Api, Broker, Connection, Principal, Section};
use barnabas_broker::host::SimulatedHost;
use barnabas_broker::peer::{PeerError, PeerNetwork, PeerStream};
use barnabas_core::control::BrokerAddress;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kafka_protocol::messages::{LeaderAndIsrResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable as _, HeaderVersion as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::checks::Checks;
use super::trace::Trace;

/// Who is at one end of a wire: a broker by its id, a client from [`FIRST_CLIENT`] on, or ZooKeeper.
pub(crate) type Node = i32;

pub(crate) const ZOOKEEPER: Node = 0;
pub(crate) const FIRST_CLIENT: Node = 100;
pub(crate) const PORT: u16 = 9092;

/// How long dialling may take, as over TCP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where wall clocks begin; in the year 2026.
pub(crate) const WALL_CLOCK_START_MS: i64 = 1_790_000_000_000;
/// So many of the orders that each controller gave are kept to be sent once more.
const KEPT_ORDERS: usize = 200;
/// After so long the kernel gives up on what it cannot deliver.
const RETRANSMISSION_MAX: Duration = Duration::from_secs(60);

/// The name under which a broker is reached.
pub(crate) fn host_name(node: Node) -> String {
    format!("b{node}")
}

/// A broker that accepts connections.
#[derive(Clone)]
struct Service {
    broker: Arc<Broker>,
    host: Arc<SimulatedHost>,
}

struct Wires {
    random: StdRng,
    blocked: BTreeSet<(Node, Node)>,
    /// The most that a message takes longer.
    slow: BTreeMap<(Node, Node), Duration>,
    /// Of a thousand messages, how many have to be sent again.
    loss_per_mille: u32,
    stalled: BTreeMap<Node, Instant>,
    /// Who is refused although somebody listens: a firewall that lies, a full backlog.
    refused: BTreeSet<(Node, Node)>,
    /// Machines without power: they do not even refuse.
    silent: BTreeSet<Node>,
    listening: BTreeMap<Node, Service>,
    connections: BTreeMap<u64, (Node, Node, watch::Sender<bool>)>,
    last_connection: u64,
    /// What controllers have ordered lately.
    orders: VecDeque<Order>,
}

/// What a controller has sent to a broker.
#[derive(Clone)]
struct Order {
    from: Node,
    to: Node,
    /// The broker it was sent to, as long as that lives.
    receiver: Weak<Broker>,
    frame: Bytes,
}

/// All wires.
pub(crate) struct Network {
    this: Weak<Network>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) checks: Arc<Checks>,
    wires: Mutex<Wires>,
}

/// The network as one machine sees it.
pub(crate) struct Port {
    network: Arc<Network>,
    node: Node,
}

impl Network {
    pub(crate) fn new(seed: u64, trace: &Arc<Trace>, checks: &Arc<Checks>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            trace: trace.clone(),
            checks: checks.clone(),
            wires: Mutex::new(Wires {
                random: StdRng::seed_from_u64(seed),
                blocked: BTreeSet::new(),
                slow: BTreeMap::new(),
                loss_per_mille: 0,
                stalled: BTreeMap::new(),
                refused: BTreeSet::new(),
                silent: BTreeSet::new(),
                listening: BTreeMap::new(),
                connections: BTreeMap::new(),
                last_connection: 0,
                orders: VecDeque::new(),
            }),
        })
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn port(&self, node: Node) -> Arc<Port> {
        Arc::new(Port {
            network: self.this.upgrade().expect("who calls holds it"),
            node,
        })
    }

    // --- machines ---

    pub(crate) fn listen(&self, node: Node, broker: &Arc<Broker>, host: &Arc<SimulatedHost>) {
        let service = Service {
            broker: broker.clone(),
            host: host.clone(),
        };
        self.wires().listening.insert(node, service);
    }

    /// The process is gone: its port refuses.
    pub(crate) fn stop_listening(&self, node: Node) {
        self.wires().listening.remove(&node);
    }

    /// The machine has no power, or has it again.
    pub(crate) fn set_silent(&self, node: Node, is_silent: bool) {
        let mut wires = self.wires();
        if is_silent {
            wires.silent.insert(node);
        } else {
            wires.silent.remove(&node);
        }
    }

    // --- faults ---

    pub(crate) fn block(&self, from: Node, to: Node) {
        self.wires().blocked.insert((from, to));
    }

    pub(crate) fn is_blocked(&self, from: Node, to: Node) -> bool {
        self.wires().blocked.contains(&(from, to))
    }

    pub(crate) fn unblock(&self, from: Node, to: Node) {
        self.wires().blocked.remove(&(from, to));
    }

    pub(crate) fn slow_down(&self, from: Node, to: Node, most: Duration) {
        self.wires().slow.insert((from, to), most);
    }

    pub(crate) fn set_loss(&self, per_mille: u32) {
        self.wires().loss_per_mille = per_mille;
    }

    /// New connections are refused, or no longer.
    pub(crate) fn refuse(&self, from: Node, to: Node, is_refused: bool) {
        let mut wires = self.wires();
        if is_refused {
            wires.refused.insert((from, to));
        } else {
            wires.refused.remove(&(from, to));
        }
    }

    /// The machine answers nobody for a while: a slow disk, a long pause.
    pub(crate) fn stall(&self, node: Node, time: Duration) {
        self.wires().stalled.insert(node, Instant::now() + time);
    }

    /// Resets the connections between two machines.
    pub(crate) fn reset(&self, a: Node, b: Node) {
        for (client, server, reset) in self.wires().connections.values() {
            if (*client, *server) == (a, b) || (*client, *server) == (b, a) {
                reset.send_replace(true);
            }
        }
    }

    /// Lets orders arrive once more that were given before now, as do those that somebody has sent again because no
    /// answer came. Whoever they are for has to see that they are of the past.
    pub(crate) fn repeat_orders(&self, to: Node) {
        let (orders, service) = {
            let wires = self.wires();
            let orders = wires.orders.iter().filter(|order| order.to == to);
            let orders: Vec<Order> = orders.cloned().collect();
            (orders, wires.listening.get(&to).cloned())
        };
        let Some(service) = service else {
            return;
        };
        for order in orders {
            let is_for_another =
                !std::ptr::eq(order.receiver.as_ptr(), Arc::as_ptr(&service.broker));
            let wire = self.open(order.from, to, &service);
            let (reply, answer) = oneshot::channel();
            let (trace, from) = (self.trace.clone(), order.from);
            if wire.requests.send((order.frame.clone(), reply)).is_err() {
                return;
            }
            tokio::spawn(async move {
                let answered = answer.await;
                drop(wire);
                let Ok(answer) = answered else { return };
                if let Some(obeyed) = obeyed(&order.frame, &answer, is_for_another) {
                    trace.violated(&format!(
                        "OrdersOfThePastAreRefused: {to} obeyed {obeyed} that {from} had sent before"
                    ));
                }
            });
        }
    }

    fn keep_order(&self, from: Node, to: Node, frame: &Bytes) {
        let mut wires = self.wires();
        let Some(service) = wires.listening.get(&to) else {
            return;
        };
        let receiver = Arc::downgrade(&service.broker);
        if wires.orders.len() == KEPT_ORDERS {
            wires.orders.pop_front();
        }
        wires.orders.push_back(Order {
            from,
            to,
            receiver,
            frame: frame.clone(),
        });
    }

    /// All wires are well again.
    pub(crate) fn heal(&self) {
        let mut wires = self.wires();
        wires.blocked.clear();
        wires.refused.clear();
        wires.slow.clear();
        wires.stalled.clear();
        wires.loss_per_mille = 0;
    }

    // --- messages ---

    /// Lets a message travel. False if it never arrives.
    pub(crate) async fn transit(&self, from: Node, to: Node) -> bool {
        let sent = Instant::now();
        let mut delay = self.wires().delay(from, to);
        let mut pause = Duration::from_millis(200);
        loop {
            sleep(delay).await;
            let wires = self.wires();
            if wires.silent.contains(&to) {
                return false;
            }
            delay = if wires.blocked.contains(&(from, to)) {
                pause = (pause * 2).min(Duration::from_secs(3));
                pause
            } else {
                match wires.stalled.get(&to) {
                    Some(until) if *until > Instant::now() => *until - Instant::now(),
                    _ => return true,
                }
            };
            drop(wires);
            if sent.elapsed() > RETRANSMISSION_MAX {
                return false;
            }
        }
    }

    pub(crate) fn is_silent(&self, node: Node) -> bool {
        self.wires().silent.contains(&node)
    }

    pub(crate) fn random_delay(&self, most: Duration) -> Duration {
        let most = most.as_micros() as u64;
        Duration::from_micros(self.wires().random.random_range(0..=most))
    }

    pub(crate) fn chance(&self, probability: f64) -> bool {
        self.wires().random.random_bool(probability)
    }

    /// What a clock shows that nobody sets wrong.
    pub(crate) fn wall_clock_ms(&self) -> i64 {
        WALL_CLOCK_START_MS + self.trace.elapsed().as_millis() as i64
    }

    /// Something arrived, which is when invariants are looked at.
    fn arrived(&self, text: &str) {
        self.trace.note(text);
        self.checks.after_event(&self.trace);
    }
}

/// What was obeyed of an order that came again, by the answer to it: nothing may be by a broker that was started
/// since, and no role may be taken twice.
fn obeyed(order: &Bytes, mut answer: &[u8], is_for_another: bool) -> Option<&'static str> {
    let (key, version) = key_and_version(order);
    let name = Api::find(key)?.name;
    let header_version = LeaderAndIsrResponse::header_version(version);
    ResponseHeader::decode(&mut answer, header_version).ok()?;
    // In all of them the error comes first.
    if answer.get(..2)? != [0, 0] {
        return None;
    }
    if is_for_another {
        return Some(name);
    }
    if name != "LeaderAndIsr" {
        return None;
    }
    let answer = LeaderAndIsrResponse::decode(&mut answer, version).ok()?;
    let topics = answer.topics.iter();
    let mut partitions = topics.flat_map(|topic| &topic.partition_errors);
    let is_obeyed = partitions.any(|partition| partition.error_code == 0);
    is_obeyed.then_some(name)
}

fn key_and_version(frame: &Bytes) -> (i16, i16) {
    (
        i16::from_be_bytes([frame[0], frame[1]]),
        i16::from_be_bytes([frame[2], frame[3]]),
    )
}

impl Wires {
    fn delay(&mut self, from: Node, to: Node) -> Duration {
        let most = match self.random.random_range(0..1000) {
            0..900 => 2_000,
            900..990 => 10_000,
            _ => 80_000,
        };
        let mut delay = Duration::from_micros(self.random.random_range(0..=most));
        if let Some(slow) = self.slow.get(&(from, to)) {
            let most = slow.as_micros() as u64;
            delay += Duration::from_micros(self.random.random_range(0..=most));
        }
        let mut again = Duration::from_millis(200);
        while self.loss_per_mille > 0 && self.random.random_range(0..1000) < self.loss_per_mille {
            delay += again;
            again *= 2;
        }
        delay
    }
}

impl PeerNetwork for Port {
    fn connect<'a>(
        &'a self,
        address: &'a BrokerAddress,
    ) -> BoxFuture<'a, Result<Box<dyn PeerStream>, PeerError>> {
        let dialled = async move {
            let (network, from) = (&self.network, self.node);
            let to: Node = address.host[1..].parse().expect("hosts have numbers");
            if !network.transit(from, to).await {
                std::future::pending::<()>().await;
            }
            let service = {
                let wires = network.wires();
                let service = wires.listening.get(&to).cloned();
                service.filter(|_| !wires.refused.contains(&(from, to)))
            };
            let Some(service) = service else {
                network.transit(to, from).await;
                network.trace.note(&format!("{from}>{to} refused"));
                return Err(PeerError::Refused(ErrorKind::ConnectionRefused.into()));
            };
            let stream = network.open(from, to, &service);
            network.transit(to, from).await;
            Ok(Box::new(stream) as Box<dyn PeerStream>)
        };
        async move {
            tokio::time::timeout(CONNECT_TIMEOUT, dialled)
                .await
                .unwrap_or(Err(PeerError::TimedOut))
        }
        .boxed()
    }
}

type Asked = (Bytes, oneshot::Sender<Bytes>);

struct Wire {
    network: Arc<Network>,
    id: u64,
    from: Node,
    to: Node,
    requests: mpsc::UnboundedSender<Asked>,
    reset: watch::Receiver<bool>,
}

impl Network {
    fn open(&self, from: Node, to: Node, service: &Service) -> Wire {
        let (requests, received) = mpsc::unbounded_channel();
        let (sender, reset) = watch::channel(false);
        let id = {
            let mut wires = self.wires();
            wires.last_connection += 1;
            let id = wires.last_connection;
            wires.connections.insert(id, (from, to, sender));
            id
        };
        let connection = Connection {
            id,
            listener: Arc::from("PLAINTEXT"),
            peer_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            principal: Principal::anonymous(),
        };
        let served = serve(service.broker.clone(), connection, received, reset.clone());
        service.host.spawn(served);
        Wire {
            network: self.this.upgrade().expect("who calls holds it"),
            id,
            from,
            to,
            requests,
            reset,
        }
    }
}

/// One request after the other, until the client hangs up or asks for something strange.
async fn serve(
    broker: Arc<Broker>,
    connection: Connection,
    mut requests: mpsc::UnboundedReceiver<Asked>,
    reset: watch::Receiver<bool>,
) {
    while let Some((frame, reply)) = requests.recv().await {
        if *reset.borrow() {
            return;
        }
        match dispatch(frame, &broker, &connection).await {
            Outcome::Respond(response) => {
                let mut bytes = response.head()[4..].to_vec();
                for section in response.sections() {
                    match section {
                        Section::Bytes(part) => bytes.extend_from_slice(part),
                        Section::File(slice) => match slice.read_all() {
                            Ok(part) => bytes.extend_from_slice(&part),
                            // As when sendfile fails half way.
                            Err(_) => return,
                        },
                    }
                }
                // Who asked may be gone.
                let _ = reply.send(bytes.into());
            }
            Outcome::Silent(_) => {
                let _ = reply.send(Bytes::new());
            }
            Outcome::Close(_) => return,
        }
    }
}

/// Takes a request to its server, whether or not somebody still waits for the answer.
async fn deliver(
    network: Arc<Network>,
    (from, to, id): (Node, Node, u64),
    asked: Asked,
    requests: mpsc::UnboundedSender<Asked>,
    reset: watch::Receiver<bool>,
) {
    if !network.transit(from, to).await || *reset.borrow() {
        return;
    }
    let frame = &asked.0;
    let (key, version) = key_and_version(frame);
    let name = Api::find(key).map_or("?", |api| api.name);
    if matches!(name, "LeaderAndIsr" | "StopReplica" | "UpdateMetadata") {
        network.keep_order(from, to, frame);
    }
    let sum = crc32c::crc32c(frame);
    network.arrived(&format!("{from}>{to} #{id} {name} v{version} {sum:08x}"));
    // If nobody takes it the answer's sender is dropped with it, which is a reset.
    let _ = requests.send(asked);
}

impl PeerStream for Wire {
    fn exchange(
        &mut self,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        let (network, from, to) = (self.network.clone(), self.from, self.to);
        let (reply, answer) = oneshot::channel();
        let way = (from, to, self.id);
        let requests = self.requests.clone();
        let asked = (request, reply);
        tokio::spawn(deliver(
            network.clone(),
            way,
            asked,
            requests,
            self.reset.clone(),
        ));
        let id = self.id;
        let answered = async move {
            let answer = answer.await;
            if network.is_silent(to) || !network.transit(to, from).await {
                std::future::pending::<()>().await;
            }
            if let Ok(bytes) = answer {
                let sum = crc32c::crc32c(&bytes);
                network.arrived(&format!("{from}<{to} #{id} {sum:08x}"));
                Ok(bytes)
            } else {
                network.trace.note(&format!("{from}<{to} #{id} reset"));
                Err(PeerError::Reset(ErrorKind::ConnectionReset.into()))
            }
        };
        let reset = &mut self.reset;
        async move {
            tokio::select! {
                biased;
                _ = reset.wait_for(|reset| *reset) => {
                    Err(PeerError::Reset(ErrorKind::ConnectionReset.into()))
                }
                answered = answered => answered,
                () = sleep(timeout) => Err(PeerError::TimedOut),
            }
        }
        .boxed()
    }

    fn closed(&mut self) -> BoxFuture<'_, PeerError> {
        let (network, from, to) = (self.network.clone(), self.from, self.to);
        let requests = self.requests.clone();
        let ended = async move {
            requests.closed().await;
            // A machine without power says nothing, now or later.
            if network.is_silent(to) || !network.transit(to, from).await {
                std::future::pending::<()>().await;
            }
        };
        let reset = &mut self.reset;
        async move {
            tokio::select! {
                biased;
                _ = reset.wait_for(|reset| *reset) => {}
                () = ended => {}
            }
            PeerError::Reset(ErrorKind::ConnectionReset.into())
        }
        .boxed()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.network.wires().connections.remove(&self.id);
    }
}
