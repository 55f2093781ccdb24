//! A real node: containerd, kubelet and kube-proxy with network, mount, process and host name namespaces of their own.
//!
//! The node's first process takes all others with it, so killing it is a power cut.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::network::Machine;
use crate::server_process::{ServerProcess, launched};
use crate::tools::test_tool;
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(30);

/// A node; dropping it cuts its power.
#[derive(Debug)]
pub struct Node {
    number: u8,
    machine: Machine,
    directory: PathBuf,
    cluster: PathBuf,
    process: Option<ServerProcess>,
}

impl Node {
    /// Prepares a node of the cluster whose files lie in `cluster`. Images are imported when it starts first.
    pub(super) fn new(number: u8, machine: &Machine, cluster: &Path) -> Result<Node> {
        let node = Node {
            number,
            machine: machine.clone(),
            directory: cluster.join(format!("n{number}")),
            cluster: cluster.to_owned(),
            process: None,
        };
        for name in [
            "cni",
            "etc",
            "kubelet",
            "log",
            "opt",
            "run",
            "run-containerd",
            "var-log",
        ] {
            let path = node.directory.join(name);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        node.write("etc/containerd.toml", &node.containerd())?;
        node.write("cni/10-lab.conflist", &node.cni())?;
        node.write("etc/resolv.conf", "nameserver 10.250.0.1\n")?;
        node.write("etc/kubelet.yaml", &node.kubelet())?;
        let proxy = kube_proxy(&node.name(), &machine.address.to_string(), cluster);
        node.write("etc/proxy.yaml", &proxy)?;
        Ok(node)
    }

    /// `node1` and so on.
    pub fn name(&self) -> String {
        format!("node{}", self.number)
    }

    /// Whether it has power.
    pub fn is_on(&self) -> bool {
        self.process.is_some()
    }

    /// Starts it with the disks and images it has, plus `images`, archives that it has not seen yet.
    pub fn power_on(&mut self, images: &[PathBuf]) -> Result<()> {
        let run = self.directory.join("run");
        fs::remove_dir_all(&run).with_context(|| run.display().to_string())?;
        fs::create_dir_all(&run)?;
        self.make_control_groups()?;
        let init = self.directory.join("etc/init.sh");
        self.write("etc/init.sh", &self.init(images))?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--uts", "--ipc", "--fork"]);
        unshare.args(["--kill-child", "--mount-proc"]).arg(&init);
        let mut command = launched(&self.machine.launcher(), unshare);
        let log = self.directory.join("log/init.log");
        self.process = Some(ServerProcess::start(&self.name(), &mut command, &log)?);
        Ok(())
    }

    /// All its processes are killed at once, and its containers with them.
    pub fn power_off(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
            // The last processes leave their groups a moment later.
            let gone = || self.remove_control_groups().ok();
            if wait::until(PATIENCE, gone).is_none() {
                eprintln!("control groups of {} are left over", self.name());
            }
        }
    }

    /// Gives an image that the node has another name.
    pub fn tag(&self, image: &str, name: &str) -> Result<()> {
        self.containerd_client(&["images", "tag", "--force", image, name])
    }

    /// Kills the kubelet, so that nobody starts containers again, and then all containers; the node's network stays.
    pub fn stop_containers(&self) {
        let own = self.directory.join("etc/kubelet.yaml");
        let own = own.display().to_string();
        let is_kubelet = |process: &Path| {
            is_called(process, "kubelet") && read(process, "cmdline").contains(&own)
        };
        let group = format!("{}/", self.control_group());
        kill_all(is_kubelet);
        kill_all(|process| read(process, "cgroup").contains(&group));
    }

    /// Kills the processes called `program` in the pod with this uid; returns how many.
    pub(super) fn kill_container(&self, pod: &str, program: &str) -> usize {
        let group = self.control_group();
        kill_all(|process| {
            let groups = read(process, "cgroup");
            groups.contains(&group) && groups.contains(pod) && is_called(process, program)
        })
    }

    fn containerd_client(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .arg("--namespace=k8s.io")
            .args(arguments)
            .output()
            .context("cannot run ctr")?;
        let problem = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "ctr {arguments:?}: {problem}");
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("run/ctd.sock")
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    fn containerd(&self) -> String {
        let at = self.directory.display();
        format!(
            r#"version = 2
root = "{at}/ctd"
state = "{at}/run/ctd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{at}/run/ctd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{at}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:lab"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{at}/cni"
"#
        )
    }

