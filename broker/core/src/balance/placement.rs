//! Replicas for new partitions, spread evenly over brokers and racks (Kafka's `AdminUtils`).
//!
//! The first replicas go round the brokers; the others follow at a distance that grows with every round, so
//! that the partitions of a broker that fails have their new leaders all over the cluster. If brokers say
//! which rack they are in, they are put in a round that changes the rack at every step, and a rack gets
//! a second replica of a partition only when every rack has one (KIP-36).

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::BrokerId;

/// A broker that may get replicas.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub id: BrokerId,
    pub rack: Option<String>,
}

/// Where the round over the brokers begins. Random for a new topic, so that not all begin at the same broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Start {
    /// Index of the broker that gets the first replica of partition 0.
    pub index: usize,
    /// Distance from the first replica to the second, less one.
    pub shift: usize,
}

impl Start {
    /// Both numbers random below the number of brokers.
    pub fn random(brokers: usize, random: &mut impl rand::Rng) -> Self {
        let mut draw = || random.random_range(0..brokers.max(1));
        Self {
            index: draw(),
            shift: draw(),
        }
    }

    /// For more partitions of a topic whose partition 0 begins with `first_replica`: the first broker of
    /// that id or above, so that the round goes on where creation left it.
    pub fn after(first_replica: BrokerId, brokers: &[Candidate]) -> Self {
        let mut found = brokers.iter();
        let index = found
            .position(|broker| broker.id >= first_replica)
            .unwrap_or(0);
        Self {
            index,
            shift: index,
        }
    }
}

/// Why replicas cannot be placed. The texts are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error("Number of partitions must be larger than 0.")]
    NoPartitions,
    #[error("Replication factor must be larger than 0.")]
    NoReplicas,
    #[error("Replication factor: {replication_factor} larger than available brokers: {available}.")]
    TooFewBrokers {
        replication_factor: i16,
        available: usize,
    },
    #[error(
        "Not all brokers have rack information. Add --disable-rack-aware in command line to make replica \
         assignment without rack information."
    )]
    SomeWithoutRack,
}

/// Places `partitions` new partitions, numbered from `first_partition`.
///
/// Without racks the brokers are used in the order given; with racks their order does not matter.
pub fn place(
    brokers: &[Candidate],
    first_partition: i32,
    partitions: i32,
    replication_factor: i16,
    start: Start,
) -> Result<BTreeMap<i32, Vec<BrokerId>>, PlacementError> {
    if partitions <= 0 {
        return Err(PlacementError::NoPartitions);
    }
    let replicas = usize::try_from(replication_factor).unwrap_or(0);
    if replicas == 0 {
        return Err(PlacementError::NoReplicas);
    }
    if replicas > brokers.len() {
        return Err(PlacementError::TooFewBrokers {
            replication_factor,
            available: brokers.len(),
        });
    }
    let with_rack = brokers.iter().filter(|broker| broker.rack.is_some());
    let round = match with_rack.count() {
        0 => Round::flat(brokers),
        count if count == brokers.len() => Round::alternating(brokers),
        _ => return Err(PlacementError::SomeWithoutRack),
    };
    let first_partition = first_partition.max(0);
    let mut shift = start.shift;
    let numbers = first_partition..first_partition.saturating_add(partitions);
    Ok(numbers
        .map(|partition| {
            let position = partition as usize;
            if position > 0 && position.is_multiple_of(brokers.len()) {
                shift += 1;
            }
            (
                partition,
                round.replicas(position + start.index, shift, replicas),
            )
        })
        .collect())
}

/// The brokers in the order in which they take their turn.
struct Round<'a> {
    brokers: Vec<&'a Candidate>,
    /// How many racks there are; 1 if brokers have none.
    racks: usize,
}

impl<'a> Round<'a> {
    fn flat(brokers: &'a [Candidate]) -> Self {
        Self {
            brokers: brokers.iter().collect(),
            racks: 1,
        }
    }

    /// One broker of each rack in turn, racks by name, the brokers of a rack by id.
    fn alternating(brokers: &'a [Candidate]) -> Self {
        let mut by_rack: BTreeMap<&Option<String>, Vec<&Candidate>> = BTreeMap::new();
        for broker in brokers {
            by_rack.entry(&broker.rack).or_default().push(broker);
        }
        for members in by_rack.values_mut() {
            members.sort_by_key(|broker| broker.id);
        }
        let longest = by_rack.values().map(Vec::len).max().unwrap_or(0);
        let turns = (0..longest)
            .flat_map(|turn| by_rack.values().filter_map(move |rack| rack.get(turn)))
            .copied();
        Self {
            brokers: turns.collect(),
            racks: by_rack.len(),
        }
    }

