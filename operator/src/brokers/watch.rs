//! The watches that feed the machine: pods, nodes, claims of volumes and the `StatefulSet`, beside ZooKeeper's registrations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use barnabas_core::ids::BrokerId;
use barnabas_core::time::Now;
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    Node as NodeObject, PersistentVolume, PersistentVolumeClaim, Pod as PodObject,
};
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{info, warn};

use super::machine::{Facts, Graces, Machine, Node, Pod, Seen, Transition, Volume};
use crate::cluster::Cluster;
use crate::moves::{BrokerState, Evidence, EvidenceSource};
use crate::settings::Settings;
use crate::signals::Registered;

const DECOMMISSION: &str = "barnabas.dev/decommission";
const MAINTENANCE: &str = "barnabas.dev/maintenance-until";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Between two attempts to watch, doubled each time.
const WATCH_PAUSE: Duration = Duration::from_millis(500);
const WATCH_PAUSE_MAX: Duration = Duration::from_secs(15);

/// Whether a watch was synced and has not broken since.
#[derive(Clone, Default)]
struct Sight(Arc<AtomicBool>);

/// Everything that is known of brokers.
pub struct BrokerWatch {
    cluster: Cluster,
    registered: watch::Receiver<Registered>,
    kubernetes: Option<Kubernetes>,
    machine: Mutex<Machine>,
    transitions: Box<dyn Fn(&Transition) + Send + Sync>,
}

struct Kubernetes {
    set: String,
    id_offset: i32,
    pods: Store<PodObject>,
    claims: Store<PersistentVolumeClaim>,
    sets: Store<StatefulSet>,
    /// With cluster scope alone.
    nodes: Option<Store<NodeObject>>,
    volumes: Option<Store<PersistentVolume>>,
    sights: Vec<Sight>,
}

/// What the `StatefulSet` says of its pods.
#[derive(Default)]
struct Shape {
    /// One above the last ordinal; the first need not be 0.
    end: Option<i32>,
    is_rollout: bool,
    /// Names of its templates of claims.
    templates: Vec<String>,
}

fn follow<K>(api: Api<K>, sights: &mut Vec<Sight>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, mut writer) = reflector::store();
    let sight = Sight::default();
    sights.push(sight.clone());
    tokio::spawn(async move {
        let mut pause = WATCH_PAUSE;
        loop {
            let events = watcher(api.clone(), watcher::Config::default())
                .modify(|object| object.managed_fields_mut().clear());
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        sight.0.store(false, Ordering::Relaxed);
                        warn!(kind = %K::kind(&()), %error, "the watch broke; it is begun anew");
                        break;
                    }
                };
                writer.apply_watcher_event(&event);
                let is_whole =
                    !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_));
                if is_whole {
                    sight.0.store(true, Ordering::Relaxed);
                    pause = WATCH_PAUSE;
                }
            }
            // A watch that goes on where it broke would tell nothing until something changes, and we would not know that
            // we see again: everything is listed anew instead.
            tokio::time::sleep(pause.mul_f64(0.8 + 0.4 * rand::random::<f64>())).await;
            pause = (pause * 2).min(WATCH_PAUSE_MAX);
        }
    });
    store
}

impl BrokerWatch {
    /// Begins to watch; what brokers become is told to `transitions`.
    pub fn start(
        client: &kube::Client,
        settings: &Settings,
        graces: Graces,
        cluster: Cluster,
        registered: watch::Receiver<Registered>,
        transitions: impl Fn(&Transition) + Send + Sync + 'static,
    ) -> Self {
        let set = settings.broker_stateful_set.clone();
        let kubernetes = (!set.is_empty()).then(|| {
            let namespace = &settings.pod_namespace;
            let mut sights = Vec::new();
            let sights_of = &mut sights;
            Kubernetes {
                set,
                id_offset: settings.broker_id_offset,
                pods: follow(Api::namespaced(client.clone(), namespace), sights_of),
                claims: follow(Api::namespaced(client.clone(), namespace), sights_of),
                sets: follow(Api::namespaced(client.clone(), namespace), sights_of),
                nodes: settings
                    .cluster_scope
                    .then(|| follow(Api::all(client.clone()), sights_of)),
                volumes: settings
                    .cluster_scope
                    .then(|| follow(Api::all(client.clone()), sights_of)),
                sights,
            }
        });
        Self {
            cluster,
            registered,
            kubernetes,
            machine: Mutex::new(Machine::new(graces)),
            transitions: Box::new(transitions),
        }
    }

