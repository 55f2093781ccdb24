//! One cluster of everything: nodes, pods, brokers, ZooKeeper, the operator, and who watches over them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use barnabas_core::ids::TopicName;
use barnabas_operator::admin::{Admin, AdminOptions, ConfigResource, ConfigSource};
use barnabas_tests::broker::BrokerKind;
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::kubernetes::Options;
use barnabas_tests::ports::free_port;
use barnabas_tests::server_process::ServerProcess;
use barnabas_tests::verify::{ClusterView, PartitionView, Verifier, VerifierOptions};
use barnabas_tests::{http, tools, wait};

use crate::lab::{DEFINITION, Lab, PATIENCE};
use crate::relay::Relay;

pub(super) const TOPIC: &str = "orders";
pub(super) const PARTITIONS: i32 = 6;
const MIN_ISR: usize = 2;
/// Of what is probably gone, and of what certainly is.
pub(super) const FAILURE_GRACE: Duration = Duration::from_secs(12);
const LOST_GRACE: Duration = Duration::from_secs(4);
/// Longer than what the settings below let pass between moves: settled for 3 s, a cool-down of 1 s, a look each 2 s.
const BETWEEN_PLANS: Duration = Duration::from_secs(10);

pub(super) type Views = BTreeMap<i32, PartitionView>;

pub(super) fn replicas(views: &Views) -> BTreeMap<i32, Vec<i32>> {
    let views = views.iter();
    views
        .map(|(partition, view)| (*partition, view.replicas.clone()))
        .collect()
}

pub(super) fn on(views: &Views, broker: i32) -> usize {
    let views = views.values();
    views.filter(|view| view.replicas.contains(&broker)).count()
}

/// Nodes whose Leases are renewed, by a thread, as kubelets do.
pub(super) struct Kubelets {
    alive: Arc<Mutex<BTreeSet<i32>>>,
    stop: Arc<AtomicBool>,
}

impl Kubelets {
    fn start(lab: &Lab, nodes: i32) -> Self {
        let alive = Arc::new(Mutex::new((1..=nodes).collect::<BTreeSet<i32>>()));
        let stop = Arc::new(AtomicBool::new(false));
        let (nodes, stopped) = (alive.clone(), stop.clone());
        let kubeconfig = lab.kubernetes.kubeconfig.clone();
        let kubectl = tools::test_tool("kubernetes").join("kubectl");
        let file = lab.directory.path().join("leases.yaml");
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let now = Command::new("date")
                    .args(["-u", "+%Y-%m-%dT%H:%M:%S.%6NZ"])
                    .output();
                let now = now.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
                let now = now.unwrap_or_default().trim().to_owned();
                let mut leases = String::new();
                for node in nodes.lock().unwrap().iter() {
                    let _ = writeln!(
                        leases,
                        "---\n{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: node-{node}, \
                         namespace: kube-node-lease}}, spec: {{holderIdentity: node-{node}, \
                         leaseDurationSeconds: 40, renewTime: \"{now}\"}}}}"
                    );
                }
                std::fs::write(&file, leases).unwrap();
                let _ = Command::new(&kubectl)
                    .env("KUBECONFIG", &kubeconfig)
                    .args(["apply", "--server-side", "--force-conflicts", "-f"])
                    .arg(&file)
                    .output();
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        Self { alive, stop }
    }

    pub(super) fn lose(&self, node: i32) {
        self.alive.lock().unwrap().remove(&node);
    }