    fn cni(&self) -> String {
        format!(
            r#"{{"cniVersion": "0.4.0", "name": "lab", "plugins": [
 {{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "10.244.{}.0/24"}}]],
           "routes": [{{"dst": "0.0.0.0/0"}}], "dataDir": "{}/run/ipam"}}}},
 {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"#,
            self.number,
            self.directory.display()
        )
    }

    /// Settings that let a kubelet live beside others, without the right to change what the whole machine has.
    fn kubelet(&self) -> String {
        let (at, cluster) = (self.directory.display(), self.cluster.display());
        format!(
            r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {address}
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {cluster}/pki/ca.crt}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {cluster}/pki/server.crt
tlsPrivateKeyFile: {cluster}/pki/server.key
containerRuntimeEndpoint: unix://{at}/run/ctd.sock
cgroupDriver: cgroupfs
cgroupRoot: {group}
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
failCgroupV1: false
failSwapOn: false
clusterDNS: [10.250.0.1]
clusterDomain: cluster.local
resolvConf: {at}/etc/resolv.conf
evictionHard: {{memory.available: 100Mi, nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%"}}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
podLogsDir: {at}/log/pods
volumePluginDir: {at}/opt/volplugins
maxPods: 60
kubeAPIQPS: 100
kubeAPIBurst: 200
serializeImagePulls: false
featureGates: {{KubeletInUserNamespace: true}}
"#,
            address = self.machine.address,
            group = self.control_group(),
        )
    }

    /// What the node's first process does.
    fn init(&self, images: &[PathBuf]) -> String {
        let (at, cluster) = (self.directory.display(), self.cluster.display());
        let tools = test_tool("kubernetes");
        let (tools, name, address) = (tools.display(), self.name(), self.machine.address);
        let mut import = String::new();
        for image in images {
            let image = image.display();
            let _ = writeln!(
                import,
                "ctr -a {at}/run/ctd.sock -n k8s.io images import {image}"
            );
        }
        format!(
            r"#!/bin/bash
hostname {name}
mkdir -p /var/lib/kubelet /var/log /run/containerd
mount --make-rprivate /
mount --bind {at}/kubelet /var/lib/kubelet
mount --bind {at}/var-log /var/log
mount --bind {at}/run-containerd /run/containerd
containerd -c {at}/etc/containerd.toml -l warn > {at}/log/containerd.log 2>&1 &
until ctr -a {at}/run/ctd.sock version > /dev/null 2>&1; do sleep 0.05; done
{import}
{tools}/kubelet --config={at}/etc/kubelet.yaml --kubeconfig={cluster}/{name}.kubeconfig --hostname-override={name} \
  --node-ip={address} --root-dir=/var/lib/kubelet --cert-dir={at}/etc/pki > {at}/log/kubelet.log 2>&1 &
{tools}/kube-proxy --config={at}/etc/proxy.yaml > {at}/log/kube-proxy.log 2>&1 &
while wait -n; jobs -rp | grep -q .; do :; done
"
        )
    }

    /// What the names of all nodes' control groups begin with.
    pub(super) fn control_groups() -> String {
        format!("barnabas-{}", std::process::id())
    }

    fn control_group(&self) -> String {
        format!("/{}-{}", Self::control_groups(), self.name())
    }

    /// A group of its own in every hierarchy of version 1, as the kubelet wants its root to be there.
    fn make_control_groups(&self) -> Result<()> {
        for hierarchy in hierarchies()? {
            let group = hierarchy.join(&self.control_group()[1..]);
            fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(all) = fs::read_to_string(hierarchy.join(file)) {
                    fs::write(group.join(file), all.trim())?;
                }
            }
        }
        Ok(())
    }

    fn remove_control_groups(&self) -> Result<()> {
        // runc makes one in the hierarchy of version 2, too.
        let unified = Path::new("/sys/fs/cgroup/unified").to_owned();
        for hierarchy in hierarchies()?.into_iter().chain([unified]) {
            remove_group(&hierarchy.join(&self.control_group()[1..]))?;
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// Kills the processes that are meant, which are told by their directories in `/proc`; returns how many.
fn kill_all(is_meant: impl Fn(&Path) -> bool) -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut killed = 0;
    for process in processes {
        let id = process.file_name().to_string_lossy().parse().ok();
        if let Some(id) = id.and_then(Pid::from_raw)
            && is_meant(&process.path())
            && kill_process(id, Signal::KILL).is_ok()
        {
            killed += 1;
        }
    }
    killed
}

fn is_called(process: &Path, program: &str) -> bool {
    read(process, "comm").trim() == program
}

/// A file of a process, empty if it is gone.
fn read(process: &Path, file: &str) -> String {
    fs::read_to_string(process.join(file)).unwrap_or_default()
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir("/sys/fs/cgroup").context("/sys/fs/cgroup")?;
    let directories = entries.flatten().map(|entry| entry.path());
    Ok(directories
        .filter(|path| !path.is_symlink() && path.join("tasks").exists())
        .collect())
}

/// Removes a control group and those below it, which is possible once they are empty.
fn remove_group(group: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(group) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(group).with_context(|| group.display().to_string())
}

/// The configuration of a kube-proxy.
pub(super) fn kube_proxy(name: &str, address: &str, cluster: &Path) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
bindAddress: {address}
hostnameOverride: {name}
clusterCIDR: 10.244.0.0/16
detectLocalMode: ClusterCIDR
clientConnection: {{kubeconfig: {}/proxy.kubeconfig}}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
featureGates: {{KubeletInUserNamespace: true}}
nftables: {{minSyncPeriod: 0s, syncPeriod: 10s}}
",
        cluster.display()
    )
}
