//! Evening out: one goal after the other, each within its band, none at the cost of an earlier one.
//!
//! Each step takes a broker outside the band and, in this order, hands leadership over (no bytes), moves a replica, or
//! swaps two. It is accepted only if the goal's variance falls and earlier goals stay as good as they are. What
//! is tried depends on the state alone, so the state in which nothing is accepted is one that a later plan leaves alone.

use super::model::{B, Model};
use super::snapshot::{Limits, Reason};

/// Largest and smallest replicas that are tried as partners of a swap.
const SWAP_CANDIDATES: usize = 32;
/// After so many times through all goals the plan is as good as it gets.
const ROUNDS_MAX: usize = 32;

/// How much may still be moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    moves: usize,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            moves: limits.moves,
            bytes: limits.bytes,
        }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.moves == 0
    }

    pub(super) fn allows(&self, bytes: i64) -> bool {
        self.moves > 0 && bytes as u64 <= self.bytes
    }

    pub(super) fn spend(&mut self, bytes: i64) {
        self.moves = self.moves.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}

/// What a broker's value may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub(super) low: i64,
    pub(super) high: i64,
}

/// A tolerance around the mean, and never narrower than the two whole numbers around it.
pub(super) fn count_band(total: i64, count: i64, tolerance_percent: u64) -> Band {
    let (total, count) = (i128::from(total), i128::from(count.max(1)));
    let tolerance = i128::from(tolerance_percent);
    let low = (total * (100 - tolerance)).div_euclid(count * 100);
    let low_up = if low * count * 100 == total * (100 - tolerance) {
        low
    } else {
        low + 1
    };
    let high = total * (100 + tolerance) / (count * 100);
    let floor = total.div_euclid(count);
    let ceil = floor + i128::from(total % count != 0);
    Band {
        low: low_up.min(floor) as i64,
        high: high.max(ceil) as i64,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Replicas,
    TopicSpread,
    Bytes,
    Leaders,
    LeaderIn,
    LeaderOut,
}

pub(super) const GOALS: [Goal; 6] = [
    Goal::Replicas,
    Goal::TopicSpread,
    Goal::Bytes,
    Goal::Leaders,
    Goal::LeaderIn,
    Goal::LeaderOut,
];

/// One step.
#[derive(Clone, Copy, Debug)]
struct Change {
    part: usize,
    from: B,
    to: B,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lead,
    Move,
    /// With a replica of this other partition, which goes the other way.
    Swap(usize),
}

/// Moves for the sake of balance.
pub(super) fn balance(model: &mut Model<'_>, budget: &mut Budget) {
    if model.members.len() < 2 {
        return;
    }
    relieve_full_disks(model, budget);
    for _ in 0..ROUNDS_MAX {
        let mut accepted = false;
        for (index, goal) in GOALS.iter().enumerate() {
            accepted |= match goal {
                Goal::TopicSpread => spread_topics(model, budget),
                Goal::LeaderIn | Goal::LeaderOut if !model.has_rates() => false,
                _ => improve(model, index, budget),
            };
        }
        if !accepted || budget.is_spent() {
            break;
        }
    }
}

/// The value of a goal on a broker.
pub(super) fn value(model: &Model<'_>, goal: Goal, broker: B) -> i64 {
    let row = model.row(broker);
    match goal {
        Goal::Replicas | Goal::TopicSpread => row.replicas,
        Goal::Bytes => row.bytes,
        Goal::Leaders => row.leaders,
        Goal::LeaderIn => row.leader_in,
        Goal::LeaderOut => row.leader_out,
    }
}

/// What members' values may be.
pub(super) fn band(model: &Model<'_>, goal: Goal) -> Band {
    let members = model.members.iter();
    let total = members.map(|one| value(model, goal, *one)).sum();
    let tolerance = match goal {
        Goal::LeaderIn | Goal::LeaderOut => model.settings.rate_tolerance_percent,
        Goal::Replicas | Goal::TopicSpread | Goal::Bytes | Goal::Leaders => {
            model.settings.tolerance_percent
        }
    };
    count_band(total, model.members.len() as i64, tolerance)
}

/// How much of a goal's value a change takes from one broker to the other.
fn weight(model: &Model<'_>, goal: Goal, change: Change) -> i64 {
    let of = |part: usize, leads: bool, moves: bool| {
        let part = &model.parts[part];
        let rate = |pick: fn(&super::snapshot::Rates) -> u64| {
            part.rates.as_ref().map_or(0, |rates| pick(rates) as i64)
        };
        match goal {
            Goal::Replicas | Goal::TopicSpread => i64::from(moves),
            Goal::Bytes => part.bytes * i64::from(moves),
            Goal::Leaders => i64::from(leads),
            Goal::LeaderIn => rate(|rates| rates.bytes_in) * i64::from(leads),
            Goal::LeaderOut => rate(|rates| rates.bytes_out) * i64::from(leads),
        }
    };
    let leads = |part: usize, broker: B| model.parts[part].replicas[0] == broker;
    match change.kind {
        Kind::Lead => of(change.part, true, false),
        Kind::Move => of(change.part, leads(change.part, change.from), true),
        Kind::Swap(other) => {
            of(change.part, leads(change.part, change.from), true)
                - of(other, leads(other, change.to), true)
        }
    }
}

/// Whether goals before `index` stay as good as they are.
fn keeps_earlier(model: &Model<'_>, index: usize, bands: &[Band], change: Change) -> bool {
    GOALS[..index].iter().zip(bands).all(|(goal, band)| {
        if *goal == Goal::TopicSpread {
            return keeps_topics(model, change);
        }
        let weight = weight(model, *goal, change);
        let (giver, taker, weight) = if weight >= 0 {
            (change.from, change.to, weight)
        } else {
            (change.to, change.from, -weight)
        };
        weight == 0
            || (value(model, *goal, giver) - weight >= band.low
                && value(model, *goal, taker) + weight <= band.high)
    })
}

fn keeps_topics(model: &Model<'_>, change: Change) -> bool {
    let keeps = |part: usize, from: B, to: B| {
        let topic = model.parts[part].topic;
        !is_spread(model, topic) || keeps_topic(model, topic, from, to)
    };
    match change.kind {
        Kind::Lead => true,
        Kind::Move => keeps(change.part, change.from, change.to),
        Kind::Swap(other) => {
            model.parts[change.part].topic == model.parts[other].topic
                || (keeps(change.part, change.from, change.to)
                    && keeps(other, change.to, change.from))
        }
    }
}

/// Whether a topic is large enough to be on every broker.
fn is_spread(model: &Model<'_>, topic: u32) -> bool {
    let topic = topic as usize;
    let partitions = model.topic_starts[topic + 1] - model.topic_starts[topic];
    partitions as usize >= model.members.len()
}

/// Whether a topic is no less even within racks if a replica goes from one broker to another.
fn keeps_topic(model: &Model<'_>, topic: u32, from: B, to: B) -> bool {
    let given = model.topic_count(topic, from);
    let taken = model.topic_count(topic, to);
    if model.row(from).rack == model.row(to).rack {
        return taken < given;
    }
    let others = |broker: B| {
        let rack = model.row(broker).rack;
        let members = model.members.iter().copied();
        members
            .filter(move |one| *one != broker && model.row(*one).rack == rack)
            .map(|one| model.topic_count(topic, one))
    };
    others(from).max().is_none_or(|most| most < given + 1)
        && others(to).min().is_none_or(|least| taken < least + 1)
}

/// Whether racks, disks and duplicates allow it, and both partitions may be moved.
fn is_allowed(model: &Model<'_>, change: Change) -> bool {
    let Change {
        part,
        from,
        to,
        kind,
    } = change;
    let fits = |part: usize, from: B, to: B| {
        model.is_movable(part)
            && model.keeps_racks(part, from, to)
            && model.refusal(part, to, Some(from)).is_none()
    };
    match kind {
        Kind::Lead => model.is_movable(part),
        Kind::Move => fits(part, from, to),
        Kind::Swap(other) => fits(part, from, to) && fits(other, to, from),
    }
}

fn apply(model: &mut Model<'_>, change: Change, budget: &mut Budget) {
    let Change {
        part,
        from,
        to,
        kind,
    } = change;
    let mut replace = |part: usize, from: B, to: B| {
        let bytes = model.parts[part].bytes;
        model.replace(part, from, to, Reason::LoadBalance);
        model.moved_bytes(from, to, bytes);
        budget.spend(bytes);
    };
    match kind {
        Kind::Lead => {
            model.prefer(part, to, Reason::LoadBalance);
            budget.spend(0);
        }
        Kind::Move => replace(part, from, to),
        Kind::Swap(other) => {
            replace(part, from, to);
            replace(other, to, from);
        }
    }
}

/// Brings members into the band of one goal. Whether anything was changed.
fn improve(model: &mut Model<'_>, index: usize, budget: &mut Budget) -> bool {
    let goal = GOALS[index];
    let kinds: &[Attempt] = match goal {
        Goal::Replicas | Goal::TopicSpread => &[Attempt::Move],
        Goal::Bytes => &[Attempt::Move, Attempt::Swap],
        Goal::Leaders | Goal::LeaderIn | Goal::LeaderOut => {
            &[Attempt::Lead, Attempt::Move, Attempt::Swap]
        }
    };
    let mut hopeless: Vec<B> = Vec::new();
    let mut accepted = false;
    // The sums stay the same whatever moves between members, so bands do too.
    let bands: Vec<Band> = GOALS[..=index]
        .iter()
        .map(|one| band(model, *one))
        .collect();
    while !budget.is_spent() {
        let Some(worst) = worst(model, goal, bands[index], &hopeless) else {
            break;
        };
        let found = kinds
            .iter()
            .find_map(|attempt| find(model, index, &bands, worst, *attempt, budget));
        match found {
            Some(change) => {
                apply(model, change, budget);
                accepted = true;
            }
            None => hopeless.push(worst),
        }
    }
    accepted
}

#[derive(Clone, Copy)]
enum Attempt {
    Lead,
    Move,
    Swap,
}

/// The member that is farthest outside the band.
fn worst(model: &Model<'_>, goal: Goal, band: Band, hopeless: &[B]) -> Option<B> {
    let members = model.members.iter().copied();
    let outside = |one: B| {
        let value = value(model, goal, one);
        (value - band.high).max(band.low - value)
    };
    members
        .filter(|one| outside(*one) > 0 && !hopeless.contains(one))
        .max_by_key(|one| (outside(*one), std::cmp::Reverse(*one)))
}

/// The best change of a kind that brings `broker` nearer to the band.
fn find(
    model: &Model<'_>,
    index: usize,
    bands: &[Band],
    broker: B,
    attempt: Attempt,
    budget: &Budget,
) -> Option<Change> {
    let goal = GOALS[index];
    let own = value(model, goal, broker);
    let gives = own > bands[index].high;
    let mut partners: Vec<B> = model.members.clone();
    partners.retain(|one| *one != broker);
    if gives {
        partners.sort_by_key(|one| (value(model, goal, *one), *one));
    } else {
        partners.sort_by_key(|one| (-value(model, goal, *one), *one));
    }
    let search = Search {
        model,
        index,
        bands,
        budget,
        // Less than a hundredth of the mean is not worth a copy.
        least: match goal {
            Goal::Replicas | Goal::TopicSpread | Goal::Leaders => 1,
            Goal::Bytes | Goal::LeaderIn | Goal::LeaderOut => (bands[index].high / 100).max(1),
        },
    };
    partners.into_iter().find_map(|partner| {
        let (from, to) = if gives {
            (broker, partner)
        } else {
            (partner, broker)
        };
        match attempt {
            Attempt::Lead => search.best_of(from, to, Kind::Lead),
            Attempt::Move => search.best_of(from, to, Kind::Move),
            Attempt::Swap => search.best_swap(from, to),
        }
    })
}

struct Search<'a> {
    model: &'a Model<'a>,
    index: usize,
    bands: &'a [Band],
    budget: &'a Budget,
    least: i64,
}

