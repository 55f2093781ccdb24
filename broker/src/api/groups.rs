//! Consumer groups: finding their coordinators, belonging to them, looking at them, deleting them.

use std::sync::Arc;

use barnabas_core::group::{
    GroupError, Join, JoinFailure, Joined, Leaver, MemberDescription, MemberRef, Sync, Synced,
    Ticket,
};
use kafka_protocol::messages::consumer_group_describe_response::DescribedGroup as DescribedConsumerGroup;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, GroupId, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use rand::Rng as _;

use super::error_code::{NONE, ToErrorCode as _, code_of};
use super::{Context, RequestError};
use crate::host;

/// What everybody may do with a group where nothing is forbidden: a bit per operation (KIP-430).
const ALL_GROUP_OPERATIONS: i32 = 0b1_0100_1000;

/// The only type of groups that there is without `KRaft` (KIP-848).
const CLASSIC: &str = "classic";

/// A generation that is none.
const NO_GENERATION: i32 = -1;

pub(super) fn text(text: &StrBytes) -> Arc<str> {
    Arc::from(text.as_str())
}

pub(super) fn optional_text(text: Option<&StrBytes>) -> Option<Arc<str>> {
    text.map(|text| Arc::from(text.as_str()))
}

pub(super) fn wire_text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn optional_wire_text(text: Option<&Arc<str>>) -> Option<StrBytes> {
    text.map(|text| wire_text(text))
}

/// `JoinGroup` (key 11, v0–9): belongs to a group from the end of its rebalance on.
pub async fn join_group(request: JoinGroupRequest, context: &Context<'_>) -> JoinGroupResponse {
    let version = context.version;
    let rebalance_timeout_ms = if version == 0 {
        request.session_timeout_ms
    } else {
        request.rebalance_timeout_ms
    };
    let protocols = request.protocols.iter();
    let bytes: [u8; 16] = host::random().random();
    let join = Join {
        ticket: Ticket::default(),
        member_id: text(&request.member_id),
        client_id: Arc::from(context.client_id.unwrap_or_default()),
        client_host: Arc::from(context.connection.host()),
        rebalance_timeout_ms,
        session_timeout_ms: request.session_timeout_ms,
        protocol_type: text(&request.protocol_type),
        protocols: protocols
            .map(|protocol| (text(&protocol.name), protocol.metadata.clone()))
            .collect(),
        needs_known_id: version >= 4 && request.group_instance_id.is_none(),
        can_skip_assignment: version >= 9,
        group_instance_id: optional_text(request.group_instance_id.as_ref()),
        unique: uuid::Builder::from_random_bytes(bytes).into_uuid(),
    };
    let groups = &context.broker.groups;
    match groups.join(&request.group_id, join).await {
        Ok(joined) => respond_joined(&joined, version),
        Err(failure) => respond_not_joined(&failure, version),
    }
}

fn respond_joined(joined: &Joined, version: i16) -> JoinGroupResponse {
    let members = joined.members.iter().map(|member| {
        let mut answer = JoinGroupResponseMember::default()
            .with_member_id(wire_text(&member.member_id))
            .with_metadata(member.metadata.clone());
        if version >= 5 {
            answer.group_instance_id = optional_wire_text(member.group_instance_id.as_ref());
        }
        answer
    });
    let mut response = JoinGroupResponse::default()
        .with_generation_id(joined.generation_id)
        .with_protocol_name(protocol_name(joined.protocol.as_ref(), version))
        .with_leader(wire_text(&joined.leader))
        .with_member_id(wire_text(&joined.member_id))
        .with_members(members.collect());
    if version >= 7 {
        response.protocol_type = optional_wire_text(joined.protocol_type.as_ref());
    }
    if version >= 9 {
        response.skip_assignment = joined.skip_assignment;
    }
    response
}

fn respond_not_joined(failure: &JoinFailure, version: i16) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(failure.error.error_code())
        .with_generation_id(NO_GENERATION)
        .with_protocol_name(protocol_name(None, version))
        .with_member_id(wire_text(&failure.member_id))
}

