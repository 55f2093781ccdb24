//! Several brokers, ours or Apache Kafka's or both, on one ZooKeeper ensemble: on loopback, or each server on a
//! machine of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::broker::{Broker, BrokerKind, BrokerOptions};
use crate::ensemble::Ensemble;
use crate::network::{Machine, Network};
use crate::verify::{ClusterView, TopicPlan, create_topic};

/// What a cluster consists of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The brokers' kinds; their ids count from 1.
    pub brokers: Vec<BrokerKind>,
    pub zookeepers: usize,
    /// Settings of all brokers, also in place of those that the harness chooses.
    pub properties: BTreeMap<String, String>,
    /// Settings of the harness that a broker shall have its own default of.
    pub defaults: Vec<String>,
    /// Whether each broker has a `broker.rack` of its own, `rack1` for broker 1.
    pub has_racks: bool,
    /// Options of the Java virtual machines of Kafka's brokers; a small heap if empty.
    pub java_options: Vec<String>,
}

impl ClusterOptions {
    /// Brokers of these kinds on one ZooKeeper server.
    pub fn of(brokers: &[BrokerKind]) -> Self {
        Self {
            brokers: brokers.to_vec(),
            zookeepers: 1,
            properties: BTreeMap::new(),
            defaults: Vec::new(),
            has_racks: false,
            java_options: Vec::new(),
        }
    }

    /// Three brokers of the kind under test.
    pub fn three() -> Self {
        Self::of(&[BrokerKind::under_test(); 3])
    }

    #[must_use]
    pub fn zookeepers(mut self, count: usize) -> Self {
        self.zookeepers = count;
        self
    }

    /// The same with one more property.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers pass numbers and literals"
    )]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.properties.insert(key.to_owned(), value.to_string());
        self
    }

    /// The same with the broker's own default of this property.
    #[must_use]
    pub fn with_default(mut self, key: &str) -> Self {
        self.defaults.push(key.to_owned());
        self
    }
}

/// Where the servers of a cluster are.
#[derive(Debug)]
struct Machines {
    brokers: Vec<Machine>,
    zookeepers: Vec<Machine>,
    client: Machine,
    network: Network,
}

#[derive(Debug)]
struct Node {
    options: BrokerOptions,
    broker: Option<Broker>,
}

/// Brokers with ids from 1 on. Dropping it kills all and removes their data.
#[derive(Debug)]
pub struct Cluster {
    // In the order of dropping: processes, then what they live in.
    nodes: BTreeMap<i32, Node>,
    zookeeper: Ensemble,
    machines: Option<Machines>,
    directory: tempfile::TempDir,
}

impl Cluster {
    /// Starts all on loopback.
    pub fn start(options: &ClusterOptions) -> Result<Cluster> {
        let zookeeper = Ensemble::on_loopback(options.zookeepers)?;
        Self::assemble(options, zookeeper, None)
    }

    /// Starts all on machines of their own and runs `story` on a further one, the clients'.
    pub fn on_machines<T: Send>(
        options: &ClusterOptions,
        story: impl FnOnce(&mut Cluster) -> T + Send,
    ) -> Result<T> {
        let (brokers, zookeepers) = (options.brokers.len(), options.zookeepers);
        let network = Network::new(u8::try_from(brokers + zookeepers + 1)?)?;
        let mut machines = network.machines().iter().cloned();
        let brokers: Vec<Machine> = machines.by_ref().take(brokers).collect();
        let zookeepers: Vec<Machine> = machines.by_ref().take(zookeepers).collect();
        let client = machines.next().context("a machine for clients")?;
        let machines = Machines {
            brokers,
            zookeepers,
            client: client.clone(),
            network,
        };
        client.run(|| {
            let zookeeper = Ensemble::on(&machines.zookeepers)?;
            let mut cluster = Self::assemble(options, zookeeper, Some(machines))?;
            Ok(story(&mut cluster))
        })?
    }

