//! What brokers ask of the controller: other ISRs, to be relieved before they stop, producer ids.

use super::alter_partition::{
    AlterPartition, AlterPartitionError, AlteredPartition, IsrRefusal, ProposedPartition, Verdict,
    judge,
};
use super::cluster::ReplicaState;
use super::election::Election;
use super::event::{Found, Request, Ticket, WriteError, WriteResult};
use super::partitions::state_write;
use super::reassignment::IfIncomplete;
use super::request_batch::Stop;
use super::task::{PartitionTarget, Task, Then};
use super::{
    AllocateProducerIdsError, Answer, Asked, ControlledShutdownError, Controller, ControllerError,
    Effect, Failure, Notice, Read, Write,
};
use crate::control::Leadership;
use crate::ids::{BrokerEpoch, BrokerId, TopicPartition};
use crate::znodes::ProducerIdBlock;

impl Controller {
    pub(super) fn requested(&mut self, ticket: Ticket, request: Request) {
        if !self.is_active() {
            self.refuse(ticket, &request);
            return;
        }
        match request {
            Request::AlterPartition(request) => {
                self.asker = Some((ticket, Asked::AlterPartition));
                let known = self.cluster.brokers.get(&request.broker);
                let is_current = known.is_some_and(|known| {
                    known.epoch == request.broker_epoch && self.cluster.is_live(request.broker)
                });
                if is_current {
                    self.tasks.push(Task::AlterPartitions(request));
                } else {
                    let error = AlterPartitionError::StaleBrokerEpoch;
                    self.answer(Answer::AlterPartition(Err(error)));
                }
            }
            Request::ControlledShutdown {
                broker,
                broker_epoch,
            } => {
                self.asker = Some((ticket, Asked::ControlledShutdown));
                self.shut_down(broker, broker_epoch);
            }
            Request::AllocateProducerIds {
                broker,
                broker_epoch,
            } => {
                self.asker = Some((ticket, Asked::AllocateProducerIds));
                let refusal = match self.cluster.brokers.get(&broker) {
                    None => Some(AllocateProducerIdsError::BrokerNotRegistered),
                    Some(known) if known.epoch != broker_epoch => {
                        Some(AllocateProducerIdsError::StaleBrokerEpoch)
                    }
                    Some(_) => None,
                };
                match refusal {
                    Some(error) => self.answer(Answer::AllocateProducerIds(Err(error))),
                    None => self.tasks.push(Task::AllocateProducerIds(broker)),
                }
            }
            Request::ElectLeaders { kind, partitions } => {
                self.asker = Some((ticket, Asked::ElectLeaders));
                self.tasks.push(Task::ElectOnDemand { partitions, kind });
            }
            Request::AlterReassignments(wanted) => {
                self.asker = Some((ticket, Asked::AlterReassignments));
                self.tasks.push(Task::AlterReassignments(wanted));
            }
            Request::ListReassignments(wanted) => {
                self.asker = Some((ticket, Asked::ListReassignments));
                self.list_reassignments(wanted.as_ref());
            }
        }
    }

    /// Answers who asked for the current event.
    pub(super) fn answer(&mut self, answer: Answer) {
        if let Some((ticket, _)) = self.asker.take() {
            self.effects.push(Effect::Answer { ticket, answer });
        }
    }

    /// The answer of who is not controller.
    pub(super) fn refuse(&mut self, ticket: Ticket, request: &Request) {
        let asked = match request {
            Request::AlterPartition(_) => Asked::AlterPartition,
            Request::ControlledShutdown { .. } => Asked::ControlledShutdown,
            Request::AllocateProducerIds { .. } => Asked::AllocateProducerIds,
            Request::ElectLeaders { .. } => Asked::ElectLeaders,
            Request::AlterReassignments(_) => Asked::AlterReassignments,
            Request::ListReassignments(_) => Asked::ListReassignments,
        };
        self.asker = Some((ticket, asked));
        self.refuse_asker(&Failure::ControllerMoved);
    }

