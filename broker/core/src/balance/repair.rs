//! Passes with a duty: replicas that have to leave a broker get the best place there is, and racks are made even.

use super::model::{B, Model};
use super::snapshot::{BrokerRole, Reason, Stuck, StuckCause};

/// Which replicas a pass re-homes.
#[derive(Clone, Copy)]
pub(super) enum Of {
    /// On lost brokers and failed disks.
    Lost,
    /// On brokers that are away, of partitions below their min ISR.
    Away,
    Draining,
}

impl Of {
    fn reason(self) -> Reason {
        match self {
            Self::Lost => Reason::NodeFailure,
            Self::Away => Reason::MinIsr,
            Self::Draining => Reason::Drain,
        }
    }

    fn concerns(self, model: &Model<'_>, part: usize, broker: B) -> bool {
        let role = model.row(broker).role;
        let found = &model.parts[part];
        match self {
            Self::Lost => role == BrokerRole::Lost || found.failed_disks.contains(&broker),
            Self::Away => role == BrokerRole::Away && found.is_below_min_isr,
            Self::Draining => role == BrokerRole::Drain,
        }
    }
}

/// Gives every replica that `of` describes another broker, most endangered partitions first.
pub(super) fn re_home(model: &mut Model<'_>, of: Of) {
    let mut work: Vec<(usize, B)> = Vec::new();
    for (broker, hosted) in (0..).zip(&model.hosted) {
        for part in hosted {
            let part = *part as usize;
            if !model.parts[part].pinned && of.concerns(model, part, broker) {
                work.push((part, broker));
            }
        }
    }
    work.sort_by_key(|(part, broker)| {
        let found = &model.parts[*part];
        (found.live_isr, -found.bytes, *part, *broker)
    });
    for (part, broker) in work {
        let reason = of.reason();
        let target = if model.parts[part].has_leader {
            best_target(model, part, broker)
        } else {
            Err(StuckCause::NoSource)
        };
        match target {
            Ok(to) => {
                let bytes = model.parts[part].bytes;
                model.replace(part, broker, to, reason);
                model.moved_bytes(broker, to, bytes);
            }
            Err(cause) => {
                let stuck = Stuck {
                    partition: model.parts[part].id.clone(),
                    broker: model.row(broker).id,
                    reason,
                    cause,
                };
                model.stuck.push(stuck);
            }
        }
    }
}

/// The best broker for a replica that leaves `from`: even racks, then few replicas, few bytes, few leaders.
fn best_target(model: &Model<'_>, part: usize, from: B) -> Result<B, StuckCause> {
    let mut cause = StuckCause::NoBroker;
    let mut best = None;
    let from_rack = model.row(from).rack;
    for to in model.members.iter().copied() {
        match model.refusal(part, to, Some(from)) {
            Some(StuckCause::NoBroker) => {}
            Some(other) => cause = other,
            None => {
                let row = model.row(to);
                // The replica that leaves does not count.
                let in_rack = model.in_rack(part, row.rack) - usize::from(row.rack == from_rack);
                let key = (in_rack, row.replicas, row.bytes, row.leaders, to);
                if best.is_none_or(|best| key < best) {
                    best = Some(key);
                }
            }
        }
    }
    best.map(|(.., to)| to).ok_or(cause)
}

/// Moves replicas from racks with too many to racks with too few, as long as that makes a partition more even.
/// Whether it moved any.
pub(super) fn repair_racks(model: &mut Model<'_>) -> bool {
    let mut moved = false;
    if model.racks < 2 {
        return moved;
    }
    for part in 0..model.parts.len() {
        while model.is_movable(part) && model.uneven_racks(part) {
            let Some((from, to)) = rack_move(model, part) else {
                break;
            };
            let bytes = model.parts[part].bytes;
            model.replace(part, from, to, Reason::RackRepair);
            model.moved_bytes(from, to, bytes);
            moved = true;
        }
    }
    moved
}

fn rack_move(model: &Model<'_>, part: usize) -> Option<(B, B)> {
    let replicas = &model.parts[part].replicas;
    // From the fullest rack, a follower rather than the leader, off the broker with the most replicas.
    let (position, from) = replicas
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, one)| !matches!(model.row(*one).role, BrokerRole::Keep))
        .max_by_key(|(position, one)| {
            let row = model.row(*one);
            let in_rack = model.in_rack(part, row.rack);
            (
                in_rack,
                *position > 0,
                row.replicas,
                std::cmp::Reverse(*one),
            )
        })?;
    debug_assert_eq!(replicas[position], from);
    let most = model.in_rack(part, model.row(from).rack);
    let targets = model.members.iter().copied();
    let to = targets
        .filter(|to| model.in_rack(part, model.row(*to).rack) + 2 <= most)
        .filter(|to| model.refusal(part, *to, Some(from)).is_none())
        .min_by_key(|to| {
            let row = model.row(*to);
            (model.in_rack(part, row.rack), row.replicas, row.bytes, *to)
        })?;
    Some((from, to))
}
