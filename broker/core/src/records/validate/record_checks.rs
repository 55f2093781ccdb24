//! The rules each record must meet (`LogValidator.validateRecord`), kept apart from how it is found.

use super::{ProduceRejection, ProduceRules};
use crate::records::TimestampType;
use crate::records::batch::NO_TIMESTAMP;

/// So many faulty records are described one by one; Kafka describes all of them, whatever their number.
const RECORD_ERRORS_MAX: usize = 10_000;

/// How Kafka names a record in a message, which depends on how it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordName {
    Whole,
    /// Keys and values were skipped.
    Partial,
    /// Magic 0 or 1.
    Legacy,
}

/// One record, as far as the rules care.
pub(super) struct Candidate {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    /// Negative if there is no key.
    pub(super) key_size: i32,
    /// Negative if there is no value.
    pub(super) value_size: i32,
}

/// Checks records one after the other and gathers what is wrong.
pub(super) struct RecordChecks<'a> {
    rules: &'a ProduceRules,
    now_ms: i64,
    batch_timestamp_type: TimestampType,
    name: RecordName,
    index: i32,
    max_timestamp: i64,
    errors: Vec<(i32, String)>,
    errors_count: usize,
    any_timestamp_error: bool,
}

impl<'a> RecordChecks<'a> {
    pub(super) fn new(
        rules: &'a ProduceRules,
        now_ms: i64,
        batch_timestamp_type: TimestampType,
        name: RecordName,
    ) -> Self {
        Self {
            rules,
            now_ms,
            batch_timestamp_type,
            name,
            index: 0,
            max_timestamp: NO_TIMESTAMP,
            errors: Vec::new(),
            errors_count: 0,
            any_timestamp_error: false,
        }
    }

    /// The next records belong to another message.
    pub(super) fn set_batch_timestamp_type(&mut self, timestamp_type: TimestampType) {
        self.batch_timestamp_type = timestamp_type;
    }

    /// The number of records checked so far.
    pub(super) fn count(&self) -> i32 {
        self.index
    }

    /// The largest timestamp so far, -1 if there was none.
    pub(super) fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    #[inline]
    pub(super) fn check(&mut self, record: &Candidate) {
        if self.rules.is_compacted && record.key_size < 0 {
            self.null_key();
        } else if self.rules.timestamp_type == TimestampType::CreateTime
            && record.timestamp != NO_TIMESTAMP
        {
            let age = self.now_ms.wrapping_sub(record.timestamp);
            if age > self.rules.timestamp_before_max_ms
                || age.wrapping_neg() > self.rules.timestamp_after_max_ms
            {
                self.out_of_range(record);
            }
        } else if self.batch_timestamp_type == TimestampType::LogAppendTime {
            self.sent_log_append_time(record);
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.index = self.index.wrapping_add(1);
    }

    #[cold]
    fn null_key(&mut self) {
        self.add(format!(
            "Compacted topic cannot accept message without key in topic partition {}",
            self.rules.partition
        ));
    }

    #[cold]
    fn out_of_range(&mut self, record: &Candidate) {
        self.any_timestamp_error = true;
        self.add(format!(
            "Timestamp {} of message with offset {} is out of range. The timestamp should be within [{}, {}]",
            record.timestamp,
            record.offset,
            self.now_ms.wrapping_sub(self.rules.timestamp_before_max_ms),
            self.now_ms.wrapping_add(self.rules.timestamp_after_max_ms),
        ));
    }

    #[cold]
    fn sent_log_append_time(&mut self, record: &Candidate) {
        self.any_timestamp_error = true;
        let (name, key_size, value_size) = match self.name {
            RecordName::Whole => (
                "DefaultRecord",
                record.key_size.max(0),
                record.value_size.max(0),
            ),
            RecordName::Partial => ("PartialDefaultRecord", record.key_size, record.value_size),
            RecordName::Legacy => (
                "LegacyRecord",
                record.key_size.max(0),
                record.value_size.max(0),
            ),
        };
        self.add(format!(
            "Invalid timestamp type in message {name}(offset={}, timestamp={}, key={key_size} bytes, \
             value={value_size} bytes). Producer should not set timestamp type to LogAppendTime.",
            record.offset, record.timestamp,
        ));
    }

    /// A record of another magic than its wrapper.
    pub(super) fn add_wrong_magic(&mut self, outer: i8) {
        self.add(format!(
            "Record's magic does not match outer magic {outer} in topic partition {}",
            self.rules.partition
        ));
        self.index = self.index.wrapping_add(1);
    }

    fn add(&mut self, message: String) {
        self.errors_count += 1;
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push((self.index, message));
        }
    }

    /// Any faulty record refuses the whole batch.
    pub(super) fn finish(&mut self) -> Result<(), ProduceRejection> {
        if self.errors_count == 0 {
            return Ok(());
        }
        let record_errors = std::mem::take(&mut self.errors);
        if self.any_timestamp_error {
            return Err(ProduceRejection::InvalidTimestamp {
                message: "One or more records have been rejected due to invalid timestamp"
                    .to_owned(),
                record_errors,
            });
        }
        let shown: Vec<String> = record_errors
            .iter()
            .take(3)
            .map(|(index, message)| format!("RecordError(batchIndex={index}, message='{message}')"))
            .collect();
        Err(ProduceRejection::InvalidRecord {
            message: format!(
                "One or more records have been rejected due to {} record errors in total, and only \
                 showing the first three errors at most: [{}]",
                self.errors_count,
                shown.join(", ")
            ),
            record_errors,
        })
    }
}
