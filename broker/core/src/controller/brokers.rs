//! Brokers that come, go, come back under a new registration, or change theirs.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{RegisteredBroker, Replica, ReplicaState};
use super::event::Found;
use super::task::{PartitionTarget, Task, Then};
use super::{Controller, Effect, Notice, Read};
use crate::control::{ControlError, ControlOutcome};
use crate::ids::{BrokerEpoch, BrokerId};
use crate::znodes::BrokerRegistration;

impl Controller {
    pub(super) fn open_channel(&mut self, registered: RegisteredBroker) {
        self.effects.push(Effect::OpenChannel {
            broker: registered.broker.clone(),
            broker_epoch: registered.epoch,
        });
        let id = registered.broker.id;
        self.cluster.brokers.insert(id, registered);
    }

    /// The registrations among `found`; those that cannot be understood are left out.
    pub(super) fn decode_brokers(
        &mut self,
        ids: &[BrokerId],
        found: &[Found],
    ) -> Vec<RegisteredBroker> {
        let mut brokers = Vec::with_capacity(ids.len());
        for (id, found) in ids.iter().zip(found) {
            let Some(node) = found.data() else {
                continue;
            };
            match BrokerRegistration::decode(*id, &node.data) {
                Ok(registration) => brokers.push(RegisteredBroker {
                    broker: registration.live_broker(),
                    epoch: node.czxid,
                }),
                Err(error) => self.report(Notice::BrokerIgnored {
                    broker: *id,
                    reason: error.to_string(),
                }),
            }
        }
        brokers
    }

    pub(super) fn list_brokers(&mut self) {
        let reads = vec![Read::watched_children(BrokerRegistration::PARENT)];
        self.read(reads, Then::BrokersListed);
    }

    pub(super) fn brokers_listed(&mut self, found: &[Found]) {
        let names = found.first().map_or(&[][..], Found::children).iter();
        let ids = names.filter_map(|name| name.parse().ok().map(BrokerId));
        let mut ids: Vec<BrokerId> = ids.collect();
        ids.sort_unstable();
        let paths = ids.iter().map(|id| BrokerRegistration::path(*id));
        let reads = paths.map(Read::watched_data).collect();
        self.read(reads, Then::BrokersRead(ids));
    }

    pub(super) fn brokers_read(&mut self, ids: &[BrokerId], found: &[Found]) {
        let registered = self.decode_brokers(ids, found);
        let registered: BTreeMap<BrokerId, RegisteredBroker> = registered
            .into_iter()
            .map(|registered| (registered.broker.id, registered))
            .collect();
        let known = &self.cluster.brokers;
        let dead: Vec<BrokerId> = known
            .keys()
            .filter(|id| !registered.contains_key(id))
            .copied()
            .collect();
        let mut new = Vec::new();
        let mut bounced = Vec::new();
        for (id, found) in registered {
            match known.get(&id) {
                None => new.push(found),
                Some(known) if found.epoch > known.epoch => bounced.push(found),
                Some(_) => {}
            }
        }
        let listed = |brokers: &[RegisteredBroker]| -> Vec<(BrokerId, BrokerEpoch)> {
            let brokers = brokers.iter();
            brokers
                .map(|known| (known.broker.id, known.epoch))
                .collect()
        };
        let (new_listed, bounced_listed) = (listed(&new), listed(&bounced));
        self.report(Notice::BrokersChanged {
            new: new_listed.clone(),
            bounced: bounced_listed.clone(),
            dead: dead.clone(),
        });
        // Queues first, as in Kafka: to the dead nothing can be sent any more, to the others it waits its turn.
        for id in bounced_listed.iter().map(|(id, _)| *id).chain(dead.clone()) {
            self.effects.push(Effect::CloseChannel { broker: id });
        }
        for registered in new.iter().chain(&bounced) {
            self.effects.push(Effect::OpenChannel {
                broker: registered.broker.clone(),
                broker_epoch: registered.epoch,
            });
        }
        let ids = |listed: Vec<(BrokerId, BrokerEpoch)>| -> Vec<BrokerId> {
            listed.into_iter().map(|(id, _)| id).collect()
        };
        let bounced_ids = ids(bounced_listed);
        let mut tasks = Vec::new();
        if !new.is_empty() {
            tasks.push(Task::BrokersStarted(ids(new_listed)));
        }
        if !bounced.is_empty() {
            tasks.push(Task::BrokersFailed(bounced_ids.clone()));
            tasks.push(Task::RegisterAgain(bounced));
            tasks.push(Task::BrokersStarted(bounced_ids));
        }
        if !dead.is_empty() {
            tasks.push(Task::BrokersFailed(dead));
        }
        for registered in new {
            let id = registered.broker.id;
            self.cluster.brokers.insert(id, registered);
        }
        self.push(tasks);
    }

    pub(super) fn register_again(&mut self, bounced: Vec<RegisteredBroker>) {
        for registered in bounced {
            let id = registered.broker.id;
            self.cluster.brokers.insert(id, registered);
        }
    }

