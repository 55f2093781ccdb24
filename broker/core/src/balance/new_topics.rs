//! Replicas of new partitions: Kafka's placement, begun where the load that is there asks for it.

use super::placement::{Candidate, PlacementError, Start, place};
use super::snapshot::{Broker, BrokerRole, RackSpread, Settings, Snapshot};
use crate::ids::BrokerId;

/// Places topic after topic, each knowing of those before.
#[derive(Clone, Debug)]
pub struct Placer {
    brokers: Vec<Load>,
}

#[derive(Clone, Debug)]
struct Load {
    candidate: Candidate,
    replicas: u64,
    leaders: u64,
}

/// Beyond so many placements of replicas tried, fewer beginnings are compared.
const TRIED_MAX: usize = 2_000_000;

impl Placer {
    /// With the members that have room.
    pub fn new(snapshot: &Snapshot, settings: &Settings) -> Self {
        let partitions = snapshot.partitions.iter();
        let replicas = partitions.map(|partition| partition.replicas.as_slice());
        Self::among(&snapshot.brokers, replicas, settings)
    }

    /// The same from brokers and the replicas of all partitions that there are.
    pub fn among<'a>(
        brokers: &[Broker],
        partitions: impl Iterator<Item = &'a [BrokerId]>,
        settings: &Settings,
    ) -> Self {
        let mut brokers: Vec<Load> = brokers
            .iter()
            .filter(|broker| broker.role == BrokerRole::Member)
            .filter(|broker| {
                broker.disk.is_none_or(|disk| {
                    disk.used_bytes <= disk.total_bytes / 100 * settings.disk_used_percent_max
                })
            })
            .map(|broker| Load {
                candidate: Candidate {
                    id: broker.id,
                    rack: broker.rack.clone(),
                },
                replicas: 0,
                leaders: 0,
            })
            .collect();
        brokers.sort_by_key(|load| load.candidate.id);
        let mut placer = Self { brokers };
        // Without racks for all, racks say nothing.
        let known = placer
            .brokers
            .iter()
            .all(|load| load.candidate.rack.is_some());
        if !known {
            for load in &mut placer.brokers {
                load.candidate.rack = None;
            }
        }
        for replicas in partitions {
            placer.note(replicas);
        }
        placer
    }

    /// How many brokers may get replicas.
    pub fn eligible(&self) -> usize {
        self.brokers.len()
    }

    /// How many racks these are in.
    pub fn racks(&self) -> usize {
        let racks = self.brokers.iter().map(|load| &load.candidate.rack);
        racks.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Replicas of the partitions 0, 1, … of a new topic. With [`RackSpread::Required`] the racks count as brokers
    /// that there are.
    pub fn place_topic(
        &mut self,
        partitions: i32,
        replication_factor: i16,
        spread: RackSpread,
    ) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
        self.place_from(0, partitions, replication_factor, spread, &[])
    }

    /// Replicas of `added` further partitions of a topic that has these.
    pub fn place_partitions(
        &mut self,
        existing: &[Vec<BrokerId>],
        added: i32,
        replication_factor: i16,
        spread: RackSpread,
    ) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
        let first = existing.len() as i32;
        self.place_from(first, added, replication_factor, spread, existing)
    }

    fn place_from(
        &mut self,
        first: i32,
        partitions: i32,
        replication_factor: i16,
        spread: RackSpread,
        existing: &[Vec<BrokerId>],
    ) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
        if spread == RackSpread::Required {
            let replicas = usize::try_from(replication_factor).unwrap_or(0);
            if replicas > self.racks() && self.racks() > 0 {
                return Err(PlacementError::TooFewBrokers {
                    replication_factor,
                    available: self.racks(),
                });
            }
        }
        let candidates: Vec<Candidate> = self
            .brokers
            .iter()
            .map(|load| load.candidate.clone())
            .collect();
        let place = |start| place(&candidates, first, partitions, replication_factor, start);
        let count = candidates.len();
        let each = (partitions.max(1) as usize)
            .saturating_mul(usize::try_from(replication_factor).unwrap_or(1).max(1));
        let beginnings = count.min(TRIED_MAX / each.max(1)).max(1);
        // As topics come and go the distance between replicas varies, so that no two brokers share all partitions.
        let all: u64 = self.brokers.iter().map(|load| load.replicas).sum();
        let shift = if count == 0 { 0 } else { all as usize % count };
        let mut best: Option<(u128, std::collections::BTreeMap<i32, Vec<BrokerId>>)> = None;
        for step in 0..beginnings {
            // From the emptiest broker on, so that the first of equals is it.
            let index = (self.emptiest() + step) % count.max(1);
            let placed = place(Start { index, shift })?;
            let cost = self.cost(placed.values(), existing);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, placed));
            }
        }
        let (_, placed) = best.ok_or(PlacementError::TooFewBrokers {
            replication_factor,
            available: 0,
        })?;
        let placed: Vec<Vec<BrokerId>> = placed.into_values().collect();
        for replicas in &placed {
            self.note(replicas);
        }
        Ok(placed)
    }

    fn emptiest(&self) -> usize {
        let loads = self.brokers.iter().enumerate();
        let emptiest = loads.min_by_key(|(_, load)| (load.replicas, load.leaders));
        emptiest.map_or(0, |(index, _)| index)
    }

    fn index(&self, id: BrokerId) -> Option<usize> {
        self.brokers
            .binary_search_by_key(&id, |load| load.candidate.id)
            .ok()
    }

    /// How uneven brokers would be: replicas first, leaders as well, the topic's own replicas most.
    fn cost<'a>(
        &self,
        placed: impl Iterator<Item = &'a Vec<BrokerId>>,
        existing: &[Vec<BrokerId>],
    ) -> u128 {
        let mut replicas: Vec<u64> = self.brokers.iter().map(|load| load.replicas).collect();
        let mut leaders: Vec<u64> = self.brokers.iter().map(|load| load.leaders).collect();
        let mut own = vec![0_u64; self.brokers.len()];
        let existing_ids = existing.iter().flatten();
        for index in existing_ids.filter_map(|id| self.index(*id)) {
            own[index] += 1;
        }
        for ids in placed {
            for (position, id) in ids.iter().enumerate() {
                if let Some(index) = self.index(*id) {
                    replicas[index] += 1;
                    own[index] += 1;
                    leaders[index] += u64::from(position == 0);
                }
            }
        }
        let squares =
            |values: &[u64]| -> u128 { values.iter().map(|one| u128::from(*one).pow(2)).sum() };
        squares(&replicas) + squares(&leaders) + 2 * squares(&own)
    }

    fn note(&mut self, replicas: &[BrokerId]) {
        for (position, id) in replicas.iter().enumerate() {
            if let Some(index) = self.index(*id) {
                self.brokers[index].replicas += 1;
                self.brokers[index].leaders += u64::from(position == 0);
            }
        }
    }
}
