//! The in-sync replicas of a partition as its leader knows them: what the controller committed, and
//! the one change that may be under way (KIP-497).

use crate::ids::BrokerId;

/// The committed ISR and the change to it that was proposed and not yet answered.
///
/// Kafka: `Partition.PartitionState`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsrState {
    /// Nothing is in flight.
    Committed { isr: Vec<BrokerId> },
    /// `joining` was proposed as a new member.
    PendingExpand {
        isr: Vec<BrokerId>,
        joining: BrokerId,
    },
    /// `leaving`, a part of `isr`, was proposed to be removed.
    PendingShrink {
        isr: Vec<BrokerId>,
        leaving: Vec<BrokerId>,
    },
}

impl IsrState {
    /// The members that the controller has agreed to.
    pub fn committed(&self) -> &[BrokerId] {
        match self {
            Self::Committed { isr }
            | Self::PendingExpand { isr, .. }
            | Self::PendingShrink { isr, .. } => isr,
        }
    }

    /// Whether `broker` is in the largest ISR that the controller may have agreed to by now: the
    /// high watermark waits for all of these.
    pub fn maximal_contains(&self, broker: BrokerId) -> bool {
        match self {
            Self::Committed { isr } | Self::PendingShrink { isr, .. } => isr.contains(&broker),
            Self::PendingExpand { isr, joining } => *joining == broker || isr.contains(&broker),
        }
    }

    /// Size of the maximal ISR.
    pub fn maximal_len(&self) -> usize {
        match self {
            Self::Committed { isr } | Self::PendingShrink { isr, .. } => isr.len(),
            Self::PendingExpand { isr, joining } => isr.len() + usize::from(!isr.contains(joining)),
        }
    }

    /// Whether a change was proposed and not yet answered; no other may be proposed then.
    pub fn is_in_flight(&self) -> bool {
        match self {
            Self::Committed { .. } => false,
            Self::PendingExpand { .. } | Self::PendingShrink { .. } => true,
        }
    }

    /// The ISR that the change in flight asks for, sorted as proposed; `None` if there is none.
    pub fn proposed(&self) -> Option<Vec<BrokerId>> {
        match self {
            Self::Committed { .. } => None,
            Self::PendingExpand { isr, joining } => {
                let mut proposed = isr.clone();
                proposed.push(*joining);
                Some(proposed)
            }
            Self::PendingShrink { isr, leaving } => Some(
                isr.iter()
                    .copied()
                    .filter(|broker| !leaving.contains(broker))
                    .collect(),
            ),
        }
    }

    /// Gives the change in flight up and returns to what was committed.
    pub fn give_up(&mut self) {
        let isr = self.committed().to_vec();
        *self = Self::Committed { isr };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    #[test]
    fn a_pending_expansion_counts_the_new_member() {
        let isr = IsrState::PendingExpand {
            isr: ids(&[1]),
            joining: BrokerId(2),
        };
        assert_eq!(isr.committed(), ids(&[1]));
        assert!(isr.maximal_contains(BrokerId(2)));
        assert_eq!(isr.maximal_len(), 2);
        assert_eq!(isr.proposed(), Some(ids(&[1, 2])));
    }

    #[test]
    fn a_pending_shrink_still_counts_the_leaving_ones() {
        let mut isr = IsrState::PendingShrink {
            isr: ids(&[1, 2, 3]),
            leaving: ids(&[3]),
        };
        assert!(isr.maximal_contains(BrokerId(3)));
        assert_eq!(isr.maximal_len(), 3);
        assert_eq!(isr.proposed(), Some(ids(&[1, 2])));
        isr.give_up();
        assert_eq!(
            isr,
            IsrState::Committed {
                isr: ids(&[1, 2, 3])
            }
        );
    }
}
