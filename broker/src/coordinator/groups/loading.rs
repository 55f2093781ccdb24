//! Groups as a partition of `__consumer_offsets` has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use barnabas_core::group::records::GroupRecord;
use barnabas_core::group::{Group, Offsets};
use barnabas_core::ids::GroupId;
use barnabas_core::records::BatchMeta;
use barnabas_core::records::Record;
use indexmap::IndexMap;

use crate::coordinator::reading::{Entry, walk};
use crate::log::{LogError, PartitionLog};

/// Replays a log from its start to its end, unless `goes_on` says otherwise.
pub(super) fn load(
    log: &Arc<PartitionLog>,
    buffer_bytes: usize,
    goes_on: impl Fn() -> bool,
) -> Result<IndexMap<GroupId, Group>, LogError> {
    let mut groups: IndexMap<GroupId, Group> = IndexMap::new();
    // Groups with commits of open transactions, by producer: a marker is about few of all groups.
    let mut open: BTreeMap<i64, BTreeSet<GroupId>> = BTreeMap::new();
    walk(log, buffer_bytes, goes_on, |entry| match entry {
        Entry::Record { batch, record } => {
            if let Err(error) = replay(&mut groups, &mut open, batch, &record) {
                tracing::error!(
                    partition = %log.topic_partition(),
                    offset = record.offset,
                    %error,
                    "left out a record of a group that cannot be read"
                );
            }
        }
        Entry::Marker {
            producer_id,
            is_committed,
            offset,
        } => {
            for id in open.remove(&producer_id).unwrap_or_default() {
                if let Some(group) = groups.get_mut(&id) {
                    let offsets = &mut group.offsets;
                    offsets.replay_marker(producer_id, is_committed, offset);
                }
            }
        }
    })?;
    groups.retain(|_, group| group.is_recorded() || !group.offsets.is_empty());
    Ok(groups)
}

fn replay(
    groups: &mut IndexMap<GroupId, Group>,
    open: &mut BTreeMap<i64, BTreeSet<GroupId>>,
    batch: &BatchMeta,
    record: &Record,
) -> Result<(), barnabas_core::group::records::GroupRecordError> {
    let decoded = GroupRecord::decode(record.key.as_ref(), record.value.as_ref())?;
    let Some(id) = decoded.group() else {
        tracing::warn!(
            offset = record.offset,
            ?decoded,
            "passed over an unknown record of a group"
        );
        return Ok(());
    };
    let group = if let Some(group) = groups.get_mut(id) {
        group
    } else {
        let id = Arc::clone(id);
        groups
            .entry(Arc::clone(&id))
            .or_insert_with(|| Group::new(id))
    };
    match decoded {
        GroupRecord::Offset {
            partition,
            commit: Some(commit),
            ..
        } if batch.is_transactional => {
            let offsets = &mut group.offsets;
            offsets.replay_transactional(batch.producer_id, &partition, commit, record.offset);
            let groups = open.entry(batch.producer_id).or_default();
            groups.insert(Arc::clone(group.id()));
        }
        GroupRecord::Group {
            generation: None, ..
        } => {
            // The group is gone, but not offsets that were committed without it.
            let offsets: Offsets = std::mem::take(&mut group.offsets);
            *group = Group::new(Arc::clone(group.id()));
            group.offsets = offsets;
        }
        decoded @ (GroupRecord::Offset { .. }
        | GroupRecord::Group { .. }
        | GroupRecord::Unknown { .. }) => group.replay(&decoded, record.offset),
    }
    Ok(())
}
