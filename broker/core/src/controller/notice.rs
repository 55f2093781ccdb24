//! What the controller wants in the log.

use std::fmt;

use super::cluster::{PartitionState, ReplicaState};
use crate::ids::{BrokerEpoch, BrokerId, ControllerEpoch, TopicName, TopicPartition};
use crate::znodes::PartitionAssignment;

/// Something that a person may want to read later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Elected {
        epoch: ControllerEpoch,
    },
    Resigned {
        epoch: ControllerEpoch,
    },
    /// Another broker is controller, or nobody knows who.
    ControllerIs(Option<BrokerId>),
    /// A write was refused because another broker is (or was) controller: what was being done is given up.
    ControllerMoved,
    /// What was being done is given up.
    EventFailed {
        reason: String,
    },
    BrokersChanged {
        new: Vec<(BrokerId, BrokerEpoch)>,
        bounced: Vec<(BrokerId, BrokerEpoch)>,
        dead: Vec<BrokerId>,
    },
    /// A registration that cannot be understood or served.
    BrokerIgnored {
        broker: BrokerId,
        reason: String,
    },
    NewPartitions(Vec<TopicPartition>),
    PartitionNotMoved {
        partition: TopicPartition,
        from: PartitionState,
        to: PartitionState,
        reason: String,
    },
    ReplicaNotMoved {
        partition: TopicPartition,
        replica: BrokerId,
        from: ReplicaState,
        to: ReplicaState,
        reason: &'static str,
    },
    LeaderElected {
        partition: TopicPartition,
        leader: i32,
        leader_epoch: i32,
        isr: Vec<BrokerId>,
    },
    Reassigning {
        partition: TopicPartition,
        from: Vec<BrokerId>,
        to: PartitionAssignment,
    },
    Reassigned {
        partition: TopicPartition,
        replicas: Vec<BrokerId>,
    },
    NotReassigned {
        partition: TopicPartition,
        reason: String,
    },
    TopicsQueuedForDeletion(Vec<TopicName>),
    TopicDeleted(TopicName),
    DeletionHalted {
        topics: Vec<TopicName>,
        reason: &'static str,
    },
    /// A znode that cannot be understood.
    Malformed {
        path: String,
        reason: String,
    },
    ControlledShutdownBegan {
        broker: BrokerId,
    },
    /// A broker refused a whole request.
    BrokerRefused {
        broker: BrokerId,
        request: &'static str,
        reason: String,
    },
    ReplicasOffline {
        broker: BrokerId,
        partitions: Vec<TopicPartition>,
    },
}

struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{item}")?;
        }
        Ok(())
    }
}

struct Registrations<'a>(&'a [(BrokerId, BrokerEpoch)]);

impl fmt::Display for Registrations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (id, epoch)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{id} (epoch {epoch})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elected { epoch } => write!(f, "elected as controller, epoch {epoch}"),
            Self::Resigned { epoch } => write!(f, "resigned as controller of epoch {epoch}"),
            Self::ControllerIs(Some(id)) => write!(f, "broker {id} is the controller"),
            Self::ControllerIs(None) => f.write_str("there is no controller"),
            Self::ControllerMoved => f.write_str(
                "a write was refused because /controller_epoch has changed; what was being done is given up",
            ),
            Self::EventFailed { reason } => write!(f, "gave up what was being done: {reason}"),
            Self::BrokersChanged { new, bounced, dead } => write!(
                f,
                "brokers changed: new [{}], restarted [{}], gone [{}]",
                Registrations(new),
                Registrations(bounced),
                List(dead)
            ),
            Self::BrokerIgnored { broker, reason } => {
                write!(f, "ignored the registration of broker {broker}: {reason}")
            }
            Self::NewPartitions(partitions) => {
                write!(f, "new partitions: {}", List(&partitions[..partitions.len().min(20)]))?;
                match partitions.len().saturating_sub(20) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::PartitionNotMoved {
                partition,
                from,
                to,
                reason,
            } => write!(f, "{partition} stays {from:?} instead of {to:?}: {reason}"),
            Self::ReplicaNotMoved {
                partition,
                replica,
                from,
                to,
                reason,
            } => write!(
                f,
                "replica {replica} of {partition} stays {from:?} instead of {to:?}: {reason}"
            ),
            Self::LeaderElected {
                partition,
                leader,
                leader_epoch,
                isr,
            } => write!(
                f,
                "{partition} has leader {leader} in epoch {leader_epoch}, ISR [{}]",
                List(isr)
            ),
            Self::Reassigning {
                partition,
                from,
                to,
            } => write!(
                f,
                "{partition} moves from [{}] to [{}], adding [{}], removing [{}]",
                List(from),
                List(&to.target_replicas()),
                List(&to.adding_replicas),
                List(&to.removing_replicas)
            ),
            Self::Reassigned {
                partition,
                replicas,
            } => write!(f, "{partition} has moved to [{}]", List(replicas)),
            Self::NotReassigned { partition, reason } => {
                write!(f, "{partition} is not reassigned: {reason}")
            }
            Self::TopicsQueuedForDeletion(topics) => {
                write!(f, "topics to be deleted: {}", List(topics))
            }
            Self::TopicDeleted(topic) => write!(f, "topic {topic} is deleted"),
            Self::DeletionHalted { topics, reason } => {
                write!(f, "the deletion of {} waits: {reason}", List(topics))
            }
            Self::Malformed { path, reason } => {
                write!(f, "{path} in ZooKeeper cannot be understood: {reason}")
            }
            Self::ControlledShutdownBegan { broker } => {
                write!(f, "broker {broker} is shutting down")
            }
            Self::BrokerRefused {
                broker,
                request,
                reason,
            } => write!(f, "broker {broker} refused {request}: {reason}"),
            Self::ReplicasOffline { broker, partitions } => write!(
                f,
                "broker {broker} cannot serve {}: their log directory failed",
                List(partitions)
            ),
        }
    }
}