    /// New brokers learn everything before they are told to lead or follow.
    pub(super) fn brokers_started(&mut self, ids: Vec<BrokerId>) {
        for id in &ids {
            self.cluster.offline_dirs.remove(id);
        }
        let started: BTreeSet<BrokerId> = ids.iter().copied().collect();
        let mut others = self.cluster.registered_ids();
        others.retain(|id| !started.contains(id));
        let replicas = self.cluster.replicas_on(&started);
        let on_their_way_out = replicas
            .iter()
            .filter(|(of, _)| self.cluster.is_queued_for_deletion(&of.topic))
            .map(|(of, _)| of.topic.clone())
            .collect();
        self.push([
            Task::SendMetadata {
                to: Some(others),
                partitions: Vec::new(),
            },
            Task::SendAllMetadata { to: ids },
            Task::MoveReplicas {
                replicas,
                target: ReplicaState::Online,
            },
            Task::BringPartitionsOnline,
            Task::ResumeReassignmentsTo(started),
            Task::ResumeDeletionsOf(on_their_way_out),
        ]);
    }

    pub(super) fn brokers_failed(&mut self, ids: &[BrokerId]) {
        for id in ids {
            self.cluster.offline_dirs.remove(id);
            self.cluster.shutting_down.remove(id);
            self.cluster.brokers.remove(id);
        }
        let failed = ids.iter().copied().collect();
        let replicas = self.cluster.replicas_on(&failed);
        self.tasks.push(Task::ReplicasBecameOffline(replicas));
    }

    /// First new leaders, then the ISRs: the other way round, partitions would be without leader for longer.
    pub(super) fn replicas_became_offline(&mut self, replicas: Vec<Replica>) {
        let (leaving, staying): (Vec<_>, Vec<_>) = replicas
            .into_iter()
            .partition(|(of, _)| self.cluster.is_queued_for_deletion(&of.topic));
        let all = self.cluster.all_partitions();
        let without_leader = all.filter(|(of, partition)| {
            let leader = partition.leadership.as_ref().map(|found| found.leader);
            leader.is_some_and(|leader| !self.cluster.is_online(BrokerId(leader), of))
                && !self.cluster.is_queued_for_deletion(&of.topic)
        });
        let without_leader: Vec<_> = without_leader.map(|(of, _)| of).collect();
        let mut tasks = vec![
            Task::MovePartitions {
                partitions: without_leader,
                target: PartitionTarget::Offline,
            },
            Task::BringPartitionsOnline,
        ];
        if staying.is_empty() {
            tasks.push(Task::AnnounceUnlessElected);
        }
        tasks.push(Task::MoveReplicas {
            replicas: staying,
            target: ReplicaState::Offline,
        });
        tasks.push(Task::FailReplicaDeletions(leaving));
        self.push(tasks);
    }

    pub(super) fn announce_unless_elected(&mut self) {
        if !self.elections.values().any(Result::is_ok) {
            self.send_metadata(None, &[]);
        }
    }

    pub(super) fn read_broker(&mut self, id: BrokerId) {
        let reads = vec![Read::watched_data(BrokerRegistration::path(id))];
        self.read(reads, Then::BrokerRead(id));
    }

    /// New endpoints or a new rack under the same registration.
    pub(super) fn broker_read(&mut self, id: BrokerId, found: &[Found]) {
        let Some(registered) = self.decode_brokers(&[id], found).pop() else {
            return;
        };
        let Some(known) = self.cluster.brokers.get_mut(&id) else {
            return;
        };
        if known.broker == registered.broker {
            return;
        }
        let listener = &self.settings.control_listener;
        let has_moved = known.broker.endpoint(listener) != registered.broker.endpoint(listener);
        known.broker = registered.broker;
        if has_moved {
            self.effects.push(Effect::MoveChannel {
                broker: known.broker.clone(),
            });
            // What waited in the old queue is lost with it: say everything again.
            let replicas = self.cluster.replicas_on(&BTreeSet::from([id]));
            self.push([
                Task::SendAllMetadata { to: vec![id] },
                Task::MoveReplicas {
                    replicas,
                    target: ReplicaState::Online,
                },
            ]);
        }
        self.send_metadata(None, &[]);
    }

    /// A broker may say of single replicas that their log directory failed, or is back.
    pub(super) fn leader_and_isr_answered(&mut self, broker: BrokerId, outcome: &ControlOutcome) {
        if let Err(error) = &outcome.result {
            self.report(Notice::BrokerRefused {
                broker,
                request: "LeaderAndIsr",
                reason: error.to_string(),
            });
            return;
        }
        let offline = self.cluster.offline_dirs.entry(broker).or_default();
        let mut newly_offline = Vec::new();
        for (of, result) in &outcome.partitions {
            match result {
                Ok(()) => {
                    offline.remove(of);
                }
                Err(ControlError::StorageError) => {
                    if offline.insert(of.clone()) {
                        newly_offline.push(of.clone());
                    }
                }
                // A leader epoch that is not newer, above all: the broker knows already.
                Err(
                    ControlError::StaleControllerEpoch
                    | ControlError::StaleBrokerEpoch
                    | ControlError::FencedLeaderEpoch
                    | ControlError::InconsistentTopicId
                    | ControlError::UnknownTopicOrPartition
                    | ControlError::Unexpected,
                ) => {}
            }
        }
        if newly_offline.is_empty() {
            return;
        }
        self.report(Notice::ReplicasOffline {
            broker,
            partitions: newly_offline.clone(),
        });
        let replicas = newly_offline.into_iter().map(|of| (of, broker)).collect();
        self.tasks.push(Task::ReplicasBecameOffline(replicas));
    }
}
