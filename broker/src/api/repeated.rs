//! What a request names more than once. Kafka keeps the partitions of most requests in maps: the last word on a
//! partition counts, it is answered once, and a topic without partitions is not answered at all.

use std::collections::HashSet;

/// Brings the topics of a request into the form that Kafka's maps would have: each topic once, in the order of its
/// first mention, with each partition once; topics without partitions are left out.
pub(super) fn merge<T, P>(
    topics: &mut Vec<T>,
    name: impl Fn(&T) -> &str,
    partitions: impl Fn(&mut T) -> &mut Vec<P>,
    number: impl Fn(&P) -> i32,
) {
    merge_all(topics, name, &partitions, number);
    topics.retain_mut(|topic| !partitions(topic).is_empty());
}

/// As [`merge`], but topics without partitions stay.
pub(super) fn merge_all<T, P>(
    topics: &mut Vec<T>,
    name: impl Fn(&T) -> &str,
    partitions: impl Fn(&mut T) -> &mut Vec<P>,
    number: impl Fn(&P) -> i32,
) {
    merge_topics(topics, name, &partitions);
    for topic in topics.iter_mut() {
        merge_partitions(partitions(topic), &number);
    }
}

fn merge_topics<T, P>(
    topics: &mut Vec<T>,
    name: impl Fn(&T) -> &str,
    partitions: impl Fn(&mut T) -> &mut Vec<P>,
) {
    let mut seen = HashSet::new();
    if topics.len() < 2 || topics.iter().all(|topic| seen.insert(name(topic))) {
        return;
    }
    let mut merged: Vec<T> = Vec::with_capacity(topics.len());
    for mut topic in std::mem::take(topics) {
        match merged.iter_mut().find(|known| name(known) == name(&topic)) {
            Some(known) => partitions(known).append(partitions(&mut topic)),
            None => merged.push(topic),
        }
    }
    *topics = merged;
}

fn merge_partitions<P>(partitions: &mut Vec<P>, number: impl Fn(&P) -> i32) {
    let mut seen = HashSet::new();
    if partitions.len() < 2 || partitions.iter().all(|one| seen.insert(number(one))) {
        return;
    }
    let mut merged: Vec<P> = Vec::with_capacity(partitions.len());
    for one in std::mem::take(partitions) {
        match merged
            .iter_mut()
            .find(|known| number(known) == number(&one))
        {
            Some(known) => *known = one,
            None => merged.push(one),
        }
    }
    *partitions = merged;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_partition_counts() {
        let mut topics = vec![
            ("a", vec![(0, 'x'), (1, 'x'), (0, 'y')]),
            ("empty", vec![]),
            ("b", vec![(7, 'x')]),
            ("a", vec![(1, 'z'), (2, 'z')]),
        ];
        merge(
            &mut topics,
            |topic| topic.0,
            |topic| &mut topic.1,
            |one| one.0,
        );
        let wanted = [
            ("a", vec![(0, 'y'), (1, 'z'), (2, 'z')]),
            ("b", vec![(7, 'x')]),
        ];
        assert_eq!(topics, wanted);
    }
}
