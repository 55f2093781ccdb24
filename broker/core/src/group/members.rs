//! Who belongs to a group and which protocols all of them have.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::classic::Ticket;
use super::records::GenerationMember;
use crate::time::Deadline;

/// Names of protocols and what a member says of itself under each, the preferred one first.
pub(super) type Protocols = Vec<(Arc<str>, Bytes)>;

/// One member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) group_instance_id: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    protocols: Protocols,
    pub(super) assignment: Bytes,
    join: Option<Ticket>,
    pub(super) sync: Option<Ticket>,
    /// It never saw a generation: it is given time until the join completes instead of its session timeout.
    pub(super) is_new: bool,
    /// When it is taken for dead; none while it waits for the others.
    pub(super) deadline: Option<Deadline>,
}

impl Member {
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let mut protocols = self.protocols.iter();
        protocols
            .find(|(name, _)| &**name == protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }

    pub(super) fn has(&self, protocols: &Protocols) -> bool {
        self.protocols == *protocols
    }

    pub(super) fn protocols(&self) -> &Protocols {
        &self.protocols
    }

    pub(super) fn is_joining(&self) -> bool {
        self.join.is_some()
    }

    pub(super) fn is_static(&self) -> bool {
        self.group_instance_id.is_some()
    }
}

/// What a new member brings.
pub(super) struct NewMember {
    pub(super) group_instance_id: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocols: Protocols,
}

