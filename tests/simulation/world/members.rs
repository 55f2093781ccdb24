//! Members of a consumer group, who share the partitions of a topic, commit what they have done, and come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use barnabas_core::ids::Offset;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};
use rand::Rng as _;

use super::clients::{Client, Progress, name};
use super::network::Node;
use super::transactions::is_passing;

const GROUP: &str = "members";
const SESSION_TIMEOUT_MS: i32 = 4_000;
/// Shorter than members wait for an answer.
const REBALANCE_TIMEOUT_MS: i32 = 2_000;

/// What members of the group were told, which has to fit together.
#[derive(Default)]
pub(crate) struct Memberships {
    /// By generation: the members that own partitions.
    owners: BTreeMap<i32, BTreeMap<i32, StrBytes>>,
    /// By partition: the last commit that was acknowledged, and its generation.
    committed: BTreeMap<i32, (i32, Offset)>,
    /// By partition: all that anybody has tried to commit.
    tried: BTreeMap<i32, BTreeSet<Offset>>,
}

impl Memberships {
    /// A member was given partitions.
    fn assigned(
        &mut self,
        generation: i32,
        member: &StrBytes,
        partitions: &[i32],
    ) -> Result<(), String> {
        let owners = self.owners.entry(generation).or_default();
        for partition in partitions {
            let owner = owners.entry(*partition).or_insert_with(|| member.clone());
            if owner != member {
                return Err(format!(
                    "PartitionsHaveOneOwner: {owner:?} and {member:?} own {partition} in generation {generation}"
                ));
            }
        }
        Ok(())
    }

    /// The least that who asks now must find.
    fn committed(&self, partition: i32) -> Offset {
        self.committed
            .get(&partition)
            .map_or(-1, |(_, offset)| *offset)
    }

    fn found(&self, partition: i32, least: Offset, found: Offset) -> Result<(), String> {
        let tried = self.tried.get(&partition);
        let is_known = found == -1 || tried.is_some_and(|tried| tried.contains(&found));
        if found >= least && is_known {
            return Ok(());
        }
        Err(format!(
            "CommittedOffsetsStay: the new owner of {partition} finds {found}, and {least} was committed"
        ))
    }

    fn acknowledged(&mut self, partition: i32, generation: i32, offset: Offset) {
        let last = self
            .committed
            .entry(partition)
            .or_insert((generation, offset));
        // A late answer to a member of the past says nothing of what its successors have committed since.
        if generation >= last.0 {
            *last = (generation, offset);
        }
    }
}

/// The member has to join again.
struct Expelled;

struct Member {
    client: Client,
    topic: &'static str,
    partitions: i32,
    coordinator: Option<Node>,
    id: StrBytes,
    generation: i32,
    /// Where the next commit of each partition that it owns goes.
    next: BTreeMap<i32, Offset>,
    /// What it says of itself. Another text makes a new generation, which commits that come late are none of.
    subscription: u64,
}

