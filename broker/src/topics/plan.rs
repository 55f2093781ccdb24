//! The rules for new topics and new partitions, on plain values (Kafka classes `ZkAdminManager`, `AdminZkClient`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use barnabas_core::balance::placement::{Candidate, Start, place};
use barnabas_core::ids::{BrokerId, check_topic_name};
use barnabas_core::znodes::{PartitionAssignment, TopicAssignment};

use super::error::TopicError;

/// Partition numbers and their replicas.
pub type Assignment = BTreeMap<i32, Vec<BrokerId>>;

/// ZooKeeper servers refuse requests above 1 MiB (`jute.maxbuffer`) by hanging up; a client that repeats what was
/// lost would then be stuck for good.
const ASSIGNMENT_BYTES_MAX: usize = 1_000_000;

/// A topic that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NewTopic {
    pub name: String,
    /// `None` for `num.partitions`, or with an assignment.
    pub partitions: Option<i32>,
    /// `None` for `default.replication.factor`, or with an assignment.
    pub replication_factor: Option<i16>,
    /// Empty to have replicas placed.
    pub assignment: Vec<(i32, Vec<BrokerId>)>,
    /// Settings that differ from the broker's.
    pub configs: Vec<(String, Option<String>)>,
}

/// Defaults and limits for new topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) default_partitions: i32,
    pub(super) default_replication_factor: i16,
    /// Partitions that one request may create.
    pub(super) partitions_max: i32,
}

/// The replicas of a new topic. `budget` is what is left of the partitions that the request may create.
pub(super) fn assign_new_topic(
    topic: &NewTopic,
    brokers: &[Candidate],
    rules: Rules,
    budget: &mut i64,
    random: &mut impl rand::Rng,
) -> Result<Assignment, TopicError> {
    let is_counted = topic.partitions.is_some() || topic.replication_factor.is_some();
    if is_counted && !topic.assignment.is_empty() {
        return Err(TopicError::CountAndAssignment);
    }
    if !topic.assignment.is_empty() {
        spend(budget, topic.assignment.len() as i64, rules)?;
        return Ok(topic.assignment.iter().cloned().collect());
    }
    let partitions = topic.partitions.unwrap_or(rules.default_partitions);
    let replication_factor = topic
        .replication_factor
        .unwrap_or(rules.default_replication_factor);
    // Before anything of that size is made.
    spend(budget, i64::from(partitions), rules)?;
    let start = Start::random(brokers.len(), random);
    Ok(place(brokers, 0, partitions, replication_factor, start)?)
}

fn spend(budget: &mut i64, partitions: i64, rules: Rules) -> Result<(), TopicError> {
    if partitions > *budget {
        return Err(TopicError::TooManyPartitions {
            asked: partitions,
            limit: rules.partitions_max,
        });
    }
    *budget -= partitions.max(0);
    Ok(())
}

/// Checks an assignment that a client gave, after the name of its topic. Whether its brokers exist is not asked, as in
/// Kafka.
pub(super) fn check_given_assignment(
    given: &[(i32, Vec<BrokerId>)],
    assignment: &Assignment,
) -> Result<(), TopicError> {
    if given.is_empty() {
        return Ok(());
    }
    let sizes: BTreeSet<usize> = assignment.values().map(Vec::len).collect();
    if sizes.len() != 1 {
        return Err(TopicError::UnequalReplicas);
    }
    if assignment.values().any(|replicas| has_duplicates(replicas)) {
        return Err(TopicError::DuplicateReplicas(as_scala(assignment)));
    }
    let is_consecutive = assignment.len() == given.len()
        && assignment.keys().copied().eq(0..assignment.len() as i32);
    if !is_consecutive {
        return Err(TopicError::NotConsecutive);
    }
    Ok(())
}

fn has_duplicates(replicas: &[BrokerId]) -> bool {
    let distinct: BTreeSet<_> = replicas.iter().collect();
    distinct.len() != replicas.len()
}

