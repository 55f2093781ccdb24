//! A cluster with nodes, name service and ZooKeeper, in network namespaces without a way out.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::caretaker::Caretaker;
use super::control_plane::{ControlPlane, Options, succeed};
use super::lab_network::LabNetwork;
use super::node::{Node, kube_proxy};
use super::toolbox::toolbox;
use crate::images::{Entry, Image};
use crate::network::Machine;
use crate::server_process::{ServerProcess, launched};
use crate::tools::test_tool;
use crate::wait;
use crate::zookeeper_server::CLASSPATH;

const PATIENCE: Duration = Duration::from_secs(120);
const VOLUMES_OF_A_NODE: u8 = 6;

/// A running cluster; dropping it ends its processes and removes its network. Its fields are dropped in their order.
#[derive(Debug)]
pub struct Lab {
    pub nodes: Vec<Node>,
    /// `CoreDNS`, a kube-proxy for the tests, ZooKeeper.
    helpers: Vec<ServerProcess>,
    pub plane: ControlPlane,
    network: LabNetwork,
    images: Vec<PathBuf>,
    /// Behind all that it cleans up after.
    _caretaker: Caretaker,
    directory: tempfile::TempDir,
}

impl Lab {
    /// Starts a control plane and `nodes` nodes that have `images` and the [`super::TOOLBOX`], and waits until all are
    /// ready.
    pub fn start(nodes: u8, images: &[PathBuf]) -> Result<Lab> {
        // Paths of sockets must be short.
        let directory = tempfile::Builder::new().prefix("kl").tempdir_in("/tmp")?;
        let at = directory.path().to_owned();
        let name = LabNetwork::name();
        let caretaker = Caretaker::start(&name, &Node::control_groups(), &at)?;
        let network = LabNetwork::new(&name, nodes)?;
        let options = Options {
            machine: Some(network.hub.clone()),
            nodes,
            fast_node_failure: true,
        };
        let plane = ControlPlane::start_with(&at, &options)?;
        let pause = at.join("pause.tar");
        busybox()?.write(&at.join("pause"), &pause)?;
        let tools = at.join("toolbox.tar");
        toolbox(&at)?.write(&at.join("toolbox"), &tools)?;
        let mut lab = Lab {
            nodes: Vec::new(),
            helpers: Vec::new(),
            plane,
            network,
            images: [&[pause, tools], images].concat(),
            _caretaker: caretaker,
            directory,
        };
        lab.start_name_service()?;
        for number in 1..=nodes {
            let machine = &lab.network.nodes[usize::from(number) - 1];
            let mut node = Node::new(number, machine, &at)?;
            node.power_on(&lab.images)?;
            lab.nodes.push(node);
        }
        lab.start_root_proxy()?;
        lab.make_volumes(nodes)?;
        lab.wait_for_nodes(usize::from(nodes))?;
        Ok(lab)
    }

    /// Where clients run that are outside the pods' network.
    pub fn hub(&self) -> &Machine {
        &self.network.hub
    }

    /// Starts a node again after [`Node::power_off`].
    pub fn power_on(&mut self, index: usize) -> Result<()> {
        self.nodes[index].power_on(&[])
    }

