//! The markers that end transactions, as producers' state takes them.

use barnabas_core::partition::producers::Marker;
use barnabas_core::records::{ControlRecord, records};
use bytes::Bytes;

/// The marker in a control batch; `None` if compaction has emptied it, or it is of another kind.
pub(crate) fn marker(batch: &[u8]) -> Option<Marker> {
    let record = records(&Bytes::copy_from_slice(batch)).ok()?.next()?.ok()?;
    let (is_abort, coordinator_epoch) = match ControlRecord::parse(&record).ok()? {
        ControlRecord::Abort { coordinator_epoch } => (true, coordinator_epoch),
        ControlRecord::Commit { coordinator_epoch } => (false, coordinator_epoch),
        ControlRecord::Unknown(_) => return None,
    };
    Some(Marker {
        is_abort,
        coordinator_epoch,
        timestamp: record.timestamp,
    })
}
