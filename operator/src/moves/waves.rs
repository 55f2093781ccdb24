//! Which moves may begin now: limits per broker and altogether, room on disks, no partition below its min ISR.

use std::collections::BTreeMap;

use barnabas_core::balance::Move;
use barnabas_core::ids::BrokerId;

use super::settings::MoverSettings;
use crate::cluster::ClusterView;

/// What is under way already, whoever began it.
pub(super) struct Load<'a> {
    view: &'a ClusterView,
    settings: &'a MoverSettings,
    moves: usize,
    into: BTreeMap<BrokerId, usize>,
    out_of: BTreeMap<BrokerId, usize>,
    /// Bytes that disks have yet to take.
    incoming: BTreeMap<BrokerId, u64>,
    /// Changes of order and removals, which cost nothing but leadership.
    reorders: usize,
    reorders_of: BTreeMap<BrokerId, usize>,
}

/// Why a move does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Others have to finish first.
    Capacity,
    /// A disk would be too full with both copies.
    Disk,
    /// Fewer replicas than have to be in sync.
    MinIsr,
    /// The partition is not what was planned with.
    Stale,
}

impl<'a> Load<'a> {
    /// Counts what runs.
    pub(super) fn new(view: &'a ClusterView, settings: &'a MoverSettings) -> Self {
        let mut load = Self {
            view,
            settings,
            moves: 0,
            into: BTreeMap::new(),
            out_of: BTreeMap::new(),
            incoming: BTreeMap::new(),
            reorders: 0,
            reorders_of: BTreeMap::new(),
        };
        for (partition, running) in &view.reassignments {
            if running.adding.is_empty() {
                continue;
            }
            load.moves += 1;
            let bytes = view.bytes(partition);
            for id in &running.adding {
                *load.into.entry(*id).or_default() += 1;
                let there = view.bytes_on(*id, partition).unwrap_or(0);
                *load.incoming.entry(*id).or_default() += bytes.saturating_sub(there);
            }
            if let Some(leader) = view.partition(partition).and_then(|one| one.leader) {
                *load.out_of.entry(leader).or_default() += 1;
            }
        }
        load
    }

    /// How many reassignments run.
    pub(super) fn is_full(&self) -> bool {
        self.moves >= self.settings.moves_max
    }

    /// Takes a move among those that run, or says what it waits for.
    pub(super) fn admit(&mut self, one: &Move) -> Result<(), Wait> {
        let found = self.view.partition(&one.partition).ok_or(Wait::Stale)?;
        if found.replicas != one.from || self.view.reassignments.contains_key(&one.partition) {
            return Err(Wait::Stale);
        }
        let topic = self.view.topics.get(&one.partition.topic);
        let min_isr = topic.map_or(1, |topic| topic.min_insync_replicas);
        // Kafka removes replicas only when all of the target are in sync, so the target is what counts.
        if (one.to.len() as i64) < i64::from(min_isr) && one.to.len() < one.from.len() {
            return Err(Wait::MinIsr);
        }
        let adding: Vec<BrokerId> = one.adding().collect();
        if adding.is_empty() {
            return self.admit_reorder(one);
        }
        if self.is_full() {
            return Err(Wait::Capacity);
        }
        let bytes = one.bytes / adding.len() as u64;
        let settings = self.settings;
        let count = |counts: &BTreeMap<BrokerId, usize>, id: &BrokerId| {
            counts.get(id).copied().unwrap_or(0)
        };
        let has_turn = adding
            .iter()
            .all(|id| count(&self.into, id) < settings.moves_in_max)
            && found
                .leader
                .is_none_or(|leader| count(&self.out_of, &leader) < settings.moves_out_max);
        if !has_turn {
            return Err(Wait::Capacity);
        }
        if !adding.iter().all(|id| self.has_room(*id, bytes)) {
            return Err(Wait::Disk);
        }
        self.moves += 1;
        for id in adding {
            *self.into.entry(id).or_default() += 1;
            *self.incoming.entry(id).or_default() += bytes;
        }
        if let Some(leader) = found.leader {
            *self.out_of.entry(leader).or_default() += 1;
        }
        Ok(())
    }

    fn admit_reorder(&mut self, one: &Move) -> Result<(), Wait> {
        let preferred = one.to.first().copied().ok_or(Wait::Stale)?;
        let of_broker = self.reorders_of.entry(preferred).or_default();
        if self.reorders >= self.settings.elections_max
            || *of_broker >= self.settings.elections_per_broker_max
        {
            return Err(Wait::Capacity);
        }
        self.reorders += 1;
        *of_broker += 1;
        Ok(())
    }

    /// Whether a disk stays below its limit with everything that is on its way, nothing having left yet.
    fn has_room(&self, id: BrokerId, bytes: u64) -> bool {
        let Some(dirs) = self.view.log_dirs.get(&id) else {
            return true;
        };
        let (Some(total), Some(usable)) = (dirs.total_bytes, dirs.usable_bytes) else {
            return true;
        };
        let incoming = self.incoming.get(&id).copied().unwrap_or(0);
        let used = total.saturating_sub(usable) + incoming + bytes;
        bytes == 0 || used <= total / 100 * self.settings.planner.disk_used_percent_max
    }
}