    /// The answer when the current event is given up.
    pub(super) fn refuse_asker(&mut self, failure: &Failure) {
        let Some((_, asked)) = self.asker else {
            return;
        };
        let moved = *failure == Failure::ControllerMoved;
        let error = if moved {
            ControllerError::NotController
        } else {
            ControllerError::Failed
        };
        let answer = match (asked, moved) {
            (Asked::ElectLeaders, _) => Answer::ElectLeaders(Err(error)),
            (Asked::AlterReassignments, _) => Answer::AlterReassignments(Err(error)),
            (Asked::ListReassignments, _) => Answer::ListReassignments(Err(error)),
            (Asked::AlterPartition, true) => {
                Answer::AlterPartition(Err(AlterPartitionError::NotController))
            }
            (Asked::AlterPartition, false) => {
                Answer::AlterPartition(Err(AlterPartitionError::Failed))
            }
            (Asked::ControlledShutdown, true) => {
                Answer::ControlledShutdown(Err(ControlledShutdownError::NotController))
            }
            (Asked::ControlledShutdown, false) => {
                Answer::ControlledShutdown(Err(ControlledShutdownError::Failed))
            }
            (Asked::AllocateProducerIds, true) => {
                Answer::AllocateProducerIds(Err(AllocateProducerIdsError::NotController))
            }
            (Asked::AllocateProducerIds, false) => {
                Answer::AllocateProducerIds(Err(AllocateProducerIdsError::Failed))
            }
        };
        self.answer(answer);
    }

    pub(super) fn alter_partitions(&mut self, request: AlterPartition) {
        let mut answers = Vec::with_capacity(request.partitions.len());
        let mut writes = Vec::new();
        for proposal in request.partitions {
            let of = self.named(&proposal.partition);
            let result = match &of {
                None => Err(IsrRefusal::UnknownTopicId),
                Some(of) => {
                    let current = self.cluster.leadership(of);
                    let is_live = |id| self.cluster.is_live(id);
                    let (broker, version) = (request.broker, request.version);
                    match judge(&proposal, broker, version, current, is_live) {
                        Verdict::Refused(refusal) => Err(refusal),
                        Verdict::AlreadyInForce => {
                            current.cloned().ok_or(IsrRefusal::UnknownTopicOrPartition)
                        }
                        Verdict::Write(mut next) => {
                            next.controller_epoch = self.cluster.epoch;
                            writes.push((answers.len(), of.clone(), next.clone()));
                            Ok(next)
                        }
                    }
                }
            };
            answers.push(AlteredPartition {
                partition: proposal.partition,
                result,
            });
        }
        if writes.is_empty() {
            self.answer(Answer::AlterPartition(Ok(answers)));
            return;
        }
        let sets = writes.iter().map(|(_, of, next)| state_write(of, next));
        let sets = sets.collect();
        self.write_fenced(sets, Then::IsrProposalsWritten { answers, writes });
    }

    /// The partition that a leader means; `None` for an unknown topic id.
    fn named(&self, partition: &ProposedPartition) -> Option<TopicPartition> {
        match partition {
            ProposedPartition::ByName(of) => Some(of.clone()),
            ProposedPartition::ById {
                topic_id,
                partition,
            } => {
                let topic = self.cluster.topic_named(*topic_id)?;
                Some(TopicPartition::new(topic.clone(), *partition))
            }
        }
    }

    pub(super) fn isr_proposals_written(
        &mut self,
        mut answers: Vec<AlteredPartition>,
        writes: Vec<(usize, TopicPartition, Leadership)>,
        results: Vec<WriteResult>,
    ) {
        let mut changed = Vec::new();
        let mut unknown = Vec::new();
        let mut reassigning = Vec::new();
        for ((index, of, mut leadership), result) in writes.into_iter().zip(results) {
            let result = match result {
                Ok(version) => {
                    leadership.partition_epoch = version;
                    if let Some(partition) = self.cluster.partition_mut(&of) {
                        partition.leadership = Some(leadership.clone());
                    }
                    if self.cluster.reassigning.contains(&of) {
                        reassigning.push(of.clone());
                    }
                    Ok(leadership)
                }
                Err(WriteError::BadVersion) => {
                    unknown.push(of.clone());
                    Err(IsrRefusal::InvalidUpdateVersion)
                }
                Err(WriteError::NoNode | WriteError::NodeExists | WriteError::Other(_)) => {
                    Err(IsrRefusal::Failed)
                }
            };
            answers[index].result = result;
            changed.push(of);
        }
        self.answer(Answer::AlterPartition(Ok(answers)));
        self.push([
            Task::SendMetadata {
                to: None,
                partitions: changed,
            },
            // A follower that caught up may be the last one that a reassignment waited for.
            Task::ContinueReassignments {
                partitions: reassigning,
                if_incomplete: IfIncomplete::Wait,
            },
        ]);
        if !unknown.is_empty() {
            // Somebody else wrote these states: know them before the next proposal comes.
            let reads = super::failover::state_reads(&unknown);
            self.read(reads, Then::LeadershipsRead(unknown));
        }
    }

