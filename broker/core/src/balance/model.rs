//! The snapshot in dense arrays: everything that a choice depends on is an index or a sum that is up to date.

use std::collections::{BTreeMap, BTreeSet};

use super::snapshot::{
    BrokerRole, Move, Plan, RackSpread, Rates, Reason, Settings, Snapshot, Stuck, StuckCause,
};
use crate::ids::{BrokerId, TopicPartition};

/// Index of a broker in [`Model::brokers`].
pub(super) type B = u16;

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: BrokerId,
    pub(super) rack: u16,
    pub(super) role: BrokerRole,
    pub(super) replicas: i64,
    pub(super) bytes: i64,
    /// Partitions whose preferred leader it is.
    pub(super) leaders: i64,
    pub(super) leader_in: i64,
    pub(super) leader_out: i64,
    disk_used: i64,
    /// How much may be used.
    disk_limit: Option<i64>,
}

impl Row {
    pub(super) fn is_member(&self) -> bool {
        self.role == BrokerRole::Member
    }
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) topic: u32,
    pub(super) id: TopicPartition,
    pub(super) replicas: Vec<B>,
    original: Vec<B>,
    /// In-sync replicas on brokers that are not lost.
    pub(super) live_isr: usize,
    pub(super) is_below_min_isr: bool,
    pub(super) has_leader: bool,
    /// All replicas in sync and on live brokers: only such partitions are moved for the sake of balance.
    pub(super) is_healthy: bool,
    pub(super) pinned: bool,
    pub(super) failed_disks: Vec<B>,
    avoid: Vec<B>,
    pub(super) rack_spread: RackSpread,
    pub(super) bytes: i64,
    pub(super) rates: Option<Rates>,
    /// The first reason to move it.
    reason: Option<Reason>,
}

pub(super) struct Model<'a> {
    pub(super) settings: &'a Settings,
    /// By id.
    pub(super) brokers: Vec<Row>,
    /// Indexes of members.
    pub(super) members: Vec<B>,
    pub(super) racks: usize,
    /// By topic and number.
    pub(super) parts: Vec<Part>,
    /// Where each topic begins in `parts`, and the end.
    pub(super) topic_starts: Vec<u32>,
    /// Replicas of a topic on a broker: `topic * brokers + broker`.
    topic_counts: Vec<u32>,
    /// Partitions on each broker, in no particular order.
    pub(super) hosted: Vec<Vec<u32>>,
    pub(super) stuck: Vec<Stuck>,
}

