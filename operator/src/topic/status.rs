//! Conditions and the rest of the status, computed from scratch in each pass.

use barnabas_core::ids::TopicPartition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::plan::{Problem, Reason};
use crate::cluster::{ClusterView, TopicView};
use crate::moves::RunningMove;
use crate::resource::{Health, ReassignmentStatus, TopicStatus};

/// Assignments beyond so many partitions are left out: 10,000 Topics shall stay far below what etcd holds.
const ASSIGNMENTS_MAX: usize = 256;

/// What is said of the resource as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As asked for; possibly while replicas still move.
    Ready {
        moving: bool,
    },
    /// Something is being done.
    Working(&'static str, String),
    Failed(Problem),
    /// Nothing is done, on request: the annotation's condition.
    Paused,
    Unmanaged,
}

/// What the status is made of.
#[derive(Debug)]
pub struct Finding<'a> {
    pub generation: Option<i64>,
    pub name: &'a str,
    pub verdict: Verdict,
    /// The topic, if it may be shown: not to those who lost the claim.
    pub topic: Option<(&'a ClusterView, &'a TopicView)>,
    /// The topic belongs to this resource.
    pub is_owned: bool,
    pub unmanaged: Vec<String>,
    /// What the mover moves of the topic.
    pub moves: &'a [RunningMove],
    pub now: Timestamp,
}

fn health(topic: &TopicView) -> Health {
    let mut health = Health::default();
    for partition in &topic.partitions {
        let isr = partition.isr.len();
        health.offline += i32::from(partition.leader.is_none());
        let is_under_min = (isr as i32) < topic.min_insync_replicas;
        health.under_min_isr += i32::from(is_under_min && partition.leader.is_some());
        health.under_replicated += i32::from(isr < partition.replicas.len());
        let preferred = partition.replicas.first().copied();
        health.non_preferred_leader +=
            i32::from(partition.leader.is_some() && partition.leader != preferred);
    }
    health
}

fn reassignment(
    view: &ClusterView,
    topic: &TopicView,
    ours: &[RunningMove],
) -> Option<ReassignmentStatus> {
    let id = |partition| TopicPartition::new(topic.name.clone(), partition);
    let numbers = topic.partitions.iter().map(|one| one.partition);
    let running = numbers.filter(|partition| view.reassignments.contains_key(&id(*partition)));
    let running = running.count();
    if running == 0 {
        return None;
    }
    let reasons = ours.iter().map(|one| one.planned.reason);
    let bytes = |of: fn(&RunningMove) -> u64| {
        let sum: u64 = ours.iter().map(of).sum();
        (!ours.is_empty()).then_some(i64::try_from(sum).unwrap_or(i64::MAX))
    };
    Some(ReassignmentStatus {
        // The most urgent of ours; what we did not begin is somebody else's.
        reason: reasons
            .min()
            .map_or("Foreign", barnabas_core::balance::Reason::name)
            .to_owned(),
        partitions_done: (topic.partitions.len() - running) as i32,
        partitions_total: topic.partitions.len() as i32,
        bytes_done: bytes(|one| one.bytes_done.min(one.planned.bytes)),
        bytes_total: bytes(|one| one.planned.bytes),
    })
}

