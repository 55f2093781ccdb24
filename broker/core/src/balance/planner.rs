//! The passes in their order, and who should lead.

use super::model::Model;
use super::repair::{self, Of};
use super::snapshot::{BrokerRole, Limits, Pass, Plan, Settings, Snapshot};
use super::{soft, spread};
use crate::ids::TopicPartition;

/// How often racks and balance take turns.
const REPAIRS_MAX: usize = 8;

/// What to move, by these passes. They are carried out in the order of their urgency, whatever their order here.
pub fn plan(snapshot: &Snapshot, passes: &[Pass], settings: &Settings, limits: Limits) -> Plan {
    let mut model = Model::new(snapshot, settings);
    let mut passes = passes.to_vec();
    passes.sort_unstable();
    passes.dedup();
    let mut budget = soft::Budget::new(limits);
    for pass in passes.iter().copied() {
        match pass {
            Pass::Heal => repair::re_home(&mut model, Of::Lost),
            Pass::MinIsr => repair::re_home(&mut model, Of::Away),
            Pass::Drain => repair::re_home(&mut model, Of::Draining),
            Pass::RackRepair => {
                repair::repair_racks(&mut model);
            }
            Pass::Spread => budget = spread::spread(&mut model, limits),
            Pass::Balance => soft::balance(&mut model, &mut budget),
        }
    }
    if passes.contains(&Pass::RackRepair) && passes.contains(&Pass::Balance) {
        // What balance took off full disks may have made room that racks waited for.
        for _ in 0..REPAIRS_MAX {
            if !repair::repair_racks(&mut model) {
                break;
            }
            soft::balance(&mut model, &mut budget);
        }
    }
    model.into_plan()
}

/// Partitions that another replica leads although the preferred one is alive and in sync.
pub fn elections(snapshot: &Snapshot) -> Vec<TopicPartition> {
    let can_lead = |id| {
        let mut brokers = snapshot.brokers.iter();
        brokers.any(|broker| broker.id == id && broker.role == BrokerRole::Member)
    };
    let mut elections: Vec<TopicPartition> = snapshot
        .partitions
        .iter()
        .filter(|partition| {
            partition.replicas.first().is_some_and(|preferred| {
                partition.leader != Some(*preferred)
                    && partition.isr.contains(preferred)
                    && can_lead(*preferred)
            })
        })
        .map(|partition| partition.id.clone())
        .collect();
    elections.sort();
    elections
}

/// The largest share, over brokers, of partitions that a broker ought to lead and does not, in percent
/// (`leader.imbalance.per.broker.percentage` means the same).
pub fn leader_imbalance(snapshot: &Snapshot) -> u64 {
    let mut counts = std::collections::BTreeMap::<_, (u64, u64)>::new();
    for partition in &snapshot.partitions {
        if let Some(preferred) = partition.replicas.first() {
            let (all, elsewhere) = counts.entry(*preferred).or_default();
            *all += 1;
            *elsewhere += u64::from(partition.leader != Some(*preferred));
        }
    }
    let shares = counts
        .values()
        .map(|(all, elsewhere)| elsewhere * 100 / all);
    shares.max().unwrap_or(0)
}
