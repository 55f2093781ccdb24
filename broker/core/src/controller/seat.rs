//! Becoming controller, and ceasing to be.

use super::event::{Found, NodeChange, WriteError, WriteResult};
use super::task::{IfVacant, Task, Then};
use super::{Controller, Effect, Failure, Notice, Read, Write};
use crate::ids::{BrokerId, ControllerEpoch};
use crate::znodes::{
    BrokerRegistration, ControllerEpochZnode, ControllerSeat, DeletionMarker, IsrChange,
    LogDirEvent, PreferredElection, Reassignment, TopicAssignment,
};

impl Controller {
    /// A watch fired: see what it is about. All but the seat concern the active controller only.
    pub(super) fn node_changed(&mut self, path: &str, change: NodeChange) {
        if path == ControllerSeat::PATH {
            let if_vacant = match change {
                NodeChange::Deleted => IfVacant::Elect,
                NodeChange::Created | NodeChange::DataChanged => IfVacant::Leave,
                NodeChange::ChildrenChanged => return,
            };
            self.tasks.push(Task::LookAtSeat(if_vacant));
            return;
        }
        if !self.is_active() {
            return;
        }
        let task = match change {
            NodeChange::ChildrenChanged => match path {
                BrokerRegistration::PARENT => Some(Task::ReadBrokers),
                TopicAssignment::PARENT => Some(Task::ReadTopics),
                DeletionMarker::PARENT => Some(Task::ReadDeletionMarkers),
                LogDirEvent::PARENT => Some(Task::ReadLogDirEvents),
                IsrChange::PARENT => Some(Task::ReadIsrChanges),
                _ => None,
            },
            NodeChange::DataChanged => {
                if let Some(id) = child(path, BrokerRegistration::PARENT) {
                    id.parse().ok().map(|id| Task::ReadBroker(BrokerId(id)))
                } else {
                    let topic = child(path, TopicAssignment::PARENT);
                    topic.map(|topic| Task::ReadTopic(topic.into()))
                }
            }
            // Those that go need a watch again; whether they come is known only with one.
            NodeChange::Created | NodeChange::Deleted => match path {
                PreferredElection::PATH => Some(Task::ReadPreferredElection),
                Reassignment::PATH => Some(Task::ReadReassignments),
                _ => None,
            },
        };
        self.tasks.extend(task);
    }

    pub(super) fn look_at_seat(&mut self, if_vacant: IfVacant) {
        let path = ControllerSeat::PATH;
        let reads = vec![Read::watched_exists(path), Read::data(path.to_owned())];
        self.read(reads, Then::SeatSeen(if_vacant));
    }

    pub(super) fn seat_seen(&mut self, if_vacant: IfVacant, found: &[Found]) {
        let was_active = self.is_active();
        let holder = holder(found.get(1));
        if holder != self.active_controller {
            self.report(Notice::ControllerIs(holder));
        }
        self.active_controller = holder;
        if was_active && !self.is_active() {
            self.resign();
        }
        if holder.is_none() && if_vacant == IfVacant::Elect {
            self.tasks.push(Task::Elect);
        }
    }

    pub(super) fn read_epoch(&mut self) {
        let path = ControllerEpochZnode::PATH.to_owned();
        self.read(vec![Read::data(path)], Then::EpochRead);
    }

    pub(super) fn epoch_read(&mut self, found: &[Found]) -> Result<(), Failure> {
        let Some(node) = found.first().and_then(Found::data) else {
            let create = Write::Create {
                path: ControllerEpochZnode::PATH.to_owned(),
                data: Some(ControllerEpochZnode::encode(ControllerEpochZnode::INITIAL)),
            };
            self.write(vec![create], Then::EpochCreated);
            return Ok(());
        };
        let epoch = ControllerEpochZnode::decode(&node.data);
        let epoch = epoch.map_err(|error| Failure::Other(error.to_string()))?;
        self.take_seat(epoch, node.version);
        Ok(())
    }

    pub(super) fn epoch_created(&mut self, results: &[WriteResult]) {
        match results.first() {
            Some(Ok(_)) => self.take_seat(ControllerEpochZnode::INITIAL, 0),
            // Somebody was faster.
            _ => self.tasks.push(Task::Elect),
        }
    }

