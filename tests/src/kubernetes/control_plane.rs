//! etcd, API server, controller manager and scheduler as processes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{certificates, kubeconfig};
use crate::network::Machine;
use crate::ports::free_port;
use crate::server_process::{ServerProcess, launched};
use crate::tools::test_tool;

/// Binaries of 100 MB may have to be read from a slow disk first.
const PATIENCE: Duration = Duration::from_secs(120);
const SERVICES: &str = "10.96.0.0/16";

/// How a control plane differs from one on loopback without nodes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where its processes run and which address the API server has, if that is not loopback.
    pub machine: Option<Machine>,
    /// How many nodes will come: each has a kubeconfig.
    pub nodes: u8,
    /// Whether a node that is silent counts as gone after 8 s, and its pods 5 s later.
    pub fast_node_failure: bool,
}

/// A running control plane; dropping it kills its processes. Its files stay in the directory it was given.
#[derive(Debug)]
pub struct ControlPlane {
    /// The file by which an administrator reaches the cluster.
    pub kubeconfig: PathBuf,
    /// `https://address:port` of the API server.
    pub url: String,
    directory: PathBuf,
    machine: Option<Machine>,
    /// In the order in which they are ended.
    processes: Vec<ServerProcess>,
}

impl ControlPlane {
    /// Starts etcd, API server, controller manager and scheduler on free ports of loopback, with all state in
    /// `directory`, and waits until they serve.
    pub fn start(directory: &Path) -> Result<ControlPlane> {
        Self::start_with(directory, &Options::default())
    }

    /// As [`ControlPlane::start`], with `options`.
    pub fn start_with(directory: &Path, options: &Options) -> Result<ControlPlane> {
        let address = options
            .machine
            .as_ref()
            .map_or(Ipv4Addr::LOCALHOST, |machine| machine.address);
        let port = free_port();
        let url = format!("https://{address}:{port}");
        certificates::write(&directory.join("pki"), &options.addresses(address))?;
        kubeconfig::write(directory, &url, options.nodes)?;
        let mut plane = ControlPlane {
            kubeconfig: directory.join("admin.kubeconfig"),
            url,
            directory: directory.to_owned(),
            machine: options.machine.clone(),
            processes: Vec::new(),
        };
        let etcd = plane.start_etcd()?;
        plane.start_api_server(address, port, &etcd, options)?;
        plane.start_controllers(options)?;
        plane.start_scheduler()?;
        plane.wait_for(&[
            "get",
            "--raw",
            "/api/v1/namespaces/default/serviceaccounts/default",
        ])?;
        Ok(plane)
    }

    /// `kubectl` as administrator, to run with arguments.
    pub fn kubectl_command(&self) -> Command {
        self.client("kubectl")
    }

    /// `helm` as administrator, to run with arguments; its caches and settings lie in the cluster's directory.
    pub fn helm_command(&self) -> Command {
        let mut helm = self.client("helm");
        for (variable, name) in [
            ("HELM_CACHE_HOME", "helm/cache"),
            ("HELM_CONFIG_HOME", "helm/config"),
            ("HELM_DATA_HOME", "helm/data"),
        ] {
            helm.env(variable, self.directory.join(name));
        }
        helm
    }