/// All members of a group, by id.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    by_id: BTreeMap<Arc<str>, Member>,
    /// Ids of members by the instance ids of those that are static (KIP-345).
    by_instance: BTreeMap<Arc<str>, Arc<str>>,
    /// How many members have a protocol.
    support: BTreeMap<Arc<str>, usize>,
    joining: usize,
    pub(super) leader: Option<Arc<str>>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many wait for the join to complete.
    pub(super) fn joining(&self) -> usize {
        self.joining
    }

    pub(super) fn get(&self, id: &str) -> Option<&Member> {
        self.by_id.get(id)
    }

    /// Not for protocols and waiting joins, which are counted.
    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.by_id.get_mut(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Member)> {
        self.by_id.iter()
    }

    pub(super) fn ids(&self) -> Vec<Arc<str>> {
        self.by_id.keys().cloned().collect()
    }

    pub(super) fn id_of_instance(&self, instance: &str) -> Option<&Arc<str>> {
        self.by_instance.get(instance)
    }

    pub(super) fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    /// Whether some protocol of these is one that all members have; without members any is.
    pub(super) fn share_one_of(&self, protocols: &Protocols) -> bool {
        let mut protocols = protocols.iter();
        let having = |name| self.support.get(name).copied().unwrap_or(0);
        protocols.any(|(name, _)| having(name) == self.len())
    }

    /// The longest time that any member wants to have for a rebalance; milliseconds.
    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        let timeouts = self
            .by_id
            .values()
            .map(|member| member.rebalance_timeout_ms);
        timeouts.max().unwrap_or(0)
    }

    pub(super) fn add(&mut self, id: &Arc<str>, new: NewMember, join: Option<Ticket>) {
        if let Some(instance) = &new.group_instance_id {
            self.by_instance
                .insert(Arc::clone(instance), Arc::clone(id));
        }
        if self.leader.is_none() {
            self.leader = Some(Arc::clone(id));
        }
        self.count(&new.protocols);
        self.joining += usize::from(join.is_some());
        let member = Member {
            group_instance_id: new.group_instance_id,
            client_id: new.client_id,
            client_host: new.client_host,
            rebalance_timeout_ms: new.rebalance_timeout_ms,
            session_timeout_ms: new.session_timeout_ms,
            protocols: new.protocols,
            assignment: Bytes::new(),
            join,
            sync: None,
            is_new: join.is_some(),
            deadline: None,
        };
        self.by_id.insert(Arc::clone(id), member);
    }

    fn count(&mut self, protocols: &Protocols) {
        let mut counted: Vec<&Arc<str>> = Vec::with_capacity(protocols.len());
        for (name, _) in protocols {
            if !counted.contains(&name) {
                counted.push(name);
                *self.support.entry(Arc::clone(name)).or_default() += 1;
            }
        }
    }

    fn discount(&mut self, protocols: &Protocols) {
        let mut counted: Vec<&Arc<str>> = Vec::with_capacity(protocols.len());
        for (name, _) in protocols {
            if counted.contains(&name) {
                continue;
            }
            counted.push(name);
            if let Some(count) = self.support.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.support.remove(name);
                }
            }
        }
    }

    /// Removes a member; if it led, any other leads from now on.
    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.by_id.remove(id)?;
        self.discount(&member.protocols);
        self.joining -= usize::from(member.join.is_some());
        if let Some(instance) = &member.group_instance_id {
            self.by_instance.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.by_id.keys().next().cloned();
        }
        Some(member)
    }

    /// A member says anew what it can do. Returns the request that it waited with before, which nobody else answers.
    pub(super) fn update(
        &mut self,
        id: &str,
        protocols: Protocols,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
        join: Option<Ticket>,
    ) -> Option<Ticket> {
        let member = self.by_id.get_mut(id)?;
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        let old = std::mem::replace(&mut member.protocols, protocols);
        let waited = std::mem::replace(&mut member.join, join);
        let new = member.protocols.clone();
        self.discount(&old);
        self.count(&new);
        self.joining += usize::from(join.is_some());
        self.joining -= usize::from(waited.is_some());
        waited
    }

    /// Takes the request with which a member waits for the join to complete.
    pub(super) fn take_join(&mut self, id: &str) -> Option<Ticket> {
        let ticket = self.by_id.get_mut(id)?.join.take()?;
        self.joining -= 1;
        Some(ticket)
    }

    /// Gives a static member another id.
    pub(super) fn rename(&mut self, instance: &Arc<str>, from: &str, to: &Arc<str>) {
        if let Some(member) = self.by_id.remove(from) {
            self.by_id.insert(Arc::clone(to), member);
            self.by_instance
                .insert(Arc::clone(instance), Arc::clone(to));
            if self.is_leader(from) {
                self.leader = Some(Arc::clone(to));
            }
        }
    }

    /// The protocol that most members want of those that all have. Each votes for its first; of equals the one that
    /// comes first by name wins.
    pub(super) fn elect_protocol(&self) -> Option<Arc<str>> {
        let all = self.len();
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.by_id.values() {
            let mut protocols = member.protocols.iter();
            let vote = protocols.find(|(name, _)| self.support.get(name) == Some(&all));
            if let Some((name, _)) = vote {
                *votes.entry(name).or_default() += 1;
            }
        }
        let mut winner: Option<(&Arc<str>, usize)> = None;
        for (name, count) in votes {
            if winner.is_none_or(|(_, most)| count > most) {
                winner = Some((name, count));
            }
        }
        winner.map(|(name, _)| Arc::clone(name))
    }

    /// Makes a member that has joined the leader, if the leader has not. False if nobody has joined.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let leader = self
            .leader
            .as_ref()
            .and_then(|leader| self.by_id.get(leader));
        if leader.is_some_and(Member::is_joining) {
            return true;
        }
        let mut members = self.by_id.iter();
        let joined = members.find(|(_, member)| member.is_joining());
        match joined {
            Some((id, _)) => {
                self.leader = Some(Arc::clone(id));
                true
            }
            None => false,
        }
    }

    /// The members as a record of the log has them. Those that were here keep their requests and deadlines.
    pub(super) fn adopt(
        &mut self,
        protocol: Option<&Arc<str>>,
        leader: Option<&Arc<str>>,
        members: &[GenerationMember],
    ) {
        let mut before = std::mem::take(self);
        for recorded in members {
            let id = &recorded.member_id;
            let known = before.by_id.remove(id);
            // Whoever is here may have more protocols than the one that the record has, but that one must be the same: a
            // log that is loaded replays generation after generation.
            let has_recorded = |member: &Member| {
                member.protocols.iter().any(|(name, metadata)| {
                    Some(name) == protocol && *metadata == recorded.subscription
                })
            };
            let protocols = match (&known, protocol) {
                (Some(known), _) if has_recorded(known) => known.protocols.clone(),
                (_, Some(protocol)) => {
                    vec![(Arc::clone(protocol), recorded.subscription.clone())]
                }
                (_, None) => Vec::new(),
            };
            let new = NewMember {
                group_instance_id: recorded.group_instance_id.clone(),
                client_id: Arc::clone(&recorded.client_id),
                client_host: Arc::clone(&recorded.client_host),
                rebalance_timeout_ms: recorded.rebalance_timeout_ms,
                session_timeout_ms: recorded.session_timeout_ms,
                protocols,
            };
            self.add(id, new, known.as_ref().and_then(|known| known.join));
            if let Some(member) = self.by_id.get_mut(id) {
                member.assignment = recorded.assignment.clone();
                member.sync = known.as_ref().and_then(|known| known.sync);
                member.deadline = known.as_ref().and_then(|known| known.deadline);
                member.is_new = false;
            }
        }
        self.leader = leader.cloned();
    }

    /// The members as a record of the log will have them.
    pub(super) fn recorded(&self, protocol: &str) -> Vec<GenerationMember> {
        let members = self.by_id.iter();
        members
            .map(|(id, member)| GenerationMember {
                member_id: Arc::clone(id),
                group_instance_id: member.group_instance_id.clone(),
                client_id: Arc::clone(&member.client_id),
                client_host: Arc::clone(&member.client_host),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                subscription: member.metadata(protocol),
                assignment: member.assignment.clone(),
            })
            .collect()
    }
}
