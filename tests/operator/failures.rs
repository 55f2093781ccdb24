//! Nodes, brokers, ZooKeeper, the API server and the operator itself fail, one after the other, on one cluster, while a
//! verifying producer and consumer work: what was lost comes back by itself, nothing that was acknowledged is gone,
//! and no partition is pushed below its min ISR by a move.
//!
//! Nodes are objects that a real control plane judges: a node that is lost is one whose Lease is not renewed any more, and
//! the node controller finds out. Pods are made by the controller of `StatefulSet`s and placed by the scheduler onto the
//! node of their volume; brokers are processes beside them. What is told each time takes a minute and a half, all of it
//! five: with `BARNABAS_OPERATOR_FAILURES=1`, or a larger number for as many kills of the operator, or 0 for none.

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
use rustix::process::Signal;

use crate::lab::{DEFINITION, Lab, PATIENCE};
use crate::relay::Relay;

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 6;
const MIN_ISR: usize = 2;
const BROKERS: i32 = 4;
/// Of what is probably gone, and of what certainly is.
const FAILURE_GRACE: Duration = Duration::from_secs(12);
const LOST_GRACE: Duration = Duration::from_secs(4);
/// Longer than what the settings below let pass between moves: settled for 3 s, a cool-down of 1 s, a look each 2 s.
const BETWEEN_PLANS: Duration = Duration::from_secs(10);

/// How often the operator is killed; nothing if only the short story is asked for.
fn kills() -> Option<usize> {
    let text = std::env::var("BARNABAS_OPERATOR_FAILURES").ok()?;
    Some(text.parse().unwrap())
}

type Views = BTreeMap<i32, PartitionView>;

fn replicas(views: &Views) -> BTreeMap<i32, Vec<i32>> {
    let views = views.iter();
    views
        .map(|(partition, view)| (*partition, view.replicas.clone()))
        .collect()
}

fn on(views: &Views, broker: i32) -> usize {
    let views = views.values();
    views.filter(|view| view.replicas.contains(&broker)).count()
}

/// Nodes whose Leases are renewed, by a thread, as kubelets do.
struct Kubelets {
    alive: Arc<Mutex<BTreeSet<i32>>>,
    stop: Arc<AtomicBool>,
}

