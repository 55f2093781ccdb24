//! Throttles under our moves: set before, adapted meanwhile, restored after (KIP-73).
//!
//! Lists of topics name only replicas that move; rates are set on brokers that take part. Lists are set first and
//! removed last, so that a rate that is found without any list is not ours.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use barnabas_core::balance::Move;
use barnabas_core::ids::{BrokerId, TopicName, TopicPartition};

use super::record::{FormerRates, Record, ThrottledReplicas};
use super::settings::MoverSettings;
use crate::admin::{ConfigChanges, ConfigOp, ConfigResource};
use crate::cluster::ClusterView;

pub(super) const LEADER_RATE: &str = "leader.replication.throttled.rate";
pub(super) const FOLLOWER_RATE: &str = "follower.replication.throttled.rate";
pub(super) const LEADER_REPLICAS: &str = "leader.replication.throttled.replicas";
pub(super) const FOLLOWER_REPLICAS: &str = "follower.replication.throttled.replicas";

/// Rates set on a broker itself, not those of its file or of all brokers.
pub type DynamicRates = FormerRates;

/// How fast each broker may go, as it has adapted.
#[derive(Debug, Default)]
pub(super) struct Adaptive {
    rates: BTreeMap<BrokerId, Rate>,
    adapted_at: Option<Duration>,
    /// Replicas that do not move and are out of sync, by live broker, at the last look.
    out_of_sync: BTreeMap<BrokerId, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    is_repair: bool,
    bytes_per_second: u64,
}

impl Adaptive {
    /// The rates of brokers that take part in `moves`.
    pub(super) fn rates<'a>(
        &mut self,
        moves: impl Iterator<Item = &'a Move>,
        view: &ClusterView,
        overloaded: &BTreeSet<BrokerId>,
        settings: &MoverSettings,
        now: Duration,
    ) -> BTreeMap<BrokerId, u64> {
        let mut taking_part: BTreeMap<BrokerId, bool> = BTreeMap::new();
        for one in moves {
            for id in one.from.iter().copied().chain(one.adding()) {
                if view.brokers.contains_key(&id) {
                    *taking_part.entry(id).or_default() |= one.reason.is_repair();
                }
            }
        }
        self.rates.retain(|id, _| taking_part.contains_key(id));
        for (id, is_repair) in taking_part {
            let fresh = Rate {
                is_repair,
                bytes_per_second: base(is_repair, settings),
            };
            let rate = self.rates.entry(id).or_insert(fresh);
            if rate.is_repair != is_repair {
                *rate = fresh;
            }
        }
        self.adapt(view, overloaded, settings, now);
        let rates = self.rates.iter();
        rates
            .map(|(id, rate)| (*id, rate.bytes_per_second))
            .collect()
    }

    /// Additive increase, multiplicative decrease: halves where it hurts, a tenth of the base more elsewhere.
    fn adapt(
        &mut self,
        view: &ClusterView,
        overloaded: &BTreeSet<BrokerId>,
        settings: &MoverSettings,
        now: Duration,
    ) {
        let Some(before) = self.adapted_at.filter(|_| !self.rates.is_empty()) else {
            self.adapted_at = Some(now);
            self.out_of_sync = out_of_sync(view);
            return;
        };
        if now.saturating_sub(before) < settings.throttle_interval {
            return;
        }
        self.adapted_at = Some(now);
        let counts = out_of_sync(view);
        for (id, rate) in &mut self.rates {
            let count = |counts: &BTreeMap<BrokerId, usize>| counts.get(id).copied().unwrap_or(0);
            let hurts = overloaded.contains(id) || count(&counts) > count(&self.out_of_sync);
            let base = base(rate.is_repair, settings);
            rate.bytes_per_second = if hurts {
                (rate.bytes_per_second / 2).max(settings.throttle_min)
            } else {
                // Without a measured network nobody knows the ceiling; four times the base is a careful one.
                (rate.bytes_per_second + base / 10).min(base.saturating_mul(4))
            };
        }
        self.out_of_sync = counts;
    }
}

fn base(is_repair: bool, settings: &MoverSettings) -> u64 {
    if is_repair {
        settings.heal_throttle
    } else {
        settings.throttle
    }
}

/// Replicas on live brokers that ought to be in sync and are not, counted for the broker and for its leader's.
fn out_of_sync(view: &ClusterView) -> BTreeMap<BrokerId, usize> {
    let mut counts = BTreeMap::new();
    for topic in view.topics.values() {
        for found in &topic.partitions {
            if found.isr.len() >= found.replicas.len() {
                continue;
            }
            let id = TopicPartition::new(topic.name.clone(), found.partition);
            if view.reassignments.contains_key(&id) {
                continue;
            }
            let missing = found.replicas.iter().filter(|id| {
                !found.isr.contains(id)
                    && !found.offline.contains(id)
                    && view.brokers.contains_key(id)
            });
            for id in missing.chain(&found.leader) {
                *counts.entry(*id).or_default() += 1;
            }
        }
    }
    counts
}