    fn seen(&self) -> Seen {
        let registered = self.registered.borrow().clone();
        let view = self.cluster.view();
        let mut brokers: BTreeMap<BrokerId, Facts> = BTreeMap::new();
        // Whoever has replicas is a broker, there or not.
        for partition in view.topics.values().flat_map(|topic| &topic.partitions) {
            for id in &partition.replicas {
                brokers.entry(*id).or_default();
            }
        }
        for (id, epoch) in &registered.brokers {
            let facts = brokers.entry(*id).or_default();
            facts.registered = Some(*epoch);
            facts.zone = view.brokers.get(id).and_then(|node| node.rack.clone());
        }
        let mut seen = Seen {
            sees_registrations: registered.is_connected,
            sees_kubernetes: true,
            is_rollout: false,
            brokers,
        };
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.look(&mut seen);
        }
        seen
    }
}

impl EvidenceSource for BrokerWatch {
    fn evidence(&self, now: Now) -> Evidence {
        let seen = self.seen();
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let (evidence, transitions) = machine.observe(&seen, now);
        drop(machine);
        for transition in transitions {
            let is_news = transition.from.is_some() || transition.to != BrokerState::Alive;
            if is_news {
                let facts = seen.brokers.get(&transition.id);
                let from = transition.from.map_or("", BrokerState::name);
                info!(broker = %transition.id, from, to = transition.to.name(), ?facts, "broker");
                (self.transitions)(&transition);
            }
        }
        evidence
    }
}

impl Kubernetes {
    fn look(&self, seen: &mut Seen) {
        seen.sees_kubernetes = self
            .sights
            .iter()
            .all(|sight| sight.0.load(Ordering::Relaxed));
        let shape = self.shape();
        seen.is_rollout = shape.is_rollout;
        // Pods that shall be there are brokers even before they have anything.
        for pod in self.pods.state() {
            let Some(id) = self.broker_of(&pod.name_any()) else {
                continue;
            };
            seen.brokers.entry(id).or_default();
        }
        for (id, facts) in &mut seen.brokers {
            let ordinal = id.0 - self.id_offset;
            let name = format!("{}-{ordinal}", self.set);
            self.look_at(&name, &shape.templates, facts);
            facts.is_decommissioned |= shape.end.is_some_and(|end| ordinal >= end) && ordinal >= 0;
        }
    }