/// How Kafka shows an assignment in its message.
fn as_scala(assignment: &Assignment) -> String {
    let mut text = String::from("HashMap(");
    for (index, (partition, replicas)) in assignment.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let _ = write!(
            text,
            "{separator}{partition} -> ArrayBuffer({})",
            listed(replicas)
        );
    }
    text.push(')');
    text
}

fn listed<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

/// Whether a topic of this name may be made beside `existing` ones.
pub(super) fn check_name(
    name: &str,
    existing: &[String],
    marked_for_deletion: &[String],
) -> Result<(), TopicError> {
    check_topic_name(name)?;
    let is_in = |names: &[String]| names.iter().any(|other| other == name);
    if is_in(marked_for_deletion) {
        return Err(TopicError::MarkedForDeletion(name.to_owned()));
    }
    if is_in(existing) {
        return Err(TopicError::Exists(name.to_owned()));
    }
    let colliding = existing
        .iter()
        .filter(|other| unified(other) == unified(name));
    let colliding: Vec<&String> = colliding.collect();
    if !colliding.is_empty() {
        return Err(TopicError::Collides {
            topic: name.to_owned(),
            others: listed(&colliding),
        });
    }
    Ok(())
}

/// Metric names cannot tell `.` from `_`.
fn unified(name: &str) -> String {
    name.replace('.', "_")
}

/// Whether ZooKeeper will take the assignment.
pub(super) fn check_size(assignment: &TopicAssignment) -> Result<(), TopicError> {
    let bytes = assignment.encode().len();
    if bytes > ASSIGNMENT_BYTES_MAX {
        return Err(TopicError::AssignmentTooLarge {
            bytes,
            limit: ASSIGNMENT_BYTES_MAX,
        });
    }
    Ok(())
}

/// The settings of a new topic; each needs a value.
pub(super) fn given_configs(
    configs: &[(String, Option<String>)],
) -> Result<BTreeMap<String, String>, TopicError> {
    let null = configs.iter().filter(|(_, value)| value.is_none());
    let null: Vec<&str> = null.map(|(key, _)| key.as_str()).collect();
    if !null.is_empty() {
        return Err(TopicError::NullConfigs(null.join(",")));
    }
    let given = configs.iter();
    Ok(given
        .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
        .collect())
}

/// Replicas of partitions that are added to a topic, which shall have `count` then.
pub(super) fn assign_new_partitions(
    topic: &str,
    existing: &TopicAssignment,
    count: i32,
    given: Option<&[Vec<BrokerId>]>,
    brokers: &[Candidate],
    rules: Rules,
    budget: &mut i64,
) -> Result<Assignment, TopicError> {
    let mut partitions = existing.partitions.values();
    if partitions.any(PartitionAssignment::is_being_reassigned) {
        return Err(TopicError::ReassignmentInProgress(topic.to_owned()));
    }
    let present = existing.partitions.len() as i32;
    let increase = count.saturating_sub(present);
    if increase < 0 {
        return Err(TopicError::FewerPartitions {
            existing: present,
            asked: count,
        });
    }
    if increase == 0 {
        return Err(TopicError::SamePartitions(present));
    }
    let first = existing.partitions.get(&0);
    let first = first.ok_or(TopicError::NoFirstPartition)?;
    let replicas = first.replicas.len();
    if let Some(given) = given {
        let added = given_new_partitions(given, present, increase, replicas, brokers)?;
        spend(budget, i64::from(increase), rules)?;
        return Ok(added);
    }
    spend(budget, i64::from(increase), rules)?;
    let start = match first.replicas.first() {
        Some(first) => Start::after(*first, brokers),
        None => Start::default(),
    };
    Ok(place(brokers, present, increase, replicas as i16, start)?)
}

