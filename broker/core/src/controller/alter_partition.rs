//! Whether a leader may change its ISR (KIP-497), decided against what the controller knows.

use crate::control::Leadership;
use crate::ids::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicId, TopicPartition};

/// What a leader asks for (key 56).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartition {
    /// Who asks.
    pub broker: BrokerId,
    pub broker_epoch: BrokerEpoch,
    /// Versions 0 and 1 have another error for replicas that cannot join.
    pub version: i16,
    pub partitions: Vec<IsrProposal>,
}

/// How a partition is named: by topic name up to version 1, then by topic id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposedPartition {
    ByName(TopicPartition),
    ById { topic_id: TopicId, partition: i32 },
}

/// The ISR that a leader wants for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    pub partition: ProposedPartition,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    pub is_recovering: bool,
    /// The partition epoch that the leader knows.
    pub partition_epoch: PartitionEpoch,
}

/// The answer for one partition: what is in force now, or why nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlteredPartition {
    pub partition: ProposedPartition,
    pub result: Result<Leadership, IsrRefusal>,
}

/// Why a whole request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterPartitionError {
    #[error("this broker is not the controller")]
    NotController,
    #[error("the broker epoch is not that of the registration")]
    StaleBrokerEpoch,
    #[error("the change could not be written")]
    Failed,
}

/// Why an ISR was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsrRefusal {
    #[error("no topic has this id")]
    UnknownTopicId,
    #[error("the partition has no leader and ISR")]
    UnknownTopicOrPartition,
    /// The leader knows more than this controller.
    #[error("this broker is not the controller (any more)")]
    NotController,
    #[error("the leader epoch is older than the current one")]
    FencedLeaderEpoch,
    #[error("the partition epoch is not the current one")]
    InvalidUpdateVersion,
    #[error("a recovering leader has no followers, and a recovered one does not recover again")]
    InvalidRequest,
    /// From version 2 on.
    #[error("the ISR has a broker that is not alive")]
    IneligibleReplica,
    /// Up to version 1.
    #[error("the ISR has a broker that is not alive")]
    OperationNotAttempted,
    #[error("the change could not be written")]
    Failed,
}

/// What follows from a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The current state is what was asked for: answer with it, write nothing.
    AlreadyInForce,
    Refused(IsrRefusal),
    /// Write this; its partition epoch is the version that the znode must still have.
    Write(Leadership),
}

/// Kafka's checks, in Kafka's order. An empty ISR is not refused.
pub fn judge(
    proposal: &IsrProposal,
    broker: BrokerId,
    version: i16,
    current: Option<&Leadership>,
    is_live: impl Fn(BrokerId) -> bool,
) -> Verdict {
    let Some(current) = current else {
        return Verdict::Refused(IsrRefusal::UnknownTopicOrPartition);
    };
    if proposal.partition_epoch > current.partition_epoch
        || proposal.leader_epoch > current.leader_epoch
    {
        return Verdict::Refused(IsrRefusal::NotController);
    }
    if proposal.leader_epoch < current.leader_epoch {
        return Verdict::Refused(IsrRefusal::FencedLeaderEpoch);
    }
    let asks_for_current = current.leader == broker.0
        && current.isr == proposal.isr
        && current.is_recovering == proposal.is_recovering;
    if asks_for_current {
        return Verdict::AlreadyInForce;
    }
    if proposal.partition_epoch < current.partition_epoch {
        return Verdict::Refused(IsrRefusal::InvalidUpdateVersion);
    }
    let recovers_with_followers = proposal.is_recovering && proposal.isr.len() > 1;
    let recovers_again = proposal.is_recovering && !current.is_recovering;
    if recovers_with_followers || recovers_again {
        return Verdict::Refused(IsrRefusal::InvalidRequest);
    }
    if !proposal.isr.iter().all(|id| is_live(*id)) {
        return Verdict::Refused(match version {
            ..=1 => IsrRefusal::OperationNotAttempted,
            2.. => IsrRefusal::IneligibleReplica,
        });
    }
    Verdict::Write(Leadership {
        leader: broker.0,
        isr: proposal.isr.clone(),
        is_recovering: proposal.is_recovering,
        ..current.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current() -> Leadership {
        Leadership {
            controller_epoch: 5,
            leader: 1,
            leader_epoch: 3,
            isr: vec![BrokerId(1), BrokerId(2)],
            partition_epoch: 7,
            is_recovering: false,
        }
    }

    fn proposal(isr: &[i32]) -> IsrProposal {
        IsrProposal {
            partition: ProposedPartition::ByName(TopicPartition::new("t", 0)),
            leader_epoch: 3,
            isr: isr.iter().copied().map(BrokerId).collect(),
            is_recovering: false,
            partition_epoch: 7,
        }
    }

    fn verdict(proposal: &IsrProposal) -> Verdict {
        judge(proposal, BrokerId(1), 3, Some(&current()), |id| id.0 < 4)
    }

    #[test]
    fn a_new_isr_is_written_over_the_version_that_is_known() {
        let expected = Leadership {
            isr: vec![BrokerId(1), BrokerId(2), BrokerId(3)],
            ..current()
        };
        assert_eq!(verdict(&proposal(&[1, 2, 3])), Verdict::Write(expected));
    }

    #[test]
    fn an_empty_isr_is_written() {
        assert!(matches!(verdict(&proposal(&[])), Verdict::Write(_)));
    }

    #[test]
    fn asking_twice_is_answered_with_what_is_in_force() {
        let mut repeated = proposal(&[1, 2]);
        repeated.partition_epoch = 5;
        assert_eq!(verdict(&repeated), Verdict::AlreadyInForce);
    }

    #[test]
    fn refusals_come_in_kafkas_order() {
        let check = |change: &dyn Fn(&mut IsrProposal), expected: IsrRefusal| {
            let mut changed = proposal(&[1]);
            change(&mut changed);
            assert_eq!(verdict(&changed), Verdict::Refused(expected));
        };
        check(&|p| p.partition_epoch = 8, IsrRefusal::NotController);
        check(&|p| p.leader_epoch = 4, IsrRefusal::NotController);
        check(&|p| p.leader_epoch = 2, IsrRefusal::FencedLeaderEpoch);
        check(&|p| p.partition_epoch = 6, IsrRefusal::InvalidUpdateVersion);
        check(&|p| p.is_recovering = true, IsrRefusal::InvalidRequest);
        check(
            &|p| p.isr = vec![BrokerId(9)],
            IsrRefusal::IneligibleReplica,
        );
        let old = judge(&proposal(&[9]), BrokerId(1), 1, Some(&current()), |_| false);
        assert_eq!(old, Verdict::Refused(IsrRefusal::OperationNotAttempted));
        let unknown = judge(&proposal(&[1]), BrokerId(1), 3, None, |_| true);
        let expected = Verdict::Refused(IsrRefusal::UnknownTopicOrPartition);
        assert_eq!(unknown, expected);
    }
}