    /// Gives an image that all nodes have another name.
    pub fn tag(&self, image: &str, name: &str) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.tag(image, name))
    }

    /// What `program` prints where clients are that are outside the pods' network; an error with all that it says if
    /// it fails.
    pub fn outside(&self, program: Command) -> Result<String> {
        succeed(&mut launched(&self.hub().launcher(), program))
    }

    /// Kills the processes called `program` in the pod with this uid; returns how many.
    pub fn kill_container(&self, pod: &str, program: &str) -> usize {
        let killed = self
            .nodes
            .iter()
            .map(|node| node.kill_container(pod, program));
        killed.sum()
    }

    /// Starts ZooKeeper beside the cluster; returns what to connect to.
    pub fn start_zookeeper(&mut self) -> Result<String> {
        let directory = self.directory.path().join("zookeeper");
        fs::create_dir_all(&directory)?;
        let configuration = directory.join("zoo.cfg");
        let text = format!(
            "dataDir={}\nclientPort=2181\nclientPortAddress=10.250.0.1\ntickTime=1000\nmaxClientCnxns=0\n\
             admin.enableServer=false\nextendedTypesEnabled=true\n",
            directory.display()
        );
        fs::write(&configuration, text)?;
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        java.args(["-cp", CLASSPATH]);
        java.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain");
        java.arg(configuration);
        self.helper("zookeeper", java)?;
        Ok("10.250.0.1:2181".to_owned())
    }

    fn helper(&mut self, name: &str, command: Command) -> Result<()> {
        let log = self
            .directory
            .path()
            .join("log")
            .join(format!("{name}.log"));
        let mut command = launched(&self.network.hub.launcher(), command);
        self.helpers
            .push(ServerProcess::start(name, &mut command, &log)?);
        Ok(())
    }

    /// `CoreDNS` as a process: no pod, no image, no service.
    fn start_name_service(&mut self) -> Result<()> {
        let file = self.directory.path().join("Corefile");
        let text = format!(
            ".:53 {{\n  bind 10.250.0.1\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {}\n    \
             pods insecure\n    ttl 1\n  }}\n}}\n",
            self.plane.kubeconfig.display()
        );
        fs::write(&file, text)?;
        let mut command = Command::new(test_tool("kubernetes").join("coredns"));
        command.arg("-conf").arg(file);
        self.helper("coredns", command)
    }

    /// So that what runs beside the cluster reaches services. It takes the first node's name, as it needs one.
    fn start_root_proxy(&mut self) -> Result<()> {
        let file = self.directory.path().join("proxy.yaml");
        fs::write(
            &file,
            kube_proxy("node1", "10.250.0.1", self.directory.path()),
        )?;
        let mut command = Command::new(test_tool("kubernetes").join("kube-proxy"));
        let mut argument = std::ffi::OsString::from("--config=");
        argument.push(file);
        command.arg(argument);
        self.helper("kube-proxy", command)
    }

    /// Volumes that lie on one node, as disks do.
    fn make_volumes(&self, nodes: u8) -> Result<()> {
        let mut text = "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: local\n  annotations: \
             {storageclass.kubernetes.io/is-default-class: \"true\"}\nprovisioner: kubernetes.io/no-provisioner\n\
             volumeBindingMode: WaitForFirstConsumer\n"
            .to_owned();
        for (node, number) in
            (1..=nodes).flat_map(|node| (0..VOLUMES_OF_A_NODE).map(move |n| (node, n)))
        {
            let path = self.directory.path().join(format!("n{node}/disk{number}"));
            fs::create_dir_all(&path)?;
            write!(
                text,
                "---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: node{node}-disk{number}}}\nspec:\n  \
                 capacity: {{storage: 100Gi}}\n  accessModes: [ReadWriteOnce]\n  storageClassName: local\n  \
                 persistentVolumeReclaimPolicy: Retain\n  local: {{path: {}}}\n  nodeAffinity: {{required: \
                 {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: \
                 [node{node}]}}]}}]}}}}\n",
                path.display()
            )?;
        }
        self.plane.apply(&text)?;
        Ok(())
    }

    fn wait_for_nodes(&self, count: usize) -> Result<()> {
        let ready = || {
            let columns = "custom-columns=:.status.conditions[?(@.type=='Ready')].status";
            let list = self
                .plane
                .kubectl(&["get", "nodes", "--no-headers", "-o", columns])
                .ok()?;
            (list.lines().filter(|line| line.trim() == "True").count() == count).then_some(())
        };
        wait::until(PATIENCE, ready).with_context(|| {
            let nodes = self.plane.kubectl(&["get", "nodes", "-o", "wide"]);
            format!("nodes are not ready: {nodes:?}; {}", self.end_of_logs())
        })
    }

    /// The last lines of what the nodes say.
    pub fn end_of_logs(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            for name in ["init", "containerd", "kubelet"] {
                let path = self.directory.path().join(format!(
                    "{}/log/{name}.log",
                    node.name().replace("node", "n")
                ));
                let log = fs::read_to_string(path).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(8)..].join("\n");
                let _ = writeln!(text, "--- {} {name}\n{end}", node.name());
            }
        }
        text
    }

    /// The cluster's files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The image that holds a pod's namespaces, and of pods that try things out: a shell.
fn busybox() -> Result<Image> {
    Ok(Image {
        name: "localhost/pause:lab".to_owned(),
        entries: shell()?,
        entrypoint: ["/bin/sleep", "2147483647"].map(str::to_owned).to_vec(),
        environment: vec!["PATH=/bin".to_owned()],
        ports: Vec::new(),
        labels: Vec::new(),
        is_root: true,
    })
}

/// What an image needs for a shell.
pub(super) fn shell() -> Result<Vec<Entry>> {
    let binary = fs::read("/bin/busybox").context("/bin/busybox: install busybox-static")?;
    let links = ["sh", "sleep", "wget", "nc", "nslookup", "cat"];
    let links = links.map(|name| Entry::link(&format!("bin/{name}"), "busybox"));
    let entries = vec![
        Entry::file("bin/busybox", 0o755, binary),
        Entry::directory("tmp", 0o1777),
    ];
    Ok(entries.into_iter().chain(links).collect())
}