/// The status to be written; `before` gives conditions their times.
pub fn compute(finding: Finding<'_>, before: Option<&TopicStatus>) -> TopicStatus {
    let mut status = TopicStatus {
        observed_generation: finding.generation,
        topic_name: Some(finding.name.to_owned()),
        unmanaged_config: finding.unmanaged,
        ..TopicStatus::default()
    };
    let mut conditions = Conditions {
        generation: finding.generation,
        before,
        now: finding.now,
        list: Vec::new(),
    };
    let (ready, working, stalled) = summary(&finding.verdict);
    conditions.add("Ready", ready);
    conditions.add("Reconciling", working);
    conditions.add("Stalled", stalled);
    let mut healthy = (
        "Unknown",
        "NoTopic",
        "there is no topic to look at".to_owned(),
    );
    if let Some((view, topic)) = finding.topic {
        let found = health(topic);
        if finding.is_owned {
            status.topic_id = topic.id.map(|id| id.to_string());
        }
        status.partitions = Some(topic.partitions.len() as i32);
        let replicas = topic.partitions.iter().map(|one| one.replicas.len());
        status.replicas = replicas.min().map(|count| count as i32);
        status.health = Some(found);
        let shown = topic.partitions.iter().take(ASSIGNMENTS_MAX);
        status.assignments = shown
            .map(|one| {
                let replicas = one.replicas.iter().map(ToString::to_string);
                let replicas: Vec<String> = replicas.collect();
                format!("{}:{}", one.partition, replicas.join(","))
            })
            .collect();
        status.assignments_truncated = topic.partitions.len() > ASSIGNMENTS_MAX;
        status.reassignment = reassignment(view, topic, finding.moves);
        healthy = if found.offline > 0 {
            let message = format!("{} partitions have no leader", found.offline);
            ("False", "OfflinePartitions", message)
        } else if found.under_min_isr > 0 {
            let count = found.under_min_isr;
            let message =
                format!("{count} partitions have fewer in-sync replicas than min.insync.replicas");
            ("False", "UnderMinIsr", message)
        } else if found.under_replicated > 0 {
            let message = format!("{} partitions wait for replicas", found.under_replicated);
            ("True", "UnderReplicated", message)
        } else {
            (
                "True",
                "Healthy",
                "all partitions can be written to".to_owned(),
            )
        };
    } else if let Some(before) = before.filter(|_| finding.is_owned) {
        // Nobody could be asked: what was known stays.
        status.topic_id.clone_from(&before.topic_id);
        status.partitions = before.partitions;
        status.replicas = before.replicas;
        status.health = before.health;
        status.assignments.clone_from(&before.assignments);
        status.assignments_truncated = before.assignments_truncated;
    }
    conditions.add("Healthy", healthy);
    let flag = |is: bool, reason: &'static str, message: &str| {
        if is {
            ("True", reason, message.to_owned())
        } else {
            ("False", "NotAnnotated", String::new())
        }
    };
    let is_paused = finding.verdict == Verdict::Paused;
    let is_unmanaged = finding.verdict == Verdict::Unmanaged;
    conditions.add(
        "Paused",
        flag(
            is_paused,
            "Annotated",
            "barnabas.dev/paused is \"true\": nothing is changed in Kafka",
        ),
    );
    conditions.add(
        "Unmanaged",
        flag(
            is_unmanaged,
            "Annotated",
            "barnabas.dev/managed is \"false\": nothing is done in Kafka",
        ),
    );
    status.conditions = conditions.list;
    status
}

type Said = (&'static str, &'static str, String);

/// Ready, Reconciling and Stalled.
fn summary(verdict: &Verdict) -> (Said, Said, Said) {
    let none = || String::new();
    let at_rest = || ("False", "UpToDate", none());
    let well = || ("False", "NothingWrong", none());
    match verdict {
        Verdict::Ready { moving } => {
            let ready = (
                "True",
                "AsSpecified",
                "the topic is as specified".to_owned(),
            );
            let working = if *moving {
                (
                    "True",
                    "ReplicasChanging",
                    "replicas are on their way".to_owned(),
                )
            } else {
                at_rest()
            };
            (ready, working, well())
        }
        Verdict::Working(reason, message) => (
            ("False", reason, message.clone()),
            ("True", reason, message.clone()),
            well(),
        ),
        Verdict::Failed(problem) => {
            let name = problem.reason.name();
            let said = || ("True", name, problem.message.clone());
            let ready = ("False", name, problem.message.clone());
            if problem.reason.is_stalled() {
                (ready, ("False", name, none()), said())
            } else {
                (ready, said(), well())
            }
        }
        Verdict::Paused => (("Unknown", "Paused", none()), at_rest(), well()),
        Verdict::Unmanaged => (("Unknown", "Unmanaged", none()), at_rest(), well()),
    }
}

struct Conditions<'a> {
    generation: Option<i64>,
    before: Option<&'a TopicStatus>,
    now: Timestamp,
    list: Vec<Condition>,
}

impl Conditions<'_> {
    /// The time moves only when the status flips.
    fn add(&mut self, kind: &str, (status, reason, message): Said) {
        let before = self.before.and_then(|before| before.condition(kind));
        let since = before
            .filter(|before| before.status == status)
            .map_or(Time(self.now), |before| before.last_transition_time.clone());
        self.list.push(Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: limited(message),
            observed_generation: self.generation,
            last_transition_time: since,
        });
    }
}

/// A condition's message may have 32768 bytes; people read less.
fn limited(mut message: String) -> String {
    const MAX: usize = 2048;
    if message.len() > MAX {
        let mut end = MAX;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    message
}

/// Whether a write may wait: nothing of what people wait for has changed.
pub fn can_wait(before: Option<&TopicStatus>, after: &TopicStatus) -> bool {
    let flips = |kind: &str| {
        let status = |one: &TopicStatus| one.condition(kind).map(|one| one.status.clone());
        before.and_then(status) != status(after)
    };
    before.is_some_and(|before| before.observed_generation == after.observed_generation)
        && !flips("Ready")
        && !flips("Stalled")
        && before.and_then(|before| before.topic_id.as_ref()) == after.topic_id.as_ref()
}

/// A problem in words of a verdict.
impl From<(Reason, String)> for Problem {
    fn from((reason, message): (Reason, String)) -> Self {
        Self { reason, message }
    }
}
