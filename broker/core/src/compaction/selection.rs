//! What of a log can be cleaned, whether that is due, and which segments become one.

use crate::config::TopicConfig;
use crate::ids::Offset;

/// A segment as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSize {
    pub base_offset: Offset,
    pub size: u64,
    /// Milliseconds; the time of the last change without any.
    pub largest_timestamp: i64,
    /// Of the first batch, in milliseconds; only those above 0 count.
    pub first_timestamp: i64,
}

/// A log as the choice sees it.
#[derive(Clone, Debug)]
pub struct LogState<'a> {
    /// Up to where it was cleaned, as the checkpoint says.
    pub checkpoint: Option<Offset>,
    pub log_start_offset: Offset,
    pub log_end_offset: Offset,
    pub last_stable_offset: Offset,
    /// All segments, the active one last.
    pub segments: &'a [SegmentSize],
}

/// What of a log can be cleaned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cleanable {
    pub first_dirty_offset: Offset,
    /// Cleaning ends before it.
    pub first_uncleanable_offset: Offset,
    pub clean_bytes: u64,
    pub cleanable_bytes: u64,
    /// By how many milliseconds `max.compaction.lag.ms` is exceeded.
    pub overdue_ms: i64,
    /// The checkpoint does not fit the log and is to be set to the first dirty offset.
    pub resets_checkpoint: bool,
}

impl Cleanable {
    pub fn total_bytes(&self) -> u64 {
        self.clean_bytes + self.cleanable_bytes
    }

    /// The share that is dirty, 0 to 1.
    pub fn ratio(&self) -> f64 {
        match self.total_bytes() {
            0 => 0.0,
            total => self.cleanable_bytes as f64 / total as f64,
        }
    }
}

/// Finds out what of a log can be cleaned.
pub fn cleanable(log: &LogState<'_>, config: &TopicConfig, now_ms: i64) -> Cleanable {
    let checkpoint = log.checkpoint.unwrap_or(log.log_start_offset);
    let resets_checkpoint = checkpoint < log.log_start_offset || checkpoint > log.log_end_offset;
    let first_dirty_offset = if resets_checkpoint {
        log.log_start_offset
    } else {
        checkpoint
    };
    let floor = |offset: Offset| {
        let above = log
            .segments
            .partition_point(|one| one.base_offset <= offset);
        above.saturating_sub(1)
    };
    let active = log.segments.len().saturating_sub(1);
    let active_base = log.segments.last().map_or(0, |active| active.base_offset);
    let dirty = &log.segments[floor(first_dirty_offset).min(active)..active];
    let lag_ms = config.min_compaction_lag_ms.max(0);
    let too_young = dirty
        .iter()
        .find(|one| lag_ms > 0 && one.largest_timestamp > now_ms.saturating_sub(lag_ms));
    let bound = log
        .last_stable_offset
        .min(active_base)
        .min(too_young.map_or(Offset::MAX, |one| one.base_offset))
        .max(first_dirty_offset);
    // Only whole segments are cleaned.
    let first_uncleanable = log.segments.get(floor(bound).min(active));
    let first_uncleanable_offset = first_uncleanable.map_or(0, |one| one.base_offset);
    let clean = log
        .segments
        .iter()
        .take_while(|one| one.base_offset < first_dirty_offset);
    let from = floor(first_dirty_offset.min(first_uncleanable_offset));
    let cleanable = log.segments[from.min(active)..]
        .iter()
        .take_while(|one| one.base_offset < first_uncleanable_offset);
    let earliest = dirty
        .iter()
        .map(|one| one.first_timestamp)
        .filter(|timestamp| *timestamp > 0)
        .min();
    let clean_until = now_ms.saturating_sub(config.max_compaction_lag_ms.max(0));
    Cleanable {
        first_dirty_offset,
        first_uncleanable_offset,
        clean_bytes: clean.map(|one| one.size).sum(),
        cleanable_bytes: cleanable.map(|one| one.size).sum(),
        overdue_ms: earliest.map_or(0, |earliest| clean_until.saturating_sub(earliest).max(0)),
        resets_checkpoint,
    }
}

/// Whether a log has to be cleaned.
pub fn is_due(cleanable: &Cleanable, config: &TopicConfig) -> bool {
    (cleanable.overdue_ms > 0 && cleanable.cleanable_bytes > 0)
        || (cleanable.total_bytes() > 0 && cleanable.ratio() > config.min_cleanable_dirty_ratio)
}

/// Groups segments that are to become one each: where each group ends, as an index. `sizes` are the
/// bytes of base offset, batches, offset index and time index; `end` follows the last.
pub fn group_ends(
    sizes: &[(Offset, u64, u64, u64)],
    end: Offset,
    segment_bytes: u64,
    index_bytes: u64,
) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut sums: Option<(Offset, u64, u64, u64)> = None;
    for (index, &(base, size, offsets, times)) in sizes.iter().enumerate() {
        let last_offset = sizes.get(index + 1).map_or(end, |next| next.0) - 1;
        let joined = sums.map(|(first, a, b, c)| (first, a + size, b + offsets, c + times));
        let fits = joined.is_some_and(|(first, a, b, c)| {
            a <= segment_bytes
                && b <= index_bytes
                && c <= index_bytes
                && (size == 0 || last_offset - first <= Offset::from(i32::MAX))
        });
        if fits {
            sums = joined;
        } else {
            if index > 0 {
                ends.push(index);
            }
            sums = Some((base, size, offsets, times));
        }
    }
    if !sizes.is_empty() {
        ends.push(sizes.len());
    }
    ends
}