impl<'a> Model<'a> {
    pub(super) fn new(snapshot: &Snapshot, settings: &'a Settings) -> Self {
        let brokers = rows(snapshot, settings);
        let index: BTreeMap<BrokerId, B> = brokers.iter().map(|row| row.id).zip(0..).collect();
        let mut order: Vec<usize> = (0..snapshot.partitions.len()).collect();
        order.sort_by(|a, b| snapshot.partitions[*a].id.cmp(&snapshot.partitions[*b].id));
        order.dedup_by(|a, b| snapshot.partitions[*a].id == snapshot.partitions[*b].id);
        let mut parts: Vec<Part> = Vec::with_capacity(order.len());
        let mut topic_starts: Vec<u32> = Vec::new();
        for from in order {
            let from = &snapshot.partitions[from];
            let is_new = parts
                .last()
                .is_none_or(|last: &Part| last.id.topic != from.id.topic);
            if is_new {
                topic_starts.push(parts.len() as u32);
            }
            let dense = |ids: &[BrokerId]| -> Vec<B> {
                ids.iter().filter_map(|id| index.get(id).copied()).collect()
            };
            let mut replicas = dense(&from.replicas);
            // A replica list with a broker twice is nobody's; keep the first.
            let mut seen = BTreeSet::new();
            replicas.retain(|broker| seen.insert(*broker));
            let isr = dense(&from.isr);
            let is_live = |broker: &B| {
                !matches!(
                    brokers[usize::from(*broker)].role,
                    BrokerRole::Lost | BrokerRole::Away
                )
            };
            let live_isr = isr.iter().filter(|broker| is_live(broker)).count();
            parts.push(Part {
                topic: topic_starts.len() as u32 - 1,
                id: from.id.clone(),
                original: replicas.clone(),
                live_isr,
                is_below_min_isr: live_isr < from.min_insync_replicas as usize,
                has_leader: from.leader.is_some() && live_isr > 0,
                is_healthy: from.leader.is_some()
                    && from.on_failed_disks.is_empty()
                    && replicas
                        .iter()
                        .all(|broker| is_live(broker) && isr.contains(broker)),
                pinned: from.pinned,
                failed_disks: dense(&from.on_failed_disks),
                avoid: dense(&from.avoid),
                rack_spread: from.rack_spread,
                bytes: i64::try_from(from.bytes).unwrap_or(i64::MAX / 4),
                rates: from.rates,
                reason: None,
                replicas,
            });
        }
        topic_starts.push(parts.len() as u32);
        let members = (0..).zip(&brokers).filter(|(_, row)| row.is_member());
        let members: Vec<B> = members.map(|(broker, _)| broker).collect();
        let racks = brokers.iter().map(|row| row.rack).max();
        let mut model = Self {
            settings,
            racks: racks.map_or(0, |rack| usize::from(rack) + 1),
            members,
            topic_counts: vec![0; (topic_starts.len() - 1) * brokers.len()],
            hosted: vec![Vec::new(); brokers.len()],
            topic_starts,
            brokers,
            parts,
            stuck: Vec::new(),
        };
        for part in 0..model.parts.len() {
            for position in 0..model.parts[part].replicas.len() {
                let broker = model.parts[part].replicas[position];
                model.count(part, broker, 1);
                model.hosted[usize::from(broker)].push(part as u32);
                if position == 0 {
                    model.count_leader(part, broker, 1);
                }
            }
        }
        model
    }

    pub(super) fn row(&self, broker: B) -> &Row {
        &self.brokers[usize::from(broker)]
    }

    pub(super) fn topic_count(&self, topic: u32, broker: B) -> u32 {
        self.topic_counts[topic as usize * self.brokers.len() + usize::from(broker)]
    }

