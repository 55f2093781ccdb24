//! Batches that stay in the producer's bytes: checked, and at most given another header.

use std::cell::Cell;

use bytes::Bytes;

use super::record_checks::{Candidate, RecordChecks, RecordName};
use super::walk::{RecordSink, walk_compressed, walk_plain};
use super::{PreparedBatch, ProduceRejection, ProduceRules};
use crate::records::batch::{BatchHeader, HEADER_SIZE};
use crate::records::build::write_header;
use crate::records::record::Context;
use crate::records::{Compression, TimestampType};

thread_local! {
    /// The window that records are decompressed through.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's scratch buffer to `work`.
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut scratch = SCRATCH.take();
    let result = work(&mut scratch);
    SCRATCH.set(scratch);
    result
}

struct Checker<'a> {
    checks: RecordChecks<'a>,
    context: Context,
    offset_delta: i32,
    timestamp_delta: i64,
    is_sequential: bool,
}

impl RecordSink for Checker<'_> {
    #[inline]
    fn begin(&mut self, timestamp_delta: i64, offset_delta: i32, _tail_size: usize) {
        self.timestamp_delta = timestamp_delta;
        self.offset_delta = offset_delta;
    }

    #[inline]
    fn tail(&mut self, _bytes: &[u8]) {}

    #[inline]
    fn end(&mut self, key_size: i32, value_size: i32) {
        self.is_sequential &= self.offset_delta == self.checks.count();
        self.checks.check(&Candidate {
            offset: self.context.offset(self.offset_delta),
            timestamp: self.context.timestamp(self.timestamp_delta),
            key_size,
            value_size,
        });
    }
}

/// Checks all records of a batch that may stay as it is.
pub(super) fn keep(
    batch: Bytes,
    header: &BatchHeader,
    rules: &ProduceRules,
    now_ms: i64,
) -> Result<PreparedBatch, ProduceRejection> {
    let compression = header.compression()?;
    let name = match compression {
        Compression::None => RecordName::Whole,
        Compression::Gzip | Compression::Snappy | Compression::Lz4 | Compression::Zstd => {
            RecordName::Partial
        }
    };
    let mut checker = Checker {
        checks: RecordChecks::new(rules, now_ms, header.timestamp_type(), name),
        context: Context::of(header),
        offset_delta: 0,
        timestamp_delta: 0,
        is_sequential: true,
    };
    if compression == Compression::None {
        walk_plain(&batch[HEADER_SIZE..], header.records_count, &mut checker)?;
    } else {
        let payload = batch.slice(HEADER_SIZE..);
        with_scratch(|scratch| {
            let count = header.records_count;
            let limit = rules.decompressed_bytes_max();
            walk_compressed(compression, payload, count, limit, scratch, &mut checker)
        })?;
    }
    checker.checks.finish()?;
    if compression != Compression::None && !checker.is_sequential {
        // 3.9.1 sets out to write the batch anew, but has skipped the keys.
        return Err(ProduceRejection::Unexpected(
            "offset deltas of a compressed batch are not 0, 1, 2...".to_owned(),
        ));
    }
    let max_timestamp = match rules.timestamp_type {
        TimestampType::CreateTime => checker.checks.max_timestamp(),
        TimestampType::LogAppendTime => now_ms,
    };
    Ok(with_timestamps(
        batch,
        *header,
        rules.timestamp_type,
        max_timestamp,
    ))
}

/// Sets the type and maximum of the timestamps, with a new CRC, where they differ.
fn with_timestamps(
    batch: Bytes,
    mut header: BatchHeader,
    timestamp_type: TimestampType,
    max_timestamp: i64,
) -> PreparedBatch {
    let mut bytes = batch;
    if header.timestamp_type() != timestamp_type || header.max_timestamp != max_timestamp {
        header.attributes = header
            .attributes
            .known_bits()
            .with_timestamp_type(timestamp_type);
        header.max_timestamp = max_timestamp;
        let mut changed = bytes.to_vec();
        header.crc = write_header(&mut changed, header);
        bytes = changed.into();
    }
    PreparedBatch {
        bytes,
        header,
        max_timestamp,
        log_append_time_ms: match timestamp_type {
            TimestampType::CreateTime => -1,
            TimestampType::LogAppendTime => max_timestamp,
        },
    }
}