    fn shut_down(&mut self, broker: BrokerId, broker_epoch: BrokerEpoch) {
        let refusal = match self.cluster.brokers.get(&broker) {
            Some(known) if broker_epoch != -1 && broker_epoch < known.epoch => {
                Some(ControlledShutdownError::StaleBrokerEpoch)
            }
            Some(_) => None,
            // Kafka looks for an epoch that is not there.
            None if broker_epoch != -1 => Some(ControlledShutdownError::Failed),
            None => Some(ControlledShutdownError::BrokerNotAvailable),
        };
        if let Some(error) = refusal {
            self.answer(Answer::ControlledShutdown(Err(error)));
            return;
        }
        self.report(Notice::ControlledShutdownBegan { broker });
        self.cluster.shutting_down.insert(broker);
        let (mut led, mut followed) = (Vec::new(), Vec::new());
        for (of, partition) in self.cluster.all_partitions() {
            let replicas = &partition.assignment.replicas;
            let is_staying = !self.cluster.is_queued_for_deletion(&of.topic);
            let Some(leadership) = &partition.leadership else {
                continue;
            };
            if replicas.len() > 1 && replicas.contains(&broker) && is_staying {
                if leadership.leader == broker.0 {
                    led.push(of);
                } else {
                    followed.push(of);
                }
            }
        }
        // Followers first stop fetching, then leave the ISRs.
        self.batch.clear();
        for of in &followed {
            self.batch
                .stop_replica(&self.cluster, broker, of, Stop::KeepLog);
        }
        let replicas = followed.into_iter().map(|of| (of, broker)).collect();
        let stop = std::mem::take(&mut self.batch);
        let stop = Task::SendPrepared(Box::new(stop));
        self.push([
            Task::MovePartitions {
                partitions: led,
                target: PartitionTarget::Online(Election::ControlledShutdown),
            },
            stop,
            Task::MoveReplicas {
                replicas,
                target: ReplicaState::Offline,
            },
            Task::AnswerControlledShutdown(broker),
        ]);
    }

    pub(super) fn answer_controlled_shutdown(&mut self, broker: BrokerId) {
        let all = self.cluster.all_partitions();
        let still_led = all.filter(|(of, partition)| {
            let leader = partition.leadership.as_ref().map(|found| found.leader);
            leader == Some(broker.0)
                && partition.assignment.replicas.len() > 1
                && !self.cluster.is_queued_for_deletion(&of.topic)
        });
        let still_led = still_led.map(|(of, _)| of).collect();
        self.answer(Answer::ControlledShutdown(Ok(still_led)));
    }

    pub(super) fn read_producer_ids(&mut self, broker: BrokerId) {
        let reads = vec![Read::data(ProducerIdBlock::PATH.to_owned())];
        self.read(reads, Then::ProducerIdsRead(broker));
    }

    pub(super) fn producer_ids_read(
        &mut self,
        broker: BrokerId,
        found: &[Found],
    ) -> Result<(), Failure> {
        let Some(node) = found.first().and_then(Found::data) else {
            let path = ProducerIdBlock::PATH;
            return Err(Failure::Other(format!("{path} does not exist")));
        };
        let latest = ProducerIdBlock::decode(&node.data)
            .map_err(|error| Failure::Other(error.to_string()))?;
        let Some(block) = ProducerIdBlock::next(latest.as_ref(), broker) else {
            let error = AllocateProducerIdsError::Exhausted;
            self.answer(Answer::AllocateProducerIds(Err(error)));
            return Ok(());
        };
        let set = Write::Set {
            path: ProducerIdBlock::PATH.to_owned(),
            data: block.encode(),
            version: Some(node.version),
        };
        self.write(vec![set], Then::ProducerIdsWritten { broker, block });
        Ok(())
    }

    pub(super) fn producer_ids_written(
        &mut self,
        broker: BrokerId,
        block: &ProducerIdBlock,
        results: &[WriteResult],
    ) -> Result<(), Failure> {
        match results.first() {
            Some(Ok(_)) => {
                let ids = block.ids.clone();
                self.answer(Answer::AllocateProducerIds(Ok(ids)));
                Ok(())
            }
            // Another controller was faster, or it was us over a connection that broke.
            Some(Err(WriteError::BadVersion)) => {
                self.tasks.push(Task::AllocateProducerIds(broker));
                Ok(())
            }
            Some(Err(error)) => Err(Failure::Other(error.to_string())),
            None => Err(Failure::Other("no answer to a write".to_owned())),
        }
    }
}
