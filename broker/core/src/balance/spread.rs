//! Fills members that are clearly emptier than the others, taking from those above the mean, up to the edge of the band.

use super::model::{B, Model};
use super::snapshot::{Limits, Reason};
use super::soft::{Budget, count_band};

/// Members below this share of the mean, in percent, count as new. Above it the balance pass evens out.
const EMPTY_PERCENT: i64 = 70;

/// Moves replicas onto members that are clearly emptier, and onto those alone.
pub(super) fn spread(model: &mut Model<'_>, limits: Limits) -> Budget {
    let mut budget = Budget::new(limits);
    let members = model.members.clone();
    let total: i64 = members.iter().map(|one| model.row(*one).replicas).sum();
    let count = members.len() as i64;
    if count < 2 || total == 0 {
        return budget;
    }
    let is_empty = |one: &&B| model.row(**one).replicas * count * 100 < total * EMPTY_PERCENT;
    let new: Vec<B> = members.iter().filter(is_empty).copied().collect();
    let band = count_band(total, count, model.settings.tolerance_percent);
    let mut exhausted: Vec<(B, B)> = Vec::new();
    while !budget.is_spent() {
        let below = new
            .iter()
            .copied()
            .filter(|to| model.row(*to).replicas < band.low);
        let mut below: Vec<B> = below.collect();
        below.sort_by_key(|to| (model.row(*to).replicas, *to));
        let mut donors: Vec<B> = members
            .iter()
            .copied()
            .filter(|from| !new.contains(from) && model.row(*from).replicas * count > total)
            .collect();
        donors.sort_by_key(|from| (-model.row(*from).replicas, *from));
        let pairs = below
            .iter()
            .flat_map(|to| donors.iter().map(move |from| (*from, *to)));
        let mut pairs = pairs.filter(|pair| !exhausted.contains(pair));
        let Some((from, to)) = pairs.next() else {
            break;
        };
        match best_replica(model, from, to, &budget) {
            Some(part) => {
                let bytes = model.parts[part].bytes;
                model.replace(part, from, to, Reason::ScaleOut);
                model.moved_bytes(from, to, bytes);
                budget.spend(bytes);
            }
            // What a donor has to give only shrinks.
            None => exhausted.push((from, to)),
        }
    }
    budget
}

/// Which of a donor's replicas is best placed on `to`: of the topic that `to` lacks most; leaders as long as `to`
/// leads less than its share.
fn best_replica(model: &Model<'_>, from: B, to: B, budget: &Budget) -> Option<usize> {
    let wants_leader = model.row(to).leaders * model.row(from).replicas.max(1)
        < model.row(from).leaders * model.row(to).replicas.max(1);
    let hosted = model.hosted[usize::from(from)].iter();
    hosted
        .map(|part| *part as usize)
        .filter(|part| {
            let part = *part;
            model.is_movable(part)
                && budget.allows(model.parts[part].bytes)
                && model.keeps_racks(part, from, to)
                && model.refusal(part, to, Some(from)).is_none()
        })
        .max_by_key(|part| {
            let found = &model.parts[*part];
            let surplus = i64::from(model.topic_count(found.topic, from))
                - i64::from(model.topic_count(found.topic, to));
            let leads = found.replicas[0] == from;
            (surplus, leads == wants_leader, std::cmp::Reverse(*part))
        })
}