/// The entries of a list in a topic's overrides.
pub(super) fn entries(view: &ClusterView, topic: &TopicName, key: &str) -> BTreeSet<String> {
    let value = view
        .topics
        .get(topic)
        .and_then(|topic| topic.overrides.get(key));
    let entries = value.map_or("", String::as_str).split(',');
    let entries = entries.map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(str::to_owned).collect()
}

/// What lists have to name for these moves.
fn wanted<'a>(moves: impl Iterator<Item = &'a Move>) -> BTreeMap<TopicName, ThrottledReplicas> {
    let mut wanted: BTreeMap<TopicName, ThrottledReplicas> = BTreeMap::new();
    for one in moves {
        if one.adding().next().is_none() {
            continue;
        }
        let lists = wanted.entry(one.partition.topic.clone()).or_default();
        let entry = |id: BrokerId| format!("{}:{id}", one.partition.partition);
        lists.leader.extend(one.from.iter().copied().map(entry));
        lists.follower.extend(one.adding().map(entry));
    }
    wanted
}

/// What is to be configured before moves begin, and the record that says so. `leftovers` are brokers whose rates may be
/// ours although the record does not say so, as long as that is looked for.
pub(super) fn prepare<'a>(
    record: &mut Record,
    moves: impl Iterator<Item = &'a Move> + Clone,
    rates: &BTreeMap<BrokerId, u64>,
    found: &BTreeMap<BrokerId, DynamicRates>,
    leftovers: Option<&BTreeSet<BrokerId>>,
    view: &ClusterView,
) -> Vec<ConfigChanges> {
    let mut changes = Vec::new();
    for (topic, lists) in wanted(moves) {
        let ours = record.topics.entry(topic.to_string()).or_default();
        let mut ops = Vec::new();
        for (key, wanted, ours) in [
            (LEADER_REPLICAS, &lists.leader, &mut ours.leader),
            (FOLLOWER_REPLICAS, &lists.follower, &mut ours.follower),
        ] {
            let there = entries(view, &topic, key);
            if there.contains("*") {
                // Somebody throttles all of it.
                continue;
            }
            let missing: Vec<String> = wanted.difference(&there).cloned().collect();
            if !missing.is_empty() {
                ops.push((key.to_owned(), ConfigOp::Append(missing.join(","))));
                ours.extend(missing);
            }
            if leftovers.is_some() {
                // Of a life that nobody remembers, most likely for the same move.
                ours.extend(wanted.iter().cloned());
            }
        }
        if !ops.is_empty() {
            changes.push(ConfigChanges {
                resource: ConfigResource::Topic(topic),
                changes: ops,
            });
        }
    }
    record
        .topics
        .retain(|_, lists| !lists.leader.is_empty() || !lists.follower.is_empty());
    for (id, rate) in rates {
        let Some(there) = found.get(id) else {
            continue;
        };
        let is_leftover = leftovers.is_some_and(|leftovers| leftovers.contains(id));
        let former = if is_leftover {
            DynamicRates::default()
        } else {
            there.clone()
        };
        record.brokers.entry(id.0).or_insert(former);
        let text = rate.to_string();
        if there.leader.as_ref() == Some(&text) && there.follower.as_ref() == Some(&text) {
            continue;
        }
        let set = |key: &str| (key.to_owned(), ConfigOp::Set(text.clone()));
        changes.push(ConfigChanges {
            resource: ConfigResource::Broker(*id),
            changes: vec![set(LEADER_RATE), set(FOLLOWER_RATE)],
        });
    }
    changes
}

