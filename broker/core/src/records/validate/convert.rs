//! Messages of magic 0 and 1 from old producers: checked, and written as one batch of magic 2.

use bytes::Bytes;

use super::recompress::Rewriter;
use super::record_checks::{Candidate, RecordChecks, RecordName};
use super::{PreparedBatch, ProduceRejection, ProduceRules};
use crate::records::legacy::{self, LegacyRecord};
use crate::records::varint::{size_of_varlong, write_varlong};
use crate::records::{Compression, TimestampType, read_batch_meta};

/// Converts whole messages, whose own CRCs are checked already.
pub(super) fn to_magic_2(
    messages: &[Bytes],
    source: Compression,
    rules: &ProduceRules,
    now_ms: i64,
) -> Result<PreparedBatch, ProduceRejection> {
    let target = rules.compression.target(source);
    let mut magic = None;
    let mut rewriter = None;
    for message in messages {
        let meta = read_batch_meta(message)?;
        if *magic.get_or_insert(meta.magic) != meta.magic {
            return Err(ProduceRejection::invalid(
                "Batch magic is not the same as the first batch's magic byte",
            ));
        }
        let batch_timestamp_type = match meta.magic {
            1 => meta.timestamp_type(),
            _ => TimestampType::CreateTime,
        };
        let rewriter: &mut Rewriter<'_> = rewriter.get_or_insert_with(|| {
            let checks = RecordChecks::new(rules, now_ms, batch_timestamp_type, RecordName::Legacy);
            Rewriter::new(target, rules, now_ms, checks)
        });
        rewriter
            .checks
            .set_batch_timestamp_type(batch_timestamp_type);
        for record in legacy::deep_records(message, legacy::DECOMPRESSED_BYTES_MAX)? {
            let record = record?;
            if record.magic != meta.magic {
                rewriter.checks.add_wrong_magic(meta.magic);
                continue;
            }
            if source != Compression::None && !record.is_intact() {
                return Err(ProduceRejection::Corrupt(format!(
                    "Record is corrupt (stored crc = {}) in topic partition {}",
                    record.stored_crc(),
                    rules.partition
                )));
            }
            append(rewriter, &record);
        }
        rewriter.checks.finish()?;
    }
    rewriter
        .ok_or_else(|| ProduceRejection::invalid("no batch at all"))?
        .finish(rules)
}

fn append(rewriter: &mut Rewriter<'_>, record: &LegacyRecord) {
    let parts = [&record.key, &record.value];
    let sizes = parts.map(|part| part.as_ref().map_or(-1, |part| part.len() as i64));
    let tail_size = sizes
        .iter()
        .map(|&size| size_of_varlong(size) + size.max(0) as usize)
        .sum::<usize>();
    rewriter.begin(record.timestamp, tail_size + 1);
    let mut size_field = Vec::with_capacity(5);
    for (part, size) in parts.into_iter().zip(sizes) {
        size_field.clear();
        write_varlong(&mut size_field, size);
        rewriter.tail(&size_field);
        rewriter.tail(part.as_deref().unwrap_or_default());
    }
    rewriter.tail(&[0]); // no headers
    rewriter.checks.check(&Candidate {
        offset: record.offset,
        timestamp: record.timestamp,
        key_size: sizes[0] as i32,
        value_size: sizes[1] as i32,
    });
}