impl Kubelets {
    fn start(lab: &Lab) -> Self {
        let alive = Arc::new(Mutex::new((1..=BROKERS).collect::<BTreeSet<i32>>()));
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

    fn lose(&self, node: i32) {
        self.alive.lock().unwrap().remove(&node);
    }

    fn find(&self, node: i32) {
        self.alive.lock().unwrap().insert(node);
    }
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The fewest in-sync replicas that any partition was seen with.
struct IsrWatch {
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

    fn forget(&self) {
        self.least.store(usize::MAX, Ordering::Relaxed);
    }
}

impl Drop for IsrWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Everything together.
struct World {
    operator: Option<ServerProcess>,
    kubelets: Kubelets,
    isr: IsrWatch,
    to_kubernetes: Relay,
    to_zookeeper: Relay,
    port: u16,
    cluster: Cluster,
    lab: Lab,
    begun: Instant,
}

fn port_of(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

impl World {
    fn start() -> World {
        let options = Options {
            fast_node_failure: true,
            ..Options::default()
        };
        let lab = Lab::start_with(DEFINITION, &options);
        let kind = BrokerKind::under_test();
        let options = ClusterOptions::of(&vec![kind; BROKERS as usize])
            .with("auto.leader.rebalance.enable", false)
            .with("offsets.topic.replication.factor", 3)
            .with("zookeeper.session.timeout.ms", 6000);
        let mut cluster = Cluster::start(&options).unwrap();
        let to_kubernetes = Relay::to(port_of(&lab.kubernetes.url));
        let to_zookeeper = Relay::to(port_of(&cluster.zookeeper().connect()));
        let isr = IsrWatch::start(cluster.bootstrap());
        let world = World {
            operator: None,
            kubelets: Kubelets::start(&lab),
            isr,
            to_kubernetes,
            to_zookeeper,
            port: free_port(),
            cluster,
            lab,
            begun: Instant::now(),
        };
        world.furnish();
        world
    }

    fn say(&self, text: &str) {
        eprintln!("{:6.1} s: {text}", self.begun.elapsed().as_secs_f64());
    }

    fn kubectl(&self, words: &str) -> String {
        let words: Vec<&str> = words.split(' ').collect();
        self.lab.kubernetes.kubectl(&words).unwrap_or_default()
    }

    fn apply_node(&self, node: i32) {
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
    fn pod_is_ready(&self, ordinal: i32) {
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

    /// Nodes, volumes tied to them, and the `StatefulSet` with its pods.
    fn furnish(&self) {
        for node in 1..=BROKERS {
            self.apply_node(node);
        }
        let mut objects = String::new();
        for node in 1..=BROKERS {
            let _ = writeln!(
                objects,
                "---\n{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: volume-{node}}}, spec: {{\
                 capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], storageClassName: \"\", \
                 persistentVolumeReclaimPolicy: Retain, local: {{path: /data}}, \
                 claimRef: {{namespace: default, name: data-brokers-{}}}, \
                 nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{\
                 key: kubernetes.io/hostname, operator: In, values: [node-{node}]}}]}}]}}}}}}}}",
                node - 1
            );
        }
        let _ = writeln!(
            objects,
            "---\n{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: brokers, namespace: default}}, spec: {{\
             replicas: {BROKERS}, serviceName: brokers, podManagementPolicy: Parallel, \
             updateStrategy: {{type: OnDelete}}, \
             selector: {{matchLabels: {{app: brokers}}}}, template: {{metadata: {{labels: {{app: brokers}}}}, \
             spec: {{tolerations: [{{operator: Exists, effect: NoSchedule}}], \
             containers: [{{name: broker, image: none, volumeMounts: [{{name: data, mountPath: /data}}]}}]}}}}, \
             volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{accessModes: [ReadWriteOnce], \
             storageClassName: \"\", resources: {{requests: {{storage: 1Gi}}}}}}}}]}}}}"
        );
        self.lab.kubernetes.apply(&objects).unwrap();
        let placed = wait::until(PATIENCE, || {
            let nodes =
                self.kubectl("get pods -l app=brokers -o jsonpath={.items[*].spec.nodeName}");
            (nodes.split_whitespace().count() == BROKERS as usize).then_some(())
        });
        assert!(placed.is_some(), "{}", self.kubectl("describe pods"));
        for ordinal in 0..BROKERS {
            self.pod_is_ready(ordinal);
        }
    }

    fn start_operator(&mut self, name: &str) -> ServerProcess {
        let directory = self.lab.directory.path();
        // Its own ways to the servers, which can be cut.
        let server = format!("https://127.0.0.1:{}", self.to_kubernetes.port());
        let text = std::fs::read_to_string(&self.lab.kubernetes.kubeconfig).unwrap();
        let kubeconfig = directory.join("operator.kubeconfig");
        std::fs::write(&kubeconfig, text.replace(&self.lab.kubernetes.url, &server)).unwrap();
        let seconds = |time: Duration| time.as_secs();
        let settings = format!(
            "{{bootstrapServers: \"{}\", zookeeperConnect: \"127.0.0.1:{}\", watchNamespaces: [\"*\"], \
             brokerStatefulSet: brokers, brokerIdOffset: 1, stateConfigMap: balancer-state, lease: operator, \
             podNamespace: default, podName: {name}, debugEndpoints: true, refreshSeconds: 2, \
             balancing: {{failureGrace: {}s, lostGrace: {}s, plannedGrace: 300s, settledAfter: 3s, \
             moveCooldown: 1s, diskMaxUsed: 100}}}}",
            self.cluster.bootstrap().join(","),
            self.to_zookeeper.port(),
            seconds(FAILURE_GRACE),
            seconds(LOST_GRACE),
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

    fn page(&self, page: &str) -> String {
        let address = format!("127.0.0.1:{}", self.port);
        let answer = http::request(&address, "GET", page, "");
        answer.map(|(_, body)| body).unwrap_or_default()
    }

    /// Waits until a page of the operator has a line that begins so.
    fn wait_for_line(&self, page: &str, start: &str) {
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

    fn log_end(&self) -> String {
        let log = self.operator.as_ref().map(ServerProcess::log);
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// The state of a broker as the operator has it.
    fn wait_for_state(&self, broker: i32, state: &str) {
        self.wait_for_line("/debug/brokers", &format!("{broker} {state} "));
    }

    fn views(&self) -> Views {
        self.wait_for_views("any", |_| true)
    }

    fn wait_for_views(&self, what: &str, condition: impl Fn(&Views) -> bool) -> Views {
        let found = self.cluster.view().wait_for(TOPIC, PATIENCE, condition);
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
    fn wait_until_quiet(&self, what: &str, condition: impl Fn(&Views) -> bool) -> Views {
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
    fn wait_until_settled(&self, what: &str) -> BTreeMap<i32, Vec<i32>> {
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

    fn is_idle(&self) -> bool {
        let plan = self.page("/debug/plan");
        let mut lines = plan.lines();
        plan.starts_with("score") && !lines.any(|line| line.starts_with("running"))
    }

    fn wait_for_event(&self, reason: &str) {
        let seen = wait::until(PATIENCE, || {
            let reasons =
                self.kubectl("get events.events.k8s.io -A -o jsonpath={.items[*].reason}");
            reasons.split(' ').any(|one| one == reason).then_some(())
        });
        assert!(seen.is_some(), "no event {reason}\n{}", self.log_end());
    }

    /// Nothing is moved for a while that is longer than any wait for a failed broker.
    fn assert_nothing_moves(&self, before: &BTreeMap<i32, Vec<i32>>) {
        let until = Instant::now() + FAILURE_GRACE + Duration::from_secs(5);
        while Instant::now() < until {
            assert_eq!(replicas(&self.views()), *before, "{}", self.log_end());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn assert_safe(&self) {
        let least = self.isr.least.load(Ordering::Relaxed);
        assert!(least >= MIN_ISR, "a partition had {least} in-sync replicas");
    }

    /// No throttle on any live broker or on the topic.
    fn assert_no_throttle(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let bootstrap = self.cluster.bootstrap();
        let found = wait::until(PATIENCE, || {
            let left = runtime.block_on(async {
                let admin = Admin::new(AdminOptions::new(bootstrap.clone())).unwrap();
                let cluster = admin.describe_cluster().await.ok()?;
                let nodes = cluster.brokers.iter();
                let mut resources = vec![ConfigResource::Topic(TopicName::from(TOPIC))];
                resources.extend(nodes.map(|node| ConfigResource::Broker(node.id)));
                let described = admin.describe_configs(&resources, &[]).await.ok()?;
                let described: Result<Vec<_>, _> = described.into_iter().collect();
                let entries = described.ok()?.into_iter().flatten();
                let is_left = |source| {
                    matches!(
                        source,
                        ConfigSource::DynamicBroker | ConfigSource::DynamicTopic
                    )
                };
                Some(
                    entries
                        .filter(|entry| is_left(entry.source) && entry.name.contains("throttled"))
                        .count(),
                )
            });
            (left == Some(0)).then_some(())
        });
        assert!(found.is_some(), "throttles stay\n{}", self.log_end());
    }

    /// Node and process are there again.
    fn bring_back(&mut self, broker: i32) {
        self.kubelets.find(broker);
        self.apply_node(broker);
        self.cluster.start_broker(broker).unwrap();
        self.wait_for_return(broker);
    }

    fn wait_for_return(&self, broker: i32) {
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
fn assert_only_lost_ones_moved(
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

#[test]
fn whatever_fails_comes_back_and_nothing_acknowledged_is_lost() {
    let mut world = World::start();
    let operator = world.start_operator("operator-1");
    world.operator = Some(operator);
    let spec = "partitions: 6, replicas: 3, config: {min.insync.replicas: 2}";
    world.lab.apply(TOPIC, spec).unwrap();
    world
        .lab
        .apply("wide", "partitions: 1, replicas: 4")
        .unwrap();
    world.lab.wait_for(TOPIC, "True AsSpecified");
    world.lab.wait_for("wide", "True AsSpecified");
    let created = world.views();
    let leaders: BTreeSet<i32> = created.values().map(|view| view.replicas[0]).collect();
    assert!(
        leaders.len() >= 3,
        "the planner spreads leaders: {created:?}"
    );
    let mut options = VerifierOptions::new(world.cluster.bootstrap(), TOPIC, PARTITIONS);
    options.pause = Duration::from_millis(30);
    options.delivery_timeout = Duration::from_secs(180);
    let verifier = Verifier::start(options);
    verifier.wait_for_progress(2, PATIENCE).unwrap();
    for broker in 1..=BROKERS {
        world.wait_for_state(broker, "Alive");
    }
    world.wait_until_quiet("at first", |_| true);
    world.isr.forget();

    a_broker_that_returns_in_time(&mut world);
    a_node_that_is_not_ready(&mut world);
    a_node_that_is_gone(&mut world);
    if kills().is_some() {
        other_numbers_of_replicas(&mut world);
        a_broker_that_is_emptied(&mut world);
        world.assert_safe();
        the_operator_is_cut_off(&mut world);
    }
    if kills() > Some(0) {
        a_rollout(&mut world);
        zookeeper_is_away(&mut world);
        an_operator_that_is_killed(&mut world);
        two_operators(&mut world);
    }
    world.assert_safe();
    too_many_are_down(&mut world);

    world.assert_no_throttle();
    let verified = verifier.stop().unwrap();
    world.say(&format!("{verified:?}"));
    let ended = world.operator.as_mut().unwrap();
    ended.terminate(Duration::from_secs(20)).unwrap();
}

/// F1: kill -9, back before its wait is over.
fn a_broker_that_returns_in_time(world: &mut World) {
    world.say("F1 a broker returns in time");
    let before = replicas(&world.views());
    world.cluster.kill(4);
    // Its pod is ready as far as Kubernetes knows, and it is not registered.
    world.wait_for_state(4, "Suspect");
    world.wait_for_event("BrokerCutOffFromZooKeeper");
    world.cluster.start_broker(4).unwrap();
    world.wait_for_state(4, "Alive");
    let after = world.wait_until_quiet("back in time", |_| true);
    assert_eq!(replicas(&after), before);
    world.assert_safe();
}

/// F2, F2b: a node stops; its broker's replicas are made anew elsewhere when the wait is over, those for which there is no
/// broker are told of. When it returns it is filled up (P5).
fn a_node_that_is_not_ready(world: &mut World) {
    world.say("F2 a node stops");
    let before = replicas(&world.views());
    let killed = Instant::now();
    world.kubelets.lose(2);
    world.cluster.kill(2);
    world.wait_for_state(2, "Failed");
    world.wait_for_event("BrokerFailed");
    world.wait_for_views("healing begins", |views| replicas(views) != before);
    let begun = killed.elapsed();
    world.say(&format!(
        "F2 healing began {begun:.1?} after the kill, waited for {FAILURE_GRACE:.0?}"
    ));
    assert!(begun >= FAILURE_GRACE, "{begun:?}");
    let healed = world.wait_until_quiet("healed", |views| on(views, 2) == 0);
    world.say(&format!(
        "F2 healed {:.1?} after the kill",
        killed.elapsed()
    ));
    assert_only_lost_ones_moved(&before, &replicas(&healed), 2);
    world.wait_for_event("HealStarted");
    world.wait_for_event("HealImpossible");
    world.assert_safe();
    world.bring_back(2);
    world.wait_until_quiet("filled up again", |views| on(views, 2) > 0);
    world.wait_for_event("SpreadFinished");
    world.say("P5 the broker that returned has replicas again");
    world.assert_no_throttle();
    world.assert_safe();
}

/// F3: the Node object is deleted, and the volume was tied to it.
fn a_node_that_is_gone(world: &mut World) {
    world.say("F3 a node is deleted");
    let before = replicas(&world.views());
    let killed = Instant::now();
    world.kubelets.lose(3);
    world.cluster.kill(3);
    world.kubectl("delete node node-3 --wait=false");
    world.wait_for_state(3, "Lost");
    world.wait_for_views("healing begins", |views| replicas(views) != before);
    world.say(&format!(
        "F3 healing began {:.1?} after the kill",
        killed.elapsed()
    ));
    let healed = world.wait_until_quiet("healed", |views| on(views, 3) == 0);
    assert_only_lost_ones_moved(&before, &replicas(&healed), 3);
    world.assert_safe();
    world.bring_back(3);
    world.wait_until_quiet("filled up again", |views| on(views, 3) > 0);
    world.assert_safe();
}

/// Another number of replicas, together with the setting that depends on it, both ways.
fn other_numbers_of_replicas(world: &mut World) {
    world.say("P3 replicas 3 -> 4 -> 3");
    let spec = |count: i32, min: i32| {
        format!("partitions: 6, replicas: {count}, config: {{min.insync.replicas: {min}}}")
    };
    world.lab.apply(TOPIC, &spec(4, 2)).unwrap();
    world.wait_until_quiet("four replicas", |views| {
        views.values().all(|one| one.replicas.len() == 4)
    });
    world.lab.wait_for(TOPIC, "True AsSpecified");
    world.lab.apply(TOPIC, &spec(3, 2)).unwrap();
    world.wait_until_quiet("three replicas", |views| {
        views.values().all(|one| one.replicas.len() == 3)
    });
    world.wait_for_event("ReplicasChangeFinished");
    world.assert_safe();
}

/// A broker is emptied by an annotation of its pod, and filled up when that is taken back.
fn a_broker_that_is_emptied(world: &mut World) {
    world.say("P2 a broker is emptied");
    world.kubectl("annotate pod brokers-3 barnabas.dev/decommission=true");
    world.wait_until_quiet("emptied", |views| on(views, 4) == 0);
    world.wait_for_event("DrainStarted");
    // A topic with as many replicas as brokers cannot leave it.
    world.wait_for_state(4, "Draining");
    world.kubectl("delete topics.barnabas.dev wide");
    world.wait_for_state(4, "Drained");
    world.wait_for_event("DrainFinished");
    // Nothing new is placed on it.
    world
        .lab
        .apply("during", "partitions: 6, replicas: 3")
        .unwrap();
    world.lab.wait_for("during", "True AsSpecified");
    let placed = world.lab.get("during", ".status.assignments");
    let has_four = placed
        .split(['"', ',', ':', '[', ']'])
        .any(|word| word == "4");
    // Partition 4 begins with its number.
    let lists = placed.replace("\"4:", "\"");
    let has_four = has_four && lists.split([',', ':', '"']).any(|word| word == "4");
    assert!(!has_four, "{placed}");
    // Else it would be what the broker is filled up with.
    world.lab.delete("during");
    world.kubectl("annotate pod brokers-3 barnabas.dev/decommission-");
    world.wait_until_quiet("filled up again", |views| on(views, 4) > 0);
    world.assert_no_throttle();
}

/// F15: while pods are being replaced a broker that is away is waited for as long as planned.
fn a_rollout(world: &mut World) {
    world.say("F15 a rollout");
    let patch = "{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"version\":\"2\"}}}}}";
    let arguments = [
        "patch",
        "statefulset",
        "brokers",
        "--type=merge",
        "-p",
        patch,
    ];
    world.lab.kubernetes.kubectl(&arguments).unwrap();
    let before = replicas(&world.views());
    world.cluster.stop(1).unwrap();
    world.wait_for_state(1, "PlannedDown");
    world.assert_nothing_moves(&before);
    world.cluster.start_broker(1).unwrap();
    world.wait_for_state(1, "Alive");
    let back = "{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"version\":null}}}}}";
    let arguments = [
        "patch",
        "statefulset",
        "brokers",
        "--type=merge",
        "-p",
        back,
    ];
    world.lab.kubernetes.kubectl(&arguments).unwrap();
    let after = world.wait_until_quiet("after the rollout", |_| true);
    assert_eq!(replicas(&after), before);
}

/// F6: without ZooKeeper nothing is concluded and nothing moves.
fn zookeeper_is_away(world: &mut World) {
    world.say("F6 ZooKeeper is away");
    let before = replicas(&world.views());
    world.cluster.zookeeper().kill(0);
    world.wait_for_line("/debug/plan", "score");
    world.wait_for_line("/metrics", "barnabas_operator_zk_connected 0");
    world.assert_nothing_moves(&before);
    let zookeeper = world.cluster.zookeeper();
    zookeeper.spawn(0).unwrap();
    zookeeper.wait_for(0).unwrap();
    world.wait_for_line("/metrics", "barnabas_operator_zk_connected 1");
    for broker in 1..=BROKERS {
        world.wait_for_state(broker, "Alive");
    }
    let after = world.wait_until_quiet("ZooKeeper is back", |_| true);
    assert_eq!(replicas(&after), before);
}

/// F5, F7, F13: the operator alone is cut off from ZooKeeper, then loses its connections to the API server again and
/// again. A broker dies meanwhile, and is healed when the operator sees again.
fn the_operator_is_cut_off(world: &mut World) {
    world.say("F7 the operator is cut off from ZooKeeper");
    world.to_zookeeper.cut();
    world.wait_for_line("/metrics", "barnabas_operator_zk_connected 0");
    let before = replicas(&world.views());
    world.kubelets.lose(2);
    world.cluster.kill(2);
    world.assert_nothing_moves(&before);
    world.to_zookeeper.mend();
    world.wait_for_line("/metrics", "barnabas_operator_zk_connected 1");
    world.say("F13 connections to the API server drop");
    for _ in 0..5 {
        world.to_kubernetes.drop_connections();
        std::thread::sleep(Duration::from_millis(600));
    }
    let healed = world.wait_until_quiet("healed", |views| on(views, 2) == 0);
    assert_only_lost_ones_moved(&before, &replicas(&healed), 2);
    world.bring_back(2);
    world.wait_until_quiet("filled up again", |views| on(views, 2) > 0);
    // Topics are served as before.
    world
        .lab
        .apply("after", "partitions: 1, replicas: 3")
        .unwrap();
    world.lab.wait_for("after", "True AsSpecified");
    world.lab.delete("after");
}

/// F11: killed in the middle of moves; the next one finishes them and leaves no throttle.
fn an_operator_that_is_killed(world: &mut World) {
    for time in 1..=kills().unwrap_or(0) {
        world.say("F11 the operator is killed while it empties a broker");
        let before = replicas(&world.views());
        world.kubectl("annotate pod brokers-3 barnabas.dev/decommission=true");
        world.wait_for_views("moves begin", |views| replicas(views) != before);
        world.operator = None;
        let next = world.start_operator(&format!("operator-1-{time}"));
        world.operator = Some(next);
        world.wait_until_quiet("emptied", |views| on(views, 4) == 0);
        world.assert_no_throttle();
        world.kubectl("annotate pod brokers-3 barnabas.dev/decommission-");
        world.wait_until_quiet("filled up again", |views| on(views, 4) > 0);
        world.assert_no_throttle();
    }
}

/// F12: the one that acts is frozen; another takes over; when the first wakes it ends without having done anything.
fn two_operators(world: &mut World) {
    world.say("F12 the operator is frozen, another takes over");
    let mut frozen = world.operator.take().unwrap();
    let before = replicas(&world.views());
    frozen.signal(Signal::STOP);
    world.port = free_port();
    let second = world.start_operator("operator-2");
    world.operator = Some(second);
    world.wait_for_line("/metrics", "barnabas_operator_leader 1");
    world.kubectl("annotate pod brokers-3 barnabas.dev/decommission=true");
    frozen.signal(Signal::CONT);
    let ended = frozen.wait_for_end(PATIENCE).unwrap();
    assert!(!ended.success(), "who lost the lease ends with an error");
    world.wait_until_quiet("emptied", |views| on(views, 4) == 0);
    world.kubectl("annotate pod brokers-3 barnabas.dev/decommission-");
    world.wait_until_quiet("filled up again", |views| on(views, 4) > 0);
    assert_eq!(before.len(), PARTITIONS as usize);
}

/// F8: half of the brokers are gone at once: something else must be wrong, nothing moves.
fn too_many_are_down(world: &mut World) {
    world.say("F8 half of the brokers are gone");
    let before = world.wait_until_settled("before half are gone");
    for broker in [2, 3] {
        world.kubelets.lose(broker);
        world.cluster.kill(broker);
    }
    world.wait_for_event("TooManyBrokersDown");
    world.assert_nothing_moves(&before);
    // Both: their waits are over, so if one were back alone the other would be healed.
    for broker in [2, 3] {
        world.cluster.spawn(broker).unwrap();
    }
    for broker in [2, 3] {
        world.kubelets.find(broker);
        world.apply_node(broker);
        world.cluster.wait_for(broker).unwrap();
    }
    for broker in [2, 3] {
        world.wait_for_return(broker);
    }
    let after = world.wait_until_quiet("all are back", |_| true);
    assert_eq!(replicas(&after), before);
}
