//! Clusters that follow from a seed.

use std::collections::BTreeMap;

use rand::seq::SliceRandom as _;
use rand::{Rng as _, RngCore};

use crate::balance::{Broker, BrokerRole, Disk, Partition, Plan, RackSpread, Rates, Snapshot};
use crate::ids::{BrokerId, TopicPartition};

/// Sebastiano Vigna's `SplitMix64`: good enough to vary shapes.
pub(super) struct SplitMix(u64);

impl RngCore for SplitMix {
    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }
}

pub(super) fn rng(seed: u64) -> SplitMix {
    SplitMix(seed)
}

/// Up to nine brokers in up to four racks, some dead, draining or unknown; topics placed without any care.
pub(super) fn cluster(seed: u64) -> Snapshot {
    let mut random = rng(seed);
    let count = random.random_range(1..10);
    let racks = random.random_range(0..5);
    let with_disks = random.random_bool(0.3);
    let troubled = random.random_bool(0.5);
    let mut brokers: Vec<Broker> = (0..count)
        .map(|id| Broker {
            id: BrokerId(id * 3 + 1),
            rack: (racks > 0).then(|| format!("rack{}", random.random_range(0..racks))),
            role: if troubled {
                match random.random_range(0..12) {
                    0 => BrokerRole::Lost,
                    1 => BrokerRole::Away,
                    2 => BrokerRole::Keep,
                    3 => BrokerRole::Drain,
                    _ => BrokerRole::Member,
                }
            } else {
                BrokerRole::Member
            },
            disk: None,
        })
        .collect();
    let roles: BTreeMap<BrokerId, BrokerRole> = brokers
        .iter()
        .map(|broker| (broker.id, broker.role))
        .collect();
    let has_rates = random.random_bool(0.5);
    let mut partitions = Vec::new();
    for topic in 0..random.random_range(0..8) {
        let factor = random.random_range(1..=3.min(count as usize));
        let min_isr = random.random_range(1..=factor as u32);
        for partition in 0..random.random_range(1..14) {
            let mut ids: Vec<BrokerId> = roles.keys().copied().collect();
            ids.shuffle(&mut random);
            ids.truncate(factor);
            let is_alive =
                |id: &BrokerId| !matches!(roles[id], BrokerRole::Lost | BrokerRole::Away);
            let mut isr: Vec<BrokerId> = ids.iter().copied().filter(is_alive).collect();
            if troubled && random.random_bool(0.1) {
                isr.truncate(1);
            }
            let failed = troubled && random.random_bool(0.03);
            let on_failed_disks = if failed {
                ids[..1].to_vec()
            } else {
                Vec::new()
            };
            isr.retain(|id| !on_failed_disks.contains(id));
            partitions.push(Partition {
                id: TopicPartition::new(format!("t{topic}"), partition),
                leader: isr.first().copied(),
                isr,
                min_insync_replicas: min_isr,
                bytes: random.random_range(0..1000),
                rates: has_rates.then(|| Rates {
                    bytes_in: random.random_range(0..1000),
                    bytes_out: random.random_range(0..3000),
                }),
                on_failed_disks,
                avoid: Vec::new(),
                rack_spread: if random.random_bool(0.1) {
                    RackSpread::Required
                } else {
                    RackSpread::Preferred
                },
                pinned: random.random_bool(0.05),
                replicas: ids,
            });
        }
    }
    if with_disks {
        for broker in &mut brokers {
            let hosted = partitions
                .iter()
                .filter(|partition| partition.replicas.contains(&broker.id));
            let used_bytes: u64 = hosted.map(|partition| partition.bytes).sum();
            broker.disk = Some(Disk {
                total_bytes: random.random_range(1000..40_000).max(used_bytes),
                used_bytes,
            });
        }
    }
    Snapshot {
        brokers,
        partitions,
    }
}

/// The same with all brokers alive and all replicas in sync.
pub(super) fn healthy(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for broker in &mut snapshot.brokers {
        broker.role = BrokerRole::Member;
    }
    in_sync(&snapshot)
}

/// The same with all replicas in sync, whatever brokers are.
pub(super) fn in_sync(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for partition in &mut snapshot.partitions {
        partition.isr.clone_from(&partition.replicas);
        partition.leader = partition.replicas.first().copied();
        partition.on_failed_disks.clear();
    }
    snapshot
}

/// Brokers from 1 on without racks, the topic `t` placed evenly and in sync.
pub(super) fn even(brokers: usize, factor: usize, partitions: usize) -> Snapshot {
    let at = |partition: usize, position: usize| {
        let round = partition / brokers % (brokers - 1).max(1);
        let step = if position == 0 {
            0
        } else {
            1 + (round + position - 1) % (brokers - 1)
        };
        BrokerId(((partition + step) % brokers) as i32 + 1)
    };
    Snapshot {
        brokers: (1..=brokers as i32)
            .map(|id| Broker {
                id: BrokerId(id),
                rack: None,
                role: BrokerRole::Member,
                disk: None,
            })
            .collect(),
        partitions: (0..partitions)
            .map(|partition| {
                let replicas: Vec<BrokerId> = (0..factor)
                    .map(|position| at(partition, position))
                    .collect();
                Partition {
                    id: TopicPartition::new("t", partition as i32),
                    isr: replicas.clone(),
                    leader: Some(replicas[0]),
                    min_insync_replicas: 1,
                    bytes: 100,
                    rates: None,
                    on_failed_disks: Vec::new(),
                    avoid: Vec::new(),
                    rack_spread: RackSpread::Preferred,
                    pinned: false,
                    replicas,
                }
            })
            .collect(),
    }
}

/// Makes one broker of a healthy cluster lost, as long as partitions have others; who it is.
pub(super) fn lose_one(snapshot: &mut Snapshot, seed: u64) -> Option<BrokerId> {
    if snapshot
        .brokers
        .iter()
        .any(|broker| broker.role == BrokerRole::Lost)
    {
        return None;
    }
    let index = rng(seed).random_range(0..snapshot.brokers.len());
    let lost = snapshot.brokers[index].id;
    snapshot.brokers[index].role = BrokerRole::Lost;
    for partition in &mut snapshot.partitions {
        partition.isr.retain(|id| *id != lost);
        partition.leader = partition.isr.first().copied();
    }
    Some(lost)
}

/// The cluster when a plan is done: what moved is in sync, and disks hold what they were given.
pub(super) fn apply(snapshot: &Snapshot, plan: &Plan) -> Snapshot {
    let mut done = snapshot.clone();
    for one in &plan.moves {
        let partitions = done.partitions.iter_mut();
        let mut partitions = partitions.filter(|partition| partition.id == one.partition);
        let partition = partitions.next().unwrap();
        let bytes = partition.bytes;
        partition.replicas.clone_from(&one.to);
        partition.isr.retain(|id| one.to.contains(id));
        partition.isr.extend(one.adding());
        partition.on_failed_disks.retain(|id| one.to.contains(id));
        if partition
            .leader
            .is_none_or(|id| !partition.isr.contains(&id))
        {
            partition.leader = partition.isr.first().copied();
        }
        for broker in &mut done.brokers {
            if let Some(disk) = &mut broker.disk {
                if one.adding().any(|id| id == broker.id) {
                    disk.used_bytes += bytes;
                }
                if one.removing().any(|id| id == broker.id) {
                    disk.used_bytes -= bytes;
                }
            }
        }
    }
    done
}