    fn assemble(
        options: &ClusterOptions,
        zookeeper: Ensemble,
        machines: Option<Machines>,
    ) -> Result<Cluster> {
        let directory = tempfile::tempdir().context("a directory for brokers")?;
        let connect = zookeeper.connect();
        let mut nodes = BTreeMap::new();
        for (id, kind) in (1..).zip(&options.brokers) {
            let own = directory.path().join(format!("broker-{id}"));
            let mut broker = BrokerOptions::new(&own, &connect).of_kind(*kind);
            broker.id = id;
            if options.java_options.is_empty() {
                "-Xmx256m".clone_into(&mut broker.java_options[0]);
            } else {
                broker.java_options.clone_from(&options.java_options);
            }
            if let Some(machines) = &machines {
                let machine = &machines.brokers[id as usize - 1];
                broker.host = machine.address;
                broker.launcher = machine.launcher();
            }
            for key in &options.defaults {
                broker.properties.remove(key);
            }
            broker.properties.extend(options.properties.clone());
            if options.has_racks {
                broker = broker.with("broker.rack", format!("rack{id}"));
            }
            nodes.insert(
                id,
                Node {
                    options: broker,
                    broker: None,
                },
            );
        }
        let mut cluster = Cluster {
            nodes,
            zookeeper,
            machines,
            directory,
        };
        for id in cluster.ids() {
            cluster.spawn(id)?;
        }
        for id in cluster.ids() {
            cluster.wait_for(id)?;
        }
        Ok(cluster)
    }

    /// Ends everything at once and hands over the brokers' directory, which is removed when that is dropped.
    pub fn abandon(self) -> tempfile::TempDir {
        drop(self.nodes);
        self.directory
    }

    /// The ids of all brokers, running or not.
    pub fn ids(&self) -> Vec<i32> {
        self.nodes.keys().copied().collect()
    }

    /// Addresses of all brokers, running or not.
    pub fn bootstrap(&self) -> Vec<String> {
        let nodes = self.nodes.values();
        nodes.map(|node| node.options.address()).collect()
    }

    /// What clients see.
    pub fn view(&self) -> ClusterView {
        ClusterView::new(self.bootstrap())
    }

    /// What clients see that do not ask this broker, whose knowledge may be old.
    pub fn view_without(&self, id: i32) -> ClusterView {
        let others = self.nodes.iter().filter(|(other, _)| **other != id);
        ClusterView::new(others.map(|(_, node)| node.options.address()).collect())
    }

    /// The ensemble.
    pub fn zookeeper(&mut self) -> &mut Ensemble {
        &mut self.zookeeper
    }

    /// A directory that lives as long as the cluster.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where a broker's log is.
    pub fn log_dir(&self, id: i32) -> PathBuf {
        self.nodes[&id].options.log_dir()
    }

    /// What a broker starts with next time.
    pub fn options(&mut self, id: i32) -> &mut BrokerOptions {
        &mut self.node(id).options
    }

    fn node(&mut self, id: i32) -> &mut Node {
        self.nodes.get_mut(&id).expect("a broker of this cluster")
    }

    /// A broker that runs.
    ///
    /// # Panics
    /// If it does not.
    pub fn broker(&mut self, id: i32) -> &mut Broker {
        self.node(id).broker.as_mut().expect("the broker runs")
    }

    /// Starts a broker without waiting for it.
    pub fn spawn(&mut self, id: i32) -> Result<()> {
        let node = self.node(id);
        node.broker = Some(node.options.spawn()?);
        Ok(())
    }

    /// Waits until a broker serves and knows the cluster.
    pub fn wait_for(&mut self, id: i32) -> Result<()> {
        self.broker(id).wait_until_ready()
    }

    /// Starts a broker and waits until it serves.
    pub fn start_broker(&mut self, id: i32) -> Result<()> {
        self.spawn(id)?;
        self.wait_for(id)
    }

    /// `kill -9`.
    pub fn kill(&mut self, id: i32) {
        self.node(id).broker = None;
    }

