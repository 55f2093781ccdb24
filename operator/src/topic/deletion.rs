//! What becomes of the topic when its resource is deleted.

use barnabas_core::ids::TopicId;

/// What is known when a resource is being deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub is_managed: bool,
    pub retains: bool,
    pub is_forced: bool,
    /// The operator is being uninstalled: resources go, topics stay.
    pub is_released: bool,
    /// Another resource that is not being deleted claims the topic.
    pub has_other_claim: bool,
    /// `status.topicId`.
    pub owned_id: Option<String>,
    /// Without an id in the status: whether the topic is just what this resource would have made of it, so that it was
    /// created a moment ago and nobody came to write that down.
    pub looks_own: bool,
    /// The topic as Kafka shows it.
    pub live: Live,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Live {
    /// Nobody can be asked.
    #[default]
    Unknown,
    Absent,
    Present(Option<TopicId>),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Let the resource go, the topic stays. The reason of a warning, if that is one.
    Keep(Option<&'static str>),
    /// The topic is gone already.
    Done,
    Delete(TopicId),
    /// From brokers that know no ids: find out by name.
    WaitForKafka,
}

/// The first rule that matches.
pub fn decide(facts: &Facts) -> Deletion {
    if facts.is_forced {
        return Deletion::Keep(Some("ForceFinalized"));
    }
    if !facts.is_managed || facts.retains || facts.is_released || facts.has_other_claim {
        return Deletion::Keep(None);
    }
    match &facts.live {
        Live::Unknown => Deletion::WaitForKafka,
        Live::Absent => Deletion::Done,
        Live::Present(live) => match (&facts.owned_id, live) {
            (Some(owned), Some(live)) if *owned == live.to_string() => Deletion::Delete(*live),
            (Some(_), _) => Deletion::Keep(Some("TopicIdMismatch")),
            (None, Some(live)) if facts.looks_own => Deletion::Delete(*live),
            // It was never taken over.
            (None, _) => Deletion::Keep(None),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> TopicId {
        TopicId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn only_the_topic_that_was_owned_is_deleted() {
        let owned = Facts {
            is_managed: true,
            owned_id: Some(id(1).to_string()),
            live: Live::Present(Some(id(1))),
            ..Facts::default()
        };
        assert_eq!(decide(&owned), Deletion::Delete(id(1)));
        let with = |change: fn(&mut Facts)| {
            let mut facts = owned.clone();
            change(&mut facts);
            decide(&facts)
        };
        assert_eq!(with(|f| f.retains = true), Deletion::Keep(None));
        assert_eq!(with(|f| f.is_managed = false), Deletion::Keep(None));
        assert_eq!(with(|f| f.has_other_claim = true), Deletion::Keep(None));
        assert_eq!(with(|f| f.is_released = true), Deletion::Keep(None));
        let forced = Deletion::Keep(Some("ForceFinalized"));
        assert_eq!(with(|f| f.is_forced = true), forced);
        let mismatch = Deletion::Keep(Some("TopicIdMismatch"));
        assert_eq!(with(|f| f.live = Live::Present(Some(id(2)))), mismatch);
        assert_eq!(with(|f| f.live = Live::Absent), Deletion::Done);
        assert_eq!(with(|f| f.live = Live::Unknown), Deletion::WaitForKafka);
        assert_eq!(with(|f| f.owned_id = None), Deletion::Keep(None));
        let created = with(|f| {
            f.owned_id = None;
            f.looks_own = true;
        });
        assert_eq!(created, Deletion::Delete(id(1)));
    }
}
