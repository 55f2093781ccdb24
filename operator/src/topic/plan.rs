//! The next step from what there is to what was asked for, or why there is none.
//!
//! One step at a time: after each the topic is looked at again. What is wrong is found anew in every pass.

use std::collections::BTreeMap;

use barnabas_core::ids::{BrokerId, check_topic_name, is_internal_topic};

use super::values::{THROTTLES, same};
use crate::admin::ConfigOp;
use crate::cluster::{ClusterView, TopicView};
use crate::resource::{ConfigPolicy, ConfigValue, RackSpread, TopicSpec};

/// What was asked for, checked as far as that needs no cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    pub name: String,
    pub partitions: Option<i32>,
    pub replicas: Option<i32>,
    pub config: BTreeMap<String, String>,
    pub policy: Option<ConfigPolicy>,
    pub rack_spread: RackSpread,
}

/// Why nothing more is done: a person has to act, or brokers have to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub reason: Reason,
    pub message: String,
}

/// Reasons of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    InvalidSpec,
    InvalidConfig,
    PartitionDecreaseRefused,
    ReplicasExceedBrokers,
    ReplicasBelowMinIsr,
    ResourceConflict,
    AdoptionNeedsDecision,
    NameNotAllowed,
    InternalTopic,
    PolicyViolation,
    AuthorizationFailed,
    /// Not for a person: it goes on when brokers come.
    WaitingForBrokers,
    /// The topic that had the name is still being deleted.
    WaitingForPreviousDeletion,
    /// Somebody else moves these replicas.
    ForeignReassignment,
    /// No broker can be asked.
    KafkaUnavailable,
    /// Kafka did not do it, for now.
    KafkaError,
}

impl Reason {
    /// As it stands in a condition.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidSpec => "InvalidSpec",
            Self::InvalidConfig => "InvalidConfig",
            Self::PartitionDecreaseRefused => "PartitionDecreaseRefused",
            Self::ReplicasExceedBrokers => "ReplicasExceedBrokers",
            Self::ReplicasBelowMinIsr => "ReplicasBelowMinIsr",
            Self::ResourceConflict => "ResourceConflict",
            Self::AdoptionNeedsDecision => "AdoptionNeedsDecision",
            Self::NameNotAllowed => "NameNotAllowed",
            Self::InternalTopic => "InternalTopic",
            Self::PolicyViolation => "PolicyViolation",
            Self::AuthorizationFailed => "AuthorizationFailed",
            Self::WaitingForBrokers => "WaitingForBrokers",
            Self::WaitingForPreviousDeletion => "WaitingForPreviousDeletion",
            Self::ForeignReassignment => "ForeignReassignment",
            Self::KafkaUnavailable => "KafkaUnavailable",
            Self::KafkaError => "KafkaError",
        }
    }

    /// Whether a person must act; else it goes on by itself.
    pub fn is_stalled(self) -> bool {
        match self {
            Self::InvalidSpec
            | Self::InvalidConfig
            | Self::PartitionDecreaseRefused
            | Self::ReplicasExceedBrokers
            | Self::ReplicasBelowMinIsr
            | Self::ResourceConflict
            | Self::AdoptionNeedsDecision
            | Self::NameNotAllowed
            | Self::InternalTopic
            | Self::PolicyViolation
            | Self::AuthorizationFailed => true,
            Self::WaitingForBrokers
            | Self::WaitingForPreviousDeletion
            | Self::ForeignReassignment
            | Self::KafkaUnavailable
            | Self::KafkaError => false,
        }
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Create,
    /// To so many partitions altogether.
    AddPartitions(i32),
    /// To so many replicas, those partitions that have others.
    ChangeReplicas(i32),
    AlterConfig(Vec<(String, ConfigOp)>),
}

/// What a pass finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub step: Option<Step>,
    pub problems: Vec<Problem>,
    /// Replicas are on their way to what was asked for.
    pub is_moving: bool,
    /// Overrides that the resource does not own, `key=value`.
    pub unmanaged: Vec<String>,
    /// `key: old -> new` of settings that differ.
    pub differing: Vec<String>,
}

/// What is known of the topic and its cluster.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub view: &'a ClusterView,
    pub topic: Option<&'a TopicView>,
    /// The resource has created or taken over this very topic before.
    pub is_owned: bool,
    /// Brokers that may get replicas, and how many racks they are in (0: unknown).
    pub eligible: usize,
    pub racks: usize,
}

fn problem(reason: Reason, message: impl Into<String>) -> Problem {
    Problem {
        reason,
        message: message.into(),
    }
}

