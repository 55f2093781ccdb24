//! From what is known of a cluster to what the planner asks for.

use std::collections::{BTreeMap, BTreeSet};

use barnabas_core::balance::{
    Broker, BrokerRole, Disk, Partition, Placer, RackSpread, Rates, Settings, Snapshot,
};
use barnabas_core::ids::{BrokerId, TopicName, TopicPartition};

use super::evidence::{BrokerEvidence, BrokerState, Evidence};
use crate::cluster::ClusterView;

/// Beside the view: what the planner has to know of partitions.
#[derive(Default)]
pub struct Marks<'a> {
    /// To be left where they are.
    pub pinned: BTreeSet<TopicPartition>,
    /// Topics to be left alone altogether.
    pub paused: BTreeSet<TopicName>,
    pub rack_required: BTreeSet<TopicName>,
    /// Brokers that copies to did not succeed.
    pub avoid: BTreeMap<TopicPartition, BTreeSet<BrokerId>>,
    /// Bytes per second of leaders, smoothed, where brokers tell.
    pub rates: Option<&'a BTreeMap<TopicPartition, Rates>>,
    /// Brokers that have just arrived get nothing yet.
    pub only_settled: bool,
}

/// The planner's view. Partitions that are being reassigned count where they are going.
pub fn snapshot(view: &ClusterView, evidence: &Evidence, marks: &Marks<'_>) -> Snapshot {
    let mut ids: BTreeSet<BrokerId> = view.brokers.keys().copied().collect();
    ids.extend(evidence.brokers.keys());
    let brokers = ids.into_iter().map(|id| broker(view, evidence, marks, id));
    let topics = view.topics.values();
    let partitions = topics.flat_map(|topic| {
        topic.partitions.iter().map(|found| {
            let id = TopicPartition::new(topic.name.clone(), found.partition);
            let is_running = view.reassignments.contains_key(&id);
            let failed = |broker: &BrokerId| {
                // Offline although its broker is there: its disk has failed.
                found.offline.contains(broker)
                    && view.brokers.contains_key(broker)
                    && evidence.of(*broker).state == BrokerState::Alive
                    && view
                        .log_dirs
                        .get(broker)
                        .is_some_and(|dirs| !dirs.offline.is_empty())
            };
            Partition {
                replicas: view.target(&id).unwrap_or_default(),
                isr: found.isr.clone(),
                leader: found.leader,
                min_insync_replicas: u32::try_from(topic.min_insync_replicas).unwrap_or(1),
                bytes: view.bytes(&id),
                rates: marks.rates.and_then(|rates| rates.get(&id).copied()),
                on_failed_disks: found.replicas.iter().copied().filter(failed).collect(),
                avoid: marks
                    .avoid
                    .get(&id)
                    .into_iter()
                    .flatten()
                    .copied()
                    .collect(),
                rack_spread: if marks.rack_required.contains(&topic.name) {
                    RackSpread::Required
                } else {
                    RackSpread::Preferred
                },
                pinned: is_running
                    || marks.pinned.contains(&id)
                    || marks.paused.contains(&topic.name),
                id,
            }
        })
    });
    Snapshot {
        brokers: brokers.collect(),
        partitions: partitions.collect(),
    }
}

/// Places new partitions on registered brokers that are not on their way out, with regard to what all have.
pub(super) fn place_for(
    view: &ClusterView,
    states: &BTreeMap<BrokerId, BrokerState>,
    settings: &Settings,
) -> Placer {
    let mut evidence = Evidence::default();
    for id in view.brokers.keys() {
        let state = states.get(id).filter(|state| state.is_leaving());
        let found = state.map_or(BrokerEvidence::ALIVE, |state| BrokerEvidence::of(*state));
        evidence.brokers.insert(*id, found);
    }
    let marks = Marks::default();
    let ids = view.brokers.keys();
    let brokers: Vec<Broker> = ids.map(|id| broker(view, &evidence, &marks, *id)).collect();
    let topics = view.topics.values();
    let partitions = topics.flat_map(|topic| &topic.partitions);
    Placer::among(
        &brokers,
        partitions.map(|one| one.replicas.as_slice()),
        settings,
    )
}

fn broker(view: &ClusterView, evidence: &Evidence, marks: &Marks<'_>, id: BrokerId) -> Broker {
    let found = evidence.of(id);
    let is_registered = view.brokers.contains_key(&id);
    let role = match found.role() {
        // Evidence and metadata come at different times; only who is in both can be given anything.
        BrokerRole::Member if !is_registered => BrokerRole::Keep,
        BrokerRole::Member if marks.only_settled && !found.is_settled => BrokerRole::Keep,
        // It is back after all.
        BrokerRole::Lost | BrokerRole::Away if is_registered => BrokerRole::Keep,
        role => role,
    };
    let dirs = view.log_dirs.get(&id);
    let disk = dirs.and_then(|dirs| {
        let total_bytes = dirs.total_bytes?;
        Some(Disk {
            total_bytes,
            used_bytes: total_bytes.saturating_sub(dirs.usable_bytes?),
        })
    });
    Broker {
        id,
        rack: view.brokers.get(&id).and_then(|node| node.rack.clone()),
        role,
        disk,
    }
}
