//! A client that commits offsets for its group and asks what it has committed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use barnabas_core::ids::Offset;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};
use rand::Rng as _;

use super::clients::{Client, Progress, name};
use super::network::Node;
use super::transactions::is_passing;

struct Group {
    client: Client,
    id: GroupId,
    topic: &'static str,
    coordinator: Option<Node>,
    /// What the group was told to have committed last.
    committed: Offset,
    /// What was asked for without an answer: it may be committed, now or later.
    doubtful: BTreeSet<Offset>,
}

/// Commits one offset after the other, and asks now and then.
pub(crate) async fn commit(client: Client, topic: &'static str, progress: Arc<Progress>) {
    let id = StrBytes::from_string(format!("group-{}", client.node));
    let mut group = Group {
        client,
        id: GroupId(id),
        topic,
        coordinator: None,
        committed: -1,
        doubtful: BTreeSet::new(),
    };
    while progress.goes_on() {
        group.commit_next(&progress).await;
        if group.client.random.random_bool(0.5) {
            group.look(&progress).await;
        }
        progress.step();
        group.client.pause(300).await;
    }
    progress.has_stopped.store(true, Ordering::SeqCst);
}

impl Group {
    async fn find_coordinator(&mut self) {
        let request = FindCoordinatorRequest::default()
            .with_key_type(0)
            .with_coordinator_keys(vec![self.id.0.clone()]);
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

    /// One attempt to be answered by the coordinator.
    async fn ask<R: Request + Encodable + HeaderVersion>(
        &mut self,
        version: i16,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
    ) -> Option<R::Response> {
        let Some(coordinator) = self.coordinator else {
            self.find_coordinator().await;
            return None;
        };
        match self.client.call(coordinator, version, request).await {
            Ok(response) if code(&response) == 0 => Some(response),
            Ok(response) if !is_passing(code(&response)) => {
                let code = code(&response);
                self.violated(&format!("is answered {code}"));
                None
            }
            Ok(_) | Err(_) => {
                self.coordinator = None;
                self.client.pause(100).await;
                None
            }
        }
    }

    async fn commit_next(&mut self, progress: &Progress) {
        let offset = self
            .committed
            .max(self.doubtful.last().copied().unwrap_or(-1))
            + 1;
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name(self.topic))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.id.clone())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        while progress.goes_on() {
            let answer = self.ask(7, &request, |answer| {
                let topic = answer.topics.first();
                let partition = topic.and_then(|topic| topic.partitions.first());
                partition.map_or(-1, |partition| partition.error_code)
            });
            if answer.await.is_some() {
                self.committed = offset;
                return;
            }
            self.doubtful.insert(offset);
        }
    }

    async fn look(&mut self, progress: &Progress) {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(name(self.topic))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(self.id.clone())
            .with_topics(Some(vec![topic]));
        while progress.goes_on() {
            let Some(answer) = self.ask(6, &request, |answer| answer.error_code).await else {
                continue;
            };
            let topic = answer.topics.first();
            let found = topic.and_then(|topic| topic.partitions.first());
            let found = found.map_or(-1, |partition| partition.committed_offset);
            if found != self.committed && !self.doubtful.contains(&found) {
                let committed = self.committed;
                self.violated(&format!("committed {committed} and finds {found}"));
            }
            return;
        }
    }

    fn violated(&self, what: &str) {
        let trace = &self.client.network.trace;
        trace.violated(&format!("CommittedOffsetsStay: {} {what}", &*self.id.0));
    }
}
