//! Building batches: markers, internal topics, tests.

use bytes::Bytes;

use super::batch::{
    self, Attributes, BatchHeader, HEADER_SIZE, LOG_OVERHEAD, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP,
};
use super::codec::{Codec, Encoder};
use super::varint::{size_of_varlong, write_varlong};
use super::{Compression, TimestampType};
use crate::ids::Offset;

/// Writes one batch of magic 2, record by record.
pub struct BatchBuilder {
    header: BatchHeader,
    log_append_time: Option<i64>,
    delete_horizon: Option<i64>,
    base_timestamp: Option<i64>,
    encoder: Encoder,
    record: Vec<u8>,
    head: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch with base offset 0, without producer, with the timestamps of its records.
    pub fn new(compression: Compression) -> Self {
        Self::with_codec(Codec::with_default_level(compression))
    }

    pub fn with_codec(codec: Codec) -> Self {
        Self {
            header: BatchHeader {
                base_offset: 0,
                batch_length: 0,
                partition_leader_epoch: NO_LEADER_EPOCH,
                magic: 2,
                crc: 0,
                attributes: Attributes::new(codec.compression, TimestampType::CreateTime),
                last_offset_delta: -1,
                base_timestamp: NO_TIMESTAMP,
                max_timestamp: NO_TIMESTAMP,
                producer_id: NO_PRODUCER_ID,
                producer_epoch: NO_PRODUCER_EPOCH,
                base_sequence: NO_SEQUENCE,
                records_count: 0,
            },
            log_append_time: None,
            delete_horizon: None,
            base_timestamp: None,
            encoder: Encoder::new(codec, 2, vec![0; HEADER_SIZE]),
            record: Vec::new(),
            head: Vec::new(),
        }
    }

    #[must_use]
    pub fn base_offset(mut self, base_offset: Offset) -> Self {
        self.header.base_offset = base_offset;
        self
    }

    #[must_use]
    pub fn leader_epoch(mut self, leader_epoch: i32) -> Self {
        self.header.partition_leader_epoch = leader_epoch;
        self
    }

    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.attributes = self.header.attributes.with_transactional(true);
        self
    }

    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.attributes = self.header.attributes.with_control(true);
        self
    }

    /// Gives all records one time, the leader's; milliseconds.
    #[must_use]
    pub fn log_append_time(mut self, now_ms: i64) -> Self {
        self.header.attributes = self
            .header
            .attributes
            .with_timestamp_type(TimestampType::LogAppendTime);
        self.log_append_time = Some(now_ms);
        self
    }

    /// Sets the time after which tombstones may go; milliseconds.
    #[must_use]
    pub fn delete_horizon(mut self, horizon_ms: i64) -> Self {
        self.header.attributes = self.header.attributes.with_delete_horizon(true);
        self.delete_horizon = Some(horizon_ms);
        self
    }

    /// Appends a record behind the last.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let offset_delta = self.header.last_offset_delta.wrapping_add(1);
        self.push_at(offset_delta, timestamp, key, value, headers);
    }

    /// Appends a record with an offset delta of its own: cleaned batches have gaps.
    pub fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let mut tail = std::mem::take(&mut self.record);
        tail.clear();
        write_part(&mut tail, key);
        write_part(&mut tail, value);
        write_varlong(&mut tail, headers.len() as i64);
        for (name, value) in headers {
            write_part(&mut tail, Some(name));
            write_part(&mut tail, *value);
        }
        self.begin_record(offset_delta, timestamp, tail.len());
        self.write_tail(&tail);
        self.record = tail;
    }

    /// Appends a record whose key, value and headers are encoded already, as [`super::RecordView::tail`] has
    /// them.
    pub fn push_tail(&mut self, offset_delta: i32, timestamp: i64, tail: &[u8]) {
        self.begin_record(offset_delta, timestamp, tail.len());
        self.write_tail(tail);
    }

    /// Writes everything of a record that stands before its key; `tail_size` bytes must follow through
    /// [`Self::write_tail`].
    pub(super) fn begin_record(&mut self, offset_delta: i32, timestamp: i64, tail_size: usize) {
        let base = *self
            .base_timestamp
            .get_or_insert(self.delete_horizon.unwrap_or(timestamp));
        let timestamp_delta = timestamp.wrapping_sub(base);
        let size = 1
            + size_of_varlong(timestamp_delta)
            + size_of_varlong(i64::from(offset_delta))
            + tail_size;
        let head = &mut self.head;
        head.clear();
        write_varlong(head, size as i64);
        head.push(0);
        write_varlong(head, timestamp_delta);
        write_varlong(head, i64::from(offset_delta));
        self.encoder.write(head);
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        self.header.last_offset_delta = offset_delta;
        self.header.records_count += 1;
    }

    pub(super) fn write_tail(&mut self, bytes: &[u8]) {
        self.encoder.write(bytes);
    }

    /// The number of records so far.
    pub fn len(&self) -> usize {
        self.header.records_count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.header.records_count == 0
    }

    /// Bytes of the batch so far, as far as the codec has let go of them.
    pub fn size_in_bytes(&self) -> usize {
        self.encoder.written()
    }

    /// The whole batch with its CRC. The last offset delta may be raised (never lowered) to keep the
    /// last offset of a batch whose last records are gone.
    pub fn build_up_to(mut self, last_offset_delta: i32) -> Bytes {
        self.header.last_offset_delta = self.header.last_offset_delta.max(last_offset_delta);
        self.build()
    }

    /// The whole batch with its CRC.
    pub fn build(self) -> Bytes {
        let mut header = self.header;
        let mut bytes = self.encoder.finish();
        header.batch_length = (bytes.len() - LOG_OVERHEAD) as i32;
        header.base_timestamp = self
            .delete_horizon
            .or(self.base_timestamp)
            .unwrap_or(NO_TIMESTAMP);
        if let Some(log_append_time) = self.log_append_time {
            header.max_timestamp = log_append_time;
        }
        write_header(&mut bytes, header);
        bytes.into()
    }
}

impl BatchBuilder {
    /// A batch that is nothing but this header, with the size and the CRC that fit.
    pub fn empty(mut header: BatchHeader) -> Bytes {
        let mut bytes = vec![0; HEADER_SIZE];
        header.batch_length = (HEADER_SIZE - LOG_OVERHEAD) as i32;
        write_header(&mut bytes, header);
        bytes.into()
    }
}

/// Puts `header` in front of the records in `batch`, with the CRC that fits; gives back that CRC.
pub(super) fn write_header(batch: &mut [u8], mut header: BatchHeader) -> u32 {
    batch[..HEADER_SIZE].copy_from_slice(&header.to_bytes());
    header.crc = crc32c::crc32c(&batch[batch::field::ATTRIBUTES..]);
    batch::put(batch, batch::field::CRC, header.crc.to_be_bytes());
    header.crc
}

fn write_part(out: &mut Vec<u8>, part: Option<&[u8]>) {
    match part {
        Some(bytes) => {
            write_varlong(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => write_varlong(out, -1),
    }
}