    fn replicas(&self, first: usize, shift: usize, replicas: usize) -> Vec<BrokerId> {
        let count = self.brokers.len();
        let first = first % count;
        let leader = self.brokers[first];
        let mut chosen = vec![leader.id];
        let mut racks_used = BTreeSet::from([&leader.rack]);
        let mut steps = 0;
        while chosen.len() < replicas {
            // Never 0 steps from the first replica: count - 1 others take their turns.
            let distance = 1 + (shift * self.racks + steps) % (count - 1);
            let broker = self.brokers[(first + distance) % count];
            steps += 1;
            let rack_is_free = !racks_used.contains(&broker.rack) || racks_used.len() == self.racks;
            if rack_is_free && !chosen.contains(&broker.id) {
                racks_used.insert(&broker.rack);
                chosen.push(broker.id);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn numbers(value: &Value) -> Vec<BrokerId> {
        let ids = value.as_array().unwrap().iter();
        ids.map(|id| BrokerId(id.as_i64().unwrap() as i32))
            .collect()
    }

    /// 1 to 7 brokers, 1 to 4 replicas, with and without racks, as Kafka's own function places them.
    #[test]
    fn places_as_kafka_does() {
        let cases = include_str!("../../../../tests/golden/units/assignment.json");
        let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
        assert_eq!(cases.len(), 1980);
        for case in cases {
            let brokers = case["brokers"].as_array().unwrap().iter();
            let brokers: Vec<_> = brokers
                .map(|broker| Candidate {
                    id: BrokerId(broker[0].as_i64().unwrap() as i32),
                    rack: broker[1].as_str().map(str::to_owned),
                })
                .collect();
            let int = |key: &str| case[key].as_i64().unwrap();
            let fixed = int("fixedStartIndex") as usize;
            let start = Start {
                index: fixed,
                shift: fixed,
            };
            let placed = place(
                &brokers,
                int("startPartitionId") as i32,
                int("partitions") as i32,
                int("rf") as i16,
                start,
            );
            let expected = case["assignment"].as_object().unwrap().iter();
            let expected: BTreeMap<i32, _> = expected
                .map(|(partition, replicas)| (partition.parse().unwrap(), numbers(replicas)))
                .collect();
            assert_eq!(placed, Ok(expected), "{case}");
        }
    }

    fn brokers(racks: &[Option<&str>]) -> Vec<Candidate> {
        let racks = racks.iter().enumerate();
        racks
            .map(|(id, rack)| Candidate {
                id: BrokerId(id as i32),
                rack: rack.map(str::to_owned),
            })
            .collect()
    }

    #[test]
    fn says_why_it_cannot_place() {
        let start = Start::default();
        let two = brokers(&[None, None]);
        let error = |brokers: &[Candidate], partitions, replicas| {
            place(brokers, 0, partitions, replicas, start)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error(&two, 1, 3),
            "Replication factor: 3 larger than available brokers: 2."
        );
        assert_eq!(
            place(&two, 0, 0, 1, start),
            Err(PlacementError::NoPartitions)
        );
        assert_eq!(place(&two, 0, 1, 0, start), Err(PlacementError::NoReplicas));
        let mixed = brokers(&[Some("a"), None]);
        assert_eq!(
            place(&mixed, 0, 1, 1, start),
            Err(PlacementError::SomeWithoutRack)
        );
    }

    #[test]
    fn more_partitions_begin_where_the_topic_began() {
        let three = brokers(&[None, None, None]);
        let expected = Start { index: 1, shift: 1 };
        assert_eq!(Start::after(BrokerId(1), &three), expected);
        assert_eq!(Start::after(BrokerId(9), &three), Start::default());
    }

    proptest! {
        #[test]
        fn replicas_differ_and_racks_are_used_evenly(
            racks in proptest::collection::vec(0..4_u8, 1..12),
            replicas in 1..6_usize,
            partitions in 1..40,
            index in 0..12_usize,
            shift in 0..12_usize,
        ) {
            let replicas = replicas.min(racks.len());
            let names: Vec<_> = racks.iter().map(|rack| format!("rack{rack}")).collect();
            let names: Vec<_> = names.iter().map(|name| Some(name.as_str())).collect();
            let brokers = brokers(&names);
            let distinct: BTreeSet<_> = racks.iter().collect();
            let start = Start { index, shift };
            let placed = place(&brokers, 0, partitions, replicas as i16, start).unwrap();
            prop_assert_eq!(placed.len(), partitions as usize);
            for replicas in placed.values() {
                let ids: BTreeSet<_> = replicas.iter().collect();
                prop_assert_eq!(ids.len(), replicas.len());
                let used: BTreeSet<_> = ids.iter().map(|id| racks[id.0 as usize]).collect();
                prop_assert_eq!(used.len(), replicas.len().min(distinct.len()));
            }
        }
    }
}