fn given_new_partitions(
    given: &[Vec<BrokerId>],
    present: i32,
    increase: i32,
    replication_factor: usize,
    brokers: &[Candidate],
) -> Result<Assignment, TopicError> {
    let known: BTreeSet<BrokerId> = brokers.iter().map(|broker| broker.id).collect();
    let named: BTreeSet<BrokerId> = given.iter().flatten().copied().collect();
    let unknown: Vec<BrokerId> = named.difference(&known).copied().collect();
    if !unknown.is_empty() {
        return Err(TopicError::UnknownBrokers(listed(&unknown)));
    }
    if given.len() != increase as usize {
        return Err(TopicError::WrongAssignmentCount {
            increase,
            assignments: given.len(),
        });
    }
    let added: Assignment = (present..).zip(given.iter().cloned()).collect();
    for (partition, replicas) in &added {
        if replicas.is_empty() {
            return Err(TopicError::EmptyAssignment(*partition));
        }
        if has_duplicates(replicas) {
            return Err(TopicError::DuplicateBrokers {
                brokers: listed(replicas),
                partition: *partition,
            });
        }
    }
    let others = added
        .iter()
        .filter(|(_, replicas)| replicas.len() != replication_factor);
    let (partitions, factors): (Vec<i32>, Vec<usize>) = others
        .map(|(partition, replicas)| (*partition, replicas.len()))
        .unzip();
    if !partitions.is_empty() {
        return Err(TopicError::InconsistentReplicationFactor {
            expected: replication_factor,
            partitions: listed(&partitions),
            factors: listed(&factors),
        });
    }
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        default_partitions: 2,
        default_replication_factor: 1,
        partitions_max: 10_000,
    };

    fn brokers(ids: &[i32]) -> Vec<Candidate> {
        let ids = ids.iter().copied();
        ids.map(|id| Candidate {
            id: BrokerId(id),
            rack: None,
        })
        .collect()
    }

    fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    fn assign(topic: &NewTopic) -> Result<Assignment, TopicError> {
        let mut budget = 10_000;
        let assignment =
            assign_new_topic(topic, &brokers(&[20]), RULES, &mut budget, &mut rand::rng())?;
        check_given_assignment(&topic.assignment, &assignment)?;
        Ok(assignment)
    }

    fn counted(partitions: Option<i32>, replication_factor: Option<i16>) -> NewTopic {
        NewTopic {
            name: "t".to_owned(),
            partitions,
            replication_factor,
            ..NewTopic::default()
        }
    }

    fn given(assignment: &[(i32, &[i32])]) -> NewTopic {
        let assignment = assignment.iter();
        NewTopic {
            name: "t".to_owned(),
            assignment: assignment.map(|(number, on)| (*number, ids(on))).collect(),
            ..NewTopic::default()
        }
    }

    fn refusal(topic: &NewTopic) -> String {
        assign(topic).unwrap_err().to_string()
    }

    #[test]
    fn defaults_stand_in_for_what_is_not_said() {
        let expected = Assignment::from([(0, ids(&[20])), (1, ids(&[20]))]);
        assert_eq!(assign(&counted(None, None)), Ok(expected));
    }

    #[test]
    fn counts_are_checked_before_anything_is_made() {
        assert_eq!(
            refusal(&counted(Some(0), None)),
            "Number of partitions must be larger than 0."
        );
        assert_eq!(
            refusal(&counted(Some(1), Some(0))),
            "Replication factor must be larger than 0."
        );
        assert_eq!(
            refusal(&counted(Some(1), Some(5))),
            "Replication factor: 5 larger than available brokers: 1."
        );
        let absurd = assign(&counted(Some(1_800_000_000), None));
        let expected = TopicError::TooManyPartitions {
            asked: 1_800_000_000,
            limit: 10_000,
        };
        assert_eq!(absurd, Err(expected));
    }

    #[test]
    fn a_request_has_one_budget() {
        let one = brokers(&[20]);
        let mut budget = 10;
        let mut ask = |partitions| {
            let topic = counted(Some(partitions), None);
            assign_new_topic(&topic, &one, RULES, &mut budget, &mut rand::rng()).is_ok()
        };
        assert!(ask(6));
        assert!(!ask(5));
        assert!(ask(4));
        assert!(!ask(1));
    }

    #[test]
    fn given_assignments_are_checked_as_kafka_does() {
        let both = NewTopic {
            partitions: Some(1),
            ..given(&[(0, &[20])])
        };
        assert_eq!(assign(&both), Err(TopicError::CountAndAssignment));
        assert_eq!(
            refusal(&given(&[(1, &[20])])),
            "partitions should be a consecutive 0-based integer sequence"
        );
        assert_eq!(
            refusal(&given(&[(0, &[20, 20])])),
            "Duplicate replica assignment found: HashMap(0 -> ArrayBuffer(20, 20))"
        );
        assert_eq!(
            refusal(&given(&[(0, &[20]), (1, &[20, 21])])),
            "All partitions should have the same number of replicas"
        );
        let unknown = Assignment::from([(0, ids(&[99]))]);
        assert_eq!(assign(&given(&[(0, &[99])])), Ok(unknown));
    }

    #[test]
    fn names_are_checked_against_those_that_exist() {
        let existing = ["c_c".to_owned(), "t".to_owned()];
        let marked = ["t".to_owned(), "gone".to_owned()];
        let refusal = |name: &str| {
            check_name(name, &existing, &marked)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refusal("c.c"),
            "Topic 'c.c' collides with existing topics: c_c"
        );
        assert_eq!(refusal("t"), "Topic 't' is marked for deletion.");
        assert_eq!(refusal("gone"), "Topic 'gone' is marked for deletion.");
        assert_eq!(refusal("c_c"), "Topic 'c_c' already exists.");
        assert_eq!(
            refusal(""),
            "Topic name is invalid: the empty string is not allowed"
        );
        assert_eq!(check_name("c-c", &existing, &marked), Ok(()));
    }

    #[test]
    fn null_is_no_value_of_a_setting() {
        let configs = [
            ("retention.ms".to_owned(), None),
            ("a".to_owned(), Some("b".to_owned())),
        ];
        assert_eq!(
            given_configs(&configs).unwrap_err().to_string(),
            "Null value not supported for topic configs: retention.ms"
        );
    }

    #[test]
    fn partitions_are_added_as_kafka_does() {
        let two = PartitionAssignment::new(ids(&[1, 2]));
        let existing = TopicAssignment {
            topic_id: None,
            partitions: [(0, two.clone()), (1, two)].into(),
        };
        let three = brokers(&[1, 2, 3]);
        let add = |count, given: Option<&[Vec<BrokerId>]>| {
            let mut budget = 100;
            let brokers = &three;
            assign_new_partitions("t", &existing, count, given, brokers, RULES, &mut budget)
        };
        let refusal =
            |count, given: Option<&[Vec<BrokerId>]>| add(count, given).unwrap_err().to_string();
        let (unknown, single, fitting) = ([ids(&[99])], [ids(&[1])], [ids(&[3, 1])]);
        assert_eq!(refusal(2, None), "Topic already has 2 partitions.");
        assert_eq!(
            refusal(1, None),
            "Topic currently has 2 partitions, which is higher than the requested 1."
        );
        assert_eq!(
            refusal(3, Some(&[])),
            "Increasing the number of partitions by 1 but 0 assignments provided."
        );
        assert_eq!(
            refusal(3, Some(&unknown)),
            "Unknown broker(s) in replica assignment: 99."
        );
        assert_eq!(
            refusal(3, Some(&single)),
            "Inconsistent replication factor between partitions, partition 0 has 2 while partitions [2] have \
             replication factors [1], respectively."
        );
        assert!(matches!(
            add(i32::MAX, None),
            Err(TopicError::TooManyPartitions { .. })
        ));
        let given = Assignment::from([(2, ids(&[3, 1]))]);
        assert_eq!(add(3, Some(&fitting)), Ok(given));
        let placed = Assignment::from([(2, ids(&[3, 1])), (3, ids(&[1, 3]))]);
        assert_eq!(add(4, None), Ok(placed));
    }
}