/// What is to be taken back because nothing of ours moves under it any more. Entries leave the record when they are
/// seen to be gone; brokers that are away keep theirs until they return.
pub(super) fn clean_up<'a>(
    record: &mut Record,
    moves: impl Iterator<Item = &'a Move>,
    rates: &BTreeMap<BrokerId, u64>,
    found: &BTreeMap<BrokerId, DynamicRates>,
    view: &ClusterView,
) -> Vec<ConfigChanges> {
    let mut changes = Vec::new();
    record.brokers.retain(|id, former| {
        let id = BrokerId(*id);
        let Some(there) = found.get(&id) else {
            return true;
        };
        if rates.contains_key(&id) {
            return true;
        }
        let ops = restore(former, there);
        if ops.is_empty() {
            return false;
        }
        changes.push(ConfigChanges {
            resource: ConfigResource::Broker(id),
            changes: ops,
        });
        true
    });
    let wanted = wanted(moves);
    let rates_are_restored = changes.is_empty();
    record.topics.retain(|topic, ours| {
        let topic = TopicName::from(topic.as_str());
        if !view.topics.contains_key(&topic) {
            return false;
        }
        let none = ThrottledReplicas::default();
        let wanted = wanted.get(&topic).unwrap_or(&none);
        let mut ops = Vec::new();
        for (key, ours, wanted) in [
            (LEADER_REPLICAS, &mut ours.leader, &wanted.leader),
            (FOLLOWER_REPLICAS, &mut ours.follower, &wanted.follower),
        ] {
            let there = entries(view, &topic, key);
            ours.retain(|entry| there.contains(entry) || wanted.contains(entry));
            let over: BTreeSet<String> = ours.difference(wanted).cloned().collect();
            if !over.is_empty() && rates_are_restored {
                ops.push((key.to_owned(), removal(&there, &over)));
            }
        }
        if !ops.is_empty() {
            changes.push(ConfigChanges {
                resource: ConfigResource::Topic(topic),
                changes: ops,
            });
        }
        !ours.leader.is_empty() || !ours.follower.is_empty()
    });
    changes
}

/// Takes entries off a list, and the list itself if nothing stays.
fn removal(there: &BTreeSet<String>, over: &BTreeSet<String>) -> ConfigOp {
    if there.is_subset(over) {
        ConfigOp::Delete
    } else {
        let over: Vec<&str> = over.iter().map(String::as_str).collect();
        ConfigOp::Subtract(over.join(","))
    }
}

fn restore(former: &FormerRates, there: &DynamicRates) -> Vec<(String, ConfigOp)> {
    let one = |key: &str, former: &Option<String>, there: &Option<String>| {
        let op = match former {
            Some(value) => ConfigOp::Set(value.clone()),
            None => ConfigOp::Delete,
        };
        (former != there).then(|| (key.to_owned(), op))
    };
    let leader = one(LEADER_RATE, &former.leader, &there.leader);
    let follower = one(FOLLOWER_RATE, &former.follower, &there.follower);
    leader.into_iter().chain(follower).collect()
}

/// Without a record: entries of lists whose partitions do not move, and rates of brokers that nothing moves to or from.
/// `leftovers` are brokers that may have some; those found clean leave it.
pub(super) fn remove_leftovers(
    leftovers: &mut BTreeSet<BrokerId>,
    record: &Record,
    found: &BTreeMap<BrokerId, DynamicRates>,
    view: &ClusterView,
) -> Vec<ConfigChanges> {
    let mut changes = Vec::new();
    let mut busy: BTreeSet<BrokerId> = BTreeSet::new();
    for running in view.reassignments.values() {
        busy.extend(&running.replicas);
    }
    leftovers.retain(|id| {
        let (Some(there), false) = (found.get(id), busy.contains(id)) else {
            return true;
        };
        if record.brokers.contains_key(&id.0) {
            // We use it by now and will remove it.
            return false;
        }
        let ops = restore(&FormerRates::default(), there);
        let is_clean = ops.is_empty();
        if !is_clean {
            changes.push(ConfigChanges {
                resource: ConfigResource::Broker(*id),
                changes: ops,
            });
        }
        !is_clean
    });
    if !changes.is_empty() {
        // Rates first: lists are how leftovers are told from what somebody set on purpose.
        return changes;
    }
    for name in view.topics.keys() {
        let mut ops = Vec::new();
        for key in [LEADER_REPLICAS, FOLLOWER_REPLICAS] {
            let there = entries(view, name, key);
            let is_over = |entry: &&String| {
                let partition = entry.split(':').next().and_then(|text| text.parse().ok());
                let of_ours = record.topics.get(&**name).is_some_and(|ours| {
                    ours.leader.contains(*entry) || ours.follower.contains(*entry)
                });
                partition.is_some_and(|partition| {
                    let partition = TopicPartition::new(name.clone(), partition);
                    !of_ours && !view.reassignments.contains_key(&partition)
                })
            };
            let over: BTreeSet<String> = there.iter().filter(is_over).cloned().collect();
            if !over.is_empty() {
                ops.push((key.to_owned(), removal(&there, &over)));
            }
        }
        if !ops.is_empty() {
            changes.push(ConfigChanges {
                resource: ConfigResource::Topic(name.clone()),
                changes: ops,
            });
        }
    }
    changes
}

/// Whether any topic has a throttle list.
pub(super) fn has_lists(view: &ClusterView) -> bool {
    view.topics.values().any(|topic| {
        topic.overrides.contains_key(LEADER_REPLICAS)
            || topic.overrides.contains_key(FOLLOWER_REPLICAS)
    })
}
