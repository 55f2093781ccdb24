//! Which of several resources owns a topic: the oldest; of the same age, the first by namespace and name.
//!
//! Fed by the watch. Each change answers whom it concerns, so that a successor takes over at once.

use std::collections::{BTreeMap, BTreeSet};

/// A resource by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub namespace: String,
    pub name: String,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A claim in the order of right: older ones first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created_s: i64,
    by: Name,
}

/// What a resource says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub topic: String,
    /// Seconds since the Unix epoch, as Kubernetes keeps them.
    pub created_s: i64,
    /// Managed, not being deleted, for this cluster.
    pub competes: bool,
}

/// Who claims what.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    by_topic: BTreeMap<String, BTreeSet<Claim>>,
    by_name: BTreeMap<Name, Statement>,
}

impl Claims {
    /// Who owns a topic, if anybody claims it.
    pub fn owner(&self, topic: &str) -> Option<&Name> {
        Some(&self.by_topic.get(topic)?.first()?.by)
    }

    /// All topics that somebody claims.
    pub fn topics(&self) -> impl Iterator<Item = String> + '_ {
        self.by_topic.keys().cloned()
    }

    /// Whether another resource than this claims the topic too.
    pub fn has_other(&self, topic: &str, name: &Name) -> bool {
        let claims = self.by_topic.get(topic);
        claims.is_some_and(|claims| claims.iter().any(|claim| claim.by != *name))
    }

    /// The resources that are told of a topic: its owner. Losers find nothing changed.
    pub fn owners_of(&self, topics: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<Name> {
        let owners = topics.into_iter();
        owners
            .filter_map(|topic| self.owner(topic.as_ref()).cloned())
            .collect()
    }

    /// How many topics resources of a namespace own, up to and including this one, in the order of age.
    pub fn rank(&self, name: &Name) -> usize {
        let Some(own) = self.by_name.get(name) else {
            return 0;
        };
        let own_rank = (own.created_s, name);
        let competing = self.by_name.iter().filter(|(other, said)| {
            other.namespace == name.namespace
                && said.competes
                && (said.created_s, *other) <= own_rank
        });
        competing.count()
    }

    /// Takes in what a resource says now; answers who else has to look again.
    pub fn observe(&mut self, name: &Name, statement: Statement) -> Vec<Name> {
        if self.by_name.get(name) == Some(&statement) {
            return Vec::new();
        }
        let mut concerned = self.forget(name);
        let topic = statement.topic.clone();
        let before = self.owner(&topic).cloned();
        if statement.competes {
            self.by_topic
                .entry(topic.clone())
                .or_default()
                .insert(Claim {
                    created_s: statement.created_s,
                    by: name.clone(),
                });
        }
        self.by_name.insert(name.clone(), statement);
        let after = self.owner(&topic).cloned();
        if before != after {
            concerned.extend(before);
            concerned.extend(after);
        }
        concerned.sort();
        concerned.dedup();
        concerned.retain(|one| one != name);
        concerned
    }

    /// A resource is gone; answers who owns its topic in its place.
    pub fn forget(&mut self, name: &Name) -> Vec<Name> {
        let Some(said) = self.by_name.remove(name) else {
            return Vec::new();
        };
        let Some(claims) = self.by_topic.get_mut(&said.topic) else {
            return Vec::new();
        };
        let owned = claims.first().is_some_and(|claim| claim.by == *name);
        claims.remove(&Claim {
            created_s: said.created_s,
            by: name.clone(),
        });
        if claims.is_empty() {
            self.by_topic.remove(&said.topic);
            return Vec::new();
        }
        let next = self.owner(&said.topic).cloned();
        next.filter(|_| owned).into_iter().collect()
    }

    /// After a new listing of a namespace (nothing: of all): forgets who is no longer there.
    pub fn retain(&mut self, namespace: Option<&str>, listed: &BTreeSet<Name>) -> Vec<Name> {
        let gone: Vec<Name> = self
            .by_name
            .keys()
            .filter(|name| namespace.is_none_or(|one| one == name.namespace))
            .filter(|name| !listed.contains(name))
            .cloned()
            .collect();
        gone.iter().flat_map(|name| self.forget(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(name: &str) -> Name {
        Name {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        }
    }

    fn says(topic: &str, created_s: i64) -> Statement {
        Statement {
            topic: topic.to_owned(),
            created_s,
            competes: true,
        }
    }

    #[test]
    fn the_oldest_owns_and_the_next_is_told_when_it_goes() {
        let mut claims = Claims::default();
        claims.observe(&name("b"), says("orders", 2));
        claims.observe(&name("c"), says("orders", 2));
        assert_eq!(claims.owner("orders"), Some(&name("b")));
        // The loser of a newcomer that is older is told as well.
        assert_eq!(claims.observe(&name("z"), says("orders", 1)), [name("b")]);
        assert_eq!(claims.owner("orders"), Some(&name("z")));
        let unmanaged = Statement {
            competes: false,
            ..says("orders", 1)
        };
        assert_eq!(claims.observe(&name("z"), unmanaged), [name("b")]);
        assert!(claims.has_other("orders", &name("b")));
        assert_eq!(claims.forget(&name("b")), [name("c")]);
        assert!(!claims.has_other("orders", &name("c")));
        let listed = BTreeSet::new();
        assert_eq!(claims.retain(None, &listed), []);
        assert_eq!(claims.owner("orders"), None);
    }

    proptest! {
        /// Whatever the order of events, exactly one owns what is claimed, and who owns changes only with somebody being told.
        #[test]
        fn there_is_one_owner_and_nobody_becomes_it_unheard(
            events in prop::collection::vec((0..6u8, 0..2u8, 0..3i64, any::<bool>(), any::<bool>()), 1..60)
        ) {
            let mut claims = Claims::default();
            for (who, topic, created_s, competes, leaves) in events {
                let who = name(&who.to_string());
                let topics = ["0", "1"];
                let before: Vec<_> = topics.iter().map(|topic| claims.owner(topic).cloned()).collect();
                let told = if leaves {
                    claims.forget(&who)
                } else {
                    claims.observe(&who, Statement { topic: topic.to_string(), created_s, competes })
                };
                for (topic, before) in topics.iter().zip(before) {
                    let after = claims.owner(topic).cloned();
                    if let Some(owner) = after.filter(|_| claims.owner(topic).cloned() != before) {
                        prop_assert!(owner == who || told.contains(&owner));
                    }
                    let oldest = claims
                        .by_name
                        .iter()
                        .filter(|(_, said)| said.competes && said.topic == **topic)
                        .min_by_key(|(name, said)| (said.created_s, (*name).clone()));
                    prop_assert_eq!(claims.owner(topic), oldest.map(|(name, _)| name));
                }
            }
        }
    }
}
