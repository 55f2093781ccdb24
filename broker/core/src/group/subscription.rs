//! The part of a consumer's subscription that all its versions begin with (`ConsumerProtocolSubscription` v0).

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::fields::Reader;
use crate::ids::TopicName;

/// Adds the topics of a subscription; `None` if it cannot be read.
pub(super) fn topics(metadata: &Bytes, topics: &mut BTreeSet<TopicName>) -> Option<()> {
    let mut reader = Reader::new(metadata);
    let version = reader.i16().ok()?;
    if version < 0 {
        return None;
    }
    for _ in 0..reader.count().ok()? {
        topics.insert(TopicName::from(reader.string().ok()?));
    }
    Some(())
}
