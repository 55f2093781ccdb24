//! Batches that are stored in another codec than they came in: checked and written anew in one pass.

use bytes::Bytes;

use super::keep::with_scratch;
use super::record_checks::{Candidate, RecordChecks, RecordName};
use super::walk::{RecordSink, walk_compressed, walk_plain};
use super::{PreparedBatch, ProduceRejection, ProduceRules, check_size};
use crate::records::batch::{BatchHeader, HEADER_SIZE, NO_TIMESTAMP};
use crate::records::build::BatchBuilder;
use crate::records::codec::Codec;
use crate::records::record::Context;
use crate::records::{Compression, TimestampType};

/// Checks records and appends them to a new batch with offset deltas 0, 1, 2...
pub(super) struct Rewriter<'a> {
    pub(super) checks: RecordChecks<'a>,
    builder: BatchBuilder,
    limit: usize,
    /// Stays set once the new batch has grown beyond the limit; then nothing more is written.
    is_too_large: bool,
    any_negative_timestamp: bool,
}

impl<'a> Rewriter<'a> {
    pub(super) fn new(
        target: Codec,
        rules: &'a ProduceRules,
        now_ms: i64,
        checks: RecordChecks<'a>,
    ) -> Self {
        let mut builder = BatchBuilder::with_codec(target);
        if rules.timestamp_type == TimestampType::LogAppendTime {
            builder = builder.log_append_time(now_ms);
        }
        Self {
            checks,
            builder,
            limit: rules.max_message_bytes.max(0) as usize,
            is_too_large: false,
            any_negative_timestamp: false,
        }
    }

    fn map_builder(&mut self, change: impl FnOnce(BatchBuilder) -> BatchBuilder) {
        let builder = std::mem::replace(
            &mut self.builder,
            BatchBuilder::with_codec(Codec::with_default_level(Compression::None)),
        );
        self.builder = change(builder);
    }

    pub(super) fn begin(&mut self, timestamp: i64, tail_size: usize) {
        self.any_negative_timestamp |= timestamp < 0 && timestamp != NO_TIMESTAMP;
        self.is_too_large |= self.builder.size_in_bytes() > self.limit;
        if !self.is_too_large {
            let offset_delta = self.checks.count();
            self.builder
                .begin_record(offset_delta, timestamp, tail_size);
        }
    }

    pub(super) fn tail(&mut self, bytes: &[u8]) {
        self.is_too_large |= self.builder.size_in_bytes() > self.limit;
        if !self.is_too_large {
            self.builder.write_tail(bytes);
        }
    }

    pub(super) fn finish(
        mut self,
        rules: &ProduceRules,
    ) -> Result<PreparedBatch, ProduceRejection> {
        self.checks.finish()?;
        if self.any_negative_timestamp {
            // Kafka's builder throws where its validation did not mind.
            return Err(ProduceRejection::Unexpected(
                "Invalid negative timestamp".to_owned(),
            ));
        }
        if self.is_too_large {
            return Err(ProduceRejection::MessageTooLarge {
                size: self.builder.size_in_bytes(),
                limit: self.limit,
            });
        }
        let bytes = self.builder.build();
        check_size(bytes.len(), rules)?;
        Ok(PreparedBatch::from_own(bytes)?)
    }
}

struct FromBatch<'a> {
    rewriter: Rewriter<'a>,
    context: Context,
    offset: i64,
    timestamp: i64,
}

impl RecordSink for FromBatch<'_> {
    fn begin(&mut self, timestamp_delta: i64, offset_delta: i32, tail_size: usize) {
        self.offset = self.context.offset(offset_delta);
        self.timestamp = self.context.timestamp(timestamp_delta);
        self.rewriter.begin(self.timestamp, tail_size);
    }

    fn tail(&mut self, bytes: &[u8]) {
        self.rewriter.tail(bytes);
    }

    fn end(&mut self, key_size: i32, value_size: i32) {
        self.rewriter.checks.check(&Candidate {
            offset: self.offset,
            timestamp: self.timestamp,
            key_size,
            value_size,
        });
    }
}

/// Checks all records of a batch and writes them in the target codec.
pub(super) fn recompress(
    batch: &Bytes,
    header: &BatchHeader,
    target: Codec,
    rules: &ProduceRules,
    now_ms: i64,
) -> Result<PreparedBatch, ProduceRejection> {
    let checks = RecordChecks::new(rules, now_ms, header.timestamp_type(), RecordName::Whole);
    let mut rewriter = Rewriter::new(target, rules, now_ms, checks);
    rewriter.map_builder(|builder| {
        let builder = builder
            .leader_epoch(header.partition_leader_epoch)
            .producer(
                header.producer_id,
                header.producer_epoch,
                header.base_sequence,
            );
        if header.is_transactional() {
            builder.transactional()
        } else {
            builder
        }
    });
    let mut sink = FromBatch {
        rewriter,
        context: Context::of(header),
        offset: 0,
        timestamp: NO_TIMESTAMP,
    };
    let source = header.compression()?;
    let payload = batch.slice(HEADER_SIZE..);
    let count = header.records_count;
    if source == Compression::None {
        walk_plain(&payload, count, &mut sink)?;
    } else {
        with_scratch(|scratch| {
            let limit = rules.decompressed_bytes_max();
            walk_compressed(source, payload, count, limit, scratch, &mut sink)
        })?;
    }
    sink.rewriter.finish(rules)
}
