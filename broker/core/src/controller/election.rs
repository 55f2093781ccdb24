//! Who leads next: Kafka's rules, as functions of plain values.

use crate::control::{Leadership, NO_LEADER};
use crate::ids::BrokerId;

/// Why a leader is elected; each has its own rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Election {
    /// The leader is not available.
    Offline {
        /// Whether an administrator allows a leader outside the ISR, whatever the topic's configuration says.
        allow_unclean: bool,
    },
    /// The replicas are being changed.
    Reassign,
    /// Back to the first replica of the assignment.
    Preferred,
    /// The leader's broker is about to stop.
    ControlledShutdown,
}

impl Election {
    /// What Kafka calls the rule.
    pub fn strategy(self) -> String {
        match self {
            Self::Offline { allow_unclean } => {
                format!("OfflinePartitionLeaderElectionStrategy({allow_unclean})")
            }
            Self::Reassign => "ReassignPartitionLeaderElectionStrategy".to_owned(),
            Self::Preferred => "PreferredReplicaPartitionLeaderElectionStrategy".to_owned(),
            Self::ControlledShutdown => {
                "ControlledShutdownPartitionLeaderElectionStrategy".to_owned()
            }
        }
    }
}

/// A leader and the ISR that it begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elected {
    pub leader: BrokerId,
    pub isr: Vec<BrokerId>,
    /// The leader may lack records that were acknowledged.
    pub is_unclean: bool,
}

impl Elected {
    /// The state to write over `current`.
    pub fn leadership(self, current: &Leadership) -> Leadership {
        Leadership {
            leader: self.leader.0,
            leader_epoch: current.leader_epoch.saturating_add(1),
            isr: self.isr,
            is_recovering: current.is_recovering || self.is_unclean,
            ..current.clone()
        }
    }
}

/// The first replica that is online and in sync; without one and if `allow_unclean`, the first that is online.
pub fn offline_leader(
    assignment: &[BrokerId],
    isr: &[BrokerId],
    is_online: impl Fn(BrokerId) -> bool,
    allow_unclean: bool,
) -> Option<Elected> {
    let online = |id: &&BrokerId| is_online(**id);
    let clean = assignment.iter().filter(online).find(|id| isr.contains(id));
    if let Some(leader) = clean {
        return Some(Elected {
            leader: *leader,
            isr: isr.iter().filter(online).copied().collect(),
            is_unclean: false,
        });
    }
    let unclean = assignment.iter().find(online).filter(|_| allow_unclean);
    unclean.map(|leader| Elected {
        leader: *leader,
        isr: vec![*leader],
        is_unclean: true,
    })
}

/// The first of the target replicas that is online and in sync.
pub fn reassign_leader(
    target: &[BrokerId],
    isr: &[BrokerId],
    is_online: impl Fn(BrokerId) -> bool,
) -> Option<Elected> {
    let mut candidates = target.iter();
    let leader = candidates.find(|id| is_online(**id) && isr.contains(id))?;
    Some(Elected {
        leader: *leader,
        isr: isr.to_vec(),
        is_unclean: false,
    })
}

/// The first replica of the assignment, if it is online and in sync.
pub fn preferred_leader(
    assignment: &[BrokerId],
    isr: &[BrokerId],
    is_online: impl Fn(BrokerId) -> bool,
) -> Option<Elected> {
    reassign_leader(assignment.get(..1)?, isr, is_online)
}

/// The first replica that is in sync and stays, with an ISR of those that stay. `is_online` counts brokers that are
/// shutting down.
pub fn controlled_shutdown_leader(
    assignment: &[BrokerId],
    isr: &[BrokerId],
    is_online: impl Fn(BrokerId) -> bool,
    is_shutting_down: impl Fn(BrokerId) -> bool,
) -> Option<Elected> {
    let mut candidates = assignment.iter();
    let leader =
        candidates.find(|id| is_online(**id) && isr.contains(id) && !is_shutting_down(**id))?;
    let staying = isr.iter().filter(|id| !is_shutting_down(**id));
    Some(Elected {
        leader: *leader,
        isr: staying.copied().collect(),
        is_unclean: false,
    })
}