impl Desired {
    /// Reads a specification; the API server may have let through what its rules forbid, if it has older ones.
    pub fn read(name: String, spec: &TopicSpec, allows_internal: bool) -> Result<Self, Problem> {
        if let Some(error) = &spec.malformed {
            return Err(problem(Reason::InvalidSpec, error.clone()));
        }
        if let Err(error) = check_topic_name(&name) {
            return Err(problem(Reason::NameNotAllowed, error.to_string()));
        }
        if (is_internal_topic(&name) || name.starts_with("__")) && !allows_internal {
            let message = format!(
                "{name} looks like an internal topic; annotate barnabas.dev/allow-internal: \"true\" to manage it"
            );
            return Err(problem(Reason::InternalTopic, message));
        }
        if spec.partitions.is_some_and(|count| count < 1) {
            return Err(problem(Reason::InvalidSpec, "partitions is less than 1"));
        }
        let replicas = spec.replicas;
        if replicas.is_some_and(|count| !(1..=i32::from(i16::MAX)).contains(&count)) {
            return Err(problem(Reason::InvalidSpec, "replicas is not 1 to 32767"));
        }
        let mut config = BTreeMap::new();
        for (key, value) in spec.config.iter().flatten() {
            if THROTTLES.contains(&key.as_str()) {
                let message = format!("{key}: throttle lists belong to the balancer");
                return Err(problem(Reason::InvalidConfig, message));
            }
            if let ConfigValue::Other(value) = value {
                let message = format!("{key}: {value} is neither a number nor a text; quote it");
                return Err(problem(Reason::InvalidConfig, message));
            }
            config.insert(key.clone(), value.to_string());
        }
        let desired = Self {
            name,
            partitions: spec.partitions,
            replicas,
            config,
            policy: spec.config_policy,
            rack_spread: spec.placement.unwrap_or_default().rack_spread,
        };
        match (desired.replicas, desired.min_insync_replicas()) {
            (Some(replicas), Some(min)) if min > replicas => Err(problem(
                Reason::ReplicasBelowMinIsr,
                format!("min.insync.replicas={min} is larger than replicas={replicas}"),
            )),
            _ => Ok(desired),
        }
    }

    fn min_insync_replicas(&self) -> Option<i32> {
        self.config.get(MIN_ISR)?.trim().parse().ok()
    }
}

/// Compares and decides.
pub fn plan(desired: &Desired, facts: &Facts<'_>) -> Plan {
    let Some(topic) = facts.topic else {
        return plan_creation(desired, facts);
    };
    let mut plan = Plan::default();
    let live = || {
        let overrides = topic.overrides.iter();
        overrides.filter(|(key, _)| !THROTTLES.contains(&key.as_str()))
    };
    let unlisted = || live().filter(|(key, _)| !desired.config.contains_key(*key));
    let show = |(key, value): (&String, &String)| format!("{key}={value}");
    let resets = match desired.policy {
        Some(ConfigPolicy::Exact) => true,
        Some(ConfigPolicy::Merge) => false,
        None => facts.is_owned,
    };
    if !resets {
        plan.unmanaged = unlisted().map(show).collect();
    }
    // 1. Whose is it?
    if !facts.is_owned && desired.policy.is_none() && !plan.unmanaged.is_empty() {
        let message = format!(
            "the topic exists and has settings that spec.config does not list: {}; list them, or set \
             configPolicy to Exact (they are reset) or Merge (they are left alone)",
            plan.unmanaged.join(", ")
        );
        plan.problems
            .push(problem(Reason::AdoptionNeedsDecision, message));
        return plan;
    }
    // 2. Partitions.
    let count = topic.partitions.len() as i32;
    match desired.partitions {
        Some(wanted) if wanted < count => {
            let message = format!(
                "the topic has {count} partitions; they cannot become {wanted}: set spec.partitions to {count} or more"
            );
            plan.problems
                .push(problem(Reason::PartitionDecreaseRefused, message));
        }
        Some(wanted) if wanted > count => {
            plan.step = Some(Step::AddPartitions(wanted));
        }
        _ => {}
    }
    // 3. Settings: replicas may take long, or never come.
    let mut changes = Vec::new();
    for (key, value) in &desired.config {
        let is = topic.overrides.get(key);
        if is.is_some_and(|is| same(key, is, value)) {
            continue;
        }
        if key == MIN_ISR
            && let Some((least, min_isr)) = too_few_replicas(desired, facts.view, topic)
        {
            let is_coming = desired
                .replicas
                .is_some_and(|count| count as usize >= min_isr);
            if !is_coming {
                let message =
                    format!("min.insync.replicas={min_isr} is larger than the {least} replicas");
                plan.problems
                    .push(problem(Reason::ReplicasBelowMinIsr, message));
            }
            continue;
        }
        let was = is.map_or("(default)", String::as_str);
        plan.differing.push(format!("{key}: {was} -> {value}"));
        changes.push((key.clone(), ConfigOp::Set(value.clone())));
    }
    if resets {
        for (key, value) in unlisted() {
            plan.differing.push(format!("{key}: {value} -> (default)"));
            changes.push((key.clone(), ConfigOp::Delete));
        }
    }
    if plan.step.is_none() && !changes.is_empty() {
        plan.step = Some(Step::AlterConfig(changes));
    }
    // 4. Replicas.
    if let Some(wanted) = desired.replicas {
        plan_replicas(desired, wanted, facts, topic, &mut plan);
    }
    plan
}