/// Before version 7 the name cannot be null, from then on an empty one is.
fn protocol_name(name: Option<&Arc<str>>, version: i16) -> Option<StrBytes> {
    let name = optional_wire_text(name);
    if version < 7 {
        Some(name.unwrap_or_default())
    } else {
        name.filter(|name| !name.is_empty())
    }
}

/// `SyncGroup` (key 14, v0–5): what a member is to work on.
pub async fn sync_group(request: SyncGroupRequest, context: &Context<'_>) -> SyncGroupResponse {
    let version = context.version;
    let lacks_protocol = request.protocol_type.is_none() || request.protocol_name.is_none();
    let result = if version >= 5 && lacks_protocol {
        Err(GroupError::InconsistentGroupProtocol)
    } else {
        let assignments = request.assignments.iter();
        let sync = Sync {
            ticket: Ticket::default(),
            member_id: text(&request.member_id),
            group_instance_id: optional_text(request.group_instance_id.as_ref()),
            generation_id: request.generation_id,
            protocol_type: optional_text(request.protocol_type.as_ref()),
            protocol: optional_text(request.protocol_name.as_ref()),
            assignments: assignments
                .map(|one| (text(&one.member_id), one.assignment.clone()))
                .collect(),
        };
        context.broker.groups.sync(&request.group_id, sync).await
    };
    let mut response = SyncGroupResponse::default().with_error_code(code_of(&result));
    if let Ok(Synced {
        protocol_type,
        protocol,
        assignment,
    }) = result
    {
        response.assignment = assignment;
        if version >= 5 {
            response.protocol_type = optional_wire_text(protocol_type.as_ref());
            response.protocol_name = optional_wire_text(protocol.as_ref());
        }
    }
    response
}

/// `Heartbeat` (key 12, v0–4): a member is alive.
pub async fn heartbeat(request: HeartbeatRequest, context: &Context<'_>) -> HeartbeatResponse {
    let member = MemberRef {
        member_id: &request.member_id,
        group_instance_id: request.group_instance_id.as_deref(),
        generation_id: request.generation_id,
    };
    let result = context.broker.groups.heartbeat(&request.group_id, member);
    HeartbeatResponse::default().with_error_code(code_of(&result))
}

/// `LeaveGroup` (key 13, v0–5): members are gone; from version 3 on several, also by their instance ids.
pub async fn leave_group(request: LeaveGroupRequest, context: &Context<'_>) -> LeaveGroupResponse {
    let groups = &context.broker.groups;
    if context.version < 3 {
        let leaver = Leaver {
            member_id: text(&request.member_id),
            group_instance_id: None,
        };
        let results = groups.leave(&request.group_id, &[leaver]);
        let result = results.and_then(|results| results.into_iter().collect::<Result<Vec<_>, _>>());
        return LeaveGroupResponse::default().with_error_code(code_of(&result));
    }
    let leavers: Vec<Leaver> = request
        .members
        .iter()
        .map(|member| Leaver {
            member_id: text(&member.member_id),
            group_instance_id: optional_text(member.group_instance_id.as_ref()),
        })
        .collect();
    match groups.leave(&request.group_id, &leavers) {
        Ok(results) => {
            let members = request.members.into_iter().zip(results);
            let members = members.map(|(member, result)| {
                MemberResponse::default()
                    .with_member_id(member.member_id)
                    .with_group_instance_id(member.group_instance_id)
                    .with_error_code(code_of(&result))
            });
            LeaveGroupResponse::default().with_members(members.collect())
        }
        Err(error) => LeaveGroupResponse::default().with_error_code(error.error_code()),
    }
}

