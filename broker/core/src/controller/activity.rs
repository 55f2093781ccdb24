//! What the controller is doing, in Kafka's words (`ControllerState`), and for how long it did what it has done.

use std::time::Duration;

use super::event::{Event, NodeChange, Request};
use super::{Controller, Timer};
use crate::znodes::{
    BrokerRegistration, ControllerSeat, DeletionMarker, IsrChange, LogDirEvent, PreferredElection,
    Reassignment, TopicAssignment,
};

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    Idle = 0,
    ControllerChange = 1,
    BrokerChange = 2,
    TopicChange = 3,
    TopicDeletion = 4,
    PartitionReassignment = 5,
    AutoLeaderBalance = 6,
    ManualLeaderBalance = 7,
    ControlledShutdown = 8,
    IsrChange = 9,
    LeaderAndIsrResponseReceived = 10,
    LogDirChange = 11,
    UncleanLeaderElectionEnable = 13,
    TopicUncleanLeaderElectionEnable = 14,
    ListPartitionReassignment = 15,
}

impl Activity {
    /// All that have a name in the metrics.
    pub const TIMED: [Self; 14] = [
        Self::ControllerChange,
        Self::BrokerChange,
        Self::TopicChange,
        Self::TopicDeletion,
        Self::PartitionReassignment,
        Self::AutoLeaderBalance,
        Self::ManualLeaderBalance,
        Self::ControlledShutdown,
        Self::IsrChange,
        Self::LeaderAndIsrResponseReceived,
        Self::LogDirChange,
        Self::UncleanLeaderElectionEnable,
        Self::TopicUncleanLeaderElectionEnable,
        Self::ListPartitionReassignment,
    ];

    /// The name before `RateAndTimeMs` in Kafka's metrics. That of broker changes is older than the others.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::ControllerChange => "ControllerChange",
            Self::BrokerChange => "LeaderElection",
            Self::TopicChange => "TopicChange",
            Self::TopicDeletion => "TopicDeletion",
            Self::PartitionReassignment => "PartitionReassignment",
            Self::AutoLeaderBalance => "AutoLeaderBalance",
            Self::ManualLeaderBalance => "ManualLeaderBalance",
            Self::ControlledShutdown => "ControlledShutdown",
            Self::IsrChange => "IsrChange",
            Self::LeaderAndIsrResponseReceived => "LeaderAndIsrResponseReceived",
            Self::LogDirChange => "LogDirChange",
            Self::UncleanLeaderElectionEnable => "UncleanLeaderElectionEnable",
            Self::TopicUncleanLeaderElectionEnable => "TopicUncleanLeaderElectionEnable",
            Self::ListPartitionReassignment => "ListPartitionReassignment",
        }
    }

    fn of(event: &Event) -> Self {
        match event {
            Event::Started | Event::SessionEstablished | Event::SessionExpired | Event::Stopped => {
                Self::ControllerChange
            }
            Event::NodeChanged { path, change } => Self::of_node(path, *change),
            Event::LeaderAndIsrAnswered { .. } => Self::LeaderAndIsrResponseReceived,
            Event::ReplicasDeleted { .. } => Self::TopicDeletion,
            Event::TimerFired(Timer::AutoRebalance) => Self::AutoLeaderBalance,
            Event::Requested { request, .. } => match request {
                Request::AlterPartition(_) => Self::IsrChange,
                Request::ControlledShutdown { .. } => Self::ControlledShutdown,
                Request::ElectLeaders { .. } => Self::ManualLeaderBalance,
                Request::AlterReassignments(_) => Self::PartitionReassignment,
                Request::ListReassignments(_) => Self::ListPartitionReassignment,
                Request::AllocateProducerIds { .. } => Self::Idle,
            },
            Event::UncleanElectionEnabled { topic: None } => Self::UncleanLeaderElectionEnable,
            Event::UncleanElectionEnabled { topic: Some(_) } => {
                Self::TopicUncleanLeaderElectionEnable
            }
            Event::SettingsChanged(_) | Event::ReadCompleted(_) | Event::WriteCompleted(_) => {
                Self::Idle
            }
        }
    }

    fn of_node(path: &str, change: NodeChange) -> Self {
        match path {
            ControllerSeat::PATH => Self::ControllerChange,
            BrokerRegistration::PARENT => Self::BrokerChange,
            TopicAssignment::PARENT => Self::TopicChange,
            DeletionMarker::PARENT => Self::TopicDeletion,
            LogDirEvent::PARENT => Self::LogDirChange,
            IsrChange::PARENT => Self::IsrChange,
            PreferredElection::PATH => Self::ManualLeaderBalance,
            Reassignment::PATH => Self::PartitionReassignment,
            _ if change != NodeChange::DataChanged => Self::Idle,
            _ if path.starts_with(BrokerRegistration::PARENT) => Self::BrokerChange,
            _ => Self::TopicChange,
        }
    }
}

/// An event that was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    pub activity: Activity,
    /// In the queue.
    pub waited: Duration,
    /// From the first step to the last, with the answers that were waited for.
    pub took: Duration,
}

/// The event that is being handled.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay {
    activity: Activity,
    since: Duration,
    waited: Duration,
}

/// More than anybody leaves lying about.
const FINISHED_MAX: usize = 10_000;

impl Controller {
    /// What the controller is doing at this moment.
    pub fn activity(&self) -> Activity {
        self.under_way.map_or(Activity::Idle, |one| one.activity)
    }

    /// What was done since this was asked last.
    pub fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    pub(super) fn activity_began(&mut self, event: &Event, enqueued: Duration) {
        self.activity_ended();
        self.under_way = Some(UnderWay {
            activity: Activity::of(event),
            since: self.monotonic,
            waited: self.monotonic.saturating_sub(enqueued),
        });
    }

    pub(super) fn activity_ended(&mut self) {
        let Some(ended) = self.under_way.take() else {
            return;
        };
        if self.finished.len() < FINISHED_MAX {
            self.finished.push(Finished {
                activity: ended.activity,
                waited: ended.waited,
                took: self.monotonic.saturating_sub(ended.since),
            });
        }
    }
}