const MIN_ISR: &str = "min.insync.replicas";

/// How many replicas there are at least, and the larger number that is asked to be in sync: with that nobody could write, so
/// it waits for replicas that are on their way, or is refused.
fn too_few_replicas(
    desired: &Desired,
    view: &ClusterView,
    topic: &TopicView,
) -> Option<(usize, usize)> {
    let wanted = usize::try_from(desired.min_insync_replicas()?).ok()?;
    let counts = topic.partitions.iter().map(|partition| {
        let id = barnabas_core::ids::TopicPartition::new(topic.name.clone(), partition.partition);
        let running = view.reassignments.get(&id);
        running.map_or(partition.replicas.len(), |running| running.origin().len())
    });
    let least = counts.min().filter(|least| *least < wanted)?;
    Some((least, wanted))
}

fn plan_creation(desired: &Desired, facts: &Facts<'_>) -> Plan {
    let mut plan = Plan::default();
    if let Err(found) = enough_brokers(desired, desired.replicas, facts) {
        plan.problems.push(found);
    } else if facts.eligible == 0 {
        let message = "no broker is alive";
        plan.problems
            .push(problem(Reason::WaitingForBrokers, message));
    } else {
        plan.step = Some(Step::Create);
    }
    plan
}

fn enough_brokers(
    desired: &Desired,
    replicas: Option<i32>,
    facts: &Facts<'_>,
) -> Result<(), Problem> {
    let wanted = replicas.unwrap_or(1) as usize;
    if wanted > facts.eligible && facts.eligible > 0 {
        let message = format!(
            "{wanted} replicas are more than the {} brokers that could have one",
            facts.eligible
        );
        return Err(problem(Reason::ReplicasExceedBrokers, message));
    }
    let racks = facts.racks;
    if desired.rack_spread == RackSpread::Required && racks > 0 && wanted > racks {
        let message =
            format!("rackSpread is Required, and {wanted} replicas are more than {racks} zones");
        return Err(problem(Reason::ReplicasExceedBrokers, message));
    }
    Ok(())
}

/// The replicas that each partition has or is getting, and whether a reassignment of it runs.
pub fn targets<'a>(
    view: &'a ClusterView,
    topic: &'a TopicView,
) -> impl Iterator<Item = (Vec<BrokerId>, bool)> + 'a {
    topic.partitions.iter().map(|partition| {
        let id = barnabas_core::ids::TopicPartition::new(topic.name.clone(), partition.partition);
        match view.reassignments.get(&id) {
            Some(running) => (running.target(), true),
            None => (partition.replicas.clone(), false),
        }
    })
}

fn plan_replicas(
    desired: &Desired,
    wanted: i32,
    facts: &Facts<'_>,
    topic: &TopicView,
    plan: &mut Plan,
) {
    let mut foreign = 0;
    let mut idle = 0;
    let mut grows = false;
    let mut shrinks = false;
    for (target, moves) in targets(facts.view, topic) {
        let is_right = target.len() == wanted as usize;
        if moves && is_right {
            plan.is_moving = true;
        } else if !is_right {
            grows |= target.len() < wanted as usize;
            shrinks |= target.len() > wanted as usize;
            foreign += i32::from(moves);
            idle += i32::from(!moves);
        }
    }
    if foreign > 0 {
        let message = format!(
            "{foreign} partitions are being moved by somebody else to another number of replicas than {wanted}"
        );
        plan.problems
            .push(problem(Reason::ForeignReassignment, message));
    }
    if idle == 0 {
        return;
    }
    let min_isr = desired
        .min_insync_replicas()
        .unwrap_or(topic.min_insync_replicas);
    if shrinks && wanted < min_isr {
        let message = format!("{wanted} replicas are fewer than min.insync.replicas={min_isr}");
        plan.problems
            .push(problem(Reason::ReplicasBelowMinIsr, message));
        return;
    }
    if grows && let Err(found) = enough_brokers(desired, Some(wanted), facts) {
        // An existing topic waits for brokers to come.
        plan.problems
            .push(problem(Reason::WaitingForBrokers, found.message));
        return;
    }
    if plan.step.is_none() {
        plan.step = Some(Step::ChangeReplicas(wanted));
    }
}
