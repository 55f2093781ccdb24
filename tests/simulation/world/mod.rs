//! A world: whole brokers, ZooKeeper, disks, network and clients on one thread, whose time passes only when
//! there is nothing to do, and whose every choice comes from one seed.

pub(crate) mod checks;
pub(crate) mod clients;
pub(crate) mod compactions;
mod deletions;
pub(crate) mod disk;
pub(crate) mod faults;
mod load;
mod members;
pub(crate) mod network;
pub(crate) mod offsets;
mod plan;
pub(crate) mod trace;
pub(crate) mod transactions;
pub(crate) mod zookeeper;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_broker::files::Files as _;
use barnabas_broker::files::memory::Memory;
use barnabas_broker::host::SimulatedHost;
use barnabas_broker::server::{Assembled, Assembly, Ground, StartError};
use barnabas_broker::zookeeper::ZooKeeper;
use barnabas_broker::zookeeper::memory::{MemoryEnsemble, MemoryZooKeeper};
use barnabas_broker::zookeeper::{Coordination as _, Operation};
use barnabas_core::config::BrokerConfig;
use barnabas_core::control::Leadership;
use barnabas_core::ids::{BrokerId, TopicPartition};
use barnabas_core::znodes::{BrokerRegistration, ControllerSeat, PartitionState, TopicAssignment};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use self::checks::Checks;
use self::clients::Client;
use self::disk::Disk;
pub(crate) use self::load::Load;
use self::network::{FIRST_CLIENT, Network, Node, PORT, host_name};
pub(crate) use self::plan::Plan;
use self::trace::Trace;
use self::zookeeper::ZooKeeperClient;

/// How a world ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) events: u64,
    pub(crate) hash: u64,
    pub(crate) simulated: Duration,
    pub(crate) violation: Option<String>,
    pub(crate) recent: Vec<String>,
}

/// A broker's machine.
struct Machine {
    memory: Memory,
    run: Option<Run>,
    /// What its wall clock is off by.
    skew_ms: i64,
}

/// From the start of a broker to its end.
struct Run {
    number: u64,
    host: Arc<SimulatedHost>,
    zookeeper: Arc<ZooKeeperClient>,
    assembled: Option<Arc<Assembled>>,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) trace: Arc<Trace>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) network: Arc<Network>,
    ensemble: MemoryEnsemble,
    /// For what an operator does by hand.
    operator: Arc<MemoryZooKeeper>,
    state: Mutex<State>,
}

struct State {
    random: StdRng,
    machines: BTreeMap<Node, Machine>,
    runs: u64,
    clients: Node,
}

/// Runs a world to its end, on this thread.
pub(crate) fn run<F, S>(plan: Plan, is_loud: bool, story: S) -> Outcome
where
    F: Future<Output = ()>,
    S: FnOnce(Arc<World>) -> F,
{
    trace::catch_panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing");
    runtime.block_on(async {
        let world = World::new(plan, is_loud);
        tokio::select! {
            biased;
            () = world.trace.failure() => {}
            () = story(world.clone()) => {}
        }
        Outcome {
            events: world.trace.events(),
            hash: world.trace.hash(),
            simulated: world.trace.elapsed(),
            violation: world.trace.violation(),
            recent: world.trace.recent(),
        }
    })
}