impl Search<'_> {
    /// How far a change is from closing the gap between two brokers; nothing if it is not to be made.
    fn miss(&self, change: Change) -> Option<i64> {
        let goal = GOALS[self.index];
        let gap = value(self.model, goal, change.from) - value(self.model, goal, change.to);
        let weight = weight(self.model, goal, change);
        let falls = weight >= self.least && gap > weight;
        let bytes = match change.kind {
            Kind::Lead => 0,
            Kind::Move => self.model.parts[change.part].bytes,
            Kind::Swap(other) => {
                self.model.parts[change.part].bytes + self.model.parts[other].bytes
            }
        };
        (falls
            && self.budget.allows(bytes)
            && is_allowed(self.model, change)
            && keeps_earlier(self.model, self.index, self.bands, change))
        .then(|| (gap - 2 * weight).abs())
    }

    fn best_of(&self, from: B, to: B, kind: Kind) -> Option<Change> {
        let model = self.model;
        let goal = GOALS[self.index];
        if value(model, goal, from) <= value(model, goal, to) {
            return None;
        }
        let mut best = None;
        for part in &model.hosted[usize::from(from)] {
            let part = *part as usize;
            let found = &model.parts[part];
            let is_candidate = match kind {
                Kind::Lead => found.replicas[0] == from && found.replicas.contains(&to),
                Kind::Move | Kind::Swap(_) => true,
            };
            let change = Change {
                part,
                from,
                to,
                kind,
            };
            let Some(miss) = is_candidate.then(|| self.miss(change)).flatten() else {
                continue;
            };
            // Between equals one of the topic that the other broker lacks, then the smallest.
            let surplus = i64::from(model.topic_count(found.topic, to))
                - i64::from(model.topic_count(found.topic, from));
            let key = (miss, surplus, found.bytes, part);
            if best.as_ref().is_none_or(|(best, _)| key < *best) {
                best = Some((key, change));
            }
        }
        best.map(|(_, change)| change)
    }

    fn best_swap(&self, from: B, to: B) -> Option<Change> {
        let model = self.model;
        let goal = GOALS[self.index];
        if value(model, goal, from) <= value(model, goal, to) {
            return None;
        }
        let one_way = |part: usize, from: B, to: B| {
            let kind = Kind::Move;
            weight(
                model,
                goal,
                Change {
                    part,
                    from,
                    to,
                    kind,
                },
            )
        };
        let ranked = |from: B, to: B, largest_first: bool| {
            let hosted = model.hosted[usize::from(from)].iter();
            let mut parts: Vec<usize> = hosted
                .map(|part| *part as usize)
                .filter(|part| {
                    model.is_movable(*part)
                        && !model.parts[*part].replicas.contains(&to)
                        && model.keeps_racks(*part, from, to)
                })
                .collect();
            let key = |part: &usize| {
                let weight = one_way(*part, from, to);
                (if largest_first { -weight } else { weight }, *part)
            };
            if parts.len() > SWAP_CANDIDATES {
                parts.select_nth_unstable_by_key(SWAP_CANDIDATES, key);
                parts.truncate(SWAP_CANDIDATES);
            }
            parts.sort_by_key(key);
            parts
        };
        let given = ranked(from, to, true);
        let taken = ranked(to, from, false);
        let mut best = None;
        for part in given {
            for other in &taken {
                let kind = Kind::Swap(*other);
                let change = Change {
                    part,
                    from,
                    to,
                    kind,
                };
                if let Some(miss) = self.miss(change) {
                    let key = (miss, part, *other);
                    if best.as_ref().is_none_or(|(best, _)| key < *best) {
                        best = Some((key, change));
                    }
                }
            }
        }
        best.map(|(_, change)| change)
    }
}