    /// Waits until the session of a killed broker has ended.
    pub fn wait_until_unregistered(&self, id: i32, patience: Duration) -> Result<()> {
        let path = format!("/brokers/ids/{id}");
        self.zookeeper.wait_until_gone(&path, patience)
    }

    /// The bytes of all segments of a replica, in order.
    pub fn segments(&self, id: i32, topic: &str, partition: i32) -> Result<Vec<u8>> {
        let directory = self.log_dir(id).join(format!("{topic}-{partition}"));
        let entries =
            std::fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
        let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        paths.sort();
        let mut bytes = Vec::new();
        for path in paths {
            let segment = std::fs::read(&path).with_context(|| path.display().to_string())?;
            bytes.extend(segment);
        }
        Ok(bytes)
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(&mut self, id: i32) -> Result<()> {
        let broker = self.node(id).broker.take();
        broker.context("the broker does not run")?.stop()
    }

    /// Everything a broker has logged, in all its lives.
    pub fn log(&self, id: i32) -> String {
        let log = self.nodes[&id].options.directory.join("log");
        let bytes = std::fs::read(log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal to a broker that runs.
    pub fn signal(&mut self, id: i32, signal: Signal) {
        self.broker(id).process().signal(signal);
    }

    /// Which broker leads the partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Result<i32> {
        let leads = |view: &BTreeMap<i32, crate::verify::PartitionView>| {
            view.get(&partition)
                .is_some_and(|view| view.leader.is_some())
        };
        let patience = std::time::Duration::from_secs(60);
        let view = self.view().wait_for(topic, patience, leads)?;
        let leader = view[&partition].leader.as_ref();
        Ok(leader.context("no leader")?.id)
    }

    /// Which broker is controller, as the brokers say.
    pub fn controller(&self) -> Result<i32> {
        let mut view = self.view();
        let found = crate::wait::until(std::time::Duration::from_secs(60), || {
            match view.brokers() {
                Ok((_, controller)) if controller >= 0 => Some(controller),
                _ => None,
            }
        });
        found.context("no controller")
    }

    /// Creates a topic whose partitions all have all brokers as replicas, led in turn, and waits for them.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<()> {
        let ids = self.ids();
        let assignment = (0..partitions as usize).map(|partition| {
            let mut replicas = ids.clone();
            replicas.rotate_left(partition % ids.len());
            replicas
        });
        let configs = configs.iter();
        let plan = TopicPlan {
            name: name.to_owned(),
            assignment: assignment.collect(),
            configs: configs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        create_topic(&self.bootstrap(), &plan, std::time::Duration::from_secs(60))
    }

    /// Loses everything between a broker and those others.
    pub fn cut(&self, id: i32, from: &[Place]) -> Result<()> {
        let machines = self.machines()?;
        let own = &machines.brokers[id as usize - 1];
        for other in machines.of(from) {
            if other != own {
                machines.network.cut(own, other)?;
            }
        }
        Ok(())
    }

    /// Loses everything that a broker sends to those others; what they send arrives.
    pub fn mute(&self, id: i32, towards: &[Place]) -> Result<()> {
        let machines = self.machines()?;
        let own = &machines.brokers[id as usize - 1];
        for other in machines.of(towards) {
            if other != own {
                machines.network.cut_one_way(own, other)?;
            }
        }
        Ok(())
    }

    /// Nothing is lost any more.
    pub fn heal(&self) -> Result<()> {
        self.machines()?.network.heal()
    }

    fn machines(&self) -> Result<&Machines> {
        let machines = self.machines.as_ref();
        machines.context("the cluster is on loopback, where no link can be cut")
    }
}

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Brokers,
    ZooKeepers,
    Clients,
}

impl Machines {
    fn of(&self, places: &[Place]) -> Vec<&Machine> {
        let places = places.iter();
        places
            .flat_map(|place| match place {
                Place::Brokers => self.brokers.iter().collect::<Vec<_>>(),
                Place::ZooKeepers => self.zookeepers.iter().collect(),
                Place::Clients => vec![&self.client],
            })
            .collect()
    }
}