impl World {
    fn new(plan: Plan, is_loud: bool) -> Arc<Self> {
        let mut random = StdRng::seed_from_u64(plan.seed ^ 0x5eed);
        let trace = Trace::new(is_loud);
        let checks = Arc::new(Checks::new(plan.min_insync_replicas()));
        let network = Network::new(random.random(), &trace, &checks);
        let machines = (1..=plan.brokers).map(|node| {
            let memory = Memory::new();
            // Whoever set the machine up did that long ago.
            for directory in log_dirs(node, plan.log_dirs) {
                let made = memory.create_directory(Path::new(&directory));
                made.expect("nothing is in the way");
            }
            memory.write_back();
            let machine = Machine {
                memory,
                run: None,
                skew_ms: random.random_range(-5_000..5_000),
            };
            (node, machine)
        });
        let machines = machines.collect();
        let ensemble = MemoryEnsemble::new();
        Arc::new(Self {
            operator: ensemble.connect(),
            plan,
            trace,
            checks,
            network,
            ensemble,
            state: Mutex::new(State {
                random,
                machines,
                runs: 0,
                clients: 0,
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn nodes(&self) -> std::ops::RangeInclusive<Node> {
        1..=self.plan.brokers
    }

    fn config(&self, node: Node) -> BrokerConfig {
        let endpoint = format!("PLAINTEXT://{}:{PORT}", host_name(node));
        let mut texts: BTreeMap<String, String> = [
            ("broker.id", node.to_string()),
            ("zookeeper.connect", "simulated:2181".to_owned()),
            (
                "zookeeper.session.timeout.ms",
                self.plan.session_timeout.as_millis().to_string(),
            ),
            ("listeners", endpoint.clone()),
            ("advertised.listeners", endpoint),
            ("log.dirs", log_dirs(node, self.plan.log_dirs).join(",")),
            ("log.index.size.max.bytes", "4096".to_owned()),
            (
                "min.insync.replicas",
                self.plan.min_insync_replicas().to_string(),
            ),
            ("auto.create.topics.enable", "false".to_owned()),
            (
                "transaction.state.log.replication.factor",
                self.plan.replicas.to_string(),
            ),
            (
                "transaction.state.log.min.isr",
                self.plan.min_insync_replicas().to_string(),
            ),
            ("transaction.state.log.num.partitions", "2".to_owned()),
            ("offsets.topic.num.partitions", "2".to_owned()),
            ("group.min.session.timeout.ms", "1000".to_owned()),
            ("group.initial.rebalance.delay.ms", "300".to_owned()),
            ("log.segment.delete.delay.ms", "1000".to_owned()),
            (
                "offsets.topic.replication.factor",
                self.plan.replicas.to_string(),
            ),
        ]
        .map(|(key, text)| (key.to_owned(), text))
        .into();
        texts.extend(self.plan.settings.iter().cloned());
        BrokerConfig::parse(&texts).expect("the settings of the simulation are right")
    }

    // --- machines ---

    pub(crate) fn is_running(&self, node: Node) -> bool {
        self.state().machines[&node].run.is_some()
    }

    /// Starts the broker of a machine that runs none.
    pub(crate) fn start(self: &Arc<Self>, node: Node) {
        let (host, zookeeper, number, memory) = {
            let mut state = self.state();
            state.runs += 1;
            let number = state.runs;
            let seed = state.random.random();
            let machine = state.machines.get_mut(&node).expect("a node of the plan");
            if machine.run.is_some() {
                return;
            }
            let clock = self.network.wall_clock_ms() + machine.skew_ms;
            let host = SimulatedHost::boot(&host_name(node), seed, clock);
            let zookeeper = ZooKeeperClient::connect(node, &self.network, &self.ensemble);
            machine.run = Some(Run {
                number,
                host: host.clone(),
                zookeeper: zookeeper.clone(),
                assembled: None,
            });
            (host, zookeeper, number, machine.memory.clone())
        };
        self.trace.note(&format!("{node} starts"));
        self.network.set_silent(node, false);
        if self.network.is_blocked(node, network::ZOOKEEPER) {
            zookeeper.cut();
        }
        let world = self.clone();
        let disk = Disk::new(&memory, &host);
        let starting = host.clone();
        host.spawn(async move {
            let zookeeper = ZooKeeper::over(zookeeper);
            match world.assemble(node, &zookeeper, disk).await {
                Ok(assembled) => world.started(node, number, assembled, &starting),
                Err(error) => {
                    world.trace.note(&format!("{node} does not start: {error}"));
                    zookeeper.close().await;
                    world.start_again_later(node, number);
                    std::future::pending::<()>().await;
                }
            }
        });
    }

    async fn assemble(
        &self,
        node: Node,
        zookeeper: &Arc<ZooKeeper>,
        disk: Arc<Disk>,
    ) -> Result<Assembled, StartError> {
        let created = zookeeper.create_base_paths().await;
        created.map_err(StartError::BrokerId)?;
        let ground = Ground {
            zookeeper: zookeeper.clone(),
            files: disk,
            network: self.network.port(node),
        };
        let assembly = Assembly::prepare(self.config(node), ground).await?;
        assembly.join(&[("PLAINTEXT".to_owned(), PORT)]).await
    }

    fn started(&self, node: Node, number: u64, assembled: Assembled, host: &Arc<SimulatedHost>) {
        let mut state = self.state();
        let machine = state.machines.get_mut(&node).expect("a node of the plan");
        if let Some(run) = machine.run.as_mut().filter(|run| run.number == number) {
            self.network.listen(node, &assembled.broker, host);
            self.checks.broker_started(node, &assembled.broker);
            run.assembled = Some(Arc::new(assembled));
            self.trace.note(&format!("{node} serves"));
        }
    }

    /// A log directory of a machine fails, until [`World::mend_directories`]; what stands in it stays there.
    pub(crate) fn break_directory(&self, node: Node, index: usize) {
        let directory = log_dirs(node, self.plan.log_dirs).swap_remove(index);
        self.trace.note(&format!("{directory} fails"));
        self.checks.directory_fails(PathBuf::from(&directory));
        let state = self.state();
        state.machines[&node]
            .memory
            .break_directory(Path::new(&directory));
    }

    /// The partitions of the topic that a machine keeps in one of its directories.
    pub(crate) fn partitions_in(&self, node: Node, index: usize) -> Vec<TopicPartition> {
        let directory = log_dirs(node, self.plan.log_dirs).swap_remove(index);
        let state = self.state();
        let entries = state.machines[&node].memory.list(Path::new(&directory));
        let entries = entries.unwrap_or_default();
        let named = |of: &TopicPartition| {
            let name = format!("{}-{}", of.topic, of.partition);
            entries.iter().any(|entry| entry.name == name)
        };
        self.topic_partitions().into_iter().filter(named).collect()
    }

    /// All directories of a machine work again; a broker sees that when it starts. Returns whether one had failed.
    pub(crate) fn mend_directories(&self, node: Node) -> bool {
        for directory in log_dirs(node, self.plan.log_dirs) {
            self.checks.directory_is_mended(Path::new(&directory));
        }
        self.state().machines[&node].memory.mend_directories()
    }

    /// What a service manager does with a process that ended by itself.
    fn start_again_later(self: &Arc<Self>, node: Node, number: u64) {
        let world = self.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(10)).await;
            let is_it = {
                let state = world.state();
                let run = state.machines[&node].run.as_ref();
                run.is_some_and(|run| run.number == number)
            };
            if is_it {
                world.kill(node);
                sleep(Duration::from_secs(1)).await;
                world.start(node);
            }
        });
    }

    /// `kill -9`.
    pub(crate) fn kill(self: &Arc<Self>, node: Node) {
        let Some(run) = self.take_run(node) else {
            return;
        };
        self.trace.note(&format!("{node} is killed"));
        self.end(node, &run);
    }

    /// The machine loses power, and with it what was not flushed, or some of it.
    pub(crate) fn lose_power(self: &Arc<Self>, node: Node) {
        let Some(run) = self.take_run(node) else {
            return;
        };
        self.trace.note(&format!("{node} loses power"));
        self.network.set_silent(node, true);
        self.end(node, &run);
        let mut state = self.state();
        let State {
            random, machines, ..
        } = &mut *state;
        machines[&node].memory.power_loss(random);
    }

    fn take_run(&self, node: Node) -> Option<Run> {
        self.checks.after_event(&self.trace);
        let mut state = self.state();
        state.machines.get_mut(&node)?.run.take()
    }

    fn end(&self, node: Node, run: &Run) {
        self.checks.broker_gone(node);
        self.network.stop_listening(node);
        run.host.kill();
        let zookeeper = run.zookeeper.clone();
        let session_timeout = self.plan.session_timeout;
        tokio::spawn(async move {
            // What was on its way still arrives.
            sleep(Duration::from_millis(5)).await;
            zookeeper.hang_up();
            sleep(session_timeout).await;
            zookeeper.lose_session();
        });
    }

    /// Stops a broker as SIGTERM does, and returns when its process is gone.
    pub(crate) async fn stop(self: &Arc<Self>, node: Node) {
        let (host, assembled, number) = {
            let state = self.state();
            let Some(run) = &state.machines[&node].run else {
                return;
            };
            let Some(assembled) = &run.assembled else {
                return;
            };
            (run.host.clone(), assembled.clone(), run.number)
        };
        self.trace.note(&format!("{node} stops"));
        let network = self.network.clone();
        let stopping = host.spawn(async move {
            assembled.hand_over().await;
            network.stop_listening(node);
            assembled.leave().await;
        });
        // Whoever kills it meanwhile ends the task.
        let _ = tokio::time::timeout(Duration::from_secs(60), stopping).await;
        let is_it = {
            let state = self.state();
            let run = state.machines[&node].run.as_ref();
            run.is_some_and(|run| run.number == number)
        };
        if is_it && let Some(run) = self.take_run(node) {
            self.trace.note(&format!("{node} has stopped"));
            self.end(node, &run);
        }
    }

    /// Brokers that ended their process are started again.
    pub(crate) fn look_after_processes(self: &Arc<Self>) {
        for node in self.nodes() {
            let exited = {
                let state = self.state();
                let run = state.machines[&node].run.as_ref();
                run.filter(|run| run.host.has_exited())
                    .map(|run| run.number)
            };
            if let Some(number) = exited {
                self.trace.note(&format!("{node} has ended its process"));
                self.start_again_later(node, number);
            }
        }
    }

    /// Sets the wall clock of a machine.
    pub(crate) fn shift_clock(&self, node: Node, by_ms: i64) {
        self.trace.note(&format!("{node} clock {by_ms:+} ms"));
        let mut state = self.state();
        let machine = state.machines.get_mut(&node).expect("a node of the plan");
        machine.skew_ms += by_ms;
        if let Some(run) = &machine.run {
            run.host.shift_wall_clock(by_ms);
        }
    }

    // --- ZooKeeper ---

    fn zookeeper_of(&self, node: Node) -> Option<Arc<ZooKeeperClient>> {
        let state = self.state();
        let run = state.machines[&node].run.as_ref()?;
        Some(run.zookeeper.clone())
    }

    /// Cuts a broker off from ZooKeeper; after the session timeout its session ends.
    pub(crate) fn cut_zookeeper(self: &Arc<Self>, node: Node) {
        self.network.block(node, network::ZOOKEEPER);
        let Some(zookeeper) = self.zookeeper_of(node) else {
            return;
        };
        self.trace
            .note(&format!("{node} is cut off from ZooKeeper"));
        zookeeper.cut();
        let session_timeout = self.plan.session_timeout;
        let since = Instant::now();
        tokio::spawn(async move {
            sleep(session_timeout).await;
            if zookeeper.is_cut() && zookeeper.cut_since() <= since {
                zookeeper.lose_session();
            }
        });
    }

    pub(crate) fn restore_zookeeper(&self, node: Node) {
        self.network.unblock(node, network::ZOOKEEPER);
        if let Some(zookeeper) = self.zookeeper_of(node) {
            zookeeper.restore();
        }
    }

    /// The ensemble takes the session of a broker for dead.
    pub(crate) fn expire_session(&self, node: Node) {
        if let Some(zookeeper) = self.zookeeper_of(node)
            && !zookeeper.is_cut()
        {
            zookeeper.expire();
        }
    }

    /// Deletes `/controller`, so that another broker takes the seat.
    pub(crate) async fn move_controller(&self) {
        self.trace.note("the controller is moved");
        // There may be none.
        let _ = self
            .operator
            .submit(vec![Operation::delete("/controller")])
            .await;
    }

    // --- how things are ---

    pub(crate) fn chance(&self, probability: f64) -> bool {
        self.state().random.random_bool(probability)
    }

    pub(crate) fn random_below(&self, end: u64) -> u64 {
        self.state().random.random_range(0..end)
    }

    /// A client for what is done once.
    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let mut state = self.state();
        state.clients += 1;
        let (node, seed) = (FIRST_CLIENT + state.clients, state.random.random());
        Client::new(&self.network, node, self.plan.brokers, seed)
    }

    pub(crate) fn topic_partitions(&self) -> Vec<TopicPartition> {
        let numbers = 0..self.plan.partitions;
        numbers
            .map(|number| TopicPartition::new(TOPIC, number))
            .collect()
    }

    /// What ZooKeeper says of a partition.
    pub(crate) fn leadership(&self, partition: &TopicPartition) -> Option<Leadership> {
        let (data, stat) = self.ensemble.node(&PartitionState::path(partition))?;
        PartitionState::decode(&data?, stat.version).ok()
    }

    /// The broker that holds the controller's seat.
    pub(crate) fn controller(&self) -> Option<Node> {
        let (data, _) = self.ensemble.node(ControllerSeat::PATH)?;
        ControllerSeat::decode(&data?)
            .ok()
            .map(|seat| seat.broker_id.0)
    }

    /// Whether a broker is registered.
    pub(crate) fn is_registered(&self, node: Node) -> bool {
        let path = BrokerRegistration::path(BrokerId(node));
        self.ensemble.node(&path).is_some()
    }

    /// By what a registration differs from those before and after it.
    pub(crate) fn registration_epoch(&self, node: Node) -> Option<i64> {
        let path = BrokerRegistration::path(BrokerId(node));
        self.ensemble.node(&path).map(|(_, stat)| stat.czxid)
    }

    /// The brokers that a partition is assigned to, none while it is being moved.
    fn assignment(&self, partition: &TopicPartition) -> Option<Vec<BrokerId>> {
        let (data, _) = self
            .ensemble
            .node(&TopicAssignment::path(&partition.topic))?;
        let topic = TopicAssignment::decode(&data?).ok()?;
        let assignment = topic.partitions.get(&partition.partition)?;
        (!assignment.is_being_reassigned()).then(|| assignment.replicas.clone())
    }

    pub(crate) fn random_node(&self) -> Node {
        let brokers = self.plan.brokers;
        self.state().random.random_range(1..=brokers)
    }

    /// Why the cluster is not as well as it could be, if it is not.
    pub(crate) fn ailment(&self, partitions: &[TopicPartition]) -> Option<String> {
        for node in self.nodes() {
            let state = self.state();
            let run = state.machines[&node].run.as_ref();
            if run.and_then(|run| run.assembled.as_ref()).is_none() {
                return Some(format!("broker {node} does not run"));
            }
        }
        for partition in partitions {
            let Some(assignment) = self.assignment(partition) else {
                return Some(format!("{partition} is being moved"));
            };
            let Some(leadership) = self.leadership(partition) else {
                return Some(format!("{partition} has no state"));
            };
            if leadership.isr.len() < assignment.len() || leadership.leader < 0 {
                return Some(format!("{partition} is not in sync: {leadership:?}"));
            }
        }
        None
    }

    /// Why replicas differ although nothing happens, if they do.
    pub(crate) fn difference(&self, partition: &TopicPartition) -> Option<String> {
        let end = self.checks.committed_end(partition);
        let state = self.state();
        for node in self.assignment(partition).unwrap_or_default() {
            let node = node.0;
            let machine = &state.machines[&node];
            let assembled = machine.run.as_ref().and_then(|run| run.assembled.as_ref());
            let Some(assembled) = assembled else {
                return Some(format!("broker {node} does not run"));
            };
            let replicas = &assembled.broker.replicas;
            let found = replicas.partition(&partition.topic, partition.partition);
            let Ok(replica) = found else {
                return Some(format!("{partition} is not on {node}"));
            };
            let high_watermark = replica.high_watermark();
            let log_end_offset = replica.log().map_or(-1, |log| log.log_end_offset());
            if high_watermark != end || log_end_offset != end {
                return Some(format!(
                    "{partition} on {node} ends at {log_end_offset}, its high watermark is {high_watermark}, \
                     and {end} is the end of what is committed"
                ));
            }
        }
        None
    }

    /// Waits until `ailment` finds nothing, for a bounded time.
    pub(crate) async fn wait_until_well(
        &self,
        name: &str,
        patience: Duration,
        mut ailment: impl FnMut() -> Option<String>,
    ) {
        let deadline = Instant::now() + patience;
        let mut last = ailment();
        while let Some(found) = &last {
            if Instant::now() > deadline {
                let seconds = patience.as_secs();
                self.trace.violated(&format!(
                    "{name}: {found}, {seconds} s after all was healed"
                ));
                return std::future::pending().await;
            }
            sleep(Duration::from_millis(100)).await;
            last = ailment();
        }
    }
}

/// The topic that is there all the time.
const TOPIC: &str = "t";

/// The log directories of a machine.
fn log_dirs(node: Node, count: usize) -> Vec<String> {
    let numbers = 1..=count;
    numbers
        .map(|number| format!("/machine{node}/logs{number}"))
        .collect()
}

/// Makes all machines start, in an order and at times that chance says.
pub(crate) async fn start_all(world: &Arc<World>) {
    for node in world.nodes() {
        world.start(node);
        sleep(Duration::from_millis(world.random_below(500))).await;
    }
}