/// Brings large topics to within one replica between the brokers of a rack. Whether anything was changed.
fn spread_topics(model: &mut Model<'_>, budget: &mut Budget) -> bool {
    let mut accepted = false;
    let bands = [band(model, Goal::Replicas)];
    for topic in 0..(model.topic_starts.len() as u32).saturating_sub(1) {
        if !is_spread(model, topic) {
            continue;
        }
        for rack in 0..model.racks as u16 {
            while !budget.is_spent() {
                let Some(change) = topic_change(model, topic, rack, &bands, budget) else {
                    break;
                };
                apply(model, change, budget);
                accepted = true;
            }
        }
    }
    accepted
}

/// A step from the broker of a rack with most replicas of a topic to that with fewest.
fn topic_change(
    model: &Model<'_>,
    topic: u32,
    rack: u16,
    bands: &[Band],
    budget: &Budget,
) -> Option<Change> {
    let members = model.members.iter().copied();
    let mut members: Vec<B> = members.filter(|one| model.row(*one).rack == rack).collect();
    members.sort_by_key(|one| (model.topic_count(topic, *one), *one));
    let (to, from) = (*members.first()?, *members.last()?);
    if model.topic_count(topic, from) - model.topic_count(topic, to) < 2 {
        return None;
    }
    let range = model.topic_starts[topic as usize]..model.topic_starts[topic as usize + 1];
    let mut candidates: Vec<usize> = range
        .map(|part| part as usize)
        .filter(|part| {
            let replicas = &model.parts[*part].replicas;
            replicas.contains(&from) && !replicas.contains(&to)
        })
        .collect();
    candidates.sort_by_key(|part| (model.parts[*part].bytes, *part));
    let fits = |change: &Change| {
        let back = match change.kind {
            Kind::Swap(other) => model.parts[other].bytes,
            Kind::Lead | Kind::Move => 0,
        };
        budget.allows(model.parts[change.part].bytes + back)
            && is_allowed(model, *change)
            && keeps_earlier(model, 1, bands, *change)
    };
    let moves = candidates.iter().map(|part| Change {
        part: *part,
        from,
        to,
        kind: Kind::Move,
    });
    let mut moves = moves.filter(fits);
    if let Some(change) = moves.next() {
        return Some(change);
    }
    // A replica of another topic comes back, so that both brokers keep their counts.
    let mut back: Vec<usize> = model.hosted[usize::from(to)]
        .iter()
        .map(|part| *part as usize)
        .filter(|part| {
            let found = &model.parts[*part];
            found.topic != topic
                && model.is_movable(*part)
                && !found.replicas.contains(&from)
                && (!is_spread(model, found.topic) || keeps_topic(model, found.topic, to, from))
        })
        .collect();
    back.sort_by_key(|part| (model.parts[*part].bytes, *part));
    back.truncate(SWAP_CANDIDATES);
    candidates.truncate(SWAP_CANDIDATES);
    let swaps = candidates.iter().flat_map(|part| {
        back.iter().map(move |other| Change {
            part: *part,
            from,
            to,
            kind: Kind::Swap(*other),
        })
    });
    let mut swaps = swaps.filter(fits);
    swaps.next()
}

/// Takes replicas off members whose disks are fuller than allowed, the largest that fits elsewhere first.
fn relieve_full_disks(model: &mut Model<'_>, budget: &mut Budget) {
    for from in model.members.clone() {
        while model.is_too_full(from) && !budget.is_spent() {
            let hosted = model.hosted[usize::from(from)].iter();
            let mut parts: Vec<usize> = hosted.map(|part| *part as usize).collect();
            parts.sort_by_key(|part| (-model.parts[*part].bytes, *part));
            let found = parts.into_iter().find_map(|part| {
                let targets = model.members.iter().copied();
                let changes = targets.map(|to| Change {
                    part,
                    from,
                    to,
                    kind: Kind::Move,
                });
                changes
                    .filter(|change| {
                        model.parts[part].bytes > 0
                            && budget.allows(model.parts[part].bytes)
                            && is_allowed(model, *change)
                    })
                    .min_by_key(|change| (model.row(change.to).bytes, change.to))
            });
            match found {
                Some(change) => apply(model, change, budget),
                None => break,
            }
        }
    }
}