    fn shape(&self) -> Shape {
        let sets = self.sets.state();
        let Some(set) = sets.iter().find(|set| set.name_any() == self.set) else {
            return Shape::default();
        };
        let spec = set.spec.as_ref();
        let templates = spec.and_then(|spec| spec.volume_claim_templates.as_ref());
        Shape {
            end: spec.and_then(|spec| {
                let first = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start);
                Some(spec.replicas? + first.unwrap_or(0))
            }),
            is_rollout: set.status.as_ref().is_some_and(|status| {
                status.update_revision.is_some()
                    && status.current_revision.is_some()
                    && status.update_revision != status.current_revision
            }),
            templates: templates
                .into_iter()
                .flatten()
                .map(kube::ResourceExt::name_any)
                .collect(),
        }
    }

    fn broker_of(&self, pod: &str) -> Option<BrokerId> {
        let ordinal = pod.strip_prefix(self.set.as_str())?.strip_prefix('-')?;
        Some(BrokerId(ordinal.parse::<i32>().ok()? + self.id_offset))
    }

    fn look_at(&self, name: &str, templates: &[String], facts: &mut Facts) {
        let pods = self.pods.state();
        let pod = pods.iter().find(|pod| pod.name_any() == name);
        let claims = self.claims(name, templates, pod.map(|pod| &**pod));
        let volumes: Vec<_> = claims.iter().map(|claim| self.volume(claim)).collect();
        let mut tied = volumes.iter().flatten();
        let local_node = tied.find_map(|volume| node_of_volume(volume));
        let is_lost = |claim: &Arc<PersistentVolumeClaim>| {
            let phase = claim.status.as_ref().and_then(|one| one.phase.as_deref());
            phase == Some("Lost")
        };
        facts.volume = if claims.is_empty() {
            // A claim that ought to be there and was deleted took the data along.
            if templates.is_empty() {
                Volume::Unknown
            } else {
                Volume::Lost
            }
        } else if claims.iter().any(is_lost) {
            Volume::Lost
        } else if local_node.is_some() {
            Volume::Local
        } else if volumes.iter().any(Option::is_none) {
            // Without the right to look at volumes nothing is known of where they are.
            Volume::Unknown
        } else {
            Volume::Remote
        };
        let placed = pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
        let node_name = placed.clone().or_else(|| local_node.clone());
        if let (Some(nodes), Some(node_name)) = (&self.nodes, &node_name) {
            let node = nodes.get(&ObjectRef::new(node_name));
            facts.node = node.as_deref().map_or(Node::Gone, node_state);
            if let Some(node) = node {
                let annotation = |key: &str| node.annotations().get(key).cloned();
                facts.is_decommissioned |= annotation(DECOMMISSION).as_deref() == Some("true");
                facts.maintenance_until_ms = annotation(MAINTENANCE)
                    .and_then(|time| time.parse::<Timestamp>().ok())
                    .map(k8s_openapi::jiff::Timestamp::as_millisecond);
                facts.zone = facts
                    .zone
                    .take()
                    .or_else(|| node.labels().get(ZONE).cloned());
            }
        }
        if let Some(pod) = pod {
            facts.is_decommissioned |= pod
                .annotations()
                .get(DECOMMISSION)
                .is_some_and(|one| one == "true");
            facts.pod = pod_state(pod);
            // A pod that waits for the node of its volume, which is no more.
            let waits = facts.pod == Pod::Starting && placed.is_none();
            if waits && facts.node == Node::Gone && facts.volume == Volume::Local {
                facts.pod = Pod::Unplaceable;
            }
        }
    }

    /// The claims of a broker's pod: by the pod, or by the names that the `StatefulSet` gives them (`<template>-<pod>`).
    fn claims(
        &self,
        name: &str,
        templates: &[String],
        pod: Option<&PodObject>,
    ) -> Vec<Arc<PersistentVolumeClaim>> {
        let volumes = pod.and_then(|pod| pod.spec.as_ref()?.volumes.clone());
        let by_pod = volumes.into_iter().flatten();
        let by_pod = by_pod.filter_map(|volume| Some(volume.persistent_volume_claim?.claim_name));
        let by_set = templates
            .iter()
            .map(|template| format!("{template}-{name}"));
        let names: BTreeSet<String> = by_pod.chain(by_set).collect();
        let mut claims = self.claims.state();
        claims.retain(|claim| names.contains(&claim.name_any()));
        claims
    }

    fn volume(&self, claim: &PersistentVolumeClaim) -> Option<Arc<PersistentVolume>> {
        let name = claim.spec.as_ref()?.volume_name.as_ref()?;
        self.volumes.as_ref()?.get(&ObjectRef::new(name))
    }
}

/// The one node that a volume can be used on, if it is tied to one by host name.
fn node_of_volume(volume: &PersistentVolume) -> Option<String> {
    let required = volume
        .spec
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required
        .as_ref()?;
    let terms = required.node_selector_terms.iter();
    let expressions = terms.flat_map(|term| term.match_expressions.iter().flatten());
    expressions
        .filter(|one| one.key == "kubernetes.io/hostname" && one.operator == "In")
        .find_map(|one| one.values.as_ref()?.first().cloned())
}

fn node_state(node: &NodeObject) -> Node {
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_ref());
    let is_tainted = |key: &str| taints.into_iter().flatten().any(|taint| taint.key == key);
    if is_tainted("node.kubernetes.io/out-of-service") {
        return Node::Gone;
    }
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|one| one.type_ == "Ready");
    if ready.is_some_and(|ready| ready.status != "True") {
        return Node::NotReady;
    }
    if spec.and_then(|spec| spec.unschedulable) == Some(true) {
        return Node::Cordoned;
    }
    Node::Ready
}

fn pod_state(pod: &PodObject) -> Pod {
    if pod.metadata.deletion_timestamp.is_some() {
        return Pod::Deleting;
    }
    let Some(status) = &pod.status else {
        return Pod::Starting;
    };
    let containers = status.container_statuses.iter().flatten();
    let mut waiting =
        containers.filter_map(|one| one.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    if waiting.any(|reason| reason == "CrashLoopBackOff") {
        return Pod::CrashLooping;
    }
    let conditions = status.conditions.iter().flatten();
    let mut ready = conditions.filter(|one| one.type_ == "Ready");
    if ready.any(|one| one.status == "True") {
        return Pod::Ready;
    }
    Pod::Starting
}

/// `10m`, `30s`, `2h`, `500ms`, or a number of seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text
        .find(|one: char| !one.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        _ => None,
    }
}