/// The leader and ISR that a partition begins with: all replicas that are online, in the order of the assignment.
pub fn first_leadership(
    assignment: &[BrokerId],
    is_online: impl Fn(BrokerId) -> bool,
    controller_epoch: i32,
) -> Option<Leadership> {
    let online = assignment.iter().filter(|id| is_online(**id));
    let isr: Vec<BrokerId> = online.copied().collect();
    Some(Leadership {
        controller_epoch,
        leader: isr.first()?.0,
        leader_epoch: 0,
        isr,
        partition_epoch: 0,
        is_recovering: false,
    })
}

/// The state without `replica` in the ISR. The last member stays in it, so that later it is known who has the
/// records; if it led, there is no leader then.
pub fn without_replica(current: &Leadership, replica: BrokerId) -> Leadership {
    let mut next = current.clone();
    if current.leader == replica.0 {
        next.leader = NO_LEADER;
    }
    if current.isr.len() > 1 {
        next.isr.retain(|id| *id != replica);
    }
    next.leader_epoch = current.leader_epoch.saturating_add(1);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    fn online(ids: &'static [i32]) -> impl Fn(BrokerId) -> bool {
        move |id| ids.contains(&id.0)
    }

    fn elected(leader: i32, isr: &[i32], is_unclean: bool) -> Elected {
        Elected {
            leader: BrokerId(leader),
            isr: ids(isr),
            is_unclean,
        }
    }

    #[test]
    fn offline_prefers_the_order_of_the_assignment_within_the_isr() {
        let assignment = ids(&[1, 2, 3]);
        let isr = ids(&[3, 2, 1]);
        let found = offline_leader(&assignment, &isr, online(&[2, 3]), false);
        assert_eq!(found, Some(elected(2, &[3, 2], false)));
    }

    #[test]
    fn offline_is_unclean_only_if_allowed() {
        let assignment = ids(&[1, 2, 3]);
        let isr = ids(&[1]);
        let found = |allowed| offline_leader(&assignment, &isr, online(&[2, 3]), allowed);
        assert_eq!(found(false), None);
        assert_eq!(found(true), Some(elected(2, &[2], true)));
    }

    #[test]
    fn preferred_is_the_first_or_nobody() {
        let assignment = ids(&[1, 2]);
        let found = |isr: &[i32]| preferred_leader(&assignment, &ids(isr), online(&[1, 2]));
        assert_eq!(found(&[2, 1]), Some(elected(1, &[2, 1], false)));
        assert_eq!(found(&[2]), None);
        assert_eq!(preferred_leader(&[], &ids(&[1]), online(&[1])), None);
    }

    #[test]
    fn reassignment_takes_a_target_that_is_in_sync() {
        let found = reassign_leader(&ids(&[4, 2]), &ids(&[1, 2]), online(&[1, 2, 4]));
        assert_eq!(found, Some(elected(2, &[1, 2], false)));
    }

    #[test]
    fn controlled_shutdown_leaves_out_all_that_stop() {
        let isr = ids(&[1, 2, 3]);
        let found =
            controlled_shutdown_leader(&ids(&[1, 2, 3]), &isr, online(&[1, 2, 3]), online(&[1, 2]));
        assert_eq!(found, Some(elected(3, &[3], false)));
        let nobody = controlled_shutdown_leader(&ids(&[1]), &ids(&[1]), online(&[1]), online(&[1]));
        assert_eq!(nobody, None);
    }

    #[test]
    fn the_last_member_of_an_isr_stays() {
        let current = first_leadership(&ids(&[1, 2]), online(&[1, 2]), 5).unwrap();
        let without_one = without_replica(&current, BrokerId(1));
        assert_eq!((without_one.leader, without_one.leader_epoch), (-1, 1));
        assert_eq!(without_one.isr, ids(&[2]));
        let without_both = without_replica(&without_one, BrokerId(2));
        assert_eq!((without_both.leader, without_both.leader_epoch), (-1, 2));
        assert_eq!(without_both.isr, ids(&[2]));
    }

    #[test]
    fn an_unclean_leader_recovers_until_its_isr_changes() {
        let current = first_leadership(&ids(&[1, 2]), online(&[1]), 5).unwrap();
        let unclean = Elected {
            leader: BrokerId(2),
            isr: ids(&[2]),
            is_unclean: true,
        };
        let next = unclean.leadership(&current);
        assert!(next.is_recovering);
        assert_eq!(next.leader_epoch, 1);
    }
}