    fn take_seat(&mut self, epoch: ControllerEpoch, version: i32) {
        let epoch = epoch.saturating_add(1);
        let seat = ControllerSeat::new(self.settings.broker_id, self.now_ms);
        let writes = vec![
            Write::CreateEphemeral {
                path: ControllerSeat::PATH.to_owned(),
                data: seat.encode(),
            },
            Write::Set {
                path: ControllerEpochZnode::PATH.to_owned(),
                data: ControllerEpochZnode::encode(epoch),
                version: Some(version),
            },
        ];
        self.effects.push(Effect::WriteTogether(writes));
        self.then = Some(Then::SeatTaken { epoch });
    }

    pub(super) fn seat_taken(
        &mut self,
        epoch: ControllerEpoch,
        results: &[WriteResult],
    ) -> Result<(), Failure> {
        if let [Ok(_), Ok(version)] = results {
            self.elected(epoch, *version);
            return Ok(());
        }
        let was_beaten = |result: &WriteResult| {
            matches!(result, Err(WriteError::NodeExists | WriteError::BadVersion))
        };
        if !results.iter().any(was_beaten) {
            return Err(Failure::Other(format!("election failed: {results:?}")));
        }
        let reads = vec![
            Read::data(ControllerSeat::PATH.to_owned()),
            Read::data(ControllerEpochZnode::PATH.to_owned()),
        ];
        self.read(reads, Then::SeatChecked { epoch });
        Ok(())
    }

    pub(super) fn seat_checked(
        &mut self,
        epoch: ControllerEpoch,
        found: &[Found],
    ) -> Result<(), Failure> {
        let is_ours = holder(found.first()) == Some(self.settings.broker_id);
        let node = found.get(1).and_then(Found::data);
        let version = node
            .filter(|node| ControllerEpochZnode::decode(&node.data) == Ok(epoch))
            .map(|node| node.version);
        match version.filter(|_| is_ours) {
            Some(version) => {
                self.elected(epoch, version);
                Ok(())
            }
            None => Err(Failure::ControllerMoved),
        }
    }

    fn elected(&mut self, epoch: ControllerEpoch, epoch_version: i32) {
        self.active_controller = Some(self.settings.broker_id);
        self.cluster.epoch = epoch;
        self.cluster.epoch_version = epoch_version;
        self.report(Notice::Elected { epoch });
        self.fail_over();
    }

    /// Forgets everything that only a controller knows. The brokers' queues are dropped.
    pub(super) fn resign(&mut self) {
        let cluster = std::mem::take(&mut self.cluster);
        self.is_failing_over = false;
        self.batch.clear();
        if cluster.epoch == 0 {
            return;
        }
        self.effects.push(Effect::StopTimers);
        for broker in cluster.brokers.into_keys() {
            self.effects.push(Effect::CloseChannel { broker });
        }
        self.report(Notice::Resigned {
            epoch: cluster.epoch,
        });
    }

    pub(super) fn leave_seat(&mut self, epoch_version: i32) {
        self.effects.push(Effect::WriteFenced {
            epoch_version,
            writes: vec![Write::Delete {
                path: ControllerSeat::PATH.to_owned(),
            }],
        });
        self.then = Some(Then::Ignore);
    }

    /// Drops what is under way and what waits, and who waits for it.
    pub(super) fn session_expired(&mut self) {
        self.then = None;
        self.tasks.clear();
        self.refuse_asker(&Failure::ControllerMoved);
        self.queued_nodes.clear();
        self.activity_ended();
        for (_, event) in std::mem::take(&mut self.queue) {
            match event {
                super::Event::Requested { ticket, request } => self.refuse(ticket, &request),
                event @ super::Event::SettingsChanged(_) => self.begin(event),
                _ => {}
            }
        }
        self.active_controller = None;
        self.resign();
    }
}

/// Who sits there. Data that makes no sense is nobody's, as in Kafka.
fn holder(found: Option<&Found>) -> Option<BrokerId> {
    let node = found.and_then(Found::data)?;
    let seat = ControllerSeat::decode(&node.data).ok()?;
    Some(seat.broker_id)
}

/// The name of a node right under `parent`.
fn child<'a>(path: &'a str, parent: &str) -> Option<&'a str> {
    let name = path.strip_prefix(parent)?.strip_prefix('/')?;
    (!name.contains('/')).then_some(name)
}