    pub(super) fn has_rates(&self) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(|part| part.rates.is_some())
    }

    /// Replicas of `part` in `rack`.
    pub(super) fn in_rack(&self, part: usize, rack: u16) -> usize {
        let replicas = self.parts[part].replicas.iter();
        replicas.filter(|one| self.row(**one).rack == rack).count()
    }

    /// Whether a replica may go from one broker to another without making racks less even.
    pub(super) fn keeps_racks(&self, part: usize, from: B, to: B) -> bool {
        let (from, to) = (self.row(from).rack, self.row(to).rack);
        from == to || self.in_rack(part, to) < self.in_rack(part, from)
    }

    /// Why `to` cannot take a replica of `part` besides those it has, leaving out `instead_of`.
    pub(super) fn refusal(&self, part: usize, to: B, instead_of: Option<B>) -> Option<StuckCause> {
        let row = self.row(to);
        let found = &self.parts[part];
        if !row.is_member()
            || found.replicas.contains(&to)
            || found.failed_disks.contains(&to)
            || found.avoid.contains(&to)
        {
            return Some(StuckCause::NoBroker);
        }
        if found.rack_spread == RackSpread::Required {
            let mut others = found.replicas.iter();
            if others.any(|one| Some(*one) != instead_of && self.row(*one).rack == row.rack) {
                return Some(StuckCause::NoRack);
            }
        }
        (!self.has_room(to, found.bytes)).then_some(StuckCause::NoRoom)
    }

    /// Whether a broker can hold one more replica of this size.
    pub(super) fn has_room(&self, to: B, bytes: i64) -> bool {
        let row = self.row(to);
        let fits = row
            .disk_limit
            .is_none_or(|limit| row.disk_used.saturating_add(bytes) <= limit);
        fits && row.replicas < i64::from(self.settings.replicas_per_broker_max)
    }

    /// Puts a replica onto `to` in the place of that on `from`.
    pub(super) fn replace(&mut self, part: usize, from: B, to: B, reason: Reason) {
        let replicas = &mut self.parts[part].replicas;
        let position = replicas.iter().position(|one| *one == from);
        let position = position.expect("it has a replica there");
        replicas[position] = to;
        self.count(part, from, -1);
        self.count(part, to, 1);
        if position == 0 {
            self.count_leader(part, from, -1);
            self.count_leader(part, to, 1);
        }
        let hosted = &mut self.hosted[usize::from(from)];
        let at = hosted.iter().position(|one| *one == part as u32);
        hosted.swap_remove(at.expect("it is hosted there"));
        self.hosted[usize::from(to)].push(part as u32);
        self.parts[part].reason.get_or_insert(reason);
    }

    /// One more replica, last in the list.
    pub(super) fn add(&mut self, part: usize, to: B, reason: Reason) {
        self.parts[part].replicas.push(to);
        self.count(part, to, 1);
        let bytes = self.parts[part].bytes;
        self.brokers[usize::from(to)].disk_used += bytes;
        self.hosted[usize::from(to)].push(part as u32);
        self.parts[part].reason.get_or_insert(reason);
    }

    /// One replica less; the next one in the list is preferred if it was the first.
    pub(super) fn remove(&mut self, part: usize, from: B, reason: Reason) {
        let first = self.parts[part].replicas[0];
        self.parts[part].replicas.retain(|one| *one != from);
        self.count(part, from, -1);
        let bytes = self.parts[part].bytes;
        self.brokers[usize::from(from)].disk_used -= bytes;
        self.hosted[usize::from(from)].retain(|one| *one != part as u32);
        if first == from {
            self.count_leader(part, from, -1);
            let next = self.parts[part].replicas[0];
            self.count_leader(part, next, 1);
        }
        self.parts[part].reason.get_or_insert(reason);
    }

    /// Makes `to`, which has a replica, the preferred leader, by trading places with the first one.
    pub(super) fn prefer(&mut self, part: usize, to: B, reason: Reason) {
        let replicas = &mut self.parts[part].replicas;
        let position = replicas.iter().position(|one| *one == to);
        let from = replicas[0];
        replicas.swap(0, position.expect("it has a replica there"));
        self.count_leader(part, from, -1);
        self.count_leader(part, to, 1);
        self.parts[part].reason.get_or_insert(reason);
    }

    fn count(&mut self, part: usize, broker: B, sign: i64) {
        let (topic, bytes) = (self.parts[part].topic, self.parts[part].bytes);
        let row = &mut self.brokers[usize::from(broker)];
        row.replicas += sign;
        row.bytes += sign * bytes;
        let at = topic as usize * self.brokers.len() + usize::from(broker);
        self.topic_counts[at] = self.topic_counts[at].saturating_add_signed(sign as i32);
    }

    fn count_leader(&mut self, part: usize, broker: B, sign: i64) {
        let rates = self.parts[part].rates;
        let row = &mut self.brokers[usize::from(broker)];
        row.leaders += sign;
        if let Some(rates) = rates {
            row.leader_in += sign * rates.bytes_in as i64;
            row.leader_out += sign * rates.bytes_out as i64;
        }
    }

    /// Disks fill while sums of replicas change: what is taken and given since the snapshot.
    pub(super) fn moved_bytes(&mut self, from: B, to: B, bytes: i64) {
        self.brokers[usize::from(from)].disk_used -= bytes;
        self.brokers[usize::from(to)].disk_used += bytes;
    }

    /// Whether anything may be moved for the sake of balance.
    pub(super) fn is_movable(&self, part: usize) -> bool {
        let part = &self.parts[part];
        part.is_healthy && !part.pinned
    }

    /// Copies and where they go, so far.
    pub(super) fn changes(&self, part: usize) -> usize {
        let part = &self.parts[part];
        let new = part.replicas.iter();
        new.filter(|one| !part.original.contains(one)).count()
    }

    /// Whether racks of a partition could be more even: a rack has two more than one with a member free to take it.
    pub(super) fn uneven_racks(&self, part: usize) -> bool {
        let replicas = &self.parts[part].replicas;
        let most = replicas
            .iter()
            .map(|one| self.in_rack(part, self.row(*one).rack))
            .max()
            .unwrap_or(0);
        most >= 2
            && self.members.iter().any(|to| {
                !replicas.contains(to) && self.in_rack(part, self.row(*to).rack) + 2 <= most
            })
    }

    /// Used bytes beyond what is allowed.
    pub(super) fn is_too_full(&self, broker: B) -> bool {
        let row = self.row(broker);
        row.disk_limit.is_some_and(|limit| row.disk_used > limit)
    }

    /// What differs from the snapshot now.
    pub(super) fn into_plan(self) -> Plan {
        let ids = |brokers: &[B]| -> Vec<BrokerId> {
            brokers.iter().map(|one| self.row(*one).id).collect()
        };
        let changed = self.parts.iter().enumerate();
        let changed = changed.filter(|(_, part)| part.replicas != part.original);
        let mut moves: Vec<Move> = changed
            .map(|(index, part)| Move {
                partition: part.id.clone(),
                from: ids(&part.original),
                to: ids(&part.replicas),
                reason: part.reason.unwrap_or(Reason::LoadBalance),
                bytes: part.bytes as u64 * self.changes(index) as u64,
                live_isr: part.live_isr,
            })
            .collect();
        moves.sort_by(|a, b| {
            let urgency = |one: &Move| {
                // Balance does not distinguish how safe partitions are: all of them are.
                let isr = if one.reason.is_repair() {
                    one.live_isr
                } else {
                    0
                };
                (one.reason, isr, one.bytes)
            };
            urgency(a)
                .cmp(&urgency(b))
                .then_with(|| a.partition.cmp(&b.partition))
        });
        Plan {
            moves,
            stuck: self.stuck,
        }
    }
}