    pub(super) fn find(&self, node: i32) {
        self.alive.lock().unwrap().insert(node);
    }
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The fewest in-sync replicas that any partition was seen with.
pub(super) struct IsrWatch {
    least: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl IsrWatch {
    fn start(bootstrap: Vec<String>) -> Self {
        let least = Arc::new(AtomicUsize::new(usize::MAX));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (least.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut view = ClusterView::new(bootstrap);
            while !stopped.load(Ordering::Relaxed) {
                let partitions = view.partitions(TOPIC).unwrap_or_default();
                for one in partitions.values() {
                    seen.fetch_min(one.isr.len(), Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { least, stop }
    }

    pub(super) fn forget(&self) {
        self.least.store(usize::MAX, Ordering::Relaxed);
    }
}

impl Drop for IsrWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Everything together, around a cluster of brokers.
pub(super) struct World<'a> {
    pub(super) operator: Option<ServerProcess>,
    pub(super) kubelets: Kubelets,
    pub(super) isr: IsrWatch,
    pub(super) to_kubernetes: Relay,
    /// One for each server.
    pub(super) to_zookeeper: Vec<Relay>,
    pub(super) port: u16,
    pub(super) cluster: &'a mut Cluster,
    pub(super) lab: Lab,
    /// Bytes a second that repairs may take.
    pub(super) heal_rate: u64,
    begun: Instant,
}

/// As these stories want them: with sessions of ZooKeeper that end soon.
pub(super) fn options(brokers: usize) -> ClusterOptions {
    ClusterOptions::of(&vec![BrokerKind::under_test(); brokers])
        .with("auto.leader.rebalance.enable", false)
        .with("offsets.topic.replication.factor", 3)
        .with("zookeeper.session.timeout.ms", 6000)
}

impl<'a> World<'a> {
    /// Nodes and pods for the first `pods` brokers of the cluster.
    pub(super) fn start(cluster: &'a mut Cluster, pods: i32) -> World<'a> {
        let options = Options {
            fast_node_failure: true,
            ..Options::default()
        };
        let lab = Lab::start_with(DEFINITION, &options);
        let url = lab.kubernetes.url.clone();
        let to_kubernetes = Relay::to(url.trim_start_matches("https://"));
        let zookeeper = cluster.zookeeper().connect();
        let to_zookeeper = zookeeper.split(',').map(Relay::to).collect();
        let isr = IsrWatch::start(cluster.bootstrap());
        let world = World {
            operator: None,
            kubelets: Kubelets::start(&lab, pods),
            isr,
            to_kubernetes,
            to_zookeeper,
            port: free_port(),
            cluster,
            lab,
            heal_rate: 200 << 20,
            begun: Instant::now(),
        };
        world.furnish(pods);
        world
    }

    /// The operator at work on a topic, and clients too.
    pub(super) fn open(&mut self, pods: i32, spec: &str) -> Verifier {
        let operator = self.start_operator("operator-1");
        self.operator = Some(operator);
        self.lab.apply(TOPIC, spec).unwrap();
        self.lab.wait_for(TOPIC, "True AsSpecified");
        let mut options = VerifierOptions::new(self.cluster.bootstrap(), TOPIC, PARTITIONS);
        options.pause = Duration::from_millis(30);
        options.delivery_timeout = Duration::from_secs(180);
        let verifier = Verifier::start(options);
        verifier.wait_for_progress(2, PATIENCE).unwrap();
        for broker in 1..=pods {
            self.wait_for_state(broker, "Alive");
        }
        self.wait_until_quiet("at first", |_| true);
        self.isr.forget();
        verifier
    }

    /// The verifier's last word, and the operator's end.
    pub(super) fn close(&mut self, verifier: Verifier) {
        self.assert_no_throttle();
        let verified = verifier.stop().unwrap();
        self.say(&format!("{verified:?}"));
        let ended = self.operator.as_mut().unwrap();
        ended.terminate(Duration::from_secs(20)).unwrap();
    }

    pub(super) fn say(&self, text: &str) {
        eprintln!("{:6.1} s: {text}", self.begun.elapsed().as_secs_f64());
    }

    pub(super) fn kubectl(&self, words: &str) -> String {
        let words: Vec<&str> = words.split(' ').collect();
        self.lab.kubernetes.kubectl(&words).unwrap_or_default()
    }

    pub(super) fn apply_node(&self, node: i32) {
        let manifest = format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: node-{node}, labels: {{kubernetes.io/hostname: node-{node}}}}}}}"
        );
        self.lab.kubernetes.apply(&manifest).unwrap();
        let status = "{\"status\":{\"capacity\":{\"cpu\":\"8\",\"memory\":\"8Gi\",\"pods\":\"20\"},\
             \"allocatable\":{\"cpu\":\"8\",\"memory\":\"8Gi\",\"pods\":\"20\"},\
             \"conditions\":[{\"type\":\"Ready\",\"status\":\"True\",\"reason\":\"Lab\",\"message\":\"\",\
             \"lastHeartbeatTime\":null,\"lastTransitionTime\":null}]}}";
        let name = format!("node-{node}");
        let patch = [
            "patch",
            "node",
            &name,
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ];
        self.lab.kubernetes.kubectl(&patch).unwrap();
    }

