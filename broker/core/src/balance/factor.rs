//! More or fewer replicas of a topic.

use super::model::{B, Model};
use super::snapshot::{BrokerRole, Move, Reason, Settings, Snapshot};

/// Why a topic cannot have so many replicas.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactorError {
    #[error("there is no topic {0}")]
    NoTopic(String),
    #[error("a partition needs a replica")]
    NoReplicas,
    #[error("{wanted} replicas are more than the {eligible} brokers that could have one")]
    TooFewBrokers { wanted: usize, eligible: usize },
    #[error("{wanted} replicas are fewer than min.insync.replicas={min_insync_replicas}")]
    BelowMinIsr {
        wanted: usize,
        min_insync_replicas: u32,
    },
    /// There are brokers enough, but none with room (or in a rack of its own, where that is required) for this partition.
    #[error("no broker has room for another replica of partition {partition}")]
    NoRoom { partition: i32 },
}

/// The moves that give every partition of a topic `wanted` replicas: all of them, or none and why.
///
/// More: racks first, then brokers with little load. Fewer: replicas that are offline or out of sync go first, then the second in a
/// rack, then those of brokers with most, the leader last. Pinned partitions are left out.
pub fn change_replication_factor(
    snapshot: &Snapshot,
    topic: &str,
    wanted: usize,
    settings: &Settings,
) -> Result<Vec<Move>, FactorError> {
    let of_topic = || {
        let partitions = snapshot.partitions.iter();
        partitions.filter(|partition| &*partition.id.topic == topic)
    };
    let min_isr = of_topic()
        .map(|partition| partition.min_insync_replicas)
        .max();
    let min_insync_replicas = min_isr.ok_or_else(|| FactorError::NoTopic(topic.to_owned()))?;
    if wanted == 0 {
        return Err(FactorError::NoReplicas);
    }
    let shrinks = of_topic().any(|partition| partition.replicas.len() > wanted);
    if shrinks && wanted < min_insync_replicas as usize {
        return Err(FactorError::BelowMinIsr {
            wanted,
            min_insync_replicas,
        });
    }
    let mut model = Model::new(snapshot, settings);
    let grows = of_topic().any(|partition| partition.replicas.len() < wanted);
    if grows && wanted > model.members.len() {
        return Err(FactorError::TooFewBrokers {
            wanted,
            eligible: model.members.len(),
        });
    }
    let parts: Vec<usize> = (0..model.parts.len())
        .filter(|part| &*model.parts[*part].id.topic == topic && !model.parts[*part].pinned)
        .collect();
    for part in parts {
        let source = snapshot
            .partitions
            .iter()
            .find(|one| one.id == model.parts[part].id)
            .expect("the model was made from it");
        while model.parts[part].replicas.len() < wanted {
            let to = best_addition(&model, part).ok_or(FactorError::NoRoom {
                partition: source.id.partition,
            })?;
            model.add(part, to, Reason::ReplicasChange);
        }
        while model.parts[part].replicas.len() > wanted {
            let from = worst_replica(&model, part, source);
            model.remove(part, from, Reason::ReplicasChange);
        }
    }
    Ok(model.into_plan().moves)
}

fn best_addition(model: &Model<'_>, part: usize) -> Option<B> {
    let targets = model.members.iter().copied();
    targets
        .filter(|to| model.refusal(part, *to, None).is_none())
        .min_by_key(|to| {
            let row = model.row(*to);
            let in_topic = model.topic_count(model.parts[part].topic, *to);
            let in_rack = model.in_rack(part, row.rack);
            (in_rack, in_topic, row.replicas, row.bytes, *to)
        })
}

fn worst_replica(model: &Model<'_>, part: usize, source: &super::snapshot::Partition) -> B {
    let replicas = model.parts[part].replicas.iter().copied();
    let worst = replicas.enumerate().max_by_key(|(position, one)| {
        let row = model.row(*one);
        let is_offline = matches!(row.role, BrokerRole::Lost | BrokerRole::Away)
            || source.on_failed_disks.contains(&row.id);
        let is_in_sync = source.isr.contains(&row.id);
        let leads = source.leader == Some(row.id);
        let goes_anyway = row.role == BrokerRole::Drain;
        let in_rack = model.in_rack(part, row.rack);
        (
            (is_offline, !is_in_sync, !leads, goes_anyway),
            (in_rack, row.replicas, row.bytes),
            *position,
        )
    });
    worst.map(|(_, one)| one).expect("it has replicas")
}