/// Joins, shares the partitions of the topic, commits, leaves, vanishes, and joins again.
pub(crate) async fn take_part(
    client: Client,
    topic: &'static str,
    partitions: i32,
    progress: Arc<Progress>,
) {
    let mut member = Member {
        client,
        topic,
        partitions,
        coordinator: None,
        id: StrBytes::default(),
        generation: -1,
        next: BTreeMap::new(),
        subscription: 0,
    };
    while progress.goes_on() {
        if member.take_up(&progress).await.is_err() {
            member.client.pause(200).await;
            continue;
        }
        while progress.goes_on() {
            if member.work(&progress).await.is_err() {
                break;
            }
            progress.step();
            member.client.pause(300).await;
            if member.client.random.random_bool(0.02) {
                member.go_away(&progress).await;
                break;
            }
        }
    }
    progress.has_stopped.store(true, Ordering::SeqCst);
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl Member {
    async fn find_coordinator(&mut self) {
        let request = FindCoordinatorRequest::default()
            .with_key_type(0)
            .with_coordinator_keys(vec![text(GROUP)]);
        let broker = self.client.any_broker();
        if let Ok(response) = self.client.call(broker, 4, &request).await
            && let Some(found) = response.coordinators.first()
            && found.error_code == 0
        {
            self.coordinator = Some(found.node_id.0);
        } else {
            self.client.pause(200).await;
        }
    }

    /// One attempt to be answered by the coordinator. Nothing if it passes by itself, or nobody answers.
    async fn ask<R: Request + Encodable + HeaderVersion>(
        &mut self,
        version: i16,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
    ) -> Option<Result<R::Response, Expelled>> {
        let Some(coordinator) = self.coordinator else {
            self.find_coordinator().await;
            return None;
        };
        let Ok(response) = self.client.call(coordinator, version, request).await else {
            self.coordinator = None;
            // A commit that was given up may come late.
            self.subscription += 1;
            return None;
        };
        let code = code(&response);
        if code == 0 {
            return Some(Ok(response));
        }
        if is_passing(code) {
            self.coordinator = None;
            self.client.pause(100).await;
            return None;
        }
        if code == ResponseError::UnknownMemberId.code() {
            self.id = StrBytes::default();
        } else if !is_expelling(code) {
            let error = ResponseError::try_from_code(code);
            self.violated(format!("GroupsAnswer: {:?} is told {error:?}", self.id));
        }
        Some(Err(Expelled))
    }

    /// Becomes a member of a generation that has partitions to do.
    async fn take_up(&mut self, progress: &Progress) -> Result<(), Expelled> {
        self.next.clear();
        let joined = self.join(progress).await?;
        self.generation = joined.generation_id;
        let owned = self.sync(&joined, progress).await?;
        let (id, generation) = (self.id.clone(), self.generation);
        let assigned = self.checked(|truth| truth.assigned(generation, &id, &owned));
        if let Err(violation) = assigned {
            self.violated(violation);
        }
        for partition in owned {
            let found = self.committed(partition, progress).await?;
            self.next.insert(partition, found + 1);
        }
        Ok(())
    }

    async fn join(&mut self, progress: &Progress) -> Result<JoinGroupResponse, Expelled> {
        while progress.goes_on() {
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(text("alphabetical"))
                .with_metadata(self.subscription.to_string().into());
            let request = JoinGroupRequest::default()
                .with_group_id(group())
                .with_session_timeout_ms(SESSION_TIMEOUT_MS)
                .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
                .with_member_id(self.id.clone())
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol]);
            let needs_id = ResponseError::MemberIdRequired.code();
            let answer = self.ask(5, &request, |answer| {
                if answer.error_code == needs_id {
                    0
                } else {
                    answer.error_code
                }
            });
            match answer.await {
                Some(Ok(answer)) => {
                    self.id = answer.member_id.clone();
                    if answer.error_code == 0 {
                        return Ok(answer);
                    }
                }
                Some(Err(expelled)) => return Err(expelled),
                None => {}
            }
        }
        Err(Expelled)
    }

    /// Gives back the partitions that the leader of the generation has given to this member.
    async fn sync(
        &mut self,
        joined: &JoinGroupResponse,
        progress: &Progress,
    ) -> Result<Vec<i32>, Expelled> {
        let count = joined.members.len();
        let assignments = joined.members.iter().enumerate().map(|(place, member)| {
            let own = (0..self.partitions).filter(|number| *number as usize % count == place);
            let own: Vec<String> = own.map(|number| number.to_string()).collect();
            SyncGroupRequestAssignment::default()
                .with_member_id(member.member_id.clone())
                .with_assignment(own.join(",").into())
        });
        let request = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_assignments(assignments.collect());
        while progress.goes_on() {
            if let Some(answer) = self.ask(3, &request, |answer| answer.error_code).await {
                return Ok(partitions_of(&answer?.assignment));
            }
        }
        Err(Expelled)
    }

    /// What the group has committed for a partition, -1 if nothing.
    async fn committed(&mut self, partition: i32, progress: &Progress) -> Result<Offset, Expelled> {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(name(self.topic))
            .with_partition_indexes(vec![partition]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group())
            .with_topics(Some(vec![topic]));
        while progress.goes_on() {
            let least = self.checked(|truth| truth.committed(partition));
            let Some(answer) = self.ask(6, &request, |answer| answer.error_code).await else {
                continue;
            };
            let answer = answer?;
            let topic = answer.topics.first();
            let found = topic.and_then(|topic| topic.partitions.first());
            let found = found.map_or(-1, |partition| partition.committed_offset);
            let judged = self.checked(|truth| truth.found(partition, least, found));
            if let Err(violation) = judged {
                self.violated(violation);
            }
            return Ok(found);
        }
        Err(Expelled)
    }

    /// One heartbeat, and a commit for one of its partitions.
    async fn work(&mut self, progress: &Progress) -> Result<(), Expelled> {
        let beat = HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        while progress.goes_on() {
            if let Some(answer) = self.ask(3, &beat, |answer| answer.error_code).await {
                answer?;
                break;
            }
        }
        if self.next.is_empty() {
            return Ok(());
        }
        let place = self.client.random.random_range(0..self.next.len());
        let chosen = self.next.iter().nth(place);
        let (partition, offset) = chosen
            .map(|(number, offset)| (*number, *offset))
            .ok_or(Expelled)?;
        self.commit(partition, offset, progress).await
    }

    async fn commit(
        &mut self,
        partition: i32,
        offset: Offset,
        progress: &Progress,
    ) -> Result<(), Expelled> {
        let wanted = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name(self.topic))
            .with_partitions(vec![wanted]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_topics(vec![topic]);
        let subscription = self.subscription;
        self.checked(|truth| truth.tried.entry(partition).or_default().insert(offset));
        while progress.goes_on() {
            let answer = self.ask(7, &request, |answer| {
                let topic = answer.topics.first();
                let partition = topic.and_then(|topic| topic.partitions.first());
                partition.map_or(-1, |partition| partition.error_code)
            });
            let Some(answer) = answer.await else {
                continue;
            };
            answer?;
            let generation = self.generation;
            self.checked(|truth| truth.acknowledged(partition, generation, offset));
            self.next.insert(partition, offset + 1);
            // An attempt that was given up could come after the next commit of this generation.
            return if self.subscription == subscription {
                Ok(())
            } else {
                Err(Expelled)
            };
        }
        Err(Expelled)
    }

    /// Leaves, or vanishes so that only its session tells.
    async fn go_away(&mut self, progress: &Progress) {
        let id = std::mem::take(&mut self.id);
        if self.client.random.random_bool(0.5) {
            let request = LeaveGroupRequest::default()
                .with_group_id(group())
                .with_members(vec![MemberIdentity::default().with_member_id(id)]);
            for _ in 0..5 {
                let answer = self.ask(3, &request, |answer| answer.error_code).await;
                if answer.is_some() || !progress.goes_on() {
                    break;
                }
            }
        }
        self.client.pause(4_000).await;
    }

    fn checked<T>(&self, look: impl FnOnce(&mut Memberships) -> T) -> T {
        self.client.network.checks.memberships(look)
    }

    fn violated(&self, what: impl AsRef<str>) {
        self.client.network.trace.violated(what.as_ref());
    }
}

/// What a member that has missed something is told.
fn is_expelling(code: i16) -> bool {
    [
        ResponseError::IllegalGeneration,
        ResponseError::RebalanceInProgress,
        ResponseError::UnknownMemberId,
    ]
    .iter()
    .any(|error| error.code() == code)
}

fn partitions_of(assignment: &Bytes) -> Vec<i32> {
    let text = std::str::from_utf8(assignment).unwrap_or_default();
    text.split(',')
        .filter_map(|number| number.parse().ok())
        .collect()
}