    /// What a kubelet would say of a pod that runs.
    pub(super) fn pod_is_ready(&self, ordinal: i32) {
        let status = "{\"status\":{\"phase\":\"Running\",\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}";
        let name = format!("brokers-{ordinal}");
        let patch = [
            "patch",
            "pod",
            &name,
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ];
        let patched = || self.lab.kubernetes.kubectl(&patch).ok();
        wait::until(PATIENCE, patched).unwrap_or_else(|| panic!("no pod {name}"));
    }

    /// A node with the volume of a broker.
    pub(super) fn give_a_node(&self, node: i32) {
        self.apply_node(node);
        let volume = format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: volume-{node}}}, spec: {{\
             capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], storageClassName: \"\", \
             persistentVolumeReclaimPolicy: Retain, local: {{path: /data}}, \
             claimRef: {{namespace: default, name: data-brokers-{}}}, \
             nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{\
             key: kubernetes.io/hostname, operator: In, values: [node-{node}]}}]}}]}}}}}}}}",
            node - 1
        );
        self.lab.kubernetes.apply(&volume).unwrap();
    }

    /// Nodes, volumes tied to them, and the `StatefulSet` with its pods.
    fn furnish(&self, pods: i32) {
        for node in 1..=pods {
            self.give_a_node(node);
        }
        let pod_set = format!(
            "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: brokers, namespace: default}}, spec: {{\
             replicas: {pods}, serviceName: brokers, podManagementPolicy: Parallel, \
             updateStrategy: {{type: OnDelete}}, \
             selector: {{matchLabels: {{app: brokers}}}}, template: {{metadata: {{labels: {{app: brokers}}}}, \
             spec: {{tolerations: [{{operator: Exists, effect: NoSchedule}}], \
             containers: [{{name: broker, image: none, volumeMounts: [{{name: data, mountPath: /data}}]}}]}}}}, \
             volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{accessModes: [ReadWriteOnce], \
             storageClassName: \"\", resources: {{requests: {{storage: 1Gi}}}}}}}}]}}}}"
        );
        self.lab.kubernetes.apply(&pod_set).unwrap();
        let placed = wait::until(PATIENCE, || {
            let nodes =
                self.kubectl("get pods -l app=brokers -o jsonpath={.items[*].spec.nodeName}");
            (nodes.split_whitespace().count() == pods as usize).then_some(())
        });
        assert!(placed.is_some(), "{}", self.kubectl("describe pods"));
        for ordinal in 0..pods {
            self.pod_is_ready(ordinal);
        }
    }

    pub(super) fn start_operator(&self, name: &str) -> ServerProcess {
        let directory = self.lab.directory.path();
        // Its own ways to the servers, which can be cut.
        let server = format!("https://127.0.0.1:{}", self.to_kubernetes.port());
        let text = std::fs::read_to_string(&self.lab.kubernetes.kubeconfig).unwrap();
        let kubeconfig = directory.join("operator.kubeconfig");
        std::fs::write(&kubeconfig, text.replace(&self.lab.kubernetes.url, &server)).unwrap();
        let zookeeper: Vec<String> = { self.to_zookeeper.iter() }
            .map(|relay| format!("127.0.0.1:{}", relay.port()))
            .collect();
        let seconds = |time: Duration| time.as_secs();
        let settings = format!(
            "{{bootstrapServers: \"{}\", zookeeperConnect: \"{}\", watchNamespaces: [\"*\"], \
             brokerStatefulSet: brokers, brokerIdOffset: 1, stateConfigMap: balancer-state, lease: operator, \
             podNamespace: default, podName: {name}, debugEndpoints: true, refreshSeconds: 2, \
             balancing: {{failureGrace: {}s, lostGrace: {}s, plannedGrace: 300s, settledAfter: 3s, \
             moveCooldown: 1s, diskMaxUsed: 100, healRate: {}}}}}",
            self.cluster.bootstrap().join(","),
            zookeeper.join(","),
            seconds(FAILURE_GRACE),
            seconds(LOST_GRACE),
            self.heal_rate,
        );
        let file = directory.join(format!("{name}.yaml"));
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(tools::operator_binary());
        command
            .env("KUBECONFIG", &kubeconfig)
            .args(["run", "--log-text", "--config"])
            .arg(&file)
            .arg(format!("--listen=127.0.0.1:{}", self.port));
        let log = directory.join(format!("{name}.log"));
        ServerProcess::start(name, &mut command, &log).unwrap()
    }

    pub(super) fn page(&self, page: &str) -> String {
        let address = format!("127.0.0.1:{}", self.port);
        let answer = http::request(&address, "GET", page, "");
        answer.map(|(_, body)| body).unwrap_or_default()
    }

    /// Waits until a page of the operator has a line that begins so.
    pub(super) fn wait_for_line(&self, page: &str, start: &str) {
        let patience = PATIENCE;
        let found = wait::until(patience, || {
            let text = self.page(page);
            text.lines()
                .any(|line| line.starts_with(start))
                .then_some(())
        });
        assert!(
            found.is_some(),
            "{page} has no line `{start}`:\n{}\n{}",
            self.page(page),
            self.log_end()
        );
    }

    pub(super) fn log_end(&self) -> String {
        let log = self.operator.as_ref().map(ServerProcess::log);
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// The state of a broker as the operator has it.
    pub(super) fn wait_for_state(&self, broker: i32, state: &str) {
        self.wait_for_line("/debug/brokers", &format!("{broker} {state} "));
    }

    pub(super) fn views(&self) -> Views {
        self.wait_for_views("any", |_| true)
    }

    pub(super) fn wait_for_views(&self, what: &str, condition: impl Fn(&Views) -> bool) -> Views {
        self.wait_for_views_of(TOPIC, what, condition)
    }

    pub(super) fn wait_for_views_of(
        &self,
        topic: &str,
        what: &str,
        condition: impl Fn(&Views) -> bool,
    ) -> Views {
        let found = self.cluster.view().wait_for(topic, PATIENCE, condition);
        found.unwrap_or_else(|error| {
            panic!(
                "{what}: {error:#}\n{}{}\n{}",
                self.page("/debug/brokers"),
                self.page("/debug/plan"),
                self.log_end()
            )
        })
    }

    /// All replicas in sync, as many as asked for, and nothing moves.
    pub(super) fn wait_until_quiet(&self, what: &str, condition: impl Fn(&Views) -> bool) -> Views {
        loop {
            let views = self.wait_for_views(what, |views| {
                let mut all = views.values();
                all.all(|one| one.leader.is_some() && one.isr.len() == one.replicas.len())
                    && condition(views)
                    && self.is_idle()
            });
            // The last move may have ended between the two looks.
            if replicas(&self.views()) == replicas(&views) {
                return views;
            }
        }
    }

    /// Quiet, and nothing more is planned: for longer than the operator waits between two plans nothing changes.
    pub(super) fn wait_until_settled(&self, what: &str) -> BTreeMap<i32, Vec<i32>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = replicas(&self.wait_until_quiet(what, |_| true));
            let until = Instant::now() + BETWEEN_PLANS;
            while replicas(&self.views()) == before {
                if Instant::now() >= until {
                    return before;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            assert!(Instant::now() < deadline, "{what}: moves go on and on");
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        let plan = self.page("/debug/plan");
        let mut lines = plan.lines();
        plan.starts_with("score") && !lines.any(|line| line.starts_with("running"))
    }

    pub(super) fn wait_for_event(&self, reason: &str) {
        let seen = wait::until(PATIENCE, || {
            let reasons =
                self.kubectl("get events.events.k8s.io -A -o jsonpath={.items[*].reason}");
            reasons.split(' ').any(|one| one == reason).then_some(())
        });
        assert!(seen.is_some(), "no event {reason}\n{}", self.log_end());
    }

    /// Nothing is moved for a while that is longer than any wait for a failed broker.
    pub(super) fn assert_nothing_moves(&self, before: &BTreeMap<i32, Vec<i32>>) {
        let until = Instant::now() + FAILURE_GRACE + Duration::from_secs(5);
        while Instant::now() < until {
            assert_eq!(replicas(&self.views()), *before, "{}", self.log_end());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    pub(super) fn assert_safe(&self) {
        let least = self.isr.least.load(Ordering::Relaxed);
        assert!(least >= MIN_ISR, "a partition had {least} in-sync replicas");
    }

    /// Asks the brokers.
    pub(super) fn with_admin<T>(&self, ask: impl AsyncFnOnce(Admin) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let options = AdminOptions::new(self.cluster.bootstrap());
        runtime.block_on(async { ask(Admin::new(options).unwrap()).await })
    }

    /// No throttle on any live broker or on the topic.
    pub(super) fn assert_no_throttle(&self) {
        let left = async |admin: Admin| {
            let cluster = admin.describe_cluster().await.ok()?;
            let nodes = cluster.brokers.iter();
            let mut resources = vec![ConfigResource::Topic(TopicName::from(TOPIC))];
            resources.extend(nodes.map(|node| ConfigResource::Broker(node.id)));
            let described = admin.describe_configs(&resources, &[]).await.ok()?;
            let described: Result<Vec<_>, _> = described.into_iter().collect();
            let entries = described.ok()?.into_iter().flatten();
            let is_dynamic = |source| {
                matches!(
                    source,
                    ConfigSource::DynamicBroker | ConfigSource::DynamicTopic
                )
            };
            let throttles =
                entries.filter(|one| is_dynamic(one.source) && one.name.contains("throttled"));
            Some(throttles.count())
        };
        let found = wait::until(PATIENCE, || {
            (self.with_admin(left) == Some(0)).then_some(())
        });
        assert!(found.is_some(), "throttles stay\n{}", self.log_end());
    }

    /// Node and process are there again.
    pub(super) fn bring_back(&mut self, broker: i32) {
        self.kubelets.find(broker);
        self.apply_node(broker);
        self.cluster.start_broker(broker).unwrap();
        self.wait_for_return(broker);
    }

    pub(super) fn wait_for_return(&self, broker: i32) {
        let name = format!("brokers-{}", broker - 1);
        // What was evicted from a node that nobody could reach is gone now.
        let deleted = self.kubectl(&format!(
            "get pod {name} -o jsonpath={{.metadata.deletionTimestamp}}"
        ));
        if !deleted.is_empty() {
            self.kubectl(&format!("delete pod {name} --force --grace-period=0"));
        }
        self.pod_is_ready(broker - 1);
        self.wait_for_state(broker, "Alive");
    }
}

/// Only what was on the broker has moved.
pub(super) fn assert_only_lost_ones_moved(
    before: &BTreeMap<i32, Vec<i32>>,
    after: &BTreeMap<i32, Vec<i32>>,
    lost: i32,
) {
    for (partition, was) in before {
        let is = &after[partition];
        assert!(!is.contains(&lost), "{partition}: {is:?}");
        let stay = was.iter().filter(|id| **id != lost);
        for id in stay {
            assert!(is.contains(id), "{partition}: {was:?} became {is:?}");
        }
        assert_eq!(was.len(), is.len());
    }
}
