//! In which order Kafka writes the partitions of a transaction: that in which Scala's sets are walked, which follows
//! from hashes and is the same on every broker.

use std::collections::{BTreeMap, BTreeSet};

use super::records::State;
use crate::ids::{TopicName, TopicPartition, java_hash};

/// Up to so many elements an immutable set keeps them as they came.
const SMALL: usize = 4;
/// Bits of a hash that each level of an immutable set looks at.
const LEVEL: u32 = 5;

/// The topics with their partitions, as a record of that state has them.
pub(super) fn as_written(
    partitions: &BTreeSet<TopicPartition>,
    state: State,
) -> Vec<(&TopicName, Vec<i32>)> {
    let mut topics: BTreeMap<&TopicName, Vec<i32>> = BTreeMap::new();
    let mut all: Vec<&TopicPartition> = partitions.iter().collect();
    let is_small = all.len() <= SMALL;
    if is_small {
        // What is added comes as a fresh mutable set, what is ended from the one that grew with the transaction.
        let slots = if state == State::Ongoing { 8 } else { 16 };
        all.sort_by_key(|one| {
            let hash = hash_of_partition(one);
            let hash = hash ^ (hash >> 16);
            (hash & (slots - 1), hash as i32)
        });
    }
    for one in all {
        topics.entry(&one.topic).or_default().push(one.partition);
    }
    if !is_small {
        for numbers in topics.values_mut() {
            *numbers = walk(std::mem::take(numbers), 0, &|number| *number as u32);
        }
    }
    let topics = topics.into_iter().collect();
    walk(topics, 0, &|(topic, _)| java_hash(topic) as u32)
}

/// `TopicPartition.hashCode`
fn hash_of_partition(of: &TopicPartition) -> u32 {
    let partition = (of.partition as u32).wrapping_add(31);
    partition
        .wrapping_mul(31)
        .wrapping_add(java_hash(&of.topic) as u32)
}

/// Elements as a hash trie (CHAMP) is walked: first those that are alone in their slot, then the slots of several.
fn walk<T>(elements: Vec<T>, shift: u32, hash: &impl Fn(&T) -> u32) -> Vec<T> {
    if elements.len() < 2 || shift >= u32::BITS {
        return elements;
    }
    let mut slots: BTreeMap<u32, Vec<T>> = BTreeMap::new();
    for element in elements {
        let slot = (improved(hash(&element)) >> shift) & ((1 << LEVEL) - 1);
        slots.entry(slot).or_default().push(element);
    }
    let (alone, several): (Vec<_>, Vec<_>) = slots.into_values().partition(|slot| slot.len() == 1);
    let several = several.into_iter();
    let several = several.flat_map(|slot| walk(slot, shift + LEVEL, hash));
    alone.into_iter().flatten().chain(several).collect()
}

/// `scala.collection.Hashing.improve`
fn improved(hash: u32) -> u32 {
    let hash = hash.wrapping_add(!(hash << 9));
    let hash = hash ^ (hash >> 14);
    let hash = hash.wrapping_add(hash << 4);
    hash ^ (hash >> 10)
}