/// `DescribeGroups` (key 15, v0–5).
pub async fn describe_groups(
    request: DescribeGroupsRequest,
    context: &Context<'_>,
) -> DescribeGroupsResponse {
    let operations = request.include_authorized_operations;
    let groups = request
        .groups
        .into_iter()
        .map(|group| describe_group(group, operations, context));
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn describe_group(group: GroupId, operations: bool, context: &Context<'_>) -> DescribedGroup {
    let description = context.broker.groups.describe(&group);
    let answer = DescribedGroup::default()
        .with_error_code(code_of(&description))
        .with_group_id(group);
    let Ok(description) = description else {
        return answer;
    };
    let members = description.members.iter();
    let mut answer = answer
        .with_group_state(StrBytes::from_static_str(description.state.name()))
        .with_protocol_type(wire_text(&description.protocol_type))
        .with_protocol_data(wire_text(&description.protocol))
        .with_members(
            members
                .map(|member| describe_member(member, context))
                .collect(),
        );
    if context.version >= 3 && operations {
        answer.authorized_operations = ALL_GROUP_OPERATIONS;
    }
    answer
}

fn describe_member(member: &MemberDescription, context: &Context<'_>) -> DescribedGroupMember {
    let mut answer = DescribedGroupMember::default()
        .with_member_id(wire_text(&member.member_id))
        .with_client_id(wire_text(&member.client_id))
        .with_client_host(wire_text(&member.client_host))
        .with_member_metadata(member.metadata.clone())
        .with_member_assignment(member.assignment.clone());
    if context.version >= 4 {
        answer.group_instance_id = optional_wire_text(member.group_instance_id.as_ref());
    }
    answer
}

/// `ListGroups` (key 16, v0–5): the groups that this broker coordinates.
pub async fn list_groups(request: ListGroupsRequest, context: &Context<'_>) -> ListGroupsResponse {
    let version = context.version;
    let (groups, is_loading) = match context.broker.groups.list() {
        Ok(listed) => listed,
        Err(error) => return ListGroupsResponse::default().with_error_code(error.error_code()),
    };
    let is_wanted = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|one| one.eq_ignore_ascii_case(value))
    };
    let groups = groups.iter().filter(|group| {
        is_wanted(&request.states_filter, group.state.name())
            && is_wanted(&request.types_filter, CLASSIC)
    });
    let groups = groups.map(|group| {
        let mut answer = ListedGroup::default()
            .with_group_id(GroupId(wire_text(&group.group)))
            .with_protocol_type(wire_text(&group.protocol_type));
        if version >= 4 {
            answer.group_state = StrBytes::from_static_str(group.state.name());
        }
        if version >= 5 {
            answer.group_type = StrBytes::from_static_str(CLASSIC);
        }
        answer
    });
    let error = if is_loading {
        GroupError::CoordinatorLoadInProgress.error_code()
    } else {
        NONE
    };
    ListGroupsResponse::default()
        .with_error_code(error)
        .with_groups(groups.collect())
}

/// `DeleteGroups` (key 42, v0–2).
pub async fn delete_groups(
    request: DeleteGroupsRequest,
    context: &Context<'_>,
) -> DeleteGroupsResponse {
    let mut results: Vec<DeletableGroupResult> = Vec::new();
    for group in request.groups_names {
        if results.iter().any(|result| result.group_id == group) {
            continue;
        }
        let deleted = context.broker.groups.delete(&group);
        let result = DeletableGroupResult::default()
            .with_group_id(group)
            .with_error_code(code_of(&deleted));
        results.push(result);
    }
    DeleteGroupsResponse::default().with_results(results)
}

/// `ConsumerGroupHeartbeat` (key 68, v0): the protocol of KIP-848 needs `KRaft`.
pub async fn consumer_group_heartbeat(
    _request: ConsumerGroupHeartbeatRequest,
    _context: &Context<'_>,
) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(RequestError::UnsupportedVersion.error_code())
}

/// `ConsumerGroupDescribe` (key 69, v0): likewise.
pub async fn consumer_group_describe(
    request: ConsumerGroupDescribeRequest,
    _context: &Context<'_>,
) -> ConsumerGroupDescribeResponse {
    let groups = request.group_ids.into_iter().map(|group| {
        DescribedConsumerGroup::default()
            .with_group_id(group)
            .with_error_code(RequestError::UnsupportedVersion.error_code())
    });
    ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
}