/// Listed brokers and those that only replicas tell of, by id.
fn rows(snapshot: &Snapshot, settings: &Settings) -> Vec<Row> {
    let mut listed: BTreeMap<BrokerId, Option<&super::snapshot::Broker>> = BTreeMap::new();
    for partition in &snapshot.partitions {
        for id in &partition.replicas {
            listed.insert(*id, None);
        }
    }
    for broker in &snapshot.brokers {
        listed.insert(broker.id, Some(broker));
    }
    let racks: BTreeSet<&Option<String>> =
        snapshot.brokers.iter().map(|broker| &broker.rack).collect();
    let racks: BTreeMap<&Option<String>, u16> = racks.into_iter().zip(0..).collect();
    // In a rack of its own, since nothing is known: it is in nobody's way.
    let unknown = racks.len() as u16;
    let row = |(id, broker): (BrokerId, Option<&super::snapshot::Broker>)| {
        let disk = broker.and_then(|broker| broker.disk);
        let as_i64 = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX / 4);
        Row {
            id,
            rack: broker.map_or(unknown, |broker| racks[&broker.rack]),
            role: broker.map_or(BrokerRole::Keep, |broker| broker.role),
            replicas: 0,
            bytes: 0,
            leaders: 0,
            leader_in: 0,
            leader_out: 0,
            disk_used: disk.map_or(0, |disk| as_i64(disk.used_bytes)),
            disk_limit: disk
                .map(|disk| as_i64(disk.total_bytes / 100 * settings.disk_used_percent_max)),
        }
    };
    listed.into_iter().map(row).collect()
}
