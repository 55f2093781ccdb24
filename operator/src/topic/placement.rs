//! Which brokers get replicas of a topic that is created, grows or changes its number of replicas.

use std::collections::BTreeMap;

use barnabas_core::balance::placement::{Candidate, PlacementError, Start, place};
use barnabas_core::ids::{BrokerId, TopicPartition};

use crate::cluster::{ClusterView, TopicView};

/// Brokers that may get replicas, and what they have.
#[derive(Clone, Debug, Default)]
pub struct Brokers {
    candidates: Vec<Candidate>,
    replicas: BTreeMap<BrokerId, u64>,
}

impl Brokers {
    /// Those that are registered but for `excluded`: on their way out.
    pub fn new(view: &ClusterView, excluded: &[BrokerId]) -> Self {
        let mut candidates: Vec<Candidate> = view
            .brokers
            .values()
            .filter(|node| !excluded.contains(&node.id))
            .map(|node| Candidate {
                id: node.id,
                rack: node.rack.clone(),
            })
            .collect();
        // Racks say nothing unless all have one.
        if candidates.iter().any(|one| one.rack.is_none()) {
            for one in &mut candidates {
                one.rack = None;
            }
        }
        let mut replicas: BTreeMap<BrokerId, u64> = BTreeMap::new();
        for partition in view.topics.values().flat_map(|topic| &topic.partitions) {
            for id in &partition.replicas {
                *replicas.entry(*id).or_default() += 1;
            }
        }
        Self {
            candidates,
            replicas,
        }
    }

    pub fn eligible(&self) -> usize {
        self.candidates.len()
    }

    /// How many racks there are; 0 if unknown.
    pub fn racks(&self) -> usize {
        let racks = self.candidates.iter().filter_map(|one| one.rack.as_ref());
        racks.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Replicas of partitions `first`, `first + 1`, …; begins at the broker that has least.
    pub fn place(
        &mut self,
        first: i32,
        count: i32,
        replication_factor: i16,
        existing: Option<&TopicView>,
    ) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
        let load = |one: &Candidate| self.replicas.get(&one.id).copied().unwrap_or(0);
        let start = if let Some(first) =
            existing.and_then(|topic| topic.partitions.first()?.replicas.first())
        {
            Start::after(*first, &self.candidates)
        } else {
            let positions = 0..self.candidates.len();
            let index = positions.min_by_key(|at| load(&self.candidates[*at]));
            Start {
                index: index.unwrap_or(0),
                shift: self.replicas.values().sum::<u64>() as usize % self.candidates.len().max(1),
            }
        };
        let placed = place(&self.candidates, first, count, replication_factor, start)?;
        let placed: Vec<Vec<BrokerId>> = placed.into_values().collect();
        for id in placed.iter().flatten() {
            *self.replicas.entry(*id).or_default() += 1;
        }
        Ok(placed)
    }

    /// Replicas for those partitions that have another number than `wanted` and are not being moved. More: racks that
    /// have none first, then brokers with little. Fewer: replicas out of sync go first, then second ones in a rack, then those of
    /// brokers with most; the leader stays.
    pub fn change_replicas(
        &mut self,
        view: &ClusterView,
        topic: &TopicView,
        wanted: usize,
    ) -> Vec<(TopicPartition, Vec<BrokerId>)> {
        let racks: BTreeMap<BrokerId, Option<String>> = self
            .candidates
            .iter()
            .map(|one| (one.id, one.rack.clone()))
            .collect();
        let same_rack = |one: BrokerId, other: BrokerId| {
            let rack = |id| racks.get(&id).and_then(Option::as_ref);
            rack(one).is_some() && rack(one) == rack(other)
        };
        let mut changed = Vec::new();
        for partition in &topic.partitions {
            let id = TopicPartition::new(topic.name.clone(), partition.partition);
            let mut target = partition.replicas.clone();
            if view.reassignments.contains_key(&id) || target.len() == wanted {
                continue;
            }
            while target.len() < wanted {
                let free = self.candidates.iter().map(|one| one.id);
                let best = free.filter(|id| !target.contains(id)).min_by_key(|id| {
                    let duplicates = target.iter().filter(|has| same_rack(**has, *id)).count();
                    let load = self.replicas.get(id).copied().unwrap_or(0);
                    (duplicates, load, *id)
                });
                let Some(best) = best else { break };
                target.push(best);
                *self.replicas.entry(best).or_default() += 1;
            }
            while target.len() > wanted.max(1) {
                let leader = partition.leader.or(target.first().copied());
                let worst = target.iter().copied().filter(|id| Some(*id) != leader);
                let worst = worst.max_by_key(|id| {
                    let is_out = !partition.isr.contains(id);
                    let others = target.iter().filter(|has| *has != id);
                    let duplicates = others.filter(|has| same_rack(**has, *id)).count();
                    (is_out, duplicates, self.replicas.get(id).copied(), *id)
                });
                let Some(worst) = worst else { break };
                target.retain(|id| *id != worst);
                if let Some(count) = self.replicas.get_mut(&worst) {
                    *count = count.saturating_sub(1);
                }
            }
            // Whoever stays must be enough to write to.
            let in_sync = target.iter().filter(|id| partition.isr.contains(id));
            let shrinks = target.len() < partition.replicas.len();
            if shrinks && (in_sync.count() as i32) < topic.min_insync_replicas {
                continue;
            }
            if target.len() == wanted {
                changed.push((id, target));
            }
        }
        changed
    }
}