    /// What `kubectl` prints; an error with what it says if it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        succeed(self.kubectl_command().args(arguments))
    }

    /// What `helm` prints; an error with what it says if it fails.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        succeed(self.helm_command().args(arguments))
    }

    /// `kubectl apply -f -` of this text.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.kubectl_with_input(&["apply", "-f", "-"], manifests)
    }

    /// What `kubectl` prints if `input` is its standard input.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.kubectl_command();
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("kubectl has no input")?;
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input.as_bytes()));
            child.wait_with_output()
        })?;
        text_of(&output, &command)
    }

    /// The directory with all its files; logs lie in `log/`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn client(&self, name: &str) -> Command {
        let mut command = self.on_machine(Command::new(tool(name)));
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    fn on_machine(&self, command: Command) -> Command {
        let launcher = self.machine.as_ref().map(Machine::launcher);
        launched(&launcher.unwrap_or_default(), command)
    }

    fn process(&mut self, name: &str, command: Command) -> Result<&mut ServerProcess> {
        let log = self.directory.join("log");
        std::fs::create_dir_all(&log).with_context(|| log.display().to_string())?;
        let mut command = self.on_machine(command);
        command.current_dir(&self.directory);
        let process = ServerProcess::start(name, &mut command, &log.join(format!("{name}.log")))?;
        self.processes.insert(0, process);
        Ok(&mut self.processes[0])
    }

    /// etcd without fsync: the cluster is thrown away. Returns its URL.
    fn start_etcd(&mut self) -> Result<String> {
        let (port, peer_port) = (free_port(), free_port());
        let (url, peer) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peer_port}"),
        );
        let mut etcd = Command::new(tool("etcd"));
        etcd.args(["--name=lab", "--data-dir=etcd", "--unsafe-no-fsync"])
            .arg("--log-level=warn")
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=lab={peer}"));
        let machine = self.machine.clone();
        let health = move || {
            let ask = || ask_health(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            let answer = match &machine {
                Some(machine) => machine.run(ask).ok()?,
                None => ask(),
            };
            answer.ok()?.contains("\"true\"").then_some(())
        };
        self.process("etcd", etcd)?.wait_until(PATIENCE, health)?;
        Ok(url)
    }

    fn start_api_server(
        &mut self,
        address: Ipv4Addr,
        port: u16,
        etcd: &str,
        options: &Options,
    ) -> Result<()> {
        let mut server = Command::new(tool("kube-apiserver"));
        // The API server refuses to write loopback into the endpoints of the service `kubernetes`.
        let endpoints = if address.is_loopback() {
            "none"
        } else {
            "master-count"
        };
        server
            .arg(format!("--etcd-servers={etcd}"))
            .arg(format!("--bind-address={address}"))
            .arg(format!("--advertise-address={address}"))
            .arg(format!("--secure-port={port}"))
            .arg(format!("--endpoint-reconciler-type={endpoints}"))
            .arg(format!("--service-cluster-ip-range={SERVICES}"))
            .args([
                "--tls-cert-file=pki/server.crt",
                "--tls-private-key-file=pki/server.key",
                "--client-ca-file=pki/ca.crt",
                "--token-auth-file=pki/tokens.csv",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                "--service-account-key-file=pki/service-accounts.pub",
                "--service-account-signing-key-file=pki/service-accounts.key",
                "--kubelet-client-certificate=pki/server.crt",
                "--kubelet-client-key=pki/server.key",
                "--kubelet-preferred-address-types=InternalIP",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                "--profiling=false",
                "--max-requests-inflight=0",
                "--enable-priority-and-fairness=false",
            ]);
        if options.fast_node_failure {
            server.args([
                "--default-not-ready-toleration-seconds=5",
                "--default-unreachable-toleration-seconds=5",
            ]);
        }
        self.process("kube-apiserver", server)?;
        self.wait_for(&["get", "--raw", "/readyz"])
    }

    fn start_controllers(&mut self, options: &Options) -> Result<()> {
        let mut controllers = Command::new(tool("kube-controller-manager"));
        controllers
            .args([
                "--kubeconfig=controllers.kubeconfig",
                "--authentication-kubeconfig=controllers.kubeconfig",
                "--authorization-kubeconfig=controllers.kubeconfig",
                "--bind-address=127.0.0.1",
                "--tls-cert-file=pki/server.crt",
                "--tls-private-key-file=pki/server.key",
                "--leader-elect=false",
                "--use-service-account-credentials=true",
                "--service-account-private-key-file=pki/service-accounts.key",
                "--root-ca-file=pki/ca.crt",
                "--cluster-signing-cert-file=pki/ca.crt",
                "--cluster-signing-key-file=pki/ca.key",
                "--allocate-node-cidrs=false",
                "--profiling=false",
                "--kube-api-qps=200",
                "--kube-api-burst=400",
            ])
            .arg(format!("--secure-port={}", free_port()))
            .arg(format!("--service-cluster-ip-range={SERVICES}"));
        if options.fast_node_failure {
            controllers.args(["--node-monitor-period=1s", "--node-monitor-grace-period=8s"]);
        }
        self.process("kube-controller-manager", controllers)?;
        Ok(())
    }

    fn start_scheduler(&mut self) -> Result<()> {
        let mut scheduler = Command::new(tool("kube-scheduler"));
        scheduler
            .args([
                "--kubeconfig=scheduler.kubeconfig",
                "--authentication-kubeconfig=scheduler.kubeconfig",
                "--authorization-kubeconfig=scheduler.kubeconfig",
                "--bind-address=127.0.0.1",
                "--tls-cert-file=pki/server.crt",
                "--tls-private-key-file=pki/server.key",
                "--leader-elect=false",
                "--profiling=false",
                "--kube-api-qps=200",
                "--kube-api-burst=400",
            ])
            .arg(format!("--secure-port={}", free_port()));
        self.process("kube-scheduler", scheduler)?;
        Ok(())
    }

    /// Waits until `kubectl` with these arguments succeeds, as long as the process started last runs.
    fn wait_for(&mut self, arguments: &[&str]) -> Result<()> {
        let mut kubectl = self.kubectl_command();
        kubectl.args(arguments);
        let answered = || succeed(&mut kubectl).ok();
        let process = &mut self.processes[0];
        process.wait_until(PATIENCE, answered)?;
        Ok(())
    }
}

impl Options {
    /// Every address that the servers' certificate is for.
    fn addresses(&self, own: Ipv4Addr) -> Vec<Ipv4Addr> {
        let [a, b, c, _] = own.octets();
        let nodes = (1..=self.nodes).map(|node| Ipv4Addr::new(a, b, c, 10 + node));
        std::iter::once(own).chain(nodes).collect()
    }
}

/// A program of the laboratory.
fn tool(name: &str) -> PathBuf {
    test_tool("kubernetes").join(name)
}

fn ask_health(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What `command` prints if it succeeds; else an error with all that it says.
pub(super) fn succeed(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    text_of(&output, command)
}

fn text_of(output: &std::process::Output, command: &Command) -> Result<String> {
    if !output.status.success() {
        let arguments: Vec<_> = command
            .get_args()
            .map(std::ffi::OsStr::to_string_lossy)
            .collect();
        bail!(
            "{} {}: {}{}",
            command.get_program().display(),
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!text.contains('\0'), "{text:?} is no text");
    Ok(text)
}
