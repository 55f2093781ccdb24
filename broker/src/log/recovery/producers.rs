//! Bringing producers to the state at some offset.

use std::sync::Arc;

use barnabas_core::ids::Offset;

use super::Stop;
use crate::log::error::StorageError;
use crate::log::producer_state::{ProducerState, producer_batch};
use crate::log::scan::ScanError;
use crate::log::segment::Segment;

/// Damage below what is recovered stays where it is, as in Kafka; only the disk's own errors count.
pub(super) fn tolerate_damage(result: Result<(), ScanError>) -> Result<(), StorageError> {
    match result {
        Ok(()) => Ok(()),
        Err(ScanError::Storage(error)) => Err(error),
        Err(error @ ScanError::Broken { .. }) => {
            tracing::warn!(%error, "a damaged batch below the recovery point is left alone");
            Ok(())
        }
    }
}

/// Brings producers to the state at `last_offset`: from the newest snapshot and the batches after it.
pub(in crate::log) fn rebuild_producers(
    producers: &mut ProducerState,
    segments: &[Arc<Segment>],
    log_start_offset: Offset,
    last_offset: Offset,
    now_ms: i64,
    stop: Stop,
) -> Result<(), ScanError> {
    bring_producers(
        producers,
        segments,
        log_start_offset,
        last_offset,
        now_ms,
        stop,
    )?;
    Ok(producers.remove_outdated()?)
}

/// As [`rebuild_producers`], but snapshots that do not count any more stay for now: a recovery is
/// likely to find that they are right.
pub(super) fn bring_producers(
    producers: &mut ProducerState,
    segments: &[Arc<Segment>],
    log_start_offset: Offset,
    last_offset: Offset,
    now_ms: i64,
    stop: Stop,
) -> Result<(), ScanError> {
    let bases: Vec<Offset> = segments.iter().map(|s| s.base_offset()).collect();
    let snapshot_at = &bases[bases.len().saturating_sub(2)..];
    if stop == Stop::Clean && !producers.has_snapshots() {
        // Kafka takes such a log for one of an old version, without idempotent producers.
        for offset in snapshot_at.iter().chain([&last_offset]) {
            producers.set_end_offset(*offset);
            producers.take_snapshot()?;
        }
        return Ok(());
    }
    let was_empty = producers.producers.is_empty() && producers.end_offset() >= last_offset;
    producers.reload(log_start_offset, last_offset, now_ms)?;
    if last_offset > producers.end_offset() && !was_empty {
        let first = bases
            .partition_point(|base| *base <= producers.end_offset())
            .saturating_sub(1);
        for segment in segments.get(first..).unwrap_or_default() {
            if segment.base_offset() >= last_offset {
                break;
            }
            let from = segment
                .base_offset()
                .max(producers.end_offset())
                .max(log_start_offset);
            producers.set_end_offset(from);
            if snapshot_at.contains(&segment.base_offset()) {
                producers.take_snapshot()?;
            }
            replay_segment(producers, segment, from, last_offset)?;
        }
    }
    producers.set_end_offset(last_offset);
    producers.take_snapshot()?;
    Ok(())
}

fn replay_segment(
    producers: &mut ProducerState,
    segment: &Segment,
    from: Offset,
    last_offset: Offset,
) -> Result<(), ScanError> {
    let file = segment.handle()?;
    let size = segment.size();
    let Some(start) = segment.locate(&*file, from, size)? else {
        return Ok(());
    };
    let mut scan = segment.scan(&*file, start.position, size);
    while let Some((_, meta, bytes)) = scan.next_whole()? {
        if meta.base_offset >= last_offset {
            break;
        }
        producers.replay(producer_batch(&meta, bytes).as_ref(), meta.next_offset());
    }
    Ok(())
}
