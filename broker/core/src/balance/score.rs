//! How balanced a cluster is, as one number.

use super::model::Model;
use super::snapshot::{BrokerRole, Settings, Snapshot};
use super::soft::{self, GOALS, Goal};

/// With a broken hard goal a cluster has no more than this.
const BROKEN_MAX: u64 = 50;

/// 0 to 100: 100 if every broker is within all bands; 50 at most if replicas are lost or out of sync, racks are
/// uneven although they need not be, or a disk is too full.
pub fn score(snapshot: &Snapshot, settings: &Settings) -> u64 {
    let model = Model::new(snapshot, settings);
    let members = model.members.len() as u64;
    let mut lost = 0;
    let mut weights = 0;
    for goal in GOALS {
        let weight: u64 = match goal {
            Goal::Replicas | Goal::Leaders => 20,
            Goal::TopicSpread => continue,
            Goal::Bytes => 25,
            Goal::LeaderIn | Goal::LeaderOut if !model.has_rates() => continue,
            Goal::LeaderIn | Goal::LeaderOut => 15,
        };
        weights += weight;
        let band = soft::band(&model, goal);
        // How much lies where it should not, as a share of everything: in thousandths.
        let mut outside = 0_i128;
        let mut total = 0_i128;
        for broker in &model.members {
            let value = soft::value(&model, goal, *broker);
            total += i128::from(value);
            outside += i128::from((value - band.high).max(band.low - value).max(0));
        }
        if total > 0 {
            lost += weight
                * u64::try_from(outside * 1000 / total)
                    .unwrap_or(1000)
                    .min(1000);
        }
    }
    let soft = if members == 0 {
        0
    } else {
        100 - (lost / weights.max(1) / 10).min(100)
    };
    if is_broken(&model) {
        (soft / 2).min(BROKEN_MAX)
    } else {
        soft
    }
}

fn is_broken(model: &Model<'_>) -> bool {
    let parts = 0..model.parts.len();
    let has_lost_replicas = model
        .brokers
        .iter()
        .any(|row| matches!(row.role, BrokerRole::Lost | BrokerRole::Away) && row.replicas > 0);
    has_lost_replicas
        || model.members.iter().any(|one| model.is_too_full(*one))
        || parts.into_iter().any(|part| {
            let found = &model.parts[part];
            (!found.is_healthy && !found.pinned) || model.uneven_racks(part)
        })
}
